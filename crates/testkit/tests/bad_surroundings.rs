//! Surroundings that are not as they should be, and change nothing: numbers that do not last, clocks years apart.

use packetboat_engine::replica::SyncOptions;
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

/// What was renamed is found by its content, so no byte of it counts as new.
#[test]
fn a_rename_before_such_a_mount_is_known_by_content() {
    let mut world = world(false);
    world.fs(1).rename("dir0", "renamed").unwrap();
    world.fs(1).rename("dir1/file1", "dir2/moved").unwrap();
    world.fs(1).renumber();
    let sent = world.sync_well(1).sent;
    // The directory is made anew and its four files move into it.
    assert_eq!((sent.moved, sent.created, sent.deleted, sent.edited), (5, 1, 1, 0), "{sent:?}");
}

#[test]
fn after_a_round_the_new_numbers_are_known_and_nothing_is_read_again() {
    let mut world = world(false);
    world.fs(1).renumber();
    world.pass(60_000);
    assert!(world.sync_well(1).sent.bytes_read > 0, "equal times alone are no proof");
    assert_eq!(world.sync_well(1).sent, Default::default());
    world.fs(1).rename("dir0", "renamed").unwrap();
    let sent = world.sync_well(1).sent;
    assert_eq!((sent.moved, sent.created, sent.deleted), (1, 0, 0), "the directory is known by its number");
}

/// The first objects that a mount looks up are the same each time, and so are their numbers.
#[test]
fn witnesses_that_keep_their_numbers_by_chance_mislead_no_round() {
    for no_btime in [false, true] {
        let mut world = world(no_btime);
        world.pass(60_000);
        world.rest();
        let before = world.files(1);
        for _ in 0..3 {
            world.fs(1).renumber_all_but(&[".packetboat", ".packetboat/stage"]);
            let report = world.sync_well(1);
            assert_eq!(report.published.packets, 0, "{report:?}");
            assert_eq!(report.received, Default::default());
        }
        assert_eq!(world.files(1), before);
    }
}

#[test]
fn staging_that_somebody_deleted_is_made_again_and_publishes_nothing() {
    let mut world = world(false);
    world.fs(1).remove(".packetboat/stage").unwrap();
    for _ in 0..2 {
        assert_eq!(world.sync_well(1).published.packets, 0);
    }
}

/// What could not be looked at keeps its record, with a number that is another's by now; the next round sees it.
#[test]
fn a_refusal_at_any_call_after_such_a_mount_publishes_nothing() {
    const EACCES: i32 = 13;
    let mut world = world(false);
    world.fs(0).make_dir("top").unwrap();
    for n in 0..3 {
        world.fs(0).rename(format!("dir{n}"), format!("top/dir{n}")).unwrap();
    }
    world.rest();
    let before = world.files(1);
    let mut refused = 0;
    for at in 1..=120 {
        world.fs(1).renumber();
        let fs = world.fs(1).clone();
        let calls = fs.calls();
        fs.fail_at(at, EACCES);
        let first = world.try_sync(1, SyncOptions::default());
        refused += u32::from(fs.calls() >= calls + at);
        let sent: u64 = first.map_or(0, |report| report.published.changes);
        let next = world.sync_well(1);
        assert_eq!((sent, next.published.changes), (0, 0), "refused at call {at}: {next:?}");
    }
    assert!(refused > 60, "only {refused} refusals");
    assert_eq!(world.files(1), before);
}

/// A computer stops in the middle of a round, and the disk is mounted anew: what staging holds is told apart by numbers.
#[test]
fn a_stop_at_any_call_before_such_a_mount_loses_nothing() {
    for at in 1.. {
        let mut world = world(at % 2 == 0);
        world.fs(0).write("dir0/file0", b"edited there").unwrap();
        world.fs(0).rename("dir1", "renamed").unwrap();
        world.fs(0).rename("dir2/file2", "swap").unwrap();
        world.fs(0).rename("dir2/file5", "dir2/file2").unwrap();
        world.fs(0).rename("swap", "dir2/file5").unwrap();
        world.fs(0).remove("dir0/file3").unwrap();
        world.sync_well(0);
        world.fs(1).crash_at(at);
        let _ = world.try_sync(1, SyncOptions::default());
        let stopped = world.fs(1).has_crashed();
        let disk = world.fs(1).kill();
        disk.renumber();
        disk.write("dir2/file8", b"written here").unwrap();
        world.replace_disk(1, disk);
        world.rest();
        world.assert_same();
        let contents: Vec<_> = world.files(0).into_values().collect();
        let kept = (0..12).filter(|n| ![0, 3, 8].contains(n)).map(|n| format!("text {n:02}"));
        for wanted in kept.chain(["edited there".to_owned(), "written here".to_owned()]) {
            assert!(contents.contains(&wanted.clone().into_bytes()), "stopped at {at}, lost {wanted}");
        }
        if !stopped {
            assert!(at > 20, "only {at} calls change something");
            break;
        }
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
