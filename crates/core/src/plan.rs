//! The plan for this disk: a pure function of what is to be seen and what is there.
//!
//! Local changes are folded before a plan is made, so a plan only makes the disk show what the view shows.
//! It looks at the places of touched items alone, and reads others through ports; it never holds a tree.
//! Each step has a cause. Steps come in an order in which they can be carried out: a directory before what it holds.
//! Removals are kept apart; they are carried out last, when nothing is left to be moved out of what goes.

use std::collections::{BTreeSet, HashSet};

use crate::content::Content;
use crate::ids::{Dot, ItemId};
use crate::item::Head;
use crate::local::{EntryState, LocalEntry, LocalRead, Seen, View};
use crate::name::Name;
use crate::tree::{ChildCursor, TreeRead};
use crate::view::{Shown, ViewRead, Viewer};

/// Reads versions that are heads no longer.
pub trait HistoryRead: TreeRead {
    /// A content version of an item, whether it is still a head or not.
    fn version(&self, item: ItemId, dot: &Dot) -> Result<Option<Head>, Self::Error>;
}

/// All that planning reads.
pub trait PlanRead: ViewRead + HistoryRead + LocalRead<Error = <Self as TreeRead>::Error> {}

impl<T: ViewRead + HistoryRead + LocalRead<Error = <T as TreeRead>::Error>> PlanRead for T {}

/// One step towards showing what is to be seen.
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum Step {
    /// Make an object that is not there.
    Make {
        /// What it is and where.
        shown: Shown,
    },
    /// Change an object that is there.
    Change {
        /// What is there.
        entry: LocalEntry,
        /// What it is to become.
        shown: Shown,
        /// Whether its bytes change.
        content: bool,
        /// Whether it goes to another place.
        place: bool,
        /// Whether its permissions or extended attributes change.
        attributes: bool,
    },
    /// Note that what is there stands for something else now; the disk does not change.
    Agree {
        /// What is there.
        entry: LocalEntry,
        /// What it stands for.
        shown: Shown,
    },
    /// Remove an object.
    Remove {
        /// What is there.
        entry: LocalEntry,
    },
}

/// Why a step is taken.
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum Cause {
    /// Another device made or changed the content.
    Content(Dot),
    /// Another device moved it, or a directory of its name now stands first.
    Placement(Dot),
    /// Another device changed permissions or extended attributes.
    Attributes,
    /// Two contents stand against each other, and this is one of them.
    Conflict(Dot),
    /// Another device removed it.
    Deleted(Option<Dot>),
    /// The same bytes, or a directory of the same name, are seen in its stead.
    Merged,
    /// Only the record changes.
    Recorded,
}

/// A step and its cause.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Planned {
    /// What to do.
    pub step: Step,
    /// Why.
    pub cause: Cause,
}

/// A batch of steps.
#[derive(Clone, PartialEq, Eq, Default, Debug)]
pub struct Plan {
    /// What to make and change, in order.
    pub steps: Vec<Planned>,
    /// What to remove once nothing is left to make or change.
    pub removals: Vec<Planned>,
    /// Items to be looked at too, because the directory that holds them on disk changed its meaning.
    pub also: BTreeSet<ItemId>,
    /// Items at whose places several contents stand against each other, one for each place.
    pub conflicts: BTreeSet<ItemId>,
}

/// Plans for the places of these items.
pub fn plan<T: PlanRead>(tree: &T, touched: &[ItemId]) -> Result<Plan, <T as TreeRead>::Error> {
    let mut planner = Planner { viewer: Viewer::new(tree), plan: Plan::default(), planned: HashSet::new() };
    for item in touched {
        planner.item(*item)?;
    }
    Ok(planner.plan)
}

struct Planner<'a, T> {
    viewer: Viewer<'a, T>,
    plan: Plan,
    planned: HashSet<(ItemId, Name)>,
}

impl<T: PlanRead> Planner<'_, T> {
    /// Plans the place where an item belongs, and the places on disk where it is seen now.
    fn item(&mut self, id: ItemId) -> Result<(), <T as TreeRead>::Error> {
        let Some(item) = self.viewer.tree().item(id)? else {
            // It was deleted so long ago that nothing is left of it but what stands here.
            let removal = |entry| Planned { step: Step::Remove { entry }, cause: Cause::Deleted(None) };
            self.plan.removals.extend(self.viewer.tree().entries_of(id)?.into_iter().map(removal));
            return Ok(());
        };
        let (parent, name) = self.viewer.place_of(&item)?;
        self.place(parent, name)?;
        for entry in self.viewer.tree().entries_of(id)? {
            if entry.seen.view == View::Plain && entry.dir != crate::local::DirId::STAGING {
                let parent = self.shown_directory(&entry)?;
                self.place(parent, entry.name)?;
            }
        }
        Ok(())
    }

    fn place(&mut self, parent: ItemId, name: Name) -> Result<(), <T as TreeRead>::Error> {
        if !self.planned.insert((parent, name.clone())) {
            return Ok(());
        }
        // The directory first: a step may need it to be there.
        if let Some(directory) = self.viewer.tree().item(parent)? {
            let (above, name) = self.viewer.place_of(&directory)?;
            self.place(above, name)?;
        }
        let shown = self.viewer.place(parent, &name)?;
        if let [first, _, ..] = &shown[..] {
            self.plan.conflicts.insert(first.item);
        }
        let mut entries = Vec::new();
        for directory in self.viewer.class(parent)?.iter() {
            for id in self.viewer.tree().named(*directory, &name)? {
                entries.extend(self.viewer.tree().entries_of(id)?);
            }
        }
        entries.retain(|entry| entry.state != EntryState::Frozen);
        let matched = match_entries(&shown, entries);
        for (shown, entry) in shown.into_iter().zip(matched.of_shown) {
            match entry {
                Some(entry) => self.compare(entry, shown)?,
                None => {
                    let cause = content_cause(&shown);
                    self.plan.steps.push(Planned { step: Step::Make { shown }, cause });
                }
            }
        }
        for entry in matched.left {
            // What is seen in its twins may lie in this directory on disk, and is to leave it before it can go.
            self.children_of(entry.seen.twins.iter().map(|twin| twin.item))?;
            let cause = self.removal_cause(&entry)?;
            self.plan.removals.push(Planned { step: Step::Remove { entry }, cause });
        }
        // An item that bears the name of a conflict copy has that copy shown under a longer one.
        match crate::conflict_name::base_of(&name) {
            Some(base) => self.place(parent, base),
            None => Ok(()),
        }
    }

    fn compare(&mut self, entry: LocalEntry, shown: Shown) -> Result<(), <T as TreeRead>::Error> {
        let content = !shares(&entry.seen.heads, &shown.heads) && !self.same_bytes(&entry, &shown)?;
        let place = entry.dir == crate::local::DirId::STAGING
            || shown_name(&entry) != &shown.name
            || self.shown_directory(&entry)? != shown.parent;
        // A symlink has no permissions of its own; those of its item are for when it is a file again.
        let link = matches!(shown.content, Content::Symlink(_));
        let mode = !link && shown.mode.is_some_and(|mode| entry.mode != Some(mode));
        let attributes = mode || (!link && entry.xattrs != shown.xattrs);
        if shown.content.is_directory() {
            self.children_of_changed_twins(&entry, &shown)?;
        }
        if content || place || attributes {
            let cause = if content {
                content_cause(&shown)
            } else if place {
                Cause::Placement(shown.placed)
            } else {
                Cause::Attributes
            };
            self.plan.steps.push(Planned { step: Step::Change { entry, shown, content, place, attributes }, cause });
        } else if entry.seen != seen_of(&shown, &entry.seen.view) {
            self.plan.steps.push(Planned { step: Step::Agree { entry, shown }, cause: Cause::Recorded });
        }
        Ok(())
    }

    /// Whether the version on disk holds the bytes to be shown, though under another version.
    fn same_bytes(&self, entry: &LocalEntry, shown: &Shown) -> Result<bool, <T as TreeRead>::Error> {
        let Some(dot) = entry.seen.heads.first() else { return Ok(shown.content.is_directory()) };
        let version = self.viewer.tree().version(entry.seen.item, dot)?;
        Ok(version.is_some_and(|version| version.content.agrees(&shown.content)))
    }

    /// The item of the directory that holds an entry on disk, as it is seen now.
    fn shown_directory(&self, entry: &LocalEntry) -> Result<ItemId, <T as TreeRead>::Error> {
        match self.viewer.tree().directory(entry.dir)? {
            Some(directory) => self.viewer.stands_for(directory.seen.item),
            None => Ok(ItemId::ROOT),
        }
    }

    /// When directories come to be seen as one, or no longer are, what they hold changes its place on disk.
    fn children_of_changed_twins(&mut self, entry: &LocalEntry, shown: &Shown) -> Result<(), <T as TreeRead>::Error> {
        let before: BTreeSet<ItemId> =
            members(&entry.seen.twins.iter().map(|t| t.item).collect::<Vec<_>>(), entry.seen.item);
        let after: BTreeSet<ItemId> = members(&shown.twins.iter().map(|t| t.item).collect::<Vec<_>>(), shown.item);
        if before == after {
            return Ok(());
        }
        // Those of the directories that stay as well: what the others hold no longer takes their names, or does from now on.
        self.children_of(before.union(&after).copied())
    }

    /// Has what these directories hold looked at too.
    fn children_of(&mut self, directories: impl Iterator<Item = ItemId>) -> Result<(), <T as TreeRead>::Error> {
        for directory in directories {
            let mut cursor: Option<ChildCursor> = None;
            loop {
                let page = self.viewer.tree().children(directory, cursor, 256)?;
                let Some((last, _)) = page.last() else { break };
                cursor = Some(last.clone());
                self.plan.also.extend(page.into_iter().map(|(_, item)| item));
            }
        }
        Ok(())
    }

    fn removal_cause(&self, entry: &LocalEntry) -> Result<Cause, <T as TreeRead>::Error> {
        let Some(item) = self.viewer.tree().item(entry.seen.item)? else { return Ok(Cause::Deleted(None)) };
        if crate::tree::is_shown(self.viewer.tree(), &item)? {
            return Ok(Cause::Merged);
        }
        // One that an edit outlived removed nothing; where several did it together, either may be told.
        let alone = item.deletes.iter().find(|delete| item.is_removed_by(|counts| counts == *delete));
        Ok(Cause::Deleted(alone.or(item.deletes.last()).copied()))
    }
}

fn members(twins: &[ItemId], own: ItemId) -> BTreeSet<ItemId> {
    twins.iter().copied().chain([own]).collect()
}

/// What an entry has seen once it shows this; a name mapped on disk stays mapped while the shown name is the same.
pub fn seen_of(shown: &Shown, before: &View) -> Seen {
    let view = match before {
        View::Mapped { shown: name } if *name == shown.name => before.clone(),
        _ => shown.view.clone(),
    };
    Seen {
        item: shown.item,
        heads: shown.heads.clone(),
        placements: shown.placements.clone(),
        view,
        twins: shown.twins.clone(),
    }
}

/// The name under which others see what this entry stands for.
pub fn shown_name(entry: &LocalEntry) -> &Name {
    match &entry.seen.view {
        View::Mapped { shown } => shown,
        _ => &entry.name,
    }
}

fn content_cause(shown: &Shown) -> Cause {
    let newest = *shown.heads.last().expect("what is shown has a version");
    if shown.in_conflict || shown.view != View::Plain { Cause::Conflict(newest) } else { Cause::Content(newest) }
}

struct Matched {
    /// For each of the shown, the object on disk that shows it or is to become it.
    of_shown: Vec<Option<LocalEntry>>,
    /// Objects that nothing is left for.
    left: Vec<LocalEntry>,
}

/// Finds for each of the shown the object on disk that is nearest to it: the same version, then an earlier one of the
/// same branch, then any other of the same item, then one of a twin.
fn match_entries(shown: &[Shown], mut entries: Vec<LocalEntry>) -> Matched {
    let mut of_shown: Vec<Option<LocalEntry>> = vec![None; shown.len()];
    type Nearness = fn(&Shown, &LocalEntry) -> bool;
    let rules: [Nearness; 5] = [
        |shown, entry| entry.seen.item == shown.item && shares(&entry.seen.heads, &shown.heads),
        |shown, entry| entry.seen.item == shown.item && shares(&entry.seen.heads, &shown.trail),
        |shown, entry| entry.seen.item == shown.item,
        |shown, entry| shown.twins.iter().any(|t| t.item == entry.seen.item && shares(&t.heads, &entry.seen.heads)),
        |shown, entry| shown.twins.iter().any(|t| t.item == entry.seen.item),
    ];
    for near in rules {
        for (shown, slot) in shown.iter().zip(&mut of_shown) {
            if slot.is_some() {
                continue;
            }
            let directory = matches!(shown.content, Content::Directory);
            let found = entries.iter().position(|entry| entry.own_dir.is_some() == directory && near(shown, entry));
            *slot = found.map(|at| entries.remove(at));
        }
    }
    Matched { of_shown, left: entries }
}

fn shares(a: &[Dot], b: &[Dot]) -> bool {
    a.iter().any(|dot| b.contains(dot))
}

#[cfg(test)]
mod tests;
