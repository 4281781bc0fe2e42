//! What users of other tools suffer, a test each: nothing of it may happen here.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use packetboat_core::name::RelPath;
use packetboat_core::store::ObjectName;
use packetboat_engine::error::SyncError;
use packetboat_engine::ports::Silent;
use packetboat_engine::replica::{Action, SyncOptions};
use packetboat_testkit::sim_fs::{Node, SimFs, SimOptions};
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

// Floods of conflicts.

#[test]
fn identical_bytes_on_many_devices_are_no_conflict() {
    let mut world = world(5);
    world.fs(0).write("f", b"first").unwrap();
    world.rest();
    for at in 0..5 {
        world.fs(at).write("f", b"the same").unwrap();
        world.fs(at).write("new", b"the same new").unwrap();
    }
    world.rest();
    assert_all(&world, &[("f", "the same"), ("new", "the same new")]);
    assert_eq!(world.sync_well(2).conflicts, 0);
}

#[test]
fn an_editor_that_saves_by_renaming_makes_no_conflicts() {
    let mut world = world(2);
    world.fs(0).write("paper.tex", b"draft").unwrap();
    world.rest();
    for save in 0..50 {
        let text = format!("draft {save}");
        world.fs(0).write(".paper.tex.swp", text.as_bytes()).unwrap();
        if save % 2 == 0 {
            // Some keep what was under another name.
            if world.fs(0).exists("paper.tex~") {
                world.fs(0).remove("paper.tex~").unwrap();
            }
            world.fs(0).rename("paper.tex", "paper.tex~").unwrap();
        }
        world.fs(0).rename(".paper.tex.swp", "paper.tex").unwrap();
        let report = world.sync_well(0);
        assert_eq!((report.sent.moved, report.conflicts), (0, 0), "save {save}");
        if save % 3 == 0 {
            assert_eq!(world.sync_well(1).conflicts, 0, "save {save}");
        }
    }
    world.rest();
    assert_all(&world, &[("paper.tex", "draft 49"), ("paper.tex~", "draft 47")]);
}

#[test]
fn a_conflict_is_one_object_with_the_same_names_on_ten_devices() {
    let mut world = world(10);
    world.fs(0).write("f.txt", b"first").unwrap();
    world.rest();
    for at in 0..10 {
        world.fs(at).write("f.txt", format!("by {at}").as_bytes()).unwrap();
    }
    world.rest();
    for at in 0..10 {
        assert_eq!(texts(&world, at).len(), 10);
        assert_eq!(texts(&world, at), texts(&world, 0));
        assert_eq!(world.replica(at).conflicts().unwrap().len(), 1);
    }
}

// Times.

#[test]
fn times_reset_to_1970_upload_nothing() {
    let mut world = world(2);
    for number in 0..100 {
        world.fs(0).write(format!("d/{number}"), format!("text {number}").as_bytes()).unwrap();
    }
    world.rest();
    let puts = world.store(0).requests().puts;
    for number in 0..100 {
        world.fs(0).touch(format!("d/{number}"), 0).unwrap();
    }
    let report = world.sync_well(0);
    assert_eq!((report.published.packets, report.sent.edited), (0, 0));
    assert_eq!(world.store(0).requests().puts, puts);
    // And they are not read again and again.
    assert_eq!(world.sync_well(0).sent.bytes_read, 0);
}

#[test]
fn an_edit_with_an_older_time_is_an_edit_and_the_newest_does_not_win() {
    let mut world = world(2);
    world.fs(0).write("f", b"first").unwrap();
    world.rest();
    world.fs(0).write("f", b"edited, with an old time").unwrap();
    world.fs(0).touch("f", 1_000_000_000).unwrap();
    world.rest();
    assert_all(&world, &[("f", "edited, with an old time")]);
    world.fs(0).write("f", b"left").unwrap();
    world.fs(1).write("f", b"right").unwrap();
    world.fs(1).touch("f", 4_000_000_000_000_000_000).unwrap();
    world.rest();
    let files = world.files(0);
    assert!(files.values().any(|text| text == b"left") && files.values().any(|text| text == b"right"));
    assert_eq!(files, world.files(1));
}

#[test]
fn an_edit_within_the_granularity_of_times_is_seen() {
    let mut world = world(1);
    let coarse = world.join(SimFs::new(SimOptions { time_granularity: 2_000_000_000, ..SimOptions::default() }));
    world.fs(coarse).write("f", b"aaaa").unwrap();
    world.sync_well(coarse);
    for number in 0..3 {
        // Recorded and then edited within one tick, in place and with the same size: `stat` says the same.
        world.fs(coarse).write("f", format!("{number}aaa").as_bytes()).unwrap();
        world.replica(coarse).sync(SyncOptions::default(), &mut Silent).unwrap();
        let before = world.fs(coarse).stat("f").unwrap();
        let text = format!("{number}bbb").into_bytes();
        world.fs(coarse).write("f", &text).unwrap();
        assert_eq!(world.fs(coarse).stat("f").unwrap(), before);
        world.replica(coarse).sync(SyncOptions::default(), &mut Silent).unwrap();
        world.sync_well(0);
        assert_eq!(world.fs(0).read("f").unwrap(), text);
    }
    // What another wrote and was brought here is edited within the same tick.
    world.fs(0).write("f", b"eeee").unwrap();
    world.sync_well(0);
    world.sync_well(coarse);
    world.fs(coarse).write("f", b"ffff").unwrap();
    world.rest();
    assert_all(&world, &[("f", "ffff")]);
}

#[test]
fn a_symlink_replaced_within_a_tick_by_one_of_equal_length_is_seen() {
    let mut world = world(2);
    world.fs(0).make_symlink(b"v1", "link").unwrap();
    world.sync_well(0);
    world.sync_well(1);
    // The inode number is used again, so `stat` may say the same in all.
    world.fs(1).remove("link").unwrap();
    world.fs(1).make_symlink(b"v2", "link").unwrap();
    world.fs(0).remove("link").unwrap();
    world.fs(0).make_symlink(b"v3", "link").unwrap();
    world.rest();
    world.assert_same();
    let contents: Vec<Vec<u8>> = world.files(0).into_values().collect();
    assert!(contents.contains(&b"v2".to_vec()) && contents.contains(&b"v3".to_vec()), "{contents:?}");
}

// Names.

#[test]
fn a_rename_of_case_only_deletes_nothing() {
    for insensitive in [[false, false], [false, true], [true, false], [true, true]] {
        let mut world = World::new(1, WorldOptions { devices: 0, ..WorldOptions::default() });
        for case_insensitive in insensitive {
            world.join(SimFs::new(SimOptions { case_insensitive, ..SimOptions::default() }));
        }
        world.fs(0).write("dir/Readme.txt", b"text").unwrap();
        world.rest();
        let inode = world.fs(1).stat("dir/Readme.txt").unwrap().inode;
        world.fs(0).rename("dir/Readme.txt", "dir/README.txt").unwrap();
        world.fs(0).rename("dir", "Dir").unwrap();
        let sent = world.sync_well(0).sent;
        assert_eq!((sent.moved, sent.created, sent.deleted), (2, 0, 0), "{insensitive:?}");
        let received = world.sync_well(1).received;
        assert_eq!((received.created, received.deleted, received.waiting), (0, 0, 0), "{insensitive:?}");
        world.rest();
        assert_all(&world, &[("Dir/README.txt", "text")]);
        assert_eq!(world.fs(1).stat("Dir/README.txt").unwrap().inode, inode);
    }
}

#[test]
fn names_that_differ_in_case_stand_side_by_side_where_a_disk_folds_them() {
    let mut world = world(1);
    let folding = world.join(SimFs::new(SimOptions { case_insensitive: true, ..SimOptions::default() }));
    world.fs(0).write("a.txt", b"small").unwrap();
    world.fs(0).write("A.txt", b"large").unwrap();
    world.rest();
    let files = world.files(folding);
    assert_eq!(files.len(), 2, "{files:?}");
    let mapped = files.iter().find(|(path, _)| *path != "a.txt" && *path != "A.txt").unwrap();
    let real = if mapped.1 == b"small" { "a.txt" } else { "A.txt" };
    world.fs(folding).write(mapped.0, b"edited under the other name").unwrap();
    world.rest();
    assert_eq!(world.fs(0).read(real).unwrap(), b"edited under the other name");
    assert_eq!(world.files(0).len(), 2);
    assert_eq!(world.files(folding).len(), 2);
}

#[test]
fn a_name_that_a_disk_refuses_is_mapped_and_never_renamed_for_others() {
    let mut world = world(2);
    let refusing = SimOptions { forbidden_bytes: b":?*\"<>|\\".to_vec(), ..SimOptions::default() };
    let windows = world.join(SimFs::new(refusing));
    world.fs(0).write("a:b/what?.txt", b"text").unwrap();
    world.fs(0).write("c:d.txt", b"other").unwrap();
    world.rest();
    assert_eq!(texts(&world, windows), owned(&[("a%3Ab/what%3F.txt", "text"), ("c%3Ad.txt", "other")]));
    let report = world.sync_well(windows);
    assert_eq!(report.published.packets, 0);
    world.fs(windows).write("a%3Ab/what%3F.txt", b"edited there").unwrap();
    world.fs(windows).write("a%3Ab/new.txt", b"new there").unwrap();
    world.rest();
    let expected = owned(&[("a:b/new.txt", "new there"), ("a:b/what?.txt", "edited there"), ("c:d.txt", "other")]);
    for at in 0..2 {
        assert_eq!(texts(&world, at), expected);
    }
    world.fs(0).write("c:d.txt", b"edited here").unwrap();
    world.fs(windows).remove("a%3Ab/what%3F.txt").unwrap();
    world.rest();
    assert_eq!(texts(&world, windows), owned(&[("a%3Ab/new.txt", "new there"), ("c%3Ad.txt", "edited here")]));
    assert_eq!(texts(&world, 1), owned(&[("a:b/new.txt", "new there"), ("c:d.txt", "edited here")]));
    // A rename by the user there is one.
    world.fs(windows).rename("c%3Ad.txt", "plain.txt").unwrap();
    world.rest();
    assert_eq!(texts(&world, 1), owned(&[("a:b/new.txt", "new there"), ("plain.txt", "edited here")]));
}

// Deletes.

#[test]
fn a_device_long_away_revives_no_deletes() {
    let mut world = world(3);
    for number in 0..60 {
        world.fs(0).write(format!("d/{number}"), format!("text {number}").as_bytes()).unwrap();
    }
    world.rest();
    for number in 0..60 {
        world.fs(number % 2).remove(format!("d/{number}")).unwrap();
        world.fs(0).write("log", format!("line {number}").as_bytes()).unwrap();
        world.sync_well(0);
        world.sync_well(1);
    }
    // A checkpoint lies between by now; and the one that was away made one edit.
    for _ in 0..80 {
        world.fs(1).write("counter", world.store(1).requests().total().to_string().as_bytes()).unwrap();
        world.sync_well(1);
        world.sync_well(0);
    }
    world.fs(2).write("d/7", b"edited far away").unwrap();
    world.pass(400 * 86_400_000);
    let report = world.sync_well(2);
    assert_eq!(report.received.deleted, 59);
    assert_eq!(report.sent.created, 0);
    world.rest();
    world.assert_same();
    let left: Vec<String> = world.files(0).into_keys().collect();
    assert_eq!(left, ["counter", "d/7", "log"]);
}

#[test]
fn another_disk_in_the_folders_place_is_told_and_nothing_is_deleted() {
    let mut world = world(2);
    for number in 0..5 {
        world.fs(0).write(number.to_string(), b"text").unwrap();
    }
    world.rest();
    let real = world.fs(0).clone();
    let objects = world.shelf().objects();
    let other = SimFs::default();
    other.write("somebody else's", b"other").unwrap();
    for disk in [SimFs::default(), other] {
        world.replace_disk(0, disk.clone());
        let before = disk.tree();
        let result = world.try_sync(0, SyncOptions { confirm_deletes: true });
        assert!(matches!(result, Err(SyncError::NotTheFolder)), "{result:?}");
        assert_eq!(disk.tree(), before);
        assert!(world.shelf().objects() == objects);
    }
    world.replace_disk(0, real);
    world.rest();
    assert_eq!(world.files(1).len(), 5);
    world.assert_same();
}

#[test]
fn most_files_gone_stops_the_round_until_confirmed() {
    let mut world = world(2);
    for number in 0..40 {
        world.fs(0).write(format!("d/{number}"), format!("{number}").as_bytes()).unwrap();
    }
    world.rest();
    for number in 0..30 {
        world.fs(0).remove(format!("d/{number}")).unwrap();
    }
    world.fs(0).write("new", b"new").unwrap();
    let objects = world.shelf().objects();
    let result = world.try_sync(0, SyncOptions::default());
    assert!(matches!(result, Err(SyncError::ManyGone { gone: 30, .. })), "{result:?}");
    assert!(world.shelf().objects() == objects);
    world.sync_well(1);
    assert_eq!(world.files(1).len(), 40);
    world.try_sync(0, SyncOptions { confirm_deletes: true }).unwrap();
    world.rest();
    assert_eq!(world.files(1).len(), 11);
    world.assert_same();
}

#[test]
fn a_file_emptied_with_its_time_unchanged_is_not_published() {
    let mut world = world(2);
    world.fs(0).write("f", b"precious").unwrap();
    world.fs(0).write("g", b"also").unwrap();
    world.rest();
    world.pass(60_000);
    world.rest();
    // As some file systems leave a file after a power loss: its length is lost, its times are not.
    let mtime = world.fs(0).stat("f").unwrap().mtime;
    world.fs(0).write("f", b"").unwrap();
    world.fs(0).touch("f", mtime).unwrap();
    let report = world.sync_well(0);
    assert_eq!(report.published.packets, 0);
    world.sync_well(1);
    assert_eq!(world.fs(1).read("f").unwrap(), b"precious");
    let steps = world.replica(0).dry_run(&mut Silent).unwrap();
    assert!(steps.iter().any(|step| step.action == Action::Skip && step.path.to_string() == "f"), "{steps:?}");
    assert!(!world.replica(0).status().unwrap().problems.is_empty());
    // Who means it touches it; and what somebody else writes does not end in its place unseen.
    let now = mtime + 1_000_000_000;
    world.fs(0).touch("f", now).unwrap();
    world.rest();
    assert_all(&world, &[("f", ""), ("g", "also")]);
    // One that is emptied by a user has a new time.
    world.fs(0).write("g", b"").unwrap();
    world.rest();
    assert_all(&world, &[("f", ""), ("g", "")]);
}

// Left-overs, and what is bad stalls nothing else.

#[test]
fn left_over_staging_files_are_cleaned() {
    let mut world = world(1);
    world.rest();
    world.fs(0).write(".packetboat/stage/17/3", b"half a file").unwrap();
    world.fs(0).write(".packetboat/stage/new-9/deep/er", b"half a directory").unwrap();
    world.fs(0).write(".packetboat/stage/gone-4", b"nobody's").unwrap();
    world.sync_well(0);
    let left: Vec<_> = world.fs(0).tree().into_keys().filter(|path| path.starts_with(b".packetboat/stage/")).collect();
    assert!(left.is_empty(), "{left:?}");
}

fn names_under(world: &World, folder: &str) -> Vec<ObjectName> {
    world.shelf().objects().into_keys().filter(|name| name.as_str().starts_with(folder)).collect()
}

#[test]
fn a_damaged_packet_of_one_device_stalls_that_devices_changes_alone() {
    let mut world = world(3);
    world.fs(0).write("shared", b"shared").unwrap();
    world.rest();
    let known = names_under(&world, "lanes/");
    let tips: BTreeMap<ObjectName, Vec<u8>> = world.shelf().objects();
    world.fs(0).write("by 0", b"zero").unwrap();
    world.sync_well(0);
    let new: Vec<ObjectName> = names_under(&world, "lanes/").into_iter().filter(|name| !known.contains(name)).collect();
    let [packet] = &new[..] else { panic!("{new:?}") };
    let changed: Vec<ObjectName> =
        names_under(&world, "tips/").into_iter().filter(|name| world.shelf().objects()[name] != tips[name]).collect();
    let [tip] = &changed[..] else { panic!("{changed:?}") };
    let sound = world.shelf().snapshot();
    world.shelf().damage(packet, 100);
    // The tip carries small packets too.
    world.shelf().damage(tip, 200);
    world.fs(1).write("by 1", b"one").unwrap();
    for at in [1, 2, 1, 2] {
        world.sync_well(at);
    }
    assert_eq!(texts(&world, 2), owned(&[("by 1", "one"), ("shared", "shared")]));
    world.shelf().plant(packet, &sound_bytes(&sound, &world, packet));
    world.shelf().plant(tip, &sound_bytes(&sound, &world, tip));
    world.rest();
    assert_all(&world, &[("by 0", "zero"), ("by 1", "one"), ("shared", "shared")]);
}

/// The bytes that an object had in a snapshot.
fn sound_bytes(snapshot: &packetboat_testkit::faulty_store::Snapshot, world: &World, name: &ObjectName) -> Vec<u8> {
    let now = world.shelf().snapshot();
    world.shelf().restore_snapshot(snapshot);
    let bytes = world.shelf().objects()[name].clone();
    world.shelf().restore_snapshot(&now);
    bytes
}

#[test]
fn a_damaged_pack_stalls_the_files_that_need_it_alone() {
    let mut world = world(2);
    world.fs(0).write("first", "first ".repeat(20_000).as_bytes()).unwrap();
    world.sync_well(0);
    let bad = names_under(&world, "packs/");
    world.fs(0).write("second", "second ".repeat(20_000).as_bytes()).unwrap();
    world.fs(0).write("small", b"small").unwrap();
    world.sync_well(0);
    let sound: Vec<(ObjectName, Vec<u8>)> =
        bad.iter().map(|name| (name.clone(), world.shelf().objects()[name].clone())).collect();
    for name in &bad {
        for byte in 0..200 {
            world.shelf().damage(name, byte);
        }
    }
    let report = world.sync_well(1);
    assert_eq!((report.received.waiting, report.problems), (1, 1));
    assert_eq!(world.files(1).into_keys().collect::<Vec<_>>(), ["second", "small"]);
    // What others write goes on, in both directions.
    world.fs(1).write("small", b"edited").unwrap();
    world.sync_well(1);
    world.sync_well(0);
    assert_eq!(world.fs(0).read("small").unwrap(), b"edited");
    for (name, bytes) in sound {
        world.shelf().plant(&name, &bytes);
    }
    world.rest();
    world.assert_same();
    assert_eq!(world.sync_well(1).problems, 0);
}

#[test]
fn files_that_come_and_change_during_a_run_do_not_fail_it() {
    for call in 1..120 {
        let mut world = world(2);
        for number in 0..6 {
            world.fs(0).write(format!("d/{number}"), format!("text {number}").as_bytes()).unwrap();
        }
        world.fs(1).write("other", b"other").unwrap();
        world.sync_well(1);
        world.fs(0).on_call(call, |fs| {
            fs.write("d/late", b"came late").unwrap();
            fs.write("d/3", b"changed meanwhile").unwrap();
            fs.remove("d/4").unwrap();
            fs.rename("d/5", "moved").unwrap();
        });
        world.sync_well(0);
        if !world.fs(0).exists("moved") {
            break;
        }
        world.rest();
        let expected = [
            ("d/0", "text 0"),
            ("d/1", "text 1"),
            ("d/2", "text 2"),
            ("d/3", "changed meanwhile"),
            ("d/late", "came late"),
            ("moved", "text 5"),
            ("other", "other"),
        ];
        assert_all(&world, &expected);
    }
}

/// Story: a directory's permissions were changed just as another device's rename of it was brought to this disk; the
/// record took them for agreed upon, so they travelled nowhere and the devices differed for ever.
#[test]
fn permissions_changed_while_a_round_moves_or_makes_things_travel() {
    for call in 1..200 {
        let mut world = world(2);
        world.fs(0).write("d/f", b"text").unwrap();
        world.fs(0).write("e", b"text of e").unwrap();
        world.rest();
        world.fs(1).rename("d", "d moved").unwrap();
        world.fs(1).rename("e", "e moved").unwrap();
        world.fs(1).write("new/f", b"new").unwrap();
        world.sync_well(1);
        let fired = Arc::new(AtomicBool::new(false));
        let fires = Arc::clone(&fired);
        world.fs(0).on_call(call, move |fs| {
            fires.store(true, Ordering::SeqCst);
            for (path, mode) in [("d", 0o700), ("d moved", 0o700), ("e", 0o600), ("e moved", 0o600)] {
                if fs.exists(path) {
                    fs.chmod(path, mode).unwrap();
                }
            }
            for (path, mode) in [("new", 0o711), ("new/f", 0o640)] {
                if fs.exists(path) {
                    fs.chmod(path, mode).unwrap();
                }
            }
        });
        world.sync_well(0);
        if !fired.load(Ordering::SeqCst) {
            assert!(call > 30, "the round has more calls than {call}");
            return;
        }
        world.rest();
        world.assert_same();
        let mode = |path: &str| match &world.tree(1)[path.as_bytes()] {
            Node::File { mode, .. } | Node::Directory { mode, .. } => *mode,
            node => panic!("{node:?}"),
        };
        assert_eq!((mode("d moved"), mode("e moved")), (0o700, 0o600), "call {call}");
    }
    panic!("the round does not end");
}

#[test]
fn a_device_that_runs_on_after_its_index_was_put_back_reuses_no_counter() {
    let mut world = world(2);
    world.fs(0).write("f", b"first").unwrap();
    world.rest();
    world.lose_index(0);
    world.fs(0).write("f", b"second").unwrap();
    world.rest();
    world.assert_same();
    let path = RelPath::new(b"f").unwrap();
    let left: Vec<String> = world.files(0).into_values().map(|text| String::from_utf8(text).unwrap()).collect();
    assert!(left.contains(&"second".to_owned()), "{left:?} at {path}");
}
