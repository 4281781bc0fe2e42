//! How mails come in: from programs through the submission port, from `sendmail`, and from reports of our own.
//!
//! A mail is taken when its body and its state are on stable storage, and not before. With a daemon that is the courier's
//! commit, which it shares with everything else that happened in that instant; without one, a transaction of its own.

use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex};

use packetboat_core::delivery::{Address, Item};
use packetboat_core::ids::{BodyHash, MailId};
use packetboat_engine::ports::Entropy;
use packetboat_mail::address::{Address as MailAddress, ReversePath};
use packetboat_mail::message::{Moment, Stamp};
use packetboat_mail::submission::{Queue, Refusal, Spooled, Submission};
use tempfile::TempPath;

use super::body::{self, Body, Place};
use super::courier::{Courier, SubmitError};
use super::desk::{Desk, Tie};
use super::store::{Store, StoreError};
use super::transmit::Routes;
use crate::clock::Clock;
use crate::files;
use crate::home::Claim;

/// What every way in has in common.
pub struct Reception {
    bodies: PathBuf,
    clock: Arc<dyn Clock>,
    entropy: Mutex<Box<dyn Entropy>>,
    host: String,
    offset_minutes: i32,
}

impl Reception {
    /// Names mails by `entropy`, and puts `host` into what they are stamped with; `offset_minutes` is how far the local
    /// clock is ahead of UTC.
    pub fn new(
        bodies: &Path,
        clock: Arc<dyn Clock>,
        entropy: Box<dyn Entropy>,
        host: String,
        offset_minutes: i32,
    ) -> Self {
        Self { bodies: bodies.to_owned(), clock, entropy: Mutex::new(entropy), host, offset_minutes }
    }

    fn random(&self) -> [u8; 16] {
        let mut bytes = [0; 16];
        self.entropy.lock().unwrap_or_else(|poisoned| poisoned.into_inner()).fill(&mut bytes);
        bytes
    }

    /// The time and fresh randomness for a message.
    pub fn stamp(&self) -> Stamp {
        Stamp { moment: self.moment(self.clock.now().wall_ms), random: self.random(), host: self.host.clone() }
    }

    /// The time by the wall clock, in milliseconds since 1970.
    pub fn now_ms(&self) -> u64 {
        self.clock.now().wall_ms
    }

    /// A time of the wall clock as messages have it.
    pub fn moment(&self, wall_ms: u64) -> Moment {
        let unix_seconds = i64::try_from(wall_ms / 1000).unwrap_or(i64::MAX);
        Moment { unix_seconds, offset_minutes: self.offset_minutes }
    }

    /// What this computer calls itself.
    pub fn host(&self) -> &str {
        &self.host
    }

    /// Makes an item of a submission, and puts its body where it stays. It blocks on the disk.
    fn take_in(&self, submission: Submission) -> Result<(Arc<Item>, Body), Refusal> {
        let mail = MailId(self.random());
        let Submission { sender, recipients, body: spooled, .. } = submission;
        let body = adopt(&self.bodies, mail, spooled).map_err(StoreError::of_body)?;
        let sender = sender.mailbox().map_or("", MailAddress::as_str);
        let item = item_of(&body, sender, recipients.iter().map(MailAddress::as_str))?;
        Ok((item, body))
    }
}

fn item_of<'a>(body: &Body, sender: &str, recipients: impl Iterator<Item = &'a str>) -> Result<Arc<Item>, Refusal> {
    let address = |text: &str| Address::new(text).map_err(|error| Refusal::Never { why: error.to_string() });
    let recipients = recipients.map(address).collect::<Result<_, _>>()?;
    let item = Item::new(body.mail, body.hash, body.size_bytes, address(sender)?, recipients);
    Ok(Arc::new(item.map_err(|error| Refusal::Never { why: error.to_string() })?))
}

/// Makes a spooled message a mail's body. A large one is moved, not copied, where the spool is on the same file system.
fn adopt(bodies: &Path, mail: MailId, spooled: Spooled) -> std::io::Result<Body> {
    match spooled {
        Spooled::Memory(bytes) => {
            let mut draft = body::BodyDraft::new(bodies, mail);
            draft.write(&bytes)?;
            draft.finish()
        }
        Spooled::File(path) => adopt_file(bodies, mail, path),
    }
}

fn adopt_file(bodies: &Path, mail: MailId, path: TempPath) -> std::io::Result<Body> {
    let file = std::fs::File::open(&path)?;
    let size_bytes = file.metadata()?.len();
    let hash: BodyHash = body::hash_of(&file)?;
    file.sync_all()?;
    path.persist(body::path(bodies, &mail)).map_err(|error| error.error)?;
    files::sync_directory(bodies)?;
    Ok(Body { mail, hash, size_bytes, place: Place::File })
}

/// The queue of a daemon that runs.
pub struct Intake {
    reception: Arc<Reception>,
    courier: Courier,
    routes: Mutex<Arc<dyn Routes>>,
}

impl Intake {
    /// Hands everything to a courier; `routes` say whose mail can be sent.
    pub fn new(reception: Arc<Reception>, courier: Courier, routes: Arc<dyn Routes>) -> Self {
        Self { reception, courier, routes: Mutex::new(routes) }
    }

    /// A fresh id, for a mail whose body is written before it is handed in.
    pub fn fresh_id(&self) -> MailId {
        MailId(self.reception.random())
    }

    /// Takes a mail whose body was written already.
    pub async fn accept_draft(
        &self,
        draft: body::BodyDraft,
        sender: &str,
        recipients: &[String],
    ) -> Result<MailId, Refusal> {
        let path = match sender {
            "" => ReversePath::Null,
            sender => {
                let parsed = MailAddress::parse(sender);
                ReversePath::Mailbox(parsed.map_err(|error| Refusal::Never { why: error.to_string() })?)
            }
        };
        self.check_sender(&path)?;
        for recipient in recipients {
            MailAddress::parse(recipient).map_err(|error| Refusal::Never { why: error.to_string() })?;
        }
        let body = tokio::task::spawn_blocking(move || draft.finish()).await;
        let body = body.map_err(|error| Refusal::Busy { why: error.to_string() })?.map_err(StoreError::of_body)?;
        let item = item_of(&body, sender, recipients.iter().map(String::as_str))?;
        self.hand_in(item, body).await
    }

    async fn hand_in(&self, item: Arc<Item>, body: Body) -> Result<MailId, Refusal> {
        let (mail, is_file) = (item.id(), body.place == Place::File);
        let handed_in = self.courier.submit(item, body).await;
        if handed_in.is_err() && is_file {
            // What stays is an orphan, which the next start removes.
            let _left = body::remove(&self.reception.bodies, &mail);
        }
        match handed_in {
            Ok(()) => Ok(mail),
            Err(SubmitError::Full) => Err(Refusal::Full),
            Err(error) => Err(Refusal::Busy { why: error.to_string() }),
        }
    }

    /// Uses other accounts from now on.
    pub fn set_routes(&self, routes: Arc<dyn Routes>) {
        *self.routes.lock().unwrap_or_else(|poisoned| poisoned.into_inner()) = routes;
    }
}

impl Queue for Intake {
    type Id = MailId;

    async fn accept(&self, submission: Submission) -> Result<MailId, Refusal> {
        let reception = self.reception.clone();
        // Where the body is small nothing here touches the disk.
        let taken = match &submission.body {
            Spooled::Memory(_) => reception.take_in(submission),
            Spooled::File(_) => {
                let taken = tokio::task::spawn_blocking(move || reception.take_in(submission)).await;
                taken.map_err(|error| Refusal::Busy { why: error.to_string() })?
            }
        };
        let (item, body) = taken?;
        self.hand_in(item, body).await
    }

    fn check_sender(&self, sender: &ReversePath) -> Result<(), Refusal> {
        let routes = self.routes.lock().unwrap_or_else(|poisoned| poisoned.into_inner()).clone();
        let name = sender.mailbox().map_or("", MailAddress::as_str);
        match routes.account(name) {
            Some(_) => Ok(()),
            None => Err(Refusal::NoAccount { sender: sender.clone() }),
        }
    }

    fn stamp(&self) -> Stamp {
        self.reception.stamp()
    }
}

/// The queue while no daemon runs; it has the home's claim for as long as it lives.
pub struct Closed {
    reception: Arc<Reception>,
    store: Mutex<Store>,
    tie: Option<Tie>,
    settings: packetboat_core::delivery::Settings,
    _claim: Claim,
}

impl Closed {
    /// Puts mails into a store that nobody else writes.
    pub fn new(
        reception: Arc<Reception>,
        store: Store,
        tie: Option<Tie>,
        settings: packetboat_core::delivery::Settings,
        claim: Claim,
    ) -> Self {
        Self { reception, store: Mutex::new(store), tie, settings, _claim: claim }
    }
}

impl Queue for Closed {
    type Id = MailId;

    async fn accept(&self, submission: Submission) -> Result<MailId, Refusal> {
        let (item, body) = self.reception.take_in(submission)?;
        let now = self.reception.clock.now();
        let mut store = self.store.lock().unwrap_or_else(|poisoned| poisoned.into_inner());
        let kept = Desk::submit_untried(&mut store, self.tie, &self.settings, &item, &body, &now);
        Ok(kept.map(|()| item.id())?)
    }

    fn stamp(&self) -> Stamp {
        self.reception.stamp()
    }
}

impl From<StoreError> for Refusal {
    fn from(error: StoreError) -> Self {
        match error {
            StoreError::Full => Self::Full,
            error => Self::Busy { why: files::with_causes(&error) },
        }
    }
}
