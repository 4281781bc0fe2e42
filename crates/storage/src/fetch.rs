//! Reads chunks back from packs: few requests, bounded memory, each chunk proven and reported on its own.
//!
//! Wanted chunks are grouped by pack, sorted by place, and read in ranges: neighbours share one where less than
//! [`MAX_GAP_BYTES`] lies between them and the range stays within [`MAX_RANGE_BYTES`].
//! A range that cannot be read is tried again chunk by chunk, since one bad block need not cost the others;
//! it is not when the pack is missing or access is refused, where more requests would say the same.
//!
//! Each entry is answered exactly once, unless the sink stops earlier; a chunk wanted twice is read once and answered twice.
//! In memory there are, for each thread, one range and two batches of opened chunks at a time: [`BATCH_BYTES`] and a chunk.
//! Impossible places are answered first; with one thread the others follow in order: packs as they first appear, chunks as
//! they lie in them.
//!
//! Left out: finding out where chunks lie, trying another intermediary, and retrying in time; an answer says which it needs.

use std::collections::HashMap;
use std::ops::{ControlFlow, Range};
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

use packetboat_core::content::ChunkRef;
use packetboat_core::ids::{Epoch, PackId};
use packetboat_core::keys::KeyRing;
use packetboat_core::store::{Store, StoreError};
use thiserror::Error;

use crate::chunk::{ChunkCodec, ChunkError, MAX_SEALED_BYTES, MIN_SEALED_BYTES, open_chunk};
use crate::pack::{MAX_PACK_BYTES, object_name};

/// Where a chunk's sealed bytes lie.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug)]
pub struct ChunkPlace {
    /// The pack.
    pub pack: PackId,
    /// The epoch in which the pack was sealed.
    pub epoch: Epoch,
    /// Where the sealed bytes begin, in bytes from the start of the pack.
    pub offset: u32,
    /// Their length in bytes.
    pub sealed_len: u32,
}

impl ChunkPlace {
    /// Whether a sealed chunk could lie there at all; places come from packets and are checked here.
    fn is_possible(&self) -> bool {
        (MIN_SEALED_BYTES..=MAX_SEALED_BYTES).contains(&self.sealed_len) && self.end() <= u64::from(MAX_PACK_BYTES)
    }

    fn end(&self) -> u64 {
        u64::from(self.offset) + u64::from(self.sealed_len)
    }
}

/// Reads and opens the wanted chunks, and hands each to `sink` with its index in `wanted`, on the calling thread.
///
/// With `threads` of 0 or 1 everything happens on the calling thread, in a fixed order; with more, that many threads read
/// and open, and answers come as they are ready.
/// When `sink` breaks, no further request is begun, and what it broke with is returned.
pub fn fetch_chunks<B>(
    store: &dyn Store,
    ring: &KeyRing,
    wanted: &[(ChunkRef, ChunkPlace)],
    threads: usize,
    mut sink: impl FnMut(usize, Result<Vec<u8>, FetchError>) -> ControlFlow<B>,
) -> ControlFlow<B> {
    let mut order = Vec::with_capacity(wanted.len());
    for (number, (_, place)) in wanted.iter().enumerate() {
        if place.is_possible() {
            order.push(number);
        } else {
            sink(number, Err(FetchError::ImpossiblePlace))?;
        }
    }
    sort_by_place(&mut order, wanted);
    let ranges = plan_ranges(&order, wanted);
    let fetch = Fetch { store, ring, wanted, order: &order };
    if threads <= 1 || ranges.len() <= 1 {
        let mut codec = ChunkCodec::new();
        return ranges.iter().try_for_each(|range| fetch.range(&mut codec, range, &mut sink));
    }
    fetch.in_threads(&ranges, threads.min(ranges.len()), sink)
}

/// Puts entries in the order of packs as they first appear, then of place.
fn sort_by_place(order: &mut [usize], wanted: &[(ChunkRef, ChunkPlace)]) {
    let mut ranks = HashMap::new();
    for number in order.iter() {
        let next = ranks.len();
        ranks.entry(wanted[*number].1.pack).or_insert(next);
    }
    order.sort_by_key(|number| {
        let place = &wanted[*number].1;
        (ranks[&place.pack], place.offset, place.sealed_len, *number)
    });
}

/// One read: a piece of a pack, and the entries of the order that lie in it.
#[derive(Clone, PartialEq, Eq, Debug)]
struct ReadRange {
    pack: PackId,
    start: u64,
    end: u64,
    members: Range<usize>,
}

fn plan_ranges(order: &[usize], wanted: &[(ChunkRef, ChunkPlace)]) -> Vec<ReadRange> {
    let mut ranges: Vec<ReadRange> = Vec::new();
    for (at, number) in order.iter().enumerate() {
        let place = &wanted[*number].1;
        let start = u64::from(place.offset);
        if let Some(last) = ranges.last_mut() {
            let end = last.end.max(place.end());
            if last.pack == place.pack && start < last.end + MAX_GAP_BYTES && end - last.start <= MAX_RANGE_BYTES {
                last.end = end;
                last.members.end = at + 1;
                continue;
            }
        }
        ranges.push(ReadRange { pack: place.pack, start, end: place.end(), members: at..at + 1 });
    }
    ranges
}

/// What all reads of one call share.
struct Fetch<'a> {
    store: &'a dyn Store,
    ring: &'a KeyRing,
    wanted: &'a [(ChunkRef, ChunkPlace)],
    /// Indexes into `wanted`, sorted; ranges name stretches of it.
    order: &'a [usize],
}

impl Fetch<'_> {
    /// Reads a range and answers each of its entries.
    fn range<B>(
        &self,
        codec: &mut ChunkCodec,
        range: &ReadRange,
        sink: &mut impl FnMut(usize, Result<Vec<u8>, FetchError>) -> ControlFlow<B>,
    ) -> ControlFlow<B> {
        let members = &self.order[range.members.clone()];
        match self.read(range) {
            Ok(bytes) => members.iter().try_for_each(|number| {
                let (chunk, place) = &self.wanted[*number];
                let start = (u64::from(place.offset) - range.start) as usize;
                // The read is as long as the range, and the range spans its members.
                let sealed = &bytes[start..start + place.sealed_len as usize];
                sink(*number, open_chunk(self.ring, codec, place.epoch, chunk, sealed).map_err(FetchError::from))
            }),
            Err(error) if members.len() == 1 || is_final(&error) => {
                let source = Arc::new(error);
                members.iter().try_for_each(|number| {
                    let source = Arc::clone(&source);
                    sink(*number, Err(FetchError::Unread { source }))
                })
            }
            Err(_) => range.members.clone().try_for_each(|at| {
                let place = &self.wanted[self.order[at]].1;
                let single =
                    ReadRange { pack: range.pack, start: place.offset.into(), end: place.end(), members: at..at + 1 };
                self.range(codec, &single, sink)
            }),
        }
    }

    fn read(&self, range: &ReadRange) -> Result<Vec<u8>, StoreError> {
        let (name, len) = (object_name(&range.pack), range.end - range.start);
        let bytes = self.store.get_range(&name, range.start, len)?;
        // A store that answers with less or more than was asked for must not make us slice out of bounds.
        if bytes.len() as u64 == len { Ok(bytes) } else { Err(StoreError::Short { name }) }
    }

    /// Reads ranges on `threads` threads; answers pass through a short queue, so that readers wait for a slow sink.
    fn in_threads<B>(
        &self,
        ranges: &[ReadRange],
        threads: usize,
        mut sink: impl FnMut(usize, Result<Vec<u8>, FetchError>) -> ControlFlow<B>,
    ) -> ControlFlow<B> {
        let next = AtomicUsize::new(0);
        std::thread::scope(|scope| {
            let (sender, answers) = crossbeam_channel::bounded(threads);
            for _ in 0..threads {
                let (sender, next) = (sender.clone(), &next);
                scope.spawn(move || {
                    let mut codec = ChunkCodec::new();
                    while let Some(range) = ranges.get(next.fetch_add(1, Ordering::Relaxed)) {
                        // Small chunks go together: handing over each alone would cost more than opening it.
                        let (mut batch, mut bytes) = (Vec::new(), 0);
                        let mut send = |number, answer: Result<Vec<u8>, FetchError>| {
                            bytes += answer.as_ref().map_or(0, Vec::len);
                            batch.push((number, answer));
                            if bytes < BATCH_BYTES && batch.len() < BATCH_ANSWERS {
                                return ControlFlow::Continue(());
                            }
                            bytes = 0;
                            match sender.send(std::mem::take(&mut batch)) {
                                Ok(()) => ControlFlow::Continue(()),
                                Err(_) => ControlFlow::Break(()),
                            }
                        };
                        if self.range(&mut codec, range, &mut send).is_break() || sender.send(batch).is_err() {
                            return;
                        }
                    }
                });
            }
            drop(sender);
            // Leaving early drops the receiver, and every thread ends at its next answer.
            answers.into_iter().flatten().try_for_each(|(number, answer)| sink(number, answer))
        })
    }
}

/// Whether asking for parts of the same pack would bring the same answer.
fn is_final(error: &StoreError) -> bool {
    matches!(error, StoreError::Missing { .. } | StoreError::Denied { .. } | StoreError::Full)
}

/// Why a wanted chunk could not be had; each concerns that chunk alone.
#[derive(Debug, Clone, Error)]
pub enum FetchError {
    /// No sealed chunk can lie at such a place; whoever named it has a bug.
    #[error("the chunk's place in its pack is impossible")]
    ImpossiblePlace,
    /// Its bytes could not be read: the pack is missing or too short, or the intermediary fails.
    #[error("the chunk could not be read")]
    Unread {
        /// The intermediary's answer, shared by the chunks of one range.
        #[source]
        source: Arc<StoreError>,
    },
    /// Its bytes were read and are not the chunk.
    #[error("the chunk is damaged where it lies")]
    Damaged(#[from] ChunkError),
}

/// Neighbours with at least this many bytes between them are read apart.
pub const MAX_GAP_BYTES: u64 = 64 * 1024;
/// Opened chunks of this many bytes together are handed over by a reading thread.
pub const BATCH_BYTES: usize = 256 * 1024;
const BATCH_ANSWERS: usize = 256;
/// Longest single read in bytes: room for the longest chunk, and small enough that two threads share most windows.
pub const MAX_RANGE_BYTES: u64 = 5 * 1024 * 1024;

#[cfg(test)]
mod tests;
