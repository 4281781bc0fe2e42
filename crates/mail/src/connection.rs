//! A connection to a mail server of any protocol that reads: how it is reached, and that it never waits for ever.
//!
//! TLS is by rustls, with the roots that the caller passes in. Without TLS is only where the caller says so.
//! After an upgrade within a connection (STARTTLS, STLS), nothing that was said before counts: bytes that came before
//! the handshake are refused, since whoever is on the way could have put them there.

mod lines;

use std::io;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll};
use std::time::Duration;

use rustls::ClientConfig;
use rustls::pki_types::ServerName;
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio::net::{TcpStream, lookup_host};
use tokio::time::timeout;
use tokio_rustls::TlsConnector;
use tokio_rustls::client::TlsStream;

pub(crate) use self::lines::{LineError, Lines};

/// Where a server is, and how it is talked to.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Endpoint {
    /// Its name, which its certificate must have.
    pub host: String,
    /// Its port.
    pub port: u16,
    /// When TLS begins.
    pub security: Security,
}

/// When TLS begins.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Security {
    /// Before the first byte.
    Implicit,
    /// After a command that asks for it; a server that does not offer it is not talked to.
    Upgrade,
    /// Never: for a server on the same computer.
    None,
}

/// How long is waited.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Deadlines {
    /// For a connection with its TLS handshake.
    pub connect: Duration,
    /// For the next byte, or for the server to take one.
    pub silence: Duration,
    /// For a whole answer, however slowly it trickles.
    pub answer: Duration,
}

impl Default for Deadlines {
    fn default() -> Self {
        let seconds = Duration::from_secs;
        Self { connect: seconds(30), silence: seconds(60), answer: seconds(600) }
    }
}

/// Who logs in, and by what, in whichever protocol.
#[derive(Clone, PartialEq, Eq)]
pub enum Login {
    /// By a password: AUTH PLAIN, or what the protocol has besides where the server knows only that.
    Password {
        /// The user's name at the server.
        user: String,
        /// The password.
        password: String,
    },
    /// By a token of OAuth 2 (XOAUTH2), which the caller keeps fresh.
    Token {
        /// The user's name at the server.
        user: String,
        /// The token.
        token: String,
    },
}

impl Login {
    /// The initial response of SASL PLAIN, or of XOAUTH2.
    pub(crate) fn response(&self) -> String {
        match self {
            Self::Password { user, password } => format!("\0{user}\0{password}"),
            Self::Token { user, token } => format!("user={user}\x01auth=Bearer {token}\x01\x01"),
        }
    }
}

/// Says who, and never by what.
impl std::fmt::Debug for Login {
    fn fmt(&self, formatter: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Self::Password { user, .. } => write!(formatter, "Password({user:?})"),
            Self::Token { user, .. } => write!(formatter, "Token({user:?})"),
        }
    }
}

/// The bytes to and from a server.
#[derive(Debug)]
pub(crate) enum Stream {
    Plain(TcpStream),
    Tls(Box<TlsStream<TcpStream>>),
    /// A server of a fuzz target.
    #[cfg(feature = "fuzzing")]
    Script(crate::fuzzing::Script),
}

impl Stream {
    /// Connects, and shakes hands where TLS begins before the first byte.
    pub(crate) async fn connect(
        endpoint: &Endpoint,
        tls: &Arc<ClientConfig>,
        deadlines: &Deadlines,
    ) -> Result<Self, ConnectError> {
        let connecting = async {
            let named = |source| ConnectError::Lookup { host: endpoint.host.clone(), source };
            let addresses: Vec<_> =
                lookup_host((endpoint.host.as_str(), endpoint.port)).await.map_err(named)?.collect();
            let socket = TcpStream::connect(&addresses[..]).await.map_err(ConnectError::Unreachable)?;
            socket.set_nodelay(true).map_err(ConnectError::Unreachable)?;
            match endpoint.security {
                Security::Implicit => shake_hands(socket, endpoint, tls).await,
                Security::Upgrade | Security::None => Ok(Self::Plain(socket)),
            }
        };
        timeout(deadlines.connect, connecting).await.unwrap_or(Err(ConnectError::Deadline(deadlines.connect)))
    }

    /// Begins TLS within the connection.
    pub(crate) async fn upgrade(
        self,
        endpoint: &Endpoint,
        tls: &Arc<ClientConfig>,
        deadlines: &Deadlines,
    ) -> Result<Self, ConnectError> {
        match self {
            Self::Plain(socket) => timeout(deadlines.connect, shake_hands(socket, endpoint, tls))
                .await
                .unwrap_or(Err(ConnectError::Deadline(deadlines.connect))),
            Self::Tls(_) => Ok(self),
            #[cfg(feature = "fuzzing")]
            Self::Script(_) => Ok(self),
        }
    }
}

async fn shake_hands(socket: TcpStream, endpoint: &Endpoint, tls: &Arc<ClientConfig>) -> Result<Stream, ConnectError> {
    let name = ServerName::try_from(endpoint.host.clone())
        .map_err(|_| ConnectError::NotAName { host: endpoint.host.clone() })?;
    let connected = TlsConnector::from(Arc::clone(tls)).connect(name, socket).await;
    connected.map(|stream| Stream::Tls(Box::new(stream))).map_err(|source| {
        let by_certificate = source.get_ref().and_then(|cause| cause.downcast_ref::<rustls::Error>());
        match by_certificate {
            Some(rustls::Error::InvalidCertificate(_)) => {
                ConnectError::Untrusted { host: endpoint.host.clone(), source }
            }
            _ => ConnectError::Handshake(source),
        }
    })
}

impl AsyncRead for Stream {
    fn poll_read(self: Pin<&mut Self>, cx: &mut Context<'_>, buffer: &mut ReadBuf<'_>) -> Poll<io::Result<()>> {
        match self.get_mut() {
            Self::Plain(socket) => Pin::new(socket).poll_read(cx, buffer),
            Self::Tls(stream) => Pin::new(stream).poll_read(cx, buffer),
            #[cfg(feature = "fuzzing")]
            Self::Script(stream) => Pin::new(stream).poll_read(cx, buffer),
        }
    }
}

impl AsyncWrite for Stream {
    fn poll_write(self: Pin<&mut Self>, cx: &mut Context<'_>, bytes: &[u8]) -> Poll<io::Result<usize>> {
        match self.get_mut() {
            Self::Plain(socket) => Pin::new(socket).poll_write(cx, bytes),
            Self::Tls(stream) => Pin::new(stream).poll_write(cx, bytes),
            #[cfg(feature = "fuzzing")]
            Self::Script(stream) => Pin::new(stream).poll_write(cx, bytes),
        }
    }

    fn poll_flush(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        match self.get_mut() {
            Self::Plain(socket) => Pin::new(socket).poll_flush(cx),
            Self::Tls(stream) => Pin::new(stream).poll_flush(cx),
            #[cfg(feature = "fuzzing")]
            Self::Script(stream) => Pin::new(stream).poll_flush(cx),
        }
    }

    fn poll_shutdown(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        match self.get_mut() {
            Self::Plain(socket) => Pin::new(socket).poll_shutdown(cx),
            Self::Tls(stream) => Pin::new(stream).poll_shutdown(cx),
            #[cfg(feature = "fuzzing")]
            Self::Script(stream) => Pin::new(stream).poll_shutdown(cx),
        }
    }
}

/// Why there is no connection.
#[derive(Debug, thiserror::Error)]
pub enum ConnectError {
    /// The name of the server has no address, or nobody could be asked for it.
    #[error("the address of {host} cannot be found")]
    Lookup {
        /// The name.
        host: String,
        /// The system's reason.
        source: io::Error,
    },
    /// The network has no way there, or nobody answers there.
    #[error("cannot connect")]
    Unreachable(#[source] io::Error),
    /// It took too long.
    #[error("no connection within {0:?}")]
    Deadline(Duration),
    /// No certificate could have this name.
    #[error("{host:?} is not a host name")]
    NotAName {
        /// As configured.
        host: String,
    },
    /// The certificate is not for this host, not by a trusted authority, or out of date.
    #[error("the certificate of {host} is not trusted")]
    Untrusted {
        /// As configured.
        host: String,
        /// What is wrong with it.
        source: io::Error,
    },
    /// TLS did not come about for another reason.
    #[error("the TLS handshake failed")]
    Handshake(#[source] io::Error),
    /// The server has no TLS within a connection, and talking without it was not asked for.
    #[error("the server does not offer TLS on this port")]
    NoUpgrade,
    /// Something was said between the agreement on TLS and its beginning.
    #[error("the server, or someone on the way, sent bytes ahead of TLS")]
    AheadOfTls,
    /// What came is not the beginning of the protocol.
    #[error("the server's greeting is not understood: {reply:?}")]
    Greeting {
        /// The beginning of what came.
        reply: String,
    },
    /// The connection was cut before it stood.
    #[error("the connection broke off")]
    Broken(#[source] io::Error),
}

impl ConnectError {
    /// Whether it is this device's way out that fails, and not the server.
    pub fn is_of_path(&self) -> bool {
        matches!(self, Self::Lookup { .. } | Self::Unreachable(_) | Self::Deadline(_))
    }

    /// What a person can do about it.
    pub fn hint(&self) -> &'static str {
        match self {
            Self::Lookup { .. } => "look at `host` in the account, and at whether this device is online",
            Self::Unreachable(_) => "look at host and port in the account, and at whether this device is online",
            Self::Deadline(_) => {
                "look at host, port and security in the account; some networks drop connections to mail servers silently"
            }
            Self::NotAName { .. } => "look at `host` in the account",
            Self::Untrusted { .. } => {
                "is it the right server, and is this computer's clock right? Name the file of a private authority as \
                 `ca_file` in the account; on a network that asks to log in first, open a browser"
            }
            Self::NoUpgrade => "use security = \"tls\" in the account, and the port for it",
            Self::Handshake(_) | Self::AheadOfTls | Self::Greeting { .. } | Self::Broken(_) => {
                "look at host, port and security in the account: at ports 993 and 995 TLS begins at once (`tls`), at \
                 143 and 110 it is asked for (`starttls`)"
            }
        }
    }
}

/// Of a login that was refused, by whichever protocol.
pub(crate) const LOGIN_HINT: &str =
    "look at user and password in the account; some providers want a password made for one program, or a token";

/// Of a server that offers no login.
pub(crate) const NO_LOGIN_HINT: &str = "some servers offer a login only over TLS, or only with a token";
