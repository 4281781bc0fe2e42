//! Seeded data and keys that the tests of this crate share.

use packetboat_core::ids::VaultId;
use packetboat_core::keys::{KeyRing, Nonce, RootKey};

/// The ring of a vault that all tests use.
pub(crate) fn ring() -> KeyRing {
    KeyRing::new(VaultId([7; 16]), RootKey([1; 32]))
}

/// A nonce made from a number.
pub(crate) fn nonce(number: u64) -> Nonce {
    let mut bytes = [0; 24];
    bytes[..8].copy_from_slice(&number.to_le_bytes());
    Nonce(bytes)
}

/// `len` bytes that do not compress, the same for the same seed.
pub(crate) fn noise(seed: u64, len: usize) -> Vec<u8> {
    let mut bytes = vec![0; len];
    blake3::Hasher::new().update(&seed.to_le_bytes()).finalize_xof().fill(&mut bytes);
    bytes
}

/// `len` bytes of words that compress well, the same for the same seed.
pub(crate) fn compressible(seed: u64, len: usize) -> Vec<u8> {
    const WORDS: [&str; 8] = ["let ", "value ", "= ", "store.", "pack(", "chunk", ");\n", "    "];
    let mut bytes = Vec::with_capacity(len + 8);
    for choice in noise(seed, len) {
        bytes.extend_from_slice(WORDS[usize::from(choice) % 8].as_bytes());
        if bytes.len() >= len {
            break;
        }
    }
    bytes.truncate(len);
    bytes
}
