//! Two desks in virtual time, with a link, two paths and a server that are cut at will, and crashes at every instant.

use std::collections::{BTreeMap, VecDeque};
use std::io::Read;
use std::time::Duration;

use packetboat_core::delivery::{Address, Body as Said, Replies, Reply, SentLookup};
use packetboat_core::ids::BootId;

use super::*;
use crate::outbox::body::{self, BodyDraft};

const HOST: usize = 0;
const COMPANION: usize = 1;

struct Device {
    directory: tempfile::TempDir,
    desk: Option<Desk>,
    role: Role,
    inputs: VecDeque<Input>,
    path_up: bool,
}

/// A pair of devices. All of it is a function of what a test sets.
struct World {
    devices: [Device; 2],
    now: Now,
    link_up: bool,
    /// Who crashes, and before which of its outcomes.
    crash: Option<(usize, usize)>,
    outcomes: [usize; 2],
    /// How often the server accepted each mail, and from whom.
    accepted: BTreeMap<MailId, Vec<usize>>,
    bounced: Vec<(MailId, Vec<u32>)>,
    /// Whether the server accepts and says nothing.
    silent: bool,
}

impl World {
    fn new() -> Self {
        let device = |role| Device {
            directory: tempfile::tempdir().unwrap(),
            desk: None,
            role,
            inputs: VecDeque::new(),
            path_up: true,
        };
        let mut world = Self {
            devices: [device(Role::Host), device(Role::Companion)],
            now: Now { boot: BootId([1; 16]), since_boot_ms: 10_000, wall_ms: 1_000_000_000 },
            link_up: false,
            crash: None,
            outcomes: [0; 2],
            accepted: BTreeMap::new(),
            bounced: Vec::new(),
            silent: false,
        };
        world.start(HOST);
        world.start(COMPANION);
        world
    }

    fn start(&mut self, at: usize) {
        let role = self.devices[at].role;
        self.start_in(at, Some(Tie { serial: 1, role }));
    }

    /// Starts a device that is in another pair now, or in none.
    fn start_in(&mut self, at: usize, tie: Option<Tie>) {
        let device = &mut self.devices[at];
        let bodies = device.directory.path().join("bodies");
        std::fs::create_dir_all(&bodies).unwrap();
        let store = Store::open(&device.directory.path().join("outbox.db"), &bodies).unwrap();
        let (desk, outcomes) = Desk::open(store, tie, Settings::default(), &self.now).unwrap();
        device.desk = Some(desk);
        device.inputs.clear();
        self.carry_out(at, outcomes);
    }

    fn set_link(&mut self, up: bool) {
        self.link_up = up;
        for device in &mut self.devices {
            device.inputs.push_back(Input::HappenedToAll(if up { Event::LinkUp } else { Event::LinkDown }));
        }
    }

    fn submit(&mut self, id: u8, size: usize) -> MailId {
        let mail = MailId([id; 16]);
        let mut draft = BodyDraft::new(self.desk(HOST).store().bodies(), mail);
        draft.write(&vec![id; size]).unwrap();
        let body = draft.finish().unwrap();
        let address = |text: &str| Address::new(text).unwrap();
        let to = vec![address("b@example.org"), address("c@example.org")];
        let item = Item::new(mail, body.hash, body.size_bytes, address("a@example.org"), to).unwrap();
        self.devices[HOST].inputs.push_back(Input::Submitted { item: Arc::new(item), body });
        mail
    }

    fn desk(&mut self, at: usize) -> &mut Desk {
        self.devices[at].desk.as_mut().unwrap()
    }

    /// Lets everything that can happen now happen, and then time pass, for so long.
    fn run(&mut self, time: Duration) {
        let end = self.now.since_boot_ms + time.as_millis() as u64;
        loop {
            for _ in 0..10_000 {
                let mut busy = false;
                for at in [HOST, COMPANION] {
                    let inputs: Vec<Input> = self.devices[at].inputs.drain(..).collect();
                    let now = self.now;
                    let desk = self.desk(at);
                    let due = desk.next_wake().is_some_and(|wake| wake <= now.since_boot_ms);
                    if !inputs.is_empty() || due || desk.is_sweeping() {
                        busy = true;
                        let outcomes = desk.handle(&inputs, &now).unwrap();
                        self.carry_out(at, outcomes);
                    }
                }
                if !busy {
                    break;
                }
            }
            let next = [HOST, COMPANION].into_iter().filter_map(|at| self.desk(at).next_wake()).min();
            match next.filter(|next| *next <= end) {
                Some(next) => self.pass(next.saturating_sub(self.now.since_boot_ms)),
                None => {
                    self.pass(end - self.now.since_boot_ms);
                    return;
                }
            }
        }
    }

    fn pass(&mut self, milliseconds: u64) {
        self.now.since_boot_ms += milliseconds;
        self.now.wall_ms += milliseconds;
    }

    fn carry_out(&mut self, at: usize, outcomes: Vec<Outcome>) {
        for outcome in outcomes {
            self.outcomes[at] += 1;
            if self.crash == Some((at, self.outcomes[at])) {
                self.crash = None;
                self.devices[at].desk = None;
                self.start(at);
                if self.link_up {
                    self.set_link(true);
                }
                return;
            }
            self.carry_out_one(at, outcome);
        }
    }

    fn carry_out_one(&mut self, at: usize, outcome: Outcome) {
        let other = 1 - at;
        let happened = |mail, event| Input::Happened { mail, event };
        let reply = |code| Reply::new(code, None, "said").unwrap();
        match outcome {
            Outcome::Do { effect: Effect::Send(message), .. } => self.say(other, Frame::Mail(message)),
            Outcome::Say(frame) => self.say(other, frame),
            Outcome::Fetch(message) => {
                let desk = self.desk(other);
                let Some(mut stored) = desk.store().reader().unwrap().body(&message.mail).unwrap() else { return };
                let mut bytes = Vec::new();
                stored.read_to_end(&mut bytes).unwrap();
                let mut draft = BodyDraft::new(self.desk(at).store().bodies(), message.mail);
                draft.write(&bytes).unwrap();
                let body = draft.finish().unwrap();
                self.devices[at].inputs.push_back(Input::Copied { message, body });
            }
            Outcome::Discard(mail) => body::remove(self.desk(at).store().bodies(), &mail).unwrap(),
            Outcome::Do { mail, effect, .. } => {
                let event = match effect {
                    Effect::Try { attempt, .. } if self.devices[at].path_up => {
                        Event::DotAsked { attempt, refused: Replies::new() }
                    }
                    Effect::Try { attempt, .. } => {
                        Event::TryFailed { attempt, replies: Replies::new(), failure: reply(451) }
                    }
                    Effect::WriteDot { attempt, .. } => {
                        self.accepted.entry(mail).or_default().push(at);
                        let recipients = [0, 1].into_iter().collect();
                        match self.silent {
                            true => Event::AnswerLost { attempt },
                            false => Event::Answered { attempt, replies: Replies::all(&recipients, &reply(250)) },
                        }
                    }
                    Effect::LookUpSent => Event::SentLookup(SentLookup::NotEvidence),
                    Effect::Bounce { recipients } => {
                        let recipients: Vec<u32> = recipients.into_iter().map(|(recipient, _)| recipient).collect();
                        self.bounced.push((mail, recipients.clone()));
                        Event::BounceFiled { recipients: recipients.into_iter().collect() }
                    }
                    Effect::FileInSent => Event::SentFiled,
                    _ => return,
                };
                self.devices[at].inputs.push_back(happened(mail, event));
            }
        }
    }

    fn say(&mut self, to: usize, frame: Frame) {
        if self.link_up {
            let bytes = frame.encode();
            self.devices[to].inputs.push_back(Input::Heard(Frame::decode(&bytes).unwrap()));
        }
    }

    #[track_caller]
    fn nothing_is_left(&mut self) {
        for at in [HOST, COMPANION] {
            assert_eq!(self.desk(at).store().count().unwrap(), 0, "mails at device {at}");
            let bodies = self.devices[at].directory.path().join("bodies");
            assert_eq!(std::fs::read_dir(bodies).unwrap().count(), 0, "bodies at device {at}");
        }
    }
}

const HOUR: Duration = Duration::from_secs(3600);

#[test]
fn a_host_alone_sends_and_keeps_a_view() {
    let mut world = World::new();
    let mail = world.submit(1, 100);
    world.run(Duration::from_secs(1));
    assert_eq!(world.accepted[&mail], [HOST]);
    let views = world.desk(HOST).store().reader().unwrap().finished(5).unwrap();
    assert_eq!(views[0].recipients[0].status, "sent");
    assert_eq!(views[0].recipients[0].path.as_deref(), Some("host"));
    world.nothing_is_left();
}

#[test]
fn the_companion_has_a_copy_before_the_host_tries_and_drops_it_after() {
    let mut world = World::new();
    world.set_link(true);
    world.run(Duration::from_secs(1));
    world.submit(1, body::ROW_BYTES + 1);
    let inputs: Vec<Input> = world.devices[HOST].inputs.drain(..).collect();
    let now = world.now;
    let outcomes = world.desk(HOST).handle(&inputs, &now).unwrap();
    let is_copy = |outcome: &Outcome| {
        matches!(outcome, Outcome::Do { effect: Effect::Send(Message { body: Said::Copy(_), .. }), .. })
    };
    let is_try = |outcome: &Outcome| matches!(outcome, Outcome::Do { effect: Effect::Try { .. }, .. });
    assert!(outcomes.iter().position(is_copy).unwrap() < outcomes.iter().position(is_try).unwrap());
    world.carry_out(HOST, outcomes);
    world.run(HOUR);
    assert_eq!(world.accepted.values().next().unwrap(), &[HOST]);
    world.nothing_is_left();
}

#[test]
fn with_the_host_path_cut_the_companion_sends() {
    for size in [100, body::ROW_BYTES + 1] {
        let mut world = World::new();
        world.set_link(true);
        world.devices[HOST].path_up = false;
        let mail = world.submit(1, size);
        world.run(Duration::from_secs(20));
        assert_eq!(world.accepted[&mail], [COMPANION]);
        let view = &world.desk(HOST).store().reader().unwrap().finished(1).unwrap()[0];
        assert_eq!(view.recipients[0].path.as_deref(), Some("companion"));
        assert_eq!(view.paths[0].path, "host");
        assert!(view.paths[0].last_failure.starts_with("451"));
        world.run(HOUR);
        world.nothing_is_left();
    }
}

#[test]
fn with_both_paths_cut_the_one_that_comes_back_sends() {
    for back in [HOST, COMPANION] {
        let mut world = World::new();
        world.set_link(true);
        for device in &mut world.devices {
            device.path_up = false;
        }
        let mail = world.submit(1, 100);
        world.run(Duration::from_secs(600));
        assert!(world.accepted.is_empty());
        world.devices[back].path_up = true;
        world.devices[back].inputs.push_back(Input::HappenedToAll(Event::PathUp));
        world.run(2 * HOUR);
        assert_eq!(world.accepted[&mail], [back]);
        world.nothing_is_left();
    }
}

#[test]
fn a_mail_that_nobody_can_send_bounces_once() {
    let mut world = World::new();
    world.set_link(true);
    for device in &mut world.devices {
        device.path_up = false;
    }
    let mail = world.submit(1, 100);
    world.run(Duration::from_secs(6 * 24 * 3600));
    assert!(world.accepted.is_empty());
    assert_eq!(world.bounced, [(mail, vec![0, 1])]);
    world.nothing_is_left();
}

/// Runs one scenario again and again with a crash before each of its outcomes, until it ends without one.
fn crash_everywhere(who: usize, prepare: impl Fn(&mut World)) -> usize {
    for at in 1.. {
        let mut world = World::new();
        // What opening a new home asks for is not counted.
        world.outcomes = [0; 2];
        world.crash = Some((who, at));
        prepare(&mut world);
        let crashed = world.crash.is_none();
        for (mail, senders) in &world.accepted {
            // A crash after the dot was durable leaves a doubt that only the retry can end: the documented window.
            let bound = if crashed { 2 } else { 1 };
            assert!(senders.len() <= bound, "crash {at} of {who}: {mail} sent by {senders:?}");
        }
        let submitted = 2;
        assert_eq!(world.accepted.len(), submitted, "crash {at} of {who}: each mail was sent");
        world.nothing_is_left();
        if !crashed {
            return at;
        }
    }
    unreachable!()
}

#[test]
fn a_crash_between_any_save_and_effect_loses_nothing() {
    for who in [HOST, COMPANION] {
        let by_host = crash_everywhere(who, |world| {
            world.set_link(true);
            world.submit(1, 100);
            world.submit(2, body::ROW_BYTES + 1);
            world.run(24 * HOUR);
        });
        let by_companion = crash_everywhere(who, |world| {
            world.set_link(true);
            world.devices[HOST].path_up = false;
            world.submit(1, 100);
            world.submit(2, body::ROW_BYTES + 1);
            world.run(24 * HOUR);
        });
        assert!(by_host > 4 && by_companion > 8, "{by_host} and {by_companion} places to crash at");
    }
}

#[test]
fn a_full_disk_refuses_a_mail_and_loses_none() {
    let mut world = World::new();
    world.devices[HOST].path_up = false;
    let first = world.submit(1, 100);
    world.run(Duration::from_secs(1));
    let now = world.now;
    world.desk(HOST).store().limit_pages(Some(20));
    let second = world.submit(2, 60_000);
    let third = world.submit(3, 60_000);
    let inputs: Vec<Input> = world.devices[HOST].inputs.drain(..).collect();
    let refused = world.desk(HOST).handle(&inputs, &now);
    assert!(matches!(refused, Err(StoreError::Full)), "{refused:?}");
    assert!(world.desk(HOST).store().machine(&second).unwrap().is_none());
    world.desk(HOST).store().limit_pages(None);
    // The second is given again, the third is not: its submitter was told.
    let outcomes = world.desk(HOST).handle(&inputs[..1], &now).unwrap();
    world.carry_out(HOST, outcomes);
    world.devices[HOST].path_up = true;
    world.run(2 * HOUR);
    assert_eq!(world.accepted.keys().copied().collect::<Vec<_>>(), [first, second]);
    assert!(!world.accepted.contains_key(&third));
    world.nothing_is_left();
}

#[test]
fn the_whole_queue_hears_of_the_link_page_by_page() {
    let mut world = World::new();
    for device in &mut world.devices {
        device.path_up = false;
    }
    let mails = PAGE + 100;
    for count in 0..mails as u32 {
        let mut id = [0; 16];
        id[..4].copy_from_slice(&count.to_be_bytes());
        let mail = MailId(id);
        let mut draft = BodyDraft::new(world.desk(HOST).store().bodies(), mail);
        draft.write(b"x").unwrap();
        let body = draft.finish().unwrap();
        let address = |text: &str| Address::new(text).unwrap();
        let item = Item::new(mail, body.hash, 1, address(""), vec![address("b@c"), address("d@e")]).unwrap();
        world.devices[HOST].inputs.push_back(Input::Submitted { item: Arc::new(item), body });
    }
    world.run(Duration::from_secs(1));
    world.set_link(true);
    world.run(Duration::from_secs(5));
    assert_eq!(world.desk(COMPANION).store().count().unwrap(), mails as u64);
    for device in &mut world.devices {
        device.path_up = true;
    }
    world.run(24 * HOUR);
    assert_eq!(world.accepted.len(), mails);
    assert!(world.accepted.values().all(|senders| senders.len() == 1));
    world.nothing_is_left();
}

#[test]
fn an_unknown_end_is_sent_again_by_the_default_policy() {
    let mut world = World::new();
    world.silent = true;
    let mail = world.submit(1, 100);
    world.run(Duration::from_secs(30));
    world.silent = false;
    assert_eq!(world.accepted[&mail].len(), 1);
    world.run(2 * HOUR);
    assert_eq!(world.accepted[&mail].len(), 2);
    world.nothing_is_left();
}

#[test]
fn a_mail_submitted_while_no_daemon_ran_is_tried_at_the_start() {
    let mut world = World::new();
    let directory = world.devices[HOST].directory.path().to_owned();
    world.devices[HOST].desk = None;
    let bodies = directory.join("bodies");
    let mut store = Store::open(&directory.join("outbox.db"), &bodies).unwrap();
    let mut draft = BodyDraft::new(&bodies, MailId([9; 16]));
    draft.write(b"hello").unwrap();
    let body = draft.finish().unwrap();
    let address = |text: &str| Address::new(text).unwrap();
    let item = Item::new(body.mail, body.hash, 5, address("a@b"), vec![address("c@d"), address("e@f")]).unwrap();
    let tie = Some(Tie { serial: 1, role: Role::Host });
    Desk::submit_untried(&mut store, tie, &Settings::default(), &Arc::new(item), &body, &world.now).unwrap();
    drop(store);
    world.start(HOST);
    world.run(Duration::from_secs(1));
    assert_eq!(world.accepted[&MailId([9; 16])], [HOST]);
    world.nothing_is_left();
}

/// The link came up in the very batch in which the first mail was submitted: the host took the number of a mail that was
/// just added for a finished one, and the companion then refused the copy.
#[test]
fn a_mail_submitted_as_the_link_comes_up_is_copied() {
    let mut world = World::new();
    world.devices[HOST].path_up = false;
    let mail = world.submit(1, 100);
    world.set_link(true);
    world.run(Duration::from_secs(20));
    assert_eq!(world.accepted[&mail], [COMPANION]);
    world.run(HOUR);
    world.nothing_is_left();
}

/// A mail that nobody could send yet, and its copy; both devices are about to part.
fn about_to_part() -> (World, MailId) {
    let mut world = World::new();
    world.devices[HOST].path_up = false;
    world.devices[COMPANION].path_up = false;
    world.set_link(true);
    let mail = world.submit(1, 100);
    world.run(Duration::from_secs(20));
    assert_eq!(world.desk(COMPANION).store().count().unwrap(), 1);
    world.set_link(false);
    world.run(Duration::from_secs(1));
    (world, mail)
}

#[test]
fn when_a_pair_is_over_its_mails_go_on_alone_and_copies_go() {
    for next in [None, Some(Tie { serial: 2, role: Role::Host })] {
        let (mut world, mail) = about_to_part();
        world.start_in(HOST, next);
        world.start_in(COMPANION, next);
        assert_eq!(world.desk(COMPANION).store().count().unwrap(), 0, "the host has the mail");
        world.devices[HOST].path_up = true;
        world.devices[COMPANION].path_up = true;
        world.run(Duration::from_secs(3 * 3600));
        assert_eq!(world.accepted[&mail], [HOST]);
        assert_eq!(world.desk(HOST).store().count().unwrap(), 0, "nobody is waited for");
    }
}

#[test]
fn a_copy_that_was_taken_over_outlasts_the_pair() {
    let (mut world, mail) = about_to_part();
    world.devices[COMPANION].inputs.push_back(Input::HappenedToAll(Event::TakeOver));
    world.run(Duration::from_secs(1));
    world.start_in(COMPANION, Some(Tie { serial: 2, role: Role::Companion }));
    assert_eq!(world.desk(COMPANION).store().count().unwrap(), 1, "it may be the only one there is");
    world.devices[COMPANION].path_up = true;
    world.run(Duration::from_secs(3 * 3600));
    assert_eq!(world.accepted[&mail], [COMPANION]);
    let ledger = world.desk(COMPANION).store().ledger(2).unwrap();
    let ledger = ledger.map_or_else(CompanionLedger::new, |bytes| CompanionLedger::decode(&bytes).unwrap());
    assert!(ledger.admits(1), "its number is not one of the new pair");
    world.start_in(COMPANION, None);
    assert_eq!(world.desk(COMPANION).store().count().unwrap(), 0);
}
