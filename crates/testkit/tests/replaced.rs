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
