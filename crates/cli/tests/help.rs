//! What `--help` says.

mod common;

use common::World;
use insta::assert_snapshot;

#[test]
fn help_lists_the_commands() {
    let world = World::new();
    assert_snapshot!(world.packetboat("laptop", &["--help"]).succeeds().stdout);
}

#[test]
fn help_of_sync_says_what_follows() {
    let world = World::new();
    assert_snapshot!(world.packetboat("laptop", &["sync", "--help"]).succeeds().stdout);
}

#[test]
fn first_lines_of_help_are_imperative_and_without_full_stop() {
    let world = World::new();
    for command in [
        "sync",
        "status",
        "log",
        "show",
        "restore",
        "conflicts",
        "resolve",
        "devices",
        "key",
        "verify",
        "prune",
        "repair",
        "undo",
        "doctor",
        "man",
        "ignore",
        "completions",
        "pair",
        "unpair",
        "carry",
        "run",
        "outbox",
        "inbox",
        "paths",
        "mail",
        "sendmail",
        "service",
    ] {
        let help = world.packetboat("laptop", &[command, "--help"]).succeeds().stdout;
        let first = help.lines().next().unwrap();
        assert!(first.starts_with(|c: char| c.is_uppercase()) && !first.ends_with('.'), "{command}: {first}");
    }
}
