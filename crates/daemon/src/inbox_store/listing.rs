//! What came, newest first, as `packetboat inbox` shows it. It only reads, also beside a daemon that writes.
//!
//! Who a message is from and what it is about stands in its file, which its user may have moved or deleted; then the row
//! alone is shown.

use std::fs::{self, File};
use std::io::Read;
use std::path::{Path as FilePath, PathBuf};

use packetboat_mail::fetched::FetchedError;
use packetboat_mail::maildir::{FolderName, UniqueName};
use packetboat_mail::message::Glance;
use rusqlite::{Connection, OpenFlags};
use serde::{Deserialize, Serialize};

use super::Failure;
use super::rows::Unsound;

/// One message that came.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub struct Listed {
    /// When it came to this device, in milliseconds since 1970.
    pub arrived_ms: u64,
    /// `own`, `link` or `report`.
    pub path: String,
    /// Its folder; `INBOX` for the Maildir itself.
    pub folder: String,
    /// Its bytes.
    pub size_bytes: u64,
    /// Who it says it is from.
    pub from: Option<String>,
    /// What it says it is about.
    pub subject: Option<String>,
    /// Where its file is; nothing where it was moved or deleted.
    pub file: Option<PathBuf>,
}

/// The messages that came last; none, where no mail ever came.
pub fn newest(record: &FilePath, maildir: &FilePath, limit: usize) -> Result<Vec<Listed>, FetchedError> {
    if !record.exists() {
        return Ok(Vec::new());
    }
    let read = || {
        let flags = OpenFlags::SQLITE_OPEN_READ_WRITE | OpenFlags::SQLITE_OPEN_NO_MUTEX;
        let connection = Connection::open_with_flags(record, flags)?;
        connection.busy_timeout(std::time::Duration::from_secs(10))?;
        let version: i64 = connection.pragma_query_value(None, "user_version", |row| row.get(0))?;
        if version > super::VERSION {
            return Err(Failure::Newer(version));
        }
        let mut statement = connection.prepare(
            "SELECT folder, name, size, arrived, path FROM message WHERE state = 1 AND name IS NOT NULL
             ORDER BY arrived DESC, id DESC LIMIT ?1",
        )?;
        let mut rows = statement.query([i64::try_from(limit).unwrap_or(i64::MAX)])?;
        let mut listed = Vec::new();
        while let Some(row) = rows.next()? {
            let (folder, name): (String, String) = (row.get(0)?, row.get(1)?);
            let folder = FolderName::from_directory(&folder).ok_or(Unsound("folder"))?;
            let name = UniqueName::parse(&name).ok_or(Unsound("name"))?;
            let (size, arrived): (i64, i64) = (row.get(2)?, row.get(3)?);
            let file = find(maildir, &folder, &name);
            let glance = file.as_deref().map(glance).unwrap_or_default();
            listed.push(Listed {
                arrived_ms: u64::try_from(arrived / 1000).unwrap_or(0),
                path: match row.get(4)? {
                    0 => "own",
                    1 => "link",
                    2 => "report",
                    _ => return Err(Unsound("path").into()),
                }
                .to_owned(),
                folder: folder.to_string(),
                size_bytes: u64::try_from(size).unwrap_or(0),
                from: glance.from,
                subject: glance.subject,
                file,
            });
        }
        Ok(listed)
    };
    read().map_err(|failure: Failure| failure.during("read"))
}

/// Where the file of a message is, whatever flags a reader appended to its name.
pub fn find(maildir: &FilePath, folder: &FolderName, name: &UniqueName) -> Option<PathBuf> {
    let directory = if folder.is_inbox() { maildir.to_owned() } else { maildir.join(folder.directory()) };
    // A reader moves messages from new to cur and never back, so in this order none is missed.
    let fresh = directory.join("new").join(name.as_str());
    if fresh.is_file() {
        return Some(fresh);
    }
    let plain = directory.join("cur").join(format!("{name}:2,"));
    if plain.is_file() {
        return Some(plain);
    }
    let entries = fs::read_dir(directory.join("cur")).ok()?;
    let is_it = |file_name: &std::ffi::OsStr| file_name.to_str().is_some_and(|file_name| name.names(file_name));
    entries.flatten().find(|entry| is_it(&entry.file_name())).map(|entry| entry.path())
}

/// The header of a file, as far as it can be read.
pub(crate) fn glance(file: &FilePath) -> Glance {
    let mut beginning = Vec::new();
    let read = File::open(file).and_then(|file| file.take(HEADER_BYTES).read_to_end(&mut beginning));
    read.map(|_| Glance::of(&beginning)).unwrap_or_default()
}

const HEADER_BYTES: u64 = 32 << 10;
