//! `packetboat verify`.

mod common;

use std::fs;

use common::World;
use insta::assert_snapshot;

fn world_with_pack() -> World {
    let world = World::new();
    // Incompressible and larger than what travels inside a packet.
    let mut state = 1u64;
    let bytes: Vec<u8> = (0..200_000)
        .map(|_| {
            state = state.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
            (state >> 33) as u8
        })
        .collect();
    fs::create_dir(world.path("docs")).unwrap();
    fs::write(world.path("docs/large.bin"), bytes).unwrap();
    world.sync("laptop", "docs");
    world
}

#[test]
fn a_sound_vault_is_in_order() {
    let world = world_with_pack();
    let quick = world.packetboat("laptop", &["verify"]).within("docs").succeeds();
    let deep = world.packetboat("laptop", &["verify", "--deep"]).within("docs").succeeds();
    assert_snapshot!(quick.seen + &deep.seen);
}

#[test]
fn damage_is_found_and_named() {
    let world = world_with_pack();
    let folder = fs::read_dir(world.path("stick/vault/packs")).unwrap().next().unwrap().unwrap().path();
    let pack = fs::read_dir(folder).unwrap().next().unwrap().unwrap().path();
    let mut bytes = fs::read(&pack).unwrap();
    let middle = bytes.len() / 2;
    bytes[middle] ^= 1;
    fs::write(&pack, bytes).unwrap();
    let deep = world.packetboat("laptop", &["verify", "--deep"]).within("docs").fails();
    assert!(deep.stdout.contains("large.bin"), "{}", deep.seen);
    let json = world.packetboat("laptop", &["verify", "--deep", "--json"]).within("docs").run().json();
    assert_eq!(json["faults"][0]["paths"][0]["path"], "large.bin");
    fs::remove_file(&pack).unwrap();
    let missing = world.packetboat("laptop", &["verify"]).within("docs").fails();
    assert!(missing.stdout.contains("large.bin"), "{}", missing.seen);
}
