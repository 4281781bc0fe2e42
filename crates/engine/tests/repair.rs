//! What an intermediary lost or damaged is put back by whoever still has it, unasked.

mod support;

use std::sync::atomic::Ordering;

use packetboat_core::garbage::Retention;
use packetboat_core::ids::Dot;
use packetboat_core::store::{ObjectName, Store};
use packetboat_core::tip::{MAX_TIP_BYTES, Tip};
use packetboat_engine::Repaired;
use packetboat_engine::learn::packet_name;
use packetboat_engine::ports::Silent;
use packetboat_engine::replica::{At, Remedy};
use packetboat_storage::memory::MemoryStore;
use packetboat_testkit::rng::Rng;
use support::letting_go::{keep, prune, three_versions};
use support::{Device, Pair, path};

fn noise(seed: u32, words: u32) -> Vec<u8> {
    let word = |n: u32| (n ^ seed).wrapping_mul(2_654_435_761).rotate_left(n % 31).to_le_bytes();
    (0..words).flat_map(word).collect()
}

fn packs(pair: &Pair) -> Vec<ObjectName> {
    pair.store.names().into_iter().filter(|name| name.as_str().starts_with("packs/")).collect()
}

fn is_whole(device: &mut Device) -> bool {
    device.replica.verify(true, &mut Silent).unwrap().faults.is_empty()
}

/// A vault with a file of several chunks that both devices have.
fn vault_with_a_pack() -> Pair {
    let mut pair = Pair::new();
    pair.laptop.fs.write("dir/large", &noise(1, 100_000)).unwrap();
    pair.settle();
    assert_eq!(packs(&pair).len(), 1);
    pair
}

/// Story: a storage kept a tip otherwise than it was written. Its device saw that, said so in every round, and wrote no
/// other, since it had nothing new to tell; what it had published last reached nobody.
#[test]
fn a_damaged_tip_keeps_nothing_back_and_is_written_again_by_its_device() {
    let damages: [fn(&mut Vec<u8>); 3] = [|bytes| bytes[40] ^= 4, |bytes| bytes.truncate(50), |bytes| bytes.push(0)];
    for (number, damage) in damages.into_iter().enumerate() {
        let mut pair = Pair::new();
        pair.settle();
        let tip = Tip::name(&pair.laptop.id());
        for text in ["one", "two"] {
            pair.laptop.fs.write("file", text.as_bytes()).unwrap();
            pair.pass();
            pair.laptop.sync();
        }
        pair.store.tamper(&tip, damage);
        pair.desk.sync();
        assert_eq!(pair.desk.fs.read("file").unwrap(), b"two", "damage {number}");
        if number > 0 {
            let damaged = pair.store.get(&tip, u64::MAX).unwrap();
            pair.laptop.sync();
            assert_ne!(pair.store.get(&tip, u64::MAX).unwrap(), damaged, "damage {number}");
        }
        pair.laptop.fs.write("file", b"three").unwrap();
        pair.settle();
        assert_eq!(pair.desk.fs.read("file").unwrap(), b"three", "damage {number}");
        // It is at rest again.
        let whole = pair.store.get(&tip, u64::MAX).unwrap();
        pair.laptop.sync();
        assert_eq!(pair.store.get(&tip, u64::MAX).unwrap(), whole, "damage {number}");
    }
}

/// What a device tells its user of.
fn problems(device: &Device) -> Vec<(String, String)> {
    let problems = device.replica.index().problems().unwrap();
    problems.into_iter().map(|problem| (problem.kind, String::from_utf8(problem.subject).unwrap())).collect()
}

/// A vault in which the storage damaged the laptop's tip, and what it was.
fn vault_with_a_damaged_tip(damage: impl FnOnce(&mut Vec<u8>)) -> (Pair, ObjectName) {
    let mut pair = Pair::new();
    pair.laptop.fs.write("file", b"one").unwrap();
    pair.settle();
    let tip = Tip::name(&pair.laptop.id());
    let mut bytes = pair.store.get(&tip, u64::MAX).unwrap();
    damage(&mut bytes);
    pair.store.put(&tip, &bytes).unwrap();
    (pair, tip)
}

/// Story: a device found its own tip damaged and wrote it anew, and told its user of the damage for ever, since it does not
/// read again what it wrote itself. One that was too large it did not even write anew.
#[test]
fn a_device_whose_damaged_tip_is_written_anew_tells_of_it_no_more() {
    let damages: [fn(&mut Vec<u8>); 5] = [
        |bytes| bytes[40] ^= 4,
        |bytes| bytes.truncate(20),
        Vec::clear,
        |bytes| bytes.reverse(),
        |bytes| bytes.resize(MAX_TIP_BYTES + 1, 0),
    ];
    for (number, damage) in damages.into_iter().enumerate() {
        let (mut pair, tip) = vault_with_a_damaged_tip(damage);
        pair.desk.sync();
        assert_eq!(problems(&pair.desk), [("tip".to_owned(), tip.to_string())], "damage {number}");
        let report = pair.laptop.sync();
        assert_eq!((report.problems, problems(&pair.laptop)), (0, vec![]), "damage {number}");
        pair.desk.sync();
        assert_eq!(problems(&pair.desk), [], "damage {number}");
        assert!(is_whole(&mut pair.laptop) && is_whole(&mut pair.desk), "damage {number}");
    }
}

#[test]
fn the_tip_of_another_device_is_told_of_no_longer_than_it_lies_there_damaged() {
    let (mut pair, tip) = vault_with_a_damaged_tip(|bytes| bytes[40] ^= 4);
    let (aside, whole) = (MemoryStore::new(), pair.store.get(&tip, u64::MAX).unwrap());
    pair.desk.sync();
    assert_eq!(problems(&pair.desk).len(), 1);
    pair.store.delete(&tip).unwrap();
    pair.desk.sync();
    assert_eq!(problems(&pair.desk), [], "it is gone");
    pair.laptop.sync();
    // A copy of the vault, of which the desk knows the tips.
    for name in pair.store.names() {
        aside.put(&name, &pair.store.get(&name, u64::MAX).unwrap()).unwrap();
    }
    let goes = |pair: &mut Pair, store: &MemoryStore, place: &str| {
        let desk = pair.take_desk();
        pair.desk = pair.moved(desk, store, place);
        pair.desk.sync();
    };
    let store = pair.store.clone();
    goes(&mut pair, &aside, "aside");
    goes(&mut pair, &store, "memory");
    store.put(&tip, &whole).unwrap();
    pair.desk.sync();
    assert_eq!(problems(&pair.desk).len(), 1);
    goes(&mut pair, &aside, "aside");
    assert_eq!(problems(&pair.desk), [], "the copy's is sound");
    goes(&mut pair, &store, "memory");
    assert_eq!(problems(&pair.desk).len(), 1, "it lies there still");
    let laptop = pair.laptop.id();
    pair.desk.replica.retire(&laptop, &mut Silent).unwrap();
    pair.desk.sync();
    assert_eq!(problems(&pair.desk), [], "nobody writes it again");
}

#[test]
fn a_packet_that_was_put_in_part_is_put_again_by_its_device_before_it_tells_of_it() {
    // The first packet of a lane: there was no tip yet, so the lane was looked through by names, and its name was there.
    // Others read it in the tip, and nobody looked until another joined.
    let mut pair = Pair::new();
    let mut third = pair.third();
    pair.fuse.store(0, Ordering::SeqCst);
    third.sync_fails();
    pair.fuse.store(-1, Ordering::SeqCst);
    pair.out.store(false, Ordering::SeqCst);
    let first = Dot { device: third.id(), counter: 1 };
    let whole = third.replica.index().sealed(first).unwrap().unwrap();
    let name = packet_name(&first);
    assert!(!pair.store.names().contains(&name), "it was the first call that changes anything");
    pair.store.put(&name, &whole[..whole.len() / 2]).unwrap();
    third.sync();
    assert_eq!(pair.store.get(&name, u64::MAX).unwrap(), whole);
    pair.settle();
    assert!(is_whole(&mut pair.laptop));
}

#[test]
fn a_reader_who_misses_a_pack_gets_it_from_whoever_has_the_content() {
    let mut pair = Pair::new();
    pair.laptop.fs.write("large", &noise(1, 100_000)).unwrap();
    pair.pass();
    pair.laptop.sync();
    let pack = packs(&pair).pop().unwrap();
    pair.store.delete(&pack).unwrap();
    assert_eq!(pair.desk.sync().received.waiting, 1);
    let report = pair.laptop.sync();
    assert!(report.repaired.chunks > 0, "{:?}", report.repaired);
    assert_eq!(pair.desk.sync().received.waiting, 0);
    assert_eq!(pair.desk.fs.read("large").unwrap(), noise(1, 100_000));
    // The wish is taken back, and a further round finds nothing to do.
    pair.settle();
    assert!(pair.laptop.sync().repaired.is_empty());
    assert!(is_whole(&mut pair.laptop) && is_whole(&mut pair.desk));
}

#[test]
fn a_damaged_pack_is_replaced_and_missed_by_nobody_afterwards() {
    let mut pair = vault_with_a_pack();
    let pack = packs(&pair).pop().unwrap();
    pair.store.tamper(&pack, |bytes| bytes[100] ^= 4);
    let faults = pair.desk.replica.verify(true, &mut Silent).unwrap().faults;
    assert_eq!(faults[0].remedy, Remedy::Here);
    assert_eq!(faults[0].paths, [path("dir/large")]);
    // No command is needed: the round that follows does it.
    assert_eq!(pair.desk.sync().repaired, Repaired { chunks: 1, ..Repaired::default() });
    let report = pair.desk.replica.verify(true, &mut Silent).unwrap();
    assert_eq!((report.faults.len(), report.orphans.len()), (0, 1), "{report:?}");
    let mut third = pair.third();
    third.sync();
    assert_eq!(third.fs.read("dir/large").unwrap(), noise(1, 100_000));
}

#[test]
fn a_missing_packet_is_put_back_with_whatever_else_the_lanes_lack() {
    let mut pair = Pair::new();
    // More than a tip carries.
    for n in 0..40 {
        pair.laptop.fs.write("file", format!("{n}").as_bytes()).unwrap();
        pair.laptop.sync();
    }
    pair.settle();
    let lanes: Vec<ObjectName> =
        pair.store.names().into_iter().filter(|name| name.as_str().starts_with("lanes/")).collect();
    for name in &lanes {
        pair.store.delete(name).unwrap();
    }
    let mut third = pair.third();
    third.sync();
    let repaired = pair.desk.sync().repaired;
    assert!(repaired.packets > 1, "{repaired:?}");
    pair.laptop.sync();
    third.sync();
    pair.desk.sync();
    third.sync();
    assert_eq!(third.files(), [("file".to_owned(), "39".to_owned())]);
    assert!(is_whole(&mut pair.laptop) && is_whole(&mut third));
}

#[test]
fn the_list_of_a_large_files_chunks_is_found_by_cutting_it_again() {
    let mut pair = Pair::new();
    pair.laptop.fs.write("huge", &noise(7, 12_000_000)).unwrap();
    pair.settle();
    for name in packs(&pair) {
        pair.store.delete(&name).unwrap();
    }
    assert!(!is_whole(&mut pair.desk));
    assert!(pair.desk.sync().repaired.chunks > 1);
    assert!(is_whole(&mut pair.desk));
    let mut third = pair.third();
    third.sync();
    assert!(third.fs.read("huge").unwrap() == noise(7, 12_000_000));
}

#[test]
fn a_device_that_is_behind_gives_the_past_that_only_its_disk_has() {
    let mut pair = vault_with_a_pack();
    let old = pair.pass();
    pair.laptop.fs.write("dir/large", &noise(2, 100_000)).unwrap();
    pair.laptop.sync();
    let first = packs(&pair).into_iter().find(|name| pair.store.get(name, u64::MAX).is_ok()).unwrap();
    // Whichever of the two it is, one of the devices has what it held on its disk.
    pair.store.delete(&first).unwrap();
    pair.laptop.replica.verify(false, &mut Silent).unwrap();
    pair.laptop.sync();
    let repaired = pair.desk.sync().repaired;
    pair.settle();
    assert!(is_whole(&mut pair.laptop), "{repaired:?}");
    let mut out = Vec::new();
    pair.laptop.replica.show(&path("dir/large"), Some(&At::Time(old)), &mut out).unwrap();
    assert_eq!(out, noise(1, 100_000));
}

#[test]
fn what_no_disk_has_any_more_is_told_with_path_and_version_and_looked_for_once_a_day() {
    let mut pair = vault_with_a_pack();
    let pack = packs(&pair).pop().unwrap();
    pair.laptop.fs.write("dir/large", b"small").unwrap();
    pair.settle();
    pair.store.delete(&pack).unwrap();
    let report = pair.laptop.replica.repair(true, &mut Silent).unwrap();
    assert!(report.round.repaired.is_empty());
    let [fault] = &report.left[..] else { panic!("{:?}", report.left) };
    assert!(fault.paths.is_empty());
    assert_eq!(fault.versions.len(), 1);
    assert_eq!(fault.versions[0].path, path("dir/large"));
    assert_eq!(fault.remedy, Remedy::Others(vec!["desk".to_owned()]));
    pair.settle();
    // Nothing is read of it again until a day has passed.
    for device in [&mut pair.laptop, &mut pair.desk] {
        assert!(device.sync().repaired.is_empty());
    }
    // Whoever writes the same content again stores it anew.
    pair.desk.fs.write("again", &noise(1, 100_000)).unwrap();
    pair.settle();
    assert!(is_whole(&mut pair.desk) && is_whole(&mut pair.laptop));
}

/// Story: a pack held three files. A repair stored anew the two that stand; the old version of the third was nowhere, and
/// the report said that all three still needed the pack.
#[test]
fn what_a_repair_put_back_is_not_told_as_missing_with_what_nobody_has() {
    let mut pair = Pair::new();
    for (at, name) in ["one", "two", "three"].into_iter().enumerate() {
        pair.laptop.fs.write(name, &noise(at as u32, 50_000)).unwrap();
    }
    pair.settle();
    let [pack] = &packs(&pair)[..] else { panic!("one pack for all") };
    pair.laptop.fs.write("one", &noise(7, 50_000)).unwrap();
    pair.settle();
    pair.store.delete(pack).unwrap();
    let before = pair.laptop.replica.verify(false, &mut Silent).unwrap();
    assert_eq!(before.faults[0].paths, [path("three"), path("two")]);
    let report = pair.laptop.replica.repair(false, &mut Silent).unwrap();
    let [fault] = &report.left[..] else { panic!("{:?}", report.left) };
    assert_eq!((fault.paths.len(), fault.versions.len()), (0, 1), "{fault:?}");
    assert_eq!(fault.versions[0].path, path("one"));
}

#[test]
fn what_one_device_alone_had_and_lost_is_lost_and_said_to_be() {
    let mut pair = Pair::new();
    let (fs, mut parts) = pair.parts(9);
    parts.store = std::sync::Arc::new(packetboat_storage::memory::MemoryStore::new());
    let store = std::sync::Arc::clone(&parts.store);
    let (replica, _) = packetboat_engine::replica::Replica::create(parts, b"secret", "alone").unwrap();
    let mut alone = Device { fs, replica };
    alone.fs.write("large", &noise(1, 100_000)).unwrap();
    pair.pass();
    alone.sync();
    alone.fs.write("large", b"small").unwrap();
    alone.sync();
    for prefix in 0..=u8::MAX {
        for listed in store.list(&format!("packs/{prefix:02x}")).unwrap() {
            store.delete(&listed.name).unwrap();
        }
    }
    let report = alone.replica.repair(false, &mut Silent).unwrap();
    assert_eq!(report.left[0].remedy, Remedy::Lost);
}

#[test]
fn a_damaged_checkpoint_gives_way_to_a_new_one() {
    let mut pair = Pair::new();
    for n in 0..70 {
        pair.laptop.fs.write("file", format!("{n}").as_bytes()).unwrap();
        pair.laptop.sync();
    }
    pair.settle();
    let is_checkpoint = |name: &ObjectName| name.as_str().starts_with("checkpoints/");
    let name = pair.store.names().into_iter().find(is_checkpoint).unwrap();
    for damage in ["root", "segments"] {
        let newest = pair.store.names().into_iter().rfind(is_checkpoint).unwrap();
        match damage {
            "root" => assert!(pair.store.tamper(&name, |bytes| bytes[200] ^= 1)),
            _ => packs(&pair).iter().for_each(|pack| pair.store.delete(pack).unwrap()),
        }
        let mut joined = pair.third();
        joined.sync();
        assert_eq!(joined.files(), [("file".to_owned(), "69".to_owned())], "{damage}");
        pair.laptop.replica.verify(true, &mut Silent).unwrap();
        assert_eq!(pair.laptop.sync().repaired.checkpoints, 1, "{damage} of {newest}");
    }
}

/// Story: a checkpoint was damaged of which nobody had need, since a newer one stood. Each repair said that it had put one
/// back and that one was still damaged, wrote another checkpoint, and left the damaged one where it was.
#[test]
fn a_damaged_checkpoint_beside_one_that_is_whole_is_no_fault_and_makes_no_others() {
    let mut pair = Pair::new();
    for device in 0..2 {
        for n in 0..70 {
            pair.pass();
            let device = if device == 0 { &mut pair.laptop } else { &mut pair.desk };
            device.fs.write("file", format!("{n}").as_bytes()).unwrap();
            device.sync();
        }
        pair.settle();
    }
    let is_checkpoint = |name: &&ObjectName| name.as_str().starts_with("checkpoints/");
    let count = |pair: &Pair| pair.store.names().iter().filter(is_checkpoint).count();
    let names = pair.store.names();
    let of_laptop =
        names.iter().filter(is_checkpoint).find(|name| name.as_str().contains(&pair.laptop.id().to_string()));
    let of_laptop = of_laptop.expect("the laptop's").clone();
    let before = count(&pair);
    assert!(before > 1, "{before}");
    assert!(pair.store.tamper(&of_laptop, |bytes| bytes.truncate(4)));
    for _ in 0..2 {
        for device in [&mut pair.laptop, &mut pair.desk] {
            let report = device.replica.repair(false, &mut Silent).unwrap();
            assert!(report.left.is_empty(), "{:?}", report.left);
        }
        pair.settle();
    }
    assert!(count(&pair) <= before, "no more were written");
    assert_eq!(pair.laptop.replica.verify(true, &mut Silent).unwrap().orphans, [of_laptop.as_str()]);
    let mut joined = pair.third();
    joined.sync();
    assert_eq!(joined.files(), [("file".to_owned(), "69".to_owned())]);
}

/// Story: history had been let go, and the storage lost all checkpoints, or a pack with a part of them. Whoever joined had
/// an empty folder that was told to be in step, or went on as another device in every round, and a restore from the vault
/// alone said that it held nothing.
#[test]
fn a_vault_that_lost_where_its_history_begins_is_not_taken_for_empty() {
    let is_checkpoint = |name: &ObjectName| name.as_str().starts_with("checkpoints/");
    for lost in ["roots", "parts"] {
        let (mut pair, _) = three_versions();
        let contents = packs(&pair);
        keep(&mut pair.laptop, Retention::Days(0));
        for _ in 0..3 {
            pair.settle();
            prune(&mut pair.laptop);
        }
        let parts: Vec<ObjectName> = packs(&pair).into_iter().filter(|pack| !contents.contains(pack)).collect();
        let roots: Vec<ObjectName> = pair.store.names().into_iter().filter(is_checkpoint).collect();
        let gone = if lost == "roots" { roots } else { parts };
        assert!(!gone.is_empty());
        gone.iter().for_each(|name| pair.store.delete(name).unwrap());
        let before = pair.store.names().into_iter().filter(is_checkpoint).count();
        let mut joined = pair.third();
        let id = joined.replica.own_device();
        for _ in 0..3 {
            let report = joined.sync();
            assert!(report.received.waiting > 0 && report.problems > 0, "{lost}: {report:?}");
            assert_eq!(joined.replica.own_device(), id, "{lost}: it joins once");
            let now = pair.store.names().into_iter().filter(is_checkpoint).count();
            assert_eq!(now, before, "{lost}: nobody begins from what it shows");
        }
        // By themselves: the newcomer's tip asks for it.
        for _ in 0..2 {
            pair.settle();
            joined.sync();
        }
        let waiting = joined.sync().received.waiting;
        assert_eq!((waiting, joined.fs.read("small").unwrap()), (0, b"version 3".to_vec()), "{lost}");
        joined.sync();
        assert_eq!(joined.replica.status().unwrap().problems, [], "{lost}");
    }
}

#[test]
fn an_intermediary_that_lost_half_its_files_gets_everything_back_that_a_device_holds() {
    for seed in 0..12 {
        let mut rng = Rng::new(seed);
        let mut pair = Pair::new();
        for n in 0..6u32 {
            let device = if rng.chance(1, 2) { &pair.laptop } else { &pair.desk };
            device.fs.write(format!("file {n}"), &noise(n, 40_000)).unwrap();
            device.fs.write(format!("dir/note {n}"), format!("note {n}").as_bytes()).unwrap();
            pair.settle();
        }
        for name in pair.store.names() {
            let lost = name.as_str() != "packetboat" && rng.chance(1, 2);
            match rng.below(2) {
                _ if !lost => {}
                0 => pair.store.delete(&name).unwrap(),
                _ => assert!(pair.store.tamper(&name, |bytes| bytes.truncate(bytes.len() / 2))),
            }
        }
        pair.laptop.replica.verify(true, &mut Silent).unwrap();
        pair.settle();
        pair.desk.replica.verify(true, &mut Silent).unwrap();
        pair.settle();
        let left = pair.laptop.replica.verify(true, &mut Silent).unwrap().faults;
        assert_eq!(left, [], "seed {seed}");
        let mut third = pair.third();
        third.sync();
        assert_eq!(third.files(), pair.laptop.files(), "seed {seed}");
    }
}

#[test]
fn an_intermediary_that_was_put_back_to_an_older_state_gets_the_packs_since_then_back() {
    // The packets came back, and the packs of which they told did not: all said that they were in step, and nobody who
    // joined got those files.
    let mut pair = vault_with_a_pack();
    let before: Vec<(ObjectName, Vec<u8>)> =
        pair.store.names().into_iter().map(|name| (name.clone(), pair.store.get(&name, u64::MAX).unwrap())).collect();
    for (path, seed) in [("later", 7), ("latest", 8)] {
        pair.laptop.fs.write(path, &noise(seed, 50_000)).unwrap();
        pair.settle();
    }
    for name in pair.store.names() {
        pair.store.delete(&name).unwrap();
    }
    for (name, bytes) in &before {
        pair.store.put(name, bytes).unwrap();
    }
    pair.settle();
    pair.settle();
    assert!(is_whole(&mut pair.laptop));
    assert!(is_whole(&mut pair.desk));
    let mut newcomer = pair.joined(9, "newcomer", b"secret");
    newcomer.sync();
    assert_eq!(newcomer.files(), pair.laptop.files());
}

#[test]
fn with_a_lost_packet_come_the_packs_that_are_lost_too() {
    let mut pair = vault_with_a_pack();
    let packet = pair.laptop.replica.log(Some(&path("dir/large")), 1).unwrap()[0].packet;
    let lost = ObjectName::new(format!("lanes/{}/{}", packet.device, packet.counter)).unwrap();
    // More than a tip carries.
    for n in 0..40 {
        pair.laptop.fs.write("file", format!("{n}").as_bytes()).unwrap();
        pair.laptop.sync();
    }
    for name in [lost, packs(&pair).remove(0)] {
        pair.store.delete(&name).unwrap();
    }
    // Whoever joins misses the packet, and cannot know of the pack.
    let mut newcomer = pair.joined(9, "newcomer", b"secret");
    newcomer.sync();
    pair.laptop.sync();
    assert!(is_whole(&mut pair.laptop));
    newcomer.sync();
    assert_eq!(newcomer.files(), pair.laptop.files());
}

#[test]
fn a_storage_that_lies_about_damage_gets_nothing_but_what_it_had() {
    let mut pair = vault_with_a_pack();
    let pack = packs(&pair).pop().unwrap();
    let bytes = pair.store.get(&pack, u64::MAX).unwrap();
    pair.store.delete(&pack).unwrap();
    pair.desk.replica.verify(false, &mut Silent).unwrap();
    // By the time anybody looks, it is there again.
    pair.store.put(&pack, &bytes).unwrap();
    let before = pair.store.names().len();
    pair.settle();
    assert_eq!(pair.store.names().len(), before);
    assert!(is_whole(&mut pair.desk));
}
