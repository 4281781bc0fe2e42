//! Reading a file's content as a stream, wherever its chunks lie.
//!
//! Chunks come from packets and from packs, a few MiB at a time, each proven by its id; the bytes are handed on in order.
//! What is handed on before a chunk turns out to be missing is right as far as it goes, so whoever writes a file of it
//! gives it its name only when all of it was read.

use std::collections::HashMap;
use std::io::{self, Write};
use std::ops::ControlFlow;

use packetboat_core::content::{ChunkList, ChunkRef, FileContent, MAX_CHUNK_BYTES};
use packetboat_core::ids::{ChunkId, Dot};
use packetboat_core::keys::KeyRing;
use packetboat_core::packet::{MAX_PACKET_BYTES, SealedPacket};
use packetboat_core::store::Store;
use packetboat_replica::fs::FsFile;
use packetboat_replica::index::{ChunkPlace, Index};
use packetboat_storage::fetch::{self, fetch_chunks};

use crate::error::{SyncError, chain};
use crate::learn::packet_name;
use crate::prepare::decode_chunk_list;

/// Reads contents of which an index says where their chunks lie.
pub(crate) struct ContentReader<'a> {
    index: &'a Index,
    store: &'a dyn Store,
    ring: &'a KeyRing,
    threads: usize,
    /// The packets opened last, and the chunks in them.
    opened: Vec<(Dot, HashMap<ChunkId, Vec<u8>>)>,
}

impl<'a> ContentReader<'a> {
    /// A reader of what this index knows and this intermediary holds.
    pub(crate) fn new(index: &'a Index, store: &'a dyn Store, ring: &'a KeyRing, threads: usize) -> Self {
        Self { index, store, ring, threads, opened: Vec::new() }
    }

    /// Writes a file's content to `out`.
    pub(crate) fn read(&mut self, file: &FileContent, out: &mut dyn Write) -> Result<(), ReadError> {
        let list = self.chunk_list(file)?;
        self.chunks(&list, out)
    }

    /// A file's own chunks, proven to be those of its id and size.
    pub(crate) fn chunk_list(&mut self, file: &FileContent) -> Result<Vec<ChunkRef>, ReadError> {
        let list = match &file.chunks {
            ChunkList::Inline(list) => list.clone(),
            ChunkList::Indirect(parts) => {
                let mut bytes = Vec::new();
                self.chunks(parts, &mut bytes)?;
                decode_chunk_list(&bytes).map_err(|_| missing("the list of its chunks is damaged"))?
            }
        };
        let size: u64 = list.iter().map(|chunk| u64::from(chunk.len)).sum();
        let sound = list.iter().all(|chunk| (1..=MAX_CHUNK_BYTES).contains(&chunk.len))
            && size == file.size
            && self.ring.content_id(list.iter().map(|chunk| &chunk.id)) == file.id;
        if sound { Ok(list) } else { Err(missing("its chunks do not make up what was named")) }
    }

    /// Whether an open file holds exactly this content.
    pub(crate) fn is_in(&mut self, file: &FileContent, disk: &mut dyn FsFile) -> Result<bool, ReadError> {
        let Ok(list) = self.chunk_list(file) else { return Ok(false) };
        let mut plain = Vec::new();
        for chunk in list {
            plain.resize(chunk.len as usize, 0);
            if read_full(disk, &mut plain)? < plain.len() || self.ring.chunk_id(&plain) != chunk.id {
                return Ok(false);
            }
        }
        Ok(read_full(disk, &mut [0])? == 0)
    }

    fn chunks(&mut self, list: &[ChunkRef], out: &mut dyn Write) -> Result<(), ReadError> {
        let mut rest = list;
        while !rest.is_empty() {
            let mut bytes = 0;
            let fits = rest.iter().take_while(|chunk| {
                bytes += u64::from(chunk.len);
                bytes <= WINDOW_BYTES
            });
            let (window, after) = rest.split_at(fits.count().max(1));
            let plain = self.window(window)?;
            for chunk in window {
                out.write_all(&plain[&chunk.id])?;
            }
            rest = after;
        }
        Ok(())
    }

    fn window(&mut self, window: &[ChunkRef]) -> Result<HashMap<ChunkId, Vec<u8>>, ReadError> {
        let mut plain = HashMap::new();
        let mut packed = Vec::new();
        for chunk in window {
            if plain.contains_key(&chunk.id) || packed.iter().any(|(known, _): &(ChunkRef, _)| known.id == chunk.id) {
                continue;
            }
            match self.index.chunk_place(&chunk.id).map_err(SyncError::from)? {
                Some(ChunkPlace::Pack { pack, epoch, offset, sealed_len }) => {
                    packed.push((*chunk, fetch::ChunkPlace { pack, epoch, offset, sealed_len }));
                }
                Some(ChunkPlace::Packet { dot }) => {
                    plain.insert(chunk.id, self.in_packet(dot, chunk)?);
                }
                None => return Err(missing("a part of it is stored nowhere that is known")),
            }
        }
        let read = fetch_chunks(self.store, self.ring, &packed, self.threads, |at, answer| match answer {
            Ok(bytes) => {
                plain.insert(packed[at].0.id, bytes);
                ControlFlow::Continue(())
            }
            Err(error) => ControlFlow::Break(chain(&error)),
        });
        match read {
            ControlFlow::Continue(()) => Ok(plain),
            ControlFlow::Break(reason) => Err(ReadError::Missing(reason)),
        }
    }

    fn in_packet(&mut self, dot: Dot, chunk: &ChunkRef) -> Result<Vec<u8>, ReadError> {
        if !self.opened.iter().any(|(known, _)| *known == dot) {
            let sealed = match self.index.sealed_packet(dot).map_err(SyncError::from)? {
                Some(sealed) => sealed,
                None => {
                    let bytes = self.store.get(&packet_name(&dot), MAX_PACKET_BYTES as u64).map_err(described)?;
                    SealedPacket::from_bytes(bytes).map_err(described)?
                }
            };
            let packet = sealed.open(self.ring).map_err(described)?;
            if self.opened.len() >= OPENED_PACKETS {
                self.opened.remove(0);
            }
            self.opened.push((dot, packet.body.inline.into_iter().collect()));
        }
        let opened = self.opened.iter().find(|(known, _)| *known == dot);
        let found = opened.and_then(|(_, inline)| inline.get(&chunk.id));
        let proven = found.filter(|plain| {
            plain.len() as u64 == u64::from(chunk.len) && self.ring.chunk_id(plain.as_slice()) == chunk.id
        });
        proven.cloned().ok_or_else(|| missing("the packet that should hold a part of it does not"))
    }
}

/// Why a content could not be read to its end.
#[derive(Debug)]
pub(crate) enum ReadError {
    /// A part of it cannot be had.
    Missing(String),
    /// Where it was to go, or the file it was compared with, failed.
    Output(io::Error),
    /// The index failed.
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

fn missing(reason: &str) -> ReadError {
    ReadError::Missing(reason.to_owned())
}

fn described(error: impl std::error::Error) -> ReadError {
    ReadError::Missing(chain(&error))
}

/// Fills the buffer as far as the file goes; how far that is.
fn read_full(file: &mut dyn FsFile, buffer: &mut [u8]) -> io::Result<usize> {
    let mut filled = 0;
    while filled < buffer.len() {
        match file.read(&mut buffer[filled..])? {
            0 => break,
            read => filled += read,
        }
    }
    Ok(filled)
}

/// How many bytes of plaintext are in memory at a time.
const WINDOW_BYTES: u64 = 8 * 1024 * 1024;
/// How many packets are kept open.
const OPENED_PACKETS: usize = 4;
