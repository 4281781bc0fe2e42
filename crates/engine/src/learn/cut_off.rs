//! Whether this device can follow no more: it has no key, and the packets that might have brought one were let go.
//!
//! Whoever is waited for has learned of a revocation before the packet that tells of it goes. Who was revoked, or retired
//! while the key was renewed, is not waited for: it may find nothing but what the others sealed since, and no word why.
//! Then nothing that it could do by itself would help, and its user is told.
//!
//! It is told only where three things agree: tips that their devices signed do not open, the marker gives no key to whoever
//! holds what is held here, and a lane begins later than it was read, so history was let go and no single packet is lost.
//! Nothing is recorded: whoever sees more another day goes on.
//!
//! Left out: lanes of which no packet is left, since one that was read to its end looks the same.

use packetboat_core::ids::{Counter, DeviceId};

use super::{LearnError, Learner, counter_of};
use crate::error::SyncError;

impl Learner<'_> {
    /// Whether there is a device whose key is not held here, and of whose packets those are gone that were to be read next.
    pub(super) fn is_cut_off(&mut self) -> Result<bool, SyncError> {
        let locked = self.learned.locked.iter().copied().filter(|device| *device != self.own_device);
        let locked: Vec<DeviceId> = locked.collect();
        if locked.is_empty() || !crate::epochs::is_marker_locked(self.store, self.keys)? {
            return Ok(false);
        }
        for device in locked {
            let next = self.index.knowledge().counter(&device) + 1;
            let listed = self.store.list(&format!("lanes/{device}"))?;
            let first = listed.iter().filter_map(|listed| counter_of(listed.name.as_str())).min();
            // A listing may be stale: what is not listed is asked for.
            if first.is_some_and(|first| first > next) && self.is_gone(device, next)? {
                return Ok(true);
            }
        }
        Ok(false)
    }

    fn is_gone(&mut self, device: DeviceId, counter: Counter) -> Result<bool, SyncError> {
        let missing = std::mem::replace(&mut self.learned.missing, false);
        let read = self.read(device, counter);
        let is_gone = std::mem::replace(&mut self.learned.missing, missing);
        match read {
            Err(LearnError::Sync(error)) => Err(error),
            _ => Ok(is_gone),
        }
    }
}
