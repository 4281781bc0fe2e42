//! `packetboat undo`.

mod common;

use common::World;

#[test]
fn the_last_thing_is_taken_back_and_done_again() {
    let world = World::with_two_devices();
    world.write("docs/a.txt", "a mistake\n");
    world.write("docs/b.txt", "new\n");
    world.sync("laptop", "docs");
    let preview = world.packetboat("laptop", &["undo", "--dry-run", "--json"]).within("docs").succeeds().json();
    assert_eq!(preview["steps"].as_array().unwrap().len(), 2);
    assert_eq!(world.read("docs/a.txt"), "a mistake\n");
    let undone = world.packetboat("laptop", &["undo"]).within("docs").succeeds();
    assert!(undone.stdout.starts_with("Took back what was published at "), "{}", undone.seen);
    assert_eq!(world.read("docs/a.txt"), "alpha\n");
    assert!(!world.exists("docs/b.txt"));
    world.sync("desktop", "work");
    assert_eq!(world.read("work/a.txt"), "alpha\n");
    world.packetboat("laptop", &["undo"]).within("docs").succeeds();
    assert_eq!(world.read("docs/a.txt"), "a mistake\n");
    assert_eq!(world.read("docs/b.txt"), "new\n");
}

#[test]
fn what_another_device_changed_since_is_left_and_the_exit_code_says_so() {
    let world = World::with_two_devices();
    world.write("docs/a.txt", "of the laptop\n");
    world.sync("laptop", "docs");
    world.sync("desktop", "work");
    world.write("work/a.txt", "of the desktop\n");
    world.sync("desktop", "work");
    let undone = world.packetboat("laptop", &["undo"]).within("docs").run();
    assert_eq!(undone.code, 1, "{}", undone.seen);
    assert!(undone.stdout.contains("a.txt  (desktop changed it since)"), "{}", undone.seen);
    assert_eq!(world.read("docs/a.txt"), "of the desktop\n");
}

/// Story: somebody deleted a file by mistake and typed `undo`. The deletion was published, something else was taken back,
/// and neither the preview nor the command said so.
#[test]
fn what_was_not_published_yet_is_not_taken_back_and_that_is_said() {
    let world = World::with_two_devices();
    world.write("docs/a.txt", "edited\n");
    world.sync("laptop", "docs");
    std::fs::remove_file(world.path("docs/sub/b.txt")).unwrap();
    let preview = world.packetboat("laptop", &["undo", "--dry-run"]).within("docs").succeeds();
    assert!(preview.stdout.contains("1 change in the folder would be published first"), "{}", preview.seen);
    let undone = world.packetboat("laptop", &["undo"]).within("docs").succeeds();
    assert!(undone.stdout.contains("1 change in the folder had not been published"), "{}", undone.seen);
    assert_eq!(world.read("docs/a.txt"), "alpha\n");
    let quiet = world.packetboat("laptop", &["undo", "--json"]).within("docs").succeeds().json();
    assert_eq!(quiet["unpublished"], 0);
}

#[test]
fn undoing_the_undo_of_a_settled_conflict_settles_it_again() {
    let world = World::with_conflict();
    let before = world.names("docs");
    world.packetboat("laptop", &["resolve", "a.txt", "--keep", "both"]).within("docs").succeeds();
    let settled = world.names("docs");
    for round in 0..2 {
        world.packetboat("laptop", &["undo"]).within("docs").succeeds();
        let conflicts = world.packetboat("laptop", &["conflicts", "--json"]).within("docs").succeeds().json();
        assert_eq!(conflicts["conflicts"].as_array().unwrap().len(), 1, "{round}");
        assert_eq!(world.names("docs").len(), before.len(), "{round}");
        let again = world.packetboat("laptop", &["undo"]).within("docs").succeeds();
        let conflicts = world.packetboat("laptop", &["conflicts"]).within("docs").succeeds();
        assert_eq!(conflicts.stdout, "No conflicts.\n", "{round}: {}", again.seen);
        assert_eq!(world.names("docs"), settled, "{round}: {}", again.seen);
        world.sync("desktop", "work");
        assert_eq!(world.names("work"), settled, "{round}");
        for name in &settled[..2] {
            assert_eq!(world.read(&format!("work/{name}")), world.read(&format!("docs/{name}")), "{round}");
        }
    }
}
