//! Writing a checkpoint: inline content into packs, then the segments that changed, then the root.
//!
//! The root is put when all that it names is stored, and held when it is put; so a crash at any instant leaves at most
//! packs that nobody refers to, and a root that nobody names. The first is rare and the second is small.
//! In memory there are one segment, one pack, and the references to all segments.

use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::rc::Rc;

use packetboat_core::checkpoint::{
    CheckpointRef, CheckpointRoot, SealedCheckpoint, Segment, SegmentChunk, SegmentCutter, SegmentRef, SegmentStart,
    encode_packs,
};
use packetboat_core::content::{ChunkRef, PackIndex};
use packetboat_core::ids::{ChunkId, Dot, ItemId, PackId, Stamp};
use packetboat_core::item::Item;
use packetboat_core::knowledge::Knowledge;
use packetboat_core::lane::LaneEnd;
use packetboat_core::store::{Put, Store};
use packetboat_core::tree::MoveRecord;
use packetboat_replica::index::{ChunkPlace, Index, PackState};
use packetboat_storage::chunk::{ChunkCodec, seal_known_chunk};
use packetboat_storage::chunker::Boundaries;
use packetboat_storage::pack::{HEADER_BYTES, PackWriter, object_name};

use super::held;
use crate::Keys;
use crate::error::SyncError;
use crate::ports::{Entropy, Observer};

/// Writes a checkpoint of all that was folded, and holds it.
pub(super) fn write(
    index: &mut Index,
    store: &dyn Store,
    keys: &Keys,
    entropy: &mut dyn Entropy,
    observer: &mut dyn Observer,
) -> Result<CheckpointRef, SyncError> {
    pack_inline_content(index, store, keys, entropy)?;
    write_state(index, store, keys, entropy, observer)
}

/// Writes a checkpoint of all that was folded into an index, and holds it there. What lies only inside packets is left.
pub(super) fn write_state(
    index: &mut Index,
    store: &dyn Store,
    keys: &Keys,
    entropy: &mut dyn Entropy,
    observer: &mut dyn Observer,
) -> Result<CheckpointRef, SyncError> {
    let mut segments = Segments::new(index, Packing::new(store, keys), observer)?;
    items(index, &mut segments, entropy)?;
    moves(index, &mut segments, entropy)?;
    packs(index, &mut segments, entropy)?;
    let segments = segments.finish(entropy)?;
    let knowledge = index.knowledge().clone();
    let mut lanes = BTreeMap::new();
    for (device, _) in knowledge.iter() {
        let lamport = index.lane_lamport(*device)?.unwrap_or(0);
        lanes.insert(*device, LaneEnd { lamport, prerequisite: index.lane_prerequisite(*device)? });
    }
    let members = crate::members::load(index)?;
    let garbage = crate::garbage::load(index)?;
    put_root(index, store, keys, entropy, CheckpointRoot { number: 0, knowledge, lanes, members, garbage, segments })
}

/// Puts the root under the first number that is free. One that is taken was put before a crash.
fn put_root(
    index: &mut Index,
    store: &dyn Store,
    keys: &Keys,
    entropy: &mut dyn Entropy,
    mut root: CheckpointRoot,
) -> Result<CheckpointRef, SyncError> {
    let device = keys.device.device();
    root.number = last_written(index)?;
    loop {
        root.number += 1;
        let checkpoint = CheckpointRef { device, number: root.number };
        let sealed = SealedCheckpoint::seal(&keys.device, &keys.ring, entropy.nonce(), &root)?;
        if store.put_new(&checkpoint.name(), sealed.bytes())? == Put::Stored {
            index.begin()?;
            index.set_meta(NUMBER, Some(&root.number.to_le_bytes()))?;
            held::hold(index, &checkpoint, &root, keys.ring.current())?;
            index.commit()?;
            return Ok(checkpoint);
        }
    }
}

/// The number of the checkpoint that this device wrote last; 0 for none.
pub(crate) fn last_written(index: &Index) -> Result<u64, SyncError> {
    Ok(index.meta(NUMBER)?.and_then(|number| number.try_into().ok()).map_or(0, u64::from_le_bytes))
}

fn items(index: &Index, segments: &mut Segments<'_>, entropy: &mut dyn Entropy) -> Result<(), SyncError> {
    let mut cutter = SegmentCutter::<Item>::new();
    let mut after: Option<ItemId> = None;
    loop {
        let page = index.items_by_id(after, PAGE)?;
        let Some(last) = page.last() else { break };
        after = Some(last.id);
        for item in &page {
            segments.take(cutter.push(item), SegmentStart::Items, &[], entropy)?;
        }
    }
    segments.take(cutter.finish(), SegmentStart::Items, &[], entropy)
}

fn moves(index: &Index, segments: &mut Segments<'_>, entropy: &mut dyn Entropy) -> Result<(), SyncError> {
    let mut cutter = SegmentCutter::<MoveRecord>::new();
    let mut after: Option<Stamp> = None;
    loop {
        let page = index.moves_by_stamp(after.as_ref(), PAGE)?;
        let Some(last) = page.last() else { break };
        after = Some(last.to.stamp);
        for record in &page {
            segments.take(cutter.push(record), SegmentStart::Moves, &[], entropy)?;
        }
    }
    segments.take(cutter.finish(), SegmentStart::Moves, &[], entropy)
}

/// The index of a pack of small files is as long as many items, so a large one is a chunk apart from its neighbours:
/// another pack beside it does not store it again.
fn packs(index: &Index, segments: &mut Segments<'_>, entropy: &mut dyn Entropy) -> Result<(), SyncError> {
    let mut cutter = SegmentCutter::<PackIndex>::new();
    let mut cuts = Cuts::default();
    let mut after: Option<PackId> = None;
    loop {
        let page = index.packs(after.as_ref(), PAGE)?;
        let Some(last) = page.last() else { break };
        after = Some(last.pack);
        for row in page.iter().filter(|row| row.state != PackState::Pending) {
            if let Some(pack) = index.pack_index(&row.pack)? {
                if let Some(segment) = cutter.push(&pack) {
                    segments.take(Some(segment), SegmentStart::Packs, &std::mem::take(&mut cuts).at, entropy)?;
                }
                cuts.entry(encode_packs(std::slice::from_ref(&pack)).len() - 1);
            }
        }
    }
    segments.take(cutter.finish(), SegmentStart::Packs, &cuts.at, entropy)
}

/// Where the chunks of a segment of packs end besides where they end by themselves.
struct Cuts {
    at: Vec<usize>,
    end: usize,
}

impl Default for Cuts {
    /// The segment's first byte is a chunk of its own, so that whatever comes first may change.
    fn default() -> Self {
        Self { at: vec![1], end: 1 }
    }
}

impl Cuts {
    /// Notes an entry of this length.
    fn entry(&mut self, len: usize) {
        if len >= LARGE_ENTRY {
            self.at.push(self.end);
            self.at.push(self.end + len);
        }
        self.end += len;
    }
}

/// Stores what lies only inside packets in packs too, so that a replica that begins from the checkpoint finds it.
///
/// All of it, not only what is current: a later packet may refer to any chunk that its author knows to be stored.
fn pack_inline_content(
    index: &mut Index,
    store: &dyn Store,
    keys: &Keys,
    entropy: &mut dyn Entropy,
) -> Result<(), SyncError> {
    let known = index.knowledge().clone();
    let packed = held::packed(index)?;
    // A pack that is damaged or condemned holds nothing for whoever begins from here.
    pack_what_lies_inside(index, &packed, &known, Packing::new(store, keys), entropy, is_known_to_others)?;
    held::set_packed(index, &known)
}

/// Stores what lies inside packets up to a point in packs, but for what is in packs that stay.
///
/// What is in one that goes counts as nowhere: somebody may refer to the packet's copy of it and not be heard of yet.
/// What is in one that only this device knows of does so too. Returns the packs in which all of it is found.
pub(super) fn pack_content_of_history(
    index: &mut Index,
    history: &Knowledge,
    going: &BTreeSet<PackId>,
    store: &dyn Store,
    keys: &Keys,
    entropy: &mut dyn Entropy,
) -> Result<BTreeSet<PackId>, SyncError> {
    let garbage = crate::garbage::load(index)?;
    let mut relied_on = BTreeSet::new();
    let packing = Packing::new(store, keys);
    let packed = pack_what_lies_inside(index, garbage.horizon(), history, packing, entropy, |index, pack| {
        let stays = garbage.may_refer(pack) && !going.contains(pack) && is_known_to_others(index, pack)?;
        relied_on.extend(Some(*pack).filter(|_| stays));
        Ok(stays)
    })?;
    held::tell(index, relied_on.iter().copied())?;
    relied_on.extend(packed);
    Ok(relied_on)
}

/// Stores in packs what lies inside the packets after one point and up to another, unless it lies in a pack that will do;
/// which packs were made.
fn pack_what_lies_inside(
    index: &mut Index,
    after: &Knowledge,
    until: &Knowledge,
    mut packing: Packing<'_>,
    entropy: &mut dyn Entropy,
    mut will_do: impl FnMut(&Index, &PackId) -> Result<bool, SyncError>,
) -> Result<BTreeSet<PackId>, SyncError> {
    let mut made = BTreeSet::new();
    for (device, learned) in until.iter() {
        for counter in after.counter(device) + 1..=learned.counter {
            let Some(sealed) = index.sealed_packet(Dot { device: *device, counter })? else { continue };
            for (id, plain) in sealed.open(&packing.keys.ring)?.body.inline {
                if let Some(ChunkPlace::Pack { pack, .. }) = index.chunk_place(&id)?
                    && will_do(index, &pack)?
                {
                    continue;
                }
                packing.add(id, &plain, entropy)?;
                if packing.pack.is_full() {
                    made.extend(record(index, packing.put(entropy)?)?);
                }
            }
        }
    }
    made.extend(record(index, packing.put(entropy)?)?);
    Ok(made)
}

/// Whether a pack is sound, and something has told of it or is about to.
///
/// One that is pending was stored for a file that turned out to need no change: no packet told of it, and none will
/// unless something refers to it.
fn is_known_to_others(index: &Index, pack: &PackId) -> Result<bool, SyncError> {
    Ok(index.pack_row(pack)?.is_some_and(|row| row.state == PackState::Stored))
}

fn record(index: &mut Index, pack: Option<PackIndex>) -> Result<Option<PackId>, SyncError> {
    let Some(pack) = pack else { return Ok(None) };
    index.begin()?;
    index.put_pack(&pack, PackState::Stored)?;
    held::add_untold(index, &pack.pack)?;
    index.commit()?;
    Ok(Some(pack.pack))
}

/// Seals chunks into packs and puts these.
struct Packing<'a> {
    store: &'a dyn Store,
    keys: &'a Keys,
    codec: ChunkCodec,
    pack: PackWriter,
}

impl<'a> Packing<'a> {
    fn new(store: &'a dyn Store, keys: &'a Keys) -> Self {
        let pack = PackWriter::new(keys.ring.vault(), keys.ring.current());
        Self { store, keys, codec: ChunkCodec::new(), pack }
    }

    fn add(&mut self, id: ChunkId, plain: &[u8], entropy: &mut dyn Entropy) -> Result<(), SyncError> {
        if !self.pack.contains(&id) {
            let sealed = seal_known_chunk(&self.keys.ring, &mut self.codec, id, plain, entropy.nonce())
                .expect("a chunk that was cut or carried is of a sound length");
            self.pack.push(&sealed)?;
        }
        Ok(())
    }

    /// Puts what was added, if anything was.
    fn put(&mut self, entropy: &mut dyn Entropy) -> Result<Option<PackIndex>, SyncError> {
        if self.pack.is_empty() {
            return Ok(None);
        }
        let ring = &self.keys.ring;
        let fresh = PackWriter::new(ring.vault(), ring.current());
        let (pack, bytes) = std::mem::replace(&mut self.pack, fresh).finish(ring, entropy.nonce())?;
        self.store.put_new(&object_name(&pack.pack), &bytes)?;
        Ok(Some(pack))
    }
}

/// Stores segments that the checkpoint held does not have, and gathers the references to all.
struct Segments<'a> {
    packing: Packing<'a>,
    observer: &'a mut dyn Observer,
    boundaries: Rc<Boundaries>,
    refs: Vec<SegmentRef>,
    /// Where chunks lie that are stored already.
    stored: HashMap<ChunkId, SegmentChunk>,
    /// References into the pack being filled: indexes into `refs` and its chunks.
    open: Vec<(usize, usize)>,
}

impl<'a> Segments<'a> {
    fn new(index: &Index, packing: Packing<'a>, observer: &'a mut dyn Observer) -> Result<Self, SyncError> {
        let segments = held::root(index)?.map(|root| root.segments).unwrap_or_default();
        // What is condemned is not referred to anew.
        let garbage = crate::garbage::load(index)?;
        let chunks = segments.into_iter().flat_map(|segment| segment.chunks);
        let chunks = chunks.filter(|chunk| garbage.may_refer(&chunk.pack));
        let mut stored = chunks.map(|chunk| (chunk.chunk.id, chunk)).collect();
        leave_sparse_packs(&mut stored);
        let boundaries = Rc::new(Boundaries::new(packing.keys.ring.chunker_seed()));
        Ok(Self { packing, observer, boundaries, refs: Vec::new(), stored, open: Vec::new() })
    }

    fn take<K>(
        &mut self,
        segment: Option<Segment<K>>,
        start: impl Fn(K) -> SegmentStart,
        cuts: &[usize],
        entropy: &mut dyn Entropy,
    ) -> Result<(), SyncError> {
        let Some(segment) = segment else { return Ok(()) };
        if self.observer.interrupted() {
            return Err(SyncError::Interrupted);
        }
        self.refs.push(SegmentRef { start: start(segment.first), chunks: Vec::new() });
        let at = self.refs.len() - 1;
        let boundaries = Rc::clone(&self.boundaries);
        for plain in pieces(&segment.bytes, cuts).flat_map(|piece| boundaries.split(piece)) {
            let id = self.packing.keys.ring.chunk_id(plain);
            let place = match self.stored.get(&id) {
                Some(place) => *place,
                None => {
                    self.packing.add(id, plain, entropy)?;
                    self.open.push((at, self.refs[at].chunks.len()));
                    let chunk = ChunkRef { id, len: plain.len() as u32 };
                    // Where it lies is known when its pack is closed.
                    SegmentChunk { chunk, pack: PackId([0; 32]), epoch: 0, offset: 0, sealed_len: 0 }
                }
            };
            self.refs[at].chunks.push(place);
            if self.packing.pack.is_full() {
                self.close_pack(entropy)?;
            }
        }
        Ok(())
    }

    fn close_pack(&mut self, entropy: &mut dyn Entropy) -> Result<(), SyncError> {
        let Some(pack) = self.packing.put(entropy)? else { return Ok(()) };
        let places: HashMap<ChunkId, (u32, u32)> =
            pack.chunks.iter().map(|chunk| (chunk.id, (chunk.offset, chunk.sealed_len))).collect();
        for (segment, chunk) in self.open.drain(..) {
            let place = &mut self.refs[segment].chunks[chunk];
            let (offset, sealed_len) = places[&place.chunk.id];
            *place = SegmentChunk { pack: pack.pack, epoch: pack.epoch, offset, sealed_len, ..*place };
            self.stored.insert(place.chunk.id, *place);
        }
        Ok(())
    }

    fn finish(mut self, entropy: &mut dyn Entropy) -> Result<Vec<SegmentRef>, SyncError> {
        self.close_pack(entropy)?;
        Ok(self.refs)
    }
}

/// Leaves the packs of which the checkpoint held needs less than half: that is stored again, so that they can go. Else one
/// chunk that never changes would keep a pack for ever.
///
/// What is not needed is what lies between the chunks; how much comes after the last of them is not known here.
fn leave_sparse_packs(stored: &mut HashMap<ChunkId, SegmentChunk>) {
    let mut packs: HashMap<PackId, (u64, u64)> = HashMap::new();
    for chunk in stored.values() {
        let (needed, end) = packs.entry(chunk.pack).or_default();
        *needed += u64::from(chunk.sealed_len);
        *end = (*end).max(u64::from(chunk.offset) + u64::from(chunk.sealed_len));
    }
    stored.retain(|_, chunk| {
        let (needed, end) = packs[&chunk.pack];
        needed * 2 >= end.saturating_sub(HEADER_BYTES as u64)
    });
}

/// The bytes between these places, which rise and may repeat.
fn pieces<'b>(bytes: &'b [u8], cuts: &'b [usize]) -> impl Iterator<Item = &'b [u8]> {
    let ends = cuts.iter().copied().chain([bytes.len()]);
    ends.scan(0, move |from, to| Some(&bytes[std::mem::replace(from, to)..to])).filter(|piece| !piece.is_empty())
}

/// Entries read from the index at once.
const PAGE: usize = 1024;
/// An entry of a segment of packs that is at least this long is a chunk apart.
const LARGE_ENTRY: usize = 16 * 1024;
/// Where the index keeps the number of the checkpoint that this device wrote last.
pub(super) const NUMBER: &str = "own checkpoint";
