//! The consistency check: do vault, record and disk say the same after a round?
//!
//! Three things are held against one another, and nothing is changed:
//!
//! - the folded items among themselves: every directory above an item is known, and no item lies within itself;
//! - the record of this disk against the items: every entry stands for a known item and a known version of it, in a
//!   directory that is recorded, and an item that nothing waits for is planned for no more;
//! - the disk against the record: a file that looks untouched since it was recorded holds what the record says.
//!
//! People change their folders at any time, so a disk that differs and shows it is no finding; nor is anything that a
//! touched item explains. What is found is a bug or a disk that lies. The round ends with it, so that nothing is built
//! on it, and the evidence is handed to whoever keeps it ([`SyncError::Inconsistent`]).
//!
//! A sample costs the same however large the vault is, and begins at another item each round.

use std::collections::HashSet;

use packetboat_core::content::Content;
use packetboat_core::ids::ItemId;
use packetboat_core::item::Item;
use packetboat_core::local::{DirId, EntryState, LocalEntry, LocalRead};
use packetboat_core::name::RelPath;
use packetboat_core::plan::{HistoryRead, Planned, Step, plan};
use packetboat_core::tree::{TreeRead, is_alive};
use packetboat_core::view::Viewer;
use packetboat_replica::fs::FileKind;

use crate::content_reader::{ContentReader, ReadError};
use crate::error::SyncError;
use crate::ignore_rules::IgnoreRules;
use crate::paths;
use crate::replica::Replica;
use crate::scan::fingerprint;

/// How much is checked after each round.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Check {
    /// Nothing.
    Off,
    /// So many items, another part of the vault each time.
    Sample(usize),
    /// Every item and every file, whatever that takes.
    Everything,
}

impl Default for Check {
    /// A sample in builds with debug assertions, nothing in others.
    fn default() -> Self {
        if cfg!(debug_assertions) { Self::Sample(SAMPLE) } else { Self::Off }
    }
}

impl Replica {
    /// Looks whether vault, record and disk say the same; an error with the evidence where they do not.
    pub(crate) fn check_consistency(&self, rules: &IgnoreRules) -> Result<(), SyncError> {
        let limit = match self.parts.settings.check {
            Check::Off => return Ok(()),
            Check::Sample(items) => items,
            Check::Everything => usize::MAX,
        };
        let index = &self.parts.index;
        let _reading = index.reading()?;
        let mut findings = Findings { replica: self, rules, texts: Vec::new() };
        let quiet = index.touched_count()? == 0;
        let hash = index.knowledge().state_hash();
        let start = ItemId::from_slice(&hash[..16]).unwrap_or(ItemId::ROOT);
        let mut looked_at = 0;
        // From somewhere in the middle to the end, and then from the beginning.
        for begin in [Some(start), None] {
            let mut after = begin;
            while looked_at < limit {
                let page = index.items_by_id(after, PAGE.min(limit - looked_at))?;
                let Some(last) = page.last() else { break };
                after = Some(last.id);
                looked_at += page.len();
                findings.page(&page, quiet)?;
                if begin.is_none() && after >= Some(start) {
                    break;
                }
            }
        }
        findings.finish()
    }
}

struct Findings<'a> {
    replica: &'a Replica,
    rules: &'a IgnoreRules,
    /// What was found, with its evidence.
    texts: Vec<(String, String)>,
}

impl Findings<'_> {
    fn page(&mut self, items: &[Item], quiet: bool) -> Result<(), SyncError> {
        let index = &self.replica.parts.index;
        for item in items {
            self.item(item)?;
            for entry in index.entries_of(item.id)? {
                self.entry(item, &entry)?;
            }
        }
        // What items contradict has no plan, and where one lies within itself to ask for it would never end.
        if quiet && self.texts.is_empty() {
            let ids: Vec<ItemId> = items.iter().map(|item| item.id).collect();
            let planned = plan(index, &ids)?;
            for planned in planned.steps.into_iter().chain(planned.removals) {
                self.planned(&planned)?;
            }
        }
        Ok(())
    }

    fn item(&mut self, item: &Item) -> Result<(), SyncError> {
        let index = &self.replica.parts.index;
        if item.heads.is_empty() || item.placements.is_empty() {
            self.found("an item has no content or no place", item, &"");
        }
        let mut above = HashSet::from([item.id]);
        let mut at = item.at.parent;
        while at != ItemId::ROOT {
            if !above.insert(at) {
                self.found("an item lies within itself", item, &above);
                break;
            }
            match index.item(at)? {
                Some(directory) if directory.is_directory() => at = directory.at.parent,
                other => {
                    self.found("an item lies in what is no directory", item, &other);
                    break;
                }
            }
        }
        Ok(())
    }

    fn entry(&mut self, item: &Item, entry: &LocalEntry) -> Result<(), SyncError> {
        let index = &self.replica.parts.index;
        for head in &entry.seen.heads {
            // Whoever begins from a checkpoint may show what was replaced before, as long as a rule or a want keeps it.
            let is_replaced = item.heads.iter().any(|now| now.trail.iter().any(|mark| mark.dot == *head));
            if !is_replaced && index.version(item.id, head)?.is_none() {
                self.found("an entry stands for a version that is not known", item, entry);
            }
        }
        if ![DirId::ROOT, DirId::STAGING].contains(&entry.dir) && index.directory(entry.dir)?.is_none() {
            self.found("an entry lies in a directory that is not recorded", item, entry);
            return Ok(());
        }
        if entry.own_dir.is_some() != item.is_directory() {
            self.found("an entry is of another kind than its item", item, entry);
        }
        self.disk(item, entry)
    }

    /// Whether a file that shows no change holds what the record says.
    fn disk(&mut self, item: &Item, entry: &LocalEntry) -> Result<(), SyncError> {
        let parts = &self.replica.parts;
        let whole = parts.settings.check == Check::Everything;
        let Some(dot) = entry.seen.heads.first().filter(|_| entry.state == EntryState::Settled) else { return Ok(()) };
        if entry.own_dir.is_some() || (!whole && entry.stat.size > MAX_SAMPLED_BYTES) {
            return Ok(());
        }
        let Some(head) = parts.index.version(item.id, dot)? else { return Ok(()) };
        let path = paths::entry_path(&parts.index, entry)?;
        let untouched = |found: std::io::Result<_>| found.is_ok_and(|stat| fingerprint(&stat) == entry.stat);
        if !untouched(parts.fs.lstat(&path)) {
            return Ok(());
        }
        let holds = match &head.content {
            Content::File(file) => {
                let Ok(mut disk) = parts.fs.open(&path) else { return Ok(()) };
                let ring = &self.replica.keys.ring;
                let mut reader = ContentReader::new(&parts.index, &*parts.store, ring, parts.settings.threads);
                // A list of chunks that cannot be had proves nothing of the disk.
                if reader.chunk_list(file).is_err() {
                    return Ok(());
                }
                match reader.is_in(file, &mut *disk) {
                    Ok(holds) => holds,
                    Err(ReadError::Sync(error)) => return Err(error),
                    Err(_) => return Ok(()),
                }
            }
            Content::Symlink(target) => parts.fs.read_link(&path).is_ok_and(|found| found == *target),
            Content::Directory => parts.fs.lstat(&path).is_ok_and(|stat| stat.kind == FileKind::Directory),
        };
        // Looked at again: somebody may have written to it while it was read.
        if !holds && untouched(parts.fs.lstat(&path)) {
            self.found(&format!("{path} does not hold what the record says"), item, entry);
        }
        Ok(())
    }

    /// A step for an item that nothing waits for.
    fn planned(&mut self, planned: &Planned) -> Result<(), SyncError> {
        let index = &self.replica.parts.index;
        let viewer = Viewer::new(index);
        let (item, path, directory): (ItemId, RelPath, bool) = match &planned.step {
            Step::Make { shown } | Step::Change { shown, .. } | Step::Agree { shown, .. } => {
                let path = viewer.path_of(shown.parent)?.join(&shown.name);
                (shown.item, path, shown.content.is_directory())
            }
            Step::Remove { entry } => (entry.seen.item, paths::entry_path(index, entry)?, entry.own_dir.is_some()),
        };
        if let Step::Change { entry, .. } | Step::Agree { entry, .. } | Step::Remove { entry } = &planned.step
            && entry.state == EntryState::Frozen
        {
            return Ok(());
        }
        if self.rules.covers(&path, directory) {
            return Ok(());
        }
        let Some(item) = index.item(item)? else { return Ok(()) };
        let alive = is_alive(index, &item)?;
        self.found(&format!("{path} is not as the vault shows it, and nothing waits (alive: {alive})"), &item, planned);
        Ok(())
    }

    fn found(&mut self, what: &str, item: &Item, evidence: &dyn std::fmt::Debug) {
        if self.texts.len() < MAX_FINDINGS {
            self.texts.push((what.to_owned(), format!("{what}\nitem {item:#?}\nevidence {evidence:#?}\n")));
        }
    }

    fn finish(self) -> Result<(), SyncError> {
        let Some((what, _)) = self.texts.first() else { return Ok(()) };
        let what = what.clone();
        let index = &self.replica.parts.index;
        let mut evidence = format!("state {}\n", self.replica.state());
        for (device, learned) in index.knowledge().iter() {
            evidence.push_str(&format!("learned {device}:{}\n", learned.counter));
        }
        self.texts.iter().for_each(|(_, text)| evidence.push_str(text));
        Err(SyncError::Inconsistent { what, evidence })
    }
}

/// Items that a sample holds: a round of a small vault is checked whole.
const SAMPLE: usize = 48;
/// Largest file of which a sample reads the bytes.
const MAX_SAMPLED_BYTES: u64 = 64 * 1024;
const PAGE: usize = 256;
/// Findings that are kept: one bug shows in many places.
const MAX_FINDINGS: usize = 20;
