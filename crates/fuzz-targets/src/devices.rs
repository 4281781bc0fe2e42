//! What two devices say to each other over a link, and what commands say to the daemon.
//!
//! A paired device is trusted with mail, not with this one's memory: whatever it says, answers are bounded.

use packetboat_core::compare::items::{Catalogue, Entry, Limits};
use packetboat_core::compare::uids::UidCatalogue;
use packetboat_daemon::control;
use packetboat_daemon::inbox;
use packetboat_daemon::lent::Lent;
use packetboat_daemon::parting::Word;
use packetboat_daemon::relay::message::{Answer, MAX_OBJECT_BYTES, Request};
use packetboat_link::fuzzing::{bulk_header, greeting, pairing_message};
use packetboat_link::pairing::Code;

use crate::Outcome;

/// What is said before there is a session: greetings, and messages of pairing.
pub fn link_messages(input: &[u8]) -> Outcome {
    match input.split_first() {
        Some((0, frame)) => greeting(frame).into(),
        Some((_, frame)) => pairing_message(frame).into(),
        None => Outcome::Refused,
    }
}

/// What is said before a body: what a stream is for, and the answer.
pub fn bulk_headers(input: &[u8]) -> Outcome {
    bulk_header(input).into()
}

/// How two devices part.
pub fn parting_words(input: &[u8]) -> Outcome {
    let word = Word::decode(input);
    if let Some(word) = word {
        assert_eq!(word.encode(), input, "a word has one encoding");
    }
    word.is_some().into()
}

/// What somebody types where a code is asked for.
pub fn pairing_codes(input: &[u8]) -> Outcome {
    let code = Code::parse(&String::from_utf8_lossy(input));
    if let Some(code) = code {
        assert_eq!(Code::parse(&code.to_string()), Some(code), "a code is read as it is shown");
    }
    code.is_some().into()
}

/// What a device has of its mailboxes.
pub fn uid_catalogue(input: &[u8]) -> Outcome {
    let Ok(theirs) = UidCatalogue::decode(input, FRAME_BYTES) else { return Outcome::Refused };
    assert_eq!(theirs.encode(FRAME_BYTES).as_deref(), Ok(input), "a catalogue has one encoding");
    let ours = UidCatalogue::default();
    assert_eq!(theirs.without(&ours), theirs);
    assert_eq!(theirs.without(&theirs), ours);
    Outcome::Understood
}

/// Frames of a comparison, to either side of it.
pub fn comparison(input: &[u8]) -> Outcome {
    let limits = Limits { frame_bytes: FRAME_BYTES, rounds: 10 };
    let catalogue = Catalogue::new((0..200u64).map(|number| {
        let mut hash = [0; 32];
        hash[..8].copy_from_slice(&number.wrapping_mul(0x9e37_79b9_7f4a_7c15).to_le_bytes());
        Entry { arrival: number / 3, hash }
    }));
    let mut understood = false;
    if let Ok(answer) = catalogue.respond(limits).and_then(|mut responder| responder.handle(input)) {
        assert!(answer.len() <= FRAME_BYTES, "an answer has {} bytes", answer.len());
        understood = true;
    }
    let (initiator, frame) = catalogue.initiate(limits).expect("the limits are sound");
    assert!(frame.len() <= FRAME_BYTES);
    if let Ok(packetboat_core::compare::items::Step::Ask { frame, .. }) = initiator.handle(input) {
        assert!(frame.len() <= FRAME_BYTES, "a question has {} bytes", frame.len());
    }
    understood.into()
}

/// What two inboxes say to each other.
pub fn inbox_words(input: &[u8]) -> Outcome {
    inbox::fuzz_words(input).into()
}

/// What is asked of a companion's intermediary.
pub fn relay_request(input: &[u8]) -> Outcome {
    let request = Request::decode(input);
    if let Ok(request) = &request {
        assert_eq!(request.encode(), input, "a request has one encoding");
        assert!(request.body_size().is_none_or(|size| size <= MAX_OBJECT_BYTES));
        assert!(request.answer_limit() <= 2 * MAX_OBJECT_BYTES);
    }
    request.is_ok().into()
}

/// What a companion answers.
pub fn relay_answer(input: &[u8]) -> Outcome {
    let answer = Answer::decode(input);
    if let Ok(answer) = &answer {
        assert_eq!(answer.encode(), input, "an answer has one encoding");
    }
    answer.is_ok().into()
}

/// The accounts that a host lends: none of them makes the companion run or read anything.
pub fn lent_accounts(input: &[u8]) -> Outcome {
    let Ok(lent) = Lent::decode(input) else { return Outcome::Refused };
    let again = Lent::decode(&lent.encode()).expect("what was taken is taken again");
    assert_eq!(again, lent);
    let text = String::from_utf8(lent.encode()).expect("JSON is UTF-8");
    for forbidden in ["password_file", "password_command", "token_command"] {
        let value: serde_json::Value = serde_json::from_str(&text).expect("JSON");
        assert!(!holds(&value, forbidden), "{forbidden} is not taken from a peer");
    }
    Outcome::Understood
}

/// Whether a key stands anywhere with a value.
fn holds(value: &serde_json::Value, key: &str) -> bool {
    match value {
        serde_json::Value::Object(fields) => {
            fields.iter().any(|(name, value)| (name == key && !value.is_null()) || holds(value, key))
        }
        serde_json::Value::Array(values) => values.iter().any(|value| holds(value, key)),
        _ => false,
    }
}

/// A line that a command says to the daemon.
pub fn control_line(input: &[u8]) -> Outcome {
    let Ok(request) = serde_json::from_slice::<control::Request>(input) else { return Outcome::Refused };
    let text = serde_json::to_vec(&request).expect("a request is JSON");
    assert!(serde_json::from_slice::<control::Request>(&text).is_ok_and(|again| again == request));
    Outcome::Understood
}

const FRAME_BYTES: usize = 4096;

/// Inputs that are understood.
pub mod seeds {
    use packetboat_core::compare::uids::{MailboxKey, UidSet};
    use packetboat_core::ids::VaultId;
    use packetboat_core::store::{Listed, ObjectName};
    use packetboat_core::wire::Writer;
    use packetboat_daemon::relay::message::What;

    use super::*;

    /// A greeting, and an offer and a refusal of pairing.
    pub fn link_messages() -> Vec<Vec<u8>> {
        let mut greeting = Writer::new();
        greeting.u8(0).u8(1).u8(1).raw(&[1; 16]).raw(&[2; 16]).varint(300);
        let mut offer = Writer::new();
        offer.u8(1).u8(3).raw(&[3; 32]).u8(2).bytes(b"phone").varint(2);
        offer.u8(4).raw(&[192, 0, 2, 1]).raw(&[1, 2]).u8(6).raw(&[9; 16]).raw(&[3, 4]);
        vec![greeting.finish(), offer.finish(), vec![1, 6], vec![1, 1, 1], [&[1, 5][..], &[4; 32]].concat()]
    }

    /// A question, an offer and answers of each kind.
    pub fn bulk_headers() -> Vec<Vec<u8>> {
        let mut get = Writer::new();
        get.u8(1).bytes(b"packs/aa/bb").varint(4096).varint(1001);
        let mut put = Writer::new();
        put.u8(2).bytes(b"inbox/message").varint(70_000);
        let mut answer = Writer::new();
        answer.u8(0).varint(9000).varint(1000);
        let refusals = (1..5).map(|kind| vec![kind, 3, b'n', b'o', b'.']);
        [get.finish(), put.finish(), answer.finish()].into_iter().chain(refusals).collect()
    }

    /// Each word.
    pub fn parting_words() -> Vec<Vec<u8>> {
        [Word::LetUsPart, Word::WePart, Word::Parted { unclear: 3 }].map(Word::encode).into()
    }

    /// A code as it is shown, and as some type it.
    pub fn pairing_codes() -> Vec<Vec<u8>> {
        [&b"012 345"[..], b"012-345", b"012345"].map(<[u8]>::to_vec).into()
    }

    fn catalogue() -> UidCatalogue {
        let key = MailboxKey { account: "work".to_owned(), mailbox: b"INBOX".to_vec(), uid_validity: 7 };
        UidCatalogue::new([(key, UidSet::from_iter([1, 2, 3, 9, 10, u32::MAX]))])
    }

    /// A catalogue with some runs.
    pub fn uid_catalogue() -> Vec<Vec<u8>> {
        vec![catalogue().encode(FRAME_BYTES).expect("a small one")]
    }

    /// The first frame of a comparison with another catalogue.
    pub fn comparison() -> Vec<Vec<u8>> {
        let entries = |count: u64| (0..count).map(|number| Entry { arrival: number, hash: [number as u8; 32] });
        let frame = |count| {
            let limits = Limits { frame_bytes: FRAME_BYTES, rounds: 10 };
            Catalogue::new(entries(count)).initiate(limits).expect("sound limits").1
        };
        vec![frame(0), frame(5), frame(100)]
    }

    /// Words, wishes and a description.
    pub fn inbox_words() -> Vec<Vec<u8>> {
        let mut held = Writer::new();
        held.u8(2).varint(2).u8(1).bytes(b"work").bytes(b"INBOX").varint(7).varint(8).bytes(b"").raw(&[1; 32]);
        held.varint(100).u8(8).u8(2).bytes(b"pop").bytes(b"uidl").bytes(b".Lists").raw(&[2; 32]).varint(5).u8(0);
        let of_uids = [b"\x01inbox/of-uids/", &catalogue().encode(FRAME_BYTES).expect("a small one")[..]].concat();
        vec![vec![0, 1], vec![0, 2, 1, 5], b"\x01inbox/uids".to_vec(), of_uids, held.finish()]
    }

    fn object() -> ObjectName {
        ObjectName::new("packs/aa/bb").expect("a sound name")
    }

    /// Each kind of request.
    pub fn relay_request() -> Vec<Vec<u8>> {
        let name = object;
        let whats = [
            What::Get { name: name(), limit: 9 },
            What::Range { name: name(), offset: 1, length: 2 },
            What::List { folder: "tips".to_owned() },
            What::PutNew { name: name(), size: 7 },
            What::Delete { name: name() },
        ];
        whats.into_iter().map(|what| Request { vault: VaultId([1; 16]), what }.encode()).collect()
    }

    /// Some kinds of answers.
    pub fn relay_answer() -> Vec<Vec<u8>> {
        let listed = Listed { name: object(), size: 5, etag: "x".to_owned() };
        let answers = [
            Answer::Bytes(vec![1, 2]),
            Answer::Listing(vec![listed]),
            Answer::Stored,
            Answer::Denied("no".to_owned()),
            Answer::Vaults(vec![VaultId([1; 16])]),
        ];
        answers.iter().map(Answer::encode).collect()
    }

    /// An account that may be lent.
    pub fn lent_accounts() -> Vec<Vec<u8>> {
        let json = r#"{"accounts":{"account":[{"name":"work","addresses":["a@b.c"],"default":true,"smtp":{"host":"h",
            "port":465,"user":"a","password":"p"},"imap":{"host":"h","user":"a","password":"p"},"pop3":null}]},
            "certificates":{"/x":"pem"}}"#;
        vec![json.as_bytes().to_vec()]
    }

    /// Some requests.
    pub fn control_line() -> Vec<Vec<u8>> {
        let lines = [
            r#"{"do":"submit","sender":"a@b","recipients":["c@d"],"size":7}"#,
            r#"{"do":"change","mail":null,"change":"hand-over"}"#,
            r#"{"do":"who"}"#,
        ];
        lines.iter().map(|line| line.as_bytes().to_vec()).collect()
    }
}
