//! Looking whether the packs are there for which others go.
//!
//! The index says what was stored, and a storage may have lost it since; or the vault lies at two places, and what this
//! one lets go would be all that it has. So before anything goes, what stays for it is looked for in listings: no pack is
//! read, and the requests are at most as many as there are folders of packs.

use std::collections::{BTreeMap, BTreeSet};

use packetboat_core::ids::PackId;
use packetboat_core::store::{ObjectName, Store};
use packetboat_core::wanted::Wanted;
use packetboat_replica::index::PackState;
use packetboat_storage::pack::object_name;

use crate::error::SyncError;
use crate::replica::Replica;
use crate::wants;

impl Replica {
    /// Notes which of these packs are missing or shorter than they were, so that nothing relies on them from now on and
    /// whoever has what they held is asked for it; whether there were any.
    pub(super) fn note_absent(&mut self, packs: &BTreeSet<PackId>) -> Result<bool, SyncError> {
        let parts = &mut self.parts;
        let sizes = sizes(&*parts.store, packs)?;
        let mut absent = Vec::new();
        for pack in packs {
            let Some(row) = parts.index.pack_row(pack)? else { continue };
            if sizes.get(pack) != Some(&u64::from(row.size)) {
                absent.push(*pack);
            }
        }
        if absent.is_empty() {
            return Ok(false);
        }
        parts.index.begin()?;
        for pack in &absent {
            parts.index.set_pack_state(pack, PackState::Damaged)?;
        }
        parts.index.commit()?;
        let wanted = absent.into_iter().map(Wanted::Pack).collect();
        wants::note(&mut parts.index, &wanted, parts.clock.now_ms())?;
        Ok(true)
    }
}

/// The sizes in bytes of those of these packs that the intermediary lists; each folder is listed once.
pub(crate) fn sizes<'p>(
    store: &dyn Store,
    packs: impl IntoIterator<Item = &'p PackId>,
) -> Result<BTreeMap<PackId, u64>, SyncError> {
    let mut by_folder: BTreeMap<String, BTreeMap<ObjectName, PackId>> = BTreeMap::new();
    for pack in packs {
        let name = object_name(pack);
        let folder = name.as_str().rsplit_once('/').map_or("", |(folder, _)| folder).to_owned();
        by_folder.entry(folder).or_default().insert(name, *pack);
    }
    let mut sizes = BTreeMap::new();
    for (folder, packs) in by_folder {
        let listed = store.list(&folder)?;
        sizes.extend(listed.iter().filter_map(|listed| Some((*packs.get(&listed.name)?, listed.size))));
    }
    Ok(sizes)
}
