//! What all parts of mail in share: the record, the Maildir, and what is known of the other device's holdings.
//!
//! Every round has a deliverer of its own, which is opened for it and puts in order what a failed one before it left; a
//! round that is aborted, or a thread that panics, therefore costs no other round anything.

use std::collections::BTreeSet;
use std::path::{Path as FilePath, PathBuf};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, SystemTime};

use packetboat_core::compare::uids::{UidCatalogue, UidSet as ComparedUids};
use packetboat_engine::ports::Entropy;
use packetboat_mail::fetched::{DeliverError, Deliverer, FetchedError, FetchedStore, Gate, MailboxKey, UidSet};
use packetboat_mail::maildir::{Maildir, UniqueNames};
use thiserror::Error;
use tokio::sync::watch;
use tokio::task::spawn_blocking;

use crate::clock::Clock;
use crate::inbox_store::listing::{find, glance};
use crate::inbox_store::{InboxStore, compared_key, record_key};

/// The record and the Maildir of one daemon.
pub struct Office {
    record: PathBuf,
    maildir: PathBuf,
    host_name: String,
    clock: Arc<dyn Clock>,
    entropy: Mutex<Box<dyn Entropy>>,
    gate: Gate,
    news: watch::Sender<u64>,
    shared: watch::Sender<u64>,
    peer: Option<Mutex<PeerHolds>>,
}

/// What the other device of the pair said that it holds, of what this one knows.
#[derive(Default, Debug)]
struct PeerHolds {
    uids: UidCatalogue,
    items: BTreeSet<[u8; 32]>,
}

/// What an office is made of.
pub struct OfficeParts {
    /// The record's file, which is made where it is missing.
    pub record: PathBuf,
    /// The Maildir, which is made where it is missing.
    pub maildir: PathBuf,
    /// For the names of files.
    pub host_name: String,
    /// For arrival times.
    pub clock: Arc<dyn Clock>,
    /// For the names of files.
    pub entropy: Box<dyn Entropy>,
    /// Whether there is another device that is to hold what is deleted at a server.
    pub paired: bool,
}

impl Office {
    /// An office; nothing is opened yet, so a Maildir that cannot be used stops no other part of the daemon.
    pub fn new(parts: OfficeParts) -> Arc<Self> {
        let OfficeParts { record, maildir, host_name, clock, entropy, paired } = parts;
        Arc::new(Self {
            record,
            maildir,
            host_name,
            clock,
            entropy: Mutex::new(entropy),
            gate: Gate::default(),
            news: watch::Sender::new(0),
            shared: watch::Sender::new(0),
            peer: paired.then(Mutex::default),
        })
    }

    /// Opens a deliverer for one round.
    pub async fn deliverer(self: &Arc<Self>) -> Result<Deliverer<InboxStore, Maildir>, OfficeError> {
        let office = self.clone();
        let opened = spawn_blocking(move || {
            let mut random = [0; 8];
            lock(&office.entropy).fill(&mut random);
            let names = UniqueNames::new(&office.host_name, std::process::id(), u64::from_be_bytes(random));
            let store = InboxStore::open(&office.record)?;
            let maildir = Maildir::open(&office.maildir).map_err(DeliverError::from)?;
            let clock = office.clock.clone();
            let clock = Arc::new(move || SystemTime::UNIX_EPOCH + Duration::from_millis(clock.now().wall_ms));
            Ok(Deliverer::open_beside(store, maildir, names, clock, office.gate.clone())?)
        });
        opened.await.map_err(|_| OfficeError::Panicked)?
    }

    /// Removes drafts that a crash left long ago. What cannot be looked at now is looked at by the next start.
    pub async fn tidy(self: &Arc<Self>) {
        let office = self.clone();
        let tidied = spawn_blocking(move || {
            let names = UniqueNames::new(&office.host_name, std::process::id(), 0);
            let now = SystemTime::UNIX_EPOCH + Duration::from_millis(office.clock.now().wall_ms);
            Maildir::open(&office.maildir)?.remove_stale_drafts(&names, now)
        });
        if let Ok(Err(error)) = tidied.await {
            tracing::debug!(%error, "old drafts were not looked for");
        }
    }

    /// Reads or writes the record, in a thread that may wait for the disk.
    pub async fn with_store<T: Send + 'static>(
        self: &Arc<Self>,
        action: impl FnOnce(&mut InboxStore) -> Result<T, FetchedError> + Send + 'static,
    ) -> Result<T, OfficeError> {
        let record = self.record.clone();
        let done = spawn_blocking(move || action(&mut InboxStore::open(&record)?));
        Ok(done.await.map_err(|_| OfficeError::Panicked)??)
    }

    /// Where messages are.
    pub fn maildir(&self) -> &FilePath {
        &self.maildir
    }

    /// The time by the wall clock, in milliseconds since 1970.
    pub(crate) fn now_ms(&self) -> u64 {
        self.clock.now().wall_ms
    }

    /// A number from 0 to 255.
    pub(crate) fn chance(&self) -> u8 {
        let mut byte = [0];
        lock(&self.entropy).fill(&mut byte);
        byte[0]
    }

    /// Something came that the other device may not have.
    pub fn tell_news(&self) {
        self.news.send_modify(|count| *count += 1);
    }

    /// Counts what came.
    pub(crate) fn news(&self) -> watch::Receiver<u64> {
        self.news.subscribe()
    }

    /// Counts how often it changed what both devices hold.
    pub(crate) fn shared(&self) -> watch::Receiver<u64> {
        self.shared.subscribe()
    }

    /// Looks for when their server had messages that came by POP3, so that a comparison finds recent ones cheaply.
    pub(crate) async fn time_items(self: &Arc<Self>) -> Result<(), OfficeError> {
        let maildir = self.maildir.clone();
        self.with_store(move |store| {
            loop {
                let items = store.untimed_items()?;
                if items.is_empty() {
                    return Ok(());
                }
                let timed: Vec<_> = items
                    .into_iter()
                    .map(|item| {
                        let file = find(&maildir, &item.folder, &item.name);
                        let served = file.and_then(|file| glance(&file).served).unwrap_or(0);
                        (item, served)
                    })
                    .collect();
                store.time_items(&timed)?;
            }
        })
        .await
    }

    /// The other device said that it holds these UIDs, of those that are known here.
    pub(crate) fn peer_holds_uids(&self, uids: UidCatalogue) {
        let Some(peer) = &self.peer else { return };
        let changed = std::mem::replace(&mut lock(peer).uids, uids.clone()) != uids;
        if changed {
            self.shared.send_modify(|count| *count += 1);
        }
    }

    /// The other device said that it holds these items, of those that are known here.
    pub(crate) fn peer_holds_items(&self, items: BTreeSet<[u8; 32]>) {
        let Some(peer) = &self.peer else { return };
        let mut peer = lock(peer);
        if peer.items != items {
            peer.items = items;
            self.shared.send_modify(|count| *count += 1);
        }
    }

    /// The messages of a mailbox that may be deleted at its server: recorded here, there still, and held by both.
    pub(crate) async fn deletable_uids(self: &Arc<Self>, mailbox: MailboxKey) -> Result<UidSet, OfficeError> {
        let key = mailbox.clone();
        let record = self.with_store(move |store| store.mailbox(&key)).await?;
        let live = record.known.difference(&record.gone);
        let Some(peer) = &self.peer else { return Ok(live) };
        let peer = lock(peer);
        let wanted = compared_key(&mailbox);
        let theirs = peer.uids.mailboxes().find(|(key, _)| **key == wanted).map(|(_, set)| as_recorded(set));
        Ok(theirs.map_or_else(UidSet::default, |theirs| live.difference(&live.difference(&theirs))))
    }

    /// The messages of a maildrop that may be deleted at its server.
    pub(crate) async fn deletable_uidls(self: &Arc<Self>, account: String) -> Result<BTreeSet<Arc<str>>, OfficeError> {
        let messages = self.with_store(move |store| store.maildrop(&account)).await?;
        let peer = self.peer.as_ref().map(lock);
        let by_uid = |key: &MailboxKey, uid: u32| {
            let wanted = compared_key(key);
            peer.as_ref()
                .is_some_and(|peer| peer.uids.mailboxes().any(|(key, set)| *key == wanted && set.contains(uid)))
        };
        let both = messages.into_iter().filter(|message| {
            peer.as_ref().is_none_or(|peer| peer.items.contains(&message.digest.0))
                || message.by_imap.iter().any(|(key, uid)| by_uid(key, *uid))
        });
        Ok(both.map(|message| Arc::from(message.uidl)).collect())
    }
}

/// A set from the link, as records have sets.
fn as_recorded(set: &ComparedUids) -> UidSet {
    let mut recorded = UidSet::default();
    set.runs().for_each(|(first, last)| recorded.insert_run(first..=last));
    recorded
}

/// What both of two catalogues have; names that no record has are left out.
pub(crate) fn common(here: &UidCatalogue, there: &UidCatalogue) -> UidCatalogue {
    let common = there.without(&there.without(here));
    UidCatalogue::new(
        common.mailboxes().filter(|(key, _)| record_key(key).is_some()).map(|(k, s)| (k.clone(), s.clone())),
    )
}

fn lock<T: ?Sized>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

/// Why the record or the Maildir cannot be used.
#[derive(Debug, Error)]
pub enum OfficeError {
    /// The record fails.
    #[error(transparent)]
    Record(#[from] FetchedError),
    /// The Maildir or the record fails.
    #[error(transparent)]
    Deliver(#[from] DeliverError),
    /// A thread is gone.
    #[error("the thread that waits for the disk ended")]
    Panicked,
}
