//! Two outboxes in one process, each with its loop and its store, over a link in memory and over one on loopback.
//!
//! The paths are pretended: what a test sets, a try meets. Everything else is what the daemon runs.

use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use packetboat_core::delivery::{
    Address, Effect, Event, Frame, Item, Recipients, Replies, Reply, SentLookup, Settings,
};
use packetboat_core::ids::MailId;
use packetboat_core::keys::{DeviceKey, PublicKey};
use packetboat_daemon::clock::{BootClock, Clock};
use packetboat_daemon::inbox::exchange::Exchange;
use packetboat_daemon::inbox::office::{Office, OfficeParts};
use packetboat_daemon::outbox::body::{self, BodyDraft, ROW_BYTES};
use packetboat_daemon::outbox::courier::{Courier, Hands, run};
use packetboat_daemon::outbox::desk::{Desk, Outcome, Tie};
use packetboat_daemon::outbox::store::Store;
use packetboat_daemon::pair::Role;
use packetboat_daemon::peer::{Peer, PeerParts, PeerSender};
use packetboat_link::{Limits, Session};
use packetboat_testkit::rng::Rng;
use tokio::sync::{mpsc, watch};
use tokio::time::{sleep, timeout};

/// One device, until dropped.
struct Device {
    directory: tempfile::TempDir,
    courier: Courier,
    peer: tokio::sync::Mutex<Peer>,
    path_up: Arc<AtomicBool>,
    _stop: watch::Sender<bool>,
    skew: watch::Receiver<Option<i64>>,
    lend: watch::Sender<Option<Arc<Vec<u8>>>>,
    lent: tokio::sync::Mutex<mpsc::Receiver<Vec<u8>>>,
}

/// Which device sent what.
type Sent = Arc<Mutex<Vec<(Role, MailId)>>>;

fn quick() -> Settings {
    let milliseconds = Duration::from_millis;
    Settings {
        answer: milliseconds(300),
        lease: milliseconds(1500),
        margin: milliseconds(300),
        backoff_first: milliseconds(300),
        backoff_max: milliseconds(600),
        resend_first: milliseconds(200),
        request_patience: milliseconds(500),
        peer_patience: milliseconds(500),
        sent_settle: milliseconds(100),
        ..Settings::default()
    }
}

impl Device {
    fn start(role: Role, sent: &Sent) -> Self {
        Self::start_by(Arc::new(BootClock::new([9; 16])), role, sent)
    }

    /// The same by another clock.
    fn start_by(clock: Arc<dyn Clock>, role: Role, sent: &Sent) -> Self {
        let directory = tempfile::tempdir().unwrap();
        let bodies = directory.path().join("bodies");
        std::fs::create_dir(&bodies).unwrap();
        let store = Store::open(&directory.path().join("outbox.db"), &bodies).unwrap();
        let reader = store.reader().unwrap();
        let tie = Some(Tie { serial: 1, role });
        let (desk, outcomes) = Desk::open(store, tie, quick(), &clock.now()).unwrap();
        let (courier, mut commands) = Courier::channel();
        let (lend, accounts) = watch::channel(None);
        let (got_accounts, lent) = mpsc::channel(1);
        let office = Office::new(OfficeParts {
            record: directory.path().join("inbox.db"),
            maildir: directory.path().join("Mail"),
            host_name: "device".to_owned(),
            clock: clock.clone(),
            entropy: Box::new(Rng::new(0)),
            paired: true,
        });
        let parts = PeerParts {
            courier: courier.clone(),
            reader,
            bodies: bodies.clone(),
            role,
            clock: clock.clone(),
            accounts,
            got_accounts,
            inbox: Exchange::new(office),
            carries: None,
            parting: tokio::sync::mpsc::channel(1).0,
        };
        let (peer, sender, skew) = Peer::new(parts);
        let path_up = Arc::new(AtomicBool::new(true));
        let mut hands = Pretended {
            role,
            courier: courier.clone(),
            peer: sender,
            path_up: path_up.clone(),
            sent: sent.clone(),
            bodies,
        };
        let (stop, stopped) = watch::channel(false);
        tokio::spawn(async move {
            run(desk, outcomes, &mut commands, &mut hands, clock.as_ref(), stopped).await;
        });
        let (peer, lent) = (tokio::sync::Mutex::new(peer), tokio::sync::Mutex::new(lent));
        Self { directory, courier, peer, path_up, _stop: stop, skew, lend, lent }
    }

    async fn submit(&self, id: u8, size: usize) -> MailId {
        let mail = MailId([id; 16]);
        let mut draft = BodyDraft::new(&self.directory.path().join("bodies"), mail);
        draft.write(&vec![id; size]).unwrap();
        let body = draft.finish().unwrap();
        let address = |text: &str| Address::new(text).unwrap();
        let item = Item::new(mail, body.hash, body.size_bytes, address("a@b"), vec![address("c@d")]).unwrap();
        self.courier.submit(Arc::new(item), body).await.unwrap();
        mail
    }

    /// How its mails stand, for whoever reads why a test failed.
    fn stands(&self) -> String {
        let (database, bodies) = (self.directory.path().join("outbox.db"), self.directory.path().join("bodies"));
        let reader = packetboat_daemon::outbox::store::Reader::open(&database, &bodies).unwrap();
        let mails = reader.mails_after(0, 5).unwrap();
        let machines: Vec<_> = mails.iter().map(|(_, mail)| reader.machine(mail).unwrap()).collect();
        format!("{machines:#?} and {:?}", std::fs::read_dir(bodies).unwrap().collect::<Vec<_>>())
    }

    fn open(&self) -> usize {
        let (database, bodies) = (self.directory.path().join("outbox.db"), self.directory.path().join("bodies"));
        let reader = packetboat_daemon::outbox::store::Reader::open(&database, &bodies).unwrap();
        reader.mails_after(0, 1000).unwrap().len() + std::fs::read_dir(bodies).unwrap().count()
    }
}

/// Hands whose tries meet a pretended path.
struct Pretended {
    role: Role,
    courier: Courier,
    peer: PeerSender,
    path_up: Arc<AtomicBool>,
    sent: Sent,
    bodies: std::path::PathBuf,
}

impl Hands for Pretended {
    fn carry_out(&mut self, outcome: Outcome) {
        let all: Recipients = [0].into_iter().collect();
        let reply = |code| Reply::new(code, None, "pretended").unwrap();
        let (mail, event) = match outcome {
            Outcome::Do { effect: Effect::Send(message), .. } => return self.peer.say(Frame::Mail(message)),
            Outcome::Say(frame) => return self.peer.say(frame),
            Outcome::Fetch(message) => return self.peer.fetch(message),
            Outcome::Discard(mail) => return body::remove(&self.bodies, &mail).unwrap(),
            Outcome::Do { mail, effect: Effect::Try { attempt, .. }, .. } => {
                let event = match self.path_up.load(Ordering::SeqCst) {
                    true => Event::DotAsked { attempt, refused: Replies::new() },
                    false => Event::TryFailed { attempt, replies: Replies::new(), failure: reply(451) },
                };
                (mail, event)
            }
            Outcome::Do { mail, effect: Effect::WriteDot { attempt, .. }, .. } => {
                self.sent.lock().unwrap().push((self.role, mail));
                (mail, Event::Answered { attempt, replies: Replies::all(&all, &reply(250)) })
            }
            Outcome::Do { mail, effect: Effect::LookUpSent, .. } => (mail, Event::SentLookup(SentLookup::NotEvidence)),
            Outcome::Do { .. } => return,
        };
        let courier = self.courier.clone();
        tokio::spawn(async move { courier.happened(mail, event).await });
    }

    fn has_room(&self) -> bool {
        self.peer.has_room()
    }
}

fn key(seed: u8) -> PublicKey {
    DeviceKey::from_seed(&[seed; 32]).public()
}

/// Connects two devices until what is returned is closed.
fn connect(host: &Arc<Device>, companion: &Arc<Device>) -> Session {
    let [here, there] = Session::pair_in_memory([key(2), key(1)], &Limits::default());
    for (device, session) in [(host, here.clone()), (companion, there)] {
        let device = device.clone();
        tokio::spawn(async move { device.peer.lock().await.serve(session).await });
    }
    here
}

async fn until(what: &str, holds: impl Fn() -> bool) {
    let holding = async {
        while !holds() {
            sleep(Duration::from_millis(20)).await;
        }
    };
    timeout(Duration::from_secs(30), holding).await.unwrap_or_else(|_| panic!("not so: {what}"));
}

fn pair() -> (Arc<Device>, Arc<Device>, Sent) {
    let sent = Sent::default();
    (Arc::new(Device::start(Role::Host, &sent)), Arc::new(Device::start(Role::Companion, &sent)), sent)
}

#[tokio::test(flavor = "multi_thread")]
async fn a_mail_of_any_size_goes_out_by_the_companion_when_the_host_cannot() {
    let (host, companion, sent) = pair();
    let _session = connect(&host, &companion);
    host.path_up.store(false, Ordering::SeqCst);
    let small = host.submit(1, 100).await;
    let large = host.submit(2, 5 * ROW_BYTES).await;
    let done = async { until("both are sent and nothing is left", || host.open() == 0 && companion.open() == 0).await };
    tokio::select! {
        () = done => {}
        () = sleep(Duration::from_secs(20)) => panic!("host {}\ncompanion {}", host.stands(), companion.stands()),
    }
    let mut sent = sent.lock().unwrap().clone();
    sent.sort_by_key(|(_, mail)| *mail);
    assert_eq!(sent, [(Role::Companion, small), (Role::Companion, large)]);
}

/// A computer whose wall clock was set wrong; the time since boot is nobody's to set.
struct SetWrong {
    right: BootClock,
    by_ms: i64,
}

impl Clock for SetWrong {
    fn now(&self) -> packetboat_core::delivery::Now {
        let now = self.right.now();
        packetboat_core::delivery::Now { wall_ms: now.wall_ms.saturating_add_signed(self.by_ms), ..now }
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn clocks_that_are_days_apart_break_nothing_and_are_told() {
    // Longer than a mail is tried for, either way.
    for by_ms in [-400 * 86_400_000_i64, 40 * 86_400_000] {
        let sent = Sent::default();
        let clock = SetWrong { right: BootClock::new([9; 16]), by_ms };
        let host = Arc::new(Device::start(Role::Host, &sent));
        let companion = Arc::new(Device::start_by(Arc::new(clock), Role::Companion, &sent));
        let _session = connect(&host, &companion);
        host.path_up.store(false, Ordering::SeqCst);
        companion.path_up.store(false, Ordering::SeqCst);
        let mail = host.submit(1, 100).await;
        // The turn goes to and fro, by leases that each side counts for itself.
        sleep(Duration::from_secs(3)).await;
        assert!(sent.lock().unwrap().is_empty());
        assert_eq!((host.open(), companion.open()), (1, 1), "nobody gives the mail up");
        companion.path_up.store(true, Ordering::SeqCst);
        until("it is sent and nothing is left", || host.open() == 0 && companion.open() == 0).await;
        assert_eq!(sent.lock().unwrap()[..], [(Role::Companion, mail)]);
        for (device, ahead) in [(&host, by_ms), (&companion, -by_ms)] {
            let said = device.skew.borrow().expect("the other device says what time it has");
            assert!(said.abs_diff(ahead) < 60_000, "{said} instead of {ahead}");
        }
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn copies_wait_for_the_link_and_come_whole_after_it_was_cut() {
    let (host, companion, sent) = pair();
    for device in [&host, &companion] {
        device.path_up.store(false, Ordering::SeqCst);
    }
    let mails = 300;
    for id in 0..mails {
        let large = if id % 50 == 0 { 2 * ROW_BYTES } else { 10 };
        let mail = MailId([(id / 256) as u8, id as u8, 7, 7, 7, 7, 7, 7, 7, 7, 7, 7, 7, 7, 7, 7]);
        let mut draft = BodyDraft::new(&host.directory.path().join("bodies"), mail);
        draft.write(&vec![1; large]).unwrap();
        let body = draft.finish().unwrap();
        let address = |text: &str| Address::new(text).unwrap();
        let item = Item::new(mail, body.hash, body.size_bytes, address("a@b"), vec![address("c@d")]).unwrap();
        host.courier.submit(Arc::new(item), body).await.unwrap();
    }
    let session = connect(&host, &companion);
    until("some copies are there", || companion.open() > 20).await;
    session.close();
    sleep(Duration::from_millis(300)).await;
    let _session = connect(&host, &companion);
    until("all copies are there", || companion.open() == mails + mails / 50).await;
    companion.path_up.store(true, Ordering::SeqCst);
    until("all are sent and nothing is left", || host.open() == 0 && companion.open() == 0).await;
    let sent = sent.lock().unwrap();
    assert_eq!(sent.len(), mails);
    assert!(sent.iter().all(|(by, _)| *by == Role::Companion));
}

#[tokio::test(flavor = "multi_thread")]
async fn the_companion_gets_what_it_needs_to_send_by_in_each_session() {
    let (host, companion, _) = pair();
    host.lend.send_replace(Some(Arc::new(b"accounts".to_vec())));
    for _ in 0..2 {
        let session = connect(&host, &companion);
        let lent = timeout(Duration::from_secs(10), async { companion.lent.lock().await.recv().await }).await;
        assert_eq!(lent.unwrap().as_deref(), Some(b"accounts".as_slice()));
        session.close();
        sleep(Duration::from_millis(100)).await;
    }
}
