//! `packetboat resolve`: settles a conflict.

use std::path::PathBuf;
use std::process::ExitCode;

use clap::{Args, ValueEnum};
use packetboat_engine::replica::Keep;

use super::FolderArg;
use super::round::run_round;
use crate::failure::Failure;
use crate::opening::Context;
use crate::paths::in_vault;

/// Settle a conflict
///
/// What is not kept stays in the history: `packetboat log PATH` lists it and `packetboat restore` brings it back.
/// Other devices see the conflict settled after their next round.
#[derive(Debug, Args)]
#[command(after_help = JSON)]
pub(crate) struct ResolveArgs {
    /// File in conflict, or one of its copies
    path: PathBuf,
    /// Content to keep
    #[arg(long, value_enum)]
    keep: KeepArg,
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
}

/// Runs the command.
pub(crate) fn run(context: &Context, args: &ResolveArgs) -> Result<ExitCode, Failure> {
    let mut session = context.open(args.folder.folder.as_deref())?;
    let path = in_vault(&session.folder, &args.path)?;
    let keep = match args.keep {
        KeepArg::Mine => Keep::Mine,
        KeepArg::Theirs => Keep::Theirs,
        KeepArg::Both => Keep::Both,
    };
    let round = run_round(context, &mut session, |replica, observer| replica.resolve(&path, keep, observer))?;
    if context.ui.json || !context.ui.quiet {
        context.ui.result(|| round.summary(&session).to_json(), || round.summary(&session).text());
    }
    Ok(ExitCode::SUCCESS)
}

const JSON: &str = "JSON: as of `packetboat sync`.";
