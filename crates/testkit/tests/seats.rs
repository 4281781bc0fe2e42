//! Conflict seats: who stands at the path and who beside it, on every disk the same, until ordinary tools settle it.

use std::collections::BTreeMap;

use packetboat_core::name::RelPath;
use packetboat_engine::ports::Silent;
use packetboat_engine::replica::Keep;
use packetboat_testkit::world::{World, WorldOptions};

/// Two devices in conflict about one file, and a third that only looks.
fn conflict() -> World {
    let mut world = World::new(1, WorldOptions { devices: 3, ..WorldOptions::default() });
    world.fs(0).write("dir/f.txt", b"first").unwrap();
    world.rest();
    world.fs(0).write("dir/f.txt", b"by 0").unwrap();
    world.fs(1).write("dir/f.txt", b"by 1").unwrap();
    world.rest();
    world.assert_same();
    assert_eq!(world.files(2).len(), 2);
    world
}

/// The path of the conflict copy.
fn copy(world: &World) -> String {
    world.files(2).into_keys().find(|path| path.contains("(conflict ")).unwrap()
}

#[track_caller]
fn assert_settled(world: &mut World, expected: &[(&str, &[u8])]) {
    world.rest();
    let expected: BTreeMap<String, Vec<u8>> =
        expected.iter().map(|(path, bytes)| ((*path).to_owned(), bytes.to_vec())).collect();
    for at in 0..world.devices() {
        assert_eq!(world.files(at), expected, "device {at}");
        assert_eq!(world.replica(at).conflicts().unwrap(), [], "device {at}");
        assert_eq!(world.sync_well(at).conflicts, 0);
    }
}

#[test]
fn further_edits_of_one_branch_change_no_seats_and_no_names() {
    for side in 0..2 {
        let mut world = conflict();
        let (plain, copy) = ("dir/f.txt".to_owned(), copy(&world));
        let before = world.files(2);
        let branch = if side == 0 { &plain } else { &copy };
        let other = if side == 0 { &copy } else { &plain };
        for edit in 0..20 {
            let text = format!("{edit} of one branch");
            world.fs(edit % 2).write(branch, text.as_bytes()).unwrap();
            for at in 0..3 {
                world.sync_well((at + edit) % 3);
            }
            world.rest();
            for at in 0..3 {
                let files = world.files(at);
                assert_eq!(files.len(), 2, "{files:?}");
                assert!(files.contains_key(branch), "edit {edit} of {branch} on {at}: {files:?}, before {before:?}");
                assert_eq!(files[branch], text.as_bytes(), "edit {edit} on {at}");
                assert_eq!(files[other], before[other], "edit {edit} on {at}");
            }
        }
        assert_eq!(world.replica(2).conflicts().unwrap().len(), 1);
    }
}

#[test]
fn edits_made_offline_before_the_conflict_was_known_change_no_seats_afterwards() {
    let mut world = World::new(2, WorldOptions { devices: 3, ..WorldOptions::default() });
    world.fs(0).write("f.txt", b"first").unwrap();
    world.rest();
    world.fs(0).write("f.txt", b"by 0").unwrap();
    world.sync_well(0);
    world.fs(1).write("f.txt", b"by 1").unwrap();
    world.rest();
    let seats = |world: &World| world.files(2).into_iter().map(|(path, text)| (text, path)).collect::<BTreeMap<_, _>>();
    let before = seats(&world);
    // Both go on, one of them often.
    for edit in 0..8 {
        let path = before[b"by 0".as_slice()].clone();
        world.fs(0).write(&path, format!("by 0, edit {edit}").as_bytes()).unwrap();
        world.sync_well(0);
    }
    world.rest();
    world.assert_same();
    let after = seats(&world);
    assert_eq!(after[b"by 0, edit 7".as_slice()], before[b"by 0".as_slice()]);
    assert_eq!(after[b"by 1".as_slice()], before[b"by 1".as_slice()]);
}

#[test]
fn deleting_the_copy_settles_it_everywhere() {
    for at in 0..3 {
        let mut world = conflict();
        let winner = world.files(0)["dir/f.txt"].clone();
        world.fs(at).remove(copy(&world)).unwrap();
        assert_settled(&mut world, &[("dir/f.txt", &winner)]);
    }
}

#[test]
fn deleting_the_file_at_the_path_gives_it_to_what_remains() {
    for at in 0..3 {
        let mut world = conflict();
        let loser = world.files(0)[&copy(&world)].clone();
        world.fs(at).remove("dir/f.txt").unwrap();
        assert_settled(&mut world, &[("dir/f.txt", &loser)]);
    }
}

#[test]
fn deleting_both_deletes_the_file() {
    let mut world = conflict();
    world.fs(2).remove(copy(&world)).unwrap();
    world.fs(2).remove("dir/f.txt").unwrap();
    assert_settled(&mut world, &[]);
    // On two devices, each one side.
    let mut world = conflict();
    world.fs(0).remove(copy(&world)).unwrap();
    world.fs(1).remove("dir/f.txt").unwrap();
    assert_settled(&mut world, &[]);
}

#[test]
fn renaming_the_copy_away_makes_it_a_file_of_its_own() {
    for to in ["dir/mine.txt", "elsewhere.txt"] {
        let mut world = conflict();
        let files = world.files(0);
        let copy = copy(&world);
        world.fs(2).rename(&copy, to).unwrap();
        assert_settled(&mut world, &[("dir/f.txt", &files["dir/f.txt"]), (to, &files[&copy])]);
        world.fs(1).write(to, b"edited").unwrap();
        assert_settled(&mut world, &[("dir/f.txt", &files["dir/f.txt"]), (to, b"edited")]);
    }
}

#[test]
fn renaming_the_file_at_the_path_moves_the_conflict_with_it() {
    let mut world = conflict();
    world.fs(2).rename("dir/f.txt", "dir/g.txt").unwrap();
    world.rest();
    world.assert_same();
    let files = world.files(0);
    assert_eq!(files.len(), 2, "{files:?}");
    assert!(files.contains_key("dir/g.txt"), "{files:?}");
    let contents: Vec<&[u8]> = files.values().map(Vec::as_slice).collect();
    assert!(contents.contains(&b"by 0".as_slice()) && contents.contains(&b"by 1".as_slice()));
}

#[test]
fn copying_one_over_the_other_settles_it() {
    for copy_wins in [true, false] {
        let mut world = conflict();
        let copy = copy(&world);
        let files = world.files(0);
        let (from, to) = if copy_wins { (copy.as_str(), "dir/f.txt") } else { ("dir/f.txt", copy.as_str()) };
        world.fs(2).write(to, &files[from]).unwrap();
        assert_settled(&mut world, &[("dir/f.txt", &files[from])]);
    }
}

#[test]
fn renaming_the_copy_over_the_file_keeps_the_copys_content() {
    for at in 0..3 {
        let mut world = conflict();
        let copy = copy(&world);
        let loser = world.files(0)[&copy].clone();
        world.fs(at).rename(&copy, "dir/f.txt").unwrap();
        assert_settled(&mut world, &[("dir/f.txt", &loser)]);
    }
}

/// Story: the copy was moved over the file while another device edited that file. The bytes at the path were those of a
/// version in the vault, which was taken for agreement; the copy was gone from its place, which deleted that version; and
/// the edit, which nobody at the first device had seen, was all that was left.
#[test]
fn renaming_the_copy_over_a_file_that_another_edits_keeps_both() {
    for removes_first in [false, true] {
        let mut world = conflict();
        let copy = copy(&world);
        let kept = world.files(2)[&copy].clone();
        world.fs(1).write("dir/f.txt", b"edited unseen").unwrap();
        world.sync_well(1);
        if removes_first {
            world.fs(0).remove("dir/f.txt").unwrap();
        }
        world.fs(0).rename(&copy, "dir/f.txt").unwrap();
        world.rest();
        world.assert_same();
        for at in 0..3 {
            let contents: Vec<Vec<u8>> = world.files(at).into_values().collect();
            assert_eq!(contents.len(), 2, "device {at}");
            assert!(contents.contains(&kept), "device {at} lost what was kept");
            assert!(contents.contains(&b"edited unseen".to_vec()), "device {at} lost the edit");
        }
    }
}

#[test]
fn settling_on_two_devices_at_once_loses_nothing_that_was_kept() {
    for (first, second) in [(Keep::Mine, Keep::Mine), (Keep::Mine, Keep::Theirs), (Keep::Both, Keep::Mine)] {
        let mut world = conflict();
        let path = RelPath::new(b"dir/f.txt").unwrap();
        world.pass(10_000);
        // Neither sees the other's settlement: 1 looks at the storage as it was.
        let before = world.shelf().snapshot();
        world.replica(0).resolve(&path, first, &mut Silent).unwrap();
        let after = world.shelf().snapshot();
        world.shelf().restore_snapshot(&before);
        world.replica(1).resolve(&path, second, &mut Silent).unwrap();
        let late = world.shelf().snapshot();
        world.shelf().restore_snapshot(&before);
        let old = world.shelf().objects();
        world.shelf().restore_snapshot(&after);
        let new = world.shelf().objects();
        world.shelf().restore_snapshot(&late);
        for (name, bytes) in new.into_iter().filter(|(name, bytes)| old.get(name) != Some(bytes)) {
            world.shelf().plant(&name, &bytes);
        }
        for _ in 0..4 {
            for at in 0..3 {
                world.sync_well(at);
            }
        }
        world.assert_same();
        let files = world.files(2);
        let kept = |text: &[u8]| files.values().any(|found| found == text);
        match (first, second) {
            // 0 kept what 0 wrote, 1 what 1 wrote: still a conflict.
            (Keep::Mine, Keep::Mine) => assert!(kept(b"by 0") && kept(b"by 1"), "{files:?}"),
            (Keep::Mine, Keep::Theirs) => assert!(kept(b"by 0"), "{files:?}"),
            _ => assert!(kept(b"by 1"), "{files:?}"),
        }
    }
}

/// Story: both sides were kept, one of them edited elsewhere unseen, so that its branch stood beside the new file under
/// a longer name; when that file was moved away, the devices disagreed on which name the branch has.
#[test]
fn a_file_that_bears_a_copys_name_lengthens_the_copys_name_while_it_stands_there() {
    for mover in 0..3 {
        let mut world = conflict();
        let copy = copy(&world);
        world.replica(0).resolve(&RelPath::new(copy.as_bytes()).unwrap(), Keep::Both, &mut Silent).unwrap();
        world.fs(1).write(&copy, b"unseen").unwrap();
        world.rest();
        world.assert_same();
        assert_eq!(world.files(2).len(), 3, "{:?}", world.files(2));
        assert_ne!(world.files(2)[&copy], b"unseen");
        world.fs(mover).rename(&copy, "elsewhere").unwrap();
        world.rest();
        world.assert_same();
        assert_eq!(world.files(mover)[&copy], b"unseen", "{:?}", world.files(mover));
        world.fs(mover).rename("elsewhere", "dir/now").unwrap();
        world.rest();
        world.assert_same();
    }
}

#[test]
fn a_file_moved_out_of_one_of_two_directories_seen_as_one_leaves_its_name_to_the_other() {
    for mover in 0..2 {
        for moved_plain in [true, false] {
            let mut world = World::new(3, WorldOptions { devices: 2, ..WorldOptions::default() });
            world.fs(0).write("dir/f", b"by 0").unwrap();
            world.fs(1).write("dir/f", b"by 1").unwrap();
            // Both publish before either learns, so there are two directories and two files.
            let empty = world.shelf().snapshot();
            world.sync_well(0);
            let published = world.shelf().objects();
            world.shelf().restore_snapshot(&empty);
            world.sync_well(1);
            published.iter().for_each(|(name, bytes)| world.shelf().plant(name, bytes));
            world.rest();
            world.assert_same();
            let files = world.files(0);
            assert_eq!(files.len(), 2, "{files:?}");
            let path = files.keys().find(|name| (*name == "dir/f") == moved_plain).unwrap();
            let (_, staying) = files.iter().find(|(name, _)| *name != path).unwrap();
            world.fs(mover).rename(path, "elsewhere").unwrap();
            world.rest();
            world.assert_same();
            assert_eq!(world.files(0)["dir/f"], *staying, "{:?}", world.files(0));
        }
    }
}
