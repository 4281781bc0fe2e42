//! What a companion keeps of vaults: objects that wait to be put up, and copies of those that passed.
//!
//! ```text
//! DIRECTORY/shelf.db            which objects there are, and in which order those that wait came
//! DIRECTORY/<vault>/<name>      an object, as at an intermediary
//! DIRECTORY/aside/<vault>/...   deposits that can never be put up, because something else has their place
//! ```
//!
//! A host has one too, of each replica: what waits on its companion stays here as well until the intermediary has it
//! ([`deposits`](super::deposits)).
//!
//! Invariants:
//! - A deposit is on stable storage, and in its place in the order, before it is acknowledged.
//! - The row is written before the file. A row without its file is of a deposit that was never acknowledged, and means
//!   nothing; the other way round, a tip that replaces one that waits would go up in the older one's place.
//! - What waits is never evicted. When there is no room ([`room`]), what was set aside goes first, then copies that the host
//!   has had already, then other copies; of each the packs first, and the oldest first.
//! - Of two tips of one device the one with the greater number stays, whichever comes later.
//!
//! The bytes are sealed for devices that have the vault's keys, and stay so here.
//! One process writes here at a time: whoever has the home's claim, or the replica's lock.

mod room;
mod rows;
mod wishes;

use std::io;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, MutexGuard};

use packetboat_core::ids::VaultId;
use packetboat_core::store::{Listed, ObjectName, Put, Store, StoreError};
use packetboat_storage::folder::FolderStore;
use rusqlite::{OptionalExtension, params};
use serde::Serialize;
use thiserror::Error;

use self::rows::Inner;
use super::check::{Kind, tip_number};
use super::message::MAX_OBJECT_BYTES;
use crate::clock::Clock;
use crate::files;

/// A companion's shelf, for all vaults that it carries.
pub struct Shelf {
    directory: PathBuf,
    /// Says since when something waits; decides nothing.
    clock: Arc<dyn Clock>,
    inner: Mutex<Inner>,
}

/// An object that waits to be put up.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Waiting {
    /// Its place in the order.
    pub sequence: u64,
    /// Its name.
    pub name: ObjectName,
    /// Its bytes.
    pub bytes: Vec<u8>,
}

/// How much there is of a vault.
#[derive(Clone, Copy, PartialEq, Eq, Default, Debug, Serialize)]
pub struct Held {
    /// Objects that wait to be put up.
    pub waiting: u64,
    /// Their bytes.
    pub waiting_bytes: u64,
    /// Copies of objects that the intermediary has.
    pub copies: u64,
    /// Their bytes.
    pub copies_bytes: u64,
    /// Deposits that can never be put up.
    pub aside: u64,
    /// Their bytes.
    pub aside_bytes: u64,
    /// Since when the oldest of what waits does, in milliseconds since 1970.
    pub since_ms: Option<u64>,
}

impl Shelf {
    /// Opens a shelf, which is made where it is missing, and which is to hold no more than `limit` bytes.
    pub fn open(directory: &Path, limit: u64, clock: Arc<dyn Clock>) -> Result<Self, ShelfError> {
        files::make_directory(directory).map_err(ShelfError::Directory)?;
        let inner = Mutex::new(Inner::open(directory, limit)?);
        Ok(Self { directory: directory.to_owned(), clock, inner })
    }

    /// Changes how much it may hold; what waits stays even where that is more.
    pub fn set_limit(&self, limit: u64) {
        self.inner().limit = limit;
    }

    /// Takes an object that is to be put up, durably, as the last in the order.
    ///
    /// `replaces` is for tips: the newest by number stays, and goes up after all that came before it.
    pub fn deposit(&self, vault: VaultId, name: &ObjectName, bytes: &[u8], replaces: bool) -> Result<Put, ShelfError> {
        let files = self.files(vault)?;
        let mut inner = self.inner();
        let standing = read(&files, name)?;
        if let Some(standing) = &standing
            && inner.row(vault, name)?.is_some()
            && (!replaces || outranks(name, standing, bytes))
        {
            return Ok(Put::Present);
        }
        inner.make_room(self, vault, name, bytes.len() as u64, Give::Copies)?;
        inner.put_row(vault, name, bytes.len() as u64, Some(self.clock.now().wall_ms))?;
        // What stands without a row was cut short before it was acknowledged, and may be another object's bytes.
        files.put(name, bytes)?;
        Ok(Put::Stored)
    }

    /// Keeps a copy of an object that the intermediary has; where there is no room, or it waits, nothing happens.
    pub fn keep(&self, vault: VaultId, name: &ObjectName, bytes: &[u8]) -> Result<(), ShelfError> {
        self.keep_copy(vault, name, bytes, true).map(drop)
    }

    /// Keeps a copy of an object; `delivered` says that the host has had it. Whether there was room.
    fn keep_copy(&self, vault: VaultId, name: &ObjectName, bytes: &[u8], delivered: bool) -> Result<bool, ShelfError> {
        let files = self.files(vault)?;
        let mut inner = self.inner();
        let replaces = matches!(Kind::of(name), Some(Kind::Tip(_) | Kind::Marker));
        if let Some((waiting, _)) = inner.row(vault, name)? {
            let standing = read(&files, name)?;
            let same = standing.as_deref() == Some(bytes);
            let stays = waiting || (!replaces && standing.is_some());
            if same || stays || standing.is_some_and(|standing| outranks(name, &standing, bytes)) {
                if delivered {
                    inner.note_delivered(vault, name)?;
                }
                return Ok(true);
            }
        }
        let until = if delivered { Give::Copies } else { Give::Delivered };
        match inner.make_room(self, vault, name, bytes.len() as u64, until) {
            Err(ShelfError::NoRoom { .. }) => return Ok(false),
            room => room?,
        }
        inner.put_row(vault, name, bytes.len() as u64, None)?;
        if delivered {
            inner.note_delivered(vault, name)?;
        }
        files.put(name, bytes)?;
        Ok(true)
    }

    /// The bytes of an object, if they are here.
    pub fn read(&self, vault: VaultId, name: &ObjectName) -> Result<Option<Vec<u8>>, ShelfError> {
        let files = self.files(vault)?;
        let inner = self.inner();
        match inner.row(vault, name)? {
            Some(_) => read(&files, name),
            None => Ok(None),
        }
    }

    /// The bytes of an object that waits.
    pub fn read_waiting(&self, vault: VaultId, name: &ObjectName) -> Result<Option<Vec<u8>>, ShelfError> {
        let waits = self.inner().row(vault, name)?.is_some_and(|(waiting, _)| waiting);
        if waits { self.read(vault, name) } else { Ok(None) }
    }

    /// What is here of a folder, by name; with `waiting`, only what waits.
    pub fn list(&self, vault: VaultId, folder: &str, waiting: bool) -> Result<Vec<Listed>, ShelfError> {
        let (from, to) = match folder {
            "" => (String::new(), "~".to_owned()),
            // The sign after the slash in the order of bytes ends the range of names within the folder.
            folder => (format!("{folder}/"), format!("{folder}0")),
        };
        let inner = self.inner();
        let mut statement = inner.sql.prepare_cached(
            "SELECT name, size, version FROM object
             WHERE vault = ?1 AND name >= ?2 AND name < ?3 AND (waiting IS NOT NULL OR NOT ?4) ORDER BY name",
        )?;
        let mut rows = statement.query(params![vault.as_bytes(), from, to, waiting])?;
        let mut listing = Vec::new();
        while let Some(row) = rows.next()? {
            let name: String = row.get(0)?;
            if name[from.len()..].contains('/') {
                continue;
            }
            let Some(name) = ObjectName::new(name) else { continue };
            let (size, version) = (row.get::<_, i64>(1)? as u64, row.get::<_, i64>(2)?);
            listing.push(Listed { name, size, etag: format!("shelf-{version}-{size}") });
        }
        Ok(listing)
    }

    /// The first of what waits.
    pub fn next(&self, vault: VaultId) -> Result<Option<Waiting>, ShelfError> {
        let files = self.files(vault)?;
        let mut inner = self.inner();
        loop {
            let first = inner
                .sql
                .prepare_cached(
                    "SELECT name, waiting FROM object WHERE vault = ?1 AND waiting IS NOT NULL ORDER BY waiting LIMIT 1",
                )?
                .query_row([vault.as_bytes()], |row| Ok((row.get::<_, String>(0)?, row.get::<_, i64>(1)?)))
                .optional()?;
            let Some((name, sequence)) = first else { return Ok(None) };
            let name = ObjectName::new(name).ok_or(ShelfError::Damaged)?;
            match read(&files, &name)? {
                Some(bytes) => return Ok(Some(Waiting { sequence: sequence as u64, name, bytes })),
                None => inner.forget(vault, &name)?,
            }
        }
    }

    /// Notes that an object is at the intermediary now, and keeps it as a copy; nothing where a newer one waits.
    pub fn put_up(&self, vault: VaultId, waiting: &Waiting) -> Result<(), ShelfError> {
        self.inner().sql.execute(
            "UPDATE object SET waiting = NULL, since = NULL, delivered = 1 WHERE vault = ?1 AND name = ?2 AND waiting = ?3",
            params![vault.as_bytes(), waiting.name.as_str(), waiting.sequence as i64],
        )?;
        Ok(())
    }

    /// The names of what waits, in its order.
    pub fn waiting(&self, vault: VaultId) -> Result<Vec<ObjectName>, ShelfError> {
        let inner = self.inner();
        let mut statement = inner
            .sql
            .prepare_cached("SELECT name FROM object WHERE vault = ?1 AND waiting IS NOT NULL ORDER BY waiting")?;
        let rows = statement.query_map([vault.as_bytes()], |row| row.get::<_, String>(0))?;
        rows.map(|name| ObjectName::new(name?).ok_or(ShelfError::Damaged)).collect()
    }

    /// Gives up what is here of an object, which somebody removed.
    pub fn remove(&self, vault: VaultId, name: &ObjectName) -> Result<(), ShelfError> {
        let files = self.files(vault)?;
        let mut inner = self.inner();
        files.delete(name)?;
        inner.forget(vault, name)
    }

    /// How much there is of a vault.
    pub fn held(&self, vault: VaultId) -> Result<Held, ShelfError> {
        let inner = self.inner();
        let number = |value: i64| value as u64;
        let mut held = inner.sql.query_row(
            "SELECT count(waiting), coalesce(sum(size) FILTER (WHERE waiting IS NOT NULL), 0),
                    count(*) - count(waiting), coalesce(sum(size) FILTER (WHERE waiting IS NULL), 0),
                    min(since)
             FROM object WHERE vault = ?1",
            [vault.as_bytes()],
            |row| {
                Ok(Held {
                    waiting: number(row.get(0)?),
                    waiting_bytes: number(row.get(1)?),
                    copies: number(row.get(2)?),
                    copies_bytes: number(row.get(3)?),
                    since_ms: row.get::<_, Option<i64>>(4)?.map(number),
                    ..Held::default()
                })
            },
        )?;
        let aside = "SELECT count(*), coalesce(sum(size), 0) FROM aside WHERE vault = ?1";
        (held.aside, held.aside_bytes) =
            inner.sql.query_row(aside, [vault.as_bytes()], |row| Ok((number(row.get(0)?), number(row.get(1)?))))?;
        Ok(held)
    }

    /// How many bytes it holds, and may hold.
    pub fn room(&self) -> (u64, u64) {
        let inner = self.inner();
        (inner.held, inner.limit)
    }

    fn files(&self, vault: VaultId) -> Result<FolderStore, ShelfError> {
        self.files_in(&self.directory, vault)
    }

    fn files_in(&self, directory: &Path, vault: VaultId) -> Result<FolderStore, ShelfError> {
        let root = directory.join(vault.to_string());
        files::make_directory(&root).map_err(ShelfError::Directory)?;
        Ok(FolderStore::new(root))
    }

    /// A panic elsewhere leaves the tables whole: each call is made of transactions.
    fn inner(&self) -> MutexGuard<'_, Inner> {
        self.inner.lock().unwrap_or_else(|poisoned| poisoned.into_inner())
    }
}

/// Whether what stands under a name is a later tip than the one that is to replace it.
fn outranks(name: &ObjectName, standing: &[u8], other: &[u8]) -> bool {
    let Some(Kind::Tip(device)) = Kind::of(name) else { return false };
    tip_number(&device, standing) > tip_number(&device, other)
}

fn read(files: &FolderStore, name: &ObjectName) -> Result<Option<Vec<u8>>, ShelfError> {
    match files.get(name, MAX_OBJECT_BYTES) {
        Ok(bytes) => Ok(Some(bytes)),
        Err(StoreError::Missing { .. }) => Ok(None),
        Err(error) => Err(error.into()),
    }
}

/// What may be given up to make room.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
enum Give {
    /// What the host has had already, and what was set aside.
    Delivered,
    /// All copies as well.
    Copies,
}

/// Why something cannot be kept or found.
#[derive(Debug, Error)]
pub enum ShelfError {
    /// Its directory cannot be made.
    #[error("the directory for what is carried cannot be made")]
    Directory(#[source] io::Error),
    /// Its record fails.
    #[error("the record of what is carried fails")]
    Record(#[from] rusqlite::Error),
    /// A file cannot be read or written.
    #[error("what is carried cannot be read or written")]
    Files(#[from] StoreError),
    /// Everything that may be held waits to be put up.
    #[error("the companion holds {} MiB already that wait to be put up, which is all that relay.space allows", limit >> 20)]
    NoRoom {
        /// How many bytes it may hold.
        limit: u64,
    },
    /// The record holds what was never written there.
    #[error("the record of what is carried is damaged")]
    Damaged,
    /// It was written by a later version.
    #[error("the record of what is carried has format {version}; use the packetboat that wrote it")]
    Newer {
        /// Its format.
        version: i64,
    },
}
