//! Each fault happens, by the seed, and nothing else does.

use super::*;
use crate::crash::is_store_crash;

fn name(text: &str) -> ObjectName {
    ObjectName::new(text).unwrap()
}

/// Puts and reads back a while; what a caller may see is what the port allows.
fn run(seed: u64, config: FaultConfig) -> (FaultyStore, Vec<String>) {
    let store = FaultyStore::new(seed, config);
    let mut log = Vec::new();
    for round in 0..400u64 {
        let tip = name("tips/a");
        log.push(format!("{:?}", store.put(&tip, &round.to_le_bytes())));
        log.push(format!("{:?}", store.put_new(&name(&format!("packs/{}", round % 50)), b"pack")));
        log.push(format!("{:?}", store.get(&tip, 100)));
        log.push(format!("{:?}", store.list("packs")));
    }
    (store, log)
}

#[test]
fn the_same_seed_gives_the_same_faults_and_each_fault_happens() {
    let (store, log) = run(3, FaultConfig::all(50));
    assert_eq!(log, run(3, FaultConfig::all(50)).1);
    assert_ne!(log, run(4, FaultConfig::all(50)).1);
    for fault in Fault::ALL {
        assert!(store.fired(fault) > 0, "{fault:?}");
    }
}

#[test]
fn without_faults_it_is_a_sound_store() {
    let store = FaultyStore::new(0, FaultConfig::none());
    let (a, b) = (name("packs/3f/a"), name("packs/3f/b"));
    assert_eq!(store.put_new(&a, b"one").unwrap(), Put::Stored);
    assert_eq!(store.put_new(&a, b"two").unwrap(), Put::Present);
    store.put(&b, b"0123456789").unwrap();
    assert_eq!(store.get(&a, 3).unwrap(), b"one");
    assert!(matches!(store.get(&a, 2), Err(StoreError::TooLarge { limit: 2, .. })));
    assert_eq!(store.get_range(&b, 2, 3).unwrap(), b"234");
    assert!(matches!(store.get_range(&b, 8, 3), Err(StoreError::Short { .. })));
    assert!(matches!(store.get_range(&b, u64::MAX, 3), Err(StoreError::Short { .. })));
    let listed = store.list("packs/3f").unwrap();
    assert_eq!(
        listed.iter().map(|object| (object.name.clone(), object.size)).collect::<Vec<_>>(),
        [(a.clone(), 3), (b.clone(), 10)]
    );
    assert_eq!(store.list("packs").unwrap(), vec![]);
    store.delete(&a).unwrap();
    store.delete(&a).unwrap();
    assert!(matches!(store.get(&a, 9), Err(StoreError::Missing { .. })));
    assert_eq!(store.requests(), Requests { puts: 3, gets: 6, lists: 2, deletes: 2 });
}

#[test]
fn a_delayed_object_shows_later_and_settling_shows_it_now() {
    let config = FaultConfig::none().with_greatest_delay(3).with(Fault::DelayedVisibility, 1_000);
    let store = FaultyStore::new(1, config);
    let tip = name("tips/a");
    store.put(&tip, b"new").unwrap();
    let reads = (0..4).map(|_| store.get(&tip, 9).is_ok()).collect::<Vec<_>>();
    assert!(reads[3] && reads.is_sorted(), "{reads:?}");
    store.put(&tip, b"newer").unwrap();
    store.settle();
    assert_eq!(store.get(&tip, 9).unwrap(), b"newer");
}

#[test]
fn a_crash_stops_one_device_and_leaves_the_other_at_work() {
    let one = FaultyStore::new(1, FaultConfig::none());
    let other = one.attach(2, FaultConfig::none());
    one.crash_at(2);
    one.put(&name("a"), b"1").unwrap();
    assert!(is_store_crash(&one.put_new(&name("b"), b"2").unwrap_err()));
    assert!(is_store_crash(&one.get(&name("a"), 9).unwrap_err()));
    assert!(one.has_crashed());
    assert_eq!(other.get(&name("a"), 9).unwrap(), b"1");
    one.revive();
    assert_eq!(one.get(&name("a"), 9).unwrap(), b"1");
}

#[test]
fn a_rolled_back_storage_shows_the_older_state_and_damage_shows_at_once() {
    let store = FaultyStore::new(1, FaultConfig::none());
    let tip = name("tips/a");
    store.put(&tip, b"old").unwrap();
    let snapshot = store.snapshot();
    store.put(&tip, b"new").unwrap();
    store.put(&name("other"), b"x").unwrap();
    store.restore_snapshot(&snapshot);
    assert_eq!(store.get(&tip, 9).unwrap(), b"old");
    assert_eq!(store.objects().len(), 1);
    assert!(store.damage(&tip, 0) && !store.damage(&tip, 9));
    assert_eq!(store.get(&tip, 9).unwrap(), [b'o' ^ 0x55, b'l', b'd']);
    assert!(store.remove(&tip) && !store.remove(&tip));
    assert!(matches!(store.get(&tip, 9), Err(StoreError::Missing { .. })));
}
