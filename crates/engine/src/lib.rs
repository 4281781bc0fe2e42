//! The rounds of synchronisation: learn, scan, store, publish, apply.
//!
//! The engine owns the order in which things happen, retries and threads. What is decided is decided in the core;
//! what is done to disk and storage goes through ports, so that a simulation can stand in for either.

pub(crate) mod absorb;
mod apply;
pub(crate) mod builder;
mod carry;
mod checkpoints;
mod chunk_source;
mod conflicts;
pub mod consistency;
mod content_reader;
pub mod doctor;
mod epochs;
pub mod error;
pub(crate) mod fetch;
pub(crate) mod forks;
mod garbage;
mod history;
pub mod ignore_rules;
pub mod learn;
mod members;
pub mod merge;
mod needed;
pub mod numbering;
mod past;
pub mod paths;
mod places;
pub mod ports;
pub mod prepare;
mod prune;
mod publish;
mod racy;
mod refusals;
mod removal;
mod removals;
mod repair;
pub mod replica;
mod resolve;
mod restore;
pub mod restore_from;
mod round;
mod salvage;
pub mod scan;
pub mod shell;
#[cfg(test)]
mod shown;
mod status;
mod telling;
pub mod undo;
mod unread;
mod vault;
mod vault_rules;
mod verify;
mod wants;

use packetboat_core::keys::{DeviceKey, KeyRing};

pub use absorb::Sent;
pub use builder::Totals;
pub use prune::{PruneOptions, PruneReport, VaultSize};
pub use removals::{RemovalError, Revoked};
pub use repair::Repaired;
pub use vault::{JoinError, OpenError};

/// The keys with which a replica reads and writes its vault.
#[derive(Clone, Debug)]
pub struct Keys {
    /// The vault's keys.
    pub ring: KeyRing,
    /// This device's own key.
    pub device: DeviceKey,
}
