//! Status: how a replica stands, without changing anything but what was learned.
//!
//! What others published is learned, because folding needs no disk; the folder is scanned; the rest is counted.
//! Small local changes are looked at as a round would, so that a touched file does not count; where much changed,
//! what the scan shows is counted instead, so that asking stays cheap. An intermediary out of reach is no error.

use std::collections::HashSet;

use packetboat_core::ids::Dot;
use packetboat_core::name::RelPath;
use packetboat_replica::fs::FileKind;

use crate::apply::IGNORED_ITEM;
use crate::apply::any_unignored;
use crate::conflicts::CANDIDATE;
use crate::error::{SyncError, chain};
use crate::ignore_rules::IgnoreRules;
use crate::ports::Silent;
use crate::replica::{Action, Direction, PlannedStep, Replica, Status};
use crate::round::LAST_IN_STEP;
use crate::scan::{Scanned, Skip};
use crate::wants;

impl Replica {
    /// How this replica stands; reads the tips at the intermediary and scans the folder.
    pub fn status(&mut self) -> Result<Status, SyncError> {
        let reachable = match self.learn(&mut Silent) {
            Ok(_) => Ok(()),
            Err(SyncError::Store(error)) => Err(chain(&error)),
            Err(error) => return Err(error),
        };
        let rules = self.rules(&mut Silent)?;
        let mut scanned = self.scan(&rules, &mut Silent)?;
        let braked = self.many_gone(&scanned)?;
        // What was recorded just after it was written is looked into, as another write may have gone unseen; the largest
        // of it is not, so that asking stays cheap.
        scanned.trust_the_largest(MUCH);
        let (skipped, objects) = (scanned.skipped.clone(), scanned.objects);
        let mut left = Vec::new();
        let (mut to_send, to_receive) = if scanned.is_quiet() && !any_unignored(&self.parts.index, &rules)? {
            (0, self.waiting_here(&rules)?)
        } else if scanned.work().1 <= MUCH {
            let steps = self.plan_scanned(scanned, &mut Silent)?;
            left = left_by(&steps, &skipped);
            (count(&steps, Direction::Up) + left.len() as u64, count(&steps, Direction::Down))
        } else {
            (changes_seen(&scanned), self.waiting_here(&rules)?)
        };
        to_send += self.unpublished()?;
        let conflicts = self.count_conflicts()?;
        let size = self.size()?;
        let index = &self.parts.index;
        let device = self.keys.device.device();
        let problems =
            index.problems()?.into_iter().filter(|problem| ![CANDIDATE, IGNORED_ITEM].contains(&&*problem.kind));
        let mut problems: Vec<_> = problems
            .map(|problem| (problem.kind, String::from_utf8_lossy(&problem.subject).into_owned(), problem.text))
            .collect();
        problems.extend(skipped.iter().map(|(path, skip)| ("skipped".to_owned(), path.to_string(), skip.reason())));
        problems.extend(left);
        let last_in_step = index.meta(LAST_IN_STEP)?.and_then(|time| Some(i64::from_le_bytes(time.try_into().ok()?)));
        Ok(Status {
            vault: self.vault(),
            device,
            device_name: self.device_name()?,
            intermediary: self.parts.store.describe(),
            in_step: reachable.is_ok() && to_send == 0 && to_receive == 0,
            intermediary_reachable: reachable,
            last_in_step,
            to_send,
            to_receive,
            conflicts,
            objects,
            problems,
            wanted: wants::own(index)?.len() as u64,
            braked,
            devices: self.devices()?,
            state: self.state(),
            retention: self.retention()?,
            size,
        })
    }

    /// Steps that a round would take on this disk, local changes aside.
    fn waiting_here(&self, rules: &IgnoreRules) -> Result<u64, SyncError> {
        let steps = crate::apply::planned_steps(&self.parts.index, usize::MAX)?;
        let taken = steps.iter().filter(|step| !rules.covers(step.to.as_ref().unwrap_or(&step.path), step.directory));
        Ok(taken.count() as u64)
    }

    /// Changes in packets that the intermediary does not have yet.
    fn unpublished(&self) -> Result<u64, SyncError> {
        let index = &self.parts.index;
        let device = self.keys.device.device();
        let last = index.knowledge().counter(&device);
        let mut changes = 0;
        for counter in index.published(&self.parts.place)? + 1..=last {
            if let Some(folded) = index.packet_row(Dot { device, counter })?.and_then(|row| row.folded) {
                let summary = folded.summary;
                let counts = [summary.created, summary.edited, summary.moved, summary.deleted, summary.attributes];
                // One that is about devices counts as one.
                changes += counts.iter().map(|count| u64::from(*count)).sum::<u64>().max(1);
            }
        }
        Ok(changes)
    }
}

fn count(steps: &[PlannedStep], direction: Direction) -> u64 {
    steps.iter().filter(|step| step.direction == direction).count() as u64
}

/// What a round would leave for the next, beyond what the scan left alone: it cannot be read, or it is being written.
fn left_by(steps: &[PlannedStep], skipped: &[(RelPath, Skip)]) -> Vec<(String, String, String)> {
    let known: HashSet<_> = skipped.iter().map(|(path, _)| path).collect();
    let left = steps.iter().filter(|step| step.action == Action::Skip && !known.contains(&step.path));
    left.map(|step| ("waits".to_owned(), step.path.to_string(), step.cause.clone())).collect()
}

/// About how many changes a round would publish, by what `stat` tells.
fn changes_seen(scanned: &Scanned) -> u64 {
    let suspects = scanned.suspects.iter().filter(|suspect| suspect.stat.kind != FileKind::Directory).count();
    (suspects + scanned.arrivals.len() + scanned.vanished.len()) as u64
}

/// Changed files of more than this many bytes in all are counted and not read.
const MUCH: u64 = 32 * 1024 * 1024;
