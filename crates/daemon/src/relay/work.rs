//! When a companion works on what it carries: what waits is tried often, everything else when there is a reason.
//!
//! Reasons are: the host put something, a network appeared, what waited went up (so the intermediary is back), or it is
//! time. Between them nothing wakes but the timer for what waits, and that asks nobody while nothing waits.

use std::future::Future;
use std::sync::Arc;
use std::time::Duration;

use tokio::sync::watch;
use tokio::time::{Instant, sleep, sleep_until};

use super::carried::Carried;
use super::members::Members;
use crate::files::with_causes;

/// How often what is done.
#[derive(Clone, Copy, Debug)]
pub struct Often {
    /// Tries to put up what waits.
    pub retry: Duration,
    /// Rounds of this device's own replicas, and looks at what is new.
    pub poll: Duration,
}

/// Works until the task is dropped; `networks` changes when a network appears.
pub async fn run(carried: Arc<Carried>, members: Arc<Members>, often: Often, mut networks: watch::Receiver<u64>) {
    let mut stirred = members.stirred();
    let mut poll_at = Instant::now();
    loop {
        let all = tokio::select! {
            () = sleep_until(poll_at) => true,
            Ok(()) = networks.changed() => true,
            Ok(()) = stirred.changed() => {
                // A round of the host puts many objects; its end is what this device waits for.
                while tokio::time::timeout(QUIET, stirred.changed()).await.is_ok_and(|changed| changed.is_ok()) {}
                true
            }
            () = sleep(often.retry) => false,
        };
        let all = all || up(&carried).await > 0;
        if all {
            let carried = carried.clone();
            blocking(move || carried.work()).await;
            poll_at = Instant::now() + often.poll;
        }
    }
}

async fn up(carried: &Arc<Carried>) -> u64 {
    let carried = carried.clone();
    blocking(move || carried.put_up()).await.unwrap_or(0)
}

/// Does what blocks on disks and storages; what fails is told and tried again at its time.
fn blocking<T: Send + 'static, E: std::error::Error + Send + 'static>(
    work: impl FnOnce() -> Result<T, E> + Send + 'static,
) -> impl Future<Output = Option<T>> {
    let task = tokio::task::spawn_blocking(work);
    async {
        match task.await {
            Ok(Ok(done)) => Some(done),
            Ok(Err(error)) => {
                tracing::warn!(error = with_causes(&error), "vaults are not worked on");
                None
            }
            Err(error) => {
                tracing::error!(%error, "working on vaults ended");
                None
            }
        }
    }
}

const QUIET: Duration = Duration::from_secs(1);
