use super::*;
use crate::body::PacketBody;
use crate::content::PackIndex;
use crate::ids::{Counter, PacketHash};
use crate::keys::PublicKey;
use crate::knowledge::Learned;

mod record;

fn device(n: u8) -> DeviceId {
    DeviceId([n; 32])
}

fn dot(author: u8, counter: Counter) -> Dot {
    Dot { device: device(author), counter }
}

fn pack(n: u8) -> PackId {
    PackId([n; 32])
}

/// Knowledge of so many packets of devices 1, 2 and 3.
fn known(counters: [Counter; 3]) -> Knowledge {
    let mut known = Knowledge::new();
    for (n, counter) in (1..).zip(counters).filter(|(_, counter)| *counter > 0) {
        known.advance(device(n), Learned { counter, hash: PacketHash([n; 32]) });
    }
    known
}

fn packet(author: u8, counter: Counter, lamport: Lamport, needs: &[PackId], changes: Vec<Change>) -> Packet {
    Packet {
        dot: dot(author, counter),
        hash: PacketHash([author; 32]),
        previous: PacketHash([0; 32]),
        author: PublicKey([author; 32]),
        epoch: 0,
        body: PacketBody {
            lamport,
            time: 0,
            prerequisite: Knowledge::new(),
            needs: needs.to_vec(),
            packs: Vec::new(),
            inline: Vec::new(),
            changes,
        },
    }
}

fn condemn(packs: &[PackId], history: Knowledge) -> Vec<Change> {
    vec![Change::Condemn { packs: packs.to_vec(), history }]
}

fn none() -> BTreeSet<PackId> {
    BTreeSet::new()
}

#[test]
fn a_reference_made_without_knowing_voids_a_condemnation_for_ever() {
    let condemnation = packet(1, 2, 5, &[], condemn(&[pack(7), pack(8)], Knowledge::new()));
    let reference = packet(2, 2, 5, &[pack(7)], Vec::new());
    let mut garbage = Garbage::new();
    garbage.fold(&condemnation, &known([1, 1, 0]), &none());
    assert!(!garbage.may_refer(&pack(7)));
    garbage.fold(&reference, &known([1, 1, 0]), &none());
    // The other way round it is told what was folded before.
    let mut other = Garbage::new();
    other.fold(&reference, &known([1, 1, 0]), &none());
    other.fold(&condemnation, &known([1, 1, 0]), &references(&reference).collect());
    assert_eq!(garbage, other);
    assert!(garbage.may_refer(&pack(7)) && !garbage.may_refer(&pack(8)));
    assert_eq!(garbage.condemned(), BTreeSet::from([pack(8)]));
}

#[test]
fn whoever_knew_does_not_void() {
    let mut garbage = Garbage::new();
    garbage.fold(&packet(1, 2, 5, &[], condemn(&[pack(7)], Knowledge::new())), &known([1, 1, 0]), &none());
    garbage.fold(&packet(2, 2, 6, &[pack(7)], Vec::new()), &known([2, 1, 0]), &none());
    assert!(!garbage.may_refer(&pack(7)));
}

#[test]
fn telling_of_a_pack_refers_to_it() {
    let mut telling = packet(2, 2, 5, &[], Vec::new());
    telling.body.packs.push(PackIndex { pack: pack(7), epoch: 0, size: 100, chunks: Vec::new() });
    let mut garbage = Garbage::new();
    garbage.fold(&packet(1, 2, 5, &[], condemn(&[pack(7)], Knowledge::new())), &known([1, 1, 0]), &none());
    garbage.fold(&telling, &known([1, 1, 0]), &none());
    assert!(garbage.may_refer(&pack(7)));
}

#[test]
fn two_that_rely_on_each_others_copies_void_one_another() {
    let first = packet(1, 2, 5, &[pack(8)], condemn(&[pack(7)], Knowledge::new()));
    let second = packet(2, 2, 5, &[pack(7)], condemn(&[pack(8)], Knowledge::new()));
    for [earlier, later] in [[&first, &second], [&second, &first]] {
        let mut garbage = Garbage::new();
        garbage.fold(earlier, &known([1, 1, 0]), &none());
        garbage.fold(later, &known([1, 1, 0]), &references(earlier).collect());
        assert!(garbage.may_refer(&pack(7)) && garbage.may_refer(&pack(8)));
    }
}

#[test]
fn of_two_condemnations_of_history_that_do_not_know_each_other_the_earlier_counts() {
    let first = packet(1, 4, 9, &[], condemn(&[], known([3, 1, 0])));
    let second = packet(2, 4, 8, &[], condemn(&[], known([1, 3, 0])));
    for [earlier, later] in [[&first, &second], [&second, &first]] {
        let mut garbage = Garbage::new();
        for packet in [earlier, later] {
            garbage.fold(packet, &known([3, 3, 0]), &none());
        }
        assert_eq!(*garbage.horizon(), known([1, 3, 0]));
        garbage.finish(&dot(1, 4));
        assert_eq!(*garbage.horizon(), known([1, 3, 0]));
        garbage.finish(&dot(2, 4));
        assert_eq!(*garbage.horizon(), known([1, 3, 0]));
    }
}

#[test]
fn history_that_its_author_had_not_learned_is_not_condemned() {
    let mut garbage = Garbage::new();
    garbage.fold(&packet(1, 2, 9, &[], condemn(&[], known([1, 3, 0]))), &known([1, 2, 0]), &none());
    assert!(garbage.horizon().is_empty());
}

#[test]
fn an_answer_is_owed_once_and_answers_are_not_answered() {
    let mut garbage = Garbage::new();
    garbage.fold(&packet(1, 2, 5, &[], condemn(&[pack(7)], Knowledge::new())), &known([1, 1, 1]), &none());
    assert!(!garbage.awaits_answer(&device(1), &known([1, 1, 1])), "its author owes none");
    assert!(garbage.awaits_answer(&device(2), &known([1, 0, 1])));
    garbage.fold(&packet(2, 2, 6, &[], Vec::new()), &known([2, 1, 1]), &none());
    assert!(!garbage.awaits_answer(&device(2), &known([2, 1, 1])), "answered");
    assert!(!garbage.awaits_answer(&device(1), &known([1, 1, 1])), "the answer is owed none");
}

#[test]
fn a_condemnation_is_answered_when_all_that_are_waited_for_know_it() {
    let mut garbage = Garbage::new();
    garbage.fold(&packet(1, 2, 5, &[], condemn(&[pack(7)], Knowledge::new())), &known([1, 1, 1]), &none());
    let answered = |removals: &[Dot], second: [Counter; 3], third: [Counter; 3]| {
        let devices = [device(1), device(2), device(3)].into();
        let awaited = Awaited { devices, removals: removals.iter().copied().collect() };
        let known = [known([1, 1, 1]), known(second), known(third)];
        !garbage.answered(&awaited, |other| known.get(usize::from(other.0[0]) - 1)).is_empty()
    };
    assert!(!answered(&[], [1, 1, 1], [1, 1, 1]) && !answered(&[], [2, 1, 1], [1, 1, 1]));
    assert!(answered(&[], [2, 1, 1], [2, 1, 1]));
    assert!(
        !answered(&[dot(3, 2)], [2, 1, 1], [2, 1, 1]),
        "whoever does not know of a removal has not answered for it"
    );
    assert!(!answered(&[dot(3, 2)], [2, 1, 2], [2, 1, 1]), "the author of the condemnation must know of it too");
}

#[test]
fn removals_are_known_to_all_before_anything_goes() {
    let mut garbage = Garbage::new();
    garbage.fold(&packet(2, 2, 5, &[], condemn(&[pack(7)], Knowledge::new())), &known([1, 1, 1]), &none());
    let awaited = Awaited { devices: [device(1), device(2)].into(), removals: [dot(1, 3)].into() };
    let answered = |second| {
        let known = [known([3, 2, 1]), known(second)];
        garbage.answered(&awaited, |other| known.get(usize::from(other.0[0]) - 1))
    };
    assert_eq!(answered([1, 2, 1]), []);
    assert_eq!(answered([3, 2, 1]), [dot(2, 2)]);
}

#[test]
fn the_last_word_on_retention_counts_in_either_order() {
    let says = |author, lamport, retention| packet(author, 2, lamport, &[], vec![Change::Retain { retention }]);
    let (first, second) = (says(1, 5, Retention::All), says(2, 5, Retention::Days(7)));
    for order in [[&first, &second], [&second, &first]] {
        let mut garbage = Garbage::new();
        assert_eq!(garbage.retention(), Retention::Days(90));
        for packet in order {
            garbage.fold(packet, &known([1, 1, 0]), &none());
        }
        assert_eq!(garbage.retention(), Retention::Days(7));
    }
}

#[test]
fn a_device_is_known_to_all_when_each_other_says_so() {
    let awaited = Awaited { devices: [device(1), device(2), device(3)].into(), removals: BTreeSet::new() };
    let (with, without) = (known([1, 1, 1]), known([1, 1, 0]));
    let known_by = |knowing: &[u8]| {
        is_known_to_all(&device(3), &awaited, |other| {
            Some(if knowing.contains(&other.0[0]) { &with } else { &without })
        })
    };
    assert!(known_by(&[1, 2]) && !known_by(&[1]) && !known_by(&[3]));
}

#[test]
fn what_was_folded_round_trips_and_is_canonical() {
    let mut garbage = Garbage::new();
    let changes = vec![
        Change::Retain { retention: Retention::Versions(NonZeroU32::new(5).unwrap()) },
        Change::Condemn { packs: vec![pack(8), pack(7)], history: known([1, 0, 2]) },
    ];
    garbage.fold(&packet(1, 2, 5, &[pack(8)], changes), &known([1, 1, 2]), &none());
    garbage.fold(&packet(2, 2, 9, &[], condemn(&[pack(3)], Knowledge::new())), &known([1, 1, 2]), &none());
    garbage.fold(&packet(2, 1, 3, &[], condemn(&[pack(4)], Knowledge::new())), &known([1, 0, 0]), &none());
    garbage.finish(&dot(2, 1));
    garbage.doubt(&dot(2, 2));
    let mut out = Writer::new();
    garbage.encode(&mut out);
    let bytes = out.finish();
    let mut input = Reader::new(&bytes);
    assert_eq!(Garbage::decode(&mut input), Ok(garbage));
    assert_eq!(input.finish(), Ok(()));
    for len in 0..bytes.len() {
        assert!(Garbage::decode(&mut Reader::new(&bytes[..len])).is_err());
    }
    for at in 0..bytes.len() {
        let mut changed = bytes.clone();
        changed[at] ^= 1;
        let mut input = Reader::new(&changed);
        if let Ok(other) = Garbage::decode(&mut input) {
            let read = changed.len() - input.remaining();
            let mut out = Writer::new();
            other.encode(&mut out);
            assert_eq!(out.finish(), changed[..read], "byte {at}");
        }
    }
}
