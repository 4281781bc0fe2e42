//! The server against programs that write what they should, and against bytes of every other kind.

use std::collections::VecDeque;
use std::net::SocketAddr;
use std::sync::Mutex;

use proptest::prelude::*;
use tokio::io::{AsyncReadExt, AsyncWriteExt};

use super::*;
use crate::message::Moment;

/// A queue that keeps mail in memory, or refuses it as it is told.
#[derive(Default)]
struct Kept {
    mails: Mutex<Vec<(String, Vec<String>, String)>>,
    refusals: Mutex<VecDeque<Refusal>>,
}

impl Queue for Kept {
    type Id = usize;

    async fn accept(&self, submission: Submission) -> Result<usize, Refusal> {
        // Whoever says 250 before this has returned is caught by a test that counts.
        tokio::time::sleep(Duration::from_millis(20)).await;
        if let Some(refusal) = self.refusals.lock().unwrap().pop_front() {
            return Err(refusal);
        }
        let body = String::from_utf8(submission.body.read().unwrap()).unwrap();
        assert_eq!(body.len() as u64, submission.message.size);
        let recipients = submission.recipients.iter().map(ToString::to_string).collect();
        let mut mails = self.mails.lock().unwrap();
        mails.push((submission.sender.to_string(), recipients, body));
        Ok(mails.len())
    }

    fn check_sender(&self, sender: &ReversePath) -> Result<(), Refusal> {
        match sender.mailbox() {
            Some(address) if address.domain() == "elsewhere.test" => Err(Refusal::NoAccount { sender: sender.clone() }),
            _ => Ok(()),
        }
    }

    fn stamp(&self) -> Stamp {
        Stamp { moment: Moment { unix_seconds: 0, offset_minutes: 0 }, random: [1; 16], host: "laptop.test".to_owned() }
    }
}

fn settings() -> Settings {
    Settings {
        host: "laptop.test".to_owned(),
        origin: "laptop.test".to_owned(),
        token: None,
        tls: None,
        spool: std::env::temp_dir(),
        limits: Limits::default(),
    }
}

struct Running {
    address: SocketAddr,
    queue: Arc<Kept>,
    stop: watch::Sender<bool>,
    server: tokio::task::JoinHandle<()>,
}

async fn start(settings: Settings) -> Running {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap();
    let queue = Arc::new(Kept::default());
    let (stop, stopped) = watch::channel(false);
    let server = Server::new(listener, Reach::Loopback, settings, queue.clone()).unwrap();
    Running { address, queue, stop, server: tokio::spawn(server.run(stopped)) }
}

impl Running {
    /// Writes everything at once, and returns all that came back, one reply code a line.
    async fn talk(&self, text: &str) -> Vec<String> {
        self.talk_bytes(text.replace("\r\n", "\n").replace('\n', "\r\n").as_bytes()).await
    }

    async fn talk_bytes(&self, bytes: &[u8]) -> Vec<String> {
        let mut stream = TcpStream::connect(self.address).await.unwrap();
        // The server may have hung up by then, which is an answer.
        let _ = stream.write_all(bytes).await;
        let _ = stream.shutdown().await;
        let mut answer = Vec::new();
        let _ = timeout(Duration::from_secs(10), stream.read_to_end(&mut answer)).await.expect("the server hangs up");
        let answer = String::from_utf8(answer).unwrap();
        assert!(!answer.replace("\r\n", "").contains(['\r', '\n']));
        answer.lines().filter(|line| line.as_bytes().get(3) == Some(&b' ')).map(|line| line[..3].to_owned()).collect()
    }

    fn mails(&self) -> Vec<(String, Vec<String>, String)> {
        self.queue.mails.lock().unwrap().clone()
    }
}

const START: &str = "EHLO me\nMAIL FROM:<a@a.test>\nRCPT TO:<b@b.test>\nDATA\n";
const MESSAGE: &str = "Message-ID: <1@a>\r\nDate: Thu, 1 Jan 1970 00:00:00 +0000\r\n\r\nhi\r\n";

#[tokio::test]
async fn a_group_of_commands_is_answered_one_by_one_and_mail_is_kept_as_it_came() {
    let running = start(settings()).await;
    let one = format!(
        "MAIL FROM:<a@a.test>\nRCPT TO:<b@b.test>\nRCPT TO:<b@b.test>\nRCPT TO:<root>\nDATA\n{MESSAGE}..dot\n.\n"
    );
    let codes = running.talk(&format!("EHLO me\n{one}RSET\nNOOP\nVRFY b\n{one}QUIT\n")).await;
    let mail = ["250", "250", "250", "250", "354", "250"];
    assert_eq!(codes, [&["220", "250"][..], &mail, &["250", "250", "252"], &mail, &["221"]].concat());
    let kept = (
        "<a@a.test>".to_owned(),
        vec!["b@b.test".to_owned(), "root@laptop.test".to_owned()],
        format!("{MESSAGE}.dot\r\n"),
    );
    assert_eq!(running.mails(), [kept.clone(), kept]);
}

#[tokio::test]
async fn a_message_gets_what_it_lacks_and_keeps_no_hidden_recipients() {
    let running = start(settings()).await;
    running.talk(&format!("{START}Subject: x\nBcc: c@c.test\n\nhi\n.\n")).await;
    let mails = running.mails();
    assert!(
        mails[0].2.starts_with("Message-ID: <0.01010101010101010101010101010101@laptop.test>\r\nDate: Thu, 1 Jan 1970")
    );
    assert!(mails[0].2.ends_with("Subject: x\r\n\r\nhi\r\n"));
}

#[tokio::test]
async fn smuggled_mails_are_part_of_a_message_that_is_refused() {
    for end in ["\n.\n", "\n.\r\n", "\r.\r\n", "\r\n.\n", "\r.\r", "\r\n.\r", "\n.\r"] {
        let running = start(settings()).await;
        let inner = START.replace('\n', "\r\n").replace("EHLO me\r\n", "");
        let bytes = format!("{}a: b\r\n\r\nhi{end}{inner}smuggled\r\n.\r\nQUIT\r\n", START.replace('\n', "\r\n"));
        let codes = running.talk_bytes(bytes.as_bytes()).await;
        assert_eq!(codes, ["220", "250", "250", "250", "354", "550", "221"], "{end:?}");
        assert!(running.mails().is_empty(), "{end:?}");
    }
}

#[tokio::test]
async fn a_mail_that_the_queue_refuses_is_not_said_to_be_kept() {
    let running = start(settings()).await;
    for (refusal, code) in [
        (Refusal::Full, "452"),
        (Refusal::Busy { why: "a\r\nb".to_owned() }, "451"),
        (Refusal::TooBig { limit: 1 }, "552"),
        (Refusal::Never { why: "no".to_owned() }, "554"),
    ] {
        running.queue.refusals.lock().unwrap().push_back(refusal);
        assert_eq!(running.talk(&format!("{START}{MESSAGE}.\nQUIT\n")).await[5..], [code, "221"]);
    }
    let codes = running.talk("EHLO me\nMAIL FROM:<a@elsewhere.test>\nRCPT TO:<b@b.test>\nDATA\nQUIT\n").await;
    assert_eq!(codes, ["220", "250", "550", "503", "503", "221"]);
    assert!(running.mails().is_empty());
}

#[tokio::test]
async fn a_spool_that_cannot_be_written_loses_no_mail() {
    let running = start(Settings { spool: "/nonexistent/spool".into(), ..settings() }).await;
    let large = "x".repeat(70).as_str().to_owned() + "\n";
    let codes = running
        .talk(&format!("{START}{MESSAGE}{}.\n{}", large.repeat(2000), &format!("{START}{MESSAGE}.\nQUIT\n")[8..]))
        .await;
    assert_eq!(codes[4..], ["354", "451", "250", "250", "354", "250", "221"], "and a small one needs no spool");
}

#[tokio::test]
async fn limits_are_kept_and_said() {
    let limits = Limits { message: 1000, recipients: 3, errors: 4, line: 100, ..Limits::default() };
    let running = start(Settings { limits, ..settings() }).await;
    assert_eq!(running.talk("EHLO me\nMAIL FROM:<a@a.test> SIZE=1001\nQUIT\n").await[2..], ["552", "221"]);
    let large = format!("{START}{}.\nQUIT\n", "hello\n".repeat(200));
    assert_eq!(running.talk(&large).await[5..], ["552", "221"]);
    let many = format!(
        "EHLO me\nMAIL FROM:<a@a.test>\n{}QUIT\n",
        (0..4).map(|n| format!("RCPT TO:<r{n}@b.test>\n")).collect::<String>()
    );
    assert_eq!(running.talk(&many).await[3..], ["250", "250", "250", "452", "221"]);
    assert_eq!(running.talk(&format!("NOOP {}\nQUIT\n", "x".repeat(200))).await, ["220", "500"]);
    assert_eq!(running.talk_bytes(&vec![b'x'; 1 << 20]).await[..2], ["220", "500"]);
    assert_eq!(running.talk("A\nB\nC\nD\nE\nQUIT\n").await, ["220", "500", "500", "500", "500", "421"]);
    assert_eq!(running.talk_bytes(b"EHLO me\nQUIT\n").await, ["220", "500"]);
    assert_eq!(running.talk(&format!("{START}a\0b\n.\nQUIT\n")).await[5..], ["550", "221"]);
    assert!(running.mails().is_empty());
}

#[tokio::test]
async fn a_nul_is_refused_in_a_command_and_in_a_message() {
    let running = start(settings()).await;
    assert_eq!(running.talk("EHLO me\nNOOP a\0b\nQUIT\n").await, ["220", "250", "500", "221"]);
    for message in ["Subject: a\0b\n\nhi\n", "Subject: x\n\nhi\0\n", "\0"] {
        let codes = running.talk(&format!("{START}{message}\n.\nQUIT\n")).await;
        assert_eq!(codes[4..], ["354", "550", "221"], "{message:?}");
    }
    assert!(running.mails().is_empty());
}

#[tokio::test]
async fn a_line_too_long_for_other_servers_is_refused_and_the_longest_is_not() {
    let running = start(settings()).await;
    for (length, code) in [(998, "250"), (999, "550"), (1 << 20, "550")] {
        let message = format!("Subject: x\n\n{}\n", "x".repeat(length));
        let codes = running.talk(&format!("{START}{message}.\nQUIT\n")).await;
        assert_eq!(codes[4..], ["354", code, "221"], "{length}");
    }
    assert_eq!(running.mails().len(), 1);
}

#[tokio::test]
async fn malformed_mime_is_the_readers_business_and_passes_as_it_came() {
    let running = start(settings()).await;
    let deep = "--b\r\nContent-Type: multipart/mixed; boundary=b\r\n\r\n".repeat(2000);
    for body in [
        "Content-Type: multipart/mixed\r\n\r\n--\r\n----\r\n",
        "Content-Type: multipart/mixed; boundary=\"\r\n\r\n--\"\r\n",
        "Content-Type: text/plain; charset=\"\r\nContent-Transfer-Encoding: base64\r\n\r\n====%%%\r\n",
        "Content-Type: ;;;/;=\r\nMIME-Version: minus one\r\n\r\n=?utf-8?q?=FF=?=\r\n",
        &format!("Content-Type: multipart/mixed; boundary=b\r\n\r\n{deep}"),
    ] {
        let before = running.mails().len();
        let codes = running.talk(&format!("{START}{body}.\nQUIT\n")).await;
        assert_eq!(codes[4..], ["354", "250", "221"], "{}", &body[..40]);
        assert!(running.mails()[before].2.ends_with(body));
        let _any = crate::message::Glance::of(body.as_bytes());
    }
}

#[tokio::test]
async fn ten_thousand_recipients_are_taken() {
    let running = start(settings()).await;
    let recipients: String = (0..10_000).map(|n| format!("RCPT TO:<r{n}@b.test>\n")).collect();
    let text = format!("EHLO me\nMAIL FROM:<a@a.test>\n{recipients}DATA\n{MESSAGE}.\nQUIT\n");
    // The answers are read while commands are written, as a program must that sends so many at once.
    let stream = TcpStream::connect(running.address).await.unwrap();
    let (mut read, mut write) = stream.into_split();
    let writer = tokio::spawn(async move {
        write.write_all(text.replace("\r\n", "\n").replace('\n', "\r\n").as_bytes()).await.map(|()| write)
    });
    let mut answer = String::new();
    read.read_to_string(&mut answer).await.unwrap();
    drop(writer.await);
    assert!(answer.ends_with("250 2.0.0 kept as 1\r\n221 2.0.0 goodbye\r\n"), "{}", &answer[answer.len() - 200..]);
    assert_eq!(running.mails()[0].1.len(), 10_000);
}

#[tokio::test]
async fn without_the_token_nothing_is_taken() {
    let token = Token::new("the-local-token");
    let running = start(Settings { token, ..settings() }).await;
    // "\0ann\0the-local-token", "ann", "the-local-token"; and the same with a wrong one.
    let plain = "AGFubgB0aGUtbG9jYWwtdG9rZW4=";
    assert_eq!(running.talk("EHLO me\nMAIL FROM:<a@a.test>\nQUIT\n").await, ["220", "250", "530", "221"]);
    assert_eq!(
        running.talk("EHLO me\nAUTH PLAIN AGFubgB3cm9uZy10b2tlbg==\nMAIL FROM:<a@a.test>\n").await[2..],
        ["535", "530"]
    );
    assert_eq!(
        running.talk(&format!("EHLO me\nAUTH PLAIN {plain}\nMAIL FROM:<a@a.test>\n")).await[2..],
        ["235", "250"]
    );
    assert_eq!(
        running.talk(&format!("EHLO me\nAUTH PLAIN\n{plain}\nMAIL FROM:<a@a.test>\n")).await[2..],
        ["334", "235", "250"]
    );
    let login = "EHLO me\nAUTH LOGIN\nYW5u\ndGhlLWxvY2FsLXRva2Vu\nMAIL FROM:<a@a.test>\n";
    assert_eq!(running.talk(login).await[2..], ["334", "334", "235", "250"]);
    assert_eq!(
        running.talk("EHLO me\nAUTH LOGIN\n*\nAUTH PLAIN !!!\nAUTH CRAM-MD5\n").await[2..],
        ["334", "501", "501", "504"]
    );
}

#[tokio::test]
async fn programs_beyond_the_limit_are_told_to_come_back() {
    let limits = Limits { connections: 1, ..Limits::default() };
    let running = start(Settings { limits, ..settings() }).await;
    let mut first = TcpStream::connect(running.address).await.unwrap();
    first.read_u8().await.unwrap();
    assert_eq!(running.talk("QUIT\n").await, ["421"]);
    drop(first);
    for _ in 0..100 {
        if running.talk("QUIT\n").await == ["220", "221"] {
            return;
        }
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
    panic!("the place stays taken");
}

#[tokio::test]
async fn a_program_that_says_nothing_is_not_waited_for() {
    let short = Duration::from_millis(150);
    let limits = Limits { idle: short, piece: short, transfer: Duration::from_millis(400), ..Limits::default() };
    let running = start(Settings { limits, ..settings() }).await;
    let mut silent = TcpStream::connect(running.address).await.unwrap();
    let mut answer = String::new();
    silent.read_to_string(&mut answer).await.unwrap();
    assert!(answer.ends_with("421 4.4.2 nothing came for too long\r\n"), "{answer}");
    // One byte at a time is not silence; a message as a whole has its deadline too.
    let mut slow = TcpStream::connect(running.address).await.unwrap();
    slow.write_all(START.replace('\n', "\r\n").as_bytes()).await.unwrap();
    let (mut read, mut write) = slow.into_split();
    let dribble = tokio::spawn(async move {
        while write.write_all(b"x").await.is_ok() {
            tokio::time::sleep(Duration::from_millis(50)).await;
        }
    });
    let mut answer = String::new();
    timeout(Duration::from_secs(5), read.read_to_string(&mut answer)).await.unwrap().ok();
    assert!(answer.contains("\r\n421 4.4.2"), "{answer}");
    dribble.abort();
    assert!(running.mails().is_empty());
}

#[tokio::test]
async fn a_server_that_stops_takes_leave_and_finishes_what_it_has_begun() {
    let running = start(settings()).await;
    let mut idle = TcpStream::connect(running.address).await.unwrap();
    let mut busy = TcpStream::connect(running.address).await.unwrap();
    busy.write_all(START.replace('\n', "\r\n").as_bytes()).await.unwrap();
    let mut said = String::new();
    while !said.ends_with("on a line of its own\r\n") {
        let mut piece = [0; 100];
        let count = busy.read(&mut piece).await.unwrap();
        assert!(count > 0);
        said.push_str(std::str::from_utf8(&piece[..count]).unwrap());
    }
    running.stop.send(true).unwrap();
    busy.write_all(format!("{MESSAGE}.\r\n").as_bytes()).await.unwrap();
    let (mut left, mut kept) = (String::new(), String::new());
    idle.read_to_string(&mut left).await.unwrap();
    busy.read_to_string(&mut kept).await.unwrap();
    assert!(left.ends_with("421 4.3.2 shutting down, come back later\r\n"), "{left}");
    assert!(kept.starts_with("250 2.0.0 kept as 1\r\n"), "{kept}");
    timeout(Duration::from_secs(5), running.server).await.unwrap().unwrap();
    assert_eq!(running.queue.mails.lock().unwrap().len(), 1);
}

#[tokio::test]
async fn it_reaches_no_further_than_it_was_told() {
    let begin = async |reach| {
        let listener = TcpListener::bind("0.0.0.0:0").await.unwrap();
        Server::new(listener, reach, settings(), Arc::new(Kept::default())).err()
    };
    assert!(matches!(begin(Reach::Loopback).await, Some(ServerError::BeyondLoopback { .. })));
    assert!(matches!(begin(Reach::Network).await, Some(ServerError::Unprotected { .. })));
}

/// What a program hears that speaks through a pipe.
async fn pipe(bytes: Vec<u8>, queue: &Kept, settings: &Settings, peer: Peer) -> String {
    let (ours, theirs) = tokio::io::duplex(1 << 20);
    let (_stop, stopped) = watch::channel(false);
    let speak = async move {
        let (mut read, mut write) = tokio::io::split(ours);
        let _ = write.write_all(&bytes).await;
        let _ = write.shutdown().await;
        let mut answer = Vec::new();
        let _ = read.read_to_end(&mut answer).await;
        String::from_utf8(answer).unwrap()
    };
    let ((), answer) = tokio::join!(converse(theirs, peer, settings, queue, stopped), speak);
    answer
}

#[tokio::test]
async fn through_a_pipe_unix_line_ends_will_do_and_no_token_is_needed() {
    let queue = Kept::default();
    let settings = Settings { token: Token::new("the-local-token"), ..settings() };
    let answer = pipe(format!("{START}Subject: x\n\nhi\n.\nQUIT\n").into_bytes(), &queue, &settings, Peer::Pipe).await;
    assert!(answer.contains("250 2.0.0 kept as 1\r\n221"), "{answer}");
    assert!(queue.mails.lock().unwrap()[0].2.ends_with("Subject: x\r\n\r\nhi\r\n"));
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(200))]

    #[test]
    fn whatever_a_program_says_the_session_ends_and_answers_in_whole_lines(
        parts in proptest::collection::vec(
            proptest::sample::select(vec![
                &b"EHLO x\r\n"[..],
                b"MAIL FROM:<a@a.test>\r\n",
                b"RCPT TO:<b@b.test>\r\n",
                b"DATA\r\n",
                b".\r\n",
                b"AUTH LOGIN\r\n",
                b"\0\xff\r\n",
                b"\n",
                b"\r",
                b"x: y\r\n",
                b"STARTTLS\r\n",
                b"BDAT 5\r\n",
                b"RSET\r\n",
                b".",
            ]),
            0..25,
        ),
        remote in any::<bool>(),
    ) {
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().start_paused(true).build().unwrap();
        let queue = Kept::default();
        let peer = if remote { Peer::Remote } else { Peer::Local };
        let answer = runtime.block_on(pipe(parts.concat(), &queue, &settings(), peer));
        prop_assert!(answer.starts_with("220 ") && answer.ends_with("\r\n"));
        prop_assert_eq!(answer.matches("kept as").count(), queue.mails.lock().unwrap().len());
    }
}
