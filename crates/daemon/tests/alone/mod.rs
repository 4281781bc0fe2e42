//! A daemon's fetching alone, without another device, for tests of what it does with its servers.

#![allow(dead_code, reason = "each of those who include it uses a part of it")]

use std::sync::Arc;
use std::time::Duration;

use packetboat_daemon::clock::{BootClock, Clock};
use packetboat_daemon::inbox::fetcher::{self, Fetching};
use packetboat_daemon::inbox::office::{Office, OfficeParts};
use packetboat_daemon::inbox::status::{AccountState, States};
use packetboat_daemon::paths::PathWatch;
use packetboat_engine::ports::Entropy;
use packetboat_mail::account::Accounts;
use tokio::sync::watch;
use tokio::time::{sleep, timeout};

/// A daemon's fetching alone, without another device, until dropped.
pub(crate) struct Alone {
    home: tempfile::TempDir,
    states: States,
    change: watch::Sender<Fetching>,
    _networks: watch::Sender<u64>,
    running: tokio::task::JoinHandle<()>,
}

impl Alone {
    pub(crate) fn start(own: Accounts, poll: Duration) -> Self {
        Self::start_with(own, poll, Duration::from_secs(60))
    }

    /// The same where a token that is so old, and is refused, is taken for one that expired.
    pub(crate) fn start_with(own: Accounts, poll: Duration, token_age: Duration) -> Self {
        let home = tempfile::tempdir().unwrap();
        let clock: Arc<dyn Clock> = Arc::new(BootClock::new([9; 16]));
        let office = Office::new(OfficeParts {
            record: home.path().join("inbox.db"),
            maildir: home.path().join("Mail"),
            host_name: "host".to_owned(),
            clock: clock.clone(),
            entropy: Box::new(Ones),
            paired: false,
        });
        let states = States::default();
        let (of_host, connect) = (Accounts::default(), Duration::from_secs(10));
        let fetching = Fetching { own, of_host, poll, connect, token_age };
        let (change, wanted) = watch::channel(fetching);
        let (networks, appearing) = watch::channel(0);
        let running = tokio::spawn(fetcher::run(office, states.clone(), PathWatch::new(clock), wanted, appearing));
        Self { home, states, change, _networks: networks, running }
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
    pub(crate) fn files(&self, folder: &str) -> Vec<std::path::PathBuf> {
        let entries = std::fs::read_dir(self.home.path().join("Mail").join(folder).join("new"));
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

struct Ones;

impl Entropy for Ones {
    fn fill(&mut self, buffer: &mut [u8]) {
        buffer.fill(1);
    }

    fn fork(&mut self) -> Box<dyn Entropy> {
        Box::new(Self)
    }
}
