//! What a companion need not pull of a vault, because it is known or was had, and what its host asked for in vain.

use packetboat_core::ids::VaultId;
use packetboat_core::store::ObjectName;
use rusqlite::{OptionalExtension, params};

use super::{Inner, Shelf, ShelfError};

impl Shelf {
    /// Keeps a copy of what was pulled for the host; whether there was room for it, which only what the host had gives.
    pub fn keep_pulled(&self, vault: VaultId, name: &ObjectName, bytes: &[u8]) -> Result<bool, ShelfError> {
        let kept = self.keep_copy(vault, name, bytes, false)?;
        if kept {
            self.note_known(vault, std::slice::from_ref(name))?;
        }
        Ok(kept)
    }

    /// Notes that objects need not be pulled.
    pub fn note_known(&self, vault: VaultId, names: &[ObjectName]) -> Result<(), ShelfError> {
        let mut inner = self.inner();
        let change = inner.sql.transaction()?;
        {
            let mut known = change.prepare_cached("INSERT OR IGNORE INTO known (vault, name) VALUES (?1, ?2)")?;
            let mut wanted = change.prepare_cached("DELETE FROM wanted WHERE vault = ?1 AND name = ?2")?;
            for name in names {
                known.execute(params![vault.as_bytes(), name.as_str()])?;
                wanted.execute(params![vault.as_bytes(), name.as_str()])?;
            }
        }
        Ok(change.commit()?)
    }

    /// Notes that the host has had an object.
    pub fn note_delivered(&self, vault: VaultId, name: &ObjectName) -> Result<(), ShelfError> {
        self.inner().note_delivered(vault, name)
    }

    /// Notes that the host asked for an object that is not here, up to a bound.
    pub fn note_wanted(&self, vault: VaultId, name: &ObjectName) -> Result<(), ShelfError> {
        self.inner().sql.execute(
            "INSERT OR IGNORE INTO wanted (vault, name)
             SELECT ?1, ?2 WHERE (SELECT count(*) FROM wanted WHERE vault = ?1) < ?3",
            params![vault.as_bytes(), name.as_str(), WANTED],
        )?;
        Ok(())
    }

    /// What the host asked for in vain.
    pub fn wanted(&self, vault: VaultId) -> Result<Vec<ObjectName>, ShelfError> {
        let inner = self.inner();
        let mut statement = inner.sql.prepare_cached("SELECT name FROM wanted WHERE vault = ?1 ORDER BY name")?;
        let rows = statement.query_map([vault.as_bytes()], |row| row.get::<_, String>(0))?;
        rows.map(|name| ObjectName::new(name?).ok_or(ShelfError::Damaged)).collect()
    }

    /// Whether an object need not be pulled.
    pub fn is_known(&self, vault: VaultId, name: &ObjectName) -> Result<bool, ShelfError> {
        let inner = self.inner();
        let mut statement = inner.sql.prepare_cached(
            "SELECT EXISTS (SELECT 1 FROM known WHERE vault = ?1 AND name = ?2)
                 OR EXISTS (SELECT 1 FROM object WHERE vault = ?1 AND name = ?2)",
        )?;
        Ok(statement.query_row(params![vault.as_bytes(), name.as_str()], |row| row.get(0))?)
    }

    /// What the tips looked like when all that they lead to had been pulled; nothing, where that never was so.
    pub fn pulled(&self, vault: VaultId) -> Result<Option<String>, ShelfError> {
        let inner = self.inner();
        let tips = "SELECT tips FROM pulled WHERE vault = ?1";
        Ok(inner.sql.query_row(tips, [vault.as_bytes()], |row| row.get(0)).optional()?)
    }

    /// Notes what the tips looked like when pulling began, once it is done.
    pub fn note_pulled(&self, vault: VaultId, tips: &str) -> Result<(), ShelfError> {
        let note = "INSERT OR REPLACE INTO pulled (vault, tips) VALUES (?1, ?2)";
        self.inner().sql.execute(note, params![vault.as_bytes(), tips])?;
        Ok(())
    }
}

impl Inner {
    pub(super) fn note_delivered(&mut self, vault: VaultId, name: &ObjectName) -> Result<(), ShelfError> {
        let of = params![vault.as_bytes(), name.as_str()];
        let noted = "SELECT EXISTS (SELECT 1 FROM known WHERE vault = ?1 AND name = ?2)
            AND NOT EXISTS (SELECT 1 FROM object WHERE vault = ?1 AND name = ?2 AND NOT delivered)
            AND NOT EXISTS (SELECT 1 FROM wanted WHERE vault = ?1 AND name = ?2)";
        // Ranges of one pack are asked for by the hundred; each change would cost a sync.
        if self.sql.prepare_cached(noted)?.query_row(of, |row| row.get(0))? {
            return Ok(());
        }
        let change = self.sql.transaction()?;
        change.execute("UPDATE object SET delivered = 1 WHERE vault = ?1 AND name = ?2 AND NOT delivered", of)?;
        change.execute("INSERT OR IGNORE INTO known (vault, name) VALUES (?1, ?2)", of)?;
        change.execute("DELETE FROM wanted WHERE vault = ?1 AND name = ?2", of)?;
        Ok(change.commit()?)
    }

    /// What was given up before the host had it is to be pulled again.
    pub(super) fn forget_known(&mut self, vault: VaultId, name: &ObjectName) -> Result<(), ShelfError> {
        let of = params![vault.as_bytes(), name.as_str()];
        let change = self.sql.transaction()?;
        change.execute("DELETE FROM known WHERE vault = ?1 AND name = ?2", of)?;
        // Not the first time again: then it would only be noted.
        change.execute("UPDATE pulled SET tips = '' WHERE vault = ?1", [vault.as_bytes()])?;
        Ok(change.commit()?)
    }
}

/// How many wishes are remembered of a vault. A host asks for the rest again.
const WANTED: i64 = 10_000;
