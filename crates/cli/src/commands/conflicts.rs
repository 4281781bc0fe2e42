//! `packetboat conflicts`: what waits to be settled.

use std::process::ExitCode;

use clap::Args;
use packetboat_engine::replica::{Conflict, Side};
use serde_json::{Value, json};

use super::FolderPlace;
use crate::failure::Failure;
use crate::json::with_path;
use crate::opening::Context;
use crate::text;

/// List the conflicts that wait to be settled
///
/// A conflict is a file that two devices changed without having seen each other's change.
/// All contents are kept: one stands at the path, the others beside it as `name (conflict DEVICE DATE xxxx).ext`.
/// Settle one with `packetboat resolve`, or with ordinary tools: delete or rename the copies, or edit the file and delete them.
/// Settling it on one device settles it on all, with the next rounds.
#[derive(Debug, Args)]
#[command(after_help = JSON)]
pub(crate) struct ConflictsArgs {
    #[command(flatten)]
    folder: FolderPlace,
}

/// Runs the command.
pub(crate) fn run(context: &Context, args: &ConflictsArgs) -> Result<ExitCode, Failure> {
    let mut session = context.open(args.folder.path())?;
    let conflicts = session.replica.conflicts()?;
    context.ui.result(
        || json!({ "schema": 1, "conflicts": conflicts.iter().map(to_json).collect::<Vec<_>>() }),
        || match conflicts.is_empty() {
            true => "No conflicts.\n".to_owned(),
            false => conflicts.iter().map(to_text).collect(),
        },
    );
    Ok(ExitCode::SUCCESS)
}

fn to_text(conflict: &Conflict) -> String {
    let cells = conflict.sides.iter().map(|side| {
        let mine = if side.mine { " (this device)" } else { "" };
        vec![
            text::plain(side.device.as_bytes()) + mine,
            text::time_or_dash(milliseconds(side)),
            text::bytes(side.size),
            side.version.to_string(),
            format!("at {}", side.path),
        ]
    });
    let lines = text::columns(&cells.collect::<Vec<_>>());
    lines.into_iter().fold(format!("{}\n", conflict.path), |shown, line| shown + "  " + &line + "\n")
}

fn milliseconds(side: &Side) -> Option<i64> {
    side.time.map(|seconds| seconds.saturating_mul(1000))
}

fn to_json(conflict: &Conflict) -> Value {
    let sides: Vec<_> = conflict.sides.iter().map(side_json).collect();
    with_path(json!({ "sides": sides }), &conflict.path)
}

fn side_json(side: &Side) -> Value {
    let value = json!({
        "version": format!("{}:{}", side.version.device, side.version.counter),
        "device_name": side.device,
        "time": milliseconds(side).and_then(text::rfc3339),
        "size": side.size,
        "mine": side.mine,
    });
    with_path(value, &side.path)
}

const JSON: &str = "JSON: conflicts, each with path and sides (path, version, device_name, time, size, mine), the one at the \
path first.";
