//! A state as its driver sees it: clocks, tries, and what the effects of the machines come to.

use super::*;

impl State {
    pub(super) fn now(&self, side: Side) -> Now {
        let boot = if side == Side::Host { self.host_boot } else { self.companion_boot };
        Now { boot: BootId([boot; 16]), since_boot_ms: self.time(side), wall_ms: self.time(side) }
    }

    pub(super) fn time(&self, side: Side) -> u64 {
        if side == Side::Host { self.host_clock } else { self.companion_clock }
    }

    pub(super) fn clock(&mut self, side: Side) -> &mut u64 {
        if side == Side::Host { &mut self.host_clock } else { &mut self.companion_clock }
    }

    pub(super) fn attempt(&mut self, side: Side) -> &mut Try {
        if side == Side::Host { &mut self.host_try } else { &mut self.companion_try }
    }

    pub(super) fn try_of(&self, side: Side) -> &Try {
        if side == Side::Host { &self.host_try } else { &self.companion_try }
    }

    pub(super) fn wakes(&self, side: Side, settings: &Settings) -> bool {
        let wake = match side {
            Side::Host => self.host.as_ref().and_then(Host::wake),
            Side::Companion => self.companion.as_ref().and_then(|companion| companion.wake(settings)),
        };
        wake.is_some_and(|moment| self.now(side).reached(moment))
    }

    pub(super) fn spend(&mut self, fault: Fault, world: &World) {
        self.left[fault as usize] = self.left[fault as usize].saturating_sub(1);
        world.fired[fault as usize].fetch_add(1, Ordering::Relaxed);
    }

    pub(super) fn excuse(&mut self, recipients: &Recipients) {
        for place in recipients.iter() {
            self.excused[place as usize] += 1;
        }
    }

    pub(super) fn carry_out(&mut self, side: Side, effects: Vec<Effect>) {
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

    pub(super) fn has_turn_without_end(&self) -> bool {
        let granted = self.host.as_ref().map(Host::state);
        matches!(granted, Some(HostState::Granted { end: GrantEnd::Never { .. }, .. }))
    }

    pub(super) fn is_final(&self, place: usize) -> bool {
        self.accepted[place] > 0 || self.bounced[place] || self.cancelled
    }

    pub(super) fn bounced_or_accepted(&self, recipients: u32) -> bool {
        (0..recipients as usize).all(|place| self.is_final(place))
    }

    /// Whether a message is a grant of a turn that is over, or a return of one before the present.
    pub(super) fn stale(&self, body: &Body) -> bool {
        match (body, &self.host, &self.companion) {
            (Body::Return { turn, .. }, Some(host), _) => {
                matches!(host.state(), HostState::Granted { turn: granted, .. } if granted > turn)
            }
            (Body::Grant { turn, .. }, _, Some(companion)) => *turn < companion.last_turn(),
            _ => false,
        }
    }

    pub(super) fn same_turn(&self, host: &Option<Host>, companion: &Option<Companion>) -> bool {
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
