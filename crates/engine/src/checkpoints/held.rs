//! The checkpoint that a replica holds: its name, what it covers, and where its segments lie.
//!
//! Four entries of the index, because most rounds need only the first three: the name (device 32, number 8), the epoch,
//! the knowledge, and the root as it is sealed.

use std::collections::{BTreeMap, BTreeSet};

use packetboat_core::checkpoint::{CheckpointRef, CheckpointRoot};
use packetboat_core::content::PackIndex;
use packetboat_core::ids::{DeviceId, Epoch, PackId};
use packetboat_core::knowledge::Knowledge;
use packetboat_core::signed::Content;
use packetboat_core::wire::{Reader, WireError, Writer};
use packetboat_replica::index::{Index, PackState};

use crate::error::SyncError;

/// The newest checkpoint that this replica knows.
pub(crate) fn newest(index: &Index) -> Result<Option<CheckpointRef>, SyncError> {
    let Some(bytes) = index.meta(NAME)? else { return Ok(None) };
    let (device, number) = decode_name(&mut Reader::new(&bytes)).map_err(damaged)?;
    Ok(Some(CheckpointRef { device, number }))
}

/// What the checkpoint held covers; nothing where none is held.
pub(crate) fn knowledge(index: &Index) -> Result<Knowledge, SyncError> {
    read_knowledge(index, COVERS)
}

/// The epoch of the checkpoint held.
pub(super) fn epoch(index: &Index) -> Result<Epoch, SyncError> {
    let bytes = index.meta(EPOCH)?.and_then(|bytes| bytes.try_into().ok());
    Ok(bytes.map_or(0, Epoch::from_le_bytes))
}

/// The root of the checkpoint held.
pub(super) fn root(index: &Index) -> Result<Option<CheckpointRoot>, SyncError> {
    let (Some(name), Some(bytes)) = (newest(index)?, index.meta(ROOT)?) else { return Ok(None) };
    CheckpointRoot::decode(name.number, &bytes).map(Some).map_err(damaged)
}

/// Holds a checkpoint in the place of the one held.
///
/// It is of the epoch in which this device seals: one of an earlier is not held.
pub(super) fn hold(
    index: &mut Index,
    checkpoint: &CheckpointRef,
    root: &CheckpointRoot,
    epoch: Epoch,
) -> Result<(), SyncError> {
    let mut name = Writer::new();
    name.raw(&checkpoint.device.0).raw(&checkpoint.number.to_le_bytes());
    index.begin()?;
    index.set_meta(NAME, Some(&name.finish()))?;
    index.set_meta(ROOT, Some(&root.encode()))?;
    index.set_meta(EPOCH, Some(&epoch.to_le_bytes()))?;
    write_knowledge(index, COVERS, &root.knowledge)?;
    Ok(index.commit()?)
}

/// Has another index hold what this one holds, so that what it writes shares the segments.
pub(super) fn copy(from: &Index, to: &mut Index) -> Result<(), SyncError> {
    for key in [NAME, ROOT, EPOCH, COVERS, super::write::NUMBER] {
        to.set_meta(key, from.meta(key)?.as_deref())?;
    }
    Ok(())
}

/// Holds none any more: no segment of it is relied on, nor that inline content lies in packs.
pub(crate) fn let_go(index: &mut Index) -> Result<(), SyncError> {
    index.begin()?;
    for key in [NAME, ROOT, COVERS, PACKED] {
        index.set_meta(key, None)?;
    }
    Ok(index.commit()?)
}

/// Holds none at any place any more.
pub(crate) fn forget(index: &mut Index) -> Result<(), SyncError> {
    Ok(crate::places::forget_everywhere(index, &[NAME, ROOT, COVERS, PACKED])?)
}

/// Holds this one where the one held does not contain where history begins: it cannot be begun from any more.
pub(crate) fn hold_at_least(
    index: &mut Index,
    begins: &Knowledge,
    (checkpoint, root): &(CheckpointRef, CheckpointRoot),
    epoch: Epoch,
) -> Result<(), SyncError> {
    if knowledge(index)?.includes(begins) { Ok(()) } else { hold(index, checkpoint, root, epoch) }
}

/// Whether a segment of the checkpoint held lies in one of these packs.
pub(crate) fn lies_in(index: &Index, packs: &BTreeSet<PackId>) -> Result<bool, SyncError> {
    let segments = root(index)?.map(|root| root.segments).unwrap_or_default();
    Ok(segments.iter().flat_map(|segment| &segment.chunks).any(|chunk| packs.contains(&chunk.pack)))
}

/// The newest checkpoint of each author that tips were seen to name.
pub(crate) fn seen(index: &Index) -> Result<BTreeMap<DeviceId, u64>, SyncError> {
    let bytes = index.meta(SEEN)?.unwrap_or_default();
    let mut input = Reader::new(&bytes);
    let mut seen = BTreeMap::new();
    while input.remaining() > 0 {
        let (device, number) = decode_name(&mut input).map_err(damaged)?;
        seen.insert(device, number);
    }
    Ok(seen)
}

/// Records what [`seen`] returns.
pub(super) fn set_seen(index: &mut Index, seen: &BTreeMap<DeviceId, u64>) -> Result<(), SyncError> {
    let mut out = Writer::new();
    for (device, number) in seen {
        out.raw(&device.0).raw(&number.to_le_bytes());
    }
    Ok(index.set_meta(SEEN, Some(&out.finish()))?)
}

/// The packets whose inline content is known to lie in packs as well.
pub(super) fn packed(index: &Index) -> Result<Knowledge, SyncError> {
    read_knowledge(index, PACKED)
}

/// Records what [`packed`] returns.
pub(super) fn set_packed(index: &mut Index, packed: &Knowledge) -> Result<(), SyncError> {
    write_knowledge(index, PACKED, packed)
}

/// Packs with inline content of which no packet has told yet; none that is condemned or damaged, of which none is to tell.
pub(crate) fn untold(index: &Index) -> Result<Vec<PackId>, SyncError> {
    let bytes = index.meta(UNTOLD)?.unwrap_or_default();
    let mut packs = Vec::new();
    for pack in bytes.chunks_exact(PackId::LEN).filter_map(PackId::from_slice) {
        if index.pack_row(&pack)?.is_some_and(|row| row.state == PackState::Stored) {
            packs.push(pack);
        }
    }
    Ok(packs)
}

/// Adds to what [`untold`] returns.
pub(super) fn add_untold(index: &mut Index, pack: &PackId) -> Result<(), SyncError> {
    let mut bytes = index.meta(UNTOLD)?.unwrap_or_default();
    bytes.extend_from_slice(&pack.0);
    Ok(index.set_meta(UNTOLD, Some(&bytes))?)
}

/// Notes that a packet tells of all.
pub(crate) fn all_are_told(index: &mut Index) -> Result<(), SyncError> {
    Ok(index.set_meta(UNTOLD, None)?)
}

/// Packs that a checkpoint named and no packet that was folded here told of: others need not know of them.
pub(crate) fn named_by_checkpoint(index: &Index) -> Result<BTreeSet<PackId>, SyncError> {
    let bytes = index.meta(NAMED)?.unwrap_or_default();
    Ok(bytes.chunks_exact(PackId::LEN).filter_map(PackId::from_slice).collect())
}

/// Adds to what [`named_by_checkpoint`] returns.
pub(crate) fn add_named_by_checkpoint(index: &mut Index, packs: &[PackIndex]) -> Result<(), SyncError> {
    let mut bytes = index.meta(NAMED)?.unwrap_or_default();
    packs.iter().for_each(|pack| bytes.extend_from_slice(&pack.pack.0));
    Ok(index.set_meta(NAMED, Some(&bytes))?)
}

/// Takes packs off the lists of those of which others need not know: a packet tells of them, or its author relies on them
/// where all will, or they are gone.
pub(crate) fn strike_out(index: &mut Index, packs: impl Iterator<Item = PackId>) -> Result<(), SyncError> {
    let told: BTreeSet<PackId> = packs.collect();
    // Most packets tell of none, and each that is folded comes here.
    if told.is_empty() {
        return Ok(());
    }
    for key in [NAMED, UNTOLD] {
        let Some(bytes) = index.meta(key)? else { continue };
        let listed = bytes.chunks_exact(PackId::LEN).filter_map(PackId::from_slice);
        let left: Vec<u8> = listed.filter(|pack| !told.contains(pack)).flat_map(|pack| pack.0).collect();
        if left.len() != bytes.len() {
            index.set_meta(key, Some(&left).filter(|left| !left.is_empty()).map(Vec::as_slice))?;
        }
    }
    Ok(())
}

/// Has the next packet that tells of packs tell of these too, where only a checkpoint named them.
pub(crate) fn tell(index: &mut Index, packs: impl IntoIterator<Item = PackId>) -> Result<(), SyncError> {
    let named = named_by_checkpoint(index)?;
    let mut untold: BTreeSet<PackId> = untold(index)?.into_iter().collect();
    for pack in packs {
        if named.contains(&pack) && untold.insert(pack) {
            add_untold(index, &pack)?;
        }
    }
    Ok(())
}

/// Packs of which others need not know: nothing may be let go because one of these holds the same.
pub(crate) fn not_known_to_others(index: &Index) -> Result<BTreeSet<PackId>, SyncError> {
    let mut packs = named_by_checkpoint(index)?;
    packs.extend(untold(index)?);
    Ok(packs)
}

fn read_knowledge(index: &Index, key: &str) -> Result<Knowledge, SyncError> {
    let Some(bytes) = index.meta(key)? else { return Ok(Knowledge::new()) };
    Knowledge::decode(&mut Reader::new(&bytes)).map_err(damaged)
}

fn write_knowledge(index: &mut Index, key: &str, knowledge: &Knowledge) -> Result<(), SyncError> {
    let mut out = Writer::new();
    knowledge.encode(&mut out);
    Ok(index.set_meta(key, Some(&out.finish()))?)
}

fn decode_name(input: &mut Reader<'_>) -> Result<(DeviceId, u64), WireError> {
    Ok((DeviceId(input.array()?), u64::from_le_bytes(input.array()?)))
}

fn damaged(_: WireError) -> SyncError {
    SyncError::DamagedIndex { what: "the checkpoint" }
}

pub(crate) const NAME: &str = "checkpoint";
pub(crate) const EPOCH: &str = "checkpoint epoch";
pub(crate) const COVERS: &str = "checkpoint covers";
pub(crate) const ROOT: &str = "checkpoint root";
pub(crate) const SEEN: &str = "checkpoints seen";
pub(crate) const UNTOLD: &str = "inline content untold";
const NAMED: &str = "packs named by a checkpoint";
pub(crate) const PACKED: &str = "inline content packed";

#[cfg(test)]
mod tests;
