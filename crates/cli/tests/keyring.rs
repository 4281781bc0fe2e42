//! A password in a real desktop's keyring: GNOME's, on a private bus, with Debian's Postfix and Dovecot to log in to.

#[path = "../../mail/tests/servers/mod.rs"]
mod servers;

use std::fs;
use std::io::Write;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Output, Stdio};
use std::time::Duration;

use servers::{PASSWORD, Servers, USER};

/// A user's session with a bus and a keyring, until dropped.
struct Desktop {
    home: tempfile::TempDir,
    bus: Child,
    keyring: Option<Child>,
}

impl Desktop {
    /// Starts one, or says what is missing.
    fn start() -> Option<Self> {
        if Command::new("gnome-keyring-daemon").arg("--version").stdout(Stdio::null()).status().is_err() {
            println!("skipped: there is no gnome-keyring-daemon");
            return None;
        }
        let home = tempfile::tempdir().unwrap();
        let config = home.path().join("bus.conf");
        let text = format!(
            "<busconfig><type>session</type><listen>{}</listen><auth>EXTERNAL</auth><policy context=\"default\">\
             <allow send_destination=\"*\" eavesdrop=\"true\"/><allow eavesdrop=\"true\"/><allow own=\"*\"/></policy></busconfig>",
            address(home.path())
        );
        fs::write(&config, text).unwrap();
        let mut bus = Command::new("dbus-daemon");
        bus.arg(format!("--config-file={}", config.display())).arg("--nofork").stderr(Stdio::null());
        let Ok(bus) = bus.spawn() else {
            println!("skipped: there is no dbus-daemon");
            return None;
        };
        let mut desktop = Self { home, bus, keyring: None };
        desktop.until("the bus is there", |desktop| desktop.path("bus").exists());
        desktop.unlock();
        Some(desktop)
    }

    fn path(&self, name: &str) -> PathBuf {
        self.home.path().join(name)
    }

    fn within(&self, program: &str) -> Command {
        let mut command = Command::new(program);
        command
            .env_clear()
            .env("PATH", "/usr/local/bin:/usr/bin:/bin:/usr/sbin:/sbin")
            .env("HOME", self.home.path())
            .env("XDG_RUNTIME_DIR", self.home.path())
            .env("DBUS_SESSION_BUS_ADDRESS", address(self.home.path()))
            .env("PACKETBOAT_STATE_DIR", self.path("state"))
            .env("PACKETBOAT_CONFIG_DIR", self.path("config"))
            .stdin(Stdio::null())
            .stdout(Stdio::piped())
            .stderr(Stdio::piped());
        command
    }

    /// Begins the keyring as a login does, with the user's own password.
    fn unlock(&mut self) {
        let mut keyring = self.within("gnome-keyring-daemon");
        keyring.args(["--unlock", "--foreground", "--components=secrets"]).stdin(Stdio::piped());
        let mut keyring = keyring.stdout(Stdio::null()).stderr(Stdio::null()).spawn().unwrap();
        keyring.stdin.take().unwrap().write_all(b"what its user logs in by").unwrap();
        self.keyring = Some(keyring);
        self.until("the keyring answers", |desktop| {
            let mut asked = desktop.within("dbus-send");
            asked.args(["--session", "--print-reply", "--dest=org.freedesktop.secrets", "/org/freedesktop/secrets"]);
            let answer = asked.args(["org.freedesktop.Secret.Service.ReadAlias", "string:default"]).output().unwrap();
            String::from_utf8_lossy(&answer.stdout).contains("/collection/")
        });
    }

    fn end_keyring(&mut self) {
        let mut keyring = self.keyring.take().unwrap();
        keyring.kill().unwrap();
        keyring.wait().unwrap();
    }

    fn packetboat(&self, arguments: &[&str], input: &str) -> (Output, String) {
        let mut command = self.within(env!("CARGO_BIN_EXE_packetboat"));
        let mut child = command.args(arguments).stdin(Stdio::piped()).spawn().unwrap();
        // A command that asks for nothing may have ended.
        let _unread = child.stdin.take().unwrap().write_all(input.as_bytes());
        let output = child.wait_with_output().unwrap();
        let said = String::from_utf8_lossy(&output.stderr).into_owned();
        (output, said)
    }

    #[track_caller]
    fn until(&self, what: &str, holds: impl Fn(&Self) -> bool) {
        let held = (0..200).any(|_| {
            #[allow(clippy::disallowed_methods, reason = "another process is waited for")]
            std::thread::sleep(Duration::from_millis(50));
            holds(self)
        });
        assert!(held, "not within 10 s: {what}");
    }
}

impl Drop for Desktop {
    fn drop(&mut self) {
        for child in self.keyring.iter_mut().chain([&mut self.bus]) {
            let _gone = child.kill();
            let _ended = child.wait();
        }
    }
}

fn address(home: &Path) -> String {
    format!("unix:path={}", home.join("bus").display())
}

/// Whether any file beneath a directory has these bytes in it.
fn has_anywhere(directory: &Path, bytes: &[u8]) -> bool {
    fs::read_dir(directory).into_iter().flatten().flatten().any(|entry| {
        let path = entry.path();
        match path.is_dir() {
            true => has_anywhere(&path, bytes),
            false => fs::read(&path).is_ok_and(|file| file.windows(bytes.len()).any(|window| window == bytes)),
        }
    })
}

#[test]
fn a_password_that_is_typed_lies_in_the_desktops_keyring_and_opens_the_account() {
    let Some(servers) = Servers::start() else { return };
    let Some(mut desktop) = Desktop::start() else { return };
    let (submission, imap) = (format!("127.0.0.1:{}", servers.submission), format!("127.0.0.1:{}", servers.imaps));
    let authority = servers.authority();
    let setup = [
        ["mail", "setup", "--password-stdin", "--address", "alice@example.test", "--user", USER, "--imap-user", USER],
        [
            "--smtp",
            &submission,
            "--security",
            "starttls",
            "--imap",
            &imap,
            "--ca-file",
            authority.to_str().unwrap(),
            "--name",
        ],
    ]
    .concat();
    let (set_up, said) = desktop.packetboat(&[&setup[..], &["alice"]].concat(), &format!("{PASSWORD}\n"));
    assert!(set_up.status.success() && said.contains("in the desktop's keyring"), "{said}");
    let accounts = fs::read_to_string(desktop.path("config/accounts.toml")).unwrap();
    assert!(accounts.contains("keyring = true") && !accounts.contains("password"), "{accounts}");
    let kept = format!("password = \"{PASSWORD}\"");
    assert!(!has_anywhere(desktop.home.path(), kept.as_bytes()));

    let (tried, said) = desktop.packetboat(&["mail", "test"], "");
    assert!(tried.status.success() && said.contains("mail can be sent"), "{said}");
    assert!(said.contains("mail can be fetched"), "{said}");

    // Nobody is logged in to the desktop: that is told, and the account is left as it is.
    desktop.end_keyring();
    let (tried, said) = desktop.packetboat(&["mail", "test"], "");
    assert!(!tried.status.success() && said.contains("keyring does not answer"), "{said}");

    // With the next login the password is there.
    desktop.unlock();
    let (tried, said) = desktop.packetboat(&["mail", "test"], "");
    assert!(tried.status.success() && said.contains("mail can be sent"), "{said}");
}
