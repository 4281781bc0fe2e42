//! `packetboat undo`: takes back the last thing that this device published.

use std::process::ExitCode;

use clap::Args;
use packetboat_engine::undo::Undo;
use serde_json::{Map, Value, json};

use super::FolderPlace;
use super::round::stopped;
use crate::failure::Failure;
use crate::json::insert_path;
use crate::opening::Context;
use crate::progress::Progress;
use crate::steps;
use crate::text;

/// Take back the last thing that this device published
///
/// What it changed, moved, made or deleted goes back to what it was, as a new change that the other devices get with
/// their next `packetboat sync`. What anybody changed since is left as it is, and named.
/// What was changed in the folder and not published yet is published first, and is not taken back: to bring back a file that
/// was deleted just now, use `packetboat restore PATH --at now`.
/// Another undo does again what was undone. `packetboat restore` goes further back.
/// The exit code is 1 where something was left.
#[derive(Debug, Args)]
#[command(after_help = JSON)]
pub(crate) struct UndoArgs {
    /// Show what would be taken back, and change nothing
    #[arg(short = 'n', long)]
    dry_run: bool,
    #[command(flatten)]
    folder: FolderPlace,
}

/// Runs the command.
pub(crate) fn run(context: &Context, args: &UndoArgs) -> Result<ExitCode, Failure> {
    let mut session = context.open(args.folder.path())?;
    let mut progress = Progress::new(context.ui)?;
    let outcome = session.replica.undo(args.dry_run, &mut progress);
    progress.finish();
    let undo = outcome.map_err(|error| stopped(&error))?;
    context.ui.result(|| to_json(&undo, args.dry_run), || to_text(&undo, args.dry_run));
    Ok(if undo.left.is_empty() { ExitCode::SUCCESS } else { ExitCode::FAILURE })
}

fn to_text(undo: &Undo, preview: bool) -> String {
    let when = text::time(undo.time);
    let mut shown = match (undo.steps.is_empty(), preview) {
        (true, _) => format!("Nothing of what was published at {when} can be taken back.\n"),
        (false, true) => format!("Would take back what was published at {when}:\n"),
        (false, false) => format!("Took back what was published at {when}:\n"),
    };
    shown.extend(undo.steps.iter().map(|step| format!("  {}\n", steps::text(step))));
    if undo.unpublished > 0 {
        let changes = text::count(undo.unpublished, "change", "changes");
        shown.push_str(&match preview {
            true => format!(
                "{changes} in the folder would be published first, and not be taken back:\n  \
                 `packetboat sync --dry-run` lists them\n"
            ),
            false => {
                format!("{changes} in the folder had not been published: that was done first, and not taken back.\n")
            }
        });
    }
    if !undo.left.is_empty() {
        shown.push_str("Left as it is:\n");
        let line = |(path, reason): &(_, String)| format!("  {path}  ({})\n", text::plain(reason.as_bytes()));
        shown.extend(undo.left.iter().map(line));
    }
    shown
}

fn to_json(undo: &Undo, preview: bool) -> Value {
    let left = undo.left.iter().map(|(path, reason)| {
        let mut object = Map::new();
        insert_path(&mut object, "path", path.as_bytes());
        object.insert("reason".to_owned(), reason.clone().into());
        Value::Object(object)
    });
    json!({
        "schema": 1,
        "dry_run": preview,
        "packets": undo.packets.iter().map(ToString::to_string).collect::<Vec<_>>(),
        "time": text::rfc3339(undo.time),
        "steps": undo.steps.iter().map(steps::to_json).collect::<Vec<_>>(),
        "left": left.collect::<Vec<_>>(),
        "unpublished": undo.unpublished,
    })
}

const JSON: &str = "JSON: dry_run, packets, time, steps (as of `packetboat sync --dry-run`), left (path, reason), \
unpublished.";
