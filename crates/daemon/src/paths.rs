//! What is known of this device's own way out: whether it carries, since when, and why not.
//!
//! It is learned from use. A connection that stands says that the path is up, whatever the routes say; one that cannot
//! be made says that it is down. What the server of an account says of the account says nothing of the path.

use std::sync::{Arc, Mutex};

use packetboat_mail::smtp::Kind;
use serde::{Deserialize, Serialize};
use tokio::sync::watch;

use crate::clock::Clock;

/// How a path stands.
#[derive(Clone, PartialEq, Eq, Debug, Default, Serialize, Deserialize)]
pub struct PathState {
    /// Whether it carries; not known before it was used.
    pub up: Option<bool>,
    /// Since when, in milliseconds since 1970.
    pub since_ms: Option<u64>,
    /// When something last went by it.
    pub last_success_ms: Option<u64>,
    /// Why it last failed.
    pub last_failure: Option<String>,
    /// When it did.
    pub last_failure_ms: Option<u64>,
}

/// Watches this device's own path.
#[derive(Clone)]
pub struct PathWatch {
    clock: Arc<dyn Clock>,
    state: Arc<watch::Sender<PathState>>,
    last_hint: Arc<Mutex<u64>>,
}

impl PathWatch {
    /// Knows nothing yet.
    pub fn new(clock: Arc<dyn Clock>) -> Self {
        Self { clock, state: Arc::new(watch::Sender::new(PathState::default())), last_hint: Arc::default() }
    }

    /// Something went by the path.
    pub fn succeeded(&self) {
        let now = self.clock.now().wall_ms;
        self.state.send_if_modified(|state| {
            state.last_success_ms = Some(now);
            Self::turn(state, true, now)
        });
    }

    /// Something failed; only a failure of the path itself says that it is down.
    pub fn failed(&self, why: &str, kind: Kind) {
        let now = self.clock.now().wall_ms;
        self.state.send_if_modified(|state| {
            if kind == Kind::Withheld {
                return false;
            }
            state.last_failure = Some(why.to_owned());
            state.last_failure_ms = Some(now);
            kind == Kind::Path && Self::turn(state, false, now)
        });
    }

    /// How it stands.
    pub fn state(&self) -> PathState {
        self.state.borrow().clone()
    }

    /// Waits until the path comes back after it was down. It is said once in a while at most: mails that are all tried
    /// anew because one got through must not be so each second on a path that comes and goes.
    pub async fn came_back(&self) {
        let mut states = self.state.subscribe();
        let mut was_down = states.borrow_and_update().up == Some(false);
        loop {
            if states.changed().await.is_err() {
                return std::future::pending().await;
            }
            let up = states.borrow_and_update().up;
            if up == Some(true) && was_down && self.may_hint() {
                return;
            }
            was_down = up == Some(false);
        }
    }

    fn may_hint(&self) -> bool {
        let now = self.clock.now().since_boot_ms;
        let mut last = self.last_hint.lock().unwrap_or_else(|poisoned| poisoned.into_inner());
        let may = *last == 0 || now.saturating_sub(*last) >= HINT_EVERY_MS;
        if may {
            *last = now.max(1);
        }
        may
    }

    fn turn(state: &mut PathState, up: bool, now: u64) -> bool {
        let turned = state.up != Some(up);
        if turned {
            state.up = Some(up);
            state.since_ms = Some(now);
        }
        turned
    }
}

const HINT_EVERY_MS: u64 = 10_000;

#[cfg(test)]
mod tests {
    use packetboat_core::delivery::Now;
    use packetboat_core::ids::BootId;

    use super::*;

    struct Still;

    impl Clock for Still {
        fn now(&self) -> Now {
            Now { boot: BootId([0; 16]), since_boot_ms: 5, wall_ms: 7 }
        }
    }

    #[test]
    fn only_the_path_itself_turns_the_path() {
        let watch = PathWatch::new(Arc::new(Still));
        watch.failed("wrong password", Kind::Account);
        assert_eq!(watch.state().up, None);
        assert_eq!(watch.state().last_failure.as_deref(), Some("wrong password"));
        watch.failed("no network", Kind::Path);
        assert_eq!((watch.state().up, watch.state().since_ms), (Some(false), Some(7)));
        watch.succeeded();
        assert_eq!(watch.state().up, Some(true));
    }

    #[tokio::test]
    async fn coming_back_is_said_once_in_a_while() {
        let watch = PathWatch::new(Arc::new(Still));
        let mut back = Box::pin(watch.came_back());
        assert!(futures_poll(&mut back).await.is_none());
        watch.failed("no network", Kind::Path);
        assert!(futures_poll(&mut back).await.is_none());
        watch.succeeded();
        assert!(futures_poll(&mut back).await.is_some());
        let mut again = Box::pin(watch.came_back());
        watch.failed("no network", Kind::Path);
        assert!(futures_poll(&mut again).await.is_none());
        watch.succeeded();
        assert!(futures_poll(&mut again).await.is_none(), "the clock stands still");
    }

    async fn futures_poll<F: Future<Output = ()> + Unpin>(future: &mut F) -> Option<()> {
        tokio::select! {
            biased;
            () = future => Some(()),
            () = tokio::task::yield_now() => None,
        }
    }
}
