//! Removing what nothing stands for any more: files first, then directories from the deepest up.

use packetboat_core::local::{DirId, EntryState, LocalEntry, LocalRead, View};
use packetboat_core::name::{Name, RelPath};
use packetboat_core::plan::{Planned, Step, shown_name};
use packetboat_core::tree::TreeWrite;
use packetboat_replica::fs::FileKind;

use super::disk::{Trouble, fatal, is_same, trouble, unless_fatal};
use super::place::{Source, rename_new};
use super::records::{self, Record};
use super::recover::keep_written;
use super::{Applier, DISK};
use crate::error::SyncError;
use crate::paths;
use crate::scan::fingerprint;

impl Applier<'_, '_> {
    /// Removes; says whether anything was.
    pub(super) fn take_removals(&mut self, removals: Vec<Planned>) -> Result<bool, SyncError> {
        let mut files = Vec::new();
        let mut directories = Vec::new();
        for planned in removals {
            let Step::Remove { entry } = planned.step else { continue };
            let path = self.dir_path(entry.dir)?.join(&entry.name);
            if self.is_covered(&entry)? {
                self.freeze(&entry)?;
            } else if entry.own_dir.is_some() {
                directories.push((path, entry));
            } else {
                files.push((path, entry));
            }
        }
        let mut progress = false;
        for batch in files.chunks(self.ctx.limits.items.max(1)) {
            self.interrupted()?;
            progress |= self.remove_files(batch)?;
        }
        // A path sorts before what lies beneath it.
        directories.sort_by(|(a, _), (b, _)| b.cmp(a));
        self.ctx.index.begin()?;
        for (path, entry) in &directories {
            progress |= self.remove_directory(path, entry)?;
        }
        self.make_durable()?;
        self.ctx.index.commit()?;
        Ok(progress)
    }

    /// Takes files away into staging, looks at them again, records that they are gone, and only then gives them up.
    fn remove_files(&mut self, files: &[(RelPath, LocalEntry)]) -> Result<bool, SyncError> {
        let fs = self.ctx.fs;
        let mut ready = Vec::new();
        for (path, entry) in files {
            match unless_fatal(path, fs.lstat(path))? {
                Some(stat) if is_same(&entry.stat, &stat) => {
                    let (dir, name) = match &entry.state {
                        EntryState::Parked { dir, name } => (*dir, name.clone()),
                        _ => (entry.dir, entry.name.clone()),
                    };
                    let (staged, new_inode) = match entry.dir {
                        DirId::STAGING => (path.clone(), records::FOR_GOOD),
                        _ => (self.fresh_path("gone"), 0),
                    };
                    let record = Record { path: staged, dir, name, new_inode, old: entry.stat };
                    ready.push((path, entry, record));
                }
                // It was changed, or is gone: the next scan says how.
                _ => drop(self.failed.insert(entry.seen.item)),
            }
        }
        if ready.is_empty() {
            return Ok(false);
        }
        self.records = ready.iter().map(|(_, _, record)| record.clone()).collect();
        records::write(self.ctx.index, &self.label, &self.records)?;
        self.ctx.index.begin()?;
        let mut progress = false;
        for (path, entry, record) in ready {
            if record.path != *path {
                if let Err(error) = rename_new(fs, path, &record.path) {
                    self.cannot_remove(path, entry, error)?;
                    continue;
                }
                self.changed_in(path);
                self.changed_in(&record.path);
                let taken = fs.lstat(&record.path).map_err(|error| fatal(&record.path, error))?;
                if !is_same(&entry.stat, &taken) {
                    // It was written to in this instant. Should its name be taken by now, it is kept beside it.
                    let back = rename_new(fs, &record.path, path);
                    unless_fatal(path, back)?;
                    self.failed.insert(entry.seen.item);
                    continue;
                }
            }
            self.ctx.index.remove_entry(entry.dir, &entry.name)?;
            self.no_problem(path)?;
            self.received.deleted += 1;
            self.observer.advance(1, 0);
            self.tell(&Step::Remove { entry: entry.clone() })?;
            progress = true;
        }
        self.make_durable()?;
        self.ctx.index.commit()?;
        self.give_up_old()?;
        Ok(progress)
    }

    fn cannot_remove(&mut self, path: &RelPath, entry: &LocalEntry, error: std::io::Error) -> Result<(), SyncError> {
        self.failed.insert(entry.seen.item);
        match trouble(&error) {
            Trouble::Disk => Err(fatal(path, error)),
            Trouble::Gone => Ok(()),
            _ => self.problem(DISK, path, &format!("it cannot be removed: {error}")),
        }
    }

    fn remove_directory(&mut self, path: &RelPath, entry: &LocalEntry) -> Result<bool, SyncError> {
        let fs = self.ctx.fs;
        let Some(own) = entry.own_dir else { return Ok(false) };
        if self.stands_where_its_own_belongs(own, entry)? {
            // From staging the next pass takes out what it holds.
            let parked = self.park(entry)?;
            self.parked.clear();
            self.failed.insert(entry.seen.item);
            return Ok(parked);
        }
        let merged = self.merge(own, entry)?;
        match fs.rmdir(path) {
            Ok(()) => {
                self.changed_in(path);
                self.tell(&Step::Remove { entry: entry.clone() })?;
                self.forget_within(own)?;
                self.ctx.index.remove_entry(entry.dir, &entry.name)?;
                self.no_problem(path)?;
                self.received.deleted += 1;
                Ok(true)
            }
            Err(error) if error.kind() == std::io::ErrorKind::DirectoryNotEmpty => {
                if self.holds_only_ignored(path, own)? {
                    self.freeze(entry)?;
                    return Ok(true);
                }
                if entry.dir == DirId::STAGING && self.holds_only_new(path, own)? {
                    // No scan looks into staging, and the place where it stood is taken.
                    let (index, label) = (&mut *self.ctx.index, &self.label);
                    keep_written(fs, index, entry, path.clone(), label, self.ctx.now_ns)?;
                    return Ok(true);
                }
                self.failed.insert(entry.seen.item);
                Ok(merged)
            }
            Err(error) => {
                self.cannot_remove(path, entry, error)?;
                Ok(merged)
            }
        }
    }

    /// Whether something that a directory holds is to take its very place, or that of one that it stands in, in the one
    /// that is seen in its stead.
    fn stands_where_its_own_belongs(&self, own: DirId, entry: &LocalEntry) -> Result<bool, SyncError> {
        let Some(into) = self.physical_dir(entry.seen.item)?.filter(|into| *into != own) else { return Ok(false) };
        let (mut dir, mut name) = (entry.dir, entry.name.clone());
        while dir != into {
            let Some(above) = self.ctx.index.directory(dir)? else { return Ok(false) };
            (dir, name) = (above.dir, above.name);
        }
        Ok(self.ctx.index.entry_at(own, &name)?.is_some_and(|child| child.state != EntryState::Frozen))
    }

    /// Moves what a directory holds to the one that is seen in its stead, where that has no such name.
    fn merge(&mut self, own: DirId, entry: &LocalEntry) -> Result<bool, SyncError> {
        let Some(into) = self.physical_dir(entry.seen.item)?.filter(|into| *into != own) else { return Ok(false) };
        let mut moved = false;
        let mut after: Option<Name> = None;
        loop {
            let page = self.ctx.index.entries_in(own, after.as_ref(), 1000)?;
            let Some(last) = page.last() else { return Ok(moved) };
            after = Some(last.name.clone());
            for child in page {
                if child.state == EntryState::Frozen || self.ctx.index.entry_at(into, &child.name)?.is_some() {
                    continue;
                }
                let source = Source::Entry(own, child.name.clone());
                let Some(name) = self.bring(&source, into, &child.name)? else { continue };
                self.ctx.index.move_entry((own, &child.name), (into, &name))?;
                let mut entry = LocalEntry { dir: into, name, ..child.clone() };
                if entry.name != child.name {
                    // A name that this disk takes for the same is there; for everybody else it keeps its own.
                    entry.seen.view = View::Mapped { shown: shown_name(&child).clone() };
                }
                let path = self.dir_path(into)?.join(&entry.name);
                if let Some(stat) = unless_fatal(&path, self.ctx.fs.lstat(&path))? {
                    if stat.kind == FileKind::Directory || is_same(&child.stat, &stat) {
                        entry.stat = fingerprint(&stat);
                    }
                    entry.state = if child.own_dir.is_some() { EntryState::Settled } else { EntryState::Racy };
                }
                self.ctx.index.put_entry(&entry)?;
                moved = true;
            }
        }
    }

    /// Whether a directory stays only for what is left alone here.
    fn holds_only_ignored(&self, path: &RelPath, own: DirId) -> Result<bool, SyncError> {
        let Some(entries) = unless_fatal(path, self.ctx.fs.read_dir(path))? else { return Ok(false) };
        let known_path = paths::known_dir_path(self.ctx.index, own)?;
        for entry in entries {
            let Some(name) = Name::new(entry.name) else { continue };
            let directory = matches!(entry.stat, Ok(stat) if stat.kind == FileKind::Directory);
            let left_alone = match self.ctx.index.entry_at(own, &name)? {
                Some(known) => known.state == EntryState::Frozen,
                None => self.ctx.rules.covers(&known_path.join(&name), directory),
            };
            if !left_alone {
                return Ok(false);
            }
        }
        Ok(true)
    }

    /// Whether all that is left in a directory was written there since it was last looked at.
    fn holds_only_new(&self, path: &RelPath, own: DirId) -> Result<bool, SyncError> {
        let mut pending = vec![(path.clone(), Some(own))];
        let mut any = false;
        while let Some((path, dir)) = pending.pop() {
            let Some(entries) = unless_fatal(&path, self.ctx.fs.read_dir(&path))? else { return Ok(false) };
            for entry in entries {
                let (Some(name), Ok(stat)) = (Name::new(entry.name), entry.stat) else { return Ok(false) };
                let known = dir.map(|dir| self.ctx.index.entry_at(dir, &name)).transpose()?.flatten();
                any |= known.is_none();
                match known {
                    _ if stat.kind == FileKind::Directory => {
                        pending.push((path.join(&name), known.and_then(|known| known.own_dir)));
                    }
                    Some(known) if is_same(&known.stat, &stat) => return Ok(false),
                    _ => any = true,
                }
            }
        }
        Ok(any)
    }

    /// Forgets the entries of a directory that is gone, or that is left as local.
    pub(super) fn forget_within(&mut self, own: DirId) -> Result<(), SyncError> {
        let mut dirs = vec![own];
        while let Some(dir) = dirs.pop() {
            for entry in self.ctx.index.entries_in(dir, None, usize::MAX)? {
                dirs.extend(entry.own_dir);
                self.ctx.index.remove_entry(dir, &entry.name)?;
                self.ctx.index.touch(entry.seen.item)?;
                self.failed.insert(entry.seen.item);
            }
        }
        Ok(())
    }

    /// Whether a rule covers an entry. Rules are about the places that people know: a rule such as `.*` would keep what is
    /// in staging where nobody finds it. What was parked was not ignored where it stood.
    pub(super) fn is_covered(&self, entry: &LocalEntry) -> Result<bool, SyncError> {
        if self.ctx.rules.is_empty() || entry.dir == DirId::STAGING {
            return Ok(false);
        }
        Ok(self.ctx.rules.covers(&paths::known_path(self.ctx.index, entry)?, entry.own_dir.is_some()))
    }

    /// Marks an entry as left alone.
    pub(super) fn freeze(&mut self, entry: &LocalEntry) -> Result<(), SyncError> {
        let (dir, name) = self.current(entry);
        self.ctx.index.set_fingerprint(dir, &name, &entry.stat, &EntryState::Frozen)?;
        Ok(())
    }

    /// A path in staging that nothing has.
    pub(super) fn fresh_path(&mut self, what: &str) -> RelPath {
        self.staged += 1;
        paths::staging().join(&Name::new(format!("{what}-{}", self.staged)).expect("a sound name"))
    }
}
