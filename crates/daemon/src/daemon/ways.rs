//! What the daemon does when the system says that ways out to networks came or went.

use std::sync::Arc;

use packetboat_core::delivery::Event;
use packetboat_link::Link;
use packetboat_mail::smtp::Kind;
use tokio::sync::watch;

use crate::network::{Network, Ways};
use crate::outbox::courier::Courier;
use crate::outbox::desk::Input;
use crate::outbox::transmit::Transmit;
use crate::paths::PathWatch;

/// Tells the mails when a way out appears, and dials the other device at once, which may be reachable by it.
pub(super) async fn watch_network(
    courier: Courier,
    transmit: Transmit,
    watch: PathWatch,
    link: Option<Arc<Link>>,
    networks: watch::Sender<u64>,
) {
    let mut network = match Network::watch() {
        Ok(network) => network,
        Err(error) => {
            tracing::debug!(%error, "the system does not tell of networks that come and go");
            return;
        }
    };
    while let Ok(ways) = network.changed().await {
        tracing::debug!(?ways, "the ways out changed");
        match ways {
            Ways::New => {
                courier.tell(Input::HappenedToAll(Event::PathUp)).await;
                networks.send_modify(|count| *count += 1);
                if let Some(link) = &link {
                    link.dial_now();
                }
            }
            Ways::None => {
                transmit.path_lost();
                watch.failed("there is no route to any network", Kind::Path);
                courier.tell(Input::HappenedToAll(Event::PathDown)).await;
            }
        }
    }
}
