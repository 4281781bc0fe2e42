//! `packetboat mail` against Debian's Postfix and Dovecot: an account is tried in each way that it has before it is kept,
//! and what is wrong is said with what to do. And what else is found before the first mail.

#[path = "../../mail/tests/servers/mod.rs"]
mod servers;

use std::fs;
use std::path::PathBuf;
use std::process::{Command, Stdio};
use std::time::Duration;

use servers::{PASSWORD, Servers, USER};

/// A device that has nothing yet.
struct Device(tempfile::TempDir);

impl Device {
    fn new() -> Self {
        Self(tempfile::tempdir().unwrap())
    }

    fn path(&self, name: &str) -> PathBuf {
        self.0.path().join(name)
    }

    fn command(&self, arguments: &[&str]) -> Command {
        let mut command = Command::new(env!("CARGO_BIN_EXE_packetboat"));
        command
            .args(arguments)
            .env("HOME", self.0.path())
            .env("PACKETBOAT_STATE_DIR", self.path("state"))
            .env("PACKETBOAT_CONFIG_DIR", self.path("config"))
            .stdin(Stdio::null());
        command
    }

    /// Runs a command that succeeds, and gives what it says to scripts and to people.
    #[track_caller]
    fn succeeds(&self, arguments: &[&str]) -> (serde_json::Value, String) {
        let output = self.command(arguments).arg("--json").output().unwrap();
        let said = String::from_utf8_lossy(&output.stderr).into_owned();
        assert!(output.status.success(), "{arguments:?}: {said}");
        (serde_json::from_slice(&output.stdout).unwrap(), said)
    }

    /// Runs a command that fails by its user's mistake, and gives what it says.
    #[track_caller]
    fn fails(&self, arguments: &[&str]) -> String {
        let output = self.command(arguments).output().unwrap();
        let said = String::from_utf8_lossy(&output.stderr).into_owned();
        assert_eq!(output.status.code(), Some(1), "{arguments:?}: {said}");
        said
    }

    fn accounts(&self) -> String {
        fs::read_to_string(self.path("config/accounts.toml")).unwrap_or_default()
    }
}

/// What sets up the account that works, by STARTTLS out and by the usual way in.
fn setup(servers: &Servers) -> Vec<String> {
    let (smtp, imap) = (format!("127.0.0.1:{}", servers.submission), format!("127.0.0.1:{}", servers.imaps));
    let (password, authority) = (format!("echo {PASSWORD}"), servers.authority());
    let arguments = [
        ["--address", "alice@example.test"],
        ["--smtp", &smtp],
        ["--security", "starttls"],
        ["--user", USER],
        ["--imap", &imap],
        ["--imap-user", USER],
        ["--password-command", &password],
        ["--ca-file", authority.to_str().unwrap()],
    ];
    ["mail", "setup"].into_iter().chain(arguments.into_iter().flatten()).map(str::to_owned).collect()
}

fn as_texts(arguments: &[String]) -> Vec<&str> {
    arguments.iter().map(String::as_str).collect()
}

/// The same with another value for an option.
fn with(arguments: &[String], option: &str, value: &str) -> Vec<String> {
    let mut arguments = arguments.to_vec();
    let at = arguments.iter().position(|argument| argument == option).unwrap();
    arguments[at + 1] = value.to_owned();
    arguments
}

#[test]
fn an_account_is_kept_that_works_both_ways() {
    let Some(servers) = Servers::start() else { return };
    servers.doveadm(&["mailbox", "create", "-u", USER, "Lists"]);
    let device = Device::new();
    let (_, said) = device.succeeds(&as_texts(&setup(&servers)));
    assert!(said.contains("mail can be sent"), "{said}");
    assert!(said.contains("fetched by IMAP: INBOX; 1 mailbox more at the server"), "{said}");
    // What is said of the way out is not taken for the way in.
    let kept = device.accounts();
    let (out, fetched) = kept.split_once("[account.imap]").unwrap();
    assert!(out.contains("security = \"starttls\"") && fetched.contains("security = \"tls\""), "{kept}");
    let (listed, _) = device.succeeds(&["mail", "list"]);
    let account = &listed["accounts"][0];
    assert_eq!(account["imap"]["mailboxes"], serde_json::json!(["INBOX"]));
    assert_eq!((&account["imap"]["at_server"], &account["pop3"]), (&"leave".into(), &serde_json::Value::Null));
    let (tried, _) = device.succeeds(&["mail", "test"]);
    assert_eq!(tried["accounts"][0]["imap"]["fetched"], serde_json::json!(["INBOX"]));
    assert_eq!(tried["accounts"][0]["smtp"], true);

    // One that is fetched alone, by POP3.
    let pop3 = format!("127.0.0.1:{}", servers.pop3);
    let (password, authority) = (format!("echo {PASSWORD}"), servers.authority());
    let mut by_pop3 = vec!["mail", "setup", "--name", "old", "--address", "b@example.test", "--pop3", &pop3];
    by_pop3.extend(["--pop3-security", "starttls", "--pop3-user", USER, "--at-server", "delete"]);
    by_pop3.extend(["--password-command", &password, "--ca-file", authority.to_str().unwrap()]);
    let (_, said) = device.succeeds(&by_pop3);
    assert!(said.contains("fetched by POP3: 0 messages"), "{said}");
    let output = device.command(&["mail", "list"]).output().unwrap();
    let shown = String::from_utf8_lossy(&output.stdout).into_owned();
    assert!(shown.contains("fetched by POP3") && shown.contains("deleted at the server once both"), "{shown}");
    assert!(!shown.contains(PASSWORD) && !shown.contains("echo"), "{shown}");
}

#[test]
fn what_is_wrong_with_the_way_in_is_found_at_setup_and_nothing_is_kept() {
    let Some(servers) = Servers::start() else { return };
    let device = Device::new();
    let good = setup(&servers);
    let silent = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
    let silent = format!("127.0.0.1:{}", silent.local_addr().unwrap().port());
    fs::create_dir_all(device.path("config")).unwrap();
    fs::write(device.path("config/daemon.toml"), "[outbox]\nconnect = \"2s\"\n").unwrap();
    let other = "[account.imap]\nhost = \"127.0.0.1\"";
    for (arguments, why, hint) in [
        (with(&good, "--imap-user", "nobody"), "refused the login", "made for one program"),
        (with(&good, "--imap", "nowhere.invalid"), "address of nowhere.invalid cannot be found", "`host`"),
        (with(&good, "--imap", "127.0.0.1:1"), "cannot connect", "host and port"),
        (with(&good, "--imap", &silent), "no connection within 2s", "host, port and security"),
        ([&good[..], &["--mailbox".into(), "Lists".into()]].concat(), "no mailbox \"Lists\"", "--mailbox"),
    ] {
        let said = device.fails(&as_texts(&arguments));
        assert!(said.contains(why) && said.contains("Hint: ") && said.contains(hint), "{said}");
        assert!(!said.contains("no mail can be sent"), "the way out is right: {said}");
        assert_eq!(device.accounts(), "", "{why}");
    }
    // A certificate of nobody that is known, of an account that is there already.
    device.succeeds(&as_texts(&good));
    let (out, fetched) = device.accounts().split_once(other).map(|(a, b)| (a.to_owned(), b.to_owned())).unwrap();
    let stranger = concat!(env!("CARGO_MANIFEST_DIR"), "/../mail/tests/servers/some-authority.pem");
    let distrusting = fetched.replace(servers.authority().to_str().unwrap(), stranger);
    fs::write(device.path("config/accounts.toml"), format!("{out}{other}{distrusting}")).unwrap();
    let said = device.fails(&["mail", "test"]);
    assert!(said.contains("certificate of 127.0.0.1 is not trusted") && said.contains("ca_file"), "{said}");
    assert!(said.contains("mail can be sent"), "what works is said too: {said}");
}

#[test]
fn a_maildir_that_is_a_file_is_found_at_setup_and_at_run() {
    let Some(servers) = Servers::start() else { return };
    let device = Device::new();
    fs::write(device.path("Mail"), "not a directory").unwrap();
    for arguments in [as_texts(&setup(&servers)), vec!["run"], vec!["inbox"]] {
        let said = device.fails(&arguments);
        assert!(said.contains("Mail cannot be a Maildir") && said.contains("inbox.maildir"), "{said}");
    }
    assert_eq!(device.accounts(), "");
    // An account that fetches nothing needs none.
    let good = setup(&servers);
    let at = good.iter().position(|argument| argument == "--imap").unwrap();
    let without = [&good[..at], &good[at + 4..]].concat();
    device.succeeds(&as_texts(&without));
}

#[test]
fn a_mail_to_oneself_tells_whether_the_provider_files_in_sent_and_the_account_remembers() {
    let Some(servers) = Servers::start() else { return };
    servers.doveadm(&["mailbox", "create", "-u", USER, "Sent"]);
    let probing = [&setup(&servers)[..], &["--probe-sent".to_owned()]].concat();
    for files in [false, true] {
        if files {
            servers.file_in_sent();
        }
        let device = Device::new();
        let (told, said) = device.succeeds(&as_texts(&probing));
        assert_eq!(told["provider_files_sent"], files, "{said}");
        assert!(device.accounts().contains(&format!("provider_files_sent = {files}\n")), "{}", device.accounts());
        assert_eq!(said.contains("file_in_sent = true"), !files, "{said}");
        let (listed, _) = device.succeeds(&["mail", "list"]);
        assert_eq!(listed["accounts"][0]["provider_files_sent"], files);
    }
}

#[test]
fn an_account_that_is_there_already_is_asked_the_same_and_its_file_stays_as_it_was_written() {
    let Some(servers) = Servers::start() else { return };
    servers.doveadm(&["mailbox", "create", "-u", USER, "Sent"]);
    let device = Device::new();
    device.succeeds(&as_texts(&setup(&servers)));
    let written = format!("# my accounts\n{}", device.accounts());
    fs::write(device.path("config/accounts.toml"), &written).unwrap();
    for files in [false, true] {
        if files {
            servers.file_in_sent();
        }
        let (told, said) = device.succeeds(&["mail", "probe"]);
        assert_eq!(told["provider_files_sent"], files, "{said}");
        let line = format!("provider_files_sent = {files}\n");
        assert_eq!(device.accounts().replacen(&line, "", 1), written);
    }
    let said = device.fails(&["mail", "probe", "nobody's"]);
    assert!(said.contains("there is no account") && said.contains("mail list"), "{said}");
}

#[test]
fn a_daemon_waits_for_a_command_that_is_nearly_done_and_names_one_that_is_not() {
    let device = Device::new();
    let pairing = || {
        let mut waiting = device.command(&["pair", "--listen", "127.0.0.1:0", "--yes"]);
        let mut waiting = waiting.stderr(Stdio::piped()).spawn().unwrap();
        // It has the right to write in the home once it invites the other device.
        let mut invites = [0; 1];
        std::io::Read::read_exact(waiting.stderr.as_mut().unwrap(), &mut invites).unwrap();
        waiting
    };
    fs::create_dir_all(device.path("config")).unwrap();
    fs::write(device.path("config/daemon.toml"), "[submission]\nlisten = [\"127.0.0.1:0\"]\n").unwrap();
    let mut waiting = pairing();
    let began = std::time::Instant::now();
    let said = device.fails(&["run"]);
    assert!(said.contains("another command is at work") && said.contains("packetboat pair"), "{said}");
    assert!(began.elapsed() >= Duration::from_secs(5));

    let mut daemon = device.command(&["run"]).stderr(Stdio::null()).spawn().unwrap();
    #[allow(clippy::disallowed_methods, reason = "the daemon is to meet the command that is at work")]
    std::thread::sleep(Duration::from_secs(1));
    waiting.kill().unwrap();
    waiting.wait().unwrap();
    let runs = (0..100).any(|_| {
        #[allow(clippy::disallowed_methods, reason = "another process is waited for")]
        std::thread::sleep(Duration::from_millis(100));
        device.command(&["paths"]).output().unwrap().status.success()
    });
    daemon.kill().unwrap();
    daemon.wait().unwrap();
    assert!(runs, "the daemon runs when the command has ended");
}

#[test]
fn a_device_is_not_its_own_companion() {
    let device = Device::new();
    let mut waiting =
        device.command(&["pair", "--listen", "127.0.0.1:0", "--yes"]).stderr(Stdio::null()).spawn().unwrap();
    let said = (0..50).find_map(|_| {
        #[allow(clippy::disallowed_methods, reason = "the other process is to hold the right to pair first")]
        std::thread::sleep(Duration::from_millis(100));
        let said = device.fails(&["pair", "127.0.0.1", "--yes"]);
        said.contains("own companion").then_some(said)
    });
    waiting.kill().unwrap();
    waiting.wait().unwrap();
    let said = said.expect("it is told that the two are one");
    assert!(said.contains("Hint: ") && said.contains("on the other device"), "{said}");
}
