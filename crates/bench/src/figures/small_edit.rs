//! One small file edited: what its author asks of the intermediary, and what two readers do.

use std::fs;

use crate::lab::{Lab, unbind};
use crate::packetboat::{Device, objects};
use crate::report::Report;
use crate::tree::{self, Shape};
use crate::{Options, Result};

pub(crate) fn run(lab: &Lab, options: &Options) -> Result<Report> {
    let shape = Shape::of(options, 1000);
    let place = lab.scratch("small-edit")?;
    let at = |name: &str| place.path.join(name);
    tree::make(&at("author"), &shape)?;
    unbind(&at("author"))?;
    let device = |name: &str| Device::new(lab, &at(name), &at("vault"), &at(&format!("state-{name}")));
    let (author, readers) = (device("author"), [device("reader-1"), device("reader-2")]);
    crate::lab::let_files_age();
    author.sync()?;
    for _ in 0..2 {
        // Twice, so that everybody has heard of everybody.
        readers.iter().chain([&author]).try_for_each(|device| device.sync().map(drop))?;
    }
    let mut report =
        Report::new(format!("small-edit, {}", shape.name()), &["", "s", "requests", "bytes sent", "bytes received"]);
    let file = objects(&at("author"))?.into_keys().find(|path| path.to_string_lossy().contains("file-"));
    let file = file.ok_or("the tree has no file")?;
    let mut most = [0, 0];
    for edit in 1..=options.runs.unwrap_or(3) {
        fs::write(&file, format!("edit {edit}: a few words in place of what was there\n"))?;
        let wrote = author.sync()?;
        most[0] = most[0].max(wrote.writes());
        let mut rounds = vec![("author", wrote)];
        for reader in &readers {
            let read = reader.sync()?;
            if read.number("/down/changed") != 1 {
                return Err("the edit did not arrive".into());
            }
            most[1] = most[1].max(read.reads() + read.listings());
            rounds.push(("reader", read));
        }
        for (who, round) in rounds {
            report.row(vec![
                format!("edit {edit}, {who}"),
                format!("{:.2}", round.run.wall.as_secs_f64()),
                round.requests(),
                round.bytes_sent().to_string(),
                round.number("/requests/bytes_received").to_string(),
            ]);
        }
    }
    report.target("writes by the author", "at most 2", most[0].to_string(), most[0] <= 2);
    report.target("reads and listings by a reader", "at most 2", most[1].to_string(), most[1] <= 2);
    Ok(report)
}
