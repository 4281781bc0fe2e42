//! `packetboat key`: what opens the vault.

use std::path::PathBuf;
use std::process::ExitCode;

use clap::{Args, Subcommand};
use packetboat_engine::JoinError;
use packetboat_engine::ports::Observer;
use serde_json::json;

use super::FolderArg;
use super::round::stopped;
use crate::failure::Failure;
use crate::opening::Context;
use crate::progress::Progress;
use crate::secrets::Secrets;

/// Change the passphrase, or get a new recovery key
///
/// Both only open the vault for devices that join; devices that are in it hold its keys and go on as before.
/// Whoever kept a copy of the vault's marker from before can still open that copy with what opened it then.
/// The intermediary must be there.
#[derive(Debug, Args)]
#[command(after_help = JSON, arg_required_else_help = true)]
pub(crate) struct KeyArgs {
    #[command(subcommand)]
    action: KeyAction,
    #[command(flatten)]
    folder: FolderArg,
}

#[derive(Debug, Subcommand)]
enum KeyAction {
    /// Choose a new passphrase; the former one opens the vault no more
    Passphrase {
        /// Read the new passphrase from FILE
        #[arg(long, value_name = "FILE")]
        passphrase_file: Option<PathBuf>,
    },
    /// Make and show a new recovery key; the former one opens the vault no more
    Recovery,
}

/// Runs the command.
pub(crate) fn run(context: &Context, args: KeyArgs) -> Result<ExitCode, Failure> {
    let mut session = context.open(args.folder.folder.as_deref())?;
    match args.action {
        KeyAction::Passphrase { passphrase_file } => {
            let secrets = Secrets { file: passphrase_file, ui: context.ui };
            let passphrase = secrets.another_passphrase(&session.replica)?;
            let recovery_key = learning(context, |observer| session.replica.change_passphrase(&passphrase, observer))?;
            context.ui.result(
                || json!({ "schema": 1, "changed": "passphrase", "recovery_key": recovery_key }),
                || {
                    let mut shown = "The passphrase is changed; the former one opens the vault no more.\n".to_owned();
                    if let Some(key) = &recovery_key {
                        shown.push_str(&format!(
                            "The vault's marker was made anew. New recovery key, shown this once; the former one opens \
                             the vault no more:\n{key}\n"
                        ));
                    }
                    shown
                },
            );
        }
        KeyAction::Recovery => {
            let key = learning(context, |observer| session.replica.new_recovery_key(observer))?;
            context.ui.note("New recovery key, shown this once; the former one opens the vault no more:");
            context.ui.result(|| json!({ "schema": 1, "recovery_key": key }), || format!("{key}\n"));
        }
    }
    Ok(ExitCode::SUCCESS)
}

/// Shows how what others did is learned, and what is told of it.
fn learning<T>(
    context: &Context,
    change: impl FnOnce(&mut dyn Observer) -> Result<T, JoinError>,
) -> Result<T, Failure> {
    let mut progress = Progress::new(context.ui)?;
    let changed = change(&mut progress);
    progress.finish();
    changed.map_err(|error| stopped(&error))
}

const JSON: &str = "JSON: passphrase: changed, recovery_key (null unless it changed too). recovery: recovery_key.";
