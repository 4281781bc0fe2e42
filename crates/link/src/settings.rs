//! What a link's user may set: times, and how much a peer may ask of this device.
//!
//! A peer is paired and yet bounded in everything: it may be broken, or in someone else's hands.
//! The greatest memory that one peer can make this device hold is about `receive_window` for what was sent and not
//! yet read, `send_window` for what was written and not yet acknowledged, and one control message.

use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use quinn::{IdleTimeout, MtuDiscoveryConfig, TransportConfig, VarInt};

/// How a link behaves.
#[derive(Clone, Debug)]
pub struct Settings {
    /// How often something is sent over a connection on which nothing else is, so that its loss is noticed.
    pub keep_alive: Duration,
    /// How long nothing may come from the peer before the connection counts as lost; at least twice `keep_alive`.
    pub idle: Duration,
    /// How long one try to connect to one address may take.
    pub connect: Duration,
    /// How much later than the one before it a try to the next address begins, while none has succeeded.
    pub stagger: Duration,
    /// How long a connection may take to say who it is, once it stands.
    pub greeting: Duration,
    /// The longest wait after a first failure to connect; it doubles with each further one.
    pub retry_first: Duration,
    /// The longest wait between tries to connect.
    pub retry_greatest: Duration,
    /// What a peer may ask of this device.
    pub limits: Limits,
}

impl Default for Settings {
    fn default() -> Self {
        Self {
            keep_alive: Duration::from_secs(5),
            idle: Duration::from_secs(15),
            connect: Duration::from_secs(5),
            stagger: Duration::from_millis(250),
            greeting: Duration::from_secs(5),
            retry_first: Duration::from_millis(500),
            retry_greatest: Duration::from_secs(30),
            limits: Limits::default(),
        }
    }
}

/// Bounds on what one peer can make this device hold or wait for.
#[derive(Clone, Debug)]
pub struct Limits {
    /// Longest control message, in bytes.
    pub message_bytes: usize,
    /// Longest name in a request, in bytes.
    pub name_bytes: usize,
    /// Requests of the peer that may be open at once; further ones wait at the peer.
    pub requests: u32,
    /// How long a request may take to say what it wants.
    pub request: Duration,
    /// How long the answer to a request may take to begin.
    pub answer: Duration,
    /// How long a body or message on its way may bring less than [`Self::stall_bytes`].
    pub stall: Duration,
    /// What must come or go within each [`Self::stall`], in bytes, for a transfer to count as alive.
    pub stall_bytes: u64,
    /// Bytes of one body that may be on their way and unread.
    pub stream_window: u32,
    /// Bytes of all streams of one connection that may be on their way and unread.
    pub receive_window: u32,
    /// Bytes of one connection that may be written and not yet acknowledged.
    pub send_window: u32,
}

impl Default for Limits {
    fn default() -> Self {
        Self {
            message_bytes: 1 << 20,
            name_bytes: 4096,
            requests: 32,
            request: Duration::from_secs(10),
            answer: Duration::from_secs(60),
            stall: Duration::from_secs(30),
            stall_bytes: 1024,
            stream_window: 8 << 20,
            receive_window: 16 << 20,
            send_window: 16 << 20,
        }
    }
}

/// One of this device's own addresses, from which a link leaves and at which it is reached.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Local {
    /// Address and port; the unspecified address stands for all addresses of the interface.
    pub address: SocketAddr,
    /// The network interface that nothing may leave but by it.
    ///
    /// An address alone does not hold traffic back: when the link's own network is gone, the system routes packets
    /// for its addresses by whatever default route is left, which on a companion is the metered uplink.
    pub interface: Option<String>,
}

impl From<SocketAddr> for Local {
    fn from(address: SocketAddr) -> Self {
        Self { address, interface: None }
    }
}

impl Settings {
    pub(crate) fn transport(&self) -> Arc<TransportConfig> {
        let limits = &self.limits;
        let mut config = TransportConfig::default();
        config
            .keep_alive_interval(Some(self.keep_alive))
            .max_idle_timeout(Some(IdleTimeout::try_from(self.idle).unwrap_or(IdleTimeout::from(VarInt::MAX))))
            // One more than there may be requests: the control stream.
            .max_concurrent_bidi_streams(VarInt::from_u32(limits.requests.saturating_add(1)))
            .max_concurrent_uni_streams(VarInt::from_u32(0))
            .datagram_receive_buffer_size(None)
            .stream_receive_window(VarInt::from_u32(limits.stream_window))
            .receive_window(VarInt::from_u32(limits.receive_window))
            .send_window(u64::from(limits.send_window))
            .mtu_discovery_config(Some(discovery()));
        Arc::new(config)
    }
}

/// Looks for datagrams far larger than Ethernet's, which loopback, jumbo frames and some tethers carry.
fn discovery() -> MtuDiscoveryConfig {
    let mut discovery = MtuDiscoveryConfig::default();
    discovery.upper_bound(GREATEST_DATAGRAM);
    discovery
}

/// Greatest UDP payload that is tried.
pub(crate) const GREATEST_DATAGRAM: u16 = 9_000 - 48;
