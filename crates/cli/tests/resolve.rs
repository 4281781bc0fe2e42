//! `packetboat resolve`.

mod common;

use common::World;
use insta::assert_snapshot;

fn settle(keep: &str, from: &str) -> World {
    let world = World::with_conflict();
    let (device, folder) = if from == "laptop" { ("laptop", "docs") } else { ("desktop", "work") };
    world.packetboat(device, &["resolve", "a.txt", "--keep", keep]).within(folder).succeeds();
    world.sync("laptop", "docs");
    world.sync("desktop", "work");
    world.sync("laptop", "docs");
    assert_eq!(world.names("docs"), world.names("work"));
    let left = world.packetboat("desktop", &["conflicts"]).within("work").succeeds();
    assert_eq!(left.stdout, "No conflicts.\n");
    world
}

#[test]
fn mine_is_what_this_device_wrote() {
    let world = settle("mine", "laptop");
    assert_eq!(world.names("docs"), ["a.txt", "sub"]);
    assert_eq!(world.read("work/a.txt"), "alpha of the laptop\n");
}

#[test]
fn theirs_is_what_the_other_wrote() {
    let world = settle("theirs", "laptop");
    assert_eq!(world.names("docs"), ["a.txt", "sub"]);
    assert_eq!(world.read("docs/a.txt"), "alpha of the desktop\n");
}

#[test]
fn mine_means_the_one_who_asks() {
    let world = settle("mine", "desktop");
    assert_eq!(world.read("docs/a.txt"), "alpha of the desktop\n");
}

#[test]
fn both_become_files_of_their_own() {
    let world = settle("both", "laptop");
    assert_eq!(world.names("docs").len(), 3);
    let mut contents: Vec<_> =
        world.names("docs")[..2].iter().map(|name| world.read(&format!("docs/{name}"))).collect();
    contents.sort();
    assert_eq!(contents, ["alpha of the desktop\n", "alpha of the laptop\n"]);
}

#[test]
fn settling_says_what_it_did() {
    let world = World::with_conflict();
    let ran = world.packetboat("laptop", &["resolve", "a.txt", "--keep", "mine"]).within("docs").succeeds();
    assert_snapshot!(ran.seen);
}

#[test]
fn what_is_in_no_conflict_cannot_be_settled() {
    let world = World::with_vault();
    let ran = world.packetboat("laptop", &["resolve", "a.txt", "--keep", "mine"]).within("docs").fails();
    assert_snapshot!(ran.seen);
    assert_eq!(world.packetboat("laptop", &["resolve", "a.txt"]).within("docs").run().code, 2);
}

#[test]
fn sides_that_cannot_be_merged_are_left_to_a_tool() {
    let world = World::with_conflict();
    let refused = world.packetboat("laptop", &["resolve", "a.txt", "--keep", "merged"]).within("docs").fails();
    assert!(refused.stderr.contains("both sides changed the same lines"), "{}", refused.seen);
    assert!(refused.stderr.contains("Hint: "), "{}", refused.seen);
    let failed = ["resolve", "a.txt", "--keep", "merged", "--tool", "exit 3"];
    assert!(world.packetboat("laptop", &failed).within("docs").fails().stderr.contains("exit status: 3"));
    let tool = "cat $MINE $THEIRS > $MERGED; test -s $BASE";
    world.packetboat("laptop", &["resolve", "a.txt", "--keep", "merged", "--tool", tool]).within("docs").succeeds();
    assert_eq!(world.read("docs/a.txt"), "alpha of the laptop\nalpha of the desktop\n");
    world.sync("desktop", "work");
    assert_eq!(world.names("work"), ["a.txt", "sub"]);
}
