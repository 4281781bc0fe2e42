//! One key on two devices: a restored backup, and a cloned disk. Nobody has to know a command for it.

mod support;

use std::path::{Path, PathBuf};

use packetboat_core::garbage::Retention;
use packetboat_core::ids::Dot;
use packetboat_core::store::{Listed, ObjectName, Put, Store, StoreError};
use packetboat_core::tip::Tip;
use packetboat_engine::PruneOptions;
use packetboat_engine::learn::packet_name;
use packetboat_engine::ports::Silent;
use packetboat_engine::replica::{Parts, Replica};
use packetboat_replica::index::Index;
use packetboat_storage::memory::MemoryStore;
use support::letting_go::{LARGE, assert_sound, bring, noise, packs, rename_unseen, stored};
use support::{Device, Pair};

/// A device whose index lies in a file, so that it can be copied as a backup copies it.
fn with_index_at(pair: &Pair, path: &Path, number: u64) -> Device {
    let mut device = pair.third();
    let (fs, mut parts) = pair.parts(number);
    parts.index = Index::open(path).unwrap();
    let keys = device.replica.index().meta("keys").unwrap().unwrap();
    let name = device.replica.index().meta("device name").unwrap().unwrap();
    if parts.index.meta("keys").unwrap().is_none() {
        parts.index.set_meta("keys", Some(&keys)).unwrap();
        parts.index.set_meta("device name", Some(&name)).unwrap();
    }
    device.replica = Replica::open(parts).unwrap();
    device.fs = fs;
    device
}

fn copy_index(from: &Path, to: &Path) {
    for suffix in ["", "-wal"] {
        let of = |path: &Path| format!("{}{suffix}", path.display());
        if Path::new(&of(from)).exists() {
            std::fs::copy(of(from), of(to)).unwrap();
        }
    }
}

fn closed(device: Device) -> packetboat_testkit::sim_fs::SimFs {
    let Parts { index, .. } = device.replica.into_parts();
    drop(index);
    device.fs
}

/// A pair, and a third device with a file `kept`, whose index was copied from `now` to `old` when it was closed.
struct Backup {
    directory: tempfile::TempDir,
    pair: Pair,
    fs: packetboat_testkit::sim_fs::SimFs,
    now: PathBuf,
    old: PathBuf,
}

impl Backup {
    fn of_a_third() -> Self {
        let directory = tempfile::tempdir().unwrap();
        let (now, old) = (directory.path().join("now.db"), directory.path().join("old.db"));
        let pair = Pair::new();
        let mut third = with_index_at(&pair, &now, 30);
        third.fs.write("kept", b"one").unwrap();
        third.sync();
        let fs = closed(third);
        copy_index(&now, &old);
        Self { directory, pair, fs, now, old }
    }
}

/// A third device publishes more, of which the others tell, and then its backup comes back: index and disk as they were.
#[track_caller]
fn goes_on_as_a_new_device(tip_is_damaged: bool) {
    let Backup { directory: _directory, mut pair, fs, now, old } = Backup::of_a_third();
    let mut third = with_index_at(&pair, &now, 31);
    third.fs = fs.clone();
    third.replica = reopen(&pair, &fs, &now);
    for text in ["one", "two"] {
        third.fs.write("later", text.as_bytes()).unwrap();
        third.sync();
    }
    pair.settle();
    pair.laptop.fs.write("on the laptop", b"three").unwrap();
    pair.settle();
    let id = third.id();
    drop(third.replica.into_parts());
    fs.remove("later").unwrap();
    let known = reopen(&pair, &fs, &old).index().knowledge().counter(&id);
    if tip_is_damaged {
        pair.store.tamper(&Tip::name(&id), |bytes| bytes[40] ^= 1);
        // Nor can it read on in its lane.
        let next = packet_name(&Dot { device: id, counter: known + 1 });
        pair.store.delete(&next).unwrap();
    }
    let mut restored = Device { replica: reopen(&pair, &fs, &old), fs };
    let report = restored.sync();
    assert_eq!(report.sent.deleted, 0, "what the backup lacks is not deleted");
    restored.fs.write("on the third", b"four").unwrap();
    restored.sync();
    pair.settle();
    restored.sync();
    pair.assert_files(&[("kept", "one"), ("later", "two"), ("on the laptop", "three"), ("on the third", "four")]);
    assert_eq!(restored.files(), pair.laptop.files());
    assert_eq!(restored.replica.devices().unwrap().len(), 4, "it is a device of its own now");
}

#[test]
fn a_restored_index_that_is_older_than_its_lane_lets_nothing_go() {
    let Backup { directory: _directory, mut pair, fs, now, old } = Backup::of_a_third();
    let mut third = Device { replica: reopen(&pair, &fs, &now), fs: fs.clone() };
    third.fs.write("later", b"two").unwrap();
    third.sync();
    pair.settle();
    drop(third.replica.into_parts());
    let mut restored = Device { replica: reopen(&pair, &fs, &old), fs };
    let before = pair.store.names();
    let options = PruneOptions { keep: Some(Retention::Days(0)), dry_run: false };
    let report = restored.replica.prune(options, &mut Silent).unwrap();
    assert_eq!(report.notes, ["this device is about to go on as a new one: synchronise first"]);
    assert_eq!(pair.store.names(), before);
    assert_ne!(restored.replica.retention().unwrap(), Retention::Days(0));
}

#[test]
fn a_restored_index_that_is_older_than_its_lane_goes_on_as_a_new_device() {
    goes_on_as_a_new_device(false);
}

#[test]
fn a_restored_index_hears_of_its_lane_by_others_where_its_own_tip_is_damaged() {
    // It wrote its tip anew as far as it knew, and published into a part of its lane that others had read.
    goes_on_as_a_new_device(true);
}

#[test]
fn two_disks_with_one_key_become_two_devices_and_keep_what_both_wrote() {
    let directory = tempfile::tempdir().unwrap();
    let (one, two) = (directory.path().join("one.db"), directory.path().join("two.db"));
    let mut pair = Pair::new();
    let mut third = with_index_at(&pair, &one, 30);
    third.fs.write("shared", b"start").unwrap();
    third.fs.write("other", b"start").unwrap();
    third.sync();
    let fs = closed(third);
    copy_index(&one, &two);
    // A clone: the same index, and a disk with the same files.
    let (clone_fs, _) = pair.parts(32);
    clone_fs.write("shared", b"start").unwrap();
    clone_fs.write("other", b"start").unwrap();
    let mut original = Device { replica: reopen(&pair, &fs, &one), fs };
    let mut clone = Device { replica: reopen(&pair, &clone_fs, &two), fs: clone_fs };
    pair.pass();
    original.fs.write("shared", b"by the original").unwrap();
    original.fs.write("new", b"by the original").unwrap();
    clone.fs.write("shared", b"by the clone").unwrap();
    clone.fs.write("newer", b"by the clone").unwrap();
    original.sync();
    for _ in 0..3 {
        clone.sync();
        original.sync();
        pair.settle();
    }
    let contents = |device: &Device| {
        let mut contents: Vec<String> = device.files().into_iter().map(|(_, text)| text).collect();
        contents.sort();
        contents
    };
    let expected = ["by the clone", "by the clone", "by the original", "by the original", "start"];
    for device in [&original, &clone, &pair.laptop, &pair.desk] {
        assert_eq!(contents(device), expected);
        assert_eq!(device.files(), original.files());
    }
}

#[test]
fn a_restored_index_from_before_a_new_key_publishes_nothing_into_the_void() {
    // The backup knew neither the key under which its own later tip was sealed, nor the device that had begun with it.
    // The key came with what was folded, its tip was not looked at again, and the one it wrote had a number long used:
    // the others took it for an old one put back, and heard nothing of this device any more.
    let Backup { directory: _directory, mut pair, fs, now, old } = Backup::of_a_third();
    let mut fourth = pair.joined(41, "fourth", b"secret");
    fourth.sync();
    let desk = pair.desk.id();
    fourth.replica.revoke(&desk, b"a new passphrase", &mut packetboat_engine::ports::Silent).unwrap();
    let mut third = Device { replica: reopen(&pair, &fs, &now), fs: fs.clone() };
    for text in ["two", "three", "four"] {
        pair.pass();
        third.fs.write("kept", text.as_bytes()).unwrap();
        third.sync();
        pair.laptop.sync();
    }
    drop(third.replica.into_parts());
    let mut restored = Device { replica: reopen(&pair, &fs, &old), fs };
    restored.fs.write("later", b"by the restored one").unwrap();
    for _ in 0..3 {
        pair.pass();
        restored.sync();
        pair.laptop.sync();
        fourth.sync();
    }
    assert_eq!(pair.laptop.files(), restored.files());
    assert_eq!(fourth.files(), restored.files());
    assert!(restored.files().iter().any(|(path, text)| path == "later" && text == "by the restored one"));
}

/// A store at which somebody else puts what lies at another just before a certain object is put.
struct Overtaken {
    inner: MemoryStore,
    theirs: MemoryStore,
    at: ObjectName,
}

impl Store for Overtaken {
    fn describe(&self) -> String {
        self.inner.describe()
    }
    fn put_new(&self, name: &ObjectName, bytes: &[u8]) -> Result<Put, StoreError> {
        if *name == self.at {
            bring(&self.theirs, &self.inner.names(), &self.inner);
        }
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
        self.inner.list(folder)
    }
    fn delete(&self, name: &ObjectName) -> Result<(), StoreError> {
        self.inner.delete(name)
    }
}

#[test]
fn whoever_finds_a_copy_of_itself_while_it_stores_anew_deletes_nothing_for_what_it_could_not_tell() {
    let directory = tempfile::tempdir().unwrap();
    let (now, old) = (directory.path().join("now.db"), directory.path().join("old.db"));
    let mut pair = Pair::new();
    let mut third = with_index_at(&pair, &now, 30);
    third.sync();
    let pack = stored(&mut pair, "dir/moved", 7);
    third.sync();
    // The laptop deletes and condemns what the desk moved unseen, so that all have it again; and all have answered.
    rename_unseen(&mut pair);
    pair.desk.sync();
    third.sync();
    let (id, counter) = (third.id(), third.replica.index().knowledge().counter(&third.id()));
    let fs = closed(third);
    copy_index(&now, &old);
    // A copy of the third publishes where nobody sees it yet.
    let elsewhere = MemoryStore::new();
    bring(&pair.store, &[], &elsewhere);
    let copy = Device { replica: reopen(&pair, &fs, &old), fs: fs.clone() };
    let mut copy = pair.moved(copy, &elsewhere, "memory");
    copy.fs.write("by the copy", b"text").unwrap();
    copy.sync();
    let at = packet_name(&Dot { device: id, counter: counter + 1 });
    assert!(elsewhere.names().contains(&at) && !pair.store.names().contains(&at));
    let mut parts = reopen(&pair, &fs, &now).into_parts();
    parts.store = std::sync::Arc::new(Overtaken { inner: pair.store.clone(), theirs: elsewhere, at: at.clone() });
    let mut third = Device { replica: Replica::open(parts).unwrap(), fs };
    third.replica.prune(PruneOptions::default(), &mut Silent).unwrap();
    assert!(pair.store.names().contains(&at), "it was to tell of what it stored anew");
    assert!(packs(&pair).contains(&pack), "nobody else knows of another pack that holds this");
    for _ in 0..3 {
        third.sync();
        pair.settle();
    }
    for device in [&mut pair.laptop, &mut pair.desk, &mut third] {
        assert_eq!(device.fs.read("elsewhere/moved").unwrap(), noise(7, LARGE));
        assert_sound(device);
    }
}

/// The replica with this disk and this index, as its program starts again.
fn reopen(pair: &Pair, fs: &packetboat_testkit::sim_fs::SimFs, index: &Path) -> Replica {
    let (_, mut parts) = pair.parts(index.as_os_str().len() as u64);
    parts.fs = std::sync::Arc::new(fs.clone());
    parts.index = Index::open(index).unwrap();
    Replica::open(parts).unwrap()
}
