//! From a connection to a session: the greeting, TLS within the connection, and the login.
//!
//! STARTTLS is spoken by lines of our own, before the codec sees the connection: the codec reads ahead, and what it read
//! before the handshake would be taken for said after it.

use std::collections::BTreeSet;

use async_imap::imap_proto::{Capability, Response, Status};
use async_imap::types::UnsolicitedResponse;
use async_imap::{Authenticator, Client, Session};
use tokio::io::AsyncWriteExt;
use tokio::time::timeout;

use super::guard::Guarded;
use super::parsing::parsing;
use super::session::{Answer, ImapAccount, ImapError, UNASKED, accepted, beginning, closed};
use crate::connection::{ConnectError, Deadlines, LineError, Lines, Login, Stream};

/// Asks for TLS and begins it, before anything else of the protocol.
pub(super) async fn upgrade(stream: Stream, account: &ImapAccount) -> Result<Stream, ImapError> {
    let deadlines = &account.deadlines;
    let talking = async {
        let mut lines = Lines::new(stream, deadlines.silence);
        let greeting = lines.line(MAXIMUM_GREETING).await.map_err(before_session)?;
        if !greeting.starts_with(b"* OK") {
            return Err(ConnectError::Greeting { reply: beginning(&greeting) });
        }
        lines.send(b"S1 STARTTLS\r\n").await.map_err(before_session)?;
        for _ in 0..MAXIMUM_GREETING_LINES {
            let answer = lines.line(MAXIMUM_GREETING).await.map_err(before_session)?;
            if let Some(answer) = answer.strip_prefix(b"S1 ") {
                let agreed = answer.get(..2).is_some_and(|word| word.eq_ignore_ascii_case(b"OK"));
                let (stream, ahead) = lines.into_parts();
                return match (agreed, ahead.is_empty()) {
                    (false, _) => Err(ConnectError::NoUpgrade),
                    (true, false) => Err(ConnectError::AheadOfTls),
                    (true, true) => stream.upgrade(&account.endpoint, &account.tls, deadlines).await,
                };
            }
        }
        Err(ConnectError::Greeting { reply: "one without end".to_owned() })
    };
    let upgraded = timeout(deadlines.answer, talking).await;
    Ok(upgraded.unwrap_or(Err(ConnectError::Deadline(deadlines.answer)))?)
}

pub(super) async fn greeted(client: &mut Client<Guarded<Stream>>, deadlines: &Deadlines) -> Result<(), ImapError> {
    match next(client, deadlines).await?.parsed() {
        Response::Data { status: Status::Ok, .. } => Ok(()),
        Response::Data { status: Status::Bye, outcome } => {
            Err(ImapError::Busy { reply: beginning(outcome.information.as_deref().unwrap_or_default().as_bytes()) })
        }
        other => Err(ConnectError::Greeting { reply: beginning(format!("{other:?}").as_bytes()) }.into()),
    }
}

async fn next(client: &mut Client<Guarded<Stream>>, deadlines: &Deadlines) -> Result<Answer, ImapError> {
    client.get_mut().restart();
    let answer = timeout(deadlines.answer, parsing(client.read_response())).await;
    let answer = answer.map_err(|_| ImapError::Slow(deadlines.answer))???.ok_or_else(closed)?;
    client.get_mut().answered();
    Ok(Answer(UnsolicitedResponse::Other(answer)))
}

pub(super) async fn capabilities_of(
    client: &mut Client<Guarded<Stream>>,
    deadlines: &Deadlines,
) -> Result<BTreeSet<String>, ImapError> {
    let mut capabilities = BTreeSet::new();
    // There is no session yet, so the outcome is looked at by hand.
    client.get_mut().write_all(b"C1 CAPABILITY\r\n").await?;
    client.get_mut().flush().await?;
    for _ in 0..UNASKED {
        let answer = next(client, deadlines).await?;
        match answer.parsed() {
            Response::Done { status, outcome, .. } => {
                return accepted("CAPABILITY", status, outcome.information.as_deref()).map(|()| capabilities);
            }
            response => note_capabilities(response, &mut capabilities),
        }
    }
    Err(ImapError::Endless)
}

pub(super) fn note_capabilities(response: &Response<'_>, capabilities: &mut BTreeSet<String>) {
    if let Response::Capabilities(offered) = response {
        capabilities.extend(offered.iter().map(|capability| match capability {
            Capability::Imap4rev1 => "IMAP4REV1".to_owned(),
            Capability::Auth(mechanism) => format!("AUTH={}", mechanism.to_ascii_uppercase()),
            Capability::Atom(atom) => atom.to_ascii_uppercase(),
        }));
    }
}

pub(super) async fn log_in(
    client: Client<Guarded<Stream>>,
    login: &Login,
    offered: &BTreeSet<String>,
    deadlines: &Deadlines,
) -> Result<Session<Guarded<Stream>>, ImapError> {
    let proof = || Proof { response: Some(login.response()) };
    let logging_in = async {
        match login {
            Login::Token { .. } => client.authenticate("XOAUTH2", proof()).await,
            Login::Password { .. } if offered.contains("AUTH=PLAIN") => client.authenticate("PLAIN", proof()).await,
            Login::Password { user, password } => client.login(user, password).await,
        }
    };
    let unavailable = match login {
        Login::Token { .. } => !offered.contains("AUTH=XOAUTH2"),
        Login::Password { .. } => !offered.contains("AUTH=PLAIN") && offered.contains("LOGINDISABLED"),
    };
    if unavailable {
        return Err(ImapError::NoLogin);
    }
    let logged_in =
        timeout(deadlines.answer, parsing(logging_in)).await.map_err(|_| ImapError::Slow(deadlines.answer))??;
    logged_in.map_err(|(error, _)| match error {
        async_imap::error::Error::No(reply) | async_imap::error::Error::Bad(reply) => {
            let busy = ["UNAVAILABLE", "INUSE", "[LIMIT", "try again"].iter().any(|word| reply.contains(word));
            let reply = beginning(reply.as_bytes());
            if busy { ImapError::Busy { reply } } else { ImapError::LoginRefused { reply } }
        }
        error => error.into(),
    })
}

/// Answers the server's first challenge; a second one is the report of a failure, which wants an empty answer.
struct Proof {
    response: Option<String>,
}

impl Authenticator for Proof {
    type Response = String;

    fn process(&mut self, _: &[u8]) -> String {
        self.response.take().unwrap_or_default()
    }
}

fn before_session(error: LineError) -> ConnectError {
    match error {
        LineError::Broken(source) => ConnectError::Broken(source),
        LineError::Silent(silence) => ConnectError::Deadline(silence),
        LineError::TooLong { .. } => ConnectError::Greeting { reply: "a line without end".to_owned() },
    }
}

const MAXIMUM_GREETING: usize = 8 << 10;
const MAXIMUM_GREETING_LINES: usize = 100;
