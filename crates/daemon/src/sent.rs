//! The mailbox of sent mail, by IMAP: looking there for a mail of which nobody knows whether it went out, and filing a
//! copy of one that did.
//!
//! That a mail stands there says that it went out only where the provider files what it takes, which is known of an
//! account by a probe at its setup or by its owner's word (`provider_files_sent`). A copy that was filed from here proves
//! nothing, so an account is one or the other.
//! The account is the one by which the mail went out: on a companion its host's, and its own where it was lent none.
//! "Absent" is said only when the server looked and did not find it: a mail is sent again on the strength of that.

use std::io::Read;
use std::sync::{Arc, Mutex, MutexGuard};

use packetboat_core::delivery::{Item, SentLookup};
use packetboat_mail::Deadlines;
use packetboat_mail::account::{Accounts, Incoming};
use packetboat_mail::address::{Address, ReversePath};
use packetboat_mail::imap::{self, ImapSession};

use crate::files::with_causes;
use crate::outbox::store::Reader;

/// The mailboxes of sent mail of the accounts that this device sends by.
pub(crate) struct SentFolder(Mutex<Arc<SentAccounts>>);

/// The accounts that a device sends by.
#[derive(Default)]
pub(crate) struct SentAccounts {
    /// Its own.
    pub(crate) own: Accounts,
    /// Those that its host lent it, which come first.
    pub(crate) of_host: Accounts,
    /// The names of own ones whose provider files what it takes, where the account does not say.
    pub(crate) provider_files: Vec<String>,
}

impl SentFolder {
    /// Those of some accounts.
    pub(crate) fn new(accounts: SentAccounts) -> Self {
        Self(Mutex::new(Arc::new(accounts)))
    }

    /// Goes by other accounts from now on.
    pub(crate) fn set(&self, accounts: SentAccounts) {
        *lock(&self.0) = Arc::new(accounts);
    }

    /// Looks for a mail.
    pub(crate) async fn look_up(&self, item: &Item, reader: &Arc<Mutex<Reader>>) -> SentLookup {
        let Some((incoming, Filing::ByProvider)) = self.mailbox_of(item) else { return SentLookup::NotEvidence };
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
        let Some((incoming, Filing::FromHere)) = self.mailbox_of(item) else { return true };
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

    fn mailbox_of(&self, item: &Item) -> Option<(Incoming, Filing)> {
        lock(&self.0).clone().mailbox_of(item.sender().as_str())
    }
}

impl SentAccounts {
    /// Where Sent of a sender's account is, and who files there.
    fn mailbox_of(&self, sender: &str) -> Option<(Incoming, Filing)> {
        let sender = ReversePath::Mailbox(Address::parse(sender).ok()?);
        let lent = self.of_host.for_sender(&sender);
        let account = lent.or_else(|| self.own.for_sender(&sender))?;
        let by_settings = || lent.is_none() && self.provider_files.contains(&account.name);
        let by_provider = account.provider_files_sent.unwrap_or_else(by_settings);
        Some((account.imap.clone()?, if by_provider { Filing::ByProvider } else { Filing::FromHere }))
    }
}

/// Who files in Sent what went out.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
enum Filing {
    /// The provider, so that what stands there went out.
    ByProvider,
    /// Whoever sent, so that it proves nothing.
    FromHere,
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

    /// One account for each name, which sends for everybody, with a line of its own.
    fn accounts(name: &str, line: &str) -> Accounts {
        let text = format!(
            "[[account]]\nname = \"{name}\"\naddresses = [\"a@{name}.test\"]\ndefault = true\n{line}\n[account.smtp]\n\
             host = \"smtp.{name}.test\"\n[account.imap]\nhost = \"imap.{name}.test\"\nuser = \"a\"\npassword = \"p\""
        );
        Accounts::parse(&text).unwrap()
    }

    #[test]
    fn sent_is_that_of_the_account_that_the_mail_goes_out_by() {
        let found = |accounts: &SentAccounts, sender: &str| {
            accounts.mailbox_of(sender).map(|(incoming, filing)| (incoming.host, filing))
        };
        let own = || accounts("own", "");
        let companion = SentAccounts {
            own: own(),
            of_host: accounts("lent", "provider_files_sent = true"),
            provider_files: Vec::new(),
        };
        for sender in ["a@lent.test", "a@own.test", "x@elsewhere.test"] {
            assert_eq!(found(&companion, sender), Some(("imap.lent.test".to_owned(), Filing::ByProvider)), "{sender}");
        }
        // A name in this device's settings is said of its own account, whatever its host calls one of its.
        let named = vec!["own".to_owned(), "lent".to_owned()];
        let host = SentAccounts { own: own(), provider_files: named.clone(), ..SentAccounts::default() };
        assert_eq!(found(&host, "a@own.test"), Some(("imap.own.test".to_owned(), Filing::ByProvider)));
        let lent =
            SentAccounts { of_host: accounts("lent", ""), provider_files: named.clone(), ..SentAccounts::default() };
        assert_eq!(found(&lent, "a@lent.test"), Some(("imap.lent.test".to_owned(), Filing::FromHere)));
        // What the probe found goes before what the settings say.
        let probed = accounts("own", "provider_files_sent = false");
        let host = SentAccounts { own: probed, provider_files: named, ..SentAccounts::default() };
        assert_eq!(found(&host, "a@own.test"), Some(("imap.own.test".to_owned(), Filing::FromHere)));
        assert_eq!(found(&host, "no address"), None);
    }

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
