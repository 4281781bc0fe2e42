//! An IMAP session: connecting, logging in, and commands whose outcome is looked at.

use std::collections::BTreeSet;
use std::io;
use std::sync::Arc;

use async_imap::imap_proto::{MailboxDatum, NameAttribute, RequestId, Response, ResponseCode, Status};
use async_imap::types::UnsolicitedResponse;
use async_imap::{Client, Session};
use rustls::ClientConfig;
use tokio::io::AsyncWriteExt;
use tokio::time::timeout;

use super::guard::{Bounds, GuardError, Guarded};
use super::login::{capabilities_of, greeted, log_in, note_capabilities, upgrade};
use super::parsing::parsing;
use crate::connection::{ConnectError, Deadlines, Endpoint, LOGIN_HINT, Login, NO_LOGIN_HINT, Security, Stream};
use crate::fetched::UidSet;

/// What is needed for a session.
#[derive(Clone, Debug)]
pub struct ImapAccount {
    /// Where.
    pub endpoint: Endpoint,
    /// Whom the server's certificate is to be trusted by.
    pub tls: Arc<ClientConfig>,
    /// Who.
    pub login: Login,
    /// For how long anything is waited.
    pub deadlines: Deadlines,
}

/// A session in which someone is logged in.
#[derive(Debug)]
pub struct ImapSession {
    pub(super) session: Session<Guarded<Stream>>,
    pub(super) deadlines: Deadlines,
    capabilities: BTreeSet<String>,
}

/// A mailbox at a server.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct RemoteMailbox {
    /// Its name, in modified UTF-7.
    pub name: String,
    /// What separates the levels of its name; a server may have none.
    pub delimiter: Option<String>,
    /// What the server says that it is for (RFC 6154).
    pub special: Option<SpecialUse>,
    /// Whether it can hold messages.
    pub selectable: bool,
}

/// What a mailbox is for.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum SpecialUse {
    /// All messages; the others are views of it.
    All,
    /// Put away.
    Archive,
    /// Not sent yet.
    Drafts,
    /// Marked messages; a view.
    Flagged,
    /// Unwanted.
    Junk,
    /// Sent.
    Sent,
    /// Deleted.
    Trash,
}

/// A selected mailbox.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Selected {
    /// How many messages there are.
    pub exists: u32,
    /// What its UIDs mean.
    pub validity: u32,
    /// Greater than every UID, where the server says.
    pub uid_next: Option<u32>,
    /// The greatest mod-sequence, where the server keeps them.
    pub modseq: Option<u64>,
}

/// What one means to do in a mailbox.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Access {
    /// Look, and leave no trace.
    Read,
    /// Delete, too.
    Write,
}

/// How far a deletion went.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Deleted {
    /// They are gone.
    Expunged,
    /// They are marked; the server cannot expunge single messages, and others' marks are not ours to act on.
    Marked,
}

impl ImapSession {
    /// Connects and logs in.
    pub async fn open(account: &ImapAccount) -> Result<Self, ImapError> {
        let stream = Stream::connect(&account.endpoint, &account.tls, &account.deadlines).await?;
        Self::over(stream, account).await
    }

    /// Logs in over a connection that stands.
    pub(crate) async fn over(mut stream: Stream, account: &ImapAccount) -> Result<Self, ImapError> {
        let ImapAccount { endpoint, login, deadlines, .. } = account;
        if endpoint.security == Security::Upgrade {
            stream = upgrade(stream, account).await?;
        }
        let mut client = Client::new(Guarded::new(stream, Bounds::default(), deadlines.silence));
        if endpoint.security != Security::Upgrade {
            greeted(&mut client, deadlines).await?;
        }
        let offered = capabilities_of(&mut client, deadlines).await?;
        let session = log_in(client, login, &offered, deadlines).await?;
        let mut session = Self { session, deadlines: *deadlines, capabilities: offered };
        // Others than before the login may hold now.
        let mut offered = BTreeSet::new();
        session.exchange("CAPABILITY", 0, |response| note_capabilities(response, &mut offered)).await?;
        session.capabilities = offered;
        Ok(session)
    }

    /// Whether the server can do something, by its name in capital letters.
    pub fn can(&self, capability: &str) -> bool {
        self.capabilities.contains(capability)
    }

    /// Every mailbox.
    pub async fn mailboxes(&mut self) -> Result<Vec<RemoteMailbox>, ImapError> {
        let mut mailboxes = Vec::new();
        self.exchange("LIST \"\" \"*\"", MAXIMUM_MAILBOXES, |response| {
            if let Response::MailboxData(MailboxDatum::List(list)) = response {
                let attributes = &list.name_attributes;
                let not_real = |attribute: &NameAttribute<'_>| {
                    matches!(attribute, NameAttribute::NoSelect)
                        || matches!(attribute, NameAttribute::Extension(name) if name.eq_ignore_ascii_case("\\NonExistent"))
                };
                mailboxes.push(RemoteMailbox {
                    name: list.name.to_string(),
                    delimiter: list.delimiter.as_ref().map(ToString::to_string),
                    special: attributes.iter().find_map(special_use),
                    selectable: !attributes.iter().any(not_real),
                });
            }
        })
        .await?;
        Ok(mailboxes)
    }

    /// Selects a mailbox by its name at the server.
    pub async fn select(&mut self, mailbox: &str, access: Access) -> Result<Selected, ImapError> {
        let verb = if access == Access::Read { "EXAMINE" } else { "SELECT" };
        let condstore = if self.can("CONDSTORE") { " (CONDSTORE)" } else { "" };
        let command = format!("{verb} {}{condstore}", quote(mailbox)?);
        let (mut exists, mut validity, mut uid_next, mut modseq) = (0, None, None, None);
        self.exchange(&command, 0, |response| match response {
            Response::MailboxData(MailboxDatum::Exists(count)) => exists = *count,
            Response::Data { status: Status::Ok, outcome } => match &outcome.code {
                Some(ResponseCode::UidValidity(value)) => validity = Some(*value),
                Some(ResponseCode::UidNext(value)) => uid_next = Some(*value),
                Some(ResponseCode::HighestModSeq(value)) => modseq = Some(*value),
                _ => {}
            },
            _ => {}
        })
        .await?;
        let validity = validity.ok_or(ImapError::NoValidity)?;
        if exists > MAXIMUM_MESSAGES {
            return Err(ImapError::TooMany { exists, limit: MAXIMUM_MESSAGES });
        }
        Ok(Selected { exists, validity, uid_next, modseq })
    }

    /// Deletes messages of the selected mailbox, which both sides are to hold by then: it cannot be undone.
    pub async fn delete(&mut self, uids: &UidSet) -> Result<Deleted, ImapError> {
        for part in uids.parts(1000, 100) {
            let expected = part.len();
            self.exchange(&format!("UID STORE {part} +FLAGS.SILENT (\\Deleted)"), expected, |_| ()).await?;
        }
        if !self.can("UIDPLUS") {
            return Ok(Deleted::Marked);
        }
        for part in uids.parts(1000, 100) {
            let expected = part.len();
            self.exchange(&format!("UID EXPUNGE {part}"), expected, |_| ()).await?;
        }
        Ok(Deleted::Expunged)
    }

    /// Says good-bye; the server may not care to answer.
    pub async fn close(mut self) {
        let _ = self.exchange("LOGOUT", 0, |_| ()).await;
        let _ = timeout(self.deadlines.silence, self.session.get_mut().shutdown()).await;
    }

    /// Sends a command and hands every answer to `take` until the one with its tag, which must be OK.
    ///
    /// More answers than `expected`, and some that nobody asked for, are the work of a server that never ends.
    pub(super) async fn exchange(
        &mut self,
        command: &str,
        expected: u64,
        mut take: impl FnMut(&Response<'_>),
    ) -> Result<(), ImapError> {
        let tag = self.send(command).await?;
        let mut room = expected.saturating_add(UNASKED);
        loop {
            let answer = self.answer().await?;
            if let Response::Done { tag: of, status, outcome } = answer.parsed()
                && *of == tag
            {
                return accepted(command, status, outcome.information.as_deref());
            }
            room = room.checked_sub(1).ok_or(ImapError::Endless)?;
            take(answer.parsed());
        }
    }

    pub(super) async fn send(&mut self, command: &str) -> Result<RequestId, ImapError> {
        self.session.get_mut().restart();
        Ok(self.session.run_command(command).await?)
    }

    /// The next answer. It may be asked for again when it was not waited for: nothing of it is lost.
    pub(super) async fn answer(&mut self) -> Result<Answer, ImapError> {
        self.session.get_mut().restart();
        let deadline = self.deadlines.answer;
        let answer = timeout(deadline, parsing(self.session.read_response())).await;
        let answer = answer.map_err(|_| ImapError::Slow(deadline))???.ok_or_else(closed)?;
        let answer = Answer(UnsolicitedResponse::Other(answer));
        self.session.get_mut().answered();
        if let Response::Data { status: Status::Bye, outcome } = answer.parsed() {
            tracing::debug!(reason = outcome.information.as_deref(), "the server closes the session");
        }
        Ok(answer)
    }
}

/// One answer of a server, in the only public type of the codec that can keep one.
#[derive(Debug)]
pub(super) struct Answer(pub(super) UnsolicitedResponse);

impl Answer {
    pub(super) fn parsed(&self) -> &Response<'_> {
        match &self.0 {
            UnsolicitedResponse::Other(answer) => answer.parsed(),
            // Answers are made of this kind alone; an expunge of nothing is what nobody waits for.
            _ => &Response::Expunge(0),
        }
    }
}

pub(super) fn accepted(command: &str, status: &Status, information: Option<&str>) -> Result<(), ImapError> {
    match status {
        Status::Ok => Ok(()),
        _ => Err(ImapError::Refused {
            command: command
                .split(' ')
                .take(if command.starts_with("UID") { 2 } else { 1 })
                .collect::<Vec<_>>()
                .join(" "),
            reply: beginning(information.unwrap_or_default().as_bytes()),
        }),
    }
}

/// A string as IMAP quotes it.
pub(super) fn quote(text: &str) -> Result<String, ImapError> {
    if text.contains(['\r', '\n', '\0']) {
        return Err(ImapError::NotAString { text: text.to_owned() });
    }
    Ok(format!("\"{}\"", text.replace('\\', "\\\\").replace('"', "\\\"")))
}

/// As much of a server's words as is fit for a message.
pub(super) fn beginning(reply: &[u8]) -> String {
    let reply = String::from_utf8_lossy(&reply[..reply.len().min(300)]);
    reply.chars().filter(|character| !character.is_control()).collect()
}

fn special_use(attribute: &NameAttribute<'_>) -> Option<SpecialUse> {
    Some(match attribute {
        NameAttribute::All => SpecialUse::All,
        NameAttribute::Archive => SpecialUse::Archive,
        NameAttribute::Drafts => SpecialUse::Drafts,
        NameAttribute::Flagged => SpecialUse::Flagged,
        NameAttribute::Junk => SpecialUse::Junk,
        NameAttribute::Sent => SpecialUse::Sent,
        NameAttribute::Trash => SpecialUse::Trash,
        _ => return None,
    })
}

pub(super) fn closed() -> ImapError {
    ImapError::Broken(io::ErrorKind::UnexpectedEof.into())
}

/// Why a session failed. But for the first three, another session may do better.
#[derive(Debug, thiserror::Error)]
pub enum ImapError {
    /// The server knows the user not, or not by this.
    #[error("the server refused the login: {reply}")]
    LoginRefused {
        /// What it said.
        reply: String,
    },
    /// There is no way to log in that both know.
    #[error("the server offers no way to log in with these credentials")]
    NoLogin,
    /// A name has a character that no command can carry.
    #[error("{text:?} cannot be said to a server")]
    NotAString {
        /// The name.
        text: String,
    },
    /// There is no connection.
    #[error(transparent)]
    Connect(#[from] ConnectError),
    /// The server has no time now.
    #[error("the server is busy: {reply}")]
    Busy {
        /// What it said.
        reply: String,
    },
    /// It will not do something.
    #[error("the server refused {command}: {reply}")]
    Refused {
        /// What was asked.
        command: String,
        /// What it said.
        reply: String,
    },
    /// It goes beyond what a server may send.
    #[error(transparent)]
    Guard(#[from] GuardError),
    /// It says things without end that nobody asked for.
    #[error("the server sends answers without end")]
    Endless,
    /// It says something that the parser stumbles over.
    #[error("the server's answer cannot be read")]
    Unreadable,
    /// Its answer came too slowly.
    #[error("an answer was not whole within {0:?}")]
    Slow(std::time::Duration),
    /// It does not say what its UIDs mean.
    #[error("the server gives no UIDVALIDITY")]
    NoValidity,
    /// No mailbox has as many messages.
    #[error("the mailbox has {exists} messages, more than {limit}")]
    TooMany {
        /// What the server says.
        exists: u32,
        /// What is believed.
        limit: u32,
    },
    /// A piece of a message is not the one that was asked for.
    #[error("the server sent a wrong piece of message {uid}")]
    Misplaced {
        /// Whose.
        uid: u32,
    },
    /// The connection was cut, or what came is not IMAP.
    #[error("the connection broke off")]
    Broken(#[source] io::Error),
}

impl ImapError {
    /// Whether no other try can help until someone changes the account.
    pub fn is_final(&self) -> bool {
        matches!(self, Self::LoginRefused { .. } | Self::NoLogin | Self::NotAString { .. })
    }

    /// What a person can do about it, where there is something.
    pub fn hint(&self) -> Option<&'static str> {
        match self {
            Self::LoginRefused { .. } => Some(LOGIN_HINT),
            Self::NoLogin => Some(NO_LOGIN_HINT),
            Self::Connect(error) => Some(error.hint()),
            Self::Slow(_) => Some("look at security in the account; else the server is slow, and another time may do"),
            _ => None,
        }
    }
}

impl From<io::Error> for ImapError {
    fn from(source: io::Error) -> Self {
        let guard = source.get_ref().and_then(|cause| cause.downcast_ref::<GuardError>()).copied();
        guard.map_or(Self::Broken(source), Self::Guard)
    }
}

impl From<async_imap::error::Error> for ImapError {
    fn from(error: async_imap::error::Error) -> Self {
        match error {
            async_imap::error::Error::Io(source) => source.into(),
            async_imap::error::Error::ConnectionLost => closed(),
            other => Self::Broken(io::Error::other(other)),
        }
    }
}

/// Answers that nobody asked for within one command: news of other sessions, and remarks.
pub(super) const UNASKED: u64 = 10_000;

const MAXIMUM_MAILBOXES: u64 = 100_000;
const MAXIMUM_MESSAGES: u32 = 4_000_000;
