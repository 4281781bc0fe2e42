//! Trying an account against Debian's Postfix and Dovecot: each way that it has, what is wrong told with a hint, and whether
//! the provider files in Sent what it takes.

mod servers;

use std::net::TcpListener;
use std::time::Duration;

use packetboat_mail::account::{
    Account, Accounts, Mailboxes, Patience, ProbeError, Problem, Trying, check, probe_sent,
};
use packetboat_mail::message::{Moment, Stamp};
use servers::{PASSWORD, Servers, USER};
use tokio::time::Instant;

fn account(text: &str) -> Account {
    Accounts::parse(text).unwrap().iter().next().unwrap().clone()
}

/// An account that is fetched by IMAP or POP3, with these lines.
fn fetched(servers: &Servers, section: &str, lines: &str) -> Account {
    account(&format!(
        "[[account]]\nname = \"a\"\naddresses = [\"alice@example.test\"]\n[account.{section}]\nuser = \"{USER}\"\n\
         ca_file = {:?}\n{lines}\n",
        servers.authority()
    ))
}

fn trying() -> Trying<'static> {
    Trying { hello: "laptop.test", source: Some("127.0.0.1".parse().unwrap()), connect: Duration::from_secs(2) }
}

async fn problem(account: &Account) -> Problem {
    let checked = check(account, trying()).await;
    assert!(checked.smtp.is_none());
    match (checked.imap, checked.pop3) {
        (Some(Err(problem)), None) | (None, Some(Err(problem))) => problem,
        other => panic!("{other:?}"),
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn what_is_wrong_with_a_server_that_mail_is_fetched_from_is_said_with_a_hint() {
    let Some(servers) = Servers::start() else { return };
    // One that takes connections and says nothing, as a firewall's idea of a server.
    let silent = TcpListener::bind("127.0.0.1:0").unwrap();
    let silent = silent.local_addr().unwrap().port();
    let other = format!("ca_file = \"{}/tests/servers/some-authority.pem\"", env!("CARGO_MANIFEST_DIR"));
    for (section, tls, starttls) in [("imap", servers.imaps, servers.imap), ("pop3", servers.pop3s, servers.pop3)] {
        let good = format!("host = \"localhost\"\nport = {tls}\npassword = \"{PASSWORD}\"");
        let with = |from: &str, to: &str| fetched(&servers, section, &good.replace(from, to));
        let distrusting = account(&format!(
            "[[account]]\nname = \"a\"\naddresses = [\"a@b.test\"]\n[account.{section}]\nuser = \"{USER}\"\n{other}\n{good}"
        ));
        for (account, word, hint) in [
            (with(PASSWORD, "wrong"), "refused the login", "made for one program"),
            (distrusting, "certificate of localhost is not trusted", "ca_file"),
            (with("localhost", "nowhere.invalid"), "address of nowhere.invalid", "`host`"),
            (with("localhost", "127.0.0.2"), "cannot connect", "host and port"),
            (with(&tls.to_string(), &silent.to_string()), "no connection within 2s", "security"),
            (with(&tls.to_string(), &starttls.to_string()), "handshake failed", "security"),
            (
                with(&format!("password = \"{PASSWORD}\""), "password_command = \"exit 1\""),
                "exit status: 1",
                "password",
            ),
        ] {
            let began = Instant::now();
            let problem = problem(&account).await;
            let said = problem.in_words();
            assert!(said.contains(word), "{section}: {said}");
            assert!(problem.hint().is_some_and(|said| said.contains(hint)), "{said}: {:?}", problem.hint());
            assert!(began.elapsed() < Duration::from_secs(15), "{said}");
        }
    }
    let missing = "mailboxes = [\"INBOX\", \"Lists\"]";
    let lines = format!("host = \"localhost\"\nport = {}\npassword = \"{PASSWORD}\"\n{missing}", servers.imaps);
    let problem = problem(&fetched(&servers, "imap", &lines)).await;
    assert!(matches!(&problem, Problem::NoMailbox { mailbox, .. } if mailbox == "Lists"), "{problem}");
    assert!(problem.hint().is_some_and(|hint| hint.contains("--mailbox")));
    assert!(!servers.log().contains(PASSWORD), "passwords do not go into logs");
}

#[tokio::test(flavor = "multi_thread")]
async fn what_there_is_to_be_fetched_is_found() {
    let Some(servers) = Servers::start() else { return };
    servers.doveadm(&["mailbox", "create", "-u", USER, "Lists", "Entw\u{fc}rfe"]);
    (0..3).for_each(|number| servers.save("INBOX", format!("Subject: {number}\n\n").as_bytes()));
    let lines = |port: u16| format!("host = \"localhost\"\nport = {port}\npassword = \"{PASSWORD}\"");
    let mailboxes = format!("{}\nmailboxes = [\"inbox\", \"Entw\u{fc}rfe\"]", lines(servers.imaps));
    let checked = check(&fetched(&servers, "imap", &mailboxes), trying()).await;
    let mut found: Mailboxes = checked.imap.unwrap().unwrap();
    found.fetched.sort();
    assert_eq!(found.fetched, ["Entw\u{fc}rfe", "INBOX"]);
    assert_eq!(found.passed_over, ["Lists"]);
    let checked = check(&fetched(&servers, "pop3", &lines(servers.pop3s)), trying()).await;
    assert_eq!(checked.pop3.unwrap().unwrap(), 3);
}

async fn probe(servers: &Servers, random: u8) -> Result<bool, ProbeError> {
    let server = |port: u16| {
        let (host, authority) = ("localhost", servers.authority());
        format!(
            "host = \"{host}\"\nport = {port}\nuser = \"{USER}\"\npassword = \"{PASSWORD}\"\nca_file = {authority:?}\n"
        )
    };
    let account = account(&format!(
        "[[account]]\nname = \"a\"\naddresses = [\"@example.test\", \"alice@example.test\"]\n[account.smtp]\n{}[account.imap]\n{}",
        server(servers.submissions),
        server(servers.imaps),
    ));
    let moment = Moment { unix_seconds: 1_795_338_000, offset_minutes: 0 };
    let stamp = Stamp { moment, random: [random; 16], host: "laptop.test".to_owned() };
    let patience = Patience { arrival: Duration::from_secs(20), filing: Duration::from_secs(3) };
    probe_sent(&account, trying(), &stamp, patience).await
}

#[tokio::test(flavor = "multi_thread")]
async fn a_mail_to_oneself_shows_whether_the_provider_files_in_sent() {
    let Some(servers) = Servers::start() else { return };
    assert!(matches!(probe(&servers, 1).await, Err(ProbeError::NoSent)));
    servers.doveadm(&["mailbox", "create", "-u", USER, "Sent"]);
    assert!(!probe(&servers, 2).await.unwrap());
    servers.file_in_sent();
    assert!(probe(&servers, 3).await.unwrap());
    assert_eq!(servers.count_in("INBOX"), 2);
}

/// Port 587 with what belongs to port 465, and the other way round: what most people get wrong at their first setup.
#[tokio::test(flavor = "multi_thread")]
async fn a_port_and_a_protection_that_do_not_go_together_are_told_with_what_does() {
    let Some(servers) = Servers::start() else { return };
    for (port, security) in [(servers.submission, "tls"), (servers.submissions, "starttls")] {
        let lines = format!(
            "host = \"localhost\"\nport = {port}\nsecurity = \"{security}\"\nuser = \"{USER}\"\npassword = \"{PASSWORD}\""
        );
        let account = account(&format!(
            "[[account]]\nname = \"a\"\naddresses = [\"a@b.test\"]\n[account.smtp]\nca_file = {:?}\n{lines}\n",
            servers.authority()
        ));
        let problem = check(&account, trying()).await.smtp.unwrap().unwrap_err();
        let hint = problem.hint().unwrap_or_default();
        assert!(hint.contains("587") && hint.contains("starttls"), "{}: {hint:?}", problem.in_words());
    }
}
