//! What has been fetched, from which server, and what became of it: so that each message is in its folder once.
//!
//! A message is known by two things.
//! Its *origin* is what the server calls it: account, mailbox, UIDVALIDITY and UID in IMAP, account and UIDL in POP3.
//! An origin that is recorded is never fetched again, also when the message is gone from the server or was deleted here:
//! the record outlives the message, so that no comparison revives it.
//! Its *digest* is that of its bytes, and holds across protocols, servers and the two devices of a pair:
//! a second origin of a message that its folder has had is recorded and delivers nothing.
//!
//! Invariants of a record, which [`Deliverer`] keeps through crashes:
//! - an origin is recorded as known only when its message's file has its name durably, or had it and was deleted;
//! - before a file has its name, an [`Intent`] with that name is recorded.
//!
//! Left out: how the record is stored (a port, [`FetchedStore`]) and who compares two devices' records.

mod arrivals;
mod deliver;
mod flags;
mod memory;
mod pulling;
mod uid_set;

use std::error::Error;
use std::fmt;
use std::sync::Arc;
use std::time::SystemTime;

use sha2::{Digest as _, Sha256};

pub use self::arrivals::{Arrivals, Delivering, Delivery, Stopped, deliver_in_background};
pub(crate) use self::deliver::with_store;
pub use self::deliver::{Arrival, Clock, DeliverError, Deliverer, Gate, Summary};
pub use self::flags::Flags;
pub use self::memory::MemoryFetched;
pub use self::pulling::PullError;
pub(crate) use self::pulling::{FetchError, delivered};
pub use self::uid_set::UidSet;
use crate::maildir::{FolderName, MaildirError, UniqueName};

/// A mailbox of a server, for as long as its UIDs mean the same.
#[derive(Clone, PartialEq, Eq, PartialOrd, Ord, Hash, Debug)]
pub struct MailboxKey {
    /// The account's name in the configuration.
    pub account: Arc<str>,
    /// As the server has it, in modified UTF-7.
    pub mailbox: Arc<str>,
    /// When the server gives a mailbox another one, none of its UIDs means what it meant.
    pub validity: u32,
}

/// What the server calls a message.
#[derive(Clone, PartialEq, Eq, PartialOrd, Ord, Hash, Debug)]
pub enum Origin {
    /// By IMAP.
    Imap {
        /// Where.
        mailbox: MailboxKey,
        /// Its number there.
        uid: u32,
    },
    /// By POP3.
    Pop3 {
        /// The account's name in the configuration.
        account: Arc<str>,
        /// The server's unique id: 1 to 70 printable characters.
        uidl: Arc<str>,
    },
}

/// Which device of a pair had it from the server.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Path {
    /// This one, on its own network.
    Own,
    /// The other, which passed it on over the link.
    Link,
}

/// What a message is, wherever it comes from: the SHA-256 of its bytes, with the last line ended by CRLF.
///
/// POP3 cannot say whether the last line of a message was ended, IMAP can; so an end is supposed where there is none.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct MessageDigest(pub [u8; 32]);

impl fmt::Debug for MessageDigest {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.iter().try_for_each(|byte| write!(formatter, "{byte:02x}"))
    }
}

impl MessageDigest {
    /// Of a whole message.
    pub fn of(message: &[u8]) -> Self {
        let mut digesting = Digesting::default();
        digesting.update(message);
        digesting.finish()
    }
}

/// A digest in the making.
#[derive(Clone, Default, Debug)]
pub struct Digesting {
    hash: Sha256,
    /// The last two bytes.
    end: [u8; 2],
}

impl Digesting {
    /// Takes the next bytes.
    pub fn update(&mut self, bytes: &[u8]) {
        self.hash.update(bytes);
        match bytes {
            [.., before, last] => self.end = [*before, *last],
            [last] => self.end = [self.end[1], *last],
            [] => {}
        }
    }

    /// The digest of all of them.
    pub fn finish(mut self) -> MessageDigest {
        if self.end != *b"\r\n" {
            self.hash.update(b"\r\n");
        }
        MessageDigest(self.hash.finalize().into())
    }
}

/// A message that is about to have its name: what a crash leaves to be put in order.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Intent {
    /// What the server calls it.
    pub origin: Origin,
    /// Where it goes.
    pub folder: FolderName,
    /// What it is.
    pub digest: MessageDigest,
    /// The name that its file gets, by which it is looked for after a crash.
    pub name: UniqueName,
    /// As the server had them.
    pub flags: Flags,
    /// Its bytes.
    pub size: u64,
    /// When it came to this device.
    pub arrived: SystemTime,
    /// By which device.
    pub path: Path,
}

/// A further origin of a message that the record has.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Sighting {
    /// What this server calls it.
    pub origin: Origin,
    /// Where the message is.
    pub folder: FolderName,
    /// What it is.
    pub digest: MessageDigest,
    /// As this server had them.
    pub flags: Flags,
}

/// What is recorded of one mailbox.
#[derive(Clone, PartialEq, Eq, Default, Debug)]
pub struct MailboxRecord {
    /// Every UID that was delivered or seen to be a message had already; those that are gone are among them.
    pub known: UidSet,
    /// Those that the server has no more.
    pub gone: UidSet,
    /// Changes up to this mod-sequence are recorded (RFC 7162); 0 for none.
    pub modseq: u64,
}

/// Whether a message of the record is still there, as far as this device had a say in it.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum MessageState {
    /// It was delivered.
    Delivered,
    /// It was delivered, and deleted on purpose; it is not to come back.
    Deleted,
}

/// The port to the record. Each call is one transaction, durable when it returns.
pub trait FetchedStore {
    /// What is recorded of a mailbox; nothing under another UIDVALIDITY counts.
    fn mailbox(&mut self, mailbox: &MailboxKey) -> Result<MailboxRecord, FetchedError>;

    /// The flags that were last noted of a mailbox's messages that are not gone, by UID.
    fn flags(&mut self, mailbox: &MailboxKey) -> Result<Vec<(u32, Flags)>, FetchedError>;

    /// Whether an origin is recorded.
    fn is_known(&mut self, origin: &Origin) -> Result<bool, FetchedError>;

    /// What became of a message in a folder; nothing for one that was never there.
    fn message(&mut self, folder: &FolderName, digest: &MessageDigest) -> Result<Option<MessageState>, FetchedError>;

    /// Records that these are about to have their names.
    fn intend(&mut self, intents: &[Intent]) -> Result<(), FetchedError>;

    /// What was intended and neither finished nor abandoned.
    fn pending(&mut self) -> Result<Vec<Intent>, FetchedError>;

    /// Records that the intended files have their names, then further origins of messages; all or nothing.
    fn finish(&mut self, finished: &[UniqueName], sightings: &[Sighting]) -> Result<(), FetchedError>;

    /// Forgets an intent whose file never got its name, so that the message is fetched again.
    fn abandon(&mut self, name: &UniqueName) -> Result<(), FetchedError>;

    /// Records what the server says of messages that are known: their flags, which are gone, and up to where this is so.
    fn note(
        &mut self,
        mailbox: &MailboxKey,
        flags: &[(u32, Flags)],
        gone: &UidSet,
        modseq: u64,
    ) -> Result<(), FetchedError>;

    /// Records that a message was deleted on purpose, so that no server and no peer brings it back.
    fn delete(&mut self, folder: &FolderName, digest: &MessageDigest) -> Result<(), FetchedError>;
}

/// The port to where messages are put.
pub trait Folders {
    /// A message that is being written.
    type Draft;

    /// Begins a message; where it has a server's time, its file gets it.
    fn begin(
        &mut self,
        folder: &FolderName,
        name: &UniqueName,
        received: Option<SystemTime>,
    ) -> Result<Self::Draft, MaildirError>;

    /// Appends to it.
    fn write(&mut self, draft: &mut Self::Draft, bytes: &[u8]) -> Result<(), MaildirError>;

    /// Ends it; it is not durable yet and no reader sees it.
    fn close(&mut self, draft: Self::Draft) -> Result<(), MaildirError>;

    /// Makes the bytes of these durable.
    fn make_durable(&mut self, drafts: &[(&FolderName, &UniqueName)]) -> Result<(), MaildirError>;

    /// Gives a draft its place, where readers see it.
    fn publish(&mut self, folder: &FolderName, name: &UniqueName, flags: Flags) -> Result<(), MaildirError>;

    /// Makes the places of all that was published or found durable.
    fn sync_published(&mut self) -> Result<(), MaildirError>;

    /// Looks for a message by its name.
    fn find(&mut self, folder: &FolderName, name: &UniqueName) -> Result<Found, MaildirError>;

    /// Removes a draft, if it is there.
    fn discard(&mut self, folder: &FolderName, name: &UniqueName) -> Result<(), MaildirError>;
}

/// Where a message was found.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Found {
    /// Where readers see it.
    Delivered,
    /// Among the drafts.
    Draft,
    /// Nowhere.
    Nowhere,
}

/// The record cannot be read or written.
#[derive(Debug, thiserror::Error)]
#[error("cannot {action} the record of fetched mail")]
pub struct FetchedError {
    /// What was tried.
    pub action: &'static str,
    /// Why it failed.
    pub source: Box<dyn Error + Send + Sync>,
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn a_message_is_the_same_by_both_protocols() {
        assert_eq!(MessageDigest::of(b"a\r\n\r\nlast line"), MessageDigest::of(b"a\r\n\r\nlast line\r\n"));
        assert_ne!(MessageDigest::of(b"a\r\n\r\nlast line\r\n"), MessageDigest::of(b"a\r\n\r\nlast line\r\n\r\n"));
        let ended = MessageDigest::of(b"Subject: a\r\n\r\nb\r\n");
        assert_eq!(format!("{ended:?}"), "9c6c8eb5e1aadf9965b891e6b38b9eaaa685400b5a6f4e755ee91c0695514d09");
    }

    proptest! {
        #[test]
        fn a_digest_does_not_depend_on_how_the_bytes_came(
            bytes in prop::collection::vec(prop_oneof![Just(b'\r'), Just(b'\n'), any::<u8>()], 0..40),
            size in 1usize..7,
        ) {
            let mut digesting = Digesting::default();
            bytes.chunks(size).for_each(|part| digesting.update(part));
            prop_assert_eq!(digesting.finish(), MessageDigest::of(&bytes));
        }
    }
}
