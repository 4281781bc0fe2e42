//! On whom a newcomer builds, over records made by hand: who has folded what, and what is condemned.
//!
//! In all cases an author condemned a pack in packet 2 of its lane, and a newcomer that has not introduced itself has folded
//! that and the introduction of a device that did not know of it.

use packetboat_core::body::PacketBody;
use packetboat_core::change::Change;
use packetboat_core::garbage::Garbage;
use packetboat_core::ids::{Counter, Dot, PackId, PacketHash, VaultId};
use packetboat_core::keys::{PublicKey, RootKey};
use packetboat_core::knowledge::{Knowledge, Learned};
use packetboat_core::members::Members;
use packetboat_core::packet::Packet;

use super::*;

const OWN: DeviceId = DeviceId([1; 32]);
const AUTHOR: DeviceId = DeviceId([2; 32]);
const BETWEEN: DeviceId = DeviceId([3; 32]);
const ANOTHER: DeviceId = DeviceId([4; 32]);
const LATE: DeviceId = DeviceId([5; 32]);
const PACK: PackId = PackId([6; 32]);

/// What a newcomer has folded.
struct Folded {
    index: Index,
    record: Garbage,
    members: Members,
}

impl Folded {
    /// The author's condemnation, and the introduction of the device that did not know of it.
    fn new() -> Self {
        let (index, record, members) = (Index::in_memory().unwrap(), Garbage::new(), Members::new());
        let mut folded = Self { index, record, members };
        folded.condemn(AUTHOR, vec![PACK], Knowledge::new());
        folded.lane(AUTHOR, 2, &[]).lane(LATE, 1, &[])
    }

    fn condemn(&mut self, author: DeviceId, packs: Vec<PackId>, history: Knowledge) {
        let prerequisite = history.clone();
        let packet = packet(Dot { device: author, counter: 2 }, vec![Change::Condemn { packs, history }]);
        self.record.fold(&packet, &prerequisite, &BTreeSet::new());
    }

    /// A member of whose lane so much was folded, the last with these introductions in its prerequisite.
    fn lane(mut self, device: DeviceId, last: Counter, knows: &[DeviceId]) -> Self {
        let introduce = Change::Introduce { name: "a device".to_owned(), exchange_key: [0; 32], continues: None };
        self.members.fold(&packet(Dot { device, counter: 1 }, vec![introduce]));
        let mut prerequisite = known(knows);
        if last > 1 {
            prerequisite.advance(device, Learned { counter: last - 1, hash: PacketHash([9; 32]) });
        }
        let learned = Learned { counter: last, hash: PacketHash([9; 32]) };
        self.index.advance_lane(device, learned, last, &prerequisite).unwrap();
        self
    }

    /// On whom the newcomer finds that it must not build, where it looks now; by what it tells and by what it notes.
    fn found(&mut self) -> BTreeSet<DeviceId> {
        garbage::store(&mut self.index, &self.record).unwrap();
        crate::members::store(&mut self.index, &self.members).unwrap();
        let before = of(&self.index, OWN).unwrap();
        let is_more = find(&mut self.index, &KeyRing::new(VaultId([7; 16]), RootKey([8; 32])), OWN).unwrap();
        let after = of(&self.index, OWN).unwrap();
        assert_eq!(is_more, before != after);
        after
    }
}

/// Knowledge of the introductions of devices.
fn known(devices: &[DeviceId]) -> Knowledge {
    let mut known = Knowledge::new();
    for device in devices {
        known.advance(*device, Learned { counter: 1, hash: PacketHash([9; 32]) });
    }
    known
}

fn packet(dot: Dot, changes: Vec<Change>) -> Packet {
    let (prerequisite, needs, packs, inline) = (Knowledge::new(), Vec::new(), Vec::new(), Vec::new());
    let body = PacketBody { lamport: dot.counter, time: 0, prerequisite, needs, packs, inline, changes };
    let (hash, previous, author) = (PacketHash([9; 32]), PacketHash([0; 32]), PublicKey(dot.device.0));
    Packet { dot, hash, previous, author, epoch: 0, body }
}

fn nobody() -> BTreeSet<DeviceId> {
    BTreeSet::new()
}

#[test]
fn a_newcomer_does_not_build_on_a_device_that_joined_unaware_of_what_was_condemned() {
    let mut folded = Folded::new();
    assert_eq!(folded.found(), BTreeSet::from([LATE]));
    // It is told once; all is folded anew then.
    assert_eq!(folded.found(), BTreeSet::from([LATE]));
    forget(&mut folded.index).unwrap();
    assert_eq!(of(&folded.index, OWN).unwrap(), nobody());
}

#[test]
fn one_more_device_that_joined_unaware_is_found_beside_those_found_before() {
    let mut folded = Folded::new();
    folded.found();
    let mut folded = folded.lane(ANOTHER, 1, &[]);
    assert_eq!(folded.found(), BTreeSet::from([ANOTHER, LATE]));
}

#[test]
fn who_has_introduced_itself_refuses_such_a_device_like_any_other() {
    let mut folded = Folded::new();
    folded.found();
    let folded = folded.lane(OWN, 1, &[]);
    assert_eq!(of(&folded.index, OWN).unwrap(), nobody());
}

#[test]
fn a_device_that_joined_unaware_stays_where_the_author_knows_somebody_who_knows_it() {
    // The author itself.
    assert_eq!(Folded::new().lane(AUTHOR, 3, &[LATE]).found(), nobody());
    // Somebody whom it knows, at once or by another.
    assert_eq!(Folded::new().lane(AUTHOR, 3, &[BETWEEN]).lane(BETWEEN, 2, &[LATE]).found(), nobody());
    let by_another = Folded::new().lane(AUTHOR, 3, &[BETWEEN]).lane(BETWEEN, 2, &[ANOTHER]);
    assert_eq!(by_another.lane(ANOTHER, 2, &[AUTHOR, LATE]).found(), nobody());
}

#[test]
fn that_somebody_knows_it_whom_the_author_does_not_know_is_no_reason_to_build_on_it() {
    let mut folded = Folded::new();
    // Who knows it knew of the condemnation itself.
    let mut prerequisite = known(&[LATE]);
    prerequisite.advance(AUTHOR, Learned { counter: 2, hash: PacketHash([9; 32]) });
    folded = folded.lane(BETWEEN, 1, &[]);
    let last = Learned { counter: 2, hash: PacketHash([9; 32]) };
    folded.index.advance_lane(BETWEEN, last, 3, &prerequisite).unwrap();
    assert_eq!(folded.found(), BTreeSet::from([LATE]));
}

#[test]
fn a_condemnation_that_is_void_keeps_nobody_out() {
    let mut folded = Folded::new();
    let mut reference = packet(Dot { device: BETWEEN, counter: 2 }, Vec::new());
    reference.body.needs.push(PACK);
    folded.record.fold(&reference, &Knowledge::new(), &BTreeSet::new());
    assert_eq!(folded.found(), nobody());
}

#[test]
fn a_device_whose_introduction_was_let_go_was_known_to_all() {
    // History went with it, by the word of another; the condemnation is of one who is gone and never knew of either.
    let mut folded = Folded::new();
    folded.condemn(BETWEEN, Vec::new(), known(&[LATE]));
    folded.record.finish(&Dot { device: BETWEEN, counter: 2 });
    assert_eq!(folded.found(), nobody());
}
