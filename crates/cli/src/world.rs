//! The engine's ports to the computer: its clock and its randomness.

use std::time::{Duration, SystemTime, UNIX_EPOCH};

use packetboat_engine::ports::{Clock, Entropy};

/// The computer's clock.
pub(crate) struct SystemClock;

impl Clock for SystemClock {
    fn now_ms(&self) -> i64 {
        let now = match SystemTime::now().duration_since(UNIX_EPOCH) {
            Ok(since) => i64::try_from(since.as_millis()),
            Err(before) => i64::try_from(before.duration().as_millis()).map(|milliseconds| -milliseconds),
        };
        now.unwrap_or(i64::MAX)
    }

    fn wait(&self, ms: u64) {
        std::thread::sleep(Duration::from_millis(ms));
    }
}

/// The kernel's randomness.
pub(crate) struct SystemEntropy;

impl Entropy for SystemEntropy {
    fn fill(&mut self, buffer: &mut [u8]) {
        // Keys from anything else would be worthless, so there is nothing to go on with.
        getrandom::fill(buffer).expect("the kernel gives randomness");
    }

    fn fork(&mut self) -> Box<dyn Entropy> {
        Box::new(Self)
    }
}
