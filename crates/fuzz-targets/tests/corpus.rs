//! Every fuzz target over the inputs that were kept, the ones that the code makes itself, and mutations of both.
//!
//! What cargo-fuzz once found stays found: its minimised inputs lie in `fuzz/corpus/<target>`, and those of former faults
//! beside them. `PACKETBOAT_SEEDS` sets how many mutations each target gets, `PACKETBOAT_SEED` runs one alone.

use std::fs;
use std::path::PathBuf;

use packetboat_fuzz_targets::{Outcome, TARGETS, Target};
use packetboat_testkit::rng::Rng;

/// The inputs of a target: what is kept, by file name, and what the code makes.
fn inputs(target: &Target) -> Vec<(String, Vec<u8>)> {
    let directory = corpus(target.name);
    let mut kept: Vec<(String, Vec<u8>)> = match fs::read_dir(&directory) {
        Err(_) => Vec::new(),
        Ok(entries) => entries
            .map(|entry| {
                let path = entry.unwrap().path();
                (path.display().to_string(), fs::read(&path).unwrap())
            })
            .collect(),
    };
    kept.sort();
    kept.extend((target.seeds)().into_iter().enumerate().map(|(at, seed)| (format!("seed {at}"), seed)));
    kept
}

fn corpus(name: &str) -> PathBuf {
    PathBuf::from(concat!(env!("CARGO_MANIFEST_DIR"), "/../../fuzz/corpus")).join(name)
}

/// Runs a target, and says which input it was when it panics.
fn run(target: &Target, what: &str, input: &[u8]) -> Outcome {
    match std::panic::catch_unwind(|| (target.run)(input)) {
        Ok(outcome) => outcome,
        Err(panic) => {
            eprintln!("{} on {what}: {:?}", target.name, String::from_utf8_lossy(input));
            eprintln!("in hexadecimal: {}", input.iter().map(|byte| format!("{byte:02x}")).collect::<String>());
            std::panic::resume_unwind(panic)
        }
    }
}

/// Something like the input, as a careless or a hostile hand would change it.
fn mutate(random: &mut Rng, inputs: &[(String, Vec<u8>)]) -> Vec<u8> {
    let mut input = random.pick(inputs).map_or_else(Vec::new, |(_, input)| input.clone());
    for _ in 0..1 + random.below(4) {
        let at = random.index(input.len());
        match random.below(8) {
            0 if !input.is_empty() => input[at] ^= 1 << random.below(8),
            1 if !input.is_empty() => input[at] = *random.pick(&INTERESTING).unwrap(),
            2 => input.insert(at, *random.pick(&INTERESTING).unwrap()),
            3 if !input.is_empty() => drop(input.remove(at)),
            4 => input.truncate(at),
            5 => {
                // A piece of it once more, somewhere.
                let piece = input[at..(at + random.index(64)).min(input.len())].to_vec();
                let to = random.index(input.len());
                input.splice(to..to, piece);
            }
            6 => {
                // The end of another.
                let other = random.pick(inputs).map_or(&[][..], |(_, other)| other);
                input.truncate(at);
                input.extend_from_slice(&other[random.index(other.len())..]);
            }
            _ => {
                let piece = random.index(16);
                let bytes = random.bytes(piece);
                input.splice(at..at, bytes);
            }
        }
    }
    input.truncate(LONGEST);
    input
}

/// Bytes on which parsers turn.
const INTERESTING: [u8; 16] = [0, 1, 2, 0x7f, 0x80, 0xff, 0xfe, b'\r', b'\n', b'.', b'"', b'<', b'>', b'(', b'{', b' '];

const LONGEST: usize = 1 << 16;

fn number(variable: &str) -> Option<u64> {
    std::env::var(variable).ok().map(|text| text.parse().expect("a number"))
}

/// A part of the targets, so that they run side by side.
fn check(part: usize) {
    let (first, count) = match number("PACKETBOAT_SEED") {
        Some(seed) => (seed, 1),
        None => (0, number("PACKETBOAT_SEEDS").unwrap_or(3_000)),
    };
    for target in TARGETS.iter().skip(part).step_by(PARTS) {
        let inputs = inputs(target);
        let mut understood = 0;
        for (name, input) in &inputs {
            let outcome = run(target, name, input);
            let is_seed = name.starts_with("seed");
            assert!(!is_seed || outcome == Outcome::Understood, "{} refuses its own {name}", target.name);
        }
        // A history is folded and planned for several times over.
        let count = if target.name == "fold_and_plan" { count.div_ceil(10) } else { count };
        for seed in first..first + count {
            let input = mutate(&mut Rng::new(seed), &inputs);
            understood += u64::from(run(target, &format!("mutation {seed}"), &input) == Outcome::Understood);
        }
        println!("{}: {} inputs, {understood} of {count} mutations understood", target.name, inputs.len());
    }
}

const PARTS: usize = 4;

#[test]
fn a_quarter_of_the_targets_holds_for_every_kept_input() {
    check(0);
}

#[test]
fn the_second_quarter_holds_too() {
    check(1);
}

#[test]
fn the_third_quarter_holds_too() {
    check(2);
}

#[test]
fn the_last_quarter_holds_too() {
    check(3);
}

#[test]
fn every_target_has_a_wrapper_for_cargo_fuzz_and_every_corpus_a_target() {
    let root = PathBuf::from(concat!(env!("CARGO_MANIFEST_DIR"), "/../../fuzz"));
    let manifest = fs::read_to_string(root.join("Cargo.toml")).unwrap();
    for Target { name, .. } in TARGETS {
        let wrapper = fs::read_to_string(root.join("fuzz_targets").join(format!("{name}.rs"))).unwrap();
        assert!(wrapper.contains(&format!("::{name}(")), "the wrapper of {name} calls it");
        assert!(manifest.contains(&format!("name = \"{name}\"")), "{name} is in the manifest");
    }
    let names = |directory: &str| -> Vec<String> {
        fs::read_dir(root.join(directory))
            .map(|entries| entries.map(|entry| entry.unwrap().file_name().to_string_lossy().into_owned()).collect())
            .unwrap_or_default()
    };
    for name in names("corpus").into_iter().chain(names("fuzz_targets")) {
        let name = name.trim_end_matches(".rs");
        assert!(TARGETS.iter().any(|target| target.name == name), "{name} is no target");
    }
}
