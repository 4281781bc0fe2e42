//! The check, the seats of a conflict, and what keeps an item alive.

use super::*;
use crate::ids::DeviceId;

fn dot(device: u8, counter: u64) -> Dot {
    Dot { device: DeviceId([device; 32]), counter }
}

fn head(dot: Dot, lamport: Lamport, target: &str, trail: &[(Dot, Lamport)]) -> Head {
    let trail = trail.iter().map(|(dot, lamport)| Mark { dot: *dot, lamport: *lamport, time: 0 }).collect();
    let content = Content::Symlink(target.as_bytes().to_vec());
    Head { dot, lamport, time: 0, content, trail, deletes: Vec::new() }
}

fn item() -> Item {
    let stamp = Stamp { lamport: 1, device: DeviceId([1; 32]), counter: 1, index: 0 };
    let placed = Placed { stamp, parent: ItemId::ROOT, name: Name::new(*b"f").unwrap() };
    Item::new(ItemId([9; 16]), head(dot(1, 1), 1, "a", &[]), placed)
}

#[test]
fn a_version_that_names_every_head_replaces_them() {
    let mut item = item();
    let (checked, replaced) = item.fold_content(head(dot(2, 1), 2, "b", &[]), &[dot(1, 1)]);
    assert_eq!(checked, Checked::Replaced);
    assert_eq!(replaced.len(), 1);
    assert_eq!(item.seats().len(), 1);
}

#[test]
fn a_head_that_is_not_named_is_an_exception_and_stands() {
    let mut item = item();
    item.fold_content(head(dot(2, 1), 2, "b", &[]), &[dot(1, 1)]);
    let (checked, _) = item.fold_content(head(dot(3, 1), 2, "c", &[]), &[dot(1, 1)]);
    assert_eq!(checked, Checked::Exception { standing: vec![dot(2, 1)] });
    assert_eq!(item.seats().len(), 2);
}

#[test]
fn equal_bytes_are_agreement() {
    let mut item = item();
    item.fold_content(head(dot(2, 1), 2, "b", &[]), &[dot(1, 1)]);
    let (checked, _) = item.fold_content(head(dot(3, 1), 2, "b", &[]), &[dot(1, 1)]);
    assert_eq!(checked, Checked::Agreed);
    let seats = item.seats();
    assert_eq!(seats.len(), 1);
    assert_eq!(seats[0].dots, [dot(2, 1), dot(3, 1)]);
}

#[test]
fn an_edit_of_one_of_two_equal_versions_leaves_the_other_that_it_had_not_seen() {
    let agreed = || {
        let mut item = item();
        item.fold_content(head(dot(2, 1), 2, "b", &[]), &[dot(1, 1)]);
        item.fold_content(head(dot(3, 1), 2, "b", &[]), &[dot(1, 1)]);
        item
    };
    let mut item = agreed();
    let (checked, _) = item.fold_content(head(dot(4, 1), 3, "c", &[(dot(2, 1), 2)]), &[dot(2, 1)]);
    assert_eq!(checked, Checked::Exception { standing: vec![dot(3, 1)] });
    assert_eq!(item.seats().len(), 2, "the equal version of whom it had not heard stays beside it");
    let mut item = agreed();
    let both = [dot(2, 1), dot(3, 1)];
    let (checked, _) = item.fold_content(head(dot(4, 1), 3, "c", &[(dot(2, 1), 2)]), &both);
    assert_eq!((checked, item.seats().len()), (Checked::Replaced, 1));
}

#[test]
fn further_edits_of_one_branch_change_no_seats() {
    let mut item = item();
    let root = (dot(1, 1), 1);
    item.fold_content(head(dot(2, 1), 2, "b", &[root]), &[dot(1, 1)]);
    item.fold_content(head(dot(3, 1), 3, "c", &[root]), &[dot(1, 1)]);
    assert_eq!(item.seats()[0].head.dot, dot(3, 1));
    // Device 2 goes on, not knowing of device 3, and its Lamport time passes that of 3.
    for (counter, lamport) in [(2, 5), (3, 9)] {
        let mut trail: Vec<_> = (1..counter).rev().map(|c| (dot(2, c), if c == 1 { 2 } else { 5 })).collect();
        trail.push(root);
        item.fold_content(head(dot(2, counter), lamport, "bb", &trail), &[dot(2, counter - 1)]);
        assert_eq!(item.seats()[0].head.dot, dot(3, 1), "after edit {counter}");
    }
}

#[test]
fn what_two_write_alike_over_one_side_changes_no_seats() {
    let mut item = item();
    let (root, side) = ((dot(1, 1), 1), (dot(2, 1), 2));
    item.fold_content(head(side.0, 2, "b", &[root]), &[dot(1, 1)]);
    item.fold_content(head(dot(3, 1), 3, "c", &[root]), &[dot(1, 1)]);
    let began = |item: &Item| item.seats().iter().map(|seat| seat.began.dot).collect::<Vec<_>>();
    for (device, lamport) in [(2, 4), (4, 5)] {
        item.fold_content(head(dot(device, 2), lamport, "alike", &[side, root]), &[side.0]);
        assert_eq!(began(&item), [dot(3, 1), side.0], "device {device} wrote it");
    }
    let last = item.last_begun(&[dot(2, 2), dot(4, 2)]).unwrap().clone();
    let mut further = head(dot(2, 3), 6, "further", &[]);
    further.trail = item.trail_after(&last);
    item.fold_content(further, &[dot(2, 2), dot(4, 2)]);
    assert_eq!(began(&item), [dot(3, 1), side.0]);
}

#[test]
fn edits_beyond_the_length_of_a_trail_change_neither_seats_nor_where_branches_began() {
    let mut item = item();
    let root = (dot(1, 1), 1);
    item.fold_content(head(dot(2, 1), 2, "b", &[root]), &[dot(1, 1)]);
    item.fold_content(head(dot(3, 1), 3, "c", &[root]), &[dot(1, 1)]);
    let began = |item: &Item| item.seats().iter().map(|seat| seat.began.dot).collect::<Vec<_>>();
    for edit in 2..40 {
        for device in [2, 3] {
            let old = item.heads.iter().find(|head| head.dot.device.0[0] == device).unwrap().clone();
            let mut new = head(dot(device, edit), 10 * edit, &format!("{device} {edit}"), &[]);
            new.trail = item.trail_after(&old);
            assert!(new.trail.len() == MAX_TRAIL.min(edit as usize), "{} marks", new.trail.len());
            assert!(new.trail.is_sorted_by(|newer, older| newer.lamport > older.lamport), "{:?}", new.trail);
            item.fold_content(new, &[old.dot]);
            assert_eq!(began(&item), [dot(3, 1), dot(2, 1)], "edit {edit} of {device}");
        }
    }
}

#[test]
fn an_unseen_edit_beats_a_delete_in_either_order() {
    let edit = || head(dot(2, 1), 2, "b", &[]);
    let mut before = item();
    before.fold_delete(dot(3, 1), &[dot(1, 1)], &[dot(1, 1)]);
    assert!(!before.lives_by_itself());
    before.fold_content(edit(), &[dot(1, 1)]);
    let mut after = item();
    after.fold_content(edit(), &[dot(1, 1)]);
    after.fold_delete(dot(3, 1), &[dot(1, 1)], &[dot(1, 1)]);
    assert_eq!(before, after);
    assert!(before.lives_by_itself());
}

/// Folds two contents against the one with which the item began, each by an author who had seen that alone.
fn beside(first: Head, second: Head) -> Item {
    let mut item = item();
    item.fold_content(first, &[dot(1, 1)]);
    item.fold_content(second, &[dot(1, 1)]);
    item
}

fn placed(device: u8, lamport: Lamport) -> Placed {
    let stamp = Stamp { lamport, device: DeviceId([device; 32]), counter: 1, index: 0 };
    Placed { stamp, parent: ItemId::ROOT, name: Name::new(*b"g").unwrap() }
}

#[test]
fn one_equal_version_beside_another_that_differs_is_an_exception() {
    let mut item = beside(head(dot(2, 1), 2, "b", &[]), head(dot(3, 1), 2, "c", &[]));
    let (checked, _) = item.fold_content(head(dot(4, 1), 3, "b", &[]), &[dot(1, 1)]);
    assert_eq!(checked, Checked::Exception { standing: vec![dot(2, 1), dot(3, 1)] });
}

#[test]
fn what_a_delete_named_is_no_exception_and_is_not_seen_beside_what_stands() {
    let mut item = item();
    item.fold_delete(dot(2, 1), &[dot(1, 1)], &[]);
    let (checked, replaced) = item.fold_content(head(dot(3, 1), 2, "c", &[]), &[]);
    assert_eq!((checked, replaced.len()), (Checked::Replaced, 0));
    assert_eq!(item.seats().iter().map(|seat| seat.head.dot).collect::<Vec<_>>(), [dot(3, 1)]);
    item.fold_delete(dot(4, 1), &[dot(3, 1)], &[]);
    assert_eq!(item.seats().len(), 2, "where nothing else is left, all that was deleted is seen");
}

#[test]
fn of_versions_that_agree_the_one_whose_branch_began_last_takes_the_seat_in_either_order() {
    let (early, late) = (head(dot(3, 1), 2, "b", &[]), head(dot(2, 1), 7, "b", &[]));
    for item in [beside(early.clone(), late.clone()), beside(late, early)] {
        let seats = item.seats();
        assert_eq!(seats.len(), 1);
        assert_eq!((seats[0].head.dot, seats[0].began.dot), (dot(2, 1), dot(2, 1)));
        assert_eq!(seats[0].dots, [dot(2, 1), dot(3, 1)]);
    }
    let (early, late) = (head(dot(2, 1), 2, "b", &[]), head(dot(3, 1), 7, "b", &[]));
    assert_eq!(beside(early, late).seats()[0].head.dot, dot(3, 1));
}

#[test]
fn the_last_placement_in_total_order_counts_whichever_was_folded_last() {
    let mut items = [(); 2].map(|()| item());
    let (early, late) = (placed(3, 4), placed(2, 9));
    for placed in [&early, &late] {
        items[0].fold_placement(placed.clone(), &[]);
    }
    for placed in [&late, &early] {
        items[1].fold_placement(placed.clone(), &[]);
    }
    assert_eq!(items[0], items[1]);
    assert_eq!(*items[0].last_placement(), late);
    let replaced = items[0].fold_placement(placed(4, 10), &[late.stamp.dot(), early.stamp.dot()]);
    assert_eq!(replaced, [early, late]);
    assert_eq!(items[0].placements.len(), 2, "the one that was not named stays");
}

#[test]
fn one_side_that_no_delete_named_keeps_an_item_alive() {
    let mut item = beside(head(dot(2, 1), 2, "b", &[]), head(dot(3, 1), 2, "c", &[]));
    let (removes, other) = (dot(4, 1), dot(5, 1));
    item.fold_delete(removes, &[dot(2, 1)], &[dot(1, 1)]);
    assert!(item.lives_by_itself());
    assert!(!item.is_removed_by(|_| true));
    item.fold_delete(removes, &[dot(3, 1)], &[dot(1, 1)]);
    assert!(!item.lives_by_itself());
    assert!(item.is_removed_by(|delete| *delete == removes) && !item.is_removed_by(|delete| *delete == other));
    // A move that its author did not see.
    assert!(!item.was_moved_unseen_by(&removes));
    item.fold_placement(placed(6, 4), &[]);
    assert!(item.lives_by_itself() && !item.is_removed_by(|_| true));
    assert!(item.was_moved_unseen_by(&removes));
    assert!(!item.was_moved_unseen_by(&other), "that one removed something else");
}

#[test]
fn a_branch_begins_after_what_any_other_came_from() {
    // Two came from a version that the third did not come from.
    let mut item = item();
    let (root, shared) = ((dot(1, 1), 1), (dot(2, 1), 2));
    item.fold_content(head(dot(3, 1), 9, "b", &[(dot(3, 0), 5), shared, root]), &[dot(1, 1)]);
    item.fold_content(head(dot(4, 1), 8, "c", &[shared, root]), &[]);
    item.fold_content(head(dot(5, 1), 7, "d", &[root]), &[]);
    let began: Vec<Dot> = item.seats().iter().map(|seat| seat.began.dot).collect();
    assert_eq!(began, [dot(4, 1), dot(5, 1), dot(3, 0)]);
    // One that came from another that still stands began after that one.
    let mut item = beside(head(dot(2, 1), 2, "b", &[root]), head(dot(3, 1), 9, "c", &[shared, root]));
    assert_eq!(item.seats()[0].began.dot, dot(3, 1));
    item.fold_content(head(dot(4, 1), 5, "d", &[root]), &[]);
    assert_eq!(item.seats()[0].began.dot, dot(3, 1));
}

#[test]
fn an_edit_of_a_branch_that_parted_lately_names_each_version_of_its_line_once() {
    let mut item = item();
    let line: Vec<(Dot, Lamport)> = (1..=MAX_TRAIL as u64).rev().map(|n| (dot(1, n), n)).collect();
    item.fold_content(head(dot(2, 1), 20, "b", &line), &[dot(1, 1)]);
    item.fold_content(head(dot(3, 1), 21, "c", &line), &[]);
    let trail = item.trail_after(&item.heads[0]);
    let expected: Vec<Dot> = [dot(2, 1)].into_iter().chain(line.iter().map(|(dot, _)| *dot)).take(MAX_TRAIL).collect();
    assert_eq!(trail.iter().map(|mark| mark.dot).collect::<Vec<_>>(), expected);
}
