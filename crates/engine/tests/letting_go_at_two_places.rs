//! Letting go where a vault lies at two places: what stands is to be had at both, and what each may delete.

mod support;

use packetboat_core::garbage::Retention;
use packetboat_core::store::Store;
use packetboat_engine::PruneOptions;
use packetboat_engine::ports::Silent;
use packetboat_replica::index::PackState;
use packetboat_storage::memory::MemoryStore;
use packetboat_storage::pack;
use support::letting_go::{ONE_VERSION, garbage, keep, prune};
use support::two_places::{Trio, goes_there_and_back, noise, one_apart, three_and_a_copy};
use support::{Device, Pair, copy_of};

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
