//! The task behind a [`Link`](crate::link::Link): what comes in, what is dialled, and which of it is the session.
//!
//! One loop owns all of the state, so no two events race. What takes time (dialling, greeting, waiting for the
//! arbiter) runs beside it and ends as an event of the loop; decisions are made in the loop alone.

use std::sync::Arc;
use std::time::Duration;

use packetboat_core::keys::PublicKey;
use tokio::sync::{mpsc, watch};
use tokio::task::{AbortHandle, JoinSet};
use tokio::time::{Instant, sleep_until};

use crate::arbiter::{self, Standing};
use crate::backoff::Backoff;
use crate::dial::{DialError, dial};
use crate::endpoint::Shared;
use crate::greeting::{self, Greeting, GreetingError, Incarnation};
use crate::link::{Control, Down, DownError, State, Up};
use crate::session::{CLOSED, MISBEHAVED, SUPERSEDED, Session, SessionError};
use crate::stream::Stream;

/// Keeps one link up.
pub(crate) struct Driver {
    shared: Arc<Shared>,
    key: PublicKey,
    control: Arc<Control>,
    publish: watch::Sender<State>,
    arbiter: bool,
    backoff: Backoff,
    /// Sessions so far.
    serial: u64,
    /// Where this device is the arbiter: connections accepted so far, and the standing one.
    number: u64,
    standing: Option<Standing>,
    /// Where the peer is: the last connection that it accepted.
    accepted: (Incarnation, u64),
    /// What runs beside the loop.
    work: JoinSet<Event>,
    dialling: Option<AbortHandle>,
    next_dial: Option<Instant>,
}

/// What ended beside the loop.
enum Event {
    Dialled(Result<quinn::Connection, DialError>),
    Greeted {
        candidate: Candidate,
        outcome: Result<(Stream, Greeting), GreetingError>,
    },
    /// The arbiter's word, at the device that follows.
    Judged {
        candidate: Candidate,
        stream: Stream,
        peer: Incarnation,
        outcome: Result<u64, GreetingError>,
    },
}

/// A connection that may become the session.
struct Candidate {
    connection: quinn::Connection,
    dialled: bool,
}

impl Driver {
    pub(crate) fn new(
        shared: Arc<Shared>,
        key: PublicKey,
        control: Arc<Control>,
        publish: watch::Sender<State>,
    ) -> Self {
        let settings = &shared.settings;
        // Both ends of a pair, and each run of either, draw other waits.
        let own = shared.identity.public();
        let seed = blake3::Hasher::new_derive_key("packetboat 2026 link: backoff")
            .update(&shared.incarnation.0)
            .update(&own.0)
            .update(&key.0)
            .finalize();
        Self {
            backoff: Backoff::new(settings.retry_first, settings.retry_greatest, *seed.as_bytes()),
            arbiter: arbiter::is_arbiter(&own, &key),
            next_dial: Some(Instant::now()),
            shared,
            key,
            control,
            publish,
            serial: 0,
            number: 0,
            standing: None,
            accepted: Default::default(),
            work: JoinSet::new(),
            dialling: None,
        }
    }

    pub(crate) async fn run(mut self, mut connections: mpsc::Receiver<quinn::Connection>) {
        loop {
            let session = self.session();
            let next_dial = self.next_dial;
            tokio::select! {
                connection = connections.recv() => match connection {
                    Some(connection) => self.greet(Candidate { connection, dialled: false }),
                    None => return,
                },
                Some(event) = self.work.join_next() => match event {
                    Ok(event) => self.handle(event).await,
                    // Given up because a session stands.
                    Err(_aborted) => {}
                },
                error = ended(session.as_ref()) => self.lost(error),
                () = due(next_dial) => self.dial(),
                () = self.control.dial_now.notified() => {
                    if session.is_none() && self.dialling.is_none() {
                        self.dial();
                    }
                }
            }
        }
    }

    fn session(&self) -> Option<Session> {
        self.publish.borrow().standing.as_ref().ok().map(|up| up.session.clone())
    }

    fn dial(&mut self) {
        self.next_dial = None;
        self.publish_down(|down| down.next_try = None);
        let (shared, key) = (self.shared.clone(), self.key);
        let addresses = self.control.addresses.borrow().clone();
        self.dialling = Some(self.work.spawn(async move { Event::Dialled(dial(&shared, key, &addresses).await) }));
    }

    fn greet(&mut self, candidate: Candidate) {
        // One that connects again and again and never greets takes the place of its own connections alone.
        if !candidate.dialled && self.work.len() >= GREATEST_WORK {
            candidate.connection.close(CLOSED, b"");
            return;
        }
        let own = Greeting { incarnation: self.shared.incarnation, accepted: self.accepted };
        let settings = self.shared.settings.clone();
        let dialled = candidate.dialled;
        let greeting = self.work.spawn(async move {
            let outcome =
                greeting::exchange(&candidate.connection, dialled, own, &settings.limits, settings.greeting).await;
            Event::Greeted { candidate, outcome }
        });
        if dialled {
            self.dialling = Some(greeting);
        }
    }

    async fn handle(&mut self, event: Event) {
        match event {
            Event::Dialled(Ok(connection)) => self.greet(Candidate { connection, dialled: true }),
            Event::Dialled(Err(error)) => self.failed(error),
            Event::Greeted { candidate, outcome: Ok((stream, peer)) } => {
                if self.arbiter {
                    self.judge(candidate, stream, peer).await;
                } else {
                    self.await_judgement(candidate, stream, peer.incarnation);
                }
            }
            Event::Judged { candidate, stream, peer, outcome: Ok(number) } => {
                // Two words of the arbiter may be read in another order than they were said.
                if self.accepted.0 == peer && number <= self.accepted.1 {
                    candidate.connection.close(SUPERSEDED, b"");
                } else {
                    self.accepted = (peer, number);
                    self.up(candidate.connection, stream);
                }
            }
            Event::Greeted { candidate, outcome: Err(error) }
            | Event::Judged { candidate, outcome: Err(error), .. } => self.not_taken(&candidate, &error),
        }
    }

    async fn judge(&mut self, candidate: Candidate, mut stream: Stream, peer: Greeting) {
        if !arbiter::takes_over(self.shared.incarnation, self.standing, candidate.dialled, &peer) {
            candidate.connection.close(SUPERSEDED, b"");
            if candidate.dialled {
                self.dialling = None;
            }
            return;
        }
        self.number += 1;
        // A few bytes on a fresh stream: they are taken at once or the connection is gone.
        match greeting::accept(&mut stream, self.number).await {
            Ok(()) => {
                self.standing = Some(Standing { number: self.number, peer: peer.incarnation });
                self.up(candidate.connection, stream);
            }
            Err(error) => self.not_taken(&candidate, &error),
        }
    }

    fn await_judgement(&mut self, candidate: Candidate, mut stream: Stream, peer: Incarnation) {
        let (deadline, dialled) = (self.shared.settings.greeting, candidate.dialled);
        let waiting = self.work.spawn(async move {
            let outcome = greeting::accepted(&mut stream, deadline).await;
            Event::Judged { candidate, stream, peer, outcome }
        });
        if dialled {
            self.dialling = Some(waiting);
        }
    }

    fn up(&mut self, connection: quinn::Connection, stream: Stream) {
        if let Some(before) = self.session() {
            before.close_with(SUPERSEDED);
        }
        // A dial that goes on would only be told that it is one too many.
        if let Some(dialling) = self.dialling.take() {
            dialling.abort();
        }
        self.next_dial = None;
        self.backoff.succeed();
        self.serial += 1;
        let remote = connection.remote_address();
        let session = Session::over_quic(connection, stream, self.key, self.shared.settings.limits.clone());
        tracing::info!(peer = %self.key.device().short(), %remote, "link up");
        let up = Up { session, serial: self.serial, since: Instant::now() };
        self.publish.send_modify(|state| state.standing = Ok(up));
    }

    fn lost(&mut self, error: SessionError) {
        tracing::info!(peer = %self.key.device().short(), %error, "link down");
        self.standing = None;
        let (now, wait) = (Instant::now(), self.backoff.fail());
        self.publish.send_modify(|state| {
            state.last_up = Some(now);
            state.standing = Err(Down { since: now, error: Some(DownError::Ended(error)), tries: 0, next_try: None });
        });
        self.dial_after(now, wait);
    }

    /// A connection stood and came to nothing.
    fn not_taken(&mut self, candidate: &Candidate, error: &GreetingError) {
        let closed = candidate.connection.close_reason().map(SessionError::from);
        let code = if matches!(error, GreetingError::Malformed(_)) { MISBEHAVED } else { CLOSED };
        candidate.connection.close(code, b"");
        if candidate.dialled {
            self.failed(if closed == Some(SessionError::NotPaired) {
                DialError::NotPaired
            } else {
                DialError::NotTaken
            });
        }
    }

    fn failed(&mut self, error: DialError) {
        self.dialling = None;
        if self.session().is_some() {
            return;
        }
        tracing::debug!(peer = %self.key.device().short(), %error, "could not connect");
        let (now, wait) = (Instant::now(), self.backoff.fail());
        self.publish_down(|down| {
            down.tries = down.tries.saturating_add(1);
            down.error = Some(DownError::Dial(error));
        });
        self.dial_after(now, wait);
    }

    fn dial_after(&mut self, now: Instant, wait: Duration) {
        self.next_dial = Some(now + wait);
        self.publish_down(|down| down.next_try = Some(now + wait));
    }

    fn publish_down(&self, change: impl FnOnce(&mut Down)) {
        self.publish.send_if_modified(|state| match &mut state.standing {
            Err(down) => {
                change(down);
                true
            }
            Ok(_) => false,
        });
    }
}

async fn ended(session: Option<&Session>) -> SessionError {
    match session {
        Some(session) => session.ended().await,
        None => std::future::pending().await,
    }
}

async fn due(at: Option<Instant>) {
    match at {
        Some(at) => sleep_until(at).await,
        None => std::future::pending().await,
    }
}

/// What may run beside the loop before connections that come in are turned away.
const GREATEST_WORK: usize = 8;
