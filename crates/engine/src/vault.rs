//! A replica's membership of its vault: making one, joining one, its keys, its name, its devices.

use packetboat_core::change::{Change, MAX_DEVICE_NAME};
use packetboat_core::checkpoint::CHECKPOINTS_FOLDER;
use packetboat_core::hex;
use packetboat_core::ids::{Counter, DeviceId, Epoch, VaultId};
use packetboat_core::keys::{DeviceKey, KeyRing, RootKey};
use packetboat_core::marker::{Argon2Cost, Marker, MarkerError, MarkerStanding, NewPassphrase, NewRecovery, OtherKeys};
use packetboat_core::members::Standing;
use packetboat_core::recovery::RecoveryKey;
use packetboat_core::store::{ObjectName, Put, Store, StoreError};
use packetboat_core::tip::TIPS_FOLDER;
use packetboat_core::wire::{Reader, WireError, Writer};
use packetboat_replica::index::IndexError;
use thiserror::Error;

use crate::Keys;
use crate::builder::{Draft, seal_own};
use crate::error::SyncError;
use crate::learn::packets_present;
use crate::members;
use crate::places;
use crate::ports::{Entropy, Note, Observer};
use crate::replica::{DeviceInfo, Parts, Replica};

impl Replica {
    /// Makes a vault at an intermediary that has none; this device becomes its first member with its first round.
    ///
    /// Returns also the recovery key as text, to be shown once.
    pub fn create(mut parts: Parts, passphrase: &[u8], device_name: &str) -> Result<(Self, String), JoinError> {
        let vault = VaultId(random(&mut *parts.entropy));
        let root = RootKey(random(&mut *parts.entropy));
        let recovery = RecoveryKey(random(&mut *parts.entropy));
        let marker = Marker::create(
            vault,
            parts.clock.now_ms(),
            &root,
            NewPassphrase {
                passphrase,
                cost: parts.settings.passphrase_cost,
                salt: random(&mut *parts.entropy),
                nonce: parts.entropy.nonce(),
            },
            NewRecovery { key: &recovery, nonce: parts.entropy.nonce() },
        );
        if parts.store.put_new(&marker_name(), &marker.encode())? == Put::Present {
            return Err(JoinError::VaultExists);
        }
        let replica = Self::join(parts, KeyRing::new(vault, root), device_name)?;
        Ok((replica, recovery.to_text().to_string()))
    }

    /// Joins the vault whose keys were unlocked, as a new device. It introduces itself with its first round.
    pub fn join(mut parts: Parts, ring: KeyRing, device_name: &str) -> Result<Self, JoinError> {
        let name = sound_name(device_name).ok_or(JoinError::DeviceName)?;
        let device = DeviceKey::from_seed(&random(&mut *parts.entropy));
        let keys = Keys { ring, device };
        parts.index.begin()?;
        parts.index.set_meta(KEYS, Some(&encode_keys(&keys)))?;
        parts.index.set_meta(NAME, Some(name.as_bytes()))?;
        places::arrive(&mut parts.index, keys.device.device(), &parts.place)?;
        parts.index.commit()?;
        Ok(Self { parts, keys })
    }

    /// Opens a replica whose index holds its keys. Reads no storage.
    pub fn open(mut parts: Parts) -> Result<Self, OpenError> {
        let bytes = parts.index.meta(KEYS)?.ok_or(OpenError::NotAReplica)?;
        let mut keys = decode_keys(&bytes).map_err(|_| OpenError::Damaged)?;
        // A key that is lacking is told where it is needed.
        let _ = keys.adopt(&members::load(&parts.index).map_err(|_| OpenError::Damaged)?);
        places::arrive(&mut parts.index, keys.device.device(), &parts.place).map_err(|error| match error {
            SyncError::Index(error) => OpenError::Index(error),
            _ => OpenError::Damaged,
        })?;
        Ok(Self { parts, keys })
    }

    /// The marker of the vault at an intermediary; `None` where there is none.
    pub fn read_marker(store: &dyn Store) -> Result<Option<Marker>, JoinError> {
        match store.get(&marker_name(), MAX_MARKER_BYTES) {
            Ok(bytes) => Ok(Some(Marker::decode(&bytes)?)),
            Err(StoreError::Missing { .. }) => Ok(None),
            Err(StoreError::TooLarge { .. }) => Err(MarkerError::TooLarge.into()),
            Err(error) => Err(error.into()),
        }
    }

    /// The vault.
    pub fn vault(&self) -> VaultId {
        self.keys.ring.vault()
    }

    /// What this device is called.
    pub fn device_name(&self) -> Result<String, SyncError> {
        let device = self.keys.device.device();
        if let Some(member) = members::load(&self.parts.index)?.get(&device) {
            return Ok(member.name.to_owned());
        }
        let name = self.parts.index.meta(NAME)?.unwrap_or_default();
        Ok(String::from_utf8_lossy(&name).into_owned())
    }

    /// The vault's devices, this one first, then by name.
    pub fn devices(&self) -> Result<Vec<DeviceInfo>, SyncError> {
        let own = self.keys.device.device();
        let mut devices = Vec::new();
        for member in members::load(&self.parts.index)?.iter() {
            // A device that began from a checkpoint has not heard when others wrote what that contains.
            let heard = self.parts.index.member(member.device)?;
            devices.push(DeviceInfo {
                device: member.device,
                name: member.name.to_owned(),
                is_this: member.device == own,
                last_heard: heard.map(|heard| heard.heard_time).filter(|time| *time > 0),
                packets: self.parts.index.knowledge().counter(&member.device),
                standing: match member.standing {
                    Standing::Active => "active",
                    Standing::Retired { .. } => "retired",
                    Standing::Revoked { .. } => "revoked",
                },
            });
        }
        devices.sort_by(|a, b| (!a.is_this, &a.name, a.device).cmp(&(!b.is_this, &b.name, b.device)));
        Ok(devices)
    }

    /// Gives this device another name; others learn it with the next round.
    pub fn rename_device(&mut self, name: &str) -> Result<(), SyncError> {
        let name = sound_name(name).ok_or(SyncError::DeviceName)?;
        self.parts.index.begin()?;
        self.parts.index.set_meta(NAME, Some(name.as_bytes()))?;
        let device = self.keys.device.device();
        if self.parts.index.knowledge().counter(&device) > 0 {
            self.seal(vec![Change::RenameDevice { device, name: name.to_owned() }])?;
        }
        self.parts.index.commit()?;
        Ok(())
    }

    /// Lets another passphrase open the vault. Devices that are members already need none.
    ///
    /// What others did is learned first.
    /// Where the marker is of an earlier epoch than the vault, it is brought up to date, which takes a new recovery key too:
    /// that is returned as text. The same where it is lost or damaged: this device's copy may hold a recovery key that was
    /// replaced since.
    pub fn change_passphrase(&mut self, new: &[u8], observer: &mut dyn Observer) -> Result<Option<String>, JoinError> {
        self.learn_before_sealing_marker(observer)?;
        let is_older = |marker: &Marker| {
            marker.vault() == self.vault() && marker.compare(&self.keys.ring) == MarkerStanding::Older
        };
        let mut marker = match self.sound_marker_there()? {
            Some(marker) if !is_older(&marker) => {
                let mut changed = marker.clone();
                let entropy = &mut *self.parts.entropy;
                let cost = self.parts.settings.passphrase_cost;
                let slot = NewPassphrase { passphrase: new, cost, salt: random(entropy), nonce: entropy.nonce() };
                changed.replace_passphrase(&self.keys.ring, slot)?;
                self.put_marker(&marker, &changed)?;
                return Ok(None);
            }
            Some(marker) => marker,
            None => self.marker_to_renew()?,
        };
        let kept = self.kept_marker()?;
        self.parts.index.begin()?;
        let recovery = self.renew_marker(&mut marker, new).map_err(|_| OtherKeys)?;
        self.parts.index.commit()?;
        if let Err(error) = self.parts.store.put(&marker_name(), &marker.encode()) {
            // Nobody has seen its recovery key, so no round is to put it.
            self.keep_instead(kept.as_ref())?;
            return Err(error.into());
        }
        Ok(Some(recovery))
    }

    /// Whether a passphrase opens the vault as it is now; none where its marker is lost or damaged and this device has no copy,
    /// so that nobody can tell. This derives a key, as joining does.
    pub fn is_opened_by(&self, passphrase: &[u8]) -> Result<Option<bool>, JoinError> {
        let marker = self.marker_to_compare()?;
        Ok(marker.map(|marker| marker.unlock_with_passphrase(passphrase).is_ok()))
    }

    /// Makes another recovery key and returns it as text; the former one opens the vault no more.
    pub fn new_recovery_key(&mut self, observer: &mut dyn Observer) -> Result<String, JoinError> {
        self.learn_before_sealing_marker(observer)?;
        // This device's copy may open by a passphrase that was replaced since.
        let marker = self.sound_marker_there()?.ok_or(MarkerError::Damaged)?;
        let mut changed = marker.clone();
        let entropy = &mut *self.parts.entropy;
        let key = RecoveryKey(random(entropy));
        changed.replace_recovery(&self.keys.ring, NewRecovery { key: &key, nonce: entropy.nonce() })?;
        self.put_marker(&marker, &changed)?;
        Ok(key.to_text().to_string())
    }

    /// Under a key that another device gave up nobody could join.
    fn learn_before_sealing_marker(&mut self, observer: &mut dyn Observer) -> Result<(), SyncError> {
        let learned = self.learn(observer).and_then(|learned| self.refuse_if_removed(&learned));
        if learned.is_err() {
            self.undo_uncommitted()?;
        }
        learned
    }

    /// The marker at the intermediary, or this device's copy where that is damaged or lost; none where there is none of either.
    fn marker_to_compare(&self) -> Result<Option<Marker>, JoinError> {
        let there = self.sound_marker_there()?;
        Ok(if there.is_some() { there } else { self.kept_marker()? })
    }

    /// The same, or a new one.
    pub(crate) fn marker_to_renew(&mut self) -> Result<Marker, JoinError> {
        Ok(self.marker_to_compare()?.unwrap_or_else(|| self.blank_marker()))
    }

    /// The marker at the intermediary; none where it is damaged or lost.
    fn sound_marker_there(&self) -> Result<Option<Marker>, JoinError> {
        match Self::read_marker(&*self.parts.store) {
            Ok(Some(found)) => Ok(Some(found)),
            // Where anything else lies, a storage lost it.
            Ok(None) if self.lies_nowhere()? => Err(JoinError::NoVault),
            Ok(None) => Ok(None),
            Err(error @ JoinError::Marker(MarkerError::NewerFormat { .. })) => Err(error),
            Err(JoinError::Marker(_)) => Ok(None),
            Err(error) => Err(error),
        }
    }

    fn lies_nowhere(&self) -> Result<bool, StoreError> {
        let store = &*self.parts.store;
        Ok(store.list(TIPS_FOLDER)?.is_empty()
            && store.list(CHECKPOINTS_FOLDER)?.is_empty()
            && packets_present(store, &self.keys.device.device())?.is_empty())
    }

    /// A marker to be sealed for the present epoch, for a vault of which there is no other.
    fn blank_marker(&mut self) -> Marker {
        let (now_ms, entropy) = (self.parts.clock.now_ms(), &mut *self.parts.entropy);
        let nobody = RecoveryKey(random(entropy));
        let passphrase = NewPassphrase {
            passphrase: &nobody.0,
            cost: Argon2Cost::MINIMUM,
            salt: random(entropy),
            nonce: entropy.nonce(),
        };
        let recovery = NewRecovery { key: &nobody, nonce: entropy.nonce() };
        Marker::create(self.keys.ring.vault(), now_ms, self.keys.ring.current_root(), passphrase, recovery)
    }

    /// Eight characters that are equal on two devices exactly when both have learned the same.
    pub(crate) fn state(&self) -> String {
        hex::encode(&self.parts.index.knowledge().state_hash()[..4])
    }

    /// Goes back to the keys that the index holds, after what was to change them was undone.
    pub(crate) fn reload_keys(&mut self) -> Result<(), SyncError> {
        let bytes = self.parts.index.meta(KEYS)?.ok_or(SyncError::DamagedIndex { what: "the keys" })?;
        self.keys = decode_keys(&bytes).map_err(|_| SyncError::DamagedIndex { what: "the keys" })?;
        // A key that is lacking is told where it is needed.
        let _ = self.keys.adopt(&members::load(&self.parts.index)?);
        Ok(())
    }

    pub(crate) fn refuse_if_revoked(&self) -> Result<(), SyncError> {
        let members = members::load(&self.parts.index)?;
        if let Some(by) = self.parts.index.meta(OVERRULED)?.and_then(|device| DeviceId::from_slice(&device)) {
            let by = members.name(&by).unwrap_or("another device").to_owned();
            return Err(SyncError::Revoked { by });
        }
        if let Standing::Revoked { by, .. } = members.standing(&self.keys.device.device()) {
            let by = members.name(&by.device).unwrap_or("another device").to_owned();
            return Err(SyncError::Revoked { by });
        }
        Ok(())
    }

    /// Introduces this device where its lane is still empty.
    pub(crate) fn introduce(&mut self) -> Result<(), SyncError> {
        if self.parts.index.knowledge().counter(&self.keys.device.device()) > 0 {
            return Ok(());
        }
        let name = self.parts.index.meta(NAME)?.unwrap_or_default();
        let name = String::from_utf8(name).map_err(|_| SyncError::DamagedIndex { what: "the device's name" })?;
        let continues = match self.parts.index.meta(CONTINUES)? {
            Some(device) => DeviceId::from_slice(&device),
            None => None,
        };
        let exchange_key = self.keys.device.exchange_public();
        let mut changes = vec![Change::Introduce { name, exchange_key, continues }];
        if let (Some(device), Some(cut)) = (continues, self.parts.index.meta(ABANDONED)?) {
            let cut = cut.try_into().map_err(|_| SyncError::DamagedIndex { what: "the last packet of a lane" })?;
            changes.push(Change::Retire { device, cut: Counter::from_le_bytes(cut) });
        }
        self.parts.index.begin()?;
        self.seal(changes)?;
        self.parts.index.set_meta(ABANDONED, None)?;
        self.parts.index.commit()?;
        Ok(())
    }

    /// Lets the introduction of the device that this one becomes retire what it was, as of its last packet.
    /// Within the caller's transaction.
    pub(crate) fn retires_when_introduced(&mut self, last: Counter) -> Result<(), SyncError> {
        Ok(self.parts.index.set_meta(ABANDONED, Some(&last.to_le_bytes()))?)
    }

    /// Takes a new key, because packets under the old one were made elsewhere too.
    ///
    /// What was learned stays; the old lane goes on being read as another device's.
    pub(crate) fn go_on_as_new_device(&mut self, why: &str, observer: &mut dyn Observer) -> Result<(), SyncError> {
        let name = self.device_name()?;
        self.parts.index.begin()?;
        self.take_new_key(&name)?;
        self.parts.index.commit()?;
        observer.note(Note::Warning { text: format!("{why}: it goes on as a new device") });
        self.introduce()
    }

    /// Becomes a device with another key and the same name. Within the caller's transaction.
    pub(crate) fn take_new_key(&mut self, name: &str) -> Result<(), SyncError> {
        let old = self.keys.device.device();
        self.keys.device = DeviceKey::from_seed(&random(&mut *self.parts.entropy));
        let index = &mut self.parts.index;
        store_keys(index, &self.keys)?;
        index.set_meta(NAME, Some(name.as_bytes()))?;
        index.set_meta(CONTINUES, Some(old.as_bytes()))?;
        Ok(places::forget_own_lane(index)?)
    }

    /// Takes a new key and forgets all but that and the vault's, because another device goes on with the old key
    /// (a cloned disk, a backup that was restored and written to).
    ///
    /// What this index folded of its own would never be published in the old lane. The disk has it, and is compared with
    /// the vault as on joining with a full folder: equal files agree, others stand in conflict, nothing is removed.
    pub(crate) fn begin_again_as_new_device(&mut self, observer: &mut dyn Observer) -> Result<(), SyncError> {
        let name = self.device_name()?;
        let index = &mut self.parts.index;
        index.begin()?;
        crate::checkpoints::forget_folded(index)?;
        index.clear_entries()?;
        self.take_new_key(&name)?;
        self.parts.index.commit()?;
        let text = "another device goes on with this one's key (a cloned disk, a restored backup): \
                    it begins again as a new device, and what differs is kept";
        observer.note(Note::Warning { text: text.to_owned() });
        Ok(())
    }

    /// Seals a packet with these changes. Within the caller's transaction.
    pub(crate) fn seal(&mut self, changes: Vec<Change>) -> Result<packetboat_core::ids::Dot, SyncError> {
        let now = self.parts.clock.now_ms();
        let draft = Draft { changes, ..Draft::default() };
        let sealed = seal_own(&mut self.parts.index, &self.keys, now, draft, &mut *self.parts.entropy)?;
        Ok(sealed.dot())
    }
}

/// The name of a vault's marker.
pub(crate) fn marker_name() -> ObjectName {
    ObjectName::new("packetboat").expect("a sound name")
}

/// Records this device's keys.
pub(crate) fn store_keys(index: &mut packetboat_replica::index::Index, keys: &Keys) -> Result<(), SyncError> {
    Ok(index.set_meta(KEYS, Some(&encode_keys(keys)))?)
}

pub(crate) fn random<const N: usize>(entropy: &mut dyn Entropy) -> [u8; N] {
    let mut bytes = [0; N];
    entropy.fill(&mut bytes);
    bytes
}

/// A device name as packets can carry it: without control characters, at most 64 bytes.
fn sound_name(name: &str) -> Option<String> {
    let mut sound: String = name.trim().chars().filter(|c| !c.is_control()).collect();
    while sound.len() > MAX_DEVICE_NAME {
        sound.pop();
    }
    (!sound.is_empty()).then_some(sound)
}

/// Vault id 16, device seed 32, then per key its epoch and the root key 32, in order of epochs.
fn encode_keys(keys: &Keys) -> Vec<u8> {
    let mut out = Writer::new();
    out.raw(&keys.ring.vault().0).raw(&keys.device.seed());
    for (epoch, root) in keys.ring.roots() {
        out.varint(epoch.into()).raw(&root.0);
    }
    out.finish()
}

fn decode_keys(bytes: &[u8]) -> Result<Keys, WireError> {
    let mut input = Reader::new(bytes);
    let vault = VaultId(input.array()?);
    let device = DeviceKey::from_seed(&input.array()?);
    let first: Epoch = input.varint32()?;
    if first != 0 {
        return Err(WireError::Invalid { what: "first epoch" });
    }
    let mut ring = KeyRing::new(vault, RootKey(input.array()?));
    while input.remaining() > 0 {
        ring.add_epoch(input.varint32()?, RootKey(input.array()?));
    }
    Ok(Keys { ring, device })
}

/// Why a vault could not be made, joined or changed.
#[derive(Debug, Error)]
pub enum JoinError {
    /// There is a vault already.
    #[error("there is a vault at the intermediary already")]
    VaultExists,
    /// There is no vault.
    #[error("there is no vault at the intermediary")]
    NoVault,
    /// The name has no character that can be shown.
    #[error("a device's name needs at least one character")]
    DeviceName,
    /// The marker cannot be read.
    #[error(transparent)]
    Marker(#[from] MarkerError),
    /// The marker belongs to other keys than this device's.
    #[error("the vault at the intermediary has other keys than this device")]
    OtherKeys(#[from] OtherKeys),
    /// As for a round.
    #[error(transparent)]
    Sync(#[from] SyncError),
    /// The intermediary.
    #[error(transparent)]
    Store(#[from] StoreError),
    /// The index.
    #[error(transparent)]
    Index(#[from] IndexError),
}

/// Why a replica could not be opened.
#[derive(Debug, Error)]
pub enum OpenError {
    /// The index holds no keys: joining was never finished.
    #[error("the index holds no keys")]
    NotAReplica,
    /// The keys cannot be read.
    #[error("the keys in the index are damaged")]
    Damaged,
    /// The index.
    #[error(transparent)]
    Index(#[from] IndexError),
}

const KEYS: &str = "keys";
const NAME: &str = "device name";
const CONTINUES: &str = "continues";
/// Where the index keeps the last packet of the device that this one was and that nobody else goes on as, 8 bytes, until the
/// introduction retires it.
const ABANDONED: &str = "abandoned";
/// Where the index keeps which device revoked this one before, in total order, this one revoked it.
pub(crate) const OVERRULED: &str = "overruled by";
const MAX_MARKER_BYTES: u64 = 64 * 1024;
