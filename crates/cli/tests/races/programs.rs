//! Programs that write while devices synchronise: each does what some real one does, over and over until it is stopped,
//! and tells what it finished writing last.
//!
//! None of them waits for a round or knows of one. What a round does to a file or a directory under their hands they take
//! as a program does: a name that is gone is made anew or passed over.

use std::fs;
use std::io::Write;
use std::os::fd::OwnedFd;
use std::os::unix::fs::symlink;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use rustix::fs::{AtFlags, CWD, Mode, OFlags};

/// What a program goes by: whether it is to stop.
pub(crate) struct Until(AtomicBool);

impl Until {
    pub(crate) fn stopped() -> Self {
        Self(AtomicBool::new(false))
    }

    pub(crate) fn stop(&self) {
        self.0.store(true, Ordering::Relaxed);
    }

    fn is_over(&self) -> bool {
        self.0.load(Ordering::Relaxed)
    }

    fn pause(&self, milliseconds: u64) {
        std::thread::sleep(Duration::from_millis(milliseconds));
    }
}

/// An editor: writes another file and renames it over the one edited.
pub(crate) fn editor(file: &Path, who: &str, until: &Until) -> String {
    let mut last = String::new();
    for at in 0.. {
        let text = format!("{who} saved {at}\n{}", "x".repeat(at % 5000));
        let aside = file.with_extension("tmp~");
        fs::write(&aside, &text).unwrap();
        // The other file may just be on its way elsewhere; the next save finds the name free.
        if fs::rename(&aside, file).is_ok() {
            last = text;
            if until.is_over() {
                break;
            }
        }
        until.pause(37);
    }
    last
}

/// A program that writes in place, in pieces.
pub(crate) fn in_place(file: &Path, who: &str, until: &Until) -> String {
    for at in 0.. {
        let mut text = format!("{who} wrote {at}\n");
        let mut open = fs::File::create(file).unwrap();
        open.write_all(text.as_bytes()).unwrap();
        for piece in 0..4 {
            until.pause(7);
            let line = format!("piece {piece} of {at}\n");
            open.write_all(line.as_bytes()).unwrap();
            text.push_str(&line);
        }
        if until.is_over() {
            return text;
        }
    }
    unreachable!("it goes on until it is stopped")
}

/// A repository in which two branches are checked out in turn; ends on the branch "b".
pub(crate) struct Checkout {
    tree: PathBuf,
}

impl Checkout {
    /// Makes the repository, unless there is no git.
    pub(crate) fn new(tree: PathBuf) -> Option<Self> {
        let checkout = Self { tree };
        if Command::new("git").arg("--version").output().is_err() {
            println!("skipped: the checkout back and forth, as git is missing");
            return None;
        }
        for file in 0..12 {
            let path = checkout.tree.join(format!("src/m{}/f{file}.rs", file % 3));
            fs::create_dir_all(path.parent().unwrap()).unwrap();
            fs::write(path, format!("branch a of {file}\n")).unwrap();
        }
        checkout.git(&["init", "--quiet", "--initial-branch", "a"]);
        checkout.git(&["add", "."]);
        checkout.git(&["commit", "--quiet", "-m", "a"]);
        checkout.git(&["checkout", "--quiet", "-b", "b"]);
        fs::remove_dir_all(checkout.tree.join("src/m0")).unwrap();
        for file in [1, 4, 5] {
            let text = format!("branch b of {file}\n").repeat(file * 300);
            fs::write(checkout.tree.join(format!("src/m{}/f{file}.rs", file % 3)), text).unwrap();
        }
        fs::create_dir(checkout.tree.join("only-b")).unwrap();
        fs::write(checkout.tree.join("only-b/file"), "of b alone\n").unwrap();
        checkout.git(&["add", "-A"]);
        checkout.git(&["commit", "--quiet", "-m", "b"]);
        Some(checkout)
    }

    pub(crate) fn back_and_forth(&self, until: &Until) {
        while !until.is_over() {
            self.git(&["checkout", "--quiet", "a"]);
            until.pause(120);
            self.git(&["checkout", "--quiet", "b"]);
            until.pause(120);
        }
    }

    /// The repository at this place is whole, and its files are those of the branch "b".
    pub(crate) fn is_whole(tree: &Path) {
        let there = Self { tree: tree.to_owned() };
        there.git(&["fsck", "--no-dangling"]);
        assert_eq!(there.git(&["rev-parse", "--abbrev-ref", "HEAD"]), "b\n");
        assert_eq!(there.git(&["status", "--porcelain"]), "", "{}", tree.display());
    }

    #[track_caller]
    fn git(&self, arguments: &[&str]) -> String {
        let output = Command::new("git")
            .args(["-c", "user.name=tester", "-c", "user.email=tester@example.org", "-c", "gc.auto=0"])
            .args(["-c", "safe.directory=*"])
            .args(arguments)
            .current_dir(&self.tree)
            .env_clear()
            .env("PATH", std::env::var_os("PATH").unwrap_or_default())
            .env("GIT_CONFIG_NOSYSTEM", "1")
            // Looking changes nothing, so that what follows is still in step.
            .env("GIT_OPTIONAL_LOCKS", "0")
            .output()
            .unwrap();
        assert!(output.status.success(), "git {arguments:?}: {}", String::from_utf8_lossy(&output.stderr));
        String::from_utf8(output.stdout).unwrap()
    }
}

/// rsync from one of two sources in turn, deleting what the source has not; ends with the second.
pub(crate) fn mirror(sources: [&Path; 2], target: &Path, until: &Until) -> bool {
    if Command::new("rsync").arg("--version").output().is_err() {
        println!("skipped: the mirror, as rsync is missing");
        return false;
    }
    let copy = |source: &Path| {
        let from = format!("{}/", source.display());
        let copied =
            Command::new("rsync").args(["-a", "--delete", "--delay-updates", &from]).arg(target).output().unwrap();
        copied.status.success()
    };
    while !until.is_over() {
        copy(sources[0]);
        until.pause(150);
        copy(sources[1]);
        until.pause(150);
    }
    // A round may have taken a file back in the middle of the last copy; nobody disturbs this one.
    assert!(copy(sources[1]));
    true
}

/// Swaps a directory for a symlink to another place, and back; ends with the directory.
pub(crate) fn swapper(directory: &Path, target: &Path, until: &Until) {
    let aside = directory.with_extension("aside");
    while !until.is_over() {
        if fs::rename(directory, &aside).is_ok() {
            symlink(target, directory).unwrap();
            until.pause(23);
            // A round may have moved either; whatever stands at the name of the directory is put out of the way.
            let _ = fs::remove_file(directory);
            let _ = fs::rename(&aside, directory);
        }
        until.pause(31);
    }
}

/// Writes files in a directory that others swap and move: never through a symlink, as its handle is of the directory.
/// Returns the names and what it finished writing there last.
pub(crate) fn resident(directory: &Path, who: &str, until: &Until) -> Vec<(String, String)> {
    let mut last = vec![(String::new(), String::new()); 4];
    for at in 0.. {
        let Some(handle) = open_directory(directory) else {
            if until.is_over() {
                break;
            }
            until.pause(11);
            continue;
        };
        let (name, text) = (format!("r{}", at % 4), format!("{who} put {at}\n"));
        let aside = format!(".{name}.new");
        let written =
            rustix::fs::openat(&handle, &aside, OFlags::CREATE | OFlags::WRONLY | OFlags::TRUNC, Mode::from(0o644))
                .is_ok_and(|file| fs::File::from(file).write_all(text.as_bytes()).is_ok());
        if written && rustix::fs::renameat(&handle, &aside, &handle, &name).is_ok() {
            last[at % 4] = (name, text);
        } else {
            let _ = rustix::fs::unlinkat(&handle, &aside, AtFlags::empty());
        }
        if until.is_over() && at >= 4 {
            break;
        }
        until.pause(29);
    }
    last
}

fn open_directory(path: &Path) -> Option<OwnedFd> {
    rustix::fs::openat(CWD, path, OFlags::DIRECTORY | OFlags::NOFOLLOW | OFlags::RDONLY, Mode::empty()).ok()
}

/// Moves a directory from one place to another and back; ends with the first.
pub(crate) fn mover(places: [&Path; 2], until: &Until) {
    while !until.is_over() {
        let _ = fs::rename(places[0], places[1]);
        until.pause(170);
        let _ = fs::rename(places[1], places[0]);
        until.pause(170);
    }
}
