//! Telling of packs: a packet names each chunk of the packs that its author stored, and one packet holds only so many names.
//!
//! A pack of tiny chunks holds a hundred thousand and more. What a packet with changes cannot tell besides is told in
//! packets of their own before it.

use std::collections::HashSet;

use packetboat_core::content::PackIndex;
use packetboat_core::ids::ChunkId;
use packetboat_replica::index::Index;

use crate::Keys;
use crate::builder::{Draft, seal_own};
use crate::error::SyncError;
use crate::ports::Entropy;

/// Tells of packs in packets of their own, but for the last of them, which fit into one packet that says more; those come
/// back. Within the caller's transaction.
pub(crate) fn tell_all_but_the_last(
    index: &mut Index,
    keys: &Keys,
    now_ms: i64,
    packs: Vec<PackIndex>,
    entropy: &mut dyn Entropy,
) -> Result<Vec<PackIndex>, SyncError> {
    let mut shares = shares(packs);
    let last = shares.pop().unwrap_or_default();
    for packs in shares {
        seal_own(index, keys, now_ms, Draft { packs, ..Draft::default() }, entropy)?;
    }
    Ok(last)
}

/// Packs in their order, as many together as one packet may tell of.
fn shares(packs: Vec<PackIndex>) -> Vec<Vec<PackIndex>> {
    let (mut shares, mut share) = (Vec::new(), Vec::new());
    let mut chunks: HashSet<ChunkId> = HashSet::new();
    for pack in packs {
        // A packet names each chunk once: of two packs that hold the same one it tells in two.
        let repeats = pack.chunks.iter().any(|chunk| chunks.contains(&chunk.id));
        if repeats || (!share.is_empty() && chunks.len() + pack.chunks.len() > CHUNKS_TOLD_AT_ONCE) {
            shares.push(std::mem::take(&mut share));
            chunks.clear();
        }
        chunks.extend(pack.chunks.iter().map(|chunk| chunk.id));
        share.push(pack);
    }
    shares.push(share);
    shares
}

/// So many names of chunks are half of the largest packet; a pack that holds more is told of alone.
const CHUNKS_TOLD_AT_ONCE: usize = 200_000;

#[cfg(test)]
mod tests {
    use packetboat_core::content::PackedChunk;
    use packetboat_core::ids::PackId;

    use super::*;

    fn pack(number: u8, chunks: std::ops::Range<u32>) -> PackIndex {
        let chunk = |chunk: u32| {
            let mut id = [0; 32];
            id[..4].copy_from_slice(&chunk.to_le_bytes());
            PackedChunk { id: ChunkId(id), offset: 64 * chunk, sealed_len: 64 }
        };
        PackIndex { pack: PackId([number; 32]), epoch: 0, size: 1 << 24, chunks: chunks.map(chunk).collect() }
    }

    fn told(packs: Vec<PackIndex>) -> Vec<Vec<u8>> {
        let numbers = |share: Vec<PackIndex>| share.iter().map(|pack| pack.pack.0[0]).collect();
        shares(packs).into_iter().map(numbers).collect()
    }

    #[test]
    fn packs_of_few_chunks_are_told_of_together() {
        assert_eq!(told(vec![pack(1, 0..100), pack(2, 100..300)]), [vec![1, 2]]);
        assert_eq!(told(Vec::new()), [Vec::<u8>::new()]);
    }

    #[test]
    fn packs_of_many_tiny_chunks_are_told_of_apart() {
        let packs = vec![pack(1, 0..150_000), pack(2, 150_000..200_000), pack(3, 200_000..400_000)];
        assert_eq!(told(packs), [vec![1, 2], vec![3]]);
        assert_eq!(told(vec![pack(1, 0..250_000), pack(2, 250_000..250_001)]), [vec![1], vec![2]]);
    }

    #[test]
    fn two_packs_that_hold_the_same_chunk_are_told_of_apart() {
        assert_eq!(told(vec![pack(1, 0..10), pack(2, 9..20), pack(3, 20..30)]), [vec![1], vec![2, 3]]);
    }
}
