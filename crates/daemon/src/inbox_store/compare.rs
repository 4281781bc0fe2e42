//! What two devices ask each other's record about: which origins it knows, and which message each of them is.
//!
//! A UID is *held* where its message was delivered, and *known* where its message was delivered or deleted. What a device
//! holds it offers; what it knows it does not ask for, so that nothing deleted comes back.
//! Messages that came by POP3 alone are *items*, compared by digest. Once an IMAP origin of one is known too, from either
//! device, its UID speaks for it and it is no item any more.

use std::collections::BTreeMap;

use packetboat_core::compare::items::Entry;
use packetboat_core::compare::uids::{MailboxKey as UidKey, UidCatalogue, UidSet};
use packetboat_mail::fetched::{FetchedError, Flags, MailboxKey, MessageDigest, Origin, Sighting};
use packetboat_mail::maildir::{FolderName, UniqueName};
use rusqlite::{Connection, OptionalExtension, params};

use super::rows::{DELETED, DELIVERED, Unsound, mailbox_id, micros};
use super::{Failure, InboxStore};

/// A message that is held, by one of its origins.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Held {
    /// What a server calls it.
    pub origin: Origin,
    /// Where it is.
    pub folder: FolderName,
    /// What it is.
    pub digest: MessageDigest,
    /// Its bytes.
    pub size: u64,
    /// As that server had them.
    pub flags: Flags,
}

/// A message that came by POP3 alone and was not looked at yet for when its server had it.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Item {
    row: i64,
    /// Where it is.
    pub folder: FolderName,
    /// The name of its file.
    pub name: UniqueName,
}

/// A message of a maildrop, and by what else it is known.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct MaildropMessage {
    /// The server's unique id.
    pub uidl: String,
    /// What it is.
    pub digest: MessageDigest,
    /// Where the same message is by IMAP.
    pub by_imap: Vec<(MailboxKey, u32)>,
}

impl InboxStore {
    /// The UIDs of every message that is held.
    pub fn held_uids(&mut self) -> Result<UidCatalogue, FetchedError> {
        self.read(|connection| {
            let known = uids(connection, ALL_UIDS)?;
            Ok(known.without(&uids(connection, DELETED_UIDS)?))
        })
    }

    /// The UIDs of every message that is held or was deleted.
    pub fn known_uids(&mut self) -> Result<UidCatalogue, FetchedError> {
        self.read(|connection| uids(connection, ALL_UIDS))
    }

    /// Which messages some UIDs are; those that are not held are left out.
    pub fn of_uids(&mut self, asked: &UidCatalogue) -> Result<Vec<Held>, FetchedError> {
        self.read(|connection| {
            let mut found = Vec::new();
            let mut statement = connection.prepare_cached(
                "SELECT seen_uid.uid, folder, digest, size, flags FROM seen_uid JOIN message ON message.id = message
                 WHERE mailbox = ?1 AND uid BETWEEN ?2 AND ?3 AND state = 1 ORDER BY uid",
            )?;
            for (key, set) in asked.mailboxes() {
                let Some(mailbox) = record_key(key) else { continue };
                let Some(id) = mailbox_id(connection, &mailbox)? else { continue };
                for (first, last) in set.runs() {
                    let mut rows = statement.query([id, i64::from(first), i64::from(last)])?;
                    while let Some(row) = rows.next()? {
                        let origin = Origin::Imap { mailbox: mailbox.clone(), uid: row.get(0)? };
                        found.push(held(origin, row.get(1)?, row.get(2)?, row.get(3)?, row.get(4)?)?);
                    }
                }
            }
            Ok(found)
        })
    }

    /// The items that are held, to offer them.
    pub fn held_items(&mut self) -> Result<Vec<Entry>, FetchedError> {
        self.read(|connection| items(connection, HELD_ITEMS))
    }

    /// The items that are held or were deleted, to ask for others.
    pub fn known_items(&mut self) -> Result<Vec<Entry>, FetchedError> {
        self.read(|connection| items(connection, KNOWN_ITEMS))
    }

    /// Which messages some items are; those that are not held are left out.
    pub fn of_items(&mut self, digests: &[MessageDigest]) -> Result<Vec<Held>, FetchedError> {
        self.read(|connection| {
            let mut statement = connection.prepare_cached(
                "SELECT account, uidl, folder, digest, size FROM message JOIN seen_uidl ON message.id = message
                 WHERE folder = '' AND digest = ?1 AND state = 1 ORDER BY account, uidl LIMIT 16",
            )?;
            let mut found = Vec::new();
            for digest in digests {
                let mut rows = statement.query([digest.0])?;
                while let Some(row) = rows.next()? {
                    let (account, uidl): (String, String) = (row.get(0)?, row.get(1)?);
                    let origin = Origin::Pop3 { account: account.into(), uidl: uidl.into() };
                    found.push(held(origin, row.get(2)?, row.get(3)?, row.get(4)?, 0)?);
                }
            }
            Ok(found)
        })
    }

    /// Some items of which it is not known when their server had them; nothing, when all were looked at.
    pub fn untimed_items(&mut self) -> Result<Vec<Item>, FetchedError> {
        self.read(|connection| {
            let mut statement = connection.prepare_cached(
                "SELECT id, folder, name FROM message WHERE served IS NULL AND state = 1 AND folder = ''
                 AND id IN (SELECT message FROM seen_uidl) LIMIT 500",
            )?;
            let mut rows = statement.query([])?;
            let mut found = Vec::new();
            while let Some(row) = rows.next()? {
                let (folder, name): (String, String) = (row.get(1)?, row.get(2)?);
                found.push(Item {
                    row: row.get(0)?,
                    folder: FolderName::from_directory(&folder).ok_or(Unsound("folder"))?,
                    name: UniqueName::parse(&name).ok_or(Unsound("name"))?,
                });
            }
            Ok(found)
        })
    }

    /// Records when the servers of items had them, in seconds since 1970; 0 where nothing tells.
    pub fn time_items(&mut self, times: &[(Item, u64)]) -> Result<(), FetchedError> {
        self.write("write to", |transaction| {
            let mut statement = transaction.prepare_cached("UPDATE message SET served = ?2 WHERE id = ?1")?;
            for (item, seconds) in times {
                statement.execute(params![item.row, i64::try_from(*seconds).unwrap_or(0)])?;
            }
            Ok(())
        })
    }

    /// The name of the file of a message that is held.
    pub fn file_name(
        &mut self,
        folder: &FolderName,
        digest: &MessageDigest,
    ) -> Result<Option<UniqueName>, FetchedError> {
        self.read(|connection| {
            let name: Option<String> = connection
                .prepare_cached("SELECT name FROM message WHERE folder = ?1 AND digest = ?2 AND state = 1")?
                .query_row(params![folder.directory(), digest.0], |row| row.get(0))
                .optional()?;
            name.map(|name| UniqueName::parse(&name).ok_or_else(|| Unsound("name").into())).transpose()
        })
    }

    /// The messages of a maildrop that were delivered, deleted ones among them.
    pub fn maildrop(&mut self, account: &str) -> Result<Vec<MaildropMessage>, FetchedError> {
        self.read(|connection| {
            let mut of_account = connection.prepare_cached(
                "SELECT uidl, digest, message.id FROM seen_uidl JOIN message ON message.id = message
                 WHERE account = ?1 AND state IN (1, 2)",
            )?;
            let mut by_imap = connection.prepare_cached(
                "SELECT account, mailbox.mailbox, validity, uid FROM seen_uid JOIN mailbox ON mailbox.id = seen_uid.mailbox
                 WHERE message = ?1",
            )?;
            let mut rows = of_account.query([account])?;
            let mut found = Vec::new();
            while let Some(row) = rows.next()? {
                let message: i64 = row.get(2)?;
                let others = by_imap.query_map([message], |row| {
                    let (account, mailbox): (String, String) = (row.get(0)?, row.get(1)?);
                    let key = MailboxKey { account: account.into(), mailbox: mailbox.into(), validity: row.get(2)? };
                    Ok((key, row.get(3)?))
                })?;
                let by_imap = others.collect::<Result<_, _>>()?;
                found.push(MaildropMessage { uidl: row.get(0)?, digest: MessageDigest(row.get(1)?), by_imap });
            }
            Ok(found)
        })
    }

    /// Records further origins of messages that the record has.
    pub fn sight(&mut self, sightings: &[Sighting]) -> Result<(), FetchedError> {
        use packetboat_mail::fetched::FetchedStore;
        self.finish(&[], sightings)
    }

    /// Records a report that this device itself filed, so that it is listed; once, whatever is said again.
    pub fn file_report(
        &mut self,
        name: &UniqueName,
        digest: &MessageDigest,
        size: u64,
        at: std::time::SystemTime,
    ) -> Result<(), FetchedError> {
        self.write("write to", |transaction| {
            transaction.execute(
                "INSERT OR IGNORE INTO message (folder, digest, name, size, arrived, path, state)
                 VALUES ('', ?1, ?2, ?3, ?4, 2, ?5)",
                params![digest.0, name.as_str(), i64::try_from(size).unwrap_or(i64::MAX), micros(at), DELIVERED],
            )?;
            Ok(())
        })
    }
}

fn uids(connection: &Connection, query: &str) -> Result<UidCatalogue, Failure> {
    let mut statement = connection.prepare_cached(query)?;
    let mut rows = statement.query([])?;
    let mut sets: BTreeMap<i64, UidSet> = BTreeMap::new();
    while let Some(row) = rows.next()? {
        sets.entry(row.get(0)?).or_default().insert(row.get(1)?);
    }
    let mut of_id = connection.prepare_cached("SELECT account, mailbox, validity FROM mailbox WHERE id = ?1")?;
    let mut mailboxes = Vec::new();
    for (id, set) in sets {
        let key = of_id.query_row([id], |row| {
            let mailbox: String = row.get(1)?;
            Ok(UidKey { account: row.get(0)?, mailbox: mailbox.into_bytes(), uid_validity: row.get(2)? })
        })?;
        mailboxes.push((key, set));
    }
    Ok(UidCatalogue::new(mailboxes))
}

fn items(connection: &Connection, query: &str) -> Result<Vec<Entry>, Failure> {
    let mut statement = connection.prepare_cached(query)?;
    let rows = statement.query_map([], |row| {
        let served: Option<i64> = row.get(1)?;
        Ok(Entry { arrival: served.and_then(|seconds| u64::try_from(seconds).ok()).unwrap_or(0), hash: row.get(0)? })
    })?;
    Ok(rows.collect::<Result<_, _>>()?)
}

fn held(origin: Origin, folder: String, digest: [u8; 32], size: i64, flags: u8) -> Result<Held, Failure> {
    Ok(Held {
        origin,
        folder: FolderName::from_directory(&folder).ok_or(Unsound("folder"))?,
        digest: MessageDigest(digest),
        size: u64::try_from(size).map_err(|_| Unsound("size"))?,
        flags: Flags::from_bits(flags).ok_or(Unsound("flags"))?,
    })
}

/// A mailbox as the record names it; nothing for a name that no record has.
pub(crate) fn record_key(key: &UidKey) -> Option<MailboxKey> {
    let mailbox = std::str::from_utf8(&key.mailbox).ok()?;
    Some(MailboxKey { account: key.account.as_str().into(), mailbox: mailbox.into(), validity: key.uid_validity })
}

/// A mailbox as it is compared.
pub(crate) fn compared_key(key: &MailboxKey) -> UidKey {
    UidKey { account: key.account.to_string(), mailbox: key.mailbox.as_bytes().to_vec(), uid_validity: key.validity }
}

const ALL_UIDS: &str = "SELECT mailbox, uid FROM seen_uid ORDER BY mailbox, uid";
const DELETED_UIDS: &str =
    "SELECT seen_uid.mailbox, uid FROM message JOIN seen_uid ON message.id = message WHERE state <> 1";
const HELD_ITEMS: &str = "SELECT digest, served FROM message WHERE state = 1 AND folder = ''
    AND id IN (SELECT message FROM seen_uidl) AND id NOT IN (SELECT message FROM seen_uid)";
const KNOWN_ITEMS: &str = "SELECT digest, served FROM message WHERE state <> 0 AND folder = ''
    AND id IN (SELECT message FROM seen_uidl) AND id NOT IN (SELECT message FROM seen_uid)";

const _: () = assert!(DELIVERED == 1 && DELETED == 2, "the queries name the states by number");
