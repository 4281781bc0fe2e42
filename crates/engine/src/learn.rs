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

mod admit;
mod cut_off;
pub(crate) mod passed_over;
pub(crate) mod problems;
mod tips;

use std::collections::{BTreeMap, BTreeSet, HashMap, HashSet, VecDeque};

use packetboat_core::change::Change;
use packetboat_core::checkpoint::CheckpointRef;
use packetboat_core::garbage::{self, Garbage};
use packetboat_core::ids::{Counter, DeviceId, Dot, Lamport, PacketHash};
use packetboat_core::knowledge::Knowledge;
use packetboat_core::lane::{Admission, Buffered, Carriers, Refusal, Waiting};
use packetboat_core::members::{EpochKey, Members};
use packetboat_core::packet::{LANES_FOLDER, MAX_PACKET_BYTES, Packet, PacketError, SealedPacket};
use packetboat_core::store::{ObjectName, Store, StoreError};
use packetboat_core::tree::Folding;
use packetboat_core::wanted::Wanted;
use packetboat_replica::index::Index;

use crate::Keys;
use crate::builder::record_folded;
use crate::epochs::Lacking;
use crate::error::SyncError;
use crate::places;
use crate::ports::{Note, Observer};
use crate::refusals;
use problems::{PACKET, REFUSED};
use tips::BadTip;

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
    /// Whether others have published and nothing of it could be folded: what is shown here is not what the vault holds.
    pub(crate) is_unreadable: bool,
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
        unread: Vec::new(),
        passed_over: passed_over::of(index, keys.device.device())?,
        given_up: refusals::given_up(index)?,
        outside: refusals::Lanes::new(),
        late: refusals::Lanes::new(),
        refusals: BTreeMap::new(),
        tips_read: Vec::new(),
        bad_tips: BTreeMap::new(),
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
    // Who was revoked seals under a key that nobody else is to have.
    let is_asked_for = |device: &DeviceId| !learner.members.standing(device).is_revoked();
    if is_asked_for(&learner.own_device) && learner.learned.locked.iter().any(is_asked_for) {
        learner.read_ahead_in_all_lanes()?;
        learner.lanes()?;
    }
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
    learner.tell_of_bad_tips()?;
    learner.tell_of_refusals()?;
    learner.tell_of_unread()?;
    learner.forget_problems_of_packets()?;
    learner.learned.is_cut_off = learner.is_cut_off()?;
    crate::forks::suspect(learner.index, &learner.learned.forked)?;
    learner.note_refused()?;
    learner.note_whether_it_is_readable()?;
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
    /// Devices that nobody will ever know, see [`passed_over`].
    passed_over: BTreeSet<DeviceId>,
    /// Lanes that others refuse, see [`crate::refusals`].
    given_up: refusals::Lanes,
    /// Lanes that were refused, each from the first packet that was.
    outside: refusals::Lanes,
    /// Lanes that were refused and may not be for long, each from the first packet that was.
    late: refusals::Lanes,
    /// Why packets were refused of which the user may have to be told.
    refusals: BTreeMap<Dot, Refusal>,
    /// Packets that were refused or cannot be read, and how often: a carrier may come for one that was refused once.
    refused: BTreeMap<Dot, u32>,
    /// Packets that could not be read, and why.
    unread: Vec<(Dot, String)>,
    /// The tips that were read: device, etag, sequence and last counter.
    tips_read: Vec<(DeviceId, String, u64, Counter)>,
    /// The tips that are of no use.
    bad_tips: BTreeMap<DeviceId, BadTip>,
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
                Err(LearnError::Locked(reason)) => self.give_up(device, counter, reason),
                Err(LearnError::Unusable(reason)) => {
                    self.learned.damaged.insert(Wanted::Packet(Dot { device, counter }));
                    self.give_up(device, counter, reason);
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
                    self.index.clear_problem(PACKET, packet_name(&packet.dot).as_str().as_bytes())?;
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
                Admission::Refused(refusal @ Refusal::Late) => self.note_refusal(packet.dot, &refusal),
                Admission::Refused(refusal) => {
                    self.note_refusal(packet.dot, &refusal);
                    if let Refusal::OtherHistory { at } = &refusal {
                        self.is_copied |= at.device == self.own_device;
                        self.learned.forked.insert(at.device);
                    }
                    self.note_overruled(&packet);
                    self.refusals.insert(packet.dot, refusal);
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

    /// Keeps a packet that came out of the buffer, where there is still room for it.
    fn wait_again(&mut self, packet: Packet) {
        let hash = packet.hash;
        let Some(size) = self.sealed.get(&hash).map(|sealed| sealed.bytes().len() * 4) else { return };
        if self.waiting.insert(packet, size) == Buffered::Full {
            self.sealed.remove(&hash);
        }
    }

    /// Notes that nothing of what others published can be folded here, as where the checkpoint is lost at which history begins.
    ///
    /// The vault would look empty else, and be told to be in step.
    fn note_whether_it_is_readable(&mut self) -> Result<(), SyncError> {
        let was_unreadable = self.index.has_problem(UNREADABLE)?;
        if self.index.knowledge().tells_of_others(&self.own_device) {
            if was_unreadable {
                self.index.clear_problem(UNREADABLE, VAULT)?;
            }
        } else if was_unreadable || self.named.tells_of_others(&self.own_device) {
            self.learned.is_unreadable = true;
            if !was_unreadable {
                self.index.set_problem(UNREADABLE, VAULT, UNREADABLE_TEXT)?;
                self.observer.note(Note::Warning { text: UNREADABLE_TEXT.to_owned() });
            }
        }
        Ok(())
    }

    /// Reads no further in a lane, whose next packet cannot be used now.
    fn give_up(&mut self, device: DeviceId, counter: Counter, reason: String) {
        let dot = Dot { device, counter };
        self.stuck = true;
        self.refused.insert(dot, HOPELESS);
        self.lanes.remove(&device);
        self.unread.push((dot, reason));
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
    Ok(store.list(&format!("{LANES_FOLDER}/{device}"))?.into_iter().map(|listed| listed.name).collect())
}

/// The numbers of the packets of a device that the intermediary lists.
pub(crate) fn counters_present(store: &dyn Store, device: &DeviceId) -> Result<BTreeSet<Counter>, StoreError> {
    Ok(packets_present(store, device)?.iter().filter_map(|name| counter_of(name.as_str())).collect())
}

/// The name of a packet at an intermediary.
pub fn packet_name(dot: &Dot) -> ObjectName {
    ObjectName::new(format!("{LANES_FOLDER}/{}/{}", dot.device, dot.counter)).expect("hexadecimal and decimal digits")
}

/// Where the index keeps the size of the tip that this device wrote last.
pub(crate) const OWN_TIP_SIZE: &str = "own tip size";
/// The kind of problem under which the index keeps tips that are of no use.
pub(crate) const TIP: &str = "tip";
/// So often refused, a packet is not asked for again in this round.
const HOPELESS: u32 = 2;
const LOCKED: &str = "it is sealed under a key of the vault that this device was not given";
const WAITING_BYTES: usize = 256 * 1024 * 1024;
const MAX_WANTED: usize = 100_000;
/// So many packets of a lane are read at most before they are folded: with more, waiting for the disk is no matter.
const RUN_PACKETS: usize = 64;
/// Less where they are large; what they count for while they wait, in bytes.
const RUN_BYTES: usize = 16 * 1024 * 1024;

/// The problem of a vault of which nothing can be folded.
const UNREADABLE: &str = "vault";
const VAULT: &[u8] = b"the vault";
const UNREADABLE_TEXT: &str = "other devices have published, and nothing of it can be read: the checkpoint at which \
                               history begins is missing or damaged. The next `packetboat sync` of another device writes \
                               one";

#[cfg(test)]
mod tests;
