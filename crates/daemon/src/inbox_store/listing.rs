//! What came lately, for people.

use std::path::Path as FilePath;

use packetboat_mail::fetched::FetchedError;
use rusqlite::{Connection, OpenFlags};
use serde::{Deserialize, Serialize};

/// A message that came.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub struct Arrived {
    /// The name of its file in the Maildir, without the flags that readers add.
    pub name: Option<String>,
    /// The folder; empty for the inbox itself.
    pub folder: String,
    /// Size in bytes.
    pub size_bytes: u64,
    /// When it came, in milliseconds since 1970.
    pub arrived_ms: u64,
    /// `own` or `link`: which device fetched it.
    pub path: String,
}

/// The messages that came last, the latest first; none, where no mail was ever fetched.
pub fn arrived_last(record: &FilePath, limit: usize) -> Result<Vec<Arrived>, FetchedError> {
    if !record.exists() {
        return Ok(Vec::new());
    }
    let listed = || {
        let connection = Connection::open_with_flags(record, OpenFlags::SQLITE_OPEN_READ_WRITE)?;
        connection.busy_timeout(std::time::Duration::from_secs(10))?;
        let mut query = connection.prepare(
            "SELECT name, folder, size, arrived, path FROM message WHERE state = ?1 ORDER BY arrived DESC, id DESC LIMIT ?2",
        )?;
        let rows = query.query_map((super::DELIVERED, i64::try_from(limit).unwrap_or(i64::MAX)), |row| {
            Ok(Arrived {
                name: row.get(0)?,
                folder: row.get(1)?,
                size_bytes: row.get::<_, i64>(2)?.cast_unsigned(),
                arrived_ms: (row.get::<_, i64>(3)? / 1000).cast_unsigned(),
                path: if row.get::<_, i64>(4)? == 0 { "own" } else { "link" }.to_owned(),
            })
        })?;
        rows.collect::<Result<Vec<_>, rusqlite::Error>>()
    };
    listed().map_err(|error| FetchedError { action: "list", source: Box::new(error) })
}
