//! Which chunks are in use: by what stands, and by what the retention keeps.
//!
//! A content is in use while it stands, while it was replaced or deleted after the point at which history is to begin, and
//! while it stood at that point. What the vault looked like there is given as an index of its own. Where a number of
//! versions is kept, the last so many of each file are in use, and those of deleted files too.
//!
//! The chunks of files that list them in chunks are named by those lists, which are read: of all else no content is.

use std::cmp::Reverse;

use packetboat_core::content::{ChunkList, Content};
use packetboat_core::garbage::Retention;
use packetboat_core::ids::{ChunkId, ItemId};
use packetboat_core::item::{Head, Item};
use packetboat_core::knowledge::Knowledge;
use packetboat_core::store::Store;
use packetboat_core::tree::{Past, TreeRead, is_shown};
use packetboat_replica::index::{Index, Used};

use crate::Keys;
use crate::chunk_source::{ChunkSource, ReadState};
use crate::error::SyncError;
use crate::ports::Observer;

/// Where history is to begin: a knowledge, and the vault as it was there.
pub(super) struct Beginning<'a> {
    pub(super) history: &'a Knowledge,
    pub(super) past: &'a Index,
}

impl Beginning<'_> {
    /// Whether a content that does not stand any more is kept.
    pub(super) fn keeps(&self, item: ItemId, head: &Head) -> Result<bool, SyncError> {
        if !self.history.contains(&head.dot) {
            return Ok(true);
        }
        let Some(then) = self.past.item(item)? else { return Ok(false) };
        Ok(then.heads.iter().any(|other| other.dot == head.dot) && is_shown(self.past, &then)?)
    }
}

/// What is in use, as far as it can be told; none where a list of chunks cannot be read, since then nothing may go.
pub(super) fn in_use(
    index: &Index,
    store: &dyn Store,
    keys: &Keys,
    retention: Retention,
    beginning: Option<&Beginning<'_>>,
    observer: &dyn Observer,
) -> Result<Option<Used>, SyncError> {
    let mut used = Used::default();
    let mark = |chunk: &ChunkId| -> Result<(), SyncError> { Ok(index.mark_used(chunk, &mut used)?) };
    let complete = chunks_in_use(index, store, keys, retention, beginning, observer, mark)?;
    Ok(complete.then_some(used))
}

/// What is in use by what the vault shows now; none where a list of chunks cannot be read, or is not to be.
pub(super) fn standing(
    index: &Index,
    store: Option<&dyn Store>,
    keys: &Keys,
    observer: &dyn Observer,
) -> Result<Option<Used>, SyncError> {
    let mut used = Used::default();
    let mark = |chunk: &ChunkId| -> Result<(), SyncError> { Ok(index.mark_used(chunk, &mut used)?) };
    let complete = chunks_standing(index, store, keys, observer, mark)?;
    Ok(complete.then_some(used))
}

/// Tells each chunk of what the vault shows now, some more than once; whether all of them could be found out.
pub(super) fn chunks_standing(
    index: &Index,
    store: Option<&dyn Store>,
    keys: &Keys,
    observer: &dyn Observer,
    mark: impl FnMut(&ChunkId) -> Result<(), SyncError>,
) -> Result<bool, SyncError> {
    let contents = |item: &Item| -> Result<Vec<Content>, SyncError> {
        let stands = !item.is_directory() && (item.lives_by_itself() || is_shown(index, item)?);
        Ok(if stands { item.heads.iter().map(|head| head.content.clone()).collect() } else { Vec::new() })
    };
    chunks_of_items(index, store, keys, observer, contents, mark)
}

/// Tells each chunk that is in use, some more than once; whether all of them could be found out.
pub(super) fn chunks_in_use(
    index: &Index,
    store: &dyn Store,
    keys: &Keys,
    retention: Retention,
    beginning: Option<&Beginning<'_>>,
    observer: &dyn Observer,
    mark: impl FnMut(&ChunkId) -> Result<(), SyncError>,
) -> Result<bool, SyncError> {
    let contents = |item: &Item| kept_contents(index, item, retention, beginning);
    chunks_of_items(index, Some(store), keys, observer, contents, mark)
}

fn chunks_of_items(
    index: &Index,
    store: Option<&dyn Store>,
    keys: &Keys,
    observer: &dyn Observer,
    contents: impl Fn(&Item) -> Result<Vec<Content>, SyncError>,
    mark: impl FnMut(&ChunkId) -> Result<(), SyncError>,
) -> Result<bool, SyncError> {
    let mut marker = Marker { index, store, keys, mark, state: ReadState::new(observer.interrupt()) };
    let mut after = None;
    loop {
        let page = index.items_by_id(after, PAGE)?;
        let Some(last) = page.last() else { return Ok(true) };
        after = Some(last.id);
        for item in &page {
            if observer.interrupted() {
                return Err(SyncError::Interrupted);
            }
            for content in contents(item)? {
                if !marker.mark(&content)? {
                    return Ok(false);
                }
            }
        }
    }
}

/// The contents of one item that are in use.
fn kept_contents(
    index: &Index,
    item: &Item,
    retention: Retention,
    beginning: Option<&Beginning<'_>>,
) -> Result<Vec<Content>, SyncError> {
    if item.is_directory() {
        return Ok(Vec::new());
    }
    let stands = item.lives_by_itself() || is_shown(index, item)?;
    let mut past: Vec<Head> = Vec::new();
    for value in index.history_of(item.id)? {
        if let Past::Content(head) = value {
            past.push(head);
        }
    }
    let mut kept: Vec<Content> = Vec::new();
    let decides = |head: &Head| beginning.map_or(Ok(true), |beginning| beginning.keeps(item.id, head));
    for head in &item.heads {
        if stands || decides(head)? {
            kept.push(head.content.clone());
        }
    }
    if let Retention::Versions(versions) = retention {
        past.sort_by_key(|head| Reverse((head.lamport, head.dot)));
        past.truncate((versions.get() as usize).saturating_sub(1));
    }
    for head in past {
        if decides(&head)? {
            kept.push(head.content);
        }
    }
    Ok(kept)
}

struct Marker<'a, Mark> {
    index: &'a Index,
    store: Option<&'a dyn Store>,
    keys: &'a Keys,
    mark: Mark,
    state: ReadState,
}

impl<Mark: FnMut(&ChunkId) -> Result<(), SyncError>> Marker<'_, Mark> {
    /// Marks the chunks of a content; whether all of them could be found out.
    fn mark(&mut self, content: &Content) -> Result<bool, SyncError> {
        let Content::File(file) = content else { return Ok(true) };
        for chunk in file.chunks.first() {
            (self.mark)(&chunk.id)?;
        }
        if let ChunkList::Indirect(_) = &file.chunks {
            let Some(store) = self.store else { return Ok(false) };
            let mut failed = None;
            let mut source = ChunkSource {
                index: self.index,
                store,
                ring: &self.keys.ring,
                threads: 1,
                state: &mut self.state,
                failed: &mut failed,
            };
            let Ok(list) = source.chunk_list(file)? else { return Ok(false) };
            for chunk in &list {
                (self.mark)(&chunk.id)?;
            }
        }
        Ok(true)
    }
}

const PAGE: usize = 1024;
