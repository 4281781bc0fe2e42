//! What stands in a folder, as a test compares it.

use std::collections::BTreeMap;
use std::fs;
use std::os::unix::fs::{MetadataExt, PermissionsExt};
use std::path::Path;

/// Everything in a folder by its path, but for packetboat's own.
pub(crate) type Tree = BTreeMap<String, Object>;

/// What stands at a path.
#[derive(Clone, PartialEq, Eq, PartialOrd, Ord, Debug)]
pub(crate) enum Object {
    Directory,
    Symlink(String),
    File { bytes: Vec<u8>, mtime: (i64, i64), executable: bool },
}

impl Object {
    /// In few words, for the message of a failure.
    pub(crate) fn brief(&self) -> String {
        match self {
            Object::Directory => "a directory".to_owned(),
            Object::Symlink(target) => format!("a symlink to {target}"),
            Object::File { bytes, mtime, executable } => {
                let text = String::from_utf8_lossy(&bytes[..bytes.len().min(24)]).into_owned();
                format!("{} bytes {text:?}, time {mtime:?}, executable {executable}", bytes.len())
            }
        }
    }
}

/// Reads a folder; one that is not there is empty.
pub(crate) fn read(root: &Path) -> Tree {
    let mut tree = Tree::new();
    walk(root, root, &mut tree);
    tree
}

fn walk(root: &Path, at: &Path, tree: &mut Tree) {
    let Ok(entries) = fs::read_dir(at) else { return };
    for entry in entries {
        let path = entry.unwrap().path();
        let relative = path.strip_prefix(root).unwrap().to_str().unwrap().to_owned();
        if relative == ".packetboat" {
            continue;
        }
        let metadata = path.symlink_metadata().unwrap();
        let object = if metadata.is_dir() {
            walk(root, &path, tree);
            Object::Directory
        } else if metadata.is_symlink() {
            Object::Symlink(fs::read_link(&path).unwrap().to_str().unwrap().to_owned())
        } else {
            Object::File {
                bytes: fs::read(&path).unwrap(),
                mtime: (metadata.mtime(), metadata.mtime_nsec()),
                executable: metadata.permissions().mode() & 0o100 != 0,
            }
        };
        tree.insert(relative, object);
    }
}

/// A tree in which the names of conflict copies do not tell who wrote when.
pub(crate) fn without_conflict_names(tree: &Tree) -> Tree {
    let plain = |path: &String| match (path.find(" (conflict "), path.find(')')) {
        (Some(from), Some(to)) if from < to => format!("{} (conflict){}", &path[..from], &path[to + 1..]),
        _ => path.clone(),
    };
    tree.iter().map(|(path, object)| (plain(path), object.clone())).collect()
}

/// Where two trees differ, in words; nothing where they are the same.
pub(crate) fn differences(found: &Tree, wanted: &Tree) -> String {
    let mut lines = String::new();
    let paths: std::collections::BTreeSet<_> = found.keys().chain(wanted.keys()).collect();
    for path in paths {
        let (is, should) = (found.get(path), wanted.get(path));
        if is != should {
            let brief = |object: Option<&Object>| object.map_or_else(|| "nothing".to_owned(), Object::brief);
            lines.push_str(&format!("  {path}: {} instead of {}\n", brief(is), brief(should)));
        }
    }
    lines
}
