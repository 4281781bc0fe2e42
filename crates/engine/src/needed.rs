//! Packs that a packet relies on and of which nothing that was folded here told.
//!
//! A checkpoint names packs of which no packet told, and whoever begins from it relies on them like on any other. Others
//! had the same content elsewhere and need not know of them, until that is let go: then the pack is all there is. What it
//! holds it says itself, in three small reads.

use std::collections::{BTreeMap, BTreeSet};

use packetboat_core::ids::PackId;
use packetboat_core::keys::KeyRing;
use packetboat_core::packet::Packet;
use packetboat_core::store::Store;
use packetboat_replica::index::{Index, IndexError, PackState};
use packetboat_storage::pack::{PackError, fetch_index};

use crate::checkpoints::held;
use crate::error::SyncError;
use crate::garbage;
use crate::prune::present::sizes;

/// Notes those of a packet's packs that are not known here. Within the caller's transaction.
pub(crate) fn note(index: &mut Index, packet: &Packet) -> Result<(), SyncError> {
    let mut unknown = BTreeSet::new();
    for pack in &packet.body.needs {
        if index.pack_row(pack)?.is_none() {
            unknown.insert(*pack);
        }
    }
    if unknown.is_empty() {
        return Ok(());
    }
    let mut noted = noted(index)?;
    for pack in unknown {
        noted.entry(pack).or_insert(0);
    }
    Ok(set_noted(index, noted)?)
}

/// Reads what the noted packs hold; one that was not there several times is one that was let go.
pub(crate) fn learn(index: &mut Index, store: &dyn Store, ring: &KeyRing) -> Result<(), SyncError> {
    let mut noted = noted(index)?;
    if noted.is_empty() {
        return Ok(());
    }
    let garbage = garbage::load(index)?;
    let mut of_use = BTreeMap::new();
    for (pack, looked) in std::mem::take(&mut noted) {
        if garbage.may_refer(&pack) && index.pack_row(&pack)?.is_none() {
            of_use.insert(pack, looked);
        }
    }
    let sizes = sizes(store, of_use.keys())?;
    let mut found = Vec::new();
    for (pack, looked) in of_use {
        let answer = sizes.get(&pack).map(|size| fetch_index(store, ring, &pack, *size));
        match answer {
            Some(Ok(pack)) => found.push(pack),
            Some(Err(PackError::Store(error))) if !crate::chunk_source::is_damage(&error) => return Err(error.into()),
            // It may come yet, or be put back.
            Some(Err(_)) | None if looked + 1 < LOOKS => drop(noted.insert(pack, looked + 1)),
            Some(Err(_)) | None => {}
        }
    }
    index.begin()?;
    for pack in &found {
        index.put_pack(pack, PackState::Stored)?;
    }
    held::add_named_by_checkpoint(index, &found)?;
    set_noted(index, noted)?;
    Ok(index.commit()?)
}

/// The noted packs, and how often each was looked for in vain.
fn noted(index: &Index) -> Result<BTreeMap<PackId, u8>, IndexError> {
    let bytes = index.meta(NOTED)?.unwrap_or_default();
    let entries = bytes.chunks_exact(PackId::LEN + 1);
    Ok(entries.filter_map(|entry| Some((PackId::from_slice(&entry[1..])?, entry[0]))).collect())
}

fn set_noted(index: &mut Index, noted: BTreeMap<PackId, u8>) -> Result<(), IndexError> {
    let mut bytes = Vec::new();
    // What does not fit is not looked for; its readers ask for it.
    for (pack, looked) in noted.into_iter().take(MAX_NOTED) {
        bytes.push(looked);
        bytes.extend_from_slice(&pack.0);
    }
    index.set_meta(NOTED, Some(&bytes).filter(|bytes| !bytes.is_empty()).map(Vec::as_slice))
}

/// Rounds in which a pack is looked for.
const LOOKS: u8 = 3;
/// Packs that are kept in mind.
const MAX_NOTED: usize = 1024;
/// The key of what is noted of a place.
pub(crate) const NOTED: &str = "packs needed and not known";

#[cfg(test)]
mod tests {
    use packetboat_core::body::PacketBody;
    use packetboat_core::ids::{PacketHash, VaultId};
    use packetboat_core::keys::{DeviceKey, Nonce, RootKey};
    use packetboat_core::knowledge::Knowledge;
    use packetboat_core::packet::SealedPacket;
    use packetboat_storage::chunk::{ChunkCodec, seal_chunk};
    use packetboat_storage::memory::MemoryStore;
    use packetboat_storage::pack::{PackWriter, object_name};

    use super::*;

    /// A store, a pack that is not there yet, and an index that has folded a packet which needs it.
    fn needing() -> (MemoryStore, KeyRing, PackId, Vec<u8>, Index) {
        let ring = KeyRing::new(VaultId([7; 16]), RootKey([1; 32]));
        let mut writer = PackWriter::new(ring.vault(), ring.current());
        writer.push(&seal_chunk(&ring, &mut ChunkCodec::new(), b"chunk", Nonce([1; 24])).unwrap()).unwrap();
        let (pack, bytes) = writer.finish(&ring, Nonce([2; 24])).unwrap();
        let body = PacketBody {
            lamport: 1,
            time: 0,
            prerequisite: Knowledge::new(),
            needs: vec![pack.pack],
            packs: Vec::new(),
            inline: Vec::new(),
            changes: Vec::new(),
        };
        let author = DeviceKey::from_seed(&[2; 32]);
        let sealed = SealedPacket::seal(&author, &ring, 1, PacketHash([0; 32]), Nonce([3; 24]), &body).unwrap();
        let mut index = Index::in_memory().unwrap();
        index.begin().unwrap();
        note(&mut index, &sealed.open(&ring).unwrap()).unwrap();
        index.commit().unwrap();
        (MemoryStore::new(), ring, pack.pack, bytes, index)
    }

    #[test]
    fn a_pack_that_a_packet_relies_on_is_learned_from_itself_and_is_not_taken_for_known_to_others() {
        let (store, ring, pack, bytes, mut index) = needing();
        learn(&mut index, &store, &ring).unwrap();
        assert!(index.pack_row(&pack).unwrap().is_none(), "it is not there yet");
        store.put_new(&object_name(&pack), &bytes).unwrap();
        learn(&mut index, &store, &ring).unwrap();
        assert_eq!(index.pack_row(&pack).unwrap().unwrap().state, PackState::Stored);
        assert!(index.chunk_place(&ring.chunk_id(b"chunk")).unwrap().is_some());
        assert!(held::not_known_to_others(&index).unwrap().contains(&pack));
        assert!(noted(&index).unwrap().is_empty());
    }

    #[test]
    fn a_pack_that_is_not_there_or_damaged_is_looked_for_a_few_times_and_forgotten() {
        for damaged in [false, true] {
            let (store, ring, pack, mut bytes, mut index) = needing();
            if damaged {
                bytes.fill(7);
                store.put_new(&object_name(&pack), &bytes).unwrap();
            }
            for _ in 0..LOOKS {
                assert_eq!(noted(&index).unwrap().len(), 1);
                learn(&mut index, &store, &ring).unwrap();
            }
            assert!(noted(&index).unwrap().is_empty());
            assert!(index.pack_row(&pack).unwrap().is_none());
        }
    }
}
