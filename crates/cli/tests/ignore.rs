//! `packetboat ignore`.

mod common;

use common::World;
use insta::assert_snapshot;

#[test]
fn patterns_of_this_device_are_added_obeyed_and_taken_back() {
    let world = World::with_vault();
    world.write("docs/.packetboatignore", "# comment\n*.o\n");
    let added = world.packetboat("laptop", &["ignore", "/build/", "!keep.o"]).within("docs").succeeds();
    world.write("docs/build/x", "x\n");
    world.write("docs/lost.o", "o\n");
    world.write("docs/keep.o", "o\n");
    world.sync("laptop", "docs");
    world.sync("desktop", "work");
    assert_eq!(world.names("work"), [".packetboatignore", "a.txt", "keep.o", "sub"]);
    let removed = world.packetboat("laptop", &["ignore", "--remove", "/build/"]).within("docs").succeeds();
    world.sync("laptop", "docs");
    world.sync("desktop", "work");
    assert!(world.exists("work/build/x"));
    assert_snapshot!(added.seen + &removed.seen);
}

#[test]
fn what_is_no_pattern_changes_nothing() {
    let world = World::with_vault();
    let bad = world.packetboat("laptop", &["ignore", "good", "a{b"]).within("docs").fails();
    let unknown = world.packetboat("laptop", &["ignore", "--remove", "good"]).within("docs").fails();
    let json = world.packetboat("laptop", &["ignore", "--json"]).within("docs").succeeds().json();
    assert_eq!(json["device"], serde_json::json!([]));
    assert_snapshot!(bad.seen + &unknown.seen);
}
