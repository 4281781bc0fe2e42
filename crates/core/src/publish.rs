//! What this disk's own changes mean to the vault: from what was seen before and what the disk shows now to changes.
//!
//! Every change names what the disk had last agreed on with the vault ([`Seen`]), not what was learned a moment ago.
//! A local change that the vault already holds (both sides did the same) is agreement and publishes nothing.

use crate::change::{Change, Mark, Removed};
use crate::content::Content;
use crate::ids::{Dot, ItemId};
use crate::item::Item;
use crate::local::{LocalEntry, Seen, View};
use crate::name::Name;
use crate::plan::HistoryRead;
use crate::tree::{TreeRead, is_shown};
use crate::view::{Shown, ViewRead, Viewer};

/// What becomes of one local change.
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum Publish {
    /// The vault holds it already; the entry has now seen this.
    Agreed(Seen),
    /// Publish these. In the entry afterwards, the packet's dot stands where [`SeenAfter`] says.
    Changes(Vec<Change>, SeenAfter),
}

/// Which parts of an entry's `seen` the new packet sets.
#[derive(Clone, Copy, PartialEq, Eq, Default, Debug)]
pub struct SeenAfter {
    /// It stands for this new item.
    pub created: Option<ItemId>,
    /// It has seen the new head alone.
    pub content: bool,
    /// It has seen the new placement alone.
    pub place: bool,
}

impl SeenAfter {
    /// What an entry has seen after a packet with this dot.
    pub fn apply(&self, seen: &Seen, dot: Dot) -> Seen {
        if let Some(item) = self.created {
            return created(item, dot);
        }
        let mut after = seen.clone();
        if self.content {
            after.heads = vec![dot];
        }
        if self.place {
            after.placements = vec![dot];
            after.view = View::Plain;
        }
        after
    }

    /// Both.
    pub fn and(self, other: Self) -> Self {
        Self {
            created: self.created.or(other.created),
            content: self.content || other.content,
            place: self.place || other.place,
        }
    }
}

/// What has been seen of an item that the packet `dot` made.
pub fn created(item: ItemId, dot: Dot) -> Seen {
    Seen { item, heads: vec![dot], placements: vec![dot], view: View::Plain, twins: Vec::new() }
}

/// The bytes of a file or the target of a symlink were changed.
///
/// `beside` are the versions of the item that this disk shows at other places. Whoever writes one of these here settles a
/// conflict and knows it, which is no agreement: where the other place is emptied too, nothing else would keep the bytes.
pub fn edited<T: ViewRead + HistoryRead>(
    tree: &T,
    seen: &Seen,
    beside: &[Dot],
    content: Content,
) -> Result<Publish, T::Error> {
    if let Some(item) = tree.item(seen.item)? {
        let standing = item.heads.iter().any(|head| seen.heads.contains(&head.dot));
        if !standing && is_shown(tree, &item)? {
            let is_news = |dots: &[Dot]| !dots.iter().any(|dot| beside.contains(dot));
            let mut seats = item.seats().into_iter();
            if let Some(seat) = seats.find(|seat| seat.head.content.agrees(&content) && is_news(&seat.dots)) {
                return Ok(Publish::Agreed(Seen { heads: seat.dots.clone(), ..seen.clone() }));
            }
            if let Some(passed) = passed_by(tree, &item, Some(seen), &content)? {
                return Ok(Publish::Agreed(Seen { heads: vec![passed], ..seen.clone() }));
            }
        }
    }
    let trail = trail_of(tree, seen)?;
    let mut changes = vec![Change::Content { item: seen.item, content, replaces: seen.heads.clone(), trail }];
    changes.extend(absorb_twins(seen));
    Ok(Publish::Changes(changes, SeenAfter { content: true, ..SeenAfter::default() }))
}

/// What a file without a record has seen that a crash may have left in this place, if others have replaced it since.
pub fn left_behind<T: HistoryRead>(tree: &T, shown: &Shown, content: &Content) -> Result<Option<Seen>, T::Error> {
    let Some(item) = tree.item(shown.item)? else { return Ok(None) };
    let passed = passed_by(tree, &item, None, content)?;
    Ok(passed.map(|dot| Seen { heads: vec![dot], ..crate::plan::seen_of(shown, &shown.view) }))
}

/// A version with this content that came after what was seen, if anything was, and that another has replaced since.
///
/// The disk shows it after a crash between bringing it there and recording that; to publish it would set it against the
/// version whose author had seen it.
fn passed_by<T: HistoryRead>(
    tree: &T,
    item: &Item,
    seen: Option<&Seen>,
    content: &Content,
) -> Result<Option<Dot>, T::Error> {
    for head in item.heads.iter().filter(|head| head.deletes.is_empty()) {
        let at = match seen {
            None => Some(head.trail.len()),
            Some(seen) => head.trail.iter().position(|mark| seen.heads.contains(&mark.dot)),
        };
        let Some(at) = at else { continue };
        for mark in &head.trail[..at] {
            if tree.version(item.id, &mark.dot)?.is_some_and(|version| version.content.agrees(content)) {
                return Ok(Some(mark.dot));
            }
        }
    }
    Ok(None)
}

/// The line of versions that an edit of what was seen continues.
///
/// Of several that agree it is that of the one that has the seat for them: any other would change seats.
fn trail_of<T: HistoryRead>(tree: &T, seen: &Seen) -> Result<Vec<Mark>, T::Error> {
    let Some(item) = tree.item(seen.item)? else { return Ok(Vec::new()) };
    if let Some(head) = item.last_begun(&seen.heads) {
        return Ok(item.trail_after(head));
    }
    let Some(dot) = seen.heads.last() else { return Ok(Vec::new()) };
    let head = tree.version(seen.item, dot)?;
    Ok(head.map(|head| item.trail_after(&head)).unwrap_or_default())
}

/// An object was moved or renamed to (`parent`, `name`), where `parent` is a directory's item.
///
/// Where a conflict copy was moved away, it becomes the item `new_item` with what was `found` there.
pub fn moved<T: ViewRead + HistoryRead>(
    viewer: &Viewer<'_, T>,
    entry: &LocalEntry,
    parent: ItemId,
    name: &Name,
    new_item: ItemId,
    found: &Found,
) -> Result<Publish, T::Error> {
    let (tree, seen) = (viewer.tree(), &entry.seen);
    let item = tree.item(seen.item)?;
    if let Some(item) = &item
        && viewer.stands_for(item.at.parent)? == viewer.stands_for(parent)?
        && item.at.name == *name
    {
        let placements = crate::view::placement_dots(tree, item)?;
        return Ok(Publish::Agreed(Seen { placements, view: View::Plain, ..seen.clone() }));
    }
    if seen.view == View::Copy {
        let create = Change::Create {
            item: new_item,
            parent,
            name: name.clone(),
            content: found.content.clone(),
            mode: found.mode,
            xattrs: found.xattrs.clone(),
        };
        let after = SeenAfter { created: Some(new_item), ..SeenAfter::default() };
        return Ok(Publish::Changes(vec![create, drop_heads(seen)], after));
    }
    let place = |item: ItemId, replaces: &[Dot]| Change::Place {
        item,
        parent,
        name: name.clone(),
        replaces: replaces.to_vec(),
    };
    let mut changes = vec![place(seen.item, &seen.placements)];
    if entry.own_dir.is_some() {
        changes.extend(seen.twins.iter().map(|twin| place(twin.item, &twin.placements)));
    } else {
        changes.extend(absorb_twins(seen));
    }
    Ok(Publish::Changes(changes, SeenAfter { place: true, ..SeenAfter::default() }))
}

/// What a delete names for objects of one item that are gone from the disk.
///
/// Of an item in conflict these may be some of its sides: the delete names their heads, and the others keep the item alive.
/// It names the placements all the same, so that the item is dead when its last side is removed, whoever removes it.
/// Returns nothing where the vault already has them gone.
pub fn removed<T: TreeRead>(tree: &T, gone: &[LocalEntry]) -> Result<Vec<Removed>, T::Error> {
    let mut all = Vec::new();
    for entry in gone {
        let seen = &entry.seen;
        let placements = seen.placements.clone();
        merge_removed(&mut all, Removed { item: seen.item, heads: seen.heads.clone(), placements: placements.clone() });
        for twin in &seen.twins {
            let removed = Removed { item: twin.item, heads: twin.heads.clone(), placements: twin.placements.clone() };
            merge_removed(&mut all, removed);
        }
    }
    let mut still_there = Vec::new();
    for removed in all {
        if let Some(item) = tree.item(removed.item)?
            && crate::tree::is_alive(tree, &item)?
            && removes_something(&item, &removed)
        {
            still_there.push(removed);
        }
    }
    Ok(still_there)
}

fn removes_something(item: &Item, removed: &Removed) -> bool {
    item.heads.iter().any(|head| removed.heads.contains(&head.dot))
        || item.placements.iter().any(|standing| removed.placements.contains(&standing.placed.stamp.dot()))
}

fn merge_removed(all: &mut Vec<Removed>, new: Removed) {
    let Some(known) = all.iter_mut().find(|known| known.item == new.item) else { return all.push(new) };
    for (known, new) in [(&mut known.heads, new.heads), (&mut known.placements, new.placements)] {
        known.extend(new);
        known.sort();
        known.dedup();
    }
}

/// What was found on disk.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Found {
    /// What it holds.
    pub content: Content,
    /// Permission bits; none for symlinks.
    pub mode: Option<u32>,
    /// Extended attributes, sorted by name.
    pub xattrs: Vec<(Vec<u8>, Vec<u8>)>,
}

/// An object stands at a place where this disk had none.
///
/// `shown` is what the vault shows there and this disk does not have yet, if anything.
pub fn appeared(shown: Option<&Shown>, new_item: ItemId, parent: ItemId, name: &Name, found: &Found) -> Publish {
    let content = found.content.clone();
    if let Some(shown) = shown {
        if shown.content.agrees(&content) {
            return Publish::Agreed(crate::plan::seen_of(shown, &shown.view));
        }
        if !shown.content.is_directory() && !content.is_directory() && shown.view == View::Plain {
            // Not a new file but another content of the one that others know here: one conflict, not two files.
            let change = Change::Content { item: shown.item, content, replaces: Vec::new(), trail: Vec::new() };
            return Publish::Changes(vec![change], SeenAfter { content: true, ..SeenAfter::default() });
        }
    }
    let (mode, xattrs) = (found.mode, found.xattrs.clone());
    let create = Change::Create { item: new_item, parent, name: name.clone(), content, mode, xattrs };
    Publish::Changes(vec![create], SeenAfter { created: Some(new_item), ..SeenAfter::default() })
}

/// The removal of one side of a conflict.
fn drop_heads(seen: &Seen) -> Change {
    let removed = Removed { item: seen.item, heads: seen.heads.clone(), placements: seen.placements.clone() };
    Change::Delete { removed: vec![removed] }
}

/// A change of a file acts on all that are seen as one with it: they are absorbed.
fn absorb_twins(seen: &Seen) -> Option<Change> {
    let removed: Vec<Removed> = seen
        .twins
        .iter()
        .map(|twin| Removed { item: twin.item, heads: twin.heads.clone(), placements: twin.placements.clone() })
        .collect();
    (!removed.is_empty()).then_some(Change::Delete { removed })
}

#[cfg(test)]
mod tests;
