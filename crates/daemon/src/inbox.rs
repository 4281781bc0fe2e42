//! Mail in: each device fetches by its own path, and both compare what they have over the link.
//!
//! ```text
//! fetcher    one for each account      server ──▶ deliverer ──▶ Maildir and record ──▶ "news"
//! exchange   one for each session      news ──▶ compare ──▶ ask for what is lacking ──▶ deliverer
//! ```
//!
//! Both deliver through the [`office`], which keeps one record and one Maildir; the record says which messages came, so a
//! message that comes by both ways, by both protocols or again is one file.
//! Mail in is one way: what a user does to a file here is said to no server and to no other device.

pub mod exchange;
pub mod fetcher;
mod giving;
pub mod office;
mod resolve;
pub mod status;
mod stored;
mod words;
#[cfg(feature = "fuzzing")]
pub use self::words::fuzz as fuzz_words;

pub(crate) use self::words::is_ours as is_asked;
