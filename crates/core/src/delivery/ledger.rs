//! Which mails of a pair are finished, so that a late message about one makes no new copy and loses no acknowledgement.
//!
//! The host numbers its mails from 1. The companion remembers the prefix of numbers that are finished and, beyond it,
//! runs of them; the host says how far the prefix reaches when the link comes up, because mails that never left it leave
//! gaps.
//!
//! ```text
//! host        next number varint
//! companion   first number that may be open varint | 0                                    where nothing beyond is finished
//!             0 | first number that may be open varint | count of runs, per run: gap before it varint | length varint
//! ```
//!
//! Between two runs lies a mail that is open, or some that were finished while there was no link, so an honest host makes
//! few runs of many mails. A host that lies could make one of every second number, so what would begin another run
//! beyond [`MOST_RUNS`] is put off: a copy is not taken and nothing is answered, and the host says it again. That is safe,
//! because nothing is forgotten and nothing acknowledged, and it ends when a gap closes or the prefix moves on.
//! What was admitted is remembered when it ends in any case, so there are at most so many runs more as there were copies
//! here when it was full.
//!
//! A number that is unknown here is never a reason to delete anything there: only what a machine has said about a mail
//! it knew is. A message for a mail without a machine is answered by [`HostLedger::answer`] or
//! [`CompanionLedger::answer`]. Both ledgers are saved in one transaction with the state that they go with.

use std::collections::BTreeMap;

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
    /// Finished numbers beyond it, as the first and the last of each run; between two runs something may be open.
    runs: BTreeMap<ItemNumber, ItemNumber>,
}

impl CompanionLedger {
    /// The ledger of a new pair.
    pub fn new() -> Self {
        Self { below: 1, runs: BTreeMap::new() }
    }

    /// Whether a copy of this number may be made.
    pub fn admits(&self, number: ItemNumber) -> bool {
        !self.is_finished(number) && self.has_room(number)
    }

    /// Remembers that a number is finished.
    pub fn finish(&mut self, number: ItemNumber) {
        if self.is_finished(number) {
            return;
        }
        let last = self.runs.remove(&(number + 1)).unwrap_or(number);
        match self.runs.range_mut(..number).next_back() {
            Some((_, before)) if *before + 1 == number => *before = last,
            _ => drop(self.runs.insert(number, last)),
        }
        self.close_ranks();
    }

    /// Remembers that all numbers below one are finished; a copy that is here all the same stays.
    pub fn finish_below(&mut self, below: ItemNumber) {
        if below > self.below {
            self.below = below;
            self.close_ranks();
        }
    }

    /// What to say to a message about a mail that has no machine here; the ledger may change and is saved first.
    ///
    /// A copy that is admitted is none of this: its body is fetched, and a machine made.
    pub fn answer(&mut self, message: &Message) -> Option<Message> {
        let body = match &message.body {
            // The copy itself may still be under way; it must not be taken in when it comes.
            Body::Cancel(_) if self.is_finished(message.number) || self.has_room(message.number) => {
                self.finish(message.number);
                Body::CancelAck
            }
            Body::Copy(_) if self.is_finished(message.number) => Body::Gone,
            Body::Offer { .. } | Body::Grant { .. } | Body::Ask { .. } => Body::Gone,
            _ => return None,
        };
        Some(Message { body, ..*message })
    }

    /// Writes the ledger in its one form.
    pub fn encode(&self) -> Vec<u8> {
        let mut out = Writer::new();
        if self.runs.is_empty() {
            out.varint(self.below).varint(0);
            return out.finish();
        }
        out.varint(0).varint(self.below).varint(self.runs.len() as u64);
        let mut open = self.below;
        for (first, last) in &self.runs {
            out.varint(first - open).varint(last - first + 1);
            open = last + 1;
        }
        out.finish()
    }

    /// Reads what [`encode`](Self::encode) writes, and the single numbers that were written before there were runs.
    pub fn decode(bytes: &[u8]) -> Result<Self, WireError> {
        let mut input = Reader::new(bytes);
        let below = decode_count(&mut input)?;
        let ledger = if below == 0 { Self::decode_runs(&mut input)? } else { Self::decode_numbers(below, &mut input)? };
        input.finish()?;
        Ok(ledger)
    }

    fn decode_runs(input: &mut Reader<'_>) -> Result<Self, WireError> {
        let below = decode_count(input)?;
        let mut ledger = Self { below, runs: BTreeMap::new() };
        let mut open = below;
        let count = input.count(2)?;
        for _ in 0..count {
            let (gap, length) = (decode_count(input)?, decode_count(input)?);
            if gap == 0 || length == 0 {
                return Err(WireError::NotCanonical);
            }
            // Each of them is small enough to be added once.
            let first = check_count(open + gap)?;
            let last = check_count(first + length - 1)?;
            ledger.runs.insert(first, last);
            open = last + 1;
        }
        if below == 0 || count == 0 { Err(WireError::NotCanonical) } else { Ok(ledger) }
    }

    fn decode_numbers(below: ItemNumber, input: &mut Reader<'_>) -> Result<Self, WireError> {
        let mut ledger = Self { below, runs: BTreeMap::new() };
        let mut last = below;
        for _ in 0..input.count(1)? {
            let step = decode_count(input)?;
            // The first of them is not at the prefix's end, and each lies beyond the last.
            if step == 0 {
                return Err(WireError::NotCanonical);
            }
            last = check_count(last + step)?;
            ledger.finish(last);
        }
        Ok(ledger)
    }

    fn is_finished(&self, number: ItemNumber) -> bool {
        number < self.below || self.runs.range(..=number).next_back().is_some_and(|(_, last)| *last >= number)
    }

    /// Whether a number that may be open could be remembered as finished within what is kept for a host that may lie.
    fn has_room(&self, number: ItemNumber) -> bool {
        let ends_before = || self.runs.range(..number).next_back().is_some_and(|(_, last)| *last + 1 == number);
        self.runs.len() < MOST_RUNS
            || number == self.below
            || self.runs.contains_key(&number.saturating_add(1))
            || ends_before()
    }

    fn close_ranks(&mut self) {
        while let Some(run) = self.runs.first_entry().filter(|run| *run.key() <= self.below) {
            self.below = self.below.max(run.remove() + 1);
        }
    }
}

impl Default for CompanionLedger {
    fn default() -> Self {
        Self::new()
    }
}

/// How many runs of finished numbers are kept; a host with more open mails than that has some of its copies put off.
const MOST_RUNS: usize = 1 << 16;

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;
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
    fn a_host_that_cancels_every_second_number_fills_no_memory() {
        let mut ledger = CompanionLedger::new();
        let most = MOST_RUNS as u64;
        for number in (2..=2 * most).step_by(2) {
            assert!(ledger.answer(&message(number, Body::Cancel(Why::Settled))).is_some());
        }
        let full = ledger.clone();
        // What there is no room for is neither acknowledged nor taken in, and nothing is forgotten for it.
        let beyond = 2 * most + 2;
        assert_eq!(ledger.answer(&message(beyond, Body::Cancel(Why::Settled))), None);
        assert_eq!(ledger.answer(&message(beyond, copy())), None);
        assert!(!ledger.admits(beyond) && ledger == full);
        assert!(!ledger.admits(2) && ledger.answer(&message(2, copy())).is_some());
        // What closes a gap or lengthens a run is taken at any time, and makes room again.
        for number in [2 * most + 1, 7, 1] {
            assert!(ledger.admits(number));
            assert!(ledger.answer(&message(number, Body::Cancel(Why::Settled))).is_some());
            assert!(!ledger.admits(number));
        }
        assert!(ledger.answer(&message(beyond + 8, Body::Cancel(Why::Settled))).is_some());
    }

    #[test]
    fn a_million_mails_that_finish_behind_an_open_one_are_one_run() {
        let mut ledger = CompanionLedger::new();
        (2..1_000_000).for_each(|number| ledger.finish(number));
        assert!(ledger.encode().len() < 10);
        ledger.finish(1);
        assert_eq!(ledger, CompanionLedger { below: 1_000_000, runs: BTreeMap::new() });
    }

    #[test]
    fn a_ledger_of_single_numbers_is_still_read() {
        // 3 is the first that may be open; 5, 6 and 9 are finished.
        let ledger = CompanionLedger::decode(&[3, 3, 2, 1, 3]).unwrap();
        assert_eq!(ledger, CompanionLedger { below: 3, runs: BTreeMap::from([(5, 6), (9, 9)]) });
        assert_eq!(ledger.encode(), [0, 3, 2, 2, 2, 2, 1]);
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
                let written = ledger.encode();
                prop_assert_eq!(CompanionLedger::decode(&written), Ok(ledger));
                prop_assert!(written == bytes || bytes[0] != 0, "runs have one form");
            }
            if let Ok(ledger) = HostLedger::decode(&bytes) {
                prop_assert_eq!(ledger.encode(), bytes);
            }
        }
    }
}
