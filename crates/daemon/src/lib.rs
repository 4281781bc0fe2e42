//! What `packetboat run` does: drives the core's delivery machines over disk, link and mail servers.
//!
//! The core decides, this crate carries out: it keeps queues in SQLite, reads clocks through a port, and owns the tasks.
//! It never touches the terminal, the environment or the user's directories; paths and settings are passed in.

pub mod clock;
mod files;
pub mod home;
pub mod inbox_store;
pub mod outbox;
pub mod pair;
pub mod paths;
pub mod peer;
pub mod settings;
