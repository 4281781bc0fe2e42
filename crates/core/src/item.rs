//! The folded state of one item, and the check.
//!
//! Invariants, whatever the order in which concurrent packets were folded:
//! an item has at least one head and one placement; a head or placement that a delete names stays, marked,
//! until something replaces it, so that an unseen edit or move can bring the item back;
//! everything here is a function of the set of changes folded, never of their order.

use std::collections::{BTreeMap, BTreeSet};

use crate::change::{MAX_TRAIL, Mark};
use crate::content::Content;
use crate::ids::{Dot, ItemId, Lamport, Stamp};
use crate::name::Name;

/// What all packets folded so far say of one item.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Item {
    /// The item.
    pub id: ItemId,
    /// Content versions that no other known version replaces, sorted by dot; at least one.
    pub heads: Vec<Head>,
    /// Placements that no other known placement replaces, sorted by stamp; at least one.
    pub placements: Vec<Placement>,
    /// The placement in force: the last in total order that closes no cycle.
    pub at: Placed,
    /// Permission bits; none for symlinks and where nobody set them.
    pub mode: Option<Register<u32>>,
    /// Extended attributes; a removed one is kept as `None`.
    pub xattrs: BTreeMap<Vec<u8>, Register<Option<Vec<u8>>>>,
    /// The packets whose deletes named this item with its placements, and that no placement named as seen, sorted.
    pub deletes: Vec<Dot>,
}

/// One content version.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Head {
    /// The packet that set it.
    pub dot: Dot,
    /// That packet's Lamport time.
    pub lamport: Lamport,
    /// That packet's time in seconds since 1970 UTC, for the name of a conflict copy.
    pub time: i64,
    /// What it holds.
    pub content: Content,
    /// The line of versions it came from, newest first.
    pub trail: Vec<Mark>,
    /// The packets whose deletes named it, sorted.
    pub deletes: Vec<Dot>,
}

/// One placement.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Placement {
    /// Where and since when.
    pub placed: Placed,
    /// The packets whose deletes named it, sorted.
    pub deletes: Vec<Dot>,
}

/// A place in the tree and the change that set it.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Placed {
    /// The change.
    pub stamp: Stamp,
    /// The directory.
    pub parent: ItemId,
    /// The name there.
    pub name: Name,
}

/// A value that the last writer in total order sets.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Register<T> {
    /// The change that set it.
    pub stamp: Stamp,
    /// The value.
    pub value: T,
}

/// What the check found.
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum Checked {
    /// The new version contains every change synchronised so far: it replaced all heads.
    Replaced,
    /// Heads that it does not name hold the same: agreement.
    Agreed,
    /// The exception: heads that it does not name stand beside it.
    Exception {
        /// Those heads.
        standing: Vec<Dot>,
    },
}

impl Item {
    /// A new item with one head and one placement.
    pub fn new(id: ItemId, head: Head, placed: Placed) -> Self {
        Self {
            id,
            heads: vec![head],
            placements: vec![Placement { placed: placed.clone(), deletes: Vec::new() }],
            at: placed,
            mode: None,
            xattrs: BTreeMap::new(),
            deletes: Vec::new(),
        }
    }

    /// Whether this is a directory; decided when the item was made.
    pub fn is_directory(&self) -> bool {
        self.heads.first().is_some_and(|head| head.content.is_directory())
    }

    /// The check: does the author's version contain every change synchronised so far?
    ///
    /// It does when every head is among those that the change names; they are replaced.
    /// Otherwise what it does not name is not replaced. Returns also the heads that were replaced.
    pub fn fold_content(&mut self, head: Head, replaces: &[Dot]) -> (Checked, Vec<Head>) {
        let mut replaced = Vec::new();
        self.heads.retain(|standing| {
            let named = replaces.contains(&standing.dot);
            if named {
                replaced.push(standing.clone());
            }
            !named
        });
        let standing: Vec<&Head> = self.heads.iter().filter(|standing| standing.deletes.is_empty()).collect();
        let checked = if standing.is_empty() {
            Checked::Replaced
        } else if standing.iter().all(|standing| standing.content.agrees(&head.content)) {
            Checked::Agreed
        } else {
            Checked::Exception { standing: standing.iter().map(|standing| standing.dot).collect() }
        };
        let at = self.heads.partition_point(|standing| standing.dot < head.dot);
        self.heads.insert(at, head);
        (checked, replaced)
    }

    /// Adds a placement; returns those that it replaced. [`at`](Self::at) is the caller's to set.
    ///
    /// A delete among what it names was seen by its author: it is no unseen move for that one.
    pub fn fold_placement(&mut self, placed: Placed, replaces: &[Dot]) -> Vec<Placed> {
        let mut replaced = Vec::new();
        self.placements.retain(|standing| {
            let named = replaces.contains(&standing.placed.stamp.dot());
            if named {
                replaced.push(standing.placed.clone());
            }
            !named
        });
        self.deletes.retain(|delete| !replaces.contains(delete));
        let at = self.placements.partition_point(|standing| standing.placed.stamp < placed.stamp);
        self.placements.insert(at, Placement { placed, deletes: Vec::new() });
        replaced
    }

    /// Marks what a delete names.
    pub fn fold_delete(&mut self, delete: Dot, heads: &[Dot], placements: &[Dot]) {
        for head in self.heads.iter_mut().filter(|head| heads.contains(&head.dot)) {
            insert_sorted(&mut head.deletes, delete);
        }
        for placement in self.placements.iter_mut().filter(|standing| placements.contains(&standing.placed.stamp.dot()))
        {
            insert_sorted(&mut placement.deletes, delete);
        }
        if !placements.is_empty() {
            insert_sorted(&mut self.deletes, delete);
        }
    }

    /// Whether a head or placement stands that no delete named.
    ///
    /// An item without one may still live by the unseen move of a directory above it; see [`crate::tree`].
    pub fn lives_by_itself(&self) -> bool {
        self.heads.iter().any(|head| head.deletes.is_empty()) || self.has_unseen_placement()
    }

    /// Whether a placement stands that no delete named.
    pub fn has_unseen_placement(&self) -> bool {
        self.placements.iter().any(|placement| placement.deletes.is_empty())
    }

    /// Whether `delete` removed this item, and a placement stands that it did not name.
    pub fn was_moved_unseen_by(&self, delete: &Dot) -> bool {
        self.deletes.binary_search(delete).is_ok()
            && self.placements.iter().any(|placement| placement.deletes.binary_search(delete).is_err())
    }

    /// Whether each head and placement is named by a delete that `counts`.
    pub fn is_removed_by(&self, counts: impl Fn(&Dot) -> bool) -> bool {
        self.heads.iter().all(|head| head.deletes.iter().any(&counts))
            && self.placements.iter().all(|placement| placement.deletes.iter().any(&counts))
    }

    /// The last placement in total order, cycles disregarded: where a file stands.
    pub fn last_placement(&self) -> &Placed {
        &self.placements.last().expect("an item has a placement").placed
    }

    /// The contents that people see, winner first: heads with equal bytes are one seat.
    ///
    /// Heads that a delete named are seen only where nothing else is left, in an item that a move keeps alive.
    pub fn seats(&self) -> Vec<Seat<'_>> {
        let shown = self.shown_heads();
        let mut seats: Vec<Seat<'_>> = Vec::new();
        for head in &shown {
            let began = branch_began(head, &shown);
            match seats.iter_mut().find(|seat| seat.head.content.agrees(&head.content)) {
                Some(seat) => {
                    seat.dots.push(head.dot);
                    if (&began, head.dot) > (&seat.began, seat.head.dot) {
                        (seat.began, seat.head) = (began, head);
                    }
                }
                None => seats.push(Seat { head, began, dots: vec![head.dot] }),
            }
        }
        seats.sort_by_key(|seat| std::cmp::Reverse((seat.began, seat.head.dot)));
        seats
    }

    /// Of the heads among these that are shown, the one whose branch began last: as with seats, it counts for all.
    pub fn last_begun(&self, dots: &[Dot]) -> Option<&Head> {
        let shown = self.shown_heads();
        let named = shown.iter().copied().filter(|head| dots.contains(&head.dot));
        named.max_by_key(|head| (branch_began(head, &shown), head.dot))
    }

    fn shown_heads(&self) -> Vec<&Head> {
        let any_live = self.heads.iter().any(|head| head.deletes.is_empty());
        self.heads.iter().filter(|head| !any_live || head.deletes.is_empty()).collect()
    }

    /// The trail of an edit of `head`: its line of versions, newest first, cut to what a trail may hold.
    ///
    /// While others stand against it, what says where the branches parted stays: the version that began this one, and of
    /// each other the newest that both come from. So an edit changes no seats, however many there were before.
    pub fn trail_after(&self, head: &Head) -> Vec<Mark> {
        let mut line = vec![Mark { dot: head.dot, lamport: head.lamport, time: head.time }];
        line.extend(&head.trail);
        if line.len() <= MAX_TRAIL {
            return line;
        }
        let shown = self.shown_heads();
        let began = branch_began(head, &shown).dot;
        let others = shown.iter().filter(|other| other.dot != head.dot);
        let parted = others.filter_map(|other| line.iter().position(|mark| is_in_line(other, &mark.dot)));
        let kept: BTreeSet<usize> = line.iter().position(|mark| mark.dot == began).into_iter().chain(parted).collect();
        let newest = (0..line.len()).filter(|at| !kept.contains(at));
        let mut kept: Vec<usize> = kept.iter().copied().chain(newest).take(MAX_TRAIL).collect();
        kept.sort_unstable();
        kept.into_iter().map(|at| line[at]).collect()
    }
}

fn insert_sorted(dots: &mut Vec<Dot>, dot: Dot) {
    if let Err(at) = dots.binary_search(&dot) {
        dots.insert(at, dot);
    }
}

/// One of the contents that an item shows: a branch's latest version.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Seat<'a> {
    /// The version; of several that agree, the one whose branch began last.
    pub head: &'a Head,
    /// When its branch began: the first version that no other shown head came from.
    pub began: Began,
    /// All heads that hold this content, sorted.
    pub dots: Vec<Dot>,
}

/// The version with which a branch began; ordered as seats are.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Debug)]
pub struct Began {
    /// Its packet's Lamport time.
    pub lamport: Lamport,
    /// The version.
    pub dot: Dot,
    /// Its packet's time in seconds since 1970 UTC; decided by the two before it.
    pub time: i64,
}

/// When the branch of `head` began: its earliest version that is not in the line of a head with other bytes.
///
/// Heads that agree have one seat, and what they come from in common is theirs: writing the same again changes no seats.
///
/// Later edits of a branch do not move this, so they change no seats, as long as a branch is at most [`MAX_TRAIL`]
/// versions long when the conflict is first seen; from then on [`Item::trail_after`] keeps where it began.
fn branch_began(head: &Head, shown: &[&Head]) -> Began {
    let others: Vec<&&Head> = shown.iter().filter(|other| !other.content.agrees(&head.content)).collect();
    let in_another_line = |dot: &Dot| others.iter().any(|other| is_in_line(other, dot));
    let mut began = Began { lamport: head.lamport, dot: head.dot, time: head.time };
    for mark in &head.trail {
        if in_another_line(&mark.dot) {
            break;
        }
        began = Began { lamport: mark.lamport, dot: mark.dot, time: mark.time };
    }
    began
}

/// Whether a version is this head or one that it came from.
fn is_in_line(head: &Head, dot: &Dot) -> bool {
    head.dot == *dot || head.trail.iter().any(|mark| mark.dot == *dot)
}

#[cfg(test)]
mod tests;
