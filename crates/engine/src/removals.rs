//! Devices that leave a vault: revoked, retired, or come back after that.
//!
//! A removal is a packet like any other. Members acknowledge it by an empty packet where they have nothing else to say:
//! so whatever they had folded of the removed lane beyond its cut is carried, and all replicas fold the same. Each device
//! finds out by itself how it stands, at its next round:
//!
//! - *revoked*: it stops, and touches no file;
//! - *passed over*: it joined while something was condemned, and nobody is known to have known of it before; or it lacks
//!   history that was let go. It begins anew like one that was retired;
//! - *retired*: it goes on as a new device, with what it had agreed on with the vault as the base for what changed since.
//!   Where the history that it missed is gone, it begins from a checkpoint: what that lacks although it contains the
//!   version seen here was deleted; what changed here is published whole.
//!
//! A device unheard of for a set time is retired by whoever notices. The clock only starts that: a device retired by
//! mistake comes back by itself and loses nothing.

use std::collections::BTreeMap;

use packetboat_core::change::Change;
use packetboat_core::checkpoint::{CheckpointRef, CheckpointRoot};
use packetboat_core::ids::{Counter, DeviceId, Dot, Epoch};
use packetboat_core::local::{DirId, EntryState, LocalEntry};
use packetboat_core::members::{Members, Standing};
use packetboat_core::name::RelPath;
use packetboat_core::tip::Tip;
use packetboat_core::tree::{TreeRead, TreeWrite};
use thiserror::Error;

use crate::absorb::forget_entry;
use crate::error::SyncError;
use crate::garbage;
use crate::learn::Learned;
use crate::members;
use crate::paths;
use crate::ports::{Note, Observer};
use crate::publish::Published;
use crate::refusals;
use crate::replica::Replica;
use crate::salvage;
use crate::scan::fingerprint;
use crate::vault::{JoinError, OVERRULED};

/// What a revocation did.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Revoked {
    /// The name of the revoked device.
    pub name: String,
    /// The epoch that began.
    pub epoch: Epoch,
    /// How many devices were given its key, this one included.
    pub recipients: u64,
    /// The new recovery key as text, to be shown once.
    pub recovery_key: String,
    /// Active devices that joined with a key that had been given up: they must join again with the new passphrase.
    pub left_out: Vec<String>,
    /// Why the intermediary does not tell of it yet, if it does not; the next round does.
    pub untold: Option<String>,
}

impl Replica {
    /// The device that people call by this name, or whose id begins with these digits; it may have joined just now.
    pub fn device_named(&mut self, text: &str) -> Result<DeviceId, RemovalError> {
        match self.device_known_as(text) {
            Err(error @ RemovalError::NoSuchDevice { .. }) => {
                // Whoever cannot be asked now is not known now.
                self.learn(&mut crate::ports::Silent).map_err(|_| error)?;
                self.device_known_as(text)
            }
            found => found,
        }
    }

    fn device_known_as(&self, text: &str) -> Result<DeviceId, RemovalError> {
        let members = members::load(&self.parts.index)?;
        let mut found: Vec<DeviceId> = members.active().filter(|m| m.name == text).map(|m| m.device).collect();
        if found.is_empty() {
            found = members.iter().filter(|member| member.name == text).map(|member| member.device).collect();
        }
        if found.is_empty() && text.len() >= LEAST_DIGITS {
            let digits = text.to_ascii_lowercase();
            let matches = members.iter().filter(|member| member.device.to_string().starts_with(&digits));
            found = matches.map(|member| member.device).collect();
        }
        match found[..] {
            [device] => Ok(device),
            [] => Err(RemovalError::NoSuchDevice { text: text.to_owned() }),
            _ => Err(RemovalError::SeveralDevices { text: text.to_owned() }),
        }
    }

    /// This device.
    pub fn own_device(&self) -> DeviceId {
        self.keys.device.device()
    }

    /// All who ever joined, as far as this device knows.
    pub fn member_devices(&self) -> Result<Vec<DeviceId>, SyncError> {
        Ok(members::load(&self.parts.index)?.iter().map(|member| member.device).collect())
    }

    /// Refuses the revocation of a device that this one cannot revoke, as far as is known without asking the storage.
    pub fn may_revoke(&self, device: &DeviceId) -> Result<(), RemovalError> {
        let members = members::load(&self.parts.index)?;
        if *device == self.keys.device.device() {
            return Err(RemovalError::Oneself);
        }
        let name = members.name(device).unwrap_or_default().to_owned();
        if members.standing(device).is_revoked() {
            return Err(RemovalError::AlreadyRevoked { name });
        }
        Ok(())
    }

    /// Trusts a device no longer, as of all that is known of it, and begins an epoch whose key it does not get.
    ///
    /// The vault gets a new passphrase and a new recovery key: the device knows the one and may have seen the other.
    pub fn revoke(
        &mut self,
        device: &DeviceId,
        passphrase: &[u8],
        observer: &mut dyn Observer,
    ) -> Result<Revoked, RemovalError> {
        let result = self.revoke_now(device, passphrase, observer);
        if result.is_err() {
            self.undo_uncommitted()?;
        }
        result
    }

    fn revoke_now(
        &mut self,
        device: &DeviceId,
        passphrase: &[u8],
        observer: &mut dyn Observer,
    ) -> Result<Revoked, RemovalError> {
        let members = self.learn_before_removing(device, true, observer)?;
        let mut marker = self.marker_to_renew()?;
        if marker.vault() != self.vault() {
            return Err(RemovalError::Join(JoinError::NoVault));
        }
        let name = members.name(device).unwrap_or_default().to_owned();
        let heirs: Vec<DeviceId> = members.heirs(device).iter().map(|heir| heir.device).collect();
        let left_out = members.active().filter(|member| member.device != *device && !heirs.contains(&member.device));
        let left_out = left_out.map(|member| member.name.to_owned()).collect();
        let cut = self.parts.index.knowledge().counter(device);
        self.parts.index.begin()?;
        self.begin_epoch(device, cut)?;
        let recovery_key = self.renew_marker(&mut marker, passphrase)?;
        self.parts.index.commit()?;
        // From here on it is done, and the recovery key is to be shown, whatever the intermediary takes now.
        let told = self.tell_of_revocation(observer);
        if told.is_err() {
            self.undo_uncommitted()?;
        }
        let untold = match told {
            Ok(()) => None,
            // The packet is on a side of the lane that nobody will read.
            Err(RemovalError::Forked) => return Err(RemovalError::Forked),
            Err(error) => Some(crate::error::chain(&error)),
        };
        let epoch = self.keys.ring.current();
        Ok(Revoked { name, epoch, recipients: heirs.len() as u64, recovery_key, left_out, untold })
    }

    fn tell_of_revocation(&mut self, observer: &mut dyn Observer) -> Result<(), RemovalError> {
        self.publish_removal()?;
        self.keep_marker(observer)?;
        Ok(self.checkpoint(observer)?)
    }

    /// Waits for a device no longer; it may come back, and goes on as a new one then. This one may be meant as well.
    pub fn retire(&mut self, device: &DeviceId, observer: &mut dyn Observer) -> Result<String, RemovalError> {
        let result = self.retire_now(device, observer);
        if result.is_err() {
            self.undo_uncommitted()?;
        }
        result
    }

    fn retire_now(&mut self, device: &DeviceId, observer: &mut dyn Observer) -> Result<String, RemovalError> {
        let members = self.learn_before_removing(device, false, observer)?;
        let name = members.name(device).unwrap_or_default().to_owned();
        self.parts.index.begin()?;
        self.seal_retirement(device)?;
        self.parts.index.commit()?;
        self.publish_removal()?;
        Ok(name)
    }

    /// After how many days unheard of this device retires another; none where it never does.
    pub fn retire_after_days(&self) -> Result<Option<u64>, SyncError> {
        let set = self.parts.index.meta(RETIRE_AFTER)?.and_then(|bytes| bytes.try_into().ok()).map(u64::from_le_bytes);
        let days = set.map_or(self.parts.settings.retire_after_days, Some);
        Ok(days.filter(|days| *days > 0))
    }

    /// Chooses after how many days unheard of this device retires another; none for never.
    pub fn set_retire_after_days(&mut self, days: Option<u64>) -> Result<(), SyncError> {
        Ok(self.parts.index.set_meta(RETIRE_AFTER, Some(&days.unwrap_or(0).to_le_bytes()))?)
    }

    /// Learns what there is, so that a removal cuts off as little as it can, and refuses what makes no sense.
    fn learn_before_removing(
        &mut self,
        device: &DeviceId,
        revokes: bool,
        observer: &mut dyn Observer,
    ) -> Result<Members, RemovalError> {
        let learned = self.learn(observer)?;
        self.refuse_if_removed(&learned)?;
        self.introduce()?;
        let members = members::load(&self.parts.index)?;
        let own = self.keys.device.device();
        let name = members.name(device).unwrap_or_default().to_owned();
        if members.standing(&own) != Standing::Active {
            return Err(RemovalError::NotActive);
        }
        match members.standing(device) {
            Standing::Revoked { .. } => return Err(RemovalError::AlreadyRevoked { name }),
            Standing::Retired { .. } if !revokes => return Err(RemovalError::AlreadyRetired { name }),
            _ if *device != own => {}
            _ if revokes => return Err(RemovalError::Oneself),
            _ if members.active().count() == 1 => return Err(RemovalError::LastDevice),
            _ => {}
        }
        Ok(members)
    }

    fn seal_retirement(&mut self, device: &DeviceId) -> Result<Dot, SyncError> {
        let known = self.parts.index.knowledge().counter(device);
        // What says that this device leaves is the last that counts of it.
        let cut = if *device == self.keys.device.device() { known + 1 } else { known };
        self.seal(vec![Change::Retire { device: *device, cut }])
    }

    fn publish_removal(&mut self) -> Result<(), RemovalError> {
        match self.publish(false)? {
            Published::Done => Ok(()),
            Published::Forked => Err(RemovalError::Forked),
        }
    }

    /// Ends a round of a device that is trusted no longer, or was not given the vault's key.
    pub(crate) fn refuse_if_removed(&mut self, learned: &Learned) -> Result<(), SyncError> {
        let own = self.keys.device.device();
        if let Some(by) = learned.overruled_by {
            // Two revoked each other. Whoever else is left has taken the side of the earlier, or has not spoken yet.
            let members = members::load(&self.parts.index)?;
            let mut others = members.active().filter(|member| member.device != own);
            if others.all(|member| learned.locked.contains(&member.device)) {
                self.parts.index.set_meta(OVERRULED, Some(by.as_bytes()))?;
            }
        }
        self.refuse_if_revoked()?;
        match learned.lacking {
            // Who renewed the key stood in a packet that is gone.
            None if learned.is_cut_off => Err(SyncError::LeftOut { by: "another device".to_owned() }),
            Some(key) => {
                let members = members::load(&self.parts.index)?;
                let by = members.name(&key.by.device).unwrap_or("another device").to_owned();
                Err(SyncError::LeftOut { by })
            }
            None => Ok(()),
        }
    }

    /// Tells the others that this device knows of each removal, and what it has folded of lanes that others refuse, where no
    /// packet of its own does so yet.
    pub(crate) fn acknowledge(&mut self) -> Result<(), SyncError> {
        let own = self.keys.device.device();
        let told = self.parts.index.lane_prerequisite(own)?;
        let members = members::load(&self.parts.index)?;
        let is_told = members.removals().all(|dot| dot.device == own || told.contains(&dot));
        if is_told && !refusals::is_to_be_told_of(&self.parts.index, &members, &own, &told)? {
            return Ok(());
        }
        self.parts.index.begin()?;
        self.seal(Vec::new())?;
        Ok(self.parts.index.commit()?)
    }

    /// Retires devices of which nothing was heard for the set time.
    ///
    /// Time is this device's own, between two things that it saw itself. A clock that was wrong for a moment retires
    /// nobody: what is overdue must be so for a day.
    pub(crate) fn retire_the_unheard_of(&mut self, observer: &mut dyn Observer) -> Result<(), SyncError> {
        let Some(limit) = self.retire_after_days()?.map(|days| days.saturating_mul(DAY_MS)) else { return Ok(()) };
        let (own, now) = (self.keys.device.device(), self.parts.clock.now_ms());
        let members = members::load(&self.parts.index)?;
        let mut updates = Vec::new();
        let mut overdue = Vec::new();
        for member in members.active().filter(|member| member.device != own) {
            let index = &self.parts.index;
            let Some(mut row) = index.member(member.device)? else { continue };
            let seen = (index.greatest_tip(&member.device)?, index.knowledge().counter(&member.device));
            let before = Heard::decode(&row.state);
            let heard = match before {
                // A clock that went back must not keep a device for ever.
                Some(heard) if heard.seen == seen && heard.at <= now => heard.look(now, limit),
                _ => Heard { seen, at: now, overdue_since: None },
            };
            if heard.overdue_since.is_some_and(|since| now.saturating_sub(since) >= GRACE_MS) {
                overdue.push((member.device, member.name.to_owned()));
            }
            if before != Some(heard) {
                row.state = heard.encode();
                updates.push(row);
            }
        }
        if updates.is_empty() && overdue.is_empty() {
            return Ok(());
        }
        self.parts.index.begin()?;
        for row in &updates {
            self.parts.index.put_member(row)?;
        }
        for (device, name) in overdue {
            self.seal_retirement(&device)?;
            let days = limit / DAY_MS;
            let text = format!("{name} was not heard of for {days} days and is retired; it may come back at any time");
            observer.note(Note::Warning { text });
        }
        Ok(self.parts.index.commit()?)
    }

    /// Whether this device was retired, as far as packets say, or as the newest checkpoint does where packets are gone.
    pub(crate) fn is_to_come_back(&self, learned: &Learned) -> Result<bool, SyncError> {
        let own = self.keys.device.device();
        if self.parts.index.meta(COMING_BACK)?.is_some() {
            return Ok(true);
        }
        if matches!(members::load(&self.parts.index)?.standing(&own), Standing::Retired { .. }) {
            return Ok(true);
        }
        if self.rests_from_beginning_anew()? {
            return Ok(false);
        }
        Ok(self.was_passed_over()? || self.is_cut_short(learned)?)
    }

    /// Whether this device has folded others whom all who count refuse: nobody counts on what a retired device has folded.
    fn builds_on_who_is_passed_over(&mut self) -> Result<bool, SyncError> {
        let (own, index) = (self.keys.device.device(), &mut self.parts.index);
        index.begin()?;
        let builds = crate::learn::passed_over::find(index, &self.keys.ring, own)?;
        index.commit()?;
        Ok(builds)
    }

    /// Whether packets that this device has not learned were let go.
    fn is_cut_short(&self, learned: &Learned) -> Result<bool, SyncError> {
        let refused = refusals::own(&self.parts.index)?;
        if !learned.missing && refused.is_empty() {
            return Ok(false);
        }
        // What was refused for good and let go since is never folded either, though nothing more is asked for.
        let Some(root) = self.has_missed_history()? else { return Ok(false) };
        let (index, store) = (&self.parts.index, &*self.parts.store);
        // Whoever began anew where nothing can be begun from would do so in each round, each time as another device.
        if crate::checkpoints::sound_from(index, store, &self.keys, root.garbage.ended())?.is_none() {
            return Ok(false);
        }
        Ok(learned.missing || refused.iter().any(|(lane, from)| root.garbage.ended().counter(lane) >= *from))
    }

    /// Whether this device did not know of a condemnation when it joined, and nobody is known to have known of it: its
    /// introduction is not folded then ([`packetboat_core::garbage`]).
    ///
    /// Somebody who has not been heard yet may carry it all the same. To wait for that one is no way out, since it may
    /// never come: this device retires what it was before, and whatever is carried of that later is there twice and equal.
    fn was_passed_over(&self) -> Result<bool, SyncError> {
        let index = &self.parts.index;
        let record = garbage::load(index)?;
        // An introduction that is yet to be made knows all that is condemned.
        let is_introduced = index.knowledge().counter(&self.keys.device.device()) > 0;
        if !is_introduced || record.standing().next().is_none() {
            return Ok(false);
        }
        let members = members::load(index)?;
        garbage::is_passed_over(index, &self.keys.ring, &record, &members, &self.keys.device.device())
    }

    /// A checkpoint by which this device was removed, or history begins later than what it has learned.
    fn has_missed_history(&self) -> Result<Option<CheckpointRoot>, SyncError> {
        let own = self.keys.device.device();
        let known = self.parts.index.knowledge();
        let ended = garbage::load(&self.parts.index)?.ended().clone();
        let stays = |root: &CheckpointRoot| {
            let rank = crate::checkpoints::rank_of_beginning;
            !ended.is_empty() && !root.knowledge.includes(&ended) && rank(&ended) > rank(root.garbage.ended())
        };
        for (device, number) in crate::checkpoints::seen(&self.parts.index)? {
            let checkpoint = CheckpointRef { device, number };
            let Some(root) = crate::checkpoints::sound_root(&*self.parts.store, &self.keys, &checkpoint)? else {
                continue;
            };
            // What is condemned and stands is there still: this device was not heard yet.
            let is_removed = root.members.standing(&own) != Standing::Active;
            if (is_removed || !known.includes(root.garbage.ended())) && !stays(&root) {
                return Ok(Some(root));
            }
        }
        Ok(None)
    }

    /// Goes on as a new device after it was retired; nobody has to ask for it.
    pub(crate) fn come_back(&mut self, learned: &Learned, observer: &mut dyn Observer) -> Result<Learned, SyncError> {
        let own = self.keys.device.device();
        let standing = members::load(&self.parts.index)?.standing(&own);
        let goes_on = matches!(standing, Standing::Retired { cut } if self.may_be_carried(cut)?)
            && !self.is_cut_short(learned)?
            && !self.builds_on_who_is_passed_over()?;
        if goes_on && self.parts.index.meta(COMING_BACK)?.is_none() {
            // All that it missed was there to be learned, so it knows what was deleted meanwhile. What it made where nobody
            // looked is put here first: its introduction builds on that, and so carries it.
            if self.publish(false)? == Published::Forked {
                self.begin_again_as_new_device(observer)?;
                return self.learn(observer);
            }
            self.go_on_as_new_device("this device was retired", observer)?;
            return Ok(Learned::default());
        }
        if self.parts.index.meta(COMING_BACK)?.is_none() {
            let missed = self.has_missed_history()?;
            if let Some(root) = &missed
                && let Standing::Revoked { by, .. } = root.members.standing(&own)
            {
                let by = root.members.name(&by.device).unwrap_or("another device").to_owned();
                return Err(SyncError::Revoked { by });
            }
            // What it is about to forget nobody else may ever bring here.
            self.carry(observer)?;
            let was_passed_over = self.was_passed_over()?;
            let mut sides = self.leave_what_stays(observer)?;
            if was_passed_over {
                // Nobody is to look into a lane of which nothing is ever folded, nor to begin from what its device folded.
                self.parts.store.delete(&Tip::name(&own))?;
                crate::checkpoints::take_away_own(&*self.parts.store, &own)?;
            }
            let name = self.device_name()?;
            let last = self.parts.index.knowledge().counter(&own);
            self.settle_what_was_just_written(observer)?;
            self.parts.index.begin()?;
            if let Some(root) = missed.filter(|root| !self.parts.index.knowledge().includes(root.garbage.ended())) {
                sides = crate::forks::take_sides_of(&mut self.parts.index, &root, sides)?;
            }
            if was_passed_over {
                self.retires_when_introduced(last)?;
                // Nobody folds what it published, and a disk that a backup replaced does not show that any more.
                refusals::add(&mut sides, BTreeMap::from([(own, 1)]));
            }
            if !sides.is_empty() {
                salvage::keep_what_no_disk_shows(&mut self.parts.index, &self.keys.ring, &sides)?;
            }
            self.note_beginning_anew()?;
            self.forget_and_come_back(&name)?;
            self.parts.index.commit()?;
            let why = match standing {
                Standing::Active if was_passed_over => "this device joined while others let history go",
                Standing::Active => "the vault's history begins after what this device knows of it",
                _ => "this device was retired, and what it knows was let go since",
            };
            let text = format!("{why}: it goes on as a new device, and what was changed here is published whole");
            observer.note(Note::Warning { text });
        }
        let learned = self.learn(observer)?;
        self.parts.index.begin()?;
        self.rebase(DirId::ROOT, &RelPath::root())?;
        // Records wait there whose place another object has taken.
        self.rebase(DirId::STAGING, &paths::staging())?;
        crate::repair::forgotten::leave_out_what_is_known(&mut self.parts.index)?;
        self.parts.index.set_meta(COMING_BACK, None)?;
        self.parts.index.commit()?;
        Ok(learned)
    }

    /// Forgets what was folded and takes a new key; [`Replica::come_back`] learns anew and looks at this disk in its light.
    /// Within the caller's transaction, after [`Replica::settle_what_was_just_written`].
    pub(crate) fn forget_and_come_back(&mut self, name: &str) -> Result<(), SyncError> {
        crate::repair::forgotten::note(&mut self.parts.index)?;
        crate::checkpoints::forget_folded(&mut self.parts.index)?;
        self.take_new_key(name)?;
        Ok(self.parts.index.set_meta(COMING_BACK, Some(b"1"))?)
    }

    /// Forgets what was folded where a device that begins has folded others on which it must not build; whether it did.
    pub(crate) fn is_to_learn_anew(&mut self) -> Result<bool, SyncError> {
        let own = self.keys.device.device();
        let index = &mut self.parts.index;
        // Whoever has introduced itself refuses such a device like any other; asked first, since each round comes here.
        if index.knowledge().counter(&own) > 0 {
            return Ok(false);
        }
        // Only where nothing here hangs on what is forgotten, or all is looked at afterwards.
        if index.meta(COMING_BACK)?.is_none() && index.count_entries()? > 0 {
            return Ok(false);
        }
        index.begin()?;
        let anew = crate::learn::passed_over::find(index, &self.keys.ring, own)?;
        if anew {
            crate::checkpoints::forget_folded(index)?;
        }
        index.commit()?;
        Ok(anew)
    }

    /// Whether what this device made beyond its cut may still be folded by others: it knew all that is condemned by now.
    fn may_be_carried(&self, cut: Counter) -> Result<bool, SyncError> {
        let own = self.keys.device.device();
        let index = &self.parts.index;
        let Some(last) = index.knowledge().of(&own).filter(|last| last.counter > cut) else { return Ok(true) };
        let mut known = index.lane_prerequisite(own)?;
        known.advance(own, last);
        Ok(garbage::load(index)?.is_known_to(&known))
    }

    /// Looks at each entry of a directory on disk in the light of a vault that was learned anew.
    ///
    /// What the vault knew already when this disk had it stays an entry: the plan changes or removes it. What it never
    /// learned, and what was changed here of something that is gone without trace, is as if it had never been looked at:
    /// the scan finds it and it is published whole.
    fn rebase(&mut self, dir: DirId, path: &RelPath) -> Result<(), SyncError> {
        let mut after = None;
        loop {
            let entries = self.parts.index.entries_in(dir, after.as_ref(), PAGE)?;
            let Some(last) = entries.last() else { return Ok(()) };
            after = Some(last.name.clone());
            for entry in entries {
                let path = path.join(&entry.name);
                if self.is_new_to_vault(&entry, &path)? {
                    forget_entry(&mut self.parts.index, &entry)?;
                    continue;
                }
                self.parts.index.touch(entry.seen.item)?;
                if let Some(own) = entry.own_dir {
                    self.rebase(own, &path)?;
                }
            }
        }
    }

    fn is_new_to_vault(&self, entry: &LocalEntry, path: &RelPath) -> Result<bool, SyncError> {
        let index = &self.parts.index;
        let twins = entry.seen.twins.iter().flat_map(|twin| twin.heads.iter().chain(&twin.placements));
        let mut dots = entry.seen.heads.iter().chain(&entry.seen.placements).chain(twins);
        let parted = crate::forks::parted(index)?;
        if !dots.all(|dot| index.knowledge().contains(dot) && !crate::forks::is_parted(&parted, dot)) {
            return Ok(true);
        }
        if index.item(entry.seen.item)?.is_some() {
            return Ok(false);
        }
        if entry.own_dir.is_some() {
            return Ok(!self.is_all_gone(entry, path)?);
        }
        Ok(!self.is_unchanged(entry, path))
    }

    /// Whether a directory that is gone without trace holds nothing on disk but what is gone likewise, unchanged.
    fn is_all_gone(&self, directory: &LocalEntry, path: &RelPath) -> Result<bool, SyncError> {
        let Some(own) = directory.own_dir else { return Ok(false) };
        let Ok(found) = self.parts.fs.read_dir(path) else { return Ok(false) };
        for child in found {
            let Some(name) = packetboat_core::name::Name::new(child.name) else { return Ok(false) };
            let Some(entry) = packetboat_core::local::LocalRead::entry_at(&self.parts.index, own, &name)? else {
                return Ok(false);
            };
            let path = path.join(&name);
            if self.parts.index.item(entry.seen.item)?.is_some() || self.is_new_to_vault(&entry, &path)? {
                return Ok(false);
            }
        }
        Ok(true)
    }

    /// Whether an object stands on disk as it was recorded.
    fn is_unchanged(&self, entry: &LocalEntry, path: &RelPath) -> bool {
        let same = |stat| fingerprint(&stat) == entry.stat;
        entry.state == EntryState::Settled && self.parts.fs.lstat(path).is_ok_and(same)
    }
}

/// When something new was last seen of a device, by this device's clock.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
struct Heard {
    /// The number of its newest tip, and its last packet.
    seen: (u64, u64),
    at: i64,
    overdue_since: Option<i64>,
}

impl Heard {
    /// The same, looked at now.
    fn look(self, now: i64, limit: u64) -> Self {
        let is_overdue = now.abs_diff(self.at) > limit;
        let since = self.overdue_since.filter(|since| *since <= now).unwrap_or(now);
        Self { overdue_since: is_overdue.then_some(since), ..self }
    }

    fn encode(self) -> Vec<u8> {
        let numbers = [self.seen.0, self.seen.1].map(u64::to_le_bytes);
        let times = [self.at, self.overdue_since.unwrap_or(i64::MIN)].map(i64::to_le_bytes);
        [numbers, times].concat().concat()
    }

    fn decode(bytes: &[u8]) -> Option<Self> {
        let (fields, rest) = bytes.as_chunks::<8>();
        let [tip, packet, at, since] = *fields else { return None };
        let since = i64::from_le_bytes(since);
        let seen = (u64::from_le_bytes(tip), u64::from_le_bytes(packet));
        let overdue_since = (since != i64::MIN).then_some(since);
        rest.is_empty().then_some(Self { seen, at: i64::from_le_bytes(at), overdue_since })
    }
}

/// Why a device was neither revoked nor retired.
#[derive(Debug, Error)]
pub enum RemovalError {
    /// As for a round.
    #[error(transparent)]
    Sync(#[from] SyncError),
    /// The vault's marker.
    #[error(transparent)]
    Join(#[from] JoinError),
    /// The index.
    #[error(transparent)]
    Index(#[from] packetboat_replica::index::IndexError),
    /// Nobody is called that.
    #[error("no device of the vault is called {text:?}")]
    NoSuchDevice {
        /// What was asked for.
        text: String,
    },
    /// Several are called that.
    #[error("several devices of the vault are called {text:?}")]
    SeveralDevices {
        /// What was asked for.
        text: String,
    },
    /// A device cannot revoke itself.
    #[error("a device cannot revoke itself")]
    Oneself,
    /// Nobody would be left.
    #[error("this is the last device of the vault")]
    LastDevice,
    /// This device was retired and has not come back yet.
    #[error("this device was retired")]
    NotActive,
    /// It is revoked already.
    #[error("{name} is revoked already")]
    AlreadyRevoked {
        /// Its name.
        name: String,
    },
    /// It is retired already.
    #[error("{name} is retired already")]
    AlreadyRetired {
        /// Its name.
        name: String,
    },
    /// Another device goes on with this one's key, so this one is to become a new one first.
    #[error("another device goes on with this one's key")]
    Forked,
}

/// Where the index keeps that this device begins again from a checkpoint, with its entries as the base.
const COMING_BACK: &str = "coming back";
/// How long a device must be overdue before it is retired.
const GRACE_MS: i64 = DAY_MS as i64;
pub(crate) const DAY_MS: u64 = 86_400_000;
/// Where the index keeps after how many days a device is retired, 8 bytes; 0 for never.
const RETIRE_AFTER: &str = "retire after";
const PAGE: usize = 1000;
const LEAST_DIGITS: usize = 4;
