//! What one change of others makes of a disk that was in step, and what stays as it is.

use super::*;
use crate::change::Change;
use crate::content::{ChunkList, FileContent};
use crate::ids::ContentId;
use crate::memory::vault::{named, text};

/// A regular file of these bytes, written at this time.
fn file(bytes: &str, mtime: i64) -> Content {
    let id = ContentId(*blake3::hash(bytes.as_bytes()).as_bytes());
    Content::File(FileContent { id, size: bytes.len() as u64, mtime, chunks: ChunkList::Inline(Vec::new()) })
}

/// A plan in words: what is done to what, and why.
fn told(plan: &Plan) -> Vec<String> {
    let one = |planned: &Planned| {
        let step = match &planned.step {
            Step::Make { shown } => format!("make {}", shown.name),
            Step::Change { entry, shown, content, place, attributes } => {
                let what = [(content, " content"), (place, " place"), (attributes, " attributes")];
                let what: String = what.iter().filter(|(changes, _)| **changes).map(|(_, what)| *what).collect();
                format!("change {} to {}:{what}", entry.name, shown.name)
            }
            Step::Agree { entry, .. } => format!("agree {}", entry.name),
            Step::Remove { entry } => format!("remove {}", entry.name),
        };
        let cause = match planned.cause {
            Cause::Content(_) => "content",
            Cause::Placement(_) => "placement",
            Cause::Attributes => "attributes",
            Cause::Conflict(_) => "conflict",
            Cause::Deleted(Some(_)) => "deleted",
            Cause::Deleted(None) => "long deleted",
            Cause::Merged => "merged",
            Cause::Recorded => "recorded",
        };
        format!("{step} ({cause})")
    };
    plan.steps.iter().chain(&plan.removals).map(one).collect()
}

/// A disk in step with a vault that holds one file `f`.
fn one_file() -> (Replica, Seen) {
    let mut replica = Replica::default();
    let seen = replica.vault.create(2, ItemId::ROOT, "f", file("first", 0));
    replica.follow();
    assert_eq!(replica.names(), ["f"]);
    (replica, seen)
}

/// Nothing more is to be done, however much is looked at.
fn in_step(replica: &Replica) {
    let all: Vec<ItemId> = replica.vault.tree().items().keys().copied().collect();
    assert_eq!(told(&replica.plan_for(&all)), Vec::<String>::new());
}

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
    let (mut replica, first) = one_file();
    let two = replica.vault.edit(2, &first, "two");
    let three = replica.vault.edit(3, &first, "three");
    replica.follow();
    assert_eq!(replica.seen("f").heads, three.heads);
    // Both are edited further: each object on this disk goes on with its own line.
    replica.vault.edit(3, &three, "three further");
    replica.vault.edit(2, &two, "two further");
    let plan = replica.plan();
    for planned in &plan.steps {
        let Step::Change { entry, shown, content: true, place: false, .. } = &planned.step else {
            panic!("{:?}", told(&plan))
        };
        assert!(shown.trail.contains(&entry.seen.heads[0]));
    }
    assert_eq!(plan.steps.len(), 2);
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
