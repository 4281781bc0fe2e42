//! Real disks that run full, and files and directories that may not be read or written: told, and nothing is lost.
//!
//! The disks are small file systems in memory, which only the superuser can mount; elsewhere the tests are skipped.

mod common;

use std::fs;
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

use common::{PASSPHRASE, World};

/// A small disk, unmounted when it is let go of.
struct Disk {
    at: PathBuf,
}

impl Disk {
    fn mount(at: PathBuf, size: &str) -> Option<Self> {
        fs::create_dir_all(&at).unwrap();
        let options = format!("size={size},mode=0755");
        let mut mount = Command::new("mount");
        mount.args(["-t", "tmpfs", "-o", &options, "tmpfs"]).arg(&at).stderr(Stdio::null());
        let mounted = mount.status().is_ok_and(|status| status.success());
        if !mounted {
            eprintln!("skipped: no file system can be mounted here");
        }
        mounted.then_some(Self { at })
    }

    fn grow(&self) {
        let grown = Command::new("mount").args(["-o", "remount,size=100m"]).arg(&self.at).status();
        assert!(grown.unwrap().success());
    }
}

impl Drop for Disk {
    fn drop(&mut self) {
        let _ = Command::new("umount").arg("-l").arg(&self.at).status();
    }
}

/// Bytes that do not compress.
fn noise(len: usize, mut seed: u64) -> Vec<u8> {
    let next = || {
        seed = seed.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        (seed >> 33) as u8
    };
    std::iter::repeat_with(next).take(len).collect()
}

fn fill(docs: &Path) {
    fs::create_dir_all(docs.join("many")).unwrap();
    for at in 0..60 {
        fs::write(docs.join(format!("many/f{at}")), noise(40_000, at)).unwrap();
    }
    fs::write(docs.join("large"), noise(6_000_000, 99)).unwrap();
}

#[track_caller]
fn same(world: &World, one: &str, other: &str) {
    let compare = Command::new("diff")
        .args(["-r", "--exclude=.packetboat", "--exclude=lost+found"])
        .args([world.path(one), world.path(other)])
        .output()
        .unwrap();
    assert!(compare.status.success(), "{}", String::from_utf8_lossy(&compare.stdout));
}

/// A failure that says what is full and what to do, and is no bug of ours.
#[track_caller]
fn told_full(stderr: &str, what: &str) {
    assert!(stderr.contains("full") && stderr.contains(what) && stderr.contains("Hint: free some space"), "{stderr}");
}

#[test]
fn a_folder_on_a_disk_that_runs_full_is_joined_when_there_is_room() {
    for size in ["100k", "5m"] {
        let world = World::new();
        let Some(disk) = Disk::mount(world.path("small"), size) else { return };
        fill(&world.path("docs"));
        world.sync("laptop", "docs");
        let full = world.packetboat("desktop", &["sync", "small/copy", "stick/vault"]).fails();
        told_full(&full.stderr, "folder");
        let again = world.packetboat("desktop", &["sync", "small/copy", "stick/vault"]).fails();
        told_full(&again.stderr, "folder");
        disk.grow();
        world.packetboat("desktop", &["sync", "small/copy", "stick/vault"]).succeeds();
        world.sync("laptop", "docs");
        same(&world, "docs", "small/copy");
    }
}

#[test]
fn edits_that_do_not_fit_leave_the_old_files_whole() {
    let world = World::new();
    let Some(disk) = Disk::mount(world.path("small"), "10m") else { return };
    fill(&world.path("docs"));
    world.sync("laptop", "docs");
    world.packetboat("desktop", &["sync", "small/copy", "stick/vault"]).succeeds();
    let old = fs::read(world.path("docs/large")).unwrap();
    fs::write(world.path("docs/large"), noise(7_000_000, 7)).unwrap();
    fs::write(world.path("small/copy/own"), noise(500_000, 8)).unwrap();
    world.sync("laptop", "docs");
    let full = world.packetboat("desktop", &["sync", "small/copy"]).fails();
    told_full(&full.stderr, "folder");
    assert!(fs::read(world.path("small/copy/large")).unwrap() == old);
    disk.grow();
    world.packetboat("desktop", &["sync", "small/copy"]).succeeds();
    world.sync("laptop", "docs");
    same(&world, "docs", "small/copy");
}

#[test]
fn a_vault_on_a_disk_that_runs_full_goes_on_when_there_is_room() {
    for size in ["8k", "3m", "7m"] {
        let world = World::new();
        let Some(disk) = Disk::mount(world.path("stick"), size) else { return };
        fill(&world.path("docs"));
        let full = world.packetboat("laptop", &["sync", "docs", "stick/vault"]).fails();
        told_full(&full.stderr, "intermediary");
        world.packetboat("laptop", &["sync", "docs", "stick/vault"]).fails();
        disk.grow();
        world.packetboat("laptop", &["sync", "docs", "stick/vault"]).succeeds();
        world.sync("desktop", "work");
        same(&world, "docs", "work");
        world.packetboat("desktop", &["verify", "--deep"]).within("work").succeeds();
    }
}

#[test]
fn state_on_a_disk_that_runs_full_goes_on_when_there_is_room() {
    for size in ["4k", "160k", "300k"] {
        let world = World::new();
        let Some(disk) = Disk::mount(world.path("state-laptop"), size) else { return };
        fill(&world.path("docs"));
        for at in 0..2000 {
            fs::write(world.path(&format!("docs/many/small{at}")), noise(8, at)).unwrap();
        }
        let full = world.packetboat("laptop", &["sync", "docs", "stick/vault"]).fails();
        told_full(&full.stderr, "state");
        disk.grow();
        world.packetboat("laptop", &["sync", "docs", "stick/vault"]).succeeds();
        world.sync("desktop", "work");
        same(&world, "docs", "work");
    }
}

/// A world of which a user without privileges owns everything, if there can be one.
fn of_nobody() -> Option<World> {
    let world = World::new();
    let allowed = as_nobody(&world, "true", &[]).is_some_and(|(code, _)| code == 0);
    if !allowed {
        eprintln!("skipped: nobody else can be run here");
    }
    allowed.then_some(world)
}

/// Gives all to the user without privileges and runs a program as that user.
fn as_nobody(world: &World, program: &str, arguments: &[&str]) -> Option<(i32, String)> {
    let owned = Command::new("chown").args(["-R", "65534:65534"]).arg(world.path("")).output().ok()?;
    if !owned.status.success() {
        return None;
    }
    let output = Command::new("setpriv")
        .args(["--reuid=65534", "--regid=65534", "--clear-groups", program])
        .args(arguments)
        .current_dir(world.path(""))
        .env("PACKETBOAT_PASSPHRASE", PASSPHRASE)
        .env("XDG_STATE_HOME", world.path(&format!("state-{}", arguments.last().unwrap_or(&"none"))))
        .env_remove("PACKETBOAT_STATE_DIR")
        .output()
        .ok()?;
    let said = [output.stdout, output.stderr].concat();
    Some((output.status.code()?, String::from_utf8_lossy(&said).into_owned()))
}

fn sync_as_nobody(world: &World, device: &str, folder: &str) -> (i32, String) {
    // It can be run from a place that everyone may read.
    let program = world.path("packetboat");
    if !program.exists() {
        fs::copy(env!("CARGO_BIN_EXE_packetboat"), &program).unwrap();
    }
    as_nobody(world, program.to_str().unwrap(), &["sync", folder, "stick/vault", "--name", device]).unwrap()
}

fn mode(world: &World, path: &str, mode: u32) {
    fs::set_permissions(world.path(path), fs::Permissions::from_mode(mode)).unwrap();
}

#[test]
fn what_may_not_be_read_is_never_a_delete() {
    let Some(world) = of_nobody() else { return };
    for at in 0..30 {
        world.write(&format!("docs/closed/f{at}"), "closed\n");
    }
    world.write("docs/file", "file\n");
    let (code, said) = sync_as_nobody(&world, "laptop", "docs");
    assert_eq!(code, 0, "{said}");
    assert_eq!(sync_as_nobody(&world, "desktop", "work").0, 0);
    world.write("docs/file", "changed\n");
    mode(&world, "docs/closed", 0o300);
    mode(&world, "docs/file", 0o200);
    let (code, said) = sync_as_nobody(&world, "laptop", "docs");
    assert_eq!(code, 0, "{said}");
    assert!(said.contains("Not yet in step") && said.contains("1 problem"), "{said}");
    sync_as_nobody(&world, "desktop", "work");
    assert_eq!(world.names("work/closed").len(), 30);
    assert_eq!(world.read("work/file"), "file\n");
    mode(&world, "docs/closed", 0o755);
    mode(&world, "docs/file", 0o644);
    sync_as_nobody(&world, "laptop", "docs");
    let (_, said) = sync_as_nobody(&world, "desktop", "work");
    assert!(said.contains("In step"), "{said}");
    same(&world, "docs", "work");
}

#[test]
fn a_folder_that_may_not_be_written_waits() {
    let Some(world) = of_nobody() else { return };
    world.write("docs/sub/old", "old\n");
    assert_eq!(sync_as_nobody(&world, "laptop", "docs").0, 0);
    assert_eq!(sync_as_nobody(&world, "desktop", "work").0, 0);
    world.write("docs/sub/old", "new\n");
    world.write("docs/sub/more", "more\n");
    sync_as_nobody(&world, "laptop", "docs");
    for (path, bits) in [("work/sub", 0o555), ("work/.packetboat/stage", 0o500)] {
        mode(&world, path, bits);
        let (_, said) = sync_as_nobody(&world, "desktop", "work");
        assert!(!said.contains("panicked") && !said.starts_with("In step"), "{path}: {said}");
        assert_eq!(world.read("work/sub/old"), "old\n");
        mode(&world, path, 0o755);
    }
    let (_, said) = sync_as_nobody(&world, "desktop", "work");
    assert!(said.contains("In step"), "{said}");
    sync_as_nobody(&world, "laptop", "docs");
    same(&world, "docs", "work");
}
