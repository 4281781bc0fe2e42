//! The order in which touched items are handed out.

use std::collections::BTreeSet;

use packetboat_core::tree::TreeWrite;

use super::*;

/// Directories come first, then files, as a scan level by level numbers them.
fn level_by_level(directories: u32, files_each: u32) -> Index {
    let mut index = Index::in_memory().unwrap();
    index.begin().unwrap();
    let mut put = |n: u32, parent: ItemId, content: Content| {
        index.put_item(&new_item(item_id(n), parent, &format!("n{n}"), content)).unwrap();
        index.touch(item_id(n)).unwrap();
    };
    for directory in 0..directories {
        put(directory, ItemId::ROOT, Content::Directory);
    }
    for n in 0..directories * files_each {
        put(directories + n, item_id(n / files_each), file([n as u8; 32], 10, 5));
    }
    index.commit().unwrap();
    index
}

/// All pages of one pass, each untouched as it comes, as a round that takes every step does.
fn pages(index: &mut Index, limit: usize) -> Vec<Vec<ItemId>> {
    let (mut pages, mut after) = (Vec::new(), None);
    loop {
        let (page, last) = index.touched_with_children(after, limit).unwrap();
        let Some(last) = last else { return pages };
        for item in &page {
            index.untouch(*item).unwrap();
        }
        after = Some(last);
        pages.push(page);
    }
}

#[test]
fn a_directory_comes_in_one_page_with_what_it_holds() {
    let mut index = level_by_level(6, 4);
    let pages = pages(&mut index, 12);
    for page in &pages {
        assert!(page.len() <= 12, "a page holds no more than was asked for");
        for directory in (0..6).filter(|n| page.contains(&item_id(*n))) {
            let held = (0..4).map(|n| item_id(6 + directory * 4 + n));
            assert_eq!(held.filter(|item| page.contains(item)).count(), 4, "with directory {directory}");
        }
    }
    assert_eq!(pages.iter().map(Vec::len).collect::<Vec<_>>(), [10, 10, 10]);
}

#[test]
fn every_touched_item_comes_once() {
    for limit in [1, 2, 3, 5, 7, 30, 31, 100] {
        let mut index = level_by_level(6, 4);
        let all: Vec<ItemId> = pages(&mut index, limit).concat();
        assert_eq!(all.len(), 30, "with pages of {limit}");
        assert_eq!(all.into_iter().collect::<BTreeSet<_>>(), (0..30).map(item_id).collect());
        assert_eq!(index.touched_count().unwrap(), 0);
    }
}

#[test]
fn a_directory_that_is_too_large_for_any_page_is_begun_and_its_rest_follows() {
    let mut index = level_by_level(1, 25);
    let pages = pages(&mut index, 10);
    assert_eq!(pages.iter().map(Vec::len).collect::<Vec<_>>(), [10, 10, 6]);
    assert_eq!(pages[0][0], item_id(0));
}

#[test]
fn what_is_touched_anew_behind_the_page_waits_for_the_next_pass() {
    let mut index = level_by_level(2, 2);
    let (first, last) = index.touched_with_children(None, 3).unwrap();
    assert_eq!(first, [item_id(0), item_id(2), item_id(3)]);
    for item in &first[1..] {
        index.untouch(*item).unwrap();
    }
    let (second, _) = index.touched_with_children(last, 3).unwrap();
    assert_eq!(second, [item_id(1), item_id(4), item_id(5)], "the first directory is still touched, and behind");
}

#[test]
fn children_that_are_not_touched_do_not_come() {
    let mut index = level_by_level(2, 3);
    index.untouch(item_id(3)).unwrap();
    let (page, _) = index.touched_with_children(None, 3).unwrap();
    assert_eq!(page, [item_id(0), item_id(2), item_id(4)]);
}
