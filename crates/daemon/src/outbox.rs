//! Mail out: durable from submission on, sent by one of two paths, and shown to people.
//!
//! ```text
//! submission, sendmail ──▶ courier ──▶ desk ──▶ store          one transaction for a batch
//!                             │ then, in order
//!                             ├──▶ transmit ──▶ a server        its ends come back as events
//!                             └──▶ link     ──▶ the other device
//! ```
//!
//! The [`desk`] decides nothing either: it brings events to the machines of `packetboat_core::delivery`, saves what they
//! become, and gives out what they ask for.

pub mod advice;
pub mod body;
pub mod courier;
pub mod desk;
pub mod intake;
pub mod machine;
pub mod store;
pub mod timers;
pub mod transmit;
pub mod view;
