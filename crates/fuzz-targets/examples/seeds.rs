//! Writes each target's own inputs into `DIRECTORY/<target>/`, for cargo-fuzz to begin with.
//!
//! `cargo run -p packetboat-fuzz-targets --example seeds -- fuzz/corpus`

use std::path::PathBuf;

use packetboat_fuzz_targets::TARGETS;

fn main() -> std::io::Result<()> {
    let Some(directory) = std::env::args_os().nth(1).map(PathBuf::from) else {
        eprintln!("usage: seeds DIRECTORY");
        return Ok(());
    };
    for target in TARGETS {
        let directory = directory.join(target.name);
        std::fs::create_dir_all(&directory)?;
        for (number, seed) in (target.seeds)().into_iter().enumerate() {
            std::fs::write(directory.join(format!("seed-{number}")), seed)?;
        }
    }
    Ok(())
}
