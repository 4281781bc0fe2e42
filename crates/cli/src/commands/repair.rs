//! `packetboat repair`: puts back at the intermediary what this device still holds.

use std::process::ExitCode;

use clap::Args;
use packetboat_engine::Repaired;
use packetboat_engine::replica::{Remedy, RepairReport};
use serde_json::{Value, json};

use super::FolderPlace;
use super::round::stopped;
use super::verify::{fault_text, faults_json, of_the_past};
use crate::failure::Failure;
use crate::opening::Context;
use crate::progress::Progress;
use crate::text;

/// Put back what the intermediary lost or damaged
///
/// It looks for what is missing or damaged, synchronises, and puts back what this device holds: packets as they were,
/// contents from the files of the folder. What it does not hold it asks the other devices for, which put it back with
/// their next `packetboat sync`; nothing needs to be run there.
/// What no device holds any more cannot come back; the paths and versions concerned are named.
/// The exit code is 1 where something is still missing.
#[derive(Debug, Args)]
#[command(after_help = JSON)]
pub(crate) struct RepairArgs {
    /// Look only whether everything is there, and do not read it
    #[arg(long)]
    shallow: bool,
    #[command(flatten)]
    folder: FolderPlace,
}

/// Runs the command.
pub(crate) fn run(context: &Context, args: &RepairArgs) -> Result<ExitCode, Failure> {
    let mut session = context.open(args.folder.path())?;
    let mut progress = Progress::new(context.ui)?;
    let outcome = session.replica.repair(!args.shallow, &mut progress);
    progress.finish();
    let report = outcome.map_err(|error| stopped(&error))?;
    context.ui.result(|| to_json(&report), || to_text(&report));
    if report.left.is_empty() {
        return Ok(ExitCode::SUCCESS);
    }
    if report.left.iter().all(|fault| fault.remedy == Remedy::Lost) {
        return Err(Failure::new(format!("{} cannot be put back", count(&report)))
            .because(&std::io::Error::other("no device holds them any more"))
            .hint(match report.found.has_several_places {
                true => {
                    "what stands in folders now is safe. The objects may lie at another place of the vault: `packetboat \
                     sync FOLDER INTERMEDIARY` goes there, and `packetboat verify` looks"
                }
                false => {
                    "what stands in folders now is safe; `packetboat log PATH` shows which versions are left. If a copy \
                     of the intermediary exists, put the objects back by hand"
                }
            }));
    }
    Ok(ExitCode::FAILURE)
}

fn count(report: &RepairReport) -> String {
    text::count(report.left.len() as u64, "object", "objects")
}

/// What a round put back, in words; nothing where it put back nothing.
pub(crate) fn put_back(repaired: &Repaired) -> Option<String> {
    let kinds = [
        (repaired.packets, "packet", "packets"),
        (repaired.chunks, "piece of content", "pieces of content"),
        (repaired.checkpoints, "checkpoint", "checkpoints"),
    ];
    let parts: Vec<String> = kinds
        .iter()
        .filter(|(number, ..)| *number > 0)
        .map(|(number, one, many)| text::count(*number, one, many))
        .collect();
    (!parts.is_empty()).then(|| parts.join(", "))
}

fn to_text(report: &RepairReport) -> String {
    if report.found.faults.is_empty() {
        let objects = text::count(report.found.objects, "object", "objects");
        return format!("Looked at {objects}: nothing to repair.\n");
    }
    let mut shown = match put_back(&report.round.repaired) {
        Some(put_back) => format!("Put back {put_back}.\n"),
        None => "This device put nothing back.\n".to_owned(),
    };
    if report.left.is_empty() {
        return shown + "Everything is in order again.\n";
    }
    shown.push_str(&format!("Still missing or damaged: {}.\n", count(report)));
    let has_several_places = report.found.has_several_places;
    shown.extend(report.left.iter().map(|fault| fault_text(fault, has_several_places)));
    if report.left.iter().any(|fault| matches!(fault.remedy, Remedy::Others(_))) {
        shown.push_str("The other devices were asked: run `packetboat sync` there, and `packetboat verify` here.\n");
    }
    shown + of_the_past(&report.left, has_several_places)
}

fn to_json(report: &RepairReport) -> Value {
    let repaired = &report.round.repaired;
    json!({
        "schema": 1,
        "found": faults_json(&report.found.faults),
        "put_back": {
            "packets": repaired.packets,
            "chunks": repaired.chunks,
            "checkpoints": repaired.checkpoints,
        },
        "left": faults_json(&report.left),
    })
}

const JSON: &str = "\
JSON: found and left (as faults of `packetboat verify`), put_back (packets, chunks, checkpoints).";
