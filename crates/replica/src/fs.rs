//! The port to a file system: the few calls from which scanning and applying are made.
//!
//! All paths are relative to one root and are resolved beneath it without following symlinks.
//! The real one is [`crate::real_fs`]; the testkit has one that loses and reorders unsynced writes.

use std::io;

use packetboat_core::name::{Name, RelPath};

use crate::dir_listing::DirListing;

/// What kind of object a directory entry is.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Hash, PartialOrd, Ord)]
pub enum FileKind {
    /// A regular file.
    File,
    /// A directory.
    Directory,
    /// A symbolic link.
    Symlink,
    /// A socket, fifo or device: listed, never synchronised.
    Special,
}

/// What `stat` tells of an object.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Stat {
    /// Its kind.
    pub kind: FileKind,
    /// Size in bytes.
    pub size: u64,
    /// Modification time in nanoseconds since 1970 UTC.
    pub mtime: i64,
    /// Status change time in nanoseconds since 1970 UTC.
    pub ctime: i64,
    /// Birth time in nanoseconds since 1970 UTC, where the file system has one.
    pub btime: Option<i64>,
    /// Inode number.
    pub inode: u64,
    /// The device (file system) it lies on.
    pub device: u64,
    /// Permission bits, without file type: at most 0o7777.
    pub mode: u32,
    /// Number of hard links.
    pub links: u64,
}

/// One entry of a directory, with its `stat`.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct DirEntry {
    /// Its name.
    pub name: Vec<u8>,
    /// What it is, or the error number with which looking at it failed:
    /// `ENOENT` where it vanished after it was listed.
    pub stat: Result<Stat, i32>,
}

/// An open regular file.
pub trait FsFile: Send {
    /// Reads from the current position; 0 at the end.
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize>;
    /// Writes all of `bytes` at the current position.
    fn write_all(&mut self, bytes: &[u8]) -> io::Result<()>;
    /// Goes on `len` bytes, which read as zeros; a hole where the file system can have one and nothing is there yet.
    fn write_zeros(&mut self, len: u64) -> io::Result<()> {
        let zeros = [0; 64 * 1024];
        let mut left = len;
        while left > 0 {
            let part = left.min(zeros.len() as u64);
            self.write_all(&zeros[..part as usize])?;
            left -= part;
        }
        Ok(())
    }
    /// What the open file is now.
    fn stat(&self) -> io::Result<Stat>;
    /// Its `user.*` extended attributes, sorted by name, as [`Fs::xattrs`] says them of a path.
    fn xattrs(&self) -> io::Result<Vec<(Vec<u8>, Vec<u8>)>>;
    /// Sets permission bits (at most 0o777).
    fn set_mode(&mut self, mode: u32) -> io::Result<()>;
    /// Sets the modification time in nanoseconds since 1970 UTC.
    fn set_mtime(&mut self, mtime: i64) -> io::Result<()>;
    /// Brings content and metadata to stable storage.
    fn sync(&self) -> io::Result<()>;
    /// Asks the file system to set aside room, where it can. Never grows the visible size.
    fn reserve(&mut self, size: u64) -> io::Result<()>;
}

/// A file system seen from one root.
///
/// A symlink or file where a path needs a directory is an error, and so is any change to the root's own name.
/// Where a capability is missing the error's kind is `Unsupported`.
pub trait Fs: Send + Sync {
    /// Lists a directory with the `stat` of each entry, in no particular order.
    fn read_dir(&self, dir: &RelPath) -> io::Result<Vec<DirEntry>>;
    /// The same by name, in little memory.
    fn list(&self, dir: &RelPath) -> io::Result<DirListing> {
        Ok(DirListing::try_from(self.read_dir(dir)?)?.sorted())
    }
    /// What lies at a path, not following a symlink at its end.
    fn lstat(&self, path: &RelPath) -> io::Result<Stat>;
    /// Opens a regular file to read; refuses symlinks and everything else.
    fn open(&self, path: &RelPath) -> io::Result<Box<dyn FsFile>>;
    /// Makes a new regular file with permission bits 0o600 and opens it to write; refuses a name that is taken.
    fn create_new(&self, path: &RelPath) -> io::Result<Box<dyn FsFile>>;
    /// Reads a symlink's target.
    fn read_link(&self, path: &RelPath) -> io::Result<Vec<u8>>;
    /// Makes a symlink; refuses a name that is taken.
    fn symlink(&self, target: &[u8], path: &RelPath) -> io::Result<()>;
    /// Makes a directory with permission bits of at most 0o777, lessened by the process's umask; refuses a name that is taken.
    fn mkdir(&self, path: &RelPath, mode: u32) -> io::Result<()>;
    /// Renames, refusing a target that is taken (`AlreadyExists`), even by the object itself.
    ///
    /// Where the file system has no such call it is made of others: a crash may then leave a file under both names.
    fn rename_new(&self, from: &RelPath, to: &RelPath) -> io::Result<()>;
    /// Swaps two objects in one step; `Unsupported` where the file system cannot.
    fn exchange(&self, a: &RelPath, b: &RelPath) -> io::Result<()>;
    /// Renames over whatever is there: only for file systems without [`exchange`](Self::exchange).
    fn rename_over(&self, from: &RelPath, to: &RelPath) -> io::Result<()>;
    /// Removes a file or symlink.
    fn unlink(&self, path: &RelPath) -> io::Result<()>;
    /// Removes an empty directory.
    fn rmdir(&self, path: &RelPath) -> io::Result<()>;
    /// Sets permission bits (at most 0o777) of a file or directory, not following symlinks.
    fn set_mode(&self, path: &RelPath, mode: u32) -> io::Result<()>;
    /// The `user.*` extended attributes of a file or directory; empty where there are none or they are unsupported.
    fn xattrs(&self, path: &RelPath) -> io::Result<Vec<(Vec<u8>, Vec<u8>)>>;
    /// Sets or (with `None`) removes one `user.*` extended attribute; removing one that is not there is no error.
    /// Names include the prefix `user.`; any other is refused (`PermissionDenied`).
    fn set_xattr(&self, path: &RelPath, name: &[u8], value: Option<&[u8]>) -> io::Result<()>;
    /// Brings a directory's entries to stable storage.
    fn sync_dir(&self, dir: &RelPath) -> io::Result<()>;
    /// Brings everything written so far below the root to stable storage in one call; `Unsupported` where there is none.
    fn sync_all(&self) -> io::Result<()>;
    /// Bytes free for this user.
    fn free_bytes(&self) -> io::Result<u64>;
}

/// The path of `name` in `dir`, if it is a name that can be synchronised.
pub fn entry_path(dir: &RelPath, name: &[u8]) -> Option<RelPath> {
    Some(dir.join(&Name::new(name)?))
}
