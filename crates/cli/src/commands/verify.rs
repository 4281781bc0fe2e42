//! `packetboat verify`: whether the intermediary holds what it should.

use std::process::ExitCode;

use clap::Args;
use packetboat_engine::replica::VerifyReport;
use serde_json::{Value, json};

use super::FolderPlace;
use super::round::stopped;
use crate::failure::Failure;
use crate::opening::Context;
use crate::progress::Progress;
use crate::text;

/// Check that the intermediary holds all that it should
///
/// Without --deep it looks whether everything is there, with its right size; with --deep it reads and proves every byte.
/// It changes nothing. A fault names the paths that need what is damaged; files that are on a device are safe there,
/// and what a device still holds it puts back with its next `packetboat sync`.
/// The exit code is 1 where something is wrong.
#[derive(Debug, Args)]
#[command(after_help = JSON)]
pub(crate) struct VerifyArgs {
    /// Read everything and check every byte
    #[arg(long)]
    deep: bool,
    #[command(flatten)]
    folder: FolderPlace,
}

/// Runs the command.
pub(crate) fn run(context: &Context, args: &VerifyArgs) -> Result<ExitCode, Failure> {
    let mut session = context.open(args.folder.path())?;
    let mut progress = Progress::new(context.ui)?;
    let outcome = session.replica.verify(args.deep, &mut progress);
    progress.finish();
    let report = outcome.map_err(|error| stopped(&error))?;
    context.ui.result(|| to_json(&report), || to_text(&report));
    Ok(if report.faults.is_empty() { ExitCode::SUCCESS } else { ExitCode::FAILURE })
}

fn to_text(report: &VerifyReport) -> String {
    let objects = text::count(report.objects, "object", "objects");
    let looked = format!("Looked at {objects}, read {}", text::bytes(report.bytes));
    let orphans = match report.orphans.len() as u64 {
        0 => String::new(),
        orphans => format!(
            "{} that nothing refers to: left by a round that was cut short, and harmless.\n",
            text::count(orphans, "object", "objects")
        ),
    };
    if report.faults.is_empty() {
        return format!("{looked}: all in order.\n{orphans}");
    }
    let faults = text::count(report.faults.len() as u64, "fault", "faults");
    let mut shown = format!("{looked}: {faults}.\n");
    for (object, what, paths) in &report.faults {
        shown.push_str(&format!("  {}: {}\n", text::plain(object.as_bytes()), text::plain(what.as_bytes())));
        shown.extend(paths.iter().map(|path| format!("    needed by {path}\n")));
    }
    shown.push_str("Run `packetboat sync` on every device: what one of them still holds is put back.\n");
    shown + &orphans
}

fn to_json(report: &VerifyReport) -> Value {
    let fault = |(object, what, paths): &(String, String, Vec<packetboat_core::name::RelPath>)| {
        let paths: Vec<_> = paths.iter().map(|path| crate::json::with_path(json!({}), path)).collect();
        json!({ "object": object, "fault": what, "paths": paths })
    };
    json!({
        "schema": 1,
        "objects": report.objects,
        "bytes": report.bytes,
        "orphans": report.orphans,
        "faults": report.faults.iter().map(fault).collect::<Vec<_>>(),
    })
}

const JSON: &str =
    "JSON: objects, bytes, faults (object, fault, paths), orphans (objects that nothing refers to; no fault).";
