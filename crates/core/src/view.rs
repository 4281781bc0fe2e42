//! The tree that people see: which items stand at a place, under which names, and as what.
//!
//! A *place* is a shown directory and a name. Several items may stand there; [`Viewer::place`] says who is seen how:
//! directories of one name are one directory; files with equal bytes are one file; of what remains, a directory
//! keeps the name before a file, and the item placed first before later ones. The others, and the losing heads of an item
//! in conflict, are shown beside it under conflict names.
//!
//! A view is a function of the folded items alone, so it is the same on every replica.

use std::cell::RefCell;
use std::collections::HashMap;
use std::rc::Rc;

use crate::conflict_name::Label;
use crate::content::Content;
use crate::ids::{DeviceId, Dot, ItemId};
use crate::item::{Began, Item};
use crate::local::{Twin, View};
use crate::name::{Name, RelPath};
use crate::tree::{self, TreeRead};

/// What a view needs besides the items.
pub trait ViewRead: TreeRead {
    /// The name with which a device introduced itself; a short form of its id where it is not known.
    fn device_label(&self, device: &DeviceId) -> Result<String, Self::Error>;
}

/// One object that people see.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Shown {
    /// The item it stands for.
    pub item: ItemId,
    /// The directory it is seen in.
    pub parent: ItemId,
    /// The name it is seen under.
    pub name: Name,
    /// How that name comes about: never [`View::Mapped`].
    pub view: View,
    /// The heads whose content this is, sorted.
    pub heads: Vec<Dot>,
    /// The versions before them, newest first.
    pub trail: Vec<Dot>,
    /// What it holds.
    pub content: Content,
    /// Permission bits.
    pub mode: Option<u32>,
    /// Extended attributes, sorted by name.
    pub xattrs: Vec<(Vec<u8>, Vec<u8>)>,
    /// The item's placements, sorted.
    pub placements: Vec<Dot>,
    /// The one of these that is in force.
    pub placed: Dot,
    /// Items that are seen as one with it.
    pub twins: Vec<Twin>,
    /// Whether its item has more than one seat.
    pub in_conflict: bool,
}

/// Answers what is seen where; remembers what it looked up, so make a new one when the tree changes.
pub struct Viewer<'a, T> {
    tree: &'a T,
    directories: RefCell<ViewMemory>,
}

/// What a viewer remembers; good for another viewer as long as the tree is the same.
#[derive(Default, Debug)]
pub struct ViewMemory(HashMap<ItemId, Rc<[ItemId]>>);

impl<'a, T: ViewRead> Viewer<'a, T> {
    /// A viewer of the tree as it is now.
    pub fn new(tree: &'a T) -> Self {
        Self::with_memory(tree, ViewMemory::default())
    }

    /// A viewer that goes on with what another remembered of the same tree.
    pub fn with_memory(tree: &'a T, memory: ViewMemory) -> Self {
        Self { tree, directories: RefCell::new(memory) }
    }

    /// What it remembers.
    pub fn into_memory(self) -> ViewMemory {
        self.directories.into_inner()
    }

    /// The tree it views.
    pub fn tree(&self) -> &'a T {
        self.tree
    }

    /// All directories that are seen as one with this one, the one that stands for them first.
    ///
    /// A directory that is not shown is alone, and so is what is no directory.
    pub fn class(&self, directory: ItemId) -> Result<Rc<[ItemId]>, T::Error> {
        if directory == ItemId::ROOT {
            return Ok(Rc::from([ItemId::ROOT]));
        }
        if let Some(class) = self.directories.borrow().0.get(&directory) {
            return Ok(Rc::clone(class));
        }
        let class: Rc<[ItemId]> = match self.tree.item(directory)? {
            Some(item) if item.is_directory() && tree::is_shown(self.tree, &item)? => {
                let parent = self.stands_for(item.at.parent)?;
                let mut same = self.items_at(parent, &item.at.name)?;
                same.retain(Item::is_directory);
                same.sort_by_key(|item| item.at.stamp);
                same.iter().map(|item| item.id).collect()
            }
            _ => Rc::from([directory]),
        };
        let mut known = self.directories.borrow_mut();
        for member in class.iter() {
            known.0.insert(*member, Rc::clone(&class));
        }
        Ok(class)
    }

    /// The directory that stands for all those seen as one with this one.
    pub fn stands_for(&self, directory: ItemId) -> Result<ItemId, T::Error> {
        Ok(self.class(directory)?[0])
    }

    /// The place of an item: the directory it is seen in and its own name.
    pub fn place_of(&self, item: &Item) -> Result<(ItemId, Name), T::Error> {
        Ok((self.stands_for(item.at.parent)?, item.at.name.clone()))
    }

    /// What is seen because of an item; nothing where it is not shown.
    pub fn shown_for(&self, item: &Item) -> Result<Option<Shown>, T::Error> {
        if !tree::is_shown(self.tree, item)? {
            return Ok(None);
        }
        let (parent, name) = self.place_of(item)?;
        let same = |shown: &Shown| shown.item == item.id || shown.twins.iter().any(|twin| twin.item == item.id);
        Ok(self.place(parent, &name)?.into_iter().find(same))
    }

    /// The shown items at a place.
    pub fn items_at(&self, parent: ItemId, name: &Name) -> Result<Vec<Item>, T::Error> {
        let mut items = Vec::new();
        for directory in self.class(parent)?.iter() {
            for id in self.tree.named(*directory, name)? {
                if let Some(item) = self.tree.item(id)?
                    && tree::is_shown(self.tree, &item)?
                {
                    items.push(item);
                }
            }
        }
        Ok(items)
    }

    /// Everything seen because of the items at a place, the holder of the plain name first.
    pub fn place(&self, parent: ItemId, name: &Name) -> Result<Vec<Shown>, T::Error> {
        let mut items = self.items_at(parent, name)?;
        items.sort_by_key(|item| (!item.is_directory(), item.at.stamp, item.id));
        let mut shown: Vec<Shown> = Vec::new();
        let directories = items.iter().take_while(|item| item.is_directory()).count();
        let leaves = items.split_off(directories);
        if let Some((first, others)) = items.split_first() {
            let mut entry = self.shown(first, parent, name.clone(), 0)?;
            entry.twins = self.twins(others)?;
            shown.push(entry);
        }
        let mut names = ConflictNames { viewer: self, parent, base: name, taken: vec![name.clone()] };
        for class in leaf_classes(leaves) {
            let (first, others) = class.split_first().expect("a class is not empty");
            let seats = first.seats();
            for (at, seat) in seats.iter().enumerate() {
                let (name, view) = match (at, shown.is_empty()) {
                    (0, true) => (name.clone(), View::Plain),
                    (0, false) => (names.of_item(first, &seat.began)?, View::Displaced),
                    _ => (names.of_branch(&seat.began)?, View::Copy),
                };
                let mut entry = self.shown(first, parent, name, at)?;
                entry.view = view;
                entry.twins = self.twins(others)?;
                shown.push(entry);
            }
        }
        Ok(shown)
    }

    /// What is seen under exactly this name in a directory.
    pub fn at(&self, parent: ItemId, name: &Name) -> Result<Option<Shown>, T::Error> {
        let parent = self.stands_for(parent)?;
        if let Some(shown) = self.place(parent, name)?.into_iter().find(|shown| shown.name == *name) {
            return Ok(Some(shown));
        }
        let Some(base) = crate::conflict_name::base_of(name) else { return Ok(None) };
        Ok(self.place(parent, &base)?.into_iter().find(|shown| shown.name == *name))
    }

    /// What is seen at a path from the root; `None` also for the root itself.
    pub fn at_path(&self, path: &RelPath) -> Result<Option<Shown>, T::Error> {
        let mut parent = ItemId::ROOT;
        let mut found = None;
        for name in path.names() {
            found = self.at(parent, &name)?;
            match &found {
                Some(shown) => parent = shown.item,
                None => return Ok(None),
            }
        }
        Ok(found)
    }

    /// The path of a directory as people see it.
    pub fn path_of(&self, directory: ItemId) -> Result<RelPath, T::Error> {
        let mut names = Vec::new();
        let mut above = self.stands_for(directory)?;
        while above != ItemId::ROOT {
            let Some(item) = self.tree.item(above)? else { break };
            above = self.stands_for(item.at.parent)?;
            names.push(item.at.name);
        }
        Ok(names.iter().rev().fold(RelPath::root(), |path, name| path.join(name)))
    }

    fn shown(&self, item: &Item, parent: ItemId, name: Name, seat_at: usize) -> Result<Shown, T::Error> {
        let seats = item.seats();
        let seat = &seats[seat_at];
        let live = |value: &Option<Vec<u8>>| value.clone();
        Ok(Shown {
            item: item.id,
            parent,
            name,
            view: View::Plain,
            heads: seat.dots.clone(),
            trail: seat.head.trail.iter().map(|mark| mark.dot).collect(),
            content: seat.head.content.clone(),
            mode: item.mode.as_ref().map(|mode| mode.value),
            xattrs: item.xattrs.iter().filter_map(|(n, value)| Some((n.clone(), live(&value.value)?))).collect(),
            placements: placement_dots(self.tree, item)?,
            placed: item.at.stamp.dot(),
            twins: Vec::new(),
            in_conflict: seats.len() > 1,
        })
    }

    fn twins(&self, items: &[Item]) -> Result<Vec<Twin>, T::Error> {
        let twin = |item: &Item| {
            let heads = item.heads.iter().map(|head| head.dot).collect();
            Ok(Twin { item: item.id, heads, placements: placement_dots(self.tree, item)? })
        };
        items.iter().map(twin).collect()
    }
}

/// What has been seen of where an item stands, sorted: its placements, and of a directory the deletes that took effect
/// beneath it, so that moving it does not bring back what they removed.
pub fn placement_dots<T: TreeRead>(tree: &T, item: &Item) -> Result<Vec<Dot>, T::Error> {
    let mut dots: Vec<Dot> = item.placements.iter().map(|placement| placement.placed.stamp.dot()).collect();
    if item.is_directory() && !item.deletes.is_empty() {
        dots.extend(tree::effective_deletes(tree, item)?);
    }
    dots.sort();
    dots.dedup();
    Ok(dots)
}

/// Groups files that are seen as one: each has a single seat, and their contents agree.
fn leaf_classes(leaves: Vec<Item>) -> Vec<Vec<Item>> {
    let mut classes: Vec<Vec<Item>> = Vec::new();
    for leaf in leaves {
        let same = classes.iter_mut().find(|class| {
            let (mine, theirs) = (leaf.seats(), class[0].seats());
            mine.len() == 1 && theirs.len() == 1 && mine[0].head.content.agrees(&theirs[0].head.content)
        });
        match same {
            Some(class) => class.push(leaf),
            None => classes.push(vec![leaf]),
        }
    }
    classes
}

/// Hands out conflict names at one place: no two alike, and none that an item there has for its own.
struct ConflictNames<'v, 'a, T> {
    viewer: &'v Viewer<'a, T>,
    parent: ItemId,
    base: &'v Name,
    taken: Vec<Name>,
}

impl<T: ViewRead> ConflictNames<'_, '_, T> {
    fn of_branch(&mut self, began: &Began) -> Result<Name, T::Error> {
        self.unique(&began.dot.device, began.time, Label::of_branch(&began.dot))
    }

    fn of_item(&mut self, item: &Item, began: &Began) -> Result<Name, T::Error> {
        let distinct = blake3::derive_key("packetboat 2026 conflict name of an item", &item.id.0);
        self.unique(&item.at.stamp.device, began.time, distinct)
    }

    fn unique(&mut self, device: &DeviceId, time: i64, distinct: [u8; 32]) -> Result<Name, T::Error> {
        let device = self.viewer.tree.device_label(device)?;
        let label = Label { device: &device, time, distinct };
        let mut digits = 4;
        loop {
            let name = label.name(self.base, digits);
            let free = !self.taken.contains(&name) && self.viewer.items_at(self.parent, &name)?.is_empty();
            if free || digits >= 64 {
                self.taken.push(name.clone());
                return Ok(name);
            }
            digits += 2;
        }
    }
}
