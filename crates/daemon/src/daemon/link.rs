//! The daemon's link: bound as the pair says, served session by session, and shown.

use std::sync::Arc;
use std::time::Duration;

use packetboat_core::delivery::message::MAX_MESSAGE_BYTES;
use packetboat_core::keys::DeviceKey;
use packetboat_link::{Endpoint, Identity, Link, Local, Session};
use serde_json::{Value, json};
use tokio::sync::watch;

use super::RunError;
use crate::clock::Clock;
use crate::pair::Pair;
use crate::peer::Peer;
use crate::settings::Settings;

/// Binds this device's side of the link and begins to keep it up.
pub(super) fn open_link(
    pair: &Pair,
    key: &DeviceKey,
    settings: &Settings,
    incarnation: [u8; 16],
) -> Result<(Endpoint, Link), RunError> {
    let locals = pair.locals.iter().map(|local| Local { address: local.address, interface: local.interface.clone() });
    let link_settings = packetboat_link::Settings {
        keep_alive: settings.link.keep_alive.0,
        idle: settings.link.idle.0,
        retry_greatest: settings.link.retry.0,
        limits: packetboat_link::Limits {
            // A copy for the most recipients there may be, and the byte that says that it is about delivery.
            message_bytes: MAX_MESSAGE_BYTES + 1,
            ..packetboat_link::Limits::default()
        },
        ..packetboat_link::Settings::default()
    };
    let endpoint = Endpoint::bind(Identity::from_seed(&key.seed()), locals.collect(), link_settings, incarnation)?;
    let peer = packetboat_link::Peer { key: pair.peer, addresses: pair.peer_addresses.clone() };
    let link = endpoint.link(peer)?;
    Ok((endpoint, link))
}

/// Serves one session after the other, and says which is up.
pub(super) async fn serve_link(mut peer: Peer, link: Arc<Link>, session_now: watch::Sender<Option<Session>>) {
    let mut sessions = link.sessions();
    while let Some(session) = sessions.next().await {
        tracing::info!("the link is up");
        session_now.send_replace(Some(session.clone()));
        peer.serve(session).await;
        session_now.send_replace(None);
        tracing::info!("the link is down");
    }
}

/// Shows people how the link stands.
pub(super) fn view_of_link(
    pair: Pair,
    link: Arc<Link>,
    skew: watch::Receiver<Option<i64>>,
    clock: Arc<dyn Clock>,
) -> Arc<dyn Fn() -> Value + Send + Sync> {
    Arc::new(move || {
        let now = clock.now().wall_ms;
        let ago = |elapsed: Duration| now.saturating_sub(u64::try_from(elapsed.as_millis()).unwrap_or(u64::MAX));
        let (up, since_ms, detail) = match link.status() {
            packetboat_link::Status::Up { since, remote, round_trip } => {
                let round_trip_ms = round_trip.as_secs_f64() * 1000.0;
                (true, ago(since.elapsed()), json!({ "remote": remote, "round_trip_ms": round_trip_ms }))
            }
            packetboat_link::Status::Down { since, error, tries, .. } => {
                let error = error.map(|error| error.to_string());
                (false, ago(since.elapsed()), json!({ "error": error, "tries": tries }))
            }
        };
        json!({
            "peer": pair.peer_name,
            "up": up,
            "since_ms": since_ms,
            "remote": detail["remote"],
            "round_trip_ms": detail["round_trip_ms"],
            "error": detail["error"],
            "tries": detail["tries"],
            "clock_ahead_ms": *skew.borrow(),
        })
    })
}
