//! Several renames between two rounds, of which one takes the name that another left.

use packetboat_testkit::world::{World, WorldOptions};

fn pair() -> World {
    World::new(1, WorldOptions { devices: 2, ..WorldOptions::default() })
}

/// Lets device 0 have `before`, both come to rest, `user` act on it, both come to rest; then both show what 0 shows.
fn story(before: &[(&str, &str)], user: impl Fn(&World)) -> World {
    let mut world = pair();
    for (path, text) in before {
        world.fs(0).write(path, text.as_bytes()).unwrap();
    }
    world.rest();
    user(&world);
    let expected = world.tree(0);
    world.rest();
    world.assert_same();
    assert_eq!(world.tree(0), expected);
    // Nothing recorded hangs in the air: what is edited now still travels.
    for (path, _) in world.files(0) {
        world.fs(0).write(&path, format!("{path} again").as_bytes()).unwrap();
    }
    let report = world.sync_well(0);
    assert_eq!(report.sent.created + report.sent.moved + report.sent.deleted, 0, "{report:?}");
    world.rest();
    world.assert_same();
    assert_eq!(world.tree(0).len(), expected.len());
    world
}

#[test]
fn a_directory_takes_the_name_of_a_file_that_went_into_it() {
    story(&[("a/a", "1"), ("a/b", "2"), ("e.txt", "3")], |world| {
        world.fs(0).rename("e.txt", "a/f").unwrap();
        world.fs(0).rename("a", "e.txt").unwrap();
    });
}

#[test]
fn a_new_directory_takes_the_name_of_a_file_that_went_into_it() {
    story(&[("f", "1"), ("g", "2")], |world| {
        world.fs(0).make_dir("t").unwrap();
        world.fs(0).rename("f", "t/inner").unwrap();
        world.fs(0).rename("t", "f").unwrap();
    });
}

#[test]
fn a_file_takes_the_name_of_a_directory_that_was_renamed() {
    for to in ["a", "z"] {
        story(&[("d/x", "1"), ("d/y/z", "2")], |world| {
            world.fs(0).rename("d", to).unwrap();
            world.fs(0).write("d", b"new").unwrap();
        });
    }
}

#[test]
fn a_file_takes_the_name_of_the_directory_that_it_was_in() {
    story(&[("d/x", "1"), ("d/y", "2")], |world| {
        world.fs(0).rename("d", "t").unwrap();
        world.fs(0).rename("t/x", "d").unwrap();
    });
}

#[test]
fn directories_swap_their_names() {
    story(&[("a/x", "1"), ("b/y", "2"), ("c/z", "3")], |world| {
        world.fs(0).rename("a", "t").unwrap();
        world.fs(0).rename("b", "a").unwrap();
        world.fs(0).rename("c", "b").unwrap();
        world.fs(0).rename("t", "c").unwrap();
    });
}

#[test]
fn a_directory_takes_the_name_of_the_one_it_was_in() {
    story(&[("a/b/c", "1"), ("a/d", "2")], |world| {
        world.fs(0).rename("a/b", "t").unwrap();
        world.fs(0).rename("a", "t/a").unwrap();
        world.fs(0).rename("t", "a").unwrap();
    });
}
