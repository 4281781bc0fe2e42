//! One vault at two places, and devices that see the one, the other or both.

mod support;
use packetboat_core::garbage::Retention;
use packetboat_core::ids::DeviceId;
use packetboat_engine::ports::Silent;
use packetboat_engine::replica::Replica;
use packetboat_engine::restore_from::restore_from;
use packetboat_storage::memory::MemoryStore;
use packetboat_testkit::sim_fs::{SimFs, SimOptions};
use std::sync::Arc;
use support::letting_go::{ONE_VERSION, garbage, keep, prune};
use support::two_places::{Trio, noise, one_apart};
use support::{Device, Pair};

#[test]
fn what_one_place_has_comes_to_the_other_with_whoever_goes_to_both() {
    let mut trio = Trio::new();
    trio.pair.laptop.fs.write("small", b"from the first").unwrap();
    trio.pair.laptop.fs.write("large", &noise(200_000)).unwrap();
    trio.desk().fs.write("note", b"from the second").unwrap();
    trio.rest();
    let paths: Vec<String> = trio.pair.laptop.files().into_iter().map(|(path, _)| path).collect();
    assert_eq!(paths, ["large", "note", "small"]);
    trio.assert_same();
}

#[test]
fn nobody_misses_the_tip_of_a_device_that_never_comes_to_the_place() {
    let mut trio = Trio::new();
    trio.desk().fs.write("from the desk", b"hello").unwrap();
    trio.rest();
    let newcomer = trio.pair.joined(9, "newcomer", b"secret");
    let mut newcomer = trio.pair.moved(newcomer, &trio.second, "second");
    newcomer.fs.write("from the newcomer", b"hello").unwrap();
    newcomer.sync();
    trio.rest();
    assert_eq!(trio.pair.laptop.fs.read("from the newcomer").unwrap(), b"hello");
    for to_second in [true, false] {
        trio.carrier_goes(to_second);
        assert_is_sound(trio.third());
    }
    assert_is_sound(trio.desk());
    assert_is_sound(&mut trio.pair.laptop);
    assert_is_sound(&mut newcomer);
}

#[track_caller]
fn assert_is_sound(device: &mut Device) {
    let report = device.replica.verify(true, &mut Silent).unwrap();
    assert!(report.faults.is_empty(), "{}: {:?}", device.replica.device_name().unwrap(), report.faults);
}

#[test]
fn an_edit_at_both_places_is_one_conflict_and_is_settled_at_both() {
    let mut trio = Trio::new();
    trio.pair.laptop.fs.write("todo", b"before").unwrap();
    trio.rest();
    trio.let_time_pass();
    trio.pair.laptop.fs.write("todo", b"at the first").unwrap();
    trio.desk().fs.write("todo", b"at the second").unwrap();
    trio.rest();
    trio.assert_same();
    let copy = trio.pair.laptop.copy_name();
    trio.pair.laptop.fs.remove(&copy).unwrap();
    trio.rest();
    trio.assert_same();
    assert_eq!(trio.pair.laptop.files().len(), 1);
}

#[test]
fn a_carrier_that_is_cut_off_at_any_request_tells_of_nothing_that_it_did_not_bring() {
    for calls in 1..40 {
        let mut trio = Trio::new();
        trio.pair.laptop.fs.write("small", b"from the first").unwrap();
        trio.pair.laptop.fs.write("large", &noise(150_000)).unwrap();
        trio.let_time_pass();
        trio.pair.laptop.sync();
        trio.third().sync();
        let second = trio.second.clone();
        let third = trio.third.take().unwrap();
        let mut third = trio.pair.moved_for(third, &second, "second", calls);
        let cut_off = third.replica.sync(Default::default(), &mut Silent).is_err();
        trio.third = Some(third);
        let report = trio.desk().sync();
        assert_eq!(report.problems, 0, "after {calls} calls");
        trio.rest();
        trio.assert_same();
        if !cut_off {
            return;
        }
    }
    panic!("no round came to its end");
}

#[test]
fn two_copies_that_go_on_at_two_places_end_in_step_and_both_keep_what_they_wrote() {
    // Which side stays is a matter of hashes, so several are tried.
    for n in 0..4 {
        let mut trio = Trio::new();
        let mut copy = trio.copy_that_goes_on(50, n);
        trio.pair.laptop.sync();
        copy.sync();
        for _ in 0..2 {
            trio.rest();
            copy.fs.set_now(trio.pair.now_ms() * 1_000_000);
            copy.sync();
        }
        trio.rest();
        trio.assert_same();
        let files = trio.pair.laptop.files();
        assert_eq!(files, [("one".to_owned(), format!("one {n}")), ("other".to_owned(), format!("other {n}"))]);
        assert_eq!(copy.files(), files);
        let ids: Vec<DeviceId> = [&trio.pair.laptop, &copy].map(Device::id).into();
        assert_ne!(ids[0], ids[1]);
    }
}

/// What a vault alone gives back.
fn restored(pair: &Pair, store: &MemoryStore) -> Vec<(String, String)> {
    let (_, mut parts) = pair.parts(90);
    let fs = SimFs::new(SimOptions::default());
    let ring = Replica::read_marker(store).unwrap().unwrap().unlock_with_passphrase(b"secret").unwrap();
    let (store, to, settings) = (Arc::new(store.clone()), Arc::new(fs.clone()), &parts.settings);
    let (clock, entropy) = (&*parts.clock, &mut *parts.entropy);
    let received = restore_from(store, ring, to, None, settings, clock, entropy, &mut Silent).unwrap();
    assert_eq!(received.waiting, 0);
    support::files(&fs)
}

#[test]
fn each_place_gives_back_all_after_copies_went_on_at_two_places() {
    // The tip of the side that had gone stayed. It brought the packets of that side to whoever read only this place, and
    // what built on the side that stays was refused: restoring left files out and said that all was done.
    for n in 0..4 {
        let mut trio = Trio::new();
        let mut copy = trio.copy_that_goes_on(110, n);
        trio.pair.laptop.sync();
        copy.sync();
        trio.third().sync();
        trio.third().fs.write("from the third", b"builds on the laptop's").unwrap();
        trio.third().sync();
        trio.desk().sync();
        trio.desk().fs.write("from the desk", b"builds on the copy's").unwrap();
        for _ in 0..3 {
            trio.rest();
            copy.fs.set_now(trio.pair.now_ms() * 1_000_000);
            copy.sync();
        }
        trio.rest();
        trio.assert_same();
        let files = trio.pair.laptop.files();
        assert_eq!(files.len(), 4);
        for store in [&trio.pair.store, &trio.second] {
            assert_eq!(restored(&trio.pair, store), files, "{n}");
        }
        assert_is_sound(&mut trio.pair.laptop);
        assert_is_sound(trio.desk());
    }
}

#[test]
fn what_only_a_copy_published_that_is_gone_is_kept_whichever_side_stays() {
    for n in 0..6 {
        let mut trio = Trio::new();
        let mut copy = trio.copy_that_goes_on(70, n);
        copy.fs.write("large", &noise(100_000)).unwrap();
        trio.pair.laptop.sync();
        copy.sync();
        // Nobody has seen what it wrote when its disk fails, and the first who comes there has learned the other side.
        drop(copy);
        trio.let_time_pass();
        trio.third().sync();
        for to_second in [true, false] {
            trio.carrier_goes(to_second);
            trio.third().sync();
        }
        trio.rest();
        trio.rest();
        trio.assert_same();
        let paths: Vec<String> = trio.pair.laptop.files().into_iter().map(|(path, _)| path).collect();
        assert_eq!(paths, ["large", "one", "other"], "{n}");
    }
}

#[test]
fn two_that_retire_each_other_at_two_places_both_come_back() {
    // Each refused the packet by which the other had retired it, and so neither ever heard of that.
    let (mut pair, mut third, _) = one_apart();
    let before = [pair.laptop.id(), third.id()];
    pair.laptop.fs.write("from the laptop", b"hello").unwrap();
    third.fs.write("from the third", b"hello").unwrap();
    for (device, other) in [(&mut pair.laptop, &before[1]), (&mut third, &before[0])] {
        device.replica.retire(other, &mut Silent).unwrap();
        device.sync();
    }
    let store = pair.store.clone();
    let mut third = pair.moved(third, &store, "memory");
    for _ in 0..3 {
        pair.pass();
        third.fs.set_now(pair.now_ms() * 1_000_000);
        third.sync();
        pair.laptop.sync();
    }
    let files =
        [("from the laptop", "hello"), ("from the third", "hello")].map(|(path, text)| (path.into(), text.into()));
    assert_eq!(pair.laptop.files(), files);
    assert_eq!(third.files(), files);
    assert!([pair.laptop.id(), third.id()].iter().all(|id| !before.contains(id)));
}

#[test]
fn what_a_carrier_learned_from_a_checkpoint_is_brought_too() {
    // It has none of the packets before; the third device asked the second place for them, for ever.
    let (mut pair, mut third, second) = one_apart();
    for n in 0..80 {
        pair.laptop.fs.write("edited", format!("for the {n}th time").as_bytes()).unwrap();
        pair.pass();
        pair.laptop.sync();
    }
    third.fs.write("from the third", b"hello").unwrap();
    third.sync();
    let mut carrier = pair.joined(9, "carrier", b"secret");
    carrier.sync();
    let first_of_laptop = carrier.replica.index().packets(pair.laptop.id(), 1, 1).unwrap();
    assert_eq!(first_of_laptop, [], "it began from a checkpoint");
    for _ in 0..2 {
        carrier = pair.moved(carrier, &second, "second");
        carrier.sync();
        third.sync();
        let store = pair.store.clone();
        carrier = pair.moved(carrier, &store, "memory");
        carrier.sync();
        pair.settle();
    }
    let files = [("edited", "for the 79th time"), ("from the third", "hello")];
    pair.assert_files(&files);
    assert_eq!(third.files(), pair.laptop.files());
    assert_eq!(carrier.files(), third.files());
}

#[test]
fn what_a_carrier_stored_again_that_others_had_retired_is_read_though_it_begins_anew() {
    // It brought a version to the second place and stored again what that needs. The desk folded the version, and refused
    // what told of the pack. By the time the carrier gave that up itself, no disk showed the version any more, and the
    // pack at the first place was let go: everybody waited for it for ever.
    let mut trio = Trio::new();
    let large = noise(200_000);
    trio.pair.laptop.fs.write("large", &large).unwrap();
    for len in [100_000, 100_001] {
        trio.let_time_pass();
        trio.pair.laptop.fs.write("other", &noise(len)).unwrap();
        trio.pair.laptop.sync();
    }
    comes_back_as_another(&mut trio.pair.laptop);
    trio.third().sync();
    // Neither place knows what the other condemns, so each refuses who has come back at the other.
    trio.pair.laptop.sync();
    assert_eq!(keep(&mut trio.pair.laptop, ONE_VERSION).packs, 1);
    trio.third().sync();
    let third = trio.third().id();
    trio.desk().fs.write("from the desk", b"hello").unwrap();
    trio.desk().sync();
    comes_back_as_another(trio.desk());
    trio.desk().replica.retire(&third, &mut Silent).unwrap();
    trio.let_time_pass();
    assert!(keep(trio.desk(), Retention::Days(0)).packets > 0);
    trio.carrier_goes(true);
    trio.third().sync();
    trio.desk().sync();
    prune(trio.desk());
    assert!(!garbage(trio.desk()).ended().is_empty(), "history begins later");
    trio.carrier_goes(false);
    trio.third().sync();
    trio.pair.laptop.fs.write("large", b"small by now").unwrap();
    trio.pair.laptop.sync();
    trio.third().sync();
    trio.pair.laptop.sync();
    assert!(prune(&mut trio.pair.laptop).packs > 0);
    trio.third().sync();
    assert!(prune(&mut trio.pair.laptop).deleted > 0);
    trio.rest();
    trio.rest();
    trio.assert_same();
    for device in [&mut trio.pair.laptop, trio.desk.as_mut().unwrap(), trio.third.as_mut().unwrap()] {
        assert_eq!(device.sync().received.waiting, 0);
        let shown: Vec<Vec<u8>> = device.files().iter().map(|(path, _)| device.fs.read(path).unwrap()).collect();
        assert!(shown.contains(&large) && shown.contains(&b"small by now".to_vec()));
    }
}

/// A device is retired by itself and goes on as another.
fn comes_back_as_another(device: &mut Device) {
    let id = device.id();
    device.replica.retire(&id, &mut Silent).unwrap();
    device.sync();
    assert_ne!(device.id(), id);
}
