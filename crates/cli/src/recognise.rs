//! Tells which replica a folder is, from its marker, its place, and what the registry remembers.
//!
//! What is known at each point: a marker names a replica; the registry says where that replica's folder was last seen and
//! which inode it had; a second folder with the same marker is a copy, and the one at the registered place, or with the
//! registered inode, is the original. Two devices must never share one index, so a copy becomes a device of its own.

use std::path::{Path, PathBuf};

use crate::folder_marker::FolderMarker;
use crate::registry::{Entry, Registry};

/// A folder as it is found.
#[derive(Clone, PartialEq, Eq, Debug)]
pub(crate) struct Sighting {
    /// Its canonical path.
    pub(crate) path: PathBuf,
    /// Its file system and inode; `None` where there is no folder.
    pub(crate) inode: Option<(u64, u64)>,
    /// Its marker.
    pub(crate) marker: Option<FolderMarker>,
}

/// What a folder is to us.
#[derive(Clone, PartialEq, Eq, Debug)]
pub(crate) enum Standing {
    /// No replica.
    Unbound,
    /// The replica that was last seen here.
    Bound(Entry),
    /// A replica that was last seen elsewhere, and is there no more.
    Moved(Entry),
    /// A copy of a replica that is still at its place.
    Copy(Entry),
    /// A replica whose state on this computer is lost; the entry is there if only the index is.
    Lost(FolderMarker, Option<Entry>),
    /// A replica was last seen here, and what is here now is not it.
    Vanished(Entry),
}

/// Tells which replica a folder is.
///
/// `has_index` says whether a replica's index is there; `look` looks at the folder of another path.
pub(crate) fn recognise(
    folder: &Sighting,
    registry: &Registry,
    has_index: impl Fn(&Entry) -> bool,
    look: impl Fn(&Path) -> Option<Sighting>,
) -> Standing {
    let Some(marker) = &folder.marker else {
        return match registry.at(&folder.path) {
            Some(entry) => Standing::Vanished(entry.clone()),
            None => Standing::Unbound,
        };
    };
    let Some(entry) = registry.by_id(&marker.replica) else {
        return Standing::Lost(marker.clone(), None);
    };
    let entry = entry.clone();
    if entry.folder != folder.path {
        let original = look(&entry.folder).filter(|other| other.marker.as_ref() == Some(marker));
        if let Some(original) = original {
            let same = original.inode == folder.inode;
            let registered = Some((entry.device, entry.inode));
            // One folder may be seen at two paths (a bind mount), or may have left its place to a copy.
            if !same && (folder.inode != registered || original.inode == registered) {
                return Standing::Copy(entry);
            }
        }
    }
    if !has_index(&entry) {
        return Standing::Lost(marker.clone(), Some(entry));
    }
    if entry.folder == folder.path { Standing::Bound(entry) } else { Standing::Moved(entry) }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::registry::tests::entry;

    fn seen(path: &str, inode: u64, marker: Option<&Entry>) -> Sighting {
        let marker = marker.map(|entry| FolderMarker { replica: entry.replica.clone(), vault: entry.vault });
        Sighting { path: path.into(), inode: Some((1, inode)), marker }
    }

    fn registry(entries: &[Entry]) -> Registry {
        let mut registry = Registry::default();
        entries.iter().for_each(|entry| registry.put(entry.clone()));
        registry
    }

    #[track_caller]
    fn check(folder: Sighting, registered: &[Entry], others: &[Sighting], expected: Standing) {
        let look = |path: &Path| others.iter().find(|other| other.path == path).cloned();
        assert_eq!(recognise(&folder, &registry(registered), |_| true, look), expected);
    }

    #[test]
    fn a_folder_nobody_knows_is_unbound() {
        check(seen("/new", 5, None), &[entry('a', "/a", 1)], &[], Standing::Unbound);
    }

    #[test]
    fn a_folder_at_its_place_is_bound_whatever_its_inode() {
        let a = entry('a', "/a", 1);
        check(seen("/a", 1, Some(&a)), std::slice::from_ref(&a), &[], Standing::Bound(a.clone()));
        check(seen("/a", 9, Some(&a)), std::slice::from_ref(&a), &[], Standing::Bound(a.clone()));
    }

    #[test]
    fn an_empty_mount_is_not_the_folder() {
        let a = entry('a', "/a", 1);
        check(seen("/a", 9, None), std::slice::from_ref(&a), &[], Standing::Vanished(a.clone()));
    }

    #[test]
    fn another_replica_moved_to_a_registered_path_is_followed() {
        let (a, b) = (entry('a', "/a", 1), entry('b', "/b", 2));
        check(seen("/a", 2, Some(&b)), &[a, b.clone()], &[], Standing::Moved(b));
    }

    #[test]
    fn a_moved_folder_is_followed() {
        let a = entry('a', "/a", 1);
        check(seen("/b", 1, Some(&a)), std::slice::from_ref(&a), &[], Standing::Moved(a.clone()));
        let emptied = seen("/a", 7, None);
        check(seen("/b", 9, Some(&a)), std::slice::from_ref(&a), &[emptied], Standing::Moved(a.clone()));
    }

    #[test]
    fn a_copy_beside_its_original_is_a_copy() {
        let a = entry('a', "/a", 1);
        let original = seen("/a", 1, Some(&a));
        check(seen("/b", 9, Some(&a)), std::slice::from_ref(&a), &[original], Standing::Copy(a.clone()));
    }

    #[test]
    fn a_copy_is_a_copy_even_after_inodes_changed_everywhere() {
        let a = entry('a', "/a", 1);
        let original = seen("/a", 8, Some(&a));
        check(seen("/b", 9, Some(&a)), std::slice::from_ref(&a), &[original], Standing::Copy(a.clone()));
    }

    #[test]
    fn an_original_that_left_a_copy_in_its_place_is_followed() {
        let a = entry('a', "/a", 1);
        let copy = seen("/a", 9, Some(&a));
        check(seen("/b", 1, Some(&a)), std::slice::from_ref(&a), &[copy], Standing::Moved(a.clone()));
    }

    #[test]
    fn one_folder_at_two_paths_is_one_replica() {
        let a = entry('a', "/a", 1);
        let same = seen("/a", 1, Some(&a));
        check(seen("/bind", 1, Some(&a)), std::slice::from_ref(&a), &[same], Standing::Moved(a.clone()));
    }

    #[test]
    fn a_marker_without_state_is_a_lost_replica() {
        let a = entry('a', "/a", 1);
        let folder = seen("/a", 1, Some(&a));
        let marker = folder.marker.clone().unwrap();
        check(folder.clone(), &[], &[], Standing::Lost(marker.clone(), None));
        let standing = recognise(&folder, &registry(std::slice::from_ref(&a)), |_| false, |_| None);
        assert_eq!(standing, Standing::Lost(marker, Some(a)));
    }
}
