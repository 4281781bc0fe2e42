//! Which actions a state allows, and whether a run without further faults comes to an end from it.

use super::*;

impl World {
    pub(super) fn steps(&self, state: &State, faults: bool) -> Vec<Action> {
        let mut actions = Vec::new();
        let left = |fault: Fault| faults && state.left[fault as usize] > 0;
        for (side, other) in [(Side::Host, Side::Companion), (Side::Companion, Side::Host)] {
            let lookups = if side == Side::Host { state.host_looks } else { state.companion_looks };
            if lookups {
                actions.push(Action::LookUp(side));
            }
            match state.try_of(side) {
                Try::Nothing | Try::Waiting { .. } => {}
                Try::Connected { recipients, .. } => {
                    actions.push(Action::AskDot(side));
                    if left(Fault::TryFailure) {
                        actions.push(Action::FailTry(side));
                    }
                    if recipients.contains(self.recipients - 1) && self.recipients > 1 {
                        for (fault, code) in [(Fault::LaterForOne, 451), (Fault::RefusedForGood, 550)] {
                            if left(fault) {
                                actions.push(Action::RefuseOne { side, code });
                            }
                        }
                    }
                }
                Try::Written { .. } => {
                    actions.push(Action::Decide { side, accept: true });
                    if left(Fault::LostDot) {
                        actions.push(Action::Decide { side, accept: false });
                    }
                }
                Try::Decided { accepted, .. } => {
                    actions.push(Action::Reply(side));
                    if *accepted && left(Fault::LostReply) {
                        actions.push(Action::LoseReply(side));
                    }
                }
            }
            if state.wakes(side, &self.settings) {
                actions.push(Action::Timer(side));
            }
            // A dot is answered, or given up, within the answer time of whoever wrote it.
            let answered = match state.try_of(side) {
                Try::Written { at, .. } | Try::Decided { at, .. } => state.time(side) < at + millis(&self.settings),
                _ => true,
            };
            let drift = if left(Fault::Drift) { 1 } else { 0 };
            let behind = match side {
                Side::Host => state.host_clock - state.companion_clock < drift,
                Side::Companion => state.host_clock > state.companion_clock || drift == 0,
            };
            if answered && behind && (state.time(side) < self.ticks || !faults) && drift > 0 {
                actions.push(Action::Tick(side));
            }
            let exists = if side == Side::Host { state.host.is_some() } else { state.companion.is_some() };
            let undecided = matches!(state.try_of(side), Try::Written { .. });
            for (crash, boot, reboot) in
                [(Fault::HostCrash, Fault::HostReboot, false), (Fault::CompanionCrash, Fault::CompanionReboot, true)]
            {
                let fault = match (side, reboot) {
                    (Side::Host, false) => crash,
                    (Side::Host, true) => Fault::HostReboot,
                    (Side::Companion, false) => Fault::CompanionCrash,
                    (Side::Companion, true) => boot,
                };
                if exists && !undecided && left(fault) {
                    actions.push(Action::Crash { side, reboot });
                }
            }
            let _ = other;
        }
        if !state.bounces.is_empty() {
            actions.push(Action::FileBounces);
        }
        if state.link_up {
            for place in 0..state.network.len() {
                actions.push(Action::Deliver(place));
                if left(Fault::Duplicate) {
                    actions.push(Action::DeliverAndKeep(place));
                }
                if left(Fault::Drop) {
                    actions.push(Action::DropMessage(place));
                }
            }
            if left(Fault::LinkCut) {
                actions.push(Action::CutLink);
            }
        } else if !state.unpaired {
            actions.push(Action::JoinLink);
        }
        if let Some(host) = &state.host {
            let asks = [(Fault::HandOver, Event::HandOver), (Fault::Cancel, Event::Cancel), (Fault::Hold, Event::Hold)];
            for (fault, event) in asks {
                if left(fault) {
                    actions.push(Action::User(event));
                }
            }
            if left(Fault::Unpair) && !state.unpaired {
                actions.push(Action::User(Event::Unpaired));
            }
            if left(Fault::Reclaim) && state.has_turn_without_end() {
                actions.push(Action::User(Event::RetryNow));
            }
            if host.wish() == Wish::Hold {
                actions.push(Action::User(Event::Release));
            }
            if matches!(host.state(), HostState::Granted { end: GrantEnd::Never { recalled: false, .. }, .. }) {
                actions.push(Action::User(Event::TakeBack));
            }
        }
        if state.companion.is_some() && left(Fault::TakeOver) {
            actions.push(Action::User(Event::TakeOver));
        }
        actions
    }

    /// Runs on without further faults, over the paths that are good, and says whether all comes to an end.
    pub(super) fn ends_well(&self, state: &State, good: &[Side]) -> bool {
        let mut state = state.clone();
        if !state.link_up && !state.unpaired {
            state = self.step(&state, &Action::JoinLink, false);
        }
        for _ in 0..600 {
            // The copy of a pair that is no more is its user's to delete.
            if state.host.is_none() && (state.companion.is_none() || state.unpaired) {
                return state.bounced_or_accepted(self.recipients) || state.cancelled;
            }
            let bad = |side: &Side| matches!(state.try_of(*side), Try::Connected { .. }) && !good.contains(side);
            let failing = [Side::Host, Side::Companion].into_iter().find(bad);
            state = if let Some(side) = failing {
                state.left[Fault::TryFailure as usize] = 1;
                self.step(&state, &Action::FailTry(side), false)
            } else if let Some(action) = self
                .steps(&state, false)
                .into_iter()
                .find(|action| !matches!(action, Action::Timer(_)) || state.network.is_empty())
            {
                self.step(&state, &action, false)
            } else {
                let mut later = state.clone();
                let time = later.host_clock.max(later.companion_clock) + 1;
                (later.host_clock, later.companion_clock) = (time, time);
                later
            };
        }
        false
    }

    pub(super) fn is_sampled(&self, state: &State) -> bool {
        let mut hasher = DefaultHasher::new();
        state.hash(&mut hasher);
        self.live_one_in > 0 && hasher.finish().is_multiple_of(self.live_one_in)
    }
}
