//! The past: an index of the vault as it was at an earlier point.
//!
//! It is folded anew from the packets up to that point, in memory or a nameless file, and knows where all content lies
//! that was current then: packs by the packets that announced them, small contents by the packets that carry them.
//! What is folded is always closed under prerequisites, so the result is a state that some device could have had.
//! Where old history was let go, folding goes on from the checkpoint at which it begins now; all in that is in the result.
//!
//! Packets are taken from the replica's own index, and from the lanes at the intermediary where it has let them go or
//! began from a checkpoint. One packet at a time is in memory.

use std::collections::BTreeMap;

use packetboat_core::garbage::references;
use packetboat_core::ids::{Counter, DeviceId, Dot};
use packetboat_core::keys::KeyRing;
use packetboat_core::knowledge::Learned;
use packetboat_core::packet::{MAX_PACKET_BYTES, Packet, SealedPacket};
use packetboat_core::store::Store;
use packetboat_core::tree::Folding;
use packetboat_replica::index::Index;

use crate::Keys;
use crate::builder::record_folded;
use crate::error::SyncError;
use crate::learn::packet_name;
use crate::replica::At;

/// The vault as it was at a point in its history, with everything in it touched, ready to be looked at or applied.
///
/// At a time, a packet counts when it and all before it were made by then, each by its author's clock.
pub(crate) fn index_at(source: &Index, store: &dyn Store, keys: &Keys, at: &At) -> Result<Index, SyncError> {
    let packets = Packets { source, store, keys };
    let past = match crate::checkpoints::base(source, store, keys)? {
        Some(base) => begun(base, at)?,
        None => Index::temporary()?,
    };
    let lanes: Vec<Lane> = match at {
        At::Time(_) => {
            source.knowledge().iter().map(|(device, learned)| Lane::up_to(*device, learned.counter)).collect()
        }
        At::Packet(dot) => {
            packets.before(dot, &past)?.into_iter().map(|(device, counter)| Lane::up_to(device, counter)).collect()
        }
    };
    let time = match at {
        At::Time(time) => *time,
        At::Packet(_) => i64::MAX,
    };
    fold_up_to(&packets, past, lanes, time)
}

/// The vault as the author of a packet knew it when it made the packet.
pub(crate) fn index_before(source: &Index, store: &dyn Store, keys: &Keys, dot: &Dot) -> Result<Index, SyncError> {
    let packets = Packets { source, store, keys };
    let past = match crate::checkpoints::base(source, store, keys)? {
        Some(base) => begun(base, &At::Packet(*dot))?,
        None => Index::temporary()?,
    };
    let mut lanes = packets.before(dot, &past)?;
    lanes.insert(dot.device, dot.counter - 1);
    fold_up_to(
        &packets,
        past,
        lanes.into_iter().map(|(device, counter)| Lane::up_to(device, counter)).collect(),
        i64::MAX,
    )
}

/// Folds lanes onto a past as far as they go and `time` allows.
fn fold_up_to(packets: &Packets<'_>, mut past: Index, mut lanes: Vec<Lane>, time: i64) -> Result<Index, SyncError> {
    loop {
        let before = past.knowledge().state_hash();
        for lane in &mut lanes {
            lane.fold_on(packets, &mut past, time)?;
        }
        if past.knowledge().state_hash() == before {
            return Ok(past);
        }
    }
}

/// The base, if what is asked for does not lie before it.
fn begun(base: Index, at: &At) -> Result<Index, SyncError> {
    let lies_before = match at {
        // As far as contents tell: of packets that are gone no other time is known.
        At::Time(time) => base.members()?.iter().any(|member| member.heard_time > *time),
        At::Packet(dot) => base.knowledge().contains(dot),
    };
    if lies_before { Err(SyncError::HistoryEnds) } else { Ok(base) }
}

/// A lane on its way into the past index.
struct Lane {
    device: DeviceId,
    last: Counter,
    /// What its next packet waits for.
    waits_for: Option<(DeviceId, Counter)>,
}

impl Lane {
    fn up_to(device: DeviceId, last: Counter) -> Self {
        Self { device, last, waits_for: None }
    }

    /// Folds the packets that were made by `time`, until one waits for another lane.
    fn fold_on(&mut self, packets: &Packets<'_>, past: &mut Index, time: i64) -> Result<(), SyncError> {
        loop {
            if self.waits_for.is_some_and(|(device, counter)| past.knowledge().counter(&device) < counter) {
                return Ok(());
            }
            self.waits_for = None;
            let dot = Dot { device: self.device, counter: past.knowledge().counter(&self.device) + 1 };
            if dot.counter > self.last {
                return Ok(());
            }
            let (sealed, packet) = packets.read(&dot)?;
            if packet.body.time > time {
                self.last = dot.counter - 1;
                return Ok(());
            }
            let needs = packet.body.prerequisite.iter();
            self.waits_for = needs
                .map(|(device, learned)| (*device, learned.counter))
                .find(|(device, counter)| past.knowledge().counter(device) < *counter);
            if self.waits_for.is_none() {
                fold(past, &packets.keys.ring, &sealed, &packet)?;
            }
        }
    }
}

fn fold(past: &mut Index, ring: &KeyRing, sealed: &SealedPacket, packet: &Packet) -> Result<(), SyncError> {
    let Dot { device, counter } = packet.dot;
    let standing = past.knowledge().of(&device);
    if standing.is_some_and(|standing| standing.hash != packet.previous) {
        return Err(SyncError::OtherPacket { packet: packet.dot });
    }
    let mut prerequisite = past.lane_prerequisite(device)?;
    prerequisite.merge(&packet.body.prerequisite);
    if counter > 1 {
        prerequisite.advance(device, Learned { counter: counter - 1, hash: packet.previous });
    }
    past.begin()?;
    record_folded(past, ring, sealed, packet, &prerequisite, Folding::Other)?;
    // A condemnation that comes later asks what this one refers to.
    if packet.body.inline.is_empty() && references(packet).next().is_none() {
        past.drop_sealed(packet.dot)?;
    }
    Ok(past.commit()?)
}

/// The packets that a replica has learned, wherever they are kept.
struct Packets<'a> {
    source: &'a Index,
    store: &'a dyn Store,
    keys: &'a Keys,
}

impl Packets<'_> {
    /// How far each lane goes that a packet builds on, its own lane with itself.
    fn before(&self, dot: &Dot, base: &Index) -> Result<BTreeMap<DeviceId, Counter>, SyncError> {
        if !self.source.knowledge().contains(dot) {
            return Err(SyncError::NoSuchPacket { packet: *dot });
        }
        let mut prerequisite = base.lane_prerequisite(dot.device)?;
        if self.source.knowledge().counter(&dot.device) == dot.counter {
            prerequisite = self.source.lane_prerequisite(dot.device)?;
        } else {
            // Each packet writes down only what its author had learned since the one before.
            for counter in base.knowledge().counter(&dot.device) + 1..=dot.counter {
                let (_, packet) = self.read(&Dot { counter, ..*dot })?;
                prerequisite.merge(&packet.body.prerequisite);
            }
        }
        let mut lanes: BTreeMap<DeviceId, Counter> =
            prerequisite.iter().map(|(device, learned)| (*device, learned.counter)).collect();
        lanes.insert(dot.device, dot.counter);
        Ok(lanes)
    }

    /// A packet that the source has folded; what lies elsewhere is taken only if it is the same.
    fn read(&self, dot: &Dot) -> Result<(SealedPacket, Packet), SyncError> {
        let sealed = match self.source.sealed_packet(*dot)? {
            Some(sealed) => sealed,
            None => SealedPacket::from_bytes(self.store.get(&packet_name(dot), MAX_PACKET_BYTES as u64)?)?,
        };
        let learned = self.source.packet_row(*dot)?.map(|row| row.hash);
        let last = self.source.knowledge().of(&dot.device).filter(|last| last.counter == dot.counter);
        let known = learned.or(last.map(|last| last.hash));
        if sealed.dot() != *dot || known.is_some_and(|known| known != sealed.hash()) {
            return Err(SyncError::OtherPacket { packet: *dot });
        }
        let packet = sealed.open(&self.keys.ring)?;
        Ok((sealed, packet))
    }
}

#[cfg(test)]
pub(crate) mod tests;
