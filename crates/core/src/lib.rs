//! The part of Packetboat that decides: ids, knowledge, packets, the tree, the check, planning.
//!
//! It takes state, input and, where needed, time and randomness, and returns decisions.
//! It does no I/O, reads no clock, makes no randomness and knows no runtime, database or network.

pub mod body;
pub mod change;
pub mod checkpoint;
pub mod compare;
pub mod conflict_name;
pub mod content;
pub mod delivery;
pub mod epoch_key;
pub mod garbage;
pub mod hex;
pub mod ids;
pub mod item;
pub mod keys;
pub mod knowledge;
pub mod lane;
pub mod local;
pub mod local_name;
pub mod marker;
pub mod members;
pub mod memory;
pub mod name;
pub mod packet;
pub mod plan;
pub mod publish;
pub mod recovery;
pub mod signed;
pub mod store;
pub mod tip;
pub mod tree;
pub mod view;
pub mod wanted;
pub mod wire;
