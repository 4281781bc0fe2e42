//! Reading chunks from wherever they lie: inside packets, or in packs at the intermediary.
//!
//! Each is proven by its id, and each wanted one gets an answer: its bytes, or why it cannot be had. Packets opened last
//! are kept, since the small files of one lie together. A file's list of chunks is proven by the file's id and size,
//! because whoever wrote the packet may have erred.
//!
//! A chunk may lie in several places: where one fails it is read from the next, and what failed is noted, so that it can
//! be asked for. A storage that fails as a whole is noted apart ([`ChunkSource::failed`]): it is no fault of the chunks.
//! Left out: what of a file is on this disk already, and where its bytes go.

use std::collections::{BTreeSet, HashMap};
use std::io;
use std::ops::ControlFlow;
use std::sync::Arc;

use packetboat_core::content::{ChunkList, ChunkRef, FileContent, MAX_CHUNK_BYTES};
use packetboat_core::ids::{ChunkId, Dot};
use packetboat_core::keys::KeyRing;
use packetboat_core::packet::{MAX_PACKET_BYTES, SealedPacket};
use packetboat_core::store::{Store, StoreError};
use packetboat_core::wanted::Wanted;
use packetboat_replica::fs::FsFile;
use packetboat_replica::index::{ChunkPlace, Index};
use packetboat_storage::fetch::{self, FetchError, fetch_chunks};

use crate::error::{SyncError, chain};
use crate::learn::packet_name;
use crate::ports::Interrupt;
use crate::prepare::decode_chunk_list;

/// Chunks by id: the bytes, or why they cannot be had.
pub(crate) type Chunks = HashMap<ChunkId, Result<Arc<Vec<u8>>, String>>;

/// Reads chunks of which an index says where they lie.
pub(crate) struct ChunkSource<'a> {
    pub(crate) index: &'a Index,
    pub(crate) store: &'a dyn Store,
    pub(crate) ring: &'a KeyRing,
    pub(crate) threads: usize,
    pub(crate) state: &'a mut ReadState,
    /// The first failure of the intermediary as a whole.
    pub(crate) failed: &'a mut Option<StoreError>,
}

/// What reading keeps from one file to the next.
#[derive(Default)]
pub(crate) struct ReadState {
    /// The packets opened last, and the chunks inside them.
    opened: Vec<(Dot, InlineChunks)>,
    /// Whether the user asked to stop.
    pub(crate) interrupt: Interrupt,
    /// What was not where it should be, or not what it should be.
    pub(crate) damaged: BTreeSet<Wanted>,
}

impl ReadState {
    /// Nothing kept yet.
    pub(crate) fn new(interrupt: Interrupt) -> Self {
        Self { interrupt, ..Self::default() }
    }
}

impl ChunkSource<'_> {
    /// A file's own chunks, proven to be those of its id and size; the text says why they cannot be had.
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
    pub(crate) fn gather(&mut self, wanted: &[ChunkRef], chunks: &mut Chunks) -> Result<(), SyncError> {
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
        self.inline(inline, chunks)?;
        let failed = self.packed(&packed, chunks)?;
        self.elsewhere(failed, chunks)
    }

    /// Looks in other places for what the first did not give.
    fn elsewhere(
        &mut self,
        mut failed: Vec<(ChunkRef, fetch::ChunkPlace)>,
        chunks: &mut Chunks,
    ) -> Result<(), SyncError> {
        let mut tried: HashMap<ChunkId, Vec<ChunkPlace>> = HashMap::new();
        while !failed.is_empty() {
            let (mut packed, mut inline) = (Vec::new(), Vec::new());
            for (chunk, fetch::ChunkPlace { pack, epoch, offset, sealed_len }) in failed {
                let tried = tried.entry(chunk.id).or_default();
                tried.push(ChunkPlace::Pack { pack, epoch, offset, sealed_len });
                match self.index.chunk_places(&chunk.id)?.into_iter().find(|place| !tried.contains(place)) {
                    Some(ChunkPlace::Pack { pack, epoch, offset, sealed_len }) => {
                        packed.push((chunk, fetch::ChunkPlace { pack, epoch, offset, sealed_len }));
                    }
                    Some(ChunkPlace::Packet { dot }) => inline.push((dot, chunk)),
                    None => {}
                }
            }
            self.inline(inline, chunks)?;
            failed = self.packed(&packed, chunks)?;
        }
        Ok(())
    }

    fn inline(&mut self, mut inline: Vec<(Dot, ChunkRef)>, chunks: &mut Chunks) -> Result<(), SyncError> {
        // By packet, so that each is opened once.
        inline.sort_by_key(|(dot, _)| *dot);
        for (dot, chunk) in inline {
            self.state.interrupt.check()?;
            match self.inline_chunk(dot, &chunk)? {
                Ok(Some(plain)) => drop(chunks.insert(chunk.id, Ok(plain))),
                Ok(None) => {}
                Err(text) => drop(chunks.insert(chunk.id, Err(text))),
            }
        }
        Ok(())
    }

    /// Reads chunks from packs; answers with those whose packs did not have them.
    fn packed(
        &mut self,
        wanted: &[(ChunkRef, fetch::ChunkPlace)],
        chunks: &mut Chunks,
    ) -> Result<Vec<(ChunkRef, fetch::ChunkPlace)>, SyncError> {
        let ReadState { interrupt, damaged, .. } = &mut *self.state;
        interrupt.check()?;
        let mut failed = None;
        let mut lacking = Vec::new();
        let read = fetch_chunks(self.store, self.ring, wanted, self.threads, |at, answer| {
            let answer = answer.map(Arc::new).map_err(|error| {
                let text = chain(&error);
                match error {
                    FetchError::Unread { source } if !is_damage(&source) => {
                        if matches!(*source, StoreError::Io { .. }) {
                            failed.get_or_insert(source);
                        }
                    }
                    // Who asks for a pack because of a place that cannot be would ask for ever.
                    FetchError::ImpossiblePlace => lacking.push(wanted[at]),
                    _ => {
                        damaged.insert(Wanted::Pack(wanted[at].1.pack));
                        lacking.push(wanted[at]);
                    }
                }
                text
            });
            chunks.insert(wanted[at].0.id, answer);
            if interrupt.is_raised() { ControlFlow::Break(()) } else { ControlFlow::Continue(()) }
        });
        if let Some(source) = failed {
            let name = "a pack".into();
            self.fail(StoreError::Io { action: "read", name, source: io::Error::other(source) });
        }
        if read.is_break() { Err(SyncError::Interrupted) } else { Ok(lacking) }
    }

    fn fail(&mut self, error: StoreError) {
        self.failed.get_or_insert(error);
    }

    /// A chunk that travels inside a packet, if the packet holds it.
    fn inline_chunk(&mut self, dot: Dot, chunk: &ChunkRef) -> Result<InlineAnswer, SyncError> {
        if !self.state.opened.iter().any(|(known, _)| *known == dot) {
            let sealed = match self.index.sealed_packet(dot)? {
                Some(sealed) => sealed,
                None => match self.packet_from_store(dot) {
                    Ok(sealed) => sealed,
                    Err(text) => return Ok(Err(text)),
                },
            };
            let packet = match sealed.open(self.ring) {
                Ok(packet) => packet,
                Err(error) => return Ok(Err(chain(&error))),
            };
            let inline = packet.body.inline.into_iter().map(|(id, plain)| (id, Arc::new(plain))).collect();
            if self.state.opened.len() >= OPENED_PACKETS {
                self.state.opened.remove(0);
            }
            self.state.opened.push((dot, inline));
        }
        let opened = self.state.opened.iter().find(|(known, _)| *known == dot);
        let found = opened.and_then(|(_, inline)| inline.get(&chunk.id));
        let proven = found.filter(|plain| {
            plain.len() as u64 == u64::from(chunk.len) && self.ring.chunk_id(plain.as_slice()) == chunk.id
        });
        Ok(Ok(proven.cloned()))
    }

    /// A packet whose sealed bytes the index has let go.
    fn packet_from_store(&mut self, dot: Dot) -> Result<SealedPacket, String> {
        let bytes = match self.store.get(&packet_name(&dot), MAX_PACKET_BYTES as u64) {
            Ok(bytes) => bytes,
            Err(error) => {
                let text = chain(&error);
                if is_damage(&error) {
                    self.state.damaged.insert(Wanted::Packet(dot));
                } else if matches!(error, StoreError::Io { .. }) {
                    self.fail(error);
                }
                return Err(text);
            }
        };
        let packet = SealedPacket::from_bytes(bytes).map_err(|error| chain(&error));
        let packet = packet.and_then(|packet| match packet.dot() == dot {
            true => Ok(packet),
            false => Err("another packet lies in its place".to_owned()),
        });
        if packet.is_err() {
            self.state.damaged.insert(Wanted::Packet(dot));
        }
        packet
    }
}

/// Whether an object is not there or not whole, rather than out of reach.
pub(crate) fn is_damage(error: &StoreError) -> bool {
    matches!(error, StoreError::Missing { .. } | StoreError::TooLarge { .. } | StoreError::Short { .. })
}

/// The chunks that travel inside a packet.
type InlineChunks = HashMap<ChunkId, Arc<Vec<u8>>>;
/// A chunk of a packet; none where the packet does not hold it, and a text where the packet cannot be had.
type InlineAnswer = Result<Option<Arc<Vec<u8>>>, String>;

/// The list in pieces of at most `limit` bytes, or of one chunk.
pub(crate) fn windows(list: &[ChunkRef], limit: u64) -> impl Iterator<Item = &[ChunkRef]> {
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

/// Fills the buffer as far as the file goes; how far that is.
pub(crate) fn read_full(file: &mut dyn FsFile, buffer: &mut [u8]) -> io::Result<usize> {
    let mut filled = 0;
    while filled < buffer.len() {
        match file.read(&mut buffer[filled..])? {
            0 => break,
            read => filled += read,
        }
    }
    Ok(filled)
}

/// How many packets are kept open.
const OPENED_PACKETS: usize = 4;
