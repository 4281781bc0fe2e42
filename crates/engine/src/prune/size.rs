//! How much a vault takes at the intermediary, how much of that is its past, and what to do where there is no room.
//!
//! What the past takes is told by a walk over all items, so it is looked at when a run does that anyway, once a day, and
//! kept. A small vault is looked at whenever somebody asks.

use std::collections::BTreeSet;

use packetboat_core::ids::{DeviceId, PackId};
use packetboat_core::store::StoreError;
use packetboat_replica::index::Index;

use super::carry_out::Deleted;
use super::in_use::standing;
use super::{PruneOptions, PruneReport, Reach};
use crate::error::{SyncError, chain};
use crate::garbage::{self, Standing, in_words};
use crate::ports::{Note, Observer, Silent};
use crate::replica::Replica;

/// What a vault takes at the intermediary, as far as this device knows.
#[derive(Clone, Copy, PartialEq, Eq, Default, Debug)]
pub struct VaultSize {
    /// Bytes of packs and packets.
    pub stored: u64,
    /// Bytes of that which hold nothing but past contents, and what nothing needs.
    pub history: u64,
    /// When that was looked at, in milliseconds since 1970 UTC.
    pub as_of: i64,
}

impl Replica {
    /// What the vault takes; none where that was not looked at yet.
    pub(crate) fn size(&mut self) -> Result<Option<VaultSize>, SyncError> {
        if self.parts.index.count_items()? <= SMALL {
            self.look_at_size(false, &Silent)?;
        }
        let bytes = self.parts.index.meta(SIZE)?.unwrap_or_default();
        let (numbers, rest) = bytes.as_chunks::<8>();
        let [stored, history, as_of] = *numbers else { return Ok(None) };
        let (stored, history) = (u64::from_le_bytes(stored), u64::from_le_bytes(history));
        Ok(rest.is_empty().then_some(VaultSize { stored, history, as_of: i64::from_le_bytes(as_of) }))
    }

    /// Looks at what the vault takes, and keeps it.
    ///
    /// Only where `may_read` says so are the lists of large files' chunks read at the intermediary.
    pub(super) fn look_at_size(&mut self, may_read: bool, observer: &dyn Observer) -> Result<(), SyncError> {
        let parts = &mut self.parts;
        let index = &parts.index;
        let store = may_read.then_some(&*parts.store);
        // Where the list of a large file's chunks is not read now, what was known before stays.
        let Some(used) = standing(index, store, &self.keys, observer)? else { return Ok(()) };
        let going = all_answered(index, self.keys.device.device())?;
        let (mut packs, mut in_use) = (0, 0);
        let mut after = None;
        loop {
            let page = index.packs_in_use(after.as_ref(), PAGE, &used)?;
            let Some(last) = page.last() else { break };
            after = Some(last.pack);
            let page: Vec<_> = page.into_iter().filter(|pack| !going.contains(&pack.pack)).collect();
            packs += page.iter().map(|pack| u64::from(pack.size)).sum::<u64>();
            // A pack is a little more than its chunks; one that is all in use has no past in it.
            let whole = |pack: &packetboat_replica::index::PackUse| pack.used == pack.total;
            in_use += page.iter().map(|pack| if whole(pack) { pack.size.into() } else { pack.used }).sum::<u64>();
        }
        let stored = packs + packet_bytes(index)?;
        let now = parts.clock.now_ms();
        let bytes = [stored.to_le_bytes(), packs.saturating_sub(in_use).to_le_bytes(), now.to_le_bytes()].concat();
        Ok(parts.index.set_meta(SIZE, Some(&bytes))?)
    }

    /// Lets go what is past its time because the intermediary is full, where rounds do that by themselves; whether anything
    /// was deleted.
    ///
    /// What is not done now is told: what it would free, and what could be kept for less long.
    pub(crate) fn make_room(&mut self, observer: &mut dyn Observer) -> Result<bool, SyncError> {
        let (mut deleted, mut waiting) = (Deleted::default(), BTreeSet::new());
        let may_delete = self.parts.settings.lets_go_by_itself;
        if may_delete {
            // What all have answered needs no room to go; what is condemned only now needs some, for the packet that says so.
            let gone = self.or_nothing(observer, |replica, observer| replica.carry_out(|_| true, observer))?;
            deleted = gone.unwrap_or_default();
            if let Some(report) = self.or_nothing(observer, |replica, observer| replica.prune_now(false, observer))? {
                deleted.objects += report.deleted;
                deleted.bytes += report.deleted_bytes;
                waiting.extend(report.waiting_for);
            }
        }
        let would = self.or_nothing(&mut Silent, |replica, observer| replica.prune_now(true, observer))?;
        let would = would.unwrap_or_default();
        let freed = would.pack_bytes + would.packet_bytes;
        let text = if deleted.objects > 0 {
            let (objects, bytes) = (deleted.objects, megabytes(deleted.bytes));
            format!("the intermediary was full: {objects} objects that nobody needs were deleted ({bytes})")
        } else if !may_delete && freed > 0 {
            format!("the intermediary is full: `packetboat prune` would free {} of it", megabytes(freed))
        } else {
            "the intermediary is full, and nothing could be deleted at once".to_owned()
        };
        observer.note(Note::Warning { text });
        waiting.extend(would.waiting_for);
        if !waiting.is_empty() {
            let names: Vec<String> = waiting.into_iter().collect();
            let text = format!("more goes once these devices have synchronised: {}", names.join(", "));
            observer.note(Note::Warning { text });
        }
        if let Some(size) = self.size()?.filter(|size| size.history > 0) {
            let kept = in_words(garbage::load(&self.parts.index)?.retention());
            let text = format!(
                "of {} in the vault {} are past contents; it keeps {kept}, and `packetboat prune --keep` frees more",
                megabytes(size.stored),
                megabytes(size.history)
            );
            observer.note(Note::Warning { text });
        }
        Ok(deleted.objects > 0)
    }

    /// A run as somebody would ask for it.
    fn prune_now(&mut self, dry_run: bool, observer: &mut dyn Observer) -> Result<PruneReport, SyncError> {
        self.prune_as_learned(PruneOptions { keep: None, dry_run }, Reach::Asked, observer)
    }

    /// What a part of letting go returns; none where the intermediary takes nothing, or does not give what is needed.
    fn or_nothing<T>(
        &mut self,
        observer: &mut dyn Observer,
        part: impl FnOnce(&mut Self, &mut dyn Observer) -> Result<T, SyncError>,
    ) -> Result<Option<T>, SyncError> {
        match part(self, observer) {
            Ok(done) => Ok(Some(done)),
            Err(error @ (SyncError::Store(_) | SyncError::NoBase | SyncError::HistoryEnds)) => {
                self.undo_uncommitted()?;
                if !matches!(error, SyncError::Store(StoreError::Full)) {
                    observer.note(Note::Warning { text: format!("nothing was let go: {}", chain(&error)) });
                }
                Ok(None)
            }
            Err(error) => Err(error),
        }
    }
}

/// The condemned packs that whoever comes first deletes, or has deleted: it tells nobody.
fn all_answered(index: &Index, own: DeviceId) -> Result<BTreeSet<PackId>, SyncError> {
    let record = garbage::load(index)?;
    let answered = Standing::load(index, own)?.answered(&record);
    let going = record.standing().filter(|(dot, _)| answered.contains(dot));
    Ok(going.flat_map(|(_, found)| found.condemned_packs().copied()).collect())
}

/// The bytes of the packets that history still has.
fn packet_bytes(index: &Index) -> Result<u64, SyncError> {
    let begins = garbage::load(index)?.horizon().clone();
    let mut bytes = 0;
    for (device, learned) in index.knowledge().iter() {
        let rows = index.packets(*device, begins.counter(device) + 1, learned.counter)?;
        bytes += rows.iter().filter_map(|row| row.sealed_bytes).sum::<u64>();
    }
    Ok(bytes)
}

fn megabytes(bytes: u64) -> String {
    match bytes {
        0..1_000_000 => format!("{} kB", bytes.div_ceil(1000)),
        _ => format!("{} MB", bytes / 1_000_000),
    }
}

/// Where the index keeps what the vault takes: bytes stored, bytes of history, when; 8 bytes each.
const SIZE: &str = "vault size";
/// So many items are walked in an instant.
const SMALL: u64 = 50_000;
const PAGE: usize = 256;
