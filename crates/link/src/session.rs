//! One connection to a peer, for as long as it lasts: control messages in order, and bodies beside them.
//!
//! A session ends when its connection does, and messages that were not taken by then are gone.
//! Whoever sends them keeps what matters and sends it again in the next session; so nothing here is numbered,
//! acknowledged or stored.
//! The two sides of a session are alike: either sends messages and either asks for bodies.
//!
//! [`Session`] is a handle; the connection is closed when the last one is dropped.
//! A session in memory ([`Session::pair_in_memory`]) behaves as one over the network does and serves tests.

use std::fmt;
use std::sync::Arc;
use std::time::Duration;

use packetboat_core::keys::PublicKey;
use quinn::VarInt;
use thiserror::Error;
use tokio::sync::{Mutex, Semaphore, mpsc, watch};
use tokio::task::{AbortHandle, JoinSet};

use crate::bulk::{self, BulkError, Incoming, Outgoing, Part, Request};
use crate::settings::Limits;
use crate::stream::{Stream, StreamError, StreamReader, StreamWriter};

/// A connection to an authenticated peer.
#[derive(Clone)]
pub struct Session(Arc<Inner>);

struct Inner {
    peer: PublicKey,
    transport: Transport,
    limits: Limits,
    outgoing: mpsc::Sender<Vec<u8>>,
    control: Mutex<StreamReader>,
    requests: Mutex<mpsc::Receiver<Request>>,
    tasks: [AbortHandle; 2],
}

impl Session {
    /// A session over a connection on whose first stream both sides have greeted each other.
    pub(crate) fn over_quic(connection: quinn::Connection, control: Stream, peer: PublicKey, limits: Limits) -> Self {
        Self::new(Transport::Quic(connection), control, peer, limits)
    }

    /// The two ends of a session without a network; the first talks to the second's key and the other way round.
    pub fn pair_in_memory(peers: [PublicKey; 2], limits: &Limits) -> [Self; 2] {
        let (here, there) = MemoryEnd::pair(limits);
        let (control_here, control_there) = Stream::memory(limits, &here.closed.subscribe());
        [
            Self::new(Transport::Memory(here), control_here, peers[0], limits.clone()),
            Self::new(Transport::Memory(there), control_there, peers[1], limits.clone()),
        ]
    }

    fn new(transport: Transport, control: Stream, peer: PublicKey, limits: Limits) -> Self {
        let (outgoing, to_write) = mpsc::channel(QUEUED_MESSAGES);
        let (found, requests) = mpsc::channel(limits.requests.max(1) as usize);
        let writer = tokio::spawn(write_messages(transport.clone(), control.writer, to_write)).abort_handle();
        let acceptor = tokio::spawn(accept_requests(transport.clone(), limits.clone(), found)).abort_handle();
        Self(Arc::new(Inner {
            peer,
            transport,
            limits,
            outgoing,
            control: Mutex::new(control.reader),
            requests: Mutex::new(requests),
            tasks: [writer, acceptor],
        }))
    }

    /// Whose session it is.
    pub fn peer(&self) -> PublicKey {
        self.0.peer
    }

    /// Sends one message, after those sent before it; waits while the peer does not keep up.
    ///
    /// That it was sent does not mean that it arrived.
    pub async fn send(&self, message: Vec<u8>) -> Result<(), SessionError> {
        let limit = self.0.limits.message_bytes;
        if message.len() > limit {
            return Err(SessionError::TooLong { limit });
        }
        match self.0.outgoing.send(message).await {
            Ok(()) => Ok(()),
            Err(_) => Err(self.ended().await),
        }
    }

    /// The next message of the peer. Cancel-safe; one caller at a time gets each.
    ///
    /// A peer whose messages are not taken gives the session up after a while.
    pub async fn receive(&self) -> Result<Vec<u8>, SessionError> {
        let mut control = self.0.control.lock().await;
        let error = match control.frame(self.0.limits.message_bytes).await {
            Ok(Some(message)) => return Ok(message),
            Ok(None) | Err(StreamError::Lost | StreamError::Abandoned | StreamError::Stopped) => {
                return Err(self.ended().await);
            }
            Err(StreamError::Stalled) => SessionError::Stalled,
            Err(StreamError::TooLong { limit }) => SessionError::Misbehaved { limit },
        };
        self.0.transport.close(error.code());
        Err(error)
    }

    /// Asks the peer for a body, or a part of it.
    pub async fn get(&self, name: &[u8], part: Part) -> Result<Incoming, BulkError> {
        self.check_name(name)?;
        bulk::get(self.open().await?, name, part, &self.0.limits).await
    }

    /// Offers the peer a body of `length` bytes.
    pub async fn put(&self, name: &[u8], length: u64) -> Result<Outgoing, BulkError> {
        self.check_name(name)?;
        bulk::put(self.open().await?, name, length, &self.0.limits).await
    }

    /// What the peer asks next. Cancel-safe; one caller at a time gets each.
    pub async fn next_request(&self) -> Result<Request, SessionError> {
        let request = self.0.requests.lock().await.recv().await;
        match request {
            Some(request) => Ok(request),
            None => Err(self.ended().await),
        }
    }

    /// How long an answer of the peer takes to come, as far as is known.
    pub fn round_trip(&self) -> Duration {
        match &self.0.transport {
            Transport::Quic(connection) => connection.rtt(),
            Transport::Memory(_) => Duration::ZERO,
        }
    }

    /// Ends the session for both sides.
    pub fn close(&self) {
        self.0.transport.close(CLOSED);
    }

    /// Waits for the end of the session, and says why it came.
    pub async fn ended(&self) -> SessionError {
        self.0.transport.ended().await
    }

    /// Why it ended, if it has.
    pub fn end(&self) -> Option<SessionError> {
        match &self.0.transport {
            Transport::Quic(connection) => connection.close_reason().map(SessionError::from),
            Transport::Memory(end) => *end.closed.borrow(),
        }
    }

    pub(crate) fn close_with(&self, code: VarInt) {
        self.0.transport.close(code);
    }

    pub(crate) fn remote_address(&self) -> Option<std::net::SocketAddr> {
        match &self.0.transport {
            Transport::Quic(connection) => Some(connection.remote_address()),
            Transport::Memory(_) => None,
        }
    }

    fn check_name(&self, name: &[u8]) -> Result<(), BulkError> {
        let limit = self.0.limits.name_bytes;
        if name.len() > limit { Err(BulkError::NameTooLong { limit }) } else { Ok(()) }
    }

    async fn open(&self) -> Result<Stream, StreamError> {
        let limits = &self.0.limits;
        // A peer that lets nobody open a stream holds whoever asks no longer than one that does not answer.
        let opened = tokio::time::timeout(limits.answer, self.0.transport.open(limits)).await;
        opened.map_err(|_| StreamError::Stalled)?
    }
}

impl fmt::Debug for Session {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Session").field("peer", &self.0.peer).field("end", &self.end()).finish_non_exhaustive()
    }
}

impl Drop for Inner {
    fn drop(&mut self) {
        for task in &self.tasks {
            task.abort();
        }
        self.transport.close(CLOSED);
    }
}

/// Writes messages one after the other, so that whoever gives up waiting in `send` leaves no half of one behind.
async fn write_messages(transport: Transport, mut control: StreamWriter, mut messages: mpsc::Receiver<Vec<u8>>) {
    while let Some(message) = messages.recv().await {
        if let Err(error) = control.write_frame(&message).await {
            transport.close(if error == StreamError::Stalled { STALLED } else { CLOSED });
            return;
        }
    }
}

/// Reads what the streams of the peer are for; one that does not say so in time, or nonsense, is given up alone.
async fn accept_requests(transport: Transport, limits: Limits, found: mpsc::Sender<Request>) {
    let mut reading = JoinSet::new();
    loop {
        tokio::select! {
            stream = transport.accept(&limits) => {
                let Ok(stream) = stream else { return };
                let (limits, found) = (limits.clone(), found.clone());
                reading.spawn(async move {
                    match bulk::read_request(stream, &limits).await {
                        // Fails only when the session has no handles left.
                        Ok(request) => drop(found.send(request).await),
                        Err(error) => tracing::debug!(%error, "gave up a request of the peer"),
                    }
                });
            }
            Some(_) = reading.join_next() => {}
        }
    }
}

#[derive(Clone)]
enum Transport {
    Quic(quinn::Connection),
    Memory(MemoryEnd),
}

impl Transport {
    async fn open(&self, limits: &Limits) -> Result<Stream, StreamError> {
        match self {
            Self::Quic(connection) => {
                let opened = connection.open_bi().await.map_err(|_| StreamError::Lost)?;
                Ok(Stream::quic(opened, limits))
            }
            Self::Memory(end) => end.open(limits).await,
        }
    }

    async fn accept(&self, limits: &Limits) -> Result<Stream, StreamError> {
        match self {
            Self::Quic(connection) => {
                let accepted = connection.accept_bi().await.map_err(|_| StreamError::Lost)?;
                Ok(Stream::quic(accepted, limits))
            }
            Self::Memory(end) => end.accept().await,
        }
    }

    fn close(&self, code: VarInt) {
        match self {
            Self::Quic(connection) => connection.close(code, b""),
            Self::Memory(end) => {
                end.closed.send_if_modified(|closed| {
                    let first = closed.is_none();
                    closed.get_or_insert(SessionError::by_code(code));
                    first
                });
            }
        }
    }

    async fn ended(&self) -> SessionError {
        match self {
            Self::Quic(connection) => connection.closed().await.into(),
            Self::Memory(end) => {
                let mut closed = end.closed.subscribe();
                let ended = closed.wait_for(Option::is_some).await;
                ended.ok().and_then(|error| *error).unwrap_or(SessionError::Closed)
            }
        }
    }
}

/// One side of a session in memory.
#[derive(Clone)]
struct MemoryEnd {
    to_peer: mpsc::UnboundedSender<Stream>,
    from_peer: Arc<Mutex<mpsc::UnboundedReceiver<Stream>>>,
    closed: Arc<watch::Sender<Option<SessionError>>>,
    /// Permits for the streams that this side may have open and unread at the peer.
    room: Arc<Semaphore>,
}

impl MemoryEnd {
    fn pair(limits: &Limits) -> (Self, Self) {
        let ((to_there, at_there), (to_here, at_here)) = (mpsc::unbounded_channel(), mpsc::unbounded_channel());
        let closed = Arc::new(watch::Sender::new(None));
        let end = |to_peer, from_peer| Self {
            to_peer,
            from_peer: Arc::new(Mutex::new(from_peer)),
            closed: closed.clone(),
            room: Arc::new(Semaphore::new(limits.requests as usize)),
        };
        (end(to_there, at_here), end(to_here, at_there))
    }

    async fn open(&self, limits: &Limits) -> Result<Stream, StreamError> {
        let permit = self.room.clone().acquire_owned().await.map_err(|_| StreamError::Lost)?;
        if self.closed.borrow().is_some() {
            return Err(StreamError::Lost);
        }
        let (here, there) = Stream::memory(limits, &self.closed.subscribe());
        self.to_peer.send(there).map_err(|_| StreamError::Lost)?;
        Ok(here.holding(permit))
    }

    async fn accept(&self) -> Result<Stream, StreamError> {
        let mut from_peer = self.from_peer.lock().await;
        let mut closed = self.closed.subscribe();
        tokio::select! {
            stream = from_peer.recv() => stream.ok_or(StreamError::Lost),
            _ = closed.wait_for(Option::is_some) => Err(StreamError::Lost),
        }
    }
}

/// Why a session is over, or does not take a message.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Error)]
pub enum SessionError {
    /// One side ended it.
    #[error("the session was closed")]
    Closed,
    /// Nothing came from the peer for too long, or the network failed.
    #[error("the connection was lost")]
    Lost,
    /// Another connection between the two took its place.
    #[error("another connection took the place of this one")]
    Superseded,
    /// The peer began a message and did not go on, or takes none.
    #[error("the peer makes no progress")]
    Stalled,
    /// The peer sent what no peer of ours sends; the session was closed.
    #[error("the peer announced a message of more than {limit} bytes")]
    Misbehaved {
        /// Longest message in bytes.
        limit: usize,
    },
    /// The peer does not know this device's key.
    #[error("the peer refuses this device's key; pair the two again")]
    NotPaired,
    /// The peer found fault with what this device sent.
    #[error("the peer found an error in the protocol")]
    Protocol,
    /// The message is longer than a peer takes; the session goes on.
    #[error("a message is longer than {limit} bytes")]
    TooLong {
        /// Longest message in bytes.
        limit: usize,
    },
}

impl SessionError {
    fn code(self) -> VarInt {
        match self {
            Self::Stalled => STALLED,
            Self::Misbehaved { .. } => MISBEHAVED,
            _ => CLOSED,
        }
    }

    fn by_code(code: VarInt) -> Self {
        match code {
            SUPERSEDED => Self::Superseded,
            MISBEHAVED => Self::Protocol,
            STALLED => Self::Stalled,
            NOT_PAIRED => Self::NotPaired,
            _ => Self::Closed,
        }
    }
}

impl From<quinn::ConnectionError> for SessionError {
    fn from(error: quinn::ConnectionError) -> Self {
        use quinn::ConnectionError as Error;
        match error {
            Error::ApplicationClosed(close) => Self::by_code(close.error_code),
            Error::ConnectionClosed(close) if close.error_code == access_denied() => Self::NotPaired,
            Error::ConnectionClosed(_) | Error::TransportError(_) | Error::VersionMismatch => Self::Protocol,
            Error::LocallyClosed => Self::Closed,
            Error::Reset | Error::TimedOut | Error::CidsExhausted => Self::Lost,
        }
    }
}

/// The alert by which TLS says that a key is not the expected one.
pub(crate) fn access_denied() -> quinn::TransportErrorCode {
    quinn::TransportErrorCode::crypto(49)
}

/// Messages that wait to be written before `send` waits too.
const QUEUED_MESSAGES: usize = 16;

// Why a connection is closed; part of the protocol.
pub(crate) const CLOSED: VarInt = VarInt::from_u32(0);
pub(crate) const SUPERSEDED: VarInt = VarInt::from_u32(1);
pub(crate) const MISBEHAVED: VarInt = VarInt::from_u32(2);
pub(crate) const STALLED: VarInt = VarInt::from_u32(3);
pub(crate) const NOT_PAIRED: VarInt = VarInt::from_u32(4);
