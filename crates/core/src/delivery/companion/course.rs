//! How a copy goes on at its companion: what falls due, what follows from replies, doubts and failures.

use super::*;

impl Companion {
    pub(super) fn pass_time(&mut self, now: &Now, settings: &Settings, effects: &mut Vec<Effect>) {
        match &mut self.kept.state {
            CompanionState::Standby if self.offered && self.path_up && self.line.is_up() => self.request(now),
            CompanionState::Requested { asked }
                if now.reached(asked.plus(settings.request_patience)) || asked.boot != now.boot =>
            {
                self.kept.state = CompanionState::Standby;
            }
            CompanionState::Turn { lease, next_try } if now.reached(*next_try) => {
                let lease = lease.clone();
                self.begin_try(lease, effects);
            }
            CompanionState::Sending { attempt, lease, renewal, ready } => {
                let attempt = *attempt;
                if let (Some(recipients), true) = (&ready, lease.allows_dot(now, settings)) {
                    let before = lease.latest_dot(settings);
                    let (lease, recipients) = (lease.clone(), recipients.clone());
                    self.kept.state = CompanionState::Dot { attempt, lease, recipients };
                    effects.push(Effect::WriteDot { attempt, before });
                    return;
                }
                let Lease::Until(end) = lease else { return };
                if now.reached(*end) || (ready.is_some() && !self.line.is_up()) {
                    let lease = lease.clone();
                    effects.push(Effect::AbortTry { attempt });
                    self.end_try(lease, now, settings, effects);
                } else if renewal.is_none()
                    && self.line.is_up()
                    && (ready.is_some() || now.reached(renewal_time(*end, settings)))
                {
                    self.kept.last_turn += 1;
                    *renewal = Some(now.moment());
                }
            }
            CompanionState::Unknown { stage, .. } if stage.is_due(now) => {
                *stage = Stage::LookingUp;
                effects.push(Effect::LookUpSent);
            }
            _ => {}
        }
    }

    pub(super) fn request(&mut self, now: &Now) {
        self.offered = false;
        self.kept.last_turn += 1;
        self.kept.state = CompanionState::Requested { asked: now.moment() };
    }

    pub(super) fn begin_try(&mut self, lease: Lease, effects: &mut Vec<Effect>) {
        if self.kept.remaining.is_empty() {
            self.kept.state = CompanionState::Done;
            return;
        }
        self.kept.attempts = self.kept.attempts.saturating_add(1);
        let attempt = self.kept.attempts;
        self.kept.state = CompanionState::Sending { attempt, lease, renewal: None, ready: None };
        effects.push(Effect::Try { attempt, recipients: self.kept.remaining.clone() });
    }

    /// Remembers what was said, to report it; where the mail was taken over, the sender is told here.
    pub(super) fn learn(&mut self, replies: Replies, lease: &Lease, effects: &mut Vec<Effect>) {
        let mut settled = Vec::new();
        for (recipient, reply) in replies.iter().filter(|(recipient, _)| self.kept.remaining.contains(*recipient)) {
            self.kept.replies.set(recipient, reply.clone());
            if reply.verdict() != Verdict::Later {
                settled.push(recipient);
            }
        }
        let settled: Recipients = settled.into_iter().collect();
        self.kept.remaining = self.kept.remaining.without(&settled);
        if let Lease::TakenOver { .. } = lease {
            let refused: Recipients =
                replies.with(Verdict::Refused).iter().filter(|place| settled.contains(*place)).collect();
            if !refused.is_empty() {
                self.kept.owes_bounce = self.kept.owes_bounce.iter().chain(refused.iter()).collect();
                self.ask_for_bounces(effects);
            }
        }
    }

    pub(super) fn ask_for_bounces(&self, effects: &mut Vec<Effect>) {
        let status = |recipient| {
            let reply = self.kept.replies.of(recipient)?.clone();
            Some((recipient, Status::Refused { reply, path: Path::Companion }))
        };
        let recipients: Vec<_> = self.kept.owes_bounce.iter().filter_map(status).collect();
        if !recipients.is_empty() {
            effects.push(Effect::Bounce { recipients });
        }
    }

    /// Goes on after a try that wrote no dot, or whose dot was answered.
    pub(super) fn end_try(&mut self, lease: Lease, now: &Now, settings: &Settings, effects: &mut Vec<Effect>) {
        if let Lease::TakenOver { since_ms, .. } = lease
            && now.wall_ms >= since_ms.saturating_add(millis(settings.lifetime))
            && let Ok(expired) = Reply::new(550, Enhanced::new(5, 4, 7), "delivery time expired")
        {
            let replies = Replies::all(&self.kept.remaining, &expired);
            self.learn(replies, &lease, effects);
        }
        self.kept.state = match lease {
            _ if self.kept.remaining.is_empty() => CompanionState::Done,
            Lease::WithoutEnd { recalled: false } | Lease::TakenOver { recalled: false, .. } => {
                let next_try = now.after(settings.backoff(self.item.id(), self.attempts()));
                CompanionState::Turn { lease, next_try }
            }
            _ => CompanionState::Returned { unclear: Recipients::none() },
        };
    }

    pub(super) fn doubt(&mut self, lease: Lease, recipients: Recipients, now: &Now, settings: &Settings) {
        let stage = Stage::LookUpAt(now.after(settings.sent_settle));
        self.kept.state = CompanionState::Unknown { lease, recipients, stage };
    }

    pub(super) fn looked_up(
        &mut self,
        mut found: SentLookup,
        now: &Now,
        settings: &Settings,
        effects: &mut Vec<Effect>,
    ) {
        let doubted = match &self.kept.state {
            CompanionState::Unknown { recipients, .. } => recipients.clone(),
            _ => return,
        };
        if found == SentLookup::Found && !self.found_is_evidence(&doubted) {
            found = SentLookup::NotEvidence;
        }
        let CompanionState::Unknown { lease, recipients, stage: stage @ Stage::LookingUp } = &mut self.kept.state
        else {
            return;
        };
        match (found, &*lease) {
            (SentLookup::Found, _) => {
                let lease = lease.clone();
                if let Ok(found) = Reply::new(250, Enhanced::new(2, 0, 0), "found among the mails sent") {
                    let replies = Replies::all(recipients, &found);
                    self.learn(replies, &lease, effects);
                }
                self.end_try(lease, now, settings, effects);
            }
            (SentLookup::Absent, _) => {
                let lease = lease.clone();
                self.end_try(lease, now, settings, effects);
            }
            (_, Lease::TakenOver { recalled: false, .. }) if found == SentLookup::NotEvidence => {
                match settings.unknown {
                    UnknownPolicy::Hold => *stage = Stage::Held,
                    UnknownPolicy::Retry => {
                        let lease = lease.clone();
                        self.end_try(lease, now, settings, effects);
                    }
                }
            }
            (_, Lease::TakenOver { recalled: false, .. }) => {
                *stage = Stage::LookUpAt(now.after(settings.backoff_first));
            }
            // The host decides; it may have a look, too.
            _ => self.kept.state = CompanionState::Returned { unclear: recipients.clone() },
        }
    }

    /// Whether finding the Message-ID in Sent tells that the last dot was accepted for `recipients`.
    ///
    /// An earlier dot of the same mail for others would have left it there, too.
    pub(super) fn found_is_evidence(&self, recipients: &Recipients) -> bool {
        self.item
            .all()
            .without(recipients)
            .iter()
            .all(|other| self.kept.replies.of(other).is_some_and(|reply| reply.verdict() != Verdict::Accepted))
    }
}
