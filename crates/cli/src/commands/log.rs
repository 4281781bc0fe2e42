//! `packetboat log`: what happened, to a path or to all.

use std::path::PathBuf;
use std::process::ExitCode;

use clap::Args;
use packetboat_engine::replica::LogLine;
use serde_json::{Map, Value, json};

use super::FolderArg;
use crate::failure::Failure;
use crate::json::insert_path;
use crate::opening::Context;
use crate::paths::in_vault;
use crate::text;

/// Show the history of a path, or of the whole vault
///
/// The newest comes first, as far as this device has learned. The packet at the start of a line is what `--at` of `show` and
/// `restore` takes; so is any time. Names of the past are found, too: a deleted file has a history.
#[derive(Debug, Args)]
#[command(after_help = JSON)]
pub(crate) struct LogArgs {
    /// File or directory, as it is or was called
    path: Option<PathBuf>,
    /// Show at most N lines
    #[arg(short = 'n', long, value_name = "N", default_value_t = 100)]
    limit: usize,
    #[command(flatten)]
    folder: FolderArg,
}

/// Runs the command.
pub(crate) fn run(context: &Context, args: &LogArgs) -> Result<ExitCode, Failure> {
    let mut session = context.open(args.folder.folder.as_deref())?;
    let path = args.path.as_ref().map(|path| in_vault(&session.folder, path)).transpose()?;
    let path = path.filter(|path| !path.is_root());
    let lines = session.replica.log(path.as_ref(), args.limit)?;
    let ends = lines.len() < args.limit && session.replica.was_history_let_go()?;
    context.ui.result(
        || json!({ "schema": 1, "entries": lines.iter().map(line_json).collect::<Vec<_>>(), "older_let_go": ends }),
        || {
            let cells: Vec<_> = lines.iter().map(line_cells).collect();
            let mut shown: String = text::columns(&cells).into_iter().map(|line| line + "\n").collect();
            if ends {
                shown.push_str("Older history was let go: `packetboat prune` says how long the past is kept.\n");
            }
            shown
        },
    );
    Ok(ExitCode::SUCCESS)
}

fn line_cells(line: &LogLine) -> Vec<String> {
    let mut cells = vec![
        line.packet.to_string(),
        text::time_or_dash(line.time),
        text::plain(line.device.as_bytes()),
        text::plain(line.text.as_bytes()),
    ];
    if let Some(path) = &line.path {
        cells.push(path.to_string());
        cells.push(line.size.map(text::bytes).unwrap_or_default());
        cells.extend(line.current.then(|| "(stands now)".to_owned()));
    }
    cells
}

fn line_json(line: &LogLine) -> Value {
    let mut object = Map::new();
    object.insert("packet".to_owned(), format!("{}:{}", line.packet.device, line.packet.counter).into());
    object.insert("device".to_owned(), line.packet.device.to_string().into());
    object.insert("device_name".to_owned(), line.device.as_str().into());
    object.insert("time".to_owned(), line.time.and_then(text::rfc3339).into());
    object.insert("text".to_owned(), line.text.as_str().into());
    if let Some(path) = &line.path {
        insert_path(&mut object, "path", path.as_bytes());
    }
    object.insert("size".to_owned(), line.size.into());
    object.insert("current".to_owned(), line.current.into());
    Value::Object(object)
}

const JSON: &str = "JSON: entries, each with packet, device, device_name, time (null where it was let go), text, path, size, current; \
older_let_go.";
