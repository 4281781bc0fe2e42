//! The client against aiosmtpd, another's implementation of SMTP, which fails on demand: every outcome of a try.

mod servers;

use std::io::{BufRead, BufReader};
use std::process::{Child, Command, Stdio};
use std::time::Duration;

use packetboat_mail::Login;
use packetboat_mail::address::{Address, ReversePath};
use packetboat_mail::smtp::{
    Connection, Deadlines, Failure, Fate, Gate, OpenGate, Outgoing, Security, Server, Trust, Try,
};

/// The server, until dropped, and what it says.
struct Faulty {
    directory: tempfile::TempDir,
    port: u16,
    process: Child,
    lines: BufReader<std::process::ChildStdout>,
}

impl Drop for Faulty {
    fn drop(&mut self) {
        let _ = self.process.kill();
        let _ = self.process.wait();
    }
}

impl Faulty {
    fn start() -> Option<Self> {
        let importable = Command::new("python3").args(["-c", "import aiosmtpd"]).stderr(Stdio::null()).status();
        if !importable.is_ok_and(|status| status.success()) || !servers::is_installed("openssl") {
            println!("skipped: aiosmtpd or openssl is missing; see tests/servers/install.sh");
            return None;
        }
        let directory = tempfile::tempdir().unwrap();
        servers::write_certificates(directory.path());
        let [port] = servers::free_ports();
        let mut process = Command::new("python3")
            .arg(concat!(env!("CARGO_MANIFEST_DIR"), "/tests/servers/faulty.py"))
            .arg(port.to_string())
            .arg(directory.path())
            .stdout(Stdio::piped())
            .spawn()
            .unwrap();
        let lines = BufReader::new(process.stdout.take().unwrap());
        let mut faulty = Self { directory, port, process, lines };
        assert_eq!(faulty.line(), "up");
        Some(faulty)
    }

    fn line(&mut self) -> String {
        let mut line = String::new();
        self.lines.read_line(&mut line).unwrap();
        line.trim_end().to_owned()
    }

    fn server(&self) -> Server {
        Server {
            host: "localhost".to_owned(),
            port: self.port,
            security: Security::Starttls,
            trust: Trust::load(Some(&self.directory.path().join("authority.pem"))).unwrap(),
            login: Some(Login::Password { user: "alice".to_owned(), password: "secret".to_owned() }),
            hello: "laptop.test".to_owned(),
            source: Some("127.0.0.1".parse().unwrap()),
            deadlines: Deadlines { answer: Duration::from_secs(1), ..Deadlines::default() },
        }
    }

    async fn send(&self, fault: &str, recipients: &[&str], gate: &impl Gate) -> Try {
        let mut connection = Connection::open(&self.server()).await.unwrap();
        let body =
            format!("Message-ID: <{}@laptop.test>\r\nX-Fault: {fault}\r\n\r\nhi\r\n", &fault[..fault.len().min(4)]);
        let sender = ReversePath::Mailbox(Address::parse("alice@a.test").unwrap());
        let recipients: Vec<Address> = recipients.iter().map(|text| Address::parse(text).unwrap()).collect();
        let mail = Outgoing { sender: &sender, recipients: &recipients, size: body.len() as u64, eight_bit: false };
        connection.send(&mail, &mut body.as_bytes(), gate).await
    }
}

struct Shut;

impl Gate for Shut {
    async fn may_write_dot(&self, _: &[Fate]) -> bool {
        false
    }
}

fn codes(fates: &[Fate]) -> Vec<i32> {
    let code = |fate: &Fate| match fate {
        Fate::Accepted(reply) => i32::from(reply.code),
        Fate::Refused(reply) => -i32::from(reply.code),
        Fate::Untried => 0,
        Fate::Unknown => 1,
    };
    fates.iter().map(code).collect()
}

#[tokio::test(flavor = "multi_thread")]
async fn every_outcome_is_told_from_the_others() {
    let Some(mut faulty) = Faulty::start() else { return };
    let all = ["b@b.test", "nobody@b.test", "full@b.test"];
    for (fault, expected) in
        [("none", [250, -550, -452]), ("451 4.3.0 later", [-451, -550, -452]), ("554 5.7.1 no", [-554, -550, -452])]
    {
        let tried = faulty.send(fault, &all, &OpenGate).await;
        assert!(matches!(&tried, Try::Answered { recipients } if codes(recipients) == expected), "{fault}: {tried:?}");
    }
    assert_eq!(faulty.line(), "taken <none@laptop.test> b@b.test");
    for fault in ["drop", "slow", "never"] {
        let tried = faulty.send(fault, &all, &OpenGate).await;
        assert!(
            matches!(&tried, Try::AnswerLost { recipients, .. } if codes(recipients) == [1, -550, -452]),
            "{fault}: {tried:?}"
        );
        // And indeed it was taken.
        assert_eq!(faulty.line(), format!("taken <{}@laptop.test> b@b.test", &fault[..4]));
    }
    let tried = faulty.send("shut", &all, &Shut).await;
    assert!(matches!(&tried, Try::Failed { recipients, .. } if codes(recipients) == [0, -550, -452]), "{tried:?}");
    // What was held back was not taken: the next that is taken is the next that was sent.
    faulty.send("last", &["b@b.test"], &OpenGate).await;
    assert_eq!(faulty.line(), "taken <last@laptop.test> b@b.test");
}

/// In a network namespace without any network; see the next test.
#[tokio::test]
#[ignore = "run by the next test, in a namespace of its own"]
#[allow(clippy::disallowed_methods)]
async fn in_a_namespace_without_a_network() {
    let directory = tempfile::tempdir().unwrap();
    servers::write_certificates(directory.path());
    let server = Server {
        host: "192.0.2.1".to_owned(),
        port: 465,
        security: Security::Tls,
        trust: Trust::load(Some(&directory.path().join("authority.pem"))).unwrap(),
        login: None,
        hello: "laptop.test".to_owned(),
        source: None,
        deadlines: Deadlines::default(),
    };
    let begun = std::time::Instant::now();
    let failure = Connection::open(&server).await.err().unwrap();
    assert!(matches!(failure, Failure::Unreachable { .. }), "{failure:?}");
    assert!(begun.elapsed() < Duration::from_millis(200), "{:?}", begun.elapsed());
    println!("unreachable after {:?}", begun.elapsed());
}

#[test]
fn without_a_network_a_try_fails_at_once() {
    let itself = std::env::current_exe().unwrap();
    let output = Command::new("unshare")
        .arg("-n")
        .arg(itself)
        .args(["--ignored", "--exact", "in_a_namespace_without_a_network", "--nocapture"])
        .output();
    let Ok(output) = output else { return println!("skipped: unshare is not installed") };
    let said = String::from_utf8_lossy(&[output.stdout, output.stderr].concat()).into_owned();
    if said.contains("unshare failed") || said.contains("Operation not permitted") {
        return println!("skipped: a network namespace needs root");
    }
    assert!(output.status.success() && said.contains("unreachable after"), "{said}");
    println!("{said}");
}
