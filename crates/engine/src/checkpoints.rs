//! Checkpoints: writing the folded state, and beginning from it.
//!
//! A replica writes one when what was folded since the newest checkpoint has grown long ([`is_due`]); one that has
//! folded nothing yet begins from the newest sound one that the tips name. Which is newest nobody decides: each replica
//! *holds* the one that covers most among those it wrote or read, names it in its tip, and stores no segment again
//! that is in it. That record, the root with its segments' places, is all it keeps: packs that hold nothing but
//! segments are not in the index, so they are no part of the state that a checkpoint describes.
//!
//! A checkpoint accelerates; nothing depends on one. What cannot be written or read is noted and left.

mod base;
pub(crate) mod held;
mod load;
mod write;

use std::collections::{BTreeMap, BTreeSet};

use packetboat_core::checkpoint::{
    CHECKPOINTS_FOLDER, CheckpointRef, CheckpointRoot, MAX_CHECKPOINT_BYTES, UnverifiedCheckpoint,
};
use packetboat_core::ids::{DeviceId, Epoch};
use packetboat_core::knowledge::Knowledge;
use packetboat_core::members::{Members, Standing};
use packetboat_core::store::Store;
use packetboat_replica::index::Index;

use crate::Keys;
use crate::error::SyncError;
use crate::learn::{LearnError, described, unusable};
use crate::ports::{Entropy, Note, Observer};
use crate::replica::Replica;

pub(crate) use base::{base, base_at, sound_from, write_base};
pub(crate) use held::{newest, seen};
pub(crate) use load::{begin, start_over_if_cut_short};
pub(crate) use write::last_written;

impl Replica {
    /// Writes a checkpoint and names it in the tip, where one is due.
    ///
    /// An intermediary that takes none ends no round: it is noted, and tried again when there is more to write.
    pub(crate) fn checkpoint(&mut self, observer: &mut dyn Observer) -> Result<(), SyncError> {
        let parts = &mut self.parts;
        if is_owed(&parts.index)? {
            return self.write_checkpoint(observer);
        }
        let nobody_could_join = is_needed(&parts.index, &self.keys)?;
        if !nobody_could_join && (!is_due(&parts.index, &self.keys)? || !is_worth_another_try(&parts.index)?) {
            return Ok(());
        }
        adopt_newer(&mut parts.index, &*parts.store, &self.keys)?;
        if !is_needed(&parts.index, &self.keys)? && !is_due(&parts.index, &self.keys)? {
            return Ok(());
        }
        self.write_checkpoint(observer)
    }

    /// Writes a checkpoint and names it in the tip, whether or not one is due.
    pub(crate) fn write_checkpoint(&mut self, observer: &mut dyn Observer) -> Result<(), SyncError> {
        let parts = &mut self.parts;
        match write::write(&mut parts.index, &*parts.store, &self.keys, &mut *parts.entropy, observer) {
            Ok(_) => {
                parts.index.clear_problem(PROBLEM, b"own")?;
                parts.index.set_meta(TRIED, None)?;
                set_owed(&mut parts.index, false)?;
                let now = parts.clock.now_ms();
                crate::publish::write_tip(
                    &mut parts.index,
                    &*parts.store,
                    &self.keys,
                    &parts.place,
                    now,
                    &mut *parts.entropy,
                )
            }
            Err(error @ (SyncError::Store(_) | SyncError::Signed(_))) => {
                let text = format!("no checkpoint was written: {}", crate::error::chain(&error));
                parts.index.set_meta(TRIED, Some(&total(parts.index.knowledge()).to_le_bytes()))?;
                parts.index.set_problem(PROBLEM, b"own", &text)?;
                observer.note(Note::Warning { text });
                Ok(())
            }
            Err(error) => Err(error),
        }
    }
}

/// Whether a checkpoint's root and all its segments can be read and are what they say.
pub(crate) fn is_readable(store: &dyn Store, keys: &Keys, checkpoint: &CheckpointRef) -> Result<bool, SyncError> {
    are_segments_of(store, keys, read_root(store, keys, checkpoint))
}

/// Whether all of a checkpoint can be read, of whatever epoch, whoever made it and whatever it says.
pub(crate) fn is_whole(store: &dyn Store, keys: &Keys, checkpoint: &CheckpointRef) -> Result<bool, SyncError> {
    are_segments_of(store, keys, read_any_root(store, keys, checkpoint).map(|(_, root)| root))
}

/// Whether the segments of a root can be read, if it was.
fn are_segments_of(
    store: &dyn Store,
    keys: &Keys,
    root: Result<CheckpointRoot, LearnError>,
) -> Result<bool, SyncError> {
    match root {
        Ok(root) => load::are_segments_readable(store, keys, &root),
        Err(LearnError::Unusable(_) | LearnError::Locked(_)) => Ok(false),
        Err(LearnError::Sync(error)) => Err(error),
    }
}

/// Writes a checkpoint that takes nothing over from the one held.
pub(crate) fn write_anew(
    index: &mut Index,
    store: &dyn Store,
    keys: &Keys,
    entropy: &mut dyn Entropy,
    observer: &mut dyn Observer,
) -> Result<CheckpointRef, SyncError> {
    held::let_go(index)?;
    write::write(index, store, keys, entropy, observer)
}

/// Forgets all that was folded, what places hold of it, and which checkpoint was held: that may contain what is not to be
/// folded again, and the tip would name it. Within the caller's transaction.
pub(crate) fn forget_folded(index: &mut Index) -> Result<(), SyncError> {
    index.clear_folded()?;
    crate::members::forget(index)?;
    crate::garbage::forget(index)?;
    crate::places::forget_held(index)?;
    held::forget(index)
}

/// Whether so much was folded since the newest checkpoint that another is due from this device.
///
/// A device that only reads leaves it for long to those that write. One of an earlier epoch counts for nothing.
fn is_due(index: &Index, keys: &Keys) -> Result<bool, SyncError> {
    let (known, device) = (index.knowledge(), &keys.device.device());
    let outdated = held::epoch(index)? < keys.ring.current();
    if outdated && newest(index)?.is_some() {
        return Ok(true);
    }
    let covered = held::knowledge(index)?;
    let packets: u64 = known
        .iter()
        .map(|(device, learned)| learned.counter.saturating_sub(covered.counter(device)))
        .fold(0, u64::saturating_add);
    let patience = if known.counter(device) > covered.counter(device) { 1 } else { READERS_PATIENCE };
    if packets > TAIL_PACKETS * patience {
        return Ok(true);
    }
    let mut bytes = 0;
    for (device, learned) in known.iter() {
        let first = covered.counter(device) + 1;
        if first <= learned.counter {
            let tail = index.packets(*device, first, learned.counter)?;
            bytes += tail.iter().filter_map(|row| row.sealed_bytes).sum::<u64>();
        }
    }
    Ok(bytes > TAIL_BYTES * patience)
}

/// Whether history begins later than the lanes and no checkpoint is held from which a device that joins could begin: it
/// accepts none of an earlier epoch.
fn is_needed(index: &Index, keys: &Keys) -> Result<bool, SyncError> {
    let record = crate::garbage::load(index)?;
    if record.ended().is_empty() {
        return Ok(false);
    }
    Ok(held::epoch(index)? < keys.ring.current() || !held::knowledge(index)?.includes(record.ended()))
}

/// Whether others can learn only from a checkpoint of this device, which is not written yet, that history begins later.
fn is_owed(index: &Index) -> Result<bool, SyncError> {
    Ok(index.meta(OWED)?.is_some())
}

/// Notes that a checkpoint is to be written in this round or, where the storage takes none, in the next.
pub(crate) fn set_owed(index: &mut Index, owed: bool) -> Result<(), SyncError> {
    Ok(index.set_meta(OWED, owed.then_some(&[][..]))?)
}

/// Whether nothing failed lately.
fn is_worth_another_try(index: &Index) -> Result<bool, SyncError> {
    let tried = index.meta(TRIED)?.and_then(|tried| tried.try_into().ok()).map_or(0, u64::from_le_bytes);
    Ok(tried == 0 || total(index.knowledge()) >= tried.saturating_add(RETRY_AFTER_PACKETS))
}

/// Holds the checkpoint of another device that covers more than the one held, if there is one.
fn adopt_newer(index: &mut Index, store: &dyn Store, keys: &Keys) -> Result<(), SyncError> {
    let held = newest(index)?;
    for (device, number) in held::seen(index)? {
        if held.is_some_and(|held| held.device == device && held.number >= number) {
            continue;
        }
        let checkpoint = CheckpointRef { device, number };
        match read_root(store, keys, &checkpoint) {
            Ok(root)
                if total(&root.knowledge) > total(&held::knowledge(index)?)
                    || held::epoch(index)? < keys.ring.current() =>
            {
                held::hold(index, &checkpoint, &root, keys.ring.current())?;
            }
            Ok(_) | Err(LearnError::Unusable(_) | LearnError::Locked(_)) => {}
            Err(LearnError::Sync(error)) => return Err(error),
        }
    }
    Ok(())
}

/// Deletes the checkpoints of a device that this one was and that nobody else knows, so that nobody begins from them.
pub(crate) fn take_away_own(store: &dyn Store, device: &DeviceId) -> Result<(), SyncError> {
    for listed in store.list(CHECKPOINTS_FOLDER)? {
        if CheckpointRef::from_name(&listed.name).is_some_and(|checkpoint| checkpoint.device == *device) {
            store.delete(&listed.name)?;
        }
    }
    Ok(())
}

/// Notes which checkpoints tips name; of each author's the newest counts.
pub(crate) fn note_seen(index: &mut Index, named: &BTreeSet<CheckpointRef>) -> Result<(), SyncError> {
    let before = held::seen(index)?;
    let mut seen: BTreeMap<DeviceId, u64> = before.clone();
    for CheckpointRef { device, number } in named {
        let newest = seen.entry(*device).or_default();
        *newest = (*newest).max(*number);
    }
    if seen == before { Ok(()) } else { held::set_seen(index, &seen) }
}

/// A checkpoint's root, unless it is missing or not to be used.
pub(crate) fn sound_root(
    store: &dyn Store,
    keys: &Keys,
    checkpoint: &CheckpointRef,
) -> Result<Option<CheckpointRoot>, SyncError> {
    match read_root(store, keys, checkpoint) {
        Ok(root) => Ok(Some(root)),
        Err(LearnError::Unusable(_) | LearnError::Locked(_)) => Ok(None),
        Err(LearnError::Sync(error)) => Err(error),
    }
}

/// Reads a checkpoint's root and checks that a member made it.
///
/// One of an earlier epoch than this device seals in is of no use: a revoked device could have made it since, and leave
/// out what it likes.
pub(crate) fn read_root(
    store: &dyn Store,
    keys: &Keys,
    checkpoint: &CheckpointRef,
) -> Result<CheckpointRoot, LearnError> {
    let (epoch, root) = read_any_root(store, keys, checkpoint)?;
    if epoch < keys.ring.current() {
        return Err(LearnError::Unusable("it is from before a device was revoked".to_owned()));
    }
    trusted(root.members.get(&checkpoint.device).map(|author| author.standing))?;
    Ok(root)
}

/// The same for whoever knows the members: what one in good standing signed may be of any epoch.
fn read_known_root(
    store: &dyn Store,
    keys: &Keys,
    checkpoint: &CheckpointRef,
    members: &Members,
) -> Result<CheckpointRoot, LearnError> {
    let (_, root) = read_any_root(store, keys, checkpoint)?;
    trusted(members.get(&checkpoint.device).map(|author| author.standing))?;
    Ok(root)
}

/// Reads a root and proves who signed it, whoever that is; with the epoch in which it is sealed.
pub(crate) fn read_any_root(
    store: &dyn Store,
    keys: &Keys,
    checkpoint: &CheckpointRef,
) -> Result<(Epoch, CheckpointRoot), LearnError> {
    let bytes = unusable(store.get(&checkpoint.name(), MAX_CHECKPOINT_BYTES as u64))?;
    let sealed =
        UnverifiedCheckpoint::parse(bytes).and_then(|root| root.verify(&checkpoint.device)).map_err(described)?;
    if sealed.number() != checkpoint.number {
        return Err(LearnError::Unusable("it is another checkpoint of that device".to_owned()));
    }
    Ok((sealed.epoch(), sealed.open(&keys.ring).map_err(described)?))
}

fn trusted(author: Option<Standing>) -> Result<(), LearnError> {
    match author {
        Some(Standing::Active | Standing::Retired { .. }) => Ok(()),
        Some(Standing::Revoked { .. }) | None => Err(LearnError::Unusable("its author is no member".to_owned())),
    }
}

/// How many packets were learned in all: of two states of which one includes the other, the later has more.
pub(crate) fn total(knowledge: &Knowledge) -> u64 {
    knowledge.iter().map(|(_, learned)| learned.counter).fold(0, u64::saturating_add)
}

/// How the places where history begins are ordered. Two groups may have let go without each other, at two places: of two
/// beginnings that of which more is gone stays, so that whoever goes to both does not begin anew at each in turn.
pub(crate) fn rank_of_beginning(ended: &Knowledge) -> (u64, [u8; 32]) {
    (total(ended), ended.state_hash())
}

/// The kind of problem under which the index keeps checkpoints that could not be written or read.
const PROBLEM: &str = "checkpoint";
/// Where the index keeps how many packets were learned when a checkpoint could not be written.
pub(crate) const TRIED: &str = "checkpoint failed at";
const RETRY_AFTER_PACKETS: u64 = 16;
/// Where the index notes that a checkpoint is owed.
pub(crate) const OWED: &str = "checkpoint owed";
/// A checkpoint is due when more packets than this were folded since the last,
const TAIL_PACKETS: u64 = 64;
/// or more sealed bytes than this.
const TAIL_BYTES: u64 = 4 * 1024 * 1024;
const READERS_PATIENCE: u64 = 4;

#[cfg(test)]
mod tests;
