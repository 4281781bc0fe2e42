//! What the core knows of garbage, in the index: the record that packets fold into, and which packs are marked by it.
//!
//! The record is one entry of the index, small because what is done is forgotten. Beside it the rows of condemned packs
//! are marked, so that no look-up leads to one where something else holds the chunk.
//!
//! A replica that began from a checkpoint may lack packets that a condemnation did not know, and so cannot tell whether it
//! is void. Such a one is *doubtful*: this replica neither deletes what it names nor refers to it, and leaves it to others;
//! so does whoever begins from a checkpoint of it.

use std::collections::{BTreeMap, BTreeSet};

use packetboat_core::change::Change;
use packetboat_core::garbage::{self, Garbage, Retention};
use packetboat_core::ids::{DeviceId, Dot, PackId};
use packetboat_core::keys::KeyRing;
use packetboat_core::knowledge::Knowledge;
use packetboat_core::members::{Awaited, Members};
use packetboat_core::packet::Packet;
use packetboat_core::wire::{Reader, WireError, Writer};
use packetboat_replica::index::{Index, PackState, Referable};

use crate::Keys;
use crate::error::SyncError;
use crate::members;

/// The record as folded so far.
pub(crate) fn load(index: &Index) -> Result<Garbage, SyncError> {
    let Some(bytes) = index.meta(GARBAGE)? else { return Ok(Garbage::new()) };
    Garbage::decode(&mut Reader::new(&bytes)).map_err(damaged)
}

/// Stores the record, and marks the packs that it condemns.
pub(crate) fn store(index: &mut Index, garbage: &Garbage) -> Result<(), SyncError> {
    let before = load(index)?.condemned();
    let after = garbage.condemned();
    for pack in before.difference(&after) {
        index.set_pack_state(pack, PackState::Stored)?;
    }
    for pack in &after {
        index.set_pack_state(pack, PackState::Condemned)?;
    }
    let mut out = Writer::new();
    garbage.encode(&mut out);
    Ok(index.set_meta(GARBAGE, Some(&out.finish()))?)
}

/// Notes that these packs lie at the intermediary, whole, after all; what is condemned stays so.
pub(crate) fn note_sound<'p>(index: &mut Index, packs: impl IntoIterator<Item = &'p PackId>) -> Result<(), SyncError> {
    let condemned = load(index)?.condemned();
    for pack in packs {
        let state = if condemned.contains(pack) { PackState::Condemned } else { PackState::Stored };
        index.set_pack_state(pack, state)?;
    }
    Ok(())
}

/// Forgets the record, with all that was folded.
pub(crate) fn forget(index: &mut Index) -> Result<(), SyncError> {
    Ok(index.set_meta(GARBAGE, None)?)
}

/// Folds what a packet says of garbage; its whole prerequisite is given. Before the packet counts as learned.
pub(crate) fn fold(
    index: &mut Index,
    ring: &KeyRing,
    packet: &Packet,
    prerequisite: &Knowledge,
) -> Result<(), SyncError> {
    if !garbage::concerns(packet) {
        return Ok(());
    }
    let mut record = load(index)?;
    let mut concurrent = BTreeSet::new();
    let is_complete =
        !garbage::condemns_packs(packet) || references_unknown_to(index, ring, prerequisite, &mut concurrent)?;
    let before = record.clone();
    record.fold(packet, prerequisite, &concurrent);
    if !is_complete {
        record.doubt(&packet.dot);
    }
    if record != before { store(index, &record) } else { Ok(()) }
}

/// Gathers the packs to which folded packets refer that are not in this prerequisite; whether all could be looked at.
fn references_unknown_to(
    index: &Index,
    ring: &KeyRing,
    prerequisite: &Knowledge,
    packs: &mut BTreeSet<PackId>,
) -> Result<bool, SyncError> {
    let mut complete = true;
    for (device, learned) in index.knowledge().iter() {
        for counter in prerequisite.counter(device) + 1..=learned.counter {
            match index.sealed_packet(Dot { device: *device, counter })? {
                Some(sealed) => packs.extend(garbage::references(&sealed.open(ring)?)),
                None => complete = false,
            }
        }
    }
    Ok(complete)
}

/// The packs with content that lay inside packets before, of which somebody who is waited for may not know yet.
///
/// Whoever does not know of such a pack may refer to a chunk in it by the packet in which it came, and name no pack.
/// Nothing is known where a packet of that kind is not here any more.
pub(crate) fn not_known_to_all(
    index: &Index,
    ring: &KeyRing,
    standing: &Standing,
) -> Result<Option<BTreeSet<PackId>>, SyncError> {
    let mut packs = BTreeSet::new();
    for (device, learned) in index.knowledge().iter() {
        let common = standing.awaited.devices.iter().map(|other| standing.known(other, device)).min();
        for counter in common.unwrap_or(learned.counter) + 1..=learned.counter {
            let Some(sealed) = index.sealed_packet(Dot { device: *device, counter })? else { return Ok(None) };
            let packet = sealed.open(ring)?;
            if stores_what_lay_in_packets(&packet) {
                packs.extend(packet.body.packs.iter().map(|pack| pack.pack));
            }
        }
    }
    Ok(Some(packs))
}

/// Whether a packet may tell of such packs: it condemns, or it does nothing but tell.
fn stores_what_lay_in_packets(packet: &Packet) -> bool {
    packet.body.changes.iter().all(|change| matches!(change, Change::Condemn { .. }))
}

/// Who is waited for, and what each is known to have folded.
pub(crate) struct Standing {
    awaited: Awaited,
    prerequisites: BTreeMap<DeviceId, Knowledge>,
    own: DeviceId,
    all: Knowledge,
}

impl Standing {
    pub(crate) fn load(index: &Index, own: DeviceId) -> Result<Self, SyncError> {
        let awaited = members::load(index)?.awaited();
        let mut prerequisites = BTreeMap::new();
        for device in awaited.devices.iter().copied().chain([own]) {
            prerequisites.insert(device, index.lane_prerequisite(device)?);
        }
        Ok(Self { awaited, prerequisites, own, all: index.knowledge().clone() })
    }

    /// How much of a lane a device is known to have folded; of its own, all that is known here.
    fn known(&self, device: &DeviceId, lane: &DeviceId) -> u64 {
        if device == lane || *device == self.own {
            return self.all.counter(lane);
        }
        self.prerequisites.get(device).map_or(0, |known| known.counter(lane))
    }

    /// Whether all that are waited for know that this device exists.
    pub(crate) fn is_known_to_all(&self) -> bool {
        garbage::is_known_to_all(&self.own, &self.awaited, |device| self.prerequisites.get(device))
    }

    /// Whether this device owes an empty packet.
    pub(crate) fn owes_an_answer(&self, garbage: &Garbage) -> bool {
        let own = self.prerequisites.get(&self.own).cloned().unwrap_or_default();
        garbage.awaits_answer(&self.own, &own)
    }

    /// The condemnations that all have answered.
    pub(crate) fn answered(&self, garbage: &Garbage) -> Vec<Dot> {
        garbage.answered(&self.awaited, |device| self.prerequisites.get(device))
    }

    /// Those that have not answered a condemnation yet.
    pub(crate) fn silent(&self, dot: &Dot) -> Vec<DeviceId> {
        self.awaited.lacking(dot, |device| self.prerequisites.get(device))
    }
}

/// Whether a device did not know of something condemned when it joined, and nobody is known to have known of it: its
/// introduction is not folded then ([`packetboat_core::garbage`]).
pub(crate) fn is_passed_over(
    index: &Index,
    ring: &KeyRing,
    record: &Garbage,
    members: &Members,
    device: &DeviceId,
) -> Result<bool, SyncError> {
    let introduction = Dot { device: *device, counter: 1 };
    let known = match index.sealed_packet(introduction)? {
        Some(introduction) => introduction.open(ring)?.body.prerequisite,
        // Where it is let go itself, all knew of it.
        None if record.horizon().contains(&introduction) => return Ok(false),
        // It came in a checkpoint, perhaps its device's own: what its device did not know later it did not know then.
        None => index.lane_prerequisite(*device)?,
    };
    // Others fold an introduction that knows all that is condemned, whenever they answered.
    let unknown = |dot: &Dot| dot.device != *device && !known.contains(dot);
    for (dot, _) in record.standing().filter(|(dot, condemnation)| unknown(dot) && !condemnation.is_void()) {
        if is_unknown_to_all(index, members, dot, device)? {
            return Ok(true);
        }
    }
    Ok(false)
}

/// Whether a device is known to nobody whom the author of a condemnation knows of, directly or by others, as far as their
/// packets say.
///
/// Who has not answered may have folded its introduction and would carry it; that one may as well be gone for good.
fn is_unknown_to_all(
    index: &Index,
    members: &Members,
    condemnation: &Dot,
    device: &DeviceId,
) -> Result<bool, SyncError> {
    let introduced = |device: &DeviceId| Dot { device: *device, counter: 1 };
    let mut known = BTreeSet::from([condemnation.device]);
    let mut pending = vec![condemnation.device];
    while let Some(next) = pending.pop() {
        let prerequisite = index.lane_prerequisite(next)?;
        if prerequisite.contains(&introduced(device)) {
            return Ok(false);
        }
        let others = members.active().map(|member| member.device).filter(|other| other != device);
        pending.extend(others.filter(|other| prerequisite.contains(&introduced(other)) && known.insert(*other)));
    }
    Ok(true)
}

/// What this device may refer to in what it publishes.
pub(crate) fn referable(index: &Index, keys: &Keys) -> Result<Referable, SyncError> {
    let device = keys.device.device();
    if Standing::load(index, device)?.is_known_to_all() {
        return Ok(Referable::All);
    }
    let mut packs: BTreeSet<PackId> = index.pending_packs()?.into_iter().collect();
    for counter in 1..=index.knowledge().counter(&device) {
        if let Some(sealed) = index.sealed_packet(Dot { device, counter })? {
            packs.extend(sealed.open(&keys.ring)?.body.packs.iter().map(|pack| pack.pack));
        }
    }
    Ok(Referable::Own { device, packs })
}

/// What is kept, in words.
pub(crate) fn in_words(retention: Retention) -> String {
    match retention {
        Retention::All => "everything for ever".to_owned(),
        Retention::Days(0) => "nothing past".to_owned(),
        Retention::Days(1) => "1 day of history".to_owned(),
        Retention::Days(days) => format!("{days} days of history"),
        Retention::Versions(versions) if versions.get() == 1 => "the last version of each file".to_owned(),
        Retention::Versions(versions) => format!("the last {versions} versions of each file"),
    }
}

fn damaged(_: WireError) -> SyncError {
    SyncError::DamagedIndex { what: "the record of garbage" }
}

const GARBAGE: &str = "garbage";
