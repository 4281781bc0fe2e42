//! Restoring a vault into an empty directory, from the intermediary alone.
//!
//! Whoever does this need not be a member: nothing is introduced, written to the intermediary or left in an index.
//! It learns as a new device does, from a checkpoint where there is one, and applies the view by the same means that
//! bring any change to disk. An earlier point is folded anew from the lanes (past.rs).

use std::sync::Arc;

use packetboat_core::keys::{DeviceKey, KeyRing};
use packetboat_core::name::RelPath;
use packetboat_core::store::Store;
use packetboat_replica::fs::{FileKind, Fs};
use packetboat_replica::index::Index;

use crate::Keys;
use crate::apply::{self, Apply, Limits};
use crate::error::SyncError;
use crate::ignore_rules::IgnoreRules;
use crate::learn::learn;
use crate::past::index_at;
use crate::paths::MARKER_DIR;
use crate::ports::{Clock, Entropy, Observer, Phase};
use crate::replica::{At, Received, Settings};

/// Brings a vault's files, as they are or as they were at an earlier point, into a directory that holds nothing.
///
/// What cannot be had is noted and left out; [`Received::waiting`] counts it.
///
/// # Errors
/// [`SyncError::NotEmpty`] where `to` holds anything; otherwise as a round.
#[expect(clippy::too_many_arguments, reason = "they are what a replica is made of, without the replica")]
pub fn restore_from(
    store: Arc<dyn Store>,
    ring: KeyRing,
    to: Arc<dyn Fs>,
    at: Option<&At>,
    settings: &Settings,
    clock: &dyn Clock,
    entropy: &mut dyn Entropy,
    observer: &mut dyn Observer,
) -> Result<Received, SyncError> {
    let root = RelPath::root();
    let entries = to.read_dir(&root).map_err(|source| SyncError::Disk { path: root.clone(), source })?;
    if !entries.is_empty() {
        return Err(SyncError::NotEmpty);
    }
    // A key that nobody else knows of: it stands for no device and signs nothing.
    let mut seed = [0; 32];
    entropy.fill(&mut seed);
    let mut keys = Keys { ring, device: DeviceKey::from_seed(&seed) };
    let mut index = Index::temporary()?;
    observer.phase(Phase::Learn, None, None);
    let learned = learn(&mut index, &*store, &mut keys, PLACE, observer)?;
    if learned.is_unreadable {
        return Err(SyncError::NoBase);
    }
    if let Some(key) = learned.lacking {
        let members = crate::members::load(&index)?;
        let by = members.name(&key.by.device).unwrap_or("another device").to_owned();
        return Err(SyncError::LeftOut { by });
    }
    if let Some(at) = at {
        index = index_at(&index, &*store, &keys, at)?;
    }
    observer.phase(Phase::Apply, Some(index.touched_count()?), None);
    let rules = IgnoreRules::none();
    // Applying stages what it makes where a replica would.
    let staging = RelPath::new(MARKER_DIR.as_bytes()).expect("a sound path");
    to.mkdir(&staging, 0o700).map_err(|source| SyncError::Disk { path: staging.clone(), source })?;
    let received = apply_all(&*to, &mut index, &*store, &keys, &rules, settings, clock, observer);
    let removed = remove_tree(&*to, &staging);
    let received = received?;
    removed.map_err(|(path, source)| SyncError::Disk { path, source })?;
    Ok(received)
}

/// Applies until nothing more comes of it: what waited for another object may be possible now.
#[expect(clippy::too_many_arguments, reason = "as above")]
fn apply_all(
    fs: &dyn Fs,
    index: &mut Index,
    store: &dyn Store,
    keys: &Keys,
    rules: &IgnoreRules,
    settings: &Settings,
    clock: &dyn Clock,
    observer: &mut dyn Observer,
) -> Result<Received, SyncError> {
    let mut received = Received::default();
    apply::recover_staging(fs, index, clock.now_ms().saturating_mul(1_000_000))?;
    loop {
        let before = index.touched_count()?;
        let now_ms = clock.now_ms();
        let step = Apply {
            fs,
            index,
            store,
            keys,
            rules,
            threads: settings.threads,
            now_ns: now_ms.saturating_mul(1_000_000),
            now_ms,
            limits: Limits::default(),
        };
        let more = apply::apply(step, observer)?;
        received.created += more.created;
        received.edited += more.edited;
        received.moved += more.moved;
        received.deleted += more.deleted;
        received.attributes += more.attributes;
        received.bytes_written += more.bytes_written;
        received.waiting = more.waiting;
        if more.waiting == 0 || index.touched_count()? >= before {
            return Ok(received);
        }
    }
}

/// Removes a directory with all that is in it; one that is not there is removed already.
fn remove_tree(fs: &dyn Fs, directory: &RelPath) -> Result<(), (RelPath, std::io::Error)> {
    let failed = |source| (directory.clone(), source);
    let entries = match fs.read_dir(directory) {
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => return Ok(()),
        entries => entries.map_err(failed)?,
    };
    for entry in entries {
        let Some(path) = packetboat_replica::fs::entry_path(directory, &entry.name) else { continue };
        let is_directory = entry.stat.is_ok_and(|stat| stat.kind == FileKind::Directory);
        if is_directory {
            remove_tree(fs, &path)?;
        } else {
            fs.unlink(&path).map_err(|source| (path.clone(), source))?;
        }
    }
    fs.rmdir(directory).map_err(failed)
}

/// What the index calls the intermediary while it lasts.
const PLACE: &str = "restored from";

#[cfg(test)]
mod tests;
