//! How fetching stands for each account, for whoever shows it: what works since when, and what to do about what does not.

use std::collections::BTreeMap;
use std::error::Error;
use std::io;
use std::sync::{Arc, Mutex, PoisonError};

use packetboat_mail::ConnectError;
use packetboat_mail::account::{SecretError, ServerError};
use packetboat_mail::fetched::{DeliverError, PullError};
use packetboat_mail::imap::ImapError;
use packetboat_mail::maildir::MaildirError;
use packetboat_mail::pop3::Pop3Error;
use serde::{Deserialize, Serialize};
use thiserror::Error;

use super::office::OfficeError;
use crate::files::with_causes;

/// How fetching stands for one account.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub struct AccountState {
    /// What the account is called in the configuration.
    pub account: String,
    /// `imap` or `pop3`.
    pub protocol: String,
    /// `starting`, `watching`, `polling`, `failing`, or `refused` where no try can help until someone changes something.
    pub state: String,
    /// When a round last went well, in milliseconds since 1970.
    pub last_success_ms: Option<u64>,
    /// What that round fetched.
    #[serde(flatten)]
    pub fetched: Fetched,
    /// Why the last one did not.
    pub error: Option<String>,
    /// What to do about it.
    pub hint: Option<String>,
}

/// The mailboxes of an account, as people read their names.
#[derive(Clone, PartialEq, Eq, Default, Debug, Serialize, Deserialize)]
pub struct Fetched {
    /// All that are fetched.
    pub mailboxes: Vec<String>,
    /// Those of them in which the server tells what comes; the others are looked at in each interval.
    pub at_once: Vec<String>,
}

/// How fetching stands for all accounts.
#[derive(Clone, Default, Debug)]
pub struct States(Arc<Mutex<BTreeMap<String, AccountState>>>);

impl States {
    /// All of them, in the order of their names.
    pub fn all(&self) -> Vec<AccountState> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner).values().cloned().collect()
    }

    pub(super) fn clear(&self) {
        self.0.lock().unwrap_or_else(PoisonError::into_inner).clear();
    }

    fn change(&self, of: &Labels, change: impl FnOnce(&mut AccountState)) {
        let mut states = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        let state = states.entry(of.identity.clone()).or_insert_with(|| AccountState {
            account: of.account.clone(),
            protocol: of.protocol.to_owned(),
            state: "starting".to_owned(),
            last_success_ms: None,
            fetched: Fetched::default(),
            error: None,
            hint: None,
        });
        change(state);
    }

    pub(super) fn starting(&self, of: &Labels) {
        self.change(of, |_| {});
    }

    pub(super) fn succeeded(&self, of: &Labels, state: &str, fetched: Fetched, now_ms: u64) {
        self.change(of, |of| {
            of.fetched = fetched;
            (of.state, of.last_success_ms, of.error, of.hint) = (state.to_owned(), Some(now_ms), None, None);
        });
    }

    pub(super) fn failed(&self, of: &Labels, trouble: &Trouble) {
        self.change(of, |of| {
            of.state = if trouble.is_final() { "refused" } else { "failing" }.to_owned();
            of.error = Some(trouble.in_words());
            of.hint = trouble.hint().map(str::to_owned);
        });
    }
}

/// What an account is called, here and in the record.
#[derive(Clone, PartialEq, Eq, Debug)]
pub(super) struct Labels {
    pub(super) account: String,
    pub(super) identity: String,
    pub(super) protocol: &'static str,
}

/// Why a round of fetching failed.
#[derive(Debug, Error)]
pub enum Trouble {
    /// The account is not even tried.
    #[error(transparent)]
    Account(#[from] ServerError),
    /// The IMAP session failed.
    #[error(transparent)]
    Imap(#[from] ImapError),
    /// The POP3 session failed.
    #[error(transparent)]
    Pop3(#[from] Pop3Error),
    /// The record or the Maildir failed.
    #[error(transparent)]
    Office(#[from] OfficeError),
    /// The server does not have a mailbox that the account names.
    #[error("the server has no mailbox {mailbox:?}")]
    NoMailbox {
        /// As the account names it.
        mailbox: String,
    },
    /// A mailbox has no place in a Maildir.
    #[error(transparent)]
    Folder(#[from] packetboat_mail::maildir::FolderNameError),
    /// Some messages did not come; they are asked for again.
    #[error("the server does not give {count} of the new messages: {said}")]
    Missing {
        /// How many.
        count: u64,
        /// What it said.
        said: String,
    },
}

impl<E: Error + 'static> From<PullError<E>> for Trouble
where
    Self: From<E>,
{
    fn from(error: PullError<E>) -> Self {
        match error {
            PullError::Session(error) => error.into(),
            PullError::Record(error) => Self::Office(error.into()),
            PullError::Deliver(error) => Self::Office(error.into()),
            PullError::Panicked => Self::Office(OfficeError::Panicked),
        }
    }
}

impl Trouble {
    /// The trouble and its causes, in one line.
    pub fn in_words(&self) -> String {
        with_causes(self)
    }

    /// Whether no further try can help until someone changes the account.
    pub fn is_final(&self) -> bool {
        match self {
            Self::Account(ServerError::Secret(error)) => {
                !matches!(error, SecretError::Deadline | SecretError::Expired { .. })
            }
            Self::Account(ServerError::Setting(_)) => true,
            Self::Imap(error) => error.is_final(),
            Self::Pop3(error) => error.is_final(),
            _ => false,
        }
    }

    /// Whether the server does not accept the login.
    pub fn is_refused_login(&self) -> bool {
        matches!(self, Self::Imap(ImapError::LoginRefused { .. }) | Self::Pop3(Pop3Error::LoginRefused { .. }))
    }

    /// Whether it is this device's way out that fails, and not the server or the disk.
    pub fn is_of_path(&self) -> bool {
        match self.connect() {
            Some(error) => error.is_of_path(),
            None => matches!(
                self,
                Self::Imap(ImapError::Broken(_)) | Self::Pop3(Pop3Error::Broken(_) | Pop3Error::Silent(_))
            ),
        }
    }

    /// What a person can do about it, where there is something.
    pub fn hint(&self) -> Option<&'static str> {
        if let Some(error) = self.connect() {
            return Some(match error.is_of_path() {
                true => "it is tried again, and the other device fetches meanwhile; look at host and port if it stays",
                false => error.hint(),
            });
        }
        match self {
            Self::Account(ServerError::Secret(SecretError::Expired { .. })) => {
                Some("the host lends a fresh one when the link is up")
            }
            Self::Account(ServerError::Secret(_)) => Some("look at how the account gets its password"),
            Self::Account(ServerError::Setting(_)) => Some("look at `ca_file` in the account"),
            Self::Imap(error) => error.hint(),
            Self::Pop3(error) => error.hint(),
            Self::NoMailbox { .. } => Some("look at `mailboxes` in the account; [\"*\"] is all that there are"),
            Self::Office(OfficeError::Deliver(DeliverError::Folders(error))) => Some(match error {
                MaildirError::NotADirectory { .. } => {
                    "a file stands where the Maildir should be: move it away, or name another place as inbox.maildir in \
                     daemon.toml"
                }
                MaildirError::NotWritable { .. } => "look at who owns the Maildir and whether it is mounted read-only",
                MaildirError::Full { .. } => "free some space; nothing was lost, and it is fetched again",
                MaildirError::Io { source, .. } if source.kind() == io::ErrorKind::NotFound => {
                    "the directory that the Maildir lies in is not there; is its disk mounted?"
                }
                MaildirError::Io { .. } => "look at the disk that holds the Maildir",
            }),
            _ => None,
        }
    }

    fn connect(&self) -> Option<&ConnectError> {
        let mut next: Option<&(dyn Error + 'static)> = Some(self);
        while let Some(error) = next {
            if let Some(found) = error.downcast_ref::<ConnectError>() {
                return Some(found);
            }
            match error.downcast_ref() {
                Some(Self::Imap(ImapError::Connect(found)) | Self::Pop3(Pop3Error::Connect(found))) => {
                    return Some(found);
                }
                _ => next = error.source(),
            }
        }
        None
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_trouble_of_an_account_has_a_hint() {
        let untrusted = ConnectError::Untrusted { host: "h".to_owned(), source: io::Error::other("expired") };
        let unreachable = ConnectError::Unreachable(io::Error::from(io::ErrorKind::NetworkUnreachable));
        let a_file = MaildirError::NotADirectory { path: "/home/a/Mail".into() };
        let refused = Pop3Error::LoginRefused { reply: "no".to_owned() };
        for (trouble, word, is_final, is_of_path) in [
            (Trouble::Imap(untrusted.into()), "ca_file", false, false),
            (Trouble::Imap(unreachable.into()), "again", false, true),
            (Trouble::Office(OfficeError::Deliver(a_file.into())), "inbox.maildir", false, false),
            (Trouble::Pop3(refused), "password", true, false),
            (Trouble::Account(SecretError::Empty.into()), "password", true, false),
        ] {
            assert!(trouble.hint().is_some_and(|hint| hint.contains(word)), "{trouble}: {:?}", trouble.hint());
            assert_eq!((trouble.is_final(), trouble.is_of_path()), (is_final, is_of_path), "{trouble}");
        }
    }
}
