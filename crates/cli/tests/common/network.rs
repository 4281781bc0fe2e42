//! Three network namespaces: a host and a companion with a link between them, and a network that both reach by a path of
//! their own. They are the test's, named at random, and go with it.

use std::path::Path;
use std::process::{Command, Stdio};

/// The namespaces, until dropped.
pub(crate) struct Network {
    name: String,
}

/// A place in the network.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) enum Place {
    Host,
    Companion,
    Net,
}

/// A line that can be cut.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) enum Line {
    /// Between host and companion.
    Link,
    /// From the host to the network.
    HostPath,
    /// From the companion to the network.
    CompanionPath,
}

/// How a line is cut.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) enum Cut {
    /// The device sees that it has no network.
    Unplugged,
    /// Packets vanish, and nobody says so.
    Silent,
    /// Each connection to the server is reset, as some networks do to mail. Of an uplink only, and with nftables.
    Refused,
}

/// Where the server is, whichever way one comes.
pub(crate) const SERVER: &str = "10.66.9.9";
/// Where the host is on the link.
pub(crate) const HOST_ON_LINK: &str = "10.66.0.1";

impl Network {
    /// Makes the namespaces, or says in one line why there can be none.
    pub(crate) fn new() -> Option<Self> {
        let root = rustix::process::geteuid().is_root();
        if !root || Command::new("ip").arg("-V").stdout(Stdio::null()).status().is_err() {
            println!("skipped: network namespaces need root and the program ip");
            return None;
        }
        let mut random = [0; 4];
        getrandom::fill(&mut random).unwrap();
        let network = Self { name: format!("pb{:08x}", u32::from_be_bytes(random)) };
        let [host, companion, net] = [Place::Host, Place::Companion, Place::Net].map(|place| network.namespace(place));
        for namespace in [&host, &companion, &net] {
            if !ip(&["netns", "add", namespace]) {
                println!("skipped: network namespaces cannot be made here");
                return None;
            }
            assert!(ip(&["-n", namespace, "link", "set", "dev", "lo", "up"]));
        }
        for (from, name, to, peer) in
            [(&host, "link0", &companion, "link1"), (&host, "way0", &net, "is0"), (&companion, "way1", &net, "is1")]
        {
            assert!(ip(&["link", "add", name, "netns", from, "type", "veth", "peer", "name", peer, "netns", to]));
        }
        for (namespace, device, address) in [
            (&host, "link0", "10.66.0.1/24"),
            (&companion, "link1", "10.66.0.2/24"),
            (&host, "way0", "10.66.1.2/24"),
            (&companion, "way1", "10.66.2.2/24"),
            (&net, "is0", "10.66.1.1/24"),
            (&net, "is1", "10.66.2.1/24"),
            (&net, "lo", "10.66.9.9/32"),
        ] {
            assert!(ip(&["-n", namespace, "addr", "add", address, "dev", device]));
            assert!(ip(&["-n", namespace, "link", "set", "dev", device, "up"]));
        }
        assert!(ip(&["-n", &host, "route", "add", "default", "via", "10.66.1.1"]));
        assert!(ip(&["-n", &companion, "route", "add", "default", "via", "10.66.2.1"]));
        Some(network)
    }

    /// The name of a namespace.
    pub(crate) fn namespace(&self, place: Place) -> String {
        let end = match place {
            Place::Host => "h",
            Place::Companion => "c",
            Place::Net => "n",
        };
        format!("{}{end}", self.name)
    }

    /// A command that runs in a namespace.
    pub(crate) fn command(&self, place: Place, program: impl AsRef<Path>) -> Command {
        let mut command = Command::new("ip");
        command.args(["netns", "exec", &self.namespace(place)]).arg(program.as_ref());
        command
    }

    /// Cuts a line.
    pub(crate) fn cut(&self, line: Line, cut: Cut) {
        match (line, cut) {
            (Line::Link, Cut::Unplugged) => self.set(Place::Host, "link0", "down"),
            (Line::HostPath, Cut::Unplugged) => self.set(Place::Host, "way0", "down"),
            (Line::CompanionPath, Cut::Unplugged) => self.set(Place::Companion, "way1", "down"),
            // What comes in is dropped where the line ends, so the device sees a carrier and a route, and no answer.
            (Line::Link, Cut::Silent) => self.blackhole(Place::Companion, "10.66.0.1/32", "add"),
            (Line::HostPath, Cut::Silent) => self.blackhole(Place::Net, "10.66.1.2/32", "add"),
            (Line::CompanionPath, Cut::Silent) => self.blackhole(Place::Net, "10.66.2.2/32", "add"),
            (Line::Link, Cut::Refused) => panic!("the link has no server that could be refused"),
            (Line::HostPath, Cut::Refused) => self.reset("is0"),
            (Line::CompanionPath, Cut::Refused) => self.reset("is1"),
        }
    }

    /// Mends a line, however it was cut.
    pub(crate) fn mend(&self, line: Line) {
        let (place, device, gateway, holes) = match line {
            Line::Link => (Place::Host, "link0", None, (Place::Companion, "10.66.0.1/32")),
            Line::HostPath => (Place::Host, "way0", Some("10.66.1.1"), (Place::Net, "10.66.1.2/32")),
            Line::CompanionPath => (Place::Companion, "way1", Some("10.66.2.1"), (Place::Net, "10.66.2.2/32")),
        };
        self.set(place, device, "up");
        if let Some(gateway) = gateway {
            // It went with the device, if that was down.
            ip(&["-n", &self.namespace(place), "route", "replace", "default", "via", gateway]);
        }
        ip(&["-n", &self.namespace(holes.0), "route", "del", "blackhole", holes.1]);
        match line {
            Line::Link => {}
            Line::HostPath => self.end_reset("is0"),
            Line::CompanionPath => self.end_reset("is1"),
        }
    }

    /// Counts the IPv4 packets that leave a place from now on, by their interface; only with nftables.
    pub(crate) fn count_packets(&self, place: Place, interfaces: &[&str]) {
        let rules = interfaces.iter().fold(String::new(), |rules, name| {
            rules + &format!("counter {name} {{}}\nchain {name} {{ type filter hook output priority 0; oifname {name} counter name {name}; }}\n")
        });
        assert!(self.nft(place, &format!("table ip counted {{\n{rules}}}")), "packets can be counted");
    }

    /// How many packets were counted.
    pub(crate) fn packets(&self, place: Place, interface: &str) -> u64 {
        let output = self.command(place, "nft").args(["-j", "list", "counter", "ip", "counted", interface]).output();
        let shown: serde_json::Value = serde_json::from_slice(&output.unwrap().stdout).unwrap();
        let counters = shown["nftables"].as_array().unwrap().iter();
        counters.filter_map(|entry| entry["counter"]["packets"].as_u64()).next().unwrap()
    }

    fn reset(&self, interface: &str) {
        let rule = format!("iifname {interface} meta l4proto tcp reject with tcp reset");
        let table =
            format!("table inet {interface} {{ chain resetting {{ type filter hook input priority 0; {rule}; }}; }}");
        assert!(self.nft(Place::Net, &table), "connections can be reset");
    }

    fn end_reset(&self, interface: &str) {
        self.nft(Place::Net, &format!("delete table inet {interface}"));
    }

    /// Whether packets can be counted and connections reset here.
    pub(crate) fn has_nftables(&self) -> bool {
        let there = self.nft(Place::Net, "list tables");
        if !there {
            println!("skipped: this needs nftables");
        }
        there
    }

    fn nft(&self, place: Place, command: &str) -> bool {
        let mut nft = self.command(place, "nft");
        nft.arg(command).stdin(Stdio::null()).stdout(Stdio::null()).stderr(Stdio::null());
        nft.status().is_ok_and(|status| status.success())
    }

    fn set(&self, place: Place, device: &str, state: &str) {
        assert!(ip(&["-n", &self.namespace(place), "link", "set", "dev", device, state]));
    }

    fn blackhole(&self, place: Place, address: &str, verb: &str) {
        ip(&["-n", &self.namespace(place), "route", verb, "blackhole", address]);
    }
}

impl Drop for Network {
    fn drop(&mut self) {
        for place in [Place::Host, Place::Companion, Place::Net] {
            ip(&["netns", "del", &self.namespace(place)]);
        }
    }
}

fn ip(arguments: &[&str]) -> bool {
    let run = Command::new("ip").args(arguments).stdout(Stdio::null()).stderr(Stdio::null()).status();
    run.is_ok_and(|status| status.success())
}
