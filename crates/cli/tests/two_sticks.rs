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

/// Story: a past version lay on the first stick alone, since nobody's disk had it any more when its packets came to the second.
/// There it was said to be lost and beyond repair until `prune` let it go, which lets nothing go at two places.
#[test]
fn a_past_version_that_lies_on_the_other_stick_is_not_said_to_be_lost() {
    let alone = World::new();
    alone.write("docs/a.txt", "a\n");
    alone.sync("laptop", "docs");
    fs::create_dir_all(alone.path("other")).unwrap();
    copy_all(&alone.path("stick/vault"), &alone.path("other/vault"));
    for world in [alone, two_sticks()] {
        for version in 1..=2u64 {
            // Too large to travel inside a packet, and of no pattern.
            let noise = (0..60_000u64).map(|n| (n + version).wrapping_mul(0x9e37_79b9_7f4a_7c15).rotate_left(17));
            let large: String = noise.map(|word| format!("{word:x}")).collect();
            world.write("docs/large.txt", &large);
            sync_at(&world, "laptop", "docs", "stick/vault");
        }
        sync_at(&world, "laptop", "docs", "other/vault");
        for command in ["verify", "repair"] {
            let seen = world.packetboat("laptop", &[command, "docs"]).without_passphrase().fails().seen;
            assert!(seen.contains("large.txt as of ") && seen.contains("another place of the vault"), "{seen}");
            for wrong in ["beyond repair", "are lost", "let them go"] {
                assert!(!seen.contains(wrong), "{wrong}: {seen}");
            }
        }
        let doctor = world.packetboat("laptop", &["doctor", "docs"]).without_passphrase().fails().seen;
        assert!(doctor.contains("another place of the vault"), "{doctor}");
        // It does lie there.
        sync_at(&world, "laptop", "docs", "stick/vault");
        let seen = world.packetboat("laptop", &["verify", "docs", "--deep"]).without_passphrase().succeeds().seen;
        assert!(seen.contains("all in order"), "{seen}");
    }
}
