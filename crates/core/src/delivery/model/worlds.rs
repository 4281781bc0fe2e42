//! The worlds that are checked, from those that are seen whole to those of which a usual run sees a part.

use super::Fault::{
    Cancel, CompanionCrash, CompanionReboot, CrashAfterSave, Drift, Drop, Duplicate, Expiry, HandOver, Hold, HostCrash,
    HostReboot, LaterForOne, LinkCut, LostDot, LostReply, Reclaim, RefusedForGood, Renewal, TakeOver, TryFailure,
    Unpair,
};
use super::*;

/// How many steps are taken in a world in a usual run, and in a long one.
const STEPS: usize = 6_000_000;
const MANY_STEPS: usize = 400_000_000;

/// Checks a world to its end and prints how many states it has; every fault that it allows must have happened.
///
/// Depth first, so that memory holds what was seen as hashes and only one path as states. A world with more than
/// [`STEPS`] is not seen to its end, and says so.
fn check(name: &str, world: World) -> Extent {
    check_up_to(STEPS, name, world)
}

fn check_up_to(steps: usize, name: &str, world: World) -> Extent {
    let checker = world
        .checker()
        .threads(2)
        .finish_when(HasDiscoveries::AnyFailures)
        .target_state_count(steps)
        .spawn_dfs()
        .join();
    let states = checker.unique_state_count();
    let extent = if checker.state_count() < steps { Extent::Whole } else { Extent::Part };
    println!("{name}: {states} states, {extent:?}");
    checker.assert_properties();
    for (kind, times) in checker.model().faults.iter().enumerate() {
        let fired = checker.model().fired[kind].load(Ordering::Relaxed);
        assert!(*times == 0 || fired > 0, "fault {kind} of {name} never happened");
    }
    extent
}

/// How much of a world was seen.
#[derive(PartialEq, Debug)]
enum Extent {
    Whole,
    Part,
}

/// The worlds of which a usual run may see a part only.
const LARGE: [&str; 12] = [
    "link",
    "crashes",
    "reboots",
    "recipients",
    "look-up",
    "look-up of two",
    "users",
    "taking over",
    "renewal",
    "reclaiming",
    "unpairing",
    "lifetime",
];

/// One of them; of one state in 64 it is checked that all ends well from it.
fn large(name: &str) -> World {
    let world = |recipients, ticks, look_up, faults: &[(Fault, u8)]| World {
        live_one_in: 64,
        ..World::new(recipients, ticks, look_up, faults)
    };
    match name {
        "link" => world(
            1,
            6,
            SentLookupModel::Nothing,
            &[(TryFailure, 1), (Drop, 1), (Duplicate, 1), (LinkCut, 1), (Drift, 1)],
        ),
        "crashes" => world(
            1,
            6,
            SentLookupModel::Nothing,
            &[(TryFailure, 1), (HostCrash, 1), (CompanionCrash, 1), (CrashAfterSave, 1), (Drift, 1)],
        ),
        "reboots" => world(
            1,
            7,
            SentLookupModel::Nothing,
            &[(TryFailure, 1), (HostReboot, 1), (CompanionReboot, 1), (LostReply, 1), (Drift, 1)],
        ),
        "recipients" => world(
            2,
            6,
            SentLookupModel::Nothing,
            &[(TryFailure, 1), (LaterForOne, 1), (RefusedForGood, 1), (LostReply, 1), (Drift, 1)],
        ),
        "look-up" => world(
            1,
            6,
            SentLookupModel::Perfect,
            &[(TryFailure, 1), (LostReply, 1), (LostDot, 1), (LinkCut, 1), (CompanionCrash, 1), (Drift, 1)],
        ),
        "look-up of two" => world(
            2,
            6,
            SentLookupModel::Perfect,
            &[(TryFailure, 1), (LaterForOne, 1), (LostReply, 1), (LostDot, 1), (LinkCut, 1), (Drift, 1)],
        ),
        "users" => world(
            1,
            4,
            SentLookupModel::Nothing,
            &[(TryFailure, 1), (HandOver, 1), (Cancel, 1), (Hold, 1), (LinkCut, 1), (Drift, 1)],
        ),
        "taking over" => {
            world(1, 6, SentLookupModel::Nothing, &[(TryFailure, 1), (TakeOver, 1), (LinkCut, 1), (Drift, 1)])
        }
        "renewal" => {
            world(1, 6, SentLookupModel::Nothing, &[(TryFailure, 1), (Drop, 1), (LinkCut, 1), (Renewal, 1), (Drift, 1)])
        }
        "reclaiming" => world(
            1,
            5,
            SentLookupModel::Nothing,
            &[(TryFailure, 1), (HandOver, 1), (Reclaim, 1), (LinkCut, 1), (Drift, 1)],
        ),
        "unpairing" => world(
            1,
            5,
            SentLookupModel::Nothing,
            &[(TryFailure, 1), (HandOver, 1), (Unpair, 1), (LostReply, 1), (Drift, 1)],
        ),
        "lifetime" => {
            // A mail bounces when it was tried for two ticks.
            let mut world =
                world(1, 5, SentLookupModel::Nothing, &[(TryFailure, 2), (LinkCut, 1), (Expiry, 1), (Drift, 1)]);
            world.settings.lifetime = Duration::from_millis(2);
            world
        }
        _ => panic!("no world is called {name}"),
    }
}

fn check_large(name: &str) {
    check(name, large(name));
}

#[test]
fn a_pair_whose_link_is_cut_once_keeps_its_promises_in_every_state() {
    let faults = [(TryFailure, 1), (LinkCut, 1), (Drift, 1)];
    let world = World { live_one_in: 16, ..World::new(1, 4, SentLookupModel::Nothing, &faults) };
    assert_eq!(check("one cut", world), Extent::Whole);
}

#[test]
fn a_pair_that_crashes_once_keeps_its_promises_in_every_state() {
    let faults = [(TryFailure, 1), (CrashAfterSave, 1), (Drift, 1)];
    let world = World { live_one_in: 16, ..World::new(1, 4, SentLookupModel::Nothing, &faults) };
    assert_eq!(check("one crash", world), Extent::Whole);
}

#[test]
fn the_machines_keep_their_promises_whatever_the_link_does() {
    check_large("link");
}

#[test]
fn the_machines_keep_their_promises_through_crashes() {
    check_large("crashes");
}

#[test]
fn the_machines_keep_their_promises_through_reboots() {
    check_large("reboots");
}

#[test]
fn recipients_who_are_refused_or_put_off_stop_no_other() {
    check_large("recipients");
}

#[test]
fn a_look_up_that_tells_leaves_no_mail_accepted_twice() {
    check_large("look-up");
}

#[test]
fn what_stands_in_sent_loses_no_recipient() {
    check_large("look-up of two");
}

#[test]
fn users_may_hold_cancel_and_hand_over_at_any_time() {
    check_large("users");
}

#[test]
fn taking_over_for_a_host_that_is_not_lost_ends_well() {
    check_large("taking over");
}

#[test]
fn a_mail_that_outlives_its_time_bounces_on_one_side_or_is_sent_by_the_other() {
    check_large("lifetime");
}

#[test]
fn a_lease_that_is_renewed_before_its_dot_lets_no_two_send() {
    check_large("renewal");
}

#[test]
fn a_turn_without_end_that_is_reclaimed_ends_well() {
    check_large("reclaiming");
}

#[test]
fn a_host_that_is_unpaired_in_the_middle_ends_well() {
    check_large("unpairing");
}

/// The worlds of which a usual run sees a part, each with fewer faults at once, so that it is seen to its end.
#[test]
fn what_is_too_large_to_be_seen_whole_is_seen_whole_in_parts() {
    type Part<'a> = (&'a str, u32, u64, SentLookupModel, &'a [(Fault, u8)]);
    let parts: [Part<'_>; 8] = [
        ("one loss", 1, 4, SentLookupModel::Nothing, &[(TryFailure, 1), (Drop, 1), (Drift, 1)]),
        ("one repetition", 1, 4, SentLookupModel::Nothing, &[(TryFailure, 1), (Duplicate, 1), (Drift, 1)]),
        ("one reboot", 1, 4, SentLookupModel::Nothing, &[(TryFailure, 1), (HostReboot, 1), (Drift, 1)]),
        ("one lost reply", 1, 4, SentLookupModel::Perfect, &[(TryFailure, 1), (LostReply, 1), (Drift, 1)]),
        ("one refusal", 2, 4, SentLookupModel::Nothing, &[(TryFailure, 1), (RefusedForGood, 1), (Drift, 1)]),
        ("one put off", 2, 4, SentLookupModel::Perfect, &[(TryFailure, 1), (LaterForOne, 1), (Drift, 1)]),
        ("one cancel", 1, 4, SentLookupModel::Nothing, &[(TryFailure, 1), (Cancel, 1), (Drift, 1)]),
        ("one taking over", 1, 4, SentLookupModel::Nothing, &[(TryFailure, 1), (TakeOver, 1), (Drift, 1)]),
    ];
    for (name, recipients, ticks, look_up, faults) in parts {
        let world = World { live_one_in: 16, ..World::new(recipients, ticks, look_up, faults) };
        assert_eq!(check(name, world), Extent::Whole, "{name}");
    }
}

/// The rule that seems natural, and why this is not so simple.
#[test]
fn the_naive_rule_lets_both_send_at_once() {
    let mut world = World::new(1, 4, SentLookupModel::Nothing, &[(TryFailure, 1), (LinkCut, 1), (Drift, 1)]);
    world.settings.takes_over_when_link_is_down = true;
    let two = "S2 never are both entitled to write the dot";
    let checker = world.checker().threads(2).finish_when(HasDiscoveries::AnyOf([two].into())).spawn_bfs().join();
    let steps = checker.discovery(two).expect("the checker finds two that may send").into_actions();
    println!("naive rule: both may send after {} steps: {steps:?}", steps.len());
}

/// What the margin is for: the checker sees the drift that it covers.
#[test]
fn without_a_margin_drifting_clocks_let_both_send_at_once() {
    let mut world = World::new(1, 6, SentLookupModel::Nothing, &[(TryFailure, 1), (LinkCut, 1), (Drift, 1)]);
    world.settings.margin = Duration::ZERO;
    world.settings.sent_settle = Duration::ZERO;
    world.settings.peer_patience = Duration::ZERO;
    let two = "S2 never are both entitled to write the dot";
    let checker = world.checker().threads(2).finish_when(HasDiscoveries::AnyOf([two].into()));
    let checker = checker.target_state_count(STEPS).spawn_bfs().join();
    assert!(checker.discovery(two).is_some(), "not found in {} states", checker.unique_state_count());
}

#[test]
#[ignore = "long: every world that a usual run sees a part of, with sixty times the steps"]
fn every_world_for_long() {
    for name in LARGE {
        check_up_to(MANY_STEPS, name, large(name));
    }
}
