//! `packetboat show`.

mod common;

use std::fs;

use common::World;
use insta::assert_snapshot;

#[test]
fn earlier_content_is_shown_by_packet_and_by_time() {
    let world = World::with_vault();
    std::thread::sleep(std::time::Duration::from_millis(1100));
    world.write("docs/a.txt", "alpha, edited\n");
    world.sync("laptop", "docs");
    let show = |arguments: &[&str]| {
        let arguments: Vec<_> = ["show", "a.txt"].iter().chain(arguments).copied().collect();
        world.packetboat("laptop", &arguments).within("docs").succeeds().stdout
    };
    assert_eq!(show(&[]), "alpha, edited\n");
    assert_eq!(show(&["--at", "now"]), "alpha, edited\n");
    assert_eq!(show(&["--at", "1 second ago"]), "alpha\n");
    let json = world.packetboat("laptop", &["log", "a.txt", "--json"]).within("docs").succeeds().json();
    let oldest = json["entries"].as_array().unwrap().last().unwrap()["packet"].as_str().unwrap().to_owned();
    assert_eq!(show(&["--at", &oldest]), "alpha\n");
    let counter = oldest.rsplit_once(':').unwrap().1;
    assert_eq!(show(&["--at", &format!("laptop:{counter}")]), "alpha\n");
    fs::remove_file(world.path("docs/a.txt")).unwrap();
    world.sync("laptop", "docs");
    assert_eq!(show(&["--at", &oldest]), "alpha\n");
}

#[test]
fn json_holds_text_or_bytes() {
    let world = World::new();
    world.write("docs/text", "text\n");
    fs::write(world.path("docs/bytes"), b"\xff\x00").unwrap();
    world.sync("laptop", "docs");
    let json = |path: &str| world.packetboat("laptop", &["show", path, "--json"]).within("docs").succeeds().json();
    assert_eq!(json("text")["content"], "text\n");
    assert_eq!(json("bytes")["content_bytes"], "ff00");
    assert_eq!(json("bytes")["size"], 2);
}

#[test]
fn what_was_not_there_then_is_an_error() {
    let world = World::with_vault();
    let before = world.packetboat("laptop", &["show", "a.txt", "--at", "2 days ago"]).within("docs").fails();
    let never = world.packetboat("laptop", &["show", "never.txt"]).within("docs").fails();
    let directory = world.packetboat("laptop", &["show", "sub"]).within("docs").fails();
    let packet = world.packetboat("laptop", &["show", "a.txt", "--at", "nobody:3"]).within("docs").fails();
    assert_snapshot!(before.seen + &never.seen + &directory.seen + &packet.seen);
}

#[test]
fn a_time_that_cannot_be_read_is_wrong_usage() {
    let world = World::with_vault();
    for text in ["soon", "2999-01-01", ""] {
        let ran = world.packetboat("laptop", &["show", "a.txt", "--at", text]).within("docs").run();
        assert_eq!(ran.code, 2, "{}", ran.seen);
    }
}
