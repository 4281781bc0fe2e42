//! A directory of many files renamed: what its author writes, and how many renames the other device makes.

use std::fs;

use crate::lab::Lab;
use crate::packetboat::{Device, objects};
use crate::peers::is_installed;
use crate::report::Report;
use crate::tree::{self, Shape};
use crate::{Options, Result};

pub(crate) fn run(lab: &Lab, options: &Options) -> Result<Report> {
    let shape = Shape { flat: true, ..Shape::of(options, 100_000) };
    let place = lab.fresh("rename-dir", shape.bytes() * 3)?;
    let at = |name: &str| place.path.join(name);
    let (here, there) = (at("here"), at("there"));
    tree::make(&here.join("before"), &shape)?;
    let author = Device::new(lab, &here, &at("vault"), &at("state-here"));
    let reader = Device::new(lab, &there, &at("vault"), &at("state-there"));
    author.sync()?;
    reader.sync()?;
    crate::lab::let_files_age();
    author.sync()?;
    reader.sync()?;

    let mut report = Report::new(format!("rename-dir, {}", shape.name()), &["", "s", "requests", "moved"]);
    let lanes = at("vault").join("lanes");
    let packets_before = objects(&lanes)?;
    fs::rename(here.join("before"), here.join("after"))?;
    let wrote = author.sync()?;
    let read = reader.sync()?;
    for (who, round, way) in [("author", &wrote, "up"), ("reader", &read, "down")] {
        let moved = round.number(&format!("/{way}/moved")).to_string();
        report.row(vec![who.into(), format!("{:.2}", round.run.wall.as_secs_f64()), round.requests(), moved]);
    }
    let packets: Vec<u64> = objects(&lanes)?
        .into_iter()
        .filter(|(path, _)| !packets_before.contains_key(path))
        .map(|(_, size)| size)
        .collect();
    let one = packets.len() == 1 && packets[0] < 4096;
    report.target("packets for the rename", "one under 4096 bytes", format!("{packets:?} bytes"), one);
    let (packs, read_bytes) = (wrote.number("/up/packs"), wrote.number("/up/bytes_read"));
    let moved = format!("{packs} packs, {read_bytes} bytes read, {} written", read.number("/down/bytes_written"));
    let no_content = packs == 0 && read_bytes == 0 && read.number("/down/bytes_written") == 0;
    report.target("content moved", "none", moved, no_content);
    if !there.join("after").is_dir() || there.join("before").exists() {
        return Err("the directory is not where it should be on the other device".into());
    }

    if is_installed("strace") {
        fs::rename(here.join("after"), here.join("before"))?;
        author.sync()?;
        let log = at("strace.log");
        let log = log.to_str().ok_or("the directory's path is not UTF-8")?;
        let calls = ["-f", "-qq", "-e", "trace=rename,renameat,renameat2", "-o", log];
        reader.sync_under(&[&["strace"], &calls[..]].concat())?;
        let renames =
            fs::read_to_string(log)?.lines().filter(|line| line.contains("rename") && line.contains("= 0")).count();
        report.target("renames on the other device", "1", renames.to_string(), renames == 1);
    } else {
        report.note("strace is not installed: renames were not counted");
    }
    Ok(report)
}
