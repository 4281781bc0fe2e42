use std::collections::BTreeMap;

use proptest::collection::vec;
use proptest::prelude::*;

use super::*;
use crate::body::PacketBody;
use crate::change::{Mark, Removed};
use crate::content::Content;
use crate::ids::{ItemId, PackId};
use crate::keys::{KeyId, PublicKey};

fn device(n: u8) -> DeviceId {
    DeviceId([n; 32])
}

fn dot(n: u8, counter: Counter) -> Dot {
    Dot { device: device(n), counter }
}

/// A device that folds and makes packets as a replica would.
#[derive(Clone, Default)]
struct Replica {
    knowledge: Knowledge,
    ends: BTreeMap<DeviceId, LaneEnd>,
    packets: BTreeMap<Dot, Packet>,
    members: Members,
    garbage: Garbage,
    order: Vec<Dot>,
}

impl Replica {
    /// What is decided of a packet that somebody carries, or nobody.
    fn admit(&self, packet: &Packet, carried: Option<Carriers>) -> Admission {
        let packet_at = |device: &DeviceId, counter| {
            let packet = self.packets.get(&Dot { device: *device, counter })?;
            Some((packet.hash, packet.body.lamport))
        };
        let carried = |_: &Dot, carriers| carried.is_some_and(|by| by == Carriers::Members || by == carriers);
        let end = self.ends.get(&packet.dot.device);
        let lanes = Lanes {
            knowledge: &self.knowledge,
            end,
            members: &self.members,
            packet_at: &packet_at,
            garbage: &self.garbage,
            carried: &carried,
        };
        lanes.admit(packet)
    }

    /// Whether what waits carries a packet.
    fn carries(&self, waiting: &Waiting, packet: &Packet) -> bool {
        waiting.carries(&packet.dot, Carriers::Newcomers, &self.members, &self.garbage, |_| false)
    }

    fn fold(&mut self, packet: &Packet, prerequisite: Knowledge) {
        let Dot { device, counter } = packet.dot;
        self.knowledge.advance(device, Learned { counter, hash: packet.hash });
        self.ends.insert(device, LaneEnd::after(packet, prerequisite));
        self.packets.insert(packet.dot, packet.clone());
        self.members.fold(packet);
        self.garbage.fold(packet, &self.ends[&device].prerequisite, &Default::default());
        self.order.push(packet.dot);
    }

    fn take(&mut self, packet: &Packet) -> Admission {
        let admission = self.admit(packet, None);
        if let Admission::Fold { prerequisite } = &admission {
            self.fold(packet, prerequisite.clone());
        }
        admission
    }

    /// Makes and folds the next packet of `author`.
    fn make(&mut self, author: u8, mut changes: Vec<Change>) -> Packet {
        let device = device(author);
        let last = self.knowledge.of(&device);
        let end = self.ends.get(&device).cloned().unwrap_or_default();
        let counter = last.map_or(0, |last| last.counter) + 1;
        let mut others = Knowledge::new();
        for (other, learned) in self.knowledge.iter().filter(|(other, _)| **other != device) {
            others.advance(*other, *learned);
        }
        if counter == 1 {
            let name = author.to_string();
            changes.insert(0, Change::Introduce { name, exchange_key: [author; 32], continues: None });
        }
        let packet = Packet {
            dot: Dot { device, counter },
            hash: PacketHash(blake3::derive_key("test packet", &[&[author][..], &counter.to_le_bytes()].concat())),
            previous: last.map_or(PacketHash([0; 32]), |last| last.hash),
            author: PublicKey([author; 32]),
            epoch: 0,
            body: PacketBody {
                lamport: self.ends.values().map(|end| end.lamport).max().unwrap_or(0) + 1,
                time: 0,
                prerequisite: others.since(&end.prerequisite),
                needs: Vec::new(),
                packs: Vec::new(),
                inline: Vec::new(),
                changes,
            },
        };
        assert!(matches!(self.take(&packet), Admission::Fold { .. }), "{:?}", self.admit(&packet, None));
        packet
    }
}

/// Two lanes: 1 makes two packets; 2 learns the first and makes one.
fn two_lanes() -> (Replica, [Packet; 3]) {
    let mut first = Replica::default();
    let a1 = first.make(1, vec![]);
    let mut second = first.clone();
    let a2 = first.make(1, vec![]);
    let b1 = second.make(2, vec![]);
    (first, [a1, a2, b1])
}

#[test]
fn a_packet_is_folded_once_and_then_known() {
    let (_, [a1, a2, b1]) = two_lanes();
    let mut replica = Replica::default();
    assert_eq!(replica.take(&a1), Admission::Fold { prerequisite: Knowledge::new() });
    assert_eq!(replica.take(&a1), Admission::Known);
    let mut prerequisite = Knowledge::new();
    prerequisite.advance(device(1), Learned { counter: 1, hash: a1.hash });
    assert_eq!(replica.take(&b1), Admission::Fold { prerequisite: prerequisite.clone() });
    assert_eq!(replica.take(&a2), Admission::Fold { prerequisite });
}

#[test]
fn a_packet_waits_for_its_predecessor_and_its_prerequisite() {
    let (_, [_, a2, b1]) = two_lanes();
    let replica = Replica::default();
    assert_eq!(replica.admit(&a2, None), Admission::Wait { missing: vec![(device(1), 1)] });
    assert_eq!(replica.admit(&b1, None), Admission::Wait { missing: vec![(device(1), 1)] });
}

#[test]
fn a_second_packet_of_one_dot_is_a_fork() {
    let (mut replica, [_, a2, _]) = two_lanes();
    let mut twin = a2.clone();
    twin.hash = PacketHash([9; 32]);
    assert_eq!(replica.take(&twin), Admission::Fork { at: dot(1, 2), standing: a2.hash });
    let mut successor = replica.clone().make(1, vec![]);
    successor.previous = twin.hash;
    assert_eq!(replica.take(&successor), Admission::Fork { at: dot(1, 2), standing: a2.hash });
}

#[test]
fn a_prerequisite_of_another_history_is_refused() {
    let (mut replica, [a1, _, mut b1]) = two_lanes();
    assert_ne!(replica.knowledge.of(&device(1)).unwrap().hash, a1.hash);
    let mut other = Knowledge::new();
    other.advance(device(1), Learned { counter: 1, hash: PacketHash([9; 32]) });
    b1.body.prerequisite = other;
    assert_eq!(replica.take(&b1), Admission::Refused(Refusal::OtherHistory { at: dot(1, 1) }));
}

/// The changes that name a version as seen, each in its own way.
fn naming(named: Dot) -> Vec<Change> {
    let item = ItemId([7; 16]);
    let content = Content::Symlink(b"target".to_vec());
    let name = crate::name::Name::new(*b"name").unwrap();
    let trail = vec![Mark { dot: named, lamport: 1, time: 0 }];
    let removed = |heads, placements| Change::Delete { removed: vec![Removed { item, heads, placements }] };
    vec![
        Change::Content { item, content: content.clone(), replaces: vec![named], trail: Vec::new() },
        Change::Content { item, content, replaces: Vec::new(), trail },
        Change::Place { item, parent: ItemId::ROOT, name, replaces: vec![named] },
        removed(vec![named], Vec::new()),
        removed(Vec::new(), vec![named]),
    ]
}

#[test]
fn a_packet_that_names_what_its_author_cannot_have_seen_is_refused_whoever_knows_it_already() {
    let (knows, [a1, a2, b1]) = two_lanes();
    let mut knows_less = Replica::default();
    knows_less.take(&a1);
    for (seen, named) in [(true, a1.dot), (false, a2.dot), (false, b1.dot), (false, dot(3, 1)), (false, dot(1, 0))] {
        for change in naming(named) {
            let mut packet = b1.clone();
            packet.body.changes.push(change.clone());
            for replica in [&knows, &knows_less] {
                match replica.admit(&packet, None) {
                    Admission::Fold { .. } => assert!(seen, "{change:?}"),
                    Admission::Refused(refusal) => assert_eq!((seen, refusal), (false, Refusal::Unseen { named })),
                    other => panic!("{other:?}"),
                }
            }
        }
    }
}

#[test]
fn any_lamport_time_but_the_next_is_refused() {
    let (replica, [_, _, b1]) = two_lanes();
    for found in [0, 1, 3, u64::MAX] {
        let mut packet = b1.clone();
        packet.body.lamport = found;
        assert_eq!(replica.admit(&packet, None), Admission::Refused(Refusal::Lamport { expected: 2, found }));
    }
}

#[test]
fn what_is_older_than_the_checkpoint_bounds_the_lamport_time() {
    let (mut replica, [_, _, b1]) = two_lanes();
    replica.packets.remove(&dot(1, 1));
    for (found, admitted) in [(0, false), (1, true), (2, true), (3, true), (4, false)] {
        let mut packet = b1.clone();
        packet.body.lamport = found;
        assert_eq!(matches!(replica.admit(&packet, None), Admission::Fold { .. }), admitted, "{found}");
    }
}

#[test]
fn a_lane_begins_with_an_introduction_and_has_no_other() {
    let (mut replica, [a1, mut a2, mut b1]) = two_lanes();
    b1.body.changes.clear();
    assert_eq!(replica.take(&b1), Admission::Refused(Refusal::Introduction));
    let mut replica = Replica::default();
    replica.take(&a1);
    a2.body.changes = a1.body.changes.clone();
    assert_eq!(replica.take(&a2), Admission::Refused(Refusal::Introduction));
}

#[test]
fn beyond_the_cut_a_revoked_lane_needs_a_carrier() {
    let (mut replica, [_, _, b1]) = two_lanes();
    replica.take(&b1);
    replica.make(3, vec![]);
    let mut unaware = replica.clone();
    let b2 = unaware.make(2, vec![]);
    let c2 = unaware.make(3, vec![]);
    let revoke = Change::Revoke { device: device(2), cut: 1, epoch: 1, key: KeyId([1; 32]), keys: Vec::new() };
    replica.make(1, vec![revoke.clone()]);
    assert_eq!(replica.take(&b2), Admission::Refused(Refusal::Revoked { cut: 1 }));
    let mut waiting = Waiting::new(1000);
    assert!(!replica.carries(&waiting, &b2));
    waiting.insert(b2.clone(), 1);
    assert!(!replica.carries(&waiting, &b2), "its own lane carries nothing");
    waiting.insert(c2, 1);
    assert!(replica.carries(&waiting, &b2));
    assert!(matches!(replica.admit(&b2, Some(Carriers::Members)), Admission::Fold { .. }));
    let mut both = replica.clone();
    both.make(1, vec![Change::Revoke { device: device(3), cut: 0, epoch: 2, key: KeyId([1; 32]), keys: Vec::new() }]);
    assert!(!both.carries(&waiting, &b2), "a revoked carrier carries nothing");
}

#[test]
fn beyond_the_cut_a_retired_lane_needs_a_carrier_unless_it_knows_what_is_condemned() {
    let (mut replica, [_, _, b1]) = two_lanes();
    replica.take(&b1);
    let b2 = replica.clone().make(2, vec![]);
    replica.make(1, vec![Change::Retire { device: device(2), cut: 1 }]);
    // Of two that retire each other, neither of which heard of the other, each must hear of it.
    assert!(matches!(replica.admit(&b2, None), Admission::Fold { .. }));
    replica.make(1, condemnation());
    assert_eq!(replica.take(&b2), Admission::Refused(Refusal::Retired { cut: 1 }));
    assert!(matches!(replica.admit(&b2, Some(Carriers::Members)), Admission::Fold { .. }));
}

fn condemnation() -> Vec<Change> {
    vec![Change::Condemn { packs: vec![PackId([7; 32])], history: Knowledge::new() }]
}

#[test]
fn a_device_that_joins_without_knowing_what_is_condemned_needs_a_carrier() {
    let (mut replica, [_, _, b1]) = two_lanes();
    replica.take(&b1);
    let mut unaware = replica.clone();
    let c1 = unaware.make(3, vec![]);
    let condemned = replica.make(1, condemnation()).dot;
    let (b2, d1) = (unaware.make(2, vec![]), unaware.make(4, vec![]));
    let mut waiting = Waiting::new(1000);
    waiting.insert(d1, 1);
    assert!(!replica.carries(&waiting, &c1), "another that comes late vouches for nobody");
    waiting.insert(b2, 1);
    assert!(replica.carries(&waiting, &c1), "a member had let it in before it answered");
    // Whether that is deleted already makes no difference, or devices would let in different ones.
    for _ in 0..2 {
        assert_eq!(replica.take(&c1), Admission::Refused(Refusal::Late));
        assert!(matches!(replica.admit(&c1, Some(Carriers::Members)), Admission::Fold { .. }));
        let d1 = replica.clone().make(4, vec![]);
        assert!(matches!(replica.admit(&d1, None), Admission::Fold { .. }), "whoever knows is let in");
        replica.garbage.finish(&condemned);
    }
}

#[test]
fn a_retired_device_that_comes_back_carries_nothing_that_did_not_know_what_is_condemned() {
    let (mut replica, [_, _, b1]) = two_lanes();
    replica.take(&b1);
    let early = replica.clone().make(2, vec![]);
    let newcomer = Some(Carriers::Newcomers);
    let mut retired = replica.clone();
    retired.make(1, vec![Change::Retire { device: device(2), cut: 1 }]);
    assert!(matches!(retired.admit(&early, newcomer), Admission::Fold { .. }), "nothing is condemned");
    replica.make(1, condemnation());
    let late = replica.clone().make(2, vec![]);
    replica.make(1, vec![Change::Retire { device: device(2), cut: 1 }]);
    assert_eq!(replica.admit(&early, newcomer), Admission::Refused(Refusal::Retired { cut: 1 }));
    assert!(matches!(replica.admit(&early, Some(Carriers::Members)), Admission::Fold { .. }));
    assert!(matches!(replica.admit(&late, newcomer), Admission::Fold { .. }));
}

#[test]
fn a_device_that_joins_with_a_key_that_was_given_up_needs_a_carrier() {
    let (mut replica, [_, _, b1]) = two_lanes();
    replica.take(&b1);
    let mut unaware = replica.clone();
    let (c1, c2) = (unaware.make(3, vec![]), unaware.make(3, vec![]));
    let d1 = unaware.make(4, vec![]);
    let b2 = unaware.make(2, vec![]);
    let revoke = Change::Revoke { device: device(9), cut: 0, epoch: 1, key: KeyId([1; 32]), keys: Vec::new() };
    replica.make(1, vec![revoke]);
    assert_eq!(replica.take(&c1), Admission::Refused(Refusal::Outdated { epoch: 0 }));
    let mut waiting = Waiting::new(1000);
    waiting.insert(c2.clone(), 1);
    waiting.insert(d1, 1);
    assert!(!replica.carries(&waiting, &c1), "strangers vouch for nobody");
    waiting.insert(b2, 1);
    assert!(replica.carries(&waiting, &c1), "a member had let it in before it knew");
    // Whoever joined with the key that holds is let in, and a member's late packet of the old epoch is as good as any.
    let mut joined = c1.clone();
    joined.epoch = 1;
    assert!(matches!(replica.admit(&joined, None), Admission::Fold { .. }));
    let b2 = {
        let (mut behind, [_, _, b1]) = two_lanes();
        behind.take(&b1);
        behind.make(2, vec![])
    };
    assert!(matches!(replica.admit(&b2, None), Admission::Fold { .. }));
}

#[test]
fn what_waits_asks_for_the_gaps() {
    let mut replica = Replica::default();
    let packets: Vec<Packet> = (0..6).map(|_| replica.make(1, vec![])).collect();
    let mut waiting = Waiting::new(1000);
    for at in [5, 2, 3] {
        assert_eq!(waiting.insert(packets[at].clone(), 1), Buffered::Waits);
    }
    assert_eq!(waiting.insert(packets[5].clone(), 1), Buffered::Present);
    let mut knowledge = Knowledge::new();
    assert_eq!(waiting.missing(&knowledge), [(device(1), 1..=2), (device(1), 5..=5)]);
    assert_eq!(waiting.ready(&knowledge), None);
    knowledge.advance(device(1), Learned { counter: 2, hash: packets[1].hash });
    assert_eq!(waiting.ready(&knowledge), Some(packets[2].clone()));
    knowledge.advance(device(1), Learned { counter: 3, hash: packets[2].hash });
    assert_eq!(waiting.missing(&knowledge), [(device(1), 5..=5)]);
}

#[test]
fn a_packet_that_claims_an_endless_prerequisite_asks_for_one_run() {
    let mut waiting = Waiting::new(1000);
    let mut packet = Replica::default().make(1, vec![]);
    packet.body.prerequisite.advance(device(2), Learned { counter: u64::MAX, hash: packet.hash });
    packet.dot.counter = u64::MAX;
    waiting.insert(packet.clone(), 1);
    let asked = waiting.missing(&Knowledge::new());
    assert_eq!(asked, [(device(1), 1..=u64::MAX - 1), (device(2), 1..=u64::MAX)]);
    packet.dot.device = device(2);
    waiting.insert(packet, 1);
    let asked = waiting.missing(&Knowledge::new());
    assert_eq!(asked, [(device(1), 1..=u64::MAX - 1), (device(2), 1..=u64::MAX - 1)]);
}

#[test]
fn a_full_buffer_lets_the_latest_go() {
    let mut replica = Replica::default();
    let packets: Vec<Packet> = (0..5).map(|_| replica.make(1, vec![])).collect();
    let mut waiting = Waiting::new(20);
    assert_eq!(waiting.insert(packets[2].clone(), 10), Buffered::Waits);
    assert_eq!(waiting.insert(packets[4].clone(), 10), Buffered::Waits);
    assert_eq!(waiting.insert(packets[1].clone(), 10), Buffered::Waits);
    assert_eq!(waiting.insert(packets[3].clone(), 10), Buffered::Full);
    assert_eq!((waiting.len(), waiting.bytes()), (2, 20));
    assert_eq!(waiting.insert(packets[0].clone(), 30), Buffered::Full);
    assert!(waiting.is_empty());
}

/// A history of up to four devices, each of which now and then learns all that another has.
fn history() -> impl Strategy<Value = Vec<Packet>> {
    vec((0usize..4, 0usize..4, any::<bool>()), 1..25).prop_map(|steps| {
        let mut replicas = vec![Replica::default(); 4];
        let mut packets = Vec::new();
        for (author, from, learns) in steps {
            if learns && author != from {
                let known: Vec<Packet> =
                    replicas[from].order.iter().map(|dot| replicas[from].packets[dot].clone()).collect();
                for packet in &known {
                    let admission = replicas[author].take(packet);
                    assert!(matches!(admission, Admission::Fold { .. } | Admission::Known), "{admission:?}");
                }
            }
            packets.push(replicas[author].make(author as u8 + 1, vec![]));
        }
        packets
    })
}

/// Folds all that is ready; every one must be admitted.
fn drain(replica: &mut Replica, waiting: &mut Waiting) {
    while let Some(packet) = waiting.ready(&replica.knowledge) {
        let admission = replica.take(&packet);
        assert!(matches!(admission, Admission::Fold { .. } | Admission::Known), "{admission:?}");
    }
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(200))]

    #[test]
    fn whatever_the_order_of_delivery_all_is_folded_once_after_its_causes(
        (packets, delivered) in history().prop_flat_map(|packets| {
            let twice: Vec<Packet> = packets.iter().chain(&packets).cloned().collect();
            (Just(packets), Just(twice).prop_shuffle())
        }),
        lost in vec(any::<bool>(), 50),
        limit in 1usize..60,
    ) {
        let mut replica = Replica::default();
        let mut waiting = Waiting::new(limit);
        for (packet, _) in delivered.iter().zip(&lost).filter(|(_, lost)| !**lost) {
            waiting.insert(packet.clone(), 1);
            drain(&mut replica, &mut waiting);
        }
        // What was lost is asked for; what nobody waits for is put in again, as a tip would tell.
        for _ in 0..=packets.len() {
            for (device, run) in waiting.missing(&replica.knowledge) {
                for packet in packets.iter().filter(|p| p.dot.device == device && run.contains(&p.dot.counter)) {
                    waiting.insert(packet.clone(), 1);
                }
                drain(&mut replica, &mut waiting);
            }
        }
        prop_assert_eq!(waiting.missing(&replica.knowledge), []);
        prop_assert!(waiting.is_empty());
        for packet in packets.iter().rev() {
            waiting.insert(packet.clone(), 1);
            drain(&mut replica, &mut waiting);
        }
        for packet in &packets {
            waiting.insert(packet.clone(), 1);
            drain(&mut replica, &mut waiting);
        }
        prop_assert!(waiting.is_empty());
        prop_assert_eq!(replica.order.len(), packets.len());
        let place: BTreeMap<Dot, usize> = replica.order.iter().enumerate().map(|(at, dot)| (*dot, at)).collect();
        prop_assert_eq!(place.len(), packets.len());
        for packet in &packets {
            for (device, learned) in packet.body.prerequisite.iter() {
                let cause = Dot { device: *device, counter: learned.counter };
                prop_assert!(place[&cause] < place[&packet.dot], "{} before {}", packet.dot, cause);
            }
        }
    }

    #[test]
    fn the_order_of_folding_is_the_same_for_any_order_of_arrival(
        (packets, shuffled) in history().prop_flat_map(|packets| (Just(packets.clone()), Just(packets).prop_shuffle())),
    ) {
        let fold = |packets: &[Packet]| {
            let (mut replica, mut waiting) = (Replica::default(), Waiting::new(1000));
            for packet in packets {
                waiting.insert(packet.clone(), 1);
            }
            drain(&mut replica, &mut waiting);
            replica.order
        };
        prop_assert_eq!(fold(&packets), fold(&shuffled));
    }

    #[test]
    fn a_member_that_names_what_it_has_not_seen_makes_no_two_replicas_fold_different_packets(
        (packets, one, other) in history()
            .prop_flat_map(|packets| {
                let names = (any::<prop::sample::Index>(), any::<prop::sample::Index>(), 0usize..5);
                (Just(packets), vec(names, 1..6))
            })
            .prop_map(|(mut packets, lies)| {
                for (of, named, kind) in lies {
                    let named = named.get(&packets).dot;
                    let at = of.index(packets.len());
                    packets[at].body.changes.push(naming(named).swap_remove(kind));
                }
                packets
            })
            .prop_flat_map(|packets| {
                let twice: Vec<Packet> = packets.iter().chain(&packets).cloned().collect();
                (Just(packets), Just(twice.clone()).prop_shuffle(), Just(twice).prop_shuffle())
            }),
    ) {
        // Every replica folds what it can of what comes, in whatever order, and goes over the rest until nothing moves.
        let fold = |delivered: &[Packet]| {
            let mut replica = Replica::default();
            loop {
                let before = replica.order.len();
                delivered.iter().for_each(|packet| drop(replica.take(packet)));
                if replica.order.len() == before {
                    break replica;
                }
            }
        };
        let (one, other) = (fold(&one), fold(&other));
        prop_assert_eq!(&one.knowledge, &other.knowledge);
        prop_assert!(one.packets == other.packets && one.ends == other.ends);
        for packet in &packets {
            let mut seen = other.ends.get(&packet.dot.device).cloned().unwrap_or_default().prerequisite;
            seen.advance(packet.dot.device, Learned { counter: packet.dot.counter - 1, hash: packet.previous });
            let known = |named: &Dot| seen.contains(named);
            prop_assert!(!one.packets.contains_key(&packet.dot) || packet.body.changes.iter().all(|c| c.named().all(known)));
        }
    }
}
