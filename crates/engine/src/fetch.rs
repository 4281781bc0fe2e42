//! Bringing content to disk: gathering chunks from wherever they are, and writing files of them.
//!
//! Chunks come from the old version of a file that changes, from packets, and from packs; each is proven by its id.
//! Memory is bounded: files are written in groups of at most a window, and a larger one window by window.
//! Such a file grows under a name made of its content; what an earlier round left of it is verified and taken over.
//! A chunk that cannot be had concerns its file alone. Nothing here decides where a file goes.

use std::collections::HashMap;
use std::io;
use std::ops::ControlFlow;
use std::sync::Arc;

use packetboat_core::content::{ChunkList, ChunkRef, FileContent, MAX_CHUNK_BYTES};
use packetboat_core::ids::{ChunkId, Dot};
use packetboat_core::keys::KeyRing;
use packetboat_core::name::{Name, RelPath};
use packetboat_core::packet::SealedPacket;
use packetboat_core::store::{ObjectName, Store, StoreError};
use packetboat_replica::fs::{Fs, FsFile, Stat};
use packetboat_replica::index::{ChunkPlace, Index};
use packetboat_storage::fetch::{self, FetchError};

use crate::error::SyncError;
use crate::prepare::decode_chunk_list;

/// A file to write.
#[derive(Clone, Debug)]
pub(crate) struct FileJob {
    /// Where; nothing is there yet.
    pub(crate) path: RelPath,
    /// What it holds.
    pub(crate) file: FileContent,
    /// Permission bits.
    pub(crate) mode: u32,
    /// Extended attributes.
    pub(crate) xattrs: Vec<(Vec<u8>, Vec<u8>)>,
    /// A file on this disk that shares chunks with it.
    pub(crate) old: Option<OldFile>,
    /// Whether to bring it to stable storage at once.
    pub(crate) sync: bool,
}

/// A file on this disk and the chunks that it had.
#[derive(Clone, Debug)]
pub(crate) struct OldFile {
    /// Where it is.
    pub(crate) path: RelPath,
    /// Its chunks in order.
    pub(crate) chunks: Vec<ChunkRef>,
}

/// A file that was written.
#[derive(Clone, Debug)]
pub(crate) struct Written {
    /// What `stat` said of it.
    pub(crate) stat: Stat,
    /// The extended attributes that the file system took.
    pub(crate) xattrs: Vec<(Vec<u8>, Vec<u8>)>,
}

/// Why a file was not written.
#[derive(Debug)]
pub(crate) enum WriteError {
    /// Its content cannot be had now.
    Content(String),
    /// The disk refused.
    Disk(io::Error),
}

/// Gathers chunks and writes files.
pub(crate) struct Fetcher<'a> {
    pub(crate) fs: &'a dyn Fs,
    pub(crate) index: &'a Index,
    pub(crate) store: &'a dyn Store,
    pub(crate) ring: &'a KeyRing,
    pub(crate) threads: usize,
    /// Bytes of plaintext in memory at a time; one chunk may exceed it.
    pub(crate) window: u64,
    pub(crate) packets: &'a mut OpenedPackets,
    /// Whether all that is written will be synced as a whole afterwards.
    pub(crate) write_behind: bool,
    /// The first failure of the intermediary as a whole.
    pub(crate) failed: Option<StoreError>,
}

/// The chunks of the packets that were opened last.
#[derive(Default)]
pub(crate) struct OpenedPackets(Vec<(Dot, InlineChunks)>);

type InlineChunks = HashMap<ChunkId, Arc<Vec<u8>>>;
type InlineAnswer = Result<Option<Arc<Vec<u8>>>, String>;
type Chunks = HashMap<ChunkId, Result<Arc<Vec<u8>>, String>>;

/// The content of a group of files, ready to be written.
struct Gathered {
    lists: Vec<Result<Vec<ChunkRef>, String>>,
    chunks: Chunks,
}

impl Gathered {
    /// Writes the files; answers for each, in order.
    fn write(&self, fs: &dyn Fs, jobs: &[FileJob], in_threads: bool) -> Vec<Result<Written, WriteError>> {
        let write = |job: &FileJob, list: &Result<Vec<ChunkRef>, String>| match list {
            Ok(list) => write_small(fs, job, list, &self.chunks),
            Err(text) => Err(WriteError::Content(text.clone())),
        };
        let run = |jobs: &[FileJob], lists: &[Result<Vec<ChunkRef>, String>]| {
            jobs.iter().zip(lists).map(|(job, list)| write(job, list)).collect::<Vec<_>>()
        };
        if !in_threads || jobs.len() < 2 {
            return run(jobs, &self.lists);
        }
        // Two keep a disk busy; more only queue up in one directory's lock.
        let half = jobs.len() / 2;
        std::thread::scope(|scope| {
            let second = scope.spawn(|| run(&jobs[half..], &self.lists[half..]));
            let mut results = run(&jobs[..half], &self.lists[..half]);
            results.extend(second.join().expect("writing does not panic"));
            results
        })
    }
}

impl Fetcher<'_> {
    /// Writes files; answers for each, in order. `progress` is told of bytes written.
    ///
    /// While the files of one group are written, the content of the next is gathered; both are in memory then, and make up
    /// the window together. What was written is brought to the disk meanwhile, so that whoever syncs it all waits less;
    /// nothing is promised of it before they do.
    pub(crate) fn write(
        &mut self,
        jobs: &[FileJob],
        progress: &mut dyn FnMut(u64),
    ) -> Result<Vec<Result<Written, WriteError>>, SyncError> {
        let mut results = Vec::with_capacity(jobs.len());
        let in_threads = self.threads > 1;
        let limit = if in_threads { self.window / 2 } else { self.window };
        std::thread::scope(|scope| {
            let mut writing: Option<std::thread::ScopedJoinHandle<'_, Vec<Result<Written, WriteError>>>> = None;
            let mut behind = WriteBehind { fs: self.fs, bytes: 0, running: None };
            let mut at = 0;
            while at < jobs.len() {
                let large = jobs[at].file.size > self.window;
                let group = if large { &jobs[at..=at] } else { self.next_group(&jobs[at..], limit) };
                let gathered = if large { None } else { Some(self.group(group)?) };
                if let Some(earlier) = writing.take() {
                    results.extend(earlier.join().expect("writing does not panic"));
                }
                match gathered {
                    None => results.push(self.large(&group[0], progress)?),
                    Some(gathered) => {
                        let fs = self.fs;
                        if in_threads {
                            if self.write_behind {
                                behind.wrote(scope, group.iter().map(|job| job.file.size).sum())?;
                            }
                            writing = Some(scope.spawn(move || gathered.write(fs, group, true)));
                        } else {
                            results.extend(gathered.write(fs, group, false));
                        }
                        progress(group.iter().map(|job| job.file.size).sum());
                    }
                }
                at += group.len();
            }
            if let Some(last) = writing {
                results.extend(last.join().expect("writing does not panic"));
            }
            behind.finish()?;
            Ok(results)
        })
    }

    /// The files that are gathered together next: at least one.
    fn next_group<'j>(&self, jobs: &'j [FileJob], limit: u64) -> &'j [FileJob] {
        let mut bytes = 0;
        let group = jobs.iter().take_while(|job| {
            bytes += job.file.size;
            job.file.size <= self.window && bytes <= limit
        });
        &jobs[..group.count().max(1)]
    }

    /// Gathers the content of files that are small together.
    fn group(&mut self, jobs: &[FileJob]) -> Result<Gathered, SyncError> {
        let _reading = self.index.reading()?;
        let mut lists = Vec::with_capacity(jobs.len());
        let mut chunks = Chunks::new();
        for job in jobs {
            let list = self.chunk_list(&job.file)?;
            if let (Ok(list), Some(old)) = (&list, &job.old) {
                let mut reader = OldReader::open(self.fs, self.ring, old);
                for chunk in list {
                    if let Some(plain) = reader.take(chunk)? {
                        chunks.insert(chunk.id, Ok(Arc::new(plain)));
                    }
                }
            }
            lists.push(list);
        }
        let wanted: Vec<ChunkRef> = lists.iter().flatten().flatten().copied().collect();
        self.gather(&wanted, &mut chunks)?;
        Ok(Gathered { lists, chunks })
    }

    /// Writes a file window by window, going on where an earlier round was stopped.
    fn large(
        &mut self,
        job: &FileJob,
        progress: &mut dyn FnMut(u64),
    ) -> Result<Result<Written, WriteError>, SyncError> {
        let list = match self.chunk_list(&job.file)? {
            Ok(list) => list,
            Err(text) => return Ok(Err(WriteError::Content(text))),
        };
        let part = part_path(&job.file);
        let before = before_path(&job.file);
        match self.begin_part(&part, &before, job.file.size) {
            Ok(file) => self.fill(job, &list, file, (&part, &before), progress),
            Err(error) => Ok(Err(WriteError::Disk(error))),
        }
    }

    /// Makes a fresh part; what was there before is put aside to be read from.
    fn begin_part(&self, part: &RelPath, before: &RelPath, size: u64) -> io::Result<Box<dyn FsFile>> {
        let file = match self.fs.create_new(part) {
            Err(error) if error.kind() == io::ErrorKind::AlreadyExists => {
                // Of two remainders the longer is worth more.
                let length = |path| self.fs.lstat(path).map_or(0, |stat| stat.size);
                if length(before) >= length(part) && self.fs.lstat(before).is_ok() {
                    self.fs.unlink(part)?;
                } else {
                    gone_is_fine(self.fs.unlink(before))?;
                    self.fs.rename_over(part, before)?;
                }
                self.fs.create_new(part)
            }
            other => other,
        };
        let mut file = file?;
        file.reserve(size)?;
        Ok(file)
    }

    fn fill(
        &mut self,
        job: &FileJob,
        list: &[ChunkRef],
        mut file: Box<dyn FsFile>,
        (part, before): (&RelPath, &RelPath),
        progress: &mut dyn FnMut(u64),
    ) -> Result<Result<Written, WriteError>, SyncError> {
        let (fs, ring) = (self.fs, self.ring);
        let mut earlier = OldReader::open(fs, ring, &OldFile { path: before.clone(), chunks: list.to_vec() });
        let mut old = job.old.as_ref().map(|old| OldReader::open(fs, ring, old));
        for window in windows(list, self.window) {
            let mut chunks = Chunks::new();
            for chunk in window {
                let mut found = earlier.take(chunk)?;
                if let (None, Some(old)) = (&found, &mut old) {
                    found = old.take(chunk)?;
                }
                if let Some(plain) = found {
                    chunks.insert(chunk.id, Ok(Arc::new(plain)));
                }
            }
            self.gather(window, &mut chunks)?;
            for chunk in window {
                match &chunks[&chunk.id] {
                    Ok(plain) => {
                        if let Err(error) = file.write_all(plain) {
                            return Ok(Err(WriteError::Disk(error)));
                        }
                        progress(plain.len() as u64);
                    }
                    Err(text) => return Ok(Err(WriteError::Content(text.clone()))),
                }
            }
        }
        let finished = finish(fs, job, part, file).and_then(|written| {
            fs.rename_new(part, &job.path)?;
            gone_is_fine(fs.unlink(before))?;
            Ok(written)
        });
        Ok(finished.map_err(WriteError::Disk))
    }

    /// A file's own chunks; checked against its size and id, because whoever wrote the packet may have erred.
    pub(crate) fn chunk_list(&mut self, file: &FileContent) -> Result<Result<Vec<ChunkRef>, String>, SyncError> {
        let list = match &file.chunks {
            ChunkList::Inline(list) => list.clone(),
            ChunkList::Indirect(parts) => {
                let mut chunks = Chunks::new();
                self.gather(parts, &mut chunks)?;
                let mut bytes = Vec::new();
                for part in parts {
                    match &chunks[&part.id] {
                        Ok(plain) => bytes.extend_from_slice(plain),
                        Err(text) => return Ok(Err(text.clone())),
                    }
                }
                match decode_chunk_list(&bytes) {
                    Ok(list) => list,
                    Err(_) => return Ok(Err("the list of its chunks is damaged".into())),
                }
            }
        };
        let size: u64 = list.iter().map(|chunk| u64::from(chunk.len)).sum();
        let sound = list.iter().all(|chunk| (1..=MAX_CHUNK_BYTES).contains(&chunk.len))
            && size == file.size
            && self.ring.content_id(list.iter().map(|chunk| &chunk.id)) == file.id;
        Ok(if sound { Ok(list) } else { Err("its chunks do not make up what was named".into()) })
    }

    /// Finds the wanted chunks that are not there yet; each gets an answer.
    fn gather(&mut self, wanted: &[ChunkRef], chunks: &mut Chunks) -> Result<(), SyncError> {
        let mut packed = Vec::new();
        let mut inline: Vec<(Dot, ChunkRef)> = Vec::new();
        for chunk in wanted {
            if chunks.contains_key(&chunk.id) {
                continue;
            }
            let answer = match self.index.chunk_place(&chunk.id)? {
                Some(ChunkPlace::Pack { pack, epoch, offset, sealed_len }) => {
                    packed.push((*chunk, fetch::ChunkPlace { pack, epoch, offset, sealed_len }));
                    "it was not answered"
                }
                Some(ChunkPlace::Packet { dot }) => {
                    inline.push((dot, *chunk));
                    "the packet that should hold a part of it does not"
                }
                None => "a part of it is stored nowhere that is known",
            };
            chunks.insert(chunk.id, Err(answer.into()));
        }
        inline.sort_by_key(|(dot, _)| *dot);
        for (dot, chunk) in inline {
            match self.inline_chunk(dot, &chunk)? {
                Ok(Some(plain)) => drop(chunks.insert(chunk.id, Ok(plain))),
                Ok(None) => {}
                Err(text) => drop(chunks.insert(chunk.id, Err(text))),
            }
        }
        let mut failed = None;
        let _: ControlFlow<()> = fetch::fetch_chunks(self.store, self.ring, &packed, self.threads, |at, answer| {
            let answer = answer.map(Arc::new).map_err(|error| {
                let text = describe(&error);
                if let FetchError::Unread { source } = error
                    && matches!(*source, StoreError::Io { .. })
                {
                    failed.get_or_insert(source);
                }
                text
            });
            chunks.insert(packed[at].0.id, answer);
            ControlFlow::Continue(())
        });
        if let Some(source) = failed {
            let name = "a pack".into();
            self.fail(StoreError::Io { action: "read", name, source: io::Error::other(source) });
        }
        Ok(())
    }

    fn fail(&mut self, error: StoreError) {
        self.failed.get_or_insert(error);
    }

    /// A chunk that travels inside a packet, if the packet holds it.
    fn inline_chunk(&mut self, dot: Dot, chunk: &ChunkRef) -> Result<InlineAnswer, SyncError> {
        if !self.packets.0.iter().any(|(known, _)| *known == dot) {
            let sealed = match self.index.sealed_packet(dot)? {
                Some(sealed) => sealed,
                None => match self.packet_from_store(dot) {
                    Ok(sealed) => sealed,
                    Err(text) => return Ok(Err(text)),
                },
            };
            let packet = match sealed.open(self.ring) {
                Ok(packet) => packet,
                Err(error) => return Ok(Err(error.to_string())),
            };
            let inline = packet.body.inline.into_iter().map(|(id, plain)| (id, Arc::new(plain))).collect();
            if self.packets.0.len() >= OPENED_PACKETS {
                self.packets.0.remove(0);
            }
            self.packets.0.push((dot, inline));
        }
        let found =
            self.packets.0.iter().find(|(known, _)| *known == dot).and_then(|(_, inline)| inline.get(&chunk.id));
        let proven = found.filter(|plain| {
            plain.len() as u64 == u64::from(chunk.len) && self.ring.chunk_id(plain.as_slice()) == chunk.id
        });
        Ok(Ok(proven.cloned()))
    }

    /// A packet whose sealed bytes the index has let go.
    fn packet_from_store(&mut self, dot: Dot) -> Result<SealedPacket, String> {
        let name = ObjectName::new(format!("lanes/{}/{}", dot.device, dot.counter)).expect("digits make a sound name");
        let bytes = match self.store.get(&name, packetboat_core::packet::MAX_PACKET_BYTES as u64) {
            Ok(bytes) => bytes,
            Err(error) => {
                let text = error.to_string();
                if matches!(error, StoreError::Io { .. }) {
                    self.fail(error);
                }
                return Err(text);
            }
        };
        let packet = SealedPacket::from_bytes(bytes).map_err(|error| error.to_string())?;
        if packet.dot() == dot { Ok(packet) } else { Err("another packet lies in its place".into()) }
    }
}

/// Brings to the disk what was written, while more is.
struct WriteBehind<'scope> {
    fs: &'scope dyn Fs,
    /// Bytes written since it last began.
    bytes: u64,
    running: Option<std::thread::ScopedJoinHandle<'scope, io::Result<()>>>,
}

impl<'scope> WriteBehind<'scope> {
    fn wrote<'env>(&mut self, scope: &'scope std::thread::Scope<'scope, 'env>, bytes: u64) -> Result<(), SyncError> {
        self.bytes += bytes;
        if self.bytes < WRITE_BEHIND || self.running.as_ref().is_some_and(|running| !running.is_finished()) {
            return Ok(());
        }
        self.finish()?;
        self.bytes = 0;
        let fs = self.fs;
        self.running = Some(scope.spawn(move || fs.sync_all()));
        Ok(())
    }

    /// Waits for what is running. The system tells of a failed write once, so it must not be passed over here.
    fn finish(&mut self) -> Result<(), SyncError> {
        let outcome = self.running.take().map(|running| running.join().expect("syncing does not panic"));
        outcome.unwrap_or(Ok(())).map_err(|error| crate::apply::disk_failed(&crate::paths::staging(), error))
    }
}

/// Reads chunks of a file on disk forward, each proven by its id; what is not there any more is not found.
struct OldReader<'a> {
    ring: &'a KeyRing,
    file: Option<Box<dyn FsFile>>,
    chunks: Vec<ChunkRef>,
    places: HashMap<ChunkId, Vec<usize>>,
    /// The chunk that the file's position is at.
    at: usize,
}

impl<'a> OldReader<'a> {
    fn open(fs: &dyn Fs, ring: &'a KeyRing, old: &OldFile) -> Self {
        let file = fs.open(&old.path).ok();
        let mut places: HashMap<ChunkId, Vec<usize>> = HashMap::new();
        for (at, chunk) in old.chunks.iter().enumerate() {
            places.entry(chunk.id).or_default().push(at);
        }
        Self { ring, file, chunks: old.chunks.clone(), places, at: 0 }
    }

    /// The chunk, if it lies at or after the file's position and is still what it was.
    fn take(&mut self, wanted: &ChunkRef) -> Result<Option<Vec<u8>>, SyncError> {
        let Some(file) = &mut self.file else { return Ok(None) };
        let places = self.places.get(&wanted.id).map_or(&[][..], Vec::as_slice);
        let Some(place) = places.iter().find(|place| **place >= self.at) else { return Ok(None) };
        let mut plain = Vec::new();
        while self.at <= *place {
            plain.resize(self.chunks[self.at].len as usize, 0);
            if !matches!(read_full(&mut **file, &mut plain), Ok(true)) {
                self.file = None;
                return Ok(None);
            }
            self.at += 1;
        }
        let same = plain.len() as u64 == u64::from(wanted.len) && self.ring.chunk_id(&plain) == wanted.id;
        Ok(same.then_some(plain))
    }
}

/// Fills the buffer; false where the file ends before.
fn read_full(file: &mut dyn FsFile, buffer: &mut [u8]) -> io::Result<bool> {
    let mut filled = 0;
    while filled < buffer.len() {
        match file.read(&mut buffer[filled..])? {
            0 => return Ok(false),
            read => filled += read,
        }
    }
    Ok(true)
}

fn write_small(fs: &dyn Fs, job: &FileJob, list: &[ChunkRef], chunks: &Chunks) -> Result<Written, WriteError> {
    let mut plains = Vec::with_capacity(list.len());
    for chunk in list {
        match &chunks[&chunk.id] {
            Ok(plain) => plains.push(plain),
            Err(text) => return Err(WriteError::Content(text.clone())),
        }
    }
    let write = || {
        let mut file = fs.create_new(&job.path)?;
        for plain in plains {
            file.write_all(plain)?;
        }
        finish(fs, job, &job.path, file)
    };
    write().map_err(WriteError::Disk)
}

/// Gives a written file its attributes: what needs it to be readable before its permissions, the time last.
fn finish(fs: &dyn Fs, job: &FileJob, path: &RelPath, mut file: Box<dyn FsFile>) -> io::Result<Written> {
    let mut xattrs = Vec::new();
    for (name, value) in &job.xattrs {
        if tolerated(fs.set_xattr(path, name, Some(value)))? {
            xattrs.push((name.clone(), value.clone()));
        }
    }
    tolerated(file.set_mode(job.mode & 0o777))?;
    tolerated(file.set_mtime(job.file.mtime))?;
    if job.sync {
        file.sync()?;
    }
    Ok(Written { stat: file.stat()?, xattrs })
}

/// Whether it was done; what a file system cannot do is no error.
pub(crate) fn tolerated(result: io::Result<()>) -> io::Result<bool> {
    use io::ErrorKind::{ArgumentListTooLong, InvalidInput, PermissionDenied, Unsupported};
    match result {
        Ok(()) => Ok(true),
        Err(error) if matches!(error.kind(), Unsupported | PermissionDenied | InvalidInput | ArgumentListTooLong) => {
            Ok(false)
        }
        Err(error) => Err(error),
    }
}

/// Takes it for done when there was nothing left to remove.
pub(crate) fn gone_is_fine(result: io::Result<()>) -> io::Result<()> {
    match result {
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(()),
        other => other,
    }
}

fn describe(error: &FetchError) -> String {
    let mut text = error.to_string();
    let mut at = std::error::Error::source(error);
    while let Some(cause) = at {
        text = format!("{text}: {cause}");
        at = cause.source();
    }
    text
}

/// The list in pieces of at most `limit` bytes, or of one chunk.
fn windows(list: &[ChunkRef], limit: u64) -> impl Iterator<Item = &[ChunkRef]> {
    let mut rest = list;
    std::iter::from_fn(move || {
        let mut bytes = 0;
        let count = rest.iter().take_while(|chunk| {
            bytes += u64::from(chunk.len);
            bytes <= limit
        });
        let count = count.count().max(1).min(rest.len());
        let (window, after) = rest.split_at(count);
        rest = after;
        (!window.is_empty()).then_some(window)
    })
}

/// Where a large file grows.
fn part_path(file: &FileContent) -> RelPath {
    crate::paths::staging().join(&Name::new(format!("{PART}{}", file.id)).expect("digits make a sound name"))
}

/// Where the remainder of an earlier round is read from.
fn before_path(file: &FileContent) -> RelPath {
    crate::paths::staging().join(&Name::new(format!("{PART}{}-before", file.id)).expect("digits make a sound name"))
}

/// What the names of unfinished large files begin with.
pub(crate) const PART: &str = "part-";
/// So many bytes are written before the disk is told to take them.
const WRITE_BEHIND: u64 = 16 << 20;
/// How many packets are kept open.
const OPENED_PACKETS: usize = 4;
