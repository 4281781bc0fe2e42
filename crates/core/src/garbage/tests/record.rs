//! The record of garbage: when what it holds is void, done or doubtful, and what it takes over from a later one.

use super::*;

fn nothing() -> Knowledge {
    Knowledge::new()
}

fn folded(packets: &[(&Packet, [Counter; 3])]) -> Garbage {
    let mut garbage = Garbage::new();
    packets.iter().for_each(|(packet, prerequisite)| garbage.fold(packet, &known(*prerequisite), &none()));
    garbage
}

#[test]
fn what_is_void_for_all_that_it_names_is_answered_and_known_by_nobody() {
    let condemnation = packet(1, 2, 5, &[], condemn(&[pack(7)], nothing()));
    let reference = packet(2, 2, 5, &[pack(7)], Vec::new());
    let mut garbage = folded(&[(&condemnation, [1, 1, 0])]);
    assert!(garbage.awaits_answer(&device(3), &known([1, 1, 0])));
    assert!(!garbage.is_known_to(&known([1, 2, 0])));
    garbage.fold(&reference, &known([1, 1, 0]), &none());
    let (dot, standing) = garbage.standing().next().unwrap();
    assert!(standing.is_void() && standing.condemned_history().is_none());
    assert_eq!(*dot, condemnation.dot);
    assert!(!garbage.awaits_answer(&device(3), &known([1, 1, 0])));
    assert!(garbage.is_known_to(&nothing()));
    // It was never carried out, so a newcomer need not have known of it.
    garbage.finish(&condemnation.dot);
    assert_eq!(garbage.standing().count(), 0);
    assert!(garbage.is_known_to(&nothing()));
}

#[test]
fn a_condemnation_is_not_void_while_packs_or_history_are_left() {
    let both = packet(1, 3, 5, &[], condemn(&[pack(7)], known([1, 1, 0])));
    let garbage = folded(&[(&both, [2, 1, 0]), (&packet(2, 2, 5, &[pack(7)], Vec::new()), [1, 1, 0])]);
    let (_, standing) = garbage.standing().next().unwrap();
    assert_eq!(standing.condemned_packs().count(), 0);
    assert_eq!(standing.condemned_history(), Some(&known([1, 1, 0])));
    assert!(!standing.is_void());
    let packs_alone = folded(&[(&packet(1, 3, 5, &[], condemn(&[pack(7)], known([1, 3, 0]))), [2, 1, 0])]);
    let (_, standing) = packs_alone.standing().next().unwrap();
    assert!(standing.condemned_history().is_none() && !standing.is_void());
}

#[test]
fn a_packet_that_refers_to_what_it_condemns_condemns_it_not() {
    let garbage = folded(&[(&packet(1, 2, 5, &[pack(7)], condemn(&[pack(7), pack(8)], nothing())), [1, 1, 0])]);
    assert_eq!(garbage.condemned(), BTreeSet::from([pack(8)]));
}

#[test]
fn only_histories_that_do_not_know_each_other_void_one_another() {
    let history = packet(1, 4, 9, &[], condemn(&[], known([3, 1, 0])));
    // Packs alone, by one that does not know of the history, earlier or later.
    for lamport in [8, 10] {
        let packs = packet(2, 4, lamport, &[], condemn(&[pack(7)], nothing()));
        for [first, second] in [[&history, &packs], [&packs, &history]] {
            let garbage = folded(&[(first, [3, 3, 0]), (second, [3, 3, 0])]);
            assert_eq!(*garbage.horizon(), known([3, 1, 0]), "at {lamport}");
            assert_eq!(garbage.condemned(), BTreeSet::from([pack(7)]));
        }
    }
    // A later history by one that knows of the first.
    let later = packet(2, 4, 10, &[], condemn(&[], known([3, 3, 0])));
    let garbage = folded(&[(&history, [3, 3, 0]), (&later, [4, 3, 0])]);
    assert!(garbage.standing().all(|(_, condemnation)| !condemnation.history_is_void));
    assert_eq!(*garbage.horizon(), known([3, 3, 0]));
}

#[test]
fn the_horizon_is_the_latest_of_the_histories_whoever_condemned_them() {
    // The later one is of the device that comes first.
    let first = packet(3, 1, 9, &[], condemn(&[], known([3, 1, 0])));
    let later = packet(1, 4, 10, &[], condemn(&[], known([3, 3, 0])));
    let garbage = folded(&[(&first, [3, 3, 0]), (&later, [3, 3, 1])]);
    assert_eq!(*garbage.horizon(), known([3, 3, 0]));
    assert!(!garbage.is_known_to(&known([2, 3, 1])), "it does not know all of the history");
    assert!(garbage.is_known_to(&known([4, 3, 1])));
}

#[test]
fn somebody_who_knows_of_a_condemnation_and_not_of_all_that_it_ends_knows_it_not() {
    let mut garbage = folded(&[(&packet(1, 4, 9, &[], condemn(&[], known([3, 2, 0]))), [3, 2, 0])]);
    assert!(!garbage.is_known_to(&known([4, 1, 0])));
    garbage.finish(&dot(1, 4));
    assert!(!garbage.is_known_to(&known([4, 1, 0])) && !garbage.is_known_to(&known([3, 2, 0])));
    assert!(garbage.is_known_to(&known([4, 2, 0])));
}

#[test]
fn of_three_histories_that_do_not_know_each_other_the_earliest_counts_in_every_order() {
    let packets = [1, 2, 3].map(|n| packet(n, 4, n.into(), &[], condemn(&[], known([n.into(), 1, 1]))));
    for order in [[0, 1, 2], [0, 2, 1], [1, 0, 2], [1, 2, 0], [2, 0, 1], [2, 1, 0]] {
        let garbage = folded(&order.map(|n| (&packets[n], [3, 3, 3])));
        let void: Vec<bool> = garbage.standing().map(|(_, condemnation)| condemnation.history_is_void).collect();
        assert_eq!(void, [false, true, true], "{order:?}");
    }
}

#[test]
fn one_packet_condemns_once_and_packs_of_a_second_change_join() {
    let mut changes = condemn(&[pack(7)], known([1, 1, 0]));
    changes.extend(condemn(&[pack(8)], known([1, 0, 0])));
    let garbage = folded(&[(&packet(1, 2, 5, &[], changes), [1, 1, 0])]);
    assert_eq!(garbage.condemned(), BTreeSet::from([pack(7), pack(8)]));
    assert_eq!(*garbage.horizon(), known([1, 1, 0]));
}

#[test]
fn what_is_doubted_stays_doubtful_and_condemned() {
    let mut garbage = folded(&[(&packet(1, 2, 5, &[], condemn(&[pack(7)], nothing())), [1, 1, 0])]);
    let doubtful = |garbage: &Garbage| garbage.standing().next().unwrap().1.is_doubtful;
    assert!(!doubtful(&garbage));
    garbage.doubt(&dot(1, 2));
    garbage.doubt(&dot(1, 3));
    assert!(doubtful(&garbage));
    assert!(!garbage.may_refer(&pack(7)), "nobody who doubts it refers to it either");
}

#[test]
fn an_earlier_state_takes_over_what_became_of_its_condemnations_and_no_later_ones() {
    let first = packet(1, 2, 5, &[], condemn(&[pack(7)], nothing()));
    let second = packet(1, 3, 6, &[], condemn(&[pack(8)], known([2, 1, 0])));
    let third = packet(1, 4, 7, &[], condemn(&[pack(9)], nothing()));
    let earlier = folded(&[(&first, [1, 1, 0]), (&second, [2, 1, 0])]);
    let mut later = folded(&[(&first, [1, 1, 0]), (&second, [2, 1, 0]), (&third, [3, 1, 0])]);
    later.fold(&packet(2, 2, 5, &[pack(7)], Vec::new()), &known([1, 1, 0]), &none());
    later.finish(&dot(1, 3));
    let mut adopted = earlier.clone();
    adopted.adopt(&later);
    let standing: Vec<(Dot, bool)> = adopted.standing().map(|(dot, found)| (*dot, found.is_void())).collect();
    assert_eq!(standing, [(dot(1, 2), true)]);
    assert_eq!(*adopted.ended(), known([2, 1, 0]));
    assert!(!adopted.is_known_to(&known([2, 1, 0])), "one of them was carried out");
    assert!(adopted.is_known_to(&known([3, 1, 0])));
}

#[test]
fn what_concerns_garbage_is_what_speaks_of_it_or_refers_to_packs() {
    let with = |needs: &[PackId], changes| packet(1, 2, 5, needs, changes);
    let delete = Change::Delete { removed: Vec::new() };
    let retain = Change::Retain { retention: Retention::All };
    assert!(!concerns(&with(&[], vec![delete.clone()])));
    assert!(concerns(&with(&[pack(1)], vec![delete.clone()])));
    assert!(concerns(&with(&[], vec![delete.clone(), retain.clone()])));
    assert!(concerns(&with(&[], condemn(&[], nothing()))));
    let history = condemn(&[], known([1, 0, 0]));
    assert!(!condemns_packs(&with(&[pack(1)], history.clone())) && !condemns_packs(&with(&[], vec![retain])));
    let mut packs = condemn(&[pack(7)], nothing());
    packs.extend(history);
    assert!(condemns_packs(&with(&[], packs)));
}

/// A record by hand: of each list its entries in this order.
fn record(finished: &[(u8, Counter)], standing: &[(u8, Counter)], packs: &[u8]) -> Result<Garbage, WireError> {
    let mut out = Writer::new();
    out.u8(0);
    nothing().encode(&mut out);
    out.varint(finished.len() as u64);
    for (author, counter) in finished {
        out.raw(&device(*author).0).varint(*counter);
    }
    out.varint(standing.len() as u64);
    for (author, counter) in standing {
        out.raw(&device(*author).0).varint(*counter).varint(5).varint(packs.len() as u64);
        for n in packs {
            out.raw(&pack(*n).0).u8(0);
        }
        nothing().encode(&mut out);
        out.u8(0).u8(0);
    }
    let bytes = out.finish();
    let mut input = Reader::new(&bytes);
    let garbage = Garbage::decode(&mut input)?;
    input.finish()?;
    Ok(garbage)
}

#[test]
fn a_record_is_read_in_one_order_only() {
    assert!(record(&[(1, 4), (2, 2)], &[(1, 5), (1, 6), (2, 3)], &[7, 8]).is_ok());
    let refused = Err(WireError::NotCanonical);
    assert_eq!(record(&[(1, 0)], &[], &[]), refused);
    assert_eq!(record(&[(2, 2), (1, 4)], &[], &[]), refused);
    assert_eq!(record(&[(1, 4), (1, 5)], &[], &[]), refused);
    assert_eq!(record(&[], &[(1, 0)], &[]), refused);
    assert_eq!(record(&[], &[(2, 3), (1, 5)], &[]), refused);
    assert_eq!(record(&[], &[(1, 5), (1, 5)], &[]), refused);
    assert_eq!(record(&[], &[(1, 5)], &[8, 7]), refused);
    assert_eq!(record(&[], &[(1, 5)], &[7, 7]), refused);
}
