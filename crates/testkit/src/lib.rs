//! What tests are made of: seeded randomness, a file system that crashes, an intermediary that misbehaves.
//!
//! Everything here is deterministic: the seed that a failing test prints runs it again.
//! Nothing here is for the product; no crate depends on it except to test.

pub mod crash;
pub mod delivery_world;
pub mod faulty_store;
pub mod fs_contract;
pub mod rng;
pub mod sim_fs;
pub mod world;
