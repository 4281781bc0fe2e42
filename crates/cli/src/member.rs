//! This user's replicas, for the daemon of a companion that is a member of its host's vaults.
//!
//! A round here is the round of `packetboat sync` without its words, and stops where that would ask: at a folder that is
//! not where it was, at one that is in use, at the removal of most of a folder.

use std::collections::BTreeMap;
use std::error::Error;
use std::path::PathBuf;
use std::sync::Arc;

use packetboat_core::ids::VaultId;
use packetboat_core::store::Store;
use packetboat_daemon::relay::members::Replicas;
use packetboat_engine::ports::Silent;
use packetboat_engine::replica::{Replica, SyncOptions};
use packetboat_replica::lock::ReplicaLock;

use crate::failure::Failure;
use crate::opening::{Context, sighting};
use crate::places::Directory;
use crate::recognise::Standing;
use crate::registry::{Entry, Registry};
use crate::text;
use crate::way::{names_companion, place_by_companion};

/// The replicas that the registry names.
pub(crate) struct RegisteredReplicas {
    pub(crate) context: Context,
}

impl Replicas for RegisteredReplicas {
    fn places(&self) -> Vec<(VaultId, PathBuf)> {
        let registry = match Registry::read(&self.context.state) {
            Ok(registry) => registry,
            Err(failure) => {
                tracing::warn!("{failure}");
                return Vec::new();
            }
        };
        // What goes by this device's own companion has no place that could be served.
        let own = registry.entries().iter().filter(|entry| names_companion(&entry.intermediary.canonical).is_none());
        let places: BTreeMap<_, _> = own.map(|entry| (entry.vault, entry.intermediary.canonical.clone())).collect();
        places.into_iter().collect()
    }

    fn round(&self, vault: VaultId, store: Arc<dyn Store>) -> Result<(), Box<dyn Error + Send + Sync>> {
        let registry = Registry::read(&self.context.state).map_err(|failure| failure.to_string())?;
        for entry in registry.entries().iter().filter(|entry| entry.vault == vault) {
            let folder = text::path(&entry.folder);
            self.one(entry, store.clone()).map_err(|failure| format!("{folder}: {failure}"))?;
        }
        Ok(())
    }
}

impl RegisteredReplicas {
    fn one(&self, entry: &Entry, store: Arc<dyn Store>) -> Result<(), Failure> {
        let folder = Directory::look(&entry.folder, "folder")?;
        match self.context.standing(&sighting(&folder)?)? {
            Standing::Bound(bound) if bound.replica == entry.replica => {}
            _ => return Err(Failure::new("it is not the folder that was there; `packetboat sync` says more")),
        }
        let state = self.context.state.replica(&entry.replica);
        let _lock = ReplicaLock::acquire(&state.lock())?;
        let place = place_by_companion(entry.vault);
        let mut replica = Replica::open(self.context.parts_with(&folder.path, store, place, &state)?)?;
        replica.sync(SyncOptions::default(), &mut Silent)?;
        Ok(())
    }
}
