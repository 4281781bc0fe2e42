//! A malicious storage: each class of attack of docs/security.md has a test named after it.
//!
//! The laptop has published what the desk has not seen when the storage strikes. Whatever it does, the desk shows nothing
//! that nobody wrote and deletes nothing that nobody deleted; once the storage shows again what was put there, both are in
//! step and nothing is lost. It can refuse service, and nothing else.

mod support;

use std::collections::BTreeMap;

use packetboat_core::marker::Marker;
use packetboat_core::store::{ObjectName, Store};
use packetboat_engine::ports::Silent;
use packetboat_engine::replica::SyncOptions;
use packetboat_storage::memory::MemoryStore;
use support::{Device, Pair};

type Objects = BTreeMap<ObjectName, Vec<u8>>;

const IN_THE_END: [(&str, &str); 3] = [("edited", "new text"), ("moved/again", "here"), ("small", "by the desk")];

/// A vault of which the desk has seen the first half: inline contents, contents in packs, a move and a delete.
fn vault() -> Pair {
    fill(Pair::new())
}

fn fill(mut pair: Pair) -> Pair {
    pair.laptop.fs.write("edited", b"old text").unwrap();
    pair.laptop.fs.write("deleted", b"old").unwrap();
    pair.laptop.fs.make_dir("dir").unwrap();
    pair.laptop.fs.write("dir/again", b"here").unwrap();
    pair.laptop.fs.write("dir/large", &noise(1)).unwrap();
    pair.settle();
    pair.desk.fs.write("small", b"by the desk").unwrap();
    pair.settle();
    pair.pass();
    pair.laptop.fs.write("edited", b"new text").unwrap();
    pair.laptop.sync();
    pair.laptop.fs.remove("deleted").unwrap();
    pair.laptop.fs.write("larger", &noise(2)).unwrap();
    pair.laptop.sync();
    pair.laptop.fs.rename("dir", "moved").unwrap();
    pair.laptop.sync();
    pair
}

fn noise(seed: u32) -> Vec<u8> {
    (0..60_000u32).flat_map(|n| (n ^ seed).wrapping_mul(2_654_435_761).rotate_left(n % 31).to_le_bytes()).collect()
}

fn objects(store: &MemoryStore) -> Objects {
    store.names().into_iter().map(|name| (name.clone(), store.get(&name, u64::MAX).unwrap())).collect()
}

fn put_all(store: &MemoryStore, objects: &Objects) {
    for (name, bytes) in objects {
        store.put(name, bytes).unwrap();
    }
}

/// Lets the storage strike, the desk synchronise, and the storage show again what it had.
fn strike(what: &str, attack: impl Fn(&MemoryStore, &Objects)) {
    let mut pair = vault();
    let before = objects(&pair.store);
    let shown = pair.desk.files();
    attack(&pair.store, &before);
    let after = objects(&pair.store);
    assert_ne!(before, after, "{what} changes something");
    pair.pass();
    for _ in 0..2 {
        // It may be refused service; that is told as an error or as a problem.
        let _ = pair.desk.replica.sync(SyncOptions::default(), &mut Silent);
        assert_honest(what, &pair.desk, &shown);
    }
    for name in after.keys().filter(|name| !before.contains_key(name)) {
        let _ = pair.store.delete(name);
    }
    for (name, bytes) in &before {
        if after.get(name) != Some(bytes) {
            pair.store.put(name, bytes).unwrap();
        }
    }
    for _ in 0..2 {
        pair.settle();
    }
    assert_in_the_end(what, &pair);
}

fn assert_honest(what: &str, device: &Device, before: &[(String, String)]) {
    let large = [noise(1), noise(2)].map(|bytes| String::from_utf8_lossy(&bytes).into_owned());
    for (path, text) in device.files() {
        let known =
            ["old text", "new text", "old", "here", "by the desk"].contains(&text.as_str()) || large.contains(&text);
        assert!(known, "{what}: {path} holds what nobody wrote");
    }
    for (path, _) in before.iter().filter(|(path, _)| ["edited", "small"].contains(&path.as_str())) {
        assert!(device.files().iter().any(|(there, _)| there == path), "{what}: {path} was deleted by nobody");
    }
}

fn assert_in_the_end(what: &str, pair: &Pair) {
    let small = |device: &Device| -> Vec<(String, String)> {
        device.files().into_iter().filter(|(path, _)| !path.contains("large")).collect()
    };
    let expected: Vec<_> = IN_THE_END.map(|(path, text)| (path.to_owned(), text.to_owned())).into();
    assert_eq!(small(&pair.laptop), expected, "{what}: laptop");
    assert_eq!(small(&pair.desk), expected, "{what}: desk");
    for device in [&pair.laptop, &pair.desk] {
        assert_eq!(device.fs.read("moved/large").unwrap(), noise(1), "{what}");
        assert_eq!(device.fs.read("larger").unwrap(), noise(2), "{what}");
    }
}

/// The names in a folder, in order.
fn within<'a>(objects: &'a Objects, folder: &str) -> Vec<&'a ObjectName> {
    objects.keys().filter(|name| name.as_str().starts_with(folder)).collect()
}

#[test]
fn swap_any_two_objects_of_one_kind() {
    for folder in ["lanes/", "tips/", "packs/"] {
        let names: Vec<ObjectName> = within(&objects(&vault().store), folder).into_iter().cloned().collect();
        assert!(names.len() > 1, "{folder}");
        for pair in names.windows(2) {
            strike("swap", |store, before| {
                store.put(&pair[0], &before[&pair[1]]).unwrap();
                store.put(&pair[1], &before[&pair[0]]).unwrap();
            });
        }
    }
}

#[test]
fn truncate_any_object() {
    for keep in [0, 1, 2] {
        for folder in ["lanes/", "tips/", "packs/", "packetboat"] {
            strike("truncate", |store, before| {
                for name in within(before, folder) {
                    let bytes = &before[name];
                    store.put(name, &bytes[..bytes.len() * keep / 3]).unwrap();
                }
            });
        }
    }
}

#[test]
fn reorder_the_packets_of_a_lane() {
    strike("reorder", |store, before| {
        let lanes = within(before, "lanes/");
        // The lane with the most packets is the laptop's: it is told backwards.
        let lane_of = |name: &ObjectName| name.as_str().rsplit_once('/').unwrap().0.to_owned();
        let longest = lanes
            .iter()
            .map(|name| lane_of(name))
            .max_by_key(|lane| lanes.iter().filter(|name| lane_of(name) == *lane).count());
        let lane: Vec<_> = lanes.into_iter().filter(|name| Some(lane_of(name)) == longest).collect();
        for (to, from) in lane.iter().zip(lane.iter().rev()) {
            store.put(to, &before[*from]).unwrap();
        }
        without_tips_recent(store, before);
    });
}

#[test]
fn rename_objects_into_other_places() {
    strike("rename", |store, before| {
        let (lanes, tips, packs) = (within(before, "lanes/"), within(before, "tips/"), within(before, "packs/"));
        let stranger = "0123456789abcdef".repeat(4);
        for (at, name) in lanes.iter().enumerate() {
            store.put(&named(&format!("lanes/{stranger}/{}", at + 1)), &before[*name]).unwrap();
        }
        store.put(&named(&format!("tips/{stranger}")), &before[tips[0]]).unwrap();
        store.put(tips[1], &before[packs[0]]).unwrap();
        store.put(packs[0], &before[lanes[0]]).unwrap();
    });
}

#[test]
fn inject_objects_of_another_vault_or_of_nobody() {
    // Another vault with the same passphrase and the same names.
    let mut other = fill(Pair::seeded(500));
    other.laptop.fs.write("injected", b"by another vault").unwrap();
    other.settle();
    let foreign = objects(&other.store);
    strike("inject", |store, _| {
        put_all(store, &foreign.iter().filter(|(name, _)| name.as_str() != "packetboat").map(cloned).collect());
    });
    strike("inject in place", |store, before| {
        for folder in ["lanes/", "tips/", "packs/"] {
            for (name, from) in within(before, folder).into_iter().zip(within(&foreign, folder)) {
                store.put(name, &foreign[from]).unwrap();
            }
        }
    });
    strike("inject noise", |store, before| {
        for (at, name) in within(before, "").into_iter().enumerate() {
            let mut bytes = before[name].clone();
            for byte in bytes.iter_mut().skip(6 + at % 90) {
                *byte = byte.wrapping_mul(31).wrapping_add(7);
            }
            store.put(name, &bytes).unwrap();
        }
    });
}

#[test]
fn roll_back_the_whole_storage() {
    let mut pair = vault();
    let early = objects(&pair.store);
    for _ in 0..2 {
        pair.settle();
    }
    pair.laptop.fs.write("since", b"new text").unwrap();
    pair.settle();
    let files = pair.desk.files();
    let known: Vec<ObjectName> = pair.store.names();
    for name in known.iter().filter(|name| !early.contains_key(name)) {
        pair.store.delete(name).unwrap();
    }
    put_all(&pair.store, &early);
    pair.pass();
    let report = pair.desk.sync();
    assert!(!report.rolled_back.is_empty(), "the older tips are noticed");
    assert_eq!(pair.desk.files(), files, "and nothing is taken back for them");
    for _ in 0..2 {
        pair.settle();
    }
    assert_eq!(pair.desk.files(), files);
    assert_eq!(pair.laptop.files(), files);
    // What was rolled back was put again: whoever joins now learns all of it.
    let mut third = pair.third();
    third.sync();
    assert_eq!(third.files(), files);
}

#[test]
fn roll_back_one_lane() {
    let mut pair = vault();
    let laptop = pair.laptop.id().to_string();
    let early = objects(&pair.store);
    for _ in 0..2 {
        pair.settle();
    }
    pair.laptop.fs.write("since", b"new text").unwrap();
    pair.settle();
    let files = pair.desk.files();
    let of_laptop = |name: &ObjectName| name.as_str().contains(&laptop);
    for name in pair.store.names().iter().filter(|name| of_laptop(name) && !early.contains_key(name)) {
        pair.store.delete(name).unwrap();
    }
    put_all(&pair.store, &early.into_iter().filter(|(name, _)| of_laptop(name)).collect());
    pair.pass();
    let report = pair.desk.sync();
    assert_eq!(report.rolled_back.iter().map(ToString::to_string).collect::<Vec<_>>(), [laptop]);
    assert_eq!(pair.desk.files(), files);
    pair.settle();
    let mut third = pair.third();
    third.sync();
    assert_eq!(third.files(), files, "the laptop put its lane again");
}

#[test]
fn fork_the_history_that_two_devices_are_shown() {
    let mut pair = vault();
    for _ in 0..2 {
        pair.settle();
    }
    // From now on each is shown a storage of its own.
    let (place, aside) = (pair.store.clone(), MemoryStore::new());
    put_all(&aside, &objects(&place));
    let desk = pair.take_desk();
    let mut desk = pair.moved(desk, &aside, "memory");
    pair.laptop.fs.write("small", b"new text").unwrap();
    desk.fs.write("edited", b"old").unwrap();
    pair.laptop.sync();
    desk.sync();
    let state = |device: &mut Device| device.replica.status().unwrap().state;
    assert_ne!(state(&mut pair.laptop), state(&mut desk), "people who compare see it");
    // Once either history reaches the other, both are in step and keep both.
    put_all(
        &place,
        &objects(&aside)
            .into_iter()
            .filter(|(name, _)| name.as_str() != "packetboat")
            .filter(|(name, _)| name.as_str().contains(&desk.id().to_string()) || name.as_str().starts_with("packs/"))
            .collect(),
    );
    pair.desk = pair.moved(desk, &place, "memory");
    for _ in 0..2 {
        pair.settle();
    }
    assert_eq!(pair.laptop.files(), pair.desk.files());
    assert_eq!(pair.laptop.fs.read("small").unwrap(), b"new text");
    assert_eq!(pair.laptop.fs.read("edited").unwrap(), b"old");
    assert_eq!(state(&mut pair.laptop), state(&mut pair.desk));
}

#[test]
fn withhold_objects_of_each_kind() {
    for folder in ["lanes/", "tips/", "packs/", "packetboat"] {
        strike("withhold", |store, before| {
            for name in within(before, folder) {
                store.delete(name).unwrap();
            }
        });
    }
}

#[test]
fn key_slot_tampering_opens_nothing_and_costs_members_nothing() {
    let bytes = vault().store.get(&named("packetboat"), u64::MAX).unwrap();
    for at in (0..bytes.len()).step_by(3) {
        let mut tampered = bytes.clone();
        tampered[at] ^= 1;
        // With its closing hash made to fit, as whoever keeps the marker can.
        let len = tampered.len();
        let hash = blake3::derive_key("packetboat 2026 marker", &tampered[..len - 32]);
        tampered[len - 32..].copy_from_slice(&hash);
        if at >= len - 32 {
            continue;
        }
        let is_recovery_slot = (len - 32 - 108..len - 32).contains(&at);
        let opened = Marker::decode(&tampered).ok().and_then(|marker| marker.unlock_with_passphrase(b"secret").ok());
        assert_eq!(opened.is_some(), is_recovery_slot, "byte {at}");
    }
    strike("key-slot tampering", |store, before| {
        let mut tampered = before[&named("packetboat")].clone();
        tampered[60] ^= 1;
        store.put(&named("packetboat"), &tampered).unwrap();
    });
}

#[test]
fn downgrade_or_upgrade_the_version_of_anything() {
    for version in [0u16, 2, 0xffff] {
        strike("downgrade", |store, before| {
            for (name, bytes) in before {
                let mut bytes = bytes.clone();
                bytes[4..6].copy_from_slice(&version.to_le_bytes());
                store.put(name, &bytes).unwrap();
            }
        });
    }
    // An epoch in the clear that is another than the one it was sealed in.
    strike("another epoch", |store, before| {
        for name in within(before, "lanes/").into_iter().chain(within(before, "tips/")) {
            let mut bytes = before[name].clone();
            bytes[62..66].copy_from_slice(&7u32.to_le_bytes());
            store.put(name, &bytes).unwrap();
        }
    });
}

#[test]
fn oversized_everything_is_refused_before_it_is_read() {
    strike("oversized", |store, before| {
        for (name, bytes) in before {
            let limit = match name.as_str().split('/').next() {
                Some("tips") => 1024 * 1024,
                Some("lanes") => 16 * 1024 * 1024,
                _ => 64 * 1024 * 1024,
            };
            let mut bytes = bytes.clone();
            bytes.resize(limit + 1, 0);
            store.put(name, &bytes).unwrap();
        }
    });
}

#[test]
fn no_name_no_content_and_no_key_is_at_rest_in_the_clear() {
    let mut pair = Pair::new();
    let canaries: [&[u8]; 4] = [b"canary-name", b"canary-content", b"canary-device", b"canary-target"];
    pair.laptop.replica.rename_device("canary-device").unwrap();
    pair.laptop.fs.write("canary-name", &b"canary-content ".repeat(20)).unwrap();
    pair.laptop.fs.make_dir("canary-name.d").unwrap();
    pair.laptop.fs.write("canary-name.d/large", &b"canary-content".repeat(100_000)).unwrap();
    pair.laptop.fs.make_symlink(b"canary-target", "canary-name.l").unwrap();
    pair.settle();
    let keys = pair.laptop.replica.index().meta("keys").unwrap().unwrap();
    // Vault 16 | seed 32 | epoch | root key 32.
    let (seed, root) = (keys[16..48].to_vec(), keys[49..81].to_vec());
    let third = pair.joined(9, "canary-device too", b"secret");
    pair.laptop.replica.revoke(&pair.desk.id(), b"another passphrase", &mut Silent).unwrap();
    pair.laptop.sync();
    let renewed = pair.laptop.replica.index().meta("keys").unwrap().unwrap();
    let later = renewed[82..114].to_vec();
    drop(third);
    let secrets: Vec<&[u8]> =
        canaries.into_iter().chain([&seed[..], &root[..], &later[..], b"another passphrase"]).collect();
    for (name, bytes) in objects(&pair.store) {
        for secret in &secrets {
            let found = bytes.windows(secret.len()).any(|window| window == *secret);
            assert!(!found, "{name} shows {:?}", String::from_utf8_lossy(secret));
            assert!(!name.as_str().as_bytes().windows(secret.len()).any(|window| window == *secret), "{name}");
        }
    }
    // Nor does the folder hold a key, in what Packetboat keeps there.
    for (path, node) in pair.laptop.fs.tree() {
        if let (true, packetboat_testkit::sim_fs::Node::File { bytes, .. }) = (path.starts_with(b".packetboat"), node) {
            for key in [&seed, &root, &later] {
                assert!(
                    !bytes.windows(32).any(|window| window == key.as_slice()),
                    "{}",
                    String::from_utf8_lossy(&path)
                );
            }
        }
    }
}

/// Takes the packets out of the tips' reach: whoever reads a tip has to read the lane.
fn without_tips_recent(store: &MemoryStore, before: &Objects) {
    for name in within(before, "tips/") {
        let _ = store.delete(name);
    }
}

fn named(name: &str) -> ObjectName {
    ObjectName::new(name).unwrap()
}

fn cloned((name, bytes): (&ObjectName, &Vec<u8>)) -> (ObjectName, Vec<u8>) {
    (name.clone(), bytes.clone())
}
