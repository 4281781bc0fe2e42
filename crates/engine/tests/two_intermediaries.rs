//! One vault at two places, and devices that see the one, the other or both.

mod support;

use std::sync::Arc;

use packetboat_core::garbage::Retention;
use packetboat_core::ids::DeviceId;
use packetboat_core::store::Store;
use packetboat_engine::PruneOptions;
use packetboat_engine::ports::Silent;
use packetboat_engine::replica::Replica;
use packetboat_engine::restore_from::restore_from;
use packetboat_replica::index::PackState;
use packetboat_storage::memory::MemoryStore;
use packetboat_storage::pack;
use packetboat_testkit::sim_fs::{SimFs, SimOptions};

use support::letting_go::{ONE_VERSION, garbage, keep, prune};
use support::{Device, Pair, copy_of};

/// A laptop at the first place, a desk at the second, and a third device that goes to both.
struct Trio {
    pair: Pair,
    desk: Option<Device>,
    third: Option<Device>,
    second: MemoryStore,
}

impl Trio {
    fn new() -> Self {
        let (mut pair, third, second) = three_and_a_copy();
        let desk = pair.take_desk();
        let desk = pair.moved(desk, &second, "second");
        Self { pair, desk: Some(desk), third: Some(third), second }
    }

    fn desk(&mut self) -> &mut Device {
        self.desk.as_mut().unwrap()
    }

    fn third(&mut self) -> &mut Device {
        self.third.as_mut().unwrap()
    }

    /// The third device goes to the second place, or back to the first.
    fn carrier_goes(&mut self, to_second: bool) {
        let third = self.third.take().unwrap();
        let (store, place) =
            if to_second { (self.second.clone(), "second") } else { (self.pair.store.clone(), "memory") };
        self.third = Some(self.pair.moved(third, &store, place));
    }

    /// A copy of the laptop with a disk of its own goes to the second place; each has something to tell.
    fn copy_that_goes_on(&mut self, seed: u64, n: u64) -> Device {
        let (fs, mut parts) = self.pair.parts(seed + n);
        parts.index = self.pair.laptop.replica.index().copy_in_memory().unwrap();
        let copy = Device { fs, replica: Replica::open(parts).unwrap() };
        let copy = self.pair.moved(copy, &self.second, "second");
        copy.fs.set_now(self.pair.now_ms() * 1_000_000);
        self.pair.laptop.fs.write("one", format!("one {n}").as_bytes()).unwrap();
        copy.fs.write("other", format!("other {n}").as_bytes()).unwrap();
        copy
    }

    fn let_time_pass(&mut self) {
        self.pair.pass();
        let now = self.pair.now_ms() * 1_000_000;
        self.desk().fs.set_now(now);
        self.third().fs.set_now(now);
    }

    /// Everybody synchronises several times, the third device at both places.
    fn rest(&mut self) {
        for _ in 0..5 {
            self.let_time_pass();
            self.pair.laptop.sync();
            self.desk().sync();
            for to_second in [true, false] {
                self.carrier_goes(to_second);
                self.third().sync();
            }
        }
    }

    #[track_caller]
    fn assert_same(&mut self) {
        let files = self.pair.laptop.files();
        assert_eq!(self.desk().files(), files, "desk");
        assert_eq!(self.third().files(), files, "third");
    }
}

/// Three devices that know of each other, and a copy of their intermediary.
fn three_and_a_copy() -> (Pair, Device, MemoryStore) {
    let mut pair = Pair::new();
    let mut third = pair.third();
    third.sync();
    pair.settle();
    third.fs.set_now(pair.now_ms() * 1_000_000);
    third.sync();
    let second = copy_of(&pair.store);
    (pair, third, second)
}

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

/// A laptop and a desk at one place, and a third device that stays at a copy of it.
fn one_apart() -> (Pair, Device, MemoryStore) {
    let (pair, third, second) = three_and_a_copy();
    let third = pair.moved(third, &second, "second");
    (pair, third, second)
}

/// A device goes to the second place, where others synchronise after it, and back to the first, where the laptop does.
fn goes_there_and_back(pair: &mut Pair, device: Device, second: &MemoryStore, there: &mut [&mut Device]) -> Device {
    let mut device = pair.moved(device, second, "second");
    device.sync();
    for other in there {
        other.fs.set_now(pair.now_ms() * 1_000_000);
        other.sync();
    }
    let store = pair.store.clone();
    let mut device = pair.moved(device, &store, "memory");
    device.sync();
    pair.pass();
    pair.laptop.sync();
    device
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
fn whoever_was_left_alone_at_one_place_goes_on_from_the_checkpoint_that_is_brought_there() {
    let (mut pair, mut third, second) = one_apart();
    third.fs.write("from the third", b"hello").unwrap();
    third.sync();
    pair.laptop.replica.retire(&third.id(), &mut Silent).unwrap();
    pair.laptop.fs.write("large", &noise(200_000)).unwrap();
    pair.settle();
    keep(&mut pair.laptop, Retention::Days(0));
    for _ in 0..4 {
        pair.pass_days(1);
        pair.laptop.fs.write("edited", &pair.now_ms().to_le_bytes()).unwrap();
        pair.settle();
        prune(&mut pair.laptop);
        prune(&mut pair.desk);
    }
    assert!(!garbage(&pair.desk).ended().is_empty(), "history begins later");
    let mut desk = pair.take_desk();
    for _ in 0..4 {
        desk = goes_there_and_back(&mut pair, desk, &second, &mut [&mut third]);
    }
    let files = pair.laptop.files();
    let paths: Vec<&str> = files.iter().map(|(path, _)| path.as_str()).collect();
    assert_eq!(paths, ["edited", "from the third", "large"]);
    assert_eq!(desk.files(), files);
    assert_eq!(third.files(), files);
}

#[test]
fn of_two_beginnings_of_history_the_one_of_which_more_is_gone_stays_and_newcomers_take_it() {
    // The other has by far the more packets, so that a newcomer would begin from there, find that it lacks what was let go
    // at the first place, begin anew from there once more, and so on.
    let (mut pair, mut third, second) = one_apart();
    pair.laptop.replica.retire(&third.id(), &mut Silent).unwrap();
    for n in 0..40 {
        pair.laptop.fs.write("of the laptop", format!("for the {n}th time").as_bytes()).unwrap();
        pair.pass();
        pair.laptop.sync();
    }
    let others = [pair.laptop.id(), pair.desk.id()];
    for other in &others {
        third.replica.retire(other, &mut Silent).unwrap();
    }
    pair.settle();
    keep(&mut pair.laptop, Retention::Days(0));
    keep(&mut third, Retention::Days(0));
    for _ in 0..4 {
        pair.pass_days(1);
        third.fs.set_now(pair.now_ms() * 1_000_000);
        pair.laptop.fs.write("edited", &pair.now_ms().to_le_bytes()).unwrap();
        third.fs.write("from the third", &pair.now_ms().to_le_bytes()).unwrap();
        pair.settle();
        third.sync();
        prune(&mut pair.laptop);
        prune(&mut pair.desk);
        prune(&mut third);
    }
    for n in 0..200 {
        third.fs.write("of the third", format!("for the {n}th time").as_bytes()).unwrap();
        pair.pass();
        third.fs.set_now(pair.now_ms() * 1_000_000);
        third.sync();
    }
    let gone = [&pair.laptop, &third].map(|device| {
        let counters = |(_, learned): (_, &packetboat_core::knowledge::Learned)| learned.counter;
        garbage(device).ended().iter().map(counters).sum::<u64>()
    });
    assert!(gone[0] > gone[1] && gone[1] > 0, "{gone:?}");
    let mut desk = pair.take_desk();
    let newcomer = pair.joined(9, "newcomer", b"secret");
    let mut newcomer = pair.moved(newcomer, &second, "second");
    for _ in 0..6 {
        desk = goes_there_and_back(&mut pair, desk, &second, &mut [&mut third, &mut newcomer]);
    }
    let files = pair.laptop.files();
    let paths: Vec<&str> = files.iter().map(|(path, _)| path.as_str()).collect();
    assert_eq!(paths, ["edited", "from the third", "of the laptop", "of the third"]);
    for device in [&desk, &third, &newcomer] {
        assert_eq!(device.files(), files);
    }
}

#[test]
fn nothing_is_let_go_where_a_vault_lies_at_two_places() {
    let mut trio = Trio::new();
    for round in 0..6 {
        trio.pair.laptop.fs.write("large", &noise(100_000 + round)).unwrap();
        trio.desk().fs.write("other", &noise(90_000 + round)).unwrap();
        trio.rest();
    }
    let before = [&trio.pair.store, &trio.second].map(MemoryStore::names);
    let options = PruneOptions { keep: Some(Retention::Days(0)), dry_run: false };
    let report = trio.third().replica.prune(options, &mut Silent).unwrap();
    assert_eq!((report.packets, report.packs, report.deleted), (0, 0, 0));
    assert!(report.notes.iter().any(|note| note.contains("two places")), "{:?}", report.notes);
    trio.rest();
    for (store, before) in [&trio.pair.store, &trio.second].into_iter().zip(before) {
        let after = store.names();
        assert!(before.iter().all(|name| after.contains(name)));
    }
}

#[test]
fn what_all_have_answered_stays_where_the_vault_has_come_to_lie_at_two_places() {
    let (mut pair, mut third, _) = three_and_a_copy();
    for len in [100_000, 100_001] {
        pair.laptop.fs.write("large", &noise(len)).unwrap();
        pair.settle();
        third.sync();
    }
    let second = copy_of(&pair.store);
    let condemned = keep(&mut third, ONE_VERSION).packs;
    assert_eq!(condemned, 1);
    pair.laptop.sync();
    let desk = pair.take_desk();
    let mut desk = pair.moved(desk, &second, "second");
    // It hears of that at the second place, and answers there.
    third = pair.moved(third, &second, "second");
    third.sync();
    desk.fs.write("from the desk", b"hello").unwrap();
    desk.sync();
    third.sync();
    let store = pair.store.clone();
    third = pair.moved(third, &store, "memory");
    let before = [&store, &second].map(MemoryStore::names);
    third.sync();
    let report = prune(&mut third);
    assert_eq!((report.deleted, report.waiting_for), (0, Vec::new()));
    for (store, before) in [&store, &second].into_iter().zip(before) {
        let after = store.names();
        assert!(before.iter().all(|name| after.contains(name)));
    }
}

/// What a device tells its user that it keeps history from being deleted.
fn kept_by(device: &Device) -> Vec<String> {
    let problems = device.replica.index().problems().unwrap().into_iter();
    problems.filter(|problem| problem.kind == "history").map(|problem| problem.text).collect()
}

/// A device at the second place, where it has brought that history is to begin, which the laptop said at the first and all
/// have answered: the checkpoint at which it begins lies at the first place alone.
fn history_condemned_elsewhere() -> (Pair, Device, MemoryStore) {
    let (mut pair, mut third, second) = three_and_a_copy();
    for text in ["one", "two"] {
        pair.laptop.fs.write("small", text.as_bytes()).unwrap();
        pair.settle();
        third.sync();
    }
    pair.pass_days(1);
    third.fs.set_now(pair.now_ms() * 1_000_000);
    assert!(keep(&mut pair.laptop, Retention::Days(0)).packets > 0);
    pair.desk.sync();
    third.sync();
    let mut third = pair.moved(third, &second, "second");
    third.sync();
    assert_eq!(kept_by(&third), Vec::<String>::new(), "nobody has let go there");
    prune(&mut third);
    let [text] = &kept_by(&third)[..] else { panic!("{:?}", kept_by(&third)) };
    assert!(text.contains("another place"), "{text}");
    (pair, third, second)
}

/// Story: whoever went to a copy of the vault found no checkpoint there at which history was to begin, and told of it for
/// ever, though it had the copy and the first place by then and let nothing go at either.
#[test]
fn what_keeps_history_is_told_of_no_more_once_nothing_is_let_go_at_two_places() {
    let (mut pair, third, second) = history_condemned_elsewhere();
    let mut third = pair.moved(third, &pair.store, "memory");
    third.sync();
    assert!(prune(&mut third).notes.iter().any(|note| note.contains("two places")));
    assert_eq!(kept_by(&third), Vec::<String>::new());
    let mut third = pair.moved(third, &second, "second");
    assert_eq!(third.sync().problems, 0);
    pair.settle();
    for device in [&pair.laptop, &pair.desk, &third] {
        assert_eq!(kept_by(device), Vec::<String>::new());
    }
}

/// The checkpoint at which it is to begin lies at the other place alone, of which these devices do not know.
#[test]
fn history_that_was_condemned_at_the_other_place_stays_where_only_one_is_seen_and_status_says_so() {
    let (mut pair, third, second) = three_and_a_copy();
    let mut third = pair.moved(third, &second, "second");
    for text in ["one", "two"] {
        third.fs.write("small", text.as_bytes()).unwrap();
        third.sync();
    }
    pair.pass_days(1);
    third.fs.set_now(pair.now_ms() * 1_000_000);
    assert!(keep(&mut third, Retention::Days(0)).packets > 0);
    let mut third = pair.moved(third, &pair.store, "memory");
    third.sync();
    pair.settle();
    third.sync();
    pair.settle();
    let before = pair.store.names();
    for device in [&mut pair.laptop, &mut pair.desk] {
        prune(device);
        assert_eq!(kept_by(device).len(), 1);
        assert_eq!(device.fs.read("small").unwrap(), b"two");
    }
    let after = pair.store.names();
    let lost = before.iter().filter(|name| name.as_str().starts_with("lanes/") && !after.contains(name));
    assert_eq!(lost.count(), 0);
}

#[test]
fn what_keeps_history_is_told_of_no_more_where_the_vault_was_moved_to_has_it() {
    let (pair, third, _) = history_condemned_elsewhere();
    // What only the copy was told is not needed here.
    let mut third = pair.moved(third, &copy_of(&pair.store), "where it was moved to");
    assert_eq!(third.sync().problems, 0);
    assert_eq!(kept_by(&third), Vec::<String>::new());
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

/// Devices that go to two places in any order and let go at each; what stands is to be had at both afterwards.
struct Wanderers {
    pair: Pair,
    devices: Vec<Device>,
    places: [(MemoryStore, &'static str); 2],
    trace: Vec<String>,
}

impl Wanderers {
    fn new() -> Self {
        let (mut pair, third, second) = three_and_a_copy();
        let first = pair.store.clone();
        let nobody = pair.nobody();
        let laptop = std::mem::replace(&mut pair.laptop, nobody);
        let devices = vec![laptop, pair.take_desk(), third];
        Self { pair, devices, places: [(first, "memory"), (second, "second")], trace: Vec::new() }
    }

    /// A device goes to a place and synchronises there, or lets go.
    fn goes(&mut self, who: usize, place: usize, lets_go: bool) {
        self.pair.pass();
        let (store, name) = &self.places[place];
        let device = self.pair.moved(self.devices.remove(who), store, name);
        self.devices.insert(who, device);
        let device = &mut self.devices[who];
        device.fs.set_now(self.pair.now_ms() * 1_000_000);
        if lets_go {
            let report = prune(device);
            self.trace.push(format!(
                "{who} at {name} lets go: -{} packs {} packets, {:?}",
                report.packs, report.packets, report.notes
            ));
        } else {
            let report = device.sync();
            self.trace.push(format!(
                "{who} at {name}: {:?} waiting {} repaired {:?}",
                report.published, report.received.waiting, report.repaired
            ));
        }
    }

    /// What stands is the same for a newcomer at each place, and nothing of it is missed there.
    fn check(&mut self, seed: u64) {
        let files = self.devices[0].files();
        for place in 0..2 {
            let (store, name) = self.places[place].clone();
            for who in 0..self.devices.len() {
                self.goes(who, place, false);
                assert_eq!(self.devices[who].files(), files, "{seed}: {who} at {name}: {:#?}", self.trace);
            }
            let newcomer = self.pair.joined(9, "newcomer", b"secret");
            let mut newcomer = self.pair.moved(newcomer, &store, name);
            for _ in 0..2 {
                newcomer.sync();
            }
            assert_eq!(newcomer.files(), files, "{seed}: a newcomer at {name}: {:#?}", self.trace);
            let report = newcomer.replica.verify(true, &mut Silent).unwrap();
            // Past versions stay at the place where their pack is.
            let faults: Vec<_> = report.faults.iter().filter(|fault| !fault.paths.is_empty()).collect();
            assert!(faults.is_empty(), "{seed}: at {name}: {faults:?}: {:#?}", self.trace);
        }
    }
}

#[test]
fn what_stands_is_to_be_had_at_both_places_whoever_lets_go_at_which() {
    // A copy of a vault that is only ever brought things had what it needed of packs that were let go for others, which lay
    // at the first place alone; and what had lain inside packets lay in such a pack once history was gone.
    for seed in 0..40 {
        let mut rng = packetboat_testkit::rng::Rng::new(seed);
        let mut group = Wanderers::new();
        let settled = rng.below(3) as usize;
        for step in 0..14 {
            let (who, place) = (rng.below(3) as usize, rng.below(2) as usize);
            // One of them may see one place only.
            let place = if who == settled { 0 } else { place };
            if rng.below(2) == 0 {
                let name = format!("file {}", rng.below(4));
                let len = if rng.below(3) == 0 { 150_000 } else { 100 };
                let bytes = rng.bytes(len);
                match rng.below(5) {
                    0 => drop(group.devices[who].fs.remove(&name)),
                    _ => group.devices[who].fs.write(&name, &bytes).unwrap(),
                }
            }
            group.goes(who, place, false);
            if rng.below(3) == 0 {
                let device = &mut group.devices[who];
                match rng.below(3) {
                    0 => drop(keep(device, Retention::Days(0))),
                    1 => drop(keep(device, ONE_VERSION)),
                    _ => group.goes(who, place, true),
                }
            }
            if step == 6 {
                group.pair.pass_days(1);
            }
        }
        for _ in 0..3 {
            for place in 0..2 {
                (0..3).for_each(|who| group.goes(who, place, false));
            }
        }
        group.check(seed);
    }
}

#[test]
fn what_is_taken_back_at_one_place_is_to_be_had_at_the_other() {
    // No disk showed the version when the second place was brought what else there was, and it was not looked for again.
    let mut trio = Trio::new();
    let before = noise(200_000);
    trio.third().fs.write("doc", &before).unwrap();
    trio.third().sync();
    trio.let_time_pass();
    trio.third().fs.write("doc", b"changed").unwrap();
    trio.third().sync();
    for to_second in [true, false, true, false] {
        trio.carrier_goes(to_second);
        trio.third().sync();
    }
    trio.third().replica.undo(false, &mut Silent).unwrap();
    assert_eq!(trio.third().fs.read("doc").unwrap(), before);
    trio.carrier_goes(true);
    trio.third().sync();
    trio.desk().sync();
    assert_eq!(trio.desk().fs.read("doc").unwrap(), before);
}

#[test]
fn whoever_began_from_a_checkpoint_relies_on_no_pack_that_the_place_has_not() {
    // What a checkpoint stored lies where that one is, and no packet tells of it: others had brought all packets before.
    let (mut pair, mut third, second) = three_and_a_copy();
    for n in 0..80 {
        pair.laptop.fs.write("edited", format!("for the {n}th time").as_bytes()).unwrap();
        pair.pass();
        pair.laptop.sync();
    }
    let mut newcomer = pair.joined(9, "newcomer", b"secret");
    newcomer.sync();
    third.sync();
    for (store, place) in [(&second, "second"), (&pair.store.clone(), "memory"), (&second, "second")] {
        third = pair.moved(third, store, place);
        third.sync();
    }
    for place in ["second", "memory", "second"] {
        let store = if place == "second" { second.clone() } else { pair.store.clone() };
        newcomer = pair.moved(newcomer, &store, place);
        newcomer.sync();
    }
    let packs = newcomer.replica.index().packs(None, 100).unwrap();
    let relied_on: Vec<_> = packs.iter().filter(|row| row.state == PackState::Stored).collect();
    assert!(!packs.is_empty());
    for row in relied_on {
        assert!(second.get(&pack::object_name(&row.pack), u64::MAX).is_ok(), "{:?}", row.pack);
    }
}

/// A desk that went to a copy of the vault which lacked what had been written since; nothing is lacking at the first place.
fn at_an_older_copy() -> (Pair, Device, MemoryStore) {
    let (mut pair, _, second) = three_and_a_copy();
    for text in ["one", "two"] {
        pair.laptop.fs.write("small", text.as_bytes()).unwrap();
        pair.settle();
    }
    pair.pass_days(1);
    let desk = pair.take_desk();
    let mut desk = pair.moved(desk, &second, "second");
    desk.sync();
    (pair, desk, second)
}

#[test]
fn whoever_goes_back_and_forth_lets_nothing_go_though_only_the_copy_ever_lacked_something() {
    let (pair, desk, _) = at_an_older_copy();
    let mut desk = pair.moved(desk, &pair.store, "memory");
    desk.sync();
    let report = keep(&mut desk, Retention::Days(0));
    assert_eq!((report.packets, report.packs, report.deleted), (0, 0, 0));
    assert!(report.notes.iter().any(|note| note.contains("two places")), "{:?}", report.notes);
}

#[test]
fn a_vault_that_was_restored_from_a_backup_and_moved_lets_go_as_before() {
    let (pair, desk, second) = at_an_older_copy();
    let mut desk = pair.moved(desk, &second, "where it was moved to");
    desk.sync();
    let report = keep(&mut desk, Retention::Days(0));
    assert!(report.packets > 0, "{report:?}");
}

/// A device is retired by itself and goes on as another.
fn comes_back_as_another(device: &mut Device) {
    let id = device.id();
    device.replica.retire(&id, &mut Silent).unwrap();
    device.sync();
    assert_ne!(device.id(), id);
}

/// Bytes that compress to nothing less.
fn noise(len: usize) -> Vec<u8> {
    packetboat_testkit::rng::Rng::new(len as u64).bytes(len)
}
