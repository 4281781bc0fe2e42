//! Reading mail by IMAP: sessions that keep their bounds whatever the server does.
//!
//! The answers are parsed by async-imap's codec, behind a guard that bounds what it can be made to keep ([`GuardError`]).
//! Its convenience functions are not used beyond the login: they take a refused search or fetch for an empty one, and
//! an end of the connection for the end of an answer, which here would read as "all were deleted" or "it was never sent".
//! Each command goes through one place, which wants its tagged OK.
//!
//! | part | what it does |
//! | --- | --- |
//! | [`ImapSession`] | connects, logs in, lists and selects mailboxes |
//! | [`Chosen`] | which mailboxes are fetched, by the names that people write |
//! | `changes` | what is new, changed or gone in a mailbox, by CONDSTORE where there is one |
//! | `fetch` | the bytes of new messages, pipelined, large ones in pieces |
//! | [`pull_mailbox`] | both, with the record of what was fetched |
//! | `idle`, [`watch_mailboxes`] | waiting for new mail, and connecting again |
//! | `sent` | whether a message is in Sent, and putting it there |
//!
//! Left out: JMAP, which comes beside this module; and everything that changes a message at the server, but for deleting
//! one when the caller says so.

mod changes;
mod choice;
mod date;
mod fetch;
mod guard;
mod idle;
mod login;
mod parsing;
mod pull;
mod sent;
mod session;
mod watch;

pub use self::changes::Changes;
pub use self::choice::{Chosen, is_all, is_inbox_alone, readable};
pub use self::fetch::FetchReport;
pub use self::guard::GuardError;
pub use self::idle::{Others, Wake};
pub use self::parsing::keep_parser_panics_quiet;
pub use self::pull::{PullError, PullReport, pull_mailbox};
pub use self::sent::{Appended, SentLookup};
pub use self::session::{Access, Deleted, ImapAccount, ImapError, ImapSession, RemoteMailbox, Selected, SpecialUse};
pub use self::watch::{Backoff, Watched, watch_mailboxes};
