//! What lies inside packets and, since somebody wrote a checkpoint, in packs too.

mod support;

use packetboat_core::garbage::Retention;
use packetboat_core::store::{ObjectName, Store};
use packetboat_engine::replica::At;
use packetboat_storage::pack::object_name;
use support::letting_go::{
    ONE_VERSION, assert_sound, desk_writes_a_checkpoint, garbage, keep, let_go_until_nothing_moves, misses_something,
    packs, stored,
};
use support::{Device, Pair};

/// Small files that came inside a packet, which a pack holds too since the desk wrote a checkpoint: everybody knows of it.
/// They were replaced since; with that pack, and a third device, which began from the checkpoint.
fn packed_too() -> (Pair, Device, ObjectName) {
    let mut pair = Pair::new();
    for name in SMALL_FILES {
        pair.laptop.fs.write(name, format!("text of {name}").as_bytes()).unwrap();
    }
    pair.laptop.sync();
    stored(&mut pair, "large", 1);
    let before = packs(&pair);
    desk_writes_a_checkpoint(&mut pair);
    let mut third = pair.third();
    third.sync();
    pair.laptop.sync();
    let of_contents = |device: &Device| -> Vec<ObjectName> {
        device.replica.index().packs(None, 99).unwrap().iter().map(|row| object_name(&row.pack)).collect()
    };
    let pack = of_contents(&third).into_iter().find(|pack| !before.contains(pack)).expect("what was inside packets");
    // Whoever condemns tells of it.
    stored(&mut pair, "large", 2);
    pair.pass_days(1);
    assert_eq!(keep(&mut pair.desk, ONE_VERSION).packs, 1);
    for _ in 0..2 {
        pair.settle();
        third.sync();
    }
    assert!(of_contents(&pair.laptop).contains(&pack));
    for name in SMALL_FILES {
        pair.laptop.fs.write(name, b"replaced").unwrap();
    }
    for _ in 0..2 {
        pair.settle();
        third.sync();
    }
    pair.pass_days(1);
    (pair, third, pack)
}

const SMALL_FILES: [&str; 3] = ["a", "b", "c"];

#[test]
fn what_lies_inside_a_packet_too_is_taken_from_there_where_its_pack_is_lost() {
    let (mut pair, mut third, pack) = packed_too();
    keep(&mut pair.laptop, ONE_VERSION);
    assert!(garbage(&pair.laptop).condemned().iter().any(|condemned| object_name(condemned) == pack));
    pair.desk.sync();
    third.sync();
    pair.store.delete(&pack).unwrap();
    // All have answered, but all is to be kept now.
    keep(&mut pair.laptop, Retention::All);
    assert!(!misses_something(&pair.laptop));
    for _ in 0..2 {
        pair.settle();
        third.sync();
    }
    for device in [&mut pair.laptop, &mut pair.desk, &mut third] {
        for name in SMALL_FILES {
            let log = device.replica.log(Some(&support::path(name)), 9).unwrap();
            let first = At::Packet(log.last().unwrap().packet);
            let mut out = Vec::new();
            device.replica.show(&support::path(name), Some(&first), &mut out).unwrap();
            assert_eq!(out, format!("text of {name}").as_bytes());
        }
        assert_sound(device);
    }
}

#[test]
fn what_is_written_again_after_its_pack_has_gone_is_brought_along_for_whoever_knew_the_pack_alone() {
    let (mut pair, mut third, pack) = packed_too();
    keep(&mut pair.laptop, ONE_VERSION);
    let_go_until_nothing_moves(&mut pair, &mut [&mut third]);
    assert!(!packs(&pair).contains(&pack));
    // A packet holds it yet, and the third never read that one.
    pair.laptop.fs.write("a", b"text of a").unwrap();
    pair.laptop.sync();
    third.sync();
    assert_eq!(third.fs.read("a").unwrap(), b"text of a");
    assert_sound(&mut third);
}
