//! The marker within a synchronised folder, by which it is known again: `FOLDER/.packetboat/replica`.
//!
//! ```text
//! packetboat folder 1
//! replica <32 hexadecimal digits>
//! vault <32 hexadecimal digits>
//! ```
//!
//! A mount point without its disk has none, and a copy of the folder has the same one as its original.
//! It is never synchronised, and nothing but these lines and staged files lies beside it.

use std::fs::{self, DirBuilder, OpenOptions};
use std::io::{self, Read};
use std::os::unix::fs::{DirBuilderExt, OpenOptionsExt};
use std::path::{Path, PathBuf};

use packetboat_core::ids::VaultId;
use packetboat_engine::paths::MARKER_DIR;
use rustix::fs::OFlags;

use crate::failure::Failure;
use crate::state::{ReplicaId, write_whole};
use crate::text;

/// What a folder's marker says.
#[derive(Clone, PartialEq, Eq, Debug)]
pub(crate) struct FolderMarker {
    /// The replica that the folder is.
    pub(crate) replica: ReplicaId,
    /// The vault that it is bound to.
    pub(crate) vault: VaultId,
}

impl FolderMarker {
    /// Reads a folder's marker; `None` where there is none.
    pub(crate) fn read(folder: &Path) -> Result<Option<Self>, Failure> {
        let path = file(folder);
        let failed = |error: &io::Error| {
            Failure::new(format!("cannot read the folder's marker {}", text::path(&path)))
                .because(error)
                .hint("look at who owns the folder and its `.packetboat`, and what their permissions are")
        };
        let flags = (OFlags::NOFOLLOW | OFlags::NONBLOCK).bits() as i32;
        let opened = match OpenOptions::new().read(true).custom_flags(flags).open(&path) {
            Ok(opened) => opened,
            Err(error) if matches!(error.kind(), io::ErrorKind::NotFound | io::ErrorKind::NotADirectory) => {
                return Ok(None);
            }
            Err(error) => return Err(failed(&error)),
        };
        let mut text = String::new();
        opened.take(MAX_BYTES).read_to_string(&mut text).map_err(|error| failed(&error))?;
        match text.lines().next().and_then(|line| line.strip_prefix("packetboat folder ")) {
            Some("1") => {}
            Some(_) => {
                return Err(Failure::new(format!("{} was made by a newer packetboat", text::path(&path)))
                    .hint("use the newer packetboat that was used with this folder before"));
            }
            None => return Err(damaged(&path)),
        }
        Self::decode(&text).map(Some).ok_or_else(|| damaged(&path))
    }

    /// Writes the folder's marker, durably.
    pub(crate) fn write(&self, folder: &Path) -> Result<(), Failure> {
        prepare(folder)?;
        let path = file(folder);
        write_whole(&path, self.encode().as_bytes()).map_err(|error| cannot_write(&path, &error))
    }

    fn encode(&self) -> String {
        format!("packetboat folder 1\nreplica {}\nvault {}\n", self.replica, self.vault)
    }

    fn decode(text: &str) -> Option<Self> {
        let field = |key: &str| text.lines().skip(1).find_map(|line| line.strip_prefix(key)?.strip_prefix(' '));
        Some(Self { replica: ReplicaId::parse(field("replica")?)?, vault: VaultId::from_hex(field("vault")?)? })
    }
}

/// Makes the directory that the marker lies in; says whether it was missing.
///
/// This comes before anything is made elsewhere, so that a folder that cannot be written to leaves no vault behind.
pub(crate) fn prepare(folder: &Path) -> Result<bool, Failure> {
    let path = folder.join(MARKER_DIR);
    match DirBuilder::new().mode(0o700).create(&path) {
        Ok(()) => Ok(true),
        Err(error) if error.kind() == io::ErrorKind::AlreadyExists => match fs::symlink_metadata(&path) {
            Ok(metadata) if metadata.is_dir() => Ok(false),
            _ => Err(Failure::new(format!("{} is not a directory", text::path(&path)))
                .hint("packetboat keeps its marker in a directory of this name: move what is there out of the way")),
        },
        Err(error) => Err(cannot_write(&path, &error)),
    }
}

/// Removes the directory again if nothing is in it.
pub(crate) fn withdraw(folder: &Path) {
    let _ = fs::remove_dir(folder.join(MARKER_DIR));
}

fn file(folder: &Path) -> PathBuf {
    folder.join(MARKER_DIR).join("replica")
}

fn damaged(path: &Path) -> Failure {
    Failure::new(format!("the folder's marker {} is damaged", text::path(path)))
        .hint("remove that file and run `packetboat sync FOLDER INTERMEDIARY --rebind`; no file of yours is touched")
}

fn cannot_write(path: &Path, error: &io::Error) -> Failure {
    Failure::new(format!("cannot write the folder's marker {}", text::path(path)))
        .because(error)
        .hint("packetboat must be able to write to the folder: look at its owner, permissions, free space and mount")
}

/// Far more than a marker has.
const MAX_BYTES: u64 = 4096;

#[cfg(test)]
mod tests {
    use super::*;

    fn marker() -> FolderMarker {
        FolderMarker { replica: ReplicaId::parse(&"ab".repeat(16)).unwrap(), vault: VaultId([7; 16]) }
    }

    #[test]
    fn a_marker_is_read_as_it_was_written() {
        let folder = tempfile::tempdir().unwrap();
        assert_eq!(FolderMarker::read(folder.path()).unwrap(), None);
        marker().write(folder.path()).unwrap();
        assert_eq!(FolderMarker::read(folder.path()).unwrap(), Some(marker()));
    }

    #[test]
    fn a_damaged_or_newer_marker_is_told_from_a_missing_one() {
        let folder = tempfile::tempdir().unwrap();
        prepare(folder.path()).unwrap();
        for text in ["", "rubbish", "packetboat folder 1\nreplica ../..\nvault 00\n", "packetboat folder 2\n"] {
            fs::write(file(folder.path()), text).unwrap();
            assert!(FolderMarker::read(folder.path()).is_err(), "{text:?}");
        }
    }

    #[test]
    fn a_file_in_the_directorys_place_is_refused() {
        let folder = tempfile::tempdir().unwrap();
        fs::write(folder.path().join(MARKER_DIR), "").unwrap();
        assert!(prepare(folder.path()).is_err());
        assert_eq!(FolderMarker::read(folder.path()).unwrap(), None);
    }
}
