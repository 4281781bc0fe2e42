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
//!
//! What an action does is in model/act.rs, which actions there are in model/choose.rs, how effects are carried out in
//! model/state.rs, and the worlds, with how much of each is seen, in model/worlds.rs.
//!
//! Left out: what a companion's user does with a copy after the pair has ended, and look-ups that fail.

mod act;
mod choose;
mod state;
mod worlds;

use std::hash::{DefaultHasher, Hash, Hasher};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use stateright::{Checker, HasDiscoveries, Model, Property};

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
    /// The user takes back unasked what was handed over without end: a documented window.
    Reclaim,
    /// The two are no longer a pair; nothing is said between them any more.
    Unpair,
    /// The lifetime ended, and the sender is told; how often follows from the settings.
    Expiry,
    /// A lease became longer before its dot; how often follows from the lease.
    Renewal,
}

const KINDS: usize = 22;

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
    /// Whether a window was used in which both may send: the turn was taken from who had it.
    taken_over: bool,
    unpaired: bool,
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
            unpaired: false,
            violation: None,
        };
        let (host, effects) = Host::submit(self.item(), Some(1), true, &state.now(Side::Host), &self.settings);
        state.host = Some(host);
        state.carry_out(Side::Host, effects);
        state
    }
}

fn millis(settings: &Settings) -> u64 {
    settings.answer.as_millis() as u64
}

fn said(code: u16) -> Reply {
    Reply::new(code, None, "").unwrap()
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
                        // A host that has no companion any more needs its own path, or waits for its lifetime.
                        .filter(|good| !state.unpaired || good.contains(&Side::Host))
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
