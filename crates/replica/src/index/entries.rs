//! The entries of this disk in the index: the core's [`LocalRead`], and how a round records what it did.
//!
//! From an item to its entries: `item.dir` promises that an entry of the item stands in that directory under the item's
//! present name (`item.name`); every other entry has a row in `stray`. The promise is kept here and, where an item's
//! name changes, by `put_item`, which turns it into a row of `stray` first ([`Index::unhook`]).
//! An index of `local` by item says the same in 27 bytes more per file, as measured.

use packetboat_core::ids::ItemId;
use packetboat_core::local::{DirId, EntryState, Fingerprint, LocalEntry, LocalRead};
use packetboat_core::name::Name;
use rusqlite::{Row, params};

use super::content_code::{Decoder, Encoder};
use super::entry_code::{decode_entry, decode_front, encode_entry};
use super::item_code::read_name;
use super::items::page;
use super::{Index, IndexError};

impl LocalRead for Index {
    type Error = IndexError;

    fn entries_of(&self, item: ItemId) -> Result<Vec<LocalEntry>, IndexError> {
        let Some(number) = self.numbers.find_item(&self.sql, item)? else { return Ok(Vec::new()) };
        let mut statement = self.sql.prepare_cached(
            "SELECT l.dir, l.name, l.item, l.data FROM item i JOIN local l ON l.dir = i.dir - ?2 AND l.name = i.name
             WHERE i.n = ?1 AND i.dir <> ?3
             UNION ALL
             SELECT l.dir, l.name, l.item, l.data FROM stray s JOIN local l ON l.dir = s.dir AND l.name = s.name
             WHERE s.item = ?1",
        )?;
        let mut rows = statement.query([number, DIR_BASE, NOWHERE])?;
        let mut entries = Vec::new();
        while let Some(row) = rows.next()? {
            entries.push(self.read_entry(row)?);
        }
        entries.sort_by(|a, b| (a.dir, &a.name).cmp(&(b.dir, &b.name)));
        Ok(entries)
    }

    fn entry_at(&self, dir: DirId, name: &Name) -> Result<Option<LocalEntry>, IndexError> {
        let mut statement =
            self.sql.prepare_cached("SELECT dir, name, item, data FROM local WHERE dir = ?1 AND name = ?2")?;
        let mut rows = statement.query(params![dir.0 as i64, name.as_bytes()])?;
        rows.next()?.map(|row| self.read_entry(row)).transpose()
    }

    fn directory(&self, dir: DirId) -> Result<Option<LocalEntry>, IndexError> {
        let mut statement = self.sql.prepare_cached(
            "SELECT l.dir, l.name, l.item, l.data FROM dir d JOIN local l ON l.dir = d.dir AND l.name = d.name
             WHERE d.own_dir = ?1",
        )?;
        let mut rows = statement.query([dir.0 as i64])?;
        rows.next()?.map(|row| self.read_entry(row)).transpose()
    }
}

impl Index {
    /// Records an entry in the place of what stood there.
    pub fn put_entry(&mut self, entry: &LocalEntry) -> Result<(), IndexError> {
        let number = self.numbers.item_number(&self.sql, entry.seen.item)?;
        let mut data = Encoder::new(&self.sql, &self.numbers);
        encode_entry(entry, &mut data)?;
        let data = data.out.finish();
        let (dir, name) = (entry.dir.0 as i64, entry.name.as_bytes());
        match self.columns(entry.dir, &entry.name)? {
            Some((item, own_dir)) => {
                let mut update =
                    self.sql.prepare_cached("UPDATE local SET item = ?3, data = ?4 WHERE dir = ?1 AND name = ?2")?;
                update.execute(params![dir, name, number, data])?;
                if item != number {
                    self.unlink(item, entry.dir, &entry.name)?;
                    self.link(number, entry.dir, &entry.name)?;
                }
                if own_dir != entry.own_dir {
                    self.forget_dir(own_dir, entry.dir, &entry.name)?;
                }
            }
            None => {
                let mut insert =
                    self.sql.prepare_cached("INSERT INTO local (dir, name, item, data) VALUES (?1, ?2, ?3, ?4)")?;
                insert.execute(params![dir, name, number, data])?;
                self.link(number, entry.dir, &entry.name)?;
            }
        }
        if let Some(own) = entry.own_dir {
            let mut put = self.sql.prepare_cached(
                "INSERT OR REPLACE INTO dir (own_dir, dir, name, inode, btime) VALUES (?1, ?2, ?3, ?4, ?5)",
            )?;
            put.execute(params![own.0 as i64, dir, name, entry.stat.inode as i64, entry.stat.btime])?;
        }
        Ok(())
    }

    /// Forgets the entry at a place; says whether there was one.
    pub fn remove_entry(&mut self, dir: DirId, name: &Name) -> Result<bool, IndexError> {
        let Some((item, own_dir)) = self.columns(dir, name)? else { return Ok(false) };
        let mut delete = self.sql.prepare_cached("DELETE FROM local WHERE dir = ?1 AND name = ?2")?;
        delete.execute(params![dir.0 as i64, name.as_bytes()])?;
        self.unlink(item, dir, name)?;
        self.forget_dir(own_dir, dir, name)?;
        Ok(true)
    }

    /// Records that the entry at a place has moved, in the place of what stood there; says whether there was one.
    ///
    /// Only its place changes: a change of state or view is [`put_entry`](Self::put_entry)'s.
    pub fn move_entry(&mut self, from: (DirId, &Name), to: (DirId, &Name)) -> Result<bool, IndexError> {
        let Some((item, own_dir)) = self.columns(from.0, from.1)? else { return Ok(false) };
        if from == to {
            return Ok(true);
        }
        self.remove_entry(to.0, to.1)?;
        self.unlink(item, from.0, from.1)?;
        let (to_dir, to_name) = (to.0.0 as i64, to.1.as_bytes());
        let mut update =
            self.sql.prepare_cached("UPDATE local SET dir = ?3, name = ?4 WHERE dir = ?1 AND name = ?2")?;
        update.execute(params![from.0.0 as i64, from.1.as_bytes(), to_dir, to_name])?;
        self.link(item, to.0, to.1)?;
        if let Some(own) = own_dir {
            let mut update = self.sql.prepare_cached("UPDATE dir SET dir = ?2, name = ?3 WHERE own_dir = ?1")?;
            update.execute(params![own.0 as i64, to_dir, to_name])?;
        }
        Ok(true)
    }

    /// Records what `stat` says of an entry now; says whether there was one.
    pub fn set_fingerprint(
        &mut self,
        dir: DirId,
        name: &Name,
        stat: &Fingerprint,
        state: &EntryState,
    ) -> Result<bool, IndexError> {
        let Some(mut entry) = self.entry_at(dir, name)? else { return Ok(false) };
        entry.stat = *stat;
        entry.state = state.clone();
        let mut data = Encoder::new(&self.sql, &self.numbers);
        encode_entry(&entry, &mut data)?;
        let mut update = self.sql.prepare_cached("UPDATE local SET data = ?3 WHERE dir = ?1 AND name = ?2")?;
        update.execute(params![dir.0 as i64, name.as_bytes(), data.out.finish()])?;
        if let Some(own) = entry.own_dir {
            let mut update = self.sql.prepare_cached("UPDATE dir SET inode = ?2, btime = ?3 WHERE own_dir = ?1")?;
            update.execute(params![own.0 as i64, stat.inode as i64, stat.btime])?;
        }
        Ok(true)
    }

    /// At most `limit` entries of a directory after `after`, in the order of their names' bytes.
    pub fn entries_in(&self, dir: DirId, after: Option<&Name>, limit: usize) -> Result<Vec<LocalEntry>, IndexError> {
        let mut statement = self.sql.prepare_cached(
            "SELECT dir, name, item, data FROM local WHERE dir = ?1 AND name > ?2 ORDER BY name LIMIT ?3",
        )?;
        // No name is empty, so all come after the empty one.
        let after = after.map_or(&[][..], Name::as_bytes);
        let mut rows = statement.query(params![dir.0 as i64, after, page(limit)])?;
        let mut entries = Vec::new();
        while let Some(row) = rows.next()? {
            entries.push(self.read_entry(row)?);
        }
        Ok(entries)
    }

    /// The entries in staging: moves that a crash may have cut short.
    pub fn entries_in_staging(&self) -> Result<Vec<LocalEntry>, IndexError> {
        self.entries_in(DirId::STAGING, None, usize::MAX)
    }

    /// Visits the entries of a directory in the order of their names, reading no more than a scan compares.
    pub fn for_each_fingerprint<E: From<IndexError>>(
        &self,
        dir: DirId,
        mut visit: impl FnMut(ScannedEntry<'_>) -> Result<(), E>,
    ) -> Result<(), E> {
        let mut statement = self
            .sql
            .prepare_cached("SELECT name, data FROM local WHERE dir = ?1 ORDER BY name")
            .map_err(IndexError::from)?;
        let mut rows = statement.query([dir.0 as i64]).map_err(IndexError::from)?;
        while let Some(row) = rows.next().map_err(IndexError::from)? {
            let (name, data) = blobs(row, 0, 1)?;
            let front = decode_front(data)?;
            visit(ScannedEntry { name, own_dir: front.own_dir, stat: front.stat, state: front.state })?;
        }
        Ok(())
    }

    /// The directory with this inode and birth time, wherever it was last seen.
    pub fn dir_by_inode(&self, inode: u64, btime: i64) -> Result<Option<LocalEntry>, IndexError> {
        let mut statement = self.sql.prepare_cached(
            "SELECT l.dir, l.name, l.item, l.data FROM dir d JOIN local l ON l.dir = d.dir AND l.name = d.name
             WHERE d.inode = ?1 AND d.btime = ?2 ORDER BY d.own_dir LIMIT 1",
        )?;
        let mut rows = statement.query(params![inode as i64, btime])?;
        rows.next()?.map(|row| self.read_entry(row)).transpose()
    }

    /// Makes that no directory is found by its number until it is recorded anew: the disk has given its numbers to others.
    pub fn forget_directory_numbers(&mut self) -> Result<(), IndexError> {
        // None is looked up without a birth time.
        self.sql.execute_batch("UPDATE dir SET btime = 0 WHERE btime <> 0")?;
        Ok(())
    }

    /// How many entries there are.
    pub fn count_entries(&self) -> Result<u64, IndexError> {
        let count: i64 = self.sql.prepare_cached("SELECT count(*) FROM local")?.query_row([], |row| row.get(0))?;
        Ok(count as u64)
    }

    /// How many directories of this disk are recorded.
    pub fn count_directories(&self) -> Result<u64, IndexError> {
        let count: i64 = self.sql.prepare_cached("SELECT count(*) FROM dir")?.query_row([], |row| row.get(0))?;
        Ok(count as u64)
    }

    /// Forgets all entries: what stands on this disk is as if it had never been looked at.
    pub fn clear_entries(&mut self) -> Result<(), IndexError> {
        self.sql.execute_batch("DELETE FROM local; DELETE FROM dir; DELETE FROM stray;")?;
        Ok(())
    }

    /// A number for a directory on this disk that no other had before.
    pub fn new_dir_id(&mut self) -> Result<DirId, IndexError> {
        let next: i64 = self
            .sql
            .prepare_cached(
                "INSERT INTO meta (key, value) VALUES ('index: next dir', ?1)
                 ON CONFLICT DO UPDATE SET value = value + 1 RETURNING value",
            )?
            .query_row([DirId::STAGING.0 as i64 + 1], |row| row.get(0))?;
        Ok(DirId(next as u64))
    }

    /// Turns what `item.dir` says into a row of `stray`, before the item's name changes.
    pub(super) fn unhook(&self, item: i64) -> Result<(), IndexError> {
        let mut copy = self.sql.prepare_cached(
            "INSERT OR IGNORE INTO stray (item, dir, name)
             SELECT n, dir - ?2, name FROM item WHERE n = ?1 AND dir <> ?3",
        )?;
        if copy.execute([item, DIR_BASE, NOWHERE])? > 0 {
            self.sql.prepare_cached("UPDATE item SET dir = ?2 WHERE n = ?1")?.execute([item, NOWHERE])?;
        }
        Ok(())
    }

    fn link(&self, item: i64, dir: DirId, name: &Name) -> Result<(), IndexError> {
        let mut hook = self.sql.prepare_cached("UPDATE item SET dir = ?2 WHERE n = ?1 AND dir = ?3 AND name = ?4")?;
        let place = (dir.0 as i64).wrapping_add(DIR_BASE);
        if hook.execute(params![item, place, NOWHERE, name.as_bytes()])? == 0 {
            let mut stray =
                self.sql.prepare_cached("INSERT OR IGNORE INTO stray (item, dir, name) VALUES (?1, ?2, ?3)")?;
            stray.execute(params![item, dir.0 as i64, name.as_bytes()])?;
        }
        Ok(())
    }

    fn unlink(&self, item: i64, dir: DirId, name: &Name) -> Result<(), IndexError> {
        let mut unhook = self.sql.prepare_cached("UPDATE item SET dir = ?3 WHERE n = ?1 AND dir = ?2 AND name = ?4")?;
        let place = (dir.0 as i64).wrapping_add(DIR_BASE);
        if unhook.execute(params![item, place, NOWHERE, name.as_bytes()])? == 0 {
            let mut stray = self.sql.prepare_cached("DELETE FROM stray WHERE item = ?1 AND dir = ?2 AND name = ?3")?;
            stray.execute(params![item, dir.0 as i64, name.as_bytes()])?;
        }
        Ok(())
    }

    /// Another entry may have taken the number over already, when a directory was moved.
    fn forget_dir(&self, own_dir: Option<DirId>, dir: DirId, name: &Name) -> Result<(), IndexError> {
        if let Some(own) = own_dir {
            let mut delete =
                self.sql.prepare_cached("DELETE FROM dir WHERE own_dir = ?1 AND dir = ?2 AND name = ?3")?;
            delete.execute(params![own.0 as i64, dir.0 as i64, name.as_bytes()])?;
        }
        Ok(())
    }

    /// The item and the own number of the entry at a place.
    fn columns(&self, dir: DirId, name: &Name) -> Result<Option<(i64, Option<DirId>)>, IndexError> {
        let mut statement = self.sql.prepare_cached("SELECT item, data FROM local WHERE dir = ?1 AND name = ?2")?;
        let mut rows = statement.query(params![dir.0 as i64, name.as_bytes()])?;
        let Some(row) = rows.next()? else { return Ok(None) };
        Ok(Some((row.get(0)?, decode_front(row.get_ref(1)?.as_blob()?)?.own_dir)))
    }

    fn read_entry(&self, row: &Row<'_>) -> Result<LocalEntry, IndexError> {
        let dir = DirId(row.get::<_, i64>(0)? as u64);
        let (name, data) = blobs(row, 1, 3)?;
        let item = self.numbers.item(&self.sql, row.get(2)?)?;
        decode_entry(dir, read_name(name)?, item, Decoder::new(&self.sql, &self.numbers, data))
    }
}

/// What a scan compares of an entry.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct ScannedEntry<'a> {
    /// Its name's bytes, valid during the visit.
    pub name: &'a [u8],
    /// Its own number, if it is a directory.
    pub own_dir: Option<DirId>,
    /// What `stat` said when it was recorded.
    pub stat: Fingerprint,
    /// Where it is in its life.
    pub state: EntryState,
}

fn blobs<'a>(row: &'a Row<'_>, first: usize, second: usize) -> Result<(&'a [u8], &'a [u8]), IndexError> {
    Ok((row.get_ref(first)?.as_blob()?, row.get_ref(second)?.as_blob()?))
}

/// `item.dir` is the directory's number plus this: always four bytes, so that setting it never makes a row grow.
pub(super) const DIR_BASE: i64 = 1 << 23;
/// `item.dir` where no entry is promised.
pub(super) const NOWHERE: i64 = i32::MIN as i64;
