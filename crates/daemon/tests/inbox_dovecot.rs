//! Fetching from a real Dovecot, as the daemon does it for its accounts.

// Not every part of the servers is used here.
#![allow(dead_code)]

mod alone;
#[path = "../../mail/tests/servers/dovecot.rs"]
mod dovecot;

use std::time::Duration;

use alone::{Alone, until};
use dovecot::{Dovecot, USER};
use packetboat_mail::Security;
use packetboat_mail::account::Accounts;

fn accounts(server: &Dovecot, section: &str, password: &str, more: &str) -> Accounts {
    let port = match section {
        "imap" => server.imap(Security::Implicit).endpoint.port,
        _ => server.pop3(Security::Implicit).endpoint.port,
    };
    let authority = server.path("cert.pem");
    let text = format!(
        "[[account]]\nname = \"home\"\naddresses = [\"a@a.test\"]\n[account.{section}]\nhost = \"localhost\"\nport = {port}\n\
         user = {USER:?}\npassword = {password:?}\nca_file = {authority:?}\n{more}"
    );
    Accounts::parse(&text).unwrap()
}

const LONG: Duration = Duration::from_secs(600);
const SHORT: Duration = Duration::from_secs(1);

fn count(server: &Dovecot, mailbox: &str) -> usize {
    server.doveadm(&["search", "-u", USER, "mailbox", mailbox, "ALL"]).lines().count()
}

#[test]
fn mail_comes_as_it_arrives_and_trouble_is_told_and_mended() {
    alone::run(async |home| {
        let Some(server) = Dovecot::start() else { return };
        let alone = Alone::start(home, accounts(&server, "imap", "wrong", ""), LONG);
        server.save("INBOX", b"Subject: one\r\n\r\nbody\r\n");
        until("the wrong password is told", || alone.is("refused")).await;
        assert!(alone.stands().hint.is_some_and(|hint| hint.contains("password")));
        let files = || alone.files("").len();
        assert_eq!(files(), 0);
        alone.set(accounts(&server, "imap", dovecot::PASSWORD, ""));
        until("what was there comes", || files() == 1).await;
        until("it is watched", || alone.is("watching")).await;
        server.save("INBOX", b"Subject: two\r\n\r\nbody\r\n");
        until("what arrives comes at once, long before the interval", || files() == 2).await;
        assert_eq!(count(&server, "INBOX"), 2, "it stays at the server");
        // Alone, this device is all that is to hold it.
        alone.set(accounts(&server, "imap", dovecot::PASSWORD, "at_server = \"delete\""));
        until("it is deleted where the account says so", || count(&server, "INBOX") == 0).await;
        assert_eq!(files(), 2);
        alone.end().await;
    });
}

#[test]
fn mail_in_other_mailboxes_comes_at_once_where_the_server_tells_of_it() {
    alone::run(async |home| {
        let Some(server) = Dovecot::start() else { return };
        server.doveadm(&["mailbox", "create", "-u", USER, "Lists", "Lists.rust", "Other"]);
        let wanted = "mailboxes = [\"INBOX\", \"Lists.rust\", \"Lists\"]";
        let alone = Alone::start(home, accounts(&server, "imap", dovecot::PASSWORD, wanted), LONG);
        until("it is watched", || alone.is("watching")).await;
        let mut fetched = alone.stands().fetched;
        fetched.mailboxes.sort();
        fetched.at_once.sort();
        assert_eq!(fetched.mailboxes, ["INBOX", "Lists", "Lists.rust"]);
        assert_eq!(fetched.at_once, fetched.mailboxes);
        server.save("Other", b"Subject: none\r\n\r\nbody\r\n");
        for (mailbox, folder) in [("Lists.rust", ".Lists.rust"), ("INBOX", ""), ("Lists", ".Lists")] {
            server.save(mailbox, b"Subject: one\r\n\r\nbody\r\n");
            until("it comes long before the interval", || alone.files(folder).len() == 1).await;
        }
        assert!(alone.files(".Other").is_empty());
        alone.end().await;
    });
}

#[test]
fn mail_in_other_mailboxes_comes_in_each_interval_where_the_server_does_not_tell() {
    alone::run(async |home| {
        let Some(server) = Dovecot::start_with("imap_capability = IMAP4rev1 IDLE UIDPLUS AUTH=PLAIN\n") else { return };
        server.doveadm(&["mailbox", "create", "-u", USER, "Lists"]);
        let alone = Alone::start(home, accounts(&server, "imap", dovecot::PASSWORD, "mailboxes = [\"*\"]"), SHORT);
        until("it is watched", || alone.is("watching")).await;
        assert_eq!(alone.stands().fetched.at_once, ["INBOX"]);
        server.save("Lists", b"Subject: one\r\n\r\nbody\r\n");
        until("it comes with an interval", || alone.files(".Lists").len() == 1).await;
        // One that comes to be is fetched too.
        server.doveadm(&["mailbox", "create", "-u", USER, "Made"]);
        server.save("Made", b"Subject: one\r\n\r\nbody\r\n");
        until("it comes with an interval", || alone.files(".Made").len() == 1).await;
        alone.end().await;
    });
}

#[test]
fn mail_comes_by_pop3_in_each_interval_and_trouble_is_told_and_mended() {
    alone::run(async |home| {
        let Some(server) = Dovecot::start() else { return };
        let alone = Alone::start(home, accounts(&server, "pop3", "wrong", ""), SHORT);
        let message = |number: u32| format!("Subject: {number}\r\n\r\n.dot\r\n..\r\n\u{e9}\r\n");
        (1..=3).for_each(|number| server.save("INBOX", message(number).as_bytes()));
        until("the wrong password is told", || alone.is("refused")).await;
        assert!(alone.stands().hint.is_some_and(|hint| hint.contains("password")));
        assert!(alone.files("").is_empty());
        alone.set(accounts(&server, "pop3", dovecot::PASSWORD, ""));
        until("what was there comes", || alone.files("").len() == 3).await;
        until("it polls", || alone.is("polling")).await;
        server.save("INBOX", message(4).as_bytes());
        until("what arrives comes with an interval", || alone.files("").len() == 4).await;
        let mut there: Vec<_> = alone.files("").iter().map(|file| std::fs::read_to_string(file).unwrap()).collect();
        there.sort();
        assert_eq!(there, (1..=4).map(|number| message(number).replace("\r\n", "\n")).collect::<Vec<_>>());

        // What its user deletes here is not fetched again, and stays at the server.
        std::fs::remove_file(&alone.files("")[0]).unwrap();
        server.save("INBOX", message(5).as_bytes());
        until("the next one comes", || alone.files("").len() == 4).await;
        assert_eq!(count(&server, "INBOX"), 5);
        alone.set(accounts(&server, "pop3", dovecot::PASSWORD, "at_server = \"delete\""));
        until("all are deleted where the account says so", || count(&server, "INBOX") == 0).await;
        assert_eq!(alone.files("").len(), 4);
        alone.end().await;
    });
}
