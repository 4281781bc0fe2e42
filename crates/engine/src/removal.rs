//! What is gone from the folder: published as removed, withheld, or brought back.
//!
//! Whatever could have been moved was matched before ([`crate::absorb`]); what comes here has no other end on this disk.

use std::collections::{HashMap, HashSet};

use packetboat_core::change::{Change, Removed};
use packetboat_core::ids::ItemId;
use packetboat_core::local::{DirId, LocalEntry};
use packetboat_core::name::RelPath;
use packetboat_core::publish;
use packetboat_core::tree::TreeWrite;
use packetboat_replica::index::Index;

use crate::builder::{After, Builder};
use crate::error::SyncError;
use crate::paths;
use crate::ports::{Entropy, Note, Observer};

/// Publishes the removal of what is gone.
pub(crate) fn remove(
    builder: &mut Builder<'_>,
    gone: Vec<LocalEntry>,
    entropy: &mut dyn Entropy,
) -> Result<u64, SyncError> {
    let mut by_item: Vec<(ItemId, Vec<LocalEntry>)> = Vec::new();
    let mut position: HashMap<ItemId, usize> = HashMap::new();
    for entry in &gone {
        let at = *position.entry(entry.seen.item).or_insert_with(|| {
            by_item.push((entry.seen.item, Vec::new()));
            by_item.len() - 1
        });
        by_item[at].1.push(entry.clone());
    }
    let mut count = 0;
    let mut removed: Vec<Removed> = Vec::new();
    let mut records = Vec::new();
    for (item, entries) in by_item {
        let named = publish::removed(&*builder.index, &entries)?;
        if named.is_empty() {
            builder.index.touch(item)?;
        } else {
            count += entries.len() as u64;
        }
        // One delete names an item once, whoever stood for it.
        for new in named {
            if !is_named(&removed, &new) {
                removed.push(new);
            }
        }
        records.extend(entries.into_iter().map(|entry| (entry.dir, entry.name, item)));
        if removed.len() >= MAX_REMOVED {
            let change = Change::Delete { removed: std::mem::take(&mut removed) };
            builder.change(vec![change], vec![After::Gone(std::mem::take(&mut records))], entropy)?;
        }
    }
    if !records.is_empty() {
        let changes = if removed.is_empty() { Vec::new() } else { vec![Change::Delete { removed }] };
        builder.change(changes, vec![After::Gone(records)], entropy)?;
    }
    Ok(count)
}

/// Tells of what is gone and may stand where nothing could be read; how many objects, what lay in them not counted.
pub(crate) fn withhold(
    index: &Index,
    entries: &[LocalEntry],
    unread: Option<&RelPath>,
    observer: &mut dyn Observer,
) -> Result<u64, SyncError> {
    let dirs: HashSet<DirId> = entries.iter().filter_map(|entry| entry.own_dir).collect();
    let place = match unread {
        Some(directory) => format!("{directory}, which cannot be read"),
        None => "a new file that cannot be read".to_owned(),
    };
    let reason = format!(
        "it is gone from here and may be in {place}: it is not deleted elsewhere until that can be read or is ignored, \
         or `packetboat sync --confirm-deletes` says that it is meant"
    );
    let mut told = 0;
    for entry in entries.iter().filter(|entry| !dirs.contains(&entry.dir)) {
        observer.note(Note::Skipped { path: paths::known_path(index, entry)?, reason: reason.clone() });
        told += 1;
    }
    Ok(told)
}

/// Forgets what went while it was ignored: the vault's is brought again.
pub(crate) fn bring_back(
    builder: &mut Builder<'_>,
    absent: Vec<LocalEntry>,
    entropy: &mut dyn Entropy,
) -> Result<(), SyncError> {
    let mut records = Vec::new();
    for entry in absent {
        builder.index.touch(entry.seen.item)?;
        records.push((entry.dir, entry.name, entry.seen.item));
    }
    if records.is_empty() { Ok(()) } else { builder.change(Vec::new(), vec![After::Gone(records)], entropy) }
}

/// Whether a twin was named already. Twins are rare, and they stand near each other.
fn is_named(removed: &[Removed], new: &Removed) -> bool {
    removed.iter().rev().take(NEAR).any(|known| known.item == new.item)
}

/// Most items that one delete names.
const MAX_REMOVED: usize = 200_000;
/// How far back a twin of an item is looked for among what a delete names.
const NEAR: usize = 1024;
