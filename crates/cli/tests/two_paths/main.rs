//! A host and a companion with the real binary, in network namespaces of their own: which path delivers, and how often.
//!
//! The server writes down the address that each mail came from, which tells the path.
//! Lease, margin and answer time are seconds here; nothing else differs from what users run.

mod by_hand;
mod doubt;
mod killed_at;
mod mail_in;
#[path = "../common/network.rs"]
mod network;
mod pair;
mod postfix;
mod schedule;
#[path = "../../../mail/tests/servers/mod.rs"]
mod servers;
mod sleep;
mod tokens;
mod unpair;
mod uplink;
mod windows;

use std::fs;
use std::path::Path;
use std::time::{Duration, Instant};

use network::{Cut, Line};
use pair::{BY_COMPANION, BY_HOST, Pair};

#[test]
fn a_mail_goes_by_the_path_that_is_open() {
    let Some(mut pair) = Pair::start() else { return };
    let id = pair.send();
    pair.arrives_once(&id, BY_HOST);

    // The host sees that it has no network.
    pair.network.cut(Line::HostPath, Cut::Unplugged);
    let began = Instant::now();
    let id = pair.send();
    pair.arrives_once(&id, BY_COMPANION);
    let unreachable = began.elapsed();
    pair.network.mend(Line::HostPath);

    // The host sees nothing until the connect deadline, which is two seconds here.
    pair.network.cut(Line::HostPath, Cut::Silent);
    let began = Instant::now();
    let id = pair.send();
    pair.arrives_once(&id, BY_COMPANION);
    let silent = began.elapsed();
    println!("through the companion after {unreachable:?} without a network, {silent:?} with a silent one");
    assert!(unreachable < Duration::from_secs(2), "{unreachable:?}");
    assert!(silent < Duration::from_secs(5), "{silent:?}");

    // Neither has a path; the companion's comes back while the two see each other.
    pair.network.cut(Line::CompanionPath, Cut::Unplugged);
    let id = pair.send();
    std::thread::sleep(Duration::from_secs(4));
    assert!(pair.arrivals(&id).is_empty());
    pair.network.mend(Line::CompanionPath);
    pair.arrives_once(&id, BY_COMPANION);
    pair.until("both are done", |pair| pair.open("host") == 0 && pair.open("companion") == 0);
    let outbox = pair.json("host", &["outbox"]);
    let last = outbox["mails"].as_array().unwrap().iter().find(|mail| mail["recipients"][0]["path"] == "companion");
    assert!(last.is_some(), "{outbox:#}");
}

#[test]
fn a_host_that_ends_hands_its_mails_to_the_companion() {
    let Some(mut pair) = Pair::start() else { return };
    pair.network.cut(Line::HostPath, Cut::Unplugged);
    pair.network.cut(Line::CompanionPath, Cut::Unplugged);
    let id = pair.send();
    pair.until("the companion has a copy", |pair| pair.open("companion") == 1);
    std::thread::sleep(Duration::from_secs(2));
    pair.end("host", rustix::process::Signal::TERM);
    pair.network.cut(Line::Link, Cut::Unplugged);
    pair.network.mend(Line::CompanionPath);
    pair.arrives_once(&id, BY_COMPANION);
    // The host comes back, hears of it, and does not send it again.
    pair.network.mend(Line::Link);
    pair.network.mend(Line::HostPath);
    pair.run("host");
    pair.until("both are done", |pair| pair.open("host") == 0 && pair.open("companion") == 0);
    assert_eq!(pair.arrivals(&id), [BY_COMPANION]);
}

#[test]
fn a_success_that_the_host_never_hears_of_is_the_documented_window() {
    let Some(mut pair) = Pair::start() else { return };
    pair.network.cut(Line::HostPath, Cut::Unplugged);
    pair.how("slow");
    let id = pair.send();
    // The server has the mail from the companion, and the link goes before anybody can tell the host.
    pair.until("the companion's mail is accepted", |pair| pair.arrivals(&id) == [BY_COMPANION]);
    pair.network.cut(Line::Link, Cut::Unplugged);
    pair.how("accept");
    pair.network.mend(Line::HostPath);
    pair.until("the host sends after the lease", |pair| pair.arrivals(&id) == [BY_COMPANION, BY_HOST]);
    pair.network.mend(Line::Link);
    pair.until("both are done", |pair| pair.open("host") == 0 && pair.open("companion") == 0);
    let (_, windows) = windows::excuses(&pair, &id).expect("it came twice");
    assert_eq!(windows, [windows::Window::UnreportedAtLeaseEnd]);
}

#[test]
fn a_mail_waits_on_disk_while_no_daemon_runs() {
    let Some(mut pair) = Pair::start() else { return };
    pair.end("host", rustix::process::Signal::TERM);
    let id = pair.send();
    assert_eq!(pair.open("host"), 1);
    pair.run("host");
    pair.arrives_once(&id, BY_HOST);
}

#[test]
fn a_refusal_is_reported_to_the_sender() {
    let Some(mut pair) = Pair::start() else { return };
    pair.how("refuse");
    let id = pair.send();
    let reports = pair.path("host").join("Mail/new");
    pair.until("a report is filed", |_| count(&reports) == 1);
    let report = fs::read_dir(&reports).unwrap().next().unwrap().unwrap().path();
    let report = fs::read_to_string(report).unwrap();
    assert!(report.contains("550") && report.contains(&id) && report.contains("b@example.org"), "{report}");
    pair.until("both are done", |pair| pair.open("host") == 0 && pair.open("companion") == 0);
    assert!(pair.arrivals(&id).is_empty());
}

fn count(directory: &Path) -> usize {
    fs::read_dir(directory).map_or(0, Iterator::count)
}
