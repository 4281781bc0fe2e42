//! The clock that leases and waits are measured by, and the port that puts a simulated one in its place.
//!
//! [`BootClock`] reads `CLOCK_BOOTTIME`, which goes on while the computer sleeps and which nobody can set, and names the
//! boot that it belongs to. Where the kernel does not tell its boot id, each start of the process counts as a boot of
//! its own: that only makes a restarted host wait longer and a restarted companion give its turns back.

use std::fs;
use std::time::{SystemTime, UNIX_EPOCH};

use packetboat_core::delivery::Now;
use packetboat_core::ids::BootId;

/// Tells the time in all the ways that delivery asks for.
pub trait Clock: Send + Sync {
    /// What the clocks say now.
    fn now(&self) -> Now;
}

/// The computer's clocks.
#[derive(Clone, Debug)]
pub struct BootClock {
    boot: BootId,
}

impl BootClock {
    /// The clock of this boot; `fallback` is random and names it where the kernel does not.
    pub fn new(fallback: [u8; 16]) -> Self {
        let told = fs::read_to_string("/proc/sys/kernel/random/boot_id");
        let boot = told.ok().and_then(|text| parse_boot_id(text.trim())).unwrap_or(fallback);
        Self { boot: BootId(boot) }
    }
}

impl Clock for BootClock {
    fn now(&self) -> Now {
        let since_boot = rustix::time::clock_gettime(rustix::time::ClockId::Boottime);
        let seconds = u64::try_from(since_boot.tv_sec).unwrap_or(0);
        let milliseconds = u64::try_from(since_boot.tv_nsec / 1_000_000).unwrap_or(0);
        let wall = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
        Now {
            boot: self.boot,
            since_boot_ms: seconds.saturating_mul(1000).saturating_add(milliseconds),
            wall_ms: u64::try_from(wall.as_millis()).unwrap_or(u64::MAX),
        }
    }
}

fn parse_boot_id(text: &str) -> Option<[u8; 16]> {
    let digits: String = text.chars().filter(|&c| c != '-').collect();
    packetboat_core::hex::decode_exactly(&digits)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_clock_goes_on_within_one_boot() {
        let clock = BootClock::new([1; 16]);
        let (before, after) = (clock.now(), BootClock::new([2; 16]).now());
        assert_eq!(before.boot, after.boot, "the kernel names the boot");
        assert!(after.since_boot_ms >= before.since_boot_ms && before.since_boot_ms > 0);
    }

    #[test]
    fn a_boot_id_is_a_uuid() {
        let id = parse_boot_id("00112233-4455-6677-8899-aabbccddeeff");
        assert_eq!(
            id,
            Some([0, 0x11, 0x22, 0x33, 0x44, 0x55, 0x66, 0x77, 0x88, 0x99, 0xaa, 0xbb, 0xcc, 0xdd, 0xee, 0xff])
        );
        assert_eq!(parse_boot_id("0011"), None);
        assert_eq!(parse_boot_id(""), None);
    }
}
