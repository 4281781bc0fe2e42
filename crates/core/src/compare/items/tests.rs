//! What comparisons cost and find, and what they do with nonsense.

use std::sync::LazyLock;

use proptest::prelude::*;

use super::*;

/// An item that arrived as the `number`th.
fn entry(number: u64) -> Entry {
    Entry { arrival: 1_700_000_000 + number * 30, hash: *blake3::hash(&number.to_le_bytes()).as_bytes() }
}

fn hashes(entries: &[Entry]) -> BTreeSet<[u8; 32]> {
    entries.iter().map(|entry| entry.hash).collect()
}

/// What a comparison found, and the bytes that went in both directions.
fn compare(here: &Catalogue, there: &Catalogue, limits: Limits) -> (Difference, usize) {
    let (mut initiator, mut frame) = here.initiate(limits).unwrap();
    let mut responder = there.respond(limits).unwrap();
    let mut bytes = 0;
    loop {
        let answer = responder.handle(&frame).unwrap();
        assert!(frame.len() <= limits.frame_bytes && answer.len() <= limits.frame_bytes);
        bytes += frame.len() + answer.len();
        match initiator.handle(&answer).unwrap() {
            Step::Ask { comparison, frame: next } => (initiator, frame) = (comparison, next),
            Step::Done(difference) => return (difference, bytes),
        }
    }
}

const MILLION: u64 = 1_000_000;

static ITEMS: LazyLock<Vec<Entry>> = LazyLock::new(|| (0..MILLION).map(entry).collect());

/// A million items, of which each side lacks some.
fn million_without(lacking: impl Fn(u64) -> bool) -> (Catalogue, Vec<Entry>) {
    let (gone, kept): (Vec<_>, Vec<_>) = ITEMS
        .iter()
        .enumerate()
        .map(|(number, entry)| (number as u64, *entry))
        .partition(|(number, _)| lacking(*number));
    (Catalogue::new(kept.into_iter().map(|(_, entry)| entry)), gone.into_iter().map(|(_, entry)| entry).collect())
}

/// Checks cost and outcome of a million items where each side lacks some, whichever side begins.
fn check_million(here_lacks: impl Fn(u64) -> bool, there_lacks: impl Fn(u64) -> bool, most: usize, rounds: u32) {
    let ((here, need), (there, have)) = (million_without(here_lacks), million_without(there_lacks));
    for (here, there, have, need) in [(&here, &there, &have, &need), (&there, &here, &need, &have)] {
        let (difference, bytes) = compare(here, there, Limits::default());
        assert_eq!((difference.have, difference.need), (hashes(have), hashes(need)));
        println!("{} differences: {bytes} bytes in {} rounds", have.len() + need.len(), difference.rounds);
        assert!(bytes < most && difference.rounds <= rounds, "{bytes} bytes in {} rounds", difference.rounds);
    }
}

#[test]
fn a_hundred_recent_differences_in_a_million_cost_under_13_kilobytes_and_three_rounds() {
    check_million(|number| number >= MILLION - 100, |_| false, 13_000, 3);
    // Half of them on each side, among items that both have.
    let recent = |number: u64| number >= MILLION - 100;
    check_million(|number| recent(number) && number % 2 == 0, |number| recent(number) && number % 2 == 1, 13_000, 3);
}

#[test]
fn ten_recent_differences_in_a_million_cost_under_3_kilobytes() {
    check_million(|number| number >= MILLION - 10, |_| false, 3_000, 3);
    let recent = |number: u64| number >= MILLION - 10;
    check_million(|number| recent(number) && number % 2 == 0, |number| recent(number) && number % 2 == 1, 3_000, 3);
}

#[test]
fn a_hundred_scattered_differences_in_a_million_cost_under_200_kilobytes() {
    let scattered = |number: u64| number % 10_000 == 4_321;
    check_million(
        |number| scattered(number) && number % 20_000 < 10_000,
        |number| scattered(number) && number % 20_000 >= 10_000,
        200_000,
        3,
    );
}

#[test]
fn equal_sets_cost_one_round_and_half_a_kilobyte() {
    check_million(|_| false, |_| false, 512, 1);
}

#[test]
fn items_of_one_moment_and_of_the_last_moment_are_told_apart() {
    let at = |arrival, number: u64| Entry { arrival, hash: *blake3::hash(&number.to_le_bytes()).as_bytes() };
    for arrival in [0, 5, u64::MAX - 1, u64::MAX] {
        let here = Catalogue::new((0..900).map(|number| at(arrival, number)));
        let there = Catalogue::new((100..1000).map(|number| at(arrival, number)));
        let (difference, _) = compare(&here, &there, Limits::default());
        assert_eq!((difference.have.len(), difference.need.len()), (100, 100), "arrival {arrival}");
    }
}

#[test]
fn a_set_that_differs_in_everything_fits_small_frames() {
    let here: Vec<_> = (0..20_000).map(entry).collect();
    let there: Vec<_> = (20_000..50_000).map(entry).collect();
    let limits = Limits { frame_bytes: 4096, ..Limits::default() };
    let (difference, _) = compare(&Catalogue::new(here.clone()), &Catalogue::new(there.clone()), limits);
    assert_eq!((difference.have, difference.need), (hashes(&here), hashes(&there)));
}

#[test]
fn a_peer_that_never_agrees_is_given_up() {
    let here = Catalogue::new((0..1000).map(entry));
    let limits = Limits { rounds: 5, ..Limits::default() };
    let (mut initiator, _) = here.initiate(limits).unwrap();
    // A fingerprint of everything that fits nothing, again and again.
    let disagrees = [&[0x61, 0, 0, 1][..], &[9; 16]].concat();
    let outcome = loop {
        match initiator.handle(&disagrees) {
            Ok(Step::Ask { comparison, .. }) => initiator = comparison,
            Ok(Step::Done(_)) => panic!("it cannot be done"),
            Err(error) => break error,
        }
    };
    assert_eq!(outcome, CompareError::Endless { rounds: 5 });
}

#[test]
fn a_frame_that_is_too_long_or_says_nothing_is_refused() {
    let here = Catalogue::new((0..100).map(entry));
    let limits = Limits { frame_bytes: 5000, rounds: 100 };
    let mut responder = here.respond(limits).unwrap();
    let too_long = CompareError::TooLong { length: 5001, limit: 5000 };
    assert_eq!(responder.handle(&[0x61; 5001]), Err(too_long));
    for frame in [&[][..], &[0], &[0x61, 0, 33], &[0x61, 0, 0, 7], &[0x61, 0, 0, 2, 0xff, 0xff, 0xff, 0x7f]] {
        assert!(matches!(responder.handle(frame), Err(CompareError::Nonsense { .. })), "{frame:?}");
    }
}

proptest! {
    #[test]
    fn differences_are_exact(
        numbers in proptest::collection::btree_map(0u64..500, 0u8..3, 0..400),
        small in any::<bool>(),
    ) {
        let side = |other: u8| -> Vec<Entry> {
            numbers.iter().filter(|(_, side)| **side != other).map(|(number, _)| entry(*number / 3)).collect()
        };
        let (ours, theirs) = (side(1), side(2));
        let limits = Limits { frame_bytes: if small { 4096 } else { 1 << 20 }, rounds: 100 };
        let (difference, _) = compare(&Catalogue::new(ours.clone()), &Catalogue::new(theirs.clone()), limits);
        let (ours, theirs) = (hashes(&ours), hashes(&theirs));
        prop_assert_eq!(difference.have, ours.difference(&theirs).copied().collect::<BTreeSet<_>>());
        prop_assert_eq!(difference.need, theirs.difference(&ours).copied().collect::<BTreeSet<_>>());
    }

    #[test]
    fn whatever_a_peer_sends_is_answered_or_refused(
        noise in proptest::collection::vec(prop_oneof![0u8..4, any::<u8>()], 0..300),
    ) {
        let here = Catalogue::new((0..200).map(entry));
        let limits = Limits { frame_bytes: 4096, rounds: 100 };
        let frame = [&[0x61][..], &noise].concat();
        if let Ok(answer) = here.respond(limits).unwrap().handle(&frame) {
            prop_assert!(answer.len() <= 4096 + 64, "{} bytes", answer.len());
        }
        let (initiator, _) = here.initiate(limits).unwrap();
        if let Ok(Step::Ask { frame, .. }) = initiator.handle(&frame) {
            prop_assert!(frame.len() <= 4096 + 64, "{} bytes", frame.len());
        }
    }
}
