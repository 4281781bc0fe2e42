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

/// Story: whoever puts a directory one level deeper under its own name (`mv d x; mkdir d; mv x d/old`) had it published
/// as a directory within itself, which no packet may say; the round ended in a panic, and so did each that followed.
#[test]
fn a_directory_goes_one_level_down_into_a_new_one_of_its_name() {
    let mut world = story(&[("d/a", "1"), ("d/sub/b", "2"), ("c", "3")], |world| {
        world.fs(0).rename("d", "x").unwrap();
        world.fs(0).make_dir("d").unwrap();
        world.fs(0).rename("x", "d/old").unwrap();
    });
    assert_eq!(world.files(1).into_keys().collect::<Vec<_>>(), ["c", "d/old/a", "d/old/sub/b"]);
    // And once more, at two levels at once.
    for (dir, to) in [("d/old/sub", "d/old/sub/down"), ("d/old", "d/old/down"), ("d", "d/down")] {
        world.fs(0).rename(dir, "x").unwrap();
        world.fs(0).make_dir(dir).unwrap();
        world.fs(0).rename("x", to).unwrap();
    }
    assert_eq!(world.sync_well(0).sent.deleted, 0);
    world.rest();
    world.assert_same();
    assert_eq!(
        world.files(1).into_keys().collect::<Vec<_>>(),
        ["c", "d/down/old/down/a", "d/down/old/down/sub/down/b"]
    );
}

/// Story: two directories, each put into a new one of the other's name. The new ones were taken for the old ones, which
/// then lay within each other, and the round did not end.
#[test]
fn directories_go_each_into_a_new_one_of_the_others_name() {
    let mut world = story(&[("d/a", "1"), ("e/b", "2")], |world| {
        world.fs(0).rename("d", "x").unwrap();
        world.fs(0).rename("e", "y").unwrap();
        world.fs(0).make_dir("d").unwrap();
        world.fs(0).make_dir("e").unwrap();
        world.fs(0).rename("x", "e/d").unwrap();
        world.fs(0).rename("y", "d/e").unwrap();
    });
    assert_eq!(world.files(1).into_keys().collect::<Vec<_>>(), ["d/e/b", "e/d/a"]);
    assert_eq!(world.sync_well(0).published.packets, 0);
}
