//! Reading mail by POP3 (RFC 1939, 2449, 2595): a thin client of our own.
//!
//! It lists what the server has by unique ids, fetches what is not recorded, and deletes when told to.
//! With PIPELINING, several messages are asked for ahead, so that a round trip is not paid for each.
//! A message goes on in pieces as it comes, with the dots that the protocol doubles undoubled and nothing else touched.
//!
//! Left out: TOP, APOP, and servers without UIDL: without unique ids, nothing can be known to have been fetched.

mod pull;
mod reply;
mod session;
mod unstuff;

pub use self::pull::{Pop3PullError, Pop3PullReport, pull_maildrop};
pub use self::session::{Listed, Pop3Account, Pop3Error, Pop3Session, Receiving};
