//! Comparing two sets of items, each known by when it arrived and by its hash, by range-based set reconciliation.
//!
//! The sets are ordered by arrival, then hash. One side sends fingerprints of sixteen ranges; where they differ, the
//! other splits the range, and so on until a range is so short that its hashes are sent (negentropy, after Aljoscha
//! Meyer, "Range-Based Set Reconciliation"). Arrival comes first because differences are mostly recent: they then lie
//! in one range, and a million items with ten new ones cost a few kilobytes.
//! Arrival is what the *server* says (POP3 and packets: when the intermediary or server had it), because it must be the
//! same on both devices; an item whose arrival the two see differently counts as two and is fetched in vain, no worse.
//!
//! The initiator learns both differences, the responder none; whoever initiates says what it wants and offers the rest.
//! A peer can lie about what it has, which costs it a request; it can make this side neither loop nor remember more
//! than its limits, and hashes are looked at again when the item comes.

use std::collections::BTreeSet;
use std::fmt;

use negentropy::{Id, Negentropy, NegentropyStorageVector};

use super::CompareError;

/// An item as it is compared.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Entry {
    /// When the server had it, in any unit that both devices share.
    pub arrival: u64,
    /// What it is known by.
    pub hash: [u8; 32],
}

/// A set of items, as it was at one moment.
pub struct Catalogue {
    storage: NegentropyStorageVector,
    count: usize,
}

impl Catalogue {
    /// The set of these items, in any order.
    pub fn new(entries: impl IntoIterator<Item = Entry>) -> Self {
        let entries = entries.into_iter();
        let mut storage = NegentropyStorageVector::with_capacity(entries.size_hint().0);
        let mut count = 0;
        for entry in entries {
            // The greatest arrival stands for the end of all ranges.
            let arrival = entry.arrival.min(u64::MAX - 1);
            storage.insert(arrival, Id::from_byte_array(entry.hash)).expect("it is not sealed yet");
            count += 1;
        }
        storage.seal().expect("it is sealed once");
        Self { storage, count }
    }

    /// Begins a comparison; the frame goes to the peer.
    pub fn initiate(&self, limits: Limits) -> Result<(Initiator<'_>, Vec<u8>), CompareError> {
        let mut negentropy = limits.negentropy(&self.storage)?;
        let frame = negentropy.initiate().map_err(nonsense)?;
        let initiator = Initiator { negentropy, limits, rounds: 0, have: BTreeSet::new(), need: BTreeSet::new() };
        Ok((initiator, frame))
    }

    /// Takes part in a comparison that the peer begins.
    pub fn respond(&self, limits: Limits) -> Result<Responder<'_>, CompareError> {
        Ok(Responder { negentropy: limits.negentropy(&self.storage)?, limits, rounds: 0 })
    }
}

impl fmt::Debug for Catalogue {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Catalogue({} items)", self.count)
    }
}

/// What a comparison may take.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Limits {
    /// Longest frame of either side, in bytes; at least 4096.
    pub frame_bytes: usize,
    /// Most frames of the peer.
    pub rounds: u32,
}

impl Default for Limits {
    fn default() -> Self {
        Self { frame_bytes: 256 << 10, rounds: 1000 }
    }
}

impl Limits {
    fn negentropy<'a>(
        &self,
        storage: &'a NegentropyStorageVector,
    ) -> Result<Negentropy<'a, NegentropyStorageVector>, CompareError> {
        Negentropy::borrowed(storage, self.frame_bytes.max(LEAST_FRAME) as u64).map_err(nonsense)
    }

    fn check(&self, frame: &[u8], rounds: &mut u32) -> Result<(), CompareError> {
        let limit = self.frame_bytes.max(LEAST_FRAME);
        if frame.len() > limit {
            return Err(CompareError::TooLong { length: frame.len(), limit });
        }
        *rounds += 1;
        if *rounds > self.rounds { Err(CompareError::Endless { rounds: self.rounds }) } else { Ok(()) }
    }
}

/// The side that began, and that learns the differences.
pub struct Initiator<'a> {
    negentropy: Negentropy<'a, NegentropyStorageVector>,
    limits: Limits,
    rounds: u32,
    have: BTreeSet<[u8; 32]>,
    need: BTreeSet<[u8; 32]>,
}

impl Initiator<'_> {
    /// Takes the peer's answer to the last frame.
    pub fn handle(mut self, frame: &[u8]) -> Result<Step<Self>, CompareError> {
        self.limits.check(frame, &mut self.rounds)?;
        let (mut have, mut need) = (Vec::new(), Vec::new());
        let next = self.negentropy.reconcile_with_ids(frame, &mut have, &mut need).map_err(nonsense)?;
        // Ranges that were cut off at the frame's limit come again, and so may some of their items.
        self.have.extend(have.into_iter().map(Id::to_bytes));
        self.need.extend(need.into_iter().map(Id::to_bytes));
        Ok(match next {
            Some(frame) => Step::Ask { comparison: self, frame },
            None => Step::Done(Difference { have: self.have, need: self.need, rounds: self.rounds }),
        })
    }
}

impl fmt::Debug for Initiator<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Initiator").field("rounds", &self.rounds).finish_non_exhaustive()
    }
}

/// How a comparison goes on.
#[derive(Debug)]
pub enum Step<C> {
    /// Another frame goes to the peer.
    Ask {
        /// What takes the answer.
        comparison: C,
        /// What goes to the peer.
        frame: Vec<u8>,
    },
    /// It is at its end.
    Done(Difference),
}

/// What two devices have that the other has not.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Difference {
    /// Hashes of what is here and not at the peer.
    pub have: BTreeSet<[u8; 32]>,
    /// Hashes of what is at the peer, as it says, and not here.
    pub need: BTreeSet<[u8; 32]>,
    /// How often frames went there and back.
    pub rounds: u32,
}

/// The side that answers.
pub struct Responder<'a> {
    negentropy: Negentropy<'a, NegentropyStorageVector>,
    limits: Limits,
    rounds: u32,
}

impl Responder<'_> {
    /// Answers a frame of the initiator.
    pub fn handle(&mut self, frame: &[u8]) -> Result<Vec<u8>, CompareError> {
        self.limits.check(frame, &mut self.rounds)?;
        self.negentropy.reconcile(frame).map_err(nonsense)
    }
}

impl fmt::Debug for Responder<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Responder").field("rounds", &self.rounds).finish_non_exhaustive()
    }
}

fn nonsense(error: negentropy::Error) -> CompareError {
    CompareError::Nonsense { reason: error.to_string() }
}

/// Below this a frame could not hold one split range.
const LEAST_FRAME: usize = 4096;

#[cfg(test)]
mod tests;
