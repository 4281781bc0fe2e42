//! What the retention keeps stays whole after all has answered: what was deleted, former places and former permissions.

mod support;

use packetboat_core::garbage::Retention;
use packetboat_core::tree::Past;
use packetboat_engine::ports::Silent;
use packetboat_engine::replica::At;
use packetboat_testkit::sim_fs::Node;
use support::letting_go::{LARGE, assert_sound, garbage, keep, noise, packets, prune, shown};
use support::{Device, Pair};

/// Lets both carry out what the laptop condemns, and look again afterwards.
fn let_go(pair: &mut Pair, retention: Retention) {
    keep(&mut pair.laptop, retention);
    for _ in 0..3 {
        pair.desk.sync();
        prune(&mut pair.laptop);
        prune(&mut pair.desk);
    }
}

fn undo(device: &mut Device) {
    let undone = device.replica.undo(false, &mut Silent).unwrap();
    assert!(undone.left.is_empty(), "{:?}", undone.left);
}

#[test]
fn what_was_deleted_within_the_retention_is_shown_and_brought_back_whatever_else_has_gone() {
    let mut pair = Pair::new();
    pair.laptop.fs.write("large", &noise(1, LARGE)).unwrap();
    pair.laptop.fs.write("small", b"text").unwrap();
    pair.settle();
    pair.laptop.fs.write("before", b"long ago").unwrap();
    pair.settle();
    pair.pass_days(3);
    for name in ["large", "small"] {
        pair.laptop.fs.remove(name).unwrap();
    }
    pair.settle();
    pair.pass_days(1);
    let before = packets(&pair.store);
    let_go(&mut pair, Retention::Days(2));
    assert!(packets(&pair.store) < before, "history begins later");
    let kept = At::Time(pair.now_ms() - 36 * 3_600_000);
    for device in [&mut pair.laptop, &mut pair.desk] {
        assert_eq!(shown(device, "large", &kept).unwrap(), noise(1, LARGE));
        assert_eq!(shown(device, "small", &kept).unwrap(), b"text");
        assert_sound(device);
    }
    undo(&mut pair.laptop);
    pair.settle();
    for device in [&mut pair.laptop, &mut pair.desk] {
        assert_eq!(device.fs.read("large").unwrap(), noise(1, LARGE));
        assert_eq!(device.fs.read("small").unwrap(), b"text");
    }
}

#[test]
fn what_came_and_went_since_history_begins_is_kept() {
    let mut pair = Pair::new();
    pair.laptop.fs.write("large", &noise(1, LARGE)).unwrap();
    pair.settle();
    pair.pass_days(3);
    pair.laptop.fs.write("large", &noise(2, LARGE)).unwrap();
    pair.settle();
    let then = At::Time(pair.pass());
    pair.laptop.fs.write("large", &noise(3, LARGE)).unwrap();
    pair.settle();
    pair.pass_days(1);
    let_go(&mut pair, Retention::Days(2));
    for device in [&mut pair.laptop, &mut pair.desk] {
        assert!(!garbage(device).ended().is_empty(), "history begins later");
        assert!(shown(device, "large", &then).unwrap() == noise(2, LARGE));
        assert_sound(device);
    }
}

#[test]
fn the_permissions_that_stood_when_history_begins_are_brought_back_and_older_ones_are_forgotten() {
    let mut pair = Pair::new();
    pair.laptop.fs.write("file", b"text").unwrap();
    for mode in [0o600, 0o640, 0o400] {
        pair.laptop.fs.chmod("file", mode).unwrap();
        pair.settle();
        pair.pass_days(2);
    }
    // 400 stood until a moment ago, 640 until two days ago.
    pair.laptop.fs.chmod("file", 0o644).unwrap();
    pair.settle();
    let_go(&mut pair, Retention::Days(1));
    for device in [&pair.laptop, &pair.desk] {
        let index = device.replica.index();
        let item = index.items_by_id(None, 9).unwrap().into_iter().find(|item| !item.is_directory()).unwrap();
        let past = index.history_of(item.id).unwrap();
        let modes: Vec<u32> =
            past.iter().filter_map(|past| if let Past::Mode(mode) = past { Some(mode.value) } else { None }).collect();
        assert_eq!(modes, [0o600, 0o400], "the first is of the packet that made what this disk shows");
    }
    undo(&mut pair.laptop);
    pair.settle();
    let mode = |device: &Device| match device.fs.tree().get(b"file".as_slice()) {
        Some(Node::File { mode, .. }) => *mode,
        other => panic!("{other:?}"),
    };
    assert_eq!([mode(&pair.laptop), mode(&pair.desk)], [0o400, 0o400]);
}

#[test]
fn the_places_that_stood_beside_one_another_when_history_begins_are_both_known() {
    let mut pair = Pair::new();
    pair.laptop.fs.write("file", b"text").unwrap();
    pair.settle();
    // Each moves it and does not know of the other.
    pair.laptop.fs.rename("file", "by the laptop").unwrap();
    pair.desk.fs.rename("file", "by the desk").unwrap();
    pair.desk.sync();
    pair.settle();
    let before = pair.laptop.files();
    assert_eq!(before.len(), 1);
    pair.pass_days(3);
    pair.laptop.fs.rename(&before[0].0, "last").unwrap();
    pair.settle();
    pair.pass_days(1);
    let_go(&mut pair, Retention::Days(2));
    undo(&mut pair.laptop);
    pair.settle();
    assert_eq!(pair.laptop.files(), before);
    assert_eq!(pair.desk.files(), before);
}

#[test]
fn both_sides_of_a_conflict_that_stood_when_history_begins_are_kept() {
    let mut pair = Pair::new();
    pair.laptop.fs.write("file", b"base").unwrap();
    pair.settle();
    pair.laptop.fs.write("file", &noise(1, LARGE)).unwrap();
    pair.desk.fs.write("file", &noise(2, LARGE)).unwrap();
    pair.desk.sync();
    pair.settle();
    let copy = pair.laptop.copy_name();
    let sides = [pair.laptop.fs.read("file").unwrap(), pair.laptop.fs.read(&copy).unwrap()];
    pair.pass_days(3);
    pair.laptop.fs.remove(&copy).unwrap();
    pair.laptop.fs.write("file", b"settled").unwrap();
    pair.settle();
    pair.pass_days(1);
    let_go(&mut pair, Retention::Days(2));
    let kept = At::Time(pair.now_ms() - 36 * 3_600_000);
    for device in [&mut pair.laptop, &mut pair.desk] {
        assert_eq!(device.fs.read("file").unwrap(), b"settled");
        for (name, side) in ["file", &copy].into_iter().zip(&sides) {
            assert!(shown(device, name, &kept).unwrap() == *side, "{name}");
        }
        assert_sound(device);
    }
}
