//! Tries: mails on their way to the servers of their accounts, over this device's own path.
//!
//! Each account has a few lanes, each a connection that is used for mail after mail. A lane that finds the path or the
//! account unusable fails everything that was waiting when it began to connect, so that ten thousand mails learn in one
//! connect deadline what one has learned.
//!
//! Before the final dot a lane tells the courier and waits: the dot is written only once the state that says so is on
//! stable storage, and only if the lease that it was granted by still runs by the clock that is read then.
//!
//! A try ends in exactly one event, but for one that was broken off on the machine's own wish, which ends in none.

use std::collections::{HashMap, VecDeque};
use std::io::Read;
use std::pin::Pin;
use std::sync::{Arc, Mutex, MutexGuard};
use std::time::Duration;

use packetboat_core::delivery::{Attempt, Enhanced, Event, Item, Moment, Recipients, Replies, Reply};
use packetboat_core::ids::MailId;
use packetboat_mail::address::{Address, ReversePath};
use packetboat_mail::smtp::{Connection, Failure, Fate, Gate, Outgoing, Server, Try};
use tokio::io::AsyncRead;
use tokio::sync::{Notify, oneshot, watch};
use tokio::task::JoinSet;

use super::advice;
use super::courier::Courier;
use super::store::Reader;
use crate::clock::Clock;
use crate::files::with_causes;
use crate::paths::PathWatch;

/// Which account sends a mail, and how its server is reached.
pub trait Routes: Send + Sync {
    /// The name of the account that sends mail of this sender; nothing where none does.
    fn account(&self, sender: &str) -> Option<Arc<str>>;

    /// The server of an account, with its login; finding the password may mean to run a command.
    fn server<'a>(&'a self, account: &'a str) -> ServerFuture<'a>;

    /// How many connections to it there may be at once.
    fn connections(&self) -> usize;
}

/// A server that is being found.
pub type ServerFuture<'a> = Pin<Box<dyn Future<Output = Result<Server, Failure>> + Send + 'a>>;

/// All tries of this device.
#[derive(Clone)]
pub struct Transmit(Arc<Shared>);

struct Shared {
    courier: Courier,
    routes: Mutex<Arc<dyn Routes>>,
    reader: Arc<Mutex<Reader>>,
    clock: Arc<dyn Clock>,
    watch: PathWatch,
    running: Mutex<Running>,
    lanes: Mutex<JoinSet<()>>,
    /// Counts how often the path was lost.
    lost: watch::Sender<u64>,
}

#[derive(Default)]
struct Running {
    tries: HashMap<MailId, Underway>,
    accounts: HashMap<Arc<str>, Account>,
}

/// A try that waits, or is under way.
struct Underway {
    attempt: Attempt,
    /// Says whether the dot may be written, once it was asked for.
    gate: Option<oneshot::Sender<Permit>>,
    /// Ends it early.
    broken_off: Arc<Notify>,
    /// Whether it was asked for the dot, so that only its own end tells what became of it.
    at_dot: bool,
}

/// The answer to the question whether the dot may be written.
#[derive(Clone, Copy, Debug)]
struct Permit {
    before: Option<Moment>,
}

#[derive(Default)]
struct Account {
    waiting: VecDeque<Job>,
    lanes: usize,
    /// Lanes of these that have a connection and nothing to do.
    idle: usize,
}

/// What a lane does next.
enum Next {
    Job(Job),
    Linger,
    End,
}

#[derive(Clone)]
struct Job {
    mail: MailId,
    attempt: Attempt,
    recipients: Recipients,
}

impl Transmit {
    /// Begins with nothing under way.
    pub fn new(
        courier: Courier,
        routes: Arc<dyn Routes>,
        reader: Reader,
        clock: Arc<dyn Clock>,
        watch: PathWatch,
    ) -> Self {
        Self(Arc::new(Shared {
            courier,
            routes: Mutex::new(routes),
            reader: Arc::new(Mutex::new(reader)),
            clock,
            watch,
            running: Mutex::default(),
            lanes: Mutex::default(),
            lost: watch::Sender::new(0),
        }))
    }

    /// Uses other accounts from now on; tries under way end as they are.
    pub fn set_routes(&self, routes: Arc<dyn Routes>) {
        *lock(&self.0.routes) = routes;
    }

    /// Begins a try. One that is under way already goes on.
    pub fn begin(&self, item: &Item, attempt: Attempt, recipients: Recipients) {
        let mail = item.id();
        let routes = lock(&self.0.routes).clone();
        let Some(account) = routes.account(item.sender().as_str()) else {
            let text = format!("no account sends mail of <{}>", item.sender().as_str());
            let failure = reply_of(451, Some([4, 3, 5]), &text);
            let courier = self.0.courier.clone();
            tokio::spawn(async move {
                let event = Event::TryFailed { attempt, replies: Replies::new(), failure };
                courier.happened(mail, event).await;
            });
            return;
        };
        let mut running = lock(&self.0.running);
        if running.tries.get(&mail).is_some_and(|running| running.attempt == attempt) {
            return;
        }
        let broken_off = Arc::new(Notify::new());
        if let Some(before) = running.tries.insert(mail, Underway { attempt, gate: None, broken_off, at_dot: false }) {
            before.broken_off.notify_one();
        }
        let entry = running.accounts.entry(account.clone()).or_default();
        entry.waiting.push_back(Job { mail, attempt, recipients });
        if entry.waiting.len() > entry.idle && entry.lanes < routes.connections() {
            entry.lanes += 1;
            let lane = Lane { shared: self.0.clone(), account };
            let mut lanes = lock(&self.0.lanes);
            while lanes.try_join_next().is_some() {}
            lanes.spawn(lane.run());
        }
    }

    /// Lets the dot of a try be written, before a moment.
    pub fn write_dot(&self, mail: &MailId, attempt: Attempt, before: Option<Moment>) {
        let mut running = lock(&self.0.running);
        let gate = running.tries.get_mut(mail).filter(|running| running.attempt == attempt);
        if let Some(gate) = gate.and_then(|running| running.gate.take()) {
            // A lane that has gone meanwhile says so by its own event.
            let _gone = gate.send(Permit { before });
        }
    }

    /// Breaks off a try whose dot was not permitted.
    pub fn abort(&self, mail: &MailId, attempt: Attempt) {
        let mut running = lock(&self.0.running);
        if running.tries.get(mail).is_some_and(|running| running.attempt == attempt)
            && let Some(running) = running.tries.remove(mail)
        {
            running.broken_off.notify_one();
        }
    }

    /// The system says that there is no way out: connections are given up, and tries that are not at their dot fail now.
    pub fn path_lost(&self) {
        self.0.lost.send_modify(|count| *count += 1);
    }

    /// Whether anything is under way.
    pub fn is_idle(&self) -> bool {
        lock(&self.0.running).tries.is_empty()
    }

    /// Ends all tries whose dot was not written.
    pub fn stop(&self) {
        lock(&self.0.lanes).abort_all();
    }
}

/// One connection at a time to the server of an account.
struct Lane {
    shared: Arc<Shared>,
    account: Arc<str>,
}

impl Lane {
    async fn run(self) {
        let mut connection: Option<Connection> = None;
        loop {
            let job = match self.next(connection.is_some()) {
                Next::Job(job) => job,
                Next::Linger => {
                    // A mail often follows another; a server does not wait long for it.
                    if !self.linger(&mut connection).await {
                        connection = None;
                    }
                    continue;
                }
                Next::End => break,
            };
            if connection.as_mut().is_none_or(|connection| !connection.is_usable()) {
                let waiting = self.waiting_with(&job);
                match self.connect().await {
                    Ok(fresh) => connection = Some(fresh),
                    Err(failure) => {
                        connection = None;
                        self.shared.watch.failed(&with_causes(&failure), failure.kind());
                        self.fail_all(waiting, &failure).await;
                        continue;
                    }
                }
            }
            if let Some(open) = &mut connection {
                self.send(open, job).await;
            }
        }
    }

    /// The next job. A lane ends in the same instant in which it sees that there is none, so none is left without a lane.
    fn next(&self, connected: bool) -> Next {
        let mut running = lock(&self.shared.running);
        let Running { tries, accounts } = &mut *running;
        let Some(account) = accounts.get_mut(&self.account) else { return Next::End };
        while let Some(job) = account.waiting.pop_front() {
            // What was broken off while it waited is passed over.
            if tries.get(&job.mail).is_some_and(|underway| underway.attempt == job.attempt) {
                return Next::Job(job);
            }
        }
        if connected {
            account.idle += 1;
            return Next::Linger;
        }
        account.lanes -= 1;
        Next::End
    }

    /// Waits a little for another job; says whether the connection is still good for it.
    async fn linger(&self, connection: &mut Option<Connection>) -> bool {
        let mut good = true;
        let lost = self.shared.lost.subscribe();
        for _ in 0..LINGER_STEPS {
            tokio::time::sleep(LINGER_STEP).await;
            good = connection.as_mut().is_some_and(Connection::is_usable) && !lost.has_changed().unwrap_or(true);
            let running = lock(&self.shared.running);
            let called = running.accounts.get(&self.account).is_some_and(|account| !account.waiting.is_empty());
            if called || !good {
                break;
            }
            good = false;
        }
        if !good && let Some(idle) = connection.take() {
            // Nobody waits for a server that cannot be reached to say goodbye.
            tokio::spawn(idle.close());
        }
        if let Some(account) = lock(&self.shared.running).accounts.get_mut(&self.account) {
            account.idle -= 1;
        }
        good
    }

    /// This job and all that wait now: what a failure to connect is told to.
    fn waiting_with(&self, job: &Job) -> Vec<(MailId, Attempt)> {
        let running = lock(&self.shared.running);
        let waiting = running.accounts.get(&self.account).into_iter().flat_map(|account| &account.waiting);
        std::iter::once(job).chain(waiting).map(|job| (job.mail, job.attempt)).collect()
    }

    async fn connect(&self) -> Result<Connection, Failure> {
        let routes = lock(&self.shared.routes).clone();
        let server = routes.server(&self.account).await?;
        Connection::open(&server).await
    }

    async fn fail_all(&self, waiting: Vec<(MailId, Attempt)>, failure: &Failure) {
        let reply = reply_to_failure(failure);
        for (mail, attempt) in waiting {
            if self.end(&mail, attempt) {
                let event = Event::TryFailed { attempt, replies: Replies::new(), failure: reply.clone() };
                self.shared.courier.happened(mail, event).await;
            }
        }
    }

    /// Takes a try from those that run; says whether it was still wanted.
    fn end(&self, mail: &MailId, attempt: Attempt) -> bool {
        let mut running = lock(&self.shared.running);
        let wanted = running.tries.get(mail).is_some_and(|running| running.attempt == attempt);
        if wanted {
            running.tries.remove(mail);
        }
        wanted
    }

    async fn send(&self, connection: &mut Connection, job: Job) {
        let Job { mail, attempt, recipients } = job;
        let broken_off = {
            let running = lock(&self.shared.running);
            match running.tries.get(&mail) {
                Some(running) if running.attempt == attempt => running.broken_off.clone(),
                _ => return,
            }
        };
        let event = tokio::select! {
            biased;
            () = broken_off.notified() => return,
            () = self.lost_before_dot(&mail) => {
                let failure = reply_of(451, Some([4, 4, 4]), "there is no network any more");
                Event::TryFailed { attempt, replies: Replies::new(), failure }
            }
            event = self.try_one(connection, &mail, attempt, &recipients) => event,
        };
        tracing::debug!(%mail, ?event, "the try ended");
        if self.end(&mail, attempt) {
            self.shared.courier.happened(mail, event).await;
        }
    }

    /// Waits until the path is lost while a try is not at its dot.
    async fn lost_before_dot(&self, mail: &MailId) {
        let mut lost = self.shared.lost.subscribe();
        while lost.changed().await.is_ok() {
            if !lock(&self.shared.running).tries.get(mail).is_some_and(|underway| underway.at_dot) {
                return;
            }
        }
        std::future::pending().await
    }

    async fn try_one(
        &self,
        connection: &mut Connection,
        mail: &MailId,
        attempt: Attempt,
        recipients: &Recipients,
    ) -> Event {
        let failed = |reply| Event::TryFailed { attempt, replies: Replies::new(), failure: reply };
        let (reader, id) = (self.shared.reader.clone(), *mail);
        let read = tokio::task::spawn_blocking(move || {
            let reader = lock(&reader);
            let machine = reader.machine(&id)?;
            let body = reader.body(&id)?;
            Ok::<_, super::store::StoreError>(machine.zip(body))
        });
        let (machine, mut body) = match read.await {
            Ok(Ok(Some(found))) => found,
            Ok(Ok(None)) => return failed(reply_of(451, Some([4, 3, 0]), "the stored mail is missing")),
            Ok(Err(error)) => return failed(reply_of(451, Some([4, 3, 0]), &with_causes(&error))),
            Err(error) => return failed(reply_of(451, Some([4, 3, 0]), &error.to_string())),
        };
        let item = machine.item().clone();
        let envelope = match Envelope::of(&item, recipients) {
            Ok(envelope) => envelope,
            Err(reply) => return failed(reply),
        };
        let eight_bit = match &mut body {
            super::store::StoredBody::Row(bytes) => !bytes.get_ref().is_ascii(),
            // Saying BODY=8BITMIME of a mail that has no such byte does no harm; a scan of a large one would take time.
            super::store::StoredBody::File(_) => true,
        };
        let outgoing =
            Outgoing { sender: &envelope.sender, recipients: &envelope.recipients, size: item.size_bytes(), eight_bit };
        let (shared, places, asked) = (&self.shared, envelope.places.as_slice(), Mutex::new(false));
        let gate = DotGate { shared, mail: *mail, attempt, places, asked };
        let tried = connection.send(&outgoing, &mut Blocking(body), &gate).await;
        let asked = *lock(&gate.asked);
        self.event_of(tried, attempt, &envelope.places, asked)
    }

    fn event_of(&self, tried: Try, attempt: Attempt, places: &[u32], asked: bool) -> Event {
        match tried {
            Try::Failed { why, recipients } => {
                self.shared.watch.failed(&with_causes(&why), why.kind());
                // Before the dot an acceptance of a recipient means nothing, a refusal something.
                let replies = replies_of(places, &recipients, false);
                Event::TryFailed { attempt, replies, failure: reply_to_failure(&why) }
            }
            Try::Answered { recipients } if asked => {
                self.shared.watch.succeeded();
                Event::Answered { attempt, replies: replies_of(places, &recipients, true) }
            }
            Try::Answered { recipients } => {
                self.shared.watch.succeeded();
                let failure = reply_of(451, None, "the server took none of the recipients");
                Event::TryFailed { attempt, replies: replies_of(places, &recipients, false), failure }
            }
            Try::AnswerLost { why, .. } => {
                self.shared.watch.failed(&with_causes(&why), why.kind());
                Event::AnswerLost { attempt }
            }
        }
    }
}

/// Asks the courier before the dot.
struct DotGate<'a> {
    shared: &'a Shared,
    mail: MailId,
    attempt: Attempt,
    /// Which of the mail's recipients those of the try are.
    places: &'a [u32],
    asked: Mutex<bool>,
}

impl Gate for DotGate<'_> {
    async fn may_write_dot(&self, recipients: &[Fate]) -> bool {
        let (permit, permitted) = oneshot::channel();
        {
            let mut running = lock(&self.shared.running);
            let Some(running) = running.tries.get_mut(&self.mail) else { return false };
            if running.attempt != self.attempt {
                return false;
            }
            running.gate = Some(permit);
            running.at_dot = true;
        }
        // Whoever was refused is told of durably before the dot, and is in no doubt where its answer is lost.
        let refused = replies_of(self.places, recipients, false);
        let event = Event::DotAsked { attempt: self.attempt, refused };
        self.shared.courier.happened(self.mail, event).await;
        let Ok(Permit { before }) = permitted.await else { return false };
        *lock(&self.asked) = true;
        // The process may have been asleep since the lease was looked at.
        before.is_none_or(|before| !self.shared.clock.now().reached(before))
    }
}

/// The envelope of a try, for the recipients that are left.
struct Envelope {
    sender: ReversePath,
    recipients: Vec<Address>,
    places: Vec<u32>,
}

impl Envelope {
    fn of(item: &Item, recipients: &Recipients) -> Result<Self, Reply> {
        let refuse = |text: String| reply_of(550, Some([5, 1, 3]), &text);
        let parse = |text: &str| Address::parse(text).map_err(|error| refuse(format!("<{text}>: {error}")));
        let sender = match item.sender().as_str() {
            "" => ReversePath::Null,
            sender => ReversePath::Mailbox(parse(sender)?),
        };
        let places: Vec<u32> = recipients.iter().collect();
        let of_place = |place: &u32| item.recipients().get(*place as usize).map_or("", |address| address.as_str());
        let recipients = places.iter().map(|place| parse(of_place(place))).collect::<Result<_, _>>()?;
        Ok(Self { sender, recipients, places })
    }
}

/// A stored body as a stream. Its reads come from the page cache or a row; they are short.
struct Blocking(super::store::StoredBody);

impl AsyncRead for Blocking {
    fn poll_read(
        mut self: std::pin::Pin<&mut Self>,
        _: &mut std::task::Context<'_>,
        buffer: &mut tokio::io::ReadBuf<'_>,
    ) -> std::task::Poll<std::io::Result<()>> {
        let count = self.0.read(buffer.initialize_unfilled())?;
        buffer.advance(count);
        std::task::Poll::Ready(Ok(()))
    }
}

fn replies_of(places: &[u32], fates: &[Fate], ended: bool) -> Replies {
    let of_one = |(place, fate): (&u32, &Fate)| match fate {
        Fate::Accepted(reply) if ended => Some((*place, core_reply(reply))),
        Fate::Refused(reply) => Some((*place, core_reply(reply))),
        _ => None,
    };
    places.iter().zip(fates).filter_map(of_one).collect()
}

/// What a server said, as the machines keep it.
fn core_reply(reply: &packetboat_mail::smtp::Reply) -> Reply {
    reply_of(reply.code, reply.enhanced, &reply.text)
}

/// What happened where no server spoke, or where it spoke of the account and not of the mail: it may pass.
fn reply_to_failure(failure: &Failure) -> Reply {
    let (code, enhanced) = advice::codes_of(failure);
    reply_of(code, enhanced, &with_causes(failure))
}

fn reply_of(code: u16, enhanced: Option<[u8; 3]>, text: &str) -> Reply {
    let enhanced =
        enhanced.and_then(|[class, subject, detail]| Enhanced::new(class, u16::from(subject), u16::from(detail)));
    // Codes that end nothing, such as 354 in the wrong place, are no definite answer: the mail is tried again.
    Reply::new(code, enhanced, text).unwrap_or_else(|_| Reply::new(451, None, text).expect("451 ends a matter"))
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(|poisoned| poisoned.into_inner())
}

/// How long an idle connection is kept for another mail.
const LINGER_STEP: Duration = Duration::from_millis(50);
const LINGER_STEPS: usize = 40;
