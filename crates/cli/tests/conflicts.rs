//! `packetboat conflicts`.

mod common;

use common::World;
use insta::assert_snapshot;

#[test]
fn conflicts_are_listed_the_same_on_both_devices() {
    let world = World::with_conflict();
    let laptop = world.packetboat("laptop", &["conflicts"]).within("docs").succeeds();
    let desktop = world.packetboat("desktop", &["conflicts"]).within("work").succeeds();
    assert_eq!(world.names("docs"), world.names("work"));
    assert_snapshot!(laptop.seen);
    let json = |device: &str, folder: &str| {
        world.packetboat(device, &["conflicts", "--json"]).within(folder).succeeds().json()["conflicts"][0].clone()
    };
    let (laptop, other) = (json("laptop", "docs"), json("desktop", "work"));
    assert_eq!(laptop["path"], other["path"]);
    assert_eq!(laptop["sides"][1]["path"], other["sides"][1]["path"]);
    assert_ne!(laptop["sides"][0]["mine"], other["sides"][0]["mine"]);
    assert!(desktop.stdout.contains("desktop (this device)"), "{}", desktop.seen);
}

#[test]
fn no_conflicts_are_said_to_be_none() {
    let world = World::with_vault();
    let ran = world.packetboat("laptop", &["conflicts"]).within("docs").succeeds();
    assert_snapshot!(ran.stdout, @"No conflicts.");
}
