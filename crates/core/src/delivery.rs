//! Delivery of one mail over two paths, so that one of them sends it, once.
//!
//! A mail submitted on the *host* is copied to its *companion* at once. The two take turns in trying, each on its own
//! path, by the machines [`Host`] and [`Companion`], one pair of them for each mail:
//!
//! ```text
//! host        Turn -> Sending -> Dot -> Turn | Unknown | Settling -> Closing -> Closed
//!             Turn -> Granted -> Turn | Unknown | Settling
//! companion   Standby -> Requested -> Sending -> Dot -> Returned | Unknown | Done -> Closed;  Returned -> Standby
//! ```
//!
//! The host owns the turn. It grants it only after its own definite failure, in answer to a fresh request and for a
//! time that the companion counts from its request and the host from its grant, so the companion's ends first.
//! `Dot` is durable before the final dot of SMTP DATA is written; after a crash, whether the mail went out has
//! three answers: no, yes, unknown. docs/design/0012 has the rules with their reasons, and what the checker found.
//!
//! Nothing here does I/O, reads a clock or makes randomness: [`Event`]s and [`Now`] go in, [`Effect`]s
//! come out, and the state encodes to bytes that a driver puts on stable storage before it carries out any of them.
//! A host without a companion is the same machine that never has anybody to offer the turn to.
//!
//! Left out: change packets, which are idempotent and need no turn, and all knowledge of SMTP, IMAP and the link.

pub mod companion;
pub mod event;
pub mod host;
pub mod item;
pub mod ledger;
mod line;
pub mod message;
#[cfg(test)]
mod model;
pub mod reply;
pub mod settings;
pub mod status;
#[cfg(test)]
mod tests;
pub mod time;

pub use companion::{Companion, CompanionState, Lease};
pub use event::{Attempt, Effect, Event, SentLookup};
pub use host::{CopyState, GrantEnd, Host, HostState, Stage, Wish};
pub use item::{Address, Item, Recipients};
pub use ledger::{CompanionLedger, HostLedger};
pub use message::{Body, Frame, GrantLength, ItemNumber, Message, OfferReason, Turn, Why};
pub use reply::{Enhanced, Replies, Reply, Verdict};
pub use settings::{Settings, SettingsError, UnknownPolicy};
pub use status::{Certainty, Path, Status};
pub use time::{Moment, Now};
