//! One vault on two sticks: whoever uses both brings each what the other has.

mod common;

use std::fs;

use common::{World, copy_all};

/// A laptop that uses both sticks, and a desktop that has joined and uses the second from now on.
fn two_sticks() -> World {
    let world = World::with_two_devices();
    fs::create_dir_all(world.path("other")).unwrap();
    copy_all(&world.path("stick/vault"), &world.path("other/vault"));
    world
}

fn sync_at(world: &World, device: &str, folder: &str, stick: &str) {
    world.packetboat(device, &["sync", folder, stick]).without_passphrase().succeeds();
}

#[test]
fn what_is_written_for_one_stick_comes_by_the_other_once_somebody_has_used_both() {
    let world = two_sticks();
    world.write("docs/first.txt", "by the first stick\n");
    // Too large to travel inside a packet, and of no pattern.
    let large: String = (0..60_000u64).map(|n| format!("{:x}", n.wrapping_mul(0x9e37_79b9_7f4a_7c15))).collect();
    world.write("docs/large.txt", &large);
    sync_at(&world, "laptop", "docs", "stick/vault");
    world.write("work/second.txt", "by the second stick\n");
    sync_at(&world, "desktop", "work", "other/vault");
    sync_at(&world, "laptop", "docs", "other/vault");
    sync_at(&world, "laptop", "docs", "stick/vault");
    sync_at(&world, "desktop", "work", "other/vault");
    assert_eq!(world.read("docs/second.txt"), "by the second stick\n");
    assert_eq!(world.read("work/first.txt"), "by the first stick\n");
    assert_eq!(world.read("work/large.txt"), large);
    // Nor is a tip missed that nobody brought: the desktop has not been at the first stick since.
    for (device, folder) in [("laptop", "docs"), ("desktop", "work")] {
        let seen = world.packetboat(device, &["verify", folder, "--deep"]).succeeds().seen;
        assert!(seen.contains("all in order"), "{seen}");
    }
}

#[test]
fn letting_go_says_plainly_that_a_vault_on_two_sticks_is_left_whole() {
    let world = two_sticks();
    for text in ["one\n", "two\n"] {
        world.write("docs/a.txt", text);
        sync_at(&world, "laptop", "docs", "stick/vault");
        world.write("work/b.txt", text);
        sync_at(&world, "desktop", "work", "other/vault");
        sync_at(&world, "laptop", "docs", "other/vault");
        sync_at(&world, "laptop", "docs", "stick/vault");
    }
    let said = world.packetboat("laptop", &["prune", "--keep", "0d", "docs"]).without_passphrase().succeeds();
    assert!(said.seen.contains("two places"), "{}", said.seen);
}
