//! Ids and names of small numbers, for the tests of the index and its fuzz targets.

use packetboat_core::ids::{DeviceId, Dot, ItemId, Stamp};
use packetboat_core::name::Name;

pub(super) fn name(text: &str) -> Name {
    Name::new(text).expect("a sound name")
}

pub(super) fn item_id(n: u32) -> ItemId {
    ItemId([7; 16]).successor(n)
}

pub(super) fn dot(device: u8, counter: u64) -> Dot {
    Dot { device: DeviceId([device; 32]), counter }
}

pub(super) fn stamp(device: u8, counter: u64, index: u32) -> Stamp {
    Stamp { lamport: counter + 10, device: DeviceId([device; 32]), counter, index }
}
