//! What letting go of garbage asks of the index: which chunks are in use, and forgetting what lies before a point.
//!
//! Which chunks are in use is told by one bit for each chunk of each pack, so that memory stays at a byte for eight chunks
//! however long the names are.

use std::collections::HashMap;

use packetboat_core::ids::{ChunkId, Counter, DeviceId, ItemId, PackId};
use packetboat_core::knowledge::Knowledge;
use packetboat_core::tree::Past;
use rusqlite::{OptionalExtension, params};

use super::chunks::{CONDEMNED, PART_CHUNKS, PENDING, PackState, decode_part, find_in_part, key};
use super::items::{page, past_key};
use super::{Index, IndexError};

/// Which chunks of the packs recorded are in use, each in the pack in which it is looked for first.
#[derive(Default, Debug)]
pub struct Used {
    /// By part, one bit for each of its chunks.
    parts: HashMap<i64, u16>,
}

/// A pack, and how much of it is in use.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct PackUse {
    /// The pack.
    pub pack: PackId,
    /// Whether it is at the intermediary.
    pub state: PackState,
    /// The size of the whole object in bytes.
    pub size: u32,
    /// Bytes of sealed chunks in use.
    pub used: u64,
    /// Bytes of sealed chunks in all.
    pub total: u64,
    /// Chunks of it that are in use.
    pub used_chunks: Vec<ChunkId>,
    /// Packs in which chunks that are here too are in use.
    pub relied_on: Vec<PackId>,
}

impl Index {
    /// Notes that a chunk is in use, where a pack holds it.
    pub fn mark_used(&self, id: &ChunkId, used: &mut Used) -> Result<(), IndexError> {
        if let Some((part, position, _)) = self.slot(id)? {
            *used.parts.entry(part).or_default() |= 1 << position;
        }
        Ok(())
    }

    /// The part in which a chunk is looked for first, its place there, and the pack's number.
    ///
    /// Not one that is condemned, since it goes; and not one that is pending, since it is known here alone.
    fn slot(&self, id: &ChunkId) -> Result<Option<(i64, usize, i64)>, IndexError> {
        let mut statement = self.sql.prepare_cached(
            "SELECT p.chunks, p.n, k.n FROM chunk c JOIN part p ON p.n = c.part JOIN pack k ON k.n = p.pack
             WHERE c.key = ?1 AND k.state <> ?2 AND k.state <> ?3 ORDER BY k.state DESC, k.n",
        )?;
        let mut rows = statement.query([key(id), CONDEMNED, PENDING])?;
        while let Some(row) = rows.next()? {
            let chunks = row.get_ref(0)?.as_blob()?;
            if find_in_part(chunks, id)?.is_some() {
                for (position, chunk) in decode_part(chunks).enumerate() {
                    if chunk?.id == *id {
                        return Ok(Some((row.get(1)?, position % PART_CHUNKS, row.get(2)?)));
                    }
                }
            }
        }
        Ok(None)
    }

    /// At most `limit` packs after `after` with what of them is in use, in the order of their ids.
    pub fn packs_in_use(&self, after: Option<&PackId>, limit: usize, used: &Used) -> Result<Vec<PackUse>, IndexError> {
        let mut packs = Vec::new();
        for row in self.packs(after, limit)? {
            let Some(first_part) = self.first_part(&row.pack)? else { continue };
            let Some(index) = self.pack_index(&row.pack)? else { continue };
            let mut found = PackUse {
                pack: row.pack,
                state: row.state,
                size: row.size,
                used: 0,
                total: 0,
                used_chunks: Vec::new(),
                relied_on: Vec::new(),
            };
            for (n, chunk) in index.chunks.iter().enumerate() {
                found.total += u64::from(chunk.sealed_len);
                let part = first_part + (n / PART_CHUNKS) as i64;
                let bits = used.parts.get(&part).copied().unwrap_or_default();
                if bits & 1 << (n % PART_CHUNKS) != 0 {
                    found.used += u64::from(chunk.sealed_len);
                    found.used_chunks.push(chunk.id);
                } else if let Some((other, position, pack)) = self.slot(&chunk.id)?
                    && used.parts.get(&other).is_some_and(|bits| bits & 1 << position != 0)
                {
                    found.relied_on.push(self.pack_of_number(pack)?);
                }
            }
            found.relied_on.sort_unstable();
            found.relied_on.dedup();
            packs.push(found);
        }
        Ok(packs)
    }

    fn first_part(&self, pack: &PackId) -> Result<Option<i64>, IndexError> {
        let mut statement = self.sql.prepare_cached("SELECT first_part FROM pack WHERE id = ?1")?;
        Ok(statement.query_row([pack.as_bytes()], |row| row.get(0)).optional()?)
    }

    fn pack_of_number(&self, number: i64) -> Result<PackId, IndexError> {
        let mut statement = self.sql.prepare_cached("SELECT id FROM pack WHERE n = ?1")?;
        Ok(PackId(statement.query_row([number], |row| row.get(0))?))
    }

    /// At most `limit` items after `after` of which replaced values are kept, in an order of the index's own.
    pub fn items_with_history(&self, after: Option<ItemId>, limit: usize) -> Result<Vec<ItemId>, IndexError> {
        let after = match after {
            Some(item) => self.numbers.find_item(&self.sql, item)?.unwrap_or(-1),
            None => -1,
        };
        let mut statement =
            self.sql.prepare_cached("SELECT DISTINCT item FROM history WHERE item > ?1 ORDER BY item LIMIT ?2")?;
        let mut rows = statement.query(params![after, page(limit)])?;
        let mut items = Vec::new();
        while let Some(row) = rows.next()? {
            items.push(self.numbers.item(&self.sql, row.get(0)?)?);
        }
        Ok(items)
    }

    /// Forgets a replaced value of an item.
    pub fn remove_past(&mut self, item: ItemId, past: &Past) -> Result<(), IndexError> {
        let Some(number) = self.numbers.find_item(&self.sql, item)? else { return Ok(()) };
        let (kind, dot) = past_key(past);
        let Some(device) = self.numbers.find_device(&dot.device) else { return Ok(()) };
        let mut delete = self
            .sql
            .prepare_cached("DELETE FROM history WHERE item = ?1 AND kind = ?2 AND device = ?3 AND counter = ?4")?;
        delete.execute(params![number, kind, device, dot.counter as i64])?;
        Ok(())
    }

    /// Forgets the packets up to a point, and what lies inside them.
    ///
    /// What lies inside is gone through once for all lanes, in the order of its key: nothing else is asked for by lane, so
    /// no index by lane is kept.
    pub fn forget_packets(&mut self, history: &Knowledge) -> Result<(), IndexError> {
        let mut last: HashMap<i64, Counter> = HashMap::new();
        for (device, learned) in history.iter() {
            let Some(device) = self.numbers.find_device(device) else { continue };
            last.insert(device, learned.counter);
            self.sql
                .prepare_cached("DELETE FROM packet WHERE device = ?1 AND counter <= ?2")?
                .execute(params![device, learned.counter as i64])?;
        }
        let mut after = Vec::new();
        loop {
            let page = self.inline_page(&after)?;
            let Some((end, _, _)) = page.last() else { return Ok(()) };
            after.clone_from(end);
            let mut delete = self.sql.prepare_cached("DELETE FROM inline WHERE id = ?1")?;
            for (id, device, counter) in &page {
                if last.get(device).is_some_and(|last| counter <= last) {
                    delete.execute([id])?;
                }
            }
        }
    }

    /// The next chunks that lie inside packets, by key: the device's number and the packet's counter of each.
    fn inline_page(&self, after: &[u8]) -> Result<Vec<(Vec<u8>, i64, Counter)>, IndexError> {
        let mut statement =
            self.sql.prepare_cached("SELECT id, device, counter FROM inline WHERE id > ?1 ORDER BY id LIMIT ?2")?;
        let mut rows = statement.query(params![after, page(INLINE_PAGE)])?;
        let mut chunks = Vec::new();
        while let Some(row) = rows.next()? {
            chunks.push((row.get(0)?, row.get(1)?, row.get::<_, i64>(2)? as u64));
        }
        Ok(chunks)
    }

    /// How many packets of a lane are recorded as folded, from one counter to another, both included.
    pub fn count_packets(&self, device: &DeviceId, first: Counter, last: Counter) -> Result<u64, IndexError> {
        let Some(device) = self.numbers.find_device(device) else { return Ok(0) };
        let mut statement = self.sql.prepare_cached(
            "SELECT count(*) FROM packet WHERE device = ?1 AND counter BETWEEN ?2 AND ?3 AND stage = 1",
        )?;
        let count: i64 = statement.query_row([device, first as i64, last as i64], |row| row.get(0))?;
        Ok(count as u64)
    }
}

impl Index {
    /// Forgets an item with all that is kept of its past.
    pub fn remove_item(&mut self, item: ItemId) -> Result<(), IndexError> {
        let Some(number) = self.numbers.find_item(&self.sql, item)? else { return Ok(()) };
        for table in ["DELETE FROM item WHERE n = ?1", "DELETE FROM history WHERE item = ?1"] {
            self.sql.prepare_cached(table)?.execute([number])?;
        }
        self.sql.prepare_cached("DELETE FROM touched WHERE item = ?1")?.execute([number])?;
        self.directories.borrow_mut().remove(&item);
        Ok(())
    }
}

/// Chunks inside packets that are looked at in one go.
const INLINE_PAGE: usize = 1024;
