//! IMAP servers that lie, break off, never end or never begin: each costs an error, and neither memory nor a panic.

mod servers {
    pub(crate) mod scripted;
}

use std::path::Path as FilePath;
use std::sync::Arc;
use std::time::Duration;

use packetboat_mail::fetched::{Deliverer, FetchedStore, MailboxRecord, MemoryFetched, UidSet};
use packetboat_mail::imap::{
    Access, Backoff, GuardError, ImapAccount, ImapError, ImapSession, PullError, PullReport, SentLookup, Watched,
    pull_mailbox, watch_mailboxes,
};
use packetboat_mail::maildir::{FolderName, Maildir, UniqueNames};
use packetboat_mail::{ConnectError, Login, Security};
use tempfile::TempDir;

use servers::scripted::{Answer, deadlines, login, say, serve, tls};

/// A server that behaves, with one message, but for what `odd` says of a command without its tag.
async fn session(odd: impl Fn(&str, &str) -> Option<Answer> + Send + Sync + 'static) -> Result<ImapSession, ImapError> {
    let (endpoint, _) = serve(move |line| {
        let Some(line) = line else { return odd("", "greeting").unwrap_or_else(|| say("* OK ready\r\n")) };
        let (tag, command) = line.split_once(' ').unwrap_or((line, ""));
        odd(tag, command).unwrap_or_else(|| honest(tag, command))
    })
    .await;
    let account = ImapAccount { endpoint, tls: tls(), login: login(), deadlines: deadlines() };
    ImapSession::open(&account).await
}

fn honest(tag: &str, command: &str) -> Answer {
    let data = match command.split(' ').next().unwrap_or_default() {
        "CAPABILITY" => "* CAPABILITY IMAP4rev1 UIDPLUS IDLE\r\n",
        "EXAMINE" | "SELECT" => "* 1 EXISTS\r\n* OK [UIDVALIDITY 7] valid\r\n* OK [UIDNEXT 2] next\r\n",
        "UID" if command.contains("BODY.PEEK") => "* 1 FETCH (UID 1 FLAGS () BODY[]<0> {8}\r\nA: b\r\n\r\n)\r\n",
        "UID" if command.contains("FLAGS") => "* 1 FETCH (UID 1 FLAGS (\\Seen))\r\n",
        "IDLE" => return say("+ idling\r\n"),
        _ => "",
    };
    say(format!("{data}{tag} OK done\r\n"))
}

async fn pull(root: &FilePath, session: &mut ImapSession) -> Result<PullReport, PullError> {
    let clock = Arc::new(|| std::time::SystemTime::UNIX_EPOCH);
    let maildir = Maildir::open(root).unwrap();
    let delivering = Deliverer::open(MemoryFetched::default(), maildir, UniqueNames::new("h", 1, 1), clock).unwrap();
    let (delivering, report) = pull_mailbox(session, "home", "INBOX", &FolderName::inbox(), delivering).await;
    let mut delivering = delivering.expect("no panic");
    assert!(delivering.store().pending().unwrap().is_empty());
    assert_eq!(std::fs::read_dir(root.join("tmp")).unwrap().count(), 0, "nothing half is left");
    report
}

/// Pulls from a server that answers one kind of command oddly.
async fn pulled_with(
    word: &'static str,
    answer: impl Fn(&str) -> Answer + Send + Sync + 'static,
) -> (usize, Result<PullReport, PullError>) {
    let home = TempDir::new().unwrap();
    let mut session = session(move |tag, command| command.contains(word).then(|| answer(tag))).await.unwrap();
    let pulled = pull(home.path(), &mut session).await;
    (std::fs::read_dir(home.path().join("new")).unwrap().count(), pulled)
}

fn guard(pulled: Result<PullReport, PullError>) -> GuardError {
    match pulled {
        Err(PullError::Session(ImapError::Guard(error))) => error,
        other => panic!("{other:?}"),
    }
}

#[tokio::test]
async fn the_honest_server_of_these_tests_is_read() {
    let (count, pulled) = pulled_with("nothing", |_| say("")).await;
    assert_eq!((count, pulled.unwrap().summary.delivered), (1, 1));
}

#[tokio::test]
async fn lies_about_literals_are_refused() {
    for (announced, limit) in [("4294967295", true), ("99999999999999999999", true), ("3000000", true)] {
        let (count, pulled) =
            pulled_with("BODY.PEEK", move |_| say(format!("* 1 FETCH (UID 1 BODY[]<0> {{{announced}}}\r\nabc"))).await;
        assert!(limit && matches!(guard(pulled), GuardError::Literal { .. }));
        assert_eq!(count, 0);
    }
    // It announces more than it sends, and is silent.
    let (count, pulled) = pulled_with("BODY.PEEK", |_| say("* 1 FETCH (UID 1 BODY[]<0> {900}\r\nabc")).await;
    assert!(matches!(guard(pulled), GuardError::Silent(_)));
    assert_eq!(count, 0);
    // It announces less than it sends.
    let (count, pulled) =
        pulled_with("BODY.PEEK", |tag| say(format!("* 1 FETCH (UID 1 BODY[]<0> {{2}}\r\nabcdef)\r\n{tag} OK\r\n")))
            .await;
    assert!(matches!(pulled, Err(PullError::Session(ImapError::Broken(_)))));
    assert_eq!(count, 0);
}

#[tokio::test]
async fn what_never_ends_is_ended() {
    let (_, pulled) = pulled_with("FLAGS)", |_| Answer::Endless(vec![b'x'; 4096])).await;
    assert!(matches!(guard(pulled), GuardError::Line { .. }));
    let (_, pulled) = pulled_with("FLAGS)", |_| Answer::Endless(b"* OK still here\r\n".to_vec())).await;
    assert!(matches!(pulled, Err(PullError::Session(ImapError::Endless))), "{pulled:?}");
    let (_, pulled) = pulled_with("FLAGS)", |_| Answer::Endless(b"* 1 FETCH (UID 1 FLAGS ())\r\n".to_vec())).await;
    assert!(matches!(pulled, Err(PullError::Session(ImapError::Endless))), "{pulled:?}");
    let (count, pulled) =
        pulled_with("BODY.PEEK", |_| Answer::Endless(b"* 1 FETCH (UID 1 BODY[]<0> {2}\r\nab)\r\n".to_vec())).await;
    assert!(matches!(pulled, Err(PullError::Session(ImapError::Endless))), "{pulled:?}");
    assert_eq!(count, 1, "what had come whole stays");
    let deep = [b"* 1 FETCH (BODYSTRUCTURE ".as_slice(), &[b'('; 100_000]].concat();
    let (_, pulled) = pulled_with("FLAGS)", move |_| Answer::Bytes(deep.clone())).await;
    assert!(matches!(guard(pulled), GuardError::Depth { .. }));
}

#[tokio::test]
async fn words_that_the_parser_stumbles_over_cost_an_error_and_no_panic() {
    for words in
        ["* OK [UIDVALIDITY 7]\u{e9}\r\n", "* 1 FETCH (UID 1 INTERNALDATE NIL)\r\n", "* OK [ALERT]\u{fffd}ok\r\n"]
    {
        let (count, pulled) = pulled_with("FLAGS)", move |tag| say(format!("{words}{tag} OK done\r\n"))).await;
        assert!(matches!(pulled, Err(PullError::Session(ImapError::Unreadable))), "{words:?}: {pulled:?}");
        assert_eq!(count, 0);
        let logged_in = session(move |_, command| {
            (command.starts_with("AUTHENTICATE") || command.starts_with("LOGIN")).then(|| say(words))
        });
        assert!(matches!(logged_in.await, Err(ImapError::Unreadable)), "{words:?}");
    }
}

#[tokio::test]
async fn a_message_without_end_is_dropped() {
    // Each piece is full and at its place, but the message never comes to one that is not: the server breaks off.
    let (count, pulled) = pulled_with("BODY.PEEK", |tag| {
        let piece = vec![b'x'; 1 << 20];
        let head = format!("* 1 FETCH (UID 1 BODY[]<0> {{{}}}\r\n", piece.len());
        Answer::Bytes([head.as_bytes(), &piece, format!(")\r\n{tag} OK\r\n").as_bytes()].concat())
    })
    .await;
    assert!(matches!(pulled, Err(PullError::Session(ImapError::Misplaced { uid: 1 }))), "{pulled:?}");
    assert_eq!(count, 0);
}

#[tokio::test]
async fn a_connection_that_breaks_off_is_never_the_end_of_an_answer() {
    for word in ["FLAGS)", "BODY.PEEK"] {
        let (count, pulled) = pulled_with(word, |_| Answer::Close(b"* BYE\r\n".to_vec())).await;
        assert!(matches!(pulled, Err(PullError::Session(_))), "{word}");
        assert_eq!(count, 0);
    }
    let mut session =
        session(|_, command| command.contains("SEARCH").then(|| Answer::Close(Vec::new()))).await.unwrap();
    assert!(matches!(session.find_sent("Sent", "<a@b>").await, SentLookup::Unavailable(_)));
}

#[tokio::test]
async fn a_refused_search_is_not_an_empty_one() {
    for word in ["NO [UNAVAILABLE] later", "BAD what"] {
        let odd = move |tag: &str, command: &str| command.contains("SEARCH").then(|| say(format!("{tag} {word}\r\n")));
        let mut session = session(odd).await.unwrap();
        assert!(matches!(session.find_sent("Sent", "<a@b>").await, SentLookup::Unavailable(_)));
        session.select("INBOX", Access::Read).await.unwrap();
    }
    let absent =
        |tag: &str, command: &str| command.contains("SEARCH").then(|| say(format!("* SEARCH\r\n{tag} OK\r\n")));
    let mut session = session(absent).await.unwrap();
    assert!(matches!(session.find_sent("Sent", "<a@b>").await, SentLookup::Absent));
}

#[tokio::test]
async fn nothing_is_gone_until_the_server_says_so_of_each() {
    let known = MailboxRecord { known: UidSet::parse("1:4").unwrap(), ..MailboxRecord::default() };
    let gone = |answer: &'static str| {
        let known = known.clone();
        async move {
            let odd = move |tag: &str, command: &str| {
                command
                    .contains("SEARCH")
                    .then(|| say(format!("{answer}{tag} {}\r\n", if answer.is_empty() { "NO" } else { "OK" })))
            };
            let mut session = session(odd).await.unwrap();
            let selected = session.select("INBOX", Access::Read).await.unwrap();
            session.changes(&selected, &known).await.map(|changes| changes.gone.to_string())
        }
    };
    // This server has no CONDSTORE and lists message 1 alone; the others are asked for by their numbers.
    assert_eq!(gone("* SEARCH 3 99 1\r\n").await.unwrap(), "2,4");
    assert_eq!(gone("* SEARCH\r\n").await.unwrap(), "2:4");
    assert!(matches!(gone("").await, Err(ImapError::Refused { .. })));
}

#[tokio::test]
async fn what_was_not_asked_for_is_not_delivered() {
    let (count, pulled) = pulled_with("BODY.PEEK", |tag| {
        let other = "* 2 FETCH (UID 99 FLAGS () BODY[]<0> {3}\r\nabc)\r\n";
        let without = "* 1 FETCH (UID 1 FLAGS ())\r\n* 3 EXISTS\r\n* 1 RECENT\r\n";
        say(format!("{other}{without}{tag} OK\r\n"))
    })
    .await;
    let report = pulled.unwrap();
    assert_eq!((count, report.summary.delivered), (0, 0));
    assert_eq!(report.missing.to_string(), "1", "it is asked for again");
}

#[tokio::test]
async fn a_server_that_knows_no_pieces_is_read() {
    let large = vec![b'y'; (1 << 20) + 5];
    let sent = large.clone();
    let home = TempDir::new().unwrap();
    let odd = move |tag: &str, command: &str| {
        command.contains("BODY.PEEK").then(|| {
            let head = format!("* 1 FETCH (UID 1 BODY[] {{{}}}\r\n", sent.len());
            Answer::Bytes([head.as_bytes(), &sent, format!(")\r\n{tag} OK\r\n").as_bytes()].concat())
        })
    };
    let mut session = session(odd).await.unwrap();
    assert_eq!(pull(home.path(), &mut session).await.unwrap().summary.delivered, 1);
    let file = std::fs::read_dir(home.path().join("new")).unwrap().next().unwrap().unwrap();
    assert!(std::fs::read(file.path()).unwrap() == large);
}

#[tokio::test]
async fn greetings_and_logins_that_go_wrong_say_how() {
    let refused =
        session(|tag, command| command.starts_with("LOGIN").then(|| say(format!("{tag} NO bad password\r\n"))));
    assert!(matches!(refused.await.unwrap_err(), ImapError::LoginRefused { .. }));
    let busy = session(|tag, command| {
        command.starts_with("LOGIN").then(|| say(format!("{tag} NO [INUSE] try again later\r\n")))
    });
    assert!(matches!(busy.await.unwrap_err(), ImapError::LoginRefused { .. } | ImapError::Busy { .. }));
    let bye = session(|_, command| (command == "greeting").then(|| Answer::Close(b"* BYE too many\r\n".to_vec())));
    assert!(matches!(bye.await.unwrap_err(), ImapError::Busy { .. }));
    let other = session(|_, command| (command == "greeting").then(|| say("220 smtp.example ESMTP\r\n")));
    assert!(matches!(other.await.unwrap_err(), ImapError::Broken(_) | ImapError::Connect(_)));
    let silent = session(|_, command| (command == "greeting").then(|| say("")));
    assert!(matches!(silent.await.unwrap_err(), ImapError::Guard(GuardError::Silent(_))));
    let endless = session(|_, command| (command == "greeting").then(|| Answer::Endless(vec![b'x'; 4096])));
    assert!(matches!(endless.await.unwrap_err(), ImapError::Guard(GuardError::Line { .. })));
}

#[tokio::test]
async fn an_upgrade_that_is_not_one_is_refused() {
    let outcome = |answer: &'static str| async move {
        let (mut endpoint, _) = serve(move |line| match line {
            None => say("* OK ready\r\n"),
            Some(_) => say(answer),
        })
        .await;
        endpoint.security = Security::Upgrade;
        let account = ImapAccount { endpoint, tls: tls(), login: login(), deadlines: deadlines() };
        match ImapSession::open(&account).await.unwrap_err() {
            ImapError::Connect(error) => error,
            other => panic!("{other:?}"),
        }
    };
    assert!(matches!(outcome("S1 NO never\r\n").await, ConnectError::NoUpgrade));
    assert!(matches!(outcome("S1 BAD never\r\n").await, ConnectError::NoUpgrade));
    let injected = "S1 OK begin\r\n* OK [CAPABILITY IMAP4rev1] injected\r\n";
    assert!(matches!(outcome(injected).await, ConnectError::AheadOfTls));
    assert!(matches!(outcome("S1 OK begin\r\n").await, ConnectError::Deadline(_) | ConnectError::Handshake(_)));
}

#[tokio::test]
async fn a_token_goes_by_xoauth2_and_its_refusal_is_heard() {
    let account = |endpoint| ImapAccount {
        endpoint,
        tls: tls(),
        login: Login::Token { user: "anna".to_owned(), token: "t0ken".to_owned() },
        deadlines: deadlines(),
    };
    let script = |accept: bool| {
        move |line: Option<&str>| match line {
            None => say("* OK ready\r\n"),
            Some(line) if line.ends_with("AUTHENTICATE XOAUTH2") => say("+ \r\n"),
            // user=anna^Aauth=Bearer t0ken^A^A
            Some("dXNlcj1hbm5hAWF1dGg9QmVhcmVyIHQwa2VuAQE=") if accept => say("A0001 OK in\r\n"),
            Some("dXNlcj1hbm5hAWF1dGg9QmVhcmVyIHQwa2VuAQE=") => say("+ eyJzdGF0dXMiOiI0MDAifQ==\r\n"),
            Some("") => say("A0001 NO [AUTHENTICATIONFAILED] no\r\n"),
            Some(line) => {
                let tag = line.split(' ').next().unwrap_or_default();
                say(format!("* CAPABILITY IMAP4rev1 AUTH=XOAUTH2\r\n{tag} OK done\r\n"))
            }
        }
    };
    let (endpoint, _) = serve(script(true)).await;
    ImapSession::open(&account(endpoint)).await.unwrap();
    let (endpoint, _) = serve(script(false)).await;
    assert!(matches!(ImapSession::open(&account(endpoint)).await.unwrap_err(), ImapError::LoginRefused { .. }));
    let mut without = account(serve(honest_start).await.0);
    without.login = Login::Token { user: "anna".to_owned(), token: "t".to_owned() };
    assert!(matches!(ImapSession::open(&without).await.unwrap_err(), ImapError::NoLogin));
}

#[tokio::test]
async fn of_a_server_that_does_not_tell_of_other_mailboxes_it_is_said() {
    for (capabilities, refuses) in [("IDLE", false), ("IDLE NOTIFY", true), ("NOTIFY", false)] {
        let (endpoint, _) = serve(move |line| match line.and_then(|line| line.split_once(' ')) {
            None => say("* OK ready\r\n"),
            Some((tag, "CAPABILITY")) => say(format!("* CAPABILITY IMAP4rev1 {capabilities}\r\n{tag} OK done\r\n")),
            Some((tag, command)) if command.starts_with("LIST") => {
                say(format!("* LIST () \"/\" INBOX\r\n* LIST () \"/\" Lists\r\n{tag} OK done\r\n"))
            }
            Some((tag, command)) if command.starts_with("NOTIFY") => match refuses {
                true => say(format!("{tag} NO [BADEVENT (AnnotationChange)] not these\r\n")),
                false => panic!("it is not asked for what it does not offer: {command}"),
            },
            Some((tag, command)) => honest(tag, command),
        })
        .await;
        let account = ImapAccount { endpoint, tls: tls(), login: login(), deadlines: deadlines() };
        for (wanted, expected) in [(vec!["INBOX".to_owned()], true), (vec!["*".to_owned()], false)] {
            let (listener, mut watched) = tokio::sync::mpsc::channel(4);
            let account = account.clone();
            let watching = tokio::spawn(async move {
                watch_mailboxes(&account, &wanted, Duration::from_secs(5), Backoff::default(), || 9, listener).await
            });
            let said = watched.recv().await;
            assert!(matches!(said, Some(Watched::Connected { all }) if all == expected), "{capabilities}: {said:?}");
            drop(watched);
            watching.await.unwrap();
        }
    }
}

fn honest_start(line: Option<&str>) -> Answer {
    match line.and_then(|line| line.split_once(' ')) {
        None => say("* OK ready\r\n"),
        Some((tag, command)) => honest(tag, command),
    }
}
