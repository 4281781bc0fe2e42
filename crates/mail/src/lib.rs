//! Mail out and in: submission, SMTP, IMAP, POP3 and Maildir. It knows nothing of pairs and turns.

mod connection;
pub mod fetched;
pub mod imap;
pub mod maildir;
pub mod pop3;

pub use self::connection::{ConnectError, Credentials, Deadlines, Endpoint, Security};
