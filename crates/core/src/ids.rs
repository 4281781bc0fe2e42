//! Identifiers: the fixed-size names by which everything in a vault is known.
//!
//! Each is a newtype over bytes or a number, so that a packet hash cannot be passed where a chunk id is meant.
//! Identifiers order by their bytes; that order is part of the formats (tables in packets and checkpoints are sorted by it).
//! Nothing here makes randomness: callers pass it in.

use std::fmt;

macro_rules! byte_id {
    ($(#[$doc:meta])* $name:ident, $len:expr) => {
        $(#[$doc])*
        #[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
        pub struct $name(pub [u8; $len]);

        impl $name {
            /// Length of the identifier in bytes.
            pub const LEN: usize = $len;

            /// Reads the identifier from exactly [`Self::LEN`] bytes.
            pub fn from_slice(bytes: &[u8]) -> Option<Self> {
                Some(Self(bytes.try_into().ok()?))
            }

            /// Reads the identifier from its lower-case hexadecimal form.
            pub fn from_hex(text: &str) -> Option<Self> {
                crate::hex::decode_exactly(text).map(Self)
            }

            /// The identifier's bytes.
            pub fn as_bytes(&self) -> &[u8] {
                &self.0
            }

            /// The first eight hexadecimal digits, for people.
            pub fn short(&self) -> String {
                self.to_string()[..8].to_owned()
            }
        }

        impl fmt::Display for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                for byte in self.0 {
                    write!(f, "{byte:02x}")?;
                }
                Ok(())
            }
        }

        impl fmt::Debug for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                write!(f, "{}({})", stringify!($name), self.short())
            }
        }
    };
}

byte_id!(
    /// Names a vault; random, made with it.
    VaultId, 16
);
byte_id!(
    /// Names a device: the hash of its Ed25519 public key (or, for the losing side of a fork, of a packet).
    DeviceId, 32
);
byte_id!(
    /// Names a file, directory or symlink of a vault for as long as it lives, across renames.
    ItemId, 16
);
byte_id!(
    /// Names a chunk: the keyed BLAKE3 hash of its plaintext.
    ChunkId, 32
);
byte_id!(
    /// Names a content: that of its only chunk, or a keyed hash of its chunk list.
    ContentId, 32
);
byte_id!(
    /// Names a pack: the BLAKE3 hash of its stored bytes.
    PackId, 32
);
byte_id!(
    /// The BLAKE3 hash of a packet's signed bytes.
    PacketHash, 32
);

byte_id!(
    /// Names a mail from its submission on, on every device; random, made with it.
    MailId, 16
);
byte_id!(
    /// The SHA-256 of a mail's body: header and text as they are sent.
    BodyHash, 32
);
byte_id!(
    /// Names one run of a computer's kernel; a reboot is another.
    BootId, 16
);

impl ItemId {
    /// The root directory of every vault.
    pub const ROOT: Self = Self([0; 16]);

    /// The item id `offset` places after `self` in one batch.
    ///
    /// A batch shares twelve random bytes; the last four count.
    /// Neighbours in a batch encode to one byte in a packet and lie together in an index.
    pub fn successor(self, offset: u32) -> Self {
        let mut bytes = self.0;
        let low = u32::from_be_bytes([bytes[12], bytes[13], bytes[14], bytes[15]]);
        bytes[12..].copy_from_slice(&low.wrapping_add(offset).to_be_bytes());
        Self(bytes)
    }
}

/// A packet's place in its lane, from 1 upward without gaps.
pub type Counter = u64;

/// Logical time: one more than the greatest among what the author had folded.
pub type Lamport = u64;

/// Which of a vault's successive keys sealed something; a revocation starts the next.
pub type Epoch = u32;

/// A version: the packet that last set a unit of an item.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug)]
pub struct Dot {
    /// The device that made the packet.
    pub device: DeviceId,
    /// The packet's place in that device's lane.
    pub counter: Counter,
}

impl fmt::Display for Dot {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}:{}", self.device.short(), self.counter)
    }
}

/// The total order of changes: Lamport time, then device, then place in the packet.
///
/// A device's Lamport times rise with its counters, so no two changes share a stamp.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug)]
pub struct Stamp {
    /// The packet's Lamport time.
    pub lamport: Lamport,
    /// The device that made the packet.
    pub device: DeviceId,
    /// The packet's counter; decided by the two before it, carried so that a stamp names its dot.
    pub counter: Counter,
    /// The change's place in the packet.
    pub index: u32,
}

impl Stamp {
    /// The packet that this stamp stands in.
    pub fn dot(&self) -> Dot {
        Dot { device: self.device, counter: self.counter }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn hex_round_trips_and_refuses_other_forms() {
        let id = ItemId([0xab; 16]);
        assert_eq!(ItemId::from_hex(&id.to_string()), Some(id));
        assert_eq!(ItemId::from_hex("AB"), None);
        assert_eq!(ItemId::from_hex(&"zz".repeat(16)), None);
    }
}
