//! The port to an intermediary: storage that keeps named objects and knows nothing of synchronisation.
//!
//! Everything Packetboat puts there is immutable except `tips/<device>` (one writer) and the marker.
//! The port promises little, because storages promise little:
//! a put may be lost unless it returned, a listing may be stale, and a put-if-absent may not be exclusive.
//! What rests on more is proven by hashes and signatures, not by the storage.

use std::fmt;
use std::io;

use thiserror::Error;

/// The name of an object at an intermediary: `/`-separated parts of `[a-z0-9._-]`, none of them `.` or `..`.
#[derive(Clone, PartialEq, Eq, PartialOrd, Ord, Hash, Debug)]
pub struct ObjectName(String);

impl ObjectName {
    /// Checks and wraps a name.
    pub fn new(name: impl Into<String>) -> Option<Self> {
        let name = name.into();
        let sound = name.len() <= 200
            && name.split('/').all(|part| {
                !part.is_empty()
                    && part != "."
                    && part != ".."
                    && part.bytes().all(|b| matches!(b, b'a'..=b'z' | b'0'..=b'9' | b'.' | b'_' | b'-'))
            });
        sound.then_some(Self(name))
    }

    /// The name as text.
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl fmt::Display for ObjectName {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

/// An object as a listing shows it.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Listed {
    /// The object's whole name.
    pub name: ObjectName,
    /// Its size in bytes.
    pub size: u64,
    /// Changes whenever the object does, as far as the storage can tell; opaque, compared for equality only.
    pub etag: String,
}

/// What a put did.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Put {
    /// The object is there now, and durable as far as the storage can promise.
    Stored,
    /// An object of that name was there already and was not touched.
    Present,
}

/// One intermediary. Calls block; implementations are used from several threads at once.
pub trait Store: Send + Sync {
    /// What people call this place, for messages.
    fn describe(&self) -> String;

    /// Puts an object unless its name is taken. Never leaves a torn object under the name where the storage can help it.
    fn put_new(&self, name: &ObjectName, bytes: &[u8]) -> Result<Put, StoreError>;

    /// Puts an object, replacing one of the same name as a whole.
    fn put(&self, name: &ObjectName, bytes: &[u8]) -> Result<(), StoreError>;

    /// Reads a whole object of at most `limit` bytes.
    fn get(&self, name: &ObjectName, limit: u64) -> Result<Vec<u8>, StoreError>;

    /// Reads exactly `len` bytes from `offset`; an object too short for that is [`StoreError::Missing`]-like damage: [`StoreError::Short`].
    fn get_range(&self, name: &ObjectName, offset: u64, len: u64) -> Result<Vec<u8>, StoreError>;

    /// Lists the objects directly within a folder such as `tips` or `packs/3f` (no trailing slash), by name.
    /// A folder that is not there is an empty list.
    fn list(&self, folder: &str) -> Result<Vec<Listed>, StoreError>;

    /// Removes an object; one that is gone already is no error.
    fn delete(&self, name: &ObjectName) -> Result<(), StoreError>;
}

/// What went wrong at an intermediary, by what the caller can do.
#[derive(Debug, Error)]
pub enum StoreError {
    /// No such object.
    #[error("{name} is not at the intermediary")]
    Missing {
        /// The object asked for.
        name: ObjectName,
    },
    /// An object is longer than any sound one.
    #[error("{name} is larger than {limit} bytes")]
    TooLarge {
        /// The object asked for.
        name: ObjectName,
        /// Greatest size in bytes.
        limit: u64,
    },
    /// An object ends before the range asked for.
    #[error("{name} is shorter than it should be")]
    Short {
        /// The object asked for.
        name: ObjectName,
    },
    /// The storage is full.
    #[error("the intermediary is full")]
    Full,
    /// The storage refuses this user.
    #[error("the intermediary refuses access to {name}")]
    Denied {
        /// The object concerned.
        name: String,
        /// The system's reason.
        #[source]
        source: io::Error,
    },
    /// Anything else; may pass.
    #[error("cannot {action} {name} at the intermediary")]
    Io {
        /// What was attempted: "read", "write", "list", "delete".
        action: &'static str,
        /// The object or folder concerned.
        name: String,
        /// The system's reason.
        #[source]
        source: io::Error,
    },
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_that_could_escape_are_refused() {
        for bad in ["", "/", "a/", "/a", "a//b", "..", "a/../b", "a b", "A", "a\0", "a\\b"] {
            assert_eq!(ObjectName::new(bad), None, "{bad:?}");
        }
        assert!(ObjectName::new("packs/3f/3fa0").is_some());
    }
}
