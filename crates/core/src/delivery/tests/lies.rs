//! What a paired device says that cannot be: it may stall a mail, but stops no machine and spoils no record.

use super::*;

/// A frame with one number in it that is as large as any.
fn frame_with(kind: u8, number: u64, turn: Option<u64>) -> Vec<u8> {
    let mut out = crate::wire::Writer::new();
    out.u8(1).u8(kind).varint(number);
    if kind != 15 {
        out.raw(&[1; 16]);
    }
    if let Some(turn) = turn {
        out.varint(turn);
    }
    out.finish()
}

#[test]
fn a_grant_for_recipients_that_a_mail_has_not_leaves_a_record_that_can_be_read() {
    let mut companion = Bench::companion(1);
    companion.hear(offer(1)).hear(grant(1, 3, 900));
    assert!(companion.asks_for(|effect| matches!(effect, Effect::Try { recipients, .. } if recipients.len() == 1)));
    companion.restart();
}

#[test]
fn a_turn_for_nobody_is_over_at_once() {
    let mut companion = Bench::companion(2);
    companion.hear(offer(2)).hear(grant(1, 0, 900));
    assert!(!companion.asks_for(|effect| matches!(effect, Effect::Try { .. })));
    assert_eq!(companion.machine.state(), &CompanionState::Done);
    let mut settled = Bench::companion(2);
    settled.hear(offer(0)).tell(Event::TakeOver);
    assert!(!settled.asks_for(|effect| matches!(effect, Effect::Try { .. })));
    assert_eq!(settled.machine.state(), &CompanionState::Done);
}

#[test]
fn numbers_at_the_end_of_their_kind_are_refused_before_anybody_counts_on_from_them() {
    for (kind, number, turn) in [
        (15, u64::MAX, None),
        (15, (1 << 62) + 1, None),
        (13, u64::MAX, None),
        (4, 1, Some(u64::MAX)),
        (7, 1, Some(u64::MAX)),
        (9, 1, Some((1 << 62) + 1)),
    ] {
        assert_eq!(Frame::decode(&frame_with(kind, number, turn)), Err(WireError::Overflow), "{kind} {number}");
    }
    assert!(Frame::decode(&frame_with(7, 1, Some(1 << 62))).is_ok());
    let greatest = [0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 1];
    assert_eq!(HostLedger::decode(&greatest), Err(WireError::Overflow));
    assert_eq!(CompanionLedger::decode(&[&greatest[..], &[0]].concat()), Err(WireError::Overflow));
}

#[test]
fn the_greatest_turn_that_is_heard_of_can_be_followed_by_another() {
    let mut companion = Bench::companion(1);
    companion.hear(Body::Ask { turn: 1 << 62 }).hear(offer(1));
    assert_eq!(companion.said().last(), Some(&&Body::Request { turn: (1 << 62) + 1 }));
    let mut ledger = CompanionLedger::new();
    ledger.finish_below(1 << 62);
    ledger.finish(1 << 62);
    assert!(!ledger.admits(1 << 62) && ledger.admits((1 << 62) + 1));
}

#[test]
fn the_shortest_lease_is_not_taken_for_one_without_end() {
    let length = GrantLength::For(Duration::from_micros(1));
    let body = Body::Grant { turn: 1, length, remaining: Recipients::none() };
    let frame = Frame::Mail(Message { number: 1, mail: MailId([1; 16]), body });
    let Ok(Frame::Mail(Message { body: Body::Grant { length, .. }, .. })) = Frame::decode(&frame.encode()) else {
        panic!("a grant");
    };
    assert_ne!(length, GrantLength::WithoutEnd);
}
