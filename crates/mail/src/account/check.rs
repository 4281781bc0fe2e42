//! Trying an account before the first mail: what is wrong with it is said when it is set up.
//!
//! Each server of the account is logged in to, and what is to be fetched is looked for; nothing is sent, fetched or
//! changed there.

use std::net::IpAddr;
use std::time::Duration;

use thiserror::Error;

use super::{Account, Incoming, ServerError};
use crate::connection::Deadlines;
use crate::imap::{Chosen, ImapError, ImapSession, readable};
use crate::maildir::FolderNameError;
use crate::pop3::{Pop3Error, Pop3Session};
use crate::smtp::{Capabilities, Connection, Failure};

/// What was found of each way that an account has; nothing of one that it has not.
#[derive(Debug)]
pub struct Checked {
    /// What the server can do that takes mail, or why it cannot be used.
    pub smtp: Option<Result<Capabilities, Problem>>,
    /// What there is to be fetched by IMAP, or why it cannot be.
    pub imap: Option<Result<Mailboxes, Problem>>,
    /// How many messages there are to be fetched by POP3, or why they cannot be.
    pub pop3: Option<Result<usize, Problem>>,
}

/// The mailboxes of a server, as people read their names.
#[derive(Clone, PartialEq, Eq, Default, Debug)]
pub struct Mailboxes {
    /// Those that the account has fetched.
    pub fetched: Vec<String>,
    /// The others.
    pub passed_over: Vec<String>,
}

/// How an account is tried.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Trying<'a> {
    /// What this computer calls itself to a server that takes mail.
    pub hello: &'a str,
    /// From which address, where that matters.
    pub source: Option<IpAddr>,
    /// How long a connection may take to stand.
    pub connect: Duration,
}

/// Logs in wherever the account does.
pub async fn check(account: &Account, trying: Trying<'_>) -> Checked {
    let smtp = async {
        match &account.smtp {
            None => None,
            Some(smtp) => Some(
                async {
                    let mut server = smtp.server(trying.hello, trying.source).await?;
                    let deadlines = &mut server.deadlines;
                    deadlines.connect = deadlines.connect.min(trying.connect);
                    // A server that waits for TLS says nothing in the clear, and a daemon would wait minutes for its word.
                    for deadline in
                        [&mut deadlines.lookup, &mut deadlines.tls, &mut deadlines.greeting, &mut deadlines.command]
                    {
                        *deadline = PATIENCE.min(*deadline);
                    }
                    let connection = Connection::open(&server).await?;
                    let capabilities = connection.capabilities();
                    connection.close().await;
                    Ok(capabilities)
                }
                .await,
            ),
        }
    };
    // One after the other: a command that asks for a password asks one question at a time.
    Checked {
        smtp: smtp.await,
        imap: match &account.imap {
            None => None,
            Some(imap) => Some(look_at_mailboxes(imap, trying).await),
        },
        pop3: match &account.pop3 {
            None => None,
            Some(pop3) => Some(count_messages(pop3, trying).await),
        },
    }
}

async fn look_at_mailboxes(imap: &Incoming, trying: Trying<'_>) -> Result<Mailboxes, Problem> {
    let mut session = ImapSession::open(&imap.imap_account(deadlines(trying)).await?).await?;
    let listed = session.mailboxes().await?;
    session.close().await;
    let chosen = Chosen::of(&listed, &imap.mailboxes);
    let name = |mailbox: &str| readable(mailbox);
    if let Some(mailbox) = chosen.missing.into_iter().next() {
        let there = listed.iter().filter(|there| there.selectable).map(|there| name(&there.name)).collect();
        return Err(Problem::NoMailbox { mailbox, there });
    }
    if let Some(error) = chosen.unplaced.into_iter().next() {
        return Err(error.into());
    }
    let is_fetched = |mailbox: &str| chosen.found.iter().any(|(found, _)| found == mailbox);
    let (fetched, passed_over): (Vec<_>, Vec<_>) =
        listed.iter().filter(|there| there.selectable).partition(|there| is_fetched(&there.name));
    let names = |mailboxes: Vec<&crate::imap::RemoteMailbox>| mailboxes.iter().map(|there| name(&there.name)).collect();
    Ok(Mailboxes { fetched: names(fetched), passed_over: names(passed_over) })
}

async fn count_messages(pop3: &Incoming, trying: Trying<'_>) -> Result<usize, Problem> {
    let mut session = Pop3Session::open(&pop3.pop3_account(deadlines(trying)).await?).await?;
    let count = session.list().await?.len();
    // What was found is found, whether or not the server says good-bye.
    let _left = session.quit().await;
    Ok(count)
}

/// Somebody waits for the answer, so none is waited for as long as by a daemon.
fn deadlines(trying: Trying<'_>) -> Deadlines {
    Deadlines { connect: trying.connect, silence: PATIENCE, answer: PATIENCE }
}

/// Why an account cannot be used.
#[derive(Debug, Error)]
pub enum Problem {
    /// It is not even tried.
    #[error(transparent)]
    Account(#[from] ServerError),
    /// The server that takes mail was tried.
    #[error(transparent)]
    Server(#[from] Failure),
    /// The server that mail is fetched from by IMAP was tried.
    #[error(transparent)]
    Imap(#[from] ImapError),
    /// The server that mail is fetched from by POP3 was tried.
    #[error(transparent)]
    Pop3(#[from] Pop3Error),
    /// A mailbox is to be fetched that the server does not have.
    #[error("the server has no mailbox {mailbox:?}, but {there:?}")]
    NoMailbox {
        /// As the account names it.
        mailbox: String,
        /// Those that it has.
        there: Vec<String>,
    },
    /// A mailbox has no place in a Maildir.
    #[error(transparent)]
    Folder(#[from] FolderNameError),
}

impl Problem {
    /// What a person can do about it, where there is something.
    pub fn hint(&self) -> Option<&'static str> {
        match self {
            Self::Account(ServerError::Setting(failure)) | Self::Server(failure) => failure.hint(),
            Self::Account(ServerError::Secret(_)) => Some("look at how the account gets its password"),
            Self::Imap(error) => error.hint(),
            Self::Pop3(error) => error.hint(),
            Self::NoMailbox { .. } | Self::Folder(_) => {
                Some("look at `mailboxes` in the account, or --mailbox; \"*\" is all that there are")
            }
        }
    }

    /// The problem and its causes, in one line.
    pub fn in_words(&self) -> String {
        in_words(self)
    }
}

/// An error and its causes, in one line.
pub(super) fn in_words(error: &dyn std::error::Error) -> String {
    let mut words = error.to_string();
    let mut cause = error.source();
    while let Some(error) = cause {
        let said = error.to_string();
        // Some errors say their cause themselves.
        if !words.ends_with(&said) {
            words = format!("{words}: {said}");
        }
        cause = error.source();
    }
    words
}

/// For an answer while somebody waits.
const PATIENCE: Duration = Duration::from_secs(30);
