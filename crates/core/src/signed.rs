//! Objects of one writer that are numbered, sealed and signed: tips and checkpoints.
//!
//! ```text
//! offset  size  field
//! 0       4     magic of the kind
//! 4       2     format version, little-endian: 1
//! 6       16    vault id
//! 22      32    the author's Ed25519 public key
//! 54      8     number, little-endian, from 1; rises with each that the author makes
//! 62      4     epoch, little-endian
//! 66      ...   sealed box (keys.rs) of the content, for the kind's purpose; bound to bytes 0..66
//! end-64  64    Ed25519 signature of the BLAKE3 hash (derive-key, the kind's context) of all before
//! ```
//!
//! Who has no key can check the signature and read the number, and so tell the older of two.
//! [`Unverified`] becomes [`Sealed`] by its signature, and its content by being opened.

use std::marker::PhantomData;

use thiserror::Error;

use crate::ids::{DeviceId, Epoch, VaultId};
use crate::keys::{BOX_OVERHEAD, DeviceKey, KeyRing, Nonce, PublicKey, Purpose, SealError};
use crate::wire::WireError;

/// What such an object holds.
pub trait Content: Sized {
    /// Its kind, for messages.
    const KIND: &'static str;
    /// The first bytes of the object.
    const MAGIC: [u8; 4];
    /// What it is sealed for.
    const PURPOSE: Purpose;
    /// The derive-key context of the hash that is signed.
    const HASH_CONTEXT: &'static str;
    /// Greatest size of the object in bytes.
    const MAX_BYTES: usize;

    /// Its number.
    fn number(&self) -> u64;

    /// What is sealed, besides the number.
    fn encode(&self) -> Vec<u8>;

    /// Reads what [`encode`](Self::encode) wrote; refuses all that it would not write.
    fn decode(number: u64, plain: &[u8]) -> Result<Self, WireError>;
}

/// Bytes that claim to be such an object, with a readable header and nothing proven.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Unverified<C> {
    header: Header,
    bytes: Vec<u8>,
    content: PhantomData<C>,
}

impl<C: Content> Unverified<C> {
    /// Reads the header.
    pub fn parse(bytes: Vec<u8>) -> Result<Self, SignedError> {
        let kind = C::KIND;
        if bytes.len() > C::MAX_BYTES {
            return Err(SignedError::TooLarge { kind, limit: C::MAX_BYTES });
        }
        if bytes.len() < OVERHEAD || bytes[..4] != C::MAGIC {
            return Err(SignedError::NotOne { kind });
        }
        let version = u16::from_le_bytes(field(&bytes, 4));
        if version != VERSION {
            return Err(SignedError::NewerFormat { kind, version });
        }
        let header = Header {
            vault: VaultId(field(&bytes, 6)),
            author: PublicKey(field(&bytes, 22)),
            number: u64::from_le_bytes(field(&bytes, 54)),
            epoch: Epoch::from_le_bytes(field(&bytes, 62)),
        };
        if header.number == 0 {
            return Err(SignedError::NotOne { kind });
        }
        Ok(Self { header, bytes, content: PhantomData })
    }

    /// Checks that `device` made it: that its key is the device's, and its signature the key's.
    pub fn verify(self, device: &DeviceId) -> Result<Sealed<C>, SignedError> {
        if self.header.author.device() != *device {
            return Err(SignedError::OtherDevice { kind: C::KIND });
        }
        let signed = self.bytes.len() - SIGNATURE_BYTES;
        let hash = blake3::derive_key(C::HASH_CONTEXT, &self.bytes[..signed]);
        self.header.author.verify(&hash, &field(&self.bytes, signed))?;
        Ok(Sealed { header: self.header, bytes: self.bytes, content: PhantomData })
    }
}

/// An object whose signature is its author's; its content is still sealed.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Sealed<C> {
    header: Header,
    bytes: Vec<u8>,
    content: PhantomData<C>,
}

impl<C: Content> Sealed<C> {
    /// Seals and signs `content` under the ring's current epoch. `nonce` must be fresh.
    pub fn seal(key: &DeviceKey, ring: &KeyRing, nonce: Nonce, content: &C) -> Result<Self, SignedError> {
        let header =
            Header { vault: ring.vault(), author: key.public(), number: content.number(), epoch: ring.current() };
        let mut bytes = header.encode::<C>();
        let plain = content.encode();
        debug_assert!(C::decode(content.number(), &plain).is_ok(), "what is sealed decodes again");
        let sealed = ring.seal(C::PURPOSE, &bytes, nonce, &plain);
        bytes.extend_from_slice(&sealed);
        let hash = blake3::derive_key(C::HASH_CONTEXT, &bytes);
        bytes.extend_from_slice(&key.sign(&hash));
        if bytes.len() > C::MAX_BYTES {
            return Err(SignedError::TooLarge { kind: C::KIND, limit: C::MAX_BYTES });
        }
        Ok(Self { header, bytes, content: PhantomData })
    }

    /// Opens the content.
    pub fn open(&self, ring: &KeyRing) -> Result<C, SignedError> {
        if self.header.vault != ring.vault() {
            return Err(SignedError::OtherVault { kind: C::KIND, vault: self.header.vault });
        }
        let signed = self.bytes.len() - SIGNATURE_BYTES;
        let (header, sealed) = self.bytes[..signed].split_at(HEADER_BYTES);
        let plain = ring.open(C::PURPOSE, self.header.epoch, header, sealed)?;
        C::decode(self.header.number, &plain).map_err(|source| SignedError::Content { kind: C::KIND, source })
    }

    /// The vault that it says it belongs to.
    pub fn vault(&self) -> VaultId {
        self.header.vault
    }

    /// The author.
    pub fn device(&self) -> DeviceId {
        self.header.author.device()
    }

    /// The author's key.
    pub fn author(&self) -> PublicKey {
        self.header.author
    }

    /// The object's number; of two by one author the greater is the newer.
    pub fn number(&self) -> u64 {
        self.header.number
    }

    /// The epoch in which it is sealed.
    pub fn epoch(&self) -> Epoch {
        self.header.epoch
    }

    /// The object's bytes.
    pub fn bytes(&self) -> &[u8] {
        &self.bytes
    }
}

#[derive(Clone, Copy, PartialEq, Eq, Debug)]
struct Header {
    vault: VaultId,
    author: PublicKey,
    number: u64,
    epoch: Epoch,
}

impl Header {
    fn encode<C: Content>(&self) -> Vec<u8> {
        let mut bytes = Vec::with_capacity(HEADER_BYTES);
        bytes.extend_from_slice(&C::MAGIC);
        bytes.extend_from_slice(&VERSION.to_le_bytes());
        bytes.extend_from_slice(&self.vault.0);
        bytes.extend_from_slice(&self.author.0);
        bytes.extend_from_slice(&self.number.to_le_bytes());
        bytes.extend_from_slice(&self.epoch.to_le_bytes());
        bytes
    }
}

/// Copies a fixed-size field whose place was checked to lie within `bytes`.
fn field<const N: usize>(bytes: &[u8], at: usize) -> [u8; N] {
    bytes[at..at + N].try_into().expect("N bytes")
}

/// Why bytes are not such an object of this vault and device.
#[derive(Debug, Clone, PartialEq, Eq, Error)]
pub enum SignedError {
    /// Something else, or a cut or impossible header.
    #[error("the data is not a {kind}")]
    NotOne {
        /// What was expected.
        kind: &'static str,
    },
    /// Made by a newer Packetboat.
    #[error("the {kind} has format {version}, which this version of packetboat cannot read")]
    NewerFormat {
        /// What it is.
        kind: &'static str,
        /// Its format version.
        version: u16,
    },
    /// Over the size limit.
    #[error("the {kind} is larger than {limit} bytes")]
    TooLarge {
        /// What it is.
        kind: &'static str,
        /// Greatest size in bytes.
        limit: usize,
    },
    /// Made by another device than the one under whose name it lies.
    #[error("the {kind} was made by another device than its name says")]
    OtherDevice {
        /// What it is.
        kind: &'static str,
    },
    /// Of another vault.
    #[error("the {kind} belongs to another vault ({vault})")]
    OtherVault {
        /// What it is.
        kind: &'static str,
        /// Its vault.
        vault: VaultId,
    },
    /// Not authentic.
    #[error(transparent)]
    Seal(#[from] SealError),
    /// Authentic, but not in the format.
    #[error("the content of the {kind} is malformed")]
    Content {
        /// What it is.
        kind: &'static str,
        /// What is wrong.
        #[source]
        source: WireError,
    },
}

const VERSION: u16 = 1;
const HEADER_BYTES: usize = 66;
const SIGNATURE_BYTES: usize = 64;

/// Bytes that the object adds to what it seals.
pub const OVERHEAD: usize = HEADER_BYTES + BOX_OVERHEAD + SIGNATURE_BYTES;
