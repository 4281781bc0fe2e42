//! What a companion keeps of vaults: objects that wait to be put up, and copies of those that passed.
//!
//! ```text
//! DIRECTORY/shelf.db            which objects there are, and in which order those that wait came
//! DIRECTORY/<vault>/<name>      an object, as at an intermediary
//! DIRECTORY/aside/<vault>/...   deposits that can never be put up, because something else has their place
//! ```
//!
//! Invariants:
//! - A deposit is on stable storage, and in its place in the order, before it is acknowledged.
//! - The row is written before the file. A row without its file is of a deposit that was never acknowledged, and means
//!   nothing; the other way round, a tip that replaces one that waits would go up in the older one's place.
//! - What waits is never evicted; copies are, the packs first and the oldest first, when there is no room.
//! - Of two tips of one device the one with the greater number stays, whichever comes later.
//!
//! The bytes are sealed for devices that have the vault's keys, and stay so here.
//! One process writes here at a time: whoever has the home's claim.

use std::io;
use std::path::{Path, PathBuf};
use std::sync::{Mutex, MutexGuard};
use std::time::Duration;

use packetboat_core::ids::VaultId;
use packetboat_core::store::{Listed, ObjectName, Put, Store, StoreError};
use packetboat_storage::folder::FolderStore;
use rusqlite::{Connection, OptionalExtension, params};
use serde::Serialize;
use thiserror::Error;

use super::check::{Kind, tip_number};
use super::message::MAX_OBJECT_BYTES;
use crate::files;

/// A companion's shelf, for all vaults that it carries.
#[derive(Debug)]
pub struct Shelf {
    directory: PathBuf,
    inner: Mutex<Inner>,
}

#[derive(Debug)]
struct Inner {
    sql: Connection,
    limit: u64,
    held: u64,
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
}

impl Shelf {
    /// Opens a shelf, which is made where it is missing, and which is to hold no more than `limit` bytes.
    pub fn open(directory: &Path, limit: u64) -> Result<Self, ShelfError> {
        files::make_directory(directory).map_err(ShelfError::Directory)?;
        let sql = Connection::open(directory.join("shelf.db"))?;
        sql.busy_timeout(Duration::from_secs(10))?;
        sql.pragma_update(None, "journal_mode", "WAL")?;
        sql.pragma_update(None, "synchronous", "FULL")?;
        let version: i64 = sql.pragma_query_value(None, "user_version", |row| row.get(0))?;
        match version {
            0 => sql.execute_batch(SCHEMA)?,
            VERSION => {}
            version => return Err(ShelfError::Newer { version }),
        }
        let held: i64 = sql.query_row("SELECT coalesce(sum(size), 0) FROM object", [], |row| row.get(0))?;
        let inner = Mutex::new(Inner { sql, limit, held: held as u64 });
        Ok(Self { directory: directory.to_owned(), inner })
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
        inner.make_room(self, vault, name, bytes.len() as u64)?;
        inner.put_row(vault, name, bytes.len() as u64, true)?;
        // What stands without a row was cut short before it was acknowledged, and may be another object's bytes.
        files.put(name, bytes)?;
        Ok(Put::Stored)
    }

    /// Keeps a copy of an object that the intermediary has; where there is no room, or it waits, nothing happens.
    pub fn keep(&self, vault: VaultId, name: &ObjectName, bytes: &[u8]) -> Result<(), ShelfError> {
        let files = self.files(vault)?;
        let mut inner = self.inner();
        let replaces = matches!(Kind::of(name), Some(Kind::Tip(_) | Kind::Marker));
        if let Some((waiting, _)) = inner.row(vault, name)? {
            let standing = read(&files, name)?;
            let same = standing.as_deref() == Some(bytes);
            let stays = waiting || (!replaces && standing.is_some());
            if same || stays || standing.is_some_and(|standing| outranks(name, &standing, bytes)) {
                return Ok(());
            }
        }
        match inner.make_room(self, vault, name, bytes.len() as u64) {
            Err(ShelfError::NoRoom { .. }) => return Ok(()),
            room => room?,
        }
        inner.put_row(vault, name, bytes.len() as u64, false)?;
        Ok(files.put(name, bytes)?)
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
            "UPDATE object SET waiting = NULL WHERE vault = ?1 AND name = ?2 AND waiting = ?3",
            params![vault.as_bytes(), waiting.name.as_str(), waiting.sequence as i64],
        )?;
        Ok(())
    }

    /// Takes what waits of a device, from `first` on, out of the order: something else has the place of the first.
    pub fn set_aside(&self, vault: VaultId, first: &Waiting) -> Result<u64, ShelfError> {
        let files = self.files(vault)?;
        let aside = self.files_in(&self.directory.join("aside"), vault)?;
        let author = Kind::of(&first.name).and_then(|kind| kind.author());
        let mut inner = self.inner();
        let names: Vec<String> = {
            let mut statement = inner
                .sql
                .prepare_cached("SELECT name FROM object WHERE vault = ?1 AND waiting >= ?2 ORDER BY waiting")?;
            let rows = statement.query_map(params![vault.as_bytes(), first.sequence as i64], |row| row.get(0))?;
            rows.collect::<Result<_, _>>()?
        };
        let of_author = |name: &ObjectName| Kind::of(name).and_then(|kind| kind.author()) == author;
        let mut count = 0;
        for name in names.into_iter().filter_map(ObjectName::new).filter(of_author) {
            if let Some(bytes) = read(&files, &name)? {
                aside.put(&name, &bytes)?;
            }
            inner.sql.execute(
                "INSERT OR REPLACE INTO aside (vault, name) VALUES (?1, ?2)",
                params![vault.as_bytes(), name.as_str()],
            )?;
            files.delete(&name)?;
            inner.forget(vault, &name)?;
            count += 1;
        }
        Ok(count)
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
                    count(*) - count(waiting), coalesce(sum(size) FILTER (WHERE waiting IS NULL), 0)
             FROM object WHERE vault = ?1",
            [vault.as_bytes()],
            |row| {
                Ok(Held {
                    waiting: number(row.get(0)?),
                    waiting_bytes: number(row.get(1)?),
                    copies: number(row.get(2)?),
                    copies_bytes: number(row.get(3)?),
                    aside: 0,
                })
            },
        )?;
        let aside = "SELECT count(*) FROM aside WHERE vault = ?1";
        held.aside = number(inner.sql.query_row(aside, [vault.as_bytes()], |row| row.get(0))?);
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

impl Inner {
    /// Whether an object waits, and its size.
    fn row(&self, vault: VaultId, name: &ObjectName) -> Result<Option<(bool, u64)>, ShelfError> {
        let mut statement =
            self.sql.prepare_cached("SELECT waiting IS NOT NULL, size FROM object WHERE vault = ?1 AND name = ?2")?;
        let found = statement
            .query_row(params![vault.as_bytes(), name.as_str()], |row| Ok((row.get(0)?, row.get::<_, i64>(1)? as u64)));
        Ok(found.optional()?)
    }

    fn put_row(&mut self, vault: VaultId, name: &ObjectName, size: u64, waiting: bool) -> Result<(), ShelfError> {
        let before = self.row(vault, name)?.map_or(0, |(_, size)| size);
        let change = self.sql.transaction()?;
        change.execute("UPDATE sequence SET last = last + 1", [])?;
        let last: i64 = change.query_row("SELECT last FROM sequence", [], |row| row.get(0))?;
        change.execute(
            "INSERT OR REPLACE INTO object (vault, name, size, version, waiting) VALUES (?1, ?2, ?3, ?4, ?5)",
            params![vault.as_bytes(), name.as_str(), size as i64, last, waiting.then_some(last)],
        )?;
        change.commit()?;
        self.held = self.held.saturating_sub(before) + size;
        Ok(())
    }

    fn forget(&mut self, vault: VaultId, name: &ObjectName) -> Result<(), ShelfError> {
        let size = self.row(vault, name)?.map_or(0, |(_, size)| size);
        let gone = "DELETE FROM object WHERE vault = ?1 AND name = ?2";
        self.sql.execute(gone, params![vault.as_bytes(), name.as_str()])?;
        self.held = self.held.saturating_sub(size);
        Ok(())
    }

    /// Gives up copies until there is room for an object of `size` bytes in the place of one of that name.
    fn make_room(&mut self, shelf: &Shelf, vault: VaultId, name: &ObjectName, size: u64) -> Result<(), ShelfError> {
        let before = self.row(vault, name)?.map_or(0, |(_, size)| size);
        while self.held.saturating_sub(before).saturating_add(size) > self.limit {
            let oldest = self
                .sql
                .prepare_cached(
                    "SELECT vault, name FROM object WHERE waiting IS NULL AND NOT (vault = ?1 AND name = ?2)
                     ORDER BY name NOT LIKE 'packs/%', version LIMIT 1",
                )?
                .query_row(params![vault.as_bytes(), name.as_str()], |row| {
                    Ok((row.get::<_, [u8; 16]>(0)?, row.get::<_, String>(1)?))
                })
                .optional()?;
            let Some((of, oldest)) = oldest else { return Err(ShelfError::NoRoom { limit: self.limit }) };
            let (of, oldest) = (VaultId(of), ObjectName::new(oldest).ok_or(ShelfError::Damaged)?);
            // The file first: a row without a file is nothing, a file without a row would be counted by nobody.
            shelf.files(of)?.delete(&oldest)?;
            self.forget(of, &oldest)?;
        }
        Ok(())
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

const VERSION: i64 = 1;
const SCHEMA: &str = "
BEGIN;
CREATE TABLE object (
    vault BLOB NOT NULL, name TEXT NOT NULL, size INTEGER NOT NULL,
    version INTEGER NOT NULL,  -- rises with each change, and tells two tips of one size apart
    waiting INTEGER,           -- the place in the order of what is to be put up; null for copies
    PRIMARY KEY (vault, name)
) WITHOUT ROWID;
CREATE UNIQUE INDEX waiting ON object (vault, waiting) WHERE waiting IS NOT NULL;
CREATE TABLE aside (vault BLOB NOT NULL, name TEXT NOT NULL, PRIMARY KEY (vault, name)) WITHOUT ROWID;
CREATE TABLE sequence (last INTEGER NOT NULL);
INSERT INTO sequence VALUES (0);
PRAGMA user_version = 1;
COMMIT;
";

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
