//! How dots, stamps, contents and heads are written within a row.
//!
//! ```text
//! dot      device number varint | counter varint
//! stamp    dot | lamport varint | index varint
//! content  kind u8: 0 directory | 1 symlink: target bytes | 2 file of one chunk | 3 file | 4 file with its list in chunks
//! file of one chunk  id 32 | size varint | mtime signed: the content's id is its chunk's, its size the chunk's length
//! file     id 32 | size varint | mtime signed | count, per chunk: id 32 | length varint
//! head     flags u8 (1 named by deletes, 2 with a trail) | dot | lamport varint | time signed | content
//!          | trail, if flagged 2 | deletes: count, dots, if flagged 1
//! trail    count, per mark: dot | lamport varint | time signed
//! ```
//!
//! Modification times are written as the difference to the packet's time, since most are near it.

use packetboat_core::change::Mark;
use packetboat_core::content::{ChunkList, ChunkRef, Content, FileContent};
use packetboat_core::ids::{ChunkId, ContentId, Dot, ItemId, Stamp};
use packetboat_core::item::Head;
use packetboat_core::wire::{Reader, WireError, Writer};
use rusqlite::Connection;

use super::IndexError;
use super::numbers::Numbers;

/// Writes a row; gives numbers to what has none.
pub(super) struct Encoder<'a> {
    sql: &'a Connection,
    numbers: &'a Numbers,
    pub(super) out: Writer,
}

impl<'a> Encoder<'a> {
    pub(super) fn new(sql: &'a Connection, numbers: &'a Numbers) -> Self {
        Self { sql, numbers, out: Writer::new() }
    }

    pub(super) fn item(&mut self, id: ItemId) -> Result<(), IndexError> {
        let number = self.numbers.item_number(self.sql, id)?;
        self.out.varint(number as u64);
        Ok(())
    }

    pub(super) fn dot(&mut self, dot: &Dot) -> Result<(), IndexError> {
        let number = self.numbers.device_number(self.sql, &dot.device)?;
        self.out.varint(number as u64).varint(dot.counter);
        Ok(())
    }

    pub(super) fn dots(&mut self, dots: &[Dot]) -> Result<(), IndexError> {
        self.out.varint(dots.len() as u64);
        dots.iter().try_for_each(|dot| self.dot(dot))
    }

    pub(super) fn stamp(&mut self, stamp: &Stamp) -> Result<(), IndexError> {
        self.dot(&stamp.dot())?;
        self.out.varint(stamp.lamport).varint(u64::from(stamp.index));
        Ok(())
    }

    /// `time` is that of the packet, in seconds.
    pub(super) fn content(&mut self, content: &Content, time: i64) {
        let out = &mut self.out;
        match content {
            Content::Directory => {
                out.u8(DIRECTORY);
            }
            Content::Symlink(target) => {
                out.u8(SYMLINK).bytes(target);
            }
            Content::File(file) => {
                let (kind, chunks) = match &file.chunks {
                    ChunkList::Inline(chunks) if is_single(file, chunks) => (SINGLE, &[][..]),
                    ChunkList::Inline(chunks) => (FILE, &chunks[..]),
                    ChunkList::Indirect(chunks) => (INDIRECT, &chunks[..]),
                };
                out.u8(kind).raw(&file.id.0).varint(file.size).signed(file.mtime.wrapping_sub(nanoseconds(time)));
                if kind != SINGLE {
                    out.varint(chunks.len() as u64);
                    for chunk in chunks {
                        out.raw(&chunk.id.0).varint(u64::from(chunk.len));
                    }
                }
            }
        }
    }

    pub(super) fn head(&mut self, head: &Head) -> Result<(), IndexError> {
        let flags =
            if head.deletes.is_empty() { 0 } else { DELETED } | if head.trail.is_empty() { 0 } else { HAS_TRAIL };
        self.out.u8(flags);
        self.dot(&head.dot)?;
        self.out.varint(head.lamport).signed(head.time);
        self.content(&head.content, head.time);
        if !head.trail.is_empty() {
            self.out.varint(head.trail.len() as u64);
            for mark in &head.trail {
                self.dot(&mark.dot)?;
                self.out.varint(mark.lamport).signed(mark.time);
            }
        }
        if !head.deletes.is_empty() {
            self.dots(&head.deletes)?;
        }
        Ok(())
    }
}

/// Reads a row.
pub(super) struct Decoder<'a> {
    sql: &'a Connection,
    numbers: &'a Numbers,
    pub(super) input: Reader<'a>,
}

impl<'a> Decoder<'a> {
    pub(super) fn new(sql: &'a Connection, numbers: &'a Numbers, bytes: &'a [u8]) -> Self {
        Self { sql, numbers, input: Reader::new(bytes) }
    }

    pub(super) fn item(&mut self) -> Result<ItemId, IndexError> {
        let number = self.input.varint()? as i64;
        self.numbers.item(self.sql, number)
    }

    pub(super) fn dot(&mut self) -> Result<Dot, IndexError> {
        let device = self.numbers.device(self.sql, self.input.varint()? as i64)?;
        Ok(Dot { device, counter: self.input.varint()? })
    }

    pub(super) fn dots(&mut self) -> Result<Vec<Dot>, IndexError> {
        (0..self.input.count(2)?).map(|_| self.dot()).collect()
    }

    pub(super) fn stamp(&mut self) -> Result<Stamp, IndexError> {
        let Dot { device, counter } = self.dot()?;
        Ok(Stamp { lamport: self.input.varint()?, device, counter, index: self.input.varint32()? })
    }

    pub(super) fn content(&mut self, time: i64) -> Result<Content, IndexError> {
        let input = &mut self.input;
        let kind = input.u8()?;
        match kind {
            DIRECTORY => return Ok(Content::Directory),
            SYMLINK => return Ok(Content::Symlink(input.bytes(usize::MAX)?.to_vec())),
            SINGLE | FILE | INDIRECT => {}
            _ => return Err(WireError::Invalid { what: "kind of content" }.into()),
        }
        let id = ContentId(input.array()?);
        let size = input.varint()?;
        let mtime = input.signed()?.wrapping_add(nanoseconds(time));
        let chunks = if kind == SINGLE {
            let len = u32::try_from(size).map_err(|_| WireError::Overflow)?;
            vec![ChunkRef { id: ChunkId(id.0), len }]
        } else {
            (0..input.count(ChunkId::LEN + 1)?)
                .map(|_| Ok(ChunkRef { id: ChunkId(input.array()?), len: input.varint32()? }))
                .collect::<Result<_, WireError>>()?
        };
        let chunks = if kind == INDIRECT { ChunkList::Indirect(chunks) } else { ChunkList::Inline(chunks) };
        Ok(Content::File(FileContent { id, size, mtime, chunks }))
    }

    pub(super) fn head(&mut self) -> Result<Head, IndexError> {
        let flags = self.input.u8()?;
        let dot = self.dot()?;
        let lamport = self.input.varint()?;
        let time = self.input.signed()?;
        let content = self.content(time)?;
        let mut trail = Vec::new();
        if flags & HAS_TRAIL != 0 {
            for _ in 0..self.input.count(3)? {
                trail.push(Mark { dot: self.dot()?, lamport: self.input.varint()?, time: self.input.signed()? });
            }
        }
        let deletes = if flags & DELETED != 0 { self.dots()? } else { Vec::new() };
        Ok(Head { dot, lamport, time, content, trail, deletes })
    }
}

fn is_single(file: &FileContent, chunks: &[ChunkRef]) -> bool {
    matches!(chunks, [only] if only.id.0 == file.id.0 && u64::from(only.len) == file.size)
}

fn nanoseconds(seconds: i64) -> i64 {
    seconds.wrapping_mul(1_000_000_000)
}

const DIRECTORY: u8 = 0;
const SYMLINK: u8 = 1;
const SINGLE: u8 = 2;
const FILE: u8 = 3;
const INDIRECT: u8 = 4;

const DELETED: u8 = 1;
const HAS_TRAIL: u8 = 2;
