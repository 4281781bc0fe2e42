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
    // The overlay is the laptop's alone: the desktop goes by the vault's rules until it has one of its own.
    assert_eq!(world.names("work"), [".packetboatignore", "a.txt", "sub"]);
    world.packetboat("desktop", &["ignore", "!keep.o"]).within("work").succeeds();
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

/// The laptop ignores `cache/` for itself, removes what it has of it, and takes the pattern back.
fn ignored_removed_and_wanted_again(removed: &str) -> World {
    let world = World::with_vault();
    world.write("docs/cache/one", "1\n");
    world.write("docs/cache/deep/two", "2\n");
    world.sync("laptop", "docs");
    world.sync("desktop", "work");
    world.packetboat("laptop", &["ignore", "cache/"]).within("docs").succeeds();
    world.sync("laptop", "docs");
    let path = world.path(removed);
    if path.is_dir() {
        std::fs::remove_dir_all(path).unwrap()
    } else {
        std::fs::remove_file(path).unwrap()
    }
    world.sync("laptop", "docs");
    world.packetboat("laptop", &["ignore", "--remove", "cache/"]).within("docs").succeeds();
    world
}

#[test]
fn what_went_while_it_was_ignored_is_no_delete_and_comes_again() {
    for removed in ["docs/cache", "docs/cache/deep", "docs/cache/one"] {
        let world = ignored_removed_and_wanted_again(removed);
        let status = world.packetboat("laptop", &["status", "--json"]).within("docs").succeeds().json();
        assert_eq!(status["in_step"], false, "{removed}: {status}");
        assert_eq!(status["to_send"], 0, "{removed}: {status}");
        world.sync("laptop", "docs");
        world.sync("desktop", "work");
        for folder in ["docs", "work"] {
            assert_eq!(world.read(&format!("{folder}/cache/one")), "1\n", "{removed}");
            assert_eq!(world.read(&format!("{folder}/cache/deep/two")), "2\n", "{removed}");
        }
    }
}

#[test]
fn ignoring_and_removing_at_once_is_no_delete() {
    let world = World::with_two_devices();
    world.packetboat("laptop", &["ignore", "sub/"]).within("docs").succeeds();
    std::fs::remove_dir_all(world.path("docs/sub")).unwrap();
    world.sync("laptop", "docs");
    world.sync("desktop", "work");
    assert_eq!(world.read("work/sub/b.txt"), "beta\n");
}

#[test]
fn an_ignored_file_outlives_the_removal_of_its_directory() {
    let world = World::with_two_devices();
    world.write("docs/sub/other", "other\n");
    world.sync("laptop", "docs");
    world.packetboat("laptop", &["ignore", "sub/b.txt"]).within("docs").succeeds();
    world.sync("laptop", "docs");
    std::fs::remove_dir_all(world.path("docs/sub")).unwrap();
    world.sync("laptop", "docs");
    world.sync("desktop", "work");
    assert_eq!(world.names("work/sub"), ["b.txt"]);
    world.packetboat("laptop", &["ignore", "--remove", "sub/b.txt"]).within("docs").succeeds();
    world.sync("laptop", "docs");
    assert_eq!(world.read("docs/sub/b.txt"), "beta\n");
}

#[test]
fn what_was_never_brought_here_comes_when_no_rule_ignores_it_any_more() {
    let world = World::with_vault();
    world.write("docs/cache/deep/two", "2\n");
    world.write("docs/.packetboatignore", "# none yet\n");
    world.sync("laptop", "docs");
    world.sync("desktop", "work");
    world.packetboat("desktop", &["ignore", "more/", "*.iso"]).within("work").succeeds();
    world.write("docs/more/deep/three", "3\n");
    world.write("docs/big.iso", "big\n");
    world.sync("laptop", "docs");
    let quiet = world.sync("desktop", "work");
    assert!(!quiet.stdout.contains("problem"), "what was asked for is no problem: {}", quiet.seen);
    assert!(!world.exists("work/more") && !world.exists("work/big.iso"));
    for pattern in ["more/", "*.iso"] {
        world.packetboat("desktop", &["ignore", "--remove", pattern]).within("work").succeeds();
    }
    let plan = world.packetboat("desktop", &["sync", "--dry-run"]).within("work").succeeds();
    assert!(plan.stdout.contains("more/deep/three"), "{}", plan.seen);
    world.sync("desktop", "work");
    assert_eq!(world.read("work/more/deep/three"), "3\n");
    assert_eq!(world.read("work/big.iso"), "big\n");
    let status = world.packetboat("desktop", &["status", "--json"]).within("work").succeeds().json();
    assert_eq!(status["problems"], serde_json::json!([]));
}

#[test]
fn a_device_that_joins_heeds_the_rules_of_the_vault_at_once() {
    let world = World::with_vault();
    world.write("docs/.packetboatignore", "cache/\n");
    world.sync("laptop", "docs");
    world.write("work/cache/secret", "not to be sent\n");
    world.sync("desktop", "work");
    world.sync("laptop", "docs");
    assert!(!world.exists("docs/cache"));
    assert_eq!(world.read("work/cache/secret"), "not to be sent\n");
}

#[test]
fn rules_that_cannot_be_read_are_not_taken_for_none() {
    let world = World::with_vault();
    world.write("docs/.packetboatignore", "cache/\n");
    world.write("docs/cache/secret", "not to be sent\n");
    world.sync("laptop", "docs");
    std::fs::remove_file(world.path("docs/.packetboatignore")).unwrap();
    std::fs::create_dir(world.path("docs/.packetboatignore")).unwrap();
    let refused = world.packetboat("laptop", &["sync"]).within("docs").fails();
    assert_snapshot!(refused.seen);
    // A link may lead to what this device has and others have not.
    std::fs::remove_dir(world.path("docs/.packetboatignore")).unwrap();
    std::os::unix::fs::symlink("rules", world.path("docs/.packetboatignore")).unwrap();
    let refused = world.packetboat("laptop", &["sync"]).within("docs").fails();
    assert!(refused.seen.contains("it is a symbolic link, and those are not followed"), "{}", refused.seen);
}
