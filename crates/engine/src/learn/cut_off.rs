//! Whether this device can follow no more: it has no key, and the packets that might have brought one were let go.
//!
//! Whoever is waited for has learned of a revocation before the packet that tells of it goes. Who was revoked, or retired
//! while the key was renewed, is not waited for: it may find nothing but what the others sealed since, and no word why.
//! Then nothing that it could do by itself would help, and its user is told.
//!
//! It is told only where three things agree: tips that their devices signed do not open, the marker gives no key to whoever
//! holds what is held here, and no packet is there that could still bring one. The last is seen by a lane that begins later
//! than it was read, since history was let go then and no single packet is lost; or by all lanes of those tips, where the
//! packet to be read next does not open either, or is refused, or waits for some that are gone, or is gone although it was
//! asked for in an earlier round, or none is left of a lane never read.
//! Nothing is recorded: whoever sees more another day goes on.
//!
//! Left out: lanes of which no packet is left and that were read in part, since one that was read to its end looks the same.

use packetboat_core::ids::{Counter, DeviceId, Dot};
use packetboat_core::wanted::Wanted;

use super::{LearnError, Learner, counters_present};
use crate::error::SyncError;
use crate::refusals;

impl Learner<'_> {
    /// Whether there is a device whose key is not held here, and of whose packets those are gone that were to be read next.
    pub(super) fn is_cut_off(&mut self) -> Result<bool, SyncError> {
        // Who was revoked seals under a key that nobody else is to have.
        let counts = |device: &DeviceId| *device != self.own_device && !self.members.standing(device).is_revoked();
        let locked: Vec<DeviceId> = self.learned.locked.iter().copied().filter(counts).collect();
        if locked.is_empty() || !crate::epochs::is_marker_locked(self.store, self.keys)? {
            return Ok(false);
        }
        let asked_for = crate::wants::own(self.index)?;
        let mut exhausted = true;
        for device in locked {
            let known = self.index.knowledge().counter(&device);
            let listed = counters_present(self.store, &device)?;
            // A listing may be stale: what is not listed is asked for.
            let dot = Dot { device, counter: known + 1 };
            let next = self.next_of(device, dot.counter)?;
            if listed.first().is_some_and(|first| *first > known + 1) && next == Next::Gone {
                return Ok(true);
            }
            let is_hole = next == Next::Gone && listed.last().is_some_and(|last| *last > dot.counter);
            if is_hole {
                self.learned.damaged.insert(Wanted::Packet(dot));
            }
            exhausted &= match next {
                Next::Locked => true,
                Next::Gone => known == 0 && listed.is_empty() || is_hole && asked_for.contains(&Wanted::Packet(dot)),
                Next::Other => self.is_refused(&dot)? || self.awaits_what_is_gone()?,
            };
        }
        Ok(exhausted)
    }

    /// Whether a packet is refused, as it was read now or before.
    fn is_refused(&self, dot: &Dot) -> Result<bool, SyncError> {
        let refused = refusals::own(self.index)?;
        Ok(self.refused.contains_key(dot) || refused.get(&dot.device).is_some_and(|from| *from <= dot.counter))
    }

    /// Whether packets that were read wait for some that are not there.
    fn awaits_what_is_gone(&mut self) -> Result<bool, SyncError> {
        for (device, run) in self.waiting.missing(self.index.knowledge()) {
            if self.next_of(device, *run.start())? == Next::Gone {
                return Ok(true);
            }
        }
        Ok(false)
    }

    /// What is there of the packet that is to be read next of a lane.
    fn next_of(&mut self, device: DeviceId, counter: Counter) -> Result<Next, SyncError> {
        let missing = std::mem::replace(&mut self.learned.missing, false);
        let read = self.read(device, counter);
        let is_gone = std::mem::replace(&mut self.learned.missing, missing);
        match read {
            Err(LearnError::Sync(error)) => Err(error),
            Err(LearnError::Locked(_)) => Ok(Next::Locked),
            _ if is_gone => Ok(Next::Gone),
            _ => Ok(Next::Other),
        }
    }
}

/// What is there of the packet that is to be read next of a lane.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
enum Next {
    /// Nothing.
    Gone,
    /// A packet under a key that is not held here.
    Locked,
    /// One that opens, or that is damaged.
    Other,
}

#[cfg(test)]
mod tests;
