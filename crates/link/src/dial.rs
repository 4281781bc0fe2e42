//! Trying several addresses of one peer side by side; the first that answers with the right key wins.
//!
//! Tries begin one after the other, a little apart (as in RFC 8305), so that a good first address is not outrun by a
//! worse one, and one that answers nothing delays the next by that little only.
//! An address at which another device answers is a failed try like any other.

use std::net::SocketAddr;
use std::sync::Arc;

use packetboat_core::keys::PublicKey;
use thiserror::Error;
use tokio::task::JoinSet;
use tokio::time::{sleep, timeout};

use crate::endpoint::{SERVER_NAME, Shared};
use crate::session::access_denied;

/// Connects to the device that has `key`, by whichever of the addresses answers first.
pub(crate) async fn dial(
    shared: &Arc<Shared>,
    key: PublicKey,
    addresses: &[SocketAddr],
) -> Result<quinn::Connection, DialError> {
    let config = shared.client_config(key);
    let mut tries = JoinSet::new();
    let mut begun = 0;
    for &address in addresses {
        for (endpoint, remote) in shared.endpoints_towards(address) {
            let (config, connect) = (config.clone(), shared.settings.connect);
            let wait = shared.settings.stagger * begun;
            begun += 1;
            tries.spawn(async move {
                sleep(wait).await;
                let connecting = endpoint.connect_with(config, remote, SERVER_NAME);
                let connecting = connecting.map_err(|_| DialError::Unreachable { address })?;
                match timeout(connect, connecting).await {
                    Ok(Ok(connection)) => Ok(connection),
                    Ok(Err(error)) => Err(DialError::from_connecting(&error, address)),
                    Err(_) => Err(DialError::Silent { address }),
                }
            });
        }
    }
    let mut worst = None;
    while let Some(tried) = tries.join_next().await {
        match tried {
            // The other tries end with the set.
            Ok(Ok(connection)) => return Ok(connection),
            Ok(Err(error)) => worst = worst.max(Some(error)),
            Err(_aborted) => {}
        }
    }
    Err(worst.unwrap_or(DialError::NoAddress))
}

/// Why a peer could not be reached; of several addresses, the failure that says most, which is the last in this order.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Error)]
pub enum DialError {
    /// No address of the peer is known that this device's own addresses can dial.
    #[error("no address of the peer can be dialled from here")]
    NoAddress,
    /// The system does not send there.
    #[error("{address} cannot be reached from here")]
    Unreachable {
        /// The peer's address.
        address: SocketAddr,
    },
    /// Nothing answered in time.
    #[error("{address} does not answer")]
    Silent {
        /// The peer's address.
        address: SocketAddr,
    },
    /// Something answered and is not a link, or broke off.
    #[error("{address} answers, but not as a link does")]
    Strange {
        /// The peer's address.
        address: SocketAddr,
    },
    /// The connection stood and the peer did not greet or accept it.
    #[error("the peer did not take the connection")]
    NotTaken,
    /// The peer does not know this device's key, or knows it no longer.
    #[error("the peer refuses this device's key; pair the two again")]
    NotPaired,
    /// Another device answers at the address, or the peer has a new key.
    #[error("the device at {address} has another key than the one that was paired; pair the two again if it is yours")]
    WrongKey {
        /// The peer's address.
        address: SocketAddr,
    },
}

impl DialError {
    fn from_connecting(error: &quinn::ConnectionError, address: SocketAddr) -> Self {
        use quinn::ConnectionError as Error;
        match error {
            Error::TransportError(error) if error.code == access_denied() => Self::WrongKey { address },
            Error::ConnectionClosed(close) if close.error_code == access_denied() => Self::NotPaired,
            Error::TimedOut => Self::Silent { address },
            _ => Self::Strange { address },
        }
    }
}
