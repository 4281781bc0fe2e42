//! What was kept from this disk by a rule that is no more: it is looked at again, with all beneath it.

use packetboat_core::ids::ItemId;
use packetboat_core::name::RelPath;
use packetboat_core::tree::{TreeRead, TreeWrite};
use packetboat_core::view::Viewer;
use packetboat_replica::index::Index;

use super::{IGNORED, IGNORED_ITEM};
use crate::error::SyncError;
use crate::ignore_rules::IgnoreRules;

/// Whether anything waits that no rule ignores any more.
pub(crate) fn any_unignored(index: &Index, rules: &IgnoreRules) -> Result<bool, SyncError> {
    Ok(!unignored(index, rules)?.is_empty() || !unignored_items(index, rules)?.is_empty())
}

/// Touches what no rule ignores any more, and forgets what is gone from the vault.
pub(crate) fn touch_unignored(index: &mut Index, rules: &IgnoreRules) -> Result<(), SyncError> {
    let (paths, items) = (unignored(index, rules)?, unignored_items(index, rules)?);
    let mut all: Vec<_> = paths.iter().map(|(_, items)| items.clone()).collect();
    for item in &items {
        if index.item(*item)?.is_some() {
            all.push(vec![*item]);
        }
    }
    for mut pending in all {
        while let Some(item) = pending.pop() {
            index.touch(item)?;
            let mut after = None;
            loop {
                let page = index.children(item, after, PAGE)?;
                let Some((last, _)) = page.last() else { break };
                after = Some(last.clone());
                pending.extend(page.iter().map(|(_, child)| *child));
            }
        }
    }
    // Last, so that whoever is cut short before finds them again: nothing else knows what is to be looked at.
    for (path, _) in &paths {
        index.clear_problem(IGNORED, path.as_bytes())?;
    }
    for item in &items {
        index.clear_problem(IGNORED_ITEM, item.as_bytes())?;
    }
    Ok(())
}

/// The listed items that are ignored no more where they are seen now: the user may have renamed what they lie in, and what
/// has their former path is something else then.
fn unignored_items(index: &Index, rules: &IgnoreRules) -> Result<Vec<ItemId>, SyncError> {
    let mut found = Vec::new();
    for problem in index.problems()?.into_iter().filter(|problem| problem.kind == IGNORED_ITEM) {
        let Some(item) = ItemId::from_slice(&problem.subject) else { continue };
        let viewer = Viewer::new(index);
        let shown = match index.item(item)? {
            Some(item) => viewer.shown_for(&item)?,
            None => None,
        };
        let is_ignored = match shown {
            Some(shown) => rules.covers(&viewer.path_of(shown.parent)?.join(&shown.name), shown.content.is_directory()),
            None => false,
        };
        if !is_ignored {
            found.push(item);
        }
    }
    Ok(found)
}

/// The listed paths that are ignored no more, with the items that stand there.
fn unignored(index: &Index, rules: &IgnoreRules) -> Result<Vec<(RelPath, Vec<ItemId>)>, SyncError> {
    let mut found = Vec::new();
    for problem in index.problems()?.into_iter().filter(|problem| problem.kind == IGNORED) {
        let Some(path) = RelPath::new(&problem.subject) else { continue };
        let viewer = Viewer::new(index);
        let shown = viewer.at_path(&path)?;
        if shown.as_ref().is_some_and(|shown| rules.covers(&path, shown.content.is_directory())) {
            continue;
        }
        let items = match shown {
            Some(shown) if shown.content.is_directory() => viewer.class(shown.item)?.to_vec(),
            Some(shown) => vec![shown.item],
            None => Vec::new(),
        };
        found.push((path, items));
    }
    Ok(found)
}

const PAGE: usize = 1000;
