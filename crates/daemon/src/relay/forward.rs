//! A vault's intermediary as the companion serves it: at once where it can be reached, and later where it cannot.
//!
//! While the intermediary is there and nothing waits, requests are passed through, and copies of what passed are kept.
//! Else what is put is deposited on the shelf, and what is asked for comes from there.
//!
//! Order: what waits goes up one by one in the order in which it came, and stops at the first that fails.
//! Whoever deposits puts packs before the packets that name them, and packets before those that rest on them and before
//! its tip, so nothing comes to the intermediary before what it needs; a tip that replaces one that waits goes to the end.
//! Nothing is passed by what waits: a put that finds something waiting waits too.
//!
//! What the host asked for in vain is noted, and so is what it got: [`pull`](super::pull) goes by that.
//! The replica of a member ([`members`](super::members)) works through the same, but what it reads says nothing of the host.
//!
//! A crash at any point repeats a put, which is the same as one.
//! Where another packet has the place of a deposit, the lane was forked; then all that waits of that device is set aside,
//! so that no lane is made of both, and the device finds the other packet when it next asks.

use std::collections::BTreeMap;
use std::error::Error;
use std::io;
use std::sync::{Arc, Mutex};

use packetboat_core::ids::VaultId;
use packetboat_core::marker::{MARKER_NAME, MAX_MARKER_BYTES, Marker};
use packetboat_core::store::{Listed, ObjectName, Put, Store, StoreError};
use thiserror::Error;

use super::check::{Kind, check, tip_number};
use super::message::MAX_OBJECT_BYTES;
use super::shelf::{Shelf, ShelfError, Waiting};
use crate::files::with_causes;

/// One vault that is carried.
pub struct Forward {
    pub(super) vault: VaultId,
    pub(super) shelf: Arc<Shelf>,
    pub(super) upstream: Arc<dyn Store>,
    /// Held by whoever puts up, so that two never do at once.
    order: Arc<Mutex<()>>,
    reader: Reader,
}

/// Who reads.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
enum Reader {
    /// The host, over the link.
    Host,
    /// This device's own replica.
    Member,
}

/// What became of a put.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Taken {
    /// It is at the intermediary.
    Stored,
    /// Something of that name was there before.
    Present,
    /// It waits here until it can be put up.
    Deposited,
}

impl Forward {
    /// Carries a vault between whoever asks and `upstream`.
    pub fn new(vault: VaultId, shelf: Arc<Shelf>, upstream: Arc<dyn Store>) -> Self {
        Self { vault, shelf, upstream, order: Arc::default(), reader: Reader::Host }
    }

    /// The same vault for this device's own replica.
    pub fn for_member(&self) -> Self {
        let (shelf, upstream) = (self.shelf.clone(), self.upstream.clone());
        Self { vault: self.vault, shelf, upstream, order: self.order.clone(), reader: Reader::Member }
    }

    /// Whether the intermediary is there, and holds this vault: an empty mount is not an empty vault.
    pub fn reach(&self) -> Result<(), StoreError> {
        let marker = self.upstream.get(&marker_name(), MAX_MARKER_BYTES as u64)?;
        let held = Marker::decode(&marker).map(|marker| marker.vault());
        if held.is_ok_and(|held| held == self.vault) {
            return Ok(());
        }
        Err(failed("read", MARKER_NAME, "another vault is there, or its marker is damaged"))
    }

    /// Puts up what waits, as far as that goes; how many objects went up.
    pub fn put_up(&self) -> Result<u64, PutUpError> {
        let _alone = self.order.lock().unwrap_or_else(|poisoned| poisoned.into_inner());
        let mut count = 0;
        while let Some(waiting) = self.shelf.next(self.vault)? {
            if count == 0 {
                self.reach()?;
            }
            if self.put_one(&waiting)? {
                self.shelf.put_up(self.vault, &waiting)?;
                count += 1;
            } else {
                let aside = self.shelf.set_aside(self.vault, &waiting)?;
                tracing::warn!(name = %waiting.name, aside, "another packet has the place of a deposit");
            }
        }
        Ok(count)
    }

    /// Puts one object up; not, where another sound one has its place.
    fn put_one(&self, waiting: &Waiting) -> Result<bool, StoreError> {
        let Waiting { name, bytes, .. } = waiting;
        if let Some(Kind::Tip(device)) = Kind::of(name) {
            let standing = match self.upstream.get(name, MAX_OBJECT_BYTES) {
                Ok(standing) => tip_number(&device, &standing),
                Err(StoreError::Missing { .. } | StoreError::TooLarge { .. }) => None,
                Err(error) => return Err(error),
            };
            // The device itself, or another that carries for it, was there since.
            if standing >= tip_number(&device, bytes) {
                return Ok(true);
            }
            return self.upstream.put(name, bytes).map(|()| true);
        }
        if self.upstream.put_new(name, bytes)? == Put::Stored {
            return Ok(true);
        }
        let standing = match self.upstream.get(name, MAX_OBJECT_BYTES) {
            Err(StoreError::TooLarge { .. }) => Vec::new(),
            standing => standing?,
        };
        if standing == *bytes {
            return Ok(true);
        }
        // A pack is named by its bytes and is never another one; a sound packet of the same place is a fork.
        if check(self.vault, name, &standing).is_ok() {
            return Ok(false);
        }
        self.upstream.put(name, bytes).map(|()| true)
    }

    /// Whether the intermediary can be written to, with all before this in its place.
    fn is_open(&self) -> bool {
        match self.put_up().and_then(|_| Ok(self.reach()?)) {
            Ok(()) => true,
            Err(error) => {
                tracing::debug!(error = with_causes(&error), "the intermediary is not reached");
                false
            }
        }
    }

    fn deposit(&self, name: &ObjectName, bytes: &[u8], replaces: bool) -> Result<Taken, StoreError> {
        match self.shelf.deposit(self.vault, name, bytes, replaces) {
            Ok(Put::Stored) => Ok(Taken::Deposited),
            Ok(Put::Present) if replaces => Ok(Taken::Deposited),
            Ok(Put::Present) => Ok(Taken::Present),
            Err(error) => Err(on_shelf("write", name.as_str(), error)),
        }
    }

    /// Puts an object unless its name is taken, and says where it is.
    pub fn take_new(&self, name: &ObjectName, bytes: &[u8]) -> Result<Taken, StoreError> {
        self.accept(name, bytes)?;
        if self.is_open() {
            match self.upstream.put_new(name, bytes) {
                Ok(Put::Stored) => {
                    self.keep(name, bytes);
                    return Ok(Taken::Stored);
                }
                Ok(Put::Present) => return Ok(Taken::Present),
                Err(error @ (StoreError::Full | StoreError::Denied { .. })) => return Err(error),
                Err(error) => tracing::debug!(%name, error = with_causes(&error), "deposited, since it cannot be put"),
            }
        }
        self.deposit(name, bytes, false)
    }

    /// Puts an object in any case, and says where it is.
    pub fn take(&self, name: &ObjectName, bytes: &[u8]) -> Result<Taken, StoreError> {
        let kind = self.accept(name, bytes)?;
        if let Kind::Tip(device) = kind
            && let Some(kept) = self.shelved(name, false)?
            && tip_number(&device, &kept) > tip_number(&device, bytes)
        {
            // A late repetition of an older one; the device has moved on.
            return Ok(Taken::Present);
        }
        if self.is_open() {
            match self.upstream.put(name, bytes) {
                Ok(()) => {
                    self.keep(name, bytes);
                    return Ok(Taken::Stored);
                }
                Err(error @ (StoreError::Full | StoreError::Denied { .. })) => return Err(error),
                Err(error) => tracing::debug!(%name, error = with_causes(&error), "deposited, since it cannot be put"),
            }
        }
        match kind {
            // Which of two markers is the newer, nobody can tell without the keys.
            Kind::Marker => {
                Err(failed("write", name.as_str(), "a vault's keys change only where the vault is reached"))
            }
            Kind::Tip(_) => self.deposit(name, bytes, true),
            // A replacement for a damaged one; while away, nobody can see that it is.
            Kind::Packet(_) | Kind::Checkpoint(_) | Kind::Pack(_) => self.deposit(name, bytes, false),
        }
    }

    /// Keeps a copy of what passed. That it fails is no failure of what passed.
    fn keep(&self, name: &ObjectName, bytes: &[u8]) {
        if check(self.vault, name, bytes).is_err() {
            return;
        }
        let kept = match self.reader {
            Reader::Host => self.shelf.keep(self.vault, name, bytes),
            Reader::Member => self.shelf.keep_pulled(self.vault, name, bytes).map(drop),
        };
        if let Err(error) = kept {
            tracing::debug!(%name, error = with_causes(&error), "no copy was kept");
        }
    }

    /// Notes that the host has had an object, or lacks it. That it fails costs a second pull at most.
    fn note(&self, name: &ObjectName, here: bool) {
        if self.reader == Reader::Member || Kind::of(name).is_none() {
            return;
        }
        let noted = match here {
            true => self.shelf.note_delivered(self.vault, name),
            false => self.shelf.note_wanted(self.vault, name),
        };
        if let Err(error) = noted {
            tracing::debug!(%name, error = with_causes(&error), "what the host had is not noted");
        }
    }

    /// What is asked for from the shelf: of what waits alone, or of everything.
    fn shelved(&self, name: &ObjectName, waiting: bool) -> Result<Option<Vec<u8>>, StoreError> {
        let read = match waiting {
            true => self.shelf.read_waiting(self.vault, name),
            false => self.shelf.read(self.vault, name),
        };
        read.map_err(|error| on_shelf("read", name.as_str(), error))
    }

    /// The answer while the intermediary is away. What is not here may be there, but nothing says so: a device that
    /// lacks an object goes on without it and asks again, and its own changes can be deposited meanwhile.
    fn while_away(&self, name: &ObjectName, why: StoreError) -> Result<Vec<u8>, StoreError> {
        match self.shelved(name, false)? {
            Some(bytes) => {
                self.note(name, true);
                Ok(bytes)
            }
            None if name.as_str() == MARKER_NAME => Err(away("read", name.as_str(), &why)),
            None => {
                self.note(name, false);
                Err(StoreError::Missing { name: name.clone() })
            }
        }
    }
}

impl Store for Forward {
    fn describe(&self) -> String {
        format!("{}, by the companion", self.upstream.describe())
    }

    fn put_new(&self, name: &ObjectName, bytes: &[u8]) -> Result<Put, StoreError> {
        Ok(match self.take_new(name, bytes)? {
            Taken::Stored | Taken::Deposited => Put::Stored,
            Taken::Present => Put::Present,
        })
    }

    fn put(&self, name: &ObjectName, bytes: &[u8]) -> Result<(), StoreError> {
        self.take(name, bytes).map(drop)
    }

    fn get(&self, name: &ObjectName, limit: u64) -> Result<Vec<u8>, StoreError> {
        let waiting = self.shelved(name, true)?;
        let bytes = match (waiting, self.reach()) {
            (Some(bytes), _) => bytes,
            (None, Err(why)) => self.while_away(name, why)?,
            (None, Ok(())) => match self.upstream.get(name, limit) {
                Ok(bytes) => {
                    self.keep(name, &bytes);
                    bytes
                }
                // It was there a moment ago: that it fails now says nothing of what it holds.
                Err(error @ StoreError::Io { .. }) => self.shelved(name, false)?.ok_or(error)?,
                Err(error) => return Err(error),
            },
        };
        if bytes.len() as u64 > limit { Err(StoreError::TooLarge { name: name.clone(), limit }) } else { Ok(bytes) }
    }

    fn get_range(&self, name: &ObjectName, offset: u64, len: u64) -> Result<Vec<u8>, StoreError> {
        let whole = match (self.shelved(name, true)?, self.reach()) {
            (Some(bytes), _) => bytes,
            (None, Err(why)) => self.while_away(name, why)?,
            (None, Ok(())) => match self.upstream.get_range(name, offset, len) {
                Err(error @ StoreError::Io { .. }) => self.shelved(name, false)?.ok_or(error)?,
                outcome => {
                    if outcome.is_ok() {
                        self.note(name, true);
                    }
                    return outcome;
                }
            },
        };
        let range = usize::try_from(offset).ok().zip(usize::try_from(len).ok());
        let part = range.and_then(|(offset, len)| whole.get(offset..offset.checked_add(len)?));
        part.map(<[u8]>::to_vec).ok_or_else(|| StoreError::Short { name: name.clone() })
    }

    fn list(&self, folder: &str) -> Result<Vec<Listed>, StoreError> {
        if !folder.is_empty() && ObjectName::new(folder).is_none() {
            return Err(failed("list", folder, "no folder has such a name"));
        }
        let listed = match self.reach().and_then(|()| self.upstream.list(folder)) {
            Ok(listed) => Some(listed),
            Err(StoreError::Io { .. } | StoreError::Missing { .. }) => None,
            Err(error) => return Err(error),
        };
        let only_waiting = listed.is_some();
        let here = self.shelf.list(self.vault, folder, only_waiting);
        let here = here.map_err(|error| on_shelf("list", folder, error))?;
        let mut by_name: BTreeMap<ObjectName, Listed> = BTreeMap::new();
        for entry in listed.into_iter().flatten().chain(here) {
            by_name.insert(entry.name.clone(), entry);
        }
        Ok(by_name.into_values().collect())
    }

    fn delete(&self, name: &ObjectName) -> Result<(), StoreError> {
        self.reach().map_err(|why| away("delete", name.as_str(), &why))?;
        self.upstream.delete(name)?;
        self.shelf.remove(self.vault, name).map_err(|error| on_shelf("delete", name.as_str(), error))
    }
}

impl Forward {
    /// Refuses what is not what it says, so that nobody fills an intermediary through this device.
    fn accept(&self, name: &ObjectName, bytes: &[u8]) -> Result<Kind, StoreError> {
        check(self.vault, name, bytes).map_err(|error| StoreError::Denied {
            name: name.to_string(),
            source: io::Error::new(io::ErrorKind::InvalidData, with_causes(&error)),
        })
    }
}

/// Why what waits was not all put up.
#[derive(Debug, Error)]
pub enum PutUpError {
    /// The shelf fails.
    #[error(transparent)]
    Shelf(#[from] ShelfError),
    /// The intermediary fails, or cannot be reached.
    #[error(transparent)]
    Upstream(#[from] StoreError),
}

pub(super) fn marker_name() -> ObjectName {
    ObjectName::new(MARKER_NAME).expect("the marker has a sound name")
}

fn failed(action: &'static str, name: &str, why: &str) -> StoreError {
    StoreError::Io { action, name: name.to_owned(), source: io::Error::other(why.to_owned()) }
}

fn away(action: &'static str, name: &str, why: &dyn Error) -> StoreError {
    failed(action, name, &format!("the companion cannot reach it now: {}", with_causes(why)))
}

fn on_shelf(action: &'static str, name: &str, error: ShelfError) -> StoreError {
    failed(action, name, &with_causes(&error))
}
