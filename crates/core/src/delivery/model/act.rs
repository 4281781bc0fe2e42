//! What each action does: to a machine, to what is under way, to a server, and to what is left of faults.

use super::*;

impl World {
    /// Tells one machine of an event, and carries out what it asks for, or dies after saving.
    pub(super) fn tell(&self, state: &mut State, side: Side, event: Event, dies: bool) {
        let now = state.now(side);
        let effects = match side {
            Side::Host => {
                let Some(host) = &mut state.host else { return };
                let before = host.state().clone();
                let effects = host.handle(event, &now, &self.settings);
                let expired = |effect: &Effect| match effect {
                    Effect::Bounce { recipients } => {
                        recipients.iter().any(|(_, status)| matches!(status, Status::Expired { .. }))
                    }
                    _ => false,
                };
                if effects.iter().any(expired) {
                    self.fired[Fault::Expiry as usize].fetch_add(1, Ordering::Relaxed);
                }
                // The companion's success of which the host has not heard when its lease ends: window (c).
                let granted = matches!(before, HostState::Granted { .. });
                if granted && matches!(host.state(), HostState::Unknown { turn: Some(_), .. }) {
                    for (place, status) in host.statuses().iter().enumerate() {
                        state.excused[place] += u8::from(status.is_waiting() && state.accepted[place] > 0);
                    }
                }
                effects
            }
            Side::Companion => {
                let Some(companion) = &mut state.companion else { return };
                let asked = matches!(companion.state(), CompanionState::Sending { renewal: Some(_), .. });
                let granted = matches!(&event, Event::Message(Message { body: Body::Grant { .. }, .. }));
                let effects = companion.handle(event, &now, &self.settings);
                let goes_on = matches!(
                    companion.state(),
                    CompanionState::Sending { renewal: None, .. } | CompanionState::Dot { .. }
                );
                if asked && granted && goes_on {
                    self.fired[Fault::Renewal as usize].fetch_add(1, Ordering::Relaxed);
                }
                effects
            }
        };
        if !dies {
            state.carry_out(side, effects);
        } else if effects.first() == Some(&Effect::Save) {
            self.crash(state, side, false);
        }
    }

    pub(super) fn crash(&self, state: &mut State, side: Side, reboot: bool) {
        // The connection is gone, and with it the reply that was under way.
        if let Try::Decided { recipients, accepted: true, .. } = state.try_of(side).clone() {
            state.excuse(&recipients);
        }
        match side {
            Side::Host => {
                state.host_boot += u8::from(reboot);
                state.host_try = Try::Nothing;
                state.host_looks = false;
                state.host = state.host.take().map(|host| Host::decode(self.item(), &host.encode()).unwrap());
            }
            Side::Companion => {
                state.companion_boot += u8::from(reboot);
                state.companion_try = Try::Nothing;
                state.companion_looks = false;
                state.companion =
                    state.companion.take().map(|it| Companion::decode(self.item(), &it.encode()).unwrap());
            }
        }
        self.tell(state, side, Event::Restarted, false);
        if state.link_up && !state.unpaired {
            self.tell(state, side, Event::LinkUp, false);
        }
    }

    pub(super) fn deliver(&self, state: &mut State, to: Side, body: Body, dies: bool) {
        let message = Message { number: 1, mail: MailId([1; 16]), body };
        match to {
            Side::Host if state.host.is_none() => {
                let mut ledger = HostLedger::new();
                ledger.number();
                state.carry_out(to, ledger.answer(&message).map(Effect::Send).into_iter().collect());
            }
            Side::Companion if state.companion.is_none() => match &message.body {
                Body::Copy(item) if state.ledger.admits(1) => {
                    let now = state.now(to);
                    let (companion, effects) = Companion::receive(1, item.clone(), true, &now, &self.settings);
                    state.companion = Some(companion);
                    state.companion_body = true;
                    state.carry_out(to, effects);
                }
                _ => {
                    let answer = state.ledger.answer(&message);
                    state.carry_out(to, answer.map(Effect::Send).into_iter().collect());
                }
            },
            _ => {
                // What falls due at the same time is not the message's doing.
                let stale = state.stale(&message.body) && !state.wakes(to, &self.settings);
                let before = (state.host.clone(), state.companion.clone());
                self.tell(state, to, Event::Message(message), dies);
                if stale && !state.same_turn(&before.0, &before.1) {
                    state.violation = Some("S6: a stale grant or return changed the turn");
                }
            }
        }
    }

    pub(super) fn step(&self, last: &State, action: &Action, dies: bool) -> State {
        let mut state = last.clone();
        match action {
            Action::CrashAfterSave(action) => {
                state = self.step(last, action, true);
                state.spend(Fault::CrashAfterSave, self);
            }
            Action::Tick(side) => {
                *state.clock(*side) += 1;
                if state.host_clock != state.companion_clock && self.faults[Fault::Drift as usize] > 0 {
                    self.fired[Fault::Drift as usize].fetch_add(1, Ordering::Relaxed);
                }
            }
            Action::Timer(side) => self.tell(&mut state, *side, Event::Timer, dies),
            Action::Deliver(place) => {
                let (to, body) = state.network.remove(*place);
                self.deliver(&mut state, to, body, dies);
            }
            Action::DropMessage(place) => {
                state.spend(Fault::Drop, self);
                state.network.remove(*place);
            }
            Action::DeliverAndKeep(place) => {
                state.spend(Fault::Duplicate, self);
                let (to, body) = state.network[*place].clone();
                self.deliver(&mut state, to, body, dies);
            }
            Action::Crash { side, reboot } => {
                state.spend(
                    match (side, reboot) {
                        (Side::Host, false) => Fault::HostCrash,
                        (Side::Host, true) => Fault::HostReboot,
                        (Side::Companion, false) => Fault::CompanionCrash,
                        (Side::Companion, true) => Fault::CompanionReboot,
                    },
                    self,
                );
                self.crash(&mut state, *side, *reboot);
            }
            Action::FailTry(side) => {
                state.spend(Fault::TryFailure, self);
                let Try::Connected { attempt, .. } = std::mem::replace(state.attempt(*side), Try::Nothing) else {
                    return state;
                };
                let event = Event::TryFailed { attempt, replies: Replies::new(), failure: said(451) };
                self.tell(&mut state, *side, event, dies);
            }
            Action::AskDot(side) => self.ask_dot(&mut state, *side, Replies::new(), dies),
            Action::RefuseOne { side, code } => {
                state.spend(if *code == 550 { Fault::RefusedForGood } else { Fault::LaterForOne }, self);
                let refused = Replies::from_iter([(self.recipients - 1, said(*code))]);
                self.ask_dot(&mut state, *side, refused, dies);
            }
            Action::Decide { side, accept } => {
                let Try::Written { attempt, recipients, at } = state.attempt(*side).clone() else { return state };
                if *accept {
                    for place in recipients.iter() {
                        state.accepted[place as usize] += 1;
                    }
                } else {
                    state.spend(Fault::LostDot, self);
                }
                *state.attempt(*side) = Try::Decided { attempt, recipients, accepted: *accept, at };
            }
            Action::Reply(side) => {
                let Try::Decided { attempt, recipients, accepted, .. } =
                    std::mem::replace(state.attempt(*side), Try::Nothing)
                else {
                    return state;
                };
                let event = if accepted {
                    Event::Answered { attempt, replies: Replies::all(&recipients, &said(250)) }
                } else {
                    // The connection broke before the server had the dot; the client cannot tell that from a lost reply.
                    Event::AnswerLost { attempt }
                };
                self.tell(&mut state, *side, event, dies);
            }
            Action::LoseReply(side) => {
                state.spend(Fault::LostReply, self);
                let Try::Decided { attempt, recipients, .. } = std::mem::replace(state.attempt(*side), Try::Nothing)
                else {
                    return state;
                };
                state.excuse(&recipients);
                self.tell(&mut state, *side, Event::AnswerLost { attempt }, dies);
            }
            Action::LookUp(side) => {
                *(if *side == Side::Host { &mut state.host_looks } else { &mut state.companion_looks }) = false;
                let found = match self.look_up {
                    SentLookupModel::Nothing => SentLookup::NotEvidence,
                    SentLookupModel::Perfect if state.accepted != [0; 2] => SentLookup::Found,
                    SentLookupModel::Perfect => SentLookup::Absent,
                };
                self.tell(&mut state, *side, Event::SentLookup(found), dies);
            }
            Action::FileBounces => {
                let filed = std::mem::take(&mut state.bounces);
                for place in &filed {
                    state.bounced[*place as usize] = true;
                }
                self.tell(&mut state, Side::Host, Event::BounceFiled { recipients: filed.into_iter().collect() }, dies);
            }
            Action::CutLink => {
                state.spend(Fault::LinkCut, self);
                state.link_up = false;
                self.tell(&mut state, Side::Host, Event::LinkDown, false);
                self.tell(&mut state, Side::Companion, Event::LinkDown, false);
            }
            Action::JoinLink => {
                state.link_up = true;
                self.tell(&mut state, Side::Host, Event::LinkUp, false);
                self.tell(&mut state, Side::Companion, Event::LinkUp, false);
            }
            Action::User(Event::Unpaired) => {
                state.spend(Fault::Unpair, self);
                state.unpaired = true;
                state.link_up = false;
                state.network.clear();
                // A turn without end is then nobody's to wait for.
                state.taken_over |= state.has_turn_without_end();
                self.tell(&mut state, Side::Host, Event::Unpaired, dies);
                self.tell(&mut state, Side::Companion, Event::LinkDown, false);
            }
            Action::User(event) => {
                let (side, fault) = match event {
                    Event::RetryNow => (Side::Host, Fault::Reclaim),
                    Event::TakeOver => (Side::Companion, Fault::TakeOver),
                    Event::Cancel => (Side::Host, Fault::Cancel),
                    Event::Hold | Event::Release => (Side::Host, Fault::Hold),
                    _ => (Side::Host, Fault::HandOver),
                };
                if !matches!(event, Event::Release | Event::TakeBack) {
                    state.spend(fault, self);
                }
                state.cancelled |= *event == Event::Cancel;
                state.taken_over |= matches!(event, Event::TakeOver | Event::RetryNow);
                self.tell(&mut state, side, event.clone(), dies);
            }
        }
        state.network.sort_by_cached_key(|sent| {
            let mut hasher = DefaultHasher::new();
            sent.hash(&mut hasher);
            hasher.finish()
        });
        state.network.dedup();
        state
    }

    pub(super) fn ask_dot(&self, state: &mut State, side: Side, refused: Replies, dies: bool) {
        let Try::Connected { attempt, recipients } = state.attempt(side).clone() else { return };
        let recipients = recipients.without(&refused.iter().map(|(place, _)| place).collect());
        *state.attempt(side) = Try::Waiting { attempt, recipients };
        self.tell(state, side, Event::DotAsked { attempt, refused }, dies);
    }
}
