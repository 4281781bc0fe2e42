//! Ids and names of small numbers, and an entry of them, for the tests of the index and its fuzz targets.

use packetboat_core::ids::{DeviceId, Dot, ItemId, Stamp};
use packetboat_core::local::{DirId, EntryState, Fingerprint, LocalEntry, Seen, View};
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

pub(super) fn entry(dir: DirId, text: &str, item: ItemId) -> LocalEntry {
    let seen = Seen { item, heads: vec![dot(1, 1)], placements: vec![dot(1, 1)], view: View::Plain, twins: Vec::new() };
    let stat = Fingerprint { size: 10, mtime: 1_700_000_000_000_000_000, inode: 99, mode: 0o644, ..Default::default() };
    LocalEntry {
        dir,
        name: name(text),
        own_dir: None,
        seen,
        mode: Some(0o644),
        xattrs: Vec::new(),
        stat,
        state: EntryState::Settled,
    }
}
