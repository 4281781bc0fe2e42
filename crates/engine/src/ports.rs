//! What the engine asks of the world besides disk and storage: time, randomness, somebody who watches.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use packetboat_core::keys::Nonce;
use packetboat_core::name::RelPath;

use crate::error::SyncError;

/// Tells the time. Times only show to people and start things; nothing is safe because of them.
pub trait Clock: Send {
    /// Milliseconds since 1970 UTC.
    fn now_ms(&self) -> i64;

    /// Lets so many milliseconds pass; a simulated clock need not.
    fn wait(&self, ms: u64);
}

/// Makes randomness for ids, keys and nonces.
pub trait Entropy: Send {
    /// Fills the buffer with unpredictable bytes.
    fn fill(&mut self, buffer: &mut [u8]);

    /// A fresh nonce.
    fn nonce(&mut self) -> Nonce {
        let mut bytes = [0; 24];
        self.fill(&mut bytes);
        Nonce(bytes)
    }

    /// Another source that may be used from another thread.
    fn fork(&mut self) -> Box<dyn Entropy>;
}

/// What a round is doing now.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Phase {
    /// Reading what others published.
    Learn,
    /// Comparing the folder with what was agreed on.
    Scan,
    /// Reading, packing and publishing what changed here.
    Store,
    /// Bringing to disk what changed elsewhere.
    Apply,
}

/// Watches a round, for a progress bar or a log. Calls come from the engine's own thread.
pub trait Observer: Send {
    /// A phase began; `files` and `bytes` are the work ahead where it is known.
    fn phase(&mut self, phase: Phase, files: Option<u64>, bytes: Option<u64>);
    /// Work done since the last call.
    fn advance(&mut self, files: u64, bytes: u64);
    /// Something worth a line.
    fn note(&mut self, note: Note);
    /// Whether each step is to be noted. Saying where a step was taken costs look-ups, so nobody is told who does not ask.
    fn wants_steps(&self) -> bool {
        false
    }
    /// By what it is known, also while a single step takes long, that the user asked to stop.
    fn interrupt(&self) -> Interrupt {
        Interrupt::default()
    }
    /// Whether the user asked to stop; the round then ends after the step in hand, and a long step within it.
    fn interrupted(&self) -> bool {
        self.interrupt().is_raised()
    }
}

/// A user's wish to stop, for work that has no observer at hand. By default there is never one.
#[derive(Clone, Default, Debug)]
pub struct Interrupt(Option<Arc<AtomicBool>>);

impl Interrupt {
    /// The wish to stop that is made by setting this flag.
    pub fn by(flag: Arc<AtomicBool>) -> Self {
        Self(Some(flag))
    }

    /// Whether the user asked to stop.
    pub fn is_raised(&self) -> bool {
        self.0.as_ref().is_some_and(|flag| flag.load(Ordering::Relaxed))
    }

    /// Ends what is being done where the user asked to stop.
    pub(crate) fn check(&self) -> Result<(), SyncError> {
        if self.is_raised() { Err(SyncError::Interrupted) } else { Ok(()) }
    }
}

/// Something that a user may want to read while a round runs.
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum Note {
    /// An object waits for the next round, or is not synchronised.
    Skipped {
        /// Where it is.
        path: RelPath,
        /// Why.
        reason: String,
    },
    /// A step was carried out, or would be in a dry run.
    Step(crate::replica::PlannedStep),
    /// Something is wrong that does not stop the round.
    Warning {
        /// What, in words.
        text: String,
    },
}

/// Watches nothing.
pub struct Silent;

impl Observer for Silent {
    fn phase(&mut self, _: Phase, _: Option<u64>, _: Option<u64>) {}
    fn advance(&mut self, _: u64, _: u64) {}
    fn note(&mut self, _: Note) {}
}
