//! The marker: the object `packetboat` by which an intermediary is known to hold a vault, and which keeps its keys.
//!
//! ```text
//! offset  size  field
//! 0       4     magic "PBMK"
//! 4       2     format version, little-endian: 1
//! 6       16    vault id
//! 22      8     created, ms since 1970 UTC, little-endian
//! 30      4     current epoch, little-endian
//! 34      ...   passphrase slot: memory KiB varint | passes varint | lanes varint | salt 16 | sealed slot 108
//!         108   recovery slot: sealed slot
//!         ...   other keys: where there are any, sealed box under the current root key of: per key, by epoch:
//!               epoch 4, little-endian | root key 32
//! end-32  32    BLAKE3 (derive-key context "packetboat 2026 marker") of all before
//!
//! sealed slot = sealed box (keys.rs) of: epoch 4, little-endian | root key 32
//! ```
//!
//! The slots' associated data is the header (bytes 0..34), the kind of slot and, for the passphrase, its parameters and salt.
//! So whoever opens a slot knows that everything before it is as a member wrote it. The other keys' box is bound to the
//! header as well: whoever holds the current root key can add to it, without passphrase or recovery key, and who opens it
//! knows that no key was left out by whoever keeps the marker.
//! The hash at the end is no proof of anything; it tells a damaged marker from a wrong passphrase.
//!
//! The intermediary chooses what is read here, so it could ask for a derivation that is too cheap or that never ends:
//! [`Argon2Cost`] has a floor and a ceiling. There is one passphrase slot, so one attempt is one derivation.
//! What this cannot prevent is an older marker put back: it opens with the older passphrase, and gives older keys.
//! Members notice that and put theirs back ([`Marker::compare`]); who joins by it learns of a key that it was not given.

use argon2::{Algorithm, Argon2, Params, Version};
use thiserror::Error;
use zeroize::Zeroizing;

use crate::ids::{Epoch, VaultId};
use crate::keys::{BOX_OVERHEAD, KeyId, KeyRing, Nonce, Purpose, RootKey, open_with, seal_with};
use crate::recovery::RecoveryKey;
use crate::wire::{Reader, WireError, Writer};

/// A vault's marker.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Marker {
    vault: VaultId,
    created: i64,
    epoch: Epoch,
    passphrase: PassphraseSlot,
    recovery: Vec<u8>,
    /// All root keys but the current, sealed under that one; empty where there are none.
    others: Vec<u8>,
}

/// How a marker stands to the keys that a member holds.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum MarkerStanding {
    /// It gives all these keys.
    Same,
    /// It is sealed under a key that is held, and lacks others.
    Lacks,
    /// It is of an earlier epoch than the one in which things are sealed.
    Older,
    /// It is of a later epoch than any that is known here, or of another key of the present one.
    Unknown,
    /// It gives keys that are not held here.
    Gives,
}

/// A passphrase that is to open a vault, with the randomness to seal it.
#[derive(Clone, Copy)]
pub struct NewPassphrase<'a> {
    /// The passphrase.
    pub passphrase: &'a [u8],
    /// What one derivation costs.
    pub cost: Argon2Cost,
    /// Fresh random bytes.
    pub salt: [u8; 16],
    /// Fresh random bytes.
    pub nonce: Nonce,
}

/// A recovery key that is to open a vault, with the randomness to seal it.
#[derive(Clone, Copy)]
pub struct NewRecovery<'a> {
    /// The key.
    pub key: &'a RecoveryKey,
    /// Fresh random bytes.
    pub nonce: Nonce,
}

impl Marker {
    /// Makes the marker of a new vault; `created` is in milliseconds since 1970 UTC.
    pub fn create(
        vault: VaultId,
        created: i64,
        root: &RootKey,
        passphrase: NewPassphrase<'_>,
        recovery: NewRecovery<'_>,
    ) -> Self {
        let header = header(vault, created, 0);
        Self {
            vault,
            created,
            epoch: 0,
            passphrase: PassphraseSlot::seal(&header, 0, root, passphrase),
            recovery: seal_recovery(&header, 0, root, recovery),
            others: Vec::new(),
        }
    }

    /// The vault.
    pub fn vault(&self) -> VaultId {
        self.vault
    }

    /// When the vault was made, in milliseconds since 1970 UTC; for people, and proven only once the marker is unlocked.
    pub fn created(&self) -> i64 {
        self.created
    }

    /// The vault's newest epoch.
    pub fn epoch(&self) -> Epoch {
        self.epoch
    }

    /// What one attempt with a passphrase costs.
    pub fn cost(&self) -> Argon2Cost {
        self.passphrase.cost
    }

    /// Opens the vault's keys with its passphrase; runs Argon2 once.
    pub fn unlock_with_passphrase(&self, passphrase: &[u8]) -> Result<KeyRing, UnlockError> {
        let slot = &self.passphrase;
        let key = slot_key(passphrase, slot.cost, &slot.salt);
        let associated = slot.associated(&self.header());
        let plain = open_with(&key, &associated, &slot.sealed).map_err(|_| UnlockError::WrongPassphrase)?;
        self.ring(Zeroizing::new(plain))
    }

    /// Opens the vault's keys with its recovery key.
    pub fn unlock_with_recovery(&self, key: &RecoveryKey) -> Result<KeyRing, UnlockError> {
        let plain = open_with(&recovery_slot_key(key), &recovery_associated(&self.header()), &self.recovery)
            .map_err(|_| UnlockError::WrongRecoveryKey)?;
        self.ring(Zeroizing::new(plain))
    }

    /// Lets another passphrase open the vault from now on, and the former one no more.
    ///
    /// Who has kept the old marker, as the intermediary may, can still open that with the former passphrase.
    pub fn replace_passphrase(&mut self, ring: &KeyRing, passphrase: NewPassphrase<'_>) -> Result<(), OtherKeys> {
        let root = self.current_root(ring)?;
        self.passphrase = PassphraseSlot::seal(&self.header(), self.epoch, root, passphrase);
        Ok(())
    }

    /// Lets another recovery key open the vault from now on, and the former one no more.
    pub fn replace_recovery(&mut self, ring: &KeyRing, recovery: NewRecovery<'_>) -> Result<(), OtherKeys> {
        let root = self.current_root(ring)?;
        self.recovery = seal_recovery(&self.header(), self.epoch, root, recovery);
        Ok(())
    }

    /// Goes over to the epoch and the key with which `ring` seals; `nonce` seals all its other keys under that one.
    ///
    /// Both slots are sealed anew, since a former member must not open what comes now: it may know the passphrase, and
    /// a recovery key that is not at hand cannot be kept.
    pub fn begin_epoch(
        &mut self,
        ring: &KeyRing,
        nonce: Nonce,
        passphrase: NewPassphrase<'_>,
        recovery: NewRecovery<'_>,
    ) -> Result<(), OtherKeys> {
        if ring.vault() != self.vault || ring.current() < self.epoch || ring.roots().count() > MAX_KEYS {
            return Err(OtherKeys);
        }
        self.epoch = ring.current();
        let (header, root) = (self.header(), ring.current_root());
        self.passphrase = PassphraseSlot::seal(&header, self.epoch, root, passphrase);
        self.recovery = seal_recovery(&header, self.epoch, root, recovery);
        self.others = self.seal_others(ring.roots(), root, nonce);
        Ok(())
    }

    /// Adds what `ring` holds and this does not give, for whoever opens it; says whether there was anything.
    ///
    /// Only of epochs up to this marker's: a later key must not be had from a key that was given up for it.
    pub fn add_keys(&mut self, ring: &KeyRing, nonce: Nonce) -> Result<bool, OtherKeys> {
        let (root, mut given) = self.given(ring).ok_or(OtherKeys)?;
        let before = given.len();
        for (epoch, key) in ring.roots().filter(|(epoch, _)| *epoch <= self.epoch) {
            if *key != root && !given.iter().any(|(_, known)| known == key) {
                given.push((epoch, key.clone()));
            }
        }
        if given.len() == before || given.len() >= MAX_KEYS {
            return Ok(false);
        }
        self.others = self.seal_others(given.iter().map(|(epoch, key)| (*epoch, key)), &root, nonce);
        Ok(true)
    }

    /// The keys that this gives to whoever holds the one under which it is sealed; none where `ring` does not.
    pub fn keys_for(&self, ring: &KeyRing) -> Option<Vec<(Epoch, RootKey)>> {
        let (root, mut given) = self.given(ring)?;
        given.push((self.epoch, root));
        Some(given)
    }

    /// What names the key under which this is sealed, where `ring` holds it.
    pub fn sealed_under(&self, ring: &KeyRing) -> Option<KeyId> {
        self.given(ring).map(|(root, _)| root.id())
    }

    /// What tells this from the marker that it replaced or that replaces it: passphrase and recovery key, not the other keys.
    pub fn slots_id(&self) -> [u8; 32] {
        let mut slots = Writer::new();
        slots.raw(&self.header()).raw(&self.passphrase.salt).raw(&self.passphrase.sealed).raw(&self.recovery);
        blake3::derive_key(SLOTS_CONTEXT, &slots.finish())
    }

    /// How this stands to the keys that a member holds. That a marker of the first epoch is sound cannot be told.
    pub fn compare(&self, ring: &KeyRing) -> MarkerStanding {
        if self.epoch < ring.current() {
            return MarkerStanding::Older;
        }
        match self.given(ring) {
            Some((root, given)) => {
                let is_given = |key: &RootKey| *key == root || given.iter().any(|(_, other)| other == key);
                let gives_more = given.iter().any(|(epoch, key)| !ring.holds(*epoch, &key.id()));
                let lacks = ring.roots().any(|(epoch, key)| epoch <= self.epoch && !is_given(key));
                match (gives_more, lacks) {
                    (true, _) => MarkerStanding::Gives,
                    (false, true) => MarkerStanding::Lacks,
                    (false, false) => MarkerStanding::Same,
                }
            }
            None => MarkerStanding::Unknown,
        }
    }

    /// The object's bytes.
    pub fn encode(&self) -> Vec<u8> {
        let mut out = Writer::new();
        let slot = &self.passphrase;
        out.raw(&self.header());
        slot.cost.encode(&mut out);
        out.raw(&slot.salt).raw(&slot.sealed).raw(&self.recovery).raw(&self.others);
        let mut bytes = out.finish();
        let hash = blake3::derive_key(HASH_CONTEXT, &bytes);
        bytes.extend_from_slice(&hash);
        bytes
    }

    /// Reads what [`encode`](Self::encode) wrote.
    pub fn decode(bytes: &[u8]) -> Result<Self, MarkerError> {
        if bytes.len() > MAX_MARKER_BYTES {
            return Err(MarkerError::TooLarge);
        }
        let mut start = Reader::new(bytes);
        if start.array::<4>().ok() != Some(MAGIC) {
            return Err(MarkerError::NotAMarker);
        }
        match start.array().map(u16::from_le_bytes) {
            Ok(VERSION) => {}
            Ok(0) | Err(_) => return Err(MarkerError::NotAMarker),
            Ok(version) => return Err(MarkerError::NewerFormat { version }),
        }
        let signed = bytes.len().checked_sub(32).ok_or(MarkerError::Damaged)?;
        if blake3::derive_key(HASH_CONTEXT, &bytes[..signed]) != bytes[signed..] {
            return Err(MarkerError::Damaged);
        }
        Self::decode_fields(Reader::new(&bytes[6..signed]))
    }

    fn decode_fields(mut input: Reader<'_>) -> Result<Self, MarkerError> {
        let vault = VaultId(input.array()?);
        let created = i64::from_le_bytes(input.array()?);
        let epoch = Epoch::from_le_bytes(input.array()?);
        let cost = Argon2Cost::decode(&mut input)?;
        let salt = input.array()?;
        let passphrase = PassphraseSlot { cost, salt, sealed: input.raw(SLOT_BYTES)?.to_vec() };
        let recovery = input.raw(SLOT_BYTES)?.to_vec();
        let others = input.raw(input.remaining())?.to_vec();
        let keys = others.len().checked_sub(BOX_OVERHEAD).map_or(0, |keys| keys / KEY_BYTES);
        // A vault that is beyond its first epoch has that one's key besides, and whole keys are sealed.
        let is_sound = others.is_empty() || (keys > 0 && others.len() == BOX_OVERHEAD + keys * KEY_BYTES);
        if !is_sound || (epoch > 0 && others.is_empty()) {
            return Err(MarkerError::Malformed { source: WireError::Invalid { what: "other keys" } });
        }
        Ok(Self { vault, created, epoch, passphrase, recovery, others })
    }

    fn header(&self) -> [u8; HEADER_BYTES] {
        header(self.vault, self.created, self.epoch)
    }

    /// All keys, from what a slot held.
    fn ring(&self, plain: Zeroizing<Vec<u8>>) -> Result<KeyRing, UnlockError> {
        let mut input = Reader::new(&plain);
        let epoch = input.array().map(Epoch::from_le_bytes).map_err(|_| UnlockError::Damaged)?;
        let newest = RootKey(input.array().map_err(|_| UnlockError::Damaged)?);
        if epoch != self.epoch || input.finish().is_err() {
            return Err(UnlockError::Damaged);
        }
        let others = self.open_others(&newest).ok_or(UnlockError::Damaged)?;
        let mut keys = others.into_iter().chain([(epoch, newest.clone())]).peekable();
        let first = keys.next_if(|(epoch, _)| *epoch == 0).ok_or(UnlockError::Damaged)?;
        let mut ring = KeyRing::new(self.vault, first.1);
        for (epoch, root) in keys {
            ring.add_epoch(epoch, root);
        }
        match ring.seal_under(epoch, &newest.id()) {
            true => Ok(ring),
            false => Err(UnlockError::Damaged),
        }
    }

    /// The key under which this is sealed, which must be one of the ring's, and all others that it gives.
    fn given(&self, ring: &KeyRing) -> Option<(RootKey, Vec<(Epoch, RootKey)>)> {
        if ring.vault() != self.vault {
            return None;
        }
        let mut candidates = ring.roots().filter(|(epoch, _)| *epoch == self.epoch);
        candidates.find_map(|(_, root)| Some((root.clone(), self.open_others(root)?)))
    }

    /// The other keys, in order of their epochs.
    fn open_others(&self, root: &RootKey) -> Option<Vec<(Epoch, RootKey)>> {
        if self.others.is_empty() {
            return Some(Vec::new());
        }
        let sealing = sealing_ring(self.vault, root);
        let plain = sealing.open(Purpose::RootKey, 0, &self.header(), &self.others).map(Zeroizing::new).ok()?;
        let mut input = Reader::new(&plain);
        let mut keys = Vec::new();
        while input.remaining() > 0 {
            let epoch = input.array().map(Epoch::from_le_bytes).ok()?;
            keys.push((epoch, RootKey(input.array().ok()?)));
        }
        let sorted = keys.windows(2).all(|pair| pair[0].0 <= pair[1].0);
        sorted.then_some(keys)
    }

    fn seal_others<'a>(
        &self,
        keys: impl Iterator<Item = (Epoch, &'a RootKey)>,
        root: &RootKey,
        nonce: Nonce,
    ) -> Vec<u8> {
        let mut others: Vec<_> = keys.filter(|(_, key)| *key != root).collect();
        if others.is_empty() {
            return Vec::new();
        }
        others.sort_by_key(|(epoch, _)| *epoch);
        let mut plain = Zeroizing::new(Vec::with_capacity(others.len() * KEY_BYTES));
        for (epoch, key) in others {
            plain.extend_from_slice(&epoch.to_le_bytes());
            plain.extend_from_slice(&key.0);
        }
        sealing_ring(self.vault, root).seal(Purpose::RootKey, &self.header(), nonce, &plain)
    }

    /// The root key that the slots hold, which must be the one with which `ring` seals.
    fn current_root<'a>(&self, ring: &'a KeyRing) -> Result<&'a RootKey, OtherKeys> {
        let seals = ring.vault() == self.vault && ring.current() == self.epoch;
        // Of the first epoch there is one key, and nothing else to know it by.
        let is_the_key = seals && (self.others.is_empty() || self.open_others(ring.current_root()).is_some());
        is_the_key.then(|| ring.current_root()).ok_or(OtherKeys)
    }
}

#[derive(Clone, PartialEq, Eq, Debug)]
struct PassphraseSlot {
    cost: Argon2Cost,
    salt: [u8; 16],
    sealed: Vec<u8>,
}

impl PassphraseSlot {
    fn seal(header: &[u8; HEADER_BYTES], epoch: Epoch, root: &RootKey, new: NewPassphrase<'_>) -> Self {
        let mut slot = Self { cost: new.cost, salt: new.salt, sealed: Vec::new() };
        let key = slot_key(new.passphrase, new.cost, &new.salt);
        slot.sealed = seal_with(&key, &slot.associated(header), new.nonce, &slot_plain(epoch, root)[..]);
        slot
    }

    fn associated(&self, header: &[u8; HEADER_BYTES]) -> Vec<u8> {
        let mut associated = Writer::new();
        associated.raw(header).raw(b"passphrase");
        self.cost.encode(&mut associated);
        associated.raw(&self.salt);
        associated.finish()
    }
}

fn seal_recovery(header: &[u8; HEADER_BYTES], epoch: Epoch, root: &RootKey, new: NewRecovery<'_>) -> Vec<u8> {
    let associated = recovery_associated(header);
    seal_with(&recovery_slot_key(new.key), &associated, new.nonce, &slot_plain(epoch, root)[..])
}

fn recovery_associated(header: &[u8; HEADER_BYTES]) -> Vec<u8> {
    [&header[..], b"recovery"].concat()
}

fn slot_plain(epoch: Epoch, root: &RootKey) -> Zeroizing<[u8; 36]> {
    let mut plain = Zeroizing::new([0; 36]);
    plain[..4].copy_from_slice(&epoch.to_le_bytes());
    plain[4..].copy_from_slice(&root.0);
    plain
}

fn slot_key(passphrase: &[u8], cost: Argon2Cost, salt: &[u8; 16]) -> Zeroizing<[u8; 32]> {
    let params = Params::new(cost.memory_kib, cost.passes, cost.lanes, Some(32)).expect("the cost is within limits");
    let mut derived = Zeroizing::new([0u8; 32]);
    Argon2::new(Algorithm::Argon2id, Version::V0x13, params)
        .hash_password_into(passphrase, salt, &mut derived[..])
        .expect("salt and output have lengths that Argon2 allows");
    Zeroizing::new(blake3::derive_key("packetboat 2026 key: passphrase slot", &derived[..]))
}

fn recovery_slot_key(key: &RecoveryKey) -> Zeroizing<[u8; 32]> {
    Zeroizing::new(blake3::derive_key("packetboat 2026 key: recovery slot", &key.0))
}

/// A ring of nothing but `root`, to seal the others under: a whole ring begins with the first epoch's key.
fn sealing_ring(vault: VaultId, root: &RootKey) -> KeyRing {
    KeyRing::new(vault, root.clone())
}

fn header(vault: VaultId, created: i64, epoch: Epoch) -> [u8; HEADER_BYTES] {
    let mut header = [0; HEADER_BYTES];
    header[..4].copy_from_slice(&MAGIC);
    header[4..6].copy_from_slice(&VERSION.to_le_bytes());
    header[6..22].copy_from_slice(&vault.0);
    header[22..30].copy_from_slice(&created.to_le_bytes());
    header[30..].copy_from_slice(&epoch.to_le_bytes());
    header
}

/// What one derivation of a key from a passphrase costs (Argon2id, RFC 9106).
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Argon2Cost {
    memory_kib: u32,
    passes: u32,
    lanes: u32,
}

impl Argon2Cost {
    /// What new vaults use: 64 MiB, three passes.
    pub const DEFAULT: Self = Self { memory_kib: 64 * 1024, passes: 3, lanes: 1 };

    /// The least that any marker may ask for: 19 MiB, two passes. For tests and very small devices.
    pub const MINIMUM: Self = Self { memory_kib: 19 * 1024, passes: 2, lanes: 1 };

    /// Checks a cost: 19 MiB to 1 GiB of memory, 2 to 16 passes, 1 to 8 lanes.
    pub fn new(memory_kib: u32, passes: u32, lanes: u32) -> Result<Self, CostError> {
        let Self { memory_kib: least_memory, passes: least_passes, .. } = Self::MINIMUM;
        if memory_kib < least_memory || passes < least_passes || lanes == 0 {
            return Err(CostError::TooWeak { memory_kib, passes });
        }
        if memory_kib > MAX_MEMORY_KIB || passes > MAX_PASSES || lanes > MAX_LANES {
            return Err(CostError::TooCostly { memory_kib, passes, lanes });
        }
        Ok(Self { memory_kib, passes, lanes })
    }

    /// Memory in KiB.
    pub fn memory_kib(self) -> u32 {
        self.memory_kib
    }

    fn encode(self, out: &mut Writer) {
        out.varint(self.memory_kib.into()).varint(self.passes.into()).varint(self.lanes.into());
    }

    fn decode(input: &mut Reader<'_>) -> Result<Self, MarkerError> {
        Ok(Self::new(input.varint32()?, input.varint32()?, input.varint32()?)?)
    }
}

/// Why a cost is refused.
#[derive(Debug, Clone, PartialEq, Eq, Error)]
pub enum CostError {
    /// A passphrase would be guessed too easily.
    #[error("{memory_kib} KiB and {passes} passes are too weak to protect a passphrase")]
    TooWeak {
        /// Memory in KiB.
        memory_kib: u32,
        /// Passes.
        passes: u32,
    },
    /// Unlocking would exhaust this device.
    #[error("{memory_kib} KiB, {passes} passes and {lanes} lanes are more than any vault needs")]
    TooCostly {
        /// Memory in KiB.
        memory_kib: u32,
        /// Passes.
        passes: u32,
        /// Lanes.
        lanes: u32,
    },
}

/// Why bytes are not a marker.
#[derive(Debug, Clone, PartialEq, Eq, Error)]
pub enum MarkerError {
    /// Something else lies under the marker's name.
    #[error("the data is not a vault's marker")]
    NotAMarker,
    /// Made by a newer Packetboat.
    #[error("the vault has format {version}, which this version of packetboat cannot read")]
    NewerFormat {
        /// Its format version.
        version: u16,
    },
    /// Over the size limit.
    #[error("the marker is larger than {MAX_MARKER_BYTES} bytes")]
    TooLarge,
    /// Changed or cut since it was written.
    #[error("the marker is damaged")]
    Damaged,
    /// Asks for a derivation that no member would have chosen.
    #[error("the marker asks for an unsafe passphrase derivation")]
    Cost(#[from] CostError),
    /// Whole, but not in the format.
    #[error("the marker is malformed")]
    Malformed {
        /// What is wrong.
        #[from]
        source: WireError,
    },
}

/// Why a marker gave no keys.
#[derive(Debug, Clone, PartialEq, Eq, Error)]
pub enum UnlockError {
    /// Not the vault's passphrase, or the intermediary changed the slot.
    #[error("the passphrase does not open this vault")]
    WrongPassphrase,
    /// Not the vault's recovery key, or the intermediary changed the slot.
    #[error("the recovery key does not open this vault")]
    WrongRecoveryKey,
    /// The slot opens, but what it holds does not fit the marker.
    #[error("the marker's keys are damaged")]
    Damaged,
}

/// The keys passed in are not those of this marker's vault and epoch.
#[derive(Debug, Clone, PartialEq, Eq, Error)]
#[error("the marker belongs to other keys than these")]
pub struct OtherKeys;

const MAGIC: [u8; 4] = *b"PBMK";
const VERSION: u16 = 1;
const HEADER_BYTES: usize = 34;
const SLOT_BYTES: usize = BOX_OVERHEAD + 36;
const KEY_BYTES: usize = 36;
const SLOTS_CONTEXT: &str = "packetboat 2026 marker slots";
const HASH_CONTEXT: &str = "packetboat 2026 marker";
const MAX_MEMORY_KIB: u32 = 1024 * 1024;
const MAX_PASSES: u32 = 16;
const MAX_LANES: u32 = 8;

/// The marker's name at an intermediary.
pub const MARKER_NAME: &str = "packetboat";
/// Greatest size of a marker in bytes.
pub const MAX_MARKER_BYTES: usize = 64 * 1024;
/// As many keys as a vault may have: a marker has room for them all.
pub const MAX_KEYS: usize = 1000;

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    const VAULT: VaultId = VaultId([7; 16]);

    fn passphrase(text: &str) -> NewPassphrase<'_> {
        let cost = Argon2Cost::MINIMUM;
        NewPassphrase { passphrase: text.as_bytes(), cost, salt: [3; 16], nonce: Nonce([4; 24]) }
    }

    fn recovery(key: &RecoveryKey) -> NewRecovery<'_> {
        NewRecovery { key, nonce: Nonce([5; 24]) }
    }

    fn marker() -> Marker {
        Marker::create(VAULT, 12345, &RootKey([1; 32]), passphrase("correct"), recovery(&RecoveryKey([9; 32])))
    }

    /// Writes the closing hash anew, as an intermediary that tampers would.
    fn rehashed(mut bytes: Vec<u8>) -> Vec<u8> {
        bytes.truncate(bytes.len() - 32);
        let hash = blake3::derive_key(HASH_CONTEXT, &bytes);
        bytes.extend_from_slice(&hash);
        bytes
    }

    #[test]
    fn the_passphrase_and_the_recovery_key_open_the_same_keys() {
        let marker = Marker::decode(&marker().encode()).unwrap();
        assert_eq!((marker.vault(), marker.created(), marker.epoch()), (VAULT, 12345, 0));
        let ring = marker.unlock_with_passphrase(b"correct").unwrap();
        assert_eq!(ring.root(0), Some(&RootKey([1; 32])));
        let ring = marker.unlock_with_recovery(&RecoveryKey([9; 32])).unwrap();
        assert_eq!((ring.vault(), ring.root(0)), (VAULT, Some(&RootKey([1; 32]))));
    }

    #[test]
    fn the_format_stays_as_it_was() {
        assert_eq!(
            blake3::hash(&marker().encode()).to_hex().as_str(),
            "65c2de08acb5376c8125377e3761691aa9376fc53b1b339eb28e7576f7cc167d"
        );
    }

    #[test]
    fn a_wrong_passphrase_is_told_from_a_damaged_marker() {
        let marker = marker();
        assert_eq!(marker.unlock_with_passphrase(b"wrong").unwrap_err(), UnlockError::WrongPassphrase);
        let wrong = RecoveryKey([8; 32]);
        assert_eq!(marker.unlock_with_recovery(&wrong).unwrap_err(), UnlockError::WrongRecoveryKey);
        let bytes = marker.encode();
        for at in 6..bytes.len() {
            let mut flipped = bytes.clone();
            flipped[at] ^= 1;
            assert_eq!(Marker::decode(&flipped), Err(MarkerError::Damaged), "byte {at}");
        }
        for len in 6..bytes.len() {
            assert_eq!(Marker::decode(&bytes[..len]), Err(MarkerError::Damaged), "cut at {len}");
        }
    }

    #[test]
    fn a_tampered_header_salt_or_slot_opens_nothing() {
        let marker = marker();
        let bytes = marker.encode();
        let salt_at = HEADER_BYTES + 3 + 1 + 1;
        assert_eq!(bytes[salt_at..salt_at + 16], [3; 16]);
        for at in [6, 22, salt_at, salt_at + 16, salt_at + 16 + SLOT_BYTES - 1] {
            let mut tampered = bytes.clone();
            tampered[at] ^= 1;
            let tampered = Marker::decode(&rehashed(tampered)).unwrap();
            let refused = tampered.unlock_with_passphrase(b"correct").unwrap_err();
            assert_eq!(refused, UnlockError::WrongPassphrase, "byte {at}");
        }
        let slot = salt_at + 16 + SLOT_BYTES;
        for at in (6..30).chain(slot..slot + SLOT_BYTES) {
            let mut tampered = bytes.clone();
            tampered[at] ^= 1;
            let tampered = Marker::decode(&rehashed(tampered)).unwrap();
            let refused = tampered.unlock_with_recovery(&RecoveryKey([9; 32])).unwrap_err();
            assert_eq!(refused, UnlockError::WrongRecoveryKey, "byte {at}");
        }
    }

    #[test]
    fn tampered_parameters_open_nothing() {
        let mut marker = marker();
        marker.passphrase.cost = Argon2Cost::new(19 * 1024, 3, 1).unwrap();
        let marker = Marker::decode(&marker.encode()).unwrap();
        assert_eq!(marker.unlock_with_passphrase(b"correct").unwrap_err(), UnlockError::WrongPassphrase);
    }

    #[test]
    fn storage_can_neither_weaken_nor_exhaust() {
        let weak = [(8, 1, 1), (19 * 1024 - 1, 2, 1), (19 * 1024, 1, 1), (19 * 1024, 2, 0)];
        let costly = [(MAX_MEMORY_KIB + 1, 2, 1), (u32::MAX, 2, 1), (19 * 1024, 17, 1), (19 * 1024, 2, 9)];
        for (memory_kib, passes, lanes) in weak.into_iter().chain(costly) {
            let mut marker = marker_without_argon2();
            marker.passphrase.cost = Argon2Cost { memory_kib, passes, lanes };
            let refused = Marker::decode(&marker.encode()).unwrap_err();
            match weak.contains(&(memory_kib, passes, lanes)) {
                true => assert!(matches!(refused, MarkerError::Cost(CostError::TooWeak { .. })), "{refused:?}"),
                false => assert!(matches!(refused, MarkerError::Cost(CostError::TooCostly { .. })), "{refused:?}"),
            }
        }
    }

    #[test]
    fn a_newer_format_is_not_taken_for_damage() {
        let mut bytes = marker_without_argon2().encode();
        bytes[4] = 2;
        assert_eq!(Marker::decode(&bytes), Err(MarkerError::NewerFormat { version: 2 }));
        assert_eq!(Marker::decode(b"hello"), Err(MarkerError::NotAMarker));
        assert_eq!(Marker::decode(&vec![0; MAX_MARKER_BYTES + 1]), Err(MarkerError::TooLarge));
    }

    #[test]
    fn a_replaced_passphrase_opens_and_the_former_does_not() {
        let mut marker = marker();
        let ring = marker.unlock_with_recovery(&RecoveryKey([9; 32])).unwrap();
        marker.replace_passphrase(&ring, passphrase("other")).unwrap();
        marker.replace_recovery(&ring, recovery(&RecoveryKey([8; 32]))).unwrap();
        assert!(marker.unlock_with_passphrase(b"other").is_ok());
        assert!(marker.unlock_with_passphrase(b"correct").is_err());
        assert!(marker.unlock_with_recovery(&RecoveryKey([8; 32])).is_ok());
        assert!(marker.unlock_with_recovery(&RecoveryKey([9; 32])).is_err());
        let stranger = KeyRing::new(VaultId([8; 16]), RootKey([1; 32]));
        assert_eq!(marker.replace_passphrase(&stranger, passphrase("x")), Err(OtherKeys));
    }

    fn begin(marker: &mut Marker, ring: &KeyRing, key: &RecoveryKey) -> Result<(), OtherKeys> {
        marker.begin_epoch(ring, Nonce([6; 24]), passphrase("b"), recovery(key))
    }

    #[test]
    fn the_newest_epoch_opens_all_earlier_ones() {
        let mut marker = marker_without_argon2();
        let mut ring = KeyRing::new(VAULT, RootKey([1; 32]));
        let key = RecoveryKey([9; 32]);
        for epoch in 1..=3u8 {
            ring.add_epoch(epoch.into(), RootKey([epoch + 1; 32]));
            begin(&mut marker, &ring, &key).unwrap();
        }
        let marker = Marker::decode(&marker.encode()).unwrap();
        assert_eq!(marker.compare(&ring), MarkerStanding::Same);
        let opened = marker.unlock_with_recovery(&key).unwrap();
        assert_eq!(opened.current(), 3);
        assert!(opened.roots().eq(ring.roots()));
        assert_eq!(opened.chunk_id(b"x"), ring.chunk_id(b"x"));
        let mut damaged = marker.clone();
        damaged.others.truncate(damaged.others.len() - KEY_BYTES);
        assert_eq!(damaged.unlock_with_recovery(&key).unwrap_err(), UnlockError::Damaged);
        damaged.others.clear();
        assert_eq!(damaged.unlock_with_recovery(&key).unwrap_err(), UnlockError::Damaged);
        assert!(matches!(Marker::decode(&damaged.encode()), Err(MarkerError::Malformed { .. })));
    }

    #[test]
    fn a_member_tells_an_older_marker_and_one_of_a_stranger_from_its_own() {
        let old = marker_without_argon2();
        let key = RecoveryKey([9; 32]);
        let mut ring = KeyRing::new(VAULT, RootKey([1; 32]));
        assert_eq!(old.compare(&ring), MarkerStanding::Same);
        ring.add_epoch(1, RootKey([2; 32]));
        let mut marker = old.clone();
        begin(&mut marker, &ring, &key).unwrap();
        assert_eq!(old.compare(&ring), MarkerStanding::Older);
        // A former member has the first key, and seals a marker of a new epoch of its own.
        let mut stranger = KeyRing::new(VAULT, RootKey([1; 32]));
        stranger.add_epoch(1, RootKey([7; 32]));
        assert_eq!(marker.compare(&stranger), MarkerStanding::Unknown);
        let mut forged = old;
        begin(&mut forged, &stranger, &key).unwrap();
        assert_eq!(forged.compare(&ring), MarkerStanding::Unknown);
        assert_eq!(marker.replace_passphrase(&stranger, passphrase("x")), Err(OtherKeys));
        assert_eq!(begin(&mut marker, &KeyRing::new(VAULT, RootKey([1; 32])), &key), Err(OtherKeys), "never back");
    }

    #[test]
    fn who_holds_the_key_adds_others_without_the_passphrase() {
        let key = RecoveryKey([9; 32]);
        let mut ring = KeyRing::new(VAULT, RootKey([1; 32]));
        ring.add_epoch(1, RootKey([2; 32]));
        let mut marker = marker_without_argon2();
        begin(&mut marker, &ring, &key).unwrap();
        // Another device began the same epoch, and a later one came since.
        let mut fuller = ring.clone();
        fuller.add_epoch(1, RootKey([3; 32]));
        assert_eq!(marker.compare(&fuller), MarkerStanding::Lacks);
        fuller.add_epoch(2, RootKey([4; 32]));
        assert_eq!(marker.add_keys(&fuller, Nonce([8; 24])), Ok(true));
        assert_eq!(marker.add_keys(&fuller, Nonce([8; 24])), Ok(false));
        assert_eq!(marker.compare(&ring), MarkerStanding::Gives);
        let opened = Marker::decode(&marker.encode()).unwrap().unlock_with_recovery(&key).unwrap();
        assert!(opened.holds(1, &RootKey([3; 32]).id()));
        assert_eq!(opened.root(1), Some(&RootKey([2; 32])), "the slot's own key seals");
        assert_eq!(opened.greatest(), 1, "a later key is not had from one that was given up for it");
        assert_eq!(marker.keys_for(&ring).unwrap().len(), 3);
        let stranger = KeyRing::new(VAULT, RootKey([5; 32]));
        assert_eq!(marker.add_keys(&stranger, Nonce([8; 24])), Err(OtherKeys));
    }

    #[test]
    fn the_most_keys_fit_the_size_limit() {
        const LARGEST: usize = HEADER_BYTES + 15 + 16 + 2 * SLOT_BYTES + BOX_OVERHEAD + MAX_KEYS * KEY_BYTES + 32;
        const { assert!(LARGEST <= MAX_MARKER_BYTES) };
    }

    proptest! {
        #[test]
        fn arbitrary_bytes_never_panic(mut bytes in proptest::collection::vec(any::<u8>(), 0..600), hashed: bool) {
            if hashed && bytes.len() > 6 {
                bytes[..4].copy_from_slice(&MAGIC);
                bytes[4..6].copy_from_slice(&VERSION.to_le_bytes());
                bytes.extend_from_slice(&[0; 32]);
                bytes = rehashed(bytes);
            }
            if let Ok(marker) = Marker::decode(&bytes) {
                prop_assert_eq!(marker.encode(), bytes);
            }
        }
    }

    fn marker_without_argon2() -> Marker {
        let header = header(VAULT, 12345, 0);
        let passphrase = PassphraseSlot { cost: Argon2Cost::MINIMUM, salt: [3; 16], sealed: vec![0; SLOT_BYTES] };
        let recovery = seal_recovery(&header, 0, &RootKey([1; 32]), recovery(&RecoveryKey([9; 32])));
        Marker { vault: VAULT, created: 12345, epoch: 0, passphrase, recovery, others: Vec::new() }
    }
}
