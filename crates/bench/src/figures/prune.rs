//! Letting go of a fifth of a vault that lies among the rest, beside `restic prune` of the same data.
//!
//! Files of 256 KiB of random bytes in directories of some packs each. Of ten directories one is deleted, so that its packs
//! are free, and of two every second file, so that theirs are wasteful. What a vault of one device condemns, it carries out
//! in the same run. restic forgets the first snapshot beforehand, which is not timed, and is to leave nothing unused.

use std::fs;
use std::path::{Path, PathBuf};

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
    for number in 0..mib * 4 {
        let file = file(folder, number);
        if number % FILES_IN_A_DIRECTORY == 0 {
            fs::create_dir_all(file.parent().expect("it is in a directory"))?;
        }
        random_file(&file, SIZE, number + 1)?;
    }
    Ok(())
}

fn thin_out(folder: &Path, mib: u64) -> Result<()> {
    for number in 0..mib * 4 {
        let goes = match number / FILES_IN_A_DIRECTORY % 10 {
            3 => true,
            6 | 8 => number % 2 == 0,
            _ => false,
        };
        if goes {
            fs::remove_file(file(folder, number))?;
        }
    }
    Ok(())
}

fn file(folder: &Path, number: u64) -> PathBuf {
    folder.join(format!("{:05}", number / FILES_IN_A_DIRECTORY)).join(number.to_string())
}

fn stored(vault: &Path) -> Result<u64> {
    Ok(objects(vault)?.values().sum())
}

const SIZE: u64 = 256 * 1024;
/// 48 MiB, some packs.
const FILES_IN_A_DIRECTORY: u64 = 192;
