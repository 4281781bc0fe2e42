//! The tree: folding changes into items, and the replay of directory moves.
//!
//! Folding works through a port, [`TreeRead`] and [`TreeWrite`], so that no replica holds a whole tree in memory.
//! What it writes is a function of the set of packets folded; any causal order of folding gives the same items.
//!
//! Directory moves are replayed in total order (Kleppmann, Mulligan, Gomes, Beresford:
//! "A highly-available move operation for replicated trees", 2021): a move that would close a cycle is passed over,
//! and a late one is put in its place by undoing and redoing those after it.
//! A directory's first placement needs no replay: nobody can have placed anything beneath it before.
//!
//! An item is *alive* when a head or placement of it stands that no delete named, void ones disregarded.
//! A delete is *void* for an item when it also removed a directory above, which was moved unseen by it. A dead directory is *shown* while something alive lies beneath.

use std::collections::{BTreeSet, HashMap, HashSet};
use std::rc::Rc;

use crate::change::{Change, Removed};
use crate::ids::{Dot, ItemId, Stamp};
use crate::item::{Checked, Head, Item, Placed, Register};
use crate::name::Name;
use crate::packet::Packet;

/// Reads the folded items.
pub trait TreeRead {
    /// Why reading failed.
    type Error: std::error::Error + Send + Sync + 'static;

    /// An item; `None` for the root, which has no state, and for what is not known.
    fn item(&self, id: ItemId) -> Result<Option<Item>, Self::Error>;

    /// The items in force at this place ([`Item::at`]), dead ones included, sorted by id.
    fn named(&self, parent: ItemId, name: &Name) -> Result<Vec<ItemId>, Self::Error>;

    /// At most `limit` items in force beneath `parent`, dead ones included, in the order of a cursor of the implementation's choice.
    fn children(
        &self,
        parent: ItemId,
        after: Option<ChildCursor>,
        limit: usize,
    ) -> Result<Vec<(ChildCursor, ItemId)>, Self::Error>;

    /// The recorded directory moves after `stamp`, in total order.
    fn moves_after(&self, stamp: &Stamp) -> Result<Vec<MoveRecord>, Self::Error>;
}

/// Writes the folded items.
pub trait TreeWrite: TreeRead {
    /// Stores an item's state.
    fn put_item(&mut self, item: &Item) -> Result<(), Self::Error>;

    /// Stores a directory move, or what a replay made of it.
    fn put_move(&mut self, record: &MoveRecord) -> Result<(), Self::Error>;

    /// Keeps a value that was replaced, for the item's history.
    fn put_history(&mut self, item: ItemId, past: &Past) -> Result<(), Self::Error>;

    /// Notes that what this item shows may now differ from what is on this disk.
    fn touch(&mut self, item: ItemId) -> Result<(), Self::Error>;
}

/// Where to go on in a listing of children; opaque to callers.
#[derive(Clone, PartialEq, Eq, PartialOrd, Ord, Debug)]
pub struct ChildCursor(pub Vec<u8>);

/// A directory move as it was replayed.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct MoveRecord {
    /// The directory.
    pub item: ItemId,
    /// Where the move puts it, and its place in the total order.
    pub to: Placed,
    /// Where it stood before this move.
    pub before: Placed,
    /// Whether it was passed over because it would have closed a cycle.
    pub passed_over: bool,
}

/// A value of an item that something has replaced.
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum Past {
    /// A content version.
    Content(Head),
    /// A placement.
    Placed(Placed),
    /// Permission bits.
    Mode(Register<u32>),
}

/// What folding one packet did.
#[derive(Clone, PartialEq, Eq, Default, Debug)]
pub struct Folded {
    /// Exceptions raised by the check: the item, the packet's version, and the heads that it did not name.
    pub exceptions: Vec<(ItemId, Dot, Vec<Dot>)>,
    /// How many changes of each kind the packet holds.
    pub summary: Summary,
}

/// How many changes of each kind a packet holds, for a log.
#[derive(Clone, Copy, PartialEq, Eq, Default, Debug)]
pub struct Summary {
    /// New items.
    pub created: u32,
    /// New contents of known items.
    pub edited: u32,
    /// Moves and renames.
    pub moved: u32,
    /// Items removed.
    pub deleted: u32,
    /// Changes of permissions and extended attributes.
    pub attributes: u32,
}

/// Folds the item changes of a packet whose prerequisite is folded. Changes about devices and garbage are left to others.
///
/// A change that refers to what no member could know (an unknown item, another kind of content) does nothing;
/// a placement beneath what is no known directory is beneath the root.
pub fn fold_packet<T: TreeWrite>(tree: &mut T, packet: &Packet, folding: Folding) -> Result<Folded, T::Error> {
    let mut folder = Folder {
        tree,
        packet,
        folding,
        folded: Folded::default(),
        known_directories: HashSet::from([ItemId::ROOT]),
        of_one_path: HashMap::new(),
    };
    for (index, change) in packet.body.changes.iter().enumerate() {
        let stamp = Stamp {
            lamport: packet.body.lamport,
            device: packet.dot.device,
            counter: packet.dot.counter,
            index: u32::try_from(index).expect("a packet's size bounds its changes"),
        };
        folder.change(change, stamp)?;
    }
    Ok(folder.folded)
}

/// Whose packet is folded.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Folding {
    /// This device's own: its new items are on its disk already.
    Own,
    /// Another device's.
    Other,
}

struct Folder<'a, T> {
    tree: &'a mut T,
    packet: &'a Packet,
    folding: Folding,
    folded: Folded,
    /// Directories already looked up: most changes of a packet share their parents.
    known_directories: HashSet<ItemId>,
    /// What [`directories_of_one_path`] said of the directories that new items of this device went to.
    of_one_path: HashMap<ItemId, Rc<[ItemId]>>,
}

impl<T: TreeWrite> Folder<'_, T> {
    fn change(&mut self, change: &Change, stamp: Stamp) -> Result<(), T::Error> {
        match change {
            Change::Create { item, parent, name, content, mode, xattrs } => {
                if self.tree.item(*item)?.is_some() {
                    return Ok(());
                }
                let parent = self.directory_or_root(*parent)?;
                let head = self.head(content.clone(), Vec::new());
                let mut new = Item::new(*item, head, Placed { stamp, parent, name: name.clone() });
                new.mode = mode.map(|value| Register { stamp, value });
                for (name, value) in xattrs {
                    new.xattrs.insert(name.clone(), Register { stamp, value: Some(value.clone()) });
                }
                if content.is_directory() {
                    self.known_directories.insert(*item);
                }
                self.folded.summary.created += 1;
                self.tree.put_item(&new)?;
                if self.folding == Folding::Other || !self.is_at_rest(&new)? {
                    touch_place(self.tree, parent, name)?;
                }
                self.touch_dead_above(parent)
            }
            Change::Content { item, content, replaces, trail } => {
                let Some(mut state) = self.tree.item(*item)? else { return Ok(()) };
                if state.is_directory() || content.is_directory() {
                    return Ok(());
                }
                let head = self.head(content.clone(), trail.clone());
                let (checked, replaced) = state.fold_content(head, replaces);
                if let Checked::Exception { standing } = checked {
                    self.folded.exceptions.push((*item, self.packet.dot, standing));
                }
                for head in replaced {
                    // Whether a delete was folded before the edit that it had not seen is chance: history does not say.
                    self.tree.put_history(*item, &Past::Content(Head { deletes: Vec::new(), ..head }))?;
                }
                self.folded.summary.edited += 1;
                self.store(&state)
            }
            Change::Place { item, parent, name, replaces } => {
                let Some(state) = self.tree.item(*item)? else { return Ok(()) };
                let parent = self.directory_or_root(*parent)?;
                self.folded.summary.moved += 1;
                self.place(state, Placed { stamp, parent, name: name.clone() }, replaces)
            }
            Change::Mode { item, mode } => {
                let Some(mut state) = self.tree.item(*item)? else { return Ok(()) };
                let new = Register { stamp, value: *mode };
                self.folded.summary.attributes += 1;
                let past = match &mut state.mode {
                    Some(standing) if standing.stamp > stamp => Some(new),
                    standing => standing.replace(new),
                };
                if let Some(past) = past {
                    self.tree.put_history(*item, &Past::Mode(past))?;
                }
                self.store(&state)
            }
            Change::Xattr { item, name, value } => {
                let Some(mut state) = self.tree.item(*item)? else { return Ok(()) };
                self.folded.summary.attributes += 1;
                if state.xattrs.get(name).is_none_or(|standing| standing.stamp < stamp) {
                    state.xattrs.insert(name.clone(), Register { stamp, value: value.clone() });
                }
                self.store(&state)
            }
            Change::Delete { removed } => self.delete(removed),
            _ => Ok(()),
        }
    }

    /// Whether what was just made by this device is shown as it stands on its disk, and changes how nothing else is shown.
    ///
    /// What shares its name need not be in its own directory: directories that are seen as one hold their names together,
    /// and on disk one of them may be on its way into the other. And a conflict copy gives way to an item of its name.
    fn is_at_rest(&mut self, new: &Item) -> Result<bool, T::Error> {
        let Placed { parent, name, .. } = &new.at;
        let mut alone = true;
        for directory in self.directories_of_one_path(*parent)?.iter() {
            alone &= self.tree.named(*directory, name)?.iter().all(|item| *item == new.id);
        }
        if new.is_directory() {
            match alone {
                true => drop(self.of_one_path.insert(new.id, Rc::from([new.id]))),
                false => self.of_one_path.clear(),
            }
        }
        Ok(alone && crate::conflict_name::base_of(name).is_none())
    }

    /// As [`directories_of_one_path`], which is asked once for each directory: a packet may make thousands of files in one.
    fn directories_of_one_path(&mut self, directory: ItemId) -> Result<Rc<[ItemId]>, T::Error> {
        if let Some(known) = self.of_one_path.get(&directory) {
            return Ok(Rc::clone(known));
        }
        let found: Rc<[ItemId]> = directories_of_one_path(self.tree, directory)?.into();
        self.of_one_path.insert(directory, Rc::clone(&found));
        Ok(found)
    }

    fn head(&self, content: crate::content::Content, trail: Vec<crate::change::Mark>) -> Head {
        let body = &self.packet.body;
        let time = body.time.div_euclid(1000);
        Head { dot: self.packet.dot, lamport: body.lamport, time, content, trail, deletes: Vec::new() }
    }

    fn directory_or_root(&mut self, parent: ItemId) -> Result<ItemId, T::Error> {
        if self.known_directories.contains(&parent) {
            return Ok(parent);
        }
        if self.tree.item(parent)?.is_some_and(|item| item.is_directory()) {
            self.known_directories.insert(parent);
            return Ok(parent);
        }
        Ok(ItemId::ROOT)
    }

    /// Stores an item whose content or attributes changed; its place did not.
    fn store(&mut self, state: &Item) -> Result<(), T::Error> {
        self.tree.put_item(state)?;
        touch_place(self.tree, state.at.parent, &state.at.name)?;
        self.touch_dead_above(state.at.parent)
    }

    fn place(&mut self, mut state: Item, placed: Placed, replaces: &[Dot]) -> Result<(), T::Error> {
        let item = state.id;
        let deletes = state.deletes.clone();
        let replaced = state.fold_placement(placed.clone(), replaces);
        for placed in replaced {
            self.tree.put_history(item, &Past::Placed(placed))?;
        }
        if !state.is_directory() {
            let before = std::mem::replace(&mut state.at, Placed { ..placed.clone() });
            state.at = state.last_placement().clone();
            let after = state.at.clone();
            self.tree.put_item(&state)?;
            self.touch_moved(item, &before, &after)?;
            return Ok(());
        }
        self.of_one_path.clear();
        // An unseen move revives the directory even where its place does not change: it is earlier, or passed over.
        self.store(&state)?;
        let mut moved = vec![(item, deletes)];
        let changed = replay(self.tree, MoveRecord { item, to: placed.clone(), before: placed, passed_over: false })?;
        for (item, before, after) in changed {
            self.touch_moved(item, &before, &after)?;
            moved.push((item, self.tree.item(item)?.map(|state| state.deletes).unwrap_or_default()));
        }
        // What lies beneath may live by the unseen move of a directory above, and which those are has changed.
        for (directory, deletes) in moved {
            if !deletes.is_empty() {
                self.touch_beneath(directory, &deletes)?;
            }
        }
        Ok(())
    }

    fn touch_moved(&mut self, item: ItemId, before: &Placed, after: &Placed) -> Result<(), T::Error> {
        self.tree.touch(item)?;
        self.touch_left(before)?;
        touch_place(self.tree, after.parent, &after.name)?;
        self.touch_dead_above(before.parent)?;
        self.touch_dead_above(after.parent)
    }

    /// Touches what the item that left a place stood in the way of.
    ///
    /// A plan begins at the places where touched items belong and where the disk still has them. One that was moved on
    /// this disk is no longer there, so those that it displaced must be touched themselves.
    fn touch_left(&mut self, before: &Placed) -> Result<(), T::Error> {
        let base = crate::conflict_name::base_of(&before.name);
        for directory in directories_of_one_path(self.tree, before.parent)? {
            touch_place(self.tree, directory, &before.name)?;
            if let Some(base) = &base {
                touch_place(self.tree, directory, base)?;
            }
        }
        Ok(())
    }

    fn delete(&mut self, removed: &[Removed]) -> Result<(), T::Error> {
        for Removed { item, heads, placements } in removed {
            let Some(mut state) = self.tree.item(*item)? else { continue };
            state.fold_delete(self.packet.dot, heads, placements);
            self.folded.summary.deleted += 1;
            self.store(&state)?;
        }
        // What this brings to an end or, by an unseen move of a directory folded before, leaves alive is named in it
        // and was touched above. What it does not name lives on as before.
        Ok(())
    }

    /// Touches the dead directories above a place: whether they are shown may have changed.
    fn touch_dead_above(&mut self, mut directory: ItemId) -> Result<(), T::Error> {
        while directory != ItemId::ROOT {
            let Some(state) = self.tree.item(directory)? else { return Ok(()) };
            if state.lives_by_itself() {
                return Ok(());
            }
            touch_place(self.tree, state.at.parent, &state.at.name)?;
            directory = state.at.parent;
        }
        Ok(())
    }

    /// Touches what one of `deletes` removed beneath a directory, and the dead directories on the way.
    fn touch_beneath(&mut self, directory: ItemId, deletes: &[Dot]) -> Result<(), T::Error> {
        let mut pending = vec![directory];
        while let Some(directory) = pending.pop() {
            let mut after = None;
            loop {
                let page = self.tree.children(directory, after, PAGE)?;
                let Some((last, _)) = page.last() else { break };
                after = Some(last.clone());
                for (_, child) in page {
                    let Some(state) = self.tree.item(child)? else { continue };
                    if state.deletes.iter().any(|delete| deletes.contains(delete)) {
                        touch_place(self.tree, state.at.parent, &state.at.name)?;
                        if state.is_directory() {
                            pending.push(child);
                        }
                    }
                }
            }
        }
        Ok(())
    }
}

/// Touches every item that stands at a place: what one of them shows depends on the others.
fn touch_place<T: TreeWrite>(tree: &mut T, parent: ItemId, name: &Name) -> Result<(), T::Error> {
    for item in tree.named(parent, name)? {
        tree.touch(item)?;
    }
    Ok(())
}

/// The directories whose placements spell the same path as this one's, itself included: all those that may be seen as
/// one with it.
fn directories_of_one_path<T: TreeRead>(tree: &T, directory: ItemId) -> Result<Vec<ItemId>, T::Error> {
    let mut path = Vec::new();
    let mut above = directory;
    while above != ItemId::ROOT {
        let Some(state) = tree.item(above)? else { return Ok(vec![directory]) };
        above = state.at.parent;
        path.push(state.at.name);
    }
    let mut same = vec![ItemId::ROOT];
    for name in path.iter().rev() {
        let mut named = Vec::new();
        for parent in &same {
            named.extend(tree.named(*parent, name)?);
        }
        same = named;
    }
    Ok(same)
}

/// Puts one directory move in its place in the total order; returns the directories whose place that changed.
///
/// `record.before` and `record.passed_over` are found here.
fn replay<T: TreeWrite>(tree: &mut T, record: MoveRecord) -> Result<Vec<(ItemId, Placed, Placed)>, T::Error> {
    let mut later = tree.moves_after(&record.to.stamp)?;
    let mut places: HashMap<ItemId, Placed> = HashMap::new();
    for undone in later.iter().rev() {
        if !undone.passed_over {
            places.insert(undone.item, undone.before.clone());
        }
    }
    later.insert(0, record);
    for redone in &mut later {
        let standing = place_of(tree, &places, redone.item)?;
        redone.passed_over = closes_cycle(tree, &places, redone.item, redone.to.parent)?;
        redone.before = standing;
        if !redone.passed_over {
            places.insert(redone.item, redone.to.clone());
        }
        tree.put_move(redone)?;
    }
    let mut changed = Vec::new();
    for (item, after) in places {
        let Some(mut state) = tree.item(item)? else { continue };
        if state.at != after {
            let before = std::mem::replace(&mut state.at, after.clone());
            tree.put_item(&state)?;
            changed.push((item, before, after));
        }
    }
    changed.sort_by_key(|(item, ..)| *item);
    Ok(changed)
}

fn place_of<T: TreeRead>(tree: &T, places: &HashMap<ItemId, Placed>, item: ItemId) -> Result<Placed, T::Error> {
    if let Some(placed) = places.get(&item) {
        return Ok(placed.clone());
    }
    Ok(tree.item(item)?.expect("a moved directory is known").at)
}

fn closes_cycle<T: TreeRead>(
    tree: &T,
    places: &HashMap<ItemId, Placed>,
    item: ItemId,
    parent: ItemId,
) -> Result<bool, T::Error> {
    let mut above = parent;
    while above != ItemId::ROOT {
        if above == item {
            return Ok(true);
        }
        above = match places.get(&above) {
            Some(placed) => placed.parent,
            None => match tree.item(above)? {
                Some(state) => state.at.parent,
                None => return Ok(false),
            },
        };
    }
    Ok(false)
}

/// Whether an item is alive.
pub fn is_alive<T: TreeRead>(tree: &T, item: &Item) -> Result<bool, T::Error> {
    if item.lives_by_itself() {
        return Ok(true);
    }
    let mut void = HashSet::new();
    for delete in &item.deletes {
        if is_void_for(tree, delete, item)? {
            void.insert(*delete);
        }
    }
    Ok(!void.is_empty() && !item.is_removed_by(|delete| !void.contains(delete)))
}

/// The deletes of an item that took effect beneath it: a move made with them on disk must name them as seen,
/// or it would revive what they removed. Void ones it must not name: what lives beneath would die by the move.
pub fn effective_deletes<T: TreeRead>(tree: &T, item: &Item) -> Result<Vec<Dot>, T::Error> {
    let mut effective = Vec::new();
    for delete in &item.deletes {
        if !item.was_moved_unseen_by(delete) && !is_void_for(tree, delete, item)? {
            effective.push(*delete);
        }
    }
    Ok(effective)
}

/// Whether a directory above `item` was moved unseen by a delete that removed both and all between them.
fn is_void_for<T: TreeRead>(tree: &T, delete: &Dot, item: &Item) -> Result<bool, T::Error> {
    let mut above = item.at.parent;
    while above != ItemId::ROOT {
        let Some(directory) = tree.item(above)? else { break };
        if directory.deletes.binary_search(delete).is_err() {
            break;
        }
        if directory.was_moved_unseen_by(delete) {
            return Ok(true);
        }
        above = directory.at.parent;
    }
    Ok(false)
}

/// Whether an item stands in the tree that people see: it is alive, or a directory with something alive beneath it.
pub fn is_shown<T: TreeRead>(tree: &T, item: &Item) -> Result<bool, T::Error> {
    if is_alive(tree, item)? {
        return Ok(true);
    }
    if !item.is_directory() {
        return Ok(false);
    }
    let mut pending = vec![item.id];
    let mut seen = BTreeSet::new();
    while let Some(directory) = pending.pop() {
        let mut after = None;
        loop {
            let page = tree.children(directory, after, PAGE)?;
            let Some((last, _)) = page.last() else { break };
            after = Some(last.clone());
            for (_, child) in page {
                let Some(state) = tree.item(child)? else { continue };
                if is_alive(tree, &state)? {
                    return Ok(true);
                }
                if state.is_directory() && seen.insert(child) {
                    pending.push(child);
                }
            }
        }
    }
    Ok(false)
}

/// How many children are read at once.
const PAGE: usize = 256;

#[cfg(test)]
mod tests;
