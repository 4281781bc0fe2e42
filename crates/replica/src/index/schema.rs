//! The tables, and the settings under which SQLite keeps them.
//!
//! ```text
//! meta     what there is one of, by key
//! device   numbers of devices
//! block    numbers of items: n = block << 8 | last byte of the id, see numbers.rs
//! item     the folded items; `dir` says where on this disk the item stands under its own name, see entries.rs
//! history  values that were replaced; kind 0 content, 1 placement, 2 mode
//! moves    directory moves by stamp: lamport 8 | device 32 | counter 8 | index 4, big-endian
//! touched  items whose view may differ from this disk
//! local    the entries of this disk, clustered by directory
//! stray    entries that stand elsewhere than `item.dir` and `item.name` say
//! dir      the entries that are directories, by their own number
//! packet   packets, sealed as long as they are kept; stage 0 carried, 1 folded
//! lane     per device the last folded packet, with its whole prerequisite
//! pack     packs; state 0 pending, 1 stored, 2 condemned, -1 damaged
//! part     up to 16 chunks of a pack, see chunks.rs
//! chunk    the first four bytes of a chunk's id, and a part that may hold it
//! inline   chunks within packets, by the first 16 bytes of their id
//! ```
//!
//! No table has a random key that is wider than four bytes but `inline`, and none has a key twice:
//! that is what makes a row of `item`, `local` and `chunk` together take some 200 bytes.

use rusqlite::Connection;

use super::IndexError;

/// Makes the tables in an empty database; refuses one that is newer or none of ours.
pub(super) fn create_or_check(sql: &Connection) -> Result<(), IndexError> {
    let version: i64 = sql.query_row("PRAGMA user_version", [], |row| row.get(0))?;
    match version {
        VERSION => Ok(()),
        0 => {
            let tables: i64 = sql.query_row("SELECT count(*) FROM sqlite_schema", [], |row| row.get(0))?;
            if tables > 0 {
                return Err(IndexError::Damaged { what: "the schema" });
            }
            // Two processes may come here at once; the second finds the tables of the first.
            sql.execute_batch("BEGIN IMMEDIATE")?;
            let version: i64 = sql.query_row("PRAGMA user_version", [], |row| row.get(0))?;
            if version == 0
                && let Err(error) = sql.execute_batch(TABLES)
            {
                sql.execute_batch("ROLLBACK")?;
                return Err(error.into());
            }
            sql.execute_batch("COMMIT")?;
            Ok(())
        }
        version if version > VERSION => Err(IndexError::Newer { version }),
        _ => Err(IndexError::Damaged { what: "the format version" }),
    }
}

/// The format of the tables.
pub(super) const VERSION: i64 = 1;

/// What holds for each connection. The page size counts only where the file is new.
///
/// The log is written back when it has 16 MiB: each time waits for the disk, and whoever fills the index waits with it.
pub(super) const SETTINGS: &str = "
    PRAGMA page_size = 4096;
    PRAGMA journal_mode = WAL;
    PRAGMA synchronous = FULL;
    PRAGMA cache_size = -32768;
    PRAGMA mmap_size = 134217728;
    PRAGMA wal_autocheckpoint = 4096;
    PRAGMA journal_size_limit = 67108864;
    PRAGMA foreign_keys = OFF;
    PRAGMA temp_store = MEMORY;
";

const TABLES: &str = "
    CREATE TABLE meta (key TEXT PRIMARY KEY, value BLOB NOT NULL) WITHOUT ROWID;
    CREATE TABLE device (n INTEGER PRIMARY KEY, id BLOB NOT NULL UNIQUE);
    CREATE TABLE block (n INTEGER PRIMARY KEY, prefix BLOB NOT NULL UNIQUE);
    INSERT INTO block VALUES (0, zeroblob(15));

    CREATE TABLE item (
        n INTEGER PRIMARY KEY, parent INTEGER NOT NULL, hash INTEGER NOT NULL,
        dir INTEGER NOT NULL, name BLOB NOT NULL, state BLOB NOT NULL
    );
    CREATE INDEX item_place ON item (parent, hash);
    CREATE TABLE history (
        item INTEGER, kind INTEGER, device INTEGER, counter INTEGER, data BLOB NOT NULL,
        PRIMARY KEY (item, kind, device, counter)
    ) WITHOUT ROWID;
    CREATE TABLE moves (stamp BLOB PRIMARY KEY, data BLOB NOT NULL) WITHOUT ROWID;
    CREATE TABLE touched (item INTEGER PRIMARY KEY);

    CREATE TABLE local (
        dir INTEGER, name BLOB, item INTEGER NOT NULL, data BLOB NOT NULL,
        PRIMARY KEY (dir, name)
    ) WITHOUT ROWID;
    CREATE TABLE stray (item INTEGER, dir INTEGER, name BLOB, PRIMARY KEY (item, dir, name)) WITHOUT ROWID;
    CREATE TABLE dir (
        own_dir INTEGER PRIMARY KEY, dir INTEGER NOT NULL, name BLOB NOT NULL,
        inode INTEGER NOT NULL, btime INTEGER NOT NULL
    );
    CREATE INDEX dir_inode ON dir (inode, btime);

    CREATE TABLE packet (
        n INTEGER PRIMARY KEY, device INTEGER NOT NULL, counter INTEGER NOT NULL, hash BLOB NOT NULL,
        stage INTEGER NOT NULL, lamport INTEGER NOT NULL, time INTEGER NOT NULL, summary BLOB, sealed BLOB,
        UNIQUE (device, counter)
    );
    CREATE INDEX packet_hash ON packet (hash);
    CREATE INDEX packet_log ON packet (lamport) WHERE stage = 1;
    CREATE TABLE lane (
        device INTEGER PRIMARY KEY, counter INTEGER NOT NULL, hash BLOB NOT NULL,
        lamport INTEGER NOT NULL, prerequisite BLOB NOT NULL
    );
    CREATE TABLE published (place TEXT PRIMARY KEY, counter INTEGER NOT NULL) WITHOUT ROWID;
    CREATE TABLE seen_tip (
        place TEXT, device INTEGER, etag TEXT NOT NULL, counter INTEGER NOT NULL,
        PRIMARY KEY (place, device)
    ) WITHOUT ROWID;

    CREATE TABLE pack (
        n INTEGER PRIMARY KEY, id BLOB NOT NULL UNIQUE, epoch INTEGER NOT NULL, size INTEGER NOT NULL,
        state INTEGER NOT NULL, first_part INTEGER NOT NULL, parts INTEGER NOT NULL
    );
    CREATE INDEX pack_pending ON pack (n) WHERE state = 0;
    CREATE TABLE part (n INTEGER PRIMARY KEY, pack INTEGER NOT NULL, chunks BLOB NOT NULL);
    CREATE TABLE chunk (key INTEGER, part INTEGER, PRIMARY KEY (key, part)) WITHOUT ROWID;
    CREATE TABLE inline (id BLOB PRIMARY KEY, device INTEGER NOT NULL, counter INTEGER NOT NULL) WITHOUT ROWID;

    CREATE TABLE member (
        device INTEGER PRIMARY KEY, public_key BLOB NOT NULL, exchange_key BLOB NOT NULL,
        name TEXT NOT NULL, introduced_name TEXT NOT NULL, state BLOB NOT NULL,
        heard_lamport INTEGER NOT NULL, heard_time INTEGER NOT NULL
    );
    CREATE TABLE problem (kind TEXT, subject BLOB, text TEXT NOT NULL, PRIMARY KEY (kind, subject)) WITHOUT ROWID;

    PRAGMA user_version = 1;
";
