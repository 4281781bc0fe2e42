//! Whatever others did, a disk that follows shows what is to be seen.

use proptest::prelude::*;

use super::*;
use crate::change::{Change, Removed};
use crate::memory::vault::{named, text};

/// One thing that a device does, by numbers that choose among what there is.
type Deed = (u8, u8, u8, u8);

/// Does one thing, by a device that had seen of an item what it or another had seen of it at some time.
fn act(vault: &mut Vault, known: &mut Vec<Vec<Seen>>, deed: Deed) {
    let (what, which, since, where_to) = deed;
    let device = 2 + since % 3;
    let directories: Vec<ItemId> = known.iter().map(|seen| seen[0].item).collect();
    let is_directory = |item: &ItemId| vault.tree().items()[item].is_directory();
    let parents: Vec<ItemId> = directories.into_iter().filter(is_directory).chain([ItemId::ROOT]).collect();
    let parent = parents[usize::from(where_to) % parents.len()];
    let name = ["a", "b"][usize::from(which) % 2];
    if what % 8 < 3 || known.is_empty() {
        let content = if what % 8 == 0 { Content::Directory } else { text(["x", "y"][usize::from(since) % 2]) };
        return known.push(vec![vault.create(device, parent, name, content)]);
    }
    let at = usize::from(which) % known.len();
    let versions = &mut known[at];
    let seen = versions[versions.len() - 1 - usize::from(since) % versions.len()].clone();
    let is_directory = vault.tree().items()[&seen.item].is_directory();
    match what % 8 {
        3 if !is_directory => versions.push(vault.edit(device, &seen, ["x", "y", "z"][usize::from(where_to) % 3])),
        4 | 5 if seen.item != parent => versions.push(vault.place(device, &seen, parent, name)),
        6 => {
            vault.delete(device, &seen);
        }
        7 => {
            let removed = Removed { item: seen.item, heads: seen.heads.clone(), placements: Vec::new() };
            let mode = Change::Mode { item: seen.item, mode: u32::from(since) };
            let delete = Change::Delete { removed: vec![removed] };
            vault.publish(device, vec![if where_to % 2 == 0 { delete } else { mode }]);
        }
        _ => {}
    }
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 96, failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn a_disk_that_follows_shows_what_is_to_be_seen_whatever_others_did(
        deeds in prop::collection::vec((any::<Deed>(), prop::bool::weighted(0.3)), 1..30)
    ) {
        let mut replica = Replica::default();
        let mut known = Vec::new();
        for (deed, follows) in deeds {
            act(&mut replica.vault, &mut known, deed);
            if follows {
                replica.follow();
            }
        }
        replica.follow();
        let everything: Vec<ItemId> = replica.vault.tree().items().keys().copied().collect();
        let plan = replica.plan_for(&everything);
        prop_assert_eq!((plan.steps, plan.removals), (Vec::new(), Vec::new()));
    }
}

#[test]
fn a_directory_that_stands_for_others_is_planned_with_what_it_holds() {
    let mut replica = Replica::default();
    let one = replica.vault.create(2, ItemId::ROOT, "a", Content::Directory);
    let other = replica.vault.create(3, ItemId::ROOT, "a", Content::Directory);
    replica.vault.create(2, one.item, "x", text("x"));
    replica.vault.create(3, other.item, "y", text("y"));
    replica.follow();
    assert_eq!(replica.names(), ["a", "a/x", "a/y"]);
    assert_eq!(replica.entry("y").dir, replica.entry("x").dir);
    let first = replica.vault.delete(2, &one);
    assert_ne!(first, other.heads[0]);
    replica.follow();
    assert_eq!(replica.names(), ["a", "a/x", "a/y"], "what lies in a deleted directory keeps it shown");
    assert_eq!(replica.entries().filter(|entry| entry.name == named("a")).count(), 1);
}
