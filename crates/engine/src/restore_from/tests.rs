//! Tests of restoring: what it brings, and what it leaves alone.

use packetboat_replica::real_fs::RealFs;

use super::*;
use crate::past::tests::{Counting, Ticking, World, files};
use crate::ports::Silent;

fn restore(world: &World, to: &std::path::Path, at: Option<&At>) -> Result<Received, SyncError> {
    let ring = world.devices[0].replica.keys.ring.clone();
    let (clock, mut entropy) = (Ticking(Arc::clone(&world.now)), Counting([9; 4], 0));
    let fs = Arc::new(RealFs::open(to).unwrap());
    let store = Arc::new(world.store.clone());
    restore_from(store, ring, fs, at, &Settings::default(), &clock, &mut entropy, &mut Silent)
}

#[test]
fn restoring_writes_nothing_to_the_intermediary_and_leaves_nothing_of_its_own() {
    let world = World::with_history();
    let before: Vec<_> =
        world.store.names().into_iter().map(|name| (world.store.get(&name, u64::MAX).unwrap(), name)).collect();
    for at in [None, Some(At::Packet(world.states[3].dot))] {
        let folder = tempfile::tempdir().unwrap();
        let received = restore(&world, folder.path(), at.as_ref()).unwrap();
        assert_eq!(received.waiting, 0);
        assert!(!folder.path().join(MARKER_DIR).exists());
    }
    let after: Vec<_> =
        world.store.names().into_iter().map(|name| (world.store.get(&name, u64::MAX).unwrap(), name)).collect();
    assert_eq!(before, after);
}

#[test]
fn the_files_are_those_of_a_device_that_was_there() {
    let world = World::with_history();
    let folder = tempfile::tempdir().unwrap();
    restore(&world, folder.path(), None).unwrap();
    let theirs = files(world.devices[1].folder.path());
    assert!(theirs.len() > 10);
    assert_eq!(files(folder.path()), theirs);
    for state in &world.states {
        let folder = tempfile::tempdir().unwrap();
        restore(&world, folder.path(), Some(&At::Packet(state.dot))).unwrap();
        assert_eq!(files(folder.path()), state.files);
    }
}

#[test]
fn a_directory_that_holds_something_is_left_alone() {
    let world = World::with_history();
    let folder = tempfile::tempdir().unwrap();
    std::fs::write(folder.path().join("mine"), "dear to me").unwrap();
    assert!(matches!(restore(&world, folder.path(), None), Err(SyncError::NotEmpty)));
    assert_eq!(std::fs::read(folder.path().join("mine")).unwrap(), b"dear to me");
}

#[test]
fn staging_is_removed_with_all_that_is_in_it() {
    let folder = tempfile::tempdir().unwrap();
    std::fs::create_dir_all(folder.path().join(".packetboat/stage/deep")).unwrap();
    std::fs::write(folder.path().join(".packetboat/stage/deep/file"), "").unwrap();
    std::os::unix::fs::symlink("/", folder.path().join(".packetboat/stage/link")).unwrap();
    let fs = RealFs::open(folder.path()).unwrap();
    let staging = RelPath::new(MARKER_DIR.as_bytes()).unwrap();
    remove_tree(&fs, &staging).unwrap();
    remove_tree(&fs, &staging).unwrap();
    assert_eq!(std::fs::read_dir(folder.path()).unwrap().count(), 0);
}
