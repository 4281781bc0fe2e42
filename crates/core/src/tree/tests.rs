//! The tree against a world of devices that change it without knowing of each other.
//!
//! Every fold in these tests checks that all items that came to show something else were touched.
//! [`World::converge`] folds all packets in many causal orders, compares the results with each other and with
//! [`Reference`], which derives the items from the set of changes alone.

mod cases;
mod simulation;

use std::collections::{BTreeMap, BTreeSet};

use super::*;
use crate::body::PacketBody;
use crate::change::Mark;
use crate::content::Content;
use crate::ids::{Counter, DeviceId, Lamport, PacketHash};
use crate::keys::PublicKey;
use crate::knowledge::Knowledge;
use crate::memory::MemoryTree;

/// Devices, and all packets that they made, in an order in which they can be folded.
struct World {
    devices: Vec<Device>,
    packets: Vec<Made>,
    items: u32,
}

/// One device: what it has folded, and what its disk has last agreed on with that.
#[derive(Default)]
struct Device {
    tree: MemoryTree,
    learned: Vec<Counter>,
    lamport: Lamport,
    synced: BTreeMap<ItemId, Synced>,
}

/// What stands on a device's disk for an item.
#[derive(Clone, Debug)]
struct Synced {
    heads: Vec<Dot>,
    placements: Vec<Dot>,
    deletes: Vec<Dot>,
    parent: ItemId,
}

/// A packet and how much of each lane must be folded before it.
#[derive(Clone, Debug)]
struct Made {
    device: usize,
    packet: Packet,
    requires: Vec<Counter>,
}

impl World {
    fn new(devices: usize) -> Self {
        let device = || Device { learned: vec![0; devices], ..Device::default() };
        Self { devices: (0..devices).map(|_| device()).collect(), packets: Vec::new(), items: 0 }
    }

    /// Publishes changes of one device as one packet.
    fn publish(&mut self, device: usize, changes: Vec<Change>) -> Dot {
        let maker = &mut self.devices[device];
        let requires = maker.learned.clone();
        let dot = Dot { device: device_id(device), counter: maker.learned[device] + 1 };
        let body = PacketBody {
            lamport: maker.lamport + 1,
            time: 0,
            prerequisite: Knowledge::new(),
            needs: Vec::new(),
            packs: Vec::new(),
            inline: Vec::new(),
            changes,
        };
        crate::change::check_changes(&body.changes).expect("sound changes");
        let zeros = PacketHash([0; 32]);
        let packet = Packet { dot, hash: zeros, previous: zeros, author: PublicKey(dot.device.0), epoch: 0, body };
        maker.fold(device, &packet);
        for item in packet.body.changes.iter().flat_map(Change::units).map(unit_item) {
            maker.agree(item);
        }
        self.packets.push(Made { device, packet, requires });
        dot
    }

    /// `device` folds everything made so far; its disk follows.
    fn sync(&mut self, device: usize) {
        self.learn(device, usize::MAX);
        self.devices[device].agree_on_all();
    }

    fn sync_all(&mut self) {
        (0..self.devices.len()).for_each(|device| self.sync(device));
    }

    /// `device` folds at most `limit` of the packets that it lacks; its disk does not follow.
    fn learn(&mut self, device: usize, limit: usize) {
        let learner = &mut self.devices[device];
        let lacking = self.packets.iter().filter(|made| made.packet.dot.counter > learner.learned[made.device]);
        for made in lacking.take(limit).cloned().collect::<Vec<_>>() {
            learner.fold(made.device, &made.packet);
        }
    }

    /// `device` folds at most `limit` of the packets that `other` has folded.
    fn learn_from(&mut self, device: usize, other: usize, limit: usize) {
        let known = self.devices[other].learned.clone();
        let learner = &mut self.devices[device];
        let lacking = self.packets.iter().filter(|made| {
            let counter = made.packet.dot.counter;
            counter > learner.learned[made.device] && counter <= known[made.device]
        });
        for made in lacking.take(limit).cloned().collect::<Vec<_>>() {
            learner.fold(made.device, &made.packet);
        }
    }

    fn new_item(&mut self) -> ItemId {
        self.items += 1;
        ItemId([0xee; 16]).successor(self.items)
    }

    fn directory(&mut self, device: usize, parent: ItemId, name: &str) -> ItemId {
        let item = self.new_item();
        self.publish(device, vec![create(item, parent, name, Content::Directory)]);
        item
    }

    fn file(&mut self, device: usize, parent: ItemId, name: &str) -> ItemId {
        let item = self.new_item();
        self.publish(device, vec![create(item, parent, name, text("first"))]);
        item
    }

    fn edit(&mut self, device: usize, item: ItemId, content: &str) {
        let change = self.devices[device].edit(item, text(content));
        self.publish(device, vec![change]);
    }

    fn place(&mut self, device: usize, item: ItemId, parent: ItemId, name: &str) {
        let change = self.devices[device].place(item, parent, name);
        self.publish(device, vec![change]);
    }

    /// Deletes an item and all that lies beneath it on the device's disk.
    fn delete(&mut self, device: usize, item: ItemId) {
        let removed = self.devices[device].removal(item);
        self.publish(device, vec![Change::Delete { removed }]);
    }

    /// Folds all packets in every causal order, up to `limit` of them, and checks that all give the reference's tree.
    fn converge(&self, limit: usize) -> MemoryTree {
        let reference = Reference::of(&self.packets);
        let mut left = limit;
        let mut done = Vec::new();
        self.every_order(&MemoryTree::new(), &mut vec![0; self.devices.len()], &mut left, &mut |tree| {
            reference.check(tree);
            if let Some(first) = done.first() {
                assert_same(first, tree);
            } else {
                done.push(tree.clone());
            }
        });
        done.pop().expect("there is at least one order")
    }

    fn every_order(
        &self,
        tree: &MemoryTree,
        learned: &mut Vec<Counter>,
        left: &mut usize,
        visit: &mut impl FnMut(&MemoryTree),
    ) {
        let mut last = true;
        for made in self.ready(learned) {
            last = false;
            if *left == 0 {
                return;
            }
            let mut next = tree.clone();
            fold_checked(&mut next, &made.packet);
            learned[made.device] += 1;
            self.every_order(&next, learned, left, visit);
            learned[made.device] -= 1;
        }
        if last {
            *left -= 1;
            visit(tree);
        }
    }

    /// The packets that can be folded next.
    fn ready(&self, learned: &[Counter]) -> Vec<&Made> {
        let ready = |made: &&Made| {
            made.packet.dot.counter == learned[made.device] + 1
                && made.requires.iter().zip(learned).all(|(needs, has)| needs <= has)
        };
        self.packets.iter().filter(ready).collect()
    }
}

impl Device {
    fn fold(&mut self, author: usize, packet: &Packet) {
        fold_checked(&mut self.tree, packet);
        self.learned[author] = packet.dot.counter;
        self.lamport = self.lamport.max(packet.body.lamport);
    }

    fn agree_on_all(&mut self) {
        let items: BTreeSet<ItemId> = self.tree.items().keys().chain(self.synced.keys()).copied().collect();
        items.into_iter().for_each(|item| self.agree(item));
    }

    /// The disk comes to show what the tree says of one item.
    fn agree(&mut self, id: ItemId) {
        let item = self.tree.items().get(&id).cloned();
        match item.filter(|item| is_shown(&self.tree, item).unwrap()) {
            Some(item) => {
                let synced = Synced {
                    heads: item.heads.iter().map(|head| head.dot).collect(),
                    placements: item.placements.iter().map(|placement| placement.placed.stamp.dot()).collect(),
                    deletes: effective_deletes(&self.tree, &item).unwrap(),
                    parent: item.at.parent,
                };
                self.synced.insert(id, synced);
            }
            None => {
                self.synced.remove(&id);
            }
        }
    }

    fn edit(&self, item: ItemId, content: Content) -> Change {
        let replaces = sorted(&self.synced[&item].heads);
        let trail = match &replaces[..] {
            [only] => {
                let known = &self.tree.items()[&item].heads;
                let head = known.iter().find(|head| head.dot == *only);
                head.map(|head| vec![Mark { dot: head.dot, lamport: head.lamport, time: head.time }])
                    .unwrap_or_default()
            }
            _ => Vec::new(),
        };
        Change::Content { item, content, replaces, trail }
    }

    fn place(&self, item: ItemId, parent: ItemId, name: &str) -> Change {
        let synced = &self.synced[&item];
        let replaces = sorted(&[&synced.placements[..], &synced.deletes].concat());
        Change::Place { item, parent, name: named(name), replaces }
    }

    /// What deleting an item names: all that lies beneath it on this disk, directories first.
    fn removal(&self, item: ItemId) -> Vec<Removed> {
        let mut order = vec![item];
        let mut at = 0;
        while at < order.len() {
            for (child, synced) in &self.synced {
                if synced.parent == order[at] && !order.contains(child) {
                    order.push(*child);
                }
            }
            at += 1;
        }
        let removed = |item: &ItemId| {
            let synced = &self.synced[item];
            Removed { item: *item, heads: sorted(&synced.heads), placements: sorted(&synced.placements) }
        };
        order.iter().map(removed).collect()
    }
}

/// Folds a packet and checks that every item that shows something else after it was touched.
fn fold_checked(tree: &mut MemoryTree, packet: &Packet) -> Folded {
    let before = views(tree);
    tree.take_touched();
    let folded = fold_packet(tree, packet, Folding::Other).unwrap();
    for (item, view) in views(tree) {
        if before.get(&item) != Some(&view) {
            assert!(
                tree.touched().contains(&item),
                "{item:?} was not touched\nbefore: {:#?}\nafter: {view:#?}\npacket: {packet:#?}",
                before.get(&item)
            );
        }
    }
    folded
}

/// What one item shows, and those that stand at its place: by id, whether it is shown, and its seats.
type ItemView = (Item, Vec<(ItemId, bool, bool, Vec<Vec<Dot>>)>);

fn views(tree: &MemoryTree) -> BTreeMap<ItemId, ItemView> {
    let shows: BTreeMap<ItemId, _> = tree
        .items()
        .iter()
        .map(|(id, item)| {
            let seats = item.seats().into_iter().map(|seat| seat.dots).collect();
            (*id, (*id, is_alive(tree, item).unwrap(), is_shown(tree, item).unwrap(), seats))
        })
        .collect();
    let view = |item: &Item| {
        let mates = tree.named(item.at.parent, &item.at.name).unwrap();
        (item.clone(), mates.iter().map(|mate| shows[mate].clone()).collect())
    };
    tree.items().iter().map(|(id, item)| (*id, view(item))).collect()
}

/// Everything that folding wrote must be the same, and each item must be shown in both or neither.
fn assert_same(a: &MemoryTree, b: &MemoryTree) {
    assert_eq!(a.items(), b.items());
    assert_eq!(a.moves(), b.moves());
    assert_eq!(history(a), history(b));
}

/// The history without the order in which it was folded.
fn history(tree: &MemoryTree) -> BTreeMap<ItemId, Vec<String>> {
    let texts = |past: &Vec<Past>| {
        let mut texts: Vec<String> = past.iter().map(|past| format!("{past:?}")).collect();
        texts.sort();
        texts
    };
    tree.history().iter().map(|(item, past)| (*item, texts(past))).collect()
}

/// The items as the *set* of changes defines them, found without folding.
struct Reference {
    heads: BTreeMap<ItemId, BTreeMap<Dot, Vec<Dot>>>,
    placements: BTreeMap<ItemId, BTreeMap<Stamp, Vec<Dot>>>,
    deletes: BTreeMap<ItemId, BTreeSet<Dot>>,
    at: BTreeMap<ItemId, Stamp>,
}

impl Reference {
    fn of(packets: &[Made]) -> Self {
        let mut heads: BTreeMap<ItemId, BTreeMap<Dot, Vec<Dot>>> = BTreeMap::new();
        let mut placements: BTreeMap<ItemId, BTreeMap<Stamp, Vec<Dot>>> = BTreeMap::new();
        let mut deletes: BTreeMap<ItemId, BTreeSet<Dot>> = BTreeMap::new();
        let mut directories = BTreeSet::from([ItemId::ROOT]);
        let mut log: Vec<(Stamp, ItemId, ItemId)> = Vec::new();
        let (mut replaced_heads, mut replaced_placements) = (BTreeSet::new(), BTreeSet::new());
        type Marks = BTreeMap<(ItemId, Dot), BTreeSet<Dot>>;
        let (mut deleted_heads, mut deleted_placements) = (Marks::new(), Marks::new());
        for made in packets {
            let dot = made.packet.dot;
            for (index, change) in made.packet.body.changes.iter().enumerate() {
                let (device, lamport) = (dot.device, made.packet.body.lamport);
                let stamp = Stamp { lamport, device, counter: dot.counter, index: index as u32 };
                match change {
                    Change::Create { item, parent, content, .. } => {
                        heads.entry(*item).or_default().insert(dot, Vec::new());
                        placements.entry(*item).or_default().insert(stamp, Vec::new());
                        log.push((stamp, *item, *parent));
                        if content.is_directory() {
                            directories.insert(*item);
                        }
                    }
                    Change::Content { item, replaces, .. } => {
                        heads.entry(*item).or_default().insert(dot, Vec::new());
                        replaced_heads.extend(replaces.iter().map(|dot| (*item, *dot)));
                    }
                    Change::Place { item, parent, replaces, .. } => {
                        placements.entry(*item).or_default().insert(stamp, Vec::new());
                        replaced_placements.extend(replaces.iter().map(|dot| (*item, *dot)));
                        log.push((stamp, *item, *parent));
                    }
                    Change::Delete { removed } => {
                        for Removed { item, heads, placements } in removed {
                            for named in heads {
                                deleted_heads.entry((*item, *named)).or_default().insert(dot);
                            }
                            for named in placements {
                                deleted_placements.entry((*item, *named)).or_default().insert(dot);
                            }
                            if !placements.is_empty() {
                                deletes.entry(*item).or_default().insert(dot);
                            }
                        }
                    }
                    _ => {}
                }
            }
        }
        let marks = |marks: &Marks, item: ItemId, dot: Dot| -> Vec<Dot> {
            marks.get(&(item, dot)).into_iter().flatten().copied().collect()
        };
        for (item, deletes) in &mut deletes {
            deletes.retain(|dot| !replaced_placements.contains(&(*item, *dot)));
        }
        for (item, heads) in &mut heads {
            heads.retain(|dot, _| !replaced_heads.contains(&(*item, *dot)));
            heads.iter_mut().for_each(|(dot, deletes)| *deletes = marks(&deleted_heads, *item, *dot));
        }
        for (item, placements) in &mut placements {
            placements.retain(|stamp, _| !replaced_placements.contains(&(*item, stamp.dot())));
            let deletes = |stamp: &Stamp| marks(&deleted_placements, *item, stamp.dot());
            placements.iter_mut().for_each(|(stamp, standing)| *standing = deletes(stamp));
        }
        log.sort();
        let (mut at, mut above) = (BTreeMap::new(), BTreeMap::new());
        for (stamp, item, parent) in log {
            let parent = if directories.contains(&parent) { parent } else { ItemId::ROOT };
            let mut upward = parent;
            while upward != ItemId::ROOT && upward != item {
                upward = above[&upward];
            }
            if upward != item {
                at.insert(item, stamp);
                above.insert(item, parent);
            }
        }
        Self { heads, placements, deletes, at }
    }

    fn check(&self, tree: &MemoryTree) {
        assert_eq!(tree.items().len(), self.at.len());
        for (id, item) in tree.items() {
            let heads = item.heads.iter().map(|head| (head.dot, head.deletes.clone())).collect();
            let placements =
                item.placements.iter().map(|placement| (placement.placed.stamp, placement.deletes.clone())).collect();
            assert_eq!(self.heads[id], heads, "heads of {id:?}");
            assert_eq!(self.placements[id], placements, "placements of {id:?}");
            assert_eq!(self.deletes.get(id).cloned().unwrap_or_default(), item.deletes.iter().copied().collect());
            assert_eq!(self.at[id], item.at.stamp, "place of {id:?}");
            let mut above = item.at.parent;
            let mut steps = 0;
            while above != ItemId::ROOT {
                above = tree.items()[&above].at.parent;
                steps += 1;
                assert!(steps <= tree.items().len(), "a cycle above {id:?}");
            }
        }
    }
}

/// The paths of all items that are shown; a dead directory's ends in `/†`.
fn paths(tree: &MemoryTree) -> Vec<String> {
    let mut paths = Vec::new();
    for item in tree.items().values().filter(|item| is_shown(tree, item).unwrap()) {
        let mut path = item.at.name.to_string();
        let mut above = item.at.parent;
        while above != ItemId::ROOT {
            let directory = &tree.items()[&above];
            path = format!("{}/{path}", directory.at.name);
            above = directory.at.parent;
        }
        if !is_alive(tree, item).unwrap() {
            path.push_str("/†");
        }
        paths.push(path);
    }
    paths.sort();
    paths
}

fn create(item: ItemId, parent: ItemId, name: &str, content: Content) -> Change {
    Change::Create { item, parent, name: named(name), content, mode: None, xattrs: Vec::new() }
}

/// A small content: the tree does not look inside, and symlinks are the shortest to write.
fn text(text: &str) -> Content {
    Content::Symlink(text.as_bytes().to_vec())
}

fn named(name: &str) -> Name {
    Name::new(name.as_bytes()).expect("a sound name")
}

fn device_id(device: usize) -> DeviceId {
    DeviceId([device as u8 + 1; 32])
}

fn sorted(dots: &[Dot]) -> Vec<Dot> {
    dots.iter().copied().collect::<BTreeSet<_>>().into_iter().collect()
}

fn unit_item(unit: crate::change::Unit) -> ItemId {
    use crate::change::Unit;
    match unit {
        Unit::Content(item) | Unit::Place(item) | Unit::Mode(item) | Unit::Xattr(item, _) | Unit::Delete(item) => item,
    }
}
