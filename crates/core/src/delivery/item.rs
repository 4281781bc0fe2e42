//! A mail to be sent: what never changes of it, from submission on.
//!
//! ```text
//! id 16 | body hash 32 | size varint | sender bytes | count, per recipient: bytes
//! ```
//!
//! The body itself lies elsewhere, under its hash; both devices send the same bytes.
//! Recipients are named by their place in the envelope, so that states and messages stay small; two equal addresses
//! are two recipients, as they are to a server.

use thiserror::Error;

use crate::ids::{BodyHash, MailId};
use crate::wire::{Reader, WireError, Writer};

/// A mail's id, body and envelope.
#[derive(Clone, PartialEq, Eq, Hash, Debug)]
pub struct Item {
    id: MailId,
    body: BodyHash,
    size_bytes: u64,
    sender: Address,
    recipients: Vec<Address>,
}

impl Item {
    /// A mail with at least one and at most [`MAX_RECIPIENTS`] recipients.
    pub fn new(
        id: MailId,
        body: BodyHash,
        size_bytes: u64,
        sender: Address,
        recipients: Vec<Address>,
    ) -> Result<Self, ItemError> {
        match recipients.len() {
            0 => return Err(ItemError::NoRecipient),
            1..=MAX_RECIPIENTS => {}
            count => return Err(ItemError::TooManyRecipients { count }),
        }
        if recipients.iter().any(|recipient| recipient.as_str().is_empty()) {
            return Err(ItemError::EmptyRecipient);
        }
        Ok(Self { id, body, size_bytes, sender, recipients })
    }

    /// The mail's id.
    pub fn id(&self) -> MailId {
        self.id
    }

    /// The SHA-256 of the body.
    pub fn body(&self) -> BodyHash {
        self.body
    }

    /// Size of the body in bytes.
    pub fn size_bytes(&self) -> u64 {
        self.size_bytes
    }

    /// The envelope's sender; empty for a mail that must not bounce.
    pub fn sender(&self) -> &Address {
        &self.sender
    }

    /// The envelope's recipients.
    pub fn recipients(&self) -> &[Address] {
        &self.recipients
    }

    /// All recipients by their places.
    pub fn all(&self) -> Recipients {
        (0..self.recipients.len() as u32).collect()
    }

    /// Writes the mail in its one form.
    pub fn encode(&self, out: &mut Writer) {
        out.raw(&self.id.0).raw(&self.body.0).varint(self.size_bytes);
        out.bytes(self.sender.0.as_bytes()).varint(self.recipients.len() as u64);
        for recipient in &self.recipients {
            out.bytes(recipient.0.as_bytes());
        }
    }

    /// Reads what [`encode`](Self::encode) writes.
    pub fn decode(input: &mut Reader<'_>) -> Result<Self, WireError> {
        let id = MailId(input.array()?);
        let body = BodyHash(input.array()?);
        let size_bytes = input.varint()?;
        let sender = Address::decode(input)?;
        let recipients = (0..input.count(2)?).map(|_| Address::decode(input)).collect::<Result<_, _>>()?;
        Self::new(id, body, size_bytes, sender, recipients).map_err(|_| WireError::Invalid { what: "envelope" })
    }
}

/// An envelope address as SMTP carries it, without its angle brackets.
#[derive(Clone, PartialEq, Eq, PartialOrd, Ord, Hash, Debug)]
pub struct Address(String);

impl Address {
    /// An address without control characters or angle brackets, which would end it early in an SMTP command.
    pub fn new(text: impl Into<String>) -> Result<Self, ItemError> {
        let text = text.into();
        if text.len() > MAX_ADDRESS_BYTES {
            return Err(ItemError::AddressTooLong { bytes: text.len() });
        }
        match text.chars().find(|c| c.is_control() || matches!(c, '<' | '>')) {
            Some(character) => Err(ItemError::AddressCharacter { character }),
            None => Ok(Self(text)),
        }
    }

    /// The address as text.
    pub fn as_str(&self) -> &str {
        &self.0
    }

    fn decode(input: &mut Reader<'_>) -> Result<Self, WireError> {
        let text = std::str::from_utf8(input.bytes(MAX_ADDRESS_BYTES)?);
        let text = text.map_err(|_| WireError::Invalid { what: "address" })?;
        Self::new(text).map_err(|_| WireError::Invalid { what: "address" })
    }
}

/// Some of a mail's recipients, by their places in its envelope.
///
/// ```text
/// count of runs, per run: places passed over since the last run varint, length varint
/// ```
#[derive(Clone, PartialEq, Eq, Hash, Debug, Default)]
pub struct Recipients(Vec<u32>);

impl Recipients {
    /// No recipient.
    pub fn none() -> Self {
        Self::default()
    }

    /// The places in ascending order.
    pub fn iter(&self) -> impl Iterator<Item = u32> {
        self.0.iter().copied()
    }

    /// How many there are.
    pub fn len(&self) -> usize {
        self.0.len()
    }

    /// Whether there are none.
    pub fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    /// Whether a recipient is among them.
    pub fn contains(&self, recipient: u32) -> bool {
        self.0.binary_search(&recipient).is_ok()
    }

    /// Those that are not in `other`.
    pub fn without(&self, other: &Self) -> Self {
        self.iter().filter(|recipient| !other.contains(*recipient)).collect()
    }

    pub(super) fn encode(&self, out: &mut Writer) {
        let mut runs: Vec<(u32, u32)> = Vec::new();
        for place in self.iter() {
            match runs.last_mut() {
                Some((start, length)) if *start + *length == place => *length += 1,
                _ => runs.push((place, 1)),
            }
        }
        out.varint(runs.len() as u64);
        let mut end = 0;
        for (start, length) in runs {
            out.varint(u64::from(start - end)).varint(u64::from(length));
            end = start + length;
        }
    }

    /// Reads places below `limit`, the number of recipients that the mail has.
    pub(super) fn decode(input: &mut Reader<'_>, limit: usize) -> Result<Self, WireError> {
        let mut places = Vec::new();
        let mut end = 0u64;
        for run in 0..input.count(2)? {
            let (gap, length) = (u64::from(input.varint32()?), u64::from(input.varint32()?));
            // Two runs that touch would have been written as one.
            if length == 0 || (run > 0 && gap == 0) {
                return Err(WireError::NotCanonical);
            }
            let start = end + gap;
            end = start + length;
            if end > limit as u64 {
                return Err(WireError::Invalid { what: "recipient" });
            }
            places.extend(start as u32..end as u32);
        }
        Ok(Self(places))
    }
}

impl FromIterator<u32> for Recipients {
    fn from_iter<I: IntoIterator<Item = u32>>(places: I) -> Self {
        let mut places: Vec<u32> = places.into_iter().collect();
        places.sort_unstable();
        places.dedup();
        Self(places)
    }
}

/// Why something is not a mail that can be sent.
#[derive(Debug, Clone, PartialEq, Eq, Error)]
pub enum ItemError {
    /// Nobody is to get it.
    #[error("the mail has no recipient")]
    NoRecipient,
    /// A recipient's address is empty.
    #[error("a recipient's address is empty")]
    EmptyRecipient,
    /// More are to get it than one mail may have.
    #[error("the mail has {count} recipients, more than {MAX_RECIPIENTS}")]
    TooManyRecipients {
        /// How many.
        count: usize,
    },
    /// An address is longer than SMTP allows.
    #[error("an address has {bytes} bytes, more than {MAX_ADDRESS_BYTES}")]
    AddressTooLong {
        /// How long.
        bytes: usize,
    },
    /// An address has a character that would end it early in an SMTP command.
    #[error("an address has the character {character:?}")]
    AddressCharacter {
        /// Which.
        character: char,
    },
}

/// Most recipients of one mail.
pub const MAX_RECIPIENTS: usize = 20_000;
/// Most bytes of an address; local part 64, at sign, domain 255 (RFC 5321 4.5.3.1).
pub const MAX_ADDRESS_BYTES: usize = 320;

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn address(text: &str) -> Address {
        Address::new(text).unwrap()
    }

    fn item(recipients: Vec<Address>) -> Result<Item, ItemError> {
        Item::new(MailId([1; 16]), BodyHash([2; 32]), 300, address(""), recipients)
    }

    #[test]
    fn an_envelope_that_smtp_could_not_carry_is_refused() {
        assert_eq!(item(vec![]), Err(ItemError::NoRecipient));
        assert_eq!(item(vec![address("")]), Err(ItemError::EmptyRecipient));
        let many = vec![address("a@b"); MAX_RECIPIENTS + 1];
        assert_eq!(item(many), Err(ItemError::TooManyRecipients { count: MAX_RECIPIENTS + 1 }));
        assert_eq!(Address::new("a>\r\nRCPT"), Err(ItemError::AddressCharacter { character: '>' }));
        assert_eq!(Address::new("a\n"), Err(ItemError::AddressCharacter { character: '\n' }));
        assert_eq!(Address::new("a".repeat(321)), Err(ItemError::AddressTooLong { bytes: 321 }));
    }

    #[test]
    fn a_mail_round_trips_and_is_refused_when_cut() {
        let item = item(vec![address("a@example.org"), address("ü@example.org"), address("a@example.org")]).unwrap();
        let mut out = Writer::new();
        item.encode(&mut out);
        let bytes = out.finish();
        assert_eq!(Item::decode(&mut Reader::new(&bytes)), Ok(item));
        for len in 0..bytes.len() {
            assert!(Item::decode(&mut Reader::new(&bytes[..len])).is_err(), "cut at {len}");
        }
    }

    #[test]
    fn runs_that_touch_or_reach_too_far_are_refused() {
        let read = |numbers: &[u64], limit| {
            let mut out = Writer::new();
            for number in numbers {
                out.varint(*number);
            }
            Recipients::decode(&mut Reader::new(&out.finish()), limit)
        };
        assert_eq!(read(&[2, 0, 2, 1, 1], 4), Ok([0, 1, 3].into_iter().collect()));
        assert_eq!(read(&[2, 0, 2, 0, 1], 4), Err(WireError::NotCanonical));
        assert_eq!(read(&[1, 0, 0], 4), Err(WireError::NotCanonical));
        assert!(read(&[1, 0, 5], 4).is_err());
        assert!(read(&[1, u64::from(u32::MAX), u64::from(u32::MAX)], 4).is_err());
    }

    proptest! {
        #[test]
        fn sets_of_recipients_round_trip(places in proptest::collection::btree_set(0u32..50, 0..50)) {
            let recipients: Recipients = places.into_iter().collect();
            let mut out = Writer::new();
            recipients.encode(&mut out);
            let bytes = out.finish();
            let mut input = Reader::new(&bytes);
            prop_assert_eq!(Recipients::decode(&mut input, 50), Ok(recipients));
            prop_assert_eq!(input.remaining(), 0);
        }

        #[test]
        fn arbitrary_bytes_never_panic(bytes in proptest::collection::vec(any::<u8>(), 0..200)) {
            let mut input = Reader::new(&bytes);
            if let Ok(item) = Item::decode(&mut input) {
                let mut out = Writer::new();
                item.encode(&mut out);
                prop_assert_eq!(out.finish(), &bytes[..bytes.len() - input.remaining()]);
            }
        }
    }
}
