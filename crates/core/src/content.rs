//! Content: what a file holds, as a list of chunks, and where packs keep them.
//!
//! A content is named by its chunks, never by its path, so the same bytes are the same content wherever they stand.

use crate::ids::{ChunkId, ContentId, Epoch, PackId};

/// One chunk of a file.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Hash)]
pub struct ChunkRef {
    /// Which chunk.
    pub id: ChunkId,
    /// Its plaintext length in bytes: 1 to [`MAX_CHUNK_BYTES`].
    pub len: u32,
}

/// The bytes of a regular file.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct FileContent {
    /// Equal exactly when the bytes are (within one vault).
    pub id: ContentId,
    /// Size in bytes.
    pub size: u64,
    /// Modification time in nanoseconds since 1970 UTC; travels with the content and never decides anything.
    pub mtime: i64,
    /// Its chunks in order; none for an empty file.
    ///
    /// A file of more than [`MAX_INLINE_CHUNKS`] chunks keeps its list in chunks of its own, see [`ChunkList`].
    pub chunks: ChunkList,
}

/// A file's chunks, or where to find the list of them.
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum ChunkList {
    /// The chunks themselves.
    Inline(Vec<ChunkRef>),
    /// Chunks whose joined plaintext is the encoded list.
    Indirect(Vec<ChunkRef>),
}

impl ChunkList {
    /// The chunks that must be fetched first: the file's own, or those of its list.
    pub fn first(&self) -> &[ChunkRef] {
        match self {
            ChunkList::Inline(chunks) | ChunkList::Indirect(chunks) => chunks,
        }
    }
}

/// What one version of an item holds.
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum Content {
    /// A directory; it never changes.
    Directory,
    /// A regular file.
    File(FileContent),
    /// A symbolic link with its target as bytes.
    Symlink(Vec<u8>),
}

impl Content {
    /// Whether two contents are the same for whoever looks: modification times do not count.
    pub fn agrees(&self, other: &Content) -> bool {
        match (self, other) {
            (Content::File(a), Content::File(b)) => a.id == b.id && a.size == b.size,
            (a, b) => a == b,
        }
    }

    /// Whether this is a directory.
    pub fn is_directory(&self) -> bool {
        matches!(self, Content::Directory)
    }
}

/// A chunk as it lies in a pack.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct PackedChunk {
    /// Which chunk.
    pub id: ChunkId,
    /// Where its sealed bytes begin, in bytes from the start of the pack.
    pub offset: u32,
    /// Length of its sealed bytes.
    pub sealed_len: u32,
}

/// What a pack holds, in order of offset.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct PackIndex {
    /// The pack: the hash of its bytes.
    pub pack: PackId,
    /// The epoch in which its chunks are sealed.
    pub epoch: Epoch,
    /// The size of the whole object in bytes.
    pub size: u32,
    /// Its chunks.
    pub chunks: Vec<PackedChunk>,
}

/// Smallest chunk but the last of a file, in bytes.
pub const MIN_CHUNK_BYTES: u32 = 256 * 1024;
/// Average chunk in bytes.
pub const AVERAGE_CHUNK_BYTES: u32 = 1024 * 1024;
/// Greatest chunk in bytes.
pub const MAX_CHUNK_BYTES: u32 = 4 * 1024 * 1024;
/// Most chunks that a version names itself; longer lists are chunks of their own.
pub const MAX_INLINE_CHUNKS: usize = 1024;
