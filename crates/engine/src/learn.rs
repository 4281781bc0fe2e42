//! Learning: from the tips at the intermediary to folded packets.
//!
//! One listing of `tips/` tells which devices have moved on. Of these the tip is read; what it does not carry itself is
//! read from the lane. A lane is read on only while its packets can be folded, so little waits in memory.
//! What cannot be read or does not fit is reported and left; everything else goes on.

use std::collections::{BTreeMap, BTreeSet, HashMap, VecDeque};

use packetboat_core::checkpoint::CheckpointRef;
use packetboat_core::ids::{Counter, DeviceId, Dot, PacketHash};
use packetboat_core::knowledge::Knowledge;
use packetboat_core::lane::{Admission, Buffered, LaneEnd, Lanes, Waiting};
use packetboat_core::members::Members;
use packetboat_core::packet::{MAX_PACKET_BYTES, Packet, SealedPacket};
use packetboat_core::store::{Listed, ObjectName, Store, StoreError};
use packetboat_core::tip::{MAX_TIP_BYTES, Tip, UnverifiedTip};
use packetboat_core::tree::Folding;
use packetboat_core::wanted::Wanted;
use packetboat_replica::index::Index;

use crate::Keys;
use crate::builder::record_folded;
use crate::error::SyncError;
use crate::ports::{Note, Observer};

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
}

/// What the intermediary shows of this device's own lane.
#[derive(Clone, Copy, PartialEq, Eq, Default, Debug)]
pub(crate) enum OwnLane {
    /// Its tip is the one last written.
    #[default]
    AsLeft,
    /// Its tip is missing or older: it is to be written again.
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
    keys: &Keys,
    place: &str,
    observer: &mut dyn Observer,
) -> Result<Learned, SyncError> {
    crate::checkpoints::start_over_if_cut_short(index)?;
    let listing = store.list("tips")?;
    let mut learner = Learner {
        own_device: keys.device.device(),
        members: crate::members::load(index)?,
        waiting: Waiting::new(WAITING_BYTES),
        sealed: HashMap::new(),
        lanes: BTreeMap::new(),
        tips_read: Vec::new(),
        stuck: false,
        named: Knowledge::new(),
        checkpoints: BTreeSet::new(),
        learned: Learned::default(),
        index,
        store,
        keys,
        place,
        observer,
    };
    learner.tips(&listing)?;
    learner.checkpoints()?;
    learner.lanes()?;
    learner.note_tips()?;
    Ok(learner.learned)
}

struct Learner<'a> {
    index: &'a mut Index,
    store: &'a dyn Store,
    keys: &'a Keys,
    place: &'a str,
    observer: &'a mut dyn Observer,
    own_device: DeviceId,
    members: Members,
    waiting: Waiting,
    /// The sealed form of what waits.
    sealed: HashMap<PacketHash, SealedPacket>,
    /// Counters to read from each lane.
    lanes: BTreeMap<DeviceId, VecDeque<Counter>>,
    /// The tips that were read: device, etag, sequence and last counter.
    tips_read: Vec<(DeviceId, String, u64, Counter)>,
    /// Whether a packet could not be read.
    stuck: bool,
    /// What these tips say that their devices have learned.
    named: Knowledge,
    /// The checkpoints that these tips name.
    checkpoints: BTreeSet<CheckpointRef>,
    learned: Learned,
}

impl Learner<'_> {
    fn tips(&mut self, listing: &[Listed]) -> Result<(), SyncError> {
        let seen = self.index.tip_etags(self.place)?;
        let mut own_listed = false;
        for listed in listing {
            let Some(device) = Tip::device_of(&listed.name) else { continue };
            let known = seen.get(&device);
            if known.is_some_and(|(etag, _)| *etag == listed.etag) {
                own_listed |= device == self.own_device;
                continue;
            }
            if device == self.own_device && self.is_tip_as_written(listed)? {
                own_listed = true;
                let sequence = known.map_or(0, |(_, sequence)| *sequence);
                self.index.set_tip_etag(self.place, device, &listed.etag, sequence)?;
                continue;
            }
            match self.tip(device, known.map_or(0, |(_, sequence)| *sequence)) {
                Ok((sequence, last, size)) => {
                    self.index.clear_problem("tip", listed.name.as_str().as_bytes())?;
                    // A size encodes a tip's number. Another one than listed was read from before or after the listing:
                    // it must be read again, or the listed one would never be.
                    let etag = if size == listed.size { listed.etag.clone() } else { String::new() };
                    self.tips_read.push((device, etag, sequence, last));
                }
                Err(LearnError::Unusable(reason)) => self.unusable("tip", &listed.name, reason)?,
                Err(LearnError::Sync(error)) => return Err(error),
            }
            own_listed |= device == self.own_device;
        }
        self.lanes_without_tip(listing);
        if !own_listed && self.index.knowledge().counter(&self.own_device) > 0 {
            self.learned.own = OwnLane::Behind;
        }
        Ok(())
    }

    /// Looks on in lanes whose tips are gone, as far as others have learned them: their devices may never come again.
    fn lanes_without_tip(&mut self, listing: &[Listed]) {
        let listed: BTreeSet<DeviceId> = listing.iter().filter_map(|listed| Tip::device_of(&listed.name)).collect();
        for (device, learned) in self.named.iter() {
            let known = self.index.knowledge().counter(device);
            if *device != self.own_device && !listed.contains(device) && known < learned.counter {
                self.lanes.insert(*device, (known + 1..=learned.counter).take(MAX_WANTED).collect());
            }
        }
    }

    /// Begins from a checkpoint where nothing was folded yet.
    fn checkpoints(&mut self) -> Result<(), SyncError> {
        let damaged = &mut self.learned.damaged;
        if crate::checkpoints::begin(self.index, self.store, self.keys, &self.checkpoints, damaged, self.observer)? {
            self.members = crate::members::load(self.index)?;
        }
        crate::checkpoints::note_seen(self.index, &self.checkpoints)
    }

    /// Notes which tips need not be read again: not those that lead to packets which may yet come.
    fn note_tips(&mut self) -> Result<(), SyncError> {
        let nothing_to_come = !self.stuck && self.waiting.is_empty();
        for (device, etag, sequence, last) in std::mem::take(&mut self.tips_read) {
            if nothing_to_come || self.index.knowledge().counter(&device) >= last {
                self.index.set_tip_etag(self.place, device, &etag, sequence)?;
            }
        }
        Ok(())
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
        let sealed = UnverifiedTip::parse(bytes).and_then(|tip| tip.verify(&device)).map_err(described)?;
        let tip = sealed.open(&self.keys.ring).map_err(described)?;
        let known = self.index.knowledge().counter(&device);
        let last = tip.last.map_or(0, |last| last.counter);
        if device == self.own_device {
            self.learned.own = match last.cmp(&known) {
                std::cmp::Ordering::Greater => OwnLane::Ahead,
                std::cmp::Ordering::Less => OwnLane::Behind,
                std::cmp::Ordering::Equal => {
                    let same = self.index.knowledge().of(&device) == tip.last;
                    if same { OwnLane::AsLeft } else { OwnLane::Forked }
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
        }
        self.named.merge(&tip.learned);
        self.checkpoints.extend(tip.checkpoint);
        let mut wanted: VecDeque<Counter> = (known + 1..=last).collect();
        for bytes in tip.recent {
            let sealed = SealedPacket::from_bytes(bytes).map_err(described)?;
            let counter = sealed.dot().counter;
            if sealed.device() != device || counter <= known {
                continue;
            }
            if self.hold(sealed)? {
                wanted.retain(|wanted| *wanted != counter);
            }
        }
        self.lanes.insert(device, wanted);
        Ok((tip.sequence, last, size))
    }

    /// Opens a packet and keeps it until it can be folded; whether there was room.
    fn hold(&mut self, sealed: SealedPacket) -> Result<bool, LearnError> {
        let packet = sealed.open(&self.keys.ring).map_err(described)?;
        let size = sealed.bytes().len() * 4;
        let hash = packet.hash;
        if self.waiting.insert(packet, size) == Buffered::Full {
            return Ok(false);
        }
        self.sealed.insert(hash, sealed);
        Ok(true)
    }

    /// Reads lanes and folds until nothing more can be.
    fn lanes(&mut self) -> Result<(), SyncError> {
        self.fold_ready()?;
        loop {
            let mut progress = false;
            let devices: Vec<DeviceId> = self.lanes.keys().copied().collect();
            for device in devices {
                // One packet at a time and lane, and none beyond one that waits, so that little is held.
                while let Some(counter) = self.lanes.get_mut(&device).and_then(VecDeque::pop_front) {
                    match self.read(device, counter) {
                        Ok(true) => progress = true,
                        Ok(false) => {
                            self.lanes.get_mut(&device).expect("it was there").push_front(counter);
                            break;
                        }
                        Err(LearnError::Unusable(reason)) => {
                            self.stuck = true;
                            self.learned.damaged.insert(Wanted::Packet(Dot { device, counter }));
                            self.unusable("packet", &packet_name(&Dot { device, counter }), reason)?;
                            self.lanes.remove(&device);
                            break;
                        }
                        Err(LearnError::Sync(error)) => return Err(error),
                    }
                    self.fold_ready()?;
                    if self.observer.interrupted() {
                        return Err(SyncError::Interrupted);
                    }
                    if self.index.knowledge().counter(&device) < counter {
                        break;
                    }
                }
            }
            for (device, counters) in self.waiting.missing(self.index.knowledge()) {
                let wanted = self.lanes.entry(device).or_default();
                for counter in counters {
                    if !wanted.contains(&counter) && wanted.len() < MAX_WANTED {
                        wanted.push_back(counter);
                    }
                }
                wanted.make_contiguous().sort_unstable();
            }
            if !progress {
                return Ok(());
            }
        }
    }

    fn read(&mut self, device: DeviceId, counter: Counter) -> Result<bool, LearnError> {
        let dot = Dot { device, counter };
        if self.index.knowledge().contains(&dot) {
            return Ok(true);
        }
        let bytes = unusable(self.store.get(&packet_name(&dot), MAX_PACKET_BYTES as u64))?;
        let sealed = SealedPacket::from_bytes(bytes).map_err(described)?;
        if sealed.dot() != dot {
            return Err(LearnError::Unusable("it holds another packet".to_owned()));
        }
        self.hold(sealed)
    }

    fn fold_ready(&mut self) -> Result<(), SyncError> {
        let mut folded = 0;
        self.index.begin()?;
        while let Some(packet) = self.waiting.ready(self.index.knowledge()) {
            let sealed = self.sealed.remove(&packet.hash).expect("what waits is kept sealed too");
            match self.admit(&packet)? {
                Admission::Fold { prerequisite } => {
                    record_folded(self.index, &sealed, &packet, &prerequisite, Folding::Other)?;
                    self.members = crate::members::load(self.index)?;
                    self.index.clear_problem("packet", packet_name(&packet.dot).as_str().as_bytes())?;
                    folded += 1;
                }
                Admission::Known => {}
                Admission::Fork { .. } if packet.dot.device == self.own_device => self.learned.own = OwnLane::Forked,
                Admission::Fork { at, .. } => {
                    let text = format!("two packets claim to be {at}; this one is left aside");
                    self.problem("fork", packet_name(&packet.dot).as_str(), &text)?;
                }
                Admission::Wait { .. } => {
                    self.sealed.insert(packet.hash, sealed.clone());
                    if self.waiting.insert(packet, sealed.bytes().len() * 4) == Buffered::Full {
                        self.sealed.remove(&sealed.hash());
                    }
                    break;
                }
                Admission::Refused(refusal) => {
                    self.problem("refused packet", packet_name(&packet.dot).as_str(), &refusal.to_string())?;
                }
            }
        }
        self.index.commit()?;
        self.learned.packets += folded;
        self.observer.advance(folded, 0);
        Ok(())
    }

    fn admit(&self, packet: &Packet) -> Result<Admission, SyncError> {
        let device = packet.dot.device;
        let end = match self.index.lane_lamport(device)? {
            Some(lamport) => Some(LaneEnd { lamport, prerequisite: self.index.lane_prerequisite(device)? }),
            None => None,
        };
        let index = &*self.index;
        let packet_at = |device: &DeviceId, counter: Counter| {
            let row = index.packet_row(Dot { device: *device, counter }).ok().flatten();
            if let Some((hash, folded)) = row.and_then(|row| row.folded.map(|folded| (row.hash, folded))) {
                return Some((hash, folded.lamport));
            }
            // The last packet of a lane is known even where this replica began from a checkpoint.
            let learned = index.knowledge().of(device).filter(|learned| learned.counter == counter)?;
            Some((learned.hash, index.lane_lamport(*device).ok().flatten()?))
        };
        let carried = |dot: &Dot| self.waiting.carries(dot, &self.members);
        let lanes = Lanes {
            knowledge: index.knowledge(),
            end: end.as_ref(),
            members: &self.members,
            packet_at: &packet_at,
            carried: &carried,
        };
        Ok(lanes.admit(packet))
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

pub(crate) enum LearnError {
    /// This object is of no use; others may be.
    Unusable(String),
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

/// The name of a packet at an intermediary.
pub fn packet_name(dot: &Dot) -> ObjectName {
    ObjectName::new(format!("lanes/{}/{}", dot.device, dot.counter)).expect("hexadecimal and decimal digits")
}

/// Where the index keeps the size of the tip that this device wrote last.
pub(crate) const OWN_TIP_SIZE: &str = "own tip size";
const WAITING_BYTES: usize = 256 * 1024 * 1024;
const MAX_WANTED: usize = 100_000;
