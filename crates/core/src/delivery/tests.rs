//! What the two machines do, case by case, and what holds for every event in every state.

mod lies;

use std::sync::Arc;
use std::time::Duration;

use proptest::prelude::*;

use super::*;
use crate::ids::{BodyHash, BootId, MailId};
use crate::wire::WireError;

fn item(recipients: usize) -> Arc<Item> {
    let address = |text: String| Address::new(text).unwrap();
    let recipients = (0..recipients).map(|place| address(format!("r{place}@example.org"))).collect();
    Arc::new(Item::new(MailId([1; 16]), BodyHash([2; 32]), 10, address("me@example.org".into()), recipients).unwrap())
}

fn reply(code: u16) -> Reply {
    Reply::new(code, Enhanced::new((code / 100) as u8, 1, 0), "said").unwrap()
}

fn all(recipients: usize, code: u16) -> Replies {
    Replies::all(&(0..recipients as u32).collect(), &reply(code))
}

fn some(replies: &[(u32, u16)]) -> Replies {
    replies.iter().map(|(place, code)| (*place, reply(*code))).collect()
}

fn failed(attempt: Attempt) -> Event {
    Event::TryFailed { attempt, replies: Replies::new(), failure: reply(451) }
}

/// A host or companion, its clock, and what it asked for last.
struct Bench<M> {
    machine: M,
    seconds: u64,
    boot: u8,
    settings: Settings,
    effects: Vec<Effect>,
}

impl Bench<Host> {
    fn host(recipients: usize, paired: bool) -> Self {
        let settings = Settings { jitter_percent: 0, ..Settings::default() };
        let now = Now { boot: BootId([0; 16]), since_boot_ms: 0, wall_ms: 0 };
        let (machine, effects) = Host::submit(item(recipients), paired.then_some(1), paired, &now, &settings);
        Self { machine, seconds: 0, boot: 0, settings, effects }
    }

    fn tell(&mut self, event: Event) -> &mut Self {
        self.effects = self.machine.handle(event, &now(self.seconds, self.boot), &self.settings);
        self
    }

    /// A host whose companion holds a copy and whose first try failed.
    fn offering(recipients: usize) -> Self {
        let mut bench = Self::host(recipients, true);
        bench.hear(Body::Ack).tell(failed(1));
        bench
    }

    fn restart(&mut self) -> &mut Self {
        self.machine = Host::decode(self.machine.item().clone(), &self.machine.encode()).unwrap();
        self.tell(Event::Restarted)
    }
}

impl Bench<Companion> {
    fn companion(recipients: usize) -> Self {
        let settings = Settings { jitter_percent: 0, ..Settings::default() };
        let (machine, effects) = Companion::receive(1, item(recipients), true, &now(0, 0), &settings);
        Self { machine, seconds: 0, boot: 0, settings, effects }
    }

    fn tell(&mut self, event: Event) -> &mut Self {
        self.effects = self.machine.handle(event, &now(self.seconds, self.boot), &self.settings);
        self
    }

    /// A companion that was granted the turn for 900 seconds from second 0.
    fn sending(recipients: usize) -> Self {
        let mut bench = Self::companion(recipients);
        bench.hear(offer(recipients)).hear(grant(1, recipients, 900));
        bench
    }

    fn restart(&mut self) -> &mut Self {
        self.machine = Companion::decode(self.machine.item().clone(), &self.machine.encode()).unwrap();
        self.tell(Event::Restarted)
    }
}

trait Hear {
    fn hear(&mut self, body: Body) -> &mut Self;
}

impl Hear for Bench<Host> {
    fn hear(&mut self, body: Body) -> &mut Self {
        self.tell(Event::Message(Message { number: 1, mail: MailId([1; 16]), body }))
    }
}

impl Hear for Bench<Companion> {
    fn hear(&mut self, body: Body) -> &mut Self {
        self.tell(Event::Message(Message { number: 1, mail: MailId([1; 16]), body }))
    }
}

impl<M> Bench<M> {
    fn after(&mut self, seconds: u64) -> &mut Self {
        self.seconds += seconds;
        self
    }

    fn said(&self) -> Vec<&Body> {
        let said = |effect: &'_ Effect| matches!(effect, Effect::Send(_));
        self.effects
            .iter()
            .filter(|effect| said(effect))
            .map(|effect| match effect {
                Effect::Send(message) => &message.body,
                _ => unreachable!("only messages pass the filter"),
            })
            .collect()
    }

    fn asks_for(&self, applies: impl Fn(&Effect) -> bool) -> bool {
        self.effects.iter().any(applies)
    }
}

fn now(seconds: u64, boot: u8) -> Now {
    Now { boot: BootId([boot; 16]), since_boot_ms: seconds * 1000, wall_ms: seconds * 1000 }
}

fn offer(recipients: usize) -> Body {
    Body::Offer { reason: OfferReason::Failed, remaining: (0..recipients as u32).collect() }
}

fn grant(turn: Turn, recipients: usize, seconds: u64) -> Body {
    let length = GrantLength::For(Duration::from_secs(seconds));
    Body::Grant { turn, length, remaining: (0..recipients as u32).collect() }
}

fn returned(turn: Turn) -> Body {
    Body::Return { turn, replies: all(1, 451), unclear: Recipients::none() }
}

#[test]
fn the_copy_goes_before_the_first_try() {
    let host = Bench::host(1, true);
    assert!(matches!(
        &host.effects[..],
        [Effect::Save, Effect::Send(Message { body: Body::Copy(_), .. }), Effect::Try { attempt: 1, .. }]
    ));
}

#[test]
fn a_host_alone_sends_and_forgets() {
    let mut host = Bench::host(2, false);
    assert_eq!(host.effects, [Effect::Save, Effect::Try { attempt: 1, recipients: (0..2).collect() }]);
    host.tell(Event::DotAsked { attempt: 1, refused: Replies::new() });
    assert_eq!(host.effects, [Effect::Save, Effect::WriteDot { attempt: 1, before: None }]);
    host.tell(Event::Answered { attempt: 1, replies: all(2, 250) });
    assert_eq!(host.effects, [Effect::Save, Effect::DropBody, Effect::Forget]);
}

#[test]
fn a_refused_recipient_bounces_at_once_and_stops_no_other() {
    let mut host = Bench::host(3, false);
    host.tell(Event::DotAsked { attempt: 1, refused: some(&[(0, 550), (1, 451)]) });
    assert!(host.asks_for(|effect| matches!(effect, Effect::Bounce { recipients } if recipients[0].0 == 0)));
    host.tell(Event::Answered { attempt: 1, replies: some(&[(2, 250)]) });
    assert!(matches!(host.machine.state(), HostState::Turn { failed: true, .. }));
    host.after(30).tell(Event::Timer);
    assert!(host.asks_for(|effect| *effect == Effect::Try { attempt: 2, recipients: [1].into_iter().collect() }));
    host.tell(Event::DotAsked { attempt: 2, refused: Replies::new() });
    host.tell(Event::Answered { attempt: 2, replies: some(&[(1, 250)]) });
    assert_eq!(host.machine.state(), &HostState::Settling, "the body stays until the bounce is filed");
    host.tell(Event::BounceFiled { recipients: [0].into_iter().collect() });
    assert!(host.asks_for(|effect| *effect == Effect::DropBody));
}

/// A server takes `accepted` and has no room for the others of `recipients` in one transaction.
fn too_many(recipients: u32, accepted: u32, code: Option<Enhanced>) -> Replies {
    let said =
        |place| if place < accepted { reply(250) } else { Reply::new(452, code, "too many recipients").unwrap() };
    (0..recipients).map(|place| (place, said(place))).collect()
}

#[test]
fn the_rest_of_too_many_recipients_is_tried_at_once() {
    for code in [Enhanced::new(4, 5, 3), None] {
        let mut host = Bench::host(3, true);
        let asked = Event::DotAsked { attempt: 1, refused: Replies::new() };
        host.hear(Body::Ack).tell(asked).tell(Event::Answered { attempt: 1, replies: too_many(3, 1, code) });
        let rest: Recipients = [1, 2].into_iter().collect();
        assert!(host.asks_for(|effect| *effect == Effect::Try { attempt: 2, recipients: rest.clone() }));
        assert!(host.said().is_empty(), "the companion is offered nothing");
        let mut companion = Bench::sending(3);
        companion.tell(Event::DotAsked { attempt: 1, refused: Replies::new() });
        companion.tell(Event::Answered { attempt: 1, replies: too_many(3, 1, code) });
        assert!(companion.asks_for(|effect| *effect == Effect::Try { attempt: 2, recipients: rest.clone() }));
    }
}

#[test]
fn the_wait_after_many_transactions_is_that_after_one_try() {
    let (mut host, mut companion) = (Bench::host(30, false), Bench::sending(30));
    let last = 30;
    for attempt in 1..last {
        let answered = Event::Answered { attempt, replies: too_many(30, attempt, Enhanced::new(4, 5, 3)) };
        host.tell(Event::DotAsked { attempt, refused: Replies::new() }).tell(answered.clone());
        companion.tell(Event::DotAsked { attempt, refused: Replies::new() }).tell(answered);
    }
    host.tell(failed(last)).restart();
    companion.tell(failed(last)).restart();
    assert_eq!((host.machine.attempts(), companion.machine.attempts()), (1, 1));
    let HostState::Turn { next_try, .. } = host.machine.state() else { panic!("it waits") };
    assert_eq!(*next_try, now(0, 0).after(host.settings.backoff_first));
    host.after(host.settings.backoff_first.as_secs()).tell(Event::Timer);
    assert_eq!(host.machine.attempts(), 2, "that is a try of its own");
}

#[test]
fn whoever_was_refused_before_a_lost_answer_is_in_no_doubt() {
    let mut host = Bench::host(3, false);
    host.tell(Event::DotAsked { attempt: 1, refused: some(&[(0, 550), (1, 451)]) });
    host.tell(Event::AnswerLost { attempt: 1 });
    let HostState::Unknown { recipients, .. } = host.machine.state() else { panic!("it is in doubt") };
    assert_eq!(recipients.iter().collect::<Vec<_>>(), [2]);
    assert!(matches!(host.machine.statuses()[0], Status::Refused { .. }));
    assert!(host.machine.statuses()[1].is_waiting());
}

#[test]
fn a_server_that_takes_nobody_or_lacks_room_is_tried_later() {
    let mailbox_full = too_many(2, 1, Enhanced::new(4, 2, 2));
    for replies in [too_many(2, 0, Enhanced::new(4, 5, 3)), mailbox_full, some(&[(0, 250), (1, 451)])] {
        let mut host = Bench::host(2, false);
        host.tell(Event::DotAsked { attempt: 1, refused: Replies::new() });
        host.tell(Event::Answered { attempt: 1, replies: replies.clone() });
        assert!(!host.asks_for(|effect| matches!(effect, Effect::Try { .. })), "{replies:?}");
        let mut companion = Bench::sending(2);
        companion.tell(Event::DotAsked { attempt: 1, refused: Replies::new() });
        companion.tell(Event::Answered { attempt: 1, replies: replies.clone() });
        assert!(!companion.asks_for(|effect| matches!(effect, Effect::Try { .. })), "{replies:?}");
    }
}

#[test]
fn the_rest_is_not_sent_after_the_lease_is_over() {
    let mut companion = Bench::sending(2);
    companion.tell(Event::DotAsked { attempt: 1, refused: Replies::new() });
    companion.after(890).tell(Event::Answered { attempt: 1, replies: too_many(2, 1, Enhanced::new(4, 5, 3)) });
    companion.tell(Event::LinkDown).tell(Event::DotAsked { attempt: 2, refused: Replies::new() });
    assert!(!companion.asks_for(|effect| matches!(effect, Effect::WriteDot { .. })));
    companion.after(20).tell(Event::Timer);
    assert!(!companion.asks_for(|effect| matches!(effect, Effect::WriteDot { .. })));
}

#[test]
fn a_mail_that_outlived_its_time_bounces_after_one_more_failure() {
    let mut host = Bench::host(1, false);
    host.after(5 * 24 * 3600).tell(failed(1));
    assert!(
        matches!(&host.effects[1], Effect::Bounce { recipients } if matches!(recipients[0].1, Status::Expired { .. }))
    );
}

#[test]
fn a_turn_is_granted_only_after_a_failure_and_to_a_fresh_request() {
    let mut host = Bench::host(1, true);
    host.hear(Body::Ack).hear(Body::Request { turn: 1 });
    assert!(host.said().is_empty(), "a try is under way");
    host.tell(failed(1));
    assert_eq!(host.said(), [&offer(1)]);
    host.hear(Body::Request { turn: 2 });
    assert_eq!(host.said(), [&grant(2, 1, 900)]);
    host.hear(returned(2));
    host.hear(Body::Request { turn: 2 }).hear(Body::Request { turn: 1 });
    assert!(!matches!(host.machine.state(), HostState::Granted { .. }), "the request is an old one");
}

#[test]
fn a_grant_that_was_lost_is_given_again_and_lasts_no_longer() {
    let mut host = Bench::offering(1);
    host.hear(Body::Request { turn: 1 });
    let granted = host.machine.state().clone();
    host.after(100).hear(Body::Request { turn: 1 });
    assert_eq!(host.said(), [&grant(1, 1, 900)]);
    assert_eq!(host.machine.state(), &granted);
}

#[test]
fn a_lease_that_ends_unheard_of_leaves_the_host_not_knowing() {
    let mut host = Bench::offering(1);
    host.hear(Body::Request { turn: 1 });
    host.after(929).tell(Event::Timer);
    assert!(matches!(host.machine.state(), HostState::Granted { .. }), "the margin is not over");
    host.after(1).tell(Event::Timer);
    assert!(matches!(host.machine.state(), HostState::Unknown { turn: Some(1), .. }));
    assert_eq!(host.said(), [&Body::Ask { turn: 1 }]);
    host.hear(Body::Done { replies: all(1, 250) });
    assert!(host.asks_for(|effect| *effect == Effect::Forget));
}

#[test]
fn a_rebooted_host_waits_a_whole_lease_again() {
    let mut host = Bench::offering(1);
    host.hear(Body::Request { turn: 1 });
    host.after(900);
    host.boot = 1;
    host.seconds = 5;
    host.restart().after(929).tell(Event::Timer);
    assert!(matches!(host.machine.state(), HostState::Granted { .. }));
    host.after(1).tell(Event::Timer);
    assert!(matches!(host.machine.state(), HostState::Unknown { .. }));
}

#[test]
fn a_crash_before_the_dot_is_a_failure_and_after_it_a_doubt() {
    let mut host = Bench::host(1, false);
    host.restart();
    assert!(matches!(host.machine.state(), HostState::Turn { failed: true, .. }));
    let mut host = Bench::host(1, false);
    host.tell(Event::DotAsked { attempt: 1, refused: Replies::new() }).restart();
    assert!(matches!(host.machine.state(), HostState::Unknown { turn: None, .. }));
}

#[test]
fn the_message_id_in_sent_tells_nothing_of_recipients_who_had_it_in_no_dot() {
    let mut host = Bench::host(2, false);
    host.tell(Event::DotAsked { attempt: 1, refused: some(&[(1, 451)]) });
    host.tell(Event::Answered { attempt: 1, replies: some(&[(0, 250)]) });
    host.after(60).tell(Event::Timer);
    host.tell(Event::DotAsked { attempt: 2, refused: Replies::new() }).tell(Event::AnswerLost { attempt: 2 });
    host.after(60).tell(Event::Timer).tell(Event::SentLookup(SentLookup::Found));
    assert!(host.machine.statuses()[1].is_waiting(), "what stands in Sent is the first dot's");
}

#[test]
fn a_doubt_is_held_where_the_user_wants_it_so() {
    let mut host = Bench::host(1, false);
    host.settings.unknown = UnknownPolicy::Hold;
    host.tell(Event::DotAsked { attempt: 1, refused: Replies::new() }).tell(Event::AnswerLost { attempt: 1 });
    host.after(60).tell(Event::Timer).tell(Event::SentLookup(SentLookup::NotEvidence));
    assert!(matches!(host.machine.state(), HostState::Unknown { stage: Stage::Held, .. }));
    host.after(1_000_000).tell(Event::Timer);
    assert!(matches!(host.machine.state(), HostState::Unknown { stage: Stage::Held, .. }));
    host.tell(Event::Release);
    assert!(host.asks_for(|effect| matches!(effect, Effect::Try { .. })));
}

#[test]
fn a_host_that_goes_to_sleep_hands_the_turn_over_and_wants_it_back_awake() {
    let mut host = Bench::host(1, true);
    host.hear(Body::Ack).tell(Event::HandOver);
    assert!(host.asks_for(|effect| *effect == Effect::AbortTry { attempt: 1 }));
    assert_eq!(host.said(), [&Body::Offer { reason: OfferReason::Sleeping, remaining: (0..1).collect() }]);
    host.hear(Body::Request { turn: 1 }).hear(Body::Taken { turn: 1 });
    assert!(host.asks_for(|effect| *effect == Effect::HandedOver));
    host.after(8 * 3600).tell(Event::Timer);
    assert!(matches!(host.machine.state(), HostState::Granted { .. }), "no lease ends");
    host.tell(Event::TakeBack);
    assert_eq!(host.said(), [&Body::Ask { turn: 1 }]);
    host.hear(returned(1));
    assert!(matches!(host.machine.state(), HostState::Turn { .. }));
}

#[test]
fn hold_release_and_cancel_do_what_they_say() {
    let mut host = Bench::host(1, false);
    host.tell(Event::Hold);
    assert!(host.asks_for(|effect| *effect == Effect::AbortTry { attempt: 1 }));
    host.after(1_000_000).tell(Event::Timer).tell(Event::PathUp);
    assert!(host.effects.iter().all(|effect| !matches!(effect, Effect::Try { .. })));
    host.tell(Event::Release);
    assert!(host.asks_for(|effect| matches!(effect, Effect::Try { attempt: 2, .. })));
    host.tell(Event::Cancel);
    assert_eq!(host.effects[1..], [Effect::AbortTry { attempt: 2 }, Effect::DropBody, Effect::Forget]);
    assert_eq!(host.machine.statuses(), [Status::Cancelled { certainty: Certainty::NotSent }]);
}

#[test]
fn a_cancel_that_came_too_late_tells_the_truth() {
    let mut host = Bench::offering(1);
    host.hear(Body::Request { turn: 1 }).tell(Event::Cancel);
    assert_eq!(host.said(), [&Body::Cancel(Why::Cancelled)]);
    host.hear(Body::Done { replies: all(1, 250) });
    assert!(matches!(host.machine.statuses()[0], Status::Delivered { path: Path::Companion, .. }));
}

#[test]
fn the_sender_is_warned_once_of_a_delay() {
    let mut host = Bench::host(1, false);
    host.after(4 * 3600).tell(failed(1));
    assert!(host.asks_for(|effect| matches!(effect, Effect::WarnDelayed { .. })));
    host.after(3600).tell(Event::Timer);
    assert!(!host.asks_for(|effect| matches!(effect, Effect::WarnDelayed { .. })));
}

#[test]
fn word_of_an_earlier_try_is_not_taken_for_the_present_ones() {
    let mut host = Bench::host(1, false);
    host.tell(failed(1)).after(30).tell(Event::Timer);
    let before = host.machine.clone();
    for event in [failed(1), Event::AnswerLost { attempt: 1 }, Event::Answered { attempt: 1, replies: all(1, 250) }] {
        host.tell(event);
        assert_eq!(host.machine, before);
    }
}

#[test]
fn the_dot_is_written_only_while_the_lease_outlasts_its_answer() {
    let mut companion = Bench::sending(1);
    companion.after(299).tell(Event::DotAsked { attempt: 1, refused: Replies::new() });
    let before = Some(now(300, 0).moment());
    assert_eq!(companion.effects, [Effect::Save, Effect::WriteDot { attempt: 1, before }]);
}

#[test]
fn a_dot_that_comes_too_late_waits_for_a_longer_lease() {
    let mut companion = Bench::sending(1);
    companion.after(300).tell(Event::DotAsked { attempt: 1, refused: Replies::new() });
    assert_eq!(companion.said(), [&Body::Request { turn: 2 }]);
    companion.after(5).hear(grant(2, 1, 900));
    assert!(companion.asks_for(|effect| matches!(effect, Effect::WriteDot { .. })));
    let mut companion = Bench::sending(1);
    companion.tell(Event::LinkDown).after(300).tell(Event::DotAsked { attempt: 1, refused: Replies::new() });
    assert_eq!(companion.effects, [Effect::Save, Effect::AbortTry { attempt: 1 }], "nobody is there to grant it");
    assert!(matches!(companion.machine.state(), CompanionState::Returned { .. }));
}

#[test]
fn a_grant_that_took_too_long_is_returned_unused() {
    let mut companion = Bench::companion(1);
    companion.hear(offer(1));
    assert_eq!(companion.said(), [&Body::Request { turn: 1 }]);
    companion.after(25).tell(Event::Timer).hear(grant(1, 1, 620));
    assert!(!companion.asks_for(|effect| matches!(effect, Effect::Try { .. })));
    assert!(matches!(companion.said()[..], [Body::Return { turn: 1, .. }]));
}

#[test]
fn a_failure_returns_the_turn_until_the_host_has_heard_of_it() {
    let mut companion = Bench::sending(1);
    companion.tell(failed(1));
    assert_eq!(companion.said(), [&returned(1)]);
    companion.after(2).tell(Event::Timer);
    assert_eq!(companion.said(), [&returned(1)]);
    companion.hear(Body::ReturnAck { turn: 1 });
    assert_eq!(companion.machine.state(), &CompanionState::Standby);
}

#[test]
fn a_reboot_voids_a_lease_but_not_one_without_end() {
    let mut companion = Bench::sending(1);
    companion.boot = 1;
    companion.restart();
    assert!(matches!(companion.machine.state(), CompanionState::Returned { .. }));
    let mut companion = Bench::companion(1);
    companion.hear(Body::Offer { reason: OfferReason::Sleeping, remaining: (0..1).collect() });
    companion.hear(Body::Grant { turn: 1, length: GrantLength::WithoutEnd, remaining: (0..1).collect() });
    assert_eq!(companion.said(), [&Body::Taken { turn: 1 }]);
    companion.boot = 1;
    companion.restart();
    assert!(matches!(companion.machine.state(), CompanionState::Turn { .. }));
}

#[test]
fn a_cancel_breaks_off_a_try_but_not_a_dot() {
    let mut companion = Bench::sending(1);
    companion.hear(Body::Cancel(Why::Cancelled));
    assert!(companion.asks_for(|effect| *effect == Effect::AbortTry { attempt: 1 }));
    assert_eq!(companion.said(), [&Body::CancelAck]);
    let mut companion = Bench::sending(1);
    companion.tell(Event::DotAsked { attempt: 1, refused: Replies::new() });
    companion.hear(Body::Cancel(Why::Cancelled));
    assert!(companion.effects.is_empty());
    companion.tell(Event::Answered { attempt: 1, replies: all(1, 250) });
    assert_eq!(companion.said(), [&Body::Done { replies: all(1, 250) }]);
}

#[test]
fn a_mail_that_was_taken_over_bounces_here_and_goes_back_when_the_host_turns_up() {
    let mut companion = Bench::companion(2);
    companion.tell(Event::LinkDown).tell(Event::TakeOver);
    companion.tell(Event::DotAsked { attempt: 1, refused: some(&[(0, 550), (1, 451)]) });
    assert!(companion.asks_for(|effect| matches!(effect, Effect::Bounce { recipients } if recipients.len() == 1)));
    assert!(matches!(companion.machine.state(), CompanionState::Turn { .. }));
    companion.tell(Event::LinkUp);
    assert!(matches!(companion.said()[..], [Body::Return { turn: 1, .. }]));
}

#[test]
fn a_mail_of_another_number_is_none_of_its_business() {
    let mut host = Bench::offering(1);
    let before = host.machine.clone();
    host.tell(Event::Message(Message { number: 2, mail: MailId([1; 16]), body: Body::Request { turn: 9 } }));
    host.tell(Event::Message(Message { number: 1, mail: MailId([9; 16]), body: Body::Request { turn: 9 } }));
    assert_eq!(host.machine, before);
}

#[test]
fn the_formats_stay_as_they_were() {
    let mut host = Bench::offering(2);
    host.hear(Body::Request { turn: 1 });
    let mut companion = Bench::sending(2);
    companion.tell(Event::DotAsked { attempt: 1, refused: some(&[(0, 550)]) });
    let message = Message { number: 7, mail: MailId([1; 16]), body: Body::Copy(item(2)) };
    let hash = |bytes: &[u8]| blake3::hash(bytes).to_hex()[..16].to_owned();
    let hashes = [host.machine.encode(), companion.machine.encode(), Frame::Mail(message).encode()];
    assert_eq!(hashes.map(|bytes| hash(&bytes)), ["a48f38d6520e466d", "10f4aa4b4ab85d7d", "7b090fd6d160cbd6"]);
}

#[test]
fn a_newer_format_and_another_mails_copy_are_refused() {
    let mut bytes = Bench::host(1, true).machine.encode();
    assert!(Host::decode(item(2), &bytes).is_err(), "another number of recipients");
    bytes[0] = 2;
    assert_eq!(Host::decode(item(1), &bytes), Err(WireError::Invalid { what: "version of a mail's state" }));
    let message = Message { number: 7, mail: MailId([3; 16]), body: Body::Copy(item(1)) };
    assert_eq!(Frame::decode(&Frame::Mail(message).encode()), Err(WireError::Invalid { what: "copy of another mail" }));
    assert!(Frame::decode(&vec![1; 9 << 20]).is_err());
}

#[test]
fn the_largest_copy_fits_a_message() {
    let longest = || Address::new("a".repeat(item::MAX_ADDRESS_BYTES)).unwrap();
    let recipients = (0..item::MAX_RECIPIENTS).map(|_| longest()).collect();
    let item = Item::new(MailId([1; 16]), BodyHash([2; 32]), u64::MAX, longest(), recipients).unwrap();
    let message = Message { number: 1 << 62, mail: MailId([1; 16]), body: Body::Copy(Arc::new(item)) };
    let frame = Frame::Mail(message);
    assert_eq!(Frame::decode(&frame.encode()), Ok(frame));
}

fn replies() -> impl Strategy<Value = Replies> {
    let code = prop_oneof![Just(250u16), Just(451), Just(550)];
    proptest::collection::btree_map(0u32..3, code, 0..3)
        .prop_map(|codes| codes.into_iter().map(|(place, code)| (place, reply(code))).collect())
}

fn recipients() -> impl Strategy<Value = Recipients> {
    proptest::collection::btree_set(0u32..3, 0..3).prop_map(|places| places.into_iter().collect())
}

fn body() -> impl Strategy<Value = Body> {
    let turn = 0u64..4;
    let length = prop_oneof![Just(GrantLength::WithoutEnd), Just(GrantLength::For(Duration::from_secs(900)))];
    prop_oneof![
        Just(Body::Copy(item(3))),
        Just(Body::Ack),
        (any::<bool>(), recipients()).prop_map(|(sleeping, remaining)| Body::Offer {
            reason: if sleeping { OfferReason::Sleeping } else { OfferReason::Failed },
            remaining
        }),
        turn.clone().prop_map(|turn| Body::Request { turn }),
        (turn.clone(), length, recipients()).prop_map(|(turn, length, remaining)| Body::Grant {
            turn,
            length,
            remaining
        }),
        turn.clone().prop_map(|turn| Body::Taken { turn }),
        turn.clone().prop_map(|turn| Body::Ask { turn }),
        (turn.clone(), replies(), recipients()).prop_map(|(turn, replies, unclear)| Body::Return {
            turn,
            replies,
            unclear
        }),
        turn.prop_map(|turn| Body::ReturnAck { turn }),
        replies().prop_map(|replies| Body::Done { replies }),
        Just(Body::DoneAck),
        Just(Body::Cancel(Why::Settled)),
        Just(Body::CancelAck),
        Just(Body::Gone),
    ]
}

fn event() -> impl Strategy<Value = Event> {
    let attempt = 1u32..4;
    let of_message = body().prop_map(|body| Event::Message(Message { number: 1, mail: MailId([1; 16]), body }));
    let plain = prop::sample::select(vec![
        Event::Restarted,
        Event::Timer,
        Event::LinkUp,
        Event::LinkDown,
        Event::PathUp,
        Event::PathDown,
        Event::SentLookup(SentLookup::Found),
        Event::SentLookup(SentLookup::Absent),
        Event::SentLookup(SentLookup::NotEvidence),
        Event::SentLookup(SentLookup::Unreachable),
        Event::SentFiled,
        Event::Hold,
        Event::Release,
        Event::RetryNow,
        Event::Cancel,
        Event::HandOver,
        Event::TakeBack,
        Event::TakeOver,
        Event::Unpaired,
    ]);
    prop_oneof![
        3 => of_message,
        1 => (attempt.clone(), replies()).prop_map(|(attempt, replies)| Event::TryFailed {
            attempt,
            replies,
            failure: reply(451)
        }),
        2 => (attempt.clone(), replies()).prop_map(|(attempt, refused)| Event::DotAsked { attempt, refused }),
        1 => (attempt.clone(), replies()).prop_map(|(attempt, replies)| Event::Answered { attempt, replies }),
        1 => attempt.prop_map(|attempt| Event::AnswerLost { attempt }),
        3 => plain,
        1 => recipients().prop_map(|recipients| Event::BounceFiled { recipients }),
    ]
}

proptest! {
    #[test]
    fn every_state_that_any_events_lead_to_is_saved_and_read_as_it_was(
        events in proptest::collection::vec((event(), 0u64..400, 0u8..20), 0..60),
    ) {
        let settings = Settings { file_in_sent: true, ..Settings::default() };
        let (mut host, _) = Host::submit(item(3), Some(1), true, &now(0, 0), &settings);
        let (mut companion, _) = Companion::receive(1, item(3), true, &now(0, 0), &settings);
        let (mut seconds, mut boot) = (0, 0);
        for (event, passed, rebooted) in events {
            seconds += passed;
            boot += u8::from(rebooted == 0);
            let now = now(seconds, boot);
            for (encoded, before, effects, again) in [
                {
                    let before = host.encode();
                    let effects = host.handle(event.clone(), &now, &settings);
                    (host.encode(), before, effects, Host::decode(item(3), &host.encode()).unwrap().encode())
                },
                {
                    let before = companion.encode();
                    let effects = companion.handle(event, &now, &settings);
                    (companion.encode(), before, effects, Companion::decode(item(3), &companion.encode()).unwrap().encode())
                },
            ] {
                prop_assert_eq!(&again, &encoded);
                // What is not saved is not acted upon.
                prop_assert_eq!(effects.first() == Some(&Effect::Save), before != encoded);
                prop_assert!(effects.iter().skip(1).all(|effect| *effect != Effect::Save));
            }
        }
    }

    #[test]
    fn messages_round_trip_and_are_refused_when_cut(number in 1u64..=1 << 62, body in body()) {
        let frame = Frame::Mail(Message { number, mail: MailId([1; 16]), body });
        let bytes = frame.encode();
        prop_assert_eq!(Frame::decode(&bytes), Ok(frame));
        for len in 0..bytes.len() {
            prop_assert!(Frame::decode(&bytes[..len]).is_err());
        }
    }

    #[test]
    fn arbitrary_bytes_never_panic(mut bytes in proptest::collection::vec(any::<u8>(), 0..200), kind in 0u8..17) {
        if bytes.len() > 20 {
            (bytes[0], bytes[1], bytes[2]) = (1, kind, 1);
        }
        if let Ok(frame) = Frame::decode(&bytes) {
            prop_assert_eq!(frame.encode(), bytes.clone());
        }
        if let Some(version) = bytes.first_mut() {
            *version = 1;
        }
        if let Ok(host) = Host::decode(item(2), &bytes) {
            prop_assert_eq!(host.encode(), bytes.clone());
        }
        if let Ok(companion) = Companion::decode(item(2), &bytes) {
            prop_assert_eq!(companion.encode(), bytes);
        }
    }

    #[test]
    fn a_state_with_flipped_bits_is_refused_or_is_another(at in 0usize..100, bit in 0u8..8) {
        let mut host = Bench::offering(2);
        host.hear(Body::Request { turn: 1 });
        let mut bytes = host.machine.encode();
        let at = at % bytes.len();
        bytes[at] ^= 1 << bit;
        if let Ok(other) = Host::decode(item(2), &bytes) {
            prop_assert_eq!(other.encode(), bytes);
        }
    }
}
