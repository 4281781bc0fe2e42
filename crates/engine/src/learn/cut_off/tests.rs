//! When a device without the key is told so: lanes at a storage made by hand, learned by one device that holds the first key.
//!
//! Each case says what this device had folded of a lane, what of it is listed and what can be read, and expects two things:
//! whether it is told that it follows no more, and what it asks the others for.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::atomic::Ordering;

use packetboat_core::body::PacketBody;
use packetboat_core::ids::{Counter, Dot, PacketHash, VaultId};
use packetboat_core::keys::{DeviceKey, KeyRing, Nonce, RootKey};
use packetboat_core::knowledge::{Knowledge, Learned as LearnedOf};
use packetboat_core::marker::{Argon2Cost, Marker, NewPassphrase, NewRecovery};
use packetboat_core::packet::SealedPacket;
use packetboat_core::recovery::RecoveryKey;
use packetboat_core::store::Store;
use packetboat_core::tip::{SealedTip, Tip};
use packetboat_core::wanted::Wanted;
use packetboat_replica::index::Index;

use crate::Keys;
use crate::error::SyncError;
use crate::learn::{Learned, OwnLane, learn, packet_name};
use crate::ports::Silent;
use crate::shown::Shown;
use crate::vault::marker_name;

/// The device of a case that holds the first key alone, and what lies at the storage.
struct Case {
    index: Index,
    store: Shown,
    keys: Keys,
}

/// Whether this device is told, and the packets that it asks for.
type Told = (bool, Vec<Dot>);

impl Case {
    /// A storage whose marker is sealed under the second key.
    fn new() -> Self {
        let case = Self::with_the_first_marker();
        let mut marker = first_marker();
        marker.begin_epoch(&both_keys(), Nonce([7; 24]), passphrase(), recovery(&RecoveryKey([8; 32]))).unwrap();
        case.store.put(&marker_name(), &marker.encode()).unwrap();
        case
    }

    fn with_the_first_marker() -> Self {
        let keys = Keys { ring: first_key(), device: device_key(OWN) };
        let case = Self { index: Index::in_memory().unwrap(), store: Shown::default(), keys };
        case.store.put(&marker_name(), &first_marker().encode()).unwrap();
        case
    }

    /// A device has a tip under the second key, and so much of its lane was folded here.
    fn tip(mut self, device: u8, folded: Counter) -> Self {
        let (learned, wanted, refused) = (Knowledge::new(), BTreeSet::new(), BTreeMap::new());
        let tip = Tip { sequence: 1, last: None, learned, checkpoint: None, wanted, refused, recent: Vec::new() };
        let key = device_key(device);
        let sealed = SealedTip::seal(&key, &both_keys(), Nonce([device; 24]), &tip).unwrap();
        self.store.put(&Tip::name(&key.device()), sealed.bytes()).unwrap();
        if folded > 0 {
            let (last, learned) = (LearnedOf { counter: folded, hash: hash(device) }, Knowledge::new());
            self.index.advance_lane(key.device(), last, folded, &learned).unwrap();
        }
        self
    }

    /// Packets of a device under the second key.
    fn locked(self, device: u8, counters: &[Counter]) -> Self {
        for counter in counters {
            self.put(&both_keys(), device, *counter, Knowledge::new());
        }
        self
    }

    /// A packet of a device under the first key, which builds on the first packet of another.
    fn waits(self, device: u8, counter: Counter, on: u8) -> Self {
        let mut prerequisite = Knowledge::new();
        prerequisite.advance(device_key(on).device(), LearnedOf { counter: 1, hash: hash(on) });
        self.put(&first_key(), device, counter, prerequisite);
        self
    }

    fn put(&self, ring: &KeyRing, device: u8, counter: Counter, prerequisite: Knowledge) {
        let key = device_key(device);
        let (needs, packs, inline, changes) = (Vec::new(), Vec::new(), Vec::new(), Vec::new());
        let body = PacketBody { lamport: 10 + counter, time: 0, prerequisite, needs, packs, inline, changes };
        let previous = if counter == 1 { PacketHash([0; 32]) } else { hash(device) };
        let sealed = SealedPacket::seal(&key, ring, counter, previous, Nonce([device; 24]), &body).unwrap();
        self.store.put(&packet_name(&sealed.dot()), sealed.bytes()).unwrap();
    }

    /// Packets are there and no listing shows them.
    fn unlisted(mut self, device: u8, counter: Counter) -> Self {
        self.store.unlisted.insert(packet_name(&dot(device, counter)));
        self
    }

    /// A packet is listed and cannot be read.
    fn lost(mut self, device: u8, counter: Counter) -> Self {
        self.store.lost.insert(packet_name(&dot(device, counter)));
        self
    }

    /// This device asked for a packet in an earlier round.
    fn asked_for(mut self, device: u8, counter: Counter) -> Self {
        crate::wants::set_own(&mut self.index, &BTreeSet::from([Wanted::Packet(dot(device, counter))])).unwrap();
        self
    }

    /// This device refused a lane in an earlier round, from that packet on.
    fn refused(mut self, device: u8, from: Counter) -> Self {
        let lanes = BTreeMap::from([(dot(device, from).device, from)]);
        crate::refusals::set_own(&mut self.index, lanes).unwrap();
        self
    }

    fn learn(&mut self) -> Result<Learned, SyncError> {
        learn(&mut self.index, &self.store, &mut self.keys, "here", &mut Silent)
    }

    fn told(mut self) -> Told {
        let learned = self.learn().unwrap();
        let packet = |wanted: &Wanted| match wanted {
            Wanted::Packet(dot) => *dot,
            other => panic!("only packets are read: {other:?}"),
        };
        (learned.is_cut_off, learned.damaged.iter().map(packet).collect())
    }
}

fn first_key() -> KeyRing {
    KeyRing::new(VaultId([1; 16]), RootKey([2; 32]))
}

fn both_keys() -> KeyRing {
    let mut ring = first_key();
    ring.add_epoch(1, RootKey([3; 32]));
    ring
}

fn first_marker() -> Marker {
    Marker::create(VaultId([1; 16]), 0, &RootKey([2; 32]), passphrase(), recovery(&RecoveryKey([6; 32])))
}

fn passphrase() -> NewPassphrase<'static> {
    NewPassphrase { passphrase: b"first", cost: Argon2Cost::MINIMUM, salt: [4; 16], nonce: Nonce([5; 24]) }
}

fn recovery(key: &RecoveryKey) -> NewRecovery<'_> {
    NewRecovery { key, nonce: Nonce([6; 24]) }
}

fn device_key(device: u8) -> DeviceKey {
    DeviceKey::from_seed(&[device; 32])
}

fn dot(device: u8, counter: Counter) -> Dot {
    Dot { device: device_key(device).device(), counter }
}

fn hash(device: u8) -> PacketHash {
    PacketHash([device; 32])
}

const OWN: u8 = 10;
const OTHER: u8 = 11;
const THIRD: u8 = 12;
const NOT_TOLD: Told = (false, Vec::new());
const IS_TOLD: Told = (true, Vec::new());

#[test]
fn who_has_no_key_is_told_where_the_packets_to_be_read_next_were_let_go() {
    assert_eq!(Case::new().tip(OTHER, 2).locked(OTHER, &[5, 6]).told(), IS_TOLD);
    assert_eq!(Case::new().tip(OTHER, 0).locked(OTHER, &[3]).told(), IS_TOLD);
    // One such lane is enough: no single packet of it is lost.
    let case = Case::new().tip(OTHER, 2).locked(OTHER, &[5]).tip(THIRD, 2);
    assert_eq!(case.told(), IS_TOLD);
}

#[test]
fn a_packet_that_no_listing_shows_yet_is_read_before_anybody_is_told() {
    let case = Case::new().tip(OTHER, 2).waits(OTHER, 3, THIRD).locked(OTHER, &[5]).unlisted(OTHER, 3);
    assert_eq!(case.locked(THIRD, &[1]).told(), NOT_TOLD);
}

#[test]
fn a_packet_that_goes_after_it_was_listed_tells_nobody_that_history_was_let_go() {
    assert_eq!(Case::new().tip(OTHER, 2).locked(OTHER, &[3]).lost(OTHER, 3).told(), NOT_TOLD);
    assert_eq!(Case::new().tip(OTHER, 0).locked(OTHER, &[1]).lost(OTHER, 1).told(), NOT_TOLD);
}

#[test]
fn who_has_no_key_is_told_where_no_lane_brings_one_any_more() {
    assert_eq!(Case::new().tip(OTHER, 2).locked(OTHER, &[3, 4]).told(), IS_TOLD);
    assert_eq!(Case::new().tip(OTHER, 0).told(), IS_TOLD, "none is left of a lane that was never read");
    // A lane that was read to its end looks the same as one whose next packets went.
    assert_eq!(Case::new().tip(OTHER, 2).told(), NOT_TOLD);
    assert_eq!(Case::new().tip(OTHER, 2).locked(OTHER, &[2]).told(), NOT_TOLD);
}

#[test]
fn nobody_is_told_while_one_lane_may_still_bring_the_key() {
    // Whichever of the two is looked at last.
    for (ends, goes_on) in [(OTHER, THIRD), (THIRD, OTHER)] {
        assert_eq!(Case::new().tip(ends, 2).locked(ends, &[3]).tip(goes_on, 2).told(), NOT_TOLD);
        assert_eq!(Case::new().tip(ends, 2).locked(ends, &[3]).tip(goes_on, 2).locked(goes_on, &[3]).told(), IS_TOLD);
    }
}

#[test]
fn a_packet_lost_amid_a_lane_is_asked_for_and_told_of_once_asking_was_in_vain() {
    let case = || Case::new().tip(OTHER, 2).locked(OTHER, &[1, 2, 4]);
    assert_eq!(case().told(), (false, vec![dot(OTHER, 3)]));
    assert_eq!(case().asked_for(OTHER, 3).told(), (true, vec![dot(OTHER, 3)]));
    assert_eq!(case().asked_for(OTHER, 4).told(), (false, vec![dot(OTHER, 3)]));
    // Nothing says that there is one where the lane ends.
    assert_eq!(Case::new().tip(OTHER, 2).locked(OTHER, &[1, 2]).asked_for(OTHER, 3).told(), NOT_TOLD);
}

#[test]
fn who_has_no_key_is_told_where_what_opens_is_refused() {
    // It waits for a packet of a lane that was refused before, which is there.
    let case = || Case::new().tip(OTHER, 2).waits(OTHER, 3, THIRD).locked(OTHER, &[4]).locked(THIRD, &[1]);
    assert_eq!(case().told(), NOT_TOLD);
    assert_eq!(case().refused(OTHER, 3).told(), IS_TOLD);
    assert_eq!(case().refused(OTHER, 4).told(), NOT_TOLD, "what is refused comes later in the lane");
    assert_eq!(case().refused(THIRD, 1).told(), NOT_TOLD, "nobody told of another lane");
}

#[test]
fn who_has_no_key_is_told_where_what_opens_waits_for_packets_that_are_gone() {
    let case = Case::new().tip(OTHER, 2).waits(OTHER, 3, THIRD);
    assert_eq!(case.told(), (true, vec![dot(THIRD, 1)]));
}

#[test]
fn who_can_read_all_tips_or_the_marker_is_not_told() {
    assert_eq!(Case::new().told(), NOT_TOLD, "nobody's tip is sealed under another key");
    let case = Case::with_the_first_marker().tip(OTHER, 2).locked(OTHER, &[5]);
    assert_eq!(case.told(), NOT_TOLD, "the marker gives what there is");
}

#[test]
fn a_device_whose_own_tip_is_under_a_key_it_never_had_is_behind_its_lane_and_not_left_out() {
    let mut case = Case::new().tip(OWN, 2).locked(OWN, &[5]);
    let learned = case.learn().unwrap();
    assert_eq!((learned.is_cut_off, learned.own), (false, OwnLane::Ahead));
}

#[test]
fn a_storage_that_fails_while_this_is_found_out_ends_the_round() {
    let case = || Case::new().tip(OTHER, 2).waits(OTHER, 3, THIRD).locked(THIRD, &[1]);
    let mut whole = case();
    whole.learn().unwrap();
    let requests = whole.store.requests.load(Ordering::Relaxed);
    for number in 1..=requests {
        let mut case = case();
        case.store.fails_at = number;
        let failed = matches!(case.learn(), Err(SyncError::Store(_)));
        assert!(failed, "request {number} of {requests}");
    }
}
