//! A daemon's own key, in the forms in which TLS wants it.
//!
//! A computer's daemon has one Ed25519 key for its links, apart from the keys of its replicas.
//! TLS presents it as a raw public key (RFC 7250): a bare SubjectPublicKeyInfo, with no certificate, name or date
//! around it that could be believed in place of the key.
//! Both encodings below have a fixed length for Ed25519 (RFC 8410), so they are put together and taken apart by a
//! prefix, and whatever deviates from that one form is no key.
//!
//! ```text
//! public   302a300506032b6570032100        | key 32
//! private  302e020100300506032b657004220420 | seed 32
//! ```

use std::fmt;
use std::sync::Arc;

use packetboat_core::keys::{DeviceKey, PublicKey};
use rustls::pki_types::{CertificateDer, PrivateKeyDer, PrivatePkcs8KeyDer};
use rustls::sign::CertifiedKey;

/// The key by which this computer's daemon is known to its peers.
#[derive(Clone)]
pub struct Identity {
    public: PublicKey,
    certified: Arc<CertifiedKey>,
    reset_secret: [u8; 32],
}

impl Identity {
    /// The identity with this secret seed.
    pub fn from_seed(seed: &[u8; 32]) -> Self {
        let public = DeviceKey::from_seed(seed).public();
        let private = PrivateKeyDer::Pkcs8(PrivatePkcs8KeyDer::from([PRIVATE_PREFIX.as_slice(), seed].concat()));
        let signing = rustls::crypto::ring::sign::any_supported_type(&private).expect("every seed is an Ed25519 key");
        let presented = CertificateDer::from(encode_public(&public));
        let reset_secret = blake3::derive_key("packetboat 2026 link: stateless reset", seed);
        Self { public, certified: Arc::new(CertifiedKey::new(vec![presented], signing)), reset_secret }
    }

    /// The public half, by which peers know this daemon.
    pub fn public(&self) -> PublicKey {
        self.public
    }

    /// What this daemon's connections have in common over restarts, known to it alone.
    pub(crate) fn reset_secret(&self) -> [u8; 32] {
        self.reset_secret
    }

    pub(crate) fn certified(&self) -> Arc<CertifiedKey> {
        self.certified.clone()
    }
}

impl fmt::Debug for Identity {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Identity({:?})", self.public)
    }
}

/// A public key as TLS carries it.
pub(crate) fn encode_public(key: &PublicKey) -> Vec<u8> {
    [PUBLIC_PREFIX.as_slice(), &key.0].concat()
}

/// The Ed25519 key that a peer presented; nothing for any other key or form.
pub(crate) fn decode_public(presented: &[u8]) -> Option<PublicKey> {
    let key = presented.strip_prefix(PUBLIC_PREFIX.as_slice())?;
    Some(PublicKey(key.try_into().ok()?))
}

const PUBLIC_PREFIX: [u8; 12] = [0x30, 0x2a, 0x30, 0x05, 0x06, 0x03, 0x2b, 0x65, 0x70, 0x03, 0x21, 0x00];
const PRIVATE_PREFIX: [u8; 16] =
    [0x30, 0x2e, 0x02, 0x01, 0x00, 0x30, 0x05, 0x06, 0x03, 0x2b, 0x65, 0x70, 0x04, 0x22, 0x04, 0x20];

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn tls_signs_with_the_key_that_the_daemon_is_known_by() {
        let identity = Identity::from_seed(&[7; 32]);
        let signing = identity.certified.key.public_key().expect("ring knows the public half");
        assert_eq!(decode_public(&signing), Some(identity.public()));
        assert_eq!(decode_public(&identity.certified.cert[0]), Some(identity.public()));
    }

    #[test]
    fn only_the_one_form_of_a_key_is_a_key() {
        let encoded = encode_public(&PublicKey([9; 32]));
        assert_eq!(decode_public(&encoded), Some(PublicKey([9; 32])));
        for end in 0..encoded.len() {
            assert_eq!(decode_public(&encoded[..end]), None);
        }
        assert_eq!(decode_public(&[encoded.as_slice(), &[0]].concat()), None);
        for at in 0..PUBLIC_PREFIX.len() {
            let mut changed = encoded.clone();
            changed[at] ^= 1;
            assert_eq!(decode_public(&changed), None, "byte {at}");
        }
    }
}
