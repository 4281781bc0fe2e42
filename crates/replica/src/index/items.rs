//! The folded items in the index: the core's [`TreeRead`] and [`TreeWrite`], history, and what was touched.

use std::collections::HashSet;

use packetboat_core::ids::{DeviceId, Dot, ItemId, Stamp};
use packetboat_core::item::{Head, Item, Placed, Register};
use packetboat_core::name::Name;
use packetboat_core::plan::HistoryRead;
use packetboat_core::tree::{ChildCursor, MoveRecord, Past, TreeRead, TreeWrite};
use packetboat_core::view::ViewRead;
use packetboat_core::wire::{Reader, WireError};
use rusqlite::params;

use super::content_code::{Decoder, Encoder};
use super::entries::{DIR_BASE, NOWHERE};
use super::item_code::{decode_item, encode_item, read_name};
use super::{Index, IndexError};

impl TreeRead for Index {
    type Error = IndexError;

    fn item(&self, id: ItemId) -> Result<Option<Item>, IndexError> {
        if let Some(item) = self.directories.borrow().get(&id) {
            return Ok(Some(item.clone()));
        }
        let Some(number) = self.numbers.find_item(&self.sql, id)? else { return Ok(None) };
        let mut statement = self.sql.prepare_cached("SELECT parent, name, state FROM item WHERE n = ?1")?;
        let mut rows = statement.query([number])?;
        let Some(row) = rows.next()? else { return Ok(None) };
        let parent = self.numbers.item(&self.sql, row.get(0)?)?;
        let name = read_name(row.get_ref(1)?.as_blob()?)?;
        let state = Decoder::new(&self.sql, &self.numbers, row.get_ref(2)?.as_blob()?);
        let item = decode_item(id, parent, name, state)?;
        self.remember(&item);
        Ok(Some(item))
    }

    fn named(&self, parent: ItemId, name: &Name) -> Result<Vec<ItemId>, IndexError> {
        let Some(parent) = self.numbers.find_item(&self.sql, parent)? else { return Ok(Vec::new()) };
        let mut statement =
            self.sql.prepare_cached("SELECT n FROM item WHERE parent = ?1 AND hash = ?2 AND name = ?3")?;
        let mut rows = statement.query(params![parent, name_hash(name), name.as_bytes()])?;
        let mut found = Vec::new();
        while let Some(row) = rows.next()? {
            found.push(self.numbers.item(&self.sql, row.get(0)?)?);
        }
        found.sort_unstable();
        Ok(found)
    }

    /// In the order of the hashes of their names.
    fn children(
        &self,
        parent: ItemId,
        after: Option<ChildCursor>,
        limit: usize,
    ) -> Result<Vec<(ChildCursor, ItemId)>, IndexError> {
        let Some(parent) = self.numbers.find_item(&self.sql, parent)? else { return Ok(Vec::new()) };
        let (hash, number) = match &after {
            Some(cursor) => read_cursor(cursor)?,
            None => (i64::MIN, i64::MIN),
        };
        let mut statement = self.sql.prepare_cached(
            "SELECT hash, n FROM item WHERE parent = ?1 AND (hash, n) > (?2, ?3) ORDER BY hash, n LIMIT ?4",
        )?;
        let mut rows = statement.query(params![parent, hash, number, page(limit)])?;
        let mut found = Vec::new();
        while let Some(row) = rows.next()? {
            let (hash, number): (i64, i64) = (row.get(0)?, row.get(1)?);
            let cursor = [hash.to_be_bytes(), number.to_be_bytes()].concat();
            found.push((ChildCursor(cursor), self.numbers.item(&self.sql, number)?));
        }
        Ok(found)
    }

    fn moves_after(&self, stamp: &Stamp) -> Result<Vec<MoveRecord>, IndexError> {
        let mut statement = self.sql.prepare_cached("SELECT stamp, data FROM moves WHERE stamp > ?1 ORDER BY stamp")?;
        let mut rows = statement.query([&stamp_key(stamp)[..]])?;
        let mut moves = Vec::new();
        while let Some(row) = rows.next()? {
            moves.push(self.decode_move(row.get_ref(0)?.as_blob()?, row.get_ref(1)?.as_blob()?)?);
        }
        Ok(moves)
    }
}

impl TreeWrite for Index {
    fn put_item(&mut self, item: &Item) -> Result<(), IndexError> {
        let mut state = Encoder::new(&self.sql, &self.numbers);
        encode_item(item, &mut state)?;
        let state = state.out.finish();
        let number = self.numbers.item_number(&self.sql, item.id)?;
        let parent = self.numbers.item_number(&self.sql, item.at.parent)?;
        let (hash, name) = (name_hash(&item.at.name), item.at.name.as_bytes());
        let mut insert = self.sql.prepare_cached(
            "INSERT INTO item (n, parent, hash, dir, name, state) VALUES (?1, ?2, ?3, ?4, ?5, ?6)
             ON CONFLICT DO NOTHING",
        )?;
        if insert.execute(params![number, parent, hash, NOWHERE, name, state])? == 0 {
            let mut read = self.sql.prepare_cached("SELECT parent = ?2, name = ?3 FROM item WHERE n = ?1")?;
            let (same_parent, same_name): (bool, bool) =
                read.query_row(params![number, parent, name], |row| Ok((row.get(0)?, row.get(1)?)))?;
            if same_parent && same_name {
                self.sql.prepare_cached("UPDATE item SET state = ?2 WHERE n = ?1")?.execute(params![number, state])?;
            } else {
                if !same_name {
                    self.unhook(number)?;
                }
                let mut update = self
                    .sql
                    .prepare_cached("UPDATE item SET parent = ?2, hash = ?3, name = ?4, state = ?5 WHERE n = ?1")?;
                update.execute(params![number, parent, hash, name, state])?;
            }
        }
        self.remember(item);
        Ok(())
    }

    fn put_move(&mut self, record: &MoveRecord) -> Result<(), IndexError> {
        let mut data = Encoder::new(&self.sql, &self.numbers);
        data.out.u8(record.passed_over.into());
        data.item(record.item)?;
        encode_place(&record.to, &mut data)?;
        data.stamp(&record.before.stamp)?;
        encode_place(&record.before, &mut data)?;
        let mut put = self.sql.prepare_cached("INSERT OR REPLACE INTO moves (stamp, data) VALUES (?1, ?2)")?;
        put.execute(params![&stamp_key(&record.to.stamp)[..], data.out.finish()])?;
        Ok(())
    }

    fn put_history(&mut self, item: ItemId, past: &Past) -> Result<(), IndexError> {
        let number = self.numbers.item_number(&self.sql, item)?;
        let mut data = Encoder::new(&self.sql, &self.numbers);
        let (kind, dot) = match past {
            Past::Content(head) => {
                data.head(head)?;
                (CONTENT, head.dot)
            }
            Past::Placed(placed) => {
                data.stamp(&placed.stamp)?;
                encode_place(placed, &mut data)?;
                (PLACED, placed.stamp.dot())
            }
            Past::Mode(mode) => {
                data.stamp(&mode.stamp)?;
                data.out.varint(u64::from(mode.value));
                (MODE, mode.stamp.dot())
            }
        };
        let device = self.numbers.device_number(&self.sql, &dot.device)?;
        let mut put = self.sql.prepare_cached(
            "INSERT OR REPLACE INTO history (item, kind, device, counter, data) VALUES (?1, ?2, ?3, ?4, ?5)",
        )?;
        put.execute(params![number, kind, device, dot.counter as i64, data.out.finish()])?;
        Ok(())
    }

    fn touch(&mut self, item: ItemId) -> Result<(), IndexError> {
        let number = self.numbers.item_number(&self.sql, item)?;
        self.sql.prepare_cached("INSERT OR IGNORE INTO touched (item) VALUES (?1)")?.execute([number])?;
        Ok(())
    }
}

impl HistoryRead for Index {
    fn version(&self, item: ItemId, dot: &Dot) -> Result<Option<Head>, IndexError> {
        let Some(state) = self.item(item)? else { return Ok(None) };
        if let Some(head) = state.heads.into_iter().find(|head| head.dot == *dot) {
            return Ok(Some(head));
        }
        let number = self.numbers.item_number(&self.sql, item)?;
        let Some(device) = self.numbers.find_device(&dot.device) else { return Ok(None) };
        let mut statement = self.sql.prepare_cached(
            "SELECT data FROM history WHERE item = ?1 AND kind = ?2 AND device = ?3 AND counter = ?4",
        )?;
        let mut rows = statement.query(params![number, CONTENT, device, dot.counter as i64])?;
        let Some(row) = rows.next()? else { return Ok(None) };
        match self.decode_past(CONTENT, row.get_ref(0)?.as_blob()?)? {
            Past::Content(head) => Ok(Some(head)),
            _ => Ok(None),
        }
    }
}

impl ViewRead for Index {
    fn device_label(&self, device: &DeviceId) -> Result<String, IndexError> {
        Ok(self.member(*device)?.map_or_else(|| device.short(), |member| member.introduced_name))
    }
}

impl Index {
    /// The replaced values of an item, oldest first in the total order.
    pub fn history_of(&self, item: ItemId) -> Result<Vec<Past>, IndexError> {
        let Some(number) = self.numbers.find_item(&self.sql, item)? else { return Ok(Vec::new()) };
        let mut statement = self.sql.prepare_cached("SELECT kind, data FROM history WHERE item = ?1")?;
        let mut rows = statement.query([number])?;
        let mut history = Vec::new();
        while let Some(row) = rows.next()? {
            history.push(self.decode_past(row.get(0)?, row.get_ref(1)?.as_blob()?)?);
        }
        history.sort_by_key(past_order);
        Ok(history)
    }

    /// The placements under this name, beneath whichever directory, that something has replaced; reads all of history.
    pub fn once_named(&self, name: &Name) -> Result<Vec<(ItemId, Placed)>, IndexError> {
        let mut statement =
            self.sql.prepare_cached("SELECT item, data FROM history WHERE kind = ?1 AND instr(data, ?2) > 0")?;
        let mut rows = statement.query(params![PLACED, name.as_bytes()])?;
        let mut found = Vec::new();
        while let Some(row) = rows.next()? {
            if let Past::Placed(placed) = self.decode_past(PLACED, row.get_ref(1)?.as_blob()?)?
                && placed.name == *name
            {
                found.push((self.numbers.item(&self.sql, row.get(0)?)?, placed));
            }
        }
        Ok(found)
    }

    /// At most `limit` touched items after `after`, in an order of the index's own that does not change.
    pub fn touched_after(&self, after: Option<ItemId>, limit: usize) -> Result<Vec<ItemId>, IndexError> {
        let after = match after {
            Some(item) => self.numbers.find_item(&self.sql, item)?.unwrap_or(-1),
            None => -1,
        };
        let mut statement =
            self.sql.prepare_cached("SELECT item FROM touched WHERE item > ?1 ORDER BY item LIMIT ?2")?;
        let mut rows = statement.query(params![after, page(limit)])?;
        let mut touched = Vec::new();
        while let Some(row) = rows.next()? {
            touched.push(self.numbers.item(&self.sql, row.get(0)?)?);
        }
        Ok(touched)
    }

    /// At most `limit` touched items, each directory followed by what is touched beneath it; then where the next page begins.
    ///
    /// What comes together with its directory is made in it before the directory has its place; what comes later is renamed
    /// on its own. So where all do not fit in one page, a directory that would be cut is left for a page of its own.
    /// The page after it may repeat what is touched anew meanwhile; what lies before it waits for the next pass.
    pub fn touched_with_children(
        &self,
        after: Option<ItemId>,
        limit: usize,
    ) -> Result<(Vec<ItemId>, Option<ItemId>), IndexError> {
        let roots = self.touched_after(after, limit)?;
        let last = roots.last().copied();
        if roots.len() < limit {
            return Ok((roots, last));
        }
        let mut page = TouchedPage { numbers: Vec::with_capacity(limit), taken: HashSet::with_capacity(limit), limit };
        let mut end = None;
        for root in roots {
            let Some(number) = self.numbers.find_item(&self.sql, root)? else { continue };
            if !self.take_touched(number, &mut page)? {
                break;
            }
            end = Some(root);
        }
        let items = page.numbers.into_iter().map(|number| self.numbers.item(&self.sql, number));
        Ok((items.collect::<Result<_, _>>()?, end))
    }

    /// Takes an item and what is touched beneath it into a page; says whether there was room for the item.
    fn take_touched(&self, root: i64, page: &mut TouchedPage) -> Result<bool, IndexError> {
        let mut children = self.sql.prepare_cached(
            "SELECT c.n FROM item c JOIN touched t ON t.item = c.n WHERE c.parent = ?1 ORDER BY c.n LIMIT ?2",
        )?;
        let mut is_parent = self.sql.prepare_cached("SELECT EXISTS (SELECT 1 FROM item WHERE parent = ?1)")?;
        let most = self::page(page.limit);
        let mut waiting = vec![root];
        while let Some(number) = waiting.pop() {
            if page.taken.contains(&number) {
                continue;
            }
            if page.is_full() {
                return Ok(number != root);
            }
            let held = match is_parent.query_row([number], |row| row.get::<_, bool>(0))? {
                true => children.query_map([number, most], |row| row.get(0))?,
                false => {
                    page.take(number);
                    continue;
                }
            };
            let held: Vec<i64> = held.collect::<Result<_, _>>()?;
            let fits_alone = held.len() < page.limit;
            if fits_alone && page.numbers.len() + held.len() >= page.limit && !page.numbers.is_empty() {
                if number == root {
                    return Ok(false);
                }
                continue;
            }
            page.take(number);
            // The directories among them come last, so that each stands beside what it holds.
            let mut directories = Vec::new();
            for child in held {
                if is_parent.query_row([child], |row| row.get(0))? {
                    directories.push(child);
                } else if !page.is_full() {
                    page.take(child);
                }
            }
            // More could not come into this page; they come as they are in a later one.
            directories.truncate(page.limit.saturating_sub(waiting.len()));
            waiting.extend(directories.into_iter().rev());
        }
        Ok(true)
    }

    /// Notes that an item's view and this disk agree, or differ for a reason that is recorded elsewhere.
    pub fn untouch(&mut self, item: ItemId) -> Result<(), IndexError> {
        if let Some(number) = self.numbers.find_item(&self.sql, item)? {
            self.sql.prepare_cached("DELETE FROM touched WHERE item = ?1")?.execute([number])?;
        }
        Ok(())
    }

    /// How many items are touched.
    pub fn touched_count(&self) -> Result<u64, IndexError> {
        let count: i64 = self.sql.prepare_cached("SELECT count(*) FROM touched")?.query_row([], |row| row.get(0))?;
        Ok(count as u64)
    }

    /// How many items are known, dead ones included.
    pub fn count_items(&self) -> Result<u64, IndexError> {
        let count: i64 = self.sql.prepare_cached("SELECT count(*) FROM item")?.query_row([], |row| row.get(0))?;
        Ok(count as u64)
    }

    /// At most `limit` items after `after`, in an order of the index's own that does not change, for checkpoints and checks.
    pub fn items_after(&self, after: Option<ItemId>, limit: usize) -> Result<Vec<ItemId>, IndexError> {
        let after = match after {
            Some(item) => self.numbers.find_item(&self.sql, item)?.unwrap_or(-1),
            None => -1,
        };
        let mut statement = self.sql.prepare_cached("SELECT n FROM item WHERE n > ?1 ORDER BY n LIMIT ?2")?;
        let mut rows = statement.query(params![after, page(limit)])?;
        let mut items = Vec::new();
        while let Some(row) = rows.next()? {
            items.push(self.numbers.item(&self.sql, row.get(0)?)?);
        }
        Ok(items)
    }

    /// At most `limit` items after `after`, in the order of their ids, for checkpoints.
    pub fn items_by_id(&self, after: Option<ItemId>, limit: usize) -> Result<Vec<Item>, IndexError> {
        let after = after.unwrap_or(ItemId::ROOT);
        let (prefix, low) = (&after.0[..15], i64::from(after.0[15]));
        // The join is written as it is to be carried out: through the blocks in the order of what their ids begin with.
        let mut statement = self.sql.prepare_cached(
            "SELECT i.n, i.parent, i.name, i.state FROM block b CROSS JOIN item i ON i.n BETWEEN b.n << 8 AND (b.n << 8 | 255)
             WHERE b.prefix >= ?1 AND (b.prefix > ?1 OR i.n & 255 > ?2) ORDER BY b.prefix, i.n LIMIT ?3",
        )?;
        let mut rows = statement.query(params![prefix, low, page(limit)])?;
        let mut items = Vec::new();
        while let Some(row) = rows.next()? {
            let id = self.numbers.item(&self.sql, row.get(0)?)?;
            let parent = self.numbers.item(&self.sql, row.get(1)?)?;
            let name = read_name(row.get_ref(2)?.as_blob()?)?;
            let state = Decoder::new(&self.sql, &self.numbers, row.get_ref(3)?.as_blob()?);
            items.push(decode_item(id, parent, name, state)?);
        }
        Ok(items)
    }

    /// At most `limit` directory moves after `after`, in total order, for checkpoints.
    pub fn moves_by_stamp(&self, after: Option<&Stamp>, limit: usize) -> Result<Vec<MoveRecord>, IndexError> {
        let mut statement =
            self.sql.prepare_cached("SELECT stamp, data FROM moves WHERE stamp > ?1 ORDER BY stamp LIMIT ?2")?;
        let after = after.map(stamp_key);
        let mut rows = statement.query(params![after.as_ref().map_or(&[][..], |key| &key[..]), page(limit)])?;
        let mut moves = Vec::new();
        while let Some(row) = rows.next()? {
            moves.push(self.decode_move(row.get_ref(0)?.as_blob()?, row.get_ref(1)?.as_blob()?)?);
        }
        Ok(moves)
    }

    /// Forgets all that was folded and learned, and what a folded vault consists of; this disk's entries stay.
    ///
    /// For a replica that has folded nothing of its own yet: beginning from a checkpoint, it starts over.
    pub fn clear_folded(&mut self) -> Result<(), IndexError> {
        // What `item.dir` says of entries goes with the items.
        self.sql.execute(
            "INSERT OR IGNORE INTO stray (item, dir, name) SELECT n, dir - ?1, name FROM item WHERE dir <> ?2",
            [DIR_BASE, NOWHERE],
        )?;
        self.sql.execute_batch(
            "DELETE FROM item; DELETE FROM history; DELETE FROM moves; DELETE FROM touched; DELETE FROM packet;
             DELETE FROM lane; DELETE FROM pack; DELETE FROM part; DELETE FROM chunk; DELETE FROM inline;
             DELETE FROM member; DELETE FROM problem; DELETE FROM seen_tip;",
        )?;
        self.directories.borrow_mut().clear();
        self.knowledge = self.load_knowledge()?;
        Ok(())
    }

    fn decode_move(&self, stamp: &[u8], data: &[u8]) -> Result<MoveRecord, IndexError> {
        let stamp = read_stamp_key(stamp)?;
        let mut from = Decoder::new(&self.sql, &self.numbers, data);
        let passed_over = from.input.u8()? != 0;
        let item = from.item()?;
        let to = decode_place(stamp, &mut from)?;
        let before_stamp = from.stamp()?;
        let before = decode_place(before_stamp, &mut from)?;
        from.input.finish()?;
        Ok(MoveRecord { item, to, before, passed_over })
    }

    fn remember(&self, item: &Item) {
        let mut directories = self.directories.borrow_mut();
        if !item.is_directory() {
            directories.remove(&item.id);
        } else {
            if directories.len() >= MAX_DIRECTORIES && !directories.contains_key(&item.id) {
                directories.clear();
            }
            directories.insert(item.id, item.clone());
        }
    }

    pub(super) fn decode_past(&self, kind: i64, data: &[u8]) -> Result<Past, IndexError> {
        let mut from = Decoder::new(&self.sql, &self.numbers, data);
        let past = match kind {
            CONTENT => Past::Content(from.head()?),
            PLACED => {
                let stamp = from.stamp()?;
                Past::Placed(decode_place(stamp, &mut from)?)
            }
            MODE => Past::Mode(Register { stamp: from.stamp()?, value: from.input.varint32()? }),
            _ => return Err(IndexError::Damaged { what: "a kind of history" }),
        };
        from.input.finish()?;
        Ok(past)
    }
}

/// Touched items that are planned together, by number.
struct TouchedPage {
    numbers: Vec<i64>,
    taken: HashSet<i64>,
    limit: usize,
}

impl TouchedPage {
    fn is_full(&self) -> bool {
        self.numbers.len() >= self.limit
    }

    fn take(&mut self, number: i64) {
        if self.taken.insert(number) {
            self.numbers.push(number);
        }
    }
}

/// The kind under which a replaced value is kept, and the version that set it.
pub(super) fn past_key(past: &Past) -> (i64, Dot) {
    match past {
        Past::Content(head) => (CONTENT, head.dot),
        Past::Placed(placed) => (PLACED, placed.stamp.dot()),
        Past::Mode(mode) => (MODE, mode.stamp.dot()),
    }
}

fn past_order(past: &Past) -> (u64, DeviceId, u64, u32) {
    let stamp = match past {
        Past::Content(head) => return (head.lamport, head.dot.device, head.dot.counter, 0),
        Past::Placed(placed) => placed.stamp,
        Past::Mode(mode) => mode.stamp,
    };
    (stamp.lamport, stamp.device, stamp.counter, stamp.index)
}

fn encode_place(placed: &Placed, to: &mut Encoder<'_>) -> Result<(), IndexError> {
    to.item(placed.parent)?;
    to.out.bytes(placed.name.as_bytes());
    Ok(())
}

fn decode_place(stamp: Stamp, from: &mut Decoder<'_>) -> Result<Placed, IndexError> {
    Ok(Placed { stamp, parent: from.item()?, name: read_name(from.input.bytes(Name::MAX)?)? })
}

fn stamp_key(stamp: &Stamp) -> [u8; 52] {
    let mut key = [0; 52];
    key[..8].copy_from_slice(&stamp.lamport.to_be_bytes());
    key[8..40].copy_from_slice(&stamp.device.0);
    key[40..48].copy_from_slice(&stamp.counter.to_be_bytes());
    key[48..].copy_from_slice(&stamp.index.to_be_bytes());
    key
}

fn read_stamp_key(key: &[u8]) -> Result<Stamp, WireError> {
    let mut input = Reader::new(key);
    let lamport = u64::from_be_bytes(input.array()?);
    let device = DeviceId(input.array()?);
    let counter = u64::from_be_bytes(input.array()?);
    let index = u32::from_be_bytes(input.array()?);
    input.finish()?;
    Ok(Stamp { lamport, device, counter, index })
}

fn read_cursor(cursor: &ChildCursor) -> Result<(i64, i64), WireError> {
    let mut input = Reader::new(&cursor.0);
    let place = (i64::from_be_bytes(input.array()?), i64::from_be_bytes(input.array()?));
    input.finish()?;
    Ok(place)
}

/// 24 bits of a name's FNV-1a hash as a signed number, which a row holds in three bytes.
fn name_hash(name: &Name) -> i64 {
    let hash = name
        .as_bytes()
        .iter()
        .fold(0xcbf2_9ce4_8422_2325u64, |hash, byte| (hash ^ u64::from(*byte)).wrapping_mul(0x0000_0100_0000_01b3));
    i64::from((hash >> 32) as i32 >> 8)
}

/// A page's length as SQLite takes it.
pub(super) fn page(limit: usize) -> i64 {
    i64::try_from(limit).unwrap_or(i64::MAX)
}

const CONTENT: i64 = 0;
const PLACED: i64 = 1;
const MODE: i64 = 2;

/// How many directory items are kept in memory, in some 2 MiB.
const MAX_DIRECTORIES: usize = 4096;
