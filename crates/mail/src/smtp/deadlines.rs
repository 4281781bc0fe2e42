//! How long a client waits for what: the figures of RFC 5321, 4.5.3.2, all of them settings.

use std::time::Duration;

use serde::{Deserialize, Serialize};

/// One deadline for each thing that is waited for.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct Deadlines {
    /// For the addresses of the server.
    #[serde(with = "seconds")]
    pub lookup: Duration,
    /// For a connection, all addresses together.
    #[serde(with = "seconds")]
    pub connect: Duration,
    /// For the exchange that begins TLS.
    #[serde(with = "seconds")]
    pub tls: Duration,
    /// For the greeting.
    #[serde(with = "seconds")]
    pub greeting: Duration,
    /// For the answer to EHLO, STARTTLS, AUTH, MAIL and RSET.
    #[serde(with = "seconds")]
    pub command: Duration,
    /// For the answer to RCPT.
    #[serde(with = "seconds")]
    pub recipient: Duration,
    /// For the answer to DATA.
    #[serde(with = "seconds")]
    pub data: Duration,
    /// For a block of the message to be taken.
    #[serde(with = "seconds")]
    pub block: Duration,
    /// For the answer to the final dot, from when it is written. A right to send must last this long.
    #[serde(with = "seconds")]
    pub answer: Duration,
    /// For the answer to QUIT, which nothing rests on.
    #[serde(with = "seconds")]
    pub quit: Duration,
}

impl Default for Deadlines {
    fn default() -> Self {
        let minutes = |minutes: u64| Duration::from_secs(60 * minutes);
        Self {
            lookup: Duration::from_secs(20),
            connect: Duration::from_secs(30),
            tls: minutes(1),
            greeting: minutes(5),
            command: minutes(5),
            recipient: minutes(5),
            data: minutes(2),
            block: minutes(3),
            answer: minutes(10),
            quit: Duration::from_secs(5),
        }
    }
}

/// In a file, a duration is a number of seconds, with a fraction if need be.
mod seconds {
    use std::time::Duration;

    use serde::{Deserialize, Deserializer, Serializer, de::Error};

    #[derive(Deserialize)]
    #[serde(untagged)]
    enum Number {
        Whole(u64),
        Fraction(f64),
    }

    pub(super) fn serialize<S: Serializer>(duration: &Duration, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.serialize_f64(duration.as_secs_f64())
    }

    pub(super) fn deserialize<'de, D: Deserializer<'de>>(deserializer: D) -> Result<Duration, D::Error> {
        let duration = match Number::deserialize(deserializer)? {
            Number::Whole(seconds) => Duration::from_secs(seconds),
            Number::Fraction(seconds) => Duration::try_from_secs_f64(seconds).map_err(D::Error::custom)?,
        };
        // Longer ones are a mistake, and clocks cannot add them up.
        if duration.is_zero() || duration > Duration::from_secs(24 * 60 * 60) {
            return Err(D::Error::custom("a deadline is more than nothing and at most a day"));
        }
        Ok(duration)
    }
}
