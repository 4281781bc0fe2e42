//! From arriving bytes to files and a record of them, which a crash at any instant leaves in step.
//!
//! Messages are delivered in batches. For each batch, in this order:
//!
//! 1. their bytes are in drafts, and digested while they came; those that the record has are sorted out;
//! 2. the drafts are made durable;
//! 3. the intents are recorded, each with the name of its file;
//! 4. the drafts get their places, and the places are made durable;
//! 5. the record says that they are there, and from which origins.
//!
//! A crash before 3 leaves drafts that nobody knows, which are removed when they are old.
//! A crash after it leaves intents: [`Deliverer::open`] looks for each file by its name, gives a draft its place, records
//! what is there, and abandons what is nowhere, so that it is fetched again.
//! One gap is left, and on the safe side: a message that was seen and moved to another folder by a mail reader between 4
//! and a crash before 5 is not found, and comes once more.

use std::collections::BTreeSet;
use std::fmt;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::SystemTime;

use tokio::task::spawn_blocking;

use super::{
    Digesting, FetchedError, FetchedStore, Flags, Folders, Found, Intent, MessageDigest, Origin, Path, Sighting,
};
use crate::maildir::{FolderName, MaildirError, UniqueName, UniqueNames};

/// Reads the time; passed in, as everywhere.
pub type Clock = Arc<dyn Fn() -> SystemTime + Send + Sync>;

/// Shared by the deliverers of one record, so that one of them at a time delivers a batch or puts one in order.
///
/// Without it, two that have the same message would both intend it, and one that opens would take what another is about to
/// deliver for what a crash left. It is held while the disk works and never while a network does.
#[derive(Clone, Default, Debug)]
pub struct Gate(Arc<Mutex<()>>);

impl Gate {
    fn pass(&self) -> MutexGuard<'_, ()> {
        // It guards no data; what a panic left half done is put in order by the next deliverer.
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// What is known of a message before its bytes.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Arrival {
    /// What the server calls it.
    pub origin: Origin,
    /// Where it goes.
    pub folder: FolderName,
    /// As the server has them.
    pub flags: Flags,
    /// When the server had it, where it says.
    pub received: Option<SystemTime>,
    /// By which device it came.
    pub path: Path,
}

/// Delivers messages into folders, once each.
pub struct Deliverer<S, F: Folders> {
    store: S,
    folders: F,
    names: UniqueNames,
    clock: Clock,
    gate: Gate,
    writing: Option<Writing<F::Draft>>,
    batch: Vec<Intent>,
    batch_bytes: u64,
    summary: Summary,
    /// A step failed half way; what it left is put in order before the next one.
    disturbed: bool,
}

/// What was done since it was last asked.
#[derive(Clone, Copy, PartialEq, Eq, Default, Debug)]
pub struct Summary {
    /// Files that have their place.
    pub delivered: u64,
    /// Messages that the record had from elsewhere; only their origin is new.
    pub known_already: u64,
    /// Bytes delivered.
    pub bytes: u64,
}

struct Writing<D> {
    arrival: Arrival,
    name: UniqueName,
    draft: D,
    digesting: Digesting,
    size: u64,
}

impl<S: FetchedStore, F: Folders> Deliverer<S, F> {
    /// Puts in order what a crash left, and is ready for messages. It is the only one for its record.
    pub fn open(store: S, folders: F, names: UniqueNames, clock: Clock) -> Result<Self, DeliverError> {
        Self::open_beside(store, folders, names, clock, Gate::default())
    }

    /// Like [`Deliverer::open`], beside others in this process whose stores keep the same record and who share the gate.
    pub fn open_beside(
        store: S,
        folders: F,
        names: UniqueNames,
        clock: Clock,
        gate: Gate,
    ) -> Result<Self, DeliverError> {
        let (batch, summary) = (Vec::new(), Summary::default());
        let mut deliverer =
            Self { store, folders, names, clock, gate, writing: None, batch, batch_bytes: 0, summary, disturbed: true };
        deliverer.settle()?;
        Ok(deliverer)
    }

    /// The record, for those who compare.
    pub fn store(&mut self) -> &mut S {
        &mut self.store
    }

    /// Gives back what it was made of.
    pub fn into_parts(self) -> (S, F) {
        (self.store, self.folders)
    }

    /// Begins a message; one that was begun and not ended is dropped.
    pub fn begin(&mut self, arrival: Arrival) -> Result<(), DeliverError> {
        self.settle()?;
        self.drop_unfinished()?;
        let name = self.names.next((self.clock)());
        let draft = self.folders.begin(&arrival.folder, &name, arrival.received)?;
        self.writing = Some(Writing { arrival, name, draft, digesting: Digesting::default(), size: 0 });
        Ok(())
    }

    /// Appends to the message that was begun.
    pub fn write(&mut self, bytes: &[u8]) -> Result<(), DeliverError> {
        let Some(writing) = &mut self.writing else { return Err(DeliverError::NotBegun) };
        self.folders.write(&mut writing.draft, bytes)?;
        writing.digesting.update(bytes);
        writing.size += bytes.len() as u64;
        Ok(())
    }

    /// Ends the message that was begun. It is delivered with its batch, at the latest by [`Deliverer::flush`].
    pub fn end(&mut self) -> Result<(), DeliverError> {
        let Some(writing) = self.writing.take() else { return Err(DeliverError::NotBegun) };
        let Writing { arrival, name, draft, digesting, size } = writing;
        let Arrival { origin, folder, flags, path, .. } = arrival;
        let digest = digesting.finish();
        let arrived = (self.clock)();
        self.batch.push(Intent { origin, folder, digest, name, flags, size, arrived, path });
        self.batch_bytes += size;
        self.folders.close(draft)?;
        if self.batch.len() >= BATCH_MESSAGES || self.batch_bytes >= BATCH_BYTES {
            self.flush()?;
        }
        Ok(())
    }

    /// Drops the message that was begun: its server broke off.
    pub fn drop_unfinished(&mut self) -> Result<(), DeliverError> {
        if let Some(Writing { arrival, name, draft, .. }) = self.writing.take() {
            drop(draft);
            self.folders.discard(&arrival.folder, &name)?;
        }
        Ok(())
    }

    /// Delivers every message that was ended.
    pub fn flush(&mut self) -> Result<(), DeliverError> {
        self.settle()?;
        let batch = std::mem::take(&mut self.batch);
        self.batch_bytes = 0;
        if batch.is_empty() {
            return Ok(());
        }
        self.disturbed = true;
        let gate = self.gate.clone();
        let _alone = gate.pass();
        match self.deliver(&batch) {
            Ok(()) => self.disturbed = false,
            Err(error) => {
                // Those that the record knows are put in order by the next step; of the others nothing is to stay.
                self.discard_unrecorded(&batch);
                return Err(error);
            }
        }
        Ok(())
    }

    /// What was done since this was last asked.
    pub fn summary(&mut self) -> Summary {
        std::mem::take(&mut self.summary)
    }

    fn deliver(&mut self, batch: &[Intent]) -> Result<(), DeliverError> {
        let mut fresh: BTreeSet<(&FolderName, MessageDigest)> = BTreeSet::new();
        let mut origins: BTreeSet<&Origin> = BTreeSet::new();
        let (mut intents, mut sightings, mut needless) = (Vec::new(), Vec::new(), Vec::new());
        for intent in batch {
            let Intent { origin, folder, digest, flags, .. } = intent;
            if !origins.insert(origin) || self.store.is_known(origin)? {
                needless.push(intent);
            } else if self.store.message(folder, digest)?.is_some() || !fresh.insert((folder, *digest)) {
                let (origin, folder) = (origin.clone(), folder.clone());
                sightings.push(Sighting { origin, folder, digest: *digest, flags: *flags });
                needless.push(intent);
            } else {
                intents.push(intent.clone());
            }
        }
        if !intents.is_empty() {
            let drafts: Vec<_> = intents.iter().map(|intent| (&intent.folder, &intent.name)).collect();
            self.folders.make_durable(&drafts)?;
            self.store.intend(&intents)?;
            for intent in &intents {
                self.folders.publish(&intent.folder, &intent.name, intent.flags)?;
            }
            self.folders.sync_published()?;
        }
        let names: Vec<UniqueName> = intents.iter().map(|intent| intent.name.clone()).collect();
        if !names.is_empty() || !sightings.is_empty() {
            self.store.finish(&names, &sightings)?;
        }
        self.summary.delivered += intents.len() as u64;
        self.summary.known_already += needless.len() as u64;
        self.summary.bytes += intents.iter().map(|intent| intent.size).sum::<u64>();
        for intent in needless {
            self.folders.discard(&intent.folder, &intent.name)?;
        }
        Ok(())
    }

    /// Puts in order what a crash or a failure left.
    fn settle(&mut self) -> Result<(), DeliverError> {
        if !self.disturbed {
            return Ok(());
        }
        let gate = self.gate.clone();
        let _alone = gate.pass();
        let mut there = Vec::new();
        for intent in self.store.pending()? {
            match self.folders.find(&intent.folder, &intent.name)? {
                Found::Delivered => there.push(intent.name),
                // It was made durable before it was intended, so it is whole.
                Found::Draft => {
                    self.folders.publish(&intent.folder, &intent.name, intent.flags)?;
                    there.push(intent.name);
                }
                Found::Nowhere => self.store.abandon(&intent.name)?,
            }
        }
        if !there.is_empty() {
            self.folders.sync_published()?;
            self.store.finish(&there, &[])?;
        }
        self.disturbed = false;
        Ok(())
    }

    /// Drops the message that was begun and those that wait for their batch: they are fetched again.
    pub fn give_up(&mut self) {
        // What cannot be removed now is a draft that grows old.
        let _ = self.drop_unfinished();
        let batch = std::mem::take(&mut self.batch);
        self.batch_bytes = 0;
        self.discard_unrecorded(&batch);
    }

    fn discard_unrecorded(&mut self, batch: &[Intent]) {
        // Whether a failed transaction was recorded is not known unless the record can be read; in doubt, all stay.
        let Ok(pending) = self.store.pending() else { return };
        let pending: BTreeSet<&UniqueName> = pending.iter().map(|intent| &intent.name).collect();
        for intent in batch.iter().filter(|intent| !pending.contains(&intent.name)) {
            // What cannot be removed now is a draft that grows old.
            let _ = self.folders.discard(&intent.folder, &intent.name);
        }
    }
}

impl<S, F: Folders> fmt::Debug for Deliverer<S, F> {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.debug_struct("Deliverer").field("batch", &self.batch.len()).finish_non_exhaustive()
    }
}

/// Uses the record in a thread that may wait for disks; the outcome is nothing only with the deliverer.
pub(crate) async fn with_store<S, F, A, T>(
    mut deliverer: Deliverer<S, F>,
    argument: A,
    action: impl FnOnce(&mut S, A) -> Result<T, FetchedError> + Send + 'static,
) -> (Option<Deliverer<S, F>>, Result<Option<T>, FetchedError>)
where
    S: FetchedStore + Send + 'static,
    F: Folders + Send + 'static,
    F::Draft: Send,
    A: Send + 'static,
    T: Send + 'static,
{
    let used = spawn_blocking(move || {
        let outcome = action(deliverer.store(), argument);
        (deliverer, outcome)
    });
    match used.await {
        Ok((deliverer, outcome)) => (Some(deliverer), outcome.map(Some)),
        Err(_) => (None, Ok(None)),
    }
}

/// Why a message was not delivered.
#[derive(Debug, thiserror::Error)]
pub enum DeliverError {
    /// The record failed; what was delivered is put in order by the next step.
    #[error(transparent)]
    Record(#[from] FetchedError),
    /// The folders failed.
    #[error(transparent)]
    Folders(#[from] MaildirError),
    /// The caller wrote to or ended a message that it had not begun.
    #[error("no message was begun")]
    NotBegun,
}

/// So many messages, or so many bytes, share two transactions and one wait for the disk.
const BATCH_MESSAGES: usize = 1024;
const BATCH_BYTES: u64 = 16 << 20;
