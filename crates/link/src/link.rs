//! The connection to one paired device, kept up: dialled, answered, watched, and made again when it is lost.
//!
//! Both devices dial while they have no connection, and both answer; [`crate::arbiter`] says which connection is the
//! one. Losing it is nothing special: the next session comes when there is a network again, and whoever uses the link
//! sends anew what matters.
//!
//! A link has no clock but the runtime's and no randomness but what its endpoint was given, so a test may run it in
//! virtual time.

use std::fmt;
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use packetboat_core::keys::PublicKey;
use tokio::sync::{Notify, mpsc, watch};
use tokio::task::AbortHandle;
use tokio::time::Instant;

use crate::dial::DialError;
use crate::driver::Driver;
use crate::endpoint::Shared;
use crate::session::{Session, SessionError};

/// A paired device, and where it may be found.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Peer {
    /// Its key, as it was paired.
    pub key: PublicKey,
    /// Its addresses, the likeliest first; none where only the peer dials.
    pub addresses: Vec<SocketAddr>,
}

/// The connection to a paired device, whether it stands at the moment or not.
///
/// Dropping the link ends it, and its peer is no longer let in.
pub struct Link {
    key: PublicKey,
    shared: Arc<Shared>,
    control: Arc<Control>,
    state: watch::Receiver<State>,
    task: AbortHandle,
}

impl Link {
    pub(crate) fn start(shared: Arc<Shared>, peer: Peer, connections: mpsc::Receiver<quinn::Connection>) -> Self {
        let key = peer.key;
        let control = Arc::new(Control { dial_now: Notify::new(), addresses: watch::Sender::new(peer.addresses) });
        let (publish, state) = watch::channel(State {
            standing: Err(Down { since: Instant::now(), error: None, tries: 0, next_try: None }),
            last_up: None,
        });
        let driver = Driver::new(shared.clone(), key, control.clone(), publish);
        let task = tokio::spawn(driver.run(connections)).abort_handle();
        Self { key, shared, control, state, task }
    }

    /// The peer's key.
    pub fn peer(&self) -> PublicKey {
        self.key
    }

    /// The session that stands now, if one does.
    pub fn session(&self) -> Option<Session> {
        self.state.borrow().standing.as_ref().ok().map(|up| up.session.clone())
    }

    /// The sessions to come, beginning with the one that stands now.
    pub fn sessions(&self) -> Sessions {
        Sessions { state: self.state.clone(), given: None }
    }

    /// How the link stands.
    pub fn status(&self) -> Status {
        self.state.borrow().status()
    }

    /// Waits until the link comes up, goes down, or fails to come up once more.
    pub async fn changed(&self) {
        let mut state = self.state.clone();
        state.mark_unchanged();
        // Cannot fail while there is a link.
        let _ended = state.changed().await;
    }

    /// Dials at once, as when the system says that a network has come.
    pub fn dial_now(&self) {
        self.control.dial_now.notify_one();
    }

    /// Dials these addresses from now on.
    pub fn set_addresses(&self, addresses: Vec<SocketAddr>) {
        let changed = self.control.addresses.send_if_modified(|known| {
            let changed = *known != addresses;
            *known = addresses;
            changed
        });
        if changed {
            self.dial_now();
        }
    }
}

impl fmt::Debug for Link {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Link").field("peer", &self.key).field("status", &self.status()).finish_non_exhaustive()
    }
}

impl Drop for Link {
    fn drop(&mut self) {
        self.shared.forget(&self.key);
        self.task.abort();
        if let Some(session) = self.session() {
            session.close();
        }
    }
}

/// The sessions of a link, one after the other.
#[derive(Debug)]
pub struct Sessions {
    state: watch::Receiver<State>,
    given: Option<u64>,
}

impl Sessions {
    /// Waits for a session that was not given yet; nothing once the link is dropped. Cancel-safe.
    pub async fn next(&mut self) -> Option<Session> {
        let given = self.given;
        let fresh = |state: &State| state.standing.as_ref().is_ok_and(|up| Some(up.serial) != given);
        let state = self.state.wait_for(fresh).await.ok()?;
        let up = state.standing.as_ref().ok()?;
        self.given = Some(up.serial);
        Some(up.session.clone())
    }
}

/// How a link stands.
#[derive(Clone, Debug)]
pub enum Status {
    /// There is a session.
    Up {
        /// Since when.
        since: Instant,
        /// Where the peer is.
        remote: Option<SocketAddr>,
        /// How long its answers take.
        round_trip: Duration,
    },
    /// There is none.
    Down {
        /// Since when.
        since: Instant,
        /// Why the last session ended or the last try failed.
        error: Option<DownError>,
        /// Tries that failed since.
        tries: u32,
        /// When the next one begins; nothing while one is going on.
        next_try: Option<Instant>,
        /// When there last was a session.
        last_up: Option<Instant>,
    },
}

/// Why a link is down.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum DownError {
    /// The session ended.
    #[error(transparent)]
    Ended(SessionError),
    /// No connection came about.
    #[error(transparent)]
    Dial(DialError),
}

/// What the users of a link may ask of its driver.
pub(crate) struct Control {
    pub(crate) dial_now: Notify,
    pub(crate) addresses: watch::Sender<Vec<SocketAddr>>,
}

/// What the driver of a link says of it.
#[derive(Debug)]
pub(crate) struct State {
    pub(crate) standing: Result<Up, Down>,
    pub(crate) last_up: Option<Instant>,
}

#[derive(Debug)]
pub(crate) struct Up {
    pub(crate) session: Session,
    /// Counts the sessions of this link.
    pub(crate) serial: u64,
    pub(crate) since: Instant,
}

#[derive(Debug)]
pub(crate) struct Down {
    pub(crate) since: Instant,
    pub(crate) error: Option<DownError>,
    pub(crate) tries: u32,
    pub(crate) next_try: Option<Instant>,
}

impl State {
    fn status(&self) -> Status {
        match &self.standing {
            Ok(up) => {
                Status::Up { since: up.since, remote: up.session.remote_address(), round_trip: up.session.round_trip() }
            }
            Err(down) => Status::Down {
                since: down.since,
                error: down.error.clone(),
                tries: down.tries,
                next_try: down.next_try,
                last_up: self.last_up,
            },
        }
    }
}
