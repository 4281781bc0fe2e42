//! The bytes of a mail on their way in and at rest.
//!
//! A small body lies in a row of the database, so that it becomes durable with the mail's state in one transaction; a
//! large one is a file that is synced, with its name, before that transaction begins. A crash between the two leaves a
//! file that no mail names, which [`remove_orphans`] takes away at the next start.

use std::fs::{self, File, OpenOptions};
use std::io::{self, Read, Write};
use std::os::unix::fs::OpenOptionsExt;
use std::path::{Path, PathBuf};

use packetboat_core::ids::{BodyHash, MailId};
use sha2::{Digest, Sha256};

use crate::files;

/// A body that is still being written.
#[derive(Debug)]
pub struct BodyDraft {
    directory: PathBuf,
    mail: MailId,
    held: Vec<u8>,
    file: Option<File>,
    hash: Sha256,
    size_bytes: u64,
}

/// A whole body, and where it lies.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Body {
    /// Whose it is.
    pub mail: MailId,
    /// Its SHA-256.
    pub hash: BodyHash,
    /// Its size in bytes.
    pub size_bytes: u64,
    /// Where the bytes are.
    pub place: Place,
}

/// Where a body's bytes are.
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum Place {
    /// Here, for a row of the database.
    Row(Vec<u8>),
    /// In a file of the bodies' directory, durably.
    File,
}

impl BodyDraft {
    /// Begins the body of a mail. `directory` is the home's directory of bodies.
    pub fn new(directory: &Path, mail: MailId) -> Self {
        let directory = directory.to_owned();
        Self { directory, mail, held: Vec::new(), file: None, hash: Sha256::new(), size_bytes: 0 }
    }

    /// Adds bytes. It blocks on the disk once the body is a large one.
    pub fn write(&mut self, bytes: &[u8]) -> io::Result<()> {
        self.hash.update(bytes);
        self.size_bytes += bytes.len() as u64;
        if self.file.is_none() && self.held.len() + bytes.len() > ROW_BYTES {
            let path = draft_path(&self.directory, &self.mail);
            let mut file = OpenOptions::new().write(true).create(true).truncate(true).mode(0o600).open(path)?;
            file.write_all(&self.held)?;
            self.held = Vec::new();
            self.file = Some(file);
        }
        match &mut self.file {
            Some(file) => file.write_all(bytes),
            None => {
                self.held.extend_from_slice(bytes);
                Ok(())
            }
        }
    }

    /// Ends the body; a large one is on stable storage then. It blocks on the disk.
    pub fn finish(mut self) -> io::Result<Body> {
        let place = match self.file.take() {
            Some(file) => {
                file.sync_all()?;
                fs::rename(draft_path(&self.directory, &self.mail), path(&self.directory, &self.mail))?;
                files::sync_directory(&self.directory)?;
                Place::File
            }
            None => Place::Row(std::mem::take(&mut self.held)),
        };
        let hash = BodyHash(std::mem::take(&mut self.hash).finalize().into());
        Ok(Body { mail: self.mail, hash, size_bytes: self.size_bytes, place })
    }
}

impl Drop for BodyDraft {
    fn drop(&mut self) {
        if self.file.is_some() {
            // What cannot be removed now is an orphan of the next start.
            let _left = fs::remove_file(draft_path(&self.directory, &self.mail));
        }
    }
}

/// The file in which a large body lies.
pub fn path(directory: &Path, mail: &MailId) -> PathBuf {
    directory.join(mail.to_string())
}

/// Removes the file of a body, which may be missing.
pub fn remove(directory: &Path, mail: &MailId) -> io::Result<()> {
    match fs::remove_file(path(directory, mail)) {
        Err(error) if error.kind() != io::ErrorKind::NotFound => Err(error),
        _ => Ok(()),
    }
}

/// Removes the files that no mail names; only for the start, when nobody is writing one.
pub fn remove_orphans(directory: &Path, is_named: impl Fn(&MailId) -> bool) -> io::Result<usize> {
    let mut removed = 0;
    for entry in fs::read_dir(directory)? {
        let entry = entry?;
        let name = entry.file_name();
        let mail = name.to_str().and_then(MailId::from_hex);
        let draft = name.to_str().is_some_and(|name| name.ends_with(DRAFT));
        if draft || mail.is_some_and(|mail| !is_named(&mail)) {
            fs::remove_file(entry.path())?;
            removed += 1;
        }
    }
    Ok(removed)
}

/// The SHA-256 of what a reader yields, for a body whose bytes are to be believed.
pub fn hash_of(mut reader: impl Read) -> io::Result<BodyHash> {
    let mut hash = Sha256::new();
    let mut piece = vec![0; 64 << 10];
    loop {
        match reader.read(&mut piece)? {
            0 => return Ok(BodyHash(hash.finalize().into())),
            count => hash.update(&piece[..count]),
        }
    }
}

fn draft_path(directory: &Path, mail: &MailId) -> PathBuf {
    directory.join(format!("{mail}{DRAFT}"))
}

/// The largest body that lies in a row.
pub const ROW_BYTES: usize = 64 << 10;

const DRAFT: &str = ".part";

#[cfg(test)]
mod tests {
    use super::*;

    fn names(directory: &Path) -> Vec<String> {
        fs::read_dir(directory).unwrap().map(|entry| entry.unwrap().file_name().into_string().unwrap()).collect()
    }

    #[test]
    fn a_small_body_makes_no_file_and_a_large_one_is_a_file_with_its_name() {
        let directory = tempfile::tempdir().unwrap();
        let mail = MailId([7; 16]);
        let mut draft = BodyDraft::new(directory.path(), mail);
        draft.write(b"small").unwrap();
        let body = draft.finish().unwrap();
        assert_eq!(body.place, Place::Row(b"small".to_vec()));
        assert!(names(directory.path()).is_empty());

        let bytes = vec![b'x'; ROW_BYTES];
        let mut draft = BodyDraft::new(directory.path(), mail);
        draft.write(&bytes).unwrap();
        draft.write(b"y").unwrap();
        let body = draft.finish().unwrap();
        assert_eq!((body.place, body.size_bytes), (Place::File, ROW_BYTES as u64 + 1));
        let file = File::open(path(directory.path(), &mail)).unwrap();
        assert_eq!(hash_of(file).unwrap(), body.hash);
        assert_eq!(names(directory.path()), [mail.to_string()]);
    }

    #[test]
    fn what_was_broken_off_or_is_named_by_no_mail_goes() {
        let directory = tempfile::tempdir().unwrap();
        let large = vec![0; ROW_BYTES + 1];
        for id in [1, 2] {
            let mut draft = BodyDraft::new(directory.path(), MailId([id; 16]));
            draft.write(&large).unwrap();
            draft.finish().unwrap();
        }
        let mut broken_off = BodyDraft::new(directory.path(), MailId([3; 16]));
        broken_off.write(&large).unwrap();
        drop(broken_off);
        let mut crashed = BodyDraft::new(directory.path(), MailId([4; 16]));
        crashed.write(&large).unwrap();
        std::mem::forget(crashed);
        assert_eq!(names(directory.path()).len(), 3);
        assert_eq!(remove_orphans(directory.path(), |mail| *mail == MailId([2; 16])).unwrap(), 2);
        assert_eq!(names(directory.path()), [MailId([2; 16]).to_string()]);
    }
}
