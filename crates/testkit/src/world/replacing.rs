//! Users who put one object in the place of another, often of another kind.
//!
//! A directory gives way to a symlink, a file to a directory, `rm -r d; mv x d`, two objects change places, what lay in a
//! directory takes the directory's own place. To a scan all of that is one path with something else at it, and what stood
//! there has gone, or is elsewhere, or is beneath what replaced it.
//!
//! Everything that is done here is done by a user who sees the disk, so whatever is deleted is so knowingly.
//! What one call cannot do, such as a directory in a file's place, is done by several at once: no round comes between.
//! The races of the testkit act between two calls of a round, and so they come upon a whole replacement.

use std::collections::BTreeMap;

use packetboat_engine::ignore_rules::IGNORE_FILE;

use super::edits::{Account, fresh};
use super::{WorldOptions, content};
use crate::rng::Rng;
use crate::sim_fs::{Node, SimFs};

/// Puts something in the place of something that is there; says what.
pub(super) fn replace(rng: &mut Rng, fs: &SimFs, options: &WorldOptions, account: &mut Account) -> Option<String> {
    let tree = super::visible(fs);
    let mut user = User { rng, fs, options, tree, account };
    let place = user.any()?;
    match user.rng.below(10) {
        0..=2 if user.options.deletes => user.remove_and_make(&place),
        3..=4 if user.options.deletes && user.options.moves => user.remove_and_move(&place),
        5 if user.options.deletes && user.options.moves => user.raise(&place),
        6 if user.options.moves => user.push_down(&place),
        7 if user.options.moves => user.move_away_and_make(&place),
        8..=9 if user.options.moves => user.exchange(&place),
        _ => None,
    }
}

struct User<'a> {
    rng: &'a mut Rng,
    fs: &'a SimFs,
    options: &'a WorldOptions,
    /// What stood on the disk before.
    tree: BTreeMap<Vec<u8>, Node>,
    account: &'a mut Account,
}

impl User<'_> {
    /// Some path, directories as likely as all others together: they are few, and the most happens with them.
    fn any(&mut self) -> Option<Vec<u8>> {
        let directories = self.rng.chance(1, 2);
        // Ignore rules that are no file are refused with a message, and that is no part of these stories.
        let wanted = |(path, node): &(&Vec<u8>, &Node)| {
            matches!(node, Node::Directory { .. }) == directories && *path != IGNORE_FILE.as_bytes()
        };
        let paths: Vec<Vec<u8>> = self.tree.iter().filter(wanted).map(|(path, _)| path.clone()).collect();
        self.rng.pick(&paths).cloned()
    }

    /// `rm -r place`, and something new is made there.
    fn remove_and_make(&mut self, place: &[u8]) -> Option<String> {
        self.remove(place)?;
        let made = self.make(place)?;
        Some(format!("delete {} and there {made}", text(place)))
    }

    /// `rm -r place; mv from place`; of two files it is one rename.
    fn remove_and_move(&mut self, place: &[u8]) -> Option<String> {
        let from = self.apart_from(place)?;
        let both_files = [place, &from].iter().all(|path| content(&self.tree[*path]).is_some());
        match both_files {
            true => self.forsake(place),
            false => self.remove(place)?,
        }
        self.rename(&from, place)?;
        Some(format!("move {} over {}", text(&from), text(place)))
    }

    /// Something that lies in a directory takes its place, and the rest goes with the directory.
    fn raise(&mut self, place: &[u8]) -> Option<String> {
        let beneath: Vec<Vec<u8>> = self.tree.keys().filter(|path| is_within(path, place)).cloned().collect();
        let from = self.rng.pick(&beneath)?.clone();
        self.rename(&from, ASIDE)?;
        for path in beneath.iter().filter(|path| **path != from && !is_within(path, &from)) {
            self.forsake_one(path);
        }
        self.fs.remove(place).ok()?;
        self.fs.rename(ASIDE, place).ok()?;
        Some(format!("move {} over {}, in which it is", text(&from), text(place)))
    }

    /// An object becomes what a new directory in its place holds.
    fn push_down(&mut self, place: &[u8]) -> Option<String> {
        let name = NAMES[self.rng.index(NAMES.len())];
        let to = [place, b"/", name.as_bytes()].concat();
        self.rename(place, ASIDE)?;
        self.fs.make_dir(place).ok()?;
        self.fs.rename(ASIDE, &to).ok()?;
        Some(format!("move {} to {}, a directory in its place", text(place), text(&to)))
    }

    /// `mv place elsewhere`, and something new is made there, as by an editor that keeps the old file.
    fn move_away_and_make(&mut self, place: &[u8]) -> Option<String> {
        let to = [place, b"~"].concat();
        if self.tree.contains_key(&to) {
            return None;
        }
        self.rename(place, &to)?;
        let made = self.make(place)?;
        Some(format!("move {} to {} and there {made}", text(place), text(&to)))
    }

    /// Two objects change places.
    fn exchange(&mut self, place: &[u8]) -> Option<String> {
        let other = self.apart_from(place)?;
        self.rename(place, ASIDE)?;
        self.rename(&other, place)?;
        self.fs.rename(ASIDE, &other).ok()?;
        Some(format!("exchange {} and {}", text(place), text(&other)))
    }

    /// Some path that neither holds this one nor lies in it.
    fn apart_from(&mut self, place: &[u8]) -> Option<Vec<u8>> {
        let other = self.any()?;
        (other != place && !is_within(&other, place) && !is_within(place, &other)).then_some(other)
    }

    /// Makes something at a place that is free; says what.
    fn make(&mut self, place: &[u8]) -> Option<String> {
        match self.rng.below(5) {
            0..=1 => {
                let bytes = fresh(self.rng, self.account);
                self.fs.write(place, &bytes).ok()?;
                self.account.write(bytes.clone());
                Some(format!("write {}", text(&bytes)))
            }
            2 if self.options.oddities => {
                let mut target = fresh(self.rng, self.account);
                target.truncate(100);
                self.fs.make_symlink(&target, place).ok()?;
                self.account.write(target.clone());
                Some(format!("symlink -> {}", text(&target)))
            }
            3 => {
                let within = [place, b"/", NAMES[self.rng.index(NAMES.len())].as_bytes()].concat();
                let bytes = fresh(self.rng, self.account);
                self.fs.write(&within, &bytes).ok()?;
                self.account.write(bytes.clone());
                Some(format!("mkdir and write {} = {}", text(&within), text(&bytes)))
            }
            _ => {
                self.fs.make_dir(place).ok()?;
                Some("mkdir".to_owned())
            }
        }
    }

    fn remove(&mut self, place: &[u8]) -> Option<()> {
        self.forsake(place);
        self.fs.remove(place).ok()
    }

    /// Notes that what stands at a place and beneath it goes.
    fn forsake(&mut self, place: &[u8]) {
        let going: Vec<Vec<u8>> = self.tree.keys().filter(|path| is_at(path, place)).cloned().collect();
        going.iter().for_each(|path| self.forsake_one(path));
    }

    fn forsake_one(&mut self, path: &[u8]) {
        if let Some(bytes) = self.tree.get(path).and_then(content) {
            self.account.forsake(bytes);
        }
    }

    fn rename(&mut self, from: &[u8], to: &[u8]) -> Option<()> {
        self.account.moved = true;
        self.fs.rename(from, to).ok()
    }
}

fn is_within(path: &[u8], directory: &[u8]) -> bool {
    path.strip_prefix(directory).is_some_and(|rest| rest.starts_with(b"/"))
}

fn is_at(path: &[u8], place: &[u8]) -> bool {
    path == place || is_within(path, place)
}

fn text(bytes: &[u8]) -> String {
    String::from_utf8_lossy(&bytes[..bytes.len().min(SHOWN_BYTES)]).into_owned()
}

const NAMES: [&str; 3] = ["a", "b", "f"];
/// Where an object is while two change places; nobody else uses the name.
const ASIDE: &[u8] = b"aside";
const SHOWN_BYTES: usize = 80;
