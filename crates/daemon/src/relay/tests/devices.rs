//! Whole synchronisations through a companion.

use std::sync::Arc;
use std::time::Duration;

use packetboat_core::ids::VaultId;
use packetboat_core::keys::KeyRing;
use packetboat_core::marker::{Argon2Cost, MARKER_NAME, MAX_MARKER_BYTES};
use packetboat_core::store::{ObjectName, Store};
use packetboat_engine::ports::{Clock, Silent};
use packetboat_engine::replica::{Parts, Replica, Report, Settings, SyncOptions};
use packetboat_replica::index::Index;
use packetboat_storage::folder::FolderStore;
use packetboat_testkit::rng::Rng;
use packetboat_testkit::sim_fs::{SimFs, SimOptions};

use super::super::carried::Carried;
use super::super::members::Members;
use super::super::places::Places;
use super::super::shelf::Shelf;
use super::{TestLink, still};

/// A device's folder and replica.
pub(super) struct Device {
    pub(super) fs: SimFs,
    pub(super) replica: Replica,
}

impl Device {
    pub(super) fn sync(&mut self) -> Report {
        self.replica.sync(SyncOptions::default(), &mut Silent).unwrap()
    }

    pub(super) fn parts(fs: &SimFs, store: Arc<dyn Store>, seed: u64) -> Parts {
        if !fs.exists(".packetboat") {
            fs.make_dir(".packetboat").unwrap();
            fs.settle();
        }
        Parts {
            fs: Arc::new(fs.clone()),
            index: Index::in_memory().unwrap(),
            store,
            place: "storage".to_owned(),
            clock: Box::new(Still),
            entropy: Box::new(Rng::new(seed)),
            // Nothing travels inside packets, so that packs take part.
            settings: Settings { passphrase_cost: Argon2Cost::MINIMUM, inline_bytes: 0, ..Settings::default() },
        }
    }
}

struct Still;

impl Clock for Still {
    fn now_ms(&self) -> i64 {
        1_790_000_000_000
    }
    fn wait(&self, _: u64) {}
}

/// A host whose only way is its companion, another device that reaches the intermediary itself, and the companion.
pub(super) struct Trio {
    pub(super) directory: tempfile::TempDir,
    pub(super) link: TestLink,
    pub(super) carried: Arc<Carried>,
    pub(super) shelf: Arc<Shelf>,
    pub(super) host: Device,
    pub(super) other: Device,
    pub(super) vault: VaultId,
    pub(super) ring: KeyRing,
}

impl Trio {
    pub(super) fn new() -> Self {
        let directory = tempfile::tempdir().unwrap();
        let place = directory.path().join("place");
        std::fs::create_dir(&place).unwrap();
        let upstream: Arc<dyn Store> = Arc::new(FolderStore::new(&place));
        let maker = SimFs::new(SimOptions::default());
        let parts = Device::parts(&maker, upstream.clone(), 1);
        let (maker_replica, _) = Replica::create(parts, b"correct horse", "other").unwrap();
        let marker = Replica::read_marker(upstream.as_ref()).unwrap().unwrap();
        let ring = marker.unlock_with_passphrase(b"correct horse").unwrap();
        let vault = marker.vault();

        let shelf = Arc::new(Shelf::open(&directory.path().join("shelf"), 1 << 30, still()).unwrap());
        let mut places = Places::default();
        places.add(vault, place);
        places.write(&directory.path().join("carried.json")).unwrap();
        let carried = Arc::new(Carried::new(
            directory.path().join("carried.json"),
            shelf.clone(),
            Arc::new(Members::none(still())),
            true,
        ));
        let answering = carried.clone();
        let link = TestLink::new(move |request, body| answering.answer(request, body));

        let host = Self::joined(&link, vault, &ring, "host", 2);
        let other = Device { fs: maker, replica: maker_replica };
        Self { directory, link, carried, shelf, host, other, vault, ring }
    }

    pub(super) fn joined(link: &TestLink, vault: VaultId, ring: &KeyRing, name: &str, seed: u64) -> Device {
        let fs = SimFs::new(SimOptions::default());
        let parts = Device::parts(&fs, Arc::new(link.store(vault)), seed);
        let replica = Replica::join(parts, ring.clone(), name).unwrap();
        Device { fs, replica }
    }

    /// Takes the intermediary away, as when a mount goes or a network does.
    pub(super) fn take_away(&self) {
        std::fs::rename(self.directory.path().join("place"), self.directory.path().join("gone")).unwrap();
    }

    pub(super) fn bring_back(&self) {
        std::fs::rename(self.directory.path().join("gone"), self.directory.path().join("place")).unwrap();
    }
}

#[test]
fn two_replicas_are_in_step_by_way_of_a_companion() {
    let mut trio = Trio::new();
    trio.other.fs.write("from-other", b"written where the intermediary is").unwrap();
    trio.other.sync();
    trio.host.fs.write("from-host", b"written where only the companion is").unwrap();
    let report = trio.host.sync();
    assert_eq!((report.received.created, report.sent.created), (1, 1));
    trio.other.sync();
    assert_eq!(trio.other.fs.read("from-host").unwrap(), b"written where only the companion is");
    assert_eq!(trio.host.fs.read("from-other").unwrap(), b"written where the intermediary is");
    assert_eq!(trio.host.sync().state, trio.other.sync().state);
    assert_eq!(trio.shelf.held(trio.vault).unwrap().waiting, 0);
}

#[test]
fn what_was_deposited_while_both_were_offline_goes_up_later() {
    let mut trio = Trio::new();
    trio.host.fs.write("one", b"before").unwrap();
    trio.host.sync();
    trio.take_away();
    for (name, text) in [("two", "deposited first"), ("one", "deposited second"), ("three", "deposited third")] {
        trio.host.fs.write(name, text.as_bytes()).unwrap();
        trio.host.sync();
    }
    let held = trio.shelf.held(trio.vault).unwrap();
    assert!(held.waiting >= 3, "{held:?}");
    trio.link.cut();
    assert_eq!(trio.carried.put_up().unwrap(), 0, "it is still away");
    trio.bring_back();
    assert_eq!(trio.carried.put_up().unwrap(), held.waiting);
    assert_eq!(trio.shelf.held(trio.vault).unwrap().waiting, 0);
    trio.other.sync();
    for (name, text) in [("two", "deposited first"), ("one", "deposited second"), ("three", "deposited third")] {
        assert_eq!(trio.other.fs.read(name).unwrap(), text.as_bytes());
    }
}

#[test]
fn a_host_learns_from_copies_while_the_intermediary_is_away() {
    let mut trio = Trio::new();
    trio.other.fs.write("note", &[7; 5000]).unwrap();
    trio.other.sync();
    trio.host.sync();
    trio.take_away();
    // Another replica beside the host has never seen any of it.
    let mut second = Trio::joined(&trio.link, trio.vault, &trio.ring, "second", 9);
    trio.host.fs.write("more", b"and this").unwrap();
    trio.host.sync();
    second.sync();
    assert_eq!(second.fs.read("more").unwrap(), b"and this");
    trio.bring_back();
    second.sync();
    assert_eq!(second.fs.read("note").unwrap(), [7; 5000]);
    trio.carried.put_up().unwrap();
    trio.other.sync();
    assert_eq!(trio.other.fs.read("more").unwrap(), b"and this");
}

#[test]
fn a_vault_that_is_not_carried_is_refused_with_what_to_do() {
    let trio = Trio::new();
    let error = trio.link.store(VaultId([9; 16])).list("tips").unwrap_err();
    assert!(crate::files::with_causes(&error).contains("packetboat carry"), "{error:?}");
}

#[test]
fn an_empty_mount_is_not_an_empty_vault() {
    let mut trio = Trio::new();
    trio.host.fs.write("kept", b"kept").unwrap();
    trio.host.sync();
    trio.take_away();
    std::fs::create_dir(trio.directory.path().join("place")).unwrap();
    trio.host.fs.write("new", b"new").unwrap();
    trio.host.sync();
    assert!(std::fs::read_dir(trio.directory.path().join("place")).unwrap().next().is_none(), "nothing is put there");
    assert!(trio.shelf.held(trio.vault).unwrap().waiting > 0);
    std::fs::remove_dir(trio.directory.path().join("place")).unwrap();
    trio.bring_back();
    trio.carried.put_up().unwrap();
    trio.other.sync();
    assert_eq!(trio.other.fs.read("new").unwrap(), b"new");
}

#[test]
fn the_keys_change_only_where_the_vault_is_reached() {
    let trio = Trio::new();
    let store = trio.link.store(trio.vault);
    let name = ObjectName::new(MARKER_NAME).unwrap();
    let marker = store.get(&name, MAX_MARKER_BYTES as u64).unwrap();
    store.put(&name, &marker).unwrap();
    trio.take_away();
    let error = store.put(&name, &marker).unwrap_err();
    assert!(crate::files::with_causes(&error).contains("only where the vault is reached"), "{error:?}");
    assert_eq!(store.get(&name, MAX_MARKER_BYTES as u64).unwrap(), marker, "a copy opens the vault meanwhile");
}

#[test]
fn a_large_file_passes_quickly() {
    let mut trio = Trio::new();
    let content = Rng::new(77).bytes(100 << 20);
    trio.host.fs.write("large", &content).unwrap();
    let runtime = tokio::runtime::Builder::new_current_thread().enable_time().build().unwrap();
    let watch = runtime.block_on(async { tokio::time::Instant::now() });
    trio.host.sync();
    let up = watch.elapsed();
    trio.other.sync();
    assert_eq!(trio.other.fs.read("large").unwrap(), content);
    println!("100 MB from the host to the intermediary through the companion in {up:?}");
    assert!(up < Duration::from_secs(120), "{up:?}");
}
