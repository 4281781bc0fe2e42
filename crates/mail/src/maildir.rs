//! Messages as files in a Maildir: each is written in `tmp`, made durable, and renamed to its place in one step.
//!
//! A reader that looks at `new` or `cur` at any instant sees whole messages or none, without a lock.
//! The orders that make a crash harmless are the caller's to keep, so each step is a call of its own
//! ([`crate::fetched::Folders`]): write, [`Folders::make_durable`], [`Folders::publish`], [`Folders::sync_published`].
//! Lines end as files' lines do here, where that can be undone, else as they came: see `line_ends`.
//!
//! A message that the server has flags for goes to `cur` with them, since only there a name can carry them; any other
//! goes to `new`. The file's time is when the server received the message, which is what Dovecot and mutt show for it.
//!
//! Left out: quotas (`maildirsize`), keywords, and everything that changes a message after its delivery.

mod folder_name;
mod line_ends;
pub mod modified_utf7;
#[cfg(test)]
mod tests;
mod unique_name;

use std::collections::{BTreeMap, BTreeSet};
use std::fs::{self, DirBuilder, File, OpenOptions};
use std::io::{self, ErrorKind, Read, Write};
use std::os::unix::fs::{DirBuilderExt, MetadataExt, OpenOptionsExt};
use std::path::{Path, PathBuf};
use std::time::{Duration, SystemTime};

use rustix::io::Errno;

pub use self::folder_name::{FolderName, FolderNameError};
use self::line_ends::LineEnds;
pub use self::line_ends::received_form;
pub use self::unique_name::{UniqueName, UniqueNames};
use crate::fetched::{Flags, Folders, Found};

/// A Maildir with its Maildir++ folders.
#[derive(Debug)]
pub struct Maildir {
    root: PathBuf,
    /// Open to read: `syncfs` reports the write errors since this descriptor was opened.
    handle: File,
    device: u64,
    /// Folders that were made or found, and the device that each lies on.
    settled: BTreeMap<FolderName, u64>,
    /// Directories with names that are not durable yet.
    unsynced: BTreeSet<PathBuf>,
}

impl Maildir {
    /// Opens a Maildir, which is made where its parent exists.
    pub fn open(root: impl Into<PathBuf>) -> Result<Self, MaildirError> {
        let root = root.into();
        make_directory(&root)?;
        let handle = File::open(&root).map_err(|source| failure("open", &root, source))?;
        let metadata = handle.metadata().map_err(|source| failure("look at", &root, source))?;
        let mut maildir =
            Self { root, handle, device: metadata.dev(), settled: BTreeMap::new(), unsynced: BTreeSet::new() };
        maildir.settle(&FolderName::inbox())?;
        Ok(maildir)
    }

    /// The directory that it is.
    pub fn root(&self) -> &Path {
        &self.root
    }

    /// Removes drafts that `names` or an earlier start of it made and nobody finished within a day and a half.
    ///
    /// The specification asks a reader to do so for everyone's after 36 hours; others' are left to others.
    /// It is for the time after [`crate::fetched::Deliverer::open`], which finishes the drafts that a record knows.
    pub fn remove_stale_drafts(&self, names: &UniqueNames, now: SystemTime) -> Result<usize, MaildirError> {
        let mut removed = 0;
        for directory in self.draft_directories()? {
            for entry in entries(&directory)? {
                let ours = entry.file_name().to_str().is_some_and(|name| unique_name::is_ours(name, names.host()));
                // Not the modification time, which says when the server received the message.
                let changed = entry.metadata().ok().and_then(|metadata| u64::try_from(metadata.ctime()).ok());
                let changed = changed.map(|seconds| SystemTime::UNIX_EPOCH + Duration::from_secs(seconds));
                let age = changed.and_then(|changed| now.duration_since(changed).ok());
                if ours && age.is_some_and(|age| age > STALE_AFTER) {
                    remove_file(&entry.path())?;
                    removed += 1;
                }
            }
        }
        Ok(removed)
    }

    fn draft_directories(&self) -> Result<Vec<PathBuf>, MaildirError> {
        let mut directories = vec![self.root.join("tmp")];
        for entry in entries(&self.root)? {
            let drafts = entry.path().join("tmp");
            if entry.file_name().as_encoded_bytes().starts_with(b".") && drafts.is_dir() {
                directories.push(drafts);
            }
        }
        Ok(directories)
    }

    fn directory(&self, folder: &FolderName) -> PathBuf {
        if folder.is_inbox() { self.root.clone() } else { self.root.join(folder.directory()) }
    }

    /// Makes a folder with its three directories where it is missing, and makes their names durable.
    fn settle(&mut self, folder: &FolderName) -> Result<(), MaildirError> {
        if self.settled.contains_key(folder) {
            return Ok(());
        }
        let directory = self.directory(folder);
        make_directory(&directory)?;
        for part in ["tmp", "new", "cur"] {
            make_directory(&directory.join(part))?;
        }
        if !folder.is_inbox() {
            // By this file, Maildir++ readers know that the directory is a folder and not a Maildir of its own.
            let marker = directory.join("maildirfolder");
            let made = OpenOptions::new().append(true).create(true).mode(FILE_MODE).open(&marker);
            made.map_err(|source| failure("write", &marker, source))?;
            sync_directory(&self.root)?;
        }
        sync_directory(&directory)?;
        let drafts = directory.join("tmp");
        let metadata = fs::metadata(&drafts).map_err(|source| failure("look at", &drafts, source))?;
        self.settled.insert(folder.clone(), metadata.dev());
        Ok(())
    }

    fn draft_path(&self, folder: &FolderName, name: &UniqueName) -> PathBuf {
        self.directory(folder).join("tmp").join(name.as_str())
    }
}

/// A message that is being written.
#[derive(Debug)]
pub struct Draft {
    file: File,
    path: PathBuf,
    received: Option<SystemTime>,
    line_ends: LineEnds,
}

impl Draft {
    /// Writes what was written again, with the line ends that it came with.
    fn restore(&mut self) -> io::Result<()> {
        let mut written = File::open(&self.path)?;
        fs::remove_file(&self.path)?;
        self.file = create_new(&self.path)?;
        let mut part = vec![0; COPIED_AT_ONCE];
        loop {
            match written.read(&mut part)? {
                0 => return Ok(()),
                count => self.file.write_all(&line_ends::expand(&part[..count]))?,
            }
        }
    }
}

impl Folders for Maildir {
    type Draft = Draft;

    fn begin(
        &mut self,
        folder: &FolderName,
        name: &UniqueName,
        received: Option<SystemTime>,
    ) -> Result<Draft, MaildirError> {
        self.settle(folder)?;
        let path = self.draft_path(folder, name);
        let mut opened = create_new(&path);
        if opened.as_ref().is_err_and(|error| error.kind() == ErrorKind::NotFound) {
            // Someone removed the folder since it was settled.
            self.settled.remove(folder);
            self.settle(folder)?;
            opened = create_new(&path);
        }
        let file = opened.map_err(|source| failure("write", &path, source))?;
        Ok(Draft { file, path, received, line_ends: LineEnds::default() })
    }

    fn write(&mut self, draft: &mut Draft, bytes: &[u8]) -> Result<(), MaildirError> {
        let mut converted = Vec::with_capacity(bytes.len());
        let kept = draft.line_ends.convert(bytes, &mut converted);
        let mut written = draft.file.write_all(&converted);
        if let Some(kept) = kept {
            if kept.is_first {
                written = written.and_then(|()| draft.restore());
            }
            written = written.and_then(|()| draft.file.write_all(kept.bytes));
        }
        written.map_err(|source| failure("write", &draft.path, source))
    }

    fn close(&mut self, mut draft: Draft) -> Result<(), MaildirError> {
        draft.file.write_all(draft.line_ends.rest()).map_err(|source| failure("write", &draft.path, source))?;
        match draft.received {
            Some(received) => {
                draft.file.set_modified(received).map_err(|source| failure("set the time of", &draft.path, source))
            }
            None => Ok(()),
        }
    }

    fn make_durable(&mut self, drafts: &[(&FolderName, &UniqueName)]) -> Result<(), MaildirError> {
        let together = drafts.iter().all(|(folder, _)| self.settled.get(folder) == Some(&self.device));
        if together && drafts.len() >= WORTH_ONE_SYNC && rustix::fs::syncfs(&self.handle).is_ok() {
            return Ok(());
        }
        for (folder, name) in drafts {
            let path = self.draft_path(folder, name);
            let synced = File::open(&path).and_then(|file| file.sync_all());
            synced.map_err(|source| failure("make durable", &path, source))?;
        }
        Ok(())
    }

    fn publish(&mut self, folder: &FolderName, name: &UniqueName, flags: Flags) -> Result<(), MaildirError> {
        let directory = self.directory(folder);
        let place = if flags.is_empty() { directory.join("new") } else { directory.join("cur") };
        let target = match flags.is_empty() {
            true => place.join(name.as_str()),
            false => place.join(format!("{name}:2,{}", flags.letters())),
        };
        fs::rename(self.draft_path(folder, name), &target).map_err(|source| failure("deliver", &target, source))?;
        self.unsynced.insert(place);
        Ok(())
    }

    fn sync_published(&mut self) -> Result<(), MaildirError> {
        while let Some(directory) = self.unsynced.first().cloned() {
            sync_directory(&directory)?;
            self.unsynced.remove(&directory);
        }
        Ok(())
    }

    fn find(&mut self, folder: &FolderName, name: &UniqueName) -> Result<Found, MaildirError> {
        let directory = self.directory(folder);
        // A mail reader moves messages from new to cur and never back, so in this order none is missed.
        let place = directory.join("new");
        if exists(&place.join(name.as_str()))? {
            self.unsynced.insert(place);
            return Ok(Found::Delivered);
        }
        let place = directory.join("cur");
        let is_it = |entry: &fs::DirEntry| entry.file_name().to_str().is_some_and(|file_name| name.names(file_name));
        if entries(&place)?.iter().any(is_it) {
            self.unsynced.insert(place);
            return Ok(Found::Delivered);
        }
        Ok(if exists(&self.draft_path(folder, name))? { Found::Draft } else { Found::Nowhere })
    }

    fn discard(&mut self, folder: &FolderName, name: &UniqueName) -> Result<(), MaildirError> {
        remove_file(&self.draft_path(folder, name))
    }
}

/// Why a message is not in its Maildir.
#[derive(Debug, thiserror::Error)]
pub enum MaildirError {
    /// A file stands where a directory of the Maildir should be.
    #[error("{} is not a directory", path.display())]
    NotADirectory {
        /// What is in the way.
        path: PathBuf,
    },
    /// The user may not write there, or nobody may.
    #[error("cannot write to {}", path.display())]
    NotWritable {
        /// What was to be written.
        path: PathBuf,
        /// The system's answer.
        source: io::Error,
    },
    /// The disk or the user's share of it is full; it may be tried again when there is room.
    #[error("there is no room for {}", path.display())]
    Full {
        /// What was to be written.
        path: PathBuf,
        /// The system's answer.
        source: io::Error,
    },
    /// Anything else.
    #[error("cannot {action} {}", path.display())]
    Io {
        /// What was tried.
        action: &'static str,
        /// On what.
        path: PathBuf,
        /// The system's answer.
        source: io::Error,
    },
}

fn failure(action: &'static str, path: &Path, source: io::Error) -> MaildirError {
    let path = path.to_owned();
    match Errno::from_io_error(&source) {
        Some(Errno::NOTDIR) => MaildirError::NotADirectory { path },
        Some(Errno::ACCESS | Errno::PERM | Errno::ROFS) => MaildirError::NotWritable { path, source },
        Some(Errno::NOSPC | Errno::DQUOT) => MaildirError::Full { path, source },
        _ => MaildirError::Io { action, path, source },
    }
}

fn make_directory(path: &Path) -> Result<(), MaildirError> {
    match DirBuilder::new().mode(DIRECTORY_MODE).create(path) {
        Err(error) if error.kind() == ErrorKind::AlreadyExists => match fs::metadata(path) {
            Ok(metadata) if metadata.is_dir() => Ok(()),
            Ok(_) => Err(MaildirError::NotADirectory { path: path.to_owned() }),
            Err(source) => Err(failure("look at", path, source)),
        },
        made => made.map_err(|source| failure("make", path, source)),
    }
}

fn create_new(path: &Path) -> io::Result<File> {
    OpenOptions::new().write(true).create_new(true).mode(FILE_MODE).open(path)
}

fn sync_directory(path: &Path) -> Result<(), MaildirError> {
    let synced = File::open(path).and_then(|directory| directory.sync_all());
    synced.map_err(|source| failure("make durable", path, source))
}

/// What is in a directory; nothing where there is none.
fn entries(path: &Path) -> Result<Vec<fs::DirEntry>, MaildirError> {
    match fs::read_dir(path).and_then(Iterator::collect) {
        Err(error) if error.kind() == ErrorKind::NotFound => Ok(Vec::new()),
        read => read.map_err(|source| failure("list", path, source)),
    }
}

fn exists(path: &Path) -> Result<bool, MaildirError> {
    match fs::symlink_metadata(path) {
        Ok(_) => Ok(true),
        Err(error) if error.kind() == ErrorKind::NotFound => Ok(false),
        Err(source) => Err(failure("look at", path, source)),
    }
}

fn remove_file(path: &Path) -> Result<(), MaildirError> {
    match fs::remove_file(path) {
        Err(error) if error.kind() != ErrorKind::NotFound => Err(failure("remove", path, error)),
        _ => Ok(()),
    }
}

const STALE_AFTER: Duration = Duration::from_secs(36 * 60 * 60);

/// From so many files on, one `syncfs` is faster than an `fsync` for each.
const WORTH_ONE_SYNC: usize = 16;

const COPIED_AT_ONCE: usize = 64 << 10;

const DIRECTORY_MODE: u32 = 0o700;
const FILE_MODE: u32 = 0o600;
