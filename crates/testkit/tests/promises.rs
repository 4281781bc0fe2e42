//! The promises of DESIGN section 9 over random histories; see `packetboat_testkit::world`.
//!
//! `PACKETBOAT_SEEDS` sets how many seeds each test runs, `PACKETBOAT_SEED` runs one alone.

use packetboat_testkit::faulty_store::{Fault, FaultConfig};
use packetboat_testkit::sim_fs::CrashModel;
use packetboat_testkit::world::{World, WorldOptions};

fn run(seeds: u64, first: u64, options: impl Fn(u64) -> WorldOptions) {
    if let Some(seed) = number("PACKETBOAT_SEED") {
        World::run(seed, options(seed));
        return;
    }
    for seed in first..first + number("PACKETBOAT_SEEDS").unwrap_or(seeds) {
        World::run(seed, options(seed));
    }
}

fn number(name: &str) -> Option<u64> {
    std::env::var(name).ok()?.parse().ok()
}

#[test]
fn two_devices_that_only_write_converge_and_lose_nothing() {
    run(100, 1, |_| WorldOptions { devices: 2, moves: false, deletes: false, oddities: false, ..Default::default() });
}

#[test]
fn devices_that_write_and_delete_converge_and_lose_nothing() {
    run(150, 1000, |seed| WorldOptions {
        devices: 2 + seed as usize % 3,
        moves: false,
        replacing: true,
        ..Default::default()
    });
}

#[test]
fn devices_that_do_everything_converge_and_lose_nothing() {
    run(250, 2000, |seed| WorldOptions { devices: 2 + seed as usize % 4, replacing: true, ..Default::default() });
}

#[test]
fn a_storage_that_misbehaves_costs_time_and_nothing_else() {
    let faults = FaultConfig::none()
        .with(Fault::Transient, 50)
        .with(Fault::StoredButFailed, 50)
        .with(Fault::Torn, 30)
        .with(Fault::DelayedVisibility, 50)
        .with(Fault::StaleListing, 50)
        .with(Fault::ReplayedTip, 30)
        .with(Fault::Full, 20)
        .with(Fault::FlippedBit, 20);
    run(200, 3000, |seed| WorldOptions {
        devices: 2 + seed as usize % 3,
        faults: faults.clone(),
        steps: 60,
        replacing: true,
        ..Default::default()
    });
}

#[test]
fn crashes_at_any_instant_cost_nothing() {
    run(250, 4000, |seed| WorldOptions {
        devices: 2 + seed as usize % 2,
        crash_percent: 40,
        crash_model: if seed % 2 == 0 { CrashModel::OrderedMetadata } else { CrashModel::Anything },
        steps: 60,
        replacing: true,
        ..Default::default()
    });
}

#[test]
fn edits_during_a_round_are_not_lost() {
    run(150, 5000, |seed| WorldOptions {
        devices: 2 + seed as usize % 2,
        races: true,
        replacing: true,
        ..Default::default()
    });
}

#[test]
fn settling_conflicts_and_writing_the_same_again_loses_nothing_else() {
    run(150, 6000, |seed| WorldOptions {
        devices: 2 + seed as usize % 3,
        settling: true,
        replacing: true,
        ..Default::default()
    });
}

#[test]
fn devices_that_join_late_or_lose_their_index_lose_nothing_and_agree() {
    run(150, 7000, |seed| WorldOptions {
        devices: 1 + seed as usize % 3,
        newcomers: true,
        settling: seed % 2 == 0,
        steps: 60,
        replacing: true,
        ..Default::default()
    });
}

#[test]
fn what_was_ignored_for_a_while_is_not_lost() {
    run(150, 8000, |seed| WorldOptions {
        devices: 2 + seed as usize % 2,
        ignoring: true,
        moves: false,
        replacing: true,
        ..Default::default()
    });
}

#[test]
fn devices_that_are_retired_or_revoked_come_back_and_nothing_is_lost() {
    run(150, 9000, |seed| WorldOptions {
        devices: 3 + seed as usize % 3,
        leaving: true,
        steps: 60,
        replacing: true,
        ..Default::default()
    });
}

#[test]
fn a_key_by_a_member_that_is_learned_in_the_same_round_opens_the_tips_that_lead_to_a_revocation() {
    // A device slept while another came back under a new id and began an epoch in which it was revoked by a third. It
    // took the key only once it had folded who gives it, did not look at the tips again, and published into the void.
    World::run(10_164, WorldOptions { devices: 2, copies: true, leaving: true, steps: 60, ..Default::default() });
    // Here it had no other key to wait for; its own tip was among those that it did not look at again.
    World::run(10_492, WorldOptions { devices: 3, copies: true, leaving: true, steps: 60, ..Default::default() });
}

#[test]
fn cloned_disks_and_restored_backups_end_in_step_and_lose_nothing() {
    run(150, 10_000, |seed| WorldOptions {
        devices: 2 + seed as usize % 3,
        copies: true,
        leaving: seed % 4 == 0,
        steps: 60,
        replacing: true,
        ..Default::default()
    });
}

#[test]
fn the_same_seed_gives_the_same_trace() {
    for seed in 0..5 {
        let options = || WorldOptions { crash_percent: 20, replacing: true, ..Default::default() };
        assert_eq!(World::run(seed, options()), World::run(seed, options()), "seed {seed}");
    }
}
