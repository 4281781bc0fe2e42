//! Sets of IMAP UIDs as runs, one for each mailbox as its server numbers it now, and what one device has of them that
//! another lacks.
//!
//! A UID means something only together with its account, mailbox and UIDVALIDITY (RFC 9051, 2.3.1.1). When a server
//! gives a mailbox another UIDVALIDITY, that is another key here, and nothing under the old one is compared with it.
//! A mailbox that grew in order is one run whatever its size; only expunged messages make more. Where a set is so full
//! of holes that it does not fit a frame, compare it as [`items`](super::items) by [`UidSet::items`].
//!
//! ```text
//! catalogue   count varint | per mailbox, in order of keys: key | set
//! key         account bytes | mailbox bytes | uidvalidity varint
//! set         count varint | per run: gap varint | length varint
//! gap         what lies between the end of the run before it (at first, 0) and its first UID, less one
//! length      UIDs of the run, less one
//! ```

use std::collections::BTreeMap;

use super::CompareError;
use super::items::Entry;
use crate::wire::{Reader, WireError, Writer};

/// A mailbox as its server numbers it now.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct MailboxKey {
    /// Which account, as the pair calls it.
    pub account: String,
    /// The mailbox's name, as the server gives it.
    pub mailbox: Vec<u8>,
    /// What the server says its UIDs hold for.
    pub uid_validity: u32,
}

/// A set of UIDs.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct UidSet {
    /// First and last UID of each run: disjoint, not adjacent, by their first.
    runs: BTreeMap<u32, u32>,
}

impl UidSet {
    /// The empty set.
    pub fn new() -> Self {
        Self::default()
    }

    /// Adds a UID; zero is none and is passed over.
    pub fn insert(&mut self, uid: u32) {
        self.insert_run(uid, uid);
    }

    /// Adds all UIDs from `first` to `last`; zero is none and is passed over.
    pub fn insert_run(&mut self, first: u32, last: u32) {
        let (mut first, mut last) = (first.max(1), last);
        if first > last {
            return;
        }
        // The run before it, if it reaches this one, and all that begin within it or right after.
        if let Some((&before, &end)) = self.runs.range(..first).next_back()
            && end >= first - 1
        {
            first = before;
            last = last.max(end);
        }
        while let Some((&begin, &end)) = self.runs.range(first..=last.saturating_add(1)).next() {
            self.runs.remove(&begin);
            last = last.max(end);
        }
        self.runs.insert(first, last);
    }

    /// Whether a UID is in it.
    pub fn contains(&self, uid: u32) -> bool {
        self.runs.range(..=uid).next_back().is_some_and(|(_, &last)| last >= uid)
    }

    /// How many UIDs are in it.
    pub fn len(&self) -> u64 {
        self.runs.iter().map(|(&first, &last)| u64::from(last - first) + 1).sum()
    }

    /// Whether nothing is in it.
    pub fn is_empty(&self) -> bool {
        self.runs.is_empty()
    }

    /// Its runs, first and last UID of each, in order.
    pub fn runs(&self) -> impl Iterator<Item = (u32, u32)> + '_ {
        self.runs.iter().map(|(&first, &last)| (first, last))
    }

    /// Its UIDs, in order.
    pub fn iter(&self) -> impl Iterator<Item = u32> + '_ {
        self.runs().flat_map(|(first, last)| first..=last)
    }

    /// What is in this set and not in the other.
    pub fn without(&self, other: &Self) -> Self {
        let mut left = BTreeMap::new();
        let mut others = other.runs().peekable();
        for (mut first, last) in self.runs() {
            let mut rest = true;
            while let Some(&(begin, end)) = others.peek() {
                if begin > last {
                    break;
                }
                if begin > first {
                    left.insert(first, begin - 1);
                }
                if end >= last {
                    // It may cover the beginning of the next run too, so it stays.
                    rest = false;
                    break;
                }
                first = first.max(end + 1);
                others.next();
            }
            if rest {
                left.insert(first, last);
            }
        }
        Self { runs: left }
    }

    /// The set as items, for a comparison by fingerprints.
    pub fn items(&self, key: &MailboxKey) -> impl Iterator<Item = Entry> {
        let mut hasher = blake3::Hasher::new_derive_key("packetboat 2026 compare: uid");
        let mut writer = Writer::new();
        key.encode(&mut writer);
        hasher.update(&writer.finish());
        self.iter().map(move |uid| {
            let mut hasher = hasher.clone();
            Entry { arrival: u64::from(uid), hash: *hasher.update(&uid.to_le_bytes()).finalize().as_bytes() }
        })
    }

    fn encode(&self, writer: &mut Writer) {
        writer.varint(self.runs.len() as u64);
        let mut before = 0;
        for (first, last) in self.runs() {
            writer.varint(u64::from(first - before - 1)).varint(u64::from(last - first));
            before = last;
        }
    }

    fn decode(reader: &mut Reader<'_>) -> Result<Self, WireError> {
        let mut runs = BTreeMap::new();
        let mut before = 0u64;
        for number in 0..reader.count(2)? {
            let gap = reader.varint()?;
            // Without a gap it would be the same run.
            if number > 0 && gap == 0 {
                return Err(WireError::NotCanonical);
            }
            let first = before.checked_add(gap).and_then(|first| first.checked_add(1)).ok_or(WireError::Overflow)?;
            let last = first.checked_add(reader.varint()?).ok_or(WireError::Overflow)?;
            let narrow = |uid| u32::try_from(uid).map_err(|_| WireError::Overflow);
            runs.insert(narrow(first)?, narrow(last)?);
            before = last;
        }
        Ok(Self { runs })
    }
}

impl FromIterator<u32> for UidSet {
    fn from_iter<T: IntoIterator<Item = u32>>(uids: T) -> Self {
        let mut set = Self::new();
        uids.into_iter().for_each(|uid| set.insert(uid));
        set
    }
}

impl MailboxKey {
    fn encode(&self, writer: &mut Writer) {
        writer.bytes(self.account.as_bytes()).bytes(&self.mailbox).varint(u64::from(self.uid_validity));
    }

    fn decode(reader: &mut Reader<'_>) -> Result<Self, WireError> {
        let account = std::str::from_utf8(reader.bytes(NAME_BYTES)?);
        Ok(Self {
            account: account.map_err(|_| WireError::Invalid { what: "account" })?.to_owned(),
            mailbox: reader.bytes(NAME_BYTES)?.to_vec(),
            uid_validity: reader.varint32()?,
        })
    }
}

/// What a device has of all mailboxes.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct UidCatalogue {
    mailboxes: BTreeMap<MailboxKey, UidSet>,
}

impl UidCatalogue {
    /// The catalogue of these sets; empty ones say nothing and are left out.
    pub fn new(mailboxes: impl IntoIterator<Item = (MailboxKey, UidSet)>) -> Self {
        Self { mailboxes: mailboxes.into_iter().filter(|(_, set)| !set.is_empty()).collect() }
    }

    /// The mailboxes of which something is there, in order.
    pub fn mailboxes(&self) -> impl Iterator<Item = (&MailboxKey, &UidSet)> {
        self.mailboxes.iter()
    }

    /// What is in this catalogue and not in the other.
    pub fn without(&self, other: &Self) -> Self {
        Self::new(self.mailboxes.iter().map(|(key, set)| {
            let left = match other.mailboxes.get(key) {
                Some(theirs) => set.without(theirs),
                None => set.clone(),
            };
            (key.clone(), left)
        }))
    }

    /// The catalogue as one frame.
    pub fn encode(&self, limit: usize) -> Result<Vec<u8>, CompareError> {
        let mut writer = Writer::new();
        writer.varint(self.mailboxes.len() as u64);
        for (key, set) in &self.mailboxes {
            key.encode(&mut writer);
            set.encode(&mut writer);
        }
        let length = writer.len();
        if length > limit { Err(CompareError::TooLong { length, limit }) } else { Ok(writer.finish()) }
    }

    /// Reads a peer's catalogue.
    pub fn decode(frame: &[u8], limit: usize) -> Result<Self, CompareError> {
        if frame.len() > limit {
            return Err(CompareError::TooLong { length: frame.len(), limit });
        }
        let mut reader = Reader::new(frame);
        let mut mailboxes = BTreeMap::new();
        for _ in 0..reader.count(6)? {
            let key = MailboxKey::decode(&mut reader)?;
            if mailboxes.last_key_value().is_some_and(|(before, _)| *before >= key) {
                return Err(WireError::NotCanonical.into());
            }
            let set = UidSet::decode(&mut reader)?;
            if set.is_empty() {
                return Err(WireError::NotCanonical.into());
            }
            mailboxes.insert(key, set);
        }
        reader.finish()?;
        Ok(Self { mailboxes })
    }
}

/// Longest name of an account or mailbox, in bytes.
const NAME_BYTES: usize = 1024;

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use proptest::prelude::*;

    use super::*;

    fn key(mailbox: &str, uid_validity: u32) -> MailboxKey {
        MailboxKey { account: "me@example.org".to_owned(), mailbox: mailbox.as_bytes().to_vec(), uid_validity }
    }

    #[test]
    fn a_mailbox_of_a_million_is_a_few_bytes() {
        let mut set = UidSet::new();
        set.insert_run(1, 1_000_000);
        let frame = UidCatalogue::new([(key("INBOX", 1), set)]).encode(100).unwrap();
        assert!(frame.len() < 40, "{} bytes", frame.len());
    }

    #[test]
    fn the_ends_of_the_range_are_uids_like_others() {
        let mut set = UidSet::new();
        for uid in [u32::MAX, 1, u32::MAX - 1, 0] {
            set.insert(uid);
        }
        assert_eq!(set.runs().collect::<Vec<_>>(), [(1, 1), (u32::MAX - 1, u32::MAX)]);
        assert!(!set.contains(0) && set.contains(u32::MAX));
        let catalogue = UidCatalogue::new([(key("INBOX", u32::MAX), set.clone())]);
        assert_eq!(UidCatalogue::decode(&catalogue.encode(1000).unwrap(), 1000).unwrap(), catalogue);
        let mut all = UidSet::new();
        all.insert_run(0, u32::MAX);
        assert_eq!((all.len(), all.without(&set).len()), (u64::from(u32::MAX), u64::from(u32::MAX) - 3));
    }

    #[test]
    fn another_uidvalidity_is_another_mailbox() {
        let set: UidSet = [1, 2, 3].into_iter().collect();
        let before = UidCatalogue::new([(key("INBOX", 1), set.clone())]);
        let after = UidCatalogue::new([(key("INBOX", 2), set)]);
        assert_eq!(after.without(&before), after);
    }

    #[test]
    fn a_catalogue_that_does_not_fit_is_not_sent_nor_read() {
        let holes = UidCatalogue::new([(key("INBOX", 1), (1..1000).map(|number| number * 2).collect())]);
        let frame = holes.encode(5000).unwrap();
        let too_long = |limit| CompareError::TooLong { length: frame.len(), limit };
        assert_eq!(holes.encode(frame.len() - 1), Err(too_long(frame.len() - 1)));
        assert_eq!(UidCatalogue::decode(&frame, frame.len() - 1), Err(too_long(frame.len() - 1)));
    }

    fn uids() -> impl Strategy<Value = BTreeSet<u32>> {
        prop_oneof![
            proptest::collection::btree_set(1u32..60, 0..40),
            proptest::collection::btree_set(prop_oneof![1u32..20, u32::MAX - 20..=u32::MAX], 0..30),
        ]
    }

    proptest! {
        #[test]
        fn sets_agree_with_a_model(ours in uids(), theirs in uids()) {
            // In two orders of insertion.
            let (here, there): (UidSet, UidSet) =
                (ours.iter().rev().copied().collect(), theirs.iter().copied().collect());
            prop_assert_eq!(here.iter().collect::<BTreeSet<_>>(), ours.clone());
            prop_assert_eq!(here.len(), ours.len() as u64);
            let left: BTreeSet<u32> = here.without(&there).iter().collect();
            prop_assert_eq!(left, ours.difference(&theirs).copied().collect::<BTreeSet<_>>());
            for uid in (0..62).chain(u32::MAX - 22..=u32::MAX) {
                prop_assert_eq!(here.contains(uid), ours.contains(&uid));
            }
            let catalogue = UidCatalogue::new([(key("INBOX", 7), here.clone()), (key("Sent", 7), there)]);
            let frame = catalogue.encode(4096).unwrap();
            prop_assert_eq!(UidCatalogue::decode(&frame, 4096).unwrap(), catalogue);
        }

        #[test]
        fn whatever_a_peer_sends_is_read_as_it_would_be_written_or_refused(
            frame in proptest::collection::vec(prop_oneof![0u8..4, any::<u8>()], 0..60),
        ) {
            if let Ok(catalogue) = UidCatalogue::decode(&frame, 60) {
                prop_assert_eq!(catalogue.encode(60).unwrap(), frame);
            }
        }
    }
}
