//! `packetboat doctor`, and `packetboat man`.

mod common;

use std::fs;

use common::World;

#[test]
fn a_folder_in_order_needs_nothing() {
    let world = World::with_two_devices();
    let seen = world.packetboat("laptop", &["doctor"]).within("docs").succeeds();
    for what in ["folder", "index", "intermediary", "clock", "limits", "version"] {
        assert!(seen.stdout.contains(&format!("  {what} ")), "{what}: {}", seen.seen);
    }
    assert!(seen.stdout.ends_with("Nothing needs doing.\n"), "{}", seen.seen);
    assert!(!seen.stdout.contains(" 1 directories"), "{}", seen.seen);
}

#[test]
fn what_needs_doing_is_told_with_what_to_do() {
    let world = World::with_conflict();
    fs::rename(world.path("stick"), world.path("unplugged")).unwrap();
    let seen = world.packetboat("laptop", &["doctor", "--json"]).within("docs").run();
    assert_eq!(seen.code, 1, "{}", seen.seen);
    let json = seen.json();
    assert_eq!(json["needs_doing"], true);
    let findings = json["findings"].as_array().unwrap();
    for what in ["conflicts", "intermediary"] {
        let finding = findings.iter().find(|finding| finding["what"] == what && finding["standing"] == "wrong");
        assert!(finding.is_some_and(|finding| finding["advice"].is_string()), "{what}: {}", seen.seen);
    }
}

#[test]
fn every_command_has_a_manual_page() {
    let world = World::new();
    let page = world.packetboat("laptop", &["man"]).succeeds().stdout;
    assert!(page.contains(".TH packetboat 1"), "{page}");
    world.packetboat("laptop", &["man", "--all", "pages"]).succeeds();
    let pages = world.names("pages");
    for command in ["packetboat.1", "packetboat-sync.1", "packetboat-repair.1", "packetboat-undo.1"] {
        assert!(pages.iter().any(|page| page == command), "{command}: {pages:?}");
    }
}
