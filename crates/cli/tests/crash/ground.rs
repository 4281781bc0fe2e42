//! Disks that a test owns: ext4 images in memory, mounted where only the test sees them, kept and put back at will.
//!
//! One disk is `home`, with both devices' folders and their state, one is `stick`, with the vault.
//! The mounts are in a namespace that goes with the process, so that nothing is left of them even if it is killed.
//! Left out: disks that reorder or tear what they were given; the simulation in the testkit has those.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

/// The disks, mounted.
pub(crate) struct Ground {
    // Dropped after everything beneath it was unmounted.
    _directory: tempfile::TempDir,
    root: PathBuf,
}

/// One of the disks.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) enum Disk {
    /// The computer's: folders and state.
    Home,
    /// The one with the vault.
    Stick,
}

pub(crate) const DISKS: [Disk; 2] = [Disk::Home, Disk::Stick];

impl Disk {
    fn name(self) -> &'static str {
        match self {
            Disk::Home => "home",
            Disk::Stick => "stick",
        }
    }
}

impl Ground {
    /// Runs the named test anew in a mount namespace of its own, unless this is that run already, which gets its disks.
    /// Says in one line what keeps it from being run.
    pub(crate) fn enter(test: &str) -> Option<Self> {
        for program in ["strace", "mkfs.ext4", "python3", "unshare"] {
            if Command::new(program).arg("-V").stdout(Stdio::null()).stderr(Stdio::null()).status().is_err() {
                println!("skipped: {program} is missing");
                return None;
            }
        }
        if std::env::var_os(INSIDE).is_some() {
            return Self::mount();
        }
        let namespace = ["--mount", "--propagation", "private"];
        if !Command::new("unshare").args(namespace).arg("true").stderr(Stdio::null()).status().unwrap().success() {
            println!("skipped: a mount namespace needs root");
            return None;
        }
        let mut again = Command::new("unshare");
        again.args(namespace).arg(std::env::current_exe().unwrap());
        again.args([test, "--exact", "--include-ignored", "--nocapture"]).env(INSIDE, "1");
        let output = again.output().unwrap();
        print!("{}", String::from_utf8_lossy(&output.stdout));
        assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
        None
    }

    fn mount() -> Option<Self> {
        let directory = tempfile::tempdir().unwrap();
        let root = directory.path().canonicalize().unwrap();
        run(Command::new("mount").args(["-t", "tmpfs", "tmpfs"]).arg(&root))?;
        let ground = Self { _directory: directory, root };
        for disk in DISKS {
            fs::create_dir(ground.at(disk)).unwrap();
            let image = ground.image(disk);
            fs::File::create(&image).unwrap().set_len(IMAGE_BYTES).unwrap();
            run(Command::new("mkfs.ext4").args(["-q", "-F", "-b", "4096", "-N", "4096", "-m", "0"]).arg(&image))?;
        }
        ground.attach()?;
        Some(ground)
    }

    /// Where a disk is mounted.
    pub(crate) fn at(&self, disk: Disk) -> PathBuf {
        self.root.join(disk.name())
    }

    /// A path on the computer's own disk.
    pub(crate) fn home(&self, relative: &str) -> PathBuf {
        self.at(Disk::Home).join(relative)
    }

    /// A file beside the disks, for notes of the test.
    pub(crate) fn beside(&self, name: &str) -> PathBuf {
        self.root.join(name)
    }

    /// Keeps what is on the disks under a name.
    pub(crate) fn keep(&self, name: &str) {
        self.detach();
        for disk in DISKS {
            copy_sparse(&self.image(disk), &self.kept(name, disk));
        }
        self.attach().unwrap();
    }

    /// Puts back what was kept.
    pub(crate) fn put_back(&self, name: &str) {
        self.detach();
        for disk in DISKS {
            copy_sparse(&self.kept(name, disk), &self.image(disk));
        }
        self.attach().unwrap();
    }

    /// Ends these disks at this instant, as a power loss would, and mounts them again, which replays the journal.
    pub(crate) fn lose_power(&self, disks: &[Disk]) {
        for disk in disks {
            run(Command::new("python3").arg("-c").arg(SHUT_DOWN).arg(self.at(*disk))).unwrap();
        }
        self.detach();
        self.attach().unwrap();
    }

    fn attach(&self) -> Option<()> {
        for disk in DISKS {
            // Without the guesses by which ext4 saves programs that do not sync, and with no commit by the clock.
            let options = "loop,noauto_da_alloc,commit=300";
            run(Command::new("mount").args(["-t", "ext4", "-o", options]).arg(self.image(disk)).arg(self.at(disk)))?;
        }
        Some(())
    }

    fn detach(&self) {
        for disk in DISKS {
            run(Command::new("umount").arg(self.at(disk))).unwrap();
        }
    }

    fn image(&self, disk: Disk) -> PathBuf {
        self.root.join(format!("{}.img", disk.name()))
    }

    fn kept(&self, name: &str, disk: Disk) -> PathBuf {
        self.root.join(format!("{name}-{}.img", disk.name()))
    }
}

impl Drop for Ground {
    fn drop(&mut self) {
        for disk in DISKS {
            let _ = Command::new("umount").args(["-q", "-l"]).arg(self.at(disk)).status();
        }
        let _ = Command::new("umount").args(["-q", "-l"]).arg(&self.root).status();
    }
}

/// Runs a program that has to succeed; says what it said where it does not.
fn run(command: &mut Command) -> Option<()> {
    let output = command.output().ok()?;
    if !output.status.success() {
        println!("skipped: {command:?}: {}", String::from_utf8_lossy(&output.stderr).trim());
        return None;
    }
    Some(())
}

fn copy_sparse(from: &Path, to: &Path) {
    // A hole that was data before must not keep it.
    let _ = fs::remove_file(to);
    assert!(Command::new("cp").arg("--sparse=always").arg(from).arg(to).status().unwrap().success());
}

const INSIDE: &str = "PACKETBOAT_OWN_MOUNTS";
const IMAGE_BYTES: u64 = 64 << 20;
/// `EXT4_IOC_SHUTDOWN` with the flag that the log is not flushed: what was not synced is gone.
const SHUT_DOWN: &str = "import fcntl, os, struct, sys
fcntl.ioctl(os.open(sys.argv[1], os.O_RDONLY), 0x8004587d, struct.pack('I', 2))";
