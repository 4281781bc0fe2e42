//! Lanes: whether a packet may be folded now, later, or never.
//!
//! A packet is folded when it continues its lane, when all in its prerequisite is folded, and when what it says of
//! its place in history is true. [`Lanes::admit`] decides that and changes nothing; [`Waiting`] keeps what must wait.
//!
//! Each packet writes down only what its prerequisite gained since its predecessor's. The whole prerequisite is its
//! predecessor's whole one, the predecessor itself, and that gain; [`LaneEnd`] is what a replica keeps of each lane
//! to go on from there. Lamport times rise along every such step, so the greatest in a prerequisite is
//! that of the predecessor or of a packet that the gain names.
//!
//! A replica that began from a checkpoint cannot look up packets older than that. What a packet says about one of those
//! is checked as far as it goes: its Lamport time must lie between what is known and the last of that lane.
//!
//! What a packet's changes name as seen must lie in its prerequisite. One that names more would be folded with another
//! result where that was folded before it than where it comes after, so no replica folds it, nor what follows in its lane.
//! Whether it is refused follows from the packet and its lane alone, so all replicas refuse the same.
//!
//! A packet of a removed lane beyond the cut is folded only where a member in good standing has it in its prerequisite:
//! it was published before its carrier knew. One of a lane that was retired, not revoked, is folded as well where it knows
//! all that was condemned: nobody waits for its device, and it cannot build on what is gone.
//!
//! So it is with the introduction of a device under a key that was given up: the revoked one, which has that key, could
//! introduce itself anew. [`Waiting::carries`] finds the carriers, which wait for what they carry.
//!
//! So it is with an introduction that does not know all that was condemned: its device could build on what is deleted
//! meanwhile, since nobody waits for a device that nobody knows. Whoever answers a condemnation and had folded the
//! introduction before carries it, and then the new device is waited for as well.

mod waiting;

use thiserror::Error;

use crate::change::Change;
use crate::garbage::Garbage;
use crate::ids::{Counter, DeviceId, Dot, Epoch, Lamport, PacketHash};
use crate::knowledge::{Knowledge, Learned};
use crate::members::{Members, Standing};
use crate::packet::Packet;
pub use waiting::{Buffered, Waiting};

/// What a replica keeps of each lane: from where its next packet goes on.
#[derive(Clone, PartialEq, Eq, Default, Debug)]
pub struct LaneEnd {
    /// The Lamport time of the lane's last folded packet.
    pub lamport: Lamport,
    /// That packet's whole prerequisite; it is not in it itself.
    pub prerequisite: Knowledge,
}

impl LaneEnd {
    /// The end of a lane whose last packet is now this one, which was admitted with this prerequisite.
    pub fn after(packet: &Packet, prerequisite: Knowledge) -> Self {
        Self { lamport: packet.body.lamport, prerequisite }
    }
}

/// Finds the hash and Lamport time of a folded packet.
pub type PacketAt<'a> = dyn Fn(&DeviceId, Counter) -> Option<(PacketHash, Lamport)> + 'a;

/// What a replica has folded, as far as admission looks at it.
#[derive(Clone, Copy)]
pub struct Lanes<'a> {
    /// All that was folded.
    pub knowledge: &'a Knowledge,
    /// The end of the packet's own lane; none where nothing of it was folded.
    pub end: Option<&'a LaneEnd>,
    /// Who belongs to the vault.
    pub members: &'a Members,
    /// The hash and Lamport time of a folded packet; none where it is older than what this replica began from.
    /// The last packet of every lane must be found.
    pub packet_at: &'a PacketAt<'a>,
    /// What was condemned.
    pub garbage: &'a Garbage,
    /// Whether a packet of a member in good standing has this one in its prerequisite, see [`Waiting::carries`].
    pub carried: &'a dyn Fn(&Dot, Carriers) -> bool,
}

/// Who may carry a packet.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Carriers {
    /// Members.
    Members,
    /// Members, and whoever introduces itself soundly.
    Newcomers,
}

/// What is to be done with a packet.
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum Admission {
    /// Fold it now.
    Fold {
        /// Its whole prerequisite, for [`LaneEnd::after`].
        prerequisite: Knowledge,
    },
    /// It is folded already.
    Known,
    /// Its lane parts here from the one that was folded.
    Fork {
        /// The packet at which both are known to differ: this one, or its predecessor.
        at: Dot,
        /// The hash of the packet folded there.
        standing: PacketHash,
    },
    /// Something before it is not folded yet.
    Wait {
        /// Lanes, each with the counter up to which it is needed.
        missing: Vec<(DeviceId, Counter)>,
    },
    /// It can never be folded as it is, or not before someone carries it.
    Refused(Refusal),
}

/// Why a packet is not folded.
#[derive(Debug, Clone, PartialEq, Eq, Error)]
pub enum Refusal {
    /// A lane begins with its device introducing itself, and that happens once.
    #[error("a lane must begin with an introduction and have no other")]
    Introduction,
    /// Its author was revoked, and nobody in good standing has built on it.
    #[error("its author was revoked as of packet {cut}")]
    Revoked {
        /// The last counter that counts by itself.
        cut: Counter,
    },
    /// Its author was retired, and nobody in good standing has built on it.
    #[error("its author was retired as of packet {cut}")]
    Retired {
        /// The greatest counter that was known of it.
        cut: Counter,
    },
    /// It introduces a device that does not know all that was condemned, and nobody in good standing has built on it.
    #[error("it joins without knowing what was let go meanwhile")]
    Late,
    /// It introduces a device under a key that was given up, and nobody in good standing has built on it.
    #[error("it joins with the key of epoch {epoch}, which was given up when a device was revoked")]
    Outdated {
        /// The epoch in which it is sealed.
        epoch: Epoch,
    },
    /// Its prerequisite is of another history than the one folded here.
    #[error("it builds on a packet {at} that is not the one known here")]
    OtherHistory {
        /// The packet that differs.
        at: Dot,
    },
    /// A change names a version that its author cannot have seen.
    #[error("it names packet {named} as seen, which is not in its prerequisite")]
    Unseen {
        /// What it names.
        named: Dot,
    },
    /// Its Lamport time is not one more than the greatest before it.
    #[error("its logical time is {found} and should be {expected}")]
    Lamport {
        /// One more than the greatest in its prerequisite.
        expected: Lamport,
        /// What it says.
        found: Lamport,
    },
}

impl Lanes<'_> {
    /// Decides what is to be done with a packet.
    pub fn admit(&self, packet: &Packet) -> Admission {
        let Dot { device, counter } = packet.dot;
        if self.knowledge.contains(&packet.dot) {
            return match self.hash_at(&device, counter) {
                Some(standing) if standing != packet.hash => Admission::Fork { at: packet.dot, standing },
                // Where the hash is not known any more, the checkpoint contains the packet or its twin.
                _ => Admission::Known,
            };
        }
        if !introduces_where_it_must(packet) {
            return Admission::Refused(Refusal::Introduction);
        }
        if let Some(refusal) = objection(self.members, self.garbage, packet) {
            let knows_what_is_condemned = self.knows_what_is_condemned(packet);
            let is_harmless = matches!(refusal, Refusal::Retired { .. }) && knows_what_is_condemned;
            let carriers = if knows_what_is_condemned { Carriers::Newcomers } else { Carriers::Members };
            if !is_harmless && !(self.carried)(&packet.dot, carriers) {
                return Admission::Refused(refusal);
            }
        }
        let missing = missing(self.knowledge, packet);
        if let Some(last) = self.knowledge.of(&device)
            && counter.checked_sub(1) == Some(last.counter)
            && last.hash != packet.previous
        {
            return Admission::Fork { at: Dot { device, counter: last.counter }, standing: last.hash };
        }
        if !missing.is_empty() {
            return Admission::Wait { missing };
        }
        if let Err(refusal) = self.check_history(packet) {
            return Admission::Refused(refusal);
        }
        let mut prerequisite = self.end.map(|end| end.prerequisite.clone()).unwrap_or_default();
        prerequisite.merge(&packet.body.prerequisite);
        if counter > 1 {
            prerequisite.advance(device, Learned { counter: counter - 1, hash: packet.previous });
        }
        // Counters begin at 1: whatever is named 0 is no version, and lies in every prerequisite.
        let mut named = packet.body.changes.iter().flat_map(Change::named);
        match named.find(|dot| dot.counter == 0 || !prerequisite.contains(dot)) {
            Some(named) => Admission::Refused(Refusal::Unseen { named: *named }),
            None => Admission::Fold { prerequisite },
        }
    }

    /// Whether nothing that a packet does can build on what was condemned unknown to it.
    ///
    /// What a retired device made where nobody looked is folded then, and else where a member carries it.
    fn knows_what_is_condemned(&self, packet: &Packet) -> bool {
        let mut known = self.end.map(|end| end.prerequisite.clone()).unwrap_or_default();
        known.merge(&packet.body.prerequisite);
        if let Some(own) = self.knowledge.of(&packet.dot.device) {
            known.advance(packet.dot.device, own);
        }
        self.garbage.is_known_to(&known)
    }

    /// Checks what a packet says of those before it, all of which are folded.
    fn check_history(&self, packet: &Packet) -> Result<(), Refusal> {
        let mut least = self.end.map_or(0, |end| end.lamport);
        let mut greatest = least;
        for (device, learned) in packet.body.prerequisite.iter() {
            let at = Dot { device: *device, counter: learned.counter };
            if self.hash_at(device, learned.counter).is_some_and(|hash| hash != learned.hash) {
                return Err(Refusal::OtherHistory { at });
            }
            if let Some((_, lamport)) = (self.packet_at)(device, learned.counter) {
                least = least.max(lamport);
                greatest = greatest.max(lamport);
            } else {
                let last = (self.packet_at)(device, self.knowledge.counter(device));
                greatest = greatest.max(last.map_or(Lamport::MAX, |(_, lamport)| lamport));
            }
        }
        let found = packet.body.lamport;
        if found <= least || found > greatest.saturating_add(1) {
            return Err(Refusal::Lamport { expected: least.saturating_add(1), found });
        }
        Ok(())
    }

    fn hash_at(&self, device: &DeviceId, counter: Counter) -> Option<PacketHash> {
        match self.knowledge.of(device) {
            Some(last) if last.counter == counter => Some(last.hash),
            _ => (self.packet_at)(device, counter).map(|(hash, _)| hash),
        }
    }
}

/// Why a packet does not stand by itself, whatever it builds on.
fn objection(members: &Members, garbage: &Garbage, packet: &Packet) -> Option<Refusal> {
    let standing = members.standing(&packet.dot.device);
    match standing {
        Standing::Revoked { cut, .. } if !standing.covers(packet.dot.counter) => Some(Refusal::Revoked { cut }),
        Standing::Retired { cut } if !standing.covers(packet.dot.counter) => Some(Refusal::Retired { cut }),
        _ => {
            let given_up = members.epoch_key().is_some_and(|key| key.epoch > packet.epoch);
            match packet.dot.counter == 1 {
                true if given_up => Some(Refusal::Outdated { epoch: packet.epoch }),
                true if !garbage.is_known_to(&packet.body.prerequisite) => Some(Refusal::Late),
                _ => None,
            }
        }
    }
}

/// Whether a packet introduces its device exactly where it is the first of its lane.
fn introduces_where_it_must(packet: &Packet) -> bool {
    let introduces = |change: &Change| matches!(change, Change::Introduce { .. });
    let first = packet.body.changes.first().is_some_and(introduces);
    first == (packet.dot.counter == 1) && !packet.body.changes.iter().skip(1).any(introduces)
}

/// What must be folded before a packet and is not: lanes, each with the counter up to which it is needed.
fn missing(knowledge: &Knowledge, packet: &Packet) -> Vec<(DeviceId, Counter)> {
    let predecessor = (packet.dot.device, packet.dot.counter.saturating_sub(1));
    let gained = packet.body.prerequisite.iter().map(|(device, learned)| (*device, learned.counter));
    let needed = std::iter::once(predecessor).chain(gained);
    needed.filter(|(device, counter)| *counter > knowledge.counter(device)).collect()
}

#[cfg(test)]
mod tests;
