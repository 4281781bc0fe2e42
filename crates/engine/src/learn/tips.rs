//! Reading tips: which changed, what they tell of their own lanes and of others', and which of them do not open yet.

use std::collections::{HashMap, VecDeque};

use packetboat_core::ids::{Counter, DeviceId, Dot};
use packetboat_core::knowledge;
use packetboat_core::members::Standing;
use packetboat_core::packet::SealedPacket;
use packetboat_core::signed::SignedError;
use packetboat_core::store::Listed;
use packetboat_core::tip::{MAX_TIP_BYTES, Tip, UnverifiedTip};

use super::problems::has_gone_on;
use super::{
    LOCKED, LearnError, Learner, MAX_WANTED, OWN_TIP_SIZE, OwnLane, TIP, counters_present, described, unusable,
};
use crate::carry::standing;
use crate::error::SyncError;
use crate::refusals;
use crate::shell;

impl Learner<'_> {
    pub(super) fn tips(&mut self, listing: &[Listed]) -> Result<(), SyncError> {
        let seen = self.index.tip_etags(self.place)?;
        let mut own_listed = false;
        let mut moved_on = Vec::new();
        for listed in listing {
            let Some(device) = Tip::device_of(&listed.name) else { continue };
            let known = seen.get(&device);
            if known.is_some_and(|(etag, _)| *etag == listed.etag) {
                own_listed |= device == self.own_device;
                continue;
            }
            // It has no etag since it was written; one that has another by now was changed since.
            let written = known.filter(|(etag, _)| etag.is_empty());
            if device == self.own_device
                && let Some((_, sequence)) = written
                && self.is_tip_as_written(listed)?
            {
                own_listed = true;
                let sequence = *sequence;
                self.index.set_tip_etag(self.place, device, &listed.etag, sequence)?;
                continue;
            }
            own_listed |= device == self.own_device;
            moved_on.push((device, listed));
        }
        let locked = self.open_tips(moved_on, &seen)?;
        self.locked_tips(locked, &seen)?;
        self.lanes_told_of();
        self.lanes_that_parted()?;
        self.lanes_once_known()?;
        if !own_listed && self.index.knowledge().counter(&self.own_device) > 0 {
            self.learned.own = OwnLane::Behind;
        }
        Ok(())
    }

    /// Reads the tips that did not open at first, once the keys for them are found in their lanes or in the marker.
    pub(super) fn locked_tips(
        &mut self,
        mut locked: Vec<(DeviceId, &Listed)>,
        seen: &HashMap<DeviceId, (String, u64)>,
    ) -> Result<(), SyncError> {
        let mut marker_read = false;
        while !locked.is_empty() {
            let lanes: Vec<DeviceId> = locked.iter().map(|(device, _)| *device).collect();
            if !self.read_ahead(&lanes)? {
                let read = std::mem::replace(&mut marker_read, true);
                if read || !crate::epochs::take_from_marker(self.index, self.store, self.keys)? {
                    break;
                }
            }
            locked = self.open_tips(locked, seen)?;
        }
        self.learned.locked.extend(locked.into_iter().map(|(device, _)| device));
        Ok(())
    }

    /// Reads tips; those that do not open come back.
    pub(super) fn open_tips<'l>(
        &mut self,
        tips: Vec<(DeviceId, &'l Listed)>,
        seen: &HashMap<DeviceId, (String, u64)>,
    ) -> Result<Vec<(DeviceId, &'l Listed)>, SyncError> {
        let mut locked = Vec::new();
        for (device, listed) in tips {
            match self.tip(device, seen.get(&device).map_or(0, |(_, sequence)| *sequence)) {
                Ok((sequence, last, size)) => {
                    // A size encodes a tip's number. Another one than listed was read from before or after the listing:
                    // it must be read again, or the listed one would never be.
                    let etag = if size == listed.size { listed.etag.clone() } else { String::new() };
                    self.tips_read.push((device, etag, sequence, last));
                }
                Err(LearnError::Locked(_)) => locked.push((device, listed)),
                Err(LearnError::Unusable(reason)) => {
                    self.bad_tips.insert(device, BadTip::Unusable(reason));
                    self.rest_of_lane(device)?;
                }
                Err(LearnError::Sync(error)) => return Err(error),
            }
        }
        Ok(locked)
    }

    /// Why a tip cannot be read, with whose it is and what is to be done where that device never comes again.
    fn with_what_ends_it(&self, device: &DeviceId, reason: String) -> String {
        let Some(name) = self.members.name(device).filter(|_| *device != self.own_device) else { return reason };
        let namesakes = self.members.active().filter(|member| member.name == name).count();
        let retired = if namesakes == 1 { shell::word(name.as_bytes()) } else { device.short() };
        format!(
            "{reason}; it is the tip of \"{name}\", which writes it anew in its next round. If that device is gone for \
             good, `packetboat devices retire {retired}` ends this"
        )
    }

    /// Looks on in the lanes of which this replica gave up a side for another, until that is folded: it may be that no tip
    /// tells of it, as where its device was killed before it wrote one.
    pub(super) fn lanes_that_parted(&mut self) -> Result<(), SyncError> {
        for (device, at) in self.parted.clone() {
            let is_wanted = self.lanes.get(&device).is_some_and(|wanted| !wanted.is_empty());
            if self.index.knowledge().counter(&device) < at && !is_wanted {
                self.rest_of_lane(device)?;
            }
        }
        Ok(())
    }

    /// Whoever begins anew looks into all lanes that it knew of here before: it may be that nobody else does, as where it
    /// brought them itself.
    pub(super) fn lanes_once_known(&mut self) -> Result<(), SyncError> {
        if !self.index.knowledge().is_empty() {
            return Ok(());
        }
        for device in crate::places::once_held(self.index)? {
            if self.lanes.get(&device).is_none_or(VecDeque::is_empty) {
                self.rest_of_lane(device)?;
            }
        }
        Ok(())
    }

    /// Looks on in a lane of which the tip says nothing: its device may write no other for a long time.
    pub(super) fn rest_of_lane(&mut self, device: DeviceId) -> Result<(), SyncError> {
        if device == self.own_device {
            return Ok(());
        }
        let present = counters_present(self.store, &device)?;
        let known = self.index.knowledge().counter(&device);
        // What was let go before the first is for a checkpoint to bring, and what is lost for those who build on it.
        let first = present.range(known + 1..).next().copied();
        let run = first.into_iter().flat_map(|first| (first..).take_while(|counter| present.contains(counter)));
        self.lanes.insert(device, run.take(MAX_WANTED).collect());
        Ok(())
    }

    /// Reads on in all lanes where tips do not open: at two places the packet that renewed the key may be one of which only
    /// those tips tell. What is not there or does not open either is missed by nobody.
    pub(super) fn read_ahead_in_all_lanes(&mut self) -> Result<(), SyncError> {
        let is_asked = |device: &DeviceId| *device != self.own_device && !self.members.standing(device).is_revoked();
        let known = self.index.knowledge().iter().map(|(device, _)| *device);
        let devices: Vec<DeviceId> = known.filter(is_asked).collect();
        self.read_ahead(&devices)?;
        Ok(())
    }

    /// Reads the tips again that did not open, by the keys that came with what was folded since.
    pub(super) fn unlock(&mut self, listing: &[Listed]) -> Result<(), SyncError> {
        let again = std::mem::take(&mut self.learned.locked);
        let locked = listing.iter().filter_map(|listed| Some((Tip::device_of(&listed.name)?, listed)));
        let locked = locked.filter(|(device, _)| again.contains(device)).collect();
        let seen = self.index.tip_etags(self.place)?;
        let locked = self.open_tips(locked, &seen)?;
        self.locked_tips(locked, &seen)
    }

    /// Tells of the tips that are of no use, and forgets those that were before. One that still is was found so again, since
    /// none is noted as read before it was sound; others are sound, gone, or lie at another place.
    ///
    /// Who was removed writes no other, nor does who goes on under another key: nobody need be told of theirs in every round.
    pub(super) fn tell_of_bad_tips(&mut self) -> Result<(), SyncError> {
        // This device is told better why it opens none.
        if !self.members.standing(&self.own_device).is_revoked() {
            let locked = self.learned.locked.iter().copied();
            self.bad_tips.extend(locked.map(|device| (device, BadTip::Locked)));
        }
        let members = &self.members;
        self.bad_tips.retain(|device, _| members.standing(device) == Standing::Active && !has_gone_on(members, device));
        for problem in self.index.problems()?.iter().filter(|problem| problem.kind == TIP) {
            let is_this = |device: &DeviceId| Tip::name(device).as_str().as_bytes() == problem.subject;
            if !self.bad_tips.keys().any(is_this) {
                self.index.clear_problem(TIP, &problem.subject)?;
            }
        }
        for (device, bad) in std::mem::take(&mut self.bad_tips) {
            let reason = match bad {
                BadTip::Unusable(reason) => self.with_what_ends_it(&device, reason),
                BadTip::Locked => LOCKED.to_owned(),
            };
            self.unusable(TIP, &Tip::name(&device), reason)?;
        }
        Ok(())
    }

    /// Reads and holds packets of lanes beyond what is folded until one brings a key, or none can be had; says which.
    pub(super) fn read_ahead(&mut self, lanes: &[DeviceId]) -> Result<bool, SyncError> {
        let before = self.keys.ring.roots().count();
        let missing = self.learned.missing;
        for device in lanes {
            let mut counter = self.index.knowledge().counter(device);
            while self.keys.ring.roots().count() == before {
                counter += 1;
                match self.read(*device, counter) {
                    Ok(true) => {}
                    Ok(false) | Err(LearnError::Unusable(_) | LearnError::Locked(_)) => break,
                    Err(LearnError::Sync(error)) => return Err(error),
                }
            }
        }
        // Lanes end somewhere; what is looked for beyond the end is not missing.
        self.learned.missing = missing;
        Ok(self.keys.ring.roots().count() > before)
    }

    /// Looks on in lanes as far as others have learned them: their devices may never come again, or never to this place,
    /// to which others brought their packets.
    pub(super) fn lanes_told_of(&mut self) {
        let read: HashMap<DeviceId, Counter> =
            self.tips_read.iter().map(|(device, _, _, last)| (*device, *last)).collect();
        for (device, learned) in self.named.iter() {
            let known = self.index.knowledge().counter(device);
            let wanted = self.lanes.get(device).and_then(|wanted| wanted.back().copied());
            let from = [Some(known), read.get(device).copied(), wanted].into_iter().flatten().max().unwrap_or(known);
            if from < learned.counter {
                let further = (from + 1..=learned.counter).take(MAX_WANTED);
                self.lanes.entry(*device).or_default().extend(further);
            }
        }
    }

    /// Notes which tips need not be read again: not those that lead to packets which may yet come.
    pub(super) fn note_tips(&mut self) -> Result<(), SyncError> {
        let nothing_to_come = !self.stuck && self.waiting.is_empty();
        // One transaction for all: each that writes waits for the disk.
        self.index.begin()?;
        for (device, etag, sequence, last) in std::mem::take(&mut self.tips_read) {
            if nothing_to_come || self.index.knowledge().counter(&device) >= last {
                self.index.set_tip_etag(self.place, device, &etag, sequence)?;
            }
        }
        Ok(self.index.commit()?)
    }

    /// Whether this device's own tip has the size that was written last; the size encodes its number.
    pub(super) fn is_tip_as_written(&self, listed: &Listed) -> Result<bool, SyncError> {
        let written = self.index.meta(OWN_TIP_SIZE)?;
        Ok(written.is_some_and(|size| size == listed.size.to_le_bytes()))
    }

    /// Reads a tip; returns its sequence, or the one seen before where that was later, its last counter and its size.
    pub(super) fn tip(&mut self, device: DeviceId, seen: u64) -> Result<(u64, Counter, u64), LearnError> {
        let read = unusable(self.store.get(&Tip::name(&device), MAX_TIP_BYTES as u64)).and_then(|bytes| {
            let size = bytes.len() as u64;
            let verified = UnverifiedTip::parse(bytes).and_then(|tip| tip.verify(&device));
            Ok((size, verified.map_err(described)?))
        });
        if read.is_err() && device == self.own_device {
            // Nobody can read it, and nobody else can write it.
            self.learned.own = OwnLane::Behind;
        }
        let (size, sealed) = read?;
        let tip = sealed.open(&self.keys.ring).map_err(|error| match error {
            SignedError::Seal(_) => LearnError::Locked(error.to_string()),
            error => described(error),
        })?;
        let known = self.index.knowledge().counter(&device);
        let last = tip.last.map_or(0, |last| last.counter);
        if device == self.own_device {
            self.learned.own = match last.cmp(&known) {
                std::cmp::Ordering::Greater => OwnLane::Ahead,
                std::cmp::Ordering::Less => OwnLane::Behind,
                std::cmp::Ordering::Equal if self.index.knowledge().of(&device) != tip.last => OwnLane::Forked,
                std::cmp::Ordering::Equal => {
                    // What is a copy of another place has this lane already.
                    if self.index.published(self.place)? < last {
                        self.index.set_published(self.place, last)?;
                    }
                    OwnLane::AsLeft
                }
            };
        }
        if tip.sequence < seen {
            self.learned.rolled_back.push(device);
            return Ok((seen, last, size));
        }
        if device != self.own_device {
            self.learned.tips += 1;
            crate::wants::set_asked(self.index, device, &tip.wanted)?;
            refusals::set_heard(self.index, device, &tip.refused, &tip.learned)?;
        }
        self.named.merge(&tip.learned);
        if let Some(there) = tip.learned.of(&self.own_device) {
            self.hear_of_own(device, there)?;
        }
        self.told.push(tip.learned);
        self.checkpoints.extend(tip.checkpoint);
        let mut wanted: VecDeque<Counter> = (known + 1..=last).take(MAX_WANTED).collect();
        // What lies further on is for the next round; and a tip may say any number.
        self.stuck |= last.saturating_sub(known) > MAX_WANTED as u64;
        for bytes in tip.recent {
            let sealed = SealedPacket::from_bytes(bytes).map_err(described)?;
            let counter = sealed.dot().counter;
            // The lane shows which side of a fork stays; its device's last tip may be of the other.
            let parted = crate::forks::is_parted(&self.parted, &sealed.dot());
            if sealed.device() != device || counter <= known || parted {
                continue;
            }
            match self.hold(sealed) {
                Ok(true) => {
                    wanted.retain(|wanted| *wanted != counter);
                    self.from_tips.insert(Dot { device, counter });
                }
                // It may be of another epoch than the tip; it is read from the lane once the key is here.
                Ok(false) | Err(LearnError::Locked(_)) => {}
                Err(error) => return Err(error),
            }
        }
        self.lanes.insert(device, wanted);
        Ok((tip.sequence, last, size))
    }

    /// Others may know more of this device's lane than it does itself, where its own tip is damaged and its index was
    /// restored from a backup. What they say is believed once the packet is found. Another packet than its own they can only
    /// have of a copy of this device, whether or not that is still to be found.
    pub(super) fn hear_of_own(&mut self, from: DeviceId, there: knowledge::Learned) -> Result<(), LearnError> {
        let differs = crate::forks::differs(self.index, &self.own_device, there.counter, there.hash)?;
        self.is_copied |= differs && !self.members.standing(&from).is_revoked();
        let known = self.index.knowledge().counter(&self.own_device);
        if known > 0 && there.counter > known && !self.is_ahead {
            let dot = Dot { device: self.own_device, counter: there.counter };
            self.is_ahead = standing(self.store, &dot)?.is_some_and(|found| found.hash() == there.hash);
        }
        Ok(())
    }
}

/// Why a tip is of no use.
pub(super) enum BadTip {
    Unusable(String),
    /// It does not open with the keys that are held here.
    Locked,
}
