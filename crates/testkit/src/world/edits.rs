//! What users do to their folders at random, and the account that the world keeps of it.

use std::collections::BTreeSet;
use std::sync::Mutex;

use packetboat_engine::ignore_rules::IGNORE_FILE;

use super::{WorldOptions, content, replacing, visible};
use crate::rng::Rng;
use crate::sim_fs::{Node, SimFs};

/// What the users wrote and what became of it.
#[derive(Default)]
pub(super) struct Account {
    /// Every content that was ever written.
    pub(super) written: BTreeSet<Vec<u8>>,
    /// Contents that nobody knowingly replaced or deleted.
    pub(super) owed: BTreeSet<Vec<u8>>,
    /// Whether anything was ever moved: an unseen move brings back what a delete removed, with whatever it holds by then.
    pub(super) moved: bool,
    /// Contents that were written more than once.
    pub(super) copied: BTreeSet<Vec<u8>>,
    /// Contents that somebody knowingly replaced or deleted; another copy of one may stand or not.
    pub(super) forsaken: BTreeSet<Vec<u8>>,
    /// What the acting device's user sees that a crash may have kept from being recorded.
    pub(super) unrecorded: BTreeSet<Vec<u8>>,
    /// What was replaced or deleted of that.
    pub(super) unknowingly: BTreeSet<Vec<u8>>,
    /// Whether something happened that may bring back what was deleted: a lost index, or a delete of what was ignored.
    pub(super) may_revive: bool,
    /// What users did while a round ran, since it was last asked.
    pub(super) slipped_in: Vec<String>,
    pub(super) count: u64,
}

impl Account {
    pub(super) fn write(&mut self, bytes: Vec<u8>) {
        if !self.written.insert(bytes.clone()) {
            self.copied.insert(bytes.clone());
        }
        if !self.forsaken.contains(&bytes) {
            self.owed.insert(bytes);
        }
    }

    pub(super) fn forsake(&mut self, bytes: &[u8]) {
        self.owed.remove(bytes);
        self.forsaken.insert(bytes.to_vec());
        if self.unrecorded.contains(bytes) {
            self.unknowingly.insert(bytes.to_vec());
        }
    }
}

/// Does something that a user might do; says what.
pub(super) fn random_edit(
    rng: &mut Rng,
    fs: &SimFs,
    options: &WorldOptions,
    account: &Mutex<Account>,
) -> Option<String> {
    let mut account = account.lock().expect("nobody panics holding this");
    let tree = visible(fs);
    let paths: Vec<Vec<u8>> = tree.keys().cloned().collect();
    let files: Vec<Vec<u8>> = tree.iter().filter(|(_, n)| content(n).is_some()).map(|(p, _)| p.clone()).collect();
    let directories: Vec<Vec<u8>> =
        tree.iter().filter(|(_, n)| matches!(n, Node::Directory { .. })).map(|(p, _)| p.clone()).collect();
    let place = |rng: &mut Rng| -> Vec<u8> {
        let name = ["a", "b", "c", "d.txt", "e.txt", "f"][rng.index(6)].to_string();
        match rng.pick(&directories) {
            Some(directory) if rng.chance(2, 3) => [directory.as_slice(), b"/", name.as_bytes()].concat(),
            _ => name.into_bytes(),
        }
    };
    let text = |path: &[u8]| String::from_utf8_lossy(path).into_owned();
    let kinds = 20 + if options.settling { 3 } else { 0 };
    match rng.below(kinds) {
        _ if options.replacing && rng.chance(1, 8) => replacing::replace(rng, fs, options, &mut account),
        _ if options.ignoring && rng.chance(1, 15) => {
            if matches!(tree.get(IGNORE_FILE.as_bytes()), Some(Node::Directory { .. } | Node::Symlink { .. })) {
                return None;
            }
            account.count += 1;
            let patterns = ["a", "*.txt", "/b/", "/a/c", "f"];
            let rules = format!("{}\n# {}\n", patterns[rng.index(patterns.len())], account.count).into_bytes();
            if let Some(old) = tree.get(IGNORE_FILE.as_bytes()).and_then(content) {
                account.forsake(old);
            }
            account.may_revive = true;
            fs.write(IGNORE_FILE, &rules).ok()?;
            account.write(rules.clone());
            Some(format!("ignore {}", text(&rules)))
        }
        20..=21 => {
            // What is written somewhere already: here, or on another device.
            let path = place(rng);
            if matches!(tree.get(&path), Some(Node::Directory { .. } | Node::Special | Node::Symlink { .. })) {
                return None;
            }
            let recent: Vec<Vec<u8>> = account.written.iter().filter(|bytes| bytes.len() < 9).cloned().collect();
            let bytes = rng.pick(&recent)?.clone();
            match tree.get(&path).and_then(content) {
                Some(old) if *old == bytes => return None,
                Some(old) => account.forsake(old),
                None => {}
            }
            fs.write(&path, &bytes).ok()?;
            account.write(bytes.clone());
            Some(format!("write again {} = {}", text(&path), text(&bytes)))
        }
        22 => {
            // Of directories only what they have when they are made is known to travel.
            let path = rng.pick(&files)?.clone();
            if matches!(tree.get(&path), Some(Node::Symlink { .. })) {
                return None;
            }
            let value = if rng.chance(1, 4) { None } else { Some(rng.bytes(3)) };
            fs.set_user_xattr(&path, [b"user.a".as_slice(), b"user.b"][rng.index(2)], value.as_deref()).ok()?;
            Some(format!("xattr {} {value:?}", text(&path)))
        }
        0..=5 => {
            let path = place(rng);
            if matches!(tree.get(&path), Some(Node::Directory { .. } | Node::Special)) {
                return None;
            }
            let bytes = fresh(rng, &mut account);
            if let Some(old) = tree.get(&path).and_then(content) {
                account.forsake(old);
            }
            if matches!(tree.get(&path), Some(Node::Symlink { .. })) {
                fs.remove(&path).ok()?;
            }
            fs.write(&path, &bytes).ok()?;
            account.write(bytes.clone());
            Some(format!("write {} = {}", text(&path), text(&bytes)))
        }
        6..=9 => {
            let path = rng.pick(&files)?.clone();
            let Some(Node::File { bytes: old, .. }) = tree.get(&path) else { return None };
            let bytes = fresh(rng, &mut account);
            account.forsake(old);
            fs.write(&path, &bytes).ok()?;
            account.write(bytes.clone());
            Some(format!("edit {} = {}", text(&path), text(&bytes)))
        }
        10 => {
            let path = place(rng);
            if tree.contains_key(&path) {
                return None;
            }
            fs.make_dir(&path).ok()?;
            Some(format!("mkdir {}", text(&path)))
        }
        11..=14 if options.moves => {
            let from = rng.pick(&paths)?.clone();
            let to = place(rng);
            let within = to.starts_with(&[from.as_slice(), b"/"].concat());
            if within || to == from || tree.contains_key(&to) {
                return None;
            }
            fs.rename(&from, &to).ok()?;
            account.moved = true;
            Some(format!("move {} to {}", text(&from), text(&to)))
        }
        15..=16 if options.deletes => {
            let path = rng.pick(&paths)?.clone();
            for (other, node) in &tree {
                if (*other == path || other.starts_with(&[path.as_slice(), b"/"].concat()))
                    && let Some(bytes) = content(node)
                {
                    account.forsake(bytes);
                }
            }
            fs.remove(&path).ok()?;
            Some(format!("delete {}", text(&path)))
        }
        17 if options.oddities => {
            let path = rng.pick(&paths)?.clone();
            if matches!(tree.get(&path), Some(Node::Symlink { .. })) {
                return None;
            }
            let mode = [0o644, 0o755, 0o600, 0o700][rng.index(4)];
            fs.chmod(&path, mode).ok()?;
            Some(format!("chmod {} {mode:o}", text(&path)))
        }
        18 if options.oddities => {
            let path = place(rng);
            if matches!(tree.get(&path), Some(Node::Directory { .. } | Node::Special)) {
                return None;
            }
            let mut target = fresh(rng, &mut account);
            target.truncate(100);
            if let Some(old) = tree.get(&path) {
                account.forsake(content(old).expect("not a directory"));
                fs.remove(&path).ok()?;
            }
            fs.make_symlink(&target, &path).ok()?;
            account.write(target.clone());
            Some(format!("symlink {} -> {}", text(&path), text(&target)))
        }
        19 => {
            let path = rng.pick(&files)?.clone();
            let mtime = rng.below(2_000_000_000) as i64 * 1_000_000_000;
            fs.touch(&path, mtime).ok()?;
            Some(format!("touch {}", text(&path)))
        }
        _ => None,
    }
}

/// Writes one of the contents that were replaced or deleted last; says what.
pub(super) fn write_what_is_gone(rng: &mut Rng, fs: &SimFs, account: &Mutex<Account>) -> Option<String> {
    let mut account = account.lock().expect("nobody panics holding this");
    let tree = visible(fs);
    let shown: BTreeSet<&Vec<u8>> = tree.values().filter_map(content).collect();
    let mut gone: Vec<Vec<u8>> = account.forsaken.iter().filter(|bytes| !shown.contains(bytes)).cloned().collect();
    gone.sort_by_key(|bytes| number_of(bytes));
    let bytes = rng.pick(&gone[gone.len().saturating_sub(3)..])?.clone();
    let name = ["a", "b", "c", "d.txt", "e.txt", "f"][rng.index(6)];
    if matches!(tree.get(name.as_bytes()), Some(Node::Directory { .. } | Node::Special | Node::Symlink { .. })) {
        return None;
    }
    if let Some(old) = tree.get(name.as_bytes()).and_then(content) {
        account.forsake(old);
    }
    fs.write(name, &bytes).ok()?;
    account.write(bytes.clone());
    Some(format!("write what is gone {name} = {}", String::from_utf8_lossy(&bytes[..bytes.len().min(8)])))
}

/// When a content was first written, as [`fresh`] counts.
fn number_of(bytes: &[u8]) -> Option<u64> {
    let digits: Vec<u8> = bytes.get(1..)?.iter().copied().take_while(u8::is_ascii_digit).collect();
    std::str::from_utf8(&digits).ok()?.parse().ok()
}

/// A content that nobody has written, or now and then one that somebody has: the same edit twice.
pub(super) fn fresh(rng: &mut Rng, account: &mut Account) -> Vec<u8> {
    account.count += 1;
    let size = if rng.chance(1, 10) { 20_000 } else { 0 };
    let mut bytes = format!("v{}", account.count).into_bytes();
    bytes.resize(bytes.len() + size, b'.');
    bytes
}
