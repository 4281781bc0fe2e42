//! The file system of the computer, seen from one root that no path can leave.
//!
//! The root is held open, and every path is resolved beneath it by the kernel without following symlinks
//! (`openat2` with `RESOLVE_BENEATH | RESOLVE_NO_SYMLINKS`), or name by name with `O_NOFOLLOW` where there is no `openat2`.
//! The last name is then used in one `*at` call on its parent's descriptor.
//! So whoever swaps a directory for a symlink while we work gets an error out of us, never a file elsewhere.
//!
//! Descriptors of parents are not kept between calls:
//! a directory that was renamed meanwhile would make a kept one stand for another path.
//!
//! What is not promised: permission bits given to `mkdir` are lessened by the process's umask,
//! `sync_all` covers the file system of the root and none that is mounted beneath it,
//! and `rename_new` without the kernel's help is not atomic (see `rename_new_by_link`).

mod look;
#[cfg(test)]
mod tests;

use std::fs::File;
use std::io::{self, Read, Seek, SeekFrom, Write};
use std::path::Path;

use packetboat_core::name::{Name, RelPath};
use rustix::fd::{AsFd, BorrowedFd, OwnedFd};
use rustix::fs::{
    AtFlags, CWD, FallocateFlags, Mode, OFlags, RenameFlags, ResolveFlags, Timespec, Timestamps, UTIME_OMIT, XattrFlags,
};
use rustix::io::{Errno, retry_on_intr};

use self::look::{list, stat_name, stat_open};
use crate::dir_listing::DirListing;
use crate::fs::{DirEntry, FileKind, Fs, FsFile, Stat};

/// The computer's file system beneath one directory.
#[derive(Debug)]
pub struct RealFs {
    /// Open to read, not merely `O_PATH`: `syncfs` reports write errors since *this* descriptor was opened.
    root: OwnedFd,
    resolver: Resolver,
    /// Whether `/proc/self/fd` is there, through which an object held by descriptor can be changed.
    has_proc: bool,
}

/// How paths are resolved.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
enum Resolver {
    /// By the kernel in one call.
    Kernel,
    /// Name by name.
    Names,
}

/// The directory in which the last name of a path lies.
enum Parent<'a> {
    Root(BorrowedFd<'a>),
    Opened(OwnedFd),
}

impl AsFd for Parent<'_> {
    fn as_fd(&self) -> BorrowedFd<'_> {
        match self {
            Parent::Root(fd) => *fd,
            Parent::Opened(fd) => fd.as_fd(),
        }
    }
}

impl RealFs {
    /// Opens the directory `root`; symlinks on the way to it are followed, since the user named it.
    ///
    /// # Errors
    /// Those of opening a directory to read it.
    pub fn open(root: &Path) -> io::Result<Self> {
        let mut fs = Self::open_name_by_name(root)?;
        let probe = rustix::fs::openat2(&fs.root, c".", PATH | OFlags::DIRECTORY, Mode::empty(), beneath());
        // An old kernel says ENOSYS, an old sandbox EPERM: whatever it is, the other way works.
        if probe.is_ok() {
            fs.resolver = Resolver::Kernel;
        }
        Ok(fs)
    }

    /// Like [`open`](Self::open), without `openat2`: what kernels before 5.6 and some sandboxes get.
    ///
    /// # Errors
    /// Those of opening a directory to read it.
    pub fn open_name_by_name(root: &Path) -> io::Result<Self> {
        let flags = OFlags::RDONLY | OFlags::DIRECTORY | OFlags::CLOEXEC;
        let root = retry_on_intr(|| rustix::fs::openat(CWD, root, flags, Mode::empty()))?;
        let has_proc = rustix::fs::statat(CWD, c"/proc/self/fd", AtFlags::empty()).is_ok();
        Ok(Self { root, resolver: Resolver::Names, has_proc })
    }

    /// Opens what lies at `path`, following no symlink anywhere.
    fn open_beneath(&self, path: &RelPath, flags: OFlags, mode: Mode) -> Result<OwnedFd, Errno> {
        let flags = flags | OFlags::NOFOLLOW | OFlags::CLOEXEC;
        if self.resolver == Resolver::Kernel {
            let bytes = if path.is_root() { b"." } else { path.as_bytes() };
            let mut attempts = 0;
            loop {
                match rustix::fs::openat2(&self.root, bytes, flags, mode, beneath()) {
                    Err(Errno::INTR) => {}
                    // The kernel could not rule out that a rename raced with it.
                    Err(Errno::AGAIN) if attempts < 100 => attempts += 1,
                    // A path may be deeper than the kernel takes in one call.
                    Err(Errno::NAMETOOLONG) => break,
                    result => return result,
                }
            }
        }
        match path.split() {
            None => retry_on_intr(|| rustix::fs::openat(&self.root, c".", flags, mode)),
            Some((dir, name)) => {
                let parent = self.descend(&dir)?;
                open_name(parent.as_fd(), &name, flags, mode)
            }
        }
    }

    /// Opens a directory name by name, as a place to resolve a last name in.
    fn descend(&self, dir: &RelPath) -> Result<Parent<'_>, Errno> {
        let mut at = Parent::Root(self.root.as_fd());
        for name in dir.names() {
            let flags = PATH | OFlags::DIRECTORY | OFlags::NOFOLLOW;
            at = Parent::Opened(open_name(at.as_fd(), &name, flags, Mode::empty())?);
        }
        Ok(at)
    }

    /// The directory in which `path` lies, and its name there; the root itself is `EBUSY`.
    fn parent(&self, path: &RelPath) -> Result<(Parent<'_>, Name), Errno> {
        let (dir, name) = path.split().ok_or(Errno::BUSY)?;
        if dir.is_root() {
            return Ok((Parent::Root(self.root.as_fd()), name));
        }
        let fd = self.open_beneath(&dir, PATH | OFlags::DIRECTORY, Mode::empty())?;
        Ok((Parent::Opened(fd), name))
    }

    /// Opens a file or directory to reach its extended attributes; `None` for what cannot have `user.*` ones.
    fn open_for_xattrs(&self, path: &RelPath) -> io::Result<Option<OwnedFd>> {
        // Looked at first, because merely opening a device can do things to it.
        match self.lstat(path)?.kind {
            FileKind::File | FileKind::Directory => {}
            FileKind::Symlink | FileKind::Special => return Ok(None),
        }
        Ok(Some(self.open_beneath(path, OFlags::RDONLY | OFlags::NONBLOCK, Mode::empty())?))
    }

    fn look_into(&self, dir: &RelPath) -> io::Result<DirListing> {
        let fd = self.open_beneath(dir, OFlags::RDONLY | OFlags::DIRECTORY, Mode::empty())?;
        list(fd.as_fd())
    }
}

impl Fs for RealFs {
    fn read_dir(&self, dir: &RelPath) -> io::Result<Vec<DirEntry>> {
        Ok(self.look_into(dir)?.entries().collect())
    }

    fn list(&self, dir: &RelPath) -> io::Result<DirListing> {
        Ok(self.look_into(dir)?.sorted())
    }

    fn lstat(&self, path: &RelPath) -> io::Result<Stat> {
        if path.is_root() {
            return Ok(stat_open(self.root.as_fd())?);
        }
        let (parent, name) = self.parent(path)?;
        Ok(stat_name(parent.as_fd(), name.as_bytes())?)
    }

    fn open(&self, path: &RelPath) -> io::Result<Box<dyn FsFile>> {
        // Without O_NONBLOCK a fifo would hold us until somebody writes to it.
        let fd = self.open_beneath(path, OFlags::RDONLY | OFlags::NONBLOCK, Mode::empty())?;
        match stat_open(fd.as_fd())?.kind {
            FileKind::File => Ok(Box::new(RealFile(File::from(fd)))),
            FileKind::Directory => Err(Errno::ISDIR.into()),
            FileKind::Symlink => Err(Errno::LOOP.into()),
            FileKind::Special => Err(Errno::INVAL.into()),
        }
    }

    fn create_new(&self, path: &RelPath) -> io::Result<Box<dyn FsFile>> {
        let flags = OFlags::RDWR | OFlags::CREATE | OFlags::EXCL;
        let fd = self.open_beneath(path, flags, Mode::RUSR | Mode::WUSR)?;
        Ok(Box::new(RealFile(File::from(fd))))
    }

    fn read_link(&self, path: &RelPath) -> io::Result<Vec<u8>> {
        let (parent, name) = self.parent(path)?;
        Ok(rustix::fs::readlinkat(parent, name.as_bytes(), Vec::new())?.into_bytes())
    }

    fn symlink(&self, target: &[u8], path: &RelPath) -> io::Result<()> {
        let (parent, name) = self.parent(path)?;
        Ok(rustix::fs::symlinkat(target, parent, name.as_bytes())?)
    }

    fn mkdir(&self, path: &RelPath, mode: u32) -> io::Result<()> {
        let (parent, name) = self.parent(path)?;
        Ok(rustix::fs::mkdirat(parent, name.as_bytes(), permissions(mode)?)?)
    }

    fn rename_new(&self, from: &RelPath, to: &RelPath) -> io::Result<()> {
        let (from_parent, from) = self.parent(from)?;
        let (to_parent, to) = self.parent(to)?;
        let (from, to) = (from.as_bytes(), to.as_bytes());
        match rustix::fs::renameat_with(&from_parent, from, &to_parent, to, RenameFlags::NOREPLACE) {
            Err(Errno::INVAL | Errno::NOSYS | Errno::OPNOTSUPP) => {
                rename_new_by_link((&from_parent, from), (&to_parent, to))
            }
            result => Ok(result?),
        }
    }

    fn exchange(&self, a: &RelPath, b: &RelPath) -> io::Result<()> {
        let (a_parent, a_name) = self.parent(a)?;
        let (b_parent, b_name) = self.parent(b)?;
        let flags = RenameFlags::EXCHANGE;
        match rustix::fs::renameat_with(a_parent, a_name.as_bytes(), b_parent, b_name.as_bytes(), flags) {
            // EINVAL is also the answer to swapping a directory with something inside it.
            Err(Errno::INVAL) if !lies_within(a, b) && !lies_within(b, a) => Err(unsupported()),
            Err(Errno::NOSYS | Errno::OPNOTSUPP) => Err(unsupported()),
            result => Ok(result?),
        }
    }

    fn rename_over(&self, from: &RelPath, to: &RelPath) -> io::Result<()> {
        let (from_parent, from) = self.parent(from)?;
        let (to_parent, to) = self.parent(to)?;
        Ok(rustix::fs::renameat(from_parent, from.as_bytes(), to_parent, to.as_bytes())?)
    }

    fn unlink(&self, path: &RelPath) -> io::Result<()> {
        let (parent, name) = self.parent(path)?;
        Ok(rustix::fs::unlinkat(parent, name.as_bytes(), AtFlags::empty())?)
    }

    fn rmdir(&self, path: &RelPath) -> io::Result<()> {
        let (parent, name) = self.parent(path)?;
        Ok(rustix::fs::unlinkat(parent, name.as_bytes(), AtFlags::REMOVEDIR)?)
    }

    fn set_mode(&self, path: &RelPath, mode: u32) -> io::Result<()> {
        use rustix::fd::AsRawFd;
        let mode = permissions(mode)?;
        // O_PATH, since the bits that are there now may forbid us to read.
        let fd = self.open_beneath(path, PATH, Mode::empty())?;
        match stat_open(fd.as_fd())?.kind {
            FileKind::File | FileKind::Directory => {}
            FileKind::Symlink => return Err(Errno::LOOP.into()),
            FileKind::Special => return Err(Errno::INVAL.into()),
        }
        if self.has_proc {
            let held = format!("/proc/self/fd/{}", fd.as_raw_fd());
            return Ok(rustix::fs::chmodat(CWD, held, mode, AtFlags::empty())?);
        }
        let fd = self.open_beneath(path, OFlags::RDONLY | OFlags::NONBLOCK, Mode::empty())?;
        Ok(rustix::fs::fchmod(fd, mode)?)
    }

    fn xattrs(&self, path: &RelPath) -> io::Result<Vec<(Vec<u8>, Vec<u8>)>> {
        match self.open_for_xattrs(path)? {
            Some(fd) => user_xattrs(fd.as_fd()),
            None => Ok(Vec::new()),
        }
    }

    fn set_xattr(&self, path: &RelPath, name: &[u8], value: Option<&[u8]>) -> io::Result<()> {
        if !name.starts_with(USER) || name.len() == USER.len() {
            return Err(Errno::PERM.into());
        }
        let fd = self.open_for_xattrs(path)?.ok_or(Errno::PERM)?;
        let result = match value {
            Some(value) => rustix::fs::fsetxattr(fd, name, value, XattrFlags::empty()),
            None => match rustix::fs::fremovexattr(fd, name) {
                Err(Errno::NODATA) => Ok(()),
                result => result,
            },
        };
        match result {
            Err(Errno::OPNOTSUPP | Errno::NOSYS) => Err(unsupported()),
            result => Ok(result?),
        }
    }

    fn sync_dir(&self, dir: &RelPath) -> io::Result<()> {
        let fd = self.open_beneath(dir, OFlags::RDONLY | OFlags::DIRECTORY, Mode::empty())?;
        match retry_on_intr(|| rustix::fs::fsync(&fd)) {
            // Some network and FUSE file systems have nothing to sync in a directory.
            Err(Errno::INVAL | Errno::OPNOTSUPP | Errno::NOSYS) => Ok(()),
            result => Ok(result?),
        }
    }

    fn sync_all(&self) -> io::Result<()> {
        match retry_on_intr(|| rustix::fs::syncfs(&self.root)) {
            Err(Errno::NOSYS | Errno::OPNOTSUPP | Errno::INVAL) => Err(unsupported()),
            result => Ok(result?),
        }
    }

    fn free_bytes(&self) -> io::Result<u64> {
        let found = rustix::fs::fstatvfs(&self.root)?;
        Ok(found.f_bavail.saturating_mul(found.f_frsize))
    }
}

/// An open regular file of [`RealFs`].
#[derive(Debug)]
struct RealFile(File);

impl FsFile for RealFile {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        loop {
            match self.0.read(buffer) {
                Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                result => return result,
            }
        }
    }

    fn write_all(&mut self, bytes: &[u8]) -> io::Result<()> {
        self.0.write_all(bytes)
    }

    /// A file that is made here ends where it was written to last, so growing it leaves a hole.
    fn write_zeros(&mut self, len: u64) -> io::Result<()> {
        let end = self.0.stream_position()?.saturating_add(len);
        self.0.set_len(end)?;
        self.0.seek(SeekFrom::Start(end))?;
        Ok(())
    }

    fn stat(&self) -> io::Result<Stat> {
        Ok(stat_open(self.0.as_fd())?)
    }

    fn xattrs(&self) -> io::Result<Vec<(Vec<u8>, Vec<u8>)>> {
        user_xattrs(self.0.as_fd())
    }

    fn set_mode(&mut self, mode: u32) -> io::Result<()> {
        Ok(rustix::fs::fchmod(&self.0, permissions(mode)?)?)
    }

    fn set_mtime(&mut self, mtime: i64) -> io::Result<()> {
        let times = Timestamps {
            last_access: Timespec { tv_sec: 0, tv_nsec: UTIME_OMIT },
            last_modification: Timespec { tv_sec: mtime.div_euclid(NANOS), tv_nsec: mtime.rem_euclid(NANOS) },
        };
        Ok(rustix::fs::futimens(&self.0, &times)?)
    }

    fn sync(&self) -> io::Result<()> {
        self.0.sync_all()
    }

    fn reserve(&mut self, size: u64) -> io::Result<()> {
        if size == 0 {
            return Ok(());
        }
        match retry_on_intr(|| rustix::fs::fallocate(&self.0, FallocateFlags::KEEP_SIZE, 0, size)) {
            Err(Errno::OPNOTSUPP | Errno::NOSYS | Errno::INVAL) => Ok(()),
            result => Ok(result?),
        }
    }
}

/// `rename_new` where the file system does not know how: a hard link never replaces anything.
///
/// A crash in between leaves both names. A directory can have no second link,
/// but renaming one replaces an empty directory at worst, and that is looked for first.
fn rename_new_by_link(from: (&Parent<'_>, &[u8]), to: (&Parent<'_>, &[u8])) -> io::Result<()> {
    let before = stat_name(from.0.as_fd(), from.1)?;
    if before.kind == FileKind::Directory {
        return match stat_name(to.0.as_fd(), to.1) {
            Ok(_) => Err(Errno::EXIST.into()),
            Err(Errno::NOENT) => Ok(rustix::fs::renameat(from.0, from.1, to.0, to.1)?),
            Err(error) => Err(error.into()),
        };
    }
    match rustix::fs::linkat(from.0, from.1, to.0, to.1, AtFlags::empty()) {
        Ok(()) => {}
        Err(Errno::PERM | Errno::OPNOTSUPP | Errno::NOSYS | Errno::MLINK | Errno::INVAL) => {
            return Err(unsupported());
        }
        Err(error) => return Err(error.into()),
    }
    // Only what was linked may go: another file may have taken the old name in this instant.
    let linked = stat_name(to.0.as_fd(), to.1)?;
    let now = stat_name(from.0.as_fd(), from.1)?;
    if (now.inode, now.device) == (linked.inode, linked.device) {
        rustix::fs::unlinkat(from.0, from.1, AtFlags::empty())?;
    }
    Ok(())
}

/// Opens one name in a directory; a symlink is `ELOOP`, as the kernel's resolver has it.
fn open_name(dir: BorrowedFd<'_>, name: &Name, flags: OFlags, mode: Mode) -> Result<OwnedFd, Errno> {
    match retry_on_intr(|| rustix::fs::openat(dir, name.as_bytes(), flags, mode)) {
        Err(Errno::NOTDIR) => match stat_name(dir, name.as_bytes()) {
            Ok(found) if found.kind == FileKind::Symlink => Err(Errno::LOOP),
            _ => Err(Errno::NOTDIR),
        },
        result => result,
    }
}

/// The `user.*` attributes of an open file or directory, sorted by name.
fn user_xattrs(fd: BorrowedFd<'_>) -> io::Result<Vec<(Vec<u8>, Vec<u8>)>> {
    let names = match read_growing(|buffer| rustix::fs::flistxattr(fd, buffer)) {
        Err(Errno::OPNOTSUPP | Errno::NOSYS) => return Ok(Vec::new()),
        result => result?,
    };
    let mut found = Vec::new();
    for name in names.split(|byte| *byte == 0).filter(|name| name.starts_with(USER)) {
        match read_growing(|buffer| rustix::fs::fgetxattr(fd, name, buffer)) {
            Ok(value) => found.push((name.to_vec(), value)),
            // Removed since it was listed.
            Err(Errno::NODATA) => {}
            Err(error) => return Err(error.into()),
        }
    }
    found.sort_unstable();
    Ok(found)
}

/// Reads what may grow between asking for its size and reading it.
fn read_growing(mut read: impl FnMut(&mut [u8]) -> Result<usize, Errno>) -> Result<Vec<u8>, Errno> {
    let mut buffer = vec![0; 256];
    loop {
        match read(&mut buffer) {
            Ok(len) => {
                buffer.truncate(len);
                return Ok(buffer);
            }
            // The kernel holds neither a value nor a list of names larger than 64 KiB.
            Err(Errno::RANGE) if buffer.len() < 1 << 20 => buffer.resize(buffer.len() * 4, 0),
            Err(error) => return Err(error),
        }
    }
}

/// Permission bits as the system takes them; refuses setuid, setgid and sticky.
fn permissions(mode: u32) -> Result<Mode, Errno> {
    if mode > 0o777 {
        return Err(Errno::INVAL);
    }
    Ok(Mode::from_raw_mode(mode))
}

/// Whether `inner` lies somewhere beneath `outer`.
fn lies_within(inner: &RelPath, outer: &RelPath) -> bool {
    inner.as_bytes().strip_prefix(outer.as_bytes()).is_some_and(|rest| rest.first() == Some(&b'/'))
}

fn beneath() -> ResolveFlags {
    ResolveFlags::BENEATH | ResolveFlags::NO_SYMLINKS | ResolveFlags::NO_MAGICLINKS
}

fn unsupported() -> io::Error {
    io::ErrorKind::Unsupported.into()
}

const PATH: OFlags = OFlags::PATH.union(OFlags::CLOEXEC);
const USER: &[u8] = b"user.";
const NANOS: i64 = 1_000_000_000;
