//! `packetboat repair`, and what other devices put back unasked.

mod common;

use std::fs;
use std::path::PathBuf;

use common::World;

/// Incompressible, and larger than what travels inside a packet.
fn noise(seed: u64) -> Vec<u8> {
    let mut state = seed;
    let mut next = || {
        state = state.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        (state >> 33) as u8
    };
    (0..400_000).map(|_| next()).collect()
}

fn packs(world: &World) -> Vec<PathBuf> {
    let folders = fs::read_dir(world.path("stick/vault/packs")).unwrap();
    folders.flat_map(|folder| fs::read_dir(folder.unwrap().path()).unwrap()).map(|pack| pack.unwrap().path()).collect()
}

fn world_with_packs() -> World {
    let world = World::with_two_devices();
    fs::write(world.path("docs/large.bin"), noise(1)).unwrap();
    world.sync("laptop", "docs");
    world.sync("desktop", "work");
    world
}

#[test]
fn a_lost_pack_is_put_back_from_the_folder() {
    let world = world_with_packs();
    packs(&world).iter().for_each(|pack| fs::remove_file(pack).unwrap());
    let verified = world.packetboat("laptop", &["verify"]).within("docs").fails();
    assert!(verified.stdout.contains("this device can put it back"), "{}", verified.seen);
    let repaired = world.packetboat("laptop", &["repair"]).within("docs").succeeds();
    assert!(repaired.stdout.contains("Everything is in order again."), "{}", repaired.seen);
    let again = world.packetboat("laptop", &["repair", "--json"]).within("docs").succeeds().json();
    assert_eq!(again["found"].as_array().unwrap().len(), 0);
    world.packetboat("third", &["sync", "third", "stick/vault", "--name", "third"]).succeeds();
    assert_eq!(fs::read(world.path("third/large.bin")).unwrap(), noise(1));
}

#[test]
fn what_another_device_holds_is_asked_for_and_put_back_there_unasked() {
    let world = World::with_two_devices();
    fs::write(world.path("docs/large.bin"), noise(1)).unwrap();
    world.sync("laptop", "docs");
    packs(&world).iter().for_each(|pack| fs::remove_file(pack).unwrap());
    // The desktop joined this round too late: it never had the content.
    let asked = world.packetboat("desktop", &["repair"]).within("work").fails();
    assert!(asked.stdout.contains("\"laptop\" can put it back"), "{}", asked.seen);
    assert!(asked.stdout.contains("large.bin"), "{}", asked.seen);
    let put_back = world.sync("laptop", "docs");
    assert!(put_back.stdout.contains("put back   "), "{}", put_back.seen);
    world.sync("desktop", "work");
    assert_eq!(fs::read(world.path("work/large.bin")).unwrap(), noise(1));
    world.packetboat("desktop", &["verify", "--deep"]).within("work").succeeds();
}

#[test]
fn with_nothing_to_repair_from_the_cause_and_the_versions_are_told() {
    let world = World::with_vault();
    fs::write(world.path("docs/large.bin"), noise(1)).unwrap();
    world.sync("laptop", "docs");
    fs::write(world.path("docs/large.bin"), noise(2)).unwrap();
    let first = packs(&world);
    world.sync("laptop", "docs");
    first.iter().for_each(|pack| fs::remove_file(pack).unwrap());
    let lost = world.packetboat("laptop", &["repair"]).within("docs").run();
    assert_eq!(lost.code, 1, "{}", lost.seen);
    assert!(lost.stdout.contains("  large.bin as of "), "{}", lost.seen);
    assert!(lost.stderr.contains("Caused by: ") && lost.stderr.contains("Hint: "), "{}", lost.seen);
}
