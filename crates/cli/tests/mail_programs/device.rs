//! One device whose daemon runs, with a server to send to, and the programs of its users, whose environment is nearly
//! empty, as that of cron is.

use std::fs;
use std::io::Write;
use std::net::TcpListener;
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Output, Stdio};
use std::time::{Duration, Instant};

use crate::smtp_sink::{Sink, Taken};

pub(crate) const PACKETBOAT: &str = env!("CARGO_BIN_EXE_packetboat");

/// A device, until dropped.
pub(crate) struct Device {
    directory: tempfile::TempDir,
    pub(crate) sink: Sink,
    pub(crate) port: u16,
    daemon: Option<Child>,
}

impl Device {
    /// A device whose daemon does not run yet; `submission` are further settings of its port.
    pub(crate) fn new(submission: &str) -> Self {
        Self::with_sink(submission, Sink::start(usize::MAX))
    }

    /// The same with settings of its outbox.
    pub(crate) fn with_outbox(outbox: &str) -> Self {
        Self::new(&format!("[outbox]\n{outbox}\n"))
    }

    /// The same with a server of the test's own making.
    pub(crate) fn with_sink(submission: &str, sink: Sink) -> Self {
        let directory = tempfile::tempdir().unwrap();
        let port = TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap().port();
        let device = Self { directory, sink, port, daemon: None };
        device.file("config/daemon.toml", &format!("[submission]\nlisten = [\"127.0.0.1:{port}\"]\n{submission}"));
        device.file(
            "config/accounts.toml",
            &format!(
                "[[account]]\nname = \"a\"\naddresses = [\"ann@a.test\", \"@a.test\"]\ndefault = true\n[account.smtp]\n\
                 host = \"127.0.0.1\"\nport = {}\nsecurity = \"plain\"\n",
                device.sink.address.port()
            ),
        );
        for name in ["sendmail", "mailq"] {
            std::os::unix::fs::symlink(PACKETBOAT, device.path(name)).unwrap();
        }
        device
    }

    /// The same with its daemon.
    pub(crate) fn running(submission: &str) -> Self {
        let mut device = Self::new(submission);
        device.start();
        device
    }

    pub(crate) fn path(&self, name: &str) -> PathBuf {
        self.directory.path().join(name)
    }

    /// Writes a file that its user alone can read and run.
    pub(crate) fn file(&self, name: &str, text: &str) -> String {
        let path = self.path(name);
        fs::create_dir_all(path.parent().unwrap()).unwrap();
        fs::write(&path, text).unwrap();
        fs::set_permissions(&path, fs::Permissions::from_mode(0o700)).unwrap();
        path.to_str().unwrap().to_owned()
    }

    /// What mail programs give as their password.
    pub(crate) fn token(&self) -> String {
        fs::read_to_string(self.path("state/daemon/submission-token")).unwrap()
    }

    /// A command of the device's user, with no more of an environment than cron gives.
    pub(crate) fn command(&self, program: impl AsRef<Path>) -> Command {
        self.within(Command::new(program.as_ref()))
    }

    /// The same environment for a command that was made otherwise.
    pub(crate) fn within(&self, mut command: Command) -> Command {
        command
            .env_clear()
            .env("PATH", "/usr/local/bin:/usr/bin:/bin:/usr/sbin:/sbin")
            .env("HOME", self.directory.path())
            .env("LOGNAME", "ann")
            .env("PACKETBOAT_STATE_DIR", self.path("state"))
            .env("PACKETBOAT_CONFIG_DIR", self.path("config"))
            .current_dir(self.directory.path())
            .stdin(Stdio::null())
            .stdout(Stdio::piped())
            .stderr(Stdio::piped());
        command
    }

    pub(crate) fn start(&mut self) {
        self.start_by(Command::new(PACKETBOAT));
    }

    /// Starts the daemon by a command that runs it somewhere else.
    pub(crate) fn start_by(&mut self, packetboat: Command) {
        let log = fs::OpenOptions::new().create(true).append(true).open(self.path("log")).unwrap();
        let mut packetboat = self.within(packetboat);
        self.daemon = Some(packetboat.arg("run").stderr(log).stdout(Stdio::null()).spawn().unwrap());
        self.until("the daemon runs", |device| {
            device.command(PACKETBOAT).arg("paths").output().unwrap().status.success()
        });
    }

    /// The most memory that the daemon has had, in KiB.
    pub(crate) fn peak_memory(&self) -> u64 {
        let id = self.daemon.as_ref().map_or(0, Child::id);
        let status = fs::read_to_string(format!("/proc/{id}/status")).unwrap_or_default();
        let line = status.lines().find_map(|line| line.strip_prefix("VmHWM:"));
        line.and_then(|line| line.trim().trim_end_matches(" kB").parse().ok()).unwrap_or(0)
    }

    pub(crate) fn signal(&self, signal: rustix::process::Signal) {
        let Some(daemon) = &self.daemon else { return };
        rustix::process::kill_process(rustix::process::Pid::from_child(daemon), signal).unwrap();
    }

    pub(crate) fn log(&self) -> String {
        fs::read_to_string(self.path("log")).unwrap_or_default()
    }

    #[track_caller]
    pub(crate) fn until(&self, what: &str, holds: impl Fn(&Self) -> bool) {
        let began = Instant::now();
        while !holds(self) {
            assert!(began.elapsed() < PATIENCE, "not so in {PATIENCE:?}: {what}\n{}", self.log());
            std::thread::sleep(Duration::from_millis(20));
        }
    }

    /// What `packetboat outbox` says, in words.
    pub(crate) fn outbox(&self) -> String {
        let output = self.command(PACKETBOAT).arg("outbox").output().unwrap();
        assert!(output.status.success(), "{output:?}");
        String::from_utf8(output.stdout).unwrap()
    }

    /// What it says of the mails that are not finished, for scripts.
    pub(crate) fn open(&self) -> Vec<serde_json::Value> {
        let output = self.command(PACKETBOAT).args(["outbox", "--finished", "0", "--json"]).output().unwrap();
        let said: serde_json::Value = serde_json::from_slice(&output.stdout).unwrap();
        said["mails"].as_array().unwrap().clone()
    }

    /// How many mails are not finished.
    pub(crate) fn kept(&self) -> usize {
        self.open().len()
    }

    /// Runs a command of [`Self::command`] with a text as its input.
    pub(crate) fn run(&self, mut command: Command, input: &str) -> Output {
        let mut child = command.stdin(Stdio::piped()).spawn().unwrap();
        // A program that has heard enough hangs up.
        let _hung_up = child.stdin.take().unwrap().write_all(input.as_bytes());
        child.wait_with_output().unwrap()
    }

    /// The same of a program by name; its mail is at the server when this returns.
    #[track_caller]
    pub(crate) fn sends(&self, program: &str, arguments: &[&str], input: &str) -> Option<Taken> {
        if !installed(program) {
            println!("skipped: {program} is not installed");
            return None;
        }
        let mut command = self.command(program);
        command.args(arguments);
        self.sends_by(command, input)
    }

    #[track_caller]
    pub(crate) fn sends_by(&self, command: Command, input: &str) -> Option<Taken> {
        let before = self.sink.taken().len();
        let shown = format!("{command:?}");
        let output = self.run(command, input);
        assert!(output.status.success(), "{shown}: {output:?}");
        self.until("the mail is at the server", |device| device.sink.taken().len() > before);
        assert_eq!(self.sink.taken().len(), before + 1, "{shown}");
        self.sink.taken().pop()
    }
}

impl Drop for Device {
    fn drop(&mut self) {
        if let Some(daemon) = &mut self.daemon {
            let _gone = daemon.kill();
            let _gone = daemon.wait();
        }
    }
}

/// Whether a program is there, by path or by name.
pub(crate) fn installed(program: &str) -> bool {
    if program.contains('/') {
        return Path::new(program).exists();
    }
    ["/usr/local/bin", "/usr/bin", "/bin", "/usr/sbin", "/sbin"].iter().any(|at| Path::new(at).join(program).exists())
}

const PATIENCE: Duration = Duration::from_secs(30);
