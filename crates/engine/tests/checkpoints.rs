//! Checkpoints between whole replicas: what a device that begins from one knows, and what happens when one is bad.

use std::collections::BTreeMap;
use std::sync::atomic::{AtomicI64, AtomicU64, Ordering};
use std::sync::{Arc, Mutex};

use packetboat_core::checkpoint::{CheckpointRef, CheckpointRoot, SealedCheckpoint, UnverifiedCheckpoint};
use packetboat_core::content::{ChunkList, Content};
use packetboat_core::ids::{ChunkId, PacketHash};
use packetboat_core::item::Item;
use packetboat_core::keys::{DeviceKey, KeyRing, Nonce};
use packetboat_core::knowledge::{Knowledge, Learned};
use packetboat_core::marker::Argon2Cost;
use packetboat_core::store::{Listed, ObjectName, Put, Store, StoreError};
use packetboat_core::tree::MoveRecord;
use packetboat_engine::error::SyncError;
use packetboat_engine::ports::{Clock, Note, Observer, Phase, Silent};
use packetboat_engine::replica::{Parts, Replica, Settings, SyncOptions};
use packetboat_replica::index::{ChunkPlace, Index, Member};
use packetboat_storage::memory::MemoryStore;
use packetboat_testkit::faulty_store::{FaultConfig, FaultyStore};
use packetboat_testkit::rng::Rng;
use packetboat_testkit::sim_fs::{Node, SimFs, SimOptions};

#[test]
fn a_device_that_begins_from_a_checkpoint_knows_what_one_that_folded_every_packet_knows() {
    let vault = Vault::with_history();
    let from_checkpoint = vault.join("new", 10, &vault.store);
    let from_lanes = vault.join("new", 10, &vault.without_checkpoints());
    assert!(from_checkpoint.is_from_checkpoint() && !from_lanes.is_from_checkpoint());
    assert_same(&from_checkpoint, &from_lanes);
    assert_eq!(from_checkpoint.shown(), from_lanes.shown());
    assert!(from_lanes.shown().len() > 100, "files are on disk");
    assert!(!from_lanes.state().moves.is_empty(), "the history has directory moves");
    for (chunk, len) in from_lanes.live_chunks() {
        let place = from_checkpoint.replica.index().chunk_place(&chunk).unwrap();
        assert!(place.is_some(), "a chunk of {len} bytes is nowhere");
    }
}

#[test]
fn joining_reads_no_packet_that_the_checkpoint_contains() {
    let vault = Vault::with_history();
    let store = Watched::new(&vault.store);
    let device = vault.join("new", 10, &store);
    assert!(device.is_from_checkpoint());
    let read = store.read.lock().unwrap().clone();
    let of = |folder: &str| read.iter().filter(|name| name.starts_with(folder)).count();
    println!("joining read {} times: {read:#?}", read.len());
    assert_eq!(of("checkpoints/"), 1);
    // Two devices; each wrote at most a few packets that are neither in the checkpoint nor in its tip.
    assert!(of("lanes/") <= 2, "{read:#?}");
    assert_eq!(store.listed.lock().unwrap().as_slice(), ["tips"]);
}

#[test]
fn a_damaged_object_of_a_checkpoint_is_passed_over_and_the_lanes_are_read() {
    let vault = Vault::with_history();
    let whole = vault.join("new", 10, &vault.without_checkpoints());
    let mut passed_over = 0;
    for name in vault.store.names() {
        let of_checkpoint = name.as_str().starts_with("checkpoints/") || name.as_str().starts_with("packs/");
        if !of_checkpoint {
            continue;
        }
        for damage in [Damage::Flip, Damage::Cut, Damage::Remove] {
            let store = copy(&vault.store, |_| true);
            damage.apply(&store, &name);
            let device = vault.join("new", 10, &store);
            passed_over += usize::from(!device.is_from_checkpoint());
            assert_same(&device, &whole);
        }
    }
    assert!(passed_over >= 6, "root and segments were damaged, and {passed_over} joined from the lanes");
}

#[test]
fn a_checkpoint_under_the_name_of_another_is_passed_over() {
    let vault = Vault::with_history();
    let roots: Vec<ObjectName> =
        vault.store.names().into_iter().filter(|name| name.as_str().starts_with("checkpoints/")).collect();
    let named = CheckpointRef::from_name(&roots[0]).unwrap();
    let store = copy(&vault.store, |_| true);
    let bytes = store.get(&roots[0], u64::MAX).unwrap();
    for name in &roots {
        store.delete(name).unwrap();
    }
    store.put(&CheckpointRef { number: named.number + 7, ..named }.name(), &bytes).unwrap();
    assert!(!vault.join("new", 10, &store).is_from_checkpoint());
}

#[test]
fn a_checkpoint_that_claims_what_the_lanes_do_not_hold_is_found_by_verifying() {
    let mut vault = Vault::with_history();
    let mut roots = vault.store.names().into_iter().filter(|name| name.as_str().starts_with("checkpoints/"));
    let real = CheckpointRef::from_name(&roots.next_back().unwrap()).unwrap();
    let bytes = vault.store.get(&real.name(), u64::MAX).unwrap();
    let sealed = UnverifiedCheckpoint::parse(bytes).unwrap().verify(&real.device).unwrap();
    let root = sealed.open(&vault.ring).unwrap();
    assert_eq!(vault.devices[0].replica.verify(false, &mut Silent).unwrap().faults, []);
    // A member makes one up: with other packets in a lane, and with more than there are.
    let forger = DeviceKey::from_seed(&[9; 32]);
    for (more, reason) in [(0, "another packet"), (1000, "no lane here holds")] {
        let mut knowledge = Knowledge::new();
        for (at, (device, learned)) in root.knowledge.iter().enumerate() {
            let made_up = Learned { counter: learned.counter + more, hash: PacketHash([7; 32]) };
            knowledge.advance(*device, if at == 0 { made_up } else { *learned });
        }
        let forged = CheckpointRoot { number: 1, knowledge, ..root.clone() };
        let sealed = SealedCheckpoint::seal(&forger, &vault.ring, Nonce([3; 24]), &forged).unwrap();
        let name = CheckpointRef { device: forger.device(), number: 1 }.name();
        vault.store.put(&name, sealed.bytes()).unwrap();
        let faults = vault.devices[0].replica.verify(false, &mut Silent).unwrap().faults;
        let [fault] = &faults[..] else { panic!("{faults:?}") };
        assert!(fault.object == name.as_str() && fault.what.contains(reason), "{faults:?}");
    }
}

#[test]
fn a_crash_at_any_put_of_a_round_that_writes_a_checkpoint_costs_nothing() {
    for at in 1.. {
        let storage = FaultyStore::new(1, FaultConfig::none());
        let mut vault = Vault::create(Arc::new(storage.clone()));
        let mut writer = vault.devices.remove(0);
        writer.write_rounds(63);
        writer.fs.write("last", b"of all").unwrap();
        storage.crash_at(at);
        let _ = writer.sync();
        let crashed = storage.has_crashed();
        storage.revive();
        writer = writer.restarted();
        writer.sync().unwrap();
        writer.fs.write("later", b"than all").unwrap();
        writer.sync().unwrap();
        // After a storage that failed, it is tried again when there is more to write.
        if !writer.names_checkpoint(&storage) {
            writer.write_rounds(17);
        }
        let folded = writer.state();
        let new = vault.join("new", 10, &storage);
        assert!(new.is_from_checkpoint(), "crash at put {at}");
        let mut state = new.state();
        // The new device has introduced itself.
        state.members.retain(|member| member.name != "new");
        assert_eq!(state.items, folded.items, "crash at put {at}");
        assert_eq!(state.members.len(), folded.members.len());
        if !crashed {
            assert!(at > 3, "packet, tip, pack, root and tip again");
            return;
        }
    }
}

#[test]
fn beginning_that_is_cut_short_at_any_read_starts_over() {
    let vault = Vault::with_history();
    let whole = vault.join("new", 10, &vault.without_checkpoints());
    for at in 1.. {
        let store = Watched::new(&vault.store);
        store.fail_at.store(at, Ordering::SeqCst);
        let mut device = vault.device("new", 10, &store);
        let first = device.sync();
        store.fail_at.store(u64::MAX, Ordering::SeqCst);
        if first.is_ok() {
            assert!(at > 4, "two tips, a root and a pack");
            return;
        }
        assert!(matches!(first, Err(SyncError::Store(_))), "{first:?}");
        device = device.restarted();
        device.sync().unwrap();
        assert_same(&device, &whole);
    }
}

#[test]
fn a_user_who_stops_a_device_that_begins_loses_nothing() {
    let vault = Vault::with_history();
    let whole = vault.join("new", 10, &vault.without_checkpoints());
    for asked in 1.. {
        let mut device = vault.device("new", 10, &copy(&vault.store, |_| true));
        let mut observer = Impatient { asked: AtomicU64::new(0), stops_at: asked };
        match device.replica.sync(SyncOptions::default(), &mut observer) {
            Ok(_) => return assert!(asked > 1),
            Err(error) => assert!(matches!(error, SyncError::Interrupted), "{error}"),
        }
        device.sync().unwrap();
        assert_same(&device, &whole);
    }
}

#[test]
fn the_next_checkpoint_stores_only_what_changed() {
    let store = MemoryStore::new();
    let mut vault = Vault::create(Arc::new(store.clone()));
    let mut writer = vault.devices.remove(0);
    writer.write_rounds(62);
    for number in 0..3_000 {
        writer.fs.write(format!("d{}/file {number}", number % 50), format!("content {number}").as_bytes()).unwrap();
    }
    writer.write_rounds(4);
    let packs = |store: &MemoryStore| {
        store.names().into_iter().filter(|name| name.as_str().starts_with("packs/")).collect::<Vec<_>>()
    };
    let roots = |store: &MemoryStore| {
        store.names().into_iter().filter(|name| name.as_str().starts_with("checkpoints/")).count()
    };
    let (packs_before, roots_before) = (packs(&store), roots(&store));
    assert!(roots_before >= 1);
    while roots(&store) == roots_before {
        writer.write_rounds(1);
    }
    let new: u64 = packs(&store)
        .iter()
        .filter(|name| !packs_before.contains(name))
        .map(|name| store.get(name, u64::MAX).unwrap().len() as u64)
        .sum();
    println!("a checkpoint after edits of one file among 3,000 stored {new} bytes of packs; all is {}", store.size());
    assert!(new < 128 * 1024, "{new}");
    assert!(vault.join("new", 10, &store).is_from_checkpoint());
}

/// A storage, the vault's keys and its devices.
struct Vault {
    store: MemoryStore,
    ring: KeyRing,
    now: Arc<AtomicI64>,
    devices: Vec<Device>,
}

struct Device {
    fs: SimFs,
    replica: Replica,
    rounds: u64,
}

/// What an index holds of a vault.
#[derive(PartialEq, Debug)]
struct State {
    items: Vec<Item>,
    moves: Vec<MoveRecord>,
    members: Vec<Member>,
    knowledge: Knowledge,
}

impl Vault {
    fn create(store: Arc<dyn Store>) -> Self {
        let now = Arc::new(AtomicI64::new(1_790_000_000_000));
        let fs = SimFs::new(SimOptions::default());
        let (replica, _) = Replica::create(parts(&fs, Arc::clone(&store), &now, 1), b"a passphrase", "first").unwrap();
        let marker = Replica::read_marker(&*store).unwrap().unwrap();
        let ring = marker.unlock_with_passphrase(b"a passphrase").unwrap();
        Self { store: MemoryStore::new(), ring, now, devices: vec![Device { fs, replica, rounds: 0 }] }
    }

    /// Two devices that wrote, renamed and deleted in turn, each a few packets beyond the last checkpoint.
    fn with_history() -> Self {
        let store = MemoryStore::new();
        let mut vault = Self::create(Arc::new(store.clone()));
        vault.store = store;
        let second = vault.device("second", 2, &vault.store);
        vault.devices.push(second);
        let mut rng = Rng::new(7);
        for round in 0..50 {
            for device in &mut vault.devices {
                let fs = &device.fs;
                fs.set_now((1_790_000_000_000 + round) * 1_000_000);
                fs.write(format!("shared {round}"), &rng.bytes(100)).unwrap();
                fs.write(format!("d{}/f{round}", round % 7), &rng.bytes(if round % 10 == 0 { 40_000 } else { 9 }))
                    .unwrap();
                match round % 5 {
                    1 => fs.rename(format!("d{}", round % 7), format!("d{round}, moved")).unwrap(),
                    2 => fs.write("edited", &rng.bytes(20)).unwrap(),
                    3 => fs.remove(format!("shared {}", round - 1)).unwrap(),
                    4 => fs.chmod(format!("shared {round}"), 0o600).unwrap(),
                    _ => {}
                }
                device.sync().unwrap();
            }
        }
        vault.devices.iter_mut().for_each(|device| device.sync().unwrap());
        vault
    }

    fn without_checkpoints(&self) -> MemoryStore {
        copy(&self.store, |name| !name.as_str().starts_with("checkpoints/"))
    }

    fn device<S: Store + Clone + 'static>(&self, name: &str, seed: u64, store: &S) -> Device {
        let fs = SimFs::new(SimOptions::default());
        let parts = parts(&fs, Arc::new(store.clone()), &self.now, seed);
        Device { fs, replica: Replica::join(parts, self.ring.clone(), name).unwrap(), rounds: 0 }
    }

    /// A new device after its first round.
    fn join<S: Store + Clone + 'static>(&self, name: &str, seed: u64, store: &S) -> Device {
        let store = Introductory(store.clone());
        let mut device = self.device(name, seed, &store);
        device.sync().unwrap();
        device
    }
}

impl Device {
    fn sync(&mut self) -> Result<(), SyncError> {
        self.replica.sync(SyncOptions::default(), &mut Silent).map(drop)
    }

    /// Edits one file and synchronises, so many times.
    fn write_rounds(&mut self, rounds: u64) {
        for _ in 0..rounds {
            self.rounds += 1;
            self.fs.set_now((1_790_000_000_000 + self.rounds as i64) * 1_000_000);
            self.fs.write("edited", format!("for the {}th time", self.rounds).as_bytes()).unwrap();
            self.sync().unwrap();
        }
    }

    fn restarted(self) -> Self {
        let Self { fs, replica, rounds } = self;
        Self { fs, replica: Replica::open(replica.into_parts()).unwrap(), rounds }
    }

    /// Whether there is a checkpoint of its own.
    fn names_checkpoint(&self, store: &FaultyStore) -> bool {
        store.objects().keys().any(|name| name.as_str().starts_with("checkpoints/"))
    }

    /// Whether it has items of others without having their packets.
    fn is_from_checkpoint(&self) -> bool {
        let index = self.replica.index();
        let lacks = |(device, _): (&_, &_)| index.packets(*device, 1, 1).unwrap().is_empty();
        index.knowledge().iter().any(lacks)
    }

    fn state(&self) -> State {
        let index = self.replica.index();
        let mut members = index.members().unwrap();
        // A checkpoint does not say when a device was last heard of; what it wrote says at least when.
        members.iter_mut().for_each(|member| member.heard_time = 0);
        State {
            items: index.items_by_id(None, usize::MAX).unwrap(),
            moves: index.moves_by_stamp(None, usize::MAX).unwrap(),
            members,
            knowledge: index.knowledge().clone(),
        }
    }

    /// What is on its disk: every path, with the content of files.
    fn shown(&self) -> BTreeMap<Vec<u8>, Option<Vec<u8>>> {
        let content = |node: Node| match node {
            Node::File { bytes, .. } => Some(bytes),
            _ => None,
        };
        self.fs.tree().into_iter().map(|(path, node)| (path, content(node))).collect()
    }

    fn live_chunks(&self) -> BTreeMap<ChunkId, u32> {
        let heads = self.state().items.into_iter().flat_map(|item| item.heads);
        let lists = heads.filter_map(|head| match head.content {
            Content::File(file) => Some(file.chunks),
            _ => None,
        });
        let chunks = lists.flat_map(|list| match list {
            ChunkList::Inline(chunks) | ChunkList::Indirect(chunks) => chunks,
        });
        chunks.map(|chunk| (chunk.id, chunk.len)).collect()
    }
}

fn assert_same(one: &Device, other: &Device) {
    let (a, b) = (one.state(), other.state());
    assert_eq!(a.items.len(), b.items.len());
    assert_eq!(a.items, b.items);
    assert_eq!(a.moves, b.moves);
    assert_eq!(a.knowledge.len(), b.knowledge.len());
    assert_eq!(a.members.len(), b.members.len());
    let candidates = |device: &Device| {
        let problems = device.replica.index().problems().unwrap();
        problems.into_iter().filter(|problem| problem.kind == "conflict candidate").count()
    };
    let conflicts = (candidates(one) > 0, candidates(other) > 0);
    assert_eq!(conflicts.0, conflicts.1);
    for (chunk, _) in one.live_chunks() {
        let place = one.replica.index().chunk_place(&chunk).unwrap().expect("live content lies somewhere");
        if let ChunkPlace::Packet { dot } = place {
            assert!(one.replica.index().sealed(dot).unwrap().is_some(), "{dot} is not kept");
        }
    }
}

fn parts(fs: &SimFs, store: Arc<dyn Store>, now: &Arc<AtomicI64>, seed: u64) -> Parts {
    fs.make_dir(packetboat_engine::paths::MARKER_DIR).unwrap();
    fs.settle();
    Parts {
        fs: Arc::new(fs.clone()),
        index: Index::in_memory().unwrap(),
        store,
        place: "storage".to_owned(),
        clock: Box::new(Ticking(Arc::clone(now))),
        entropy: Box::new(Rng::new(seed)),
        settings: Settings { passphrase_cost: Argon2Cost::MINIMUM, ..Settings::default() },
    }
}

fn copy(store: &MemoryStore, keep: impl Fn(&ObjectName) -> bool) -> MemoryStore {
    let copy = MemoryStore::new();
    for name in store.names().iter().filter(|name| keep(name)) {
        copy.put(name, &store.get(name, u64::MAX).unwrap()).unwrap();
    }
    copy
}

#[derive(Clone, Copy)]
enum Damage {
    Flip,
    Cut,
    Remove,
}

impl Damage {
    fn apply(self, store: &MemoryStore, name: &ObjectName) {
        match self {
            Damage::Flip => store.tamper(name, |bytes| {
                let middle = bytes.len() / 2;
                bytes[middle] ^= 1;
            }),
            Damage::Cut => store.tamper(name, |bytes| bytes.truncate(bytes.len() / 2)),
            Damage::Remove => store.delete(name).is_ok(),
        };
    }
}

struct Ticking(Arc<AtomicI64>);

impl Clock for Ticking {
    fn now_ms(&self) -> i64 {
        self.0.fetch_add(1, Ordering::SeqCst)
    }
    fn wait(&self, _: u64) {}
}

/// A user who asks to stop the n-th time that they are asked.
struct Impatient {
    asked: AtomicU64,
    stops_at: u64,
}

impl Observer for Impatient {
    fn phase(&mut self, _: Phase, _: Option<u64>, _: Option<u64>) {}
    fn advance(&mut self, _: u64, _: u64) {}
    fn note(&mut self, _: Note) {}
    fn interrupted(&self) -> bool {
        self.asked.fetch_add(1, Ordering::SeqCst) + 1 == self.stops_at
    }
}

/// Keeps the names of what is read, and fails from one read on.
#[derive(Clone)]
struct Watched {
    store: MemoryStore,
    read: Arc<Mutex<Vec<String>>>,
    listed: Arc<Mutex<Vec<String>>>,
    reads: Arc<AtomicU64>,
    fail_at: Arc<AtomicU64>,
}

impl Watched {
    fn new(store: &MemoryStore) -> Self {
        let store = copy(store, |_| true);
        Self {
            store,
            read: Arc::default(),
            listed: Arc::default(),
            reads: Arc::default(),
            fail_at: Arc::new(AtomicU64::new(u64::MAX)),
        }
    }

    fn reads(&self, name: &ObjectName) -> Result<(), StoreError> {
        self.read.lock().unwrap().push(name.to_string());
        if self.reads.fetch_add(1, Ordering::SeqCst) + 1 >= self.fail_at.load(Ordering::SeqCst) {
            let source = std::io::Error::other("the cable was pulled");
            return Err(StoreError::Io { action: "read", name: name.to_string(), source });
        }
        Ok(())
    }
}

impl Store for Watched {
    fn describe(&self) -> String {
        self.store.describe()
    }
    fn put_new(&self, name: &ObjectName, bytes: &[u8]) -> Result<Put, StoreError> {
        self.store.put_new(name, bytes)
    }
    fn put(&self, name: &ObjectName, bytes: &[u8]) -> Result<(), StoreError> {
        self.store.put(name, bytes)
    }
    fn get(&self, name: &ObjectName, limit: u64) -> Result<Vec<u8>, StoreError> {
        self.reads(name)?;
        self.store.get(name, limit)
    }
    fn get_range(&self, name: &ObjectName, offset: u64, len: u64) -> Result<Vec<u8>, StoreError> {
        self.reads(name)?;
        self.store.get_range(name, offset, len)
    }
    fn list(&self, folder: &str) -> Result<Vec<Listed>, StoreError> {
        self.listed.lock().unwrap().push(folder.to_owned());
        self.store.list(folder)
    }
    fn delete(&self, name: &ObjectName) -> Result<(), StoreError> {
        self.store.delete(name)
    }
}

/// Takes what a new device writes and forgets it, so that many may join one after the other under one key.
#[derive(Clone)]
struct Introductory<S>(S);

impl<S: Store> Store for Introductory<S> {
    fn describe(&self) -> String {
        self.0.describe()
    }
    fn put_new(&self, _: &ObjectName, _: &[u8]) -> Result<Put, StoreError> {
        Ok(Put::Stored)
    }
    fn put(&self, _: &ObjectName, _: &[u8]) -> Result<(), StoreError> {
        Ok(())
    }
    fn get(&self, name: &ObjectName, limit: u64) -> Result<Vec<u8>, StoreError> {
        self.0.get(name, limit)
    }
    fn get_range(&self, name: &ObjectName, offset: u64, len: u64) -> Result<Vec<u8>, StoreError> {
        self.0.get_range(name, offset, len)
    }
    fn list(&self, folder: &str) -> Result<Vec<Listed>, StoreError> {
        self.0.list(folder)
    }
    fn delete(&self, _: &ObjectName) -> Result<(), StoreError> {
        Ok(())
    }
}
