//! Letting go: of history that is older than the vault keeps it, and of packs that hold little or nothing in use.
//!
//! A device finds out what may go (`in_use`), stores anew what it would take along (`repack`), writes the checkpoint at
//! which history is to begin, and condemns the rest in one packet. What was condemned before and is answered by all, it
//! deletes (`carry_out`). Nothing here waits: whoever has not answered is named, and a later run goes on.
//!
//! Condemned are only packs of which everybody who is waited for has heard, by a replica that has folded every packet since
//! history begins: one that began from a checkpoint does not know what past versions need.
//!
//! The run after a round is the same with less: at most once a day, and history only where a good piece of it goes.

mod anew;
mod carry_out;
mod in_use;
pub(crate) mod present;
mod repack;
mod size;
mod superseded;
mod sweep;

use std::collections::BTreeSet;

use packetboat_core::change::Change;
use packetboat_core::content::PackIndex;
use packetboat_core::garbage::Retention;
use packetboat_core::ids::{DeviceId, Dot, PackId};
use packetboat_core::knowledge::Knowledge;
use packetboat_core::tree::Summary;
use packetboat_core::wanted::Wanted;
use packetboat_replica::index::{FoldedPacket, Index, PackState, PackUse};

use crate::builder::{Draft, seal_own};
use crate::checkpoints::{self, held};
use crate::error::SyncError;
use crate::garbage::{self, Standing};
use crate::learn::OwnLane;
use crate::past::index_at;
use crate::places;
use crate::ports::{Note, Observer};
use crate::publish::Published;
use crate::replica::{At, Replica};
use crate::telling::tell_all_but_the_last;
use crate::wants;

use carry_out::Deleted;
use in_use::{Beginning, in_use};
use repack::Repacking;
pub use size::VaultSize;
use superseded::Superseded;

/// What is to be let go.
#[derive(Clone, Copy, Default, Debug)]
pub struct PruneOptions {
    /// How long the vault keeps its past from now on; none to leave that as it is.
    pub keep: Option<Retention>,
    /// Only find out what would go.
    pub dry_run: bool,
}

/// What was let go, or would be.
#[derive(Clone, Default, Debug)]
pub struct PruneReport {
    /// How long the vault keeps its past.
    pub retention: Retention,
    /// Packets of history that are condemned now, and their bytes.
    pub packets: u64,
    /// Bytes of these packets.
    pub packet_bytes: u64,
    /// Packs that are condemned now, and among them those whose contents in use were stored anew.
    pub packs: u64,
    /// Packs of these whose contents in use are stored anew.
    pub repacked: u64,
    /// Bytes of the condemned packs, less what is stored anew.
    pub pack_bytes: u64,
    /// Objects that were deleted, condemned now or before.
    pub deleted: u64,
    /// Their bytes, as far as they are known.
    pub deleted_bytes: u64,
    /// Devices that have not answered yet: what is condemned waits for them.
    pub waiting_for: Vec<String>,
    /// Why less went than could.
    pub notes: Vec<String>,
}

/// History that is to go.
struct Cut {
    past: Index,
    packets: u64,
    bytes: u64,
}

/// How much some packets are.
#[derive(Default)]
struct Extent {
    packets: u64,
    bytes: u64,
    /// Whether one of them changes an item. Others speak of devices and of garbage: each run makes some, and if these were
    /// history worth a checkpoint, letting go would never come to an end.
    changes_items: bool,
}

/// Packs that are to go.
#[derive(Default)]
struct Choice {
    unused: Vec<PackUse>,
    wasteful: Vec<PackUse>,
}

impl Choice {
    /// The packs that hold what is in use of those that go.
    fn relied_on(&self) -> BTreeSet<PackId> {
        self.unused.iter().chain(&self.wasteful).flat_map(|pack| &pack.relied_on).copied().collect()
    }
}

impl Replica {
    /// Lets go what the vault does not keep, and deletes what everybody has let go.
    pub fn prune(&mut self, options: PruneOptions, observer: &mut dyn Observer) -> Result<PruneReport, SyncError> {
        self.refuse_if_revoked()?;
        let learned = self.learn(observer)?;
        self.refuse_if_removed(&learned)?;
        if matches!(learned.own, OwnLane::Ahead | OwnLane::Forked) || self.is_to_come_back(&learned)? {
            let notes = vec!["this device is about to go on as a new one: synchronise first".to_owned()];
            return Ok(PruneReport { retention: self.retention()?, notes, ..PruneReport::default() });
        }
        let result = self.prune_as_learned(options, Reach::Asked, observer);
        if result.is_err() {
            self.undo_uncommitted()?;
        }
        result
    }

    /// How long the vault keeps its past.
    pub fn retention(&self) -> Result<Retention, SyncError> {
        Ok(garbage::load(&self.parts.index)?.retention())
    }

    /// Makes an empty packet where this device owes an answer and had nothing else to say.
    pub(crate) fn answer(&mut self) -> Result<(), SyncError> {
        let index = &mut self.parts.index;
        let record = garbage::load(index)?;
        let owes = record.standing().next().is_some()
            && Standing::load(index, self.keys.device.device())?.owes_an_answer(&record);
        if owes {
            index.begin()?;
            self.seal(Vec::new())?;
            self.parts.index.commit()?;
        }
        Ok(())
    }

    /// What a round does of this: its own condemnations that are answered by now, and once a day all of it.
    ///
    /// An intermediary that fails meanwhile ends no round.
    pub(crate) fn prune_after_round(&mut self, observer: &mut dyn Observer) -> Result<(), SyncError> {
        let result = self.prune_by_itself(observer);
        match result {
            Err(error @ (SyncError::Store(_) | SyncError::NoBase | SyncError::HistoryEnds)) => {
                self.undo_uncommitted()?;
                let text = format!("nothing was let go: {}", crate::error::chain(&error));
                observer.note(Note::Warning { text });
                Ok(())
            }
            result => result,
        }
    }

    fn prune_by_itself(&mut self, observer: &mut dyn Observer) -> Result<(), SyncError> {
        let now = self.parts.clock.now_ms();
        let last = self.parts.index.meta(LAST_RUN)?.and_then(|time| time.try_into().ok()).map(i64::from_le_bytes);
        let is_due = |last: i64| now.abs_diff(last) >= BETWEEN_RUNS_MS && self.parts.settings.lets_go_by_itself;
        match last {
            Some(last) if !is_due(last) => {
                let own = self.keys.device.device();
                self.carry_out_here(|dot| dot.device == own, observer).map(|_| ())
            }
            Some(_) => {
                self.parts.index.set_meta(LAST_RUN, Some(&now.to_le_bytes()))?;
                self.prune_as_learned(PruneOptions::default(), Reach::ByItself, observer).map(|_| ())
            }
            // A vault is a day old before anything in it is.
            None => Ok(self.parts.index.set_meta(LAST_RUN, Some(&now.to_le_bytes()))?),
        }
    }

    fn prune_as_learned(
        &mut self,
        options: PruneOptions,
        reach: Reach,
        observer: &mut dyn Observer,
    ) -> Result<PruneReport, SyncError> {
        let own = self.keys.device.device();
        let before = self.retention()?;
        let retention = options.keep.unwrap_or(before);
        let mut report = PruneReport { retention, ..PruneReport::default() };
        if self.parts.index.knowledge().counter(&own) == 0 {
            report.notes.push("this device has not joined yet: synchronise first".to_owned());
            return Ok(report);
        }
        if !options.dry_run {
            if retention != before {
                self.parts.index.begin()?;
                self.seal(vec![Change::Retain { retention }])?;
                self.parts.index.commit()?;
            }
            self.answer()?;
            if self.publish(false)? == Published::Forked {
                return Ok(report);
            }
            report.add(self.carry_out_here(|_| true, observer)?);
            // It may have met a copy of itself meanwhile: nobody would hear of what it condemns.
            if self.publish(false)? == Published::Forked {
                return Ok(report);
            }
        }
        if places::lie_apart(&self.parts.index)? {
            report.notes.push(APART.to_owned());
        } else if !self.knows_all_history()? {
            let text = "this device joined later and does not know all that past versions need: \
                        packs and history are left to a device that does";
            report.notes.push(text.to_owned());
        } else {
            self.condemn(retention, options.dry_run, reach, &mut report, observer)?;
        }
        if !options.dry_run {
            self.look_at_size(true, observer)?;
            report.add(self.carry_out_here(|_| true, observer)?);
        }
        report.waiting_for = self.silent_devices()?;
        Ok(report)
    }

    /// Deletes what all have answered, but not where the vault lies at two places: what stands in for it may be at the other.
    fn carry_out_here(
        &mut self,
        which: impl Fn(&Dot) -> bool,
        observer: &mut dyn Observer,
    ) -> Result<Deleted, SyncError> {
        let deleted = match places::lie_apart(&self.parts.index)? {
            true => Deleted::default(),
            false => self.carry_out(which, observer)?,
        };
        self.look_for_base_again()?;
        Ok(deleted)
    }

    /// Whether every packet since the beginning of history was folded here.
    fn knows_all_history(&self) -> Result<bool, SyncError> {
        let index = &self.parts.index;
        let begins = garbage::load(index)?.horizon().clone();
        for (device, learned) in index.knowledge().iter() {
            let first = begins.counter(device) + 1;
            let expected = (learned.counter + 1).saturating_sub(first);
            if expected > 0 && index.count_packets(device, first, learned.counter)? < expected {
                return Ok(false);
            }
        }
        Ok(true)
    }

    fn silent_devices(&self) -> Result<Vec<String>, SyncError> {
        let index = &self.parts.index;
        let (record, standing) = (garbage::load(index)?, Standing::load(index, self.keys.device.device())?);
        // What is void is answered by nobody, and nothing waits for it.
        let counting = record.standing().filter(|(_, condemnation)| !condemnation.is_void());
        let silent: BTreeSet<DeviceId> = counting.flat_map(|(dot, _)| standing.silent(dot)).collect();
        let members = crate::members::load(index)?;
        // Two may be called the same, as one whose index was lost and what it was before.
        let name = |device: &DeviceId| {
            let name = members.name(device).unwrap_or("a device");
            match members.iter().filter(|member| member.name == name).count() {
                0 | 1 => name.to_owned(),
                _ => format!("{name} ({})", device.short()),
            }
        };
        Ok(silent.iter().map(name).collect())
    }

    fn condemn(
        &mut self,
        retention: Retention,
        dry_run: bool,
        reach: Reach,
        report: &mut PruneReport,
        observer: &mut dyn Observer,
    ) -> Result<(), SyncError> {
        let mut cut = match retention {
            Retention::Days(days) => self.cut(days, reach, report)?,
            Retention::All | Retention::Versions(_) => None,
        };
        let mut choice = self.choose_packs(retention, cut.as_ref(), report, observer)?;
        while !dry_run && self.note_absent(&choice.relied_on())? {
            choice = self.choose_packs(retention, cut.as_ref(), report, observer)?;
        }
        let parts = &mut self.parts;
        let chosen = || choice.unused.iter().chain(&choice.wasteful);
        report.pack_bytes = chosen().map(|pack| u64::from(pack.size)).sum();
        report.pack_bytes = report.pack_bytes.saturating_sub(choice.wasteful.iter().map(|pack| pack.used).sum());
        (report.packs, report.repacked) = (chosen().count() as u64, choice.wasteful.len() as u64);
        if let Some(cut) = &cut {
            (report.packets, report.packet_bytes) = (cut.packets, cut.bytes);
        }
        if dry_run {
            return Ok(());
        }
        let superseded = Superseded::find(&parts.index, &*parts.store, &self.keys)?;
        if cut.is_none() && report.packs == 0 && superseded.packs.is_empty() {
            report.deleted += superseded.delete_roots(&*parts.store)?;
            return Ok(());
        }
        let mut repacking = Repacking::new(&*parts.store, &self.keys);
        let mut condemned: BTreeSet<PackId> = choice.unused.iter().map(|pack| pack.pack).collect();
        condemned.extend(&superseded.packs);
        let mut unreadable = BTreeSet::new();
        let mut relied_on = choice.relied_on();
        for pack in &choice.wasteful {
            if observer.interrupted() {
                return Err(SyncError::Interrupted);
            }
            if repacking.take(&mut parts.index, pack, &mut *parts.entropy)? {
                condemned.insert(pack.pack);
            } else {
                report.notes.push(format!("pack {} cannot be read and is left as it is", pack.pack.short()));
                unreadable.insert(Wanted::Pack(pack.pack));
            }
        }
        wants::note(&mut parts.index, &unreadable, parts.clock.now_ms())?;
        repacking.put(&mut parts.index, &mut *parts.entropy)?;
        let told = repacking.told;
        let mut history = Knowledge::new();
        if let Some(cut) = &mut cut {
            let (store, entropy) = (&*parts.store, &mut *parts.entropy);
            let keys = &self.keys;
            checkpoints::write_base(&mut parts.index, &mut cut.past, &condemned, store, keys, entropy, observer)?;
            history = cut.past.knowledge().clone();
        }
        if condemned.is_empty() && history.is_empty() {
            report.deleted += superseded.delete_roots(&*parts.store)?;
            return Ok(());
        }
        held::tell(&mut parts.index, relied_on.iter().copied())?;
        relied_on.retain(|pack| !condemned.contains(pack));
        let draft = Draft {
            needs: relied_on.into_iter().collect(),
            packs: Vec::new(),
            inline: Vec::new(),
            changes: vec![Change::Condemn { packs: condemned.into_iter().collect(), history }],
        };
        self.tell_and_condemn(told, draft)?;
        if self.publish(false)? == Published::Done {
            report.deleted += superseded.delete_roots(&*self.parts.store)?;
        }
        Ok(())
    }

    /// Tells of packs and of all of which no packet has told, in several packets where they hold many chunks, and condemns in
    /// the last: one transaction. What is told of is not needed besides.
    fn tell_and_condemn(&mut self, mut told: Vec<PackIndex>, mut draft: Draft) -> Result<(), SyncError> {
        let now = self.parts.clock.now_ms();
        let index = &mut self.parts.index;
        for pack in held::untold(index)? {
            told.extend(index.pack_index(&pack)?);
        }
        draft.needs.retain(|pack| told.iter().all(|told| told.pack != *pack));
        index.begin()?;
        held::all_are_told(index)?;
        for pack in &told {
            index.set_pack_state(&pack.pack, PackState::Stored)?;
        }
        draft.packs = tell_all_but_the_last(index, &self.keys, now, told, &mut *self.parts.entropy)?;
        seal_own(index, &self.keys, now, draft, &mut *self.parts.entropy)?;
        Ok(index.commit()?)
    }

    /// The history that is older than so many days, if there is any to be let go.
    fn cut(&self, days: u32, reach: Reach, report: &mut PruneReport) -> Result<Option<Cut>, SyncError> {
        let parts = &self.parts;
        let until = parts.clock.now_ms().saturating_sub(i64::from(days).saturating_mul(DAY_MS));
        let begins = garbage::load(&parts.index)?.horizon().clone();
        let old = self.extent(&begins, |_, folded| folded.time <= until)?;
        let is_worth_it = old.packets >= LEAST_PACKETS || old.bytes >= LEAST_BYTES;
        if !old.changes_items || reach == Reach::ByItself && !is_worth_it {
            return Ok(None);
        }
        let past = match index_at(&parts.index, &*parts.store, &self.keys, &At::Time(until)) {
            Ok(past) => past,
            Err(SyncError::HistoryEnds) => return Ok(None),
            // What lies after the present beginning cannot be folded, so no later one can be written either.
            Err(SyncError::NoBase) => {
                report
                    .notes
                    .push("the checkpoint at which history begins cannot be read: history is left as it is".to_owned());
                return Ok(None);
            }
            Err(error) => return Err(error),
        };
        // What is older may build on what is younger, where clocks disagree: of that nothing goes.
        let history = past.knowledge().clone();
        let extent = self.extent(&begins, |dot, _| history.contains(dot))?;
        let Extent { packets, bytes, changes_items } = extent;
        Ok(changes_items.then_some(Cut { past, packets, bytes }))
    }

    /// How much these of the packets since the beginning of history are.
    fn extent(&self, begins: &Knowledge, is_one: impl Fn(&Dot, &FoldedPacket) -> bool) -> Result<Extent, SyncError> {
        let mut extent = Extent::default();
        for (device, learned) in self.parts.index.knowledge().iter() {
            for row in self.parts.index.packets(*device, begins.counter(device) + 1, learned.counter)? {
                if let Some(folded) = row.folded.filter(|folded| is_one(&row.dot, folded)) {
                    extent.packets += 1;
                    extent.bytes += row.sealed_bytes.unwrap_or(0);
                    extent.changes_items |= folded.summary != Summary::default();
                }
            }
        }
        Ok(extent)
    }

    fn choose_packs(
        &self,
        retention: Retention,
        cut: Option<&Cut>,
        report: &mut PruneReport,
        observer: &mut dyn Observer,
    ) -> Result<Choice, SyncError> {
        let (index, store) = (&self.parts.index, &*self.parts.store);
        let standing = Standing::load(index, self.keys.device.device())?;
        let Some(too_new) = garbage::not_known_to_all(index, &self.keys.ring, &standing)? else {
            report.notes.push("some packets are not here any more: packs are left as they are".to_owned());
            return Ok(Choice::default());
        };
        let beginning = cut.map(|cut| Beginning { history: cut.past.knowledge(), past: &cut.past });
        let Some(used) = in_use(index, store, &self.keys, retention, beginning.as_ref(), observer)? else {
            report.notes.push("the parts of a large file cannot be read: packs are left as they are".to_owned());
            return Ok(Choice::default());
        };
        let untold: BTreeSet<PackId> = held::untold(index)?.into_iter().collect();
        let mut choice = Choice::default();
        let mut after = None;
        loop {
            let page = index.packs_in_use(after.as_ref(), PAGE, &used)?;
            let Some(last) = page.last() else { return Ok(choice) };
            after = Some(last.pack);
            for pack in page {
                let may_go = match pack.state {
                    PackState::Stored => true,
                    // One that is damaged goes once all that was in use of it lies elsewhere.
                    PackState::Damaged => pack.used == 0 && are_sound(index, &pack.relied_on)?,
                    PackState::Pending | PackState::Condemned => false,
                };
                if !may_go || too_new.contains(&pack.pack) || untold.contains(&pack.pack) {
                    continue;
                }
                let waste = pack.total - pack.used;
                if pack.used == 0 {
                    choice.unused.push(pack);
                } else if waste * WASTE_PARTS > pack.total {
                    choice.wasteful.push(pack);
                }
            }
        }
    }
}

impl PruneReport {
    fn add(&mut self, deleted: Deleted) {
        self.deleted += deleted.objects;
        self.deleted_bytes += deleted.bytes;
    }
}

/// Whether nothing is known against any of these packs.
fn are_sound(index: &Index, packs: &[PackId]) -> Result<bool, SyncError> {
    for pack in packs {
        if index.pack_row(pack)?.is_none_or(|row| row.state != PackState::Stored) {
            return Ok(false);
        }
    }
    Ok(true)
}

/// How far a run goes.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
enum Reach {
    /// Somebody asked for it: whatever may go goes.
    Asked,
    /// After a round: history only where it is worth a checkpoint.
    ByItself,
}

/// A pack is repacked when one part in so many of it is waste, or more.
const WASTE_PARTS: u64 = 4;
const DAY_MS: i64 = 24 * 3600 * 1000;
const BETWEEN_RUNS_MS: u64 = 24 * 3600 * 1000;
/// By itself a run lets history go when it is at least so many packets,
const LEAST_PACKETS: u64 = 64;
/// or so many bytes of them.
const LEAST_BYTES: u64 = 4 * 1024 * 1024;
const PAGE: usize = 256;
/// Why nothing is let go where a vault lies at two places.
const APART: &str =
    "the vault lies at two places, and what one would let go may be all that the other has: nothing is let go";
/// Where the index keeps when a run was last begun.
const LAST_RUN: &str = "last prune";
