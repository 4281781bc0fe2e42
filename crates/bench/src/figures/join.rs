//! A second device from the vault, beside `restic restore` followed by `sync`, each onto a fresh file system.

use crate::lab::{Lab, unbind};
use crate::measure::Runs;
use crate::packetboat::Device;
use crate::peers::{self, Restic};
use crate::report::Report;
use crate::tree::Shape;
use crate::{Options, Result};

pub(crate) fn run(lab: &Lab, options: &Options) -> Result<Report> {
    let shape = Shape::of(options, 100_000);
    let tree = lab.tree(&shape)?;
    let stored = lab.scratch("join")?;
    let vault = stored.path.join("vault");
    Device::new(lab, &tree, &vault, &stored.path.join("state")).sync()?;
    unbind(&tree)?;
    let restic = Restic::new(&stored.path.join("restic"))?;
    if let Some(restic) = &restic {
        restic.backup(&tree)?;
    }
    let (mut ours, mut theirs) = (Runs::default(), Runs::default());
    let mut requests = String::new();
    for _ in 0..options.runs.unwrap_or(3) {
        {
            let place = lab.fresh("join", shape.bytes() * 2)?;
            let device = Device::new(lab, &place.path.join("folder"), &vault, &place.path.join("state"));
            let round = device.sync()?;
            if round.number("/down/new") < shape.files as u64 {
                return Err(format!("only {} files came", round.number("/down/new")).into());
            }
            requests = round.requests();
            ours.0.push(round.run);
        }
        if let Some(restic) = &restic {
            let place = lab.fresh("join", shape.bytes() * 2)?;
            let restored = restic.restore(&place.path.join("folder"))?;
            theirs.0.push(restored.then(&peers::sync(&place.path)?));
        }
    }
    let mut report = Report::of_runs(format!("join, {}", shape.name()));
    report.contestant("packetboat sync", &ours);
    if restic.is_some() {
        report.contestant("restic restore, sync", &theirs);
        report.ratio("second device beside restic restore and sync", 0.6, &ours, &theirs);
    } else {
        report.note("restic is not installed");
    }
    report.note(format!("requests of the join: {requests}"));
    super::first::peak_target(&mut report, "peak memory of a join", &ours);
    Ok(report)
}
