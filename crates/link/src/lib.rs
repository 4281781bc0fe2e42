//! Device to device: pairing two computers, and the authenticated connection between them.
//!
//! [`Endpoint`] is this device's side: its key and its own addresses. [`Link`] keeps a connection to one paired device
//! and gives a [`Session`] each time there is one. A session carries messages in order and bodies beside them, and
//! ends with its connection.
//!
//! The link moves bytes and gives them no meaning: what messages say, and what the names of bodies mean, is decided
//! above. Nothing here is stored, and what a session lost is sent again by whoever needs it.

mod arbiter;
mod backoff;
mod bulk;
mod dial;
mod driver;
mod endpoint;
#[cfg(feature = "fuzzing")]
pub mod fuzzing;
mod greeting;
#[cfg(test)]
mod hostile;
mod identity;
mod link;
pub mod pairing;
mod session;
mod settings;
mod socket;
mod stream;
mod tls;

pub use bulk::{BulkError, GetRequest, Incoming, Outgoing, Part, PutRequest, Refusal, Request};
pub use dial::DialError;
pub use endpoint::{Endpoint, LinkError};
pub use identity::Identity;
pub use link::{DownError, Link, Peer, Sessions, Status};
pub use session::{Session, SessionError};
pub use settings::{Limits, Local, Settings};
pub use socket::BindError;
pub use stream::StreamError;
