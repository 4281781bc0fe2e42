//! The outbox's side of the link: what the two devices say to each other, and the bodies that travel beside it.
//!
//! ```text
//! message   channel u8, then what belongs to it
//!           1  a frame of `packetboat_core::delivery`
//!           2  this device's wall clock in milliseconds since 1970, 8 bytes big-endian; said first in each session
//!           3  the host's accounts for its companion (accounts.rs)
//!           4  a comparison of what the two have of mail in (`inbox::exchange`)
//!           5  a word about ending the pair (parting.rs)
//! body      get `mail/` and the mail's id, 16 bytes: the companion fetches a copy from its host
//!           get `inbox/` and more: what either lacks of mail in
//!           get or put `store/` and a request: the host asks its companion about a vault (relay/message.rs)
//! ```
//!
//! What cannot be sent is dropped: the machines say everything again that was not answered. A body that was cut short or
//! is another one than its hash says is dropped likewise, and the host's next copy message begins it anew.

use std::collections::HashSet;
use std::io::Read;
use std::path::PathBuf;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, MutexGuard};
use std::time::Duration;

use packetboat_core::delivery::{Body as Said, Event, Frame, Message};
use packetboat_core::ids::MailId;
use packetboat_link::{BulkError, GetRequest, Part, Refusal, Request, Session};
use tokio::sync::{Semaphore, mpsc, watch};
use tokio::task::JoinSet;

use crate::clock::Clock;
use crate::files::with_causes;
use crate::inbox::exchange::{CHANNEL_INBOX, Exchange};
use crate::inbox::is_asked;
use crate::outbox::body::BodyDraft;
use crate::outbox::courier::Courier;
use crate::outbox::desk::Input;
use crate::outbox::store::Reader;
use crate::pair::Role;
use crate::parting::{CHANNEL_PARTING, Word};
use crate::relay::answer::Answerer;

/// What the outbox says over the link, and what it fetches.
#[derive(Clone)]
pub struct PeerSender {
    frames: mpsc::Sender<Frame>,
    fetches: mpsc::Sender<Message>,
    up: Arc<AtomicBool>,
}

/// The outbox's side of the link, session after session.
pub struct Peer {
    courier: Courier,
    reader: Arc<Mutex<Reader>>,
    bodies: PathBuf,
    role: Role,
    clock: Arc<dyn Clock>,
    frames: mpsc::Receiver<Frame>,
    fetches: mpsc::Receiver<Message>,
    /// Whether somebody takes what is to be sent.
    up: Arc<AtomicBool>,
    skew: watch::Sender<Option<i64>>,
    accounts: watch::Receiver<Option<Arc<Vec<u8>>>>,
    got_accounts: mpsc::Sender<Vec<u8>>,
    inbox: Arc<Exchange>,
    carries: Option<Answerer>,
    parting: mpsc::Sender<Word>,
}

/// What a [`Peer`] is made of.
pub struct PeerParts {
    /// Where what is heard goes.
    pub courier: Courier,
    /// Where bodies are read.
    pub reader: Reader,
    /// Where bodies of copies are written.
    pub bodies: PathBuf,
    /// What this device is in the pair.
    pub role: Role,
    /// Tells the other side how late it is here.
    pub clock: Arc<dyn Clock>,
    /// On a host: what its companion is to send by, encoded.
    pub accounts: watch::Receiver<Option<Arc<Vec<u8>>>>,
    /// On a companion: where that goes.
    pub got_accounts: mpsc::Sender<Vec<u8>>,
    /// Compares mail in.
    pub inbox: Arc<Exchange>,
    /// On a companion: answers what is asked about vaults.
    pub carries: Option<Answerer>,
    /// Where words about ending the pair go.
    pub parting: mpsc::Sender<Word>,
}

impl Peer {
    /// A side of a link, and how things are said over it. The last is how far the other's clock is ahead, once known.
    pub fn new(parts: PeerParts) -> (Self, PeerSender, watch::Receiver<Option<i64>>) {
        let (frames_in, frames) = mpsc::channel(FRAMES);
        let (fetches_in, fetches) = mpsc::channel(FETCHES);
        let (skew, skews) = watch::channel(None);
        let PeerParts { courier, reader, bodies, role, clock, accounts, got_accounts, inbox, carries, parting } = parts;
        let reader = Arc::new(Mutex::new(reader));
        let up = Arc::new(AtomicBool::new(false));
        let peer = Self {
            courier,
            reader,
            bodies,
            role,
            clock,
            frames,
            fetches,
            up: up.clone(),
            skew,
            accounts,
            got_accounts,
            inbox,
            carries,
            parting,
        };
        (peer, PeerSender { frames: frames_in, fetches: fetches_in, up }, skews)
    }

    /// Serves one session until it ends.
    pub async fn serve(&mut self, session: Session) {
        // What was meant for an earlier session is said again by the machines when they hear of this one.
        while self.frames.try_recv().is_ok() {}
        while self.fetches.try_recv().is_ok() {}
        let mut hello = vec![CHANNEL_CLOCK];
        hello.extend_from_slice(&self.clock.now().wall_ms.to_be_bytes());
        if session.send(hello).await.is_err() {
            return;
        }
        self.up.store(true, Ordering::Release);
        self.courier.tell(Input::HappenedToAll(Event::LinkUp)).await;
        let mut tasks = JoinSet::new();
        let (tell_inbox, heard) = mpsc::channel(INBOX_MESSAGES);
        tasks.spawn(hear(
            session.clone(),
            self.courier.clone(),
            self.clock.clone(),
            self.skew.clone(),
            self.got_accounts.clone(),
            tell_inbox,
            self.parting.clone(),
        ));
        tasks.spawn(self.inbox.clone().serve(session.clone(), heard));
        tasks.spawn(answer(session.clone(), self.reader.clone(), self.role, self.inbox.clone(), self.carries.clone()));
        let fetching = Arc::new(Fetching {
            session: session.clone(),
            courier: self.courier.clone(),
            bodies: self.bodies.clone(),
            room: Semaphore::new(FETCHING),
            under_way: Mutex::default(),
        });
        self.accounts.mark_changed();
        loop {
            tokio::select! {
                _ = session.ended() => break,
                Some(frame) = self.frames.recv() => {
                    let mut message = vec![CHANNEL_DELIVERY];
                    message.extend_from_slice(&frame.encode());
                    if let Err(error) = session.send(message).await {
                        tracing::debug!(%error, "a message was not sent");
                    }
                }
                Some(message) = self.fetches.recv() => {
                    tasks.spawn(fetching.clone().fetch(message));
                }
                Ok(()) = self.accounts.changed(), if self.role == Role::Host => {
                    let accounts = self.accounts.borrow_and_update().clone();
                    if let Some(accounts) = accounts {
                        let message = [&[CHANNEL_ACCOUNTS], accounts.as_slice()].concat();
                        let _again_with_the_next_session = session.send(message).await;
                    }
                }
                Some(_) = tasks.join_next() => {}
            }
        }
        self.up.store(false, Ordering::Release);
        tasks.shutdown().await;
        self.courier.tell(Input::HappenedToAll(Event::LinkDown)).await;
    }
}

impl PeerSender {
    /// Says something; where there is no room, the machines say it again later.
    pub fn say(&self, frame: Frame) {
        if self.up.load(Ordering::Acquire) {
            let _again_later = self.frames.try_send(frame);
        }
    }

    /// Fetches the body of a copy.
    pub fn fetch(&self, message: Message) {
        let _again_later = self.fetches.try_send(message);
    }

    /// Whether many messages at once would find room.
    pub fn has_room(&self) -> bool {
        // While there is no session nothing is kept, and what waits in vain must hold up nobody.
        !self.up.load(Ordering::Acquire) || self.frames.capacity() > FRAMES / 2
    }
}

async fn hear(
    session: Session,
    courier: Courier,
    clock: Arc<dyn Clock>,
    skew: watch::Sender<Option<i64>>,
    got_accounts: mpsc::Sender<Vec<u8>>,
    tell_inbox: mpsc::Sender<Vec<u8>>,
    parting: mpsc::Sender<Word>,
) {
    while let Ok(message) = session.receive().await {
        match message.split_first() {
            Some((&CHANNEL_DELIVERY, frame)) => match Frame::decode(frame) {
                Ok(frame) => {
                    tracing::debug!(?frame, "heard");
                    courier.heard(frame).await;
                }
                Err(error) => {
                    // A paired device that speaks nonsense is broken or of another version; either way it may recover.
                    tracing::warn!(%error, "the other device said something without meaning");
                }
            },
            Some((&CHANNEL_CLOCK, time)) => {
                if let Ok(time) = <[u8; 8]>::try_from(time) {
                    let theirs = i64::try_from(u64::from_be_bytes(time)).unwrap_or(i64::MAX);
                    let ours = i64::try_from(clock.now().wall_ms).unwrap_or(i64::MAX);
                    let ahead = theirs.saturating_sub(ours);
                    if ahead.unsigned_abs() > CLOCKS_APART_MS {
                        tracing::warn!(ahead_seconds = ahead / 1000, "the other device's clock is far from this one's");
                    }
                    skew.send_replace(Some(ahead));
                }
            }
            Some((&CHANNEL_ACCOUNTS, accounts)) => {
                let _stopped = got_accounts.send(accounts.to_vec()).await;
            }
            Some((&CHANNEL_INBOX, said)) => {
                // A peer that says more than can be taken loses it; mails that go out do not wait for mail that comes in.
                let _lost = tell_inbox.try_send(said.to_vec());
            }
            Some((&CHANNEL_PARTING, word)) => {
                if let Some(word) = Word::decode(word) {
                    let _stopped = parting.send(word).await;
                }
            }
            _ => tracing::debug!("the other device said something that is not known here"),
        }
    }
}

/// Gives the other device the bodies it asks for, and a host what it asks of vaults.
async fn answer(
    session: Session,
    reader: Arc<Mutex<Reader>>,
    role: Role,
    inbox: Arc<Exchange>,
    carries: Option<Answerer>,
) {
    let mut giving = JoinSet::new();
    loop {
        tokio::select! {
            request = session.next_request() => match request {
                Ok(request) if Answerer::is_for(name_of(&request)) && carries.is_some() => {
                    let carries = carries.clone();
                    giving.spawn(async move {
                        let Some(carries) = carries else { return };
                        if let Err(error) = carries.serve(request).await {
                            tracing::debug!(%error, "a request about a vault was not answered to the end");
                        }
                    });
                }
                Ok(Request::Get(request)) => {
                    let (reader, inbox) = (reader.clone(), inbox.clone());
                    giving.spawn(async move {
                        let given = match is_asked(&request.name) {
                            true => inbox.give(request).await,
                            false => give(request, reader, role).await,
                        };
                        if let Err(error) = given {
                            tracing::debug!(%error, "a body was not given to the end");
                        }
                    });
                }
                Ok(Request::Put(request)) => {
                    giving.spawn(async move {
                        let _gone = request.refuse(Refusal::Unwanted("bodies are fetched".to_owned())).await;
                    });
                }
                Err(_) => return,
            },
            Some(_) = giving.join_next() => {}
        }
    }
}

fn name_of(request: &Request) -> &[u8] {
    match request {
        Request::Get(request) => &request.name,
        Request::Put(request) => &request.name,
    }
}

async fn give(request: GetRequest, reader: Arc<Mutex<Reader>>, role: Role) -> Result<(), BulkError> {
    let mail = request.name.strip_prefix(BODY_NAME).and_then(MailId::from_slice);
    // Only a host gives, and only what it copies; what a companion keeps is nobody else's.
    let Some(mail) = mail.filter(|_| role == Role::Host) else { return request.refuse(Refusal::Missing).await };
    let part = request.part;
    let found = tokio::task::spawn_blocking(move || {
        let reader = lock(&reader);
        let machine = reader.machine(&mail)?;
        let body = reader.body(&mail)?;
        Ok::<_, crate::outbox::store::StoreError>(machine.zip(body))
    });
    let (machine, mut body) = match found.await {
        Ok(Ok(Some(found))) => found,
        Ok(Ok(None)) => return request.refuse(Refusal::Missing).await,
        Ok(Err(error)) => return request.refuse(Refusal::Failed(with_causes(&error))).await,
        Err(error) => return request.refuse(Refusal::Failed(error.to_string())).await,
    };
    if part != Part::WHOLE {
        return request.refuse(Refusal::Unwanted("bodies are given whole".to_owned())).await;
    }
    let mut outgoing = request.accept(machine.item().size_bytes()).await?;
    loop {
        let mut piece = vec![0; PIECE];
        // A failing disk cuts the body short, which its receiver sees.
        let count = body.read(&mut piece).unwrap_or(0);
        if count == 0 {
            return outgoing.finish().await;
        }
        piece.truncate(count);
        outgoing.write(piece).await?;
    }
}

/// The copies that are being fetched in a session.
struct Fetching {
    session: Session,
    courier: Courier,
    bodies: PathBuf,
    room: Semaphore,
    under_way: Mutex<HashSet<MailId>>,
}

impl Fetching {
    async fn fetch(self: Arc<Self>, message: Message) {
        let mail = message.mail;
        // The host asks again while the body is under way.
        if !lock(&self.under_way).insert(mail) {
            return;
        }
        match self.fetch_body(&message).await {
            Ok(body) => self.courier.tell(Input::Copied { message, body }).await,
            Err(why) => tracing::debug!(%mail, why, "a copy was not fetched"),
        }
        lock(&self.under_way).remove(&mail);
    }

    async fn fetch_body(&self, message: &Message) -> Result<crate::outbox::body::Body, String> {
        let Said::Copy(item) = &message.body else { return Err("not a copy".to_owned()) };
        let _place = self.room.acquire().await.map_err(|error| error.to_string())?;
        let name = [BODY_NAME, message.mail.as_bytes()].concat();
        let mut incoming = self.session.get(&name, Part::WHOLE).await.map_err(|error| with_causes(&error))?;
        if incoming.total() != item.size_bytes() {
            return Err("the body has another size than was said".to_owned());
        }
        let mut draft = BodyDraft::new(&self.bodies, message.mail);
        while let Some(chunk) = incoming.chunk().await.map_err(|error| with_causes(&error))? {
            draft.write(&chunk).map_err(|error| error.to_string())?;
        }
        let finished = tokio::task::spawn_blocking(move || draft.finish()).await.map_err(|error| error.to_string())?;
        let body = finished.map_err(|error| error.to_string())?;
        if body.hash == item.body() { Ok(body) } else { Err("the body is another one than was said".to_owned()) }
    }
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(|poisoned| poisoned.into_inner())
}

const CHANNEL_DELIVERY: u8 = 1;
const CHANNEL_CLOCK: u8 = 2;
const CHANNEL_ACCOUNTS: u8 = 3;

const BODY_NAME: &[u8] = b"mail/";

/// How many messages may wait to be sent; a sweep stops at half of it.
const FRAMES: usize = 2048;
const FETCHES: usize = 2048;

/// How many messages about mail in may wait; the two say few at a time.
const INBOX_MESSAGES: usize = 64;

/// How many bodies are fetched at once.
const FETCHING: usize = 8;

const PIECE: usize = 64 << 10;

/// From when on two clocks are worth a warning.
pub const CLOCKS_APART_MS: u64 = 24 * 3600 * 1000;

/// How long a device that stops waits for its companion to take what is handed over.
pub const HAND_OVER_PATIENCE: Duration = Duration::from_secs(5);
