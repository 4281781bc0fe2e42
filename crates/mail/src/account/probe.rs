//! Whether a provider itself files in Sent what it takes: asked by one mail to oneself.
//!
//! Only where it does, Sent says afterwards whether a mail went out of which nobody knows; a copy that was put there from
//! here proves nothing. So "it does" is said only when the mail stands in Sent, which nobody but the provider has put
//! there. "It does not" is said only when the mail has come back to the inbox, and some time later still is not in Sent;
//! short of that, nothing is known, and whoever asks goes on as if it did not.

use std::time::Duration;

use thiserror::Error;
use tokio::time::{Instant, sleep};

use super::check::in_words;
use super::{Account, Problem, Trying};
use crate::address::{Address, ReversePath};
use crate::connection::Deadlines;
use crate::imap::{ImapError, ImapSession, SentLookup};
use crate::message::{Stamp, format_date};
use crate::smtp::{Connection, Fate, OpenGate, Outgoing, Try};

/// How long a probe waits for what.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Patience {
    /// For the mail to come back to the inbox.
    pub arrival: Duration,
    /// After that, for it to stand in Sent.
    pub filing: Duration,
}

impl Default for Patience {
    fn default() -> Self {
        Self { arrival: Duration::from_secs(60), filing: Duration::from_secs(10) }
    }
}

/// Sends one mail from an account to itself, and says whether its provider files it in Sent.
pub async fn probe_sent(
    account: &Account,
    trying: Trying<'_>,
    stamp: &Stamp,
    patience: Patience,
) -> Result<bool, ProbeError> {
    let (Some(smtp), Some(imap)) = (&account.smtp, &account.imap) else { return Err(ProbeError::OneWay) };
    let address = account.addresses.iter().find(|address| !address.starts_with('@')).ok_or(ProbeError::NoAddress)?;
    let address = Address::parse(address).map_err(|_| ProbeError::NoAddress)?;
    let deadlines = Deadlines { connect: trying.connect, ..Deadlines::default() };
    let reading = imap.imap_account(deadlines).await.map_err(Problem::from)?;
    let mut session = ImapSession::open(&reading).await.map_err(Problem::from)?;
    let mailboxes = session.mailboxes().await.map_err(Problem::from)?;
    let Some(sent) = ImapSession::sent_mailbox(&mailboxes).map(|mailbox| mailbox.name.clone()) else {
        session.close().await;
        return Err(ProbeError::NoSent);
    };

    let message_id = stamp.message_id();
    let message = message(&address, &message_id, stamp);
    let server = smtp.server(trying.hello, trying.source).await.map_err(Problem::from)?;
    let mut connection = Connection::open(&server).await.map_err(Problem::from)?;
    let sender = ReversePath::Mailbox(address.clone());
    let recipients = [address];
    let mail = Outgoing { sender: &sender, recipients: &recipients, size: message.len() as u64, eight_bit: false };
    let tried = connection.send(&mail, &mut message.as_bytes(), &OpenGate).await;
    connection.close().await;
    match tried {
        Try::Answered { recipients } => {
            if let Some(Fate::Refused(reply)) = recipients.first() {
                return Err(ProbeError::NotTaken { said: reply.to_string() });
            }
        }
        Try::Failed { why, .. } | Try::AnswerLost { why, .. } => return Err(Problem::from(why).into()),
    }

    let files = watch(&mut session, &sent, &message_id, patience).await;
    session.close().await;
    files
}

/// Looks for the mail until it is known what becomes of it.
async fn watch(
    session: &mut ImapSession,
    sent: &str,
    message_id: &str,
    patience: Patience,
) -> Result<bool, ProbeError> {
    let mut until = Instant::now() + patience.arrival;
    let mut arrived = false;
    loop {
        if is_in(session, sent, message_id).await? {
            return Ok(true);
        }
        if Instant::now() >= until {
            return if arrived { Ok(false) } else { Err(ProbeError::NotBack(patience.arrival)) };
        }
        if !arrived && is_in(session, "INBOX", message_id).await? {
            arrived = true;
            until = Instant::now() + patience.filing;
        }
        sleep(BETWEEN_LOOKS.min(until.saturating_duration_since(Instant::now()))).await;
    }
}

async fn is_in(session: &mut ImapSession, mailbox: &str, message_id: &str) -> Result<bool, ProbeError> {
    match session.find_sent(mailbox, message_id).await {
        SentLookup::Found { .. } => Ok(true),
        SentLookup::Absent => Ok(false),
        // A server that cannot be searched in Sent can be no witness at all.
        SentLookup::Unavailable(error) => Err(Problem::from(error).into()),
    }
}

fn message(address: &Address, message_id: &str, stamp: &Stamp) -> String {
    let date = format_date(stamp.moment);
    format!(
        "From: {address}\r\nTo: {address}\r\nSubject: Test of this account\r\nDate: {date}\r\nMessage-ID: {message_id}\r\n\
         MIME-Version: 1.0\r\nContent-Type: text/plain; charset=us-ascii\r\n\r\n\
         Packetboat sent this to learn whether the provider files in Sent what it sends.\r\nIt can be deleted.\r\n"
    )
}

/// Why it is not known.
#[derive(Debug, Error)]
pub enum ProbeError {
    /// The account does not both send and fetch by IMAP.
    #[error("the account needs a server that takes mail and one to read by IMAP")]
    OneWay,
    /// The account names no single address.
    #[error("the account has no address that a mail could be sent to")]
    NoAddress,
    /// The server has no mailbox for sent mail, so nothing is filed there.
    #[error("the server has no mailbox for sent mail")]
    NoSent,
    /// The server did not take the mail.
    #[error("the mail to oneself was not taken: {said}")]
    NotTaken {
        /// What became of it.
        said: String,
    },
    /// The mail did not come back.
    #[error("the mail to oneself did not come back within {} s", _0.as_secs())]
    NotBack(Duration),
    /// A server failed.
    #[error(transparent)]
    Problem(#[from] Problem),
}

impl ProbeError {
    /// The error and its causes, in one line.
    pub fn in_words(&self) -> String {
        in_words(self)
    }
}

impl From<ImapError> for ProbeError {
    fn from(error: ImapError) -> Self {
        Self::Problem(error.into())
    }
}

/// A provider sees no more of the probe than of a mail reader.
const BETWEEN_LOOKS: Duration = Duration::from_secs(1);
