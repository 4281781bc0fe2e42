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
    assert!(gone.stdout.contains("the vault is not there"), "{}", gone.seen);
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
