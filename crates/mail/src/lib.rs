//! Mail out and in: submission, SMTP, IMAP, POP3 and Maildir. It knows nothing of pairs and turns.
//!
//! Out: a mail program hands a [`message`] to the [`submission`] server or to [`sendmail`], a queue of the caller's keeps
//! it, and [`smtp`] tries to send it by one path, as often as the caller says.
//! In: [`imap`] and [`pop3`] fetch, [`fetched`] says what was fetched before, and [`maildir`] delivers.

pub mod account;
pub mod address;
pub mod address_list;
pub mod bounce;
mod connection;
pub mod fetched;
#[cfg(feature = "fuzzing")]
pub mod fuzzing;
pub mod imap;
pub mod maildir;
pub mod message;
pub mod pop3;
pub mod sendmail;
pub mod smtp;
pub mod submission;

pub use self::connection::{ConnectError, Deadlines, Endpoint, Login, Security};
