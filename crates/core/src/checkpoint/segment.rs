//! Segments: the parts of a checkpoint, cut so that one edit changes one of them.
//!
//! A segment is a run of entries (items by id, directory moves by stamp, or pack indexes by pack) in order of their keys.
//! A new one begins at each key whose hash says so, whoever writes it and whatever else there is, so devices of equal
//! knowledge write equal segments, which are stored once. Only runs that chance made very long are cut by length.
//!
//! ```text
//! segment    kind u8: 1 items, 2 moves, 3 packs | entries to the end
//!
//! item       id | heads: count, head… | placements: count, placement…
//!            | at: 0 and placed, or n + 1 for the n-th placement
//!            | mode: 0, or 1, stamp and value varint
//!            | xattrs: count, per attribute: name bytes | stamp | 0 removed, or 1 and value bytes
//!            | deletes: count, dot…
//! id         0 the successor of the last item's | 1 then 16 bytes
//! head       dot | lamport varint | time signed | content | trail: count, per mark: dot | lamport varint | time signed
//!            | deletes: count, dot…
//! placement  placed | deletes: count, dot…
//! placed     stamp | directory | name bytes
//! content    0 directory | 1 symlink, target bytes | 2, 3, 4 file, size varint | mtime signed difference to the last, ns
//!            | 2 one chunk: id 32 | 3 its chunks, 4 the chunks of its list: content id 32 | count, per chunk: id 32 | length varint
//! move       directory | to: placed | before: placed | passed over 0 or 1
//! pack       as in a packet (body.rs)
//!
//! stamp      device | lamport varint | counter varint | index varint
//! dot        device | counter varint
//! device     0 then 32 bytes, joins the table | n + 1 the table's n-th
//! directory  0 then 16 bytes, joins the table | n + 1 the table's n-th, which begins with the root
//! ```

use std::collections::{BTreeMap, HashMap, HashSet};
use std::hash::Hash;

use crate::body::{decode_pack_index, encode_pack_index};
use crate::change::{MAX_TARGET, MAX_TRAIL, MAX_XATTR_NAME, MAX_XATTR_VALUE, Mark};
use crate::content::{ChunkList, ChunkRef, Content, FileContent, MAX_CHUNK_BYTES, PackIndex};
use crate::ids::{ChunkId, ContentId, DeviceId, Dot, ItemId, PackId, Stamp};
use crate::item::{Head, Item, Placed, Placement, Register};
use crate::name::Name;
use crate::tree::MoveRecord;
use crate::wire::{Reader, WireError, Writer};

/// What a segment is made of.
pub trait Entry: Sized {
    /// By what entries are sorted; each occurs once in a checkpoint.
    type Key: Ord + Copy;
    /// The segment's first byte.
    const KIND: u8;
    /// How many entries a segment has on average.
    const AVERAGE: u32;

    /// The entry's key.
    fn key(&self) -> Self::Key;

    /// Whether a segment begins at this key, whatever else there is.
    fn is_boundary(key: &Self::Key) -> bool;

    /// Appends the entry.
    fn encode(&self, out: &mut SegmentEncoder);

    /// Reads what [`encode`](Self::encode) wrote.
    fn decode(input: &mut SegmentDecoder<'_>) -> Result<Self, WireError>;
}

/// Cuts entries that are passed in order into encoded segments.
pub struct SegmentCutter<E: Entry> {
    first: Option<E::Key>,
    last: Option<E::Key>,
    count: u32,
    encoder: SegmentEncoder,
}

/// An encoded segment and the key of its first entry.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Segment<K> {
    /// The key of its first entry.
    pub first: K,
    /// Its plaintext, to be stored as chunks.
    pub bytes: Vec<u8>,
}

impl<E: Entry> SegmentCutter<E> {
    /// Nothing passed yet.
    pub fn new() -> Self {
        Self { first: None, last: None, count: 0, encoder: SegmentEncoder::new(E::KIND) }
    }

    /// Passes the next entry; returns the segment that ended before it, if one did.
    ///
    /// # Panics
    /// Where an entry does not come after the one before.
    pub fn push(&mut self, entry: &E) -> Option<Segment<E::Key>> {
        let key = entry.key();
        assert!(self.last.is_none_or(|last| last < key), "entries come in order");
        let full = self.count >= MAX_AVERAGES * E::AVERAGE || self.encoder.out.len() >= FULL_SEGMENT_BYTES;
        let ended = if full || E::is_boundary(&key) { self.cut() } else { None };
        self.first.get_or_insert(key);
        self.last = Some(key);
        self.count += 1;
        entry.encode(&mut self.encoder);
        ended
    }

    /// Ends the last segment, if there is one.
    pub fn finish(mut self) -> Option<Segment<E::Key>> {
        self.cut()
    }

    fn cut(&mut self) -> Option<Segment<E::Key>> {
        let first = self.first.take()?;
        let encoder = std::mem::replace(&mut self.encoder, SegmentEncoder::new(E::KIND));
        self.count = 0;
        Some(Segment { first, bytes: encoder.out.finish() })
    }
}

impl<E: Entry> Default for SegmentCutter<E> {
    fn default() -> Self {
        Self::new()
    }
}

/// Encodes the entries of one segment, which come in order.
pub fn encode_segment<E: Entry>(entries: &[E]) -> Vec<u8> {
    let mut encoder = SegmentEncoder::new(E::KIND);
    for entry in entries {
        entry.encode(&mut encoder);
    }
    encoder.out.finish()
}

/// Reads what [`encode_segment`] or a [`SegmentCutter`] wrote; refuses all that they would not write.
pub fn decode_segment<E: Entry>(bytes: &[u8]) -> Result<Vec<E>, WireError> {
    if bytes.len() > MAX_SEGMENT_BYTES {
        return Err(WireError::TooLong { limit: MAX_SEGMENT_BYTES });
    }
    let mut input = SegmentDecoder::new(bytes);
    if input.rest.u8()? != E::KIND {
        return Err(WireError::Invalid { what: "segment" });
    }
    let mut entries: Vec<E> = Vec::new();
    while input.rest.remaining() > 0 {
        let entry = E::decode(&mut input)?;
        if entries.last().is_some_and(|last| last.key() >= entry.key()) {
            return Err(WireError::NotCanonical);
        }
        entries.push(entry);
    }
    if entries.is_empty() { Err(WireError::Truncated) } else { Ok(entries) }
}

impl Entry for Item {
    type Key = ItemId;
    const KIND: u8 = 1;
    const AVERAGE: u32 = 2048;

    fn key(&self) -> ItemId {
        self.id
    }

    fn is_boundary(id: &ItemId) -> bool {
        begins_segment(&id.0, Self::AVERAGE)
    }

    fn encode(&self, out: &mut SegmentEncoder) {
        out.item(&self.id);
        out.out.varint(self.heads.len() as u64);
        for head in &self.heads {
            out.head(head);
        }
        out.out.varint(self.placements.len() as u64);
        for placement in &self.placements {
            out.placed(&placement.placed);
            out.dots(&placement.deletes);
        }
        match self.placements.iter().position(|placement| placement.placed == self.at) {
            Some(at) => {
                out.out.varint(at as u64 + 1);
            }
            None => {
                out.out.varint(0);
                out.placed(&self.at);
            }
        }
        match &self.mode {
            Some(mode) => {
                out.out.u8(1);
                out.stamp(&mode.stamp);
                out.out.varint(mode.value.into());
            }
            None => {
                out.out.u8(0);
            }
        }
        out.out.varint(self.xattrs.len() as u64);
        for (name, register) in &self.xattrs {
            out.out.bytes(name);
            out.stamp(&register.stamp);
            match &register.value {
                Some(value) => out.out.u8(1).bytes(value),
                None => out.out.u8(0),
            };
        }
        out.dots(&self.deletes);
    }

    fn decode(input: &mut SegmentDecoder<'_>) -> Result<Self, WireError> {
        let id = input.item()?;
        let heads = input.sorted(|input| input.head(), |head| head.dot)?;
        let placements = input.sorted(|input| input.placement(), |placement| placement.placed.stamp)?;
        if heads.is_empty() || placements.is_empty() {
            return Err(WireError::Invalid { what: "item" });
        }
        let at = match input.rest.varint()? {
            0 => {
                let at = input.placed()?;
                if placements.iter().any(|placement| placement.placed == at) {
                    return Err(WireError::NotCanonical);
                }
                at
            }
            n => table_entry(&placements, n - 1, "placement")?.placed.clone(),
        };
        let mode = match input.flag()? {
            false => None,
            true => {
                let stamp = input.stamp()?;
                let value = Some(input.rest.varint32()?).filter(|mode| *mode <= 0o777);
                Some(Register { stamp, value: value.ok_or(WireError::Invalid { what: "mode" })? })
            }
        };
        let xattrs = input.sorted(|input| input.xattr(), |(name, _)| name.clone())?;
        let deletes = input.sorted(|input| input.dot(), |dot| *dot)?;
        Ok(Item { id, heads, placements, at, mode, xattrs: BTreeMap::from_iter(xattrs), deletes })
    }
}

impl Entry for MoveRecord {
    type Key = Stamp;
    const KIND: u8 = 2;
    const AVERAGE: u32 = 2048;

    fn key(&self) -> Stamp {
        self.to.stamp
    }

    fn is_boundary(stamp: &Stamp) -> bool {
        let key = [&stamp.device.0[..], &stamp.counter.to_le_bytes(), &stamp.index.to_le_bytes()].concat();
        begins_segment(&key, Self::AVERAGE)
    }

    fn encode(&self, out: &mut SegmentEncoder) {
        out.directory(&self.item);
        out.placed(&self.to);
        out.placed(&self.before);
        out.out.u8(self.passed_over.into());
    }

    fn decode(input: &mut SegmentDecoder<'_>) -> Result<Self, WireError> {
        let item = input.directory()?;
        if item == ItemId::ROOT {
            return Err(WireError::Invalid { what: "move of the root" });
        }
        Ok(Self { item, to: input.placed()?, before: input.placed()?, passed_over: input.flag()? })
    }
}

impl Entry for PackIndex {
    type Key = PackId;
    const KIND: u8 = 3;
    /// A pack's index may be a thousand chunks long.
    const AVERAGE: u32 = 16;

    fn key(&self) -> PackId {
        self.pack
    }

    fn is_boundary(pack: &PackId) -> bool {
        begins_segment(&pack.0, Self::AVERAGE)
    }

    fn encode(&self, out: &mut SegmentEncoder) {
        encode_pack_index(self, &mut out.out);
    }

    fn decode(input: &mut SegmentDecoder<'_>) -> Result<Self, WireError> {
        decode_pack_index(&mut input.rest)
    }
}

/// Whether a segment begins at this key; one in `average` keys does.
fn begins_segment(key: &[u8], average: u32) -> bool {
    let hash = blake3::derive_key("packetboat 2026 checkpoint segments", key);
    u32::from_le_bytes([hash[0], hash[1], hash[2], hash[3]]).is_multiple_of(average)
}

/// The state of encoding one segment.
pub struct SegmentEncoder {
    out: Writer,
    devices: HashMap<DeviceId, u64>,
    directories: HashMap<ItemId, u64>,
    last_item: ItemId,
    last_mtime: i64,
}

impl SegmentEncoder {
    fn new(kind: u8) -> Self {
        let mut out = Writer::new();
        out.u8(kind);
        Self {
            out,
            devices: HashMap::new(),
            directories: HashMap::from([(ItemId::ROOT, 0)]),
            last_item: ItemId::ROOT,
            last_mtime: 0,
        }
    }

    fn item(&mut self, id: &ItemId) {
        if *id == self.last_item.successor(1) {
            self.out.u8(0);
        } else {
            self.out.u8(1).raw(&id.0);
        }
        self.last_item = *id;
    }

    fn device(&mut self, device: &DeviceId) {
        join(&mut self.devices, *device, &device.0, &mut self.out);
    }

    fn directory(&mut self, id: &ItemId) {
        join(&mut self.directories, *id, &id.0, &mut self.out);
    }

    fn dot(&mut self, dot: &Dot) {
        self.device(&dot.device);
        self.out.varint(dot.counter);
    }

    fn stamp(&mut self, stamp: &Stamp) {
        self.device(&stamp.device);
        self.out.varint(stamp.lamport).varint(stamp.counter).varint(stamp.index.into());
    }

    fn placed(&mut self, placed: &Placed) {
        self.stamp(&placed.stamp);
        self.directory(&placed.parent);
        self.out.bytes(placed.name.as_bytes());
    }

    fn dots(&mut self, dots: &[Dot]) {
        self.out.varint(dots.len() as u64);
        for dot in dots {
            self.dot(dot);
        }
    }

    fn head(&mut self, head: &Head) {
        self.dot(&head.dot);
        self.out.varint(head.lamport).signed(head.time);
        self.content(&head.content);
        self.out.varint(head.trail.len() as u64);
        for mark in &head.trail {
            self.dot(&mark.dot);
            self.out.varint(mark.lamport).signed(mark.time);
        }
        self.dots(&head.deletes);
    }

    fn content(&mut self, content: &Content) {
        let file = match content {
            Content::Directory => {
                self.out.u8(0);
                return;
            }
            Content::Symlink(target) => {
                self.out.u8(1).bytes(target);
                return;
            }
            Content::File(file) => file,
        };
        let (tag, chunks) = match &file.chunks {
            ChunkList::Inline(chunks) if is_single(file, chunks) => (2, chunks),
            ChunkList::Inline(chunks) => (3, chunks),
            ChunkList::Indirect(chunks) => (4, chunks),
        };
        self.out.u8(tag).varint(file.size).signed(file.mtime.wrapping_sub(self.last_mtime)).raw(&file.id.0);
        self.last_mtime = file.mtime;
        if tag != 2 {
            self.out.varint(chunks.len() as u64);
            for chunk in chunks {
                self.out.raw(&chunk.id.0).varint(chunk.len.into());
            }
        }
    }
}

fn join<T: Eq + Hash>(table: &mut HashMap<T, u64>, value: T, bytes: &[u8], out: &mut Writer) {
    let next = table.len() as u64;
    if let Some(index) = table.get(&value) {
        out.varint(index + 1);
    } else {
        table.insert(value, next);
        out.varint(0).raw(bytes);
    }
}

/// The state of decoding one segment.
pub struct SegmentDecoder<'a> {
    rest: Reader<'a>,
    devices: Table<DeviceId>,
    directories: Table<ItemId>,
    last_item: ItemId,
    last_mtime: i64,
}

impl<'a> SegmentDecoder<'a> {
    fn new(bytes: &'a [u8]) -> Self {
        let mut directories = Table::new();
        directories.join(ItemId::ROOT).expect("the table is empty");
        Self { rest: Reader::new(bytes), devices: Table::new(), directories, last_item: ItemId::ROOT, last_mtime: 0 }
    }

    /// Takes a count and that many values in strictly rising order.
    fn sorted<T, K: Ord>(
        &mut self,
        mut take: impl FnMut(&mut Self) -> Result<T, WireError>,
        key: impl Fn(&T) -> K,
    ) -> Result<Vec<T>, WireError> {
        let mut values: Vec<T> = Vec::new();
        for _ in 0..self.rest.count(2)? {
            let value = take(self)?;
            if values.last().is_some_and(|last| key(last) >= key(&value)) {
                return Err(WireError::NotCanonical);
            }
            values.push(value);
        }
        Ok(values)
    }

    fn flag(&mut self) -> Result<bool, WireError> {
        match self.rest.u8()? {
            0 => Ok(false),
            1 => Ok(true),
            _ => Err(WireError::NotCanonical),
        }
    }

    fn item(&mut self) -> Result<ItemId, WireError> {
        let successor = self.last_item.successor(1);
        let id = match self.flag()? {
            false => successor,
            true => Some(ItemId(self.rest.array()?)).filter(|id| *id != successor).ok_or(WireError::NotCanonical)?,
        };
        if id == ItemId::ROOT {
            return Err(WireError::Invalid { what: "state of the root" });
        }
        self.last_item = id;
        Ok(id)
    }

    fn device(&mut self) -> Result<DeviceId, WireError> {
        match self.rest.varint()? {
            0 => self.devices.join(DeviceId(self.rest.array()?)),
            n => self.devices.get(n - 1, "device"),
        }
    }

    fn directory(&mut self) -> Result<ItemId, WireError> {
        match self.rest.varint()? {
            0 => self.directories.join(ItemId(self.rest.array()?)),
            n => self.directories.get(n - 1, "directory"),
        }
    }

    fn counter(&mut self) -> Result<u64, WireError> {
        Some(self.rest.varint()?).filter(|counter| *counter > 0).ok_or(WireError::Invalid { what: "counter" })
    }

    fn dot(&mut self) -> Result<Dot, WireError> {
        Ok(Dot { device: self.device()?, counter: self.counter()? })
    }

    fn stamp(&mut self) -> Result<Stamp, WireError> {
        let device = self.device()?;
        let lamport = self.rest.varint()?;
        Ok(Stamp { lamport, device, counter: self.counter()?, index: self.rest.varint32()? })
    }

    fn placed(&mut self) -> Result<Placed, WireError> {
        let stamp = self.stamp()?;
        let parent = self.directory()?;
        let name = Name::new(self.rest.bytes(Name::MAX)?).ok_or(WireError::Invalid { what: "name" })?;
        Ok(Placed { stamp, parent, name })
    }

    fn placement(&mut self) -> Result<Placement, WireError> {
        Ok(Placement { placed: self.placed()?, deletes: self.sorted(|input| input.dot(), |dot| *dot)? })
    }

    fn head(&mut self) -> Result<Head, WireError> {
        let dot = self.dot()?;
        let lamport = self.rest.varint()?;
        let time = self.rest.signed()?;
        let content = self.content()?;
        let count = self.rest.count(4)?;
        if count > MAX_TRAIL {
            return Err(WireError::Invalid { what: "trail" });
        }
        let trail = (0..count)
            .map(|_| Ok(Mark { dot: self.dot()?, lamport: self.rest.varint()?, time: self.rest.signed()? }))
            .collect::<Result<_, WireError>>()?;
        let deletes = self.sorted(|input| input.dot(), |dot| *dot)?;
        Ok(Head { dot, lamport, time, content, trail, deletes })
    }

    fn content(&mut self) -> Result<Content, WireError> {
        match self.rest.u8()? {
            0 => Ok(Content::Directory),
            1 => {
                let target = self.rest.bytes(MAX_TARGET)?;
                if target.is_empty() || target.contains(&0) {
                    return Err(WireError::Invalid { what: "symlink target" });
                }
                Ok(Content::Symlink(target.to_vec()))
            }
            tag @ 2..=4 => Ok(Content::File(self.file(tag)?)),
            _ => Err(WireError::Invalid { what: "content" }),
        }
    }

    fn file(&mut self, tag: u8) -> Result<FileContent, WireError> {
        let size = self.rest.varint()?;
        let mtime = self.last_mtime.wrapping_add(self.rest.signed()?);
        self.last_mtime = mtime;
        let id = ContentId(self.rest.array()?);
        let sound_len = |len: &u32| (1..=MAX_CHUNK_BYTES).contains(len);
        if tag == 2 {
            let len = u32::try_from(size).ok().filter(sound_len).ok_or(WireError::Invalid { what: "file size" })?;
            let chunks = ChunkList::Inline(vec![ChunkRef { id: ChunkId(id.0), len }]);
            return Ok(FileContent { id, size, mtime, chunks });
        }
        let mut chunks = Vec::new();
        for _ in 0..self.rest.count(ChunkId::LEN + 1)? {
            let id = ChunkId(self.rest.array()?);
            let len =
                Some(self.rest.varint32()?).filter(sound_len).ok_or(WireError::Invalid { what: "chunk length" })?;
            chunks.push(ChunkRef { id, len });
        }
        let total: u64 = chunks.iter().map(|chunk| u64::from(chunk.len)).sum();
        let chunks = match tag {
            3 if total == size => ChunkList::Inline(chunks),
            4 if !chunks.is_empty() => ChunkList::Indirect(chunks),
            _ => return Err(WireError::Invalid { what: "file size" }),
        };
        let file = FileContent { id, size, mtime, chunks };
        match &file.chunks {
            ChunkList::Inline(chunks) if is_single(&file, chunks) => Err(WireError::NotCanonical),
            _ => Ok(file),
        }
    }

    fn xattr(&mut self) -> Result<Xattr, WireError> {
        let name = self.rest.bytes(MAX_XATTR_NAME)?.to_vec();
        if !name.starts_with(b"user.") || name.len() == 5 || name.contains(&0) {
            return Err(WireError::Invalid { what: "attribute name" });
        }
        let stamp = self.stamp()?;
        let value = match self.flag()? {
            false => None,
            true => Some(self.rest.bytes(MAX_XATTR_VALUE)?.to_vec()),
        };
        Ok((name, Register { stamp, value }))
    }
}

type Xattr = (Vec<u8>, Register<Option<Vec<u8>>>);

/// Values in the order in which they joined, each once.
pub(super) struct Table<T> {
    values: Vec<T>,
    joined: HashSet<T>,
}

impl<T: Eq + Hash + Copy> Table<T> {
    pub(super) fn new() -> Self {
        Self { values: Vec::new(), joined: HashSet::new() }
    }

    pub(super) fn join(&mut self, value: T) -> Result<T, WireError> {
        if !self.joined.insert(value) {
            return Err(WireError::NotCanonical);
        }
        self.values.push(value);
        Ok(value)
    }

    pub(super) fn get(&self, at: u64, what: &'static str) -> Result<T, WireError> {
        table_entry(&self.values, at, what).copied()
    }
}

fn table_entry<'t, T>(table: &'t [T], at: u64, what: &'static str) -> Result<&'t T, WireError> {
    usize::try_from(at).ok().and_then(|at| table.get(at)).ok_or(WireError::Invalid { what })
}

fn is_single(file: &FileContent, chunks: &[ChunkRef]) -> bool {
    matches!(chunks, [only] if only.id.0 == file.id.0 && u64::from(only.len) == file.size)
}

/// A segment that has grown to this many averages ends, boundary or not.
const MAX_AVERAGES: u32 = 4;
/// A segment that has grown to this size ends, boundary or not.
const FULL_SEGMENT_BYTES: usize = 8 * 1024 * 1024;

/// Greatest size of a segment's plaintext in bytes.
pub const MAX_SEGMENT_BYTES: usize = 64 * 1024 * 1024;

#[cfg(test)]
mod tests;
