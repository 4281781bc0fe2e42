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

#[test]
fn of_what_was_deleted_or_moved_it_is_said_how_to_see_it_all_the_same() {
    let world = World::with_two_devices();
    world.sync("laptop", "docs");
    fs::remove_file(world.path("docs/sub/b.txt")).unwrap();
    fs::rename(world.path("docs/a.txt"), world.path("docs/z.txt")).unwrap();
    world.sync("laptop", "docs");
    world.sync("desktop", "work");
    let show = |path: &str| world.packetboat("desktop", &["show", path]).within("work").fails();
    let (deleted, moved) = (show("sub/b.txt"), show("a.txt"));
    assert_snapshot!(deleted.seen.clone() + &moved.seen);
    // What the hint says works.
    let packet = deleted.stderr.split("--at ").nth(1).unwrap().split('`').next().unwrap();
    let then = world.packetboat("desktop", &["show", "sub/b.txt", "--at", packet]).within("work").succeeds();
    assert_eq!(then.stdout, "beta\n");
    world.packetboat("desktop", &["restore", "sub/b.txt", "--at", packet]).within("work").succeeds();
    assert_eq!(world.read("work/sub/b.txt"), "beta\n");
}

/// Story: the commands in hints named files as they are called, so that of `my file.txt` a shell made two arguments.
#[test]
fn commands_in_hints_can_be_pasted_into_a_shell() {
    let world = World::with_vault();
    let name = "it's my file.txt";
    world.write(&format!("docs/{name}"), "text\n");
    world.sync("laptop", "docs");
    fs::remove_file(world.path(&format!("docs/{name}"))).unwrap();
    world.sync("laptop", "docs");
    let deleted = world.packetboat("laptop", &["show", name]).within("docs").fails();
    fs::create_dir(world.path("my docs")).unwrap();
    let unbound = world.packetboat("laptop", &["status", "my docs"]).fails();
    let commands = |ran: &common::Ran| {
        let hint = ran.stderr.split("Hint: ").nth(1).unwrap();
        let quoted = hint.split('`').skip(1).step_by(2).map(|command| {
            let read = std::process::Command::new("sh").args(["-c", &format!("printf '%s\\n' {command}")]).output();
            let read = String::from_utf8(read.unwrap().stdout).unwrap();
            read.lines().map(str::to_owned).collect::<Vec<_>>()
        });
        quoted.collect::<Vec<_>>()
    };
    let of_deleted = commands(&deleted);
    assert_eq!(of_deleted[0][..4], ["packetboat", "show", name, "--at"], "{}", deleted.seen);
    assert_eq!(of_deleted.last().unwrap()[..], ["packetboat", "log", name], "{}", deleted.seen);
    let folder = world.path("my docs").display().to_string();
    assert_eq!(commands(&unbound)[0], ["packetboat", "sync", &folder, "INTERMEDIARY"], "{}", unbound.seen);
}
