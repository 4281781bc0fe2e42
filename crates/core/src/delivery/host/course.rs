//! How a mail goes on at its host: what falls due, what follows from replies, doubts and failures, and how it ends.

use super::*;

impl Host {
    pub(super) fn pass_time(&mut self, now: &Now, settings: &Settings, effects: &mut Vec<Effect>) {
        let may_try = self.may_try();
        match &mut self.kept.state {
            HostState::Turn { next_try, .. } if may_try && now.reached(*next_try) => {
                let recipients = those(&self.kept.statuses, Status::is_waiting);
                if !recipients.is_empty() {
                    self.kept.attempts = self.kept.attempts.saturating_add(1);
                    let attempt = self.kept.attempts;
                    self.kept.state = HostState::Sending { attempt };
                    effects.push(Effect::Try { attempt, recipients });
                }
            }
            HostState::Granted { turn, end: GrantEnd::At { moment, .. } } if now.reached(*moment) => {
                let turn = *turn;
                self.doubt(self.waiting(), Some(turn), now, settings);
            }
            HostState::Unknown { stage, .. } if stage.is_due(now) => {
                *stage = Stage::LookingUp;
                effects.push(Effect::LookUpSent);
            }
            HostState::Unknown { stage: stage @ Stage::NoEvidence, turn, patience, .. }
                if turn.is_none() || now.reached(*patience) =>
            {
                match settings.unknown {
                    UnknownPolicy::Hold => *stage = Stage::Held,
                    UnknownPolicy::Retry => self.take_turn_after_doubt(now, settings),
                }
            }
            _ => {}
        }
        let late = self.kept.submitted_ms.saturating_add(millis(settings.delay_warning));
        if !self.kept.warned && !settings.delay_warning.is_zero() && now.wall_ms >= late && !self.waiting().is_empty() {
            self.kept.warned = true;
            effects.push(Effect::WarnDelayed { recipients: self.waiting() });
        }
    }

    /// Draws the conclusions when the user cancelled, or nobody waits any longer.
    pub(super) fn conclude(&mut self, now: &Now, settings: &Settings, effects: &mut Vec<Effect>) {
        if self.kept.wish == Wish::Cancel {
            let unclear = match &self.kept.state {
                HostState::Turn { .. } => Some(Recipients::none()),
                HostState::Unknown { recipients, .. } => Some(recipients.clone()),
                _ => None,
            };
            if let Some(unclear) = unclear {
                for (recipient, status) in (0..).zip(&mut self.kept.statuses).filter(|(_, status)| status.is_waiting())
                {
                    let sent = unclear.contains(recipient);
                    let certainty = if sent { Certainty::PerhapsSent } else { Certainty::NotSent };
                    *status = Status::Cancelled { certainty };
                }
            }
        }
        let decided = !self.kept.statuses.iter().any(Status::is_waiting);
        if decided
            && matches!(self.kept.state, HostState::Turn { .. } | HostState::Unknown { .. } | HostState::Granted { .. })
        {
            self.kept.state = HostState::Settling;
            let delivered = self.kept.statuses.iter().any(|status| matches!(status, Status::Delivered { .. }));
            if settings.file_in_sent && delivered {
                self.kept.owes_sent_copy = true;
                effects.push(Effect::FileInSent);
            }
        }
        if self.kept.state == HostState::Settling {
            let owes_bounce = self.kept.statuses.iter().any(Status::owes_bounce);
            if !owes_bounce && (!self.kept.owes_sent_copy || self.is_expired(now, settings)) {
                self.kept.state = HostState::Closing;
                effects.push(Effect::DropBody);
            }
        }
        if self.kept.state == HostState::Closing && !matches!(self.kept.copy, CopyState::Sent | CopyState::Held) {
            self.kept.state = HostState::Closed;
            effects.push(Effect::Forget);
        }
    }

    pub(super) fn learn(&mut self, replies: &Replies, path: Path, now: &Now, effects: &mut Vec<Effect>) {
        let mut refused = Vec::new();
        let mut settled = false;
        for (recipient, reply) in replies.iter() {
            let Some(status) = self.kept.statuses.get_mut(recipient as usize) else { continue };
            let was_waiting = status.is_waiting();
            if status.learn(reply, path) {
                refused.push((recipient, status.clone()));
            }
            settled |= was_waiting && !status.is_waiting();
        }
        if !refused.is_empty() {
            effects.push(Effect::Bounce { recipients: refused });
        }
        // A try that was begun for more recipients than are left begins anew for those that are.
        if let HostState::Sending { attempt } = self.kept.state
            && path == Path::Companion
            && settled
        {
            effects.push(Effect::AbortTry { attempt });
            let next_try = now.moment();
            self.kept.state = HostState::Turn { failed: false, next_try };
        }
    }

    /// Goes on after the host's own definite failure, or after an answer that left somebody waiting.
    pub(super) fn fail(&mut self, now: &Now, settings: &Settings, effects: &mut Vec<Effect>) {
        let mut next_try = now.after(settings.backoff(self.item.id(), self.attempts()));
        if self.is_expired(now, settings) {
            // The companion may have a path while the host has had none for days: it is asked once more.
            let reachable = self.line.is_up() && self.kept.copy == CopyState::Held;
            if reachable && !self.kept.last_call {
                self.kept.last_call = true;
                next_try = now.after(settings.backoff(self.item.id(), 1).saturating_add(settings.request_patience));
            } else {
                self.expire(effects);
            }
        }
        self.kept.state = HostState::Turn { failed: true, next_try };
    }

    pub(super) fn expire(&mut self, effects: &mut Vec<Effect>) {
        let mut recipients = Vec::new();
        for (recipient, status) in (0..).zip(&mut self.kept.statuses) {
            if let Status::Waiting { last } = status {
                *status = Status::Expired { last: last.take() };
                recipients.push((recipient, status.clone()));
            }
        }
        if !recipients.is_empty() {
            effects.push(Effect::Bounce { recipients });
        }
    }

    pub(super) fn doubt(&mut self, recipients: Recipients, turn: Option<Turn>, now: &Now, settings: &Settings) {
        let stage = Stage::LookUpAt(now.after(settings.sent_settle));
        self.kept.state = HostState::Unknown { recipients, turn, patience: now.after(settings.peer_patience), stage };
    }

    /// Whether finding the Message-ID in Sent tells of whom the mail was accepted.
    ///
    /// It is the same in every dot of the mail, so an earlier dot for others would have left it there, too; and of a
    /// companion's dot the host does not know whom it was for, unless there is only one.
    pub(super) fn found_is_evidence(&self) -> bool {
        let HostState::Unknown { turn, .. } = &self.kept.state else { return false };
        let known = turn.is_none() || self.item.recipients().len() == 1;
        known && !self.kept.statuses.iter().any(|s| matches!(s, Status::Delivered { .. } | Status::FoundInSent))
    }

    pub(super) fn looked_up(
        &mut self,
        mut found: SentLookup,
        now: &Now,
        settings: &Settings,
        effects: &mut Vec<Effect>,
    ) {
        if found == SentLookup::Found && !self.found_is_evidence() {
            found = SentLookup::NotEvidence;
        }
        let HostState::Unknown { recipients, stage: stage @ Stage::LookingUp, .. } = &mut self.kept.state else {
            return;
        };
        match found {
            SentLookup::Found => {
                for recipient in recipients.iter() {
                    if let Some(status @ Status::Waiting { .. }) = self.kept.statuses.get_mut(recipient as usize) {
                        *status = Status::FoundInSent;
                    }
                }
                self.take_turn_after_doubt(now, settings);
            }
            SentLookup::Absent => self.take_turn_after_doubt(now, settings),
            SentLookup::NotEvidence => {
                *stage = Stage::NoEvidence;
                self.pass_time(now, settings, effects);
            }
            SentLookup::Unreachable => {
                *stage = Stage::LookUpAt(now.after(settings.backoff_first));
                if self.is_expired(now, settings) {
                    self.expire(effects);
                }
            }
        }
    }

    pub(super) fn take_turn_after_doubt(&mut self, now: &Now, settings: &Settings) {
        let failed = matches!(self.kept.state, HostState::Unknown { turn: None, .. });
        let next_try = now.after(settings.backoff(self.item.id(), self.attempts().max(1)));
        self.kept.state = HostState::Turn { failed, next_try };
    }

    pub(super) fn turn_came_back(&mut self, now: &Now, settings: &Settings) {
        let wait = settings.backoff(self.item.id(), self.attempts().max(1));
        let next_try = if self.kept.last_call { now.moment() } else { now.after(wait) };
        self.kept.state = HostState::Turn { failed: false, next_try };
    }
}
