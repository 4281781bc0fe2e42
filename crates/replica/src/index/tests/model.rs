//! Random sequences of writes keep the index equal to maps in memory.

use std::collections::BTreeMap;

use packetboat_core::local::LocalRead;
use packetboat_core::tree::{TreeRead, TreeWrite};
use proptest::collection::vec;
use proptest::prelude::*;

use super::*;

#[derive(Clone, Debug)]
enum Step {
    /// Puts an item at a place, whether or not it stood elsewhere.
    Item {
        item: u32,
        parent: u32,
        name: u8,
        directory: bool,
    },
    /// Puts an entry for an item, which may be unknown.
    Entry {
        dir: u64,
        name: u8,
        item: u32,
        own: Option<u64>,
    },
    Remove {
        dir: u64,
        name: u8,
    },
    Move {
        from: (u64, u8),
        to: (u64, u8),
    },
    Stat {
        dir: u64,
        name: u8,
        inode: u64,
    },
    Begin,
    Commit,
    Rollback,
}

fn any_step() -> impl Strategy<Value = Step> {
    let place = || (0u64..3, 0u8..4);
    let entry = (place(), 0u32..6, prop::option::of(2u64..5));
    prop_oneof![
        6 => (0u32..6, 0u32..4, 0u8..4, any::<bool>())
            .prop_map(|(item, parent, name, directory)| Step::Item { item, parent, name, directory }),
        8 => entry.prop_map(|((dir, name), item, own)| Step::Entry { dir, name, item, own }),
        3 => place().prop_map(|(dir, name)| Step::Remove { dir, name }),
        4 => (place(), place()).prop_map(|(from, to)| Step::Move { from, to }),
        2 => (place(), 0u64..3).prop_map(|((dir, name), inode)| Step::Stat { dir, name, inode }),
        2 => Just(Step::Begin),
        1 => Just(Step::Commit),
        1 => Just(Step::Rollback),
    ]
}

#[derive(Clone, Default, Debug)]
struct Model {
    items: BTreeMap<ItemId, Item>,
    entries: BTreeMap<(DirId, Name), LocalEntry>,
    knowledge: Knowledge,
}

fn letter(n: u8) -> Name {
    name(&char::from(b'a' + n).to_string())
}

/// Items lie far apart, so that each has a block of its own.
fn far(n: u32) -> ItemId {
    if n == 0 { ItemId::ROOT } else { ItemId([n as u8; 16]) }
}

fn apply(index: &mut Index, model: &mut Model, saved: &mut Vec<Model>, step: &Step, n: u64) {
    match step {
        Step::Item { item, parent, name, directory } => {
            let content = if *directory { Content::Directory } else { file([1; 32], 5, 5) };
            let mut item = new_item(far(item + 10), far(*parent), "x", content);
            item.at = Placed { stamp: stamp(n as u8, n, 0), parent: far(*parent), name: letter(*name) };
            item.placements[0].placed = item.at.clone();
            index.put_item(&item).unwrap();
            index.advance_lane(DeviceId([n as u8; 32]), learned(n + 1), n, &model.knowledge).unwrap();
            model.knowledge.advance(DeviceId([n as u8; 32]), learned(n + 1));
            model.items.insert(item.id, item);
        }
        Step::Entry { dir, name, item, own } => {
            // A directory's number stands in one place: the model moves it by hand.
            let own = own.filter(|own| {
                let place = (DirId(*dir), letter(*name));
                model.entries.iter().all(|(at, entry)| entry.own_dir != Some(DirId(*own)) || *at == place)
            });
            let mut new = entry(DirId(*dir), "x", far(item + 10));
            (new.name, new.own_dir, new.stat.inode) = (letter(*name), own.map(DirId), n);
            index.put_entry(&new).unwrap();
            model.entries.insert((new.dir, new.name.clone()), new);
        }
        Step::Remove { dir, name } => {
            let removed = index.remove_entry(DirId(*dir), &letter(*name)).unwrap();
            assert_eq!(removed, model.entries.remove(&(DirId(*dir), letter(*name))).is_some());
        }
        Step::Move { from, to } => {
            let (from, to) = ((DirId(from.0), letter(from.1)), (DirId(to.0), letter(to.1)));
            let moved = index.move_entry((from.0, &from.1), (to.0, &to.1)).unwrap();
            let entry = model.entries.remove(&from);
            assert_eq!(moved, entry.is_some());
            if let Some(mut entry) = entry {
                (entry.dir, entry.name) = to.clone();
                model.entries.insert(to, entry);
            }
        }
        Step::Stat { dir, name, inode } => {
            let stat = Fingerprint { inode: *inode, btime: 4, mode: 0o600, ..Default::default() };
            let known = index.set_fingerprint(DirId(*dir), &letter(*name), &stat, &EntryState::Racy).unwrap();
            let entry = model.entries.get_mut(&(DirId(*dir), letter(*name)));
            assert_eq!(known, entry.is_some());
            if let Some(entry) = entry {
                (entry.stat, entry.state) = (stat, EntryState::Racy);
            }
        }
        Step::Begin => {
            index.begin().unwrap();
            saved.push(model.clone());
        }
        Step::Commit if saved.pop().is_some() => index.commit().unwrap(),
        Step::Commit => {}
        Step::Rollback => {
            index.rollback().unwrap();
            if let Some(before) = saved.pop() {
                *model = before;
            }
        }
    }
}

fn compare(index: &Index, model: &Model) {
    assert_eq!(index.knowledge(), &model.knowledge);
    assert_eq!(index.load_knowledge().unwrap(), model.knowledge);
    assert_eq!(index.count_items().unwrap(), model.items.len() as u64);
    assert_eq!(index.count_entries().unwrap(), model.entries.len() as u64);
    for item in (10..16).map(far) {
        assert_eq!(index.item(item).unwrap().as_ref(), model.items.get(&item));
        let entries: Vec<_> = model.entries.values().filter(|entry| entry.seen.item == item).cloned().collect();
        assert_eq!(index.entries_of(item).unwrap(), entries, "entries of {item:?}");
    }
    for parent in (0..4).map(far) {
        let beneath = |item: &&Item| item.at.parent == parent;
        let mut children: Vec<_> = model.items.values().filter(beneath).map(|item| item.id).collect();
        let (mut found, mut after) = (Vec::new(), None);
        while let [.., (last, _)] = &index.children(parent, after.clone(), 2).unwrap()[..] {
            let page = index.children(parent, after, 2).unwrap();
            found.extend(page.iter().map(|(_, child)| *child));
            after = Some(last.clone());
        }
        found.sort_unstable();
        children.sort_unstable();
        assert_eq!(found, children);
        for name in (0..4).map(letter) {
            let named: Vec<_> =
                model.items.values().filter(beneath).filter(|item| item.at.name == name).map(|item| item.id).collect();
            assert_eq!(index.named(parent, &name).unwrap(), named);
        }
    }
    for dir in (0..5).map(DirId) {
        let entries: Vec<_> = model.entries.values().filter(|entry| entry.dir == dir).cloned().collect();
        assert_eq!(index.entries_in(dir, None, 99).unwrap(), entries);
        if let [first, rest @ ..] = &entries[..] {
            assert_eq!(index.entries_in(dir, Some(&first.name), 1).unwrap(), rest[..rest.len().min(1)]);
        }
        let own = model.entries.values().find(|entry| entry.own_dir == Some(dir));
        assert_eq!(index.directory(dir).unwrap().as_ref(), own);
        if let Some(own) = own {
            let found = index.dir_by_inode(own.stat.inode, own.stat.btime).unwrap().unwrap();
            assert_eq!((found.stat.inode, found.stat.btime), (own.stat.inode, own.stat.btime));
        }
        for name in (0..4).map(letter) {
            let entry = model.entries.get(&(dir, name.clone()));
            assert_eq!(index.entry_at(dir, &name).unwrap().as_ref(), entry);
        }
    }
    let promised: i64 = index
        .sql
        .query_row("SELECT (SELECT count(*) FROM stray) + (SELECT count(*) FROM item WHERE dir > -1)", [], |row| {
            row.get(0)
        })
        .unwrap();
    assert_eq!(promised, model.entries.len() as i64, "each entry is found in one way");
    let directories: i64 = index.sql.query_row("SELECT count(*) FROM dir", [], |row| row.get(0)).unwrap();
    assert_eq!(directories, model.entries.values().filter(|entry| entry.own_dir.is_some()).count() as i64);
}

proptest! {
    #![proptest_config(ProptestConfig { cases: ProptestConfig::default().cases / 6, failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn the_index_equals_a_model_after_every_step(steps in vec(any_step(), 1..40)) {
        let mut index = Index::in_memory().unwrap();
        let (mut model, mut saved) = (Model::default(), Vec::new());
        for (n, step) in steps.iter().enumerate() {
            apply(&mut index, &mut model, &mut saved, step, n as u64);
            compare(&index, &model);
        }
        while let Some(before) = saved.pop() {
            index.rollback().unwrap();
            compare(&index, &before);
        }
    }
}
