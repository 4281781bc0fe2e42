//! What stays when packs go: a chunk that another holds as well, and the packs of checkpoints.

use packetboat_core::checkpoint::{CheckpointRoot, SealedCheckpoint, SegmentChunk, SegmentRef, SegmentStart};
use packetboat_core::content::{ChunkRef, PackIndex, PackedChunk};
use packetboat_core::garbage::Garbage;
use packetboat_core::ids::VaultId;
use packetboat_core::keys::{DeviceKey, KeyRing, Nonce, RootKey};
use packetboat_core::members::Members;

use super::*;
use crate::shown::Shown;

const GOING: PackId = PackId([1; 32]);
const OTHER: PackId = PackId([2; 32]);
const CHUNK: ChunkId = ChunkId([3; 32]);

fn both_hold_it(other: PackState) -> Index {
    let mut index = Index::in_memory().unwrap();
    for (pack, state) in [(GOING, PackState::Condemned), (OTHER, other)] {
        let chunks = vec![PackedChunk { id: CHUNK, offset: 26, sealed_len: 100 }];
        index.put_pack(&PackIndex { pack, epoch: 0, size: 200, chunks }, state).unwrap();
    }
    index
}

/// The pack in which the chunk stays; none where it would go.
fn stays_in(index: &Index, unknown: &[PackId]) -> Option<PackId> {
    match whether_it_stays(index, &[GOING].into(), &unknown.iter().copied().collect(), &CHUNK).unwrap() {
        Stays::In { staying } => Some(staying),
        Stays::Nowhere { going } => {
            assert_eq!(going, GOING);
            None
        }
        Stays::IsNotConcerned => panic!("it lies in a pack that goes"),
    }
}

#[test]
fn a_chunk_stays_in_another_sound_pack_of_which_others_know_and_in_no_other() {
    assert_eq!(stays_in(&both_hold_it(PackState::Stored), &[]), Some(OTHER));
    assert_eq!(stays_in(&both_hold_it(PackState::Stored), &[OTHER]), None, "others need not know of that one");
    for state in [PackState::Pending, PackState::Condemned, PackState::Damaged] {
        assert_eq!(stays_in(&both_hold_it(state), &[]), None, "{state:?}");
    }
}

#[test]
fn the_packs_of_a_checkpoint_that_a_tip_names_stay_though_a_stale_listing_does_not_show_it() {
    let ring = KeyRing::new(VaultId([4; 16]), RootKey([5; 32]));
    let keys = Keys { ring, device: DeviceKey::from_seed(&[6; 32]) };
    let segment =
        SegmentChunk { chunk: ChunkRef { id: CHUNK, len: 100 }, pack: GOING, epoch: 0, offset: 26, sealed_len: 100 };
    let root = CheckpointRoot {
        number: 1,
        knowledge: Knowledge::new(),
        lanes: BTreeMap::new(),
        members: Members::new(),
        garbage: Garbage::new(),
        segments: vec![SegmentRef { start: SegmentStart::Packs(GOING), chunks: vec![segment] }],
    };
    let (name, mut store) = (CheckpointRef { device: keys.device.device(), number: 1 }, Shown::default());
    let sealed = SealedCheckpoint::seal(&keys.device, &keys.ring, Nonce([7; 24]), &root).unwrap();
    store.put(&name.name(), sealed.bytes()).unwrap();
    let mut index = Index::in_memory().unwrap();
    let needed = |index: &Index, store: &Shown| packs_of_checkpoints(index, store, &keys).unwrap();
    assert_eq!(needed(&index, &store), BTreeSet::from([GOING]));
    store.unlisted.insert(name.name());
    assert_eq!(needed(&index, &store), BTreeSet::new());
    checkpoints::note_seen(&mut index, &BTreeSet::from([name])).unwrap();
    assert_eq!(needed(&index, &store), BTreeSet::from([GOING]));
}
