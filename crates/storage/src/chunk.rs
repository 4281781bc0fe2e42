//! One chunk at rest: compressed where that helps, sealed under the vault's key, named by its plaintext.
//!
//! ```text
//! sealed chunk   nonce 24 | ciphertext of the stored form | tag 16
//! stored form    encoding 1 | data
//!   encoding 0   data is the plaintext
//!   encoding 1   data is one zstd frame that states its content size
//! ```
//!
//! Compression runs before encryption and is kept only where it saves at least one part in 32.
//! A stored form is therefore never longer than its plaintext and one byte.
//! Decoding knows the length it must arrive at before it allocates, so a small chunk cannot unfold into a large one.
//! What was opened is hashed again: a chunk is right only when its id is.

use packetboat_core::content::{ChunkRef, MAX_CHUNK_BYTES};
use packetboat_core::ids::{ChunkId, Epoch};
use packetboat_core::keys::{CHUNK_OVERHEAD, CHUNK_ROOM_BEFORE, KeyRing, Nonce, SealError};
use thiserror::Error;
use zstd::bulk::{Compressor, Decompressor};
use zstd::zstd_safe;

/// Compression and decompression with contexts and buffers that are used again; one for each thread.
pub struct ChunkCodec {
    compressor: Compressor<'static>,
    decompressor: Decompressor<'static>,
    scratch: Vec<u8>,
}

impl ChunkCodec {
    /// A codec at the level that new chunks are written with.
    ///
    /// # Panics
    ///
    /// When there is no memory for a zstd context.
    pub fn new() -> Self {
        Self {
            compressor: Compressor::new(LEVEL).expect("zstd makes a context at a fixed level"),
            decompressor: Decompressor::new().expect("zstd makes a context"),
            scratch: Vec::new(),
        }
    }

    /// The stored form of a chunk: at most one byte longer than `plain`.
    pub fn encode_chunk(&mut self, plain: &[u8]) -> Vec<u8> {
        self.encode_behind(0, plain)
    }

    /// The stored form behind `room` bytes, in a buffer in which it can be sealed without being copied.
    fn encode_behind(&mut self, room: usize, plain: &[u8]) -> Vec<u8> {
        let (encoding, data) = match self.compressed_len(plain) {
            Some(len) => (ENCODING_ZSTD, &self.scratch[..len]),
            None => (ENCODING_RAW, plain),
        };
        let mut stored = Vec::with_capacity(1 + data.len() + CHUNK_OVERHEAD);
        stored.resize(room, 0);
        stored.push(encoding);
        stored.extend_from_slice(data);
        stored
    }

    /// The plaintext of a stored form, which must be `expected_len` bytes long.
    ///
    /// Fails with [`ChunkError::Length`] or [`ChunkError::Encoding`]; allocates `expected_len` bytes at most.
    pub fn decode_chunk(&mut self, stored: &[u8], expected_len: u32) -> Result<Vec<u8>, ChunkError> {
        if stated_len(stored)? != expected_len {
            return Err(ChunkError::Length);
        }
        self.decode_stated(stored)
    }

    /// The plaintext of a stored form of which only the id is known; see [`decode_chunk`](Self::decode_chunk).
    fn decode_stated(&mut self, stored: &[u8]) -> Result<Vec<u8>, ChunkError> {
        let len = stated_len(stored)? as usize;
        let (encoding, data) = stored.split_first().ok_or(ChunkError::Encoding)?;
        if *encoding == ENCODING_RAW {
            return Ok(data.to_vec());
        }
        let mut plain = Vec::with_capacity(len);
        self.decompressor.decompress_to_buffer(data, &mut plain).map_err(|_| ChunkError::Encoding)?;
        // The frame is followed by others or belies its header.
        if plain.len() != len {
            return Err(ChunkError::Length);
        }
        Ok(plain)
    }

    /// Compresses into the scratch buffer; nothing when that saves too little.
    ///
    /// The room given to zstd is the most that would still be worth keeping, so that it stops early on what does not shrink.
    fn compressed_len(&mut self, plain: &[u8]) -> Option<usize> {
        let room = plain.len().checked_sub((plain.len() / LEAST_SAVING).max(1))?;
        if self.scratch.len() < room {
            self.scratch.resize(room, 0);
        }
        self.compressor.compress_to_buffer(plain, &mut self.scratch[..room]).ok()
    }
}

impl Default for ChunkCodec {
    fn default() -> Self {
        Self::new()
    }
}

/// A chunk ready to be put in a pack.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct SealedChunk {
    /// The keyed hash of its plaintext.
    pub id: ChunkId,
    /// Its plaintext length in bytes: 1 to [`MAX_CHUNK_BYTES`].
    pub len: u32,
    /// The epoch whose key sealed it.
    pub epoch: Epoch,
    /// Its sealed bytes, at most [`MAX_SEALED_BYTES`].
    pub sealed: Vec<u8>,
}

impl SealedChunk {
    /// How a file's chunk list names it.
    pub fn chunk_ref(&self) -> ChunkRef {
        ChunkRef { id: self.id, len: self.len }
    }
}

/// Names, compresses and seals a chunk under the ring's current epoch; `nonce` must be used for nothing else.
///
/// Fails with [`ChunkError::Length`] when `plain` is empty or longer than [`MAX_CHUNK_BYTES`].
pub fn seal_chunk(
    ring: &KeyRing,
    codec: &mut ChunkCodec,
    plain: &[u8],
    nonce: Nonce,
) -> Result<SealedChunk, ChunkError> {
    seal_known_chunk(ring, codec, ring.chunk_id(plain), plain, nonce)
}

/// Like [`seal_chunk`], for a caller that has the id already (to see whether the chunk is stored).
pub fn seal_known_chunk(
    ring: &KeyRing,
    codec: &mut ChunkCodec,
    id: ChunkId,
    plain: &[u8],
    nonce: Nonce,
) -> Result<SealedChunk, ChunkError> {
    let len = chunk_len(plain.len())?;
    let mut sealed = codec.encode_behind(CHUNK_ROOM_BEFORE, plain);
    ring.seal_chunk_in_place(&id, nonce, &mut sealed);
    Ok(SealedChunk { id, len, epoch: ring.current(), sealed })
}

/// Opens a sealed chunk and proves that it is the one meant: its length and its id are compared.
pub fn open_chunk(
    ring: &KeyRing,
    codec: &mut ChunkCodec,
    epoch: Epoch,
    chunk: &ChunkRef,
    sealed: &[u8],
) -> Result<Vec<u8>, ChunkError> {
    let stored = ring.open_chunk(&chunk.id, epoch, sealed)?;
    prove(ring, &chunk.id, codec.decode_chunk(&stored, chunk.len)?)
}

/// Opens a sealed chunk of which only the id is known, as a pack's index names it.
pub fn open_chunk_by_id(
    ring: &KeyRing,
    codec: &mut ChunkCodec,
    epoch: Epoch,
    id: &ChunkId,
    sealed: &[u8],
) -> Result<Vec<u8>, ChunkError> {
    let stored = ring.open_chunk(id, epoch, sealed)?;
    prove(ring, id, codec.decode_stated(&stored)?)
}

fn prove(ring: &KeyRing, id: &ChunkId, plain: Vec<u8>) -> Result<Vec<u8>, ChunkError> {
    if ring.chunk_id(&plain) == *id { Ok(plain) } else { Err(ChunkError::Id) }
}

/// The plaintext length that a stored form claims, if it is one that a chunk can have.
fn stated_len(stored: &[u8]) -> Result<u32, ChunkError> {
    let (encoding, data) = stored.split_first().ok_or(ChunkError::Encoding)?;
    match *encoding {
        ENCODING_RAW => chunk_len(data.len()),
        ENCODING_ZSTD => match zstd_safe::get_frame_content_size(data) {
            Ok(Some(len)) => chunk_len(usize::try_from(len).map_err(|_| ChunkError::Length)?),
            Ok(None) | Err(_) => Err(ChunkError::Encoding),
        },
        _ => Err(ChunkError::Encoding),
    }
}

fn chunk_len(len: usize) -> Result<u32, ChunkError> {
    match u32::try_from(len) {
        Ok(len) if (1..=MAX_CHUNK_BYTES).contains(&len) => Ok(len),
        _ => Err(ChunkError::Length),
    }
}

/// Why a chunk was refused. The bytes at hand are of no use; another copy may be.
#[derive(Debug, Clone, PartialEq, Eq, Error)]
pub enum ChunkError {
    /// It was not sealed as this chunk with this vault's key, or was changed since.
    #[error(transparent)]
    Sealed(#[from] SealError),
    /// Its plaintext is empty, too long, or not as long as it should be.
    #[error("the chunk does not have the length it should have")]
    Length,
    /// Its stored form has an unknown encoding or is no sound zstd frame.
    #[error("the chunk's compressed form is damaged or of an unknown kind")]
    Encoding,
    /// Its plaintext has another id.
    #[error("the chunk holds other data than its id names")]
    Id,
}

/// Greatest length of a sealed chunk in bytes.
pub const MAX_SEALED_BYTES: u32 = MAX_CHUNK_BYTES + 1 + CHUNK_OVERHEAD as u32;
/// Least length of a sealed chunk in bytes: an encoding byte and one byte of data.
pub const MIN_SEALED_BYTES: u32 = 2 + CHUNK_OVERHEAD as u32;

const ENCODING_RAW: u8 = 0;
const ENCODING_ZSTD: u8 = 1;
const LEVEL: i32 = 3;
/// Compression must save one part in this many.
const LEAST_SAVING: usize = 32;

#[cfg(test)]
mod tests {
    use packetboat_core::ids::VaultId;
    use packetboat_core::keys::RootKey;
    use proptest::prelude::*;

    use super::*;
    use crate::testing::{compressible, noise, ring};

    #[test]
    fn chunks_of_every_size_and_kind_come_back() {
        let (ring, mut codec) = (ring(), ChunkCodec::new());
        for len in [1usize, 2, 31, 32, 33, 100, 4096, 65536, 1 << 20, MAX_CHUNK_BYTES as usize] {
            for plain in [noise(len as u64, len), compressible(len as u64, len), vec![0; len]] {
                let chunk = seal_chunk(&ring, &mut codec, &plain, Nonce([1; 24])).unwrap();
                assert!(chunk.sealed.len() <= plain.len() + 1 + CHUNK_OVERHEAD);
                assert!((MIN_SEALED_BYTES..=MAX_SEALED_BYTES).contains(&(chunk.sealed.len() as u32)));
                assert_eq!(open_chunk(&ring, &mut codec, 0, &chunk.chunk_ref(), &chunk.sealed), Ok(plain.clone()));
                assert_eq!(open_chunk_by_id(&ring, &mut codec, 0, &chunk.id, &chunk.sealed), Ok(plain));
            }
        }
    }

    #[test]
    fn compression_is_kept_only_where_it_saves() {
        let mut codec = ChunkCodec::new();
        assert_eq!(codec.encode_chunk(&noise(1, 5000))[0], ENCODING_RAW);
        let text = compressible(1, 5000);
        let stored = codec.encode_chunk(&text);
        assert_eq!(stored[0], ENCODING_ZSTD);
        assert!(stored.len() < text.len() / 2, "{}", stored.len());
    }

    #[test]
    fn empty_and_oversized_chunks_are_refused() {
        let (ring, mut codec) = (ring(), ChunkCodec::new());
        for len in [0, MAX_CHUNK_BYTES as usize + 1] {
            assert_eq!(seal_chunk(&ring, &mut codec, &vec![0; len], Nonce([0; 24])), Err(ChunkError::Length));
            let mut raw = vec![ENCODING_RAW];
            raw.resize(1 + len, 0);
            assert_eq!(codec.decode_chunk(&raw, len as u32), Err(ChunkError::Length));
        }
        assert_eq!(codec.decode_chunk(&[], 0), Err(ChunkError::Encoding));
    }

    #[test]
    fn a_decompression_bomb_is_refused_before_it_unfolds() {
        let mut codec = ChunkCodec::new();
        let mut bomb = vec![ENCODING_ZSTD];
        bomb.extend(zstd::bulk::compress(&vec![0; 1 << 28], 3).unwrap());
        assert_eq!(codec.decode_chunk(&bomb, MAX_CHUNK_BYTES), Err(ChunkError::Length));
        assert_eq!(codec.decode_chunk(&bomb, 1 << 28), Err(ChunkError::Length));
        // A second frame behind the first does not fit the stated size.
        let mut twice = codec.encode_chunk(&[7; 1000]);
        let frame = twice[1..].to_vec();
        twice.extend(frame);
        assert!(codec.decode_chunk(&twice, 1000).is_err());
    }

    #[test]
    fn a_length_other_than_the_known_one_is_refused() {
        let (ring, mut codec) = (ring(), ChunkCodec::new());
        for plain in [noise(2, 1000), compressible(2, 1000)] {
            let chunk = seal_chunk(&ring, &mut codec, &plain, Nonce([0; 24])).unwrap();
            for len in [0, 999, 1001, u32::MAX] {
                let wrong = ChunkRef { id: chunk.id, len };
                assert_eq!(open_chunk(&ring, &mut codec, 0, &wrong, &chunk.sealed), Err(ChunkError::Length));
            }
        }
    }

    #[test]
    fn a_chunk_sealed_under_a_foreign_id_is_refused() {
        let (ring, mut codec) = (ring(), ChunkCodec::new());
        let id = ring.chunk_id(b"what was promised");
        let sealed = ring.seal_chunk(&id, Nonce([0; 24]), &codec.encode_chunk(b"something else!!!"));
        let chunk = ChunkRef { id, len: 17 };
        assert_eq!(open_chunk(&ring, &mut codec, 0, &chunk, &sealed), Err(ChunkError::Id));
        assert_eq!(open_chunk_by_id(&ring, &mut codec, 0, &id, &sealed), Err(ChunkError::Id));
    }

    #[test]
    fn a_chunk_of_another_vault_or_epoch_is_refused() {
        let (ring, mut codec) = (ring(), ChunkCodec::new());
        let chunk = seal_chunk(&ring, &mut codec, b"hello", Nonce([0; 24])).unwrap();
        let other = KeyRing::new(VaultId([9; 16]), RootKey([9; 32]));
        let forged = Err(ChunkError::Sealed(SealError::Forged));
        assert_eq!(open_chunk(&other, &mut codec, 0, &chunk.chunk_ref(), &chunk.sealed), forged);
        let unknown = Err(ChunkError::Sealed(SealError::UnknownEpoch { epoch: 5 }));
        assert_eq!(open_chunk(&ring, &mut codec, 5, &chunk.chunk_ref(), &chunk.sealed), unknown);
    }

    proptest! {
        #[test]
        fn any_chunk_comes_back(plain in prop::collection::vec(any::<u8>(), 1..2000), repeat in 1usize..20) {
            let (ring, mut codec) = (ring(), ChunkCodec::new());
            let plain = plain.repeat(repeat);
            let chunk = seal_chunk(&ring, &mut codec, &plain, Nonce([4; 24])).unwrap();
            prop_assert_eq!(open_chunk(&ring, &mut codec, 0, &chunk.chunk_ref(), &chunk.sealed), Ok(plain));
        }

        #[test]
        fn arbitrary_stored_bytes_never_panic(
            stored in prop::collection::vec(any::<u8>(), 0..300),
            encoding in 0u8..3,
            len in 0u32..5000,
        ) {
            let mut codec = ChunkCodec::new();
            let _ = codec.decode_chunk(&stored, len);
            let mut tagged = vec![encoding];
            tagged.extend_from_slice(&stored);
            let _ = codec.decode_chunk(&tagged, len);
        }

        #[test]
        fn a_mangled_frame_is_refused_or_decodes_to_the_expected_length(
            seed in any::<u64>(), at in any::<prop::sample::Index>(), bit in 0u8..8,
        ) {
            let mut codec = ChunkCodec::new();
            let mut stored = codec.encode_chunk(&compressible(seed, 3000));
            let at = at.index(stored.len());
            stored[at] ^= 1 << bit;
            if let Ok(plain) = codec.decode_chunk(&stored, 3000) {
                prop_assert_eq!(plain.len(), 3000);
            }
        }
    }
}
