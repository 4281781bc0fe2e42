//! A device that was away: a packet of each of many others to catch up with, and many packets of one other.

use std::fs;

use crate::lab::Lab;
use crate::packetboat::{Device, Round};
use crate::report::{Report, megabytes};
use crate::{Options, Result};

pub(crate) fn run(lab: &Lab, options: &Options) -> Result<Report> {
    let mut report = Report::new(
        format!("behind, {} devices, {} packets", options.devices, options.packets),
        &["", "s", "cpu s", "peak MB", "requests", "packets"],
    );
    let place = lab.fresh("behind", 4 << 30)?;
    let vault = place.path.join("vault");
    let (folders, states) = (place.path.join("folders"), place.path.join("states"));
    fs::create_dir_all(&folders)?;
    let device = |name: &str| Device::new(lab, &folders.join(name), &vault, &states.join(name));
    let away = device("away");
    fs::create_dir_all(&away.folder)?;
    away.sync()?;
    let others: Vec<Device> = (0..options.devices).map(|number| device(&format!("device-{number}"))).collect();
    for other in &others {
        other.sync()?;
    }
    away.sync()?;
    for (number, other) in others.iter().enumerate() {
        fs::write(other.folder.join(format!("of-{number}")), format!("written on device {number}"))?;
        other.sync()?;
    }
    lab.settle()?;
    let round = away.sync()?;
    row(&mut report, "a packet of each device", &round);
    let (wall, requests) = (round.run.wall.as_secs_f64(), round.listings() + round.reads() + round.writes());
    let what = format!("catching up with {} devices", options.devices);
    report.target(&what, "under 2 s", format!("{wall:.2} s"), wall < 2.0);
    report.target(&what, "under 150 requests", round.requests(), requests < 150);

    let author = device("author");
    author.sync()?;
    away.sync()?;
    for number in 0..options.packets {
        fs::write(author.folder.join(format!("file-{:03}", number % 100)), format!("version {number}"))?;
        author.sync()?;
    }
    lab.settle()?;
    row(&mut report, "packets of one device", &away.sync()?);
    Ok(report)
}

fn row(report: &mut Report, what: &str, round: &Round) {
    report.row(vec![
        what.to_owned(),
        format!("{:.2}", round.run.wall.as_secs_f64()),
        format!("{:.2}", round.run.cpu.as_secs_f64()),
        format!("{:.0}", megabytes(round.run.peak_bytes)),
        round.requests(),
        round.number("/down/packets").to_string(),
    ]);
}
