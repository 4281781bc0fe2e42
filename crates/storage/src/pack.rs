//! A pack: many sealed chunks in one immutable object that explains itself.
//!
//! ```text
//! at                 bytes
//! 0                  4      magic "PBPA"
//! 4                  2      format version, little endian: 1
//! 6                  16     vault id
//! 22                 4      epoch, little endian: sealed the chunks and the index
//! 26                 ...    sealed chunks, back to back
//! index offset       ...    sealed box (purpose pack index): the index, see below
//! index offset + len ...    zeros, up to a Padmé size of the whole object
//! size - 12          4      index offset, little endian
//! size - 8           4      index length, little endian
//! size - 4           4      magic "APBP"
//!
//! index              varint count, at least 1
//!   for each chunk   id 32 | varint sealed length, 42 or more
//! context of the box header 26 | index offset 4 | size of the whole object 4
//! ```
//!
//! [`PackId`] is the plain BLAKE3 hash of all the bytes, so that whoever holds a pack, with keys or without, can check it.
//! The object's name follows from it: see [`object_name`].
//!
//! A chunk's place is the sum of the lengths before it, and the last ends where the index begins: gaps, overlaps and ranges
//! out of bounds cannot be written down. Every pack has one index; no id stands in it twice.
//! The index needs no other record, so a vault whose packets are damaged can still be searched for its content.
//! It is sealed, and says where chunks lie; that a chunk is right is proven by opening it.
//!
//! Padmé (Nikitin et al., "Reducing Metadata Leakage from Encrypted Files and Communication with PURBs", 2019) adds at most
//! 12 % to a small pack and 3 % to a full one, and leaves of its size only the order of magnitude and a few bits.
//!
//! Left out: which chunk goes into which pack, which packs are needed, and when one is deleted.

use std::collections::HashSet;

use packetboat_core::content::{PackIndex, PackedChunk};
use packetboat_core::ids::{ChunkId, Epoch, PackId, VaultId};
use packetboat_core::keys::{BOX_OVERHEAD, KeyRing, Nonce, Purpose, SealError};
use packetboat_core::store::{ObjectName, Store, StoreError};
use packetboat_core::wire::{Reader, WireError, Writer};
use thiserror::Error;

use crate::chunk::{ChunkCodec, ChunkError, MAX_SEALED_BYTES, MIN_SEALED_BYTES, SealedChunk, open_chunk_by_id};

/// Gathers sealed chunks of one epoch for a pack.
#[derive(Debug)]
pub struct PackWriter {
    vault: VaultId,
    epoch: Epoch,
    bytes: Vec<u8>,
    chunks: Vec<PackedChunk>,
    ids: HashSet<ChunkId>,
}

impl PackWriter {
    /// An empty pack of a vault, for chunks sealed in `epoch`.
    pub fn new(vault: VaultId, epoch: Epoch) -> Self {
        Self::in_buffer(vault, epoch, Vec::new())
    }

    /// The same in the memory of a pack that was stored, whose bytes are forgotten.
    ///
    /// Allocators take blocks of this size from the system and give them back to it at some cost, or scatter them.
    fn in_buffer(vault: VaultId, epoch: Epoch, mut bytes: Vec<u8>) -> Self {
        bytes.clear();
        bytes.extend_from_slice(&header(vault, epoch));
        Self { vault, epoch, bytes, chunks: Vec::new(), ids: HashSet::new() }
    }

    /// Adds a chunk; answers false, and adds nothing, when the pack holds it already.
    ///
    /// A pack that is not [full](Self::is_full) always has room for one more chunk.
    pub fn push(&mut self, chunk: &SealedChunk) -> Result<bool, PackWriteError> {
        if chunk.epoch != self.epoch {
            return Err(PackWriteError::OtherEpoch { pack: self.epoch, other: chunk.epoch });
        }
        let sealed_len = u32::try_from(chunk.sealed.len()).unwrap_or(u32::MAX);
        if !(MIN_SEALED_BYTES..=MAX_SEALED_BYTES).contains(&sealed_len) {
            return Err(PackWriteError::NoChunk);
        }
        if self.ids.contains(&chunk.id) {
            return Ok(false);
        }
        if self.len() + chunk.sealed.len() + INDEX_ENTRY_BYTES > MAX_PACK_BYTES as usize {
            return Err(PackWriteError::Full);
        }
        // Growing by doubling would take twice what the pack needs; what is not used takes no memory.
        if self.chunks.is_empty() {
            self.bytes.reserve_exact(USUAL_PACK_BYTES);
        }
        self.bytes.reserve_exact(chunk.sealed.len());
        self.ids.insert(chunk.id);
        self.chunks.push(PackedChunk { id: chunk.id, offset: self.bytes.len() as u32, sealed_len });
        self.bytes.extend_from_slice(&chunk.sealed);
        Ok(true)
    }

    /// The size in bytes, before padding, that the pack would have at most if it were finished now.
    pub fn len(&self) -> usize {
        closed_len(self.bytes.len(), self.chunks.len())
    }

    /// Whether it holds no chunk.
    pub fn is_empty(&self) -> bool {
        self.chunks.is_empty()
    }

    /// How many chunks it holds.
    pub fn count(&self) -> usize {
        self.chunks.len()
    }

    /// Whether it holds this chunk.
    pub fn contains(&self, id: &ChunkId) -> bool {
        self.ids.contains(id)
    }

    /// Whether it has reached [`TARGET_PACK_BYTES`] or [`TARGET_PACK_CHUNKS`] and should be finished.
    pub fn is_full(&self) -> bool {
        is_full(self.bytes.len(), self.chunks.len())
    }

    /// Closes the pack: its index, which a replica records, and the object's bytes, at most [`MAX_PACK_BYTES`].
    ///
    /// `nonce` seals the index and must be used for nothing else.
    /// Fails with [`PackWriteError::OtherEpoch`] when the ring has gone on to another epoch since the chunks were sealed.
    pub fn finish(self, ring: &KeyRing, nonce: Nonce) -> Result<(PackIndex, Vec<u8>), PackWriteError> {
        if self.is_empty() {
            return Err(PackWriteError::Empty);
        }
        if ring.vault() != self.vault || ring.current() != self.epoch {
            return Err(PackWriteError::OtherEpoch { pack: self.epoch, other: ring.current() });
        }
        let index = encode_index(&self.chunks);
        let index_offset = self.bytes.len() as u32;
        let index_len = (BOX_OVERHEAD + index.len()) as u32;
        let span = Span { index_offset, index_len, size: padded_size(index_offset, index_len) };
        let head = header(self.vault, self.epoch);
        let sealed = ring.seal(Purpose::PackIndex, &span.context(&head), nonce, &index);
        let mut bytes = self.bytes;
        bytes.reserve_exact(span.size as usize - bytes.len());
        bytes.extend_from_slice(&sealed);
        bytes.resize(span.size as usize - TRAILER_BYTES, 0);
        bytes.extend_from_slice(&span.trailer());
        let pack = PackId(*blake3::hash(&bytes).as_bytes());
        Ok((PackIndex { pack, epoch: self.epoch, size: span.size, chunks: self.chunks }, bytes))
    }
}

/// Sealed chunks of one epoch for one pack that is put together elsewhere, on the thread that stores it.
///
/// Copying and hashing sixteen MiB takes as long as much else that whoever gathers the chunks could do.
#[derive(Debug, Default)]
pub struct PackParts {
    chunks: Vec<SealedChunk>,
    bytes: usize,
}

impl PackParts {
    /// Adds a chunk; no chunk may be added twice.
    pub fn push(&mut self, chunk: SealedChunk) {
        self.bytes += chunk.sealed.len();
        self.chunks.push(chunk);
    }

    /// Whether there is no chunk.
    pub fn is_empty(&self) -> bool {
        self.chunks.is_empty()
    }

    /// Whether a pack of them has reached [`TARGET_PACK_BYTES`] or [`TARGET_PACK_CHUNKS`] and should be written.
    pub fn is_full(&self) -> bool {
        is_full(HEADER_BYTES + self.bytes, self.chunks.len())
    }

    /// The pack, in the memory of `buffer`; see [`PackWriter::finish`].
    pub fn write(self, ring: &KeyRing, nonce: Nonce, buffer: Vec<u8>) -> Result<(PackIndex, Vec<u8>), PackWriteError> {
        let mut writer = PackWriter::in_buffer(ring.vault(), ring.current(), buffer);
        // Each is freed as soon as it was copied, so that they are not in memory twice.
        for chunk in self.chunks {
            writer.push(&chunk)?;
        }
        writer.finish(ring, nonce)
    }
}

/// Whether a pack of which so many bytes and chunks are written should be finished.
fn is_full(written: usize, chunks: usize) -> bool {
    chunks >= TARGET_PACK_CHUNKS || closed_len(written, chunks) >= TARGET_PACK_BYTES as usize
}

/// The size before padding of a pack of which so many bytes and chunks are written, once its index and trailer are too.
fn closed_len(written: usize, chunks: usize) -> usize {
    written + BOX_OVERHEAD + COUNT_BYTES + chunks * INDEX_ENTRY_BYTES + TRAILER_BYTES
}

/// Where a pack lies at an intermediary: `packs/<first two digits>/<all 64 digits>`.
pub fn object_name(pack: &PackId) -> ObjectName {
    let digits = pack.to_string();
    ObjectName::new(format!("packs/{}/{digits}", &digits[..2])).expect("hexadecimal digits make a sound name")
}

/// The pack that lies under a name, if it is one that [`object_name`] makes.
pub fn pack_named(name: &ObjectName) -> Option<PackId> {
    let pack = PackId::from_hex(name.as_str().rsplit('/').next()?)?;
    (object_name(&pack) == *name).then_some(pack)
}

/// Reads the index of a pack that is wholly in memory, and names the pack by its bytes.
///
/// Everything but the chunks themselves is checked; [`verify_pack`] checks those too.
pub fn read_index(ring: &KeyRing, bytes: &[u8]) -> Result<PackIndex, PackError> {
    let (head, rest) = bytes.split_first_chunk().ok_or(PackError::Format { what: "length" })?;
    let (_, trailer) = rest.split_last_chunk().ok_or(PackError::Format { what: "length" })?;
    let span = Span::read(trailer, bytes.len() as u64)?;
    let index_end = (span.index_offset + span.index_len) as usize;
    if bytes[index_end..bytes.len() - TRAILER_BYTES].iter().any(|byte| *byte != 0) {
        return Err(PackError::Format { what: "padding" });
    }
    let pack = PackId(*blake3::hash(bytes).as_bytes());
    open_index(ring, pack, head, span, &bytes[span.index_offset as usize..index_end])
}

/// Reads the index of a pack at an intermediary with three small reads; `size` is what a listing shows.
///
/// The pack's name is taken as it is: that the whole object has this hash is not checked.
pub fn fetch_index(store: &dyn Store, ring: &KeyRing, pack: &PackId, size: u64) -> Result<PackIndex, PackError> {
    let name = object_name(pack);
    // Refused before anything is read for it.
    let trailer_offset = check_size(size)? - TRAILER_BYTES as u64;
    let head = exact(store.get_range(&name, 0, HEADER_BYTES as u64)?)?;
    let trailer = exact(store.get_range(&name, trailer_offset, TRAILER_BYTES as u64)?)?;
    let span = Span::read(&trailer, size)?;
    let sealed = store.get_range(&name, span.index_offset.into(), span.index_len.into())?;
    open_index(ring, *pack, &head, span, &sealed)
}

/// How much of a pack [`verify_pack`] looks at.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Depth {
    /// The hash of its bytes, its structure and its index.
    Structure,
    /// Each chunk as well: decrypted, decompressed and compared with its id.
    Chunks,
}

/// What [`verify_pack`] found in a pack whose index is sound.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Verified {
    /// Its index.
    pub index: PackIndex,
    /// The chunks that cannot be opened; always empty at [`Depth::Structure`].
    pub damaged: Vec<(PackedChunk, ChunkError)>,
}

/// Checks the bytes of the pack `expected`.
///
/// At [`Depth::Structure`] a pack of another hash is refused.
/// At [`Depth::Chunks`] it is searched all the same, so that the sound chunks of a damaged pack can be told from the others;
/// it is refused with [`PackError::OtherId`] only if nothing else explains the hash.
pub fn verify_pack(ring: &KeyRing, expected: &PackId, bytes: &[u8], depth: Depth) -> Result<Verified, PackError> {
    let mut index = read_index(ring, bytes)?;
    let same = index.pack == *expected;
    index.pack = *expected;
    let mut damaged = Vec::new();
    if depth == Depth::Chunks {
        let mut codec = ChunkCodec::new();
        for chunk in &index.chunks {
            let start = chunk.offset as usize;
            let sealed = bytes.get(start..start + chunk.sealed_len as usize).unwrap_or_default();
            if let Err(error) = open_chunk_by_id(ring, &mut codec, index.epoch, &chunk.id, sealed) {
                damaged.push((*chunk, error));
            }
        }
    }
    if !same && damaged.is_empty() {
        return Err(PackError::OtherId);
    }
    Ok(Verified { index, damaged })
}

/// The least Padmé size that holds `len` bytes.
pub fn padme(len: u64) -> u64 {
    let Some(exponent) = len.checked_ilog2().filter(|exponent| *exponent > 0) else { return len };
    let low_bits = exponent - (exponent.ilog2() + 1);
    len.next_multiple_of(1 << low_bits)
}

/// Where the index of a pack lies, and where the pack ends; sound once it is made.
#[derive(Clone, Copy)]
struct Span {
    index_offset: u32,
    index_len: u32,
    size: u32,
}

impl Span {
    fn read(trailer: &[u8; TRAILER_BYTES], size: u64) -> Result<Self, PackError> {
        check_size(size)?;
        let word = |at: usize| u32::from_le_bytes([trailer[at], trailer[at + 1], trailer[at + 2], trailer[at + 3]]);
        let (index_offset, index_len) = (word(0), word(4));
        if trailer[8..] != TRAILER_MAGIC {
            return Err(PackError::Format { what: "end" });
        }
        let index_end = u64::from(index_offset) + u64::from(index_len);
        if (index_offset as usize) < HEADER_BYTES
            || (index_len as usize) < BOX_OVERHEAD
            || padme(index_end + TRAILER_BYTES as u64) != size
        {
            return Err(PackError::Format { what: "index place" });
        }
        Ok(Self { index_offset, index_len, size: size as u32 })
    }

    fn trailer(&self) -> [u8; TRAILER_BYTES] {
        let mut trailer = [0; TRAILER_BYTES];
        trailer[..4].copy_from_slice(&self.index_offset.to_le_bytes());
        trailer[4..8].copy_from_slice(&self.index_len.to_le_bytes());
        trailer[8..].copy_from_slice(&TRAILER_MAGIC);
        trailer
    }

    fn context(&self, head: &[u8; HEADER_BYTES]) -> Vec<u8> {
        [&head[..], &self.index_offset.to_le_bytes(), &self.size.to_le_bytes()].concat()
    }
}

fn check_size(size: u64) -> Result<u64, PackError> {
    let sound = (MIN_PACK_BYTES..=u64::from(MAX_PACK_BYTES)).contains(&size);
    if sound { Ok(size) } else { Err(PackError::Format { what: "length" }) }
}

fn exact<const N: usize>(bytes: Vec<u8>) -> Result<[u8; N], PackError> {
    bytes.try_into().map_err(|_| PackError::Format { what: "length" })
}

/// Cannot exceed [`MAX_PACK_BYTES`], which is a Padmé size itself, because [`PackWriter::push`] keeps below it.
fn padded_size(index_offset: u32, index_len: u32) -> u32 {
    padme(u64::from(index_offset) + u64::from(index_len) + TRAILER_BYTES as u64) as u32
}

fn header(vault: VaultId, epoch: Epoch) -> [u8; HEADER_BYTES] {
    let mut head = [0; HEADER_BYTES];
    head[..4].copy_from_slice(&MAGIC);
    head[4..6].copy_from_slice(&FORMAT_VERSION.to_le_bytes());
    head[6..22].copy_from_slice(&vault.0);
    head[22..].copy_from_slice(&epoch.to_le_bytes());
    head
}

/// The epoch that a header names, if it is one of a pack of this vault.
fn read_header(ring: &KeyRing, head: &[u8; HEADER_BYTES]) -> Result<Epoch, PackError> {
    let epoch = Epoch::from_le_bytes([head[22], head[23], head[24], head[25]]);
    if *head == header(ring.vault(), epoch) {
        return Ok(epoch);
    }
    if head[..4] != MAGIC {
        return Err(PackError::Format { what: "start" });
    }
    match u16::from_le_bytes([head[4], head[5]]) {
        FORMAT_VERSION => Err(PackError::OtherVault),
        version => Err(PackError::Version { version }),
    }
}

fn open_index(
    ring: &KeyRing,
    pack: PackId,
    head: &[u8; HEADER_BYTES],
    span: Span,
    sealed: &[u8],
) -> Result<PackIndex, PackError> {
    let epoch = read_header(ring, head)?;
    let plain = ring.open(Purpose::PackIndex, epoch, &span.context(head), sealed)?;
    let chunks = decode_index(&plain, span.index_offset)?;
    Ok(PackIndex { pack, epoch, size: span.size, chunks })
}

fn encode_index(chunks: &[PackedChunk]) -> Vec<u8> {
    let mut writer = Writer::new();
    writer.varint(chunks.len() as u64);
    for chunk in chunks {
        writer.raw(&chunk.id.0).varint(chunk.sealed_len.into());
    }
    writer.finish()
}

/// Reads an index whose chunks fill the pack from the header to `index_offset`.
fn decode_index(plain: &[u8], index_offset: u32) -> Result<Vec<PackedChunk>, WireError> {
    let mut reader = Reader::new(plain);
    let count = reader.count(ChunkId::LEN + 1)?;
    if count == 0 {
        return Err(WireError::Invalid { what: "chunk count" });
    }
    let (mut chunks, mut ids) = (Vec::with_capacity(count), HashSet::with_capacity(count));
    let mut offset = HEADER_BYTES as u32;
    for _ in 0..count {
        let id = ChunkId(reader.array()?);
        let sealed_len = reader.varint32()?;
        if !(MIN_SEALED_BYTES..=MAX_SEALED_BYTES).contains(&sealed_len) || sealed_len > index_offset - offset {
            return Err(WireError::Invalid { what: "chunk length" });
        }
        if !ids.insert(id) {
            return Err(WireError::Invalid { what: "repeated chunk" });
        }
        chunks.push(PackedChunk { id, offset, sealed_len });
        offset += sealed_len;
    }
    reader.finish()?;
    if offset != index_offset { Err(WireError::Invalid { what: "index place" }) } else { Ok(chunks) }
}

/// Why a pack could not be written.
#[derive(Debug, Clone, PartialEq, Eq, Error)]
pub enum PackWriteError {
    /// The pack has no room for the chunk; finish it and start another.
    #[error("the pack is full")]
    Full,
    /// There is nothing to write.
    #[error("the pack is empty")]
    Empty,
    /// The bytes are too few or too many for a sealed chunk; a bug of the caller.
    #[error("a sealed chunk has an impossible length")]
    NoChunk,
    /// The vault's key changed, or is another's; seal the chunks anew in another pack.
    #[error("the pack is of epoch {pack}, not of epoch {other}")]
    OtherEpoch {
        /// The pack's epoch.
        pack: Epoch,
        /// The chunk's or the ring's epoch.
        other: Epoch,
    },
}

/// Why a pack could not be read. Other than for [`PackError::Store`], this copy of it is of no use as a whole.
#[derive(Debug, Error)]
pub enum PackError {
    /// Its bytes do not have the layout of a pack.
    #[error("the pack is damaged: invalid {what}")]
    Format {
        /// The part that is wrong.
        what: &'static str,
    },
    /// It was written by a newer release.
    #[error("the pack has format version {version}, which this release does not read")]
    Version {
        /// The version it states.
        version: u16,
    },
    /// It belongs to another vault.
    #[error("the pack belongs to another vault")]
    OtherVault,
    /// Its bytes do not have the hash that names it.
    #[error("the pack's bytes are not those that its name stands for")]
    OtherId,
    /// Its index is damaged, or this device lacks its key.
    #[error("the pack's index cannot be opened")]
    Sealed(#[from] SealError),
    /// Its index opens and is wrong; whoever wrote it has a bug.
    #[error("the pack's index is wrong")]
    Index(#[from] WireError),
    /// It could not be read from the intermediary.
    #[error(transparent)]
    Store(#[from] StoreError),
}

/// A pack is finished when it reaches this size in bytes.
pub const TARGET_PACK_BYTES: u32 = 16 * 1024 * 1024;
/// Or when it holds so many chunks: what refers to them waits in memory until the pack is stored, and packets name each.
pub const TARGET_PACK_CHUNKS: usize = 32_768;
/// A full pack of small chunks with its index and padding.
const USUAL_PACK_BYTES: usize = TARGET_PACK_BYTES as usize + (3 << 19);
/// Greatest size of a pack in bytes, padding included.
pub const MAX_PACK_BYTES: u32 = 32 * 1024 * 1024;

const MAGIC: [u8; 4] = *b"PBPA";
const TRAILER_MAGIC: [u8; 4] = *b"APBP";
const FORMAT_VERSION: u16 = 1;
/// Bytes before the first chunk of a pack.
pub const HEADER_BYTES: usize = 4 + 2 + VaultId::LEN + 4;
const TRAILER_BYTES: usize = 4 + 4 + 4;
/// The most that a chunk adds to the index: its id, and a length that takes four bytes as a varint.
const INDEX_ENTRY_BYTES: usize = ChunkId::LEN + 4;
/// The most that the count takes.
const COUNT_BYTES: usize = 4;
const MIN_PACK_BYTES: u64 = (HEADER_BYTES + BOX_OVERHEAD + TRAILER_BYTES) as u64;

#[cfg(test)]
mod tests;
