//! Restoring: a file, a directory or everything, as it was at a time, onto a disk.
//!
//! Into another directory nothing that is there is overwritten. Into the folder itself, a file is replaced only when its
//! present content is in history: what has changes that were not synchronised yet is left and told. What did not exist
//! then is left too: restoring deletes nothing. What was restored into the folder is a local change like any other, and
//! the next round publishes it; so a restore can be undone by another.
//!
//! Files are staged in batches, made durable, and brought to their places by renames; what was replaced is looked at once
//! more after it was taken away, and put back if somebody wrote to it meanwhile.

use std::collections::BTreeSet;
use std::io::{self, Write};
use std::sync::Arc;

use packetboat_core::content::Content;
use packetboat_core::ids::ItemId;
use packetboat_core::local::{DirId, EntryState, LocalRead};
use packetboat_core::name::{Name, RelPath};
use packetboat_core::plan::HistoryRead;
use packetboat_core::tree::TreeRead;
use packetboat_core::view::{Shown, Viewer};
use packetboat_replica::fs::{FileKind, Fs, FsFile, Stat};
use packetboat_replica::index::Index;

use crate::content_reader::{ContentReader, ReadError};
use crate::error::{QueryError, SyncError};
use crate::history::shown_then;
use crate::past::index_at;
use crate::paths::{self, MARKER_DIR};
use crate::ports::{Note, Observer, Phase};
use crate::replica::{Action, At, Direction, PlannedStep, Received, Replica};
use crate::scan::fingerprint;

impl Replica {
    /// Brings back what stood at a path, or with `None` everything, as it was then: under the same paths in `to`,
    /// or in the folder itself.
    ///
    /// What is left as it is, and why, the observer is told; [`Received::waiting`] counts it.
    pub fn restore(
        &mut self,
        what: Option<&RelPath>,
        at: &At,
        to: Option<Arc<dyn Fs>>,
        observer: &mut dyn Observer,
    ) -> Result<Received, QueryError> {
        let parts = &self.parts;
        observer.phase(Phase::Learn, None, None);
        let past = index_at(&parts.index, &*parts.store, &self.keys, at)?;
        observer.phase(Phase::Apply, None, None);
        let threads = parts.settings.threads;
        let stage = RelPath::new(RESTORE_STAGE).expect("a sound path");
        let mut restorer = Restorer {
            fs: to.as_deref().unwrap_or(&*parts.fs),
            present: to.is_none().then_some(&parts.index),
            reader: ContentReader::new(&parts.index, &*parts.store, &self.keys.ring, threads)
                .until(observer.interrupt()),
            viewer: Viewer::new(&past),
            stage: if to.is_none() { paths::staging() } else { stage },
            has_stage: false,
            next: 0,
            staged: Vec::new(),
            staged_bytes: 0,
            modes: Vec::new(),
            changed: BTreeSet::new(),
            received: Received::default(),
            observer,
        };
        let restored = match what.filter(|path| !path.is_root()) {
            None => restorer.tree(ItemId::ROOT, RelPath::root()),
            Some(path) => {
                let shown = shown_then(&past, &parts.index, path)?;
                restorer.one(&shown, path)
            }
        };
        let restored = restored.and_then(|()| restorer.finish());
        restorer.clear_stage();
        restored?;
        Ok(restorer.received)
    }
}

struct Restorer<'a> {
    fs: &'a dyn Fs,
    /// The index, where the folder itself is restored into.
    present: Option<&'a Index>,
    reader: ContentReader<'a>,
    /// Of the past.
    viewer: Viewer<'a, Index>,
    /// Where objects are made.
    stage: RelPath,
    has_stage: bool,
    next: u64,
    staged: Vec<Staged>,
    staged_bytes: u64,
    /// Permissions that new directories get once everything is in them.
    modes: Vec<(RelPath, u32)>,
    /// Directories in which names changed since they were last made durable.
    changed: BTreeSet<RelPath>,
    received: Received,
    observer: &'a mut dyn Observer,
}

/// An object on its way to its place.
struct Staged {
    from: RelPath,
    to: RelPath,
    kind: FileKind,
    size: u64,
    /// What is there now and may be replaced.
    before: Option<Stat>,
}

impl Restorer<'_> {
    /// One object, with all that is beneath it.
    fn one(&mut self, shown: &Shown, path: &RelPath) -> Result<(), SyncError> {
        let mut above = RelPath::root();
        let names: Vec<Name> = path.names().collect();
        for name in &names[..names.len() - 1] {
            above = above.join(name);
            if !self.directory(&above, None)? {
                return Ok(());
            }
        }
        if self.object(shown, path)? && shown.content.is_directory() {
            self.tree(shown.item, path.clone())?;
        }
        Ok(())
    }

    /// Everything beneath a directory.
    fn tree(&mut self, directory: ItemId, path: RelPath) -> Result<(), SyncError> {
        let past = self.viewer.tree();
        let mut pending = vec![(directory, path)];
        while let Some((seen, path)) = pending.pop() {
            for directory in self.viewer.class(seen)?.iter() {
                let mut after = None;
                loop {
                    let page = past.children(*directory, after, PAGE)?;
                    let Some((last, _)) = page.last() else { break };
                    after = Some(last.clone());
                    for (_, child) in page {
                        let Some(item) = past.item(child)? else { continue };
                        // Several items may stand at one place: the first of them answers for it.
                        let first = self.viewer.items_at(seen, &item.at.name)?.iter().map(|item| item.id).min();
                        if first != Some(child) {
                            continue;
                        }
                        for shown in self.viewer.place(seen, &item.at.name)? {
                            let at = path.join(&shown.name);
                            if self.object(&shown, &at)? && shown.content.is_directory() {
                                pending.push((shown.item, at));
                            }
                        }
                    }
                }
            }
        }
        Ok(())
    }

    /// One object without what is beneath it; whether that can follow.
    fn object(&mut self, shown: &Shown, path: &RelPath) -> Result<bool, SyncError> {
        if self.observer.interrupted() {
            return Err(SyncError::Interrupted);
        }
        if path.as_bytes() == MARKER_DIR.as_bytes() {
            self.leave(path, "Packetboat keeps that name for itself");
            return Ok(false);
        }
        if shown.content.is_directory() {
            return self.directory(path, Some(shown));
        }
        let before = match self.fs.lstat(path) {
            Ok(stat) => stat,
            Err(error) if error.kind() == io::ErrorKind::NotFound => return self.stage(shown, path, None),
            Err(error) => return self.failed(path, error),
        };
        if !matches!(before.kind, FileKind::File | FileKind::Symlink) {
            self.leave(path, "something of another kind is there");
            return Ok(false);
        }
        if self.holds(path, &before, &shown.content)? {
            return self.attributes(shown, path, &before);
        }
        if self.present.is_none() {
            self.leave(path, "another file is there");
            return Ok(false);
        }
        if !self.is_in_history(path, &before)? {
            self.leave(path, "it has changes that were not synchronised yet");
            return Ok(false);
        }
        self.stage(shown, path, Some(before))
    }

    /// Makes a directory where there is none; whether there is one now.
    fn directory(&mut self, path: &RelPath, shown: Option<&Shown>) -> Result<bool, SyncError> {
        match self.fs.lstat(path) {
            Ok(stat) if stat.kind == FileKind::Directory => return Ok(true),
            Ok(_) => {
                self.leave(path, "something of another kind is there");
                return Ok(false);
            }
            Err(error) if error.kind() == io::ErrorKind::NotFound => {}
            Err(error) => return self.failed(path, error),
        }
        if let Err(error) = self.fs.mkdir(path, 0o777) {
            return self.failed(path, error);
        }
        if let Some(shown) = shown {
            for (name, value) in &shown.xattrs {
                tolerated(self.fs.set_xattr(path, name, Some(value))).or_else(not_full)?;
            }
            self.modes.extend(shown.mode.map(|mode| (path.clone(), mode)));
        }
        self.note_changed(path);
        self.received.created += 1;
        self.step(Action::Create, path, 0);
        Ok(true)
    }

    /// Gives a file that holds the right bytes the permissions it had; only in the folder itself.
    fn attributes(&mut self, shown: &Shown, path: &RelPath, stat: &Stat) -> Result<bool, SyncError> {
        let mode = shown.mode.filter(|mode| self.present.is_some() && stat.mode & 0o777 != *mode);
        if let (Some(mode), FileKind::File) = (mode, stat.kind) {
            match self.fs.set_mode(path, mode) {
                Ok(()) => {
                    self.received.attributes += 1;
                    self.step(Action::Attributes, path, 0);
                }
                Err(error) => return self.failed(path, error),
            }
        }
        Ok(true)
    }

    /// Whether a file or symlink on disk holds this.
    fn holds(&mut self, path: &RelPath, stat: &Stat, content: &Content) -> Result<bool, SyncError> {
        let fs = self.fs;
        match content {
            Content::File(file) if stat.kind == FileKind::File && stat.size == file.size => match fs.open(path) {
                Ok(mut disk) => match self.reader.is_in(file, &mut *disk) {
                    Err(ReadError::Sync(error)) => Err(error),
                    same => Ok(same.unwrap_or(false)),
                },
                Err(_) => Ok(false),
            },
            Content::Symlink(target) if stat.kind == FileKind::Symlink => {
                Ok(fs.read_link(path).is_ok_and(|found| found == *target))
            }
            _ => Ok(false),
        }
    }

    /// Whether what is on disk at a path is a version that the vault has.
    fn is_in_history(&mut self, path: &RelPath, stat: &Stat) -> Result<bool, SyncError> {
        let (Some(index), Some((above, name))) = (self.present, path.split()) else { return Ok(false) };
        let mut dir = DirId::ROOT;
        for name in above.names() {
            match index.entry_at(dir, &name)?.and_then(|entry| entry.own_dir) {
                Some(own) => dir = own,
                None => return Ok(false),
            }
        }
        let Some(entry) = index.entry_at(dir, &name)?.filter(|entry| entry.state != EntryState::Frozen) else {
            return Ok(false);
        };
        if entry.stat.mode != stat.mode {
            return Ok(false);
        }
        if entry.state == EntryState::Settled && fingerprint(stat) == entry.stat {
            return Ok(true);
        }
        let Some(head) = entry.seen.heads.last() else { return Ok(false) };
        match index.version(entry.seen.item, head)? {
            Some(head) => self.holds(path, stat, &head.content),
            None => Ok(false),
        }
    }

    /// Makes a file or symlink in staging.
    fn stage(&mut self, shown: &Shown, path: &RelPath, before: Option<Stat>) -> Result<bool, SyncError> {
        let fs = self.fs;
        if let Err(error) = self.make_stage() {
            return self.failed(path, error);
        }
        let (mut from, size, kind);
        match &shown.content {
            Content::File(content) => {
                let mut file = loop {
                    from = self.next_name();
                    match fs.create_new(&from) {
                        Err(error) if error.kind() == io::ErrorKind::AlreadyExists => {}
                        Err(error) => return self.failed(path, error),
                        Ok(file) => break file,
                    }
                };
                let written = self.reader.read(content, &mut Sink(&mut *file)).and_then(|()| {
                    for (name, value) in &shown.xattrs {
                        tolerated(fs.set_xattr(&from, name, Some(value)))?;
                    }
                    tolerated(file.set_mode(shown.mode.unwrap_or(0o644) & 0o777))?;
                    Ok(tolerated(file.set_mtime(content.mtime))?)
                });
                if let Err(error) = written {
                    drop(file);
                    // What stays in staging is cleared with it, or by the next round.
                    let _ = fs.unlink(&from);
                    return match error {
                        ReadError::Missing(reason) => {
                            self.leave(path, &reason);
                            Ok(false)
                        }
                        ReadError::Output(error) => self.failed(path, error),
                        ReadError::Sync(error) => Err(error),
                    };
                }
                (size, kind) = (content.size, FileKind::File);
            }
            Content::Symlink(target) => {
                loop {
                    from = self.next_name();
                    match fs.symlink(target, &from) {
                        Err(error) if error.kind() == io::ErrorKind::AlreadyExists => {}
                        Err(error) => return self.failed(path, error),
                        Ok(()) => break,
                    }
                }
                (size, kind) = (0, FileKind::Symlink);
            }
            Content::Directory => return Ok(true),
        }
        self.staged.push(Staged { from, to: path.clone(), kind, size, before });
        self.staged_bytes += size;
        if self.staged.len() >= BATCH_FILES || self.staged_bytes >= BATCH_BYTES {
            self.place_staged()?;
        }
        Ok(true)
    }

    /// Makes what is staged durable and brings it to its place.
    fn place_staged(&mut self) -> Result<(), SyncError> {
        if self.staged.is_empty() {
            return Ok(());
        }
        let staged = std::mem::take(&mut self.staged);
        self.staged_bytes = 0;
        match self.fs.sync_all() {
            Err(error) if error.kind() == io::ErrorKind::Unsupported => {
                for file in staged.iter().filter(|staged| staged.kind == FileKind::File) {
                    let synced = self.fs.open(&file.from).and_then(|file| file.sync());
                    synced.map_err(|error| not_durable(&file.to, error))?;
                }
            }
            other => other.map_err(|error| not_durable(&self.stage, error))?,
        }
        for object in &staged {
            match self.place(object) {
                Ok(None) => {
                    let new = object.before.is_none();
                    *(if new { &mut self.received.created } else { &mut self.received.edited }) += 1;
                    self.received.bytes_written += object.size;
                    self.note_changed(&object.to);
                    self.step(if new { Action::Create } else { Action::Edit }, &object.to, object.size);
                }
                Ok(Some(reason)) => {
                    self.leave(&object.to, reason);
                    let _ = self.fs.unlink(&object.from);
                }
                Err(error) => {
                    self.failed(&object.to, error)?;
                    let _ = self.fs.unlink(&object.from);
                }
            }
        }
        Ok(())
    }

    /// Brings one object to its place, or says why not.
    fn place(&self, object: &Staged) -> io::Result<Option<&'static str>> {
        let Some(before) = &object.before else {
            return match self.fs.rename_new(&object.from, &object.to) {
                Err(error) if error.kind() == io::ErrorKind::AlreadyExists => Ok(Some(MEANWHILE)),
                other => other.map(|()| None),
            };
        };
        match self.fs.exchange(&object.from, &object.to) {
            Ok(()) => {}
            Err(error) if error.kind() == io::ErrorKind::Unsupported => {
                if !is_same(before, &self.fs.lstat(&object.to)?) {
                    return Ok(Some(MEANWHILE));
                }
                return self.fs.rename_over(&object.from, &object.to).map(|()| None);
            }
            Err(error) => return Err(error),
        }
        if is_same(before, &self.fs.lstat(&object.from)?) {
            return self.fs.unlink(&object.from).map(|()| None);
        }
        self.fs.exchange(&object.from, &object.to)?;
        Ok(Some(MEANWHILE))
    }

    /// Places what is left, gives new directories their permissions, and makes all of it durable.
    fn finish(&mut self) -> Result<(), SyncError> {
        self.place_staged()?;
        while let Some((path, mode)) = self.modes.pop() {
            tolerated(self.fs.set_mode(&path, mode)).or_else(not_full)?;
        }
        match self.fs.sync_all() {
            Err(error) if error.kind() == io::ErrorKind::Unsupported => {
                for dir in std::mem::take(&mut self.changed) {
                    self.fs.sync_dir(&dir).map_err(|error| not_durable(&dir, error))?;
                }
            }
            other => other.map_err(|error| not_durable(&RelPath::root(), error))?,
        }
        Ok(())
    }

    fn make_stage(&mut self) -> io::Result<()> {
        if self.has_stage {
            return Ok(());
        }
        let above = self.stage.split().map(|(above, _)| above).filter(|above| !above.is_root());
        for path in above.iter().chain([&self.stage]) {
            match self.fs.mkdir(path, 0o700) {
                Err(error) if error.kind() == io::ErrorKind::AlreadyExists => {}
                other => other?,
            }
        }
        self.has_stage = true;
        Ok(())
    }

    /// Removes what an error left in staging; in the folder itself the next round would do it.
    fn clear_stage(&mut self) {
        for staged in std::mem::take(&mut self.staged) {
            let _ = self.fs.unlink(&staged.from);
        }
        if self.has_stage && self.present.is_none() {
            let _ = self.fs.rmdir(&self.stage);
        }
    }

    fn next_name(&mut self) -> RelPath {
        self.next += 1;
        self.stage.join(&Name::new(format!("restore-{}", self.next)).expect("digits make a sound name"))
    }

    fn note_changed(&mut self, path: &RelPath) {
        self.changed.extend(path.split().map(|(above, _)| above));
    }

    fn step(&mut self, action: Action, path: &RelPath, bytes: u64) {
        let (direction, path, cause) = (Direction::Down, path.clone(), "restored".to_owned());
        self.observer.note(Note::Step(PlannedStep { direction, action, path, to: None, cause }));
        self.observer.advance(1, bytes);
    }

    fn leave(&mut self, path: &RelPath, reason: &str) {
        self.received.waiting += 1;
        self.observer.note(Note::Skipped { path: path.clone(), reason: reason.to_owned() });
    }

    /// A full disk ends the restore; whatever else the disk refuses concerns this object alone.
    fn failed(&mut self, path: &RelPath, error: io::Error) -> Result<bool, SyncError> {
        let text = error.to_string();
        not_full(error)?;
        self.leave(path, &text);
        Ok(false)
    }
}

/// A file as somewhere to write to.
struct Sink<'a>(&'a mut dyn FsFile);

impl Write for Sink<'_> {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        self.0.write_all(bytes)?;
        Ok(bytes.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

/// Whether an object is still the one that was looked at; a rename changes only its status change time.
fn is_same(before: &Stat, after: &Stat) -> bool {
    let of = |stat: &Stat| (stat.kind, stat.size, stat.mtime, stat.inode);
    of(before) == of(after)
}

/// What a file system cannot do is no error.
fn tolerated(result: io::Result<()>) -> io::Result<()> {
    use io::ErrorKind::{ArgumentListTooLong, InvalidInput, PermissionDenied, Unsupported};
    match result {
        Err(error) if !matches!(error.kind(), Unsupported | PermissionDenied | InvalidInput | ArgumentListTooLong) => {
            Err(error)
        }
        _ => Ok(()),
    }
}

fn not_full(error: io::Error) -> Result<(), SyncError> {
    match error.kind() {
        io::ErrorKind::StorageFull | io::ErrorKind::QuotaExceeded => Err(SyncError::DiskFull),
        _ => Ok(()),
    }
}

fn not_durable(path: &RelPath, source: io::Error) -> SyncError {
    match source.kind() {
        io::ErrorKind::StorageFull | io::ErrorKind::QuotaExceeded => SyncError::DiskFull,
        _ => SyncError::Disk { path: path.clone(), source },
    }
}

const MEANWHILE: &str = "something else came there meanwhile";
const RESTORE_STAGE: &[u8] = b".packetboat-restore";
const PAGE: usize = 256;
const BATCH_FILES: usize = 1000;
const BATCH_BYTES: u64 = 256 * 1024 * 1024;
