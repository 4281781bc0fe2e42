//! Tests of the index, by what they are about.

use packetboat_core::content::{ChunkList, ChunkRef, Content, FileContent};
use packetboat_core::ids::{ChunkId, ContentId, DeviceId, Dot, ItemId, PacketHash, Stamp};
use packetboat_core::item::{Head, Item, Placed};
use packetboat_core::knowledge::Learned;
use packetboat_core::local::{DirId, EntryState, Fingerprint, LocalEntry, Seen, View};
use packetboat_core::name::Name;

use super::samples::{dot, entry, item_id, name, stamp};
use super::*;

mod measure;
mod model;
mod plans;
mod round_trip;
mod sieve;
mod tables;
mod touched;
mod transactions;

fn placed(stamp: Stamp, parent: ItemId, text: &str) -> Placed {
    Placed { stamp, parent, name: name(text) }
}

fn new_item(id: ItemId, parent: ItemId, text: &str, content: Content) -> Item {
    let stamp = stamp(1, 1, 0);
    let head =
        Head { dot: stamp.dot(), lamport: stamp.lamport, time: 5, content, trail: Vec::new(), deletes: Vec::new() };
    Item::new(id, head, placed(stamp, parent, text))
}

fn file(id: [u8; 32], size: u32, mtime: i64) -> Content {
    let chunks = ChunkList::Inline(vec![ChunkRef { id: ChunkId(id), len: size }]);
    Content::File(FileContent { id: ContentId(id), size: u64::from(size), mtime, chunks })
}

fn learned(counter: u64) -> Learned {
    Learned { counter, hash: PacketHash([counter as u8; 32]) }
}
