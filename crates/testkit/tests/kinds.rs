//! What travels of a file and what does not, kind by kind, and a user who stops a round.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use packetboat_engine::error::SyncError;
use packetboat_engine::ports::{Interrupt, Note, Observer, Phase};
use packetboat_engine::replica::SyncOptions;
use packetboat_testkit::sim_fs::Node;
use packetboat_testkit::world::{World, WorldOptions};

/// Two devices, in step, with these files.
fn world(files: &[(&str, &[u8])]) -> World {
    let mut world = World::new(1, WorldOptions { devices: 2, ..WorldOptions::default() });
    for (path, bytes) in files {
        world.fs(0).write(path, bytes).unwrap();
    }
    world.rest();
    world
}

fn xattrs(world: &World, at: usize, path: &str) -> Vec<(Vec<u8>, Vec<u8>)> {
    match &world.fs(at).tree()[path.as_bytes()] {
        Node::File { xattrs, .. } | Node::Directory { xattrs, .. } => xattrs.clone().into_iter().collect(),
        other => panic!("{other:?}"),
    }
}

#[test]
fn a_touch_does_not_travel() {
    let mut world = world(&[("f", b"text")]);
    let before = world.fs(1).stat("f").unwrap();
    world.fs(0).touch("f", 1_500_000_000_000_000_000).unwrap();
    assert_eq!(world.sync_well(0).published.packets, 0);
    world.rest();
    let after = world.fs(1).stat("f").unwrap();
    assert_eq!((after.mtime, after.inode), (before.mtime, before.inode));
    // A time travels with its content.
    world.fs(0).write("f", b"other text").unwrap();
    world.fs(0).touch("f", 1_600_000_000_000_000_000).unwrap();
    world.rest();
    assert_eq!(world.fs(1).stat("f").unwrap().mtime, 1_600_000_000_000_000_000);
}

#[test]
fn extended_attributes_arrive_change_and_go_on_another_disk() {
    let mut world = world(&[]);
    world.fs(0).write("d/f", b"text").unwrap();
    for path in ["d", "d/f"] {
        world.fs(0).set_user_xattr(path, b"user.note", Some(b"first")).unwrap();
        world.fs(0).set_user_xattr(path, b"user.other", Some(b"kept")).unwrap();
    }
    world.rest();
    let both = [(b"user.note".to_vec(), b"first".to_vec()), (b"user.other".to_vec(), b"kept".to_vec())];
    for path in ["d", "d/f"] {
        assert_eq!(xattrs(&world, 1, path), both, "{path}");
    }
    world.fs(1).set_user_xattr("d/f", b"user.note", Some(b"second")).unwrap();
    world.fs(0).set_user_xattr("d/f", b"user.other", None).unwrap();
    world.rest();
    for at in 0..2 {
        assert_eq!(xattrs(&world, at, "d/f"), [(b"user.note".to_vec(), b"second".to_vec())], "on {at}");
    }
}

#[test]
fn hard_links_are_independent_files() {
    let mut world = world(&[("one", b"text")]);
    world.fs(0).hard_link("one", "two").unwrap();
    world.rest();
    assert_eq!(world.fs(1).read("two").unwrap(), b"text");
    assert_eq!(world.fs(1).stat("two").unwrap().links, 1);
    assert_ne!(world.fs(1).stat("one").unwrap().inode, world.fs(1).stat("two").unwrap().inode);
    // A change that comes to one name breaks the link on this disk, and leaves the other name as it was.
    world.fs(1).write("two", b"edited there").unwrap();
    world.rest();
    assert_eq!(world.fs(0).read("one").unwrap(), b"text");
    assert_eq!(world.fs(0).read("two").unwrap(), b"edited there");
    world.assert_same();
}

#[test]
fn renames_are_found_on_disk_by_inode_and_by_content() {
    let mut world = world(&[("a", b"text of a"), ("dir/b", b"text of b"), ("c", b"text of c")]);
    world.pass(60_000);
    world.rest();
    world.fs(0).rename("a", "a2").unwrap();
    world.fs(0).rename("dir", "moved").unwrap();
    // Another inode with the same bytes, as a copy and removal leave.
    world.fs(0).write("sub/c2", b"text of c").unwrap();
    world.fs(0).remove("c").unwrap();
    let inode = world.fs(1).stat("c").unwrap().inode;
    let sent = world.sync_well(0).sent;
    assert_eq!((sent.moved, sent.deleted), (3, 0), "{sent:?}");
    world.rest();
    assert_eq!(world.fs(1).stat("sub/c2").unwrap().inode, inode);
    assert_eq!(world.files(1).into_keys().collect::<Vec<_>>(), ["a2", "moved/b", "sub/c2"]);
}

#[test]
fn different_files_made_under_one_name_stand_beside_each_other_and_equal_ones_are_one() {
    let mut world = world(&[]);
    for (at, text) in [(0, b"left"), (1, b"rite")] {
        world.fs(at).write("same", b"equal").unwrap();
        world.fs(at).write("name.txt", text).unwrap();
    }
    world.rest();
    world.assert_same();
    let files = world.files(0);
    assert_eq!(files.len(), 3, "{files:?}");
    let copy = files.keys().find(|path| path.contains("(conflict")).unwrap().clone();
    assert!(copy.starts_with("name (conflict") && copy.ends_with(".txt"), "{copy}");
    // The next change of what is shown as one acts on all of it.
    world.fs(1).write("same", b"edited").unwrap();
    // Renaming either settles the other.
    world.fs(1).rename(&copy, "other.txt").unwrap();
    world.rest();
    assert_eq!(world.files(0).into_keys().collect::<Vec<_>>(), ["name.txt", "other.txt", "same"]);
    assert_eq!(world.fs(0).read("same").unwrap(), b"edited");
    world.assert_same();
}

/// Asks to stop when so many files were read.
struct StopsAfter(u64, Arc<AtomicBool>);

impl Observer for StopsAfter {
    fn phase(&mut self, _: Phase, _: Option<u64>, _: Option<u64>) {}
    fn advance(&mut self, files: u64, _: u64) {
        self.0 = self.0.saturating_sub(files);
        self.1.store(self.0 == 0, Ordering::SeqCst);
    }
    fn note(&mut self, _: Note) {}
    fn interrupt(&self) -> Interrupt {
        Interrupt::by(Arc::clone(&self.1))
    }
}

#[test]
fn a_wish_to_stop_while_files_are_read_keeps_what_was_read() {
    for files in [1, 7, 19] {
        let mut world = world(&[]);
        for number in 0..20 {
            world.fs(0).write(format!("d/{number}"), format!("text {number}").as_bytes()).unwrap();
        }
        world.pass(60_000);
        let stopped = world.replica(0).sync(SyncOptions::default(), &mut StopsAfter(files, Arc::default()));
        assert!(matches!(stopped, Err(SyncError::Interrupted)), "{stopped:?}");
        let report = world.sync_well(0);
        assert!(report.sent.created < 21 && report.sent.created >= 20 - files, "{files}: {:?}", report.sent);
        world.rest();
        assert_eq!(world.files(1).len(), 20);
        world.assert_same();
    }
}
