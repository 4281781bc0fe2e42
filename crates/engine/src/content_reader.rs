//! Reading a file's content as a stream, wherever its chunks lie ([`crate::chunk_source`]).
//!
//! Chunks are read a few MiB at a time, and their bytes are handed on in order.
//! What is handed on before a chunk turns out to be missing is right as far as it goes, so whoever writes a file of it
//! gives it its name only when all of it was read.

use std::io::{self, Write};

use packetboat_core::content::{ChunkRef, FileContent};
use packetboat_core::keys::KeyRing;
use packetboat_core::store::{Store, StoreError};
use packetboat_replica::fs::FsFile;
use packetboat_replica::index::Index;

use crate::chunk_source::{ChunkSource, Chunks, ReadState, read_full, windows};
use crate::error::SyncError;
use crate::ports::Interrupt;

/// Reads contents of which an index says where their chunks lie.
pub(crate) struct ContentReader<'a> {
    index: &'a Index,
    store: &'a dyn Store,
    ring: &'a KeyRing,
    threads: usize,
    state: ReadState,
    failed: Option<StoreError>,
}

impl<'a> ContentReader<'a> {
    /// A reader of what this index knows and this intermediary holds.
    pub(crate) fn new(index: &'a Index, store: &'a dyn Store, ring: &'a KeyRing, threads: usize) -> Self {
        Self { index, store, ring, threads, state: ReadState::default(), failed: None }
    }

    /// The same, and it ends with [`SyncError::Interrupted`] when the user asks to stop.
    pub(crate) fn until(self, interrupt: Interrupt) -> Self {
        Self { state: ReadState::new(interrupt), ..self }
    }

    /// Writes a file's content to `out`.
    pub(crate) fn read(&mut self, file: &FileContent, out: &mut dyn Write) -> Result<(), ReadError> {
        for window in windows(&self.chunk_list(file)?, WINDOW_BYTES) {
            let mut chunks = Chunks::new();
            self.source().gather(window, &mut chunks)?;
            for chunk in window {
                match &chunks[&chunk.id] {
                    Ok(plain) => out.write_all(plain)?,
                    Err(reason) => return Err(ReadError::Missing(reason.clone())),
                }
            }
        }
        Ok(())
    }

    /// A file's own chunks, proven to be those of its id and size.
    pub(crate) fn chunk_list(&mut self, file: &FileContent) -> Result<Vec<ChunkRef>, ReadError> {
        self.source().chunk_list(file)?.map_err(ReadError::Missing)
    }

    /// Whether an open file holds exactly this content.
    pub(crate) fn is_in(&mut self, file: &FileContent, disk: &mut dyn FsFile) -> Result<bool, ReadError> {
        let list = match self.chunk_list(file) {
            Ok(list) => list,
            Err(ReadError::Missing(_)) => return Ok(false),
            Err(error) => return Err(error),
        };
        let mut plain = Vec::new();
        for chunk in list {
            self.state.interrupt.check()?;
            plain.resize(chunk.len as usize, 0);
            if read_full(disk, &mut plain)? < plain.len() || self.ring.chunk_id(&plain) != chunk.id {
                return Ok(false);
            }
        }
        Ok(read_full(disk, &mut [0])? == 0)
    }

    fn source(&mut self) -> ChunkSource<'_> {
        let Self { index, store, ring, threads, state, failed } = self;
        ChunkSource { index, store: *store, ring, threads: *threads, state, failed }
    }
}

/// Why a content could not be read to its end.
#[derive(Debug)]
pub(crate) enum ReadError {
    /// A part of it cannot be had.
    Missing(String),
    /// Where it was to go, or the file it was compared with, failed.
    Output(io::Error),
    /// The index failed, or the user asked to stop.
    Sync(SyncError),
}

impl From<io::Error> for ReadError {
    fn from(error: io::Error) -> Self {
        Self::Output(error)
    }
}

impl From<SyncError> for ReadError {
    fn from(error: SyncError) -> Self {
        Self::Sync(error)
    }
}

/// How many bytes of plaintext are in memory at a time.
const WINDOW_BYTES: u64 = 8 * 1024 * 1024;
