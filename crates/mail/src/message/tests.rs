use super::*;
use proptest::prelude::*;

fn stamp() -> Stamp {
    Stamp {
        moment: Moment { unix_seconds: 1_795_314_079, offset_minutes: 60 },
        random: [7; 16],
        host: "laptop.test".to_owned(),
    }
}

fn prepare(rules: Rules, message: &[u8]) -> Result<(String, Prepared), MessageError> {
    let mut preparation = Preparation::new(rules, stamp());
    let mut out = Vec::new();
    for piece in message.chunks(7) {
        preparation.push(piece, &mut out)?;
    }
    let prepared = preparation.finish(&mut out)?;
    assert_eq!(prepared.size, out.len() as u64);
    Ok((String::from_utf8(out).unwrap(), prepared))
}

fn port() -> Rules {
    Rules::port("laptop.test", 10_000)
}

fn unix() -> Rules {
    Rules::unix_program("laptop.test", 10_000)
}

const ADDED: &str =
    "Message-ID: <6b02519f.07070707070707070707070707070707@laptop.test>\r\nDate: Sun, 22 Nov 2026 03:21:19 +0100\r\n";

#[test]
fn a_whole_message_is_kept_byte_for_byte() {
    let message =
        "DATE:Sun, 22 Nov 2026 03:21:19 +0100\r\nX-Odd :  a\r\n\tb  \r\nmessage-id: <a@b>\r\n\r\n.body \r\n\r\n";
    let (stored, prepared) = prepare(port(), message.as_bytes()).unwrap();
    assert_eq!(stored, message);
    assert_eq!(prepared.message_id, "<a@b>");
    assert!(!prepared.eight_bit);
}

#[test]
fn a_missing_message_id_and_date_come_before_all_else() {
    let (stored, prepared) = prepare(port(), b"Subject: a\r\n\r\nb\r\n").unwrap();
    assert_eq!(stored, format!("{ADDED}Subject: a\r\n\r\nb\r\n"));
    assert!(ADDED.contains(&prepared.message_id));
    let (stored, _) = prepare(port(), b"Message-ID:\r\n \r\nDate: \r\n\r\nb\r\n").unwrap();
    assert_eq!(stored, format!("{ADDED}\r\nb\r\n"), "empty fields do not count and do not stay");
}

#[test]
fn a_message_without_a_header_gets_one() {
    assert_eq!(prepare(port(), b"").unwrap().0, format!("{ADDED}\r\n"));
    assert_eq!(prepare(port(), b"\r\nb\r\n").unwrap().0, format!("{ADDED}\r\nb\r\n"));
    assert_eq!(prepare(port(), b"hi there\r\nX: y\r\n").unwrap().0, format!("{ADDED}\r\nhi there\r\nX: y\r\n"));
}

#[test]
fn a_unix_program_may_forget_the_line_that_ends_a_header() {
    let (stored, _) = prepare(unix(), b"From ann Sun Nov 22\nSubject: a\nhi there\n").unwrap();
    assert_eq!(stored, format!("{ADDED}Subject: a\r\n\r\nhi there\r\n"));
    assert_eq!(prepare(unix(), b"Subject: a\n").unwrap().0, format!("{ADDED}Subject: a\r\n\r\n"));
}

#[test]
fn a_missing_from_is_the_users() {
    let rules = Rules { from: Some("Ann <ann@laptop.test>".to_owned()), ..unix() };
    let (stored, _) = prepare(rules.clone(), b"Subject: a\n\nb").unwrap();
    assert_eq!(stored, format!("{ADDED}From: Ann <ann@laptop.test>\r\nSubject: a\r\n\r\nb\r\n"));
    assert!(!prepare(rules, b"From: root (Cron)\n\nb").unwrap().0.contains("Ann"));
}

#[test]
fn hidden_recipients_are_read_and_taken_out() {
    let rules = Rules { recipients_from_header: true, ..unix() };
    let message = b"To: a@x.test,\n b@x.test\nBCC: c@x.test,\n\td@x.test\nCc: a@x.test, root\n\nBcc: body\n";
    let (stored, prepared) = prepare(rules, message).unwrap();
    assert_eq!(stored, format!("{ADDED}To: a@x.test,\r\n b@x.test\r\nCc: a@x.test, root\r\n\r\nBcc: body\r\n"));
    let recipients: Vec<&str> = prepared.recipients.iter().map(Address::as_str).collect();
    assert_eq!(recipients, ["a@x.test", "b@x.test", "root@laptop.test", "c@x.test", "d@x.test"]);
    assert!(!prepare(port(), b"Bcc: c@x.test\r\n\r\n").unwrap().0.contains("Bcc"));
}

#[test]
fn a_mail_sent_on_again_goes_to_those_it_is_sent_on_to() {
    let rules = Rules { recipients_from_header: true, ..unix() };
    let message = b"Resent-To: new@x.test\nResent-Bcc: hidden@x.test\nTo: old@x.test\n\nb\n";
    let (stored, prepared) = prepare(rules, message).unwrap();
    let recipients: Vec<&str> = prepared.recipients.iter().map(Address::as_str).collect();
    assert_eq!(recipients, ["new@x.test", "hidden@x.test"]);
    assert!(!stored.contains("hidden"));
}

#[test]
fn recipients_that_cannot_be_read_stop_the_mail() {
    let rules = Rules { recipients_from_header: true, ..unix() };
    let error = prepare(rules, b"To: a@x.test, no address at all\n\nb\n").unwrap_err();
    assert!(matches!(error, MessageError::Recipients { field: "to", .. }));
}

#[test]
fn limits_are_kept() {
    let long_header = format!("X: {}\r\n", "x".repeat(500)).repeat(30);
    let rules = Rules { header_limit: 1000, ..port() };
    assert_eq!(prepare(rules, long_header.as_bytes()), Err(MessageError::HeaderTooLong { limit: 1000 }));
    let body = format!("A: b\r\n\r\n{}", "x\r\n".repeat(5000));
    assert_eq!(prepare(port(), body.as_bytes()), Err(MessageError::TooLong { limit: 10_000 }));
    assert_eq!(prepare(port(), b"A: b\r\n\r\na\nb\r\n"), Err(MessageError::BareLineEnd));
}

#[test]
fn eight_bit_messages_are_known_as_such() {
    assert!(prepare(port(), "A: b\r\n\r\ngrün\r\n".as_bytes()).unwrap().1.eight_bit);
    assert!(prepare(port(), "A: grün\r\n\r\nb\r\n".as_bytes()).unwrap().1.eight_bit);
    // A field that is left out asks nothing of a server.
    assert!(!prepare(port(), "Bcc: grün\r\nA: b\r\n\r\nb\r\n".as_bytes()).unwrap().1.eight_bit);
}

proptest! {
    #[test]
    fn any_input_gives_a_message_that_is_stable(message in "[A-Za-z:, <>@\r\n\t.]{0,120}|\\PC{0,80}", all in any::<bool>()) {
        let rules = Rules { recipients_from_header: all, ..unix() };
        if let Ok((stored, prepared)) = prepare(rules, message.as_bytes()) {
            prop_assert!(stored.ends_with("\r\n"));
            prop_assert!(!stored.replace("\r\n", "").contains(['\r', '\n', '\0']));
            // What was stored is sent by either device, and prepared again it is the same.
            let (again, second) = prepare(port(), stored.as_bytes()).unwrap();
            prop_assert_eq!(again, stored);
            prop_assert_eq!(second.message_id, prepared.message_id);
        }
    }
}
