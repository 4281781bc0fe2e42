//! Checkpoints that nobody needs any more, and the packs that hold nothing but their segments.
//!
//! A device takes away its own when it has written newer ones, and those of devices that are gone. The packs of segments
//! that no other checkpoint names are condemned like any other garbage, before the roots that named them are deleted: after
//! a crash between the two the next run finds them again. Somebody who does not know that yet may write a checkpoint that
//! shares such segments; it stands before its author answers, and whoever deletes looks at all that stand.
//!
//! Left out: packs of which no root ever told, as after a crash while a checkpoint was written. `verify` names them.

use std::collections::BTreeSet;

use packetboat_core::checkpoint::{CHECKPOINTS_FOLDER, CheckpointRef};
use packetboat_core::ids::PackId;
use packetboat_core::members::Standing;
use packetboat_core::store::Store;
use packetboat_replica::index::Index;

use crate::Keys;
use crate::checkpoints::{self, held};
use crate::error::SyncError;
use crate::garbage;
use crate::learn::LearnError;

/// What is superseded.
#[derive(Default)]
pub(super) struct Superseded {
    roots: Vec<CheckpointRef>,
    /// Packs with segments of these and of no others.
    pub(super) packs: BTreeSet<PackId>,
}

impl Superseded {
    /// Looks for it. Where a root cannot be read, nothing is known of what it needs, and nothing that can be read is
    /// superseded.
    ///
    /// It goes itself if it is one that this device never took for written or has followed by a newer one, or whose author is gone: a put
    /// that a storage broke off leaves such a one for ever, and nobody can begin from it. And that only where the bases can
    /// be read, since it may be a damaged one. So two devices that have one each do not wait for one another.
    pub(super) fn find(index: &Index, store: &dyn Store, keys: &Keys) -> Result<Self, SyncError> {
        let own = keys.device.device();
        let listed = store.list(CHECKPOINTS_FOLDER)?;
        let listed: BTreeSet<CheckpointRef> =
            listed.iter().filter_map(|listed| CheckpointRef::from_name(&listed.name)).collect();
        let held = checkpoints::newest(index)?;
        let newest_own = listed.iter().filter(|other| other.device == own).map(|other| other.number).max();
        let written = checkpoints::last_written(index)?;
        let members = crate::members::load(index)?;
        let covered = held::knowledge(index)?;
        let record = garbage::load(index)?;
        let (mut found, mut kept) = (Self::default(), BTreeSet::new());
        let (mut unreadable, mut readable) = (Vec::new(), Vec::new());
        let mut is_all_known = true;
        for checkpoint in listed {
            let is_older = checkpoint.device == own && newest_own.is_some_and(|newest| checkpoint.number < newest);
            // Its put was broken off before this device took it for written.
            let is_broken_off = checkpoint.device == own && checkpoint.number > written;
            let is_gone = members.standing(&checkpoint.device) != Standing::Active;
            let root = match checkpoints::read_any_root(store, keys, &checkpoint) {
                Ok((_, root)) => root,
                Err(LearnError::Unusable(_)) if is_older || is_broken_off || is_gone => {
                    unreadable.push(checkpoint);
                    continue;
                }
                Err(LearnError::Unusable(_) | LearnError::Locked(_)) => {
                    is_all_known = false;
                    continue;
                }
                Err(LearnError::Sync(error)) => return Err(error),
            };
            let is_left = is_gone && covered.includes(&root.knowledge);
            let packs = root.segments.iter().flat_map(|segment| &segment.chunks).map(|chunk| chunk.pack);
            if (is_older || is_left) && held != Some(checkpoint) && !record.is_base(&root.knowledge) {
                found.roots.push(checkpoint);
                found.packs.extend(packs);
            } else {
                kept.extend(packs);
            }
            readable.push(root.knowledge);
        }
        if !is_all_known {
            found = Self::default();
        }
        let histories = record.standing().filter_map(|(_, condemnation)| condemnation.condemned_history());
        let mut bases = histories.chain(Some(record.ended()).filter(|ended| !ended.is_empty()));
        if bases.all(|base| readable.contains(base)) {
            found.roots.extend(unreadable.into_iter().filter(|checkpoint| held != Some(*checkpoint)));
        }
        let condemned = record.condemned();
        for pack in std::mem::take(&mut found.packs) {
            if !kept.contains(&pack) && !condemned.contains(&pack) && index.pack_row(&pack)?.is_none() {
                found.packs.insert(pack);
            }
        }
        Ok(found)
    }

    /// Deletes the roots; how many.
    pub(super) fn delete_roots(&self, store: &dyn Store) -> Result<u64, SyncError> {
        for root in &self.roots {
            store.delete(&root.name())?;
        }
        Ok(self.roots.len() as u64)
    }
}
