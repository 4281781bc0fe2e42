//! Conflicts are settled on one device, and with that everywhere.
#![allow(dead_code)]

mod support;

use packetboat_engine::error::QueryError;
use packetboat_engine::ports::Silent;
use packetboat_engine::replica::Keep;
use support::{Pair, path};

/// Both devices edited one file without knowing of each other; the desk published first.
fn edit_conflict() -> Pair {
    let mut pair = Pair::new();
    pair.laptop.fs.write("dir/f.txt", b"base").unwrap();
    pair.settle();
    pair.pass();
    pair.laptop.fs.write("dir/f.txt", b"laptop's").unwrap();
    pair.desk.fs.write("dir/f.txt", b"desk's").unwrap();
    pair.desk.sync();
    pair.settle();
    assert_eq!(pair.laptop.replica.conflicts().unwrap().len(), 1);
    assert_eq!(pair.desk.replica.conflicts().unwrap().len(), 1);
    assert_eq!(pair.laptop.files().len(), 2);
    pair
}

/// Both devices made a file of one name.
fn name_conflict() -> Pair {
    let mut pair = Pair::new();
    pair.laptop.fs.write("dir/base", b"base").unwrap();
    pair.settle();
    pair.pass();
    pair.laptop.fs.write("dir/f.txt", b"laptop's").unwrap();
    pair.laptop.fs.rename("dir/f.txt", "dir/g.txt").unwrap();
    pair.desk.fs.write("dir/h.txt", b"desk's").unwrap();
    pair.settle();
    pair.laptop.fs.rename("dir/g.txt", "dir/f.txt").unwrap();
    pair.desk.fs.rename("dir/h.txt", "dir/f.txt").unwrap();
    pair.desk.sync();
    pair.settle();
    pair.laptop.fs.remove("dir/base").unwrap();
    pair.settle();
    assert_eq!(pair.laptop.replica.conflicts().unwrap().len(), 1);
    assert_eq!(pair.laptop.files().len(), 2);
    pair
}

fn check_settled(pair: &mut Pair, expected: &[(&str, &str)]) {
    for _ in 0..2 {
        pair.assert_files(expected);
        assert_eq!(pair.laptop.replica.conflicts().unwrap(), []);
        assert_eq!(pair.desk.replica.conflicts().unwrap(), []);
        pair.settle();
    }
    assert!(pair.laptop.replica.status().unwrap().in_step);
    let report = pair.laptop.sync();
    assert_eq!(report.published.packets, 0);
}

#[test]
fn either_side_is_kept_by_whose_it_is_on_either_device_by_either_path() {
    for make in [edit_conflict, name_conflict] {
        for (on_laptop, keep, kept) in [
            (true, Keep::Mine, "laptop's"),
            (true, Keep::Theirs, "desk's"),
            (false, Keep::Mine, "desk's"),
            (false, Keep::Theirs, "laptop's"),
        ] {
            for by_copy in [false, true] {
                let mut pair = make();
                let of = if by_copy { pair.laptop.copy_name() } else { "dir/f.txt".to_owned() };
                let device = if on_laptop { &mut pair.laptop } else { &mut pair.desk };
                let report = device.replica.resolve(&path(&of), keep, &mut Silent).unwrap();
                assert_eq!(report.conflicts, 0);
                assert_eq!(device.files(), [("dir/f.txt".to_owned(), kept.to_owned())]);
                pair.settle();
                check_settled(&mut pair, &[("dir/f.txt", kept)]);
            }
        }
    }
}

#[test]
fn both_sides_become_files_of_their_own_that_stay_apart() {
    for make in [edit_conflict, name_conflict] {
        let mut pair = make();
        let copy = pair.laptop.copy_name();
        let before = pair.laptop.files();
        let inode = pair.desk.fs.stat(&copy).unwrap().inode;
        pair.desk.replica.resolve(&path("dir/f.txt"), Keep::Both, &mut Silent).unwrap();
        assert_eq!(pair.desk.files(), before);
        // Nothing was written again where it stood already.
        assert_eq!(pair.desk.fs.stat(&copy).unwrap().inode, inode);
        pair.settle();
        let expected: Vec<(&str, &str)> = before.iter().map(|(path, text)| (path.as_str(), text.as_str())).collect();
        check_settled(&mut pair, &expected);
        pair.pass();
        pair.laptop.fs.write("dir/f.txt", b"changed").unwrap();
        pair.laptop.fs.rename(&copy, "dir/other.txt").unwrap();
        pair.settle();
        assert_eq!(pair.desk.fs.read("dir/f.txt").unwrap(), b"changed");
        assert!(pair.desk.fs.exists("dir/other.txt"));
        check_settled(&mut pair, &[("dir/f.txt", "changed"), ("dir/other.txt", expected[0].1)]);
    }
}

#[test]
fn an_edit_that_the_settling_device_had_not_seen_stands_beside_what_it_kept() {
    for keep in [Keep::Mine, Keep::Theirs, Keep::Both] {
        let mut pair = edit_conflict();
        pair.pass();
        let copy = pair.laptop.copy_name();
        // The laptop edits both sides and is not online while the desk settles.
        pair.laptop.fs.write("dir/f.txt", b"unseen winner").unwrap();
        pair.laptop.fs.write(&copy, b"unseen loser").unwrap();
        pair.desk.replica.resolve(&path("dir/f.txt"), keep, &mut Silent).unwrap();
        pair.settle();
        let texts: Vec<String> = pair.desk.files().into_iter().map(|(_, text)| text).collect();
        for unseen in ["unseen winner", "unseen loser"] {
            assert!(texts.contains(&unseen.to_owned()), "{keep:?}: {texts:?}");
        }
        assert_eq!(pair.desk.files(), pair.laptop.files());
    }
}

#[test]
fn a_local_edit_of_a_side_counts_before_it_is_settled() {
    let mut pair = edit_conflict();
    pair.pass();
    pair.laptop.fs.write("dir/f.txt", b"newer").unwrap();
    let before = pair.laptop.replica.conflicts().unwrap();
    let keep = if before[0].sides[0].mine { Keep::Mine } else { Keep::Theirs };
    // The edit is this device's, so both sides are now: the one at the path is meant.
    let keep = if keep == Keep::Theirs { Keep::Mine } else { keep };
    pair.laptop.replica.resolve(&path("dir/f.txt"), keep, &mut Silent).unwrap();
    pair.settle();
    check_settled(&mut pair, &[("dir/f.txt", "newer")]);
}

#[test]
fn what_is_in_no_conflict_is_not_settled() {
    let mut pair = edit_conflict();
    for bad in ["dir", "no", "dir/f.txt/x"] {
        let error = pair.laptop.replica.resolve(&path(bad), Keep::Mine, &mut Silent).unwrap_err();
        assert!(matches!(error, QueryError::NoConflict { .. }), "{bad}: {error}");
    }
    assert_eq!(pair.laptop.files().len(), 2);
}

#[test]
fn a_directory_is_never_removed_to_keep_a_file() {
    let mut pair = Pair::new();
    pair.pass();
    pair.laptop.fs.write("x/inside", b"inside").unwrap();
    pair.desk.fs.write("x", b"file").unwrap();
    pair.settle();
    assert_eq!(pair.laptop.files().len(), 2);
    assert_eq!(pair.laptop.replica.conflicts().unwrap().len(), 1);
    let error = pair.desk.replica.resolve(&path("x"), Keep::Mine, &mut Silent).unwrap_err();
    assert!(matches!(error, QueryError::DirectoryInTheWay { .. }), "{error}");
    pair.desk.replica.resolve(&path("x"), Keep::Both, &mut Silent).unwrap();
    pair.settle();
    assert_eq!(pair.laptop.replica.conflicts().unwrap(), []);
    assert_eq!(pair.laptop.files().len(), 2);
    assert_eq!(pair.laptop.files(), pair.desk.files());
}
