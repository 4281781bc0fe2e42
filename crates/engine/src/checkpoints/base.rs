//! The base: the checkpoint with exactly the knowledge at which history begins, from which every later state is folded.
//!
//! It is written from the past itself, not from the present, so that what lies between is not lost: whoever wants the
//! vault at a later time loads the base and folds the packets after it. Which of the checkpoints it is, its knowledge says.

use std::collections::BTreeSet;

use packetboat_core::checkpoint::{CHECKPOINTS_FOLDER, CheckpointRef, CheckpointRoot};
use packetboat_core::ids::PackId;
use packetboat_core::knowledge::Knowledge;
use packetboat_core::store::Store;
use packetboat_replica::index::{Index, PackState};

use super::{held, load, newest, read_known_root, sound_root, total, write};
use crate::Keys;
use crate::error::SyncError;
use crate::learn::LearnError;
use crate::ports::{Entropy, Observer, Silent};

/// Writes the base: a checkpoint of `past`, which was folded up to where history is to begin.
///
/// What lies inside the packets that go is stored in packs first, by the index of the present; `going` are packs that go.
pub(crate) fn write_base(
    index: &mut Index,
    past: &mut Index,
    going: &BTreeSet<PackId>,
    store: &dyn Store,
    keys: &Keys,
    entropy: &mut dyn Entropy,
    observer: &mut dyn Observer,
) -> Result<(), SyncError> {
    // The packet that condemns history tells of these packs, and may be of a side of a fork that goes.
    for pack in write::pack_content_of_history(index, past.knowledge(), going, store, keys, entropy)? {
        if past.pack_row(&pack)?.is_none()
            && let Some(pack) = index.pack_index(&pack)?
        {
            past.put_pack(&pack, PackState::Stored)?;
        }
    }
    held::copy(index, past)?;
    adopt_garbage(index, past)?;
    let checkpoint = write::write_state(past, store, keys, entropy, observer)?;
    index.set_meta(write::NUMBER, past.meta(write::NUMBER)?.as_deref())?;
    if total(past.knowledge()) >= total(&held::knowledge(index)?)
        && let Some(root) = held::root(past)?
    {
        held::hold(index, &checkpoint, &root, keys.ring.current())?;
    }
    Ok(())
}

/// Has the past know what was condemned and deleted since, or whoever begins from it would refer to what is gone.
fn adopt_garbage(index: &Index, past: &mut Index) -> Result<(), SyncError> {
    let mut garbage = crate::garbage::load(past)?;
    garbage.adopt(&crate::garbage::load(index)?);
    crate::garbage::store(past, &garbage)?;
    let mut after = None;
    loop {
        let page = past.packs(after.as_ref(), PAGE)?;
        let Some(last) = page.last() else { return Ok(()) };
        after = Some(last.pack);
        for row in page {
            if index.pack_row(&row.pack)?.is_none() {
                past.remove_pack(&row.pack)?;
            }
        }
    }
}

/// The vault as it was where history begins, in an index of its own; none where history has no beginning.
pub(crate) fn base(source: &Index, store: &dyn Store, keys: &Keys) -> Result<Option<Index>, SyncError> {
    let begins = crate::garbage::load(source)?.horizon().clone();
    if begins.is_empty() { Ok(None) } else { base_at(&begins, source, store, keys).map(Some) }
}

/// The vault as it was at a point at which history was to begin, from the checkpoint that was written there.
pub(crate) fn base_at(begins: &Knowledge, source: &Index, store: &dyn Store, keys: &Keys) -> Result<Index, SyncError> {
    let members = crate::members::load(source)?;
    let mut past = Index::temporary()?;
    for checkpoint in candidates(source, store, begins)? {
        let root = match read_known_root(store, keys, &checkpoint, &members) {
            Ok(root) if root.knowledge == *begins => root,
            Ok(_) | Err(LearnError::Unusable(_) | LearnError::Locked(_)) => continue,
            Err(LearnError::Sync(error)) => return Err(error),
        };
        match load::load(&mut past, store, keys, &checkpoint, &root, &mut Silent) {
            Ok(()) => return Ok(past),
            Err(LearnError::Unusable(_) | LearnError::Locked(_)) => {
                if past.in_transaction() {
                    past.rollback()?;
                }
                past.clear_folded()?;
            }
            Err(LearnError::Sync(error)) => return Err(error),
        }
    }
    Err(SyncError::NoBase)
}

/// A checkpoint of the present epoch that contains history up to a point and was read whole, for whoever joins from now on.
pub(crate) fn sound_from(
    index: &Index,
    store: &dyn Store,
    keys: &Keys,
    begins: &Knowledge,
) -> Result<Option<(CheckpointRef, CheckpointRoot)>, SyncError> {
    for checkpoint in candidates(index, store, begins)? {
        if let Some(root) = sound_root(store, keys, &checkpoint)?
            && root.knowledge.includes(begins)
            && load::are_segments_readable(store, keys, &root)?
        {
            return Ok(Some((checkpoint, root)));
        }
    }
    Ok(None)
}

/// The checkpoints that may be the base, the likeliest first.
fn candidates(source: &Index, store: &dyn Store, begins: &Knowledge) -> Result<Vec<CheckpointRef>, SyncError> {
    let held = newest(source)?.filter(|_| held::knowledge(source).is_ok_and(|knowledge| knowledge.includes(begins)));
    let listing = store.list(CHECKPOINTS_FOLDER)?;
    let mut others: Vec<CheckpointRef> =
        listing.iter().filter_map(|listed| CheckpointRef::from_name(&listed.name)).collect();
    others.sort_by_key(|checkpoint| std::cmp::Reverse(checkpoint.number));
    Ok(held.into_iter().chain(others.into_iter().filter(|other| Some(*other) != held)).collect())
}

const PAGE: usize = 1024;
