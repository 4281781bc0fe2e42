//! Devices on loopback, for the tests of the link.
#![allow(dead_code, reason = "each test binary uses some of this")]

use std::net::{Ipv4Addr, SocketAddr, UdpSocket};
use std::time::Duration;

use packetboat_core::keys::PublicKey;
use packetboat_link::{Endpoint, Identity, Link, Local, Peer, Session, Settings, Status};
use tokio::time::timeout;

/// Times short enough for tests and long enough for a busy computer.
pub(crate) fn quick() -> Settings {
    Settings {
        keep_alive: Duration::from_millis(200),
        idle: Duration::from_millis(1500),
        connect: Duration::from_millis(1500),
        stagger: Duration::from_millis(50),
        greeting: Duration::from_millis(1500),
        retry_first: Duration::from_millis(50),
        retry_greatest: Duration::from_millis(300),
        ..Settings::default()
    }
}

pub(crate) fn identity(seed: u8) -> Identity {
    Identity::from_seed(&[seed; 32])
}

pub(crate) fn key(seed: u8) -> PublicKey {
    identity(seed).public()
}

pub(crate) fn loopback(port: u16) -> SocketAddr {
    (Ipv4Addr::LOCALHOST, port).into()
}

/// The device with this seed, at some port of loopback.
pub(crate) fn device(seed: u8) -> Endpoint {
    device_at(seed, loopback(0), seed)
}

pub(crate) fn device_at(seed: u8, address: SocketAddr, incarnation: u8) -> Endpoint {
    Endpoint::bind(identity(seed), vec![Local::from(address)], quick(), [incarnation; 16]).unwrap()
}

pub(crate) fn address_of(endpoint: &Endpoint) -> SocketAddr {
    endpoint.local_addresses()[0]
}

/// A link to the device with this seed.
pub(crate) fn link(endpoint: &Endpoint, seed: u8, addresses: &[SocketAddr]) -> Link {
    endpoint.link(Peer { key: key(seed), addresses: addresses.to_vec() }).unwrap()
}

/// The link's session, which must come soon.
pub(crate) async fn up(link: &Link) -> Session {
    let session = timeout(PATIENCE, link.sessions().next()).await;
    session.unwrap_or_else(|_| panic!("no session: {:?}", link.status())).expect("the link goes on")
}

/// Waits until the link's state is as asked.
pub(crate) async fn until(link: &Link, what: &str, holds: impl Fn(&Status) -> bool) {
    let holding = async {
        while !holds(&link.status()) {
            tokio::time::sleep(Duration::from_millis(10)).await;
        }
    };
    timeout(PATIENCE, holding).await.unwrap_or_else(|_| panic!("{what}: {:?}", link.status()));
}

/// Says something over the session in both directions.
pub(crate) async fn talk(here: &Session, there: &Session) {
    for (from, to) in [(here, there), (there, here)] {
        from.send(b"are you there?".to_vec()).await.unwrap();
        assert_eq!(timeout(PATIENCE, to.receive()).await.unwrap().unwrap(), b"are you there?");
    }
}

/// An address that takes everything and answers nothing, for as long as the socket is kept.
pub(crate) fn black_hole() -> (UdpSocket, SocketAddr) {
    let socket = UdpSocket::bind(loopback(0)).unwrap();
    let address = socket.local_addr().unwrap();
    (socket, address)
}

pub(crate) const PATIENCE: Duration = Duration::from_secs(10);
