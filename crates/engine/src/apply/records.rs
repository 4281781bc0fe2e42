//! Records of what may be found in staging after a crash, made before the rename that could put it there.
//!
//! ```text
//! value under "staged" in the index:
//!   label bytes | count varint | per record:
//!     path bytes | dir varint | name bytes | new inode varint | old: inode varint, size varint, mtime signed
//! ```
//!
//! A new inode of 0 says that the object was taken away to be removed; any other, that it is exchanged with the object of
//! that inode. What lies at the path with another inode is the object that stood in the folder.

use packetboat_core::local::{DirId, Fingerprint};
use packetboat_core::name::{Name, RelPath};
use packetboat_core::wire::{Reader, WireError, Writer};
use packetboat_replica::index::Index;

use crate::error::SyncError;

/// An object of the folder that is, or soon will be, in staging.
#[derive(Clone, PartialEq, Eq, Debug)]
pub(super) struct Record {
    /// Where in staging.
    pub(super) path: RelPath,
    /// The directory that held it.
    pub(super) dir: DirId,
    /// The name it had there.
    pub(super) name: Name,
    /// The inode of what replaces it; 0 for nothing.
    pub(super) new_inode: u64,
    /// What was recorded of it.
    pub(super) old: Fingerprint,
}

/// Writes the records, durable before this returns; none forgets them.
pub(super) fn write(index: &mut Index, label: &str, records: &[Record]) -> Result<(), SyncError> {
    if records.is_empty() {
        if index.meta(KEY)?.is_some() {
            index.set_meta(KEY, None)?;
        }
        return Ok(());
    }
    let mut out = Writer::new();
    out.bytes(label.as_bytes()).varint(records.len() as u64);
    for record in records {
        out.bytes(record.path.as_bytes()).varint(record.dir.0).bytes(record.name.as_bytes());
        out.varint(record.new_inode).varint(record.old.inode).varint(record.old.size).signed(record.old.mtime);
    }
    Ok(index.set_meta(KEY, Some(&out.finish()))?)
}

/// Reads the records, and what this device was called when they were made.
pub(super) fn read(index: &Index) -> Result<(String, Vec<Record>), SyncError> {
    let Some(bytes) = index.meta(KEY)? else { return Ok(Default::default()) };
    // They are ours; should they be damaged, nothing in staging is known, and nothing there is deleted by them.
    Ok(decode(&bytes).map_err(|_| packetboat_replica::index::IndexError::Damaged { what: "the records of staging" })?)
}

fn decode(bytes: &[u8]) -> Result<(String, Vec<Record>), WireError> {
    let bad = || WireError::Invalid { what: "a record of staging" };
    let mut input = Reader::new(bytes);
    let label = String::from_utf8_lossy(input.bytes(1024)?).into_owned();
    let count = input.count(8)?;
    let mut records = Vec::with_capacity(count);
    for _ in 0..count {
        let path = RelPath::new(input.bytes(1 << 16)?).ok_or_else(bad)?;
        let dir = DirId(input.varint()?);
        let name = Name::new(input.bytes(Name::MAX)?).ok_or_else(bad)?;
        let new_inode = input.varint()?;
        let (inode, size, mtime) = (input.varint()?, input.varint()?, input.signed()?);
        let old = Fingerprint { inode, size, mtime, ..Fingerprint::default() };
        records.push(Record { path, dir, name, new_inode, old });
    }
    input.finish()?;
    Ok((label, records))
}

/// Stands for the new inode of what was in staging already and does not go back to where it once was.
pub(super) const FOR_GOOD: u64 = u64::MAX;
const KEY: &str = "staged";
