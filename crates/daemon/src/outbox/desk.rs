//! Where events meet machines: each batch of inputs is one transaction, and what follows from it comes out in order.
//!
//! A desk takes inputs of any kind, tells the machines of the mails that they concern, saves what changed, and only then
//! gives out what is to be done. It does nothing itself, reads no clock and waits for nothing, so a test can drive two of
//! them in virtual time and stop between any two outcomes.
//!
//! Memory is flat: machines are read when something concerns them and kept only while there are few; what stays for each
//! mail is when it wants to be woken. A machine that is read again has forgotten what it said over the link and says it
//! again, which is harmless.
//!
//! What concerns every mail, such as the link coming up, goes through the queue page by page, so that ten thousand mails
//! neither fill memory with what they have to say nor hold up a submission.

use std::collections::{HashMap, VecDeque};
use std::sync::Arc;

use packetboat_core::delivery::Body as Said;
use packetboat_core::delivery::{
    Companion, CompanionLedger, Effect, Event, Frame, Host, HostLedger, Item, Message, Now, Path, Reply, Settings,
    Verdict,
};
use packetboat_core::ids::MailId;

use super::body::{Body, Place};
use super::machine::{Machine, Side};
use super::store::{Batch, Store, StoreError};
use super::timers::{Timers, Wakes};
use super::view::{MailView, path_word};
use crate::pair::Role;
use crate::parting::holds_turn;

/// The outbox with its machines.
#[derive(Debug)]
pub struct Desk {
    store: Store,
    settings: Settings,
    tie: Option<Tie>,
    host_ledger: HostLedger,
    companion_ledger: CompanionLedger,
    machines: HashMap<MailId, Machine>,
    timers: Wakes,
    link_up: bool,
    path_up: bool,
    handing_over: bool,
    sweeps: VecDeque<Sweep>,
    room: bool,
}

/// The pair that this device is in.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Tie {
    /// Which of its pairs.
    pub serial: u64,
    /// What this device is in it.
    pub role: Role,
}

/// Something that concerns the outbox.
#[derive(Clone, Debug)]
pub enum Input {
    /// A mail was submitted here.
    Submitted {
        /// The mail.
        item: Arc<Item>,
        /// Its body; a large one is durable already.
        body: Body,
    },
    /// The other device said something.
    Heard(Frame),
    /// The body of a copy came.
    Copied {
        /// The copy message that it belongs to.
        message: Message,
        /// The body.
        body: Body,
    },
    /// Something happened to one mail.
    Happened {
        /// Which mail.
        mail: MailId,
        /// What.
        event: Event,
    },
    /// The pair that a mail belongs to is over.
    Parted {
        /// Which mail.
        mail: MailId,
    },
    /// Something happened that concerns every mail.
    HappenedToAll(Event),
    /// Other settings hold from now on.
    Settings(Box<Settings>),
}

/// What is to be done, in this order, once the transaction is on stable storage.
#[derive(Clone, PartialEq, Debug)]
pub enum Outcome {
    /// A machine asks for something; never [`Effect::Save`], which is done.
    Do {
        /// Which mail.
        mail: MailId,
        /// The mail itself.
        item: Arc<Item>,
        /// What.
        effect: Effect,
    },
    /// The other device is to be told.
    Say(Frame),
    /// The body of a copy is to be fetched from the host.
    Fetch(Message),
    /// The file of a body, if there is one, is not wanted.
    Discard(MailId),
}

/// An event on its way through the queue.
#[derive(Clone, Debug)]
struct Sweep {
    event: Event,
    after: i64,
}

impl Desk {
    /// Takes up the outbox. Every mail is told that the process began anew, before anything else can concern it; what
    /// follows from that is returned.
    pub fn open(
        store: Store,
        tie: Option<Tie>,
        settings: Settings,
        now: &Now,
    ) -> Result<(Self, Vec<Outcome>), StoreError> {
        let mut desk = Self {
            store,
            settings,
            tie,
            host_ledger: HostLedger::new(),
            companion_ledger: CompanionLedger::new(),
            machines: HashMap::new(),
            timers: Wakes::default(),
            link_up: false,
            path_up: true,
            handing_over: false,
            sweeps: VecDeque::from([Sweep { event: Event::Restarted, after: 0 }]),
            room: true,
        };
        desk.read_ledgers()?;
        let mut outcomes = Vec::new();
        while desk.is_sweeping() {
            outcomes.append(&mut desk.handle(&[], now)?);
        }
        let parted = desk.store.of_other_pairs(tie.map(|tie| tie.serial))?;
        for page in parted.chunks(PAGE) {
            let parted: Vec<Input> = page.iter().map(|&mail| Input::Parted { mail }).collect();
            outcomes.append(&mut desk.handle(&parted, now)?);
        }
        // To a machine these look as if their first try had been cut short; nobody has tried them yet.
        let untried = desk.store.untried()?;
        let hurry: Vec<Input> = untried.iter().map(|&mail| Input::Happened { mail, event: Event::RetryNow }).collect();
        outcomes.append(&mut desk.handle(&hurry, now)?);
        desk.store.write(|batch| batch.forget_untried())?;
        Ok((desk, outcomes))
    }

    /// Puts a mail into the outbox while no daemon runs: durable when this returns, and tried when one does.
    pub fn submit_untried(
        store: &mut Store,
        tie: Option<Tie>,
        settings: &Settings,
        item: &Arc<Item>,
        body: &Body,
        now: &Now,
    ) -> Result<(), StoreError> {
        let mut ledger = HostLedger::new();
        if let Some(Tie { serial, role: Role::Host }) = tie
            && let Some(bytes) = store.ledger(serial)?
        {
            ledger = HostLedger::decode(&bytes).map_err(|_| StoreError::Damaged { what: "a ledger" })?;
        }
        store.write(|batch| {
            let mut numbered = None;
            if let Some(Tie { serial, role: Role::Host }) = tie {
                numbered = Some((serial, ledger.number()));
                batch.save_ledger(serial, &ledger.encode())?;
            }
            let number = numbered.map(|(_, number)| number);
            let (host, _) = Host::submit(item.clone(), number, false, now, settings);
            batch.add(&Machine::Host(host), numbered.map(|(serial, _)| serial), body)?;
            batch.note_untried(&item.id())
        })
    }

    /// The store, for reading.
    pub fn store(&self) -> &Store {
        &self.store
    }

    /// What the machines go by.
    pub fn settings(&self) -> &Settings {
        &self.settings
    }

    /// Whether something is to be done without any input: a page of the queue.
    pub fn is_sweeping(&self) -> bool {
        !self.sweeps.is_empty()
    }

    /// Says whether what a sweep gives rise to can be taken; while it cannot, sweeps wait.
    pub fn set_room(&mut self, room: bool) {
        self.room = room;
    }

    /// When a mail wants to be woken, in milliseconds since boot.
    pub fn next_wake(&self) -> Option<u64> {
        self.timers.lock().next()
    }

    /// Takes in a batch, all of it or, where the disk fails, nothing; the same batch may be given again then.
    ///
    /// Mails whose time has come are woken too, and the next page of a sweep is gone through.
    pub fn handle(&mut self, inputs: &[Input], now: &Now) -> Result<Vec<Outcome>, StoreError> {
        // The store cannot be lent to a transaction while the rest of the desk is at work on it.
        let mut touched = Vec::new();
        let outcome = self.handle_in_transaction(inputs, now, &mut touched);
        if outcome.is_err() {
            // What the machines in memory believe was not saved.
            self.machines.clear();
            self.timers.lock().set_all(&touched, now.since_boot_ms);
            self.read_ledgers()?;
        } else if self.machines.len() > MACHINES_KEPT && !self.handing_over {
            self.machines.clear();
        }
        outcome
    }

    /// When its mails want to be woken.
    pub fn wakes(&self) -> Wakes {
        self.timers.clone()
    }

    fn handle_in_transaction(
        &mut self,
        inputs: &[Input],
        now: &Now,
        touched: &mut Vec<MailId>,
    ) -> Result<Vec<Outcome>, StoreError> {
        let Self { store, .. } = self;
        let sweep = self.sweeps.front().filter(|_| self.room).cloned();
        let page = match &sweep {
            Some(sweep) => store.mails_after(sweep.after, PAGE)?,
            None => Vec::new(),
        };
        let mut timers = self.timers.lock();
        let due = timers.due(now.since_boot_ms, PAGE);
        let mut work = Work {
            settings: &mut self.settings,
            tie: self.tie,
            host_ledger: &mut self.host_ledger,
            companion_ledger: &mut self.companion_ledger,
            machines: &mut self.machines,
            timers: &mut timers,
            link_up: &mut self.link_up,
            path_up: &mut self.path_up,
            handing_over: &mut self.handing_over,
            begun: Vec::new(),
            now,
            outcomes: Vec::new(),
            touched,
        };
        let outcomes = store.write(|batch| {
            for input in inputs {
                work.take(batch, input)?;
            }
            for mail in &due {
                work.tell(batch, mail, Event::Timer)?;
            }
            if let Some(sweep) = &sweep {
                for (_, mail) in &page {
                    work.tell(batch, mail, sweep.event.clone())?;
                }
            }
            Ok::<_, StoreError>((std::mem::take(&mut work.outcomes), std::mem::take(&mut work.begun)))
        })?;
        let (outcomes, begun) = outcomes;
        if let (Some(_), Some(front)) = (sweep, self.sweeps.front_mut()) {
            match page.last() {
                Some((sequence, _)) if page.len() == PAGE => front.after = *sequence,
                _ => drop(self.sweeps.pop_front()),
            }
        }
        self.sweeps.extend(begun);
        Ok(outcomes)
    }

    fn read_ledgers(&mut self) -> Result<(), StoreError> {
        let damaged = |_| StoreError::Damaged { what: "a ledger" };
        let Some(Tie { serial, role }) = self.tie else { return Ok(()) };
        match (role, self.store.ledger(serial)?) {
            (Role::Host, Some(bytes)) => self.host_ledger = HostLedger::decode(&bytes).map_err(damaged)?,
            (Role::Host, None) => self.host_ledger = HostLedger::new(),
            (Role::Companion, Some(bytes)) => {
                self.companion_ledger = CompanionLedger::decode(&bytes).map_err(damaged)?;
            }
            (Role::Companion, None) => self.companion_ledger = CompanionLedger::new(),
        }
        Ok(())
    }
}

/// A batch under way: the desk without its store, which the transaction has.
struct Work<'a> {
    settings: &'a mut Settings,
    tie: Option<Tie>,
    host_ledger: &'a mut HostLedger,
    companion_ledger: &'a mut CompanionLedger,
    machines: &'a mut HashMap<MailId, Machine>,
    timers: &'a mut Timers,
    link_up: &'a mut bool,
    path_up: &'a mut bool,
    handing_over: &'a mut bool,
    begun: Vec<Sweep>,
    now: &'a Now,
    outcomes: Vec<Outcome>,
    touched: &'a mut Vec<MailId>,
}

impl Work<'_> {
    fn take(&mut self, batch: &Batch<'_>, input: &Input) -> Result<(), StoreError> {
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
    fn tell(&mut self, batch: &Batch<'_>, mail: &MailId, event: Event) -> Result<(), StoreError> {
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

/// How many mails of a sweep, and how many that are due, go into one batch.
const PAGE: usize = 256;

/// How many machines may stay in memory.
const MACHINES_KEPT: usize = 2048;

/// How soon a machine is woken again that wants it at once.
const AGAIN_MS: u64 = 200;

const ANSWER_LOST: &str = "the final dot was sent, and no answer came";

#[cfg(test)]
mod tests;
