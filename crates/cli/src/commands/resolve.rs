//! `packetboat resolve`: settles a conflict.

use std::fs;
use std::path::PathBuf;
use std::process::{Command, ExitCode};

use clap::{Args, ValueEnum};
use packetboat_engine::merge::{MergeSides, Merger, TextMerger, merge_lines};
use packetboat_engine::replica::{Keep, Kept, Settled};
use serde_json::{Value, json};

use super::FolderArg;
use super::round::run_round;
use crate::failure::Failure;
use crate::json::with_path;
use crate::opening::Context;
use crate::paths::in_vault;
use crate::text;

/// Settle a conflict
///
/// What is not kept stays in the history: `packetboat log PATH` lists it and `packetboat restore` brings it back.
/// Other devices see the conflict settled after their next round.
///
/// With `--keep merged` the lines that each side changed since the version that both came from are put together; where
/// both changed the same lines nothing is done, unless `--tool` names a program that merges. Files that are named in
/// `.packetboatmerge` (patterns as of gitignore, at the root of the folder, synchronised) are merged so by themselves.
#[derive(Debug, Args)]
#[command(after_help = JSON)]
pub(crate) struct ResolveArgs {
    /// File in conflict, or one of its copies
    path: PathBuf,
    /// Content to keep
    #[arg(long, value_enum)]
    keep: KeepArg,
    /// Program that merges, run by the shell: it finds the files $BASE, $MINE and $THEIRS, and writes $MERGED
    #[arg(long, value_name = "COMMAND", requires = "keep")]
    tool: Option<String>,
    #[command(flatten)]
    folder: FolderArg,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
enum KeepArg {
    /// What this device wrote (where it wrote neither, what stands at the path)
    Mine,
    /// What another device wrote
    Theirs,
    /// Both: the copies become files of their own
    Both,
    /// One content made of both
    Merged,
}

/// Runs the command.
pub(crate) fn run(context: &Context, args: &ResolveArgs) -> Result<ExitCode, Failure> {
    let mut session = context.open(args.folder.folder.as_deref())?;
    let path = in_vault(&session.folder, &args.path)?;
    let keep = match args.keep {
        KeepArg::Mine => Some(Keep::Mine),
        KeepArg::Theirs => Some(Keep::Theirs),
        KeepArg::Both => Some(Keep::Both),
        KeepArg::Merged => None,
    };
    if args.tool.is_some() && keep.is_some() {
        return Err(Failure::new("--tool merges, and one side is to be kept").hint("use `--keep merged` with it"));
    }
    let mut merger: Box<dyn Merger> = match &args.tool {
        Some(command) => Box::new(Tool { command: command.clone() }),
        None => Box::new(TextMerger),
    };
    let round = run_round(context, &mut session, |replica, observer| match keep {
        Some(keep) => replica.resolve(&path, keep, observer),
        None => replica.resolve_merged(&path, &mut *merger, observer),
    })?;
    let settled = round.report.settled.as_ref();
    if context.ui.json || !context.ui.quiet {
        let value = || {
            let mut value = round.summary(&session).to_json();
            value["settled"] = settled.map(to_json).into();
            value
        };
        context.ui.result(value, || settled.map(to_text).unwrap_or_default() + &round.summary(&session).text());
    }
    Ok(ExitCode::SUCCESS)
}

fn to_text(settled: &Settled) -> String {
    let kept = match &settled.kept {
        Kept::One { mine: true, .. } => "what this device wrote is kept".to_owned(),
        Kept::One { device, .. } => format!("what {} wrote is kept", text::plain(device.as_bytes())),
        Kept::Merged => "both sides are merged".to_owned(),
        Kept::All(paths) => {
            let paths: Vec<String> = paths.iter().map(ToString::to_string).collect();
            format!("all are kept, as {}", paths.join(" and "))
        }
    };
    format!("Settled {}: {kept}.\n", settled.path)
}

fn to_json(settled: &Settled) -> Value {
    let kept = match &settled.kept {
        Kept::One { device, mine } => json!({ "kept": "one", "device_name": device, "mine": mine }),
        Kept::Merged => json!({ "kept": "merged" }),
        Kept::All(paths) => {
            let files: Vec<Value> = paths.iter().map(|path| with_path(json!({}), path)).collect();
            json!({ "kept": "all", "files": files })
        }
    };
    with_path(kept, &settled.path)
}

/// A program that a user named.
struct Tool {
    command: String,
}

impl Merger for Tool {
    fn merge(&mut self, sides: MergeSides<'_>) -> Result<Vec<u8>, String> {
        let failed = |error: std::io::Error| format!("the tool could not be run: {error}");
        let directory = tempfile::Builder::new().prefix("packetboat-merge-").tempdir().map_err(failed)?;
        // Editors tell the language by the ending.
        let ending =
            sides.path.to_string().rsplit_once('.').map(|(_, ending)| format!(".{ending}")).unwrap_or_default();
        let ending = if ending.contains('/') { String::new() } else { ending };
        let begun = merge_lines(sides.base, sides.mine, sides.theirs).unwrap_or_else(|marked| marked);
        let mut command = Command::new("sh");
        command.arg("-c").arg(&self.command);
        let merged = directory.path().join(format!("merged{ending}"));
        for (variable, bytes) in
            [("BASE", sides.base), ("MINE", sides.mine), ("THEIRS", sides.theirs), ("MERGED", &begun)]
        {
            let file = directory.path().join(format!("{}{ending}", variable.to_lowercase()));
            fs::write(&file, bytes).map_err(failed)?;
            command.env(variable, file);
        }
        let status = command.status().map_err(failed)?;
        if !status.success() {
            return Err(format!("the tool ended with {status}"));
        }
        fs::read(&merged).map_err(|error| format!("the tool left no result: {error}"))
    }
}

const JSON: &str = "\
JSON: as of `packetboat sync`, and settled (path, kept: \"one\" with device_name and mine, \"merged\", or \"all\" with files, \
each with path).";
