//! What `packetboat run` does: drives the core's delivery machines over disk, link and mail servers.
//!
//! The core decides, this crate carries out: it keeps queues in SQLite, reads clocks through a port, and owns the tasks.
//! It never touches the terminal, the environment or the user's directories; paths and settings are passed in.
//! Begin at [`daemon::run`] for how the parts hang together, and at [`outbox`] for how a mail goes its way.

pub mod clock;
pub mod control;
pub mod daemon;
mod files;
mod hands;
pub mod home;
pub mod inbox;
pub mod inbox_store;
mod lender;
pub mod lent;
pub mod network;
pub mod notify;
pub mod outbox;
pub mod pair;
pub mod parting;
pub mod paths;
pub mod peer;
pub mod port;
pub mod relay;
pub mod reports;
pub mod routes;
mod sent;
pub mod settings;
pub mod sleep;

pub use self::files::FileError;
