//! What is given up when a shelf has no room, and what is set aside because it can never be put up.
//!
//! What was set aside is kept for whoever wants to look at both sides of a fork; the device that made it has it in its
//! index and goes on under other keys, so losing it loses nothing. It has a part of the room and no more.

use packetboat_core::ids::VaultId;
use packetboat_core::store::{ObjectName, Store};
use rusqlite::{OptionalExtension, params};

use super::{Give, Inner, Shelf, ShelfError, Waiting, read};
use crate::relay::check::Kind;

impl Shelf {
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
        // More than a part of the room is never taken by what nobody may ever ask for.
        let most = inner.limit / ASIDE_PART;
        let mut count = 0;
        for name in names.into_iter().filter_map(ObjectName::new).filter(of_author) {
            let bytes = read(&files, &name)?.unwrap_or_default();
            let size = bytes.len() as u64;
            // The file is away from the shelf before it is counted anew, so what is aside is never put up.
            files.delete(&name)?;
            inner.forget(vault, &name)?;
            count += 1;
            if size > most {
                continue;
            }
            while inner.aside_bytes()? + size > most && inner.give_up_aside(self)? {}
            inner.put_aside(vault, &name, size)?;
            aside.put(&name, &bytes)?;
        }
        Ok(count)
    }

    /// Gives up everything of a vault that does not wait.
    pub fn give_up_copies(&self, vault: VaultId) -> Result<(), ShelfError> {
        let copies: Vec<String> = {
            let inner = self.inner();
            let mut statement =
                inner.sql.prepare_cached("SELECT name FROM object WHERE vault = ?1 AND waiting IS NULL")?;
            let rows = statement.query_map([vault.as_bytes()], |row| row.get(0))?;
            rows.collect::<Result<_, _>>()?
        };
        for name in copies {
            self.remove(vault, &ObjectName::new(name).ok_or(ShelfError::Damaged)?)?;
        }
        Ok(())
    }
}

impl Inner {
    /// Gives up what may be until there is room for an object of `size` bytes in the place of one of that name.
    pub(super) fn make_room(
        &mut self,
        shelf: &Shelf,
        vault: VaultId,
        name: &ObjectName,
        size: u64,
        give: Give,
    ) -> Result<(), ShelfError> {
        let before = self.row(vault, name)?.map_or(0, |(_, size)| size);
        while self.held.saturating_sub(before).saturating_add(size) > self.limit {
            if !self.give_up_aside(shelf)? && !self.give_up_copy(shelf, vault, name, give)? {
                return Err(ShelfError::NoRoom { limit: self.limit });
            }
        }
        Ok(())
    }

    /// Gives up one copy, but not the one that is being replaced; whether there was one.
    fn give_up_copy(
        &mut self,
        shelf: &Shelf,
        vault: VaultId,
        name: &ObjectName,
        give: Give,
    ) -> Result<bool, ShelfError> {
        let oldest = self
            .sql
            .prepare_cached(
                "SELECT vault, name, delivered FROM object
                 WHERE waiting IS NULL AND NOT (vault = ?1 AND name = ?2) AND (delivered OR ?3)
                 ORDER BY NOT delivered, name NOT LIKE 'packs/%', version LIMIT 1",
            )?
            .query_row(params![vault.as_bytes(), name.as_str(), give == Give::Copies], |row| {
                Ok((row.get::<_, [u8; 16]>(0)?, row.get::<_, String>(1)?, row.get::<_, bool>(2)?))
            })
            .optional()?;
        let Some((of, oldest, delivered)) = oldest else { return Ok(false) };
        let (of, oldest) = (VaultId(of), ObjectName::new(oldest).ok_or(ShelfError::Damaged)?);
        if !delivered {
            self.forget_known(of, &oldest)?;
        }
        // The file first: a row without a file is nothing, a file without a row would be counted by nobody.
        shelf.files(of)?.delete(&oldest)?;
        self.forget(of, &oldest)?;
        Ok(true)
    }

    /// Gives up the oldest of what was set aside; whether there was any.
    fn give_up_aside(&mut self, shelf: &Shelf) -> Result<bool, ShelfError> {
        let oldest = self
            .sql
            .prepare_cached("SELECT vault, name, size FROM aside ORDER BY version, name LIMIT 1")?
            .query_row([], |row| Ok((row.get::<_, [u8; 16]>(0)?, row.get::<_, String>(1)?, row.get::<_, i64>(2)?)))
            .optional()?;
        let Some((of, name, size)) = oldest else { return Ok(false) };
        let (of, name) = (VaultId(of), ObjectName::new(name).ok_or(ShelfError::Damaged)?);
        shelf.files_in(&shelf.directory.join("aside"), of)?.delete(&name)?;
        let gone = "DELETE FROM aside WHERE vault = ?1 AND name = ?2";
        self.sql.execute(gone, params![of.as_bytes(), name.as_str()])?;
        self.held = self.held.saturating_sub(size as u64);
        Ok(true)
    }

    fn put_aside(&mut self, vault: VaultId, name: &ObjectName, size: u64) -> Result<(), ShelfError> {
        let known = "SELECT size FROM aside WHERE vault = ?1 AND name = ?2";
        let of = params![vault.as_bytes(), name.as_str()];
        let before: i64 = self.sql.query_row(known, of, |row| row.get(0)).optional()?.unwrap_or(0);
        let change = self.sql.transaction()?;
        change.execute("UPDATE sequence SET last = last + 1", [])?;
        change.execute(
            "INSERT OR REPLACE INTO aside (vault, name, size, version) SELECT ?1, ?2, ?3, last FROM sequence",
            params![vault.as_bytes(), name.as_str(), size as i64],
        )?;
        change.commit()?;
        self.held = self.held.saturating_sub(before as u64) + size;
        Ok(())
    }

    fn aside_bytes(&self) -> Result<u64, ShelfError> {
        let bytes: i64 = self.sql.query_row("SELECT coalesce(sum(size), 0) FROM aside", [], |row| row.get(0))?;
        Ok(bytes as u64)
    }
}

/// What is set aside has at most this part of the room: an eighth.
const ASIDE_PART: u64 = 8;
