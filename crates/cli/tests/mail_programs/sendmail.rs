//! The binary in the place of `sendmail` and `mailq`, by symlinks of these names, called as programs call them.

use std::fs;
use std::process::Command;

use crate::device::{Device, PACKETBOAT, installed};
use crate::port::PATCH;
use crate::{BODY, is};

#[test]
fn programs_that_call_sendmail_need_not_know_what_it_is() {
    let device = Device::running("");
    let sendmail = device.path("sendmail").to_str().unwrap().to_owned();
    let both = ["b@b.test", "c@c.test"];
    let headers = "Subject: x\nTo: b@b.test\nCc: c@c.test\n";
    for (who, arguments, input) in [
        ("cronie", &["-FCronDaemon", "-i", "-odi", "-oem", "-oi", "-t", "-f", "ann@a.test"][..], headers),
        ("Debian's cron", &["-i", "-FCronDaemon", "-B8BITMIME", "-oem", "b@b.test", "c@c.test"], "Subject: x\n"),
        ("PHP", &["-t", "-i"], headers),
        ("PHP with a sender", &["-t", "-i", "-fann@a.test"], headers),
        ("mutt", &["-oem", "-oi", "-f", "ann@a.test", "--", "b@b.test", "c@c.test"], "Subject: x\n"),
        ("s-nail", &["-i", "-r", "ann@a.test", "--", "b@b.test", "c@c.test"], "Subject: x\n"),
        ("bsd-mailx", &["-i", "b@b.test,c@c.test"], "Subject: x\n"),
        ("git", &["-f", "ann@a.test", "-i", "b@b.test", "c@c.test"], "Subject: x\n"),
    ] {
        let taken = device.sends(&sendmail, arguments, &format!("{input}\n.dot\n..\n\nlast\n")).unwrap();
        is(&taken, "ann@a.test", &both);
        assert!(taken.text.ends_with(BODY) && taken.text.contains("\r\nSubject: x\r\n"), "{who}: {}", taken.text);
        assert_eq!(taken.text.contains("\"CronDaemon\" <ann@a.test>"), who.contains("cron"), "{who}: {}", taken.text);
    }
    // Without -i a dot alone is the end, as it was when a person typed the mail.
    let taken = device.sends(&sendmail, &["b@b.test"], "Subject: x\n\nfirst\n.\nnot the mail's\n").unwrap();
    assert!(taken.text.ends_with("\r\n\r\nfirst\r\n"), "{}", taken.text);

    let smtp =
        "EHLO me\nMAIL FROM:<ann@a.test>\nRCPT TO:<b@b.test>\nRCPT TO:<c@c.test>\nDATA\nSubject: x\n\n..dot\n.\nQUIT\n";
    let taken = device.sends(&sendmail, &["-bs"], smtp).unwrap();
    is(&taken, "ann@a.test", &both);
    assert!(taken.text.ends_with("\r\n\r\n.dot\r\n"), "{}", taken.text);
}

#[test]
fn git_and_mutt_send_by_sendmail() {
    let device = Device::running("");
    let sendmail = device.path("sendmail").to_str().unwrap().to_owned();
    if installed("/usr/lib/git-core/git-send-email") {
        let patch = device.file("0001-x.patch", PATCH);
        device.file(".gitconfig", "[user]\nname = Ann\nemail = ann@a.test\n");
        let git = ["send-email", "--quiet", "--confirm=never", "--to=b@b.test", "--cc=c@c.test", "--suppress-cc=all"];
        for by in [format!("--smtp-server={sendmail}"), format!("--sendmail-cmd={sendmail}")] {
            let taken = device.sends("/usr/bin/git", &[&git[..], &[&by, &patch]].concat(), "").unwrap();
            is(&taken, "ann@a.test", &["b@b.test", "c@c.test"]);
            assert!(taken.text.contains("\r\n\r\n.dot\r\n---\r\n"), "{}", taken.text);
        }
    } else {
        println!("skipped: git send-email is not installed");
    }
    let muttrc = format!(
        "set sendmail=\"{sendmail} -oem -oi\"\nset from=\"ann@a.test\"\nset envelope_from_address=\"ann@a.test\"\n\
         set use_envelope_from=yes\nset copy=no\nset realname=\"Ann\"\n"
    );
    let muttrc = device.file("muttrc", &muttrc);
    let mutt = ["-n", "-F", &muttrc, "-s", "x", "-c", "c@c.test", "--", "b@b.test"];
    if let Some(taken) = device.sends("mutt", &mutt, ".dot\n..\n\nlast\n") {
        is(&taken, "ann@a.test", &["b@b.test", "c@c.test"]);
        assert!(taken.text.ends_with(BODY), "{}", taken.text);
    }
}

#[test]
fn mail_waits_for_a_daemon_that_does_not_run_and_is_listed_so() {
    let mut device = Device::new("");
    let sendmail = device.path("sendmail");
    let sent = device.run(called(&device, "sendmail", &["-t", "-i"]), "To: b@b.test\nSubject: x\n\nhello\n");
    assert_eq!((sent.status.code(), &sent.stderr[..]), (Some(0), &b""[..]), "{sendmail:?}: {sent:?}");
    let [mail] = &device.open()[..] else { panic!("{:?}", device.open()) };
    assert_eq!((mail["state"].as_str(), mail["attempts"].as_u64()), (Some("waiting"), Some(1)), "{mail:#}");
    for list in
        [called(&device, "sendmail", &["-bp"]), called(&device, "mailq", &[]), called(&device, PACKETBOAT, &["outbox"])]
    {
        let listed = device.run(list, "");
        let (said, beside) = (text(&listed.stdout), text(&listed.stderr));
        assert!(listed.status.success() && said.contains("waiting for the daemon"), "{said}");
        assert!(!said.contains("sending") && beside.contains("packetboat run"), "{said}{beside}");
    }
    // There is nobody who could try it now.
    let queue_run = device.run(called(&device, "sendmail", &["-q"]), "");
    assert_eq!(queue_run.status.code(), Some(75), "{queue_run:?}");
    assert!(text(&queue_run.stderr).contains("packetboat run"), "{queue_run:?}");

    device.start();
    device.until("the mail is at the server", |device| device.sink.taken().len() == 1);
    is(&device.sink.taken()[0], "ann@a.test", &["b@b.test"]);
    let listed = device.run(called(&device, "mailq", &[]), "");
    assert_eq!((listed.status.code(), text(&listed.stdout)), (Some(0), "The outbox is empty.\n".to_owned()));
}

#[test]
fn sendmail_q_has_what_waits_tried_now() {
    let mut device = Device::new("");
    let accounts = fs::read_to_string(device.path("config/accounts.toml")).unwrap();
    // Nobody listens there yet.
    let nobody = accounts.replace(&device.sink.address.port().to_string(), "9");
    device.file("config/accounts.toml", &nobody);
    device.start();
    let sent = device.run(called(&device, "sendmail", &["b@b.test"]), "Subject: x\n\nhello\n");
    assert!(sent.status.success(), "{sent:?}");
    device.until("it was tried", |device| device.outbox().contains("1 failure"));
    device.file("config/accounts.toml", &accounts);
    device.signal(rustix::process::Signal::HUP);
    device.until("the accounts were read", |device| device.log().contains("settings and accounts were read again"));
    assert_eq!(device.sink.taken().len(), 0);
    let queue_run = device.run(called(&device, "sendmail", &["-q"]), "");
    assert!(queue_run.status.success(), "{queue_run:?}");
    // Its own time would have been half a minute later.
    let began = std::time::Instant::now();
    device.until("the mail is at the server", |device| device.sink.taken().len() == 1);
    assert!(began.elapsed() < std::time::Duration::from_secs(5), "{:?}", began.elapsed());
}

#[test]
fn what_is_no_fault_of_the_mail_is_answered_with_try_again_later() {
    let device = Device::new("");
    let send = |command: Command| device.run(command, "To: b@b.test\nSubject: x\n\nhello\n");
    // Nobody's home is known, as in a bare init.
    let mut nowhere = called(&device, "sendmail", &["-t"]);
    nowhere.env_remove("PACKETBOAT_STATE_DIR").env_remove("PACKETBOAT_CONFIG_DIR").env_remove("HOME");
    // A file stands where the state is to be.
    let in_the_way = device.file("file", "");
    let mut no_state = called(&device, "sendmail", &["-t"]);
    no_state.env("PACKETBOAT_STATE_DIR", format!("{in_the_way}/state"));
    for command in [nowhere, no_state] {
        let sent = send(command);
        assert_eq!(sent.status.code(), Some(75), "{sent:?}");
        assert!(text(&sent.stderr).starts_with("sendmail: "), "{sent:?}");
    }
    device.file("config/daemon.toml", "[submission]\nlissten = []\n");
    let sent = send(called(&device, "sendmail", &["-t"]));
    assert_eq!(sent.status.code(), Some(75), "{sent:?}");
    assert!(text(&sent.stderr).contains("lissten"), "{sent:?}");
    device.file("config/daemon.toml", "");
    // Faults of the call and of the mail are told apart from these.
    for (arguments, input, status) in
        [(&["-Y"][..], "", 64), (&["-t"], "Subject: to nobody\n\nx\n", 64), (&["b@b.test"], "x: \0\n\n", 65)]
    {
        let sent = device.run(called(&device, "sendmail", arguments), input);
        assert_eq!(sent.status.code(), Some(status), "{arguments:?}: {sent:?}");
    }
    assert_eq!(device.kept(), 0);
}

#[test]
fn a_sender_whom_no_account_sends_for_is_refused_at_once_and_told_what_to_do() {
    let mut device = Device::new("");
    let accounts = fs::read_to_string(device.path("config/accounts.toml")).unwrap();
    device.file("config/accounts.toml", &accounts.replace("default = true\n", ""));
    device.start();
    let sent = device.run(called(&device, "sendmail", &["-f", "eve@e.test", "b@b.test"]), "Subject: x\n\nhello\n");
    assert_eq!(sent.status.code(), Some(67), "{sent:?}");
    let said = text(&sent.stderr);
    assert!(said.contains("eve@e.test") && said.contains("packetboat mail setup"), "{said}");
    let smtp = "EHLO me\nMAIL FROM:<eve@e.test>\nRCPT TO:<b@b.test>\nDATA\n\nhello\n.\nQUIT\n";
    let spoken = device.run(called(&device, "sendmail", &["-bs"]), smtp);
    assert!(text(&spoken.stdout).contains("\r\n550 5.7.1 no account sends mail of <eve@e.test>\r\n"), "{spoken:?}");
    assert_eq!(device.kept(), 0);
}

/// A call of the device's own programs, or of the binary.
fn called(device: &Device, program: &str, arguments: &[&str]) -> Command {
    let mut command = device.command(device.path(program));
    command.args(arguments);
    command
}

fn text(bytes: &[u8]) -> String {
    String::from_utf8_lossy(bytes).into_owned()
}
