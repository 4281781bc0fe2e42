//! Packs and checkpoints that are to go and are not what they were: others deleted them first, a storage lost or damaged
//! them, or something needs them again.

mod support;

use packetboat_core::checkpoint::CheckpointRef;
use packetboat_core::garbage::Retention;
use packetboat_core::store::{ObjectName, Store};
use packetboat_engine::PruneOptions;
use packetboat_engine::ports::Silent;
use packetboat_engine::replica::At;
use support::letting_go::{
    LARGE, MORE_THAN_A_TAIL, ONE_VERSION, assert_sound, count, garbage, half_wasted, keep, let_go_until_nothing_moves,
    misses_something, noise, packets, packs, prune, rename_unseen, shown, stored, three_versions,
};
use support::{Device, Pair};

/// Kinds of problems that a device tells its user of.
fn problems(device: &Device) -> Vec<String> {
    device.replica.index().problems().unwrap().into_iter().map(|problem| problem.kind).collect()
}

#[test]
fn past_contents_that_others_let_go_before_more_was_kept_are_missed_by_nobody() {
    let (mut pair, _) = three_versions();
    keep(&mut pair.laptop, ONE_VERSION);
    // The desk answers and deletes, and the laptop hears of neither before its user wants all to be kept.
    assert!(prune(&mut pair.desk).deleted > 0);
    let report = keep(&mut pair.laptop, Retention::All);
    assert_eq!(report.waiting_for, Vec::<String>::new());
    assert!(!misses_something(&pair.laptop));
    pair.settle();
    assert!(!misses_something(&pair.desk));
    let_go_until_nothing_moves(&mut pair, &mut []);
    for device in [&mut pair.laptop, &mut pair.desk] {
        assert_sound(device);
        assert_eq!(device.fs.read("large").unwrap(), noise(3, LARGE));
    }
}

#[test]
fn a_damaged_pack_that_holds_what_is_kept_now_stays_while_somebody_may_mend_it() {
    let mut pair = Pair::new();
    let old = stored(&mut pair, "large", 1);
    stored(&mut pair, "large", 2);
    pair.pass_days(1);
    assert_eq!(keep(&mut pair.laptop, ONE_VERSION).packs, 1);
    pair.desk.sync();
    let whole = pair.store.get(&old, u64::MAX).unwrap();
    pair.store.tamper(&old, |bytes| bytes[1000] ^= 1);
    keep(&mut pair.laptop, Retention::All);
    assert!(packs(&pair).contains(&old), "it may be mended yet");
    assert!(misses_something(&pair.laptop), "others are asked for it");
    // Its storage had only read it wrongly.
    pair.store.put(&old, &whole).unwrap();
    pair.pass_days(2);
    prune(&mut pair.laptop);
    pair.settle();
    assert!(!packs(&pair).contains(&old));
    for device in [&mut pair.laptop, &mut pair.desk] {
        assert_sound(device);
        let log = device.replica.log(Some(&support::path("large")), 9).unwrap();
        assert_eq!(log.len(), 2);
        let mut out = Vec::new();
        let at = packetboat_engine::replica::At::Packet(log[1].packet);
        device.replica.show(&support::path("large"), Some(&at), &mut out).unwrap();
        assert_eq!(out, noise(1, LARGE));
    }
}

/// Two packs that hold the same past content, which no disk shows any more, and the time at which it stood; the third device
/// had stored anew what the first pack holds, as newcomers do.
fn doubled() -> (Pair, Device, [ObjectName; 2], At) {
    let mut pair = Pair::new();
    let first = stored(&mut pair, "large", 1);
    let mut third = pair.third();
    third.sync();
    let before = packs(&pair);
    third.fs.write("the same", &noise(1, LARGE)).unwrap();
    third.sync();
    let spare = packs(&pair).into_iter().find(|name| !before.contains(name)).expect("it refers to nothing of others");
    pair.settle();
    let then = At::Time(pair.pass());
    pair.pass();
    pair.laptop.fs.write("large", &noise(2, LARGE)).unwrap();
    pair.laptop.fs.remove("the same").unwrap();
    for _ in 0..2 {
        pair.settle();
        third.sync();
    }
    pair.pass_days(1);
    (pair, third, [first, spare], then)
}

/// That the content which both packs held is still shown by all as it was.
#[track_caller]
fn assert_is_kept(pair: &mut Pair, third: &mut Device, then: &At) {
    for device in [&mut pair.laptop, &mut pair.desk, third] {
        assert_eq!(shown(device, "large", then).unwrap(), noise(1, LARGE));
    }
}

#[test]
fn of_two_packs_that_hold_the_same_one_goes() {
    let (mut pair, mut third, both, then) = doubled();
    let_go_until_nothing_moves(&mut pair, &mut [&mut third]);
    assert_eq!(both.iter().filter(|pack| packs(&pair).contains(pack)).count(), 1);
    assert_is_kept(&mut pair, &mut third, &then);
}

#[test]
fn nothing_is_let_go_for_a_pack_that_the_storage_has_lost() {
    for lost in 0..2 {
        let (mut pair, mut third, both, then) = doubled();
        // Nobody has looked since, nor does a look at what would go.
        pair.store.delete(&both[lost]).unwrap();
        pair.laptop.replica.prune(PruneOptions { keep: None, dry_run: true }, &mut Silent).unwrap();
        assert!(!misses_something(&pair.laptop));
        let_go_until_nothing_moves(&mut pair, &mut [&mut third]);
        assert!(packs(&pair).contains(&both[1 - lost]), "it is all that is left of it");
        assert_is_kept(&mut pair, &mut third, &then);
    }
}

#[test]
fn letting_go_ends_where_a_storage_has_lost_every_pack_of_a_content() {
    // Two packs that are missing were looked for in turn, for ever: the one was to go for the other.
    let (mut pair, mut third, both, _) = doubled();
    for lost in &both {
        pair.store.delete(lost).unwrap();
    }
    for _ in 0..3 {
        pair.pass_days(2);
        for device in [&mut pair.laptop, &mut pair.desk, &mut third] {
            prune(device);
            assert!(misses_something(device), "others are asked for it");
            assert_eq!(device.fs.read("large").unwrap(), noise(2, LARGE));
        }
    }
}

#[test]
fn nothing_is_let_go_for_a_pack_that_the_storage_has_cut_short() {
    for cut in 0..2 {
        let (mut pair, mut third, both, then) = doubled();
        pair.store.tamper(&both[cut], |bytes| bytes.truncate(bytes.len() / 2));
        let_go_until_nothing_moves(&mut pair, &mut [&mut third]);
        assert_is_kept(&mut pair, &mut third, &then);
    }
}

#[test]
fn what_is_condemned_is_stored_anew_where_the_storage_lost_what_was_to_hold_it() {
    for lost in 0..2 {
        let (mut pair, mut third, both, then) = doubled();
        assert_eq!(prune(&mut pair.laptop).packs, 1);
        pair.store.delete(&both[lost]).unwrap();
        let_go_until_nothing_moves(&mut pair, &mut [&mut third]);
        // The one that was to go may be the one that was lost.
        assert_is_kept(&mut pair, &mut third, &then);
    }
}

/// A directory that the laptop deleted and condemned, and that the desk, which had heard of neither, renamed where nobody
/// saw it yet; the pack with what lies in it.
fn renamed_unseen() -> (Pair, ObjectName) {
    let mut pair = Pair::new();
    pair.laptop.fs.write("other", &noise(9, LARGE)).unwrap();
    pair.settle();
    let pack = stored(&mut pair, "dir/moved", 7);
    rename_unseen(&mut pair);
    (pair, pack)
}

#[test]
fn what_an_unseen_rename_of_its_directory_brings_back_is_stored_anew_before_its_pack_goes() {
    let (mut pair, pack) = renamed_unseen();
    // It tells of the rename, and answers.
    pair.desk.sync();
    prune(&mut pair.laptop);
    assert!(!packs(&pair).contains(&pack), "all have answered");
    let mut third = pair.third();
    third.sync();
    assert_eq!(third.fs.read("elsewhere/moved").unwrap(), noise(7, LARGE));
    for _ in 0..2 {
        pair.settle();
    }
    for device in [&mut pair.laptop, &mut pair.desk, &mut third] {
        assert_eq!(device.fs.read("elsewhere/moved").unwrap(), noise(7, LARGE));
        assert!(!misses_something(device));
        assert_sound(device);
    }
    let_go_until_nothing_moves(&mut pair, &mut [&mut third]);
}

#[test]
fn a_lost_pack_that_is_to_go_and_is_needed_again_is_asked_for() {
    let (mut pair, pack) = renamed_unseen();
    pair.desk.sync();
    pair.store.delete(&pack).unwrap();
    prune(&mut pair.laptop);
    assert!(misses_something(&pair.laptop));
    let before = packets(&pair.store);
    prune(&mut pair.laptop);
    assert_eq!(packets(&pair.store), before, "it has been asked for");
    for _ in 0..3 {
        pair.settle();
        pair.pass_days(1);
    }
    for device in [&mut pair.laptop, &mut pair.desk] {
        assert_eq!(device.fs.read("elsewhere/moved").unwrap(), noise(7, LARGE));
        assert!(!misses_something(device));
        assert_sound(device);
    }
    let_go_until_nothing_moves(&mut pair, &mut []);
    let mut third = pair.third();
    third.sync();
    assert_eq!(third.fs.read("elsewhere/moved").unwrap(), noise(7, LARGE));
}

#[test]
fn what_was_missed_and_is_let_go_is_missed_no_more() {
    let mut pair = Pair::new();
    let old = stored(&mut pair, "large", 1);
    let now = stored(&mut pair, "large", 2);
    let first = ObjectName::new(format!("lanes/{}/2", pair.laptop.id())).unwrap();
    pair.pass_days(1);
    for lost in [&old, &first] {
        assert!(pair.store.names().contains(lost), "{lost}");
        pair.store.delete(lost).unwrap();
    }
    assert_eq!(pair.laptop.replica.verify(false, &mut Silent).unwrap().faults.len(), 2);
    assert!(misses_something(&pair.laptop));
    keep(&mut pair.laptop, Retention::Days(0));
    prune(&mut pair.desk);
    prune(&mut pair.laptop);
    assert!(!misses_something(&pair.laptop), "it was let go");
    // What is not let go is missed on.
    pair.store.delete(&now).unwrap();
    pair.laptop.replica.verify(false, &mut Silent).unwrap();
    pair.laptop.fs.write("small", b"more").unwrap();
    pair.laptop.sync();
    pair.pass_days(1);
    keep(&mut pair.laptop, Retention::Days(0));
    prune(&mut pair.desk);
    pair.settle();
    pair.settle();
    let mut third = pair.third();
    third.sync();
    assert_eq!(third.fs.read("large").unwrap(), noise(2, LARGE));
    assert_sound(&mut pair.laptop);
}

#[test]
fn what_is_missed_and_stays_is_missed_on_while_other_things_go() {
    let mut pair = Pair::new();
    stored(&mut pair, "large", 1);
    stored(&mut pair, "large", 2);
    let lost = stored(&mut pair, "other", 3);
    pair.pass_days(1);
    keep(&mut pair.laptop, Retention::Days(0));
    pair.desk.sync();
    pair.store.delete(&lost).unwrap();
    assert_eq!(pair.laptop.replica.verify(false, &mut Silent).unwrap().faults.len(), 1);
    assert!(prune(&mut pair.laptop).deleted > 0);
    assert!(misses_something(&pair.laptop));
    for _ in 0..2 {
        pair.settle();
    }
    assert!(!misses_something(&pair.laptop));
    let mut third = pair.third();
    third.sync();
    assert_eq!(third.fs.read("other").unwrap(), noise(3, LARGE));
}

#[test]
fn no_history_goes_while_the_checkpoint_at_which_it_would_begin_cannot_be_read() {
    let (mut pair, times) = three_versions();
    let before = packets(&pair.store);
    keep(&mut pair.laptop, Retention::Days(0));
    let roots = pair.store.names().into_iter().filter(|name| name.as_str().starts_with("checkpoints/"));
    let roots: Vec<(ObjectName, Vec<u8>)> =
        roots.map(|name| (name.clone(), pair.store.get(&name, u64::MAX).unwrap())).collect();
    assert_eq!(roots.len(), 1);
    pair.store.tamper(&roots[0].0, |bytes| bytes[100] ^= 1);
    pair.desk.sync();
    prune(&mut pair.laptop);
    assert!(packets(&pair.store) > before, "{} of {before}", packets(&pair.store));
    assert!(problems(&pair.laptop).contains(&"history".to_owned()), "{:?}", problems(&pair.laptop));
    assert_eq!(pair.laptop.fs.read("large").unwrap(), noise(3, LARGE));
    // It was read wrongly.
    pair.store.put(&roots[0].0, &roots[0].1).unwrap();
    prune(&mut pair.laptop);
    assert!(packets(&pair.store) < before);
    assert!(!problems(&pair.laptop).contains(&"history".to_owned()));
    assert!(shown(&mut pair.laptop, "large", &times[0]).is_err());
    pair.settle();
    prune(&mut pair.desk);
    for device in [&mut pair.laptop, &mut pair.desk] {
        assert_sound(device);
    }
}

/// Story: a device could not read where history was to begin, and told of it for ever: others let it go, and a round looks at
/// what it condemned itself and nothing else.
#[test]
fn a_device_tells_that_a_beginning_cannot_be_read_no_longer_than_that_is_so() {
    let is_told = |device: &Device| problems(device).contains(&"history".to_owned());
    for others_let_go in [false, true] {
        let (mut pair, _) = three_versions();
        keep(&mut pair.laptop, Retention::Days(0));
        pair.desk.sync();
        let roots: Vec<_> =
            pair.store.names().into_iter().filter(|name| name.as_str().starts_with("checkpoints/")).collect();
        let [root] = &roots[..] else { panic!("{roots:?}") };
        let whole = pair.store.get(root, u64::MAX).unwrap();
        pair.store.tamper(root, |bytes| bytes[100] ^= 1);
        prune(&mut pair.desk);
        assert!(is_told(&pair.desk));
        pair.desk.sync();
        assert!(is_told(&pair.desk), "it is so still");
        pair.store.put(root, &whole).unwrap();
        if others_let_go {
            assert!(prune(&mut pair.laptop).deleted > 0);
        }
        assert_eq!(pair.desk.sync().problems, 0, "{others_let_go}");
        assert!(!is_told(&pair.desk), "{others_let_go}");
    }
}

#[test]
fn a_device_tells_of_no_beginning_that_is_gone_since_others_let_more_go() {
    // Of two that let go one after the other, the later deleted the checkpoint at which history was to begin by the earlier,
    // which told for good that it could not be read. Nothing was damaged.
    let mut pair = Pair::new();
    let mut third = pair.third();
    third.sync();
    for round in 0..3 {
        for name in ["one", "two"] {
            pair.laptop.fs.write(name, format!("{name} {round}").as_bytes()).unwrap();
        }
        pair.settle();
        third.sync();
        keep(&mut pair.desk, Retention::Days(0));
        keep(&mut pair.laptop, Retention::Days(0));
        pair.pass();
        pair.laptop.fs.write("one", format!("again {round}").as_bytes()).unwrap();
        pair.laptop.sync();
        pair.desk.fs.write("three", format!("three {round}").as_bytes()).unwrap();
        pair.desk.sync();
        prune(&mut pair.laptop);
        pair.laptop.sync();
        pair.desk.sync();
        pair.pass();
        third.fs.set_now(pair.now_ms() * 1_000_000);
        third.fs.write("mine", format!("of the third {round}").as_bytes()).unwrap();
        for _ in 0..2 {
            third.sync();
            pair.laptop.sync();
            pair.desk.sync();
            for device in [&pair.laptop, &pair.desk, &third] {
                assert_eq!(problems(device), Vec::<String>::new(), "round {round}");
            }
        }
    }
}

#[test]
fn no_later_beginning_is_made_where_the_present_one_cannot_be_read() {
    let (mut pair, _) = three_versions();
    keep(&mut pair.laptop, Retention::Days(0));
    pair.settle();
    prune(&mut pair.desk);
    pair.laptop.fs.write("small", b"after").unwrap();
    pair.settle();
    pair.pass_days(1);
    for name in pair.store.names().into_iter().filter(|name| name.as_str().starts_with("checkpoints/")) {
        pair.store.tamper(&name, |bytes| bytes[100] ^= 1);
    }
    let before = packets(&pair.store);
    let report = prune(&mut pair.laptop);
    assert_eq!(report.packets, 0);
    assert!(report.notes.iter().any(|note| note.contains("history is left as it is")), "{:?}", report.notes);
    assert_eq!(packets(&pair.store), before);
    assert_eq!(pair.desk.fs.read("small").unwrap(), b"after");
}

#[test]
fn a_wasteful_pack_that_cannot_be_read_is_left_and_asked_for() {
    let mut pair = half_wasted();
    let [pack] = &packs(&pair)[..] else { panic!("{:?}", packs(&pair)) };
    // Every byte: some are of what goes, and nobody looks at these.
    pair.store.tamper(pack, |bytes| bytes.iter_mut().for_each(|byte| *byte ^= 1));
    let report = keep(&mut pair.laptop, Retention::Days(0));
    let what = format!("{} cannot be read", &pack.as_str()["packs/ab/".len()..][..8]);
    assert!(report.notes.iter().any(|note| note.contains(&what)), "{what}: {:?}", report.notes);
    assert!(packs(&pair).contains(pack));
    assert!(misses_something(&pair.laptop), "others are asked for it");
    pair.settle();
    pair.pass_days(1);
    let_go_until_nothing_moves(&mut pair, &mut []);
    assert!(!packs(&pair).contains(pack), "whoever has the content put it back, and the damaged pack went");
    let mut third = pair.third();
    third.sync();
    for device in [&mut pair.laptop, &mut pair.desk, &mut third] {
        assert_eq!(device.fs.read("stays").unwrap(), noise(1, LARGE));
        assert!(!misses_something(device));
        assert_sound(device);
    }
}

/// Story: a pack was condemned, its contents in use were stored in another, and a device joined from a checkpoint that
/// names both. It could not tell whether others know of the other, so when they had deleted the first it took what
/// stands for lost, asked for it for ever, and never came to an end with the condemnation.
#[test]
fn whoever_began_from_a_checkpoint_misses_no_pack_that_others_repacked_and_deleted() {
    let mut pair = half_wasted();
    let [pack] = &packs(&pair)[..] else { panic!("{:?}", packs(&pair)) };
    assert_eq!(keep(&mut pair.laptop, Retention::Days(0)).repacked, 1);
    for number in 0..MORE_THAN_A_TAIL {
        pair.pass();
        pair.laptop.fs.write("counter", number.to_string().as_bytes()).unwrap();
        pair.laptop.sync();
    }
    let mut third = pair.third();
    third.sync();
    assert!(garbage(&third).standing().next().is_some(), "nothing is answered yet");
    for _ in 0..3 {
        pair.settle();
        third.sync();
        prune(&mut pair.laptop);
    }
    assert!(!packs(&pair).contains(pack), "it is deleted");
    keep(&mut third, Retention::All);
    assert!(!misses_something(&third));
    let own = third.id();
    assert!(garbage(&third).standing().all(|(dot, _)| dot.device == own), "{:?}", garbage(&third));
    assert_eq!(third.fs.read("stays").unwrap(), noise(1, LARGE));
    assert_sound(&mut third);
}

#[test]
fn a_checkpoint_that_was_broken_off_goes_though_no_pack_can_be_stored_anew() {
    let mut pair = Pair::new();
    keep(&mut pair.laptop, ONE_VERSION);
    pair.laptop.fs.write("stays", &noise(1, LARGE)).unwrap();
    pair.laptop.fs.write("goes", &noise(2, LARGE)).unwrap();
    pair.settle();
    pair.laptop.fs.write("goes", b"replaced").unwrap();
    pair.settle();
    pair.pass_days(1);
    let [pack] = &packs(&pair)[..] else { panic!("{:?}", packs(&pair)) };
    pair.store.tamper(pack, |bytes| bytes.iter_mut().for_each(|byte| *byte ^= 1));
    let torn = CheckpointRef { device: pair.laptop.id(), number: 9 }.name();
    pair.store.put(&torn, b"PBCP and no more").unwrap();
    let before = packets(&pair.store);
    let report = prune(&mut pair.laptop);
    assert_eq!((report.repacked, report.notes.len()), (1, 1), "{report:?}");
    assert_eq!(report.deleted, 1);
    assert!(!pair.store.names().contains(&torn));
    assert_eq!(packets(&pair.store), before, "nothing is condemned, and so nothing is said");
    let report = prune(&mut pair.laptop);
    assert_eq!((report.packs, report.repacked), (0, 0), "what is in use of it is for others to put back: {report:?}");
}

#[test]
fn a_device_that_has_not_joined_yet_lets_nothing_go() {
    let (pair, _) = three_versions();
    let mut third = pair.third();
    let before = pair.store.names();
    let report = keep(&mut third, Retention::Days(0));
    assert!(report.notes.iter().any(|note| note.contains("synchronise first")), "{:?}", report.notes);
    assert_eq!((report.packs, report.packets, report.deleted), (0, 0, 0));
    assert_eq!(pair.store.names(), before);
    assert_eq!(count(&pair.store, "tips/"), 2);
}
