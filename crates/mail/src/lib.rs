//! Mail out and in: submission, SMTP, IMAP, POP3 and Maildir. It knows nothing of pairs and turns.

pub mod fetched;
pub mod maildir;
