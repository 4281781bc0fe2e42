//! `packetboat status`.

mod common;

use std::fs;

use common::World;
use insta::assert_snapshot;

#[test]
fn status_says_what_waits_and_who_is_there() {
    let world = World::with_two_devices();
    world.sync("laptop", "docs");
    let in_step = world.packetboat("laptop", &["status"]).within("docs/sub").succeeds();
    world.write("docs/new.txt", "new\n");
    world.write("work/other.txt", "other\n");
    world.sync("desktop", "work");
    let behind = world.packetboat("laptop", &["status", "--folder", "docs"]).succeeds();
    assert_snapshot!(in_step.seen + &behind.seen);
}

#[test]
fn the_state_number_is_equal_where_the_same_was_learned() {
    let world = World::with_two_devices();
    world.sync("laptop", "docs");
    let state = |device: &str, folder: &str| {
        world.packetboat(device, &["status", "--json", "--folder", folder]).succeeds().json()["state"].clone()
    };
    assert!(state("laptop", "docs").is_string());
    assert_eq!(state("laptop", "docs"), state("desktop", "work"));
    world.write("work/x", "x");
    world.sync("desktop", "work");
    let ahead = state("desktop", "work");
    world.sync("laptop", "docs");
    assert_eq!(state("laptop", "docs"), ahead);
}

#[test]
fn an_unreachable_intermediary_is_no_error() {
    let world = World::with_vault();
    fs::rename(world.path("stick/vault"), world.path("aside")).unwrap();
    let gone = world.packetboat("laptop", &["status", "--folder", "docs"]).succeeds();
    fs::create_dir(world.path("stick/vault")).unwrap();
    let empty = world.packetboat("laptop", &["status", "--folder", "docs", "--json"]).succeeds();
    assert_eq!(empty.json()["reachable"], false);
    assert_eq!(empty.json()["in_step"], false);
    assert!(gone.stdout.contains("The intermediary cannot be reached"), "{}", gone.seen);
    assert!(gone.stdout.contains("the vault is not at "), "{}", gone.seen);
    assert!(gone.stdout.contains("Last in step"), "{}", gone.seen);
}

#[test]
fn what_cannot_be_synchronised_is_listed_with_its_reason() {
    let world = World::with_vault();
    let socket = std::os::unix::net::UnixListener::bind(world.path("docs/socket")).unwrap();
    let ran = world.packetboat("laptop", &["status", "--folder", "docs"]).succeeds();
    drop(socket);
    assert!(ran.stdout.contains("socket"), "{}", ran.seen);
    assert_snapshot!(ran.seen);
}

#[test]
fn commands_that_are_about_a_folder_alone_take_it_as_sync_does() {
    let world = World::with_vault();
    for command in ["status", "conflicts", "verify"] {
        let named = world.packetboat("laptop", &[command, "docs"]).succeeds();
        let option = world.packetboat("laptop", &[command, "--folder", "docs"]).succeeds();
        assert_eq!(named.stdout, option.stdout, "{command}");
        assert_eq!(world.packetboat("laptop", &[command, "docs", "--folder", "docs"]).run().code, 2, "{command}");
    }
}

#[test]
fn devices_of_one_name_are_told_apart() {
    let world = World::with_vault();
    world.packetboat("desktop", &["sync", "work", "stick/vault", "--name", "laptop"]).succeeds();
    world.sync("laptop", "docs");
    let ran = world.packetboat("laptop", &["status", "docs"]).succeeds();
    let json = world.packetboat("laptop", &["status", "docs", "--json"]).succeeds().json();
    for device in json["devices"].as_array().unwrap() {
        let id = &device["device"].as_str().unwrap()[..8];
        assert!(ran.stdout.contains(&format!("  laptop ({id})")), "{id}: {}", ran.stdout);
    }
}

#[test]
fn what_stops_the_next_round_and_what_is_damaged_is_said() {
    let world = World::with_two_devices();
    for at in 0..30 {
        world.write(&format!("docs/many/{at}"), &at.to_string());
    }
    world.sync("laptop", "docs");
    fs::remove_dir_all(world.path("docs/many")).unwrap();
    fs::remove_file(world.path("stick/vault/packetboat")).unwrap();
    let braked = world.packetboat("laptop", &["status", "docs"]).succeeds();
    assert!(braked.stdout.contains("31 of 34 files are gone"), "{}", braked.seen);
    assert!(braked.stdout.contains("--confirm-deletes"), "{}", braked.seen);
    assert!(braked.stdout.contains("puts back the copy that this device keeps"), "{}", braked.seen);
    let json = world.packetboat("laptop", &["status", "docs", "--json"]).succeeds().json();
    assert_eq!((&json["deletes_to_confirm"], &json["marker_lost"]), (&31.into(), &true.into()));
    let doctor = world.packetboat("laptop", &["doctor", "docs"]).run();
    assert!(doctor.stdout.contains("31 of 34 files are gone"), "{}", doctor.seen);
    assert!(!braked.stdout.contains("packetboat repair"), "{}", braked.seen);
}

#[test]
fn damage_that_was_found_is_told_until_it_is_made_good() {
    let world = World::with_two_devices();
    let large: String = (0..120_000u32).map(|at| format!("{:x}", at.wrapping_mul(2_654_435_761) >> 3)).collect();
    world.write("docs/large", &large);
    world.sync("laptop", "docs");
    world.sync("desktop", "work");
    for shelf in fs::read_dir(world.path("stick/vault/packs")).unwrap() {
        fs::remove_dir_all(shelf.unwrap().path()).unwrap();
    }
    let verified = world.packetboat("laptop", &["verify", "docs"]).fails();
    assert!(verified.stdout.lines().any(|line| line.starts_with("  large")), "{}", verified.seen);
    let told = world.packetboat("laptop", &["status", "docs"]).succeeds();
    assert!(told.stdout.contains("missing or damaged: run `packetboat repair`"), "{}", told.seen);
    world.packetboat("laptop", &["repair", "docs"]).succeeds();
    let told = world.packetboat("laptop", &["status", "docs"]).succeeds();
    assert!(!told.stdout.contains("packetboat repair"), "{}", told.seen);
}

#[test]
fn a_vault_that_is_not_there_is_told_in_the_same_words_by_every_command() {
    let world = World::with_vault();
    fs::rename(world.path("stick/vault"), world.path("aside")).unwrap();
    let said = format!("the vault is not at {}", world.path("stick/vault").display());
    for command in [&["sync"][..], &["verify"], &["prune"], &["repair"], &["undo"], &["key", "recovery"]] {
        let ran = world.packetboat("laptop", command).within("docs").fails();
        assert!(ran.stderr.starts_with(&format!("Error: {said}\nHint: is the stick")), "{}", ran.seen);
    }
    for command in ["status", "doctor"] {
        let ran = world.packetboat("laptop", &[command]).within("docs").run();
        assert!(ran.stdout.contains(&format!("cannot be reached: {said}")), "{}", ran.seen);
    }
}
