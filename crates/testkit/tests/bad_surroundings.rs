//! Surroundings that are not as they should be, and change nothing: numbers that do not last, clocks years apart.

use packetboat_testkit::sim_fs::{SimFs, SimOptions};
use packetboat_testkit::world::{World, WorldOptions};

fn world(no_btime: bool) -> World {
    let mut world = World::new(1, WorldOptions { devices: 1, ..WorldOptions::default() });
    world.join(SimFs::new(SimOptions { no_btime, ..SimOptions::default() }));
    for n in 0..12 {
        // Of one size and of one time, so that nothing but the number tells them apart.
        world.fs(0).write(format!("dir{}/file{n}", n % 3), format!("text {n:02}").as_bytes()).unwrap();
    }
    world.rest();
    world
}

#[test]
fn inode_numbers_that_change_at_each_mount_publish_nothing() {
    for no_btime in [false, true] {
        let mut world = world(no_btime);
        let before = world.files(1);
        for _ in 0..3 {
            world.fs(1).renumber();
            let report = world.sync_well(1);
            assert_eq!(report.published.packets, 0, "{report:?}");
            assert_eq!((report.sent.moved, report.sent.deleted, report.sent.created), (0, 0, 0));
            assert_eq!(report.received, Default::default());
        }
        world.rest();
        world.assert_same();
        assert_eq!(world.files(0), before);
    }
}

#[test]
fn what_was_renamed_before_such_a_mount_arrives_and_nothing_is_lost() {
    for no_btime in [false, true] {
        let mut world = world(no_btime);
        world.fs(1).rename("dir0", "renamed").unwrap();
        world.fs(1).rename("dir1/file1", "dir2/moved").unwrap();
        world.fs(1).write("dir2/file2", b"edited").unwrap();
        let expected = world.files(1);
        world.fs(1).renumber();
        world.rest();
        world.assert_same();
        assert_eq!(world.files(0), expected);
    }
}

#[test]
fn clocks_that_are_years_apart_decide_nothing() {
    const YEAR_MS: i64 = 365 * 86_400_000;
    let mut world = world(false);
    for (at, years) in [(0, -40), (1, 60)] {
        world.set_clock(at, years * YEAR_MS);
    }
    // Each edits what the other wrote last: what was seen is replaced, whatever the clocks say.
    for (at, text) in [(0, "first"), (1, "second"), (0, "third")] {
        world.fs(at).write("dir0/file0", text.as_bytes()).unwrap();
        world.rest();
    }
    world.fs(0).remove("dir1").unwrap();
    world.rest();
    world.assert_same();
    let files = world.files(1);
    assert_eq!(files["dir0/file0"], b"third");
    assert!(files.keys().all(|path| !path.contains("conflict") && !path.starts_with("dir1")), "{files:?}");
}
