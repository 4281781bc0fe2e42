//! Mail on its way out: what servers answer to our client, what it writes, and what is reported to the sender.

use packetboat_mail::address::{Address, ReversePath};
use packetboat_mail::bounce::{Reason, Report, ReportKind, Undelivered};
use packetboat_mail::fuzzing::{Script, open_smtp, trust};
use packetboat_mail::message::dots::{DotDecoder, DotEncoder};
use packetboat_mail::message::{Moment, Preparation, Rules};
use packetboat_mail::smtp::{Deadlines, Fate, OpenGate, Outgoing, Security, Server, Try};
use packetboat_mail::submission::Peer;

use crate::mail_in::tls;
use crate::submission::{Mail, received, stamp};
use crate::{Outcome, in_no_time, split};

/// A server's side of a session in which two mails are tried; pieces are divided by an empty line.
///
/// Whatever the server says: of every recipient something is known, nothing is accepted without an answer to a dot, and
/// what was written is commands of one line.
pub fn smtp_session(input: &[u8]) -> Outcome {
    let pieces = split(input, b"\r\n\r\n").into_iter().map(|piece| [piece, b"\r\n"].concat()).collect();
    let script = Script::new(pieces);
    let written = script.written();
    let mail = Mail {
        sender: ReversePath::Null,
        recipients: vec![address("a@a.test"), address("b@b.test")],
        body: b"A: b\r\n\r\n.hi\r\n".to_vec(),
        eight_bit: false,
    };
    let tries = in_no_time(async {
        let Ok(mut connection) = open_smtp(script, &server()).await else { return Vec::new() };
        vec![try_once(&mut connection, &mail).await, try_once(&mut connection, &mail).await]
    });
    let dots = written.bytes().windows(5).filter(|window| window == b"\r\n.\r\n").count();
    let mut answers = 0;
    for tried in &tries {
        let (Try::Failed { recipients, .. } | Try::Answered { recipients } | Try::AnswerLost { recipients, .. }) =
            tried;
        assert_eq!(recipients.len(), mail.recipients.len());
        let accepted = recipients.iter().any(|fate| matches!(fate, Fate::Accepted(_)));
        assert!(!accepted || matches!(tried, Try::Answered { .. }));
        answers += usize::from(accepted || matches!(tried, Try::AnswerLost { .. }));
        for fate in recipients {
            if let Fate::Accepted(reply) | Fate::Refused(reply) = fate {
                assert!((200..600).contains(&reply.code));
                assert!(!reply.text.contains(|c: char| c.is_control()), "{:?}", reply.text);
            }
        }
    }
    assert!(answers <= dots, "nothing is accepted, or may be, without a dot");
    tries.iter().any(|tried| !matches!(tried, Try::Failed { .. })).into()
}

/// A message that is prepared as from a port, and transmitted.
pub fn transmission(input: &[u8]) -> Outcome {
    let mut body = Vec::new();
    let mut preparation = Preparation::new(Rules::port("laptop.test", 1 << 16), stamp());
    // The pieces in which it comes change nothing.
    let middle = input.len() / 2;
    let prepared = preparation
        .push(&input[..middle], &mut body)
        .and_then(|()| preparation.push(&input[middle..], &mut body))
        .and_then(|()| preparation.finish(&mut body));
    let Ok(prepared) = prepared else { return Outcome::Refused };
    assert_eq!(prepared.size, body.len() as u64);
    let mut wire = Vec::new();
    let mut encoder = DotEncoder::default();
    encoder.push(&body, &mut wire);
    assert!(encoder.is_at_line_start(), "the final dot can follow");
    assert!(END_OF_MAIL_ELSEWHERE.iter().all(|end| !wire.windows(end.len()).any(|window| window == *end)));
    wire.extend_from_slice(b".\r\n");
    for mut decoder in [DotDecoder::strict(), DotDecoder::lenient()] {
        let mut decoded = Vec::new();
        assert_eq!(decoder.push(&wire, &mut decoded), Some(wire.len()), "it ends where it was meant to");
        assert_eq!(decoded, body);
    }
    let recipients = vec![address("a@a.test")];
    let mail = Mail { sender: ReversePath::Null, recipients, body, eight_bit: prepared.eight_bit };
    assert_eq!(transmit(&mail), std::slice::from_ref(&mail));
    Outcome::Understood
}

/// A report about what any server said and any header: it is a message like others, with the null sender.
pub fn bounce(input: &[u8]) -> Outcome {
    let parts = split(input, &[0xff]);
    let text = |at: usize| String::from_utf8_lossy(parts.get(at).copied().unwrap_or_default()).into_owned();
    let Ok(recipient) = Address::parse(&text(0)) else { return Outcome::Refused };
    let header: Vec<u8> = parts.get(3).copied().unwrap_or_default().to_vec();
    let reply = packetboat_mail::smtp::Reply { code: 550, enhanced: Some([5, 1, 1]), text: text(1) };
    let recipients = [
        Undelivered { recipient: recipient.clone(), reason: Reason::Refused { server: text(2), reply } },
        Undelivered { recipient: recipient.clone(), reason: Reason::Unreached { why: text(1) } },
    ];
    let moment = Moment { unix_seconds: 0, offset_minutes: 0 };
    for kind in [ReportKind::Failed, ReportKind::Delayed { until: moment }] {
        let sender = ReversePath::Mailbox(recipient.clone());
        let recipients = &recipients[..];
        let report = Report { kind, host: &text(2), sender: &sender, submitted: moment, recipients, header: &header };
        let bounce = report.write(&stamp()).expect("it has a sender");
        assert_eq!(bounce.recipient, recipient);
        let end = bounce.message.windows(4).position(|window| window == b"\r\n\r\n").expect("a header has an end");
        let head = String::from_utf8_lossy(&bounce.message[..end]).into_owned();
        for line in head.split("\r\n") {
            let field = line.split(':').next().unwrap_or_default();
            let known = ["Message-ID", "Date", "From", "To", "Subject", "Auto-Submitted", "MIME-Version"];
            let known = known.into_iter().chain(["Content-Transfer-Encoding", "Content-Type"]);
            assert!(known.into_iter().any(|known| known == field), "a field that nobody meant: {line:?}");
        }
        assert!(Report { sender: &ReversePath::Null, ..report }.write(&stamp()).is_none());
    }
    Outcome::Understood
}

/// What a server of ours takes of what our client writes of a mail.
pub fn transmit(mail: &Mail) -> Vec<Mail> {
    let answers = "220 ready\r\n\r\n250-next\r\n250-PIPELINING\r\n250-8BITMIME\r\n250-SMTPUTF8\r\n250 SIZE\r\n\r\n";
    let mut pieces: Vec<Vec<u8>> = split(answers.as_bytes(), b"\r\n\r\n")
        .into_iter()
        .filter(|piece| !piece.is_empty())
        .map(|piece| [piece, b"\r\n"].concat())
        .collect();
    // Commands go out in groups; each answer is a piece, given as it is waited for.
    pieces.push(b"250 ok\r\n".to_vec());
    pieces.extend(mail.recipients.iter().map(|_| b"250 ok\r\n".to_vec()));
    pieces.extend([b"354 go on\r\n".to_vec(), b"250 kept\r\n".to_vec()]);
    let script = Script::new(pieces);
    let written = script.written();
    let tried = in_no_time(async {
        let mut connection = open_smtp(script, &server()).await.expect("the server is sound");
        try_once(&mut connection, mail).await
    });
    let Try::Answered { recipients } = tried else { panic!("the server took everything: {tried:?}") };
    assert!(recipients.iter().all(|fate| matches!(fate, Fate::Accepted(_))));
    received(vec![written.bytes()], Peer::Local, None, 1 << 20)
}

async fn try_once(connection: &mut packetboat_mail::smtp::Connection, mail: &Mail) -> Try {
    let outgoing = Outgoing {
        sender: &mail.sender,
        recipients: &mail.recipients,
        size: mail.body.len() as u64,
        eight_bit: mail.eight_bit,
    };
    connection.send(&outgoing, &mut mail.body.as_slice(), &OpenGate).await
}

fn server() -> Server {
    Server {
        host: "server.test".to_owned(),
        port: 25,
        security: Security::Plain,
        trust: trust(tls()),
        login: None,
        hello: "laptop.test".to_owned(),
        source: None,
        deadlines: Deadlines::default(),
    }
}

fn address(text: &str) -> Address {
    Address::parse(text).expect("an address")
}

/// What other servers are known to take for the end of a mail, besides `CR LF . CR LF` (CVE-2023-51764 and its kin).
pub const END_OF_MAIL_ELSEWHERE: [&[u8]; 8] =
    [b"\n.\n", b"\n.\r", b"\r.\r", b"\r.\n", b"\0.\0", b"\r\n.\0", b"\r\n.\n", b"\r\r\n.\r"];

/// Inputs that are understood.
pub mod seeds {
    /// Sessions in which mails are accepted.
    pub fn smtp_session() -> Vec<Vec<u8>> {
        let start = "220 ready\r\n\r\n250-next\r\n250-PIPELINING\r\n250 SIZE 1000\r\n\r\n";
        let mail =
            "250 2.1.0 ok\r\n\r\n250 ok\r\n\r\n550-5.1.1 no\r\n550 5.1.1 such\r\n\r\n354 go\r\n\r\n250 kept\r\n\r\n";
        vec![
            format!("{start}{mail}{mail}").into_bytes(),
            format!("{start}{mail}250 reset\r\n\r\n421 later").into_bytes(),
            b"220 x\r\n\r\n250 x\r\n\r\n250 a\r\n\r\n250 b\r\n\r\n250 c\r\n\r\n354 d\r\n\r\n451 e\r\n\r\n".to_vec(),
        ]
    }

    /// Messages that may pass.
    pub fn transmission() -> Vec<Vec<u8>> {
        [
            "Subject: hi\r\n\r\n.\r\n..\r\n.x\r\n",
            "\r\n",
            "A: b\r\n c\r\n\r\ngr\u{fc}n",
            "no header",
            "Bcc: a\r\n\r\n\r\n.\r\n",
        ]
        .map(|text| text.as_bytes().to_vec())
        .to_vec()
    }

    /// An address, a reply, a server and a header.
    pub fn bounce() -> Vec<Vec<u8>> {
        vec![
            b"a@a.test\xffno such user here\xffmx.test\xffSubject: x\r\nFrom: b@b.test\r\n\r\nbody".to_vec(),
            "gr\u{fc}n@a.test".as_bytes().iter().chain(b"\xff\r\n.\r\n\xff\n\xff\r\n--=_").copied().collect(),
        ]
    }
}
