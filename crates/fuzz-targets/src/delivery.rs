//! Delivery over two paths: what is said of mails, what is saved of them, and the machines under any events.
//!
//! The model checker sees every order of sensible events in small worlds; here come senseless ones, from a peer that lies
//! and from a driver in disorder. They may stall a mail, but never panic, never lose what was saved, and never let the
//! host write a dot while a grant of its own may run.

use std::sync::Arc;
use std::time::Duration;

use arbitrary::{Result, Unstructured};
use packetboat_core::delivery::message::MAX_MESSAGE_BYTES;
use packetboat_core::delivery::{
    Address, Attempt, Body, Companion, CompanionLedger, Effect, Event, Frame, GrantLength, Host, HostLedger, HostState,
    Item, Message, Now, OfferReason, Recipients, Replies, Reply, SentLookup, Settings, Why,
};
use packetboat_core::ids::{BodyHash, BootId, MailId};

use crate::Outcome;

/// Anything that is said on the link about mail.
pub fn delivery_frame(input: &[u8]) -> Outcome {
    let frame = Frame::decode(input);
    if let Ok(frame) = &frame {
        assert_eq!(frame.encode(), input, "a frame has one encoding");
        assert!(input.len() <= MAX_MESSAGE_BYTES);
    }
    frame.is_ok().into()
}

/// What is saved of a mail, and the ledgers: by the first byte.
pub fn delivery_record(input: &[u8]) -> Outcome {
    let Some((kind, bytes)) = input.split_first() else { return Outcome::Refused };
    // Ledgers of single numbers are read still, and written in runs.
    let outdated = kind % 4 == 3 && bytes.first().is_some_and(|first| *first != 0);
    let again = match kind % 4 {
        0 => Host::decode(item(3), bytes).map(|host| host.encode()),
        1 => Companion::decode(item(3), bytes).map(|companion| companion.encode()),
        2 => HostLedger::decode(bytes).map(|ledger| ledger.encode()),
        _ => CompanionLedger::decode(bytes).map(|ledger| ledger.encode()),
    };
    match &again {
        Ok(again) if outdated => assert_eq!(CompanionLedger::decode(again), CompanionLedger::decode(bytes)),
        Ok(again) => assert_eq!(again, bytes, "a record has one encoding"),
        Err(_) => {}
    }
    again.is_ok().into()
}

/// A host and a companion under arbitrary events, each with a clock and boots of its own.
pub fn delivery_machines(input: &[u8]) -> Outcome {
    let mut input = Unstructured::new(input);
    let mut run = match Run::new(&mut input) {
        Ok(run) => run,
        Err(_) => return Outcome::Refused,
    };
    let mut steps = 0;
    while !input.is_empty() && steps < 200 && run.step(&mut input).is_ok() {
        steps += 1;
    }
    (steps > 5).into()
}

struct Run {
    settings: Settings,
    item: Arc<Item>,
    host: Option<Host>,
    companion: Option<Companion>,
    host_now: Now,
    companion_now: Now,
    /// What was said and may be heard, once more or never.
    said: Vec<(bool, Message)>,
    tries: [Attempt; 2],
}

impl Run {
    fn new(input: &mut Unstructured<'_>) -> Result<Self> {
        let item = item(input.int_in_range(1..=3)?);
        let settings = Settings {
            delay_warning: Duration::from_millis(input.int_in_range(0..=2)? * 1000),
            file_in_sent: input.arbitrary()?,
            ..Settings::default()
        };
        assert_eq!(settings.check(), Ok(()));
        let now = Now { boot: BootId([1; 16]), since_boot_ms: 1000, wall_ms: 1000 };
        let number = if input.ratio(7, 8)? { Some(1) } else { None };
        let (host, effects) = Host::submit(item.clone(), number, input.arbitrary()?, &now, &settings);
        let (companion, answers) = Companion::receive(1, item.clone(), input.arbitrary()?, &now, &settings);
        let (host_now, companion_now) = (now, now);
        let (host, companion) = (Some(host), Some(companion));
        let mut run =
            Self { settings, item, host, companion, host_now, companion_now, said: Vec::new(), tries: [0; 2] };
        run.carry_out(true, &effects);
        run.carry_out(false, &answers);
        Ok(run)
    }

    fn step(&mut self, input: &mut Unstructured<'_>) -> Result<()> {
        let is_host: bool = input.arbitrary()?;
        let now = if is_host { &mut self.host_now } else { &mut self.companion_now };
        // Clocks run, stand, jump, and begin anew with another boot; the wall's goes anywhere.
        match input.int_in_range(0..=9)? {
            0 => now.since_boot_ms = now.since_boot_ms.saturating_add(u64::from(input.arbitrary::<u32>()?)),
            1 => *now = Now { boot: BootId([input.arbitrary()?; 16]), since_boot_ms: 0, wall_ms: now.wall_ms },
            2 => now.wall_ms = input.arbitrary()?,
            3..=6 => now.since_boot_ms = now.since_boot_ms.saturating_add(1000),
            _ => {}
        }
        let event = self.event(is_host, input)?;
        self.tell(is_host, event);
        Ok(())
    }

    fn tell(&mut self, is_host: bool, event: Event) {
        let effects = if is_host {
            let Some(host) = &mut self.host else { return };
            let before = host.encode();
            let effects = host.handle(event, &self.host_now, &self.settings);
            let saved = host.encode();
            assert_eq!(effects.first() == Some(&Effect::Save), saved != before, "what changed is saved first");
            let again = Host::decode(self.item.clone(), &saved).expect("what is saved can be read");
            assert_eq!(again.encode(), saved);
            assert!(!(host.is_entitled() && matches!(host.state(), HostState::Granted { .. })));
            let dots = effects.iter().filter(|effect| matches!(effect, Effect::WriteDot { .. })).count();
            assert!(dots == 0 || matches!(host.state(), HostState::Dot { .. }), "a dot is written by who has the turn");
            effects
        } else {
            let Some(companion) = &mut self.companion else { return };
            let before = companion.encode();
            let effects = companion.handle(event, &self.companion_now, &self.settings);
            let saved = companion.encode();
            assert_eq!(effects.first() == Some(&Effect::Save), saved != before, "what changed is saved first");
            let again = Companion::decode(self.item.clone(), &saved).expect("what is saved can be read");
            assert_eq!(again.encode(), saved);
            let _wanted = companion.wake(&self.settings);
            effects
        };
        self.carry_out(is_host, &effects);
    }

    fn carry_out(&mut self, is_host: bool, effects: &[Effect]) {
        for effect in effects {
            match effect {
                Effect::Send(message) => {
                    let encoded = Frame::Mail(message.clone()).encode();
                    assert!(encoded.len() <= MAX_MESSAGE_BYTES);
                    assert_eq!(Frame::decode(&encoded), Ok(Frame::Mail(message.clone())), "what is said is understood");
                    self.said.push((!is_host, message.clone()));
                }
                Effect::Try { attempt, recipients } => {
                    assert!(!recipients.is_empty(), "nobody is tried for nobody");
                    self.tries[usize::from(is_host)] = *attempt;
                }
                Effect::Forget if is_host => self.host = None,
                Effect::Forget => self.companion = None,
                _ => {}
            }
        }
        if self.said.len() > 64 {
            self.said.drain(..32);
        }
    }

    fn event(&mut self, is_host: bool, input: &mut Unstructured<'_>) -> Result<Event> {
        let attempt = if input.ratio(7, 8)? { self.tries[usize::from(is_host)] } else { input.int_in_range(0..=9)? };
        Ok(match input.int_in_range(0..=26)? {
            0..=5 => {
                // What the other one said, now or long ago.
                let heard: Vec<&Message> =
                    self.said.iter().filter(|(to_host, _)| *to_host == is_host).map(|(_, message)| message).collect();
                match heard.len() {
                    0 => Event::Timer,
                    count => Event::Message(heard[input.choose_index(count)?].clone()),
                }
            }
            6..=8 => Event::Message(Message { number: 1, mail: self.item.id(), body: self.body(input)? }),
            9 => Event::TryFailed { attempt, replies: self.replies(input)?, failure: reply(input)? },
            10 | 11 => Event::DotAsked { attempt, refused: self.replies(input)? },
            12 | 13 => Event::Answered { attempt, replies: self.replies(input)? },
            14 => Event::AnswerLost { attempt },
            15 => Event::Restarted,
            16 => Event::LinkUp,
            17 => Event::LinkDown,
            18 => [Event::PathUp, Event::PathDown][usize::from(input.arbitrary::<bool>()?)].clone(),
            19 => Event::SentLookup(*input.choose(&[
                SentLookup::Found,
                SentLookup::Absent,
                SentLookup::NotEvidence,
                SentLookup::Unreachable,
            ])?),
            20 => Event::BounceFiled { recipients: self.recipients(input)? },
            21 => Event::SentFiled,
            22 => [Event::Hold, Event::Release, Event::RetryNow, Event::Cancel][input.choose_index(4)?].clone(),
            23 => [Event::HandOver, Event::TakeBack, Event::TakeOver, Event::Unpaired][input.choose_index(4)?].clone(),
            _ => Event::Timer,
        })
    }

    fn body(&self, input: &mut Unstructured<'_>) -> Result<Body> {
        let turn = input.int_in_range(0..=4)?;
        let remaining = self.recipients(input)?;
        Ok(match input.int_in_range(0..=13)? {
            0 => Body::Copy(self.item.clone()),
            1 => Body::Ack,
            2 => Body::Offer { reason: OfferReason::Failed, remaining },
            3 => Body::Offer { reason: OfferReason::Sleeping, remaining },
            4 => Body::Request { turn },
            5 => Body::Grant { turn, length: GrantLength::For(Duration::from_millis(input.arbitrary()?)), remaining },
            6 => Body::Grant { turn, length: GrantLength::WithoutEnd, remaining },
            7 => [Body::Taken { turn }, Body::Ask { turn }][usize::from(input.arbitrary::<bool>()?)].clone(),
            8 => Body::Return { turn, replies: self.replies(input)?, unclear: remaining },
            9 => Body::ReturnAck { turn },
            10 => Body::Done { replies: self.replies(input)? },
            11 => Body::DoneAck,
            12 => Body::Cancel([Why::Settled, Why::Cancelled][usize::from(input.arbitrary::<bool>()?)]),
            _ => [Body::CancelAck, Body::Gone][usize::from(input.arbitrary::<bool>()?)].clone(),
        })
    }

    /// Any, of whom some may not be among those of the mail.
    fn recipients(&self, input: &mut Unstructured<'_>) -> Result<Recipients> {
        let bits: u8 = input.arbitrary()?;
        Ok((0..5).filter(|place| bits & (1 << place) != 0).collect())
    }

    fn replies(&self, input: &mut Unstructured<'_>) -> Result<Replies> {
        self.recipients(input)?.iter().map(|place| Ok((place, reply(input)?))).collect()
    }
}

fn reply(input: &mut Unstructured<'_>) -> Result<Reply> {
    let code = *input.choose(&[250, 450, 451, 550, 552, 200, 599, 354])?;
    Ok(Reply::new(code, None, "said").unwrap_or_else(|_| Reply::new(451, None, "").expect("a sound reply")))
}

fn item(recipients: u32) -> Arc<Item> {
    let address = |text: &str| Address::new(text).expect("a sound address");
    let recipients = (0..recipients).map(|place| address(["a@x", "b@x", "c@x"][place as usize])).collect();
    Arc::new(Item::new(MailId([1; 16]), BodyHash([2; 32]), 1, address("s@x"), recipients).expect("a sound item"))
}

/// Inputs that are understood.
pub mod seeds {
    use super::*;

    /// Frames of each kind.
    pub fn delivery_frame() -> Vec<Vec<u8>> {
        let remaining = item(3).all();
        let replies = Replies::from_iter([(1, Reply::new(550, None, "no such user").expect("a sound reply"))]);
        let bodies = [
            Body::Copy(item(3)),
            Body::Offer { reason: OfferReason::Sleeping, remaining: remaining.clone() },
            Body::Request { turn: 3 },
            Body::Grant { turn: 3, length: GrantLength::For(Duration::from_secs(900)), remaining: remaining.clone() },
            Body::Return { turn: 3, replies: replies.clone(), unclear: remaining },
            Body::Done { replies },
            Body::Cancel(Why::Cancelled),
        ];
        let frame = |body| Frame::Mail(Message { number: 7, mail: MailId([1; 16]), body }).encode();
        bodies.into_iter().map(frame).chain([Frame::Finished { below: 300 }.encode()]).collect()
    }

    /// Records of a host, of a companion, and both ledgers.
    pub fn delivery_record() -> Vec<Vec<u8>> {
        let settings = Settings::default();
        let now = Now { boot: BootId([1; 16]), since_boot_ms: 1000, wall_ms: 1000 };
        let (host, _) = Host::submit(item(3), Some(1), true, &now, &settings);
        let (companion, _) = Companion::receive(1, item(3), true, &now, &settings);
        let mut ledger = CompanionLedger::new();
        [1, 2, 3, 9].into_iter().for_each(|number| ledger.finish(number));
        let of = |kind: u8, bytes: Vec<u8>| [&[kind][..], &bytes].concat();
        vec![of(0, host.encode()), of(1, companion.encode()), of(2, HostLedger::new().encode()), of(3, ledger.encode())]
    }

    /// Numbers that make long runs.
    pub fn delivery_machines() -> Vec<Vec<u8>> {
        (0..8u64)
            .map(|seed| (0..400u64).map(|at| ((at + seed * 977).wrapping_mul(0x9e37_79b9) >> 13) as u8).collect())
            .collect()
    }
}
