//! Letting go of a fifth of a vault that lies among the rest, beside `restic prune` of the same data.
//!
//! Files of 256 KiB of random bytes; every fifth is deleted, so that packs are wasteful and none is free. What a vault of
//! one device condemns, it carries out in the same run. restic forgets the first snapshot beforehand, which is not timed.

use std::fs;
use std::path::Path;

use crate::lab::Lab;
use crate::measure::Runs;
use crate::packetboat::{Device, objects};
use crate::peers::Restic;
use crate::report::{Report, megabytes};
use crate::tree::random_file;
use crate::{Options, Result};

pub(crate) fn run(lab: &Lab, options: &Options) -> Result<Report> {
    let mib = options.mib.unwrap_or(512);
    let (mut ours, mut restics) = (Runs::default(), Runs::default());
    let mut said = Vec::new();
    for _ in 0..options.runs.unwrap_or(3) {
        {
            let place = lab.fresh("prune", (mib * 3) << 20)?;
            let folder = place.path.join("folder");
            fill(&folder, mib)?;
            let device = Device::new(lab, &folder, &place.path.join("vault"), &place.path.join("state"));
            device.sync()?;
            thin_out(&folder, mib)?;
            device.sync_deleting()?;
            // What was made in the second of the run is not older than the run.
            std::thread::sleep(std::time::Duration::from_millis(1100));
            let before = stored(&device.vault)?;
            let pruned = device.prune("0d")?;
            ours.0.push(pruned.run.clone());
            said.push((before, stored(&device.vault)?, pruned.requests()));
        }
        {
            let place = lab.fresh("prune", (mib * 3) << 20)?;
            let folder = place.path.join("folder");
            if let Some(restic) = Restic::new(&place.path)? {
                fill(&folder, mib)?;
                restic.backup(&folder)?;
                thin_out(&folder, mib)?;
                restic.backup(&folder)?;
                restic.forget_all_but_the_last()?;
                restics.0.push(restic.prune()?);
            }
        }
    }
    let mut report = Report::of_runs(format!("prune, {mib} MiB, a fifth of it garbage"));
    report.contestant("packetboat prune", &ours);
    if restics.0.is_empty() {
        report.note("restic is not installed");
    } else {
        report.contestant("restic prune", &restics);
        report.ratio("prune beside restic prune", 1.0, &ours, &restics);
    }
    if let Some((before, after, requests)) = said.pop() {
        let freed = format!("{:.0} MB of {:.0} MB", megabytes(before.saturating_sub(after)), megabytes(before));
        report.target("freed", "at least a tenth", freed, before.saturating_sub(after) * 10 >= before);
        report.note(requests);
    }
    Ok(report)
}

fn fill(folder: &Path, mib: u64) -> Result<()> {
    fs::create_dir_all(folder)?;
    for number in 0..mib * 4 {
        random_file(&folder.join(number.to_string()), SIZE, number + 1)?;
    }
    Ok(())
}

fn thin_out(folder: &Path, mib: u64) -> Result<()> {
    (0..mib * 4).step_by(5).try_for_each(|number| Ok(fs::remove_file(folder.join(number.to_string()))?))
}

fn stored(vault: &Path) -> Result<u64> {
    Ok(objects(vault)?.values().sum())
}

const SIZE: u64 = 256 * 1024;
