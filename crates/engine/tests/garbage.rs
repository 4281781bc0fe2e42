//! What is let go, when, and what never is.

mod support;

use std::collections::BTreeSet;
use std::num::NonZeroU32;
use std::sync::atomic::Ordering;

use packetboat_core::garbage::Retention;
use packetboat_core::store::{ObjectName, Store, StoreError};
use packetboat_core::tip::Tip;
use packetboat_engine::PruneOptions;
use packetboat_engine::error::{QueryError, SyncError};
use packetboat_engine::ports::Silent;
use packetboat_engine::replica::SyncOptions;
use packetboat_replica::index::PackState;
use packetboat_storage::memory::MemoryStore;
use packetboat_storage::pack;
use support::letting_go::{
    LARGE, ONE_VERSION, assert_sound, bring, count, garbage, half_wasted, keep, let_go_until_nothing_moves,
    misses_something, noise, packets, packs, prune, shown, stored, three_versions,
};
use support::{Device, Pair, Watcher};

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
    let mut pair = half_wasted();
    let report = keep(&mut pair.laptop, Retention::Days(0));
    assert_eq!((report.packs, report.repacked), (1, 1), "{report:?}");
    let large = LARGE as u64;
    assert!((large..large * 3 / 2).contains(&report.pack_bytes), "less what is stored anew: {report:?}");
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
fn what_is_condemned_and_referred_to_unseen_stays_as_good_as_any_and_nobody_is_waited_for_because_of_it() {
    let mut pair = Pair::new();
    let pack = stored(&mut pair, "large", 1);
    stored(&mut pair, "large", 2);
    pair.pass_days(1);
    // At the desk, which has heard of nothing, somebody brings it back.
    let elsewhere = MemoryStore::new();
    bring(&pair.store, &[], &elsewhere);
    let before = elsewhere.names();
    assert_eq!(keep(&mut pair.laptop, ONE_VERSION).waiting_for, ["desk"]);
    let desk = pair.take_desk();
    let mut desk = pair.moved(desk, &elsewhere, "memory");
    desk.fs.write("again", &noise(1, LARGE)).unwrap();
    desk.sync();
    bring(&elsewhere, &before, &pair.store);
    pair.store.put(&Tip::name(&desk.id()), &elsewhere.get(&Tip::name(&desk.id()), u64::MAX).unwrap()).unwrap();
    assert_eq!(prune(&mut pair.laptop).waiting_for, Vec::<String>::new());
    pair.desk = pair.moved(desk, &pair.store, "memory");
    pair.settle();
    let before = packs(&pair);
    assert!(before.contains(&pack));
    pair.laptop.fs.write("copy", &noise(1, LARGE)).unwrap();
    pair.settle();
    assert_eq!(packs(&pair), before, "it is referred to like any other");
    // Both are replaced, and it goes like any other.
    for name in ["again", "copy"] {
        pair.laptop.fs.write(name, b"replaced").unwrap();
    }
    pair.laptop.sync();
    pair.pass_days(1);
    assert_eq!(prune(&mut pair.laptop).packs, 1);
    let_go_until_nothing_moves(&mut pair, &mut []);
    assert!(!packs(&pair).contains(&pack));
    assert_sound(&mut pair.desk);
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
    let first = pair.laptop.replica.index().packets(pair.laptop.id(), 1, 1).unwrap();
    assert_eq!(first, [], "nor does a device keep it");
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
fn packets_that_are_let_go_are_deleted_though_a_stale_listing_does_not_show_them() {
    let (mut pair, _) = three_versions();
    let first = ObjectName::new(format!("lanes/{}/1", pair.laptop.id())).unwrap();
    keep(&mut pair.laptop, Retention::Days(0));
    pair.desk.sync();
    let third = pair.third();
    let mut laptop = std::mem::replace(&mut pair.laptop, third);
    pair.hide(&mut laptop, std::slice::from_ref(&first));
    prune(&mut laptop);
    assert!(!pair.store.names().contains(&first));
}

#[test]
fn whoever_began_from_a_checkpoint_deletes_the_packets_before_it_too() {
    let mut pair = Pair::new();
    for text in ["one", "two"] {
        pair.laptop.fs.write("small", text.as_bytes()).unwrap();
        pair.settle();
    }
    pair.pass_days(1);
    let first = ObjectName::new(format!("lanes/{}/1", pair.laptop.id())).unwrap();
    keep(&mut pair.laptop, Retention::Days(0));
    let mut third = pair.third();
    third.sync();
    assert_eq!(third.replica.index().packets(pair.laptop.id(), 1, 1).unwrap(), [], "it never had it");
    // The laptop, which would delete them itself, hears of the third before the desk has answered.
    pair.laptop.sync();
    pair.desk.sync();
    prune(&mut third);
    assert!(!pair.store.names().contains(&first));
}

#[test]
fn of_two_beginnings_of_history_the_earlier_is_done_with_when_the_later_is() {
    // Whichever of the two a device comes to first.
    for by_laptop in [true, false] {
        let mut pair = Pair::new();
        pair.laptop.fs.write("file", b"one").unwrap();
        pair.settle();
        pair.pass_days(1);
        let Pair { laptop, desk, .. } = &mut pair;
        let (earlier, later) = if by_laptop { (laptop, desk) } else { (desk, laptop) };
        assert!(keep(earlier, Retention::Days(0)).packets > 0);
        later.fs.write("file", b"two").unwrap();
        later.sync();
        pair.pass_days(1);
        let Pair { laptop, desk, .. } = &mut pair;
        let (earlier, later) = if by_laptop { (laptop, desk) } else { (desk, laptop) };
        assert!(prune(later).packets > 0);
        prune(earlier);
        prune(later);
        for device in [earlier, later] {
            assert_eq!(device.replica.index().problems().unwrap(), []);
            let left = support::letting_go::garbage(device);
            let histories = left.standing().filter(|(_, found)| found.condemned_history().is_some());
            assert_eq!(histories.count(), 0, "by the laptop: {by_laptop}");
        }
    }
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

/// Told by single refused calls of the whole program: the checkpoint by which others learn that history begins later was
/// refused, and no plain round tried it again while little else was to be told.
#[test]
fn the_checkpoint_that_tells_where_history_begins_is_written_by_a_plain_round_where_the_storage_took_none() {
    let mut refused = 0;
    for calls in 0.. {
        let (mut pair, _) = three_versions();
        keep(&mut pair.laptop, Retention::Days(0));
        pair.desk.sync();
        pair.fuse.store(calls, Ordering::SeqCst);
        let _ = pair.laptop.replica.prune(PruneOptions::default(), &mut Silent);
        let was_cut = pair.out.load(Ordering::SeqCst);
        pair.fuse.store(-1, Ordering::SeqCst);
        pair.out.store(false, Ordering::SeqCst);
        refused += usize::from(!pair.laptop.replica.index().problems().unwrap().is_empty());
        pair.settle();
        for device in [&mut pair.laptop, &mut pair.desk] {
            assert_eq!(device.replica.index().problems().unwrap(), [], "cut at {calls}");
            assert_sound(device);
        }
        if !was_cut {
            assert!(refused > 0, "no checkpoint was refused in {calls} calls");
            return;
        }
    }
}

#[test]
fn a_device_can_join_after_a_revocation_though_the_storage_refused_a_checkpoint() {
    // One of the key before is of no use to whoever joins, and history begins later than the lanes. After a refusal the
    // next was tried only when much more had been said.
    let mut refused = 0;
    for calls in 0.. {
        let (mut pair, _) = three_versions();
        let mut third = pair.third();
        third.sync();
        let_go_of_all(&mut pair, &mut third);
        pair.fuse.store(calls, Ordering::SeqCst);
        let _ = pair.laptop.replica.revoke(&third.id(), b"a new passphrase", &mut Silent);
        let _ = pair.laptop.replica.sync(SyncOptions::default(), &mut Silent);
        let was_cut = pair.out.load(Ordering::SeqCst);
        pair.fuse.store(-1, Ordering::SeqCst);
        pair.out.store(false, Ordering::SeqCst);
        refused += usize::from(!pair.laptop.replica.index().problems().unwrap().is_empty());
        pair.settle();
        let is_revoked = pair.laptop.standings().contains(&("third".to_owned(), "revoked"));
        let passphrase: &[u8] = if is_revoked { b"a new passphrase" } else { b"secret" };
        let mut fourth = pair.joined(4, "fourth", passphrase);
        fourth.sync();
        assert_eq!(fourth.files(), pair.laptop.files(), "cut at {calls}");
        if !was_cut {
            assert!(refused > 0, "no checkpoint was refused in {calls} calls");
            return;
        }
    }
}

/// Lets go of all history, and has all carry that out.
fn let_go_of_all(pair: &mut Pair, third: &mut Device) {
    keep(&mut pair.laptop, Retention::Days(0));
    for _ in 0..2 {
        pair.desk.sync();
        third.sync();
        pair.laptop.sync();
    }
    assert!(!pair.store.names().iter().any(|name| name.as_str().ends_with("/1")), "{:?}", pair.store.names());
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

/// Two devices, of which the desk still shows at `place` what the vault deleted before history begins.
fn deleted_long_ago() -> Pair {
    let mut pair = Pair::new();
    pair.laptop.fs.write("place", b"deleted long ago").unwrap();
    pair.settle();
    pair.laptop.fs.remove("place").unwrap();
    pair.laptop.sync();
    pair.pass_days(1);
    keep(&mut pair.laptop, Retention::Days(0));
    prune(&mut pair.desk);
    pair
}

#[test]
fn what_takes_the_place_of_something_that_was_let_go_keeps_its_record() {
    // A disk still showed a file that the vault had deleted before history begins. Its user moved it and made a directory
    // in its place, with more in it than one packet holds: the directory was recorded before the file was forgotten, and
    // its record was taken for the file's, so that all that it held hung on nothing.
    let mut pair = deleted_long_ago();
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
    let mut pair = deleted_long_ago();
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
fn a_directory_that_was_deleted_before_history_begins_is_moved_with_all_that_is_on_disk_in_it() {
    // It was still shown for a file that somebody had put in it unseen. Its move revived, on the device that moved it, what
    // the delete had removed in it; the other had forgotten that, so the two showed different trees for ever.
    let mut pair = Pair::new();
    pair.laptop.fs.write("d/old", b"old").unwrap();
    pair.laptop.fs.write("d/e/old", b"older").unwrap();
    pair.settle();
    pair.desk.fs.write("d/new", b"new").unwrap();
    pair.desk.fs.write("d/e/new", b"newer").unwrap();
    pair.desk.sync();
    pair.laptop.fs.remove("d").unwrap();
    pair.laptop.sync();
    pair.pass_days(1);
    keep(&mut pair.laptop, Retention::Days(0));
    prune(&mut pair.desk);
    prune(&mut pair.laptop);
    pair.desk.fs.rename("d", "moved").unwrap();
    pair.settle();
    pair.settle();
    let all = [("moved/e/new", "newer"), ("moved/e/old", "older"), ("moved/new", "new"), ("moved/old", "old")];
    pair.assert_files(&all);
    assert_sound(&mut pair.laptop);
    let mut third = pair.third();
    third.sync();
    assert_eq!(third.files(), pair.desk.files());
}

#[test]
fn what_was_looked_at_in_a_directory_that_was_let_go_leaves_no_record_behind() {
    // A file in it had come so lately that its bytes were looked at, and that was recorded after all in the directory had
    // been forgotten. The record hung on nothing: each round ended with a mismatch, and when the user gave another file its
    // name that one was taken for it, and deleted everywhere.
    for moved_out in [false, true] {
        let mut pair = Pair::new();
        pair.laptop.fs.write("d/file", b"precious").unwrap();
        pair.laptop.fs.write("d/e/deep", b"precious too").unwrap();
        pair.laptop.sync();
        pair.desk.sync();
        pair.laptop.sync();
        pair.laptop.fs.remove("d").unwrap();
        pair.laptop.sync();
        pair.pass_days(1);
        keep(&mut pair.laptop, Retention::Days(0));
        pair.desk.fs.rename("d", "moved").unwrap();
        pair.desk.sync();
        let mut all = vec![("moved/e/deep", "precious too"), ("moved/file", "precious")];
        if moved_out {
            pair.desk.fs.rename("moved/file", "file").unwrap();
            all = vec![("file", "precious"), ("moved/e/deep", "precious too")];
        }
        for _ in 0..3 {
            pair.settle();
        }
        pair.assert_files(&all);
        assert_sound(&mut pair.laptop);
    }
}

#[test]
fn an_edit_of_what_was_let_go_is_published_by_the_next_round_however_deep_it_lies() {
    // Each directory above it was found new in a round of its own, and whoever synchronised once and left had published
    // nothing.
    let mut pair = Pair::new();
    pair.laptop.fs.write("d/e/f/file", b"old").unwrap();
    pair.laptop.fs.write("d/e/other", b"other").unwrap();
    pair.settle();
    pair.laptop.fs.remove("d").unwrap();
    pair.laptop.sync();
    pair.pass_days(1);
    keep(&mut pair.laptop, Retention::Days(0));
    pair.desk.fs.write("d/e/f/file", b"edited unseen").unwrap();
    let report = pair.desk.sync();
    assert_eq!((report.sent.created, report.sent.postponed, report.received.waiting), (4, 0, 0));
    pair.laptop.sync();
    pair.assert_files(&[("d/e/f/file", "edited unseen")]);
    pair.settle();
    assert_sound(&mut pair.laptop);
}

#[test]
fn what_was_let_go_while_it_was_ignored_here_is_new_once_no_rule_ignores_it() {
    // Nobody could say any more what it had been compared with, so nothing was done: it was never published, and what
    // somebody made of the same name elsewhere waited for good.
    for made_again in [false, true] {
        let mut pair = Pair::new();
        pair.laptop.fs.write("file", b"kept here").unwrap();
        pair.laptop.fs.write("dir/file", b"kept here too").unwrap();
        pair.settle();
        let desk = pair.desk.id();
        pair.laptop.replica.retire(&desk, &mut Silent).unwrap();
        pair.laptop.fs.remove("file").unwrap();
        pair.laptop.fs.remove("dir").unwrap();
        pair.laptop.sync();
        pair.pass_days(1);
        keep(&mut pair.laptop, Retention::Days(0));
        prune(&mut pair.laptop);
        pair.laptop.sync();
        assert!(!garbage(&pair.laptop).ended().is_empty());
        // It begins anew from where that is gone, and keeps what it had been in step with, but for the rule.
        pair.desk.replica.settings_mut().ignore_overlay = "file\ndir/\n".to_owned();
        pair.settle();
        assert_eq!(pair.desk.files().len(), 2);
        if made_again {
            pair.laptop.fs.write("file/inner", b"of the laptop").unwrap();
            pair.settle();
        }
        pair.desk.replica.settings_mut().ignore_overlay.clear();
        for _ in 0..3 {
            pair.settle();
        }
        assert_eq!(pair.laptop.files(), pair.desk.files());
        let texts: Vec<String> = pair.laptop.files().into_iter().map(|(_, text)| text).collect();
        let expected: &[&str] =
            if made_again { &["kept here too", "of the laptop", "kept here"] } else { &["kept here too", "kept here"] };
        let is_there = |text: &&str| texts.iter().any(|found| found == text);
        assert!(expected.iter().all(is_there) && texts.len() == expected.len(), "{texts:?}");
        assert_sound(&mut pair.laptop);
    }
}

#[test]
fn what_was_deleted_before_history_begins_is_not_brought_back_by_an_undo() {
    // Others have forgotten it, or will: it would be back on one device alone.
    let mut pair = Pair::new();
    pair.laptop.fs.write("file", b"deleted long ago").unwrap();
    pair.settle();
    pair.desk.fs.remove("file").unwrap();
    pair.settle();
    pair.pass_days(1);
    keep(&mut pair.laptop, Retention::Days(0));
    for preview in [true, false] {
        let undone = pair.desk.replica.undo(preview, &mut Silent);
        assert!(matches!(undone, Err(QueryError::NothingToUndo)), "{undone:?}");
    }
    pair.settle();
    pair.assert_files(&[]);
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

/// More files than one packet tells of.
const MORE_THAN_A_PACKET: usize = 5_100;

#[test]
fn a_condemned_pack_that_somebody_asked_for_and_that_is_whole_stays_condemned() {
    // It counted as any other from then on, so that a version could refer to it just before it was deleted.
    let mut pair = Pair::new();
    let going = stored(&mut pair, "large", 1);
    stored(&mut pair, "large", 2);
    let bytes = pair.store.get(&going, u64::MAX).unwrap();
    pair.store.delete(&going).unwrap();
    pair.desk.replica.verify(false, &mut Silent).unwrap();
    pair.desk.sync();
    assert!(misses_something(&pair.desk), "no disk shows the first version any more");
    pair.store.put(&going, &bytes).unwrap();
    assert_eq!(keep(&mut pair.laptop, ONE_VERSION).packs, 1);
    pair.laptop.sync();
    let packs = pair.laptop.replica.index().packs(None, 10).unwrap();
    let row = packs.iter().find(|row| pack::object_name(&row.pack) == going).unwrap();
    assert_eq!(row.state, PackState::Condemned);
}
