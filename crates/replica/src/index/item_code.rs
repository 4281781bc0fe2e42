//! The codec between [`Item`] and `item.state`; parent and name in force are columns of their own.
//!
//! ```text
//! flags u8   1 plain, 2 with a mode
//! plain      stamp | time signed | content | mode varint, if flagged
//! otherwise  heads: count, per head as in content_code.rs
//!            placements: count, per placement: flags u8 (1 named by deletes, 2 parent and name are the columns') | stamp
//!                        | parent varint, name bytes unless flagged 2 | deletes: count, dots, if flagged 1
//!            at: 0 then stamp, or n + 1: it is the n-th placement
//!            mode, if flagged: stamp | varint
//!            attributes: count, per attribute: name bytes | stamp | 0, or 1 then value bytes
//!            deletes: count, dots
//! ```
//!
//! *Plain* is an item as its Create made it: one head and one placement of the same packet that nothing replaced or
//! deleted, a mode from there if any, no extended attributes. Nearly all items are plain, and then take about 50 bytes.

use std::collections::BTreeMap;

use packetboat_core::ids::{ItemId, Stamp};
use packetboat_core::item::{Head, Item, Placed, Placement, Register};
use packetboat_core::name::Name;
use packetboat_core::wire::WireError;

use super::IndexError;
use super::content_code::{Decoder, Encoder};

/// Appends an item's state.
pub(super) fn encode_item(item: &Item, to: &mut Encoder<'_>) -> Result<(), IndexError> {
    let has_mode = if item.mode.is_some() { HAS_MODE } else { 0 };
    if is_plain(item) {
        to.out.u8(PLAIN | has_mode);
        let head = &item.heads[0];
        to.stamp(&item.at.stamp)?;
        to.out.signed(head.time);
        to.content(&head.content, head.time);
        if let Some(mode) = &item.mode {
            to.out.varint(u64::from(mode.value));
        }
        return Ok(());
    }
    to.out.u8(has_mode).varint(item.heads.len() as u64);
    for head in &item.heads {
        to.head(head)?;
    }
    to.out.varint(item.placements.len() as u64);
    for Placement { placed, deletes } in &item.placements {
        let in_force = placed.parent == item.at.parent && placed.name == item.at.name;
        to.out.u8(if deletes.is_empty() { 0 } else { DELETED } | if in_force { IN_FORCE } else { 0 });
        to.stamp(&placed.stamp)?;
        if !in_force {
            to.item(placed.parent)?;
            to.out.bytes(placed.name.as_bytes());
        }
        if !deletes.is_empty() {
            to.dots(deletes)?;
        }
    }
    match item.placements.iter().position(|placement| placement.placed == item.at) {
        Some(at) => {
            to.out.varint(at as u64 + 1);
        }
        None => {
            to.out.varint(0);
            to.stamp(&item.at.stamp)?;
        }
    }
    if let Some(mode) = &item.mode {
        to.stamp(&mode.stamp)?;
        to.out.varint(u64::from(mode.value));
    }
    to.out.varint(item.xattrs.len() as u64);
    for (name, register) in &item.xattrs {
        to.out.bytes(name);
        to.stamp(&register.stamp)?;
        match &register.value {
            Some(value) => to.out.u8(1).bytes(value),
            None => to.out.u8(0),
        };
    }
    to.dots(&item.deletes)
}

/// Reads an item's state.
pub(super) fn decode_item(id: ItemId, parent: ItemId, name: Name, mut from: Decoder<'_>) -> Result<Item, IndexError> {
    let flags = from.input.u8()?;
    let item = if flags & PLAIN != 0 {
        decode_plain(flags, id, parent, name, &mut from)?
    } else {
        decode_general(flags, id, parent, name, &mut from)?
    };
    from.input.finish()?;
    Ok(item)
}

fn decode_plain(flags: u8, id: ItemId, parent: ItemId, name: Name, from: &mut Decoder<'_>) -> Result<Item, IndexError> {
    let stamp = from.stamp()?;
    let time = from.input.signed()?;
    let content = from.content(time)?;
    let head = Head { dot: stamp.dot(), lamport: stamp.lamport, time, content, trail: Vec::new(), deletes: Vec::new() };
    let mut item = Item::new(id, head, Placed { stamp, parent, name });
    if flags & HAS_MODE != 0 {
        item.mode = Some(Register { stamp, value: from.input.varint32()? });
    }
    Ok(item)
}

fn decode_general(
    flags: u8,
    id: ItemId,
    parent: ItemId,
    name: Name,
    from: &mut Decoder<'_>,
) -> Result<Item, IndexError> {
    let heads: Vec<Head> = (0..from.input.count(6)?).map(|_| from.head()).collect::<Result<_, _>>()?;
    let mut placements = Vec::new();
    for _ in 0..from.input.count(5)? {
        let flags = from.input.u8()?;
        let stamp = from.stamp()?;
        let placed = if flags & IN_FORCE != 0 {
            Placed { stamp, parent, name: name.clone() }
        } else {
            Placed { stamp, parent: from.item()?, name: read_name(from.input.bytes(Name::MAX)?)? }
        };
        let deletes = if flags & DELETED != 0 { from.dots()? } else { Vec::new() };
        placements.push(Placement { placed, deletes });
    }
    if heads.is_empty() || placements.is_empty() {
        return Err(WireError::Invalid { what: "item without a head or placement" }.into());
    }
    let at = match from.input.varint()? {
        0 => Placed { stamp: from.stamp()?, parent, name },
        n => match usize::try_from(n - 1).ok().and_then(|n| placements.get(n)) {
            Some(placement) if placement.placed.parent == parent && placement.placed.name == name => {
                placement.placed.clone()
            }
            _ => return Err(WireError::Invalid { what: "placement in force" }.into()),
        },
    };
    let mode = if flags & HAS_MODE != 0 {
        Some(Register { stamp: from.stamp()?, value: from.input.varint32()? })
    } else {
        None
    };
    let mut xattrs = BTreeMap::new();
    for _ in 0..from.input.count(6)? {
        let name = from.input.bytes(usize::MAX)?.to_vec();
        let stamp: Stamp = from.stamp()?;
        let value = match from.input.u8()? {
            0 => None,
            _ => Some(from.input.bytes(usize::MAX)?.to_vec()),
        };
        xattrs.insert(name, Register { stamp, value });
    }
    let deletes = from.dots()?;
    Ok(Item { id, heads, placements, at, mode, xattrs, deletes })
}

fn is_plain(item: &Item) -> bool {
    let stamp = item.at.stamp;
    let head_is_plain = matches!(&item.heads[..], [head]
        if head.dot == stamp.dot() && head.lamport == stamp.lamport && head.trail.is_empty() && head.deletes.is_empty());
    let placement_is_plain =
        matches!(&item.placements[..], [placement] if placement.placed == item.at && placement.deletes.is_empty());
    let mode_is_plain = item.mode.as_ref().is_none_or(|mode| mode.stamp == stamp);
    head_is_plain && placement_is_plain && mode_is_plain && item.xattrs.is_empty() && item.deletes.is_empty()
}

/// Reads a name from a row.
pub(super) fn read_name(bytes: &[u8]) -> Result<Name, IndexError> {
    Name::new(bytes).ok_or(IndexError::Damaged { what: "a name" })
}

const PLAIN: u8 = 1;
const HAS_MODE: u8 = 2;

const DELETED: u8 = 1;
const IN_FORCE: u8 = 2;
