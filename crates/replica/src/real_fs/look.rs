//! Looking at directories and what is in them, as fast as the kernel lets us.
//!
//! A directory is first listed whole, with a large buffer, and its entries are then looked at relative to its descriptor.
//! One `statx` asks for the few fields that a scan needs.

use std::io;
use std::sync::{Mutex, PoisonError};

use rustix::fd::BorrowedFd;
use rustix::fs::{AtFlags, FileType, RawDir, Statx, StatxFlags, StatxTimestamp};
use rustix::io::Errno;

use super::NANOS;
use crate::fs::{DirEntry, FileKind, Stat};

/// Reads a whole directory and looks at each entry.
pub(super) fn list(dir: BorrowedFd<'_>) -> io::Result<Vec<DirEntry>> {
    let mut buffer = Vec::with_capacity(LISTING_BUFFER);
    let mut listing = RawDir::new(dir, buffer.spare_capacity_mut());
    let mut names: Vec<(u64, Vec<u8>)> = Vec::new();
    while let Some(entry) = listing.next() {
        let entry = match entry {
            Err(Errno::INTR) => continue,
            entry => entry?,
        };
        let name = entry.file_name().to_bytes();
        if name != b"." && name != b".." {
            names.push((entry.ino(), name.to_vec()));
        }
    }
    if names.len() <= MANY_ENTRIES {
        return Ok(look(dir, &mut names));
    }
    // In a large directory the listing's order is that of a hash; by inode number, tables are read once.
    names.sort_unstable_by_key(|(inode, _)| *inode);
    let chunks = Mutex::new(names.chunks_mut(CHUNK));
    let next = || chunks.lock().unwrap_or_else(PoisonError::into_inner).next();
    let work = || {
        let mut found = Vec::new();
        while let Some(chunk) = next() {
            found.append(&mut look(dir, chunk));
        }
        found
    };
    std::thread::scope(|scope| {
        let helper = std::thread::Builder::new().spawn_scoped(scope, work);
        let mut found = work();
        // Where no thread could be had, all the work is done already.
        if let Ok(helper) = helper {
            found.append(&mut helper.join().unwrap_or_else(|panic| std::panic::resume_unwind(panic)));
        }
        Ok(found)
    })
}

/// Looks at each named entry of a directory, taking the names.
fn look(dir: BorrowedFd<'_>, names: &mut [(u64, Vec<u8>)]) -> Vec<DirEntry> {
    let look = |(_, name): &mut (u64, Vec<u8>)| {
        let name = std::mem::take(name);
        let stat = stat_name(dir, &name).map_err(Errno::raw_os_error);
        DirEntry { name, stat }
    };
    names.iter_mut().map(look).collect()
}

/// What lies under a name in a directory.
pub(super) fn stat_name(dir: BorrowedFd<'_>, name: &[u8]) -> Result<Stat, Errno> {
    let flags = AtFlags::SYMLINK_NOFOLLOW | AtFlags::NO_AUTOMOUNT;
    Ok(stat_from(&rustix::fs::statx(dir, name, flags, wanted())?))
}

/// What an open descriptor stands for.
pub(super) fn stat_open(fd: BorrowedFd<'_>) -> Result<Stat, Errno> {
    Ok(stat_from(&rustix::fs::statx(fd, c"", AtFlags::EMPTY_PATH, wanted())?))
}

fn stat_from(found: &Statx) -> Stat {
    let mode = u32::from(found.stx_mode);
    let has_btime = StatxFlags::from_bits_retain(found.stx_mask).contains(StatxFlags::BTIME);
    Stat {
        kind: match FileType::from_raw_mode(mode) {
            FileType::RegularFile => FileKind::File,
            FileType::Directory => FileKind::Directory,
            FileType::Symlink => FileKind::Symlink,
            _ => FileKind::Special,
        },
        size: found.stx_size,
        mtime: nanoseconds(&found.stx_mtime),
        ctime: nanoseconds(&found.stx_ctime),
        btime: has_btime.then(|| nanoseconds(&found.stx_btime)),
        inode: found.stx_ino,
        device: rustix::fs::makedev(found.stx_dev_major, found.stx_dev_minor),
        mode: mode & 0o7777,
        links: u64::from(found.stx_nlink),
    }
}

/// Times beyond the years 1677 and 2262 become the nearest that can be told.
fn nanoseconds(time: &StatxTimestamp) -> i64 {
    time.tv_sec.saturating_mul(NANOS).saturating_add(i64::from(time.tv_nsec))
}

fn wanted() -> StatxFlags {
    StatxFlags::TYPE
        | StatxFlags::MODE
        | StatxFlags::NLINK
        | StatxFlags::INO
        | StatxFlags::SIZE
        | StatxFlags::MTIME
        | StatxFlags::CTIME
        | StatxFlags::BTIME
}

/// Bytes of directory listing asked for at once: some 1,000 entries.
const LISTING_BUFFER: usize = 64 * 1024;

/// Above this many entries, two threads look at them.
pub(super) const MANY_ENTRIES: usize = 4_000;

/// How many entries a thread looks at before it asks for more.
const CHUNK: usize = 512;
