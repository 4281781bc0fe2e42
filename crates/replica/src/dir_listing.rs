//! A directory's entries in little memory: one directory may hold a million.
//!
//! Names lie in one piece, each after its length, and of each entry what `stat` tells in a row of 48 bytes, where a
//! [`DirEntry`] with its name takes three times that. An entry is made of them only when its turn comes.

use std::collections::HashMap;
use std::io;

use crate::fs::{DirEntry, FileKind, Stat};

/// A directory's entries.
#[derive(Default, Debug)]
pub struct DirListing {
    names: Vec<u8>,
    rows: Vec<Row>,
    /// The device on which entries lie.
    device: u64,
    /// The devices of those that lie on another, such as what is mounted there, by where their names begin.
    elsewhere: HashMap<u32, u64>,
}

/// What is kept of an entry besides its name.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Row {
    size: u64,
    mtime: i64,
    ctime: i64,
    btime: i64,
    inode: u64,
    /// Where its name begins.
    start: u32,
    /// The permission bits, and above them the kind, or [`FAILED`].
    mode: u16,
    /// The number of hard links, the greatest for all above it; or the error number with which looking at it failed.
    links: u16,
}

impl DirListing {
    /// Of a directory on this device.
    pub(crate) fn on(device: u64) -> Self {
        Self { device, ..Self::default() }
    }

    /// Adds an entry that was not looked at yet; an error where a name has more than 64 KiB or all have more than 4 GiB.
    pub(crate) fn push(&mut self, name: &[u8], inode: u64) -> io::Result<()> {
        let start = u32::try_from(self.names.len()).map_err(|_| io::Error::from(io::ErrorKind::FileTooLarge))?;
        let len = u16::try_from(name.len()).map_err(|_| io::Error::from(io::ErrorKind::InvalidFilename))?;
        self.names.extend_from_slice(&len.to_le_bytes());
        self.names.extend_from_slice(name);
        self.rows.push(Row { start, mode: FAILED, links: 0, size: 0, mtime: 0, ctime: 0, btime: NO_TIME, inode });
        Ok(())
    }

    /// How many entries there are.
    pub(crate) fn len(&self) -> usize {
        self.rows.len()
    }

    /// Orders the entries by inode number, by which tables are read once.
    pub(crate) fn sort_by_inode(&mut self) {
        self.rows.sort_unstable_by_key(|row| row.inode);
    }

    /// Orders the entries by name.
    #[must_use]
    pub(crate) fn sorted(mut self) -> Self {
        let names = &self.names;
        self.rows.sort_unstable_by(|a, b| a.name(names).cmp(b.name(names)));
        self
    }

    /// The device, the names and the rows, to look at these.
    pub(crate) fn parts(&mut self) -> (u64, &[u8], &mut [Row]) {
        (self.device, &self.names, &mut self.rows)
    }

    /// Notes what lies on another device: where its name begins, and the device.
    pub(crate) fn note_elsewhere(&mut self, found: Vec<(u32, u64)>) {
        self.elsewhere.extend(found);
    }

    /// The entries, in their order.
    pub fn entries(&self) -> impl Iterator<Item = DirEntry> {
        self.rows.iter().map(|row| DirEntry { name: row.name(&self.names).to_vec(), stat: self.stat(row) })
    }

    /// The error numbers with which looking at entries failed.
    pub fn errors(&self) -> impl Iterator<Item = i32> {
        self.rows.iter().filter_map(|row| self.stat(row).err())
    }

    fn stat(&self, row: &Row) -> Result<Stat, i32> {
        let kind = match row.mode & !PERMISSIONS {
            FILE => FileKind::File,
            DIRECTORY => FileKind::Directory,
            SYMLINK => FileKind::Symlink,
            SPECIAL => FileKind::Special,
            _ => return Err(row.links.into()),
        };
        Ok(Stat {
            kind,
            size: row.size,
            mtime: row.mtime,
            ctime: row.ctime,
            btime: (row.btime != NO_TIME).then_some(row.btime),
            inode: row.inode,
            device: self.elsewhere.get(&row.start).copied().unwrap_or(self.device),
            mode: (row.mode & PERMISSIONS).into(),
            links: row.links.into(),
        })
    }
}

impl TryFrom<Vec<DirEntry>> for DirListing {
    type Error = io::Error;

    fn try_from(entries: Vec<DirEntry>) -> io::Result<Self> {
        let device = entries.iter().find_map(|entry| Some(entry.stat.ok()?.device)).unwrap_or_default();
        let mut listing = Self::on(device);
        for DirEntry { name, stat } in entries {
            listing.push(&name, 0)?;
            let row = listing.rows.last_mut().expect("pushed");
            let elsewhere = row.set(stat, device);
            listing.elsewhere.extend(elsewhere);
        }
        Ok(listing)
    }
}

impl Row {
    /// Its name, of the names of the listing.
    pub(crate) fn name<'a>(&self, names: &'a [u8]) -> &'a [u8] {
        let (len, rest) = names[self.start as usize..].split_first_chunk().expect("a length stands before each");
        &rest[..usize::from(u16::from_le_bytes(*len))]
    }

    /// Keeps what looking at it gave; where its name begins and its device, where that is not the directory's.
    pub(crate) fn set(&mut self, stat: Result<Stat, i32>, device: u64) -> Option<(u32, u64)> {
        let stat = match stat {
            Ok(stat) => stat,
            Err(errno) => {
                (self.mode, self.links) = (FAILED, u16::try_from(errno).unwrap_or(u16::MAX));
                return None;
            }
        };
        let kind = match stat.kind {
            FileKind::File => FILE,
            FileKind::Directory => DIRECTORY,
            FileKind::Symlink => SYMLINK,
            FileKind::Special => SPECIAL,
        };
        self.mode = kind | (u16::try_from(stat.mode).unwrap_or_default() & PERMISSIONS);
        self.links = u16::try_from(stat.links).unwrap_or(u16::MAX);
        (self.size, self.mtime, self.ctime) = (stat.size, stat.mtime, stat.ctime);
        self.btime = stat.btime.unwrap_or(NO_TIME);
        self.inode = stat.inode;
        (stat.device != device).then_some((self.start, stat.device))
    }
}

/// No birth time: a file system that has one says none before the year 1678.
const NO_TIME: i64 = i64::MIN;
/// The bits of a row's mode that are permissions, and what those above them say.
const PERMISSIONS: u16 = 0o7777;
const FILE: u16 = 1 << 12;
const DIRECTORY: u16 = 2 << 12;
const SYMLINK: u16 = 3 << 12;
const SPECIAL: u16 = 4 << 12;
const FAILED: u16 = 5 << 12;

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_listing_gives_back_what_it_was_given_by_name() {
        let stat = |kind, mode, device, btime| Stat {
            kind,
            size: 7,
            mtime: -1,
            ctime: i64::MAX,
            btime,
            inode: u64::MAX,
            device,
            mode,
            links: 2,
        };
        let entry = |name: &str, stat| DirEntry { name: name.into(), stat };
        let entries = vec![
            entry("mounted", Ok(stat(FileKind::Directory, 0o1777, 9, None))),
            entry("file", Ok(stat(FileKind::File, 0o7777, 3, Some(0)))),
            entry("gone", Err(2)),
            entry("files", Ok(stat(FileKind::Symlink, 0, 3, Some(-5)))),
            entry("a", Ok(stat(FileKind::Special, 0o644, 3, Some(1)))),
        ];
        let mut sorted = entries.clone();
        sorted.sort_by(|a, b| a.name.cmp(&b.name));
        let listing = DirListing::try_from(entries).unwrap().sorted();
        assert_eq!(listing.entries().collect::<Vec<_>>(), sorted);
        assert_eq!(listing.errors().collect::<Vec<_>>(), [2]);
    }

    #[test]
    fn a_row_is_small() {
        assert_eq!(size_of::<Row>(), 48);
    }
}
