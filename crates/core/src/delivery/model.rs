//! The two machines themselves, checked by exhaustion: host, companion, server, link and paths that fail.
//!
//! A state holds the very [`Host`] and [`Companion`] that drivers use, what is under way between them, what a server has
//! accepted, two clocks in ticks that drift apart by up to the margin, and how many faults of each kind are left.
//! A crash throws a machine away and decodes it from its saved bytes; it may fall between the saving of a state and the
//! first effect after it. Messages are delivered in any order, late, never or twice.
//!
//! The properties are those of docs/design/0012: S1 to S6 hold in every state, and from every state (or a part of them,
//! chosen by hash) a run without further faults, over either path alone, ends with nothing left on both sides.
//! A run is bounded by ticks and by faults; beyond that every order of events is tried.

use std::hash::{DefaultHasher, Hash, Hasher};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use stateright::{Checker, HasDiscoveries, Model, Property};

use self::Fault::{
    Cancel, CompanionCrash, CompanionReboot, CrashAfterSave, Drift, Drop, Duplicate, HandOver, Hold, HostCrash,
    HostReboot, LaterForOne, LinkCut, LostDot, LostReply, RefusedForGood, TakeOver, TryFailure,
};

use super::*;
use crate::ids::{BodyHash, BootId, MailId};

/// Kinds of faults and of unusual events, each with how often it may happen in one run.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
enum Fault {
    Drop,
    Duplicate,
    HostCrash,
    CompanionCrash,
    HostReboot,
    CompanionReboot,
    CrashAfterSave,
    TryFailure,
    LaterForOne,
    RefusedForGood,
    LostReply,
    LostDot,
    LinkCut,
    Drift,
    HandOver,
    TakeOver,
    Cancel,
    Hold,
}

const KINDS: usize = 18;

/// What a run may contain.
struct World {
    settings: Settings,
    recipients: u32,
    faults: [u8; KINDS],
    ticks: u64,
    look_up: SentLookupModel,
    /// One in so many states is held to the liveness properties; none where it is zero.
    live_one_in: u64,
    fired: [AtomicU64; KINDS],
}

#[derive(Clone, Copy, PartialEq)]
enum SentLookupModel {
    Perfect,
    Nothing,
}

#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug)]
enum Side {
    Host,
    Companion,
}

/// A try at a server, as its client's driver sees it.
#[derive(Clone, PartialEq, Eq, Hash, Debug)]
enum Try {
    Nothing,
    Connected {
        attempt: Attempt,
        recipients: Recipients,
    },
    /// Asked for the dot, with what was refused already.
    Waiting {
        attempt: Attempt,
        recipients: Recipients,
    },
    /// The dot is written; the server has not decided.
    Written {
        attempt: Attempt,
        recipients: Recipients,
        at: u64,
    },
    /// The server has decided; its reply is under way.
    Decided {
        attempt: Attempt,
        recipients: Recipients,
        accepted: bool,
        at: u64,
    },
}

#[derive(Clone, PartialEq, Eq, Hash, Debug)]
struct State {
    host: Option<Host>,
    companion: Option<Companion>,
    ledger: CompanionLedger,
    host_body: bool,
    companion_body: bool,
    host_try: Try,
    companion_try: Try,
    host_looks: bool,
    companion_looks: bool,
    bounces: Vec<u32>,
    network: Vec<(Side, Body)>,
    link_up: bool,
    host_clock: u64,
    companion_clock: u64,
    host_boot: u8,
    companion_boot: u8,
    left: [u8; KINDS],
    accepted: [u8; 2],
    excused: [u8; 2],
    bounced: [bool; 2],
    cancelled: bool,
    taken_over: bool,
    violation: Option<&'static str>,
}

#[derive(Clone, PartialEq, Eq, Debug)]
enum Action {
    Tick(Side),
    Timer(Side),
    Deliver(usize),
    DropMessage(usize),
    DeliverAndKeep(usize),
    Crash {
        side: Side,
        reboot: bool,
    },
    CrashAfterSave(Box<Action>),
    FailTry(Side),
    AskDot(Side),
    /// One recipient is put off (451) or refused (550) before the dot.
    RefuseOne {
        side: Side,
        code: u16,
    },
    Decide {
        side: Side,
        accept: bool,
    },
    Reply(Side),
    LoseReply(Side),
    LookUp(Side),
    FileBounces,
    CutLink,
    JoinLink,
    User(Event),
}

impl World {
    fn new(recipients: u32, ticks: u64, look_up: SentLookupModel, faults: &[(Fault, u8)]) -> Self {
        let tick = Duration::from_millis(1);
        let settings = Settings {
            answer: tick,
            lease: tick * 3,
            slowest_line: u64::MAX,
            margin: tick,
            lifetime: Duration::from_secs(3600),
            delay_warning: Duration::ZERO,
            backoff_first: tick,
            backoff_max: tick,
            jitter_percent: 0,
            resend_first: tick,
            resend_max: tick,
            request_patience: tick,
            peer_patience: tick,
            sent_settle: tick,
            unknown: UnknownPolicy::Retry,
            ..Settings::default()
        };
        let mut left = [0; KINDS];
        for (fault, times) in faults {
            left[*fault as usize] = *times;
        }
        let fired = std::array::from_fn(|_| AtomicU64::new(0));
        Self { settings, recipients, faults: left, ticks, look_up, live_one_in: 0, fired }
    }

    fn item(&self) -> Arc<Item> {
        let address = |text: &str| Address::new(text).unwrap();
        let recipients = (0..self.recipients).map(|place| address(["a@x", "b@x"][place as usize])).collect();
        Arc::new(Item::new(MailId([1; 16]), BodyHash([2; 32]), 1, address(""), recipients).unwrap())
    }

    fn begin(&self) -> State {
        let mut state = State {
            host: None,
            companion: None,
            ledger: CompanionLedger::new(),
            host_body: true,
            companion_body: false,
            host_try: Try::Nothing,
            companion_try: Try::Nothing,
            host_looks: false,
            companion_looks: false,
            bounces: Vec::new(),
            network: Vec::new(),
            link_up: true,
            host_clock: 0,
            companion_clock: 0,
            host_boot: 0,
            companion_boot: 0,
            left: self.faults,
            accepted: [0; 2],
            excused: [0; 2],
            bounced: [false; 2],
            cancelled: false,
            taken_over: false,
            violation: None,
        };
        let (host, effects) = Host::submit(self.item(), Some(1), true, &state.now(Side::Host), &self.settings);
        state.host = Some(host);
        state.carry_out(Side::Host, effects);
        state
    }

    /// Tells one machine of an event, and carries out what it asks for, or dies after saving.
    fn tell(&self, state: &mut State, side: Side, event: Event, dies: bool) {
        let now = state.now(side);
        let effects = match side {
            Side::Host => {
                let Some(host) = &mut state.host else { return };
                let before = host.state().clone();
                let effects = host.handle(event, &now, &self.settings);
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
                companion.handle(event, &now, &self.settings)
            }
        };
        if !dies {
            state.carry_out(side, effects);
        } else if effects.first() == Some(&Effect::Save) {
            self.crash(state, side, false);
        }
    }

    fn crash(&self, state: &mut State, side: Side, reboot: bool) {
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
        if state.link_up {
            self.tell(state, side, Event::LinkUp, false);
        }
    }

    fn deliver(&self, state: &mut State, to: Side, body: Body, dies: bool) {
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

    fn step(&self, last: &State, action: &Action, dies: bool) -> State {
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
            Action::User(event) => {
                let (side, fault) = match event {
                    Event::TakeOver => (Side::Companion, Fault::TakeOver),
                    Event::Cancel => (Side::Host, Fault::Cancel),
                    Event::Hold | Event::Release => (Side::Host, Fault::Hold),
                    _ => (Side::Host, Fault::HandOver),
                };
                if !matches!(event, Event::Release | Event::TakeBack) {
                    state.spend(fault, self);
                }
                state.cancelled |= *event == Event::Cancel;
                state.taken_over |= *event == Event::TakeOver;
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

    fn ask_dot(&self, state: &mut State, side: Side, refused: Replies, dies: bool) {
        let Try::Connected { attempt, recipients } = state.attempt(side).clone() else { return };
        let recipients = recipients.without(&refused.iter().map(|(place, _)| place).collect());
        *state.attempt(side) = Try::Waiting { attempt, recipients };
        self.tell(state, side, Event::DotAsked { attempt, refused }, dies);
    }

    fn steps(&self, state: &State, faults: bool) -> Vec<Action> {
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
        } else {
            actions.push(Action::JoinLink);
        }
        if let Some(host) = &state.host {
            let asks = [(Fault::HandOver, Event::HandOver), (Fault::Cancel, Event::Cancel), (Fault::Hold, Event::Hold)];
            for (fault, event) in asks {
                if left(fault) {
                    actions.push(Action::User(event));
                }
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
    fn ends_well(&self, state: &State, good: &[Side]) -> bool {
        let mut state = state.clone();
        if !state.link_up {
            state = self.step(&state, &Action::JoinLink, false);
        }
        for _ in 0..600 {
            if state.host.is_none() && state.companion.is_none() {
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

    fn is_sampled(&self, state: &State) -> bool {
        let mut hasher = DefaultHasher::new();
        state.hash(&mut hasher);
        self.live_one_in > 0 && hasher.finish().is_multiple_of(self.live_one_in)
    }
}

fn millis(settings: &Settings) -> u64 {
    settings.answer.as_millis() as u64
}

fn said(code: u16) -> Reply {
    Reply::new(code, None, "").unwrap()
}

impl State {
    fn now(&self, side: Side) -> Now {
        let boot = if side == Side::Host { self.host_boot } else { self.companion_boot };
        Now { boot: BootId([boot; 16]), since_boot_ms: self.time(side), wall_ms: self.time(side) }
    }

    fn time(&self, side: Side) -> u64 {
        if side == Side::Host { self.host_clock } else { self.companion_clock }
    }

    fn clock(&mut self, side: Side) -> &mut u64 {
        if side == Side::Host { &mut self.host_clock } else { &mut self.companion_clock }
    }

    fn attempt(&mut self, side: Side) -> &mut Try {
        if side == Side::Host { &mut self.host_try } else { &mut self.companion_try }
    }

    fn try_of(&self, side: Side) -> &Try {
        if side == Side::Host { &self.host_try } else { &self.companion_try }
    }

    fn wakes(&self, side: Side, settings: &Settings) -> bool {
        let wake = match side {
            Side::Host => self.host.as_ref().and_then(Host::wake),
            Side::Companion => self.companion.as_ref().and_then(|companion| companion.wake(settings)),
        };
        wake.is_some_and(|moment| self.now(side).reached(moment))
    }

    fn spend(&mut self, fault: Fault, world: &World) {
        self.left[fault as usize] = self.left[fault as usize].saturating_sub(1);
        world.fired[fault as usize].fetch_add(1, Ordering::Relaxed);
    }

    fn excuse(&mut self, recipients: &Recipients) {
        for place in recipients.iter() {
            self.excused[place as usize] += 1;
        }
    }

    fn carry_out(&mut self, side: Side, effects: Vec<Effect>) {
        let at = self.time(side);
        for effect in effects {
            match effect {
                Effect::Save | Effect::WarnDelayed { .. } | Effect::FileInSent | Effect::HandedOver => {}
                Effect::Send(message) => {
                    let to = if side == Side::Host { Side::Companion } else { Side::Host };
                    self.network.push((to, message.body));
                }
                Effect::Try { attempt, recipients } => *self.attempt(side) = Try::Connected { attempt, recipients },
                Effect::WriteDot { attempt, .. } => {
                    if let Try::Waiting { attempt: current, recipients } = self.attempt(side).clone()
                        && current == attempt
                    {
                        *self.attempt(side) = Try::Written { attempt, recipients, at };
                    } else {
                        self.violation = Some("a dot was asked for that no try is ready for");
                    }
                }
                Effect::AbortTry { .. } => {
                    if matches!(self.try_of(side), Try::Written { .. } | Try::Decided { .. }) {
                        self.violation = Some("a try was broken off after its dot");
                    }
                    *self.attempt(side) = Try::Nothing;
                }
                Effect::LookUpSent if side == Side::Host => self.host_looks = true,
                Effect::LookUpSent => self.companion_looks = true,
                Effect::Bounce { recipients } => {
                    self.bounces.extend(recipients.iter().map(|(place, _)| *place));
                    self.bounces.sort_unstable();
                    self.bounces.dedup();
                }
                Effect::DropBody if side == Side::Host => self.host_body = false,
                Effect::DropBody => self.companion_body = false,
                Effect::Forget if side == Side::Host => self.host = None,
                Effect::Forget => {
                    self.companion = None;
                    self.ledger.finish(1);
                }
            }
        }
    }

    fn is_final(&self, place: usize) -> bool {
        self.accepted[place] > 0 || self.bounced[place] || self.cancelled
    }

    fn bounced_or_accepted(&self, recipients: u32) -> bool {
        (0..recipients as usize).all(|place| self.is_final(place))
    }

    /// Whether a message is a grant of a turn that is over, or a return of one before the present.
    fn stale(&self, body: &Body) -> bool {
        match (body, &self.host, &self.companion) {
            (Body::Return { turn, .. }, Some(host), _) => {
                matches!(host.state(), HostState::Granted { turn: granted, .. } if granted > turn)
            }
            (Body::Grant { turn, .. }, _, Some(companion)) => *turn < companion.last_turn(),
            _ => false,
        }
    }

    fn same_turn(&self, host: &Option<Host>, companion: &Option<Companion>) -> bool {
        let granted = |host: &Option<Host>| {
            matches!(
                host.as_ref().map(Host::state),
                Some(HostState::Granted { .. } | HostState::Settling | HostState::Closing) | None
            )
        };
        granted(host) == granted(&self.host)
            && companion.as_ref().map(|it| it.state()) == self.companion.as_ref().map(|it| it.state())
    }
}

impl Model for World {
    type State = State;
    type Action = Action;

    fn init_states(&self) -> Vec<State> {
        vec![self.begin()]
    }

    fn actions(&self, state: &State, actions: &mut Vec<Action>) {
        let steps = self.steps(state, true);
        if state.left[Fault::CrashAfterSave as usize] > 0 {
            let told = |action: &&Action| {
                !matches!(
                    action,
                    Action::Tick(_)
                        | Action::Crash { .. }
                        | Action::DropMessage(_)
                        | Action::CutLink
                        | Action::JoinLink
                        | Action::Decide { .. }
                )
            };
            actions.extend(steps.iter().filter(told).map(|action| Action::CrashAfterSave(Box::new(action.clone()))));
        }
        actions.extend(steps);
    }

    fn next_state(&self, last: &State, action: Action) -> Option<State> {
        let next = self.step(last, &action, false);
        (next != *last).then_some(next)
    }

    fn properties(&self) -> Vec<Property<Self>> {
        vec![
            Property::always("S1 what is neither accepted nor bounced has a copy", |world, state: &State| {
                state.host_body || state.bounced_or_accepted(world.recipients)
            }),
            Property::always("S2 never are both entitled to write the dot", |world, state: &State| {
                let companion = state
                    .companion
                    .as_ref()
                    .is_some_and(|it| it.is_entitled(&state.now(Side::Companion), &world.settings));
                !(companion && state.host.as_ref().is_some_and(Host::is_entitled)) || state.taken_over
            }),
            Property::always("S3 accepted once, and once more for each window", |world, state: &State| {
                (0..world.recipients as usize)
                    .all(|place| state.accepted[place] <= 1 + state.excused[place] || state.taken_over)
            }),
            Property::always("S4 with a look-up that tells, accepted once", |world, state: &State| {
                world.look_up == SentLookupModel::Nothing
                    || world.recipients > 1
                    || state.taken_over
                    || state.accepted[0] <= 1
            }),
            Property::always("S5 a copy goes only when all is decided", |world, state: &State| {
                let held = state.companion_body || state.companion.is_none() && state.ledger.admits(1);
                held || (0..world.recipients as usize).all(|place| {
                    let status = state.host.as_ref().map(|host| &host.statuses()[place]);
                    state.is_final(place) || status.is_some_and(|status| !status.is_waiting())
                })
            }),
            Property::always("S6 nothing stale has an effect", |_, state: &State| state.violation.is_none()),
            Property::always("L1 L2 with either path good, all is done", |world, state: &State| {
                !world.is_sampled(state)
                    || [&[Side::Host][..], &[Side::Companion], &[Side::Host, Side::Companion]]
                        .iter()
                        .all(|good| world.ends_well(state, good))
            }),
            Property::sometimes("the host delivers", |_, state: &State| {
                state.accepted[0] > 0 && matches!(state.host_try, Try::Decided { .. })
            }),
            Property::sometimes("the companion delivers", |_, state: &State| {
                state.accepted[0] > 0 && matches!(state.companion_try, Try::Decided { .. })
            }),
            Property::sometimes("both forget", |_, state: &State| {
                state.host.is_none() && state.companion.is_none() && !state.ledger.admits(1)
            }),
        ]
    }
}

/// How many steps are taken in a world in a usual run; a longer one needs nothing but a greater number here.
const STEPS: usize = 6_000_000;

/// Checks a world to its end and prints how many states it has; every fault that it allows must have happened.
///
/// Depth first, so that memory holds what was seen as hashes and only one path as states. A world with more than
/// [`STEPS`] is not seen to its end, and says so.
fn check(name: &str, world: World) -> Extent {
    let checker = world
        .checker()
        .threads(2)
        .finish_when(HasDiscoveries::AnyFailures)
        .target_state_count(STEPS)
        .spawn_dfs()
        .join();
    let states = checker.unique_state_count();
    let extent = if checker.state_count() < STEPS { Extent::Whole } else { Extent::Part };
    println!("{name}: {states} states, {extent:?}");
    checker.assert_properties();
    for (kind, times) in checker.model().faults.iter().enumerate() {
        let fired = checker.model().fired[kind].load(Ordering::Relaxed);
        assert!(*times == 0 || fired > 0, "fault {kind} of {name} never happened");
    }
    extent
}

/// How much of a world was seen.
#[derive(PartialEq, Debug)]
enum Extent {
    Whole,
    Part,
}

#[test]
fn a_pair_whose_link_is_cut_once_keeps_its_promises_in_every_state() {
    let faults = [(TryFailure, 1), (LinkCut, 1), (Drift, 1)];
    let world = World { live_one_in: 16, ..World::new(1, 4, SentLookupModel::Nothing, &faults) };
    assert_eq!(check("one cut", world), Extent::Whole);
}

#[test]
fn a_pair_that_crashes_once_keeps_its_promises_in_every_state() {
    let faults = [(TryFailure, 1), (CrashAfterSave, 1), (Drift, 1)];
    let world = World { live_one_in: 16, ..World::new(1, 4, SentLookupModel::Nothing, &faults) };
    assert_eq!(check("one crash", world), Extent::Whole);
}

#[test]
fn the_machines_keep_their_promises_whatever_the_link_does() {
    let faults = [(TryFailure, 1), (Drop, 1), (Duplicate, 1), (LinkCut, 1), (Drift, 1)];
    check("link", World { live_one_in: 64, ..World::new(1, 6, SentLookupModel::Nothing, &faults) });
}

#[test]
fn the_machines_keep_their_promises_through_crashes() {
    let faults = [(TryFailure, 1), (HostCrash, 1), (CompanionCrash, 1), (CrashAfterSave, 1), (Drift, 1)];
    check("crashes", World { live_one_in: 64, ..World::new(1, 6, SentLookupModel::Nothing, &faults) });
}

#[test]
fn the_machines_keep_their_promises_through_reboots() {
    let faults = [(TryFailure, 1), (HostReboot, 1), (CompanionReboot, 1), (LostReply, 1), (Drift, 1)];
    check("reboots", World { live_one_in: 64, ..World::new(1, 7, SentLookupModel::Nothing, &faults) });
}

#[test]
fn recipients_who_are_refused_or_put_off_stop_no_other() {
    let faults = [(TryFailure, 1), (LaterForOne, 1), (RefusedForGood, 1), (LostReply, 1), (Drift, 1)];
    check("recipients", World { live_one_in: 64, ..World::new(2, 6, SentLookupModel::Nothing, &faults) });
}

#[test]
fn a_look_up_that_tells_leaves_no_mail_accepted_twice() {
    let faults = [(TryFailure, 1), (LostReply, 1), (LostDot, 1), (LinkCut, 1), (CompanionCrash, 1), (Drift, 1)];
    check("look-up", World { live_one_in: 64, ..World::new(1, 6, SentLookupModel::Perfect, &faults) });
}

#[test]
fn what_stands_in_sent_loses_no_recipient() {
    let faults = [(TryFailure, 1), (LaterForOne, 1), (LostReply, 1), (LostDot, 1), (LinkCut, 1), (Drift, 1)];
    check("look-up of two", World { live_one_in: 64, ..World::new(2, 6, SentLookupModel::Perfect, &faults) });
}

#[test]
fn users_may_hold_cancel_and_hand_over_at_any_time() {
    let faults = [(TryFailure, 1), (HandOver, 1), (Cancel, 1), (Hold, 1), (LinkCut, 1), (Drift, 1)];
    check("users", World { live_one_in: 64, ..World::new(1, 4, SentLookupModel::Nothing, &faults) });
}

#[test]
fn taking_over_for_a_host_that_is_not_lost_ends_well() {
    let faults = [(TryFailure, 1), (TakeOver, 1), (LinkCut, 1), (Drift, 1)];
    check("taking over", World { live_one_in: 64, ..World::new(1, 6, SentLookupModel::Nothing, &faults) });
}

/// The rule that seems natural, and why this is not so simple.
#[test]
fn the_naive_rule_lets_both_send_at_once() {
    let mut world = World::new(1, 4, SentLookupModel::Nothing, &[(TryFailure, 1), (LinkCut, 1), (Drift, 1)]);
    world.settings.takes_over_when_link_is_down = true;
    let two = "S2 never are both entitled to write the dot";
    let checker = world.checker().threads(2).finish_when(HasDiscoveries::AnyOf([two].into())).spawn_bfs().join();
    let steps = checker.discovery(two).expect("the checker finds two that may send").into_actions();
    println!("naive rule: both may send after {} steps: {steps:?}", steps.len());
}

/// What the margin is for: the checker sees the drift that it covers.
#[test]
fn without_a_margin_drifting_clocks_let_both_send_at_once() {
    let mut world = World::new(1, 6, SentLookupModel::Nothing, &[(TryFailure, 1), (LinkCut, 1), (Drift, 1)]);
    world.settings.margin = Duration::ZERO;
    world.settings.sent_settle = Duration::ZERO;
    world.settings.peer_patience = Duration::ZERO;
    let two = "S2 never are both entitled to write the dot";
    let checker = world.checker().threads(2).finish_when(HasDiscoveries::AnyOf([two].into()));
    let checker = checker.target_state_count(STEPS).spawn_bfs().join();
    assert!(checker.discovery(two).is_some(), "not found in {} states", checker.unique_state_count());
}
