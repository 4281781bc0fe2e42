//! The vault's members in the index.

use packetboat_core::change::Change;
use packetboat_core::packet::Packet;
use packetboat_replica::index::{Index, Member};

use crate::error::SyncError;

/// Folds what a packet says of devices, and notes that its author was heard of.
pub(crate) fn fold(index: &mut Index, packet: &Packet) -> Result<(), SyncError> {
    for change in &packet.body.changes {
        if let Change::Introduce { name, exchange_key, .. } = change {
            index.put_member(&Member {
                device: packet.dot.device,
                public_key: packet.author,
                exchange_key: *exchange_key,
                name: name.clone(),
                introduced_name: name.clone(),
                state: Vec::new(),
                heard_lamport: packet.body.lamport,
                heard_time: packet.body.time,
            })?;
        }
    }
    Ok(())
}
