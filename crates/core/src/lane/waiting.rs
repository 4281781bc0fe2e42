//! Packets that came before what they build on, until they may be folded.
//!
//! The buffer is bounded in bytes. Where it is full it lets the latest in (Lamport, device) order go:
//! nothing that stays builds on those, and they will be asked for again.
//! Two packets of one dot (a fork) both stay; the one with the smaller hash comes out first.

use std::collections::{BTreeMap, BTreeSet};
use std::ops::RangeInclusive;

use super::{Carriers, missing, objection};
use crate::garbage::Garbage;
use crate::ids::{Counter, DeviceId, Dot, Lamport, PacketHash};
use crate::knowledge::Knowledge;
use crate::members::Members;
use crate::packet::Packet;

/// Packets that wait for others, in the order in which they will be folded.
#[derive(Clone, Debug)]
pub struct Waiting {
    limit: usize,
    bytes: usize,
    packets: BTreeMap<Place, Held>,
    dots: BTreeSet<(Dot, PacketHash)>,
    /// Those that may be ready.
    candidates: BTreeSet<Place>,
    /// Those that are not, by the lane and counter that they wait for.
    blocked: BTreeMap<DeviceId, BTreeSet<(Counter, Place)>>,
}

/// What became of a packet that was to wait.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Buffered {
    /// It waits.
    Waits,
    /// It waits already.
    Present,
    /// There is no room, and all that is here comes before it; it is to be asked for again.
    Full,
}

/// Smallest first is the order of folding; a packet's place never changes.
type Place = (Lamport, DeviceId, Counter, PacketHash);

#[derive(Clone, Debug)]
struct Held {
    packet: Packet,
    size: usize,
    /// Where it stands in `blocked`; otherwise it is a candidate.
    blocked: Option<(DeviceId, Counter)>,
}

impl Waiting {
    /// An empty buffer for at most `limit` bytes of packets.
    pub fn new(limit: usize) -> Self {
        Self {
            limit,
            bytes: 0,
            packets: BTreeMap::new(),
            dots: BTreeSet::new(),
            candidates: BTreeSet::new(),
            blocked: BTreeMap::new(),
        }
    }

    /// Keeps a packet; `size` is what it counts for, in bytes.
    pub fn insert(&mut self, packet: Packet, size: usize) -> Buffered {
        let place = place(&packet);
        if self.packets.contains_key(&place) {
            return Buffered::Present;
        }
        self.bytes = self.bytes.saturating_add(size);
        self.dots.insert((packet.dot, packet.hash));
        self.candidates.insert(place);
        self.packets.insert(place, Held { packet, size, blocked: None });
        while self.bytes > self.limit {
            let (last, _) = self.packets.last_key_value().expect("what has bytes has packets");
            let last = *last;
            self.remove(&last);
            if last == place {
                return Buffered::Full;
            }
        }
        Buffered::Waits
    }

    /// Takes out the next packet that waits for nothing more: the smallest in (Lamport, device) order, introductions last.
    ///
    /// Whoever folds what was condemned before it folds an introduction that does not know it refuses that, as the others do
    /// who answered; in the other order it would build on a device that nobody else will ever know.
    ///
    /// A packet whose place in its lane is folded already comes out as well, so that a fork is noticed.
    pub fn ready(&mut self, knowledge: &Knowledge) -> Option<Packet> {
        self.unblock(knowledge);
        let is_later = |place: &&Place| place.2 > 1;
        while let Some(place) = self.candidates.iter().find(is_later).or(self.candidates.first()).copied() {
            let held = self.packets.get_mut(&place).expect("a candidate is held");
            if knowledge.contains(&held.packet.dot) {
                return self.remove(&place);
            }
            let Some((device, counter)) = missing(knowledge, &held.packet).into_iter().next() else {
                return self.remove(&place);
            };
            held.blocked = Some((device, counter));
            self.candidates.remove(&place);
            self.blocked.entry(device).or_default().insert((counter, place));
        }
        None
    }

    /// What to ask for so that all that waits can be folded: runs of packets that are neither folded nor here.
    pub fn missing(&self, knowledge: &Knowledge) -> Vec<(DeviceId, RangeInclusive<Counter>)> {
        let mut needed: BTreeMap<DeviceId, Counter> = BTreeMap::new();
        for (device, counter) in self.packets.values().flat_map(|held| missing(knowledge, &held.packet)) {
            let greatest = needed.entry(device).or_default();
            *greatest = counter.max(*greatest);
        }
        let mut runs = Vec::new();
        for (device, last) in needed {
            let first = knowledge.counter(&device) + 1;
            let from = (Dot { device, counter: first }, PacketHash([0; 32]));
            let to = (Dot { device, counter: last }, PacketHash([0xff; 32]));
            let mut next = Some(first);
            for (Dot { counter, .. }, _) in self.dots.range(from..=to) {
                if let Some(next) = next
                    && next < *counter
                {
                    runs.push((device, next..=counter - 1));
                }
                next = counter.checked_add(1);
            }
            if let Some(next) = next
                && next <= last
            {
                runs.push((device, next..=last));
            }
        }
        runs
    }

    /// Whether a packet that waits here, of a member in good standing, has `dot` in its prerequisite. Those that `is_outside`
    /// names carry nothing.
    pub fn carries(
        &self,
        dot: &Dot,
        carriers: Carriers,
        members: &Members,
        garbage: &Garbage,
        is_outside: impl Fn(&Dot) -> bool,
    ) -> bool {
        self.packets.values().filter(|held| !is_outside(&held.packet.dot)).any(|Held { packet, .. }| {
            // Whoever is no member yet carries nothing but by a sound introduction: anyone who had the key once could.
            let is_newcomer = packet.dot.counter == 1 && carriers == Carriers::Newcomers;
            let may_carry = is_newcomer || members.get(&packet.dot.device).is_some();
            may_carry && packet.body.prerequisite.contains(dot) && objection(members, garbage, packet).is_none()
        })
    }

    /// Adds the lanes of which something waits for packets of these lanes, each from the first that does.
    pub fn add_those_who_wait_for(&self, lanes: &mut BTreeMap<DeviceId, Counter>, knowledge: &Knowledge) {
        let mut is_more = true;
        while std::mem::take(&mut is_more) {
            for Held { packet, .. } in self.packets.values() {
                let Dot { device, counter } = packet.dot;
                let is_among =
                    |device: &DeviceId, counter: Counter| lanes.get(device).is_some_and(|from| *from <= counter);
                let waits = || missing(knowledge, packet).iter().any(|(device, counter)| is_among(device, *counter));
                if !is_among(&device, counter) && waits() {
                    lanes.insert(device, counter);
                    is_more = true;
                }
            }
        }
    }

    /// How many packets wait.
    pub fn len(&self) -> usize {
        self.packets.len()
    }

    /// Whether none does.
    pub fn is_empty(&self) -> bool {
        self.packets.is_empty()
    }

    /// How many bytes they count for.
    pub fn bytes(&self) -> usize {
        self.bytes
    }

    /// Makes candidates of those that waited for what is folded now.
    fn unblock(&mut self, knowledge: &Knowledge) {
        for (device, blocked) in &mut self.blocked {
            let folded = knowledge.counter(device);
            while let Some((counter, place)) = blocked.first().copied()
                && counter <= folded
            {
                blocked.pop_first();
                self.packets.get_mut(&place).expect("what is blocked is held").blocked = None;
                self.candidates.insert(place);
            }
        }
        self.blocked.retain(|_, blocked| !blocked.is_empty());
    }

    fn remove(&mut self, place: &Place) -> Option<Packet> {
        let held = self.packets.remove(place)?;
        self.bytes -= held.size;
        self.dots.remove(&(held.packet.dot, held.packet.hash));
        match held.blocked {
            None => {
                self.candidates.remove(place);
            }
            Some((device, counter)) => {
                if let Some(blocked) = self.blocked.get_mut(&device) {
                    blocked.remove(&(counter, *place));
                }
            }
        }
        Some(held.packet)
    }
}

fn place(packet: &Packet) -> Place {
    (packet.body.lamport, packet.dot.device, packet.dot.counter, packet.hash)
}
