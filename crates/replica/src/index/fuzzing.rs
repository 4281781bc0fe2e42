//! A door for the fuzz targets: what is read back from the rows of an index.
//!
//! SQLite keeps no checksums, so a row may hold anything that a failing disk made of it.
//! Compiled with the feature `fuzzing` alone, which nothing that is shipped asks for.

use std::collections::BTreeMap;

use packetboat_core::content::{ChunkList, ChunkRef, Content, FileContent, PackedChunk};
use packetboat_core::ids::{ChunkId, ContentId, Dot};
use packetboat_core::item::{Head, Item, Placed, Placement, Register};
use packetboat_core::local::{DirId, EntryState, LocalEntry, Twin, View};

use super::chunks::{decode_part, encode_part};
use super::content_code::{Decoder, Encoder};
use super::entry_code::{decode_entry, decode_front, encode_entry};
use super::item_code::{decode_item, encode_item};
use super::packets::{decode_summary, encode_summary};
use super::samples::{dot, entry, item_id, name, stamp};
use super::{Index, IndexError};

/// An index that has given some numbers, and reads rows.
pub struct Rows {
    index: Index,
}

impl Rows {
    /// An index in memory in which the numbers of three devices and five items are given.
    pub fn new() -> Result<Self, IndexError> {
        let index = Index::in_memory()?;
        let mut encoder = Encoder::new(&index.sql, &index.numbers);
        for number in 0..3 {
            encoder.dot(&dot(number, 1))?;
        }
        for number in 0..5 {
            encoder.item(item_id(number))?;
        }
        Ok(Self { index })
    }

    /// Reads `row`, whose first byte says of which table it is; says whether it was understood.
    ///
    /// What was understood is the same when it is written and read again.
    pub fn read(&self, row: &[u8]) -> bool {
        let Some((table, data)) = row.split_first() else { return false };
        match table {
            0 => self.item(data),
            1 => self.entry(data),
            2 => part(data),
            3 => summary(data),
            _ => self.index.decode_past(i64::from(*table) - 4, data).is_ok(),
        }
    }

    /// One row of each kind, as the index writes it.
    pub fn samples(&self) -> Result<Vec<Vec<u8>>, IndexError> {
        let mut samples = Vec::new();
        for item in [plain_item(), worn_item()] {
            let mut encoder = self.encoder();
            encode_item(&item, &mut encoder)?;
            samples.push([&[0], encoder.out.finish().as_slice()].concat());
        }
        for entry in [plain_entry(), worn_entry()] {
            let mut encoder = self.encoder();
            encode_entry(&entry, &mut encoder)?;
            samples.push([&[1], encoder.out.finish().as_slice()].concat());
        }
        samples.push(vec![3, 1, 2, 3, 4, 5]);
        samples.push([&[2], encode_part(&[packed(1, 0), packed(2, 50)]).as_slice()].concat());
        let mut content = self.encoder();
        content.head(&worn_item().heads[0])?;
        samples.push([&[4], content.out.finish().as_slice()].concat());
        let mut placed = self.encoder();
        placed.stamp(&stamp(1, 1, 0))?;
        placed.item(item_id(2))?;
        placed.out.bytes(b"before");
        samples.push([&[5], placed.out.finish().as_slice()].concat());
        let mut mode = self.encoder();
        mode.stamp(&stamp(1, 1, 0))?;
        mode.out.varint(0o600);
        samples.push([&[6], mode.out.finish().as_slice()].concat());
        Ok(samples)
    }

    fn encoder(&self) -> Encoder<'_> {
        Encoder::new(&self.index.sql, &self.index.numbers)
    }

    fn decoder<'a>(&'a self, data: &'a [u8]) -> Decoder<'a> {
        Decoder::new(&self.index.sql, &self.index.numbers, data)
    }

    fn item(&self, data: &[u8]) -> bool {
        let read = |data| decode_item(item_id(0), item_id(1), name("a"), self.decoder(data));
        let Ok(item) = read(data) else { return false };
        let mut encoder = self.encoder();
        encode_item(&item, &mut encoder).expect("what was read has numbers");
        assert_eq!(read(&encoder.out.finish()).expect("what was written is read"), item);
        true
    }

    fn entry(&self, data: &[u8]) -> bool {
        let read = |data| decode_entry(DirId::ROOT, name("a"), item_id(0), self.decoder(data));
        let Ok(entry) = read(data) else { return false };
        let front = decode_front(data).expect("a scan reads what the rest reads");
        assert_eq!((front.own_dir, front.stat, &front.state), (entry.own_dir, entry.stat, &entry.state));
        let mut encoder = self.encoder();
        encode_entry(&entry, &mut encoder).expect("what was read has numbers");
        assert_eq!(read(&encoder.out.finish()).expect("what was written is read"), entry);
        true
    }
}

fn part(data: &[u8]) -> bool {
    let Ok(chunks) = decode_part(data).collect::<Result<Vec<_>, _>>() else { return false };
    let again: Vec<_> = decode_part(&encode_part(&chunks)).collect::<Result<_, _>>().expect("what was written is read");
    assert_eq!(again, chunks);
    true
}

fn summary(data: &[u8]) -> bool {
    let Ok(summary) = decode_summary(data) else { return false };
    assert_eq!(decode_summary(&encode_summary(&summary)).expect("what was written is read"), summary);
    true
}

fn file(chunks: ChunkList, size: u64) -> Content {
    Content::File(FileContent { id: ContentId([3; 32]), size, mtime: 7, chunks })
}

fn packed(id: u8, offset: u32) -> PackedChunk {
    PackedChunk { id: ChunkId([id; 32]), offset, sealed_len: 50 }
}

fn head(content: Content, deletes: Vec<Dot>) -> Head {
    let stamp = stamp(1, 1, 0);
    Head { dot: stamp.dot(), lamport: stamp.lamport, time: 5, content, trail: Vec::new(), deletes }
}

fn plain_item() -> Item {
    let placed = Placed { stamp: stamp(1, 1, 0), parent: item_id(1), name: name("a") };
    Item::new(item_id(0), head(Content::Directory, Vec::new()), placed)
}

/// An item of which everything is said that can be said of one.
fn worn_item() -> Item {
    let mut item = plain_item();
    let chunks = vec![ChunkRef { id: ChunkId([1; 32]), len: 9 }, ChunkRef { id: ChunkId([2; 32]), len: 8 }];
    item.heads = vec![head(file(ChunkList::Inline(chunks), 17), vec![dot(2, 3)])];
    let elsewhere = Placed { stamp: stamp(2, 2, 0), parent: item_id(2), name: name("b") };
    item.placements.push(Placement { placed: elsewhere, deletes: vec![dot(0, 4)] });
    item.mode = Some(Register { stamp: stamp(2, 2, 0), value: 0o644 });
    item.xattrs = BTreeMap::from([
        (b"user.kept".to_vec(), Register { stamp: stamp(1, 1, 0), value: Some(b"x".to_vec()) }),
        (b"user.removed".to_vec(), Register { stamp: stamp(2, 2, 0), value: None }),
    ]);
    item.deletes = vec![dot(1, 5)];
    item
}

fn plain_entry() -> LocalEntry {
    entry(DirId::ROOT, "a", item_id(0))
}

/// An entry of which everything is said that can be said of one.
fn worn_entry() -> LocalEntry {
    let mut entry = plain_entry();
    entry.own_dir = Some(DirId(5));
    entry.mode = Some(0o600);
    entry.state = EntryState::Parked { dir: DirId(9), name: name("waiting") };
    entry.xattrs = vec![(b"user.x".to_vec(), b"y".to_vec())];
    entry.seen.view = View::Mapped { shown: name("shown") };
    entry.seen.twins = vec![Twin { item: item_id(3), heads: vec![dot(2, 2)], placements: vec![dot(2, 2)] }];
    entry
}
