//! Two devices of one vault on simulated disks, for tests that ask it questions.

#![allow(dead_code, reason = "each file of tests uses its part")]

pub(crate) mod letting_go;
pub(crate) mod two_places;

use std::sync::atomic::{AtomicBool, AtomicI64, Ordering};
use std::sync::{Arc, Mutex};

use packetboat_core::ids::VaultId;
use packetboat_core::keys::{KeyRing, RootKey};
use packetboat_core::marker::Argon2Cost;
use packetboat_core::name::RelPath;
use packetboat_core::store::{Listed, ObjectName, Put, Store, StoreError};
use packetboat_engine::ports::{Clock, Note, Observer, Phase, Silent};
use packetboat_engine::replica::{Parts, Replica, Report, Settings, SyncOptions};
use packetboat_replica::index::Index;
use packetboat_storage::memory::MemoryStore;
use packetboat_testkit::rng::Rng;
use packetboat_testkit::sim_fs::{Node, SimFs, SimOptions};

/// Two devices and what is between them.
pub(crate) struct Pair {
    pub(crate) laptop: Device,
    pub(crate) desk: Device,
    pub(crate) store: MemoryStore,
    /// Whether the devices cannot reach the store.
    pub(crate) out: Arc<AtomicBool>,
    /// How many calls that change the store succeed before it goes out of reach; negative for all.
    pub(crate) fuse: Arc<AtomicI64>,
    now: Arc<AtomicI64>,
}

/// A device.
pub(crate) struct Device {
    pub(crate) fs: SimFs,
    pub(crate) replica: Replica,
}

impl Pair {
    /// A vault with two members, both in step and empty.
    pub(crate) fn new() -> Self {
        Self::seeded(1)
    }

    /// The same by other randomness: another vault with other keys.
    pub(crate) fn seeded(seed: u64) -> Self {
        let (now, store) = (Arc::new(AtomicI64::new(START)), MemoryStore::new());
        let (out, fuse) = (Arc::new(AtomicBool::new(false)), Arc::new(AtomicI64::new(-1)));
        let parts = |seed| parts(seed, &store, &out, &fuse, &now);
        let (fs, laptop_parts) = parts(seed);
        let (laptop, _) = Replica::create(laptop_parts, b"secret", "laptop").unwrap();
        let laptop = Device { fs, replica: laptop };
        let marker = Replica::read_marker(&store).unwrap().unwrap();
        let (fs, desk_parts) = parts(seed + 1);
        let desk = Replica::join(desk_parts, marker.unlock_with_passphrase(b"secret").unwrap(), "desk").unwrap();
        let mut pair = Self {
            laptop,
            desk: Device { fs, replica: desk },
            store,
            out: Arc::clone(&out),
            fuse: Arc::clone(&fuse),
            now,
        };
        pair.settle();
        pair
    }

    /// A third device, which has not synchronised yet.
    pub(crate) fn third(&self) -> Device {
        let marker = Replica::read_marker(&self.store).unwrap().unwrap();
        let (fs, parts) = parts(3, &self.store, &self.out, &self.fuse, &self.now);
        fs.set_now(self.now.load(Ordering::SeqCst) * 1_000_000);
        let replica = Replica::join(parts, marker.unlock_with_passphrase(b"secret").unwrap(), "third").unwrap();
        Device { fs, replica }
    }

    /// What time it is, in milliseconds since 1970 UTC.
    pub(crate) fn now_ms(&self) -> i64 {
        self.now.load(Ordering::SeqCst)
    }

    /// Lets a device make so many more calls to the store; those after that fail.
    pub(crate) fn fail_after(&self, device: &mut Device, calls: u64) {
        let replica = std::mem::replace(&mut device.replica, self.nobody().replica);
        let mut parts = replica.into_parts();
        let left = Arc::new(AtomicI64::new(i64::try_from(calls).unwrap_or(i64::MAX)));
        parts.store = Arc::new(Counted { inner: self.store.clone(), left });
        device.replica = Replica::open(parts).unwrap();
    }

    /// Has a device's reads at the store taken down.
    pub(crate) fn watch_reads(&self, device: &mut Device) -> Arc<Mutex<Vec<ObjectName>>> {
        let replica = std::mem::replace(&mut device.replica, self.nobody().replica);
        let mut parts = replica.into_parts();
        let read = Arc::default();
        parts.store = Arc::new(Watched { inner: self.store.clone(), read: Arc::clone(&read) });
        device.replica = Replica::open(parts).unwrap();
        read
    }

    /// Has a device's listings of the store leave these out, as stale ones do.
    pub(crate) fn hide(&self, device: &mut Device, names: &[ObjectName]) {
        let replica = std::mem::replace(&mut device.replica, self.nobody().replica);
        let mut parts = replica.into_parts();
        parts.store = Arc::new(Stale { inner: self.store.clone(), unlisted: names.to_vec() });
        device.replica = Replica::open(parts).unwrap();
    }

    /// Has a device find no room at the store for anything new.
    pub(crate) fn fill(&self, device: &mut Device) {
        self.fill_to(device, 0);
    }

    /// Has a device find room at the store for so many bytes in all.
    pub(crate) fn fill_to(&self, device: &mut Device, room: u64) {
        self.cramp(device, Cramped { inner: self.store.clone(), room, lists: true });
    }

    /// Has a device find no room at the store for anything new, nor any folder of it.
    pub(crate) fn fill_and_hide(&self, device: &mut Device) {
        self.cramp(device, Cramped { inner: self.store.clone(), room: 0, lists: false });
    }

    fn cramp(&self, device: &mut Device, store: Cramped) {
        let replica = std::mem::replace(&mut device.replica, self.nobody().replica);
        let mut parts = replica.into_parts();
        parts.store = Arc::new(store);
        device.replica = Replica::open(parts).unwrap();
    }

    /// Has a device's rounds let go by themselves from now on.
    pub(crate) fn lets_go_by_itself(&self, device: &mut Device) {
        let replica = std::mem::replace(&mut device.replica, self.nobody().replica);
        let mut parts = replica.into_parts();
        parts.settings.lets_go_by_itself = true;
        device.replica = Replica::open(parts).unwrap();
    }

    /// A device of this name, which joins by the marker as it is now and with this passphrase.
    pub(crate) fn joined(&self, seed: u64, name: &str, passphrase: &[u8]) -> Device {
        let marker = Replica::read_marker(&self.store).unwrap().unwrap();
        let (fs, parts) = parts(seed, &self.store, &self.out, &self.fuse, &self.now);
        fs.set_now(self.now.load(Ordering::SeqCst) * 1_000_000);
        let replica = Replica::join(parts, marker.unlock_with_passphrase(passphrase).unwrap(), name).unwrap();
        Device { fs, replica }
    }

    /// Takes the desk out of the pair.
    pub(crate) fn take_desk(&mut self) -> Device {
        let nobody = self.nobody();
        std::mem::replace(&mut self.desk, nobody)
    }

    /// A device of no vault, for the place of another.
    pub(crate) fn nobody(&self) -> Device {
        let (fs, parts) = parts(0, &self.store, &self.out, &self.fuse, &self.now);
        let replica = Replica::join(parts, KeyRing::new(VaultId([0; 16]), RootKey([0; 32])), "nobody").unwrap();
        Device { fs, replica }
    }

    /// A device goes to another storage, with all that it has.
    pub(crate) fn moved(&self, device: Device, store: &MemoryStore, place: &str) -> Device {
        self.moved_for(device, store, place, -1)
    }

    /// The same; after so many calls that change the storage it is out of reach, unless negative.
    pub(crate) fn moved_for(&self, device: Device, store: &MemoryStore, place: &str, calls: i64) -> Device {
        let mut parts = device.replica.into_parts();
        parts.store = Arc::new(Reachable {
            inner: store.clone(),
            out: Arc::new(AtomicBool::new(false)),
            fuse: Arc::new(AtomicI64::new(calls)),
        });
        parts.place = place.to_owned();
        Device { fs: device.fs, replica: Replica::open(parts).unwrap() }
    }

    /// What another replica with an empty disk is made of.
    pub(crate) fn parts(&self, seed: u64) -> (SimFs, Parts) {
        parts(seed, &self.store, &self.out, &self.fuse, &self.now)
    }

    /// Lets an hour pass, so that nothing recorded before is racy; says what time it was before.
    pub(crate) fn pass(&mut self) -> i64 {
        self.pass_hours(1)
    }

    /// Lets so many hours pass.
    pub(crate) fn pass_hours(&mut self, hours: i64) -> i64 {
        let before = self.now.fetch_add(hours * 3_600_000, Ordering::SeqCst);
        let now = before + hours * 3_600_000;
        for device in [&self.laptop, &self.desk] {
            device.fs.set_now(now * 1_000_000);
        }
        before
    }

    /// Lets so many days pass.
    pub(crate) fn pass_days(&mut self, days: i64) {
        for _ in 0..days * 24 {
            self.pass();
        }
    }

    /// Synchronises both until both have everything.
    pub(crate) fn settle(&mut self) {
        self.pass();
        for _ in 0..2 {
            self.laptop.sync();
            self.desk.sync();
        }
    }

    /// Asserts that both disks show the same, and what.
    #[track_caller]
    pub(crate) fn assert_files(&self, expected: &[(&str, &str)]) {
        assert_eq!(self.laptop.files(), owned(expected), "laptop");
        assert_eq!(self.desk.files(), owned(expected), "desk");
    }
}

fn parts(
    seed: u64,
    store: &MemoryStore,
    out: &Arc<AtomicBool>,
    fuse: &Arc<AtomicI64>,
    now: &Arc<AtomicI64>,
) -> (SimFs, Parts) {
    let fs = SimFs::new(SimOptions::default());
    fs.make_dir(".packetboat").unwrap();
    let parts = Parts {
        fs: Arc::new(fs.clone()),
        index: Index::in_memory().unwrap(),
        store: Arc::new(Reachable { inner: store.clone(), out: Arc::clone(out), fuse: Arc::clone(fuse) }),
        place: "memory".to_owned(),
        clock: Box::new(SharedClock(Arc::clone(now))),
        entropy: Box::new(Rng::new(seed)),
        settings: Settings { passphrase_cost: Argon2Cost::MINIMUM, ..Settings::default() },
    };
    (fs, parts)
}

fn owned(files: &[(&str, &str)]) -> Vec<(String, String)> {
    files.iter().map(|(path, text)| ((*path).to_owned(), (*text).to_owned())).collect()
}

impl Device {
    pub(crate) fn sync(&mut self) -> Report {
        self.replica.sync(SyncOptions::default(), &mut Silent).unwrap()
    }

    /// The same device, in whose index something was changed while it did not run.
    pub(crate) fn with_index(self, change: impl FnOnce(&mut Index)) -> Self {
        let mut parts = self.replica.into_parts();
        change(&mut parts.index);
        Self { fs: self.fs, replica: Replica::open(parts).unwrap() }
    }

    /// The error of a round that fails.
    pub(crate) fn sync_fails(&mut self) -> packetboat_engine::error::SyncError {
        self.replica.sync(SyncOptions::default(), &mut Silent).unwrap_err()
    }

    /// This device.
    pub(crate) fn id(&self) -> packetboat_core::ids::DeviceId {
        self.replica.devices().unwrap().into_iter().find(|device| device.is_this).unwrap().device
    }

    /// How the devices that this one knows of stand, by name.
    pub(crate) fn standings(&self) -> Vec<(String, &'static str)> {
        let mut devices: Vec<_> =
            self.replica.devices().unwrap().into_iter().map(|device| (device.name, device.standing)).collect();
        devices.sort();
        devices
    }

    /// The files and their texts, by path.
    pub(crate) fn files(&self) -> Vec<(String, String)> {
        files(&self.fs)
    }

    /// The name of the only conflict copy.
    pub(crate) fn copy_name(&self) -> String {
        let copies: Vec<String> =
            self.files().into_iter().map(|(path, _)| path).filter(|path| path.contains("(conflict")).collect();
        assert_eq!(copies.len(), 1, "{copies:?}");
        copies.into_iter().next().unwrap()
    }
}

/// The files on a disk and their texts, by path.
pub(crate) fn files(fs: &SimFs) -> Vec<(String, String)> {
    let text = |bytes: &[u8]| String::from_utf8_lossy(bytes).into_owned();
    let tree = fs.tree().into_iter().filter(|(path, _)| !path.starts_with(b".packetboat"));
    tree.filter_map(|(path, node)| match node {
        Node::File { bytes, .. } => Some((text(&path), text(&bytes))),
        Node::Symlink { target } => Some((text(&path), format!("-> {}", text(&target)))),
        _ => None,
    })
    .collect()
}

/// Another storage with the same objects.
pub(crate) fn copy_of(store: &MemoryStore) -> MemoryStore {
    let copy = MemoryStore::new();
    copy_objects(store, &copy, "");
    copy
}

/// Carries the objects whose names contain this, as what one device put there, from a storage to another.
pub(crate) fn copy_objects(from: &MemoryStore, to: &MemoryStore, part: &str) {
    for name in from.names().into_iter().filter(|name| name.as_str().contains(part)) {
        to.put(&name, &from.get(&name, u64::MAX).unwrap()).unwrap();
    }
}

pub(crate) fn path(text: &str) -> RelPath {
    RelPath::new(text.as_bytes()).unwrap()
}

/// Takes down what was left alone.
#[derive(Default)]
pub(crate) struct Watcher {
    pub(crate) left: Vec<String>,
    pub(crate) warnings: Vec<String>,
}

impl Observer for Watcher {
    fn phase(&mut self, _: Phase, _: Option<u64>, _: Option<u64>) {}
    fn advance(&mut self, _: u64, _: u64) {}
    fn note(&mut self, note: Note) {
        match note {
            Note::Skipped { path, reason } => self.left.push(format!("{path}: {reason}")),
            Note::Warning { text } => self.warnings.push(text),
            _ => {}
        }
    }
}

/// A store that can go out of reach.
struct Reachable {
    inner: MemoryStore,
    out: Arc<AtomicBool>,
    fuse: Arc<AtomicI64>,
}

impl Reachable {
    fn inner(&self) -> Result<&MemoryStore, StoreError> {
        if !self.out.load(Ordering::SeqCst) {
            return Ok(&self.inner);
        }
        let source = std::io::Error::other("no route to it");
        Err(StoreError::Io { action: "read", name: "anything".to_owned(), source })
    }

    /// For a call that changes something.
    fn changing(&self) -> Result<&MemoryStore, StoreError> {
        match self.fuse.load(Ordering::SeqCst) {
            0 => self.out.store(true, Ordering::SeqCst),
            left => drop(left > 0 && self.fuse.fetch_sub(1, Ordering::SeqCst) > 0),
        }
        self.inner()
    }
}

impl Store for Reachable {
    fn describe(&self) -> String {
        self.inner.describe()
    }
    fn put_new(&self, name: &ObjectName, bytes: &[u8]) -> Result<Put, StoreError> {
        self.changing()?.put_new(name, bytes)
    }
    fn put(&self, name: &ObjectName, bytes: &[u8]) -> Result<(), StoreError> {
        self.changing()?.put(name, bytes)
    }
    fn get(&self, name: &ObjectName, limit: u64) -> Result<Vec<u8>, StoreError> {
        self.inner()?.get(name, limit)
    }
    fn get_range(&self, name: &ObjectName, offset: u64, len: u64) -> Result<Vec<u8>, StoreError> {
        self.inner()?.get_range(name, offset, len)
    }
    fn list(&self, folder: &str) -> Result<Vec<Listed>, StoreError> {
        self.inner()?.list(folder)
    }
    fn delete(&self, name: &ObjectName) -> Result<(), StoreError> {
        self.changing()?.delete(name)
    }
}

/// A store that goes away after some calls.
struct Counted {
    inner: MemoryStore,
    left: Arc<AtomicI64>,
}

impl Counted {
    fn inner(&self) -> Result<&MemoryStore, StoreError> {
        if self.left.fetch_sub(1, Ordering::SeqCst) > 0 {
            return Ok(&self.inner);
        }
        let source = std::io::Error::other("it went away");
        Err(StoreError::Io { action: "read", name: "anything".to_owned(), source })
    }
}

impl Store for Counted {
    fn describe(&self) -> String {
        self.inner.describe()
    }
    fn put_new(&self, name: &ObjectName, bytes: &[u8]) -> Result<Put, StoreError> {
        self.inner()?.put_new(name, bytes)
    }
    fn put(&self, name: &ObjectName, bytes: &[u8]) -> Result<(), StoreError> {
        self.inner()?.put(name, bytes)
    }
    fn get(&self, name: &ObjectName, limit: u64) -> Result<Vec<u8>, StoreError> {
        self.inner()?.get(name, limit)
    }
    fn get_range(&self, name: &ObjectName, offset: u64, len: u64) -> Result<Vec<u8>, StoreError> {
        self.inner()?.get_range(name, offset, len)
    }
    fn list(&self, folder: &str) -> Result<Vec<Listed>, StoreError> {
        self.inner()?.list(folder)
    }
    fn delete(&self, name: &ObjectName) -> Result<(), StoreError> {
        self.inner()?.delete(name)
    }
}

/// A store that takes down what is read.
struct Watched {
    inner: MemoryStore,
    read: Arc<Mutex<Vec<ObjectName>>>,
}

impl Store for Watched {
    fn describe(&self) -> String {
        self.inner.describe()
    }
    fn put_new(&self, name: &ObjectName, bytes: &[u8]) -> Result<Put, StoreError> {
        self.inner.put_new(name, bytes)
    }
    fn put(&self, name: &ObjectName, bytes: &[u8]) -> Result<(), StoreError> {
        self.inner.put(name, bytes)
    }
    fn get(&self, name: &ObjectName, limit: u64) -> Result<Vec<u8>, StoreError> {
        self.read.lock().unwrap().push(name.clone());
        self.inner.get(name, limit)
    }
    fn get_range(&self, name: &ObjectName, offset: u64, len: u64) -> Result<Vec<u8>, StoreError> {
        self.read.lock().unwrap().push(name.clone());
        self.inner.get_range(name, offset, len)
    }
    fn list(&self, folder: &str) -> Result<Vec<Listed>, StoreError> {
        self.inner.list(folder)
    }
    fn delete(&self, name: &ObjectName) -> Result<(), StoreError> {
        self.inner.delete(name)
    }
}

/// A store of which listings leave out some objects that are there.
struct Stale {
    inner: MemoryStore,
    unlisted: Vec<ObjectName>,
}

impl Store for Stale {
    fn describe(&self) -> String {
        self.inner.describe()
    }
    fn put_new(&self, name: &ObjectName, bytes: &[u8]) -> Result<Put, StoreError> {
        self.inner.put_new(name, bytes)
    }
    fn put(&self, name: &ObjectName, bytes: &[u8]) -> Result<(), StoreError> {
        self.inner.put(name, bytes)
    }
    fn get(&self, name: &ObjectName, limit: u64) -> Result<Vec<u8>, StoreError> {
        self.inner.get(name, limit)
    }
    fn get_range(&self, name: &ObjectName, offset: u64, len: u64) -> Result<Vec<u8>, StoreError> {
        self.inner.get_range(name, offset, len)
    }
    fn list(&self, folder: &str) -> Result<Vec<Listed>, StoreError> {
        let listed = self.inner.list(folder)?;
        Ok(listed.into_iter().filter(|listed| !self.unlisted.contains(&listed.name)).collect())
    }
    fn delete(&self, name: &ObjectName) -> Result<(), StoreError> {
        self.inner.delete(name)
    }
}

/// A store with little room, of which some folders cannot be listed.
struct Cramped {
    inner: MemoryStore,
    /// Bytes that it may hold before something more is put.
    room: u64,
    /// Whether checkpoints and packs are listed.
    lists: bool,
}

impl Cramped {
    fn inner(&self, more: usize) -> Result<&MemoryStore, StoreError> {
        if self.inner.size() + more as u64 > self.room { Err(StoreError::Full) } else { Ok(&self.inner) }
    }
}

impl Store for Cramped {
    fn describe(&self) -> String {
        self.inner.describe()
    }
    fn put_new(&self, name: &ObjectName, bytes: &[u8]) -> Result<Put, StoreError> {
        self.inner(bytes.len())?.put_new(name, bytes)
    }
    fn put(&self, name: &ObjectName, bytes: &[u8]) -> Result<(), StoreError> {
        self.inner(bytes.len())?.put(name, bytes)
    }
    fn get(&self, name: &ObjectName, limit: u64) -> Result<Vec<u8>, StoreError> {
        self.inner.get(name, limit)
    }
    fn get_range(&self, name: &ObjectName, offset: u64, len: u64) -> Result<Vec<u8>, StoreError> {
        self.inner.get_range(name, offset, len)
    }
    fn list(&self, folder: &str) -> Result<Vec<Listed>, StoreError> {
        if self.lists || !(folder.starts_with("packs") || folder.starts_with("checkpoints")) {
            return self.inner.list(folder);
        }
        let source = std::io::Error::other("not to be listed");
        Err(StoreError::Io { action: "list", name: folder.to_owned(), source })
    }
    fn delete(&self, name: &ObjectName) -> Result<(), StoreError> {
        self.inner.delete(name)
    }
}

struct SharedClock(Arc<AtomicI64>);

impl Clock for SharedClock {
    fn now_ms(&self) -> i64 {
        self.0.load(Ordering::SeqCst)
    }
    fn wait(&self, _: u64) {}
}

const START: i64 = 1_790_000_000_000;
