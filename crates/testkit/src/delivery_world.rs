//! A host and its companion with many mails, in virtual time, over paths and a link that fail, all by one seed.
//!
//! The machines are the core's own, saved as bytes whenever they ask for it; a kill throws everything else away, between
//! any two effects. Clocks drift apart within the margin, a reboot begins a new one. Servers put off, refuse, answer
//! late and lose replies. After a time everything heals, and the world holds the pair to its promises:
//!
//! 1. a body goes only when each recipient is accepted, bounced, or on the companion known to the host;
//! 2. a recipient is accepted once, and once more for each *excuse*: an acceptance that its client never heard of, or
//!    of which the host had not heard when the companion's lease ended;
//! 3. in the end each recipient is accepted or bounced, and neither device remembers a mail.
//!
//! A failure prints the seed; the same seed gives the same [`Outcome::trace`].

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;
use std::time::Duration;

use packetboat_core::delivery::{
    Address, Attempt, Body, Companion, CompanionLedger, Effect, Event, Frame, Host, HostLedger, HostState, Item,
    Message, Moment, Now, Recipients, Replies, Reply, SentLookup, Settings,
};
use packetboat_core::ids::{BodyHash, BootId, MailId};

use crate::rng::Rng;

/// What a run came to.
#[derive(Clone, PartialEq, Eq, Debug, Default)]
pub struct Outcome {
    /// A hash of everything that happened.
    pub trace: String,
    /// How many recipients there were.
    pub recipients: u64,
    /// How many were accepted, by the host's path and the companion's.
    pub accepted: [u64; 2],
    /// How many bounced.
    pub bounced: u64,
    /// How many were accepted more than once.
    pub twice: u64,
    /// Acceptances of which the client never heard: a lost reply, or a kill after the dot.
    pub unheard: u64,
    /// Acceptances of which the host had not heard when the companion's lease ended.
    pub unreported: u64,
    /// How often devices were killed.
    pub kills: u64,
    /// How often a kill fell between saving and the next effect.
    pub kills_after_save: u64,
}

/// The two devices, the servers, and what goes on between them.
pub struct DeliveryWorld {
    seed: u64,
    rng: Rng,
    settings: Settings,
    sent_tells: bool,
    time: u64,
    heals: u64,
    order: u64,
    queue: BTreeMap<(u64, u64), Happening>,
    devices: [Device; 2],
    host_ledger: HostLedger,
    companion_ledger: CompanionLedger,
    link_up: bool,
    mails: Vec<Mail>,
    outcome: Outcome,
    trace: blake3::Hasher,
    /// The mail whose story is printed, to find out what went wrong with it.
    tells_of: Option<usize>,
}

/// One of the two computers.
struct Device {
    running: bool,
    /// Counts up with each start, so that what was begun before a kill is not heard of after it.
    life: u64,
    boot: u8,
    booted: u64,
    /// How many thousandths the clock runs fast.
    fast: i64,
    path_up: bool,
}

/// A mail, both its machines, and what is known of it from outside.
struct Mail {
    item: Arc<Item>,
    host: Option<Host>,
    companion: Option<Companion>,
    saved: [Option<Vec<u8>>; 2],
    bodies: [bool; 2],
    natures: Vec<Nature>,
    accepted: Vec<u64>,
    excused: Vec<u64>,
    bounced: Vec<bool>,
    tries: [Option<Attempt>; 2],
}

/// How a server treats a recipient.
#[derive(Clone, Copy)]
enum Nature {
    Good,
    Unknown,
    PutOffUntil(u64),
}

/// Something that is to happen.
enum Happening {
    Submit,
    Path(usize),
    Link,
    Kill(usize),
    Start { device: usize, reboot: bool },
    Sleep,
    Heal,
    Wake { device: usize, mail: usize },
    Arrive { device: usize, frame: Vec<u8> },
    Connected { device: usize, life: u64, mail: usize, attempt: Attempt, recipients: Recipients },
    Sent { device: usize, life: u64, mail: usize, attempt: Attempt, recipients: Recipients },
    AtServer { device: usize, life: u64, mail: usize, attempt: Attempt, recipients: Recipients, lost_after: u64 },
    Tell { device: usize, life: u64, mail: usize, event: Event },
    Heard { device: usize, life: u64, mail: usize, attempt: Attempt, replies: Replies },
    LookedUp { device: usize, life: u64, mail: usize },
    Filed { device: usize, life: u64, mail: usize, recipients: Recipients },
}

impl DeliveryWorld {
    /// Runs a seed to its end, and panics with the seed where a promise is broken.
    pub fn run(seed: u64) -> Outcome {
        Self::tell_of(seed, None)
    }

    /// Runs a seed and prints what happened to one of its mails.
    pub fn tell_of(seed: u64, tells_of: Option<usize>) -> Outcome {
        let mut rng = Rng::new(seed);
        let settings =
            Settings { file_in_sent: false, delay_warning: Duration::from_secs(3600), ..Settings::default() };
        // Two clocks that drift apart by 2 % stay within a margin of 30 s in a lease of 15 minutes.
        let device = |rng: &mut Rng| Device {
            running: true,
            life: 0,
            boot: 0,
            booted: 0,
            fast: rng.below(21) as i64 - 10,
            path_up: rng.chance(1, 2),
        };
        let devices = [device(&mut rng), device(&mut rng)];
        let mut world = Self {
            seed,
            sent_tells: rng.chance(1, 2),
            settings,
            time: 0,
            heals: 0,
            order: 0,
            queue: BTreeMap::new(),
            devices,
            host_ledger: HostLedger::new(),
            companion_ledger: CompanionLedger::new(),
            link_up: rng.chance(3, 4),
            mails: Vec::new(),
            outcome: Outcome::default(),
            trace: blake3::Hasher::new(),
            tells_of,
            rng,
        };
        world.plan();
        while let Some(((time, _), happening)) = world.queue.pop_first() {
            world.time = time;
            assert!(time < world.heals + 30 * 24 * HOUR, "seed {seed}: still busy a month after all healed");
            world.happen(happening);
        }
        world.judge()
    }

    fn plan(&mut self) {
        self.heals = 2 * HOUR + self.rng.below(10 * HOUR);
        for _ in 0..2 + self.rng.below(5) {
            let at = self.rng.below(self.heals / 2);
            self.at(at, Happening::Submit);
        }
        for _ in 0..4 + self.rng.below(16) {
            let at = self.rng.below(self.heals);
            let happening = match self.rng.below(10) {
                0..=2 => Happening::Path(0),
                3..=5 => Happening::Path(1),
                6..=7 => Happening::Link,
                8 => Happening::Kill(self.rng.index(2)),
                _ => Happening::Sleep,
            };
            self.at(at, happening);
        }
        self.at(self.heals, Happening::Heal);
    }

    fn happen(&mut self, happening: Happening) {
        match happening {
            Happening::Submit => self.submit(),
            Happening::Path(device) => {
                let up = !self.devices[device].path_up;
                self.set_path(device, up);
            }
            Happening::Link => self.set_link(!self.link_up),
            Happening::Kill(device) => self.kill(device),
            Happening::Start { device, reboot } => self.start(device, reboot),
            Happening::Sleep => {
                self.tell_all(0, &Event::HandOver);
                let (at, life) = (self.rng.below(HOUR), self.devices[0].life);
                for mail in 0..self.mails.len() {
                    self.after(at, Happening::Tell { device: 0, life, mail, event: Event::TakeBack });
                }
            }
            Happening::Heal => {
                for device in 0..2 {
                    if !self.devices[device].running {
                        self.start(device, false);
                    }
                    self.set_path(device, true);
                }
                self.set_link(true);
            }
            Happening::Wake { device, mail } => {
                if self.wake(device, mail).is_some_and(|moment| self.now(device).reached(moment)) {
                    self.tell(device, mail, Event::Timer);
                }
            }
            Happening::Arrive { device, frame } => self.arrive(device, &frame),
            Happening::Connected { device, life, mail, attempt, recipients } => {
                if self.is_current(device, life, mail, attempt) {
                    self.connected(device, mail, attempt, recipients);
                }
            }
            Happening::Sent { device, life, mail, attempt, recipients } => {
                if self.is_current(device, life, mail, attempt) {
                    self.sent(device, mail, attempt, recipients);
                }
            }
            Happening::AtServer { device, life, mail, attempt, recipients, lost_after } => {
                self.at_server(device, life, mail, attempt, &recipients, lost_after);
            }
            Happening::Tell { device, life, mail, event } => {
                if self.devices[device].running && self.devices[device].life == life {
                    self.tell(device, mail, event);
                }
            }
            Happening::Heard { device, life, mail, attempt, replies } => {
                let heard = self.is_current(device, life, mail, attempt);
                if heard {
                    self.tell(device, mail, Event::Answered { attempt, replies });
                } else {
                    self.unheard(mail, &replies);
                }
            }
            Happening::LookedUp { device, life, mail } => {
                if self.devices[device].running && self.devices[device].life == life {
                    let found = match (self.sent_tells, self.devices[device].path_up) {
                        (false, _) => SentLookup::NotEvidence,
                        (true, false) => SentLookup::Unreachable,
                        (true, true) if self.mails[mail].accepted.iter().any(|times| *times > 0) => SentLookup::Found,
                        (true, true) => SentLookup::Absent,
                    };
                    self.tell(device, mail, Event::SentLookup(found));
                }
            }
            Happening::Filed { device, life, mail, recipients } => {
                if self.devices[device].running && self.devices[device].life == life {
                    for recipient in recipients.iter() {
                        self.mails[mail].bounced[recipient as usize] = true;
                    }
                    self.tell(device, mail, Event::BounceFiled { recipients });
                }
            }
        }
    }

    fn submit(&mut self) {
        if !self.devices[0].running {
            return;
        }
        let address = |text: String| Address::new(text).expect("a plain address");
        let count = 1 + self.rng.index(3);
        let mut id = [0; 16];
        id[..8].copy_from_slice(&(self.mails.len() as u64 + 1).to_be_bytes());
        id[8..].copy_from_slice(&self.seed.to_be_bytes());
        let recipients = (0..count).map(|place| address(format!("r{place}@example.org"))).collect();
        let size = if self.rng.chance(1, 10) { 8 << 20 } else { 2000 };
        let item = Item::new(MailId(id), BodyHash([0; 32]), size, address("me@example.org".into()), recipients);
        let item = Arc::new(item.expect("a mail with recipients"));
        let nature = |rng: &mut Rng| match rng.below(10) {
            0 => Nature::Unknown,
            1..=2 => Nature::PutOffUntil(rng.below(6 * HOUR)),
            _ => Nature::Good,
        };
        let natures = (0..count).map(|_| nature(&mut self.rng)).collect();
        let number = self.host_ledger.number();
        let now = self.now(0);
        let (host, effects) = Host::submit(item.clone(), Some(number), self.link_is_up(), &now, &self.settings);
        self.mails.push(Mail {
            item,
            saved: [Some(host.encode()), None],
            host: Some(host),
            companion: None,
            bodies: [true, false],
            natures,
            accepted: vec![0; count],
            excused: vec![0; count],
            bounced: vec![false; count],
            tries: [None, None],
        });
        self.outcome.recipients += count as u64;
        self.carry_out(0, self.mails.len() - 1, effects);
    }

    fn tell(&mut self, device: usize, mail: usize, event: Event) {
        let now = self.now(device);
        self.note(mail, format!("{} {device} {mail} {event:?}\n", self.time));
        let it = &mut self.mails[mail];
        let effects = match device {
            0 => {
                let Some(host) = &mut it.host else { return };
                let was_granted = matches!(host.state(), HostState::Granted { .. });
                let effects = host.handle(event, &now, &self.settings);
                if was_granted && matches!(host.state(), HostState::Unknown { turn: Some(_), .. }) {
                    // What the companion has heard of, though it may be down; the rest is counted as unheard.
                    let saved = it.saved[1].as_ref().map(|saved| Companion::decode(it.item.clone(), saved));
                    let told = saved.and_then(Result::ok).map(|companion| companion.replies().clone());
                    let told = told.unwrap_or_default();
                    for (recipient, _) in told.iter().filter(|(_, reply)| reply.code() == 250) {
                        if host.statuses()[recipient as usize].is_waiting() {
                            it.excused[recipient as usize] += 1;
                            self.outcome.unreported += 1;
                        }
                    }
                }
                effects
            }
            _ => {
                let Some(companion) = &mut it.companion else { return };
                companion.handle(event, &now, &self.settings)
            }
        };
        self.carry_out(device, mail, effects);
    }

    fn carry_out(&mut self, device: usize, mail: usize, effects: Vec<Effect>) {
        let life = self.devices[device].life;
        for effect in effects {
            self.note(mail, format!("{} {device} {mail} {effect:?}\n", self.time));
            match effect {
                Effect::Save => {
                    let it = &mut self.mails[mail];
                    it.saved[device] = match device {
                        0 => it.host.as_ref().map(Host::encode),
                        _ => it.companion.as_ref().map(Companion::encode),
                    };
                    if self.time < self.heals && self.rng.chance(1, 400) {
                        self.outcome.kills_after_save += 1;
                        self.kill(device);
                        return;
                    }
                }
                Effect::Send(message) => self.send(device, message),
                Effect::Try { attempt, recipients } => {
                    self.mails[mail].tries[device] = Some(attempt);
                    let wait = 50 + self.rng.below(3000);
                    self.after(wait, Happening::Connected { device, life, mail, attempt, recipients });
                }
                Effect::AbortTry { .. } => self.mails[mail].tries[device] = None,
                Effect::WriteDot { attempt, before } => self.write_dot(device, mail, attempt, before),
                Effect::LookUpSent => {
                    let wait = 100 + self.rng.below(5000);
                    self.after(wait, Happening::LookedUp { device, life, mail });
                }
                Effect::Bounce { recipients } => {
                    let recipients = recipients.iter().map(|(recipient, _)| *recipient).collect();
                    let wait = self.rng.below(1000);
                    self.after(wait, Happening::Filed { device, life, mail, recipients });
                }
                Effect::DropBody => self.drop_body(device, mail),
                Effect::Forget if device == 0 => {
                    self.mails[mail].host = None;
                    self.mails[mail].saved[0] = None;
                }
                Effect::Forget => {
                    let it = &mut self.mails[mail];
                    let number = it.companion.take().map(|companion| companion.number());
                    it.saved[1] = None;
                    if let Some(number) = number {
                        self.companion_ledger.finish(number);
                    }
                }
                Effect::WarnDelayed { .. } | Effect::FileInSent | Effect::HandedOver => {}
            }
        }
        if let Some(moment) = self.wake(device, mail) {
            let wait = moment.since_boot_ms.saturating_sub(self.now(device).since_boot_ms);
            // One millisecond more than the drift can shorten it.
            self.after(wait + wait / 90 + 1, Happening::Wake { device, mail });
        }
    }

    /// The connection is made, or not; then the envelope and the body go over the line.
    fn connected(&mut self, device: usize, mail: usize, attempt: Attempt, recipients: Recipients) {
        if !self.devices[device].path_up {
            return self.fail(device, mail, attempt);
        }
        let life = self.devices[device].life;
        let wait = if self.rng.chance(1, 8) { self.rng.below(900_000) } else { self.rng.below(20_000) };
        self.after(wait, Happening::Sent { device, life, mail, attempt, recipients });
    }

    /// All but the dot is sent.
    fn sent(&mut self, device: usize, mail: usize, attempt: Attempt, recipients: Recipients) {
        if !self.devices[device].path_up || self.rng.chance(1, 20) {
            return self.fail(device, mail, attempt);
        }
        let mut refused = Replies::new();
        for recipient in recipients.iter() {
            match self.mails[mail].natures[recipient as usize] {
                Nature::Unknown => refused.set(recipient, reply(550, "no such user")),
                Nature::PutOffUntil(until) if self.time < until => refused.set(recipient, reply(451, "greylisted")),
                _ => {}
            }
        }
        self.tell(device, mail, Event::DotAsked { attempt, refused });
    }

    fn write_dot(&mut self, device: usize, mail: usize, attempt: Attempt, before: Option<Moment>) {
        if before.is_some_and(|before| self.now(device).reached(before)) {
            return self.fail(device, mail, attempt);
        }
        let it = &self.mails[mail];
        let recipients = match device {
            0 => match it.host.as_ref().map(Host::state) {
                Some(HostState::Dot { recipients, .. }) => recipients.clone(),
                _ => return,
            },
            _ => match it.companion.as_ref().map(Companion::state) {
                Some(packetboat_core::delivery::CompanionState::Dot { recipients, .. }) => recipients.clone(),
                _ => return,
            },
        };
        let life = self.devices[device].life;
        let answer = self.settings.answer.as_millis() as u64;
        let decided = if self.rng.chance(1, 8) { self.rng.below(answer - 20_000) } else { self.rng.below(5000) };
        let lost_after = self.time + answer - 10_000;
        let at = Happening::AtServer { device, life, mail, attempt, recipients, lost_after };
        self.after(decided, at);
    }

    fn at_server(
        &mut self,
        device: usize,
        life: u64,
        mail: usize,
        attempt: Attempt,
        recipients: &Recipients,
        late: u64,
    ) {
        let path_up = self.devices[device].path_up;
        let lost = Happening::Tell { device, life, mail, event: Event::AnswerLost { attempt } };
        // A cut path may have swallowed the dot, or only the answer.
        if !path_up && self.rng.chance(1, 2) {
            return self.at(late.max(self.time), lost);
        }
        let answer = match self.rng.below(20) {
            0 => reply(452, "full"),
            _ => reply(250, "queued"),
        };
        let replies = Replies::all(recipients, &answer);
        if answer.code() == 250 {
            for recipient in recipients.iter() {
                self.mails[mail].accepted[recipient as usize] += 1;
                self.outcome.accepted[device] += 1;
            }
        }
        if path_up && !self.rng.chance(1, 20) {
            let wait = self.rng.below(3000);
            self.after(wait, Happening::Heard { device, life, mail, attempt, replies });
        } else {
            self.unheard(mail, &replies);
            self.at(late.max(self.time), lost);
        }
    }

    fn note(&mut self, mail: usize, line: String) {
        self.trace.update(line.as_bytes());
        if self.tells_of == Some(mail) {
            print!("{line}");
        }
    }

    fn unheard(&mut self, mail: usize, replies: &Replies) {
        for (recipient, reply) in replies.iter() {
            if reply.code() == 250 {
                self.mails[mail].excused[recipient as usize] += 1;
                self.outcome.unheard += 1;
            }
        }
    }

    fn fail(&mut self, device: usize, mail: usize, attempt: Attempt) {
        let failure = reply(451, "connection failed");
        self.tell(device, mail, Event::TryFailed { attempt, replies: Replies::new(), failure });
    }

    fn send(&mut self, from: usize, message: Message) {
        if !self.link_is_up() {
            return;
        }
        let frame = Frame::Mail(message).encode();
        let copies = match self.rng.below(20) {
            0 => 0,
            1 => 2,
            _ => 1,
        };
        for _ in 0..copies {
            let wait = if self.rng.chance(1, 20) { self.rng.below(120_000) } else { 1 + self.rng.below(200) };
            self.after(wait, Happening::Arrive { device: 1 - from, frame: frame.clone() });
        }
    }

    fn arrive(&mut self, device: usize, frame: &[u8]) {
        if !self.link_is_up() {
            return;
        }
        let Ok(Frame::Mail(message)) = Frame::decode(frame) else { panic!("seed {}: a frame that is none", self.seed) };
        let mail = self.mails.iter().position(|mail| mail.item.id() == message.mail).expect("a mail of this world");
        let known = if device == 0 { self.mails[mail].host.is_some() } else { self.mails[mail].companion.is_some() };
        if known {
            return self.tell(device, mail, Event::Message(message));
        }
        if let (1, Body::Copy(item)) = (device, &message.body)
            && self.companion_ledger.admits(message.number)
        {
            let path_up = self.devices[1].path_up;
            let now = self.now(1);
            let (companion, effects) = Companion::receive(message.number, item.clone(), path_up, &now, &self.settings);
            self.mails[mail].companion = Some(companion);
            self.mails[mail].bodies[1] = true;
            return self.carry_out(1, mail, effects);
        }
        let answer = match device {
            0 => self.host_ledger.answer(&message),
            _ => self.companion_ledger.answer(&message),
        };
        if let Some(answer) = answer {
            self.send(device, answer);
        }
    }

    fn drop_body(&mut self, device: usize, mail: usize) {
        let it = &mut self.mails[mail];
        it.bodies[device] = false;
        for recipient in 0..it.accepted.len() {
            let known = device == 1 && it.host.as_ref().is_none_or(|host| !host.statuses()[recipient].is_waiting());
            assert!(
                it.accepted[recipient] > 0 || it.bounced[recipient] || known,
                "seed {}: device {device} dropped mail {mail}, which recipient {recipient} never got",
                self.seed
            );
        }
    }

    fn kill(&mut self, device: usize) {
        if !self.devices[device].running {
            return;
        }
        self.outcome.kills += 1;
        self.set_link_state(false, false);
        self.devices[device].running = false;
        self.devices[device].life += 1;
        for mail in &mut self.mails {
            mail.tries[device] = None;
            if device == 0 { mail.host = None } else { mail.companion = None }
        }
        self.tell_all(1 - device, &Event::LinkDown);
        let reboot = self.rng.chance(1, 2);
        let wait = if self.rng.chance(1, 2) { self.rng.below(2000) } else { self.rng.below(HOUR) };
        self.after(wait, Happening::Start { device, reboot });
    }

    fn start(&mut self, device: usize, reboot: bool) {
        if self.devices[device].running {
            return;
        }
        self.devices[device].running = true;
        if reboot {
            self.devices[device].boot += 1;
            self.devices[device].booted = self.time;
        }
        for mail in &mut self.mails {
            let Some(saved) = &mail.saved[device] else { continue };
            if device == 0 {
                mail.host = Some(Host::decode(mail.item.clone(), saved).expect("what was saved can be read"));
            } else {
                mail.companion = Some(Companion::decode(mail.item.clone(), saved).expect("what was saved can be read"));
            }
        }
        self.tell_all(device, &Event::Restarted);
        if !self.devices[device].path_up {
            self.tell_all(device, &Event::PathDown);
        }
        if self.link_is_up() {
            self.set_link_state(true, true);
        }
    }

    fn set_path(&mut self, device: usize, up: bool) {
        self.devices[device].path_up = up;
        if self.devices[device].running {
            self.tell_all(device, &if up { Event::PathUp } else { Event::PathDown });
        }
    }

    fn set_link(&mut self, up: bool) {
        self.link_up = up;
        self.set_link_state(up, self.link_is_up());
    }

    /// Tells those that run how the link stands, where it stands as said.
    fn set_link_state(&mut self, up: bool, stands: bool) {
        if up && !stands {
            return;
        }
        if up {
            let below = self
                .host_ledger
                .finished_below(self.mails.iter().filter_map(|mail| mail.host.as_ref().and_then(Host::number)));
            self.companion_ledger.finish_below(below);
        }
        for device in 0..2 {
            if self.devices[device].running {
                self.tell_all(device, &if up { Event::LinkUp } else { Event::LinkDown });
            }
        }
    }

    fn tell_all(&mut self, device: usize, event: &Event) {
        for mail in 0..self.mails.len() {
            if self.devices[device].running {
                self.tell(device, mail, event.clone());
            }
        }
    }

    fn judge(mut self) -> Outcome {
        let seed = self.seed;
        for (at, mail) in self.mails.iter().enumerate() {
            assert!(mail.host.is_none(), "seed {seed}: the host still has mail {at}: {:?}", mail.host);
            assert!(mail.companion.is_none(), "seed {seed}: the companion still has mail {at}: {:?}", mail.companion);
            assert_eq!(mail.bodies, [false, false], "seed {seed}: a body of mail {at} is left");
            for (recipient, accepted) in mail.accepted.iter().copied().enumerate() {
                let (bounced, excused) = (mail.bounced[recipient], mail.excused[recipient]);
                assert!(accepted > 0 || bounced, "seed {seed}: mail {at} is lost to recipient {recipient}");
                assert!(
                    accepted <= 1 + excused,
                    "seed {seed}: recipient {recipient} of mail {at} got it {accepted} times with {excused} excuses"
                );
                self.outcome.bounced += u64::from(bounced);
                self.outcome.twice += accepted.saturating_sub(1);
            }
        }
        self.outcome.trace = self.trace.finalize().to_hex()[..16].to_owned();
        self.outcome
    }

    fn is_current(&self, device: usize, life: u64, mail: usize, attempt: Attempt) -> bool {
        let this = &self.devices[device];
        this.running && this.life == life && self.mails[mail].tries[device] == Some(attempt)
    }

    fn link_is_up(&self) -> bool {
        self.link_up && self.devices.iter().all(|device| device.running)
    }

    fn wake(&self, device: usize, mail: usize) -> Option<Moment> {
        match device {
            0 => self.mails[mail].host.as_ref()?.wake(),
            _ => self.mails[mail].companion.as_ref()?.wake(&self.settings),
        }
    }

    fn now(&self, device: usize) -> Now {
        let Device { boot, booted, fast, .. } = self.devices[device];
        let since = self.time - booted;
        let since_boot_ms = since.saturating_add_signed(since as i64 * fast / 1000);
        let mut id = [device as u8; 16];
        id[0] = boot;
        Now { boot: BootId(id), since_boot_ms, wall_ms: self.time }
    }

    fn after(&mut self, wait: u64, happening: Happening) {
        self.at(self.time + wait, happening);
    }

    fn at(&mut self, time: u64, happening: Happening) {
        self.order += 1;
        self.queue.insert((time, self.order), happening);
    }
}

impl Outcome {
    /// Adds the counts of another run.
    pub fn add(&mut self, other: &Self) {
        self.recipients += other.recipients;
        self.accepted[0] += other.accepted[0];
        self.accepted[1] += other.accepted[1];
        self.bounced += other.bounced;
        self.twice += other.twice;
        self.unheard += other.unheard;
        self.unreported += other.unreported;
        self.kills += other.kills;
        self.kills_after_save += other.kills_after_save;
    }

    /// The traces of several runs, all different where the seeds are.
    pub fn distinct(outcomes: &[Self]) -> usize {
        outcomes.iter().map(|outcome| &outcome.trace).collect::<BTreeSet<_>>().len()
    }
}

fn reply(code: u16, text: &str) -> Reply {
    Reply::new(code, None, text).expect("a reply code")
}

/// Milliseconds of an hour.
const HOUR: u64 = 3_600_000;
