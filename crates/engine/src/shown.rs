//! A storage in memory for tests beside the code, of which not all is shown.

use std::collections::BTreeSet;
use std::sync::atomic::{AtomicU64, Ordering};

use packetboat_core::store::{Listed, ObjectName, Put, Store, StoreError};
use packetboat_storage::memory::MemoryStore;

/// A storage whose listings leave out some objects, where others are listed and cannot be read, and that may fail once.
#[derive(Default)]
pub(crate) struct Shown {
    objects: MemoryStore,
    pub(crate) unlisted: BTreeSet<ObjectName>,
    pub(crate) lost: BTreeSet<ObjectName>,
    /// The requests so far, and the one that fails; none does at 0.
    pub(crate) requests: AtomicU64,
    pub(crate) fails_at: u64,
}

impl Shown {
    fn request(&self) -> Result<(), StoreError> {
        let number = self.requests.fetch_add(1, Ordering::Relaxed) + 1;
        if number == self.fails_at {
            let source = std::io::Error::other("no line");
            return Err(StoreError::Io { action: "read", name: number.to_string(), source });
        }
        Ok(())
    }
}

impl Store for Shown {
    fn describe(&self) -> String {
        self.objects.describe()
    }

    fn put_new(&self, name: &ObjectName, bytes: &[u8]) -> Result<Put, StoreError> {
        self.objects.put_new(name, bytes)
    }

    fn put(&self, name: &ObjectName, bytes: &[u8]) -> Result<(), StoreError> {
        self.objects.put(name, bytes)
    }

    fn get(&self, name: &ObjectName, limit: u64) -> Result<Vec<u8>, StoreError> {
        self.request()?;
        match self.lost.contains(name) {
            true => Err(StoreError::Missing { name: name.clone() }),
            false => self.objects.get(name, limit),
        }
    }

    fn get_range(&self, name: &ObjectName, offset: u64, len: u64) -> Result<Vec<u8>, StoreError> {
        self.request()?;
        self.objects.get_range(name, offset, len)
    }

    fn list(&self, folder: &str) -> Result<Vec<Listed>, StoreError> {
        self.request()?;
        let listed = self.objects.list(folder)?;
        Ok(listed.into_iter().filter(|listed| !self.unlisted.contains(&listed.name)).collect())
    }

    fn delete(&self, name: &ObjectName) -> Result<(), StoreError> {
        self.objects.delete(name)
    }
}
