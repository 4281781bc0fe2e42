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

mod course;
mod react;
mod record;

use std::sync::Arc;

use super::event::{Attempt, Effect, Event, SentLookup};
use super::host::{Stage, fill, rounds};
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
    /// How many of these only went on with those whom a server wanted in a transaction of their own.
    continued: Attempt,
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
            continued: 0,
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

    /// How often it was tried here; several transactions with one server, one after the other, are one try.
    pub fn attempts(&self) -> Attempt {
        rounds(self.kept.attempts, self.kept.continued)
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
