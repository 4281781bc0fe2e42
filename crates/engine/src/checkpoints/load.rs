//! Beginning from a checkpoint: the folded state as somebody stored it, in the place of all packets before it.
//!
//! Of the checkpoints that tips name those come first before whose beginning of history most is gone, and of these the one
//! that covers most. Its segments are read in the order in which they lie, a few at a time, and each batch is a transaction;
//! what was learned is recorded with the last. Until then the index says that it is loading, and whoever finds it so starts
//! over: half a state is never folded on.
//!
//! A checkpoint that is missing, damaged or not authentic in any part is passed over for the next, and in the end for
//! the lanes, which say the same.

use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::ops::ControlFlow;

use packetboat_core::checkpoint::{
    CHECKPOINTS_FOLDER, CheckpointRef, CheckpointRoot, SegmentChunk, SegmentRef, SegmentStart, decode_segment,
};
use packetboat_core::content::{ChunkRef, PackIndex};
use packetboat_core::ids::{DeviceId, PackId};
use packetboat_core::item::Item;
use packetboat_core::store::{Store, StoreError};
use packetboat_core::tree::{MoveRecord, TreeRead, TreeWrite};
use packetboat_core::wanted::Wanted;
use packetboat_core::wire::WireError;
use packetboat_replica::index::{Index, PackState};
use packetboat_storage::fetch::{ChunkPlace, FetchError, fetch_chunks};

use super::{PROBLEM, held, read_root, total};
use crate::Keys;
use crate::conflicts::CANDIDATE;
use crate::error::SyncError;
use crate::learn::problems::told_of;
use crate::learn::{LearnError, described};
use crate::ports::{Note, Observer};
use crate::refusals;

/// Clears what a begin from a checkpoint left behind that was cut short.
pub(crate) fn start_over_if_cut_short(index: &mut Index) -> Result<(), SyncError> {
    if index.meta(LOADING)?.is_some() { clear(index) } else { Ok(()) }
}

/// Begins from the best sound checkpoint of these, where nothing was folded yet; says whether it did.
///
/// Those that could not be used are added to `damaged`.
pub(crate) fn begin(
    index: &mut Index,
    store: &dyn Store,
    keys: &Keys,
    named: &BTreeSet<CheckpointRef>,
    damaged: &mut BTreeSet<Wanted>,
    observer: &mut dyn Observer,
) -> Result<bool, SyncError> {
    if named.is_empty() || !index.knowledge().is_empty() {
        return Ok(false);
    }
    // Tips are kept in mind: what fails clears the index.
    let mut failures = Vec::new();
    let begun = begin_from(index, store, keys, named.iter().copied(), &mut failures, observer)? || {
        let older = others_stored(store, named)?;
        begin_from(index, store, keys, older.into_iter(), &mut failures, observer)?
    };
    if begun {
        // Those that could not be used are passed over, now and in the rounds before: nobody here needs them any more.
        for problem in index.problems()?.iter().filter(|problem| problem.kind == PROBLEM) {
            index.clear_problem(PROBLEM, &problem.subject)?;
        }
    }
    for (checkpoint, reason) in failures {
        damaged.insert(Wanted::Checkpoint(checkpoint));
        if !begun {
            let name = checkpoint.name();
            index.set_problem(PROBLEM, name.as_str().as_bytes(), &reason)?;
            observer.note(Note::Warning { text: told_of(name.as_str(), &reason) });
        }
    }
    Ok(begun)
}

/// Checkpoints that no tip names, the newest of each author first.
fn others_stored(store: &dyn Store, named: &BTreeSet<CheckpointRef>) -> Result<Vec<CheckpointRef>, SyncError> {
    let listing = store.list(CHECKPOINTS_FOLDER)?;
    let mut others: Vec<CheckpointRef> = listing
        .iter()
        .filter_map(|listed| CheckpointRef::from_name(&listed.name))
        .filter(|checkpoint| !named.contains(checkpoint))
        .collect();
    others.sort_by_key(|checkpoint| std::cmp::Reverse(checkpoint.number));
    others.truncate(MAX_OLDER);
    Ok(others)
}

fn begin_from(
    index: &mut Index,
    store: &dyn Store,
    keys: &Keys,
    candidates: impl Iterator<Item = CheckpointRef>,
    failures: &mut Vec<(CheckpointRef, String)>,
    observer: &mut dyn Observer,
) -> Result<bool, SyncError> {
    let mut roots = Vec::new();
    for checkpoint in candidates {
        match read_root(store, keys, &checkpoint) {
            Ok(root) => roots.push((checkpoint, root)),
            Err(LearnError::Unusable(reason) | LearnError::Locked(reason)) => failures.push((checkpoint, reason)),
            Err(LearnError::Sync(error)) => return Err(error),
        }
    }
    // What contains a lane beyond where another side of it was given up may contain that side. Nor what others refuse.
    let (parted, given_up) = (crate::forks::given_up(index)?, refusals::given_up(index)?);
    roots.retain(|(_, root)| refusals::is_free_of(root, &parted) && refusals::is_free_of(root, &given_up));
    let taken_over = refusals::taken_over(index)?;
    if roots.iter().any(|(_, root)| refusals::contains(root, &taken_over)) {
        roots.retain(|(_, root)| refusals::contains(root, &taken_over));
    }
    // Such a device may have written it itself before it knew.
    let passed_over = crate::learn::passed_over::of(index, keys.device.device())?;
    roots.retain(|(_, root)| {
        let contains = |device: &DeviceId| root.knowledge.counter(device) > root.garbage.ended().counter(device);
        !passed_over.iter().any(contains)
    });
    // Of two beginnings of history one stays: what another contains besides nobody may build on.
    let rank = |root: &CheckpointRoot| (super::rank_of_beginning(root.garbage.ended()), total(&root.knowledge));
    roots.sort_by_key(|(_, root)| std::cmp::Reverse(rank(root)));
    for (checkpoint, root) in roots {
        index.set_meta(LOADING, Some(checkpoint.name().as_str().as_bytes()))?;
        let result = load(index, store, keys, &checkpoint, &root, observer);
        if result.is_err() && index.in_transaction() {
            index.rollback()?;
        }
        let reason = match result {
            Ok(()) => return Ok(true),
            Err(LearnError::Unusable(reason) | LearnError::Locked(reason)) => reason,
            // A storage that fails may recover; one that fails twice at the same checkpoint may never for this one.
            Err(LearnError::Sync(SyncError::Store(error))) if failed_before(index, &checkpoint)? => {
                crate::error::chain(&error)
            }
            Err(LearnError::Sync(error @ SyncError::Store(_))) => {
                index.set_meta(FAILED, Some(checkpoint.name().as_str().as_bytes()))?;
                return Err(error);
            }
            Err(LearnError::Sync(error)) => return Err(error),
        };
        clear(index)?;
        failures.push((checkpoint, reason));
    }
    Ok(false)
}

fn failed_before(index: &Index, checkpoint: &CheckpointRef) -> Result<bool, SyncError> {
    Ok(index.meta(FAILED)?.is_some_and(|failed| failed == checkpoint.name().as_str().as_bytes()))
}

fn clear(index: &mut Index) -> Result<(), SyncError> {
    index.begin()?;
    super::forget_folded(index)?;
    index.set_meta(LOADING, None)?;
    Ok(index.commit()?)
}

pub(super) fn load(
    index: &mut Index,
    store: &dyn Store,
    keys: &Keys,
    checkpoint: &CheckpointRef,
    root: &CheckpointRoot,
    observer: &mut dyn Observer,
) -> Result<(), LearnError> {
    let mut loader = Loader { index, heard: BTreeMap::new() };
    let ends: Vec<Option<SegmentStart>> =
        root.segments.iter().skip(1).map(|next| Some(next.start)).chain([None]).collect();
    for batch in batches(&root.segments) {
        if observer.interrupted() {
            return Err(LearnError::Sync(SyncError::Interrupted));
        }
        let segments = fetch(store, keys, batch.iter().map(|at| &root.segments[*at]).collect())?;
        loader.index.begin()?;
        let mut entries = 0;
        for (at, bytes) in batch.iter().zip(segments) {
            entries += loader.segment(&root.segments[*at].start, ends[*at].as_ref(), &bytes)?;
        }
        loader.index.commit()?;
        observer.advance(entries, 0);
    }
    let heard = loader.heard;
    index.begin()?;
    for (device, end) in &root.lanes {
        let learned = root.knowledge.of(device).expect("a root has a lane for each device that it knows");
        index.advance_lane(*device, learned, end.lamport, &end.prerequisite)?;
    }
    crate::members::store(index, &root.members)?;
    crate::garbage::store(index, &root.garbage)?;
    for mut member in index.members()? {
        member.heard_lamport = root.lanes.get(&member.device).map_or(0, |end| end.lamport);
        member.heard_time = heard.get(&member.device).copied().unwrap_or(0);
        index.put_member(&member)?;
    }
    held::hold(index, checkpoint, root, keys.ring.current())?;
    held::set_packed(index, &root.knowledge)?;
    index.set_meta(FAILED, None)?;
    index.set_meta(LOADING, None)?;
    index.commit()?;
    Ok(())
}

/// Whether every segment of a checkpoint can be read and is the one that the root names.
pub(super) fn are_segments_readable(store: &dyn Store, keys: &Keys, root: &CheckpointRoot) -> Result<bool, SyncError> {
    for batch in batches(&root.segments) {
        match fetch(store, keys, batch.iter().map(|at| &root.segments[*at]).collect()) {
            Ok(_) => {}
            Err(LearnError::Unusable(_) | LearnError::Locked(_)) => return Ok(false),
            Err(LearnError::Sync(error)) => return Err(error),
        }
    }
    Ok(true)
}

/// Which segments to read together: in the order in which they lie in packs, so many as fit into memory.
fn batches(segments: &[SegmentRef]) -> Vec<Vec<usize>> {
    let mut ranks: HashMap<PackId, usize> = HashMap::new();
    for chunk in segments.iter().flat_map(|segment| &segment.chunks) {
        let next = ranks.len();
        ranks.entry(chunk.pack).or_insert(next);
    }
    let mut order: Vec<usize> = (0..segments.len()).collect();
    order.sort_by_key(|at| segments[*at].chunks.first().map(|chunk| (ranks[&chunk.pack], chunk.offset)));
    let mut batches: Vec<Vec<usize>> = Vec::new();
    let mut room = 0u64;
    for at in order {
        let size = segments[at].chunks.iter().map(|chunk| u64::from(chunk.chunk.len)).sum();
        match batches.last_mut().filter(|_| size <= room) {
            Some(batch) => batch.push(at),
            None => {
                batches.push(vec![at]);
                room = BATCH_BYTES;
            }
        }
        room = room.saturating_sub(size);
    }
    batches
}

/// The plaintext of these segments.
fn fetch(store: &dyn Store, keys: &Keys, segments: Vec<&SegmentRef>) -> Result<Vec<Vec<u8>>, LearnError> {
    let chunks: Vec<&SegmentChunk> = segments.iter().flat_map(|segment| &segment.chunks).collect();
    let wanted: Vec<(ChunkRef, ChunkPlace)> = chunks
        .iter()
        .map(|SegmentChunk { chunk, pack, epoch, offset, sealed_len }| {
            (*chunk, ChunkPlace { pack: *pack, epoch: *epoch, offset: *offset, sealed_len: *sealed_len })
        })
        .collect();
    let mut plain: Vec<Vec<u8>> = vec![Vec::new(); wanted.len()];
    let failed = fetch_chunks(store, &keys.ring, &wanted, 1, |at, answer| match answer {
        Ok(bytes) => {
            plain[at] = bytes;
            ControlFlow::Continue(())
        }
        Err(error) => ControlFlow::Break((at, error)),
    });
    if let ControlFlow::Break((at, error)) = failed {
        return Err(fetch_error(&wanted[at].1, error));
    }
    let mut plain = plain.into_iter();
    Ok(segments.iter().map(|segment| plain.by_ref().take(segment.chunks.len()).flatten().collect()).collect())
}

/// What is not there or damaged concerns this checkpoint; a storage that fails concerns the round.
fn fetch_error(place: &ChunkPlace, error: FetchError) -> LearnError {
    let FetchError::Unread { source } = &error else { return described(error) };
    match &**source {
        StoreError::Io { action, name, .. } => LearnError::Sync(SyncError::Store(StoreError::Io {
            action,
            name: name.clone(),
            source: std::io::Error::other(std::sync::Arc::clone(source)),
        })),
        _ => LearnError::Unusable(format!("pack {}: {}", place.pack.short(), crate::error::chain(&error))),
    }
}

struct Loader<'a> {
    index: &'a mut Index,
    /// When each device was last heard of at least, in milliseconds since 1970 UTC: by what it wrote.
    heard: BTreeMap<DeviceId, i64>,
}

impl Loader<'_> {
    /// Stores what a segment holds, which must lie between its own start and the next; returns how many entries.
    fn segment(&mut self, start: &SegmentStart, end: Option<&SegmentStart>, bytes: &[u8]) -> Result<u64, LearnError> {
        match start {
            SegmentStart::Items(_) => {
                let items = sound(decode_segment::<Item>(bytes), start, end, |item| SegmentStart::Items(item.id))?;
                items.iter().try_for_each(|item| self.item(item))?;
                Ok(items.len() as u64)
            }
            SegmentStart::Moves(_) => {
                let key = |record: &MoveRecord| SegmentStart::Moves(record.to.stamp);
                let moves = sound(decode_segment::<MoveRecord>(bytes), start, end, key)?;
                moves.iter().try_for_each(|record| self.index.put_move(record))?;
                Ok(moves.len() as u64)
            }
            SegmentStart::Packs(_) => {
                let packs =
                    sound(decode_segment::<PackIndex>(bytes), start, end, |pack| SegmentStart::Packs(pack.pack))?;
                packs.iter().try_for_each(|pack| self.index.put_pack(pack, PackState::Stored))?;
                held::add_named_by_checkpoint(self.index, &packs)?;
                Ok(packs.len() as u64)
            }
        }
    }

    /// Stores an item as folding would have left it: touched, and noted where it may be in a conflict.
    fn item(&mut self, item: &Item) -> Result<(), LearnError> {
        self.index.put_item(item)?;
        self.index.touch(item.id)?;
        for head in &item.heads {
            let heard = self.heard.entry(head.dot.device).or_default();
            *heard = (*heard).max(head.time.saturating_mul(1000));
        }
        let shares_its_place = || self.index.named(item.at.parent, &item.at.name).map(|named| named.len() > 1);
        if item.heads.len() > 1 && item.seats().len() > 1 || shares_its_place()? {
            self.index.set_problem(CANDIDATE, item.id.as_bytes(), "")?;
        }
        Ok(())
    }
}

/// Entries that decode, begin where the root says and end before the next segment.
fn sound<E>(
    entries: Result<Vec<E>, WireError>,
    start: &SegmentStart,
    end: Option<&SegmentStart>,
    key: impl Fn(&E) -> SegmentStart,
) -> Result<Vec<E>, LearnError> {
    let entries = entries.map_err(described)?;
    let begins = entries.first().is_some_and(|first| key(first) == *start);
    let ends = entries.last().is_some_and(|last| end.is_none_or(|end| key(last) < *end));
    if begins && ends { Ok(entries) } else { Err(LearnError::Unusable("a segment is another".to_owned())) }
}

/// Where the index keeps that it is loading a checkpoint, and which.
const LOADING: &str = "loading checkpoint";
/// Where the index keeps which checkpoint could not be read for want of a working storage.
const FAILED: &str = "checkpoint not read";
/// How much plaintext is read at once, if no single segment is larger.
const BATCH_BYTES: u64 = 8 * 1024 * 1024;
/// How many checkpoints that no tip names are tried.
const MAX_OLDER: usize = 8;
