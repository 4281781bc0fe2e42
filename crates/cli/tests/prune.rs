//! `packetboat prune`.

mod common;

use common::World;

#[test]
fn history_is_let_go_when_both_devices_have_heard_of_it() {
    let world = World::with_two_devices();
    world.write("docs/a.txt", "alpha, edited\n");
    world.sync("laptop", "docs");
    world.sync("desktop", "work");
    std::thread::sleep(std::time::Duration::from_millis(1100));
    let would = world.packetboat("laptop", &["prune", "--keep", "0d", "--dry-run", "docs"]).succeeds();
    assert!(would.stdout.contains("Would let go:\n  history   "), "{}", would.stdout);
    let did = world.packetboat("laptop", &["prune", "--keep", "0d", "docs"]).succeeds();
    assert!(did.stdout.starts_with("Kept: what stands, and nothing past.\nLet go:\n"), "{}", did.stdout);
    assert!(did.stdout.contains("when these devices have synchronised: desktop"), "{}", did.stdout);
    world.sync("desktop", "work");
    let json = world.packetboat("laptop", &["prune", "docs", "--json"]).succeeds().json();
    assert!(json["deleted"].as_u64().unwrap() > 0, "{json}");
    assert_eq!(json["keep"]["days"], 0);
    world.sync("desktop", "work");
    assert_eq!(world.read("work/a.txt"), "alpha, edited\n");
    let error = world.packetboat("laptop", &["show", "a.txt", "--at", "1 hour ago"]).within("docs").fails();
    assert!(error.stderr.contains("does not reach back that far"), "{}", error.stderr);
    world.packetboat("laptop", &["verify", "--deep", "docs"]).succeeds();
}

#[test]
fn a_time_that_is_none_is_refused() {
    let world = World::with_vault();
    for wrong in ["soon", "0 versions"] {
        let ran = world.packetboat("laptop", &["prune", "--keep", wrong, "docs"]).run();
        assert_eq!(ran.code, 2, "{}", ran.seen);
    }
}
