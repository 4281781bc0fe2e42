//! The codec between [`LocalEntry`] and `local.data`; directory, name and item are columns of their own.
//!
//! ```text
//! flags u8   1..2 state: 0 settled, 1 racy, 2 frozen, 3 parked | 4 is a directory | 8 plain | 16 no birth time
//!            | 32 has no mode | 64 its mode is the fingerprint's
//! stat       size varint | mtime 8, little-endian | ctime signed difference to mtime | inode varint
//!            | btime signed difference to ctime, unless flagged | mode varint
//! own_dir    varint, if it is a directory
//! parked     dir varint | name bytes, if parked
//! mode       varint, unless flagged
//! plain      dot: one head and one placement, both of this packet
//! otherwise  heads: dots | placements: dots
//!            view u8: 0 plain, 1 copy, 2 displaced, 3 mapped: shown bytes
//!            twins: count, per twin: item varint | heads: dots | placements: dots
//!            attributes: count, per attribute: name bytes | value bytes
//! ```
//!
//! What a scan compares comes first, so that it need not read on. *Plain* is also without twins, view or attributes.

use packetboat_core::ids::ItemId;
use packetboat_core::local::{DirId, EntryState, Fingerprint, LocalEntry, Seen, Twin, View};
use packetboat_core::name::Name;
use packetboat_core::wire::{Reader, WireError, Writer};

use super::IndexError;
use super::content_code::{Decoder, Encoder};
use super::item_code::read_name;

/// Appends what an entry's row holds beside its columns.
pub(super) fn encode_entry(entry: &LocalEntry, to: &mut Encoder<'_>) -> Result<(), IndexError> {
    let plain = is_plain(entry);
    let mut flags = match entry.state {
        EntryState::Settled => 0,
        EntryState::Racy => 1,
        EntryState::Frozen => 2,
        EntryState::Parked { .. } => 3,
    };
    let mut flag = |set: bool, bit: u8| flags |= if set { bit } else { 0 };
    flag(entry.own_dir.is_some(), DIRECTORY);
    flag(plain, PLAIN);
    flag(entry.stat.btime == 0, NO_BTIME);
    flag(entry.mode.is_none(), NO_MODE);
    flag(entry.mode == Some(entry.stat.mode), SAME_MODE);
    to.out.u8(flags);
    encode_stat(&entry.stat, &mut to.out);
    if let Some(own) = entry.own_dir {
        to.out.varint(own.0);
    }
    if let EntryState::Parked { dir, name } = &entry.state {
        to.out.varint(dir.0).bytes(name.as_bytes());
    }
    if let Some(mode) = entry.mode.filter(|mode| *mode != entry.stat.mode) {
        to.out.varint(u64::from(mode));
    }
    let seen = &entry.seen;
    if plain {
        return to.dot(&seen.heads[0]);
    }
    to.dots(&seen.heads)?;
    to.dots(&seen.placements)?;
    match &seen.view {
        View::Plain => to.out.u8(0),
        View::Copy => to.out.u8(1),
        View::Displaced => to.out.u8(2),
        View::Mapped { shown } => to.out.u8(3).bytes(shown.as_bytes()),
    };
    to.out.varint(seen.twins.len() as u64);
    for twin in &seen.twins {
        to.item(twin.item)?;
        to.dots(&twin.heads)?;
        to.dots(&twin.placements)?;
    }
    to.out.varint(entry.xattrs.len() as u64);
    for (name, value) in &entry.xattrs {
        to.out.bytes(name).bytes(value);
    }
    Ok(())
}

/// Reads an entry.
pub(super) fn decode_entry(
    dir: DirId,
    name: Name,
    item: ItemId,
    mut from: Decoder<'_>,
) -> Result<LocalEntry, IndexError> {
    let (flags, front) = decode_front_of(&mut from.input)?;
    let mode = if flags & NO_MODE != 0 {
        None
    } else if flags & SAME_MODE != 0 {
        Some(front.stat.mode)
    } else {
        Some(from.input.varint32()?)
    };
    let mut xattrs = Vec::new();
    let seen = if flags & PLAIN != 0 {
        let dot = from.dot()?;
        Seen { item, heads: vec![dot], placements: vec![dot], view: View::Plain, twins: Vec::new() }
    } else {
        let (heads, placements) = (from.dots()?, from.dots()?);
        let view = match from.input.u8()? {
            0 => View::Plain,
            1 => View::Copy,
            2 => View::Displaced,
            3 => View::Mapped { shown: read_name(from.input.bytes(Name::MAX)?)? },
            _ => return Err(WireError::Invalid { what: "view" }.into()),
        };
        let twins = (0..from.input.count(3)?)
            .map(|_| Ok(Twin { item: from.item()?, heads: from.dots()?, placements: from.dots()? }))
            .collect::<Result<_, IndexError>>()?;
        for _ in 0..from.input.count(2)? {
            let name = from.input.bytes(usize::MAX)?.to_vec();
            xattrs.push((name, from.input.bytes(usize::MAX)?.to_vec()));
        }
        Seen { item, heads, placements, view, twins }
    };
    from.input.finish()?;
    Ok(LocalEntry { dir, name, own_dir: front.own_dir, seen, mode, xattrs, stat: front.stat, state: front.state })
}

/// What a scan needs of an entry.
pub(super) struct Front {
    pub(super) own_dir: Option<DirId>,
    pub(super) stat: Fingerprint,
    pub(super) state: EntryState,
}

/// Reads no more than what a scan needs.
pub(super) fn decode_front(data: &[u8]) -> Result<Front, IndexError> {
    Ok(decode_front_of(&mut Reader::new(data))?.1)
}

fn decode_front_of(input: &mut Reader<'_>) -> Result<(u8, Front), IndexError> {
    let flags = input.u8()?;
    let stat = decode_stat(flags, input)?;
    let own_dir = if flags & DIRECTORY != 0 { Some(DirId(input.varint()?)) } else { None };
    let state = match flags & STATE {
        0 => EntryState::Settled,
        1 => EntryState::Racy,
        2 => EntryState::Frozen,
        _ => EntryState::Parked { dir: DirId(input.varint()?), name: read_name(input.bytes(Name::MAX)?)? },
    };
    Ok((flags, Front { own_dir, stat, state }))
}

fn encode_stat(stat: &Fingerprint, out: &mut Writer) {
    out.varint(stat.size).raw(&stat.mtime.to_le_bytes()).signed(stat.ctime.wrapping_sub(stat.mtime));
    out.varint(stat.inode);
    if stat.btime != 0 {
        out.signed(stat.btime.wrapping_sub(stat.ctime));
    }
    out.varint(u64::from(stat.mode));
}

fn decode_stat(flags: u8, input: &mut Reader<'_>) -> Result<Fingerprint, WireError> {
    let size = input.varint()?;
    let mtime = i64::from_le_bytes(input.array()?);
    let ctime = input.signed()?.wrapping_add(mtime);
    let inode = input.varint()?;
    let btime = if flags & NO_BTIME != 0 { 0 } else { input.signed()?.wrapping_add(ctime) };
    Ok(Fingerprint { size, mtime, ctime, inode, btime, mode: input.varint32()? })
}

fn is_plain(entry: &LocalEntry) -> bool {
    let seen = &entry.seen;
    seen.heads.len() == 1
        && seen.heads == seen.placements
        && seen.view == View::Plain
        && seen.twins.is_empty()
        && entry.xattrs.is_empty()
}

const STATE: u8 = 3;
const DIRECTORY: u8 = 4;
const PLAIN: u8 = 8;
const NO_BTIME: u8 = 16;
const NO_MODE: u8 = 32;
const SAME_MODE: u8 = 64;
