//! Keys and sealing: what keeps a vault's content from its intermediary.
//!
//! A vault has a root key per epoch; every other key is derived from it for one purpose.
//! Ids of chunks come from the first epoch's key for ever, so that a new epoch does not store everything again.
//! Two devices that begin an epoch without knowing of each other make two keys of one number: a ring holds both, opens
//! with either, and seals with the one that all devices choose alike (members.rs).
//!
//! ```text
//! sealed box     nonce 24 | commitment 32 | ciphertext | tag 16
//! sealed chunk   nonce 24 | ciphertext | tag 16
//! ```
//!
//! XChaCha20-Poly1305 does not commit to its key, so a box carries a BLAKE3 commitment to key, nonce and associated data.
//! A chunk needs none: its id is a keyed hash of its plaintext, and [`KeyRing::open_chunk`] recomputes it.
//! The associated data binds vault, epoch, purpose and what the caller adds, so nothing can stand in another's place.
//! This module makes no randomness; nonces and keys are passed in.

use std::collections::BTreeMap;
use std::fmt;

use chacha20poly1305::aead::{Aead, AeadInPlace, KeyInit, Payload};
use chacha20poly1305::{XChaCha20Poly1305, XNonce};
use ed25519_dalek::{Signature, Signer, SigningKey, VerifyingKey};
use thiserror::Error;
use zeroize::Zeroize;

use crate::ids::{ChunkId, ContentId, DeviceId, Epoch, VaultId};

/// A vault's root key of one epoch.
#[derive(Clone, PartialEq, Eq, zeroize::Zeroize, zeroize::ZeroizeOnDrop)]
pub struct RootKey(pub [u8; 32]);

impl RootKey {
    /// What names this key where it must not be told: whoever is given a key can tell that it is the one named.
    pub fn id(&self) -> KeyId {
        KeyId(blake3::derive_key("packetboat 2026 root key id", &self.0))
    }
}

impl fmt::Debug for RootKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("RootKey(..)")
    }
}

/// Names a root key without telling it.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug)]
pub struct KeyId(pub [u8; 32]);

/// The random part of a sealed box; used once.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Nonce(pub [u8; 24]);

/// What a sealed thing is; no two purposes share a key.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Purpose {
    /// The body of a change packet.
    Packet,
    /// A device's tip.
    Tip,
    /// The root of a checkpoint.
    Checkpoint,
    /// A content chunk.
    Chunk,
    /// The index at the end of a pack.
    PackIndex,
    /// An earlier epoch's root key, kept under a later one.
    RootKey,
}

impl Purpose {
    fn context(self) -> &'static str {
        match self {
            Purpose::Packet => "packetboat 2026 key: packet",
            Purpose::Tip => "packetboat 2026 key: tip",
            Purpose::Checkpoint => "packetboat 2026 key: checkpoint",
            Purpose::Chunk => "packetboat 2026 key: chunk",
            Purpose::PackIndex => "packetboat 2026 key: pack index",
            Purpose::RootKey => "packetboat 2026 key: earlier root key",
        }
    }
}

/// All keys of a vault that a device holds.
#[derive(Clone)]
pub struct KeyRing {
    vault: VaultId,
    /// Never empty, and no list in it is: of each epoch the key that seals, if one does, stands first.
    epochs: BTreeMap<Epoch, Vec<RootKey>>,
    /// Chunk ciphers likewise: chunks are many and small, and deriving the key for each would cost more than sealing it.
    chunk_ciphers: BTreeMap<Epoch, Vec<XChaCha20Poly1305>>,
    id_key: [u8; 32],
    current: Epoch,
}

impl KeyRing {
    /// The ring of a vault with its first epoch's key.
    pub fn new(vault: VaultId, first: RootKey) -> Self {
        let id_key = blake3::derive_key("packetboat 2026 key: chunk ids", &first.0);
        let (epochs, chunk_ciphers) = (BTreeMap::new(), BTreeMap::new());
        let mut ring = Self { vault, epochs, chunk_ciphers, id_key, current: 0 };
        ring.add_epoch(0, first);
        ring
    }

    /// Adds a key to open with, beside others of its epoch; one of a later epoch than all seals from now on.
    pub fn add_epoch(&mut self, epoch: Epoch, root: RootKey) {
        let roots = self.epochs.entry(epoch).or_default();
        if roots.contains(&root) {
            return;
        }
        let mut chunk_key = blake3::derive_key(Purpose::Chunk.context(), &root.0);
        self.chunk_ciphers.entry(epoch).or_default().push(XChaCha20Poly1305::new((&chunk_key).into()));
        chunk_key.zeroize();
        roots.push(root);
        self.current = self.current.max(epoch);
    }

    /// Seals with this key from now on; says whether it is held.
    pub fn seal_under(&mut self, epoch: Epoch, id: &KeyId) -> bool {
        let (Some(roots), Some(ciphers)) = (self.epochs.get_mut(&epoch), self.chunk_ciphers.get_mut(&epoch)) else {
            return false;
        };
        let Some(at) = roots.iter().position(|root| root.id() == *id) else { return false };
        roots[..=at].rotate_right(1);
        ciphers[..=at].rotate_right(1);
        self.current = epoch;
        true
    }

    /// The vault these keys are of.
    pub fn vault(&self) -> VaultId {
        self.vault
    }

    /// The epoch with which things are sealed.
    pub fn current(&self) -> Epoch {
        self.current
    }

    /// The greatest epoch of which a key is held, whether or not it seals.
    pub fn greatest(&self) -> Epoch {
        *self.epochs.last_key_value().expect("a ring holds at least its first epoch").0
    }

    /// The root key of an epoch; where there are several, the one that seals.
    pub fn root(&self, epoch: Epoch) -> Option<&RootKey> {
        self.epochs.get(&epoch).and_then(|roots| roots.first())
    }

    /// The root key that seals.
    pub fn current_root(&self) -> &RootKey {
        self.root(self.current).expect("the current epoch has a key")
    }

    /// Whether a key is held.
    pub fn holds(&self, epoch: Epoch, id: &KeyId) -> bool {
        self.epochs.get(&epoch).is_some_and(|roots| roots.iter().any(|root| root.id() == *id))
    }

    /// All root keys, in order of their epochs, those that seal first within one.
    pub fn roots(&self) -> impl Iterator<Item = (Epoch, &RootKey)> {
        self.epochs.iter().flat_map(|(epoch, roots)| roots.iter().map(|root| (*epoch, root)))
    }

    /// Seals `plain` under the current epoch's key for `purpose`, bound to `context`.
    pub fn seal(&self, purpose: Purpose, context: &[u8], nonce: Nonce, plain: &[u8]) -> Vec<u8> {
        let epoch = self.current();
        let key = box_key(purpose, self.current_root());
        seal_with(&key, &self.associated(purpose, epoch, context), nonce, plain)
    }

    /// Opens what [`seal`](Self::seal) made in `epoch` with the same purpose and context.
    pub fn open(&self, purpose: Purpose, epoch: Epoch, context: &[u8], sealed: &[u8]) -> Result<Vec<u8>, SealError> {
        let roots = self.epochs.get(&epoch).ok_or(SealError::UnknownEpoch { epoch })?;
        let associated = self.associated(purpose, epoch, context);
        let opened = roots.iter().find_map(|root| open_with(&box_key(purpose, root), &associated, sealed).ok());
        opened.ok_or(SealError::Forged)
    }

    /// Seals a chunk under the current epoch's key, bound to its id.
    pub fn seal_chunk(&self, id: &ChunkId, nonce: Nonce, stored: &[u8]) -> Vec<u8> {
        let mut sealed = Vec::with_capacity(stored.len() + CHUNK_OVERHEAD);
        sealed.resize(CHUNK_ROOM_BEFORE, 0);
        sealed.extend_from_slice(stored);
        self.seal_chunk_in_place(id, nonce, &mut sealed);
        sealed
    }

    /// Like [`seal_chunk`](Self::seal_chunk), of what stands in `buffer` behind [`CHUNK_ROOM_BEFORE`] bytes of any value.
    ///
    /// Large chunks are not copied for it, if the buffer has room for [`CHUNK_OVERHEAD`] bytes in all.
    ///
    /// # Panics
    /// Where the buffer is shorter than that room.
    pub fn seal_chunk_in_place(&self, id: &ChunkId, nonce: Nonce, buffer: &mut Vec<u8>) {
        let epoch = self.current();
        let associated = self.associated(Purpose::Chunk, epoch, &id.0);
        let (before, stored) = buffer.split_at_mut(CHUNK_ROOM_BEFORE);
        before.copy_from_slice(&nonce.0);
        let cipher = &self.chunk_ciphers[&epoch][0];
        let tag = cipher.encrypt_in_place_detached(XNonce::from_slice(&nonce.0), &associated, stored);
        buffer.extend_from_slice(&tag.expect("a chunk is far below the cipher's limit"));
    }

    /// Opens what [`seal_chunk`](Self::seal_chunk) made; the caller decompresses and then compares [`chunk_id`](Self::chunk_id).
    pub fn open_chunk(&self, id: &ChunkId, epoch: Epoch, sealed: &[u8]) -> Result<Vec<u8>, SealError> {
        let ciphers = self.chunk_ciphers.get(&epoch).ok_or(SealError::UnknownEpoch { epoch })?;
        let (nonce, ciphertext) = sealed.split_at_checked(24).ok_or(SealError::Forged)?;
        let associated = self.associated(Purpose::Chunk, epoch, &id.0);
        let open = |cipher: &XChaCha20Poly1305| {
            cipher.decrypt(XNonce::from_slice(nonce), Payload { msg: ciphertext, aad: &associated }).ok()
        };
        ciphers.iter().find_map(open).ok_or(SealError::Forged)
    }

    /// The id of a chunk with this plaintext.
    pub fn chunk_id(&self, plain: &[u8]) -> ChunkId {
        ChunkId(*blake3::keyed_hash(&self.id_key, plain).as_bytes())
    }

    /// The id of a content made of these chunks, in order.
    ///
    /// A content of one chunk has that chunk's id; the empty content has the id of the empty list.
    pub fn content_id<'a>(&self, chunks: impl ExactSizeIterator<Item = &'a ChunkId>) -> ContentId {
        let count = chunks.len();
        let mut hasher =
            blake3::Hasher::new_keyed(&blake3::derive_key("packetboat 2026 key: content ids", &self.id_key));
        for chunk in chunks {
            if count == 1 {
                return ContentId(chunk.0);
            }
            hasher.update(&chunk.0);
        }
        ContentId(*hasher.finalize().as_bytes())
    }

    /// The seed that keys the vault's chunk boundaries.
    pub fn chunker_seed(&self) -> u64 {
        let bytes = blake3::derive_key("packetboat 2026 key: chunk boundaries", &self.id_key);
        u64::from_le_bytes(bytes[..8].try_into().expect("eight bytes"))
    }

    fn associated(&self, purpose: Purpose, epoch: Epoch, context: &[u8]) -> Vec<u8> {
        let mut associated = Vec::with_capacity(21 + context.len());
        associated.extend_from_slice(&self.vault.0);
        associated.extend_from_slice(&epoch.to_le_bytes());
        associated.push(purpose as u8);
        associated.extend_from_slice(context);
        associated
    }
}

impl fmt::Debug for KeyRing {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "KeyRing({:?}, epochs 0..={})", self.vault, self.greatest())
    }
}

fn box_key(purpose: Purpose, root: &RootKey) -> [u8; 32] {
    blake3::derive_key(purpose.context(), &root.0)
}

/// Seals `plain` under a key made for this one purpose, with key commitment.
pub fn seal_with(key: &[u8; 32], associated: &[u8], nonce: Nonce, plain: &[u8]) -> Vec<u8> {
    let payload = Payload { msg: plain, aad: associated };
    let ciphertext = XChaCha20Poly1305::new(key.into()).encrypt(XNonce::from_slice(&nonce.0), payload);
    let mut sealed = Vec::with_capacity(BOX_OVERHEAD + plain.len());
    sealed.extend_from_slice(&nonce.0);
    sealed.extend_from_slice(&commitment(key, &nonce.0, associated));
    sealed.extend_from_slice(&ciphertext.expect("a box is far below the cipher's limit"));
    sealed
}

/// Opens what [`seal_with`] made with the same key and associated data.
pub fn open_with(key: &[u8; 32], associated: &[u8], sealed: &[u8]) -> Result<Vec<u8>, SealError> {
    let (nonce, rest) = sealed.split_at_checked(24).ok_or(SealError::Forged)?;
    let (committed, ciphertext) = rest.split_at_checked(32).ok_or(SealError::Forged)?;
    // `blake3::Hash` compares in constant time.
    let expected = blake3::Hash::from_bytes(commitment(key, nonce, associated));
    if expected != blake3::Hash::from_slice(committed).map_err(|_| SealError::Forged)? {
        return Err(SealError::Forged);
    }
    let payload = Payload { msg: ciphertext, aad: associated };
    XChaCha20Poly1305::new(key.into()).decrypt(XNonce::from_slice(nonce), payload).map_err(|_| SealError::Forged)
}

fn commitment(key: &[u8; 32], nonce: &[u8], associated: &[u8]) -> [u8; 32] {
    let commit_key = blake3::derive_key("packetboat 2026 key commitment", key);
    *blake3::Hasher::new_keyed(&commit_key).update(nonce).update(associated).finalize().as_bytes()
}

/// A device's signing key.
#[derive(Clone)]
pub struct DeviceKey(SigningKey);

impl DeviceKey {
    /// The key with this secret seed.
    pub fn from_seed(seed: &[u8; 32]) -> Self {
        Self(SigningKey::from_bytes(seed))
    }

    /// The secret seed, for the replica's own index.
    pub fn seed(&self) -> [u8; 32] {
        self.0.to_bytes()
    }

    /// The public half.
    pub fn public(&self) -> PublicKey {
        PublicKey(self.0.verifying_key().to_bytes())
    }

    /// The id of the device.
    pub fn device(&self) -> DeviceId {
        self.public().device()
    }

    /// The X25519 public key to which other devices seal a new epoch's key for this one.
    pub fn exchange_public(&self) -> [u8; 32] {
        x25519_dalek::PublicKey::from(&self.exchange_secret()).to_bytes()
    }

    pub(crate) fn exchange_secret(&self) -> x25519_dalek::StaticSecret {
        blake3::derive_key("packetboat 2026 key: device exchange", &self.seed()).into()
    }

    /// Signs a hash.
    pub fn sign(&self, hash: &[u8; 32]) -> [u8; 64] {
        self.0.sign(hash).to_bytes()
    }
}

impl fmt::Debug for DeviceKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "DeviceKey({:?})", self.device())
    }
}

/// A device's public key.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug)]
pub struct PublicKey(pub [u8; 32]);

impl PublicKey {
    /// The id of the device that has this key.
    pub fn device(&self) -> DeviceId {
        DeviceId(blake3::derive_key("packetboat 2026 device id", &self.0))
    }

    /// Checks a signature over a hash, strictly (no malleable or small-order forms).
    pub fn verify(&self, hash: &[u8; 32], signature: &[u8; 64]) -> Result<(), SealError> {
        let key = VerifyingKey::from_bytes(&self.0).map_err(|_| SealError::BadSignature)?;
        key.verify_strict(hash, &Signature::from_bytes(signature)).map_err(|_| SealError::BadSignature)
    }
}

/// Why something sealed or signed was refused.
#[derive(Debug, Clone, PartialEq, Eq, Error)]
pub enum SealError {
    /// Not made with this key for this purpose and place, or changed since.
    #[error("the data is damaged or was not made with this vault's key")]
    Forged,
    /// Made in an epoch whose key this device does not hold.
    #[error("the key of epoch {epoch} is not known here")]
    UnknownEpoch {
        /// The epoch asked for.
        epoch: Epoch,
    },
    /// The signature is not the device's.
    #[error("the signature does not fit the device's key")]
    BadSignature,
}

/// Bytes that a sealed box adds to its plaintext.
pub const BOX_OVERHEAD: usize = 24 + 32 + 16;

/// Bytes that a sealed chunk adds to what it stores.
pub const CHUNK_OVERHEAD: usize = 24 + 16;
/// What of it stands before the stored form: the nonce.
pub const CHUNK_ROOM_BEFORE: usize = 24;

#[cfg(test)]
mod tests {
    use super::*;

    fn ring() -> KeyRing {
        KeyRing::new(VaultId([7; 16]), RootKey([1; 32]))
    }

    #[test]
    fn a_box_opens_only_in_its_own_place() {
        let ring = ring();
        let sealed = ring.seal(Purpose::Tip, b"a", Nonce([3; 24]), b"hello");
        assert_eq!(ring.open(Purpose::Tip, 0, b"a", &sealed).unwrap(), b"hello");
        assert_eq!(ring.open(Purpose::Tip, 0, b"b", &sealed), Err(SealError::Forged));
        assert_eq!(ring.open(Purpose::Packet, 0, b"a", &sealed), Err(SealError::Forged));
        assert_eq!(ring.open(Purpose::Tip, 1, b"a", &sealed), Err(SealError::UnknownEpoch { epoch: 1 }));
        let other = KeyRing::new(VaultId([8; 16]), RootKey([1; 32]));
        assert_eq!(other.open(Purpose::Tip, 0, b"a", &sealed), Err(SealError::Forged));
        for at in 0..sealed.len() {
            let mut flipped = sealed.clone();
            flipped[at] ^= 1;
            assert_eq!(ring.open(Purpose::Tip, 0, b"a", &flipped), Err(SealError::Forged), "byte {at}");
        }
    }

    #[test]
    fn a_chunk_cannot_stand_in_for_another() {
        let ring = ring();
        let id = ring.chunk_id(b"x");
        let sealed = ring.seal_chunk(&id, Nonce([3; 24]), b"x");
        assert_eq!(ring.open_chunk(&id, 0, &sealed).unwrap(), b"x");
        assert_eq!(ring.open_chunk(&ring.chunk_id(b"y"), 0, &sealed), Err(SealError::Forged));
    }

    #[test]
    fn a_new_epoch_keeps_chunk_ids_and_changes_keys() {
        let mut ring = ring();
        let before = ring.chunk_id(b"x");
        let sealed = ring.seal(Purpose::Tip, b"", Nonce([0; 24]), b"old");
        ring.add_epoch(1, RootKey([2; 32]));
        assert_eq!(ring.chunk_id(b"x"), before);
        assert_eq!(ring.open(Purpose::Tip, 0, b"", &sealed).unwrap(), b"old");
        assert_eq!(ring.open(Purpose::Tip, 1, b"", &sealed), Err(SealError::Forged));
    }

    #[test]
    fn signatures_are_checked_against_the_device() {
        let key = DeviceKey::from_seed(&[9; 32]);
        let signature = key.sign(&[1; 32]);
        assert_eq!(key.public().verify(&[1; 32], &signature), Ok(()));
        assert_eq!(key.public().verify(&[2; 32], &signature), Err(SealError::BadSignature));
    }
}
