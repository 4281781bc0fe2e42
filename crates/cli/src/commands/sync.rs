//! `packetboat sync`: binds a folder where needed, then runs one round.

use std::path::PathBuf;
use std::process::ExitCode;

use clap::Args;
use packetboat_engine::ports::Observer;
use packetboat_engine::replica::SyncOptions;
use serde_json::{Value, json};

use super::round::{Round, run_round};
use crate::binding::{Bound, How, Wish, bind};
use crate::failure::Failure;
use crate::json::insert_path;
use crate::opening::Context;
use crate::progress::Progress;
use crate::secrets::Secrets;
use crate::steps;

/// Bring a folder and its vault in step
///
/// The first time, name the folder and the intermediary: an empty or new directory on a stick or a share becomes a vault,
/// for which a passphrase is asked; a vault that is there is joined with its passphrase.
/// Files that are in both already, with the same bytes, stay as they are; nothing is overwritten.
/// From then on `packetboat sync FOLDER`, or `packetboat sync` within the folder, is enough.
///
/// Where this device is the host of a pair (`packetboat pair`) and does not reach the vault, it goes through the
/// companion, if that is a member of the vault or carries it (`packetboat carry`), and says so. Name `companion:` as the
/// intermediary to join a vault that only the companion reaches. What the companion cannot put up yet it keeps until it
/// can; so does this device, in case it reaches the vault first.
///
/// Changes made here go to the vault, and changes made elsewhere come into the folder.
/// Where two devices changed the same file, both contents are kept: see `packetboat conflicts`.
/// Owners and ACLs stay local, setuid and setgid are never set, and of extended attributes only `user.*` travel.
#[derive(Debug, Args)]
#[command(after_help = JSON)]
pub(crate) struct SyncArgs {
    /// Folder to keep in step [default: the one around the current directory]
    folder: Option<PathBuf>,
    /// Directory that holds the vault, or is to hold it [default: the one used before]
    intermediary: Option<PathBuf>,
    /// Show what would be done, and why, and change nothing
    #[arg(long)]
    dry_run: bool,
    /// Publish the removal of most of the folder
    #[arg(long)]
    confirm_deletes: bool,
    /// End with exit code 3 if conflicts wait
    #[arg(long)]
    fail_on_conflicts: bool,
    /// Call this device DEVICE when a vault is made or joined [default: the computer's name]
    #[arg(long, value_name = "DEVICE")]
    name: Option<String>,
    /// Read the passphrase (with --recovery: the recovery key) from FILE
    #[arg(long, value_name = "FILE")]
    passphrase_file: Option<PathBuf>,
    /// Join with the recovery key in place of the passphrase
    #[arg(long)]
    recovery: bool,
    /// Forget what the folder was bound to, and bind it as if for the first time, as a new device
    #[arg(long)]
    rebind: bool,
}

/// Runs the command.
pub(crate) fn run(context: &Context, args: SyncArgs) -> Result<ExitCode, Failure> {
    let wish = Wish {
        folder: args.folder,
        intermediary: args.intermediary,
        name: args.name,
        recovery: args.recovery,
        rebind: args.rebind,
        look_only: args.dry_run,
        secrets: Secrets { file: args.passphrase_file, ui: context.ui },
    };
    let mut bound = bind(context, &wish)?;
    if args.dry_run {
        return dry_run(context, bound);
    }
    let options = SyncOptions { confirm_deletes: args.confirm_deletes };
    let outcome = run_round(context, &mut bound.session, |replica, observer| replica.sync(options, observer));
    let round = match outcome {
        Ok(round) => round,
        Err(failure) => {
            // A recovery key is shown whatever else happens, since it cannot be shown again.
            if let (true, Some(key)) = (context.ui.json, &bound.recovery_key) {
                crate::ui::print(&crate::json::text(&json!({ "schema": 1, "recovery_key": key })));
            }
            return Err(failure);
        }
    };
    report(context, &bound, &round);
    let conflicts = args.fail_on_conflicts && round.report.conflicts > 0;
    Ok(if conflicts { ExitCode::from(CONFLICTS) } else { ExitCode::SUCCESS })
}

fn report(context: &Context, bound: &Bound, round: &Round) {
    let value = || {
        let mut value = round.summary(&bound.session).to_json();
        if let Value::Object(object) = &mut value {
            let folder = bound.session.folder.as_os_str();
            insert_path(object, "folder", std::os::unix::ffi::OsStrExt::as_bytes(folder));
        }
        value["bound"] = match bound.how {
            How::Created => "created",
            How::Joined => "joined",
            How::Already => "already",
        }
        .into();
        if let Some(key) = &bound.recovery_key {
            value["recovery_key"] = key.as_str().into();
        }
        value
    };
    if context.ui.json || !context.ui.quiet {
        context.ui.result(value, || round.summary(&bound.session).text());
    }
}

fn dry_run(context: &Context, mut bound: Bound) -> Result<ExitCode, Failure> {
    let mut progress = Progress::new(context.ui)?;
    let steps = bound.session.replica.dry_run(&mut progress as &mut dyn Observer)?;
    progress.finish();
    context.ui.result(
        || json!({ "schema": 1, "steps": steps.iter().map(steps::to_json).collect::<Vec<_>>() }),
        || match steps.is_empty() {
            true => "Nothing to do: in step.\n".to_owned(),
            false => steps.iter().map(|step| steps::text(step) + "\n").collect(),
        },
    );
    Ok(ExitCode::SUCCESS)
}

const CONFLICTS: u8 = 3;
const JSON: &str = "\
The passphrase is asked for, or taken from --passphrase-file or PACKETBOAT_PASSPHRASE (the recovery key: \
PACKETBOAT_RECOVERY_KEY). A recovery key is shown once when a vault is made.

JSON: folder, intermediary, device, device_name, state, bound (created, joined, already), in_step, up and down (new, changed, \
moved, deleted, attributes, packets; up also bytes_read and packs, down also bytes_written), waiting, conflicts, \
companion (null, or name, waiting, waiting_bytes, since_ms), problems, put_back (packets, chunks, checkpoints), left_out (sockets, pipes and devices), rolled_back, requests (reads, writes, listings, removals, bytes_sent, bytes_received), seconds; recovery_key \
when a vault was made. With --dry-run: steps, each with direction (up, down, stay), action, path, to, cause.";
