//! The state directory: the registry of replicas, and for each replica its index, lock and ignore overlay.
//!
//! ```text
//! registry.json  registry.lock
//! replicas/<id>/index.db  lock  ignore
//! ```
//!
//! It holds keys, so only its owner may look into it. It is never within a synchronised folder's reach: where a folder
//! contains it, it is ignored there.

use std::ffi::OsString;
use std::fmt;
use std::fs::{self, DirBuilder, File};
use std::io::{self, Write};
use std::os::unix::fs::{DirBuilderExt, OpenOptionsExt};
use std::path::{Path, PathBuf};

use packetboat_core::hex;
use packetboat_engine::ports::Entropy;
use rustix::io::Errno;

use crate::failure::Failure;
use crate::registry::Entry;
use crate::text;

/// Where this user's replicas keep their state.
#[derive(Clone, Debug)]
pub(crate) struct StateDir {
    root: PathBuf,
}

impl StateDir {
    /// Finds the directory from the environment; makes nothing.
    pub(crate) fn locate(variable: impl Fn(&str) -> Option<OsString>) -> Result<Self, Failure> {
        let set = |name: &str| variable(name).filter(|value| !value.is_empty()).map(PathBuf::from);
        if let Some(root) = set("PACKETBOAT_STATE_DIR") {
            let root = std::path::absolute(root)?;
            return Ok(Self { root });
        }
        // The XDG specification has relative paths ignored.
        if let Some(base) = set("XDG_STATE_HOME").filter(|path| path.is_absolute()) {
            return Ok(Self { root: base.join("packetboat") });
        }
        match set("HOME").filter(|path| path.is_absolute()) {
            Some(home) => Ok(Self { root: home.join(".local/state/packetboat") }),
            None => Err(Failure::new("cannot tell where to keep state: HOME is not set")
                .hint("set PACKETBOAT_STATE_DIR to a directory of your own")),
        }
    }

    /// The directory itself, which may not be there yet.
    pub(crate) fn root(&self) -> &Path {
        &self.root
    }

    /// Makes the directory, for its owner alone.
    pub(crate) fn prepare(&self) -> Result<(), Failure> {
        let replicas = self.root.join("replicas");
        DirBuilder::new().recursive(true).mode(0o700).create(&replicas).map_err(|error| {
            Failure::new(format!("cannot make the state directory {}", text::path(&replicas)))
                .because(&error)
                .hint("set PACKETBOAT_STATE_DIR to a directory that you can write to")
        })
    }

    /// The registry's file.
    pub(crate) fn registry(&self) -> PathBuf {
        self.root.join("registry.json")
    }

    /// What belongs to one replica.
    pub(crate) fn replica(&self, id: &ReplicaId) -> ReplicaDir {
        ReplicaDir { path: self.root.join("replicas").join(&id.0) }
    }
}

/// Names a replica on this computer; random. It is no secret and no vault knows it.
#[derive(Clone, PartialEq, Eq, Hash, Debug, serde::Serialize, serde::Deserialize)]
#[serde(try_from = "String", into = "String")]
pub(crate) struct ReplicaId(String);

impl ReplicaId {
    /// A fresh one.
    pub(crate) fn random(entropy: &mut dyn Entropy) -> Self {
        let mut bytes = [0; 16];
        entropy.fill(&mut bytes);
        Self(hex::encode(&bytes))
    }

    /// Reads 32 lower-case hexadecimal digits. It becomes a directory's name, so nothing else will do.
    pub(crate) fn parse(text: &str) -> Option<Self> {
        let sound = text.len() == 32 && text.bytes().all(|b| matches!(b, b'0'..=b'9' | b'a'..=b'f'));
        sound.then(|| Self(text.to_owned()))
    }
}

impl fmt::Display for ReplicaId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

impl TryFrom<String> for ReplicaId {
    type Error = &'static str;

    fn try_from(text: String) -> Result<Self, Self::Error> {
        Self::parse(&text).ok_or("a replica's id has 32 hexadecimal digits")
    }
}

impl From<ReplicaId> for String {
    fn from(id: ReplicaId) -> Self {
        id.0
    }
}

/// The directory of one replica's state.
#[derive(Clone, Debug)]
pub(crate) struct ReplicaDir {
    path: PathBuf,
}

impl ReplicaDir {
    /// Makes it, for its owner alone.
    pub(crate) fn create(&self) -> Result<(), Failure> {
        DirBuilder::new().recursive(true).mode(0o700).create(&self.path).map_err(|error| {
            Failure::new(format!("cannot make {}", text::path(&self.path)))
                .because(&error)
                .hint("look who may write there, and whether its disk is full; nothing was begun")
        })
    }

    /// Removes it and all in it: only for one that no folder was bound to.
    pub(crate) fn discard(&self) {
        let _ = fs::remove_dir_all(&self.path);
    }

    /// What to do where the index cannot be used any more.
    pub(crate) fn give_up(&self, folder: &Path, entry: &Entry) -> String {
        let place = &entry.intermediary.canonical;
        format!(
            "move {} somewhere else and run `packetboat sync {} {}`: the folder goes on as a new device, and no file is \
             touched",
            text::path(&self.path),
            text::argument(folder),
            text::argument(place)
        )
    }

    /// The index.
    pub(crate) fn index(&self) -> PathBuf {
        self.path.join("index.db")
    }

    /// What waits on the companion; there only where something did.
    pub(crate) fn deposits(&self) -> PathBuf {
        self.path.join("deposits")
    }

    /// What the check after a round found last.
    pub(crate) fn evidence(&self) -> PathBuf {
        self.path.join("evidence.txt")
    }

    /// The lock that one process holds.
    pub(crate) fn lock(&self) -> PathBuf {
        self.path.join("lock")
    }

    /// This device's own ignore patterns.
    pub(crate) fn ignore(&self) -> PathBuf {
        self.path.join("ignore")
    }

    /// The text of this device's own ignore patterns; none is an empty text.
    pub(crate) fn read_ignore(&self) -> Result<String, Failure> {
        match fs::read_to_string(self.ignore()) {
            Ok(text) => Ok(text),
            Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(String::new()),
            Err(error) => Err(Failure::new(format!("cannot read {}", text::path(&self.ignore()))).because(&error)),
        }
    }
}

/// Replaces a file as a whole, durably: a crash leaves the old or the new.
pub(crate) fn write_whole(path: &Path, bytes: &[u8]) -> io::Result<()> {
    let directory = path.parent().unwrap_or(Path::new("/"));
    let mut name = path.file_name().unwrap_or_default().to_owned();
    name.push(format!(".new-{}", std::process::id()));
    let temporary = directory.join(name);
    let written = fs::OpenOptions::new()
        .write(true)
        .create(true)
        .truncate(true)
        .mode(0o600)
        .open(&temporary)
        .and_then(|mut file| file.write_all(bytes).and_then(|()| file.sync_all()))
        .and_then(|()| fs::rename(&temporary, path));
    if written.is_err() {
        let _ = fs::remove_file(&temporary);
    }
    written?;
    match File::open(directory)?.sync_all() {
        // Some network and FUSE file systems have no fsync of directories; the file itself is safe already.
        Err(error) if matches!(Errno::from_io_error(&error), Some(Errno::INVAL | Errno::OPNOTSUPP | Errno::BADF)) => {
            Ok(())
        }
        outcome => outcome,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn locate(variables: &[(&str, &str)]) -> Result<PathBuf, Failure> {
        let get = |name: &str| variables.iter().find(|(key, _)| *key == name).map(|(_, value)| OsString::from(value));
        StateDir::locate(get).map(|state| state.root)
    }

    #[test]
    fn the_environment_says_where_state_lies() {
        let home = ("HOME", "/home/a");
        assert_eq!(locate(&[home]).unwrap(), Path::new("/home/a/.local/state/packetboat"));
        assert_eq!(locate(&[home, ("XDG_STATE_HOME", "/s")]).unwrap(), Path::new("/s/packetboat"));
        assert_eq!(locate(&[home, ("XDG_STATE_HOME", "s")]).unwrap(), Path::new("/home/a/.local/state/packetboat"));
        let own = ("PACKETBOAT_STATE_DIR", "/own");
        assert_eq!(locate(&[home, ("XDG_STATE_HOME", "/s"), own]).unwrap(), Path::new("/own"));
        assert!(locate(&[("HOME", "")]).is_err());
    }

    #[test]
    fn a_replica_id_cannot_leave_its_directory() {
        for bad in ["", "..", "../../../../../../../../../../etcx", "0123456789ABCDEF0123456789ABCDEF"] {
            assert_eq!(ReplicaId::parse(bad), None, "{bad:?}");
        }
        assert!(ReplicaId::parse("0123456789abcdef0123456789abcdef").is_some());
    }
}
