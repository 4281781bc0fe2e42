//! The vault's members in the index: one record that the core folds, and the names that a view needs.

use packetboat_core::change::Change;
use packetboat_core::members::Members;
use packetboat_core::packet::Packet;
use packetboat_core::wire::{Reader, Writer};
use packetboat_replica::index::{Index, Member};

use crate::error::SyncError;

/// The members as folded so far.
pub(crate) fn load(index: &Index) -> Result<Members, SyncError> {
    let Some(bytes) = index.meta(MEMBERS)? else { return Ok(Members::new()) };
    let mut input = Reader::new(&bytes);
    Members::decode(&mut input).map_err(|_| SyncError::DamagedIndex { what: "members" })
}

/// Stores the members as folded, with the names that the view asks the index for.
pub(crate) fn store(index: &mut Index, members: &Members) -> Result<(), SyncError> {
    let mut out = Writer::new();
    members.encode(&mut out);
    index.set_meta(MEMBERS, Some(&out.finish()))?;
    for member in members.iter() {
        let heard = index.member(member.device)?;
        index.put_member(&Member {
            device: member.device,
            public_key: member.public_key,
            exchange_key: member.exchange_key,
            name: member.name.to_owned(),
            introduced_name: member.introduced_name.to_owned(),
            state: heard.as_ref().map_or_else(Vec::new, |heard| heard.state.clone()),
            heard_lamport: heard.as_ref().map_or(0, |heard| heard.heard_lamport),
            heard_time: heard.as_ref().map_or(0, |heard| heard.heard_time),
        })?;
    }
    Ok(())
}

/// Forgets all members; their rows in the index go by other ways.
pub(crate) fn forget(index: &mut Index) -> Result<(), SyncError> {
    Ok(index.set_meta(MEMBERS, None)?)
}

/// Whether a packet says anything of devices.
pub(crate) fn concerns(packet: &Packet) -> bool {
    packet.body.changes.iter().any(|change| {
        matches!(
            change,
            Change::Introduce { .. } | Change::RenameDevice { .. } | Change::Revoke { .. } | Change::Retire { .. }
        )
    })
}

/// Folds what a packet says of devices.
pub(crate) fn fold(index: &mut Index, packet: &Packet) -> Result<(), SyncError> {
    if concerns(packet) {
        let mut members = load(index)?;
        members.fold(packet);
        store(index, &members)?;
    }
    if let Some(mut member) = index.member(packet.dot.device)? {
        member.heard_lamport = packet.body.lamport;
        member.heard_time = packet.body.time;
        index.put_member(&member)?;
    }
    Ok(())
}

const MEMBERS: &str = "members";
