//! Joining with a folder that is full already, as on moving from another tool.

use std::collections::BTreeMap;

use packetboat_core::name::RelPath;
use packetboat_engine::ports::Silent;
use packetboat_engine::replica::Keep;
use packetboat_replica::fs::Stat;
use packetboat_testkit::sim_fs::SimFs;
use packetboat_testkit::world::{World, WorldOptions};

const FILES: usize = 1_500;
const DIFFERENT: usize = 10;

fn path(number: usize) -> String {
    format!("dir{}/sub{}/{number}.txt", number % 7, number % 31)
}

fn text(number: usize) -> Vec<u8> {
    // Some lie in packets, some in packs.
    match number % 50 {
        0 => format!("{number} ").repeat(5_000).into_bytes(),
        _ => format!("the text of {number}").into_bytes(),
    }
}

/// A vault with many files and a second device about to join with the same, `change`d before.
fn about_to_join(change: impl Fn(&SimFs)) -> World {
    let mut world = World::new(1, WorldOptions { devices: 1, ..WorldOptions::default() });
    for number in 0..FILES {
        world.fs(0).write(path(number), &text(number)).unwrap();
    }
    world.rest();
    let fs = SimFs::default();
    fs.set_now(1_700_000_000_000_000_000);
    // In another order, so that inodes are others too.
    for number in (0..FILES).rev() {
        fs.write(path(number), &text(number)).unwrap();
    }
    change(&fs);
    world.join(fs);
    world
}

fn stats(world: &World, at: usize) -> BTreeMap<Vec<u8>, Stat> {
    let paths = world.tree(at).into_keys();
    paths.map(|path| (path.clone(), world.fs(at).stat(&path).unwrap())).collect()
}

#[test]
fn the_same_files_are_neither_read_from_packs_nor_rewritten_nor_in_conflict() {
    let mut world = about_to_join(|_| ());
    let before = [stats(&world, 0), stats(&world, 1)];
    let packs = world.shelf().objects().keys().filter(|name| name.as_str().starts_with("packs/")).count();
    assert!(packs > 0);
    // Could a pack be read, it would be damaged; and none is missed.
    for name in world.shelf().objects().into_keys().filter(|name| name.as_str().starts_with("packs/")) {
        world.shelf().remove(&name);
    }
    let requests = world.store(1).requests();
    let report = world.sync_well(1);
    assert_eq!(report.sent.agreed, report.objects);
    assert_eq!((report.sent.created, report.sent.edited, report.conflicts, report.problems), (0, 0, 0, 0));
    assert_eq!(report.received, Default::default());
    let reads = world.store(1).requests().gets - requests.gets;
    assert!(reads <= 4, "{reads}");
    world.rest();
    assert_eq!([stats(&world, 0), stats(&world, 1)], before);
}

fn different() -> Vec<usize> {
    (0..DIFFERENT).map(|at| 3 + at * 149).collect()
}

/// The same but for ten files, joined and at rest.
fn ten_conflicts() -> World {
    let mut world = about_to_join(|fs| {
        for number in different() {
            fs.write(path(number), format!("joiner's {number}").as_bytes()).unwrap();
        }
    });
    let before = stats(&world, 1);
    let report = world.sync_well(1);
    assert_eq!(report.conflicts, DIFFERENT as u64);
    assert_eq!(report.sent.edited, DIFFERENT as u64);
    assert_eq!(report.sent.edited + report.sent.agreed, report.objects);
    world.rest();
    world.assert_same();
    for at in 0..2 {
        let files = world.files(at);
        assert_eq!(files.len(), FILES + DIFFERENT);
        assert_eq!(world.replica(at).conflicts().unwrap().len(), DIFFERENT);
        for number in different() {
            let joiners = format!("joiner's {number}").into_bytes();
            for content in [&text(number), &joiners] {
                assert!(files.values().any(|found| found == content), "{number} on {at}");
            }
        }
    }
    // All that is no side of a conflict was left alone.
    let after = stats(&world, 1);
    for number in (0..FILES).filter(|number| !different().contains(number)) {
        let path = path(number).into_bytes();
        assert_eq!(after[&path], before[&path]);
    }
    world
}

#[test]
fn ten_different_files_are_exactly_ten_conflicts_with_both_contents_on_both_disks() {
    let mut world = ten_conflicts();
    let numbers = different();
    let resolve = |world: &mut World, number: usize, keep: Keep| {
        let path = RelPath::new(path(number).as_bytes()).unwrap();
        world.pass(10_000);
        world.replica(1).resolve(&path, keep, &mut Silent).unwrap();
    };
    for (at, number) in numbers.iter().enumerate() {
        resolve(&mut world, *number, [Keep::Mine, Keep::Theirs, Keep::Both][at % 3]);
    }
    world.rest();
    world.assert_same();
    let files = world.files(0);
    let both = numbers.iter().enumerate().filter(|(at, _)| at % 3 == 2).count();
    assert_eq!(files.len(), FILES + both);
    for (at, number) in numbers.iter().enumerate() {
        let joiners = format!("joiner's {number}").into_bytes();
        let found = &files[&path(*number)];
        match at % 3 {
            0 => assert_eq!(*found, joiners),
            1 => assert_eq!(*found, text(*number)),
            _ => {
                let count = files.values().filter(|found| **found == joiners || **found == text(*number)).count();
                assert_eq!(count, 2);
            }
        }
    }
    for at in 0..2 {
        assert_eq!(world.replica(at).conflicts().unwrap(), []);
        assert!(world.replica(at).status().unwrap().in_step);
    }
}

#[test]
fn a_lost_index_is_a_full_folder() {
    let mut world = World::new(1, WorldOptions { devices: 2, ..WorldOptions::default() });
    for number in 0..100 {
        world.fs(0).write(path(number), &text(number)).unwrap();
    }
    world.rest();
    // Nothing deleted here is known to be deleted once the index is lost: it comes back, and nothing else is lost.
    world.fs(1).remove(path(5)).unwrap();
    world.fs(1).write(path(6), b"edited here").unwrap();
    world.fs(1).write("new.txt", b"new here").unwrap();
    world.fs(0).write(path(7), b"edited there").unwrap();
    world.fs(0).remove(path(8)).unwrap();
    world.lose_index(1);
    let report = world.sync_well(1);
    assert_eq!(report.sent.deleted, 0);
    world.rest();
    world.assert_same();
    let files = world.files(0);
    assert_eq!(files[&path(5)], text(5));
    assert_eq!(files["new.txt"], b"new here");
    for content in [b"edited here".to_vec(), text(6), b"edited there".to_vec()] {
        assert!(files.values().any(|found| *found == content));
    }
}
