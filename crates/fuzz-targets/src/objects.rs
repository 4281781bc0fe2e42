//! What lies at an intermediary: packets, tips, checkpoints, markers, packs, chunks and the names of objects.
//!
//! Sealed objects are fuzzed twice over: as the bytes that anybody could have put there, and as what is inside, which
//! only a member could have sealed. A fuzzer cannot make signatures, so the inside is handed to its codec without them.

use packetboat_core::body::PacketBody;
use packetboat_core::checkpoint::{
    CheckpointRef, CheckpointRoot, SealedCheckpoint, UnverifiedCheckpoint, decode_items, decode_moves, decode_packs,
    encode_items, encode_moves, encode_packs,
};
use packetboat_core::conflict_name::base_of;
use packetboat_core::ids::{DeviceId, PackId, VaultId};
use packetboat_core::keys::{BOX_OVERHEAD, DeviceKey, KeyRing, Nonce, Purpose, RootKey};
use packetboat_core::local_name::{distinct, stand_ins};
use packetboat_core::marker::{MAX_MARKER_BYTES, Marker};
use packetboat_core::members::Members;
use packetboat_core::name::{Name, RelPath};
use packetboat_core::packet::SealedPacket;
use packetboat_core::recovery::RecoveryKey;
use packetboat_core::signed::Content;
use packetboat_core::store::ObjectName;
use packetboat_core::tip::{Tip, UnverifiedTip};
use packetboat_core::wire::{Reader, Writer};
use packetboat_engine::prepare::{decode_chunk_list, encode_chunk_list};
use packetboat_storage::chunk::ChunkCodec;
use packetboat_storage::pack::{self, Depth, padme, read_index, verify_pack};

use crate::Outcome;

/// Sealed packets as anybody could put them there, and sealed by a member around any body.
pub fn packet(input: &[u8]) -> Outcome {
    let sealed = SealedPacket::from_bytes(input.to_vec());
    if let Ok(packet) = &sealed {
        assert_eq!(packet.bytes(), input);
        let _any = packet.open(&ring());
    }
    sealed.is_ok().into()
}

/// The body of a packet, inside of its seal.
pub fn packet_body(input: &[u8]) -> Outcome {
    let body = PacketBody::decode(input, author().device());
    if let Ok(body) = &body {
        assert_eq!(body.encode(author().device()), input, "a body has one encoding");
    }
    body.is_ok().into()
}

/// Tips: the object, and what is inside.
pub fn tip(input: &[u8]) -> Outcome {
    let _any = UnverifiedTip::parse(input.to_vec()).and_then(|tip| tip.verify(&author().device()));
    content::<Tip>(input)
}

/// Checkpoint roots: the object, and what is inside.
pub fn checkpoint(input: &[u8]) -> Outcome {
    let _any: Result<SealedCheckpoint, _> =
        UnverifiedCheckpoint::parse(input.to_vec()).and_then(|root| root.verify(&author().device()));
    content::<CheckpointRoot>(input)
}

/// What is sealed in a numbered object.
fn content<C: Content>(input: &[u8]) -> Outcome {
    let Some((number, plain)) = input.split_first() else { return Outcome::Refused };
    let content = C::decode(u64::from(*number), plain);
    if let Ok(content) = &content {
        assert_eq!(content.number(), u64::from(*number));
        assert_eq!(content.encode(), plain, "{} has one encoding", C::KIND);
    }
    content.is_ok().into()
}

/// Segments of a checkpoint, of each kind.
pub fn segment(input: &[u8]) -> Outcome {
    let again = [
        decode_items(input).map(|items| encode_items(&items)),
        decode_moves(input).map(|moves| encode_moves(&moves)),
        decode_packs(input).map(|packs| encode_packs(&packs)),
    ];
    let mut understood = again.into_iter().flatten();
    let read = understood.next();
    assert!(understood.next().is_none(), "a segment is of one kind");
    if let Some(again) = &read {
        assert_eq!(again, input, "a segment has one encoding");
    }
    read.is_some().into()
}

/// Markers.
pub fn marker(input: &[u8]) -> Outcome {
    let marker = Marker::decode(input);
    if let Ok(marker) = &marker {
        assert!(input.len() <= MAX_MARKER_BYTES);
        assert_eq!(marker.encode(), input, "a marker has one encoding");
    }
    marker.is_ok().into()
}

/// Who belongs to a vault, as checkpoints and indexes keep it.
pub fn members(input: &[u8]) -> Outcome {
    let mut reader = Reader::new(input);
    let Ok(members) = Members::decode(&mut reader) else { return Outcome::Refused };
    let read = input.len() - reader.remaining();
    let mut again = Writer::new();
    members.encode(&mut again);
    assert_eq!(again.finish(), &input[..read], "members have one encoding");
    for member in members.iter() {
        let _any = (members.standing(&member.device), members.label(&member.device));
    }
    Outcome::Understood
}

/// Packs: any bytes, and any index sealed by a member into a pack that is otherwise sound.
pub fn pack(input: &[u8]) -> Outcome {
    let ring = ring();
    let _any = verify_pack(&ring, &PackId([0; 32]), input, Depth::Chunks);
    let Some((room, plain)) = input.split_first_chunk::<2>() else { return Outcome::Refused };
    let bytes = pack_of(&ring, u16::from_le_bytes(*room).into(), plain);
    let index = read_index(&ring, &bytes);
    if let Ok(index) = &index {
        let mut end = HEADER_BYTES as u32;
        for chunk in &index.chunks {
            assert_eq!(chunk.offset, end, "chunks lie back to back");
            end += chunk.sealed_len;
        }
        assert_eq!(end as usize, HEADER_BYTES + usize::from(u16::from_le_bytes(*room)), "they fill the pack");
        let verified = verify_pack(&ring, &index.pack, &bytes, Depth::Chunks).expect("its index is sound");
        assert_eq!(verified.damaged.len(), index.chunks.len(), "zeros are no sealed chunks");
    }
    index.is_ok().into()
}

/// A pack with so many zeros for chunks, whose index says this.
fn pack_of(ring: &KeyRing, room: usize, plain: &[u8]) -> Vec<u8> {
    let mut bytes = Vec::from(*b"PBPA\x01\x00");
    bytes.extend_from_slice(&ring.vault().0);
    bytes.extend_from_slice(&ring.current().to_le_bytes());
    let index_offset = (HEADER_BYTES + room) as u32;
    let index_len = (plain.len() + BOX_OVERHEAD) as u32;
    let size = padme(u64::from(index_offset) + u64::from(index_len) + TRAILER_BYTES) as u32;
    let context = [&bytes[..], &index_offset.to_le_bytes(), &size.to_le_bytes()].concat();
    bytes.resize(index_offset as usize, 0);
    bytes.extend_from_slice(&ring.seal(Purpose::PackIndex, &context, Nonce([7; 24]), plain));
    bytes.resize(size as usize - TRAILER_BYTES as usize, 0);
    bytes.extend_from_slice(&index_offset.to_le_bytes());
    bytes.extend_from_slice(&index_len.to_le_bytes());
    bytes.extend_from_slice(b"APBP");
    bytes
}

/// The stored form of a chunk, inside of its seal: it never becomes larger than it was said to be.
pub fn chunk(input: &[u8]) -> Outcome {
    let Some((length, stored)) = input.split_first_chunk::<2>() else { return Outcome::Refused };
    let length = u32::from(u16::from_le_bytes(*length));
    let mut codec = ChunkCodec::new();
    let plain = codec.decode_chunk(stored, length);
    if let Ok(plain) = &plain {
        assert_eq!(plain.len() as u32, length);
        let again = codec.encode_chunk(plain);
        assert_eq!(codec.decode_chunk(&again, length).as_ref(), Ok(plain));
    }
    plain.is_ok().into()
}

/// Lists of chunks, which are content like any other.
pub fn chunk_list(input: &[u8]) -> Outcome {
    let chunks = decode_chunk_list(input);
    if let Ok(chunks) = &chunks {
        assert_eq!(encode_chunk_list(chunks), input, "a list of chunks has one encoding");
    }
    chunks.is_ok().into()
}

/// Names of objects and files, the names that stand in for them, and recovery keys as people type them.
pub fn names(input: &[u8]) -> Outcome {
    let mut understood = false;
    if let Ok(text) = std::str::from_utf8(input) {
        if let Ok(key) = RecoveryKey::from_text(text) {
            assert!(RecoveryKey::from_text(&key.to_text()).is_ok_and(|again| again == key));
            understood = true;
        }
        if let Some(name) = ObjectName::new(text) {
            assert_eq!(name.as_str(), text);
            assert!(Tip::device_of(&name).is_none_or(|device| Tip::name(&device) == name));
            assert!(CheckpointRef::from_name(&name).is_none_or(|checkpoint| checkpoint.name() == name));
            assert!(pack::pack_named(&name).is_none_or(|pack| pack::object_name(&pack) == name));
            understood = true;
        }
    }
    if let Some(path) = RelPath::new(input) {
        let joined = path.names().fold(RelPath::root(), |path, name| path.join(&name));
        assert_eq!(joined.as_bytes(), input);
        understood = true;
    }
    if let Some(name) = Name::new(input) {
        for other in stand_ins(&name).into_iter().chain(distinct(&name)).chain(base_of(&name)) {
            assert!(Name::new(other.as_bytes()).is_some(), "{other:?} is a name");
        }
    }
    understood.into()
}

fn ring() -> KeyRing {
    KeyRing::new(VaultId([3; 16]), RootKey([5; 32]))
}

fn author() -> DeviceKey {
    DeviceKey::from_seed(&[9; 32])
}

const HEADER_BYTES: usize = 26;
const TRAILER_BYTES: u64 = 12;

/// Inputs that are understood.
pub mod seeds {
    use std::collections::{BTreeMap, BTreeSet};

    use packetboat_core::change::{Change, Mark, Removed};
    use packetboat_core::checkpoint::{SegmentChunk, SegmentRef, SegmentStart};
    use packetboat_core::content::{ChunkList, ChunkRef, Content as ItemContent, FileContent, PackIndex, PackedChunk};
    use packetboat_core::garbage::{Garbage, Retention};
    use packetboat_core::ids::{ChunkId, Dot, ItemId, PacketHash, Stamp};
    use packetboat_core::item::{Head, Item, Placed};
    use packetboat_core::keys::KeyId;
    use packetboat_core::knowledge::{Knowledge, Learned};
    use packetboat_core::lane::LaneEnd;
    use packetboat_core::marker::{Argon2Cost, NewPassphrase, NewRecovery};
    use packetboat_core::packet::Packet;
    use packetboat_core::tree::MoveRecord;
    use packetboat_core::wanted::Wanted;

    use super::*;

    const OTHER: DeviceId = DeviceId([4; 32]);

    fn item(number: u8) -> ItemId {
        ItemId([number; 16])
    }

    fn name(text: &str) -> Name {
        Name::new(text).expect("a sound name")
    }

    fn other(counter: u64) -> Dot {
        Dot { device: OTHER, counter }
    }

    fn knowledge() -> Knowledge {
        let mut knowledge = Knowledge::new();
        knowledge.advance(OTHER, Learned { counter: 3, hash: PacketHash([8; 32]) });
        knowledge
    }

    fn small_file() -> ItemContent {
        let chunk = ChunkRef { id: ChunkId([1; 32]), len: 2 };
        let id = ring().content_id([chunk.id].iter());
        ItemContent::File(FileContent { id, size: 2, mtime: 77, chunks: ChunkList::Inline(vec![chunk]) })
    }

    fn pack_index() -> PackIndex {
        let chunk = |id, offset| PackedChunk { id: ChunkId([id; 32]), offset, sealed_len: 100 };
        PackIndex { pack: PackId([2; 32]), epoch: 1, size: 512, chunks: vec![chunk(2, 26), chunk(3, 126)] }
    }

    fn bodies() -> Vec<PacketBody> {
        let changes = vec![
            Change::Introduce { name: "laptop".to_owned(), exchange_key: [6; 32], continues: Some(OTHER) },
            Change::Create {
                item: item(1),
                parent: ItemId::ROOT,
                name: name("a"),
                content: ItemContent::Directory,
                mode: Some(0o755),
                xattrs: vec![(b"user.a".to_vec(), b"1".to_vec())],
            },
            Change::Create {
                item: item(2),
                parent: item(1),
                name: name("f"),
                content: small_file(),
                mode: None,
                xattrs: Vec::new(),
            },
            Change::Content {
                item: item(3),
                content: ItemContent::Symlink(b"target".to_vec()),
                replaces: vec![other(1), other(2)],
                trail: vec![Mark { dot: other(1), lamport: 4, time: 5 }],
            },
            Change::Place { item: item(4), parent: item(1), name: name("b"), replaces: vec![other(2)] },
            Change::Mode { item: item(5), mode: 0o600 },
            Change::Xattr { item: item(5), name: b"user.b".to_vec(), value: None },
            Change::Delete {
                removed: vec![Removed { item: item(6), heads: vec![other(1)], placements: vec![other(3)] }],
            },
        ];
        let members = vec![
            Change::RenameDevice { device: OTHER, name: "phone".to_owned() },
            Change::Revoke {
                device: OTHER,
                cut: 4,
                epoch: 2,
                key: KeyId([3; 32]),
                keys: vec![(author().device(), vec![1; 60])],
            },
            Change::Retire { device: DeviceId([7; 32]), cut: 9 },
            Change::Condemn { packs: vec![PackId([1; 32])], history: knowledge() },
            Change::Retain { retention: Retention::Days(90) },
        ];
        let body = |changes, inline, packs| PacketBody {
            lamport: 9,
            time: 1_700_000_000_000,
            prerequisite: knowledge(),
            needs: vec![PackId([1; 32])],
            packs,
            inline,
            changes,
        };
        let inline = vec![(ChunkId([1; 32]), b"hi".to_vec())];
        vec![body(changes, inline, vec![pack_index()]), body(members, Vec::new(), Vec::new())]
    }

    /// Sealed packets.
    pub fn packet() -> Vec<Vec<u8>> {
        let seal = |body: &PacketBody| {
            SealedPacket::seal(&author(), &ring(), 7, PacketHash([1; 32]), Nonce([1; 24]), body)
                .expect("a small body")
                .bytes()
                .to_vec()
        };
        bodies().iter().map(seal).collect()
    }

    /// Bodies of packets.
    pub fn packet_body() -> Vec<Vec<u8>> {
        bodies().iter().map(|body| body.encode(author().device())).collect()
    }

    /// What is inside of tips.
    pub fn tip() -> Vec<Vec<u8>> {
        let tip = Tip {
            sequence: 5,
            last: Some(Learned { counter: 7, hash: PacketHash([2; 32]) }),
            learned: knowledge(),
            checkpoint: Some(CheckpointRef { device: OTHER, number: 2 }),
            recent: packet(),
            wanted: BTreeSet::from([Wanted::Packet(Dot { device: OTHER, counter: 3 })]),
            refused: BTreeMap::from([(OTHER, 4)]),
        };
        vec![[&[5][..], &tip.encode()].concat()]
    }

    /// What is inside of checkpoint roots.
    pub fn checkpoint() -> Vec<Vec<u8>> {
        let chunk = SegmentChunk {
            chunk: ChunkRef { id: ChunkId([1; 32]), len: 900 },
            pack: PackId([2; 32]),
            epoch: 1,
            offset: 26,
            sealed_len: 500,
        };
        let root = CheckpointRoot {
            number: 3,
            knowledge: knowledge(),
            lanes: BTreeMap::from([(OTHER, lane_end())]),
            members: folded_members(),
            garbage: folded_garbage(),
            segments: vec![SegmentRef { start: SegmentStart::Items(item(1)), chunks: vec![chunk] }],
        };
        vec![[&[3][..], &root.encode()].concat()]
    }

    fn lane_end() -> LaneEnd {
        LaneEnd::after(&packet_with(bodies().remove(0).changes, OTHER, 3, PacketHash([8; 32])), Knowledge::new())
    }

    fn packet_with(changes: Vec<Change>, device: DeviceId, counter: u64, hash: PacketHash) -> Packet {
        let body = PacketBody { changes, ..bodies().remove(1) };
        let author = packetboat_core::keys::PublicKey(device.0);
        Packet { dot: Dot { device, counter }, hash, previous: PacketHash([0; 32]), author, epoch: 0, body }
    }

    fn folded_garbage() -> Garbage {
        let mut garbage = Garbage::new();
        for (counter, body) in (1..).zip(bodies()) {
            let packet = packet_with(body.changes, author().device(), counter, PacketHash([3; 32]));
            garbage.fold(&packet, &knowledge(), &BTreeSet::new());
        }
        garbage
    }

    fn folded_members() -> Members {
        let mut members = Members::new();
        for (device, changes) in bodies().into_iter().map(|body| (author().device(), body.changes)) {
            members.fold(&packet_with(changes, device, 1, PacketHash([3; 32])));
        }
        members
    }

    /// Segments of each kind.
    pub fn segment() -> Vec<Vec<u8>> {
        let stamp = |counter| Stamp { lamport: 4, device: OTHER, counter, index: 2 };
        let placed = |counter, parent, text| Placed { stamp: stamp(counter), parent, name: name(text) };
        let head = |counter, content| Head {
            dot: other(counter),
            lamport: 4,
            time: 5,
            content,
            trail: Vec::new(),
            deletes: Vec::new(),
        };
        let mut conflicted = Item::new(item(2), head(1, small_file()), placed(1, item(1), "f"));
        conflicted.fold_content(head(2, ItemContent::Symlink(b"x".to_vec())), &[]);
        conflicted.fold_delete(other(3), &[other(1)], &[]);
        let items = [Item::new(item(1), head(1, ItemContent::Directory), placed(1, ItemId::ROOT, "a")), conflicted];
        let record = MoveRecord {
            item: item(1),
            to: placed(3, item(7), "b"),
            before: placed(1, ItemId::ROOT, "a"),
            passed_over: false,
        };
        vec![encode_items(&items), encode_moves(&[record]), encode_packs(&[pack_index()])]
    }

    /// Markers, with one epoch and with two.
    pub fn marker() -> Vec<Vec<u8>> {
        let nonce = |byte| Nonce([byte; 24]);
        let passphrase =
            || NewPassphrase { passphrase: b"secret", cost: Argon2Cost::MINIMUM, salt: [1; 16], nonce: nonce(1) };
        let recovery = RecoveryKey([2; 32]);
        let recovery = || NewRecovery { key: &recovery, nonce: nonce(2) };
        let mut ring = ring();
        let root = ring.root(0).expect("the first epoch's").clone();
        let first = Marker::create(ring.vault(), 1_700_000_000_000, &root, passphrase(), recovery());
        ring.add_epoch(1, RootKey([6; 32]));
        let mut second = first.clone();
        second.begin_epoch(&ring, nonce(3), passphrase(), recovery()).expect("the ring is the marker's");
        vec![first.encode(), second.encode()]
    }

    /// Members of a vault.
    pub fn members() -> Vec<Vec<u8>> {
        let mut out = Writer::new();
        folded_members().encode(&mut out);
        vec![out.finish()]
    }

    /// Room for two chunks, and an index that says so.
    pub fn pack() -> Vec<Vec<u8>> {
        let mut index = Writer::new();
        index.varint(2).raw(&[1; 32]).varint(60).raw(&[2; 32]).varint(140);
        vec![[&200_u16.to_le_bytes()[..], &index.finish()].concat()]
    }

    /// Stored forms, raw and compressed.
    pub fn chunk() -> Vec<Vec<u8>> {
        let plains = [b"x".to_vec(), b"abc".repeat(500)];
        let stored = |plain: &Vec<u8>| {
            [&(plain.len() as u16).to_le_bytes()[..], &ChunkCodec::new().encode_chunk(plain)].concat()
        };
        plains.iter().map(stored).collect()
    }

    /// Lists of chunks.
    pub fn chunk_list() -> Vec<Vec<u8>> {
        let chunks: Vec<ChunkRef> = (0..3).map(|id| ChunkRef { id: ChunkId([id; 32]), len: 1000 }).collect();
        vec![encode_chunk_list(&chunks)]
    }

    /// Names of each kind.
    pub fn names() -> Vec<Vec<u8>> {
        vec![
            Tip::name(&OTHER).as_str().as_bytes().to_vec(),
            CheckpointRef { device: OTHER, number: 2 }.name().as_str().as_bytes().to_vec(),
            pack::object_name(&PackId([1; 32])).as_str().as_bytes().to_vec(),
            RecoveryKey([7; 32]).to_text().as_bytes().to_vec(),
            b"a/b.txt".to_vec(),
            "a (conflict laptop 2026-01-02 abcd).txt".as_bytes().to_vec(),
            b"CON. ".to_vec(),
        ]
    }
}
