//! Packets as bytes: every body comes back as it was, each has one encoding, and what is not a packet is refused.

mod arbitrary;

use proptest::prelude::*;

use self::arbitrary::{AUTHOR_SEED, any_body};
use super::*;
use crate::body::MAX_ELEMENTS;
use crate::change::{Change, MAX_TRAIL, Removed};
use crate::content::{ChunkList, ChunkRef, Content, FileContent, MAX_INLINE_CHUNKS, PackIndex, PackedChunk};
use crate::ids::{ChunkId, ContentId, ItemId, PackId};
use crate::keys::{KeyId, RootKey};
use crate::knowledge::Knowledge;
use crate::name::Name;
use crate::wire::Writer;

const NONCE: Nonce = Nonce([5; 24]);

fn key() -> DeviceKey {
    DeviceKey::from_seed(&AUTHOR_SEED)
}

fn author() -> DeviceId {
    key().device()
}

fn ring() -> KeyRing {
    KeyRing::new(VaultId([7; 16]), RootKey([1; 32]))
}

fn body(changes: Vec<Change>) -> PacketBody {
    PacketBody {
        lamport: 1,
        time: 1_790_000_000_000,
        prerequisite: Knowledge::new(),
        needs: Vec::new(),
        packs: Vec::new(),
        inline: Vec::new(),
        changes,
    }
}

fn first(body: &PacketBody) -> SealedPacket {
    SealedPacket::seal(&key(), &ring(), 1, PacketHash([0; 32]), NONCE, body).unwrap()
}

/// Seals what is not the encoding of any body, as a faulty or hostile member could.
fn seal_raw(compressed: &[u8]) -> SealedPacket {
    let ring = ring();
    let previous = PacketHash([0; 32]);
    let header = Header { vault: ring.vault(), author: key().public(), counter: 1, epoch: 0, previous };
    let mut bytes = header.encode();
    bytes.extend_from_slice(&ring.seal(Purpose::Packet, &header.encode(), NONCE, compressed));
    let hash = blake3::derive_key(HASH_CONTEXT, &bytes);
    bytes.extend_from_slice(&key().sign(&hash));
    SealedPacket::from_bytes(bytes).unwrap()
}

/// Whatever decodes is what the encoder would have written.
fn check_canonical(bytes: &[u8]) -> Result<(), TestCaseError> {
    if let Ok(body) = PacketBody::decode(bytes, author()) {
        prop_assert_eq!(body.encode(author()), bytes);
    }
    Ok(())
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(256))]

    #[test]
    fn a_body_comes_back_as_it_was(body in any_body()) {
        let bytes = body.encode(author());
        prop_assert_eq!(PacketBody::decode(&bytes, author()), Ok(body));
    }

    #[test]
    fn a_changed_encoding_is_refused_or_is_the_only_one_of_another_body(
        body in any_body(),
        edits in proptest::collection::vec((any::<proptest::sample::Index>(), 0..4u8, any::<u8>()), 1..4),
    ) {
        let sound = body.encode(author());
        let mut bytes = sound;
        for (at, kind, value) in edits {
            let at = at.index(bytes.len());
            match kind {
                0 => bytes[at] = value,
                1 => bytes.insert(at, value % 4),
                2 => drop(bytes.remove(at)),
                _ => bytes.truncate(at + 1),
            }
            check_canonical(&bytes)?;
        }
    }

    #[test]
    fn arbitrary_bytes_are_refused_or_canonical(bytes in proptest::collection::vec(prop_oneof![0..4u8, any::<u8>()], 0..200)) {
        check_canonical(&bytes)?;
        let _ = UnverifiedPacket::parse(bytes);
    }

    #[test]
    fn arbitrary_changes_are_refused_or_canonical(changes in proptest::collection::vec(prop_oneof![4 => 0..8u8, 1 => any::<u8>()], 0..60)) {
        // Lamport time and clock, then no prerequisite, needs, packs, inline or known chunks.
        check_canonical(&[&[1, 0, 0, 0, 0, 0, 0][..], &changes].concat())?;
    }

    #[test]
    fn every_prefix_of_an_encoding_is_refused(body in any_body(), cut in any::<proptest::sample::Index>()) {
        let bytes = body.encode(author());
        prop_assert!(PacketBody::decode(&bytes[..cut.index(bytes.len())], author()).is_err());
    }
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(32))]

    #[test]
    fn a_byte_changed_anywhere_is_refused_or_leaves_the_only_encoding_of_another_body(body in any_body()) {
        let sound = body.encode(author());
        // A little up and down: counts, tags and table indices are small numbers.
        for at in 0..sound.len().min(600) {
            for value in [sound[at].wrapping_add(1), sound[at].wrapping_sub(1), 0, 0x80] {
                let mut bytes = sound.clone();
                bytes[at] = value;
                check_canonical(&bytes)?;
            }
        }
    }

    #[test]
    fn a_packet_comes_back_as_it_was(body in any_body()) {
        let sealed = first(&body);
        let again = SealedPacket::from_bytes(sealed.bytes().to_vec()).unwrap();
        prop_assert_eq!(&again, &sealed);
        let packet = again.open(&ring()).unwrap();
        prop_assert_eq!(packet.dot, Dot { device: author(), counter: 1 });
        prop_assert_eq!(packet.hash, sealed.hash());
        prop_assert_eq!(packet.body, body);
    }
}

#[test]
fn a_flipped_bit_anywhere_is_refused() {
    let sealed = first(&body(vec![Change::Mode { item: ItemId([9; 16]), mode: 0o644 }]));
    for at in 0..sealed.bytes().len() {
        for bit in [0, 3, 7] {
            let mut bytes = sealed.bytes().to_vec();
            bytes[at] ^= 1 << bit;
            assert!(SealedPacket::from_bytes(bytes).is_err(), "byte {at} bit {bit}");
        }
    }
}

#[test]
fn a_packet_cut_anywhere_or_with_more_after_it_is_refused() {
    let sealed = first(&body(Vec::new()));
    for len in 0..sealed.bytes().len() {
        assert!(SealedPacket::from_bytes(sealed.bytes()[..len].to_vec()).is_err(), "{len} bytes");
    }
    let longer = [sealed.bytes(), &[0]].concat();
    assert!(matches!(SealedPacket::from_bytes(longer), Err(PacketError::Seal(SealError::BadSignature))));
}

#[test]
fn headers_that_no_lane_can_hold_are_refused() {
    let sound = first(&body(Vec::new())).bytes().to_vec();
    let with = |at: usize, bytes: &[u8]| {
        let mut changed = sound.clone();
        changed[at..at + bytes.len()].copy_from_slice(bytes);
        UnverifiedPacket::parse(changed).map(|_| ()).unwrap_err()
    };
    assert_eq!(with(0, b"X"), PacketError::NotAPacket);
    assert_eq!(with(4, &[2, 0]), PacketError::NewerFormat { version: 2 });
    assert_eq!(with(4, &[0, 0]), PacketError::NotAPacket, "no version 0 ever was");
    assert_eq!(with(54, &[0; 8]), PacketError::NotAPacket, "counter 0");
    assert_eq!(with(54, &[2]), PacketError::NotAPacket, "a second packet without a predecessor");
    assert_eq!(with(66, &[1]), PacketError::NotAPacket, "a first packet with a predecessor");
    let huge = vec![0; MAX_PACKET_BYTES + 1];
    assert_eq!(UnverifiedPacket::parse(huge).map(|_| ()), Err(PacketError::TooLarge));
}

#[test]
fn a_packet_opens_only_with_its_vault_and_epoch() {
    let sealed = first(&body(Vec::new()));
    let other = KeyRing::new(VaultId([8; 16]), RootKey([1; 32]));
    assert_eq!(sealed.open(&other), Err(PacketError::OtherVault { vault: VaultId([7; 16]) }));
    let stranger = KeyRing::new(VaultId([7; 16]), RootKey([2; 32]));
    assert_eq!(sealed.open(&stranger), Err(PacketError::Seal(SealError::Forged)));
    let mut later = ring();
    later.add_epoch(1, RootKey([3; 32]));
    assert!(sealed.open(&later).is_ok());
    let sealed = SealedPacket::seal(&key(), &later, 1, PacketHash([0; 32]), NONCE, &body(Vec::new())).unwrap();
    assert_eq!(sealed.open(&ring()), Err(PacketError::Seal(SealError::UnknownEpoch { epoch: 1 })));
    assert!(sealed.open(&later).is_ok());
}

#[test]
fn a_body_that_another_device_wrote_cannot_be_passed_off() {
    // Bound by the header: the same box under another author's header and signature does not open.
    let sealed = first(&body(Vec::new()));
    let thief = DeviceKey::from_seed(&[77; 32]);
    let mut bytes = sealed.bytes()[..sealed.bytes().len() - SIGNATURE_BYTES].to_vec();
    bytes[22..54].copy_from_slice(&thief.public().0);
    let hash = blake3::derive_key(HASH_CONTEXT, &bytes);
    bytes.extend_from_slice(&thief.sign(&hash));
    let stolen = SealedPacket::from_bytes(bytes).unwrap();
    assert_eq!(stolen.open(&ring()), Err(PacketError::Seal(SealError::Forged)));
}

#[test]
fn a_body_that_expands_beyond_its_limit_is_refused() {
    let bomb = zstd::bulk::compress(&vec![0; MAX_BODY_BYTES + 1], 19).unwrap();
    assert!(bomb.len() < 10_000);
    let refused = PacketError::Body { source: WireError::Invalid { what: "compressed body" } };
    assert_eq!(seal_raw(&bomb).open(&ring()), Err(refused.clone()));
    // Many frames that are each small enough count together.
    let frame = zstd::bulk::compress(&vec![0; MAX_BODY_BYTES / 4], 19).unwrap();
    assert_eq!(seal_raw(&frame.repeat(5)).open(&ring()), Err(refused.clone()));
    assert_eq!(seal_raw(b"no zstd at all").open(&ring()), Err(refused));
}

#[test]
fn a_body_in_which_anything_follows_is_refused() {
    let mut bytes = body(Vec::new()).encode(author());
    bytes.push(0);
    let sealed = seal_raw(&zstd::bulk::compress(&bytes, 3).unwrap());
    assert_eq!(sealed.open(&ring()), Err(PacketError::Body { source: WireError::Trailing { count: 1 } }));
}

#[test]
fn a_file_that_lists_more_chunks_than_a_version_may_is_refused() {
    // Two bytes of a packet stand for a reference of 36 in memory, so the list has a limit of its own.
    let chunk = ChunkRef { id: ChunkId([1; 32]), len: 1 };
    let with = |count: usize| {
        let chunks = ChunkList::Inline(vec![chunk; count]);
        let file = FileContent { id: ContentId([2; 32]), size: count as u64, mtime: 0, chunks };
        let item = ItemId([9; 16]);
        let content = Content::File(file);
        let bytes =
            body(vec![Change::Content { item, content, replaces: Vec::new(), trail: Vec::new() }]).encode(author());
        PacketBody::decode(&bytes, author())
    };
    assert!(with(MAX_INLINE_CHUNKS).is_ok());
    assert_eq!(with(MAX_INLINE_CHUNKS + 1), Err(WireError::Invalid { what: "chunk list" }));
}

#[test]
fn a_small_packet_that_would_unfold_into_very_much_is_refused() {
    // Each change takes three bytes and some two hundred in memory; all compress to next to nothing.
    let item = |n: u32| ItemId([1; 16]).successor(n);
    let modes = (1..=MAX_CHANGES as u32 + 1).map(|n| Change::Mode { item: item(n), mode: 0 }).collect();
    let refused = |changes: Vec<Change>| PacketBody::decode(&body(changes).encode(author()), author()).err();
    assert_eq!(refused(modes), Some(WireError::Invalid { what: "number of changes" }));
    // Versions by the dozen, within few changes.
    let removed = |n: u32| Removed {
        item: item(n),
        heads: (1..=MAX_ELEMENTS as u64 / 4).map(|counter| Dot { device: author(), counter }).collect(),
        placements: Vec::new(),
    };
    let delete = vec![Change::Delete { removed: (1..=4).map(removed).collect() }];
    assert_eq!(refused(delete), Some(WireError::Invalid { what: "number of elements" }));
}

#[expect(clippy::disallowed_methods, reason = "it measures that decoding is quick")]
#[test]
fn a_revocation_for_very_many_devices_is_read_in_linear_time() {
    // Each new device is compared with those before it; the ids compress well enough to fit a packet.
    let key_for = |n: u32| {
        let mut id = [0; 32];
        id[28..].copy_from_slice(&n.to_be_bytes());
        (DeviceId(id), Vec::new())
    };
    let keys = (1..50_000).map(key_for).collect();
    let changes = vec![Change::Revoke { device: DeviceId([3; 32]), cut: 1, epoch: 1, key: KeyId([1; 32]), keys }];
    let bytes = body(changes).encode(author());
    let before = std::time::Instant::now();
    assert!(PacketBody::decode(&bytes, author()).is_ok());
    assert!(before.elapsed() < std::time::Duration::from_secs(3));
}

/// 100,000 new files of one chunk each, in directories of 100, and the packs of 1000 chunks that hold them.
fn first_upload() -> PacketBody {
    let (directories, files) = (1000u32, 100u32);
    let batch = ItemId(blake3::hash(b"batch").as_bytes()[..16].try_into().unwrap());
    let chunk = |n: u32| ChunkId(*blake3::hash(&n.to_le_bytes()).as_bytes());
    let len = |n: u32| 20_000 + n.wrapping_mul(2_654_435_761) % 30_000;
    let mut changes = Vec::new();
    let mut items = 0;
    let mut next = || {
        items += 1;
        batch.successor(items)
    };
    for directory in 0..directories {
        let parent = next();
        changes.push(Change::Create {
            item: parent,
            parent: ItemId::ROOT,
            name: Name::new(format!("directory{directory:03}").into_bytes()).unwrap(),
            content: Content::Directory,
            mode: Some(0o755),
            xattrs: Vec::new(),
        });
        for file in 0..files {
            let n = directory * files + file;
            let id = chunk(n);
            let chunks = ChunkList::Inline(vec![ChunkRef { id, len: len(n) }]);
            // Files of one directory were written within minutes, to the nanosecond.
            let mtime = 1_700_000_000_000_000_000
                + i64::from(directory) * 86_400_000_000_000
                + i64::from(n.wrapping_mul(2_246_822_519)) * 50;
            changes.push(Change::Create {
                item: next(),
                parent,
                name: Name::new(format!("photo{n:06}x").into_bytes()).unwrap(),
                content: Content::File(FileContent { id: ContentId(id.0), size: len(n).into(), mtime, chunks }),
                mode: Some(0o644),
                xattrs: Vec::new(),
            });
        }
    }
    let packs = (0..100u32)
        .map(|pack| {
            let mut offset = 0;
            let chunks = (pack * 1000..(pack + 1) * 1000)
                .map(|n| {
                    let sealed_len = len(n) / 2 + 40;
                    let packed = PackedChunk { id: chunk(n), offset, sealed_len };
                    offset += sealed_len;
                    packed
                })
                .collect();
            PackIndex { pack: PackId([pack as u8; 32]), epoch: 0, size: offset + 100, chunks }
        })
        .collect();
    PacketBody { packs, ..body(changes) }
}

#[test]
fn a_new_small_file_costs_at_most_fifty_bytes_of_a_packet() {
    let body = first_upload();
    let plain = body.encode(author());
    let sealed = first(&body);
    // 69 and 43 bytes when this was written; 32 of each are the chunk's id.
    assert!(plain.len() <= 75 * 100_000, "{} bytes", plain.len());
    assert!(sealed.bytes().len() <= 50 * 100_000, "{} bytes", sealed.bytes().len());
    assert_eq!(sealed.open(&ring()).unwrap().body, body);
}

#[test]
fn a_renamed_directory_costs_less_than_four_hundred_bytes() {
    let stranger = DeviceId(*blake3::hash(b"stranger").as_bytes());
    let id = |text: &str| ItemId(blake3::hash(text.as_bytes()).as_bytes()[..16].try_into().unwrap());
    let change = Change::Place {
        item: id("item"),
        parent: id("parent"),
        name: Name::new(*b"a new name of some length").unwrap(),
        replaces: vec![Dot { device: stranger, counter: 123_456 }],
    };
    let sealed = first(&PacketBody { lamport: 1_000_000, ..body(vec![change]) });
    // 356 bytes when this was written, of which 234 are header, seal and signature.
    assert!(sealed.bytes().len() < 400, "{} bytes", sealed.bytes().len());
}

#[test]
fn a_deleted_file_costs_a_few_bytes_where_its_batch_is_deleted() {
    let device = DeviceId(*blake3::hash(b"stranger").as_bytes());
    let dots = vec![Dot { device, counter: 77 }];
    let removed = |n| Removed { item: ItemId([9; 16]).successor(n), heads: dots.clone(), placements: dots.clone() };
    let bytes = body(vec![Change::Delete { removed: (0..10_000).map(removed).collect() }]).encode(author());
    assert!(bytes.len() <= 7 * 10_000 + 200, "{} bytes", bytes.len());
}

#[test]
fn trails_and_names_beyond_their_limits_are_refused() {
    let mut writer = Writer::new();
    writer.raw(&[1, 0, 0, 0, 0, 0, 0, 1, 2, 1]).raw(&[9; 16]).raw(&[1]).bytes(b"x").raw(&[0]);
    let mut bytes = writer.finish();
    bytes.push(MAX_TRAIL as u8 + 1);
    for counter in 1..=MAX_TRAIL as u8 + 1 {
        bytes.extend([0, counter, counter, 0]);
    }
    assert_eq!(PacketBody::decode(&bytes, author()), Err(WireError::Invalid { what: "trail" }));
    let device_name = |name: String| {
        let change = Change::RenameDevice { device: author(), name };
        PacketBody::decode(&body(vec![change]).encode(author()), author())
    };
    assert!(device_name("n".repeat(64)).is_ok());
    assert_eq!(device_name("n".repeat(65)), Err(WireError::TooLong { limit: 64 }));
    assert_eq!(device_name(String::new()), Err(WireError::Invalid { what: "device name" }));
    assert_eq!(device_name("a\x1b[2J".to_owned()), Err(WireError::Invalid { what: "device name" }));
}
