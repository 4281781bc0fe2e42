//! The real binary, killed at any instant on a real disk: a plain `sync` goes on, and nothing is lost or half-written.
//!
//! `PACKETBOAT_KILLS` says how often it is killed at random instants, `PACKETBOAT_SEED` from which seed.

mod common;

use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::os::unix::process::ExitStatusExt;
use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use common::World;

/// A tree: path and content of each file, and each directory with no content.
type Tree = BTreeMap<String, Option<Vec<u8>>>;

/// Numbers by a seed (splitmix64).
struct Dice(u64);

impl Dice {
    fn next(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut z = self.0;
        z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        z ^ (z >> 31)
    }

    fn below(&mut self, bound: u64) -> u64 {
        self.next() % bound
    }

    fn bytes(&mut self, len: usize) -> Vec<u8> {
        let mut bytes = Vec::with_capacity(len + 8);
        while bytes.len() < len {
            bytes.extend_from_slice(&self.next().to_le_bytes());
        }
        bytes.truncate(len);
        bytes
    }
}

/// Two devices, what was ever written at each path, and what is to stand in the end.
struct Life {
    world: World,
    dice: Dice,
    /// Every content ever written, whose parts must never be seen.
    whole: BTreeSet<Vec<u8>>,
    kills: u64,
}

/// How a run is cut short.
enum Cut {
    /// After so long.
    After(Duration),
    /// When a thread enters this call for the N-th time.
    Call(&'static str, u64),
}

impl Life {
    fn new(seed: u64) -> Self {
        Self { world: World::new(), dice: Dice(seed), whole: BTreeSet::new(), kills: 0 }
    }

    fn write(&mut self, path: &str, len: usize) {
        let bytes = self.dice.bytes(len);
        let path = self.world.path(path);
        fs::create_dir_all(path.parent().unwrap()).unwrap();
        fs::write(path, &bytes).unwrap();
        self.whole.insert(bytes);
    }

    fn small(&mut self) -> usize {
        match self.dice.below(8) {
            0 => 0,
            1 => 20_000 + self.dice.below(100_000) as usize,
            _ => self.dice.below(4000) as usize,
        }
    }

    fn fill(&mut self, files: usize, large: usize) {
        for at in 0..files {
            let len = self.small();
            self.write(&format!("docs/d{}/e{}/f{at}", at % 13, at % 3), len);
        }
        self.write("docs/large", large);
    }

    fn run(&mut self, device: &str, folder: &str, cut: &Cut) -> bool {
        let arguments = ["sync", folder, "stick/vault", "--name", device];
        let mut command = match cut {
            Cut::After(_) => Command::new(env!("CARGO_BIN_EXE_packetboat")),
            Cut::Call(call, number) => {
                let mut command = Command::new("strace");
                command.args(["-f", "-qq", "-o", "/dev/null", "-e"]).arg(format!("trace={call}"));
                command.arg("-e").arg(format!("inject={call}:signal=KILL:when={number}"));
                command.arg(env!("CARGO_BIN_EXE_packetboat"));
                command
            }
        };
        let mut child = command
            .args(arguments)
            .current_dir(self.world.path(""))
            .env("PACKETBOAT_PASSPHRASE", common::PASSPHRASE)
            .env("HOME", self.world.path("home"))
            .env("XDG_STATE_HOME", self.world.path(&format!("state-{device}")))
            .env_remove("PACKETBOAT_STATE_DIR")
            .stdin(Stdio::null())
            .stdout(Stdio::null())
            .stderr(Stdio::piped())
            .spawn()
            .unwrap();
        if let Cut::After(delay) = cut {
            std::thread::sleep(*delay);
            let _ = child.kill();
        }
        let killed = ended_by_kill(child);
        self.kills += u64::from(killed);
        self.look_for_parts(folder);
        killed
    }

    /// Whatever stands in a folder was written as a whole by someone.
    fn look_for_parts(&self, folder: &str) {
        for (path, bytes) in tree(&self.world.path(folder)) {
            if let Some(bytes) = bytes {
                assert!(self.whole.contains(&bytes), "{folder}/{path} is half-written: {} bytes", bytes.len());
            }
        }
    }

    /// Syncs a device to the end, killed some times on the way.
    fn cut_often(&mut self, device: &str, folder: &str, times: u64, longest: u64) {
        for _ in 0..times {
            let delay = Duration::from_millis(self.dice.below(longest));
            if !self.run(device, folder, &Cut::After(delay)) {
                break;
            }
        }
        self.whole_sync(device, folder);
    }

    fn whole_sync(&mut self, device: &str, folder: &str) {
        self.world.sync(device, folder);
        self.look_for_parts(folder);
    }

    /// The laptop and the desktop each change what the other leaves alone; returns what is to stand in the end.
    fn edit_both(&mut self, turn: u64) -> Tree {
        let docs = self.world.path("docs");
        let files: Vec<String> =
            tree(&docs).into_iter().filter(|(_, bytes)| bytes.is_some()).map(|(path, _)| path).collect();
        let mut there = tree(&docs);
        for (at, path) in files.iter().enumerate() {
            let (folder, len) = (if at % 2 == 0 { "docs" } else { "work" }, self.small());
            let on_disk = self.world.path(&format!("{folder}/{path}"));
            match self.dice.below(8) {
                0 | 1 => self.write(&format!("{folder}/{path}"), if path == "large" { 1_500_000 } else { len.max(1) }),
                2 if path != "large" => fs::remove_file(&on_disk).unwrap(),
                3 if path != "large" => fs::rename(&on_disk, on_disk.with_file_name(format!("m{turn}-{at}"))).unwrap(),
                _ => continue,
            }
            there.remove(path);
        }
        for at in 0..30 {
            let len = self.small();
            self.write(&format!("docs/new{turn}/n{}/x{at}", at % 4), len);
        }
        // What either side changed or made, and what neither touched.
        for folder in ["docs", "work"] {
            for (path, bytes) in tree(&self.world.path(folder)) {
                let untouched = files.binary_search(&path).is_ok();
                if !untouched {
                    there.insert(path, bytes);
                }
            }
        }
        for (at, path) in files.iter().enumerate() {
            let folder = if at % 2 == 0 { "docs" } else { "work" };
            if let Ok(bytes) = fs::read(self.world.path(&format!("{folder}/{path}"))) {
                there.insert(path.clone(), Some(bytes));
            }
        }
        there
    }

    fn in_step(&mut self, wanted: &Tree) {
        self.whole_sync("laptop", "docs");
        self.whole_sync("desktop", "work");
        for folder in ["docs", "work"] {
            let found = tree(&self.world.path(folder));
            let differs: Vec<&String> =
                found.keys().chain(wanted.keys()).filter(|path| found.get(*path) != wanted.get(*path)).collect();
            assert!(differs.is_empty(), "{folder} differs at {differs:?}");
        }
        for (device, folder) in [("laptop", "docs"), ("desktop", "work")] {
            let status = self.world.packetboat(device, &["status", "--json"]).within(folder).succeeds().json();
            assert_eq!(status["in_step"], true, "{status}");
            assert_eq!(status["conflicts"], 0, "{status}");
            let stage = self.world.path(&format!("{folder}/.packetboat/stage"));
            assert_eq!(fs::read_dir(stage).unwrap().count(), 0, "staging is empty");
        }
    }
}

fn ended_by_kill(mut child: Child) -> bool {
    let mut said = String::new();
    std::io::Read::read_to_string(&mut child.stderr.take().unwrap(), &mut said).unwrap();
    let status = child.wait().unwrap();
    assert!(!said.contains("panicked"), "{said}");
    match status.signal().or_else(|| status.code().filter(|code| *code >= 128).map(|code| code - 128)) {
        Some(9) => true,
        _ => {
            assert!(status.success(), "{status}: {said}");
            false
        }
    }
}

fn tree(root: &Path) -> Tree {
    fn walk(root: &Path, at: &Path, tree: &mut Tree) {
        let Ok(entries) = fs::read_dir(at) else { return };
        for entry in entries {
            let path = entry.unwrap().path();
            let relative = path.strip_prefix(root).unwrap().to_str().unwrap().to_owned();
            if relative == ".packetboat" {
                continue;
            }
            if path.is_dir() {
                tree.insert(relative, None);
                walk(root, &path, tree);
            } else {
                tree.insert(relative, Some(fs::read(&path).unwrap()));
            }
        }
    }
    let mut tree = Tree::new();
    walk(root, root, &mut tree);
    tree
}

fn number(variable: &str, default: u64) -> u64 {
    std::env::var(variable).ok().and_then(|text| text.parse().ok()).unwrap_or(default)
}

#[test]
fn kill_9_at_random_instants_costs_nothing() {
    let wanted = number("PACKETBOAT_KILLS", 40);
    let first = number("PACKETBOAT_SEED", 1);
    let begun = Instant::now();
    let mut kills = 0;
    for seed in first.. {
        println!("seed {seed}, {kills} kills, {:?}", begun.elapsed());
        let mut life = Life::new(seed);
        life.fill(300, 20_000_000);
        let there = tree(&life.world.path("docs"));
        life.cut_often("laptop", "docs", 6, 800);
        life.cut_often("desktop", "work", 8, 800);
        life.in_step(&there);
        for turn in 0..3 {
            let there = life.edit_both(turn);
            life.cut_often("laptop", "docs", 4, 250);
            life.cut_often("desktop", "work", 6, 400);
            life.in_step(&there);
        }
        kills += life.kills;
        if kills >= wanted {
            break;
        }
    }
}

/// The calls by which the disk is changed.
const CALLS: [&str; 10] =
    ["renameat2", "renameat", "unlinkat", "mkdirat", "fsync", "fdatasync", "syncfs", "openat2", "linkat", "pwrite64"];

#[test]
fn kill_9_at_system_calls_costs_nothing() {
    if !Command::new("strace")
        .args(["-f", "-qq", "-o", "/dev/null", "true"])
        .status()
        .is_ok_and(|status| status.success())
    {
        eprintln!("skipped: there is no strace that may be used");
        return;
    }
    let wanted = number("PACKETBOAT_KILLS", 20);
    let first = number("PACKETBOAT_SEED", 1);
    let mut kills = 0;
    for seed in first.. {
        println!("seed {seed}, {kills} kills");
        let mut life = Life::new(!seed);
        life.fill(60, 3_000_000);
        let there = tree(&life.world.path("docs"));
        let cut = |life: &mut Life, device: &str, folder: &str, times: u64| {
            for _ in 0..times {
                let call = CALLS[life.dice.below(CALLS.len() as u64) as usize];
                let most = if life.dice.below(2) == 0 { 6 } else { 40 };
                let cut = Cut::Call(call, 1 + life.dice.below(most));
                life.run(device, folder, &cut);
            }
        };
        cut(&mut life, "laptop", "docs", 5);
        life.whole_sync("laptop", "docs");
        cut(&mut life, "desktop", "work", 6);
        life.whole_sync("desktop", "work");
        life.in_step(&there);
        for turn in 0..2 {
            let there = life.edit_both(turn);
            cut(&mut life, "laptop", "docs", 3);
            life.whole_sync("laptop", "docs");
            cut(&mut life, "desktop", "work", 6);
            life.whole_sync("desktop", "work");
            life.in_step(&there);
        }
        kills += life.kills;
        if kills >= wanted {
            break;
        }
    }
}
