//! Devices on which a newcomer must not build: they joined while something was condemned, and nobody is known to know them.
//!
//! Others refuse the introduction of such a device, and so they never fold what builds on it. Whoever is known to some member
//! has folded either that introduction before it answered, and carries it, or the condemnation, and refuses it as well. But a
//! newcomer folds in one go what took place over a time, in an order that need not be the one in which others heard of it.
//! So before it introduces itself it looks at what it has folded, and folds all anew without those.
//!
//! Each of them finds out by itself, and begins anew ([`crate::removals`]).

use std::collections::BTreeSet;

use packetboat_core::ids::DeviceId;
use packetboat_core::keys::KeyRing;
use packetboat_replica::index::Index;

use crate::error::SyncError;
use crate::garbage;

/// Those that were found, as long as this device has not introduced itself: then it refuses them like any other.
pub(crate) fn of(index: &Index, own: DeviceId) -> Result<BTreeSet<DeviceId>, SyncError> {
    if index.knowledge().counter(&own) > 0 {
        return Ok(BTreeSet::new());
    }
    let bytes = index.meta(PASSED_OVER)?.unwrap_or_default();
    Ok(bytes.chunks_exact(DeviceId::LEN).filter_map(DeviceId::from_slice).collect())
}

/// Looks for more among the devices whose introduction was folded; whether there are any, and they are noted then.
///
/// For a device that has not introduced itself. Within the caller's transaction.
pub(crate) fn find(index: &mut Index, ring: &KeyRing, own: DeviceId) -> Result<bool, SyncError> {
    let record = garbage::load(index)?;
    if record.standing().next().is_none() {
        return Ok(false);
    }
    let members = crate::members::load(index)?;
    let mut found = of(index, own)?;
    let before = found.len();
    // One that was retired since is refused by others all the same.
    for member in members.iter() {
        if garbage::is_passed_over(index, ring, &record, &members, &member.device)? {
            found.insert(member.device);
        }
    }
    if found.len() == before {
        return Ok(false);
    }
    let bytes: Vec<u8> = found.iter().flat_map(|device| device.0).collect();
    index.set_meta(PASSED_OVER, Some(&bytes))?;
    Ok(true)
}

/// Forgets those that were found, where what was folded is given up in whose light they were.
pub(crate) fn forget(index: &mut Index) -> Result<(), SyncError> {
    Ok(index.set_meta(PASSED_OVER, None)?)
}

/// Where the index keeps them: ids of 32 bytes.
const PASSED_OVER: &str = "passed over";

#[cfg(test)]
mod tests;
