//! How long things may take, and what the user wants where nothing can be known.
//!
//! The defaults are for the internet: RFC 5321 lets a server take ten minutes to answer the final dot, so a lease is
//! fifteen, and grows with the mail's size so that a large one on a slow line is not passed to and fro for ever.
//! Jitter is a function of the mail and the number of its tries, so the machines need no randomness.
//!
//! Not every combination can work, and one that cannot shows only on the day it matters: whoever reads settings from a
//! file calls [`Settings::check`] first.

use std::time::Duration;

use thiserror::Error;

use super::time::millis;
use crate::ids::MailId;

/// Durations and choices that the machines go by.
#[derive(Clone, Debug)]
pub struct Settings {
    /// The longest that a server takes to answer the final dot; the driver stops waiting for the answer then.
    pub answer: Duration,
    /// How long the companion may use a turn for a mail of no size; more than [`answer`](Self::answer).
    pub lease: Duration,
    /// The slowest line, in bytes a second, for which a lease leaves time.
    pub slowest_line: u64,
    /// How much longer the host waits than the companion may send; more than their clocks drift apart in a lease.
    pub margin: Duration,
    /// How long a mail is tried before it bounces.
    pub lifetime: Duration,
    /// After how long the sender is told that a mail is late; never, where it is zero.
    pub delay_warning: Duration,
    /// The wait after the first round of tries; each is twice the one before.
    pub backoff_first: Duration,
    /// The longest wait between rounds.
    pub backoff_max: Duration,
    /// By how many parts in a hundred a wait may be longer or shorter, so that mails do not all come at once.
    pub jitter_percent: u64,
    /// The wait before an unacknowledged message is sent again; each is twice the one before.
    pub resend_first: Duration,
    /// The longest wait before an unacknowledged message is sent again.
    pub resend_max: Duration,
    /// How long the companion waits for the answer to a request.
    pub request_patience: Duration,
    /// How long the host waits for word of the companion before the policy for the unknown applies.
    pub peer_patience: Duration,
    /// How long a sent mail may take to be seen in Sent.
    pub sent_settle: Duration,
    /// What to do where nobody can say whether a mail was accepted.
    pub unknown: UnknownPolicy,
    /// Whether a copy is to be filed in Sent once the mail is delivered.
    pub file_in_sent: bool,
    /// The naive rule that is wrong: the companion takes over when the link is down. The checker must catch it.
    #[cfg(test)]
    pub(crate) takes_over_when_link_is_down: bool,
}

/// What to do with a mail of which nobody can say whether it was accepted.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum UnknownPolicy {
    /// Send it again with the same Message-ID.
    Retry,
    /// Hold it until the user says.
    Hold,
}

impl Settings {
    /// Whether the machines can go by these.
    pub fn check(&self) -> Result<(), SettingsError> {
        for (setting, span) in [
            ("answer", self.answer),
            // Without one, two clocks that drift apart could both have the turn.
            ("margin", self.margin),
            ("lifetime", self.lifetime),
            // A wait of nothing doubles to nothing: a server that says 451 would be asked without end.
            ("backoff_first", self.backoff_first),
            ("resend", self.resend_first),
            // A request whose answer is not waited for is given up before the grant can come.
            ("request_patience", self.request_patience),
        ] {
            if millis(span) == 0 {
                return Err(SettingsError::Nothing { setting });
            }
        }
        // What is left of a lease when the dot is ready must outlast the answer, though the clock was off by the margin.
        if self.lease <= self.answer.saturating_add(self.margin) {
            return Err(SettingsError::LeaseTooShort { lease: self.lease, answer: self.answer, margin: self.margin });
        }
        for (setting, first, greatest) in
            [("backoff_first", self.backoff_first, self.backoff_max), ("resend", self.resend_first, self.resend_max)]
        {
            if first > greatest {
                return Err(SettingsError::BeyondGreatest { setting, greatest });
            }
        }
        if self.backoff_max > self.lifetime {
            return Err(SettingsError::BeyondLifetime { setting: "backoff_max", lifetime: self.lifetime });
        }
        if self.slowest_line == 0 || self.jitter_percent > 100 {
            return Err(SettingsError::NoShare);
        }
        let longest = [
            ("lease", self.lease),
            ("lifetime", self.lifetime),
            ("delay_warning", self.delay_warning),
            ("peer_patience", self.peer_patience),
            ("request_patience", self.request_patience),
            ("sent_settle", self.sent_settle),
        ];
        match longest.into_iter().find(|(_, span)| *span > LONGEST) {
            Some((setting, _)) => Err(SettingsError::BeyondClocks { setting }),
            None => Ok(()),
        }
    }

    /// How long the companion may use a turn for a mail of this size.
    pub fn lease_for(&self, size_bytes: u64) -> Duration {
        self.lease.saturating_add(Duration::from_millis(size_bytes.saturating_mul(1000) / self.slowest_line.max(1)))
    }

    /// The wait after round `round`, counted from 1, of a mail.
    pub(super) fn backoff(&self, mail: MailId, round: u32) -> Duration {
        let wait =
            millis(self.backoff_first.saturating_mul(1 << round.saturating_sub(1).min(30)).min(self.backoff_max));
        let spread = wait.saturating_mul(self.jitter_percent.min(100)) / 100;
        let shift = match spread {
            0 => 0,
            spread => mix(mail, round) % (2 * spread + 1),
        };
        Duration::from_millis(wait - spread + shift)
    }

    /// The wait before a message is sent for the `times`-th time again.
    pub(super) fn resend(&self, times: u32) -> Duration {
        self.resend_first.saturating_mul(1 << times.min(20)).min(self.resend_max)
    }
}

impl Default for Settings {
    fn default() -> Self {
        Self {
            answer: Duration::from_secs(600),
            lease: Duration::from_secs(900),
            slowest_line: 16 * 1024,
            margin: Duration::from_secs(30),
            lifetime: Duration::from_secs(5 * 24 * 3600),
            delay_warning: Duration::from_secs(4 * 3600),
            backoff_first: Duration::from_secs(30),
            backoff_max: Duration::from_secs(3600),
            jitter_percent: 25,
            resend_first: Duration::from_secs(2),
            resend_max: Duration::from_secs(300),
            request_patience: Duration::from_secs(30),
            peer_patience: Duration::from_secs(600),
            sent_settle: Duration::from_secs(60),
            unknown: UnknownPolicy::Retry,
            file_in_sent: false,
            #[cfg(test)]
            takes_over_when_link_is_down: false,
        }
    }
}

/// Why settings cannot work.
#[derive(Clone, PartialEq, Eq, Debug, Error)]
pub enum SettingsError {
    /// Nothing would be waited for.
    #[error("it must be longer than nothing")]
    Nothing {
        /// Which.
        setting: &'static str,
    },
    /// The companion could never begin a dot whose answer it may wait for.
    #[error(
        "{lease:?} is not longer than answer and margin together ({answer:?} and {margin:?}), so the companion could \
         never send; make it longer, or answer shorter"
    )]
    LeaseTooShort {
        /// The lease.
        lease: Duration,
        /// The longest answer.
        answer: Duration,
        /// The margin.
        margin: Duration,
    },
    /// A first wait that is longer than the longest.
    #[error("it must be at most {greatest:?}, the longest wait")]
    BeyondGreatest {
        /// Which.
        setting: &'static str,
        /// The longest.
        greatest: Duration,
    },
    /// A wait in which a mail would bounce untried.
    #[error("it must be at most the lifetime, {lifetime:?}")]
    BeyondLifetime {
        /// Which.
        setting: &'static str,
        /// The lifetime.
        lifetime: Duration,
    },
    /// A rate of nothing, or a spread of more than the whole.
    #[error("the slowest line must be more than nothing, and the jitter at most 100 percent")]
    NoShare,
    /// More than clocks can add up.
    #[error("it must be at most ten years")]
    BeyondClocks {
        /// Which.
        setting: &'static str,
    },
}

impl SettingsError {
    /// The setting to change.
    pub fn setting(&self) -> &'static str {
        match self {
            Self::Nothing { setting }
            | Self::BeyondGreatest { setting, .. }
            | Self::BeyondLifetime { setting, .. }
            | Self::BeyondClocks { setting } => setting,
            Self::LeaseTooShort { .. } => "lease",
            Self::NoShare => "slowest_line",
        }
    }
}

/// Nobody waits longer, and sums of these stay within every clock.
const LONGEST: Duration = Duration::from_secs(10 * 365 * 24 * 3600);

/// A number that is as good as random, from a mail and a round (the finaliser of SplitMix64).
fn mix(mail: MailId, round: u32) -> u64 {
    let mut value = mail.0.chunks_exact(8).fold(u64::from(round), |value, half| {
        value.rotate_left(29) ^ u64::from_le_bytes(half.try_into().expect("a chunk of eight"))
    });
    for factor in [0xbf58_476d_1ce4_e5b9, 0x94d0_49bb_1331_11eb] {
        value = (value ^ (value >> 30)).wrapping_mul(factor);
    }
    value ^ (value >> 31)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn waits_double_up_to_the_greatest_and_keep_to_their_spread() {
        let settings = Settings::default();
        let mut distinct = std::collections::BTreeSet::new();
        for (round, seconds) in [(1, 30), (2, 60), (5, 480), (8, 3600), (60, 3600), (u32::MAX, 3600)] {
            for id in 0..50 {
                let wait = settings.backoff(MailId([id; 16]), round).as_millis() as u64;
                assert!((seconds * 750..=seconds * 1250).contains(&wait), "round {round}: {wait} ms");
                distinct.insert(wait);
            }
        }
        assert!(distinct.len() > 200, "the waits of many mails differ: {}", distinct.len());
    }

    #[test]
    fn settings_that_cannot_work_are_refused_by_name() {
        assert_eq!(Settings::default().check(), Ok(()));
        let seconds = Duration::from_secs;
        type Spoil = fn(&mut Settings);
        let spoilt: [(&str, Spoil); 15] = [
            ("answer", |it| it.answer = Duration::ZERO),
            ("margin", |it| it.margin = Duration::ZERO),
            // Less than a millisecond is nothing to the machines.
            ("margin", |it| it.margin = Duration::from_micros(999)),
            ("lifetime", |it| it.lifetime = Duration::ZERO),
            ("backoff_first", |it| it.backoff_first = Duration::ZERO),
            ("resend", |it| it.resend_first = Duration::ZERO),
            ("request_patience", |it| it.request_patience = Duration::ZERO),
            ("lease", |it| it.lease = it.answer + it.margin),
            ("lease", |it| it.lease = it.answer),
            ("backoff_first", |it| it.backoff_first = it.backoff_max + Duration::from_millis(1)),
            ("resend", |it| it.resend_first = it.resend_max + Duration::from_millis(1)),
            ("backoff_max", |it| it.backoff_max = it.lifetime + Duration::from_millis(1)),
            ("slowest_line", |it| it.jitter_percent = 101),
            ("lifetime", |it| it.lifetime = Duration::MAX),
            ("peer_patience", |it| it.peer_patience = LONGEST + Duration::from_millis(1)),
        ];
        for (setting, spoil) in spoilt {
            let mut settings = Settings::default();
            spoil(&mut settings);
            assert_eq!(settings.check().map_err(|error| error.setting()), Err(setting));
        }
        let least = Settings { lease: seconds(631), ..Settings::default() };
        assert_eq!(least.check(), Ok(()), "a second more than answer and margin will do");
    }

    #[test]
    fn a_lease_leaves_time_for_a_large_mail_and_its_answer() {
        let settings = Settings::default();
        assert_eq!(settings.lease_for(0), Duration::from_secs(900));
        assert_eq!(settings.lease_for(100 << 20), Duration::from_secs(900 + 6400));
        assert!(settings.lease_for(u64::MAX) > Duration::from_secs(1 << 30));
    }
}
