//! What tests of letting go begin from and look at.

#![allow(dead_code, reason = "each file of tests uses its part")]

use std::num::NonZeroU32;

use packetboat_core::garbage::{Garbage, Retention};
use packetboat_core::store::{ObjectName, Store};
use packetboat_core::wire::Reader;
use packetboat_engine::error::QueryError;
use packetboat_engine::ports::Silent;
use packetboat_engine::replica::At;
use packetboat_engine::{PruneOptions, PruneReport};
use packetboat_storage::memory::MemoryStore;
use packetboat_testkit::rng::Rng;

use super::{Device, Pair, path};

#[track_caller]
pub(crate) fn keep(device: &mut Device, retention: Retention) -> PruneReport {
    run(device, PruneOptions { keep: Some(retention), dry_run: false })
}

#[track_caller]
pub(crate) fn prune(device: &mut Device) -> PruneReport {
    run(device, PruneOptions::default())
}

#[track_caller]
fn run(device: &mut Device, options: PruneOptions) -> PruneReport {
    let report = device.replica.prune(options, &mut Silent).unwrap();
    assert!(!device.replica.index().in_transaction(), "a crash would undo what is kept only now");
    report
}

pub(crate) fn noise(seed: u64, len: usize) -> Vec<u8> {
    Rng::new(seed).bytes(len)
}

pub(crate) fn shown(device: &mut Device, of: &str, at: &At) -> Result<Vec<u8>, QueryError> {
    let mut out = Vec::new();
    device.replica.show(&path(of), Some(at), &mut out)?;
    Ok(out)
}

pub(crate) fn count(store: &MemoryStore, folder: &str) -> usize {
    store.names().iter().filter(|name| name.as_str().starts_with(folder)).count()
}

pub(crate) fn packets(store: &MemoryStore) -> usize {
    count(store, "lanes/")
}

/// The names of all packs.
pub(crate) fn packs(pair: &Pair) -> Vec<ObjectName> {
    pair.store.names().into_iter().filter(|name| name.as_str().starts_with("packs/")).collect()
}

/// Writes a large file and synchronises both; the one pack that was stored for it.
#[track_caller]
pub(crate) fn stored(pair: &mut Pair, path: &str, seed: u64) -> ObjectName {
    let before = packs(pair);
    pair.laptop.fs.write(path, &noise(seed, LARGE)).unwrap();
    pair.settle();
    let mut new = packs(pair).into_iter().filter(|name| !before.contains(name));
    let pack = new.next().expect("a pack was stored");
    assert_eq!(new.next(), None);
    pack
}

/// Whether a device asks others for anything.
pub(crate) fn misses_something(device: &Device) -> bool {
    device.replica.index().meta("wanted").unwrap().is_some()
}

/// What a device has folded of garbage.
pub(crate) fn garbage(device: &Device) -> Garbage {
    let Some(bytes) = device.replica.index().meta("garbage").unwrap() else { return Garbage::new() };
    Garbage::decode(&mut Reader::new(&bytes)).unwrap()
}

#[track_caller]
pub(crate) fn assert_sound(device: &mut Device) {
    let report = device.replica.verify(true, &mut Silent).unwrap();
    let name = device.replica.device_name().unwrap();
    assert!(report.faults.is_empty(), "{name}: {:?}", report.faults);
}

/// Copies what one store has and the other had not when `before` was listed.
pub(crate) fn bring(from: &MemoryStore, before: &[ObjectName], to: &MemoryStore) {
    for name in from.names().into_iter().filter(|name| !before.contains(name)) {
        let bytes = from.get(&name, u64::MAX).unwrap();
        to.put(&name, &bytes).unwrap();
    }
}

/// Two devices and a large file that was written three times, a day apart; times are after each.
pub(crate) fn three_versions() -> (Pair, [At; 3]) {
    let mut pair = Pair::new();
    let times = [1, 2, 3].map(|version| {
        pair.laptop.fs.write("large", &noise(version, LARGE)).unwrap();
        pair.laptop.fs.write("small", format!("version {version}").as_bytes()).unwrap();
        pair.settle();
        let time = At::Time(pair.pass());
        pair.pass_days(1);
        time
    });
    (pair, times)
}

/// Only what stands is kept.
pub(crate) const ONE_VERSION: Retention = Retention::Versions(NonZeroU32::MIN);

/// Bytes of a file that does not travel inside packets.
pub(crate) const LARGE: usize = 600 * 1024;

/// Lets all that are there synchronise and let go, a day apart, until a run of each publishes and deletes nothing; panics
/// where that takes too long, where something waits in the end, or where the next run finds something all the same.
#[track_caller]
pub(crate) fn let_go_until_nothing_moves(pair: &mut Pair, others: &mut [&mut Device]) {
    for run in 0.. {
        assert!(run <= RUNS_TO_REST, "letting go never comes to rest");
        for _ in 0..2 {
            pair.settle();
            others.iter_mut().for_each(|other| drop(other.sync()));
        }
        pair.pass_days(1);
        let names = pair.store.names();
        let devices = |pair: &mut Pair, others: &mut [&mut Device]| -> Vec<PruneReport> {
            let pair = [&mut pair.laptop, &mut pair.desk].into_iter();
            pair.chain(others.iter_mut().map(|other| &mut **other)).map(prune).collect()
        };
        let reports = devices(pair, others);
        if pair.store.names() != names {
            continue;
        }
        for report in &reports {
            assert_eq!((report.packets, report.packs), (0, 0), "{report:?}");
        }
        for report in devices(pair, others) {
            assert_eq!(report.waiting_for, Vec::<String>::new());
            assert_eq!((report.packets, report.packs, report.deleted), (0, 0, 0), "{report:?}");
        }
        assert_eq!(pair.store.names(), names, "a run after one that found nothing published something");
        return;
    }
}

/// One to condemn, one to delete, one for the segments that the new checkpoint leaves, and one for each more device.
const RUNS_TO_REST: usize = 6;

/// As many packets as make a checkpoint due.
pub(crate) const MORE_THAN_A_TAIL: usize = 70;

/// Has the desk publish until it has written a checkpoint, the first of all.
#[track_caller]
pub(crate) fn desk_writes_a_checkpoint(pair: &mut Pair) {
    for number in 0..MORE_THAN_A_TAIL {
        pair.pass();
        pair.desk.fs.write("counter", number.to_string().as_bytes()).unwrap();
        pair.desk.sync();
    }
    assert_eq!(count(&pair.store, "checkpoints/"), 1, "the desk's");
}

/// The laptop deletes and condemns `dir/moved`; the desk, which has heard of neither, renames `dir` where nobody sees it yet.
#[track_caller]
pub(crate) fn rename_unseen(pair: &mut Pair) {
    let desk = pair.take_desk();
    let mut desk = pair.moved(desk, &MemoryStore::new(), "nowhere");
    desk.fs.rename("dir", "elsewhere").unwrap();
    desk.sync();
    pair.laptop.fs.remove("dir/moved").unwrap();
    pair.laptop.fs.remove("dir").unwrap();
    pair.laptop.sync();
    pair.pass_days(1);
    assert_eq!(keep(&mut pair.laptop, Retention::Days(0)).packs, 1);
    pair.desk = pair.moved(desk, &pair.store, "memory");
}

/// Two devices and one pack, stored in one round, of which half is waste since a day.
pub(crate) fn half_wasted() -> Pair {
    let mut pair = Pair::new();
    pair.laptop.fs.write("stays", &noise(1, LARGE)).unwrap();
    pair.laptop.fs.write("goes", &noise(2, LARGE)).unwrap();
    pair.settle();
    pair.laptop.fs.remove("goes").unwrap();
    pair.settle();
    pair.pass_days(1);
    pair
}
