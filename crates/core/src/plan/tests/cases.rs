//! What one change of others makes of a disk that was in step, and what stays as it is.

use super::*;
use crate::change::Change;
use crate::memory::vault::{named, text};

#[test]
fn what_others_made_is_made_and_the_directory_first() {
    let mut replica = Replica::default();
    let directory = replica.vault.create(2, ItemId::ROOT, "d", Content::Directory);
    let inner = replica.vault.create(2, directory.item, "e", Content::Directory);
    let file = replica.vault.create(2, inner.item, "f", text("first"));
    let plan = replica.plan_for(&[file.item]);
    assert_eq!(told(&plan), ["make d (content)", "make e (content)", "make f (content)"]);
    assert_eq!(plan.steps[2].cause, Cause::Content(file.heads[0]));
    replica.follow();
    assert_eq!(replica.names(), ["d", "d/e", "d/e/f"]);
    in_step(&replica);
}

#[test]
fn what_stands_at_one_place_is_planned_once() {
    let (mut replica, first) = one_file();
    replica.vault.edit(2, &first, "two");
    replica.vault.edit(3, &first, "three");
    let second = replica.vault.create(2, ItemId::ROOT, "f", text("displaced"));
    let plan = replica.plan_for(&[first.item, second.item, first.item]);
    assert_eq!(plan.steps.len(), 3, "{:?}", told(&plan));
    for planned in &plan.steps {
        assert!(matches!(planned.cause, Cause::Conflict(_)), "{:?}", told(&plan));
    }
    assert_eq!(plan.conflicts, BTreeSet::from([first.item]));
    replica.follow();
    in_step(&replica);
}

#[test]
fn what_others_wrote_takes_the_place_of_what_was_there_and_nothing_else_changes() {
    let (mut replica, first) = one_file();
    let edited = replica.vault.edit(2, &first, "second");
    let plan = replica.plan();
    assert_eq!(told(&plan), ["change f to f: content (content)"]);
    assert_eq!(plan.steps[0].cause, Cause::Content(edited.heads[0]));
    assert!(plan.conflicts.is_empty() && plan.also.is_empty());
    replica.vault.edit(2, &edited, "third");
    replica.follow();
    in_step(&replica);
}

#[test]
fn what_others_moved_is_moved_with_the_bytes_that_it_has_here() {
    let (mut replica, first) = one_file();
    let moved = replica.vault.place(2, &first, ItemId::ROOT, "g");
    let plan = replica.plan();
    assert_eq!(told(&plan), ["change f to g: place (placement)"]);
    assert_eq!(plan.steps[0].cause, Cause::Placement(moved.placements[0]));
    let directory = replica.vault.create(2, ItemId::ROOT, "d", Content::Directory);
    replica.vault.place(2, &moved, directory.item, "g");
    let plan = replica.plan_for(&[first.item]);
    assert_eq!(told(&plan), ["make d (content)", "change f to g: place (placement)"]);
    let Step::Make { shown } = plan.steps[0].step.clone() else { unreachable!("it was just told") };
    replica.take(Step::Make { shown });
    replica.vault.place(2, &moved, directory.item, "f");
    let plan = replica.plan_for(&[first.item]);
    assert_eq!(told(&plan), ["change f to f: place (placement)"], "the directory alone is another");
}

#[test]
fn permissions_and_attributes_are_set_where_they_differ() {
    let (mut replica, first) = one_file();
    let item = first.item;
    replica.vault.publish(2, vec![Change::Mode { item, mode: 0o600 }]);
    let plan = replica.plan();
    assert_eq!(told(&plan), ["change f to f: attributes (attributes)"]);
    replica.vault.publish(2, vec![Change::Mode { item, mode: 0o600 }]);
    replica.follow();
    in_step(&replica);
    let (name, value) = (b"user.a".to_vec(), Some(b"b".to_vec()));
    replica.vault.publish(2, vec![Change::Xattr { item, name: name.clone(), value }]);
    assert_eq!(told(&replica.plan()), ["change f to f: attributes (attributes)"]);
    replica.vault.publish(2, vec![Change::Xattr { item, name, value: None }]);
    replica.follow();
    in_step(&replica);
    // What only this disk has set is published before; nothing is planned against it.
    replica.disk[0].entry.mode = Some(0o640);
    assert_eq!(told(&replica.plan_for(&[item])), ["change f to f: attributes (attributes)"]);
}

#[test]
fn permissions_of_a_symlink_wait_until_it_is_a_file() {
    let mut replica = Replica::default();
    let link = replica.vault.create(2, ItemId::ROOT, "l", text("target"));
    let nameless = replica.vault.create(2, ItemId::ROOT, "f", file("nobody set permissions", 0));
    replica.follow();
    replica.disk.iter_mut().for_each(|object| object.entry.mode = None);
    let (item, name) = (link.item, b"user.a".to_vec());
    replica.vault.publish(2, vec![Change::Mode { item, mode: 0o600 }]);
    replica.vault.publish(2, vec![Change::Xattr { item, name, value: Some(Vec::new()) }]);
    assert_eq!(told(&replica.plan_for(&[item, nameless.item])), Vec::<String>::new());
    let changes =
        vec![Change::Content { item, content: file("now a file", 0), replaces: link.heads, trail: Vec::new() }];
    replica.vault.publish(2, changes);
    assert_eq!(told(&replica.plan()), ["change l to l: content attributes (content)"]);
}

#[test]
fn what_others_deleted_is_removed_last() {
    let mut replica = Replica::default();
    let directory = replica.vault.create(2, ItemId::ROOT, "d", Content::Directory);
    let stays = replica.vault.create(2, directory.item, "stays", text("stays"));
    let goes = replica.vault.create(2, directory.item, "goes", text("goes"));
    replica.follow();
    let delete = replica.vault.delete(2, &goes);
    replica.vault.delete(2, &directory);
    replica.vault.place(2, &stays, ItemId::ROOT, "stays");
    let plan = replica.plan();
    assert_eq!(told(&plan)[0], "change stays to stays: place (placement)");
    let mut removals: Vec<&Cause> = plan.removals.iter().map(|planned| &planned.cause).collect();
    removals.retain(|cause| **cause == Cause::Deleted(Some(delete)));
    assert_eq!((plan.steps.len(), plan.removals.len(), removals.len()), (1, 2, 1));
    replica.vault.edit(2, &stays, "touched again");
    replica.vault.publish(2, vec![Change::Mode { item: goes.item, mode: 0o600 }]);
    replica.vault.publish(2, vec![Change::Mode { item: directory.item, mode: 0o700 }]);
    replica.follow();
    assert_eq!(replica.names(), ["stays"]);
}

#[test]
fn what_is_left_of_an_item_that_the_vault_has_forgotten_is_removed() {
    let (mut replica, first) = one_file();
    let forgotten = ItemId([7; 16]);
    let mut old = replica.disk[0].clone();
    (old.entry.name, old.entry.seen.item) = (named("old"), forgotten);
    replica.disk.push(old);
    let plan = replica.plan_for(&[forgotten, first.item]);
    assert_eq!(told(&plan), ["remove old (long deleted)"]);
}

#[test]
fn what_is_ignored_here_is_neither_changed_nor_removed() {
    let (mut replica, first) = one_file();
    replica.disk[0].entry.state = EntryState::Frozen;
    let edited = replica.vault.edit(2, &first, "second");
    assert!(!told(&replica.plan_for(&[first.item])).iter().any(|words| words.starts_with("change")));
    replica.vault.delete(2, &edited);
    assert_eq!(told(&replica.plan()), Vec::<String>::new());
}

#[test]
fn the_same_bytes_under_another_version_are_not_written_again() {
    let (mut replica, first) = one_file();
    let item = first.item;
    let touched = Change::Content { item, content: file("first", 9), replaces: first.heads.clone(), trail: Vec::new() };
    replica.vault.publish(2, vec![touched]);
    assert_eq!(told(&replica.plan()), ["agree f (recorded)"]);
    // A version of which nothing is known any more is no reason to believe that its bytes are there.
    replica.disk[0].entry.seen.heads = vec![Dot { counter: 99, ..first.heads[0] }];
    assert_eq!(told(&replica.plan_for(&[item])), ["change f to f: content (content)"]);
    // Of versions that agree one is enough.
    let standing = replica.vault.seen("f")[0].heads[0];
    replica.disk[0].entry.seen.heads = vec![Dot { counter: 99, ..standing }, standing];
    assert_eq!(told(&replica.plan_for(&[item])), ["agree f (recorded)"]);
    replica.disk[0].entry.seen.heads.clear();
    assert_eq!(told(&replica.plan_for(&[item])), ["change f to f: content (content)"]);
}

#[test]
fn what_only_the_record_lacks_is_recorded() {
    let (mut replica, first) = one_file();
    replica.vault.place(2, &first, ItemId::ROOT, "f");
    let plan = replica.plan();
    assert_eq!(told(&plan), ["agree f (recorded)"]);
    let twin = replica.vault.create(3, ItemId::ROOT, "f", file("first", 0));
    let plan = replica.plan();
    assert_eq!(told(&plan), ["agree f (recorded)"]);
    let Step::Agree { shown, .. } = &plan.steps[0].step else { unreachable!("it was just told") };
    assert_eq!(shown.twins[0].item, twin.item);
}

#[test]
fn what_waits_in_staging_is_brought_to_its_place_and_to_no_other() {
    let (mut replica, first) = one_file();
    replica.disk[0].entry.dir = DirId::STAGING;
    assert_eq!(told(&replica.plan_for(&[first.item])), ["change f to f: place (placement)"]);
    let moved = replica.vault.place(2, &first, ItemId::ROOT, "g");
    let directory = replica.vault.create(2, ItemId::ROOT, "d", Content::Directory);
    replica.vault.place(2, &moved, directory.item, "f");
    assert_eq!(told(&replica.plan_for(&[first.item])), ["make d (content)", "change f to f: place (placement)"]);
}

#[test]
fn a_name_that_stands_in_for_another_stays_while_that_is_shown() {
    let (mut replica, first) = one_file();
    replica.disk[0].entry.name = named("f stands here");
    replica.disk[0].entry.seen.view = View::Mapped { shown: named("f") };
    assert_eq!(shown_name(&replica.disk[0].entry), &named("f"));
    assert_eq!(told(&replica.plan_for(&[first.item])), Vec::<String>::new());
    let shown = &replica.vault.place_named("f")[0];
    let mapped = View::Mapped { shown: named("f") };
    assert_eq!(seen_of(shown, &mapped).view, mapped);
    assert_eq!(seen_of(shown, &View::Mapped { shown: named("g") }).view, View::Plain);
    replica.vault.place(2, &first, ItemId::ROOT, "g");
    assert_eq!(told(&replica.plan()), ["change f stands here to g: place (placement)"]);
}

#[test]
fn whose_move_counts_is_told_and_not_whose_device_comes_last() {
    for (early, late) in [(3, 9), (9, 3)] {
        let (mut replica, first) = one_file();
        replica.vault.place(early, &first, ItemId::ROOT, "early");
        let late = replica.vault.place(late, &first, ItemId::ROOT, "late");
        let plan = replica.plan();
        assert_eq!(told(&plan), ["change f to late: place (placement)"]);
        assert_eq!(plan.steps[0].cause, Cause::Placement(late.placements[0]));
    }
}

#[test]
fn who_deleted_it_is_told_and_not_who_had_tried_before() {
    for (before, at_last) in [(3, 9), (9, 3)] {
        let (mut replica, first) = one_file();
        replica.vault.delete(before, &first);
        let edited = replica.vault.edit(4, &first, "an edit that had not seen it");
        let delete = replica.vault.delete(at_last, &edited);
        let plan = replica.plan();
        assert_eq!(told(&plan), ["remove f (deleted)"]);
        assert_eq!(plan.removals[0].cause, Cause::Deleted(Some(delete)));
    }
}
