//! All vaults that a companion carries, and the answers to what is asked of them.
//!
//! A vault is carried because `packetboat carry` says so ([`places`](super::places)), or because this device is a member of
//! it and its replica knows the way ([`members`](super::members)); of both, what was said goes first.
//!
//! Calls block on disks and storages; whoever is asked over the link makes them on a thread that may block.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex};

use packetboat_core::ids::VaultId;
use packetboat_core::store::{Put, Store, StoreError};
use packetboat_storage::folder::FolderStore;
use serde_json::{Value, json};

use super::forward::{Forward, Taken};
use super::members::Members;
use super::message::{Answer, Request, Standing, What};
use super::places::Places;
use super::shelf::{Shelf, ShelfError};
use crate::files::{FileError, with_causes};

/// The vaults that this device carries.
pub struct Carried {
    places: PathBuf,
    shelf: Arc<Shelf>,
    members: Arc<Members>,
    pull: bool,
    open: Mutex<BTreeMap<VaultId, (PathBuf, Arc<Forward>)>>,
}

impl Carried {
    /// Carries what the file `places` says and what this device's own replicas know, with the help of a shelf.
    ///
    /// `pull` says whether it fetches what the host may lack.
    pub fn new(places: PathBuf, shelf: Arc<Shelf>, members: Arc<Members>, pull: bool) -> Self {
        Self { places, shelf, members, pull, open: Mutex::default() }
    }

    /// Answers a request; `body` is the object that came with it.
    pub fn answer(&self, request: &Request, body: &[u8]) -> Answer {
        let places = match self.all() {
            Ok(places) => places,
            Err(error) => return Answer::Failed(with_causes(&error)),
        };
        match request.what {
            What::Which => return Answer::Vaults(places.into_keys().collect()),
            What::Standing => return self.standing(&places),
            _ => {}
        }
        let vault = request.vault;
        let Some(place) = places.get(&vault) else { return Answer::Denied(NOT_CARRIED.to_owned()) };
        let forward = self.forward(vault, place);
        match &request.what {
            What::Waiting => self.shelf.waiting(vault).map_or_else(shelf_failed, Answer::Waiting),
            What::Round => match self.members.round(&forward) {
                Ok(()) => Answer::Done,
                Err(error) => Answer::Failed(with_causes(&error)),
            },
            What::PutNew { name, .. } => self.taken(vault, forward.take_new(name, body)),
            What::Put { name, .. } => self.taken(vault, forward.take(name, body)),
            what => answer(forward.as_ref(), what, body),
        }
    }

    /// Works through all vaults whose intermediary can be reached: puts up what waits, brings this device's own replicas in
    /// step, and fetches what the host may lack.
    pub fn work(&self) -> Result<(), FileError> {
        for (vault, place) in self.all()? {
            let forward = self.forward(vault, &place);
            match forward.put_up() {
                Ok(0) => {}
                Ok(objects) => tracing::info!(%vault, objects, "what waited was put up"),
                Err(error) => tracing::debug!(%vault, error = with_causes(&error), "what waits stays"),
            }
            if let Err(error) = self.members.round(&forward) {
                tracing::info!(%vault, error = with_causes(&error), "this device's own replica is not in step");
            }
            if self.pull {
                match forward.pull() {
                    Ok(0) => {}
                    Ok(objects) => tracing::info!(%vault, objects, "fetched what the host may lack"),
                    Err(error) => tracing::debug!(%vault, error = with_causes(&error), "nothing is fetched now"),
                }
            }
        }
        Ok(())
    }

    /// Puts up what waits, of every vault whose intermediary can be reached; how many objects went up.
    pub fn put_up(&self) -> Result<u64, FileError> {
        let up = self.all()?.into_iter().map(|(vault, place)| self.forward(vault, &place).put_up());
        // What stays is said by the view.
        Ok(up.map(Result::unwrap_or_default).sum())
    }

    /// How it stands with each vault, for people.
    pub fn view(&self) -> Value {
        let places = match self.all() {
            Ok(places) => places,
            Err(error) => return json!({ "error": with_causes(&error) }),
        };
        let (held, limit) = self.shelf.room();
        let vaults: Vec<Value> = places.iter().map(|(vault, place)| self.view_of(*vault, place)).collect();
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
        view["member"] = self.members.view(vault);
        view
    }

    /// Every vault that is carried, and where.
    fn all(&self) -> Result<BTreeMap<VaultId, PathBuf>, FileError> {
        let mut all: BTreeMap<VaultId, PathBuf> = self.members.places().into_iter().collect();
        all.extend(Places::read(&self.places)?.iter().map(|(vault, place)| (vault, place.to_owned())));
        Ok(all)
    }

    fn standing(&self, places: &BTreeMap<VaultId, PathBuf>) -> Answer {
        let of = |(vault, place): (&VaultId, &PathBuf)| {
            let held = self.shelf.held(*vault)?;
            Ok(Standing {
                vault: *vault,
                member: self.members.has(*vault),
                reached: self.forward(*vault, place).reach().is_ok(),
                waiting: held.waiting,
                waiting_bytes: held.waiting_bytes,
                since_ms: held.since_ms,
            })
        };
        places.iter().map(of).collect::<Result<_, ShelfError>>().map_or_else(shelf_failed, Answer::Standing)
    }

    /// The answer to a put; a tip ends a round of the host, so this device's own replica is to follow.
    fn taken(&self, vault: VaultId, taken: Result<Taken, StoreError>) -> Answer {
        if matches!(taken, Ok(Taken::Stored | Taken::Deposited)) {
            self.members.stir(vault);
        }
        match taken {
            Ok(Taken::Stored) => Answer::Stored,
            Ok(Taken::Present) => Answer::Present,
            Ok(Taken::Deposited) => Answer::Deposited,
            Err(error) => refused(error),
        }
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
        // With a store alone nothing waits, and nobody is a member.
        What::Which => Ok(Answer::Vaults(Vec::new())),
        What::Waiting => Ok(Answer::Waiting(Vec::new())),
        What::Standing => Ok(Answer::Standing(Vec::new())),
        What::Round => Ok(Answer::Done),
    };
    answered.unwrap_or_else(refused)
}

fn refused(error: StoreError) -> Answer {
    match error {
        StoreError::Missing { .. } => Answer::Missing,
        StoreError::TooLarge { .. } => Answer::TooLarge,
        StoreError::Short { .. } => Answer::Short,
        StoreError::Full => Answer::Full,
        StoreError::Denied { source, .. } => Answer::Denied(source.to_string()),
        StoreError::Io { source, .. } => Answer::Failed(with_causes(&source)),
    }
}

fn shelf_failed(error: ShelfError) -> Answer {
    Answer::Failed(with_causes(&error))
}

const NOT_CARRIED: &str =
    "the companion does not carry this vault; `packetboat carry VAULT` on the companion has it do so";
