//! Which crate may know which: the map of ARCHITECTURE.md, held against what `cargo metadata` says.
//!
//! A better map is welcome: change the table, the code and ARCHITECTURE.md together.

use std::collections::{BTreeMap, BTreeSet};
use std::process::Command;

use serde_json::Value;

/// What each crate may depend on in normal and build dependencies.
const MAP: [(&str, &[&str]); 11] = [
    ("core", &[]),
    ("replica", &["core"]),
    ("storage", &["core"]),
    // It drives chunks and packs on their way, so it knows storage: docs/design/0005-engine-uses-storage.md.
    ("engine", &["replica", "storage", "core"]),
    ("link", &["core"]),
    ("mail", &["core"]),
    // It drives what the others carry out: the outbox and the inbox by the core's machines, over link and mail.
    ("daemon", &["engine", "replica", "storage", "link", "mail", "core"]),
    ("cli", &["daemon", "engine", "replica", "storage", "link", "mail", "core"]),
    // Nothing but tests may depend on it.
    ("testkit", &["engine", "replica", "storage", "core"]),
    // It feeds the parsers of all others.
    ("fuzz-targets", &["daemon", "engine", "replica", "storage", "link", "mail", "core"]),
    // It runs the binary and knows nothing of what is inside.
    ("bench", &[]),
];

/// What a crate may not depend on directly, though others may.
const KEPT_OUT: [(&str, &str); 4] = [
    (
        "core",
        "async-std crossbeam-channel fastcdc getrandom ignore jiff nix rand rayon reqwest rusqlite rustix tokio ureq",
    ),
    ("replica", "async-std getrandom jiff rand reqwest tokio ureq"),
    ("storage", "async-std getrandom jiff rand rusqlite"),
    ("engine", "async-std clap getrandom indicatif jiff rand rpassword rusqlite rustix signal-hook tokio"),
];

/// The direct dependencies of the workspace's crates: crate, dependency, kind.
struct Dependencies(BTreeMap<String, BTreeSet<(String, Kind)>>);

#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Debug)]
enum Kind {
    Normal,
    Dev,
    Build,
}

impl Dependencies {
    fn read() -> Self {
        let output = Command::new(env!("CARGO"))
            .args(["metadata", "--no-deps", "--offline", "--format-version", "1", "--manifest-path"])
            .arg(concat!(env!("CARGO_MANIFEST_DIR"), "/../../Cargo.toml"))
            .output()
            .expect("cargo runs");
        assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
        let metadata: Value = serde_json::from_slice(&output.stdout).expect("cargo writes JSON");
        let packages = metadata["packages"].as_array().expect("a list of packages");
        let named = |value: &Value| short(value["name"].as_str().expect("everything has a name"));
        let direct = |package: &Value| {
            let dependencies = package["dependencies"].as_array().expect("a list of dependencies");
            dependencies.iter().map(|dependency| (named(dependency), kind(&dependency["kind"]))).collect()
        };
        Self(packages.iter().map(|package| (named(package), direct(package))).collect())
    }

    /// The crates of the workspace on which one depends, other than for its tests.
    fn within_workspace(&self, of: &str) -> BTreeSet<&str> {
        let used = self.0[of].iter().filter(|(name, kind)| *kind != Kind::Dev && self.0.contains_key(name));
        used.map(|(name, _)| name.as_str()).collect()
    }
}

/// The name of a crate within the workspace, without what all have in common.
fn short(name: &str) -> String {
    if name == "packetboat" { "cli".to_owned() } else { name.trim_start_matches("packetboat-").to_owned() }
}

fn kind(value: &Value) -> Kind {
    match value.as_str() {
        None => Kind::Normal,
        Some("dev") => Kind::Dev,
        Some("build") => Kind::Build,
        Some(other) => panic!("an unknown kind of dependency: {other}"),
    }
}

#[test]
fn crates_depend_only_on_those_beneath_them() {
    let dependencies = Dependencies::read();
    let mapped: BTreeSet<&str> = MAP.iter().map(|(name, _)| *name).collect();
    let present: BTreeSet<&str> = dependencies.0.keys().map(String::as_str).collect();
    assert_eq!(present, mapped, "every crate of the workspace is on the map");
    for (name, allowed) in MAP {
        let allowed: BTreeSet<&str> = allowed.iter().copied().collect();
        let used = dependencies.within_workspace(name);
        let beyond: Vec<_> = used.difference(&allowed).collect();
        assert!(beyond.is_empty(), "{name} depends on {beyond:?}; it may on {allowed:?}");
    }
}

#[test]
fn the_testkit_is_for_tests_alone() {
    for (name, used) in &Dependencies::read().0 {
        let shipped = used.iter().any(|(used, kind)| used == "testkit" && *kind != Kind::Dev);
        assert!(!shipped, "{name} depends on the testkit outside of its tests");
    }
}

#[test]
fn each_crate_keeps_out_what_is_not_its_business() {
    let dependencies = Dependencies::read();
    for (name, kept_out) in KEPT_OUT {
        for (used, kind) in &dependencies.0[name] {
            assert!(*kind == Kind::Dev || !kept_out.split(' ').any(|name| name == used), "{name} depends on {used}");
        }
    }
}
