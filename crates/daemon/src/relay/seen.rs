//! What a host knows of what waits on its companion, for people: asked anew each time, and remembered for when the link is
//! down.

use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use packetboat_link::Session;
use serde_json::{Value, json};
use tokio::sync::watch;
use tokio::time::timeout;

use super::answer;
use super::message::{Answer, NO_VAULT, Request, Standing, What};
use crate::clock::Clock;

/// What a host last heard of what waits on its companion.
pub struct Seen {
    session: watch::Receiver<Option<Session>>,
    clock: Arc<dyn Clock>,
    last: Mutex<Option<(u64, Vec<Standing>)>>,
}

impl Seen {
    /// Nothing was heard yet.
    pub fn new(session: watch::Receiver<Option<Session>>, clock: Arc<dyn Clock>) -> Self {
        Self { session, clock, last: Mutex::default() }
    }

    /// Asks, if the link is up, and says what is known; null, where nothing ever was.
    pub async fn view(&self) -> Value {
        let session = self.session.borrow().clone();
        if let Some(session) = session {
            let request = Request { vault: NO_VAULT, what: What::Standing };
            // Whoever wants to see how the link stands does not want to wait until it is known to be dead.
            if let Ok(Ok(Answer::Standing(all))) = timeout(PATIENCE, answer::ask(&session, &request, &[])).await {
                *self.last() = Some((self.clock.now().wall_ms, all));
            }
        }
        let Some((asked_ms, all)) = self.last().clone() else { return Value::Null };
        let vault = |standing: &Standing| {
            json!({
                "vault": standing.vault.to_string(),
                "member": standing.member,
                "reached": standing.reached,
                "waiting": standing.waiting,
                "waiting_bytes": standing.waiting_bytes,
                "since_ms": standing.since_ms,
            })
        };
        json!({ "asked_ms": asked_ms, "vaults": all.iter().map(vault).collect::<Vec<_>>() })
    }

    fn last(&self) -> std::sync::MutexGuard<'_, Option<(u64, Vec<Standing>)>> {
        self.last.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

const PATIENCE: Duration = Duration::from_secs(3);
