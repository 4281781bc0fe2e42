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
