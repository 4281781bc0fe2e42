//! What a person can do about a mail that waits: a hint for each known cause.
//!
//! A cause is told by the codes of the reply that is kept of a try (RFC 3463), and not by its words, which are the
//! server's or the system's. Where no server spoke, [`codes_of`] chose the codes; they mean here what they mean of a
//! server, so both have the same advice. It is also what the other device's tries come with.

use packetboat_mail::smtp::{Failure, Stage};

use super::view::MailView;

/// The reply code and the enhanced code for a try that failed without a reply about the mail.
///
/// All are of the kind that may pass: what is wrong with an account is nothing against the mail.
pub(super) fn codes_of(failure: &Failure) -> (u16, Option<[u8; 3]>) {
    match failure {
        Failure::Rejected { reply, .. } if (400..500).contains(&reply.code) => (reply.code, reply.enhanced),
        Failure::Lookup { .. } => (451, Some([4, 4, 3])),
        Failure::Unreachable { .. } => (451, Some([4, 4, 4])),
        Failure::Refused { .. } | Failure::Connect { .. } => (451, Some([4, 4, 1])),
        Failure::Deadline { stage: Stage::Lookup, .. } => (451, Some([4, 4, 3])),
        Failure::Deadline { stage: Stage::Connect, .. } => (451, Some([4, 4, 1])),
        Failure::Untrusted { .. } | Failure::Tls { .. } => (454, Some([4, 7, 5])),
        Failure::NoStarttls | Failure::NoMechanism => (454, Some([4, 7, 4])),
        Failure::Login { .. } => (454, Some([4, 7, 8])),
        Failure::Setting { .. } => (451, Some([4, 3, 5])),
        Failure::Body { .. } => (451, Some([4, 3, 0])),
        Failure::Closed { .. } | Failure::Deadline { .. } | Failure::Garbled { .. } => (451, Some([4, 4, 2])),
        Failure::Rejected { .. } | Failure::Withheld => (451, None),
    }
}

/// What to do about a mail: first about where it stands, then about why its tries failed; nothing for a finished one.
pub fn on_mail(view: &MailView) -> Vec<String> {
    if view.finished_ms.is_some() {
        return Vec::new();
    }
    let of_tries = view.paths.iter().map(|path| on_reply(&path.last_failure));
    let mut hints: Vec<String> = Vec::new();
    for hint in std::iter::once(on_state(&view.state, view.held)).chain(of_tries).flatten() {
        if !hints.iter().any(|known| known == hint) {
            hints.push(hint.to_owned());
        }
    }
    hints
}

/// What to do about a reply as it is shown: `451 4.4.1 and words`.
pub fn on_reply(shown: &str) -> Option<&'static str> {
    let mut words = shown.split(' ');
    let code: u16 = words.next()?.parse().ok()?;
    let [class, subject, detail] = enhanced(words.next()?)?;
    // What is refused for good is reported to the sender, and waits for nobody.
    if class != 4 {
        return None;
    }
    Some(match (code, subject, detail) {
        (_, 4, 3) => "check the server's name in the account, and whether this device is online",
        (_, 4, 4) => {
            "without a network it waits; it goes by itself as soon as this device has one, or by the companion"
        }
        (_, 4, 1) => {
            "nothing answers there: check host and port by `packetboat mail test`; some networks keep mail from leaving"
        }
        (_, 4, 2) => {
            "the connection did not last; it is tried again by itself, and at once by `packetboat outbox retry`"
        }
        (_, 7, 5) => {
            "check the server's name in the account and this device's date; name the certificate of a private authority \
             in `ca_file`; on a network that asks to log in first, open a browser"
        }
        (_, 7, 4) => {
            "the server protects connections or logs in otherwise than the account says: try `security = \"tls\"` and \
             port 465, or ask the provider"
        }
        (_, 7, 8) => {
            "correct user and password by `packetboat mail setup`; many providers want an app password or a token"
        }
        (_, 3, 5) => "`packetboat mail test` tries the accounts, `packetboat mail setup` adds or changes one",
        (_, 2, 2) => "the recipient's mailbox is full: ask them to make room; it is tried again until then",
        (450 | 451, 7, 1) => "servers put strangers off for some minutes; it is tried again by itself",
        _ => return None,
    })
}

/// What to do about a mail that stands so.
pub fn on_state(state: &str, held: bool) -> Option<&'static str> {
    Some(match state {
        "asks-you" => {
            "nobody can say whether the server took it: look whether it arrived, then `packetboat outbox release` sends \
             it again, or `packetboat outbox cancel` gives it up"
        }
        "unknown" => {
            "its end was sent and no answer came: it is looked for in Sent and at the companion, and after that \
             `outbox.unknown` in daemon.toml says whether it is sent again"
        }
        "handed-over" => "the companion sends it; `packetboat outbox takeover` takes it back",
        _ if held => "`packetboat outbox release` has it tried again",
        _ => return None,
    })
}

fn enhanced(word: &str) -> Option<[u16; 3]> {
    let mut numbers = word.split('.').map(str::parse);
    let read = [numbers.next()?.ok()?, numbers.next()?.ok()?, numbers.next()?.ok()?];
    numbers.next().is_none().then_some(read)
}

#[cfg(test)]
mod tests {
    use std::io;
    use std::time::Duration;

    use packetboat_mail::smtp::Reply;

    use super::*;

    fn failures() -> Vec<Failure> {
        let address = "192.0.2.1:587".parse().unwrap();
        let (host, after) = ("mail.example.org".to_owned(), Duration::from_secs(5));
        let source = || io::Error::from(io::ErrorKind::Other);
        let reply = Reply { code: 535, enhanced: None, text: "no".to_owned() };
        let no_certificate = || rustls::Error::NoCertificatesPresented;
        vec![
            Failure::Lookup { host: host.clone(), source: source() },
            Failure::Unreachable { address, source: source() },
            Failure::Refused { address, source: source() },
            Failure::Connect { address, source: source() },
            Failure::Closed { stage: Stage::Message, source: None },
            Failure::Deadline { stage: Stage::Lookup, after },
            Failure::Deadline { stage: Stage::Connect, after },
            Failure::Deadline { stage: Stage::Data, after },
            Failure::Garbled { stage: Stage::Greeting },
            Failure::Untrusted { host: host.clone(), source: no_certificate() },
            Failure::Tls { host, source: no_certificate() },
            Failure::NoStarttls,
            Failure::NoMechanism,
            Failure::Login { user: "ann".to_owned(), reply },
            Failure::Setting { what: "the password command failed".to_owned() },
        ]
    }

    #[test]
    fn each_failure_to_reach_a_server_has_a_hint_and_may_pass() {
        for failure in failures() {
            let (code, enhanced) = codes_of(&failure);
            assert!((400..500).contains(&code), "{failure}: {code}");
            let [class, subject, detail] = enhanced.unwrap();
            let shown = format!("{code} {class}.{subject}.{detail} {failure}");
            assert!(on_reply(&shown).is_some(), "{shown}");
        }
    }

    #[test]
    fn what_a_server_says_of_a_mail_decides_by_its_codes_alone() {
        assert!(on_reply("450 4.7.1 Greylisted, see http://example.org").is_some());
        assert!(on_reply("452 4.2.2 the mailbox is full").is_some());
        for silent in ["", "451", "451 please wait 4.4.1", "550 5.4.4 no route", "451 4.4.1.9 x", "451 4.4 x"] {
            assert_eq!(on_reply(silent), None, "{silent}");
        }
    }
}
