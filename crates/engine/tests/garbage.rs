//! What is let go, when, and what never is.

mod support;

use std::collections::BTreeSet;
use std::num::NonZeroU32;
use std::sync::atomic::Ordering;

use packetboat_core::garbage::Retention;
use packetboat_core::store::{ObjectName, Store, StoreError};
use packetboat_core::tip::Tip;
use packetboat_engine::error::{QueryError, SyncError};
use packetboat_engine::ports::Silent;
use packetboat_engine::replica::{At, SyncOptions};
use packetboat_engine::{PruneOptions, PruneReport};
use packetboat_storage::memory::MemoryStore;
use packetboat_testkit::rng::Rng;
use support::{Device, Pair, Watcher, path};

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
fn a_newcomer_reads_on_behind_a_damaged_tip_where_the_lane_begins_late() {
    // The tip of a device was damaged, and history had been let go: whoever began from the checkpoint looked for the first
    // packets of that lane, found none, and did not see what the device had published since.
    let (mut pair, _) = three_versions();
    keep(&mut pair.laptop, Retention::Days(0));
    pair.settle();
    pair.desk.fs.write("small", b"since").unwrap();
    pair.pass();
    pair.desk.sync();
    let lane = format!("lanes/{}/", pair.desk.id());
    let first = ObjectName::new(format!("{lane}1")).unwrap();
    assert!(count(&pair.store, &lane) > 0 && !pair.store.names().contains(&first), "{:?}", pair.store.names());
    assert!(pair.store.tamper(&Tip::name(&pair.desk.id()), |bytes| bytes.truncate(50)));
    let mut third = pair.third();
    third.sync();
    assert_eq!(third.fs.read("small").unwrap(), b"since");
}

#[test]
fn tombstones_go_with_the_history_that_they_are_from() {
    let mut pair = Pair::new();
    for n in 0..15 {
        pair.laptop.fs.write(format!("gone/{n}"), format!("text {n}").as_bytes()).unwrap();
    }
    pair.laptop.fs.write("stays", b"here").unwrap();
    pair.settle();
    for n in 0..15 {
        pair.laptop.fs.remove(format!("gone/{n}")).unwrap();
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
        device.fs.write(format!("of {}", device.replica.device_name().unwrap()), b"hello").unwrap();
        device.sync();
    }
    third.sync();
    let before = count(&pair.store, "packs/");
    third.fs.write("another copy", &noise(1, LARGE)).unwrap();
    third.sync();
    assert_eq!(count(&pair.store, "packs/"), before);
}

/// Copies what one store has and the other had not when `before` was listed.
fn bring(from: &MemoryStore, before: &[ObjectName], to: &MemoryStore) {
    for name in from.names().into_iter().filter(|name| !before.contains(name)) {
        let bytes = from.get(&name, u64::MAX).unwrap();
        to.put(&name, &bytes).unwrap();
    }
}

#[test]
fn a_device_that_nobody_had_heard_of_when_all_answered_joins_anew_and_loses_nothing() {
    let (mut pair, _) = three_versions();
    pair.laptop.fs.write("gone", &noise(7, LARGE)).unwrap();
    pair.settle();
    // What the third puts is on its way for long.
    let elsewhere = MemoryStore::new();
    bring(&pair.store, &[], &elsewhere);
    let before = elsewhere.names();
    let mut third = pair.moved(pair.third(), &elsewhere, "memory");
    third.sync();
    third.fs.write("of the third", b"hello").unwrap();
    third.fs.rename("gone", "kept after all").unwrap();
    third.sync();
    pair.laptop.fs.remove("gone").unwrap();
    pair.settle();
    pair.pass_days(1);
    keep(&mut pair.laptop, Retention::Days(0));
    for _ in 0..2 {
        pair.desk.sync();
        pair.laptop.sync();
    }
    bring(&elsewhere, &before, &pair.store);
    let mut third = pair.moved(third, &pair.store, "memory");
    for _ in 0..3 {
        pair.settle();
        third.sync();
    }
    for device in [&mut pair.laptop, &mut pair.desk, &mut third] {
        assert_eq!(device.fs.read("of the third").unwrap(), b"hello");
        assert_eq!(device.fs.read("large").unwrap(), noise(3, LARGE));
        assert_sound(device);
    }
    let states = [&mut pair.laptop, &mut pair.desk, &mut third].map(|device| device.replica.status().unwrap().state);
    assert!(states.iter().all(|state| *state == states[0]), "{states:?}");
}

#[test]
fn a_device_that_joins_knowing_what_all_have_answered_is_not_passed_over() {
    let (mut pair, _) = three_versions();
    keep(&mut pair.laptop, Retention::Days(0));
    pair.desk.sync();
    // All have answered, nothing is deleted yet, and nobody who was there knows of the third.
    let mut third = pair.third();
    third.sync();
    let id = third.id();
    for _ in 0..2 {
        third.sync();
        pair.settle();
    }
    assert_eq!(third.id(), id, "it began anew");
    assert_eq!(third.fs.read("large").unwrap(), noise(3, LARGE));
    assert_sound(&mut third);
}

#[test]
fn an_unseen_move_of_what_was_deleted_and_condemned_keeps_its_content() {
    let (mut pair, _) = three_versions();
    pair.laptop.fs.write("moved", &noise(7, LARGE)).unwrap();
    pair.settle();
    pair.laptop.fs.remove("moved").unwrap();
    pair.laptop.sync();
    pair.pass_days(1);
    keep(&mut pair.laptop, Retention::Days(0));
    // The desk has heard of neither, and answers with its move.
    pair.desk.fs.rename("moved", "elsewhere").unwrap();
    pair.desk.sync();
    pair.settle();
    prune(&mut pair.laptop);
    pair.settle();
    for device in [&mut pair.laptop, &mut pair.desk] {
        assert_eq!(device.fs.read("elsewhere").unwrap(), noise(7, LARGE));
        assert_sound(device);
    }
    let mut third = pair.third();
    third.sync();
    assert_eq!(third.fs.read("elsewhere").unwrap(), noise(7, LARGE));
}

#[test]
fn what_takes_the_place_of_something_that_was_let_go_keeps_its_record() {
    // A disk still showed a file that the vault had deleted before history begins. Its user moved it and made a directory
    // in its place, with more in it than one packet holds: the directory was recorded before the file was forgotten, and
    // its record was taken for the file's, so that all that it held hung on nothing.
    let mut pair = Pair::new();
    pair.laptop.fs.write("place", b"deleted long ago").unwrap();
    pair.settle();
    pair.laptop.fs.remove("place").unwrap();
    pair.laptop.sync();
    pair.pass_days(1);
    keep(&mut pair.laptop, Retention::Days(0));
    prune(&mut pair.desk);
    prune(&mut pair.laptop);
    prune(&mut pair.desk);
    pair.desk.fs.rename("place", "aside").unwrap();
    for n in 0..MORE_THAN_A_PACKET {
        pair.desk.fs.write(format!("place/{n}"), b"").unwrap();
    }
    let before = packets(&pair.store);
    pair.desk.sync();
    assert!(packets(&pair.store) > before + 1, "one packet held all of it");
    pair.settle();
    assert_eq!(pair.desk.files().len(), MORE_THAN_A_PACKET + 1);
    assert_eq!(pair.laptop.files(), pair.desk.files());
    assert_eq!(pair.laptop.fs.read("aside").unwrap(), b"deleted long ago");
}

#[test]
fn what_was_read_of_something_that_was_let_go_is_there_for_what_is_published_of_it() {
    // A file that the vault had deleted before history begins was moved on a disk that still showed it. It is published in
    // the round after, but what it held went inside a packet at once: the other device knew it from an older packet, kept
    // no note of the new one, and let the older one go.
    let mut pair = Pair::new();
    pair.laptop.fs.write("place", b"deleted long ago").unwrap();
    pair.settle();
    pair.laptop.fs.remove("place").unwrap();
    pair.laptop.sync();
    pair.pass_days(1);
    keep(&mut pair.laptop, Retention::Days(0));
    prune(&mut pair.desk);
    pair.desk.fs.rename("place", "aside").unwrap();
    pair.desk.fs.write("other", b"deleted long ago").unwrap();
    pair.desk.sync();
    pair.laptop.sync();
    assert_eq!(pair.laptop.fs.read("other").unwrap(), b"deleted long ago");
    pair.settle();
    pair.assert_files(&[("aside", "deleted long ago"), ("other", "deleted long ago")]);
    assert_sound(&mut pair.laptop);
}

#[test]
fn a_retired_device_is_not_waited_for_and_loses_nothing_when_it_comes_back() {
    let (mut pair, _) = three_versions();
    pair.laptop.fs.write("goes", b"to be deleted").unwrap();
    pair.settle();
    pair.desk.fs.write("mine", b"written while away").unwrap();
    pair.laptop.fs.remove("goes").unwrap();
    pair.laptop.sync();
    let desk = pair.desk.replica.own_device();
    pair.laptop.replica.retire(&desk, &mut Silent).unwrap();
    pair.pass_days(1);
    let report = keep(&mut pair.laptop, Retention::Days(0));
    assert_eq!(report.waiting_for, Vec::<String>::new());
    assert!(report.deleted > 0, "{report:?}");
    for _ in 0..2 {
        pair.settle();
    }
    for device in [&mut pair.laptop, &mut pair.desk] {
        assert_eq!(device.fs.read("mine").unwrap(), b"written while away");
        assert_eq!(device.fs.read("large").unwrap(), noise(3, LARGE));
        assert!(device.fs.read("goes").is_err(), "what was deleted meanwhile is not revived");
        assert_sound(device);
    }
}

#[test]
fn a_newcomer_who_begins_where_history_begins_knows_the_same_members_epoch_and_retention() {
    let (mut pair, _) = three_versions();
    let mut third = pair.third();
    third.sync();
    pair.settle();
    let gone = third.replica.own_device();
    pair.laptop.replica.revoke(&gone, b"another", &mut Silent).unwrap();
    pair.settle();
    let desk = pair.desk.replica.own_device();
    pair.pass_days(1);
    // Whoever is revoked is not waited for.
    keep(&mut pair.laptop, Retention::Days(0));
    pair.desk.sync();
    pair.laptop.sync();
    assert!(packets(&pair.store) < 8, "{} packets are left", packets(&pair.store));
    let mut fourth = pair.joined(9, "fourth", b"another");
    fourth.sync();
    pair.settle();
    fourth.sync();
    let (status, other) = (fourth.replica.status().unwrap(), pair.laptop.replica.status().unwrap());
    assert_eq!(status.state, other.state);
    let members = |status: &packetboat_engine::replica::Status| -> Vec<_> {
        let shown = status.devices.iter().map(|device| (device.device, device.name.clone(), device.standing));
        // Each shows itself first.
        let mut shown: Vec<_> = shown.collect();
        shown.sort();
        shown
    };
    assert_eq!(members(&status), members(&other));
    assert!(members(&status).iter().any(|(device, _, standing)| *device == gone && *standing == "revoked"));
    assert_eq!(fourth.replica.retention().unwrap(), Retention::Days(0));
    assert_eq!(fourth.fs.read("large").unwrap(), noise(3, LARGE));
    let_go_until_nothing_moves(&mut pair, &mut [&mut fourth]);
    // In the same epoch: it may retire, and its word counts.
    fourth.replica.retire(&desk, &mut Silent).unwrap();
    pair.laptop.sync();
    assert!(pair.laptop.replica.status().unwrap().devices.iter().any(|d| d.device == desk && d.standing == "retired"));
    assert_sound(&mut fourth);
}

#[test]
fn whoever_was_revoked_where_no_packet_tells_of_it_any_more_is_told_all_the_same() {
    // Seeds 13021 and 13027 of the world: the revocation and the keys in it had been let go, every tip was sealed under a
    // key that the revoked device was never given, and it went on alone for ever with rounds that seemed well.
    let (mut pair, _) = three_versions();
    let mut third = pair.third();
    third.sync();
    pair.settle();
    pair.laptop.replica.revoke(&third.id(), b"another", &mut Silent).unwrap();
    pair.settle();
    pair.pass_days(1);
    keep(&mut pair.laptop, Retention::Days(0));
    pair.settle();
    third.fs.write("mine", b"written since").unwrap();
    for _ in 0..2 {
        let error = third.sync_fails();
        assert!(matches!(&error, SyncError::LeftOut { .. }), "{error}");
    }
    assert_eq!(third.fs.read("mine").unwrap(), b"written since");
    assert_eq!(third.fs.read("large").unwrap(), noise(3, LARGE));
}

#[test]
fn a_key_that_is_late_or_lost_on_its_way_is_not_taken_for_one_that_was_withheld() {
    let (mut pair, _) = three_versions();
    let mut third = pair.third();
    third.sync();
    pair.settle();
    // Packets have been let go before, so the lanes do not begin at their first.
    pair.pass_days(1);
    keep(&mut pair.laptop, Retention::Days(0));
    for _ in 0..2 {
        third.sync();
        pair.settle();
    }
    let before = pair.store.names();
    let desk = pair.desk.replica.own_device();
    pair.laptop.replica.revoke(&desk, b"another", &mut Silent).unwrap();
    pair.laptop.fs.write("after", b"under the new key").unwrap();
    pair.laptop.sync();
    let new =
        pair.store.names().into_iter().filter(|name| !before.contains(name) && name.as_str().starts_with("lanes/"));
    let bringing = new.min_by_key(|name| name.as_str().rsplit_once('/').unwrap().1.parse::<u64>().unwrap()).unwrap();
    let bytes = pair.store.get(&bringing, u64::MAX).unwrap();
    pair.store.delete(&bringing).unwrap();
    third.sync();
    assert!(third.fs.read("after").is_err(), "the key was in the packet that is not there");
    pair.store.put(&bringing, &bytes).unwrap();
    third.sync();
    assert_eq!(third.fs.read("after").unwrap(), b"under the new key");
}

#[test]
fn a_run_reads_no_pack_that_it_does_not_store_anew() {
    let mut pair = Pair::new();
    pair.laptop.fs.write("stays", &noise(1, LARGE)).unwrap();
    pair.laptop.fs.write("goes", &noise(2, LARGE)).unwrap();
    pair.settle();
    for n in 3..8 {
        pair.laptop.fs.write(format!("other {n}"), &noise(n, LARGE)).unwrap();
        pair.settle();
    }
    pair.laptop.fs.remove("goes").unwrap();
    pair.settle();
    pair.pass_days(1);
    let all = count(&pair.store, "packs/");
    let mut desk = pair.take_desk();
    let read = pair.watch_reads(&mut desk);
    let report = keep(&mut desk, Retention::Days(0));
    assert_eq!((report.packs, report.repacked), (1, 1), "{report:?}");
    pair.laptop.sync();
    desk.sync();
    let read: BTreeSet<ObjectName> = read.lock().unwrap().iter().cloned().collect();
    let of_packs = read.iter().filter(|name| name.as_str().starts_with("packs/"));
    // The one that is stored anew, and those with the segments of the checkpoint that is read back.
    let segments = of_packs.filter(|name| !content_packs(&desk).contains(name)).count();
    let contents = read.iter().filter(|name| content_packs(&desk).contains(name)).count();
    assert_eq!(contents, 0, "of {all} packs these were read: {read:?}");
    assert!(segments <= 3, "{read:?}");
}

/// The packs of contents that a device knows.
fn content_packs(device: &Device) -> BTreeSet<ObjectName> {
    let packs = device.replica.index().packs(None, 1000).unwrap();
    packs.iter().map(|row| packetboat_storage::pack::object_name(&row.pack)).collect()
}

#[test]
fn rounds_let_go_only_where_they_were_asked_to_and_an_idle_one_puts_nothing() {
    let mut pair = Pair::new();
    for version in 0..80 {
        pair.laptop.fs.write("small", format!("version {version}").as_bytes()).unwrap();
        pair.laptop.sync();
        pair.pass();
    }
    pair.pass_days(91);
    pair.laptop.fs.write("small", b"the last").unwrap();
    pair.settle();
    let names = pair.store.names();
    for _ in 0..3 {
        pair.pass_days(1);
        pair.settle();
    }
    assert_eq!(pair.store.names(), names, "nobody asked for anything to go");
    let mut desk = pair.take_desk();
    pair.lets_go_by_itself(&mut desk);
    let before = packets(&pair.store);
    for _ in 0..2 {
        desk.sync();
        pair.laptop.sync();
    }
    assert!(packets(&pair.store) + 60 < before, "{} of {before} packets are left", packets(&pair.store));
    let names = pair.store.names();
    for _ in 0..5 {
        pair.pass();
        desk.sync();
        pair.laptop.sync();
    }
    let changed: Vec<ObjectName> = pair.store.names().into_iter().filter(|name| !names.contains(name)).collect();
    assert!(changed.is_empty(), "{changed:?}");
    assert_sound(&mut desk);
    assert_sound(&mut pair.laptop);
}

/// Lets all that are there synchronise and let go, a day apart, until a run of each publishes and deletes nothing; panics
/// where that takes too long, where something waits in the end, or where the next run finds something all the same.
#[track_caller]
fn let_go_until_nothing_moves(pair: &mut Pair, others: &mut [&mut Device]) {
    for run in 0.. {
        assert!(run <= RUNS_TO_REST, "letting go never comes to rest");
        for _ in 0..2 {
            pair.settle();
            others.iter_mut().for_each(|other| drop(other.sync()));
        }
        pair.pass_days(1);
        let names = pair.store.names();
        let devices = |pair: &mut Pair, others: &mut [&mut Device]| -> Vec<PruneReport> {
            let pair = [&mut pair.laptop, &mut pair.desk].into_iter();
            pair.chain(others.iter_mut().map(|other| &mut **other)).map(prune).collect()
        };
        let reports = devices(pair, others);
        if pair.store.names() != names {
            continue;
        }
        for report in &reports {
            assert_eq!((report.packets, report.packs), (0, 0), "{report:?}");
        }
        for report in devices(pair, others) {
            assert_eq!(report.waiting_for, Vec::<String>::new());
            assert_eq!((report.packets, report.packs, report.deleted), (0, 0, 0), "{report:?}");
        }
        assert_eq!(pair.store.names(), names, "a run after one that found nothing published something");
        return;
    }
}

#[test]
fn letting_go_comes_to_an_end_whatever_is_kept() {
    let versions = Retention::Versions(NonZeroU32::new(1).unwrap());
    for retention in [Retention::Days(0), Retention::Days(2), versions, Retention::All] {
        let (mut pair, _) = three_versions();
        let mut third = pair.third();
        third.sync();
        keep(&mut pair.laptop, retention);
        let_go_until_nothing_moves(&mut pair, &mut [&mut third]);
        for device in [&mut pair.laptop, &mut pair.desk, &mut third] {
            assert_sound(device);
        }
    }
}

#[test]
fn a_full_intermediary_loses_nothing_of_which_nobody_asked_that_it_goes() {
    let (mut pair, times) = three_versions();
    keep(&mut pair.laptop, Retention::Days(0));
    pair.desk.sync();
    let names = pair.store.names();
    for asked in [false, true] {
        let mut desk = pair.take_desk();
        if asked {
            pair.lets_go_by_itself(&mut desk);
        }
        pair.fill(&mut desk);
        desk.fs.write("more", &noise(9, LARGE)).unwrap();
        let mut watcher = Watcher::default();
        let result = desk.replica.sync(SyncOptions::default(), &mut watcher);
        assert!(matches!(result, Err(SyncError::Store(StoreError::Full))), "{result:?}");
        assert!(
            watcher.warnings.iter().any(|text| text.contains("intermediary") && text.contains(" full")),
            "{:?}",
            watcher.warnings
        );
        let gone = names.iter().filter(|name| !pair.store.names().contains(name)).count();
        assert_eq!(gone > 0, asked, "{gone} objects are gone");
        pair.desk = desk;
    }
    assert!(shown(&mut pair.desk, "large", &times[0]).is_err());
}

const LARGE: usize = 600 * 1024;
/// More files than one packet tells of.
const MORE_THAN_A_PACKET: usize = 5_100;
/// One to condemn, one to delete, one for the segments that the new checkpoint leaves, and one for each more device.
const RUNS_TO_REST: usize = 6;
