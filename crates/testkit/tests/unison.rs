//! Unison's rules ("What is a file synchronizer?", Balasubramaniam and Pierce) over random pairs of trees.
//!
//! Two replicas in step, then random edits on each. Of a path that nobody changed neither disk is touched; what is dirty
//! on one side only travels; what is dirty on both and different stays, both contents on both disks. The result is one
//! tree, the same on both, and a second round changes nothing.

use std::collections::BTreeMap;

use packetboat_replica::fs::{FileKind, Stat};
use packetboat_testkit::rng::Rng;
use packetboat_testkit::sim_fs::{Node, SimFs};
use packetboat_testkit::world::{World, WorldOptions};

/// What a path is: nothing, a directory, or a leaf with a content.
type Tree = BTreeMap<Vec<u8>, Option<Vec<u8>>>;

fn tree_of(world: &World, at: usize) -> Tree {
    let what = |node: Node| match node {
        Node::File { bytes, .. } => Some(bytes),
        Node::Symlink { target } => Some([b"-> ".as_slice(), &target].concat()),
        Node::Directory { .. } | Node::Special => None,
    };
    world.tree(at).into_iter().map(|(path, node)| (path, what(node))).collect()
}

fn stats(world: &World, at: usize) -> BTreeMap<Vec<u8>, Stat> {
    let mut stats = BTreeMap::new();
    for path in world.tree(at).into_keys() {
        let stat = world.fs(at).stat(&path).unwrap();
        if stat.kind != FileKind::Directory {
            stats.insert(path, stat);
        }
    }
    stats
}

fn is_within(path: &[u8], dir: &[u8]) -> bool {
    path.strip_prefix(dir).is_some_and(|rest| rest.first() == Some(&b'/'))
}

/// Edits one disk at random, without renames; values of `pool` may be written on both sides.
fn edit(rng: &mut Rng, fs: &SimFs, tree: &Tree, side: &str, count: &mut u64) {
    let names = ["a", "b", "c", "d"];
    let mut path = Vec::new();
    for depth in 0..1 + rng.below(3) {
        if depth > 0 {
            path.push(b'/');
        }
        path.extend_from_slice(names[rng.index(names.len())].as_bytes());
    }
    *count += 1;
    let fresh = if rng.chance(1, 5) { format!("same {}", rng.below(2)) } else { format!("{side} {count}") };
    match (rng.below(10), tree.get(&path)) {
        (0..=4, Some(Some(_)) | None) => drop(fs.write(&path, fresh.as_bytes())),
        (5, Some(Some(_))) => {
            drop(fs.remove(&path));
            drop(fs.make_dir(&path));
        }
        (6, None) => drop(fs.make_dir(&path)),
        (7, None) => drop(fs.make_symlink(fresh.as_bytes(), &path)),
        (8 | 9, Some(_)) => drop(fs.remove(&path)),
        _ => {}
    }
}

fn pair_of_trees(seed: u64) {
    let mut rng = Rng::new(seed);
    let mut world = World::new(rng.next_u64(), WorldOptions { devices: 2, ..WorldOptions::default() });
    let mut count = 0;
    for _ in 0..rng.below(14) {
        let tree = tree_of(&world, 0);
        edit(&mut rng, world.fs(0), &tree, "base", &mut count);
    }
    world.rest();
    let base = tree_of(&world, 0);
    assert_eq!(base, tree_of(&world, 1), "seed {seed}");
    world.pass(60_000);
    for at in 0..2 {
        for _ in 0..rng.below(8) {
            let tree = tree_of(&world, at);
            edit(&mut rng, world.fs(at), &tree, ["left", "right"][at], &mut count);
        }
    }
    let edited = [tree_of(&world, 0), tree_of(&world, 1)];
    let before = [stats(&world, 0), stats(&world, 1)];
    let first = rng.index(2);
    for at in [first, 1 - first, first] {
        world.sync_well(at);
    }
    let result = tree_of(&world, 0);
    let told = || format!("seed {seed}\nbase {base:#?}\nedited {edited:#?}\nresult {result:#?}");
    assert_eq!(result, tree_of(&world, 1), "{}", told());
    check(&base, &edited, &result, &told);
    let after = [stats(&world, 0), stats(&world, 1)];
    for at in 0..2 {
        for (path, stat) in &before[at] {
            let untouched = base.get(path) == edited[0].get(path) && base.get(path) == edited[1].get(path);
            let equal = edited[0].get(path) == edited[1].get(path);
            if untouched || equal {
                assert_eq!(after[at].get(path), Some(stat), "{path:?} was touched on {at}; {}", told());
            }
        }
    }
    for at in [0, 1, 0] {
        let report = world.sync_well(at);
        assert_eq!(report.published.packets, 0, "{}", told());
        assert_eq!(report.received, Default::default(), "{}", told());
    }
    assert_eq!([stats(&world, 0), stats(&world, 1)], after, "{}", told());
}

fn check(base: &Tree, edited: &[Tree; 2], result: &Tree, told: &dyn Fn() -> String) {
    for path in result.keys() {
        let mut above = path.as_slice();
        while let Some(at) = above.iter().rposition(|byte| *byte == b'/') {
            above = &above[..at];
            assert_eq!(result.get(above), Some(&None), "no object without a directory; {}", told());
        }
    }
    let [left, right] = edited;
    let paths = base.keys().chain(left.keys()).chain(right.keys());
    for path in paths {
        let states = [base, left, right].map(|tree| tree.get(path));
        let [old, mine, theirs] = states;
        let dirty = |tree: &Tree, path: &[u8]| tree.get(path) != base.get(path);
        // Where one side changed what lies above or beneath, the path is part of a larger difference.
        let near = |tree: &Tree| {
            let all = base.keys().chain(tree.keys());
            all.filter(|other| is_within(other, path) || is_within(path, other)).any(|other| dirty(tree, other))
        };
        let holds = |content: &Vec<u8>| result.values().any(|found| found.as_ref() == Some(content));
        match (mine != old, theirs != old) {
            (true, false) if !near(right) => assert_eq!(result.get(path), mine, "{path:?}; {}", told()),
            (false, true) if !near(left) => assert_eq!(result.get(path), theirs, "{path:?}; {}", told()),
            _ => {}
        }
        // A content that one side wrote is there, whatever the other side did.
        for (at, state) in [mine, theirs].into_iter().enumerate() {
            if let Some(Some(content)) = state
                && state != old
            {
                assert!(holds(content), "side {at} wrote {:?}; {}", String::from_utf8_lossy(content), told());
            }
        }
        // What both sides deleted, or one side deleted and the other left alone, is gone.
        if let Some(Some(content)) = old
            && (mine.is_none() || theirs.is_none())
            && [mine, theirs].into_iter().all(|state| state.is_none() || state == old)
        {
            let elsewhere = [base, left, right]
                .iter()
                .any(|tree| tree.iter().any(|(other, found)| other != path && found.as_ref() == Some(content)));
            assert!(elsewhere || !holds(content), "{path:?} was deleted; {}", told());
        }
    }
}

#[test]
fn random_pairs_of_trees_follow_unisons_rules() {
    let number = |name| std::env::var(name).ok()?.parse::<u64>().ok();
    if let Some(seed) = number("PACKETBOAT_SEED") {
        return pair_of_trees(seed);
    }
    for seed in 0..number("PACKETBOAT_SEEDS").unwrap_or(1_000) {
        pair_of_trees(seed);
    }
}
