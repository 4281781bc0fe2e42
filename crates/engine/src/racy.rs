//! Entries that were recorded just after their files had been written, settled before what they are compared with is
//! forgotten.
//!
//! A write that follows at once may show the same modification time, so such a record is not trusted until a later scan has
//! looked at the bytes. Whoever goes on as a new device forgets what it folded, and with it what those bytes were: each such
//! file would count as changed here, be published whole, and revive what others have deleted since. So the bytes are
//! looked at first, and where a file was written only now, once no write can show its time any more.

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
use crate::ports::Observer;
use crate::repair::disk::cut;
use crate::replica::Replica;
use crate::scan::{RACY_WINDOW_NS, fingerprint, state_at};

impl Replica {
    /// Settles the entries whose files hold what was recorded of them, in a transaction of its own.
    pub(crate) fn settle_what_was_just_written(&mut self, observer: &mut dyn Observer) -> Result<(), SyncError> {
        if let Some(youngest) = self.youngest_racy()? {
            let age = self.disk_ns().saturating_sub(youngest);
            // A disk whose clock was put back shows a time to come: such a record is as good as settled, or never will be.
            let left = u64::try_from(age).map_or(0, |age| (RACY_WINDOW_NS + 1).saturating_sub(age));
            for _ in 0..left.div_ceil(WAIT_MS * 1_000_000) {
                if observer.interrupted() {
                    return Err(SyncError::Interrupted);
                }
                self.parts.clock.wait(WAIT_MS);
            }
        }
        let now_ns = self.disk_ns();
        let parts = &mut self.parts;
        parts.index.begin()?;
        settle(&mut parts.index, &*parts.fs, &self.keys.ring, now_ns)?;
        Ok(parts.index.commit()?)
    }

    /// The latest modification time among the files whose records are not trusted and that still look as recorded.
    fn youngest_racy(&self) -> Result<Option<i64>, SyncError> {
        let mut youngest = None;
        let fs = &*self.parts.fs;
        for_each_racy(&self.parts.index, |_, entry, path| {
            let stat = fs.lstat(path).ok().filter(|stat| fingerprint(stat) == entry.stat);
            youngest = youngest.max(stat.map(|stat| stat.mtime));
            Ok(())
        })?;
        Ok(youngest)
    }
}

fn settle(index: &mut Index, fs: &dyn Fs, ring: &KeyRing, now_ns: i64) -> Result<(), SyncError> {
    let boundaries = Boundaries::new(ring.chunker_seed());
    let mut settled = Vec::new();
    for_each_racy(index, |dir, entry, path| {
        if holds_what_was_recorded(index, fs, ring, &boundaries, entry, path, now_ns)? {
            settled.push((dir, entry.name.clone(), entry.stat));
        }
        Ok(())
    })?;
    for (dir, name, stat) in settled {
        index.set_fingerprint(dir, &name, &stat, &EntryState::Settled)?;
    }
    Ok(())
}

fn for_each_racy(
    index: &Index,
    mut look: impl FnMut(DirId, &LocalEntry, &RelPath) -> Result<(), SyncError>,
) -> Result<(), SyncError> {
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
                } else if entry.state == EntryState::Racy {
                    look(dir, &entry, &at)?;
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
/// So long it waits until it looks whether the user asks to stop, in milliseconds.
const WAIT_MS: u64 = 100;
