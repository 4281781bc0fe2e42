//! Where figures are measured: the working directory, fresh file systems, the binary.
//!
//! Creating files is much slower on a file system from which many were just removed, so whatever creates files runs on a
//! file system made for it: ext4 on a sparse image, mounted as a loop device. That takes root; without, plain directories
//! serve, and the report says so.

use std::fs::{self, File};
use std::path::{Path, PathBuf};
use std::process::Command;

use crate::measure::run_quiet;
use crate::tree::{self, Shape};
use crate::{Options, Result};

/// The working directory and what is known of the computer.
pub(crate) struct Lab {
    dir: PathBuf,
    pub(crate) packetboat: PathBuf,
    fresh_mounts: bool,
    pub(crate) cores: usize,
}

impl Lab {
    pub(crate) fn open(options: &Options) -> Result<Self> {
        let dir = options.dir.clone().unwrap_or_else(|| std::env::temp_dir().join("packetboat-bench"));
        fs::create_dir_all(&dir).map_err(|error| format!("cannot make {}: {error}", dir.display()))?;
        let dir = dir.canonicalize()?;
        let packetboat = match &options.packetboat {
            Some(path) => path.clone(),
            None => beside_this_program()?,
        };
        let packetboat = packetboat.canonicalize().map_err(|error| {
            let path = packetboat.display();
            format!("no binary at {path}: {error}; build it by `cargo build --release -p packetboat`")
        })?;
        let cores = std::thread::available_parallelism().map_or(1, usize::from);
        let mut lab = Self { dir, packetboat, fresh_mounts: false, cores };
        lab.clear()?;
        lab.fresh_mounts = !options.plain && rustix::process::geteuid().is_root() && lab.fresh_mount_works();
        Ok(lab)
    }

    pub(crate) fn describe(&self) -> String {
        let fresh = match self.fresh_mounts {
            true => "every timing that creates files has a fresh ext4 on a loop device",
            false => "no fresh file systems (that takes root): timings that create files share the disk's past",
        };
        format!("{} cores; in {}; {fresh}.", self.cores, self.dir.display())
    }

    /// An empty place with room for `bytes`, gone when it is dropped.
    pub(crate) fn fresh(&self, name: &str, bytes: u64) -> Result<Fresh> {
        let path = self.dir.join("fresh").join(name);
        fs::create_dir_all(&path)?;
        let mut fresh = Fresh { path, image: None };
        if self.fresh_mounts {
            let image = self.dir.join("fresh").join(format!("{name}.image"));
            fresh.image = Some(image.clone());
            // Half as much again for the journal, inodes and slack.
            File::create(&image)?.set_len((bytes + bytes / 2 + (1 << 30)).next_multiple_of(1 << 20))?;
            let eager = "lazy_itable_init=0,lazy_journal_init=0";
            run_quiet(Command::new("mkfs.ext4").args(["-q", "-F", "-i", "8192", "-E", eager]).arg(&image))?;
            run_quiet(Command::new("mount").args(["-o", "loop"]).arg(&image).arg(&fresh.path))?;
            let _ = fs::remove_dir(fresh.path.join("lost+found"));
        }
        self.settle()?;
        Ok(fresh)
    }

    /// An empty directory for what is not timed, gone when it is dropped.
    pub(crate) fn scratch(&self, name: &str) -> Result<Fresh> {
        let path = self.dir.join("scratch").join(name);
        if path.exists() {
            fs::remove_dir_all(&path)?;
        }
        fs::create_dir_all(&path)?;
        Ok(Fresh { path, image: None })
    }

    /// Lets the disk finish what earlier steps left to it, so that nobody pays for another's writes.
    pub(crate) fn settle(&self) -> Result<()> {
        Ok(rustix::fs::syncfs(File::open(&self.dir)?)?)
    }

    /// A tree that is only read; made once and kept.
    pub(crate) fn tree(&self, shape: &Shape) -> Result<PathBuf> {
        let path = self.dir.join("trees").join(shape.name());
        let done = self.dir.join("trees").join(format!("{}.done", shape.name()));
        if !done.exists() {
            if path.exists() {
                fs::remove_dir_all(&path)?;
            }
            tree::make(&path, shape)?;
            File::create(&done)?;
        }
        unbind(&path)?;
        self.settle()?;
        Ok(path)
    }

    /// A file of random bytes that is only read; made once and kept.
    pub(crate) fn random_file(&self, mib: u64) -> Result<PathBuf> {
        let path = self.dir.join("trees").join(format!("random-{mib}-mib"));
        fs::create_dir_all(self.dir.join("trees"))?;
        if fs::metadata(&path).map_or(0, |metadata| metadata.len()) != mib << 20 {
            tree::random_file(&path, mib << 20, 1)?;
        }
        self.settle()?;
        Ok(path)
    }

    fn fresh_mount_works(&self) -> bool {
        let probe = Self { dir: self.dir.clone(), packetboat: PathBuf::new(), fresh_mounts: true, cores: 1 };
        probe.fresh("probe", 1 << 20).is_ok()
    }

    /// Removes what an interrupted run left.
    fn clear(&self) -> Result<()> {
        let fresh = self.dir.join("fresh");
        if let Ok(entries) = fs::read_dir(&fresh) {
            for entry in entries.flatten().filter(|entry| entry.path().is_dir()) {
                unmount(&entry.path());
            }
            fs::remove_dir_all(&fresh)?;
        }
        let scratch = self.dir.join("scratch");
        if scratch.exists() {
            fs::remove_dir_all(&scratch)?;
        }
        Ok(())
    }
}

/// A place that is removed when it is dropped.
pub(crate) struct Fresh {
    pub(crate) path: PathBuf,
    image: Option<PathBuf>,
}

impl Drop for Fresh {
    fn drop(&mut self) {
        if let Some(image) = &self.image {
            unmount(&self.path);
            let _ = fs::remove_file(image);
            let _ = fs::remove_dir(&self.path);
        } else {
            let _ = fs::remove_dir_all(&self.path);
        }
    }
}

fn unmount(path: &Path) {
    // Not mounted is as good.
    let _ = run_quiet(Command::new("umount").arg(path));
}

/// Forgets that a folder was bound to a vault.
pub(crate) fn unbind(folder: &Path) -> Result<()> {
    let own = folder.join(".packetboat");
    if own.exists() {
        fs::remove_dir_all(own)?;
    }
    Ok(())
}

/// Waits until files written just now are not so young that another write could go unseen: such are hashed once more.
pub(crate) fn let_files_age() {
    std::thread::sleep(std::time::Duration::from_secs(3));
}

fn beside_this_program() -> Result<PathBuf> {
    let own = std::env::current_exe()?;
    let profile = own.parent().ok_or("this program lies in no directory")?;
    let release = profile.parent().map(|target| target.join("release/packetboat"));
    Ok(release.filter(|path| path.exists()).unwrap_or_else(|| profile.join("packetboat")))
}
