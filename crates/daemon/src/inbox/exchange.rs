//! One session's comparison of what two devices have of mail in, and the fetching of what this one lacks.
//!
//! Both sides do the same, each for itself. Whoever has something new says "news"; whoever hears it compares:
//!
//! 1. the other's UIDs, as sets of runs, with those that are known here;
//! 2. messages that came by POP3 alone, by fingerprints of ranges (`core::compare::items`);
//! 3. of what is lacking, it asks which messages those are. Those that are here by another origin get that origin too, so
//!    that neither path fetches them again;
//! 4. the others' bytes are asked for, held against the digest that was said, and delivered.
//!
//! After it took something in, it says news itself: the other learns that both hold it, which is when an account that says
//! so has it deleted at its server. It ends, since whoever lacks nothing says nothing.
//! What is cut off in the midst is asked for again in the next session; what had come whole by then is delivered.
//! A peer may lie about everything: it can waste a round, and it can put mail into a Maildir that no server sent, as only a
//! paired device can. It cannot overwrite, delete or read anything.

use std::collections::{BTreeSet, HashSet};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, SystemTime};

use packetboat_core::compare::CompareError;
use packetboat_core::compare::items::{Catalogue, Difference, Entry, Limits, Step};
use packetboat_core::compare::uids::{UidCatalogue, UidSet};
use packetboat_core::wire::WireError;
use packetboat_link::{BulkError, GetRequest, Part, Refusal, Session, SessionError};
use packetboat_mail::fetched::{
    Arrival, Arrivals, DeliverError, Delivery, Digesting, FetchedStore, MessageDigest, Path, Sighting, Summary,
    deliver_in_background,
};
use thiserror::Error;
use tokio::sync::{Mutex as AsyncMutex, Semaphore, mpsc};
use tokio::task::JoinSet;
use tokio::time::{sleep, timeout};

use super::giving::{self, CATALOGUE_BYTES, UIDS_AT_ONCE};
use super::office::{Office, OfficeError, common};
use super::words::{ITEMS_AT_ONCE, Said, Wanted, decode_descriptions};
use crate::files::with_causes;
use crate::inbox_store::Held;

/// Compares and exchanges, session after session.
pub struct Exchange {
    office: Arc<Office>,
    last: Mutex<Option<String>>,
}

impl Exchange {
    /// An exchange of what an office has.
    pub fn new(office: Arc<Office>) -> Arc<Self> {
        Arc::new(Self { office, last: Mutex::default() })
    }

    /// Why the last round failed, if it did.
    pub fn trouble(&self) -> Option<String> {
        self.last.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }

    /// Answers what the other device asks for.
    pub(crate) async fn give(&self, request: GetRequest) -> Result<(), BulkError> {
        giving::give(&self.office, request).await
    }

    /// Serves one session until it ends; `heard` is what the other device says about mail in.
    pub async fn serve(self: Arc<Self>, session: Session, mut heard: mpsc::Receiver<Vec<u8>>) {
        let mut news = self.office.news();
        let (to_round, answers) = mpsc::channel(4);
        let answers = Arc::new(AsyncMutex::new(answers));
        let known_missing: Arc<Mutex<HashSet<MessageDigest>>> = Arc::default();
        let mut rounds: JoinSet<Result<Summary, ExchangeError>> = JoinSet::new();
        let (mut wanted, mut failures) = (false, 0u32);
        let mut offered = None;
        if session.send(message(&Said::News)).await.is_err() {
            return;
        }
        loop {
            if wanted && rounds.is_empty() {
                wanted = false;
                let round = Round {
                    office: self.office.clone(),
                    session: session.clone(),
                    known_missing: known_missing.clone(),
                };
                rounds.spawn(round.run(answers.clone()));
            }
            tokio::select! {
                _ = session.ended() => return,
                said = heard.recv() => match said.as_deref().map(Said::decode) {
                    None => return,
                    Some(Some(Said::News)) => wanted = true,
                    Some(Some(Said::Ask { first, frame })) => {
                        let answer = self.answer(first, frame, &mut offered).await;
                        if session.send(message(&answer)).await.is_err() {
                            return;
                        }
                    }
                    Some(Some(answer @ (Said::Answer(_) | Said::Declined))) => {
                        // An answer that no round waits for is one to a round that failed.
                        let _unwanted = to_round.try_send(answer);
                    }
                    Some(None) => tracing::debug!("the other device said something about mail in that is not known here"),
                },
                Ok(()) = news.changed() => {
                    // Whatever comes in one breath is said once.
                    sleep(BREATH).await;
                    news.mark_unchanged();
                    if session.send(message(&Said::News)).await.is_err() {
                        return;
                    }
                }
                Some(round) = rounds.join_next() => match round {
                    Ok(Ok(summary)) => {
                        failures = 0;
                        self.note(None);
                        if summary != Summary::default() {
                            tracing::info!(delivered = summary.delivered, "mail came by the other device");
                            self.office.tell_news();
                        }
                    }
                    Ok(Err(error)) => {
                        let words = with_causes(&error);
                        tracing::warn!(error = words, "comparing mail with the other device failed");
                        self.note(Some(words));
                        failures += 1;
                        wanted = true;
                        rounds.spawn(pause(failures));
                    }
                    Err(error) => {
                        tracing::error!(%error, "comparing mail with the other device ended");
                        failures += 1;
                        wanted = true;
                        rounds.spawn(pause(failures));
                    }
                },
            }
        }
    }

    /// Answers a frame of the other's comparison, whose first one fixes what is compared.
    async fn answer(&self, first: bool, frame: Vec<u8>, offered: &mut Option<Arc<Catalogue>>) -> Said {
        if first {
            let items = self.office.with_store(|store| store.held_items()).await;
            *offered = items.ok().map(|items| Arc::new(Catalogue::new(items)));
        }
        let Some(catalogue) = offered.clone() else { return Said::Declined };
        let answered = tokio::task::spawn_blocking(move || {
            catalogue.respond(Limits::default()).and_then(|mut responder| responder.handle(&frame))
        });
        match answered.await {
            Ok(Ok(frame)) => Said::Answer(frame),
            Ok(Err(error)) => {
                tracing::debug!(%error, "the other device's comparison makes no sense");
                Said::Declined
            }
            Err(_) => Said::Declined,
        }
    }

    fn note(&self, trouble: Option<String>) {
        *self.last.lock().unwrap_or_else(PoisonError::into_inner) = trouble;
    }
}

/// A round that does nothing for a while, so that what fails at once is not tried at once.
async fn pause(failures: u32) -> Result<Summary, ExchangeError> {
    sleep(PAUSE.saturating_mul(2u32.saturating_pow(failures.min(6)))).await;
    Ok(Summary::default())
}

/// One comparison and what follows from it.
struct Round {
    office: Arc<Office>,
    session: Session,
    /// What the other device said it holds and could not give, its user having moved or deleted it.
    known_missing: Arc<Mutex<HashSet<MessageDigest>>>,
}

impl Round {
    async fn run(self, answers: Arc<AsyncMutex<mpsc::Receiver<Said>>>) -> Result<Summary, ExchangeError> {
        let mut summary = Summary::default();
        let theirs = self.get(&Wanted::Uids, CATALOGUE_BYTES as u64).await?;
        let theirs = UidCatalogue::decode(&theirs, CATALOGUE_BYTES)?;
        let ours = self.office.with_store(|store| store.known_uids()).await?;
        for part in parts(&theirs.without(&ours)) {
            let held = self.describe(&Wanted::OfUids(part)).await?;
            self.take(held, &mut summary).await?;
        }
        self.office.time_items().await?;
        let before = self.office.with_store(|store| store.known_items()).await?;
        let difference = self.compare_items(&before, &mut *answers.lock().await).await?;
        let lacking: Vec<MessageDigest> = difference.need.iter().copied().map(MessageDigest).collect();
        for part in lacking.chunks(ITEMS_AT_ONCE) {
            let held = self.describe(&Wanted::OfItems(part.to_vec())).await?;
            self.take(held, &mut summary).await?;
        }
        let ours = self.office.with_store(|store| store.known_uids()).await?;
        self.office.peer_holds_uids(common(&ours, &theirs));
        let before: BTreeSet<[u8; 32]> = before.into_iter().map(|item| item.hash).collect();
        let now = self.office.with_store(|store| store.known_items()).await?;
        let by_both = now.into_iter().map(|item| item.hash).filter(|hash| {
            difference.need.contains(hash) || (before.contains(hash) && !difference.have.contains(hash))
        });
        self.office.peer_holds_items(by_both.collect());
        Ok(summary)
    }

    async fn compare_items(
        &self,
        ours: &[Entry],
        answers: &mut mpsc::Receiver<Said>,
    ) -> Result<Difference, ExchangeError> {
        while answers.try_recv().is_ok() {}
        let catalogue = Catalogue::new(ours.iter().copied());
        let (mut comparison, mut frame) = catalogue.initiate(Limits::default())?;
        let mut first = true;
        loop {
            self.session.send(message(&Said::Ask { first, frame })).await?;
            first = false;
            let answer = timeout(ANSWER, answers.recv()).await.map_err(|_| ExchangeError::Silent)?;
            let Some(Said::Answer(answer)) = answer else { return Err(ExchangeError::Declined) };
            match comparison.handle(&answer)? {
                Step::Ask { comparison: next, frame: more } => (comparison, frame) = (next, more),
                Step::Done(difference) => return Ok(difference),
            }
        }
    }

    async fn describe(&self, wanted: &Wanted) -> Result<Vec<Held>, ExchangeError> {
        let held = decode_descriptions(&self.get(wanted, DESCRIPTIONS_BYTES).await?)?;
        // What was not asked for is not taken: it was left out because it is known here, or deleted.
        let asked = |held: &Held| match wanted {
            Wanted::OfUids(uids) => uids.mailboxes().any(|(key, set)| match &held.origin {
                packetboat_mail::fetched::Origin::Imap { mailbox, uid } => {
                    *key == crate::inbox_store::compared_key(mailbox) && set.contains(*uid)
                }
                packetboat_mail::fetched::Origin::Pop3 { .. } => false,
            }),
            Wanted::OfItems(digests) => digests.contains(&held.digest) && held.folder.is_inbox(),
            Wanted::Uids | Wanted::Message { .. } => false,
        };
        if held.iter().all(asked) { Ok(held) } else { Err(ExchangeError::NotAsked) }
    }

    async fn get(&self, wanted: &Wanted, limit: u64) -> Result<Vec<u8>, ExchangeError> {
        let name = wanted.encode().ok_or(ExchangeError::NotAsked)?;
        Ok(self.session.get(&name, Part::WHOLE).await?.read_all(limit).await?)
    }

    /// Records the origins of messages that are here, and fetches and delivers the others.
    async fn take(&self, held: Vec<Held>, summary: &mut Summary) -> Result<(), ExchangeError> {
        let missing = self.known_missing.lock().unwrap_or_else(PoisonError::into_inner).clone();
        let (lacking, sighted) = self
            .office
            .with_store(move |store| {
                let (mut lacking, mut sightings) = (Vec::new(), Vec::new());
                for held in held {
                    if store.is_known(&held.origin)? {
                        continue;
                    }
                    match store.message(&held.folder, &held.digest)? {
                        Some(_) => sightings.push(sighting(held)),
                        None if missing.contains(&held.digest) => {}
                        None => lacking.push(held),
                    }
                }
                store.sight(&sightings)?;
                Ok((lacking, sightings.len() as u64))
            })
            .await?;
        summary.known_already += sighted;
        if lacking.is_empty() {
            return Ok(());
        }
        let (arrivals, delivering) = deliver_in_background(self.office.deliverer().await?);
        let fetched = self.fetch(lacking, arrivals).await;
        let (_, delivered) = delivering.await.map_err(|_| OfficeError::Panicked)?;
        // Why the deliverer stopped taking is its to say.
        let delivered = delivered?;
        summary.delivered += delivered.delivered;
        summary.known_already += delivered.known_already;
        summary.bytes += delivered.bytes;
        fetched
    }

    /// Fetches messages, several at once; those of a mebibyte and less are in memory until they are whole.
    async fn fetch(&self, lacking: Vec<Held>, arrivals: Arrivals) -> Result<(), ExchangeError> {
        let turn = Arc::new(AsyncMutex::new(arrivals));
        let room = Arc::new(Semaphore::new(FETCHING));
        let mut fetching = JoinSet::new();
        let mut outcome = Ok(());
        for held in lacking {
            let Ok(place) = room.clone().acquire_owned().await else { break };
            while let Some(ended) = fetching.try_join_next() {
                outcome = outcome.and(ended.unwrap_or(Err(OfficeError::Panicked.into())));
            }
            if outcome.is_err() {
                break;
            }
            let (session, turn, missing) = (self.session.clone(), turn.clone(), self.known_missing.clone());
            fetching.spawn(async move {
                let _place = place;
                let digest = held.digest;
                match fetch_one(&session, held, &turn).await {
                    Err(ExchangeError::Bulk(BulkError::Refused(Refusal::Missing))) => {
                        missing.lock().unwrap_or_else(PoisonError::into_inner).insert(digest);
                        Ok(())
                    }
                    fetched => fetched,
                }
            });
        }
        while let Some(ended) = fetching.join_next().await {
            outcome = outcome.and(ended.unwrap_or(Err(OfficeError::Panicked.into())));
        }
        outcome
    }
}

async fn fetch_one(session: &Session, held: Held, turn: &AsyncMutex<Arrivals>) -> Result<(), ExchangeError> {
    let wanted = Wanted::Message { folder: held.folder.clone(), digest: held.digest };
    let name = wanted.encode().ok_or(ExchangeError::NotAsked)?;
    let mut incoming = session.get(&name, Part::WHOLE).await?;
    let length = incoming.total();
    if length < 8 || length - 8 > MESSAGE_BYTES {
        return Err(ExchangeError::Another);
    }
    let stopped = |_| ExchangeError::Office(OfficeError::Panicked);
    if length <= IN_MEMORY {
        let bytes = incoming.read_all(IN_MEMORY).await?;
        let Some((received, bytes)) = bytes.split_first_chunk() else { return Err(ExchangeError::Another) };
        if MessageDigest::of(bytes) != held.digest {
            return Err(ExchangeError::Another);
        }
        let delivery = Delivery::Whole(arrival(held, *received), bytes.to_vec());
        return turn.lock().await.send(delivery).await.map_err(stopped);
    }
    let mut beginning = Vec::new();
    while beginning.len() < 8 {
        match incoming.chunk().await? {
            Some(chunk) => beginning.extend_from_slice(&chunk),
            None => return Err(ExchangeError::Another),
        }
    }
    let Some((received, rest)) = beginning.split_first_chunk() else { return Err(ExchangeError::Another) };
    let mut digesting = Digesting::default();
    digesting.update(rest);
    let digest = held.digest;
    // Its pieces must not be mixed with those of another.
    let arrivals = turn.lock().await;
    arrivals.send(Delivery::Begin(arrival(held, *received))).await.map_err(stopped)?;
    arrivals.send(Delivery::Piece(rest.to_vec())).await.map_err(stopped)?;
    let outcome = loop {
        match incoming.chunk().await {
            Ok(Some(chunk)) => {
                digesting.update(&chunk);
                arrivals.send(Delivery::Piece(chunk.to_vec())).await.map_err(stopped)?;
            }
            Ok(None) => break Ok(()),
            Err(error) => break Err(error.into()),
        }
    };
    let outcome = outcome.and(if digesting.finish() == digest { Ok(()) } else { Err(ExchangeError::Another) });
    let last = if outcome.is_ok() { Delivery::End } else { Delivery::Drop };
    arrivals.send(last).await.map_err(stopped)?;
    outcome
}

fn arrival(held: Held, received: [u8; 8]) -> Arrival {
    let Held { origin, folder, flags, .. } = held;
    let seconds = Duration::from_secs(u64::from_be_bytes(received));
    let received = SystemTime::UNIX_EPOCH.checked_add(seconds).filter(|_| !seconds.is_zero());
    Arrival { origin, folder, flags, received, path: Path::Link }
}

fn sighting(held: Held) -> Sighting {
    let Held { origin, folder, digest, flags, .. } = held;
    Sighting { origin, folder, digest, flags }
}

/// Parts of a catalogue that fit a request each.
fn parts(lacking: &UidCatalogue) -> Vec<UidCatalogue> {
    let mut parts = Vec::new();
    for (key, set) in lacking.mailboxes() {
        let (mut part, mut count, mut runs) = (UidSet::new(), 0, 0);
        let mut close = |part: &mut UidSet| parts.push(UidCatalogue::new([(key.clone(), std::mem::take(part))]));
        for (mut first, last) in set.runs() {
            while first <= last {
                let end = last.min(first.saturating_add(u32::try_from(UIDS_AT_ONCE - count - 1).unwrap_or(0)));
                part.insert_run(first, end);
                (count, runs) = (count + u64::from(end - first) + 1, runs + 1);
                if count >= UIDS_AT_ONCE || runs >= RUNS_AT_ONCE {
                    close(&mut part);
                    (count, runs) = (0, 0);
                }
                let Some(next) = end.checked_add(1) else { break };
                first = next;
            }
        }
        if !part.is_empty() {
            close(&mut part);
        }
    }
    parts
}

fn message(said: &Said) -> Vec<u8> {
    [&[CHANNEL_INBOX], said.encode().as_slice()].concat()
}

/// Why a round ended early. What had come whole is delivered, and the rest is asked for again.
#[derive(Debug, Error)]
pub(crate) enum ExchangeError {
    #[error(transparent)]
    Session(#[from] SessionError),
    #[error(transparent)]
    Bulk(#[from] BulkError),
    #[error(transparent)]
    Compare(#[from] CompareError),
    #[error("the other device sent something without meaning")]
    Malformed(#[from] WireError),
    #[error(transparent)]
    Office(#[from] OfficeError),
    #[error("the other device describes what it was not asked about")]
    NotAsked,
    #[error("the other device sent another message than it said")]
    Another,
    #[error("the other device could not compare")]
    Declined,
    #[error("the other device did not answer within {} s", ANSWER.as_secs())]
    Silent,
}

impl From<DeliverError> for ExchangeError {
    fn from(error: DeliverError) -> Self {
        Self::Office(error.into())
    }
}

/// On which channel of a session this is said.
pub(crate) const CHANNEL_INBOX: u8 = 4;

const ANSWER: Duration = Duration::from_secs(60);
const BREATH: Duration = Duration::from_millis(100);
const PAUSE: Duration = Duration::from_secs(1);

/// How many messages are fetched at once.
const FETCHING: usize = 8;

/// With a key of two long names and runs of ten bytes at most, this fits a request.
const RUNS_AT_ONCE: usize = 180;

/// Answers about a thousand messages in mailboxes with the longest names.
const DESCRIPTIONS_BYTES: u64 = 8 << 20;

/// Longer than any server takes; a message without end would fill the disk.
const MESSAGE_BYTES: u64 = 1 << 30;
const IN_MEMORY: u64 = (1 << 20) + 8;

#[cfg(test)]
mod tests;
