//! Carries out what the outbox's desk gives out, by the parts that do it.
//!
//! An outcome may come twice. A try is known by its number, a report by its name, a look-up by its mail; a body that is
//! gone stays gone.

use std::collections::HashSet;
use std::path::PathBuf;
use std::sync::{Arc, Mutex, MutexGuard};
use std::time::Duration;

use packetboat_core::delivery::{Effect, Event, Frame, Item, Recipients, Status};
use packetboat_core::ids::MailId;
use tokio::sync::watch;

use crate::outbox::body;
use crate::outbox::courier::{Courier, Hands};
use crate::outbox::desk::Outcome;
use crate::outbox::machine::Machine;
use crate::outbox::store::Reader;
use crate::outbox::transmit::Transmit;
use crate::peer::PeerSender;
use crate::reports::{Reports, Telling};
use crate::sent::SentFolder;

/// The parts that do what is to be done.
pub(crate) struct DaemonHands {
    parts: HandsParts,
    looking: Arc<Mutex<HashSet<MailId>>>,
    activity: watch::Sender<u64>,
}

/// What hands are made of.
pub(crate) struct HandsParts {
    /// Where the ends of things go.
    pub(crate) courier: Courier,
    /// Tries.
    pub(crate) transmit: Transmit,
    /// The other device, if there is one.
    pub(crate) peer: Option<PeerSender>,
    /// Reports to the sender.
    pub(crate) reports: Arc<Reports>,
    /// Where Sent is looked at.
    pub(crate) sent: Arc<SentFolder>,
    /// For what reports say.
    pub(crate) reader: Arc<Mutex<Reader>>,
    /// The directory of large bodies.
    pub(crate) bodies: PathBuf,
    /// How long a mail is tried.
    pub(crate) lifetime: Duration,
}

impl DaemonHands {
    /// Hands, and a count of what they carried out, for others to watch.
    pub(crate) fn new(parts: HandsParts) -> (Self, watch::Receiver<u64>) {
        let (activity, active) = watch::channel(0);
        (Self { parts, looking: Arc::default(), activity }, active)
    }

    fn look_up(&self, item: Arc<Item>) {
        let mail = item.id();
        if !lock(&self.looking).insert(mail) {
            return;
        }
        let (courier, sent, looking) = (self.parts.courier.clone(), self.parts.sent.clone(), self.looking.clone());
        let reader = self.parts.reader.clone();
        tokio::spawn(async move {
            let found = sent.look_up(&item, &reader).await;
            lock(&looking).remove(&mail);
            courier.happened(mail, Event::SentLookup(found)).await;
        });
    }

    fn report(&self, item: Arc<Item>, recipients: Vec<(u32, Status)>, late: bool) {
        let (courier, reports) = (self.parts.courier.clone(), self.parts.reports.clone());
        let (reader, lifetime) = (self.parts.reader.clone(), self.parts.lifetime);
        tokio::spawn(async move {
            let mail = item.id();
            let of_whom: Recipients = recipients.iter().map(|(recipient, _)| *recipient).collect();
            loop {
                let (item, recipients) = (item.clone(), recipients.clone());
                let (reports, reader) = (reports.clone(), reader.clone());
                let filed =
                    tokio::task::spawn_blocking(move || file(&reports, &reader, &item, &recipients, lifetime, late));
                match filed.await {
                    Ok(Ok(())) => break,
                    Ok(Err(error)) => tracing::error!(%mail, error, "a report cannot be filed"),
                    Err(error) => tracing::error!(%mail, %error, "a report cannot be filed"),
                }
                // The mail stays in the outbox until its sender was told.
                tokio::time::sleep(REPORT_AGAIN).await;
            }
            if !late {
                courier.happened(mail, Event::BounceFiled { recipients: of_whom }).await;
            }
        });
    }

    fn carry_out_effect(&mut self, mail: MailId, item: Arc<Item>, effect: Effect) {
        let parts = &self.parts;
        tracing::debug!(%mail, ?effect, "carrying out");
        match effect {
            Effect::Send(message) => {
                if let Some(peer) = &parts.peer {
                    peer.say(Frame::Mail(message));
                }
            }
            Effect::Try { attempt, recipients } => parts.transmit.begin(&item, attempt, recipients),
            Effect::WriteDot { attempt, before } => parts.transmit.write_dot(&mail, attempt, before),
            Effect::AbortTry { attempt } => parts.transmit.abort(&mail, attempt),
            Effect::LookUpSent => self.look_up(item),
            Effect::Bounce { recipients } => self.report(item, recipients, false),
            Effect::WarnDelayed { recipients } => {
                let waiting = recipients.iter().map(|recipient| (recipient, Status::Waiting { last: None })).collect();
                self.report(item, waiting, true);
            }
            Effect::FileInSent => {
                let (courier, sent, reader) = (parts.courier.clone(), parts.sent.clone(), parts.reader.clone());
                tokio::spawn(async move {
                    // What fails is asked for again when the path comes back, and at the next start.
                    if sent.file(&item, &reader).await {
                        courier.happened(mail, Event::SentFiled).await;
                    }
                });
            }
            Effect::HandedOver => tracing::info!(%mail, "the companion has the turn"),
            // The desk has done these.
            Effect::Save | Effect::DropBody | Effect::Forget => {}
        }
    }
}

impl Hands for DaemonHands {
    fn carry_out(&mut self, outcome: Outcome) {
        self.activity.send_modify(|count| *count += 1);
        match outcome {
            Outcome::Do { mail, item, effect } => self.carry_out_effect(mail, item, effect),
            Outcome::Say(frame) => {
                if let Some(peer) = &self.parts.peer {
                    peer.say(frame);
                }
            }
            Outcome::Fetch(message) => {
                if let Some(peer) = &self.parts.peer {
                    peer.fetch(message);
                }
            }
            Outcome::Discard(mail) => {
                // What stays is an orphan, which the next start removes.
                if let Err(error) = body::remove(&self.parts.bodies, &mail) {
                    tracing::warn!(%mail, %error, "a body cannot be removed");
                }
            }
        }
    }

    fn has_room(&self) -> bool {
        self.parts.peer.as_ref().is_none_or(PeerSender::has_room)
    }
}

fn file(
    reports: &Reports,
    reader: &Mutex<Reader>,
    item: &Item,
    recipients: &[(u32, Status)],
    lifetime: Duration,
    late: bool,
) -> Result<(), String> {
    let mail = item.id();
    let (machine, header) = {
        let reader = lock(reader);
        let machine = reader.machine(&mail).map_err(|error| error.to_string())?;
        (machine, reader.body(&mail).map_err(|error| error.to_string())?)
    };
    let submitted_ms = match &machine {
        Some(Machine::Host(host)) => host.submitted_ms(),
        _ => 0,
    };
    let until = submitted_ms.saturating_add(u64::try_from(lifetime.as_millis()).unwrap_or(u64::MAX));
    let telling = Telling { item, recipients, submitted_ms, tried_until_ms: late.then_some(until) };
    let filed = match header {
        Some(header) => reports.file(&telling, header),
        None => reports.file(&telling, std::io::empty()),
    };
    filed.map_err(|error| error.to_string())
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(|poisoned| poisoned.into_inner())
}

const REPORT_AGAIN: Duration = Duration::from_secs(60);
