//! Mail over two paths through random cuts, kills and reboots; see `packetboat_testkit::delivery_world`.
//!
//! `PACKETBOAT_SEEDS` sets how many seeds are run, `PACKETBOAT_SEED` the first, alone where no number is given;
//! `PACKETBOAT_MAIL` prints what happened to that mail of each.

use packetboat_testkit::delivery_world::{DeliveryWorld, Outcome};

fn number(name: &str) -> Option<u64> {
    std::env::var(name).ok()?.parse().ok()
}

#[test]
fn no_mail_is_lost_and_none_accepted_twice_without_an_excuse() {
    let first = number("PACKETBOAT_SEED");
    let seeds = number("PACKETBOAT_SEEDS").unwrap_or(if first.is_some() { 1 } else { 2_000 });
    let first = first.unwrap_or(0);
    let mut total = Outcome::default();
    for seed in first..first + seeds {
        total.add(&DeliveryWorld::tell_of(seed, number("PACKETBOAT_MAIL").map(|mail| mail as usize)));
    }
    println!("{seeds} seeds from {first}: {total:?}");
    if seeds >= 1_000 {
        // A simulation in which nothing goes wrong proves nothing.
        assert!(total.accepted.iter().all(|path| *path > seeds / 10), "both paths deliver: {total:?}");
        assert!(total.unheard > seeds / 100 && total.unreported > 0 && total.twice > 0, "windows open: {total:?}");
        assert!(total.kills > seeds / 4 && total.kills_after_save > seeds / 50 && total.bounced > 0, "{total:?}");
    }
}

#[test]
fn the_same_seed_gives_the_same_trace() {
    let runs: Vec<Outcome> = (0..20).map(DeliveryWorld::run).collect();
    for (seed, outcome) in runs.iter().enumerate() {
        assert_eq!(*outcome, DeliveryWorld::run(seed as u64), "seed {seed}");
    }
    assert_eq!(Outcome::distinct(&runs), runs.len());
}
