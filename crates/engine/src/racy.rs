//! Entries that were recorded just after their files had been written, settled before what they are compared with is
//! forgotten.
//!
//! A write that follows at once may show the same modification time, so such a record is not trusted until a later scan has
//! looked at the bytes. Whoever goes on as a new device forgets what it folded, and with it what those bytes were: each such
//! file would count as changed here, be published whole, and revive what others have deleted since. So the bytes are
//! looked at first. A file that was written only now stays as it is, as its record proves nothing yet.

use packetboat_core::content::{Content, FileContent};
use packetboat_core::keys::KeyRing;
use packetboat_core::local::{DirId, EntryState, LocalEntry};
use packetboat_core::name::RelPath;
use packetboat_core::plan::HistoryRead;
use packetboat_replica::fs::Fs;
use packetboat_replica::index::Index;
use packetboat_storage::chunker::Boundaries;

use crate::error::SyncError;
use crate::paths;
use crate::repair::disk::cut;
use crate::scan::{fingerprint, state_at};

/// Settles the entries whose files hold what was recorded of them; `now_ns` is the time by the disk's clock. Within the
/// caller's transaction.
pub(crate) fn settle(index: &mut Index, fs: &dyn Fs, ring: &KeyRing, now_ns: i64) -> Result<(), SyncError> {
    let boundaries = Boundaries::new(ring.chunker_seed());
    let mut pending = vec![(DirId::ROOT, RelPath::root()), (DirId::STAGING, paths::staging())];
    while let Some((dir, path)) = pending.pop() {
        let mut after = None;
        loop {
            let entries = index.entries_in(dir, after.as_ref(), PAGE)?;
            let Some(last) = entries.last() else { break };
            after = Some(last.name.clone());
            for entry in entries {
                let at = path.join(&entry.name);
                if let Some(own) = entry.own_dir {
                    pending.push((own, at));
                } else if entry.state == EntryState::Racy
                    && holds_what_was_recorded(index, fs, ring, &boundaries, &entry, &at, now_ns)?
                {
                    index.set_fingerprint(dir, &entry.name, &entry.stat, &EntryState::Settled)?;
                }
            }
        }
    }
    Ok(())
}

fn holds_what_was_recorded(
    index: &Index,
    fs: &dyn Fs,
    ring: &KeyRing,
    boundaries: &Boundaries,
    entry: &LocalEntry,
    path: &RelPath,
    now_ns: i64,
) -> Result<bool, SyncError> {
    let is_as_recorded = || {
        let stat = fs.lstat(path).ok().filter(|stat| fingerprint(stat) == entry.stat);
        stat.is_some_and(|stat| state_at(&stat, now_ns) == EntryState::Settled)
    };
    let Some(dot) = entry.seen.heads.first() else { return Ok(false) };
    let Some(head) = index.version(entry.seen.item, dot)? else { return Ok(false) };
    if !is_as_recorded() {
        return Ok(false);
    }
    let holds = match &head.content {
        Content::File(file) => holds(fs, ring, boundaries, path, file)?,
        Content::Symlink(target) => fs.read_link(path).is_ok_and(|found| found == *target),
        Content::Directory => false,
    };
    // Nobody may have written it meanwhile.
    Ok(holds && is_as_recorded())
}

/// Whether a file that can be read holds this: the cuts come from the vault's key, so the same bytes give the same content.
fn holds(
    fs: &dyn Fs,
    ring: &KeyRing,
    boundaries: &Boundaries,
    path: &RelPath,
    file: &FileContent,
) -> Result<bool, SyncError> {
    let Ok(mut disk) = fs.open(path) else { return Ok(false) };
    let list = cut(&mut *disk, ring, boundaries, |_| Ok(()))?;
    Ok(list.is_some_and(|list| ring.content_id(list.iter().map(|chunk| &chunk.id)) == file.id))
}

const PAGE: usize = 1024;
