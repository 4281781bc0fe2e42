//! From the name of a server to a TCP connection: several addresses, side by side, from a given source.
//!
//! A device often has a broken IPv6 beside a working IPv4, and servers have addresses that do not answer.
//! So attempts begin a quarter of a second apart (RFC 8305) and the first that stands is used.
//! Where no address has a route, all attempts fail at once, and so does this: nobody waits for a deadline offline.

use std::io::{Error, ErrorKind};
use std::net::{IpAddr, SocketAddr};
use std::time::Duration;

use rustix::net::sockopt;
use tokio::net::{TcpSocket, TcpStream, lookup_host};
use tokio::task::JoinSet;
use tokio::time::{sleep, timeout};

use super::{Failure, Server, Stage};

/// Connects to a server.
pub(super) async fn connect(server: &Server) -> Result<TcpStream, Failure> {
    let addresses = lookup(server).await?;
    let after = server.deadlines.connect;
    match timeout(after, race(addresses, server.source, after)).await {
        Ok(result) => result,
        Err(_) => Err(Failure::Deadline { stage: Stage::Connect, after }),
    }
}

async fn lookup(server: &Server) -> Result<Vec<SocketAddr>, Failure> {
    let failed = |source| Failure::Lookup { host: server.host.clone(), source };
    let after = server.deadlines.lookup;
    let found = timeout(after, lookup_host((server.host.as_str(), server.port)))
        .await
        .map_err(|_| Failure::Deadline { stage: Stage::Lookup, after })?
        .map_err(failed)?;
    let usable = |address: &SocketAddr| server.source.is_none_or(|source| source.is_ipv4() == address.is_ipv4());
    let (first, second): (Vec<_>, Vec<_>) = found.filter(usable).partition(SocketAddr::is_ipv6);
    if first.is_empty() && second.is_empty() {
        return Err(failed(Error::new(ErrorKind::NotFound, "it has no address of the kind that this device has")));
    }
    // One of each family in turn, so that a family that does not work costs one step only.
    let mut addresses = Vec::new();
    let (mut first, mut second) = (first.into_iter(), second.into_iter());
    loop {
        let pair = [first.next(), second.next()];
        if pair == [None, None] {
            return Ok(addresses);
        }
        addresses.extend(pair.into_iter().flatten());
    }
}

async fn race(addresses: Vec<SocketAddr>, source: Option<IpAddr>, silence: Duration) -> Result<TcpStream, Failure> {
    let mut waiting = addresses.into_iter();
    let mut attempts = JoinSet::new();
    let mut worst: Option<Failure> = None;
    loop {
        if let Some(address) = waiting.next() {
            attempts.spawn(async move { attempt(address, source, silence).await });
        } else if attempts.is_empty() {
            return Err(worst.unwrap_or(Failure::Setting { what: "the server has no address".to_owned() }));
        }
        let step = async { if waiting.len() > 0 { sleep(STEP).await } else { std::future::pending().await } };
        tokio::select! {
            Some(joined) = attempts.join_next() => match joined {
                Ok(Ok(stream)) => return Ok(stream),
                Ok(Err(failure)) => {
                    // Of several reasons the most telling is kept: somebody there refused, rather than no route.
                    if worst.as_ref().is_none_or(|kept| telling(&failure) > telling(kept)) {
                        worst = Some(failure);
                    }
                }
                Err(_) => {}
            },
            () = step => {}
        }
    }
}

async fn attempt(address: SocketAddr, source: Option<IpAddr>, silence: Duration) -> Result<TcpStream, Failure> {
    let connect = async {
        let socket = if address.is_ipv4() { TcpSocket::new_v4()? } else { TcpSocket::new_v6()? };
        if let Some(source) = source {
            socket.bind(SocketAddr::new(source, 0))?;
        }
        // The end of each group of commands must not wait for more.
        socket.set_nodelay(true)?;
        notice_silence(&socket, silence);
        socket.connect(address).await
    };
    connect.await.map_err(|source| match source.kind() {
        // A source address that is gone means that its network is.
        ErrorKind::NetworkUnreachable
        | ErrorKind::HostUnreachable
        | ErrorKind::NetworkDown
        | ErrorKind::AddrNotAvailable => Failure::Unreachable { address, source },
        ErrorKind::ConnectionRefused => Failure::Refused { address, source },
        _ => Failure::Connect { address, source },
    })
}

/// Has the system give up a connection whose other end acknowledges nothing for so long.
///
/// A path may fall silent at any time, and a server may take minutes to answer: only whether it still acknowledges tells
/// the two apart. A system that knows no such thing leaves it to the deadlines.
fn notice_silence(socket: &TcpSocket, silence: Duration) {
    let milliseconds = u32::try_from(silence.as_millis()).unwrap_or(u32::MAX);
    let _deadlines_remain = sockopt::set_tcp_user_timeout(socket, milliseconds);
    let _deadlines_remain = sockopt::set_socket_keepalive(socket, true);
    let between = (silence / 3).max(Duration::from_secs(1));
    let _deadlines_remain = sockopt::set_tcp_keepidle(socket, between);
    let _deadlines_remain = sockopt::set_tcp_keepintvl(socket, between);
}

fn telling(failure: &Failure) -> u8 {
    match failure {
        Failure::Unreachable { .. } => 0,
        Failure::Connect { .. } => 1,
        _ => 2,
    }
}

/// The distance between two attempts (RFC 8305, 5).
const STEP: Duration = Duration::from_millis(250);
