//! The local submission server: any mail program hands its mail over here, by SMTP (RFC 6409).
//!
//! A program that hears 250 throws its copy away. So 250 is said only when the caller's [`Queue`] has accepted the mail,
//! which must mean: on stable storage. Whatever else happens, the program is told so and keeps its copy.
//!
//! Invariants:
//! - It listens on the loopback address only, unless told otherwise; beyond it, it wants a token and TLS before it.
//! - Memory is flat: a message beyond 64 KiB lies in a temporary file while it comes in.
//! - Nothing is waited for without a deadline, and nothing grows without a limit.
//! - The end of a message is `CR LF . CR LF` alone, and a message with any other CR or LF is refused:
//!   two programs never see two different messages (SMTP smuggling).
//!
//! Left out: relaying rules (whoever may speak here may send), and VRFY and EXPN, which tell strangers who is here.
//! The same session speaks over a pipe for `sendmail -bs` ([`converse`]).

mod certificate;
mod command;
mod lines;
mod login;
mod session;
mod spool;

use std::fmt::Display;
use std::future::Future;
use std::io;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use thiserror::Error;
use tokio::io::AsyncWriteExt;
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::{Semaphore, watch};
use tokio::task::JoinSet;
use tokio::time::timeout;
use tokio_rustls::TlsAcceptor;

use crate::address::{Address, ReversePath};
use crate::message::{Prepared, Stamp};

pub use certificate::{Certificate, CertificateError, Tls};
pub use login::Token;
pub use session::{Peer, converse};
pub use spool::{Spool, Spooled};

/// Where accepted mail goes.
pub trait Queue: Send + Sync + 'static {
    /// What the program is told, so that it can be found again.
    type Id: Display + Send;

    /// Keeps a mail. Returns only when it is on stable storage.
    fn accept(&self, submission: Submission) -> impl Future<Output = Result<Self::Id, Refusal>> + Send;

    /// Whether mail of this sender can be sent at all, asked before the message comes in.
    fn check_sender(&self, _sender: &ReversePath) -> Result<(), Refusal> {
        Ok(())
    }

    /// A stamp for the next message: the time, and fresh randomness.
    fn stamp(&self) -> Stamp;
}

/// A mail that was handed over.
#[derive(Debug)]
pub struct Submission {
    /// Who hears of failures.
    pub sender: ReversePath,
    /// Who gets it; at least one, each once.
    pub recipients: Vec<Address>,
    /// What is known of the message.
    pub message: Prepared,
    /// The message as it is to be sent.
    pub body: Spooled,
}

/// Why a mail is not accepted. The program keeps its copy, and tries again where that can help.
#[derive(Clone, PartialEq, Eq, Debug, Error)]
pub enum Refusal {
    /// No room: 452.
    #[error("the disk is full; free some space and send again")]
    Full,
    /// Cannot at present: 451.
    #[error("the mail cannot be kept at present: {why}")]
    Busy {
        /// Why.
        why: String,
    },
    /// Larger than what is taken: 552.
    #[error("the message is larger than {limit} bytes")]
    TooBig {
        /// In bytes.
        limit: u64,
    },
    /// No account sends for this sender: 550.
    #[error("no account sends mail of {sender}")]
    NoAccount {
        /// As the program named it.
        sender: ReversePath,
    },
    /// Never: 554.
    #[error("{why}")]
    Never {
        /// Why.
        why: String,
    },
}

/// How the server behaves.
#[derive(Clone)]
pub struct Settings {
    /// What it calls itself.
    pub host: String,
    /// The domain of addresses that have none.
    pub origin: String,
    /// What a program must know to be heard, if anything.
    pub token: Option<Token>,
    /// For STARTTLS, if it is offered.
    pub tls: Option<TlsAcceptor>,
    /// Where messages lie while they come in; best on the queue's own file system.
    pub spool: PathBuf,
    /// How much is taken, and how long is waited.
    pub limits: Limits,
}

/// How much is taken, and how long is waited.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Limits {
    /// Programs at once; the next one is told to come back.
    pub connections: usize,
    /// Bytes of a message.
    pub message: u64,
    /// Recipients of a mail.
    pub recipients: usize,
    /// Commands that are wrong, before the program is sent away.
    pub errors: usize,
    /// Bytes of a command line.
    pub line: usize,
    /// Between two commands.
    pub idle: Duration,
    /// Between two pieces of a message, and for a reply to be taken.
    pub piece: Duration,
    /// For a whole message.
    pub transfer: Duration,
}

impl Default for Limits {
    fn default() -> Self {
        Self {
            connections: 64,
            message: 256 << 20,
            recipients: 10_000,
            errors: 20,
            // A token in base64 must fit as well (RFC 4954, 4).
            line: 12_288,
            idle: Duration::from_secs(5 * 60),
            piece: Duration::from_secs(3 * 60),
            transfer: Duration::from_secs(60 * 60),
        }
    }
}

/// Who can reach the server.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Reach {
    /// Programs on this computer.
    Loopback,
    /// Whoever reaches the address.
    Network,
}

/// A server that listens.
pub struct Server<Q> {
    listener: TcpListener,
    settings: Arc<Settings>,
    queue: Arc<Q>,
}

impl<Q: Queue> Server<Q> {
    /// Takes a listener that the caller has bound, and refuses one that reaches further than was meant.
    pub fn new(listener: TcpListener, reach: Reach, settings: Settings, queue: Arc<Q>) -> Result<Self, ServerError> {
        let address = listener.local_addr().map_err(|source| ServerError::Listener { source })?;
        if !address.ip().is_loopback() {
            if reach == Reach::Loopback {
                return Err(ServerError::BeyondLoopback { address });
            }
            if settings.token.is_none() || settings.tls.is_none() {
                return Err(ServerError::Unprotected { address });
            }
        }
        Ok(Self { listener, settings: Arc::new(settings), queue })
    }

    /// Serves until `stop` says true or is gone; then lets what is being accepted come to its end.
    pub async fn run(self, mut stop: watch::Receiver<bool>) {
        let room = Arc::new(Semaphore::new(self.settings.limits.connections));
        let mut sessions = JoinSet::new();
        loop {
            let accepted = tokio::select! {
                accepted = self.listener.accept() => accepted,
                _ = stop.wait_for(|stop| *stop) => break,
                // Those that have ended are not kept until the next one comes.
                Some(_) = sessions.join_next() => continue,
            };
            let (stream, address) = match accepted {
                Ok(accepted) => accepted,
                Err(error) => {
                    // Out of descriptors, usually: some will be free in a moment.
                    tracing::warn!(%error, "a connection cannot be accepted");
                    tokio::time::sleep(Duration::from_millis(100)).await;
                    continue;
                }
            };
            match room.clone().try_acquire_owned() {
                Err(_) => {
                    sessions.spawn(turn_away(stream, self.settings.host.clone()));
                }
                Ok(place) => {
                    let (settings, queue, stop) = (self.settings.clone(), self.queue.clone(), stop.clone());
                    let peer = if address.ip().is_loopback() { Peer::Local } else { Peer::Remote };
                    let _ = stream.set_nodelay(true);
                    sessions.spawn(async move {
                        converse(stream, peer, &settings, queue.as_ref(), stop).await;
                        drop(place);
                    });
                }
            }
        }
        drop(self.listener);
        while sessions.join_next().await.is_some() {}
    }
}

async fn turn_away(mut stream: TcpStream, host: String) {
    let text = format!("421 4.3.2 {host} has too many connections, come back later\r\n");
    let _ = timeout(Duration::from_secs(5), stream.write_all(text.as_bytes())).await;
}

/// Why a server does not begin.
#[derive(Debug, Error)]
pub enum ServerError {
    /// The system does not say where it listens.
    #[error("cannot tell where the submission port is")]
    Listener {
        /// The system's reason.
        #[source]
        source: io::Error,
    },
    /// Reaches further than was meant.
    #[error("{address} can be reached from other computers")]
    BeyondLoopback {
        /// Where it listens.
        address: std::net::SocketAddr,
    },
    /// Anyone could send mail, or read the token.
    #[error("{address} can be reached from other computers and needs a token and TLS")]
    Unprotected {
        /// Where it listens.
        address: std::net::SocketAddr,
    },
}

#[cfg(test)]
mod tests;
