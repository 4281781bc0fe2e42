//! Adapters to intermediaries, and how content lies there: chunks, packs, encryption at rest.
//!
//! A file is cut into chunks ([`chunker`]), a chunk is compressed and sealed ([`chunk`]), sealed chunks are gathered in
//! packs ([`pack`]), and packs are read back in few, bounded ranges ([`fetch`]).
//! A [`Store`](packetboat_core::store::Store) keeps them: a folder ([`folder`]), or memory in tests ([`memory`]);
//! [`counting`] wraps any of them to show what a round costs.
//!
//! Nothing here knows what a packet or an item is, makes randomness, or decides what to keep.

pub mod chunk;
pub mod chunker;
pub mod counting;
pub mod fetch;
pub mod folder;
pub mod memory;
pub mod pack;

#[cfg(test)]
mod conformance;
#[cfg(test)]
mod testing;
