//! Apply: makes this disk show what the view shows.
//!
//! Local changes were absorbed before, so every step only brings to disk what others did. The core's plan says what to do;
//! this carries it out so that a crash at any instant leaves old or new, and the next round goes on from there:
//!
//! - content is written and made durable in staging, and comes to its place by one rename ([`batch`]);
//! - what is replaced or removed is looked at again after it was taken away, and once more before it is given up
//!   ([`place`], [`remove`]): a write that slipped in becomes a file of its own and is never lost;
//! - the index records after the disk is durable, so that what it says is there is there;
//! - what a crash leaves in staging is told apart by records made before the rename ([`records`], [`recover`]).
//!
//! A step that cannot be taken leaves its item touched and stops nothing else. Nothing here decides what is to be seen.

use std::collections::{BTreeMap, BTreeSet, HashMap, HashSet};

use packetboat_core::ids::{DeviceId, Dot, ItemId};
use packetboat_core::local::{DirId, LocalEntry};
use packetboat_core::name::{Name, RelPath};
use packetboat_core::plan::{Cause, Plan, Planned, Step, plan};
use packetboat_core::store::Store;
use packetboat_core::tree::TreeWrite;
use packetboat_core::view::{Shown, ViewRead, Viewer};
use packetboat_replica::fs::Fs;
use packetboat_replica::index::Index;

use crate::Keys;
use crate::chunk_source::ReadState;
use crate::error::SyncError;
use crate::ignore_rules::IgnoreRules;
use crate::ports::{Note, Observer, Phase};
use crate::replica::{self, Received};

pub(crate) use disk::fatal as disk_failed;
pub(crate) use recover::{all_is_recorded, recover_staging, was_cut_short};
pub(crate) use unignored::{any_unignored, touch_unignored};

/// What applying needs.
pub(crate) struct Apply<'a> {
    /// The disk.
    pub(crate) fs: &'a dyn Fs,
    /// What is known of vault and disk; no transaction is open.
    pub(crate) index: &'a mut Index,
    /// Where content comes from.
    pub(crate) store: &'a dyn Store,
    /// The vault's keys and this device's.
    pub(crate) keys: &'a Keys,
    /// What is left alone.
    pub(crate) rules: &'a IgnoreRules,
    /// How many threads read from the intermediary.
    pub(crate) threads: usize,
    /// Nanoseconds since 1970 UTC, by the disk's clock.
    pub(crate) now_ns: i64,
    /// Milliseconds since 1970 UTC, by this device's clock.
    pub(crate) now_ms: i64,
    /// How much is done at a time.
    pub(crate) limits: Limits,
}

/// How much is done at a time.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Limits {
    /// Touched items that are planned together.
    pub(crate) items: usize,
    /// Bytes that are staged together.
    pub(crate) bytes: u64,
    /// Bytes of plaintext in memory at a time.
    pub(crate) window: u64,
}

impl Default for Limits {
    fn default() -> Self {
        Self { items: 10_000, bytes: 1 << 30, window: 24 << 20 }
    }
}

/// Brings to disk what others changed, and notes what could not be read at the intermediary.
pub(crate) fn apply(ctx: Apply<'_>, observer: &mut dyn Observer) -> Result<Received, SyncError> {
    let touched = ctx.index.touched_count()?;
    if touched == 0 {
        return Ok(Received::default());
    }
    observer.phase(Phase::Apply, Some(touched), None);
    let label = ctx.index.device_label(&ctx.keys.device.device())?;
    let problems = ctx.index.problems()?.into_iter().map(|problem| (problem.kind, problem.subject)).collect();
    let packets = ReadState::new(observer.interrupt());
    let mut applier = Applier {
        ctx,
        observer,
        label,
        received: Received::default(),
        packets,
        problems,
        met: HashSet::new(),
        given_up: HashSet::new(),
        failed: HashSet::new(),
        parked: HashMap::new(),
        records: Vec::new(),
        dirty: BTreeSet::new(),
        altered: BTreeMap::new(),
        unplaced: HashSet::new(),
        vacated: HashSet::new(),
        late_modes: BTreeMap::new(),
        whole_sync: None,
        staged: 0,
        reconsidered: HashSet::new(),
        adopted: false,
    };
    let result = applier.run();
    if result.is_err() {
        applier.ctx.index.rollback()?;
    }
    if matches!(result, Err(SyncError::DiskFull)) {
        // Best effort: what is left is cleared away before the next scan.
        let _ = recover::make_room(applier.ctx.fs, applier.ctx.index);
    }
    result?;
    applier.received.waiting = applier.ctx.index.touched_count()?;
    forget_problems(applier.ctx.index, &applier.met)?;
    crate::wants::note(applier.ctx.index, &applier.packets.damaged, applier.ctx.now_ms)?;
    Ok(applier.received)
}

/// Forgets the problems that nothing is about any more: none of what still waits for this disk met them or belongs there.
///
/// Whatever a problem kept from this disk may be gone from the vault, so that no step is ever taken there.
pub(crate) fn forget_problems(index: &mut Index, met: &HashSet<(String, Vec<u8>)>) -> Result<(), SyncError> {
    let mut problems = index.problems()?;
    problems.retain(|problem| {
        [CONTENT, NAME, DISK].contains(&&*problem.kind)
            && !met.contains(&(problem.kind.clone(), problem.subject.clone()))
    });
    if problems.is_empty() {
        return Ok(());
    }
    // A step may wait for another, and then meets nothing itself in this round.
    let waiting = planned_steps(index, usize::MAX)?;
    let awaited: HashSet<Vec<u8>> = waiting
        .iter()
        .flat_map(|step| std::iter::once(&step.path).chain(&step.to))
        .map(|path| path.as_bytes().to_vec())
        .collect();
    index.begin()?;
    for problem in problems.iter().filter(|problem| !awaited.contains(&problem.subject)) {
        index.clear_problem(&problem.kind, &problem.subject)?;
    }
    Ok(index.commit()?)
}

/// What a step does, for a preview.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) enum Action {
    /// Makes a file, directory or symlink.
    Make,
    /// Changes bytes.
    Edit,
    /// Moves or renames.
    Move,
    /// Changes permissions or extended attributes.
    Attributes,
    /// Removes.
    Remove,
}

/// A step that a round would take on this disk.
#[derive(Clone, PartialEq, Eq, Debug)]
pub(crate) struct PlannedStep {
    /// Where the object is, or is to be made.
    pub path: RelPath,
    /// Where it goes, if it moves.
    pub to: Option<RelPath>,
    /// Whether it is a directory.
    pub directory: bool,
    /// What is done.
    pub action: Action,
    /// Why.
    pub cause: Cause,
}

/// The steps that [`apply`] would take now, at most about `limit`; changes nothing.
pub(crate) fn planned_steps(index: &Index, limit: usize) -> Result<Vec<PlannedStep>, SyncError> {
    let mut steps = Vec::new();
    let mut seen = HashSet::new();
    let mut after = None;
    loop {
        let items = index.touched_after(after, PREVIEW_ITEMS)?;
        let Some(last) = items.last() else { return Ok(steps) };
        after = Some(*last);
        let plan = plan(index, &items)?;
        for planned in plan.steps.into_iter().chain(plan.removals) {
            if let Some(step) = preview(index, planned)?
                && seen.insert((step.path.clone(), step.to.clone(), step.action == Action::Remove))
            {
                steps.push(step);
            }
        }
        if steps.len() >= limit {
            return Ok(steps);
        }
    }
}

fn preview(index: &Index, planned: Planned) -> Result<Option<PlannedStep>, SyncError> {
    if let Step::Change { entry, .. } | Step::Remove { entry } = &planned.step
        && crate::paths::is_record_only(entry)
    {
        // Its object is gone from this disk, so nothing can be done to it.
        return Ok(None);
    }
    let viewer = Viewer::new(index);
    let (path, to, directory, action) = match &planned.step {
        Step::Agree { .. } => return Ok(None),
        Step::Make { shown } => {
            (viewer.path_of(shown.parent)?.join(&shown.name), None, shown.content.is_directory(), Action::Make)
        }
        Step::Change { entry, shown, content, place, .. } => {
            let to = if *place { Some(viewer.path_of(shown.parent)?.join(&shown.name)) } else { None };
            let action = match (content, place) {
                (true, _) => Action::Edit,
                (false, true) => Action::Move,
                _ => Action::Attributes,
            };
            (crate::paths::known_path(index, entry)?, to, entry.own_dir.is_some(), action)
        }
        Step::Remove { entry } => {
            (crate::paths::known_path(index, entry)?, None, entry.own_dir.is_some(), Action::Remove)
        }
    };
    Ok(Some(PlannedStep { path, to, directory, action, cause: planned.cause }))
}

/// One run of [`apply`].
struct Applier<'a, 'o> {
    ctx: Apply<'a>,
    observer: &'o mut dyn Observer,
    /// What this device is called, for the names of what slipped in.
    label: String,
    received: Received,
    /// What reading contents keeps from one batch to the next.
    packets: ReadState,
    /// The problems that are recorded.
    problems: HashSet<(String, Vec<u8>)>,
    /// Those that this run met.
    met: HashSet<(String, Vec<u8>)>,
    /// Items whose content cannot be had in this round.
    given_up: HashSet<ItemId>,
    /// Items with a step in the batch in hand that was not taken.
    failed: HashSet<ItemId>,
    /// Where entries went that were moved out of the way.
    parked: HashMap<(DirId, Name), Name>,
    /// What of the batch in hand a crash could leave in staging.
    records: Vec<records::Record>,
    /// Directories whose entries are not durable yet.
    dirty: BTreeSet<RelPath>,
    /// Objects whose attributes changed since they were last made durable, and whether they are directories.
    altered: BTreeMap<RelPath, bool>,
    /// Directories that were made in this batch and whose own place is not durable yet.
    unplaced: HashSet<DirId>,
    /// Names that entries have left and the committed index still has for them.
    vacated: HashSet<(DirId, Name)>,
    /// Directories that get permissions only when nothing more is put in them.
    late_modes: BTreeMap<(DirId, Name), u32>,
    /// Whether the file system can sync all at once, once that was tried.
    whole_sync: Option<bool>,
    /// Counts names in staging.
    staged: u64,
    /// What lies in directories that are made where they were moved: it may have been ignored until now.
    reconsidered: HashSet<ItemId>,
    /// Whether a directory that had stayed for ignored files became one that is to be made, or what is ignored became local.
    adopted: bool,
}

impl Applier<'_, '_> {
    /// Notes a step that was taken, for whoever asked to be told.
    fn tell(&mut self, step: &Step) -> Result<(), SyncError> {
        if !self.observer.wants_steps() {
            return Ok(());
        }
        let index = &*self.ctx.index;
        let by = |dots: &[Dot]| index.device_label(&dots.last().map_or(DeviceId([0; 32]), |dot| dot.device));
        let shown_at = |shown: &Shown| Ok::<_, SyncError>(Viewer::new(index).path_of(shown.parent)?.join(&shown.name));
        let (action, path, to, cause) = match step {
            Step::Make { shown } => {
                (replica::Action::Create, shown_at(shown)?, None, format!("{} wrote it", by(&shown.heads)?))
            }
            Step::Change { shown, content: true, .. } => {
                (replica::Action::Edit, shown_at(shown)?, None, format!("{} wrote it", by(&shown.heads)?))
            }
            Step::Change { entry, shown, place: true, .. } => {
                let (from, to) = (crate::paths::known_path(index, entry)?, shown_at(shown)?);
                (replica::Action::Move, from, Some(to), format!("{} put it there", by(&[shown.placed])?))
            }
            Step::Change { shown, .. } => {
                let cause = "its permissions or attributes were changed".to_owned();
                (replica::Action::Attributes, shown_at(shown)?, None, cause)
            }
            Step::Remove { entry } => {
                let path = crate::paths::known_path(index, entry)?;
                (replica::Action::Delete, path, None, "it was deleted".to_owned())
            }
            Step::Agree { .. } => return Ok(()),
        };
        let direction = replica::Direction::Down;
        self.observer.note(Note::Step(replica::PlannedStep { direction, action, path, to, cause }));
        Ok(())
    }

    fn run(&mut self) -> Result<(), SyncError> {
        for _ in 0..MAX_ROUNDS {
            for _ in 0..MAX_PASSES {
                if !self.pass(Self::make)? {
                    break;
                }
            }
            let mut removed = false;
            for _ in 0..MAX_PASSES {
                if !self.pass(Self::remove)? {
                    break;
                }
                removed = true;
            }
            // A name that a removal freed may be waited for.
            if !removed || self.ctx.index.touched_count()? == 0 {
                break;
            }
        }
        Ok(())
    }

    /// Goes through all touched items once; says whether anything was done.
    fn pass(&mut self, half: fn(&mut Self, Plan) -> Result<bool, SyncError>) -> Result<bool, SyncError> {
        let mut progress = false;
        let mut after = None;
        loop {
            let (items, plan) = {
                let _reading = self.ctx.index.reading()?;
                let (items, last) = self.ctx.index.touched_with_children(after, self.ctx.limits.items)?;
                let Some(last) = last else { return Ok(progress) };
                after = Some(last);
                let plan = plan(&*self.ctx.index, &items)?;
                (items, plan)
            };
            self.failed.clear();
            progress |= !plan.also.is_empty();
            // They are looked at again when this batch is done.
            self.failed.extend(&plan.also);
            crate::conflicts::note_planned(self.ctx.index, &plan)?;
            progress |= half(self, plan)?;
            self.ctx.index.begin()?;
            for item in &items {
                if !self.failed.contains(item) {
                    self.ctx.index.untouch(*item)?;
                }
            }
            let failed = std::mem::take(&mut self.failed);
            for item in failed {
                self.ctx.index.touch(item)?;
            }
            self.ctx.index.commit()?;
        }
    }

    /// Takes the steps that make and change; what is to be removed stays touched.
    fn make(&mut self, plan: Plan) -> Result<bool, SyncError> {
        for removal in &plan.removals {
            self.wait(&removal.step);
        }
        self.take_steps(plan.steps)
    }

    /// Takes the steps that remove; what is still to be made stays touched.
    fn remove(&mut self, plan: Plan) -> Result<bool, SyncError> {
        for planned in &plan.steps {
            self.wait(&planned.step);
        }
        self.take_removals(plan.removals)
    }

    /// Leaves what a step is about for later.
    fn wait(&mut self, step: &Step) {
        let (Step::Make { shown } | Step::Change { shown, .. } | Step::Agree { shown, .. }) = step else {
            let Step::Remove { entry } = step else { unreachable!("the others have something shown") };
            self.failed.insert(entry.seen.item);
            return;
        };
        self.failed.insert(shown.item);
        if let Step::Change { entry, .. } | Step::Agree { entry, .. } = step {
            self.failed.insert(entry.seen.item);
        }
    }

    /// Records that something could not be done, and tells.
    fn problem(&mut self, kind: &str, path: &RelPath, text: &str) -> Result<(), SyncError> {
        self.ctx.index.set_problem(kind, path.as_bytes(), text)?;
        self.met.insert((kind.to_owned(), path.as_bytes().to_vec()));
        if self.problems.insert((kind.to_owned(), path.as_bytes().to_vec())) {
            self.observer.note(Note::Skipped { path: path.clone(), reason: text.to_owned() });
        }
        Ok(())
    }

    /// Forgets the problems of a path at which a step was taken.
    fn no_problem(&mut self, path: &RelPath) -> Result<(), SyncError> {
        if self.problems.is_empty() {
            return Ok(());
        }
        for kind in [CONTENT, NAME, DISK, IGNORED] {
            if self.problems.remove(&(kind.to_owned(), path.as_bytes().to_vec())) {
                self.ctx.index.clear_problem(kind, path.as_bytes())?;
            }
        }
        Ok(())
    }

    fn interrupted(&self) -> Result<(), SyncError> {
        if self.observer.interrupted() { Err(SyncError::Interrupted) } else { Ok(()) }
    }

    /// Where an entry of the plan stands now.
    fn current(&self, entry: &LocalEntry) -> (DirId, Name) {
        let place = (entry.dir, entry.name.clone());
        match self.parked.get(&place) {
            Some(name) => (DirId::STAGING, name.clone()),
            None => place,
        }
    }
}

const CONTENT: &str = "content";
const NAME: &str = "name";
const DISK: &str = "disk";
pub(crate) const IGNORED: &str = "ignored";
/// The same by item, which is known by this wherever its directory goes; not shown to people.
pub(crate) const IGNORED_ITEM: &str = "ignored item";
/// How often a pass is repeated at most while it gets anything done.
const MAX_PASSES: usize = 64;
/// How often making and removing alternate at most.
const MAX_ROUNDS: usize = 4;
/// Items planned together for a preview.
const PREVIEW_ITEMS: usize = 2_000;

mod batch;
mod disk;
mod place;
mod records;
mod recover;
mod remove;
#[cfg(test)]
mod tests;
mod unignored;
