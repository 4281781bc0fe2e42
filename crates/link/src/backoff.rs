//! How long to wait before dialling again: twice as long after each failure, and never two devices in step.
//!
//! The wait is drawn between half of its bound and the bound (equal jitter), so two devices that lost each other at one
//! moment do not meet at the same moments again, and none hammers. The draw comes from a seed that is passed in.

use std::time::Duration;

/// The waits after failures in a row.
#[derive(Debug, Clone)]
pub(crate) struct Backoff {
    first: Duration,
    greatest: Duration,
    failures: u32,
    seed: [u8; 32],
    drawn: u64,
}

impl Backoff {
    pub(crate) fn new(first: Duration, greatest: Duration, seed: [u8; 32]) -> Self {
        Self { first, greatest, failures: 0, seed, drawn: 0 }
    }

    /// The wait after one more failure.
    pub(crate) fn fail(&mut self) -> Duration {
        let bound = self.first.saturating_mul(1 << self.failures.min(20)).min(self.greatest);
        self.failures = self.failures.saturating_add(1);
        bound.mul_f64(0.5 + 0.5 * self.draw())
    }

    /// Forgets the failures.
    pub(crate) fn succeed(&mut self) {
        self.failures = 0;
    }

    /// A number from zero up to, not including, one.
    fn draw(&mut self) -> f64 {
        self.drawn += 1;
        let hash = blake3::keyed_hash(&self.seed, &self.drawn.to_le_bytes());
        let bits = u32::from_le_bytes(hash.as_bytes()[..4].try_into().expect("four bytes"));
        f64::from(bits) / (f64::from(u32::MAX) + 1.0)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn waits(seed: u8, count: usize) -> Vec<Duration> {
        let mut backoff = Backoff::new(Duration::from_millis(100), Duration::from_secs(5), [seed; 32]);
        (0..count).map(|_| backoff.fail()).collect()
    }

    #[test]
    fn waits_double_up_to_their_bound_and_stay_there() {
        for seed in 0..50 {
            for (failure, wait) in waits(seed, 60).into_iter().enumerate() {
                let bound = Duration::from_millis(100 << failure.min(16)).min(Duration::from_secs(5));
                assert!(wait >= bound / 2 && wait <= bound, "failure {failure}: {wait:?} of {bound:?}");
            }
        }
    }

    #[test]
    fn two_devices_do_not_wait_in_step() {
        assert_ne!(waits(1, 5), waits(2, 5));
        assert_eq!(waits(1, 5), waits(1, 5));
    }

    #[test]
    fn a_success_begins_anew() {
        let mut backoff = Backoff::new(Duration::from_millis(100), Duration::from_secs(5), [1; 32]);
        for _ in 0..9 {
            backoff.fail();
        }
        backoff.succeed();
        assert!(backoff.fail() <= Duration::from_millis(100));
    }
}
