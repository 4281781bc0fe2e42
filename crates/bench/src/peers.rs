//! The tools that Packetboat is compared with, as their users would run them; each with settings and caches of its own.

use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

use crate::Result;
use crate::measure::{Run, run, run_quiet};
use crate::packetboat::PASSPHRASE;

/// Whether a program can be started.
pub(crate) fn is_installed(program: &str) -> bool {
    let flag = match program {
        "unison" => "-version",
        "restic" => "version",
        _ => "--version",
    };
    let mut command = Command::new(program);
    command.arg(flag).stdin(Stdio::null()).stdout(Stdio::null()).stderr(Stdio::null());
    command.status().is_ok_and(|status| status.success())
}

/// `find FOLDER -printf`, with what a synchroniser has to look at.
pub(crate) fn find(folder: &Path) -> Result<Run> {
    run_quiet(Command::new("find").arg(folder).args(["-printf", "%s %T@ %C@ %i\n"]))
}

/// Reads every file of a folder.
pub(crate) fn read_all(folder: &Path) -> Result<Run> {
    each_file(folder, "cat")
}

/// Hashes every file of a folder.
pub(crate) fn hash_all(folder: &Path) -> Result<Run> {
    each_file(folder, "sha256sum")
}

fn each_file(folder: &Path, program: &str) -> Result<Run> {
    run_quiet(Command::new("find").arg(folder).args(["-type", "f", "-exec", program, "{}", "+"]))
}

/// Brings a file system to stable storage: what `sync` does, without the other file systems of the computer.
pub(crate) fn sync(path: &Path) -> Result<Run> {
    run_quiet(Command::new("sync").arg("-f").arg(path))
}

/// A restic repository.
pub(crate) struct Restic(PathBuf);

impl Restic {
    /// Makes the repository in `dir`; nothing where restic is not installed.
    pub(crate) fn new(dir: &Path) -> Result<Option<Self>> {
        if !is_installed("restic") {
            return Ok(None);
        }
        let restic = Self(dir.to_owned());
        std::fs::create_dir_all(dir)?;
        run_quiet(restic.command().arg("init"))?;
        Ok(Some(restic))
    }

    fn command(&self) -> Command {
        let mut command = Command::new("restic");
        command.env("RESTIC_REPOSITORY", self.0.join("repository")).env("RESTIC_PASSWORD", PASSPHRASE);
        command.env("RESTIC_CACHE_DIR", self.0.join("cache"));
        command
    }

    pub(crate) fn backup(&self, folder: &Path) -> Result<Run> {
        run_quiet(self.command().arg("backup").arg("--quiet").arg(folder))
    }

    pub(crate) fn forget_all_but_the_last(&self) -> Result<Run> {
        run_quiet(self.command().args(["forget", "--quiet", "--keep-last", "1", "--group-by", "host"]))
    }

    pub(crate) fn prune(&self) -> Result<Run> {
        run_quiet(self.command().args(["prune", "--quiet", "--max-unused", "0"]))
    }

    /// Restores what was backed up, which is not durable until a [`sync`].
    pub(crate) fn restore(&self, target: &Path) -> Result<Run> {
        run_quiet(self.command().args(["restore", "latest", "--quiet", "--target"]).arg(target))
    }
}

/// An rclone crypt remote over a directory, set up by the environment alone.
pub(crate) struct Rclone {
    dir: PathBuf,
    obscured: String,
}

impl Rclone {
    pub(crate) fn new(dir: &Path) -> Result<Option<Self>> {
        if !is_installed("rclone") {
            return Ok(None);
        }
        std::fs::create_dir_all(dir)?;
        let obscured = run(Command::new("rclone").args(["obscure", PASSPHRASE]))?;
        let obscured = String::from_utf8(obscured.stdout)?.trim().to_owned();
        Ok(Some(Self { dir: dir.to_owned(), obscured }))
    }

    pub(crate) fn copy(&self, folder: &Path) -> Result<Run> {
        let mut command = Command::new("rclone");
        command.env("RCLONE_CONFIG", "/dev/null").env("RCLONE_CONFIG_SECRET_TYPE", "crypt");
        command.env("RCLONE_CONFIG_SECRET_REMOTE", self.dir.join("remote"));
        command.env("RCLONE_CONFIG_SECRET_PASSWORD", &self.obscured);
        run_quiet(command.args(["copy", "--quiet"]).arg(folder).arg("secret:"))
    }
}

/// Unison between a folder and a copy, which is not encrypted.
pub(crate) struct Unison(PathBuf);

impl Unison {
    pub(crate) fn new(dir: &Path) -> Result<Option<Self>> {
        if !is_installed("unison") {
            return Ok(None);
        }
        std::fs::create_dir_all(dir.join("copy"))?;
        Ok(Some(Self(dir.to_owned())))
    }

    pub(crate) fn sync(&self, folder: &Path) -> Result<Run> {
        let mut command = Command::new("unison");
        command.env("UNISON", self.0.join("state")).arg(folder).arg(self.0.join("copy"));
        run_quiet(command.args(["-batch", "-silent", "-times"]))
    }
}
