//! "Mysteries of Dropbox" (Hughes, Pierce, Arts, Norell, ICST 2016) as an oracle for one file on several nodes.
//!
//! The paper's model keeps a stable value and a set of conflicting values, and for each node its current value, whether
//! it has seen the stable one (fresh) and whether it has written since (clean). UP and DOWN are hidden there and may happen
//! at any time; here a round of a node is both, and a test says when. So the model predicts each observation exactly:
//!
//! - the vault holds *versions*; each write and delete replaces exactly those that the node's disk showed where it was made;
//! - a round of a node publishes what it wrote, and afterwards its disk shows the values of all versions that stand;
//! - READ between rounds shows what the node itself wrote since, and else what its last round left: some interleaving;
//! - after STABILIZE all nodes show the same values under the same names, and each value not knowingly overwritten is there.
//!
//! `PACKETBOAT_SEEDS` sets how many histories each test runs, `PACKETBOAT_SEED` runs one alone.

use std::collections::{BTreeMap, BTreeSet};

use packetboat_testkit::rng::Rng;
use packetboat_testkit::world::{World, WorldOptions};

type Value = Vec<u8>;
type Version = usize;

/// What the vault holds, as far as the observations tell: one of several possible models.
#[derive(Default, Clone, PartialEq)]
struct Model {
    values: Vec<Value>,
    standing: BTreeSet<Version>,
    nodes: Vec<NodeModel>,
}

/// What one node shows and did.
#[derive(Default, Clone, PartialEq)]
struct NodeModel {
    /// What its last round left, by path: the value and the versions that are shown as it.
    shown: BTreeMap<String, (Value, BTreeSet<Version>)>,
    /// What its user wrote or deleted since.
    dirty: BTreeMap<String, Option<Value>>,
}

impl NodeModel {
    /// READ: what the user sees.
    fn sees(&self) -> BTreeMap<String, Value> {
        let mut seen: BTreeMap<String, Value> =
            self.shown.iter().map(|(path, (value, _))| (path.clone(), value.clone())).collect();
        for (path, value) in &self.dirty {
            match value {
                Some(value) => drop(seen.insert(path.clone(), value.clone())),
                None => drop(seen.remove(path)),
            }
        }
        seen
    }
}

impl Model {
    fn standing_values(&self) -> BTreeSet<&Value> {
        self.standing.iter().map(|version| &self.values[*version]).collect()
    }

    /// UP: each write and delete replaces what was shown where it was made, and nothing else.
    ///
    /// A write of what somebody else wrote may be taken for agreement with that, where it `agrees`, or stand beside it.
    fn up(&mut self, node: usize, agrees: bool) {
        for (path, value) in std::mem::take(&mut self.nodes[node].dirty) {
            let before = self.nodes[node].shown.get(&path).cloned();
            let (old, seen) = before.map_or((None, BTreeSet::new()), |(value, seen)| (Some(value), seen));
            if old == value {
                continue;
            }
            let gone = seen.is_disjoint(&self.standing);
            if let Some(value) = &value
                && gone
                && agrees
                && self.standing_values().contains(value)
            {
                // Somebody else wrote the same: agreement.
                continue;
            }
            self.standing.retain(|version| !seen.contains(version));
            if let Some(value) = value {
                self.standing.insert(self.values.len());
                self.values.push(value);
            }
        }
    }

    /// DOWN: the disk shows the values that stand, each once; under which names is for it to say. Whether this does.
    fn down(&mut self, node: usize, files: &BTreeMap<String, Value>) -> bool {
        let shown: BTreeSet<&Value> = files.values().collect();
        if shown != self.standing_values() || shown.len() != files.len() {
            return false;
        }
        let versions = |value: &Value| self.standing.iter().copied().filter(|v| self.values[*v] == *value).collect();
        let shown = files.iter().map(|(path, value)| (path.clone(), (value.clone(), versions(value)))).collect();
        self.nodes[node].shown = shown;
        true
    }
}

fn show<'v>(values: impl IntoIterator<Item = &'v Value>) -> Vec<String> {
    values.into_iter().map(|value| String::from_utf8_lossy(value).into_owned()).collect()
}

/// What a history may hold.
#[derive(Clone, Copy)]
struct Kind {
    /// Whether users write the same value now and then.
    few_values: bool,
    /// Whether users write to and delete conflict copies too.
    copies: bool,
    deletes: bool,
}

fn history(seed: u64, kind: Kind) {
    let mut rng = Rng::new(seed);
    let nodes = 3;
    let mut world = World::new(rng.next_u64(), WorldOptions { devices: nodes, ..WorldOptions::default() });
    let mut models = vec![Model { nodes: vec![NodeModel::default(); nodes], ..Model::default() }];
    let mut said = vec![format!("seed {seed}:")];
    let steps = 4 + rng.below(9);
    let mut written = 0;
    for _ in 0..steps {
        let node = rng.index(nodes);
        if rng.chance(2, 5) {
            round(&mut world, &mut models, node, &mut said);
            continue;
        }
        // What a user sees is the same in all of them.
        let seen = models[0].nodes[node].sees();
        let paths: Vec<&String> = seen.keys().collect();
        let path = match rng.pick(&paths) {
            Some(path) if kind.copies => (*path).clone(),
            _ => "f.txt".to_owned(),
        };
        if kind.deletes && seen.contains_key(&path) && rng.chance(1, 4) {
            said.push(format!("{node} deletes {path}"));
            world.fs(node).remove(&path).unwrap();
            dirty(&mut models, node, path, None);
        } else {
            written += 1;
            let value = match kind.few_values {
                true => format!("v{}", rng.below(3)),
                false => format!("v{written}"),
            };
            said.push(format!("{node} writes {path} = {value}"));
            world.fs(node).write(&path, value.as_bytes()).unwrap();
            dirty(&mut models, node, path, Some(value.into_bytes()));
        }
        assert_eq!(world.files(node), models[0].nodes[node].sees(), "{}", said.join("\n"));
    }
    // STABILIZE.
    for _ in 0..2 {
        for node in 0..nodes {
            round(&mut world, &mut models, node, &mut said);
        }
    }
    let said = said.join("\n");
    for node in 1..nodes {
        assert_eq!(world.files(0), world.files(node), "{said}");
    }
    let files = world.files(0);
    assert_eq!(files.contains_key("f.txt"), !files.is_empty(), "one of the values stands at the path {said}");
    for node in 0..nodes {
        let report = world.sync_well(node);
        assert_eq!((report.published.packets, report.packets_learned), (0, 0), "{said}");
        assert_eq!(report.conflicts, u64::from(files.len() > 1), "{said}");
    }
}

fn dirty(models: &mut [Model], node: usize, path: String, value: Option<Value>) {
    for model in models {
        model.nodes[node].dirty.insert(path.clone(), value.clone());
    }
}

fn round(world: &mut World, models: &mut Vec<Model>, node: usize, said: &mut Vec<String>) {
    world.sync_well(node);
    let files = world.files(node);
    let text = show(files.values());
    said.push(format!("{node} synchronises and shows {:?} = {text:?}", files.keys()));
    let expected: Vec<Vec<String>> = models.iter().map(|model| show(model.standing_values())).collect();
    let mut after: Vec<Model> = Vec::new();
    for agrees in [true, false] {
        for mut model in models.clone() {
            model.up(node, agrees);
            if model.down(node, &files) && !after.contains(&model) {
                after.push(model);
            }
        }
    }
    assert!(!after.is_empty(), "what stood before: {expected:?}; {}", said.join("\n"));
    *models = after;
}

fn run(histories: u64, first: u64, kind: Kind) {
    let number = |name| std::env::var(name).ok()?.parse::<u64>().ok();
    if let Some(seed) = number("PACKETBOAT_SEED") {
        return history(seed, kind);
    }
    for seed in first..first + number("PACKETBOAT_SEEDS").unwrap_or(histories) {
        history(seed, kind);
    }
}

#[test]
fn writes_of_one_file_are_kept_until_knowingly_overwritten() {
    run(600, 0, Kind { few_values: false, copies: false, deletes: false });
}

#[test]
fn writes_and_deletes_of_one_file_are_kept_until_knowingly_overwritten() {
    run(900, 100_000, Kind { few_values: false, copies: false, deletes: true });
}

#[test]
fn writes_and_deletes_of_conflict_copies_act_on_that_side_alone() {
    run(900, 200_000, Kind { few_values: false, copies: true, deletes: true });
}

#[test]
fn equal_values_agree_wherever_they_were_written() {
    run(900, 300_000, Kind { few_values: true, copies: false, deletes: true });
}
