//! The record of fetched mail in SQLite: what was fetched from where, and what became of it.
//!
//! Each call is one transaction, durable when it returns (WAL with `synchronous=FULL`), since after it a server may be told
//! to delete what it holds. Rows are never removed but for intents: that a message was here is remembered for ever,
//! at some 120 bytes each, so that nothing that was deleted comes back.
//!
//! ```text
//! message   folder, digest -> name, size, arrived, path, state,   what was delivered, or is about to be
//!           served                                              when its last server had it, once looked at
//! mailbox   account, mailbox, validity -> modseq                  a mailbox while its UIDs mean the same
//! seen_uid  mailbox, uid -> message, flags, gone                  origins by IMAP
//! seen_uidl account, uidl -> message                              origins by POP3
//! intent    name -> origin, flags                                 of messages that are about to be delivered
//! ```
//!
//! What two devices ask each other about is in `compare`, what a user is shown in [`listing`].

mod compare;
pub mod listing;
mod rows;
#[cfg(test)]
mod tests;

use std::path::Path as FilePath;
use std::time::Duration;

use packetboat_mail::fetched::{
    FetchedError, FetchedStore, Flags, Intent, MailboxKey, MailboxRecord, MessageDigest, MessageState, Origin,
    Sighting, UidSet,
};
use packetboat_mail::maildir::{FolderName, UniqueName};
use rusqlite::{Connection, OptionalExtension, Transaction, TransactionBehavior, params};

pub use self::compare::{Held, Item, MaildropMessage};
pub(crate) use self::compare::{compared_key, record_key};
use self::rows::{DELETED, DELIVERED, INTENDED, Unsound, mailbox_id, micros, path_code, read_intent};

/// The record of fetched mail.
#[derive(Debug)]
pub struct InboxStore {
    connection: Connection,
}

impl InboxStore {
    /// Opens a record, which is made where it is missing.
    pub fn open(path: &FilePath) -> Result<Self, FetchedError> {
        let opened = || {
            let mut connection = Connection::open(path)?;
            connection.busy_timeout(Duration::from_secs(10))?;
            connection.pragma_update(None, "journal_mode", "WAL")?;
            connection.pragma_update(None, "synchronous", "FULL")?;
            connection.pragma_update(None, "foreign_keys", true)?;
            connection.set_prepared_statement_cache_capacity(32);
            let transaction = connection.transaction_with_behavior(TransactionBehavior::Immediate)?;
            let version: i64 = transaction.pragma_query_value(None, "user_version", |row| row.get(0))?;
            match version {
                0 => {
                    transaction.execute_batch(SCHEMA)?;
                    transaction.execute_batch(SECOND)?;
                }
                1 => transaction.execute_batch(SECOND)?,
                VERSION => {}
                other => return Err(Failure::Newer(other)),
            }
            if version != VERSION {
                transaction.pragma_update(None, "user_version", VERSION)?;
            }
            transaction.commit()?;
            Ok(Self { connection })
        };
        opened().map_err(|failure: Failure| failure.during("open"))
    }

    /// Does something in one transaction.
    fn write<T>(
        &mut self,
        action: &'static str,
        change: impl FnOnce(&Transaction<'_>) -> Result<T, Failure>,
    ) -> Result<T, FetchedError> {
        let changed = || {
            let transaction = self.connection.transaction_with_behavior(TransactionBehavior::Immediate)?;
            let changed = change(&transaction)?;
            transaction.commit()?;
            Ok(changed)
        };
        changed().map_err(|failure: Failure| failure.during(action))
    }

    fn read<T>(&self, read: impl FnOnce(&Connection) -> Result<T, Failure>) -> Result<T, FetchedError> {
        read(&self.connection).map_err(|failure| failure.during("read"))
    }
}

impl FetchedStore for InboxStore {
    fn mailbox(&mut self, mailbox: &MailboxKey) -> Result<MailboxRecord, FetchedError> {
        self.read(|connection| {
            let mut record = MailboxRecord::default();
            let Some(id) = mailbox_id(connection, mailbox)? else { return Ok(record) };
            let modseq: i64 = connection
                .prepare_cached("SELECT modseq FROM mailbox WHERE id = ?1")?
                .query_row([id], |row| row.get(0))?;
            record.modseq = modseq.cast_unsigned();
            let mut statement =
                connection.prepare_cached("SELECT uid, gone FROM seen_uid WHERE mailbox = ?1 ORDER BY uid")?;
            let mut rows = statement.query([id])?;
            while let Some(row) = rows.next()? {
                let (uid, gone): (u32, bool) = (row.get(0)?, row.get(1)?);
                record.known.insert(uid);
                if gone {
                    record.gone.insert(uid);
                }
            }
            Ok(record)
        })
    }

    fn flags(&mut self, mailbox: &MailboxKey) -> Result<Vec<(u32, Flags)>, FetchedError> {
        self.read(|connection| {
            let Some(id) = mailbox_id(connection, mailbox)? else { return Ok(Vec::new()) };
            let mut statement = connection
                .prepare_cached("SELECT uid, flags FROM seen_uid WHERE mailbox = ?1 AND gone = 0 ORDER BY uid")?;
            let rows = statement.query_map([id], |row| Ok((row.get::<_, u32>(0)?, row.get::<_, u8>(1)?)))?;
            rows.map(|row| {
                let (uid, bits) = row?;
                Ok((uid, Flags::from_bits(bits).ok_or(Unsound("flags"))?))
            })
            .collect()
        })
    }

    fn is_known(&mut self, origin: &Origin) -> Result<bool, FetchedError> {
        self.read(|connection| is_known(connection, origin))
    }

    fn message(&mut self, folder: &FolderName, digest: &MessageDigest) -> Result<Option<MessageState>, FetchedError> {
        self.read(|connection| {
            let state: Option<i64> = connection
                .prepare_cached("SELECT state FROM message WHERE folder = ?1 AND digest = ?2")?
                .query_row(params![folder.directory(), digest.0], |row| row.get(0))
                .optional()?;
            match state {
                Some(DELIVERED) => Ok(Some(MessageState::Delivered)),
                Some(DELETED) => Ok(Some(MessageState::Deleted)),
                Some(INTENDED) | None => Ok(None),
                Some(_) => Err(Unsound("state of a message").into()),
            }
        })
    }

    fn intend(&mut self, intents: &[Intent]) -> Result<(), FetchedError> {
        self.write("write to", |transaction| {
            let mut message = transaction.prepare_cached(
                "INSERT INTO message (folder, digest, name, size, arrived, path, state) VALUES (?1, ?2, ?3, ?4, ?5, ?6, 0)
                 RETURNING id",
            )?;
            let mut statement = transaction.prepare_cached(
                "INSERT INTO intent (name, message, account, mailbox, validity, uid, uidl, flags)
                 VALUES (?1, ?2, ?3, ?4, ?5, ?6, ?7, ?8)",
            )?;
            for intent in intents {
                let Intent { origin, folder, digest, name, flags, size, arrived, path } = intent;
                let (size, arrived) = (i64::try_from(*size).unwrap_or(i64::MAX), micros(*arrived));
                let row = params![folder.directory(), digest.0, name.as_str(), size, arrived, path_code(*path)];
                let id: i64 = message.query_row(row, |row| row.get(0))?;
                let (name, flags) = (name.as_str(), flags.bits());
                match origin {
                    Origin::Imap { mailbox: MailboxKey { account, mailbox, validity }, uid } => {
                        statement.execute(params![name, id, &**account, &**mailbox, validity, uid, None::<&str>, flags])?
                    }
                    Origin::Pop3 { account, uidl } => {
                        let none = None::<u32>;
                        statement.execute(params![name, id, &**account, None::<&str>, none, none, &**uidl, flags])?
                    }
                };
            }
            Ok(())
        })
    }

    fn pending(&mut self) -> Result<Vec<Intent>, FetchedError> {
        self.read(|connection| {
            let mut statement = connection.prepare_cached(INTENTS)?;
            let mut rows = statement.query([])?;
            let mut pending = Vec::new();
            while let Some(row) = rows.next()? {
                pending.push(read_intent(row)?);
            }
            Ok(pending)
        })
    }

    fn finish(&mut self, finished: &[UniqueName], sightings: &[Sighting]) -> Result<(), FetchedError> {
        self.write("write to", |transaction| {
            let mut of_name = transaction.prepare_cached(
                "DELETE FROM intent WHERE name = ?1 RETURNING message, account, mailbox, validity, uid, uidl, flags",
            )?;
            let mut delivered =
                transaction.prepare_cached("UPDATE message SET state = 1 WHERE id = ?1 AND state = 0")?;
            for name in finished {
                let found = of_name.query_row([name.as_str()], rows::origin_of_intent).optional()?;
                // One that was finished before is finished.
                let Some((message, origin, bits)) = found else { continue };
                delivered.execute([message])?;
                let flags = Flags::from_bits(bits).ok_or(Unsound("flags"))?;
                know(transaction, &origin.ok_or(Unsound("origin"))?, message, flags)?;
            }
            let mut of_digest = transaction
                .prepare_cached("SELECT id FROM message WHERE folder = ?1 AND digest = ?2 AND state <> 0")?;
            for Sighting { origin, folder, digest, flags } in sightings {
                let message = of_digest.query_row(params![folder.directory(), digest.0], |row| row.get(0))?;
                know(transaction, origin, message, *flags)?;
            }
            Ok(())
        })
    }

    fn abandon(&mut self, name: &UniqueName) -> Result<(), FetchedError> {
        self.write("write to", |transaction| {
            transaction.execute("DELETE FROM intent WHERE name = ?1", [name.as_str()])?;
            transaction.execute("DELETE FROM message WHERE name = ?1 AND state = 0", [name.as_str()])?;
            Ok(())
        })
    }

    fn note(
        &mut self,
        mailbox: &MailboxKey,
        flags: &[(u32, Flags)],
        gone: &UidSet,
        modseq: u64,
    ) -> Result<(), FetchedError> {
        self.write("write to", |transaction| {
            let id = rows::make_mailbox(transaction, mailbox)?;
            let mut of_uid = transaction
                .prepare_cached("UPDATE seen_uid SET flags = ?3 WHERE mailbox = ?1 AND uid = ?2 AND flags <> ?3")?;
            for (uid, flags) in flags {
                of_uid.execute(params![id, uid, flags.bits()])?;
            }
            let mut of_run = transaction.prepare_cached(
                "UPDATE seen_uid SET gone = 1 WHERE mailbox = ?1 AND uid BETWEEN ?2 AND ?3 AND gone = 0",
            )?;
            for run in gone.runs() {
                of_run.execute(params![id, run.start(), run.end()])?;
            }
            transaction
                .prepare_cached("UPDATE mailbox SET modseq = max(modseq, ?2) WHERE id = ?1")?
                .execute(params![id, i64::try_from(modseq).unwrap_or(i64::MAX)])?;
            Ok(())
        })
    }

    fn delete(&mut self, folder: &FolderName, digest: &MessageDigest) -> Result<(), FetchedError> {
        self.write("write to", |transaction| {
            transaction.execute(
                "INSERT INTO message (folder, digest, size, arrived, path, state) VALUES (?1, ?2, 0, 0, 0, 2)
                 ON CONFLICT (folder, digest) DO UPDATE SET state = 2",
                params![folder.directory(), digest.0],
            )?;
            Ok(())
        })
    }
}

fn is_known(connection: &Connection, origin: &Origin) -> Result<bool, Failure> {
    Ok(match origin {
        Origin::Imap { mailbox, uid } => match mailbox_id(connection, mailbox)? {
            Some(id) => connection
                .prepare_cached("SELECT 1 FROM seen_uid WHERE mailbox = ?1 AND uid = ?2")?
                .exists(params![id, uid])?,
            None => false,
        },
        Origin::Pop3 { account, uidl } => connection
            .prepare_cached("SELECT 1 FROM seen_uidl WHERE account = ?1 AND uidl = ?2")?
            .exists(params![&**account, &**uidl])?,
    })
}

/// Records an origin of a message; one that is recorded stays as it is.
fn know(transaction: &Transaction<'_>, origin: &Origin, message: i64, flags: Flags) -> Result<(), Failure> {
    match origin {
        Origin::Imap { mailbox, uid } => {
            let id = rows::make_mailbox(transaction, mailbox)?;
            transaction
                .prepare_cached(
                    "INSERT OR IGNORE INTO seen_uid (mailbox, uid, message, flags) VALUES (?1, ?2, ?3, ?4)",
                )?
                .execute(params![id, uid, message, flags.bits()])?;
        }
        Origin::Pop3 { account, uidl } => {
            transaction
                .prepare_cached("INSERT OR IGNORE INTO seen_uidl (account, uidl, message) VALUES (?1, ?2, ?3)")?
                .execute(params![&**account, &**uidl, message])?;
        }
    }
    Ok(())
}

/// Why the record cannot be used.
#[derive(Debug, thiserror::Error)]
enum Failure {
    #[error(transparent)]
    Sql(#[from] rusqlite::Error),
    #[error(transparent)]
    Unsound(#[from] Unsound),
    #[error("a newer version wrote it (its format is {0})")]
    Newer(i64),
}

impl Failure {
    fn during(self, action: &'static str) -> FetchedError {
        FetchedError { action, source: Box::new(self) }
    }
}

const VERSION: i64 = 2;

const INTENTS: &str =
    "SELECT intent.name, account, mailbox, validity, uid, uidl, flags, folder, digest, size, arrived, path
    FROM intent JOIN message ON message.id = intent.message ORDER BY intent.name";

const SCHEMA: &str = "
CREATE TABLE message (
    id INTEGER PRIMARY KEY,
    folder TEXT NOT NULL,
    digest BLOB NOT NULL CHECK (length(digest) = 32),
    name TEXT UNIQUE,
    size INTEGER NOT NULL,
    arrived INTEGER NOT NULL,
    path INTEGER NOT NULL,
    state INTEGER NOT NULL,
    UNIQUE (folder, digest)
);
CREATE TABLE mailbox (
    id INTEGER PRIMARY KEY,
    account TEXT NOT NULL,
    mailbox TEXT NOT NULL,
    validity INTEGER NOT NULL,
    modseq INTEGER NOT NULL DEFAULT 0,
    UNIQUE (account, mailbox, validity)
);
CREATE TABLE seen_uid (
    mailbox INTEGER NOT NULL REFERENCES mailbox (id),
    uid INTEGER NOT NULL,
    message INTEGER NOT NULL REFERENCES message (id),
    flags INTEGER NOT NULL,
    gone INTEGER NOT NULL DEFAULT 0,
    PRIMARY KEY (mailbox, uid)
) WITHOUT ROWID;
CREATE TABLE seen_uidl (
    account TEXT NOT NULL,
    uidl TEXT NOT NULL,
    message INTEGER NOT NULL REFERENCES message (id),
    PRIMARY KEY (account, uidl)
) WITHOUT ROWID;
CREATE TABLE intent (
    name TEXT PRIMARY KEY,
    message INTEGER NOT NULL REFERENCES message (id),
    account TEXT NOT NULL,
    mailbox TEXT,
    validity INTEGER,
    uid INTEGER,
    uidl TEXT,
    flags INTEGER NOT NULL
) WITHOUT ROWID;
";

/// What the second version added: what comparing looks for, and when the server had a message.
const SECOND: &str = "
ALTER TABLE message ADD COLUMN served INTEGER;
CREATE INDEX message_by_arrival ON message (arrived);
CREATE INDEX seen_uid_of_message ON seen_uid (message);
CREATE INDEX seen_uidl_of_message ON seen_uidl (message);
";
