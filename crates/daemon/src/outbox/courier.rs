//! The one loop of the outbox: what happened goes in, is saved together, and only then is anything done.
//!
//! Everything that waits when the loop comes round is one batch and one transaction, so a thousand programs that submit
//! at once share their syncs, and a program alone waits for nobody. Whoever hands in a mail is answered after the commit.
//!
//! Where the disk fails, mails that are being submitted are refused, so that their senders keep them; what else happened
//! is kept in memory and saved as soon as it can be, and until then nothing more is done.

use std::sync::Arc;
use std::time::Duration;

use packetboat_core::delivery::{Event, Frame, Item};
use packetboat_core::ids::MailId;
use thiserror::Error;
use tokio::sync::{mpsc, oneshot, watch};
use tokio::time::{sleep, timeout};

use super::body::Body;
use super::desk::{Desk, Input, Outcome};
use super::store::StoreError;
use crate::clock::Clock;

/// Carries out what the desk gives out. Nothing here may wait: what takes time is begun, and its end is an input.
pub trait Hands: Send {
    /// Carries out one outcome; they come in order.
    fn carry_out(&mut self, outcome: Outcome);

    /// Whether there is room for what many mails want at once, such as all of them to be copied.
    fn has_room(&self) -> bool;
}

/// The way into the loop.
#[derive(Clone, Debug)]
pub struct Courier {
    commands: mpsc::Sender<Command>,
}

#[derive(Debug)]
struct Command {
    input: Input,
    answer: Option<oneshot::Sender<Result<(), SubmitError>>>,
}

impl Courier {
    /// A way into a loop, and what [`run`] is to be given.
    pub fn channel() -> (Self, Commands) {
        let (commands, waiting) = mpsc::channel(WAITING);
        (Self { commands }, Commands(waiting))
    }

    /// Hands in a mail; returns when it is on stable storage, or refused.
    pub async fn submit(&self, item: Arc<Item>, body: Body) -> Result<(), SubmitError> {
        self.ask(Input::Submitted { item, body }).await
    }

    /// Tells of something, and waits until it is on stable storage.
    pub async fn ask(&self, input: Input) -> Result<(), SubmitError> {
        let (answer, answered) = oneshot::channel();
        self.commands.send(Command { input, answer: Some(answer) }).await.map_err(|_| SubmitError::Stopped)?;
        answered.await.unwrap_or(Err(SubmitError::Stopped))
    }

    /// Tells of something; waits only while the loop is behind.
    pub async fn tell(&self, input: Input) {
        // Nobody listens once the daemon stops, and everything is asked again when it starts.
        let _stopped = self.commands.send(Command { input, answer: None }).await;
    }

    /// Tells of something that happened to one mail.
    pub async fn happened(&self, mail: MailId, event: Event) {
        self.tell(Input::Happened { mail, event }).await;
    }

    /// Tells of something that the other device said.
    pub async fn heard(&self, frame: Frame) {
        self.tell(Input::Heard(frame)).await;
    }
}

/// What waits to be taken in by the loop.
#[derive(Debug)]
pub struct Commands(mpsc::Receiver<Command>);

/// Runs the loop until `stop` says so, or nobody can tell it anything any more. `outcomes` are those of the desk's opening.
pub async fn run<H: Hands>(
    mut desk: Desk,
    outcomes: Vec<Outcome>,
    commands: &mut Commands,
    hands: &mut H,
    clock: &dyn Clock,
    mut stop: watch::Receiver<bool>,
) -> Option<Desk> {
    outcomes.into_iter().for_each(|outcome| hands.carry_out(outcome));
    let mut kept: Vec<Command> = Vec::new();
    loop {
        desk.set_room(hands.has_room());
        let batch = if kept.is_empty() {
            let (wake, sweeping) = (desk.next_wake(), desk.is_sweeping());
            let until_wake = wake.map(|wake| Duration::from_millis(wake.saturating_sub(clock.now().since_boot_ms)));
            let wait = match sweeping {
                true if hands.has_room() => Some(Duration::ZERO),
                true => Some(until_wake.unwrap_or(FOR_ROOM).min(FOR_ROOM)),
                false => until_wake,
            };
            next_batch(wait, &mut commands.0, &mut stop).await?
        } else {
            kept
        };
        let (mut inputs, mut answers) = (Vec::new(), Vec::new());
        for Command { input, answer } in batch {
            inputs.push(input);
            answers.push(answer);
        }
        let now = clock.now();
        // SQLite waits for the disk, and other tasks shall not.
        let done = tokio::task::spawn_blocking(move || {
            let outcomes = desk.handle(&inputs, &now);
            (desk, inputs, outcomes)
        });
        let (back, inputs, outcomes) = match done.await {
            Ok(done) => done,
            Err(error) => {
                tracing::error!(%error, "the outbox met a state that it does not understand");
                return None;
            }
        };
        desk = back;
        match outcomes {
            Ok(outcomes) => {
                kept = Vec::new();
                for answer in answers.into_iter().flatten() {
                    let _gone = answer.send(Ok(()));
                }
                outcomes.into_iter().for_each(|outcome| hands.carry_out(outcome));
            }
            Err(error) => {
                tracing::error!(error = &error as &dyn std::error::Error, "the outbox cannot be written");
                kept = keep_what_happened(inputs, answers, &error);
                // Whoever submits while the disk is full is told so at once, and not left waiting.
                let (mut inputs, mut answers) = (Vec::new(), Vec::new());
                while let Ok(Command { input, answer }) = commands.0.try_recv() {
                    inputs.push(input);
                    answers.push(answer);
                }
                kept.append(&mut keep_what_happened(inputs, answers, &error));
                let _stopped = timeout(AFTER_FAILURE, stop.wait_for(|stop| *stop)).await;
            }
        }
        if *stop.borrow() {
            return Some(desk);
        }
    }
}

/// Waits until there is something to do, or for so long, and takes all of it; nothing when the loop is to end.
async fn next_batch(
    wait: Option<Duration>,
    commands: &mut mpsc::Receiver<Command>,
    stop: &mut watch::Receiver<bool>,
) -> Option<Vec<Command>> {
    let mut batch = Vec::new();
    let timer = async {
        match wait {
            Some(wait) => sleep(wait).await,
            None => std::future::pending().await,
        }
    };
    if wait != Some(Duration::ZERO) {
        tokio::select! {
            biased;
            _ = stop.wait_for(|stop| *stop) => {}
            first = commands.recv() => batch.push(first?),
            () = timer => {}
        }
    }
    let mut bytes = 0;
    while batch.len() < BATCH && bytes < BATCH_BYTES {
        let Ok(command) = commands.try_recv() else { break };
        if let Input::Submitted { body, .. } = &command.input {
            bytes += body.size_bytes;
        }
        batch.push(command);
    }
    Some(batch)
}

/// Refuses what was being submitted, and keeps the rest for the next try.
fn keep_what_happened(
    inputs: Vec<Input>,
    answers: Vec<Option<oneshot::Sender<Result<(), SubmitError>>>>,
    error: &StoreError,
) -> Vec<Command> {
    let mut kept = Vec::new();
    for (input, answer) in inputs.into_iter().zip(answers) {
        match (&input, answer) {
            (Input::Submitted { .. }, answer) => {
                if let Some(answer) = answer {
                    let _gone = answer.send(Err(SubmitError::of(error)));
                }
            }
            // The host sends its copy again.
            (Input::Copied { .. }, _) => {}
            (_, answer) => kept.push(Command { input, answer }),
        }
    }
    kept
}

/// Why a mail is not taken.
#[derive(Clone, PartialEq, Eq, Debug, Error)]
pub enum SubmitError {
    /// The disk is full; the sender keeps its copy.
    #[error("the disk is full")]
    Full,
    /// The outbox cannot be written for another reason.
    #[error("the outbox cannot be written: {why}")]
    Failed {
        /// Why not.
        why: String,
    },
    /// The daemon is stopping.
    #[error("the daemon is stopping")]
    Stopped,
}

impl SubmitError {
    fn of(error: &StoreError) -> Self {
        match error {
            StoreError::Full => Self::Full,
            error => Self::Failed { why: crate::files::with_causes(error) },
        }
    }
}

/// How many commands may wait for the loop.
const WAITING: usize = 4096;

/// How many inputs, and how many bytes of mail, go into one transaction.
const BATCH: usize = 1024;
const BATCH_BYTES: u64 = 8 << 20;

/// How long nothing is tried after the disk failed.
const AFTER_FAILURE: Duration = Duration::from_secs(1);

/// How soon it is looked again whether there is room.
const FOR_ROOM: Duration = Duration::from_millis(20);
