//! `packetboat pair`: makes two devices a host and its companion.

use std::net::{Ipv4Addr, SocketAddr, UdpSocket};
use std::process::ExitCode;

use clap::{Args, ValueEnum};
use packetboat_daemon::pair::{LocalAddress, Pair, Role};
use packetboat_daemon::parting;
use packetboat_engine::ports::Entropy;
use packetboat_link::pairing::{self, Code, Introduction, PairingError, PairingListener, Proposal};
use packetboat_link::{Identity, Local, Settings};
use serde_json::json;

use crate::carrier::{Carrier, host_name, runtime};
use crate::failure::Failure;
use crate::opening::Context;
use crate::text;
use crate::world::SystemEntropy;

/// Make this device and another one a pair: a host and its companion
///
/// Run it without an address on the host first; it shows its addresses and waits. Then run it with one of them on the
/// companion. Both show the same six digits; say yes on both, if they are the same.
/// From then on `packetboat run` on both keeps a link between them. What the host sends is copied to the companion, and
/// each sends for both when only its own path is up. The companion gets the passwords of the host's accounts.
/// A device is in one pair; a new one takes the place of the former. `packetboat unpair` ends it in good order.
#[derive(Debug, Args)]
#[command(after_help = JSON)]
pub(crate) struct PairArgs {
    /// Where the other device waits: its address, and the port where it is not 2526
    address: Option<String>,
    /// This device's own address on the link, and the port
    ///
    /// The link uses no other one. Without it a companion takes the address that leads to the host, and a host all.
    #[arg(long, value_name = "ADDRESS:PORT")]
    listen: Option<SocketAddr>,
    /// The network interface of the link; nothing for the other device leaves by another one
    #[arg(long, value_name = "NAME")]
    interface: Option<String>,
    /// What this device is to be: the one that waits is the host, if nothing is said
    #[arg(long, value_enum)]
    role: Option<RoleArg>,
    /// What to call this device; the computer's name, if nothing is said
    #[arg(long)]
    name: Option<String>,
    /// Give the code that the other device shows, rather than comparing the two
    #[arg(long, value_name = "DIGITS")]
    code: Option<String>,
    /// Trust whoever answers, without comparing codes: only where nobody else can be on the line
    #[arg(long, conflicts_with = "code")]
    yes: bool,
}

#[derive(Clone, Copy, PartialEq, Eq, Debug, ValueEnum)]
enum RoleArg {
    Host,
    Companion,
}

/// Runs the command.
pub(crate) fn run(context: &Context, args: &PairArgs) -> Result<ExitCode, Failure> {
    let carrier = Carrier::locate(context)?;
    let remote = args.address.as_deref().map(remote_address).transpose()?;
    let claim = match carrier.claim("pair") {
        // It waits here itself, or its daemon runs; either way no stopping helps.
        Err(_) if remote.is_some_and(is_own) => return Err(pairing_failure(PairingError::Oneself)),
        claim => claim?,
    };
    let serial = Pair::last_serial(&carrier.home.pair())? + 1;
    let key = claim.key(&mut SystemEntropy)?;
    let identity = Identity::from_seed(&key.seed());
    let role = match (args.role, &args.address) {
        (Some(RoleArg::Host), _) | (None, None) => Role::Host,
        (Some(RoleArg::Companion), _) | (None, Some(_)) => Role::Companion,
    };
    let listen = args.listen.unwrap_or_else(|| {
        let ip = remote.and_then(own_address_towards).unwrap_or(Ipv4Addr::UNSPECIFIED.into());
        SocketAddr::new(ip, PORT)
    });
    let name = args.name.clone().unwrap_or_else(host_name);
    let addresses = if listen.ip().is_unspecified() { Vec::new() } else { vec![listen] };
    let link_role = match role {
        Role::Host => pairing::Role::Host,
        Role::Companion => pairing::Role::Companion,
    };
    let introduction = Introduction::new(link_role, &name, addresses)?;
    let local = Local { address: listen, interface: args.interface.clone() };
    let mut random = [0; 32];
    SystemEntropy.fill(&mut random);

    let paired = runtime(2)?.block_on(async {
        let proposal = match remote {
            Some(remote) => {
                // The pairing leaves from the link's address, but not from its port: the daemon's socket is another one.
                let from = Local { address: SocketAddr::new(listen.ip(), 0), ..local.clone() };
                let (from, to, settings) = ([from], [remote], Settings::default());
                let proposed = pairing::propose(&identity, &from, &to, introduction, random, &settings);
                proposed.await.map_err(|error| match error {
                    PairingError::Oneself => pairing_failure(error),
                    error => Failure::from(error)
                        .hint("run `packetboat pair` on the host first, and name an address it shows"),
                })?
            }
            None => {
                let mut listener = PairingListener::bind(identity, &[local], introduction, Settings::default())?;
                invite(context, listen);
                listener.next(random).await.map_err(|error| match error {
                    PairingError::Oneself => pairing_failure(error),
                    error => Failure::from(error),
                })?
            }
        };
        confirm(context, args, proposal).await
    })?;

    let mut peer_addresses: Vec<SocketAddr> = remote.into_iter().collect();
    for address in paired.introduction.addresses() {
        if !peer_addresses.contains(address) {
            peer_addresses.push(*address);
        }
    }
    let pair = Pair {
        serial,
        role,
        peer: paired.key,
        peer_name: paired.introduction.name().to_owned(),
        peer_addresses,
        locals: vec![LocalAddress { address: listen, interface: args.interface.clone() }],
    };
    // What a former one lent is not the new one's.
    parting::forget(&carrier.home, false)?;
    pair.write(&carrier.home.pair())?;
    let peer_name = text::plain(pair.peer_name.as_bytes());
    let word = if role == Role::Host { "companion" } else { "host" };
    context.ui.result(
        || json!({ "schema": 1, "role": role, "peer": pair.peer_name, "addresses": pair.peer_addresses }),
        || format!("{peer_name} is this device's {word} now. Start `packetboat run` on both.\n"),
    );
    Ok(ExitCode::SUCCESS)
}

async fn confirm(context: &Context, args: &PairArgs, proposal: Proposal) -> Result<pairing::Pair, Failure> {
    let other = text::plain(proposal.introduction().name().as_bytes());
    let code = proposal.code();
    eprintln!("{other} shows a code; here it is {code}");
    if let Some(typed) = &args.code {
        let Some(typed) = Code::parse(typed) else {
            proposal.refuse().await;
            return Err(Failure::new("a code has six digits"));
        };
        return proposal.confirm_code(typed).await.map_err(pairing_failure);
    }
    let agreed = args.yes
        || match context.ui.can_ask() {
            true => {
                let ui = context.ui;
                let question = format!("Does {other} show {code} as well?");
                tokio::task::spawn_blocking(move || ui.confirm(&question)).await??
            }
            false => {
                proposal.refuse().await;
                return Err(Failure::new("nobody is there to compare the codes")
                    .hint("run it in a terminal, or give --code with what the other device shows"));
            }
        };
    if agreed {
        return proposal.confirm().await.map_err(pairing_failure);
    }
    proposal.refuse().await;
    Err(Failure::new("the codes differ, so the two are no pair")
        .hint("begin again on both; if they differ again, somebody is between the two devices"))
}

fn pairing_failure(error: PairingError) -> Failure {
    let hint = match error {
        PairingError::Oneself => {
            "that is an address of this device, or a copy of its state: run the command on the other device, with an \
             address that the host shows"
        }
        _ => "begin again on both devices, and compare the codes on both screens",
    };
    Failure::from(error).hint(hint)
}

/// Says where the companion finds this device.
fn invite(context: &Context, listen: SocketAddr) {
    let addresses = if listen.ip().is_unspecified() { own_addresses() } else { vec![listen.ip().to_string()] };
    let port = if listen.port() == PORT { String::new() } else { format!(":{}", listen.port()) };
    context.ui.note("On the other device, run one of:");
    for address in addresses {
        context.ui.note(&format!("  packetboat pair {address}{port}"));
    }
}

fn remote_address(typed: &str) -> Result<SocketAddr, Failure> {
    let ip = typed.trim_start_matches('[').trim_end_matches(']');
    typed.parse().or_else(|_| ip.parse().map(|ip| SocketAddr::new(ip, PORT))).map_err(|_| {
        Failure::new(format!("{typed:?} is no address"))
            .hint("give it as the host shows it, such as 192.168.1.20 or 192.168.1.20:2526")
    })
}

/// Whether an address is one of this device, which is when a socket can have it.
fn is_own(address: SocketAddr) -> bool {
    UdpSocket::bind((address.ip(), 0)).is_ok()
}

/// This device's address on the way to another. Nothing is sent: a datagram socket only looks up the route.
fn own_address_towards(remote: SocketAddr) -> Option<std::net::IpAddr> {
    let any: SocketAddr = match remote {
        SocketAddr::V4(_) => SocketAddr::from(([0, 0, 0, 0], 0)),
        SocketAddr::V6(_) => SocketAddr::from(([0_u16; 8], 0)),
    };
    let socket = UdpSocket::bind(any).ok()?;
    socket.connect(remote).ok()?;
    Some(socket.local_addr().ok()?.ip())
}

/// The IPv4 addresses of this computer, as its routing table has them.
fn own_addresses() -> Vec<String> {
    let table = std::fs::read_to_string("/proc/net/fib_trie").unwrap_or_default();
    let found = addresses_of_table(&table);
    if found.is_empty() { vec!["ADDRESS".to_owned()] } else { found }
}

fn addresses_of_table(table: &str) -> Vec<String> {
    let mut found = Vec::new();
    let mut last = "";
    for line in table.lines() {
        match line.trim().strip_prefix("|-- ") {
            Some(address) => last = address,
            None if line.contains("/32 host LOCAL")
                && !last.starts_with("127.")
                && !found.iter().any(|a| a == last) =>
            {
                found.push(last.to_owned());
            }
            None => {}
        }
    }
    found
}

const PORT: u16 = 2526;

const JSON: &str = "JSON: role, peer, addresses (where the other device is looked for).";

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn addresses_are_read_as_hosts_show_them() {
        for (typed, expected) in [
            ("10.66.0.1", "10.66.0.1:2526"),
            ("10.66.0.1:99", "10.66.0.1:99"),
            ("fe80::1", "[fe80::1]:2526"),
            ("[fe80::1]", "[fe80::1]:2526"),
            ("[fe80::1]:99", "[fe80::1]:99"),
        ] {
            assert_eq!(remote_address(typed).unwrap().to_string(), expected, "{typed}");
        }
        assert!(remote_address("laptop").is_err());
    }

    #[test]
    fn the_routing_table_names_the_own_addresses_once() {
        let table = "Main:\n  +-- 0.0.0.0/0 3 0 5\n     |-- 10.66.0.0\n        /24 link UNICAST\n     |-- 10.66.0.1\n        \
                     /32 host LOCAL\n     |-- 127.0.0.1\n        /32 host LOCAL\nLocal:\n     |-- 10.66.0.1\n        /32 host LOCAL\n";
        assert_eq!(addresses_of_table(table), ["10.66.0.1"]);
    }
}
