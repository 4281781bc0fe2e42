//! Storing anew what a change would refer to and may not: what is condemned, and what others stored while they may not know
//! of this device.
//!
//! A file that is read from disk is stored anew by itself, since its chunks count as new. Settling and undoing name the
//! contents of earlier versions without reading them; here these are read from wherever they lie.

use std::collections::HashSet;

use packetboat_core::content::{ChunkList, ChunkRef, Content, PackIndex};
use packetboat_replica::index::{PackState, Referable};
use packetboat_storage::chunk::{ChunkCodec, seal_known_chunk};
use packetboat_storage::pack::{PackWriter, object_name};

use crate::chunk_source::{ChunkSource, Chunks, ReadState};
use crate::error::SyncError;
use crate::garbage;
use crate::replica::Replica;

impl Replica {
    /// Stores anew what of these contents may not be referred to where it lies; the packs are to be told of in the packet
    /// that names the contents. What cannot be read is left: the version before lacked it too.
    pub(crate) fn store_anew(&mut self, contents: &[Content]) -> Result<Vec<PackIndex>, SyncError> {
        let index = &self.parts.index;
        let referable = garbage::referable(index, &self.keys)?;
        if referable == Referable::All && garbage::load(index)?.condemned().is_empty() {
            return Ok(Vec::new());
        }
        let lookup = index.chunk_lookup(&referable)?;
        let parts = &mut self.parts;
        let (mut state, mut failed) = (ReadState::default(), None);
        let mut source = ChunkSource {
            index: &parts.index,
            store: &*parts.store,
            ring: &self.keys.ring,
            threads: 1,
            state: &mut state,
            failed: &mut failed,
        };
        let mut wanted: Vec<ChunkRef> = Vec::new();
        for content in contents {
            let Content::File(file) = content else { continue };
            wanted.extend(file.chunks.first());
            if let ChunkList::Indirect(_) = &file.chunks {
                wanted.extend(source.chunk_list(file)?.unwrap_or_default());
            }
        }
        wanted.retain(|chunk| !lookup.is_stored(&chunk.id));
        let mut told = Vec::new();
        let mut codec = ChunkCodec::new();
        let mut pack = PackWriter::new(self.keys.ring.vault(), self.keys.ring.current());
        let mut stored = HashSet::new();
        // A few at a time: they are in memory.
        for batch in wanted.chunks(BATCH) {
            let mut chunks = Chunks::new();
            source.gather(batch, &mut chunks)?;
            for (id, answer) in chunks {
                let Ok(plain) = answer else { continue };
                if !stored.insert(id) {
                    continue;
                }
                let sealed = seal_known_chunk(&self.keys.ring, &mut codec, id, &plain, parts.entropy.nonce())
                    .expect("a chunk that was stored once is of a sound length");
                pack.push(&sealed)?;
                if pack.is_full() {
                    let next = PackWriter::new(self.keys.ring.vault(), self.keys.ring.current());
                    let full = std::mem::replace(&mut pack, next);
                    let (index, bytes) = full.finish(&self.keys.ring, parts.entropy.nonce())?;
                    parts.store.put_new(&object_name(&index.pack), &bytes)?;
                    told.push(index);
                }
            }
        }
        if !pack.is_empty() {
            let (index, bytes) = pack.finish(&self.keys.ring, parts.entropy.nonce())?;
            parts.store.put_new(&object_name(&index.pack), &bytes)?;
            told.push(index);
        }
        for pack in &told {
            self.parts.index.put_pack(pack, PackState::Stored)?;
        }
        Ok(told)
    }
}

const BATCH: usize = 64;
