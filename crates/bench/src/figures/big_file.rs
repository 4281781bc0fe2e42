//! The first sync of one large file of random bytes, beside `dd conv=fsync` of the same file to the same disk.

use std::fs;
use std::process::Command;

use crate::lab::{Lab, unbind};
use crate::measure::{Runs, run_quiet};
use crate::packetboat::Device;
use crate::report::{Report, mebibytes};
use crate::{Options, Result};

pub(crate) fn run(lab: &Lab, options: &Options) -> Result<Report> {
    let mib = options.mib.unwrap_or(4096);
    let original = lab.random_file(mib)?;
    let folder = lab.scratch("big-file-folder")?;
    fs::hard_link(&original, folder.path.join("large"))?;
    let (mut copied, mut ours) = (Runs::default(), Runs::default());
    for _ in 0..options.runs.unwrap_or(3) {
        {
            let place = lab.fresh("big-file", mib << 20)?;
            let (from, to) =
                (format!("if={}", original.display()), format!("of={}", place.path.join("copy").display()));
            copied.0.push(run_quiet(Command::new("dd").args([&from, &to, "bs=4M", "conv=fsync", "status=none"]))?);
        }
        let place = lab.fresh("big-file", mib << 20)?;
        let device = Device::new(lab, &folder.path, &place.path.join("vault"), &place.path.join("state"));
        ours.0.push(device.sync()?.run);
        unbind(&folder.path)?;
    }
    let mut report = Report::of_runs(format!("big-file, {mib} MiB"));
    report.contestant("dd conv=fsync", &copied);
    report.contestant("packetboat sync", &ours);
    let speed = |runs: &Runs| mebibytes(mib << 20) / runs.wall();
    let (disk, cores) = (speed(&copied), lab.cores as f64 * 1.2 * 1024.0);
    let part = speed(&ours) / disk.min(cores);
    let measured = format!(
        "{:.0} % ({:.0} MiB/s; disk {disk:.0} MiB/s, {} cores x 1.2 GiB/s = {cores:.0} MiB/s)",
        part * 100.0,
        speed(&ours),
        lab.cores
    );
    report.target("speed beside the lesser of disk and cores", "at least 70 %", measured, part >= 0.7);
    super::first::peak_target(&mut report, "peak memory", &ours);
    Ok(report)
}
