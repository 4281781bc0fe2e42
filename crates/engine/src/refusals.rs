//! Lanes that some devices have folded and others never will, and who of them yields.
//!
//! Whether a packet of a removed device counts depends on what was folded before it ([`packetboat_core::lane`]). Where groups
//! of devices meet late, as at two places, one may have folded what the other refuses: what a device published that the
//! other group had retired, and had let history go without. Then whatever builds on that is refused too, and the two would
//! stay apart for ever.
//!
//! So each device says in its tip which lanes it has read and does not fold ([`packetboat_core::tip`]). Whoever finds its own
//! lane among those knows that it was heard and is refused; what it has folded of all those lanes is the reason. It *yields*:
//! it forgets what it folded, goes on as a new device that refuses the same, and publishes what differs on its disk whole, as
//! a device does that was retired while history was let go ([`crate::removals`]). What no disk shows is kept as where a lane
//! forked ([`crate::salvage`]).
//!
//! What it refuses itself of what the others have folded it can take over from a checkpoint alone, so whoever refuses a lane
//! writes one, and whoever is to yield waits for that.
//!
//! Where each of two refuses what the other has folded, the side stays that refuses the lane with the smallest id, their own
//! aside, so that both decide alike.

use std::collections::{BTreeMap, BTreeSet};

use packetboat_core::checkpoint::{CheckpointRef, CheckpointRoot};
use packetboat_core::ids::{Counter, DeviceId};
use packetboat_core::knowledge::Knowledge;
use packetboat_core::members::Members;
use packetboat_core::tip::{MAX_REFUSED, Tip};
use packetboat_core::wire::{Reader, WireError, Writer};
use packetboat_replica::index::{Index, IndexError};

use crate::checkpoints;
use crate::error::SyncError;
use crate::ports::{Note, Observer};
use crate::removals::DAY_MS;
use crate::replica::Replica;
use crate::salvage;

impl Replica {
    /// Gives up what others refuse of what was folded here, where they have heard of this device; whether there was any.
    ///
    /// What this disk agreed on with the vault is looked at in its light afterwards ([`Replica::come_back`]).
    pub(crate) fn yield_to_others(&mut self, observer: &mut dyn Observer) -> Result<bool, SyncError> {
        let own_device = self.keys.device.device();
        let Some(Yield { mut lanes, taken_over, known_of_own }) = to_give_up(&self.parts.index, &own_device)? else {
            return Ok(false);
        };
        if self.rests_from_beginning_anew()? {
            let text = "others refuse what this device publishes, and it has begun anew too often today: it goes on alone until \
                        tomorrow; where that does not end, let it leave the vault and join again";
            observer.note(Note::Warning { text: text.to_owned() });
            return Ok(false);
        }
        if !taken_over.is_empty() && !self.is_there_a_checkpoint(&lanes, &taken_over)? {
            return Ok(false);
        }
        // What it is about to forget nobody else may ever bring here.
        self.carry(observer)?;
        let sides = self.leave_what_stays(observer)?;
        let name = self.device_name()?;
        let last = match known_of_own {
            // Nobody there knows it, nor what any of its packets is.
            0 => self.parts.index.knowledge().counter(&own_device),
            known => known,
        };
        // Nobody is to look into a lane of which no more is ever folded, nor to begin from what its device folded.
        self.parts.store.delete(&Tip::name(&own_device))?;
        if known_of_own == 0 {
            checkpoints::take_away_own(&*self.parts.store, &own_device)?;
        }
        self.settle_what_was_just_written(observer)?;
        self.parts.index.begin()?;
        crate::forks::take_sides(&mut self.parts.index, &sides)?;
        let mut left = lanes.clone();
        add(&mut left, sides);
        salvage::keep_what_no_disk_shows(&mut self.parts.index, &self.keys.ring, &left)?;
        // It is retired, and needs no other to refuse it.
        lanes.remove(&own_device);
        give_up(&mut self.parts.index, &lanes)?;
        write(&mut self.parts.index, TAKEN_OVER, &taken_over)?;
        self.retires_when_introduced(last)?;
        self.note_beginning_anew()?;
        self.forget_and_come_back(&name)?;
        self.parts.index.commit()?;
        let text = "this device has learned from one that others retired while they let history go: it goes on as a new \
                    device, and what differs is kept";
        observer.note(Note::Warning { text: text.to_owned() });
        Ok(true)
    }

    /// Whether this device has begun anew so often within a day that it does not help: each time leaves a device behind.
    pub(crate) fn rests_from_beginning_anew(&self) -> Result<bool, SyncError> {
        Ok(self.beginnings()?.len() >= MAX_BEGINNINGS)
    }

    /// Notes that this device begins anew because others refuse it. Within the caller's transaction.
    pub(crate) fn note_beginning_anew(&mut self) -> Result<(), SyncError> {
        let mut times = self.beginnings()?;
        times.push(self.parts.clock.now_ms());
        let bytes: Vec<u8> = times.into_iter().flat_map(i64::to_le_bytes).collect();
        Ok(self.parts.index.set_meta(BEGINNINGS, Some(&bytes))?)
    }

    /// When it did within the last day, by its own clock, in milliseconds since 1970 UTC.
    fn beginnings(&self) -> Result<Vec<i64>, SyncError> {
        let (bytes, now) = (self.parts.index.meta(BEGINNINGS)?.unwrap_or_default(), self.parts.clock.now_ms());
        let times = bytes.as_chunks::<8>().0.iter().map(|time| i64::from_le_bytes(*time));
        Ok(times.filter(|time| now.abs_diff(*time) < DAY_MS).collect())
    }

    /// Whether a checkpoint is known here that contains the one and not the other.
    fn is_there_a_checkpoint(&self, without: &Lanes, with: &Lanes) -> Result<bool, SyncError> {
        for (device, number) in checkpoints::seen(&self.parts.index)? {
            let checkpoint = CheckpointRef { device, number };
            let root = checkpoints::sound_root(&*self.parts.store, &self.keys, &checkpoint)?;
            if root.is_some_and(|root| is_free_of(&root, without) && contains(&root, with)) {
                return Ok(true);
            }
        }
        Ok(false)
    }
}

/// Whether a checkpoint contains nothing of these lanes but what was let go.
pub(crate) fn is_free_of(root: &CheckpointRoot, lanes: &Lanes) -> bool {
    let contains = |(device, from): (&DeviceId, &Counter)| {
        root.knowledge.counter(device) >= *from && root.garbage.ended().counter(device) < *from
    };
    !lanes.iter().any(contains)
}

/// Whether a checkpoint contains something of each of these lanes.
pub(crate) fn contains(root: &CheckpointRoot, lanes: &Lanes) -> bool {
    lanes.iter().all(|(device, from)| root.knowledge.counter(device) >= *from)
}

/// What this device refused and others have folded to whom it yielded: it begins from a checkpoint that contains it.
pub(crate) fn taken_over(index: &Index) -> Result<Lanes, SyncError> {
    read(index, TAKEN_OVER)
}

/// Lanes, each from the packet from which on it is refused.
pub(crate) type Lanes = BTreeMap<DeviceId, Counter>;

/// Adds lanes; of one that is there already the smaller counter holds.
pub(crate) fn add(all: &mut Lanes, lanes: Lanes) {
    for (device, from) in lanes {
        let first = all.entry(device).or_insert(from);
        *first = from.min(*first);
    }
}

/// The lanes that this device has read and does not fold.
pub(crate) fn own(index: &Index) -> Result<Lanes, SyncError> {
    read(index, OWN)
}

/// Records what [`own`] returns, but for what was folded since.
pub(crate) fn set_own(index: &mut Index, mut lanes: Lanes) -> Result<(), SyncError> {
    lanes.retain(|device, from| index.knowledge().counter(device) < *from);
    while lanes.len() > MAX_REFUSED {
        lanes.pop_last();
    }
    let (before, told) = (own(index)?, read(index, TOLD)?);
    // Whoever is to yield at this place needs one there.
    if lanes.keys().any(|lane| !before.contains_key(lane) || !told.contains_key(lane)) {
        checkpoints::set_owed(index, true)?;
    }
    if lanes == before {
        return Ok(());
    }
    Ok(write(index, OWN, &lanes)?)
}

/// Of lanes that were refused in this round or before, and that may yet be folded, those with which it stayed so for some
/// rounds. Of introductions that came too late a carrier may come for one, and as a rule its device finds out by itself
/// ([`crate::learn::passed_over`]); of what builds on another history a fork may be settled ([`crate::forks`]).
pub(crate) fn late(index: &mut Index, late: &Lanes) -> Result<Lanes, SyncError> {
    let before = read(index, LATE)?;
    let mut lanes: Lanes = before.keys().map(|device| (*device, 1)).collect();
    lanes.extend(late);
    lanes.retain(|device, from| index.knowledge().counter(device) < *from);
    let rounds = |device: &DeviceId| before.get(device).map_or(1, |rounds| (rounds + 1).min(PATIENT_ROUNDS + 1));
    let after: Lanes = lanes.keys().map(|device| (*device, rounds(device))).collect();
    if after != before {
        write(index, LATE, &after)?;
    }
    lanes.retain(|device, _| after[device] > PATIENT_ROUNDS);
    Ok(lanes)
}

/// Whether the last tip at this place tells something else than what is refused now.
pub(crate) fn is_untold(index: &Index) -> Result<bool, SyncError> {
    Ok(index.meta(TOLD)?.unwrap_or_default() != index.meta(OWN)?.unwrap_or_default())
}

/// Notes that a tip tells what is refused now.
pub(crate) fn set_told(index: &mut Index) -> Result<(), SyncError> {
    let own = index.meta(OWN)?;
    Ok(index.set_meta(TOLD, own.as_deref())?)
}

/// Keeps what another device refuses, and what it has folded, as its newest tip says.
pub(crate) fn set_heard(
    index: &mut Index,
    device: DeviceId,
    refused: &Lanes,
    learned: &Knowledge,
) -> Result<(), SyncError> {
    let mut heard = heard(index)?;
    if refused.is_empty() && !heard.contains_key(&device) {
        return Ok(());
    }
    match refused.is_empty() {
        true => drop(heard.remove(&device)),
        false => drop(heard.insert(device, (refused.clone(), learned.clone()))),
    }
    let mut out = Writer::new();
    for (device, (refused, learned)) in &heard {
        out.raw(&device.0);
        encode(refused, &mut out);
        learned.encode(&mut out);
    }
    let bytes = out.finish();
    Ok(index.set_meta(HEARD, (!bytes.is_empty()).then_some(&bytes[..]))?)
}

/// Lanes that this device has folded and gave up, since others refuse them: it refuses them as well.
pub(crate) fn given_up(index: &Index) -> Result<Lanes, SyncError> {
    read(index, GIVEN_UP)
}

/// Adds to what [`given_up`] returns, and forgets what was refused and heard so far. Within the caller's transaction.
pub(crate) fn give_up(index: &mut Index, lanes: &Lanes) -> Result<(), SyncError> {
    let mut all = given_up(index)?;
    add(&mut all, lanes.clone());
    write(index, GIVEN_UP, &all)?;
    index.set_meta(OWN, None)?;
    crate::learn::passed_over::forget(index)?;
    Ok(index.set_meta(HEARD, None)?)
}

/// What others refuse of what this device has folded, where they have heard of it and it is to yield.
pub(crate) fn to_give_up(index: &Index, own_device: &DeviceId) -> Result<Option<Yield>, SyncError> {
    let heard = heard(index)?;
    if heard.is_empty() {
        return Ok(None);
    }
    let members = crate::members::load(index)?;
    let ours = own(index)?;
    let ended = crate::garbage::load(index)?.ended().clone();
    for (device, (refused, learned)) in heard {
        let of_ours = folded_of(&refused, index.knowledge());
        if members.standing(&device).is_revoked() || !of_ours.contains(own_device) {
            continue;
        }
        // It lacks what was let go here. Of two beginnings of history one stays, and whoever has the other finds out.
        if !learned.includes(&ended) {
            continue;
        }
        let of_theirs = folded_of(&ours, &learned);
        // Each comes and goes with its own lane; the others are the same for all who have folded them.
        let least = |lanes: &BTreeSet<DeviceId>, own: &DeviceId| (lanes.iter().copied().find(|lane| lane != own), *own);
        if of_theirs.is_empty() || least(&of_ours, own_device) < least(&of_theirs, &device) {
            let taken_over =
                ours.iter().filter(|(lane, _)| of_theirs.contains(lane)).map(|(lane, from)| (*lane, *from));
            let (known_of_own, taken_over) = (learned.counter(own_device), taken_over.collect());
            return Ok(Some(Yield { known_of_own, lanes: refused, taken_over }));
        }
    }
    Ok(None)
}

/// Whether others refuse what this device has folded, and no packet of its own says so yet, as far as `told` goes: then they
/// fold that as well, or refuse its own lane, and it is told.
///
/// Once of each lane, so that devices which say so do not answer one another for ever.
pub(crate) fn is_to_be_told_of(
    index: &Index,
    members: &Members,
    own_device: &DeviceId,
    told: &Knowledge,
) -> Result<bool, SyncError> {
    Ok(heard(index)?.iter().any(|(device, (refused, _))| {
        !members.standing(device).is_revoked()
            && !refused.contains_key(own_device)
            && !folded_of(refused, index.knowledge()).is_subset(&folded_of(refused, told))
    }))
}

/// The refused lanes of which something was folded that is refused.
fn folded_of(refused: &Lanes, folded: &Knowledge) -> BTreeSet<DeviceId> {
    refused.iter().filter(|(lane, from)| folded.counter(lane) >= **from).map(|(lane, _)| *lane).collect()
}

/// What a device gives up that others refuse.
pub(crate) struct Yield {
    pub(crate) lanes: Lanes,
    /// What it refuses, and those have folded.
    pub(crate) taken_over: Lanes,
    /// How far those who refuse have folded this device's own lane.
    pub(crate) known_of_own: Counter,
}

fn heard(index: &Index) -> Result<BTreeMap<DeviceId, (Lanes, Knowledge)>, SyncError> {
    let bytes = index.meta(HEARD)?.unwrap_or_default();
    let mut input = Reader::new(&bytes);
    let mut heard = BTreeMap::new();
    while input.remaining() > 0 {
        let device = DeviceId(input.array().map_err(damaged)?);
        let refused = decode(&mut input).map_err(damaged)?;
        heard.insert(device, (refused, Knowledge::decode(&mut input).map_err(damaged)?));
    }
    Ok(heard)
}

fn read(index: &Index, key: &str) -> Result<Lanes, SyncError> {
    match index.meta(key)? {
        None => Ok(Lanes::new()),
        Some(bytes) => decode(&mut Reader::new(&bytes)).map_err(damaged),
    }
}

fn write(index: &mut Index, key: &str, lanes: &Lanes) -> Result<(), IndexError> {
    let mut out = Writer::new();
    encode(lanes, &mut out);
    let bytes = out.finish();
    index.set_meta(key, (!lanes.is_empty()).then_some(&bytes[..]))
}

fn encode(lanes: &Lanes, out: &mut Writer) {
    out.varint(lanes.len() as u64);
    for (device, from) in lanes {
        out.raw(&device.0).varint(*from);
    }
}

fn decode(input: &mut Reader<'_>) -> Result<Lanes, WireError> {
    (0..input.count(DeviceId::LEN + 1)?).map(|_| Ok((DeviceId(input.array()?), input.varint()?))).collect()
}

fn damaged(_: WireError) -> SyncError {
    SyncError::DamagedIndex { what: "the refused lanes" }
}

/// Where the index keeps which lanes this device refuses: count, and per lane its device 32 and a counter varint,
const OWN: &str = "refused lanes";
/// which of them the last tip at a place told of,
pub(crate) const TOLD: &str = "refused lanes told";
/// what the tips there tell that others refuse, and have folded: per device its id 32, lanes and knowledge,
pub(crate) const HEARD: &str = "refused lanes heard";
/// and which lanes were given up.
const GIVEN_UP: &str = "lanes given up";
/// In how many rounds before lanes were refused that may yet be folded, by device,
const LATE: &str = "refused for now";
const PATIENT_ROUNDS: u64 = 3;
/// When this device began anew since others refuse it, 8 bytes each.
const BEGINNINGS: &str = "beginnings anew";
/// So often a day it may.
const MAX_BEGINNINGS: usize = 8;
/// The lanes that the next checkpoint to begin from must contain.
const TAKEN_OVER: &str = "lanes taken over";

#[cfg(test)]
mod tests {
    use packetboat_core::ids::PacketHash;
    use packetboat_core::knowledge::Learned;

    use super::*;

    const A: DeviceId = DeviceId([1; 32]);
    const B: DeviceId = DeviceId([2; 32]);
    const GONE: DeviceId = DeviceId([3; 32]);
    const ELSE: DeviceId = DeviceId([4; 32]);

    fn knowledge(lanes: &[(DeviceId, Counter)]) -> Knowledge {
        let mut knowledge = Knowledge::new();
        for (device, counter) in lanes {
            knowledge.advance(*device, Learned { counter: *counter, hash: PacketHash([*counter as u8; 32]) });
        }
        knowledge
    }

    /// The index of a device that has folded and refuses this.
    fn index(folded: &[(DeviceId, Counter)], refused: &[(DeviceId, Counter)]) -> Index {
        let mut index = Index::in_memory().unwrap();
        index.begin().unwrap();
        for (device, learned) in knowledge(folded).iter() {
            index.advance_lane(*device, *learned, learned.counter, &Knowledge::new()).unwrap();
        }
        index.commit().unwrap();
        set_own(&mut index, lanes(refused)).unwrap();
        index
    }

    fn lanes(lanes: &[(DeviceId, Counter)]) -> Lanes {
        lanes.iter().copied().collect()
    }

    fn given_up_after_hearing(mut index: Index, own: DeviceId, from: DeviceId, told: &Index) -> Option<Lanes> {
        set_heard(&mut index, from, &super::own(told).unwrap(), told.knowledge()).unwrap();
        to_give_up(&index, &own).unwrap().map(|yields| yields.lanes)
    }

    #[test]
    fn whoever_was_heard_and_is_refused_gives_up_all_that_the_others_refuse() {
        let a = index(&[(A, 5), (GONE, 3)], &[(B, 1), (ELSE, 2), (GONE, 4)]);
        let b = || index(&[(A, 2), (B, 2), (GONE, 6)], &[]);
        assert_eq!(given_up_after_hearing(b(), B, A, &a), Some(lanes(&[(B, 1), (ELSE, 2), (GONE, 4)])));
        let before = index(&[(A, 5), (GONE, 3)], &[(GONE, 4)]);
        assert_eq!(given_up_after_hearing(b(), B, A, &before), None, "it may be carried once it is heard");
        assert_eq!(given_up_after_hearing(a, A, B, &b()), None, "nothing of its own is refused");
    }

    #[test]
    fn of_two_who_refuse_what_the_other_has_folded_both_find_the_same_one_to_yield() {
        for (of_a, of_b) in [(GONE, ELSE), (ELSE, GONE)] {
            // Each has folded what the other refuses, and each has heard of the other.
            let a = || index(&[(A, 5), (of_a, 6)], &[(B, 1), (of_b, 4)]);
            let b = || index(&[(B, 5), (of_b, 6)], &[(A, 1), (of_a, 4)]);
            let yields =
                (given_up_after_hearing(a(), A, B, &b()).is_some(), given_up_after_hearing(b(), B, A, &a()).is_some());
            assert_eq!(yields, (of_a < of_b, of_b < of_a));
        }
    }

    #[test]
    fn whoever_lacks_what_was_let_go_here_is_not_yielded_to() {
        // Of two beginnings of history one stays, and it is told from checkpoints. A carrier that yielded to each of two
        // groups in turn, and came back for the history of the other, never came to rest.
        let mut b = index(&[(A, 2), (B, 2), (ELSE, 6), (GONE, 6)], &[]);
        let mut record = Writer::new();
        record.u8(0);
        knowledge(&[(ELSE, 5)]).encode(&mut record);
        record.varint(0).varint(0);
        let record = packetboat_core::garbage::Garbage::decode(&mut Reader::new(&record.finish())).unwrap();
        crate::garbage::store(&mut b, &record).unwrap();
        let refused = &[(B, 1), (GONE, 4)];
        let lacks = index(&[(A, 5), (ELSE, 3), (GONE, 3)], refused);
        set_heard(&mut b, A, &own(&lacks).unwrap(), lacks.knowledge()).unwrap();
        assert!(to_give_up(&b, &B).unwrap().is_none(), "it lacks what was let go");
        let knows = index(&[(A, 5), (ELSE, 5), (GONE, 3)], refused);
        assert_eq!(given_up_after_hearing(b, B, A, &knows), Some(lanes(refused)));
    }

    #[test]
    fn whoever_has_folded_what_others_refuse_says_so_once() {
        // A device that had folded a side of a fork which all others refuse, and that had nothing to publish since, was
        // refused nothing and so never heard of it.
        let a = index(&[(A, 5), (B, 1), (GONE, 3)], &[(GONE, 4)]);
        let mut b = index(&[(A, 5), (B, 1), (GONE, 6)], &[]);
        set_heard(&mut b, A, &own(&a).unwrap(), a.knowledge()).unwrap();
        let is_to_be_told_of = |b: &Index, told: &[_]| {
            is_to_be_told_of(b, &crate::members::load(b).unwrap(), &B, &knowledge(told)).unwrap()
        };
        assert!(is_to_be_told_of(&b, &[(A, 5), (GONE, 3)]), "nothing was said yet");
        assert!(!is_to_be_told_of(&b, &[(A, 5), (GONE, 4)]), "it was said");
        let a = index(&[(A, 5), (GONE, 3)], &[(B, 1), (GONE, 4)]);
        set_heard(&mut b, A, &own(&a).unwrap(), a.knowledge()).unwrap();
        assert!(!is_to_be_told_of(&b, &[]), "it was heard");
    }

    #[test]
    fn what_may_yet_be_folded_is_told_of_once_it_stays_so() {
        let mut index = index(&[(A, 5), (GONE, 3)], &[]);
        let refused = lanes(&[(B, 1), (GONE, 4)]);
        for _ in 0..PATIENT_ROUNDS {
            assert_eq!(late(&mut index, &refused).unwrap(), Lanes::new());
        }
        assert_eq!(late(&mut index, &refused).unwrap(), refused);
        // Of an introduction it is known without reading it again; a fork may have been settled.
        assert_eq!(late(&mut index, &Lanes::new()).unwrap(), lanes(&[(B, 1)]));
        assert_eq!(late(&mut index, &lanes(&[(GONE, 4)])).unwrap(), lanes(&[(B, 1)]));
    }

    #[test]
    fn what_was_folded_after_all_is_refused_no_more() {
        let mut index = index(&[(A, 5)], &[(A, 6), (B, 1)]);
        assert!(is_untold(&index).unwrap());
        set_told(&mut index).unwrap();
        assert!(!is_untold(&index).unwrap());
        let learned = Learned { counter: 6, hash: PacketHash([6; 32]) };
        index.begin().unwrap();
        index.advance_lane(A, learned, 6, &Knowledge::new()).unwrap();
        index.commit().unwrap();
        let before = own(&index).unwrap();
        set_own(&mut index, before).unwrap();
        assert_eq!(own(&index).unwrap(), lanes(&[(B, 1)]));
        assert!(is_untold(&index).unwrap());
    }
}
