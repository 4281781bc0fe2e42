//! A million files: the memory of a first sync and of a no-op, which must not grow with their number.

use crate::lab::Lab;
use crate::measure::Runs;
use crate::packetboat::Device;
use crate::report::{Report, megabytes};
use crate::tree::Shape;
use crate::{Options, Result};

pub(crate) fn run(lab: &Lab, options: &Options) -> Result<Report> {
    let shape = Shape::of(options, 1_000_000);
    let tree = lab.tree(&shape)?;
    let place = lab.fresh("million", shape.bytes())?;
    let device = Device::new(lab, &tree, &place.path.join("vault"), &place.path.join("state"));
    let first = device.sync()?;
    let (writes, first) = (first.writes(), Runs(vec![first.run]));
    let mut report = super::noop::measure(lab, options, &shape, &tree, &place.path, &device, 1)?;
    report.retitle(format!("million, {}", shape.name()));
    report.contestant("packetboat first sync", &first);
    super::first::peak_target(&mut report, "peak memory of the first sync", &first);
    report.note(format!(
        "the first sync wrote {writes} objects and took {:.0} MB at its peak",
        megabytes(first.peak_bytes())
    ));
    Ok(report)
}
