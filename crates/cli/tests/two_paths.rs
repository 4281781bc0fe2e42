//! A host and a companion with the real binary, in network namespaces of their own: which path delivers, and how often.
//!
//! The server writes down the address that each mail came from, which tells the path.
//! Lease, margin and answer time are seconds here; nothing else differs from what users run.

#[path = "common/network.rs"]
mod network;

use std::collections::BTreeMap;
use std::fs;
use std::io::Write;
use std::path::{Path, PathBuf};
use std::process::{Child, Stdio};
use std::time::{Duration, Instant};

use network::{Cut, HOST_ON_LINK, Line, Network, Place, SERVER};

const PACKETBOAT: &str = env!("CARGO_BIN_EXE_packetboat");
const BY_HOST: &str = "10.66.1.2";
const BY_COMPANION: &str = "10.66.2.2";

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
"#;

/// A pair of devices and a server. Everything ends when it is dropped.
struct Pair {
    network: Network,
    directory: tempfile::TempDir,
    sink: Child,
    daemons: BTreeMap<&'static str, Child>,
    sent: usize,
}

impl Pair {
    /// Pairs two devices and starts their daemons; nothing, where there can be no namespaces.
    fn start() -> Option<Self> {
        let network = Network::new()?;
        let directory = tempfile::tempdir().unwrap();
        let script = concat!(env!("CARGO_MANIFEST_DIR"), "/tests/common/sink.py");
        let log = directory.path().join("sink");
        let sink = network.command(Place::Net, "python3").arg(script).args([SERVER, "2500"]).arg(&log).spawn();
        let Ok(sink) = sink else {
            println!("skipped: the server needs python3");
            return None;
        };
        let mut pair = Self { network, directory, sink, daemons: BTreeMap::new(), sent: 0 };
        for device in ["host", "companion"] {
            let config = pair.path(device).join("config");
            fs::create_dir_all(&config).unwrap();
            fs::write(config.join("daemon.toml"), SETTINGS).unwrap();
        }
        let account = format!(
            "[[account]]\nname = \"net\"\naddresses = [\"@example.org\"]\ndefault = true\n[account.smtp]\n\
             host = \"{SERVER}\"\nport = 2500\nsecurity = \"plain\"\n"
        );
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
        Some(pair)
    }

    fn path(&self, device: &str) -> PathBuf {
        self.directory.path().join(device)
    }

    fn command(&self, device: &str, arguments: &[&str]) -> std::process::Command {
        let place = if device == "host" { Place::Host } else { Place::Companion };
        let mut command = self.network.command(place, PACKETBOAT);
        command
            .args(arguments)
            .env("HOME", self.path(device))
            .env("PACKETBOAT_STATE_DIR", self.path(device).join("state"))
            .env("PACKETBOAT_CONFIG_DIR", self.path(device).join("config"))
            .stdin(Stdio::null())
            .stdout(Stdio::null());
        command
    }

    fn run(&mut self, device: &'static str) {
        let log = fs::OpenOptions::new().create(true).append(true).open(self.path(device).join("log")).unwrap();
        let daemon = self.command(device, &["run", "--log", "debug"]).stderr(log).spawn().unwrap();
        self.daemons.insert(device, daemon);
        self.until("the daemon runs", |pair| {
            pair.command(device, &["paths"]).stderr(Stdio::null()).status().unwrap().success()
        });
    }

    /// Ends a daemon by a signal, and waits for its end. `ip netns exec` becomes the program, so the child is the daemon.
    fn end(&mut self, device: &'static str, signal: rustix::process::Signal) {
        let mut daemon = self.daemons.remove(device).unwrap();
        let pid = rustix::process::Pid::from_child(&daemon);
        rustix::process::kill_process(pid, signal).unwrap();
        daemon.wait().unwrap();
    }

    fn json(&self, device: &str, arguments: &[&str]) -> serde_json::Value {
        let output = self.command(device, arguments).arg("--json").stdout(Stdio::piped()).output().unwrap();
        serde_json::from_slice(&output.stdout).unwrap_or_default()
    }

    /// Hands a mail to `sendmail` on the host, and returns its Message-ID.
    fn send(&mut self) -> String {
        self.sent += 1;
        let id = format!("<{}@test>", self.sent);
        let mut sendmail = self.command("host", &["sendmail", "-t", "-i", "-f", "a@example.org"]);
        let mut sendmail = sendmail.stdin(Stdio::piped()).spawn().unwrap();
        let text = format!("To: b@example.org\nSubject: {0}\nMessage-ID: {id}\n\nmail {0}\n", self.sent);
        sendmail.stdin.take().unwrap().write_all(text.as_bytes()).unwrap();
        assert!(sendmail.wait().unwrap().success(), "the mail is taken: {}", self.log("host"));
        id
    }

    /// From which addresses a mail came.
    fn arrivals(&self, id: &str) -> Vec<String> {
        let log = fs::read_to_string(self.directory.path().join("sink")).unwrap_or_default();
        let lines = log.lines().filter_map(|line| line.split_once(' '));
        lines.filter(|(_, found)| *found == id).map(|(from, _)| from.to_owned()).collect()
    }

    #[track_caller]
    fn until(&self, what: &str, holds: impl Fn(&Self) -> bool) {
        let began = Instant::now();
        while !holds(self) {
            let logs = || {
                let outbox = self.json("host", &["outbox"]);
                format!("{outbox:#}\nhost:\n{}\ncompanion:\n{}", self.log("host"), self.log("companion"))
            };
            assert!(began.elapsed() < PATIENCE, "not so in {PATIENCE:?}: {what}\n{}", logs());
            std::thread::sleep(Duration::from_millis(50));
        }
    }

    #[track_caller]
    fn arrives_once(&self, id: &str, from: &str) {
        self.until("the mail arrives", |pair| !pair.arrivals(id).is_empty());
        assert_eq!(self.arrivals(id), [from]);
    }

    fn log(&self, device: &str) -> String {
        let log = fs::read_to_string(self.path(device).join("log")).unwrap_or_default();
        let lines: Vec<&str> = log.lines().collect();
        lines[lines.len().saturating_sub(40)..].join("\n")
    }

    fn how(&self, mode: &str) {
        fs::write(self.directory.path().join("sink.mode"), mode).unwrap();
    }

    /// How many mails are not finished on a device.
    fn open(&self, device: &str) -> usize {
        let outbox = self.json(device, &["outbox", "--finished", "0"]);
        outbox["mails"].as_array().map_or(usize::MAX, Vec::len)
    }
}

impl Drop for Pair {
    fn drop(&mut self) {
        for child in self.daemons.values_mut().chain([&mut self.sink]) {
            let _gone = child.kill();
            let _gone = child.wait();
        }
    }
}

const PATIENCE: Duration = Duration::from_secs(40);

#[test]
fn a_mail_goes_by_the_path_that_is_open() {
    let Some(mut pair) = Pair::start() else { return };
    let id = pair.send();
    pair.arrives_once(&id, BY_HOST);

    // The host sees that it has no network.
    pair.network.cut(Line::HostPath, Cut::Unplugged);
    let began = Instant::now();
    let id = pair.send();
    pair.arrives_once(&id, BY_COMPANION);
    let unreachable = began.elapsed();
    pair.network.mend(Line::HostPath);

    // The host sees nothing until the connect deadline, which is two seconds here.
    pair.network.cut(Line::HostPath, Cut::Silent);
    let began = Instant::now();
    let id = pair.send();
    pair.arrives_once(&id, BY_COMPANION);
    let silent = began.elapsed();
    println!("through the companion after {unreachable:?} without a network, {silent:?} with a silent one");
    assert!(unreachable < Duration::from_secs(2), "{unreachable:?}");
    assert!(silent < Duration::from_secs(5), "{silent:?}");

    // Neither has a path; the companion's comes back while the two see each other.
    pair.network.cut(Line::CompanionPath, Cut::Unplugged);
    let id = pair.send();
    std::thread::sleep(Duration::from_secs(4));
    assert!(pair.arrivals(&id).is_empty());
    pair.network.mend(Line::CompanionPath);
    pair.arrives_once(&id, BY_COMPANION);
    pair.until("both are done", |pair| pair.open("host") == 0 && pair.open("companion") == 0);
    let outbox = pair.json("host", &["outbox"]);
    let last = outbox["mails"].as_array().unwrap().iter().find(|mail| mail["recipients"][0]["path"] == "companion");
    assert!(last.is_some(), "{outbox:#}");
}

#[test]
fn a_host_that_ends_hands_its_mails_to_the_companion() {
    let Some(mut pair) = Pair::start() else { return };
    pair.network.cut(Line::HostPath, Cut::Unplugged);
    pair.network.cut(Line::CompanionPath, Cut::Unplugged);
    let id = pair.send();
    pair.until("the companion has a copy", |pair| pair.open("companion") == 1);
    std::thread::sleep(Duration::from_secs(2));
    pair.end("host", rustix::process::Signal::TERM);
    pair.network.cut(Line::Link, Cut::Unplugged);
    pair.network.mend(Line::CompanionPath);
    pair.arrives_once(&id, BY_COMPANION);
    // The host comes back, hears of it, and does not send it again.
    pair.network.mend(Line::Link);
    pair.network.mend(Line::HostPath);
    pair.run("host");
    pair.until("both are done", |pair| pair.open("host") == 0 && pair.open("companion") == 0);
    assert_eq!(pair.arrivals(&id), [BY_COMPANION]);
}

#[test]
fn a_mail_waits_on_disk_while_no_daemon_runs() {
    let Some(mut pair) = Pair::start() else { return };
    pair.end("host", rustix::process::Signal::TERM);
    let id = pair.send();
    assert_eq!(pair.open("host"), 1);
    pair.run("host");
    pair.arrives_once(&id, BY_HOST);
}

#[test]
fn a_refusal_is_reported_to_the_sender() {
    let Some(mut pair) = Pair::start() else { return };
    pair.how("refuse");
    let id = pair.send();
    let reports = pair.path("host").join("Mail/new");
    pair.until("a report is filed", |_| count(&reports) == 1);
    let report = fs::read_dir(&reports).unwrap().next().unwrap().unwrap().path();
    let report = fs::read_to_string(report).unwrap();
    assert!(report.contains("550") && report.contains(&id) && report.contains("b@example.org"), "{report}");
    pair.until("both are done", |pair| pair.open("host") == 0 && pair.open("companion") == 0);
    assert!(pair.arrivals(&id).is_empty());
}

fn count(directory: &Path) -> usize {
    fs::read_dir(directory).map_or(0, Iterator::count)
}

/// Cuts, mends and kills at random while mails are sent; then everything is mended and everything must arrive.
/// `pace` is the longest wait between two of these, in milliseconds.
fn random_schedule(mails: usize, most: Duration, pace: u64, seed: u64) {
    let Some(mut pair) = Pair::start() else { return };
    let mut state = seed;
    let mut random = |bound: u64| {
        // SplitMix64.
        state = state.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut value = state;
        value = (value ^ (value >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        value = (value ^ (value >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        (value ^ (value >> 31)) % bound
    };
    let began = Instant::now();
    let mut ids = Vec::new();
    let mut kills = 0;
    while ids.len() < mails && began.elapsed() < most {
        for _ in 0..1 + random(4) {
            if ids.len() < mails {
                ids.push(pair.send());
            }
        }
        let line = [Line::Link, Line::HostPath, Line::CompanionPath][random(3) as usize];
        match random(8) {
            0..=2 => pair.network.cut(line, [Cut::Unplugged, Cut::Silent][random(2) as usize]),
            3..=5 => pair.network.mend(line),
            6 => {
                let device = ["host", "companion"][random(2) as usize];
                pair.end(device, rustix::process::Signal::KILL);
                pair.run(device);
                kills += 1;
            }
            _ => {}
        }
        std::thread::sleep(Duration::from_millis(random(pace)));
    }
    for line in [Line::Link, Line::HostPath, Line::CompanionPath] {
        pair.network.mend(line);
    }
    pair.until("every mail arrived", |pair| ids.iter().all(|id| !pair.arrivals(id).is_empty()));
    pair.until("both are done", |pair| pair.open("host") == 0 && pair.open("companion") == 0);
    let twice: Vec<_> = ids.iter().filter(|id| pair.arrivals(id).len() > 1).collect();
    println!("seed {seed}: {} mails, {kills} kills, {} came twice, {:?}", ids.len(), twice.len(), began.elapsed());
    // The server answers every dot, but a silent cut between dot and answer loses one, and a kill may come there: each is
    // one of the documented windows. Whatever else came twice would be far more.
    assert!(twice.len() <= 2 + kills + ids.len() / 20, "seed {seed}: came twice: {twice:?}");
}

#[test]
fn nothing_is_lost_whatever_is_cut_or_killed() {
    random_schedule(40, Duration::from_secs(60), 1200, seed(1));
}

#[test]
#[ignore = "long: five hundred mails"]
fn nothing_is_lost_of_five_hundred_mails() {
    random_schedule(500, Duration::from_secs(170), 1300, seed(2));
}

fn seed(or: u64) -> u64 {
    std::env::var("PACKETBOAT_SEED").ok().and_then(|seed| seed.parse().ok()).unwrap_or(or)
}
