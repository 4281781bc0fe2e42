//! Checkpoints: a vault's folded state at some knowledge.

use crate::ids::DeviceId;
use crate::store::ObjectName;
use crate::wire::{Reader, WireError};

/// Names a checkpoint.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug)]
pub struct CheckpointRef {
    /// The device that wrote it.
    pub device: DeviceId,
    /// Which of that device's checkpoints it is, from 1.
    pub number: u64,
}

impl CheckpointRef {
    /// The object's name at an intermediary.
    pub fn name(&self) -> ObjectName {
        let Self { device, number } = self;
        ObjectName::new(format!("{CHECKPOINTS_FOLDER}/{device}-{number}")).expect("hexadecimal and decimal digits")
    }

    /// Which checkpoint lies under a name.
    pub fn from_name(name: &ObjectName) -> Option<Self> {
        let (device, digits) = name.as_str().strip_prefix(CHECKPOINTS_FOLDER)?.strip_prefix('/')?.split_once('-')?;
        let found = Self { device: DeviceId::from_hex(device)?, number: digits.parse().ok()? };
        // One checkpoint has one name: no sign, no leading zero.
        (found.number > 0 && found.name() == *name).then_some(found)
    }

    /// Reads a device and a number.
    pub(crate) fn decode(input: &mut Reader<'_>) -> Result<Self, WireError> {
        let found = Self { device: DeviceId(input.array()?), number: input.varint()? };
        if found.number == 0 { Err(WireError::Invalid { what: "checkpoint number" }) } else { Ok(found) }
    }
}

/// The folder of the checkpoints at an intermediary.
pub const CHECKPOINTS_FOLDER: &str = "checkpoints";
