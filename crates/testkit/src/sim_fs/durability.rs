//! Syncing a simulated disk, and what a power loss leaves of it.
//!
//! The unsynced changes of names form a partial order: two that touch the same thing keep their order.
//! A sync commits some of them together with all on which they rest;
//! a power loss keeps the committed ones and any further set that rests on nothing outside itself.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use super::disk::{Body, Change, Disk, Id, Object, ROOT, Touched, apply};
use super::options::CrashModel;
use crate::rng::Rng;

impl Disk {
    /// Makes an object's content and attributes durable, not its names.
    pub(super) fn sync_object(&mut self, id: Id) {
        if self.dirty.remove(&id)
            && let Some(object) = self.objects.get(&id)
        {
            self.stable_objects.insert(id, object.clone());
        }
    }

    /// Makes a directory's entries durable.
    pub(super) fn sync_dir(&mut self, dir: Id) {
        self.sync_object(dir);
        if self.options.crash_model == CrashModel::OrderedMetadata {
            for change in std::mem::take(&mut self.journal) {
                apply(&mut self.stable_entries, &change.edits);
            }
            return;
        }
        // Backwards, so that what a wanted change rests on is wanted by the time we come to it.
        let mut wanted = BTreeSet::from([Touched::Entries(dir)]);
        let mut due = vec![false; self.journal.len()];
        for (change, due) in self.journal.iter().zip(&mut due).rev() {
            if change.touches.iter().any(|touched| wanted.contains(touched)) {
                wanted.extend(change.touches.iter().copied());
                *due = true;
            }
        }
        let changes = std::mem::take(&mut self.journal);
        for (change, due) in changes.into_iter().zip(due) {
            if due {
                apply(&mut self.stable_entries, &change.edits);
            } else {
                self.journal.push(change);
            }
        }
    }

    /// Makes everything durable.
    pub(super) fn sync_all(&mut self) {
        for change in std::mem::take(&mut self.journal) {
            apply(&mut self.stable_entries, &change.edits);
        }
        for id in std::mem::take(&mut self.dirty) {
            self.sync_object_now(id);
        }
        self.forget_unused();
    }

    fn sync_object_now(&mut self, id: Id) {
        if let Some(object) = self.objects.get(&id) {
            self.stable_objects.insert(id, object.clone());
        }
    }

    /// Drops what no name, no user and, with an empty journal, no crash can bring back.
    fn forget_unused(&mut self) {
        let open = &self.open;
        let unused = |(id, object): (&Id, &Object)| (object.links == 0 && !open.contains_key(id)).then_some(*id);
        let unused: Vec<Id> = self.objects.iter().filter_map(unused).collect();
        for id in unused {
            self.objects.remove(&id);
            self.stable_objects.remove(&id);
            self.entries.remove(&id);
            self.stable_entries.remove(&id);
            self.parents.remove(&id);
        }
    }

    /// The disk as another program finds it after this one was killed: nothing is lost, nothing is open.
    pub(super) fn after_kill(&self) -> Disk {
        let mut disk = self.clone();
        for id in std::mem::take(&mut disk.open).into_keys() {
            disk.free_if_unused(id);
        }
        disk
    }

    /// The disk as it may be found after a power loss.
    pub(super) fn after_power_loss(&self, rng: &mut Rng) -> Disk {
        let mut disk = self.clone();
        let mut entries = self.stable_entries.clone();
        for change in self.surviving_changes(rng) {
            apply(&mut entries, &change.edits);
        }
        let links = links_from_root(&entries);
        disk.entries = entries;
        disk.entries.retain(|dir, _| links.contains_key(dir));
        disk.objects = BTreeMap::new();
        for (id, count) in &links {
            if let Some(object) = self.surviving_object(*id, rng) {
                disk.objects.insert(*id, Object { links: *count, ..object });
            }
        }
        disk.parents = BTreeMap::new();
        for (dir, names) in &disk.entries {
            for id in names.values().filter(|id| disk.entries.contains_key(id)) {
                disk.parents.insert(*id, *dir);
            }
        }
        disk.settle_inodes();
        disk.used_bytes = disk.objects.values().map(Object::len).sum();
        disk.stable_objects = disk.objects.clone();
        disk.stable_entries = disk.entries.clone();
        disk.journal.clear();
        disk.dirty.clear();
        disk.open.clear();
        disk
    }

    /// Chooses which of the unsynced changes of names survive, in order.
    fn surviving_changes(&self, rng: &mut Rng) -> Vec<&Change> {
        if self.options.crash_model == CrashModel::OrderedMetadata {
            let count = rng.index(self.journal.len() + 1);
            return self.journal.iter().take(count).collect();
        }
        // For each thing touched, how many of its changes the disk came to write.
        let mut budget: BTreeMap<Touched, u64> = BTreeMap::new();
        for touched in self.journal.iter().flat_map(|change| &change.touches) {
            *budget.entry(*touched).or_default() += 1;
        }
        for (touched, count) in &mut budget {
            // Only directories have journals of their own; the rest merely ties changes together.
            if matches!(touched, Touched::Entries(_)) {
                *count = rng.below(*count + 1);
            }
        }
        let mut survivors = Vec::new();
        for change in &self.journal {
            let left = change.touches.iter().all(|touched| budget.get(touched).is_some_and(|left| *left > 0));
            for touched in &change.touches {
                // What is passed over takes all that rests on it along.
                budget.entry(*touched).and_modify(|count| *count = if left { *count - 1 } else { 0 });
            }
            if left {
                survivors.push(change);
            }
        }
        survivors
    }

    /// Chooses what is left of an object's content and attributes.
    fn surviving_object(&self, id: Id, rng: &mut Rng) -> Option<Object> {
        let stable = self.stable_objects.get(&id)?;
        let live = match self.objects.get(&id) {
            Some(live) if self.dirty.contains(&id) => live,
            _ => return Some(stable.clone()),
        };
        let attributes = if rng.chance(1, 2) { live } else { stable };
        let body = match (&stable.body, &live.body) {
            (Body::File(before), Body::File(after)) if before != after => {
                Body::File(Arc::new(self.surviving_content(before, after, rng)))
            }
            (_, body) => body.clone(),
        };
        Some(Object { body, ..attributes.clone() })
    }

    fn surviving_content(&self, before: &[u8], after: &[u8], rng: &mut Rng) -> Vec<u8> {
        let kinds = match self.options.crash_model {
            CrashModel::OrderedMetadata => 4,
            CrashModel::Anything => 5,
        };
        let mut content = match rng.below(kinds) {
            0 => return before.to_vec(),
            1 => return Vec::new(),
            _ => after.to_vec(),
        };
        let cut = rng.index(content.len() + 1);
        match rng.below(kinds - 2) {
            0 => {}
            1 => content.truncate(cut),
            _ => content[cut..].fill(0),
        }
        content
    }

    /// Sees to it that no two objects have one inode number: the newer cannot have got it on this disk.
    fn settle_inodes(&mut self) {
        let mut taken = BTreeSet::new();
        for object in self.objects.values_mut() {
            if !taken.insert(object.inode) {
                object.inode = self.next_inode;
                taken.insert(self.next_inode);
                self.next_inode += 1;
            }
        }
        self.free_inodes.retain(|inode| !taken.contains(inode));
    }
}

/// Everything that can be reached from the root, with the number of its names.
fn links_from_root(entries: &BTreeMap<Id, BTreeMap<Vec<u8>, Id>>) -> BTreeMap<Id, u64> {
    let mut links = BTreeMap::from([(ROOT, 1)]);
    let mut waiting = vec![ROOT];
    while let Some(dir) = waiting.pop() {
        for id in entries.get(&dir).into_iter().flat_map(BTreeMap::values) {
            let count = links.entry(*id).or_default();
            *count += 1;
            if *count == 1 {
                waiting.push(*id);
            }
        }
    }
    links
}
