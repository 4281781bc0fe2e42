//! Fetching from the servers of all accounts, by this device's own path, for as long as the daemon runs.
//!
//! Each account has a task of its own, so that a server that is slow or gone holds up no other. An IMAP account is pulled
//! when a connection stands, when the server says that something happened (IDLE; of mailboxes beside the inbox with NOTIFY),
//! and once in each interval of the settings, which also finds what a server does not tell of; a POP3 account in each
//! interval.
//! A failure is followed by ever longer pauses; a network that appears ends the pause.
//! At the server a message is deleted only where the account says so and once both devices hold it, which the exchange
//! finds out ([`Office::deletable_uids`]).

use std::sync::Arc;
use std::time::Duration;

use packetboat_mail::Deadlines;
use packetboat_mail::account::{Accounts, AtServer};
use packetboat_mail::fetched::{MailboxKey, Summary};
use packetboat_mail::imap::{
    Access, Backoff, Deleted, ImapAccount, ImapError, ImapSession, Watched, pull_mailbox, readable, watch_mailboxes,
};
use packetboat_mail::maildir::FolderName;
use packetboat_mail::pop3::{Pop3Session, pull_maildrop};
use packetboat_mail::smtp::Kind;
use tokio::sync::{mpsc, watch};
use tokio::task::JoinSet;
use tokio::time::{Instant, sleep, sleep_until};

use super::office::Office;
use super::resolve::{Protocol, Source, mailboxes, sources};
use super::status::{Fetched, States, Trouble};
use crate::paths::PathWatch;

/// What is fetched and how; a change has everything begun anew.
#[derive(Clone, Debug)]
pub struct Fetching {
    /// This device's own accounts.
    pub own: Accounts,
    /// Those that its host gave it.
    pub of_host: Accounts,
    /// How often servers are asked.
    pub poll: Duration,
    /// How long a connection may take to stand.
    pub connect: Duration,
    /// Whoever is refused with a token that is this old has one that expired; one that is refused sooner was never good.
    pub token_age: Duration,
}

/// Fetches until `fetching` has no sender any more. A change of `networks` says that a way out appeared.
pub async fn run(
    office: Arc<Office>,
    states: States,
    path: PathWatch,
    mut fetching: watch::Receiver<Fetching>,
    networks: watch::Receiver<u64>,
) {
    office.tidy().await;
    loop {
        let wanted = fetching.borrow_and_update().clone();
        states.clear();
        let mut tasks = JoinSet::new();
        for source in sources(&wanted.own, &wanted.of_host) {
            let fetcher = Fetcher {
                office: office.clone(),
                states: states.clone(),
                path: path.clone(),
                networks: networks.clone(),
                shared: office.shared(),
                poll: wanted.poll,
                token_age: wanted.token_age,
                deadlines: Deadlines { connect: wanted.connect, ..Deadlines::default() },
                failures: 0,
                source,
            };
            states.starting(&fetcher.source.labels);
            tasks.spawn(fetcher.run());
        }
        if fetching.changed().await.is_err() {
            return;
        }
        // A round that is aborted leaves what its deliverer records, and the next deliverer puts it in order.
        tasks.shutdown().await;
    }
}

/// The task of one account.
struct Fetcher {
    office: Arc<Office>,
    states: States,
    path: PathWatch,
    networks: watch::Receiver<u64>,
    shared: watch::Receiver<u64>,
    poll: Duration,
    token_age: Duration,
    deadlines: Deadlines,
    failures: u32,
    source: Source,
}

impl Fetcher {
    async fn run(mut self) {
        loop {
            let began = Instant::now();
            let ended = match self.source.protocol {
                Protocol::Imap => self.watch_imap().await,
                Protocol::Pop3 => self.poll_pop3().await,
            };
            self.failures = self.failures.saturating_add(1);
            let pause = match ended {
                Ok(()) => Duration::ZERO,
                Err(trouble) => {
                    if self.source.is_by_command() && trouble.is_refused_login() && began.elapsed() > self.token_age {
                        // The token was good when the round began; the next round has another.
                        continue;
                    }
                    self.note(&trouble);
                    // Passwords are changed at servers too, and the account may be right again without a word to us.
                    if trouble.is_final() { REFUSED } else { self.backoff().pause(self.failures, self.office.chance()) }
                }
            };
            let _woken = self.wait(pause, false).await;
        }
    }

    /// Watches and pulls until something fails that a new connection may mend, or a network appears.
    async fn watch_imap(&mut self) -> Result<(), Trouble> {
        self.source.still_good(self.office.now_ms())?;
        let account = self.source.incoming.imap_account(self.deadlines).await?;
        let (listener, mut watched) = mpsc::channel(8);
        let mut watching = JoinSet::new();
        watching.spawn({
            let (account, office, backoff) = (account.clone(), self.office.clone(), self.backoff());
            let wanted = self.source.incoming.mailboxes.clone();
            async move { watch_mailboxes(&account, &wanted, RENEWAL, backoff, || office.chance(), listener).await }
        });
        let mut next_poll = Instant::now() + self.poll;
        let mut tells_of_all = false;
        loop {
            let due = tokio::select! {
                said = watched.recv() => match said {
                    Some(Watched::Connected { all }) => {
                        tells_of_all = all;
                        true
                    }
                    Some(Watched::News) => true,
                    Some(Watched::Lost { error, .. }) => {
                        self.note(&error.into());
                        false
                    }
                    Some(Watched::Refused { error }) => return Err(error.into()),
                    None => return Ok(()),
                },
                () = sleep_until(next_poll) => true,
                Ok(()) = self.networks.changed() => return Ok(()),
                Ok(()) = self.shared.changed(), if self.source.incoming.at_server == AtServer::Delete => true,
            };
            if !due {
                continue;
            }
            next_poll = Instant::now() + self.poll;
            match self.pull_imap(&account).await {
                Ok(mailboxes) => {
                    let told = |mailbox: &&String| tells_of_all || mailbox.eq_ignore_ascii_case("INBOX");
                    let at_once = mailboxes.iter().filter(told).cloned().collect();
                    self.succeeded("watching", Fetched { mailboxes, at_once });
                }
                // The watcher goes on and pulls again when it has a connection.
                Err(trouble) if trouble.is_of_path() => self.note(&trouble),
                Err(trouble) => return Err(trouble),
            }
        }
    }

    /// Pulls every mailbox that is wanted, and gives the names of those that there are.
    async fn pull_imap(&mut self, account: &ImapAccount) -> Result<Vec<String>, Trouble> {
        let mut session = ImapSession::open(account).await?;
        self.path.succeeded();
        let (mailboxes, mut troubles) = mailboxes(&mut session, &self.source.incoming.mailboxes).await?;
        for (mailbox, folder) in &mailboxes {
            match self.pull_one(&mut session, mailbox, folder).await {
                Ok(()) => {}
                // One mailbox that cannot be read stops no other.
                Err(
                    trouble @ (Trouble::Missing { .. }
                    | Trouble::Imap(ImapError::Refused { .. } | ImapError::NoValidity)),
                ) => {
                    troubles.push(trouble);
                }
                Err(trouble) => return Err(trouble),
            }
        }
        session.close().await;
        let names = mailboxes.iter().map(|(mailbox, _)| readable(mailbox)).collect();
        troubles.into_iter().next().map_or(Ok(names), Err)
    }

    async fn pull_one(&mut self, session: &mut ImapSession, mailbox: &str, folder: &FolderName) -> Result<(), Trouble> {
        let identity = self.source.labels.identity.clone();
        let deliverer = self.office.deliverer().await?;
        let (mut deliverer, pulled) = pull_mailbox(session, &identity, mailbox, folder, deliverer).await;
        if pulled.is_err()
            && let Some(deliverer) = &mut deliverer
        {
            // What came whole before a failure is delivered, and the other device is to hear of it.
            self.tell(&deliverer.summary());
        }
        drop(deliverer);
        let report = pulled?;
        self.tell(&report.summary);
        if self.source.incoming.at_server == AtServer::Delete {
            let key = MailboxKey { account: identity.into(), mailbox: mailbox.into(), validity: report.validity };
            let deletable = self.office.deletable_uids(key).await?;
            if !deletable.is_empty() && session.select(mailbox, Access::Write).await?.validity == report.validity {
                let deleted = session.delete(&deletable).await?;
                let count = deletable.len();
                match deleted {
                    Deleted::Expunged => tracing::info!(mailbox, count, "both devices hold it: deleted at the server"),
                    Deleted::Marked => tracing::info!(mailbox, count, "both devices hold it: marked as deleted there"),
                }
                session.select(mailbox, Access::Read).await?;
                let gone = deletable;
                let key = MailboxKey {
                    account: self.source.labels.identity.as_str().into(),
                    mailbox: mailbox.into(),
                    validity: report.validity,
                };
                // Without UIDPLUS they are only marked; they count as gone, or they would be marked in each round.
                self.office
                    .with_store(move |store| packetboat_mail::fetched::FetchedStore::note(store, &key, &[], &gone, 0))
                    .await?;
            }
        }
        match report.missing.is_empty() {
            true => Ok(()),
            false => Err(Trouble::Missing {
                count: report.missing.len(),
                said: report.refusal.unwrap_or_else(|| "it says nothing about why".to_owned()),
            }),
        }
    }

    /// Pulls in each interval, until something fails.
    async fn poll_pop3(&mut self) -> Result<(), Trouble> {
        loop {
            self.source.still_good(self.office.now_ms())?;
            let account = self.source.incoming.pop3_account(self.deadlines).await?;
            let mut session = Pop3Session::open(&account).await?;
            self.path.succeeded();
            let identity = self.source.labels.identity.clone();
            let deliverer = self.office.deliverer().await?;
            let inbox = FolderName::inbox();
            let (_, pulled) = pull_maildrop(&mut session, &identity, &inbox, deliverer).await;
            if pulled.is_err() {
                // What came whole before a failure is delivered, and the other device is to hear of it.
                self.office.tell_news();
            }
            let report = pulled?;
            self.tell(&report.summary);
            let mut deletable = std::collections::BTreeSet::new();
            if self.source.incoming.at_server == AtServer::Delete {
                deletable = self.office.deletable_uidls(identity).await?;
                deletable.retain(|uidl| report.present.contains(uidl));
            }
            if deletable.is_empty() {
                session.quit().await?;
            } else {
                let count = session.delete_and_quit(&deletable).await?;
                tracing::info!(count, "both devices hold it: deleted at the server");
            }
            if report.missing > 0 {
                let said = "it says nothing about why".to_owned();
                return Err(Trouble::Missing { count: report.missing, said });
            }
            self.succeeded("polling", Fetched { mailboxes: vec!["INBOX".to_owned()], at_once: Vec::new() });
            self.wait(self.poll, true).await;
        }
    }

    /// Waits, but not longer than until a network appears or, where that matters, until both devices hold more.
    async fn wait(&mut self, pause: Duration, for_shared: bool) {
        let for_shared = for_shared && self.source.incoming.at_server == AtServer::Delete;
        tokio::select! {
            () = sleep(pause) => {}
            Ok(()) = self.networks.changed() => {}
            Ok(()) = self.shared.changed(), if for_shared => {}
        }
    }

    fn tell(&self, summary: &Summary) {
        if summary.delivered + summary.known_already > 0 {
            let account = &self.source.labels.account;
            tracing::info!(account, delivered = summary.delivered, "mail came");
            self.office.tell_news();
        }
    }

    fn succeeded(&mut self, state: &str, fetched: Fetched) {
        self.failures = 0;
        self.states.succeeded(&self.source.labels, state, fetched, self.office.now_ms());
    }

    fn note(&self, trouble: &Trouble) {
        let kind = if trouble.is_of_path() { Kind::Path } else { Kind::Account };
        let words = trouble.in_words();
        tracing::warn!(account = self.source.labels.account, error = words, "mail cannot be fetched");
        self.path.failed(&words, kind);
        self.states.failed(&self.source.labels, trouble);
    }

    /// Pauses no longer than the interval at which all would be well, or than a quarter of an hour.
    fn backoff(&self) -> Backoff {
        let usual = Backoff::default();
        Backoff { first: usual.first.min(self.poll), greatest: usual.greatest.min(self.poll.max(usual.first)) }
    }
}

/// Servers end an IDLE after half an hour (RFC 2177).
const RENEWAL: Duration = Duration::from_secs(29 * 60 - 10);

/// As a rule; no provider gives tokens that end sooner.
pub(crate) const TOKEN_AGE: Duration = Duration::from_secs(60);

/// After a login that was refused; many servers lock out who tries too often.
const REFUSED: Duration = Duration::from_secs(15 * 60);
