//! From directories on disk to paths and items.

use packetboat_core::ids::ItemId;
use packetboat_core::local::{DirId, EntryState, LocalEntry, LocalRead};
use packetboat_core::name::{Name, RelPath};
use packetboat_replica::index::{Index, IndexError};

/// The folder within the root that Packetboat keeps for itself.
pub const MARKER_DIR: &str = ".packetboat";

/// The path of a directory on disk, as recorded.
pub fn dir_path(index: &Index, dir: DirId) -> Result<RelPath, IndexError> {
    let mut names = Vec::new();
    let mut at = dir;
    while let Some(entry) = index.directory(at)? {
        at = entry.dir;
        names.push(entry.name);
    }
    let top = if at == DirId::STAGING { staging() } else { RelPath::root() };
    Ok(names.iter().rev().fold(top, |path, name| path.join(name)))
}

/// The directory that is recorded at a path.
pub fn dir_at(index: &Index, path: &RelPath) -> Result<Option<DirId>, IndexError> {
    let mut dir = DirId::ROOT;
    for name in path.names() {
        let Some(own) = index.entry_at(dir, &name)?.and_then(|entry| entry.own_dir) else { return Ok(None) };
        dir = own;
    }
    Ok(Some(dir))
}

/// The path of an entry on disk, as recorded.
pub fn entry_path(index: &Index, entry: &LocalEntry) -> Result<RelPath, IndexError> {
    Ok(dir_path(index, entry.dir)?.join(&entry.name))
}

/// The path under which people know an entry: of what is parked, the one that it had before.
pub fn known_path(index: &Index, entry: &LocalEntry) -> Result<RelPath, IndexError> {
    let mut names = Vec::new();
    let mut at = Some(entry.clone());
    // A damaged index could have directories hold each other.
    while let Some(entry) = at.take().filter(|_| names.len() < DEEPEST) {
        let (dir, name) = known_place(&entry);
        names.push(name.clone());
        at = index.directory(dir)?;
    }
    Ok(names.iter().rev().fold(RelPath::root(), |path, name| path.join(name)))
}

/// The path under which people know a directory.
pub fn known_dir_path(index: &Index, dir: DirId) -> Result<RelPath, IndexError> {
    index.directory(dir)?.map_or_else(|| Ok(RelPath::root()), |entry| known_path(index, &entry))
}

/// Where people know an entry: of what is parked, where it was before.
pub fn known_place(entry: &LocalEntry) -> (DirId, &Name) {
    match &entry.state {
        EntryState::Parked { dir, name } if entry.dir == DirId::STAGING => (*dir, name),
        _ => (entry.dir, &entry.name),
    }
}

/// Whether an entry was parked because another object has its place on disk: its own never was in staging.
pub fn is_record_only(entry: &LocalEntry) -> bool {
    entry.dir == DirId::STAGING && entry.name.as_bytes().starts_with(RECORD_ONLY.as_bytes())
}

/// The item that a directory on disk stands for.
pub fn item_of_dir(index: &Index, dir: DirId) -> Result<ItemId, IndexError> {
    Ok(index.directory(dir)?.map_or(ItemId::ROOT, |entry| entry.seen.item))
}

/// Where objects are made before they go to their place.
pub fn staging() -> RelPath {
    RelPath::new(b".packetboat/stage").expect("a sound path")
}

/// What the names of parked records begin with that no object in staging belongs to.
pub const RECORD_ONLY: &str = "moved-";
/// More directories than any path goes through.
const DEEPEST: usize = 4096;
