//! What this disk's changes become, by what others and a crash did meanwhile.
//!
//! Where it matters what becomes of a content, the changes are folded, and what the vault shows then is looked at.

mod removals;

use super::*;
use crate::memory::vault::{Vault, named, text};

/// What an edit of a disk that has seen this becomes, where it shows nothing of the item elsewhere.
fn edit_alone(vault: &Vault, seen: &Seen, target: &str) -> Publish {
    edit_beside(vault, seen, &[], target)
}

fn edit_beside(vault: &Vault, seen: &Seen, beside: &[Dot], target: &str) -> Publish {
    let Ok(published) = edited(vault.tree(), seen, beside, text(target));
    published
}

/// The changes, where there is anything to publish.
fn changes(published: Publish) -> Vec<Change> {
    match published {
        Publish::Changes(changes, _) => changes,
        Publish::Agreed(seen) => panic!("taken for agreement: {seen:?}"),
    }
}

fn found(content: Content) -> Found {
    Found { content, mode: Some(0o640), xattrs: vec![(b"user.a".to_vec(), b"b".to_vec())] }
}

fn entry(seen: &Seen, name: &str) -> LocalEntry {
    LocalEntry {
        dir: crate::local::DirId::ROOT,
        name: named(name),
        own_dir: None,
        seen: seen.clone(),
        mode: None,
        xattrs: Vec::new(),
        stat: crate::local::Fingerprint::default(),
        state: crate::local::EntryState::Settled,
    }
}

/// A file of three devices: this one (1) has seen its first version, and 2 and 3 wrote over that without each other.
fn conflict(vault: &mut Vault) -> (Seen, Seen, Seen) {
    let first = vault.create(1, ItemId::ROOT, "f", text("first"));
    let two = vault.edit(2, &first, "two");
    let three = vault.edit(3, &first, "three");
    assert_eq!(vault.targets("f"), ["three", "two"]);
    (first, two, three)
}

#[test]
fn what_both_disks_wrote_alike_is_agreement() {
    let mut vault = Vault::default();
    let first = vault.create(1, ItemId::ROOT, "f", text("first"));
    let theirs = vault.edit(2, &first, "second");
    assert_eq!(edit_alone(&vault, &first, "second"), Publish::Agreed(theirs));
    let also = vault.edit(3, &first, "second");
    let Publish::Agreed(seen) = edit_alone(&vault, &first, "second") else { panic!("it is agreement with both") };
    assert_eq!(seen.heads.len(), 2);
    assert!(seen.heads.contains(&also.heads[0]));
}

#[test]
fn an_edit_names_the_versions_that_this_disk_had_seen_and_stands_beside_others() {
    let mut vault = Vault::default();
    let first = vault.create(1, ItemId::ROOT, "f", text("first"));
    let seen = vault.edit(1, &first, "seen");
    vault.edit(2, &seen, "theirs");
    let published = edit_alone(&vault, &seen, "mine");
    let Publish::Changes(changes, after) = published else { panic!("nobody wrote this") };
    assert_eq!(after, SeenAfter { content: true, ..SeenAfter::default() });
    let [Change::Content { item, content, replaces, trail }] = &changes[..] else { panic!("{changes:?}") };
    assert_eq!((*item, content, replaces), (first.item, &text("mine"), &seen.heads));
    let line: Vec<Dot> = trail.iter().map(|mark| mark.dot).collect();
    assert_eq!(line, [seen.heads[0], first.heads[0]]);
    vault.publish(1, changes);
    assert_eq!(vault.targets("f"), ["mine", "theirs"]);
}

#[test]
fn an_edit_of_what_the_vault_does_not_know_is_published_all_the_same() {
    let mut vault = Vault::default();
    let unknown = created(vault.new_item(), Dot { device: crate::ids::DeviceId([9; 32]), counter: 1 });
    let changes = changes(edit_alone(&vault, &unknown, "mine"));
    let [Change::Content { replaces, trail, .. }] = &changes[..] else { panic!("{changes:?}") };
    assert_eq!((replaces, trail.len()), (&unknown.heads, 0));
}

#[test]
fn whoever_writes_the_other_side_over_a_side_that_stands_settles_the_conflict() {
    let mut vault = Vault::default();
    let (_, two, _) = conflict(&mut vault);
    let changes = changes(edit_alone(&vault, &two, "three"));
    vault.publish(2, changes);
    assert_eq!(vault.targets("f"), ["three"]);
}

#[test]
fn an_edit_of_a_side_that_equals_neither_changes_that_side_alone() {
    let mut vault = Vault::default();
    let (_, two, _) = conflict(&mut vault);
    let changes = changes(edit_alone(&vault, &two, "two anew"));
    vault.publish(2, changes);
    assert_eq!(vault.targets("f"), ["three", "two anew"]);
}

#[test]
fn whoever_writes_the_other_side_has_settled_nothing_while_the_other_place_is_emptied_too() {
    let mut vault = Vault::default();
    let (_, two, three) = conflict(&mut vault);
    vault.edit(3, &three, "three anew");
    // This disk shows both sides as they were; its user moves the copy over the file.
    let changes = changes(edit_beside(&vault, &three, &two.heads, "two"));
    vault.publish(1, changes);
    let Ok(removed) = removed(vault.tree(), &[entry(&two, "f's copy")]);
    vault.publish(1, vec![Change::Delete { removed }]);
    assert_eq!(vault.targets("f"), ["two", "three anew"]);
}

#[test]
fn a_version_that_stands_beside_is_not_agreed_though_another_wrote_the_same_since() {
    let mut vault = Vault::default();
    let (first, two, three) = conflict(&mut vault);
    vault.edit(3, &three, "three anew");
    vault.edit(4, &first, "two");
    let both = vault.seen("f")[0].heads.clone();
    assert_eq!(both.len(), 2);
    assert_eq!(changes(edit_beside(&vault, &three, &two.heads, "two")).len(), 1);
    // What stands beside holds something else.
    let published = edit_beside(&vault, &three, &first.heads, "two");
    assert_eq!(published, Publish::Agreed(Seen { heads: both, ..three }));
}

#[test]
fn an_edit_that_equals_what_was_deleted_unseen_brings_the_file_back() {
    let mut vault = Vault::default();
    let first = vault.create(1, ItemId::ROOT, "f", text("first"));
    let second = vault.edit(2, &first, "second");
    vault.delete(2, &second);
    assert!(vault.targets("f").is_empty());
    let changes = changes(edit_alone(&vault, &first, "second"));
    vault.publish(1, changes);
    assert_eq!(vault.targets("f"), ["second"]);
}

#[test]
fn what_a_crash_left_behind_is_not_set_against_its_own_next_version() {
    let mut vault = Vault::default();
    let first = vault.create(1, ItemId::ROOT, "f", text("first"));
    let second = vault.edit(2, &first, "second");
    let third = vault.edit(2, &second, "third");
    vault.edit(2, &third, "fourth");
    // It was brought here, and the crash came before that was recorded.
    for left in [&second, &third] {
        let target = if left == &second { "second" } else { "third" };
        assert_eq!(edit_alone(&vault, &first, target), Publish::Agreed(left.clone()));
    }
    // Whoever had recorded it goes back to it knowingly.
    for (seen, target) in [(&second, "second"), (&second, "first"), (&third, "second")] {
        let changes = changes(edit_alone(&vault, seen, target));
        assert_eq!(changes.len(), 1, "{target} after {seen:?}");
    }
    assert_eq!(changes(edit_alone(&vault, &first, "nobody wrote this")).len(), 1);
}

#[test]
fn what_a_crash_may_have_left_is_kept_where_what_replaced_it_is_deleted() {
    let mut vault = Vault::default();
    let first = vault.create(1, ItemId::ROOT, "f", text("first"));
    vault.edit(3, &first, "beside");
    let second = vault.edit(2, &first, "second");
    let third = vault.edit(2, &second, "third");
    vault.delete(2, &third);
    assert_eq!(vault.targets("f"), ["beside"]);
    // Nothing is left that continues it: if a user wrote it again, nothing but this would keep it.
    let changes = changes(edit_alone(&vault, &first, "second"));
    vault.publish(1, changes);
    assert_eq!(vault.targets("f"), ["second", "beside"]);
}

#[test]
fn an_edit_of_what_two_wrote_alike_replaces_both() {
    let mut vault = Vault::default();
    let first = vault.create(1, ItemId::ROOT, "f", text("first"));
    vault.edit(2, &first, "alike");
    vault.edit(3, &first, "alike");
    let [both] = &vault.seen("f")[..] else { panic!("it is shown as one") };
    let both = both.clone();
    let changes = changes(edit_alone(&vault, &both, "further"));
    vault.publish(1, changes);
    assert_eq!(vault.targets("f"), ["further"]);
}

#[test]
fn an_edit_of_what_two_wrote_alike_changes_no_seats() {
    for (early, late) in [(2, 3), (3, 2)] {
        let mut vault = Vault::default();
        let first = vault.create(1, ItemId::ROOT, "f", text("first"));
        vault.edit(early, &first, "alike");
        vault.edit(4, &first, "other");
        vault.edit(late, &first, "alike");
        let before = vault.place_named("f");
        assert_eq!(vault.targets("f"), ["alike", "other"]);
        let changes = changes(edit_alone(&vault, &vault.seen("f")[0], "further"));
        vault.publish(1, changes);
        assert_eq!(vault.targets("f"), ["further", "other"], "device {late} wrote it last");
        let names = |shown: &[Shown]| shown.iter().map(|shown| shown.name.clone()).collect::<Vec<_>>();
        assert_eq!(names(&before), names(&vault.place_named("f")));
    }
}

#[test]
fn an_edit_of_what_was_replaced_since_goes_on_from_what_was_seen() {
    let mut vault = Vault::default();
    let first = vault.create(1, ItemId::ROOT, "f", text("first"));
    vault.edit(2, &first, "alike");
    vault.edit(3, &first, "alike");
    let both = vault.seen("f").remove(0);
    vault.edit(4, &both, "theirs");
    let changes = changes(edit_alone(&vault, &both, "mine"));
    let [Change::Content { replaces, trail, .. }] = &changes[..] else { panic!("{changes:?}") };
    let line: Vec<Dot> = trail.iter().map(|mark| mark.dot).collect();
    assert_eq!((replaces, line), (&both.heads, vec![both.heads[1], first.heads[0]]));
}

#[test]
fn a_file_without_a_record_that_others_have_replaced_since_was_left_by_a_crash() {
    let mut vault = Vault::default();
    let first = vault.create(2, ItemId::ROOT, "f", text("first"));
    let second = vault.edit(2, &first, "second");
    vault.edit(2, &second, "third");
    let [shown] = &vault.place_named("f")[..] else { panic!("one file") };
    let left = |target| {
        let Ok(seen) = left_behind(vault.tree(), shown, &text(target));
        seen
    };
    assert_eq!(left("first"), Some(first.clone()));
    assert_eq!(left("second"), Some(second.clone()));
    assert_eq!(left("third"), None, "it is what stands");
    assert_eq!(left("nobody wrote this"), None);
    let unknown = Shown { item: ItemId([7; 16]), ..shown.clone() };
    assert_eq!(left_behind(vault.tree(), &unknown, &text("first")), Ok(None));
}

#[test]
fn what_is_new_in_the_folder_is_an_item_of_its_own() {
    let found = found(text("mine"));
    let (item, parent) = (ItemId([5; 16]), ItemId([6; 16]));
    let Publish::Changes(changes, after) = appeared(None, item, parent, &named("f"), &found) else {
        panic!("there is nothing to agree with")
    };
    let Found { content, mode, xattrs } = found;
    assert_eq!(changes, [Change::Create { item, parent, name: named("f"), content, mode, xattrs }]);
    assert_eq!(after, SeenAfter { created: Some(item), ..SeenAfter::default() });
}

/// Which of three things became of an object that appeared where the vault shows something.
fn appeared_at(shown: &Shown, content: Content) -> &'static str {
    match appeared(Some(shown), ItemId([5; 16]), ItemId::ROOT, &shown.name, &found(content)) {
        Publish::Agreed(seen) => {
            assert_eq!(seen, crate::plan::seen_of(shown, &shown.view));
            "agreed"
        }
        Publish::Changes(changes, after) => match &changes[..] {
            [Change::Content { item, replaces, trail, .. }] => {
                assert_eq!((*item, replaces.len(), trail.len()), (shown.item, 0, 0));
                assert_eq!(after, SeenAfter { content: true, ..SeenAfter::default() });
                "a side"
            }
            [Change::Create { .. }] => "its own",
            other => panic!("{other:?}"),
        },
    }
}

#[test]
fn what_others_have_at_the_place_of_a_new_file_is_agreed_or_stands_against_it() {
    let mut vault = Vault::default();
    vault.create(2, ItemId::ROOT, "f", text("theirs"));
    vault.create(2, ItemId::ROOT, "d", Content::Directory);
    let (file, directory) = (vault.place_named("f").remove(0), vault.place_named("d").remove(0));
    assert_eq!(appeared_at(&file, text("theirs")), "agreed");
    assert_eq!(appeared_at(&file, text("mine")), "a side");
    assert_eq!(appeared_at(&file, Content::Directory), "its own");
    assert_eq!(appeared_at(&directory, Content::Directory), "agreed");
    assert_eq!(appeared_at(&directory, text("mine")), "its own");
}

#[test]
fn a_new_file_where_a_conflict_copy_is_to_come_is_a_file_of_its_own() {
    let mut vault = Vault::default();
    conflict(&mut vault);
    vault.create(2, ItemId::ROOT, "d", text("first come"));
    vault.create(3, ItemId::ROOT, "d", text("displaced"));
    let (copy, displaced) = (vault.place_named("f").remove(1), vault.place_named("d").remove(1));
    assert_eq!((&copy.view, &displaced.view), (&View::Copy, &View::Displaced));
    for shown in [copy, displaced] {
        assert_eq!(appeared_at(&shown, text("mine")), "its own");
        assert_eq!(appeared_at(&shown, shown.content.clone()), "agreed");
    }
}

#[test]
fn after_a_packet_an_entry_has_seen_what_that_set_and_nothing_else_anew() {
    let dot = |counter| Dot { device: crate::ids::DeviceId([1; 32]), counter };
    let twin = crate::local::Twin { item: ItemId([8; 16]), heads: vec![dot(4)], placements: vec![dot(5)] };
    let seen = Seen {
        item: ItemId([7; 16]),
        heads: vec![dot(1), dot(2)],
        placements: vec![dot(3)],
        view: View::Displaced,
        twins: vec![twin],
    };
    let nothing = SeenAfter::default();
    let content = SeenAfter { content: true, ..nothing };
    let place = SeenAfter { place: true, ..nothing };
    let new = SeenAfter { created: Some(ItemId([9; 16])), ..nothing };
    assert_eq!(nothing.apply(&seen, dot(6)), seen);
    let edited = Seen { heads: vec![dot(6)], ..seen.clone() };
    assert_eq!(content.apply(&seen, dot(6)), edited);
    let moved = Seen { placements: vec![dot(6)], view: View::Plain, ..seen.clone() };
    assert_eq!(place.apply(&seen, dot(6)), moved);
    assert_eq!(new.apply(&seen, dot(6)), created(ItemId([9; 16]), dot(6)));
    for both in [content.and(place), place.and(content)] {
        assert_eq!(both.apply(&seen, dot(6)), Seen { heads: vec![dot(6)], ..moved.clone() });
    }
    assert_eq!((new.and(nothing), nothing.and(new)), (new, new));
    assert_eq!((content.and(nothing), nothing.and(place), nothing.and(nothing)), (content, place, nothing));
}
