//! Checkpoints: a vault's folded state at some knowledge, from which a new device starts.
//!
//! The state itself lies in segments (segment.rs), which are stored as ordinary chunks in packs, so that a checkpoint
//! shares with earlier ones all that has not changed. The root names them and says where they lie; it also holds what
//! a replica needs to fold on from there: the end of each lane, the members, and what is condemned.
//!
//! The root is a signed object (signed.rs) with magic "PBCP", at `checkpoints/<device>-<number>`. Sealed in it:
//!
//! ```text
//! knowledge  (knowledge.rs)
//! lanes      per lane of the knowledge, in its order: lamport varint
//!            | prerequisite: count, per entry: index of the lane in the knowledge, rising | 0 up to where the knowledge has it,
//!              or counter varint and hash 32
//! members    (members.rs)
//! garbage    (garbage.rs)
//! segments   count, per segment in order of kind and first key:
//!            1 items, first id 16 | 2 moves, first stamp | 3 packs, first id 32
//!            | chunks: count, per chunk: id 32 | length varint | pack | offset varint | sealed length varint
//!
//! stamp      device 32 | lamport varint | counter varint | index varint
//! pack       0 then id 32 and epoch varint, joins the table | n + 1 the table's n-th
//! ```

mod segment;

use std::collections::{BTreeMap, HashMap};

use crate::content::{ChunkRef, MAX_CHUNK_BYTES, PackIndex};
use crate::garbage::Garbage;
use crate::ids::{ChunkId, Counter, DeviceId, Epoch, ItemId, Lamport, PackId, PacketHash, Stamp};
use crate::item::Item;
use crate::keys::Purpose;
use crate::knowledge::{Knowledge, Learned};
use crate::lane::LaneEnd;
use crate::members::Members;
use crate::signed::{Content, Sealed, SignedError, Unverified};
use crate::store::ObjectName;
use crate::tree::MoveRecord;
use crate::wire::{Reader, WireError, Writer};
pub use segment::{
    Entry, MAX_SEGMENT_BYTES, Segment, SegmentCutter, SegmentDecoder, SegmentEncoder, decode_segment, encode_segment,
};

/// What a checkpoint says besides its segments.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct CheckpointRoot {
    /// Which of its device's checkpoints this is, from 1.
    pub number: u64,
    /// All that was folded into it.
    pub knowledge: Knowledge,
    /// The end of each lane in the knowledge.
    pub lanes: BTreeMap<DeviceId, LaneEnd>,
    /// Who belongs to the vault.
    pub members: Members,
    /// What is condemned, and how long the past is kept.
    pub garbage: Garbage,
    /// The segments, in order of what they begin with.
    pub segments: Vec<SegmentRef>,
}

/// Names a segment: what it begins with, and the chunks that hold it.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct SegmentRef {
    /// Its kind, and the key of its first entry.
    pub start: SegmentStart,
    /// Its plaintext, in order; at least one, and at most [`MAX_SEGMENT_BYTES`] in all.
    pub chunks: Vec<SegmentChunk>,
}

/// What a segment holds and begins with.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Debug)]
pub enum SegmentStart {
    /// Items, from this one.
    Items(ItemId),
    /// Directory moves, from this one.
    Moves(Stamp),
    /// Pack indexes, from this one.
    Packs(PackId),
}

/// A chunk of a segment and where it lies.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct SegmentChunk {
    /// The chunk.
    pub chunk: ChunkRef,
    /// The pack that holds it.
    pub pack: PackId,
    /// The epoch in which the pack is sealed.
    pub epoch: Epoch,
    /// Where its sealed bytes begin, in bytes from the start of the pack.
    pub offset: u32,
    /// Length of its sealed bytes.
    pub sealed_len: u32,
}

/// Bytes that claim to be a checkpoint's root.
pub type UnverifiedCheckpoint = Unverified<CheckpointRoot>;

/// A checkpoint's root whose signature is its device's.
pub type SealedCheckpoint = Sealed<CheckpointRoot>;

/// Why bytes are not a checkpoint's root of this vault and device.
pub type CheckpointError = SignedError;

impl CheckpointRoot {
    /// The greatest Lamport time folded.
    pub fn lamport(&self) -> Lamport {
        self.lanes.values().map(|end| end.lamport).max().unwrap_or(0)
    }
}

impl Content for CheckpointRoot {
    const KIND: &'static str = "checkpoint";
    const MAGIC: [u8; 4] = *b"PBCP";
    const PURPOSE: Purpose = Purpose::Checkpoint;
    const HASH_CONTEXT: &'static str = "packetboat 2026 checkpoint";
    const MAX_BYTES: usize = MAX_CHECKPOINT_BYTES;

    fn number(&self) -> u64 {
        self.number
    }

    /// # Panics
    /// Where `lanes` are not those of the knowledge, or name what it does not contain: the caller folds them and must not.
    fn encode(&self) -> Vec<u8> {
        assert!(self.lanes.keys().eq(self.knowledge.iter().map(|(device, _)| device)), "every lane known has an end");
        let mut out = Writer::new();
        self.knowledge.encode(&mut out);
        let index: HashMap<DeviceId, u64> = self.lanes.keys().copied().zip(0..).collect();
        for end in self.lanes.values() {
            out.varint(end.lamport).varint(end.prerequisite.len() as u64);
            for (device, learned) in end.prerequisite.iter() {
                let last = self.knowledge.counter(device);
                assert!(learned.counter <= last, "what a folded packet builds on is folded");
                out.varint(index[device]);
                match learned.counter == last {
                    true => out.varint(0),
                    false => out.varint(learned.counter).raw(&learned.hash.0),
                };
            }
        }
        self.members.encode(&mut out);
        self.garbage.encode(&mut out);
        out.varint(self.segments.len() as u64);
        let mut packs = HashMap::new();
        for segment in &self.segments {
            encode_start(&segment.start, &mut out);
            out.varint(segment.chunks.len() as u64);
            for chunk in &segment.chunks {
                encode_chunk(chunk, &mut packs, &mut out);
            }
        }
        out.finish()
    }

    fn decode(number: u64, plain: &[u8]) -> Result<Self, WireError> {
        let mut input = Reader::new(plain);
        let knowledge = Knowledge::decode(&mut input)?;
        let known: Vec<(DeviceId, Learned)> = knowledge.iter().map(|(device, learned)| (*device, *learned)).collect();
        let mut lanes = BTreeMap::new();
        for (device, _) in &known {
            lanes.insert(*device, decode_lane(&known, &mut input)?);
        }
        let members = Members::decode(&mut input)?;
        let garbage = Garbage::decode(&mut input)?;
        let mut segments: Vec<SegmentRef> = Vec::new();
        let mut packs = PackTable::new();
        for _ in 0..input.count(ItemId::LEN + ChunkId::LEN)? {
            let segment = decode_segment_ref(&mut packs, &mut input)?;
            if segments.last().is_some_and(|last| last.start >= segment.start) {
                return Err(WireError::NotCanonical);
            }
            segments.push(segment);
        }
        input.finish()?;
        Ok(Self { number, knowledge, lanes, members, garbage, segments })
    }
}

fn decode_lane(known: &[(DeviceId, Learned)], input: &mut Reader<'_>) -> Result<LaneEnd, WireError> {
    let mut end = LaneEnd { lamport: input.varint()?, prerequisite: Knowledge::new() };
    let mut next = 0;
    for _ in 0..input.count(2)? {
        let index = input.varint()?;
        let entry = usize::try_from(index).ok().and_then(|index| known.get(index));
        let (device, last) = entry.ok_or(WireError::Invalid { what: "lane" })?;
        if index < next {
            return Err(WireError::NotCanonical);
        }
        next = index + 1;
        let counter: Counter = input.varint()?;
        let learned = match counter {
            0 => *last,
            counter if counter < last.counter => Learned { counter, hash: PacketHash(input.array()?) },
            _ => return Err(WireError::NotCanonical),
        };
        end.prerequisite.advance(*device, learned);
    }
    Ok(end)
}

fn encode_start(start: &SegmentStart, out: &mut Writer) {
    match start {
        SegmentStart::Items(item) => out.u8(Item::KIND).raw(&item.0),
        SegmentStart::Moves(Stamp { lamport, device, counter, index }) => {
            out.u8(MoveRecord::KIND).raw(&device.0).varint(*lamport).varint(*counter).varint((*index).into())
        }
        SegmentStart::Packs(pack) => out.u8(PackIndex::KIND).raw(&pack.0),
    };
}

fn encode_chunk(place: &SegmentChunk, packs: &mut HashMap<(PackId, Epoch), u64>, out: &mut Writer) {
    out.raw(&place.chunk.id.0).varint(place.chunk.len.into());
    let joins = packs.len() as u64 + 1;
    if let Some(index) = packs.get(&(place.pack, place.epoch)) {
        out.varint(*index);
    } else {
        packs.insert((place.pack, place.epoch), joins);
        out.varint(0).raw(&place.pack.0).varint(place.epoch.into());
    }
    out.varint(place.offset.into()).varint(place.sealed_len.into());
}

fn decode_segment_ref(packs: &mut PackTable, input: &mut Reader<'_>) -> Result<SegmentRef, WireError> {
    let start = match input.u8()? {
        Item::KIND => SegmentStart::Items(ItemId(input.array()?)),
        MoveRecord::KIND => {
            let device = DeviceId(input.array()?);
            let (lamport, counter, index) = (input.varint()?, input.varint()?, input.varint32()?);
            SegmentStart::Moves(Stamp { lamport, device, counter, index })
        }
        PackIndex::KIND => SegmentStart::Packs(PackId(input.array()?)),
        _ => return Err(WireError::Invalid { what: "segment" }),
    };
    let count = input.count(ChunkId::LEN + 4)?;
    let chunks = (0..count).map(|_| decode_chunk(packs, input)).collect::<Result<Vec<_>, _>>()?;
    let total: u64 = chunks.iter().map(|place| u64::from(place.chunk.len)).sum();
    if total == 0 || total > MAX_SEGMENT_BYTES as u64 {
        return Err(WireError::Invalid { what: "segment length" });
    }
    Ok(SegmentRef { start, chunks })
}

fn decode_chunk(packs: &mut PackTable, input: &mut Reader<'_>) -> Result<SegmentChunk, WireError> {
    let id = ChunkId(input.array()?);
    let len = Some(input.varint32()?).filter(|len| (1..=MAX_CHUNK_BYTES).contains(len));
    let chunk = ChunkRef { id, len: len.ok_or(WireError::Invalid { what: "chunk length" })? };
    let (pack, epoch) = match input.varint()? {
        0 => packs.join((PackId(input.array()?), input.varint32()?))?,
        n => packs.get(n - 1, "pack")?,
    };
    let (offset, sealed_len) = (input.varint32()?, input.varint32()?);
    offset.checked_add(sealed_len).ok_or(WireError::Overflow)?;
    Ok(SegmentChunk { chunk, pack, epoch, offset, sealed_len })
}

/// Names a checkpoint.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug)]
pub struct CheckpointRef {
    /// The device that wrote it.
    pub device: DeviceId,
    /// Which of that device's checkpoints it is, from 1.
    pub number: u64,
}

impl CheckpointRef {
    /// The object's name at an intermediary.
    pub fn name(&self) -> ObjectName {
        let Self { device, number } = self;
        ObjectName::new(format!("{CHECKPOINTS_FOLDER}/{device}-{number}")).expect("hexadecimal and decimal digits")
    }

    /// Which checkpoint lies under a name.
    pub fn from_name(name: &ObjectName) -> Option<Self> {
        let (device, digits) = name.as_str().strip_prefix(CHECKPOINTS_FOLDER)?.strip_prefix('/')?.split_once('-')?;
        let found = Self { device: DeviceId::from_hex(device)?, number: digits.parse().ok()? };
        // One checkpoint has one name: no sign, no leading zero.
        (found.number > 0 && found.name() == *name).then_some(found)
    }

    /// Reads a device and a number.
    pub(crate) fn decode(input: &mut Reader<'_>) -> Result<Self, WireError> {
        let found = Self { device: DeviceId(input.array()?), number: input.varint()? };
        if found.number == 0 { Err(WireError::Invalid { what: "checkpoint number" }) } else { Ok(found) }
    }
}

/// Whether a segment of items begins at this id.
pub fn is_boundary(id: &ItemId) -> bool {
    <Item as Entry>::is_boundary(id)
}

/// Encodes a segment of items, sorted by id.
pub fn encode_items(items: &[Item]) -> Vec<u8> {
    encode_segment(items)
}

/// Reads what [`encode_items`] wrote.
pub fn decode_items(bytes: &[u8]) -> Result<Vec<Item>, WireError> {
    decode_segment(bytes)
}

/// Encodes a segment of directory moves, in total order.
pub fn encode_moves(moves: &[MoveRecord]) -> Vec<u8> {
    encode_segment(moves)
}

/// Reads what [`encode_moves`] wrote.
pub fn decode_moves(bytes: &[u8]) -> Result<Vec<MoveRecord>, WireError> {
    decode_segment(bytes)
}

/// Encodes a segment of pack indexes, sorted by pack.
pub fn encode_packs(packs: &[PackIndex]) -> Vec<u8> {
    encode_segment(packs)
}

/// Reads what [`encode_packs`] wrote.
pub fn decode_packs(bytes: &[u8]) -> Result<Vec<PackIndex>, WireError> {
    decode_segment(bytes)
}

type PackTable = segment::Table<(PackId, Epoch)>;

/// The folder of the checkpoints at an intermediary.
pub const CHECKPOINTS_FOLDER: &str = "checkpoints";
/// Greatest size of a checkpoint's root object in bytes.
pub const MAX_CHECKPOINT_BYTES: usize = 64 * 1024 * 1024;

#[cfg(test)]
mod tests;
