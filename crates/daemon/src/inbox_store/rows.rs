//! Between rows and what they stand for. What a row cannot mean is an error, since the file may have been written to.

use std::time::{Duration, SystemTime};

use packetboat_mail::fetched::{Flags, Intent, MailboxKey, MessageDigest, Origin, Path};
use packetboat_mail::maildir::{FolderName, UniqueName};
use rusqlite::{Connection, OptionalExtension, Row, Transaction, params};

use super::Failure;

/// States of a message.
pub(super) const INTENDED: i64 = 0;
pub(super) const DELIVERED: i64 = 1;
pub(super) const DELETED: i64 = 2;

/// A row holds what nobody wrote.
#[derive(Clone, Copy, PartialEq, Eq, Debug, thiserror::Error)]
#[error("it holds an unsound {0}")]
pub(super) struct Unsound(pub(super) &'static str);

pub(super) fn mailbox_id(connection: &Connection, mailbox: &MailboxKey) -> Result<Option<i64>, Failure> {
    let MailboxKey { account, mailbox, validity } = mailbox;
    let id = connection
        .prepare_cached("SELECT id FROM mailbox WHERE account = ?1 AND mailbox = ?2 AND validity = ?3")?
        .query_row(params![&**account, &**mailbox, validity], |row| row.get(0))
        .optional()?;
    Ok(id)
}

pub(super) fn make_mailbox(transaction: &Transaction<'_>, mailbox: &MailboxKey) -> Result<i64, Failure> {
    if let Some(id) = mailbox_id(transaction, mailbox)? {
        return Ok(id);
    }
    let MailboxKey { account, mailbox, validity } = mailbox;
    transaction
        .prepare_cached("INSERT INTO mailbox (account, mailbox, validity) VALUES (?1, ?2, ?3)")?
        .execute(params![&**account, &**mailbox, validity])?;
    Ok(transaction.last_insert_rowid())
}

/// Reads a row of intents joined with messages.
pub(super) fn read_intent(row: &Row<'_>) -> Result<Intent, Failure> {
    let name: String = row.get(0)?;
    let folder: String = row.get(7)?;
    let (size, arrived): (i64, i64) = (row.get(9)?, row.get(10)?);
    Ok(Intent {
        origin: origin(row, 1)?.ok_or(Unsound("origin"))?,
        folder: FolderName::from_directory(&folder).ok_or(Unsound("folder"))?,
        digest: MessageDigest(row.get(8)?),
        name: UniqueName::parse(&name).ok_or(Unsound("name"))?,
        flags: Flags::from_bits(row.get(6)?).ok_or(Unsound("flags"))?,
        size: u64::try_from(size).map_err(|_| Unsound("size"))?,
        arrived: SystemTime::UNIX_EPOCH + Duration::from_micros(u64::try_from(arrived).map_err(|_| Unsound("time"))?),
        path: match row.get(11)? {
            0 => Path::Own,
            1 => Path::Link,
            _ => return Err(Unsound("path").into()),
        },
    })
}

/// Reads message, origin and flags of an intent.
pub(super) fn origin_of_intent(row: &Row<'_>) -> rusqlite::Result<(i64, Option<Origin>, u8)> {
    Ok((row.get(0)?, origin(row, 1)?, row.get(6)?))
}

/// Reads five columns from `first` on.
fn origin(row: &Row<'_>, first: usize) -> rusqlite::Result<Option<Origin>> {
    let account: String = row.get(first)?;
    let mailbox: Option<String> = row.get(first + 1)?;
    let (validity, uid): (Option<u32>, Option<u32>) = (row.get(first + 2)?, row.get(first + 3)?);
    let uidl: Option<String> = row.get(first + 4)?;
    let account = account.into();
    Ok(match (mailbox, validity, uid, uidl) {
        (Some(mailbox), Some(validity), Some(uid), None) => {
            Some(Origin::Imap { mailbox: MailboxKey { account, mailbox: mailbox.into(), validity }, uid })
        }
        (None, None, None, Some(uidl)) => Some(Origin::Pop3 { account, uidl: uidl.into() }),
        _ => None,
    })
}

pub(super) fn path_code(path: Path) -> i64 {
    match path {
        Path::Own => 0,
        Path::Link => 1,
    }
}

/// Microseconds since 1970; a clock of before says 0.
pub(super) fn micros(time: SystemTime) -> i64 {
    let since = time.duration_since(SystemTime::UNIX_EPOCH).unwrap_or_default();
    i64::try_from(since.as_micros()).unwrap_or(i64::MAX)
}
