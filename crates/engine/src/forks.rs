//! Forks: two packets of one dot, as of a cloned disk or a restored backup, told of at one place or at two.
//!
//! Of two sides of a lane the one whose first packet has the smaller hash stays, everywhere and whoever came first. That
//! needs no agreement: whoever sees both decides alike. What the place shows is compared with what was folded here, from
//! the end of the lane down to where they part:
//!
//! - where this replica has folded the side that stays, it puts that over the other one, and its tip tells of it. A side
//!   that builds on one that goes, of another lane, goes too, whatever its hash;
//! - where it has folded the other, it *begins anew*: it forgets what it folded, goes on as a new device and learns again
//!   from what stays. What its disk agreed on with the vault before remains the base, but for what rests on the other side:
//!   that is published whole ([`crate::removals`]). So does everybody who built on that side, whose packets are refused by
//!   those who never had it;
//! - where others let history go with the other side, that stays, whatever its hash: whoever has not begins from there;
//! - the device whose own lane it is has been copied; it takes a new key in any case, as both copies do.
//!
//! What only the other side says is kept before it goes, see [`crate::salvage`].

use std::collections::{BTreeMap, BTreeSet};

use packetboat_core::checkpoint::{CHECKPOINTS_FOLDER, CheckpointRef, CheckpointRoot};
use packetboat_core::ids::{Counter, DeviceId, Dot, PacketHash};
use packetboat_core::knowledge::Learned;
use packetboat_core::packet::SealedPacket;
use packetboat_core::store::{ObjectName, StoreError};
use packetboat_core::tip::{MAX_TIP_BYTES, Tip, UnverifiedTip};
use packetboat_core::wire::{Reader, Writer};
use packetboat_replica::index::{Index, IndexError};

use crate::carry::standing;
use crate::checkpoints;
use crate::error::SyncError;
use crate::garbage;
use crate::learn::{LearnError, counters_present, packet_name};
use crate::places;
use crate::ports::{Note, Observer};
use crate::refusals::{self, Lanes};
use crate::replica::Replica;
use crate::salvage;

/// Where the lane at a place parts from what was folded here.
struct Parting {
    /// The first packet that differs.
    at: Counter,
    /// What was folded there, where that is known.
    ours: Option<PacketHash>,
    /// What the place shows, where it has the smaller hash and follows what was folded before it.
    smaller: Option<SealedPacket>,
}

/// What became of forked lanes.
struct PutOver {
    /// Those of which the place shows the side that stays, each from where it parts.
    lost: Lanes,
    /// Those of which what was folded was put there.
    put: BTreeSet<DeviceId>,
    /// Those of which others let history go with the other side.
    outranked: BTreeSet<DeviceId>,
}

/// What became of one of them.
enum Put {
    /// What was folded was put there.
    Done,
    /// There was nothing to put: others have what stays.
    Nothing,
    /// Others let history go with the other side.
    Outranked,
}

impl Replica {
    /// Settles the forks of these lanes, as far as this place shows them; whether this replica is to begin anew.
    pub(crate) fn settle_forks(
        &mut self,
        lanes: &BTreeSet<DeviceId>,
        observer: &mut dyn Observer,
    ) -> Result<bool, SyncError> {
        let own = self.keys.device.device();
        let mut partings = BTreeMap::new();
        for device in lanes {
            let Some(parting) = self.parting(device)? else { continue };
            if *device == own {
                self.begin_again_as_new_device(observer)?;
                return Ok(true);
            }
            partings.insert(*device, parting);
        }
        let PutOver { lost, outranked, .. } = self.put_over_what_goes(partings, observer)?;
        if !lost.is_empty() {
            self.learn_anew(lost, observer)?;
            return Ok(true);
        }
        if !lanes.is_empty() {
            self.parts.index.set_meta(SUSPECTED, None)?;
            suspect(&mut self.parts.index, &outranked)?;
        }
        Ok(false)
    }

    /// Puts what stays of forked lanes to this place, for whoever is about to forget it: nobody else may go to both places.
    /// The lanes of which what was folded here does not stay, or nothing could be put, each from where it parts.
    pub(crate) fn leave_what_stays(&mut self, observer: &mut dyn Observer) -> Result<Lanes, SyncError> {
        let own = self.keys.device.device();
        let mut partings = BTreeMap::new();
        for device in suspected(&self.parts.index)?.into_iter().filter(|device| *device != own) {
            partings.extend(self.parting(&device)?.map(|parting| (device, parting)));
        }
        let mut left: Lanes = partings.iter().map(|(device, parting)| (*device, parting.at)).collect();
        let put = self.put_over_what_goes(partings, observer)?.put;
        left.retain(|device, _| !put.contains(device));
        Ok(left)
    }

    /// Puts what was folded over what this place shows of these lanes, where that goes.
    fn put_over_what_goes(
        &mut self,
        mut partings: BTreeMap<DeviceId, Parting>,
        observer: &mut dyn Observer,
    ) -> Result<PutOver, SyncError> {
        let (lost, mut put, mut outranked) = (self.lost(&mut partings)?, BTreeSet::new(), BTreeSet::new());
        for (device, parting) in partings.iter().filter(|(device, _)| !lost.contains_key(device)) {
            // This replica may be the only one that goes to both places, and is about to forget what it folded.
            match self.put_over(device, parting.at, &lost)? {
                Put::Done => {
                    put.insert(*device);
                    let name = crate::members::load(&self.parts.index)?.name(device).unwrap_or("a device").to_owned();
                    let text =
                        format!("two copies of {name} went on with one key: one side of what they published stays");
                    observer.note(Note::Warning { text });
                }
                Put::Nothing => {}
                Put::Outranked => drop(outranked.insert(*device)),
            }
        }
        Ok(PutOver { lost, put, outranked })
    }

    /// The lanes of which the place shows the side that stays, each from where it parts.
    ///
    /// A side with the smaller hash goes all the same where it builds on one that goes, of another lane.
    fn lost(&self, partings: &mut BTreeMap<DeviceId, Parting>) -> Result<Lanes, SyncError> {
        let mut blocked_by = BTreeMap::new();
        let smaller = |partings: &BTreeMap<DeviceId, Parting>| -> Vec<(DeviceId, SealedPacket)> {
            partings.iter().filter_map(|(device, parting)| Some((*device, parting.smaller.clone()?))).collect()
        };
        loop {
            let mut found = BTreeMap::new();
            for (device, packet) in smaller(partings).into_iter().filter(|(device, _)| !blocked_by.contains_key(device))
            {
                found.insert(device, self.of_other_sides(&packet)?);
            }
            if found.is_empty() {
                break;
            }
            for device in found.values().flatten() {
                if !partings.contains_key(device)
                    && let Some(parting) = self.parting(device)?
                {
                    partings.insert(*device, parting);
                }
            }
            blocked_by.extend(found);
        }
        let mut lost: Lanes = smaller(partings).iter().map(|(device, _)| (*device, partings[device].at)).collect();
        loop {
            let mut stays = Vec::new();
            for device in lost.keys() {
                for other in blocked_by.get(device).into_iter().flatten().filter(|other| !lost.contains_key(other)) {
                    if !self.builds_on_the_greater(partings, device, other)? {
                        stays.push(*device);
                    }
                }
            }
            if stays.is_empty() {
                return Ok(lost);
            }
            lost.retain(|device, _| !stays.contains(device));
        }
    }

    /// Whether what was folded of the `other` lane builds on what goes of this one, and has the greater hash of the two
    /// that would stay. Then each side builds on one that goes, and this decides, here as for whoever folded the other.
    fn builds_on_the_greater(
        &self,
        partings: &BTreeMap<DeviceId, Parting>,
        device: &DeviceId,
        other: &DeviceId,
    ) -> Result<bool, SyncError> {
        let Some(Parting { at, ours: Some(ours), .. }) = partings.get(other) else { return Ok(false) };
        let Some(Parting { at: parts_at, smaller: Some(smaller), .. }) = partings.get(device) else { return Ok(false) };
        let Some(sealed) = self.parts.index.sealed_packet(Dot { device: *other, counter: *at })? else {
            return Ok(false);
        };
        let builds_on_it = sealed.open(&self.keys.ring)?.body.prerequisite.counter(device) >= *parts_at;
        Ok(builds_on_it && smaller.hash() < *ours)
    }

    /// The lanes of which a packet at this place builds on other packets than were folded here or can follow those.
    fn of_other_sides(&self, packet: &SealedPacket) -> Result<BTreeSet<DeviceId>, SyncError> {
        let index = &self.parts.index;
        // Sealed under a key that is not held: nobody here can fold it, and others will settle it.
        let Ok(packet) = packet.open(&self.keys.ring) else { return Ok(BTreeSet::new()) };
        let mut lanes = BTreeSet::new();
        for (device, named) in packet.body.prerequisite.iter() {
            let known = index.knowledge().counter(device);
            let mut expected = named.hash;
            for counter in (known + 1..=named.counter).rev() {
                match standing(&*self.parts.store, &Dot { device: *device, counter })? {
                    Some(standing) if standing.hash() == expected => expected = standing.previous(),
                    _ => {
                        lanes.insert(*device);
                        break;
                    }
                }
            }
            let folded = places::hash_at(index, device, known.min(named.counter))?;
            if folded.is_some_and(|folded| folded != expected) {
                lanes.insert(*device);
            }
        }
        Ok(lanes)
    }

    /// Compares a lane with what was folded of it; nothing where the place shows the same as far as both go.
    fn parting(&self, device: &DeviceId) -> Result<Option<Parting>, SyncError> {
        let index = &self.parts.index;
        let known = index.knowledge().counter(device);
        // What lies before where history begins is for nobody to fold, whatever it is.
        let ended = garbage::load(index)?.ended().counter(device);
        let (mut parting, mut equal) = (None, 0);
        // What the packet after it says was folded, where this replica began from there.
        let mut told = None;
        let present = counters_present(&*self.parts.store, device)?;
        for counter in present.into_iter().rev().filter(|counter| ended < *counter && *counter <= known) {
            let Some(standing) = standing(&*self.parts.store, &Dot { device: *device, counter })? else { continue };
            let ours = places::hash_at(index, device, counter)?
                .or(told.and_then(|(before, hash)| (before == counter).then_some(hash)));
            if ours == Some(standing.hash()) {
                told = Some((counter - 1, standing.previous()));
                // Somebody may have gone on with the one side where the place shows the other.
                equal += 1;
                if equal >= ALIKE {
                    break;
                }
                continue;
            }
            equal = 0;
            // Of a side whose beginning is not here any more nobody can fold anything.
            let before = counter.checked_sub(1).filter(|before| *before > 0);
            let follows = match before {
                Some(before) => {
                    places::hash_of_own(index, device, before)?.is_none_or(|hash| hash == standing.previous())
                }
                None => true,
            };
            // Whoever began from a checkpoint cannot compare, and takes what everybody can read.
            let is_smaller = follows && ours.is_none_or(|ours| standing.hash() < ours);
            parting = Some(Parting { at: counter, ours, smaller: is_smaller.then_some(standing) });
            if ours.is_none() {
                break;
            }
        }
        Ok(parting)
    }

    /// Puts what was folded of a lane over what this place shows of it, but for what builds on lanes that are lost from there
    /// on.
    fn put_over(&mut self, device: &DeviceId, from: Counter, lost: &Lanes) -> Result<Put, SyncError> {
        let Some(mut last) = self.parts.index.knowledge().of(device) else { return Ok(Put::Nothing) };
        let mut ours = Vec::new();
        for counter in from..=last.counter {
            let Some(sealed) = self.parts.index.sealed_packet(Dot { device: *device, counter })? else { continue };
            let prerequisite = sealed.open(&self.keys.ring)?.body.prerequisite;
            if lost.iter().any(|(device, at)| prerequisite.counter(device) >= *at) {
                last = Learned { counter: counter - 1, hash: sealed.previous() };
                break;
            }
            ours.push(sealed);
        }
        // Whoever has not kept what stays leaves it to those who have: nothing goes for what is not put in its place.
        if last.counter < from || ours.first().is_none_or(|first| first.dot().counter > from) {
            return Ok(Put::Nothing);
        }
        let mut stays = BTreeMap::from([(last.counter, last.hash)]);
        for sealed in &ours {
            stays.insert(sealed.dot().counter, sealed.hash());
        }
        // The other side's packets beyond the end would hide that it was given up from whoever has folded them.
        let (mut end, mut beyond) = (last.hash, Vec::new());
        for counter in counters_present(&*self.parts.store, device)?.range(last.counter + 1..).copied() {
            let dot = Dot { device: *device, counter };
            match standing(&*self.parts.store, &dot)?.filter(|standing| standing.previous() == end) {
                Some(next) => {
                    end = next.hash();
                    stays.insert(counter, end);
                }
                None => beyond.push(dot),
            }
        }
        // Where others let history go with their side, whoever has not begins from there.
        let checkpoints = self.checkpoints_of_other_side(device, from, &stays)?;
        let ended = garbage::load(&self.parts.index)?.ended().clone();
        let (known, rank) = (self.parts.index.knowledge(), checkpoints::rank_of_beginning);
        let outranks = |root: &CheckpointRoot| {
            let theirs = root.garbage.ended();
            !known.includes(theirs) && rank(theirs) > rank(&ended)
        };
        if checkpoints.iter().any(|(_, root)| outranks(root)) {
            return Ok(Put::Outranked);
        }
        let mut given_up = Vec::new();
        for counter in counters_present(&*self.parts.store, device)?.range(from..).copied() {
            let standing = standing(&*self.parts.store, &Dot { device: *device, counter })?;
            let ours = places::hash_at(&self.parts.index, device, counter)?;
            given_up.extend(standing.filter(|standing| ours != Some(standing.hash())));
        }
        salvage::put_aside(&mut self.parts.index, given_up)?;
        // First, since the lane shows no parting any more once the packets are put. Whoever began from one of these would have
        // that side in all that it folds, and no packet would tell.
        for (name, _) in &checkpoints {
            self.parts.store.delete(name)?;
        }
        for dot in &beyond {
            self.parts.store.delete(&packet_name(dot))?;
        }
        for sealed in &ours {
            self.parts.store.put(&packet_name(&sealed.dot()), sealed.bytes())?;
        }
        self.take_away_tip_of_other_side(device, from, &stays)?;
        let index = &mut self.parts.index;
        index.begin()?;
        places::note_held(index, [(*device, last)])?;
        places::owe_a_tip(index)?;
        index.commit()?;
        Ok(Put::Done)
    }

    /// Deletes the tip of a device where it tells of another side than what stays from there on: it brings the packets of that
    /// side to whoever begins, and its device has a new key by the time it could write it anew.
    fn take_away_tip_of_other_side(
        &self,
        device: &DeviceId,
        from: Counter,
        stays: &BTreeMap<Counter, PacketHash>,
    ) -> Result<(), SyncError> {
        let name = Tip::name(device);
        let bytes = match self.parts.store.get(&name, MAX_TIP_BYTES as u64) {
            Ok(bytes) => bytes,
            Err(StoreError::Missing { .. } | StoreError::Short { .. } | StoreError::TooLarge { .. }) => return Ok(()),
            Err(error) => return Err(error.into()),
        };
        let tip = UnverifiedTip::parse(bytes).and_then(|tip| tip.verify(device)?.open(&self.keys.ring)).ok();
        let told = tip.and_then(|tip| tip.last).filter(|told| from <= told.counter);
        if told.is_some_and(|told| stays.get(&told.counter) != Some(&told.hash)) {
            self.parts.store.delete(&name)?;
        }
        Ok(())
    }

    /// The checkpoints that contain another side of a lane from there on than the packets that stay, but for where history
    /// begins.
    fn checkpoints_of_other_side(
        &self,
        device: &DeviceId,
        from: Counter,
        stays: &BTreeMap<Counter, PacketHash>,
    ) -> Result<Vec<(ObjectName, CheckpointRoot)>, SyncError> {
        let store = &*self.parts.store;
        let record = garbage::load(&self.parts.index)?;
        let mut found = Vec::new();
        for listed in store.list(CHECKPOINTS_FOLDER)? {
            let Some(checkpoint) = CheckpointRef::from_name(&listed.name) else { continue };
            let root = match checkpoints::read_any_root(store, &self.keys, &checkpoint) {
                Ok((_, root)) => root,
                Err(LearnError::Unusable(_) | LearnError::Locked(_)) => continue,
                Err(LearnError::Sync(error)) => return Err(error),
            };
            let end = root.knowledge.of(device).filter(|end| from <= end.counter);
            let contains_other = end.is_some_and(|end| stays.get(&end.counter) != Some(&end.hash));
            if contains_other && root.garbage.ended().counter(device) < from && !record.is_base(&root.knowledge) {
                found.push((listed.name, root));
            }
        }
        Ok(found)
    }

    /// Forgets what was folded, and goes on as a new device that learns from what stays.
    ///
    /// What this disk agreed on with the vault is looked at in its light afterwards ([`Replica::come_back`]).
    fn learn_anew(&mut self, lost: Lanes, observer: &mut dyn Observer) -> Result<(), SyncError> {
        let name = self.device_name()?;
        self.settle_what_was_just_written(observer)?;
        self.parts.index.begin()?;
        let (mut all, mut taken) = (parted(&self.parts.index)?, read(&self.parts.index, TAKEN)?);
        taken.retain(|device, _| !lost.contains_key(device));
        refusals::add(&mut all, lost);
        write(&mut self.parts.index, PARTED, &all)?;
        write(&mut self.parts.index, TAKEN, &taken)?;
        salvage::keep_what_no_disk_shows(&mut self.parts.index, &self.keys.ring, &all)?;
        crate::learn::passed_over::forget(&mut self.parts.index)?;
        self.forget_and_come_back(&name)?;
        self.parts.index.set_meta(SUSPECTED, None)?;
        self.parts.index.commit()?;
        let text = "two copies of a device went on with one key, and this device built on what one of them published: it \
                    goes on as a new device, and what differs is kept";
        observer.note(Note::Warning { text: text.to_owned() });
        Ok(())
    }
}

/// Lanes of which another side was folded before, each from the packet at which the two part.
pub(crate) fn parted(index: &Index) -> Result<Lanes, SyncError> {
    read(index, PARTED)
}

fn read(index: &Index, key: &str) -> Result<Lanes, SyncError> {
    let bytes = index.meta(key)?.unwrap_or_default();
    let mut input = Reader::new(&bytes);
    let mut lanes = Lanes::new();
    let damaged = |_| SyncError::DamagedIndex { what: "the forks" };
    while input.remaining() > 0 {
        let device = DeviceId(input.array().map_err(damaged)?);
        lanes.insert(device, input.varint().map_err(damaged)?);
    }
    Ok(lanes)
}

fn write(index: &mut Index, key: &str, lanes: &Lanes) -> Result<(), IndexError> {
    let mut out = Writer::new();
    for (device, at) in lanes {
        out.raw(&device.0).varint(*at);
    }
    index.set_meta(key, Some(&out.finish()))
}

/// Lanes of which a checkpoint may contain the side that was given up, each from where it parts.
pub(crate) fn given_up(index: &Index) -> Result<Lanes, SyncError> {
    let (mut lanes, taken) = (parted(index)?, read(index, TAKEN)?);
    lanes.retain(|device, _| !taken.contains_key(device));
    Ok(lanes)
}

/// Notes that of these lanes another side is taken than was folded before, each from where it parts. Within the caller's
/// transaction.
pub(crate) fn take_sides(index: &mut Index, sides: &Lanes) -> Result<(), SyncError> {
    if sides.is_empty() {
        return Ok(());
    }
    for key in [PARTED, TAKEN] {
        let mut all = read(index, key)?;
        refusals::add(&mut all, sides.clone());
        write(index, key, &all)?;
    }
    Ok(())
}

/// Takes the sides of forks that a beginning of history contains: whoever let go with them is not to be told otherwise. `left`
/// are the lanes of which this place shows another side than was folded here. All those lanes of which a side is given up
/// now, each from where it parts. Within the caller's transaction.
pub(crate) fn take_sides_of(index: &mut Index, root: &CheckpointRoot, left: Lanes) -> Result<Lanes, SyncError> {
    let mut sides = parted(index)?;
    sides.retain(|device, at| !refusals::is_free_of(root, &Lanes::from([(*device, *at)])));
    refusals::add(&mut sides, left);
    take_sides(index, &sides)?;
    Ok(sides)
}

/// Lanes that may have forked, of those seen at the present place and not settled yet: a tip that told of one is not read
/// again, so a round that fails must not forget it.
pub(crate) fn suspected(index: &Index) -> Result<BTreeSet<DeviceId>, IndexError> {
    let bytes = index.meta(SUSPECTED)?.unwrap_or_default();
    Ok(bytes.chunks_exact(DeviceId::LEN).filter_map(DeviceId::from_slice).collect())
}

/// Adds to what [`suspected`] returns.
pub(crate) fn suspect(index: &mut Index, lanes: &BTreeSet<DeviceId>) -> Result<(), IndexError> {
    let mut all = suspected(index)?;
    let before = all.len();
    all.extend(lanes);
    if all.len() == before {
        return Ok(());
    }
    let bytes: Vec<u8> = all.iter().flat_map(|device| device.0).collect();
    index.set_meta(SUSPECTED, Some(&bytes))
}

/// Whether a packet may be of the side that was given up: its dot says nothing then of what this disk agreed on.
pub(crate) fn is_parted(parted: &Lanes, dot: &Dot) -> bool {
    parted.get(&dot.device).is_some_and(|at| *at <= dot.counter)
}

/// Whether what a tip says of a lane differs from what was folded of it.
pub(crate) fn differs(
    index: &Index,
    device: &DeviceId,
    counter: Counter,
    hash: PacketHash,
) -> Result<bool, IndexError> {
    let is_folded = counter <= index.knowledge().counter(device);
    Ok(is_folded && places::hash_at(index, device, counter)?.is_some_and(|ours| ours != hash))
}

/// After so many packets that are the same, nothing before them is taken for another.
const ALIKE: u32 = 16;
/// Where the index keeps which lanes may have forked, ids of 32 bytes,
pub(crate) const SUSPECTED: &str = "suspected forks";
/// and of which lanes another side was folded before.
const PARTED: &str = "parted lanes";
/// Of these the ones of which the side was taken back that had been given up.
const TAKEN: &str = "parted lanes taken back";
