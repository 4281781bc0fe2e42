//! Pulling: fetching from the intermediary what the host lacks, for the time when this device sees the one and not the other.
//!
//! Without keys nobody can tell what a packet needs, so names alone decide: what the host asked for in vain comes first,
//! then whatever is new since the last time.
//! At the first time packs are only noted and not fetched: they may be the whole vault, and the host has them, or gets
//! them when it asks. Packets and checkpoints' roots are small and are fetched then too.
//! What a host has had is not fetched again, and nothing is fetched in the place of what it has not had yet: when only
//! that is left on the shelf, pulling ends, and goes on after the host took some.
//!
//! Tips come last. A tip on the shelf without the packets that it names would have the host ask in vain.
//! Nothing new costs two requests: the marker and the listing of `tips/`.

use packetboat_core::ids::DeviceId;
use packetboat_core::store::{Listed, ObjectName, StoreError};
use packetboat_core::tip::Tip;
use thiserror::Error;

use super::check::{Kind, check};
use super::forward::Forward;
use super::message::MAX_OBJECT_BYTES;
use super::shelf::ShelfError;

impl Forward {
    /// Fetches what the host may lack; how many objects came.
    pub fn pull(&self) -> Result<u64, PullError> {
        self.reach()?;
        let tips = self.upstream.list("tips")?;
        let standing = fingerprint(&tips);
        let before = self.shelf.pulled(self.vault)?;
        let wanted = self.shelf.wanted(self.vault)?;
        if wanted.is_empty() && before.as_ref() == Some(&standing) {
            return Ok(0);
        }
        let mut pulling = Pulling { of: self, count: 0, is_full: false };
        for name in &wanted {
            pulling.fetch(name)?;
        }
        if before.as_ref() != Some(&standing) {
            pulling.packs(before.is_none())?;
            for device in tips.iter().filter_map(|tip| Tip::device_of(&tip.name)) {
                pulling.lane(&device)?;
            }
            pulling.checkpoints()?;
            for tip in &tips {
                pulling.fetch(&tip.name)?;
            }
        }
        let Pulling { count, is_full, .. } = pulling;
        if !is_full {
            self.shelf.note_pulled(self.vault, &standing)?;
        }
        Ok(count)
    }
}

/// A pull under way.
struct Pulling<'a> {
    of: &'a Forward,
    count: u64,
    /// Whether something found no room; what comes after it is not fetched either, so that what is here is whole.
    is_full: bool,
}

impl Pulling<'_> {
    fn packs(&mut self, only_note: bool) -> Result<(), PullError> {
        for prefix in 0..=u8::MAX {
            let listed = self.of.upstream.list(&format!("packs/{prefix:02x}"))?;
            if only_note {
                let names: Vec<ObjectName> = listed.into_iter().map(|entry| entry.name).collect();
                self.of.shelf.note_known(self.of.vault, &names)?;
            } else {
                self.fetch_new(&listed)?;
            }
        }
        Ok(())
    }

    fn lane(&mut self, device: &DeviceId) -> Result<(), PullError> {
        let mut listed = self.of.upstream.list(&format!("lanes/{device}"))?;
        // By number and not by name: what finds no room must be the newest.
        listed.sort_by_key(|entry| match Kind::of(&entry.name) {
            Some(Kind::Packet(dot)) => dot.counter,
            _ => u64::MAX,
        });
        self.fetch_new(&listed)
    }

    /// The newest root of each device, which is what its tip names.
    fn checkpoints(&mut self) -> Result<(), PullError> {
        let listed = self.of.upstream.list("checkpoints")?;
        let newest = |entry: &&Listed| {
            let Some(Kind::Checkpoint(this)) = Kind::of(&entry.name) else { return false };
            !listed.iter().any(|other| {
                matches!(Kind::of(&other.name), Some(Kind::Checkpoint(other))
                    if other.device == this.device && other.number > this.number)
            })
        };
        let newest: Vec<Listed> = listed.iter().filter(newest).cloned().collect();
        self.fetch_new(&newest)
    }

    fn fetch_new(&mut self, listed: &[Listed]) -> Result<(), PullError> {
        for entry in listed {
            if Kind::of(&entry.name).is_some() && !self.of.shelf.is_known(self.of.vault, &entry.name)? {
                self.fetch(&entry.name)?;
            }
        }
        Ok(())
    }

    fn fetch(&mut self, name: &ObjectName) -> Result<(), PullError> {
        if self.is_full {
            return Ok(());
        }
        let bytes = match self.of.upstream.get(name, MAX_OBJECT_BYTES) {
            Ok(bytes) => bytes,
            // It is gone, or no object of a vault: whoever asks is told so.
            Err(StoreError::Missing { .. } | StoreError::TooLarge { .. }) => return Ok(()),
            Err(error) => return Err(error.into()),
        };
        if check(self.of.vault, name, &bytes).is_err() {
            return Ok(());
        }
        match self.of.shelf.keep_pulled(self.of.vault, name, &bytes)? {
            true => self.count += 1,
            false => self.is_full = true,
        }
        Ok(())
    }
}

/// What tells one listing of tips from another.
fn fingerprint(tips: &[Listed]) -> String {
    let mut hasher = blake3::Hasher::new();
    for Listed { name, size, etag } in tips {
        hasher.update(format!("{name} {size} {etag}\n").as_bytes());
    }
    hasher.finalize().to_hex().to_string()
}

/// Why not all was fetched.
#[derive(Debug, Error)]
pub enum PullError {
    /// The shelf fails.
    #[error(transparent)]
    Shelf(#[from] ShelfError),
    /// The intermediary fails, or cannot be reached.
    #[error(transparent)]
    Upstream(#[from] StoreError),
}
