//! Walks a directory as a scan does and prints how long each round took, to compare with `find -printf`.
//!
//! `cargo run --release -p packetboat-testkit --example walk -- DIR [ROUNDS]`

use std::time::Instant;

use packetboat_core::name::RelPath;
use packetboat_replica::fs::{FileKind, Fs, entry_path};
use packetboat_replica::real_fs::RealFs;

fn main() -> std::io::Result<()> {
    let mut arguments = std::env::args_os().skip(1);
    let root = arguments.next().unwrap_or_else(|| ".".into());
    let rounds = arguments.next().and_then(|text| text.to_str()?.parse().ok()).unwrap_or(5);
    for _ in 0..rounds {
        let start = Instant::now();
        let fs = RealFs::open(root.as_ref())?;
        let mut waiting = vec![RelPath::root()];
        let (mut entries, mut bytes) = (0u64, 0u64);
        while let Some(dir) = waiting.pop() {
            for entry in fs.read_dir(&dir)? {
                entries += 1;
                let Ok(stat) = entry.stat else { continue };
                bytes += stat.size;
                if stat.kind == FileKind::Directory {
                    waiting.extend(entry_path(&dir, &entry.name));
                }
            }
        }
        println!("{:8.1} ms  {entries} entries  {bytes} bytes", start.elapsed().as_secs_f64() * 1e3);
    }
    Ok(())
}
