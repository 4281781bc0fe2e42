//! What has to hold of the disks after a disturbed run, before anything mends them and after plain syncs.

use std::collections::BTreeSet;
use std::fs;

use crate::calls::{DESKTOP, Device, LAPTOP, Ran, WITNESS};
use crate::ground::Ground;
use crate::scenarios::Scenario;
use crate::tree::{self, Object, Tree};

/// What a scenario's disks show before the run, right after an undisturbed one, and when both devices have synced then.
pub(crate) struct Course {
    before: [Tree; 2],
    after: [Tree; 2],
    /// What both devices may show in the end: a command that is not repeated may also never have begun.
    settled: Vec<Tree>,
    /// Every content that is ever seen whole.
    whole: BTreeSet<Vec<u8>>,
}

const FOLDERS: [Device; 2] = [LAPTOP, DESKTOP];

fn trees(ground: &Ground) -> [Tree; 2] {
    FOLDERS.map(|device| tree::without_conflict_names(&tree::read(&ground.home(device.folder))))
}

impl Course {
    /// Runs a scenario to its end, from prepared disks.
    pub(crate) fn of(ground: &Ground, scenario: &Scenario, record: impl FnOnce() -> Ran) -> Self {
        let before = trees(ground);
        let mut settled = Vec::new();
        if scenario.arguments[0] != "sync" && !scenario.again {
            settle(ground, scenario.device);
            settled.push(in_step(ground, scenario));
            ground.put_back(scenario.name);
        }
        let ran = record();
        assert_eq!(ran.code, Some(0), "{}: {}{}", scenario.name, ran.stdout, ran.stderr);
        let after = trees(ground);
        settle(ground, scenario.device);
        settled.push(in_step(ground, scenario));
        let contents = before.iter().chain(&after).chain(&settled).flat_map(Tree::values);
        let whole = contents.filter_map(|object| match object {
            Object::File { bytes, .. } => Some(bytes.clone()),
            _ => None,
        });
        Self { whole: whole.collect(), before, after, settled }
    }

    /// Right after a disturbed run: each file is one that somebody wrote, at a path that was or is to be, and what
    /// the run does not concern is as it was.
    pub(crate) fn nothing_is_half_done(&self, ground: &Ground) -> Result<(), String> {
        for (at, tree) in trees(ground).iter().enumerate() {
            for (path, object) in tree {
                if let Object::File { bytes, .. } = object
                    && !self.whole.contains(bytes)
                {
                    return Err(format!("{}/{path} is half-written: {}", FOLDERS[at].folder, object.brief()));
                }
            }
            let (before, after) = (&self.before[at], &self.after[at]);
            // What goes from one name to another may be on its way; all else never leaves its place.
            for (path, object) in before {
                if after.get(path) == Some(object) && tree.get(path) != Some(object) {
                    return Err(format!("{}/{path} was to stay as it was", FOLDERS[at].folder));
                }
            }
            // A directory may have moved before what it holds was changed, so a known path may show another whole content.
            for (path, object) in tree {
                if !before.contains_key(path) && !after.contains_key(path) {
                    return Err(format!("{}/{path} was never to be: {}", FOLDERS[at].folder, object.brief()));
                }
            }
        }
        Ok(())
    }

    /// Whether what a run said it published is at the vault, for a device that knows nothing but the vault.
    pub(crate) fn what_was_reported_is_there(
        &self,
        ground: &Ground,
        scenario: &Scenario,
        ran: &Ran,
    ) -> Result<(), String> {
        if !ran.stdout.starts_with("In step with") {
            return Ok(());
        }
        let joined = ground.run(WITNESS, &["sync"], &[]);
        if joined.code != Some(0) {
            return Err(format!("reported, but nobody can join: {}{}", joined.stdout, joined.stderr));
        }
        let wanted = if scenario.device == LAPTOP { &self.after[0] } else { &self.after[1] };
        let found = tree::without_conflict_names(&tree::read(&ground.home(WITNESS.folder)));
        match tree::differences(&found, wanted).as_str() {
            "" => Ok(()),
            differences => Err(format!("reported, but not at the vault:\n{differences}")),
        }
    }

    /// Plain syncs of both devices lead where they would have led, and nothing is left about.
    pub(crate) fn plain_syncs_settle_it(&self, ground: &Ground, scenario: &Scenario) -> Result<(), String> {
        if scenario.again {
            ground.sync(scenario.device);
            let again = ground.run(scenario.device, scenario.arguments, &[]);
            if again.code.is_none_or(|code| code == 255) {
                return Err(format!("the command fails: {}{}", again.stdout, again.stderr));
            }
        }
        for device in order(scenario.device) {
            let ran = ground.run(device, &["sync"], &[]);
            if ran.code != Some(0) {
                return Err(format!("a plain sync fails: {}{}", ran.stdout, ran.stderr));
            }
        }
        let [docs, work] = trees(ground);
        if docs != work {
            return Err(format!("not in step in the end:\n{}", tree::differences(&work, &docs)));
        }
        if !self.settled.contains(&docs) {
            return Err(format!("another end:\n{}", tree::differences(&docs, &self.settled[0])));
        }
        for device in FOLDERS {
            let status = ground.must(device, &["status", "--json"]);
            let status: serde_json::Value = serde_json::from_str(&status).unwrap();
            if status["in_step"] != true || status["problems"].as_array().is_some_and(|problems| !problems.is_empty()) {
                return Err(format!("{}: {status}", device.name));
            }
            let left = left_in_staging(ground, device);
            if !left.is_empty() {
                return Err(format!("{}: left in staging: {left:?}", device.name));
            }
        }
        let verified = ground.run(LAPTOP, &["verify", "--deep"], &[]);
        match verified.code {
            Some(0) => Ok(()),
            _ => Err(format!("the vault is damaged: {}{}", verified.stdout, verified.stderr)),
        }
    }
}

/// Synchronises both devices until neither has anything left for the other.
fn settle(ground: &Ground, first: Device) {
    for device in order(first) {
        ground.sync(device);
    }
}

fn order(first: Device) -> [Device; 3] {
    let other = if first == LAPTOP { DESKTOP } else { LAPTOP };
    [first, other, first]
}

#[track_caller]
fn in_step(ground: &Ground, scenario: &Scenario) -> Tree {
    let [docs, work] = trees(ground);
    assert!(docs == work, "{}: not in step: {}", scenario.name, tree::differences(&work, &docs));
    docs
}

fn left_in_staging(ground: &Ground, device: Device) -> Vec<String> {
    let stage = ground.home(device.folder).join(".packetboat/stage");
    let entries = fs::read_dir(stage).map(|entries| entries.flatten().collect()).unwrap_or_else(|_| Vec::new());
    entries.iter().map(|entry| entry.file_name().to_string_lossy().into_owned()).collect()
}
