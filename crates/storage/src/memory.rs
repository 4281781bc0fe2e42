//! An intermediary in memory, for tests and simulations: what the port promises, without a disk.
//!
//! Clones share their objects, so several replicas of a test can meet at one store.
//! Every put counts up a version, which is the object's etag; put-if-absent is exclusive.

use std::collections::BTreeMap;
use std::io;
use std::sync::{Arc, Mutex, MutexGuard};

use packetboat_core::store::{Listed, ObjectName, Put, Store, StoreError};

/// Objects in memory, shared by all clones of the handle.
#[derive(Clone, Default, Debug)]
pub struct MemoryStore {
    objects: Arc<Mutex<Objects>>,
}

#[derive(Default, Debug)]
struct Objects {
    by_name: BTreeMap<ObjectName, (u64, Vec<u8>)>,
    version: u64,
}

impl MemoryStore {
    /// A store without objects.
    pub fn new() -> Self {
        Self::default()
    }

    /// The names of all objects, in order.
    pub fn names(&self) -> Vec<ObjectName> {
        self.objects().by_name.keys().cloned().collect()
    }

    /// The size of all objects in bytes.
    pub fn size(&self) -> u64 {
        self.objects().by_name.values().map(|(_, bytes)| bytes.len() as u64).sum()
    }

    /// Changes the bytes of an object behind everyone's back; whether there was one.
    pub fn tamper(&self, name: &ObjectName, change: impl FnOnce(&mut Vec<u8>)) -> bool {
        match self.objects().by_name.get_mut(name) {
            Some((_, bytes)) => {
                change(bytes);
                true
            }
            None => false,
        }
    }

    /// A panic elsewhere leaves the map whole: each call changes it in one step.
    fn objects(&self) -> MutexGuard<'_, Objects> {
        self.objects.lock().unwrap_or_else(|poisoned| poisoned.into_inner())
    }
}

impl Objects {
    fn insert(&mut self, name: &ObjectName, bytes: &[u8]) {
        self.version += 1;
        self.by_name.insert(name.clone(), (self.version, bytes.to_vec()));
    }

    fn bytes(&self, name: &ObjectName) -> Result<&[u8], StoreError> {
        match self.by_name.get(name) {
            Some((_, bytes)) => Ok(bytes),
            None => Err(StoreError::Missing { name: name.clone() }),
        }
    }
}

impl Store for MemoryStore {
    fn describe(&self) -> String {
        "memory".to_owned()
    }

    fn put_new(&self, name: &ObjectName, bytes: &[u8]) -> Result<Put, StoreError> {
        let mut objects = self.objects();
        if objects.by_name.contains_key(name) {
            return Ok(Put::Present);
        }
        objects.insert(name, bytes);
        Ok(Put::Stored)
    }

    fn put(&self, name: &ObjectName, bytes: &[u8]) -> Result<(), StoreError> {
        self.objects().insert(name, bytes);
        Ok(())
    }

    fn get(&self, name: &ObjectName, limit: u64) -> Result<Vec<u8>, StoreError> {
        let objects = self.objects();
        let bytes = objects.bytes(name)?;
        if bytes.len() as u64 > limit {
            return Err(StoreError::TooLarge { name: name.clone(), limit });
        }
        Ok(bytes.to_vec())
    }

    fn get_range(&self, name: &ObjectName, offset: u64, len: u64) -> Result<Vec<u8>, StoreError> {
        let objects = self.objects();
        let bytes = objects.bytes(name)?;
        let range = usize::try_from(offset).ok().zip(usize::try_from(len).ok());
        let slice = range.and_then(|(offset, len)| bytes.get(offset..offset.checked_add(len)?));
        slice.map(<[u8]>::to_vec).ok_or_else(|| StoreError::Short { name: name.clone() })
    }

    fn list(&self, folder: &str) -> Result<Vec<Listed>, StoreError> {
        let prefix = match folder {
            "" => String::new(),
            folder if ObjectName::new(folder).is_some() => format!("{folder}/"),
            _ => {
                let source = io::Error::from(io::ErrorKind::InvalidInput);
                return Err(StoreError::Io { action: "list", name: folder.to_owned(), source });
            }
        };
        let objects = self.objects();
        let within = objects
            .by_name
            .iter()
            .filter(|(name, _)| name.as_str().strip_prefix(&prefix).is_some_and(|rest| !rest.contains('/')));
        Ok(within
            .map(|(name, (version, bytes))| Listed {
                name: name.clone(),
                size: bytes.len() as u64,
                etag: version.to_string(),
            })
            .collect())
    }

    fn delete(&self, name: &ObjectName) -> Result<(), StoreError> {
        self.objects().by_name.remove(name);
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::conformance::{check_store, check_store_against_model};

    #[test]
    fn keeps_the_promises_of_the_port() {
        check_store(&MemoryStore::new());
    }

    #[test]
    fn behaves_as_the_model_does() {
        check_store_against_model(MemoryStore::new);
    }

    #[test]
    fn clones_share_their_objects() {
        let store = MemoryStore::new();
        let name = ObjectName::new("tips/a").unwrap();
        store.clone().put(&name, b"one").unwrap();
        assert_eq!(store.get(&name, 10).unwrap(), b"one");
        assert!(store.tamper(&name, |bytes| bytes[0] ^= 1));
        assert_eq!((store.size(), store.names()), (3, vec![name.clone()]));
        assert_ne!(store.get(&name, 10).unwrap(), b"one");
    }
}
