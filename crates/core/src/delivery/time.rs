//! Time as the machines see it: a running clock that a reboot ends, and the wall clock for what lasts days.
//!
//! Leases and waits are measured by `CLOCK_BOOTTIME`, which goes on while the computer sleeps and which nobody can set.
//! It begins again with every boot, so a [`Moment`] names the boot that it belongs to, and moments of two boots do not
//! compare. Only the lifetime of a mail goes by the wall clock, because it outlasts boots.

use std::time::Duration;

use crate::ids::BootId;
use crate::wire::{Reader, WireError, Writer};

/// What the clocks of a device say; passed in with every event.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug)]
pub struct Now {
    /// The run of the kernel that the clock belongs to.
    pub boot: BootId,
    /// Milliseconds since boot, those asleep included.
    pub since_boot_ms: u64,
    /// Milliseconds since 1970 by the wall clock.
    pub wall_ms: u64,
}

impl Now {
    /// This instant by the running clock.
    pub fn moment(&self) -> Moment {
        Moment { boot: self.boot, since_boot_ms: self.since_boot_ms }
    }

    /// The instant that lies `wait` ahead by the running clock.
    pub fn after(&self, wait: Duration) -> Moment {
        Moment { boot: self.boot, since_boot_ms: self.since_boot_ms.saturating_add(millis(wait)) }
    }

    /// Whether a moment has come; one of another boot has.
    pub fn reached(&self, moment: Moment) -> bool {
        self.boot != moment.boot || self.since_boot_ms >= moment.since_boot_ms
    }
}

/// An instant of one boot's running clock.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug)]
pub struct Moment {
    /// The run of the kernel that the clock belongs to.
    pub boot: BootId,
    /// Milliseconds since boot.
    pub since_boot_ms: u64,
}

impl Moment {
    /// The moment that lies `wait` later.
    pub fn plus(self, wait: Duration) -> Self {
        Self { since_boot_ms: self.since_boot_ms.saturating_add(millis(wait)), ..self }
    }

    /// The moment that lies `wait` earlier; never before boot.
    pub fn minus(self, wait: Duration) -> Self {
        Self { since_boot_ms: self.since_boot_ms.saturating_sub(millis(wait)), ..self }
    }

    pub(super) fn encode(&self, out: &mut Writer) {
        out.raw(&self.boot.0).varint(self.since_boot_ms);
    }

    pub(super) fn decode(input: &mut Reader<'_>) -> Result<Self, WireError> {
        Ok(Self { boot: BootId(input.array()?), since_boot_ms: input.varint()? })
    }
}

/// Whole milliseconds of a duration.
pub(super) fn millis(duration: Duration) -> u64 {
    u64::try_from(duration.as_millis()).unwrap_or(u64::MAX)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn now(boot: u8, since_boot_ms: u64) -> Now {
        Now { boot: BootId([boot; 16]), since_boot_ms, wall_ms: 0 }
    }

    #[test]
    fn a_moment_of_another_boot_has_passed() {
        let moment = now(1, 100).moment();
        assert!(!now(1, 99).reached(moment));
        assert!(now(1, 100).reached(moment));
        assert!(now(2, 5).reached(moment));
    }
}
