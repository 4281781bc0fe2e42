//! The first sync of a tree of small files, beside `restic backup` and `rclone copy` to a crypt remote.
//!
//! Making the vault is part of our time (a passphrase is stretched for it); restic's repository is made beforehand.
//! What rclone wrote is not yet durable when it ends.

use crate::lab::{Lab, unbind};
use crate::measure::Runs;
use crate::packetboat::{Device, Round, objects};
use crate::peers::{Rclone, Restic};
use crate::report::{Report, megabytes};
use crate::tree::Shape;
use crate::{Options, Result};

pub(crate) fn run(lab: &Lab, options: &Options) -> Result<Report> {
    let shape = Shape::of(options, 100_000);
    let tree = lab.tree(&shape)?;
    let (mut ours, mut restics, mut rclones) = (Runs::default(), Runs::default(), Runs::default());
    let mut last: Option<(Round, u64, usize)> = None;
    // Nobody is the first to read the tree.
    crate::peers::find(&tree)?;
    for file in objects(&tree)?.keys() {
        std::fs::read(file)?;
    }
    for _ in 0..options.runs.unwrap_or(3) {
        {
            let place = lab.fresh("first", shape.bytes())?;
            let device = Device::new(lab, &tree, &place.path.join("vault"), &place.path.join("state"));
            let round = device.sync()?;
            unbind(&tree)?;
            ours.0.push(round.run.clone());
            let stored = objects(&device.vault)?;
            last = Some((round, stored.values().sum(), stored.len()));
        }
        {
            let place = lab.fresh("first", shape.bytes())?;
            if let Some(restic) = Restic::new(&place.path)? {
                restics.0.push(restic.backup(&tree)?);
            }
        }
        {
            let place = lab.fresh("first", shape.bytes())?;
            if let Some(rclone) = Rclone::new(&place.path)? {
                rclones.0.push(rclone.copy(&tree)?);
            }
        }
    }
    let mut report = Report::of_runs(format!("first, {}", shape.name()));
    report.contestant("packetboat sync", &ours);
    for (name, peer) in [("restic backup", &restics), ("rclone copy to crypt", &rclones)] {
        if peer.0.is_empty() {
            report.note(format!("{name} is not installed"));
        } else {
            report.contestant(name, peer);
            report.ratio(&format!("first sync beside {name}"), 0.5, &ours, peer);
        }
    }
    if let Some((round, bytes, count)) = last {
        let writes = round.writes();
        report.target("objects written", "fewer than 300", writes.to_string(), writes < 300);
        report.note(format!("{count} objects of {:.0} MB lie in the vault", megabytes(bytes)));
    }
    peak_target(&mut report, "peak memory of a first sync", &ours);
    Ok(report)
}

pub(crate) fn peak_target(report: &mut Report, what: &str, runs: &Runs) {
    let peak = megabytes(runs.peak_bytes());
    report.target(what, "under 200 MB", format!("{peak:.0} MB"), peak < 200.0);
}
