//! Whether a packet that was read may be folded now: what waits for a removal, what counts for nobody, and what of it is told.

use std::collections::BTreeMap;

use packetboat_core::change::Change;
use packetboat_core::ids::{Counter, DeviceId, Dot, PacketHash};
use packetboat_core::knowledge::Knowledge;
use packetboat_core::lane::{Admission, Carriers, LaneEnd, Lanes, Refusal};
use packetboat_core::members::Standing;
use packetboat_core::packet::Packet;

use super::{Learner, PendingCut};
use crate::carry::standing;
use crate::error::SyncError;
use crate::{forks, places, refusals};

impl Learner<'_> {
    /// Notes that a packet is refused, and where it counts for nobody who knows what is known here.
    pub(super) fn note_refusal(&mut self, dot: Dot, refusal: &Refusal) {
        *self.refused.entry(dot).or_default() += 1;
        match refusal {
            // A carrier may come for it, and a fork may be settled yet.
            Refusal::Late | Refusal::OtherHistory { .. } if !self.is_given_up(&dot) => {
                refusals::add(&mut self.late, BTreeMap::from([(dot.device, dot.counter)]));
            }
            Refusal::Late | Refusal::Retired { .. } | Refusal::Revoked { .. } | Refusal::Outdated { .. } => {
                refusals::add(&mut self.outside, BTreeMap::from([(dot.device, dot.counter)]));
            }
            _ => {}
        }
    }

    /// Notes which lanes are refused, and which wait for those.
    pub(super) fn note_refused(&mut self) -> Result<(), SyncError> {
        let mut lanes = refusals::own(self.index)?;
        refusals::add(&mut lanes, std::mem::take(&mut self.outside));
        refusals::add(&mut lanes, refusals::late(self.index, &self.late)?);
        if lanes.is_empty() {
            return Ok(());
        }
        self.waiting.add_those_who_wait_for(&mut lanes, self.index.knowledge());
        lanes.retain(|device, from| self.garbage.ended().counter(device) < *from);
        refusals::set_own(self.index, lanes)
    }

    /// Whether a removal that waits would cut a packet off. Of two that remove each other the earlier is not put off.
    pub(super) fn is_put_off(&self, packet: &Packet) -> bool {
        let place = (packet.body.lamport, packet.dot.device);
        let removes = !PendingCut::of(packet).is_empty();
        self.cuts.iter().any(|cut| {
            let concerns = cut.device == packet.dot.device && cut.cut < packet.dot.counter && cut.by != packet.dot;
            concerns && !(removes && place < cut.place) && !self.index.knowledge().contains(&cut.by)
        })
    }

    /// Whether a packet is of a lane that was given up, or of a device that was found to be passed over and no member carries
    /// it.
    pub(super) fn is_passed_over(&self, packet: &Packet) -> bool {
        let is_passed_over = self.passed_over.contains(&packet.dot.device);
        self.is_given_up(&packet.dot) || is_passed_over && !self.carries(&packet.dot, Carriers::Members)
    }

    pub(super) fn is_given_up(&self, dot: &Dot) -> bool {
        forks::is_parted(&self.given_up, dot)
    }

    /// Whether a packet that waits, of one who may, carries this one.
    pub(super) fn carries(&self, dot: &Dot, carriers: Carriers) -> bool {
        self.waiting.carries(dot, carriers, &self.members, &self.garbage, |carrier| self.is_given_up(carrier))
    }

    /// Notes a refused packet by which another device, whom this one revoked, revoked this one earlier in total order.
    pub(super) fn note_overruled(&mut self, packet: &Packet) {
        let author = packet.dot.device;
        let Standing::Revoked { by, .. } = self.members.standing(&author) else { return };
        let revokes = |change: &Change| matches!(change, Change::Revoke { device, .. } if *device == self.own_device);
        let earlier = (packet.body.lamport, author) < (by.lamport, by.device);
        if by.device == self.own_device && earlier && packet.body.changes.iter().any(revokes) {
            self.learned.overruled_by = Some(author);
        }
    }

    /// Looks for what a packet builds on where a checkpoint contains that and does not tell it from the other side of a fork:
    /// others who folded it packet by packet refuse what builds on another.
    pub(super) fn look_up_older(&mut self, packet: &Packet) -> Result<(), SyncError> {
        for (device, named) in packet.body.prerequisite.iter() {
            let dot = Dot { device: *device, counter: named.counter };
            let is_older = dot.counter < self.index.knowledge().counter(device) && !self.garbage.ended().contains(&dot);
            let is_folded = || Ok::<_, SyncError>(self.index.packet_row(dot)?.is_some_and(|row| row.folded.is_some()));
            let is_looked_up = self.shown.contains_key(&dot);
            if !is_older || is_looked_up || is_folded()? || !self.is_named_otherwise(&dot, named.hash)? {
                continue;
            }
            let ours = places::hash_at(self.index, device, dot.counter)?;
            let kept = self.index.sealed_packet(dot)?;
            let found = if kept.is_some() { kept } else { standing(self.store, &dot)? };
            let found = found.filter(|found| ours.is_none_or(|ours| ours == found.hash()));
            let found = found.and_then(|found| Some((found.hash(), found.open(&self.keys.ring).ok()?.body.lamport)));
            self.shown.insert(dot, found);
        }
        Ok(())
    }

    /// Whether a tip, or the last packet of a lane, names another packet there. Where nobody does, joining reads none.
    pub(super) fn is_named_otherwise(&self, dot: &Dot, hash: PacketHash) -> Result<bool, SyncError> {
        let is_other = |known: &Knowledge| {
            known.of(&dot.device).is_some_and(|there| there.counter == dot.counter && there.hash != hash)
        };
        if self.told.iter().any(is_other) {
            return Ok(true);
        }
        for (device, _) in self.index.knowledge().iter() {
            if is_other(&self.index.lane_prerequisite(*device)?) {
                return Ok(true);
            }
        }
        Ok(false)
    }

    /// A packet on which this one builds and that is not the one known here, though its logical time is not.
    pub(super) fn of_other_history(&self, packet: &Packet) -> Result<Option<Dot>, SyncError> {
        for (device, named) in packet.body.prerequisite.iter() {
            if forks::differs(self.index, device, named.counter, named.hash)? {
                return Ok(Some(Dot { device: *device, counter: named.counter }));
            }
        }
        Ok(None)
    }

    pub(super) fn admit(&self, packet: &Packet) -> Result<Admission, SyncError> {
        let device = packet.dot.device;
        let end = match self.index.lane_lamport(device)? {
            Some(lamport) => Some(LaneEnd { lamport, prerequisite: self.index.lane_prerequisite(device)? }),
            None => None,
        };
        let index = &*self.index;
        let packet_at = |device: &DeviceId, counter: Counter| {
            let dot = Dot { device: *device, counter };
            let row = index.packet_row(dot).ok().flatten();
            if let Some((hash, folded)) = row.and_then(|row| row.folded.map(|folded| (row.hash, folded))) {
                return Some((hash, folded.lamport));
            }
            // The last packet of a lane is known even where this replica began from a checkpoint.
            match index.knowledge().of(device).filter(|learned| learned.counter == counter) {
                Some(learned) => Some((learned.hash, index.lane_lamport(*device).ok().flatten()?)),
                None => self.shown.get(&dot).copied().flatten(),
            }
        };
        let carried = |dot: &Dot, by| self.carries(dot, by);
        let lanes = Lanes {
            knowledge: index.knowledge(),
            end: end.as_ref(),
            members: &self.members,
            packet_at: &packet_at,
            garbage: &self.garbage,
            carried: &carried,
        };
        Ok(lanes.admit(packet))
    }
}
