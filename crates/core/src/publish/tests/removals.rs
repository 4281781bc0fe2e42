//! Objects that were moved or are gone, and the twins that go with them.

use super::*;
use crate::local::DirId;

fn move_to(vault: &mut Vault, entry: &LocalEntry, parent: ItemId, name: &str, target: &str) -> Publish {
    let new_item = vault.new_item();
    let viewer = Viewer::new(vault.tree());
    let Ok(published) = moved(&viewer, entry, parent, &named(name), new_item, &found(text(target)));
    published
}

fn gone(vault: &Vault, seen: &[&Seen]) -> Vec<Removed> {
    let entries: Vec<LocalEntry> = seen.iter().map(|seen| entry(seen, "f")).collect();
    let Ok(removed) = removed(vault.tree(), &entries);
    removed
}

fn all_of(seen: &Seen) -> Removed {
    Removed { item: seen.item, heads: seen.heads.clone(), placements: seen.placements.clone() }
}

#[test]
fn a_rename_moves_the_item_and_names_where_it_was_seen() {
    let mut vault = Vault::default();
    let seen = vault.create(1, ItemId::ROOT, "f", text("first"));
    let Publish::Changes(changes, after) = move_to(&mut vault, &entry(&seen, "f"), ItemId::ROOT, "g", "first") else {
        panic!("nobody else moved it")
    };
    let (item, parent, replaces) = (seen.item, ItemId::ROOT, seen.placements.clone());
    assert_eq!(changes, [Change::Place { item, parent, name: named("g"), replaces }]);
    assert_eq!(after, SeenAfter { place: true, ..SeenAfter::default() });
}

#[test]
fn what_both_disks_moved_alike_is_agreement() {
    let mut vault = Vault::default();
    let directory = vault.create(1, ItemId::ROOT, "d", Content::Directory).item;
    let same = vault.create(2, ItemId::ROOT, "d", Content::Directory).item;
    let seen = vault.create(1, ItemId::ROOT, "f", text("first"));
    vault.place(2, &seen, same, "g");
    vault.place(3, &seen, same, "g");
    let entry = entry(&Seen { view: View::Displaced, ..seen.clone() }, "f");
    let placements = vault.placements(seen.item);
    assert_eq!(placements.len(), 2);
    // Two directories of one name are one.
    let published = move_to(&mut vault, &entry, directory, "g", "first");
    assert_eq!(published, Publish::Agreed(Seen { placements, view: View::Plain, ..seen.clone() }));
    for (parent, name) in [(ItemId::ROOT, "g"), (directory, "f")] {
        assert_eq!(changes(move_to(&mut vault, &entry, parent, name, "first")).len(), 1, "{name}");
    }
}

#[test]
fn a_conflict_copy_that_is_moved_away_becomes_a_file_of_its_own() {
    let mut vault = Vault::default();
    conflict(&mut vault);
    let copy = vault.seen("f").remove(1);
    let published = move_to(&mut vault, &entry(&copy, "f's copy"), ItemId::ROOT, "mine", "two");
    let Publish::Changes(changes, after) = published else { panic!("it is moved") };
    let Change::Create { item, mode, xattrs, .. } = &changes[0] else { panic!("{changes:?}") };
    assert_eq!(
        (after, *mode, xattrs.len()),
        (SeenAfter { created: Some(*item), ..SeenAfter::default() }, Some(0o640), 1)
    );
    vault.publish(1, changes);
    assert_eq!((vault.targets("f"), vault.targets("mine")), (vec!["three".to_owned()], vec!["two".to_owned()]));
}

#[test]
fn a_displaced_file_that_is_moved_away_stays_the_item_that_it_is() {
    let mut vault = Vault::default();
    vault.create(2, ItemId::ROOT, "f", text("first come"));
    let second = vault.create(3, ItemId::ROOT, "f", text("displaced"));
    let displaced = vault.seen("f").remove(1);
    assert_eq!((&displaced.view, displaced.item), (&View::Displaced, second.item));
    let changes = changes(move_to(&mut vault, &entry(&displaced, "f's copy"), ItemId::ROOT, "g", "displaced"));
    vault.publish(1, changes);
    assert_eq!(vault.seen("g")[0].item, second.item);
    assert_eq!(vault.targets("f"), ["first come"]);
}

/// Two files, or directories, that are shown as one under the name `f`.
fn twins(vault: &mut Vault, content: &Content) -> Seen {
    vault.create(2, ItemId::ROOT, "f", content.clone());
    vault.create(3, ItemId::ROOT, "f", content.clone());
    let [one] = &vault.seen("f")[..] else { panic!("they are shown as one") };
    assert_eq!(one.twins.len(), 1);
    one.clone()
}

#[test]
fn an_edit_of_a_file_absorbs_its_twins() {
    let mut vault = Vault::default();
    let seen = twins(&mut vault, &text("alike"));
    let changes = changes(edit_alone(&vault, &seen, "mine"));
    vault.publish(1, changes);
    assert_eq!(vault.targets("f"), ["mine"]);
    assert!(vault.seen("f")[0].twins.is_empty());
}

#[test]
fn a_file_that_is_moved_absorbs_its_twins() {
    let mut vault = Vault::default();
    let seen = twins(&mut vault, &text("alike"));
    let changes = changes(move_to(&mut vault, &entry(&seen, "f"), ItemId::ROOT, "g", "alike"));
    vault.publish(1, changes);
    assert_eq!((vault.targets("f").len(), vault.targets("g")), (0, vec!["alike".to_owned()]));
    assert!(vault.seen("g")[0].twins.is_empty());
}

#[test]
fn a_twin_that_others_edited_unseen_is_not_absorbed() {
    for moves in [false, true] {
        let mut vault = Vault::default();
        let seen = twins(&mut vault, &text("alike"));
        let twin = &seen.twins[0];
        let twin = Seen { item: twin.item, heads: twin.heads.clone(), ..seen.clone() };
        vault.edit(3, &twin, "theirs");
        let published = match moves {
            true => move_to(&mut vault, &entry(&seen, "f"), ItemId::ROOT, "g", "alike"),
            false => edit_alone(&vault, &seen, "mine"),
        };
        vault.publish(1, changes(published));
        assert!(vault.targets("f").contains(&"theirs".to_owned()), "moves: {moves}");
    }
}

#[test]
fn directories_that_are_shown_as_one_are_moved_together() {
    let mut vault = Vault::default();
    let seen = twins(&mut vault, &Content::Directory);
    let entry = LocalEntry { own_dir: Some(DirId(2)), ..entry(&seen, "f") };
    let changes = changes(move_to(&mut vault, &entry, ItemId::ROOT, "g", "unused"));
    vault.publish(1, changes);
    assert_eq!((vault.targets("f").len(), vault.targets("g").len()), (0, 1));
    assert_eq!(vault.seen("g")[0].twins[0].item, seen.twins[0].item);
}

#[test]
fn a_removal_names_all_that_was_seen_of_a_file_and_its_twins() {
    let mut vault = Vault::default();
    let seen = twins(&mut vault, &text("alike"));
    let twin = &seen.twins[0];
    let twin = Removed { item: twin.item, heads: twin.heads.clone(), placements: twin.placements.clone() };
    let removed = gone(&vault, &[&seen]);
    assert_eq!(removed, [all_of(&seen), twin]);
    vault.publish(1, vec![Change::Delete { removed }]);
    assert!(vault.targets("f").is_empty());
}

#[test]
fn what_is_gone_in_the_vault_too_is_removed_without_a_word() {
    let mut vault = Vault::default();
    let seen = vault.create(1, ItemId::ROOT, "f", text("first"));
    let stays = vault.create(1, ItemId::ROOT, "g", text("stays"));
    vault.delete(2, &seen);
    assert_eq!(gone(&vault, &[&seen]), []);
    let unknown = Seen { item: ItemId([7; 16]), ..seen.clone() };
    assert_eq!(gone(&vault, &[&unknown, &stays, &seen]), [all_of(&stays)]);
}

#[test]
fn a_removal_does_not_take_what_others_changed_since() {
    // What others did since, whether anything that was seen still stands, and what is shown in the end.
    let cases: [(&str, bool, bool, bool); 3] =
        [("moved", false, true, true), ("edited", true, false, true), ("edited and moved", true, true, false)];
    for (what, edited, moved, is_told) in cases {
        let mut vault = Vault::default();
        let seen = vault.create(1, ItemId::ROOT, "f", text("first"));
        let mut after = seen.clone();
        if edited {
            after = vault.edit(2, &after, "second");
        }
        if moved {
            after = vault.place(2, &after, ItemId::ROOT, "g");
        }
        let removed = gone(&vault, &[&seen]);
        assert_eq!(removed, if is_told { vec![all_of(&seen)] } else { Vec::new() }, "{what}");
        if is_told {
            vault.publish(1, vec![Change::Delete { removed }]);
        }
        let shown = vault.targets(if moved { "g" } else { "f" });
        assert_eq!(shown, [if edited { "second" } else { "first" }], "{what}");
    }
}

#[test]
fn the_removal_of_one_side_of_a_conflict_names_that_side_though_the_file_was_moved() {
    let mut vault = Vault::default();
    let (_, two, three) = conflict(&mut vault);
    let seen_three = Seen { heads: three.heads.clone(), ..three.clone() };
    vault.place(2, &two, ItemId::ROOT, "g");
    for side in [&two, &seen_three] {
        assert_eq!(gone(&vault, &[side]), [all_of(side)]);
    }
    let removed = gone(&vault, &[&two]);
    vault.publish(1, vec![Change::Delete { removed }]);
    assert_eq!(vault.targets("g"), ["three"]);
}

#[test]
fn a_removal_names_the_place_that_was_seen_though_another_stands_beside_it() {
    let mut vault = Vault::default();
    let seen = vault.create(1, ItemId::ROOT, "f", text("first"));
    let theirs = vault.place(2, &seen, ItemId::ROOT, "g");
    let other = vault.place(3, &seen, ItemId::ROOT, "h");
    vault.edit(3, &other, "second");
    assert_eq!(vault.placements(seen.item).len(), 2);
    for seen in [&theirs, &other] {
        assert_eq!(gone(&vault, &[seen]), [all_of(seen)]);
    }
}

#[test]
fn whoever_removes_all_sides_of_a_conflict_removes_the_file() {
    let mut vault = Vault::default();
    let (_, two, three) = conflict(&mut vault);
    let removed = gone(&vault, &[&three, &two]);
    let heads = vec![two.heads[0], three.heads[0]];
    assert_eq!(removed, [Removed { item: two.item, heads, placements: two.placements.clone() }]);
    vault.publish(1, vec![Change::Delete { removed }]);
    assert!(vault.targets("f").is_empty());
}

#[test]
fn several_files_removed_at_once_are_each_named() {
    let mut vault = Vault::default();
    let files = ["f", "g", "h"].map(|name| vault.create(1, ItemId::ROOT, name, text(name)));
    let removed = gone(&vault, &files.iter().collect::<Vec<_>>());
    assert_eq!(removed, files.each_ref().map(all_of));
}
