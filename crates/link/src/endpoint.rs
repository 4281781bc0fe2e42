//! This device's side of all its links: its sockets, whom it lets in, and to which link a connection belongs.
//!
//! One endpoint serves all peers. Only keys that have a [`Link`] now get through the handshake, in either direction.
//! Strangers cost little: what they can have in progress at once is bounded, and when many try, each must first show
//! that it receives at the address it sends from (QUIC's retry), before any signature is computed for it.

use std::collections::BTreeMap;
use std::fmt;
use std::net::SocketAddr;
use std::sync::{Arc, Mutex, MutexGuard, Weak};
use std::time::Duration;

use packetboat_core::keys::PublicKey;
use quinn::{EndpointConfig, TokioRuntime};
use thiserror::Error;
use tokio::sync::{Semaphore, mpsc};
use tokio::task::AbortHandle;
use tokio::time::{sleep, timeout};

use crate::greeting::Incarnation;
use crate::identity::Identity;
use crate::link::{Link, Peer};
use crate::session::{CLOSED, NOT_PAIRED};
use crate::settings::{Local, Settings};
use crate::socket::{self, BindError};
use crate::tls::{self, Paired, Trust};

/// This device's sockets, and the links over them.
#[derive(Clone)]
pub struct Endpoint(Arc<Shared>);

pub(crate) struct Shared {
    pub(crate) identity: Identity,
    pub(crate) settings: Settings,
    pub(crate) incarnation: Incarnation,
    paired: Paired,
    routes: Mutex<BTreeMap<PublicKey, mpsc::Sender<quinn::Connection>>>,
    sockets: Mutex<Vec<LinkSocket>>,
    handshakes: Arc<Semaphore>,
}

impl Endpoint {
    /// Binds the link's own addresses; call it within a tokio runtime.
    ///
    /// `incarnation` is random and another one at each start. An address or interface that is not there at the moment
    /// is no error: it is tried again whenever a link is about to dial.
    pub fn bind(
        identity: Identity,
        locals: Vec<Local>,
        settings: Settings,
        incarnation: [u8; 16],
    ) -> Result<Self, BindError> {
        let shared = Arc::new(Shared {
            identity,
            settings,
            incarnation: Incarnation(incarnation),
            paired: Paired::default(),
            routes: Mutex::default(),
            sockets: Mutex::new(locals.into_iter().map(|local| LinkSocket { local, bound: None }).collect()),
            handshakes: Arc::new(Semaphore::new(HANDSHAKES)),
        });
        for socket in lock(&shared.sockets).iter_mut() {
            match socket.look_after(&shared) {
                Err(error) if !error.may_pass() => return Err(error),
                _ => {}
            }
        }
        Ok(Self(shared))
    }

    /// Keeps a connection to a paired device, from now until the link is dropped.
    pub fn link(&self, peer: Peer) -> Result<Link, LinkError> {
        if peer.key == self.0.identity.public() {
            return Err(LinkError::Oneself);
        }
        let (found, connections) = mpsc::channel(CONNECTIONS);
        if !self.0.paired.insert(peer.key) {
            return Err(LinkError::Present);
        }
        lock(&self.0.routes).insert(peer.key, found);
        Ok(Link::start(self.0.clone(), peer, connections))
    }

    /// The addresses at which this device is reached now; the ports are the ones in use.
    pub fn local_addresses(&self) -> Vec<SocketAddr> {
        let sockets = lock(&self.0.sockets);
        sockets.iter().filter_map(|socket| socket.bound.as_ref()?.endpoint.local_addr().ok()).collect()
    }

    /// The local addresses that cannot be used at the moment, and why.
    pub fn problems(&self) -> Vec<BindError> {
        lock(&self.0.sockets).iter_mut().filter_map(|socket| socket.look_after(&self.0).err()).collect()
    }

    /// Closes all connections, waits until the peers were told, as far as they can be, and frees the ports.
    ///
    /// Sessions that someone still holds keep their ports in use.
    pub async fn close(&self) {
        let sockets = std::mem::take(&mut *lock(&self.0.sockets));
        let bound: Vec<_> = sockets.into_iter().filter_map(|socket| Some((socket.local, socket.bound?))).collect();
        for (_, bound) in &bound {
            bound.endpoint.close(CLOSED, b"");
        }
        let mut left = Vec::new();
        for (local, bound) in bound {
            // A peer that is gone acknowledges nothing.
            let _told = timeout(self.0.settings.greeting, bound.endpoint.wait_idle()).await;
            left.extend(bound.endpoint.local_addr().map(|address| Local { address, ..local }));
        }
        // The tasks that hold the sockets end by themselves, soon and unseen; whoever binds a port anew must know when.
        let freed = async {
            while left.iter().any(|local| socket::bind(local).is_err()) {
                sleep(FREEING).await;
            }
        };
        let _in_time = timeout(self.0.settings.greeting, freed).await;
    }
}

impl fmt::Debug for Endpoint {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Endpoint({:?})", self.0.identity)
    }
}

impl Shared {
    /// Lets a peer in no longer.
    pub(crate) fn forget(&self, key: &PublicKey) {
        self.paired.remove(key);
        lock(&self.routes).remove(key);
    }

    /// The sockets from which an address can be dialled, bound anew where that is needed.
    pub(crate) fn endpoints_towards(self: &Arc<Self>, remote: SocketAddr) -> Vec<(quinn::Endpoint, SocketAddr)> {
        let mut found = Vec::new();
        for socket in lock(&self.sockets).iter_mut() {
            if let Err(error) = socket.look_after(self) {
                tracing::debug!(%error, local = ?socket.local, "a local address cannot be used");
            }
            let Some(bound) = &socket.bound else { continue };
            if socket.local.address.is_ipv4() == remote.is_ipv4() {
                found.push((bound.endpoint.clone(), scoped(remote, bound.interface_number)));
            }
        }
        found
    }

    /// How to dial the device that has this key.
    pub(crate) fn client_config(&self, key: PublicKey) -> quinn::ClientConfig {
        let mut config = quinn::ClientConfig::new(tls::client(&self.identity, Trust::Key(key), LINK_PROTOCOL));
        config.transport_config(self.settings.transport());
        config
    }

    fn server_config(&self) -> quinn::ServerConfig {
        let crypto = tls::server(&self.identity, Trust::Paired(self.paired.clone()), LINK_PROTOCOL);
        let mut config = quinn::ServerConfig::with_crypto(crypto);
        config
            .transport_config(self.settings.transport())
            .max_incoming(HANDSHAKES)
            .incoming_buffer_size(INCOMING_BYTES)
            .incoming_buffer_size_total(INCOMING_BYTES * 4);
        config
    }

    /// What a start must have in common with the one before it: with it, a peer that still speaks to the earlier run
    /// is told at once that nobody there knows its connection (QUIC's stateless reset), and need not wait to notice.
    fn endpoint_config(&self) -> EndpointConfig {
        let secret = self.identity.reset_secret();
        let mut config = EndpointConfig::new(Arc::new(ResetKey(secret)));
        let connection_ids = u64::from_le_bytes(secret[..8].try_into().expect("eight bytes"));
        config.cid_generator(move || Box::new(quinn_proto::HashedConnectionIdGenerator::from_key(connection_ids)));
        let sized = config.max_udp_payload_size(crate::settings::GREATEST_DATAGRAM);
        sized.expect("the greatest datagram is within what QUIC allows");
        config
    }

    /// Takes what comes in at one socket until that socket is closed.
    ///
    /// It keeps nothing alive: the sockets go when nobody has the endpoint or a link any more.
    async fn answer(shared: Weak<Self>, endpoint: quinn::Endpoint) {
        while let Some(incoming) = endpoint.accept().await {
            let Some(shared) = shared.upgrade() else { return };
            let Ok(permit) = shared.handshakes.clone().try_acquire_owned() else {
                incoming.refuse();
                continue;
            };
            if shared.handshakes.available_permits() < HANDSHAKES / 2 && !incoming.remote_address_validated() {
                if let Err(error) = incoming.retry() {
                    error.into_incoming().refuse();
                }
                continue;
            }
            tokio::spawn(async move {
                let _permit = permit;
                let remote = incoming.remote_address();
                let shaken = async { incoming.accept()?.await };
                match timeout(shared.settings.greeting, shaken).await {
                    Ok(Ok(connection)) => shared.route(connection).await,
                    Ok(Err(error)) => tracing::debug!(%remote, %error, "refused a connection"),
                    Err(_) => tracing::debug!(%remote, "a handshake took too long"),
                }
            });
        }
    }

    async fn route(&self, connection: quinn::Connection) {
        let route = tls::peer_key(&connection).and_then(|key| lock(&self.routes).get(&key).cloned());
        match route {
            // A link that has too many to look at already does without this one.
            Some(link) => {
                if let Err(full) = link.try_send(connection) {
                    full.into_inner().close(CLOSED, b"");
                }
            }
            None => connection.close(NOT_PAIRED, b""),
        }
    }
}

/// One local address and, while it can be bound, its socket.
struct LinkSocket {
    local: Local,
    bound: Option<Bound>,
}

struct Bound {
    endpoint: quinn::Endpoint,
    interface_number: Option<u32>,
    answering: AbortHandle,
}

impl LinkSocket {
    fn look_after(&mut self, shared: &Arc<Shared>) -> Result<(), BindError> {
        let interface_number = self.local.interface.as_deref().and_then(socket::interface_number);
        if let Some(bound) = &self.bound {
            if bound.interface_number == interface_number {
                return Ok(());
            }
            self.bound = None;
        }
        let socket = socket::bind(&self.local)?;
        let failed = |source| BindError::Address { address: self.local.address, source };
        let server = Some(shared.server_config());
        let endpoint = quinn::Endpoint::new(shared.endpoint_config(), server, socket, Arc::new(TokioRuntime));
        let endpoint = endpoint.map_err(failed)?;
        let answering = tokio::spawn(Shared::answer(Arc::downgrade(shared), endpoint.clone())).abort_handle();
        self.bound = Some(Bound { endpoint, interface_number, answering });
        Ok(())
    }
}

impl Drop for Bound {
    fn drop(&mut self) {
        self.answering.abort();
    }
}

/// Makes the tokens of stateless resets.
struct ResetKey([u8; 32]);

impl quinn::crypto::HmacKey for ResetKey {
    fn sign(&self, data: &[u8], signature: &mut [u8]) {
        signature.copy_from_slice(blake3::keyed_hash(&self.0, data).as_bytes());
    }

    fn signature_len(&self) -> usize {
        32
    }

    fn verify(&self, data: &[u8], signature: &[u8]) -> Result<(), quinn::crypto::CryptoError> {
        // `blake3::Hash` compares in constant time.
        let signed =
            blake3::Hash::from_slice(signature).is_ok_and(|signed| signed == blake3::keyed_hash(&self.0, data));
        if signed { Ok(()) } else { Err(quinn::crypto::CryptoError) }
    }
}

/// A link-local IPv6 address means something only together with an interface, whose number differs per device.
fn scoped(remote: SocketAddr, interface_number: Option<u32>) -> SocketAddr {
    match (remote, interface_number) {
        (SocketAddr::V6(mut remote), Some(number)) if remote.ip().is_unicast_link_local() && remote.scope_id() == 0 => {
            remote.set_scope_id(number);
            remote.into()
        }
        _ => remote,
    }
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(|poisoned| poisoned.into_inner())
}

/// Why there cannot be a link to a device.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Error)]
pub enum LinkError {
    /// The peer's key is this device's own.
    #[error("a device cannot be its own companion")]
    Oneself,
    /// There is a link to that device already.
    #[error("there is a link to that device already")]
    Present,
}

/// The protocol that links speak, as TLS negotiates it.
const LINK_PROTOCOL: &[u8] = b"packetboat-link/1";

/// The name that is dialled; it is neither sent nor looked at.
pub(crate) const SERVER_NAME: &str = "packetboat";

/// Handshakes that may be in progress at once, of all peers and strangers together.
const HANDSHAKES: usize = 32;

/// What may be buffered of one connection that was not looked at yet, in bytes.
const INCOMING_BYTES: u64 = 256 << 10;

/// How often it is looked whether a port is free again.
const FREEING: Duration = Duration::from_millis(5);

/// Connections of one peer that may wait to be looked at.
const CONNECTIONS: usize = 4;
