//! What the engine asks of the world besides disk and storage: time, randomness, somebody who watches.

use packetboat_core::keys::Nonce;
use packetboat_core::name::RelPath;

/// Tells the time. Times only show to people and start things; nothing is safe because of them.
pub trait Clock: Send {
    /// Milliseconds since 1970 UTC.
    fn now_ms(&self) -> i64;
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
    /// Whether the user asked to stop; the round then ends after the step in hand.
    fn interrupted(&self) -> bool {
        false
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
