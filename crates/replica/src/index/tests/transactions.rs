//! What opening, rolling back and reopening keep and lose.

use std::os::unix::fs::PermissionsExt;

use packetboat_core::local::LocalRead;
use packetboat_core::tree::{TreeRead, TreeWrite};

use super::*;

#[test]
fn a_rollback_restores_caches_as_well_as_rows() {
    let mut index = Index::in_memory().unwrap();
    let directory = new_item(item_id(1), ItemId::ROOT, "a", Content::Directory);
    index.put_item(&directory).unwrap();
    index.begin().unwrap();
    let mut moved = directory.clone();
    moved.at.name = name("b");
    moved.placements[0].placed.name = name("b");
    index.put_item(&moved).unwrap();
    index.put_item(&new_item(ItemId([9; 16]), item_id(1), "c", Content::Directory)).unwrap();
    index.advance_lane(DeviceId([5; 32]), learned(4), 9, &Knowledge::new()).unwrap();
    index.touch(item_id(1)).unwrap();
    assert_eq!(index.knowledge().len(), 1);
    index.rollback().unwrap();

    assert!(!index.in_transaction());
    assert_eq!(index.item(item_id(1)).unwrap(), Some(directory));
    assert_eq!(index.item(ItemId([9; 16])).unwrap(), None);
    assert!(index.knowledge().is_empty());
    assert_eq!(index.max_lamport().unwrap(), 0);
    assert_eq!(index.touched_count().unwrap(), 0);
    // The device's number was given back; the next device may have it.
    index.advance_lane(DeviceId([6; 32]), learned(1), 1, &Knowledge::new()).unwrap();
    index.advance_lane(DeviceId([5; 32]), learned(2), 2, &Knowledge::new()).unwrap();
    assert_eq!(index.knowledge().counter(&DeviceId([6; 32])), 1);
    assert_eq!(index.load_knowledge().unwrap(), *index.knowledge());
}

#[test]
fn a_dry_run_within_a_transaction_takes_back_only_itself() {
    let mut index = Index::in_memory().unwrap();
    index.begin().unwrap();
    index.set_meta("a", Some(b"1")).unwrap();
    index.begin().unwrap();
    index.set_meta("a", Some(b"2")).unwrap();
    index.rollback().unwrap();
    index.begin().unwrap();
    index.set_meta("b", Some(b"3")).unwrap();
    index.commit().unwrap();
    index.commit().unwrap();
    assert_eq!(index.meta("a").unwrap().as_deref(), Some(&b"1"[..]));
    assert_eq!(index.meta("b").unwrap().as_deref(), Some(&b"3"[..]));
    index.rollback().unwrap();
    assert!(index.commit().is_err());
}

#[test]
fn what_was_committed_is_there_after_reopening_and_nothing_else() {
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().join("state/index");
    let mut index = Index::open(&path).unwrap();
    let mode = |path: &Path| std::fs::metadata(path).unwrap().permissions().mode() & 0o777;
    assert_eq!(mode(&path), 0o600);
    assert_eq!(mode(path.parent().unwrap()), 0o700);
    let kept = new_item(item_id(1), ItemId::ROOT, "a", file([1; 32], 5, 5));
    index.begin().unwrap();
    index.put_item(&kept).unwrap();
    index.advance_lane(DeviceId([5; 32]), learned(4), 9, &Knowledge::new()).unwrap();
    index.commit().unwrap();
    index.begin().unwrap();
    index.put_item(&new_item(item_id(2), ItemId::ROOT, "b", file([1; 32], 5, 5))).unwrap();
    drop(index);

    let mut index = Index::open(&path).unwrap();
    assert_eq!(index.item(item_id(1)).unwrap(), Some(kept));
    assert_eq!(index.item(item_id(2)).unwrap(), None);
    assert_eq!(index.knowledge().counter(&DeviceId([5; 32])), 4);
    index.check().unwrap();
    index.tidy().unwrap();
    index.compact().unwrap();
    index.check().unwrap();
}

#[test]
fn a_second_writer_is_told_that_the_index_is_busy() {
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().join("index");
    let mut first = Index::open(&path).unwrap();
    let mut second = Index::open(&path).unwrap();
    second.sql.busy_timeout(Duration::ZERO).unwrap();
    first.begin().unwrap();
    assert!(matches!(second.begin(), Err(IndexError::Busy)));
    first.advance_lane(DeviceId([5; 32]), learned(4), 9, &Knowledge::new()).unwrap();
    first.commit().unwrap();
    assert_eq!(second.load_knowledge().unwrap(), *first.knowledge());
}

#[test]
fn a_newer_or_foreign_or_broken_file_is_refused() {
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().join("newer");
    Index::open(&path).unwrap().sql.execute_batch("PRAGMA user_version = 7").unwrap();
    assert!(matches!(Index::open(&path), Err(IndexError::Newer { version: 7 })));

    let path = directory.path().join("foreign");
    Connection::open(&path).unwrap().execute_batch("CREATE TABLE other (a)").unwrap();
    assert!(matches!(Index::open(&path), Err(IndexError::Damaged { .. })));

    let path = directory.path().join("broken");
    std::fs::write(&path, [b'x'; 5000]).unwrap();
    assert!(matches!(Index::open(&path), Err(IndexError::Damaged { .. })));
}

#[test]
fn a_full_disk_is_told_apart_and_leaves_the_index_as_it_was() {
    let mut index = Index::in_memory().unwrap();
    index.set_meta("a", Some(b"1")).unwrap();
    let pages: i64 = index.sql.query_row("PRAGMA page_count", [], |row| row.get(0)).unwrap();
    index.sql.execute_batch(&format!("PRAGMA max_page_count = {}", pages + 2)).unwrap();
    index.begin().unwrap();
    index.set_meta("a", Some(b"2")).unwrap();
    assert!(matches!(index.set_meta("b", Some(&[0; 100_000])), Err(IndexError::Full)));
    index.rollback().unwrap();
    assert!(!index.in_transaction());
    assert_eq!(index.meta("a").unwrap().as_deref(), Some(&b"1"[..]));
}

#[test]
fn forgotten_numbers_find_no_directory_until_it_is_recorded_anew() {
    let mut index = Index::in_memory().unwrap();
    let mut directories = [(2, "a"), (3, "b")].map(|(own, text)| {
        let mut directory = entry(DirId::ROOT, text, item_id(own));
        directory.own_dir = Some(DirId(u64::from(own)));
        directory.stat = Fingerprint { inode: u64::from(own), btime: 4, ..Default::default() };
        index.put_entry(&directory).unwrap();
        directory
    });
    assert_eq!(index.dir_by_inode(2, 4).unwrap().as_ref(), Some(&directories[0]));
    index.forget_directory_numbers().unwrap();
    assert_eq!((index.dir_by_inode(2, 4).unwrap(), index.dir_by_inode(3, 4).unwrap()), (None, None));
    assert_eq!(index.directory(DirId(2)).unwrap().as_ref(), Some(&directories[0]), "its place is known");
    // It has the number now that the other had.
    directories[0].stat.inode = 3;
    index.put_entry(&directories[0]).unwrap();
    assert_eq!(index.dir_by_inode(3, 4).unwrap().as_ref(), Some(&directories[0]));
}

#[test]
fn every_query_of_the_hot_paths_uses_an_index() {
    let index = Index::in_memory().unwrap();
    let queries = [
        "SELECT n FROM item WHERE parent = ?1 AND hash = ?2 AND name = ?3",
        "SELECT hash, n FROM item WHERE parent = ?1 AND (hash, n) > (?2, ?3) ORDER BY hash, n LIMIT ?4",
        "SELECT l.dir FROM item i JOIN local l ON l.dir = i.dir - ?2 AND l.name = i.name WHERE i.n = ?1",
        "SELECT l.dir FROM stray s JOIN local l ON l.dir = s.dir AND l.name = s.name WHERE s.item = ?1",
        "SELECT l.dir FROM dir d JOIN local l ON l.dir = d.dir AND l.name = d.name WHERE d.inode = ?1 AND d.btime = ?2",
        "SELECT dir, name, item, data FROM local WHERE dir = ?1 AND name > ?2 ORDER BY name LIMIT ?3",
        "SELECT k.id FROM chunk c JOIN part p ON p.n = c.part JOIN pack k ON k.n = p.pack WHERE c.key = ?1",
    ];
    for query in queries {
        let mut statement = index.sql.prepare(&format!("EXPLAIN QUERY PLAN {query}")).unwrap();
        let parameters = statement.parameter_count();
        let rows = statement.query_map(rusqlite::params_from_iter(vec![0; parameters]), |row| row.get::<_, String>(3));
        for line in rows.unwrap() {
            let line = line.unwrap();
            assert!(line.contains("SEARCH") && !line.contains("TEMP B-TREE"), "{query}: {line}");
        }
    }
}

#[test]
fn an_item_that_was_a_directory_is_not_remembered_as_one() {
    let mut index = Index::in_memory().unwrap();
    index.put_item(&new_item(item_id(1), ItemId::ROOT, "a", Content::Directory)).unwrap();
    let file = new_item(item_id(1), ItemId::ROOT, "a", file([1; 32], 5, 5));
    index.put_item(&file).unwrap();
    assert_eq!(index.item(item_id(1)).unwrap(), Some(file));
}

#[test]
fn a_rollback_says_when_the_outer_transaction_is_lost_too() {
    let mut index = Index::in_memory().unwrap();
    index.begin().unwrap();
    index.set_meta("a", Some(b"1")).unwrap();
    index.begin().unwrap();
    // As SQLite does by itself where a disk fails.
    index.sql.execute_batch("ROLLBACK").unwrap();
    assert!(matches!(index.rollback(), Err(IndexError::TakenBack)));
    assert!(!index.in_transaction());
    assert_eq!(index.meta("a").unwrap(), None);
    index.begin().unwrap();
    index.commit().unwrap();
}
