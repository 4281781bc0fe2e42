//! POP3 servers that lie, break off or never end: each costs an error, and neither memory nor a panic.

mod servers {
    pub(crate) mod scripted;
}

use std::path::Path as FilePath;
use std::sync::Arc;

use packetboat_mail::fetched::{Deliverer, FetchedStore, MemoryFetched};
use packetboat_mail::maildir::{FolderName, Maildir, UniqueNames};
use packetboat_mail::pop3::{Pop3Account, Pop3Error, Pop3PullError, Pop3PullReport, Pop3Session, pull_maildrop};
use packetboat_mail::{ConnectError, Login, Security};
use tempfile::TempDir;

use servers::scripted::{Answer, deadlines, login, say, serve, tls};

fn honest(line: Option<&str>) -> Answer {
    match line.unwrap_or("greeting") {
        "CAPA" => say("+OK\r\nUIDL\r\nPIPELINING\r\nSASL PLAIN XOAUTH2\r\n.\r\n"),
        "AUTH PLAIN" | "AUTH XOAUTH2" => say("+ \r\n"),
        "LIST" => say("+OK\r\n1 10\r\n2 20\r\n.\r\n"),
        "UIDL" => say("+OK\r\n1 one\r\n2 two\r\n.\r\n"),
        "RETR 1" => say("+OK\r\nA: 1\r\n\r\n..\r\n.\r\n"),
        "RETR 2" => say("+OK\r\nA: 2\r\n\r\n.\r\n"),
        _ => say("+OK\r\n"),
    }
}

async fn session(odd: impl Fn(&str) -> Option<Answer> + Send + Sync + 'static) -> Result<Pop3Session, Pop3Error> {
    let (endpoint, _) = serve(move |line| odd(line.unwrap_or("greeting")).unwrap_or_else(|| honest(line))).await;
    let account = Pop3Account { endpoint, tls: tls(), login: login(), deadlines: deadlines() };
    Pop3Session::open(&account).await
}

async fn pull(root: &FilePath, session: &mut Pop3Session) -> Result<Pop3PullReport, Pop3PullError> {
    let clock = Arc::new(|| std::time::SystemTime::UNIX_EPOCH);
    let maildir = Maildir::open(root).unwrap();
    let delivering = Deliverer::open(MemoryFetched::default(), maildir, UniqueNames::new("h", 1, 1), clock).unwrap();
    let (delivering, report) = pull_maildrop(session, "home", &FolderName::inbox(), delivering).await;
    assert!(delivering.expect("no panic").store().pending().unwrap().is_empty());
    assert_eq!(std::fs::read_dir(root.join("tmp")).unwrap().count(), 0, "nothing half is left");
    report
}

/// Pulls from a server that answers one line oddly; the files that came, and the outcome.
async fn pulled_with(word: &'static str, answer: Answer) -> (Vec<Vec<u8>>, Result<Pop3PullReport, Pop3Error>) {
    let home = TempDir::new().unwrap();
    let mut session = session(move |line| (line == word).then(|| answer.clone())).await.unwrap();
    let pulled = pull(home.path(), &mut session).await.map_err(|error| match error {
        Pop3PullError::Session(error) => error,
        other => panic!("{other:?}"),
    });
    let files = std::fs::read_dir(home.path().join("new")).unwrap();
    let mut files: Vec<_> = files.map(|entry| std::fs::read(entry.unwrap().path()).unwrap()).collect();
    files.sort();
    (files, pulled)
}

#[tokio::test]
async fn the_honest_server_of_these_tests_is_read() {
    let (files, pulled) = pulled_with("nothing", say("")).await;
    assert_eq!(files, [b"A: 1\n\n.\n".to_vec(), b"A: 2\n\n".to_vec()]);
    assert_eq!(pulled.unwrap().present.len(), 2);
}

#[tokio::test]
async fn what_never_ends_is_ended() {
    let (_, pulled) = pulled_with("LIST", Answer::Endless(vec![b'x'; 4096])).await;
    assert!(matches!(pulled, Err(Pop3Error::Line { .. })), "{pulled:?}");
    let (_, pulled) = pulled_with("UIDL", say("+OK\r\n1 one\r\n")).await;
    assert!(matches!(pulled, Err(Pop3Error::Silent(_))), "{pulled:?}");
    let (files, pulled) = pulled_with("RETR 2", say("+OK\r\nA: 2\r\n")).await;
    assert!(matches!(pulled, Err(Pop3Error::Silent(_))), "{pulled:?}");
    assert_eq!(files, [b"A: 1\n\n.\n".to_vec()], "what had come whole stays");
}

#[tokio::test]
async fn lists_that_lie_are_refused() {
    for answer in
        ["+OK\r\n1\r\n.\r\n", "+OK\r\n0 a\r\n.\r\n", "+OK\r\n1 a b\r\n.\r\n", "+OK\r\n9 nobody\r\n.\r\n", "* OK\r\n"]
    {
        let (files, pulled) = pulled_with("UIDL", say(answer)).await;
        assert!(matches!(pulled, Err(Pop3Error::NotPop3 { .. })), "{answer:?}: {pulled:?}");
        assert!(files.is_empty());
    }
}

#[tokio::test]
async fn a_connection_that_breaks_off_is_never_the_end_of_a_message() {
    let (files, pulled) = pulled_with("RETR 2", Answer::Close(b"+OK\r\nA: 2\r\n".to_vec())).await;
    assert!(matches!(pulled, Err(Pop3Error::Broken(_))), "{pulled:?}");
    assert_eq!(files, [b"A: 1\n\n.\n".to_vec()], "what had come whole stays");
}

#[tokio::test]
async fn a_message_that_the_server_refuses_stops_no_other() {
    let (files, pulled) = pulled_with("RETR 1", say("-ERR no such message\r\n")).await;
    let report = pulled.unwrap();
    assert_eq!((files.len(), report.missing, report.summary.delivered), (1, 1, 1));
}

#[tokio::test]
async fn greetings_and_logins_that_go_wrong_say_how() {
    let odd = |word: &'static str, answer: &'static str| session(move |line| (line == word).then(|| say(answer)));
    assert!(matches!(odd("greeting", "-ERR busy\r\n").await.unwrap_err(), Pop3Error::Busy { .. }));
    let imap = odd("greeting", "* OK IMAP4rev1\r\n").await.unwrap_err();
    assert!(matches!(imap, Pop3Error::Connect(ConnectError::Greeting { .. })), "{imap:?}");
    assert!(matches!(odd("AUTH PLAIN", "-ERR [AUTH] no\r\n").await.unwrap_err(), Pop3Error::LoginRefused { .. }));
    assert!(matches!(odd("AUTH PLAIN", "-ERR [IN-USE] wait\r\n").await.unwrap_err(), Pop3Error::Busy { .. }));
    assert!(matches!(odd("AUTH PLAIN", "+ \r\n+ \r\n+ \r\n+ \r\n").await.unwrap_err(), Pop3Error::NoLogin));
    // A server of before 1998 has no capabilities, and USER and PASS.
    odd("CAPA", "-ERR what\r\n").await.unwrap();
    let endless = session(|line| (line == "CAPA").then(|| Answer::Endless(b"+OK\r\n".to_vec()))).await;
    assert!(matches!(endless.unwrap_err(), Pop3Error::Endless { .. }));
}

#[tokio::test]
async fn an_upgrade_that_is_not_one_is_refused() {
    let outcome = |capabilities: &'static str, answer: &'static str| async move {
        let (mut endpoint, _) = serve(move |line| match line {
            Some("CAPA") => say(capabilities),
            Some("STLS") => say(answer),
            line => honest(line),
        })
        .await;
        endpoint.security = Security::Upgrade;
        let account = Pop3Account { endpoint, tls: tls(), login: login(), deadlines: deadlines() };
        Pop3Session::open(&account).await.unwrap_err()
    };
    let without = outcome("+OK\r\nUIDL\r\n.\r\n", "+OK\r\n").await;
    assert!(matches!(without, Pop3Error::Connect(ConnectError::NoUpgrade)));
    let injected = outcome("+OK\r\nSTLS\r\n.\r\n", "+OK begin\r\n+OK injected\r\n").await;
    assert!(matches!(injected, Pop3Error::Connect(ConnectError::AheadOfTls)), "{injected:?}");
}

#[tokio::test]
async fn a_token_goes_by_xoauth2_and_line_ends_go_nowhere() {
    let (endpoint, _) = serve(|line| match line {
        // user=anna^Aauth=Bearer t0ken^A^A
        Some(line) if line.starts_with("dXNl") && line != "dXNlcj1hbm5hAWF1dGg9QmVhcmVyIHQwa2VuAQE=" => say("-ERR\r\n"),
        line => honest(line),
    })
    .await;
    let token = |token: &str| Login::Token { user: "anna".to_owned(), token: token.to_owned() };
    let mut account = Pop3Account { endpoint, tls: tls(), login: token("t0ken"), deadlines: deadlines() };
    Pop3Session::open(&account).await.unwrap();
    account.login = token("other");
    assert!(matches!(Pop3Session::open(&account).await.unwrap_err(), Pop3Error::LoginRefused { .. }));

    let password = "x\r\nDELE 1".to_owned();
    account.endpoint = serve(|line| match line {
        Some("CAPA") => say("-ERR what\r\n"),
        Some(line) if line.starts_with("DELE") => panic!("it deletes"),
        line => honest(line),
    })
    .await
    .0;
    account.login = Login::Password { user: "anna".to_owned(), password };
    assert!(matches!(Pop3Session::open(&account).await.unwrap_err(), Pop3Error::NotALine));
}
