//! What of an index goes with history and what stays, over items made by hand.
//!
//! History begins at packet 5 of one device in all cases.

use packetboat_core::content::Content;
use packetboat_core::ids::{Counter, DeviceId, PacketHash, Stamp};
use packetboat_core::item::{Head, Item, Placed};
use packetboat_core::knowledge::Learned;
use packetboat_core::local::{DirId, EntryState, Fingerprint, LocalEntry, Seen, View};
use packetboat_core::name::Name;
use packetboat_core::tree::{MoveRecord, TreeWrite};

use super::*;

const DEVICE: DeviceId = DeviceId([1; 32]);
const BEGINS: Counter = 5;
const DIRECTORY: ItemId = ItemId([2; 16]);
const CHILD: ItemId = ItemId([3; 16]);

/// Sweeps an index in which all is as it was where history begins, and so in the past; what `change` makes came later.
fn swept(items: &[Item], change: impl FnOnce(&mut Index)) -> Index {
    let (mut index, mut past) = (Index::in_memory().unwrap(), Index::in_memory().unwrap());
    for item in items {
        index.put_item(item).unwrap();
        past.put_item(item).unwrap();
    }
    change(&mut index);
    let mut history = Knowledge::new();
    history.advance(DEVICE, Learned { counter: BEGINS, hash: PacketHash([4; 32]) });
    sweep(&mut index, &history, &past).unwrap();
    index
}

fn dot_at(counter: Counter) -> Dot {
    Dot { device: DEVICE, counter }
}

fn head(counter: Counter, content: Content) -> Head {
    Head { dot: dot_at(counter), lamport: counter, time: 0, content, trail: Vec::new(), deletes: Vec::new() }
}

fn placed(counter: Counter, parent: ItemId, name: &str) -> Placed {
    let stamp = Stamp { lamport: counter, device: DEVICE, counter, index: 0 };
    Placed { stamp, parent, name: Name::new(name.as_bytes()).unwrap() }
}

/// An item whose delete was folded before history begins.
fn dead(id: ItemId, content: Content, parent: ItemId) -> Item {
    let mut item = Item::new(id, head(2, content), placed(2, parent, "gone"));
    let delete = dot_at(3);
    item.heads[0].deletes.push(delete);
    item.placements[0].deletes.push(delete);
    item.deletes.push(delete);
    item
}

fn directory() -> Item {
    dead(DIRECTORY, Content::Directory, ItemId::ROOT)
}

fn link() -> Content {
    Content::Symlink(b"target".to_vec())
}

/// This disk shows these versions of an item.
fn show(index: &mut Index, item: ItemId, head: Counter, placement: Counter) {
    let seen = Seen {
        item,
        heads: vec![dot_at(head)],
        placements: vec![dot_at(placement)],
        view: View::Plain,
        twins: Vec::new(),
    };
    let entry = LocalEntry {
        dir: DirId::ROOT,
        name: Name::new(*b"here").unwrap(),
        own_dir: None,
        seen,
        mode: None,
        xattrs: Vec::new(),
        stat: Fingerprint::default(),
        state: EntryState::Settled,
    };
    index.put_entry(&entry).unwrap();
}

fn is_there(index: &Index, item: ItemId) -> bool {
    index.item(item).unwrap().is_some()
}

#[test]
fn what_this_disk_still_shows_stays_however_old_it_is() {
    let item = || Item::new(CHILD, head(4, link()), placed(4, ItemId::ROOT, "name"));
    let (content, place) = (Past::Content(head(1, link())), Past::Placed(placed(2, ItemId::ROOT, "former")));
    let replaced = |index: &mut Index| {
        for past in [&content, &place] {
            index.put_history(CHILD, past).unwrap();
        }
    };
    let index = swept(&[item()], replaced);
    assert_eq!(index.history_of(CHILD).unwrap(), [], "it was replaced before history begins");
    let index = swept(&[item()], |index| {
        replaced(index);
        show(index, CHILD, 1, 4);
    });
    assert_eq!(index.history_of(CHILD).unwrap(), std::slice::from_ref(&content));
    let index = swept(&[item()], |index| {
        replaced(index);
        show(index, CHILD, 4, 2);
    });
    assert_eq!(index.history_of(CHILD).unwrap(), std::slice::from_ref(&place));
}

#[test]
fn a_dead_item_goes_once_no_disk_shows_it() {
    let item = || dead(CHILD, link(), ItemId::ROOT);
    assert!(!is_there(&swept(&[item()], |_| {}), CHILD));
    assert!(is_there(&swept(&[item()], |index| show(index, CHILD, 2, 2)), CHILD));
}

#[test]
fn a_dead_directory_goes_after_what_lies_in_it() {
    let items = || [directory(), dead(CHILD, link(), DIRECTORY)];
    let index = swept(&items(), |_| {});
    assert!(!is_there(&index, DIRECTORY) && !is_there(&index, CHILD));
    let index = swept(&items(), |index| show(index, CHILD, 2, 2));
    assert!(is_there(&index, DIRECTORY) && is_there(&index, CHILD), "this disk shows what lies in it");
}

#[test]
fn a_dead_directory_at_which_a_late_move_may_look_stays() {
    let elsewhere = ItemId([7; 16]);
    let moved = |item, to, before| {
        move |index: &mut Index| {
            let record =
                MoveRecord { item, to: placed(6, to, "to"), before: placed(2, before, "before"), passed_over: false };
            index.put_move(&record).unwrap();
        }
    };
    assert!(is_there(&swept(&[directory()], moved(DIRECTORY, ItemId::ROOT, ItemId::ROOT)), DIRECTORY));
    assert!(is_there(&swept(&[directory()], moved(elsewhere, DIRECTORY, ItemId::ROOT)), DIRECTORY));
    assert!(is_there(&swept(&[directory()], moved(elsewhere, ItemId::ROOT, DIRECTORY)), DIRECTORY));
    assert!(!is_there(&swept(&[directory()], moved(elsewhere, ItemId::ROOT, ItemId::ROOT)), DIRECTORY));
}
