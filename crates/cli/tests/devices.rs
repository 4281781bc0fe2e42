//! `packetboat devices`.

mod common;

use common::World;
use insta::assert_snapshot;

#[test]
fn devices_are_listed_and_renamed() {
    let world = World::with_two_devices();
    world.sync("laptop", "docs");
    let before = world.packetboat("laptop", &["devices"]).within("docs").succeeds();
    let renamed = world.packetboat("laptop", &["devices", "rename", "old laptop"]).within("docs").succeeds();
    world.packetboat("laptop", &["sync"]).within("docs").succeeds();
    world.sync("desktop", "work");
    let after = world.packetboat("desktop", &["devices", "list"]).within("work").succeeds();
    assert_snapshot!(before.seen + &renamed.seen + &after.seen);
}

#[test]
fn json_says_which_is_this() {
    let world = World::with_two_devices();
    let json = world.packetboat("desktop", &["devices", "--json"]).within("work").succeeds().json();
    let devices = json["devices"].as_array().unwrap();
    let this: Vec<_> = devices.iter().filter(|device| device["this"] == true).collect();
    assert_eq!(this.len(), 1);
    assert_eq!(this[0]["name"], "desktop");
    assert!(devices.iter().all(|device| device["last_heard"].as_str().unwrap().ends_with('Z')));
}

#[test]
fn a_name_must_be_a_name() {
    let world = World::with_vault();
    let empty = world.packetboat("laptop", &["devices", "rename", " "]).within("docs").fails();
    assert_snapshot!(empty.seen);
}
