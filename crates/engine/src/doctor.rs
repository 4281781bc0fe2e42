//! What a replica knows that shows whether anything needs looking at, beyond how it stands ([`Replica::status`]).
//!
//! Everything here is read from the index and costs nothing at the intermediary.

use crate::error::{QueryError, SyncError};
use crate::places;
use crate::replica::Replica;
use crate::wants;

/// What a replica's index tells of itself and of the vault.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Vitals {
    /// What is wrong with the index, if anything.
    pub index_damage: Option<String>,
    /// Directories of the folder that are recorded.
    pub directories: u64,
    /// Objects at the intermediary that were found missing or damaged and are not put back yet.
    pub wanted: u64,
    /// Whether this device was at several places of the vault: past versions of those may lie at another.
    pub has_several_places: bool,
    /// Bytes of all packs that are known.
    pub pack_bytes: u64,
    /// Packs that are known.
    pub packs: u64,
    /// Packets that are known.
    pub packets: u64,
}

impl Replica {
    /// Reads every page of the index, and counts.
    pub fn vitals(&self) -> Result<Vitals, QueryError> {
        let index = &self.parts.index;
        let (mut pack_bytes, mut packs) = (0, 0);
        index.each_pack(|row| {
            packs += 1;
            pack_bytes += u64::from(row.size);
        })?;
        Ok(Vitals {
            index_damage: index.check().err().map(|error| crate::error::chain(&SyncError::from(error))),
            directories: index.count_directories()?,
            wanted: wants::own(index)?.len() as u64,
            has_several_places: places::are_several(index)?,
            pack_bytes,
            packs,
            packets: index.knowledge().iter().map(|(_, learned)| learned.counter).sum(),
        })
    }
}
