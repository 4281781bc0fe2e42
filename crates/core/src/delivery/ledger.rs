//! Which mails of a pair are finished, so that a late message about one makes no new copy and loses no acknowledgement.
//!
//! The host numbers its mails from 1. The companion remembers the prefix of numbers that are finished and those beyond
//! it; the host says how far the prefix reaches when the link comes up, because mails that never left it leave gaps.
//!
//! ```text
//! host        next number varint
//! companion   first number that may be open varint | count, per finished number beyond it: difference to the last varint
//! ```
//!
//! A number that is unknown here is never a reason to delete anything there: only what a machine has said about a mail
//! it knew is. A message for a mail without a machine is answered by [`HostLedger::answer`] or
//! [`CompanionLedger::answer`]. Both ledgers are saved in one transaction with the state that they go with.

use std::collections::BTreeSet;

use super::message::{Body, ItemNumber, Message, check_count, decode_count};
use crate::wire::{Reader, WireError, Writer};

/// The host's count of its mails.
#[derive(Clone, PartialEq, Eq, Hash, Debug)]
pub struct HostLedger {
    next: ItemNumber,
}

impl HostLedger {
    /// The ledger of a new pair.
    pub fn new() -> Self {
        Self { next: 1 }
    }

    /// Takes the next number, for a mail that is submitted; saved with its state.
    pub fn number(&mut self) -> ItemNumber {
        let number = self.next;
        self.next += 1;
        number
    }

    /// The first number that may be open, for [`Frame::Finished`](super::message::Frame); `open` are those with a machine.
    pub fn finished_below(&self, open: impl IntoIterator<Item = ItemNumber>) -> ItemNumber {
        open.into_iter().min().unwrap_or(self.next).min(self.next)
    }

    /// What to say to a message about a mail that has no machine here.
    pub fn answer(&self, message: &Message) -> Option<Message> {
        let body = match &message.body {
            // The number was given out, so the mail was here and is finished; its report was saved before that.
            Body::Done { .. } if message.number < self.next => Body::DoneAck,
            Body::Return { turn, .. } if message.number < self.next => Body::ReturnAck { turn: *turn },
            // The companion holds a copy of a mail that is finished here.
            Body::Ack | Body::Request { .. } | Body::Taken { .. } if message.number < self.next => {
                Body::Cancel(super::message::Why::Settled)
            }
            _ => return None,
        };
        Some(Message { body, ..*message })
    }

    /// Writes the ledger in its one form.
    pub fn encode(&self) -> Vec<u8> {
        let mut out = Writer::new();
        out.varint(self.next);
        out.finish()
    }

    /// Reads what [`encode`](Self::encode) writes.
    pub fn decode(bytes: &[u8]) -> Result<Self, WireError> {
        let mut input = Reader::new(bytes);
        let next = decode_count(&mut input)?;
        input.finish()?;
        if next == 0 { Err(WireError::NotCanonical) } else { Ok(Self { next }) }
    }
}

impl Default for HostLedger {
    fn default() -> Self {
        Self::new()
    }
}

/// The companion's memory of what is finished.
#[derive(Clone, PartialEq, Eq, Hash, Debug)]
pub struct CompanionLedger {
    below: ItemNumber,
    beyond: BTreeSet<ItemNumber>,
}

impl CompanionLedger {
    /// The ledger of a new pair.
    pub fn new() -> Self {
        Self { below: 1, beyond: BTreeSet::new() }
    }

    /// Whether a copy of this number may be made.
    pub fn admits(&self, number: ItemNumber) -> bool {
        number >= self.below && !self.beyond.contains(&number)
    }

    /// Remembers that a number is finished.
    pub fn finish(&mut self, number: ItemNumber) {
        if number >= self.below {
            self.beyond.insert(number);
            self.close_ranks();
        }
    }

    /// Remembers that all numbers below one are finished; a copy that is here all the same stays.
    pub fn finish_below(&mut self, below: ItemNumber) {
        if below > self.below {
            self.below = below;
            self.beyond = self.beyond.split_off(&below);
            self.close_ranks();
        }
    }

    /// What to say to a message about a mail that has no machine here; the ledger may change and is saved first.
    ///
    /// A copy that is admitted is none of this: its body is fetched, and a machine made.
    pub fn answer(&mut self, message: &Message) -> Option<Message> {
        let body = match &message.body {
            // The copy itself may still be under way; it must not be taken in when it comes.
            Body::Cancel(_) => {
                self.finish(message.number);
                Body::CancelAck
            }
            Body::Copy(_) if !self.admits(message.number) => Body::Gone,
            Body::Offer { .. } | Body::Grant { .. } | Body::Ask { .. } => Body::Gone,
            _ => return None,
        };
        Some(Message { body, ..*message })
    }

    /// Writes the ledger in its one form.
    pub fn encode(&self) -> Vec<u8> {
        let mut out = Writer::new();
        out.varint(self.below).varint(self.beyond.len() as u64);
        let mut last = self.below;
        for number in &self.beyond {
            out.varint(number - last);
            last = *number;
        }
        out.finish()
    }

    /// Reads what [`encode`](Self::encode) writes.
    pub fn decode(bytes: &[u8]) -> Result<Self, WireError> {
        let mut input = Reader::new(bytes);
        let below = decode_count(&mut input)?;
        let mut ledger = Self { below, beyond: BTreeSet::new() };
        let mut last = below;
        for _ in 0..input.count(1)? {
            let step = decode_count(&mut input)?;
            // Both are small enough to be added once.
            last = check_count(last + step)?;
            // The first of them not at the prefix's end, and each beyond the last.
            if step == 0 {
                return Err(WireError::NotCanonical);
            }
            ledger.beyond.insert(last);
        }
        input.finish()?;
        if below == 0 { Err(WireError::NotCanonical) } else { Ok(ledger) }
    }

    fn close_ranks(&mut self) {
        while self.beyond.remove(&self.below) {
            self.below += 1;
        }
    }
}

impl Default for CompanionLedger {
    fn default() -> Self {
        Self::new()
    }
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use proptest::prelude::*;

    use super::*;
    use crate::delivery::item::{Address, Item};
    use crate::delivery::message::Why;
    use crate::ids::{BodyHash, MailId};

    fn message(number: ItemNumber, body: Body) -> Message {
        Message { number, mail: MailId([1; 16]), body }
    }

    fn copy() -> Body {
        let address = |text| Address::new(text).unwrap();
        Body::Copy(Arc::new(
            Item::new(MailId([1; 16]), BodyHash([0; 32]), 1, address(""), vec![address("a@b")]).unwrap(),
        ))
    }

    #[test]
    fn a_late_copy_of_a_finished_mail_makes_none() {
        let mut ledger = CompanionLedger::new();
        assert!(ledger.admits(3));
        assert_eq!(ledger.answer(&message(3, copy())), None);
        ledger.finish(3);
        assert!(!ledger.admits(3));
        assert_eq!(ledger.answer(&message(3, copy())), Some(message(3, Body::Gone)));
    }

    #[test]
    fn a_copy_that_its_cancel_overtook_makes_none() {
        let mut ledger = CompanionLedger::new();
        let cancelled = ledger.answer(&message(2, Body::Cancel(Why::Settled)));
        assert_eq!(cancelled, Some(message(2, Body::CancelAck)));
        assert!(!ledger.admits(2));
        assert!(ledger.admits(1));
    }

    #[test]
    fn a_host_acknowledges_only_what_it_once_knew() {
        let mut ledger = HostLedger::new();
        let done = Body::Done { replies: Default::default() };
        assert_eq!(ledger.answer(&message(1, done.clone())), None);
        assert_eq!(ledger.number(), 1);
        assert_eq!(ledger.answer(&message(1, done)), Some(message(1, Body::DoneAck)));
        assert_eq!(ledger.finished_below([]), 2);
        assert_eq!(ledger.number(), 2);
        assert_eq!(ledger.finished_below([2]), 2);
    }

    proptest! {
        #[test]
        fn a_ledger_is_a_set_of_finished_numbers(
            steps in proptest::collection::vec((any::<bool>(), 1u64..40), 0..40),
        ) {
            let mut ledger = CompanionLedger::new();
            let mut finished = BTreeSet::new();
            for (prefix, number) in steps {
                if prefix {
                    ledger.finish_below(number);
                    finished.extend(1..number);
                } else {
                    ledger.finish(number);
                    finished.insert(number);
                }
                for number in 1..45 {
                    prop_assert_eq!(ledger.admits(number), !finished.contains(&number));
                }
                let bytes = ledger.encode();
                prop_assert_eq!(CompanionLedger::decode(&bytes), Ok(ledger.clone()));
            }
        }

        #[test]
        fn arbitrary_bytes_never_panic(bytes in proptest::collection::vec(any::<u8>(), 0..40)) {
            if let Ok(ledger) = CompanionLedger::decode(&bytes) {
                prop_assert_eq!(ledger.encode(), bytes.clone());
            }
            if let Ok(ledger) = HostLedger::decode(&bytes) {
                prop_assert_eq!(ledger.encode(), bytes);
            }
        }
    }
}
