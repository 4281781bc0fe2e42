//! Which ignore rules hold in a round.
//!
//! They stand in the vault's `.packetboatignore` on this disk. Where that file was never here, as in the round in which
//! a device joins, the vault's own version holds, or what it ignores would be published before it came.
//!
//! Where it was here and is gone, or is empty and was not, its last version holds for one round, and the round leaves the
//! file itself alone: an editor that saves by renaming or truncating leaves such a moment, and a round in that moment
//! would publish everything that is ignored. Only if the next round finds it so too is it taken as meant.
//!
//! Rules that cannot be read are never taken for none: the round stops.

use std::io;

use packetboat_core::content::Content;
use packetboat_core::ids::ItemId;
use packetboat_core::local::{DirId, EntryState, LocalEntry, LocalRead};
use packetboat_core::name::{Name, RelPath};
use packetboat_core::plan::HistoryRead;
use packetboat_core::view::Viewer;
use packetboat_replica::fs::{FileKind, Fs};

use crate::content_reader::{ContentReader, ReadError};
use crate::error::SyncError;
use crate::ignore_rules::{BadLine, IGNORE_FILE, IgnoreRules};
use crate::ports::{Note, Observer};
use crate::replica::Replica;

impl Replica {
    /// The rules of this round.
    pub(crate) fn rules(&self, observer: &mut dyn Observer) -> Result<IgnoreRules, SyncError> {
        let (vault, awaited) = self.vault_rules()?;
        let overlay = &self.parts.settings.ignore_overlay;
        let rules = IgnoreRules::new(&String::from_utf8_lossy(&vault), overlay);
        let (rules, bad) = rules.map_err(|error| unreadable(io::Error::other(error)))?;
        for line in bad {
            observer.note(Note::Warning { text: warning(&line) });
        }
        Ok(if awaited { rules.while_awaited() } else { rules })
    }

    /// Notes whether this round waits for its ignore file; a next one that finds the same waits no more.
    pub(crate) fn note_rules(&mut self, rules: &IgnoreRules) -> Result<(), SyncError> {
        let awaits = rules.awaits(true, IGNORE_FILE.as_bytes());
        let noted = self.parts.index.meta(AWAITED)?.is_some();
        let gone_still = noted && !awaits && self.is_gone_or_empty()?;
        if noted != (awaits || gone_still) {
            self.parts.index.set_meta(AWAITED, awaits.then_some(&[]))?;
        }
        Ok(())
    }

    /// The text of the vault's rules, and whether it is that of a file that is gone or empty for the first time.
    fn vault_rules(&self) -> Result<(Vec<u8>, bool), SyncError> {
        let entry = self.parts.index.entry_at(DirId::ROOT, &file_name())?;
        let text = match read_small(&*self.parts.fs, &file_path()) {
            Ok(text) if !text.is_empty() => return Ok((text, false)),
            Ok(text) => Some(text),
            Err(error) if error.kind() == io::ErrorKind::NotFound => None,
            Err(source) => return Err(unreadable(source)),
        };
        match (entry, text) {
            (Some(entry), _) if self.parts.index.meta(AWAITED)?.is_none() => {
                let last = self.last_rules(&entry)?;
                let awaited = !last.is_empty();
                Ok((last, awaited))
            }
            (None, None) => Ok((self.rules_to_come()?, false)),
            _ => Ok((Vec::new(), false)),
        }
    }

    /// The rules that stood in the file when disk and vault last agreed on it.
    fn last_rules(&self, entry: &LocalEntry) -> Result<Vec<u8>, SyncError> {
        let Some(dot) = entry.seen.heads.first() else { return Ok(Vec::new()) };
        if entry.own_dir.is_some() || entry.state == EntryState::Frozen {
            return Ok(Vec::new());
        }
        match self.parts.index.version(entry.seen.item, dot)?.map(|head| head.content) {
            Some(content) => self.rules_in(&content),
            None => Ok(Vec::new()),
        }
    }

    /// The vault's rules where they were never on this disk.
    fn rules_to_come(&self) -> Result<Vec<u8>, SyncError> {
        let shown = Viewer::new(&self.parts.index).at(ItemId::ROOT, &file_name())?;
        shown.map_or(Ok(Vec::new()), |shown| self.rules_in(&shown.content))
    }

    fn rules_in(&self, content: &Content) -> Result<Vec<u8>, SyncError> {
        let Content::File(file) = content else { return Ok(Vec::new()) };
        if file.size > MAX_RULES {
            return Err(unreadable(too_large()));
        }
        let parts = &self.parts;
        let mut text = Vec::new();
        let mut reader = ContentReader::new(&parts.index, &*parts.store, &self.keys.ring, parts.settings.threads);
        match reader.read(file, &mut text) {
            Ok(()) => Ok(text),
            Err(ReadError::Missing(reason)) => Err(unreadable(io::Error::other(reason))),
            Err(ReadError::Output(source)) => Err(unreadable(source)),
            Err(ReadError::Sync(error)) => Err(error),
        }
    }

    fn is_gone_or_empty(&self) -> Result<bool, SyncError> {
        match self.parts.fs.lstat(&file_path()) {
            Ok(stat) => Ok(stat.kind == FileKind::File && stat.size == 0),
            Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(true),
            Err(source) => Err(unreadable(source)),
        }
    }
}

fn warning(line: &BadLine) -> String {
    let BadLine { overlay, number, text, reason } = line;
    let place = if *overlay { "this device's own rules" } else { IGNORE_FILE };
    format!("line {number} of {place} is no pattern and ignores nothing: {text:?} ({reason})")
}

fn file_name() -> Name {
    Name::new(IGNORE_FILE.as_bytes()).expect("a sound name")
}

fn file_path() -> RelPath {
    RelPath::root().join(&file_name())
}

/// Reads the file of rules, whole.
pub(crate) fn read_small(fs: &dyn Fs, path: &RelPath) -> io::Result<Vec<u8>> {
    let mut file = fs.open(path).map_err(|error| match fs.lstat(path) {
        Ok(stat) if stat.kind == FileKind::Symlink => {
            io::Error::other("it is a symbolic link, and those are not followed")
        }
        _ => error,
    })?;
    // One byte more than is allowed, to see that it is too long.
    let mut bytes = vec![0; MAX_RULES as usize + 1];
    let mut filled = 0;
    while filled < bytes.len() {
        match file.read(&mut bytes[filled..])? {
            0 => break,
            read => filled += read,
        }
    }
    if filled > MAX_RULES as usize {
        return Err(too_large());
    }
    bytes.truncate(filled);
    Ok(bytes)
}

fn too_large() -> io::Error {
    io::Error::other("it is larger than 1 MiB")
}

fn unreadable(source: io::Error) -> SyncError {
    SyncError::IgnoreFile { source }
}

/// Longest file of ignore rules, in bytes.
const MAX_RULES: u64 = 1024 * 1024;
/// The entry of this replica's index that says that the ignore file was found gone or empty.
const AWAITED: &str = "ignore file awaited";
