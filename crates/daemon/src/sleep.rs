//! What the computer says before it sleeps and after: the host's turns go to the companion while the lid closes.
//!
//! logind holds the computer back for a moment for whoever asked for it (a *delay inhibitor*) and says `PrepareForSleep`.
//! Then a host offers all turns, waits until the companion took what it takes, and only after that lets go. When the
//! computer is awake the turns are wanted back, and another inhibitor is taken for the next time.
//! logind waits five seconds as it is set up, which is longer than this device ever takes ([`HAND_OVER_PATIENCE`]).
//!
//! Where there is no system bus, or no logind, nothing is said, and mails wait on the host as they do when it loses power.
//! A bus that went away is looked for again now and then, since it comes back with an update of the system.
//! zbus speaks to the bus: two calls and a signal need no library of the system.

use std::future::Future;
use std::time::Duration;

use futures_util::StreamExt;
use tokio::time::sleep;
use zbus::{Connection, OwnedFd, proxy};

use crate::files::with_causes;

/// What is done about it.
pub trait Sleeper: Send {
    /// The computer is about to sleep; it waits until this is done, for some seconds.
    fn falls_asleep(&mut self) -> impl Future<Output = ()> + Send;

    /// It is awake.
    fn wakes_up(&mut self) -> impl Future<Output = ()> + Send;
}

/// Listens until the task is dropped, or returns at once where the system has nothing to say.
pub async fn run(mut sleeper: impl Sleeper) {
    let mut heard_before = false;
    loop {
        match listen(&mut sleeper, &mut heard_before).await {
            Ok(()) => {}
            Err(error) if heard_before => {
                tracing::debug!(error = with_causes(&error), "the system does not tell of sleep any more");
            }
            Err(error) => {
                tracing::debug!(error = with_causes(&error), "the system does not tell of sleep");
                return;
            }
        }
        sleep(LOOK_AGAIN).await;
    }
}

async fn listen(sleeper: &mut impl Sleeper, heard: &mut bool) -> zbus::Result<()> {
    let bus = Connection::system().await?;
    let logind = ManagerProxy::new(&bus).await?;
    let mut words = logind.receive_prepare_for_sleep().await?;
    let mut inhibitor = Some(inhibit(&logind).await?);
    *heard = true;
    tracing::debug!("the system tells of sleep");
    while let Some(word) = words.next().await {
        if word.args()?.start {
            tracing::info!("the computer is about to sleep");
            sleeper.falls_asleep().await;
            // Closing it is what lets the computer sleep.
            drop(inhibitor.take());
        } else {
            tracing::info!("the computer is awake");
            sleeper.wakes_up().await;
            inhibitor = Some(inhibit(&logind).await?);
        }
    }
    Ok(())
}

async fn inhibit(logind: &ManagerProxy<'_>) -> zbus::Result<OwnedFd> {
    logind.inhibit("sleep", "Packetboat", "hands its mails to the companion", "delay").await
}

/// What logind offers (systemd, org.freedesktop.login1(5)).
#[proxy(
    interface = "org.freedesktop.login1.Manager",
    default_service = "org.freedesktop.login1",
    default_path = "/org/freedesktop/login1"
)]
trait Manager {
    fn inhibit(&self, what: &str, who: &str, why: &str, mode: &str) -> zbus::Result<OwnedFd>;

    #[zbus(signal)]
    fn prepare_for_sleep(&self, start: bool) -> zbus::Result<()>;
}

/// How long a hand-over may take before the computer sleeps: less than logind waits.
pub const HAND_OVER_PATIENCE: Duration = Duration::from_secs(4);

const LOOK_AGAIN: Duration = Duration::from_secs(60);
