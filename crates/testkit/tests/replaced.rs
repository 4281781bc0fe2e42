//! One object in the place of another: what stood there is followed to where it is, and what is there is another.

use packetboat_testkit::sim_fs::SimFs;
use packetboat_testkit::world::{World, WorldOptions};

/// Two devices, in step, with these files, each with its path as its text.
fn world(files: &[&str]) -> World {
    let mut world = World::new(1, WorldOptions { devices: 2, ..WorldOptions::default() });
    for path in files {
        world.fs(0).write(path, format!("text of {path}").as_bytes()).unwrap();
    }
    world.rest();
    world
}

fn paths(world: &World, at: usize) -> Vec<String> {
    world.files(at).into_keys().collect()
}

/// What a user does to a folder with `a/f`, `b/g` and `c/d/h`.
type Wrapping = fn(&SimFs);

/// Ways in which directories go into ones that were made in their places, and what is there then.
const WRAPPING: [(&str, Wrapping, &[&str]); 5] = [
    (
        "into the one in its own place",
        |fs| {
            fs.rename("a", "aside").unwrap();
            fs.make_dir("a").unwrap();
            fs.rename("aside", "a/a").unwrap();
        },
        &["a/a/f", "b/g", "c/d/h"],
    ),
    (
        "deeper, beside a new file that has the name of one that it holds",
        |fs| {
            fs.rename("a", "aside").unwrap();
            fs.write("a/f", b"another").unwrap();
            fs.make_dir("a/within").unwrap();
            fs.rename("aside", "a/within/a").unwrap();
        },
        &["a/f", "a/within/a/f", "b/g", "c/d/h"],
    ),
    (
        "each into the one in the other's place",
        |fs| {
            fs.rename("a", "aside a").unwrap();
            fs.rename("b", "aside b").unwrap();
            fs.make_dir("a").unwrap();
            fs.make_dir("b").unwrap();
            fs.rename("aside a", "b/a").unwrap();
            fs.rename("aside b", "a/b").unwrap();
        },
        &["a/b/g", "b/a/f", "c/d/h"],
    ),
    (
        "the inner into one in the place of the outer",
        |fs| {
            fs.rename("c", "aside").unwrap();
            fs.make_dir("c").unwrap();
            fs.rename("aside/d", "c/inner").unwrap();
            fs.rename("aside", "c/outer").unwrap();
            fs.write("c/outer/d/new", b"new").unwrap();
        },
        &["a/f", "b/g", "c/inner/h", "c/outer/d/new"],
    ),
    (
        "both of two that were one in the other",
        |fs| {
            fs.rename("c/d", "aside d").unwrap();
            fs.make_dir("c/d").unwrap();
            fs.rename("aside d", "c/d/d").unwrap();
            fs.rename("c", "aside c").unwrap();
            fs.make_dir("c").unwrap();
            fs.rename("aside c", "c/c").unwrap();
        },
        &["a/f", "b/g", "c/c/d/d/h"],
    ),
];

/// Story: what stood in a directory's place was taken for that directory made again before anybody had looked into it, and
/// there the recorded one was found: it was to be moved into itself, and every round ended with a panic.
#[test]
fn a_directory_that_was_moved_into_one_made_in_its_place_is_followed() {
    for (how, wrap, expected) in WRAPPING {
        let mut world = world(&["a/f", "b/g", "c/d/h"]);
        world.pass(60_000);
        let inodes = |world: &World, text: &[u8]| {
            let files = world.files(1);
            let path =
                files.iter().find(|(_, found)| *found == text).map(|(path, _)| path.clone()).expect("it is there");
            world.fs(1).stat(path).unwrap().inode
        };
        let texts = [b"text of a/f".as_slice(), b"text of b/g", b"text of c/d/h"];
        let before = texts.map(|text| inodes(&world, text));
        wrap(world.fs(0));
        let sent = world.sync_well(0).sent;
        assert_eq!(sent.deleted, 0, "{how}: {sent:?}");
        world.rest();
        world.assert_same();
        assert_eq!(paths(&world, 1), expected, "{how}");
        assert_eq!(texts.map(|text| inodes(&world, text)), before, "{how}: moved, not written anew");
    }
}

/// Rules that match Packetboat's own directory or what it keeps there while names change places. The first is common.
const RULES: [&str; 5] = [".*", "stage", "park-*", "*-[0-9]*", "**/stage/**"];

/// Story: an object that was parked in staging until its new name was free was found there to be ignored by `.*`, and
/// stayed for ever where nobody sees it.
#[test]
fn rules_that_match_where_objects_are_parked_hold_nothing_back_there() {
    for rule in RULES {
        let mut world = world(&["a/f", "b/g", "c/d/h", "one", "two", "three", "old/x", "old/sub/y"]);
        for at in 0..2 {
            world.fs(at).write(".packetboatignore", rule.as_bytes()).unwrap();
        }
        world.rest();
        let fs = world.fs(0).clone();
        let exchange = |one: &str, other: &str| {
            fs.rename(one, "aside").unwrap();
            fs.rename(other, one).unwrap();
            fs.rename("aside", other).unwrap();
        };
        exchange("one", "two");
        exchange("a", "b");
        // A directory and the one above it.
        fs.rename("c/d", "aside").unwrap();
        fs.rename("c", "aside/c").unwrap();
        fs.rename("aside", "d").unwrap();
        fs.rename("d", "c").unwrap();
        fs.write("c/c/new", b"new").unwrap();
        // A deleted one whose name another takes.
        fs.remove("old").unwrap();
        fs.rename("three", "old").unwrap();
        world.rest();
        world.assert_same();
        let expected = [".packetboatignore", "a/g", "b/f", "c/c/new", "c/h", "old", "one", "two"];
        assert_eq!(paths(&world, 1), expected, "{rule}");
        assert_eq!(world.fs(1).read("one").unwrap(), b"text of two", "{rule}");
        let status = world.replica(1).status().unwrap();
        assert!(status.in_step, "{rule}: {status:?}");
        let left: Vec<_> =
            world.fs(1).tree().into_keys().filter(|path| path.starts_with(b".packetboat/stage/")).collect();
        assert!(left.is_empty(), "{rule}: {left:?}");
    }
}

/// Story: the rule was asked about the directory, and with it the file's record was left alone as ignored, though the file
/// was not: it was neither deleted elsewhere nor brought again, and nothing waited for it.
#[test]
fn a_file_gives_way_to_an_ignored_directory_of_its_name_and_is_deleted_elsewhere() {
    let mut world = world(&["b", "plain"]);
    world.fs(0).write(".packetboatignore", b"/b/").unwrap();
    world.rest();
    world.fs(0).remove("b").unwrap();
    world.fs(0).write("b/within", b"ignored").unwrap();
    assert_eq!(world.sync_well(0).sent.deleted, 1);
    world.rest();
    assert_eq!(paths(&world, 0), [".packetboatignore", "b/within", "plain"]);
    assert_eq!(paths(&world, 1), [".packetboatignore", "plain"]);
    for at in 0..2 {
        assert!(world.replica(at).status().unwrap().in_step);
    }
}

/// Story: an ignored directory in whose place a file came was deleted elsewhere, since the rule was asked about the file.
#[test]
fn an_ignored_directory_that_gives_way_to_a_file_is_not_deleted_elsewhere_and_comes_again() {
    let mut world = world(&["b/within", "b/sub/deep", "plain"]);
    world.fs(0).write(".packetboatignore", b"/b/").unwrap();
    world.rest();
    world.fs(0).remove("b").unwrap();
    world.fs(0).write("b", b"a file").unwrap();
    assert_eq!(world.sync_well(0).sent.deleted, 0);
    for _ in 0..4 {
        world.sync_well(0);
        world.sync_well(1);
    }
    let there = paths(&world, 1);
    assert!(there.contains(&"b/within".to_owned()) && there.contains(&"b/sub/deep".to_owned()), "{there:?}");
    // What holds the rules may not be emptied in one step: the round after next believes it.
    world.fs(0).write(".packetboatignore", b"# nothing").unwrap();
    world.rest();
    world.assert_same();
    let files = world.files(0);
    assert_eq!(files["b/within"], b"text of b/within");
    assert!(files.values().any(|text| text == b"a file"), "{files:?}");
    assert_eq!(files.len(), 5, "{files:?}");
}

/// Story: a directory that was to be merged into the one above it waited for what it held to leave, and that waited for the
/// name of the directory itself. Nothing moved any more.
#[test]
fn a_directory_that_is_merged_into_the_one_above_it_makes_room_for_what_has_its_name() {
    for (held, beside) in [("a/a", "a/b"), ("a/a/deep", "a/b"), ("a/a/a/a", "a/a/b")] {
        let mut world = World::new(1, WorldOptions { devices: 3, ..WorldOptions::default() });
        world.fs(0).write(held, b"held").unwrap();
        world.fs(0).write(beside, b"beside").unwrap();
        world.rest();
        world.fs(0).make_dir("t").unwrap();
        world.fs(0).rename("a", "t/a").unwrap();
        world.sync_well(0);
        world.sync_well(2);
        assert!(world.fs(2).exists(format!("t/{held}")));
        // This one knows nothing of the new directory and gives the old one the same place.
        world.fs(1).rename("a", "t").unwrap();
        world.sync_well(1);
        world.rest();
        world.assert_same();
        let at_top = |path: &str| path.replacen('a', "t", 1);
        assert_eq!(paths(&world, 2), [at_top(held), at_top(beside)]);
        for at in 0..3 {
            assert!(world.replica(at).status().unwrap().in_step, "{held}: {at}");
        }
    }
}

/// Story: the same two levels down. A file was to take the place of a directory that was to go and could not, since it held
/// the one that held the file.
#[test]
fn a_directory_that_is_merged_into_one_far_above_it_makes_room_for_what_has_a_name_on_the_way() {
    for held in ["a/f/b/f", "a/f/b/f/deep"] {
        let mut world = World::new(1, WorldOptions { devices: 3, ..WorldOptions::default() });
        world.fs(0).make_dir("a").unwrap();
        world.fs(0).make_dir("a/f").unwrap();
        world.fs(0).write("a/f/b/c", b"beside").unwrap();
        world.rest();
        // What is innermost takes the place of all that it is in, while another writes into all of these.
        world.fs(0).rename("a/f/b", "t").unwrap();
        world.fs(0).remove("a").unwrap();
        world.fs(0).rename("t", "a").unwrap();
        world.fs(1).write("a/e", b"keeps the outer one").unwrap();
        world.fs(1).write(held, b"held").unwrap();
        world.sync_well(0);
        world.sync_well(1);
        world.rest();
        world.assert_same();
        assert_eq!(paths(&world, 2), ["a/c", "a/e", &held.replacen("a/f/b/", "a/", 1)]);
        for at in 0..3 {
            assert!(world.replica(at).status().unwrap().in_step, "{held}: {at}");
        }
    }
}

/// Two directories come to one name, each with an `a` of another kind, and then one of them goes elsewhere.
#[test]
fn what_was_displaced_while_two_directories_were_one_gets_its_name_when_they_part() {
    let mut world = World::new(1, WorldOptions { devices: 3, ..WorldOptions::default() });
    world.fs(0).write("one/a", b"a file").unwrap();
    world.fs(0).write("other/a/within", b"in a directory").unwrap();
    world.rest();
    world.fs(0).rename("one", "both").unwrap();
    world.sync_well(0);
    world.fs(1).rename("other", "both").unwrap();
    world.sync_well(1);
    world.sync_well(2);
    let displaced = |path: &String| path.starts_with("both/a (conflict");
    for at in 1..3 {
        assert!(paths(&world, at).iter().any(displaced), "{:?}", paths(&world, at));
    }
    // This one has seen no other directory of that name.
    world.fs(0).rename("both", "apart").unwrap();
    world.sync_well(0);
    world.rest();
    world.assert_same();
    assert_eq!(paths(&world, 2), ["apart/a", "both/a/within"]);
}
