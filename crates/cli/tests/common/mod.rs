//! Devices that share a stick, each with a state directory of its own, driven through the real binary.

#![allow(dead_code)]

use std::fs;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::sync::LazyLock;

use regex::Regex;

/// A directory in which everything of one test happens.
pub(crate) struct World {
    directory: tempfile::TempDir,
    root: PathBuf,
}

/// What a command did.
pub(crate) struct Ran {
    /// The exit code.
    pub(crate) code: i32,
    /// Standard output.
    pub(crate) stdout: String,
    /// Standard error.
    pub(crate) stderr: String,
    /// All of it as people see it, with what differs from run to run taken out.
    pub(crate) seen: String,
}

/// One command to come.
pub(crate) struct Packetboat<'a> {
    world: &'a World,
    device: String,
    directory: PathBuf,
    variables: Vec<(String, String)>,
    arguments: Vec<String>,
}

impl World {
    pub(crate) fn new() -> Self {
        let directory = tempfile::tempdir().unwrap();
        let root = directory.path().canonicalize().unwrap();
        fs::create_dir(root.join("stick")).unwrap();
        Self { directory, root }
    }

    /// A world in which "laptop" made a vault from a folder `docs` with two files.
    pub(crate) fn with_vault() -> Self {
        let world = Self::new();
        world.write("docs/a.txt", "alpha\n");
        world.write("docs/sub/b.txt", "beta\n");
        world.sync("laptop", "docs");
        world
    }

    /// The same, joined by "desktop" with the folder `work`.
    pub(crate) fn with_two_devices() -> Self {
        let world = Self::with_vault();
        world.sync("desktop", "work");
        world
    }

    pub(crate) fn path(&self, relative: &str) -> PathBuf {
        self.root.join(relative)
    }

    pub(crate) fn write(&self, relative: &str, text: &str) {
        let path = self.path(relative);
        fs::create_dir_all(path.parent().unwrap()).unwrap();
        fs::write(path, text).unwrap();
    }

    pub(crate) fn read(&self, relative: &str) -> String {
        fs::read_to_string(self.path(relative)).unwrap_or_else(|error| panic!("{relative}: {error}"))
    }

    pub(crate) fn exists(&self, relative: &str) -> bool {
        self.path(relative).symlink_metadata().is_ok()
    }

    /// The names in a directory but for packetboat's own, in order.
    pub(crate) fn names(&self, relative: &str) -> Vec<String> {
        let mut names: Vec<_> = fs::read_dir(self.path(relative))
            .unwrap()
            .map(|entry| entry.unwrap().file_name().into_string().unwrap())
            .filter(|name| name != ".packetboat")
            .collect();
        names.sort();
        names
    }

    /// A command of a device, run at the root of the world with the vault's passphrase in the environment.
    pub(crate) fn packetboat(&self, device: &str, arguments: &[&str]) -> Packetboat<'_> {
        Packetboat {
            world: self,
            device: device.to_owned(),
            directory: self.root.clone(),
            variables: vec![("PACKETBOAT_PASSPHRASE".to_owned(), PASSPHRASE.to_owned())],
            arguments: arguments.iter().map(|&argument| argument.to_owned()).collect(),
        }
    }

    /// Synchronises a device's folder with `stick/vault`, which has to succeed.
    pub(crate) fn sync(&self, device: &str, folder: &str) -> Ran {
        self.packetboat(device, &["sync", folder, "stick/vault", "--name", device]).succeeds()
    }

    /// Makes two devices write the same file without having seen each other; "laptop" and "desktop" are both in step after.
    pub(crate) fn with_conflict() -> Self {
        let world = Self::with_two_devices();
        world.write("docs/a.txt", "alpha of the laptop\n");
        world.write("work/a.txt", "alpha of the desktop\n");
        world.sync("laptop", "docs");
        world.sync("desktop", "work");
        world.sync("laptop", "docs");
        world
    }

    /// The state directory of a device's only replica.
    pub(crate) fn replica_state(&self, device: &str) -> PathBuf {
        let replicas = self.path(&format!("state-{device}/packetboat/replicas"));
        let mut entries = fs::read_dir(replicas).unwrap();
        let only = entries.next().unwrap().unwrap().path();
        assert!(entries.next().is_none(), "one replica");
        only
    }

    /// Text without what differs from run to run.
    pub(crate) fn redact(&self, text: &str) -> String {
        let text = text.replace(self.root.to_str().unwrap(), "[TMP]");
        REDACTIONS.iter().fold(text, |text, (pattern, with)| pattern.replace_all(&text, *with).into_owned())
    }
}

impl Packetboat<'_> {
    /// Runs it in this directory.
    pub(crate) fn within(mut self, directory: &str) -> Self {
        self.directory = self.world.path(directory);
        self
    }

    /// Sets an environment variable.
    pub(crate) fn with(mut self, variable: &str, value: &str) -> Self {
        self.variables.push((variable.to_owned(), value.to_owned()));
        self
    }

    /// Runs it with no passphrase in the environment.
    pub(crate) fn without_passphrase(mut self) -> Self {
        self.variables.retain(|(name, _)| name != "PACKETBOAT_PASSPHRASE");
        self
    }

    pub(crate) fn run(self) -> Ran {
        let state = self.world.path(&format!("state-{}", self.device));
        let output = Command::new(env!("CARGO_BIN_EXE_packetboat"))
            .args(&self.arguments)
            .current_dir(&self.directory)
            .env_clear()
            .env("PATH", std::env::var_os("PATH").unwrap_or_default())
            .env("HOME", self.world.path("home"))
            .env("XDG_STATE_HOME", state)
            .env("TZ", "UTC")
            .envs(self.variables)
            .stdin(Stdio::null())
            .output()
            .unwrap();
        let text = |bytes: Vec<u8>| String::from_utf8(bytes).unwrap();
        let (stdout, stderr) = (text(output.stdout), text(output.stderr));
        let code = output.status.code().expect("no signal");
        let mut seen = format!("$ packetboat {}\n", self.arguments.join(" "));
        for (name, part) in [("stdout", &stdout), ("stderr", &stderr)] {
            if !part.is_empty() {
                seen.push_str(&format!("-- {name}\n{}", self.world.redact(part)));
            }
        }
        seen.push_str(&format!("-- exit code {code}\n"));
        Ran { code, stdout, stderr, seen: self.world.redact(&seen) }
    }

    #[track_caller]
    pub(crate) fn succeeds(self) -> Ran {
        let ran = self.run();
        assert_eq!(ran.code, 0, "{}", ran.seen);
        ran
    }

    #[track_caller]
    pub(crate) fn fails(self) -> Ran {
        let ran = self.run();
        assert_eq!(ran.code, 1, "{}", ran.seen);
        ran
    }
}

impl Ran {
    pub(crate) fn json(&self) -> serde_json::Value {
        serde_json::from_str(&self.stdout).unwrap_or_else(|error| panic!("{error}: {}", self.stdout))
    }
}

/// Copies a directory with all in it.
pub(crate) fn copy_all(from: &Path, to: &Path) {
    fs::create_dir(to).unwrap();
    for entry in fs::read_dir(from).unwrap() {
        let entry = entry.unwrap();
        let target = to.join(entry.file_name());
        match entry.file_type().unwrap().is_dir() {
            true => copy_all(&entry.path(), &target),
            false => drop(fs::copy(entry.path(), target).unwrap()),
        }
    }
}

pub(crate) const PASSPHRASE: &str = "correct horse battery";

static REDACTIONS: LazyLock<Vec<(Regex, &str)>> = LazyLock::new(|| {
    [
        (r#""(bytes_sent|bytes_received|bytes_read|bytes_written|seconds)": [0-9.e-]+"#, "\"$1\": [NUMBER]"),
        (r"\b[0-9A-HJKMNP-TV-Z]{5}(-[0-9A-HJKMNP-TV-Z]{5}){10}\b", "[RECOVERY KEY]"),
        (r"\d{4}-\d\d-\d\d [0-9a-f]{4,}\)", "[DATE] [HASH])"),
        (r"\d{4}-\d\d-\d\d[ T]\d\d:\d\d:\d\d(\.\d+)?Z?", "[TIME]"),
        (r"\b([0-9a-f]{64}|[0-9a-f]{32}|[0-9a-f]{8})\b", "[ID]"),
        (r"\b\d+(\.\d)? ([KMG]iB|B)\b", "[SIZE]"),
        (r"\b\d+\.\d s\b", "[DURATION]"),
        (r"process \d+", "process [PID]"),
    ]
    .map(|(pattern, with)| (Regex::new(pattern).unwrap(), with))
    .into()
});
