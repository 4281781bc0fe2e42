//! What files are expected to hold before they are read.
//!
//! A device that others do not know yet may refer to nothing that they stored (docs/design/0018). What it finds as the
//! vault has it is agreement and refers to nothing, so a folder that is full already need not be stored once more.

use std::collections::HashMap;

use packetboat_core::content::Content;
use packetboat_core::ids::{ContentId, ItemId};
use packetboat_core::local::LocalRead;
use packetboat_replica::fs::FileKind;

use super::Absorber;
use crate::error::SyncError;
use crate::paths;
use crate::scan::{Holder, Suspect};

impl Absorber<'_, '_> {
    /// What the vault shows where this disk shows something of which nothing is recorded, for each arrival: files that turn
    /// out to hold it are in agreement, and nothing refers to what they hold.
    pub(super) fn expected(&self) -> Result<Vec<Option<ContentId>>, SyncError> {
        let mut expected = Vec::with_capacity(self.arrivals.len());
        // The directories of the vault for which arrivals seem to stand.
        let mut directories: HashMap<usize, ItemId> = HashMap::new();
        for (at, arrival) in self.arrivals.iter().enumerate() {
            let parent = match arrival.holder {
                Holder::Known(dir) => Some(paths::item_of_dir(self.builder.index, dir)?),
                Holder::New(holder) => directories.get(&holder).copied(),
            };
            let shown = match parent.filter(|_| arrival.from.is_none()) {
                Some(parent) => self.unseen_at(parent, &arrival.name, None)?,
                None => None,
            };
            let is_directory = arrival.stat.kind == FileKind::Directory;
            expected.push(match shown.map(|shown| (shown.item, shown.content)) {
                Some((item, Content::Directory)) if is_directory => {
                    directories.insert(at, item);
                    None
                }
                // What was moved from elsewhere is found by what it holds.
                Some((_, Content::File(file))) if !self.vanished_contents.contains_key(&file.id) => {
                    (file.size == arrival.stat.size && arrival.stat.kind == FileKind::File).then_some(file.id)
                }
                _ => None,
            });
        }
        Ok(expected)
    }

    /// What a file holds that was only touched.
    pub(super) fn unchanged(&self, suspect: &Suspect) -> Result<Option<ContentId>, SyncError> {
        let Some(entry) = self.builder.index.entry_at(suspect.dir, &suspect.name)? else { return Ok(None) };
        Ok(match self.agreed_content(&entry)? {
            Some(Content::File(file)) if file.size == suspect.stat.size => Some(file.id),
            _ => None,
        })
    }
}
