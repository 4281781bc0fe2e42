//! A whole conversation with the submission server, and what its mails become on their way to the next server.
//!
//! The property is the one that SMTP smuggling breaks: what was taken as one mail is one mail to whoever it is sent to.
//! So whatever a program says, each mail that the server took is transmitted by our client to a second server of ours,
//! which must take exactly that mail: the same envelope, the same bytes, and nothing after it.

use std::sync::{Mutex, PoisonError};
use std::time::Duration;

use packetboat_mail::address::{Address, ReversePath};
use packetboat_mail::fuzzing::Script;
use packetboat_mail::message::dots::DotEncoder;
use packetboat_mail::message::{Moment, Stamp};
use packetboat_mail::submission::{Limits, Peer, Queue, Refusal, Settings, Submission, Token, converse};
use tokio::sync::watch;

use crate::mail_out::{END_OF_MAIL_ELSEWHERE, transmit};
use crate::{Outcome, in_no_time, split};

/// A mail as a queue got it.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Mail {
    /// Who hears of failures.
    pub sender: ReversePath,
    /// Who gets it.
    pub recipients: Vec<Address>,
    /// Its bytes.
    pub body: Vec<u8>,
    /// Whether it has bytes above 127.
    pub eight_bit: bool,
}

/// A queue in memory.
#[derive(Default)]
struct Kept(Mutex<Vec<Mail>>);

impl Queue for Kept {
    type Id = usize;

    async fn accept(&self, submission: Submission) -> Result<usize, Refusal> {
        let body = submission.body.read().expect("a small message lies in memory");
        assert_eq!(body.len() as u64, submission.message.size, "the size that goes to the server");
        assert!(!submission.message.message_id.contains(['\r', '\n']));
        let mut mails = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        mails.push(Mail {
            sender: submission.sender,
            recipients: submission.recipients,
            body,
            eight_bit: submission.message.eight_bit,
        });
        Ok(mails.len())
    }

    fn stamp(&self) -> Stamp {
        stamp()
    }
}

/// A stamp that is always the same.
pub fn stamp() -> Stamp {
    Stamp { moment: Moment { unix_seconds: 0, offset_minutes: 0 }, random: [1; 16], host: "laptop.test".to_owned() }
}

/// A conversation: the first byte says with whom, the rest is said, in pieces that `0xff 0xfe` divides.
pub fn submission(input: &[u8]) -> Outcome {
    let Some((kind, said)) = input.split_first() else { return Outcome::Refused };
    let peer = match kind % 4 {
        0 | 1 => Peer::Local,
        2 => Peer::Pipe,
        _ => Peer::Remote,
    };
    let token = (kind % 4 == 1).then(|| Token::new("secretsecretsecretsecretsecretse").expect("a sound token"));
    let pieces = split(said, &[0xff, 0xfe]).into_iter().map(<[u8]>::to_vec).collect();
    let mails = received(pieces, peer, token, 8192);
    for mail in &mails {
        check(mail);
        assert_eq!(transmit(mail), std::slice::from_ref(mail), "what was taken as one mail is one mail");
    }
    (!mails.is_empty()).into()
}

/// The mails that a server takes from who says these; every reply is one, and of whole lines.
pub fn received(pieces: Vec<Vec<u8>>, peer: Peer, token: Option<Token>, limit: u64) -> Vec<Mail> {
    let script = Script::new(pieces);
    let written = script.written();
    let queue = Kept::default();
    let settings = Settings {
        host: "laptop.test".to_owned(),
        origin: "laptop.test".to_owned(),
        token,
        tls: None,
        // Nothing is written there: messages are smaller than what stays in memory.
        spool: "/nonexistent".into(),
        limits: Limits { message: limit, idle: Duration::from_secs(60), ..Limits::default() },
    };
    let (_stop, stopped) = watch::channel(false);
    in_no_time(converse(script, peer, &settings, &queue, stopped));
    let replies = written.bytes();
    for line in replies.split_inclusive(|byte| *byte == b'\n') {
        let text = line.strip_suffix(b"\r\n").expect("a reply ends in CR LF");
        assert!(!text.iter().any(|byte| matches!(byte, b'\r' | b'\n' | 0)), "{text:?}");
        let code = text.get(..3).filter(|code| code.iter().all(u8::is_ascii_digit));
        assert!(code.is_some() && matches!(text.get(3), Some(b' ' | b'-')), "{text:?}");
    }
    queue.0.into_inner().unwrap_or_else(PoisonError::into_inner)
}

/// What holds of every mail that was taken.
fn check(mail: &Mail) {
    assert!(mail.body.ends_with(b"\r\n"));
    assert!(!mail.body.contains(&0));
    for (at, byte) in mail.body.iter().enumerate() {
        match byte {
            b'\r' => assert_eq!(mail.body.get(at + 1), Some(&b'\n'), "a CR stands before an LF"),
            b'\n' => assert!(at > 0 && mail.body[at - 1] == b'\r', "an LF stands behind a CR"),
            _ => {}
        }
    }
    for address in mail.recipients.iter().chain(mail.sender.mailbox()) {
        assert!(!address.as_str().contains(|c: char| c.is_control()), "{address:?}");
        assert_eq!(Address::parse(address.as_str()).as_ref(), Ok(address));
    }
    let mut unique = mail.recipients.clone();
    unique.sort_by(|one, other| one.as_str().cmp(other.as_str()));
    unique.dedup();
    assert_eq!(unique.len(), mail.recipients.len());
    let mut wire = Vec::new();
    DotEncoder::default().push(&mail.body, &mut wire);
    assert!(END_OF_MAIL_ELSEWHERE.iter().all(|end| !wire.windows(end.len()).any(|window| window == *end)));
}

/// Inputs that are understood.
pub mod seeds {
    /// Conversations in which mails are taken.
    pub fn submission() -> Vec<Vec<u8>> {
        let mail = "MAIL FROM:<a@a.test> SIZE=20 BODY=8BITMIME\r\nRCPT TO:<b@b.test>\r\nRCPT TO:<root>\r\nDATA\r\n\
                    Subject: hi\r\nBcc: c@c.test\r\n\r\n..dot\r\nhi\r\n.\r\n";
        let plain = "AUTH PLAIN AGEAc2VjcmV0c2VjcmV0c2VjcmV0c2VjcmV0c2VjcmV0c2U=\r\n";
        vec![
            format!("\0EHLO me\r\n{mail}RSET\r\nNOOP\r\n{mail}QUIT\r\n").into_bytes(),
            [b"\0EHLO me\r\n", mail.as_bytes(), b"\xff\xfe", mail.as_bytes()].concat(),
            format!("\x01EHLO me\r\n{plain}{mail}").into_bytes(),
            format!("\x02EHLO me\n{}QUIT\n", mail.replace("\r\n", "\n")).into_bytes(),
            b"\0HELO me\r\nMAIL FROM:<>\r\nRCPT TO:<\"a b\"@x.test>\r\nDATA\r\n\r\nx\r\n.\r\n".to_vec(),
        ]
    }
}
