//! Delivering what a session fetches while it fetches: how the two ends come together, whatever the protocol is.

use std::error::Error;

use super::arrivals::Delivering;
use super::deliver::{DeliverError, Deliverer, Summary};
use super::{FetchedError, Folders};

/// Why fetching stopped.
pub(crate) enum FetchError<E> {
    /// The session failed.
    Session(E),
    /// The deliverer takes nothing more, and says why itself.
    Stopped,
}

impl<E> From<E> for FetchError<E> {
    fn from(error: E) -> Self {
        Self::Session(error)
    }
}

/// Why a mailbox or a maildrop was not brought up to date. What was delivered until then stays.
#[derive(Debug, thiserror::Error)]
pub enum PullError<E: Error + 'static> {
    /// The session failed.
    #[error(transparent)]
    Session(E),
    /// The record failed.
    #[error(transparent)]
    Record(#[from] FetchedError),
    /// Delivery failed.
    #[error(transparent)]
    Deliver(#[from] DeliverError),
    /// The delivering thread is gone.
    #[error("the delivering thread ended")]
    Panicked,
}

/// Waits for the thread that delivers what was fetched, to which nothing more is handed on.
///
/// The deliverer comes back in every case, but for a panic of its thread.
pub(crate) async fn delivered<S, F: Folders, T, E: Error + 'static>(
    delivering: Delivering<S, F>,
    fetched: Result<T, FetchError<E>>,
) -> (Option<Deliverer<S, F>>, Result<(Summary, T), PullError<E>>) {
    let Ok((deliverer, delivered)) = delivering.await else { return (None, Err(PullError::Panicked)) };
    let outcome = match (fetched, delivered) {
        // Why the deliverer stopped taking is its to say.
        (_, Err(error)) => Err(error.into()),
        (Ok(fetched), Ok(summary)) => Ok((summary, fetched)),
        (Err(FetchError::Session(error)), Ok(_)) => Err(PullError::Session(error)),
        (Err(FetchError::Stopped), Ok(_)) => Err(PullError::Panicked),
    };
    (Some(deliverer), outcome)
}
