//! What plans make of a disk: trees, edits, moves, conflict copies, contents.

use super::*;

#[test]
fn a_tree_is_made_with_all_that_is_in_it() {
    let mut world = World::new(SimOptions::default());
    small_tree(&mut world);
    let received = world.settle();
    assert_eq!((received.created, received.bytes_written), (6, 11));
    world.shows(&[("c", "three"), ("d", "/"), ("d/a", "one"), ("d/e", "/"), ("d/e/b", "two"), ("d/e/l", "-> ../a")]);
    let tree = world.fs.tree();
    assert!(matches!(tree[&b"d/a"[..]], Node::File { mode: 0o644, mtime: THEN, .. }));
    assert!(matches!(tree[&b"d"[..]], Node::Directory { mode: 0o755, .. }));
    assert_eq!(world.apply().unwrap(), Received::default());
}

#[test]
fn files_are_edited_moved_and_deleted() {
    let mut world = World::new(SimOptions::default());
    let first = small_tree(&mut world);
    world.settle();
    let changed = world.content(b"one, edited");
    world.publish(vec![edit(2, changed, first), place(4, ROOT, "b2", first), delete(&[(5, first)])]);
    let received = world.settle();
    assert_eq!((received.edited, received.moved, received.deleted), (1, 1, 1));
    world.shows(&[("b2", "two"), ("d", "/"), ("d/a", "one, edited"), ("d/e", "/"), ("d/e/l", "-> ../a")]);
}

#[test]
fn two_names_are_swapped() {
    let mut world = World::new(SimOptions::default());
    let changes = vec![world.file(1, ROOT, "a", b"A"), world.file(2, ROOT, "b", b"B")];
    let first = world.publish(changes);
    world.settle();
    world.publish(vec![place(1, ROOT, "b", first), place(2, ROOT, "a", first)]);
    world.settle();
    world.shows(&[("a", "B"), ("b", "A")]);
}

#[test]
fn a_directory_changes_places_with_the_one_above_it() {
    let mut world = World::new(SimOptions::default());
    let changes = vec![
        create(1, ROOT, "a", Content::Directory),
        create(2, item(1), "b", Content::Directory),
        world.file(3, item(1), "in-a", b"1"),
        world.file(4, item(2), "in-b", b"2"),
    ];
    let first = world.publish(changes);
    world.settle();
    world.publish(vec![place(2, ROOT, "a", first), place(1, item(2), "b", first)]);
    world.settle();
    world.shows(&[("a", "/"), ("a/b", "/"), ("a/b/in-a", "1"), ("a/in-b", "2")]);
}

#[test]
fn a_directory_takes_the_name_of_a_deleted_file() {
    let mut world = World::new(SimOptions::default());
    let changes = vec![world.file(1, ROOT, "x", b"file")];
    let first = world.publish(changes);
    world.settle();
    let changes =
        vec![delete(&[(1, first)]), create(2, ROOT, "x", Content::Directory), world.file(3, item(2), "y", b"in it")];
    world.publish(changes);
    world.settle();
    world.shows(&[("x", "/"), ("x/y", "in it")]);
}

#[test]
fn a_deleted_tree_goes_from_the_leaves_up() {
    let mut world = World::new(SimOptions::default());
    let first = small_tree(&mut world);
    world.settle();
    world.publish(vec![delete(&[(1, first), (2, first), (3, first), (4, first), (6, first)])]);
    assert_eq!(world.settle().deleted, 5);
    world.shows(&[("c", "three")]);
}

#[test]
fn conflict_copies_appear_and_vanish() {
    let mut world = World::new(SimOptions::default());
    let changes = vec![world.file(1, ROOT, "f.txt", b"base")];
    let first = world.publish(changes);
    world.settle();
    let (left, right) = (world.content(b"left"), world.content(b"right"));
    let left = world.publish(vec![edit(1, left, first)]);
    let right = world.publish(vec![edit(1, right, first)]);
    assert_eq!(world.settle().conflicts, 1);
    let seen = world.seen();
    assert_eq!(seen.len(), 2, "{seen:?}");
    assert!(seen.values().any(|text| text == "left") && seen.values().any(|text| text == "right"));
    let settled = world.content(b"both");
    let change = Change::Content { item: item(1), content: settled, replaces: vec![left, right], trail: Vec::new() };
    world.publish(vec![change]);
    world.settle();
    world.shows(&[("f.txt", "both")]);
}

#[test]
fn directories_that_come_to_one_name_are_merged_on_disk() {
    let mut world = World::new(SimOptions::default());
    let changes = vec![
        create(1, ROOT, "x", Content::Directory),
        world.file(2, item(1), "one", b"1"),
        create(3, ROOT, "y", Content::Directory),
        world.file(4, item(3), "two", b"2"),
    ];
    let first = world.publish(changes);
    world.settle();
    world.publish(vec![place(3, ROOT, "x", first)]);
    world.settle();
    world.shows(&[("x", "/"), ("x/one", "1"), ("x/two", "2")]);
}

#[test]
fn an_unknown_object_in_the_way_is_left_alone() {
    let mut world = World::new(SimOptions::default());
    world.fs.write("c", b"mine").unwrap();
    small_tree(&mut world);
    assert_eq!(world.apply().unwrap().waiting, 1);
    assert_eq!(world.seen()["c"], "mine");
}

#[test]
fn ignored_items_are_not_made_and_ignored_entries_stay() {
    let mut world = World::new(SimOptions::default());
    world.rules = IgnoreRules::new("e/\n", "").unwrap().0;
    small_tree(&mut world);
    world.settle();
    world.shows(&[("c", "three"), ("d", "/"), ("d/a", "one")]);
    let problems = world.index.problems().unwrap();
    let paths: Vec<_> = problems.iter().filter(|problem| problem.kind == IGNORED).collect();
    assert_eq!(paths.len(), 1);
    assert_eq!(paths[0].subject, b"d/e");
}

#[test]
fn what_is_ignored_by_the_name_that_it_is_shown_under_is_not_looked_at_again() {
    // It was judged by its own name, which no rule ignores, and so it was planned anew in every round.
    let mut world = World::new(SimOptions::default());
    world.rules = IgnoreRules::new("*(conflict*\n", "").unwrap().0;
    let changes = vec![world.file(1, ROOT, "a", b"one"), world.file(2, ROOT, "a", b"two")];
    world.publish(changes);
    world.settle();
    assert!(!world.index.problems().unwrap().is_empty(), "one of the two is ignored");
    assert!(!any_unignored(&world.index, &world.rules).unwrap());
    world.rules = IgnoreRules::new("", "").unwrap().0;
    assert!(any_unignored(&world.index, &world.rules).unwrap());
}

#[test]
fn a_missing_chunk_concerns_its_file_alone() {
    let mut world = World::new(SimOptions::default());
    let lost = world.file(1, ROOT, "lost", b"nowhere");
    world.inline.clear();
    let other = world.file(2, ROOT, "other", b"here");
    let body = vec![lost, other];
    // The packet must know the chunk, though nobody has it.
    let id = world.keys.ring.chunk_id(b"nowhere");
    world.inline.push((id, b"nowhere".to_vec()));
    world.publish(body);
    world.index.remove_inline_chunk(&id).unwrap();
    assert_eq!(world.apply().unwrap().waiting, 1);
    world.shows(&[("other", "here")]);
    assert_eq!(world.index.problems().unwrap()[0].kind, CONTENT);
    world.index.put_inline_chunk(&id, world.dot(1)).unwrap();
    world.settle();
    world.shows(&[("lost", "nowhere"), ("other", "here")]);
    assert!(world.index.problems().unwrap().is_empty());
}

#[test]
fn content_comes_from_packs_and_unchanged_parts_from_the_old_file() {
    let mut world = World::new(SimOptions::default());
    let (a, b, c) = (vec![1u8; 300_000], vec![2u8; 300_000], vec![3u8; 300_000]);
    let before = packed(&mut world, &[&a, &b]);
    let changes = vec![create(1, ROOT, "f", before)];
    let first = world.publish(changes);
    world.settle();
    let after = packed(&mut world, &[&a, &c, &b]);
    world.publish(vec![edit(1, after, first)]);
    // Only the new piece is anywhere but on this disk.
    for piece in [&a, &b] {
        let id = world.keys.ring.chunk_id(piece);
        let Some(packetboat_replica::index::ChunkPlace::Pack { pack, .. }) = world.index.chunk_place(&id).unwrap()
        else {
            panic!("it is in a pack");
        };
        use packetboat_core::store::Store;
        if world.index.pack_index(&pack).unwrap().is_some_and(|pack| pack.chunks.len() == 2) {
            world.store.delete(&object_name(&pack)).unwrap();
        }
    }
    world.settle();
    assert_eq!(world.fs.read("f").unwrap(), [a, c, b].concat());
}

#[test]
fn many_files_are_written_by_threads_in_windows() {
    let mut world = World::new(SimOptions::default());
    (world.threads, world.limits.window) = (4, 2000);
    let mut changes = vec![create(1, ROOT, "d", Content::Directory)];
    for at in 2..120u8 {
        let parent = if at % 2 == 0 { item(1) } else { ROOT };
        changes.push(world.file(at, parent, &format!("f{at}"), &[at; 100]));
    }
    world.publish(changes);
    assert_eq!(world.settle().created, 119);
    for at in 2..120u8 {
        let path = if at % 2 == 0 { format!("d/f{at}") } else { format!("f{at}") };
        assert_eq!(world.fs.read(path).unwrap(), [at; 100]);
    }
}

#[test]
fn a_disk_without_room_is_told_before_anything_is_written() {
    let mut world = World::new(SimOptions { capacity: Some(1000), ..SimOptions::default() });
    let changes = vec![world.file(1, ROOT, "small", &[1; 400]), world.file(2, ROOT, "big", &[2; 900])];
    world.publish(changes);
    assert!(matches!(world.apply(), Err(SyncError::DiskFull)));
    assert_eq!(world.fs.read("small").unwrap(), [1; 400]);
    assert!(!world.fs.exists("big"));
    world.fs.set_options(|options| options.capacity = None);
    world.round().unwrap();
    assert_eq!(world.fs.read("big").unwrap(), [2; 900]);
}
