//! Adapters to intermediaries, and how content lies there: chunks, packs, encryption at rest.
//!
//! A file is cut into chunks ([`chunker`]), a chunk is compressed and sealed ([`chunk`]), sealed chunks are gathered in
//!
//! Nothing here knows what a packet or an item is, makes randomness, or decides what to keep.

pub mod chunk;
pub mod chunker;

#[cfg(test)]
mod testing;
