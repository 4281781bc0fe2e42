//! Forgetting in the index what lies before the beginning of history.
//!
//! Replaced values that were replaced before it, packets, and items that were dead at it and are dead now: each device
//! that is waited for has passed their deletion, so nobody can bring them back unseen any more.
//!
//! What this disk still shows stays, however old: history may go after it was learned and before the disk follows, and
//! until then it is what a file on disk is compared with.

use std::collections::HashSet;

use packetboat_core::ids::{Dot, ItemId};
use packetboat_core::knowledge::Knowledge;
use packetboat_core::local::LocalRead;
use packetboat_core::tree::{Past, TreeRead, is_shown};
use packetboat_replica::index::Index;

use super::in_use::Beginning;
use crate::error::SyncError;

/// Forgets what lies before `history`, at which the vault was as `past` says. Within the caller's transaction.
pub(super) fn sweep(index: &mut Index, history: &Knowledge, past: &Index) -> Result<(), SyncError> {
    let beginning = Beginning { history, past };
    replaced_values(index, &beginning)?;
    index.forget_packets(history)?;
    tombstones(index, &beginning)
}

fn replaced_values(index: &mut Index, beginning: &Beginning<'_>) -> Result<(), SyncError> {
    let mut after = None;
    loop {
        let page = index.items_with_history(after, PAGE)?;
        let Some(last) = page.last() else { return Ok(()) };
        after = Some(*last);
        for item in page {
            let shown = shown_here(index, item)?;
            for value in index.history_of(item)? {
                if !shown.contains(&dot(&value)) && !keeps(beginning, item, &value)? {
                    index.remove_past(item, &value)?;
                }
            }
        }
    }
}

/// The versions of an item, of its content and of its place, that this disk shows.
fn shown_here(index: &Index, item: ItemId) -> Result<HashSet<Dot>, SyncError> {
    let seen = index.entries_of(item)?.into_iter().map(|entry| entry.seen);
    Ok(seen.flat_map(|seen| seen.heads.into_iter().chain(seen.placements)).collect())
}

fn dot(value: &Past) -> Dot {
    match value {
        Past::Content(head) => head.dot,
        Past::Placed(placed) => placed.stamp.dot(),
        Past::Mode(mode) => mode.stamp.dot(),
    }
}

fn keeps(beginning: &Beginning<'_>, item: ItemId, value: &Past) -> Result<bool, SyncError> {
    let stamp = match value {
        Past::Content(head) => return beginning.keeps(item, head),
        Past::Placed(placed) => placed.stamp,
        Past::Mode(mode) => mode.stamp,
    };
    if !beginning.history.contains(&stamp.dot()) {
        return Ok(true);
    }
    let Some(then) = beginning.past.item(item)? else { return Ok(false) };
    Ok(match value {
        Past::Placed(_) => then.placements.iter().any(|placement| placement.placed.stamp == stamp),
        _ => then.mode.is_some_and(|mode| mode.stamp == stamp),
    })
}

/// Forgets items that were dead then and are dead now, and that nothing refers to any more.
fn tombstones(index: &mut Index, beginning: &Beginning<'_>) -> Result<(), SyncError> {
    let mut dead = Vec::new();
    let mut after = None;
    loop {
        let page = index.items_by_id(after, PAGE)?;
        let Some(last) = page.last() else { break };
        after = Some(last.id);
        for item in &page {
            if item.lives_by_itself() || is_shown(index, item)? || !index.entries_of(item.id)?.is_empty() {
                continue;
            }
            let Some(then) = beginning.past.item(item.id)? else { continue };
            if !is_shown(beginning.past, &then)? {
                dead.push(item.id);
            }
        }
    }
    if dead.is_empty() {
        return Ok(());
    }
    let moved = mentioned_in_moves(index)?;
    dead.retain(|item| !moved.contains(item));
    // What lies in a directory goes before it.
    loop {
        let before = dead.len();
        let mut left = Vec::new();
        for item in std::mem::take(&mut dead) {
            if index.children(item, None, 1)?.is_empty() {
                index.remove_item(item)?;
            } else {
                left.push(item);
            }
        }
        dead = left;
        if dead.len() == before {
            return Ok(());
        }
    }
}

/// Directories that a replay of moves may look at.
fn mentioned_in_moves(index: &Index) -> Result<HashSet<ItemId>, SyncError> {
    let mut mentioned = HashSet::new();
    let mut after = None;
    loop {
        let page = index.moves_by_stamp(after.as_ref(), PAGE)?;
        let Some(last) = page.last() else { return Ok(mentioned) };
        after = Some(last.to.stamp);
        for record in page {
            mentioned.extend([record.item, record.to.parent, record.before.parent]);
        }
    }
}

const PAGE: usize = 1024;

#[cfg(test)]
mod tests;
