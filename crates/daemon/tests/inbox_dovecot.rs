//! Fetching from a real Dovecot, as the daemon does it for its accounts.

// Not every part of the servers is used here.
#![allow(dead_code)]

#[path = "../../mail/tests/servers/dovecot.rs"]
mod dovecot;

use std::sync::Arc;
use std::time::Duration;

use dovecot::{Dovecot, USER};
use packetboat_daemon::clock::{BootClock, Clock};
use packetboat_daemon::inbox::fetcher::{self, Fetching};
use packetboat_daemon::inbox::office::{Office, OfficeParts};
use packetboat_daemon::inbox::status::States;
use packetboat_daemon::paths::PathWatch;
use packetboat_engine::ports::Entropy;
use packetboat_mail::Security;
use packetboat_mail::account::Accounts;
use tokio::sync::watch;
use tokio::time::{sleep, timeout};

struct Ones;

impl Entropy for Ones {
    fn fill(&mut self, buffer: &mut [u8]) {
        buffer.fill(1);
    }

    fn fork(&mut self) -> Box<dyn Entropy> {
        Box::new(Self)
    }
}

fn accounts(server: &Dovecot, password: &str, more: &str) -> Accounts {
    let (port, authority) = (server.imap(Security::Implicit).endpoint.port, server.path("cert.pem"));
    let text = format!(
        "[[account]]\nname = \"home\"\naddresses = [\"a@a.test\"]\n[account.imap]\nhost = \"localhost\"\nport = {port}\n\
         user = {USER:?}\npassword = {password:?}\nca_file = {authority:?}\n{more}"
    );
    Accounts::parse(&text).unwrap()
}

async fn until(what: &str, mut holds: impl FnMut() -> bool) {
    let waited = timeout(Duration::from_secs(30), async {
        while !holds() {
            sleep(Duration::from_millis(20)).await;
        }
    });
    assert!(waited.await.is_ok(), "not within 30 s: {what}");
}

#[tokio::test(flavor = "multi_thread")]
async fn mail_comes_as_it_arrives_and_trouble_is_told_and_mended() {
    let Some(server) = Dovecot::start() else { return };
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
    let fetching = |own| Fetching {
        own,
        of_host: Accounts::default(),
        poll: Duration::from_secs(600),
        connect: Duration::from_secs(10),
    };
    let states = States::default();
    let (change, wanted) = watch::channel(fetching(accounts(&server, "wrong", "")));
    let (_networks, appearing) = watch::channel(0);
    let running = tokio::spawn(fetcher::run(office, states.clone(), PathWatch::new(clock), wanted, appearing));
    server.save("INBOX", b"Subject: one\r\n\r\nbody\r\n");
    until("the wrong password is told", || states.all().iter().any(|state| state.state == "refused")).await;
    assert!(states.all()[0].hint.as_deref().is_some_and(|hint| hint.contains("password")));
    let files = || std::fs::read_dir(home.path().join("Mail/new")).map_or(0, |entries| entries.count());
    assert_eq!(files(), 0);
    change.send_replace(fetching(accounts(&server, dovecot::PASSWORD, "")));
    until("what was there comes", || files() == 1).await;
    until("it is watched", || states.all().iter().any(|state| state.state == "watching")).await;
    server.save("INBOX", b"Subject: two\r\n\r\nbody\r\n");
    until("what arrives comes at once, long before the interval", || files() == 2).await;
    let count = || server.doveadm(&["search", "-u", USER, "mailbox", "INBOX", "ALL"]).lines().count();
    assert_eq!(count(), 2, "it stays at the server");
    // Alone, this device is all that is to hold it.
    change.send_replace(fetching(accounts(&server, dovecot::PASSWORD, "at_server = \"delete\"")));
    until("it is deleted where the account says so", || count() == 0).await;
    assert_eq!(files(), 2);
    drop(change);
    let _ended = timeout(Duration::from_secs(5), running).await;
}
