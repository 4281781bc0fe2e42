//! Root keys on their way to a device: sealed so that nobody but that device can open them.
//!
//! Whoever begins an epoch puts its root key into a packet once for each remaining device, sealed to the X25519 key with
//! which that one introduced itself. The packet itself is sealed under a key that the revoked device holds as well.
//!
//! ```text
//! sealed key  ephemeral X25519 public key 32 | sealed box (keys.rs) of: per key: epoch 4, little-endian | root key 32
//! ```
//!
//! The first key is that of the epoch that begins; others of earlier epochs may follow, for devices that may lack them.
//! The box's key is BLAKE3 (derive-key context "packetboat 2026 key: sealed epoch key") of the shared secret, the
//! ephemeral public key and the recipient's. Its associated data is vault, author, recipient, epoch and key id.
//! So a sealed key opens for one device, in one vault, as what one author sent; the packet's signature covers the rest.
//!
//! What is given out is named by its id as well: an author that gave different keys to different devices is found out by
//! each of them. This module makes no randomness; the ephemeral secret and the nonce are passed in.

use thiserror::Error;
use x25519_dalek::{PublicKey, StaticSecret};
use zeroize::Zeroizing;

use crate::ids::{DeviceId, Epoch, VaultId};
use crate::keys::{BOX_OVERHEAD, DeviceKey, KeyId, Nonce, RootKey, open_with, seal_with};
use crate::wire::{Reader, Writer};

/// From whom to whom a key goes, and which it is.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Delivery {
    /// The vault.
    pub vault: VaultId,
    /// Who begins the epoch.
    pub author: DeviceId,
    /// For whom the key is sealed.
    pub recipient: DeviceId,
    /// The epoch that begins.
    pub epoch: Epoch,
    /// The id of its root key.
    pub key: KeyId,
}

/// Seals keys to the recipient's exchange key, the new epoch's first; at most [`MAX_KEYS`].
///
/// # Errors
/// [`EpochKeyError::Exchange`] where the exchange key is none that a device can have.
///
/// # Panics
/// Where there are no keys or more than [`MAX_KEYS`].
pub fn seal(
    delivery: &Delivery,
    exchange_key: &[u8; 32],
    ephemeral: &Zeroizing<[u8; 32]>,
    nonce: Nonce,
    keys: &[(Epoch, &RootKey)],
) -> Result<Vec<u8>, EpochKeyError> {
    assert!((1..=MAX_KEYS).contains(&keys.len()), "a delivery holds one to {MAX_KEYS} keys");
    let secret = StaticSecret::from(**ephemeral);
    let ephemeral = PublicKey::from(&secret).to_bytes();
    let key = box_key(&secret, &PublicKey::from(*exchange_key), &ephemeral, exchange_key)?;
    let mut plain = Zeroizing::new(Vec::with_capacity(keys.len() * KEY_BYTES));
    for (epoch, root) in keys {
        plain.extend_from_slice(&epoch.to_le_bytes());
        plain.extend_from_slice(&root.0);
    }
    let mut sealed = ephemeral.to_vec();
    sealed.extend_from_slice(&seal_with(&key, &associated(delivery), nonce, &plain));
    Ok(sealed)
}

/// Opens what [`seal`] made for this device; the new epoch's key is the first and has the id that was told.
pub fn open(delivery: &Delivery, device: &DeviceKey, sealed: &[u8]) -> Result<Vec<(Epoch, RootKey)>, EpochKeyError> {
    let (ephemeral, boxed) = sealed.split_first_chunk::<32>().ok_or(EpochKeyError::Forged)?;
    let secret = device.exchange_secret();
    let own = PublicKey::from(&secret).to_bytes();
    let key = box_key(&secret, &PublicKey::from(*ephemeral), ephemeral, &own)?;
    let plain = open_with(&key, &associated(delivery), boxed).map_err(|_| EpochKeyError::Forged)?;
    let plain = Zeroizing::new(plain);
    let mut input = Reader::new(&plain);
    let mut keys = Vec::new();
    while input.remaining() > 0 && keys.len() < MAX_KEYS {
        let epoch = input.array().map(Epoch::from_le_bytes).map_err(|_| EpochKeyError::Forged)?;
        keys.push((epoch, RootKey(input.array().map_err(|_| EpochKeyError::Forged)?)));
    }
    let is_told = |(epoch, root): &(Epoch, RootKey)| *epoch == delivery.epoch && root.id() == delivery.key;
    if input.remaining() > 0 || !keys.first().is_some_and(is_told) {
        return Err(EpochKeyError::OtherKey);
    }
    Ok(keys)
}

fn box_key(
    secret: &StaticSecret,
    other: &PublicKey,
    ephemeral: &[u8; 32],
    recipient: &[u8; 32],
) -> Result<Zeroizing<[u8; 32]>, EpochKeyError> {
    let shared = secret.diffie_hellman(other);
    // A key of small order makes a secret that everybody knows.
    if !shared.was_contributory() {
        return Err(EpochKeyError::Exchange);
    }
    let mut hasher = blake3::Hasher::new_derive_key("packetboat 2026 key: sealed epoch key");
    hasher.update(shared.as_bytes()).update(ephemeral).update(recipient);
    Ok(Zeroizing::new(*hasher.finalize().as_bytes()))
}

fn associated(delivery: &Delivery) -> Vec<u8> {
    let Delivery { vault, author, recipient, epoch, key } = delivery;
    let mut out = Writer::new();
    out.raw(b"epoch key").raw(&vault.0).raw(&author.0).raw(&recipient.0).raw(&epoch.to_le_bytes()).raw(&key.0);
    out.finish()
}

/// Why keys were not sealed or opened.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Error)]
pub enum EpochKeyError {
    /// The exchange key is of small order.
    #[error("the exchange key is none that a device can have")]
    Exchange,
    /// Not sealed for this device and this place, or changed since.
    #[error("the sealed key does not open with this device's key")]
    Forged,
    /// Another key than the one that was told to all.
    #[error("the sealed key is not the one that was announced")]
    OtherKey,
}

/// Most keys in one delivery.
pub const MAX_KEYS: usize = 8;
/// Greatest size of a sealed key in bytes.
pub const MAX_SEALED_KEY: usize = 32 + BOX_OVERHEAD + MAX_KEYS * KEY_BYTES;
const KEY_BYTES: usize = 36;

#[cfg(test)]
mod tests {
    use super::*;

    fn delivery(device: &DeviceKey, root: &RootKey) -> Delivery {
        Delivery {
            vault: VaultId([7; 16]),
            author: DeviceId([8; 32]),
            recipient: device.device(),
            epoch: 3,
            key: root.id(),
        }
    }

    fn sealed(delivery: &Delivery, device: &DeviceKey, keys: &[(Epoch, &RootKey)]) -> Vec<u8> {
        seal(delivery, &device.exchange_public(), &Zeroizing::new([5; 32]), Nonce([6; 24]), keys).unwrap()
    }

    #[test]
    fn a_sealed_key_opens_for_its_device_in_its_place_and_nowhere_else() {
        let (device, other) = (DeviceKey::from_seed(&[1; 32]), DeviceKey::from_seed(&[2; 32]));
        let (root, earlier) = (RootKey([3; 32]), RootKey([4; 32]));
        let delivery = delivery(&device, &root);
        let sealed = sealed(&delivery, &device, &[(3, &root), (2, &earlier)]);
        assert!(sealed.len() <= MAX_SEALED_KEY);
        assert_eq!(open(&delivery, &device, &sealed), Ok(vec![(3, root.clone()), (2, earlier)]));
        assert_eq!(open(&delivery, &other, &sealed), Err(EpochKeyError::Forged));
        for wrong in [
            Delivery { vault: VaultId([0; 16]), ..delivery },
            Delivery { author: DeviceId([0; 32]), ..delivery },
            Delivery { recipient: other.device(), ..delivery },
            Delivery { epoch: 4, ..delivery },
            Delivery { key: RootKey([9; 32]).id(), ..delivery },
        ] {
            assert_eq!(open(&wrong, &device, &sealed), Err(EpochKeyError::Forged));
        }
        for at in 0..sealed.len() {
            let mut flipped = sealed.clone();
            flipped[at] ^= 1;
            assert!(open(&delivery, &device, &flipped).is_err(), "byte {at}");
            assert!(open(&delivery, &device, &sealed[..at]).is_err(), "cut at {at}");
        }
    }

    #[test]
    fn a_key_that_was_not_announced_is_refused() {
        let device = DeviceKey::from_seed(&[1; 32]);
        let (root, other) = (RootKey([3; 32]), RootKey([4; 32]));
        let delivery = delivery(&device, &root);
        for keys in [[(3, &other)], [(2, &root)]] {
            let sealed = sealed(&delivery, &device, &keys);
            assert_eq!(open(&delivery, &device, &sealed), Err(EpochKeyError::OtherKey));
        }
    }

    #[test]
    fn an_exchange_key_of_small_order_gets_nothing() {
        let device = DeviceKey::from_seed(&[1; 32]);
        let root = RootKey([3; 32]);
        let delivery = delivery(&device, &root);
        let refused = seal(&delivery, &[0; 32], &Zeroizing::new([5; 32]), Nonce([6; 24]), &[(3, &root)]);
        assert_eq!(refused, Err(EpochKeyError::Exchange));
        let mut forged = sealed(&delivery, &device, &[(3, &root)]);
        forged[..32].fill(0);
        assert_eq!(open(&delivery, &device, &forged), Err(EpochKeyError::Exchange));
    }

    #[test]
    fn the_form_of_a_sealed_key_stays_as_it_was() {
        let (device, root) = (DeviceKey::from_seed(&[1; 32]), RootKey([3; 32]));
        let sealed = sealed(&delivery(&device, &root), &device, &[(3, &root)]);
        assert_eq!(
            blake3::hash(&sealed).to_hex().as_str(),
            "5812a1596453003dc6c7d5d5a2df868e99e873c633e1f701902914a101605bf8"
        );
    }
}
