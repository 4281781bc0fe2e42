//! `packetboat restore`: brings back what was.

use std::error::Error;
use std::fs;
use std::path::{Path, PathBuf};
use std::process::ExitCode;
use std::sync::Arc;

use clap::{ArgGroup, Args};
use packetboat_engine::error::SyncError;
use packetboat_engine::replica::{At, Received, Settings};
use packetboat_engine::restore_from::restore_from;
use packetboat_replica::fs::Fs;
use packetboat_storage::folder::FolderStore;
use serde_json::{Value, json};

use super::FolderArg;
use super::round::{stopped, sync_error};
use crate::at::{AtText, parse_at};
use crate::failure::Failure;
use crate::opening::{Context, open_fs, vault_not_here};
use crate::paths::in_vault;
use crate::places::{Directory, Found, lies_within, look_for_vault, require_folder};
use crate::progress::Progress;
use crate::secrets::Secrets;
use crate::summary::{Counts, changes};
use crate::text;
use crate::world::{SystemClock, SystemEntropy};

/// Bring back a file, a directory or everything as it was
///
/// Into the folder itself, what is restored is a change made here: it is published by the next `packetboat sync`, and what
/// it replaced stays in the history. With --to, the folder is not touched.
///
/// With --from, everything in a vault is written to a new directory. That needs the passphrase (or the recovery key, with
/// --recovery) and nothing else: no folder, and no state on this computer.
///
/// What is skipped, and why, is named on standard error, and the exit code is 1 then. A file in the folder that has changes
/// of its own is skipped until `packetboat sync` has published them.
#[derive(Debug, Args)]
#[command(after_help = JSON)]
#[command(group(ArgGroup::new("what").required(true).args(["path", "all", "from"])))]
pub(crate) struct RestoreArgs {
    /// File or directory, as it was called at that time
    path: Option<PathBuf>,
    /// Restore everything
    #[arg(long)]
    all: bool,
    /// Restore everything from the vault at this intermediary
    #[arg(long, value_name = "INTERMEDIARY", requires = "to", conflicts_with = "folder")]
    from: Option<PathBuf>,
    #[arg(long, value_parser = parse_at, help = AT, value_name = "TIME|PACKET", required_unless_present = "from")]
    at: Option<AtText>,
    /// Write to this new or empty directory
    #[arg(long, value_name = "DIR")]
    to: Option<PathBuf>,
    /// Read the passphrase (with --recovery: the recovery key) from FILE
    #[arg(long, value_name = "FILE", requires = "from")]
    passphrase_file: Option<PathBuf>,
    /// Open the vault with the recovery key in place of the passphrase
    #[arg(long, requires = "from")]
    recovery: bool,
    #[command(flatten)]
    folder: FolderArg,
}

/// Runs the command.
pub(crate) fn run(context: &Context, args: RestoreArgs) -> Result<ExitCode, Failure> {
    match (&args.from, &args.to) {
        (Some(from), Some(to)) => from_vault(context, &args, from, to),
        _ => from_folder(context, &args),
    }
}

fn from_folder(context: &Context, args: &RestoreArgs) -> Result<ExitCode, Failure> {
    let mut session = context.open(args.folder.folder.as_deref())?;
    let path = args.path.as_ref().map(|path| in_vault(&session.folder, path)).transpose()?;
    let path = path.filter(|path| !path.is_root());
    let Some(at) = &args.at else { return Err(Failure::new("no time was given").hint("add --at TIME")) };
    let at = at.find(&session.replica)?;
    let prepare = |to: &PathBuf| Target::prepare(to, &session.intermediary, Some(&session.folder));
    let target = args.to.as_ref().map(prepare).transpose()?;
    let fs = target.as_ref().map(Target::fs).transpose()?;
    let mut progress = Progress::new(context.ui)?.telling_skipped();
    let outcome = session.replica.restore(path.as_ref(), &at, fs, &mut progress);
    progress.finish();
    let received = outcome.map_err(|error| failed(&error, target.as_ref()))?;
    Ok(tell(context, &received, target.as_ref()))
}

fn from_vault(context: &Context, args: &RestoreArgs, from: &Path, to: &Path) -> Result<ExitCode, Failure> {
    require_folder(from)?;
    let place = Directory::look(from, "intermediary")?;
    let Found::Vault(marker) = look_for_vault(&place)? else {
        return Err(vault_not_here(from).hint("is the path right, and is the stick or share mounted?"));
    };
    let at = match &args.at {
        None => None,
        Some(AtText::Time(time)) => Some(At::Time(*time)),
        Some(AtText::Packet(_)) => {
            return Err(Failure::new("with --from, --at takes a time").hint("packets are known to bound folders only"));
        }
    };
    let secrets = Secrets { file: args.passphrase_file.clone(), ui: context.ui };
    // Looked at before the passphrase is asked for, and made after.
    Target::check(to, &place.path, None)?;
    let ring = match args.recovery {
        true => secrets.unlock_with_recovery(&marker)?,
        false => secrets.unlock(&marker)?,
    };
    let target = Target::prepare(to, &place.path, None)?;
    let store = Arc::new(FolderStore::new(&place.path));
    let mut progress = Progress::new(context.ui)?.telling_skipped();
    let settings = Settings { threads: context.threads, ..Settings::default() };
    let (fs, entropy) = (target.fs()?, &mut SystemEntropy);
    let outcome = restore_from(store, ring, fs, at.as_ref(), &settings, &SystemClock, entropy, &mut progress);
    progress.finish();
    let received = outcome.map_err(|error| failed(&error, Some(&target)))?;
    Ok(tell(context, &received, Some(&target)))
}

/// Why nothing more was restored. What is full is the disk that was written to, which need not be the folder's.
fn failed(error: &(dyn Error + 'static), target: Option<&Target>) -> Failure {
    if let Some(target) = target {
        target.withdraw();
    }
    match (sync_error(error), target) {
        (Some(SyncError::DiskFull), Some(target)) => {
            Failure::new(format!("the disk that holds {} is full", text::path(&target.path)))
                .hint("only a part was restored: delete that directory, and choose one on a disk with more room")
        }
        _ => stopped(error),
    }
}

/// A directory that is restored to.
struct Target {
    path: PathBuf,
    /// Whether it was made for this.
    is_new: bool,
}

impl Target {
    /// Refuses a directory that holds something, or lies in the vault or in the folder.
    fn check(to: &Path, intermediary: &Path, folder: Option<&Path>) -> Result<Directory, Failure> {
        let place = Directory::look(to, "directory")?;
        let shown = text::path(to);
        if lies_within(&place.path, intermediary) {
            return Err(Failure::new(format!("{shown} lies within the intermediary")).hint("choose another directory"));
        }
        if folder.is_some_and(|folder| lies_within(&place.path, folder)) {
            return Err(Failure::new(format!("{shown} lies within the folder"))
                .hint("the next `packetboat sync` would publish it; choose a directory elsewhere, or leave out --to"));
        }
        if !place.has_parent {
            return Err(Failure::new(format!("cannot make the directory {shown}"))
                .because(&std::io::Error::other(format!("{} does not exist", text::path(place.parent())))));
        }
        if place.exists() {
            let mut entries = fs::read_dir(&place.path)
                .map_err(|error| Failure::new(format!("cannot list {shown}")).because(&error))?;
            if entries.next().is_some() {
                return Err(Failure::new(format!("{shown} is not empty"))
                    .hint("choose a new or empty directory, so that nothing there is mixed up or overwritten"));
            }
        }
        Ok(place)
    }

    /// Makes the directory where it is missing.
    fn prepare(to: &Path, intermediary: &Path, folder: Option<&Path>) -> Result<Self, Failure> {
        let mut place = Self::check(to, intermediary, folder)?;
        let is_new = !place.exists();
        if is_new {
            place.create("directory")?;
        }
        Ok(Self { path: place.path, is_new })
    }

    /// Takes the directory away again, where it was made for this and nothing came into it.
    fn withdraw(&self) {
        if self.is_new {
            // With anything in it, it stays.
            let _ = fs::remove_dir(&self.path);
        }
    }

    fn fs(&self) -> Result<Arc<dyn Fs>, Failure> {
        Ok(open_fs(&self.path)?)
    }
}

fn tell(context: &Context, received: &Received, target: Option<&Target>) -> ExitCode {
    let counts = Counts::received(received);
    let value = || -> Value {
        let mut value = json!({ "schema": 1, "restored": counts.to_json() });
        value["bytes_written"] = received.bytes_written.into();
        value["waiting"] = received.waiting.into();
        value
    };
    let said = || {
        let done = format!("Restored: {}, {} written", changes(&counts), text::bytes(received.bytes_written));
        let mut said = match target {
            // An error of a tired user, such as a time before the vault was made, is not to look like a restore.
            _ if counts.nothing() && received.waiting > 0 => "Nothing was restored.\n".to_owned(),
            Some(_) if counts.nothing() => "Nothing was restored: the vault held nothing at that time.\n".to_owned(),
            None if counts.nothing() => {
                "Nothing was restored: what the vault held at that time, if anything, is here as it was.\n".to_owned()
            }
            Some(target) => format!("{done} to {}.\n", text::path(&target.path)),
            None => format!("{done}. The next `packetboat sync` publishes it.\n"),
        };
        if received.waiting > 0 {
            let left = text::count(received.waiting, "was skipped", "were skipped");
            said.push_str(&format!("{left}, as named above; what is there now was left as it is.\n"));
            if target.is_none() {
                said.push_str("With --to DIR it is restored beside the folder.\n");
            }
        }
        said
    };
    context.ui.result(value, said);
    if received.waiting > 0 { ExitCode::FAILURE } else { ExitCode::SUCCESS }
}

/// Help for `--at`.
pub(super) const AT: &str = "Point in history: '2026-03-14 15:09' (local; a date alone means its start, a second its end), \
'2026-03-14T15:09:26Z', '3 days ago', 'yesterday', or a packet such as 'laptop:12' with all its device knew then";

const JSON: &str = "JSON: restored (new, changed, moved, deleted, attributes), bytes_written, waiting.";
