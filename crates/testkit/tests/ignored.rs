//! What rules ignore: neither sent nor fetched nor deleted, wherever it is moved.

use packetboat_testkit::world::{World, WorldOptions};

fn world(devices: usize) -> World {
    World::new(1, WorldOptions { devices, ..WorldOptions::default() })
}

fn texts(world: &World, at: usize) -> Vec<(String, String)> {
    world.files(at).into_iter().map(|(path, bytes)| (path, String::from_utf8_lossy(&bytes).into_owned())).collect()
}

fn owned(files: &[(&str, &str)]) -> Vec<(String, String)> {
    files.iter().map(|(path, text)| ((*path).to_owned(), (*text).to_owned())).collect()
}

#[track_caller]
fn assert_all(world: &World, expected: &[(&str, &str)]) {
    for at in 0..world.devices() {
        assert_eq!(texts(world, at), owned(expected), "device {at}");
    }
}

fn overlay(world: &mut World, at: usize, rules: &str) {
    world.replica(at).settings_mut().ignore_overlay = rules.to_owned();
}

#[test]
fn a_file_ignored_on_one_device_is_neither_sent_nor_fetched_nor_deleted() {
    let mut world = world(2);
    overlay(&mut world, 1, "*.iso\n");
    world.fs(0).write("big.iso", b"image").unwrap();
    world.fs(1).write("own.iso", b"own image").unwrap();
    world.fs(1).write("doc", b"text").unwrap();
    world.rest();
    assert_eq!(texts(&world, 0), owned(&[("big.iso", "image"), ("doc", "text")]));
    assert_eq!(texts(&world, 1), owned(&[("doc", "text"), ("own.iso", "own image")]));
    overlay(&mut world, 1, "");
    world.rest();
    assert_all(&world, &[("big.iso", "image"), ("doc", "text"), ("own.iso", "own image")]);
}

#[test]
fn the_vaults_ignore_file_holds_for_all_devices_and_travels() {
    let mut world = world(2);
    world.fs(0).write(".packetboatignore", b"target/\n").unwrap();
    world.fs(0).write("target/out", b"built here").unwrap();
    world.rest();
    world.fs(1).write("target/out", b"built there").unwrap();
    world.fs(1).write("src", b"source").unwrap();
    world.rest();
    assert_eq!(world.fs(0).read("target/out").unwrap(), b"built here");
    assert_eq!(world.fs(1).read("target/out").unwrap(), b"built there");
    assert_eq!(world.fs(0).read("src").unwrap(), b"source");
    assert_eq!(world.sync_well(0).published.packets, 0);
}

#[test]
fn removing_a_file_that_is_ignored_from_now_on_is_no_delete_and_unignoring_brings_it_back() {
    let mut world = world(2);
    world.fs(0).write("notes.tmp", b"in step").unwrap();
    world.fs(0).write("kept.tmp", b"in step too").unwrap();
    world.rest();
    overlay(&mut world, 1, "*.tmp\n");
    world.sync_well(1);
    world.fs(1).remove("notes.tmp").unwrap();
    world.fs(1).write("kept.tmp", b"edited while ignored").unwrap();
    world.rest();
    assert_eq!(texts(&world, 0), owned(&[("kept.tmp", "in step too"), ("notes.tmp", "in step")]));
    world.fs(0).write("notes.tmp", b"edited meanwhile").unwrap();
    world.rest();
    overlay(&mut world, 1, "");
    world.rest();
    assert_all(&world, &[("kept.tmp", "edited while ignored"), ("notes.tmp", "edited meanwhile")]);
}

#[test]
fn a_directory_deleted_elsewhere_stays_for_ignored_files_and_is_not_revived() {
    let mut world = world(2);
    overlay(&mut world, 1, "*.o\n");
    world.fs(0).write("src/a.c", b"code").unwrap();
    world.fs(0).write("src/sub/b.c", b"more").unwrap();
    world.rest();
    world.fs(1).write("src/sub/b.o", b"object").unwrap();
    world.rest();
    world.fs(0).remove("src").unwrap();
    world.rest();
    world.rest();
    assert!(world.tree(0).is_empty(), "{:?}", world.tree(0).keys());
    assert_eq!(texts(&world, 1), owned(&[("src/sub/b.o", "object")]));
    // Somebody makes a directory of that name again: it is the one that stayed.
    world.fs(0).write("src/new.c", b"new").unwrap();
    world.rest();
    assert_eq!(texts(&world, 1), owned(&[("src/new.c", "new"), ("src/sub/b.o", "object")]));
    // A new file beside the ignored one is new, and brings its directory along.
    world.fs(1).write("src/sub/c.c", b"c").unwrap();
    world.rest();
    assert_eq!(texts(&world, 0), owned(&[("src/new.c", "new"), ("src/sub/c.c", "c")]));
}

/// Story: a directory made way for a file of its name and, since something in it was ignored, lay in staging for good.
#[test]
fn a_directory_that_stays_for_ignored_files_is_not_hidden_to_make_way_for_a_file() {
    for deeply in [false, true] {
        let mut world = world(2);
        overlay(&mut world, 1, "*.o\n");
        let object = if deeply { "src/sub/b.o" } else { "src/b.o" };
        world.fs(0).write("src/a.c", b"code").unwrap();
        world.fs(0).write("src/sub/b.c", b"more").unwrap();
        world.rest();
        world.fs(1).write(object, b"object").unwrap();
        world.fs(0).remove("src").unwrap();
        world.fs(0).write("src", b"a file now").unwrap();
        world.sync_well(0);
        for _ in 0..3 {
            let report = world.sync_well(1);
            assert_eq!((report.received.waiting, report.problems), (1, 1));
            assert_eq!(world.fs(1).read(object).unwrap(), b"object", "{deeply}");
        }
        assert_eq!(texts(&world, 1), owned(&[(object, "object")]));
        let staged: Vec<_> =
            world.fs(1).tree().into_keys().filter(|path| path.starts_with(b".packetboat/stage/")).collect();
        assert!(staged.is_empty(), "{staged:?}");
        world.fs(1).rename(object, "kept.o").unwrap();
        world.rest();
        assert_eq!(texts(&world, 1), owned(&[("kept.o", "object"), ("src", "a file now")]));
        assert_eq!(world.sync_well(1).problems, 0);
    }
}

#[test]
fn a_file_whose_place_an_ignored_directory_takes_waits_and_is_told() {
    let mut world = world(2);
    overlay(&mut world, 1, "build/\n");
    world.fs(1).write("build/object", b"object").unwrap();
    world.fs(0).write("build", b"a script").unwrap();
    world.sync_well(0);
    for _ in 0..2 {
        let report = world.sync_well(1);
        assert_eq!((report.received.waiting, report.problems), (1, 1));
    }
    world.fs(1).rename("build", "elsewhere").unwrap();
    world.fs(1).remove("elsewhere").unwrap();
    world.rest();
    assert_all(&world, &[("build", "a script")]);
    assert_eq!(world.sync_well(1).problems, 0);
}

#[test]
fn what_others_move_out_of_what_is_ignored_here_is_made_where_it_went() {
    // It lay in an ignored directory, and so was neither moved nor made: the round ended with a mismatch for good, or was in
    // step without what that directory held.
    for (from, to) in [
        ("x", "out"),
        ("x/sub", "out"),
        ("x/sub/file", "out"),
        ("x/sub", "dir/out"),
        ("dir/x", "out"),
        ("dir/x/deep", "out"),
        ("one.o", "one.c"),
        ("dir", "out"),
    ] {
        for edited in [false, true] {
            let mut world = world(2);
            let files = ["x/file", "x/sub/file", "x/sub/deep/file", "dir/x/deep/file", "dir/kept", "one.o"];
            for file in files {
                world.fs(0).write(file, file.as_bytes()).unwrap();
            }
            world.rest();
            let before = world.files(1);
            overlay(&mut world, 1, "x/\n*.o\n");
            world.sync_well(1);
            // What is new in there never comes here.
            world.fs(0).write("x/sub/deep/new/file", b"x/sub/deep/new/file").unwrap();
            world.fs(0).write("dir/x/deep/new", b"dir/x/deep/new").unwrap();
            world.rest();
            if edited {
                world.fs(1).write("x/sub/file", b"edited while ignored").unwrap();
            }
            world.fs(0).rename(from, to).unwrap();
            world.rest();
            let rules_cover = |path: &str| path.starts_with("x/") || path.contains("/x/") || path.ends_with(".o");
            let seen =
                |at: usize| texts(&world, at).into_iter().filter(|(path, _)| !rules_cover(path)).collect::<Vec<_>>();
            assert_eq!(seen(0), seen(1), "{from} to {to}, {edited}");
            // What is ignored stays as it was.
            for (path, _) in before.iter().filter(|(path, _)| rules_cover(path) && !path.starts_with("dir/x")) {
                assert!(world.fs(1).read(path).is_ok(), "{path} when {from} went to {to}");
            }
            overlay(&mut world, 1, "");
            world.rest();
            assert_eq!(texts(&world, 0), texts(&world, 1), "{from} to {to}, {edited}");
            let texts: Vec<String> = texts(&world, 0).into_iter().map(|(_, text)| text).collect();
            let is_there = |text: &str| texts.iter().any(|found| found == text);
            assert!(files.iter().all(|file| is_there(file) || (edited && *file == "x/sub/file")), "{texts:?}");
            assert_eq!(is_there("edited while ignored"), edited, "{from} to {to}");
            assert_eq!(world.sync_well(1).problems, 0);
        }
    }
}

#[test]
fn what_came_while_its_directory_was_ignored_comes_when_the_rule_goes_and_the_directory_moves_at_once() {
    for moved in [false, true] {
        for deep in ["x/z/new", "x/z/deep/new", "x/z/other/new"] {
            let mut world = world(2);
            world.fs(0).write("x/z/file", b"file").unwrap();
            world.fs(0).write("x/z/deep/file", b"deep").unwrap();
            world.rest();
            world.fs(0).write(".packetboatignore", b"x/\n").unwrap();
            world.rest();
            world.fs(0).write(deep, b"new").unwrap();
            world.fs(0).write(".packetboatignore", b"!else\n").unwrap();
            world.sync_well(0);
            // It learns of both while the former rules hold.
            world.sync_well(1);
            if moved {
                world.fs(0).rename("x/z", "out").unwrap();
                world.sync_well(0);
            }
            world.sync_well(1);
            world.rest();
            assert_eq!(texts(&world, 0), texts(&world, 1), "{deep}, moved: {moved}");
            assert!(texts(&world, 1).iter().any(|(_, text)| text == "new"), "{deep}, moved: {moved}");
        }
    }
}
