//! The client against a server in the same process that fails in every way that servers do.

use std::collections::BTreeMap;
use std::net::SocketAddr;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use tokio::io::{AsyncBufReadExt, AsyncReadExt, AsyncWriteExt, BufReader};
use tokio::net::TcpListener;

use super::*;
use crate::address::{Address, ReversePath};

/// What the fake server does otherwise than a good one.
#[derive(Clone, Default)]
struct Faults {
    /// Instead of the usual answer to a command that begins so.
    answers: BTreeMap<&'static str, &'static str>,
    /// Takes the whole message, and then does not answer.
    silent_after_dot: bool,
    /// Takes the whole message, and then hangs up.
    close_after_dot: bool,
    /// After so many bytes of the message says this and hangs up.
    stop_in_message: Option<(usize, &'static str)>,
    no_pipelining: bool,
    size_limit: Option<u64>,
}

#[derive(Clone, Default)]
struct Seen(Arc<Mutex<Record>>);

#[derive(Default)]
struct Record {
    commands: Vec<String>,
    messages: Vec<String>,
    torn: usize,
}

impl Seen {
    fn commands(&self) -> Vec<String> {
        self.0.lock().unwrap().commands.clone()
    }

    fn messages(&self) -> Vec<String> {
        self.0.lock().unwrap().messages.clone()
    }

    /// Messages that broke off without a dot.
    fn torn(&self) -> usize {
        self.0.lock().unwrap().torn
    }

    async fn wait_for_torn(&self, count: usize) {
        for _ in 0..200 {
            if self.torn() == count {
                return;
            }
            tokio::time::sleep(Duration::from_millis(10)).await;
        }
        panic!("{} torn messages", self.torn());
    }
}

const CLOSE: &str = "close";
const SILENT: &str = "silent";

async fn fake(faults: Faults) -> (SocketAddr, Seen) {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap();
    let seen = Seen::default();
    let shared = seen.clone();
    tokio::spawn(async move {
        while let Ok((stream, _)) = listener.accept().await {
            let (faults, seen) = (faults.clone(), shared.clone());
            tokio::spawn(async move {
                let _ = converse(stream, faults, seen).await;
            });
        }
    });
    (address, seen)
}

async fn converse(stream: tokio::net::TcpStream, faults: Faults, seen: Seen) -> std::io::Result<()> {
    let (read, mut write) = stream.into_split();
    let mut lines = BufReader::new(read);
    let mut recipients = 0;
    let mut command = String::from("greeting");
    loop {
        let fault = faults.answers.iter().find(|(start, _)| command.starts_with(**start)).map(|(_, answer)| *answer);
        match fault {
            Some(CLOSE) => return Ok(()),
            Some(SILENT) => tokio::time::sleep(Duration::from_secs(60)).await,
            _ => {}
        }
        let usual = match command.split([' ', ':']).next().unwrap_or_default() {
            "greeting" => "220 fake.test ESMTP\r\n".to_owned(),
            "EHLO" => {
                let pipelining = if faults.no_pipelining { "" } else { "250-PIPELINING\r\n" };
                let size = faults.size_limit.map_or("250-SIZE\r\n".to_owned(), |limit| format!("250-SIZE {limit}\r\n"));
                format!(
                    "250-fake.test\r\n{pipelining}{size}250-8BITMIME\r\n250-AUTH PLAIN LOGIN\r\n250 ENHANCEDSTATUSCODES\r\n"
                )
            }
            "AUTH" => "235 2.7.0 welcome\r\n".to_owned(),
            "DATA" if recipients == 0 && fault.is_none() => "554 5.5.1 no valid recipients\r\n".to_owned(),
            "DATA" => "354 go on\r\n".to_owned(),
            "QUIT" => "221 2.0.0 bye\r\n".to_owned(),
            _ => "250 2.0.0 ok\r\n".to_owned(),
        };
        let answer = fault.map_or(usual, |fault| format!("{fault}\r\n"));
        if command.starts_with("RCPT") && answer.starts_with('2') {
            recipients += 1;
        }
        write.write_all(answer.as_bytes()).await?;
        if command == "QUIT" {
            return Ok(());
        }
        if command == "DATA" && answer.starts_with('3') {
            let mut message = Vec::new();
            while !message.ends_with(b"\r\n.\r\n") {
                if lines.read_until(b'\n', &mut message).await? == 0 {
                    seen.0.lock().unwrap().torn += 1;
                    return Ok(());
                }
                if let Some((_, words)) = faults.stop_in_message.filter(|(bytes, _)| message.len() >= *bytes) {
                    return write.write_all(words.as_bytes()).await;
                }
            }
            seen.0.lock().unwrap().messages.push(String::from_utf8_lossy(&message).into_owned());
            recipients = 0;
            if faults.close_after_dot {
                return Ok(());
            }
            if faults.silent_after_dot {
                tokio::time::sleep(Duration::from_secs(60)).await;
            }
            let answer = faults.answers.get("dot").copied().unwrap_or("250 2.0.0 queued as 1");
            write.write_all(format!("{answer}\r\n").as_bytes()).await?;
        }
        command.clear();
        if lines.read_line(&mut command).await? == 0 {
            return Ok(());
        }
        command.truncate(command.trim_end().len());
        seen.0.lock().unwrap().commands.push(command.clone());
    }
}

fn server(address: SocketAddr) -> Server {
    let short = Duration::from_millis(300);
    Server {
        host: address.ip().to_string(),
        port: address.port(),
        security: Security::Plain,
        trust: Trust::load(None).or_else(|_| Trust::load(Some(&authority()))).unwrap(),
        login: None,
        hello: "laptop.test".to_owned(),
        source: None,
        deadlines: Deadlines {
            greeting: short,
            command: short,
            recipient: short,
            data: short,
            block: short,
            answer: short,
            quit: short,
            ..Deadlines::default()
        },
    }
}

/// Any authority, for machines that have none of their own.
fn authority() -> std::path::PathBuf {
    std::path::Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/servers/some-authority.pem")
}

const BODY: &str = "Subject: a\r\n\r\n.dot\r\nend\r\n";

fn addresses(names: &[&str]) -> Vec<Address> {
    names.iter().map(|name| Address::parse(name).unwrap()).collect()
}

async fn send(connection: &mut Connection, recipients: &[&str], gate: &impl Gate) -> Try {
    let recipients = addresses(recipients);
    let sender = ReversePath::Mailbox(Address::parse("ann@a.test").unwrap());
    let mail = Outgoing { sender: &sender, recipients: &recipients, size: BODY.len() as u64, eight_bit: false };
    connection.send(&mail, &mut BODY.as_bytes(), gate).await
}

async fn try_once(faults: Faults, recipients: &[&str]) -> (Try, Seen) {
    let (address, seen) = fake(faults).await;
    let mut connection = match Connection::open(&server(address)).await {
        Ok(connection) => connection,
        Err(why) => return (Try::Failed { why, recipients: vec![Fate::Untried; recipients.len()] }, seen),
    };
    (send(&mut connection, recipients, &OpenGate).await, seen)
}

fn answering(answers: &[(&'static str, &'static str)]) -> Faults {
    Faults { answers: answers.iter().copied().collect(), ..Faults::default() }
}

fn codes(fates: &[Fate]) -> Vec<i32> {
    fates
        .iter()
        .map(|fate| match fate {
            Fate::Accepted(reply) => i32::from(reply.code),
            Fate::Refused(reply) => -i32::from(reply.code),
            Fate::Untried => 0,
            Fate::Unknown => 1,
        })
        .collect()
}

struct Shut;

impl Gate for Shut {
    async fn may_write_dot(&self, _: &[Fate]) -> bool {
        false
    }
}

#[tokio::test]
async fn many_mails_go_over_one_connection_byte_for_byte() {
    for no_pipelining in [false, true] {
        let (address, seen) = fake(Faults { no_pipelining, ..Faults::default() }).await;
        let mut connection = Connection::open(&server(address)).await.unwrap();
        for _ in 0..20 {
            let tried = send(&mut connection, &["b@b.test", "c@c.test"], &OpenGate).await;
            let Try::Answered { recipients } = tried else { panic!("{tried:?}") };
            assert_eq!(codes(&recipients), [250, 250]);
            assert!(matches!(&recipients[0], Fate::Accepted(reply) if reply.text == "queued as 1"));
            assert!(connection.is_usable());
        }
        connection.close().await;
        assert_eq!(seen.messages(), vec![format!("{}.\r\n", BODY.replace(".dot", "..dot")); 20]);
        assert_eq!(seen.commands()[1], format!("MAIL FROM:<ann@a.test> SIZE={}", BODY.len()));
        assert_eq!(seen.commands().last().unwrap(), "QUIT");
    }
}

#[tokio::test]
async fn a_refused_recipient_stops_no_other() {
    let faults = answering(&[("RCPT TO:<c", "550 5.1.1 nobody"), ("RCPT TO:<d", "452 4.2.2 full")]);
    let (tried, seen) = try_once(faults, &["b@b.test", "c@c.test", "d@d.test"]).await;
    let Try::Answered { recipients } = tried else { panic!("{tried:?}") };
    assert_eq!(codes(&recipients), [250, -550, -452]);
    assert_eq!(seen.messages().len(), 1);
}

#[tokio::test]
async fn where_all_are_refused_no_message_goes_out_and_the_connection_serves_on() {
    for no_pipelining in [false, true] {
        let faults = Faults { no_pipelining, ..answering(&[("RCPT TO:<c", "550 5.1.1 nobody")]) };
        let (address, seen) = fake(faults).await;
        let mut connection = Connection::open(&server(address)).await.unwrap();
        let tried = send(&mut connection, &["c@c.test"], &OpenGate).await;
        assert!(matches!(&tried, Try::Answered { recipients } if codes(recipients) == [-550]), "{tried:?}");
        let tried = send(&mut connection, &["b@b.test"], &OpenGate).await;
        assert!(matches!(&tried, Try::Answered { recipients } if codes(recipients) == [250]), "{tried:?}");
        assert!(seen.commands().contains(&"RSET".to_owned()));
        assert_eq!(seen.messages().len(), 1);
    }
}

#[tokio::test]
async fn a_refused_sender_or_message_is_an_answer_for_every_recipient() {
    for (answers, expected) in [
        (&[("MAIL", "550 5.7.1 not you"), ("RCPT", "503 5.5.1 first MAIL")][..], [-550, -550]),
        (&[("DATA", "451 4.3.0 later")], [-451, -451]),
        (&[("DATA", "451 4.3.0 later"), ("RCPT TO:<c", "550 5.1.1 nobody")], [-451, -550]),
        (&[("dot", "554 5.7.1 spam")], [-554, -554]),
        (&[("dot", "451 4.3.0 later"), ("RCPT TO:<c", "550 5.1.1 nobody")], [-451, -550]),
    ] {
        let (tried, _) = try_once(answering(answers), &["b@b.test", "c@c.test"]).await;
        assert!(
            matches!(&tried, Try::Answered { recipients } if codes(recipients) == expected),
            "{answers:?} {tried:?}"
        );
    }
}

#[tokio::test]
async fn a_shut_gate_leaves_the_message_without_its_dot() {
    let (address, seen) = fake(Faults::default()).await;
    let mut connection = Connection::open(&server(address)).await.unwrap();
    let tried = send(&mut connection, &["b@b.test"], &Shut).await;
    assert!(
        matches!(&tried, Try::Failed { why: Failure::Withheld, recipients } if codes(recipients) == [0]),
        "{tried:?}"
    );
    assert!(!connection.is_usable());
    drop(connection);
    seen.wait_for_torn(1).await;
    assert!(seen.messages().is_empty());
}

#[tokio::test]
async fn whatever_fails_before_the_dot_is_a_definite_failure() {
    for stage in ["greeting", "EHLO", "MAIL", "RCPT", "DATA"] {
        for fault in [SILENT, CLOSE, "nonsense", "421 4.3.2 going down"] {
            let (tried, seen) = try_once(answering(&[(stage, fault)]), &["b@b.test"]).await;
            assert!(
                matches!(&tried, Try::Failed { recipients, .. } if codes(recipients) == [0]),
                "{stage} {fault} {tried:?}"
            );
            assert!(seen.messages().is_empty(), "{stage} {fault}");
        }
    }
}

#[tokio::test]
async fn whatever_fails_after_the_dot_leaves_the_answer_unknown() {
    let refused = answering(&[("RCPT TO:<c", "550 5.1.1 nobody")]);
    for faults in [
        Faults { close_after_dot: true, ..refused.clone() },
        Faults { silent_after_dot: true, ..refused.clone() },
        Faults { answers: [("dot", "354 more"), ("RCPT TO:<c", "550 no")].into(), ..Faults::default() },
        Faults { answers: [("dot", "hello"), ("RCPT TO:<c", "550 no")].into(), ..Faults::default() },
    ] {
        let (tried, seen) = try_once(faults, &["b@b.test", "c@c.test"]).await;
        assert!(matches!(&tried, Try::AnswerLost { recipients, .. } if codes(recipients) == [1, -550]), "{tried:?}");
        assert_eq!(seen.messages().len(), 1);
    }
}

#[tokio::test]
async fn a_server_that_wants_a_message_for_nobody_gets_no_dot() {
    let (tried, seen) =
        try_once(answering(&[("RCPT", "550 5.1.1 nobody"), ("DATA", "354 go on")]), &["b@b.test"]).await;
    assert!(matches!(&tried, Try::Answered { recipients } if codes(recipients) == [-550]), "{tried:?}");
    seen.wait_for_torn(1).await;
    assert!(seen.messages().is_empty());
}

#[tokio::test]
async fn a_server_that_gives_up_in_the_middle_is_heard() {
    let faults = Faults { stop_in_message: Some((5, "452 4.3.1 disk full\r\n")), ..Faults::default() };
    let (tried, seen) = try_once(faults, &["b@b.test"]).await;
    let Try::Failed { why: Failure::Rejected { stage: Stage::Message, reply }, .. } = tried else {
        panic!("{tried:?}")
    };
    assert_eq!(reply.to_string(), "452 4.3.1 disk full");
    assert!(seen.messages().is_empty());
}

#[tokio::test]
async fn a_reply_without_end_is_not_read_for_ever() {
    let endless: &'static str = Box::leak("250-x\r\n".repeat(100_000).into_boxed_str());
    for stage in ["EHLO", "MAIL", "dot"] {
        let (tried, _) = try_once(answering(&[(stage, endless)]), &["b@b.test"]).await;
        assert!(!matches!(tried, Try::Answered { .. }), "{stage} {tried:?}");
    }
}

#[tokio::test]
async fn a_damaged_message_is_not_sent() {
    let (address, seen) = fake(Faults::default()).await;
    for (body, size) in [("a\r\n", 4), ("a\r\nb", 4), ("a\r\n", 2)] {
        let mut connection = Connection::open(&server(address)).await.unwrap();
        let recipients = addresses(&["b@b.test"]);
        let mail = Outgoing { sender: &ReversePath::Null, recipients: &recipients, size, eight_bit: false };
        let tried = connection.send(&mail, &mut body.as_bytes(), &OpenGate).await;
        assert!(matches!(tried, Try::Failed { why: Failure::Body { .. }, .. }), "{tried:?}");
    }
    seen.wait_for_torn(3).await;
    assert!(seen.messages().is_empty());
}

#[tokio::test]
async fn ten_thousand_recipients_do_not_make_both_sides_wait() {
    let names: Vec<String> = (0..10_000).map(|n| format!("recipient-number-{n}@b.test")).collect();
    let names: Vec<&str> = names.iter().map(String::as_str).collect();
    let (tried, _) = try_once(Faults::default(), &names).await;
    let Try::Answered { recipients } = tried else { panic!("{tried:?}") };
    assert_eq!(codes(&recipients), vec![250; 10_000]);
}

#[tokio::test]
async fn what_the_server_has_ruled_out_is_not_tried() {
    let (tried, seen) = try_once(Faults { size_limit: Some(10), ..Faults::default() }, &["b@b.test"]).await;
    assert!(matches!(&tried, Try::Answered { recipients } if codes(recipients) == [-552]), "{tried:?}");
    assert_eq!(seen.commands().len(), 1, "EHLO alone");
    let (tried, _) = try_once(Faults::default(), &["b@b.test", "grün@c.test"]).await;
    assert!(matches!(&tried, Try::Answered { recipients } if codes(recipients) == [250, -550]), "{tried:?}");
}

#[tokio::test]
async fn a_server_without_starttls_hears_no_password() {
    let (address, seen) = fake(Faults::default()).await;
    let login = Some(Login::Password { user: "ann".to_owned(), password: "secret".to_owned() });
    let failure = Connection::open(&Server { security: Security::Starttls, login, ..server(address) }).await.err();
    assert!(matches!(failure, Some(Failure::NoStarttls)), "{failure:?}");
    assert_eq!(seen.commands(), ["EHLO laptop.test"]);
}

#[tokio::test]
async fn a_wrong_password_is_the_accounts_fault_and_a_busy_login_the_servers() {
    let login = Some(Login::Password { user: "ann".to_owned(), password: "secret".to_owned() });
    for (answer, kind) in [("535 5.7.8 wrong", Kind::Account), ("454 4.7.0 busy", Kind::Server)] {
        let (address, _) = fake(answering(&[("AUTH", answer)])).await;
        let failure = Connection::open(&Server { login: login.clone(), ..server(address) }).await.err().unwrap();
        assert_eq!(failure.kind(), kind, "{failure}");
        assert!(failure.to_string().contains("ann") && !failure.to_string().contains("secret"));
    }
    let (address, _) = fake(Faults::default()).await;
    let token = Some(Login::Token { user: "ann".to_owned(), token: "t".to_owned() });
    let failure = Connection::open(&Server { login: token, ..server(address) }).await.err().unwrap();
    assert!(matches!(failure, Failure::NoMechanism), "{failure}");
}

#[tokio::test]
async fn a_connection_that_went_stale_is_noticed_before_a_mail_is_tried() {
    let (address, _) = fake(answering(&[("QUIT", CLOSE)])).await;
    let mut connection = Connection::open(&server(address)).await.unwrap();
    connection.replies.write(b"QUIT\r\n", Duration::from_secs(1), Stage::Idle).await.unwrap();
    tokio::time::sleep(Duration::from_millis(200)).await;
    assert!(!connection.is_usable());
    let tried = send(&mut connection, &["b@b.test"], &OpenGate).await;
    assert!(matches!(tried, Try::Failed { why: Failure::Closed { stage: Stage::Idle, .. }, .. }), "{tried:?}");
}

#[tokio::test]
async fn without_a_way_to_the_server_nobody_waits() {
    let address = TcpListener::bind("127.0.0.1:0").await.unwrap().local_addr().unwrap();
    let begun = tokio::time::Instant::now();
    let refused = Connection::open(&server(address)).await.err().unwrap();
    assert!(matches!(refused, Failure::Refused { .. }), "{refused}");
    let elsewhere = Server { source: Some("192.0.2.77".parse().unwrap()), ..server(address) };
    let gone = Connection::open(&elsewhere).await.err().unwrap();
    assert!(matches!(gone, Failure::Unreachable { .. }), "{gone}");
    let other_family = Server { source: Some("::1".parse().unwrap()), ..server(address) };
    let none = Connection::open(&other_family).await.err().unwrap();
    assert!(matches!(none, Failure::Lookup { .. }), "{none}");
    assert!(begun.elapsed() < Duration::from_secs(1));
    assert_eq!([refused.kind(), gone.kind(), none.kind()], [Kind::Path; 3]);
}

#[tokio::test]
async fn the_source_address_is_the_one_that_was_asked_for() {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap();
    let server = Server { source: Some("127.0.0.9".parse().unwrap()), ..server(address) };
    let (_, accepted) = tokio::join!(Connection::open(&server), async {
        let (mut stream, peer) = listener.accept().await.unwrap();
        stream.write_all(b"554 no\r\n").await.unwrap();
        let _ = stream.read_u8().await;
        peer
    });
    assert_eq!(accepted.ip().to_string(), "127.0.0.9");
}
