//! `packetboat log`.

mod common;

use std::fs;

use common::World;
use insta::assert_snapshot;

fn world_with_history() -> World {
    let world = World::with_two_devices();
    world.write("work/a.txt", "alpha, edited\n");
    world.sync("desktop", "work");
    world.sync("laptop", "docs");
    fs::rename(world.path("docs/a.txt"), world.path("docs/z.txt")).unwrap();
    fs::remove_file(world.path("docs/sub/b.txt")).unwrap();
    world.sync("laptop", "docs");
    world
}

#[test]
fn a_path_has_a_history_under_its_present_name() {
    let world = world_with_history();
    let ran = world.packetboat("laptop", &["log", "../z.txt"]).within("docs/sub").succeeds();
    assert_snapshot!(ran.seen);
}

#[test]
fn a_deleted_file_has_a_history() {
    let world = world_with_history();
    let ran = world.packetboat("laptop", &["log", "sub/b.txt", "--folder", "docs"]).succeeds();
    assert_snapshot!(ran.seen);
}

#[test]
fn the_vault_has_a_history_and_json_has_it_too() {
    let world = world_with_history();
    let ran = world.packetboat("laptop", &["log"]).within("docs").succeeds();
    let json = world.packetboat("laptop", &["log", "--json"]).within("docs").succeeds().json();
    let entries = json["entries"].as_array().unwrap();
    assert_eq!(entries.len(), ran.stdout.lines().count());
    assert!(entries.iter().all(|entry| entry["packet"].is_string() && entry["time"].is_string()));
    let one = world.packetboat("laptop", &["log", "-n", "1"]).within("docs").succeeds();
    assert_eq!(one.stdout.lines().count(), 1);
    assert_snapshot!(ran.seen);
}

#[test]
fn paths_that_never_were_or_lie_outside_are_errors() {
    let world = World::with_vault();
    let never = world.packetboat("laptop", &["log", "never.txt"]).within("docs").fails();
    let outside = world.packetboat("laptop", &["log", "../stick"]).within("docs").fails();
    let own = world.packetboat("laptop", &["log", ".packetboat/replica"]).within("docs").fails();
    assert_snapshot!(never.seen + &outside.seen + &own.seen);
}

/// Lets all but what stands go on both devices, as far as `z.txt` was made and edited before and edited once since.
fn world_with_history_let_go() -> World {
    let world = world_with_history();
    let in_step = || {
        world.sync("desktop", "work");
        world.sync("laptop", "docs");
    };
    in_step();
    std::thread::sleep(std::time::Duration::from_millis(1100));
    world.write("docs/z.txt", "two\n");
    world.sync("laptop", "docs");
    in_step();
    std::thread::sleep(std::time::Duration::from_millis(1100));
    world.packetboat("laptop", &["prune", "--keep", "0d", "docs"]).succeeds();
    in_step();
    world.packetboat("laptop", &["prune", "docs"]).succeeds();
    in_step();
    world
}

#[test]
fn what_was_let_go_has_no_date_and_is_not_said_to_be_made_then() {
    let world = world_with_history_let_go();
    world.sync("late", "late");
    for (device, folder) in [("laptop", "docs"), ("late", "late")] {
        for command in [&["log", "z.txt"][..], &["log"], &["devices"], &["status"]] {
            let seen = world.packetboat(device, command).within(folder).succeeds();
            assert!(!seen.stdout.contains("1970") && !seen.stdout.contains("0 days ago"), "{}", seen.seen);
        }
        let log = world.packetboat(device, &["log", "z.txt"]).within(folder).succeeds();
        let told = ["created", "renamed", "permissions"].iter().any(|text| log.stdout.contains(text));
        assert!(!told && log.stdout.contains("  -  "), "{}", log.seen);
        let json = world.packetboat(device, &["log", "z.txt", "--json"]).within(folder).succeeds().json();
        let entries = json["entries"].as_array().unwrap();
        assert_eq!((entries.len(), &entries[1]["time"]), (2, &serde_json::Value::Null));
    }
    let log = world.packetboat("laptop", &["log", "z.txt"]).within("docs").succeeds();
    assert_snapshot!(log.seen);
}

#[test]
fn a_deleted_file_that_came_back_was_not_renamed() {
    let world = world_with_history();
    world.packetboat("laptop", &["undo"]).within("docs").succeeds();
    let log = world.packetboat("laptop", &["log", "sub/b.txt"]).within("docs").succeeds();
    assert!(log.stdout.contains("  brought back  ") && !log.stdout.contains("renamed"), "{}", log.seen);
}

#[test]
fn a_device_that_was_heard_of_before_history_begins_is_heard_of_at_no_date() {
    let world = World::with_two_devices();
    world.sync("laptop", "docs");
    for turn in 0..2 {
        world.write("docs/a.txt", &format!("alpha {turn}\n"));
        world.sync("laptop", "docs");
        std::thread::sleep(std::time::Duration::from_millis(1100));
    }
    world.sync("desktop", "work");
    world.packetboat("laptop", &["prune", "--keep", "0d", "docs"]).succeeds();
    world.sync("desktop", "work");
    world.packetboat("laptop", &["prune", "docs"]).succeeds();
    world.sync("laptop", "docs");
    world.sync("late", "late");
    for command in ["devices", "status"] {
        let seen = world.packetboat("late", &[command]).within("late").succeeds();
        assert!(seen.stdout.contains(" at an unknown time"), "{}", seen.seen);
    }
    let json = world.packetboat("late", &["devices", "--json"]).within("late").succeeds().json();
    let desktop = json["devices"].as_array().unwrap().iter().find(|device| device["name"] == "desktop").unwrap();
    assert_eq!(desktop["last_heard"], serde_json::Value::Null);
}
