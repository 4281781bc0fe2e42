//! What is run and disturbed: each scenario says what stands on the disks before, and which command of which device it is.
//!
//! One more is one more entry in `SCENARIOS`. Thirty objects are enough to reach each kind of step, and few enough to take
//! every call.

use std::fs;
use std::os::unix::fs::{PermissionsExt, symlink};

use crate::calls::{DESKTOP, Device, LAPTOP};
use crate::ground::Ground;

/// A command on known disks.
pub(crate) struct Scenario {
    pub(crate) name: &'static str,
    /// Makes what stands before the command.
    pub(crate) prepare: fn(&Ground),
    /// Who runs it.
    pub(crate) device: Device,
    /// The command; `sync` gets folder and vault by itself.
    pub(crate) arguments: &'static [&'static str],
    /// Parts of paths that the command changes, so that a scenario which no longer reaches them is not taken for proof.
    pub(crate) reaches: &'static [&'static str],
    /// Whether its user, told of a failure, would give the command again; a `sync` comes first in any case.
    pub(crate) again: bool,
}

const SYNC: Scenario =
    Scenario { name: "", prepare: fill, device: LAPTOP, arguments: &["sync"], reaches: &[], again: false };

pub(crate) const SCENARIOS: [Scenario; 9] = [
    Scenario { name: "first sync", reaches: &["/packs/", "/lanes/", "/tips/", "registry.json"], ..SYNC },
    Scenario { name: "join", prepare: one_device, device: DESKTOP, reaches: &["/stage/", "/tips/"], ..SYNC },
    Scenario { name: "publish", prepare: changed_here, reaches: &["/packs/", "/lanes/", "/tips/"], ..SYNC },
    Scenario { name: "apply", prepare: changed_there, device: DESKTOP, reaches: &["/stage", "index.db-wal"], ..SYNC },
    Scenario { name: "conflict", prepare: changed_on_both, device: DESKTOP, reaches: &["/stage", "/lanes/"], ..SYNC },
    Scenario {
        name: "prune",
        prepare: undoable,
        arguments: &["prune", "--keep", "0d"],
        reaches: &["/checkpoints/", "/packs/", "/lanes/"],
        again: true,
        ..SYNC
    },
    Scenario {
        name: "delete",
        prepare: condemned,
        arguments: &["prune"],
        reaches: &["/packs/", "/lanes/"],
        again: true,
        ..SYNC
    },
    Scenario { name: "undo", prepare: undoable, arguments: &["undo"], reaches: &["/stage", "/lanes/"], ..SYNC },
    Scenario { name: "unignore", prepare: unignored, device: DESKTOP, reaches: &["/stage", "index.db-wal"], ..SYNC },
];

/// Thirty objects in the laptop's folder: small and large files, directories in directories, a symlink, a script.
fn fill(ground: &Ground) {
    for directory in ["docs/letters/old", "docs/notes", "docs/photos/2025/may", "docs/gone/deep", "docs/void"] {
        fs::create_dir_all(ground.home(directory)).unwrap();
    }
    for at in 0..6 {
        write(ground, &format!("docs/letters/letter{at}.txt"), 200 + at * 700, at);
        write(ground, &format!("docs/letters/old/old{at}.txt"), 90 * at, 20 + at);
    }
    for at in 0..3 {
        write(ground, &format!("docs/photos/2025/may/photo{at}.jpg"), 30_000 + at * 40_000, 40 + at);
        write(ground, &format!("docs/gone/deep/file{at}"), 1000, 50 + at);
    }
    write(ground, "docs/notes/todo.md", 3000, 60);
    write(ground, "docs/large", 400_000, 61);
    write(ground, "docs/run.sh", 60, 62);
    fs::set_permissions(ground.home("docs/run.sh"), fs::Permissions::from_mode(0o755)).unwrap();
    symlink("notes/todo.md", ground.home("docs/link")).unwrap();
}

fn one_device(ground: &Ground) {
    fill(ground);
    ground.sync(LAPTOP);
}

fn two_devices(ground: &Ground) {
    one_device(ground);
    ground.sync(DESKTOP);
    ground.sync(LAPTOP);
}

/// Every kind of change in one folder: made, replaced, renamed, moved with its directory, deleted, of another kind.
fn change(ground: &Ground, folder: &str) {
    let path = |relative: &str| ground.home(&format!("{folder}/{relative}"));
    write(ground, &format!("{folder}/notes/new.md"), 500, 100);
    write(ground, &format!("{folder}/fresh/inner/deep.txt"), 2500, 101);
    write(ground, &format!("{folder}/fresh/picture.jpg"), 70_000, 102);
    write(ground, &format!("{folder}/letters/letter0.txt"), 5000, 103);
    write(ground, &format!("{folder}/photos/2025/may/photo1.jpg"), 65_000, 104);
    let mut large = fs::read(path("large")).unwrap();
    large[200_000..200_100].fill(7);
    fs::write(path("large"), large).unwrap();
    fs::rename(path("letters/letter1.txt"), path("letters/renamed.txt")).unwrap();
    fs::rename(path("letters/old"), path("notes/older")).unwrap();
    fs::rename(path("photos/2025"), path("fresh/2025")).unwrap();
    // Two names exchanged.
    fs::rename(path("letters/letter2.txt"), path("aside")).unwrap();
    fs::rename(path("letters/letter3.txt"), path("letters/letter2.txt")).unwrap();
    fs::rename(path("aside"), path("letters/letter3.txt")).unwrap();
    fs::remove_dir_all(path("gone")).unwrap();
    fs::remove_file(path("letters/letter4.txt")).unwrap();
    fs::remove_file(path("link")).unwrap();
    symlink("letters", path("link")).unwrap();
    // A directory where a file was.
    fs::remove_file(path("letters/letter5.txt")).unwrap();
    write(ground, &format!("{folder}/letters/letter5.txt/page"), 100, 105);
    fs::set_permissions(path("run.sh"), fs::Permissions::from_mode(0o644)).unwrap();
}

fn changed_here(ground: &Ground) {
    two_devices(ground);
    change(ground, "docs");
}

fn changed_there(ground: &Ground) {
    changed_here(ground);
    ground.sync(LAPTOP);
}

/// The desktop has changes of its own, some to what the laptop changed as well.
fn changed_on_both(ground: &Ground) {
    changed_there(ground);
    write(ground, "work/letters/letter0.txt", 1500, 200);
    write(ground, "work/gone/deep/file1", 800, 201);
    write(ground, "work/notes/new.md", 300, 202);
    write(ground, "work/photos/2025/may/own.jpg", 50_000, 203);
    fs::remove_file(ground.home("work/run.sh")).unwrap();
}

fn undoable(ground: &Ground) {
    changed_there(ground);
    ground.sync(DESKTOP);
    ground.sync(LAPTOP);
}

/// The laptop has let go of all that is past, and the desktop has said that it knows.
fn condemned(ground: &Ground) {
    undoable(ground);
    ground.must(LAPTOP, &["prune", "--keep", "0d"]);
    ground.sync(DESKTOP);
}

/// The desktop ignores no more what it was not brought for that.
fn unignored(ground: &Ground) {
    two_devices(ground);
    ground.must(DESKTOP, &["ignore", "later/", "*.tmp"]);
    for at in 0..3 {
        write(ground, &format!("docs/later/deep/file{at}"), 1000 + at * 30_000, 300 + at);
        write(ground, &format!("docs/notes/scratch{at}.tmp"), 500, 310 + at);
    }
    ground.sync(LAPTOP);
    ground.sync(DESKTOP);
    ground.must(DESKTOP, &["ignore", "--remove", "later/", "--remove", "*.tmp"]);
}

/// Writes a file whose bytes do not compress and are in no other; its time is long ago, so that it is not read again.
fn write(ground: &Ground, relative: &str, len: usize, seed: usize) {
    let path = ground.home(relative);
    fs::create_dir_all(path.parent().unwrap()).unwrap();
    let mut state = seed as u64;
    let noise = || {
        state = state.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        (state >> 33) as u8
    };
    let bytes: Vec<u8> =
        format!("{seed}:").into_bytes().into_iter().chain(std::iter::repeat_with(noise)).take(len).collect();
    fs::write(&path, bytes).unwrap();
}
