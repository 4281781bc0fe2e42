//! This device's own replicas, where it is a member of vaults that its host has too.
//!
//! A member companion needs no `packetboat carry`: its replica knows where the intermediary is. Its daemon brings the
//! replica in step on its own: after the host put something, now and then, when a network appears, and when the host
//! asks ([`What::Round`](super::message::What)). Rounds go through the same [`Forward`] as the host's requests, so while
//! the intermediary is away the two devices are in step with each other by way of the shelf, and everything that either
//! made goes up in one order.
//!
//! What a replica is, the daemon does not know: [`Replicas`] is given by whoever started it.
//! One round runs at a time. Whoever asks while one runs waits for it and has another: what it asks about may have come
//! after that one began.

use std::collections::BTreeMap;
use std::error::Error;
use std::path::PathBuf;
use std::sync::{Arc, Mutex, PoisonError};

use packetboat_core::ids::VaultId;
use packetboat_core::store::Store;
use serde_json::{Value, json};
use thiserror::Error;
use tokio::sync::watch;

use super::forward::Forward;
use crate::clock::Clock;

/// The replicas of this device's user.
pub trait Replicas: Send + Sync {
    /// The vaults of which there are replicas here, and where their intermediaries are.
    fn places(&self) -> Vec<(VaultId, PathBuf)>;

    /// Brings the replicas of a vault in step through a store; blocks.
    fn round(&self, vault: VaultId, store: Arc<dyn Store>) -> Result<(), Box<dyn Error + Send + Sync>>;
}

/// A device without replicas.
pub struct NoReplicas;

impl Replicas for NoReplicas {
    fn places(&self) -> Vec<(VaultId, PathBuf)> {
        Vec::new()
    }

    fn round(&self, _: VaultId, _: Arc<dyn Store>) -> Result<(), Box<dyn Error + Send + Sync>> {
        Ok(())
    }
}

/// This device as a member of vaults.
pub struct Members {
    replicas: Box<dyn Replicas>,
    clock: Arc<dyn Clock>,
    alone: Mutex<()>,
    /// Remembered for a moment: the host's requests come by the hundred.
    places: Mutex<Option<Known>>,
    last: Mutex<BTreeMap<VaultId, Last>>,
    stirred: watch::Sender<u64>,
}

/// Where vaults are, as it was a moment ago.
struct Known {
    /// When it was read, since boot.
    read_ms: u64,
    places: Vec<(VaultId, PathBuf)>,
}

/// How the last round went.
#[derive(Clone, Debug)]
struct Last {
    at_ms: u64,
    error: Option<String>,
}

impl Members {
    /// The membership that these replicas give.
    pub fn new(replicas: Box<dyn Replicas>, clock: Arc<dyn Clock>) -> Self {
        let (alone, places, last) = (Mutex::default(), Mutex::default(), Mutex::default());
        Self { replicas, clock, alone, places, last, stirred: watch::Sender::new(0) }
    }

    /// No membership.
    pub fn none(clock: Arc<dyn Clock>) -> Self {
        Self::new(Box::new(NoReplicas), clock)
    }

    /// The vaults, and where their intermediaries are.
    pub fn places(&self) -> Vec<(VaultId, PathBuf)> {
        let now = self.clock.now().since_boot_ms;
        let mut places = self.places.lock().unwrap_or_else(PoisonError::into_inner);
        match &*places {
            Some(known) if now.saturating_sub(known.read_ms) < PLACES_HOLD_MS => known.places.clone(),
            _ => places.insert(Known { read_ms: now, places: self.replicas.places() }).places.clone(),
        }
    }

    /// Whether this device is a member of a vault.
    pub fn has(&self, vault: VaultId) -> bool {
        self.places().iter().any(|(member, _)| *member == vault)
    }

    /// Brings this device's replicas of a vault in step; nothing happens where there are none.
    pub fn round(&self, forward: &Forward) -> Result<(), RoundError> {
        let vault = forward.vault;
        if !self.has(vault) {
            return Ok(());
        }
        let _alone = self.alone.lock().unwrap_or_else(PoisonError::into_inner);
        let outcome = self.replicas.round(vault, Arc::new(forward.for_member()));
        let error = outcome.as_ref().err().map(|error| crate::files::with_causes(error.as_ref()));
        let at_ms = self.clock.now().wall_ms;
        self.last.lock().unwrap_or_else(PoisonError::into_inner).insert(vault, Last { at_ms, error });
        outcome.map_err(RoundError)
    }

    /// Notes that something came of a vault.
    pub fn stir(&self, vault: VaultId) {
        if self.has(vault) {
            self.stirred.send_modify(|count| *count += 1);
        }
    }

    /// Changes whenever something came.
    pub fn stirred(&self) -> watch::Receiver<u64> {
        self.stirred.subscribe()
    }

    /// How the last round of a vault went, for people; null, where this device is no member or none was yet.
    pub fn view(&self, vault: VaultId) -> Value {
        if !self.has(vault) {
            return Value::Null;
        }
        let last = self.last.lock().unwrap_or_else(PoisonError::into_inner);
        match last.get(&vault) {
            Some(Last { at_ms, error }) => json!({ "last_round_ms": at_ms, "error": error }),
            None => json!({ "last_round_ms": null, "error": null }),
        }
    }
}

/// Why this device's own replica is not in step.
#[derive(Debug, Error)]
#[error("the companion's own replica is not in step")]
pub struct RoundError(#[source] Box<dyn Error + Send + Sync>);

const PLACES_HOLD_MS: u64 = 1000;
