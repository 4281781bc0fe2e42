//! The record of a shelf: which objects there are, which of them wait, and in which order they came.

use std::path::Path;
use std::time::Duration;

use packetboat_core::ids::VaultId;
use packetboat_core::store::ObjectName;
use rusqlite::{Connection, OptionalExtension, params};

use super::ShelfError;

/// The record, with what is counted of it.
#[derive(Debug)]
pub(super) struct Inner {
    pub(super) sql: Connection,
    /// How many bytes the shelf is to hold at most.
    pub(super) limit: u64,
    /// How many it holds.
    pub(super) held: u64,
}

impl Inner {
    /// Opens the record, which is made where it is missing.
    pub(super) fn open(directory: &Path, limit: u64) -> Result<Self, ShelfError> {
        let sql = Connection::open(directory.join("shelf.db"))?;
        sql.busy_timeout(Duration::from_secs(10))?;
        sql.pragma_update(None, "journal_mode", "WAL")?;
        sql.pragma_update(None, "synchronous", "FULL")?;
        let version: i64 = sql.pragma_query_value(None, "user_version", |row| row.get(0))?;
        match version {
            0 => sql.execute_batch(&format!("BEGIN; {FIRST} {SECOND} COMMIT;"))?,
            1 => sql.execute_batch(&format!("BEGIN; {SECOND} COMMIT;"))?,
            VERSION => {}
            version => return Err(ShelfError::Newer { version }),
        }
        let sizes = "SELECT (SELECT coalesce(sum(size), 0) FROM object) + (SELECT coalesce(sum(size), 0) FROM aside)";
        let held: i64 = sql.query_row(sizes, [], |row| row.get(0))?;
        Ok(Self { sql, limit, held: held as u64 })
    }

    /// Whether an object waits, and its size.
    pub(super) fn row(&self, vault: VaultId, name: &ObjectName) -> Result<Option<(bool, u64)>, ShelfError> {
        let mut statement =
            self.sql.prepare_cached("SELECT waiting IS NOT NULL, size FROM object WHERE vault = ?1 AND name = ?2")?;
        let found = statement
            .query_row(params![vault.as_bytes(), name.as_str()], |row| Ok((row.get(0)?, row.get::<_, i64>(1)? as u64)));
        Ok(found.optional()?)
    }

    /// Writes the row of an object; `waits_since` is for deposits, which go to the end of the order.
    pub(super) fn put_row(
        &mut self,
        vault: VaultId,
        name: &ObjectName,
        size: u64,
        waits_since: Option<u64>,
    ) -> Result<(), ShelfError> {
        let before = self.row(vault, name)?.map_or(0, |(_, size)| size);
        let change = self.sql.transaction()?;
        change.execute("UPDATE sequence SET last = last + 1", [])?;
        let last: i64 = change.query_row("SELECT last FROM sequence", [], |row| row.get(0))?;
        change.execute(
            "INSERT OR REPLACE INTO object (vault, name, size, version, waiting, since) VALUES (?1, ?2, ?3, ?4, ?5, ?6)",
            params![
                vault.as_bytes(),
                name.as_str(),
                size as i64,
                last,
                waits_since.map(|_| last),
                waits_since.map(|since| since as i64)
            ],
        )?;
        change.commit()?;
        self.held = self.held.saturating_sub(before) + size;
        Ok(())
    }

    pub(super) fn forget(&mut self, vault: VaultId, name: &ObjectName) -> Result<(), ShelfError> {
        let size = self.row(vault, name)?.map_or(0, |(_, size)| size);
        let gone = "DELETE FROM object WHERE vault = ?1 AND name = ?2";
        self.sql.execute(gone, params![vault.as_bytes(), name.as_str()])?;
        self.held = self.held.saturating_sub(size);
        Ok(())
    }
}

const VERSION: i64 = 2;

/// Format 1.
const FIRST: &str = "
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
";

/// What format 2 has besides.
const SECOND: &str = "
ALTER TABLE object ADD COLUMN since INTEGER;                        -- when a deposit came, in ms since 1970
ALTER TABLE object ADD COLUMN delivered INTEGER NOT NULL DEFAULT 0; -- whether the host has had it
ALTER TABLE aside ADD COLUMN size INTEGER NOT NULL DEFAULT 0;
ALTER TABLE aside ADD COLUMN version INTEGER NOT NULL DEFAULT 0;    -- which came first
CREATE TABLE known (vault BLOB NOT NULL, name TEXT NOT NULL, PRIMARY KEY (vault, name)) WITHOUT ROWID;
CREATE TABLE wanted (vault BLOB NOT NULL, name TEXT NOT NULL, PRIMARY KEY (vault, name)) WITHOUT ROWID;
CREATE TABLE pulled (vault BLOB NOT NULL PRIMARY KEY, tips TEXT NOT NULL) WITHOUT ROWID;
PRAGMA user_version = 2;
";
