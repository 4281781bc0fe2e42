//! Letting go in a world: at any time, by any device, with a past of a few days or of a few versions.
//!
//! What must hold whatever is let go, besides the promises: nothing that stands or is kept is missing, whoever joins has
//! all of it, and what was condemned does go once everybody who is there has answered.
//!
//! Left out: who is gone for good without a word. Such are retired first, as a user would do it.

use std::collections::BTreeSet;
use std::num::NonZeroU32;
use std::sync::atomic::Ordering;

use packetboat_core::garbage::{Garbage, Retention};
use packetboat_core::ids::DeviceId;
use packetboat_core::wire::Reader;
use packetboat_engine::error::{SyncError, chain};
use packetboat_engine::ports::Silent;
use packetboat_engine::{PruneOptions, PruneReport, RemovalError};

use super::{World, assert_same_tree, visible};
use crate::crash::was_crash;
use crate::faulty_store::{Fault, FaultConfig};
use crate::sim_fs::{SimFs, SimOptions};

impl World {
    /// A user says how long the past is kept, or days pass; and a device lets go, while whatever may go wrong does.
    pub(super) fn prune_badly(&mut self, at: usize) {
        if self.rng.chance(1, 3) {
            let days = 1 + self.rng.below(3) as i64;
            let now = self.now.fetch_add(days * DAY_MS, Ordering::SeqCst) + days * DAY_MS;
            self.devices[at].fs.set_now(now * 1_000_000);
            self.note(format!("{days} days pass"));
        }
        let options = self.some_retention();
        let crash = self.rng.chance(self.options.crash_percent, 100);
        if crash {
            let call = 1 + self.rng.below(30);
            self.devices[at].store.crash_at(call);
        }
        let name = self.devices[at].name.clone();
        let fired = |world: &Self| Fault::ALL.map(|fault| world.devices[at].store.fired(fault));
        let before = fired(self);
        self.let_another_act(at, 30);
        let replica = self.devices[at].replica.as_mut().expect("started");
        let result = replica.prune(options, &mut Silent);
        self.take_back_another(at);
        for ((fault, before), after) in Fault::ALL.into_iter().zip(before).zip(fired(self)) {
            self.happened.add(format!("{fault:?} while letting go"), after - before);
        }
        if let Ok(report) = &result {
            self.count(report);
        }
        self.look_at_condemnations(at);
        let text = match &result {
            Ok(report) => format!("{name}: prune {report:?}"),
            Err(error) => format!("{name}: prune {options:?} failed: {}", chain(error)),
        };
        self.note(text);
        if crash {
            let power = self.devices[at].store.has_crashed();
            self.happened.add("crash while letting go", power.into());
            self.restart(at, power);
        }
        if let Err(error) = result {
            self.assert_expected_of_letting_go(&error);
        }
    }

    /// What somebody may ask for who lets go.
    pub(super) fn some_retention(&mut self) -> PruneOptions {
        let keep = match self.rng.below(8) {
            0 => Some(Retention::All),
            1..=3 => Some(Retention::Days(self.rng.below(3) as u32)),
            4 => NonZeroU32::new(1 + self.rng.below(2) as u32).map(Retention::Versions),
            _ => None,
        };
        PruneOptions { keep, dry_run: self.rng.chance(1, 10) }
    }

    /// Panics where letting go failed for no reason that this world has.
    pub(super) fn assert_expected_of_letting_go(&self, error: &SyncError) {
        match error {
            // A stale listing may hide the checkpoint at which history begins.
            SyncError::Store(_) | SyncError::NoBase => {}
            SyncError::Revoked { .. } | SyncError::LeftOut { .. } if self.options.leaving => {}
            error => assert!(was_crash(error), "{}", chain(error)),
        }
    }

    /// Holds the world to what is said above, after it has come to rest.
    pub(super) fn check_letting_go(&mut self) {
        self.retire_who_is_gone();
        let mut waiting = vec!["nobody has pruned yet".to_owned()];
        for turn in 0..TURNS {
            self.pass(DAY_MS + 1);
            waiting.clear();
            for at in 0..self.devices.len() {
                // Each run makes packets that the next would let go; in the end nothing more is condemned.
                let keep = match turn {
                    0 if at == 0 => Some(Retention::Days(0)),
                    2 if at == 0 => Some(Retention::All),
                    _ => None,
                };
                let options = PruneOptions { keep, dry_run: false };
                let report = self.replica(at).prune(options, &mut Silent).unwrap_or_else(|e| panic!("{}", chain(&e)));
                self.note(format!("{}: prune {report:?}", self.devices[at].name));
                self.count(&report);
                self.look_at_condemnations(at);
                waiting.extend(report.waiting_for);
            }
            self.settle();
        }
        assert!(waiting.is_empty(), "what was condemned never goes: it waits for {waiting:?}");
        self.assert_that_letting_go_rests();
        self.check();
        self.assert_nothing_missing();
        let newcomer = self.join_at_the_end();
        self.settle();
        assert_same_tree(&visible(&self.devices[0].fs), &visible(&self.devices[newcomer].fs), "the newcomer");
        self.assert_nothing_missing();
    }

    /// Where there is nothing new, a run publishes nothing and deletes nothing: else a vault never came to rest.
    fn assert_that_letting_go_rests(&mut self) {
        self.pass(DAY_MS + 1);
        let before: BTreeSet<_> = self.store.objects().into_keys().collect();
        for at in 0..self.devices.len() {
            let name = self.devices[at].name.clone();
            let report = self.replica(at).prune(PruneOptions::default(), &mut Silent);
            let report = report.unwrap_or_else(|error| panic!("{}", chain(&error)));
            self.note(format!("{name}: prune {report:?}"));
        }
        let after: BTreeSet<_> = self.store.objects().into_keys().collect();
        let (more, gone): (Vec<_>, Vec<_>) = (after.difference(&before).collect(), before.difference(&after).collect());
        assert!(more.is_empty() && gone.is_empty(), "a run with nothing new put {more:?} and deleted {gone:?}");
    }

    /// Counts what a run did.
    pub(super) fn count(&mut self, report: &PruneReport) {
        for (what, times) in [
            ("packets condemned", report.packets),
            ("packs condemned", report.packs),
            ("packs repacked", report.repacked),
            ("objects deleted", report.deleted),
        ] {
            self.happened.add(what, times);
        }
    }

    /// Counts the condemnations that are void for something, as a device has folded them.
    fn look_at_condemnations(&mut self, at: usize) {
        let index = self.devices[at].replica.as_ref().expect("started").index();
        let Some(bytes) = index.meta("garbage").expect("the index is sound") else { return };
        let garbage = Garbage::decode(&mut Reader::new(&bytes)).expect("as it was written");
        let voided = garbage.standing().map(|(_, condemnation)| {
            condemnation.packs.values().filter(|void| **void).count() as u64 + u64::from(condemnation.history_is_void)
        });
        let (voided, ended) = (voided.sum(), u64::from(!garbage.ended().is_empty()));
        self.happened.add("condemnations voided", voided);
        self.happened.add("history ended", ended);
    }

    /// Whoever lost an index or was restored from a backup goes on under another key; nobody will speak for the old one.
    fn retire_who_is_gone(&mut self) {
        let present: BTreeSet<DeviceId> = (0..self.devices.len()).map(|at| self.replica(at).own_device()).collect();
        let members = self.replica(0).member_devices().expect("sound");
        for device in members.into_iter().filter(|device| !present.contains(device)) {
            match self.replica(0).retire(&device, &mut Silent) {
                Ok(name) => self.note(format!("{name} is retired")),
                Err(RemovalError::AlreadyRetired { .. } | RemovalError::AlreadyRevoked { .. }) => {}
                Err(error) => panic!("{error}"),
            }
        }
        self.settle();
    }

    fn assert_nothing_missing(&mut self) {
        for at in 0..self.devices.len() {
            let name = self.devices[at].name.clone();
            let report = self.replica(at).verify(true, &mut Silent).unwrap_or_else(|error| panic!("{error}"));
            let faults: Vec<String> = report.faults.iter().map(|fault| format!("{fault:?}")).collect();
            assert!(faults.is_empty(), "{name} misses {faults:#?}");
        }
    }

    /// Whoever joins at either of two storages, after some of those who see only one have let go there, has all that stands.
    pub(super) fn check_what_newcomers_see(&mut self) {
        for _ in 0..2 {
            let newcomer = self.join_at_the_end();
            self.settle();
            assert_same_tree(&visible(&self.devices[0].fs), &visible(&self.devices[newcomer].fs), "the newcomer");
        }
    }

    fn join_at_the_end(&mut self) -> usize {
        if self.options.leaving {
            self.read_markers();
        }
        let at = self.join(SimFs::new(SimOptions::default()));
        self.devices[at].store.set_config(FaultConfig::none());
        self.note("another joins".to_owned());
        at
    }
}

const DAY_MS: i64 = 86_400_000;
/// One to condemn, one to answer, one to carry out, and again for what is seen to be free only then.
const TURNS: usize = 6;
