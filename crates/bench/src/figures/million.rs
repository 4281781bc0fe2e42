//! A million files: what a first sync, a join and a no-op take of each, beside a tenth as many, and the memory of each.
//!
//! Nothing may cost more for each file because there are more of them, and memory must not grow with their number.

use std::path::Path;

use crate::lab::{Fresh, Lab, unbind};
use crate::measure::{Run, Runs};
use crate::packetboat::{Device, objects};
use crate::report::{Report, megabytes};
use crate::tree::Shape;
use crate::{Options, Result};

pub(crate) fn run(lab: &Lab, options: &Options) -> Result<Report> {
    let shape = Shape::of(options, 1_000_000);
    let few = Measured::of(lab, &Shape { files: shape.files / 10, ..shape.clone() })?;
    let few_files = (shape.files / 10) as f64;
    drop(few.place);
    let many = Measured::of(lab, &shape)?;
    let mut report = super::noop::measure(lab, options, &shape, &many.tree, &many.place.path, &many.device, 3)?;
    report.retitle(format!("million, {}", shape.name()));
    let stages = [("first sync", few.first, many.first), ("join", few.join, many.join)];
    for (stage, few, many) in stages {
        let each = |run: &Run, files: f64| (run.wall.as_secs_f64() / files, run.cpu.as_secs_f64() / files);
        let (few_wall, few_cpu) = each(&few, few_files);
        let (many_wall, many_cpu) = each(&many, shape.files as f64);
        let (wall, cpu) = (many_wall / few_wall, many_cpu / few_cpu);
        report.contestant(&format!("packetboat {stage}"), &Runs(vec![many.clone()]));
        report.contestant(&format!("packetboat {stage} of a tenth"), &Runs(vec![few]));
        let measured = format!("{wall:.2} x in time, {cpu:.2} x of the processor");
        report.target(format!("cost of a file in a {stage}"), "at most 1.3 x a tenth's", measured, wall <= 1.3);
        super::first::peak_target(&mut report, &format!("peak memory of a {stage}"), &Runs(vec![many]));
    }
    let each = many.index_bytes as f64 / shape.files as f64;
    report.target("index", "at most 250 bytes a file", format!("{each:.0} bytes a file"), each <= 250.0);
    report.note(format!(
        "the database takes {:.0} MB with {:.0} MB of sealed packets that it keeps; names are 12 bytes long",
        megabytes(many.index_bytes + many.packet_bytes),
        megabytes(many.packet_bytes),
    ));
    unbind(&many.tree)?;
    Ok(report)
}

/// A tree that was taken into a vault and brought to a second device.
struct Measured {
    tree: std::path::PathBuf,
    device: Device,
    first: Run,
    join: Run,
    /// Of the index without the packets.
    index_bytes: u64,
    /// Of the packets that the index keeps as they were sealed: the history, until it is let go.
    packet_bytes: u64,
    place: Fresh,
}

impl Measured {
    fn of(lab: &Lab, shape: &Shape) -> Result<Self> {
        let tree = lab.tree(shape)?;
        crate::peers::find(&tree)?;
        let place = lab.fresh("million", shape.bytes())?;
        let device = Device::new(lab, &tree, &place.path.join("vault"), &place.path.join("state"));
        let first = device.sync()?.run;
        let packet_bytes = objects(&device.vault.join("lanes"))?.values().sum();
        let index_bytes = index_bytes(&place.path.join("state"))?.saturating_sub(packet_bytes);
        let join = {
            let place = lab.fresh("million-join", shape.bytes() * 2)?;
            let second = Device::new(lab, &place.path.join("folder"), &device.vault, &place.path.join("state"));
            let round = second.sync()?;
            if round.number("/down/new") < shape.files as u64 {
                return Err(format!("only {} files came", round.number("/down/new")).into());
            }
            round.run
        };
        Ok(Self { tree, device, first, join, index_bytes, packet_bytes, place })
    }
}

/// The size of the database, without what is written back from its log when it is opened next.
fn index_bytes(state: &Path) -> Result<u64> {
    let files = objects(state)?.into_iter();
    Ok(files.filter(|(path, _)| path.ends_with("index.db")).map(|(_, size)| size).sum())
}
