//! What can be known of an object without a key: whose it is, and that it is whole.
//!
//! A packet, a tip and the root of a checkpoint are signed by the device that their name names; a pack is named by the
//! hash of its bytes. A companion refuses what is none of these, so nobody can fill it with anything else, and keeps
//! no copy of what a storage damaged.
//! Who belongs to the vault, and what the objects say, it cannot know: that is checked by devices that have the keys.

use packetboat_core::checkpoint::{CheckpointRef, UnverifiedCheckpoint};
use packetboat_core::ids::{Counter, DeviceId, Dot, PackId, VaultId};
use packetboat_core::marker::{MARKER_NAME, Marker, MarkerError};
use packetboat_core::packet::{PacketError, SealedPacket};
use packetboat_core::signed::SignedError;
use packetboat_core::store::ObjectName;
use packetboat_core::tip::{Tip, UnverifiedTip};
use packetboat_storage::pack::pack_named;
use thiserror::Error;

/// What an object is by its name.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Kind {
    /// The vault's marker.
    Marker,
    /// A device's tip, which that device replaces.
    Tip(DeviceId),
    /// A packet.
    Packet(Dot),
    /// The root of a checkpoint.
    Checkpoint(CheckpointRef),
    /// A pack.
    Pack(PackId),
}

impl Kind {
    /// What a name stands for; nothing, where no object of a vault has such a name.
    pub fn of(name: &ObjectName) -> Option<Self> {
        if name.as_str() == MARKER_NAME {
            return Some(Self::Marker);
        }
        let tip = || Tip::device_of(name).map(Self::Tip);
        let packet = || dot_of(name).map(Self::Packet);
        let checkpoint = || CheckpointRef::from_name(name).map(Self::Checkpoint);
        tip().or_else(packet).or_else(checkpoint).or_else(|| pack_named(name).map(Self::Pack))
    }

    /// The device whose lane it belongs to, for what must not overtake what that device made before.
    pub fn author(&self) -> Option<DeviceId> {
        match self {
            Self::Tip(device) => Some(*device),
            Self::Packet(dot) => Some(dot.device),
            Self::Checkpoint(checkpoint) => Some(checkpoint.device),
            Self::Marker | Self::Pack(_) => None,
        }
    }
}

/// Checks that bytes are what their name says, as far as that can be seen without a key.
pub fn check(vault: VaultId, name: &ObjectName, bytes: &[u8]) -> Result<Kind, CheckError> {
    let kind = Kind::of(name).ok_or(CheckError::NoSuchName)?;
    let (found, fits) = match kind {
        Kind::Marker => (Marker::decode(bytes)?.vault(), true),
        Kind::Tip(device) => (UnverifiedTip::parse(bytes.to_vec())?.verify(&device)?.vault(), true),
        Kind::Checkpoint(checkpoint) => {
            let sealed = UnverifiedCheckpoint::parse(bytes.to_vec())?.verify(&checkpoint.device)?;
            (sealed.vault(), sealed.number() == checkpoint.number)
        }
        Kind::Packet(dot) => {
            let sealed = SealedPacket::from_bytes(bytes.to_vec())?;
            (sealed.vault(), sealed.dot() == dot)
        }
        Kind::Pack(pack) => (vault, *blake3::hash(bytes).as_bytes() == pack.0),
    };
    if found != vault {
        return Err(CheckError::OtherVault { vault: found });
    }
    if fits { Ok(kind) } else { Err(CheckError::OtherObject) }
}

/// The number of a tip; nothing, where it is none of that device.
pub fn tip_number(device: &DeviceId, bytes: &[u8]) -> Option<u64> {
    let tip = UnverifiedTip::parse(bytes.to_vec()).ok()?.verify(device).ok()?;
    Some(tip.number())
}

fn dot_of(name: &ObjectName) -> Option<Dot> {
    let (device, digits) = name.as_str().strip_prefix("lanes/")?.split_once('/')?;
    let counter: Counter = digits.parse().ok()?;
    let canonical = counter > 0 && counter.to_string() == digits;
    canonical.then_some(Dot { device: DeviceId::from_hex(device)?, counter })
}

/// Why an object is not carried.
#[derive(Debug, Error)]
pub enum CheckError {
    /// Nothing of a vault has such a name.
    #[error("a vault has no object of such a name")]
    NoSuchName,
    /// It belongs to another vault.
    #[error("it belongs to the vault {vault}")]
    OtherVault {
        /// Which.
        vault: VaultId,
    },
    /// It is whole, and has another name.
    #[error("it is another object than its name says, or damaged")]
    OtherObject,
    /// It is no sound packet.
    #[error(transparent)]
    Packet(#[from] PacketError),
    /// It is no sound tip or checkpoint.
    #[error(transparent)]
    Signed(#[from] SignedError),
    /// It is no sound marker.
    #[error(transparent)]
    Marker(#[from] MarkerError),
}
