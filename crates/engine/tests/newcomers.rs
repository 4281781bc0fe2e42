//! Who joins, leaves or comes back where history has been let go, or is just then.

mod support;

use packetboat_core::garbage::Retention;
use packetboat_core::store::{ObjectName, Store};
use packetboat_core::tip::Tip;
use packetboat_engine::error::SyncError;
use packetboat_engine::ports::Silent;
use packetboat_engine::replica::SyncOptions;
use packetboat_storage::memory::MemoryStore;
use support::letting_go::{
    LARGE, assert_sound, bring, count, desk_writes_a_checkpoint, keep, let_go_until_nothing_moves, noise, packets,
    prune, three_versions,
};
use support::{Pair, Watcher};

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
fn a_device_that_has_just_come_stores_anew_what_others_wrote() {
    let mut pair = Pair::new();
    pair.laptop.fs.write("one", &noise(1, LARGE)).unwrap();
    pair.laptop.fs.write("two", &noise(2, LARGE)).unwrap();
    pair.settle();
    let before = count(&pair.store, "packs/");
    let mut third = pair.third();
    third.fs.write("copy", &noise(1, LARGE)).unwrap();
    third.sync();
    assert_eq!(count(&pair.store, "packs/"), before + 1, "nobody knows of it yet");
    third.fs.write("second copy", &noise(1, LARGE)).unwrap();
    third.sync();
    assert_eq!(count(&pair.store, "packs/"), before + 1, "it refers to what it stored itself");
    // Once all have said something after they heard of it, it refers to what they wrote.
    for device in [&mut pair.laptop, &mut pair.desk] {
        device.sync();
        device.fs.write(format!("of {}", device.replica.device_name().unwrap()), b"hello").unwrap();
        device.sync();
    }
    third.sync();
    let before = count(&pair.store, "packs/");
    third.fs.write("another copy", &noise(2, LARGE)).unwrap();
    third.sync();
    assert_eq!(count(&pair.store, "packs/"), before);
}

/// Whoever copied a folder to a second computer by other means, or lost the index of a full one, waited until all of it
/// had been stored a second time.
#[test]
fn a_device_that_joins_with_a_full_folder_stores_nothing_that_the_vault_has() {
    let mut pair = Pair::new();
    let files = [("letters/one", noise(1, LARGE)), ("letters/old/two", noise(2, LARGE)), ("film", noise(3, 5 << 20))];
    for device in [&pair.laptop, &pair.desk] {
        device.fs.make_dir("letters").unwrap();
        device.fs.make_dir("letters/old").unwrap();
    }
    for (path, bytes) in &files {
        pair.laptop.fs.write(path, bytes).unwrap();
    }
    pair.settle();
    let before = count(&pair.store, "packs/");
    let mut third = pair.third();
    third.fs.make_dir("letters").unwrap();
    third.fs.make_dir("letters/old").unwrap();
    for (path, bytes) in &files {
        third.fs.write(path, bytes).unwrap();
    }
    let report = third.sync();
    assert_eq!((report.sent.agreed, report.sent.created, report.sent.edited), (5, 0, 0));
    // Files that were written just now are read once more, and those that are touched.
    pair.pass();
    third.fs.write("film", &noise(3, 5 << 20)).unwrap();
    third.sync();
    assert_eq!(count(&pair.store, "packs/"), before);
    // What it writes with the same bytes refers to nothing of others all the same, and what differs is stored.
    let mut fourth = pair.joined(44, "fourth", b"secret");
    fourth.fs.make_dir("letters").unwrap();
    fourth.fs.write("letters/one", &noise(1, LARGE)).unwrap();
    fourth.fs.write("letters/one again", &noise(1, LARGE)).unwrap();
    fourth.fs.write("film", &noise(4, 5 << 20)).unwrap();
    let report = fourth.sync();
    assert_eq!((report.sent.agreed, report.sent.created, report.sent.edited), (2, 1, 1));
    assert!(count(&pair.store, "packs/") > before);
    pair.settle();
    third.sync();
    for device in [&mut pair.laptop, &mut pair.desk, &mut third, &mut fourth] {
        assert_eq!(device.fs.read("letters/one again").unwrap(), noise(1, LARGE));
        assert_eq!(device.fs.read("letters/old/two").unwrap(), noise(2, LARGE));
        let films = [device.fs.read("film").unwrap(), device.fs.read(device.copy_name()).unwrap()];
        assert!(films.contains(&noise(3, 5 << 20)) && films.contains(&noise(4, 5 << 20)), "both are kept");
        assert_sound(device);
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

/// Told by a run that waited for the retirement of a device that never was: whoever joined while anything was condemned had
/// no introduction yet, was taken for one that nobody knows, and began anew in its first round.
#[test]
fn a_device_that_joins_while_something_is_condemned_joins_once_and_is_told_nothing() {
    for all_have_answered in [true, false] {
        let (mut pair, _) = three_versions();
        keep(&mut pair.laptop, Retention::Days(0));
        if all_have_answered {
            pair.desk.sync();
        }
        let mut third = pair.third();
        let id = third.replica.own_device();
        let mut watcher = Watcher::default();
        third.replica.sync(SyncOptions::default(), &mut watcher).unwrap();
        assert_eq!((third.replica.own_device(), watcher.warnings), (id, Vec::new()));
        for _ in 0..2 {
            pair.settle();
            third.sync();
        }
        let active = |name: &str| (name.to_owned(), "active");
        assert_eq!(pair.laptop.standings(), ["desk", "laptop", "third"].map(active));
        assert_eq!(third.fs.read("large").unwrap(), noise(3, LARGE));
        assert_sound(&mut third);
    }
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
fn a_device_that_joins_while_history_goes_is_seen_soon_though_one_never_answers() {
    // Seed 16212 of the world: an index was lost just while another device let go. Its owner became another device, whose
    // introduction nobody may fold; it waited to hear so from all, and the device that it had been was one of them.
    let (mut pair, _) = three_versions();
    let elsewhere = MemoryStore::new();
    bring(&pair.store, &[], &elsewhere);
    let before = elsewhere.names();
    let mut third = pair.moved(pair.third(), &elsewhere, "memory");
    third.fs.write("of the third", b"hello").unwrap();
    third.sync();
    // The desk is gone for good, and nobody has said so.
    keep(&mut pair.laptop, Retention::Days(0));
    bring(&elsewhere, &before, &pair.store);
    let mut third = pair.moved(third, &pair.store, "memory");
    third.sync();
    pair.laptop.sync();
    assert_eq!(pair.laptop.fs.read("of the third").unwrap(), b"hello");
    third.sync();
    assert_sound(&mut third);
    pair.settle();
    third.sync();
    assert_eq!(pair.desk.files(), third.files());
    assert_eq!(pair.laptop.files(), third.files());
}

#[test]
fn whoever_carries_a_device_that_began_anew_doubles_nothing_and_waits_for_it_no_more() {
    // The desk knew the third before history went, and says so only when the third has become another device: what that one
    // published is there twice, and shown once.
    let (mut pair, _) = three_versions();
    let elsewhere = MemoryStore::new();
    bring(&pair.store, &[], &elsewhere);
    let before = elsewhere.names();
    let desk = pair.take_desk();
    let mut desk = pair.moved(desk, &elsewhere, "memory");
    let mut third = pair.moved(pair.third(), &elsewhere, "memory");
    third.fs.write("directory/of the third", b"hello").unwrap();
    third.sync();
    desk.sync();
    keep(&mut pair.laptop, Retention::Days(0));
    let news = MemoryStore::new();
    bring(&elsewhere, &before, &news);
    // What the desk made there is nothing but a tip, which is not brought: it was not heard since.
    news.delete(&Tip::name(&desk.id())).unwrap();
    bring(&news, &[], &pair.store);
    let mut third = pair.moved(third, &pair.store, "memory");
    let was = third.id();
    third.sync();
    assert_ne!(third.id(), was, "it may not be seen by anybody");
    pair.laptop.sync();
    pair.desk = pair.moved(desk, &pair.store, "memory");
    for _ in 0..3 {
        pair.settle();
        third.sync();
    }
    let shown = third.files();
    assert_eq!(
        shown.iter().map(|(path, _)| path.as_str()).filter(|path| path.contains("third")).count(),
        1,
        "{shown:?}"
    );
    for device in [&mut pair.laptop, &mut pair.desk, &mut third] {
        assert_eq!(device.files(), shown);
        assert_sound(device);
    }
    let left = prune(&mut pair.laptop);
    pair.settle();
    third.sync();
    assert!(prune(&mut pair.laptop).waiting_for.is_empty(), "{left:?}");
}

#[test]
fn whoever_joined_with_a_key_that_was_given_up_and_finds_no_word_of_it_is_told() {
    // Seed 13369 of the world: the key was renewed and that packet let go before the device was heard for the first time.
    // What it could read was an early lane that goes on under the new key, and its rounds seemed well for ever.
    let (mut pair, _) = three_versions();
    let mut third = pair.third();
    let desk = pair.desk.id();
    pair.laptop.replica.revoke(&desk, b"another", &mut Silent).unwrap();
    pair.pass_days(1);
    keep(&mut pair.laptop, Retention::Days(0));
    prune(&mut pair.laptop);
    pair.laptop.sync();
    third.fs.write("mine", b"written since").unwrap();
    for _ in 0..2 {
        let error = third.sync_fails();
        assert!(matches!(&error, SyncError::LeftOut { .. }), "{error}");
    }
    assert_eq!(third.fs.read("mine").unwrap(), b"written since");
}

#[test]
fn a_damaged_pack_of_which_another_holds_the_same_is_told_of_and_nothing_is_let_go_for_it() {
    // A newcomer stored anew what others had stored. One of the two packs is damaged: nothing is lost, and the other must
    // not be taken for the spare one.
    let (mut pair, _) = three_versions();
    let mut third = pair.third();
    third.sync();
    let before = pair.store.names();
    third.fs.write("the same", &noise(3, LARGE)).unwrap();
    third.sync();
    let is_new_pack = |name: &ObjectName| name.as_str().starts_with("packs/") && !before.contains(name);
    let spare = pair.store.names().into_iter().find(is_new_pack).expect("it refers to nothing that others stored");
    pair.settle();
    pair.store.tamper(&spare, |bytes| bytes[1000] ^= 1);
    let report = pair.laptop.replica.verify(true, &mut Silent).unwrap();
    assert!(report.faults.is_empty(), "{:?}", report.faults);
    assert_eq!(report.orphans, [spare.to_string()]);
    pair.pass_days(1);
    keep(&mut pair.laptop, Retention::Days(0));
    let_go_until_nothing_moves(&mut pair, &mut [&mut third]);
    assert!(!pair.store.names().contains(&spare), "it is of no use to anybody");
    for device in [&mut pair.laptop, &mut pair.desk, &mut third] {
        assert_sound(device);
        assert_eq!(device.fs.read("the same").unwrap(), noise(3, LARGE));
    }
}

#[test]
fn nothing_is_let_go_for_a_pack_that_only_a_checkpoint_names() {
    // Seeds 16770, 16827 and 16863 of the world: whoever wrote a checkpoint had stored in a pack what lay inside packets, and
    // no packet told of that pack. A device that began from the checkpoint let go of another that held the same, which was
    // all that the others knew: they stored it anew, it let that go too, and so on; or the content was nowhere for them.
    let mut pair = Pair::new();
    pair.laptop.fs.write("kept", b"inside a packet").unwrap();
    pair.settle();
    desk_writes_a_checkpoint(&mut pair);
    let mut third = pair.third();
    third.sync();
    pair.pass_days(1);
    pair.laptop.sync();
    keep(&mut pair.laptop, Retention::Days(0));
    for _ in 0..2 {
        pair.settle();
        third.sync();
    }
    prune(&mut pair.laptop);
    let report = prune(&mut third);
    assert_eq!(report.notes, Vec::<String>::new(), "it knows all history by now");
    let_go_until_nothing_moves(&mut pair, &mut [&mut third]);
    let mut fourth = pair.joined(4, "fourth", b"secret");
    fourth.sync();
    for device in [&mut pair.laptop, &mut pair.desk, &mut third, &mut fourth] {
        assert_eq!(device.fs.read("kept").unwrap(), b"inside a packet");
        assert_sound(device);
    }
}
