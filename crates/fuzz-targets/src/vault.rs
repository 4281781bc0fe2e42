//! The fold and the planner over arbitrary packets of three devices that know little of each other.
//!
//! Bytes become a history: devices learn some of each other's packets and publish changes of what they know, on the basis
//! of anything they ever knew of it. Then hold: every causal order of folding gives the same items; an item that comes
//! to show something else is touched; and what a disk shows after the plan for the touched items is what the view shows.

use std::collections::{BTreeMap, BTreeSet};
use std::convert::Infallible;

use arbitrary::{Result, Unstructured};
use packetboat_core::body::PacketBody;
use packetboat_core::change::{Change, Removed};
use packetboat_core::content::Content;
use packetboat_core::ids::{Counter, DeviceId, Dot, ItemId, Lamport, PacketHash, Stamp};
use packetboat_core::item::{Head, Item};
use packetboat_core::keys::PublicKey;
use packetboat_core::knowledge::Knowledge;
use packetboat_core::local::{DirId, EntryState, Fingerprint, LocalEntry, LocalRead};
use packetboat_core::memory::MemoryTree;
use packetboat_core::name::Name;
use packetboat_core::packet::Packet;
use packetboat_core::plan::{HistoryRead, Plan, Step, plan, seen_of, shown_name};
use packetboat_core::tree::{ChildCursor, Folding, MoveRecord, TreeRead, fold_packet, is_alive, is_shown};
use packetboat_core::view::{Shown, ViewRead, Viewer};

use crate::Outcome;

/// A history, folded in several orders, and planned for a disk that was in step some packets ago.
pub fn fold_and_plan(input: &[u8]) -> Outcome {
    let mut input = Unstructured::new(input);
    let mut history = History::default();
    while !input.is_empty() && history.packets.len() < MOST_PACKETS {
        if history.step(&mut input).is_err() {
            break;
        }
    }
    if history.packets.is_empty() {
        return Outcome::Refused;
    }
    let in_order: Vec<usize> = (0..history.packets.len()).collect();
    let first = history.fold(&in_order);
    for lane in 0..DEVICES {
        let other = history.fold(&history.order_that_favours(lane));
        assert_eq!(first.items(), other.items(), "every causal order gives the same items");
        assert_eq!(first.moves(), other.moves());
        assert_eq!(view_of(&first), view_of(&other), "and the same view");
    }
    for behind in [0, history.packets.len() / 2] {
        plan_from(&history, behind);
    }
    Outcome::Understood
}

const DEVICES: usize = 3;
const MOST_PACKETS: usize = 14;

#[derive(Default)]
struct History {
    devices: [Device; DEVICES],
    packets: Vec<Made>,
    items: u32,
}

#[derive(Default)]
struct Device {
    tree: MemoryTree,
    learned: [Counter; DEVICES],
    lamport: Lamport,
}

struct Made {
    lane: usize,
    packet: Packet,
    requires: [Counter; DEVICES],
}

impl History {
    fn step(&mut self, input: &mut Unstructured<'_>) -> Result<()> {
        let device = input.choose_index(DEVICES)?;
        if input.ratio(2, 5)? {
            let lane = input.choose_index(DEVICES)?;
            self.learn(device, lane);
            return Ok(());
        }
        let mut changes = Vec::new();
        let mut units = BTreeSet::new();
        for _ in 0..input.int_in_range(1..=3)? {
            let change = self.change(device, input)?;
            // One change for each item: they are made from one state of the disk.
            let items: Vec<ItemId> = change.iter().flat_map(items_of).collect();
            if items.iter().all(|item| units.insert(*item)) {
                changes.extend(change);
            }
        }
        if !changes.is_empty() {
            self.publish(device, changes);
        }
        Ok(())
    }

    /// Folds the next packet of a lane, if all that it was made on is there.
    fn learn(&mut self, device: usize, lane: usize) {
        let learner = &mut self.devices[device];
        let next = self.packets.iter().find(|made| {
            made.lane == lane
                && made.packet.dot.counter == learner.learned[lane] + 1
                && made.requires.iter().zip(&learner.learned).all(|(required, learned)| required <= learned)
        });
        if let Some(made) = next {
            fold_checked(&mut learner.tree, &made.packet);
            learner.learned[lane] += 1;
            learner.lamport = learner.lamport.max(made.packet.body.lamport);
        }
    }

    fn publish(&mut self, device: usize, changes: Vec<Change>) {
        let maker = &mut self.devices[device];
        let requires = maker.learned;
        maker.learned[device] += 1;
        maker.lamport += 1;
        let dot = Dot { device: id_of(device), counter: maker.learned[device] };
        let body = PacketBody {
            lamport: maker.lamport,
            time: 0,
            prerequisite: Knowledge::new(),
            needs: Vec::new(),
            packs: Vec::new(),
            inline: Vec::new(),
            changes,
        };
        let zeros = PacketHash([0; 32]);
        let packet = Packet { dot, hash: zeros, previous: zeros, author: PublicKey(dot.device.0), epoch: 0, body };
        fold_checked(&mut maker.tree, &packet);
        self.packets.push(Made { lane: device, packet, requires });
    }

    fn change(&mut self, device: usize, input: &mut Unstructured<'_>) -> Result<Option<Change>> {
        let tree = &self.devices[device].tree;
        let known: Vec<&Item> = tree.items().values().collect();
        let mut directories: Vec<ItemId> =
            known.iter().filter(|item| item.is_directory()).map(|item| item.id).collect();
        directories.push(ItemId::ROOT);
        let parent = *input.choose(&directories)?;
        let name = Name::new(*input.choose(&[&b"a"[..], b"b", b"a (conflict x 1970-01-01 00000000)"])?);
        let name = name.expect("a sound name");
        let kind = input.int_in_range(0..=7)?;
        if kind <= 2 || known.is_empty() {
            self.items += 1;
            let content = if kind == 0 { Content::Directory } else { text(input.int_in_range(0..=2)?) };
            let item = ItemId([0xee; 16]).successor(self.items);
            return Ok(Some(Change::Create { item, parent, name, content, mode: None, xattrs: Vec::new() }));
        }
        let item = known[input.choose_index(known.len())?];
        let heads = some(input, item.heads.iter().map(|head| head.dot))?;
        let placements = some(input, item.placements.iter().map(|placement| placement.placed.stamp.dot()))?;
        Ok(match kind {
            3 if !item.is_directory() => {
                let content = text(input.int_in_range(0..=2)?);
                Some(Change::Content { item: item.id, content, replaces: heads, trail: Vec::new() })
            }
            4 | 5 if item.id != parent => Some(Change::Place { item: item.id, parent, name, replaces: placements }),
            6 => Some(Change::Mode { item: item.id, mode: 0o600 }),
            7 => Some(Change::Delete { removed: vec![Removed { item: item.id, heads, placements }] }),
            _ => None,
        })
    }

    fn fold(&self, order: &[usize]) -> MemoryTree {
        let mut tree = MemoryTree::new();
        for at in order {
            fold_checked(&mut tree, &self.packets[*at].packet);
        }
        tree
    }

    /// A causal order in which one lane comes as early as it can, and the others as late.
    fn order_that_favours(&self, lane: usize) -> Vec<usize> {
        let mut order = Vec::new();
        let mut learned = [0; DEVICES];
        while order.len() < self.packets.len() {
            let ready = |made: &Made| {
                made.packet.dot.counter == learned[made.lane] + 1
                    && made.requires.iter().zip(&learned).all(|(required, learned)| required <= learned)
            };
            let next = (0..self.packets.len())
                .filter(|at| ready(&self.packets[*at]))
                .min_by_key(|at| (DEVICES + self.packets[*at].lane - lane) % DEVICES)
                .expect("the order in which they were made is one");
            learned[self.packets[next].lane] += 1;
            order.push(next);
        }
        order
    }
}

fn items_of(change: &Change) -> Vec<ItemId> {
    match change {
        Change::Delete { removed } => removed.iter().map(|removed| removed.item).collect(),
        change => change.item().into_iter().collect(),
    }
}

fn some(input: &mut Unstructured<'_>, dots: impl Iterator<Item = Dot>) -> Result<Vec<Dot>> {
    let bits: u8 = input.arbitrary()?;
    let mut chosen: Vec<Dot> = dots.enumerate().filter(|(at, _)| bits & (1 << (at % 8)) == 0).map(|(_, d)| d).collect();
    chosen.sort_unstable();
    chosen.dedup();
    Ok(chosen)
}

fn text(which: u8) -> Content {
    Content::Symlink(vec![b'a' + which])
}

fn id_of(device: usize) -> DeviceId {
    DeviceId([device as u8 + 1; 32])
}

/// Folds a packet, and holds that whatever shows something else after it was touched.
fn fold_checked(tree: &mut MemoryTree, packet: &Packet) {
    let before = shows(tree);
    let touched = tree.take_touched();
    fold_packet(tree, packet, Folding::Other).unwrap_or_else(|never| match never {});
    for (item, shown) in shows(tree) {
        assert!(before.get(&item) == Some(&shown) || tree.touched().contains(&item), "{item:?} was not touched");
    }
    let newly = tree.take_touched();
    // Whoever plans for the tree takes all that was touched since.
    for item in touched.union(&newly) {
        packetboat_core::tree::TreeWrite::touch(tree, *item).unwrap_or_else(|never| match never {});
    }
}

type ItemShows = (Item, Vec<(ItemId, bool, bool, usize)>);

/// What each item shows, with those at its place.
fn shows(tree: &MemoryTree) -> BTreeMap<ItemId, ItemShows> {
    let of = |id: &ItemId| {
        let item = &tree.items()[id];
        let (Ok(alive), Ok(shown)) = (is_alive(tree, item), is_shown(tree, item));
        (*id, alive, shown, item.seats().len())
    };
    let at_its_place = |item: &Item| {
        let Ok(mates) = tree.named(item.at.parent, &item.at.name);
        (item.clone(), mates.iter().map(of).collect())
    };
    tree.items().iter().map(|(id, item)| (*id, at_its_place(item))).collect()
}

/// A tree with a disk.
struct Replica {
    tree: MemoryTree,
    disk: Vec<LocalEntry>,
}

impl TreeRead for Replica {
    type Error = Infallible;

    fn item(&self, id: ItemId) -> std::result::Result<Option<Item>, Infallible> {
        self.tree.item(id)
    }

    fn named(&self, parent: ItemId, name: &Name) -> std::result::Result<Vec<ItemId>, Infallible> {
        self.tree.named(parent, name)
    }

    fn children(
        &self,
        parent: ItemId,
        after: Option<ChildCursor>,
        limit: usize,
    ) -> std::result::Result<Vec<(ChildCursor, ItemId)>, Infallible> {
        self.tree.children(parent, after, limit)
    }

    fn moves_after(&self, stamp: &Stamp) -> std::result::Result<Vec<MoveRecord>, Infallible> {
        self.tree.moves_after(stamp)
    }
}

impl ViewRead for Replica {
    fn device_label(&self, device: &DeviceId) -> std::result::Result<String, Infallible> {
        Ok(format!("device {}", device.0[0]))
    }
}

impl HistoryRead for Replica {
    fn version(&self, item: ItemId, dot: &Dot) -> std::result::Result<Option<Head>, Infallible> {
        self.tree.version(item, dot)
    }
}

impl LocalRead for Replica {
    type Error = Infallible;

    fn entries_of(&self, item: ItemId) -> std::result::Result<Vec<LocalEntry>, Infallible> {
        Ok(self.disk.iter().filter(|entry| entry.seen.item == item).cloned().collect())
    }

    fn entry_at(&self, dir: DirId, name: &Name) -> std::result::Result<Option<LocalEntry>, Infallible> {
        Ok(self.disk.iter().find(|entry| entry.dir == dir && entry.name == *name).cloned())
    }

    fn directory(&self, dir: DirId) -> std::result::Result<Option<LocalEntry>, Infallible> {
        Ok(self.disk.iter().find(|entry| entry.own_dir == Some(dir)).cloned())
    }
}

/// What stands where: the directory's item, the name, the item and its heads.
type Place = (ItemId, Vec<u8>, ItemId, Vec<Dot>);

fn place_of(shown: &Shown) -> Place {
    (shown.parent, shown.name.as_bytes().to_vec(), shown.item, shown.heads.clone())
}

/// All that people see of a tree, each place looked at once.
fn seen(replica: &Replica) -> Vec<Shown> {
    let viewer = Viewer::new(replica);
    let mut places = BTreeSet::new();
    for item in replica.tree.items().values() {
        let Ok(place) = viewer.place_of(item);
        places.insert(place);
    }
    places
        .into_iter()
        .flat_map(|(parent, name)| {
            let Ok(shown) = viewer.place(parent, &name);
            shown
        })
        .collect()
}

fn view_of(tree: &MemoryTree) -> BTreeSet<Place> {
    seen(&Replica { tree: tree.clone(), disk: Vec::new() }).iter().map(place_of).collect()
}

/// Plans for a disk that showed all up to the packet `behind`, and holds what it shows then against the view.
fn plan_from(history: &History, behind: usize) {
    let mut tree = history.fold(&(0..behind).collect::<Vec<_>>());
    let disk = disk_of(&tree);
    tree.take_touched();
    for made in &history.packets[behind..] {
        fold_checked(&mut tree, &made.packet);
    }
    let mut touched: BTreeSet<ItemId> = tree.touched().clone();
    let replica = Replica { tree, disk };
    let planned = loop {
        let items: Vec<ItemId> = touched.iter().copied().collect();
        let Ok(planned) = plan(&replica, &items);
        if planned.also.is_subset(&touched) {
            break planned;
        }
        touched.extend(planned.also);
    };
    let expected: BTreeSet<Place> = seen(&replica).iter().map(place_of).collect();
    assert_eq!(carried_out(&replica, &planned), expected, "the disk shows what is to be seen");
    directories_come_first(&replica, &planned);
}

/// The disk that shows a tree, with nothing left to plan.
fn disk_of(tree: &MemoryTree) -> Vec<LocalEntry> {
    let shown = seen(&Replica { tree: tree.clone(), disk: Vec::new() });
    let directory = |item: ItemId| match item {
        ItemId::ROOT => DirId::ROOT,
        item => DirId(2 + tree.items().keys().position(|id| *id == item).expect("a known directory") as u64),
    };
    let entry = |shown: &Shown| LocalEntry {
        dir: directory(shown.parent),
        name: shown.name.clone(),
        own_dir: shown.content.is_directory().then(|| directory(shown.item)),
        seen: seen_of(shown, &shown.view),
        mode: shown.mode,
        xattrs: shown.xattrs.clone(),
        stat: Fingerprint::default(),
        state: EntryState::Settled,
    };
    shown.iter().map(entry).collect()
}

/// What the disk shows once every step was taken.
fn carried_out(replica: &Replica, planned: &Plan) -> BTreeSet<Place> {
    let viewer = Viewer::new(replica);
    let mut left: Vec<&LocalEntry> = replica.disk.iter().collect();
    let mut take = |entry: &LocalEntry| {
        let at = left.iter().position(|left| *left == entry).expect("an entry is planned for once");
        left.remove(at);
    };
    let mut places = BTreeSet::new();
    for step in planned.steps.iter().chain(&planned.removals) {
        match &step.step {
            Step::Make { shown } => assert!(places.insert(place_of(shown)), "made twice: {shown:?}"),
            Step::Change { entry, shown, .. } | Step::Agree { entry, shown } => {
                take(entry);
                assert!(places.insert(place_of(shown)), "shown twice: {shown:?}");
            }
            Step::Remove { entry } => take(entry),
        }
    }
    for entry in left {
        let Ok(directory) = replica.directory(entry.dir);
        let parent = directory.map_or(ItemId::ROOT, |directory| directory.seen.item);
        let Ok(parent) = viewer.stands_for(parent);
        places.insert((parent, shown_name(entry).as_bytes().to_vec(), entry.seen.item, entry.seen.heads.clone()));
    }
    places
}

/// A step that needs a directory comes after the one that makes it.
fn directories_come_first(replica: &Replica, planned: &Plan) {
    let mut there: BTreeSet<ItemId> =
        replica.disk.iter().filter(|entry| entry.own_dir.is_some()).map(|entry| entry.seen.item).collect();
    there.insert(ItemId::ROOT);
    for step in &planned.steps {
        let (Step::Make { shown } | Step::Change { shown, .. } | Step::Agree { shown, .. }) = &step.step else {
            continue;
        };
        if matches!(step.step, Step::Make { .. }) {
            assert!(there.contains(&shown.parent), "made in a directory that is not there: {shown:?}");
        }
        if shown.content.is_directory() {
            there.insert(shown.item);
        }
    }
}

/// Inputs that are understood.
pub mod seeds {
    /// Numbers that make long histories.
    pub fn fold_and_plan() -> Vec<Vec<u8>> {
        let number = |at: u64| ((at + 1).wrapping_mul(0x9e37_79b9_7f4a_7c15) >> 29) as u8;
        (0..12u64).map(|seed| (0..240u64).map(|at| number(at + seed * 1013)).collect()).collect()
    }
}
