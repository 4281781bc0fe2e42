//! Packs and chunks in the index: which chunks are stored, and where.
//!
//! ```text
//! part   up to 16 chunks of one pack in order of offset, per chunk:
//!        id 32 | gap varint (to the end of the one before in the part) | sealed length varint
//! chunk  the first four bytes of an id as a signed big-endian number, and the number of a part that may hold it
//! ```
//!
//! So a pack's index is kept whole, in the order of the pack, and only a short row per chunk lies at a random place.
//! A chunk is looked for in the parts that its short key leads to; which of them holds it, its id in the part says.

use packetboat_core::content::{PackIndex, PackedChunk};
use packetboat_core::ids::{ChunkId, Dot, Epoch, PackId};
use packetboat_core::wire::{Reader, WireError, Writer};
use rusqlite::{OptionalExtension, params};

use super::items::page;
use super::{Index, IndexError};

/// Where a chunk is stored.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum ChunkPlace {
    /// In a pack.
    Pack {
        /// The pack.
        pack: PackId,
        /// The epoch in which it is sealed.
        epoch: Epoch,
        /// Where its sealed bytes begin, in bytes from the start of the pack.
        offset: u32,
        /// Length of its sealed bytes.
        sealed_len: u32,
    },
    /// Inside a packet.
    Packet {
        /// The packet.
        dot: Dot,
    },
}

/// Whether an intermediary has a pack.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum PackState {
    /// Put at the intermediary, and told of by no packet yet: nobody else knows of it.
    Pending,
    /// At the intermediary, and told of.
    Stored,
    /// At the intermediary and condemned: read from where nothing else holds a chunk, and never referred to anew.
    Condemned,
    /// Once at the intermediary, and found missing or damaged there.
    Damaged,
}

impl PackState {
    /// The column's value.
    fn code(self) -> i64 {
        match self {
            Self::Damaged => -1,
            Self::Pending => PENDING,
            Self::Stored => 1,
            Self::Condemned => CONDEMNED,
        }
    }

    fn of_code(code: i64) -> Self {
        match code {
            ..0 => Self::Damaged,
            PENDING => Self::Pending,
            CONDEMNED => Self::Condemned,
            _ => Self::Stored,
        }
    }
}

/// Whether a pack can be relied on to be there.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
enum Standing {
    Sound,
    Doubtful,
}

/// How a pack that no packet has told of is marked in its row.
pub(super) const PENDING: i64 = 0;
/// How a condemned pack is marked in its row.
pub(super) const CONDEMNED: i64 = 2;

/// A pack without its chunks.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct PackRow {
    /// The pack.
    pub pack: PackId,
    /// The epoch in which its chunks are sealed.
    pub epoch: Epoch,
    /// The size of the whole object in bytes.
    pub size: u32,
    /// Whether an intermediary has it.
    pub state: PackState,
}

impl Index {
    /// Records a pack and its chunks; of one that is recorded already only the state is set.
    pub fn put_pack(&mut self, pack: &PackIndex, state: PackState) -> Result<(), IndexError> {
        if self.pack_number(&pack.pack)?.is_some() {
            return self.set_pack_state(&pack.pack, state);
        }
        let mut last = self.sql.prepare_cached("SELECT coalesce(max(n), 0) FROM part")?;
        let first_part: i64 = last.query_row([], |row| row.get::<_, i64>(0))? + 1;
        let parts = pack.chunks.chunks(PART_CHUNKS);
        let mut insert = self.sql.prepare_cached(
            "INSERT INTO pack (id, epoch, size, state, first_part, parts) VALUES (?1, ?2, ?3, ?4, ?5, ?6)",
        )?;
        let (id, state) = (pack.pack.as_bytes(), state.code());
        insert.execute(params![id, pack.epoch, pack.size, state, first_part, parts.len() as i64])?;
        let number = self.sql.last_insert_rowid();
        let mut insert_part = self.sql.prepare_cached("INSERT INTO part (n, pack, chunks) VALUES (?1, ?2, ?3)")?;
        for (part, chunks) in (first_part..).zip(parts) {
            insert_part.execute(params![part, number, encode_part(chunks)])?;
        }
        // In order of the key, so that neighbours go to one page.
        let mut keys: Vec<(i64, i64)> = (pack.chunks.iter().enumerate())
            .map(|(n, chunk)| (key(&chunk.id), first_part + (n / PART_CHUNKS) as i64))
            .collect();
        keys.sort_unstable();
        let mut insert_key = self.sql.prepare_cached("INSERT OR IGNORE INTO chunk (key, part) VALUES (?1, ?2)")?;
        for (key, part) in keys {
            insert_key.execute([key, part])?;
        }
        Ok(())
    }

    /// Notes whether an intermediary has a pack.
    pub fn set_pack_state(&mut self, pack: &PackId, state: PackState) -> Result<(), IndexError> {
        let mut update = self.sql.prepare_cached("UPDATE pack SET state = ?2 WHERE id = ?1")?;
        update.execute(params![pack.as_bytes(), state.code()])?;
        Ok(())
    }

    /// Forgets a pack and that its chunks are stored in it; says whether it was recorded.
    pub fn remove_pack(&mut self, pack: &PackId) -> Result<bool, IndexError> {
        let Some(index) = self.pack_index(pack)? else { return Ok(false) };
        let Some((number, first_part, parts)) = self.pack_number(pack)? else { return Ok(false) };
        let mut delete_key = self.sql.prepare_cached("DELETE FROM chunk WHERE key = ?1 AND part = ?2")?;
        for (n, chunk) in index.chunks.iter().enumerate() {
            delete_key.execute([key(&chunk.id), first_part + (n / PART_CHUNKS) as i64])?;
        }
        let mut delete_parts = self.sql.prepare_cached("DELETE FROM part WHERE n >= ?1 AND n < ?1 + ?2")?;
        delete_parts.execute([first_part, parts])?;
        self.sql.prepare_cached("DELETE FROM pack WHERE n = ?1")?.execute([number])?;
        Ok(true)
    }

    /// The packs that were recorded and of which no packet has told yet.
    pub fn pending_packs(&self) -> Result<Vec<PackId>, IndexError> {
        let mut statement = self.sql.prepare_cached("SELECT id FROM pack WHERE state = 0 ORDER BY n")?;
        let mut rows = statement.query([])?;
        let mut packs = Vec::new();
        while let Some(row) = rows.next()? {
            packs.push(PackId(row.get(0)?));
        }
        Ok(packs)
    }

    /// A pack without its chunks.
    pub fn pack_row(&self, pack: &PackId) -> Result<Option<PackRow>, IndexError> {
        let mut statement = self.sql.prepare_cached("SELECT epoch, size, state FROM pack WHERE id = ?1")?;
        let mut rows = statement.query([pack.as_bytes()])?;
        let Some(row) = rows.next()? else { return Ok(None) };
        let state = PackState::of_code(row.get(2)?);
        Ok(Some(PackRow { pack: *pack, epoch: row.get(0)?, size: row.get(1)?, state }))
    }

    /// What a pack holds.
    pub fn pack_index(&self, pack: &PackId) -> Result<Option<PackIndex>, IndexError> {
        let Some(row) = self.pack_row(pack)? else { return Ok(None) };
        let Some((_, first_part, parts)) = self.pack_number(pack)? else { return Ok(None) };
        let mut chunks = Vec::new();
        let mut statement =
            self.sql.prepare_cached("SELECT chunks FROM part WHERE n >= ?1 AND n < ?1 + ?2 ORDER BY n")?;
        let mut rows = statement.query([first_part, parts])?;
        while let Some(row) = rows.next()? {
            for chunk in decode_part(row.get_ref(0)?.as_blob()?) {
                chunks.push(chunk?);
            }
        }
        Ok(Some(PackIndex { pack: *pack, epoch: row.epoch, size: row.size, chunks }))
    }

    /// Goes through all packs by id, some in memory at a time.
    pub fn each_pack(&self, mut each: impl FnMut(&PackRow)) -> Result<(), IndexError> {
        let mut after = None;
        loop {
            let page = self.packs(after.as_ref(), PACKS_IN_MEMORY)?;
            let Some(last) = page.last() else { return Ok(()) };
            after = Some(last.pack);
            page.iter().for_each(&mut each);
        }
    }

    /// At most `limit` packs after `after`, in the order of their ids.
    pub fn packs(&self, after: Option<&PackId>, limit: usize) -> Result<Vec<PackRow>, IndexError> {
        let mut statement =
            self.sql.prepare_cached("SELECT id, epoch, size, state FROM pack WHERE id > ?1 ORDER BY id LIMIT ?2")?;
        let after = after.map_or(&[][..], |pack| pack.as_bytes());
        let mut rows = statement.query(params![after, page(limit)])?;
        let mut packs = Vec::new();
        while let Some(row) = rows.next()? {
            let state = PackState::of_code(row.get(3)?);
            packs.push(PackRow { pack: PackId(row.get(0)?), epoch: row.get(1)?, size: row.get(2)?, state });
        }
        Ok(packs)
    }

    /// Records that a chunk travels inside a packet.
    pub fn put_inline_chunk(&mut self, id: &ChunkId, dot: Dot) -> Result<(), IndexError> {
        let device = self.numbers.device_number(&self.sql, &dot.device)?;
        let mut put =
            self.sql.prepare_cached("INSERT OR REPLACE INTO inline (id, device, counter) VALUES (?1, ?2, ?3)")?;
        put.execute(params![&id.0[..INLINE_KEY], device, dot.counter as i64])?;
        Ok(())
    }

    /// Forgets that a chunk lies inside a packet.
    pub fn remove_inline_chunk(&mut self, id: &ChunkId) -> Result<(), IndexError> {
        self.sql.prepare_cached("DELETE FROM inline WHERE id = ?1")?.execute([&id.0[..INLINE_KEY]])?;
        Ok(())
    }

    /// Where a chunk is best read: in a stored pack if it is in several, then in a packet, and in a pack that is condemned
    /// or damaged only where nothing else has it. One that is condemned may be gone already.
    ///
    /// Of several stored packs the one recorded last: it may stand for one that was lost.
    pub fn chunk_place(&self, id: &ChunkId) -> Result<Option<ChunkPlace>, IndexError> {
        let best = self.packed_places(id, 1)?.pop();
        match best {
            Some((place, Standing::Sound)) => Ok(Some(place)),
            doubtful => Ok(self.inline_place(id)?.or(doubtful.map(|(place, _)| place))),
        }
    }

    /// Everywhere a chunk is stored, the best place first.
    pub fn chunk_places(&self, id: &ChunkId) -> Result<Vec<ChunkPlace>, IndexError> {
        let (sound, doubtful): (Vec<_>, Vec<_>) =
            self.packed_places(id, usize::MAX)?.into_iter().partition(|(_, standing)| *standing == Standing::Sound);
        let inline = self.inline_place(id)?;
        let packed = |places: Vec<(ChunkPlace, Standing)>| places.into_iter().map(|(place, _)| place);
        Ok(packed(sound).chain(inline).chain(packed(doubtful)).collect())
    }

    fn packed_places(&self, id: &ChunkId, limit: usize) -> Result<Vec<(ChunkPlace, Standing)>, IndexError> {
        let mut places = Vec::new();
        let mut statement = self.sql.prepare_cached(
            "SELECT p.chunks, k.id, k.epoch, k.state FROM chunk c JOIN part p ON p.n = c.part JOIN pack k ON k.n = p.pack
             WHERE c.key = ?1 ORDER BY CASE k.state WHEN 2 THEN -0.5 ELSE k.state END DESC, k.n DESC",
        )?;
        let mut rows = statement.query([key(id)])?;
        while let Some(row) = rows.next()? {
            if let Some(PackedChunk { offset, sealed_len, .. }) = find_in_part(row.get_ref(0)?.as_blob()?, id)? {
                let (pack, epoch) = (PackId(row.get(1)?), row.get(2)?);
                let standing = match PackState::of_code(row.get(3)?) {
                    PackState::Stored | PackState::Pending => Standing::Sound,
                    PackState::Condemned | PackState::Damaged => Standing::Doubtful,
                };
                places.push((ChunkPlace::Pack { pack, epoch, offset, sealed_len }, standing));
                if places.len() >= limit {
                    break;
                }
            }
        }
        Ok(places)
    }

    fn inline_place(&self, id: &ChunkId) -> Result<Option<ChunkPlace>, IndexError> {
        let mut statement = self.sql.prepare_cached("SELECT device, counter FROM inline WHERE id = ?1")?;
        let mut rows = statement.query([&id.0[..INLINE_KEY]])?;
        let Some(row) = rows.next()? else { return Ok(None) };
        let device = self.numbers.device(&self.sql, row.get(0)?)?;
        Ok(Some(ChunkPlace::Packet { dot: Dot { device, counter: row.get::<_, i64>(1)? as u64 } }))
    }

    /// The packs in which [`chunk_place`](Self::chunk_place) finds these chunks, sorted; none that is condemned.
    pub fn packs_of<'a>(&self, chunks: impl IntoIterator<Item = &'a ChunkId>) -> Result<Vec<PackId>, IndexError> {
        let mut packs = Vec::new();
        for chunk in chunks {
            if let Some(ChunkPlace::Pack { pack, .. }) = self.chunk_place(chunk)?
                && self.pack_row(&pack)?.is_some_and(|row| row.state != PackState::Condemned)
            {
                packs.push(pack);
            }
        }
        packs.sort_unstable();
        packs.dedup();
        Ok(packs)
    }

    fn pack_number(&self, pack: &PackId) -> Result<Option<(i64, i64, i64)>, IndexError> {
        let mut statement = self.sql.prepare_cached("SELECT n, first_part, parts FROM pack WHERE id = ?1")?;
        let columns = statement.query_row([pack.as_bytes()], |row| Ok((row.get(0)?, row.get(1)?, row.get(2)?)));
        Ok(columns.optional()?)
    }
}

pub(super) fn key(id: &ChunkId) -> i64 {
    i64::from(i32::from_be_bytes([id.0[0], id.0[1], id.0[2], id.0[3]]))
}

pub(super) fn encode_part(chunks: &[PackedChunk]) -> Vec<u8> {
    let mut out = Writer::new();
    let mut end = 0u32;
    for chunk in chunks {
        out.raw(&chunk.id.0).varint(u64::from(chunk.offset.wrapping_sub(end))).varint(u64::from(chunk.sealed_len));
        end = chunk.offset.wrapping_add(chunk.sealed_len);
    }
    out.finish()
}

/// The chunks of a part one by one; ends at the first that cannot be read.
pub(super) fn decode_part(bytes: &[u8]) -> impl Iterator<Item = Result<PackedChunk, WireError>> {
    let mut input = Reader::new(bytes);
    let mut end = 0u32;
    std::iter::from_fn(move || {
        if input.remaining() == 0 {
            return None;
        }
        let mut next = || {
            let id = ChunkId(input.array()?);
            let offset = input.varint32()?.wrapping_add(end);
            let sealed_len = input.varint32()?;
            end = offset.wrapping_add(sealed_len);
            Ok(PackedChunk { id, offset, sealed_len })
        };
        let chunk = next();
        if chunk.is_err() {
            input = Reader::new(&[]);
        }
        Some(chunk)
    })
}

pub(super) fn find_in_part(bytes: &[u8], id: &ChunkId) -> Result<Option<PackedChunk>, WireError> {
    for chunk in decode_part(bytes) {
        let chunk = chunk?;
        if chunk.id == *id {
            return Ok(Some(chunk));
        }
    }
    Ok(None)
}

/// Chunks of one row of `part`.
pub(super) const PART_CHUNKS: usize = 16;
/// Bytes of an id that name an inline chunk; whoever reads it checks the whole.
pub(super) const INLINE_KEY: usize = 16;

/// How many rows of packs are read in one go.
const PACKS_IN_MEMORY: usize = 1024;
