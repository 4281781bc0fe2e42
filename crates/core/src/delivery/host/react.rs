//! What a host does on each event: what its driver reports, what the user wants, what the companion says.
//!
//! Nothing here looks at what time has brought or draws conclusions; host/course.rs does, after every event.

use super::*;

impl Host {
    pub(super) fn react(&mut self, event: Event, now: &Now, settings: &Settings, effects: &mut Vec<Effect>) {
        match event {
            Event::Message(message) => {
                if self.kept.number == Some(message.number) && self.item.id() == message.mail {
                    self.hear(message.body, now, settings, effects);
                }
            }
            Event::TryFailed { attempt, mut replies, failure } => {
                let recipients = match &self.kept.state {
                    HostState::Sending { attempt: current } if *current == attempt => self.waiting(),
                    HostState::Dot { attempt: current, recipients } if *current == attempt => recipients.clone(),
                    _ => return,
                };
                fill(&mut replies, &recipients, &failure);
                self.learn(&replies, Path::Host, now, effects);
                self.fail(now, settings, effects);
            }
            Event::DotAsked { attempt, refused } => {
                if self.kept.state != (HostState::Sending { attempt }) {
                    return;
                }
                let recipients = self.waiting().without(&refused.iter().map(|(recipient, _)| recipient).collect());
                self.learn(&refused, Path::Host, now, effects);
                if recipients.is_empty() {
                    effects.push(Effect::AbortTry { attempt });
                    self.fail(now, settings, effects);
                } else {
                    self.kept.state = HostState::Dot { attempt, recipients };
                    effects.push(Effect::WriteDot { attempt, before: None });
                }
            }
            Event::Answered { attempt, replies } => {
                let HostState::Dot { attempt: current, recipients } = &self.kept.state else { return };
                if *current != attempt {
                    return;
                }
                let unanswered = recipients.without(&replies.iter().map(|(recipient, _)| recipient).collect());
                self.learn(&replies, Path::Host, now, effects);
                match self.still_waiting(&unanswered) {
                    unclear if unclear.is_empty() && replies.want_another_transaction() => {
                        self.kept.continued = self.kept.continued.saturating_add(1);
                        self.kept.state = HostState::Turn { failed: false, next_try: now.moment() };
                    }
                    unclear if unclear.is_empty() => self.fail(now, settings, effects),
                    unclear => self.doubt(unclear, None, now, settings),
                }
            }
            Event::AnswerLost { attempt } => match &self.kept.state {
                HostState::Dot { attempt: current, recipients } if *current == attempt => {
                    let recipients = self.still_waiting(recipients);
                    self.doubt(recipients, None, now, settings);
                }
                _ => {}
            },
            Event::Restarted => self.restart(now, settings, effects),
            Event::LinkUp => self.line.set(true),
            Event::LinkDown => {
                self.line.set(false);
                // Nobody is there to take the turn, so the host makes use of the time that is left.
                self.handing_over = false;
            }
            Event::PathUp => match &mut self.kept.state {
                HostState::Turn { next_try, .. } => *next_try = now.moment(),
                HostState::Unknown { stage: Stage::LookUpAt(moment), .. } => *moment = (*moment).min(now.moment()),
                HostState::Settling if self.kept.owes_sent_copy => effects.push(Effect::FileInSent),
                _ => {}
            },
            Event::SentLookup(found) => self.looked_up(found, now, settings, effects),
            Event::BounceFiled { recipients } => {
                for recipient in recipients.iter() {
                    let Some(status) = self.kept.statuses.get_mut(recipient as usize) else { continue };
                    let reply = match status {
                        Status::Refused { reply, .. } => Some(reply.clone()),
                        Status::Expired { last } => last.take(),
                        _ => continue,
                    };
                    *status = Status::Bounced { reply };
                }
            }
            Event::SentFiled => self.kept.owes_sent_copy = false,
            Event::Hold if self.kept.wish != Wish::Cancel => {
                self.kept.wish = Wish::Hold;
                self.abort_try(now, effects);
            }
            Event::Release if self.kept.wish == Wish::Hold || self.is_held() => {
                self.kept.wish = Wish::Send;
                self.hurry(now);
            }
            Event::RetryNow if self.kept.wish != Wish::Cancel => {
                self.kept.wish = Wish::Send;
                self.hurry(now);
                if let HostState::Granted { turn, end: GrantEnd::Never { .. } } = self.kept.state {
                    self.doubt(self.waiting(), Some(turn), now, settings);
                }
            }
            Event::Cancel => {
                self.kept.wish = Wish::Cancel;
                self.abort_try(now, effects);
            }
            Event::HandOver if self.kept.copy == CopyState::Held && self.kept.wish == Wish::Send => {
                self.handing_over = true;
                self.abort_try(now, effects);
            }
            Event::TakeBack => {
                self.handing_over = false;
                self.recall();
            }
            Event::Unpaired => self.part(now, settings),
            Event::Timer | Event::PathDown | Event::TakeOver => {}
            Event::Hold | Event::Release | Event::RetryNow | Event::HandOver => {}
        }
    }

    pub(super) fn hear(&mut self, body: Body, now: &Now, settings: &Settings, effects: &mut Vec<Effect>) {
        match body {
            Body::Ack if self.kept.copy == CopyState::Sent => self.kept.copy = CopyState::Held,
            Body::Request { turn } => self.asked_for_turn(turn, now, settings, effects),
            Body::Taken { turn: taken_turn } => {
                if let HostState::Granted { turn, end: GrantEnd::Never { taken, .. } } = &mut self.kept.state
                    && *turn == taken_turn
                {
                    *taken = true;
                    self.handing_over = false;
                    effects.push(Effect::HandedOver);
                }
            }
            Body::Return { turn, replies, unclear } => {
                effects.push(self.say(Body::ReturnAck { turn }));
                self.learn(&replies, Path::Companion, now, effects);
                self.kept.last_turn = self.kept.last_turn.max(turn);
                let ended = match &self.kept.state {
                    HostState::Granted { turn: granted, .. } => *granted <= turn,
                    HostState::Unknown { turn: Some(granted), .. } => *granted <= turn,
                    _ => false,
                };
                if ended {
                    match self.still_waiting(&unclear) {
                        unclear if unclear.is_empty() => self.turn_came_back(now, settings),
                        unclear => self.doubt(unclear, None, now, settings),
                    }
                }
            }
            Body::Done { replies } => {
                effects.push(self.say(Body::DoneAck));
                self.learn(&replies, Path::Companion, now, effects);
                self.kept.copy = CopyState::Released;
                self.companion_is_out(now, settings);
            }
            Body::CancelAck => {
                self.kept.copy = CopyState::Released;
                self.companion_is_out(now, settings);
            }
            Body::Gone => self.part_with_copy(now, settings),
            // The others are the host's own to say.
            _ => {}
        }
    }

    pub(super) fn asked_for_turn(&mut self, asked: Turn, now: &Now, settings: &Settings, effects: &mut Vec<Effect>) {
        if asked <= self.kept.last_turn {
            // The grant may have been lost; the same one again means the same, since both count from the request.
            if let HostState::Granted { turn, end } = &self.kept.state
                && *turn == asked
            {
                let length = match end {
                    GrantEnd::At { length_ms, .. } => GrantLength::For(std::time::Duration::from_millis(*length_ms)),
                    GrantEnd::Never { .. } => GrantLength::WithoutEnd,
                };
                effects.push(self.say(Body::Grant { turn: asked, length, remaining: self.waiting() }));
            }
            return;
        }
        let renewable = self.kept.wish == Wish::Send;
        match &mut self.kept.state {
            HostState::Turn { failed, .. } if renewable && (*failed || self.handing_over) => {
                self.grant(asked, now, settings, effects);
            }
            HostState::Turn { next_try, .. } if renewable => *next_try = now.moment(),
            HostState::Granted { end: GrantEnd::Never { recalled: true, .. }, .. } => {}
            HostState::Granted { .. } if renewable => self.grant(asked, now, settings, effects),
            _ => {}
        }
    }

    pub(super) fn grant(&mut self, turn: Turn, now: &Now, settings: &Settings, effects: &mut Vec<Effect>) {
        let lease = settings.lease_for(self.item.size_bytes());
        let mut end =
            GrantEnd::At { moment: now.after(lease.saturating_add(settings.margin)), length_ms: millis(lease) };
        match &self.kept.state {
            _ if self.handing_over => end = GrantEnd::Never { taken: false, recalled: false },
            HostState::Granted { end: GrantEnd::Never { recalled, .. }, .. } => {
                end = GrantEnd::Never { taken: false, recalled: *recalled };
            }
            // Settings may have changed to shorter leases; the one that runs is not cut short.
            HostState::Granted { end: GrantEnd::At { moment: before, .. }, .. } => {
                if let GrantEnd::At { moment, .. } = &mut end {
                    *moment = (*moment).max(*before);
                }
            }
            _ => {}
        }
        let length = match end {
            GrantEnd::At { .. } => GrantLength::For(lease),
            GrantEnd::Never { .. } => GrantLength::WithoutEnd,
        };
        self.kept.last_turn = turn;
        self.kept.state = HostState::Granted { turn, end };
        effects.push(self.say(Body::Grant { turn, length, remaining: self.waiting() }));
    }

    pub(super) fn restart(&mut self, now: &Now, settings: &Settings, effects: &mut Vec<Effect>) {
        self.line.set(false);
        self.handing_over = false;
        let owed: Vec<(u32, Status)> =
            (0..).zip(&self.kept.statuses).filter(|(_, s)| s.owes_bounce()).map(|(r, s)| (r, s.clone())).collect();
        if !owed.is_empty() {
            effects.push(Effect::Bounce { recipients: owed });
        }
        match &mut self.kept.state {
            // Before the dot nothing was accepted.
            HostState::Sending { .. } => self.fail(now, settings, effects),
            HostState::Dot { recipients, .. } => {
                let recipients = recipients.clone();
                let recipients = self.still_waiting(&recipients);
                self.doubt(recipients, None, now, settings);
            }
            // After a reboot nothing tells how much of the lease has passed, so all of it is waited for again.
            HostState::Granted { end: GrantEnd::At { moment, length_ms }, .. } if moment.boot != now.boot => {
                let lease = std::time::Duration::from_millis(*length_ms);
                *moment = now.after(lease.saturating_add(settings.margin));
            }
            HostState::Granted { end: GrantEnd::Never { recalled, .. }, .. } => *recalled = true,
            HostState::Unknown { patience, stage, .. } => {
                if patience.boot != now.boot {
                    *patience = now.after(settings.peer_patience);
                }
                if *stage == Stage::LookingUp {
                    *stage = Stage::LookUpAt(now.moment());
                }
            }
            HostState::Settling if self.kept.owes_sent_copy => effects.push(Effect::FileInSent),
            HostState::Closing => effects.push(Effect::DropBody),
            HostState::Closed => effects.extend([Effect::DropBody, Effect::Forget]),
            _ => {}
        }
    }

    /// The companion neither tries nor will try.
    pub(super) fn companion_is_out(&mut self, now: &Now, settings: &Settings) {
        if matches!(self.kept.state, HostState::Granted { .. } | HostState::Unknown { turn: Some(_), .. }) {
            self.turn_came_back(now, settings);
        }
    }

    /// The companion has lost its copy, and with it all knowledge of what it did.
    pub(super) fn part_with_copy(&mut self, now: &Now, settings: &Settings) {
        self.kept.copy = CopyState::Released;
        if let HostState::Granted { turn, end: GrantEnd::Never { .. } } = self.kept.state {
            self.doubt(self.waiting(), Some(turn), now, settings);
        }
        // Nobody is left to wait for.
        if let HostState::Unknown { patience, .. } = &mut self.kept.state {
            *patience = now.moment();
        }
    }

    pub(super) fn part(&mut self, now: &Now, settings: &Settings) {
        self.line.set(false);
        self.handing_over = false;
        if self.kept.copy != CopyState::NoCompanion {
            self.part_with_copy(now, settings);
            self.kept.copy = CopyState::NoCompanion;
        }
    }

    pub(super) fn recall(&mut self) {
        if let HostState::Granted { end: GrantEnd::Never { recalled, .. }, .. } = &mut self.kept.state {
            *recalled = true;
        }
    }

    pub(super) fn hurry(&mut self, now: &Now) {
        match &mut self.kept.state {
            HostState::Turn { next_try, .. } => *next_try = now.moment(),
            HostState::Unknown { stage: Stage::LookUpAt(moment), .. } => *moment = now.moment(),
            HostState::Unknown { stage: Stage::Held | Stage::NoEvidence, .. } => {
                self.kept.state = HostState::Turn { failed: false, next_try: now.moment() };
            }
            _ => {}
        }
    }

    pub(super) fn abort_try(&mut self, now: &Now, effects: &mut Vec<Effect>) {
        if let HostState::Sending { attempt } = self.kept.state {
            effects.push(Effect::AbortTry { attempt });
            self.kept.state = HostState::Turn { failed: false, next_try: now.moment() };
        }
    }
}
