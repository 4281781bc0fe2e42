//! Conflicts: which items are in one, and how one is settled.

use std::collections::BTreeMap;

use packetboat_core::change::Change;
use packetboat_core::content::Content;
use packetboat_core::ids::ItemId;
use packetboat_core::name::RelPath;
use packetboat_core::packet::Packet;
use packetboat_core::plan::{HistoryRead, Plan};
use packetboat_core::tree::{Folding, TreeRead, is_shown};
use packetboat_core::view::{ViewRead, Viewer};
use packetboat_replica::index::Index;

use crate::error::SyncError;
use crate::replica::{Conflict, Replica, Side};

/// Notes which items a folded packet may have brought into a conflict. Whether they are in one is seen when asked.
pub(crate) fn note(index: &mut Index, packet: &Packet, folding: Folding) -> Result<(), SyncError> {
    for change in &packet.body.changes {
        let (item, place) = match change {
            Change::Content { item, .. } => (*item, None),
            Change::Create { item, parent, name, .. } if folding == Folding::Other => (*item, Some((*parent, name))),
            Change::Place { item, parent, name, .. } => (*item, Some((*parent, name))),
            _ => continue,
        };
        let in_conflict = match place {
            Some((parent, name)) => index.named(parent, name)?.len() > 1,
            None => index.item(item)?.is_some_and(|item| item.seats().len() > 1),
        };
        if in_conflict {
            index.set_problem(CANDIDATE, item.as_bytes(), "")?;
        }
    }
    Ok(())
}

/// Notes the conflicts at the places that a plan looked at: what brings items together at one name need not concern
/// either of them, as when an edit revives an item or a move its directory.
pub(crate) fn note_planned(index: &mut Index, plan: &Plan) -> Result<(), SyncError> {
    for item in &plan.conflicts {
        index.set_problem(CANDIDATE, item.as_bytes(), "")?;
    }
    Ok(())
}

/// The items that may be in a conflict.
pub(crate) fn candidates(index: &Index) -> Result<Vec<ItemId>, SyncError> {
    let problems = index.problems()?.into_iter().filter(|problem| problem.kind == CANDIDATE);
    Ok(problems.filter_map(|problem| ItemId::from_slice(&problem.subject)).collect())
}

impl Replica {
    /// The conflicts that wait to be settled, by path.
    pub fn conflicts(&mut self) -> Result<Vec<Conflict>, SyncError> {
        let index = &mut self.parts.index;
        let own = self.keys.device.device();
        let mut settled = Vec::new();
        let mut conflicts: BTreeMap<RelPath, Conflict> = BTreeMap::new();
        for candidate in candidates(index)? {
            let viewer = Viewer::new(&*index);
            let place = match index.item(candidate)? {
                Some(item) if is_shown(index, &item)? => viewer.place_of(&item)?,
                _ => {
                    settled.push(candidate);
                    continue;
                }
            };
            let shown = viewer.place(place.0, &place.1)?;
            if shown.len() < 2 {
                settled.push(candidate);
                continue;
            }
            let directory = viewer.path_of(place.0)?;
            let mut sides = Vec::new();
            for shown in &shown {
                let version = *shown.heads.last().expect("what is shown has a version");
                let head = index.version(shown.item, &version)?;
                sides.push(Side {
                    path: directory.join(&shown.name),
                    version,
                    device: index.device_label(&version.device)?,
                    time: head.map(|head| head.time),
                    size: match &shown.content {
                        Content::File(file) => file.size,
                        Content::Symlink(target) => target.len() as u64,
                        Content::Directory => 0,
                    },
                    mine: version.device == own,
                });
            }
            let path = directory.join(&place.1);
            conflicts.insert(path.clone(), Conflict { path, sides });
        }
        for candidate in settled {
            index.clear_problem(CANDIDATE, candidate.as_bytes())?;
        }
        Ok(conflicts.into_values().collect())
    }

    /// How many conflicts wait to be settled.
    pub(crate) fn count_conflicts(&mut self) -> Result<u64, SyncError> {
        Ok(self.conflicts()?.len() as u64)
    }
}

/// The kind of problem under which the index keeps items that may be in a conflict; not a problem to be shown as such.
pub(crate) const CANDIDATE: &str = "conflict candidate";
