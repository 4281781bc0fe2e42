//! Which vaults this device carries, and where their intermediaries are: `carried.json`.
//!
//! The file is written by `packetboat carry` and read again by the daemon whenever something is asked, so that neither
//! needs to tell the other. Paths that are not UTF-8 cannot be carried; the command says so.

use std::path::{Path, PathBuf};

use packetboat_core::ids::VaultId;
use serde::{Deserialize, Serialize};

use crate::files::{self, FileError};

/// The vaults that a device carries.
#[derive(Clone, PartialEq, Eq, Default, Debug)]
pub struct Places(Vec<(VaultId, PathBuf)>);

#[derive(Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct File {
    schema: u32,
    vaults: Vec<Entry>,
}

#[derive(Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct Entry {
    vault: String,
    place: PathBuf,
}

impl Places {
    /// Reads the file; none are carried where there is none.
    pub fn read(path: &Path) -> Result<Self, FileError> {
        let Some(file) = files::read_json::<File>(path)? else { return Ok(Self::default()) };
        let damaged = || FileError::damaged(path);
        if file.schema != SCHEMA {
            return Err(damaged());
        }
        let entry = |entry: Entry| Some((VaultId::from_hex(&entry.vault)?, entry.place));
        file.vaults.into_iter().map(entry).collect::<Option<_>>().map(Self).ok_or_else(damaged)
    }

    /// Writes the file, durably.
    pub fn write(&self, path: &Path) -> Result<(), FileError> {
        let entry = |(vault, place): &(VaultId, PathBuf)| Entry { vault: vault.to_string(), place: place.clone() };
        let file = File { schema: SCHEMA, vaults: self.0.iter().map(entry).collect() };
        files::write_json(path, &file)
    }

    /// The vaults and their places, in the order in which they were added.
    pub fn iter(&self) -> impl Iterator<Item = (VaultId, &Path)> {
        self.0.iter().map(|(vault, place)| (*vault, place.as_path()))
    }

    /// Where a vault's intermediary is.
    pub fn of(&self, vault: VaultId) -> Option<&Path> {
        self.iter().find(|(other, _)| *other == vault).map(|(_, place)| place)
    }

    /// Carries a vault, or carries it from another place.
    pub fn add(&mut self, vault: VaultId, place: PathBuf) {
        match self.0.iter_mut().find(|(other, _)| *other == vault) {
            Some(entry) => entry.1 = place,
            None => self.0.push((vault, place)),
        }
    }

    /// Carries a vault no longer; whether it was.
    pub fn remove(&mut self, vault: VaultId) -> bool {
        let before = self.0.len();
        self.0.retain(|(other, _)| *other != vault);
        self.0.len() != before
    }
}

const SCHEMA: u32 = 1;

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn places_are_remembered_and_damage_is_seen() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("carried.json");
        let mut places = Places::read(&path).unwrap();
        assert_eq!(places, Places::default());
        let (one, two) = (VaultId([1; 16]), VaultId([2; 16]));
        places.add(one, "/mnt/a".into());
        places.add(two, "/mnt/b".into());
        places.add(one, "/mnt/c".into());
        places.write(&path).unwrap();
        let read = Places::read(&path).unwrap();
        assert_eq!(read.of(one), Some(Path::new("/mnt/c")));
        assert!(places.remove(two) && !places.remove(two));
        for damaged in ["", "{}", r#"{"schema":2,"vaults":[]}"#, r#"{"schema":1,"vaults":[{"vault":"x","place":"/"}]}"#]
        {
            std::fs::write(&path, damaged).unwrap();
            assert!(matches!(Places::read(&path), Err(FileError::Damaged { .. })), "{damaged:?}");
        }
    }
}
