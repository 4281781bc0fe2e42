//! A disk that is full in the middle of a message: it says so, nothing half is delivered, and with room it goes on.
//!
//! The disk is a small tmpfs, which root alone may mount; where it cannot be, the test says so and is skipped.

use std::path::PathBuf;
use std::process::Command;
use std::sync::Arc;
use std::time::SystemTime;

use packetboat_mail::fetched::{
    Arrival, DeliverError, Deliverer, FetchedStore, Flags, MailboxKey, MemoryFetched, Origin, Path,
};
use packetboat_mail::maildir::{FolderName, Maildir, MaildirError, UniqueNames};
use tempfile::TempDir;

/// A small disk, for as long as this lives.
struct SmallDisk(TempDir);

impl SmallDisk {
    fn mount() -> Option<Self> {
        let directory = TempDir::new().unwrap();
        let mounted =
            Command::new("mount").args(["-t", "tmpfs", "-o", "size=512k", "tmpfs"]).arg(directory.path()).output();
        if mounted.is_ok_and(|output| output.status.success()) {
            return Some(Self(directory));
        }
        eprintln!("skipped: a tmpfs is mounted by root alone");
        None
    }

    fn path(&self, part: &str) -> PathBuf {
        self.0.path().join(part)
    }
}

impl Drop for SmallDisk {
    fn drop(&mut self) {
        let _ = Command::new("umount").arg(self.0.path()).output();
    }
}

fn deliver(deliverer: &mut Deliverer<MemoryFetched, Maildir>, uid: u32) -> Result<(), DeliverError> {
    let mailbox = MailboxKey { account: "home".into(), mailbox: "INBOX".into(), validity: 1 };
    let (origin, folder) = (Origin::Imap { mailbox, uid }, FolderName::inbox());
    deliverer.begin(Arrival { origin, folder, flags: Flags::default(), received: None, path: Path::Own })?;
    deliverer.write(format!("Subject: {uid}\r\n\r\n").as_bytes())?;
    for _ in 0..10 {
        deliverer.write(&[b'x'; 10_000])?;
    }
    deliverer.end()?;
    deliverer.flush()
}

fn files(disk: &SmallDisk, part: &str) -> usize {
    std::fs::read_dir(disk.path("Mail").join(part)).unwrap().count()
}

#[test]
fn a_full_disk_says_so_and_loses_nothing() {
    let Some(disk) = SmallDisk::mount() else { return };
    std::fs::write(disk.path("ballast"), vec![0; 250_000]).unwrap();
    let maildir = Maildir::open(disk.path("Mail")).unwrap();
    let clock = Arc::new(|| SystemTime::UNIX_EPOCH);
    let mut deliverer = Deliverer::open(MemoryFetched::default(), maildir, UniqueNames::new("h", 1, 1), clock).unwrap();
    let (fitted, error) = (1..).find_map(|uid| Some((uid - 1, deliver(&mut deliverer, uid).err()?))).unwrap();
    assert!(matches!(error, DeliverError::Folders(MaildirError::Full { .. })), "{error:?}");
    assert!(fitted >= 1);
    deliverer.give_up();
    assert_eq!((files(&disk, "new"), files(&disk, "tmp")), (fitted as usize, 0), "nothing half is left");
    assert!(deliverer.store().pending().unwrap().is_empty());

    std::fs::remove_file(disk.path("ballast")).unwrap();
    deliver(&mut deliverer, fitted + 1).unwrap();
    assert_eq!(files(&disk, "new"), fitted as usize + 1);
}
