//! Retirement and return: a device that is waited for no more comes back by itself, revives nothing and loses nothing.

mod support;

use packetboat_core::garbage::Retention;
use packetboat_core::store::{ObjectName, Store};
use packetboat_engine::RemovalError;
use packetboat_engine::ports::Silent;
use packetboat_replica::fs::Fs;
use packetboat_storage::memory::MemoryStore;
use support::letting_go::{garbage, keep, prune};
use support::{Device, Pair, copy_objects, copy_of, path};

/// A vault with three devices that are in step and have some files.
fn trio() -> (Pair, Device) {
    let mut pair = Pair::new();
    let mut third = pair.third();
    for name in ["kept", "doomed", "fought", "dir/doomed", "dir/deep/doomed"] {
        if let Some((directory, _)) = name.rsplit_once('/') {
            let _ = pair.laptop.fs.make_dir(directory);
        }
        pair.laptop.fs.write(name, name.as_bytes()).unwrap();
    }
    pair.settle();
    third.sync();
    pair.settle();
    third.fs.set_now(pair.now_ms() * 1_000_000);
    third.sync();
    (pair, third)
}

fn retire(by: &mut Device, device: &Device) {
    by.replica.retire(&device.id(), &mut Silent).unwrap();
}

/// What happens on both sides while the third is away.
fn part(pair: &mut Pair, third: &Device) {
    pair.laptop.fs.remove("doomed").unwrap();
    pair.laptop.fs.remove("fought").unwrap();
    pair.laptop.fs.remove("dir").unwrap();
    third.fs.write("kept", b"edited away").unwrap();
    third.fs.write("fought", b"edited away, too").unwrap();
    third.fs.write("mine", b"new, made away").unwrap();
    pair.settle();
}

const IN_THE_END: [(&str, &str); 3] =
    [("fought", "edited away, too"), ("kept", "edited away"), ("mine", "new, made away")];

fn assert_in_the_end(pair: &mut Pair, third: &mut Device) {
    for _ in 0..2 {
        third.fs.set_now(pair.now_ms() * 1_000_000);
        third.sync();
        pair.settle();
    }
    pair.assert_files(&IN_THE_END);
    assert_eq!(third.files(), pair.laptop.files());
    let state = |device: &mut Device| device.replica.status().unwrap().state;
    assert_eq!(state(third), state(&mut pair.laptop));
}

#[test]
fn a_retired_device_comes_back_as_a_new_one_reviving_nothing_and_losing_nothing() {
    let (mut pair, mut third) = trio();
    retire(&mut pair.laptop, &third);
    part(&mut pair, &third);
    assert_in_the_end(&mut pair, &mut third);
    let standings = third.standings();
    let of_third: Vec<&str> =
        standings.iter().filter(|(name, _)| name == "third").map(|(_, standing)| *standing).collect();
    assert_eq!(of_third, ["active", "retired"]);
}

#[test]
fn what_was_written_just_before_the_last_round_is_not_revived_where_history_is_gone() {
    // The record of such a file is not trusted until its bytes were looked at, and what they were was forgotten first: what
    // others had deleted stood again everywhere, and what they had edited was in conflict with what nobody had touched.
    let mut pair = Pair::new();
    let mut third = pair.third();
    third.sync();
    pair.settle();
    third.fs.set_now(pair.now_ms() * 1_000_000);
    for (name, len) in [("doomed", 10), ("edited", 10), ("doomed and large", 3_000_000), ("touched", 10)] {
        pair.laptop.fs.write(name, &vec![b'x'; len]).unwrap();
    }
    pair.laptop.fs.symlink(b"target", &path("doomed link")).unwrap();
    pair.laptop.sync();
    third.sync();
    retire(&mut pair.laptop, &third);
    pair.settle();
    pair.pass_days(1);
    for name in ["doomed", "doomed and large", "doomed link", "touched"] {
        pair.laptop.fs.remove(name).unwrap();
    }
    pair.laptop.fs.write("edited", b"by the laptop").unwrap();
    third.fs.write("touched", b"by the third").unwrap();
    pair.settle();
    keep(&mut pair.laptop, Retention::Days(0));
    pair.settle();
    prune(&mut pair.laptop);
    assert!(!garbage(&pair.laptop).ended().is_empty(), "history begins later");
    for _ in 0..2 {
        third.fs.set_now(pair.now_ms() * 1_000_000);
        third.sync();
        pair.settle();
    }
    pair.assert_files(&[("edited", "by the laptop"), ("touched", "by the third")]);
    assert_eq!(third.files(), pair.laptop.files());
}

#[test]
fn a_packet_that_came_after_its_author_was_retired_is_a_problem_until_that_comes_back() {
    // It stayed one for good, at all devices, with no word of what to do, when all were in step long since.
    let (mut pair, mut third) = trio();
    let aside = copy_of(&pair.store);
    third = pair.moved(third, &aside, "aside");
    third.fs.write("mine", b"new, made away").unwrap();
    third.sync();
    retire(&mut pair.laptop, &third);
    pair.laptop.fs.remove("doomed").unwrap();
    pair.settle();
    keep(&mut pair.laptop, Retention::Days(0));
    pair.settle();
    prune(&mut pair.laptop);
    pair.settle();
    copy_objects(&aside, &pair.store, &third.id().to_string());
    pair.pass();
    pair.desk.sync();
    let problems = pair.desk.replica.index().problems().unwrap();
    let told: Vec<&str> = problems.iter().map(|problem| problem.text.as_str()).collect();
    assert_eq!(told.len(), 1, "{told:?}");
    assert!(told[0].ends_with("it counts once \"third\" synchronises again"), "{told:?}");
    third = pair.moved(third, &pair.store, "memory");
    for _ in 0..2 {
        third.fs.set_now(pair.now_ms() * 1_000_000);
        third.sync();
        pair.settle();
    }
    let files = third.files();
    assert!(files.contains(&("mine".to_owned(), "new, made away".to_owned())), "{files:?}");
    for device in [&mut pair.laptop, &mut pair.desk, &mut third] {
        assert_eq!(device.files(), files);
        assert_eq!(device.replica.index().problems().unwrap(), []);
    }
}

#[test]
fn the_damaged_tip_of_a_device_that_was_removed_is_no_fault_and_costs_nothing() {
    // A storage tore the tip of a device that was gone for good. Who was removed writes no other, so all others were warned
    // of it in every round, and `verify` named for ever what nobody could put back.
    for revoked in [false, true] {
        let (mut pair, mut third) = trio();
        let name = ObjectName::new(format!("tips/{}", third.id())).unwrap();
        pair.store.tamper(&name, |bytes| *bytes.last_mut().unwrap() ^= 4);
        pair.settle();
        let report = pair.desk.replica.verify(false, &mut Silent).unwrap();
        assert_eq!(report.faults.len(), 1, "as long as it is a member it can put it back: {:?}", report.faults);
        match revoked {
            true => drop(pair.laptop.replica.revoke(&third.id(), b"a new passphrase", &mut Silent).unwrap()),
            false => retire(&mut pair.laptop, &third),
        }
        part(&mut pair, &third);
        for device in [&mut pair.laptop, &mut pair.desk] {
            let report = device.replica.verify(true, &mut Silent).unwrap();
            assert_eq!(report.faults, []);
            assert_eq!(report.orphans, [name.to_string()]);
            assert_eq!(device.replica.index().problems().unwrap(), []);
        }
        if !revoked {
            assert_in_the_end(&mut pair, &mut third);
        }
    }
}

#[test]
fn a_device_that_leaves_by_itself_may_come_back() {
    let (mut pair, mut third) = trio();
    let own = third.id();
    third.replica.retire(&own, &mut Silent).unwrap();
    pair.settle();
    assert!(pair.desk.standings().contains(&("third".to_owned(), "retired")));
    part(&mut pair, &third);
    assert_in_the_end(&mut pair, &mut third);
}

#[test]
fn a_device_comes_back_from_a_checkpoint_where_the_history_is_gone() {
    let (mut pair, mut third) = trio();
    retire(&mut pair.laptop, &third);
    part(&mut pair, &third);
    fold_history(&mut pair);
    assert_in_the_end(&mut pair, &mut third);
}

#[test]
fn a_crash_while_coming_back_from_a_checkpoint_costs_nothing() {
    let (mut pair, mut third) = trio();
    retire(&mut pair.laptop, &third);
    part(&mut pair, &third);
    fold_history(&mut pair);
    // The storage goes away in the middle: the index was begun anew, and nothing is learned yet.
    pair.fail_after(&mut third, 4);
    assert!(third.replica.sync(Default::default(), &mut Silent).is_err());
    pair.fail_after(&mut third, u64::MAX);
    assert_in_the_end(&mut pair, &mut third);
}

#[test]
fn what_a_retired_device_published_where_nobody_looked_is_not_lost() {
    let (mut pair, third) = trio();
    let aside = copy_of(&pair.store);
    let mut third = pair.moved(third, &aside, "aside");
    third.fs.write("kept", b"published aside").unwrap();
    third.fs.write("late", b"published aside").unwrap();
    third.sync();
    retire(&mut pair.laptop, &third);
    pair.settle();
    let place = pair.store.clone();
    let mut third = pair.moved(third, &place, "memory");
    for _ in 0..2 {
        third.fs.set_now(pair.now_ms() * 1_000_000);
        third.sync();
        pair.settle();
    }
    assert!(pair.laptop.files().contains(&("kept".to_owned(), "published aside".to_owned())));
    assert!(pair.laptop.files().contains(&("late".to_owned(), "published aside".to_owned())));
    assert_eq!(pair.laptop.files(), pair.desk.files());
    assert_eq!(third.files(), pair.desk.files());
}

#[test]
fn a_device_unheard_of_for_long_is_retired_and_one_with_nothing_to_say_is_not() {
    let (mut pair, mut third) = trio();
    for day in (0..300).step_by(10) {
        pair.pass_hours(240);
        pair.laptop.sync();
        pair.desk.sync();
        let is_retired = pair.laptop.standings().contains(&("third".to_owned(), "retired"));
        assert_eq!(is_retired, day >= 190, "after {day} days");
    }
    for device in [&pair.laptop, &pair.desk] {
        let retired = device.standings().into_iter().filter(|(_, standing)| *standing == "retired");
        assert_eq!(retired.map(|(name, _)| name).collect::<Vec<_>>(), ["third"]);
    }
    third.fs.set_now(pair.now_ms() * 1_000_000);
    part(&mut pair, &third);
    assert_in_the_end(&mut pair, &mut third);
}

#[test]
fn a_clock_that_is_wrong_for_a_moment_retires_nobody() {
    let (mut pair, third) = trio();
    for hours in [24 * 365, -24 * 365, 48] {
        pair.pass_hours(hours);
        pair.laptop.sync();
    }
    assert!(pair.laptop.standings().iter().all(|(_, standing)| *standing == "active"));
    drop(third);
}

#[test]
fn the_last_device_cannot_leave() {
    let (mut pair, third) = trio();
    retire(&mut pair.laptop, &third);
    let (own, desk) = (pair.laptop.id(), pair.desk.id());
    pair.laptop.replica.retire(&desk, &mut Silent).unwrap();
    assert!(matches!(pair.laptop.replica.retire(&own, &mut Silent), Err(RemovalError::LastDevice)));
    let again = pair.laptop.replica.retire(&desk, &mut Silent);
    assert!(matches!(again, Err(RemovalError::AlreadyRetired { name }) if name == "desk"));
}

#[test]
fn a_retired_device_gets_the_key_of_a_later_epoch() {
    let (mut pair, mut third) = trio();
    let mut fourth = pair.joined(44, "fourth", b"secret");
    fourth.sync();
    pair.settle();
    retire(&mut pair.laptop, &third);
    pair.laptop.replica.revoke(&fourth.id(), b"a new passphrase", &mut Silent).unwrap();
    part(&mut pair, &third);
    assert_in_the_end(&mut pair, &mut third);
}

/// Writes until there is a checkpoint, and removes the packets that it contains, as history is let go.
fn fold_history(pair: &mut Pair) {
    for n in 0..80 {
        pair.laptop.fs.write("counter", format!("{n}").as_bytes()).unwrap();
        pair.pass();
        pair.laptop.sync();
    }
    pair.laptop.fs.remove("counter").unwrap();
    pair.settle();
    let roots =
        |store: &MemoryStore| store.names().iter().filter(|name| name.as_str().starts_with("checkpoints/")).count();
    assert!(roots(&pair.store) > 0, "so many packets make a checkpoint");
    let lane = format!("lanes/{}/", pair.laptop.id());
    for counter in 1..=70 {
        pair.store.delete(&ObjectName::new(format!("{lane}{counter}")).unwrap()).unwrap();
    }
}
