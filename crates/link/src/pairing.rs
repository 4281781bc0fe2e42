//! Making a pair: two devices that know nothing of each other, and people who compare six digits on two screens.
//!
//! ```text
//! dialler                                            listener
//!   hello      0x01 | version u8             ->
//!                                            <-        commit   0x02 | commitment 32
//!   offer      0x03 | nonce 32 | introduction ->
//!                                            <-        open     0x04 | nonce 32 | introduction
//!              both screens show the same code, and both people say so
//!   agree      0x05 | transcript 32          <->       (or refuse 0x06)
//!                                            <-        paired   0x07
//!
//! commitment   hash of: exporter, listener's nonce and introduction
//! transcript   hash of: exporter, dialler's key, listener's key, commitment, offer, open
//! code         six digits of the transcript
//! exporter     32 bytes that only the two ends of this one TLS connection know (RFC 8446, 7.5)
//! ```
//!
//! The connection is encrypted to whoever is there; the code tells whether that is the device on the other table. It
//! depends on both keys and on the connection, so someone in between makes two connections with two codes.
//! The listener is bound to its part before it sees the other's, and the dialler sends its part blindly, so nobody
//! can choose a part that makes the codes agree: one attempt succeeds by luck, one in a million. It is the listener
//! who commits because it is the one that anyone can dial again and again: it knows the code as soon as a dialler's
//! part is there, so every guess shows on its screen, and after a few it hears nobody any more.
//! Why not a password-authenticated exchange is in `docs/design/0013-pairing.md`.

mod messages;
mod talk;

use std::fmt;
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use packetboat_core::keys::PublicKey;
use packetboat_core::wire::WireError;
use quinn::{EndpointConfig, TokioRuntime, VarInt};
use thiserror::Error;
use tokio::task::JoinSet;
use tokio::time::{Instant, timeout};

#[cfg(feature = "fuzzing")]
pub(crate) use messages::fuzz as fuzz_messages;
pub use messages::{Introduction, IntroductionError, Role};
use messages::{Message, Transcript};
use talk::Talk;

use crate::endpoint::SERVER_NAME;
use crate::identity::Identity;
use crate::session::CLOSED;
use crate::settings::{Local, Settings};
use crate::socket::{self, BindError};
use crate::stream::{Stream, StreamError};
use crate::tls::{self, Trust};

/// What both devices know of each other once they are a pair.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Pair {
    /// Names the pair on both devices; random.
    pub id: PairId,
    /// The other device's key.
    pub key: PublicKey,
    /// What it says of itself.
    pub introduction: Introduction,
}

/// Names a pair.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug)]
pub struct PairId(pub [u8; 16]);

/// What both screens show.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Code(u32);

impl Code {
    /// Reads a code as it is shown; spaces and hyphens do not count.
    pub fn parse(text: &str) -> Option<Self> {
        let digits: String = text.chars().filter(|character| !matches!(character, ' ' | '-')).collect();
        let well_formed = digits.len() == 6 && digits.bytes().all(|digit| digit.is_ascii_digit());
        if well_formed { digits.parse().ok().map(Self) } else { None }
    }
}

impl fmt::Display for Code {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:03} {:03}", self.0 / 1000, self.0 % 1000)
    }
}

/// Waits for the device to be paired with.
pub struct PairingListener {
    identity: Identity,
    introduction: Introduction,
    settings: Settings,
    endpoints: Vec<quinn::Endpoint>,
    arriving: JoinSet<(quinn::Endpoint, Option<quinn::Incoming>)>,
    attempts: u32,
}

impl PairingListener {
    /// Listens at local addresses; call it within a tokio runtime.
    pub fn bind(
        identity: Identity,
        locals: &[Local],
        introduction: Introduction,
        settings: Settings,
    ) -> Result<Self, BindError> {
        let server = || {
            let mut config = quinn::ServerConfig::with_crypto(tls::server(&identity, Trust::Anyone, PAIRING_PROTOCOL));
            config.transport_config(settings.transport()).max_incoming(WAITING);
            config
        };
        let endpoints: Vec<_> = locals.iter().map(|local| endpoint(local, Some(server()))).collect::<Result<_, _>>()?;
        let mut arriving = JoinSet::new();
        for endpoint in endpoints.iter().cloned() {
            arriving.spawn(arrival(endpoint));
        }
        Ok(Self { identity, introduction, settings, endpoints, arriving, attempts: 0 })
    }

    /// Where a companion finds this device.
    pub fn addresses(&self) -> Vec<SocketAddr> {
        self.endpoints.iter().filter_map(|endpoint| endpoint.local_addr().ok()).collect()
    }

    /// Waits for someone to propose a pair. `random` is new for each call and known to nobody.
    ///
    /// Whoever connects and does not go on is passed over. Each proposal counts as an attempt to guess a code.
    pub async fn next(&mut self, random: [u8; 32]) -> Result<Proposal, PairingError> {
        while let Some(arrived) = self.arriving.join_next().await {
            let Ok((endpoint, Some(incoming))) = arrived else { continue };
            self.arriving.spawn(arrival(endpoint));
            if self.attempts == ATTEMPTS {
                incoming.refuse();
                return Err(PairingError::TooManyAttempts);
            }
            let shaken = async { incoming.accept()?.await };
            let Ok(Ok(connection)) = timeout(self.settings.greeting, shaken).await else { continue };
            // An answer of ours is spent on whoever got one, so a nonce is for one connection only.
            let nonce = *blake3::Hasher::new_keyed(&random).update(&exporter(&connection)?).finalize().as_bytes();
            match self.answer(connection, nonce).await {
                Ok(proposal) => {
                    self.attempts += 1;
                    return Ok(proposal);
                }
                Err(error @ (PairingError::Oneself | PairingError::SameRole(_))) => {
                    return Err(error);
                }
                Err(error) => tracing::debug!(%error, "a pairing came to nothing"),
            }
        }
        Err(PairingError::Connection)
    }

    async fn answer(&self, connection: quinn::Connection, nonce: [u8; 32]) -> Result<Proposal, PairingError> {
        let own = self.identity.public();
        let peer = other(&connection, &own)?;
        let opened = timeout(self.settings.greeting, connection.accept_bi()).await;
        let opened = opened.map_err(|_| StreamError::Stalled)?.map_err(|_| StreamError::Lost)?;
        let mut talk = Talk::new(connection, Stream::quic(opened, &self.settings.limits), &self.settings);
        Message::expect_hello(&talk.receive().await?)?;
        let exporter = exporter(&talk.connection)?;
        let open = Message::Open { nonce, introduction: self.introduction.clone() }.encode();
        let commitment = messages::commitment(&exporter, &open);
        talk.send(&Message::Commit { commitment }.encode()).await?;
        let offer = talk.receive().await?;
        let introduction = Message::expect_offer(&offer)?;
        talk.send(&open).await?;
        if let Err(error) = self.introduction.check_role(&introduction) {
            // The dialler finds the same and leaves; to close first could keep it from hearing why.
            let _left = timeout(talk.step, talk.connection.closed()).await;
            return Err(error);
        }
        let transcript = Transcript::new(&exporter, &peer, &own, &commitment, &offer, &open);
        Ok(Proposal { talk, transcript, peer, introduction, listener: true })
    }
}

impl fmt::Debug for PairingListener {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("PairingListener").field("addresses", &self.addresses()).finish_non_exhaustive()
    }
}

/// Proposes a pair to the device at one of these addresses. `random` is new for each call and known to nobody.
pub async fn propose(
    identity: &Identity,
    locals: &[Local],
    addresses: &[SocketAddr],
    introduction: Introduction,
    random: [u8; 32],
    settings: &Settings,
) -> Result<Proposal, PairingError> {
    let connection = connect(identity, locals, addresses, settings).await?;
    let own = identity.public();
    let peer = other(&connection, &own)?;
    let opened = connection.open_bi().await.map_err(|_| StreamError::Lost)?;
    let mut talk = Talk::new(connection, Stream::quic(opened, &settings.limits), settings);
    talk.send(&Message::Hello.encode()).await?;
    let commitment = Message::expect_commit(&talk.receive().await?)?;
    let offer = Message::Offer { nonce: random, introduction: introduction.clone() }.encode();
    talk.send(&offer).await?;
    let open = talk.receive().await?;
    let theirs = Message::expect_open(&open)?;
    let exporter = exporter(&talk.connection)?;
    // What was recorded in another connection, or chosen after our part was seen, does not fit.
    if messages::commitment(&exporter, &open) != commitment {
        talk.connection.close(TAMPERED, b"");
        return Err(PairingError::Tampered);
    }
    introduction.check_role(&theirs)?;
    let transcript = Transcript::new(&exporter, &own, &peer, &commitment, &offer, &open);
    Ok(Proposal { talk, transcript, peer, introduction: theirs, listener: false })
}

/// Two devices that might become a pair, and the code that people compare.
pub struct Proposal {
    talk: Talk,
    transcript: Transcript,
    peer: PublicKey,
    introduction: Introduction,
    listener: bool,
}

impl Proposal {
    /// What the other screen must show as well.
    pub fn code(&self) -> Code {
        Code(self.transcript.code())
    }

    /// Who the other device says it is; nothing of it is proven before the codes were compared.
    pub fn introduction(&self) -> &Introduction {
        &self.introduction
    }

    /// Says that the codes are the same, and waits until the people at the other device say so too.
    ///
    /// The listener has the pair a moment before the dialler does; if the connection is lost in that moment, only the
    /// listener has it, the link stays down because the dialler's side refuses the key, and the two are paired again.
    pub async fn confirm(mut self) -> Result<Pair, PairingError> {
        let deadline = Instant::now() + CONFIRMING;
        let own = self.transcript.agreement(self.listener);
        self.talk.send(&Message::Agree { agreement: own }.encode()).await?;
        let theirs = Message::expect_agreement(&self.talk.receive_until(deadline).await?)?;
        // Compared in constant time, as `blake3::Hash` does.
        if theirs != blake3::Hash::from_bytes(self.transcript.agreement(!self.listener)) {
            self.talk.connection.close(TAMPERED, b"");
            return Err(PairingError::Tampered);
        }
        if self.listener {
            self.talk.send(&Message::Paired.encode()).await?;
            self.talk.stream.writer.finish().await?;
            // The dialler closes once it has heard it.
            let _heard = timeout(self.talk.step, self.talk.connection.closed()).await;
        } else {
            Message::expect_paired(&self.talk.receive().await?)?;
            self.talk.connection.close(CLOSED, b"");
        }
        Ok(Pair { id: PairId(self.transcript.pair_id()), key: self.peer, introduction: self.introduction })
    }

    /// Confirms if `code` is what the other screen shows, and refuses if it is not.
    pub async fn confirm_code(self, code: Code) -> Result<Pair, PairingError> {
        if code == self.code() {
            return self.confirm().await;
        }
        let shown = self.code();
        self.refuse().await;
        Err(PairingError::WrongCode { shown })
    }

    /// Says that the codes differ; nothing is kept on either device.
    pub async fn refuse(mut self) {
        let said = self.talk.send(&Message::Refuse.encode()).await;
        if said.is_ok() && self.talk.stream.writer.finish().await.is_ok() {
            let _heard = timeout(self.talk.step, self.talk.connection.closed()).await;
        }
        self.talk.connection.close(REFUSED, b"");
    }
}

impl fmt::Debug for Proposal {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Proposal").field("introduction", &self.introduction).finish_non_exhaustive()
    }
}

/// The key at the other end, which must not be this device's own.
fn other(connection: &quinn::Connection, own: &PublicKey) -> Result<PublicKey, PairingError> {
    let key = tls::peer_key(connection).ok_or(PairingError::Connection)?;
    if key == *own { Err(PairingError::Oneself) } else { Ok(key) }
}

async fn arrival(endpoint: quinn::Endpoint) -> (quinn::Endpoint, Option<quinn::Incoming>) {
    let incoming = endpoint.accept().await;
    (endpoint, incoming)
}

fn endpoint(local: &Local, server: Option<quinn::ServerConfig>) -> Result<quinn::Endpoint, BindError> {
    let socket = socket::bind(local)?;
    let failed = |source| BindError::Address { address: local.address, source };
    quinn::Endpoint::new(EndpointConfig::default(), server, socket, Arc::new(TokioRuntime)).map_err(failed)
}

async fn connect(
    identity: &Identity,
    locals: &[Local],
    addresses: &[SocketAddr],
    settings: &Settings,
) -> Result<quinn::Connection, PairingError> {
    let mut config = quinn::ClientConfig::new(tls::client(identity, Trust::Anyone, PAIRING_PROTOCOL));
    config.transport_config(settings.transport());
    let mut tries = JoinSet::new();
    for local in locals {
        let endpoint = endpoint(local, None)?;
        for &address in addresses.iter().filter(|address| address.is_ipv4() == local.address.is_ipv4()) {
            let (endpoint, config, connect) = (endpoint.clone(), config.clone(), settings.connect);
            tries.spawn(async move {
                let connecting = endpoint.connect_with(config, address, SERVER_NAME).ok()?;
                timeout(connect, connecting).await.ok()?.ok()
            });
        }
    }
    while let Some(tried) = tries.join_next().await {
        if let Ok(Some(connection)) = tried {
            return Ok(connection);
        }
    }
    Err(PairingError::Unreachable)
}

fn exporter(connection: &quinn::Connection) -> Result<[u8; 32], PairingError> {
    let mut exported = [0; 32];
    let done = connection.export_keying_material(&mut exported, b"EXPORTER-packetboat-pairing", b"");
    done.map(|()| exported).map_err(|_| PairingError::Connection)
}

/// Why two devices did not become a pair.
#[derive(Debug, Error)]
pub enum PairingError {
    /// Nobody waits to be paired at the address.
    #[error("nobody waits to be paired at that address")]
    Unreachable,
    /// An own address cannot be used.
    #[error(transparent)]
    Bind(#[from] BindError),
    /// The connection ended.
    #[error("the connection to the other device was lost")]
    Connection,
    /// The other device does not go on, or the people there do not.
    #[error("the other device does not answer")]
    NoAnswer,
    /// The code that was typed is not the one shown.
    #[error("the codes differ: this device shows {shown}; someone may be in between")]
    WrongCode {
        /// What this device shows.
        shown: Code,
    },
    /// The people at the other device said no.
    #[error("the other device refused: the codes were not confirmed there")]
    Refused,
    /// What was said does not fit together: replayed, or changed on the way.
    #[error("the messages of the other device do not belong to this connection; someone may be in between")]
    Tampered,
    /// Many proposals came, and none was confirmed.
    #[error("too many attempts to pair with this device; someone may be guessing codes, so begin again")]
    TooManyAttempts,
    /// The other device is this one.
    #[error("a device cannot be its own companion")]
    Oneself,
    /// Both are hosts, or both are companions.
    #[error("both devices want to be the {0}; one must be the host and one the companion")]
    SameRole(Role),
    /// The other device speaks another version.
    #[error("the other device speaks another version of pairing")]
    OtherVersion,
    /// The other device does not speak the protocol.
    #[error("the other device sent something without meaning")]
    Malformed(#[from] WireError),
}

impl From<StreamError> for PairingError {
    fn from(error: StreamError) -> Self {
        match error {
            StreamError::Stalled => Self::NoAnswer,
            StreamError::TooLong { limit } => Self::Malformed(WireError::TooLong { limit }),
            StreamError::Lost | StreamError::Abandoned | StreamError::Stopped => Self::Connection,
        }
    }
}

/// The protocol of pairing, as TLS negotiates it; never that of a link.
const PAIRING_PROTOCOL: &[u8] = b"packetboat-pair/1";

/// Proposals that a listener shows to people before it hears nobody any more.
const ATTEMPTS: u32 = 5;

/// Connections that may wait for a listener.
const WAITING: usize = 8;

/// How long people may take to compare two codes.
const CONFIRMING: Duration = Duration::from_secs(300);

const REFUSED: VarInt = VarInt::from_u32(16);
const TAMPERED: VarInt = VarInt::from_u32(17);
