//! Learning: from the tips at the intermediary to folded packets.
//!
//! One listing of `tips/` tells which devices have moved on. Of these the tip is read; what it does not carry itself is
//! read from the lane, some packets at a time: each folding waits for the disk, and so many share one. A lane is read on
//! only while its packets can be folded, so little waits in memory.
//! What cannot be read or does not fit is reported and left; everything else goes on.
//!
//! A tip that does not open although its signature is its device's is sealed under a key that is not held yet. Its lane
//! is read ahead until the packet that brings the key. So a revocation is known before packets of the revoked are looked
//! at, and those beyond its cut wait until it is folded.

mod cut_off;
pub(crate) mod passed_over;

use std::collections::{BTreeMap, BTreeSet, HashMap, HashSet, VecDeque};

use packetboat_core::change::Change;
use packetboat_core::checkpoint::CheckpointRef;
use packetboat_core::garbage::{self, Garbage};
use packetboat_core::ids::{Counter, DeviceId, Dot, Lamport, PacketHash};
use packetboat_core::knowledge::{self, Knowledge};
use packetboat_core::lane::{Admission, Buffered, Carriers, LaneEnd, Lanes, Refusal, Waiting};
use packetboat_core::members::{EpochKey, Members, Standing};
use packetboat_core::packet::{MAX_PACKET_BYTES, Packet, PacketError, SealedPacket};
use packetboat_core::signed::SignedError;
use packetboat_core::store::{Listed, ObjectName, Store, StoreError};
use packetboat_core::tip::{MAX_TIP_BYTES, Tip, UnverifiedTip};
use packetboat_core::tree::Folding;
use packetboat_core::wanted::Wanted;
use packetboat_replica::index::Index;

use crate::Keys;
use crate::builder::record_folded;
use crate::carry::standing;
use crate::epochs::Lacking;
use crate::error::SyncError;
use crate::places;
use crate::ports::{Note, Observer};
use crate::refusals;

/// What was learned.
#[derive(Default, Debug)]
pub(crate) struct Learned {
    /// Packets folded.
    pub(crate) packets: u64,
    /// Devices whose tip went back behind one that was seen before.
    pub(crate) rolled_back: Vec<DeviceId>,
    /// Tips of others that were read.
    pub(crate) tips: u64,
    /// What could not be read.
    pub(crate) damaged: BTreeSet<Wanted>,
    /// What the intermediary shows of this device's own lane.
    pub(crate) own: OwnLane,
    /// The key under which things are to be sealed, where it is not held here: this device was left out.
    pub(crate) lacking: Option<EpochKey>,
    /// Devices whose tips are sealed under a key that is not held here.
    pub(crate) locked: BTreeSet<DeviceId>,
    /// Whether packets of these were let go before this device could learn of the key: see `cut_off`.
    pub(crate) is_cut_off: bool,
    /// A member that revoked this device before, in total order, this device revoked it.
    pub(crate) overruled_by: Option<DeviceId>,
    /// Whether packets that others build on are missing.
    pub(crate) missing: bool,
    /// Lanes of which somebody tells of other packets than were folded here.
    pub(crate) forked: BTreeSet<DeviceId>,
}

/// What the intermediary shows of this device's own lane.
#[derive(Clone, Copy, PartialEq, Eq, Default, Debug)]
pub(crate) enum OwnLane {
    /// Its tip is the one last written.
    #[default]
    AsLeft,
    /// Its tip is missing, damaged or older: it is to be written again.
    Behind,
    /// It goes on from what this index knows: the index is older than the lane.
    Ahead,
    /// It has another packet where this index has one of its own: somebody else goes on with the same key.
    Forked,
}

/// Reads what others published, and folds it.
pub(crate) fn learn(
    index: &mut Index,
    store: &dyn Store,
    keys: &mut Keys,
    place: &str,
    observer: &mut dyn Observer,
) -> Result<Learned, SyncError> {
    crate::checkpoints::start_over_if_cut_short(index)?;
    let listing = store.list("tips")?;
    let before = index.knowledge().clone();
    let mut learner = Learner {
        own_device: keys.device.device(),
        members: crate::members::load(index)?,
        garbage: crate::garbage::load(index)?,
        waiting: Waiting::new(WAITING_BYTES),
        from_tips: BTreeSet::new(),
        sealed: HashMap::new(),
        lanes: BTreeMap::new(),
        cuts: Vec::new(),
        refused: BTreeMap::new(),
        passed_over: passed_over::of(index, keys.device.device())?,
        given_up: refusals::given_up(index)?,
        outside: refusals::Lanes::new(),
        late: BTreeSet::new(),
        tips_read: Vec::new(),
        stuck: false,
        is_ahead: false,
        is_copied: false,
        named: Knowledge::new(),
        told: Vec::new(),
        parted: crate::forks::parted(index)?,
        checkpoints: BTreeSet::new(),
        shown: BTreeMap::new(),
        learned: Learned::default(),
        index,
        store,
        keys,
        place,
        observer,
    };
    learner.tips(&listing)?;
    learner.checkpoints()?;
    let mut keys_before = learner.keys.ring.roots().count();
    learner.lanes()?;
    // A key is taken only from a member, and who is one may be known only now.
    while !learner.learned.locked.is_empty() && learner.keys.ring.roots().count() > keys_before {
        keys_before = learner.keys.ring.roots().count();
        learner.unlock(&listing)?;
        learner.lanes()?;
    }
    if learner.is_copied {
        learner.learned.own = OwnLane::Forked;
    }
    let is_ahead = learner.is_ahead && learner.learned.own != OwnLane::Forked;
    if is_ahead || learner.learned.locked.contains(&learner.own_device) {
        // What is locked is signed by this device's key, and sealed under one that this index never had.
        learner.learned.own = OwnLane::Ahead;
    }
    learner.forks_told_of()?;
    learner.report_locked()?;
    learner.learned.is_cut_off = learner.is_cut_off()?;
    crate::forks::suspect(learner.index, &learner.learned.forked)?;
    learner.note_refused()?;
    learner.note_tips()?;
    places::note_learned(learner.index, &before, &learner.told)?;
    let (members, mut learned) = (learner.members, learner.learned);
    learned.lacking = keys.adopt(&members).err().map(|Lacking(key)| key);
    Ok(learned)
}

struct Learner<'a> {
    index: &'a mut Index,
    store: &'a dyn Store,
    keys: &'a mut Keys,
    place: &'a str,
    observer: &'a mut dyn Observer,
    own_device: DeviceId,
    members: Members,
    garbage: Garbage,
    waiting: Waiting,
    /// Packets that came with tips, until they are folded.
    from_tips: BTreeSet<Dot>,
    /// The sealed form of what waits.
    sealed: HashMap<PacketHash, SealedPacket>,
    /// Counters to read from each lane.
    lanes: BTreeMap<DeviceId, VecDeque<Counter>>,
    /// Removals that wait, so that what they cut off is not folded before them.
    cuts: Vec<PendingCut>,
    /// Packets that were refused or cannot be read, and how often: a carrier may come for one that was refused once.
    /// Devices that nobody will ever know, see [`passed_over`].
    passed_over: BTreeSet<DeviceId>,
    /// Lanes that others refuse, see [`crate::refusals`].
    given_up: refusals::Lanes,
    /// Lanes that were refused, each from the first packet that was.
    outside: refusals::Lanes,
    /// Devices whose introduction came late.
    late: BTreeSet<DeviceId>,
    refused: BTreeMap<Dot, u32>,
    /// The tips that were read: device, etag, sequence and last counter.
    tips_read: Vec<(DeviceId, String, u64, Counter)>,
    /// Whether a packet could not be read.
    stuck: bool,
    /// Whether there are packets of this device's own lane that it does not know, as others say.
    is_ahead: bool,
    /// Whether others have folded another packet of this device's own lane than it made: somebody else has its key.
    is_copied: bool,
    /// What these tips say that their devices have learned.
    named: Knowledge,
    /// The same, tip by tip: of a fork two may tell of different sides.
    told: Vec<Knowledge>,
    /// Lanes of which another side was folded before.
    parted: BTreeMap<DeviceId, Counter>,
    /// The checkpoints that these tips name.
    checkpoints: BTreeSet<CheckpointRef>,
    /// What lanes show of packets that lie before the checkpoint from which this replica began.
    shown: BTreeMap<Dot, Option<(PacketHash, Lamport)>>,
    learned: Learned,
}

impl Learner<'_> {
    fn tips(&mut self, listing: &[Listed]) -> Result<(), SyncError> {
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
    fn locked_tips(
        &mut self,
        mut locked: Vec<(DeviceId, &Listed)>,
        seen: &HashMap<DeviceId, (String, u64)>,
    ) -> Result<(), SyncError> {
        let mut marker_read = false;
        while !locked.is_empty() {
            if !self.read_ahead(&locked)? {
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
    fn open_tips<'l>(
        &mut self,
        tips: Vec<(DeviceId, &'l Listed)>,
        seen: &HashMap<DeviceId, (String, u64)>,
    ) -> Result<Vec<(DeviceId, &'l Listed)>, SyncError> {
        let mut locked = Vec::new();
        for (device, listed) in tips {
            match self.tip(device, seen.get(&device).map_or(0, |(_, sequence)| *sequence)) {
                Ok((sequence, last, size)) => {
                    self.index.clear_problem("tip", listed.name.as_str().as_bytes())?;
                    // A size encodes a tip's number. Another one than listed was read from before or after the listing:
                    // it must be read again, or the listed one would never be.
                    let etag = if size == listed.size { listed.etag.clone() } else { String::new() };
                    self.tips_read.push((device, etag, sequence, last));
                }
                Err(LearnError::Locked(_)) => locked.push((device, listed)),
                Err(LearnError::Unusable(reason)) => {
                    // Who was removed writes no other: nobody need be told of it in every round.
                    match self.members.standing(&device) {
                        Standing::Active => self.unusable("tip", &listed.name, reason)?,
                        _ => self.index.clear_problem("tip", listed.name.as_str().as_bytes())?,
                    }
                    self.rest_of_lane(device)?;
                }
                Err(LearnError::Sync(error)) => return Err(error),
            }
        }
        Ok(locked)
    }

    /// Looks on in the lanes of which this replica gave up a side for another, until that is folded: it may be that no tip
    /// tells of it, as where its device was killed before it wrote one.
    fn lanes_that_parted(&mut self) -> Result<(), SyncError> {
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
    fn lanes_once_known(&mut self) -> Result<(), SyncError> {
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
    fn rest_of_lane(&mut self, device: DeviceId) -> Result<(), SyncError> {
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

    /// Reads the tips again that did not open, by the keys that came with what was folded since.
    fn unlock(&mut self, listing: &[Listed]) -> Result<(), SyncError> {
        let again = std::mem::take(&mut self.learned.locked);
        let locked = listing.iter().filter_map(|listed| Some((Tip::device_of(&listed.name)?, listed)));
        let locked = locked.filter(|(device, _)| again.contains(device)).collect();
        let seen = self.index.tip_etags(self.place)?;
        let locked = self.open_tips(locked, &seen)?;
        self.locked_tips(locked, &seen)
    }

    /// Tells of tips that did not open, unless this device is told better why: it was revoked.
    fn report_locked(&mut self) -> Result<(), SyncError> {
        if self.members.standing(&self.own_device).is_revoked() {
            return Ok(());
        }
        for device in self.learned.locked.clone() {
            self.unusable("tip", &Tip::name(&device), LOCKED.to_owned())?;
        }
        Ok(())
    }

    /// Reads and holds packets of lanes beyond what is folded until one brings a key, or none can be had; says which.
    fn read_ahead(&mut self, locked: &[(DeviceId, &Listed)]) -> Result<bool, SyncError> {
        let before = self.keys.ring.roots().count();
        let missing = self.learned.missing;
        for (device, _) in locked {
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
    fn lanes_told_of(&mut self) {
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

    /// Notes the lanes of which tips tell other packets than were folded, as late as what these tips brought is folded too:
    /// whoever begins has nothing to compare before.
    fn forks_told_of(&mut self) -> Result<(), SyncError> {
        for (device, there) in self.told.iter().flat_map(Knowledge::iter) {
            if crate::forks::differs(self.index, device, there.counter, there.hash)? {
                self.learned.forked.insert(*device);
            }
        }
        Ok(())
    }

    /// Begins from a checkpoint where nothing was folded yet.
    fn checkpoints(&mut self) -> Result<(), SyncError> {
        let damaged = &mut self.learned.damaged;
        if crate::checkpoints::begin(self.index, self.store, self.keys, &self.checkpoints, damaged, self.observer)? {
            self.members = crate::members::load(self.index)?;
            self.garbage = crate::garbage::load(self.index)?;
        }
        crate::checkpoints::note_seen(self.index, &self.checkpoints)
    }

    /// Notes which tips need not be read again: not those that lead to packets which may yet come.
    fn note_tips(&mut self) -> Result<(), SyncError> {
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
    fn is_tip_as_written(&self, listed: &Listed) -> Result<bool, SyncError> {
        let written = self.index.meta(OWN_TIP_SIZE)?;
        Ok(written.is_some_and(|size| size == listed.size.to_le_bytes()))
    }

    /// Reads a tip; returns its sequence, or the one seen before where that was later, its last counter and its size.
    fn tip(&mut self, device: DeviceId, seen: u64) -> Result<(u64, Counter, u64), LearnError> {
        let bytes = unusable(self.store.get(&Tip::name(&device), MAX_TIP_BYTES as u64))?;
        let size = bytes.len() as u64;
        let verified = UnverifiedTip::parse(bytes).and_then(|tip| tip.verify(&device));
        if verified.is_err() && device == self.own_device {
            // Nobody can read it, and nobody else can write it.
            self.learned.own = OwnLane::Behind;
        }
        let sealed = verified.map_err(described)?;
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
    fn hear_of_own(&mut self, from: DeviceId, there: knowledge::Learned) -> Result<(), LearnError> {
        let differs = crate::forks::differs(self.index, &self.own_device, there.counter, there.hash)?;
        self.is_copied |= differs && !self.members.standing(&from).is_revoked();
        let known = self.index.knowledge().counter(&self.own_device);
        if known > 0 && there.counter > known && !self.is_ahead {
            let dot = Dot { device: self.own_device, counter: there.counter };
            self.is_ahead = standing(self.store, &dot)?.is_some_and(|found| found.hash() == there.hash);
        }
        Ok(())
    }

    /// Opens a packet and keeps it until it can be folded; whether there was room.
    fn hold(&mut self, sealed: SealedPacket) -> Result<bool, LearnError> {
        let packet = sealed.open(&self.keys.ring).map_err(|error| match error {
            PacketError::Seal(_) => LearnError::Locked(error.to_string()),
            error => described(error),
        })?;
        if self.keys.take_from(&packet, &self.members) {
            crate::vault::store_keys(self.index, self.keys)?;
        }
        let size = sealed.bytes().len() * 4;
        let hash = packet.hash;
        let cuts = if self.is_given_up(&packet.dot) { Vec::new() } else { PendingCut::of(&packet) };
        if self.waiting.insert(packet, size) == Buffered::Full {
            return Ok(false);
        }
        self.sealed.insert(hash, sealed);
        self.cuts.extend(cuts);
        Ok(true)
    }

    /// Reads lanes and folds until nothing more can be.
    fn lanes(&mut self) -> Result<(), SyncError> {
        self.fold_ready()?;
        loop {
            let mut progress = false;
            let devices: Vec<DeviceId> = self.lanes.keys().copied().collect();
            for device in devices {
                // The more of a lane was folded, the more of it is read in one go, and nothing beyond what waits.
                let mut length = 1;
                loop {
                    let run = self.read_run(device, length)?;
                    progress |= run.last.is_some();
                    self.fold_ready()?;
                    if self.observer.interrupted() {
                        return Err(SyncError::Interrupted);
                    }
                    let folded = self.index.knowledge().counter(&device);
                    if run.is_end || run.last.is_none_or(|last| folded < last) {
                        break;
                    }
                    length = if self.members.standing(&device).is_revoked() { 1 } else { RUN_PACKETS.min(length * 2) };
                }
            }
            for (device, counters) in self.waiting.missing(self.index.knowledge()) {
                let mut wanted = self.lanes.remove(&device).unwrap_or_default();
                for counter in counters {
                    let dot = Dot { device, counter };
                    let refused = self.refused.get(&dot).copied().unwrap_or(0);
                    let hopeless = refused >= HOPELESS || (refused > 0 && !self.carries(&dot, Carriers::Newcomers));
                    if !hopeless && !wanted.contains(&counter) && wanted.len() < MAX_WANTED {
                        wanted.push_back(counter);
                        progress = true;
                    }
                }
                wanted.make_contiguous().sort_unstable();
                self.lanes.insert(device, wanted);
            }
            if !progress && !self.look_into_lanes() {
                if self.cuts.is_empty() {
                    return Ok(());
                }
                // A removal that cannot be folded now holds nothing back for ever: nobody could tell when it will be.
                self.cuts.clear();
                self.fold_ready()?;
            }
        }
    }

    /// Asks lanes for what came with tips and could not be folded: of a fork the lane may show the other side by now.
    fn look_into_lanes(&mut self) -> bool {
        let mut is_asked = false;
        let knowledge = self.index.knowledge();
        self.from_tips.retain(|dot| {
            let is_next = dot.counter == knowledge.counter(&dot.device) + 1;
            if is_next {
                self.lanes.entry(dot.device).or_default().push_front(dot.counter);
                is_asked = true;
            }
            !is_next && !knowledge.contains(dot)
        });
        is_asked
    }

    /// Reads and holds the next packets of a lane, at most `length`, to be folded in one go.
    fn read_run(&mut self, device: DeviceId, length: usize) -> Result<Run, SyncError> {
        let (mut run, mut count) = (Run { last: None, is_end: false }, 0);
        let held_before = self.waiting.bytes();
        while count < length && self.waiting.bytes().saturating_sub(held_before) < RUN_BYTES {
            let Some(counter) = self.lanes.get_mut(&device).and_then(VecDeque::pop_front) else {
                run.is_end = true;
                break;
            };
            match self.read(device, counter) {
                Ok(true) => {
                    run.last = Some(counter);
                    count += 1;
                    continue;
                }
                Ok(false) => self.lanes.entry(device).or_default().push_front(counter),
                // It is whole, and opens once its key is here.
                Err(LearnError::Locked(reason)) => self.give_up(device, counter, reason)?,
                Err(LearnError::Unusable(reason)) => {
                    self.learned.damaged.insert(Wanted::Packet(Dot { device, counter }));
                    self.give_up(device, counter, reason)?;
                }
                Err(LearnError::Sync(error)) => return Err(error),
            }
            run.is_end = true;
            break;
        }
        Ok(run)
    }

    fn read(&mut self, device: DeviceId, counter: Counter) -> Result<bool, LearnError> {
        let dot = Dot { device, counter };
        if self.index.knowledge().contains(&dot) {
            return Ok(true);
        }
        let bytes = match self.store.get(&packet_name(&dot), MAX_PACKET_BYTES as u64) {
            Err(error @ StoreError::Missing { .. }) => {
                self.learned.missing = true;
                return Err(described(error));
            }
            bytes => unusable(bytes)?,
        };
        let sealed = SealedPacket::from_bytes(bytes).map_err(described)?;
        if sealed.dot() != dot {
            return Err(LearnError::Unusable("it holds another packet".to_owned()));
        }
        self.hold(sealed)
    }

    /// Folds what can be, in order, but nothing that a removal which waits would cut off.
    fn fold_ready(&mut self) -> Result<(), SyncError> {
        let mut put_off = Vec::new();
        let mut folded = 0;
        self.index.begin()?;
        loop {
            let Some(packet) = self.waiting.ready(self.index.knowledge()) else {
                // What was put off comes again once a removal is folded, and else in a later call.
                let ripe = put_off.iter().any(|packet| !self.is_put_off(packet));
                let retry = std::mem::take(&mut put_off);
                for packet in retry {
                    self.wait_again(packet);
                }
                if ripe { continue } else { break }
            };
            if self.is_put_off(&packet) {
                put_off.push(packet);
                continue;
            }
            self.cuts.retain(|cut| cut.by != packet.dot);
            let sealed = self.sealed.remove(&packet.hash).expect("what waits is kept sealed too");
            let admission = match self.is_passed_over(&packet) {
                true => Admission::Refused(Refusal::Late),
                false => {
                    self.look_up_older(&packet)?;
                    match (self.admit(&packet)?, self.of_other_history(&packet)?) {
                        (Admission::Fold { .. }, Some(at)) => Admission::Refused(Refusal::OtherHistory { at }),
                        (admission, _) => admission,
                    }
                }
            };
            match admission {
                Admission::Fold { prerequisite } => {
                    if packet.dot.device == self.own_device {
                        self.learned.own = OwnLane::Ahead;
                    }
                    record_folded(self.index, &self.keys.ring, &sealed, &packet, &prerequisite, Folding::Other)?;
                    if garbage::concerns(&packet) {
                        self.garbage = crate::garbage::load(self.index)?;
                    }
                    if crate::members::concerns(&packet) {
                        self.members = crate::members::load(self.index)?;
                        if self.keys.take_from(&packet, &self.members) {
                            crate::vault::store_keys(self.index, self.keys)?;
                        }
                    }
                    self.index.clear_problem("packet", packet_name(&packet.dot).as_str().as_bytes())?;
                    self.index.clear_problem(REFUSED, packet_name(&packet.dot).as_str().as_bytes())?;
                    folded += 1;
                }
                Admission::Known => {}
                Admission::Fork { .. } => {
                    // It stays what it is however often it is read.
                    self.refused.insert(packet.dot, HOPELESS);
                    match packet.dot.device == self.own_device {
                        true => self.learned.own = OwnLane::Forked,
                        false => drop(self.learned.forked.insert(packet.dot.device)),
                    }
                }
                Admission::Wait { .. } => {
                    self.sealed.insert(packet.hash, sealed);
                    self.wait_again(packet);
                    break;
                }
                // Its device finds out by itself, and joins anew.
                Admission::Refused(Refusal::Late) if self.is_given_up(&packet.dot) => self.refuse(packet.dot),
                Admission::Refused(Refusal::Late) => {
                    *self.refused.entry(packet.dot).or_default() += 1;
                    self.late.insert(packet.dot.device);
                }
                Admission::Refused(refusal) => {
                    match refusal {
                        Refusal::Retired { .. } | Refusal::Revoked { .. } | Refusal::Outdated { .. } => {
                            self.refuse(packet.dot);
                        }
                        _ => *self.refused.entry(packet.dot).or_default() += 1,
                    }
                    if let Refusal::OtherHistory { at } = refusal {
                        self.is_copied |= at.device == self.own_device;
                        self.learned.forked.insert(at.device);
                    }
                    self.note_overruled(&packet);
                    self.problem(REFUSED, packet_name(&packet.dot).as_str(), &refusal.to_string())?;
                }
            }
        }
        for packet in put_off {
            self.wait_again(packet);
        }
        self.index.commit()?;
        self.learned.packets += folded;
        self.observer.advance(folded, 0);
        Ok(())
    }

    /// Notes that a packet counts for nobody who knows what is known here.
    fn refuse(&mut self, dot: Dot) {
        *self.refused.entry(dot).or_default() += 1;
        let first = self.outside.entry(dot.device).or_insert(dot.counter);
        *first = dot.counter.min(*first);
    }

    /// Notes which lanes are refused, and which wait for those.
    fn note_refused(&mut self) -> Result<(), SyncError> {
        let mut lanes = refusals::own(self.index)?;
        lanes.append(&mut self.outside);
        for device in refusals::late(self.index, &self.late)? {
            lanes.insert(device, 1);
        }
        if lanes.is_empty() {
            return Ok(());
        }
        self.waiting.add_those_who_wait_for(&mut lanes, self.index.knowledge());
        lanes.retain(|device, from| self.garbage.ended().counter(device) < *from);
        refusals::set_own(self.index, lanes)
    }

    /// Keeps a packet that came out of the buffer, where there is still room for it.
    fn wait_again(&mut self, packet: Packet) {
        let hash = packet.hash;
        let Some(size) = self.sealed.get(&hash).map(|sealed| sealed.bytes().len() * 4) else { return };
        if self.waiting.insert(packet, size) == Buffered::Full {
            self.sealed.remove(&hash);
        }
    }

    /// Whether a removal that waits would cut a packet off. Of two that remove each other the earlier is not put off.
    fn is_put_off(&self, packet: &Packet) -> bool {
        let place = (packet.body.lamport, packet.dot.device);
        let removes = !PendingCut::of(packet).is_empty();
        self.cuts.iter().any(|cut| {
            let concerns = cut.device == packet.dot.device && cut.cut < packet.dot.counter && cut.by != packet.dot;
            concerns && !(removes && place < cut.place) && !self.index.knowledge().contains(&cut.by)
        })
    }

    /// Whether a packet is of a lane that was given up, or of a device that was found to be passed over, and that no member
    /// carries.
    fn is_passed_over(&self, packet: &Packet) -> bool {
        (self.is_given_up(&packet.dot) || self.passed_over.contains(&packet.dot.device))
            && !self.carries(&packet.dot, Carriers::Members)
    }

    fn is_given_up(&self, dot: &Dot) -> bool {
        self.given_up.get(&dot.device).is_some_and(|from| *from <= dot.counter)
    }

    /// Whether a packet that waits, of one who may, carries this one.
    fn carries(&self, dot: &Dot, carriers: Carriers) -> bool {
        self.waiting.carries(dot, carriers, &self.members, &self.garbage, |carrier| self.is_given_up(carrier))
    }

    /// Notes a refused packet by which another device, whom this one revoked, revoked this one earlier in total order.
    fn note_overruled(&mut self, packet: &Packet) {
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
    fn look_up_older(&mut self, packet: &Packet) -> Result<(), SyncError> {
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
    fn is_named_otherwise(&self, dot: &Dot, hash: PacketHash) -> Result<bool, SyncError> {
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
    fn of_other_history(&self, packet: &Packet) -> Result<Option<Dot>, SyncError> {
        for (device, named) in packet.body.prerequisite.iter() {
            if crate::forks::differs(self.index, device, named.counter, named.hash)? {
                return Ok(Some(Dot { device: *device, counter: named.counter }));
            }
        }
        Ok(None)
    }

    fn admit(&self, packet: &Packet) -> Result<Admission, SyncError> {
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

    /// Reads no further in a lane, whose next packet cannot be used now.
    fn give_up(&mut self, device: DeviceId, counter: Counter, reason: String) -> Result<(), SyncError> {
        let dot = Dot { device, counter };
        self.stuck = true;
        self.refused.insert(dot, HOPELESS);
        self.lanes.remove(&device);
        self.unusable("packet", &packet_name(&dot), reason)
    }

    fn unusable(&mut self, what: &str, name: &ObjectName, reason: String) -> Result<(), SyncError> {
        self.problem(what, name.as_str(), &reason)
    }

    fn problem(&mut self, kind: &str, subject: &str, text: &str) -> Result<(), SyncError> {
        self.index.set_problem(kind, subject.as_bytes(), text)?;
        self.observer.note(Note::Warning { text: format!("{subject}: {text}") });
        Ok(())
    }
}

/// The counter of the packet that an object of a lane is named for.
fn counter_of(name: &str) -> Option<Counter> {
    name.rsplit_once('/')?.1.parse().ok()
}

/// What was read of a lane in one go.
struct Run {
    /// The last packet that was read.
    last: Option<Counter>,
    /// Whether nothing more of the lane can be read now.
    is_end: bool,
}

/// A removal that was read and is not folded yet.
struct PendingCut {
    device: DeviceId,
    cut: Counter,
    by: Dot,
    place: (Lamport, DeviceId),
}

impl PendingCut {
    fn of(packet: &Packet) -> Vec<Self> {
        let (by, place) = (packet.dot, (packet.body.lamport, packet.dot.device));
        let removal = |change: &Change| match change {
            Change::Revoke { device, cut, .. } | Change::Retire { device, cut } => {
                Some(Self { device: *device, cut: *cut, by, place })
            }
            _ => None,
        };
        packet.body.changes.iter().filter_map(removal).collect()
    }
}

pub(crate) enum LearnError {
    /// This object is of no use; others may be.
    Unusable(String),
    /// It is its author's, and sealed under a key that is not held here.
    Locked(String),
    Sync(SyncError),
}

impl From<packetboat_replica::index::IndexError> for LearnError {
    fn from(error: packetboat_replica::index::IndexError) -> Self {
        LearnError::Sync(error.into())
    }
}

impl From<SyncError> for LearnError {
    fn from(error: SyncError) -> Self {
        LearnError::Sync(error)
    }
}

pub(crate) fn described(error: impl std::error::Error) -> LearnError {
    LearnError::Unusable(crate::error::chain(&error))
}

/// An object that is not there, or not as it should be, stops nothing; a storage that fails does.
pub(crate) fn unusable<T>(result: Result<T, StoreError>) -> Result<T, LearnError> {
    result.map_err(|error| match error {
        StoreError::Missing { .. } | StoreError::TooLarge { .. } | StoreError::Short { .. } => described(error),
        error => LearnError::Sync(error.into()),
    })
}

/// The names of the packets of a device that the intermediary lists.
pub(crate) fn packets_present(store: &dyn Store, device: &DeviceId) -> Result<HashSet<ObjectName>, StoreError> {
    Ok(store.list(&format!("lanes/{device}"))?.into_iter().map(|listed| listed.name).collect())
}

/// The numbers of the packets of a device that the intermediary lists.
pub(crate) fn counters_present(store: &dyn Store, device: &DeviceId) -> Result<BTreeSet<Counter>, StoreError> {
    Ok(packets_present(store, device)?.iter().filter_map(|name| counter_of(name.as_str())).collect())
}

/// The name of a packet at an intermediary.
pub fn packet_name(dot: &Dot) -> ObjectName {
    ObjectName::new(format!("lanes/{}/{}", dot.device, dot.counter)).expect("hexadecimal and decimal digits")
}

/// Where the index keeps the size of the tip that this device wrote last.
pub(crate) const OWN_TIP_SIZE: &str = "own tip size";
/// The kind of problem under which the index keeps packets that were refused.
const REFUSED: &str = "refused packet";
/// So often refused, a packet is not asked for again in this round.
const HOPELESS: u32 = 2;
const LOCKED: &str = "it is sealed under a key of the vault that this device was not given";
const WAITING_BYTES: usize = 256 * 1024 * 1024;
const MAX_WANTED: usize = 100_000;
/// So many packets of a lane are read at most before they are folded: with more, waiting for the disk is no matter.
const RUN_PACKETS: usize = 64;
/// Less where they are large; what they count for while they wait, in bytes.
const RUN_BYTES: usize = 16 * 1024 * 1024;

#[cfg(test)]
mod tests;
