//! The host's machine for one mail: it owns the turn.
//!
//! A mail begins in [`HostState::Turn`] and is tried. A definite failure lets the host offer the turn to its companion;
//! a fresh request is answered by a grant, and while one runs the host does not try. A grant that ends unheard of, and
//! a dot without an answer, leave [`HostState::Unknown`], never `Turn`: the mail may have gone out.
//! When no recipient waits any longer, bounces are filed, the body goes, and the companion is told to drop its copy.
//!
//! Invariants:
//! - the host tries only in `Sending` and `Dot`, and is in neither while a grant may run;
//! - a request is granted at most once, and only when its number is greater than any heard of before;
//! - what a server accepted is recorded whoever reports it and however late;
//! - the body is dropped only when every recipient is delivered, bounced or cancelled.
//!
//! What is outstanding towards the companion follows from the state (line.rs); bytes are in host/record.rs.

mod record;

use std::sync::Arc;

pub(super) use self::record::decode_flag;
use super::event::{Attempt, Effect, Event, SentLookup};
use super::item::{Item, Recipients};
use super::line::Line;
use super::message::{Body, GrantLength, ItemNumber, Message, OfferReason, Turn, Why};
use super::reply::{Replies, Reply};
use super::settings::{Settings, UnknownPolicy};
use super::status::{Certainty, Path, Status, those};
use super::time::{Moment, Now, millis};

/// A mail on its host.
#[derive(Clone, PartialEq, Eq, Hash, Debug)]
pub struct Host {
    item: Arc<Item>,
    kept: Kept,
    line: Line,
    /// Set by [`Event::HandOver`] until the turn is taken; not saved, since a restart means that the host is awake.
    handing_over: bool,
}

/// What is saved.
#[derive(Clone, PartialEq, Eq, Hash, Debug)]
struct Kept {
    /// The number in the pair; none where there is no companion.
    number: Option<ItemNumber>,
    submitted_ms: u64,
    statuses: Vec<Status>,
    copy: CopyState,
    wish: Wish,
    /// Whether the sender was told of the delay.
    warned: bool,
    /// Whether the companion was offered the turn once more after the lifetime's end.
    last_call: bool,
    /// Whether a copy is still to be filed in Sent.
    owes_sent_copy: bool,
    attempts: Attempt,
    /// The greatest request that was granted or given up by the companion.
    last_turn: Turn,
    state: HostState,
}

/// Where a mail stands on its host.
#[derive(Clone, PartialEq, Eq, Hash, Debug)]
pub enum HostState {
    /// The turn is here, and nothing is being tried.
    Turn {
        /// Whether the host failed since the turn last came here; only then is it granted.
        failed: bool,
        /// When it is tried next.
        next_try: Moment,
    },
    /// A try is under way; its dot is not written.
    Sending {
        /// Which try.
        attempt: Attempt,
    },
    /// The dot of a try may be written.
    Dot {
        /// Which try.
        attempt: Attempt,
        /// For whom the dot is.
        recipients: Recipients,
    },
    /// The companion has the turn.
    Granted {
        /// Which request was granted.
        turn: Turn,
        /// How long it lasts.
        end: GrantEnd,
    },
    /// Nobody here knows whether a server accepted it.
    Unknown {
        /// For whom that is so.
        recipients: Recipients,
        /// The companion's turn that ended unheard of; none after the host's own dot.
        turn: Option<Turn>,
        /// Until when word of the companion is waited for.
        patience: Moment,
        /// How far the host is in finding out.
        stage: Stage,
    },
    /// No recipient waits; a bounce or the copy in Sent is still to be filed.
    Settling,
    /// The body is gone; the companion has not yet confirmed that its copy is.
    Closing,
    /// Nothing is left to do.
    Closed,
}

/// When a grant ends for the host.
#[derive(Clone, PartialEq, Eq, Hash, Debug)]
pub enum GrantEnd {
    /// The companion's lease and the margin are over then.
    At {
        /// The moment, by the host's clock.
        moment: Moment,
        /// How long the grant is, so that a rebooted host can wait for all of it again.
        length_ms: u64,
    },
    /// The companion returns it.
    Never {
        /// Whether the companion has confirmed it.
        taken: bool,
        /// Whether the host wants it back.
        recalled: bool,
    },
}

/// How far a device is in finding out whether a mail went out.
#[derive(Clone, PartialEq, Eq, Hash, Debug)]
pub enum Stage {
    /// Sent is looked at then.
    LookUpAt(Moment),
    /// Sent is being looked at.
    LookingUp,
    /// Sent says nothing.
    NoEvidence,
    /// The user is asked.
    Held,
}

impl Stage {
    pub(super) fn is_due(&self, now: &Now) -> bool {
        matches!(self, Self::LookUpAt(moment) if now.reached(*moment))
    }
}

/// What the host knows of the companion's copy.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug)]
pub enum CopyState {
    /// There is no companion.
    NoCompanion,
    /// The companion was never told of it.
    Unsent,
    /// It may have one.
    Sent,
    /// It has one.
    Held,
    /// It has none and will make none.
    Released,
}

/// What the user wants.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug)]
pub enum Wish {
    /// That it be sent.
    Send,
    /// That it wait.
    Hold,
    /// That it not be sent.
    Cancel,
}

impl Host {
    /// Takes a mail whose body is on stable storage; `number` is its number in the pair, where there is a companion,
    /// and `link_up` whether the link stands. The effects begin with the copy to the companion, before the first try.
    pub fn submit(
        item: Arc<Item>,
        number: Option<ItemNumber>,
        link_up: bool,
        now: &Now,
        settings: &Settings,
    ) -> (Self, Vec<Effect>) {
        let kept = Kept {
            number,
            submitted_ms: now.wall_ms,
            statuses: vec![Status::Waiting { last: None }; item.recipients().len()],
            copy: if number.is_some() { CopyState::Unsent } else { CopyState::NoCompanion },
            wish: Wish::Send,
            warned: false,
            last_call: false,
            owes_sent_copy: false,
            attempts: 0,
            last_turn: 0,
            state: HostState::Turn { failed: false, next_try: now.moment() },
        };
        let mut host = Self { item, kept, line: Line::new(link_up), handing_over: false };
        let mut effects = vec![Effect::Save];
        let mut rest = Vec::new();
        host.pass_time(now, settings, &mut rest);
        host.speak(&[], now, settings, &mut effects);
        effects.append(&mut rest);
        (host, effects)
    }

    /// Tells the machine what happened; the effects are to be carried out in their order.
    pub fn handle(&mut self, event: Event, now: &Now, settings: &Settings) -> Vec<Effect> {
        let before = self.kept.clone();
        let outstanding = self.outstanding();
        let mut effects = Vec::new();
        self.react(event, now, settings, &mut effects);
        self.pass_time(now, settings, &mut effects);
        self.conclude(now, settings, &mut effects);
        self.speak(&outstanding, now, settings, &mut effects);
        if self.kept != before {
            effects.insert(0, Effect::Save);
        }
        effects
    }

    /// When the machine wants [`Event::Timer`].
    pub fn wake(&self) -> Option<Moment> {
        let own = match &self.kept.state {
            HostState::Turn { next_try, .. } if self.may_try() => Some(*next_try),
            HostState::Granted { end: GrantEnd::At { moment, .. }, .. } => Some(*moment),
            HostState::Unknown { stage: Stage::LookUpAt(moment), .. } => Some(*moment),
            HostState::Unknown { stage: Stage::NoEvidence, patience, .. } => Some(*patience),
            _ => None,
        };
        [own, self.line.wake()].into_iter().flatten().min_by_key(|moment| moment.since_boot_ms)
    }

    /// The mail.
    pub fn item(&self) -> &Arc<Item> {
        &self.item
    }

    /// Its number in the pair.
    pub fn number(&self) -> Option<ItemNumber> {
        self.kept.number
    }

    /// Where it stands.
    pub fn state(&self) -> &HostState {
        &self.kept.state
    }

    /// What has become of each recipient.
    pub fn statuses(&self) -> &[Status] {
        &self.kept.statuses
    }

    /// What is known of the companion's copy.
    pub fn copy(&self) -> CopyState {
        self.kept.copy
    }

    /// What the user wants.
    pub fn wish(&self) -> Wish {
        self.kept.wish
    }

    /// When it was submitted, in milliseconds since 1970.
    pub fn submitted_ms(&self) -> u64 {
        self.kept.submitted_ms
    }

    /// How often it was tried here.
    pub fn attempts(&self) -> Attempt {
        self.kept.attempts
    }

    /// Whether the host may come to write the dot of a try without anything else happening first.
    pub fn is_entitled(&self) -> bool {
        matches!(self.kept.state, HostState::Sending { .. } | HostState::Dot { .. })
    }

    fn react(&mut self, event: Event, now: &Now, settings: &Settings, effects: &mut Vec<Effect>) {
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

    fn hear(&mut self, body: Body, now: &Now, settings: &Settings, effects: &mut Vec<Effect>) {
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

    fn asked_for_turn(&mut self, asked: Turn, now: &Now, settings: &Settings, effects: &mut Vec<Effect>) {
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

    fn grant(&mut self, turn: Turn, now: &Now, settings: &Settings, effects: &mut Vec<Effect>) {
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

    fn restart(&mut self, now: &Now, settings: &Settings, effects: &mut Vec<Effect>) {
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

    fn pass_time(&mut self, now: &Now, settings: &Settings, effects: &mut Vec<Effect>) {
        let may_try = self.may_try();
        match &mut self.kept.state {
            HostState::Turn { next_try, .. } if may_try && now.reached(*next_try) => {
                let recipients = those(&self.kept.statuses, Status::is_waiting);
                if !recipients.is_empty() {
                    self.kept.attempts += 1;
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
    fn conclude(&mut self, now: &Now, settings: &Settings, effects: &mut Vec<Effect>) {
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

    /// What the companion must hear and has not acknowledged.
    fn outstanding(&self) -> Vec<Body> {
        if !self.line.is_up() {
            return Vec::new();
        }
        let held = self.kept.copy == CopyState::Held;
        let maybe_held = held || self.kept.copy == CopyState::Sent;
        let mut bodies = Vec::new();
        if self.kept.copy == CopyState::Sent && self.kept.state != HostState::Closing {
            bodies.push(Body::Copy(self.item.clone()));
        }
        let offer = |reason| Body::Offer { reason, remaining: self.waiting() };
        let cancel = self.kept.wish == Wish::Cancel;
        match &self.kept.state {
            HostState::Turn { .. } | HostState::Granted { end: GrantEnd::At { .. }, .. }
                if held && self.handing_over =>
            {
                bodies.push(offer(OfferReason::Sleeping));
            }
            HostState::Turn { failed: true, .. } if held && self.kept.wish == Wish::Send => {
                bodies.push(offer(OfferReason::Failed));
            }
            HostState::Granted { .. } if cancel => bodies.push(Body::Cancel(Why::Cancelled)),
            HostState::Granted { turn, .. } if self.kept.wish == Wish::Hold => bodies.push(Body::Ask { turn: *turn }),
            HostState::Granted { turn, end: GrantEnd::Never { recalled: true, .. } } => {
                bodies.push(Body::Ask { turn: *turn });
            }
            HostState::Unknown { turn: Some(turn), .. } if held => bodies.push(Body::Ask { turn: *turn }),
            HostState::Closing if maybe_held => {
                bodies.push(Body::Cancel(if cancel { Why::Cancelled } else { Why::Settled }));
            }
            _ => {}
        }
        bodies
    }

    fn speak(&mut self, before: &[Body], now: &Now, settings: &Settings, effects: &mut Vec<Effect>) {
        let over = matches!(self.kept.state, HostState::Settling | HostState::Closing | HostState::Closed);
        if self.line.is_up() && self.kept.copy == CopyState::Unsent && !over {
            self.kept.copy = CopyState::Sent;
        }
        for body in self.line.speak(before, self.outstanding(), now, settings) {
            effects.push(self.say(body));
        }
    }

    fn say(&self, body: Body) -> Effect {
        let number = self.kept.number.unwrap_or_default();
        Effect::Send(Message { number, mail: self.item.id(), body })
    }

    fn learn(&mut self, replies: &Replies, path: Path, now: &Now, effects: &mut Vec<Effect>) {
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
    fn fail(&mut self, now: &Now, settings: &Settings, effects: &mut Vec<Effect>) {
        let mut next_try = now.after(settings.backoff(self.item.id(), self.kept.attempts));
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

    fn expire(&mut self, effects: &mut Vec<Effect>) {
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

    fn doubt(&mut self, recipients: Recipients, turn: Option<Turn>, now: &Now, settings: &Settings) {
        let stage = Stage::LookUpAt(now.after(settings.sent_settle));
        self.kept.state = HostState::Unknown { recipients, turn, patience: now.after(settings.peer_patience), stage };
    }

    /// Whether finding the Message-ID in Sent tells of whom the mail was accepted.
    ///
    /// It is the same in every dot of the mail, so an earlier dot for others would have left it there, too; and of a
    /// companion's dot the host does not know whom it was for, unless there is only one.
    fn found_is_evidence(&self) -> bool {
        let HostState::Unknown { turn, .. } = &self.kept.state else { return false };
        let known = turn.is_none() || self.item.recipients().len() == 1;
        known && !self.kept.statuses.iter().any(|s| matches!(s, Status::Delivered { .. } | Status::FoundInSent))
    }

    fn looked_up(&mut self, mut found: SentLookup, now: &Now, settings: &Settings, effects: &mut Vec<Effect>) {
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

    fn take_turn_after_doubt(&mut self, now: &Now, settings: &Settings) {
        let failed = matches!(self.kept.state, HostState::Unknown { turn: None, .. });
        let next_try = now.after(settings.backoff(self.item.id(), self.kept.attempts.max(1)));
        self.kept.state = HostState::Turn { failed, next_try };
    }

    fn turn_came_back(&mut self, now: &Now, settings: &Settings) {
        let wait = settings.backoff(self.item.id(), self.kept.attempts.max(1));
        let next_try = if self.kept.last_call { now.moment() } else { now.after(wait) };
        self.kept.state = HostState::Turn { failed: false, next_try };
    }

    /// The companion neither tries nor will try.
    fn companion_is_out(&mut self, now: &Now, settings: &Settings) {
        if matches!(self.kept.state, HostState::Granted { .. } | HostState::Unknown { turn: Some(_), .. }) {
            self.turn_came_back(now, settings);
        }
    }

    /// The companion has lost its copy, and with it all knowledge of what it did.
    fn part_with_copy(&mut self, now: &Now, settings: &Settings) {
        self.kept.copy = CopyState::Released;
        if let HostState::Granted { turn, end: GrantEnd::Never { .. } } = self.kept.state {
            self.doubt(self.waiting(), Some(turn), now, settings);
        }
        // Nobody is left to wait for.
        if let HostState::Unknown { patience, .. } = &mut self.kept.state {
            *patience = now.moment();
        }
    }

    fn part(&mut self, now: &Now, settings: &Settings) {
        self.line.set(false);
        self.handing_over = false;
        if self.kept.copy != CopyState::NoCompanion {
            self.part_with_copy(now, settings);
            self.kept.copy = CopyState::NoCompanion;
        }
    }

    fn recall(&mut self) {
        if let HostState::Granted { end: GrantEnd::Never { recalled, .. }, .. } = &mut self.kept.state {
            *recalled = true;
        }
    }

    fn hurry(&mut self, now: &Now) {
        match &mut self.kept.state {
            HostState::Turn { next_try, .. } => *next_try = now.moment(),
            HostState::Unknown { stage: Stage::LookUpAt(moment), .. } => *moment = now.moment(),
            HostState::Unknown { stage: Stage::Held | Stage::NoEvidence, .. } => {
                self.kept.state = HostState::Turn { failed: false, next_try: now.moment() };
            }
            _ => {}
        }
    }

    fn abort_try(&mut self, now: &Now, effects: &mut Vec<Effect>) {
        if let HostState::Sending { attempt } = self.kept.state {
            effects.push(Effect::AbortTry { attempt });
            self.kept.state = HostState::Turn { failed: false, next_try: now.moment() };
        }
    }

    fn may_try(&self) -> bool {
        self.kept.wish == Wish::Send && !self.handing_over
    }

    fn is_held(&self) -> bool {
        matches!(self.kept.state, HostState::Unknown { stage: Stage::Held, .. })
    }

    fn is_expired(&self, now: &Now, settings: &Settings) -> bool {
        now.wall_ms >= self.kept.submitted_ms.saturating_add(millis(settings.lifetime))
    }

    fn waiting(&self) -> Recipients {
        those(&self.kept.statuses, Status::is_waiting)
    }

    fn still_waiting(&self, recipients: &Recipients) -> Recipients {
        let waiting = self.waiting();
        recipients.iter().filter(|recipient| waiting.contains(*recipient)).collect()
    }
}

/// Gives a failure that applies to all to those of whom nothing was said.
pub(super) fn fill(replies: &mut Replies, recipients: &Recipients, failure: &Reply) {
    for recipient in recipients.iter() {
        if replies.of(recipient).is_none() {
            replies.set(recipient, failure.clone());
        }
    }
}
