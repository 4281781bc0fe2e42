//! Where a chunk is left when packs go, on an index of two packs that hold the same one.

use packetboat_core::content::{PackIndex, PackedChunk};

use super::*;

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
