//! From local changes to sealed packets: what a round stores and publishes, in bounded memory.
//!
//! A change waits until the packs that hold its chunks are stored; then it joins the packet being built. When that is
//! large enough, or the round ends, the packet is sealed, recorded, folded, and the entries on disk that it accounts for
//! are recorded with it: one transaction, durable before the packet's first byte leaves the device.
//!
//! Small contents travel inside the packet as long as there are few; beyond that they go to packs like the rest.

use std::collections::{BTreeSet, HashSet, VecDeque};
use std::ops::AddAssign;
use std::sync::Mutex;
use std::sync::atomic::{AtomicBool, Ordering};

use crossbeam_channel::{Receiver, Sender, unbounded};

use packetboat_core::body::PacketBody;
use packetboat_core::change::{Change, Unit};
use packetboat_core::content::{ChunkRef, Content, PackIndex};
use packetboat_core::ids::{ChunkId, Dot, ItemId, PackId, PacketHash};
use packetboat_core::keys::{KeyRing, Nonce};
use packetboat_core::knowledge::{Knowledge, Learned};
use packetboat_core::local::{DirId, EntryState, LocalEntry, LocalRead};
use packetboat_core::name::Name;
use packetboat_core::packet::SealedPacket;
use packetboat_core::publish::SeenAfter;
use packetboat_core::store::Store;
use packetboat_core::tree::{Folding, TreeWrite, fold_packet};
use packetboat_replica::index::{ChunkLookup, ChunkPlace, ChunkSieve, Index, PackState, Stage};
use packetboat_storage::chunk::SealedChunk;
use packetboat_storage::pack::{self, PackParts};

use crate::Keys;
use crate::absorb::forget_entry;
use crate::error::SyncError;
use crate::paths::{RECORD_ONLY, is_record_only};
use crate::ports::Entropy;
use crate::prepare::{INLINE_CHUNK, KnownChunks, NewChunk};
use crate::telling::tell_all_but_the_last;

/// What the index records once a change is folded.
#[derive(Debug)]
pub(crate) enum After {
    /// An entry, with what it has seen then; the place it had before, if that was another.
    Put { entry: LocalEntry, seen: SeenAfter, was: Option<(DirId, Name)> },
    /// Entries that are gone, with the items they stood for: another object may have taken the place since.
    Gone(Vec<(DirId, Name, ItemId)>),
    /// An entry that is to be forgotten with all beneath it, and with what was put there before.
    Forget(LocalEntry),
}

/// A local change on its way into a packet.
#[derive(Debug)]
pub(crate) struct Pending {
    pub(crate) changes: Vec<Change>,
    pub(crate) after: Vec<After>,
    /// The pack that must be stored before this may be published; 0 for none.
    needs_pack: u64,
}

/// Gathers a round's changes into packets.
pub(crate) struct Builder<'a> {
    pub(crate) index: &'a mut Index,
    keys: &'a Keys,
    now_ms: i64,
    pub(crate) known: &'a RoundChunks,
    /// Whether another object may stand where something was recorded. Nearly always nothing does, and it is not looked.
    pub(crate) places_taken: bool,
    uploader: Uploader<'a>,
    /// The pack being filled and its number within the round, from 1.
    pack: PackParts,
    pack_number: u64,
    /// How many packs of the round are stored.
    stored: u64,
    /// Chunks that the index has recorded as stored and not yet committed.
    uncommitted: Vec<ChunkId>,
    uncommitted_packs: u64,
    queue: VecDeque<Pending>,
    /// Small chunks that travel inside the packet, while there are few.
    inline: Vec<NewChunk>,
    inline_bytes: usize,
    inline_limit: usize,
    packing_all: bool,
    body: Body,
    pub(crate) totals: Totals,
}

/// What a round published.
#[derive(Clone, Copy, Default, PartialEq, Eq, Debug)]
pub struct Totals {
    /// Packets sealed.
    pub packets: u64,
    /// Packs stored.
    pub packs: u64,
    /// Changes in these packets.
    pub changes: u64,
}

impl AddAssign for Totals {
    fn add_assign(&mut self, other: Self) {
        self.packets += other.packets;
        self.packs += other.packs;
        self.changes += other.changes;
    }
}

#[derive(Default)]
struct Body {
    changes: Vec<Change>,
    after: Vec<(After, usize)>,
    units: HashSet<Unit>,
    packs: Vec<PackIndex>,
    weight: usize,
    /// A pack that must be stored before this is sealed: small chunks moved to it after their changes had come here.
    needs_pack: u64,
}

impl<'a> Builder<'a> {
    /// A builder; opens a transaction on the index that [`finish`](Self::finish) commits.
    pub(crate) fn new(
        index: &'a mut Index,
        uploader: Uploader<'a>,
        keys: &'a Keys,
        now_ms: i64,
        inline_limit: usize,
        known: &'a RoundChunks,
    ) -> Result<Self, SyncError> {
        index.begin()?;
        Ok(Self {
            index,
            uploader,
            keys,
            now_ms,
            known,
            places_taken: false,
            pack: PackParts::default(),
            pack_number: 1,
            stored: 0,
            uncommitted: Vec::new(),
            uncommitted_packs: 0,
            queue: VecDeque::new(),
            inline: Vec::new(),
            inline_bytes: 0,
            inline_limit,
            packing_all: false,
            body: Body::default(),
            totals: Totals::default(),
        })
    }

    /// Takes a new chunk: into the packet while it is small and there are few, else into a pack.
    pub(crate) fn chunk(&mut self, chunk: NewChunk, entropy: &mut dyn Entropy) -> Result<(), SyncError> {
        if let (Some(plain), false) = (&chunk.plain, self.packing_all) {
            debug_assert!(plain.len() <= INLINE_CHUNK);
            self.inline_bytes += plain.len();
            self.inline.push(chunk);
            if self.inline_bytes > self.inline_limit {
                self.pack_everything(entropy)?;
            }
            return Ok(());
        }
        self.pack_chunk(chunk.sealed, entropy)
    }

    /// Takes a change whose new chunks were handed to [`chunk`](Self::chunk) before.
    pub(crate) fn change(
        &mut self,
        changes: Vec<Change>,
        after: Vec<After>,
        entropy: &mut dyn Entropy,
    ) -> Result<(), SyncError> {
        let needs_pack =
            if self.packing_all || !self.pack.is_empty() { self.pack_number } else { self.pack_number - 1 };
        self.queue.push_back(Pending { changes, after, needs_pack });
        self.release(entropy)
    }

    /// Stores, seals and records all that is left, and commits.
    pub(crate) fn finish(mut self, entropy: &mut dyn Entropy) -> Result<Totals, SyncError> {
        if !self.pack.is_empty() {
            self.begin_upload(entropy)?;
        }
        // One after another: the changes of each go into packets before the next is told of.
        while self.stored + 1 < self.pack_number {
            self.await_stored(self.stored + 1)?;
            self.release(entropy)?;
        }
        self.release(entropy)?;
        self.seal(entropy)?;
        self.index.commit()?;
        Ok(self.totals)
    }

    fn pack_everything(&mut self, entropy: &mut dyn Entropy) -> Result<(), SyncError> {
        self.packing_all = true;
        self.known.pack_all();
        self.inline_bytes = 0;
        let inline = std::mem::take(&mut self.inline);
        for chunk in inline {
            self.pack_chunk(chunk.sealed, entropy)?;
        }
        for pending in &mut self.queue {
            pending.needs_pack = self.pack_number;
        }
        self.body.needs_pack = self.pack_number;
        Ok(())
    }

    /// Takes a new chunk into a pack, however small it is.
    pub(crate) fn pack_chunk(&mut self, chunk: SealedChunk, entropy: &mut dyn Entropy) -> Result<(), SyncError> {
        self.pack.push(chunk);
        if self.pack.is_full() {
            self.begin_upload(entropy)?;
            self.release(entropy)?;
        }
        Ok(())
    }

    /// Puts the pack that was filled; the next is filled meanwhile. Few are on their way at once: they are in memory.
    fn begin_upload(&mut self, entropy: &mut dyn Entropy) -> Result<(), SyncError> {
        self.uploader.put(std::mem::take(&mut self.pack), entropy.nonce())?;
        self.pack_number += 1;
        let behind = self.pack_number.saturating_sub(1 + MAX_UPLOADING);
        self.await_stored(behind)
    }

    /// Waits until so many packs of the round are stored, and records them. A change refers only to recorded packs.
    fn await_stored(&mut self, number: u64) -> Result<(), SyncError> {
        while self.stored < number {
            let pack = self.uploader.await_one()?;
            // Pending until a packet tells of it: after a crash, the next packet that refers to it does.
            self.index.put_pack(&pack, PackState::Pending)?;
            self.uncommitted.extend(pack.chunks.iter().map(|chunk| chunk.id));
            self.uncommitted_packs += 1;
            if self.uncommitted_packs >= COMMIT_PACKS {
                self.commit()?;
            }
            self.body.weight += 40 * pack.chunks.len();
            self.body.packs.push(pack);
            self.stored += 1;
            self.totals.packs += 1;
        }
        Ok(())
    }

    /// Makes durable what was recorded so far, and goes on. What a look-up finds now needs no claim any more.
    fn commit(&mut self) -> Result<(), SyncError> {
        self.index.commit()?;
        self.index.begin()?;
        self.uncommitted_packs = 0;
        self.known.forget(self.uncommitted.drain(..));
        Ok(())
    }

    /// Moves the changes whose packs are stored into the packet.
    fn release(&mut self, entropy: &mut dyn Entropy) -> Result<(), SyncError> {
        while self.queue.front().is_some_and(|pending| pending.needs_pack <= self.stored) {
            let pending = self.queue.pop_front().expect("there is a front");
            self.add(pending, entropy)?;
        }
        Ok(())
    }

    fn add(&mut self, pending: Pending, entropy: &mut dyn Entropy) -> Result<(), SyncError> {
        let units: Vec<Unit> = pending.changes.iter().flat_map(Change::units).collect();
        let clash = units.iter().any(|unit| self.body.units.contains(unit));
        if clash || self.body.changes.len() >= MAX_CHANGES || self.body.weight >= MAX_WEIGHT {
            self.seal(entropy)?;
        }
        self.body.units.extend(units);
        self.body.weight += pending.changes.iter().map(weight).sum::<usize>();
        let first = self.body.changes.len();
        self.body.changes.extend(pending.changes);
        self.body.after.extend(pending.after.into_iter().map(|after| (after, first)));
        Ok(())
    }

    /// Seals what was gathered as the device's next packet, and folds it.
    fn seal(&mut self, entropy: &mut dyn Entropy) -> Result<(), SyncError> {
        if !self.body.changes.is_empty() && self.body.needs_pack > self.stored {
            if self.body.needs_pack >= self.pack_number && !self.pack.is_empty() {
                self.begin_upload(entropy)?;
            }
            self.await_stored(self.body.needs_pack.min(self.pack_number - 1))?;
        }
        let body = std::mem::take(&mut self.body);
        if body.changes.is_empty() {
            // Packs that no change refers to yet stay for the packet that will.
            self.body.packs = body.packs;
            for (after, _) in body.after {
                self.record(after, None)?;
            }
            return Ok(());
        }
        let inline: Vec<(ChunkId, Vec<u8>)> = self
            .inline
            .drain(..)
            .map(|chunk| (chunk.sealed.id, chunk.plain.expect("only small chunks travel inside")))
            .collect();
        self.inline_bytes = 0;
        let own_packs: HashSet<PackId> = body.packs.iter().map(|pack| pack.pack).collect();
        let own_chunks: HashSet<ChunkId> = inline
            .iter()
            .map(|(id, _)| *id)
            .chain(body.packs.iter().flat_map(|pack| pack.chunks.iter().map(|chunk| chunk.id)))
            .collect();
        let needs = self.needed_packs(&body.changes, &own_chunks, &own_packs)?;
        let mut packs = body.packs;
        let mut untold = Vec::new();
        for pack in &needs {
            if self.index.pack_row(pack)?.is_some_and(|row| row.state == PackState::Pending) {
                untold.extend(self.index.pack_index(pack)?);
            }
        }
        let needs = needs.into_iter().filter(|pack| untold.iter().all(|told| told.pack != *pack)).collect();
        packs.extend(untold);
        let told: Vec<PackId> = packs.iter().map(|pack| pack.pack).collect();
        let packs = tell_all_but_the_last(self.index, self.keys, self.now_ms, packs, entropy)?;
        let inline_ids: Vec<ChunkId> = inline.iter().map(|(id, _)| *id).collect();
        let body_changes = body.changes.len() as u64;
        let draft = Draft { needs, packs, inline, changes: body.changes };
        let packet = seal_own(self.index, self.keys, self.now_ms, draft, entropy)?;
        for pack in &told {
            self.index.set_pack_state(pack, PackState::Stored)?;
        }
        for id in &inline_ids {
            self.index.put_inline_chunk(id, packet.dot())?;
        }
        self.uncommitted.extend(inline_ids);
        for (after, _) in body.after {
            self.record(after, Some(packet.dot()))?;
        }
        self.commit()?;
        self.totals.packets += 1;
        self.totals.changes += body_changes;
        Ok(())
    }

    fn record(&mut self, after: After, dot: Option<Dot>) -> Result<(), SyncError> {
        match after {
            After::Put { mut entry, seen, was } => {
                let item = entry.seen.item;
                if let Some(dot) = dot {
                    entry.seen = seen.apply(&entry.seen, dot);
                }
                self.put(&entry, item, was)?;
            }
            After::Gone(places) => {
                for (dir, name, item) in places {
                    if let Some((dir, name)) = self.recorded_place(dir, &name, item)? {
                        self.index.remove_entry(dir, &name)?;
                    }
                }
            }
            After::Forget(entry) => self.forget(&entry)?,
        }
        Ok(())
    }

    /// Records an entry at its place, whatever was recorded there or has taken the place where it was.
    fn put(&mut self, entry: &LocalEntry, item: ItemId, was: Option<(DirId, Name)>) -> Result<(), SyncError> {
        let place = (entry.dir, entry.name.clone());
        if self.places_taken
            && let Some(there) = self.index.entry_at(place.0, &place.1)?
            && there.seen.item != item
        {
            self.park_record(there)?;
        }
        let from = match (entry.own_dir, was) {
            (Some(own), Some(_)) => self.index.directory(own)?.map(|entry| (entry.dir, entry.name)),
            (None, Some((dir, name))) => self.recorded_place(dir, &name, item)?,
            _ => None,
        };
        if let Some((dir, name)) = from.filter(|from| *from != place) {
            self.index.move_entry((dir, &name), (place.0, &place.1))?;
        }
        Ok(self.index.put_entry(entry)?)
    }

    /// Parks the record of an object whose place another has taken.
    ///
    /// It may have gone elsewhere, and what it holds hangs on its record until its own turn comes. Or its removal waits,
    /// in a later packet or in a later round, and only the record will ask for that.
    fn park_record(&mut self, mut there: LocalEntry) -> Result<(), SyncError> {
        let name = Name::new(format!("{RECORD_ONLY}{}", self.index.new_dir_id()?.0)).expect("a sound name");
        self.index.move_entry((there.dir, &there.name), (DirId::STAGING, &name))?;
        there.state = EntryState::Parked { dir: there.dir, name: there.name };
        (there.dir, there.name) = (DirId::STAGING, name);
        self.index.put_entry(&there)?;
        Ok(self.index.touch(there.seen.item)?)
    }

    /// Forgets an entry and all beneath it, wherever its record is by now: another object may have its place.
    fn forget(&mut self, entry: &LocalEntry) -> Result<(), SyncError> {
        let record = match entry.own_dir {
            Some(own) => self.index.directory(own)?,
            None => match self.recorded_place(entry.dir, &entry.name, entry.seen.item)? {
                Some((dir, name)) => self.index.entry_at(dir, &name)?,
                None => None,
            },
        };
        record.map_or(Ok(()), |record| forget_entry(self.index, &record))
    }

    /// Where the record is that an item had at a place: still there, or parked since.
    fn recorded_place(&self, dir: DirId, name: &Name, item: ItemId) -> Result<Option<(DirId, Name)>, SyncError> {
        if self.index.entry_at(dir, name)?.is_some_and(|entry| entry.seen.item == item) {
            return Ok(Some((dir, name.clone())));
        }
        if !self.places_taken {
            return Ok(None);
        }
        let parked = EntryState::Parked { dir, name: name.clone() };
        let entries = self.index.entries_of(item)?;
        let record = entries.into_iter().find(|entry| is_record_only(entry) && entry.state == parked);
        Ok(record.map(|entry| (entry.dir, entry.name)))
    }

    /// Packs of earlier packets to which these changes refer.
    fn needed_packs(
        &self,
        changes: &[Change],
        own_chunks: &HashSet<ChunkId>,
        own_packs: &HashSet<PackId>,
    ) -> Result<Vec<PackId>, SyncError> {
        let mut needs = BTreeSet::new();
        for chunk in changes.iter().filter_map(content_of).flat_map(chunks_of) {
            if own_chunks.contains(&chunk.id) {
                continue;
            }
            if let Some(ChunkPlace::Pack { pack, .. }) = self.index.chunk_place(&chunk.id)?
                && !own_packs.contains(&pack)
            {
                needs.insert(pack);
            }
        }
        Ok(needs.into_iter().collect())
    }

    /// Gives up what was not sealed yet. What was stays good.
    pub(crate) fn abandon(self) {
        // A rollback that fails leaves nothing behind either: the database undoes it when it is opened again.
        let _ = self.index.rollback();
    }
}

/// Puts packs together and to the storage: on threads of its own, so that the next is prepared meanwhile, or at once.
pub(crate) enum Uploader<'a> {
    /// At once, on the caller's thread; the packs that were put and not asked for.
    Inline { store: &'a dyn Store, ring: &'a KeyRing, put: VecDeque<PackIndex> },
    /// On other threads, in turns; how many packs were put, and of how many the result was taken.
    Threads { lanes: [UploadLane; UPLOAD_THREADS], put: usize, answered: usize },
}

impl<'a> Uploader<'a> {
    /// An uploader that does everything at once.
    pub(crate) fn inline(store: &'a dyn Store, ring: &'a KeyRing) -> Self {
        Self::Inline { store, ring, put: VecDeque::new() }
    }

    /// An uploader with threads in `scope`, which end when the uploader is dropped.
    ///
    /// While one waits for the storage to say that a pack is durable, the other writes the next. They take turns, so
    /// that the oldest put is always known.
    pub(crate) fn with_threads<'scope>(
        scope: &'scope std::thread::Scope<'scope, 'a>,
        store: &'a dyn Store,
        ring: &'a KeyRing,
    ) -> Self {
        let lanes = std::array::from_fn(|_| {
            let (packs, packs_rx) = unbounded::<(PackParts, Nonce)>();
            let (results_tx, results) = unbounded();
            scope.spawn(move || {
                // Used again for each pack: memory of this size is not cheap to get and give back.
                let mut buffer = Vec::new();
                for (parts, nonce) in packs_rx {
                    if results_tx.send(put(store, ring, parts, nonce, &mut buffer)).is_err() {
                        return;
                    }
                }
            });
            UploadLane { packs, results }
        });
        Self::Threads { lanes, put: 0, answered: 0 }
    }

    fn put(&mut self, parts: PackParts, nonce: Nonce) -> Result<(), SyncError> {
        match self {
            Self::Inline { store, ring, put: done } => {
                done.push_back(put(*store, ring, parts, nonce, &mut Vec::new())?);
            }
            Self::Threads { lanes, put, .. } => {
                let _ = lanes[*put % UPLOAD_THREADS].packs.send((parts, nonce));
                *put += 1;
            }
        }
        Ok(())
    }

    /// Waits until the oldest put is done; answers with what was put.
    fn await_one(&mut self) -> Result<PackIndex, SyncError> {
        match self {
            Self::Inline { put, .. } => Ok(put.pop_front().expect("what was put is on its way")),
            Self::Threads { lanes, answered, .. } => {
                let result = lanes[*answered % UPLOAD_THREADS].results.recv().expect("each put is answered");
                *answered += 1;
                result
            }
        }
    }
}

/// Writes a pack in the memory of `buffer` and puts it.
fn put(
    store: &dyn Store,
    ring: &KeyRing,
    parts: PackParts,
    nonce: Nonce,
    buffer: &mut Vec<u8>,
) -> Result<PackIndex, SyncError> {
    let (pack, bytes) = parts.write(ring, nonce, std::mem::take(buffer))?;
    store.put_new(&pack::object_name(&pack.pack), &bytes)?;
    *buffer = bytes;
    Ok(pack)
}

/// One thread of an uploader.
pub(crate) struct UploadLane {
    packs: Sender<(PackParts, Nonce)>,
    results: Receiver<Result<PackIndex, SyncError>>,
}

/// What goes into a packet of one's own.
#[derive(Default)]
pub(crate) struct Draft {
    pub(crate) needs: Vec<PackId>,
    pub(crate) packs: Vec<PackIndex>,
    pub(crate) inline: Vec<(ChunkId, Vec<u8>)>,
    pub(crate) changes: Vec<Change>,
}

/// The time that the packets of an operation bear which begins now: another than the packet before them bears, so that all
/// that bear one time are one operation, which is undone as a whole ([`crate::undo`]). A round bears the clock's own: what was
/// published before it is older than its scan.
pub(crate) fn time_of_operation(index: &Index, keys: &Keys, now_ms: i64) -> Result<i64, SyncError> {
    let device = keys.device.device();
    let before = index.packet_row(Dot { device, counter: index.knowledge().counter(&device) })?;
    let is_taken = before.and_then(|row| row.folded).is_some_and(|folded| folded.time == now_ms);
    Ok(now_ms + i64::from(is_taken))
}

/// Seals this device's next packet, records and folds it. Within the caller's transaction.
pub(crate) fn seal_own(
    index: &mut Index,
    keys: &Keys,
    now_ms: i64,
    draft: Draft,
    entropy: &mut dyn Entropy,
) -> Result<SealedPacket, SyncError> {
    let device = keys.device.device();
    let knowledge = index.knowledge().clone();
    let own = knowledge.of(&device);
    let before = index.lane_prerequisite(device)?;
    let mut others = knowledge.since(&before);
    others = without(&others, &device);
    let body = PacketBody {
        lamport: index.max_lamport()? + 1,
        time: now_ms,
        prerequisite: others,
        needs: draft.needs,
        packs: draft.packs,
        inline: draft.inline,
        changes: draft.changes,
    };
    let counter = own.map_or(0, |own| own.counter) + 1;
    let previous = own.map_or(PacketHash([0; 32]), |own| own.hash);
    let sealed = SealedPacket::seal(&keys.device, &keys.ring, counter, previous, entropy.nonce(), &body)?;
    let packet = sealed.open(&keys.ring)?;
    record_folded(index, &keys.ring, &sealed, &packet, &knowledge, Folding::Own)?;
    Ok(sealed)
}

/// Folds an admitted packet and records that it was folded. Within the caller's transaction.
pub(crate) fn record_folded(
    index: &mut Index,
    ring: &KeyRing,
    sealed: &SealedPacket,
    packet: &packetboat_core::packet::Packet,
    prerequisite: &Knowledge,
    folding: Folding,
) -> Result<packetboat_core::tree::Folded, SyncError> {
    for pack in &packet.body.packs {
        if index.pack_row(&pack.pack)?.is_none() {
            index.put_pack(pack, PackState::Stored)?;
        }
    }
    crate::checkpoints::held::strike_out(index, packet.body.packs.iter().map(|pack| pack.pack))?;
    crate::needed::note(index, packet)?;
    if packetboat_core::garbage::condemns_packs(packet) {
        crate::checkpoints::held::strike_out(index, packet.body.needs.iter().copied())?;
    }
    for (id, _) in &packet.body.inline {
        // A pack that is condemned or damaged may be gone: who sent the chunk once more did not rely on it.
        let lies_elsewhere = match index.chunk_place(id)? {
            None => false,
            Some(ChunkPlace::Packet { .. }) => true,
            Some(ChunkPlace::Pack { pack, .. }) => {
                let state = index.pack_row(&pack)?.map(|row| row.state);
                matches!(state, Some(PackState::Stored | PackState::Pending))
            }
        };
        if !lies_elsewhere {
            index.put_inline_chunk(id, packet.dot)?;
        }
    }
    index.put_packet(sealed, Stage::Folded)?;
    let folded = fold_packet(index, packet, folding)?;
    crate::members::fold(index, packet)?;
    crate::conflicts::note(index, packet, folding)?;
    crate::garbage::fold(index, ring, packet, prerequisite)?;
    let learned = Learned { counter: packet.dot.counter, hash: packet.hash };
    index.set_folded(packet.dot, packet.body.lamport, packet.body.time, &folded.summary)?;
    index.advance_lane(packet.dot.device, learned, packet.body.lamport, prerequisite)?;
    Ok(folded)
}

fn without(knowledge: &Knowledge, device: &packetboat_core::ids::DeviceId) -> Knowledge {
    let mut rest = Knowledge::new();
    for (other, learned) in knowledge.iter().filter(|(other, _)| *other != device) {
        rest.advance(*other, *learned);
    }
    rest
}

/// The content that a change sets.
pub(crate) fn content_of(change: &Change) -> Option<&Content> {
    match change {
        Change::Create { content, .. } | Change::Content { content, .. } => Some(content),
        _ => None,
    }
}

/// The chunks that a content names.
pub(crate) fn chunks_of(content: &Content) -> &[ChunkRef] {
    match content {
        Content::File(file) => file.chunks.first(),
        _ => &[],
    }
}

/// About how many bytes a change takes in a packet.
fn weight(change: &Change) -> usize {
    match change {
        Change::Delete { removed } => removed.len() * 24,
        Change::Create { content, name, .. } => 24 + name.as_bytes().len() + 6 * chunks_of(content).len(),
        change => 48 + content_of(change).map_or(0, |content| 38 * chunks_of(content).len()),
    }
}

/// The chunks that are stored, or about to be by this round.
pub(crate) struct RoundChunks {
    stored: ChunkLookup,
    claims: Mutex<Claims>,
    packs_all: AtomicBool,
}

#[derive(Default)]
struct Claims {
    chunks: HashSet<ChunkId>,
    /// How often the look-up was asked.
    asked: u32,
    /// Made once so many were asked for that reading all is cheaper.
    sieve: Option<ChunkSieve>,
}

impl RoundChunks {
    pub(crate) fn new(stored: ChunkLookup) -> Self {
        Self { stored, claims: Mutex::default(), packs_all: AtomicBool::new(false) }
    }

    /// Whether nothing may be referred to that others stored.
    pub(crate) fn counts_own_alone(&self) -> bool {
        self.stored.is_of_own()
    }

    /// Forgets claims on chunks that the index has committed, where the look-up finds them there.
    fn forget(&self, chunks: impl Iterator<Item = ChunkId>) {
        if !self.stored.is_live() {
            return;
        }
        let mut claims = self.claims.lock().expect("nobody panics holding this");
        for chunk in chunks {
            if let Some(sieve) = &mut claims.sieve {
                sieve.add(&chunk);
            }
            claims.chunks.remove(&chunk);
        }
    }

    /// Notes that no chunk travels inside a packet any more.
    fn pack_all(&self) {
        self.packs_all.store(true, Ordering::Relaxed);
    }
}

impl KnownChunks for RoundChunks {
    fn claim(&self, id: &ChunkId) -> bool {
        // Held over the look-up: a claim that is gone was committed before, so one of the two is always seen.
        let mut claims = self.claims.lock().expect("nobody panics holding this");
        if claims.chunks.contains(id) {
            return false;
        }
        if claims.sieve.is_none() && claims.asked >= ASKED_BEFORE_SIEVE {
            // What is committed and not yet forgotten is in it; what will be is added when it is forgotten.
            claims.sieve = self.stored.sieve();
            claims.asked = 0;
        }
        if claims.sieve.as_ref().is_none_or(|sieve| sieve.may_hold(id)) {
            claims.asked += 1;
            if self.stored.is_stored(id) {
                return false;
            }
        }
        claims.chunks.insert(*id)
    }

    fn wants_small(&self) -> bool {
        !self.packs_all.load(Ordering::Relaxed)
    }
}

/// Packs that are put while others are prepared.
const MAX_UPLOADING: u64 = UPLOAD_THREADS as u64;
/// How many threads put packs.
const UPLOAD_THREADS: usize = 2;
/// So many chunks are looked up each on its own before all that are stored are read: a small round shall not pay for it.
const ASKED_BEFORE_SIEVE: u32 = 2_000;
/// Packs that are recorded in one transaction: each waits for the disk. A crash forgets so many, and they are stored anew.
const COMMIT_PACKS: u64 = 4;
/// Changes of one packet: sealed, opened and folded they are in memory several times, and nothing else is recorded
/// meanwhile.
const MAX_CHANGES: usize = 5_000;
const MAX_WEIGHT: usize = 4 * 1024 * 1024;

#[cfg(test)]
mod tests;
