//! What is let go, when, and what never is.
#![allow(dead_code)]

mod support;

use std::num::NonZeroU32;
use std::sync::atomic::Ordering;

use packetboat_core::garbage::Retention;
use packetboat_core::store::{ObjectName, Store};
use packetboat_engine::error::{QueryError, SyncError};
use packetboat_engine::ports::Silent;
use packetboat_engine::replica::At;
use packetboat_engine::{PruneOptions, PruneReport};
use packetboat_storage::memory::MemoryStore;
use packetboat_testkit::rng::Rng;
use support::{Device, Pair, path};

fn keep(device: &mut Device, retention: Retention) -> PruneReport {
    let options = PruneOptions { keep: Some(retention), dry_run: false };
    device.replica.prune(options, &mut Silent).unwrap()
}

fn prune(device: &mut Device) -> PruneReport {
    device.replica.prune(PruneOptions::default(), &mut Silent).unwrap()
}

fn noise(seed: u64, len: usize) -> Vec<u8> {
    Rng::new(seed).bytes(len)
}

fn shown(device: &mut Device, of: &str, at: &At) -> Result<Vec<u8>, QueryError> {
    let mut out = Vec::new();
    device.replica.show(&path(of), Some(at), &mut out)?;
    Ok(out)
}

fn count(store: &MemoryStore, folder: &str) -> usize {
    store.names().iter().filter(|name| name.as_str().starts_with(folder)).count()
}

fn packets(store: &MemoryStore) -> usize {
    count(store, "lanes/")
}

#[track_caller]
fn assert_sound(device: &mut Device) {
    let report = device.replica.verify(true, &mut Silent).unwrap();
    let name = device.replica.device_name().unwrap();
    assert!(report.faults.is_empty(), "{name}: {:?}", report.faults);
}

/// Two devices and a large file that was written three times, a day apart; times are after each.
fn three_versions() -> (Pair, [At; 3]) {
    let mut pair = Pair::new();
    let times = [1, 2, 3].map(|version| {
        pair.laptop.fs.write("large", &noise(version, LARGE)).unwrap();
        pair.laptop.fs.write("small", format!("version {version}").as_bytes()).unwrap();
        pair.settle();
        let time = At::Time(pair.pass());
        pair.pass_days(1);
        time
    });
    (pair, times)
}

#[test]
fn what_nothing_needs_is_deleted_once_all_have_answered() {
    let (mut pair, times) = three_versions();
    let before = pair.store.size();
    let report = keep(&mut pair.laptop, Retention::Days(0));
    assert!(report.packs >= 2 && report.packets > 0, "{report:?}");
    assert_eq!(report.waiting_for, ["desk"]);
    assert_eq!(report.deleted, 0, "nothing goes before the desk has answered");
    pair.desk.sync();
    pair.laptop.sync();
    assert!(pair.store.size() < before / 2, "{} of {before}", pair.store.size());
    pair.settle();
    prune(&mut pair.desk);
    for device in [&mut pair.laptop, &mut pair.desk] {
        assert_eq!(device.fs.read("large").unwrap(), noise(3, LARGE));
        assert_sound(device);
        assert!(matches!(shown(device, "large", &times[0]), Err(QueryError::Sync(SyncError::HistoryEnds))));
    }
    let mut third = pair.third();
    third.sync();
    assert_eq!(third.fs.read("large").unwrap(), noise(3, LARGE));
    assert_eq!(third.fs.read("small").unwrap(), b"version 3");
}

#[test]
fn what_the_retention_keeps_stays_and_what_is_older_goes() {
    let (mut pair, times) = three_versions();
    // The first version was replaced more than two days ago, the second less.
    keep(&mut pair.laptop, Retention::Days(2));
    for _ in 0..2 {
        pair.desk.sync();
        pair.laptop.sync();
    }
    prune(&mut pair.desk);
    for device in [&mut pair.laptop, &mut pair.desk] {
        for (version, time) in (2..).zip(&times[1..]) {
            assert_eq!(shown(device, "large", time).unwrap(), noise(version, LARGE), "version {version}");
            assert_eq!(shown(device, "small", time).unwrap(), format!("version {version}").as_bytes());
        }
        assert!(shown(device, "large", &times[0]).is_err());
        assert_sound(device);
    }
}

#[test]
fn versions_are_kept_by_number() {
    let (mut pair, times) = three_versions();
    keep(&mut pair.laptop, Retention::Versions(NonZeroU32::new(2).unwrap()));
    pair.desk.sync();
    pair.laptop.sync();
    assert_eq!(shown(&mut pair.laptop, "large", &times[1]).unwrap(), noise(2, LARGE));
    assert!(matches!(shown(&mut pair.laptop, "large", &times[0]), Err(QueryError::ContentMissing { .. })));
    assert_sound(&mut pair.laptop);
    assert_sound(&mut pair.desk);
}

#[test]
fn where_everything_is_kept_nothing_goes() {
    let (mut pair, times) = three_versions();
    let report = keep(&mut pair.laptop, Retention::All);
    assert_eq!((report.packs, report.packets), (0, 0));
    pair.settle();
    assert_eq!(shown(&mut pair.desk, "large", &times[0]).unwrap(), noise(1, LARGE));
    assert_eq!(pair.desk.replica.retention().unwrap(), Retention::All);
}

#[test]
fn a_dry_run_tells_what_would_go_and_changes_nothing() {
    let (mut pair, _) = three_versions();
    let before = pair.store.names();
    let options = PruneOptions { keep: Some(Retention::Days(0)), dry_run: true };
    let would = pair.laptop.replica.prune(options, &mut Silent).unwrap();
    assert_eq!(pair.store.names(), before);
    assert_eq!(pair.laptop.replica.retention().unwrap(), Retention::Days(90));
    let did = keep(&mut pair.laptop, Retention::Days(0));
    assert_eq!(would.packs, did.packs);
    assert_eq!(would.pack_bytes, did.pack_bytes);
    assert!(would.pack_bytes > LARGE as u64);
}

#[test]
fn what_is_in_use_of_a_wasteful_pack_is_stored_anew() {
    let mut pair = Pair::new();
    // Both lie in one pack, since they are stored in one round.
    pair.laptop.fs.write("stays", &noise(1, LARGE)).unwrap();
    pair.laptop.fs.write("goes", &noise(2, LARGE)).unwrap();
    pair.settle();
    pair.laptop.fs.remove("goes").unwrap();
    pair.settle();
    pair.pass_days(1);
    let report = keep(&mut pair.laptop, Retention::Days(0));
    assert_eq!((report.packs, report.repacked), (1, 1), "{report:?}");
    pair.desk.sync();
    pair.laptop.sync();
    assert!(pair.store.size() < 2 * LARGE as u64);
    let mut third = pair.third();
    third.sync();
    assert_eq!(third.fs.read("stays").unwrap(), noise(1, LARGE));
    assert!(third.fs.read("goes").is_err());
    prune(&mut pair.desk);
    assert_sound(&mut pair.desk);
    assert_sound(&mut pair.laptop);
}

#[test]
fn an_edit_that_refers_to_what_is_condemned_keeps_it() {
    let (mut pair, _) = three_versions();
    let old = noise(1, LARGE);
    // The desk brings the oldest content back, and has not heard yet that it is condemned.
    keep(&mut pair.laptop, Retention::Days(0));
    let out_of_reach = pair.store.clone();
    pair.desk.fs.write("again", &old).unwrap();
    pair.desk.sync();
    drop(out_of_reach);
    pair.settle();
    prune(&mut pair.laptop);
    pair.settle();
    for device in [&mut pair.laptop, &mut pair.desk] {
        assert_eq!(device.fs.read("again").unwrap(), old);
        assert_sound(device);
    }
    let mut third = pair.third();
    third.sync();
    assert_eq!(third.fs.read("again").unwrap(), old);
}

#[test]
fn answers_are_not_answered() {
    let (mut pair, _) = three_versions();
    keep(&mut pair.laptop, Retention::Days(0));
    pair.settle();
    pair.settle();
    let before = packets(&pair.store);
    for _ in 0..3 {
        pair.settle();
    }
    assert_eq!(packets(&pair.store), before);
}

#[test]
fn history_that_is_let_go_leaves_the_lanes() {
    let (mut pair, _) = three_versions();
    let before = packets(&pair.store);
    keep(&mut pair.laptop, Retention::Days(0));
    pair.settle();
    assert!(packets(&pair.store) < before, "{} of {before}", packets(&pair.store));
    // Both go on, and a third device begins from the checkpoint.
    pair.desk.fs.write("small", b"after").unwrap();
    pair.settle();
    let mut third = pair.third();
    third.fs.write("from the third", b"hello").unwrap();
    third.sync();
    pair.settle();
    assert_eq!(pair.laptop.fs.read("from the third").unwrap(), b"hello");
    assert_eq!(third.fs.read("small").unwrap(), b"after");
}

#[test]
fn tombstones_go_with_the_history_that_they_are_from() {
    let mut pair = Pair::new();
    for n in 0..15 {
        pair.laptop.fs.write(&format!("gone/{n}"), format!("text {n}").as_bytes()).unwrap();
    }
    pair.laptop.fs.write("stays", b"here").unwrap();
    pair.settle();
    for n in 0..15 {
        pair.laptop.fs.remove(&format!("gone/{n}")).unwrap();
    }
    pair.settle();
    pair.pass_days(1);
    let before = pair.laptop.replica.index().count_items().unwrap();
    keep(&mut pair.laptop, Retention::Days(0));
    pair.settle();
    prune(&mut pair.desk);
    for device in [&mut pair.laptop, &mut pair.desk] {
        assert!(device.replica.index().count_items().unwrap() + 15 <= before);
        assert!(device.fs.read("stays").is_ok());
    }
}

#[test]
fn a_run_that_is_cut_short_at_any_call_is_finished_by_the_next() {
    for calls in 0.. {
        let (mut pair, times) = three_versions();
        pair.fuse.store(calls, Ordering::SeqCst);
        let options = PruneOptions { keep: Some(Retention::Days(2)), dry_run: false };
        let first = pair.laptop.replica.prune(options, &mut Silent);
        let was_cut = pair.out.load(Ordering::SeqCst);
        let after = |pair: &mut Pair| {
            pair.fuse.store(-1, Ordering::SeqCst);
            pair.out.store(false, Ordering::SeqCst);
        };
        after(&mut pair);
        assert!(was_cut || first.is_ok());
        keep(&mut pair.laptop, Retention::Days(2));
        pair.desk.sync();
        pair.fuse.store(calls, Ordering::SeqCst);
        let _ = pair.laptop.replica.prune(PruneOptions::default(), &mut Silent);
        let was_cut_again = pair.out.load(Ordering::SeqCst);
        after(&mut pair);
        for _ in 0..2 {
            pair.settle();
            prune(&mut pair.laptop);
            prune(&mut pair.desk);
        }
        for device in [&mut pair.laptop, &mut pair.desk] {
            assert_eq!(device.fs.read("large").unwrap(), noise(3, LARGE));
            assert_eq!(shown(device, "large", &times[1]).unwrap(), noise(2, LARGE), "cut at {calls}");
            assert_sound(device);
        }
        if !was_cut && !was_cut_again {
            assert!(calls > 5, "{calls} calls");
            return;
        }
    }
}

#[test]
fn a_device_that_has_just_come_stores_anew_what_others_wrote() {
    let mut pair = Pair::new();
    pair.laptop.fs.write("one", &noise(1, LARGE)).unwrap();
    pair.settle();
    let before = count(&pair.store, "packs/");
    let mut third = pair.third();
    third.fs.write("copy", &noise(1, LARGE)).unwrap();
    third.sync();
    assert_eq!(count(&pair.store, "packs/"), before + 1, "nobody knows of it yet");
    // Once all have said something after they heard of it, it refers to what they wrote.
    for device in [&mut pair.laptop, &mut pair.desk] {
        device.sync();
        device.fs.write(&format!("of {}", device.replica.device_name().unwrap()), b"hello").unwrap();
        device.sync();
    }
    third.sync();
    let before = count(&pair.store, "packs/");
    third.fs.write("another copy", &noise(1, LARGE)).unwrap();
    third.sync();
    assert_eq!(count(&pair.store, "packs/"), before);
}

#[test]
fn the_run_after_a_round_is_once_a_day_and_an_idle_round_asks_once() {
    let (mut pair, _) = three_versions();
    pair.settle();
    let store: &dyn Store = &pair.store;
    assert!(!store.list("tips").unwrap().is_empty());
    let before = pair.store.names();
    for _ in 0..5 {
        pair.settle();
    }
    let changed: Vec<ObjectName> = pair.store.names().into_iter().filter(|name| !before.contains(name)).collect();
    assert!(changed.is_empty(), "{changed:?}");
}

const LARGE: usize = 600 * 1024;
