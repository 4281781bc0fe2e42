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
use crate::dir_listing::{DirListing, Row};
use crate::fs::{FileKind, Stat};

/// Reads a whole directory and looks at each entry.
pub(super) fn list(dir: BorrowedFd<'_>) -> io::Result<DirListing> {
    let mut buffer = Vec::with_capacity(LISTING_BUFFER);
    let mut found = RawDir::new(dir, buffer.spare_capacity_mut());
    let mut listing = DirListing::on(stat_open(dir)?.device);
    while let Some(entry) = found.next() {
        let entry = match entry {
            Err(Errno::INTR) => continue,
            entry => entry?,
        };
        let name = entry.file_name().to_bytes();
        if name != b"." && name != b".." {
            listing.push(name, entry.ino())?;
        }
    }
    let many = listing.len() > MANY_ENTRIES;
    if many {
        // In a large directory the listing's order is that of a hash; by inode number, tables are read once.
        listing.sort_by_inode();
    }
    let (device, names, rows) = listing.parts();
    let elsewhere = match many {
        false => look(dir, device, names, rows),
        true => look_by_two(dir, device, names, rows),
    };
    listing.note_elsewhere(elsewhere);
    Ok(listing)
}

/// Looks at many entries of a directory with a second thread.
fn look_by_two(dir: BorrowedFd<'_>, device: u64, names: &[u8], rows: &mut [Row]) -> Vec<(u32, u64)> {
    let chunks = Mutex::new(rows.chunks_mut(CHUNK));
    let next = || chunks.lock().unwrap_or_else(PoisonError::into_inner).next();
    let work = || {
        let mut elsewhere = Vec::new();
        while let Some(chunk) = next() {
            elsewhere.append(&mut look(dir, device, names, chunk));
        }
        elsewhere
    };
    std::thread::scope(|scope| {
        let helper = std::thread::Builder::new().spawn_scoped(scope, work);
        let mut elsewhere = work();
        // Where no thread could be had, all the work is done already.
        if let Ok(helper) = helper {
            elsewhere.append(&mut helper.join().unwrap_or_else(|panic| std::panic::resume_unwind(panic)));
        }
        elsewhere
    })
}

/// Looks at entries of a directory; of those on another device than it, where their names begin, and the device.
fn look(dir: BorrowedFd<'_>, device: u64, names: &[u8], rows: &mut [Row]) -> Vec<(u32, u64)> {
    let look = |row: &mut Row| row.set(stat_name(dir, row.name(names)).map_err(Errno::raw_os_error), device);
    rows.iter_mut().filter_map(look).collect()
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
