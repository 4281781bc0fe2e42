//! Bringing content to disk: writing files of chunks, wherever those are ([`crate::chunk_source`]).
//!
//! Chunks come from the old version of a file that changes, from packets, and from packs; each is proven by its id.
//! Memory is bounded: files are written in groups of at most a window, and a larger one window by window.
//! Such a file grows under a name made of its content; what an earlier round left of it is verified and taken over.
//! A chunk that cannot be had concerns its file alone. Nothing here decides where a file goes.
//! Whether the user asked to stop is looked at before each chunk; what is in staging by then is taken over by the next round.

use std::collections::HashMap;
use std::io;
use std::sync::Arc;

use packetboat_core::content::{ChunkRef, FileContent};
use packetboat_core::ids::ChunkId;
use packetboat_core::keys::KeyRing;
use packetboat_core::name::{Name, RelPath};
use packetboat_core::store::{Store, StoreError};
use packetboat_replica::fs::{Fs, FsFile, Stat};
use packetboat_replica::index::Index;

use crate::chunk_source::{ChunkSource, Chunks, ReadState, read_full, windows};
use crate::error::SyncError;
use crate::ports::Interrupt;

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
    pub(crate) packets: &'a mut ReadState,
    /// Whether all that is written will be synced as a whole afterwards.
    pub(crate) write_behind: bool,
    /// The first failure of the intermediary as a whole.
    pub(crate) failed: Option<StoreError>,
}

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

    /// A file's own chunks; the text says why they cannot be had.
    pub(crate) fn chunk_list(&mut self, file: &FileContent) -> Result<Result<Vec<ChunkRef>, String>, SyncError> {
        self.source().chunk_list(file)
    }

    fn source(&mut self) -> ChunkSource<'_> {
        let Self { index, store, ring, threads, packets, failed, .. } = self;
        ChunkSource { index, store: *store, ring, threads: *threads, state: packets, failed }
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
                    if let Some(plain) = reader.take(chunk, &self.packets.interrupt)? {
                        chunks.insert(chunk.id, Ok(Arc::new(plain)));
                    }
                }
            }
            lists.push(list);
        }
        let wanted: Vec<ChunkRef> = lists.iter().flatten().flatten().copied().collect();
        self.source().gather(&wanted, &mut chunks)?;
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
        // What is to be holes must not be set aside: room for the rest is found as it is written.
        let reserve = if zero_bytes(self.ring, &list) > 0 { 0 } else { job.file.size };
        match self.begin_part(&part, &before, reserve) {
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
        let (fs, ring, interrupt) = (self.fs, self.ring, self.packets.interrupt.clone());
        let mut earlier = OldReader::open(fs, ring, &OldFile { path: before.clone(), chunks: list.to_vec() });
        let mut old = job.old.as_ref().map(|old| OldReader::open(fs, ring, old));
        for window in windows(list, self.window) {
            let mut chunks = Chunks::new();
            for chunk in window {
                let mut found = earlier.take(chunk, &interrupt)?;
                if let (None, Some(old)) = (&found, &mut old) {
                    found = old.take(chunk, &interrupt)?;
                }
                if let Some(plain) = found {
                    chunks.insert(chunk.id, Ok(Arc::new(plain)));
                }
            }
            self.source().gather(window, &mut chunks)?;
            for chunk in window {
                interrupt.check()?;
                match &chunks[&chunk.id] {
                    Ok(plain) => {
                        if let Err(error) = write_plain(&mut *file, plain) {
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
    fn take(&mut self, wanted: &ChunkRef, interrupt: &Interrupt) -> Result<Option<Vec<u8>>, SyncError> {
        let Some(file) = &mut self.file else { return Ok(None) };
        let places = self.places.get(&wanted.id).map_or(&[][..], Vec::as_slice);
        let Some(place) = places.iter().find(|place| **place >= self.at) else { return Ok(None) };
        let mut plain = Vec::new();
        while self.at <= *place {
            interrupt.check()?;
            plain.resize(self.chunks[self.at].len as usize, 0);
            if !read_full(&mut **file, &mut plain).is_ok_and(|read| read == plain.len()) {
                self.file = None;
                return Ok(None);
            }
            self.at += 1;
        }
        let same = plain.len() as u64 == u64::from(wanted.len) && self.ring.chunk_id(&plain) == wanted.id;
        Ok(same.then_some(plain))
    }
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
            write_plain(&mut *file, plain)?;
        }
        finish(fs, job, &job.path, file)
    };
    write().map_err(WriteError::Disk)
}

/// Writes a chunk; zeros become a hole, so that a sparse file stays sparse.
fn write_plain(file: &mut dyn FsFile, plain: &[u8]) -> io::Result<()> {
    match plain.len() >= LEAST_HOLE && plain.iter().all(|byte| *byte == 0) {
        true => file.write_zeros(plain.len() as u64),
        false => file.write_all(plain),
    }
}

/// How many bytes of a file become holes.
///
/// Zeros are cut into chunks of one length, so those that occur once only are not looked at.
pub(crate) fn zero_bytes(ring: &KeyRing, list: &[ChunkRef]) -> u64 {
    let mut alike: HashMap<ChunkRef, u64> = HashMap::new();
    for chunk in list.iter().filter(|chunk| chunk.len as usize >= LEAST_HOLE) {
        *alike.entry(*chunk).or_default() += 1;
    }
    let zeros = |chunk: &ChunkRef| ring.chunk_id(&vec![0; chunk.len as usize]) == chunk.id;
    let repeated = alike.into_iter().filter(|(_, count)| *count > 1);
    repeated.filter(|(chunk, _)| zeros(chunk)).map(|(chunk, count)| u64::from(chunk.len) * count).sum()
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
/// Shorter runs of zeros are written: a hole of less saves nothing.
const LEAST_HOLE: usize = 64 * 1024;
/// So many bytes are written before the disk is told to take them.
const WRITE_BEHIND: u64 = 16 << 20;
