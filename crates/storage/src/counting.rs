//! Counts what an intermediary is asked for, so that the promises about cost can be shown and tested.
//!
//! It wraps any store and changes nothing about it.
//! Requests count whether or not they succeed; of bytes, those offered to a put and those that a get returned.
//! Each number is exact; a snapshot taken while requests run may show one number a moment before another.

use std::ops::Sub;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use packetboat_core::store::{Listed, ObjectName, Put, Store, StoreError};

/// A store that counts the requests made to another.
#[derive(Debug)]
pub struct CountingStore<S> {
    inner: S,
    meter: TrafficMeter,
}

impl<S: Store> CountingStore<S> {
    /// Wraps a store; all counts begin at zero.
    pub fn new(inner: S) -> Self {
        Self { inner, meter: TrafficMeter::default() }
    }

    /// The store behind.
    pub fn inner(&self) -> &S {
        &self.inner
    }

    /// What was counted so far.
    pub fn traffic(&self) -> Traffic {
        self.meter.traffic()
    }

    /// A handle that reads the counts wherever the store itself goes.
    pub fn meter(&self) -> TrafficMeter {
        self.meter.clone()
    }
}

impl<S: Store> Store for CountingStore<S> {
    fn describe(&self) -> String {
        self.inner.describe()
    }

    fn put_new(&self, name: &ObjectName, bytes: &[u8]) -> Result<Put, StoreError> {
        self.meter.count_put(bytes);
        self.inner.put_new(name, bytes)
    }

    fn put(&self, name: &ObjectName, bytes: &[u8]) -> Result<(), StoreError> {
        self.meter.count_put(bytes);
        self.inner.put(name, bytes)
    }

    fn get(&self, name: &ObjectName, limit: u64) -> Result<Vec<u8>, StoreError> {
        self.meter.count_get(self.inner.get(name, limit))
    }

    fn get_range(&self, name: &ObjectName, offset: u64, len: u64) -> Result<Vec<u8>, StoreError> {
        self.meter.count_get(self.inner.get_range(name, offset, len))
    }

    fn list(&self, folder: &str) -> Result<Vec<Listed>, StoreError> {
        add(&self.meter.0.lists, 1);
        self.inner.list(folder)
    }

    fn delete(&self, name: &ObjectName) -> Result<(), StoreError> {
        add(&self.meter.0.deletes, 1);
        self.inner.delete(name)
    }
}

/// Reads the counts of a [`CountingStore`]; clones read the same ones.
#[derive(Clone, Default, Debug)]
pub struct TrafficMeter(Arc<Counters>);

#[derive(Default, Debug)]
struct Counters {
    puts: AtomicU64,
    gets: AtomicU64,
    lists: AtomicU64,
    deletes: AtomicU64,
    bytes_up: AtomicU64,
    bytes_down: AtomicU64,
}

impl TrafficMeter {
    /// What was counted so far.
    pub fn traffic(&self) -> Traffic {
        let read = |counter: &AtomicU64| counter.load(Ordering::Relaxed);
        Traffic {
            puts: read(&self.0.puts),
            gets: read(&self.0.gets),
            lists: read(&self.0.lists),
            deletes: read(&self.0.deletes),
            bytes_up: read(&self.0.bytes_up),
            bytes_down: read(&self.0.bytes_down),
        }
    }

    fn count_put(&self, bytes: &[u8]) {
        add(&self.0.puts, 1);
        add(&self.0.bytes_up, bytes.len() as u64);
    }

    fn count_get(&self, answer: Result<Vec<u8>, StoreError>) -> Result<Vec<u8>, StoreError> {
        add(&self.0.gets, 1);
        if let Ok(bytes) = &answer {
            add(&self.0.bytes_down, bytes.len() as u64);
        }
        answer
    }
}

fn add(counter: &AtomicU64, amount: u64) {
    counter.fetch_add(amount, Ordering::Relaxed);
}

/// Requests by kind and bytes each way; the difference of two is what happened between them.
#[derive(Clone, Copy, PartialEq, Eq, Default, Debug)]
pub struct Traffic {
    /// Puts, exclusive or not.
    pub puts: u64,
    /// Reads, whole or ranged.
    pub gets: u64,
    /// Listings.
    pub lists: u64,
    /// Deletions.
    pub deletes: u64,
    /// Bytes offered by puts.
    pub bytes_up: u64,
    /// Bytes that reads returned.
    pub bytes_down: u64,
}

impl Traffic {
    /// Requests of all kinds.
    pub fn requests(&self) -> u64 {
        self.puts + self.gets + self.lists + self.deletes
    }
}

impl Sub for Traffic {
    type Output = Traffic;

    /// What was counted since `earlier`; zero where that is the later one.
    fn sub(self, earlier: Traffic) -> Traffic {
        Traffic {
            puts: self.puts.saturating_sub(earlier.puts),
            gets: self.gets.saturating_sub(earlier.gets),
            lists: self.lists.saturating_sub(earlier.lists),
            deletes: self.deletes.saturating_sub(earlier.deletes),
            bytes_up: self.bytes_up.saturating_sub(earlier.bytes_up),
            bytes_down: self.bytes_down.saturating_sub(earlier.bytes_down),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::conformance::check_store;
    use crate::memory::MemoryStore;

    #[test]
    fn keeps_the_promises_of_the_port() {
        check_store(&CountingStore::new(MemoryStore::new()));
    }

    #[test]
    fn every_request_is_counted_by_kind() {
        let store = CountingStore::new(MemoryStore::new());
        let name = ObjectName::new("tips/a").unwrap();
        store.put_new(&name, b"12345").unwrap();
        let before = store.traffic();
        store.put(&name, b"123").unwrap();
        assert_eq!(store.put_new(&name, b"1").unwrap(), Put::Present);
        store.get(&name, 10).unwrap();
        store.get_range(&name, 1, 2).unwrap();
        store.get(&ObjectName::new("nothing").unwrap(), 10).unwrap_err();
        store.list("tips").unwrap();
        store.delete(&name).unwrap();
        let spent = store.meter().traffic() - before;
        assert_eq!(spent, Traffic { puts: 2, gets: 3, lists: 1, deletes: 1, bytes_up: 4, bytes_down: 5 });
        assert_eq!(spent.requests(), 7);
    }
}
