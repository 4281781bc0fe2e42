//! Tests of what a checkpoint costs, on indexes that are filled without a disk.

use packetboat_core::body::PacketBody;
use packetboat_core::change::Change;
use packetboat_core::content::{ChunkList, ChunkRef, Content, FileContent, PackIndex, PackedChunk};
use packetboat_core::garbage::Garbage;
use packetboat_core::ids::{ChunkId, ContentId, DeviceId, ItemId, PackId, PacketHash, Stamp, VaultId};
use packetboat_core::item::{Head, Item, Placed};
use packetboat_core::keys::{DeviceKey, KeyRing, PublicKey, RootKey};
use packetboat_core::name::Name;
use packetboat_core::packet::Packet;
use packetboat_core::tree::{TreeRead, TreeWrite};
use packetboat_replica::index::PackState;
use packetboat_storage::memory::MemoryStore;

use super::*;
use crate::builder::{Draft, seal_own};
use crate::past::tests::Counting;
use crate::ports::Silent;

#[test]
fn an_edit_stores_one_item_segment_and_a_pack_stores_one_pack_segment_again() {
    check(20_000, 40, 512 * 1024);
}

#[test]
fn a_device_that_begins_anew_forgets_what_it_had_folded_of_garbage() {
    let mut index = Index::in_memory().unwrap();
    let mut record = Garbage::new();
    let stamp = Stamp { lamport: 1, device: DeviceId([9; 32]), counter: 1, index: 0 };
    let changes = vec![Change::Condemn { packs: vec![PackId([8; 32])], history: Knowledge::new() }];
    record.fold(&packet(stamp, changes), &Knowledge::new(), &BTreeSet::new());
    crate::garbage::store(&mut index, &record).unwrap();
    forget_folded(&mut index).unwrap();
    assert_eq!(crate::garbage::load(&index).unwrap(), Garbage::new());
}

#[test]
#[ignore = "takes a minute"]
fn an_edit_in_a_vault_of_a_million_files_costs_under_a_mebibyte() {
    check(1_000_000, 600, 1024 * 1024);
}

/// Writes a checkpoint of `items` files in `packs` packs, edits one file, stores one pack more, and writes another.
fn check(items: u32, packs: u32, limit: u64) {
    let ring = KeyRing::new(VaultId([7; 16]), RootKey([1; 32]));
    let keys = Keys { ring, device: DeviceKey::from_seed(&[9; 32]) };
    let (mut index, store, mut entropy) = (Index::temporary().unwrap(), MemoryStore::new(), Counting([3; 4], 0));
    let introduce = Change::Introduce { name: "first".to_owned(), exchange_key: [0; 32], continues: None };
    let draft = Draft { changes: vec![introduce], ..Draft::default() };
    seal_own(&mut index, &keys, 5, draft, &mut entropy).unwrap();
    index.begin().unwrap();
    (0..items).for_each(|n| index.put_item(&file(n, &keys.device.device())).unwrap());
    (0..packs).for_each(|n| index.put_pack(&pack(n, items / packs), PackState::Stored).unwrap());
    index.commit().unwrap();
    write::write(&mut index, &store, &keys, &mut entropy, &mut Silent).unwrap();
    let (first, first_size) = (held::root(&index).unwrap().unwrap(), store.size());

    let mut item = index.item(id(items / 2)).unwrap().unwrap();
    let Content::File(content) = &mut item.heads[0].content else { panic!("a file") };
    content.mtime += 1;
    index.put_item(&item).unwrap();
    index.put_pack(&pack(packs, 1), PackState::Stored).unwrap();
    write::write(&mut index, &store, &keys, &mut entropy, &mut Silent).unwrap();
    let (second, cost) = (held::root(&index).unwrap().unwrap(), store.size() - first_size);

    let new = second.segments.iter().filter(|segment| !first.segments.contains(segment)).count();
    println!("{} segments, {first_size} bytes; the next: {new} segments, {cost} bytes", first.segments.len());
    assert_eq!(new, 2, "one of items, one of packs");
    assert!(cost < limit, "{cost} bytes");
    for segment in second.segments.iter().flat_map(|segment| &segment.chunks) {
        assert_ne!(segment.sealed_len, 0, "every chunk has a place");
    }
}

fn id(n: u32) -> ItemId {
    ItemId([5; 16]).successor(n)
}

fn hash(kind: u8, n: u32) -> [u8; 32] {
    DeviceKey::from_seed(&std::array::from_fn(|at| if at == 0 { kind } else { n.to_le_bytes()[at % 4] })).device().0
}

fn file(n: u32, device: &DeviceId) -> Item {
    let stamp = Stamp { lamport: 1, device: *device, counter: 1, index: n };
    let (id, content) = (id(n), ContentId(hash(1, n)));
    let chunks = ChunkList::Inline(vec![ChunkRef { id: ChunkId(content.0), len: 4000 }]);
    let mtime = 1_700_000_000_000_000_000 + i64::from(n) * 1_234_567_891;
    let content = Content::File(FileContent { id: content, size: 4000, mtime, chunks });
    let head = Head { dot: stamp.dot(), lamport: 1, time: 5, content, trail: Vec::new(), deletes: Vec::new() };
    let name = Name::new(format!("a file of some name {n}.txt")).unwrap();
    Item::new(id, head, Placed { stamp, parent: ItemId::ROOT, name })
}

fn packet(stamp: Stamp, changes: Vec<Change>) -> Packet {
    let (prerequisite, needs, packs, inline) = (Knowledge::new(), Vec::new(), Vec::new(), Vec::new());
    let body = PacketBody { lamport: stamp.lamport, time: 0, prerequisite, needs, packs, inline, changes };
    let (hash, previous, author) = (PacketHash([1; 32]), PacketHash([0; 32]), PublicKey(stamp.device.0));
    Packet { dot: stamp.dot(), hash, previous, author, epoch: 0, body }
}

fn pack(n: u32, chunks: u32) -> PackIndex {
    let chunks = (0..chunks).map(|at| PackedChunk {
        id: ChunkId(hash(2, n * 5000 + at)),
        offset: 26 + 4000 * at,
        sealed_len: 4000,
    });
    PackIndex { pack: PackId(hash(3, n)), epoch: 0, size: 24_000_000, chunks: chunks.collect() }
}
