//! `packetboat restore`.

mod common;

use std::fs;

use common::World;
use insta::assert_snapshot;

/// A vault in which, after the packet returned, a file was edited and another deleted.
fn world_with_past() -> (World, String) {
    let world = World::with_vault();
    let json = world.packetboat("laptop", &["log", "a.txt", "--json"]).within("docs").succeeds().json();
    let packet = json["entries"][0]["packet"].as_str().unwrap().to_owned();
    world.write("docs/a.txt", "spoiled\n");
    fs::remove_file(world.path("docs/sub/b.txt")).unwrap();
    world.write("docs/later.txt", "later\n");
    world.sync("laptop", "docs");
    (world, packet)
}

#[test]
fn a_file_comes_back_as_a_change_made_here() {
    let (world, packet) = world_with_past();
    let restored = world.packetboat("laptop", &["restore", "a.txt", "--at", &packet]).within("docs").succeeds();
    let deleted = world.packetboat("laptop", &["restore", "sub/b.txt", "--at", &packet]).within("docs").succeeds();
    assert_eq!(world.read("docs/a.txt"), "alpha\n");
    assert_eq!(world.read("docs/sub/b.txt"), "beta\n");
    assert_eq!(world.read("docs/later.txt"), "later\n");
    world.sync("laptop", "docs");
    world.sync("desktop", "work");
    assert_eq!(world.read("work/a.txt"), "alpha\n");
    assert_eq!(world.read("work/sub/b.txt"), "beta\n");
    assert_snapshot!(restored.seen.replace(&packet, "[PACKET]") + &deleted.seen);
}

#[test]
fn everything_comes_back_beside_the_folder() {
    let (world, packet) = world_with_past();
    let ran =
        world.packetboat("laptop", &["restore", "--all", "--at", &packet, "--to", "../then"]).within("docs").succeeds();
    assert_eq!(world.names("then"), ["a.txt", "sub"]);
    assert_eq!(world.read("then/a.txt"), "alpha\n");
    assert_eq!(world.read("docs/a.txt"), "spoiled\n");
    assert_snapshot!(ran.seen);
}

#[test]
fn a_vault_is_restored_with_its_passphrase_and_nothing_else() {
    let (world, _) = world_with_past();
    let ran = world.packetboat("stranger", &["restore", "--from", "stick/vault", "--to", "all"]).succeeds();
    assert_eq!(world.names("all"), ["a.txt", "later.txt", "sub"]);
    assert_eq!(world.read("all/a.txt"), "spoiled\n");
    assert!(!world.exists("state-stranger"), "nothing is left behind");
    assert!(!world.exists("all/.packetboat"));
    let devices = world.packetboat("laptop", &["devices", "--json"]).within("docs").succeeds().json();
    assert_eq!(devices["devices"].as_array().unwrap().len(), 1, "the stranger is no device");
    assert_snapshot!(ran.seen);
}

#[test]
fn a_vault_is_restored_as_it_was() {
    let world = World::with_vault();
    std::thread::sleep(std::time::Duration::from_millis(1100));
    world.write("docs/a.txt", "spoiled\n");
    world.sync("laptop", "docs");
    let arguments = ["restore", "--from", "stick/vault", "--to", "then", "--at", "1 second ago"];
    world.packetboat("stranger", &arguments).succeeds();
    assert_eq!(world.read("then/a.txt"), "alpha\n");
}

#[test]
fn a_time_at_which_there_was_nothing_to_restore_is_told() {
    let world = World::with_vault();
    let before = ["restore", "--all", "--at", "2001-01-01", "--to", "../then"];
    let before = world.packetboat("laptop", &before).within("docs").succeeds();
    let same = world.packetboat("laptop", &["restore", "--all", "--at", "now"]).within("docs").succeeds();
    assert_eq!(before.stdout, "Nothing was restored: the vault held nothing at that time.\n");
    assert_eq!(
        same.stdout,
        "Nothing was restored: what the vault held at that time, if anything, is here as it was.\n"
    );
}

/// Whoever restores looks once, and must not take the file that is left for the one that was asked for.
#[test]
fn a_file_with_changes_of_its_own_is_left_and_that_is_said() {
    let (world, packet) = world_with_past();
    world.write("docs/a.txt", "written since\n");
    let left = world.packetboat("laptop", &["restore", "a.txt", "--at", &packet]).within("docs").fails();
    let quiet = world.packetboat("laptop", &["-q", "restore", "--all", "--at", &packet]).within("docs").fails();
    assert_eq!(world.read("docs/a.txt"), "written since\n");
    assert_eq!(world.read("docs/sub/b.txt"), "beta\n", "the rest is restored");
    let beside = ["restore", "a.txt", "--at", &packet, "--to", "../then"];
    world.packetboat("laptop", &beside).within("docs").succeeds();
    assert_eq!(world.read("then/a.txt"), "alpha\n");
    world.sync("laptop", "docs");
    world.packetboat("laptop", &["restore", "a.txt", "--at", &packet]).within("docs").succeeds();
    assert_eq!(world.read("docs/a.txt"), "alpha\n");
    assert_snapshot!(left.seen + &quiet.seen);
}

#[test]
fn nothing_is_written_where_something_is() {
    let world = World::with_vault();
    let full = world.packetboat("x", &["restore", "--from", "stick/vault", "--to", "docs"]).fails();
    let within = world.packetboat("x", &["restore", "--from", "stick/vault", "--to", "stick/vault/new"]).fails();
    let deep = world.packetboat("x", &["restore", "--from", "stick/vault", "--to", "a/b"]).fails();
    let nowhere = world.packetboat("x", &["restore", "--from", "stick", "--to", "new"]).fails();
    let wrong = world
        .packetboat("x", &["restore", "--from", "stick/vault", "--to", "new"])
        .with("PACKETBOAT_PASSPHRASE", "wrong horse battery")
        .fails();
    let inside = ["restore", "--all", "--at", "now", "--to", "inside"];
    let inside = world.packetboat("laptop", &inside).within("docs").fails();
    assert!(inside.seen.contains("lies within the folder"), "{}", inside.seen);
    assert!(!world.exists("docs/inside"));
    assert!(!world.exists("new") && !world.exists("a") && !world.exists("stick/vault/new"));
    assert_snapshot!(full.seen + &within.seen + &deep.seen + &nowhere.seen + &wrong.seen);
}

#[test]
fn what_and_when_must_be_said() {
    let world = World::with_vault();
    for arguments in [
        &["restore"][..],
        &["restore", "a.txt"],
        &["restore", "--all", "a.txt", "--at", "now"],
        &["restore", "--from", "stick/vault"],
    ] {
        assert_eq!(world.packetboat("laptop", arguments).within("docs").run().code, 2, "{arguments:?}");
    }
}

#[test]
fn a_restore_that_fails_at_once_leaves_no_directory_behind() {
    let world = World::with_vault();
    world.packetboat("laptop", &["restore", "never.txt", "--at", "now", "--to", "out"]).within("docs").fails();
    assert!(!world.exists("docs/out"));
    world.packetboat("laptop", &["restore", "never.txt", "--at", "now", "--to", "../out"]).within("docs").fails();
    assert!(!world.exists("out"));
    fs::create_dir(world.path("own")).unwrap();
    world.packetboat("laptop", &["restore", "never.txt", "--at", "now", "--to", "../own"]).within("docs").fails();
    assert!(world.exists("own"));
}
