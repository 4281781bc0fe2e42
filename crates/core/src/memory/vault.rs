//! A vault in memory that several devices change, for tests of what a disk makes of it.
//!
//! Each packet is folded when it is made, and is later than all before it; what its author had not seen, it does not name.
//! Contents are symlinks: they are the shortest to write, and nothing here looks inside.

use std::collections::{BTreeMap, BTreeSet};

use super::MemoryTree;
use crate::body::PacketBody;
use crate::change::{Change, Mark, Removed};
use crate::content::Content;
use crate::ids::{Counter, DeviceId, Dot, ItemId, Lamport, PacketHash};
use crate::keys::PublicKey;
use crate::knowledge::Knowledge;
use crate::local::Seen;
use crate::name::Name;
use crate::packet::Packet;
use crate::plan::{HistoryRead, seen_of};
use crate::publish::created;
use crate::tree::{Folding, TreeRead, fold_packet};
use crate::view::{Shown, Viewer};

/// What all devices have published.
#[derive(Default)]
pub(crate) struct Vault {
    tree: MemoryTree,
    counters: BTreeMap<u8, Counter>,
    lamport: Lamport,
    items: u32,
}

impl Vault {
    pub(crate) fn tree(&self) -> &MemoryTree {
        &self.tree
    }

    /// The items touched since this was last called.
    pub(crate) fn take_touched(&mut self) -> BTreeSet<ItemId> {
        self.tree.take_touched()
    }

    /// An id that no item has.
    pub(crate) fn new_item(&mut self) -> ItemId {
        self.items += 1;
        ItemId([0xee; 16]).successor(self.items)
    }

    /// A device publishes changes as one packet.
    pub(crate) fn publish(&mut self, device: u8, changes: Vec<Change>) -> Dot {
        crate::change::check_changes(&changes).expect("sound changes");
        let counter = self.counters.entry(device).or_default();
        *counter += 1;
        self.lamport += 1;
        let dot = Dot { device: DeviceId([device; 32]), counter: *counter };
        let body = PacketBody {
            lamport: self.lamport,
            time: 0,
            prerequisite: Knowledge::new(),
            needs: Vec::new(),
            packs: Vec::new(),
            inline: Vec::new(),
            changes,
        };
        let zeros = PacketHash([0; 32]);
        let packet = Packet { dot, hash: zeros, previous: zeros, author: PublicKey(dot.device.0), epoch: 0, body };
        fold_packet(&mut self.tree, &packet, Folding::Other).expect("memory does not fail");
        dot
    }

    /// A device makes an object; what it has seen of it then.
    pub(crate) fn create(&mut self, device: u8, parent: ItemId, name: &str, content: Content) -> Seen {
        let item = self.new_item();
        let create = Change::Create { item, parent, name: named(name), content, mode: None, xattrs: Vec::new() };
        created(item, self.publish(device, vec![create]))
    }

    /// A device that has seen this writes something else; what it has seen then.
    pub(crate) fn edit(&mut self, device: u8, seen: &Seen, target: &str) -> Seen {
        let trail = match seen.heads.last() {
            Some(dot) => {
                let head = self.tree.version(seen.item, dot).expect("memory does not fail").expect("a version");
                let first = Mark { dot: head.dot, lamport: head.lamport, time: head.time };
                [first].into_iter().chain(head.trail).collect()
            }
            None => Vec::new(),
        };
        let replaces = seen.heads.clone();
        let change = Change::Content { item: seen.item, content: text(target), replaces, trail };
        Seen { heads: vec![self.publish(device, vec![change])], ..seen.clone() }
    }

    /// A device that has seen this moves it; what it has seen then.
    pub(crate) fn place(&mut self, device: u8, seen: &Seen, parent: ItemId, name: &str) -> Seen {
        let replaces = seen.placements.clone();
        let change = Change::Place { item: seen.item, parent, name: named(name), replaces };
        Seen { placements: vec![self.publish(device, vec![change])], ..seen.clone() }
    }

    /// A device that has seen this deletes it.
    pub(crate) fn delete(&mut self, device: u8, seen: &Seen) -> Dot {
        let removed = Removed { item: seen.item, heads: seen.heads.clone(), placements: seen.placements.clone() };
        self.publish(device, vec![Change::Delete { removed: vec![removed] }])
    }

    /// What is shown because of the items of this name in the vault's first directory.
    pub(crate) fn place_named(&self, name: &str) -> Vec<Shown> {
        let Ok(shown) = Viewer::new(&self.tree).place(ItemId::ROOT, &named(name));
        shown
    }

    /// The targets of what is shown because of the items of this name, the holder of the name first.
    pub(crate) fn targets(&self, name: &str) -> Vec<String> {
        self.place_named(name).iter().map(|shown| target(&shown.content)).collect()
    }

    /// What a disk has seen that shows all of this name: one for each object, the holder of the name first.
    pub(crate) fn seen(&self, name: &str) -> Vec<Seen> {
        self.place_named(name).iter().map(|shown| seen_of(shown, &shown.view)).collect()
    }

    /// The placements of an item that stand, deleted ones included.
    pub(crate) fn placements(&self, item: ItemId) -> Vec<Dot> {
        let Ok(item) = self.tree.item(item);
        item.into_iter().flat_map(|item| item.placements).map(|standing| standing.placed.stamp.dot()).collect()
    }
}

/// A small content.
pub(crate) fn text(text: &str) -> Content {
    Content::Symlink(text.as_bytes().to_vec())
}

pub(crate) fn named(name: &str) -> Name {
    Name::new(name.as_bytes()).expect("a sound name")
}

/// What [`text`] was made of; `/` for a directory.
fn target(content: &Content) -> String {
    match content {
        Content::Symlink(target) => String::from_utf8_lossy(target).into_owned(),
        Content::Directory => "/".to_owned(),
        Content::File(_) => unreachable!("these tests make no files"),
    }
}
