//! Bringing objects to their places: renames that replace nothing, exchanges that are looked at again, parking.

use std::collections::VecDeque;
use std::io;

use packetboat_core::conflict_name::Label;
use packetboat_core::ids::{DeviceId, Dot, ItemId};
use packetboat_core::local::{DirId, EntryState, LocalEntry, LocalRead};
use packetboat_core::local_name;
use packetboat_core::name::{Name, RelPath};
use packetboat_core::tree::{TreeRead, TreeWrite, is_shown};
use packetboat_core::view::Viewer;
use packetboat_replica::fs::{FileKind, Fs};

use super::disk::{Trouble, fatal, is_same, trouble, unless_fatal};
use super::records::{self, Record};
use super::{Applier, DISK, NAME};
use crate::error::SyncError;
use crate::paths;
use crate::ports::Note;

/// An object on its way.
#[derive(Clone, Debug)]
pub(super) enum Source {
    /// Made in staging.
    Staged(RelPath),
    /// An entry, by the place where the index has it.
    Entry(DirId, Name),
}

impl Applier<'_, '_> {
    /// The path of a directory on disk.
    pub(super) fn dir_path(&self, dir: DirId) -> Result<RelPath, SyncError> {
        if dir == DirId::STAGING {
            return Ok(paths::staging());
        }
        Ok(paths::dir_path(self.ctx.index, dir)?)
    }

    fn source_path(&self, source: &Source) -> Result<RelPath, SyncError> {
        match source {
            Source::Staged(path) => Ok(path.clone()),
            Source::Entry(dir, name) => Ok(self.dir_path(*dir)?.join(name)),
        }
    }

    /// The directory on disk that shows a directory's item, or one that is seen as one with it.
    pub(super) fn physical_dir(&self, item: ItemId) -> Result<Option<DirId>, SyncError> {
        let index = &*self.ctx.index;
        if item == ItemId::ROOT {
            return Ok(Some(DirId::ROOT));
        }
        for member in Viewer::new(index).class(item)?.iter() {
            if *member == ItemId::ROOT {
                return Ok(Some(DirId::ROOT));
            }
            for entry in index.entries_of(*member)? {
                if entry.own_dir.is_some() && entry.dir != DirId::STAGING && entry.state != EntryState::Frozen {
                    return Ok(entry.own_dir);
                }
            }
        }
        Ok(None)
    }

    /// Renames an object to its place, or to a name that stands in for the wanted one; nothing there is ever replaced.
    ///
    /// Another entry in the way is parked. `None` where the object has to wait.
    pub(super) fn bring(&mut self, source: &Source, dir: DirId, wanted: &Name) -> Result<Option<Name>, SyncError> {
        let mut names = VecDeque::from([wanted.clone()]);
        let mut offered = false;
        let (mut parked, mut again) = (0, 0);
        while let Some(name) = names.pop_front() {
            if matches!(source, Source::Entry(from, at) if *from == dir && *at == name) {
                return Ok(Some(name));
            }
            let from = self.source_path(source)?;
            let to = self.dir_path(dir)?.join(&name);
            if is_within(&to, &from) {
                return Ok(None);
            }
            if matches!(source, Source::Entry(..)) && !self.unplaced.is_empty() {
                // What the user has may not hang on a place that a power loss takes back.
                self.make_durable()?;
            }
            if self.vacated.contains(&(dir, name.clone())) {
                // Should the index still say that another stands there, a scan would take this for an edit of that one.
                self.checkpoint()?;
            }
            let known = self.ctx.index.entry_at(dir, &name)?;
            if known.is_some() && name != *wanted {
                // Whoever has a stand-in for its own name would take it back, and so on for ever: there are others.
                continue;
            }
            if known.is_some() && self.is_gone(&to) {
                return Ok(None);
            }
            // What is recorded there is taken away and never just found gone: its user may delete it in this instant, and
            // then this would get its record, or its record would be lost and with it what its user did.
            let brought = match known {
                Some(_) => Err(io::ErrorKind::AlreadyExists.into()),
                None => rename_new(self.ctx.fs, &from, &to),
            };
            let error = match brought {
                Ok(()) => {
                    if let Source::Entry(dir, name) = source {
                        self.vacated.insert((*dir, name.clone()));
                    }
                    self.changed_in(&from);
                    self.changed_in(&to);
                    return Ok(Some(name));
                }
                Err(error) => error,
            };
            match trouble(&error) {
                Trouble::Taken => match self.ctx.index.entry_at(dir, &name)? {
                    Some(entry) if self.stays(&entry)? => {
                        let what = "what stands in its place stays for ignored files: move those away, or it";
                        self.problem(DISK, &to, what)?;
                        return Ok(None);
                    }
                    Some(_) if parked >= MAX_PARKED => return Ok(None),
                    Some(entry) => {
                        if !self.park(&entry)? {
                            return Ok(None);
                        }
                        parked += 1;
                        names.push_front(name);
                    }
                    None if self.is_case_of(&from, &to)? => {
                        if unless_fatal(&to, self.ctx.fs.rename_over(&from, &to))?.is_none() {
                            return Ok(None);
                        }
                        self.changed_in(&from);
                        self.changed_in(&to);
                        return Ok(Some(name));
                    }
                    None if self.stands_exactly(&to)? => {
                        let directory = self.ctx.fs.lstat(&to).is_ok_and(|stat| stat.kind == FileKind::Directory);
                        if self.ctx.rules.covers(&to, directory) {
                            self.problem(DISK, &to, "something that is ignored stands in its place: move that away")?;
                        }
                        return Ok(None);
                    }
                    // What was in the way may have gone in this instant; a name that is folded stays taken.
                    None if again < MAX_AGAIN => {
                        again += 1;
                        names.push_front(name);
                    }
                    None if offered => {}
                    None => {
                        offered = true;
                        names.extend(local_name::distinct(wanted));
                    }
                },
                Trouble::Name if offered => {}
                Trouble::Name => {
                    offered = true;
                    names.extend(local_name::stand_ins(wanted));
                }
                Trouble::Gone => return Ok(None),
                Trouble::Object => {
                    self.problem(DISK, &to, &format!("it cannot be put there: {error}"))?;
                    return Ok(None);
                }
                Trouble::Disk => return Err(fatal(&to, error)),
            }
        }
        let path = self.dir_path(dir)?.join(wanted);
        self.problem(NAME, &path, "the file system can hold neither this name nor one that stands in for it")?;
        Ok(None)
    }

    /// Whether an entry is left alone here, or is a directory that would go but for what is ignored in it.
    ///
    /// Parking such a directory would hide in staging what nobody asked to remove.
    fn stays(&self, entry: &LocalEntry) -> Result<bool, SyncError> {
        if entry.state == EntryState::Frozen {
            return Ok(true);
        }
        let Some(own) = entry.own_dir else { return Ok(false) };
        let index = &*self.ctx.index;
        match index.item(entry.seen.item)? {
            Some(item) if is_shown(index, &item)? => return Ok(false),
            _ => {}
        }
        let path = self.dir_path(entry.dir)?.join(&entry.name);
        let mut pending = vec![(path, paths::known_path(index, entry)?, Some(own))];
        while let Some((path, known_path, dir)) = pending.pop() {
            for found in unless_fatal(&path, self.ctx.fs.read_dir(&path))?.unwrap_or_default() {
                let Some(name) = Name::new(found.name) else { continue };
                let known_below = known_path.join(&name);
                let directory = matches!(found.stat, Ok(stat) if stat.kind == FileKind::Directory);
                let known = dir.map(|dir| index.entry_at(dir, &name)).transpose()?.flatten();
                let frozen = known.as_ref().is_some_and(|known| known.state == EntryState::Frozen);
                if frozen || self.ctx.rules.covers(&known_below, directory) {
                    return Ok(true);
                }
                if directory {
                    pending.push((path.join(&name), known_below, known.and_then(|known| known.own_dir)));
                }
            }
        }
        Ok(false)
    }

    /// Whether nothing is at a path. Of something recorded there: a user took it away after the scan, and to put anything
    /// in its place would make the index take that for the one that went.
    fn is_gone(&self, path: &RelPath) -> bool {
        self.ctx.fs.lstat(path).is_err_and(|error| error.kind() == io::ErrorKind::NotFound)
    }

    /// Whether two paths lead to one object: the name differs in what the file system folds.
    fn is_case_of(&self, from: &RelPath, to: &RelPath) -> Result<bool, SyncError> {
        let (Some(from), Some(to)) =
            (unless_fatal(from, self.ctx.fs.lstat(from))?, unless_fatal(to, self.ctx.fs.lstat(to))?)
        else {
            return Ok(false);
        };
        // Two hard links of one file are two objects.
        let single = from.links <= 1 || from.kind == FileKind::Directory;
        Ok(single && from.inode == to.inode && from.device == to.device)
    }

    /// Whether a directory lists exactly these bytes as a name; if not, the name was taken for another.
    pub(super) fn stands_exactly(&self, path: &RelPath) -> Result<bool, SyncError> {
        let Some((dir, name)) = path.split() else { return Ok(true) };
        let Some(entries) = unless_fatal(&dir, self.ctx.fs.read_dir(&dir))? else { return Ok(true) };
        Ok(entries.iter().any(|entry| entry.name == name.as_bytes()))
    }

    /// Makes what was done so far durable, and records it.
    fn checkpoint(&mut self) -> Result<(), SyncError> {
        self.make_durable()?;
        self.vacated.clear();
        self.ctx.index.commit()?;
        Ok(self.ctx.index.begin()?)
    }

    /// Moves an entry into staging to free its name; its own plan moves it on.
    pub(super) fn park(&mut self, entry: &LocalEntry) -> Result<bool, SyncError> {
        let path = self.dir_path(entry.dir)?.join(&entry.name);
        let Some(stat) = unless_fatal(&path, self.ctx.fs.lstat(&path))? else { return Ok(false) };
        if stat.inode != entry.stat.inode || (entry.own_dir.is_none() && !is_same(&entry.stat, &stat)) {
            // The next scan sees what it is now; it does not look in staging.
            return Ok(false);
        }
        // The record must be there before the rename, and with it goes what was done so far.
        self.make_durable()?;
        self.vacated.clear();
        let index = &mut *self.ctx.index;
        let name = Name::new(format!("{PARK}{}", index.new_dir_id()?.0)).expect("a sound name");
        index.move_entry((entry.dir, &entry.name), (DirId::STAGING, &name))?;
        let mut parked = entry.clone();
        (parked.dir, parked.name) = (DirId::STAGING, name.clone());
        parked.state = EntryState::Parked { dir: entry.dir, name: entry.name.clone() };
        index.put_entry(&parked)?;
        index.touch(entry.seen.item)?;
        index.commit()?;
        index.begin()?;
        let to = paths::staging().join(&name);
        match rename_new(self.ctx.fs, &path, &to) {
            Ok(()) => {
                self.changed_in(&path);
                self.changed_in(&to);
                // What follows may survive a power loss only together with this.
                self.make_durable()?;
                self.parked.insert((entry.dir, entry.name.clone()), name);
                self.failed.insert(entry.seen.item);
                Ok(true)
            }
            Err(error) if trouble(&error) == Trouble::Disk => Err(fatal(&path, error)),
            Err(_) => {
                let index = &mut *self.ctx.index;
                index.move_entry((DirId::STAGING, &name), (entry.dir, &entry.name))?;
                index.put_entry(entry)?;
                Ok(false)
            }
        }
    }

    /// Puts what was staged in the place of an entry's file; says whether it did.
    ///
    /// What was there is in staging afterwards, under the name of what replaced it.
    pub(super) fn exchange(&mut self, staged: &RelPath, path: &RelPath, entry: &LocalEntry) -> Result<bool, SyncError> {
        let fs = self.ctx.fs;
        let Some(before) = unless_fatal(path, fs.lstat(path))? else { return Ok(false) };
        if !is_same(&entry.stat, &before) {
            return Ok(false);
        }
        match fs.exchange(staged, path) {
            Ok(()) => {}
            Err(error) if error.kind() == io::ErrorKind::Unsupported => return self.replace(staged, path),
            Err(error) if trouble(&error) == Trouble::Disk => return Err(fatal(path, error)),
            Err(error) => {
                self.problem(DISK, path, &format!("it cannot be replaced: {error}"))?;
                return Ok(false);
            }
        }
        self.changed_in(staged);
        self.changed_in(path);
        let after = fs.lstat(staged).map_err(|error| fatal(staged, error))?;
        if is_same(&entry.stat, &after) {
            return Ok(true);
        }
        fs.exchange(staged, path).map_err(|error| fatal(path, error))?;
        self.warn_of_write(path);
        Ok(false)
    }

    /// Where the file system cannot exchange: it was looked at just now.
    fn replace(&mut self, staged: &RelPath, path: &RelPath) -> Result<bool, SyncError> {
        match self.ctx.fs.rename_over(staged, path) {
            Ok(()) => {
                self.changed_in(staged);
                self.changed_in(path);
                Ok(true)
            }
            Err(error) if trouble(&error) == Trouble::Disk => Err(fatal(path, error)),
            Err(error) => {
                self.problem(DISK, path, &format!("it cannot be replaced: {error}"))?;
                Ok(false)
            }
        }
    }

    fn warn_of_write(&mut self, path: &RelPath) {
        let text = format!("\"{path}\" was written to while it was being replaced; both versions are kept");
        self.observer.note(Note::Warning { text });
    }

    /// Gives up what was replaced or removed, unless it was written to since; what was becomes a file of its own.
    pub(super) fn give_up_old(&mut self) -> Result<(), SyncError> {
        let fs = self.ctx.fs;
        let mut kept = false;
        for record in std::mem::take(&mut self.records) {
            let Some(stat) = unless_fatal(&record.path, fs.lstat(&record.path))? else { continue };
            if stat.inode == record.new_inode || is_same(&record.old, &stat) {
                match crate::fetch::gone_is_fine(fs.unlink(&record.path)) {
                    Err(error) if trouble(&error) == Trouble::Disk => return Err(fatal(&record.path, error)),
                    _ => continue,
                }
            }
            let seconds = self.ctx.now_ns.div_euclid(1_000_000_000);
            let dir = self.dir_path(record.dir)?;
            keep_as_conflict(fs, &self.label, seconds, &record, &dir).map_err(|error| fatal(&record.path, error))?;
            self.warn_of_write(&dir.join(&record.name));
            self.dirty.insert(dir);
            kept = true;
        }
        if kept {
            self.make_durable()?;
        }
        records::write(self.ctx.index, "", &[])
    }
}

/// Moves an object from staging into the folder under a conflict name, so that the next scan takes it up.
pub(super) fn keep_as_conflict(
    fs: &dyn Fs,
    label: &str,
    seconds: i64,
    record: &Record,
    dir: &RelPath,
) -> io::Result<()> {
    let mut dir = dir.clone();
    let mut last = io::Error::from(io::ErrorKind::AlreadyExists);
    for attempt in 0..100u64 {
        let salt = record.old.mtime as u64 ^ record.old.inode.rotate_left(32) ^ attempt.rotate_left(16);
        let distinct = Label::of_branch(&Dot { device: DeviceId([0; 32]), counter: salt });
        let name = Label { device: label, time: seconds, distinct }.name(&record.name, 4);
        match rename_new(fs, &record.path, &dir.join(&name)) {
            Err(error) => {
                match trouble(&error) {
                    Trouble::Taken => {}
                    Trouble::Name => {
                        for stand_in in local_name::stand_ins(&name) {
                            if rename_new(fs, &record.path, &dir.join(&stand_in)).is_ok() {
                                return Ok(());
                            }
                        }
                        return Err(error);
                    }
                    // Its directory is gone or closed to us: the root has room.
                    Trouble::Gone | Trouble::Object if !dir.is_root() => dir = RelPath::root(),
                    _ => return Err(error),
                }
                last = error;
            }
            Ok(()) => return Ok(()),
        }
    }
    Err(last)
}

/// Renames without replacing; where the file system does not know how, it is looked first.
pub(super) fn rename_new(fs: &dyn Fs, from: &RelPath, to: &RelPath) -> io::Result<()> {
    match fs.rename_new(from, to) {
        Err(error) if error.kind() == io::ErrorKind::Unsupported => match fs.lstat(to) {
            Ok(_) => Err(io::ErrorKind::AlreadyExists.into()),
            Err(error) if error.kind() == io::ErrorKind::NotFound => fs.rename_over(from, to),
            Err(error) => Err(error),
        },
        other => other,
    }
}

/// Whether `path` is `dir` or lies beneath it.
fn is_within(path: &RelPath, dir: &RelPath) -> bool {
    path.as_bytes().strip_prefix(dir.as_bytes()).is_some_and(|rest| rest.is_empty() || rest[0] == b'/')
}

/// What the names of parked objects begin with.
pub(super) const PARK: &str = "park-";
/// How many entries are moved out of the way for one.
const MAX_PARKED: usize = 3;
/// How often a name is tried again that was taken by something that cannot be found.
const MAX_AGAIN: usize = 2;
