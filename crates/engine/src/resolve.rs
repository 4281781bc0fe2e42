//! Settling a conflict: one side is kept, or each becomes a file of its own.
//!
//! A round comes first, so that what was edited here is a version like any other and what others did is known. The
//! settlement is then one packet: it names every head that it replaces, so it settles the conflict everywhere, and an
//! edit that nobody here has seen still stands beside what was kept. A second round publishes it and brings it to disk.

use std::collections::BTreeMap;

use packetboat_core::change::{Change, Removed};
use packetboat_core::content::Content;
use packetboat_core::ids::{Dot, ItemId};
use packetboat_core::item::Item;
use packetboat_core::local::{LocalEntry, LocalRead, View};
use packetboat_core::name::RelPath;
use packetboat_core::plan::shown_name;
use packetboat_core::publish::created;
use packetboat_core::tree::{TreeRead, TreeWrite};
use packetboat_core::view::{Shown, ViewRead, Viewer};

use crate::builder::{Draft, chunks_of, content_of, seal_own, time_of_operation};
use crate::error::{QueryError, SyncError};
use crate::ports::Observer;
use crate::replica::{Keep, Kept, Replica, Report, Settled, SyncOptions};
use crate::round::together;

impl Replica {
    /// Settles the conflict at a path, or of which a copy stands at the path, and synchronises.
    ///
    /// [`Keep::Mine`] is what this device wrote; where it wrote none of the sides or several, it is the one at the path.
    /// [`Keep::Theirs`] is what another device wrote; of several the one at the path, else the first of them.
    pub fn resolve(&mut self, path: &RelPath, keep: Keep, observer: &mut dyn Observer) -> Result<Report, QueryError> {
        let before = self.sync(SyncOptions::default(), observer)?;
        let sides = self.sides(path)?;
        let settled_path = self.shown_path(&sides[0])?;
        let chosen = match keep {
            Keep::Mine | Keep::Theirs => Some(self.choose(&sides, path, keep)),
            Keep::Both => None,
        };
        let kept = match chosen {
            Some(chosen) => self.kept(chosen)?,
            None => Kept::All(sides.iter().map(|side| self.shown_path(side)).collect::<Result<_, _>>()?),
        };
        self.parts.index.begin()?;
        let settled = match chosen {
            Some(chosen) => self.keep_one(&sides, chosen),
            None => self.keep_both(&sides),
        };
        if let Err(error) = settled {
            self.parts.index.rollback()?;
            return Err(error);
        }
        self.parts.index.commit()?;
        let after = self.sync(SyncOptions::default(), observer)?;
        Ok(Report { settled: Some(Settled { path: settled_path, kept }), ..both(&before, after) })
    }

    /// The side that is kept, by who wrote it.
    fn kept(&self, chosen: &Shown) -> Result<Kept, SyncError> {
        let author = chosen.heads.last().expect("what is shown has a version").device;
        Ok(Kept::One { device: self.parts.index.device_label(&author)?, mine: author == self.keys.device.device() })
    }

    /// Where a side is shown.
    pub(crate) fn shown_path(&self, side: &Shown) -> Result<RelPath, SyncError> {
        Ok(Viewer::new(&self.parts.index).path_of(side.parent)?.join(&side.name))
    }

    /// Everything that stands against each other at a path, the holder of the plain name first.
    pub(crate) fn sides(&self, path: &RelPath) -> Result<Vec<Shown>, QueryError> {
        let viewer = Viewer::new(&self.parts.index);
        let no_conflict = || QueryError::NoConflict { path: path.clone() };
        let shown = viewer.at_path(path)?.ok_or_else(no_conflict)?;
        let item = self.parts.index.item(shown.item)?.ok_or_else(no_conflict)?;
        let (parent, name) = viewer.place_of(&item)?;
        let sides = viewer.place(parent, &name)?;
        if sides.len() > 1 { Ok(sides) } else { Err(no_conflict()) }
    }

    /// Which of the sides is kept.
    fn choose<'s>(&self, sides: &'s [Shown], path: &RelPath, keep: Keep) -> &'s Shown {
        let own = self.keys.device.device();
        let name = path.split().map(|(_, name)| name);
        let at_path = sides.iter().find(|side| Some(&side.name) == name.as_ref());
        let is_mine = |side: &&Shown| side.heads.iter().any(|head| head.device == own);
        let candidates: Vec<&Shown> = sides.iter().filter(|side| is_mine(side) == (keep == Keep::Mine)).collect();
        if let [one] = candidates[..] {
            return one;
        }
        if let Some(side) = at_path.filter(|side| candidates.is_empty() || candidates.contains(side)) {
            // A plain path says nothing about which of the others is meant, where all are this device's.
            if keep == Keep::Mine || !candidates.is_empty() || side.view != View::Plain {
                return side;
            }
        }
        let other = if keep == Keep::Theirs { &sides[1] } else { &sides[0] };
        candidates.first().copied().unwrap_or(other)
    }

    fn keep_one(&mut self, sides: &[Shown], chosen: &Shown) -> Result<(), QueryError> {
        let mut changes = Vec::new();
        let mut removed = BTreeMap::new();
        for side in sides.iter().filter(|side| side.item != chosen.item) {
            if side.content.is_directory() {
                let viewer = Viewer::new(&self.parts.index);
                let path = viewer.path_of(side.parent)?.join(&side.name);
                return Err(QueryError::DirectoryInTheWay { path });
            }
            for id in std::iter::once(side.item).chain(side.twins.iter().map(|twin| twin.item)) {
                if let Some(item) = self.parts.index.item(id)? {
                    removed.insert(id, all_of(&item));
                }
            }
        }
        let item = self.item(chosen.item)?;
        if item.seats().len() > 1 {
            changes.push(Change::Content {
                item: item.id,
                content: chosen.content.clone(),
                replaces: item.heads.iter().map(|head| head.dot).collect(),
                trail: Vec::new(),
            });
        }
        if !removed.is_empty() {
            changes.push(Change::Delete { removed: removed.into_values().collect() });
        }
        let has_new_head = item.seats().len() > 1;
        let dot = self.settle(changes)?;
        // The object on disk at the plain name has the bytes already, where it is the one that is kept.
        if has_new_head && chosen.view != View::Copy {
            for mut entry in self.entries_of(chosen)? {
                entry.seen.heads = vec![dot];
                self.parts.index.put_entry(&entry)?;
            }
        }
        self.touch(sides)
    }

    fn keep_both(&mut self, sides: &[Shown]) -> Result<(), QueryError> {
        let mut changes = Vec::new();
        let mut dropped: BTreeMap<ItemId, Vec<Dot>> = BTreeMap::new();
        let mut new_items = Vec::new();
        for side in &sides[1..] {
            match side.view {
                View::Copy => {
                    let mut id = [0; 16];
                    self.parts.entropy.fill(&mut id);
                    new_items.push((side, ItemId(id)));
                    changes.push(Change::Create {
                        item: ItemId(id),
                        parent: side.parent,
                        name: side.name.clone(),
                        content: side.content.clone(),
                        mode: side.mode,
                        xattrs: side.xattrs.clone(),
                    });
                    dropped.entry(side.item).or_default().extend(&side.heads);
                }
                _ => {
                    let twins = side.twins.iter().map(|twin| (twin.item, &twin.placements));
                    for (item, placements) in std::iter::once((side.item, &side.placements)).chain(twins) {
                        let (parent, name, replaces) = (side.parent, side.name.clone(), placements.clone());
                        changes.push(Change::Place { item, parent, name, replaces });
                    }
                }
            }
        }
        if !dropped.is_empty() {
            let removed = dropped.into_iter().map(|(item, mut heads)| {
                heads.sort_unstable();
                Removed { item, heads, placements: Vec::new() }
            });
            changes.push(Change::Delete { removed: removed.collect() });
        }
        let entries = sides[1..].iter().map(|side| self.entries_of(side)).collect::<Result<Vec<_>, _>>()?;
        let dot = self.settle(changes)?;
        // What stands on disk under the conflict names now stands for itself.
        for (side, entries) in sides[1..].iter().zip(entries) {
            let new_item = new_items.iter().find(|(of, _)| *of == side).map(|(_, item)| *item);
            for mut entry in entries {
                let view = match &entry.seen.view {
                    View::Mapped { .. } => entry.seen.view.clone(),
                    _ => View::Plain,
                };
                match new_item {
                    Some(item) => entry.seen = created(item, dot),
                    None => entry.seen.placements = vec![dot],
                }
                for twin in &mut entry.seen.twins {
                    twin.placements = vec![dot];
                }
                entry.seen.view = view;
                self.parts.index.put_entry(&entry)?;
            }
        }
        for (_, item) in new_items {
            self.parts.index.touch(item)?;
        }
        self.touch(sides)
    }

    /// The objects on disk that show a side.
    fn entries_of(&self, side: &Shown) -> Result<Vec<LocalEntry>, SyncError> {
        let mut entries = self.parts.index.entries_of(side.item)?;
        entries.retain(|entry| {
            *shown_name(entry) == side.name && entry.seen.heads.iter().any(|head| side.heads.contains(head))
        });
        Ok(entries)
    }

    fn item(&self, id: ItemId) -> Result<Item, SyncError> {
        self.parts.index.item(id)?.ok_or(SyncError::DamagedIndex { what: "an item in a conflict" })
    }

    /// Seals and folds the settlement. Within the caller's transaction.
    pub(crate) fn settle(&mut self, changes: Vec<Change>) -> Result<Dot, SyncError> {
        let now_ms = self.time_of_operation()?;
        self.settle_at(now_ms, changes)
    }

    /// The time that the packets of an operation bear which begins now.
    pub(crate) fn time_of_operation(&self) -> Result<i64, SyncError> {
        time_of_operation(&self.parts.index, &self.keys, self.parts.clock.now_ms())
    }

    /// The same at a given time: packets that belong together bear the same.
    pub(crate) fn settle_at(&mut self, now_ms: i64, changes: Vec<Change>) -> Result<Dot, SyncError> {
        let contents: Vec<Content> = changes.iter().filter_map(content_of).cloned().collect();
        let packs = self.store_anew(&contents)?;
        let parts = &mut self.parts;
        let mut needs = parts.index.packs_of(contents.iter().flat_map(chunks_of).map(|chunk| &chunk.id))?;
        needs.retain(|pack| packs.iter().all(|told| told.pack != *pack));
        let draft = Draft { needs, packs, changes, ..Draft::default() };
        let sealed = seal_own(&mut parts.index, &self.keys, now_ms, draft, &mut *parts.entropy)?;
        Ok(sealed.dot())
    }

    /// Has the next round look at all that these sides show.
    fn touch(&mut self, sides: &[Shown]) -> Result<(), QueryError> {
        for side in sides {
            self.parts.index.touch(side.item)?;
            for twin in &side.twins {
                self.parts.index.touch(twin.item)?;
            }
        }
        Ok(())
    }
}

/// All that stands of an item, for a delete.
fn all_of(item: &Item) -> Removed {
    let mut placements: Vec<Dot> = item.placements.iter().map(|standing| standing.placed.stamp.dot()).collect();
    placements.sort_unstable();
    Removed { item: item.id, heads: item.heads.iter().map(|head| head.dot).collect(), placements }
}

/// What two rounds did together, and the packet that was published between them.
pub(crate) fn both(first: &Report, second: Report) -> Report {
    let mut all = together(first, second);
    all.published.packets += 1;
    all
}
