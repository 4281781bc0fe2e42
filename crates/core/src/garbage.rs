//! Garbage: what may be deleted at an intermediary, decided from folded packets alone.
//!
//! Nothing is deleted by one device's word. A device *condemns* packs, or history up to a knowledge, in a packet. Every
//! other device that is waited for answers with any later packet, whose prerequisite then contains the condemnation; one
//! that has nothing to say makes an empty packet, and no packet answers that. When all have answered, the condemned is
//! deleted, by any of them.
//!
//! A condemnation of a pack is *void* for ever once any packet refers to the pack that was made without knowing of the
//! condemnation. Whoever knows one that stands makes no new reference to the pack. So when all have answered, whoever has
//! folded the answers has folded each packet that could void it: what is deleted was referred to by nobody.
//!
//! Packets refer to packs in two ways: they need them, or they tell of them. A condemnation refers too, to the packs that
//! hold what it relies on, so that two devices which each trust the other's copy of a chunk void one another.
//!
//! A condemnation of history is void where another was made without knowing of it and comes earlier in (Lamport, device)
//! order: so the history that is left always begins at one knowledge, and one checkpoint contains it.
//!
//! A device that nobody knows of is not waited for. So it refers to nothing that it did not store itself until all know of
//! it ([`is_known_to_all`]), and its introduction is folded only if it knows all that was condemned
//! ([`Garbage::is_known_to`], [`Lanes`](crate::lane::Lanes)): what it changed could bring back something deleted.
//!
//! All of it is a function of the set of packets folded and of what was forgotten as done, never of the order of folding.
//! Left out: which packs hold nothing that anyone needs, and the deleting.
//!
//! ```text
//! retained    0, or 1 | stamp | retention
//! retention   0 all | 1 days varint | 2 versions varint, at least 1
//! ended       knowledge
//! finished    count, per device by id: device 32 | counter varint, from 1
//! standing    count, by dot: device 32 | counter varint | lamport varint
//!             | packs: count, by id: id 32 | 1 void, 0 not | history: knowledge | 1 void, 0 not | 1 doubtful, 0 not
//! ```

use std::collections::{BTreeMap, BTreeSet};
use std::num::NonZeroU32;

use crate::change::Change;
use crate::ids::{Counter, DeviceId, Dot, Lamport, PackId, Stamp};
use crate::item::Register;
use crate::knowledge::Knowledge;
use crate::members::{Awaited, decode_stamp, encode_stamp};
use crate::packet::Packet;
use crate::wire::{Reader, WireError, Writer};

/// How long a vault keeps its past.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Retention {
    /// For ever.
    All,
    /// All states of the vault that are at most so many days old.
    Days(u32),
    /// Of each file its last contents, so many of them, whether it still exists or not.
    Versions(NonZeroU32),
}

impl Default for Retention {
    /// What holds where nobody has said anything.
    fn default() -> Self {
        Self::Days(90)
    }
}

impl Retention {
    /// Appends it: see the head of this file.
    pub fn encode(&self, out: &mut Writer) {
        match self {
            Self::All => out.u8(0),
            Self::Days(days) => out.u8(1).varint((*days).into()),
            Self::Versions(versions) => out.u8(2).varint(versions.get().into()),
        };
    }

    /// Reads what [`encode`](Self::encode) wrote.
    pub fn decode(input: &mut Reader<'_>) -> Result<Self, WireError> {
        match input.u8()? {
            0 => Ok(Self::All),
            1 => Ok(Self::Days(input.varint32()?)),
            2 => NonZeroU32::new(input.varint32()?).map(Self::Versions).ok_or(WireError::NotCanonical),
            _ => Err(WireError::Invalid { what: "retention" }),
        }
    }
}

/// What is condemned in a vault, and how long its past is kept.
#[derive(Clone, PartialEq, Eq, Default, Debug)]
pub struct Garbage {
    retained: Option<Register<Retention>>,
    /// History up to here was condemned, acknowledged and deleted.
    ended: Knowledge,
    /// Of each device the last condemnation that was carried out.
    finished: BTreeMap<DeviceId, Counter>,
    standing: BTreeMap<Dot, Condemnation>,
}

/// A condemnation that is not done yet.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Condemnation {
    /// Its packet's Lamport time.
    pub lamport: Lamport,
    /// The packs it names, each with whether it is void for that one.
    pub packs: BTreeMap<PackId, bool>,
    /// The history it names, empty for none.
    pub history: Knowledge,
    /// Whether it is void for the history.
    pub history_is_void: bool,
    /// Whether it may be void for packs for which it does not say so: not all was known to which packets refer.
    pub is_doubtful: bool,
}

impl Condemnation {
    /// The packs that it condemns still.
    pub fn condemned_packs(&self) -> impl Iterator<Item = &PackId> {
        self.packs.iter().filter(|(_, void)| !**void).map(|(pack, _)| pack)
    }

    /// The history that it condemns still.
    pub fn condemned_history(&self) -> Option<&Knowledge> {
        Some(&self.history).filter(|history| !history.is_empty() && !self.history_is_void)
    }

    /// Whether nothing is condemned any more of what it names.
    pub fn is_void(&self) -> bool {
        self.condemned_packs().next().is_none() && self.condemned_history().is_none()
    }
}

impl Garbage {
    /// Nothing condemned.
    pub fn new() -> Self {
        Self::default()
    }

    /// How long the past is kept.
    pub fn retention(&self) -> Retention {
        self.retained.as_ref().map(|retained| retained.value).unwrap_or_default()
    }

    /// Folds what a packet says of garbage. `prerequisite` is its whole one.
    ///
    /// `concurrent` are the packs to which packets refer that were folded already and are not in the prerequisite;
    /// it counts only where the packet [`condemns_packs`].
    pub fn fold(&mut self, packet: &Packet, prerequisite: &Knowledge, concurrent: &BTreeSet<PackId>) {
        let referred: BTreeSet<PackId> = references(packet).collect();
        for (dot, condemnation) in &mut self.standing {
            if !prerequisite.contains(dot) && *dot != packet.dot {
                void_referred(&mut condemnation.packs, &referred);
            }
        }
        for (index, change) in (0u32..).zip(&packet.body.changes) {
            match change {
                Change::Retain { retention } => {
                    let Dot { device, counter } = packet.dot;
                    let stamp = Stamp { lamport: packet.body.lamport, device, counter, index };
                    if self.retained.as_ref().is_none_or(|retained| retained.stamp < stamp) {
                        self.retained = Some(Register { stamp, value: *retention });
                    }
                }
                Change::Condemn { packs, history } => {
                    let mut packs: BTreeMap<PackId, bool> = packs.iter().map(|pack| (*pack, false)).collect();
                    void_referred(&mut packs, &referred);
                    void_referred(&mut packs, concurrent);
                    self.condemn(packet, prerequisite, packs, history);
                }
                _ => {}
            }
        }
    }

    fn condemn(
        &mut self,
        packet: &Packet,
        prerequisite: &Knowledge,
        packs: BTreeMap<PackId, bool>,
        history: &Knowledge,
    ) {
        let dot = packet.dot;
        let lamport = packet.body.lamport;
        // Nobody can have folded more than what its author says that it had.
        let mut history_is_void = !prerequisite.includes(history);
        if !history.is_empty() {
            let others = self.standing.iter_mut().filter(|(other, standing)| {
                !standing.history.is_empty() && !prerequisite.contains(other) && **other != dot
            });
            // By pairs, void ones too: else it would matter which came first.
            for (other, standing) in others {
                let is_earlier = (standing.lamport, other.device) < (lamport, dot.device);
                history_is_void |= is_earlier;
                standing.history_is_void |= !is_earlier;
            }
        }
        // One packet condemns once; of a second change of that kind only the packs join.
        let entry = self.standing.entry(dot).or_insert(Condemnation {
            lamport,
            packs: BTreeMap::new(),
            history: history.clone(),
            history_is_void,
            is_doubtful: false,
        });
        entry.packs.extend(packs);
    }

    /// Notes that it cannot be told whether a condemnation is void: of the packets that it did not know some are not here.
    ///
    /// Nobody who has it from here deletes the packs that it names, nor refers to them.
    pub fn doubt(&mut self, dot: &Dot) {
        if let Some(condemnation) = self.standing.get_mut(dot) {
            condemnation.is_doubtful = true;
        }
    }

    /// Up to where history was deleted already.
    pub fn ended(&self) -> &Knowledge {
        &self.ended
    }

    /// Whether history begins at this point, or is to once all have answered.
    pub fn is_base(&self, knowledge: &Knowledge) -> bool {
        let mut histories = self.standing().filter_map(|(_, condemnation)| condemnation.condemned_history());
        knowledge == self.ended() || histories.any(|history| history == knowledge)
    }

    /// Whether a new reference to a pack may be made by whoever has folded this.
    pub fn may_refer(&self, pack: &PackId) -> bool {
        self.standing.values().all(|condemnation| condemnation.packs.get(pack).is_none_or(|void| *void))
    }

    /// The packs to which no new reference may be made.
    pub fn condemned(&self) -> BTreeSet<PackId> {
        self.standing.values().flat_map(Condemnation::condemned_packs).copied().collect()
    }

    /// What is condemned and not done yet, by the packets that say so.
    pub fn standing(&self) -> impl Iterator<Item = (&Dot, &Condemnation)> {
        self.standing.iter()
    }

    /// Where history begins: what lies before is condemned or gone, and a checkpoint has exactly this knowledge.
    pub fn horizon(&self) -> &Knowledge {
        let histories = self.standing.values().filter_map(Condemnation::condemned_history);
        // Those that stand lie within one another.
        histories.fold(&self.ended, |horizon, history| if history.includes(horizon) { history } else { horizon })
    }

    /// Whether somebody who had folded this much, and no more, knew all that was condemned here, done or not.
    pub fn is_known_to(&self, known: &Knowledge) -> bool {
        let standing = self.standing.iter().filter(|(_, condemnation)| !condemnation.is_void());
        known.includes(self.horizon())
            && standing.into_iter().all(|(dot, _)| known.contains(dot))
            && self.finished.iter().all(|(device, counter)| known.counter(device) >= *counter)
    }

    /// Whether the device `own` is to make an empty packet, where its last packet has this prerequisite and nothing else is
    /// to be said.
    pub fn awaits_answer(&self, own: &DeviceId, own_prerequisite: &Knowledge) -> bool {
        let unanswered = |dot: &Dot| dot.device != *own && !own_prerequisite.contains(dot);
        self.standing.iter().any(|(dot, condemnation)| unanswered(dot) && !condemnation.is_void())
    }

    /// The condemnations that every device which is waited for has answered, by what was folded here.
    ///
    /// `known` is the prerequisite of the last folded packet of a device. This device is asked like any other: one that
    /// deleted and forgot before it had answered would leave the others waiting for ever.
    pub fn answered<'a>(&self, awaited: &Awaited, known: impl Fn(&DeviceId) -> Option<&'a Knowledge>) -> Vec<Dot> {
        self.standing.keys().filter(|dot| awaited.lacking(dot, &known).is_empty()).copied().collect()
    }

    /// Notes that what was condemned there is deleted. Harmless when it is said too early by a crash: it is said last.
    pub fn finish(&mut self, dot: &Dot) {
        let Some(done) = self.standing.remove(dot) else { return };
        if let Some(history) = done.condemned_history() {
            self.ended.merge(history);
        }
        // What is void for all that it names was never carried out.
        if !done.is_void() {
            let last = self.finished.entry(dot.device).or_default();
            *last = dot.counter.max(*last);
        }
    }

    /// Takes over what a record that has folded more knows of the same condemnations: which are void, and which are done.
    ///
    /// For a state folded anew up to an earlier point, so that whoever begins from it knows no less than whoever wrote it.
    pub fn adopt(&mut self, later: &Garbage) {
        self.ended = later.ended.clone();
        self.finished = later.finished.clone();
        self.standing = std::mem::take(&mut self.standing)
            .into_keys()
            .filter_map(|dot| later.standing.get(&dot).map(|known| (dot, known.clone())))
            .collect();
    }

    /// Appends all that was folded, for an index or a checkpoint.
    pub fn encode(&self, out: &mut Writer) {
        match &self.retained {
            None => drop(out.u8(0)),
            Some(retained) => {
                out.u8(1);
                encode_stamp(&retained.stamp, out);
                retained.value.encode(out);
            }
        }
        self.ended.encode(out);
        out.varint(self.finished.len() as u64);
        for (device, counter) in &self.finished {
            out.raw(&device.0).varint(*counter);
        }
        out.varint(self.standing.len() as u64);
        for (dot, Condemnation { lamport, packs, history, history_is_void, is_doubtful }) in &self.standing {
            out.raw(&dot.device.0).varint(dot.counter).varint(*lamport).varint(packs.len() as u64);
            for (pack, void) in packs {
                out.raw(&pack.0).u8((*void).into());
            }
            history.encode(out);
            out.u8((*history_is_void).into()).u8((*is_doubtful).into());
        }
    }

    /// Reads what [`encode`](Self::encode) wrote.
    pub fn decode(input: &mut Reader<'_>) -> Result<Self, WireError> {
        let retained = match input.u8()? {
            0 => None,
            1 => Some(Register { stamp: decode_stamp(input)?, value: Retention::decode(input)? }),
            _ => return Err(WireError::NotCanonical),
        };
        let ended = Knowledge::decode(input)?;
        let mut finished: BTreeMap<DeviceId, Counter> = BTreeMap::new();
        for _ in 0..input.count(DeviceId::LEN + 1)? {
            let (device, counter) = (DeviceId(input.array()?), input.varint()?);
            if counter == 0 || finished.last_key_value().is_some_and(|(last, _)| *last >= device) {
                return Err(WireError::NotCanonical);
            }
            finished.insert(device, counter);
        }
        let mut standing: BTreeMap<Dot, Condemnation> = BTreeMap::new();
        for _ in 0..input.count(DeviceId::LEN + 5)? {
            let dot = Dot { device: DeviceId(input.array()?), counter: input.varint()? };
            let lamport = input.varint()?;
            let mut packs: BTreeMap<PackId, bool> = BTreeMap::new();
            for _ in 0..input.count(PackId::LEN + 1)? {
                let pack = PackId(input.array()?);
                if packs.last_key_value().is_some_and(|(last, _)| *last >= pack) {
                    return Err(WireError::NotCanonical);
                }
                packs.insert(pack, decode_flag(input)?);
            }
            let history = Knowledge::decode(input)?;
            let (history_is_void, is_doubtful) = (decode_flag(input)?, decode_flag(input)?);
            if dot.counter == 0 || standing.last_key_value().is_some_and(|(last, _)| *last >= dot) {
                return Err(WireError::NotCanonical);
            }
            standing.insert(dot, Condemnation { lamport, packs, history, history_is_void, is_doubtful });
        }
        Ok(Self { retained, ended, finished, standing })
    }
}

/// The packs to which a packet refers: those it needs, and those it tells of.
pub fn references(packet: &Packet) -> impl Iterator<Item = PackId> {
    packet.body.needs.iter().copied().chain(packet.body.packs.iter().map(|pack| pack.pack))
}

/// Whether folding a packet must be told what packets that it does not know refer to.
pub fn condemns_packs(packet: &Packet) -> bool {
    let condemns = |change: &Change| matches!(change, Change::Condemn { packs, .. } if !packs.is_empty());
    packet.body.changes.iter().any(condemns)
}

/// Whether a packet condemns anything, packs or history.
pub fn condemns(packet: &Packet) -> bool {
    packet.body.changes.iter().any(|change| matches!(change, Change::Condemn { .. }))
}

/// Whether a packet says anything of garbage or refers to what may be condemned.
pub fn concerns(packet: &Packet) -> bool {
    let says = |change: &Change| matches!(change, Change::Condemn { .. } | Change::Retain { .. });
    packet.body.changes.iter().any(says) || references(packet).next().is_some()
}

/// Whether a device may refer to packs that others wrote: all that are waited for know that it exists.
///
/// Until then somebody may delete what it refers to without having waited for its answer.
/// `known` is the prerequisite of the last folded packet of a device.
pub fn is_known_to_all<'a>(
    own: &DeviceId,
    awaited: &Awaited,
    known: impl Fn(&DeviceId) -> Option<&'a Knowledge>,
) -> bool {
    let introduced = Dot { device: *own, counter: 1 };
    let knows = |device: &DeviceId| known(device).is_some_and(|knowledge| knowledge.contains(&introduced));
    awaited.devices.iter().filter(|device| *device != own).all(knows)
}

fn void_referred(packs: &mut BTreeMap<PackId, bool>, referred: &BTreeSet<PackId>) {
    for (_, void) in packs.iter_mut().filter(|(pack, _)| referred.contains(*pack)) {
        *void = true;
    }
}

fn decode_flag(input: &mut Reader<'_>) -> Result<bool, WireError> {
    match input.u8()? {
        0 => Ok(false),
        1 => Ok(true),
        _ => Err(WireError::NotCanonical),
    }
}

#[cfg(test)]
mod model;
#[cfg(test)]
mod tests;
