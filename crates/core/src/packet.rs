//! Change packets as objects: header, sealed body, signature, and the hash chain of a lane.
//!
//! ```text
//! offset  size  field
//! 0       4     magic "PBPT"
//! 4       2     format version, little-endian: 1
//! 6       16    vault id
//! 22      32    the author's Ed25519 public key
//! 54      8     counter, little-endian, from 1
//! 62      4     epoch, little-endian
//! 66      32    hash of the predecessor in the lane; zeros for the first
//! 98      ...   sealed box (keys.rs) of the body (body.rs), zstd-compressed; bound to bytes 0..98
//! end-64  64    Ed25519 signature of the packet hash
//! ```
//!
//! The packet hash is BLAKE3 (derive-key context "packetboat 2026 packet") of all bytes before the signature.
//! Whoever has no key can still check signature and chain; that is what a carrier does.
//! [`UnverifiedPacket`] becomes [`SealedPacket`] by its signature and [`Packet`] by being opened.

use thiserror::Error;

use crate::body::{MAX_CHANGES, PacketBody};
use crate::ids::{Counter, DeviceId, Dot, Epoch, PacketHash, VaultId};
use crate::keys::{DeviceKey, KeyRing, Nonce, PublicKey, Purpose, SealError};
use crate::wire::WireError;

/// Bytes that claim to be a packet, with a readable header and nothing proven.
#[derive(Clone, Debug)]
pub struct UnverifiedPacket {
    header: Header,
    bytes: Vec<u8>,
}

impl UnverifiedPacket {
    /// Reads the header.
    pub fn parse(bytes: Vec<u8>) -> Result<Self, PacketError> {
        if bytes.len() > MAX_PACKET_BYTES {
            return Err(PacketError::TooLarge);
        }
        if bytes.len() < HEADER_BYTES + SIGNATURE_BYTES || bytes[0..4] != MAGIC {
            return Err(PacketError::NotAPacket);
        }
        let version = u16::from_le_bytes(field(&bytes, 4));
        if version == 0 {
            return Err(PacketError::NotAPacket);
        }
        if version != VERSION {
            return Err(PacketError::NewerFormat { version });
        }
        let header = Header {
            vault: VaultId(field(&bytes, 6)),
            author: PublicKey(field(&bytes, 22)),
            counter: u64::from_le_bytes(field(&bytes, 54)),
            epoch: u32::from_le_bytes(field(&bytes, 62)),
            previous: PacketHash(field(&bytes, 66)),
        };
        if header.counter == 0 || (header.counter == 1) != (header.previous == PacketHash([0; 32])) {
            return Err(PacketError::NotAPacket);
        }
        Ok(Self { header, bytes })
    }

    /// Checks the signature.
    pub fn verify(self) -> Result<SealedPacket, PacketError> {
        let signed = self.bytes.len() - SIGNATURE_BYTES;
        let hash = blake3::derive_key(HASH_CONTEXT, &self.bytes[..signed]);
        self.header.author.verify(&hash, &field(&self.bytes, signed))?;
        Ok(SealedPacket { header: self.header, hash: PacketHash(hash), bytes: self.bytes })
    }
}

/// A packet whose signature is its author's; its body is still sealed.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct SealedPacket {
    header: Header,
    hash: PacketHash,
    bytes: Vec<u8>,
}

impl SealedPacket {
    /// Reads and checks a packet.
    pub fn from_bytes(bytes: Vec<u8>) -> Result<Self, PacketError> {
        UnverifiedPacket::parse(bytes)?.verify()
    }

    /// Makes the packet that follows `previous` in the lane of `key`.
    ///
    /// `nonce` must be fresh: the same counter sealed twice with different bodies is a fork.
    pub fn seal(
        key: &DeviceKey,
        ring: &KeyRing,
        counter: Counter,
        previous: PacketHash,
        nonce: Nonce,
        body: &PacketBody,
    ) -> Result<Self, PacketError> {
        let header = Header { vault: ring.vault(), author: key.public(), counter, epoch: ring.current(), previous };
        let mut bytes = header.encode();
        let plain = body.encode(key.device());
        if plain.len() > MAX_BODY_BYTES || body.changes.len() > MAX_CHANGES {
            return Err(PacketError::TooLarge);
        }
        // A packet that nobody can read would end this lane for ever.
        debug_assert_eq!(PacketBody::decode(&plain, key.device()).as_ref(), Ok(body), "what is sealed decodes again");
        let compressed = zstd::bulk::compress(&plain, ZSTD_LEVEL).map_err(|_| PacketError::TooLarge)?;
        let sealed = ring.seal(Purpose::Packet, &bytes, nonce, &compressed);
        bytes.extend_from_slice(&sealed);
        let hash = blake3::derive_key(HASH_CONTEXT, &bytes);
        bytes.extend_from_slice(&key.sign(&hash));
        if bytes.len() > MAX_PACKET_BYTES {
            return Err(PacketError::TooLarge);
        }
        Ok(Self { header, hash: PacketHash(hash), bytes })
    }

    /// Opens the body.
    pub fn open(&self, ring: &KeyRing) -> Result<Packet, PacketError> {
        if self.header.vault != ring.vault() {
            return Err(PacketError::OtherVault { vault: self.header.vault });
        }
        let signed = self.bytes.len() - SIGNATURE_BYTES;
        let (header, sealed) = self.bytes[..signed].split_at(HEADER_BYTES);
        let compressed = ring.open(Purpose::Packet, self.header.epoch, header, sealed)?;
        let plain = zstd::bulk::decompress(&compressed, MAX_BODY_BYTES)
            .map_err(|_| PacketError::Body { source: WireError::Invalid { what: "compressed body" } })?;
        let body = PacketBody::decode(&plain, self.device()).map_err(|source| PacketError::Body { source })?;
        let (dot, hash, previous, author) = (self.dot(), self.hash, self.previous(), self.author());
        Ok(Packet { dot, hash, previous, author, epoch: self.header.epoch, body })
    }

    /// The author's lane and the packet's place in it.
    pub fn dot(&self) -> Dot {
        Dot { device: self.device(), counter: self.header.counter }
    }

    /// The vault that it says it belongs to.
    pub fn vault(&self) -> VaultId {
        self.header.vault
    }

    /// The epoch in which it is sealed.
    pub fn epoch(&self) -> Epoch {
        self.header.epoch
    }

    /// The author.
    pub fn device(&self) -> DeviceId {
        self.header.author.device()
    }

    /// The author's key.
    pub fn author(&self) -> PublicKey {
        self.header.author
    }

    /// The packet's hash.
    pub fn hash(&self) -> PacketHash {
        self.hash
    }

    /// The hash of its predecessor in the lane.
    pub fn previous(&self) -> PacketHash {
        self.header.previous
    }

    /// The object's bytes.
    pub fn bytes(&self) -> &[u8] {
        &self.bytes
    }
}

/// An opened packet.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Packet {
    /// The author's lane and the packet's place in it.
    pub dot: Dot,
    /// Its hash.
    pub hash: PacketHash,
    /// The hash of its predecessor; zeros for the first.
    pub previous: PacketHash,
    /// The author's key.
    pub author: PublicKey,
    /// The epoch in which it is sealed.
    pub epoch: Epoch,
    /// What it says.
    pub body: PacketBody,
}

#[derive(Clone, Copy, PartialEq, Eq, Debug)]
struct Header {
    vault: VaultId,
    author: PublicKey,
    counter: Counter,
    epoch: Epoch,
    previous: PacketHash,
}

impl Header {
    fn encode(&self) -> Vec<u8> {
        let mut bytes = Vec::with_capacity(HEADER_BYTES);
        bytes.extend_from_slice(&MAGIC);
        bytes.extend_from_slice(&VERSION.to_le_bytes());
        bytes.extend_from_slice(&self.vault.0);
        bytes.extend_from_slice(&self.author.0);
        bytes.extend_from_slice(&self.counter.to_le_bytes());
        bytes.extend_from_slice(&self.epoch.to_le_bytes());
        bytes.extend_from_slice(&self.previous.0);
        bytes
    }
}

/// Copies a fixed-size field whose place was checked to lie within `bytes`.
fn field<const N: usize>(bytes: &[u8], at: usize) -> [u8; N] {
    bytes[at..at + N].try_into().expect("N bytes")
}

/// Why bytes are not a packet of this vault.
#[derive(Debug, Clone, PartialEq, Eq, Error)]
pub enum PacketError {
    /// No packet at all, or a cut or impossible header.
    #[error("the data is not a change packet")]
    NotAPacket,
    /// Made by a newer Packetboat.
    #[error("the packet has format {version}, which this version of packetboat cannot read")]
    NewerFormat {
        /// Its format version.
        version: u16,
    },
    /// Over the size limit.
    #[error("the packet is larger than {MAX_PACKET_BYTES} bytes")]
    TooLarge,
    /// Of another vault.
    #[error("the packet belongs to another vault ({vault})")]
    OtherVault {
        /// Its vault.
        vault: VaultId,
    },
    /// Not authentic.
    #[error(transparent)]
    Seal(#[from] SealError),
    /// Authentic, but not in the format.
    #[error("the packet's body is malformed")]
    Body {
        /// What is wrong.
        #[source]
        source: WireError,
    },
}

const MAGIC: [u8; 4] = *b"PBPT";
const VERSION: u16 = 1;
const HEADER_BYTES: usize = 98;
const SIGNATURE_BYTES: usize = 64;
const HASH_CONTEXT: &str = "packetboat 2026 packet";
const ZSTD_LEVEL: i32 = 3;

/// The folder of an intermediary in which the devices' lanes lie.
pub const LANES_FOLDER: &str = "lanes";
/// Greatest size of a packet object in bytes.
pub const MAX_PACKET_BYTES: usize = 16 * 1024 * 1024;
/// Greatest size of a packet's body before compression, in bytes.
pub const MAX_BODY_BYTES: usize = 32 * 1024 * 1024;

#[cfg(test)]
mod tests;
