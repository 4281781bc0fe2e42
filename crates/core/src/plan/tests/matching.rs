//! Several objects at one place: which of those on the disk is taken for which, and who makes room for whom.

use super::*;
use crate::change::Change;
use crate::memory::vault::{named, text};

#[test]
fn both_sides_of_a_conflict_are_shown_and_this_disks_own_is_kept_as_it_is() {
    for own_wins in [false, true] {
        let (mut replica, first) = one_file();
        let (own, other) = if own_wins { (3, 2) } else { (2, 3) };
        // The one of device 3 comes later, and wins.
        let two = replica.vault.edit(2, &first, "two");
        let three = replica.vault.edit(3, &first, "three");
        let (own_seen, other_seen) = if own_wins { (&three, &two) } else { (&two, &three) };
        replica.disk[0].entry.seen = own_seen.clone();
        replica.disk[0].content = text(if own_wins { "three" } else { "two" });
        let plan = replica.plan();
        let mut words = told(&plan);
        let conflict_name = replica.vault.place_named("f")[1].name.to_string();
        words.iter_mut().for_each(|words| *words = words.replace(&conflict_name, "COPY"));
        let expected: &[&str] = match own_wins {
            false => &["make f (conflict)", "change f to COPY: place (placement)"],
            true => &["make COPY (conflict)"],
        };
        let recorded = words.iter().filter(|words| !words.ends_with("(recorded)")).collect::<Vec<_>>();
        assert_eq!(recorded, expected, "of {own} against {other}");
        let made = plan.steps.iter().find(|planned| matches!(planned.step, Step::Make { .. })).expect("it is made");
        assert_eq!(made.cause, Cause::Conflict(other_seen.heads[0]));
        assert_eq!(plan.conflicts, BTreeSet::from([first.item]));
        replica.vault.publish(2, vec![Change::Mode { item: first.item, mode: 0o600 }]);
        replica.follow();
        in_step(&replica);
    }
}

#[test]
fn an_older_version_becomes_the_side_that_it_came_to_be() {
    for reversed in [false, true] {
        let (mut replica, first) = one_file();
        let two = replica.vault.edit(2, &first, "two");
        let three = replica.vault.edit(3, &first, "three");
        replica.follow();
        assert_eq!(replica.seen("f").heads, three.heads);
        // Both are edited further: each object on this disk goes on with its own line, whichever is found first.
        replica.vault.edit(3, &three, "three further");
        replica.vault.edit(2, &two, "two further");
        if reversed {
            replica.disk.reverse();
        }
        let plan = replica.plan();
        for planned in &plan.steps {
            let Step::Change { entry, shown, content: true, place: false, .. } = &planned.step else {
                panic!("{:?}", told(&plan))
            };
            assert!(shown.trail.contains(&entry.seen.heads[0]));
        }
        assert_eq!(plan.steps.len(), 2);
    }
}

#[test]
fn files_of_one_packet_and_one_name_are_not_taken_for_each_other() {
    let mut replica = Replica::default();
    // The one that is found first on the disk is shown last.
    let [found_first, shown_first] = [(); 2].map(|()| replica.vault.new_item());
    let create = |item, bytes: &str| Change::Create {
        item,
        parent: ItemId::ROOT,
        name: named("f"),
        content: file(bytes, 0),
        mode: None,
        xattrs: Vec::new(),
    };
    let dot = replica.vault.publish(2, vec![create(shown_first, "one"), create(found_first, "other")]);
    replica.follow();
    assert_eq!(replica.seen("f").item, shown_first);
    in_step(&replica);
    let mark = crate::change::Mark { dot, lamport: 1, time: 0 };
    let edit =
        |item, bytes: &str| Change::Content { item, content: file(bytes, 0), replaces: vec![dot], trail: vec![mark] };
    replica.vault.publish(2, vec![edit(shown_first, "one further"), edit(found_first, "other further")]);
    let plan = replica.plan();
    for planned in &plan.steps {
        let Step::Change { entry, shown, content: true, place: false, .. } = &planned.step else {
            panic!("{:?}", told(&plan))
        };
        assert_eq!(entry.seen.item, shown.item);
    }
    assert_eq!((plan.steps.len(), plan.removals.len()), (2, 0));
}

/// A vault of three files of one name, the first of which never came to this disk; it has the others as `old` and `same`.
///
/// All three hold the same now, and are shown as the first; `same` is recorded as that.
fn three_that_came_to_be_one() -> (Replica, ItemId) {
    let mut replica = Replica::default();
    let first = replica.vault.create(2, ItemId::ROOT, "f", text("alike"));
    let old = replica.vault.create(3, ItemId::ROOT, "f", text("before"));
    let same = replica.vault.create(3, ItemId::ROOT, "f", text("alike"));
    replica.vault.edit(3, &old, "alike");
    replica.vault.take_touched();
    replica.stand("old", &old, text("before"));
    replica.stand("same", &same, text("alike"));
    (replica, first.item)
}

#[test]
fn the_bytes_of_a_twin_that_are_here_are_not_fetched_again() {
    let (replica, first) = three_that_came_to_be_one();
    let plan = replica.plan_for(&[first]);
    assert_eq!(told(&plan), ["change same to f: place (placement)", "remove old (merged)"]);
    let (mut replica, first) = three_that_came_to_be_one();
    replica.disk.retain(|object| object.entry.name == named("old"));
    let plan = replica.plan_for(&[first]);
    assert_eq!(
        told(&plan),
        ["change old to f: content place (content)"],
        "an older version of a twin is better than none"
    );
}

#[test]
fn what_was_deleted_becomes_no_other_file() {
    let mut replica = Replica::default();
    let first = replica.vault.create(2, ItemId::ROOT, "f", text("alike"));
    // One packet makes a twin of that and another file, which is found first.
    let [other, twin] = [(); 2].map(|()| replica.vault.new_item());
    let create = |item, target| Change::Create {
        item,
        parent: ItemId::ROOT,
        name: named("f"),
        content: text(target),
        mode: None,
        xattrs: Vec::new(),
    };
    let dot = replica.vault.publish(3, vec![create(other, "other"), create(twin, "alike")]);
    let [other, twin] = [other, twin].map(|item| crate::publish::created(item, dot));
    replica.vault.delete(3, &other);
    replica.vault.take_touched();
    replica.stand("other", &other, text("other"));
    replica.stand("twin", &twin, text("alike"));
    let plan = replica.plan_for(&[first.item]);
    assert_eq!(told(&plan), ["change twin to f: place (placement)", "remove other (deleted)"]);
    replica.disk.retain(|object| object.entry.name == named("other"));
    let plan = replica.plan_for(&[first.item]);
    assert_eq!(told(&plan), ["make f (content)", "remove other (deleted)"]);
}

#[test]
fn whichever_side_is_left_the_disk_keeps_that_one() {
    for left in ["two", "three"] {
        let (mut replica, first) = one_file();
        let two = replica.vault.edit(2, &first, "two");
        let three = replica.vault.edit(3, &first, "three");
        replica.follow();
        let goes = if left == "two" { &three } else { &two };
        let item = first.item;
        let removed = vec![crate::change::Removed { item, heads: goes.heads.clone(), placements: Vec::new() }];
        replica.vault.publish(2, vec![Change::Delete { removed }]);
        let plan = replica.plan();
        let contents = plan.steps.iter().any(|planned| matches!(planned.step, Step::Change { content: true, .. }));
        assert!(!contents, "nothing is fetched: {:?}", told(&plan));
        assert_eq!(plan.removals[0].cause, Cause::Merged);
        replica.vault.publish(2, vec![Change::Mode { item, mode: 0o600 }]);
        replica.follow();
        assert_eq!((replica.names(), replica.vault.targets("f")), (vec!["f".to_owned()], vec![left.to_owned()]));
    }
}

#[test]
fn who_stood_in_the_way_of_a_name_leaves_it_to_the_next() {
    let (mut replica, first) = one_file();
    let second = replica.vault.create(3, ItemId::ROOT, "f", file("second", 0));
    replica.follow();
    assert_eq!(replica.seen("f").item, first.item);
    replica.vault.place(2, &first, ItemId::ROOT, "g");
    // However much of it was touched, what the disk has at the old name is looked at too.
    let plan = replica.plan_for(&[first.item]);
    assert_eq!(plan.steps.len(), 2, "{:?}", told(&plan));
    replica.follow();
    assert_eq!((replica.seen("f").item, replica.seen("g").item), (second.item, first.item));
    in_step(&replica);
}

#[test]
fn directories_of_one_name_become_one_and_part_again() {
    let mut replica = Replica::default();
    let mut directories = Vec::new();
    for (device, name) in [(2, "d"), (3, "e")] {
        let directory = replica.vault.create(device, ItemId::ROOT, name, Content::Directory);
        replica.vault.create(device, directory.item, name, text(name));
        replica.vault.create(device, directory.item, "both", text(name));
        directories.push(directory);
    }
    replica.follow();
    let together = replica.vault.place(2, &directories[1], ItemId::ROOT, "d");
    let plan = replica.plan();
    assert_eq!(plan.also.len(), 4, "what both hold is looked at");
    assert_eq!(plan.removals[0].cause, Cause::Merged);
    let touch = |replica: &mut Replica| {
        let modes = directories.iter().map(|directory| Change::Mode { item: directory.item, mode: 0o700 }).collect();
        replica.vault.publish(2, modes);
    };
    touch(&mut replica);
    replica.follow();
    assert_eq!(replica.names().len(), 5, "{:?}", replica.names());
    replica.vault.place(2, &together, ItemId::ROOT, "e");
    replica.follow();
    assert_eq!(replica.names(), ["d", "d/both", "d/d", "e", "e/both", "e/e"]);
    in_step(&replica);
}

#[test]
fn what_a_directory_holds_leaves_it_before_it_goes() {
    let mut replica = Replica::default();
    let goes = replica.vault.create(2, ItemId::ROOT, "d", Content::Directory);
    let stays = replica.vault.create(3, ItemId::ROOT, "d", Content::Directory);
    replica.vault.create(3, stays.item, "inner", text("inner"));
    replica.follow();
    assert_eq!(replica.names(), ["d", "d/inner"]);
    // The one that stands for both on this disk is deleted, and the other gets a name of its own.
    replica.vault.place(3, &stays, ItemId::ROOT, "e");
    replica.vault.delete(2, &goes);
    replica.follow();
    assert_eq!(replica.names(), ["e", "e/inner"]);
    in_step(&replica);
}

#[test]
fn files_that_come_to_hold_the_same_become_one() {
    let (mut replica, first) = one_file();
    let second = replica.vault.create(3, ItemId::ROOT, "f", file("second", 0));
    replica.follow();
    assert_eq!(replica.disk.len(), 2);
    let content = file("first", 5);
    let same = Change::Content { item: second.item, content, replaces: second.heads, trail: Vec::new() };
    replica.vault.publish(3, vec![same]);
    let plan = replica.plan();
    assert_eq!(plan.removals.iter().map(|planned| &planned.cause).collect::<Vec<_>>(), [&Cause::Merged]);
    replica.vault.publish(2, vec![Change::Mode { item: first.item, mode: 0o600 }]);
    replica.follow();
    assert_eq!(replica.names(), ["f"]);
    // Whoever deleted the one that was shown had not seen the other: that stands.
    replica.vault.delete(2, &first);
    assert_eq!(told(&replica.plan()), ["make f (content)", "remove f (deleted)"]);
    replica.vault.publish(2, vec![Change::Mode { item: first.item, mode: 0o640 }]);
    replica.follow();
    assert_eq!((replica.names(), replica.seen("f").item), (vec!["f".to_owned()], second.item));
}

#[test]
fn an_item_of_a_conflict_copys_name_has_that_copy_shown_under_a_longer_one() {
    let (mut replica, first) = one_file();
    replica.vault.edit(2, &first, "two");
    replica.vault.edit(3, &first, "three");
    replica.follow();
    let copy = replica.vault.place_named("f")[1].name.to_string();
    let same = replica.vault.create(2, ItemId::ROOT, &copy, text("of that name"));
    let plan = replica.plan_for(&[same.item]);
    assert!(plan.steps.iter().any(|planned| matches!(planned.step, Step::Change { place: true, .. })));
    replica.follow();
    assert_eq!(replica.disk.len(), 3);
    replica.vault.delete(2, &same);
    replica.follow();
    assert_eq!(replica.disk.len(), 2);
    in_step(&replica);
}
