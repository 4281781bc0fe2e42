//! How commands talk to the daemon: lines of JSON over a socket in the home, which only its user can reach.
//!
//! ```text
//! request    one line; a submission is followed by its body, `size` bytes
//! answer     any number of lines {"item": ...}, then {"done": ...} or {"failed": {"message", "hint"}}
//! ```
//!
//! One request to a connection. Lines are bounded in both directions, and a peer of another user is not listened to.

pub mod client;
pub mod server;

use serde::{Deserialize, Serialize};
use serde_json::Value;

/// What a command asks.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
#[serde(tag = "do", rename_all = "kebab-case", deny_unknown_fields)]
pub enum Request {
    /// Take this mail; the body follows.
    Submit {
        /// The envelope's sender; empty for none.
        sender: String,
        /// The envelope's recipients.
        recipients: Vec<String>,
        /// The body's size in bytes.
        size: u64,
    },
    /// List the outbox.
    Outbox {
        /// How many finished mails to list too.
        finished: usize,
    },
    /// Show one mail.
    Show {
        /// Its id, or enough of its beginning.
        mail: String,
    },
    /// Change what happens to one mail, or to all.
    Change {
        /// Its id, or enough of its beginning; all, where there is none.
        mail: Option<String>,
        /// What is wanted.
        change: Change,
    },
    /// How paths and link stand.
    Paths,
    /// Which process this is.
    Who,
    /// End the pair.
    Unpair {
        /// Though the other device cannot be told.
        alone: bool,
    },
    /// Put up what waits of the vaults that are carried.
    PutUp,
    /// What follows is for the companion: relay/socket.rs.
    Relay,
}

/// What is wanted of a mail.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Change {
    /// Not to be tried for now.
    Hold,
    /// To be tried again.
    Release,
    /// To be tried at once.
    Retry,
    /// Not to be sent at all.
    Cancel,
    /// The companion is to have the turn until it is returned.
    HandOver,
    /// The host wants the turn back.
    TakeBack,
    /// On a companion: the host is lost.
    TakeOver,
}

/// A line of an answer.
#[derive(Clone, PartialEq, Debug, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Line {
    /// One of several results.
    Item(Value),
    /// It is done, with this result.
    Done(Value),
    /// It is not.
    Failed {
        /// Why not.
        message: String,
        /// What to do next.
        hint: Option<String>,
        /// What a mail program is to be told, of a submission.
        kind: Option<String>,
    },
}

/// The longest line, in bytes.
const LINE_BYTES: u64 = 8 << 20;
