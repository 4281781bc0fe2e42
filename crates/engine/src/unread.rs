//! What vanished while a directory could not be read: it may stand in there, so it is not taken for deleted.
//!
//! A directory that was read once and cannot be read now may hold anything that vanished, however deep, so nothing is
//! published as deleted until it can be read again. One that never could be (`lost+found`, another user's cache) must not
//! keep every deletion from travelling for ever: it counts only where it changed since it was known to be unreadable,
//! for whatever is moved into a directory changes that directory.
//!
//! Such a directory is known by inode and status change time, recorded only at the end of a round that withheld nothing,
//! and only where the change lies clearly before that round's scan: what was moved in during the scan may have been
//! listed at its old place before. A user who knows better says `--confirm-deletes`.

use packetboat_core::wire::{Reader, WireError, Writer};
use packetboat_replica::fs::Fs;
use packetboat_replica::index::Index;

use crate::error::SyncError;
use crate::numbering::Numbering;
use crate::scan::{RACY_WINDOW_NS, Scanned, Unread, disk_time};

/// A directory that could not be read: its path, inode and status change time.
type Known = (Vec<u8>, u64, i64);

/// Says of a finished scan whether what vanished must wait, and for the sake of which directory.
pub(crate) fn withhold(fs: &dyn Fs, index: &Index, scanned: &mut Scanned) -> Result<(), SyncError> {
    if scanned.unread.is_empty() || scanned.vanished.is_empty() {
        return Ok(());
    }
    let known = match index.meta(UNREAD)? {
        Some(bytes) => decode(&bytes).map_err(|_| SyncError::DamagedIndex { what: "the unreadable directories" })?,
        None => Vec::new(),
    };
    // Where numbers were given anew, another one says nothing; the status change time does.
    let same = |known: &Known, now: &Known| {
        known.0 == now.0 && known.2 == now.2 && (known.1 == now.1 || scanned.numbering == Numbering::Renewed)
    };
    let as_known = |now: &Known| known.iter().any(|known| same(known, now));
    let suspicious = |unread: &&Unread| unread.was_read || !as_it_is(fs, unread).is_some_and(|now| as_known(&now));
    scanned.withheld = scanned.unread.iter().find(suspicious).map(|unread| unread.path.clone());
    Ok(())
}

/// Records the directories that could not be read in a round that withheld nothing; its scan began `since_ms` ago.
pub(crate) fn remember(fs: &dyn Fs, index: &mut Index, unread: &[Unread], since_ms: u64) -> Result<(), SyncError> {
    if unread.is_empty() {
        if index.meta(UNREAD)?.is_some() {
            index.set_meta(UNREAD, None)?;
        }
        return Ok(());
    }
    let Some(now) = disk_time(fs) else { return Ok(()) };
    let margin = since_ms.saturating_mul(1_000_000).saturating_add(RACY_WINDOW_NS);
    let before = now.saturating_sub(i64::try_from(margin).unwrap_or(i64::MAX));
    let known: Vec<Known> =
        unread.iter().filter_map(|unread| as_it_is(fs, unread)).filter(|(.., changed)| *changed < before).collect();
    Ok(index.set_meta(UNREAD, Some(&encode(&known)))?)
}

fn as_it_is(fs: &dyn Fs, unread: &Unread) -> Option<Known> {
    let stat = fs.lstat(&unread.path).ok()?;
    Some((unread.path.as_bytes().to_vec(), stat.inode, stat.ctime))
}

fn encode(known: &[Known]) -> Vec<u8> {
    let mut out = Writer::new();
    out.varint(known.len() as u64);
    for (path, inode, changed) in known {
        out.bytes(path).varint(*inode).signed(*changed);
    }
    out.finish()
}

fn decode(bytes: &[u8]) -> Result<Vec<Known>, WireError> {
    let mut input = Reader::new(bytes);
    let known = (0..input.count(3)?)
        .map(|_| Ok((input.bytes(usize::MAX)?.to_vec(), input.varint()?, input.signed()?)))
        .collect::<Result<_, WireError>>()?;
    input.finish()?;
    Ok(known)
}

/// The entry of this replica's index that keeps the unreadable directories.
const UNREAD: &str = "unreadable directories";
