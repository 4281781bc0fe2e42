//! Undo takes back what this device published last, and nothing that anybody did since.

mod support;

use packetboat_engine::error::QueryError;
use packetboat_engine::ports::Silent;
use packetboat_engine::replica::Keep;
use packetboat_engine::undo::Undo;
use packetboat_testkit::sim_fs::{Node, SimFs};
use support::{Device, Pair};

fn undo(device: &mut Device) -> Undo {
    device.replica.undo(false, &mut Silent).unwrap()
}

fn left(undo: &Undo) -> Vec<String> {
    undo.left.iter().map(|(path, reason)| format!("{path}: {reason}")).collect()
}

fn vault() -> Pair {
    let mut pair = Pair::new();
    pair.laptop.fs.write("dir/a", b"a").unwrap();
    pair.laptop.fs.write("dir/b", b"b").unwrap();
    pair.laptop.fs.write("c", b"c").unwrap();
    pair.settle();
    pair
}

const BEFORE: [(&str, &str); 3] = [("c", "c"), ("dir/a", "a"), ("dir/b", "b")];

#[test]
fn an_edit_a_delete_a_move_and_a_new_file_are_taken_back_and_done_again_by_another_undo() {
    let mut pair = vault();
    pair.laptop.fs.write("dir/a", b"a changed").unwrap();
    pair.laptop.fs.remove("dir/b").unwrap();
    pair.laptop.fs.rename("c", "moved").unwrap();
    pair.laptop.fs.write("fresh/new", b"new").unwrap();
    pair.laptop.fs.chmod("dir/a", 0o600).unwrap();
    pair.settle();
    let after = [("dir/a", "a changed"), ("fresh/new", "new"), ("moved", "c")];
    pair.assert_files(&after);
    for expected in [&BEFORE[..], &after, &BEFORE, &after] {
        let undone = undo(&mut pair.laptop);
        assert_eq!(left(&undone), Vec::<String>::new());
        pair.settle();
        pair.assert_files(expected);
        let mode = |device: &Device| match device.fs.tree().get(b"dir/a".as_slice()) {
            Some(Node::File { mode, .. }) => *mode,
            other => panic!("{other:?}"),
        };
        let changed = expected == after;
        for device in [&pair.laptop, &pair.desk] {
            assert_eq!(mode(device), if changed { 0o600 } else { 0o644 });
            assert_eq!(device.fs.exists("fresh"), changed);
        }
    }
}

#[test]
fn a_directory_comes_back_with_all_that_it_held() {
    let mut pair = vault();
    pair.laptop.fs.remove("dir").unwrap();
    pair.settle();
    pair.assert_files(&[("c", "c")]);
    undo(&mut pair.laptop);
    pair.settle();
    pair.assert_files(&BEFORE);
    // They are the items that they were: a history goes on.
    undo(&mut pair.laptop);
    pair.settle();
    pair.assert_files(&[("c", "c")]);
}

#[test]
fn what_others_did_since_is_left_and_named() {
    let mut pair = vault();
    pair.laptop.fs.write("c", b"c of the laptop").unwrap();
    pair.laptop.fs.write("dir/a", b"a of the laptop").unwrap();
    pair.laptop.fs.rename("dir/b", "dir/elsewhere").unwrap();
    pair.laptop.fs.write("fresh/new", b"new").unwrap();
    pair.settle();
    pair.desk.fs.write("c", b"c of the desk").unwrap();
    pair.desk.fs.write("dir/b", b"taken").unwrap();
    pair.desk.fs.write("fresh/theirs", b"theirs").unwrap();
    pair.settle();
    let undone = undo(&mut pair.laptop);
    let mut left = left(&undone);
    left.sort();
    assert_eq!(
        left,
        ["c: desk changed it since", "dir/elsewhere: something else stands there now", "fresh: theirs is in it"]
    );
    pair.settle();
    pair.assert_files(&[
        ("c", "c of the desk"),
        ("dir/a", "a"),
        ("dir/b", "taken"),
        ("dir/elsewhere", "b"),
        ("fresh/theirs", "theirs"),
    ]);
}

#[test]
fn what_was_not_published_yet_is_no_part_of_what_is_undone() {
    let mut pair = vault();
    pair.laptop.fs.write("c", b"published").unwrap();
    pair.settle();
    pair.laptop.fs.write("c", b"not yet").unwrap();
    pair.pass();
    let undone = undo(&mut pair.laptop);
    assert_eq!(undone.steps.len(), 0, "{undone:?}");
    assert_eq!(left(&undone), ["c: laptop changed it since"]);
    pair.settle();
    pair.assert_files(&[("c", "not yet"), ("dir/a", "a"), ("dir/b", "b")]);
}

#[test]
fn an_edit_that_was_on_its_way_stands_beside_what_was_brought_back() {
    let mut pair = vault();
    pair.laptop.fs.write("c", b"wrong").unwrap();
    pair.settle();
    pair.desk.fs.write("c", b"built on it").unwrap();
    undo(&mut pair.laptop);
    pair.settle();
    let contents: Vec<String> = pair.laptop.files().into_iter().map(|(_, text)| text).collect();
    assert!(contents.contains(&"built on it".to_owned()) && contents.contains(&"c".to_owned()), "{contents:?}");
    assert_eq!(pair.laptop.files(), pair.desk.files());
}

#[test]
fn a_preview_says_the_same_and_changes_nothing() {
    let mut pair = vault();
    pair.laptop.fs.write("c", b"changed").unwrap();
    pair.laptop.fs.set_user_xattr("dir/a", b"user.tag", Some(b"x")).unwrap();
    pair.settle();
    let names = pair.store.names();
    let preview = pair.laptop.replica.undo(true, &mut Silent).unwrap();
    assert_eq!(preview.steps.len(), 2, "{preview:?}");
    assert!(preview.round.is_none());
    assert_eq!(pair.store.names(), names);
    let done = undo(&mut pair.laptop);
    assert_eq!(done.steps, preview.steps);
    pair.settle();
    pair.assert_files(&BEFORE);
    match pair.desk.fs.tree().get(b"dir/a".as_slice()) {
        Some(Node::File { xattrs, .. }) => assert!(xattrs.is_empty(), "{xattrs:?}"),
        other => panic!("{other:?}"),
    }
}

#[test]
fn who_published_nothing_has_nothing_to_undo() {
    let mut pair = vault();
    assert!(matches!(pair.desk.replica.undo(true, &mut Silent), Err(QueryError::NothingToUndo)));
}

/// Story: what an undo brought back of a settled conflict, the next one wrote again, and the file that had come of it came
/// back beside it: a conflict and three files.
#[test]
fn a_settled_conflict_is_back_after_an_undo_and_settled_after_another() {
    let mut pair = vault();
    pair.pass();
    pair.laptop.fs.write("c", b"c of the laptop").unwrap();
    pair.desk.fs.write("c", b"c of the desk").unwrap();
    pair.desk.sync();
    pair.settle();
    let path = support::path("c");
    pair.laptop.replica.resolve(&path, Keep::Both, &mut Silent).unwrap();
    pair.settle();
    let settled = pair.laptop.files();
    assert_eq!(settled.len(), 4);
    for _ in 0..2 {
        assert_eq!(left(&undo(&mut pair.laptop)), Vec::<String>::new());
        pair.settle();
        assert_eq!(pair.desk.replica.conflicts().unwrap().len(), 1);
        assert_eq!(pair.laptop.files().len(), 4);
        let again = undo(&mut pair.laptop);
        assert_eq!(left(&again), Vec::<String>::new());
        pair.settle();
        for device in [&mut pair.laptop, &mut pair.desk] {
            assert_eq!(device.replica.conflicts().unwrap(), []);
            assert_eq!(device.files(), settled);
        }
    }
    // Where somebody has settled it meanwhile, nothing of theirs is dropped.
    undo(&mut pair.laptop);
    pair.settle();
    pair.desk.replica.resolve(&path, Keep::Mine, &mut Silent).unwrap();
    pair.settle();
    let kept = pair.desk.files();
    let last = undo(&mut pair.laptop);
    assert!(left(&last).iter().any(|left| left.contains("changed it since")), "{last:?}");
    pair.settle();
    for file in kept {
        assert!(pair.laptop.files().contains(&file), "{file:?}");
    }
}

/// Story: of a conflict with three sides that `resolve --keep both` had settled, undo brought back two.
#[test]
fn all_sides_of_a_settled_conflict_are_back_after_an_undo() {
    for by_resolving in [true, false] {
        let mut pair = vault();
        let mut third = pair.third();
        third.sync();
        pair.pass();
        third.fs.write("c", b"c of the third").unwrap();
        pair.laptop.fs.write("c", b"c of the laptop").unwrap();
        pair.desk.fs.write("c", b"c of the desk").unwrap();
        third.sync();
        pair.desk.sync();
        pair.settle();
        let before = pair.laptop.files();
        assert_eq!(before.len(), 5);
        if by_resolving {
            pair.laptop.replica.resolve(&support::path("c"), Keep::Both, &mut Silent).unwrap();
        } else {
            for (path, _) in before.iter().filter(|(path, _)| path.contains("(conflict")) {
                pair.laptop.fs.remove(path).unwrap();
            }
        }
        pair.settle();
        let settled = pair.laptop.files();
        assert_eq!(pair.laptop.replica.conflicts().unwrap(), []);
        for _ in 0..2 {
            assert_eq!(left(&undo(&mut pair.laptop)), Vec::<String>::new());
            pair.settle();
            assert_eq!(pair.desk.replica.conflicts().unwrap()[0].sides.len(), 3);
            for device in [&pair.laptop, &pair.desk] {
                let texts = |files: Vec<(String, String)>| {
                    files.into_iter().map(|(_, text)| text).collect::<std::collections::BTreeSet<_>>()
                };
                assert_eq!(texts(device.files()), texts(before.clone()));
            }
            assert_eq!(left(&undo(&mut pair.laptop)), Vec::<String>::new());
            pair.settle();
            assert_eq!(pair.laptop.files(), settled);
            assert_eq!(pair.desk.files(), settled);
            assert_eq!(pair.laptop.replica.conflicts().unwrap(), []);
        }
    }
}

/// What a user does on a disk, given the name of the only conflict copy.
type ByHand = fn(&SimFs, &str);

/// What is done to the two sides of a conflict with ordinary tools: at the file's own name, and at the name of its copy.
const BY_HAND: [(&str, ByHand); 12] = [
    ("the file is removed", |fs, _| fs.remove("c").unwrap()),
    ("the copy is removed", |fs, copy| fs.remove(copy).unwrap()),
    ("both are removed", |fs, copy| {
        fs.remove("c").unwrap();
        fs.remove(copy).unwrap();
    }),
    ("the file is moved", |fs, _| fs.rename("c", "d").unwrap()),
    ("the copy is moved", |fs, copy| fs.rename(copy, "d").unwrap()),
    ("both are moved", |fs, copy| {
        fs.rename("c", "d").unwrap();
        fs.rename(copy, "e").unwrap();
    }),
    ("the copy takes the place of the file", |fs, copy| fs.rename(copy, "c").unwrap()),
    ("the file takes the place of the copy", |fs, copy| fs.rename("c", copy).unwrap()),
    ("the file is removed and the copy moved", |fs, copy| {
        fs.remove("c").unwrap();
        fs.rename(copy, "d").unwrap();
    }),
    ("the copy is removed and the file moved", |fs, copy| {
        fs.remove(copy).unwrap();
        fs.rename("c", "d").unwrap();
    }),
    ("they change places", |fs, copy| {
        fs.rename("c", "d").unwrap();
        fs.rename(copy, "c").unwrap();
        fs.rename("d", copy).unwrap();
    }),
    ("they are merged by hand", |fs, copy| {
        fs.remove(copy).unwrap();
        fs.write("c", b"c of both").unwrap();
    }),
];

/// Story: after both sides of a conflict were moved, undone, and that undone, the next undo said that it took something
/// back and took back only half: one operation had become packets that were not known as one. Where one side had been
/// written over the other, undo made a packet that set one file twice, and panicked.
#[test]
fn whatever_was_done_to_a_conflict_by_hand_is_taken_back_whole_and_done_again() {
    for (what, by_hand) in BY_HAND {
        for (is_one_file, is_laptop) in [(true, true), (true, false), (false, true), (false, false)] {
            let what = format!("{what}; of one file: {is_one_file}; by the laptop: {is_laptop}");
            let mut pair = Pair::new();
            pair.laptop.fs.write(if is_one_file { "c" } else { "other" }, b"c").unwrap();
            pair.settle();
            pair.pass();
            pair.laptop.fs.write("c", b"c of the laptop").unwrap();
            pair.desk.fs.write("c", b"c of the desk").unwrap();
            pair.desk.sync();
            pair.settle();
            let before = pair.laptop.files();
            let copy = pair.laptop.copy_name();
            by_hand(if is_laptop { &pair.laptop.fs } else { &pair.desk.fs }, &copy);
            pair.settle();
            let after = pair.laptop.files();
            assert_ne!(after, before, "{what}");
            for expected in [&before, &after, &before, &after] {
                let undone = undo(if is_laptop { &mut pair.laptop } else { &mut pair.desk });
                assert_eq!(left(&undone), Vec::<String>::new(), "{what}");
                pair.settle();
                assert_eq!((&pair.laptop.files(), &pair.desk.files()), (expected, expected), "{what}");
            }
        }
    }
}

/// Story: the sides of a conflict were removed one after the other, and an undo of the second brought back both. An undo
/// of removing both at once brought them back as what remains of a removed file: an edit of one made the other vanish.
#[test]
fn what_was_removed_before_stays_so_and_what_is_back_stands_for_itself() {
    for at_once in [true, false] {
        let mut pair = vault();
        pair.pass();
        pair.laptop.fs.write("c", b"c of the laptop").unwrap();
        pair.desk.fs.write("c", b"c of the desk").unwrap();
        pair.desk.sync();
        pair.settle();
        let both = pair.laptop.files();
        let copy = pair.laptop.copy_name();
        pair.laptop.fs.remove(&copy).unwrap();
        if !at_once {
            pair.settle();
        }
        let one = pair.laptop.files();
        pair.laptop.fs.remove("c").unwrap();
        pair.settle();
        let gone = pair.laptop.files();
        for expected in [if at_once { &both } else { &one }, &gone, if at_once { &both } else { &one }] {
            assert_eq!(left(&undo(&mut pair.laptop)), Vec::<String>::new());
            pair.settle();
            assert_eq!((&pair.laptop.files(), &pair.desk.files()), (expected, expected), "at once: {at_once}");
        }
        pair.desk.fs.write("c", b"edited").unwrap();
        pair.settle();
        let edited = |files: Vec<(String, String)>| {
            files.into_iter().map(|(path, text)| if path == "c" { (path, "edited".to_owned()) } else { (path, text) })
        };
        let expected: Vec<_> = edited(if at_once { both } else { one }).collect();
        assert_eq!((&pair.laptop.files(), &pair.desk.files()), (&expected, &expected), "at once: {at_once}");
    }
}
