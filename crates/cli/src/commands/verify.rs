//! `packetboat verify`: whether the intermediary holds what it should.

use std::process::ExitCode;

use clap::Args;
use packetboat_core::marker::MARKER_NAME;
use packetboat_engine::replica::{Fault, PastVersion, Remedy, VerifyReport};
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
/// It changes nothing. A fault names the paths that need what is damaged, the past versions that do, and who can put it
/// back: any device does so by itself with its next `packetboat sync` where it still holds the content, and
/// `packetboat repair` does at once what this device can.
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
    context.ui.result(|| to_json(&report), || to_text(&report, args.deep));
    Ok(if report.faults.is_empty() { ExitCode::SUCCESS } else { ExitCode::FAILURE })
}

fn to_text(report: &VerifyReport, deep: bool) -> String {
    let objects = text::count(report.objects, "object", "objects");
    let looked = format!("Looked at {objects}, read {}", text::bytes(report.bytes));
    let orphans = match report.orphans.len() as u64 {
        0 => String::new(),
        orphans => format!(
            "{} that nothing needs: left by a round that was cut short, or damaged while the same lies elsewhere.\n",
            text::count(orphans, "object", "objects")
        ),
    };
    if report.faults.is_empty() {
        let unread = if deep { "" } else { "Contents were not read; `packetboat verify --deep` reads them.\n" };
        return format!("{looked}: all in order.\n{orphans}{unread}");
    }
    let faults = text::count(report.faults.len() as u64, "fault", "faults");
    let mut shown = format!("{looked}: {faults}.\n");
    shown.extend(report.faults.iter().map(|fault| fault_text(fault, report.has_several_places)));
    shown.push_str("Run `packetboat repair` here, and `packetboat sync` on the other devices.\n");
    shown + of_the_past(&report.faults, report.has_several_places) + &orphans
}

/// A fault in words; where the vault has several places, what no device has may lie at another.
pub(super) fn fault_text(fault: &Fault, has_several_places: bool) -> String {
    // What people know comes first.
    let mut shown: String = fault.paths.iter().map(|path| format!("  {path}\n")).collect();
    let past =
        |version: &PastVersion| format!("  {} as of {}, {}\n", version.path, text::time(version.time), version.version);
    shown.extend(fault.versions.iter().take(MANY).map(past));
    if let Some(more) = fault.versions.len().checked_sub(MANY).filter(|more| *more > 0) {
        shown.push_str(&format!("  and {}\n", text::count(more as u64, "past version more", "past versions more")));
    }
    let needs = match fault.paths.len() + fault.versions.len() {
        0 => "  ",
        1 => "    needs ",
        _ => "    need ",
    };
    let (object, what) = (text::plain(fault.object.as_bytes()), text::plain(fault.what.as_bytes()));
    shown.push_str(&format!("{needs}{object}: {what}\n"));
    let names = |devices: &[String]| {
        let names: Vec<String> = devices.iter().map(|name| format!("\"{}\"", text::plain(name.as_bytes()))).collect();
        names.join(" or ")
    };
    let only_past = concerns_only_the_past(fault);
    shown.push_str(&match &fault.remedy {
        Remedy::Here => "    this device can put it back\n".to_owned(),
        Remedy::Others(devices) if only_past && has_several_places => {
            let devices = names(devices);
            format!("    {devices} may still have that old version on its disk, or another place of the vault has it\n")
        }
        Remedy::Others(devices) if only_past => {
            format!("    beyond repair, unless {} still has that old version on its disk\n", names(devices))
        }
        Remedy::Others(devices) => {
            let whose = fault.object.strip_prefix("tips/").and_then(|device| device.get(..8));
            let end = whose
                .map(|id| format!("; if that device is gone for good, `packetboat devices retire {id}` ends this"));
            format!("    {} can put it back, if it still holds it{}\n", names(devices), end.unwrap_or_default())
        }
        // Each device holds the keys that a marker is made of.
        Remedy::Lost if fault.object == MARKER_NAME => "    `packetboat key passphrase` writes another\n".to_owned(),
        Remedy::Lost if has_several_places => {
            "    no device holds it; it may lie at another place of the vault\n".to_owned()
        }
        Remedy::Lost => "    beyond repair: no device holds it\n".to_owned(),
    });
    shown
}

fn concerns_only_the_past(fault: &Fault) -> bool {
    fault.paths.is_empty() && !fault.versions.is_empty()
}

/// What becomes of past versions that no device may hold any more: each of them asks the others else, and none says when
/// that ends.
///
/// At several places past versions stay where they were written, and nothing is let go.
pub(super) fn of_the_past(faults: &[Fault], has_several_places: bool) -> &'static str {
    if !faults.iter().any(|fault| concerns_only_the_past(fault) && fault.remedy != Remedy::Here) {
        return "";
    }
    match has_several_places {
        true => {
            "What stands now does not need the past versions. Those that no device has brought back when all have \
             synchronised may lie at another place of the vault: `packetboat sync FOLDER INTERMEDIARY` goes there, and \
             they can be read there. Nothing needs to be done.\n"
        }
        false => {
            "What stands now does not need the past versions. Those that no device has brought back when all have \
             synchronised are lost; nothing needs to be done, and they are missed no more once `packetboat prune` has let \
             them go.\n"
        }
    }
}

/// Faults for scripts.
pub(super) fn faults_json(faults: &[Fault]) -> Value {
    let fault = |fault: &Fault| {
        let paths: Vec<_> = fault.paths.iter().map(|path| crate::json::with_path(json!({}), path)).collect();
        let versions = fault.versions.iter().map(|past| {
            let version = json!({ "packet": past.version.to_string(), "time": text::rfc3339(past.time) });
            crate::json::with_path(version, &past.path)
        });
        let (remedy, devices) = match &fault.remedy {
            Remedy::Here => ("here", Vec::new()),
            Remedy::Others(devices) => ("others", devices.clone()),
            Remedy::Lost => ("lost", Vec::new()),
        };
        json!({
            "object": fault.object,
            "fault": fault.what,
            "paths": paths,
            "versions": versions.collect::<Vec<_>>(),
            "remedy": remedy,
            "devices": devices,
        })
    };
    faults.iter().map(fault).collect()
}

fn to_json(report: &VerifyReport) -> Value {
    json!({
        "schema": 1,
        "objects": report.objects,
        "bytes": report.bytes,
        "orphans": report.orphans,
        "faults": faults_json(&report.faults),
    })
}

/// Past versions that are listed one by one.
const MANY: usize = 20;
const JSON: &str = "\
JSON: objects, bytes, faults (object, fault, paths, versions (path, packet, time), remedy: \"here\", \"others\" or \
\"lost\", devices), orphans (objects that nothing needs; no fault).";
