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

/// The findings about one thing that are wrong, as JSON.
fn wrong(world: &World, what: &str) -> Vec<serde_json::Value> {
    let seen = world.packetboat("laptop", &["doctor", "docs", "--json"]).run();
    assert_eq!(seen.code, 1, "{}", seen.seen);
    let json = seen.json();
    let findings = json["findings"].as_array().unwrap_or_else(|| panic!("no page: {}", seen.seen));
    for looked_at in ["folder", "index", "intermediary", "clock", "limits", "version"] {
        assert!(findings.iter().any(|finding| finding["what"] == looked_at), "{looked_at}: {}", seen.seen);
    }
    let fits = |finding: &&serde_json::Value| finding["what"] == what && finding["standing"] == "wrong";
    findings.iter().filter(fits).cloned().collect()
}

#[test]
fn what_a_rule_keeps_from_this_disk_is_left_out_and_not_wrong() {
    let world = World::with_two_devices();
    world.packetboat("desktop", &["ignore", "*.iso"]).within("work").succeeds();
    world.write("docs/large.iso", "kept from the other device");
    world.sync("laptop", "docs");
    world.packetboat("desktop", &["sync"]).within("work").succeeds();
    let page = world.packetboat("desktop", &["doctor"]).within("work").succeeds();
    assert!(page.stdout.contains("1 object is ignored here and not on this disk"), "{}", page.seen);
    assert!(page.stdout.contains("Nothing needs doing."), "{}", page.seen);
}

#[test]
fn a_damaged_index_is_one_line_of_the_page_and_names_what_to_move_and_what_to_run() {
    let world = World::with_vault();
    let state = world.replica_state("laptop");
    let index = state.join("index.db");
    let sound = fs::read(&index).unwrap();
    let mut torn = sound.clone();
    torn[4096..].fill(0x5a);
    for damage in [b"no database at all, but long enough to be one".repeat(200), torn, Vec::new()] {
        for old in ["index.db-wal", "index.db-shm"] {
            let _ = fs::remove_file(state.join(old));
        }
        fs::write(&index, damage).unwrap();
        let found = wrong(&world, "index");
        assert_eq!(found.len(), 1, "{found:?}");
        let advice = found[0]["advice"].as_str().unwrap();
        for named in [&state, &world.path("docs"), &world.path("stick/vault")] {
            assert!(advice.contains(named.to_str().unwrap()), "{advice}");
        }
        let other = world.packetboat("laptop", &["status", "docs"]).fails();
        assert!(other.stderr.contains(state.to_str().unwrap()), "{}", other.seen);
    }
    fs::rename(&state, world.path("aside")).unwrap();
    let lost = wrong(&world, "index");
    assert!(lost[0]["advice"].as_str().unwrap().contains("packetboat sync"), "{lost:?}");
    world.packetboat("laptop", &["sync", "docs"]).succeeds();
    world.packetboat("laptop", &["doctor", "docs"]).succeeds();
}

#[test]
fn a_folder_that_is_not_there_is_one_line_of_the_page() {
    let world = World::with_vault();
    fs::rename(world.path("docs"), world.path("aside")).unwrap();
    let gone = wrong(&world, "folder");
    assert_eq!(gone.len(), 1, "{gone:?}");
    assert!(gone[0]["advice"].as_str().unwrap().contains("is its disk mounted?"), "{gone:?}");
    fs::create_dir(world.path("docs")).unwrap();
    assert!(wrong(&world, "folder")[0]["says"].as_str().unwrap().contains("no marker"));
    assert_eq!(wrong(&world, "index"), [] as [serde_json::Value; 0]);
    // What is no replica has no page.
    world.write("other/x", "x");
    world.packetboat("laptop", &["doctor", "other"]).fails();
}

#[test]
fn what_stops_a_round_is_a_line_of_the_page() {
    let world = World::with_vault();
    fs::create_dir(world.path("docs/.packetboatignore")).unwrap();
    assert_eq!(wrong(&world, "folder").len(), 1);
}

#[test]
fn every_command_has_a_manual_page() {
    let world = World::new();
    let page = world.packetboat("laptop", &["man"]).succeeds().stdout;
    assert!(page.contains(".TH packetboat 1"), "{page}");
    assert!(page.contains(".SH \"EXIT STATUS\""), "{page}");
    world.packetboat("laptop", &["man", "--all", "pages"]).succeeds();
    let pages = world.names("pages");
    for command in ["packetboat.1", "packetboat-sync.1", "packetboat-repair.1", "packetboat-undo.1"] {
        assert!(pages.iter().any(|page| page == command), "{command}: {pages:?}");
        assert!(world.read(&format!("pages/{command}")).contains(".SH \"EXIT STATUS\""), "{command}");
    }
}
