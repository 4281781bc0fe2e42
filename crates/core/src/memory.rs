//! A tree held in memory: the ports of [`tree`](crate::tree) over ordered maps, for tests and small tools.
//!
//! It tells past versions too, and calls devices by the short form of their ids. Nothing here can fail.
//! A replica keeps its tree in its index instead; this one grows with the number of items.

use std::collections::{BTreeMap, BTreeSet};
use std::convert::Infallible;
use std::ops::Bound;

use crate::ids::{DeviceId, Dot, ItemId, Stamp};
use crate::item::{Head, Item};
use crate::name::Name;
use crate::plan::HistoryRead;
use crate::tree::{ChildCursor, MoveRecord, Past, TreeRead, TreeWrite};
use crate::view::ViewRead;

/// A tree in memory, with all that folding wrote open to view.
#[derive(Clone, Default, Debug)]
pub struct MemoryTree {
    items: BTreeMap<ItemId, Item>,
    places: BTreeSet<(ItemId, Name, ItemId)>,
    moves: BTreeMap<Stamp, MoveRecord>,
    history: BTreeMap<ItemId, Vec<Past>>,
    touched: BTreeSet<ItemId>,
}

impl MemoryTree {
    /// A tree that holds only the root.
    pub fn new() -> Self {
        Self::default()
    }

    /// All items, dead ones included, by id.
    pub fn items(&self) -> &BTreeMap<ItemId, Item> {
        &self.items
    }

    /// All directory moves in total order.
    pub fn moves(&self) -> &BTreeMap<Stamp, MoveRecord> {
        &self.moves
    }

    /// What was replaced in each item, in the order in which that was folded.
    pub fn history(&self) -> &BTreeMap<ItemId, Vec<Past>> {
        &self.history
    }

    /// The items touched since the last [`take_touched`](Self::take_touched).
    pub fn touched(&self) -> &BTreeSet<ItemId> {
        &self.touched
    }

    /// Takes the touched items; none are touched after that.
    pub fn take_touched(&mut self) -> BTreeSet<ItemId> {
        std::mem::take(&mut self.touched)
    }
}

impl TreeRead for MemoryTree {
    type Error = Infallible;

    fn item(&self, id: ItemId) -> Result<Option<Item>, Infallible> {
        Ok(self.items.get(&id).cloned())
    }

    fn named(&self, parent: ItemId, name: &Name) -> Result<Vec<ItemId>, Infallible> {
        let first = (parent, name.clone(), ItemId([0; ItemId::LEN]));
        let here = self.places.range(first..).take_while(|(p, n, _)| *p == parent && n == name);
        Ok(here.map(|(.., item)| *item).collect())
    }

    fn children(
        &self,
        parent: ItemId,
        after: Option<ChildCursor>,
        limit: usize,
    ) -> Result<Vec<(ChildCursor, ItemId)>, Infallible> {
        let here = match after {
            None => self.places.range((parent, least_name(), ItemId([0; ItemId::LEN]))..),
            Some(cursor) => {
                let (name, item) = read_cursor(&cursor);
                self.places.range((Bound::Excluded((parent, name, item)), Bound::Unbounded))
            }
        };
        let here = here.take_while(|(p, ..)| *p == parent).take(limit);
        Ok(here.map(|(_, name, item)| (cursor(name, *item), *item)).collect())
    }

    fn moves_after(&self, stamp: &Stamp) -> Result<Vec<MoveRecord>, Infallible> {
        let later = self.moves.range((Bound::Excluded(*stamp), Bound::Unbounded));
        Ok(later.map(|(_, record)| record.clone()).collect())
    }
}

impl TreeWrite for MemoryTree {
    fn put_item(&mut self, item: &Item) -> Result<(), Infallible> {
        if let Some(before) = self.items.insert(item.id, item.clone()) {
            self.places.remove(&(before.at.parent, before.at.name, before.id));
        }
        self.places.insert((item.at.parent, item.at.name.clone(), item.id));
        Ok(())
    }

    fn put_move(&mut self, record: &MoveRecord) -> Result<(), Infallible> {
        self.moves.insert(record.to.stamp, record.clone());
        Ok(())
    }

    fn put_history(&mut self, item: ItemId, past: &Past) -> Result<(), Infallible> {
        self.history.entry(item).or_default().push(past.clone());
        Ok(())
    }

    fn touch(&mut self, item: ItemId) -> Result<(), Infallible> {
        self.touched.insert(item);
        Ok(())
    }
}

impl HistoryRead for MemoryTree {
    fn version(&self, item: ItemId, dot: &Dot) -> Result<Option<Head>, Infallible> {
        let standing = self.items.get(&item).into_iter().flat_map(|item| &item.heads);
        let past = self.history.get(&item).into_iter().flatten().filter_map(|past| match past {
            Past::Content(head) => Some(head),
            _ => None,
        });
        Ok(standing.chain(past).find(|head| head.dot == *dot).cloned())
    }
}

impl ViewRead for MemoryTree {
    fn device_label(&self, device: &DeviceId) -> Result<String, Infallible> {
        Ok(device.short())
    }
}

/// A cursor is the item's id, then its name.
fn cursor(name: &Name, item: ItemId) -> ChildCursor {
    ChildCursor([item.as_bytes(), name.as_bytes()].concat())
}

fn read_cursor(cursor: &ChildCursor) -> (Name, ItemId) {
    let (item, name) = cursor.0.split_at(ItemId::LEN);
    (Name::new(name).expect("a cursor made here"), ItemId::from_slice(item).expect("a cursor made here"))
}

/// No name sorts before this one.
fn least_name() -> Name {
    Name::new([1]).expect("a sound name")
}

#[cfg(test)]
pub(crate) mod vault;

#[cfg(test)]
mod tests {
    use super::*;
    use crate::content::Content;
    use crate::item::Placed;

    fn item(id: u8, parent: ItemId, name: &[u8]) -> Item {
        let stamp = Stamp { lamport: 1, device: DeviceId([1; 32]), counter: 1, index: id.into() };
        let content = Content::Symlink(b"x".to_vec());
        let dot = Dot { device: stamp.device, counter: 1 };
        let head = Head { dot, lamport: 1, time: 0, content, trail: Vec::new(), deletes: Vec::new() };
        Item::new(ItemId([id; 16]), head, Placed { stamp, parent, name: Name::new(name).unwrap() })
    }

    #[test]
    fn pages_of_children_join_to_the_whole_listing() {
        let mut tree = MemoryTree::new();
        for id in 1..=20 {
            let parent = if id % 5 == 0 { ItemId([1; 16]) } else { ItemId::ROOT };
            tree.put_item(&item(id, parent, &[1 + id / 3])).unwrap();
        }
        let mut found = Vec::new();
        let mut after = None;
        loop {
            let page = tree.children(ItemId::ROOT, after, 3).unwrap();
            let Some((last, _)) = page.last() else { break };
            after = Some(last.clone());
            found.extend(page.iter().map(|(_, item)| item.0[0]));
        }
        assert_eq!(found, (1..=20).filter(|id| id % 5 != 0).collect::<Vec<u8>>());
    }

    #[test]
    fn an_item_stands_at_one_place() {
        let mut tree = MemoryTree::new();
        tree.put_item(&item(1, ItemId::ROOT, b"a")).unwrap();
        tree.put_item(&item(1, ItemId::ROOT, b"b")).unwrap();
        tree.put_item(&item(2, ItemId::ROOT, b"b")).unwrap();
        assert_eq!(tree.named(ItemId::ROOT, &Name::new(*b"a").unwrap()).unwrap(), []);
        assert_eq!(tree.named(ItemId::ROOT, &Name::new(*b"b").unwrap()).unwrap(), [ItemId([1; 16]), ItemId([2; 16])]);
    }
}
