//! What to do next, for each error that a user can do something about.

use std::error::Error;
use std::io;

use packetboat_core::marker::{MarkerError, UnlockError};
use packetboat_core::recovery::RecoveryTextError;
use packetboat_core::store::StoreError;
use packetboat_daemon::daemon::RunError;
use packetboat_engine::error::{QueryError, SyncError};
use packetboat_engine::scan::ScanError;
use packetboat_engine::{JoinError, OpenError, RemovalError};
use packetboat_replica::index::IndexError;
use packetboat_replica::lock::LockError;

use crate::places::NotHere;

/// The hint for the first error of a chain that has one.
pub(crate) fn hint(error: &(dyn Error + 'static)) -> Option<String> {
    chain(error).find_map(own_hint).map(str::to_owned)
}

/// Whether an error can only come from a bug of ours.
pub(crate) fn is_internal(error: &(dyn Error + 'static)) -> bool {
    chain(error).any(|error| {
        matches!(innermost(error), Kind::Index(IndexError::Sql(_) | IndexError::TakenBack))
            || matches!(
                error.downcast_ref(),
                Some(SyncError::Packet(_) | SyncError::Signed(_) | SyncError::Inconsistent { .. })
            )
    })
}

fn chain<'a>(error: &'a (dyn Error + 'static)) -> impl Iterator<Item = &'a (dyn Error + 'static)> {
    std::iter::successors(Some(error), |&error| error.source())
}

/// An error behind those that only pass another on.
enum Kind<'a> {
    Store(&'a StoreError),
    Index(&'a IndexError),
    Sync(&'a SyncError),
    Scan(&'a ScanError),
    Marker(&'a MarkerError),
    Join(&'a JoinError),
    Query(&'a QueryError),
    Removal(&'a RemovalError),
    DamagedIndex,
    Other(&'a (dyn Error + 'static)),
}

/// Looks through the errors that are transparent, since their source is their inner error's.
fn innermost<'a>(error: &'a (dyn Error + 'static)) -> Kind<'a> {
    if let Some(error) = error.downcast_ref::<RemovalError>() {
        return match error {
            RemovalError::Sync(error) => sync_kind(error),
            RemovalError::Join(error) => join_kind(error),
            RemovalError::Index(error) => Kind::Index(error),
            error => Kind::Removal(error),
        };
    }
    if let Some(error) = error.downcast_ref::<JoinError>() {
        return join_kind(error);
    }
    if let Some(error) = error.downcast_ref::<OpenError>() {
        return match error {
            OpenError::Index(error) => Kind::Index(error),
            OpenError::NotAReplica | OpenError::Damaged => Kind::DamagedIndex,
        };
    }
    if let Some(error) = error.downcast_ref::<QueryError>() {
        return match error {
            QueryError::Store(error) => Kind::Store(error),
            QueryError::Index(error) => Kind::Index(error),
            QueryError::Sync(error) => sync_kind(error),
            error => Kind::Query(error),
        };
    }
    if let Some(error) = error.downcast_ref::<SyncError>() {
        return sync_kind(error);
    }
    if let Some(error) = error.downcast_ref::<ScanError>() {
        return scan_kind(error);
    }
    if let Some(error) = error.downcast_ref::<StoreError>() {
        return Kind::Store(error);
    }
    if let Some(error) = error.downcast_ref::<IndexError>() {
        return Kind::Index(error);
    }
    match error.downcast_ref::<MarkerError>() {
        Some(error) => Kind::Marker(error),
        None => Kind::Other(error),
    }
}

fn join_kind(error: &JoinError) -> Kind<'_> {
    match error {
        JoinError::Store(error) => Kind::Store(error),
        JoinError::Marker(error) => Kind::Marker(error),
        JoinError::Index(error) => Kind::Index(error),
        JoinError::Sync(error) => sync_kind(error),
        error => Kind::Join(error),
    }
}

fn sync_kind(error: &SyncError) -> Kind<'_> {
    match error {
        SyncError::Store(error) => Kind::Store(error),
        SyncError::Index(error) => Kind::Index(error),
        SyncError::Scan(error) => scan_kind(error),
        SyncError::DamagedIndex { .. } => Kind::DamagedIndex,
        error => Kind::Sync(error),
    }
}

fn scan_kind(error: &ScanError) -> Kind<'_> {
    match error {
        ScanError::Index(error) => Kind::Index(error),
        error => Kind::Scan(error),
    }
}

/// Which part of a replica an error is about, as `packetboat doctor` calls it.
pub(crate) fn part(error: &(dyn Error + 'static)) -> &'static str {
    match innermost(error) {
        Kind::Index(_) | Kind::DamagedIndex => "index",
        Kind::Store(_) => "intermediary",
        _ => "folder",
    }
}

fn own_hint(error: &(dyn Error + 'static)) -> Option<&'static str> {
    if let Some(not_here) = NotHere::behind(error) {
        return Some(not_here.hint());
    }
    match innermost(error) {
        Kind::Store(error) => store_hint(error),
        Kind::Index(error) => index_hint(error),
        Kind::Sync(error) => sync_hint(error),
        Kind::Scan(ScanError::Root { source }) => disk_hint(source),
        Kind::Scan(_) => None,
        Kind::Marker(error) => Some(marker_hint(error)),
        Kind::Join(error) => join_hint(error),
        Kind::Query(error) => query_hint(error),
        Kind::Removal(error) => removal_hint(error),
        Kind::DamagedIndex => Some(DAMAGED_INDEX),
        Kind::Other(error) => other_hint(error),
    }
}

fn store_hint(error: &StoreError) -> Option<&'static str> {
    Some(match error {
        StoreError::Full => {
            "free some space at the intermediary and run again; what was stored so far is kept, nothing was lost. \
             `packetboat prune --keep 30d --dry-run` says what keeping less of the past would free"
        }
        StoreError::Denied { .. } => "look at who owns the intermediary's files and whether it is mounted read-only",
        StoreError::Io { source, .. } if source.kind() == io::ErrorKind::NotFound => {
            "is the stick or share mounted? Run again when it is; nothing was lost"
        }
        StoreError::Io { source, .. } if source.kind() == io::ErrorKind::ReadOnlyFilesystem => {
            "the intermediary is mounted read-only: mount it to write, and run again"
        }
        StoreError::Io { .. } => "this may pass: run again; nothing was lost. If it stays, look at the storage itself",
        StoreError::Missing { .. } | StoreError::Short { .. } | StoreError::TooLarge { .. } => {
            "run `packetboat verify` to see what is damaged at the intermediary"
        }
    })
}

fn index_hint(error: &IndexError) -> Option<&'static str> {
    Some(match error {
        IndexError::Full => {
            "free some space on the disk that holds packetboat's state, and run again; nothing was lost"
        }
        IndexError::Disk { .. } => {
            "look at the disk that holds packetboat's state, whether it is full and who may write there, and run again"
        }
        IndexError::Damaged { .. } => DAMAGED_INDEX,
        IndexError::Newer { .. } => "use the newer packetboat that was used on this computer before",
        IndexError::Busy => "wait until the other process has ended, and run again",
        IndexError::TakenBack | IndexError::Sql(_) => return None,
    })
}

fn sync_hint(error: &SyncError) -> Option<&'static str> {
    Some(match error {
        SyncError::DiskFull => "free some space on the folder's disk and run again; nothing was lost",
        SyncError::Disk { source, .. } => return disk_hint(source),
        SyncError::ManyGone { .. } => {
            "if you deleted them, run `packetboat sync --confirm-deletes`; if not, look whether the disk is mounted. \
             Nothing was changed anywhere"
        }
        SyncError::IgnoreFile { .. } => {
            "without its rules, what they ignore would be published: make it a file of rules that can be read, or remove \
             it; where it is in the vault alone, make one here"
        }
        SyncError::NotTheFolder => "is the disk mounted? Nothing was changed anywhere",
        SyncError::Revoked { .. } => {
            "this device may read and write the vault no more; your files stay in the folder as they are, and \
             `packetboat sync --dry-run` lists what was not synchronised. To come back, ask who revoked it for the new \
             passphrase, and join as a new device with `packetboat sync FOLDER INTERMEDIARY --rebind`"
        }
        SyncError::LeftOut { .. } => {
            "your files stay in the folder as they are. This device joined with a passphrase that was given up, or by \
             an old copy of the vault's marker: join again with the new passphrase, by `packetboat sync FOLDER \
             INTERMEDIARY --rebind`"
        }
        SyncError::NoSuchPacket { .. } => "`packetboat log` shows packets as `device:counter`",
        SyncError::HistoryEnds => {
            "`packetboat log` shows how far it reaches; `packetboat prune --keep` says how long the past is kept"
        }
        SyncError::NoBase => {
            "run `packetboat repair` on a device of the vault, which writes another; what stands there now is not concerned"
        }
        SyncError::Interrupted => "nothing was lost; run again to go on",
        _ => return None,
    })
}

fn disk_hint(source: &io::Error) -> Option<&'static str> {
    Some(match source.kind() {
        io::ErrorKind::PermissionDenied => "look at who owns the folder's files and what their permissions are",
        io::ErrorKind::NotFound | io::ErrorKind::NotADirectory => "is the disk mounted?",
        io::ErrorKind::StorageFull | io::ErrorKind::QuotaExceeded => {
            "free some space on the folder's disk and run again; nothing was lost"
        }
        io::ErrorKind::ReadOnlyFilesystem => "the folder's disk is mounted read-only: mount it to write, and run again",
        // A disk that fails has no kind of its own.
        _ if source.raw_os_error() == Some(EIO) => {
            "the folder's disk fails: look at it, then run again; what was there is as it was, nothing was lost"
        }
        _ => return None,
    })
}

fn marker_hint(error: &MarkerError) -> &'static str {
    match error {
        MarkerError::NotAMarker => {
            "the file `packetboat` there belongs to something else: choose an empty place for the vault"
        }
        MarkerError::NewerFormat { .. } => "use a newer packetboat on this device",
        MarkerError::TooLarge | MarkerError::Damaged | MarkerError::Cost(_) | MarkerError::Malformed { .. } => {
            "the file `packetboat` at the intermediary is not as a device wrote it; devices that are in the vault \
             already lose nothing, and their next `packetboat sync` puts back the copy that they keep"
        }
    }
}

fn join_hint(error: &JoinError) -> Option<&'static str> {
    Some(match error {
        JoinError::VaultExists => "another device made it just now: run again to join it",
        JoinError::NoVault => "is the stick or share mounted?",
        JoinError::OtherKeys(_) => {
            "the vault's keys were changed on another device: run `packetboat sync` to learn them, and try again"
        }
        _ => return None,
    })
}

fn removal_hint(error: &RemovalError) -> Option<&'static str> {
    Some(match error {
        RemovalError::NoSuchDevice { .. } => {
            "`packetboat devices` lists them; one that joined lately is known after a sync"
        }
        RemovalError::SeveralDevices { .. } => {
            "name it by the first digits of its id, which `packetboat devices` shows"
        }
        RemovalError::Oneself => {
            "to leave the vault, run `packetboat devices retire`; to lock this device out, revoke it from another"
        }
        RemovalError::LastDevice => {
            "a vault needs a device. To give it up, delete the vault's directory at the intermediary yourself"
        }
        RemovalError::NotActive => "run `packetboat sync`: it goes on as a new device then",
        RemovalError::AlreadyRetired { .. } => {
            "nothing is left to do: nobody waits for it, and it comes back by itself when it synchronises. To lock it out, \
             run `packetboat devices revoke`"
        }
        RemovalError::AlreadyRevoked { .. } => {
            "nothing is left to do here: take away its access to the storage where it still has it"
        }
        RemovalError::Forked => "run `packetboat sync`, which makes this one a new device, and try again",
        RemovalError::Sync(_) | RemovalError::Join(_) | RemovalError::Index(_) => return None,
    })
}

fn query_hint(error: &QueryError) -> Option<&'static str> {
    Some(match error {
        QueryError::NotFound { .. } => "`packetboat log` shows what the vault holds and held",
        QueryError::Deleted(_) => "`packetboat log PATH` shows its versions; `packetboat restore` brings one back",
        QueryError::ElsewhereNow { .. } => {
            "name it so, or say with `--at` at which time; `packetboat log PATH` shows where it was"
        }
        QueryError::NotThen { .. } => "`packetboat log PATH` shows when it was there",
        QueryError::IsDirectory { .. } => "name a file within it; `packetboat restore` takes directories",
        QueryError::ContentMissing { .. } => {
            "is the intermediary there? `packetboat verify` tells what is missing at it"
        }
        QueryError::NoSuchPacket { .. } => "`packetboat log` shows packets as `device:counter`",
        QueryError::NoConflict { .. } => "`packetboat conflicts` lists the conflicts that wait",
        QueryError::DirectoryInTheWay { .. } => "add `--keep both`",
        QueryError::NothingToUndo => "`packetboat log` shows what was done; `packetboat restore` goes back further",
        QueryError::NotMergeable { .. } => {
            "name a program that merges with `--tool COMMAND`, or keep one side with `--keep mine` or `--keep theirs`"
        }
        QueryError::SeveralPackets { .. } => "several devices go by that name: use the id that `packetboat log` shows",
        _ => return None,
    })
}

fn other_hint(error: &(dyn Error + 'static)) -> Option<&'static str> {
    if let Some(error) = error.downcast_ref::<UnlockError>() {
        return Some(match error {
            UnlockError::WrongPassphrase => "try again, or use the recovery key with `--recovery`",
            UnlockError::WrongRecoveryKey => "is it the newest one? `packetboat key recovery` replaces the former",
            UnlockError::Damaged => marker_hint(&MarkerError::Damaged),
        });
    }
    if error.is::<RecoveryTextError>() {
        return Some("it is the text of eleven groups of five characters that was shown when the vault was made");
    }
    if let Some(error) = error.downcast_ref::<RunError>() {
        return error.hint();
    }
    match error.downcast_ref::<LockError>()? {
        LockError::Held { .. } => Some("wait until it has ended, and run again"),
        LockError::Io { .. } => Some("look at who owns packetboat's state directory, and whether its disk is full"),
    }
}

const EIO: i32 = 5;
/// Where the place of the index is not at hand; else [`crate::state::ReplicaDir::give_up`].
pub(crate) const DAMAGED_INDEX: &str = "move this replica's directory out of packetboat's state directory and run `packetboat sync FOLDER INTERMEDIARY`: the \
     folder goes on as a new device, and no file is touched. `packetboat doctor FOLDER` names the directory";
