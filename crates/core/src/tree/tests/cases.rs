//! Described cases of moves, deletes and attributes; each is folded in every causal order.

use super::*;

const ROOT: ItemId = ItemId::ROOT;
const ALL: usize = 5000;

#[track_caller]
fn check(world: &World, expected: &[&str]) -> MemoryTree {
    let tree = world.converge(ALL);
    assert_eq!(paths(&tree), expected);
    tree
}

/// `a`, `b` and `c` side by side, known to `devices` devices.
fn three_directories(devices: usize) -> (World, ItemId, ItemId, ItemId) {
    let mut world = World::new(devices);
    let [a, b, c] = ["a", "b", "c"].map(|name| world.directory(0, ROOT, name));
    world.sync_all();
    (world, a, b, c)
}

#[test]
fn of_two_moves_that_close_a_cycle_the_later_is_passed_over() {
    let (mut world, a, b, _) = three_directories(2);
    world.place(0, a, b, "a");
    world.place(1, b, a, "b");
    // The same Lamport time: the greater device is later.
    let tree = check(&world, &["b", "b/a", "c"]);
    let passed_over: Vec<ItemId> = tree.moves().values().filter(|m| m.passed_over).map(|m| m.item).collect();
    assert_eq!(passed_over, [b]);
}

#[test]
fn of_three_moves_in_a_ring_only_the_last_is_passed_over() {
    let (mut world, a, b, c) = three_directories(3);
    world.place(0, a, b, "a");
    world.place(1, b, c, "b");
    world.place(2, c, a, "c");
    check(&world, &["c", "c/b", "c/b/a"]);
}

#[test]
fn a_late_move_makes_a_passed_over_one_count() {
    let (mut world, a, b, c) = three_directories(3);
    // In total order: device 0 puts a into b, device 1 takes it out again, and device 2, the last, puts b into a.
    // Where the packet of device 1 is folded last, the move of device 2 was passed over until then.
    world.place(0, a, b, "a");
    world.sync(1);
    world.place(1, a, c, "a");
    for name in ["b2", "b3"] {
        world.place(2, b, ROOT, name);
    }
    world.place(2, b, a, "b");
    let tree = check(&world, &["c", "c/a", "c/a/b"]);
    assert!(tree.moves().values().all(|record| !record.passed_over));
}

#[test]
fn a_late_earlier_move_undoes_a_later_one_that_now_closes_a_cycle() {
    let (mut world, a, b, _) = three_directories(2);
    // Device 1 works on; its move is far later than the one of device 0 that nobody saw yet.
    for name in ["c1", "c2", "c3"] {
        world.file(1, ROOT, name);
    }
    world.place(1, b, a, "b");
    world.place(0, a, b, "a");
    check(&world, &["b", "b/a", "c", "c1", "c2", "c3"]);
}

#[test]
fn a_move_under_its_own_child_is_passed_over() {
    let mut world = World::new(1);
    let a = world.directory(0, ROOT, "a");
    let b = world.directory(0, a, "b");
    world.place(0, a, b, "a");
    check(&world, &["a", "a/b"]);
}

#[test]
fn a_rename_of_a_directory_and_an_edit_beneath_it_merge() {
    let mut world = World::new(2);
    let a = world.directory(0, ROOT, "a");
    let f = world.file(0, a, "f");
    world.sync_all();
    world.place(0, a, ROOT, "renamed");
    world.edit(1, f, "second");
    let tree = check(&world, &["renamed", "renamed/f"]);
    assert_eq!(tree.items()[&f].seats().len(), 1);
}

#[test]
fn an_unseen_edit_keeps_a_file_alive_and_shows_its_dead_directory() {
    let mut world = World::new(2);
    let a = world.directory(0, ROOT, "a");
    let f = world.file(0, a, "f");
    world.file(0, a, "g");
    world.sync_all();
    world.delete(0, a);
    world.edit(1, f, "second");
    check(&world, &["a/f", "a/†"]);
}

#[test]
fn an_unseen_move_keeps_a_file_alive() {
    let mut world = World::new(2);
    let f = world.file(0, ROOT, "f");
    world.sync_all();
    world.delete(0, f);
    world.place(1, f, ROOT, "g");
    check(&world, &["g"]);
}

#[test]
fn an_unseen_move_of_a_directory_keeps_alive_what_the_same_delete_removed_beneath_it() {
    let mut world = World::new(2);
    let a = world.directory(0, ROOT, "a");
    let b = world.directory(0, a, "b");
    world.file(0, b, "f");
    let early = world.file(0, b, "early");
    world.sync_all();
    world.delete(0, early);
    world.delete(0, a);
    world.place(1, a, ROOT, "moved");
    check(&world, &["moved", "moved/b", "moved/b/f"]);
}

#[test]
fn a_file_dropped_into_a_deleted_directory_revives_itself_alone() {
    let mut world = World::new(2);
    let a = world.directory(0, ROOT, "a");
    let b = world.directory(0, a, "b");
    world.file(0, b, "old");
    world.sync_all();
    world.delete(0, a);
    world.file(1, b, "new");
    check(&world, &["a/b/new", "a/b/†", "a/†"]);
}

#[test]
fn attributes_revive_nothing() {
    let mut world = World::new(2);
    let f = world.file(0, ROOT, "f");
    world.sync_all();
    world.delete(0, f);
    world.publish(
        1,
        vec![
            Change::Mode { item: f, mode: 0o600 },
            Change::Xattr { item: f, name: b"user.a".to_vec(), value: Some(b"1".to_vec()) },
        ],
    );
    check(&world, &[]);
}

#[test]
fn deletes_on_two_devices_delete_once() {
    let mut world = World::new(2);
    let f = world.file(0, ROOT, "f");
    world.sync_all();
    world.delete(0, f);
    world.delete(1, f);
    let tree = check(&world, &[]);
    assert_eq!(tree.items()[&f].deletes.len(), 2);
}

#[test]
fn deleting_the_copy_of_a_conflict_keeps_the_other_side() {
    let mut world = World::new(2);
    let f = world.file(0, ROOT, "f");
    world.sync_all();
    world.edit(0, f, "left");
    world.edit(1, f, "right");
    world.sync_all();
    let loser = world.devices[0].tree.items()[&f].seats()[1].head.dot;
    let removed = vec![Removed { item: f, heads: vec![loser], placements: Vec::new() }];
    world.publish(0, vec![Change::Delete { removed }]);
    let tree = check(&world, &["f"]);
    assert_eq!(tree.items()[&f].seats().len(), 1);
}

#[test]
fn what_is_created_in_an_unknown_directory_lies_in_the_root() {
    let mut world = World::new(1);
    let f = world.file(0, ROOT, "f");
    world.file(0, ItemId([0x77; 16]), "lost");
    world.file(0, f, "beneath a file");
    check(&world, &["beneath a file", "f", "lost"]);
}

#[test]
fn the_last_writer_sets_mode_and_attributes_each_on_its_own() {
    let mut world = World::new(2);
    let f = world.file(0, ROOT, "f");
    world.sync_all();
    let xattr =
        |value: Option<&[u8]>| Change::Xattr { item: f, name: b"user.a".to_vec(), value: value.map(<[u8]>::to_vec) };
    world.publish(0, vec![Change::Mode { item: f, mode: 0o600 }]);
    world.publish(0, vec![xattr(Some(b"late"))]);
    world.publish(1, vec![Change::Mode { item: f, mode: 0o644 }, xattr(None)]);
    let tree = check(&world, &["f"]);
    let item = &tree.items()[&f];
    assert_eq!(item.mode.as_ref().unwrap().value, 0o644);
    assert_eq!(item.xattrs[&b"user.a".to_vec()].value.as_deref(), Some(&b"late"[..]));
}

#[test]
fn a_revived_directory_is_touched_though_its_place_does_not_change() {
    // Device 1 does not know of the delete. Its move is the earlier one in total order, so the directory stays
    // where device 0 put it before deleting it; but it lives again, and so do those that share its place or lie above.
    let mut world = World::new(2);
    let above = world.directory(0, ROOT, "above");
    let a = world.directory(0, above, "a");
    world.file(0, above, "b");
    world.sync_all();
    for name in ["x", "y", "b"] {
        world.place(0, a, above, name);
    }
    world.delete(0, above);
    world.place(1, a, ROOT, "elsewhere");
    check(&world, &["above/b", "above/†"]);
}

#[test]
fn what_lives_by_an_unseen_move_does_not_die_by_a_delete_that_does_not_name_it() {
    // Device 2 knows of the delete and of the move, and ignores `f`, so its delete names the directory alone.
    let mut world = World::new(3);
    let a = world.directory(0, ROOT, "a");
    let f = world.file(0, a, "f");
    world.sync_all();
    world.delete(0, a);
    world.place(1, a, ROOT, "moved");
    world.sync(2);
    world.devices[2].synced.remove(&f);
    world.delete(2, a);
    check(&world, &["moved/f", "moved/†"]);
}

#[test]
fn what_lived_by_an_unseen_move_is_touched_when_a_directory_between_moves_away() {
    // `between` leaves the moved `a` by a late move of its own that the delete had seen.
    let mut world = World::new(3);
    let a = world.directory(0, ROOT, "a");
    let c = world.directory(0, ROOT, "c");
    let between = world.directory(0, a, "between");
    world.file(0, between, "f");
    world.sync_all();
    world.place(1, a, ROOT, "moved");
    world.place(0, between, c, "between");
    world.delete(0, between);
    world.delete(0, a);
    check(&world, &["c", "moved"]);
}
#[test]
fn what_an_unseen_move_revived_can_be_deleted_again() {
    // Device 2 knows all: `f` lives because of the unseen move of `a`, and is then deleted by itself.
    let mut world = World::new(3);
    let a = world.directory(0, ROOT, "a");
    let b = world.directory(0, a, "b");
    let f = world.file(0, a, "f");
    world.file(0, b, "g");
    world.file(0, b, "h");
    world.sync_all();
    world.delete(0, a);
    world.place(1, a, ROOT, "moved");
    world.sync(2);
    world.delete(2, f);
    world.delete(2, b);
    check(&world, &["moved"]);
}

#[test]
fn an_old_delete_that_an_edit_outlived_does_not_take_part_in_a_later_one() {
    // `f` was deleted long ago and lived on by an unseen edit. The unseen move voids the delete of all of `a`.
    let mut world = World::new(2);
    let a = world.directory(0, ROOT, "a");
    let f = world.file(0, a, "f");
    world.sync_all();
    world.delete(0, f);
    world.edit(1, f, "second");
    world.sync_all();
    world.delete(0, a);
    world.place(1, a, ROOT, "moved");
    check(&world, &["moved", "moved/f"]);
}

#[test]
fn renaming_a_dead_directory_that_is_still_shown_revives_nothing_beneath_it() {
    // The rename names the delete as seen, so it is no unseen move: only what was dropped in unseen lives.
    let mut world = World::new(2);
    let a = world.directory(0, ROOT, "a");
    world.file(0, a, "old");
    world.sync_all();
    world.delete(0, a);
    world.file(1, a, "new");
    world.sync_all();
    world.place(1, a, ROOT, "renamed");
    check(&world, &["renamed", "renamed/new"]);
}

#[test]
fn a_device_that_knows_of_a_delete_but_whose_disk_has_not_followed_moves_unseen() {
    let mut world = World::new(2);
    let a = world.directory(0, ROOT, "a");
    world.file(0, a, "f");
    world.sync_all();
    world.delete(0, a);
    world.learn(1, usize::MAX);
    world.place(1, a, ROOT, "moved");
    check(&world, &["moved", "moved/f"]);
}

#[test]
fn moving_a_directory_out_of_one_that_an_unseen_move_revived_takes_what_it_holds_along() {
    let mut world = World::new(2);
    let a = world.directory(0, ROOT, "a");
    let b = world.directory(0, a, "b");
    world.file(0, b, "f");
    world.sync_all();
    world.delete(0, a);
    world.place(1, a, ROOT, "moved");
    world.sync_all();
    world.place(0, b, ROOT, "out");
    check(&world, &["moved", "out", "out/f"]);
}

#[test]
fn what_a_device_made_is_at_rest_on_its_disk_only_where_nothing_seen_beside_it_has_its_name() {
    // Both `d` are seen as one, and both `d/e`. A disk has them in one directory, or is about to.
    let mut world = World::new(2);
    let (one, other) = (world.directory(0, ROOT, "d"), world.directory(1, ROOT, "d"));
    let (inner, other_inner) = (world.directory(0, one, "e"), world.directory(1, other, "e"));
    world.file(1, other_inner, "f");
    world.sync_all();
    let before = world.devices[0].tree.clone();
    let touched = |world: &mut World, made: &[(ItemId, &str, bool)]| -> Vec<bool> {
        let items: Vec<ItemId> = made.iter().map(|_| world.new_item()).collect();
        let content = |directory: bool| if directory { Content::Directory } else { text("new") };
        // A parent without an item of its own is what was made just before.
        let parent = |at: usize| if made[at].0 == NEWEST { items[at - 1] } else { made[at].0 };
        let changes = (0..made.len()).map(|at| create(items[at], parent(at), made[at].1, content(made[at].2)));
        world.publish(0, changes.collect());
        let packet = &world.packets.last().unwrap().packet;
        let mut tree = before.clone();
        tree.take_touched();
        fold_packet(&mut tree, packet, Folding::Own).unwrap();
        items.iter().map(|item| tree.touched().contains(item)).collect()
    };
    assert_eq!(touched(&mut world, &[(inner, "f", false)]), [true], "the other `e` has an `f`");
    assert_eq!(touched(&mut world, &[(inner, "g", false)]), [false]);
    assert_eq!(touched(&mut world, &[(one, "f", false)]), [false], "it lies above");
    let copy = "f (conflict device1 2026-11-18 abab)";
    assert_eq!(touched(&mut world, &[(inner, copy, false)]), [true], "a copy of `f` may be shown under this name");
    let made = [(inner, "new", true), (NEWEST, "f", false), (inner, "f", true)];
    assert_eq!(touched(&mut world, &made), [false, false, true], "a new directory is seen as one with no other");
    let made = [(inner, "g", false), (one, "e", true), (NEWEST, "h", false), (inner, "h", false)];
    assert_eq!(touched(&mut world, &made), [false, true, false, true], "a third `e` is seen as one with both");
}

/// Stands for the item that the change before makes.
const NEWEST: ItemId = ItemId([0xdd; 16]);
