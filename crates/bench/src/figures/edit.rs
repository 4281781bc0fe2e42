//! What small edits of a large file of random bytes write to the vault, over vaults with keys (and so chunk boundaries) of
//! their own: one byte inserted at the front, then one MiB overwritten in the middle.

use std::fs::{self, File, OpenOptions};
use std::io::{self, Write};
use std::os::unix::fs::FileExt;

use crate::lab::Lab;
use crate::measure::median;
use crate::packetboat::Device;
use crate::report::{Report, mebibytes};
use crate::tree::Random;
use crate::{Options, Result};

pub(crate) fn run(lab: &Lab, options: &Options) -> Result<Report> {
    let mib = options.mib.unwrap_or(1024);
    let original = lab.random_file(mib)?;
    let mut sent: [Vec<f64>; 3] = Default::default();
    let mut report = Report::new(
        format!("edit-1gib, {mib} MiB, {} vaults", options.vaults),
        &["vault", "insert MiB", "overwrite MiB", "both MiB"],
    );
    for number in 1..=options.vaults {
        let place = lab.scratch("edit")?;
        let folder = place.path.join("folder");
        fs::create_dir(&folder)?;
        let file = folder.join("large");
        fs::copy(&original, &file)?;
        let device = Device::new(lab, &folder, &place.path.join("vault"), &place.path.join("state"));
        device.sync()?;

        let inserted = place.path.join("inserted");
        let mut target = File::create(&inserted)?;
        target.write_all(b"!")?;
        io::copy(&mut File::open(&original)?, &mut target)?;
        // In place, so that it is an edit of the same file.
        fs::copy(&inserted, &file)?;
        fs::remove_file(&inserted)?;
        let insert = mebibytes(device.sync()?.bytes_sent());

        let mut piece = vec![0; 1 << 20];
        Random(1000 + number as u64).fill(&mut piece);
        OpenOptions::new().write(true).open(&file)?.write_all_at(&piece, mib << 19)?;
        let overwrite = mebibytes(device.sync()?.bytes_sent());

        for (all, value) in sent.iter_mut().zip([insert, overwrite, insert + overwrite]) {
            all.push(value);
        }
        let cells = [insert, overwrite, insert + overwrite].map(|value| format!("{value:.2}"));
        report.row(std::iter::once(number.to_string()).chain(cells).collect());
    }
    for (what, all) in ["one byte inserted", "1 MiB overwritten", "both together"].into_iter().zip(&sent) {
        let (middle, most) = (median(all.iter().copied()), all.iter().copied().fold(0.0, f64::max));
        let measured = format!("median {middle:.2} MiB, most {most:.2} MiB");
        report.target(what, "median at most 6 MiB, never over 10 MiB", measured, middle <= 6.0 && most <= 10.0);
    }
    Ok(report)
}
