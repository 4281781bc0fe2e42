//! From directories on disk to paths and items.

use packetboat_core::ids::ItemId;
use packetboat_core::local::{DirId, LocalEntry, LocalRead};
use packetboat_core::name::RelPath;
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

/// The item that a directory on disk stands for.
pub fn item_of_dir(index: &Index, dir: DirId) -> Result<ItemId, IndexError> {
    Ok(index.directory(dir)?.map_or(ItemId::ROOT, |entry| entry.seen.item))
}

/// Where objects are made before they go to their place.
pub fn staging() -> RelPath {
    RelPath::new(b".packetboat/stage").expect("a sound path")
}
