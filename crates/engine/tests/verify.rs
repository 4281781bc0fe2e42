//! Verification finds what is wrong at the intermediary, and nothing else.
#![allow(dead_code)]

mod support;

use packetboat_core::name::RelPath;
use packetboat_core::store::{ObjectName, Store};
use packetboat_engine::ports::Silent;
use packetboat_engine::replica::At;
use support::{Pair, path};

/// A vault with small files in packets and large ones in packs, made by both devices.
fn vault() -> Pair {
    let mut pair = Pair::new();
    pair.laptop.fs.write("small", b"small").unwrap();
    pair.laptop.fs.write("dir/large", &noise(1)).unwrap();
    pair.settle();
    pair.desk.fs.write("dir/other", &noise(2)).unwrap();
    pair.desk.fs.write("small", b"smaller").unwrap();
    pair.settle();
    pair.laptop.fs.rename("dir", "folder").unwrap();
    pair.settle();
    pair
}

fn noise(seed: u32) -> Vec<u8> {
    (0..100_000u32).flat_map(|n| (n ^ seed).wrapping_mul(2_654_435_761).rotate_left(n % 31).to_le_bytes()).collect()
}

#[test]
fn a_whole_vault_has_no_faults() {
    let mut pair = vault();
    for device in [&mut pair.laptop, &mut pair.desk] {
        for deep in [false, true] {
            let report = device.replica.verify(deep, &mut Silent).unwrap();
            assert_eq!(report.faults, []);
            assert_eq!(report.orphans, Vec::<String>::new());
            assert_eq!(report.objects, pair.store.names().len() as u64);
        }
    }
}

#[test]
fn one_flipped_byte_in_any_object_is_found_on_both_devices() {
    let mut pair = vault();
    for name in pair.store.names() {
        let len = pair.store.get(&name, u64::MAX).unwrap().len();
        for at in [0, 5, len / 2, len - 1] {
            pair.store.tamper(&name, |bytes| bytes[at] ^= 4);
            for device in [&mut pair.laptop, &mut pair.desk] {
                let report = device.replica.verify(true, &mut Silent).unwrap();
                let objects: Vec<&str> = report.faults.iter().map(|fault| fault.object.as_str()).collect();
                assert_eq!(objects, [name.as_str()], "byte {at} of {len}: {:?}", report.faults);
            }
            pair.store.tamper(&name, |bytes| bytes[at] ^= 4);
        }
    }
}

#[test]
fn a_missing_or_cut_object_is_found_without_reading_packs() {
    let mut pair = vault();
    for name in pair.store.names() {
        let bytes = pair.store.get(&name, u64::MAX).unwrap();
        for cut in [true, false] {
            if cut {
                pair.store.tamper(&name, |bytes| bytes.truncate(bytes.len() - 1));
            } else {
                pair.store.delete(&name).unwrap();
            }
            let report = pair.desk.replica.verify(false, &mut Silent).unwrap();
            let objects: Vec<&str> = report.faults.iter().map(|fault| fault.object.as_str()).collect();
            assert_eq!(objects, [name.as_str()], "{:?}", report.faults);
            if !cut {
                pair.store.put_new(&name, &bytes).unwrap();
            } else {
                pair.store.put(&name, &bytes).unwrap();
            }
        }
    }
}

#[test]
fn a_fault_names_the_present_paths_that_need_the_object() {
    let mut pair = vault();
    let packs: Vec<ObjectName> =
        pair.store.names().into_iter().filter(|name| name.as_str().starts_with("packs/")).collect();
    assert_eq!(packs.len(), 2);
    let mut found = Vec::new();
    for name in &packs {
        pair.store.tamper(name, |bytes| bytes[1000] ^= 1);
        let report = pair.desk.replica.verify(true, &mut Silent).unwrap();
        found.extend(report.faults[0].paths.clone());
        assert!(report.faults[0].what.contains("damaged"), "{:?}", report.faults);
        pair.store.tamper(name, |bytes| bytes[1000] ^= 1);
    }
    found.sort();
    assert_eq!(found, [path("folder/large"), path("folder/other")]);
    // The packet with the present content of the small file.
    let packet = pair.desk.replica.log(Some(&path("small")), 1).unwrap()[0].packet;
    let name = ObjectName::new(format!("lanes/{}/{}", packet.device, packet.counter)).unwrap();
    pair.store.delete(&name).unwrap();
    let report = pair.desk.replica.verify(false, &mut Silent).unwrap();
    assert!(report.faults[0].paths.contains(&path("small")), "{:?}", report.faults);
}

#[test]
fn what_was_deleted_is_named_as_a_past_version_and_not_as_a_present_path() {
    // A side of a conflict that was settled by deleting it was named by the path of the other for ever, and of a file that
    // was deleted nothing was named at all.
    let mut pair = Pair::new();
    pair.laptop.fs.write("doc", &noise(1)).unwrap();
    pair.desk.fs.write("doc", &noise(2)).unwrap();
    pair.laptop.fs.write("gone", &noise(3)).unwrap();
    pair.settle();
    pair.pass();
    let copy = pair.laptop.copy_name();
    pair.laptop.fs.remove(&copy).unwrap();
    pair.laptop.fs.remove("gone").unwrap();
    pair.settle();
    for pack in pair.store.names().into_iter().filter(|name| name.as_str().starts_with("packs/")) {
        pair.store.delete(&pack).unwrap();
    }
    let report = pair.desk.replica.verify(true, &mut Silent).unwrap();
    let paths: Vec<&RelPath> = report.faults.iter().flat_map(|fault| &fault.paths).collect();
    let past: Vec<&RelPath> = report.faults.iter().flat_map(|fault| &fault.versions).map(|past| &past.path).collect();
    assert_eq!(paths, [&path("doc")], "{:?}", report.faults);
    assert!(past.contains(&&path("doc")) && past.contains(&&path("gone")), "{:?}", report.faults);
}

#[test]
fn what_nobody_refers_to_is_told_and_is_no_fault() {
    let mut pair = vault();
    let digits = "ab".repeat(32);
    let strange = [format!("packs/ab/{digits}"), "tips/strange".to_owned(), format!("tips/{digits}")];
    for name in &strange {
        pair.store.put_new(&ObjectName::new(name.clone()).unwrap(), b"strange").unwrap();
    }
    let report = pair.desk.replica.verify(true, &mut Silent).unwrap();
    assert_eq!(report.faults, []);
    let mut orphans = report.orphans;
    orphans.sort();
    let mut expected = strange.to_vec();
    expected.sort();
    assert_eq!(orphans, expected);
}

#[test]
fn a_rolled_back_tip_and_a_swapped_packet_are_found() {
    let mut pair = vault();
    let names = pair.store.names();
    let tip = names.iter().filter(|name| name.as_str().starts_with("tips/"));
    let old: Vec<(ObjectName, Vec<u8>)> =
        tip.map(|name| (name.clone(), pair.store.get(name, u64::MAX).unwrap())).collect();
    pair.laptop.fs.write("more", b"more").unwrap();
    pair.desk.fs.write("most", b"most").unwrap();
    pair.settle();
    for (name, bytes) in old {
        let now = pair.store.get(&name, u64::MAX).unwrap();
        pair.store.put(&name, &bytes).unwrap();
        let report = pair.desk.replica.verify(false, &mut Silent).unwrap();
        assert_eq!(report.faults.len(), 1, "{:?}", report.faults);
        assert_eq!(report.faults[0].object, name.as_str());
        pair.store.put(&name, &now).unwrap();
    }
    let lane: Vec<ObjectName> =
        pair.store.names().into_iter().filter(|name| name.as_str().starts_with("lanes/")).collect();
    let (first, second) = (pair.store.get(&lane[0], u64::MAX).unwrap(), pair.store.get(&lane[1], u64::MAX).unwrap());
    pair.store.put(&lane[0], &second).unwrap();
    pair.store.put(&lane[1], &first).unwrap();
    let report = pair.laptop.replica.verify(false, &mut Silent).unwrap();
    assert_eq!(report.faults.len(), 2, "{:?}", report.faults);
}

#[test]
fn checkpoints_and_their_packs_are_verified_too_and_a_device_that_began_from_one_asks_the_same() {
    let mut pair = Pair::new();
    for number in 0..70 {
        pair.pass();
        pair.laptop.fs.write("counted", format!("{number}").as_bytes()).unwrap();
        pair.laptop.sync();
    }
    pair.settle();
    let mut third = pair.third();
    third.sync();
    let checkpoint = |name: &&ObjectName| name.as_str().starts_with("checkpoints/");
    assert!(pair.store.names().iter().any(|name| checkpoint(&name)), "a checkpoint was due");
    for device in [&mut pair.laptop, &mut pair.desk, &mut third] {
        for deep in [false, true] {
            let report = device.replica.verify(deep, &mut Silent).unwrap();
            assert_eq!(report.faults, []);
            assert_eq!(report.orphans, Vec::<String>::new());
        }
    }
    let names = pair.store.names();
    let objects = names.iter().filter(|name| checkpoint(name) || name.as_str().starts_with("packs/"));
    for name in objects {
        pair.store.tamper(name, |bytes| bytes[100] ^= 1);
        for device in [&mut pair.desk, &mut third] {
            let report = device.replica.verify(true, &mut Silent).unwrap();
            assert!(report.faults.iter().any(|fault| fault.object == name.as_str()), "{name}: {:?}", report.faults);
        }
        pair.store.tamper(name, |bytes| bytes[100] ^= 1);
    }
    // What happened before the checkpoint is not in the index, and what stood then is read from the lanes.
    let log = third.replica.log(Some(&path("counted")), 100).unwrap();
    assert_eq!(log[0].text, "changed");
    let packet = third.replica.packet_named("laptop:5").unwrap();
    let mut out = Vec::new();
    third.replica.show(&path("counted"), Some(&At::Packet(packet)), &mut out).unwrap();
    assert_eq!(out, b"3");
}
