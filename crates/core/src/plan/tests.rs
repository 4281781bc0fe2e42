//! What a disk is to do, case by case, and a disk in memory that does it.
//!
//! [`Replica::follow`] takes the steps of plans until nothing is left to look at, each with what it says and no more, and
//! holds the disk against the view: what stands where, as which version, with which bytes and permissions.

mod cases;
mod histories;
mod matching;

use std::collections::BTreeMap;
use std::convert::Infallible;

use super::*;
use crate::content::{ChunkList, FileContent};
use crate::ids::{ContentId, DeviceId, Stamp};
use crate::item::Item;
use crate::local::{DirId, Fingerprint};
use crate::memory::vault::Vault;
use crate::tree::{MoveRecord, is_shown};

/// A vault and one disk.
#[derive(Default)]
struct Replica {
    vault: Vault,
    disk: Vec<OnDisk>,
    dirs: u64,
}

/// One object on the disk: its record, and what is really there.
#[derive(Clone, PartialEq, Debug)]
struct OnDisk {
    entry: LocalEntry,
    content: Content,
    mode: Option<u32>,
    xattrs: Vec<(Vec<u8>, Vec<u8>)>,
}

impl TreeRead for Replica {
    type Error = Infallible;

    fn item(&self, id: ItemId) -> Result<Option<Item>, Infallible> {
        self.vault.tree().item(id)
    }

    fn named(&self, parent: ItemId, name: &Name) -> Result<Vec<ItemId>, Infallible> {
        self.vault.tree().named(parent, name)
    }

    fn children(
        &self,
        parent: ItemId,
        after: Option<ChildCursor>,
        limit: usize,
    ) -> Result<Vec<(ChildCursor, ItemId)>, Infallible> {
        self.vault.tree().children(parent, after, limit)
    }

    fn moves_after(&self, stamp: &Stamp) -> Result<Vec<MoveRecord>, Infallible> {
        self.vault.tree().moves_after(stamp)
    }
}

impl ViewRead for Replica {
    fn device_label(&self, device: &DeviceId) -> Result<String, Infallible> {
        self.vault.tree().device_label(device)
    }
}

impl HistoryRead for Replica {
    fn version(&self, item: ItemId, dot: &Dot) -> Result<Option<Head>, Infallible> {
        self.vault.tree().version(item, dot)
    }
}

impl LocalRead for Replica {
    type Error = Infallible;

    fn entries_of(&self, item: ItemId) -> Result<Vec<LocalEntry>, Infallible> {
        Ok(self.entries().filter(|entry| entry.seen.item == item).cloned().collect())
    }

    fn entry_at(&self, dir: DirId, name: &Name) -> Result<Option<LocalEntry>, Infallible> {
        Ok(self.entries().find(|entry| entry.dir == dir && entry.name == *name).cloned())
    }

    fn directory(&self, dir: DirId) -> Result<Option<LocalEntry>, Infallible> {
        Ok(self.entries().find(|entry| entry.own_dir == Some(dir)).cloned())
    }
}

impl Replica {
    fn entries(&self) -> impl Iterator<Item = &LocalEntry> {
        self.disk.iter().map(|object| &object.entry)
    }

    /// Something stands in the folder, whatever the view says.
    fn stand(&mut self, name: &str, seen: &Seen, content: Content) {
        let entry = LocalEntry {
            dir: DirId::ROOT,
            name: crate::memory::vault::named(name),
            own_dir: None,
            seen: seen.clone(),
            mode: None,
            xattrs: Vec::new(),
            stat: Fingerprint::default(),
            state: EntryState::Settled,
        };
        self.disk.push(OnDisk { entry, content, mode: None, xattrs: Vec::new() });
    }

    /// The plan for all that was touched since the last one.
    fn plan(&mut self) -> Plan {
        let touched = self.vault.take_touched();
        self.plan_for(&touched.into_iter().collect::<Vec<_>>())
    }

    fn plan_for(&self, items: &[ItemId]) -> Plan {
        let Ok(plan) = plan(self, items);
        plan
    }

    /// The disk comes to show what the vault shows, and is held against it.
    fn follow(&mut self) {
        let mut items = self.vault.take_touched();
        let mut removals = BTreeSet::new();
        let mut rounds = 0..MOST_ROUNDS;
        loop {
            rounds.next().expect("steps come to an end");
            let plan = self.plan_for(&items.iter().copied().collect::<Vec<_>>());
            removals.extend(plan.removals.iter().map(|planned| item_of(&planned.step)));
            let stays = plan.steps.is_empty() && plan.also.is_subset(&items);
            items.extend(plan.also);
            plan.steps.into_iter().for_each(|planned| self.take(planned.step));
            if stays {
                break;
            }
        }
        while !removals.is_empty() {
            rounds.next().expect("removals come to an end");
            let plan = self.plan_for(&removals.iter().copied().collect::<Vec<_>>());
            assert_eq!(plan.steps, [], "all that is to be made was made before anything goes");
            removals = plan.removals.iter().map(|planned| item_of(&planned.step)).collect();
            // What lies in directories first.
            let depth = |planned: &Planned| match &planned.step {
                Step::Remove { entry } => std::cmp::Reverse(self.depth(entry)),
                other => panic!("no removal: {other:?}"),
            };
            let mut steps = plan.removals;
            steps.sort_by_key(depth);
            steps.into_iter().for_each(|planned| self.take(planned.step));
        }
        self.check();
    }

    fn depth(&self, entry: &LocalEntry) -> usize {
        let Ok(above) = self.directory(entry.dir);
        above.map_or(0, |above| 1 + self.depth(&above))
    }

    /// Takes one step, with nothing that it does not say.
    fn take(&mut self, step: Step) {
        match step {
            Step::Make { shown } => {
                let dir = self.dir_of(shown.parent);
                let own_dir = shown.content.is_directory().then(|| {
                    self.dirs += 1;
                    DirId(DirId::STAGING.0 + self.dirs)
                });
                let entry = LocalEntry {
                    dir,
                    name: shown.name.clone(),
                    own_dir,
                    seen: seen_of(&shown, &shown.view),
                    mode: shown.mode,
                    xattrs: shown.xattrs.clone(),
                    stat: Fingerprint::default(),
                    state: EntryState::Settled,
                };
                let Shown { content, mode, xattrs, .. } = shown;
                self.disk.push(OnDisk { entry, content, mode, xattrs });
            }
            Step::Change { entry, shown, content, place, attributes } => {
                assert!(content || place || attributes, "a step that changes nothing: {entry:?}");
                let dir = self.dir_of(shown.parent);
                let object = self.on_disk(&entry);
                if content {
                    object.content = shown.content.clone();
                }
                if place {
                    (object.entry.dir, object.entry.name) = (dir, shown.name.clone());
                }
                if attributes {
                    (object.mode, object.xattrs) = (shown.mode, shown.xattrs.clone());
                    (object.entry.mode, object.entry.xattrs) = (shown.mode, shown.xattrs.clone());
                }
                object.entry.seen = seen_of(&shown, &entry.seen.view);
            }
            Step::Agree { entry, shown } => {
                self.on_disk(&entry).entry.seen = seen_of(&shown, &entry.seen.view);
            }
            Step::Remove { entry } => {
                self.merge(&entry);
                let within = |other: &LocalEntry| entry.own_dir == Some(other.dir);
                assert!(!self.entries().any(within), "{} is removed with something in it", entry.name);
                self.disk.retain(|object| object.entry != entry);
            }
        }
    }

    /// What a directory holds that is seen in another goes there: to a plan it is at its place already.
    fn merge(&mut self, entry: &LocalEntry) {
        let Some(own) = entry.own_dir else { return };
        let Ok(item) = Viewer::new(&*self).stands_for(entry.seen.item);
        let into = self.entries().find(|other| other.own_dir.is_some() && other.seen.item == item && *other != entry);
        let Some(into) = into.and_then(|into| into.own_dir) else { return };
        self.disk.iter_mut().filter(|object| object.entry.dir == own).for_each(|object| object.entry.dir = into);
    }

    fn on_disk(&mut self, entry: &LocalEntry) -> &mut OnDisk {
        self.disk.iter_mut().find(|object| object.entry == *entry).expect("a plan is for what is there, once for each")
    }

    /// Where on disk a directory of the view stands.
    fn dir_of(&self, item: ItemId) -> DirId {
        if item == ItemId::ROOT {
            return DirId::ROOT;
        }
        let entry = self.entries().find(|entry| entry.own_dir.is_some() && entry.seen.item == item);
        entry.and_then(|entry| entry.own_dir).expect("a directory stands before what it holds")
    }

    fn check(&self) {
        let viewer = Viewer::new(self);
        let mut expected: BTreeMap<(ItemId, Name), Shown> =
            self.shown().into_iter().map(|shown| ((shown.parent, shown.name.clone()), shown)).collect();
        for object in &self.disk {
            let Ok(directory) = self.directory(object.entry.dir);
            let Ok(parent) = viewer.stands_for(directory.map_or(ItemId::ROOT, |directory| directory.seen.item));
            let shown = expected.remove(&(parent, object.entry.name.clone()));
            let shown = shown.unwrap_or_else(|| panic!("nothing of this name is to be seen, or only once: {object:?}"));
            assert_eq!(object.entry.seen, seen_of(&shown, &shown.view));
            assert!(object.content.agrees(&shown.content), "{object:?} is to be {shown:?}");
            if !matches!(object.content, Content::Symlink(_)) {
                assert!(shown.mode.is_none() || object.mode == shown.mode, "{object:?} is to be {shown:?}");
                assert_eq!(object.xattrs, shown.xattrs);
            }
        }
        assert!(expected.is_empty(), "this is to be seen, and is not there: {expected:?}");
    }

    /// All that people see.
    fn shown(&self) -> Vec<Shown> {
        let viewer = Viewer::new(self);
        let mut places = BTreeSet::new();
        for item in self.vault.tree().items().values() {
            let (Ok(place), Ok(shown)) = (viewer.place_of(item), is_shown(self, item));
            if shown {
                places.insert(place);
            }
        }
        let at = |(parent, name): (ItemId, Name)| {
            let Ok(shown) = viewer.place(parent, &name);
            shown
        };
        places.into_iter().flat_map(at).collect()
    }

    /// The record of what stands under a name.
    fn entry(&self, name: &str) -> LocalEntry {
        let is_it = |entry: &&LocalEntry| entry.name == crate::memory::vault::named(name);
        self.entries().find(is_it).expect("it is there").clone()
    }

    /// What the disk has seen under a name.
    fn seen(&self, name: &str) -> Seen {
        self.entry(name).seen
    }

    /// The names on disk, with directories.
    fn names(&self) -> Vec<String> {
        let path = |entry: &LocalEntry| {
            let mut path = entry.name.to_string();
            let Ok(mut above) = self.directory(entry.dir);
            while let Some(directory) = above {
                path = format!("{}/{path}", directory.name);
                above = self.directory(directory.dir).unwrap_or_else(|never| match never {});
            }
            path
        };
        let mut names: Vec<String> = self.entries().map(path).collect();
        names.sort();
        names
    }
}

/// A plan for all that is touched is followed by few others.
const MOST_ROUNDS: usize = 40;

fn item_of(step: &Step) -> ItemId {
    match step {
        Step::Make { shown } => shown.item,
        Step::Change { entry, .. } | Step::Agree { entry, .. } | Step::Remove { entry } => entry.seen.item,
    }
}

/// A regular file of these bytes, written at this time.
fn file(bytes: &str, mtime: i64) -> Content {
    let id = ContentId(*blake3::hash(bytes.as_bytes()).as_bytes());
    Content::File(FileContent { id, size: bytes.len() as u64, mtime, chunks: ChunkList::Inline(Vec::new()) })
}

/// A plan in words: what is done to what, and why.
fn told(plan: &Plan) -> Vec<String> {
    let one = |planned: &Planned| {
        let step = match &planned.step {
            Step::Make { shown } => format!("make {}", shown.name),
            Step::Change { entry, shown, content, place, attributes } => {
                let what = [(content, " content"), (place, " place"), (attributes, " attributes")];
                let what: String = what.iter().filter(|(changes, _)| **changes).map(|(_, what)| *what).collect();
                format!("change {} to {}:{what}", entry.name, shown.name)
            }
            Step::Agree { entry, .. } => format!("agree {}", entry.name),
            Step::Remove { entry } => format!("remove {}", entry.name),
        };
        let cause = match planned.cause {
            Cause::Content(_) => "content",
            Cause::Placement(_) => "placement",
            Cause::Attributes => "attributes",
            Cause::Conflict(_) => "conflict",
            Cause::Deleted(Some(_)) => "deleted",
            Cause::Deleted(None) => "long deleted",
            Cause::Merged => "merged",
            Cause::Recorded => "recorded",
        };
        format!("{step} ({cause})")
    };
    plan.steps.iter().chain(&plan.removals).map(one).collect()
}

/// A disk in step with a vault that holds one file `f`.
fn one_file() -> (Replica, Seen) {
    let mut replica = Replica::default();
    let seen = replica.vault.create(2, ItemId::ROOT, "f", file("first", 0));
    replica.follow();
    assert_eq!(replica.names(), ["f"]);
    (replica, seen)
}

/// Nothing more is to be done, however much is looked at.
fn in_step(replica: &Replica) {
    let all: Vec<ItemId> = replica.vault.tree().items().keys().copied().collect();
    assert_eq!(told(&replica.plan_for(&all)), Vec::<String>::new());
}
