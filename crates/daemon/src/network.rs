//! Whether this device may have a network at all, from the system itself: a way out appeared, or the last one went.
//!
//! On Linux the kernel says on a netlink socket that addresses, links or routes changed; what it says is not even read,
//! only taken as a reason to look at the routes. Nothing is asked in between, so a device at rest stays at rest. Where
//! there is no such socket nothing is ever said, and mails wait for their own timers.

use std::io;
use std::time::Duration;

use rustix::net::netlink::SocketAddrNetlink;
use rustix::net::{AddressFamily, SocketFlags, SocketType};
use tokio::net::UdpSocket;
use tokio::time::sleep;

/// Waits for the device to get or lose its ways out.
pub struct Network {
    /// The runtime knows no netlink sockets; of a datagram socket it asks nothing that this one has not.
    socket: UdpSocket,
    ways: Option<String>,
}

/// What became of the ways out.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Ways {
    /// There is one that was not there before.
    New,
    /// There is none any more.
    None,
}

impl Network {
    /// Listens to the kernel; call it within a tokio runtime.
    pub fn watch() -> io::Result<Self> {
        let flags = SocketFlags::CLOEXEC | SocketFlags::NONBLOCK;
        // No protocol is NETLINK_ROUTE, whose number is nought.
        let socket = rustix::net::socket_with(AddressFamily::NETLINK, SocketType::RAW, flags, None)?;
        rustix::net::bind(&socket, &SocketAddrNetlink::new(0, GROUPS))?;
        Ok(Self { socket: UdpSocket::from_std(std::net::UdpSocket::from(socket))?, ways: ways_out() })
    }

    /// Waits until the ways out are others than before.
    pub async fn changed(&mut self) -> io::Result<Ways> {
        loop {
            self.socket.readable().await?;
            // A change comes as a burst, and a route often a moment after its link.
            sleep(BURST).await;
            let mut buffer = [0; 8192];
            loop {
                match self.socket.try_recv(&mut buffer) {
                    Ok(_) => {}
                    // More was said than the kernel kept; the routes are looked at all the same.
                    Err(error) if error.raw_os_error() == Some(rustix::io::Errno::NOBUFS.raw_os_error()) => {}
                    Err(error) if error.kind() == io::ErrorKind::WouldBlock => break,
                    Err(error) => return Err(error),
                }
            }
            let ways = ways_out();
            if ways != self.ways {
                self.ways = ways;
                return Ok(if self.ways.is_some() { Ways::New } else { Ways::None });
            }
        }
    }
}

/// The default routes as the system lists them; nothing, where there is none.
fn ways_out() -> Option<String> {
    let four = std::fs::read_to_string("/proc/net/route").unwrap_or_default();
    let six = std::fs::read_to_string("/proc/net/ipv6_route").unwrap_or_default();
    let defaults: String = default_routes(&four, &six);
    if defaults.is_empty() { None } else { Some(defaults) }
}

fn default_routes(four: &str, six: &str) -> String {
    let mut defaults = String::new();
    for line in four.lines().skip(1) {
        let fields: Vec<&str> = line.split_whitespace().collect();
        // Interface, destination, gateway, ..., mask: a default route has neither destination nor mask.
        if let [interface, "00000000", gateway, _, _, _, _, "00000000", ..] = fields[..] {
            defaults.push_str(&format!("{interface} {gateway}\n"));
        }
    }
    for line in six.lines() {
        let fields: Vec<&str> = line.split_whitespace().collect();
        if let [destination, "00", _, _, gateway, .., interface] = fields[..]
            && destination.bytes().all(|digit| digit == b'0')
            && interface != "lo"
        {
            defaults.push_str(&format!("{interface} {gateway}\n"));
        }
    }
    defaults
}

/// Links, IPv4 addresses and routes, IPv6 addresses and routes (RTMGRP_*).
const GROUPS: u32 = 0x1 | 0x10 | 0x40 | 0x100 | 0x400;

const BURST: Duration = Duration::from_millis(300);

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_default_routes_are_ways_out() {
        let four = "Iface\tDestination\tGateway\tFlags\tRefCnt\tUse\tMetric\tMask\tMTU\tWindow\tIRTT\n\
                    eth0\t00000000\t0101420A\t0003\t0\t0\t0\t00000000\t0\t0\t0\n\
                    eth0\t0001420A\t00000000\t0001\t0\t0\t0\t00FFFFFF\t0\t0\t0\n";
        assert_eq!(default_routes(four, ""), "eth0 0101420A\n");
        let zero = "0".repeat(32);
        let six = format!(
            "{zero} 00 {zero} 00 fe800000000000000000000000000001 00000400 00000001 00000000 00000003 wlan0\n\
             {zero} 00 {zero} 00 {zero} ffffffff 00000001 00000000 00200200 lo\n\
             fe80000000000000 40 {zero} 00 {zero} 00000100 00000001 00000000 00000001 wlan0\n"
        );
        assert_eq!(default_routes("", &six), "wlan0 fe800000000000000000000000000001\n");
        assert_eq!(default_routes("", ""), "");
    }

    #[tokio::test]
    async fn the_kernel_can_be_listened_to() {
        let mut network = Network::watch().unwrap();
        let quiet = tokio::time::timeout(Duration::from_millis(50), network.changed()).await;
        assert!(quiet.is_err() || quiet.is_ok_and(|changed| changed.is_ok()));
    }
}
