//! Devices that cannot tell what may go: one that began from a checkpoint, and lacks packets that a condemnation did not
//! know or that past versions need, and one that the others wait for no more.

mod support;

use packetboat_core::garbage::Retention;
use packetboat_core::ids::{Dot, PacketHash};
use packetboat_core::knowledge::{Knowledge, Learned};
use packetboat_core::store::ObjectName;
use packetboat_engine::PruneOptions;
use packetboat_engine::ports::Silent;
use packetboat_storage::memory::MemoryStore;
use support::letting_go::{
    LARGE, MORE_THAN_A_TAIL, ONE_VERSION, assert_sound, bring, count, desk_writes_a_checkpoint, garbage, keep,
    let_go_until_nothing_moves, noise, prune, shown, three_versions,
};
use support::{Device, Pair};

/// Two devices and a third that began from a checkpoint of the desk's, in which is contained what the laptop did not know
/// when it condemned; all has been brought together. With the packs that the laptop condemned.
fn in_doubt(before_the_checkpoint: impl Fn(&mut Device)) -> (Pair, Device, Vec<ObjectName>) {
    let (mut pair, _) = three_versions();
    let elsewhere = MemoryStore::new();
    bring(&pair.store, &[], &elsewhere);
    let before = elsewhere.names();
    before_the_checkpoint(&mut pair.desk);
    desk_writes_a_checkpoint(&mut pair);
    let mut third = pair.third();
    third.sync();
    let nobody = pair.third();
    let laptop = std::mem::replace(&mut pair.laptop, nobody);
    let mut laptop = pair.moved(laptop, &elsewhere, "memory");
    assert!(keep(&mut laptop, Retention::Days(0)).packs >= 2);
    let condemned = garbage(&laptop).condemned();
    bring(&elsewhere, &before, &pair.store);
    pair.laptop = pair.moved(laptop, &pair.store, "memory");
    pair.laptop.sync();
    third.sync();
    let doubts: Vec<bool> = garbage(&third).standing().map(|(_, condemnation)| condemnation.is_doubtful).collect();
    assert_eq!(doubts, [true]);
    let condemned = condemned.iter().map(packetboat_storage::pack::object_name).collect();
    (pair, third, condemned)
}

#[test]
fn what_somebody_refers_to_is_not_deleted_by_a_device_that_cannot_know_of_it() {
    let (mut pair, mut third, condemned) = in_doubt(|desk| {
        // Not knowing that it is condemned, it refers to the pack in which this lies.
        desk.fs.write("again", &noise(1, LARGE)).unwrap();
        desk.sync();
    });
    pair.desk.sync();
    pair.laptop.sync();
    third.sync();
    let before = pair.store.names();
    prune(&mut third);
    let gone: Vec<_> = before.iter().filter(|name| !pair.store.names().contains(name)).collect();
    assert!(!gone.iter().any(|name| condemned.contains(name)), "{gone:?}");
    let_go_until_nothing_moves(&mut pair, &mut [&mut third]);
    let left: Vec<_> = condemned.iter().filter(|name| pair.store.names().contains(name)).collect();
    assert_eq!(left.len(), 1, "the one that is referred to, and no other");
    let mut fourth = pair.joined(4, "fourth", b"secret");
    fourth.sync();
    for device in [&mut pair.laptop, &mut pair.desk, &mut third, &mut fourth] {
        assert_eq!(device.fs.read("again").unwrap(), noise(1, LARGE));
        assert_sound(device);
    }
}

#[test]
fn what_is_condemned_goes_though_one_device_cannot_tell_whether_it_may() {
    let (mut pair, mut third, condemned) = in_doubt(|_| {});
    for _ in 0..3 {
        pair.settle();
        third.sync();
    }
    prune(&mut third);
    assert!(condemned.iter().all(|name| !pair.store.names().contains(name)), "others could tell");
    assert_eq!(garbage(&third).standing().count(), 0, "nor does the third wait for anything");
    for device in [&mut pair.laptop, &mut pair.desk, &mut third] {
        assert_eq!(device.fs.read("large").unwrap(), noise(3, LARGE));
        assert_sound(device);
    }
    let_go_until_nothing_moves(&mut pair, &mut [&mut third]);
}

#[test]
fn a_device_that_joined_later_leaves_all_to_those_that_know_what_past_versions_need() {
    let (mut pair, times) = three_versions();
    for number in 0..MORE_THAN_A_TAIL {
        pair.desk.fs.write("counter", number.to_string().as_bytes()).unwrap();
        pair.desk.sync();
    }
    assert_eq!(count(&pair.store, "checkpoints/"), 1);
    let mut third = pair.third();
    third.sync();
    pair.pass_days(1);
    let before = count(&pair.store, "packs/");
    let report = keep(&mut third, Retention::Days(0));
    assert_eq!((report.packs, report.packets, report.deleted), (0, 0, 0));
    assert!(report.notes.iter().any(|note| note.contains("joined later")), "{:?}", report.notes);
    assert_eq!(garbage(&third).standing().count(), 0);
    assert_eq!(count(&pair.store, "packs/"), before);
    pair.desk.sync();
    assert_eq!(shown(&mut pair.desk, "large", &times[0]).unwrap(), noise(1, LARGE));
    // Whoever has folded all of it lets go.
    assert!(prune(&mut pair.desk).packets > 0);
}

#[test]
fn a_device_that_lacks_a_single_packet_leaves_all_to_those_that_have_it() {
    for lacking in 1..=2 {
        let (mut pair, _) = three_versions();
        let mut history = Knowledge::new();
        history.advance(pair.laptop.id(), Learned { counter: lacking, hash: PacketHash([0; 32]) });
        let mut desk = pair.take_desk().with_index(|index| index.forget_packets(&history).unwrap());
        let report = keep(&mut desk, Retention::Days(0));
        assert!(report.notes.iter().any(|note| note.contains("joined later")), "{lacking}: {:?}", report.notes);
        assert_eq!((report.packs, report.packets, report.deleted), (0, 0, 0));
        assert_eq!(garbage(&desk).standing().count(), 0);
    }
}

#[test]
fn packs_stay_and_it_is_told_where_what_a_packet_stored_can_be_looked_at_no_more() {
    let (mut pair, times) = three_versions();
    pair.laptop.fs.write("more", b"of which the desk has not heard").unwrap();
    pair.laptop.sync();
    let device = pair.laptop.id();
    let counter = pair.laptop.replica.index().knowledge().counter(&device);
    let third = pair.third();
    let laptop = std::mem::replace(&mut pair.laptop, third);
    let mut laptop = laptop.with_index(|index| index.drop_sealed(Dot { device, counter }).unwrap());
    let options = PruneOptions { keep: Some(ONE_VERSION), dry_run: true };
    let report = laptop.replica.prune(options, &mut Silent).unwrap();
    assert_eq!(report.packs, 0);
    assert_eq!(report.notes, ["some packets are not here any more: packs are left as they are"]);
    assert_eq!(shown(&mut laptop, "large", &times[0]).unwrap(), noise(1, LARGE));
}

#[test]
fn a_device_that_was_retired_lets_nothing_go_before_it_has_come_back() {
    let (mut pair, times) = three_versions();
    let desk = pair.desk.replica.own_device();
    pair.laptop.replica.retire(&desk, &mut Silent).unwrap();
    pair.pass_days(1);
    let before = pair.store.names();
    let report = keep(&mut pair.desk, Retention::Days(0));
    assert_eq!(report.notes, ["this device is about to go on as a new one: synchronise first"]);
    assert_eq!((report.packs, report.packets, report.deleted), (0, 0, 0));
    assert_eq!(pair.store.names(), before);
    assert_eq!(shown(&mut pair.laptop, "large", &times[0]).unwrap(), noise(1, LARGE));
}
