//! The registry: which folders of this user are replicas, of which vault, and through which intermediary.
//!
//! It is how an empty mount, another disk, a moved folder and a copied one are told apart ([`crate::recognise`]).
//! It is a file of JSON, replaced as a whole under a lock; paths that are not UTF-8 are written as their bytes.

use std::fs::OpenOptions;
use std::io;
use std::os::unix::ffi::{OsStrExt, OsStringExt};
use std::os::unix::fs::OpenOptionsExt;
use std::path::{Path, PathBuf};

use packetboat_core::hex;
use packetboat_core::ids::VaultId;
use rustix::fs::FlockOperation;
use rustix::io::retry_on_intr;
use serde::{Deserialize, Deserializer, Serialize, Serializer};

use crate::failure::Failure;
use crate::state::{ReplicaId, StateDir, write_whole};
use crate::text;

/// All replicas of this user on this computer.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Registry {
    schema: u32,
    replicas: Vec<Entry>,
}

/// One replica.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Entry {
    /// The id that the folder's marker holds, too.
    pub(crate) replica: ReplicaId,
    /// Where the folder was last seen.
    #[serde(serialize_with = "write_path", deserialize_with = "read_path")]
    pub(crate) folder: PathBuf,
    /// The file system and inode that it had there.
    pub(crate) device: u64,
    pub(crate) inode: u64,
    /// The vault.
    #[serde(serialize_with = "write_vault", deserialize_with = "read_vault")]
    pub(crate) vault: VaultId,
    /// The intermediary.
    pub(crate) intermediary: Intermediary,
    /// When the folder was bound, in milliseconds since 1970 UTC.
    pub(crate) created: i64,
}

/// Where an intermediary is.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Intermediary {
    /// As the user wrote it.
    #[serde(serialize_with = "write_path", deserialize_with = "read_path")]
    pub(crate) given: PathBuf,
    /// As the system knows it.
    #[serde(serialize_with = "write_path", deserialize_with = "read_path")]
    pub(crate) canonical: PathBuf,
}

impl Registry {
    /// Reads the registry; a missing one is empty.
    pub(crate) fn read(state: &StateDir) -> Result<Self, Failure> {
        let path = state.registry();
        let failed = || Failure::new(format!("cannot read the registry {}", text::path(&path)));
        let bytes = match std::fs::read(&path) {
            Ok(bytes) => bytes,
            Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(Self::default()),
            Err(error) => {
                return Err(failed().because(&error).hint(
                    "it says which folders are synchronised: make it a file that you may read, or let \
                     PACKETBOAT_STATE_DIR name another directory for state",
                ));
            }
        };
        let schema = serde_json::from_slice::<Schema>(&bytes).map(|schema| schema.schema);
        if schema.is_ok_and(|schema| schema > SCHEMA) {
            return Err(failed().hint("it was written by a newer packetboat: use that one"));
        }
        serde_json::from_slice(&bytes).map_err(|error| {
            failed().because(&error).hint(
                "move it out of the way and run `packetboat sync FOLDER INTERMEDIARY` for each folder: they go on as \
                 new devices, and no file is touched",
            )
        })
    }

    /// Changes the registry; what others change meanwhile waits.
    pub(crate) fn update(state: &StateDir, change: impl FnOnce(&mut Self)) -> Result<(), Failure> {
        let path = state.registry();
        let failed = |error: io::Error| {
            Failure::new(format!("cannot write the registry {}", text::path(&path)))
                .because(&error)
                .hint("look at the room on that disk and at who owns that directory, and run again; nothing was lost")
        };
        let lock = OpenOptions::new()
            .write(true)
            .create(true)
            .truncate(false)
            .mode(0o600)
            .open(state.root().join("registry.lock"))
            .map_err(failed)?;
        retry_on_intr(|| rustix::fs::flock(&lock, FlockOperation::LockExclusive))
            .map_err(|error| failed(error.into()))?;
        let mut registry = Self::read(state)?;
        change(&mut registry);
        let mut bytes = serde_json::to_vec_pretty(&registry).map_err(|error| failed(error.into()))?;
        bytes.push(b'\n');
        write_whole(&path, &bytes).map_err(failed)
    }

    /// The replica of this id.
    pub(crate) fn by_id(&self, id: &ReplicaId) -> Option<&Entry> {
        self.replicas.iter().find(|entry| entry.replica == *id)
    }

    /// The replica whose folder was last seen at this path.
    pub(crate) fn at(&self, folder: &Path) -> Option<&Entry> {
        self.replicas.iter().find(|entry| entry.folder == folder)
    }

    /// All replicas.
    pub(crate) fn entries(&self) -> &[Entry] {
        &self.replicas
    }

    /// Puts a replica in the place of one of its id, and of whatever was at its path before.
    pub(crate) fn put(&mut self, entry: Entry) {
        self.replicas.retain(|other| other.replica != entry.replica && other.folder != entry.folder);
        self.replicas.push(entry);
    }
}

impl Default for Registry {
    fn default() -> Self {
        Self { schema: SCHEMA, replicas: Vec::new() }
    }
}

#[derive(Deserialize)]
struct Schema {
    schema: u32,
}

#[derive(Serialize, Deserialize)]
#[serde(untagged)]
enum PathForm {
    Text(String),
    Bytes { bytes: String },
}

fn write_path<S: Serializer>(path: &Path, serializer: S) -> Result<S::Ok, S::Error> {
    let form = match path.to_str() {
        Some(text) => PathForm::Text(text.to_owned()),
        None => PathForm::Bytes { bytes: hex::encode(path.as_os_str().as_bytes()) },
    };
    form.serialize(serializer)
}

fn read_path<'de, D: Deserializer<'de>>(deserializer: D) -> Result<PathBuf, D::Error> {
    match PathForm::deserialize(deserializer)? {
        PathForm::Text(text) => Ok(text.into()),
        PathForm::Bytes { bytes } => text::unhex(&bytes)
            .map(|bytes| std::ffi::OsString::from_vec(bytes).into())
            .ok_or_else(|| serde::de::Error::custom("a path's bytes are not hexadecimal")),
    }
}

fn write_vault<S: Serializer>(vault: &VaultId, serializer: S) -> Result<S::Ok, S::Error> {
    serializer.collect_str(vault)
}

fn read_vault<'de, D: Deserializer<'de>>(deserializer: D) -> Result<VaultId, D::Error> {
    VaultId::from_hex(&String::deserialize(deserializer)?).ok_or_else(|| serde::de::Error::custom("not a vault's id"))
}

const SCHEMA: u32 = 1;

#[cfg(test)]
pub(crate) mod tests {
    use std::ffi::OsString;

    use super::*;

    /// An entry whose id is made of this digit.
    pub(crate) fn entry(digit: char, folder: &str, inode: u64) -> Entry {
        let place = PathBuf::from("/mnt/stick/vault");
        Entry {
            replica: ReplicaId::parse(&digit.to_string().repeat(32)).unwrap(),
            folder: folder.into(),
            device: 1,
            inode,
            vault: VaultId([7; 16]),
            intermediary: Intermediary { given: place.clone(), canonical: place },
            created: 0,
        }
    }

    fn state() -> (tempfile::TempDir, StateDir) {
        let directory = tempfile::tempdir().unwrap();
        let root = OsString::from(directory.path());
        let state = StateDir::locate(|name| (name == "PACKETBOAT_STATE_DIR").then(|| root.clone())).unwrap();
        state.prepare().unwrap();
        (directory, state)
    }

    #[test]
    fn entries_are_read_as_they_were_written() {
        let (_directory, state) = state();
        let mut odd = entry('b', "/x", 2);
        odd.folder = OsString::from_vec(b"/caf\xe9".to_vec()).into();
        Registry::update(&state, |registry| registry.put(entry('a', "/a", 1))).unwrap();
        Registry::update(&state, |registry| registry.put(odd.clone())).unwrap();
        let registry = Registry::read(&state).unwrap();
        assert_eq!(registry.entries(), [entry('a', "/a", 1), odd.clone()]);
        assert_eq!(registry.at(&odd.folder), Some(&odd));
    }

    #[test]
    fn a_newer_or_damaged_registry_is_not_taken_for_an_empty_one() {
        let (_directory, state) = state();
        for text in ["", "{}", r#"{"schema":2,"replicas":0}"#, r#"{"schema":1,"replicas":[{}]}"#] {
            std::fs::write(state.registry(), text).unwrap();
            assert!(Registry::read(&state).is_err(), "{text:?}");
            assert!(Registry::update(&state, |_| {}).is_err(), "{text:?}");
        }
    }

    #[test]
    fn concurrent_updates_are_all_kept() {
        let (_directory, state) = state();
        std::thread::scope(|scope| {
            for digit in ['1', '2', '3', '4'] {
                let state = &state;
                scope.spawn(move || {
                    Registry::update(state, |registry| registry.put(entry(digit, &format!("/{digit}"), 1))).unwrap();
                });
            }
        });
        assert_eq!(Registry::read(&state).unwrap().entries().len(), 4);
    }
}
