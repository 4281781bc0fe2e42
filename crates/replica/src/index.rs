//! The index: what a replica knows of its vault and of its disk, in one SQLite database.
//!
//! Everything in it is one transaction's work or nothing: it is what makes a crash at any instant harmless.
//! It implements the core's ports ([`TreeRead`](packetboat_core::tree::TreeRead),
//! [`TreeWrite`](packetboat_core::tree::TreeWrite), [`LocalRead`](packetboat_core::local::LocalRead)) and keeps
//! packets, lanes, packs, members and the notes of a round; it decides nothing.
//!
//! Rows are small, because a vault may have millions of files: devices and items have numbers (`numbers.rs`),
//! and what is mostly the same is written as a flag (`item_code.rs`, `entry_code.rs`); `schema.rs` draws the tables.
//!
//! Invariants: memory does not grow with the number of files (every cache is bounded);
//! what is cached is what the database holds, also after a rollback;
//! no row can make it panic: one that cannot be read is [`IndexError::Damaged`].

use std::cell::RefCell;
use std::collections::HashMap;
use std::fs::{DirBuilder, OpenOptions};
use std::io;
use std::os::unix::fs::{DirBuilderExt, OpenOptionsExt};
use std::path::Path;
use std::time::Duration;

use packetboat_core::ids::ItemId;
use packetboat_core::item::Item;
use packetboat_core::knowledge::Knowledge;
use packetboat_core::wire::WireError;
use rusqlite::{Connection, ErrorCode};
use thiserror::Error;

pub use chunks::{ChunkPlace, PackRow, PackState};
pub use entries::ScannedEntry;
pub use lookup::{ChunkLookup, ChunkSieve, Referable};
pub use members::Member;
pub use notes::Problem;
pub use packets::{FoldedPacket, PacketRow, Stage};
pub use sweep::{PackUse, Used};

use numbers::Numbers;

/// A replica's index.
///
/// Writes outside [`begin`](Self::begin) and [`commit`](Self::commit) are transactions of their own.
#[derive(Debug)]
pub struct Index {
    sql: Connection,
    numbers: Numbers,
    knowledge: Knowledge,
    /// Directory items: folding looks the same parents up again and again.
    directories: RefCell<HashMap<ItemId, Item>>,
    /// How many transactions are open, one within the other.
    depth: u32,
}

impl Index {
    /// Opens the index at `path`; makes it, and its directory, when missing, readable by their owner alone.
    pub fn open(path: &Path) -> Result<Self, IndexError> {
        if let Some(directory) = path.parent() {
            DirBuilder::new().recursive(true).mode(0o700).create(directory).map_err(io_error)?;
        }
        // SQLite gives its own files beside this one the same mode.
        OpenOptions::new().append(true).create(true).mode(0o600).open(path).map_err(io_error)?;
        Self::prepare(Connection::open(path)?)
    }

    /// An index that is gone when dropped, for tests.
    pub fn in_memory() -> Result<Self, IndexError> {
        Self::prepare(Connection::open_in_memory()?)
    }

    /// An index that is gone when dropped and may be large: what does not fit into SQLite's cache lies in a file
    /// without a name.
    pub fn temporary() -> Result<Self, IndexError> {
        Self::prepare(Connection::open("")?)
    }

    /// A copy of what is committed, as a backup or a cloned disk has it; in memory, for tests.
    pub fn copy_in_memory(&self) -> Result<Self, IndexError> {
        let copy = Self::in_memory()?;
        let mut names =
            self.sql.prepare("SELECT name FROM sqlite_schema WHERE type = 'table' AND name NOT LIKE 'sqlite%'")?;
        let names = names.query_map([], |row| row.get::<_, String>(0))?.collect::<Result<Vec<_>, _>>()?;
        for name in names {
            copy.sql.execute(&format!("DELETE FROM {name}"), [])?;
            let mut read = self.sql.prepare(&format!("SELECT * FROM {name}"))?;
            let columns = read.column_count();
            let places = vec!["?"; columns].join(", ");
            let mut put = copy.sql.prepare(&format!("INSERT INTO {name} VALUES ({places})"))?;
            let mut rows = read.query([])?;
            while let Some(row) = rows.next()? {
                let values = (0..columns).map(|column| row.get::<_, rusqlite::types::Value>(column));
                put.execute(rusqlite::params_from_iter(values.collect::<Result<Vec<_>, _>>()?))?;
            }
        }
        let Self { sql, .. } = copy;
        Self::prepare(sql)
    }

    fn prepare(sql: Connection) -> Result<Self, IndexError> {
        sql.busy_timeout(BUSY_TIMEOUT)?;
        sql.set_prepared_statement_cache_capacity(STATEMENTS);
        sql.execute_batch(schema::SETTINGS)?;
        schema::create_or_check(&sql)?;
        let numbers = Numbers::load(&sql)?;
        let directories = RefCell::default();
        let mut index = Self { sql, numbers, knowledge: Knowledge::new(), directories, depth: 0 };
        index.knowledge = index.load_knowledge()?;
        Ok(index)
    }

    /// Begins a transaction, within the one that is open if there is one.
    pub fn begin(&mut self) -> Result<(), IndexError> {
        match self.depth {
            0 => self.sql.execute_batch("BEGIN IMMEDIATE")?,
            depth => self.sql.execute_batch(&format!("SAVEPOINT level{depth}"))?,
        }
        self.depth += 1;
        Ok(())
    }

    /// Keeps what was written since the last [`begin`](Self::begin); the outermost makes it durable.
    ///
    /// After a failure the transaction is still open: call [`rollback`](Self::rollback).
    pub fn commit(&mut self) -> Result<(), IndexError> {
        match self.depth {
            0 | 1 => self.sql.execute_batch("COMMIT")?,
            depth => self.sql.execute_batch(&format!("RELEASE level{}", depth - 1))?,
        }
        self.depth = self.depth.saturating_sub(1);
        Ok(())
    }

    /// Takes back what was written since the last [`begin`](Self::begin); does nothing outside a transaction.
    ///
    /// A full or failing disk makes SQLite take the whole transaction back by itself. Where that took more than was
    /// asked for, the answer is [`IndexError::TakenBack`], and no transaction is open.
    pub fn rollback(&mut self) -> Result<(), IndexError> {
        if self.depth == 0 {
            return Ok(());
        }
        self.depth -= 1;
        let taken_back = self.sql.is_autocommit();
        if !taken_back && self.depth == 0 {
            self.sql.execute_batch("ROLLBACK")?;
        } else if !taken_back {
            let depth = self.depth;
            self.sql.execute_batch(&format!("ROLLBACK TO level{depth}; RELEASE level{depth}"))?;
        }
        let outer = if taken_back { std::mem::take(&mut self.depth) } else { 0 };
        self.directories.borrow_mut().clear();
        self.numbers = Numbers::load(&self.sql)?;
        self.knowledge = self.load_knowledge()?;
        if outer > 0 { Err(IndexError::TakenBack) } else { Ok(()) }
    }

    /// Keeps what is read from being locked anew by every query, until what this returns is dropped.
    ///
    /// All reads meanwhile see one state; within a transaction they do so anyway, and this does nothing.
    pub fn reading(&self) -> Result<Reading<'_>, IndexError> {
        let begun = self.depth == 0 && self.sql.is_autocommit();
        if begun {
            self.sql.execute_batch("BEGIN DEFERRED")?;
        }
        Ok(Reading { index: self, begun })
    }

    /// Whether a transaction is open.
    pub fn in_transaction(&self) -> bool {
        self.depth > 0
    }

    /// Writes the log back into the database and lets SQLite refresh what it knows of the tables; call it when idle.
    pub fn tidy(&mut self) -> Result<(), IndexError> {
        Ok(self.sql.execute_batch("PRAGMA optimize; PRAGMA wal_checkpoint(TRUNCATE)")?)
    }

    /// Rewrites the database without the gaps that removals and growth left in it; it needs as much space again meanwhile.
    pub fn compact(&mut self) -> Result<(), IndexError> {
        Ok(self.sql.execute_batch("VACUUM; PRAGMA wal_checkpoint(TRUNCATE)")?)
    }

    /// Has SQLite check every page; `Damaged` where one is not in order.
    pub fn check(&self) -> Result<(), IndexError> {
        let answer: String = self.sql.query_row("PRAGMA integrity_check(1)", [], |row| row.get(0))?;
        if answer == "ok" { Ok(()) } else { Err(IndexError::Damaged { what: "a page" }) }
    }
}

/// Many reads under one lock: see [`Index::reading`]. It borrows the index, so that nothing is written meanwhile.
pub struct Reading<'a> {
    index: &'a Index,
    begun: bool,
}

impl Drop for Reading<'_> {
    fn drop(&mut self) {
        if self.begun {
            // It wrote nothing; where it fails, SQLite has ended it already.
            let _ = self.index.sql.execute_batch("COMMIT");
        }
    }
}

/// Why the index could not do what it was asked.
#[derive(Debug, Error)]
pub enum IndexError {
    /// The disk is full: nothing was written; free some space and try again.
    #[error("the disk that holds the index is full")]
    Full,
    /// The disk failed to read or write: look at the disk and try again.
    #[error("the disk that holds the index failed")]
    Disk {
        /// What it said.
        #[source]
        source: Box<dyn std::error::Error + Send + Sync>,
    },
    /// Not an index, or not in the form it was written in: rebuild it from disk and vault.
    #[error("the index is damaged: {what} cannot be read")]
    Damaged {
        /// What was read.
        what: &'static str,
    },
    /// Written by a newer Packetboat: use that one.
    #[error("the index has format {version}, which this version of packetboat cannot read")]
    Newer {
        /// Its format version.
        version: i64,
    },
    /// Another process holds it: try again later.
    #[error("the index is in use by another process")]
    Busy,
    /// A full or failing disk took back more than was to be taken back: begin the outermost transaction anew.
    #[error("the whole transaction was taken back")]
    TakenBack,
    /// Anything else that SQLite refuses; a bug.
    #[error("the index refused an operation")]
    Sql(#[source] rusqlite::Error),
}

impl From<rusqlite::Error> for IndexError {
    fn from(error: rusqlite::Error) -> Self {
        use rusqlite::Error::{FromSqlConversionFailure, IntegralValueOutOfRange, InvalidColumnType, Utf8Error};
        match error {
            FromSqlConversionFailure(..) | IntegralValueOutOfRange(..) | InvalidColumnType(..) | Utf8Error(..) => {
                Self::Damaged { what: "a column" }
            }
            error => match error.sqlite_error_code() {
                Some(ErrorCode::DiskFull) => Self::Full,
                // A file of it that cannot be made or written to, its temporary ones among them.
                Some(ErrorCode::SystemIoFailure | ErrorCode::CannotOpen | ErrorCode::ReadOnly) => {
                    Self::Disk { source: Box::new(error) }
                }
                Some(ErrorCode::DatabaseCorrupt) => Self::Damaged { what: "a page" },
                Some(ErrorCode::NotADatabase) => Self::Damaged { what: "the file" },
                Some(ErrorCode::DatabaseBusy | ErrorCode::DatabaseLocked) => Self::Busy,
                _ => Self::Sql(error),
            },
        }
    }
}

impl From<WireError> for IndexError {
    fn from(_: WireError) -> Self {
        Self::Damaged { what: "a row" }
    }
}

impl From<rusqlite::types::FromSqlError> for IndexError {
    fn from(_: rusqlite::types::FromSqlError) -> Self {
        Self::Damaged { what: "a column" }
    }
}

fn io_error(error: io::Error) -> IndexError {
    match error.kind() {
        io::ErrorKind::StorageFull | io::ErrorKind::QuotaExceeded => IndexError::Full,
        _ => IndexError::Disk { source: Box::new(error) },
    }
}

/// How long to wait for another process before saying [`IndexError::Busy`].
const BUSY_TIMEOUT: Duration = Duration::from_secs(5);
/// How many prepared statements are kept: more than there are.
const STATEMENTS: usize = 256;

mod chunks;
mod content_code;
mod entries;
mod entry_code;
#[cfg(feature = "fuzzing")]
pub mod fuzzing;
mod item_code;
mod items;
mod lanes;
mod lookup;
mod members;
mod notes;
mod numbers;
mod packets;
#[cfg(any(test, feature = "fuzzing"))]
mod samples;
mod schema;
mod sweep;
#[cfg(test)]
mod tests;
