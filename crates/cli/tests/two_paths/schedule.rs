//! Mails sent while paths are cut and mended and daemons killed, at random but by a seed: none is lost, and each
//! acceptance after the first is one of the documented windows.

use std::time::{Duration, Instant};

use crate::network::{Cut, Line};
use crate::pair::Pair;
use crate::windows;

/// Cuts, mends and kills at random while mails are sent; then everything is mended and everything must arrive.
/// `pace` is the longest wait between two of these, in milliseconds.
fn random_schedule(mails: usize, most: Duration, pace: u64, seed: u64) {
    let Some(mut pair) = Pair::start() else { return };
    let mut random = random(seed);
    let began = Instant::now();
    let mut ids = Vec::new();
    let mut kills = 0;
    while ids.len() < mails && began.elapsed() < most {
        for _ in 0..1 + random(4) {
            if ids.len() < mails {
                ids.push(pair.send());
            }
        }
        let line = [Line::Link, Line::HostPath, Line::CompanionPath][random(3) as usize];
        match random(8) {
            0..=2 => pair.network.cut(line, [Cut::Unplugged, Cut::Silent][random(2) as usize]),
            3..=5 => pair.network.mend(line),
            6 => {
                let device = ["host", "companion"][random(2) as usize];
                pair.end(device, rustix::process::Signal::KILL);
                pair.run(device);
                kills += 1;
            }
            _ => {}
        }
        std::thread::sleep(Duration::from_millis(random(pace)));
    }
    for line in [Line::Link, Line::HostPath, Line::CompanionPath] {
        pair.network.mend(line);
    }
    pair.until("every mail arrived", |pair| ids.iter().all(|id| !pair.arrivals(id).is_empty()));
    pair.until("both are done", |pair| pair.open("host") == 0 && pair.open("companion") == 0);
    let twice: Vec<_> = ids.iter().filter_map(|id| windows::excuses(&pair, id)).collect();
    println!(
        "seed {seed}: {} mails, {kills} kills, {} came more than once: {twice:?}, {:?}",
        ids.len(),
        twice.len(),
        began.elapsed()
    );
}

#[test]
fn nothing_is_lost_whatever_is_cut_or_killed() {
    random_schedule(40, Duration::from_secs(60), 1200, seed(1));
}

#[test]
#[ignore = "long: five hundred mails"]
fn nothing_is_lost_of_five_hundred_mails() {
    random_schedule(500, Duration::from_secs(170), 1300, seed(2));
}

/// Numbers below a bound, the same ones for a seed (SplitMix64).
pub(crate) fn random(seed: u64) -> impl FnMut(u64) -> u64 {
    let mut state = seed;
    move |bound| {
        state = state.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut value = state;
        value = (value ^ (value >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        value = (value ^ (value >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        (value ^ (value >> 31)) % bound
    }
}

pub(crate) fn seed(or: u64) -> u64 {
    std::env::var("PACKETBOAT_SEED").ok().and_then(|seed| seed.parse().ok()).unwrap_or(or)
}
