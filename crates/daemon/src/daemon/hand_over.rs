//! Handing the turns to the companion, before this device stops or its computer sleeps.

use std::sync::Arc;
use std::time::Duration;

use packetboat_core::delivery::Event;
use packetboat_link::Link;
use tokio::sync::watch;
use tokio::time::timeout;

use crate::outbox::courier::Courier;
use crate::outbox::desk::Input;
use crate::sleep::{self, Sleeper};

/// Offers all turns to the companion, and waits until it has taken what it takes, or for as long as is seemly.
pub(super) async fn hand_over(courier: &Courier, mut active: watch::Receiver<u64>, patience: Duration) {
    courier.tell(Input::HappenedToAll(Event::HandOver)).await;
    let quiet =
        async { while timeout(HAND_OVER_QUIET, active.changed()).await.is_ok_and(|changed| changed.is_ok()) {} };
    let _in_time = timeout(patience, quiet).await;
}

/// A device whose computer sleeps now and then.
pub(super) struct SleepyDevice {
    pub(super) courier: Courier,
    pub(super) active: watch::Receiver<u64>,
    pub(super) is_host: bool,
    pub(super) link: Option<Arc<Link>>,
}

impl Sleeper for SleepyDevice {
    async fn falls_asleep(&mut self) {
        if self.is_host {
            hand_over(&self.courier, self.active.clone(), sleep::HAND_OVER_PATIENCE).await;
        }
    }

    async fn wakes_up(&mut self) {
        if self.is_host {
            self.courier.tell(Input::HappenedToAll(Event::TakeBack)).await;
        }
        if let Some(link) = &self.link {
            link.dial_now();
        }
    }
}

/// After how long without anything done it counts as finished.
const HAND_OVER_QUIET: Duration = Duration::from_millis(500);
