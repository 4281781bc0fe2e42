//! Tests of what a packet has room for.

use packetboat_core::ids::VaultId;
use packetboat_core::keys::{DeviceKey, KeyRing, RootKey};
use packetboat_replica::index::Referable;
use packetboat_storage::memory::MemoryStore;

use super::*;
use crate::past::tests::Counting;

#[test]
fn packs_of_hundreds_of_thousands_of_tiny_chunks_fit_into_packets() {
    // A million files of a hundred bytes each filled packs with 170,000 chunks. At the end of a round three such packs came
    // together into one packet, which was larger than any may be: the round failed, and so did each that was tried again.
    // What referred to the chunks waited in memory until a pack was stored: 800 MB of it.
    let ring = KeyRing::new(VaultId([7; 16]), RootKey([1; 32]));
    let keys = Keys { ring, device: DeviceKey::from_seed(&[9; 32]) };
    let (mut index, store, mut entropy) = (Index::temporary().unwrap(), MemoryStore::new(), Counting([3; 4], 0));
    let known = RoundChunks::new(index.chunk_lookup(&Referable::All).unwrap());
    let uploader = Uploader::inline(&store, &keys.ring);
    let mut builder = Builder::new(&mut index, uploader, &keys, 5, 0, &known).unwrap();
    let introduce = Change::Introduce { name: "first".to_owned(), exchange_key: [0; 32], continues: None };
    // What is released only at the end is released with all packs of the round at once.
    builder.queue.push_back(Pending { changes: vec![introduce], after: Vec::new(), needs_pack: 19 });
    for number in 0..600_000u32 {
        let id = ChunkId(*blake3::hash(&number.to_le_bytes()).as_bytes());
        let sealed = SealedChunk { id, len: 20, epoch: 0, sealed: vec![0; 60] };
        builder.pack_chunk(sealed, &mut entropy).unwrap();
    }
    let totals = builder.finish(&mut entropy).unwrap();
    assert_eq!((totals.packs, totals.changes), (19, 1));
    let own = keys.device.device();
    let told = (1..=index.knowledge().counter(&own)).map(|counter| {
        let packet = index.sealed_packet(Dot { device: own, counter }).unwrap().unwrap();
        let packs = packet.open(&keys.ring).unwrap().body.packs;
        packs.iter().map(|pack| pack.chunks.len()).inspect(|chunks| assert!(*chunks <= 32_768)).sum::<usize>()
    });
    assert_eq!(told.sum::<usize>(), 600_000, "each chunk is told of once");
}
