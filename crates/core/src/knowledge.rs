//! Knowledge: the packets a replica has folded, as a version vector with packet hashes.
//!
//! For each device it holds the counter up to which every packet of that lane was folded, and the hash of the last.
//! Because each packet names its predecessor's hash, one hash stands for the lane's whole history:
//! two replicas whose vectors agree at a counter agree on everything before it.
//! Knowledge only grows. It is the *prerequisite* and *learned knowledge* of US 7,778,962.

use std::collections::BTreeMap;

use crate::ids::{Counter, DeviceId, Dot, PacketHash};
use crate::wire::{Reader, WireError, Writer};

/// How far a lane was learned.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Learned {
    /// Every packet up to this one was folded.
    pub counter: Counter,
    /// The hash of the packet at `counter`.
    pub hash: PacketHash,
}

/// A version vector: per device, how far its lane was learned.
#[derive(Clone, PartialEq, Eq, Default, Debug)]
pub struct Knowledge {
    lanes: BTreeMap<DeviceId, Learned>,
}

impl Knowledge {
    /// Knowledge of nothing.
    pub fn new() -> Self {
        Self::default()
    }

    /// How far the lane of `device` was learned.
    pub fn of(&self, device: &DeviceId) -> Option<Learned> {
        self.lanes.get(device).copied()
    }

    /// The counter up to which the lane of `device` was learned; 0 for none.
    pub fn counter(&self, device: &DeviceId) -> Counter {
        self.lanes.get(device).map_or(0, |learned| learned.counter)
    }

    /// Whether a packet of anybody but this device was learned.
    pub fn tells_of_others(&self, own: &DeviceId) -> bool {
        self.lanes.keys().any(|device| device != own)
    }

    /// Whether the packet `dot` was learned.
    pub fn contains(&self, dot: &Dot) -> bool {
        dot.counter <= self.counter(&dot.device)
    }

    /// Whether everything in `other` was learned.
    pub fn includes(&self, other: &Knowledge) -> bool {
        other.lanes.iter().all(|(device, learned)| learned.counter <= self.counter(device))
    }

    /// Notes that a lane was learned up to `learned`; what is known already stays.
    pub fn advance(&mut self, device: DeviceId, learned: Learned) {
        let entry = self.lanes.entry(device).or_insert(learned);
        if learned.counter > entry.counter {
            *entry = learned;
        }
    }

    /// Adds all that `other` has learned.
    pub fn merge(&mut self, other: &Knowledge) {
        for (device, learned) in &other.lanes {
            self.advance(*device, *learned);
        }
    }

    /// What `self` has learned beyond `earlier`: the entries that differ.
    pub fn since(&self, earlier: &Knowledge) -> Knowledge {
        let lanes = self
            .lanes
            .iter()
            .filter(|(device, learned)| earlier.lanes.get(*device) != Some(*learned))
            .map(|(device, learned)| (*device, *learned))
            .collect();
        Knowledge { lanes }
    }

    /// The lanes in order of device id.
    pub fn iter(&self) -> impl Iterator<Item = (&DeviceId, &Learned)> {
        self.lanes.iter()
    }

    /// How many lanes are known.
    pub fn len(&self) -> usize {
        self.lanes.len()
    }

    /// Whether nothing was learned.
    pub fn is_empty(&self) -> bool {
        self.lanes.is_empty()
    }

    /// A hash of the whole vector: equal on two devices exactly when they have learned the same.
    pub fn state_hash(&self) -> [u8; 32] {
        let mut writer = Writer::new();
        self.encode(&mut writer);
        blake3::derive_key("packetboat 2026 knowledge state", &writer.finish())
    }

    /// Appends the vector: a count, then device, counter and hash of each lane by device id.
    pub fn encode(&self, writer: &mut Writer) {
        writer.varint(self.lanes.len() as u64);
        for (device, learned) in &self.lanes {
            writer.raw(&device.0).varint(learned.counter).raw(&learned.hash.0);
        }
    }

    /// Reads what [`encode`](Self::encode) wrote.
    pub fn decode(reader: &mut Reader<'_>) -> Result<Self, WireError> {
        let count = reader.count(DeviceId::LEN + 1 + PacketHash::LEN)?;
        let mut lanes = BTreeMap::new();
        for _ in 0..count {
            let device = DeviceId(reader.array()?);
            let learned = Learned { counter: reader.varint()?, hash: PacketHash(reader.array()?) };
            if learned.counter == 0 || lanes.last_key_value().is_some_and(|(last, _)| *last >= device) {
                return Err(WireError::NotCanonical);
            }
            lanes.insert(device, learned);
        }
        Ok(Self { lanes })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn learned(counter: Counter) -> Learned {
        Learned { counter, hash: PacketHash([counter as u8; 32]) }
    }

    #[test]
    fn knowledge_only_grows() {
        let device = DeviceId([1; 32]);
        let mut knowledge = Knowledge::new();
        knowledge.advance(device, learned(3));
        knowledge.advance(device, learned(2));
        assert_eq!(knowledge.counter(&device), 3);
        assert!(knowledge.contains(&Dot { device, counter: 3 }));
        assert!(!knowledge.contains(&Dot { device, counter: 4 }));
    }

    #[test]
    fn what_was_learned_since_restores_the_whole() {
        let mut earlier = Knowledge::new();
        earlier.advance(DeviceId([1; 32]), learned(3));
        let mut later = earlier.clone();
        later.advance(DeviceId([2; 32]), learned(1));
        let delta = later.since(&earlier);
        assert_eq!(delta.len(), 1);
        earlier.merge(&delta);
        assert_eq!(earlier, later);
        assert_eq!(earlier.state_hash(), later.state_hash());
    }
}
