//! Whether a message is in a mailbox of the server, by its Message-ID, and putting it there once.
//!
//! "Absent" is said only when the server searched and found nothing: a refused search, or a connection that broke off,
//! is [`SentLookup::Unavailable`], since whoever asks may send the message again on the strength of the answer.

use async_imap::imap_proto::{MailboxDatum, Response};
use tokio::io::AsyncWriteExt;

use super::session::{Access, ImapError, ImapSession, RemoteMailbox, SpecialUse, accepted, quote};

/// What a look for a message says.
#[derive(Debug)]
pub enum SentLookup {
    /// It is there.
    Found {
        /// Its number, or the first of them.
        uid: u32,
    },
    /// The server looked, and it is not there.
    Absent,
    /// Nobody knows.
    Unavailable(ImapError),
}

/// What became of a copy.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Appended {
    /// It was put there.
    Stored,
    /// It was there.
    Present,
}

impl ImapSession {
    /// The mailbox for sent messages: what the server says, else what is usually called so.
    pub fn sent_mailbox(mailboxes: &[RemoteMailbox]) -> Option<&RemoteMailbox> {
        let selectable = || mailboxes.iter().filter(|mailbox| mailbox.selectable);
        let usual = || {
            USUAL.iter().find_map(|usual| {
                selectable().find(|mailbox| {
                    let delimiter = mailbox.delimiter.as_deref().unwrap_or("/");
                    let name = mailbox.name.strip_prefix("INBOX").and_then(|rest| rest.strip_prefix(delimiter));
                    name.unwrap_or(&mailbox.name).eq_ignore_ascii_case(usual)
                })
            })
        };
        selectable().find(|mailbox| mailbox.special == Some(SpecialUse::Sent)).or_else(usual)
    }

    /// Looks for a message in a mailbox by its Message-ID, with its angle brackets; the mailbox is selected afterwards.
    pub async fn find_sent(&mut self, mailbox: &str, message_id: &str) -> SentLookup {
        match self.search_message_id(mailbox, message_id).await {
            Ok(Some(uid)) => SentLookup::Found { uid },
            Ok(None) => SentLookup::Absent,
            Err(error) => SentLookup::Unavailable(error),
        }
    }

    /// Puts a message into a mailbox as one that was read, unless one with its Message-ID is there.
    ///
    /// Its lines are to end with CRLF, as they do when it was sent.
    pub async fn append_sent(
        &mut self,
        mailbox: &str,
        message_id: &str,
        message: &[u8],
    ) -> Result<Appended, ImapError> {
        if self.search_message_id(mailbox, message_id).await?.is_some() {
            return Ok(Appended::Present);
        }
        let tag = self.send(&format!("APPEND {} (\\Seen) {{{}}}", quote(mailbox)?, message.len())).await?;
        let mut agreed = false;
        for _ in 0..UNASKED {
            let answer = self.answer().await?;
            match answer.parsed() {
                Response::Continue(_) if !agreed => {
                    agreed = true;
                    let guarded = self.session.get_mut();
                    guarded.restart();
                    guarded.write_all(message).await?;
                    guarded.write_all(b"\r\n").await?;
                    guarded.flush().await?;
                }
                Response::Done { tag: of, status, outcome } if *of == tag => {
                    accepted("APPEND", status, outcome.information.as_deref())?;
                    return Ok(Appended::Stored);
                }
                _ => {}
            }
        }
        Err(ImapError::Endless)
    }

    async fn search_message_id(&mut self, mailbox: &str, message_id: &str) -> Result<Option<u32>, ImapError> {
        // A header is searched for a part of it; without the brackets, one id could be a part of another.
        let whole = message_id.len() > 2 && message_id.starts_with('<') && message_id.ends_with('>');
        if !whole || !message_id.bytes().all(|byte| byte.is_ascii_graphic()) {
            return Err(ImapError::NotAString { text: message_id.to_owned() });
        }
        self.select(mailbox, Access::Read).await?;
        let mut found = None;
        self.exchange(&format!("UID SEARCH HEADER Message-ID {}", quote(message_id)?), 1, |response| {
            if let Response::MailboxData(MailboxDatum::Search(uids)) = response {
                found = found.or(uids.first().copied());
            }
        })
        .await?;
        Ok(found)
    }
}

const USUAL: [&str; 4] = ["Sent", "Sent Items", "Sent Messages", "Sent Mail"];

const UNASKED: u64 = 10_000;
