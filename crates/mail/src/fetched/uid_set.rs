//! Sets of the numbers that IMAP gives messages, kept as runs: a mailbox read from its beginning is one run.
//!
//! Invariant: runs are in order, do not overlap, and do not touch.

use std::collections::BTreeMap;
use std::fmt;
use std::ops::RangeInclusive;

/// A set of UIDs.
#[derive(Clone, PartialEq, Eq, Default)]
pub struct UidSet {
    /// The first of each run, and its last.
    runs: BTreeMap<u32, u32>,
}

impl UidSet {
    /// Adds one; whether it was not there.
    pub fn insert(&mut self, uid: u32) -> bool {
        let is_new = !self.contains(uid);
        self.insert_run(uid..=uid);
        is_new
    }

    /// Adds all of a run.
    pub fn insert_run(&mut self, run: RangeInclusive<u32>) {
        let (mut first, mut last) = run.into_inner();
        if first > last {
            return;
        }
        if let Some((&start, &end)) = self.runs.range(..first).next_back() {
            if end >= last {
                return;
            }
            if end.saturating_add(1) >= first {
                first = start;
            }
        }
        let absorbed: Vec<u32> = self.runs.range(first..=last.saturating_add(1)).map(|(&start, _)| start).collect();
        for start in absorbed {
            if let Some(end) = self.runs.remove(&start) {
                last = last.max(end);
            }
        }
        self.runs.insert(first, last);
    }

    /// Whether it is there.
    pub fn contains(&self, uid: u32) -> bool {
        self.runs.range(..=uid).next_back().is_some_and(|(_, &last)| uid <= last)
    }

    /// How many there are.
    pub fn len(&self) -> u64 {
        self.runs.iter().map(|(&first, &last)| u64::from(last - first) + 1).sum()
    }

    /// Whether there is none.
    pub fn is_empty(&self) -> bool {
        self.runs.is_empty()
    }

    /// The greatest.
    pub fn last(&self) -> Option<u32> {
        self.runs.last_key_value().map(|(_, &last)| last)
    }

    /// The runs, in order.
    pub fn runs(&self) -> impl Iterator<Item = RangeInclusive<u32>> + '_ {
        self.runs.iter().map(|(&first, &last)| first..=last)
    }

    /// Each of them, in order.
    pub fn iter(&self) -> impl Iterator<Item = u32> + '_ {
        self.runs().flatten()
    }

    /// Those that are not in `other`.
    pub fn difference(&self, other: &Self) -> Self {
        let mut left = Self::default();
        for run in self.runs() {
            let (mut next, last) = (u64::from(*run.start()), u64::from(*run.end()));
            let before = other.runs.range(..=*run.start()).next_back().map_or(*run.start(), |(&start, _)| start);
            for (&start, &end) in other.runs.range(before..=*run.end()) {
                left.insert_wide(next, u64::from(start).saturating_sub(1), u64::from(start) > next);
                next = next.max(u64::from(end) + 1);
            }
            left.insert_wide(next, last, next <= last);
        }
        left
    }

    /// Those of both.
    pub fn union(&self, other: &Self) -> Self {
        let mut both = self.clone();
        other.runs().for_each(|run| both.insert_run(run));
        both
    }

    /// Parts of at most `uids` numbers and `runs` runs each, in order, for commands that stay short.
    pub fn parts(&self, uids: u32, runs: usize) -> Vec<Self> {
        let mut parts = Vec::new();
        let (mut part, mut room) = (Self::default(), uids.max(1));
        for run in self.runs() {
            let (mut first, last) = run.into_inner();
            loop {
                let end = last.min(first.saturating_add(room - 1));
                part.runs.insert(first, end);
                room -= end - first + 1;
                if room == 0 || part.runs.len() >= runs.max(1) {
                    parts.push(std::mem::take(&mut part));
                    room = uids.max(1);
                }
                if end == last {
                    break;
                }
                first = end + 1;
            }
        }
        if !part.is_empty() {
            parts.push(part);
        }
        parts
    }

    /// Reads what `Display` writes.
    pub fn parse(text: &str) -> Option<Self> {
        let mut set = Self::default();
        if text.is_empty() {
            return Some(set);
        }
        for part in text.split(',') {
            let (first, last) = part.split_once(':').unwrap_or((part, part));
            let (first, last) = (first.parse().ok()?, last.parse().ok()?);
            if first > last {
                return None;
            }
            set.insert_run(first..=last);
        }
        (set.to_string() == text).then_some(set)
    }

    fn insert_wide(&mut self, first: u64, last: u64, wanted: bool) {
        if let (true, Ok(first), Ok(last)) = (wanted, u32::try_from(first), u32::try_from(last)) {
            self.insert_run(first..=last);
        }
    }
}

impl FromIterator<u32> for UidSet {
    fn from_iter<I: IntoIterator<Item = u32>>(uids: I) -> Self {
        let mut set = Self::default();
        uids.into_iter().for_each(|uid| set.insert_run(uid..=uid));
        set
    }
}

/// As an IMAP sequence set: `1:7,9`.
impl fmt::Display for UidSet {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        for (number, run) in self.runs().enumerate() {
            let comma = if number == 0 { "" } else { "," };
            match run.into_inner() {
                (first, last) if first == last => write!(formatter, "{comma}{first}")?,
                (first, last) => write!(formatter, "{comma}{first}:{last}")?,
            }
        }
        Ok(())
    }
}

impl fmt::Debug for UidSet {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(formatter, "{{{self}}}")
    }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use proptest::prelude::*;

    use super::*;

    fn uids() -> impl Strategy<Value = Vec<u32>> {
        prop::collection::vec(prop_oneof![0u32..60, (u32::MAX - 5)..=u32::MAX], 0..60)
    }

    fn model(uids: &[u32]) -> BTreeSet<u32> {
        uids.iter().copied().collect()
    }

    proptest! {
        #[test]
        fn it_is_the_set_of_what_was_put_in(one in uids(), other in uids()) {
            let (set, set_of_other) = (one.iter().copied().collect::<UidSet>(), other.iter().copied().collect::<UidSet>());
            let (model, model_of_other) = (model(&one), model(&other));
            prop_assert_eq!(set.iter().collect::<BTreeSet<_>>(), model.clone());
            prop_assert_eq!(set.len(), model.len() as u64);
            prop_assert_eq!(set.last(), model.last().copied());
            let difference: BTreeSet<u32> = set.difference(&set_of_other).iter().collect();
            prop_assert_eq!(difference, model.difference(&model_of_other).copied().collect::<BTreeSet<_>>());
            let union: BTreeSet<u32> = set.union(&set_of_other).iter().collect();
            prop_assert_eq!(union, model.union(&model_of_other).copied().collect::<BTreeSet<_>>());
            for uid in 0..60 {
                prop_assert_eq!(set.contains(uid), model.contains(&uid));
            }
        }

        #[test]
        fn its_text_comes_back_and_runs_do_not_touch(one in uids()) {
            let set: UidSet = one.into_iter().collect();
            prop_assert_eq!(UidSet::parse(&set.to_string()), Some(set.clone()));
            let runs: Vec<_> = set.runs().collect();
            prop_assert!(runs.windows(2).all(|pair| u64::from(*pair[0].end()) + 1 < u64::from(*pair[1].start())));
        }

        #[test]
        fn parts_are_short_and_miss_nothing(one in uids(), size in 1u32..9, count in 1usize..4) {
            let set: UidSet = one.into_iter().collect();
            let parts = set.parts(size, count);
            prop_assert!(parts.iter().all(|part| part.len() <= size.into() && part.runs().count() <= count));
            let together = parts.iter().flat_map(UidSet::iter).collect::<Vec<_>>();
            prop_assert_eq!(together, set.iter().collect::<Vec<_>>());
        }

        #[test]
        fn any_text_is_read_or_refused(text in "[0-9:,]{0,20}") {
            if let Some(set) = UidSet::parse(&text) {
                prop_assert_eq!(set.to_string(), text);
            }
        }
    }

    #[test]
    fn a_mailbox_of_a_million_read_in_order_is_one_run() {
        let set: UidSet = (1..=1_000_000).collect();
        assert_eq!((set.to_string().as_str(), set.len()), ("1:1000000", 1_000_000));
    }
}
