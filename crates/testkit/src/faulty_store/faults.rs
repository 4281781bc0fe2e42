//! The ways in which a simulated intermediary misbehaves, and how often.

use std::collections::BTreeMap;

/// One way to misbehave.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Debug)]
pub enum Fault {
    /// A call fails without effect; the next may work.
    Transient,
    /// A put or delete is carried out and reported as failed.
    StoredButFailed,
    /// A put fails and leaves the beginning of the object under its name.
    Torn,
    /// A put or delete shows only some calls later, to everyone.
    DelayedVisibility,
    /// A listing shows what was there some calls ago.
    StaleListing,
    /// A read below `tips/` yields any version that was ever there.
    ReplayedTip,
    /// A put is refused because the storage is full.
    Full,
    /// One bit of what a read yields is wrong; what is stored is not.
    FlippedBit,
}

impl Fault {
    /// Every fault there is.
    pub const ALL: [Fault; 8] = [
        Fault::Transient,
        Fault::StoredButFailed,
        Fault::Torn,
        Fault::DelayedVisibility,
        Fault::StaleListing,
        Fault::ReplayedTip,
        Fault::Full,
        Fault::FlippedBit,
    ];
}

/// How often each fault happens.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct FaultConfig {
    per_mille: BTreeMap<Fault, u64>,
    greatest_delay: u64,
}

impl FaultConfig {
    /// A storage that behaves.
    pub fn none() -> Self {
        Self { per_mille: BTreeMap::new(), greatest_delay: 10 }
    }

    /// Every fault, each `per_mille` times in a thousand where it can happen.
    pub fn all(per_mille: u64) -> Self {
        Fault::ALL.into_iter().fold(Self::none(), |config, fault| config.with(fault, per_mille))
    }

    /// The same with one fault happening `per_mille` times in a thousand.
    #[must_use]
    pub fn with(mut self, fault: Fault, per_mille: u64) -> Self {
        self.per_mille.insert(fault, per_mille);
        self
    }

    /// The same with visibility delayed, and listings stale, by at most so many calls of anyone (10 unless told).
    #[must_use]
    pub fn with_greatest_delay(mut self, calls: u64) -> Self {
        self.greatest_delay = calls;
        self
    }

    /// By how many calls of anyone visibility is delayed, and listings are stale, at most.
    pub fn greatest_delay(&self) -> u64 {
        self.greatest_delay
    }

    /// How often a fault happens, in a thousand.
    pub fn per_mille(&self, fault: Fault) -> u64 {
        self.per_mille.get(&fault).copied().unwrap_or(0)
    }
}

/// How many requests were made, failed ones included.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub struct Requests {
    /// Puts of both kinds.
    pub puts: u64,
    /// Reads of whole objects and of ranges.
    pub gets: u64,
    /// Listings.
    pub lists: u64,
    /// Removals.
    pub deletes: u64,
}

impl Requests {
    /// All of them.
    pub fn total(self) -> u64 {
        self.puts + self.gets + self.lists + self.deletes
    }

    /// Those that may change something.
    pub fn mutating(self) -> u64 {
        self.puts + self.deletes
    }
}
