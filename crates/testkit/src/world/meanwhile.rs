//! Devices that act at the same time: between two requests of one device's round another does a whole round, or lets go.
//!
//! Whatever two devices do at once, their requests come to a storage one after another; this tries the orders in which all
//! requests of one lie between two of the other.

use std::sync::{Arc, Mutex};

use packetboat_core::garbage::Retention;
use packetboat_engine::error::{SyncError, chain};
use packetboat_engine::ports::Silent;
use packetboat_engine::replica::{Replica, Report, SyncOptions};
use packetboat_engine::{PruneOptions, PruneReport};

use super::edits::write_what_is_gone;
use super::{World, describe};

/// A device that acts as soon as another's round has come so far.
pub(super) struct Meanwhile {
    other: usize,
    actor: Arc<Mutex<Actor>>,
}

/// The device that acts, and what came of it.
struct Actor {
    replica: Replica,
    outcome: Option<Outcome>,
}

enum Outcome {
    Synchronised(Box<Result<Report, SyncError>>),
    LetGo(Box<Result<PruneReport, SyncError>>),
}

impl World {
    /// Lets another device act before one of the next `calls` requests of this one, at random.
    pub(super) fn let_another_act(&mut self, at: usize, calls: u64) {
        if self.meanwhile.is_some() || !self.options.meanwhile || !self.rng.chance(1, 2) {
            return;
        }
        let other = self.rng.index(self.devices.len());
        if other != at {
            let prunes = (self.options.pruning && self.rng.chance(1, 2)).then(|| self.some_retention());
            self.let_this_one_act(at, other, prunes, calls);
        }
    }

    /// A user writes again what is gone, and before that is published another device lets it go.
    pub(super) fn write_again_what_is_let_go(&mut self, at: usize) {
        let other = self.rng.index(self.devices.len());
        if other == at || self.sync(at).is_err() || self.sync(other).is_err() || self.sync(at).is_err() {
            return;
        }
        self.account.lock().expect("nobody panics holding this").unrecorded = self.devices[at].unrecorded.clone();
        let edit = write_what_is_gone(&mut self.rng, &self.devices[at].fs, &self.account);
        let Some(text) = edit else { return };
        self.devices[at].fs.settle();
        let name = self.devices[at].name.clone();
        self.note(format!("{name}: {text}"));
        let keep = Some(Retention::Days(0));
        self.let_this_one_act(at, other, Some(PruneOptions { keep, dry_run: false }), 8);
        self.sync_badly(at);
    }

    fn let_this_one_act(&mut self, at: usize, other: usize, prunes: Option<PruneOptions>, calls: u64) {
        let call = 1 + self.rng.below(calls);
        let unrecorded = self.devices[other].unrecorded.clone();
        self.account.lock().expect("nobody panics holding this").unrecorded.extend(unrecorded);
        let now = self.now.load(std::sync::atomic::Ordering::SeqCst);
        self.devices[other].fs.set_now(now * 1_000_000);
        let replica = self.devices[other].replica.take().expect("started");
        let actor = Arc::new(Mutex::new(Actor { replica, outcome: None }));
        self.meanwhile = Some(Meanwhile { other, actor: Arc::clone(&actor) });
        self.devices[at].store.on_call(call, move || actor.lock().expect("nobody panics holding this").act(prunes));
    }

    /// Notes what another device did during this one's round, if it came to that.
    pub(super) fn take_back_another(&mut self, at: usize) {
        let Some(Meanwhile { other, actor }) = self.meanwhile.take() else { return };
        self.devices[at].store.call_off();
        let actor = Arc::into_inner(actor).expect("called off").into_inner().expect("nobody panics holding this");
        self.devices[other].replica = Some(actor.replica);
        let name = self.devices[other].name.clone();
        let Some(outcome) = actor.outcome else { return };
        self.happened.add("rounds in the middle of others", 1);
        match outcome {
            Outcome::Synchronised(result) => match *result {
                Ok(report) => {
                    self.devices[other].unrecorded.clear();
                    self.note(format!("{name}:   meanwhile sync {}", describe(&report)));
                }
                Err(SyncError::Revoked { .. } | SyncError::LeftOut { .. }) if self.options.leaving => {}
                Err(error) => {
                    self.note(format!("{name}:   meanwhile sync failed: {}", chain(&error)));
                    self.assert_expected(&error);
                }
            },
            Outcome::LetGo(result) => match *result {
                Ok(report) => {
                    self.count(&report);
                    self.note(format!("{name}:   meanwhile prune {report:?}"));
                }
                Err(error) => {
                    self.note(format!("{name}:   meanwhile prune failed: {}", chain(&error)));
                    self.assert_expected_of_letting_go(&error);
                }
            },
        }
        self.nothing_invented(other);
    }
}

impl Actor {
    fn act(&mut self, prunes: Option<PruneOptions>) {
        self.outcome = Some(match prunes {
            Some(options) => Outcome::LetGo(Box::new(self.replica.prune(options, &mut Silent))),
            None => {
                let options = SyncOptions { confirm_deletes: true };
                Outcome::Synchronised(Box::new(self.replica.sync(options, &mut Silent)))
            }
        });
    }
}
