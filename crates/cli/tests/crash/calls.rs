//! The calls by which a run changes a disk: recorded by strace, and disturbed by it one at a time.
//!
//! strace counts the calls of a name in each thread, so a run has one working thread; what another does besides is counted
//! too. A call is told by its name and number, which are the same in the next run but for a few that depend on random ids.

use std::collections::{BTreeSet, HashMap};
use std::fs;
use std::os::unix::process::ExitStatusExt;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

use crate::ground::{Disk, Ground};

/// A call that a run makes.
#[derive(Clone, PartialEq, Eq, PartialOrd, Ord, Debug)]
pub(crate) struct Point {
    /// Its name.
    pub(crate) call: String,
    /// Which one of that name in its thread, from 1.
    pub(crate) number: usize,
    /// What it is about.
    pub(crate) about: String,
    /// What it does.
    pub(crate) kind: Kind,
}

/// What a call does to a disk.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Debug)]
pub(crate) enum Kind {
    Write,
    Sync,
    /// A new name: of a directory, a file, a link.
    Create,
    Rename,
    /// What takes no room: removing, cutting short, attributes.
    Other,
    /// A word to the user.
    Say,
}

/// A device of the scenarios.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) struct Device {
    pub(crate) name: &'static str,
    pub(crate) folder: &'static str,
}

pub(crate) const LAPTOP: Device = Device { name: "laptop", folder: "docs" };
pub(crate) const DESKTOP: Device = Device { name: "desktop", folder: "work" };
/// One that was never there before; it knows what the vault says and nothing else.
pub(crate) const WITNESS: Device = Device { name: "witness", folder: "seen" };

/// What became of a run.
#[derive(Debug)]
pub(crate) struct Ran {
    /// Nothing where a signal ended it.
    pub(crate) code: Option<i32>,
    pub(crate) stdout: String,
    pub(crate) stderr: String,
}

impl Ground {
    pub(crate) fn vault(&self) -> PathBuf {
        self.at(Disk::Stick).join("vault")
    }

    /// Synchronises a device with the vault, which has to succeed.
    #[track_caller]
    pub(crate) fn sync(&self, device: Device) -> String {
        self.must(device, &["sync"])
    }

    /// Runs a command of a device, which has to succeed; returns what it said.
    #[track_caller]
    pub(crate) fn must(&self, device: Device, arguments: &[&str]) -> String {
        let ran = self.run(device, arguments, &[]);
        assert_eq!(ran.code, Some(0), "{} {arguments:?}: {}{}", device.name, ran.stdout, ran.stderr);
        ran.stdout
    }

    /// Runs a command of a device with one working thread, under strace with these options where there are any.
    /// `sync` gets the folder and the vault, anything else is run within the folder.
    pub(crate) fn run(&self, device: Device, arguments: &[&str], strace: &[String]) -> Ran {
        let mut command = match strace {
            [] => Command::new(env!("CARGO_BIN_EXE_packetboat")),
            options => {
                let mut command = Command::new("strace");
                command.args(["-f", "-qq"]).args(options).arg(env!("CARGO_BIN_EXE_packetboat"));
                command
            }
        };
        command.args(arguments);
        if arguments[0] == "sync" {
            command.arg(device.folder).arg(self.vault()).args(["--name", device.name]).current_dir(self.at(Disk::Home));
        } else {
            command.current_dir(self.home(device.folder));
        }
        let output = command
            .env_clear()
            .env("PATH", std::env::var_os("PATH").unwrap_or_default())
            .env("HOME", self.home("user"))
            .env("XDG_STATE_HOME", self.home(&format!("state-{}", device.name)))
            .env("TZ", "UTC")
            .env("PACKETBOAT_PASSPHRASE", "correct horse battery")
            .env("PACKETBOAT_THREADS", "1")
            .stdin(Stdio::null())
            .output()
            .unwrap();
        let text = |bytes: Vec<u8>| String::from_utf8_lossy(&bytes).into_owned();
        // strace ends as its program did, or says so by its code.
        let killed = output.status.signal().is_some() || output.status.code().is_some_and(|code| code == 128 + 9);
        let code = if killed { None } else { output.status.code() };
        Ran { code, stdout: text(output.stdout), stderr: text(output.stderr) }
    }

    /// Runs a command to its end and returns every call by which it changed something, in their order.
    pub(crate) fn record(&self, device: Device, arguments: &[&str]) -> (Ran, Vec<Point>) {
        let log = self.beside("strace.log");
        let calls: Vec<String> = CALLS.iter().map(|call| format!("?{call}")).collect();
        let mut options = vec!["-y".to_owned(), "-s".to_owned(), "0".to_owned(), "-o".to_owned(), words(&log)];
        options.extend([
            "-e".to_owned(),
            format!("trace={}", calls.join(",")),
            "-e".to_owned(),
            "signal=none".to_owned(),
        ]);
        let ran = self.run(device, arguments, &options);
        let text = String::from_utf8_lossy(&fs::read(&log).unwrap()).into_owned();
        (ran, points(&text))
    }
}

impl Point {
    /// Whether the next call does the same to the same file.
    pub(crate) fn goes_on_with(&self, next: &Self) -> bool {
        self.call == next.call && self.about.split('>').next() == next.about.split('>').next()
    }

    /// The options by which strace does something at this call.
    pub(crate) fn inject(&self, what: &str, log: &Path) -> Vec<String> {
        let Self { call, number, .. } = self;
        ["-o", &words(log), "-e", &format!("trace={call}"), "-e", &format!("inject={call}:{what}:when={number}")]
            .map(str::to_owned)
            .to_vec()
    }
}

fn words(path: &Path) -> String {
    path.to_str().unwrap().to_owned()
}

/// Reads strace's record.
fn points(log: &str) -> Vec<Point> {
    let mut counts: HashMap<(&str, &str), usize> = HashMap::new();
    let mut seen = BTreeSet::new();
    let mut points = Vec::new();
    for line in log.lines() {
        // The end of a call during which another thread made one was counted at its beginning.
        let Some((thread, rest)) = line.split_once(' ') else { continue };
        let Some((call, about)) = rest.trim_start().split_once('(') else { continue };
        if !CALLS.contains(&call) {
            continue;
        }
        let number = counts.entry((thread, call)).or_default();
        *number += 1;
        let Some(kind) = kind(call, about) else { continue };
        if seen.insert((call, *number)) {
            points.push(Point { call: call.to_owned(), number: *number, about: about.to_owned(), kind });
        }
    }
    points
}

fn kind(call: &str, about: &str) -> Option<Kind> {
    Some(match call {
        "write" | "writev" | "pwrite64" | "pwritev" | "pwritev2" | "copy_file_range" | "fallocate" => {
            let file = about.split(['<', '>']).nth(1).unwrap_or_default();
            match about.split('<').next() {
                Some("1" | "2") => Kind::Say,
                _ if file.starts_with('/') && !file.starts_with("/dev/") => Kind::Write,
                // A pipe or an event between threads.
                _ => return None,
            }
        }
        "fsync" | "fdatasync" | "syncfs" | "sync_file_range" => Kind::Sync,
        "open" | "openat" | "openat2" if about.contains("O_CREAT") || about.contains("O_TMPFILE") => Kind::Create,
        "open" | "openat" | "openat2" => return None,
        "creat" | "mkdir" | "mkdirat" | "symlink" | "symlinkat" | "link" | "linkat" => Kind::Create,
        "rename" | "renameat" | "renameat2" => Kind::Rename,
        _ => Kind::Other,
    })
}

const CALLS: [&str; 43] = [
    "write",
    "writev",
    "pwrite64",
    "pwritev",
    "pwritev2",
    "copy_file_range",
    "fallocate",
    "fsync",
    "fdatasync",
    "syncfs",
    "sync_file_range",
    "open",
    "openat",
    "openat2",
    "creat",
    "mkdir",
    "mkdirat",
    "symlink",
    "symlinkat",
    "link",
    "linkat",
    "rename",
    "renameat",
    "renameat2",
    "unlink",
    "unlinkat",
    "rmdir",
    "truncate",
    "ftruncate",
    "chmod",
    "fchmod",
    "fchmodat",
    "fchmodat2",
    "utime",
    "utimes",
    "utimensat",
    "setxattr",
    "fsetxattr",
    "lsetxattr",
    "removexattr",
    "fremovexattr",
    "lremovexattr",
    "mknodat",
];

#[test]
fn a_record_is_read_call_by_call_and_thread_by_thread() {
    let log = "\
11 openat(AT_FDCWD</tmp>, \"a\", O_RDONLY) = 3</tmp/a>
11 openat(AT_FDCWD</tmp>, \"b\", O_RDWR|O_CREAT, 0644) = 4</tmp/b>
11 pwrite64(4</tmp/b>, \"\"..., 10, 0) = 10
12 pwrite64(4</tmp/b>, \"\"..., 10, 10 <unfinished ...>
11 write(1<pipe:[7]>, \"\"..., 5) = 5
12 <... pwrite64 resumed>) = 10
12 write(5<anon_inode:[eventfd]>, \"\"..., 8) = 8
12 pwrite64(4</tmp/b>, \"\"..., 10, 20) = 10
11 +++ exited with 0 +++
";
    let found: Vec<_> = points(log).into_iter().map(|point| (point.call, point.number, point.kind)).collect();
    let wanted = [
        ("openat", 2, Kind::Create),
        ("pwrite64", 1, Kind::Write),
        ("write", 1, Kind::Say),
        ("pwrite64", 2, Kind::Write),
    ];
    assert_eq!(found, wanted.map(|(call, number, kind)| (call.to_owned(), number, kind)));
}
