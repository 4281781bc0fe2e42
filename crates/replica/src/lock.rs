//! The lock that keeps two processes from working on one replica.
//!
//! It is a `flock` on a file in the state directory, so it dies with the process and never needs clearing away.
//! The file holds the process id, for the message only; the file itself stays,
//! since removing it would let a third process lock a file of the same name while the second holds the old one.

use std::fs::{File, OpenOptions};
use std::io::{self, Read, Seek, Write};
use std::os::unix::fs::OpenOptionsExt;
use std::path::{Path, PathBuf};

use rustix::fs::{FlockOperation, OFlags};
use rustix::io::{Errno, retry_on_intr};
use thiserror::Error;

/// Held for as long as a process works on a replica.
#[derive(Debug)]
pub struct ReplicaLock {
    /// Closing it lets go of the lock.
    _file: File,
}

impl ReplicaLock {
    /// Takes the lock at `path`, without waiting; makes the file (0o600) where there is none.
    ///
    /// # Errors
    /// [`LockError::Held`] where another process, or another part of this one, has it.
    pub fn acquire(path: &Path) -> Result<Self, LockError> {
        let failed = |source| LockError::Io { path: path.to_owned(), source };
        let mut file = OpenOptions::new()
            .read(true)
            .write(true)
            .create(true)
            .truncate(false)
            .mode(0o600)
            .custom_flags((OFlags::NOFOLLOW | OFlags::NONBLOCK).bits() as i32)
            .open(path)
            .map_err(failed)?;
        match retry_on_intr(|| rustix::fs::flock(&file, FlockOperation::NonBlockingLockExclusive)) {
            Ok(()) => {}
            Err(Errno::AGAIN) => {
                return Err(LockError::Held { path: path.to_owned(), holder: Holder::read(&mut file) });
            }
            Err(error) => return Err(failed(error.into())),
        }
        let record = |file: &mut File| {
            file.set_len(0)?;
            file.rewind()?;
            writeln!(file, "{}", std::process::id())
        };
        record(&mut file).map_err(failed)?;
        Ok(Self { _file: file })
    }
}

/// Who holds a lock, as far as its file tells.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Holder(Option<u32>);

impl Holder {
    /// The process id, where the file names one.
    pub fn process(self) -> Option<u32> {
        self.0
    }

    fn read(file: &mut File) -> Self {
        let mut text = [0; 16];
        let len = file.read(&mut text).unwrap_or(0);
        let text = std::str::from_utf8(&text[..len]).unwrap_or("");
        Self(text.trim().parse().ok())
    }
}

impl std::fmt::Display for Holder {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self.0 {
            Some(process) => write!(f, "process {process}"),
            None => f.write_str("another process"),
        }
    }
}

/// Why a replica could not be locked.
#[derive(Debug, Error)]
pub enum LockError {
    /// Somebody works on the replica: wait for them, or ask them.
    #[error("already running as {holder}")]
    Held {
        /// The lock's file.
        path: PathBuf,
        /// Who has it.
        holder: Holder,
    },
    /// The lock's file cannot be made, opened or locked.
    #[error("cannot lock {}", path.display())]
    Io {
        /// The lock's file.
        path: PathBuf,
        /// The system's reason.
        #[source]
        source: io::Error,
    },
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::PermissionsExt;

    use super::*;

    #[test]
    fn a_held_lock_is_refused_and_names_its_process() {
        let temp = tempfile::tempdir().unwrap();
        let path = temp.path().join("lock");
        let held = ReplicaLock::acquire(&path).unwrap();
        let error = ReplicaLock::acquire(&path).unwrap_err();
        assert_eq!(error.to_string(), format!("already running as process {}", std::process::id()));
        drop(held);
        ReplicaLock::acquire(&path).unwrap();
        assert_eq!(std::fs::metadata(&path).unwrap().permissions().mode() & 0o777, 0o600);
    }

    #[test]
    fn a_lock_file_left_by_a_dead_process_is_taken_over() {
        let temp = tempfile::tempdir().unwrap();
        let path = temp.path().join("lock");
        std::fs::write(&path, "4194304999 and more text than any process id has").unwrap();
        let held = ReplicaLock::acquire(&path).unwrap();
        assert_eq!(std::fs::read_to_string(&path).unwrap(), format!("{}\n", std::process::id()));
        drop(held);
    }

    #[test]
    fn a_lock_file_with_garbage_in_it_still_tells_that_it_is_held() {
        let temp = tempfile::tempdir().unwrap();
        let path = temp.path().join("lock");
        let held = ReplicaLock::acquire(&path).unwrap();
        std::fs::write(&path, b"\xff\xfe").unwrap();
        assert_eq!(ReplicaLock::acquire(&path).unwrap_err().to_string(), "already running as another process");
        drop(held);
    }

    #[test]
    fn a_symlink_in_place_of_the_lock_file_is_not_followed() {
        let temp = tempfile::tempdir().unwrap();
        std::os::unix::fs::symlink(temp.path().join("victim"), temp.path().join("lock")).unwrap();
        assert!(matches!(ReplicaLock::acquire(&temp.path().join("lock")), Err(LockError::Io { .. })));
        assert!(!temp.path().join("victim").exists());
    }
}
