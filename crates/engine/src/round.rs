//! One round: learn, scan, store, publish, apply.
//!
//! What others did is learned first, so that a local change meets it on this device. Local changes are published before
//! anything is brought to disk, so what a user wrote is safe before it could be in the way.
//! Every part can be cut short at any instant; the next round goes on from what was recorded.

use std::collections::{BTreeSet, HashSet};

use packetboat_core::ids::Dot;
use packetboat_core::plan::Cause;
use packetboat_core::store::{Listed, ObjectName, Put, Store, StoreError};
use packetboat_core::view::ViewRead;
use packetboat_core::wanted::Wanted;
use packetboat_storage::chunker::Boundaries;

use crate::absorb::{Sent, absorb, make_durable};
use crate::apply::{self, Apply};
use crate::builder::{Builder, RoundChunks, Totals, Uploader};
use crate::conflicts::CANDIDATE;
use crate::error::SyncError;
use crate::forks;
use crate::ignore_rules::IgnoreRules;
use crate::learn::{OwnLane, learn};
use crate::needed;
use crate::numbering::{self, Numbering};
use crate::ports::{Interrupt, Note, Observer, Phase};
use crate::prepare::Preparer;
use crate::publish::{Published, publish, write_tip};
use crate::repair::Repaired;
use crate::replica::{Action, Direction, Parts, PlannedStep, Received, Replica, Report, SyncOptions};
use crate::scan::{Portions, ScanError, Scanned, Skip, disk_time, scan};
use crate::unread;
use crate::wants;

impl Replica {
    /// Brings folder and vault in step.
    pub fn sync(&mut self, options: SyncOptions, observer: &mut dyn Observer) -> Result<Report, SyncError> {
        let mut report = self.round_with_room(options, observer)?;
        for _ in 0..MAX_RENEWALS {
            if report.sent.renewed == 0 {
                break;
            }
            // Whoever synchronises once and leaves has published what is new, however deep it lies in what was let go.
            report = together(&report, self.round_with_room(options, observer)?);
        }
        Ok(report)
    }

    fn round_with_room(&mut self, options: SyncOptions, observer: &mut dyn Observer) -> Result<Report, SyncError> {
        let mut result = self.round(options, observer);
        if result.is_err() {
            self.undo_uncommitted()?;
        }
        // What is past its time goes before what somebody wrote today is refused.
        if matches!(result, Err(SyncError::Store(StoreError::Full))) && self.make_room(observer)? {
            result = self.round(options, observer);
            if result.is_err() {
                self.undo_uncommitted()?;
            }
        }
        result
    }

    fn round(&mut self, options: SyncOptions, observer: &mut dyn Observer) -> Result<Report, SyncError> {
        self.refuse_if_revoked()?;
        let now_ns = self.now_ns();
        apply::recover_staging(&*self.parts.fs, &mut self.parts.index, now_ns)?;
        observer.phase(Phase::Learn, None, None);
        let mut learned = self.learn(observer)?;
        self.refuse_if_removed(&learned)?;
        if self.is_to_come_back(&learned)? {
            learned = self.come_back(&learned, observer)?;
        }
        if self.yield_to_others(observer)? {
            return self.round(options, observer);
        }
        self.note_damage(&learned.damaged)?;
        match learned.own {
            OwnLane::Ahead => {
                let why = "this device's record is older than what it published";
                self.go_on_as_new_device(why, observer)?;
                learned.own = OwnLane::AsLeft;
            }
            OwnLane::Forked => {
                self.begin_again_as_new_device(observer)?;
                learned = self.learn(observer)?;
            }
            OwnLane::AsLeft | OwnLane::Behind => {}
        }
        self.refuse_if_removed(&learned)?;
        self.introduce()?;
        let mut forked = forks::suspected(&self.parts.index)?;
        forked.extend(self.carry(observer)?);
        if self.settle_forks(&forked, observer)? {
            return self.round(options, observer);
        }
        self.salvage(observer)?;
        self.renew_leaked_key(observer)?;
        self.retire_the_unheard_of(observer)?;
        let mut report =
            Report { packets_learned: learned.packets, rolled_back: learned.rolled_back, ..Report::default() };
        let rules = self.rules(observer)?;
        self.note_rules(&rules)?;
        let started = self.parts.clock.now_ms();
        let portions = Portions::of(&self.parts.index, self.parts.settings.portion)?;
        let mut scanned = match &portions {
            Some(portions) => self.scan_with(observer, |parts| {
                portions.first(&*parts.fs, &parts.index, &rules, parts.settings.threads)
            })?,
            None => self.scan(&rules, observer)?,
        };
        if options.confirm_deletes {
            scanned.withheld = None;
        }
        self.brake(&scanned, options)?;
        let (withheld, mut unread) = (scanned.withheld.is_some(), scanned.unread.clone());
        report.count(&scanned);
        if scanned.numbering == Numbering::Renewed {
            // Whatever this round cannot look at must not be taken for what has its former number now.
            self.parts.index.forget_directory_numbers()?;
        }
        let mut rest = std::mem::take(&mut scanned.rest);
        (report.sent, report.published) = self.absorb(scanned, observer)?;
        while let Some(portions) = portions.as_ref().filter(|_| !rest.is_empty()) {
            let mut scanned = self.scan_with(observer, |parts| {
                portions.next(&*parts.fs, &parts.index, &rules, parts.settings.threads, rest)
            })?;
            report.count(&scanned);
            unread.extend(scanned.unread.iter().cloned());
            rest = std::mem::take(&mut scanned.rest);
            let (sent, published) = self.absorb(scanned, observer)?;
            report.sent += sent;
            report.published += published;
        }
        apply::all_is_recorded(&mut self.parts.index)?;
        numbering::remember(&*self.parts.fs, &mut self.parts.index)?;
        if !withheld {
            // Counted from when the scan began: what was moved since may have been listed where it was.
            let since_ms = self.parts.clock.now_ms().abs_diff(started);
            unread::remember(&*self.parts.fs, &mut self.parts.index, &unread, since_ms)?;
        }
        self.acknowledge()?;
        self.answer()?;
        let moved = learned.tips > 0 || learned.packets > 0;
        let went_back = learned.own == OwnLane::Behind || !report.rolled_back.is_empty();
        report.repaired = self.mend(moved, went_back, observer)?;
        report.merged = self.merge_by_patterns(observer)?;
        let again = learned.own == OwnLane::Behind;
        if self.publish(again)? == Published::Forked {
            // The other side of the fork appeared after this round had learned. What this side folded of its own is
            // nowhere else, so the disk is compared with the vault anew, and what differs is published under a new key.
            self.begin_again_as_new_device(observer)?;
            return self.round(options, observer);
        }
        apply::touch_unignored(&mut self.parts.index, &rules)?;
        report.received = self.apply(&rules, observer)?;
        self.tell_wanted()?;
        if learned.is_unreadable {
            // What others hold waits, and nobody is to begin from what this device takes for the vault.
            report.received.waiting += 1;
        } else {
            self.checkpoint(observer)?;
        }
        self.keep_marker(observer)?;
        self.prune_after_round(observer)?;
        report.conflicts = self.count_conflicts()?;
        let problems = self.parts.index.problems()?;
        report.problems += problems
            .iter()
            .filter(|problem| ![CANDIDATE, apply::IGNORED, apply::IGNORED_ITEM].contains(&&*problem.kind))
            .count() as u64;
        if report.received.waiting == 0 && report.sent.postponed == 0 {
            let now = self.parts.clock.now_ms();
            self.parts.index.set_meta(LAST_IN_STEP, Some(&now.to_le_bytes()))?;
        }
        self.check_consistency(&rules)?;
        report.state = self.state();
        Ok(report)
    }

    /// What a round would do; packets of others are learned, nothing else is changed.
    pub fn dry_run(&mut self, observer: &mut dyn Observer) -> Result<Vec<PlannedStep>, SyncError> {
        observer.phase(Phase::Learn, None, None);
        self.learn(observer)?;
        self.plan_as_known(None, observer)
    }

    /// What a round would do about what was scanned, if nothing more were to be learned; nothing is changed.
    pub(crate) fn plan_scanned(
        &mut self,
        scanned: Scanned,
        observer: &mut dyn Observer,
    ) -> Result<Vec<PlannedStep>, SyncError> {
        self.plan_as_known(Some(scanned), observer)
    }

    fn plan_as_known(
        &mut self,
        scanned: Option<Scanned>,
        observer: &mut dyn Observer,
    ) -> Result<Vec<PlannedStep>, SyncError> {
        let mut recorder = Recorder { inner: observer, steps: Vec::new() };
        let planned = self.plan_round(scanned, &mut recorder);
        self.undo_uncommitted()?;
        let mut steps = recorder.steps;
        steps.extend(planned?);
        Ok(steps)
    }

    fn plan_round(
        &mut self,
        scanned: Option<Scanned>,
        recorder: &mut Recorder<'_>,
    ) -> Result<Vec<PlannedStep>, SyncError> {
        let rules = self.rules(recorder)?;
        self.parts.index.begin()?;
        self.plan_within(scanned, &rules, recorder)
    }

    /// Undoes what a part that failed left open. Else all that follows would be part of it, and undone with it one day.
    pub(crate) fn undo_uncommitted(&mut self) -> Result<(), SyncError> {
        while self.parts.index.in_transaction() {
            self.parts.index.rollback()?;
        }
        self.reload_keys()
    }

    fn plan_within(
        &mut self,
        scanned: Option<Scanned>,
        rules: &IgnoreRules,
        recorder: &mut Recorder<'_>,
    ) -> Result<Vec<PlannedStep>, SyncError> {
        let scanned = match scanned {
            Some(scanned) => scanned,
            None => self.scan(rules, recorder)?,
        };
        let store = std::mem::replace(&mut self.parts.store, std::sync::Arc::new(Nowhere));
        let absorbed = self.absorb(scanned, recorder);
        self.parts.store = store;
        absorbed?;
        apply::touch_unignored(&mut self.parts.index, rules)?;
        self.planned_down(rules)
    }

    /// The steps that would bring the view to disk, in words.
    fn planned_down(&self, rules: &IgnoreRules) -> Result<Vec<PlannedStep>, SyncError> {
        let index = &self.parts.index;
        let by = |dot: &Dot| index.device_label(&dot.device);
        let mut steps = Vec::new();
        for step in apply::planned_steps(index, usize::MAX)? {
            let ignored = rules.covers(step.to.as_ref().unwrap_or(&step.path), step.directory);
            let cause = match &step.cause {
                _ if ignored => "a rule ignores it".to_owned(),
                Cause::Content(dot) => format!("{} wrote it", by(dot)?),
                Cause::Placement(dot) => format!("{} put it there", by(dot)?),
                Cause::Attributes => "its permissions or attributes were changed".to_owned(),
                Cause::Conflict(dot) => format!("{} wrote it while somebody else wrote something else", by(dot)?),
                Cause::Deleted(Some(dot)) => format!("{} deleted it", by(dot)?),
                Cause::Deleted(None) => "it was deleted".to_owned(),
                Cause::Merged => "the same is shown in its place".to_owned(),
                Cause::Recorded => "only the record changes".to_owned(),
            };
            let action = match step.action {
                _ if ignored => Action::Ignore,
                apply::Action::Make => Action::Create,
                apply::Action::Edit => Action::Edit,
                apply::Action::Move => Action::Move,
                apply::Action::Attributes => Action::Attributes,
                apply::Action::Remove => Action::Delete,
            };
            let direction = if ignored { Direction::Stay } else { Direction::Down };
            steps.push(PlannedStep { direction, action, path: step.path, to: step.to, cause });
        }
        Ok(steps)
    }

    pub(crate) fn learn(&mut self, observer: &mut dyn Observer) -> Result<crate::learn::Learned, SyncError> {
        loop {
            let parts = &mut self.parts;
            let learned = learn(&mut parts.index, &*parts.store, &mut self.keys, &parts.place, observer)?;
            if !self.is_to_learn_anew()? {
                let parts = &mut self.parts;
                needed::learn(&mut parts.index, &*parts.store, &self.keys.ring)?;
                return Ok(learned);
            }
        }
    }

    pub(crate) fn scan(&mut self, rules: &IgnoreRules, observer: &mut dyn Observer) -> Result<Scanned, SyncError> {
        self.scan_with(observer, |parts| scan(&*parts.fs, &parts.index, rules, parts.settings.threads))
    }

    fn scan_with(
        &mut self,
        observer: &mut dyn Observer,
        scan: impl FnOnce(&Parts) -> Result<Scanned, ScanError>,
    ) -> Result<Scanned, SyncError> {
        observer.phase(Phase::Scan, None, None);
        let parts = &mut self.parts;
        let mut scanned = scan(parts)?;
        unread::withhold(&*parts.fs, &parts.index, &mut scanned)?;
        for (path, skip) in &scanned.skipped {
            observer.note(Note::Skipped { path: path.clone(), reason: skip.reason() });
        }
        Ok(scanned)
    }

    /// Stops a round that would publish the removal of most of the folder.
    fn brake(&self, scanned: &Scanned, options: SyncOptions) -> Result<(), SyncError> {
        match self.many_gone(scanned)? {
            Some((gone, known)) if !options.confirm_deletes => Err(SyncError::ManyGone { gone, known }),
            _ => Ok(()),
        }
    }

    /// Where most of the folder is gone: how many objects, and of how many.
    pub(crate) fn many_gone(&self, scanned: &Scanned) -> Result<Option<(u64, u64)>, SyncError> {
        let gone = scanned.vanished.len() as u64;
        if gone < BRAKE_LEAST || scanned.withheld.is_some() {
            return Ok(None);
        }
        let known = self.parts.index.count_entries()?;
        Ok((gone * 2 > known).then_some((gone, known)))
    }

    pub(crate) fn absorb(
        &mut self,
        scanned: Scanned,
        observer: &mut dyn Observer,
    ) -> Result<(Sent, Totals), SyncError> {
        if scanned.is_quiet() {
            let postponed = scanned.awaits_rules.into();
            return Ok((Sent { postponed, ..Sent::default() }, Totals::default()));
        }
        let (files, bytes) = scanned.work();
        observer.phase(Phase::Store, Some(files), Some(bytes));
        make_durable(&*self.parts.fs, &scanned);
        let now_ns = self.disk_ns();
        let parts = &mut self.parts;
        let stored = parts.index.chunk_lookup(&crate::garbage::referable(&parts.index, &self.keys)?)?;
        let known = RoundChunks::new(stored);
        let boundaries = Boundaries::new(self.keys.ring.chunker_seed());
        let preparer = Preparer { fs: &*parts.fs, ring: &self.keys.ring, boundaries: &boundaries, known: &known };
        let entropy = &mut *parts.entropy;
        let now_ms = parts.clock.now_ms();
        let (threads, inline_limit) = (parts.settings.threads, parts.settings.inline_bytes);
        let (fs, store, index, keys) = (&*parts.fs, &*parts.store, &mut parts.index, &self.keys);
        std::thread::scope(|scope| {
            let uploader = match threads {
                0 | 1 => Uploader::inline(store, &keys.ring),
                _ => Uploader::with_threads(scope, store, &keys.ring),
            };
            let mut builder = Builder::new(index, uploader, keys, now_ms, inline_limit, &known)?;
            match absorb(fs, &preparer, threads, &mut builder, scanned, now_ns, entropy, observer) {
                Ok(sent) => Ok((sent, builder.finish(entropy)?)),
                Err(SyncError::Interrupted) => {
                    // What was read so far is whole; it is published now, and the next round goes on after it.
                    builder.finish(entropy)?;
                    Err(SyncError::Interrupted)
                }
                Err(error) => {
                    builder.abandon();
                    Err(error)
                }
            }
        })
    }

    pub(crate) fn publish(&mut self, again: bool) -> Result<Published, SyncError> {
        self.carry(&mut crate::ports::Silent)?;
        let parts = &mut self.parts;
        let now = parts.clock.now_ms();
        publish(&mut parts.index, &*parts.store, &self.keys, &parts.place, now, again, &mut *parts.entropy)
    }

    /// Notes what could not be read.
    pub(crate) fn note_damage(&mut self, damaged: &BTreeSet<Wanted>) -> Result<(), SyncError> {
        let now = self.parts.clock.now_ms();
        wants::note(&mut self.parts.index, damaged, now)
    }

    /// Tells at once what this round could not read, so that others need not wait for the next.
    fn tell_wanted(&mut self) -> Result<(), SyncError> {
        if !wants::is_untold(&self.parts.index)? {
            return Ok(());
        }
        let parts = &mut self.parts;
        let now = parts.clock.now_ms();
        write_tip(&mut parts.index, &*parts.store, &self.keys, &parts.place, now, &mut *parts.entropy)
    }

    pub(crate) fn apply(&mut self, rules: &IgnoreRules, observer: &mut dyn Observer) -> Result<Received, SyncError> {
        self.parts.index.begin()?;
        apply::touch_unignored(&mut self.parts.index, rules)?;
        self.parts.index.commit()?;
        if self.parts.index.touched_count()? == 0 {
            apply::forget_problems(&mut self.parts.index, &HashSet::new())?;
            return Ok(Received::default());
        }
        let now_ns = self.disk_ns();
        let parts = &mut self.parts;
        let context = Apply {
            fs: &*parts.fs,
            index: &mut parts.index,
            store: &*parts.store,
            keys: &self.keys,
            rules,
            threads: parts.settings.threads,
            now_ns,
            now_ms: parts.clock.now_ms(),
            limits: apply::Limits::default(),
        };
        apply::apply(context, observer)
    }

    pub(crate) fn now_ns(&self) -> i64 {
        self.parts.clock.now_ms().saturating_mul(1_000_000)
    }

    /// The time by the disk's clock, or by this device's where the disk cannot be asked.
    pub(crate) fn disk_ns(&self) -> i64 {
        disk_time(&*self.parts.fs).unwrap_or_else(|| self.now_ns())
    }
}

impl Report {
    /// Counts what a scan, or a portion of one, found.
    fn count(&mut self, scanned: &Scanned) {
        self.objects += scanned.objects;
        let specials = scanned.skipped.iter().filter(|(_, skip)| *skip == Skip::Special).count() as u64;
        self.specials += specials;
        self.problems += scanned.skipped.len() as u64 - specials;
    }
}

impl Skip {
    /// In words.
    pub fn reason(&self) -> String {
        match self {
            Skip::Special => "sockets, pipes and devices are not synchronised".to_owned(),
            Skip::Unreadable(reason) => format!("it cannot be read: {reason}"),
            Skip::Name => "its path is too long".to_owned(),
            Skip::Emptied => "it became empty without a new time, as after a power loss; \
                              touch it to say that it is meant, or restore it"
                .to_owned(),
            Skip::AwaitedRules => {
                "it is gone or empty, perhaps only for the moment of a save: its last rules hold in this \
                                   round, and if the next finds it so too, that is meant"
                    .to_owned()
            }
        }
    }
}

/// Takes down the steps of a dry run.
struct Recorder<'a> {
    inner: &'a mut dyn Observer,
    steps: Vec<PlannedStep>,
}

impl Observer for Recorder<'_> {
    fn phase(&mut self, phase: Phase, files: Option<u64>, bytes: Option<u64>) {
        self.inner.phase(phase, files, bytes);
    }
    fn advance(&mut self, files: u64, bytes: u64) {
        self.inner.advance(files, bytes);
    }
    fn note(&mut self, note: Note) {
        match note {
            Note::Step(step) => self.steps.push(step),
            Note::Skipped { path, reason } => self.steps.push(PlannedStep {
                direction: Direction::Stay,
                action: Action::Skip,
                path,
                to: None,
                cause: reason,
            }),
            note => self.inner.note(note),
        }
    }
    fn wants_steps(&self) -> bool {
        true
    }
    fn interrupt(&self) -> Interrupt {
        self.inner.interrupt()
    }
    fn interrupted(&self) -> bool {
        self.inner.interrupted()
    }
}

/// Takes what a dry run would store, and keeps nothing.
struct Nowhere;

impl Store for Nowhere {
    fn describe(&self) -> String {
        "nowhere".to_owned()
    }
    fn put_new(&self, _: &ObjectName, _: &[u8]) -> Result<Put, StoreError> {
        Ok(Put::Stored)
    }
    fn put(&self, _: &ObjectName, _: &[u8]) -> Result<(), StoreError> {
        Ok(())
    }
    fn get(&self, name: &ObjectName, _: u64) -> Result<Vec<u8>, StoreError> {
        Err(StoreError::Missing { name: name.clone() })
    }
    fn get_range(&self, name: &ObjectName, _: u64, _: u64) -> Result<Vec<u8>, StoreError> {
        Err(StoreError::Missing { name: name.clone() })
    }
    fn list(&self, _: &str) -> Result<Vec<Listed>, StoreError> {
        Ok(Vec::new())
    }
    fn delete(&self, _: &ObjectName) -> Result<(), StoreError> {
        Ok(())
    }
}

/// What two rounds did together; what is left, and how all stands, the second says.
pub(crate) fn together(first: &Report, second: Report) -> Report {
    let (a, b) = (&first.sent, &second.sent);
    let sent = Sent {
        created: a.created + b.created,
        edited: a.edited + b.edited,
        moved: a.moved + b.moved,
        deleted: a.deleted + b.deleted,
        attributes: a.attributes + b.attributes,
        agreed: a.agreed + b.agreed,
        bytes_read: a.bytes_read + b.bytes_read,
        postponed: b.postponed,
        renewed: b.renewed,
    };
    let (a, b) = (&first.received, &second.received);
    let received = Received {
        created: a.created + b.created,
        edited: a.edited + b.edited,
        moved: a.moved + b.moved,
        deleted: a.deleted + b.deleted,
        attributes: a.attributes + b.attributes,
        conflicts: a.conflicts + b.conflicts,
        bytes_written: a.bytes_written + b.bytes_written,
        waiting: b.waiting,
    };
    let (a, b) = (&first.published, &second.published);
    let published = Totals { packets: a.packets + b.packets, packs: a.packs + b.packs, changes: a.changes + b.changes };
    let (a, b) = (&first.repaired, &second.repaired);
    let repaired = Repaired {
        packets: a.packets + b.packets,
        chunks: a.chunks + b.chunks,
        checkpoints: a.checkpoints + b.checkpoints,
    };
    let mut rolled_back = first.rolled_back.clone();
    rolled_back.extend(second.rolled_back.iter().filter(|device| !first.rolled_back.contains(device)));
    Report {
        sent,
        received,
        published,
        packets_learned: first.packets_learned + second.packets_learned,
        repaired,
        merged: first.merged + second.merged,
        rolled_back,
        ..second
    }
}

/// The entries of this replica's index that record when it was last in step.
pub(crate) const LAST_IN_STEP: &str = "last in step";
/// So many rounds follow at most one in which something was renewed: each goes one directory up.
const MAX_RENEWALS: usize = 16;
const BRAKE_LEAST: u64 = 20;
