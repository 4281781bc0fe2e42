//! An intermediary that is a folder: a USB stick, an NFS or SMB share, a directory that another tool carries about.
//!
//! An object is a file of its name. It is written beside its place as `.tmp-<pid>-<seq>`, made durable, and then given its
//! name in one step, so that a name never stands for half an object; the directory is made durable before a put returns.
//! How a name is given only if it is free depends on the file system, and the first way that works is kept:
//!
//! 1. `renameat2` with `RENAME_NOREPLACE`: exclusive (the usual local file systems, and SMB);
//! 2. `link`, then removing the temporary name: exclusive (NFS, and older kernels);
//! 3. a look, then `rename` (exFAT on some kernels and some FUSE file systems, which have neither): exclusive only within
//!    this process.
//!    Of two devices that put one name in the same instant, the later replaces the earlier, each whole.
//!    Nothing above the port relies on more: packets and packs are known by their hashes.
//!
//! The root is never made here. When it is gone (an unplugged stick), every call says so instead of answering "missing" or
//! "empty"; sub folders are made one by one, so that a put cannot make the root again on the wrong disk.
//! A symbolic link in an object's place is never followed.
//!
//! Left out: locking, notification, and telling a mount point from what is mounted on it (the caller's marker does that).

use std::collections::BTreeSet;
use std::fs::{self, File, OpenOptions};
use std::io::{self, Read, Write};
use std::os::unix::fs::{FileExt, MetadataExt, OpenOptionsExt};
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicU8, AtomicU64, Ordering};
use std::sync::{Mutex, MutexGuard};
use std::time::{Duration, SystemTime};

use packetboat_core::store::{Listed, ObjectName, Put, Store, StoreError};
use rustix::fs::{CWD, OFlags, RenameFlags};
use rustix::io::Errno;

/// Objects as files under a directory.
#[derive(Debug)]
pub struct FolderStore {
    root: PathBuf,
    /// Folders that this store made or found, and made durable, before it wrote into them.
    settled: Mutex<BTreeSet<String>>,
    /// The first of [`NAMING_WAYS`] that may work here.
    naming_way: AtomicU8,
}

impl FolderStore {
    /// The store in the directory `root`, which is neither made nor looked at yet.
    pub fn new(root: impl Into<PathBuf>) -> Self {
        Self { root: root.into(), settled: Mutex::default(), naming_way: AtomicU8::new(0) }
    }

    /// The directory that the objects lie in.
    pub fn root(&self) -> &Path {
        &self.root
    }

    fn path(&self, name: &ObjectName) -> PathBuf {
        self.root.join(name.as_str())
    }

    /// Opens an object's file for reading, and its size; anything but a regular file is refused.
    fn open(&self, name: &ObjectName) -> Result<(File, u64), StoreError> {
        // Opening a fifo without O_NONBLOCK would wait for a writer; to a regular file the flag means nothing.
        let flags = OFlags::NOFOLLOW | OFlags::NONBLOCK | OFlags::CLOEXEC;
        let opened = OpenOptions::new().read(true).custom_flags(flags.bits() as i32).open(self.path(name));
        let (file, metadata) = opened
            .and_then(|file| file.metadata().map(|metadata| (file, metadata)))
            .map_err(|source| self.reading_failed(name, source))?;
        if !metadata.is_file() {
            return Err(failure("read", name.as_str(), io::Error::other("it is not a regular file")));
        }
        Ok((file, metadata.len()))
    }

    fn reading_failed(&self, name: &ObjectName, source: io::Error) -> StoreError {
        if source.kind() != io::ErrorKind::NotFound {
            return failure("read", name.as_str(), source);
        }
        match self.require_root("read", name.as_str()) {
            Ok(()) => StoreError::Missing { name: name.clone() },
            Err(gone) => gone,
        }
    }

    /// Fails when the root itself is gone, so that an unplugged stick is not taken for an empty one.
    fn require_root(&self, action: &'static str, name: &str) -> Result<(), StoreError> {
        match fs::metadata(&self.root) {
            Ok(metadata) if metadata.is_dir() => Ok(()),
            Ok(_) => Err(failure(action, name, io::ErrorKind::NotADirectory.into())),
            Err(source) => Err(failure(action, name, source)),
        }
    }

    /// Writes `bytes` beside their place and gives them the name with `give_name`.
    fn write(
        &self,
        name: &ObjectName,
        bytes: &[u8],
        give_name: impl FnOnce(&Path, &Path) -> io::Result<Put>,
    ) -> Result<Put, StoreError> {
        let (folder, last) = name.as_str().rsplit_once('/').unwrap_or(("", name.as_str()));
        let failed = |source| failure("write", name.as_str(), source);
        if last.starts_with(TEMPORARY_PREFIX) {
            return Err(failed(io::ErrorKind::InvalidInput.into()));
        }
        self.settle(folder).map_err(failed)?;
        let directory = self.root.join(folder);
        let mut created = Temporary::create(&directory);
        if created.as_ref().is_err_and(|error| error.kind() == io::ErrorKind::NotFound) {
            // Someone removed the folder since it was settled.
            self.settled().remove(folder);
            self.settle(folder).map_err(failed)?;
            created = Temporary::create(&directory);
        }
        let mut temporary = created.map_err(failed)?;
        let written = temporary.file.write_all(bytes).and_then(|()| temporary.file.sync_all());
        let put = written.and_then(|()| give_name(&temporary.path, &self.path(name))).map_err(failed)?;
        temporary.named = put == Put::Stored;
        drop(temporary);
        sync_directory(&directory).map_err(failed)?;
        Ok(put)
    }

    /// Gives `temporary` the name `target` if nothing has it.
    fn name_exclusively(&self, temporary: &Path, target: &Path) -> io::Result<Put> {
        let first = usize::from(self.naming_way.load(Ordering::Relaxed));
        for (number, way) in NAMING_WAYS.iter().enumerate().skip(first) {
            match way(temporary, target) {
                Err(error) if lacks_support(&error) && number + 1 < NAMING_WAYS.len() => {}
                Ok(put) => {
                    self.naming_way.store(number as u8, Ordering::Relaxed);
                    return Ok(put);
                }
                Err(error) => return Err(error),
            }
        }
        Err(io::ErrorKind::Unsupported.into())
    }

    /// Makes a folder and those above it, and makes their names durable, once in the life of the store.
    ///
    /// A folder that is there already may have been made by someone who has not come to making it durable.
    fn settle(&self, folder: &str) -> io::Result<()> {
        if self.settled().contains(folder) {
            return Ok(());
        }
        let mut directory = self.root.clone();
        for part in folder.split('/').filter(|part| !part.is_empty()) {
            let parent = directory.clone();
            directory.push(part);
            match fs::create_dir(&directory) {
                Err(error) if error.kind() != io::ErrorKind::AlreadyExists && !directory.is_dir() => return Err(error),
                _ => sync_directory(&parent)?,
            }
        }
        self.settled().insert(folder.to_owned());
        Ok(())
    }

    fn settled(&self) -> MutexGuard<'_, BTreeSet<String>> {
        self.settled.lock().unwrap_or_else(|poisoned| poisoned.into_inner())
    }
}

impl Store for FolderStore {
    fn describe(&self) -> String {
        format!("folder {}", self.root.display())
    }

    fn put_new(&self, name: &ObjectName, bytes: &[u8]) -> Result<Put, StoreError> {
        let path = self.path(name);
        if fs::symlink_metadata(&path).is_ok() {
            // Whoever put it may have been stopped before its name was durable, and the answer promises that it is.
            let directory = path.parent().unwrap_or(&self.root);
            sync_directory(directory).map_err(|source| failure("write", name.as_str(), source))?;
            return Ok(Put::Present);
        }
        self.write(name, bytes, |temporary, target| self.name_exclusively(temporary, target))
    }

    fn put(&self, name: &ObjectName, bytes: &[u8]) -> Result<(), StoreError> {
        self.write(name, bytes, |temporary, target| fs::rename(temporary, target).map(|()| Put::Stored)).map(drop)
    }

    fn get(&self, name: &ObjectName, limit: u64) -> Result<Vec<u8>, StoreError> {
        let (file, size) = self.open(name)?;
        let too_large = || StoreError::TooLarge { name: name.clone(), limit };
        if size > limit {
            return Err(too_large());
        }
        let mut bytes = Vec::with_capacity(usize::try_from(size).map_err(|_| too_large())?);
        // The file may have grown since, if someone writes to it in place.
        let read = file.take(limit.saturating_add(1)).read_to_end(&mut bytes);
        read.map_err(|source| self.reading_failed(name, source))?;
        if bytes.len() as u64 > limit {
            return Err(too_large());
        }
        Ok(bytes)
    }

    fn get_range(&self, name: &ObjectName, offset: u64, len: u64) -> Result<Vec<u8>, StoreError> {
        let (file, size) = self.open(name)?;
        let short = || StoreError::Short { name: name.clone() };
        // Compared before anything is allocated.
        if offset.checked_add(len).is_none_or(|end| end > size) {
            return Err(short());
        }
        let mut bytes = vec![0; usize::try_from(len).map_err(|_| short())?];
        match file.read_exact_at(&mut bytes, offset) {
            Ok(()) => Ok(bytes),
            Err(error) if error.kind() == io::ErrorKind::UnexpectedEof => Err(short()),
            Err(error) => Err(self.reading_failed(name, error)),
        }
    }

    fn list(&self, folder: &str) -> Result<Vec<Listed>, StoreError> {
        let failed = |source| failure("list", folder, source);
        if !folder.is_empty() && ObjectName::new(folder).is_none() {
            return Err(failed(io::ErrorKind::InvalidInput.into()));
        }
        let entries = match fs::read_dir(self.root.join(folder)) {
            Ok(entries) => entries,
            Err(error) if error.kind() == io::ErrorKind::NotFound => {
                self.require_root("list", folder)?;
                return Ok(Vec::new());
            }
            Err(error) => return Err(failed(error)),
        };
        // Only folders that this store writes into are tidied: a reader changes nothing.
        let tidy = self.settled().contains(folder);
        let mut listed = Vec::new();
        for entry in entries {
            let entry = entry.map_err(failed)?;
            let Ok(last) = entry.file_name().into_string() else { continue };
            if last.starts_with(TEMPORARY_PREFIX) {
                if tidy {
                    remove_if_stale(&entry);
                }
                continue;
            }
            let whole = if folder.is_empty() { last } else { format!("{folder}/{last}") };
            let Some(name) = ObjectName::new(whole) else { continue };
            match entry.metadata() {
                Ok(metadata) if metadata.is_file() => {
                    listed.push(Listed { name, size: metadata.len(), etag: etag(&metadata) });
                }
                Ok(_) => {}
                // It was removed since the directory was read.
                Err(error) if error.kind() == io::ErrorKind::NotFound => {}
                Err(error) => return Err(failed(error)),
            }
        }
        listed.sort_by(|a, b| a.name.cmp(&b.name));
        Ok(listed)
    }

    fn delete(&self, name: &ObjectName) -> Result<(), StoreError> {
        match fs::remove_file(self.path(name)) {
            Err(error) if error.kind() == io::ErrorKind::NotFound => self.require_root("delete", name.as_str()),
            outcome => outcome.map_err(|source| failure("delete", name.as_str(), source)),
        }
    }
}

/// A file that is being written; removed when dropped, unless it was given its name.
///
/// Once it has its name, the temporary one is free, and may be another computer's by now.
struct Temporary {
    path: PathBuf,
    file: File,
    named: bool,
}

impl Temporary {
    /// Makes an empty file under a name that nothing has: on a shared folder another computer may use the same number.
    fn create(directory: &Path) -> io::Result<Self> {
        loop {
            let number = NEXT_TEMPORARY.fetch_add(1, Ordering::Relaxed);
            let path = directory.join(format!("{TEMPORARY_PREFIX}{}-{number}", std::process::id()));
            match OpenOptions::new().write(true).create_new(true).open(&path) {
                Ok(file) => return Ok(Self { path, file, named: false }),
                Err(error) if error.kind() == io::ErrorKind::AlreadyExists => {}
                Err(error) => return Err(error),
            }
        }
    }
}

impl Drop for Temporary {
    fn drop(&mut self) {
        if !self.named {
            let _ = fs::remove_file(&self.path);
        }
    }
}

type NamingWay = fn(&Path, &Path) -> io::Result<Put>;

/// How to give a name only if it is free, best first; the temporary name is gone where the file was stored.
const NAMING_WAYS: [NamingWay; 3] = [rename_without_replacing, link, look_then_rename];

fn rename_without_replacing(temporary: &Path, target: &Path) -> io::Result<Put> {
    match rustix::fs::renameat_with(CWD, temporary, CWD, target, RenameFlags::NOREPLACE) {
        Err(Errno::EXIST) => Ok(Put::Present),
        outcome => Ok(outcome.map(|()| Put::Stored)?),
    }
}

fn link(temporary: &Path, target: &Path) -> io::Result<Put> {
    match fs::hard_link(temporary, target) {
        Err(error) if error.kind() == io::ErrorKind::AlreadyExists => {
            // NFS may carry out a request, lose the answer and refuse the repetition; two names of the file tell.
            if fs::symlink_metadata(temporary)?.nlink() == 2 {
                let _ = fs::remove_file(temporary);
                return Ok(Put::Stored);
            }
            Ok(Put::Present)
        }
        outcome => {
            outcome?;
            let _ = fs::remove_file(temporary);
            Ok(Put::Stored)
        }
    }
}

fn look_then_rename(temporary: &Path, target: &Path) -> io::Result<Put> {
    static ONE_AT_A_TIME: Mutex<()> = Mutex::new(());
    let _guard = ONE_AT_A_TIME.lock().unwrap_or_else(|poisoned| poisoned.into_inner());
    match fs::symlink_metadata(target) {
        Ok(_) => Ok(Put::Present),
        Err(error) if error.kind() == io::ErrorKind::NotFound => fs::rename(temporary, target).map(|()| Put::Stored),
        Err(error) => Err(error),
    }
}

/// Whether a file system lacks a call, or may (EPERM is also what FAT says to `link`); the next way then decides.
fn lacks_support(error: &io::Error) -> bool {
    matches!(
        Errno::from_io_error(error),
        Some(Errno::INVAL | Errno::NOSYS | Errno::OPNOTSUPP | Errno::PERM | Errno::ACCESS | Errno::MLINK)
    )
}

/// Makes the names in a directory durable, where the file system can.
fn sync_directory(directory: &Path) -> io::Result<()> {
    match File::open(directory)?.sync_all() {
        // Some network and FUSE file systems have no fsync of directories.
        Err(error) if matches!(Errno::from_io_error(&error), Some(Errno::INVAL | Errno::OPNOTSUPP | Errno::BADF)) => {
            Ok(())
        }
        outcome => outcome,
    }
}

/// Removes a temporary file that no put can still be writing; if one is, it fails and is tried again.
fn remove_if_stale(entry: &fs::DirEntry) {
    let modified = entry.metadata().and_then(|metadata| metadata.modified());
    let age = modified.ok().and_then(|modified| SystemTime::now().duration_since(modified).ok());
    if age.is_some_and(|age| age > STALE_AFTER) {
        let _ = fs::remove_file(entry.path());
    }
}

fn etag(metadata: &fs::Metadata) -> String {
    format!("{:x}-{:x}.{:x}-{:x}", metadata.len(), metadata.mtime(), metadata.mtime_nsec(), metadata.ino())
}

/// The error for a failed call, by what can be done about it.
fn failure(action: &'static str, name: &str, source: io::Error) -> StoreError {
    match Errno::from_io_error(&source) {
        Some(Errno::NOSPC | Errno::DQUOT) => StoreError::Full,
        Some(Errno::ACCESS | Errno::PERM | Errno::ROFS) => StoreError::Denied { name: name.to_owned(), source },
        _ => StoreError::Io { action, name: name.to_owned(), source },
    }
}

static NEXT_TEMPORARY: AtomicU64 = AtomicU64::new(0);
const TEMPORARY_PREFIX: &str = ".tmp-";
const STALE_AFTER: Duration = Duration::from_secs(24 * 60 * 60);

#[cfg(test)]
mod tests;
