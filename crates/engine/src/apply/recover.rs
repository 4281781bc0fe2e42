//! Clearing staging after a crash, before the scan: what the user had goes back, the rest is deleted.
//!
//! An object is parked only when all before it is recorded, and nothing follows before that is durable. So one that is not
//! in staging stands where it was, or has gone on, and its inode tells which.

use std::collections::HashSet;
use std::io;

use packetboat_core::local::{DirId, EntryState, LocalEntry, LocalRead};
use packetboat_core::name::{Name, RelPath};
use packetboat_core::tree::TreeWrite;
use packetboat_replica::fs::{FileKind, Fs};
use packetboat_replica::index::Index;

use super::disk::{fatal, is_same, remove_tree, unless_fatal};
use super::place::{keep_as_conflict, rename_new};
use super::records::{self, Record};
use crate::error::SyncError;
use crate::fetch::PART;
use crate::numbering::{Numbering, numbering};
use crate::paths::{self, staging};

/// Puts staging in order; makes it where it is missing.
pub(crate) fn recover_staging(fs: &dyn Fs, index: &mut Index, now_ns: i64) -> Result<(), SyncError> {
    make_staging(fs)?;
    let (label, recorded) = records::read(index)?;
    let numbering = numbering(fs, index)?;
    let mut changed = HashSet::new();
    for record in &recorded {
        if let Some(dir) = take_back(fs, index, record, numbering, &label, now_ns)? {
            changed.insert(dir);
        }
    }
    for dir in &changed {
        unless_fatal(dir, fs.sync_dir(dir))?;
    }
    put_back_parked(fs, index, numbering, &label, now_ns)?;
    if !fs.read_dir(&staging()).map_err(|error| fatal(&staging(), error))?.is_empty() {
        index.set_meta(CUT_SHORT, Some(&[]))?;
    }
    clear(fs, index, Some(now_ns))?;
    records::write(index, "", &[])
}

/// Whether applying was cut short, so that what stands on this disk may have come there unrecorded.
pub(crate) fn was_cut_short(index: &Index) -> Result<bool, SyncError> {
    Ok(index.meta(CUT_SHORT)?.is_some())
}

/// Notes that all that came unrecorded was found.
pub(crate) fn all_is_recorded(index: &mut Index) -> Result<(), SyncError> {
    if was_cut_short(index)? { Ok(index.set_meta(CUT_SHORT, None)?) } else { Ok(()) }
}

/// Deletes everything in staging that can be had again, after the disk ran full.
pub(super) fn make_room(fs: &dyn Fs, index: &Index) -> Result<(), SyncError> {
    // What records speak of may be the only copy of what the user wrote: the next recovery looks at it.
    let (_, recorded) = records::read(index)?;
    if recorded.is_empty() { clear(fs, index, None) } else { Ok(()) }
}

fn make_staging(fs: &dyn Fs) -> Result<(), SyncError> {
    let path = staging();
    match fs.mkdir(&path, 0o700) {
        Ok(()) => Ok(()),
        Err(error) if error.kind() == io::ErrorKind::AlreadyExists => Ok(()),
        Err(error) if error.kind() == io::ErrorKind::NotFound => Err(SyncError::NotTheFolder),
        Err(error) => Err(fatal(&path, error)),
    }
}

/// Decides about one object that a crash left; returns the directory that it went back to.
fn take_back(
    fs: &dyn Fs,
    index: &Index,
    record: &Record,
    numbering: Numbering,
    label: &str,
    now_ns: i64,
) -> Result<Option<RelPath>, SyncError> {
    let path = &record.path;
    if is_parked(index, path)? {
        return Ok(None);
    }
    let Some(stat) = unless_fatal(path, fs.lstat(path))? else { return Ok(None) };
    // Where numbers were given anew, what has the new one's may be what the user wrote: it is kept beside.
    let lasting = numbering == Numbering::Lasting;
    if lasting && record.new_inode != 0 && stat.inode == record.new_inode {
        // It never came to its place.
        return Ok(None);
    }
    let removal_recorded = index.entry_at(record.dir, &record.name)?.is_none();
    let same = lasting && is_same(&record.old, &stat);
    let dir = paths::dir_path(index, record.dir)?;
    if record.new_inode == 0 && !removal_recorded {
        // It was to be removed, and that was not recorded: it is as if it had not begun.
        let back = rename_new(fs, path, &dir.join(&record.name));
        if unless_fatal(path, back)?.is_some() {
            return Ok(Some(dir));
        }
    }
    if same {
        return Ok(None);
    }
    let seconds = now_ns.div_euclid(1_000_000_000);
    keep_as_conflict(fs, label, seconds, record, &dir).map_err(|error| fatal(path, error))?;
    Ok(Some(dir))
}

fn is_parked(index: &Index, path: &RelPath) -> Result<bool, SyncError> {
    let Some((_, name)) = path.split() else { return Ok(false) };
    Ok(index.entry_at(DirId::STAGING, &name)?.is_some())
}

/// Puts parked objects back where they were, if they can be: a scan does not look into staging, and somebody may have
/// written to one. Entries in staging that are not there never came, or went on and that was not recorded.
fn put_back_parked(
    fs: &dyn Fs,
    index: &mut Index,
    numbering: Numbering,
    label: &str,
    now_ns: i64,
) -> Result<(), SyncError> {
    for mut entry in index.entries_in_staging()? {
        if paths::is_record_only(&entry) {
            // Nothing of it was ever here; the scan finds its object elsewhere, or it is gone.
            continue;
        }
        let path = staging().join(&entry.name);
        if let Some(stat) = unless_fatal(&path, fs.lstat(&path))? {
            let is_other = match entry.own_dir {
                None => !is_same(&entry.stat, &stat),
                // Its user put something else in its place just as it was moved aside.
                Some(_) => stat.kind != FileKind::Directory,
            };
            if !unpark(fs, index, &entry, &path)? && is_other {
                keep_written(fs, index, &entry, path, label, now_ns)?;
            }
            continue;
        }
        index.begin()?;
        index.touch(entry.seen.item)?;
        let parked = match entry.state.clone() {
            EntryState::Parked { dir, name } => Some((dir, name)),
            _ => None,
        };
        match parked {
            Some((dir, name)) if stands_at(fs, index, &entry, numbering, (dir, &name))? => {
                index.move_entry((DirId::STAGING, &entry.name), (dir, &name))?;
                (entry.dir, entry.name, entry.state) = (dir, name, EntryState::Racy);
                index.put_entry(&entry)?;
            }
            // The scan knows a directory by its inode wherever it is, and with it what it holds; it is waited for once.
            Some(_) if entry.own_dir.is_some() => {
                index.set_fingerprint(DirId::STAGING, &entry.name, &entry.stat, &EntryState::Racy)?;
            }
            // The scan finds a file where it went, and there it agrees with the vault.
            _ => forget(index, &entry)?,
        }
        index.commit()?;
    }
    Ok(())
}

/// Moves a parked object back to its place, if that is free; says whether it is there now.
fn unpark(fs: &dyn Fs, index: &mut Index, entry: &LocalEntry, path: &RelPath) -> Result<bool, SyncError> {
    let EntryState::Parked { dir, name } = &entry.state else { return Ok(false) };
    if *dir == DirId::STAGING || index.entry_at(*dir, name)?.is_some() {
        return Ok(false);
    }
    let holder = paths::dir_path(index, *dir)?;
    let to = holder.join(name);
    if unless_fatal(path, rename_new(fs, path, &to))?.is_none() {
        return Ok(false);
    }
    unless_fatal(&holder, fs.sync_dir(&holder))?;
    unless_fatal(path, fs.sync_dir(&staging()))?;
    let mut back = entry.clone();
    (back.dir, back.name, back.state) = (*dir, name.clone(), EntryState::Racy);
    index.begin()?;
    index.touch(entry.seen.item)?;
    index.move_entry((DirId::STAGING, &entry.name), (*dir, name))?;
    index.put_entry(&back)?;
    index.commit()?;
    Ok(true)
}

/// Gives a parked object that somebody wrote to a name of its own beside its former place.
pub(super) fn keep_written(
    fs: &dyn Fs,
    index: &mut Index,
    entry: &LocalEntry,
    path: RelPath,
    label: &str,
    now_ns: i64,
) -> Result<(), SyncError> {
    let EntryState::Parked { dir, name } = &entry.state else { return Ok(()) };
    let holder = paths::dir_path(index, *dir)?;
    let record = Record { path: path.clone(), dir: *dir, name: name.clone(), new_inode: 0, old: entry.stat };
    let label = if label.is_empty() { "this device" } else { label };
    keep_as_conflict(fs, label, now_ns.div_euclid(1_000_000_000), &record, &holder)
        .map_err(|error| fatal(&path, error))?;
    unless_fatal(&holder, fs.sync_dir(&holder))?;
    index.begin()?;
    forget(index, entry)?;
    index.touch(entry.seen.item)?;
    index.commit()?;
    Ok(())
}

/// Whether an entry's object still stands where it was before it was parked.
fn stands_at(
    fs: &dyn Fs,
    index: &Index,
    entry: &LocalEntry,
    numbering: Numbering,
    (dir, name): (DirId, &Name),
) -> Result<bool, SyncError> {
    if index.entry_at(dir, name)?.is_some() {
        return Ok(false);
    }
    let path = paths::dir_path(index, dir)?.join(name);
    let found = unless_fatal(&path, fs.lstat(&path))?;
    Ok(found.is_some_and(|stat| {
        // Where numbers were given anew, what stands there is it: paths go first, and the scan reads what it holds.
        let same_number = stat.inode == entry.stat.inode || numbering == Numbering::Renewed;
        same_number && (stat.kind == FileKind::Directory) == entry.own_dir.is_some()
    }))
}

/// Forgets an entry and, if it is a directory, all that was recorded beneath it.
fn forget(index: &mut Index, entry: &LocalEntry) -> Result<(), SyncError> {
    let mut dirs: Vec<DirId> = entry.own_dir.into_iter().collect();
    index.remove_entry(entry.dir, &entry.name)?;
    while let Some(dir) = dirs.pop() {
        for child in index.entries_in(dir, None, usize::MAX)? {
            dirs.extend(child.own_dir);
            index.remove_entry(dir, &child.name)?;
            index.touch(child.seen.item)?;
        }
    }
    Ok(())
}

/// Deletes what nothing speaks of. Unfinished large files stay for a week; without a time they go too.
fn clear(fs: &dyn Fs, index: &Index, now_ns: Option<i64>) -> Result<(), SyncError> {
    let path = staging();
    let entries = fs.read_dir(&path).map_err(|error| fatal(&path, error))?;
    for entry in entries {
        let Some(name) = Name::new(entry.name) else { continue };
        if index.entry_at(DirId::STAGING, &name)?.is_some() {
            continue;
        }
        let Ok(stat) = entry.stat else { continue };
        let is_part = stat.kind == FileKind::File && name.as_bytes().starts_with(PART.as_bytes());
        if is_part && now_ns.is_some_and(|now| stat.mtime > now - PART_KEPT_NS) {
            continue;
        }
        let path = path.join(&name);
        let removed = match stat.kind {
            FileKind::Directory => remove_tree(fs, &path),
            _ => fs.unlink(&path),
        };
        unless_fatal(&path, removed)?;
    }
    Ok(())
}

/// Present from when staging was found not empty until a scan was absorbed.
const CUT_SHORT: &str = "applying was cut short";
/// How long an unfinished large file is kept.
const PART_KEPT_NS: i64 = 7 * 24 * 3600 * 1_000_000_000;
