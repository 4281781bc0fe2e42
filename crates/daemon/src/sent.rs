//! The mailbox of sent mail, by IMAP: looking there for a mail of which nobody knows whether it went out, and filing a
//! copy of one that did.
//!
//! That a mail stands there says that it went out only where the provider files what it takes, which its owner says of an
//! account (`provider_files_sent`). A copy that was filed from here proves nothing, so an account is one or the other.
//! "Absent" is said only when the server looked and did not find it: a mail is sent again on the strength of that.

use std::collections::HashSet;
use std::io::Read;
use std::sync::{Arc, Mutex, MutexGuard};

use packetboat_core::delivery::{Item, SentLookup};
use packetboat_mail::Deadlines;
use packetboat_mail::account::{Account, Accounts, Incoming};
use packetboat_mail::address::{Address, ReversePath};
use packetboat_mail::imap::{self, ImapSession};

use crate::files::with_causes;
use crate::outbox::store::Reader;

/// The mailboxes of sent mail of this device's accounts.
pub(crate) struct SentFolder {
    accounts: Mutex<Arc<Accounts>>,
    provider_files: Mutex<HashSet<String>>,
}

impl SentFolder {
    /// Those of some accounts, and the names of the ones whose provider files what it takes.
    pub(crate) fn new(accounts: Accounts, provider_files: &[String]) -> Self {
        let provider_files = provider_files.iter().cloned().collect();
        Self { accounts: Mutex::new(Arc::new(accounts)), provider_files: Mutex::new(provider_files) }
    }

    /// Goes by other accounts from now on.
    pub(crate) fn set(&self, accounts: Accounts, provider_files: &[String]) {
        *lock(&self.accounts) = Arc::new(accounts);
        *lock(&self.provider_files) = provider_files.iter().cloned().collect();
    }

    /// Looks for a mail.
    pub(crate) async fn look_up(&self, item: &Item, reader: &Arc<Mutex<Reader>>) -> SentLookup {
        let Some((account, incoming)) = self.account_of(item) else { return SentLookup::NotEvidence };
        if !lock(&self.provider_files).contains(&account.name) {
            return SentLookup::NotEvidence;
        }
        let Some((message_id, _)) = read(item, reader, Part::Header).await else { return SentLookup::NotEvidence };
        match open(&incoming).await {
            Ok((mut session, mailbox)) => {
                let found = session.find_sent(&mailbox, &message_id).await;
                session.close().await;
                match found {
                    imap::SentLookup::Found { .. } => SentLookup::Found,
                    imap::SentLookup::Absent => SentLookup::Absent,
                    imap::SentLookup::Unavailable(error) => {
                        tracing::info!(error = with_causes(&error), "Sent cannot be searched");
                        SentLookup::Unreachable
                    }
                }
            }
            Err(why) => {
                tracing::info!(why, "Sent is not reached");
                SentLookup::Unreachable
            }
        }
    }

    /// Files a copy; says whether it is done, or cannot be done for this account at all.
    pub(crate) async fn file(&self, item: &Item, reader: &Arc<Mutex<Reader>>) -> bool {
        let Some((account, incoming)) = self.account_of(item) else { return true };
        if lock(&self.provider_files).contains(&account.name) {
            return true;
        }
        let Some((message_id, message)) = read(item, reader, Part::Whole).await else { return true };
        let filed = match open(&incoming).await {
            Ok((mut session, mailbox)) => {
                let appended = session.append_sent(&mailbox, &message_id, &message).await;
                session.close().await;
                appended.map(|_| ()).map_err(|error| with_causes(&error))
            }
            Err(why) => Err(why),
        };
        match filed {
            Ok(()) => true,
            Err(why) => {
                tracing::info!(mail = %item.id(), why, "no copy was filed in Sent");
                false
            }
        }
    }

    fn account_of(&self, item: &Item) -> Option<(Account, Incoming)> {
        let accounts = lock(&self.accounts).clone();
        let sender = ReversePath::Mailbox(Address::parse(item.sender().as_str()).ok()?);
        let account = accounts.for_sender(&sender)?.clone();
        let incoming = account.imap.clone()?;
        Some((account, incoming))
    }
}

enum Part {
    Header,
    Whole,
}

/// A mail's Message-ID, and its bytes or the beginning of them.
async fn read(item: &Item, reader: &Arc<Mutex<Reader>>, part: Part) -> Option<(String, Vec<u8>)> {
    let (mail, reader) = (item.id(), reader.clone());
    let read = tokio::task::spawn_blocking(move || {
        let body = lock(&reader).body(&mail).ok()??;
        let mut bytes = Vec::new();
        let limit = match part {
            Part::Header => HEADER_BYTES,
            Part::Whole => u64::MAX,
        };
        body.take(limit).read_to_end(&mut bytes).ok()?;
        Some(bytes)
    });
    let bytes = read.await.ok()??;
    Some((message_id(&bytes)?, bytes))
}

/// The Message-ID of a mail, with its angle brackets; submission has put one in.
fn message_id(message: &[u8]) -> Option<String> {
    let mut value: Option<String> = None;
    for line in message.split(|&byte| byte == b'\n') {
        let line = line.strip_suffix(b"\r").unwrap_or(line);
        if line.is_empty() {
            break;
        }
        let text = String::from_utf8_lossy(line);
        match &mut value {
            // A value may stand on lines of its own.
            Some(value) if text.starts_with([' ', '\t']) => value.push_str(&text),
            Some(_) => break,
            None => {
                let name = text.get(..11).filter(|name| name.eq_ignore_ascii_case("message-id:"));
                value = name.map(|name| text[name.len()..].to_owned());
            }
        }
    }
    value.map(|value| value.trim().to_owned()).filter(|value| value.starts_with('<') && value.ends_with('>'))
}

async fn open(incoming: &Incoming) -> Result<(ImapSession, String), String> {
    let account = incoming.imap_account(Deadlines::default()).await.map_err(|error| with_causes(&error))?;
    let mut session = ImapSession::open(&account).await.map_err(|error| with_causes(&error))?;
    let mailboxes = session.mailboxes().await.map_err(|error| with_causes(&error))?;
    let sent = ImapSession::sent_mailbox(&mailboxes).map(|mailbox| mailbox.name.clone());
    Ok((session, sent.ok_or("the server has no mailbox for sent mail")?))
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(|poisoned| poisoned.into_inner())
}

const HEADER_BYTES: u64 = 256 << 10;

#[cfg(test)]
mod tests {
    use super::*;

    #[track_caller]
    fn check(message: &str, expected: Option<&str>) {
        assert_eq!(message_id(message.as_bytes()).as_deref(), expected);
    }

    #[test]
    fn the_message_id_is_found_however_it_is_written() {
        check("Subject: a\r\nMESSAGE-id: <x@y>\r\n\r\n", Some("<x@y>"));
        check("Message-ID:\r\n <x@y>\r\nTo: b\r\n\r\n", Some("<x@y>"));
        check("To: b\r\n\r\nMessage-ID: <in@body>\r\n", None);
        check("Message-ID: none\r\n\r\n", None);
        check("", None);
        check("\u{fc}\u{fc}\u{fc}\u{fc}\u{fc}\u{fc}: x\r\n\r\n", None);
    }
}
