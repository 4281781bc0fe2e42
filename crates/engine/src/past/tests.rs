//! Tests of the past: each state that a device was in is found again, from its packets or from the lanes.

use std::ffi::OsString;
use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicI64, Ordering};

use packetboat_core::content::Content;
use packetboat_core::item::Item;
use packetboat_core::keys::KeyRing;
use packetboat_core::knowledge::Knowledge;
use packetboat_core::marker::Argon2Cost;
use packetboat_core::store::Store;
use packetboat_replica::index::ChunkPlace;
use packetboat_replica::real_fs::RealFs;
use packetboat_storage::memory::MemoryStore;
use tempfile::TempDir;

use super::*;
use crate::ports::{Clock, Entropy, Silent};
use crate::replica::{Parts, Replica, Settings, SyncOptions};

#[test]
fn every_state_that_a_device_published_is_found_again() {
    let world = World::with_history();
    let [first, _] = &world.devices;
    for state in &world.states {
        let past = first.index_at(&At::Packet(state.dot));
        assert_eq!(items(&past), state.items, "{}", state.dot);
        assert_eq!(*past.knowledge(), state.knowledge);
        assert_content_is_somewhere(&past);
    }
}

#[test]
fn the_lanes_serve_where_packets_were_let_go() {
    let mut world = World::with_history();
    let [first, _] = &mut world.devices;
    let lanes: Vec<_> =
        first.replica.index().knowledge().iter().map(|(device, last)| (*device, last.counter)).collect();
    for (device, last) in lanes {
        for counter in 1..=last {
            first.replica.parts.index.drop_sealed(Dot { device, counter }).unwrap();
        }
    }
    for state in &world.states {
        let past = world.devices[0].index_at(&At::Packet(state.dot));
        assert_eq!(items(&past), state.items);
        assert_content_is_somewhere(&past);
    }
}

#[test]
fn at_a_time_stands_what_was_made_by_then() {
    let world = World::with_history();
    let [first, second] = &world.devices;
    for state in &world.states {
        for device in [first, second] {
            let past = device.index_at(&At::Time(state.time));
            assert_eq!(items(&past), state.items);
        }
    }
    assert!(items(&first.index_at(&At::Time(0))).is_empty());
}

#[test]
fn a_packet_waits_for_what_it_builds_on_even_where_its_own_clock_is_early() {
    let mut world = World::with_history();
    let [first, second] = &mut world.devices;
    let before = world.now.load(Ordering::SeqCst);
    world.now.fetch_add(1_000_000, Ordering::SeqCst);
    first.write("ahead", b"of its time");
    world.now.store(before, Ordering::SeqCst);
    let known = first.replica.index().knowledge().clone();
    second.write("behind", b"but later");
    let past = second.index_at(&At::Time(before + 1000));
    let own = second.replica.keys.device.device();
    assert!(past.knowledge().counter(&own) < second.replica.index().knowledge().counter(&own));
    assert!(known.includes(past.knowledge()));
}

#[test]
fn an_unknown_packet_is_refused() {
    let world = World::with_history();
    let device = DeviceId([9; 32]);
    let replica = &world.devices[0].replica;
    let found =
        index_at(replica.index(), &*replica.parts.store, &replica.keys, &At::Packet(Dot { device, counter: 1 }));
    assert!(matches!(found, Err(SyncError::NoSuchPacket { .. })));
}

#[test]
fn another_packet_in_the_place_of_one_is_refused() {
    let mut world = World::with_history();
    let [first, _] = &mut world.devices;
    let (device, last) = (first.replica.keys.device.device(), world.states.last().unwrap().dot);
    let dot = Dot { device, counter: 2 };
    first.replica.parts.index.drop_sealed(dot).unwrap();
    let other = world.store.get(&packet_name(&Dot { device, counter: 3 }), u64::MAX).unwrap();
    world.store.put(&packet_name(&dot), &other).unwrap();
    let replica = &first.replica;
    let found = index_at(replica.index(), &world.store, &replica.keys, &At::Packet(last));
    assert!(matches!(found, Err(SyncError::OtherPacket { .. })));
}

/// Two devices, and the states that the first was in after its rounds.
pub(crate) struct World {
    pub(crate) store: MemoryStore,
    pub(crate) now: Arc<AtomicI64>,
    pub(crate) devices: [Device; 2],
    pub(crate) states: Vec<State>,
}

pub(crate) struct Device {
    pub(crate) folder: TempDir,
    pub(crate) replica: Replica,
}

pub(crate) struct State {
    pub(crate) dot: Dot,
    time: i64,
    /// What lay in the first device's folder.
    pub(crate) files: BTreeMap<OsString, Vec<u8>>,
    items: Vec<Item>,
    knowledge: Knowledge,
}

impl World {
    pub(crate) fn with_history() -> Self {
        let (store, now) = (MemoryStore::new(), Arc::new(AtomicI64::new(1_790_000_000_000)));
        let folder = tempfile::tempdir().unwrap();
        let (replica, _) = Replica::create(parts(&folder, &store, &now, 1), b"a passphrase", "first").unwrap();
        let ring: KeyRing = replica.keys.ring.clone();
        let mut first = Device { folder, replica };
        let folder = tempfile::tempdir().unwrap();
        let replica = Replica::join(parts(&folder, &store, &now, 2), ring, "second").unwrap();
        let mut second = Device { folder, replica };
        let mut states = Vec::new();
        for round in 0..12 {
            second.write(&format!("of the second {round}"), format!("content {round}").as_bytes());
            first.write(&format!("of the first {round}"), &vec![round as u8; 30 + 9000 * (round % 3)]);
            first.write("edited", format!("for the {round}th time").as_bytes());
            if round % 4 == 3 {
                std::fs::remove_file(first.folder.path().join(format!("of the first {}", round - 1))).unwrap();
                first.sync();
            }
            let device = first.replica.keys.device.device();
            let index = first.replica.index();
            let dot = Dot { device, counter: index.knowledge().counter(&device) };
            let time = index.packet_row(dot).unwrap().unwrap().folded.unwrap().time;
            let files = files(first.folder.path());
            states.push(State { dot, time, files, items: items(index), knowledge: index.knowledge().clone() });
        }
        second.sync();
        Self { store, now, devices: [first, second], states }
    }
}

impl Device {
    fn write(&mut self, name: &str, bytes: &[u8]) {
        std::fs::write(self.folder.path().join(name), bytes).unwrap();
        self.sync();
    }

    fn sync(&mut self) {
        self.replica.sync(SyncOptions::default(), &mut Silent).unwrap();
    }

    fn index_at(&self, at: &At) -> Index {
        index_at(self.replica.index(), &*self.replica.parts.store, &self.replica.keys, at).unwrap()
    }
}

/// The files of a folder that has no directories but the marker.
pub(crate) fn files(folder: &Path) -> BTreeMap<OsString, Vec<u8>> {
    let entries = std::fs::read_dir(folder).unwrap().map(Result::unwrap);
    let files = entries.filter(|entry| entry.file_type().unwrap().is_file());
    files.map(|entry| (entry.file_name(), std::fs::read(entry.path()).unwrap())).collect()
}

fn items(index: &Index) -> Vec<Item> {
    index.items_by_id(None, usize::MAX).unwrap()
}

fn assert_content_is_somewhere(index: &Index) {
    for head in items(index).iter().flat_map(|item| &item.heads) {
        let Content::File(file) = &head.content else { continue };
        for chunk in file.chunks.first() {
            match index.chunk_place(&chunk.id).unwrap().expect("a place") {
                ChunkPlace::Packet { dot } => assert!(index.sealed(dot).unwrap().is_some()),
                ChunkPlace::Pack { .. } => {}
            }
        }
    }
}

fn parts(folder: &TempDir, store: &MemoryStore, now: &Arc<AtomicI64>, seed: u8) -> Parts {
    std::fs::create_dir(folder.path().join(crate::paths::MARKER_DIR)).unwrap();
    Parts {
        fs: Arc::new(RealFs::open(folder.path()).unwrap()),
        index: Index::in_memory().unwrap(),
        store: Arc::new(store.clone()),
        place: "storage".to_owned(),
        clock: Box::new(Ticking(Arc::clone(now))),
        entropy: Box::new(Counting([seed, 0, 0, 0], 0)),
        settings: Settings { passphrase_cost: Argon2Cost::MINIMUM, ..Settings::default() },
    }
}

pub(crate) struct Ticking(pub(crate) Arc<AtomicI64>);

impl Clock for Ticking {
    fn now_ms(&self) -> i64 {
        self.0.fetch_add(1, Ordering::SeqCst)
    }
    fn wait(&self, _: u64) {}
}

/// Bytes that never repeat, from a line of forks and a count.
pub(crate) struct Counting(pub(crate) [u8; 4], pub(crate) u64);

impl Entropy for Counting {
    fn fill(&mut self, buffer: &mut [u8]) {
        for chunk in buffer.chunks_mut(32) {
            self.1 += 1;
            let mut from = self.0.to_vec();
            from.extend_from_slice(&self.1.to_le_bytes());
            let id = packetboat_core::keys::DeviceKey::from_seed(&std::array::from_fn(|at| from[at % from.len()]));
            chunk.copy_from_slice(&id.device().0[..chunk.len()]);
        }
    }
    fn fork(&mut self) -> Box<dyn Entropy> {
        let mut number = [0; 4];
        self.fill(&mut number);
        Box::new(Counting(number, 0))
    }
}
