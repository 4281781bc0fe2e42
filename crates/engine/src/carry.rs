//! Carrying: whoever synchronises with several places brings each what it lacks of what was learned at another.
//!
//! Anyone may carry, since packets are signed by their authors; replicas keep those that they folded as they were sealed. A
//! place gets the packs first, then the packets, and then this device's tip, which tells of both: *no tip tells of a packet
//! that was not brought to its place before*. So whoever sees only that place reads on in the lanes of devices that never
//! come there, as far as the tip says.
//!
//! A pack is sealed by chance and cannot be made a second time, and its bytes are not kept. What it holds is read from
//! this disk and stored in another pack, as after a loss ([`crate::repair`]). What no disk shows any more, such as a past
//! version, stays where it is until somebody who has it asks or is asked.
//!
//! A replica that began from a checkpoint has none of the packets before it. As far as another place may lack them it takes
//! them along when it comes back to a place that has them. Those that were let go nobody has: what they said comes to the
//! other place in a checkpoint, from which whoever has not folded them begins.
//!
//! Where a replica knows only one place nothing of this happens.

use std::collections::BTreeSet;

use packetboat_core::garbage::{condemns, references};
use packetboat_core::ids::{DeviceId, Dot, PackId};
use packetboat_core::knowledge::{Knowledge, Learned};
use packetboat_core::packet::{MAX_PACKET_BYTES, SealedPacket};
use packetboat_core::store::{Put, Store, StoreError};
use packetboat_replica::index::{PackState, Stage};
use packetboat_storage::pack;

use crate::checkpoints;
use crate::error::SyncError;
use crate::garbage;
use crate::learn::{counters_present, packet_name};
use crate::places::{self, Lacking};
use crate::ports::Observer;
use crate::prune::present::sizes;
use crate::replica::Replica;

impl Replica {
    /// Brings to this place what it lacks of what this replica has folded; the tip that tells of it is written later.
    ///
    /// Answers with the lanes of which the place holds another side of a fork.
    pub(crate) fn carry(&mut self, observer: &mut dyn Observer) -> Result<BTreeSet<DeviceId>, SyncError> {
        self.take_along()?;
        let lacking = places::lacking(&self.parts.index)?;
        let mut forked = BTreeSet::new();
        if lacking.is_empty() {
            // One place that is reached in several ways never lacks anything, and is not listed each time.
            let index = &self.parts.index;
            if places::is_new_here(index)? || (places::has_just_come(index)? && places::has_lacked(index)?) {
                self.store_what_is_absent(false, observer)?;
            }
            return Ok(forked);
        }
        let own = self.keys.device.device();
        for lane in &lacking {
            if lane.device != own || lane.first <= places::held_elsewhere(&self.parts.index, &own)? {
                places::note_lack(&mut self.parts.index)?;
                break;
            }
        }
        let ended = garbage::load(&self.parts.index)?.ended().clone();
        let begins_later = lacking.iter().any(|lane| lane.first <= ended.counter(&lane.device));
        let lacks_packs = begins_later || self.may_lack_packs(&lacking)?;
        if lacks_packs || places::has_just_come(&self.parts.index)? {
            self.store_what_is_absent(lacks_packs, observer)?;
        }
        let mut brought = Vec::new();
        for lane in &lacking {
            // Its own lane this device puts when it publishes.
            if lane.device == own {
                brought.push((own, lane.last));
                continue;
            }
            match self.bring(lane, &ended, observer)? {
                Brought::All => brought.push((lane.device, lane.last)),
                Brought::UpTo(last) => brought.extend(last.map(|last| (lane.device, last))),
                Brought::Forked => drop(forked.insert(lane.device)),
            }
        }
        let index = &mut self.parts.index;
        index.begin()?;
        if begins_later {
            checkpoints::set_owed(index, true)?;
        }
        let tells = brought.iter().any(|(device, _)| *device != own);
        places::note_held(index, brought)?;
        if tells {
            places::owe_a_tip(index)?;
        }
        index.commit()?;
        Ok(forked)
    }

    /// Whether packs that are needed here may be at another place alone, by what these packets say, refer to and tell of.
    ///
    /// Where they condemn something, whoever let that go may have relied on any pack of the place where it was.
    fn may_lack_packs(&self, lacking: &[Lacking]) -> Result<bool, SyncError> {
        let (index, store) = (&self.parts.index, &*self.parts.store);
        let mut looked_at = BTreeSet::new();
        for Lacking { device, first, last } in lacking {
            for counter in *first..=last.counter {
                let Some(sealed) = index.sealed_packet(Dot { device: *device, counter })? else { continue };
                let packet = sealed.open(&self.keys.ring)?;
                if condemns(&packet) {
                    return Ok(true);
                }
                for pack in references(&packet) {
                    let is_lacking = match index.pack_row(&pack)?.map(|row| row.state) {
                        Some(PackState::Stored) => looked_at.insert(pack) && !is_there(store, &pack)?,
                        Some(PackState::Damaged) => true,
                        Some(PackState::Pending | PackState::Condemned) | None => false,
                    };
                    if is_lacking {
                        return Ok(true);
                    }
                }
            }
        }
        Ok(false)
    }

    /// Stores anew what this place has in no pack, whether that was known or not: what held the same here may be gone since, or
    /// be condemned now.
    ///
    /// So is what lies inside packets that are carried, too: others hear of the packs, and what they write and let go next
    /// relies on those.
    fn store_what_is_absent(&mut self, insist: bool, observer: &mut dyn Observer) -> Result<(), SyncError> {
        let index = &self.parts.index;
        let mut packs = BTreeSet::new();
        index.each_pack(|row| {
            if matches!(row.state, PackState::Stored | PackState::Damaged) {
                packs.insert(row.pack);
            }
        })?;
        let there = sizes(&*self.parts.store, &packs)?;
        packs.retain(|pack| !there.contains_key(pack));
        if packs.is_empty() { Ok(()) } else { self.store_elsewhere(&packs, insist, observer) }
    }

    /// Puts the packets of a lane that may be lacking here, as far as they are kept.
    fn bring(&mut self, lane: &Lacking, ended: &Knowledge, observer: &mut dyn Observer) -> Result<Brought, SyncError> {
        let store = &*self.parts.store;
        let first = lane.first.max(ended.counter(&lane.device) + 1);
        let (mut last, mut present) = (None, None);
        for counter in first..=lane.last.counter {
            let dot = Dot { device: lane.device, counter };
            let Some(sealed) = self.parts.index.sealed_packet(dot)? else {
                // It was folded in a checkpoint. Where the place has none either, there is nothing to go on from.
                if present.is_none() {
                    present = Some(counters_present(store, &lane.device)?);
                }
                match present.as_ref().is_some_and(|present| present.contains(&counter)) {
                    true => continue,
                    false => return Ok(Brought::UpTo(last)),
                }
            };
            if counter == first && counter > 1 {
                // Somebody may have put another side there since this place was known to hold ours.
                let before = standing(store, &Dot { counter: counter - 1, ..dot })?;
                if before.is_some_and(|before| before.hash() != sealed.previous()) {
                    return Ok(Brought::Forked);
                }
            }
            if !put(store, &sealed)? {
                return Ok(Brought::Forked);
            }
            last = Some(Learned { counter, hash: sealed.hash() });
            observer.advance(1, sealed.bytes().len() as u64);
            if observer.interrupted() {
                return Err(SyncError::Interrupted);
            }
        }
        Ok(Brought::All)
    }

    /// Keeps of the packets at this place those that this replica did not fold by themselves and another may lack.
    fn take_along(&mut self) -> Result<(), SyncError> {
        let index = &self.parts.index;
        if !places::has_just_come(index)? {
            return Ok(());
        }
        let ended = garbage::load(index)?.ended().clone();
        let mut taken = Vec::new();
        for (device, learned) in index.knowledge().iter() {
            let first = 1 + places::least_held_elsewhere(index, device)?.max(ended.counter(device));
            let (mut next, mut expected) = (learned.counter, learned.hash);
            let rows = if first <= next { index.packets(*device, first, next)? } else { Vec::new() };
            let kept = rows.iter().rev().take_while(|row| {
                let follows = row.dot.counter == next && row.sealed_bytes.is_some();
                next -= u64::from(follows);
                follows
            });
            if let Some(lowest) = kept.last()
                && let Some(sealed) = index.sealed_packet(lowest.dot)?
            {
                expected = sealed.previous();
            }
            for counter in (first..=next).rev() {
                let there = standing(&*self.parts.store, &Dot { device: *device, counter })?;
                let Some(sealed) = there.filter(|sealed| sealed.hash() == expected) else { break };
                expected = sealed.previous();
                taken.push(sealed);
            }
        }
        let index = &mut self.parts.index;
        index.begin()?;
        for sealed in &taken {
            index.put_packet(sealed, Stage::Carried)?;
        }
        Ok(index.commit()?)
    }
}

/// What became of a lane that was to be brought.
enum Brought {
    /// All of it is there.
    All,
    /// What follows is not kept here; this was the last that was put.
    UpTo(Option<Learned>),
    /// The place holds another side of a fork.
    Forked,
}

/// Puts a packet unless it is there; not so where another one has its place, which is a fork.
fn put(store: &dyn Store, sealed: &SealedPacket) -> Result<bool, SyncError> {
    let name = packet_name(&sealed.dot());
    if store.put_new(&name, sealed.bytes())? == Put::Stored {
        return Ok(true);
    }
    if let Some(standing) = standing(store, &sealed.dot())? {
        return Ok(standing.bytes() == sealed.bytes());
    }
    // What was there is torn or damaged.
    store.put(&name, sealed.bytes())?;
    Ok(true)
}

/// The packet that lies in a place of a lane, if it is one.
pub(crate) fn standing(store: &dyn Store, dot: &Dot) -> Result<Option<SealedPacket>, SyncError> {
    match store.get(&packet_name(dot), MAX_PACKET_BYTES as u64) {
        Ok(bytes) => Ok(SealedPacket::from_bytes(bytes).ok().filter(|standing| standing.dot() == *dot)),
        Err(StoreError::Missing { .. } | StoreError::TooLarge { .. } | StoreError::Short { .. }) => Ok(None),
        Err(error) => Err(error.into()),
    }
}

/// Whether a pack is at a place, as far as a glance tells: whoever reads it finds out whether it is whole.
pub(crate) fn is_there(store: &dyn Store, pack: &PackId) -> Result<bool, SyncError> {
    match store.get_range(&pack::object_name(pack), 0, 1) {
        Ok(_) => Ok(true),
        Err(StoreError::Missing { .. } | StoreError::Short { .. } | StoreError::TooLarge { .. }) => Ok(false),
        Err(error) => Err(error.into()),
    }
}
