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
//!
//! What one batch does to machines and store is in `work`.

mod work;

use std::collections::{HashMap, VecDeque};
use std::sync::Arc;

use packetboat_core::delivery::{
    CompanionLedger, Effect, Event, Frame, Host, HostLedger, Item, Message, Now, Settings,
};
use packetboat_core::ids::MailId;

use self::work::Work;
use super::body::Body;
use super::machine::Machine;
use super::store::{Store, StoreError};
use super::timers::Wakes;
use crate::pair::Role;

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

/// How many mails of a sweep, and how many that are due, go into one batch.
const PAGE: usize = 256;

/// How many machines may stay in memory.
const MACHINES_KEPT: usize = 2048;

#[cfg(test)]
mod tests;
