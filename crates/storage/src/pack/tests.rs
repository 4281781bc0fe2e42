//! Packs come back whole, and nothing that is not one is taken for one.

use packetboat_core::keys::RootKey;
use proptest::prelude::*;

use super::*;
use crate::chunk::seal_chunk;
use crate::counting::CountingStore;
use crate::memory::MemoryStore;
use crate::testing::{compressible, noise, nonce, ring};

fn sealed(ring: &KeyRing, plain: &[u8], number: u64) -> SealedChunk {
    seal_chunk(ring, &mut ChunkCodec::new(), plain, nonce(number)).unwrap()
}

/// A pack of `count` small chunks.
fn pack(ring: &KeyRing, count: u64) -> (PackIndex, Vec<u8>) {
    let mut writer = PackWriter::new(ring.vault(), ring.current());
    for number in 0..count {
        assert!(writer.push(&sealed(ring, &compressible(number, 50 + number as usize * 37), number)).unwrap());
    }
    writer.finish(ring, nonce(1 << 40)).unwrap()
}

/// A pack with this index text, sealed as a member of the vault could, and filler where chunks would be.
fn forged(ring: &KeyRing, index: &[u8], filler: usize) -> Vec<u8> {
    let head = header(ring.vault(), ring.current());
    let index_offset = (HEADER_BYTES + filler) as u32;
    let index_len = (BOX_OVERHEAD + index.len()) as u32;
    let span = Span { index_offset, index_len, size: padded_size(index_offset, index_len) };
    let mut bytes = head.to_vec();
    bytes.resize(index_offset as usize, 7);
    bytes.extend(ring.seal(Purpose::PackIndex, &span.context(&head), nonce(9), index));
    bytes.resize(span.size as usize - TRAILER_BYTES, 0);
    bytes.extend(span.trailer());
    bytes
}

#[test]
fn a_pack_explains_itself() {
    let ring = ring();
    let (index, bytes) = pack(&ring, 20);
    assert_eq!(read_index(&ring, &bytes).unwrap(), index);
    assert_eq!((index.size as usize, index.chunks.len()), (bytes.len(), 20));
    assert_eq!(padme(bytes.len() as u64), bytes.len() as u64);
    let verified = verify_pack(&ring, &index.pack, &bytes, Depth::Chunks).unwrap();
    assert_eq!(verified, Verified { index, damaged: vec![] });
}

/// Written once, by the first release that had this format; what it holds is told by the test.
const FIRST_PACK: &[u8] = include_bytes!("../../fixtures/pack-v1.bin");

#[test]
fn a_pack_of_the_first_format_opens_for_ever() {
    let ring = ring();
    let index = read_index(&ring, FIRST_PACK).unwrap();
    let mut codec = ChunkCodec::new();
    let plains = [b"raw".to_vec(), b"compressed ".repeat(20)];
    assert_eq!(index.chunks.len(), plains.len());
    for (chunk, plain) in index.chunks.iter().zip(plains) {
        let sealed = &FIRST_PACK[chunk.offset as usize..][..chunk.sealed_len as usize];
        assert_eq!(open_chunk_by_id(&ring, &mut codec, 0, &chunk.id, sealed), Ok(plain));
    }
    assert!(verify_pack(&ring, &index.pack, FIRST_PACK, Depth::Chunks).unwrap().damaged.is_empty());
}

#[test]
fn an_index_is_fetched_with_three_reads_of_a_listed_pack() {
    let (ring, store) = (ring(), CountingStore::new(MemoryStore::new()));
    let (index, bytes) = pack(&ring, 20);
    let name = object_name(&index.pack);
    store.put_new(&name, &bytes).unwrap();
    let before = store.traffic();
    assert_eq!(fetch_index(&store, &ring, &index.pack, index.size.into()).unwrap(), index);
    assert_eq!((store.traffic() - before).requests(), 3);
    assert!((store.traffic() - before).bytes_down < 1000);
    for size in [0, 12, 109, u64::from(index.size) - 1, u64::from(index.size) + 64, 1 << 40, u64::MAX] {
        assert!(fetch_index(&store, &ring, &index.pack, size).is_err(), "{size}");
    }
}

#[test]
fn a_pack_is_named_by_its_hash() {
    let (index, bytes) = pack(&ring(), 1);
    let digits = blake3::hash(&bytes).to_hex();
    let name = object_name(&index.pack);
    assert_eq!(name.as_str(), format!("packs/{}/{digits}", &digits[..2]));
    assert_eq!(pack_named(&name), Some(index.pack));
    for other in [format!("packs/00/{digits}"), format!("packs/{digits}"), "packs/3f/x".to_owned()] {
        assert_eq!(pack_named(&ObjectName::new(other).unwrap()), None);
    }
}

#[test]
fn a_flipped_byte_anywhere_is_detected_even_without_the_hash() {
    let ring = ring();
    let (index, bytes) = pack(&ring, 4);
    for at in 0..bytes.len() {
        let mut flipped = bytes.clone();
        flipped[at] ^= 1 << (at % 8);
        assert!(verify_pack(&ring, &index.pack, &flipped, Depth::Structure).is_err(), "byte {at}");
        let own = PackId(*blake3::hash(&flipped).as_bytes());
        match verify_pack(&ring, &own, &flipped, Depth::Chunks) {
            Ok(verified) => {
                // The chunk that the byte lies in is damaged, and no other.
                let [(chunk, ChunkError::Sealed(SealError::Forged))] = verified.damaged[..] else {
                    panic!("byte {at}: {:?}", verified.damaged);
                };
                assert!((chunk.offset..chunk.offset + chunk.sealed_len).contains(&(at as u32)));
                assert!(verify_pack(&ring, &index.pack, &flipped, Depth::Chunks).is_ok());
            }
            Err(_) => assert!(
                index
                    .chunks
                    .iter()
                    .all(|chunk| { !(chunk.offset..chunk.offset + chunk.sealed_len).contains(&(at as u32)) })
            ),
        }
    }
}

#[test]
fn a_pack_cut_short_or_lengthened_is_refused() {
    let ring = ring();
    let (_, bytes) = pack(&ring, 3);
    for len in 0..bytes.len() {
        assert!(read_index(&ring, &bytes[..len]).is_err(), "{len}");
    }
    for more in [1, 8, 4096] {
        assert!(read_index(&ring, &[&bytes[..], &vec![0; more]].concat()).is_err());
    }
}

#[test]
fn indexes_that_lie_are_refused() {
    let ring = ring();
    let entry = |id: u8, len: u64| (ChunkId([id; 32]), len);
    let check = |name: &str, filler: usize, entries: &[(ChunkId, u64)], more: &[u8], sound: bool| {
        let mut writer = Writer::new();
        writer.varint(entries.len() as u64);
        for (id, len) in entries {
            writer.raw(&id.0).varint(*len);
        }
        writer.raw(more);
        let bytes = forged(&ring, &writer.finish(), filler);
        assert_eq!(read_index(&ring, &bytes).is_ok(), sound, "{name}");
    };
    check("two chunks that fill the pack", 100, &[entry(1, 50), entry(2, 50)], b"", true);
    check("no chunks", 0, &[], b"", false);
    check("chunks that end before the index", 101, &[entry(1, 50), entry(2, 50)], b"", false);
    check("chunks that reach into the index", 99, &[entry(1, 50), entry(2, 50)], b"", false);
    check("lengths that overflow", 100, &[entry(1, 50), entry(2, u64::from(u32::MAX) - 49)], b"", false);
    check("a chunk too short to be one", 91, &[entry(1, 50), entry(2, 41)], b"", false);
    check("a chunk too long to be one", 4194346, &[entry(1, 4194346)], b"", false);
    check("the same chunk twice", 100, &[entry(1, 50), entry(1, 50)], b"", false);
    check("bytes after the last entry", 50, &[entry(1, 50)], b"x", false);
    assert!(read_index(&ring, &forged(&ring, &[0xff, 0xff, 0xff, 0xff, 0x0f], 100)).is_err());
}

#[test]
fn a_pack_of_another_vault_version_or_epoch_is_told_apart() {
    let ring = ring();
    let (_, bytes) = pack(&ring, 1);
    let other = KeyRing::new(VaultId([8; 16]), RootKey([1; 32]));
    assert!(matches!(read_index(&other, &bytes), Err(PackError::OtherVault)));
    let stranger = KeyRing::new(ring.vault(), RootKey([2; 32]));
    assert!(matches!(read_index(&stranger, &bytes), Err(PackError::Sealed(SealError::Forged))));
    let mut newer = bytes.clone();
    newer[4] = 2;
    assert!(matches!(read_index(&ring, &newer), Err(PackError::Version { version: 2 })));
    let mut later = bytes.clone();
    later[22] = 9;
    let unknown = read_index(&ring, &later);
    assert!(matches!(unknown, Err(PackError::Sealed(SealError::UnknownEpoch { epoch: 9 }))), "{unknown:?}");
}

#[test]
fn a_pack_of_an_earlier_epoch_opens_in_a_later_one() {
    let mut ring = ring();
    let (index, bytes) = pack(&ring, 3);
    ring.add_epoch(1, RootKey([2; 32]));
    assert!(verify_pack(&ring, &index.pack, &bytes, Depth::Chunks).unwrap().damaged.is_empty());
    let mut writer = PackWriter::new(ring.vault(), 0);
    let late = sealed(&ring, b"late", 1);
    assert_eq!(writer.push(&late), Err(PackWriteError::OtherEpoch { pack: 0, other: 1 }));
    let early = SealedChunk { epoch: 0, ..late };
    writer.push(&early).unwrap();
    assert_eq!(writer.finish(&ring, nonce(0)).unwrap_err(), PackWriteError::OtherEpoch { pack: 0, other: 1 });
}

#[test]
fn a_chunk_is_packed_once_and_an_empty_pack_is_not_written() {
    let ring = ring();
    let mut writer = PackWriter::new(ring.vault(), 0);
    assert!(writer.is_empty());
    let chunk = sealed(&ring, b"x", 1);
    assert!(writer.push(&chunk).unwrap() && !writer.push(&chunk).unwrap());
    assert!(writer.count() == 1 && writer.contains(&chunk.id));
    let torn = SealedChunk { id: ChunkId([0; 32]), sealed: vec![0; 41], ..chunk };
    assert_eq!(writer.push(&torn), Err(PackWriteError::NoChunk));
    assert_eq!(PackWriter::new(ring.vault(), 0).finish(&ring, nonce(0)).unwrap_err(), PackWriteError::Empty);
}

#[test]
fn packs_grow_to_their_target_and_never_over_the_limit() {
    let ring = ring();
    for plain_len in [1usize << 20, 4 << 20] {
        let plain = noise(1, plain_len);
        let model = sealed(&ring, &plain, 0);
        let mut writer = PackWriter::new(ring.vault(), 0);
        let mut number = 0u8;
        while !writer.is_full() {
            number += 1;
            writer.push(&SealedChunk { id: ChunkId([number; 32]), ..model.clone() }).unwrap();
        }
        // One that ignores is_full is stopped before the limit.
        let full = writer.count();
        let refused = loop {
            number += 1;
            if let Err(error) = writer.push(&SealedChunk { id: ChunkId([number; 32]), ..model.clone() }) {
                break error;
            }
        };
        assert_eq!(refused, PackWriteError::Full);
        assert!(writer.count() >= full);
        let (index, bytes) = writer.finish(&ring, nonce(1)).unwrap();
        assert!(bytes.len() > TARGET_PACK_BYTES as usize && bytes.len() <= MAX_PACK_BYTES as usize);
        assert_eq!(read_index(&ring, &bytes).unwrap(), index);
    }
}

#[test]
fn many_tiny_chunks_fill_a_pack_by_their_index() {
    let ring = ring();
    let model = sealed(&ring, b"x", 0);
    let mut writer = PackWriter::new(ring.vault(), 0);
    let mut number = 0u32;
    while !writer.is_full() {
        number += 1;
        let id = ChunkId(*blake3::hash(&number.to_le_bytes()).as_bytes());
        writer.push(&SealedChunk { id, ..model.clone() }).unwrap();
    }
    let (index, bytes) = writer.finish(&ring, nonce(1)).unwrap();
    assert!(bytes.len() <= MAX_PACK_BYTES as usize);
    assert_eq!(read_index(&ring, &bytes).unwrap(), index);
}

#[test]
fn padme_sizes_are_few_and_near() {
    for (len, padded) in
        [(0, 0), (1, 1), (2, 2), (9, 10), (1000, 1024), (24 << 20, 24 << 20), ((24 << 20) + 1, 25690112)]
    {
        assert_eq!(padme(len), padded, "{len}");
    }
    assert_eq!(padme(u64::from(MAX_PACK_BYTES)), u64::from(MAX_PACK_BYTES));
    let mut sizes: Vec<u64> = (1..100_000).map(padme).collect();
    assert!(
        sizes
            .iter()
            .zip(1..)
            .all(|(padded, len)| *padded >= len && *padded - len <= len / 8 && padme(*padded) == *padded)
    );
    sizes.dedup();
    assert!(sizes.len() < 400, "{}", sizes.len());
}

proptest! {
    #[test]
    fn any_chunks_come_back(plains in prop::collection::btree_set(prop::collection::vec(any::<u8>(), 1..400), 1..20)) {
        let ring = ring();
        let mut codec = ChunkCodec::new();
        let mut writer = PackWriter::new(ring.vault(), 0);
        for (number, plain) in plains.iter().enumerate() {
            writer.push(&seal_chunk(&ring, &mut codec, plain, nonce(number as u64)).unwrap()).unwrap();
        }
        let limit = writer.len() as u64;
        let (index, bytes) = writer.finish(&ring, nonce(1 << 40)).unwrap();
        prop_assert!(bytes.len() as u64 <= padme(limit));
        prop_assert_eq!(&read_index(&ring, &bytes).unwrap(), &index);
        for (chunk, plain) in index.chunks.iter().zip(&plains) {
            let sealed = &bytes[chunk.offset as usize..(chunk.offset + chunk.sealed_len) as usize];
            prop_assert_eq!(&open_chunk_by_id(&ring, &mut codec, 0, &chunk.id, sealed).unwrap(), plain);
        }
    }

    #[test]
    fn arbitrary_bytes_never_panic(mut bytes in prop::collection::vec(any::<u8>(), 0..400), offset in 0u32..400, len in 0u32..400) {
        let ring = ring();
        prop_assert!(read_index(&ring, &bytes).is_err());
        // With a sound frame around them, the decoder is reached further in.
        if bytes.len() >= HEADER_BYTES + TRAILER_BYTES {
            bytes[..HEADER_BYTES].copy_from_slice(&header(ring.vault(), 0));
            let end = bytes.len() - TRAILER_BYTES;
            bytes[end..].copy_from_slice(&Span { index_offset: offset, index_len: len, size: 0 }.trailer());
            prop_assert!(read_index(&ring, &bytes).is_err());
        }
    }

    #[test]
    fn arbitrary_indexes_never_panic(index in prop::collection::vec(any::<u8>(), 0..200), filler in 0usize..200) {
        let ring = ring();
        if let Ok(read) = read_index(&ring, &forged(&ring, &index, filler)) {
            prop_assert_eq!(encode_index(&read.chunks), index);
        }
    }
}

#[test]
fn parts_written_elsewhere_make_the_pack_that_a_writer_makes() {
    let ring = ring();
    let (index, bytes) = pack(&ring, 20);
    let mut parts = PackParts::default();
    assert!(parts.is_empty());
    for number in 0..20 {
        parts.push(sealed(&ring, &compressible(number, 50 + number as usize * 37), number));
    }
    // What another pack left in the memory is gone.
    assert_eq!(parts.write(&ring, nonce(1 << 40), vec![0xee; 100_000]).unwrap(), (index, bytes));
}

#[test]
fn parts_are_full_when_a_writer_would_be() {
    let ring = ring();
    let (mut parts, mut writer) = (PackParts::default(), PackWriter::new(ring.vault(), ring.current()));
    let mut number = 0;
    while !writer.is_full() {
        assert!(!parts.is_full(), "after {number} chunks");
        let chunk = sealed(&ring, &noise(number, 700_000), number);
        assert!(writer.push(&chunk).unwrap());
        parts.push(chunk);
        number += 1;
    }
    assert!(parts.is_full());
    let (index, bytes) = parts.write(&ring, nonce(1 << 40), Vec::new()).unwrap();
    assert!(bytes.len() <= MAX_PACK_BYTES as usize);
    assert_eq!(index.chunks.len(), number as usize);
}
