//! What a list of messages shows of each, from the beginning of a message that anybody may have written.
//!
//! Nothing here decides anything but how a list looks and in which order two devices compare what they have.

use mail_parser::{HeaderName, MessageParser};

/// What the header of a message tells at a glance.
#[derive(Clone, PartialEq, Eq, Default, Debug)]
pub struct Glance {
    /// Who it says it is from: a name, or else an address. Encoded words are decoded.
    pub from: Option<String>,
    /// What it says it is about.
    pub subject: Option<String>,
    /// When the last server on its way had it, in seconds since 1970: the date in the topmost `Received`.
    ///
    /// It stands in the bytes, so it is the same wherever the message was fetched.
    pub served: Option<u64>,
}

impl Glance {
    /// Reads the beginning of a message; what follows the header does no harm.
    pub fn of(beginning: &[u8]) -> Self {
        let Some(message) = MessageParser::default().parse_headers(beginning) else { return Self::default() };
        let from = message.from().and_then(|from| from.first()).and_then(|first| first.name().or(first.address()));
        let topmost = message.header_values(HeaderName::Received).find_map(|value| value.as_received());
        let served = topmost.and_then(|received| received.date()).map(|date| date.to_timestamp());
        Self {
            from: from.map(str::to_owned),
            subject: message.subject().map(str::to_owned),
            served: served.and_then(|seconds| u64::try_from(seconds).ok()),
        }
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn a_list_shows_who_and_what() {
        let message = b"Received: from b.test by a.test; Sun, 22 Nov 2026 10:00:05 +0100\r\n\
            Received: from c.test by b.test; Sun, 22 Nov 2026 09:00:00 +0100\r\n\
            From: =?utf-8?q?J=C3=B6rg?= <j@example.org>\r\nSubject: =?utf-8?b?w7xiZXI=?= all\r\n\r\nSubject: no\r\n";
        let glance = Glance::of(message);
        assert_eq!(glance.from.as_deref(), Some("Jörg"));
        assert_eq!(glance.subject.as_deref(), Some("über all"));
        assert_eq!(glance.served, Some(1_795_338_005));
        let bare = Glance::of(b"From: j@example.org\n\nbody\n");
        assert_eq!((bare.from.as_deref(), bare.subject, bare.served), (Some("j@example.org"), None, None));
    }

    proptest! {
        #[test]
        fn any_bytes_are_looked_at_without_harm(bytes in prop::collection::vec(any::<u8>(), 0..300)) {
            let _ = Glance::of(&bytes);
        }
    }
}
