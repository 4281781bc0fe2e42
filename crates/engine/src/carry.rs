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
//! Where a replica knows only one place nothing of this happens.

use std::collections::BTreeSet;

use packetboat_core::ids::{DeviceId, Dot, PackId};
use packetboat_core::packet::{MAX_PACKET_BYTES, SealedPacket};
use packetboat_core::store::{Put, Store, StoreError};
use packetboat_replica::index::PackState;
use packetboat_storage::pack;

use crate::error::SyncError;
use crate::garbage;
use crate::learn::packet_name;
use crate::places::{self, Lacking};
use crate::ports::Observer;
use crate::replica::Replica;

impl Replica {
    /// Brings to this place what it lacks of what this replica has folded; the tip that tells of it is written later.
    ///
    /// Answers with the lanes of which the place holds another side of a fork.
    pub(crate) fn carry(&mut self, observer: &mut dyn Observer) -> Result<BTreeSet<DeviceId>, SyncError> {
        let lacking = places::lacking(&self.parts.index)?;
        let mut forked = BTreeSet::new();
        if lacking.is_empty() {
            return Ok(forked);
        }
        let own = self.keys.device.device();
        for lane in &lacking {
            if lane.device != own || lane.first <= places::held_elsewhere(&self.parts.index, &own)? {
                places::note_lack(&mut self.parts.index)?;
                break;
            }
        }
        let absent = self.absent_packs(&lacking)?;
        if !absent.is_empty() {
            self.store_elsewhere(&absent, observer)?;
        }
        let mut brought = Vec::new();
        for lane in &lacking {
            // Its own lane this device puts when it publishes.
            if lane.device == own || self.bring(lane, observer)? {
                brought.push((lane.device, lane.last));
            } else {
                forked.insert(lane.device);
            }
        }
        let index = &mut self.parts.index;
        index.begin()?;
        let tells = brought.iter().any(|(device, _)| *device != own);
        places::note_held(index, brought)?;
        if tells {
            places::owe_a_tip(index)?;
        }
        index.commit()?;
        Ok(forked)
    }

    /// The packs of which these packets tell and that are not at this place.
    fn absent_packs(&self, lacking: &[Lacking]) -> Result<BTreeSet<PackId>, SyncError> {
        let (index, store) = (&self.parts.index, &*self.parts.store);
        let mut absent = BTreeSet::new();
        for Lacking { device, first, last } in lacking {
            for counter in *first..=last.counter {
                let Some(sealed) = index.sealed_packet(Dot { device: *device, counter })? else { continue };
                for pack in sealed.open(&self.keys.ring)?.body.packs {
                    let relied_on = index.pack_row(&pack.pack)?.is_some_and(|row| row.state == PackState::Stored);
                    if relied_on && !is_there(store, &pack.pack)? {
                        absent.insert(pack.pack);
                    }
                }
            }
        }
        Ok(absent)
    }

    /// Puts the packets of a lane that may be lacking here, as far as they are kept; not so where the place holds another
    /// side of a fork.
    fn bring(&mut self, lane: &Lacking, observer: &mut dyn Observer) -> Result<bool, SyncError> {
        let ended = garbage::load(&self.parts.index)?.ended().counter(&lane.device);
        let mut whole = true;
        for counter in lane.first.max(ended + 1)..=lane.last.counter {
            let dot = Dot { device: lane.device, counter };
            let Some(sealed) = self.parts.index.sealed_packet(dot)? else { continue };
            whole &= put(&*self.parts.store, &sealed)?;
            observer.advance(1, sealed.bytes().len() as u64);
            if observer.interrupted() {
                return Err(SyncError::Interrupted);
            }
        }
        Ok(whole)
    }
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
