//! The real binary stopped at a chosen system call: killed there, refused by the disk there, or with the power gone there.
//!
//! A scenario is a run of one command on known disks. It is recorded once under strace, which gives every call by which
//! it changes a disk; then the same disks are put back and the run is repeated, disturbed at one of the calls.
//! After each, a plain `sync` of both devices has to bring both folders to what an undisturbed run leads to.
//! Disks are ext4 images in memory, mounted in a mount namespace of the test's own, so that inodes and times are the same
//! each time and a power loss is real to the file system; this needs root and is skipped elsewhere.
//!
//! Usual runs take calls by a seed (`PACKETBOAT_SEED`, `PACKETBOAT_POINTS` says how many); the ignored tests take every one,
//! of the scenario that `PACKETBOAT_SCENARIO` names or of all. The index is written page by page in long rows of one call;
//! `PACKETBOAT_ROW` says how many of a row are taken besides its last.

mod afterwards;
mod calls;
mod disturb;
mod ground;
mod scenarios;
mod tree;

use disturb::{Disturbance, every_point, some_points};

#[test]
fn a_run_killed_at_a_call_goes_on_with_a_plain_sync() {
    some_points("a_run_killed_at_a_call_goes_on_with_a_plain_sync", &[Disturbance::Kill], 30);
}

#[test]
fn a_disk_that_fails_at_a_call_is_told_and_costs_nothing() {
    let failures = [Disturbance::BadDisk, Disturbance::FullDisk];
    some_points("a_disk_that_fails_at_a_call_is_told_and_costs_nothing", &failures, 12);
}

#[test]
fn power_lost_at_a_call_leaves_old_or_new_and_all_that_was_reported() {
    let losses = [Disturbance::HomeLosesPower, Disturbance::StickLosesPower, Disturbance::BothLosePower];
    some_points("power_lost_at_a_call_leaves_old_or_new_and_all_that_was_reported", &losses, 12);
}

#[test]
#[ignore = "long: more than a thousand runs"]
fn a_run_killed_at_any_call_goes_on_with_a_plain_sync() {
    every_point("a_run_killed_at_any_call_goes_on_with_a_plain_sync", &[Disturbance::Kill]);
}

#[test]
#[ignore = "long: more than a thousand runs"]
fn a_disk_that_fails_at_any_call_is_told_and_costs_nothing() {
    let failures = [Disturbance::BadDisk, Disturbance::FullDisk];
    every_point("a_disk_that_fails_at_any_call_is_told_and_costs_nothing", &failures);
}

#[test]
#[ignore = "long: thousands of runs"]
fn power_lost_at_any_call_leaves_old_or_new_and_all_that_was_reported() {
    let losses = [Disturbance::HomeLosesPower, Disturbance::StickLosesPower, Disturbance::BothLosePower];
    every_point("power_lost_at_any_call_leaves_old_or_new_and_all_that_was_reported", &losses);
}
