//! The pair of devices that these tests drive: the binary on both sides, their settings, and a server to send to.

use std::collections::BTreeMap;
use std::fs;
use std::io::Write;
use std::path::PathBuf;
use std::process::{Child, Stdio};
use std::time::{Duration, Instant};

use jiff::{SignedDuration, Timestamp};

use crate::network::{HOST_ON_LINK, Network, Place, SERVER};

pub(crate) const PACKETBOAT: &str = env!("CARGO_BIN_EXE_packetboat");
pub(crate) const BY_HOST: &str = "10.66.1.2";
pub(crate) const BY_COMPANION: &str = "10.66.2.2";

/// What [`SETTINGS`] say of lease and margin together: how long the host waits for word of a turn.
pub(crate) const LEASE_AND_MARGIN: SignedDuration = SignedDuration::from_secs(6);

const SETTINGS: &str = r#"
[submission]
listen = ["127.0.0.1:2525"]
[outbox]
connect = "2s"
answer = "3s"
lease = "5s"
margin = "1s"
backoff_first = "1s"
backoff_max = "3s"
peer_patience = "4s"
request_patience = "2s"
sent_settle = "1s"
resend = "300ms"
[link]
keep_alive = "500ms"
idle = "2s"
retry = "1s"
[inbox]
poll = "2s"
"#;

/// A pair of devices and a server. Everything ends when it is dropped.
pub(crate) struct Pair {
    pub(crate) network: Network,
    directory: tempfile::TempDir,
    sink: Option<Child>,
    recipient: &'static str,
    daemons: BTreeMap<&'static str, Child>,
    sent: usize,
    /// The id that the outbox gave to each mail, by its Message-ID.
    ids: BTreeMap<String, String>,
}

/// An acceptance of a mail by the server.
pub(crate) struct Arrival {
    /// The address that it came from.
    pub(crate) from: String,
    /// When.
    pub(crate) at: Timestamp,
}

impl Pair {
    /// Pairs two devices with a server of Python and starts their daemons; nothing, where there can be no namespaces.
    pub(crate) fn start() -> Option<Self> {
        Self::start_with(SETTINGS)
    }

    /// The same with settings of the test's own.
    pub(crate) fn start_with(settings: &str) -> Option<Self> {
        let network = Network::new()?;
        let directory = tempfile::tempdir().unwrap();
        let sink = start_sink(&network, &directory)?;
        let account = format!(
            "[[account]]\nname = \"net\"\naddresses = [\"@example.org\"]\ndefault = true\n[account.smtp]\n\
             host = \"{SERVER}\"\nport = 2500\nsecurity = \"plain\"\n"
        );
        Some(Self::join_with(network, directory, Some(sink), &account, "b@example.org", settings))
    }

    /// Pairs two devices that ask their user where nobody knows whether a mail was sent.
    pub(crate) fn start_holding_doubts() -> Option<Self> {
        Self::start_with(&SETTINGS.replace("[outbox]", "[outbox]\nunknown = \"hold\""))
    }

    /// Pairs two devices and starts their daemons. What is sent goes to `recipient`.
    pub(crate) fn join(
        network: Network,
        directory: tempfile::TempDir,
        sink: Option<Child>,
        account: &str,
        recipient: &'static str,
    ) -> Self {
        Self::join_with(network, directory, sink, account, recipient, SETTINGS)
    }

    fn join_with(
        network: Network,
        directory: tempfile::TempDir,
        sink: Option<Child>,
        account: &str,
        recipient: &'static str,
        settings: &str,
    ) -> Self {
        let mut pair =
            Self { network, directory, sink, daemons: BTreeMap::new(), sent: 0, ids: BTreeMap::new(), recipient };
        for device in ["host", "companion"] {
            let config = pair.path(device).join("config");
            fs::create_dir_all(&config).unwrap();
            fs::write(config.join("daemon.toml"), settings).unwrap();
        }
        // Only the host has an account; the companion gets it by being paired.
        fs::write(pair.path("host").join("config/accounts.toml"), account).unwrap();
        let mut waiting = pair.command("host", &["pair", "--yes"]).stderr(Stdio::null()).spawn().unwrap();
        let paired = (0..50).any(|_| {
            std::thread::sleep(Duration::from_millis(200));
            let asked = pair.command("companion", &["pair", HOST_ON_LINK, "--yes"]).output().unwrap();
            asked.status.success()
        });
        assert!(paired, "the two are paired");
        assert!(waiting.wait().unwrap().success());
        pair.run("host");
        pair.run("companion");
        pair.until("the link is up", |pair| pair.json("host", &["paths"])["link"]["up"] == true);
        pair
    }

    pub(crate) fn path(&self, device: &str) -> PathBuf {
        self.directory.path().join(device)
    }

    /// Where the daemons look for the system bus; nothing is there unless a test puts it there.
    pub(crate) fn system_bus(&self) -> PathBuf {
        self.path("system-bus")
    }

    pub(crate) fn command(&self, device: &str, arguments: &[&str]) -> std::process::Command {
        let place = if device == "host" { Place::Host } else { Place::Companion };
        let mut command = self.network.command(place, PACKETBOAT);
        self.environment(command.args(arguments), device);
        command
    }

    fn environment<'a>(&self, command: &'a mut std::process::Command, device: &str) -> &'a mut std::process::Command {
        command
            .env("HOME", self.path(device))
            .env("PACKETBOAT_STATE_DIR", self.path(device).join("state"))
            .env("PACKETBOAT_CONFIG_DIR", self.path(device).join("config"))
            // Not the computer's own, on which a test has no say.
            .env("DBUS_SYSTEM_BUS_ADDRESS", format!("unix:path={}", self.system_bus().display()))
            .stdin(Stdio::null())
            .stdout(Stdio::null())
    }

    pub(crate) fn run(&mut self, device: &'static str) {
        let log = self.begin_log(device);
        let daemon = self.command(device, &["run", "--log", "debug"]).stderr(log).spawn().unwrap();
        self.daemons.insert(device, daemon);
        self.until("the daemon runs", |pair| {
            pair.command(device, &["paths"]).stderr(Stdio::null()).status().unwrap().success()
        });
    }

    /// Runs a daemon under strace, with these options, until it ends; it is killed after a while, if it does not.
    /// Says whether it ended before.
    pub(crate) fn run_traced(&mut self, device: &str, options: &[String], most: Duration) -> bool {
        let log = self.begin_log(device);
        let place = if device == "host" { Place::Host } else { Place::Companion };
        let mut strace = self.network.command(place, "strace");
        // The tracer is the grandchild, so the child is the daemon itself.
        strace
            .args(["-D", "-f", "-qq", "-o", "/dev/null"])
            .args(options)
            .arg(PACKETBOAT)
            .args(["run", "--log", "debug"]);
        let mut traced = self.environment(&mut strace, device).stderr(log).spawn().unwrap();
        let began = Instant::now();
        while began.elapsed() < most {
            if traced.try_wait().unwrap().is_some() {
                return true;
            }
            std::thread::sleep(Duration::from_millis(20));
        }
        traced.kill().unwrap();
        traced.wait().unwrap();
        false
    }

    fn begin_log(&self, device: &str) -> fs::File {
        let mut log = fs::OpenOptions::new().create(true).append(true).open(self.path(device).join("log")).unwrap();
        // What is between a dot and this line was cut off by a kill.
        writeln!(log, "{} {STARTED}", Timestamp::now()).unwrap();
        log
    }

    /// Ends a daemon by a signal, and waits for its end. `ip netns exec` becomes the program, so the child is the daemon.
    pub(crate) fn end(&mut self, device: &'static str, signal: rustix::process::Signal) {
        let mut daemon = self.daemons.remove(device).unwrap();
        let pid = rustix::process::Pid::from_child(&daemon);
        rustix::process::kill_process(pid, signal).unwrap();
        daemon.wait().unwrap();
    }

    /// The process of a device's daemon.
    pub(crate) fn process(&self, device: &str) -> u32 {
        self.daemons[device].id()
    }

    pub(crate) fn json(&self, device: &str, arguments: &[&str]) -> serde_json::Value {
        let output = self.command(device, arguments).arg("--json").stdout(Stdio::piped()).output().unwrap();
        serde_json::from_slice(&output.stdout).unwrap_or_default()
    }

    /// Hands a mail to `sendmail` on the host, and returns its Message-ID.
    pub(crate) fn send(&mut self) -> String {
        self.sent += 1;
        let id = format!("<{}@test>", self.sent);
        let mut sendmail = self.command("host", &["sendmail", "-v", "-t", "-i", "-f", "a@example.org"]);
        let mut sendmail = sendmail.stdin(Stdio::piped()).stdout(Stdio::piped()).spawn().unwrap();
        let text = format!("To: {1}\nSubject: {0}\nMessage-ID: {id}\n\nmail {0}\n", self.sent, self.recipient);
        sendmail.stdin.take().unwrap().write_all(text.as_bytes()).unwrap();
        let output = sendmail.wait_with_output().unwrap();
        assert!(output.status.success(), "the mail is taken: {}", self.log("host"));
        self.ids.insert(id.clone(), String::from_utf8(output.stdout).unwrap().trim().to_owned());
        id
    }

    /// From which addresses a mail came.
    pub(crate) fn arrivals(&self, id: &str) -> Vec<String> {
        self.acceptances(id).into_iter().map(|arrival| arrival.from).collect()
    }

    /// Each acceptance of a mail, in order.
    pub(crate) fn acceptances(&self, id: &str) -> Vec<Arrival> {
        let log = fs::read_to_string(self.directory.path().join("sink")).unwrap_or_default();
        let arrival = |line: &str| {
            let [from, found, at] = line.split(' ').collect::<Vec<_>>().try_into().ok()?;
            (found == id).then(|| Arrival { from: from.to_owned(), at: at.parse().unwrap() })
        };
        log.lines().filter_map(arrival).collect()
    }

    /// The id that the outbox gave to a mail.
    pub(crate) fn outbox_id(&self, id: &str) -> &str {
        &self.ids[id]
    }

    /// All that a device's daemons logged.
    pub(crate) fn whole_log(&self, device: &str) -> String {
        fs::read_to_string(self.path(device).join("log")).unwrap_or_default()
    }

    #[track_caller]
    pub(crate) fn until(&self, what: &str, holds: impl Fn(&Self) -> bool) {
        self.until_within(PATIENCE, what, holds);
    }

    #[track_caller]
    pub(crate) fn until_within(&self, patience: Duration, what: &str, holds: impl Fn(&Self) -> bool) {
        let began = Instant::now();
        while !holds(self) {
            let logs = || {
                let outbox = self.json("host", &["outbox"]);
                format!("{outbox:#}\nhost:\n{}\ncompanion:\n{}", self.log("host"), self.log("companion"))
            };
            assert!(began.elapsed() < patience, "not so in {patience:?}: {what}\n{}", logs());
            std::thread::sleep(Duration::from_millis(50));
        }
    }

    #[track_caller]
    pub(crate) fn arrives_once(&self, id: &str, from: &str) {
        self.until("the mail arrives", |pair| !pair.arrivals(id).is_empty());
        assert_eq!(self.arrivals(id), [from]);
    }

    pub(crate) fn log(&self, device: &str) -> String {
        let log = fs::read_to_string(self.path(device).join("log")).unwrap_or_default();
        let lines: Vec<&str> = log.lines().collect();
        lines[lines.len().saturating_sub(40)..].join("\n")
    }

    pub(crate) fn how(&self, mode: &str) {
        fs::write(self.directory.path().join("sink.mode"), mode).unwrap();
    }

    /// The messages in a device's Maildir, sorted; one that is there twice is twice in the list.
    pub(crate) fn maildir(&self, device: &str) -> Vec<Vec<u8>> {
        let mut messages: Vec<_> = self.maildir_files(device).iter().filter_map(|file| fs::read(file).ok()).collect();
        messages.sort();
        messages
    }

    /// The files in a device's Maildir.
    pub(crate) fn maildir_files(&self, device: &str) -> Vec<PathBuf> {
        let entries = ["new", "cur"].map(|part| fs::read_dir(self.path(device).join("Mail").join(part)));
        entries.into_iter().flatten().flatten().flatten().map(|entry| entry.path()).collect()
    }

    /// Has the server of Python take mail only from who logs in by this token.
    pub(crate) fn set_token(&self, token: &str) {
        fs::write(self.directory.path().join("sink.token"), token).unwrap();
    }

    /// How many mails are not finished on a device.
    pub(crate) fn open(&self, device: &str) -> usize {
        let outbox = self.json(device, &["outbox", "--finished", "0"]);
        outbox["mails"].as_array().map_or(usize::MAX, Vec::len)
    }
}

/// Starts a server of Python in the network between the two; nothing, where it cannot be had.
pub(crate) fn start_sink(network: &Network, directory: &tempfile::TempDir) -> Option<Child> {
    let script = concat!(env!("CARGO_MANIFEST_DIR"), "/tests/common/sink.py");
    let log = directory.path().join("sink");
    let sink = network.command(Place::Net, "python3").arg(script).args([SERVER, "2500"]).arg(&log).spawn();
    if sink.is_err() {
        println!("skipped: the server needs python3");
    }
    sink.ok()
}

impl Drop for Pair {
    fn drop(&mut self) {
        for child in self.daemons.values_mut().chain(&mut self.sink) {
            let _gone = child.kill();
            let _gone = child.wait();
        }
    }
}

/// Stands in a log where a daemon was started.
pub(crate) const STARTED: &str = "TEST a daemon starts";

const PATIENCE: Duration = Duration::from_secs(40);
