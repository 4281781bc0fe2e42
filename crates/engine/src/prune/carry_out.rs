//! Carrying out what all have answered: deleting objects, then forgetting them, then forgetting that they were condemned.
//!
//! In that order, so that a crash at any instant leaves something to be done again: an object that is gone already is no
//! error. History goes only if the checkpoint at which it begins was read whole, and one of the present epoch was too.
//!
//! A pack goes only if no checkpoint that stands needs it and nothing in use lies in it alone. Something may: an unseen
//! move brings back what was deleted, and refers to no pack. Whoever is waited for made it before it answered, so it is
//! known by now; what is in use then is stored anew and told of before the pack is deleted.

use std::collections::{BTreeMap, BTreeSet};

use packetboat_core::checkpoint::{CHECKPOINTS_FOLDER, CheckpointRef, CheckpointRoot};
use packetboat_core::garbage::Condemnation;
use packetboat_core::ids::{ChunkId, Dot, PackId};
use packetboat_core::knowledge::Knowledge;
use packetboat_core::packet::LANES_FOLDER;
use packetboat_core::store::{Store, StoreError};
use packetboat_core::wanted::Wanted;
use packetboat_replica::index::{ChunkPlace, Index, PackState};
use packetboat_storage::pack::{MAX_PACK_BYTES, object_name};

use super::in_use::{Beginning, chunks_in_use, chunks_standing};
use super::present::sizes;
use super::repack::Repacking;
use super::sweep::sweep;
use crate::Keys;
use crate::builder::Draft;
use crate::checkpoints::{self, held};
use crate::error::SyncError;
use crate::garbage::{self, Standing};
use crate::learn::{LearnError, packet_name};
use crate::places;
use crate::ports::Observer;
use crate::publish::Published;
use crate::replica::Replica;
use crate::wants;

/// What was deleted.
#[derive(Clone, Copy, Default, PartialEq, Eq, Debug)]
pub(super) struct Deleted {
    pub(super) objects: u64,
    /// As far as their sizes were known.
    pub(super) bytes: u64,
}

impl Replica {
    /// Deletes all that is condemned and answered, of the condemnations that are wanted.
    pub(super) fn carry_out(
        &mut self,
        is_wanted: impl Fn(&Dot) -> bool,
        observer: &mut dyn Observer,
    ) -> Result<Deleted, SyncError> {
        let mut deleted = Deleted::default();
        let index = &self.parts.index;
        let record = garbage::load(index)?;
        if record.standing().next().is_none() {
            return Ok(deleted);
        }
        let mut answered = Standing::load(index, self.keys.device.device())?.answered(&record);
        // History first: what only the past before it needs is stored anew for nobody.
        let has_history =
            |dot: &Dot| record.standing().any(|(other, found)| other == dot && found.condemned_history().is_some());
        answered.sort_by_key(|dot| !has_history(dot));
        for dot in answered.into_iter().filter(|dot| is_wanted(dot)) {
            let found = record.standing().find(|(other, _)| **other == dot);
            let Some((_, condemnation)) = found else { continue };
            // What is doubtful here others delete, who can tell.
            if condemnation.is_doubtful && !self.is_done_by_others(condemnation)? {
                continue;
            }
            // Where a copy of this device published first, nobody hears of what was stored anew: nothing goes for that.
            if self.publish(false)? == Published::Forked {
                return Ok(deleted);
            }
            self.carry_out_one(&dot, condemnation, &mut deleted, observer)?;
        }
        Ok(deleted)
    }

    /// Whether others have deleted all that they would of the packs that it condemns: what is left a checkpoint needs.
    fn is_done_by_others(&self, condemnation: &Condemnation) -> Result<bool, SyncError> {
        let (index, store) = (&self.parts.index, &*self.parts.store);
        let mut needed = None;
        for pack in sizes(store, condemnation.condemned_packs())?.keys() {
            if index.pack_row(pack)?.is_some() {
                return Ok(false);
            }
            if needed.is_none() {
                needed = Some(packs_of_checkpoints(index, store, &self.keys)?);
            }
            if !needed.as_ref().is_some_and(|needed: &BTreeSet<PackId>| needed.contains(pack)) {
                return Ok(false);
            }
        }
        Ok(true)
    }

    fn carry_out_one(
        &mut self,
        dot: &Dot,
        condemnation: &Condemnation,
        deleted: &mut Deleted,
        observer: &mut dyn Observer,
    ) -> Result<(), SyncError> {
        let past = match self.read_base_for(condemnation)? {
            Base::NotNeeded => None,
            Base::Read { past, .. } => Some(past),
            // It stays condemned: what it would leave behind could not be begun from.
            Base::Missing | Base::GoneElsewhere => return Ok(()),
        };
        if !self.rescue(condemnation, past.as_deref(), observer)? {
            return Ok(());
        }
        let parts = &mut self.parts;
        let (index, store) = (&mut parts.index, &*parts.store);
        if let Some(past) = &past {
            lanes(index, store, past.knowledge(), deleted)?;
            superseded_checkpoints(store, &self.keys, past.knowledge(), deleted)?;
        }
        let mut gone = BTreeSet::new();
        let mut needed = None;
        for pack in condemnation.condemned_packs() {
            let row = index.pack_row(pack)?;
            // Packs of contents hold no segments; what no index knows may be a part of a checkpoint.
            if row.is_none() {
                if needed.is_none() {
                    needed = Some(packs_of_checkpoints(index, store, &self.keys)?);
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
        forget(index, dot, &gone, past.as_deref())?;
        if held::lies_in(index, &gone)? {
            // Its author has taken it away; what is written next must not share a segment with it.
            held::let_go(index)?;
            let ended = garbage::load(index)?.ended().clone();
            if let Some(sound) = checkpoints::sound_from(index, store, &self.keys, &ended)? {
                held::hold_at_least(index, &sound.1.knowledge, &sound, self.keys.ring.current())?;
            }
        }
        match &past {
            Some(past) if self.is_told_by_a_checkpoint(past.knowledge())? => {
                checkpoints::set_owed(&mut self.parts.index, false)
            }
            Some(_) => self.write_checkpoint(observer),
            None => Ok(()),
        }
    }

    /// Whether a checkpoint that devices are seen to name says that history begins here or later.
    fn is_told_by_a_checkpoint(&self, history: &Knowledge) -> Result<bool, SyncError> {
        let (index, store) = (&self.parts.index, &*self.parts.store);
        for (device, number) in checkpoints::seen(index)? {
            let root = checkpoints::sound_root(store, &self.keys, &CheckpointRef { device, number })?;
            if root.is_some_and(|root| root.garbage.ended().includes(history)) {
                return Ok(true);
            }
        }
        Ok(false)
    }

    /// The vault as it was where history begins, if this condemns history.
    fn read_base_for(&mut self, condemnation: &Condemnation) -> Result<Base, SyncError> {
        let base = self.find_base_for(condemnation)?;
        let index = &mut self.parts.index;
        match &base {
            Base::NotNeeded => {}
            Base::Read { past, sound } => {
                index.clear_problem(PROBLEM, BASE)?;
                held::hold_at_least(index, past.knowledge(), sound, self.keys.ring.current())?;
            }
            Base::GoneElsewhere => index.clear_problem(PROBLEM, BASE)?,
            Base::Missing => {
                let text = if places::are_several(index)? { NO_BASE_HERE } else { NO_BASE };
                index.set_problem(PROBLEM, BASE, text)?;
            }
        }
        Ok(base)
    }

    /// The same; nothing is noted.
    fn find_base_for(&self, condemnation: &Condemnation) -> Result<Base, SyncError> {
        let (index, store) = (&self.parts.index, &*self.parts.store);
        // Where a later piece of history went first, this one went with it.
        let ended = garbage::load(index)?.ended().clone();
        let Some(begins) = condemnation.condemned_history().filter(|history| !ended.includes(history)) else {
            return Ok(Base::NotNeeded);
        };
        // Not at a later beginning that is condemned too: that is not answered yet.
        let past = match checkpoints::base_at(begins, index, store, &self.keys) {
            Ok(past) => Box::new(past),
            Err(SyncError::NoBase) if self.is_told_by_a_checkpoint(begins)? => return Ok(Base::GoneElsewhere),
            Err(SyncError::NoBase) => return Ok(Base::Missing),
            Err(error) => return Err(error),
        };
        let sound = checkpoints::sound_from(index, store, &self.keys, begins)?;
        Ok(sound.map_or(Base::Missing, |sound| Base::Read { past, sound: Box::new(sound) }))
    }

    /// Forgets that history stays since the checkpoint at which it begins could not be read, once that is not so any more:
    /// it can be read, others let go without it, or this replica would not let go whether or not it could be read.
    pub(super) fn look_for_base_again(&mut self) -> Result<(), SyncError> {
        let index = &self.parts.index;
        if !index.has_problem(PROBLEM)? {
            return Ok(());
        }
        if !places::lie_apart(index)? {
            let record = garbage::load(index)?;
            let answered = Standing::load(index, self.keys.device.device())?.answered(&record);
            for (_, condemnation) in record.standing().filter(|(dot, _)| answered.contains(dot)) {
                if matches!(self.find_base_for(condemnation)?, Base::Missing) {
                    return Ok(());
                }
            }
        }
        Ok(self.parts.index.clear_problem(PROBLEM, BASE)?)
    }

    /// Stores anew what is in use and lies in nothing but condemned packs, and tells of it; whether the packs may go.
    fn rescue(
        &mut self,
        condemnation: &Condemnation,
        past: Option<&Index>,
        observer: &mut dyn Observer,
    ) -> Result<bool, SyncError> {
        let going: BTreeSet<PackId> = condemnation.condemned_packs().copied().collect();
        if going.is_empty() {
            return Ok(true);
        }
        let beginning = past.map(|past| Beginning { history: past.knowledge(), past });
        let Some(mut lost) = self.needed_of(&going, Needed::InUse(beginning.as_ref()), observer)? else {
            return Ok(false);
        };
        if past.is_none() && !lost.is_empty() {
            // Where it is not known what stood when history begins, contents of tombstones count as kept.
            let index = &self.parts.index;
            let ended = garbage::load(index)?.ended().clone();
            let base = match ended.is_empty() {
                true => Err(SyncError::NoBase),
                false => checkpoints::base_at(&ended, index, &*self.parts.store, &self.keys),
            };
            match base {
                Ok(past) => {
                    let beginning = Beginning { history: past.knowledge(), past: &past };
                    let Some(found) = self.needed_of(&going, Needed::InUse(Some(&beginning)), observer)? else {
                        return Ok(false);
                    };
                    lost = found;
                }
                Err(SyncError::NoBase) => {}
                Err(error) => return Err(error),
            }
        }
        let parts = &mut self.parts;
        if lost.is_empty() {
            return Ok(true);
        }
        let mut repacking = Repacking::new(&*parts.store, &self.keys);
        let mut unreadable = BTreeSet::new();
        for (pack, chunks) in &lost {
            let mut packed = Vec::new();
            for chunk in chunks {
                if !repacking.take_from_packet(&mut parts.index, chunk, &mut *parts.entropy)? {
                    packed.push(*chunk);
                }
            }
            if !packed.is_empty() && !repacking.take_chunks(&mut parts.index, pack, &packed, &mut *parts.entropy)? {
                unreadable.insert(*pack);
            }
        }
        repacking.put(&mut parts.index, &mut *parts.entropy)?;
        let told = repacking.told;
        if !told.is_empty() {
            self.tell_and_condemn(told, Draft::default())?;
            if self.publish(false)? == Published::Forked {
                return Ok(false);
            }
        }
        // Somebody else deleted it after storing anew what it held, and this device has not learned of that; or it is lost,
        // and whoever has the content on disk is asked for it.
        self.pass_over_what_others_let_go(&mut unreadable, observer)?;
        let now = self.parts.clock.now_ms();
        let wanted = unreadable.iter().copied().map(Wanted::Pack).collect();
        wants::note(&mut self.parts.index, &wanted, now)?;
        Ok(unreadable.is_empty())
    }

    /// Takes out the packs that are gone and of which nothing is lacking but past contents: whoever deleted them looked at
    /// what the retention of that time kept, and a longer one since brings nothing back.
    ///
    /// Nothing is deleted for this, so a pack that others need not know of will do for what stands, if it is there.
    fn pass_over_what_others_let_go(
        &mut self,
        unreadable: &mut BTreeSet<PackId>,
        observer: &dyn Observer,
    ) -> Result<(), SyncError> {
        if unreadable.is_empty() {
            return Ok(());
        }
        let Some(lacking) = self.needed_of(unreadable, Needed::Standing, observer)? else { return Ok(()) };
        let store = &*self.parts.store;
        let mut kept = BTreeSet::new();
        for pack in unreadable.iter() {
            let is_gone = match store.get(&object_name(pack), u64::from(MAX_PACK_BYTES)) {
                Err(StoreError::Missing { .. }) => true,
                Ok(_) | Err(StoreError::TooLarge { .. } | StoreError::Short { .. }) => false,
                Err(error) => return Err(error.into()),
            };
            if !is_gone || lacking.contains_key(pack) {
                kept.insert(*pack);
            }
        }
        *unreadable = kept;
        Ok(())
    }

    /// The chunks that are needed and lie in these packs and in no other that will do, that stays and that is there; none
    /// where that cannot be told.
    fn needed_of(
        &mut self,
        going: &BTreeSet<PackId>,
        needed: Needed<'_, '_>,
        observer: &dyn Observer,
    ) -> Result<Option<BTreeMap<PackId, Vec<ChunkId>>>, SyncError> {
        loop {
            let (mut lost, mut relied_on) = (BTreeMap::<PackId, Vec<ChunkId>>::new(), BTreeSet::new());
            let (index, store) = (&self.parts.index, &*self.parts.store);
            let unknown = match needed {
                Needed::InUse(_) => held::not_known_to_others(index)?,
                Needed::Standing => BTreeSet::new(),
            };
            let mark = |chunk: &ChunkId| -> Result<(), SyncError> {
                match whether_it_stays(index, going, &unknown, chunk)? {
                    Stays::Nowhere { going } => lost.entry(going).or_default().push(*chunk),
                    Stays::In { staying } => drop(relied_on.insert(staying)),
                    Stays::IsNotConcerned => {}
                }
                Ok(())
            };
            let complete = match needed {
                Needed::InUse(beginning) => {
                    let retention = garbage::load(index)?.retention();
                    chunks_in_use(index, store, &self.keys, retention, beginning, observer, mark)?
                }
                Needed::Standing => chunks_standing(index, Some(store), &self.keys, observer, mark)?,
            };
            if !complete {
                return Ok(None);
            }
            if !self.note_absent(&relied_on)? {
                return Ok(Some(lost));
            }
        }
    }
}

/// Which chunks are needed, and where else they may lie.
#[derive(Clone, Copy)]
enum Needed<'a, 'b> {
    /// What is in use, in packs that all know of: somebody deletes for it.
    InUse(Option<&'a Beginning<'b>>),
    /// What stands, in any pack: nothing is deleted for it.
    Standing,
}

/// What becomes of a chunk when packs go.
enum Stays {
    /// None of them holds it.
    IsNotConcerned,
    /// It lies in another pack, too, that was told of and is not condemned.
    In { staying: PackId },
    /// It would go with this pack.
    Nowhere { going: PackId },
}

/// Whether a chunk lies in another pack as well, when these go.
///
/// Where others need not know of a pack, it does not count. That a packet holds one as well is not enough: whoever folded
/// that packet while the pack stood, or began from a checkpoint since, knows of the pack alone. Nor is a pack of which
/// nothing has told yet, since it is known here alone, nor one that is condemned too: somebody else may delete that one and
/// rely on this.
fn whether_it_stays(
    index: &Index,
    going: &BTreeSet<PackId>,
    unknown: &BTreeSet<PackId>,
    chunk: &ChunkId,
) -> Result<Stays, SyncError> {
    let (mut staying, mut found) = (None, None);
    for place in index.chunk_places(chunk)? {
        let ChunkPlace::Pack { pack, .. } = place else { continue };
        let is_sound = index.pack_row(&pack)?.is_some_and(|row| row.state == PackState::Stored);
        if going.contains(&pack) {
            found = found.or(Some(pack));
        } else if is_sound && !unknown.contains(&pack) {
            staying = staying.or(Some(pack));
        }
    }
    Ok(match (found, staying) {
        (None, _) => Stays::IsNotConcerned,
        (Some(_), Some(staying)) => Stays::In { staying },
        (Some(going), None) => Stays::Nowhere { going },
    })
}

/// The vault as it was where history begins.
enum Base {
    /// No history is let go.
    NotNeeded,
    /// It was read whole, and so was the checkpoint from which whoever joins would begin.
    Read { past: Box<Index>, sound: Box<(CheckpointRef, CheckpointRoot)> },
    /// Others let more go since, and told where history begins now: it goes here once that is answered by what is known here.
    GoneElsewhere,
    /// It cannot be read.
    Missing,
}

/// Forgets what was deleted, and that it was condemned: one transaction.
fn forget(index: &mut Index, dot: &Dot, gone: &BTreeSet<PackId>, past: Option<&Index>) -> Result<(), SyncError> {
    index.begin()?;
    for pack in gone {
        let chunks = index.pack_index(pack)?.map(|pack| pack.chunks).unwrap_or_default();
        index.remove_pack(pack)?;
        for chunk in chunks {
            // Nothing in use lies in packets alone now, and whoever began from a checkpoint knew of the pack only: what
            // names this chunk one day must bring it along.
            if let Some(ChunkPlace::Packet { .. }) = index.chunk_place(&chunk.id)? {
                index.remove_inline_chunk(&chunk.id)?;
            }
        }
    }
    if let Some(past) = past {
        let history = past.knowledge().clone();
        sweep(index, &history, past)?;
        // Whoever lacks what is gone now learns from a checkpoint that it must begin anew.
        checkpoints::set_owed(index, true)?;
    }
    let mut record = garbage::load(index)?;
    record.finish(dot);
    garbage::store(index, &record)?;
    settle_wants(index, gone, record.ended())?;
    held::strike_out(index, gone.iter().copied())?;
    Ok(index.commit()?)
}

/// What was let go is missed by nobody any more.
fn settle_wants(index: &mut Index, gone: &BTreeSet<PackId>, ended: &Knowledge) -> Result<(), SyncError> {
    let mut wanted = wants::own(index)?;
    let before = wanted.len();
    wanted.retain(|object| match object {
        Wanted::Pack(pack) => !gone.contains(pack),
        Wanted::Packet(dot) => !ended.contains(dot),
        Wanted::Checkpoint(_) => true,
    });
    if wanted.len() == before { Ok(()) } else { wants::set_own(index, &wanted) }
}

/// Deletes the packets before a point.
fn lanes(index: &Index, store: &dyn Store, history: &Knowledge, deleted: &mut Deleted) -> Result<(), SyncError> {
    for (device, learned) in history.iter() {
        let listed = store.list(&format!("{LANES_FOLDER}/{device}"))?;
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

/// Deletes checkpoints that lie before a point, of whatever epoch: what they go on from is gone.
fn superseded_checkpoints(
    store: &dyn Store,
    keys: &Keys,
    history: &Knowledge,
    deleted: &mut Deleted,
) -> Result<(), SyncError> {
    for listed in store.list(CHECKPOINTS_FOLDER)? {
        let Some(checkpoint) = CheckpointRef::from_name(&listed.name) else { continue };
        match checkpoints::read_any_root(store, keys, &checkpoint) {
            Ok((_, root)) if !root.knowledge.includes(history) => {
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

/// The packs in which the segments of checkpoints lie: of those listed, of those that tips name, and of the one held.
pub(super) fn packs_of_checkpoints(
    index: &Index,
    store: &dyn Store,
    keys: &Keys,
) -> Result<BTreeSet<PackId>, SyncError> {
    let listed = store.list(CHECKPOINTS_FOLDER)?;
    let mut roots: BTreeSet<CheckpointRef> =
        listed.iter().filter_map(|listed| CheckpointRef::from_name(&listed.name)).collect();
    // A listing may be stale.
    let seen = checkpoints::seen(index)?.into_iter().map(|(device, number)| CheckpointRef { device, number });
    roots.extend(seen.chain(checkpoints::newest(index)?));
    let mut packs = BTreeSet::new();
    for checkpoint in roots {
        match checkpoints::read_any_root(store, keys, &checkpoint) {
            Ok((_, root)) => {
                packs.extend(root.segments.iter().flat_map(|segment| &segment.chunks).map(|chunk| chunk.pack));
            }
            Err(LearnError::Unusable(_) | LearnError::Locked(_)) => {}
            Err(LearnError::Sync(error)) => return Err(error),
        }
    }
    Ok(packs)
}

/// The kind of problem under which the index keeps what could not be let go.
const PROBLEM: &str = "history";
const BASE: &[u8] = b"base";
const NO_BASE: &str = "the checkpoint at which history begins cannot be read, so no history is deleted";
const NO_BASE_HERE: &str = "the checkpoint at which history begins cannot be read here, so no history is deleted; it may lie \
                            at another place of the vault";

#[cfg(test)]
mod tests;
