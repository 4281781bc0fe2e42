//! Looks at the two places of a synchronisation, and refuses what cannot be meant.
//!
//! Nothing is made here: a mistyped place must not bring anything into being.

use std::error::Error;
use std::fs::{self, Metadata};
use std::io;
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};

use packetboat_core::checkpoint::CHECKPOINTS_FOLDER;
use packetboat_core::ids::VaultId;
use packetboat_core::marker::{MARKER_NAME, Marker, MarkerError};
use packetboat_core::packet::LANES_FOLDER;
use packetboat_core::tip::TIPS_FOLDER;
use packetboat_engine::JoinError;
use packetboat_engine::replica::Replica;
use packetboat_storage::folder::FolderStore;
use thiserror::Error;

use crate::failure::Failure;
use crate::text;

/// A directory on this computer that may not be there yet.
#[derive(Clone, PartialEq, Eq, Debug)]
pub(crate) struct Directory {
    /// As the user wrote it.
    pub(crate) given: PathBuf,
    /// As the system knows it.
    pub(crate) path: PathBuf,
    /// Its file system and inode, where it is there.
    pub(crate) inode: Option<(u64, u64)>,
    /// Whether the directory that it lies in is there.
    pub(crate) has_parent: bool,
}

impl Directory {
    /// Looks at a directory; `what` is what messages call it.
    pub(crate) fn look(given: &Path, what: &str) -> Result<Self, Failure> {
        let failed = |error: io::Error| {
            let hint = match error.kind() {
                io::ErrorKind::PermissionDenied => "look at who owns it and what its permissions are",
                _ => "is the path right, and is the disk mounted?",
            };
            Failure::new(format!("cannot look at the {what} {}", text::path(given))).because(&error).hint(hint)
        };
        if given.as_os_str().is_empty() {
            return Err(Failure::new(format!("the {what} has an empty path")));
        }
        match fs::metadata(given) {
            Ok(metadata) if metadata.is_dir() => {
                let path = given.canonicalize().map_err(failed)?;
                Ok(Self { given: given.to_owned(), path, inode: Some(inode(&metadata)), has_parent: true })
            }
            Ok(_) => Err(Failure::new(format!("the {what} {} is not a directory", text::path(given)))),
            Err(error) if error.kind() == io::ErrorKind::NotFound => Self::missing(given).map_err(failed),
            Err(error) if error.kind() == io::ErrorKind::NotADirectory => Err(Failure::new(format!(
                "the {what} {} lies beneath something that is not a directory",
                text::path(given)
            ))),
            Err(error) => Err(failed(error)),
        }
    }

    fn missing(given: &Path) -> io::Result<Self> {
        // A link that leads nowhere would make the directory appear at its far end.
        if fs::symlink_metadata(given).is_ok() {
            return Err(io::Error::new(io::ErrorKind::NotFound, "it is a symbolic link that leads nowhere"));
        }
        let absolute = std::path::absolute(given)?;
        let (Some(parent), Some(name)) = (absolute.parent(), absolute.file_name()) else {
            return Err(io::ErrorKind::NotFound.into());
        };
        let (parent, has_parent) = match parent.canonicalize() {
            Ok(parent) => (parent, true),
            Err(error) if error.kind() == io::ErrorKind::NotFound => (parent.to_owned(), false),
            Err(error) => return Err(error),
        };
        Ok(Self { given: given.to_owned(), path: parent.join(name), inode: None, has_parent })
    }

    /// Whether it is there.
    pub(crate) fn exists(&self) -> bool {
        self.inode.is_some()
    }

    /// The directory that it lies in.
    pub(crate) fn parent(&self) -> &Path {
        self.path.parent().unwrap_or(&self.path)
    }

    /// Makes the directory; the one it lies in is there.
    pub(crate) fn create(&mut self, what: &str) -> Result<(), Failure> {
        let failed = |error: io::Error| {
            Failure::new(format!("cannot make the {what} {}", text::path(&self.path)))
                .because(&error)
                .hint("look at the permissions, free space and mount of the directory that it is to lie in")
        };
        fs::create_dir(&self.path).map_err(failed)?;
        let metadata = fs::metadata(&self.path).map_err(failed)?;
        self.inode = Some(inode(&metadata));
        Ok(())
    }
}

/// The file system and inode of a file.
pub(crate) fn inode(metadata: &Metadata) -> (u64, u64) {
    (metadata.dev(), metadata.ino())
}

/// Whether `inner` lies within `outer`, or is it; a directory that is mounted at two places is recognised by its inode.
pub(crate) fn lies_within(inner: &Path, outer: &Path) -> bool {
    if inner.starts_with(outer) {
        return true;
    }
    let Ok(outer) = fs::metadata(outer) else { return false };
    inner.ancestors().any(|above| fs::metadata(above).is_ok_and(|metadata| inode(&metadata) == inode(&outer)))
}

/// Refuses a folder and an intermediary of which one lies within the other.
pub(crate) fn require_apart(folder: &Path, intermediary: &Path) -> Result<(), Failure> {
    let (inner, outer) = match (lies_within(intermediary, folder), lies_within(folder, intermediary)) {
        (false, false) => return Ok(()),
        (true, true) => {
            return Err(Failure::new(format!("the folder and the intermediary are the same: {}", text::path(folder)))
                .hint("choose another place for the vault, such as a folder on a stick or a share"));
        }
        (true, false) => ("intermediary", "folder"),
        (false, true) => ("folder", "intermediary"),
    };
    Err(Failure::new(format!("the {inner} lies within the {outer}"))
        .hint("the vault must lie outside the folder that it keeps, and the folder outside the vault"))
}

/// What lies at an intermediary.
#[derive(Debug)]
pub(crate) enum Found {
    /// A vault.
    Vault(Box<Marker>),
    /// An empty directory.
    Empty,
    /// A directory with other things in it.
    Other,
    /// No directory.
    Nothing,
}

/// Looks at an intermediary.
pub(crate) fn look_for_vault(place: &Directory) -> Result<Found, Failure> {
    if !place.exists() {
        return Ok(Found::Nothing);
    }
    let shown = text::path(&place.given);
    // A directory of the marker's name, such as a checkout of this program, is not a damaged vault.
    let has_marker = match fs::symlink_metadata(place.path.join(MARKER_NAME)) {
        Ok(metadata) => metadata.is_file(),
        Err(_) => false,
    };
    if has_marker {
        let marker = Replica::read_marker(&FolderStore::new(&place.path)).map_err(|error| {
            let failure = Failure::new(format!("cannot read the vault at {shown}")).because(&error);
            if lost_its_marker(&place.path) { failure.hint(LOST_MARKER) } else { failure }
        })?;
        if let Some(marker) = marker {
            return Ok(Found::Vault(Box::new(marker)));
        }
    }
    let cannot_list = |error: io::Error| {
        Failure::new(format!("cannot list the intermediary {shown}"))
            .because(&error)
            .hint("look at who owns it and what its permissions are")
    };
    for entry in fs::read_dir(&place.path).map_err(cannot_list)? {
        let name = entry.map_err(cannot_list)?.file_name();
        if !is_furniture(&name.to_string_lossy()) {
            return Ok(Found::Other);
        }
    }
    Ok(Found::Empty)
}

/// Why a vault cannot be reached where it was: what every command says of it.
#[derive(Clone, PartialEq, Eq, Debug, Error)]
pub(crate) enum NotHere {
    /// Nothing of a vault is there.
    #[error("the vault is not at {}", text::path(.0))]
    Nothing(PathBuf),
    /// Something else is.
    #[error("the vault at {} is another one", text::path(.0))]
    Another(PathBuf),
}

impl NotHere {
    /// What an error ends in, where it is this.
    pub(crate) fn behind<'a>(error: &'a (dyn Error + 'static)) -> Option<&'a Self> {
        let mut chain = std::iter::successors(Some(error), |&error| error.source());
        chain.find_map(|error| error.downcast_ref::<io::Error>()?.get_ref()?.downcast_ref())
    }

    /// What to do about it.
    pub(crate) fn hint(&self) -> &'static str {
        match self {
            Self::Nothing(_) => {
                "is the stick or share mounted? If the vault is somewhere else now, name that place: `packetboat sync \
                 FOLDER INTERMEDIARY`; if it is gone for good, add --rebind to begin another"
            }
            Self::Another(_) => {
                "is it the right stick or share? If the vault is somewhere else now, name that place: `packetboat sync \
                 FOLDER INTERMEDIARY`"
            }
        }
    }

    /// The failure of a command that needs the vault.
    pub(crate) fn failure(&self) -> Failure {
        Failure::new(self.to_string()).hint(self.hint())
    }
}

/// Looks whether a vault is where it was. It is, too, where it has lost its marker; whether it has, is the answer.
pub(crate) fn look_for_known_vault(place: &Path, vault: VaultId) -> Result<bool, NotHere> {
    match Directory::look(place, "intermediary").and_then(|place| look_for_vault(&place)) {
        Ok(Found::Vault(marker)) if marker.vault() == vault => Ok(false),
        Ok(Found::Vault(_)) => Err(NotHere::Another(place.to_owned())),
        _ if lost_its_marker(place) => Ok(true),
        _ => Err(NotHere::Nothing(place.to_owned())),
    }
}

/// What is said of a vault that has lost its marker, wherever that is noticed.
pub(crate) const NO_MARKER: &str = "the vault's marker is missing or damaged, and no other device can join";

/// What a device can do about it, which may hold a copy.
pub(crate) fn no_marker_advice(holds_marker: bool) -> &'static str {
    match holds_marker {
        true => "run `packetboat sync`, which puts back the copy that this device keeps",
        false => "run `packetboat key passphrase`, which writes it anew",
    }
}

/// What a user can do about a marker that is lost.
pub(crate) const LOST_MARKER: &str = "devices that are in the vault go on without its marker, the file `packetboat`, and put \
their copy of it back: run `packetboat sync` on one of them. `packetboat key passphrase` writes another";

/// Whether a vault lies there that has lost its marker, or of which the marker is damaged: devices that are in it need none.
///
/// An empty mount point has none of a vault's directories.
pub(crate) fn lost_its_marker(place: &Path) -> bool {
    let is_unreadable = match Replica::read_marker(&FolderStore::new(place)) {
        Ok(marker) => marker.is_none(),
        Err(JoinError::Marker(MarkerError::NewerFormat { .. })) => false,
        Err(error) => matches!(error, JoinError::Marker(_)),
    };
    let has_some = |folder: &&str| fs::read_dir(place.join(folder)).is_ok_and(|mut found| found.next().is_some());
    is_unreadable && [TIPS_FOLDER, LANES_FOLDER, CHECKPOINTS_FOLDER].iter().any(has_some)
}

/// Refuses an intermediary of a kind that there is no adapter for.
pub(crate) fn require_folder(given: &Path) -> Result<(), Failure> {
    match given.to_str().and_then(|text| text.split_once("://")) {
        Some((scheme, _)) if scheme.chars().all(|c| c.is_ascii_alphanumeric() || "+-.".contains(c)) => {
            Err(Failure::new(format!("packetboat has no adapter for {scheme}: addresses yet"))
                .hint("an intermediary is a folder for now: a stick, or a mounted share"))
        }
        _ => Ok(()),
    }
}

/// Whether a name is one that file systems, desktops and interrupted writes leave in empty directories.
fn is_furniture(name: &str) -> bool {
    const NAMES: [&str; 13] = [
        "lost+found",
        ".Trash",
        ".Trashes",
        ".fseventsd",
        ".Spotlight-V100",
        ".TemporaryItems",
        ".DS_Store",
        ".directory",
        "System Volume Information",
        "$RECYCLE.BIN",
        "desktop.ini",
        "Thumbs.db",
        ".snapshot",
    ];
    NAMES.contains(&name) || [".Trash-", ".tmp-", ".nfs", "._"].iter().any(|prefix| name.starts_with(prefix))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_systems_leave_behind_does_not_fill_a_directory() {
        for name in ["lost+found", ".Trash-1000", "System Volume Information", ".tmp-12-0"] {
            assert!(is_furniture(name), "{name}");
        }
        for name in ["lost", "notes.txt", ".git", "tips", "packetboat"] {
            assert!(!is_furniture(name), "{name}");
        }
    }

    #[test]
    fn only_addresses_are_taken_for_addresses() {
        for address in ["s3://bucket/x", "sftp://host/x", "webdav+https://host"] {
            assert!(require_folder(Path::new(address)).is_err(), "{address}");
        }
        for path in ["/mnt/stick", "a b://c", "s3:/bucket"] {
            assert!(require_folder(Path::new(path)).is_ok(), "{path}");
        }
    }

    #[test]
    fn one_place_within_the_other_is_refused_through_links_too() {
        let base = tempfile::tempdir().unwrap();
        let base = base.path().canonicalize().unwrap();
        fs::create_dir_all(base.join("a/b")).unwrap();
        std::os::unix::fs::symlink(base.join("a/b"), base.join("link")).unwrap();
        let link = Directory::look(&base.join("link"), "folder").unwrap().path;
        assert!(require_apart(&link, &base.join("a")).is_err());
        assert!(require_apart(&base.join("a"), &base.join("a/b/new")).is_err());
        assert!(require_apart(&base.join("a"), &base.join("a")).is_err());
        assert!(require_apart(&base.join("a"), &base.join("ab")).is_ok());
    }

    #[test]
    fn a_missing_directory_knows_whether_its_parent_is_there() {
        let base = tempfile::tempdir().unwrap();
        let near = Directory::look(&base.path().join("x"), "folder").unwrap();
        assert!(near.has_parent && !near.exists());
        assert!(!Directory::look(&base.path().join("x/y"), "folder").unwrap().has_parent);
        std::os::unix::fs::symlink("/nowhere", base.path().join("dangling")).unwrap();
        assert!(Directory::look(&base.path().join("dangling"), "folder").is_err());
        assert!(!base.path().join("x").exists());
    }
}
