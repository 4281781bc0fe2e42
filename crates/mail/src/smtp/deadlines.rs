//! How long a client waits for what: the figures of RFC 5321, 4.5.3.2, all of them settings.

use std::time::Duration;

use serde::{Deserialize, Serialize};

/// One deadline for each thing that is waited for.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct Deadlines {
    /// For the addresses of the server.
    pub lookup: Duration,
    /// For a connection, all addresses together.
    pub connect: Duration,
    /// For the exchange that begins TLS.
    pub tls: Duration,
    /// For the greeting.
    pub greeting: Duration,
    /// For the answer to EHLO, STARTTLS, AUTH, MAIL and RSET.
    pub command: Duration,
    /// For the answer to RCPT.
    pub recipient: Duration,
    /// For the answer to DATA.
    pub data: Duration,
    /// For a block of the message to be taken.
    pub block: Duration,
    /// For the answer to the final dot, from when it is written. A right to send must last this long.
    pub answer: Duration,
    /// For the answer to QUIT, which nothing rests on.
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
