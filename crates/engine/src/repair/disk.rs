//! Lost chunks in the files of this disk.
//!
//! The entries of the disk are gone through once. A file is read where what it held when it was recorded has a chunk
//! that is looked for; it may have changed since, so each chunk is taken for what its bytes are.
//! Where the list of a large file's chunks is itself lost, the file is cut again: if that gives the content that was
//! recorded, it gives the list, too.

use std::io;

use packetboat_core::content::{ChunkList, ChunkRef, Content, FileContent};
use packetboat_core::keys::KeyRing;
use packetboat_core::local::DirId;
use packetboat_core::name::RelPath;
use packetboat_core::plan::HistoryRead;
use packetboat_replica::fs::{Fs, FsFile};
use packetboat_replica::index::Index;
use packetboat_storage::chunker::{Boundaries, Chunker};

use super::Salvage;
use crate::chunk_source::read_full;
use crate::content_reader::{ContentReader, ReadError};
use crate::error::SyncError;
use crate::ports::Observer;
use crate::prepare::encode_chunk_list;

/// Gives every chunk that may be a lost one to `salvage`, until none is looked for any more.
pub(super) fn search(
    fs: &dyn Fs,
    index: &Index,
    salvage: &mut Salvage<'_>,
    observer: &mut dyn Observer,
) -> Result<(), SyncError> {
    let mut pending = vec![(DirId::ROOT, RelPath::root())];
    while let Some((dir, path)) = pending.pop() {
        let mut after = None;
        loop {
            let entries = index.entries_in(dir, after.as_ref(), PAGE)?;
            let Some(last) = entries.last() else { break };
            after = Some(last.name.clone());
            for entry in entries {
                if observer.interrupted() {
                    return Err(SyncError::Interrupted);
                }
                if salvage.lost.is_empty() {
                    return Ok(());
                }
                let at = path.join(&entry.name);
                if let Some(own) = entry.own_dir {
                    pending.push((own, at));
                    continue;
                }
                let Some(dot) = entry.seen.heads.first() else { continue };
                if let Some(Content::File(file)) = index.version(entry.seen.item, dot)?.map(|head| head.content) {
                    file_at(fs, index, salvage, &at, &file)?;
                    observer.advance(1, 0);
                }
            }
        }
    }
    Ok(())
}

fn file_at(
    fs: &dyn Fs,
    index: &Index,
    salvage: &mut Salvage<'_>,
    path: &RelPath,
    file: &FileContent,
) -> Result<(), SyncError> {
    let parts = file.chunks.first();
    let list_lost = matches!(file.chunks, ChunkList::Indirect(_)) && salvage.wants(parts.iter().map(|part| &part.id));
    let list = match &file.chunks {
        ChunkList::Inline(list) => Some(list.clone()),
        ChunkList::Indirect(_) if list_lost => None,
        ChunkList::Indirect(_) => {
            let mut reader = ContentReader::new(index, salvage.store, &salvage.keys.ring, 1);
            match reader.chunk_list(file) {
                Ok(list) => Some(list),
                Err(ReadError::Missing(_)) => None,
                Err(ReadError::Sync(error)) => return Err(error),
                Err(ReadError::Output(_)) => None,
            }
        }
    };
    if list.as_ref().is_some_and(|list| !salvage.wants(list.iter().map(|chunk| &chunk.id))) {
        return Ok(());
    }
    // A file that cannot be read is of no help, and no reason to stop.
    let Ok(mut disk) = fs.open(path) else { return Ok(()) };
    match list {
        Some(list) => known_chunks(&mut *disk, salvage, &list),
        None => cut_again(&mut *disk, salvage, file),
    }
}

fn known_chunks(disk: &mut dyn FsFile, salvage: &mut Salvage<'_>, list: &[ChunkRef]) -> Result<(), SyncError> {
    let mut plain = Vec::new();
    for chunk in list {
        plain.resize(chunk.len as usize, 0);
        if !read_full(disk, &mut plain).is_ok_and(|read| read == plain.len()) {
            return Ok(());
        }
        if salvage.lost.contains(&chunk.id) {
            salvage.take(&plain)?;
        }
    }
    Ok(())
}

fn cut_again(disk: &mut dyn FsFile, salvage: &mut Salvage<'_>, file: &FileContent) -> Result<(), SyncError> {
    let boundaries = Boundaries::new(salvage.keys.ring.chunker_seed());
    let keys = salvage.keys;
    let Some(list) = cut(disk, &keys.ring, &boundaries, |plain| salvage.take(plain))? else { return Ok(()) };
    if salvage.keys.ring.content_id(list.iter().map(|chunk| &chunk.id)) == file.id {
        for part in boundaries.split(&encode_chunk_list(&list)) {
            salvage.take(part)?;
        }
    }
    Ok(())
}

/// Cuts an open file as it would be cut to be stored, and gives each piece; all of them, unless it cannot be read.
pub(crate) fn cut(
    disk: &mut dyn FsFile,
    ring: &KeyRing,
    boundaries: &Boundaries,
    mut each: impl FnMut(&[u8]) -> Result<(), SyncError>,
) -> Result<Option<Vec<ChunkRef>>, SyncError> {
    let mut list = Vec::new();
    for plain in Chunker::new(boundaries, Reading(disk)) {
        let Ok(plain) = plain else { return Ok(None) };
        list.push(ChunkRef { id: ring.chunk_id(&plain), len: plain.len() as u32 });
        each(&plain)?;
    }
    Ok(Some(list))
}

/// An open file as a reader.
struct Reading<'a>(&'a mut dyn FsFile);

impl io::Read for Reading<'_> {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        self.0.read(buffer)
    }
}

const PAGE: usize = 256;
