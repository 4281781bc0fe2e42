//! Items and entries come back as they were written, and damage is an error.

use std::collections::BTreeMap;

use packetboat_core::change::Mark;
use packetboat_core::item::{Placement, Register};
use packetboat_core::local::{LocalRead, Twin};
use packetboat_core::tree::{ChildCursor, TreeRead, TreeWrite};
use proptest::collection::{btree_map, vec};
use proptest::option;
use proptest::prelude::*;

use super::*;

fn any_name() -> impl Strategy<Value = Name> {
    vec(any::<u8>(), 1..12).prop_filter_map("unsound", Name::new)
}

fn any_item_id() -> impl Strategy<Value = ItemId> {
    prop_oneof![(0u32..1000).prop_map(item_id), any::<[u8; 16]>().prop_map(ItemId)]
}

fn any_dot() -> impl Strategy<Value = Dot> {
    (0u8..5, prop_oneof![0u64..100, any::<u64>()]).prop_map(|(device, counter)| dot(device, counter))
}

fn any_stamp() -> impl Strategy<Value = Stamp> {
    (any_dot(), any::<u64>(), any::<u32>()).prop_map(|(Dot { device, counter }, lamport, index)| Stamp {
        lamport,
        device,
        counter,
        index,
    })
}

fn any_content() -> impl Strategy<Value = Content> {
    let chunk = (any::<[u8; 32]>(), any::<u32>()).prop_map(|(id, len)| ChunkRef { id: ChunkId(id), len });
    let chunks = (any::<bool>(), vec(chunk, 0..4));
    let several = (any::<[u8; 32]>(), any::<u64>(), any::<i64>(), chunks).prop_map(|(id, size, mtime, chunks)| {
        let chunks = if chunks.0 { ChunkList::Indirect(chunks.1) } else { ChunkList::Inline(chunks.1) };
        Content::File(FileContent { id: ContentId(id), size, mtime, chunks })
    });
    prop_oneof![
        Just(Content::Directory),
        vec(any::<u8>(), 0..20).prop_map(Content::Symlink),
        (any::<[u8; 32]>(), any::<u32>(), any::<i64>()).prop_map(|(id, size, mtime)| file(id, size, mtime)),
        several,
    ]
}

fn any_head() -> impl Strategy<Value = Head> {
    let trail =
        vec((any_dot(), any::<u64>()).prop_map(|(dot, lamport)| Mark { dot, lamport, time: lamport as i64 }), 0..3);
    (any_dot(), any::<u64>(), any::<i64>(), any_content(), trail, vec(any_dot(), 0..3))
        .prop_map(|(dot, lamport, time, content, trail, deletes)| Head { dot, lamport, time, content, trail, deletes })
}

fn any_placed() -> impl Strategy<Value = Placed> {
    (any_stamp(), any_item_id(), any_name()).prop_map(|(stamp, parent, name)| Placed { stamp, parent, name })
}

fn any_item() -> impl Strategy<Value = Item> {
    let placement = (any_placed(), vec(any_dot(), 0..3)).prop_map(|(placed, deletes)| Placement { placed, deletes });
    let mode = option::of((any_stamp(), any::<u32>()).prop_map(|(stamp, value)| Register { stamp, value }));
    let value = option::of(vec(any::<u8>(), 0..9));
    let register = (any_stamp(), value).prop_map(|(stamp, value)| Register { stamp, value });
    let general = (
        any_item_id(),
        (vec(any_head(), 1..4), vec(placement, 1..4)),
        option::of(any_placed()),
        mode,
        btree_map(vec(any::<u8>(), 0..9), register, 0..3),
        vec(any_dot(), 0..3),
    )
        .prop_map(|(id, (heads, placements), at, mode, xattrs, deletes)| {
            let at = at.unwrap_or_else(|| placements[0].placed.clone());
            Item { id, heads, placements, at, mode, xattrs, deletes }
        });
    let plain = (any_item_id(), any_placed(), any_content(), any::<i64>(), option::of(any::<u32>())).prop_map(
        |(id, placed, content, time, mode)| {
            let stamp = placed.stamp;
            let trail = Vec::new();
            let head = Head { dot: stamp.dot(), lamport: stamp.lamport, time, content, trail, deletes: Vec::new() };
            let mut item = Item::new(id, head, placed);
            item.mode = mode.map(|value| Register { stamp, value });
            item
        },
    );
    prop_oneof![general, plain]
}

fn any_entry() -> impl Strategy<Value = LocalEntry> {
    let stat = (any::<u64>(), any::<i64>(), any::<i64>(), any::<u64>(), any::<i64>(), any::<u32>());
    let stat = (stat, any::<bool>()).prop_map(|((size, mtime, ctime, inode, btime, mode), has_btime)| {
        let btime = if has_btime { btime } else { 0 };
        Fingerprint { size, mtime, ctime, inode, btime, mode }
    });
    let state = prop_oneof![
        Just(EntryState::Settled),
        Just(EntryState::Racy),
        Just(EntryState::Frozen),
        (0u64..9, any_name()).prop_map(|(dir, name)| EntryState::Parked { dir: DirId(dir), name }),
    ];
    let view = prop_oneof![
        Just(View::Plain),
        Just(View::Copy),
        Just(View::Displaced),
        any_name().prop_map(|shown| View::Mapped { shown })
    ];
    let dots = || vec(any_dot(), 0..3);
    let twin = (any_item_id(), dots(), dots()).prop_map(|(item, heads, placements)| Twin { item, heads, placements });
    let seen = (any_item_id(), dots(), dots(), view, vec(twin, 0..2))
        .prop_map(|(item, heads, placements, view, twins)| Seen { item, heads, placements, view, twins });
    let plain = (any_item_id(), any_dot()).prop_map(|(item, dot)| Seen {
        item,
        heads: vec![dot],
        placements: vec![dot],
        view: View::Plain,
        twins: Vec::new(),
    });
    let place = (0u64..9, any_name(), option::of(10u64..99));
    let xattrs = vec((vec(any::<u8>(), 0..5), vec(any::<u8>(), 0..5)), 0..2);
    let mode = (option::of(any::<u32>()), any::<bool>());
    (place, prop_oneof![seen, plain], mode, xattrs, stat, state).prop_map(
        |((dir, name, own_dir), seen, (mode, same), xattrs, stat, state)| LocalEntry {
            dir: DirId(dir),
            name,
            own_dir: own_dir.map(DirId),
            seen,
            mode: if same { Some(stat.mode) } else { mode },
            xattrs,
            stat,
            state,
        },
    )
}

proptest! {
    #![proptest_config(ProptestConfig { cases: ProptestConfig::default().cases / 2, failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn an_item_comes_back_as_it_was_put(items in vec(any_item(), 1..8)) {
        let mut index = Index::in_memory().unwrap();
        let mut model = BTreeMap::new();
        for item in items {
            index.put_item(&item).unwrap();
            model.insert(item.id, item);
        }
        for (id, item) in &model {
            let found = index.named(item.at.parent, &item.at.name).unwrap();
            prop_assert!(found.contains(id));
            prop_assert_eq!(index.item(*id).unwrap(), Some(item.clone()));
        }
        index.directories.borrow_mut().clear();
        for (id, item) in &model {
            prop_assert_eq!(index.item(*id).unwrap(), Some(item.clone()));
        }
    }

    #[test]
    fn an_entry_comes_back_as_it_was_put(entries in vec(any_entry(), 1..8)) {
        let mut index = Index::in_memory().unwrap();
        let mut model = BTreeMap::new();
        for entry in entries {
            index.put_entry(&entry).unwrap();
            model.insert((entry.dir, entry.name.clone()), entry);
        }
        for ((dir, name), entry) in &model {
            prop_assert_eq!(index.entry_at(*dir, name).unwrap(), Some(entry.clone()));
            let mut scanned = None;
            index.for_each_fingerprint(*dir, |found| {
                if found.name == name.as_bytes() {
                    scanned = Some((found.own_dir, found.stat, found.state));
                }
                Ok::<_, IndexError>(())
            }).unwrap();
            prop_assert_eq!(scanned, Some((entry.own_dir, entry.stat, entry.state.clone())));
        }
    }

    #[test]
    fn damaged_rows_are_errors_and_never_panics(
        item in any_item(),
        entry in any_entry(),
        garbage in vec(any::<u8>(), 0..60),
        at in any::<prop::sample::Index>(),
        bit in 0u8..8,
    ) {
        let mut index = Index::in_memory().unwrap();
        index.put_item(&item).unwrap();
        index.put_entry(&entry).unwrap();
        for (table, column) in [("item", "state"), ("local", "data")] {
            let whole: Vec<u8> =
                index.sql.query_row(&format!("SELECT {column} FROM {table}"), [], |row| row.get(0)).unwrap();
            let mut flipped = whole.clone();
            flipped[at.index(whole.len())] ^= 1 << bit;
            let cut = whole[..at.index(whole.len())].to_vec();
            for (bytes, must_fail) in [(garbage.clone(), false), (flipped, false), (cut, true)] {
                index.sql.execute(&format!("UPDATE {table} SET {column} = ?1"), [bytes]).unwrap();
                index.directories.borrow_mut().clear();
                let failed = match table {
                    "item" => index.item(item.id).err(),
                    _ => index.entry_at(entry.dir, &entry.name).err(),
                };
                prop_assert!(matches!(failed, None | Some(IndexError::Damaged { .. })), "{:?}", failed);
                prop_assert!(!must_fail || failed.is_some());
            }
        }
    }
}

#[test]
fn numbers_that_name_nothing_are_damage() {
    let mut index = Index::in_memory().unwrap();
    index.put_item(&new_item(item_id(1), ItemId::ROOT, "a", file([1; 32], 5, 5))).unwrap();
    index.sql.execute("UPDATE item SET parent = 1 << 40", []).unwrap();
    assert!(matches!(index.item(item_id(1)), Err(IndexError::Damaged { .. })));
    index.sql.execute("UPDATE item SET parent = 'text', name = 7", []).unwrap();
    assert!(matches!(index.item(item_id(1)), Err(IndexError::Damaged { .. })));
    assert!(index.children(ItemId::ROOT, Some(ChildCursor(vec![1])), 9).is_err());
}
