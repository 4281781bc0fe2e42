//! Ending a pair: what was handed over comes back, what was lent goes, and the old key opens nothing.

use std::fs;
use std::process::Stdio;
use std::time::Duration;

use crate::network::{Cut, HOST_ON_LINK, Line};
use crate::pair::{BY_COMPANION, BY_HOST, Pair};

fn unpairs(pair: &Pair, device: &str, arguments: &[&str]) -> serde_json::Value {
    let asked = [&["unpair", "--json"], arguments].concat();
    let output = pair.command(device, &asked).stdout(Stdio::piped()).stderr(Stdio::piped()).output().unwrap();
    let said = String::from_utf8_lossy(&output.stderr).into_owned();
    assert!(output.status.success(), "{said}\n{}\n{}", pair.log("host"), pair.log("companion"));
    serde_json::from_slice(&output.stdout).unwrap()
}

fn stands_alone(pair: &Pair, device: &str) {
    pair.until("it stands alone", |pair| {
        let stands = pair.json(device, &["paths"]);
        // In between no daemon answers.
        stands["own"].is_object() && stands["link"].is_null() && stands["role"].is_null()
    });
}

#[test]
fn a_pair_that_ends_brings_back_what_was_handed_over() {
    let Some(mut pair) = Pair::start() else { return };
    let state = pair.path("companion").join("state/daemon");
    let former = fs::read(state.join("pair.json")).unwrap();
    pair.until("the accounts were lent", |_| state.join("companion.sealed").exists());
    pair.network.cut(Line::HostPath, Cut::Unplugged);
    pair.network.cut(Line::CompanionPath, Cut::Unplugged);
    let id = pair.send();
    pair.until("the companion has a copy", |pair| pair.open("companion") == 1);
    assert!(pair.command("host", &["outbox", "handover"]).status().unwrap().success());
    pair.until("the companion has the turn", |pair| pair.json("host", &["outbox"])["mails"][0]["turn"] == "companion");

    let told = unpairs(&pair, "host", &[]);
    assert!(told["agreed"] == true && told["unclear"] == 0, "{told}");
    stands_alone(&pair, "host");
    stands_alone(&pair, "companion");
    assert!(!state.join("companion.sealed").exists(), "what was lent is deleted");
    assert_eq!(pair.open("companion"), 0, "the copy is dropped");
    pair.network.mend(Line::CompanionPath);
    std::thread::sleep(Duration::from_secs(3));
    assert!(pair.arrivals(&id).is_empty(), "the companion sends it no more");
    pair.network.mend(Line::HostPath);
    pair.arrives_once(&id, BY_HOST);
    pair.until("it is done", |pair| pair.open("host") == 0);

    // The host has another companion now, and the former one still believes in the pair.
    pair.end("host", rustix::process::Signal::TERM);
    pair.end("companion", rustix::process::Signal::TERM);
    fs::create_dir_all(pair.path("other").join("config")).unwrap();
    let mut waiting = pair.command("host", &["pair", "--yes"]).stderr(Stdio::null()).spawn().unwrap();
    let paired = (0..50).any(|_| {
        std::thread::sleep(Duration::from_millis(200));
        let mut asked = pair.command("other", &["pair", HOST_ON_LINK, "--yes"]);
        asked.stderr(Stdio::null()).status().unwrap().success()
    });
    assert!(paired && waiting.wait().unwrap().success());
    fs::write(state.join("pair.json"), former).unwrap();
    pair.run("host");
    pair.run("companion");
    std::thread::sleep(Duration::from_secs(5));
    assert_eq!(pair.json("companion", &["paths"])["link"]["up"], false, "its key is refused");
    assert_eq!(pair.json("host", &["paths"])["link"]["up"], false);
    assert!(!state.join("companion.sealed").exists());
}

#[test]
fn a_companion_can_end_the_pair_too() {
    let Some(mut pair) = Pair::start() else { return };
    let told = unpairs(&pair, "companion", &[]);
    assert_eq!(told["role"], "companion");
    stands_alone(&pair, "host");
    stands_alone(&pair, "companion");
    let id = pair.send();
    pair.arrives_once(&id, BY_HOST);
}

#[test]
fn a_pair_ends_alone_only_where_its_user_says_so() {
    let Some(mut pair) = Pair::start() else { return };
    pair.network.cut(Line::HostPath, Cut::Unplugged);
    pair.network.cut(Line::CompanionPath, Cut::Unplugged);
    let id = pair.send();
    pair.until("the companion has a copy", |pair| pair.open("companion") == 1);
    pair.network.cut(Line::Link, Cut::Unplugged);
    pair.until("the link is down", |pair| pair.json("host", &["paths"])["link"]["up"] == false);
    let refused = pair.command("host", &["unpair"]).stderr(Stdio::piped()).output().unwrap();
    let said = String::from_utf8_lossy(&refused.stderr);
    assert!(!refused.status.success() && said.contains("--alone"), "{said}");
    assert_eq!(unpairs(&pair, "host", &["--alone"])["agreed"], false);
    stands_alone(&pair, "host");
    pair.network.mend(Line::HostPath);
    pair.arrives_once(&id, BY_HOST);
    // The companion still has its copy, and drops it when its user says so: it never had the turn.
    assert_eq!(pair.open("companion"), 1);
    unpairs(&pair, "companion", &["--alone"]);
    stands_alone(&pair, "companion");
    assert_eq!(pair.open("companion"), 0);
    pair.network.mend(Line::CompanionPath);
    std::thread::sleep(Duration::from_secs(3));
    assert!(!pair.arrivals(&id).contains(&BY_COMPANION.to_owned()));
}

/// The host's and the companion's mail, whose dot the server took and does not answer.
fn in_the_midst_of_the_dot() -> Option<(Pair, String)> {
    let mut pair = Pair::start_holding_doubts()?;
    pair.network.cut(Line::HostPath, Cut::Unplugged);
    pair.how("silent");
    let id = pair.send();
    pair.until("the server has it from the companion", |pair| pair.arrivals(&id) == [BY_COMPANION]);
    Some((pair, id))
}

/// The host knows that it does not know, keeps the mail, and sends it once more only when it is told to.
fn asks_and_sends_when_told_to(pair: &Pair, id: &str) {
    pair.how("accept");
    pair.network.mend(Line::HostPath);
    pair.until("the host asks", |pair| pair.json("host", &["outbox"])["mails"][0]["state"] == "asks-you");
    std::thread::sleep(Duration::from_secs(4));
    assert_eq!(pair.arrivals(id), [BY_COMPANION], "nothing is sent unasked");
    assert!(pair.command("host", &["outbox", "release", pair.outbox_id(id)]).status().unwrap().success());
    pair.until("its user has it sent again", |pair| pair.arrivals(id) == [BY_COMPANION, BY_HOST]);
    pair.until("it is done", |pair| pair.open("host") == 0);
}

#[test]
fn a_pair_that_ends_in_the_midst_of_the_companions_dot_waits_for_what_comes_of_it() {
    let Some((pair, id)) = in_the_midst_of_the_dot() else { return };
    let told = unpairs(&pair, "host", &[]);
    assert!(told["agreed"] == true && told["unclear"] == 0, "the host has heard all there is: {told}");
    stands_alone(&pair, "host");
    stands_alone(&pair, "companion");
    assert_eq!(pair.open("companion"), 0, "the copy is dropped");
    asks_and_sends_when_told_to(&pair, &id);
}

#[test]
fn a_companion_that_parts_alone_in_the_midst_of_its_dot_sends_no_more_and_the_host_asks() {
    let Some((pair, id)) = in_the_midst_of_the_dot() else { return };
    assert_eq!(unpairs(&pair, "companion", &["--alone"])["agreed"], false);
    stands_alone(&pair, "companion");
    pair.network.mend(Line::CompanionPath);
    unpairs(&pair, "host", &["--alone"]);
    stands_alone(&pair, "host");
    asks_and_sends_when_told_to(&pair, &id);
}
