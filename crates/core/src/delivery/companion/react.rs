//! What a companion does on each event: what its driver reports, and what the host says.
//!
//! Nothing here looks at what time has brought; companion/course.rs does, after every event.

use super::*;

impl Companion {
    pub(super) fn react(&mut self, event: Event, now: &Now, settings: &Settings, effects: &mut Vec<Effect>) {
        match event {
            Event::Message(message) => {
                if self.kept.number == message.number && self.item.id() == message.mail {
                    self.hear(message.body, now, settings, effects);
                }
            }
            Event::TryFailed { attempt, mut replies, failure } => {
                let (lease, recipients) = match &self.kept.state {
                    CompanionState::Sending { attempt: current, lease, .. } if *current == attempt => {
                        (lease.clone(), self.kept.remaining.clone())
                    }
                    CompanionState::Dot { attempt: current, lease, recipients } if *current == attempt => {
                        (lease.clone(), recipients.clone())
                    }
                    _ => return,
                };
                fill(&mut replies, &recipients, &failure);
                self.learn(replies, &lease, effects);
                self.end_try(lease, now, settings, effects);
            }
            Event::DotAsked { attempt, refused } => {
                let CompanionState::Sending { attempt: current, lease, ready: None, .. } = &self.kept.state else {
                    return;
                };
                if *current != attempt {
                    return;
                }
                let lease = lease.clone();
                let for_whom = refused.iter().map(|(recipient, _)| recipient).collect();
                let for_whom = self.kept.remaining.without(&for_whom);
                self.learn(refused, &lease, effects);
                if for_whom.is_empty() {
                    effects.push(Effect::AbortTry { attempt });
                    self.end_try(lease, now, settings, effects);
                } else if let CompanionState::Sending { ready, .. } = &mut self.kept.state {
                    *ready = Some(for_whom);
                }
            }
            Event::Answered { attempt, replies } => {
                let CompanionState::Dot { attempt: current, lease, recipients } = &self.kept.state else { return };
                if *current != attempt {
                    return;
                }
                let lease = lease.clone();
                let unclear = recipients.without(&replies.iter().map(|(recipient, _)| recipient).collect());
                let goes_on = replies.want_another_transaction();
                self.learn(replies, &lease, effects);
                if unclear.is_empty() && goes_on && !self.kept.remaining.is_empty() {
                    // The lease goes on, too; before the next dot it is looked at again.
                    self.kept.continued = self.kept.continued.saturating_add(1);
                    self.kept.state = CompanionState::Turn { lease, next_try: now.moment() };
                } else if unclear.is_empty() {
                    self.end_try(lease, now, settings, effects);
                } else {
                    self.doubt(lease, unclear, now, settings);
                }
            }
            Event::AnswerLost { attempt } => match &self.kept.state {
                CompanionState::Dot { attempt: current, lease, recipients } if *current == attempt => {
                    self.doubt(lease.clone(), recipients.clone(), now, settings);
                }
                _ => {}
            },
            Event::Restarted => self.restart(now, settings, effects),
            Event::LinkUp => {
                self.line.set(true);
                self.give_back_what_was_taken(now);
            }
            Event::LinkDown => {
                self.line.set(false);
                #[cfg(test)]
                if settings.takes_over_when_link_is_down {
                    self.take_over(now);
                }
            }
            Event::PathUp => {
                self.path_up = true;
                match &mut self.kept.state {
                    CompanionState::Turn { next_try, .. } => *next_try = now.moment(),
                    CompanionState::Unknown { stage: Stage::LookUpAt(moment), .. } => {
                        *moment = (*moment).min(now.moment());
                    }
                    CompanionState::Standby => self.offered = true,
                    _ => {}
                }
            }
            Event::PathDown => self.path_up = false,
            Event::SentLookup(found) => self.looked_up(found, now, settings, effects),
            Event::BounceFiled { recipients } => self.kept.owes_bounce = self.kept.owes_bounce.without(&recipients),
            Event::RetryNow | Event::Release => match &mut self.kept.state {
                CompanionState::Turn { next_try, .. } => *next_try = now.moment(),
                CompanionState::Unknown { stage: Stage::Held, lease, .. } => {
                    self.kept.state = CompanionState::Turn { lease: lease.clone(), next_try: now.moment() };
                }
                _ => {}
            },
            Event::TakeOver => self.take_over(now),
            Event::Timer
            | Event::Hold
            | Event::Cancel
            | Event::HandOver
            | Event::TakeBack
            | Event::Unpaired
            | Event::SentFiled => {}
        }
    }

    pub(super) fn hear(&mut self, body: Body, now: &Now, settings: &Settings, effects: &mut Vec<Effect>) {
        match body {
            Body::Copy(_) => effects.push(self.say(Body::Ack)),
            Body::Offer { reason, remaining } => {
                match &mut self.kept.state {
                    CompanionState::Standby => {
                        // An offer may be an old one: whoever is settled stays so.
                        let before = std::mem::take(&mut self.kept.remaining);
                        self.kept.remaining = before.iter().filter(|place| remaining.contains(*place)).collect();
                        self.offered = true;
                    }
                    // A host that goes to sleep wants the turn without end to be asked for while one runs.
                    CompanionState::Sending { lease: Lease::Until(_), renewal: renewal @ None, .. }
                        if reason == OfferReason::Sleeping =>
                    {
                        self.kept.last_turn += 1;
                        *renewal = Some(now.moment());
                    }
                    _ => {}
                }
                if reason == OfferReason::Sleeping && self.kept.state == CompanionState::Standby {
                    self.request(now);
                }
            }
            Body::Grant { turn, length, remaining } => self.granted(turn, length, remaining, now, settings, effects),
            Body::Ask { turn } => {
                self.kept.last_turn = self.kept.last_turn.max(turn);
                match &mut self.kept.state {
                    CompanionState::Standby | CompanionState::Requested { .. } => {
                        self.kept.state = CompanionState::Standby;
                        effects.push(self.say_unused());
                    }
                    CompanionState::Turn { lease: Lease::WithoutEnd { .. }, .. } => {
                        self.kept.state = CompanionState::Returned { unclear: Recipients::none() };
                    }
                    CompanionState::Sending { lease: Lease::WithoutEnd { recalled }, .. }
                    | CompanionState::Dot { lease: Lease::WithoutEnd { recalled }, .. }
                    | CompanionState::Unknown { lease: Lease::WithoutEnd { recalled }, .. } => *recalled = true,
                    _ => {}
                }
            }
            Body::ReturnAck { turn } if turn == self.kept.last_turn && self.is_returning() => {
                self.kept.replies = Replies::new();
                self.kept.state = CompanionState::Standby;
            }
            Body::DoneAck if self.kept.state == CompanionState::Done => self.close(effects),
            Body::Cancel(_) => {
                if let CompanionState::Sending { attempt, .. } = self.kept.state {
                    effects.push(Effect::AbortTry { attempt });
                }
                let unclear = match &self.kept.state {
                    // A dot may be with a server, or a report under way: what came of it is told first.
                    CompanionState::Dot { .. } | CompanionState::Returned { .. } | CompanionState::Done => return,
                    CompanionState::Unknown { recipients, .. } => recipients.clone(),
                    _ => Recipients::none(),
                };
                if unclear.is_empty() && self.kept.replies.is_empty() {
                    effects.push(self.say(Body::CancelAck));
                    self.close(effects);
                } else {
                    self.kept.state = CompanionState::Returned { unclear };
                }
            }
            // The others are the companion's own to say.
            _ => {}
        }
    }

    pub(super) fn granted(
        &mut self,
        turn: Turn,
        length: GrantLength,
        remaining: Recipients,
        now: &Now,
        settings: &Settings,
        effects: &mut Vec<Effect>,
    ) {
        let is_latest = turn == self.kept.last_turn;
        match &mut self.kept.state {
            CompanionState::Requested { asked } if is_latest => {
                let lease = Lease::granted(length, *asked);
                if let GrantLength::WithoutEnd = length {
                    effects.push(self.say(Body::Taken { turn }));
                }
                // Whoever is no recipient of this mail could not be saved and read again.
                let places = self.item.all();
                self.kept.remaining = remaining.iter().filter(|place| places.contains(*place)).collect();
                if lease.allows_dot(now, settings) {
                    self.begin_try(lease, effects);
                } else {
                    self.kept.state = CompanionState::Returned { unclear: Recipients::none() };
                }
            }
            CompanionState::Sending { lease, renewal: renewal @ Some(_), .. } if is_latest => {
                if let (Some(asked), Lease::Until(_)) = (renewal.take(), &*lease) {
                    *lease = Lease::granted(length, asked);
                }
                if let GrantLength::WithoutEnd = length {
                    effects.push(self.say(Body::Taken { turn }));
                }
            }
            CompanionState::Turn { lease: Lease::WithoutEnd { .. }, .. }
            | CompanionState::Sending { lease: Lease::WithoutEnd { .. }, .. }
            | CompanionState::Dot { lease: Lease::WithoutEnd { .. }, .. }
                if length == GrantLength::WithoutEnd && is_latest =>
            {
                effects.push(self.say(Body::Taken { turn }));
            }
            // A grant that nobody waits for any more is not used.
            CompanionState::Standby => effects.push(self.say_unused()),
            _ => {}
        }
    }

    pub(super) fn restart(&mut self, now: &Now, settings: &Settings, effects: &mut Vec<Effect>) {
        self.line.set(false);
        self.path_up = true;
        self.offered = false;
        self.ask_for_bounces(effects);
        match &mut self.kept.state {
            // Before the dot nothing was accepted. The connection is gone, so a lease that is left is not used.
            CompanionState::Sending { lease, .. } => {
                let lease = lease.clone();
                self.end_try(lease, now, settings, effects);
            }
            CompanionState::Dot { lease, recipients, .. } => {
                let (lease, recipients) = (lease.clone(), recipients.clone());
                self.doubt(lease, recipients, now, settings);
            }
            CompanionState::Unknown { stage: stage @ Stage::LookingUp, .. } => {
                *stage = Stage::LookUpAt(now.moment());
            }
            CompanionState::Closed => effects.extend([Effect::DropBody, Effect::Forget]),
            _ => {}
        }
    }

    pub(super) fn take_over(&mut self, now: &Now) {
        let taken = Lease::TakenOver { since_ms: now.wall_ms, recalled: false };
        match &mut self.kept.state {
            CompanionState::Standby
            | CompanionState::Requested { .. }
            | CompanionState::Turn { .. }
            | CompanionState::Returned { .. } => {
                // The turn that was taken has a number of its own, so that its report is not taken for an earlier one.
                self.kept.last_turn += 1;
                let next_try = now.moment();
                self.kept.state = match &self.kept.state {
                    CompanionState::Returned { unclear } if !unclear.is_empty() => CompanionState::Unknown {
                        lease: taken,
                        recipients: unclear.clone(),
                        stage: Stage::LookUpAt(next_try),
                    },
                    _ => CompanionState::Turn { lease: taken, next_try },
                };
            }
            CompanionState::Sending { lease, renewal, .. } => {
                *lease = taken;
                *renewal = None;
            }
            CompanionState::Dot { lease, .. } | CompanionState::Unknown { lease, .. } => *lease = taken,
            CompanionState::Done | CompanionState::Closed => {}
        }
    }

    /// The host that was thought lost is there: it has the turn again, and hears what was done for it.
    pub(super) fn give_back_what_was_taken(&mut self, now: &Now) {
        match &mut self.kept.state {
            CompanionState::Turn { lease: Lease::TakenOver { .. }, .. } => {
                self.kept.state = CompanionState::Returned { unclear: Recipients::none() };
            }
            CompanionState::Sending { lease: Lease::TakenOver { recalled, .. }, .. }
            | CompanionState::Dot { lease: Lease::TakenOver { recalled, .. }, .. } => *recalled = true,
            CompanionState::Unknown { lease: Lease::TakenOver { recalled, .. }, stage, .. } => {
                *recalled = true;
                if *stage == Stage::Held {
                    *stage = Stage::LookUpAt(now.moment());
                }
            }
            _ => {}
        }
    }
}
