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

mod course;
mod react;
mod record;

use std::sync::Arc;

pub(super) use self::record::{decode_continued, decode_flag};
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
    /// How many of these only went on with those whom a server wanted in a transaction of their own.
    continued: Attempt,
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
            continued: 0,
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

    /// How often it was tried here; several transactions with one server, one after the other, are one try.
    pub fn attempts(&self) -> Attempt {
        rounds(self.kept.attempts, self.kept.continued)
    }

    /// Whether the host may come to write the dot of a try without anything else happening first.
    pub fn is_entitled(&self) -> bool {
        matches!(self.kept.state, HostState::Sending { .. } | HostState::Dot { .. })
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

/// How many tries are not only further transactions of the one before; that is what a wait grows with.
pub(super) fn rounds(attempts: Attempt, continued: Attempt) -> Attempt {
    attempts.saturating_sub(continued).max(attempts.min(1))
}

/// Gives a failure that applies to all to those of whom nothing was said.
pub(super) fn fill(replies: &mut Replies, recipients: &Recipients, failure: &Reply) {
    for recipient in recipients.iter() {
        if replies.of(recipient).is_none() {
            replies.set(recipient, failure.clone());
        }
    }
}
