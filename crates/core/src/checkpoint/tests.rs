use std::collections::BTreeSet;

use proptest::collection::{btree_map, vec};
use proptest::prelude::*;

use super::*;
use crate::body::PacketBody;
use crate::change::Change;
use crate::ids::{Dot, VaultId};
use crate::keys::{DeviceKey, KeyRing, Nonce, PublicKey, RootKey};
use crate::packet::Packet;

fn ring() -> KeyRing {
    KeyRing::new(VaultId([7; 16]), RootKey([1; 32]))
}

fn key() -> DeviceKey {
    DeviceKey::from_seed(&[9; 32])
}

fn learned(counter: Counter) -> Learned {
    Learned { counter, hash: PacketHash([counter as u8; 32]) }
}

fn members() -> Members {
    let introduce = Change::Introduce { name: "laptop".into(), exchange_key: [3; 32], continues: None };
    let body = PacketBody {
        lamport: 1,
        time: 0,
        prerequisite: Knowledge::new(),
        needs: Vec::new(),
        packs: Vec::new(),
        inline: Vec::new(),
        changes: vec![introduce],
    };
    let dot = Dot { device: DeviceId([1; 32]), counter: 1 };
    let mut members = Members::new();
    members.fold(&Packet {
        dot,
        hash: PacketHash([1; 32]),
        previous: PacketHash([0; 32]),
        author: PublicKey([1; 32]),
        epoch: 0,
        body,
    });
    members
}

fn garbage() -> Garbage {
    let dot = Dot { device: DeviceId([2; 32]), counter: 3 };
    let changes = vec![Change::Condemn { packs: vec![PackId([6; 32])], history: Knowledge::new() }];
    let body = PacketBody {
        lamport: 4,
        time: 0,
        prerequisite: Knowledge::new(),
        needs: Vec::new(),
        packs: Vec::new(),
        inline: Vec::new(),
        changes,
    };
    let (hash, previous) = (PacketHash([1; 32]), PacketHash([0; 32]));
    let packet = Packet { dot, hash, previous, author: PublicKey([2; 32]), epoch: 0, body };
    let mut garbage = Garbage::new();
    garbage.fold(&packet, &Knowledge::new(), &BTreeSet::new());
    garbage
}

fn chunk(n: u8, pack: u8) -> SegmentChunk {
    let chunk = ChunkRef { id: ChunkId([n; 32]), len: 1000 + u32::from(n) };
    SegmentChunk { chunk, pack: PackId([pack; 32]), epoch: 0, offset: u32::from(n) * 2000, sealed_len: 900 }
}

fn root() -> CheckpointRoot {
    let mut knowledge = Knowledge::new();
    let mut lanes = BTreeMap::new();
    for (device, counter) in [(1u8, 8), (2, 5)] {
        knowledge.advance(DeviceId([device; 32]), learned(counter));
        let mut prerequisite = Knowledge::new();
        prerequisite.advance(DeviceId([1; 32]), learned(6 + u64::from(device)));
        lanes.insert(DeviceId([device; 32]), LaneEnd { lamport: 10 + counter, prerequisite });
    }
    let stamp = Stamp { lamport: 3, device: DeviceId([1; 32]), counter: 2, index: 1 };
    let segments = vec![
        SegmentRef { start: SegmentStart::Items(ItemId([1; 16])), chunks: vec![chunk(1, 1), chunk(2, 1)] },
        SegmentRef { start: SegmentStart::Items(ItemId([2; 16])), chunks: vec![chunk(3, 2)] },
        SegmentRef { start: SegmentStart::Moves(stamp), chunks: vec![chunk(4, 1)] },
        SegmentRef { start: SegmentStart::Packs(PackId([0; 32])), chunks: vec![chunk(5, 2)] },
    ];
    CheckpointRoot { number: 4, knowledge, lanes, members: members(), garbage: garbage(), segments }
}

fn sealed() -> SealedCheckpoint {
    SealedCheckpoint::seal(&key(), &ring(), Nonce([6; 24]), &root()).unwrap()
}

fn open(bytes: &[u8]) -> Result<CheckpointRoot, CheckpointError> {
    UnverifiedCheckpoint::parse(bytes.to_vec())?.verify(&key().device())?.open(&ring())
}

#[test]
fn a_root_round_trips() {
    let sealed = sealed();
    assert_eq!((sealed.number(), sealed.device()), (4, key().device()));
    let opened = open(sealed.bytes()).unwrap();
    assert_eq!(opened, root());
    assert_eq!(opened.lamport(), 18);
}

#[test]
fn the_format_stays_as_it_was() {
    assert_eq!(
        blake3::hash(sealed().bytes()).to_hex().as_str(),
        "e5c99effa52b7292c52a0e754fded05cc480d66f3a87ad6cc53152d3be355ff7"
    );
}

#[test]
fn a_flipped_byte_anywhere_is_refused() {
    let bytes = sealed().bytes().to_vec();
    for at in 0..bytes.len() {
        let mut flipped = bytes.clone();
        flipped[at] ^= 1;
        assert!(open(&flipped).is_err(), "byte {at}");
    }
}

#[test]
fn the_checkpoint_of_another_device_or_vault_is_refused() {
    let bytes = sealed().bytes().to_vec();
    let other = DeviceKey::from_seed(&[8; 32]).device();
    let refused = UnverifiedCheckpoint::parse(bytes.clone()).unwrap().verify(&other).unwrap_err();
    assert_eq!(refused, SignedError::OtherDevice { kind: "checkpoint" });
    let verified = UnverifiedCheckpoint::parse(bytes).unwrap().verify(&key().device()).unwrap();
    let other = KeyRing::new(VaultId([8; 16]), RootKey([1; 32]));
    assert!(matches!(verified.open(&other), Err(SignedError::OtherVault { .. })));
}

#[test]
fn a_checkpoint_is_no_tip() {
    let bytes = sealed().bytes().to_vec();
    assert_eq!(crate::tip::UnverifiedTip::parse(bytes), Err(SignedError::NotOne { kind: "tip" }));
}

#[test]
fn segments_in_another_order_are_refused() {
    let mut root = root();
    root.segments.swap(0, 1);
    assert_eq!(CheckpointRoot::decode(4, &root.encode()), Err(WireError::NotCanonical));
}

#[test]
fn a_segment_that_nobody_could_read_is_refused() {
    let mut root = root();
    root.segments[0].chunks.clear();
    assert!(CheckpointRoot::decode(4, &root.encode()).is_err());
    let big = ChunkRef { id: ChunkId([1; 32]), len: MAX_CHUNK_BYTES };
    root.segments[0].chunks = vec![SegmentChunk { chunk: big, ..chunk(1, 1) }; 17];
    assert!(CheckpointRoot::decode(4, &root.encode()).is_err());
}

#[test]
fn names_lead_to_checkpoints_and_back() {
    let found = CheckpointRef { device: key().device(), number: 12 };
    assert_eq!(CheckpointRef::from_name(&found.name()), Some(found));
    for bad in ["-0", "-012", "-", "", "-x", "-99999999999999999999"] {
        let name = ObjectName::new(format!("checkpoints/{}{bad}", found.device)).unwrap();
        assert_eq!(CheckpointRef::from_name(&name), None, "{bad}");
    }
}

proptest! {
    #[test]
    fn lanes_round_trip(
        known in btree_map(any::<[u8; 32]>(), (2u64..1000, any::<u64>()), 0..6),
        drawn in vec((any::<prop::sample::Index>(), any::<prop::sample::Index>(), 1u64..1000), 0..12),
    ) {
        let mut root = CheckpointRoot { segments: Vec::new(), knowledge: Knowledge::new(), lanes: BTreeMap::new(), ..root() };
        let devices: Vec<DeviceId> = known.keys().map(|device| DeviceId(*device)).collect();
        for (device, (counter, lamport)) in known {
            root.knowledge.advance(DeviceId(device), learned(counter));
            root.lanes.insert(DeviceId(device), LaneEnd { lamport, prerequisite: Knowledge::new() });
        }
        for (lane, other, counter) in drawn.into_iter().filter(|_| !devices.is_empty()) {
            let other = devices[other.index(devices.len())];
            let counter = counter.min(root.knowledge.counter(&other));
            let end = root.lanes.get_mut(&devices[lane.index(devices.len())]).unwrap();
            end.prerequisite.advance(other, learned(counter));
        }
        prop_assert_eq!(CheckpointRoot::decode(4, &root.encode()), Ok(root));
    }

    #[test]
    fn what_decodes_is_canonical(at: prop::sample::Index, flip: u8) {
        let mut bytes = root().encode();
        let at = at.index(bytes.len());
        bytes[at] ^= flip;
        if let Ok(root) = CheckpointRoot::decode(4, &bytes) {
            prop_assert_eq!(root.encode(), bytes);
        }
    }

    #[test]
    fn arbitrary_bytes_never_panic(bytes in vec(any::<u8>(), 0..300)) {
        let _ = (CheckpointRoot::decode(1, &bytes), open(&bytes));
    }
}
