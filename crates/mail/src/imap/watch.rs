//! Watching mailboxes for as long as is wanted: connecting, waiting, and connecting again after ever longer pauses.
//!
//! The inbox is watched by any server. The others are where the server can tell of them; whoever listens hears whether it
//! does, and asks now and then where it does not.

use std::time::Duration;

use tokio::sync::mpsc;
use tokio::time::sleep;

use super::choice::{Chosen, is_all, is_inbox_alone};
use super::idle::{Others, Wake};
use super::session::{Access, ImapAccount, ImapError, ImapSession};

/// How long to pause after failures, doubled with each up to a limit.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Backoff {
    /// After the first.
    pub first: Duration,
    /// At most.
    pub greatest: Duration,
}

impl Default for Backoff {
    fn default() -> Self {
        Self { first: Duration::from_secs(5), greatest: Duration::from_secs(15 * 60) }
    }
}

impl Backoff {
    /// The pause after so many failures in a row; `share` of the second half of it is left to chance, from 0 to 255.
    ///
    /// So devices that lost one server in one instant do not come back in one instant.
    pub fn pause(&self, failures: u32, share: u8) -> Duration {
        let doubled = self.first.saturating_mul(2u32.saturating_pow(failures.saturating_sub(1).min(31)));
        let pause = doubled.min(self.greatest);
        pause / 2 + pause / 2 * u32::from(share) / 255
    }
}

/// What a watcher tells.
#[derive(Debug)]
pub enum Watched {
    /// It is connected; what came meanwhile is to be fetched.
    Connected {
        /// Whether the server tells of every mailbox that is wanted, and not of the inbox alone.
        all: bool,
    },
    /// Something happened in a mailbox.
    News,
    /// It is not connected any more, and tries again after a pause.
    Lost {
        /// Why.
        error: ImapError,
        /// The pause.
        pause: Duration,
    },
    /// No further try can help until someone changes the account.
    Refused {
        /// Why.
        error: ImapError,
    },
}

/// Watches the inbox, and as many of the `wanted` mailboxes as the server can tell of, until nobody listens any more or
/// the server refuses the login.
///
/// `chance` gives a number from 0 to 255 for each pause.
pub async fn watch_mailboxes(
    account: &ImapAccount,
    wanted: &[String],
    renewal: Duration,
    backoff: Backoff,
    mut chance: impl FnMut() -> u8,
    listener: mpsc::Sender<Watched>,
) {
    let mut failures = 0;
    loop {
        let watched = watch_once(account, wanted, renewal, &listener, &mut failures);
        let error = tokio::select! {
            ended = watched => match ended {
                Ok(()) => return,
                Err(error) => error,
            },
            () = listener.closed() => return,
        };
        if error.is_final() {
            let _ = listener.send(Watched::Refused { error }).await;
            return;
        }
        failures = failures.saturating_add(1);
        let pause = backoff.pause(failures, chance());
        if listener.send(Watched::Lost { error, pause }).await.is_err() {
            return;
        }
        tokio::select! {
            () = sleep(pause) => {}
            () = listener.closed() => return,
        }
    }
}

/// One connection; it ends well when nobody listens.
async fn watch_once(
    account: &ImapAccount,
    wanted: &[String],
    renewal: Duration,
    listener: &mpsc::Sender<Watched>,
    failures: &mut u32,
) -> Result<(), ImapError> {
    let mut session = ImapSession::open(account).await?;
    let all = is_inbox_alone(wanted) || watch_others(&mut session, wanted).await?;
    session.select("INBOX", Access::Read).await?;
    if listener.send(Watched::Connected { all }).await.is_err() {
        return Ok(());
    }
    loop {
        let wake = session.wait(renewal).await?;
        // A server that logs in and then hangs up counts as failing; one that waited with us does not.
        *failures = 0;
        if wake == Wake::News && listener.send(Watched::News).await.is_err() {
            return Ok(());
        }
    }
}

/// Asks the server to tell of the mailboxes beside the inbox; says whether it will.
async fn watch_others(session: &mut ImapSession, wanted: &[String]) -> Result<bool, ImapError> {
    if !session.can("NOTIFY") {
        return Ok(false);
    }
    let others = match is_all(wanted) {
        true => Others::All,
        false => {
            let chosen = Chosen::of(&session.mailboxes().await?, wanted);
            let others = chosen.found.into_iter().filter(|(_, folder)| !folder.is_inbox());
            Others::Named(others.map(|(mailbox, _)| mailbox).collect())
        }
    };
    match &others {
        Others::Named(names) if names.is_empty() => Ok(true),
        others => session.notify_of(others).await,
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn pauses_double_up_to_a_limit() {
        let backoff = Backoff::default();
        let pauses: Vec<u64> = (1..=10).map(|failures| backoff.pause(failures, 255).as_secs()).collect();
        assert_eq!(pauses, [5, 10, 20, 40, 80, 160, 320, 640, 900, 900]);
    }

    proptest! {
        #[test]
        fn chance_takes_at_most_half(failures in any::<u32>(), share in any::<u8>()) {
            let backoff = Backoff::default();
            let (least, greatest) = (backoff.pause(failures, 0), backoff.pause(failures, 255));
            let pause = backoff.pause(failures, share);
            prop_assert!(least <= pause && pause <= greatest && least * 2 <= greatest + Duration::from_nanos(1));
            prop_assert!(greatest <= backoff.greatest && greatest >= backoff.first.min(backoff.greatest) / 2);
        }
    }
}
