//! Changes: what a packet says was done to the items of a vault, and to the vault itself.
//!
//! A change names what it replaces, so that what its author had not seen is never swept away.
//! Within one packet each unit of an item is set at most once, so that the packet's dot alone names the version.

use std::collections::HashSet;

use crate::content::Content;
use crate::garbage::Retention;
use crate::ids::{Counter, DeviceId, Dot, Epoch, ItemId, Lamport, PackId};
use crate::keys::KeyId;
use crate::knowledge::Knowledge;
use crate::name::Name;
use crate::wire::WireError;

/// A version further back in the line that a content came from.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Mark {
    /// The version.
    pub dot: Dot,
    /// Its packet's Lamport time.
    pub lamport: Lamport,
    /// Its packet's time in seconds since 1970 UTC, for the name of a conflict copy.
    pub time: i64,
}

/// One change.
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum Change {
    /// A new item: its content, placement and attributes in one.
    Create {
        /// The new item.
        item: ItemId,
        /// The directory it lies in.
        parent: ItemId,
        /// Its name there.
        name: Name,
        /// What it holds.
        content: Content,
        /// Permission bits, at most 0o777; none for symlinks.
        mode: Option<u32>,
        /// Extended attributes (`user.*`), sorted by name.
        xattrs: Vec<(Vec<u8>, Vec<u8>)>,
    },
    /// New content of an item.
    Content {
        /// The item.
        item: ItemId,
        /// What it holds now.
        content: Content,
        /// The heads that the author had seen and that this replaces, sorted.
        replaces: Vec<Dot>,
        /// The line of versions this one came from, newest first, at most [`MAX_TRAIL`]; empty where it settles a conflict.
        trail: Vec<Mark>,
    },
    /// A move or rename.
    Place {
        /// The item.
        item: ItemId,
        /// The directory it lies in now.
        parent: ItemId,
        /// Its name there.
        name: Name,
        /// The placements that the author had seen and that this replaces, and the item's effective deletes that it had
        /// seen (a dead directory is shown while something lives beneath it, and can be moved), sorted.
        replaces: Vec<Dot>,
    },
    /// New permission bits.
    Mode {
        /// The item.
        item: ItemId,
        /// At most 0o777.
        mode: u32,
    },
    /// A new, changed or removed extended attribute.
    Xattr {
        /// The item.
        item: ItemId,
        /// Its whole name, beginning with `user.`.
        name: Vec<u8>,
        /// Its value, or none for a removal.
        value: Option<Vec<u8>>,
    },
    /// The removal of items, each with all that the author had seen of it.
    Delete {
        /// What is removed: a directory stands before what lies beneath it.
        removed: Vec<Removed>,
    },
    /// A device makes itself known: the first change of every lane.
    Introduce {
        /// What people call it.
        name: String,
        /// Its X25519 public key, to which later epochs' keys are sealed.
        exchange_key: [u8; 32],
        /// The device that this one goes on from, where an index was lost or a lane had forked.
        continues: Option<DeviceId>,
    },
    /// A device gets another name.
    RenameDevice {
        /// The device.
        device: DeviceId,
        /// Its new name.
        name: String,
    },
    /// A device is no longer trusted.
    Revoke {
        /// The device.
        device: DeviceId,
        /// The last counter of its lane that counts by itself.
        cut: Counter,
        /// The epoch that begins with this.
        epoch: Epoch,
        /// What names the epoch's root key.
        key: KeyId,
        /// The epoch's root key, sealed to each remaining device (epoch_key.rs).
        keys: Vec<(DeviceId, Vec<u8>)>,
    },
    /// A device unheard of for long is no longer waited for.
    Retire {
        /// The device.
        device: DeviceId,
        /// The greatest counter of its lane that the author knew.
        cut: Counter,
    },
    /// Objects that are to be deleted once every active device knows of this.
    Condemn {
        /// Packs without content that anyone needs.
        packs: Vec<PackId>,
        /// History up to here is contained in a checkpoint; empty where none is condemned.
        history: Knowledge,
    },
    /// How long the vault keeps its past from now on.
    Retain {
        /// What is kept.
        retention: Retention,
    },
}

/// What a delete names of one item.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Removed {
    /// The item.
    pub item: ItemId,
    /// The heads that the author had seen, sorted.
    pub heads: Vec<Dot>,
    /// The placements that the author had seen, sorted.
    pub placements: Vec<Dot>,
}

/// A unit of an item, for the rule that a packet sets each at most once.
#[derive(PartialEq, Eq, Hash, Clone, Debug)]
pub enum Unit {
    /// Its content.
    Content(ItemId),
    /// Its placement.
    Place(ItemId),
    /// Its permission bits.
    Mode(ItemId),
    /// One extended attribute.
    Xattr(ItemId, Vec<u8>),
    /// Its removal.
    Delete(ItemId),
}

impl Change {
    /// The units that this change sets.
    pub fn units(&self) -> Vec<Unit> {
        match self {
            Change::Create { item, mode, xattrs, .. } => {
                let mut units = vec![Unit::Content(*item), Unit::Place(*item)];
                units.extend(mode.map(|_| Unit::Mode(*item)));
                units.extend(xattrs.iter().map(|(name, _)| Unit::Xattr(*item, name.clone())));
                units
            }
            Change::Content { item, .. } => vec![Unit::Content(*item)],
            Change::Place { item, .. } => vec![Unit::Place(*item)],
            Change::Mode { item, .. } => vec![Unit::Mode(*item)],
            Change::Xattr { item, name, .. } => vec![Unit::Xattr(*item, name.clone())],
            Change::Delete { removed } => removed.iter().map(|removed| Unit::Delete(removed.item)).collect(),
            _ => Vec::new(),
        }
    }

    /// The versions that this change says its author had seen: what it replaces or removes, and where it came from.
    pub fn named(&self) -> impl Iterator<Item = &Dot> {
        let (dots, trail, removed): (&[Dot], &[Mark], &[Removed]) = match self {
            Change::Content { replaces, trail, .. } => (replaces, trail, &[]),
            Change::Place { replaces, .. } => (replaces, &[], &[]),
            Change::Delete { removed } => (&[], &[], removed),
            _ => (&[], &[], &[]),
        };
        let of_items = removed.iter().flat_map(|removed| removed.heads.iter().chain(&removed.placements));
        dots.iter().chain(trail.iter().map(|mark| &mark.dot)).chain(of_items)
    }

    /// The item that this change is about, if it is about one.
    pub fn item(&self) -> Option<ItemId> {
        match self {
            Change::Create { item, .. }
            | Change::Content { item, .. }
            | Change::Place { item, .. }
            | Change::Mode { item, .. }
            | Change::Xattr { item, .. } => Some(*item),
            _ => None,
        }
    }
}

/// Checks what holds for the changes of any one packet, whoever made it.
pub(crate) fn check_changes(changes: &[Change]) -> Result<(), WireError> {
    let invalid = |what| Err(WireError::Invalid { what });
    let mut units = HashSet::new();
    for change in changes {
        for unit in change.units() {
            if !units.insert(unit) {
                return invalid("second change of one unit");
            }
        }
        match change {
            Change::Create { item, parent, .. } | Change::Place { item, parent, .. }
                if *item == ItemId::ROOT || item == parent =>
            {
                return invalid("placement");
            }
            Change::Content { item, .. } | Change::Mode { item, .. } | Change::Xattr { item, .. }
                if *item == ItemId::ROOT =>
            {
                return invalid("change of the root");
            }
            Change::Delete { removed } if removed.iter().any(|removed| removed.item == ItemId::ROOT) => {
                return invalid("removal of the root");
            }
            Change::Create { mode: Some(mode), .. } | Change::Mode { mode, .. } if *mode > 0o777 => {
                return invalid("mode");
            }
            _ => {}
        }
    }
    Ok(())
}

/// Most marks that a content change carries.
pub const MAX_TRAIL: usize = 8;
/// Longest symlink target in bytes.
pub const MAX_TARGET: usize = 4095;
/// Longest name of an extended attribute in bytes.
pub const MAX_XATTR_NAME: usize = 255;
/// Longest value of an extended attribute in bytes.
pub const MAX_XATTR_VALUE: usize = 64 * 1024;
/// Longest device name in bytes.
pub const MAX_DEVICE_NAME: usize = 64;
