//! Measurements by hand: how fast Postfix takes what waits, beside one client that does nothing but send.
//!
//! `cargo test --release -p packetboat --test mail_programs by_hand -- --ignored --nocapture`
//! PACKETBOAT_MAILS says how many mails (10,000), PACKETBOAT_BINARY names another binary.

use std::process::{Command, Stdio};
use std::time::{Duration, Instant};

use packetboat_daemon::outbox::store::Reader;

use crate::device::{Device, PACKETBOAT};
use crate::servers::{PASSWORD, Servers, USER};

/// One connection, MAIL, RCPT and DATA of each mail in one piece and with the end of the one before: what a sender can
/// do that keeps no record. TLS and login come before the time is taken.
const CLIENT: &str = r#"
import smtplib, ssl, sys, time
port, mails, authority, user, password = int(sys.argv[1]), int(sys.argv[2]), *sys.argv[3:6]
s = smtplib.SMTP('localhost', port, source_address=('127.0.0.1', 0))
s.starttls(context=ssl.create_default_context(cafile=authority))
s.login(user, password)
replies = s.sock.makefile('rb')
def read(code):
    line = replies.readline()
    while line[3:4] == b'-':
        line = replies.readline()
    assert line.startswith(code), line
body = b'line of a mail of some four kilobytes, as people write them\r\n' * 64
envelope = b'MAIL FROM:<ann@a.test>\r\nRCPT TO:<alice@example.test>\r\nDATA\r\n'
began = time.monotonic()
s.sock.sendall(envelope)
for mail in range(mails):
    read(b'250'); read(b'250'); read(b'354')
    header = b'From: ann@a.test\r\nTo: alice@example.test\r\nSubject: %d\r\nMessage-ID: <%d@client>\r\nDate: Sun, 22 Nov 2026 02:21:19 +0000\r\n\r\n' % (mail, mail)
    last = mail + 1 == mails
    s.sock.sendall(header + body + b'.\r\n' + (b'' if last else envelope))
    read(b'250')
print(time.monotonic() - began)
"#;

#[test]
#[ignore = "a measurement of some minutes"]
fn measure_draining_beside_one_pipelining_client() {
    let Some(servers) = Servers::start() else { return };
    let mails = number("PACKETBOAT_MAILS").unwrap_or(10_000);
    let rounds = number("PACKETBOAT_ROUNDS").unwrap_or(3);
    let mut ratios: Vec<f64> = (0..rounds)
        .map(|round| {
            let (client, (daemon, memory)) = (by_client(&servers, mails), by_daemon(&servers, mails));
            settle(&servers);
            println!(
                "round {round}, {mails} mails: client {client:.1?}, daemon {daemon:.1?} and at most {memory} KiB, ratio {:.2}",
                daemon.as_secs_f64() / client.as_secs_f64()
            );
            daemon.as_secs_f64() / client.as_secs_f64()
        })
        .collect();
    ratios.sort_by(f64::total_cmp);
    println!("the daemon takes {:.2} of the client's time (median of {rounds})", ratios[ratios.len() / 2]);
}

fn by_client(servers: &Servers, mails: usize) -> Duration {
    let mut python = Command::new("python3");
    python.args(["-c", CLIENT, &servers.submission.to_string(), &mails.to_string()]);
    python.arg(servers.authority()).args([USER, PASSWORD]);
    let output = python.stderr(Stdio::inherit()).output().unwrap();
    settle(servers);
    Duration::from_secs_f64(String::from_utf8(output.stdout).unwrap().trim().parse().unwrap())
}

/// From the start of a daemon whose outbox is full to its being empty, and the most memory that it had.
fn by_daemon(servers: &Servers, mails: usize) -> (Duration, u64) {
    let mut device = Device::new("");
    device.file(
        "config/accounts.toml",
        &format!(
            "[[account]]\nname = \"a\"\naddresses = [\"ann@a.test\"]\n[account.smtp]\nhost = \"localhost\"\nport = {}\n\
             security = \"starttls\"\nuser = \"{USER}\"\npassword = \"{PASSWORD}\"\nca_file = {:?}\n",
            servers.submission,
            servers.authority()
        ),
    );
    let body = "line of a mail of some four kilobytes, as people write them\n".repeat(64);
    let conversation = (0..mails).fold("EHLO me\n".to_owned(), |text, mail| {
        text + &format!(
            "MAIL FROM:<ann@a.test>\nRCPT TO:<alice@example.test>\nDATA\nFrom: ann@a.test\nTo: alice@example.test\n\
             Subject: {mail}\n\n{body}.\n"
        )
    });
    let binary = std::env::var("PACKETBOAT_BINARY").unwrap_or_else(|_| PACKETBOAT.to_owned());
    let mut sendmail = device.command(&binary);
    sendmail.args(["sendmail", "-bs"]).stdout(Stdio::null());
    assert!(device.run(sendmail, &(conversation + "QUIT\n")).status.success());
    let state = device.path("state/daemon");
    let reader = Reader::open(&state.join("outbox.db"), &state.join("bodies")).unwrap();
    assert_eq!(reader.mails_after(0, mails + 1).unwrap().len(), mails);
    let began = Instant::now();
    device.start_by(Command::new(binary));
    let mut memory = 0;
    while !reader.mails_after(0, 1).unwrap().is_empty() {
        std::thread::sleep(Duration::from_millis(20));
        memory = memory.max(device.peak_memory());
        assert!(began.elapsed() < Duration::from_secs(600), "{}", device.log());
    }
    (began.elapsed(), memory)
}

/// Waits until Postfix has delivered what it took, so that the next contestant has it to itself.
fn settle(servers: &Servers) {
    let queued = || servers.queue_length();
    while queued() > 0 {
        std::thread::sleep(Duration::from_millis(100));
    }
}

fn number(variable: &str) -> Option<usize> {
    std::env::var(variable).ok()?.parse().ok()
}
