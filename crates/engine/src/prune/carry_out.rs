//! Carrying out what all have answered: deleting objects, then forgetting them, then forgetting that they were condemned.
//!
//! In that order, so that a crash at any instant leaves something to be done again: an object that is gone already is no
//! error. A pack goes only if no checkpoint that stands needs it, and history only if the checkpoint at which it begins
//! was read whole.

use std::collections::{BTreeMap, BTreeSet};

use packetboat_core::checkpoint::{CHECKPOINTS_FOLDER, CheckpointRef};
use packetboat_core::garbage::Condemnation;
use packetboat_core::ids::{Dot, PackId};
use packetboat_core::knowledge::Knowledge;
use packetboat_core::store::Store;
use packetboat_replica::index::Index;
use packetboat_storage::pack::object_name;

use super::sweep::sweep;
use crate::Keys;
use crate::checkpoints;
use crate::error::SyncError;
use crate::garbage::{self, Standing};
use crate::learn::{LearnError, packet_name};

/// What was deleted.
#[derive(Clone, Copy, Default, PartialEq, Eq, Debug)]
pub(super) struct Deleted {
    pub(super) objects: u64,
    /// As far as their sizes were known.
    pub(super) bytes: u64,
}

/// Deletes all that is condemned and answered; of `only` these, where given.
pub(super) fn carry_out(
    index: &mut Index,
    store: &dyn Store,
    keys: &Keys,
    is_wanted: impl Fn(&Dot) -> bool,
) -> Result<Deleted, SyncError> {
    let mut deleted = Deleted::default();
    let record = garbage::load(index)?;
    if record.standing().next().is_none() {
        return Ok(deleted);
    }
    let doubtful = garbage::doubtful(index)?;
    let answered = Standing::load(index, keys.device.device())?.answered(&record);
    for dot in answered.into_iter().filter(|dot| is_wanted(dot) && !doubtful.contains(dot)) {
        let found = record.standing().find(|(other, _)| **other == dot);
        let Some((_, condemnation)) = found else { continue };
        one(index, store, keys, &dot, condemnation, &mut deleted)?;
    }
    Ok(deleted)
}

fn one(
    index: &mut Index,
    store: &dyn Store,
    keys: &Keys,
    dot: &Dot,
    condemnation: &Condemnation,
    deleted: &mut Deleted,
) -> Result<(), SyncError> {
    let history = condemnation.condemned_history().filter(|history| {
        // A later beginning of history contains this one.
        garbage::load(index).is_ok_and(|record| record.horizon().includes(history))
    });
    let past = match history {
        None => None,
        Some(_) => match checkpoints::base(index, store, keys) {
            Ok(past) => past,
            // It stays condemned: what it would leave behind could not be begun from.
            Err(SyncError::NoBase) => {
                let text = "the checkpoint at which history begins cannot be read, so no history is deleted";
                index.set_problem(PROBLEM, b"base", text)?;
                return Ok(());
            }
            Err(error) => return Err(error),
        },
    };
    if let Some(past) = &past {
        index.clear_problem(PROBLEM, b"base")?;
        lanes(index, store, past.knowledge(), deleted)?;
        superseded_checkpoints(store, keys, past.knowledge(), deleted)?;
    }
    let mut gone = BTreeSet::new();
    let mut needed = None;
    for pack in condemnation.condemned_packs() {
        let row = index.pack_row(pack)?;
        // Packs of contents hold no segments; what no index knows may be a part of a checkpoint.
        if row.is_none() {
            if needed.is_none() {
                needed = Some(packs_of_checkpoints(store, keys)?);
            }
            if needed.as_ref().is_some_and(|needed: &BTreeSet<PackId>| needed.contains(pack)) {
                continue;
            }
        }
        store.delete(&object_name(pack))?;
        deleted.objects += 1;
        deleted.bytes += row.map_or(0, |row| u64::from(row.size));
        gone.insert(*pack);
    }
    index.begin()?;
    for pack in &gone {
        index.remove_pack(pack)?;
    }
    if let Some(past) = &past {
        let history = past.knowledge().clone();
        sweep(index, &history, past)?;
    }
    let mut record = garbage::load(index)?;
    record.finish(dot);
    garbage::store(index, &record)?;
    Ok(index.commit()?)
}

/// Deletes the packets before a point.
fn lanes(index: &Index, store: &dyn Store, history: &Knowledge, deleted: &mut Deleted) -> Result<(), SyncError> {
    for (device, learned) in history.iter() {
        let listed = store.list(&format!("lanes/{device}"))?;
        let present: BTreeMap<_, _> = listed.into_iter().map(|listed| (listed.name, listed.size)).collect();
        for counter in 1..=learned.counter {
            let dot = Dot { device: *device, counter };
            let name = packet_name(&dot);
            // A listing may be stale: what this replica knows of and was not listed is deleted all the same.
            let size = present.get(&name).copied();
            if size.is_some() || index.packet_row(dot)?.is_some() {
                store.delete(&name)?;
                deleted.objects += 1;
                deleted.bytes += size.unwrap_or(0);
            }
        }
    }
    Ok(())
}

/// Deletes checkpoints that lie before a point: what they go on from is gone.
fn superseded_checkpoints(
    store: &dyn Store,
    keys: &Keys,
    history: &Knowledge,
    deleted: &mut Deleted,
) -> Result<(), SyncError> {
    for listed in store.list(CHECKPOINTS_FOLDER)? {
        let Some(checkpoint) = CheckpointRef::from_name(&listed.name) else { continue };
        match checkpoints::read_root(store, keys, &checkpoint) {
            Ok(root) if !root.knowledge.includes(history) => {
                store.delete(&listed.name)?;
                deleted.objects += 1;
                deleted.bytes += listed.size;
            }
            Ok(_) | Err(LearnError::Unusable(_) | LearnError::Locked(_)) => {}
            Err(LearnError::Sync(error)) => return Err(error),
        }
    }
    Ok(())
}

/// The packs in which the segments of checkpoints lie.
pub(super) fn packs_of_checkpoints(store: &dyn Store, keys: &Keys) -> Result<BTreeSet<PackId>, SyncError> {
    let mut packs = BTreeSet::new();
    for listed in store.list(CHECKPOINTS_FOLDER)? {
        let Some(checkpoint) = CheckpointRef::from_name(&listed.name) else { continue };
        match checkpoints::read_root(store, keys, &checkpoint) {
            Ok(root) => packs.extend(root.segments.iter().flat_map(|segment| &segment.chunks).map(|chunk| chunk.pack)),
            Err(LearnError::Unusable(_) | LearnError::Locked(_)) => {}
            Err(LearnError::Sync(error)) => return Err(error),
        }
    }
    Ok(packs)
}

/// The kind of problem under which the index keeps what could not be let go.
const PROBLEM: &str = "history";
