//! A daemon's fetching alone, without another device, for tests of what it does with its servers.

#![allow(dead_code, reason = "each of those who include it uses a part of it")]

use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use packetboat_daemon::clock::{BootClock, Clock};
use packetboat_daemon::inbox::fetcher::{self, Fetching};
use packetboat_daemon::inbox::office::{Office, OfficeParts};
use packetboat_daemon::inbox::status::{AccountState, States};
use packetboat_daemon::paths::PathWatch;
use packetboat_mail::account::Accounts;
use packetboat_testkit::rng::Rng;
use tokio::sync::watch;
use tokio::time::{sleep, timeout};

/// Runs a test of a daemon's fetching, which gets a place to live in.
///
/// That goes after the runtime: what a task began on a blocking thread goes on when the task is ended, and would make
/// anew what was removed under it.
pub(crate) fn run(test: impl AsyncFnOnce(&Path)) {
    let home = tempfile::tempdir().unwrap();
    tokio::runtime::Builder::new_multi_thread().enable_all().build().unwrap().block_on(test(home.path()));
}

/// A daemon's fetching alone, without another device, until dropped.
pub(crate) struct Alone {
    home: PathBuf,
    states: States,
    change: watch::Sender<Fetching>,
    _networks: watch::Sender<u64>,
    running: tokio::task::JoinHandle<()>,
}

impl Alone {
    pub(crate) fn start(home: &Path, own: Accounts, poll: Duration) -> Self {
        Self::start_with(home, own, poll, Duration::from_secs(60))
    }

    /// The same where a token that is so old, and is refused, is taken for one that expired.
    pub(crate) fn start_with(home: &Path, own: Accounts, poll: Duration, token_age: Duration) -> Self {
        let clock: Arc<dyn Clock> = Arc::new(BootClock::new([9; 16]));
        let office = Office::new(OfficeParts {
            record: home.join("inbox.db"),
            maildir: home.join("Mail"),
            host_name: "host".to_owned(),
            clock: clock.clone(),
            entropy: Box::new(Rng::new(1)),
            paired: false,
        });
        let states = States::default();
        let (of_host, connect) = (Accounts::default(), Duration::from_secs(10));
        let fetching = Fetching { own, of_host, poll, connect, token_age };
        let (change, wanted) = watch::channel(fetching);
        let (networks, appearing) = watch::channel(0);
        let running = tokio::spawn(fetcher::run(office, states.clone(), PathWatch::new(clock), wanted, appearing));
        Self { home: home.to_owned(), states, change, _networks: networks, running }
    }

    /// Goes by another account from now on.
    pub(crate) fn set(&self, own: Accounts) {
        self.change.send_modify(|fetching| fetching.own = own);
    }

    pub(crate) fn is(&self, state: &str) -> bool {
        self.states.all().iter().any(|account| account.state == state)
    }

    pub(crate) fn stands(&self) -> AccountState {
        self.states.all().into_iter().next().expect("there is an account")
    }

    /// The files of the inbox, or of a folder beneath it, which begins with a dot.
    pub(crate) fn files(&self, folder: &str) -> Vec<PathBuf> {
        let entries = std::fs::read_dir(self.home.join("Mail").join(folder).join("new"));
        entries.into_iter().flatten().flatten().map(|entry| entry.path()).collect()
    }

    pub(crate) async fn end(self) {
        drop(self.change);
        let _ended = timeout(Duration::from_secs(5), self.running).await;
    }
}

pub(crate) async fn until(what: &str, mut holds: impl FnMut() -> bool) {
    let waited = timeout(Duration::from_secs(30), async {
        while !holds() {
            sleep(Duration::from_millis(20)).await;
        }
    });
    assert!(waited.await.is_ok(), "not within 30 s: {what}");
}
