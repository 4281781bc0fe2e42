//! The companion's machine for one mail: it keeps a copy, asks for the turn, and uses it while its lease lasts.
//!
//! The lease is counted from when the request was *first sent*, so that it ends here before it ends for the host.
//! The final dot is written only while the lease outlasts the time that a server may take to answer it; a try that
//! comes too late for that asks for the turn anew while its connection stays open, and is broken off if none comes.
//! What servers said is reported until the host has it. The copy goes only when the host says so, or when nobody is
//! left to send it to and the host has heard of that.
//!
//! Invariants:
//! - a request's number is saved before it is sent, and never used again;
//! - [`CompanionState::Standby`] holds no turn and has nothing to report;
//! - a lease of another boot is over; one without end is not.
//!
//! The driver makes the machine once the body is on stable storage and the ledger (ledger.rs) admits its number.
//! What lies outside: lifetime, backoff between leases and bounces are the host's, but for a mail that was taken over.

mod record;

use std::sync::Arc;

use super::event::{Attempt, Effect, Event, SentLookup};
use super::host::{Stage, fill};
use super::item::{Item, Recipients};
use super::line::Line;
use super::message::{Body, GrantLength, ItemNumber, Message, OfferReason, Turn};
use super::reply::{Enhanced, Replies, Reply, Verdict};
use super::settings::{Settings, UnknownPolicy};
use super::status::{Path, Status};
use super::time::{Moment, Now, millis};

/// A mail's copy on the companion.
#[derive(Clone, PartialEq, Eq, Hash, Debug)]
pub struct Companion {
    item: Arc<Item>,
    kept: Kept,
    line: Line,
    /// Whether the own path is thought to be usable; not saved.
    path_up: bool,
    /// Whether the host offered the turn and was not asked for it yet; not saved, since it offers again.
    offered: bool,
}

/// What is saved.
#[derive(Clone, PartialEq, Eq, Hash, Debug)]
struct Kept {
    number: ItemNumber,
    /// Who is left to send it to, as far as is known here.
    remaining: Recipients,
    /// What was said on this path and not yet reported.
    replies: Replies,
    /// Of whom the sender must be told here, because the mail was taken over.
    owes_bounce: Recipients,
    attempts: Attempt,
    /// The greatest number of a request.
    last_turn: Turn,
    state: CompanionState,
}

/// Where a mail stands on its companion.
#[derive(Clone, PartialEq, Eq, Hash, Debug)]
pub enum CompanionState {
    /// A copy is kept; the turn is the host's.
    Standby,
    /// The turn was asked for; the request has the number of the last turn.
    Requested {
        /// When the request was first sent: the lease counts from then.
        asked: Moment,
    },
    /// The turn is here until it is returned, and nothing is being tried.
    Turn {
        /// How long the turn lasts; never until a moment, since a lease that ends is used at once.
        lease: Lease,
        /// When it is tried next.
        next_try: Moment,
    },
    /// A try is under way; its dot is not written.
    Sending {
        /// Which try.
        attempt: Attempt,
        /// How long the turn lasts.
        lease: Lease,
        /// When the turn was asked for anew, with the number of the last turn.
        renewal: Option<Moment>,
        /// Whom the dot is for, where the try waits for nothing but a longer lease.
        ready: Option<Recipients>,
    },
    /// The dot of a try may be written.
    Dot {
        /// Which try.
        attempt: Attempt,
        /// How long the turn lasts.
        lease: Lease,
        /// For whom the dot is.
        recipients: Recipients,
    },
    /// The dot had no answer.
    Unknown {
        /// How long the turn lasts.
        lease: Lease,
        /// For whom that is so.
        recipients: Recipients,
        /// How far the companion is in finding out.
        stage: Stage,
    },
    /// The turn is given up; the host has not yet confirmed that it knows.
    Returned {
        /// Of whom nobody knows whether a server accepted them.
        unclear: Recipients,
    },
    /// Nobody is left to send it to; the host has not yet confirmed that it knows.
    Done,
    /// Nothing is left to do.
    Closed,
}

/// How long the companion has the turn.
#[derive(Clone, PartialEq, Eq, Hash, Debug)]
pub enum Lease {
    /// Until a moment of this boot's clock.
    Until(Moment),
    /// Until it is returned.
    WithoutEnd {
        /// Whether it is to be returned after the try that is under way.
        recalled: bool,
    },
    /// The user took it for a host that is lost.
    TakenOver {
        /// When, in milliseconds since 1970; the lifetime counts from then.
        since_ms: u64,
        /// Whether the host turned up again, so that it is to be returned after the try that is under way.
        recalled: bool,
    },
}

impl Companion {
    /// Keeps a copy whose body is on stable storage; answers the copy message.
    pub fn receive(
        number: ItemNumber,
        item: Arc<Item>,
        path_up: bool,
        now: &Now,
        settings: &Settings,
    ) -> (Self, Vec<Effect>) {
        let kept = Kept {
            number,
            remaining: item.all(),
            replies: Replies::new(),
            owes_bounce: Recipients::none(),
            attempts: 0,
            last_turn: 0,
            state: CompanionState::Standby,
        };
        let mut companion = Self { item, kept, line: Line::new(true), path_up, offered: false };
        let mut effects = vec![Effect::Save, companion.say(Body::Ack)];
        companion.speak(&[], now, settings, &mut effects);
        (companion, effects)
    }

    /// Tells the machine what happened; the effects are to be carried out in their order.
    pub fn handle(&mut self, event: Event, now: &Now, settings: &Settings) -> Vec<Effect> {
        let before = self.kept.clone();
        let outstanding = self.outstanding();
        let mut effects = Vec::new();
        self.react(event, now, settings, &mut effects);
        self.pass_time(now, settings, &mut effects);
        self.speak(&outstanding, now, settings, &mut effects);
        if self.kept != before {
            effects.insert(0, Effect::Save);
        }
        effects
    }

    /// When the machine wants [`Event::Timer`].
    pub fn wake(&self, settings: &Settings) -> Option<Moment> {
        let own = match &self.kept.state {
            CompanionState::Requested { asked } => Some(asked.plus(settings.request_patience)),
            CompanionState::Turn { next_try, .. } => Some(*next_try),
            CompanionState::Sending { lease: Lease::Until(end), renewal, .. } => match renewal {
                None if self.line.is_up() => Some(renewal_time(*end, settings)),
                _ => Some(*end),
            },
            CompanionState::Unknown { stage: Stage::LookUpAt(moment), .. } => Some(*moment),
            _ => None,
        };
        [own, self.line.wake()].into_iter().flatten().min_by_key(|moment| moment.since_boot_ms)
    }

    /// The mail.
    pub fn item(&self) -> &Arc<Item> {
        &self.item
    }

    /// Its number in the pair.
    pub fn number(&self) -> ItemNumber {
        self.kept.number
    }

    /// Where it stands.
    pub fn state(&self) -> &CompanionState {
        &self.kept.state
    }

    /// Who is left to send it to, as far as is known here.
    pub fn remaining(&self) -> &Recipients {
        &self.kept.remaining
    }

    /// What was said on this path since the last report that the host has.
    pub fn replies(&self) -> &Replies {
        &self.kept.replies
    }

    /// How often it was tried here.
    pub fn attempts(&self) -> Attempt {
        self.kept.attempts
    }

    /// The greatest number of a request for the turn.
    pub fn last_turn(&self) -> Turn {
        self.kept.last_turn
    }

    /// Whether a dot may be written at `now`, or may lie unanswered at a server.
    pub fn is_entitled(&self, now: &Now, settings: &Settings) -> bool {
        match &self.kept.state {
            CompanionState::Turn { .. } => true,
            CompanionState::Sending { lease, .. } => lease.allows_dot(now, settings),
            CompanionState::Dot { lease: Lease::Until(end), .. } => !now.reached(*end),
            CompanionState::Dot { .. } => true,
            _ => false,
        }
    }

    fn react(&mut self, event: Event, now: &Now, settings: &Settings, effects: &mut Vec<Effect>) {
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
                self.learn(replies, &lease, effects);
                if unclear.is_empty() {
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

    fn hear(&mut self, body: Body, now: &Now, settings: &Settings, effects: &mut Vec<Effect>) {
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

    fn granted(
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
                self.kept.remaining = remaining;
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

    fn restart(&mut self, now: &Now, settings: &Settings, effects: &mut Vec<Effect>) {
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

    fn pass_time(&mut self, now: &Now, settings: &Settings, effects: &mut Vec<Effect>) {
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

    /// What the host must hear and has not acknowledged.
    fn outstanding(&self) -> Vec<Body> {
        let turn = self.kept.last_turn;
        match &self.kept.state {
            CompanionState::Requested { .. } => vec![Body::Request { turn }],
            CompanionState::Sending { renewal: Some(_), .. } => vec![Body::Request { turn }],
            CompanionState::Returned { unclear } => {
                vec![Body::Return { turn, replies: self.kept.replies.clone(), unclear: unclear.clone() }]
            }
            CompanionState::Done => vec![Body::Done { replies: self.kept.replies.clone() }],
            _ => Vec::new(),
        }
    }

    fn speak(&mut self, before: &[Body], now: &Now, settings: &Settings, effects: &mut Vec<Effect>) {
        for body in self.line.speak(before, self.outstanding(), now, settings) {
            effects.push(self.say(body));
        }
    }

    fn say(&self, body: Body) -> Effect {
        Effect::Send(Message { number: self.kept.number, mail: self.item.id(), body })
    }

    /// Says that no turn is held up to the last, and nothing happened in it that the host has not heard of.
    fn say_unused(&self) -> Effect {
        let (replies, unclear) = (Replies::new(), Recipients::none());
        self.say(Body::Return { turn: self.kept.last_turn, replies, unclear })
    }

    fn request(&mut self, now: &Now) {
        self.offered = false;
        self.kept.last_turn += 1;
        self.kept.state = CompanionState::Requested { asked: now.moment() };
    }

    fn begin_try(&mut self, lease: Lease, effects: &mut Vec<Effect>) {
        self.kept.attempts += 1;
        let attempt = self.kept.attempts;
        self.kept.state = CompanionState::Sending { attempt, lease, renewal: None, ready: None };
        effects.push(Effect::Try { attempt, recipients: self.kept.remaining.clone() });
    }

    /// Remembers what was said, to report it; where the mail was taken over, the sender is told here.
    fn learn(&mut self, replies: Replies, lease: &Lease, effects: &mut Vec<Effect>) {
        let mut settled = Vec::new();
        for (recipient, reply) in replies.iter().filter(|(recipient, _)| self.kept.remaining.contains(*recipient)) {
            self.kept.replies.set(recipient, reply.clone());
            if reply.verdict() != Verdict::Later {
                settled.push(recipient);
            }
        }
        self.kept.remaining = self.kept.remaining.without(&settled.into_iter().collect());
        if let Lease::TakenOver { .. } = lease {
            let refused = replies.with(Verdict::Refused);
            if !refused.is_empty() {
                self.kept.owes_bounce = self.kept.owes_bounce.iter().chain(refused.iter()).collect();
                self.ask_for_bounces(effects);
            }
        }
    }

    fn ask_for_bounces(&self, effects: &mut Vec<Effect>) {
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
    fn end_try(&mut self, lease: Lease, now: &Now, settings: &Settings, effects: &mut Vec<Effect>) {
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
                let next_try = now.after(settings.backoff(self.item.id(), self.kept.attempts));
                CompanionState::Turn { lease, next_try }
            }
            _ => CompanionState::Returned { unclear: Recipients::none() },
        };
    }

    fn doubt(&mut self, lease: Lease, recipients: Recipients, now: &Now, settings: &Settings) {
        let stage = Stage::LookUpAt(now.after(settings.sent_settle));
        self.kept.state = CompanionState::Unknown { lease, recipients, stage };
    }

    fn looked_up(&mut self, mut found: SentLookup, now: &Now, settings: &Settings, effects: &mut Vec<Effect>) {
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

    fn take_over(&mut self, now: &Now) {
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
    fn give_back_what_was_taken(&mut self, now: &Now) {
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

    /// Whether finding the Message-ID in Sent tells that the last dot was accepted for `recipients`.
    ///
    /// An earlier dot of the same mail for others would have left it there, too.
    fn found_is_evidence(&self, recipients: &Recipients) -> bool {
        self.item
            .all()
            .without(recipients)
            .iter()
            .all(|other| self.kept.replies.of(other).is_some_and(|reply| reply.verdict() != Verdict::Accepted))
    }

    fn is_returning(&self) -> bool {
        matches!(self.kept.state, CompanionState::Returned { .. })
    }

    fn close(&mut self, effects: &mut Vec<Effect>) {
        self.kept.state = CompanionState::Closed;
        effects.extend([Effect::DropBody, Effect::Forget]);
    }
}

impl Lease {
    fn granted(length: GrantLength, asked: Moment) -> Self {
        match length {
            GrantLength::For(length) => Self::Until(asked.plus(length)),
            GrantLength::WithoutEnd => Self::WithoutEnd { recalled: false },
        }
    }

    /// Whether the lease outlasts the answer to a dot that is written now.
    fn allows_dot(&self, now: &Now, settings: &Settings) -> bool {
        match self {
            Self::Until(end) => {
                end.boot == now.boot
                    && !Now { since_boot_ms: now.after(settings.answer).since_boot_ms, ..*now }.reached(*end)
            }
            Self::WithoutEnd { .. } | Self::TakenOver { .. } => true,
        }
    }

    fn latest_dot(&self, settings: &Settings) -> Option<Moment> {
        match self {
            Self::Until(end) => Some(end.minus(settings.answer)),
            Self::WithoutEnd { .. } | Self::TakenOver { .. } => None,
        }
    }
}

/// When a try asks for the turn anew, so that the answer can come before the dot would be too late.
fn renewal_time(end: Moment, settings: &Settings) -> Moment {
    end.minus(settings.answer.saturating_add(settings.request_patience))
}
