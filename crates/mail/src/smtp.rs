//! Sending a mail to the server of an account: one connection, one try after another.
//!
//! A [`Try`] ends in exactly one of three ways, and what may be done next rests on telling them apart:
//! it *failed* and certainly nothing was accepted; the server *answered* for each recipient; or the *answer was lost*
//! after the final dot, and the mail may or may not be on its way (RFC 1047).
//! Before the final dot, everything is a definite failure: a server accepts nothing without it.
//! Between all else and the dot the [`Gate`] is asked, so that the caller can record durably that the dot may have gone,
//! or withhold it because its right to send has run out.
//!
//! Invariants:
//! - No byte of the final `. CR LF` is handed on before the gate has said yes.
//! - Nothing is waited for without a [deadline](Deadlines).
//! - A connection whose try was broken off is never used again.
//! - Passwords go over TLS that is verified, unless the account says plainly that it has none.
//!
//! Left out: when to try again (the caller's), lookup of MX (mail goes to the account's own server), and conversion
//! of 8-bit mail for servers without 8BITMIME: it is sent as it is, which is what all of those take.

mod connect;
mod deadlines;
mod failure;
mod login;
mod reply;
mod tls;
mod transaction;

use std::net::IpAddr;

use tokio::io::{AsyncRead, AsyncWrite};

use crate::connection::Login;
pub use deadlines::Deadlines;
pub use failure::{Failure, Kind, Stage};
pub use reply::Reply;
pub use tls::Trust;
pub use transaction::{Fate, Gate, OpenGate, Outgoing, Try};

use reply::Replies;

/// A server to send by, and all that is needed to get at it.
#[derive(Clone, Debug)]
pub struct Server {
    /// Name or address. A certificate must be for this name.
    pub host: String,
    /// 465, 587 or another.
    pub port: u16,
    /// How the connection is protected.
    pub security: Security,
    /// Whose certificates are believed.
    pub trust: Trust,
    /// Who logs in; nobody, where the server wants nobody to.
    pub login: Option<Login>,
    /// What this computer calls itself in EHLO.
    pub hello: String,
    /// The address to connect from, where a path is to be chosen.
    pub source: Option<IpAddr>,
    /// How long to wait for what.
    pub deadlines: Deadlines,
}

/// How a connection is protected.
#[derive(Clone, Copy, PartialEq, Eq, Debug, serde::Serialize, serde::Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Security {
    /// TLS from the first byte (RFC 8314): port 465.
    Tls,
    /// TLS by STARTTLS; a server without it is not spoken to further: port 587.
    Starttls,
    /// None: anyone on the way reads mail and password.
    Plain,
}

/// A connection that is logged in and takes mail after mail.
pub struct Connection {
    replies: Replies<Box<dyn Stream>>,
    capabilities: Capabilities,
    deadlines: Deadlines,
    /// Whether the last exchange ended cleanly.
    usable: bool,
    /// Whether a transaction was left open at the server.
    needs_reset: bool,
}

/// What the server can do, of what matters here.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Capabilities {
    /// Takes several commands at once (RFC 2920).
    pub pipelining: bool,
    /// Takes bytes above 127 (RFC 6152).
    pub eight_bit: bool,
    /// Takes addresses beyond ASCII (RFC 6531).
    pub smtputf8: bool,
    /// Takes a declaration of the size (RFC 1870).
    pub size: bool,
    /// The largest mail in bytes, where the server says.
    pub size_limit: Option<u64>,
}

impl Connection {
    /// Connects, protects the connection and logs in.
    pub async fn open(server: &Server) -> Result<Self, Failure> {
        let stream = connect::connect(server).await?;
        let (stream, capabilities) = login::greet_and_log_in(stream, server).await?;
        Ok(Self::logged_in(stream, capabilities, server))
    }

    /// Says hello and logs in over what stands in for a connection.
    #[cfg(feature = "fuzzing")]
    pub(crate) async fn over<S: Stream + 'static>(
        client: mail_send::SmtpClient<S>,
        server: &Server,
    ) -> Result<Self, Failure> {
        let (stream, capabilities) = login::begin_plainly(client, server).await?;
        Ok(Self::logged_in(stream, capabilities, server))
    }

    fn logged_in(stream: Box<dyn Stream>, capabilities: Capabilities, server: &Server) -> Self {
        Self {
            replies: Replies::new(stream),
            capabilities,
            deadlines: server.deadlines,
            usable: true,
            needs_reset: false,
        }
    }

    /// What the server said it can do.
    pub fn capabilities(&self) -> Capabilities {
        self.capabilities
    }

    /// Whether another mail can be tried: the last try ended cleanly, and the server has not hung up meanwhile.
    pub fn is_usable(&mut self) -> bool {
        self.usable = self.usable && self.replies.is_quiet();
        self.usable
    }

    /// Takes leave of the server, which may or may not listen.
    pub async fn close(mut self) {
        if self.is_usable() {
            let _ = self.replies.exchange(b"QUIT\r\n", self.deadlines.quit, Stage::Quit).await;
        }
    }
}

/// Opens a connection, tries one mail and closes it.
pub async fn send_one(
    server: &Server,
    mail: &Outgoing<'_>,
    body: &mut (dyn AsyncRead + Unpin + Send),
    gate: &impl Gate,
) -> Try {
    match Connection::open(server).await {
        Ok(mut connection) => {
            let tried = connection.send(mail, body, gate).await;
            connection.close().await;
            tried
        }
        Err(why) => Try::Failed { why, recipients: vec![Fate::Untried; mail.recipients.len()] },
    }
}

/// What a connection runs over.
pub(crate) trait Stream: AsyncRead + AsyncWrite + Unpin + Send {}

impl<T: AsyncRead + AsyncWrite + Unpin + Send> Stream for T {}

#[cfg(test)]
mod tests;
