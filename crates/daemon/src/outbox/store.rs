//! The outbox on disk: states, bodies, ledgers, and what is shown of mails that are finished.
//!
//! ```text
//! mail      sequence, id, side, pair and number, the item        what never changes
//! state     sequence, the machine's bytes                        rewritten at each step
//! body      sequence, the bytes of a small body                  until it is dropped
//! failure   sequence, path, how many, the last one's text, when
//! untried   sequence                                             put here while no daemon ran
//! ledger    pair, the bytes of its ledger
//! finished  id, when, a view of the mail                         the last thousand
//! ```
//!
//! Everything that belongs together is one transaction ([`Store::write`]), and a transaction is synced before `write`
//! returns. There is one writer, whoever has the home's claim; readers have connections of their own ([`Reader`]).
//! Machines are read one at a time, so memory does not grow with the queue.

use std::fs::File;
use std::io::{self, Cursor, Read};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use packetboat_core::delivery::{Item, ItemNumber};
use packetboat_core::ids::MailId;
use packetboat_core::wire::{Reader as WireReader, WireError, Writer};
use rusqlite::{Connection, ErrorCode, OpenFlags, OptionalExtension, Row, Transaction, params};
use thiserror::Error;

use super::body::{self, Body, Place};
use super::machine::{Machine, Side};
use super::view::{MailView, PathView};

/// The outbox, open for writing.
#[derive(Debug)]
pub struct Store {
    connection: Connection,
    database: PathBuf,
    bodies: PathBuf,
}

impl Store {
    /// Opens the outbox, and makes it where there is none. Files of bodies that no mail names are removed.
    pub fn open(database: &Path, bodies: &Path) -> Result<Self, StoreError> {
        let mut connection = Connection::open(database)?;
        configure(&connection)?;
        connection.pragma_update(None, "journal_mode", "WAL")?;
        // A transaction whose commit returned must survive the loss of power.
        connection.pragma_update(None, "synchronous", "FULL")?;
        let version: i64 = connection.pragma_query_value(None, "user_version", |row| row.get(0))?;
        match version {
            0 => {
                let transaction = connection.transaction()?;
                transaction.execute_batch(SCHEMA)?;
                transaction.pragma_update(None, "user_version", VERSION)?;
                transaction.commit()?;
            }
            VERSION => {}
            version => return Err(StoreError::Newer { version }),
        }
        let store = Self { connection, database: database.to_owned(), bodies: bodies.to_owned() };
        let named = |mail: &MailId| {
            let there = store.connection.query_row("SELECT 1 FROM mail WHERE id = ?", [mail.as_bytes()], |_| Ok(()));
            // In doubt a file stays.
            !matches!(there, Err(rusqlite::Error::QueryReturnedNoRows))
        };
        body::remove_orphans(bodies, named).map_err(StoreError::Bodies)?;
        Ok(store)
    }

    /// Another connection, which only reads.
    pub fn reader(&self) -> Result<Reader, StoreError> {
        Reader::open(&self.database, &self.bodies)
    }

    /// The directory of large bodies.
    pub fn bodies(&self) -> &Path {
        &self.bodies
    }

    /// Carries out one transaction, which is on stable storage when this returns without an error.
    pub fn write<T, E: From<StoreError>>(&mut self, work: impl FnOnce(&Batch<'_>) -> Result<T, E>) -> Result<T, E> {
        let transaction = self.connection.transaction().map_err(StoreError::from)?;
        let batch = Batch { transaction };
        let done = work(&batch)?;
        batch.transaction.commit().map_err(StoreError::from)?;
        Ok(done)
    }

    /// The machine of a mail.
    pub fn machine(&self, mail: &MailId) -> Result<Option<Machine>, StoreError> {
        machine(&self.connection, mail)
    }

    /// The unfinished mails that come after one, in the order in which they came here.
    pub fn mails_after(&self, sequence: i64, limit: usize) -> Result<Vec<(i64, MailId)>, StoreError> {
        mails_after(&self.connection, sequence, limit)
    }

    /// The ledger of a pair.
    pub fn ledger(&self, pair: u64) -> Result<Option<Vec<u8>>, StoreError> {
        let mut query = self.connection.prepare_cached("SELECT bytes FROM ledger WHERE pair = ?")?;
        Ok(query.query_row([pair.cast_signed()], |row| row.get(0)).optional()?)
    }

    /// Makes the disk seem full at so many pages of the database; for tests.
    #[cfg(test)]
    pub(super) fn limit_pages(&self, pages: Option<u32>) {
        let pages = pages.unwrap_or(u32::MAX - 1);
        self.connection.query_row(&format!("PRAGMA max_page_count = {pages}"), [], |_| Ok(())).unwrap();
    }

    /// The mails that were put here while no daemon ran.
    pub fn untried(&self) -> Result<Vec<MailId>, StoreError> {
        let mut query = self.connection.prepare_cached("SELECT id FROM untried JOIN mail USING (sequence)")?;
        let rows = query.query_map([], mail_of)?;
        Ok(rows.collect::<Result<_, _>>()?)
    }

    /// Mails of other pairs than this one: those that were submitted in one, and copies.
    pub fn of_other_pairs(&self, serial: Option<u64>) -> Result<Vec<MailId>, StoreError> {
        let mut query = self.connection.prepare_cached(
            "SELECT id FROM mail WHERE (pair IS NOT NULL AND pair IS NOT ?1) OR (side = ?2 AND pair IS NULL)
             ORDER BY sequence",
        )?;
        let rows = query.query_map(params![serial.map(u64::cast_signed), side_number(Side::Copy)], mail_of)?;
        Ok(rows.collect::<Result<_, _>>()?)
    }

    /// How many mails are unfinished.
    pub fn count(&self) -> Result<u64, StoreError> {
        Ok(self.connection.query_row("SELECT count(*) FROM mail", [], |row| row.get::<_, i64>(0))?.cast_unsigned())
    }
}

/// A transaction under way.
#[derive(Debug)]
pub struct Batch<'a> {
    transaction: Transaction<'a>,
}

impl Batch<'_> {
    /// Adds a mail with its body; `pair` is the pair that its number is of.
    pub fn add(&self, machine: &Machine, pair: Option<u64>, body: &Body) -> Result<(), StoreError> {
        let mut item = Writer::new();
        machine.item().encode(&mut item);
        self.transaction
            .prepare_cached("INSERT INTO mail (id, side, pair, number, item) VALUES (?, ?, ?, ?, ?)")?
            .execute(params![
                machine.id().as_bytes(),
                side_number(machine.side()),
                pair.filter(|_| machine.number().is_some()).map(u64::cast_signed),
                machine.number().map(u64::cast_signed),
                item.finish(),
            ])?;
        let sequence = self.transaction.last_insert_rowid();
        let mut insert = self.transaction.prepare_cached("INSERT INTO state (sequence, bytes) VALUES (?, ?)")?;
        insert.execute(params![sequence, machine.encode()])?;
        if let Place::Row(bytes) = &body.place {
            let mut insert = self.transaction.prepare_cached("INSERT INTO body (sequence, bytes) VALUES (?, ?)")?;
            insert.execute(params![sequence, bytes])?;
        }
        Ok(())
    }

    /// Saves the state of a mail.
    pub fn save(&self, machine: &Machine) -> Result<(), StoreError> {
        let mut update = self
            .transaction
            .prepare_cached("UPDATE state SET bytes = ?2 WHERE sequence = (SELECT sequence FROM mail WHERE id = ?1)")?;
        update.execute(params![machine.id().as_bytes(), machine.encode()])?;
        Ok(())
    }

    /// Drops the body of a mail that lies in a row; a file goes after the transaction.
    pub fn drop_body(&self, mail: &MailId) -> Result<(), StoreError> {
        let mut delete = self
            .transaction
            .prepare_cached("DELETE FROM body WHERE sequence = (SELECT sequence FROM mail WHERE id = ?)")?;
        delete.execute([mail.as_bytes()])?;
        Ok(())
    }

    /// Forgets a mail; its view is kept for people, where there is one.
    pub fn forget(&self, mail: &MailId, view: Option<&MailView>) -> Result<(), StoreError> {
        if let Some(view) = view {
            let text = serde_json::to_string(view).expect("strings and numbers are JSON");
            let finished_ms = view.finished_ms.unwrap_or_default().cast_signed();
            let mut insert = self
                .transaction
                .prepare_cached("INSERT OR REPLACE INTO finished (id, finished_ms, view) VALUES (?, ?, ?)")?;
            insert.execute(params![mail.as_bytes(), finished_ms, text])?;
            let mut trim = self
                .transaction
                .prepare_cached("DELETE FROM finished WHERE place <= (SELECT max(place) FROM finished) - ?")?;
            trim.execute([FINISHED_KEPT])?;
        }
        self.drop_body(mail)?;
        for table in ["failure", "state"] {
            let text = format!("DELETE FROM {table} WHERE sequence = (SELECT sequence FROM mail WHERE id = ?)");
            self.transaction.prepare_cached(&text)?.execute([mail.as_bytes()])?;
        }
        self.transaction.prepare_cached("DELETE FROM mail WHERE id = ?")?.execute([mail.as_bytes()])?;
        Ok(())
    }

    /// Notes why a try on a path failed.
    pub fn note_failure(&self, mail: &MailId, path: &str, text: &str, at_ms: u64) -> Result<(), StoreError> {
        let mut insert = self.transaction.prepare_cached(
            "INSERT INTO failure (sequence, path, count, text, at_ms)
             SELECT sequence, ?2, 1, ?3, ?4 FROM mail WHERE id = ?1
             ON CONFLICT (sequence, path) DO UPDATE SET count = count + 1, text = excluded.text, at_ms = excluded.at_ms",
        )?;
        insert.execute(params![mail.as_bytes(), path, text, at_ms.cast_signed()])?;
        Ok(())
    }

    /// Notes that a mail was put here while no daemon ran.
    pub fn note_untried(&self, mail: &MailId) -> Result<(), StoreError> {
        let text = "INSERT INTO untried (sequence) SELECT sequence FROM mail WHERE id = ?";
        self.transaction.prepare_cached(text)?.execute([mail.as_bytes()])?;
        Ok(())
    }

    /// Forgets which mails were.
    pub fn forget_untried(&self) -> Result<(), StoreError> {
        self.transaction.prepare_cached("DELETE FROM untried")?.execute([])?;
        Ok(())
    }

    /// Saves the ledger of a pair.
    pub fn save_ledger(&self, pair: u64, bytes: &[u8]) -> Result<(), StoreError> {
        let mut insert =
            self.transaction.prepare_cached("INSERT OR REPLACE INTO ledger (pair, bytes) VALUES (?, ?)")?;
        insert.execute(params![pair.cast_signed(), bytes])?;
        Ok(())
    }

    /// Notes that a mail belongs to no pair any more.
    pub fn leave_pair(&self, mail: &MailId) -> Result<(), StoreError> {
        let text = "UPDATE mail SET pair = NULL WHERE id = ?";
        self.transaction.prepare_cached(text)?.execute([mail.as_bytes()])?;
        Ok(())
    }

    /// Whether a mail belongs to a pair.
    pub fn is_of_pair(&self, mail: &MailId, serial: u64) -> Result<bool, StoreError> {
        let text = "SELECT EXISTS (SELECT 1 FROM mail WHERE id = ? AND pair = ?)";
        let mut query = self.transaction.prepare_cached(text)?;
        Ok(query.query_row(params![mail.as_bytes(), serial.cast_signed()], |row| row.get(0))?)
    }

    /// The smallest number of a pair's mails that are still open here, those that this transaction added among them.
    pub fn first_open(&self, pair: u64) -> Result<Option<ItemNumber>, StoreError> {
        let first = self
            .transaction
            .prepare_cached("SELECT min(number) FROM mail WHERE pair = ?")?
            .query_row([pair.cast_signed()], |row| row.get::<_, Option<i64>>(0))?;
        Ok(first.map(i64::cast_unsigned))
    }

    /// The machine of a mail, as this transaction has it.
    pub fn machine(&self, mail: &MailId) -> Result<Option<Machine>, StoreError> {
        machine(&self.transaction, mail)
    }

    /// How the tries of a mail went.
    pub fn paths(&self, mail: &MailId) -> Result<Vec<PathView>, StoreError> {
        paths(&self.transaction, mail)
    }
}

/// The outbox, open for reading.
#[derive(Debug)]
pub struct Reader {
    connection: Connection,
    bodies: PathBuf,
}

impl Reader {
    /// Opens an outbox that is there.
    pub fn open(database: &Path, bodies: &Path) -> Result<Self, StoreError> {
        let flags = OpenFlags::SQLITE_OPEN_READ_WRITE | OpenFlags::SQLITE_OPEN_NO_MUTEX;
        let connection = Connection::open_with_flags(database, flags)?;
        configure(&connection)?;
        connection.pragma_update(None, "query_only", true)?;
        Ok(Self { connection, bodies: bodies.to_owned() })
    }

    /// The machine of a mail.
    pub fn machine(&self, mail: &MailId) -> Result<Option<Machine>, StoreError> {
        machine(&self.connection, mail)
    }

    /// The unfinished mails that come after one.
    pub fn mails_after(&self, sequence: i64, limit: usize) -> Result<Vec<(i64, MailId)>, StoreError> {
        mails_after(&self.connection, sequence, limit)
    }

    /// How the tries of a mail went.
    pub fn paths(&self, mail: &MailId) -> Result<Vec<PathView>, StoreError> {
        paths(&self.connection, mail)
    }

    /// The mails whose id begins so, finished ones included; at most two, since more than one is one too many.
    pub fn by_prefix(&self, prefix: &str) -> Result<Vec<MailId>, StoreError> {
        let mut query = self.connection.prepare_cached(
            "SELECT id FROM mail WHERE lower(hex(id)) LIKE ?1 || '%'
             UNION SELECT id FROM finished WHERE lower(hex(id)) LIKE ?1 || '%' LIMIT 2",
        )?;
        let found = query.query_map([prefix], mail_of)?.collect::<Result<Vec<_>, _>>()?;
        Ok(found)
    }

    /// The mails that were finished last, the latest first.
    pub fn finished(&self, limit: usize) -> Result<Vec<MailView>, StoreError> {
        let mut query = self.connection.prepare_cached("SELECT view FROM finished ORDER BY place DESC LIMIT ?")?;
        let views = query.query_map([i64::try_from(limit).unwrap_or(i64::MAX)], |row| row.get::<_, String>(0))?;
        views.map(|view| serde_json::from_str(&view?).map_err(|_| StoreError::Damaged { what: "a view" })).collect()
    }

    /// A finished mail.
    pub fn finished_mail(&self, mail: &MailId) -> Result<Option<MailView>, StoreError> {
        let mut query = self.connection.prepare_cached("SELECT view FROM finished WHERE id = ?")?;
        let view = query.query_row([mail.as_bytes()], |row| row.get::<_, String>(0)).optional()?;
        view.map(|view| serde_json::from_str(&view).map_err(|_| StoreError::Damaged { what: "a view" })).transpose()
    }

    /// The bytes of a mail's body, of which a large one is read as it is asked for.
    pub fn body(&self, mail: &MailId) -> Result<Option<StoredBody>, StoreError> {
        let mut query = self
            .connection
            .prepare_cached("SELECT bytes FROM body WHERE sequence = (SELECT sequence FROM mail WHERE id = ?)")?;
        let row = query.query_row([mail.as_bytes()], |row| row.get::<_, Vec<u8>>(0)).optional()?;
        if let Some(bytes) = row {
            return Ok(Some(StoredBody::Row(Cursor::new(bytes))));
        }
        match File::open(body::path(&self.bodies, mail)) {
            Ok(file) => Ok(Some(StoredBody::File(file))),
            Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(None),
            Err(error) => Err(StoreError::Bodies(error)),
        }
    }
}

/// The bytes of a stored body.
#[derive(Debug)]
pub enum StoredBody {
    /// Of a row.
    Row(Cursor<Vec<u8>>),
    /// Of a file.
    File(File),
}

impl Read for StoredBody {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        match self {
            Self::Row(bytes) => bytes.read(buffer),
            Self::File(file) => file.read(buffer),
        }
    }
}

fn configure(connection: &Connection) -> Result<(), StoreError> {
    connection.busy_timeout(Duration::from_secs(10))?;
    connection.set_prepared_statement_cache_capacity(64);
    connection.pragma_update(None, "foreign_keys", true)?;
    Ok(())
}

fn machine(connection: &Connection, mail: &MailId) -> Result<Option<Machine>, StoreError> {
    let mut query =
        connection.prepare_cached("SELECT side, item, bytes FROM mail JOIN state USING (sequence) WHERE id = ?")?;
    let row = query
        .query_row([mail.as_bytes()], |row| {
            Ok((row.get::<_, i64>(0)?, row.get::<_, Vec<u8>>(1)?, row.get::<_, Vec<u8>>(2)?))
        })
        .optional()?;
    let Some((side, item, state)) = row else { return Ok(None) };
    let damaged = |_: WireError| StoreError::Damaged { what: "a mail" };
    let mut input = WireReader::new(&item);
    let item = Item::decode(&mut input).and_then(|item| input.finish().map(|()| item)).map_err(damaged)?;
    let side = if side == side_number(Side::Own) { Side::Own } else { Side::Copy };
    Machine::decode(side, Arc::new(item), &state).map(Some).map_err(damaged)
}

fn mails_after(connection: &Connection, sequence: i64, limit: usize) -> Result<Vec<(i64, MailId)>, StoreError> {
    let mut query =
        connection.prepare_cached("SELECT id, sequence FROM mail WHERE sequence > ? ORDER BY sequence LIMIT ?")?;
    let limit = i64::try_from(limit).unwrap_or(i64::MAX);
    let rows = query.query_map([sequence, limit], |row| Ok((row.get(1)?, mail_of(row)?)))?;
    Ok(rows.collect::<Result<_, _>>()?)
}

fn paths(connection: &Connection, mail: &MailId) -> Result<Vec<PathView>, StoreError> {
    let mut query = connection.prepare_cached(
        "SELECT path, count, text, at_ms FROM failure JOIN mail USING (sequence) WHERE id = ? ORDER BY path DESC",
    )?;
    let rows = query.query_map([mail.as_bytes()], |row| {
        Ok(PathView {
            path: row.get(0)?,
            failures: row.get(1)?,
            last_failure: row.get(2)?,
            at_ms: row.get::<_, i64>(3)?.cast_unsigned(),
        })
    })?;
    Ok(rows.collect::<Result<_, _>>()?)
}

fn mail_of(row: &Row<'_>) -> rusqlite::Result<MailId> {
    row.get(0).map(MailId)
}

fn side_number(side: Side) -> i64 {
    match side {
        Side::Own => 0,
        Side::Copy => 1,
    }
}

/// Why the outbox cannot be read or written.
#[derive(Debug, Error)]
pub enum StoreError {
    /// The disk is full: nothing was written; free some space.
    #[error("the disk that holds the outbox is full")]
    Full,
    /// The disk or the database failed.
    #[error("the outbox cannot be read or written")]
    Sql(#[source] rusqlite::Error),
    /// The directory of bodies failed.
    #[error("the bodies of the outbox cannot be read or written")]
    Bodies(#[source] io::Error),
    /// Not what was written there.
    #[error("the outbox is damaged: {what} cannot be read")]
    Damaged {
        /// What was read.
        what: &'static str,
    },
    /// Written by a newer Packetboat: use that one.
    #[error("the outbox has format {version}, which this version of packetboat cannot read")]
    Newer {
        /// Its format version.
        version: i64,
    },
}

impl StoreError {
    /// The same, where a file's disk is full.
    pub fn of_body(error: io::Error) -> Self {
        match error.kind() {
            io::ErrorKind::StorageFull | io::ErrorKind::QuotaExceeded => Self::Full,
            _ => Self::Bodies(error),
        }
    }
}

impl From<rusqlite::Error> for StoreError {
    fn from(error: rusqlite::Error) -> Self {
        match error.sqlite_error_code() {
            Some(ErrorCode::DiskFull) => Self::Full,
            Some(ErrorCode::DatabaseCorrupt | ErrorCode::NotADatabase) => Self::Damaged { what: "a page" },
            _ => Self::Sql(error),
        }
    }
}

const VERSION: i64 = 1;

const FINISHED_KEPT: i64 = 1000;

const SCHEMA: &str = "
CREATE TABLE mail (
    sequence INTEGER PRIMARY KEY AUTOINCREMENT,
    id BLOB NOT NULL UNIQUE,
    side INTEGER NOT NULL,
    pair INTEGER,
    number INTEGER,
    item BLOB NOT NULL
);
CREATE INDEX mail_number ON mail (pair, number);
CREATE TABLE state (sequence INTEGER PRIMARY KEY, bytes BLOB NOT NULL);
CREATE TABLE body (sequence INTEGER PRIMARY KEY, bytes BLOB NOT NULL);
CREATE TABLE failure (
    sequence INTEGER NOT NULL,
    path TEXT NOT NULL,
    count INTEGER NOT NULL,
    text TEXT NOT NULL,
    at_ms INTEGER NOT NULL,
    PRIMARY KEY (sequence, path)
) WITHOUT ROWID;
CREATE TABLE untried (sequence INTEGER PRIMARY KEY);
CREATE TABLE ledger (pair INTEGER PRIMARY KEY, bytes BLOB NOT NULL);
CREATE TABLE finished (
    place INTEGER PRIMARY KEY AUTOINCREMENT,
    id BLOB NOT NULL UNIQUE,
    finished_ms INTEGER NOT NULL,
    view TEXT NOT NULL
);
";

#[cfg(test)]
mod tests;
