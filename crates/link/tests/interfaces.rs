//! Nothing of a link leaves by another interface than its own, whatever the routes say.
//!
//! Two network namespaces of the test's own: the host's, and the companion's with an uplink besides and a default
//! route by it. What leaves by the uplink is counted by the system, per interface. It needs root and `ip`.

mod common;

use std::fs::File;
use std::net::SocketAddr;
use std::process::Command;
use std::sync::mpsc;
use std::time::Duration;

use common::*;
use packetboat_link::{Endpoint, Local, Peer, Status};
use rustix::thread::{LinkNameSpaceType, move_into_link_name_space};

/// Namespaces that are taken away again, with everything in them.
struct Namespaces {
    names: Vec<String>,
}

impl Namespaces {
    /// Host and companion with a link between them, and the companion's uplink to the net; or why not.
    fn new() -> Result<Self, String> {
        if !rustix::process::geteuid().is_root() {
            return Err("it needs root".to_owned());
        }
        let names = ["host", "comp", "net"].map(|name| format!("pbl-{name}-{}", std::process::id())).to_vec();
        let made = Self { names };
        let [host, comp, net] = [0, 1, 2].map(|number| made.names[number].as_str());
        for name in [host, comp, net] {
            run(&format!("ip netns add {name}"))?;
            // Without it, the system says hello by IPv6 on each interface, and the counters move by themselves.
            run(&format!("ip netns exec {name} sysctl -qw net.ipv6.conf.default.disable_ipv6=1"))?;
        }
        run(&format!("ip -n {host} link add link0 type veth peer name link0 netns {comp}"))?;
        run(&format!("ip -n {comp} link add uplink0 type veth peer name uplink0 netns {net}"))?;
        for (name, interface, address) in [
            (host, "link0", "10.77.0.1/24"),
            (comp, "link0", "10.77.0.2/24"),
            (comp, "uplink0", "10.78.0.2/24"),
            (net, "uplink0", "10.78.0.1/24"),
        ] {
            run(&format!("ip -n {name} address add {address} dev {interface}"))?;
            run(&format!("ip -n {name} link set {interface} up"))?;
        }
        run(&format!("ip -n {comp} route add default via 10.78.0.1"))?;
        // Known beforehand, so that no packet is needed to find the gateway.
        let gateway = run(&format!("ip -n {net} -o link show uplink0"))?;
        let gateway = gateway.split("link/ether ").nth(1).and_then(|rest| rest.split(' ').next()).unwrap_or_default();
        run(&format!("ip -n {comp} neighbour replace 10.78.0.1 lladdr {gateway} dev uplink0 nud permanent"))?;
        Ok(made)
    }

    fn host(&self) -> &str {
        &self.names[0]
    }

    fn companion(&self) -> &str {
        &self.names[1]
    }

    /// Packets that left the companion by an interface so far.
    fn sent(&self, interface: &str) -> u64 {
        let shown = run(&format!("ip -n {} -s -o link show {interface}", self.companion())).unwrap();
        let sent = shown.split("TX:").nth(1).expect("there are statistics");
        let figures = sent.split('\\').nth(1).expect("a line of figures");
        figures.split_whitespace().nth(1).and_then(|packets| packets.parse().ok()).expect("a count of packets")
    }

    fn link(&self, state: &str) {
        run(&format!("ip -n {} link set link0 {state}", self.companion())).unwrap();
    }
}

impl Drop for Namespaces {
    fn drop(&mut self) {
        for name in &self.names {
            let _gone = run(&format!("ip netns delete {name}"));
        }
    }
}

fn run(command: &str) -> Result<String, String> {
    let mut words = command.split(' ');
    let output = Command::new(words.next().expect("a program")).args(words).output();
    let output = output.map_err(|error| format!("{command}: {error}"))?;
    if !output.status.success() {
        return Err(format!("{command}: {}", String::from_utf8_lossy(&output.stderr).trim()));
    }
    Ok(String::from_utf8_lossy(&output.stdout).into_owned())
}

/// A device on a thread of its own within a namespace; its link is told of by messages.
fn device_within(namespace: &str, seed: u8, local: Local, peer: Peer) -> mpsc::Receiver<bool> {
    let (tell, told) = mpsc::channel();
    let namespace = File::open(format!("/run/netns/{namespace}")).unwrap();
    std::thread::spawn(move || {
        // Sockets that a thread makes belong to the namespace it is in.
        move_into_link_name_space(std::os::fd::AsFd::as_fd(&namespace), Some(LinkNameSpaceType::Network)).unwrap();
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
        runtime.block_on(async {
            let endpoint = Endpoint::bind(identity(seed), vec![local], quick(), [seed; 16]).unwrap();
            let link = endpoint.link(peer).unwrap();
            let mut up = false;
            loop {
                let now = matches!(link.status(), Status::Up { .. });
                // Ends with the test, which hears nobody any more.
                if now != up && tell.send(now).is_err() {
                    return;
                }
                up = now;
                if let Some(session) = link.session() {
                    let _lost = session.send(vec![seed; 1000]).await;
                }
                tokio::time::sleep(Duration::from_millis(20)).await;
            }
        });
    });
    told
}

fn local(address: &str, interface: Option<&str>) -> Local {
    Local { address: address.parse::<SocketAddr>().unwrap(), interface: interface.map(str::to_owned) }
}

fn peer(seed: u8, address: &str) -> Peer {
    Peer { key: key(seed), addresses: vec![address.parse().unwrap()] }
}

/// Brings the link up, cuts it, and brings it up again; packets that left by the uplink until up, and while cut.
fn packets_by_the_uplink(namespaces: &Namespaces, interface: Option<&str>, port: u16) -> (u64, u64) {
    let (here, there) = (format!("10.77.0.1:{port}"), format!("10.77.0.2:{port}"));
    let before = namespaces.sent("uplink0");
    let host = device_within(namespaces.host(), 1, local(&here, Some("link0")), peer(2, &there));
    let companion = device_within(namespaces.companion(), 2, local(&there, interface), peer(1, &here));
    for link in [&host, &companion] {
        assert!(link.recv_timeout(PATIENCE).expect("the link comes up"));
    }
    std::thread::park_timeout(Duration::from_millis(500));
    let by_link = namespaces.sent("link0");
    assert!(by_link > 20, "what is sent goes by the link: {by_link} packets");
    let until_up = namespaces.sent("uplink0") - before;

    namespaces.link("down");
    assert!(!companion.recv_timeout(PATIENCE).expect("the loss is noticed"));
    // Time for several tries to dial, by whatever route there is.
    std::thread::park_timeout(Duration::from_secs(3));
    let while_cut = namespaces.sent("uplink0") - before - until_up;

    namespaces.link("up");
    assert!(companion.recv_timeout(PATIENCE * 2).expect("the link comes back"));
    (until_up, while_cut)
}

#[test]
fn nothing_of_the_link_leaves_by_the_companions_uplink() {
    let namespaces = match Namespaces::new() {
        Ok(namespaces) => namespaces,
        Err(reason) => return println!("skipped: no network namespaces here: {reason}"),
    };
    assert_eq!(packets_by_the_uplink(&namespaces, Some("link0"), 4711), (0, 0), "bound to the interface");
    // What the setting is for: bound to the address alone, tries to dial leave by the default route when the link is
    // cut. Were it otherwise, the check above would prove nothing.
    let (_, while_cut) = packets_by_the_uplink(&namespaces, None, 4712);
    assert!(while_cut > 0, "bound to the address alone");
}

#[test]
fn the_link_comes_back_by_an_interface_that_was_taken_away_and_made_anew() {
    let namespaces = match Namespaces::new() {
        Ok(namespaces) => namespaces,
        Err(reason) => return println!("skipped: no network namespaces here: {reason}"),
    };
    let host = device_within(namespaces.host(), 1, local("0.0.0.0:4711", Some("link0")), peer(2, "10.77.0.2:4711"));
    let companion =
        device_within(namespaces.companion(), 2, local("0.0.0.0:4711", Some("link0")), peer(1, "10.77.0.1:4711"));
    for link in [&host, &companion] {
        assert!(link.recv_timeout(PATIENCE).expect("the link comes up"));
    }
    // A tether that is switched off and on: another interface by the same name, at both ends.
    run(&format!("ip -n {} link delete link0", namespaces.companion())).unwrap();
    for link in [&host, &companion] {
        assert!(!link.recv_timeout(PATIENCE).expect("the loss is noticed"));
    }
    let (host_name, companion_name) = (namespaces.host(), namespaces.companion());
    run(&format!("ip -n {host_name} link add link0 type veth peer name link0 netns {companion_name}")).unwrap();
    for (name, address) in [(host_name, "10.77.0.1/24"), (companion_name, "10.77.0.2/24")] {
        run(&format!("ip -n {name} address add {address} dev link0")).unwrap();
        run(&format!("ip -n {name} link set link0 up")).unwrap();
    }
    for link in [&host, &companion] {
        assert!(link.recv_timeout(PATIENCE).expect("the link comes back"));
    }
}
