//! A sync that finds nothing to do, beside `find` asking for the same metadata, on a warm cache.

use std::path::Path;

use crate::lab::Lab;
use crate::measure::Runs;
use crate::packetboat::{Device, Round};
use crate::peers::{self, Rclone, Restic, Unison};
use crate::report::Report;
use crate::tree::Shape;
use crate::{Options, Result};

pub(crate) fn run(lab: &Lab, options: &Options) -> Result<Report> {
    let shape = Shape::of(options, 100_000);
    let tree = lab.tree(&shape)?;
    let place = lab.scratch("noop")?;
    let device = Device::new(lab, &tree, &place.path.join("vault"), &place.path.join("state"));
    device.sync()?;
    measure(lab, options, &shape, &tree, &place.path, &device, 7)
}

/// Measures on a tree that is bound and in step.
pub(crate) fn measure(
    lab: &Lab,
    options: &Options,
    shape: &Shape,
    tree: &Path,
    place: &Path,
    device: &Device,
    runs: usize,
) -> Result<Report> {
    // Files that were written just before they were first looked at are hashed once more; this round does so.
    device.sync()?;
    peers::find(tree)?;
    lab.settle()?;
    let (mut found, mut ours) = (Runs::default(), Runs::default());
    let mut rounds: Vec<Round> = Vec::new();
    for _ in 0..options.runs.unwrap_or(runs) {
        found.0.push(peers::find(tree)?);
        let round = device.sync()?;
        ours.0.push(round.run.clone());
        rounds.push(round);
    }
    let mut report = Report::of_runs(format!("noop, {}", shape.name()));
    report.contestant("find -printf", &found);
    report.contestant("packetboat sync", &ours);
    report.ratio("no-op sync beside find", 1.2, &ours, &found);
    let quiet = rounds.iter().all(|round| round.listings() == 1 && round.reads() == 0 && round.writes() == 0);
    let noisy = rounds.iter().find(|round| round.listings() != 1 || round.reads() + round.writes() > 0);
    let said = noisy.or(rounds.first()).map(Round::requests).unwrap_or_default();
    report.target("requests of a no-op sync", "one listing, no write", said, quiet);
    if options.peers {
        again(lab, options, tree, place, &mut report)?;
    }
    Ok(report)
}

/// The peers where nothing changed.
fn again(lab: &Lab, options: &Options, tree: &Path, place: &Path, report: &mut Report) -> Result<()> {
    let restic = Restic::new(&place.join("restic"))?;
    let rclone = Rclone::new(&place.join("rclone"))?;
    let unison = Unison::new(&place.join("unison"))?;
    let mut each = |name: &str, sync: &dyn Fn() -> Result<crate::measure::Run>| -> Result<()> {
        sync()?;
        lab.settle()?;
        let runs: Result<Vec<_>> = (0..options.runs.unwrap_or(3)).map(|_| sync()).collect();
        report.contestant(name, &Runs(runs?));
        Ok(())
    };
    if let Some(restic) = &restic {
        each("restic backup again", &|| restic.backup(tree))?;
    }
    if let Some(rclone) = &rclone {
        each("rclone copy again", &|| rclone.copy(tree))?;
    }
    if let Some(unison) = &unison {
        each("unison again", &|| unison.sync(tree))?;
    }
    Ok(())
}
