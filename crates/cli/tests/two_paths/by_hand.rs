//! Runs by hand: how long it takes until a mail goes by the other path, and the pair with the times that users have.
//!
//! `cargo test --release -p packetboat --test two_paths by_hand -- --ignored --nocapture`

use std::time::{Duration, Instant};

use jiff::Timestamp;

use crate::network::{Cut, Line};
use crate::pair::{BY_COMPANION, BY_HOST, Pair};

/// Ports, and otherwise the defaults of the product.
const DEFAULTS: &str = "[submission]\nlisten = [\"127.0.0.1:2525\"]\n";

/// With the connect deadline that all these tests have.
const CONNECT: Duration = Duration::from_secs(2);

const ROUNDS: usize = 50;

#[test]
#[ignore = "a measurement of some minutes"]
fn measure_how_soon_a_mail_goes_by_the_other_path() {
    let Some(mut pair) = Pair::start() else { return };
    for (what, cut, lingering, bound) in [
        ("no route", Cut::Unplugged, false, Duration::from_secs(1)),
        ("silent, a new connection", Cut::Silent, false, CONNECT + Duration::from_secs(1)),
        ("silent, an open connection", Cut::Silent, true, CONNECT + Duration::from_secs(1)),
    ] {
        let mut times: Vec<Duration> = (0..ROUNDS).map(|_| once(&mut pair, cut, lingering)).collect();
        times.sort();
        let (median, longest) = (times[ROUNDS / 2], times[ROUNDS - 1]);
        println!("{what}: median {median:.2?}, at most {longest:.2?}, bound {bound:?}");
        assert!(median < bound, "{what}: {times:?}");
    }
}

/// From the cut to the acceptance of a mail that is handed in just after it.
fn once(pair: &mut Pair, cut: Cut, lingering: bool) -> Duration {
    let before = pair.send();
    pair.arrives_once(&before, BY_HOST);
    pair.until("both are done", |pair| pair.open("host") == 0 && pair.open("companion") == 0);
    if !lingering {
        // A connection is kept for another mail for two seconds.
        std::thread::sleep(Duration::from_millis(2500));
    }
    pair.network.cut(Line::HostPath, cut);
    let at = Timestamp::now();
    let id = pair.send();
    pair.until("the mail arrives", |pair| !pair.arrivals(&id).is_empty());
    let arrived = &pair.acceptances(&id)[0];
    assert_eq!(arrived.from, BY_COMPANION);
    let took = arrived.at.duration_since(at).unsigned_abs();
    pair.network.mend(Line::HostPath);
    pair.until("both are done", |pair| pair.open("host") == 0 && pair.open("companion") == 0);
    took
}

#[test]
#[ignore = "a measurement of a minute"]
fn measure_a_pair_at_rest() {
    let Some(mut pair) = Pair::start_with(DEFAULTS) else { return };
    let id = pair.send();
    pair.arrives_once(&id, BY_HOST);
    pair.until("both are done", |pair| pair.open("host") == 0 && pair.open("companion") == 0);
    // The connection that lingers is closed, and what was said last is acknowledged.
    std::thread::sleep(Duration::from_secs(10));
    let devices = ["host", "companion"];
    let before = devices.map(|device| wakeups(pair.process(device)));
    let seconds = 60;
    std::thread::sleep(Duration::from_secs(seconds));
    for (device, before) in devices.into_iter().zip(before) {
        let count = wakeups(pair.process(device)) - before;
        let resident = status(pair.process(device), "VmRSS:");
        println!("{device}: {count} wakeups in {seconds} s, {resident} KiB");
        // A keep-alive of either side each five seconds, its acknowledgement and the timers of both.
        assert!(count <= seconds * 2, "{count} wakeups in {seconds} s");
        assert!(resident < 40 << 10, "{resident} KiB");
    }
}

/// How often the threads of a process were put to sleep to wait for something.
fn wakeups(process: u32) -> u64 {
    let tasks = std::fs::read_dir(format!("/proc/{process}/task")).unwrap();
    let ids = tasks.map(|task| task.unwrap().file_name().into_string().unwrap());
    ids.map(|id| status(format!("{process}/task/{id}"), "voluntary_ctxt_switches:")).sum()
}

fn status(of: impl std::fmt::Display, field: &str) -> u64 {
    let status = std::fs::read_to_string(format!("/proc/{of}/status")).unwrap_or_default();
    let line = status.lines().find_map(|line| line.strip_prefix(field));
    line.and_then(|line| line.trim().trim_end_matches(" kB").parse().ok()).unwrap_or(0)
}

#[test]
#[ignore = "takes a minute"]
fn with_the_times_that_users_have_mails_change_paths() {
    let Some(mut pair) = Pair::start_with(DEFAULTS) else { return };
    let id = pair.send();
    pair.arrives_once(&id, BY_HOST);
    for cut in [Cut::Unplugged, Cut::Silent] {
        std::thread::sleep(Duration::from_secs(3));
        pair.network.cut(Line::HostPath, cut);
        let began = Instant::now();
        let id = pair.send();
        pair.arrives_once(&id, BY_COMPANION);
        println!("host path {cut:?}: by the companion after {:.1?}", began.elapsed());
        pair.network.mend(Line::HostPath);
        pair.until("both are done", |pair| pair.open("host") == 0 && pair.open("companion") == 0);
    }
}

#[test]
#[ignore = "takes half an hour: the lease, the margin and the patience of the defaults"]
fn with_the_times_that_users_have_a_lost_companions_turn_is_waited_for() {
    let Some(mut pair) = Pair::start_with(DEFAULTS) else { return };
    pair.network.cut(Line::HostPath, Cut::Silent);
    pair.network.cut(Line::CompanionPath, Cut::Silent);
    let id = pair.send();
    let state = |pair: &Pair| {
        let outbox = pair.json("host", &["outbox", "--finished", "0"]);
        outbox["mails"][0]["state"].as_str().unwrap_or_default().to_owned()
    };
    pair.until("the turn is granted", |pair| state(pair) == "granted");
    let granted = Instant::now();
    // The companion is lost with the turn; the host's own path is good again, and it must wait all the same.
    pair.end("companion", rustix::process::Signal::KILL);
    pair.network.mend(Line::HostPath);
    pair.until_within(Duration::from_secs(20 * 60), "the lease is over", |pair| state(pair) != "granted");
    let over = granted.elapsed();
    println!("the lease with its margin was over after {over:.1?}; then the mail was {}", state(&pair));
    assert!(over > Duration::from_secs(15 * 60 + 20) && over < Duration::from_secs(16 * 60), "{over:?}");
    assert!(pair.arrivals(&id).is_empty(), "nothing is sent while the companion may have the turn");
    pair.until_within(Duration::from_secs(15 * 60), "the mail arrives", |pair| !pair.arrivals(&id).is_empty());
    println!("sent by the host after {:.1?}, with no word of the companion", granted.elapsed());
    assert_eq!(pair.arrivals(&id), [BY_HOST]);
    // The companion comes back, hears of it, and sends nothing.
    pair.network.mend(Line::CompanionPath);
    pair.run("companion");
    pair.until("both are done", |pair| pair.open("host") == 0 && pair.open("companion") == 0);
    assert_eq!(pair.arrivals(&id), [BY_HOST]);
}
