//! `packetboat prune`: letting go of old history and of what nothing needs.

use std::num::{IntErrorKind, NonZeroU32};
use std::process::ExitCode;

use clap::Args;
use packetboat_core::garbage::Retention;
use packetboat_engine::{PruneOptions, PruneReport};
use serde_json::{Value, json};

use super::FolderPlace;
use super::round::stopped;
use crate::failure::Failure;
use crate::opening::Context;
use crate::progress::Progress;
use crate::text;

/// Let old history go, and free what nothing needs any more
///
/// A vault keeps its past for 90 days unless it is told otherwise; --keep tells it, for all devices.
/// What stands in the folders is never let go, nor what was replaced or deleted within the time that is kept.
/// What goes is named first, and deleted once every device has heard of it and said so with its next sync; a device that
/// is away for long is waited for. The same happens by itself after a sync, at most once a day, unless --no-prune is given.
/// `packetboat log`, `show` and `restore` reach back to where history begins.
#[derive(Debug, Args)]
#[command(after_help = JSON)]
pub(crate) struct PruneArgs {
    /// Keep every state of the last days as `90d`, the last versions of each file as `10 versions`, or `all`
    #[arg(long, value_name = "PAST", value_parser = retention)]
    keep: Option<Retention>,
    /// Show what would go and what that frees, and change nothing
    #[arg(long)]
    dry_run: bool,
    #[command(flatten)]
    folder: FolderPlace,
}

/// Runs the command.
pub(crate) fn run(context: &Context, args: &PruneArgs) -> Result<ExitCode, Failure> {
    let mut session = context.open(args.folder.path())?;
    let keep = args.keep;
    let mut progress = Progress::new(context.ui)?;
    let outcome = session.replica.prune(PruneOptions { keep, dry_run: args.dry_run }, &mut progress);
    progress.finish();
    let report = outcome.map_err(|error| stopped(&error))?;
    let traffic = session.reached.meter.traffic();
    let requests = || crate::summary::traffic_json(&traffic);
    context.ui.result(|| to_json(&report, args.dry_run, requests()), || to_text(&report, args.dry_run));
    Ok(ExitCode::SUCCESS)
}

/// Days as `90d` or `90`, weeks as `12w`, years as `2y`, versions as `10 versions`, or `all`.
fn retention(text: &str) -> Result<Retention, String> {
    if text == "all" {
        return Ok(Retention::All);
    }
    let digits = text.trim_end_matches(|c: char| c.is_ascii_alphabetic());
    let number = || {
        digits.trim_end().parse::<u32>().map_err(|error| match error.kind() {
            IntErrorKind::PosOverflow => TOO_LONG.to_owned(),
            _ => "it begins with a number, as 90d".to_owned(),
        })
    };
    let days = match &text[digits.len()..] {
        "" | "d" | "day" | "days" => 1,
        "w" => 7,
        "y" => 366,
        "version" | "versions" => {
            let versions = NonZeroU32::new(number()?).ok_or("what stands now is a version: keep at least 1")?;
            return Ok(Retention::Versions(versions));
        }
        _ => return Err("it is days as 90d, weeks as 12w, years as 2y, `10 versions`, or `all`".to_owned()),
    };
    let number = number()?;
    number.checked_mul(days).map(Retention::Days).ok_or_else(|| TOO_LONG.to_owned())
}

/// What is kept, in words.
pub(super) fn kept(retention: Retention) -> String {
    match retention {
        Retention::All => "everything for ever".to_owned(),
        Retention::Days(0) => "what stands, and nothing past".to_owned(),
        Retention::Days(days) => format!("the last {}", text::count(days.into(), "day", "days")),
        Retention::Versions(versions) => {
            format!("the last {} of each file", text::count(versions.get().into(), "version", "versions"))
        }
    }
}

fn to_text(report: &PruneReport, dry_run: bool) -> String {
    let mut shown = format!("Kept: {}.\n", kept(report.retention));
    let would = if dry_run { "Would let go" } else { "Let go" };
    let packets = text::count(report.packets, "packet", "packets");
    let packs = text::count(report.packs, "pack", "packs");
    if report.packets + report.packs == 0 {
        shown.push_str("Nothing more to let go.\n");
    } else {
        shown.push_str(&format!("{would}:\n"));
    }
    if report.packets > 0 {
        shown.push_str(&format!("  history   {packets}, {}\n", text::bytes(report.packet_bytes)));
    }
    if report.packs > 0 {
        let anew = match report.repacked {
            0 => String::new(),
            number => format!(", {} stored anew in part", text::count(number, "of them", "of them")),
        };
        shown.push_str(&format!("  contents  {packs}{anew}, {}\n", text::bytes(report.pack_bytes)));
    }
    if report.deleted > 0 {
        let objects = text::count(report.deleted, "object", "objects");
        shown.push_str(&format!("Deleted {objects}, {}.\n", text::bytes(report.deleted_bytes)));
    }
    for note in &report.notes {
        shown.push_str(&format!("Note: {note}.\n"));
    }
    if !report.waiting_for.is_empty() {
        let names: Vec<String> = report.waiting_for.iter().map(|name| text::plain(name.as_bytes())).collect();
        shown.push_str(&format!(
            "What is let go is deleted when these devices have synchronised: {}.\n\
             One that is gone for good is waited for no more after `packetboat devices retire NAME`.\n",
            names.join(", ")
        ));
    }
    shown
}

fn to_json(report: &PruneReport, dry_run: bool, requests: Value) -> Value {
    json!({
        "schema": 1,
        "dry_run": dry_run,
        "keep": keep_json(report.retention),
        "packets": report.packets,
        "packet_bytes": report.packet_bytes,
        "packs": report.packs,
        "packs_stored_anew": report.repacked,
        "pack_bytes": report.pack_bytes,
        "deleted": report.deleted,
        "deleted_bytes": report.deleted_bytes,
        "waiting_for": report.waiting_for,
        "notes": report.notes,
        "requests": requests,
    })
}

/// What is kept, for scripts.
pub(super) fn keep_json(retention: Retention) -> Value {
    match retention {
        Retention::All => json!({ "all": true }),
        Retention::Days(days) => json!({ "days": days }),
        Retention::Versions(versions) => json!({ "versions": versions.get() }),
    }
}

const JSON: &str = "\
JSON: dry_run, keep (all, days or versions), packets, packet_bytes, packs, packs_stored_anew, pack_bytes, deleted, \
deleted_bytes, waiting_for, notes, requests (as in `packetboat sync`).";

const TOO_LONG: &str = "that is too long: `all` keeps everything";

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_kept_is_days_weeks_years_versions_or_all() {
        assert_eq!(retention("90d"), Ok(Retention::Days(90)));
        assert_eq!(retention("90"), Ok(Retention::Days(90)));
        assert_eq!(retention("2w"), Ok(Retention::Days(14)));
        assert_eq!(retention("1y"), Ok(Retention::Days(366)));
        assert_eq!(retention("all"), Ok(Retention::All));
        let versions = |number| NonZeroU32::new(number).map(Retention::Versions);
        assert_eq!(retention("10 versions").ok(), versions(10));
        assert_eq!(retention("1version").ok(), versions(1));
        for bad in ["", "0 versions", "versions", "d", "-1d", "9h", "99999999y", "1.5d", "90é"] {
            assert!(retention(bad).is_err(), "{bad}");
        }
        for long in ["99999999y", "99999999999d", "99999999999 versions"] {
            assert_eq!(retention(long), Err(TOO_LONG.to_owned()), "{long}");
        }
    }
}
