//! What an error of the disk means to a round, and making changes of names durable.

use std::io;

use packetboat_core::name::RelPath;
use packetboat_replica::fs::{FileKind, Fs, Stat};

use packetboat_core::local::Fingerprint;

use super::Applier;
use crate::error::SyncError;

/// What an error of the disk means.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) enum Trouble {
    /// The name is taken.
    Taken,
    /// What was to be worked on is not there.
    Gone,
    /// The file system cannot hold such a name.
    Name,
    /// Something about this object; others may go well.
    Object,
    /// The disk as a whole: the round ends.
    Disk,
}

pub(super) fn trouble(error: &io::Error) -> Trouble {
    use io::ErrorKind as Kind;
    if matches!(error.raw_os_error(), Some(EILSEQ)) {
        return Trouble::Name;
    }
    match error.kind() {
        Kind::AlreadyExists => Trouble::Taken,
        Kind::NotFound => Trouble::Gone,
        Kind::InvalidInput | Kind::InvalidFilename => Trouble::Name,
        Kind::PermissionDenied
        | Kind::Unsupported
        | Kind::DirectoryNotEmpty
        | Kind::NotADirectory
        | Kind::IsADirectory
        | Kind::CrossesDevices
        | Kind::TooManyLinks
        | Kind::ResourceBusy
        | Kind::ExecutableFileBusy => Trouble::Object,
        _ if matches!(error.raw_os_error(), Some(ELOOP)) => Trouble::Object,
        _ => Trouble::Disk,
    }
}

/// The error with which a round ends.
pub(crate) fn fatal(path: &RelPath, source: io::Error) -> SyncError {
    match source.kind() {
        io::ErrorKind::StorageFull | io::ErrorKind::QuotaExceeded => SyncError::DiskFull,
        _ => SyncError::Disk { path: path.clone(), source },
    }
}

/// The value, or nothing where the error concerns this object alone.
pub(super) fn unless_fatal<T>(path: &RelPath, result: io::Result<T>) -> Result<Option<T>, SyncError> {
    match result {
        Ok(value) => Ok(Some(value)),
        Err(error) if trouble(&error) == Trouble::Disk => Err(fatal(path, error)),
        Err(_) => Ok(None),
    }
}

/// Whether a file or symlink is still the one that was recorded, as far as a rename leaves that to be seen.
pub(super) fn is_same(recorded: &Fingerprint, stat: &Stat) -> bool {
    stat.kind != FileKind::Directory
        && recorded.inode == stat.inode
        && recorded.size == stat.size
        && recorded.mtime == stat.mtime
}

/// Removes a directory in staging and all beneath it.
pub(super) fn remove_tree(fs: &dyn Fs, dir: &RelPath) -> io::Result<()> {
    let entries = match fs.read_dir(dir) {
        Err(error) if error.kind() == io::ErrorKind::PermissionDenied => {
            fs.set_mode(dir, 0o700)?;
            fs.read_dir(dir)?
        }
        other => other?,
    };
    if !entries.is_empty() {
        let _ = fs.set_mode(dir, 0o700);
    }
    for entry in entries {
        let Some(path) = packetboat_replica::fs::entry_path(dir, &entry.name) else { continue };
        match entry.stat {
            Ok(stat) if stat.kind == FileKind::Directory => remove_tree(fs, &path)?,
            _ => crate::fetch::gone_is_fine(fs.unlink(&path))?,
        }
    }
    fs.rmdir(dir)
}

impl Applier<'_, '_> {
    /// Whether the file system can sync everything at once.
    pub(super) fn syncs_whole(&mut self) -> Result<bool, SyncError> {
        if let Some(known) = self.whole_sync {
            return Ok(known);
        }
        let known = match self.ctx.fs.sync_all() {
            Ok(()) => true,
            Err(error) if error.kind() == io::ErrorKind::Unsupported => false,
            Err(error) => return Err(fatal(&RelPath::root(), error)),
        };
        self.whole_sync = Some(known);
        Ok(known)
    }

    /// Notes that the entries of a directory changed.
    pub(super) fn changed_in(&mut self, path: &RelPath) {
        if let Some((dir, _)) = path.split() {
            self.dirty.insert(dir);
        }
    }

    /// Remembers that the attributes of an object changed.
    pub(super) fn changed_itself(&mut self, path: &RelPath, directory: bool) {
        self.altered.insert(path.clone(), directory);
    }

    /// Makes all changes of names and attributes so far durable.
    pub(super) fn make_durable(&mut self) -> Result<(), SyncError> {
        let (dirty, altered) = (std::mem::take(&mut self.dirty), std::mem::take(&mut self.altered));
        self.unplaced.clear();
        if dirty.is_empty() && altered.is_empty() {
            return Ok(());
        }
        if dirty.len() + altered.len() >= FEW && self.syncs_whole()? {
            return self.ctx.fs.sync_all().map_err(|error| fatal(&RelPath::root(), error));
        }
        let mut lost = false;
        for (path, directory) in &altered {
            let synced = match directory {
                true => self.ctx.fs.sync_dir(path),
                false => self.ctx.fs.open(path).and_then(|file| file.sync()),
            };
            lost |= unless_fatal(path, synced)?.is_none();
        }
        for dir in &dirty {
            // One that has moved since is not found under its old path; one that forbids reading cannot be opened.
            lost |= unless_fatal(dir, self.ctx.fs.sync_dir(dir))?.is_none();
        }
        if lost && self.syncs_whole()? {
            self.ctx.fs.sync_all().map_err(|error| fatal(&RelPath::root(), error))?;
        }
        Ok(())
    }
}

/// Fewer than this are synced one by one.
pub(super) const FEW: usize = 16;
const EILSEQ: i32 = 84;
const ELOOP: i32 = 40;
