//! What follows from faults: which of them a repair has made good, which paths and versions they touch, and who can put
//! the object back.
//!
//! All of it is found from the index, in one pass over the items, and by reading lists of chunks of large files.

use std::collections::{BTreeSet, HashMap, HashSet};

use packetboat_core::content::{ChunkList, Content};
use packetboat_core::ids::{ChunkId, Dot, PackId};
use packetboat_core::item::Head;
use packetboat_core::local::LocalRead;
use packetboat_core::marker::MARKER_NAME;
use packetboat_core::name::RelPath;
use packetboat_core::store::ObjectName;
use packetboat_core::tip::Tip;
use packetboat_core::tree::{Past, TreeRead, is_shown};
use packetboat_core::view::{ViewRead, Viewer};
use packetboat_core::wanted::Wanted;
use packetboat_replica::index::ChunkPlace;

use super::{MISSING, PAGE, Verifier};
use crate::checkpoints;
use crate::content_reader::ContentReader;
use crate::error::SyncError;
use crate::replica::{PastVersion, Remedy};

/// What is missing or damaged, and by which fault.
#[derive(Default)]
pub(super) struct Needs {
    pub(super) chunks: HashMap<ChunkId, Vec<usize>>,
    pub(super) versions: HashMap<Dot, Vec<usize>>,
    /// Which of the chunks this disk holds.
    here: HashSet<ChunkId>,
    /// Packs that checkpoints alone name.
    pub(super) of_checkpoints: BTreeSet<PackId>,
}

impl Needs {
    /// The faults that concern a content; its chunks that this disk holds are noted.
    fn content(&mut self, reader: &mut ContentReader<'_>, head: &Head, on_disk: &[Dot]) -> Vec<usize> {
        let Content::File(file) = &head.content else { return Vec::new() };
        let mut chunks: Vec<ChunkId> = file.chunks.first().iter().map(|chunk| chunk.id).collect();
        if let ChunkList::Indirect(_) = &file.chunks {
            // Where the list itself cannot be read, the fault of its own chunks was found above.
            chunks.extend(reader.chunk_list(file).unwrap_or_default().iter().map(|chunk| chunk.id));
        }
        let here = on_disk.contains(&head.dot);
        let mut faults = Vec::new();
        for chunk in chunks {
            if let Some(needed) = self.chunks.get(&chunk) {
                faults.extend(needed.iter().copied());
                if here {
                    self.here.insert(chunk);
                }
            }
        }
        faults.sort_unstable();
        faults.dedup();
        faults
    }
}

impl Verifier<'_> {
    /// Takes back faults of packs whose every chunk lies in another pack that is in order: a repair put it there, whoever let
    /// the pack go relied on the other, or two devices stored the same. Of the other packs, what lies elsewhere needs none.
    pub(super) fn pass_over_what_was_replaced(&mut self) -> Result<(), SyncError> {
        let index = &self.replica.parts.index;
        let faulty: HashSet<PackId> = self.report.faults.iter().filter_map(|fault| pack_of(fault.wanted)).collect();
        if faulty.is_empty() {
            return Ok(());
        }
        let mut replaced: BTreeSet<usize> =
            (0..self.report.faults.len()).filter(|at| pack_of(self.report.faults[*at].wanted).is_some()).collect();
        let mut has_chunks = HashSet::new();
        for (chunk, faults) in &mut self.needs.chunks {
            has_chunks.extend(faults.iter().copied());
            let mut elsewhere = false;
            for place in index.chunk_places(chunk)? {
                elsewhere |= matches!(place, ChunkPlace::Pack { pack, .. } if !faulty.contains(&pack));
            }
            if elsewhere {
                // It is read from there, so no file needs the faulty pack for it.
                faults.clear();
            } else {
                replaced.retain(|fault| !faults.contains(fault));
            }
        }
        // A pack of which nothing is known, as those of checkpoints, stands for itself.
        replaced.retain(|fault| has_chunks.contains(fault));
        self.needs.chunks.retain(|_, faults| !faults.is_empty());
        let (mut kept, mut moved_to) = (Vec::new(), HashMap::new());
        for (at, fault) in std::mem::take(&mut self.report.faults).into_iter().enumerate() {
            if !replaced.contains(&at) {
                moved_to.insert(at, kept.len());
                kept.push(fault);
                continue;
            }
            self.replaced.extend(pack_of(fault.wanted));
            if fault.what != MISSING {
                self.report.orphans.push(fault.object);
            }
        }
        self.report.faults = kept;
        let lists = self.needs.chunks.values_mut().chain(self.needs.versions.values_mut());
        lists.flatten().for_each(|fault| *fault = moved_to[fault]);
        Ok(())
    }

    /// Takes back faults of packs that are condemned and gone, or that only a checkpoint named, where nothing needs them:
    /// somebody deleted them when all had answered, and this device has not carried that out itself yet, or never knew of
    /// them. Nobody is to be asked for those. Comes last, since the faults are numbered before.
    pub(super) fn pass_over_what_was_let_go(&mut self) -> Result<(), SyncError> {
        let condemned = crate::garbage::load(&self.replica.parts.index)?.condemned();
        let named = &self.needs.of_checkpoints;
        self.report.faults.retain(|fault| {
            let pack = pack_of(fault.wanted);
            let may_be_gone = pack.is_some_and(|pack| condemned.contains(&pack) || named.contains(&pack));
            let is_needed = !fault.paths.is_empty() || !fault.versions.is_empty();
            fault.what != MISSING || !may_be_gone || is_needed
        });
        Ok(())
    }

    /// Takes back faults of checkpoints that cannot be read where another one is whole from which anybody can begin: nobody
    /// needs these, and they go with what is superseded. The one that this device names to others stays a fault, since it
    /// writes another for it, and so does one that can be read and says what is not so.
    /// Comes last, since the faults are numbered before.
    pub(super) fn pass_over_superseded_checkpoints(&mut self) -> Result<(), SyncError> {
        let (index, store, keys) = (&self.replica.parts.index, &*self.replica.parts.store, &self.replica.keys);
        let held = checkpoints::newest(index)?;
        let mut superseded = BTreeSet::new();
        for fault in &self.report.faults {
            if let Some(Wanted::Checkpoint(checkpoint)) = fault.wanted
                && Some(checkpoint) != held
                && !checkpoints::is_whole(store, keys, &checkpoint)?
            {
                superseded.insert(fault.object.clone());
            }
        }
        if superseded.is_empty() {
            return Ok(());
        }
        let ended = crate::garbage::load(index)?.ended().clone();
        if checkpoints::sound_from(index, store, keys, &ended)?.is_none() {
            return Ok(());
        }
        let there =
            self.report.faults.iter().filter(|fault| fault.what != MISSING && superseded.contains(&fault.object));
        self.report.orphans.extend(there.map(|fault| fault.object.clone()));
        self.report.faults.retain(|fault| !superseded.contains(&fault.object));
        Ok(())
    }

    /// Adds to each fault the present paths and the past versions that need what is wrong.
    pub(super) fn find_paths(&mut self) -> Result<(), SyncError> {
        if self.needs.chunks.is_empty() && self.needs.versions.is_empty() {
            return Ok(());
        }
        let parts = &self.replica.parts;
        let index = &parts.index;
        let viewer = Viewer::new(index);
        let mut reader = ContentReader::new(index, &*parts.store, &self.replica.keys.ring, parts.settings.threads);
        let mut after = None;
        loop {
            let page = index.items_after(after, PAGE)?;
            let Some(last) = page.last() else { return Ok(()) };
            after = Some(*last);
            for id in page {
                let Some(item) = index.item(id)? else { continue };
                let (mut faults, mut past) = (BTreeSet::new(), Vec::new());
                let on_disk: Vec<Dot> = index.entries_of(id)?.into_iter().flat_map(|entry| entry.seen.heads).collect();
                let shown = is_shown(index, &item)?;
                let seated: Vec<Dot> = item.seats().into_iter().flat_map(|seat| seat.dots).collect();
                for head in &item.heads {
                    let mut needed = self.needs.content(&mut reader, head, &on_disk);
                    needed.extend(self.needs.versions.get(&head.dot).into_iter().flatten());
                    if shown && seated.contains(&head.dot) {
                        faults.extend(needed);
                    } else {
                        // What was deleted, or the side of a conflict that was, is only to be had from the past.
                        past.extend(needed.into_iter().map(|fault| (fault, head.dot, head.time)));
                    }
                }
                for standing in &item.placements {
                    let dot = standing.placed.stamp.dot();
                    faults.extend(self.needs.versions.get(&dot).into_iter().flatten().copied());
                }
                if !self.needs.chunks.is_empty() {
                    for value in index.history_of(id)? {
                        let Past::Content(head) = value else { continue };
                        let needed = self.needs.content(&mut reader, &head, &on_disk);
                        past.extend(needed.into_iter().map(|fault| (fault, head.dot, head.time)));
                    }
                }
                if faults.is_empty() && past.is_empty() {
                    continue;
                }
                let (parent, name) = viewer.place_of(&item)?;
                let path: RelPath = viewer.path_of(parent)?.join(&name);
                for fault in faults.into_iter().filter(|_| shown) {
                    self.report.faults[fault].paths.push(path.clone());
                }
                for (fault, version, time) in past {
                    let time = time.saturating_mul(1000);
                    self.report.faults[fault].versions.push(PastVersion { path: path.clone(), version, time });
                }
            }
        }
    }

    /// Says of each fault who can put the object back.
    pub(super) fn find_remedies(&mut self) -> Result<(), SyncError> {
        let parts = &self.replica.parts;
        let own = self.replica.keys.device.device();
        // One that was bound twice, or whose index was lost, has the name of what it was before.
        let others: BTreeSet<String> = self
            .replica
            .devices()?
            .into_iter()
            .filter(|device| !device.is_this && device.standing == "active")
            .map(|device| device.name)
            .collect();
        let mut elsewhere = HashSet::new();
        for (chunk, faults) in &self.needs.chunks {
            let mut here = self.needs.here.contains(chunk);
            for place in parts.index.chunk_places(chunk)? {
                if let ChunkPlace::Packet { dot } = place {
                    here |= parts.index.sealed(dot)?.is_some();
                }
            }
            if !here {
                elsewhere.extend(faults.iter().copied());
            }
        }
        for (at, fault) in self.report.faults.iter_mut().enumerate() {
            let name = ObjectName::new(fault.object.clone());
            let tip = name.as_ref().and_then(Tip::device_of);
            let here = match fault.wanted {
                Some(Wanted::Packet(dot)) => parts.index.sealed(dot)?.is_some(),
                Some(Wanted::Pack(pack)) => !elsewhere.contains(&at) && parts.index.pack_row(&pack)?.is_some(),
                Some(Wanted::Checkpoint(_)) => true,
                None if fault.object == MARKER_NAME => self.replica.holds_marker()?,
                None => tip == Some(own),
            };
            fault.remedy = match tip.filter(|tip| *tip != own) {
                _ if here => Remedy::Here,
                Some(tip) => Remedy::Others(vec![parts.index.device_label(&tip)?]),
                None if fault.wanted.is_some() && !others.is_empty() => {
                    Remedy::Others(others.iter().cloned().collect())
                }
                None => Remedy::Lost,
            };
        }
        Ok(())
    }
}

fn pack_of(wanted: Option<Wanted>) -> Option<PackId> {
    match wanted {
        Some(Wanted::Pack(pack)) => Some(pack),
        _ => None,
    }
}
