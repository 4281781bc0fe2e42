//! Why a round ended early, by what its caller can do.

use std::io;

use packetboat_core::name::RelPath;
use packetboat_core::packet::PacketError;
use packetboat_core::store::StoreError;
use packetboat_replica::index::IndexError;
use packetboat_storage::pack::PackWriteError;
use thiserror::Error;

use crate::scan::ScanError;

/// Why a round could not be finished. Whatever was done before stays good; the next round goes on from there.
#[derive(Debug, Error)]
pub enum SyncError {
    /// The intermediary.
    #[error(transparent)]
    Store(#[from] StoreError),
    /// The index.
    #[error(transparent)]
    Index(#[from] IndexError),
    /// Reading the folder.
    #[error(transparent)]
    Scan(#[from] ScanError),
    /// The disk that holds the folder is full.
    #[error("the disk that holds the folder is full")]
    DiskFull,
    /// The folder cannot be written to.
    #[error("cannot write to {path} in the folder")]
    Disk {
        /// Where.
        path: RelPath,
        /// The system's reason.
        #[source]
        source: io::Error,
    },
    /// The file with the vault's ignore rules cannot be read: without it, what it ignores would be published.
    #[error("cannot use .packetboatignore")]
    IgnoreFile {
        /// The system's reason.
        #[source]
        source: io::Error,
    },
    /// The index holds something that cannot be read.
    #[error("the index is damaged: {what}")]
    DamagedIndex {
        /// What cannot be read.
        what: &'static str,
    },
    /// A tip or checkpoint of this device's own could not be made.
    #[error("cannot make a tip")]
    Signed(#[from] packetboat_core::signed::SignedError),
    /// A packet of this device's own could not be made.
    #[error("cannot make a packet")]
    Packet(#[from] PacketError),
    /// A pack could not be made.
    #[error("cannot make a pack")]
    Pack(#[from] PackWriteError),
    /// Most of the folder is gone.
    #[error("{gone} of {known} files are gone from the folder")]
    ManyGone {
        /// How many would be deleted.
        gone: u64,
        /// How many were there.
        known: u64,
    },
    /// The folder is not the one it was: its marker is missing.
    #[error("the folder is empty or another one: its marker is missing")]
    NotTheFolder,
    /// The name has no character that can be shown.
    #[error("a device's name needs at least one character")]
    DeviceName,
    /// This device was revoked.
    #[error("this device was revoked by {by}")]
    Revoked {
        /// The name of the device that revoked it.
        by: String,
    },
    /// The vault's key was renewed, and this device was not given the new one.
    #[error("{by} renewed the vault's key and did not give it to this device")]
    LeftOut {
        /// The name of the device that renewed it.
        by: String,
    },
    /// A directory that was to be filled holds something.
    #[error("the directory is not empty")]
    NotEmpty,
    /// A point in history was asked for that is not known.
    #[error("packet {packet} is not known")]
    NoSuchPacket {
        /// The packet.
        packet: packetboat_core::ids::Dot,
    },
    /// What lies at the intermediary in a packet's place is another packet.
    #[error("packet {packet} at the intermediary is not the one that was learned")]
    OtherPacket {
        /// The packet.
        packet: packetboat_core::ids::Dot,
    },
    /// Vault, record and disk contradict each other: a bug, or a disk that lies.
    #[error("the check after the round found that {what}")]
    Inconsistent {
        /// The first finding.
        what: String,
        /// All findings, for whoever looks for the cause.
        evidence: String,
    },
    /// The vault's history begins later than what was asked for.
    #[error("the vault's history does not reach back that far: what is older was let go")]
    HistoryEnds,
    /// The checkpoint at which history begins cannot be read.
    #[error("the checkpoint at which the vault's history begins cannot be read")]
    NoBase,
    /// The user asked to stop.
    #[error("interrupted")]
    Interrupted,
}

/// Why a question about the vault has no answer, or what was asked for was not done.
#[derive(Debug, Error)]
pub enum QueryError {
    /// As for a round.
    #[error(transparent)]
    Sync(#[from] SyncError),
    /// The intermediary.
    #[error(transparent)]
    Store(#[from] StoreError),
    /// The index.
    #[error(transparent)]
    Index(#[from] IndexError),
    /// Nothing stands or ever stood there.
    #[error("{path} is not in the vault")]
    NotFound {
        /// The path asked for.
        path: RelPath,
    },
    /// It was deleted.
    #[error("{} was deleted", .0.path)]
    Deleted(Box<Deletion>),
    /// What stood there has another place now.
    #[error("{path} is called {now} now")]
    ElsewhereNow {
        /// The path asked for.
        path: RelPath,
        /// Where it stands.
        now: RelPath,
    },
    /// It was not there at that time.
    #[error("{path} was not in the vault then")]
    NotThen {
        /// The path asked for.
        path: RelPath,
    },
    /// A directory has no content of its own.
    #[error("{path} is a directory")]
    IsDirectory {
        /// The path asked for.
        path: RelPath,
    },
    /// A part of a content cannot be had.
    #[error("the content of {path} cannot be read: {reason}")]
    ContentMissing {
        /// The path asked for.
        path: RelPath,
        /// What is missing or damaged.
        reason: String,
    },
    /// Nothing is called that.
    #[error("no packet is called {text:?}")]
    NoSuchPacket {
        /// What was asked for.
        text: String,
    },
    /// Several packets are called that.
    #[error("more than one packet is called {text:?}")]
    SeveralPackets {
        /// What was asked for.
        text: String,
    },
    /// There is no conflict there.
    #[error("{path} is not in a conflict")]
    NoConflict {
        /// The path asked for.
        path: RelPath,
    },
    /// Keeping the file would remove a directory of its name with all that it holds.
    #[error("a directory stands at {path}: keep both, or remove it by hand")]
    DirectoryInTheWay {
        /// The directory.
        path: RelPath,
    },
    /// Nothing that this device published changed files.
    #[error("this device has published nothing that could be undone")]
    NothingToUndo,
    /// The sides of a conflict cannot be made one.
    #[error("{path} cannot be merged: {reason}")]
    NotMergeable {
        /// The path asked for.
        path: RelPath,
        /// Why.
        reason: String,
    },
    /// The content could not be handed on.
    #[error("cannot write the content")]
    Output(#[source] io::Error),
}

/// What is known of something that was deleted.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Deletion {
    /// The path asked for.
    pub path: RelPath,
    /// Who deleted it, where that is known.
    pub by: Option<String>,
    /// When, by that device's clock, in milliseconds since 1970 UTC, where that is known.
    pub time: Option<i64>,
    /// Where it stood as of the packet of its last content, and that packet, where it is a file or symlink.
    pub last: Option<(RelPath, packetboat_core::ids::Dot)>,
}

/// An error with its causes, in one line.
pub fn chain(error: &dyn std::error::Error) -> String {
    let mut text = error.to_string();
    let mut cause = error.source();
    while let Some(error) = cause {
        let next = error.to_string();
        if !text.ends_with(&next) {
            text = format!("{text}: {next}");
        }
        cause = error.source();
    }
    text
}
