//! What stands on this disk, and what it last agreed on with the vault: the local and the synced tree in one entry.
//!
//! An entry belongs to one object on disk, found by directory and name. Directories on disk have numbers of their own,
//! so that one can come to stand for another item (or for several that share a name) without touching what it holds.

use crate::ids::{Dot, ItemId};
use crate::name::Name;

/// A directory on this disk.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug)]
pub struct DirId(pub u64);

impl DirId {
    /// The replica's folder.
    pub const ROOT: Self = Self(0);
    /// The staging directory within `.packetboat`: entries there are on their way to another place.
    pub const STAGING: Self = Self(1);
}

/// One object on this disk that is synchronised.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct LocalEntry {
    /// The directory on disk that holds it.
    pub dir: DirId,
    /// Its name on disk.
    pub name: Name,
    /// Its own number, if it is a directory.
    pub own_dir: Option<DirId>,
    /// What of the vault it stands for: what this disk and the vault last agreed on.
    pub seen: Seen,
    /// The permission bits agreed on; none for symlinks, or where the vault has none.
    pub mode: Option<u32>,
    /// The extended attributes agreed on, sorted by name.
    pub xattrs: Vec<(Vec<u8>, Vec<u8>)>,
    /// What `stat` said when this was recorded.
    pub stat: Fingerprint,
    /// Where it is in its life.
    pub state: EntryState,
}

/// The versions that an object on disk stands for.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Seen {
    /// The item.
    pub item: ItemId,
    /// The heads whose content this is, sorted: one, or several that agree.
    pub heads: Vec<Dot>,
    /// The item's placements, sorted.
    pub placements: Vec<Dot>,
    /// Whether this is a conflict copy, beside the winner or beside another item of the same name.
    pub view: View,
    /// Items with the same bytes (or directories) that are shown as one with this.
    pub twins: Vec<Twin>,
}

/// How an object's name on disk comes from its item's placement.
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum View {
    /// It has the placement's name.
    Plain,
    /// It is a losing head of its item and stands under a conflict name.
    Copy,
    /// Its item has another's name and stands under a conflict name as a whole.
    Displaced,
    /// The file system cannot hold the name; this one stands for it.
    Mapped {
        /// The name as others see it.
        shown: Name,
    },
}

/// An item that is shown as one with another.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Twin {
    /// The item.
    pub item: ItemId,
    /// Its heads as seen, sorted.
    pub heads: Vec<Dot>,
    /// Its placements as seen, sorted.
    pub placements: Vec<Dot>,
}

/// What tells whether an object may have changed.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub struct Fingerprint {
    /// Size in bytes; 0 for directories.
    pub size: u64,
    /// Modification time in nanoseconds since 1970 UTC; 0 for directories.
    pub mtime: i64,
    /// Status change time in nanoseconds since 1970 UTC; 0 for directories.
    pub ctime: i64,
    /// Inode number.
    pub inode: u64,
    /// Birth time in nanoseconds since 1970 UTC; 0 where the file system has none.
    pub btime: i64,
    /// Permission bits on disk.
    pub mode: u32,
}

/// Where an entry is in its life.
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum EntryState {
    /// At rest; the fingerprint is trusted.
    Settled,
    /// Recorded so soon after its modification time that a later write could show the same: look at its bytes.
    Racy,
    /// Ignored here: neither scanned nor changed, and neither deleted nor named in a delete.
    Frozen,
    /// Moved into staging to free its name; if it is not there, it is still where it came from.
    Parked {
        /// The directory it came from.
        dir: DirId,
        /// The name it had there.
        name: Name,
    },
}

/// Reads the entries of this disk.
pub trait LocalRead {
    /// Why reading failed.
    type Error: std::error::Error + Send + Sync + 'static;

    /// The objects on this disk that stand for an item (as itself, not as a twin of another).
    fn entries_of(&self, item: ItemId) -> Result<Vec<LocalEntry>, Self::Error>;

    /// The object at a place on this disk.
    fn entry_at(&self, dir: DirId, name: &Name) -> Result<Option<LocalEntry>, Self::Error>;

    /// The entry of a directory; `None` for the root and the staging directory.
    fn directory(&self, dir: DirId) -> Result<Option<LocalEntry>, Self::Error>;
}
