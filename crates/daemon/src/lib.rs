//! What `packetboat run` does: outbox, inbox and link, driven by time, network and commands.

pub mod inbox_store;
