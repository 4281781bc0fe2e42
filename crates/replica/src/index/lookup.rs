//! Asking from several threads whether a chunk is stored.
//!
//! An index belongs to one thread. Those that prepare content ask through a connection of their own,
//! which sees what is committed; an index that is only in memory is copied for them.

use std::collections::HashSet;
use std::sync::Mutex;

use packetboat_core::ids::ChunkId;
use rusqlite::{Connection, OpenFlags};

use super::chunks::{INLINE_KEY, decode_part, find_in_part, key};
use super::{Index, IndexError, STATEMENTS};

/// Answers whether a chunk is stored.
pub type ChunkLookup = Box<dyn Fn(&ChunkId) -> bool + Send + Sync>;

impl Index {
    /// A look-up of the chunks that are stored as of the last commit. A chunk that cannot be looked up counts as new.
    pub fn chunk_lookup(&self) -> Result<ChunkLookup, IndexError> {
        let parts: i64 = self.sql.query_row("SELECT count(*) FROM (SELECT 1 FROM part LIMIT 1)", [], |r| r.get(0))?;
        let inline: i64 =
            self.sql.query_row("SELECT count(*) FROM (SELECT 1 FROM inline LIMIT 1)", [], |r| r.get(0))?;
        if parts + inline == 0 {
            return Ok(Box::new(|_| false));
        }
        let Some(path) = self.sql.path().filter(|path| !path.is_empty()) else { return self.copied_lookup() };
        let sql =
            Connection::open_with_flags(path, OpenFlags::SQLITE_OPEN_READ_ONLY | OpenFlags::SQLITE_OPEN_NO_MUTEX)?;
        sql.set_prepared_statement_cache_capacity(STATEMENTS);
        let sql = Mutex::new(sql);
        Ok(Box::new(move |id| {
            let sql = sql.lock().expect("nobody panics holding this");
            is_stored(&sql, id).unwrap_or(false)
        }))
    }

    fn copied_lookup(&self) -> Result<ChunkLookup, IndexError> {
        let mut known: HashSet<Vec<u8>> = HashSet::new();
        let mut statement = self.sql.prepare("SELECT chunks FROM part")?;
        let mut rows = statement.query([])?;
        while let Some(row) = rows.next()? {
            for chunk in decode_part(row.get_ref(0)?.as_blob()?) {
                known.insert(chunk?.id.0[..INLINE_KEY].to_vec());
            }
        }
        let mut statement = self.sql.prepare("SELECT id FROM inline")?;
        let mut rows = statement.query([])?;
        while let Some(row) = rows.next()? {
            known.insert(row.get(0)?);
        }
        Ok(Box::new(move |id| known.contains(&id.0[..INLINE_KEY])))
    }
}

fn is_stored(sql: &Connection, id: &ChunkId) -> Result<bool, IndexError> {
    let mut statement =
        sql.prepare_cached("SELECT p.chunks FROM chunk c JOIN part p ON p.n = c.part WHERE c.key = ?1")?;
    let mut rows = statement.query([key(id)])?;
    while let Some(row) = rows.next()? {
        if find_in_part(row.get_ref(0)?.as_blob()?, id)?.is_some() {
            return Ok(true);
        }
    }
    let mut statement = sql.prepare_cached("SELECT 1 FROM inline WHERE id = ?1")?;
    Ok(statement.exists([&id.0[..INLINE_KEY]])?)
}
