//! All vaults that a companion carries, and the answers to what is asked of them.
//!
//! Calls block on disks and storages; whoever is asked over the link makes them on a thread that may block.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex};

use packetboat_core::ids::VaultId;
use packetboat_core::store::{Put, Store, StoreError};
use packetboat_storage::folder::FolderStore;
use serde_json::{Value, json};

use super::forward::Forward;
use super::message::{Answer, Request, What};
use super::places::Places;
use super::shelf::Shelf;
use crate::files::{JsonFileError, with_causes};

/// The vaults that this device carries.
pub struct Carried {
    places: PathBuf,
    shelf: Arc<Shelf>,
    open: Mutex<BTreeMap<VaultId, (PathBuf, Arc<Forward>)>>,
}

impl Carried {
    /// Carries what the file `places` says, with the help of a shelf.
    pub fn new(places: PathBuf, shelf: Arc<Shelf>) -> Self {
        Self { places, shelf, open: Mutex::default() }
    }

    /// Answers a request; `body` is the object that came with it.
    pub fn answer(&self, request: &Request, body: &[u8]) -> Answer {
        let places = match Places::read(&self.places) {
            Ok(places) => places,
            Err(error) => return Answer::Failed(with_causes(&error)),
        };
        if request.what == What::Which {
            return Answer::Vaults(places.iter().map(|(vault, _)| vault).collect());
        }
        match places.of(request.vault) {
            Some(place) => answer(self.forward(request.vault, place).as_ref(), &request.what, body),
            None => Answer::Denied(NOT_CARRIED.to_owned()),
        }
    }

    /// Puts up what waits, of every vault whose intermediary can be reached; how many objects went up.
    pub fn put_up(&self) -> Result<u64, JsonFileError> {
        let mut count = 0;
        for (vault, place) in Places::read(&self.places)?.iter() {
            match self.forward(vault, place).put_up() {
                Ok(0) => {}
                Ok(more) => {
                    tracing::info!(%vault, objects = more, "what waited was put up");
                    count += more;
                }
                Err(error) => tracing::debug!(%vault, error = with_causes(&error), "what waits stays"),
            }
        }
        Ok(count)
    }

    /// How it stands with each vault, for people.
    pub fn view(&self) -> Value {
        let places = match Places::read(&self.places) {
            Ok(places) => places,
            Err(error) => return json!({ "error": with_causes(&error) }),
        };
        let (held, limit) = self.shelf.room();
        let vaults: Vec<Value> = places.iter().map(|(vault, place)| self.view_of(vault, place)).collect();
        json!({ "vaults": vaults, "held_bytes": held, "space_bytes": limit })
    }

    fn view_of(&self, vault: VaultId, place: &Path) -> Value {
        let reached = self.forward(vault, place).reach();
        let mut view = match self.shelf.held(vault) {
            Ok(held) => json!(held),
            Err(error) => json!({ "error": with_causes(&error) }),
        };
        view["vault"] = vault.to_string().into();
        view["place"] = place.to_string_lossy().into();
        view["reached"] = reached.is_ok().into();
        view["why_not"] = reached.err().map(|error| with_causes(&error)).into();
        view
    }

    fn forward(&self, vault: VaultId, place: &Path) -> Arc<Forward> {
        let mut open = self.open.lock().unwrap_or_else(|poisoned| poisoned.into_inner());
        match open.get(&vault) {
            Some((of, forward)) if of == place => forward.clone(),
            _ => {
                let upstream = Arc::new(FolderStore::new(place));
                let forward = Arc::new(Forward::new(vault, self.shelf.clone(), upstream));
                open.insert(vault, (place.to_owned(), forward.clone()));
                forward
            }
        }
    }
}

/// Puts a request to a store.
pub fn answer(store: &dyn Store, what: &What, body: &[u8]) -> Answer {
    let answered = match what {
        What::Get { name, limit } => store.get(name, *limit).map(Answer::Bytes),
        What::Range { name, offset, length } => store.get_range(name, *offset, *length).map(Answer::Bytes),
        What::List { folder } => store.list(folder).map(Answer::Listing),
        What::PutNew { name, .. } => store.put_new(name, body).map(|put| match put {
            Put::Stored => Answer::Stored,
            Put::Present => Answer::Present,
        }),
        What::Put { name, .. } => store.put(name, body).map(|()| Answer::Stored),
        What::Delete { name } => store.delete(name).map(|()| Answer::Done),
        What::Which => Ok(Answer::Vaults(Vec::new())),
    };
    answered.unwrap_or_else(|error| match error {
        StoreError::Missing { .. } => Answer::Missing,
        StoreError::TooLarge { .. } => Answer::TooLarge,
        StoreError::Short { .. } => Answer::Short,
        StoreError::Full => Answer::Full,
        StoreError::Denied { source, .. } => Answer::Denied(source.to_string()),
        StoreError::Io { source, .. } => Answer::Failed(with_causes(&source)),
    })
}

const NOT_CARRIED: &str =
    "the companion does not carry this vault; `packetboat carry VAULT` on the companion has it do so";
