//! What is too much: for the server, and for the disk.

use std::path::PathBuf;
use std::process::{Command, Stdio};
use std::time::{Duration, Instant};

use crate::device::{Device, installed};
use crate::smtp_sink::Sink;

#[test]
fn what_a_server_does_not_take_at_once_follows_in_further_transactions() {
    let mut device = Device::with_sink("", Sink::start(3));
    device.start();
    let recipients: Vec<String> = (0..10).map(|place| format!("r{place}@b.test")).collect();
    let mut sendmail = device.command(device.path("sendmail"));
    sendmail.args(&recipients);
    let began = Instant::now();
    let sent = device.run(sendmail, "Subject: x\n\nhello\n");
    assert!(sent.status.success(), "{sent:?}");
    device.until("all have it", |device| {
        device.sink.taken().iter().map(|taken| taken.recipients.len()).sum::<usize>() == 10
    });
    // A later round would have come after half a minute.
    assert!(began.elapsed() < Duration::from_secs(15), "{:?}", began.elapsed());
    let taken = device.sink.taken();
    assert_eq!(taken.iter().map(|taken| taken.recipients.len()).collect::<Vec<_>>(), [3, 3, 3, 1]);
    assert_eq!(taken.iter().flat_map(|taken| taken.recipients.clone()).collect::<Vec<_>>(), recipients);
    assert!(taken.iter().all(|other| other.text == taken[0].text), "all got the same bytes");
    device.until("nothing is left", |device| device.kept() == 0);
}

#[test]
fn whoever_the_server_refused_is_reported_though_the_answer_for_the_others_is_lost() {
    let mut device = Device::with_outbox("unknown = \"hold\"\nsent_settle = \"1s\"");
    device.start();
    let mut sendmail = device.command(device.path("sendmail"));
    sendmail.args(["-f", "mute@a.test", "nobody@b.test", "b@b.test"]);
    assert!(device.run(sendmail, "Subject: x\n\nhello\n").status.success());
    let reports = device.path("Mail/new");
    let report = || std::fs::read_dir(&reports).ok()?.flatten().next().map(|entry| entry.path());
    device.until("the refusal is reported", |_| report().is_some());
    let report = std::fs::read_to_string(report().unwrap()).unwrap();
    assert!(report.contains("nobody@b.test") && report.contains("550 5.1.1"), "{report}");
    assert!(!report.contains("<b@b.test>"), "of the other nobody knows: {report}");
    device.until("the doubt is of the other alone", |device| device.open()[0]["state"] == "asks-you");
    let mail = &device.open()[0];
    let words: Vec<_> = mail["recipients"].as_array().unwrap().iter().map(|of| of["status"].clone()).collect();
    assert_eq!(words, ["bounced", "waiting"], "{mail:#}");
    assert_eq!(device.sink.taken().len(), 1);
}

#[test]
fn a_full_disk_is_said_to_programs_and_costs_no_mail_that_was_taken() {
    if !installed("python3") {
        return println!("skipped: the program that fills the disk is Python");
    }
    let mut device = Device::new("");
    let accounts = std::fs::read_to_string(device.path("config/accounts.toml")).unwrap();
    // Nobody takes the mails, so they stay.
    let nobody = accounts.replace(&format!("port = {}", device.sink.address.port()), "port = 9");
    assert_ne!(nobody, accounts);
    device.file("config/accounts.toml", &nobody);
    let Some(disk) = SmallDisk::mount(device.path("state")) else { return };
    device.start();
    let script = format!(
        "import smtplib\ns = smtplib.SMTP('127.0.0.1', {})\ntaken = 0\ntry:\n  while taken < 2000:\n    \
         s.sendmail('ann@a.test', ['b@b.test'], f'Subject: x\\r\\nMessage-ID: <{{taken}}@full>\\r\\n\\r\\n' + 'hello\\r\\n' * 1000)\n    \
         taken += 1\nexcept smtplib.SMTPDataError as error:\n  print(error.smtp_code, taken)\n",
        device.port
    );
    let script = device.file("fill.py", &script);
    let mut python = device.command("/usr/bin/env");
    python.args(["python3", &script]);
    let filled = device.run(python, "");
    let said = String::from_utf8_lossy(&filled.stdout).into_owned();
    let (code, taken) = said.trim().split_once(' ').unwrap_or_else(|| panic!("{filled:?}\n{}", device.log()));
    let taken: usize = taken.parse().unwrap();
    assert!(code == "452" && taken > 10, "{said}");
    // Programs that call sendmail keep their mail, too.
    let mut sendmail = device.command(device.path("sendmail"));
    sendmail.arg("b@b.test");
    let sent = device.run(sendmail, &format!("Subject: x\n\n{}", "hello\n".repeat(1000)));
    assert_eq!(sent.status.code(), Some(75), "{sent:?}");

    disk.grow();
    device.file("config/accounts.toml", &accounts);
    device.signal(rustix::process::Signal::HUP);
    device.until("the accounts were read", |device| device.log().contains("settings and accounts were read again"));
    let mut retry = device.command(device.path("sendmail"));
    retry.arg("-q");
    assert!(device.run(retry, "").status.success());
    device.until("nothing is left", |device| device.kept() == 0);
    let mut numbers: Vec<usize> = device
        .sink
        .taken()
        .iter()
        .map(|mail| mail.text.split_once("Message-ID: <").unwrap().1.split_once('@').unwrap().0.parse().unwrap())
        .collect();
    numbers.sort_unstable();
    assert_eq!(numbers, (0..taken).collect::<Vec<_>>(), "what was taken is sent, each once, and nothing else");
}

/// A disk of two megabytes, until dropped.
struct SmallDisk(PathBuf);

impl SmallDisk {
    fn mount(at: PathBuf) -> Option<Self> {
        std::fs::create_dir_all(&at).unwrap();
        let mut mount = Command::new("mount");
        mount.args(["-t", "tmpfs", "-o", "size=2m,mode=700", "tmpfs"]).arg(&at).stderr(Stdio::null());
        if !mount.status().is_ok_and(|status| status.success()) {
            println!("skipped: a full disk needs root, who can mount a small one");
            return None;
        }
        Some(Self(at))
    }

    fn grow(&self) {
        let grown = Command::new("mount").args(["-o", "remount,size=64m"]).arg(&self.0).status();
        assert!(grown.unwrap().success());
    }
}

impl Drop for SmallDisk {
    fn drop(&mut self) {
        // The daemon may still have it open; it goes with the last who has.
        let _gone = Command::new("umount").arg("-l").arg(&self.0).status();
    }
}
