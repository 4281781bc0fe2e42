//! What a folder promises beyond the port, and how it fails.

use std::os::unix::fs::{PermissionsExt, symlink};
use std::process::Command;

use tempfile::TempDir;

use super::*;
use crate::conformance::{check_races, check_store, check_store_against_model, name};

fn folder() -> (TempDir, FolderStore) {
    let directory = tempfile::tempdir().unwrap();
    let store = FolderStore::new(directory.path());
    (directory, store)
}

/// All names under a directory, temporary ones too.
fn names_in(directory: &Path) -> Vec<String> {
    let mut names: Vec<String> =
        fs::read_dir(directory).unwrap().map(|entry| entry.unwrap().file_name().into_string().unwrap()).collect();
    names.sort();
    names
}

/// A tmpfs of its own, unmounted when dropped; only root has one.
struct Mount(TempDir);

impl Mount {
    fn new(options: &str) -> Option<Self> {
        let directory = tempfile::tempdir().unwrap();
        let mounted = Command::new("mount").args(["-t", "tmpfs", "-o", options, "none"]).arg(directory.path()).output();
        mounted.is_ok_and(|output| output.status.success()).then_some(Self(directory))
    }

    fn remount(&self, options: &str) {
        let output = Command::new("mount").args(["-o", options]).arg(self.0.path()).output().unwrap();
        assert!(output.status.success(), "{output:?}");
    }
}

impl Drop for Mount {
    fn drop(&mut self) {
        let _ = Command::new("umount").arg(self.0.path()).output();
    }
}

#[test]
fn keeps_the_promises_of_the_port() {
    let (directory, store) = folder();
    check_store(&store);
    for left in ["tips", "lanes/x", "packs/3f"] {
        assert!(names_in(&directory.path().join(left)).iter().all(|name| name == "deeper"), "{left}");
    }
}

#[test]
fn behaves_as_the_model_does() {
    let directory = tempfile::tempdir().unwrap();
    let number = AtomicU64::new(0);
    check_store_against_model(|| {
        let root = directory.path().join(number.fetch_add(1, Ordering::Relaxed).to_string());
        fs::create_dir(&root).unwrap();
        FolderStore::new(root)
    });
}

#[test]
fn one_of_many_racing_puts_wins_by_link_and_by_look_and_rename() {
    for way in [1, 2] {
        let (_directory, store) = folder();
        store.naming_way.store(way, Ordering::Relaxed);
        check_races(&store);
        assert_eq!(store.naming_way.load(Ordering::Relaxed), way);
    }
}

#[test]
fn every_naming_way_keeps_what_has_the_name() {
    for way in NAMING_WAYS {
        let directory = tempfile::tempdir().unwrap();
        let (temporary, target) = (directory.path().join("t"), directory.path().join("x"));
        fs::write(&temporary, "new").unwrap();
        fs::write(&target, "old").unwrap();
        assert_eq!(way(&temporary, &target).unwrap(), Put::Present);
        assert_eq!(fs::read(&target).unwrap(), b"old");
        fs::remove_file(&target).unwrap();
        assert_eq!(way(&temporary, &target).unwrap(), Put::Stored);
        assert_eq!(fs::read(&target).unwrap(), b"new");
        assert!(!temporary.exists());
    }
}

#[test]
fn a_repeated_link_after_a_lost_answer_counts_as_stored() {
    let directory = tempfile::tempdir().unwrap();
    let (temporary, target) = (directory.path().join("t"), directory.path().join("x"));
    fs::write(&temporary, "new").unwrap();
    fs::hard_link(&temporary, &target).unwrap();
    assert_eq!(link(&temporary, &target).unwrap(), Put::Stored);
}

#[test]
fn a_missing_root_is_an_error_and_is_not_made() {
    let directory = tempfile::tempdir().unwrap();
    let root = directory.path().join("stick");
    let store = FolderStore::new(&root);
    let object = name("tips/a");
    let gone =
        |error: StoreError| matches!(&error, StoreError::Io { source, .. } if source.kind() == io::ErrorKind::NotFound);
    assert!(gone(store.put_new(&object, b"x").unwrap_err()));
    assert!(gone(store.put(&object, b"x").unwrap_err()));
    assert!(gone(store.put(&name("marker"), b"x").unwrap_err()));
    assert!(gone(store.get(&object, 1).unwrap_err()));
    assert!(gone(store.get_range(&object, 0, 1).unwrap_err()));
    assert!(gone(store.list("tips").unwrap_err()));
    assert!(gone(store.delete(&object).unwrap_err()));
    assert!(!root.exists());
}

#[test]
fn a_root_that_goes_away_between_puts_is_not_made_again() {
    let (directory, store) = folder();
    store.put(&name("tips/a"), b"x").unwrap();
    fs::remove_dir_all(directory.path()).unwrap();
    store.put(&name("tips/a"), b"x").unwrap_err();
    assert!(!directory.path().exists());
    fs::create_dir(directory.path()).unwrap();
    store.put(&name("tips/a"), b"x").unwrap();
    assert_eq!(store.get(&name("tips/a"), 1).unwrap(), b"x");
}

#[test]
fn listings_pass_over_what_is_no_object() {
    let (directory, store) = folder();
    store.put(&name("tips/a"), b"x").unwrap();
    let tips = directory.path().join("tips");
    for other in ["Desktop.ini", "a b", ".tmp-1-2", "ümlaut"] {
        fs::write(tips.join(other), "").unwrap();
    }
    fs::create_dir(tips.join("folder")).unwrap();
    symlink("a", tips.join("link")).unwrap();
    let listed = store.list("tips").unwrap();
    assert_eq!(listed.iter().map(|entry| entry.name.as_str()).collect::<Vec<_>>(), ["tips/a"]);
}

#[test]
fn stale_temporary_files_go_and_fresh_ones_stay() {
    let (directory, store) = folder();
    let tips = directory.path().join("tips");
    fs::create_dir(&tips).unwrap();
    fs::write(tips.join(".tmp-1-1"), "half").unwrap();
    fs::write(tips.join(".tmp-1-2"), "half").unwrap();
    let two_days_ago = SystemTime::now() - 2 * STALE_AFTER;
    File::options().write(true).open(tips.join(".tmp-1-1")).unwrap().set_modified(two_days_ago).unwrap();
    store.list("tips").unwrap();
    assert_eq!(names_in(&tips), [".tmp-1-1", ".tmp-1-2"], "a store that only reads changes nothing");
    store.put(&name("tips/a"), b"x").unwrap();
    store.list("tips").unwrap();
    assert_eq!(names_in(&tips), [".tmp-1-2", "a"]);
}

#[test]
fn a_temporary_name_taken_by_another_computer_is_passed_over() {
    let (directory, store) = folder();
    let taken = NEXT_TEMPORARY.load(Ordering::Relaxed);
    let pid = std::process::id();
    for number in taken..taken + 50 {
        fs::write(directory.path().join(format!(".tmp-{pid}-{number}")), "theirs").unwrap();
    }
    store.put_new(&name("a"), b"mine").unwrap();
    assert_eq!(store.get(&name("a"), 10).unwrap(), b"mine");
    assert_eq!(names_in(directory.path()).len(), 51);
    store.put(&name("tips/.tmp-1-1"), b"x").unwrap_err();
}

#[test]
fn links_fifos_and_directories_are_not_read_as_objects() {
    let (directory, store) = folder();
    let outside = tempfile::NamedTempFile::new().unwrap();
    fs::write(outside.path(), "secret").unwrap();
    symlink(outside.path(), directory.path().join("link")).unwrap();
    fs::create_dir(directory.path().join("folder")).unwrap();
    rustix::fs::mkfifoat(CWD, directory.path().join("fifo"), rustix::fs::Mode::from(0o600)).unwrap();
    for object in ["link", "folder", "fifo"] {
        assert!(matches!(store.get(&name(object), 100), Err(StoreError::Io { action: "read", .. })), "{object}");
        assert!(store.get_range(&name(object), 0, 1).is_err());
        assert_eq!(store.put_new(&name(object), b"x").unwrap(), Put::Present);
    }
    store.put(&name("link"), b"mine").unwrap();
    assert_eq!(store.get(&name("link"), 10).unwrap(), b"mine");
    assert_eq!(fs::read(outside.path()).unwrap(), b"secret");
}

#[test]
fn a_full_disk_is_told_and_leaves_nothing_behind() {
    let Some(mount) = Mount::new("size=1m") else {
        return eprintln!("skipped: a full disk cannot be tried here without the right to mount");
    };
    let store = FolderStore::new(mount.0.path());
    let object = name("packs/3f/a");
    assert!(matches!(store.put_new(&object, &vec![1; 2 << 20]), Err(StoreError::Full)));
    assert!(matches!(store.put(&object, &vec![1; 2 << 20]), Err(StoreError::Full)));
    assert_eq!(names_in(&mount.0.path().join("packs/3f")), [""; 0]);
    // The room is free again, and an old object outlives a failed replacement.
    store.put(&object, &vec![1; 400 << 10]).unwrap();
    assert!(matches!(store.put(&object, &vec![2; 2 << 20]), Err(StoreError::Full)));
    assert_eq!(store.get(&object, 1 << 20).unwrap(), vec![1; 400 << 10]);
}

#[test]
fn a_read_only_disk_is_told_as_denied_and_still_read() {
    let Some(mount) = Mount::new("size=1m") else {
        return eprintln!("skipped: a read-only disk cannot be tried here without the right to mount");
    };
    let store = FolderStore::new(mount.0.path());
    let object = name("tips/a");
    store.put(&object, b"x").unwrap();
    mount.remount("remount,ro");
    for store in [store, FolderStore::new(mount.0.path())] {
        assert!(matches!(store.put(&object, b"y"), Err(StoreError::Denied { .. })));
        assert!(matches!(store.put_new(&name("lanes/b"), b"y"), Err(StoreError::Denied { .. })));
        assert!(matches!(store.delete(&object), Err(StoreError::Denied { .. })));
        assert_eq!(store.put_new(&object, b"y").unwrap(), Put::Present);
        assert_eq!(store.get(&object, 1).unwrap(), b"x");
        assert_eq!(store.list("tips").unwrap().len(), 1);
    }
}

#[test]
fn missing_permissions_are_told_as_denied() {
    if rustix::process::geteuid().is_root() {
        return eprintln!("skipped: permissions do not bind root");
    }
    let (directory, store) = folder();
    store.put(&name("tips/a"), b"x").unwrap();
    let tips = directory.path().join("tips");
    fs::set_permissions(&tips, PermissionsExt::from_mode(0o500)).unwrap();
    assert!(matches!(store.put(&name("tips/a"), b"y"), Err(StoreError::Denied { .. })));
    fs::set_permissions(&tips, PermissionsExt::from_mode(0o000)).unwrap();
    assert!(matches!(store.get(&name("tips/a"), 1), Err(StoreError::Denied { .. })));
    assert!(matches!(store.list("tips"), Err(StoreError::Denied { .. })));
    fs::set_permissions(&tips, PermissionsExt::from_mode(0o700)).unwrap();
}
