//! What rounds let go by themselves, and what is said where there is no room.

mod support;

use std::num::NonZeroU32;
use std::sync::atomic::Ordering;

use packetboat_core::checkpoint::CheckpointRef;
use packetboat_core::garbage::Retention;
use packetboat_core::store::Store;
use packetboat_engine::ports::Silent;
use packetboat_engine::replica::{At, SyncOptions};
use support::letting_go::{LARGE, assert_sound, keep, noise, prune, shown, three_versions};
use support::{Device, Pair, Watcher};

/// The warnings of a round that finds no room for a large file.
fn full(pair: &mut Pair, by_itself: bool) -> Vec<String> {
    full_where(pair, by_itself, Pair::fill)
}

/// The same, where the device finds the store like this.
fn full_where(pair: &mut Pair, by_itself: bool, store: impl Fn(&Pair, &mut Device)) -> Vec<String> {
    let mut desk = pair.take_desk();
    if by_itself {
        pair.lets_go_by_itself(&mut desk);
    }
    store(pair, &mut desk);
    desk.fs.write("more", &noise(9, LARGE)).unwrap();
    let mut watcher = Watcher::default();
    assert!(desk.replica.sync(SyncOptions::default(), &mut watcher).is_err());
    pair.desk = desk;
    watcher.warnings
}

#[test]
fn a_full_intermediary_is_told_with_what_would_free_how_much_of_it() {
    let (mut pair, _) = three_versions();
    pair.pass_days(91);
    let [what, past] = &full(&mut pair, false)[..] else { panic!() };
    assert_eq!(what, "the intermediary is full: `packetboat prune` would free 1 MB of it");
    assert_eq!(
        past,
        "of 1 MB in the vault 1 MB are past contents; it keeps 90 days of history, and `packetboat prune --keep` frees more"
    );
}

#[test]
fn a_full_intermediary_of_which_nothing_can_go_is_told_so() {
    let mut pair = Pair::new();
    pair.laptop.fs.write("small", b"text").unwrap();
    pair.settle();
    for by_itself in [false, true] {
        let warnings = full(&mut pair, by_itself);
        assert_eq!(warnings, ["the intermediary is full, and nothing could be deleted at once"]);
    }
}

#[test]
fn a_full_intermediary_names_who_is_waited_for() {
    let (mut pair, _) = three_versions();
    keep(&mut pair.desk, Retention::Days(0));
    let warnings = full(&mut pair, false);
    assert_eq!(warnings[0], "the intermediary is full, and nothing could be deleted at once");
    assert_eq!(warnings[1], "more goes once these devices have synchronised: laptop");
    assert!(warnings[2].ends_with("it keeps nothing past, and `packetboat prune --keep` frees more"), "{warnings:?}");
}

#[test]
fn a_full_intermediary_of_which_only_small_packets_can_go_tells_how_little_that_is() {
    let mut pair = Pair::new();
    for version in 0..9 {
        pair.laptop.fs.write("small", format!("version {version}").as_bytes()).unwrap();
        pair.settle();
    }
    pair.pass_days(91);
    let warnings = full(&mut pair, false);
    let would = warnings[0].strip_prefix("the intermediary is full: `packetboat prune` would free ").unwrap();
    let kilobytes: u64 = would.strip_suffix(" kB of it").unwrap().parse().unwrap();
    assert!((2..10).contains(&kilobytes), "{would}");
}

#[test]
fn where_there_is_no_room_even_to_say_what_may_go_nothing_more_is_promised() {
    let (mut pair, _) = three_versions();
    pair.pass_days(91);
    let warnings = full(&mut pair, true);
    assert_eq!(warnings.len(), 2, "{warnings:?}");
    assert_eq!(warnings[0], "the intermediary is full, and nothing could be deleted at once");
}

#[test]
fn a_full_intermediary_that_does_not_say_what_it_holds_is_told_so() {
    let (mut pair, _) = three_versions();
    keep(&mut pair.laptop, Retention::Days(0));
    pair.desk.sync();
    let warnings = full_where(&mut pair, true, Pair::fill_and_hide);
    assert!(warnings[0].starts_with("nothing was let go: "), "{warnings:?}");
}

#[test]
fn what_is_kept_is_told_in_words() {
    for (versions, words) in [(1, "the last version of each file"), (2, "the last 2 versions of each file")] {
        let (mut pair, _) = three_versions();
        keep(&mut pair.desk, Retention::Versions(NonZeroU32::new(versions).unwrap()));
        let warnings = full(&mut pair, false);
        let kept = format!("it keeps {words}, and `packetboat prune --keep` frees more");
        assert!(warnings.iter().any(|text| text.ends_with(&kept)), "{warnings:?}");
    }
}

#[test]
fn what_there_was_no_room_for_is_put_once_a_round_has_made_some() {
    let (mut pair, _) = three_versions();
    pair.pass_days(91);
    // There is nobody to wait for, and room for what says what goes.
    let laptop = pair.laptop.replica.own_device();
    pair.desk.replica.retire(&laptop, &mut Silent).unwrap();
    let (room, before) = (pair.store.size() + LARGE as u64 / 4, pair.store.names());
    let mut desk = pair.take_desk();
    pair.lets_go_by_itself(&mut desk);
    pair.fill_to(&mut desk, room);
    desk.fs.write("more", &noise(9, LARGE)).unwrap();
    let mut watcher = Watcher::default();
    let report = desk.replica.sync(SyncOptions::default(), &mut watcher).unwrap();
    assert_eq!(report.published.packets, 1);
    let gone = before.iter().filter(|name| !pair.store.names().contains(name)).count();
    let text = format!("the intermediary was full: {gone} objects that nobody needs were deleted (1 MB)");
    assert_eq!(watcher.warnings[0], text);
    let mut third = pair.third();
    third.sync();
    assert_eq!(third.fs.read("more").unwrap(), noise(9, LARGE));
    assert_sound(&mut desk);
}

#[test]
fn a_checkpoint_that_was_broken_off_goes_from_a_full_intermediary() {
    let mut pair = Pair::new();
    let torn = CheckpointRef { device: pair.desk.replica.own_device(), number: 9 }.name();
    pair.store.put(&torn, b"the storage broke off here").unwrap();
    let warnings = full(&mut pair, true);
    assert!(!pair.store.names().contains(&torn));
    assert_eq!(warnings, ["the intermediary was full: 1 objects that nobody needs were deleted (0 kB)"]);
}

#[test]
fn what_a_full_round_deleted_by_itself_is_told_with_its_size() {
    let (mut pair, _) = three_versions();
    keep(&mut pair.laptop, Retention::Days(0));
    pair.desk.sync();
    let before = pair.store.names().len();
    let warnings = full(&mut pair, true);
    let gone = before - pair.store.names().len();
    assert!(gone > 2);
    let text = format!("the intermediary was full: {gone} objects that nobody needs were deleted (1 MB)");
    assert!(warnings.contains(&text), "{text}: {warnings:?}");
}

#[test]
fn status_tells_how_much_of_a_vault_is_past() {
    let (mut pair, _) = three_versions();
    let size = pair.laptop.replica.status().unwrap().size.unwrap();
    let large = LARGE as u64;
    assert!((3 * large..4 * large).contains(&size.stored), "{size:?}");
    assert!((2 * large..3 * large).contains(&size.history), "{size:?}");
    assert_eq!(size.as_of, pair.now_ms());
    keep(&mut pair.laptop, Retention::Days(0));
    pair.settle();
    // The desk did not delete it, and went on telling of what was gone.
    for device in [&mut pair.laptop, &mut pair.desk] {
        let size = device.replica.status().unwrap().size.unwrap();
        assert!((large..2 * large).contains(&size.stored) && size.history < 1000, "{size:?}");
    }
}

#[test]
fn a_vault_of_small_files_takes_what_its_packets_take() {
    let mut pair = Pair::new();
    for version in 0..3 {
        pair.laptop.fs.write("small", format!("version {version}").as_bytes()).unwrap();
        pair.settle();
    }
    let lanes = pair.store.names().into_iter().filter(|name| name.as_str().starts_with("lanes/"));
    let bytes: usize = lanes.map(|name| pair.store.get(&name, u64::MAX).unwrap().len()).sum();
    let size = pair.desk.replica.status().unwrap().size.unwrap();
    assert_eq!((size.stored, size.history), (bytes as u64, 0));
}

#[test]
fn what_was_deleted_counts_as_past() {
    let mut pair = Pair::new();
    pair.laptop.fs.write("large", &noise(1, LARGE)).unwrap();
    pair.laptop.fs.write("stays", &noise(2, LARGE)).unwrap();
    pair.settle();
    assert!(pair.desk.replica.status().unwrap().size.unwrap().history < 1000);
    pair.laptop.fs.remove("large").unwrap();
    pair.settle();
    let (size, large) = (pair.desk.replica.status().unwrap().size.unwrap(), LARGE as u64);
    assert!((large..large * 3 / 2).contains(&size.history), "{size:?}");
}

#[test]
fn a_round_lets_little_history_be_until_somebody_asks() {
    let (mut pair, _) = three_versions();
    pair.pass_days(91);
    let mut desk = pair.take_desk();
    pair.lets_go_by_itself(&mut desk);
    let before = pair.store.names();
    for _ in 0..3 {
        desk.sync();
        pair.laptop.sync();
    }
    assert_eq!(pair.store.names(), before);
    assert!(shown(&mut desk, "small", &At::Time(pair.now_ms() - 91 * DAY_MS)).is_ok());
    assert!(prune(&mut desk).packets > 0, "it goes where somebody asks");
    assert_sound(&mut desk);
}

#[test]
fn an_intermediary_that_fails_while_a_round_lets_go_ends_no_round() {
    let mut failed = 0;
    for calls in 0.. {
        let (mut pair, _) = three_versions();
        keep(&mut pair.laptop, Retention::Days(0));
        pair.desk.sync();
        pair.fuse.store(calls, Ordering::SeqCst);
        let mut watcher = Watcher::default();
        let result = pair.laptop.replica.sync(SyncOptions::default(), &mut watcher);
        let was_cut = pair.out.load(Ordering::SeqCst);
        pair.fuse.store(-1, Ordering::SeqCst);
        pair.out.store(false, Ordering::SeqCst);
        if was_cut && watcher.warnings.iter().any(|text| text.starts_with("nothing was let go")) {
            assert!(result.is_ok(), "cut at {calls}: {result:?}");
            failed += 1;
        }
        pair.settle();
        prune(&mut pair.laptop);
        pair.settle();
        for device in [&mut pair.laptop, &mut pair.desk] {
            assert_eq!(device.fs.read("large").unwrap(), noise(3, LARGE));
            assert_sound(device);
        }
        if !was_cut {
            assert!(failed > 3, "{failed} of {calls}");
            return;
        }
    }
}

/// Whether a device finds a file in its log by a name that it had.
fn is_found(device: &mut Device, name: &str) -> bool {
    device.replica.log(Some(&support::path(name)), 9).is_ok_and(|log| !log.is_empty())
}

#[test]
fn former_names_are_known_as_long_as_history_goes_and_no_longer() {
    let mut pair = Pair::new();
    pair.laptop.fs.write("new", &noise(1, LARGE)).unwrap();
    pair.laptop.fs.write("other", b"text").unwrap();
    pair.settle();
    for (from, to) in [("new", "first"), ("first", "second"), ("second", "third"), ("third", "last")] {
        pair.pass_days(2);
        pair.laptop.fs.rename(from, to).unwrap();
        pair.settle();
    }
    for name in ["first", "second", "third", "last"] {
        assert!(is_found(&mut pair.desk, name), "{name}");
    }
    // It was called second until four days ago, and third until a moment ago.
    keep(&mut pair.laptop, Retention::Days(3));
    pair.desk.sync();
    prune(&mut pair.laptop);
    prune(&mut pair.desk);
    for device in [&mut pair.laptop, &mut pair.desk] {
        let found = ["first", "second", "third", "last"].map(|name| is_found(device, name));
        assert_eq!(found, [false, true, true, true]);
        assert_sound(device);
    }
}

const DAY_MS: i64 = 24 * 3_600_000;
