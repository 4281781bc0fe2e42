//! Lost chunks in packs that this replica knew before it began anew.
//!
//! What tells of a pack may count for nobody any more, though what needs a chunk of it does: a carrier stores again
//! what a packet needs that it brings, and where others had retired that carrier and let history go they fold the one
//! and refuse the other. Whoever begins anew forgets such a pack with all that it had folded, and its disk may show the
//! content no more. So those packs are kept in mind that it knew and that nothing tells of afterwards. They are not
//! relied on, since others may have condemned them: what is lost is stored anew, as from anywhere else.

use std::collections::BTreeSet;

use packetboat_core::ids::PackId;
use packetboat_core::store::StoreError;
use packetboat_replica::index::{Index, IndexError};
use packetboat_storage::chunk::open_chunk_by_id;
use packetboat_storage::pack::{PackError, fetch_index, object_name};

use super::Salvage;
use crate::error::SyncError;
use crate::prune::present::sizes;

/// Keeps in mind which packs are known, for whoever is about to forget what it folded. Within the caller's transaction.
pub(crate) fn note(index: &mut Index) -> Result<(), IndexError> {
    let mut packs = noted(index)?;
    index.each_pack(|row| {
        packs.insert(row.pack);
    })?;
    set_noted(index, &packs)
}

/// Keeps of them those of which nothing tells that was learned since. Within the caller's transaction.
pub(crate) fn leave_out_what_is_known(index: &mut Index) -> Result<(), IndexError> {
    let before = noted(index)?;
    let packs = unknown(index, &before)?;
    if packs.len() == before.len() { Ok(()) } else { set_noted(index, &packs) }
}

/// Gives every chunk that may be a lost one to `salvage`, of those packs that lie at this place.
pub(super) fn search(index: &Index, salvage: &mut Salvage<'_>) -> Result<(), SyncError> {
    let packs = unknown(index, &noted(index)?)?;
    let (store, ring) = (salvage.store, &salvage.keys.ring);
    for (pack, size) in sizes(store, &packs)? {
        let found = match fetch_index(store, ring, &pack, size) {
            Ok(found) => found,
            Err(PackError::Store(error)) if !is_of_no_use(&error) => return Err(error.into()),
            Err(_) => continue,
        };
        for chunk in &found.chunks {
            if !salvage.lost.contains(&chunk.id) {
                continue;
            }
            let sealed = store.get_range(&object_name(&pack), chunk.offset.into(), chunk.sealed_len.into());
            let sealed = match sealed {
                Ok(sealed) => sealed,
                Err(error) if !is_of_no_use(&error) => return Err(error.into()),
                Err(_) => continue,
            };
            if let Ok(plain) = open_chunk_by_id(ring, &mut salvage.codec, found.epoch, &chunk.id, &sealed) {
                salvage.take(&plain)?;
            }
        }
    }
    Ok(())
}

/// Whether an object is to blame, and not the storage.
fn is_of_no_use(error: &StoreError) -> bool {
    matches!(error, StoreError::Missing { .. } | StoreError::TooLarge { .. } | StoreError::Short { .. })
}

fn unknown(index: &Index, packs: &BTreeSet<PackId>) -> Result<BTreeSet<PackId>, IndexError> {
    let mut unknown = BTreeSet::new();
    for pack in packs {
        if index.pack_row(pack)?.is_none() {
            unknown.insert(*pack);
        }
    }
    Ok(unknown)
}

fn noted(index: &Index) -> Result<BTreeSet<PackId>, IndexError> {
    let bytes = index.meta(NOTED)?.unwrap_or_default();
    Ok(bytes.chunks_exact(PackId::LEN).filter_map(PackId::from_slice).collect())
}

fn set_noted(index: &mut Index, packs: &BTreeSet<PackId>) -> Result<(), IndexError> {
    let bytes: Vec<u8> = packs.iter().flat_map(|pack| pack.0).collect();
    index.set_meta(NOTED, (!bytes.is_empty()).then_some(&bytes[..]))
}

/// Where the index keeps them: ids of 32 bytes.
const NOTED: &str = "forgotten packs";
