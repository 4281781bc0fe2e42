//! Mail in, by this device's own path: each account's inbox is watched or asked, and what is new is delivered, once.
//!
//! One deliverer serves all accounts in turn, since the record and the Maildir have one writer. An IMAP inbox is watched
//! by IDLE on a connection of its own; a POP3 maildrop, and an inbox whose server is silent, are asked at intervals.
//! Whatever fails is tried again; what the server refuses for good, such as a login, waits for the next start or SIGHUP.
//!
//! Left out: deleting at the server, and what the other device fetched.

use std::path::Path;
use std::sync::{Arc, Mutex as StdMutex};
use std::time::{Duration, SystemTime};

use packetboat_engine::ports::Entropy;
use packetboat_mail::account::{Account, Accounts, Incoming};
use packetboat_mail::fetched::{DeliverError, Deliverer, FetchedError};
use packetboat_mail::imap::{Backoff, ImapAccount, ImapSession, Watched, pull_mailbox, watch_mailbox};
use packetboat_mail::maildir::{FolderName, Maildir, MaildirError, UniqueNames};
use packetboat_mail::pop3::{Pop3Account, Pop3Session, pull_maildrop};
use packetboat_mail::smtp::{Login, Security as SmtpSecurity, Trust};
use packetboat_mail::{Credentials, Deadlines, Endpoint, Security};
use thiserror::Error;
use tokio::sync::{Mutex, mpsc};
use tokio::task::JoinSet;
use tokio::time::{sleep, timeout};

use crate::clock::Clock;
use crate::files::with_causes;
use crate::inbox_store::InboxStore;

type MailDeliverer = Deliverer<InboxStore, Maildir>;

/// The Maildir and the record, for all accounts.
pub struct Inbox {
    deliverer: Mutex<Option<MailDeliverer>>,
    poll: Duration,
    entropy: StdMutex<Box<dyn Entropy>>,
}

impl Inbox {
    /// Opens record and Maildir, and puts in order what a crash left. It blocks on the disk.
    pub fn open(
        record: &Path,
        maildir: &Path,
        host: &str,
        poll: Duration,
        clock: Arc<dyn Clock>,
        mut entropy: Box<dyn Entropy>,
    ) -> Result<Self, InboxError> {
        let mut random = [0; 8];
        entropy.fill(&mut random);
        let names = UniqueNames::new(host, std::process::id(), u64::from_le_bytes(random));
        let clock = Arc::new(move || SystemTime::UNIX_EPOCH + Duration::from_millis(clock.now().wall_ms));
        let deliverer = Deliverer::open(InboxStore::open(record)?, Maildir::open(maildir)?, names, clock)?;
        Ok(Self { deliverer: Mutex::new(Some(deliverer)), poll, entropy: StdMutex::new(entropy) })
    }

    /// Fetches for all accounts until it is dropped.
    pub async fn run(self: Arc<Self>, accounts: Accounts) {
        let mut tasks = JoinSet::new();
        for account in accounts.iter().cloned() {
            if let Some(imap) = account.imap.clone() {
                tasks.spawn(self.clone().follow_imap(account.clone(), imap));
            }
            if let Some(pop3) = account.pop3.clone() {
                tasks.spawn(self.clone().follow_pop3(account, pop3));
            }
        }
        while tasks.join_next().await.is_some() {}
    }

    async fn follow_imap(self: Arc<Self>, account: Account, imap: Incoming) {
        loop {
            match prepare_imap(&imap).await {
                Ok((endpoint, tls, credentials)) => {
                    let at_server = ImapAccount { endpoint, tls, credentials, deadlines: Deadlines::default() };
                    if self.watch(&account.name, &at_server).await == Next::GiveUp {
                        return;
                    }
                }
                Err(why) => tracing::warn!(account = account.name, why, "mail cannot be fetched"),
            }
            sleep(self.poll).await;
        }
    }

    /// Fetches whenever the server says that something happened, and at intervals in any case.
    async fn watch(&self, account: &str, at_server: &ImapAccount) -> Next {
        let (listener, mut watched) = mpsc::channel(8);
        let chance = || {
            let mut byte = [0];
            self.entropy.lock().unwrap_or_else(|poisoned| poisoned.into_inner()).fill(&mut byte);
            byte[0]
        };
        let watching = watch_mailbox(at_server, INBOX, RENEWAL, Backoff::default(), chance, listener);
        let fetching = async {
            loop {
                match timeout(self.poll, watched.recv()).await {
                    Ok(None) => return Next::Again,
                    Ok(Some(Watched::Refused { error })) => {
                        tracing::error!(account, error = with_causes(&error), "the server refuses the login");
                        return Next::GiveUp;
                    }
                    Ok(Some(Watched::Lost { error, pause })) => {
                        tracing::info!(account, ?pause, error = with_causes(&error), "the server is not reached");
                        continue;
                    }
                    Ok(Some(Watched::Connected | Watched::News)) | Err(_) => {}
                }
                if let Err(why) = self.pull_imap(account, at_server).await {
                    tracing::info!(account, why, "mail was not fetched");
                }
            }
        };
        tokio::select! {
            () = watching => Next::Again,
            next = fetching => next,
        }
    }

    async fn pull_imap(&self, account: &str, at_server: &ImapAccount) -> Result<(), String> {
        let mut session = ImapSession::open(at_server).await.map_err(|error| with_causes(&error))?;
        let mut place = self.deliverer.lock().await;
        let deliverer = place.take().ok_or("the inbox failed before; start the daemon again")?;
        let (back, pulled) = pull_mailbox(&mut session, account, INBOX, &FolderName::inbox(), deliverer).await;
        *place = back;
        drop(place);
        session.close().await;
        let report = pulled.map_err(|error| with_causes(&error))?;
        if report.summary.delivered > 0 {
            tracing::info!(account, delivered = report.summary.delivered, "mail came");
        }
        Ok(())
    }

    async fn follow_pop3(self: Arc<Self>, account: Account, pop3: Incoming) {
        loop {
            let pulled = match prepare(&pop3, 995, 110).await {
                Ok((endpoint, tls, credentials)) => {
                    let at_server = Pop3Account { endpoint, tls, credentials, deadlines: Deadlines::default() };
                    let (inbox, name) = (self.clone(), account.name.clone());
                    let runtime = tokio::runtime::Handle::current();
                    // The compiler cannot see that this future may move between threads; here it need not.
                    let pulling = move || runtime.block_on(inbox.pull_pop3(&name, &at_server));
                    tokio::task::spawn_blocking(pulling).await.unwrap_or_else(|error| Err(error.to_string()))
                }
                Err(why) => Err(why),
            };
            if let Err(why) = pulled {
                tracing::info!(account = account.name, why, "mail was not fetched");
            }
            sleep(self.poll).await;
        }
    }

    async fn pull_pop3(&self, account: &str, at_server: &Pop3Account) -> Result<(), String> {
        let mut session = Pop3Session::open(at_server).await.map_err(|error| with_causes(&error))?;
        let mut place = self.deliverer.lock().await;
        let deliverer = place.take().ok_or("the inbox failed before; start the daemon again")?;
        let (back, pulled) = pull_maildrop(&mut session, account, &FolderName::inbox(), deliverer).await;
        *place = back;
        drop(place);
        let report = pulled.map_err(|error| with_causes(&error))?;
        session.quit().await.map_err(|error| with_causes(&error))?;
        if report.summary.delivered > 0 {
            tracing::info!(account, delivered = report.summary.delivered, "mail came");
        }
        Ok(())
    }
}

#[derive(Clone, Copy, PartialEq, Eq, Debug)]
enum Next {
    Again,
    GiveUp,
}

/// An account's IMAP server.
pub(crate) async fn prepare_imap(
    incoming: &Incoming,
) -> Result<(Endpoint, Arc<rustls::ClientConfig>, Credentials), String> {
    prepare(incoming, 993, 143).await
}

/// Where a server is and how it is logged into; finding the password may mean to run a command.
async fn prepare(
    incoming: &Incoming,
    implicit: u16,
    upgrade: u16,
) -> Result<(Endpoint, Arc<rustls::ClientConfig>, Credentials), String> {
    let login = incoming.credentials().map_err(|error| with_causes(&error))?.login().await;
    let credentials = match login.map_err(|error| with_causes(&error))? {
        Login::Password { user, password } => Credentials::Password { user, password },
        Login::Token { user, token } => Credentials::Token { user, token },
        Login::Anonymous => return Err("the account has no password".to_owned()),
    };
    let (security, usual) = match incoming.security {
        SmtpSecurity::Tls => (Security::Implicit, implicit),
        SmtpSecurity::Starttls => (Security::Upgrade, upgrade),
        SmtpSecurity::Plain => (Security::None, upgrade),
    };
    let endpoint = Endpoint { host: incoming.host.clone(), port: incoming.port.unwrap_or(usual), security };
    let trust = Trust::load(incoming.ca_file.as_deref()).map_err(|error| with_causes(&error))?;
    Ok((endpoint, trust.config(), credentials))
}

/// Why mail cannot be delivered here.
#[derive(Debug, Error)]
pub enum InboxError {
    /// The record.
    #[error("the record of fetched mail cannot be used")]
    Record(#[from] FetchedError),
    /// The Maildir.
    #[error("the Maildir cannot be used")]
    Maildir(#[from] MaildirError),
    /// What a crash left cannot be put in order.
    #[error("what was being delivered cannot be put in order")]
    Deliver(#[from] DeliverError),
}

const INBOX: &str = "INBOX";

/// Servers may end an IDLE after half an hour (RFC 2177).
const RENEWAL: Duration = Duration::from_secs(25 * 60);
