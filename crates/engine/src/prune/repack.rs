//! Repacking: what is in use of a pack that is mostly waste, into packs of its own.
//!
//! Contents name chunks, and the index says in which packs these lie; so nothing is pointed elsewhere. The packet that
//! condemns the old pack tells of the new ones, and whoever folds it finds the chunks there.
//!
//! A pack is read whole or not at all. One that cannot be read, or of which a chunk in use is damaged, is left as it is.

use std::collections::HashSet;

use packetboat_core::content::PackIndex;
use packetboat_core::ids::{ChunkId, PackId};
use packetboat_core::store::Store;
use packetboat_replica::index::{ChunkPlace, Index, PackState, PackUse};
use packetboat_storage::chunk::{ChunkCodec, SealedChunk, open_chunk_by_id, seal_known_chunk};
use packetboat_storage::pack::{MAX_PACK_BYTES, PackWriter, object_name};

use crate::Keys;
use crate::error::SyncError;
use crate::learn::{LearnError, unusable};
use crate::ports::Entropy;

/// Chunks on their way into new packs.
pub(super) struct Repacking<'a> {
    store: &'a dyn Store,
    keys: &'a Keys,
    codec: ChunkCodec,
    pack: PackWriter,
    /// All that was taken over, in this pack or one before.
    taken: HashSet<ChunkId>,
    /// The packs that were put.
    pub(super) told: Vec<PackIndex>,
}

impl<'a> Repacking<'a> {
    pub(super) fn new(store: &'a dyn Store, keys: &'a Keys) -> Self {
        let pack = PackWriter::new(keys.ring.vault(), keys.ring.current());
        Self { store, keys, codec: ChunkCodec::new(), pack, taken: HashSet::new(), told: Vec::new() }
    }

    /// Takes over what is in use of a pack; whether all of it could be.
    pub(super) fn take(
        &mut self,
        index: &mut Index,
        pack: &PackUse,
        entropy: &mut dyn Entropy,
    ) -> Result<bool, SyncError> {
        self.take_chunks(index, &pack.pack, &pack.used_chunks, entropy)
    }

    /// Takes over these chunks of a pack; whether all of them could be.
    pub(super) fn take_chunks(
        &mut self,
        index: &mut Index,
        pack: &PackId,
        chunks: &[ChunkId],
        entropy: &mut dyn Entropy,
    ) -> Result<bool, SyncError> {
        let Some(known) = index.pack_index(pack)? else { return Ok(false) };
        let bytes = match unusable(self.store.get(&object_name(pack), u64::from(MAX_PACK_BYTES))) {
            Ok(bytes) => bytes,
            Err(LearnError::Unusable(_) | LearnError::Locked(_)) => return Ok(false),
            Err(LearnError::Sync(error)) => return Err(error),
        };
        let wanted: HashSet<&ChunkId> = chunks.iter().collect();
        let mut sound = Vec::new();
        for chunk in known.chunks.iter().filter(|chunk| wanted.contains(&chunk.id)) {
            let range = chunk.offset as usize..chunk.offset as usize + chunk.sealed_len as usize;
            let Some(sealed) = bytes.get(range) else { return Ok(false) };
            let Some(chunk) = self.again(known.epoch, &chunk.id, sealed, entropy) else { return Ok(false) };
            sound.push(chunk);
        }
        for chunk in sound {
            self.push(index, &chunk, entropy)?;
        }
        Ok(true)
    }

    /// Takes over a chunk that a packet holds; whether one does.
    pub(super) fn take_from_packet(
        &mut self,
        index: &mut Index,
        chunk: &ChunkId,
        entropy: &mut dyn Entropy,
    ) -> Result<bool, SyncError> {
        let Some(ChunkPlace::Packet { dot }) = index.chunk_place(chunk)? else { return Ok(false) };
        let Some(packet) = index.sealed_packet(dot)? else { return Ok(false) };
        let inline = packet.open(&self.keys.ring)?.body.inline;
        let Some((id, plain)) = inline.into_iter().find(|(id, _)| id == chunk) else { return Ok(false) };
        let Ok(sealed) = seal_known_chunk(&self.keys.ring, &mut self.codec, id, &plain, entropy.nonce()) else {
            return Ok(false);
        };
        self.push(index, &sealed, entropy)?;
        Ok(true)
    }

    /// Takes a sealed chunk into the pack, unless one took it already.
    fn push(&mut self, index: &mut Index, chunk: &SealedChunk, entropy: &mut dyn Entropy) -> Result<(), SyncError> {
        if self.taken.insert(chunk.id) {
            self.pack.push(chunk)?;
            if self.pack.is_full() {
                self.put(index, entropy)?;
            }
        }
        Ok(())
    }

    /// A chunk as it was sealed, proven, or sealed anew where it was in an earlier epoch.
    fn again(&mut self, epoch: u32, id: &ChunkId, sealed: &[u8], entropy: &mut dyn Entropy) -> Option<SealedChunk> {
        let ring = &self.keys.ring;
        let plain = open_chunk_by_id(ring, &mut self.codec, epoch, id, sealed).ok()?;
        if epoch == ring.current() {
            let len = u32::try_from(plain.len()).ok()?;
            return Some(SealedChunk { id: *id, len, epoch, sealed: sealed.to_vec() });
        }
        seal_known_chunk(ring, &mut self.codec, *id, &plain, entropy.nonce()).ok()
    }

    /// Puts what was taken over, and records it: after a crash some later packet tells of it.
    pub(super) fn put(&mut self, index: &mut Index, entropy: &mut dyn Entropy) -> Result<(), SyncError> {
        if self.pack.is_empty() {
            return Ok(());
        }
        let ring = &self.keys.ring;
        let fresh = PackWriter::new(ring.vault(), ring.current());
        let (pack, bytes) = std::mem::replace(&mut self.pack, fresh).finish(ring, entropy.nonce())?;
        self.store.put_new(&object_name(&pack.pack), &bytes)?;
        index.put_pack(&pack, PackState::Pending)?;
        self.told.push(pack);
        Ok(())
    }
}
