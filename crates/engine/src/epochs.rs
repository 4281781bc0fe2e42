//! Epochs: taking up the vault's keys as revocations announce them, beginning a new one, and keeping the marker in step.
//!
//! A device opens the key that is sealed to it as soon as it reads the packet, before that is folded: what comes next
//! may be sealed under it. Which key seals is decided by the folded members alone, so all devices agree on it.
//!
//! The marker at the intermediary is what devices join by. Whoever begins an epoch seals it anew, and has its bytes in the
//! index before the packet leaves: after a crash it is put all the same. Members keep a copy, look at the intermediary's
//! once a day and after each new epoch, and put their own back where it lost its own, or shows an older one or one that no
//! member sealed. Of two markers of one epoch nobody can tell the older, but whoever replaced the one by the other.

use packetboat_core::change::Change;
use packetboat_core::epoch_key::{self, Delivery, MAX_KEYS};
use packetboat_core::ids::{Counter, DeviceId, Dot, Epoch};
use packetboat_core::keys::{KeyRing, RootKey};
use packetboat_core::marker::{Marker, MarkerError, MarkerStanding, NewPassphrase, NewRecovery};
use packetboat_core::members::{EpochKey, Member, Members, Standing};
use packetboat_core::packet::Packet;
use packetboat_core::recovery::RecoveryKey;
use packetboat_core::store::{Store, StoreError};
use packetboat_replica::index::{Index, IndexError};
use zeroize::Zeroizing;

use crate::Keys;
use crate::error::SyncError;
use crate::ports::{Note, Observer};
use crate::replica::Replica;
use crate::vault::{JoinError, marker_name, random, store_keys};

/// The key under which things are to be sealed is not held here.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) struct Lacking(pub(crate) EpochKey);

impl Keys {
    /// Opens the keys that a packet brings this device; says whether there were any that were not held.
    ///
    /// Its author must be a member in good standing. What a packet announces that is never folded opens nothing harmful:
    /// it is a key more to try.
    pub(crate) fn take_from(&mut self, packet: &Packet, members: &Members) -> bool {
        let (author, recipient) = (packet.dot.device, self.device.device());
        if !members.get(&author).is_some_and(|member| member.standing.covers(packet.dot.counter)) {
            return false;
        }
        let mut taken = false;
        for change in &packet.body.changes {
            let Change::Revoke { epoch, key, keys, .. } = change else { continue };
            if self.ring.holds(*epoch, key) || self.ring.roots().count() >= packetboat_core::marker::MAX_KEYS {
                continue;
            }
            let vault = self.ring.vault();
            let delivery = Delivery { vault, author, recipient, epoch: *epoch, key: *key };
            let sealed = keys.iter().find(|(device, _)| *device == recipient);
            let opened = sealed.and_then(|(_, sealed)| epoch_key::open(&delivery, &self.device, sealed).ok());
            for (epoch, root) in opened.into_iter().flatten() {
                taken = true;
                add_quietly(self, epoch, root);
            }
        }
        taken
    }

    /// Seals from now on under the key that the members agree on.
    ///
    /// A later key that no revocation known here announces came from the marker, ahead of the packets, and stays.
    pub(crate) fn adopt(&mut self, members: &Members) -> Result<(), Lacking> {
        let Some(key) = members.epoch_key() else { return Ok(()) };
        let present = (self.ring.current(), self.ring.current_root().id());
        let announced = members.epoch_keys().any(|key| (key.epoch, key.key) == present);
        if present.0 > key.epoch && !announced {
            return Ok(());
        }
        if self.ring.seal_under(key.epoch, &key.key) { Ok(()) } else { Err(Lacking(key)) }
    }
}

/// Adds a key to open with; what seals stays the same until the members say otherwise.
fn add_quietly(keys: &mut Keys, epoch: Epoch, root: RootKey) {
    let (current, id) = (keys.ring.current(), keys.ring.current_root().id());
    keys.ring.add_epoch(epoch, root);
    keys.ring.seal_under(current, &id);
}

/// Keys held here that a member was never sent, as by a revocation that did not know of another; the newest first.
fn unsent<'a>(ring: &'a KeyRing, members: &Members, heir: &Member<'_>) -> Vec<(Epoch, &'a RootKey)> {
    let is_unsent = |key: &EpochKey| heir.epoch <= key.epoch && !members.was_given(&heir.device, key);
    let mut unsent: Vec<EpochKey> = members.epoch_keys().filter(is_unsent).collect();
    unsent.sort_by_key(|key| std::cmp::Reverse(key.epoch));
    let held = |key: &EpochKey| ring.roots().find(|(epoch, root)| *epoch == key.epoch && root.id() == key.key);
    unsent.iter().filter_map(held).take(MAX_KEYS - 1).collect()
}

/// Adds the keys that the marker gives to whoever holds the one under which it is sealed; says whether there were any.
pub(crate) fn take_from_marker(index: &mut Index, store: &dyn Store, keys: &mut Keys) -> Result<bool, SyncError> {
    let Some(marker) = read(store)? else { return Ok(false) };
    let before = keys.ring.roots().count();
    for (epoch, root) in marker.keys_for(&keys.ring).unwrap_or_default() {
        add_quietly(keys, epoch, root);
    }
    let taken = keys.ring.roots().count() > before;
    if taken {
        store_keys(index, keys)?;
    }
    Ok(taken)
}

/// Whether the marker is sealed under a key that is not held here, and so gives none.
pub(crate) fn is_marker_locked(store: &dyn Store, keys: &Keys) -> Result<bool, SyncError> {
    Ok(read(store)?.is_some_and(|marker| marker.keys_for(&keys.ring).is_none()))
}

/// The marker, unless it is missing or not to be used.
fn read(store: &dyn Store) -> Result<Option<Marker>, SyncError> {
    match store.get(&marker_name(), packetboat_core::marker::MAX_MARKER_BYTES as u64) {
        Ok(bytes) => Ok(Marker::decode(&bytes).ok()),
        Err(StoreError::Missing { .. } | StoreError::TooLarge { .. } | StoreError::Short { .. }) => Ok(None),
        Err(error) => Err(error.into()),
    }
}

impl Replica {
    /// Revokes a device in a packet that begins the next epoch. Within the caller's transaction; this device must be
    /// introduced and hold the present key.
    ///
    /// The packet itself is sealed under the present key, by which the others open it. Whoever is asked to name the
    /// revoked device once more, with the cut that stands, gives the vault a new key and changes nothing else.
    pub(crate) fn begin_epoch(&mut self, revoked: &DeviceId, cut: Counter) -> Result<Dot, SyncError> {
        let members = crate::members::load(&self.parts.index)?;
        let greatest = members.epoch_keys().map(|key| key.epoch).max().unwrap_or(0).max(self.keys.ring.greatest());
        let epoch = greatest.checked_add(1).ok_or(SyncError::DamagedIndex { what: "the epoch" })?;
        let root = RootKey(random(&mut *self.parts.entropy));
        let author = self.keys.device.device();
        let mut keys = Vec::new();
        for heir in members.heirs(revoked) {
            let others = unsent(&self.keys.ring, &members, &heir);
            let given: Vec<(Epoch, &RootKey)> = std::iter::once((epoch, &root)).chain(others).collect();
            let vault = self.keys.ring.vault();
            let delivery = Delivery { vault, author, recipient: heir.device, epoch, key: root.id() };
            let ephemeral = Zeroizing::new(random(&mut *self.parts.entropy));
            let nonce = self.parts.entropy.nonce();
            // A device that introduced itself with a key that is none gets nothing; it could open nothing.
            if let Ok(sealed) = epoch_key::seal(&delivery, &heir.exchange_key, &ephemeral, nonce, &given) {
                keys.push((heir.device, sealed));
            }
        }
        let dot = self.seal(vec![Change::Revoke { device: *revoked, cut, epoch, key: root.id(), keys }])?;
        self.keys.ring.add_epoch(epoch, root);
        let members = crate::members::load(&self.parts.index)?;
        let _ = self.keys.adopt(&members);
        store_keys(&mut self.parts.index, &self.keys)?;
        Ok(dot)
    }

    /// Gives the vault another key where the present one is known to a device that was revoked meanwhile.
    pub(crate) fn renew_leaked_key(&mut self, observer: &mut dyn Observer) -> Result<(), SyncError> {
        let members = crate::members::load(&self.parts.index)?;
        let Some(revoked) = members.leaked_to() else { return Ok(()) };
        let Standing::Revoked { cut, .. } = members.standing(&revoked) else { return Ok(()) };
        self.parts.index.begin()?;
        self.begin_epoch(&revoked, cut)?;
        self.parts.index.commit()?;
        let name = members.name(&revoked).unwrap_or("a revoked device").to_owned();
        let text = format!("{name} had been given the vault's key by another revocation: the key was renewed");
        observer.note(Note::Warning { text });
        Ok(())
    }

    /// The marker for the present epoch with a new passphrase and a new recovery key, kept to be put. Within the caller's
    /// transaction; it is put by [`keep_marker`](Self::keep_marker), after the packet that announces the key.
    pub(crate) fn renew_marker(&mut self, marker: &mut Marker, passphrase: &[u8]) -> Result<String, SyncError> {
        let cost = self.parts.settings.passphrase_cost;
        let entropy = &mut *self.parts.entropy;
        let recovery = RecoveryKey(random(entropy));
        let slot = NewPassphrase { passphrase, cost, salt: random(entropy), nonce: entropy.nonce() };
        let recovery_slot = NewRecovery { key: &recovery, nonce: entropy.nonce() };
        let sealed = marker.begin_epoch(&self.keys.ring, entropy.nonce(), slot, recovery_slot);
        sealed.map_err(|_| SyncError::DamagedIndex { what: "the keys" })?;
        self.parts.index.set_meta(KEPT, Some(&marker.encode()))?;
        self.parts.index.set_meta(CHECKED, None)?;
        Ok(recovery.to_text().to_string())
    }

    /// Brings the marker at the intermediary and this device's keys in step, where that is due.
    ///
    /// What can be told of it is told; a storage that fails ends no round for it, since nothing rests on it today.
    pub(crate) fn keep_marker(&mut self, observer: &mut dyn Observer) -> Result<(), SyncError> {
        if !self.is_marker_due()? {
            return Ok(());
        }
        match self.compare_marker(observer) {
            Err(SyncError::Store(error)) => {
                let text = format!("the marker was not looked at: {}", crate::error::chain(&error));
                observer.note(Note::Warning { text });
                Ok(())
            }
            outcome => outcome,
        }
    }

    fn compare_marker(&mut self, observer: &mut dyn Observer) -> Result<(), SyncError> {
        let members = crate::members::load(&self.parts.index)?;
        let found = match Self::read_marker(&*self.parts.store) {
            Ok(found) => found.filter(|marker| marker.vault() == self.vault()),
            // It is sound to whoever wrote it.
            Err(JoinError::Marker(MarkerError::NewerFormat { .. })) => return Ok(()),
            Err(JoinError::Marker(_) | JoinError::Store(StoreError::Short { .. })) => None,
            Err(JoinError::Store(error)) => return Err(error.into()),
            Err(_) => return Err(SyncError::DamagedIndex { what: "the marker" }),
        };
        let standing = found.as_ref().map(|marker| (marker, marker.compare(&self.keys.ring)));
        if let Some(marker) = &found
            && let Some(kept) = self.replaced(marker)?
        {
            self.parts.store.put(&marker_name(), &kept.encode())?;
            let text = "the intermediary had the vault's marker of before its passphrase or recovery key was changed here: the \
                        present one was put in its place";
            observer.note(Note::Warning { text: text.to_owned() });
            return self.note_marker(Some(&kept), None);
        }
        match standing {
            Some((marker, MarkerStanding::Same | MarkerStanding::Gives | MarkerStanding::Lacks)) => {
                let mut marker = marker.clone();
                for (epoch, root) in marker.keys_for(&self.keys.ring).unwrap_or_default() {
                    add_quietly(&mut self.keys, epoch, root);
                }
                // A revoked device that holds the marker's key is to learn no other from it.
                let under = marker.sealed_under(&self.keys.ring);
                let leaked = members.epoch_keys().filter(|key| Some(key.key) == under).any(|key| {
                    let revoked = members.iter().filter(|member| member.standing.is_revoked());
                    revoked.map(|member| member.device).any(|device| members.was_given(&device, &key))
                });
                let nonce = self.parts.entropy.nonce();
                if !leaked && marker.add_keys(&self.keys.ring, nonce).unwrap_or(false) {
                    self.parts.store.put(&marker_name(), &marker.encode())?;
                }
                self.note_marker(Some(&marker), None)
            }
            // Somebody begins an epoch of which nothing was learned here yet.
            Some((marker, MarkerStanding::Unknown)) if marker.epoch() > self.keys.ring.greatest() => Ok(()),
            found => {
                let Some(kept) = self.sound_marker()? else {
                    let text = match found {
                        Some(_) => OLDER_TEXT,
                        None => LOST_TEXT,
                    };
                    return self.note_marker(None, Some(text));
                };
                self.parts.store.put(&marker_name(), &kept.encode())?;
                if self.parts.index.meta(PUT)?.is_some_and(|put| put == kept.slots_id()) {
                    let text = match found {
                        Some(_) => {
                            "the intermediary showed an older marker of the vault, or one that no member made: this device's \
                             copy was put back. Whoever joined by the other one joined with a key that was given up"
                        }
                        None => {
                            "the intermediary had lost the vault's marker, or damaged it: this device's copy was put back"
                        }
                    };
                    observer.note(Note::Warning { text: text.to_owned() });
                }
                self.note_marker(Some(&kept), None)
            }
        }
    }

    /// Puts a marker that was changed. A put that fails may leave neither this one nor what was there before; that is put
    /// back by the next round then.
    pub(crate) fn put_marker(&mut self, before: &Marker, changed: &Marker) -> Result<(), JoinError> {
        let mut replaced = self.parts.index.meta(REPLACED)?.unwrap_or_default();
        replaced.extend(before.slots_id());
        replaced.drain(..replaced.len().saturating_sub(MAX_REPLACED * 32));
        self.parts.index.begin()?;
        self.parts.index.set_meta(REPLACED, Some(&replaced))?;
        self.parts.index.set_meta(KEPT, Some(&before.encode()))?;
        self.parts.index.set_meta(CHECKED, None)?;
        self.parts.index.commit()?;
        self.parts.store.put(&marker_name(), &changed.encode())?;
        Ok(self.parts.index.set_meta(KEPT, Some(&changed.encode()))?)
    }

    /// Keeps another marker, or none, in the place of one that was to be put.
    pub(crate) fn keep_instead(&mut self, marker: Option<&Marker>) -> Result<(), IndexError> {
        self.parts.index.set_meta(KEPT, marker.map(Marker::encode).as_deref())
    }

    /// The marker as this device last put it or found it sound.
    pub(crate) fn kept_marker(&self) -> Result<Option<Marker>, IndexError> {
        Ok(self.parts.index.meta(KEPT)?.and_then(|bytes| Marker::decode(&bytes).ok()))
    }

    /// This device's marker, where it is the one by which this device replaced the one that was found.
    fn replaced(&self, found: &Marker) -> Result<Option<Marker>, IndexError> {
        let replaced = self.parts.index.meta(REPLACED)?.unwrap_or_default();
        let is_replaced = |marker: &Marker| replaced.chunks(32).any(|id| id == marker.slots_id());
        if !is_replaced(found) {
            return Ok(None);
        }
        let holds = |kept: &Marker| kept.epoch() == found.epoch() && !is_replaced(kept);
        Ok(self.kept_marker()?.filter(holds))
    }

    /// This device's copy of the marker, where it gives the vault's keys.
    fn sound_marker(&self) -> Result<Option<Marker>, IndexError> {
        let sound =
            |kept: &Marker| !matches!(kept.compare(&self.keys.ring), MarkerStanding::Older | MarkerStanding::Unknown);
        Ok(self.kept_marker()?.filter(sound))
    }

    /// Whether this device has a copy of the marker to put back where the intermediary lost it.
    pub fn holds_marker(&self) -> Result<bool, SyncError> {
        Ok(self.sound_marker()?.is_some())
    }

    /// Lets the next round look at the marker, whenever that was looked at last.
    pub fn look_at_marker(&mut self) -> Result<(), SyncError> {
        Ok(self.parts.index.set_meta(CHECKED, None)?)
    }

    /// Lets the next round look at the marker if this one, which lies at the intermediary, is not the one that was found
    /// there last: somebody changed the passphrase, or the intermediary shows one that was replaced. A copy of before that
    /// would bring the former passphrase back one day.
    pub fn saw_marker(&mut self, marker: &Marker) -> Result<(), SyncError> {
        match self.parts.index.meta(PUT)?.is_some_and(|put| put == marker.slots_id()) {
            true => Ok(()),
            false => self.look_at_marker(),
        }
    }

    /// Records what was found, and when and for which keys.
    fn note_marker(&mut self, kept: Option<&Marker>, problem: Option<&str>) -> Result<(), SyncError> {
        let checked = [self.parts.clock.now_ms().to_le_bytes().to_vec(), self.key_state()].concat();
        let index = &mut self.parts.index;
        index.begin()?;
        if let Some(kept) = kept {
            index.set_meta(KEPT, Some(&kept.encode()))?;
            index.set_meta(PUT, Some(&kept.slots_id()))?;
        }
        match problem {
            Some(text) => index.set_problem("marker", b"packetboat", text)?,
            None => index.clear_problem("marker", b"packetboat")?,
        }
        index.set_meta(CHECKED, Some(&checked))?;
        store_keys(index, &self.keys)?;
        Ok(index.commit()?)
    }

    fn is_marker_due(&self) -> Result<bool, SyncError> {
        let Some(checked) = self.parts.index.meta(CHECKED)? else { return Ok(true) };
        let Some((time, state)) = checked.split_first_chunk::<8>() else { return Ok(true) };
        let age = self.parts.clock.now_ms().saturating_sub(i64::from_le_bytes(*time)).unsigned_abs();
        Ok(age > MARKER_INTERVAL_MS || state != self.key_state())
    }

    /// Changes with every key that is held and with the one that seals.
    fn key_state(&self) -> Vec<u8> {
        let ring = &self.keys.ring;
        let count = (ring.roots().count() as u64).to_le_bytes();
        [&count[..], &ring.current().to_le_bytes(), &ring.current_root().id().0].concat()
    }
}

/// Where the index keeps the marker as this device last put it or found it sound,
const KEPT: &str = "marker";
/// which ones this device replaced by another passphrase or recovery key, the [ids](Marker::slots_id) of the latest,
const REPLACED: &str = "markers replaced";
/// the [id](Marker::slots_id) of the one that was at the intermediary when it was last looked at,
pub(crate) const PUT: &str = "marker put";
/// and when and with which keys it was last looked at: time in ms 8, then [`Replica::key_state`].
pub(crate) const CHECKED: &str = "marker checked";
const MAX_REPLACED: usize = 64;
const OLDER_TEXT: &str = "it is older than the vault's newest key: nobody can join until a member runs `packetboat key \
                          passphrase`";
const LOST_TEXT: &str = "it is lost or damaged: nobody can join until a member that has a copy puts that back, or one runs \
                         `packetboat key passphrase`";
const MARKER_INTERVAL_MS: u64 = 86_400_000;
