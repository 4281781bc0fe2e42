//! The first sync of a full folder after its index was lost, or of a second one that was copied by other means: beside
//! reading all of it, and beside hashing it, which is the least that a tool does that trusts no times.

use crate::lab::{Lab, unbind};
use crate::measure::Runs;
use crate::packetboat::Device;
use crate::peers;
use crate::report::Report;
use crate::tree::Shape;
use crate::{Options, Result};

pub(crate) fn run(lab: &Lab, options: &Options) -> Result<Report> {
    let shape = Shape::of(options, 100_000);
    let tree = lab.tree(&shape)?;
    let place = lab.scratch("lost-index")?;
    let vault = place.path.join("vault");
    Device::new(lab, &tree, &vault, &place.path.join("state")).sync()?;
    peers::read_all(&tree)?;
    let (mut ours, mut reading, mut hashing) = (Runs::default(), Runs::default(), Runs::default());
    let (mut requests, mut sent) = (String::new(), 0);
    for number in 0..options.runs.unwrap_or(3) {
        unbind(&tree)?;
        lab.settle()?;
        let round = Device::new(lab, &tree, &vault, &place.path.join(format!("state{number}"))).sync()?;
        let moved = round.number("/down/new") + round.number("/up/new");
        if moved > 0 {
            return Err(format!("{moved} files were taken for new").into());
        }
        (requests, sent) = (round.requests(), round.bytes_sent());
        ours.0.push(round.run);
        reading.0.push(peers::read_all(&tree)?);
        hashing.0.push(peers::hash_all(&tree)?);
    }
    unbind(&tree)?;
    let mut report = Report::of_runs(format!("lost index, {}", shape.name()));
    report.contestant("packetboat sync", &ours);
    report.contestant("cat", &reading);
    report.contestant("sha256sum", &hashing);
    report.note(format!("requests of the round: {requests}; {sent} bytes sent"));
    Ok(report)
}
