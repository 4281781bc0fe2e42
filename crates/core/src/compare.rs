//! Comparing what two devices have, at a cost that grows with the difference and not with the set.
//!
//! Two ways, by what the ids are.
//! IMAP numbers the messages of a mailbox itself, so a whole mailbox is a few runs of numbers, and the sets are simply
//! sent: [`uids`].
//! Everything else is named by a hash, and two sets of hashes are halved, again and again, where their fingerprints
//! differ: [`items`].
//!
//! Both are pure: frames in, frames out. A frame comes from a peer and is believed in nothing but its length.

pub mod items;
pub mod uids;

use thiserror::Error;

use crate::wire::WireError;

/// Why a frame of a comparison was refused.
#[derive(Debug, Clone, PartialEq, Eq, Error)]
pub enum CompareError {
    /// A frame is longer than its limit.
    #[error("a frame of {length} bytes is longer than {limit}")]
    TooLong {
        /// Its length in bytes.
        length: usize,
        /// Greatest length in bytes.
        limit: usize,
    },
    /// A frame of the peer does not say anything.
    #[error("the peer sent something without meaning")]
    Malformed(#[from] WireError),
    /// A frame of the peer does not fit the comparison.
    #[error("the peer's part of the comparison has no meaning: {reason}")]
    Nonsense {
        /// What is wrong with it.
        reason: String,
    },
    /// The comparison does not come to an end.
    #[error("the comparison does not end after {rounds} rounds")]
    Endless {
        /// Rounds so far.
        rounds: u32,
    },
}
