//! `packetboat show`: the content of a file at some time.

use std::io::Write;
use std::path::PathBuf;
use std::process::ExitCode;

use clap::Args;
use packetboat_core::hex;
use packetboat_engine::error::{Deletion, QueryError};
use serde_json::json;

use super::FolderArg;
use crate::at::{AtText, parse_at};
use crate::failure::Failure;
use crate::json::with_path;
use crate::opening::Context;
use crate::paths::in_vault;
use crate::text;
use crate::ui::Stdout;

/// Write the content of a file, now or at an earlier time, to standard output
///
/// It changes nothing; `packetboat restore` brings an earlier content back into the folder.
/// Content that is not on this disk is read from the intermediary, which must be there then.
#[derive(Debug, Args)]
#[command(after_help = JSON)]
pub(crate) struct ShowArgs {
    /// File, as it is called or was called at that time
    path: PathBuf,
    #[arg(long, value_parser = parse_at, help = super::restore::AT, value_name = "TIME|PACKET")]
    at: Option<AtText>,
    #[command(flatten)]
    folder: FolderArg,
}

/// Runs the command.
pub(crate) fn run(context: &Context, args: &ShowArgs) -> Result<ExitCode, Failure> {
    let mut session = context.open(args.folder.folder.as_deref())?;
    let path = in_vault(&session.folder, &args.path)?;
    if path.is_root() {
        return Err(Failure::new("the folder itself has no content to show").hint("name a file within it"));
    }
    let at = args.at.as_ref().map(|at| at.find(&session.replica)).transpose()?;
    if !context.ui.json {
        session.replica.show(&path, at.as_ref(), &mut Stdout).map_err(not_shown)?;
        Stdout.flush().map_err(|error| Failure::new("cannot write to standard output").because(&error))?;
        return Ok(ExitCode::SUCCESS);
    }
    let mut content = Vec::new();
    session.replica.show(&path, at.as_ref(), &mut content).map_err(not_shown)?;
    let value = match std::str::from_utf8(&content) {
        Ok(text) => json!({ "schema": 1, "size": content.len(), "content": text }),
        Err(_) => json!({ "schema": 1, "size": content.len(), "content_bytes": hex::encode(&content) }),
    };
    context.ui.result(|| with_path(value, &path), String::new);
    Ok(ExitCode::SUCCESS)
}

/// Why nothing is shown; of what was deleted, how to see and have it all the same.
fn not_shown(error: QueryError) -> Failure {
    let QueryError::Deleted(deletion) = &error else { return error.into() };
    let Deletion { path, by, time, last } = &**deletion;
    let by = by.as_ref().map(|name| format!(" by {}", text::plain(name.as_bytes()))).unwrap_or_default();
    let when = time.map(|time| format!(" at {}", text::time(time))).unwrap_or_default();
    let failure = Failure::new(format!("{path} was deleted{by}{when}"));
    let path = text::word(path.as_bytes());
    match last {
        Some((then, packet)) => failure.hint(format!(
            "`packetboat show {} --at {packet}` shows what it held last, and `packetboat restore` of the same brings it \
             back; `packetboat log {path}` lists all its versions",
            text::word(then.as_bytes())
        )),
        None => failure.hint(format!("`packetboat log {path}` shows its history; `packetboat restore` brings it back")),
    }
}

const JSON: &str = "JSON: path, size, and content, or content_bytes in hexadecimal where it is not UTF-8.";
