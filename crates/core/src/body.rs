//! The body of a change packet: the codec between [`PacketBody`] and the bytes that are then compressed and sealed.
//!
//! ```text
//! lamport varint | time signed (ms since 1970 UTC, the author's clock, for people)
//! prerequisite   knowledge gained since the predecessor's, own lane left out (see knowledge.rs)
//! needs          count, pack ids (32 each): packs of earlier packets that the changes refer to
//! packs          count, per pack: id 32 | epoch varint | size varint | count, per chunk: id 32 | gap varint | sealed length varint
//! inline         count, per chunk: id 32 | bytes
//! known          count, chunk ids (32 each): chunks of earlier packets that the changes refer to, in order of first use
//! changes        count, per change: tag u8 and fields as in `encode_change`
//!
//! device   0 the author | 1 then 32 bytes, joins the table | n + 2 the table's n-th
//! item     0 the successor of the last item that joined | 1 then 16 bytes | n + 2 the table's n-th; 0 and 1 join the table
//! chunk    index into inline, then packs, then known
//! dot      device | counter varint
//! mtime    signed difference to the last one in the packet, ns
//! ```
//!
//! The item table begins with the root. What can be written in several ways must be written in the first way listed
//! that is not longer (a table index before new bytes), and the reader refuses anything else.

use std::collections::{HashMap, HashSet};

use crate::change::{
    Change, MAX_DEVICE_NAME, MAX_TARGET, MAX_TRAIL, MAX_XATTR_NAME, MAX_XATTR_VALUE, Mark, Removed, check_changes,
};
use crate::content::{
    ChunkList, ChunkRef, Content, FileContent, MAX_CHUNK_BYTES, MAX_INLINE_CHUNKS, PackIndex, PackedChunk,
};
use crate::epoch_key::MAX_SEALED_KEY;
use crate::garbage::Retention;
use crate::ids::{ChunkId, ContentId, DeviceId, Dot, ItemId, Lamport, PackId};
use crate::keys::KeyId;
use crate::knowledge::Knowledge;
use crate::name::Name;
use crate::wire::{Reader, WireError, Writer};

/// What a packet says.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct PacketBody {
    /// One more than the greatest Lamport time in the prerequisite.
    pub lamport: Lamport,
    /// The author's clock in milliseconds since 1970 UTC; for people, decides nothing.
    pub time: i64,
    /// What the author had learned beyond its previous packet's prerequisite; its own lane is left out.
    pub prerequisite: Knowledge,
    /// Packs of earlier packets to which the changes refer, sorted.
    pub needs: Vec<PackId>,
    /// Packs that the author stored for this packet, or for the ones after it.
    pub packs: Vec<PackIndex>,
    /// Chunks that travel inside the packet: id and plaintext.
    pub inline: Vec<(ChunkId, Vec<u8>)>,
    /// The changes, in the order in which they are folded.
    pub changes: Vec<Change>,
}

impl PacketBody {
    /// Encodes the body of a packet by `author`.
    ///
    /// # Panics
    /// Where the changes break the rules of [`decode`](Self::decode): the caller builds them and must not.
    pub fn encode(&self, author: DeviceId) -> Vec<u8> {
        check_changes(&self.changes).expect("the changes of one packet are sound");
        let mut encoder = Encoder::new(author);
        for (id, _) in &self.inline {
            encoder.chunks.insert(*id, encoder.chunks.len() as u64);
        }
        for chunk in self.packs.iter().flat_map(|pack| &pack.chunks) {
            let next = encoder.chunks.len() as u64;
            encoder.chunks.entry(chunk.id).or_insert(next);
        }
        let first_known = self.inline.len() + self.packs.iter().map(|pack| pack.chunks.len()).sum::<usize>();
        assert_eq!(encoder.chunks.len(), first_known, "a packet stores each chunk once");
        for change in &self.changes {
            encoder.change(change);
        }
        let mut out = Writer::new();
        out.varint(self.lamport).signed(self.time);
        self.prerequisite.encode(&mut out);
        out.varint(self.needs.len() as u64);
        for pack in &self.needs {
            out.raw(&pack.0);
        }
        out.varint(self.packs.len() as u64);
        for pack in &self.packs {
            encode_pack_index(pack, &mut out);
        }
        out.varint(self.inline.len() as u64);
        for (id, bytes) in &self.inline {
            out.raw(&id.0).bytes(bytes);
        }
        out.varint(encoder.known.len() as u64);
        for id in &encoder.known {
            out.raw(&id.0);
        }
        out.varint(self.changes.len() as u64).raw(&encoder.out.finish());
        out.finish()
    }

    /// Reads the body of a packet by `author`; refuses all that [`encode`](Self::encode) would not write.
    pub fn decode(bytes: &[u8], author: DeviceId) -> Result<Self, WireError> {
        let mut input = Reader::new(bytes);
        let lamport = input.varint()?;
        let time = input.signed()?;
        let prerequisite = Knowledge::decode(&mut input)?;
        if prerequisite.of(&author).is_some() {
            return Err(WireError::NotCanonical);
        }
        let mut needs: Vec<PackId> = Vec::new();
        for _ in 0..input.count(PackId::LEN)? {
            let pack = PackId(input.array()?);
            if needs.last().is_some_and(|last| *last >= pack) {
                return Err(WireError::NotCanonical);
            }
            needs.push(pack);
        }
        let packs =
            (0..input.count(PackId::LEN)?).map(|_| decode_pack_index(&mut input)).collect::<Result<Vec<_>, _>>()?;
        let inline = (0..input.count(ChunkId::LEN)?)
            .map(|_| Ok((ChunkId(input.array()?), input.bytes(MAX_CHUNK_BYTES as usize)?.to_vec())))
            .collect::<Result<Vec<_>, WireError>>()?;
        let mut chunks: Vec<ChunkId> = inline.iter().map(|(id, _)| *id).collect();
        chunks.extend(packs.iter().flat_map(|pack| &pack.chunks).map(|chunk| chunk.id));
        let known_from = chunks.len();
        for _ in 0..input.count(ChunkId::LEN)? {
            chunks.push(ChunkId(input.array()?));
        }
        let unique: HashSet<_> = chunks.iter().collect();
        if unique.len() != chunks.len() {
            return Err(WireError::NotCanonical);
        }
        let count = input.count(1)?;
        if count > MAX_CHANGES {
            return Err(WireError::Invalid { what: "number of changes" });
        }
        let mut decoder = Decoder::new(author, input, chunks, known_from);
        let changes = (0..count).map(|_| decoder.change()).collect::<Result<Vec<_>, _>>()?;
        decoder.finish()?;
        check_changes(&changes)?;
        Ok(Self { lamport, time, prerequisite, needs, packs, inline, changes })
    }
}

/// Appends a pack's index: what it is, and each chunk with the gap to the one before.
pub fn encode_pack_index(pack: &PackIndex, out: &mut Writer) {
    out.raw(&pack.pack.0).varint(pack.epoch.into()).varint(pack.size.into()).varint(pack.chunks.len() as u64);
    let mut end = 0u32;
    for chunk in &pack.chunks {
        let gap = chunk.offset.checked_sub(end).expect("the chunks of a pack stand in order");
        out.raw(&chunk.id.0).varint(gap.into()).varint(chunk.sealed_len.into());
        end = chunk.offset + chunk.sealed_len;
    }
}

/// Reads what [`encode_pack_index`] wrote; every chunk lies within the pack and after the one before it.
pub fn decode_pack_index(input: &mut Reader<'_>) -> Result<PackIndex, WireError> {
    let pack = PackId(input.array()?);
    let epoch = input.varint32()?;
    let size = input.varint32()?;
    let count = input.count(ChunkId::LEN + 2)?;
    let mut chunks = Vec::with_capacity(count);
    let mut end = 0u32;
    for _ in 0..count {
        let id = ChunkId(input.array()?);
        let offset = end.checked_add(input.varint32()?).ok_or(WireError::Overflow)?;
        let sealed_len = input.varint32()?;
        end = offset.checked_add(sealed_len).filter(|end| *end <= size).ok_or(WireError::Overflow)?;
        chunks.push(PackedChunk { id, offset, sealed_len });
    }
    Ok(PackIndex { pack, epoch, size, chunks })
}

struct Encoder {
    out: Writer,
    author: DeviceId,
    devices: HashMap<DeviceId, u64>,
    items: HashMap<ItemId, u64>,
    last_item: ItemId,
    chunks: HashMap<ChunkId, u64>,
    known: Vec<ChunkId>,
    last_mtime: i64,
}

impl Encoder {
    fn new(author: DeviceId) -> Self {
        Self {
            out: Writer::new(),
            author,
            devices: HashMap::new(),
            items: HashMap::from([(ItemId::ROOT, 0)]),
            last_item: ItemId::ROOT,
            chunks: HashMap::new(),
            known: Vec::new(),
            last_mtime: 0,
        }
    }

    fn device(&mut self, device: &DeviceId) {
        if *device == self.author {
            self.out.varint(0);
        } else if let Some(index) = self.devices.get(device) {
            self.out.varint(index + 2);
        } else {
            self.devices.insert(*device, self.devices.len() as u64);
            self.out.varint(1).raw(&device.0);
        }
    }

    fn dot(&mut self, dot: &Dot) {
        self.device(&dot.device);
        self.out.varint(dot.counter);
    }

    fn dots(&mut self, dots: &[Dot]) {
        self.out.varint(dots.len() as u64);
        for dot in dots {
            self.dot(dot);
        }
    }

    fn item(&mut self, item: &ItemId) {
        if let Some(index) = self.items.get(item) {
            self.out.varint(index + 2);
            return;
        }
        if *item == self.last_item.successor(1) {
            self.out.varint(0);
        } else {
            self.out.varint(1).raw(&item.0);
        }
        self.items.insert(*item, self.items.len() as u64);
        self.last_item = *item;
    }

    fn chunk(&mut self, chunk: &ChunkId) {
        let next = self.chunks.len() as u64;
        let index = *self.chunks.entry(*chunk).or_insert_with(|| {
            self.known.push(*chunk);
            next
        });
        self.out.varint(index);
    }

    fn content(&mut self, content: &Content) {
        match content {
            Content::Directory => {
                self.out.u8(0);
            }
            Content::Symlink(target) => {
                self.out.u8(1).bytes(target);
            }
            Content::File(file) => self.file(file),
        }
    }

    /// A file of one chunk has that chunk's id and length, so neither is written again.
    fn file(&mut self, file: &FileContent) {
        let (tag, chunks) = match &file.chunks {
            ChunkList::Inline(chunks) if is_single(file, chunks) => (2, chunks),
            ChunkList::Inline(chunks) => (3, chunks),
            ChunkList::Indirect(chunks) => (4, chunks),
        };
        self.out.u8(tag).varint(file.size).signed(file.mtime.wrapping_sub(self.last_mtime));
        self.last_mtime = file.mtime;
        if tag == 2 {
            return self.chunk(&chunks[0].id);
        }
        self.out.raw(&file.id.0).varint(chunks.len() as u64);
        for chunk in chunks {
            self.chunk(&chunk.id);
            self.out.varint(chunk.len.into());
        }
    }

    fn xattr(&mut self, name: &[u8], value: &[u8]) {
        self.out.bytes(name).bytes(value);
    }

    fn change(&mut self, change: &Change) {
        match change {
            Change::Create { item, parent, name, content, mode, xattrs } => {
                self.out.u8(1);
                self.item(parent);
                self.item(item);
                self.out.bytes(name.as_bytes());
                self.content(content);
                self.out.varint(mode.map_or(0, |mode| u64::from(mode) + 1)).varint(xattrs.len() as u64);
                for (name, value) in xattrs {
                    self.xattr(name, value);
                }
            }
            Change::Content { item, content, replaces, trail } => {
                self.out.u8(2);
                self.item(item);
                self.content(content);
                self.dots(replaces);
                self.out.varint(trail.len() as u64);
                for mark in trail {
                    self.dot(&mark.dot);
                    self.out.varint(mark.lamport).signed(mark.time);
                }
            }
            Change::Place { item, parent, name, replaces } => {
                self.out.u8(3);
                self.item(parent);
                self.item(item);
                self.out.bytes(name.as_bytes());
                self.dots(replaces);
            }
            Change::Mode { item, mode } => {
                self.out.u8(4);
                self.item(item);
                self.out.varint((*mode).into());
            }
            Change::Xattr { item, name, value: Some(value) } => {
                self.out.u8(5);
                self.item(item);
                self.xattr(name, value);
            }
            Change::Xattr { item, name, value: None } => {
                self.out.u8(6);
                self.item(item);
                self.out.bytes(name);
            }
            Change::Delete { removed } => {
                self.out.u8(7).varint(removed.len() as u64);
                for removed in removed {
                    self.item(&removed.item);
                    self.dots(&removed.heads);
                    self.dots(&removed.placements);
                }
            }
            Change::Introduce { name, exchange_key, continues } => {
                self.out.u8(8).bytes(name.as_bytes()).raw(exchange_key);
                self.out.u8(continues.is_some().into());
                if let Some(device) = continues {
                    self.device(device);
                }
            }
            Change::RenameDevice { device, name } => {
                self.out.u8(9);
                self.device(device);
                self.out.bytes(name.as_bytes());
            }
            Change::Revoke { device, cut, epoch, key, keys } => {
                self.out.u8(10);
                self.device(device);
                self.out.varint(*cut).varint((*epoch).into()).raw(&key.0).varint(keys.len() as u64);
                for (device, sealed) in keys {
                    self.device(device);
                    self.out.bytes(sealed);
                }
            }
            Change::Retire { device, cut } => {
                self.out.u8(11);
                self.device(device);
                self.out.varint(*cut);
            }
            Change::Condemn { packs, history } => {
                self.out.u8(12).varint(packs.len() as u64);
                for pack in packs {
                    self.out.raw(&pack.0);
                }
                history.encode(&mut self.out);
            }
            Change::Retain { retention } => {
                self.out.u8(13);
                retention.encode(&mut self.out);
            }
        }
    }
}

struct Decoder<'a> {
    input: Reader<'a>,
    author: DeviceId,
    devices: Vec<DeviceId>,
    device_set: HashSet<DeviceId>,
    items: Vec<ItemId>,
    item_set: HashSet<ItemId>,
    chunks: Vec<ChunkId>,
    /// How many of `chunks` from `known` on were used: they must be used in order.
    known_used: usize,
    last_mtime: i64,
    /// How many elements of lists may still follow.
    elements_left: usize,
}

impl<'a> Decoder<'a> {
    fn new(author: DeviceId, input: Reader<'a>, chunks: Vec<ChunkId>, known_from: usize) -> Self {
        Self {
            input,
            author,
            devices: Vec::new(),
            device_set: HashSet::new(),
            items: vec![ItemId::ROOT],
            item_set: HashSet::from([ItemId::ROOT]),
            chunks,
            known_used: known_from,
            last_mtime: 0,
            elements_left: MAX_ELEMENTS,
        }
    }

    fn finish(self) -> Result<(), WireError> {
        if self.known_used != self.chunks.len() {
            return Err(WireError::NotCanonical);
        }
        self.input.finish()
    }

    /// The length of a list within a change.
    ///
    /// What a few bytes say takes ten to forty times as many in memory, so all lists of a packet together are bounded.
    fn count(&mut self, element_bytes: usize) -> Result<usize, WireError> {
        let count = self.input.count(element_bytes)?;
        self.elements_left =
            self.elements_left.checked_sub(count).ok_or(WireError::Invalid { what: "number of elements" })?;
        Ok(count)
    }

    fn device(&mut self) -> Result<DeviceId, WireError> {
        match self.input.varint()? {
            0 => Ok(self.author),
            1 => {
                let device = DeviceId(self.input.array()?);
                if device == self.author || !self.device_set.insert(device) {
                    return Err(WireError::NotCanonical);
                }
                self.devices.push(device);
                Ok(device)
            }
            n => index(&self.devices, n - 2, "device"),
        }
    }

    fn dot(&mut self) -> Result<Dot, WireError> {
        let device = self.device()?;
        let counter = self.input.varint()?;
        if counter == 0 {
            return Err(WireError::Invalid { what: "counter" });
        }
        Ok(Dot { device, counter })
    }

    fn dots(&mut self) -> Result<Vec<Dot>, WireError> {
        let mut dots = Vec::new();
        for _ in 0..self.count(2)? {
            let dot = self.dot()?;
            if dots.last().is_some_and(|last| *last >= dot) {
                return Err(WireError::NotCanonical);
            }
            dots.push(dot);
        }
        Ok(dots)
    }

    fn item(&mut self) -> Result<ItemId, WireError> {
        let last = *self.items.last().expect("the table holds the root");
        let item = match self.input.varint()? {
            0 => last.successor(1),
            1 => {
                let item = ItemId(self.input.array()?);
                if item == last.successor(1) {
                    return Err(WireError::NotCanonical);
                }
                item
            }
            n => return index(&self.items, n - 2, "item"),
        };
        if !self.item_set.insert(item) {
            return Err(WireError::NotCanonical);
        }
        self.items.push(item);
        Ok(item)
    }

    fn name(&mut self) -> Result<Name, WireError> {
        Name::new(self.input.bytes(Name::MAX)?).ok_or(WireError::Invalid { what: "name" })
    }

    fn text(&mut self) -> Result<String, WireError> {
        let bytes = self.input.bytes(MAX_DEVICE_NAME)?.to_vec();
        String::from_utf8(bytes)
            .ok()
            .filter(|text| !text.is_empty() && !text.chars().any(char::is_control))
            .ok_or(WireError::Invalid { what: "device name" })
    }

    fn chunk(&mut self) -> Result<ChunkId, WireError> {
        let at = self.input.varint()?;
        let chunk = index(&self.chunks, at, "chunk")?;
        match (at as usize).cmp(&self.known_used) {
            std::cmp::Ordering::Equal => self.known_used += 1,
            std::cmp::Ordering::Greater => return Err(WireError::NotCanonical),
            std::cmp::Ordering::Less => {}
        }
        Ok(chunk)
    }

    fn content(&mut self) -> Result<Content, WireError> {
        match self.input.u8()? {
            0 => Ok(Content::Directory),
            1 => {
                let target = self.input.bytes(MAX_TARGET)?;
                if target.is_empty() || target.contains(&0) {
                    return Err(WireError::Invalid { what: "symlink target" });
                }
                Ok(Content::Symlink(target.to_vec()))
            }
            tag @ 2..=4 => self.file(tag).map(Content::File),
            _ => Err(WireError::Invalid { what: "content" }),
        }
    }

    fn file(&mut self, tag: u8) -> Result<FileContent, WireError> {
        let size = self.input.varint()?;
        let mtime = self.last_mtime.wrapping_add(self.input.signed()?);
        self.last_mtime = mtime;
        if tag == 2 {
            let id = self.chunk()?;
            let len = u32::try_from(size).ok().filter(|len| (1..=MAX_CHUNK_BYTES).contains(len));
            let len = len.ok_or(WireError::Invalid { what: "file size" })?;
            let chunks = ChunkList::Inline(vec![ChunkRef { id, len }]);
            return Ok(FileContent { id: ContentId(id.0), size, mtime, chunks });
        }
        let id = ContentId(self.input.array()?);
        let mut chunks = Vec::new();
        let count = self.count(2)?;
        if count > MAX_INLINE_CHUNKS {
            return Err(WireError::Invalid { what: "chunk list" });
        }
        for _ in 0..count {
            let id = self.chunk()?;
            let len = self.input.varint32()?;
            if len == 0 || len > MAX_CHUNK_BYTES {
                return Err(WireError::Invalid { what: "chunk length" });
            }
            chunks.push(ChunkRef { id, len });
        }
        let total: u64 = chunks.iter().map(|chunk| u64::from(chunk.len)).sum();
        let chunks = match tag {
            3 if total == size => ChunkList::Inline(chunks),
            4 if !chunks.is_empty() => ChunkList::Indirect(chunks),
            _ => return Err(WireError::Invalid { what: "file size" }),
        };
        let file = FileContent { id, size, mtime, chunks };
        if matches!(&file.chunks, ChunkList::Inline(chunks) if is_single(&file, chunks)) {
            return Err(WireError::NotCanonical);
        }
        Ok(file)
    }

    fn xattr_name(&mut self) -> Result<Vec<u8>, WireError> {
        let name = self.input.bytes(MAX_XATTR_NAME)?;
        if !name.starts_with(b"user.") || name.len() == 5 || name.contains(&0) {
            return Err(WireError::Invalid { what: "attribute name" });
        }
        Ok(name.to_vec())
    }

    fn mode(&mut self) -> Result<u32, WireError> {
        Some(self.input.varint32()?).filter(|mode| *mode <= 0o777).ok_or(WireError::Invalid { what: "mode" })
    }

    fn change(&mut self) -> Result<Change, WireError> {
        Ok(match self.input.u8()? {
            1 => {
                let parent = self.item()?;
                let item = self.item()?;
                let name = self.name()?;
                let content = self.content()?;
                let mode = match self.input.varint32()? {
                    0 => None,
                    mode if mode <= 0o1000 => Some(mode - 1),
                    _ => return Err(WireError::Invalid { what: "mode" }),
                };
                let mut xattrs: Vec<(Vec<u8>, Vec<u8>)> = Vec::new();
                for _ in 0..self.count(2)? {
                    let name = self.xattr_name()?;
                    if xattrs.last().is_some_and(|(last, _)| *last >= name) {
                        return Err(WireError::NotCanonical);
                    }
                    xattrs.push((name, self.input.bytes(MAX_XATTR_VALUE)?.to_vec()));
                }
                Change::Create { item, parent, name, content, mode, xattrs }
            }
            2 => {
                let item = self.item()?;
                let content = self.content()?;
                let replaces = self.dots()?;
                let marks = self.count(4)?;
                if marks > MAX_TRAIL {
                    return Err(WireError::Invalid { what: "trail" });
                }
                let mut trail = Vec::with_capacity(marks);
                for _ in 0..marks {
                    trail.push(Mark { dot: self.dot()?, lamport: self.input.varint()?, time: self.input.signed()? });
                }
                Change::Content { item, content, replaces, trail }
            }
            3 => {
                let parent = self.item()?;
                let item = self.item()?;
                Change::Place { item, parent, name: self.name()?, replaces: self.dots()? }
            }
            4 => Change::Mode { item: self.item()?, mode: self.mode()? },
            5 => Change::Xattr {
                item: self.item()?,
                name: self.xattr_name()?,
                value: Some(self.input.bytes(MAX_XATTR_VALUE)?.to_vec()),
            },
            6 => Change::Xattr { item: self.item()?, name: self.xattr_name()?, value: None },
            7 => {
                let mut removed = Vec::new();
                for _ in 0..self.count(3)? {
                    removed.push(Removed { item: self.item()?, heads: self.dots()?, placements: self.dots()? });
                }
                Change::Delete { removed }
            }
            8 => {
                let name = self.text()?;
                let exchange_key = self.input.array()?;
                let continues = match self.input.u8()? {
                    0 => None,
                    1 => Some(self.device()?),
                    _ => return Err(WireError::NotCanonical),
                };
                Change::Introduce { name, exchange_key, continues }
            }
            9 => Change::RenameDevice { device: self.device()?, name: self.text()? },
            10 => {
                let device = self.device()?;
                let cut = self.input.varint()?;
                let epoch = self.input.varint32()?;
                let key = KeyId(self.input.array()?);
                let mut keys = Vec::new();
                for _ in 0..self.count(2)? {
                    keys.push((self.device()?, self.input.bytes(MAX_SEALED_KEY)?.to_vec()));
                }
                Change::Revoke { device, cut, epoch, key, keys }
            }
            11 => Change::Retire { device: self.device()?, cut: self.input.varint()? },
            12 => {
                let count = self.count(PackId::LEN)?;
                let packs = (0..count).map(|_| Ok(PackId(self.input.array()?))).collect::<Result<_, WireError>>()?;
                Change::Condemn { packs, history: Knowledge::decode(&mut self.input)? }
            }
            13 => Change::Retain { retention: Retention::decode(&mut self.input)? },
            _ => return Err(WireError::Invalid { what: "change" }),
        })
    }
}

fn is_single(file: &FileContent, chunks: &[ChunkRef]) -> bool {
    matches!(chunks, [only] if only.id.0 == file.id.0 && u64::from(only.len) == file.size)
}

fn index<T: Copy>(table: &[T], at: u64, what: &'static str) -> Result<T, WireError> {
    usize::try_from(at).ok().and_then(|at| table.get(at)).copied().ok_or(WireError::Invalid { what })
}

/// Longest sealed key in a revocation, in bytes.
/// Most changes in one packet; a device's rounds are cut into packets of far fewer.
pub const MAX_CHANGES: usize = 1 << 17;
/// Most elements in all lists of a packet's changes together: versions, removed items, marks, chunks, attributes, keys.
pub const MAX_ELEMENTS: usize = 1 << 21;
