//! What the port promises, as checks that every store of this crate passes.

use std::collections::BTreeMap;
use std::sync::Barrier;

use packetboat_core::store::{ObjectName, Put, Store, StoreError};
use proptest::prelude::*;
use proptest::test_runner::TestRunner;

/// The name, which must be sound.
pub(crate) fn name(text: &str) -> ObjectName {
    ObjectName::new(text).expect("tests use sound names")
}

/// Runs all checks on an empty store and leaves it empty.
pub(crate) fn check_store(store: &dyn Store) {
    check_reads_and_writes(store);
    check_listings(store);
    check_races(store);
}

fn check_reads_and_writes(store: &dyn Store) {
    let object = name("packs/3f/one");
    assert!(!store.describe().is_empty());
    assert!(matches!(store.get(&object, 10), Err(StoreError::Missing { name }) if name == object));
    assert!(matches!(store.get_range(&object, 0, 1), Err(StoreError::Missing { .. })));
    store.delete(&object).unwrap();

    assert_eq!(store.put_new(&object, b"first").unwrap(), Put::Stored);
    assert_eq!(store.put_new(&object, b"second").unwrap(), Put::Present);
    assert_eq!(store.get(&object, 5).unwrap(), b"first");
    assert!(matches!(store.get(&object, 4), Err(StoreError::TooLarge { limit: 4, .. })));

    assert_eq!(store.get_range(&object, 1, 3).unwrap(), b"irs");
    assert_eq!(store.get_range(&object, 5, 0).unwrap(), b"");
    for (offset, len) in [(0, 6), (5, 1), (6, 0), (u64::MAX, 1), (1, u64::MAX), (u64::MAX, u64::MAX)] {
        let range = store.get_range(&object, offset, len);
        assert!(matches!(range, Err(StoreError::Short { .. })), "{offset}+{len}: {range:?}");
    }

    store.put(&object, b"").unwrap();
    assert_eq!(store.get(&object, 0).unwrap(), b"");
    store.delete(&object).unwrap();
    store.delete(&object).unwrap();
    assert!(matches!(store.get(&object, 10), Err(StoreError::Missing { .. })));
}

fn check_listings(store: &dyn Store) {
    assert_eq!(store.list("tips").unwrap(), []);
    let tips = [name("tips/a"), name("tips/b.x"), name("tips/c-1")];
    for tip in tips.iter().rev() {
        store.put(tip, tip.as_str().as_bytes()).unwrap();
    }
    store.put(&name("tips/deeper/d"), b"").unwrap();
    store.put(&name("packetboat"), b"marker").unwrap();
    let listed = store.list("tips").unwrap();
    assert_eq!(listed.iter().map(|entry| entry.name.clone()).collect::<Vec<_>>(), tips);
    assert_eq!(listed.iter().map(|entry| entry.size).collect::<Vec<_>>(), [6, 8, 8]);
    assert_eq!(store.list("tips").unwrap(), listed);
    assert_eq!(store.list("").unwrap().len(), 1);
    assert!(matches!(store.list("../up"), Err(StoreError::Io { action: "list", .. })));
    assert!(matches!(store.list("tips/"), Err(StoreError::Io { action: "list", .. })));

    store.put(&tips[0], b"tips/b").unwrap();
    let changed = store.list("tips").unwrap();
    assert_ne!(changed[0].etag, listed[0].etag, "a change of the same size shows in the etag");
    assert_eq!(changed[1..], listed[1..]);
    for object in tips.iter().chain(&[name("tips/deeper/d"), name("packetboat")]) {
        store.delete(object).unwrap();
    }
    assert_eq!(store.list("tips").unwrap(), []);
}

/// Sixteen threads put every one of 200 names at the same moment; one wins, and what it put is what stays.
pub(crate) fn check_races(store: &dyn Store) {
    const THREADS: usize = 16;
    let names: Vec<ObjectName> = (0..200).map(|number| name(&format!("lanes/x/{number}"))).collect();
    let start = Barrier::new(THREADS);
    let winners: Vec<Vec<bool>> = std::thread::scope(|scope| {
        let threads: Vec<_> = (0..THREADS)
            .map(|thread| {
                let (names, start) = (&names, &start);
                scope.spawn(move || {
                    let put = |object| {
                        start.wait();
                        store.put_new(object, &[thread as u8; 300]).unwrap() == Put::Stored
                    };
                    names.iter().map(put).collect()
                })
            })
            .collect();
        threads.into_iter().map(|thread| thread.join().unwrap()).collect()
    });
    for (number, object) in names.iter().enumerate() {
        let won: Vec<usize> = (0..THREADS).filter(|thread| winners[*thread][number]).collect();
        assert_eq!(won.len(), 1, "{object} was stored by {won:?}");
        assert_eq!(store.get(object, 300).unwrap(), [won[0] as u8; 300]);
    }
    assert_eq!(store.list("lanes/x").unwrap().len(), names.len());
    for object in &names {
        store.delete(object).unwrap();
    }
}

#[derive(Clone, Debug)]
enum Call {
    PutNew(usize, Vec<u8>),
    Put(usize, Vec<u8>),
    Get(usize, u64),
    Range(usize, u64, u64),
    List(usize),
    Delete(usize),
}

fn calls() -> impl Strategy<Value = Vec<Call>> {
    let bytes = || prop::collection::vec(any::<u8>(), 0..6);
    let call = prop_oneof![
        (0..NAMES.len(), bytes()).prop_map(|(name, bytes)| Call::PutNew(name, bytes)),
        (0..NAMES.len(), bytes()).prop_map(|(name, bytes)| Call::Put(name, bytes)),
        (0..NAMES.len(), 0u64..6).prop_map(|(name, limit)| Call::Get(name, limit)),
        (0..NAMES.len(), 0u64..6, 0u64..6).prop_map(|(name, offset, len)| Call::Range(name, offset, len)),
        (0..FOLDERS.len()).prop_map(Call::List),
        (0..NAMES.len()).prop_map(Call::Delete),
    ];
    prop::collection::vec(call, 1..30)
}

const NAMES: [&str; 5] = ["marker", "a/x", "a/y", "a/b/x", "c/x"];
const FOLDERS: [&str; 4] = ["", "a", "a/b", "none"];

/// Runs arbitrary calls on fresh stores and on a map, and compares every answer.
pub(crate) fn check_store_against_model<S: Store>(fresh: impl Fn() -> S) {
    let mut runner = TestRunner::new(ProptestConfig { cases: 48, failure_persistence: None, ..Default::default() });
    let outcome = runner.run(&calls(), |calls| {
        let (store, mut model) = (fresh(), BTreeMap::<ObjectName, Vec<u8>>::new());
        for call in calls {
            check_call(&store, &mut model, call)?;
        }
        Ok(())
    });
    outcome.unwrap_or_else(|failure| panic!("{failure}"));
}

fn check_call(store: &dyn Store, model: &mut BTreeMap<ObjectName, Vec<u8>>, call: Call) -> Result<(), TestCaseError> {
    match call {
        Call::PutNew(at, bytes) => {
            let object = name(NAMES[at]);
            let expected = if model.contains_key(&object) { Put::Present } else { Put::Stored };
            prop_assert_eq!(store.put_new(&object, &bytes).unwrap(), expected);
            model.entry(object).or_insert(bytes);
        }
        Call::Put(at, bytes) => {
            store.put(&name(NAMES[at]), &bytes).unwrap();
            model.insert(name(NAMES[at]), bytes);
        }
        Call::Get(at, limit) => match (store.get(&name(NAMES[at]), limit), model.get(&name(NAMES[at]))) {
            (Ok(bytes), Some(expected)) => prop_assert!(bytes == *expected && bytes.len() as u64 <= limit),
            (Err(StoreError::TooLarge { .. }), Some(expected)) => prop_assert!(expected.len() as u64 > limit),
            (Err(StoreError::Missing { .. }), None) => {}
            (answer, expected) => prop_assert!(false, "{:?} instead of {:?}", answer, expected),
        },
        Call::Range(at, offset, len) => {
            let expected = model.get(&name(NAMES[at]));
            match store.get_range(&name(NAMES[at]), offset, len) {
                Ok(bytes) => {
                    let end = (offset + len) as usize;
                    prop_assert_eq!(expected.and_then(|all| all.get(offset as usize..end)), Some(bytes.as_slice()));
                }
                Err(StoreError::Short { .. }) => {
                    prop_assert!(expected.is_some_and(|all| offset + len > all.len() as u64));
                }
                Err(StoreError::Missing { .. }) => prop_assert!(expected.is_none()),
                Err(other) => prop_assert!(false, "{:?}", other),
            }
        }
        Call::List(at) => {
            let listed = store.list(FOLDERS[at]).unwrap().into_iter().map(|entry| (entry.name, entry.size));
            let within = model.iter().filter(|(object, _)| match object.as_str().rsplit_once('/') {
                Some((folder, _)) => folder == FOLDERS[at],
                None => FOLDERS[at].is_empty(),
            });
            let expected = within.map(|(object, bytes)| (object.clone(), bytes.len() as u64));
            prop_assert_eq!(listed.collect::<Vec<_>>(), expected.collect::<Vec<_>>());
        }
        Call::Delete(at) => {
            store.delete(&name(NAMES[at])).unwrap();
            model.remove(&name(NAMES[at]));
        }
    }
    Ok(())
}
