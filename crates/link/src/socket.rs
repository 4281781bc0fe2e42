//! The link's own sockets: each bound to one of this device's addresses and, where asked, to one interface.
//!
//! An interface comes and goes: a cable is pulled, a phone's tether is switched off and on and is then another one by
//! the same name. A socket stays bound to the one that is gone. So whoever is about to dial asks to have the sockets
//! looked after, and one whose interface is another by now is given up and bound anew; one that could not be bound yet
//! is tried again.

use std::io;
use std::net::{SocketAddr, UdpSocket};

use socket2::{Domain, Protocol, Socket, Type};
use thiserror::Error;

use crate::settings::Local;

/// Makes the socket of a local address.
pub(crate) fn bind(local: &Local) -> Result<UdpSocket, BindError> {
    let failed = |source| BindError::Address { address: local.address, source };
    let socket = Socket::new(Domain::for_address(local.address), Type::DGRAM, Some(Protocol::UDP)).map_err(failed)?;
    if local.address.is_ipv6() {
        // IPv4 has sockets of its own, so that each says by itself what it is bound to.
        socket.set_only_v6(true).map_err(failed)?;
    }
    if let Some(interface) = &local.interface {
        bind_to_interface(&socket, interface)
            .map_err(|source| BindError::Interface { interface: interface.clone(), source })?;
    }
    socket.set_nonblocking(true).map_err(failed)?;
    // What the system gives beyond its default is welcome; a link works without.
    for set in [Socket::set_recv_buffer_size, Socket::set_send_buffer_size] {
        let _what_the_system_allows = set(&socket, BUFFER_BYTES);
    }
    socket.bind(&local.address.into()).map_err(failed)?;
    Ok(socket.into())
}

#[cfg(any(target_os = "linux", target_os = "android"))]
fn bind_to_interface(socket: &Socket, interface: &str) -> io::Result<()> {
    socket.bind_device(Some(interface.as_bytes()))
}

#[cfg(not(any(target_os = "linux", target_os = "android")))]
fn bind_to_interface(_socket: &Socket, _interface: &str) -> io::Result<()> {
    Err(io::ErrorKind::Unsupported.into())
}

/// The number of the interface that has this name now; another one after it was taken away and came back.
#[cfg(any(target_os = "linux", target_os = "android"))]
pub(crate) fn interface_number(interface: &str) -> Option<u32> {
    use rustix::net::{AddressFamily, SocketType, netdevice, socket};
    let asking = socket(AddressFamily::INET, SocketType::DGRAM, None).ok()?;
    netdevice::name_to_index(asking, interface).ok()
}

#[cfg(not(any(target_os = "linux", target_os = "android")))]
pub(crate) fn interface_number(_interface: &str) -> Option<u32> {
    None
}

/// Why a socket cannot be bound.
#[derive(Debug, Error)]
pub enum BindError {
    /// The address is not this computer's, or the port is taken.
    #[error("cannot use the address {address} for the link")]
    Address {
        /// Which.
        address: SocketAddr,
        /// What the system says.
        source: io::Error,
    },
    /// There is no such interface, or the system does not let a socket be bound to it.
    #[error("cannot bind the link to the interface {interface}")]
    Interface {
        /// Which.
        interface: String,
        /// What the system says.
        source: io::Error,
    },
}

impl BindError {
    /// Whether it may pass by itself, because the address or interface is not there at the moment.
    pub fn may_pass(&self) -> bool {
        match self {
            Self::Address { source, .. } => source.kind() == io::ErrorKind::AddrNotAvailable,
            Self::Interface { source, .. } => {
                // ENODEV has no kind of its own.
                source.kind() == io::ErrorKind::NotFound
                    || source.raw_os_error() == Some(rustix::io::Errno::NODEV.raw_os_error())
            }
        }
    }
}

/// What is asked of the system for each direction of a socket, so that a burst of datagrams is not lost.
const BUFFER_BYTES: usize = 4 << 20;
