//! What is noted of the checkpoint held and of packs to be told of, on indexes filled by hand.

use packetboat_core::checkpoint::{SegmentChunk, SegmentRef, SegmentStart};
use packetboat_core::content::ChunkRef;
use packetboat_core::garbage::Garbage;
use packetboat_core::ids::{ChunkId, Counter, PacketHash};
use packetboat_core::knowledge::Learned;
use packetboat_core::lane::LaneEnd;
use packetboat_core::members::Members;

use super::*;

const DEVICE: DeviceId = DeviceId([1; 32]);
const PACK: PackId = PackId([2; 32]);
const OTHER: PackId = PackId([3; 32]);

fn known(counter: Counter) -> Knowledge {
    let mut known = Knowledge::new();
    known.advance(DEVICE, Learned { counter, hash: PacketHash([4; 32]) });
    known
}

/// A checkpoint of so many packets with one segment, which lies in one pack.
fn checkpoint(number: u64, covers: Counter) -> (CheckpointRef, CheckpointRoot) {
    let chunk = ChunkRef { id: ChunkId([5; 32]), len: 100 };
    let chunk = SegmentChunk { chunk, pack: PACK, epoch: 0, offset: 26, sealed_len: 100 };
    let segment = SegmentRef { start: SegmentStart::Packs(PACK), chunks: vec![chunk] };
    let root = CheckpointRoot {
        number,
        knowledge: known(covers),
        lanes: BTreeMap::from([(DEVICE, LaneEnd::default())]),
        members: Members::new(),
        garbage: Garbage::new(),
        segments: vec![segment],
    };
    (CheckpointRef { device: DEVICE, number }, root)
}

/// An index that holds a checkpoint of two packets.
fn holding() -> Index {
    let mut index = Index::in_memory().unwrap();
    let (name, root) = checkpoint(1, 2);
    hold(&mut index, &name, &root, 0).unwrap();
    set_packed(&mut index, &known(2)).unwrap();
    index
}

#[track_caller]
fn assert_holds_none(index: &Index) {
    assert_eq!((newest(index).unwrap(), root(index).unwrap()), (None, None));
    assert_eq!(knowledge(index).unwrap(), Knowledge::new(), "nothing is covered");
    assert_eq!(packed(index).unwrap(), Knowledge::new(), "nor is inline content known to lie in packs");
    assert!(!lies_in(index, &BTreeSet::from([PACK])).unwrap());
}

#[test]
fn whoever_deletes_a_pack_knows_whether_the_checkpoint_held_lies_in_it() {
    let index = holding();
    assert!(lies_in(&index, &BTreeSet::from([OTHER, PACK])).unwrap());
    assert!(!lies_in(&index, &BTreeSet::from([OTHER])).unwrap());
    assert!(!lies_in(&index, &BTreeSet::new()).unwrap());
}

#[test]
fn the_next_checkpoint_shares_nothing_with_one_that_was_let_go_of() {
    let mut index = holding();
    let_go(&mut index).unwrap();
    assert_holds_none(&index);
}

#[test]
fn who_forgets_what_was_folded_holds_no_checkpoint_of_it() {
    let mut index = holding();
    forget(&mut index).unwrap();
    assert_holds_none(&index);
}

#[test]
fn a_checkpoint_from_before_history_begins_gives_way_to_one_that_contains_its_beginning() {
    let (name, _) = checkpoint(1, 2);
    for (begins, stays) in [(known(1), true), (known(2), true), (known(3), false)] {
        let (mut index, sound) = (holding(), checkpoint(7, 3));
        hold_at_least(&mut index, &begins, &sound, 0).unwrap();
        assert_eq!(newest(&index).unwrap(), Some(if stays { name } else { sound.0 }), "{begins:?}");
    }
}

#[test]
fn no_packet_tells_of_a_pack_that_is_condemned_damaged_or_gone() {
    let mut index = Index::in_memory().unwrap();
    add_untold(&mut index, &PACK).unwrap();
    assert_eq!(untold(&index).unwrap(), [], "it is gone");
    index.put_pack(&PackIndex { pack: PACK, epoch: 0, size: 100, chunks: Vec::new() }, PackState::Stored).unwrap();
    assert_eq!(untold(&index).unwrap(), [PACK]);
    for state in [PackState::Condemned, PackState::Damaged] {
        index.set_pack_state(&PACK, state).unwrap();
        assert_eq!(untold(&index).unwrap(), [], "{state:?}");
    }
}

#[test]
fn others_need_not_know_of_a_pack_that_only_a_checkpoint_named_or_that_is_still_to_be_told_of() {
    let mut index = Index::in_memory().unwrap();
    let pack = |pack| PackIndex { pack, epoch: 0, size: 100, chunks: Vec::new() };
    assert_eq!(not_known_to_others(&index).unwrap(), BTreeSet::new());
    index.put_pack(&pack(PACK), PackState::Stored).unwrap();
    add_untold(&mut index, &PACK).unwrap();
    assert_eq!(not_known_to_others(&index).unwrap(), BTreeSet::from([PACK]));
    add_named_by_checkpoint(&mut index, &[pack(OTHER)]).unwrap();
    assert_eq!(not_known_to_others(&index).unwrap(), BTreeSet::from([PACK, OTHER]));
    strike_out(&mut index, [PACK, OTHER].into_iter()).unwrap();
    assert_eq!(not_known_to_others(&index).unwrap(), BTreeSet::new());
}
