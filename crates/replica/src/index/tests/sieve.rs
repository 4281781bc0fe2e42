//! The sieve before the look-up of chunks: it may be wrong of what is new, never of what is stored.

use packetboat_core::content::{PackIndex, PackedChunk};
use packetboat_core::ids::PackId;

use super::*;
use crate::index::{PackState, Referable};

/// Ids that are spread as keyed hashes are.
fn chunk_id(n: u32) -> ChunkId {
    ChunkId(super::measure::scrambled(n.into()))
}

fn pack(n: u8, chunks: std::ops::Range<u32>) -> PackIndex {
    let chunks = chunks.enumerate().map(|(at, n)| PackedChunk {
        id: chunk_id(n),
        offset: 26 + at as u32 * 100,
        sealed_len: 100,
    });
    PackIndex { pack: PackId([n; 32]), epoch: 0, size: 1 << 20, chunks: chunks.collect() }
}

#[test]
fn a_sieve_holds_every_chunk_that_is_stored_and_few_others() {
    let place = tempfile::tempdir().unwrap();
    let mut index = Index::open(&place.path().join("index.db")).unwrap();
    index.begin().unwrap();
    index.put_pack(&pack(1, 0..5000), PackState::Stored).unwrap();
    index.put_pack(&pack(2, 5000..6000), PackState::Damaged).unwrap();
    for n in 6000..6100 {
        index.put_inline_chunk(&chunk_id(n), dot(1, 1)).unwrap();
    }
    index.commit().unwrap();
    let lookup = index.chunk_lookup(&Referable::All).unwrap();
    let mut sieve = lookup.sieve().unwrap();
    assert!((0..6100).all(|n| sieve.may_hold(&chunk_id(n))));
    let wrong = (10_000..20_000).filter(|n| sieve.may_hold(&chunk_id(*n))).count();
    assert!(wrong < 20, "{wrong} of 10000");
    let new = (10_000..20_000).map(chunk_id).find(|id| !sieve.may_hold(id)).unwrap();
    sieve.add(&new);
    assert!(sieve.may_hold(&new));
}

#[test]
fn a_sieve_made_later_holds_what_was_committed_before() {
    let place = tempfile::tempdir().unwrap();
    let mut index = Index::open(&place.path().join("index.db")).unwrap();
    let lookup = index.chunk_lookup(&Referable::All).unwrap();
    index.begin().unwrap();
    index.put_pack(&pack(1, 0..100), PackState::Pending).unwrap();
    assert!(!lookup.sieve().unwrap().may_hold(&chunk_id(7)), "it is not committed yet");
    index.commit().unwrap();
    assert!(lookup.sieve().unwrap().may_hold(&chunk_id(7)));
    assert!(lookup.is_stored(&chunk_id(7)));
}

#[test]
fn an_index_in_memory_has_no_sieve() {
    assert!(Index::in_memory().unwrap().chunk_lookup(&Referable::All).unwrap().sieve().is_none());
}
