//! Preparing content: reading files, cutting them into chunks, naming, compressing and sealing these.
//!
//! Small files are prepared by worker threads, several at a time, and handed out in the order in which they were asked for.
//! They go to the threads and come back in batches: waking a thread costs about as much as preparing a file. So many are
//! prepared ahead that the threads have work while whoever takes them seals a packet and waits for the index.
//! A large file is prepared alone, its chunks by the workers. With one thread everything happens on the caller's thread in
//! a fixed order, which is what simulations use.
//! A file that changes while it is read is not taken: it waits for the next round.
//! Of a file that holds what is expected there, nothing is sealed: a device that joins with a full folder, or lost its
//! index, may refer to nothing that others stored, and would store all of it once more.

use std::collections::{BTreeMap, VecDeque};
use std::io;

use packetboat_core::content::{ChunkList, ChunkRef, Content, FileContent, MAX_INLINE_CHUNKS};
use packetboat_core::ids::{ChunkId, ContentId};
use packetboat_core::keys::KeyRing;
use packetboat_core::name::RelPath;
use packetboat_core::wire::Writer;
use packetboat_replica::fs::{FileKind, Fs, FsFile, Stat};
use packetboat_storage::chunk::{ChunkCodec, SealedChunk, seal_known_chunk};
use packetboat_storage::chunker::{Boundaries, Chunker};

use crate::ports::Entropy;

/// Something to read: a file or symlink.
#[derive(Clone, Debug)]
pub struct Job {
    /// Where it is.
    pub path: RelPath,
    /// What the scan saw.
    pub stat: Stat,
    /// A content that needs not be stored again, if that is what the file holds: nothing will refer to it.
    pub expected: Option<ContentId>,
}

/// What was read.
#[derive(Debug)]
pub struct Prepared {
    /// What the file or symlink holds.
    pub content: Content,
    /// Chunks that were not known before, sealed.
    pub chunks: Vec<NewChunk>,
    /// What `stat` said when it had been read.
    pub stat: Stat,
    /// Its extended attributes, sorted by name.
    pub xattrs: Vec<(Vec<u8>, Vec<u8>)>,
    /// Whether it is what was expected: whoever would refer to it has to have it read again.
    pub is_expected: bool,
}

/// A sealed chunk; a small one with its plaintext, so that it may travel inside a packet instead.
#[derive(Debug)]
pub struct NewChunk {
    /// The chunk as a pack stores it.
    pub sealed: SealedChunk,
    /// Its plaintext, if it is small.
    pub plain: Option<Vec<u8>>,
}

/// Why something was not read.
#[derive(Debug, thiserror::Error)]
pub enum PrepareError {
    /// It is not there any more, or is no file or symlink now.
    #[error("it was gone when it was to be read")]
    Gone,
    /// It changed while it was read.
    #[error("it changed while it was being read")]
    Changed,
    /// The system refuses.
    #[error("it cannot be read")]
    Io(#[source] io::Error),
}

/// Whether a chunk is stored already, so that it need not be again.
pub trait KnownChunks: Send + Sync {
    /// Notes that the caller is about to store this chunk; `false` if it is stored or another caller is about to.
    fn claim(&self, id: &ChunkId) -> bool;

    /// Whether small chunks may still travel inside a packet, so that their plaintext is wanted.
    fn wants_small(&self) -> bool;
}

/// What preparing needs; shared by the threads.
pub struct Preparer<'a> {
    /// The disk.
    pub fs: &'a dyn Fs,
    /// The vault's keys.
    pub ring: &'a KeyRing,
    /// Where chunks end.
    pub boundaries: &'a Boundaries,
    /// What is stored already.
    pub known: &'a dyn KnownChunks,
}

impl Preparer<'_> {
    /// One that names what it reads and seals none of it.
    fn naming(&self) -> Preparer<'_> {
        Preparer { fs: self.fs, ring: self.ring, boundaries: self.boundaries, known: &AllKnown }
    }

    /// Reads a symlink or a file of at most [`SMALL_FILE`] bytes.
    fn small(&self, job: &Job, desk: &mut Desk, entropy: &mut dyn Entropy) -> Result<Prepared, PrepareError> {
        if job.stat.kind == FileKind::Symlink {
            return self.symlink(job);
        }
        if job.expected.is_some()
            && let Some(expected) = self.naming().small_file(job, desk, entropy)?.if_expected(job)
        {
            return Ok(expected);
        }
        self.small_file(job, desk, entropy)
    }

    fn small_file(&self, job: &Job, desk: &mut Desk, entropy: &mut dyn Entropy) -> Result<Prepared, PrepareError> {
        let mut file = self.open(job)?;
        let before = file.stat().map_err(PrepareError::Io)?;
        let room = usize::try_from(before.size.min(SMALL_FILE)).unwrap_or(0) + 1;
        let len = read_to_end(&mut *file, &mut desk.bytes, room, SMALL_FILE as usize * 2).map_err(PrepareError::Io)?;
        let stat = self.unchanged(&*file, &before)?;
        if len as u64 != stat.size {
            return Err(PrepareError::Changed);
        }
        let mut refs = Vec::new();
        let mut chunks = Vec::new();
        for plain in self.boundaries.split(&desk.bytes[..len]) {
            let (chunk, new) = self.chunk(plain, &mut desk.codec, entropy);
            refs.push(chunk);
            chunks.extend(new);
        }
        let content = self.file_content(refs, &stat, &mut chunks, &mut desk.codec, entropy);
        Ok(Prepared { content, chunks, stat, xattrs: xattrs(&*file), is_expected: false })
    }

    fn symlink(&self, job: &Job) -> Result<Prepared, PrepareError> {
        let target = self.fs.read_link(&job.path).map_err(gone_or_io)?;
        let stat = self.fs.lstat(&job.path).map_err(gone_or_io)?;
        if stat.kind != FileKind::Symlink || target.is_empty() {
            return Err(PrepareError::Gone);
        }
        let content = Content::Symlink(target);
        Ok(Prepared { content, chunks: Vec::new(), stat, xattrs: Vec::new(), is_expected: false })
    }

    fn open(&self, job: &Job) -> Result<Box<dyn FsFile>, PrepareError> {
        self.fs.open(&job.path).map_err(gone_or_io)
    }

    /// What the file is now, if it was not written to since `before`.
    fn unchanged(&self, file: &dyn FsFile, before: &Stat) -> Result<Stat, PrepareError> {
        let after = file.stat().map_err(PrepareError::Io)?;
        let same = after.size == before.size && after.mtime == before.mtime && after.inode == before.inode;
        if same { Ok(after) } else { Err(PrepareError::Changed) }
    }

    /// Names a chunk, and seals it if it is new.
    fn chunk(&self, plain: &[u8], codec: &mut ChunkCodec, entropy: &mut dyn Entropy) -> (ChunkRef, Option<NewChunk>) {
        let id = self.ring.chunk_id(plain);
        let chunk = ChunkRef { id, len: plain.len() as u32 };
        if !self.known.claim(&id) {
            return (chunk, None);
        }
        let sealed = seal_known_chunk(self.ring, codec, id, plain, entropy.nonce())
            .expect("a chunk that the chunker cut is of a sound length");
        let plain = (plain.len() <= INLINE_CHUNK && self.known.wants_small()).then(|| plain.to_vec());
        (chunk, Some(NewChunk { sealed, plain }))
    }

    fn file_content(
        &self,
        refs: Vec<ChunkRef>,
        stat: &Stat,
        chunks: &mut Vec<NewChunk>,
        codec: &mut ChunkCodec,
        entropy: &mut dyn Entropy,
    ) -> Content {
        let id = self.ring.content_id(refs.iter().map(|chunk| &chunk.id));
        let list = if refs.len() <= MAX_INLINE_CHUNKS {
            ChunkList::Inline(refs)
        } else {
            let encoded = encode_chunk_list(&refs);
            let mut list = Vec::new();
            for plain in self.boundaries.split(&encoded) {
                let (chunk, new) = self.chunk(plain, codec, entropy);
                list.push(chunk);
                chunks.extend(new);
            }
            ChunkList::Indirect(list)
        };
        Content::File(FileContent { id, size: stat.size, mtime: stat.mtime, chunks: list })
    }

    /// Reads a large file; each new chunk goes to `sink` in order as soon as it is sealed.
    fn large<E>(
        &self,
        job: &Job,
        threads: usize,
        codec: &mut ChunkCodec,
        entropy: &mut dyn Entropy,
        sink: &mut dyn FnMut(NewChunk) -> Result<(), E>,
    ) -> Result<Result<Prepared, PrepareError>, E> {
        if job.expected.is_some() {
            let read = self.naming().large_file(job, threads, codec, entropy, sink)?;
            if let Some(read) = read.map(|read| read.if_expected(job)).transpose() {
                return Ok(read);
            }
        }
        self.large_file(job, threads, codec, entropy, sink)
    }

    fn large_file<E>(
        &self,
        job: &Job,
        threads: usize,
        codec: &mut ChunkCodec,
        entropy: &mut dyn Entropy,
        sink: &mut dyn FnMut(NewChunk) -> Result<(), E>,
    ) -> Result<Result<Prepared, PrepareError>, E> {
        let (mut file, before) = match self.open(job).and_then(|file| {
            let before = file.stat().map_err(PrepareError::Io)?;
            Ok((file, before))
        }) {
            Ok(opened) => opened,
            Err(error) => return Ok(Err(error)),
        };
        let mut refs = Vec::new();
        let read = if threads <= 1 {
            let mut failed = None;
            for plain in Chunker::new(self.boundaries, FileReader(&mut *file)) {
                match plain {
                    Ok(plain) => {
                        let (chunk, new) = self.chunk(&plain, codec, entropy);
                        refs.push(chunk);
                        if let Some(new) = new {
                            sink(new)?;
                        }
                    }
                    Err(error) => failed = Some(error),
                }
            }
            failed.map_or(Ok(()), Err)
        } else {
            self.large_with_threads(&mut *file, threads, entropy, &mut refs, sink)?
        };
        if let Err(error) = read {
            return Ok(Err(PrepareError::Io(error)));
        }
        let stat = match self.unchanged(&*file, &before) {
            Ok(stat) => stat,
            Err(error) => return Ok(Err(error)),
        };
        if refs.iter().map(|chunk| u64::from(chunk.len)).sum::<u64>() != stat.size {
            return Ok(Err(PrepareError::Changed));
        }
        let mut chunks = Vec::new();
        let content = self.file_content(refs, &stat, &mut chunks, codec, entropy);
        Ok(Ok(Prepared { content, chunks, stat, xattrs: xattrs(&*file), is_expected: false }))
    }

    fn large_with_threads<E>(
        &self,
        file: &mut dyn FsFile,
        threads: usize,
        entropy: &mut dyn Entropy,
        refs: &mut Vec<ChunkRef>,
        sink: &mut dyn FnMut(NewChunk) -> Result<(), E>,
    ) -> Result<io::Result<()>, E> {
        let (plain_tx, plain_rx) = crossbeam_channel::bounded::<(usize, Vec<u8>)>(threads * 2);
        let (done_tx, done_rx) = crossbeam_channel::bounded(threads * 2);
        std::thread::scope(|scope| {
            let reader = scope.spawn(move || -> io::Result<()> {
                for (seq, plain) in Chunker::new(self.boundaries, FileReader(file)).enumerate() {
                    if plain_tx.send((seq, plain?)).is_err() {
                        break;
                    }
                }
                Ok(())
            });
            for _ in 0..threads {
                let (plain_rx, done_tx, mut entropy) = (plain_rx.clone(), done_tx.clone(), entropy.fork());
                scope.spawn(move || {
                    let mut codec = ChunkCodec::new();
                    for (seq, plain) in plain_rx {
                        if done_tx.send((seq, self.chunk(&plain, &mut codec, &mut *entropy))).is_err() {
                            return;
                        }
                    }
                });
            }
            drop((done_tx, plain_rx));
            let mut early = BTreeMap::new();
            let mut outcome = Ok(());
            for (seq, chunk) in &done_rx {
                early.insert(seq, chunk);
                while let Some((chunk, new)) = early.remove(&refs.len()) {
                    refs.push(chunk);
                    if let (Some(new), Ok(())) = (new, &outcome) {
                        outcome = sink(new);
                    }
                }
                if outcome.is_err() {
                    break;
                }
            }
            drop(done_rx);
            let read = reader.join().expect("the reader does not panic");
            outcome.map(|()| read)
        })
    }
}

impl Prepared {
    /// The same, marked, where it holds what was expected.
    fn if_expected(self, job: &Job) -> Option<Self> {
        let is_expected = matches!(&self.content, Content::File(file) if Some(file.id) == job.expected);
        is_expected.then_some(Self { is_expected, ..self })
    }
}

/// Nothing is to be stored.
struct AllKnown;

impl KnownChunks for AllKnown {
    fn claim(&self, _: &ChunkId) -> bool {
        false
    }

    fn wants_small(&self) -> bool {
        false
    }
}

/// Prepares jobs and hands each result to `sink` in order, with what `feed` said belongs to it.
///
/// `feed` yields `(job, tag)`; a tag without a job passes through in its place, so that order is kept among all.
/// `large` receives the chunks of large files ahead of their result.
pub fn prepare_all<Tag, E>(
    preparer: &Preparer<'_>,
    threads: usize,
    entropy: &mut dyn Entropy,
    feed: &mut dyn Iterator<Item = (Option<Job>, Tag)>,
    sink: &mut dyn FnMut(Event<Tag>) -> Result<(), E>,
) -> Result<(), E> {
    let mut desk = Desk::default();
    if threads <= 1 {
        for (job, tag) in feed {
            let result = match &job {
                None => None,
                Some(job) if is_large(job) => {
                    let mut chunks = |chunk| sink(Event::Chunk(chunk));
                    Some(preparer.large(job, 1, &mut desk.codec, entropy, &mut chunks)?)
                }
                Some(job) => Some(preparer.small(job, &mut desk, entropy)),
            };
            sink(Event::Ready(tag, result))?;
        }
        return Ok(());
    }
    let (job_tx, job_rx) = crossbeam_channel::unbounded::<Vec<(u64, Job)>>();
    let (done_tx, done_rx) = crossbeam_channel::unbounded::<Vec<(u64, Result<Prepared, PrepareError>)>>();
    std::thread::scope(|scope| {
        for _ in 0..threads {
            let (job_rx, done_tx, mut entropy) = (job_rx.clone(), done_tx.clone(), entropy.fork());
            scope.spawn(move || {
                let mut desk = Desk::default();
                for jobs in job_rx {
                    let results =
                        jobs.into_iter().map(|(seq, job)| (seq, preparer.small(&job, &mut desk, &mut *entropy)));
                    if done_tx.send(results.collect()).is_err() {
                        return;
                    }
                }
            });
        }
        drop((done_tx, job_rx));
        let mut window: VecDeque<(u64, Slot, Tag)> = VecDeque::new();
        let mut early = BTreeMap::new();
        let mut batch = Batch { jobs: Vec::new(), bytes: 0, threads: job_tx };
        let (mut next_seq, mut bytes_ahead) = (0u64, 0u64);
        let mut fed_all = false;
        loop {
            while !fed_all && window.len() < WINDOW_FILES && bytes_ahead < WINDOW_BYTES {
                let Some((job, tag)) = feed.next() else {
                    fed_all = true;
                    break;
                };
                let slot = match job {
                    None => Slot::Passing,
                    Some(job) if is_large(&job) => Slot::Large(job),
                    Some(job) => {
                        let size = job.stat.size;
                        bytes_ahead += size;
                        batch.add(next_seq, job);
                        Slot::Small(size)
                    }
                };
                window.push_back((next_seq, slot, tag));
                next_seq += 1;
            }
            let Some((seq, slot, tag)) = window.pop_front() else { break };
            let result = match slot {
                Slot::Passing => None,
                Slot::Large(job) => {
                    // The threads have something to do while the file is read.
                    batch.send();
                    let mut chunks = |chunk| sink(Event::Chunk(chunk));
                    Some(preparer.large(&job, threads, &mut desk.codec, entropy, &mut chunks)?)
                }
                Slot::Small(size) => {
                    bytes_ahead -= size;
                    loop {
                        if let Some(result) = early.remove(&seq) {
                            break Some(result);
                        }
                        if batch.holds(seq) {
                            batch.send();
                        }
                        early.extend(done_rx.recv().expect("workers answer every job"));
                    }
                }
            };
            sink(Event::Ready(tag, result))?;
        }
        drop(batch);
        Ok(())
    })
}

/// What a thread prepares with, and uses again.
#[derive(Default)]
struct Desk {
    codec: ChunkCodec,
    /// What was read last, and beyond it what was read before.
    bytes: Vec<u8>,
}

/// Jobs that are gathered until there are enough to wake a thread for.
struct Batch {
    jobs: Vec<(u64, Job)>,
    bytes: u64,
    threads: crossbeam_channel::Sender<Vec<(u64, Job)>>,
}

impl Batch {
    fn add(&mut self, seq: u64, job: Job) {
        self.bytes += job.stat.size;
        self.jobs.push((seq, job));
        if self.jobs.len() >= BATCH_FILES || self.bytes >= BATCH_BYTES {
            self.send();
        }
    }

    fn holds(&self, seq: u64) -> bool {
        self.jobs.first().is_some_and(|(first, _)| *first <= seq)
    }

    fn send(&mut self) {
        self.bytes = 0;
        if !self.jobs.is_empty() {
            let jobs = std::mem::replace(&mut self.jobs, Vec::with_capacity(BATCH_FILES));
            // The threads live as long as there is someone who could send.
            let _ = self.threads.send(jobs);
        }
    }
}

enum Slot {
    Passing,
    Small(u64),
    Large(Job),
}

/// What [`prepare_all`] hands out.
pub enum Event<Tag> {
    /// A new chunk of a large file whose result follows.
    Chunk(NewChunk),
    /// A result, or a tag that had no job.
    Ready(Tag, Option<Result<Prepared, PrepareError>>),
}

fn is_large(job: &Job) -> bool {
    job.stat.kind == FileKind::File && job.stat.size > SMALL_FILE
}

/// The encoded list of a file's chunks: count, then id and length of each.
pub fn encode_chunk_list(chunks: &[ChunkRef]) -> Vec<u8> {
    let mut writer = Writer::new();
    writer.varint(chunks.len() as u64);
    for chunk in chunks {
        writer.raw(&chunk.id.0).varint(chunk.len.into());
    }
    writer.finish()
}

/// Reads what [`encode_chunk_list`] wrote.
pub fn decode_chunk_list(bytes: &[u8]) -> Result<Vec<ChunkRef>, packetboat_core::wire::WireError> {
    let mut reader = packetboat_core::wire::Reader::new(bytes);
    let count = reader.count(ChunkId::LEN + 1)?;
    let mut chunks = Vec::with_capacity(count);
    for _ in 0..count {
        chunks.push(ChunkRef { id: ChunkId(reader.array()?), len: reader.varint32()? });
    }
    reader.finish()?;
    Ok(chunks)
}

fn gone_or_io(error: io::Error) -> PrepareError {
    match error.kind() {
        io::ErrorKind::NotFound | io::ErrorKind::InvalidInput => PrepareError::Gone,
        _ => PrepareError::Io(error),
    }
}

/// The attributes that travel. What cannot be read is as if it were not there: attributes are not worth stopping for.
fn xattrs(file: &dyn FsFile) -> Vec<(Vec<u8>, Vec<u8>)> {
    let mut xattrs = file.xattrs().unwrap_or_default();
    xattrs.retain(|(name, value)| {
        name.len() <= packetboat_core::change::MAX_XATTR_NAME
            && name.starts_with(b"user.")
            && name.len() > 5
            && value.len() <= packetboat_core::change::MAX_XATTR_VALUE
    });
    xattrs.sort();
    xattrs
}

/// Reads to the end or to `limit` into memory that is used again, which begins with `room` bytes; says how many it read.
fn read_to_end(file: &mut dyn FsFile, bytes: &mut Vec<u8>, room: usize, limit: usize) -> io::Result<usize> {
    if bytes.len() < room {
        bytes.resize(room, 0);
    }
    let mut filled = 0;
    loop {
        if filled == bytes.len() {
            if filled >= limit {
                break;
            }
            bytes.resize((filled * 2).min(limit), 0);
        }
        let read = file.read(&mut bytes[filled..])?;
        if read == 0 {
            break;
        }
        filled += read;
    }
    Ok(filled)
}

struct FileReader<'a>(&'a mut dyn FsFile);

impl io::Read for FileReader<'_> {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        self.0.read(buffer)
    }
}

/// Files up to this many bytes are read whole.
pub const SMALL_FILE: u64 = 4 * 1024 * 1024;
/// Greatest chunk that may travel inside a packet, in bytes.
pub const INLINE_CHUNK: usize = 16 * 1024;
/// How much is prepared ahead: what the threads do while a packet of small files is sealed and folded.
const WINDOW_FILES: usize = 4096;
const WINDOW_BYTES: u64 = 24 * 1024 * 1024;
/// How much of it goes to a thread at once.
const BATCH_FILES: usize = 32;
const BATCH_BYTES: u64 = 512 * 1024;
