//! What a companion fetches for its host, what it keeps, and what it gives up.

use std::sync::Arc;

use packetboat_core::ids::VaultId;
use packetboat_core::marker::MARKER_NAME;
use packetboat_core::store::{ObjectName, Store};
use packetboat_storage::counting::CountingStore;
use packetboat_storage::memory::MemoryStore;

use super::super::forward::Forward;
use super::super::shelf::{Held, Shelf};
use super::devices::Trio;
use super::order::{Author, put};
use super::{NOW_MS, still};

const VAULT: VaultId = VaultId([7; 16]);

/// An intermediary in memory that has the vault's marker, and a companion with room for `room` bytes.
struct Near {
    _directory: tempfile::TempDir,
    upstream: MemoryStore,
    shelf: Arc<Shelf>,
}

impl Near {
    fn new(room: u64) -> Self {
        let directory = tempfile::tempdir().unwrap();
        let upstream = MemoryStore::new();
        upstream.put(&ObjectName::new(MARKER_NAME).unwrap(), &Author::marker()).unwrap();
        let shelf = Arc::new(Shelf::open(directory.path(), room, still()).unwrap());
        Self { _directory: directory, upstream, shelf }
    }

    fn forward(&self) -> Forward {
        Forward::new(VAULT, self.shelf.clone(), Arc::new(self.upstream.clone()))
    }

    /// The same companion where nothing is reached.
    fn away(&self) -> Forward {
        Forward::new(VAULT, self.shelf.clone(), Arc::new(MemoryStore::new()))
    }

    fn held(&self) -> Held {
        self.shelf.held(VAULT).unwrap()
    }
}

fn large(text: &str) -> (ObjectName, Vec<u8>) {
    Author::pack(&text.repeat(300 << 10))
}

#[test]
fn what_others_published_is_fetched_before_the_host_asks() {
    let mut trio = Trio::new();
    trio.host.sync();
    trio.carried.work().unwrap();
    // The companion is where the intermediary is, and the host is not.
    trio.other.fs.write("later", &[9; 40_000]).unwrap();
    trio.other.sync();
    trio.carried.work().unwrap();
    trio.take_away();
    // Now the host is where the companion is, and the intermediary is not.
    let report = trio.host.sync();
    assert_eq!((report.received.created, report.received.waiting), (1, 0));
    assert_eq!(trio.host.fs.read("later").unwrap(), [9; 40_000]);
}

#[test]
fn what_the_host_asked_for_in_vain_is_fetched_when_it_can_be() {
    let mut trio = Trio::new();
    trio.host.sync();
    trio.other.fs.write("early", &[8; 40_000]).unwrap();
    trio.other.sync();
    // Of what was there before the first time, packs are not fetched: they may be the whole vault.
    trio.carried.work().unwrap();
    trio.take_away();
    let report = trio.host.sync();
    assert!(!trio.host.fs.exists("early"), "{report:?}");
    trio.bring_back();
    trio.carried.work().unwrap();
    trio.take_away();
    trio.host.sync();
    assert_eq!(trio.host.fs.read("early").unwrap(), [8; 40_000]);
}

#[test]
fn looking_for_news_costs_two_requests_when_there_are_none() {
    let near = Near::new(1 << 30);
    let mut author = Author::new(1);
    [author.packet(), author.tip(1)].iter().for_each(|object| put(&near.upstream, object));
    let counting = CountingStore::new(near.upstream.clone());
    let meter = counting.meter();
    let forward = Forward::new(VAULT, near.shelf.clone(), Arc::new(counting));
    assert_eq!(forward.pull().unwrap(), 2);
    let before = meter.traffic();
    assert_eq!(forward.pull().unwrap(), 0);
    let after = meter.traffic();
    assert_eq!((after.gets - before.gets, after.lists - before.lists), (1, 1));
}

#[test]
fn a_pull_gives_up_only_what_the_host_had_and_goes_on_when_it_had_more() {
    let near = Near::new(1 << 20);
    let mut author = Author::new(1);
    put(&near.upstream, &author.tip(1));
    near.forward().pull().unwrap();
    let packs = ["a", "b", "c", "d", "e"].map(large);
    // One that the host put itself, which it has.
    put(&near.forward(), &packs[0]);
    packs[1..].iter().for_each(|pack| put(&near.upstream, pack));
    put(&near.upstream, &author.tip(2));
    near.forward().pull().unwrap();
    let here = |near: &Near| {
        let here = |pack: &&(ObjectName, Vec<u8>)| near.shelf.read(VAULT, &pack.0).unwrap().is_some();
        packs.iter().filter(here).map(|pack| pack.0.clone()).collect::<Vec<_>>()
    };
    let first = here(&near);
    assert_eq!(first.len(), 3, "as many as there is room for");
    assert!(!first.contains(&packs[0].0), "what the host had went first");
    assert!(near.shelf.room().0 <= 1 << 20);
    near.forward().pull().unwrap();
    assert_eq!(here(&near), first, "nothing that the host has not had is given up for more of it");
    for name in &first {
        near.away().get(name, 1 << 20).unwrap();
    }
    near.forward().pull().unwrap();
    let second = here(&near);
    let rest = packs[1..].iter().find(|pack| !first.contains(&pack.0)).unwrap();
    assert!(second.contains(&rest.0), "room came when the host took what there was");
}

#[test]
fn what_was_given_up_for_a_deposit_is_fetched_again() {
    let near = Near::new(1 << 20);
    let mut author = Author::new(1);
    put(&near.upstream, &author.tip(1));
    near.forward().pull().unwrap();
    let packs = ["a", "b", "c"].map(large);
    packs.iter().for_each(|pack| put(&near.upstream, pack));
    put(&near.upstream, &author.tip(2));
    near.forward().pull().unwrap();
    let copies = near.held().copies;
    put(&near.away(), &large("d"));
    assert_eq!((near.held().waiting, near.held().since_ms), (1, Some(NOW_MS)));
    assert!(near.held().copies < copies);
    near.forward().put_up().unwrap();
    near.forward().pull().unwrap();
    for (name, bytes) in &packs {
        assert_eq!(near.away().get(name, 1 << 20).unwrap(), *bytes);
    }
}

#[test]
fn what_is_set_aside_has_an_eighth_of_the_room_and_goes_first() {
    let near = Near::new(1 << 20);
    let mut other = Author::new(1);
    other.nonce = 100;
    let mut ours = Author::new(1);
    let forks: Vec<_> = (0..3).map(|_| (ours.packet(), other.packet())).collect();
    let away = near.away();
    for (mine, theirs) in &forks {
        put(&away, mine);
        put(&near.upstream, theirs);
    }
    near.forward().put_up().unwrap();
    let held = near.held();
    assert_eq!((held.waiting, held.aside), (0, 3));
    assert!(held.aside_bytes > 0 && held.aside_bytes <= 1 << 17, "{held:?}");
    assert_eq!(near.shelf.room().0, held.copies_bytes + held.aside_bytes, "it is counted");
    // A shelf so small that an eighth of it has no room for them all.
    let size = forks[0].0.1.len() as u64;
    let small = Near::new(size * 8 + 64);
    for (mine, theirs) in &forks[..2] {
        put(&small.away(), mine);
        put(&small.upstream, theirs);
    }
    small.forward().put_up().unwrap();
    assert_eq!(small.held().aside, 1, "the oldest of them went");
    let pack = Author::pack(&"p".repeat(size as usize * 8));
    put(&small.away(), &pack);
    assert_eq!((small.held().aside, small.held().waiting), (0, 1), "a deposit goes before what is aside");
}

#[test]
fn a_shelf_of_format_1_is_taken_over() {
    let directory = tempfile::tempdir().unwrap();
    let pack = Author::pack("kept");
    let sql = rusqlite::Connection::open(directory.path().join("shelf.db")).unwrap();
    sql.execute_batch(
        "CREATE TABLE object (vault BLOB NOT NULL, name TEXT NOT NULL, size INTEGER NOT NULL, version INTEGER NOT NULL,
             waiting INTEGER, PRIMARY KEY (vault, name)) WITHOUT ROWID;
         CREATE UNIQUE INDEX waiting ON object (vault, waiting) WHERE waiting IS NOT NULL;
         CREATE TABLE aside (vault BLOB NOT NULL, name TEXT NOT NULL, PRIMARY KEY (vault, name)) WITHOUT ROWID;
         CREATE TABLE sequence (last INTEGER NOT NULL);
         INSERT INTO sequence VALUES (1);
         PRAGMA user_version = 1;",
    )
    .unwrap();
    let row = rusqlite::params![VAULT.as_bytes(), pack.0.as_str(), pack.1.len() as i64];
    sql.execute("INSERT INTO object VALUES (?1, ?2, ?3, 1, 1)", row).unwrap();
    drop(sql);
    let file = directory.path().join(VAULT.to_string()).join(pack.0.as_str());
    std::fs::create_dir_all(file.parent().unwrap()).unwrap();
    std::fs::write(&file, &pack.1).unwrap();
    let shelf = Shelf::open(directory.path(), 1 << 20, still()).unwrap();
    assert_eq!(shelf.waiting(VAULT).unwrap(), std::slice::from_ref(&pack.0));
    assert_eq!(shelf.held(VAULT).unwrap().since_ms, None);
    drop(shelf);
    let shelf = Shelf::open(directory.path(), 1 << 20, still()).unwrap();
    assert_eq!(shelf.next(VAULT).unwrap().unwrap().bytes, pack.1);
}
