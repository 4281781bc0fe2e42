//! One batch at the desk: what inputs do to machines, ledgers and timers, all of it within one transaction of the store.
//!
//! Invariants:
//! - whatever a machine asked to have saved is in the transaction before any outcome of the same event is given out;
//! - a ledger is saved with the state that it goes with;
//! - every mail that was touched is named, so that its timer can be set anew where the transaction fails.

use std::collections::HashMap;
use std::sync::Arc;

use packetboat_core::delivery::Body as Said;
use packetboat_core::delivery::{
    Companion, CompanionLedger, Effect, Event, Frame, Host, HostLedger, Item, Message, Now, Path, Reply, Settings,
    Verdict,
};
use packetboat_core::ids::MailId;

use super::{Input, Outcome, Sweep, Tie};
use crate::outbox::body::{Body, Place};
use crate::outbox::machine::{Machine, Side};
use crate::outbox::store::{Batch, StoreError};
use crate::outbox::timers::Timers;
use crate::outbox::view::{MailView, path_word};
use crate::pair::Role;
use crate::parting::holds_turn;

/// A batch under way: the desk without its store, which the transaction has.
pub(super) struct Work<'a> {
    pub(super) settings: &'a mut Settings,
    pub(super) tie: Option<Tie>,
    pub(super) host_ledger: &'a mut HostLedger,
    pub(super) companion_ledger: &'a mut CompanionLedger,
    pub(super) machines: &'a mut HashMap<MailId, Machine>,
    pub(super) timers: &'a mut Timers,
    pub(super) link_up: &'a mut bool,
    pub(super) path_up: &'a mut bool,
    pub(super) handing_over: &'a mut bool,
    pub(super) begun: Vec<Sweep>,
    pub(super) now: &'a Now,
    pub(super) outcomes: Vec<Outcome>,
    pub(super) touched: &'a mut Vec<MailId>,
}

impl Work<'_> {
    pub(super) fn take(&mut self, batch: &Batch<'_>, input: &Input) -> Result<(), StoreError> {
        match input {
            Input::Submitted { item, body } => self.submit(batch, item, body),
            Input::Heard(Frame::Mail(message)) => self.hear(batch, message),
            Input::Heard(Frame::Finished { below }) => {
                if let Some(Tie { serial, role: Role::Companion }) = self.tie {
                    self.companion_ledger.finish_below(*below);
                    batch.save_ledger(serial, &self.companion_ledger.encode())?;
                }
                Ok(())
            }
            Input::Copied { message, body } => self.keep_copy(batch, message, body),
            Input::Happened { mail, event } => self.tell(batch, mail, event.clone()),
            Input::Parted { mail } => self.part(batch, mail),
            Input::HappenedToAll(event) => self.begin_sweep(batch, event),
            Input::Settings(settings) => {
                *self.settings = settings.as_ref().clone();
                Ok(())
            }
        }
    }

    fn submit(&mut self, batch: &Batch<'_>, item: &Arc<Item>, body: &Body) -> Result<(), StoreError> {
        let mut number = None;
        let mut pair = None;
        if let Some(Tie { serial, role: Role::Host }) = self.tie {
            number = Some(self.host_ledger.number());
            pair = Some(serial);
            batch.save_ledger(serial, &self.host_ledger.encode())?;
        }
        let (host, effects) = Host::submit(item.clone(), number, *self.link_up, self.now, self.settings);
        let machine = Machine::Host(host);
        batch.add(&machine, pair, body)?;
        self.keep(machine);
        self.carry_out(batch, &item.id(), effects)
    }

    fn hear(&mut self, batch: &Batch<'_>, message: &Message) -> Result<(), StoreError> {
        let Some(tie) = self.tie else { return Ok(()) };
        if self.load(batch, &message.mail)? {
            if let Said::Return { replies, .. } = &message.body {
                let failed = replies.iter().find(|(_, reply)| reply.verdict() != Verdict::Accepted);
                if let Some((_, reply)) = failed {
                    self.note(batch, &message.mail, Path::Companion, reply)?;
                }
            }
            return self.tell(batch, &message.mail, Event::Message(message.clone()));
        }
        let answer = match tie.role {
            Role::Host => self.host_ledger.answer(message),
            Role::Companion => {
                if matches!(message.body, Said::Copy(_)) && self.companion_ledger.admits(message.number) {
                    self.outcomes.push(Outcome::Fetch(message.clone()));
                    return Ok(());
                }
                let answer = self.companion_ledger.answer(message);
                batch.save_ledger(tie.serial, &self.companion_ledger.encode())?;
                answer
            }
        };
        self.outcomes.extend(answer.map(|answer| Outcome::Say(Frame::Mail(answer))));
        Ok(())
    }

    fn keep_copy(&mut self, batch: &Batch<'_>, message: &Message, body: &Body) -> Result<(), StoreError> {
        let Said::Copy(item) = &message.body else { return Ok(()) };
        let Some(Tie { serial, role: Role::Companion }) = self.tie else { return Ok(()) };
        if self.load(batch, &message.mail)? {
            // It came twice; the host asks because it did not hear the answer.
            return self.tell(batch, &message.mail, Event::Message(message.clone()));
        }
        let is_it = body.hash == item.body() && body.size_bytes == item.size_bytes();
        if !is_it || !self.companion_ledger.admits(message.number) {
            if body.place == Place::File {
                self.outcomes.push(Outcome::Discard(message.mail));
            }
            return Ok(());
        }
        let (companion, effects) =
            Companion::receive(message.number, item.clone(), *self.path_up, self.now, self.settings);
        let machine = Machine::Companion(companion);
        batch.add(&machine, Some(serial), body)?;
        self.keep(machine);
        self.carry_out(batch, &message.mail, effects)
    }

    /// The mail's own host goes on alone. A copy goes, since its host has the mail; but not one that is being sent here or
    /// was taken over, of which this may be the only one.
    fn part(&mut self, batch: &Batch<'_>, mail: &MailId) -> Result<(), StoreError> {
        if !self.load(batch, mail)? {
            return Ok(());
        }
        let Some(machine) = self.machines.get(mail) else { return Ok(()) };
        if machine.side() == Side::Own || holds_turn(machine) {
            self.tell(batch, mail, Event::Unpaired)?;
            return batch.leave_pair(mail);
        }
        tracing::info!(%mail, "a copy is dropped, because the pair is over");
        batch.forget(mail, None)?;
        self.outcomes.push(Outcome::Discard(*mail));
        self.machines.remove(mail);
        self.timers.set(mail, None);
        Ok(())
    }

    /// Tells a mail's machine what happened, if there is one.
    pub(super) fn tell(&mut self, batch: &Batch<'_>, mail: &MailId, event: Event) -> Result<(), StoreError> {
        self.touched.push(*mail);
        // Who is about to be told so need not be told twice.
        let standing = !matches!(event, Event::LinkUp | Event::LinkDown | Event::Restarted);
        if !self.load_machine(batch, mail, standing)? {
            self.timers.set(mail, None);
            return Ok(());
        }
        let Some(machine) = self.machines.get_mut(mail) else { return Ok(()) };
        let path = match machine.side() {
            Side::Own => Path::Host,
            Side::Copy => Path::Companion,
        };
        let failure = match &event {
            Event::TryFailed { failure, .. } => Some(failure.clone()),
            Event::AnswerLost { .. } => Reply::new(451, None, ANSWER_LOST).ok(),
            Event::Answered { replies, .. } => {
                replies.iter().map(|(_, reply)| reply).find(|reply| reply.verdict() != Verdict::Accepted).cloned()
            }
            _ => None,
        };
        let was_timer = event == Event::Timer;
        let effects = machine.handle(event, self.now, self.settings);
        if let Some(failure) = failure {
            self.note(batch, mail, path, &failure)?;
        }
        self.carry_out(batch, mail, effects)?;
        if was_timer && self.timers.of(mail).is_some_and(|at| at <= self.now.since_boot_ms) {
            // A machine that wants what it just had would have the desk turn in circles.
            self.timers.set(mail, Some(self.now.since_boot_ms + AGAIN_MS));
        }
        Ok(())
    }

    /// Saves what a machine wants saved and passes the rest on.
    fn carry_out(&mut self, batch: &Batch<'_>, mail: &MailId, effects: Vec<Effect>) -> Result<(), StoreError> {
        self.touched.push(*mail);
        let Some(machine) = self.machines.get(mail) else { return Ok(()) };
        let wake = machine.wake(self.settings).map(|moment| moment.since_boot_ms);
        self.timers.set(mail, wake);
        let forgotten = effects.contains(&Effect::Forget);
        for effect in effects {
            match &effect {
                Effect::Save if forgotten => {}
                Effect::Save => batch.save(machine)?,
                Effect::Forget => {
                    let mut view = MailView::of(machine, batch.paths(mail)?, None);
                    view.finished_ms = Some(self.now.wall_ms);
                    let own = machine.side() == Side::Own;
                    if let (false, Some(number), Some(tie)) = (own, machine.number(), self.tie)
                        && batch.is_of_pair(mail, tie.serial)?
                    {
                        self.companion_ledger.finish(number);
                        batch.save_ledger(tie.serial, &self.companion_ledger.encode())?;
                    }
                    batch.forget(mail, own.then_some(&view))?;
                }
                Effect::DropBody => {
                    batch.drop_body(mail)?;
                    self.outcomes.push(Outcome::Discard(*mail));
                }
                _ => self.outcomes.push(Outcome::Do { mail: *mail, item: machine.item().clone(), effect }),
            }
        }
        if forgotten {
            self.machines.remove(mail);
            self.timers.set(mail, None);
        }
        Ok(())
    }

    fn begin_sweep(&mut self, batch: &Batch<'_>, event: &Event) -> Result<(), StoreError> {
        match event {
            Event::LinkUp => *self.link_up = true,
            Event::LinkDown => (*self.link_up, *self.handing_over) = (false, false),
            Event::PathUp => *self.path_up = true,
            Event::PathDown => *self.path_up = false,
            Event::HandOver => *self.handing_over = true,
            Event::TakeBack => *self.handing_over = false,
            _ => {}
        }
        if let (Event::LinkUp, Some(Tie { role: Role::Host, serial })) = (event, self.tie) {
            // As this batch has it: a mail that came a moment ago is open too.
            let below = self.host_ledger.finished_below(batch.first_open(serial)?);
            self.outcomes.push(Outcome::Say(Frame::Finished { below }));
        }
        self.begun.push(Sweep { event: event.clone(), after: 0 });
        Ok(())
    }

    /// Reads a mail's machine where it is not at hand; says whether there is one.
    fn load(&mut self, batch: &Batch<'_>, mail: &MailId) -> Result<bool, StoreError> {
        self.load_machine(batch, mail, true)
    }

    /// The same; `standing` says whether the machine is to hear how link and path stand, which no saved state tells.
    fn load_machine(&mut self, batch: &Batch<'_>, mail: &MailId, standing: bool) -> Result<bool, StoreError> {
        if self.machines.contains_key(mail) {
            return Ok(true);
        }
        let Some(machine) = batch.machine(mail)? else { return Ok(false) };
        self.keep(machine);
        let link = (*self.link_up && standing).then_some(Event::LinkUp);
        let path = (!*self.path_up && standing).then_some(Event::PathDown);
        for event in [path, link].into_iter().flatten() {
            let Some(machine) = self.machines.get_mut(mail) else { break };
            let effects = machine.handle(event, self.now, self.settings);
            self.carry_out(batch, mail, effects)?;
        }
        Ok(self.machines.contains_key(mail))
    }

    fn keep(&mut self, machine: Machine) {
        self.machines.insert(machine.id(), machine);
    }

    fn note(&mut self, batch: &Batch<'_>, mail: &MailId, path: Path, reply: &Reply) -> Result<(), StoreError> {
        batch.note_failure(mail, path_word(path), &reply.to_string(), self.now.wall_ms)
    }
}

/// How soon a machine is woken again that wants it at once.
const AGAIN_MS: u64 = 200;

const ANSWER_LOST: &str = "the final dot was sent, and no answer came";
