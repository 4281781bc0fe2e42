//! From paths as users type them to paths in the vault.

use std::os::unix::ffi::OsStrExt;
use std::path::{Component, Path, PathBuf};

use packetboat_core::name::RelPath;
use packetboat_engine::paths::MARKER_DIR;

use crate::failure::Failure;
use crate::opening::current_directory;
use crate::text;

/// The vault's path for what a user typed. What it names need not be there: it may have been deleted.
///
/// It counts from the current directory where that lies in the folder, and from the folder's root otherwise.
pub(crate) fn in_vault(folder: &Path, typed: &Path) -> Result<RelPath, Failure> {
    let current = current_directory()?;
    let base = if current.starts_with(folder) { current } else { folder.to_owned() };
    resolve(folder, &base, typed)
}

fn resolve(folder: &Path, base: &Path, typed: &Path) -> Result<RelPath, Failure> {
    let outside = || {
        Failure::new(format!("{} lies outside the folder {}", text::path(typed), text::path(folder)))
            .hint("name a path within the folder; with --folder, paths count from that folder")
    };
    if typed.as_os_str().is_empty() {
        return Err(Failure::new("the path is empty"));
    }
    let absolute = normal(&base.join(typed));
    let within = match absolute.strip_prefix(folder) {
        Ok(within) => within.to_owned(),
        // An absolute path may lead to the folder through a link.
        Err(_) => through_links(&absolute).strip_prefix(folder).map_err(|_| outside())?.to_owned(),
    };
    if within.starts_with(MARKER_DIR) {
        return Err(Failure::new(format!("{} is packetboat's own and is not synchronised", text::path(typed))));
    }
    RelPath::new(within.as_os_str().as_bytes())
        .ok_or_else(|| Failure::new(format!("{} cannot be a path in a vault", text::path(typed))))
}

/// A path without `.` and `..`, by its text alone.
fn normal(path: &Path) -> PathBuf {
    let mut normal = PathBuf::new();
    for part in path.components() {
        match part {
            Component::ParentDir => drop(normal.pop()),
            Component::CurDir => {}
            part => normal.push(part),
        }
    }
    normal
}

/// A path whose existing part, but for its last name, is free of symbolic links.
fn through_links(path: &Path) -> PathBuf {
    for above in path.ancestors().skip(1) {
        if let (Ok(real), Ok(rest)) = (above.canonicalize(), path.strip_prefix(above)) {
            return real.join(rest);
        }
    }
    path.to_owned()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[track_caller]
    fn check(base: &str, typed: &str, expected: Option<&str>) {
        let found = resolve(Path::new("/f/docs"), Path::new(base), Path::new(typed)).ok();
        assert_eq!(found, expected.map(|path| RelPath::new(path.as_bytes()).unwrap()), "{typed:?} in {base:?}");
    }

    #[test]
    fn paths_count_from_where_the_user_is() {
        check("/f/docs/a", "x.txt", Some("a/x.txt"));
        check("/f/docs/a", "../b/x.txt", Some("b/x.txt"));
        check("/f/docs/a", "./x//y/", Some("a/x/y"));
        check("/f/docs", "/f/docs/b", Some("b"));
        check("/f/docs/a", "..", Some(""));
    }

    #[test]
    fn paths_outside_are_refused() {
        for typed in ["../x", "/f/docs2/x", "/", "", ".packetboat/replica"] {
            check("/f/docs", typed, None);
        }
    }

    #[test]
    fn links_to_the_folder_are_followed_but_not_the_last_name() {
        let base = tempfile::tempdir().unwrap();
        let base = base.path().canonicalize().unwrap();
        std::fs::create_dir(base.join("real")).unwrap();
        std::os::unix::fs::symlink("real", base.join("link")).unwrap();
        std::os::unix::fs::symlink("/etc", base.join("real/last")).unwrap();
        let found = resolve(&base.join("real"), &base.join("real"), &base.join("link/last")).unwrap();
        assert_eq!(found.as_bytes(), b"last");
    }
}
