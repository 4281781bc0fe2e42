//! The commands, one file each, and what they have in common.

mod carry;
mod completions;
mod conflicts;
mod devices;
mod doctor;
mod ignore;
mod inbox;
mod key;
mod log;
mod mail;
mod man;
mod outbox;
mod pair;
mod paths;
mod prune;
pub(crate) mod repair;
mod resolve;
mod restore;
mod round;
mod run;
mod sendmail;
mod service;
mod show;
mod status;
mod sync;
mod undo;
mod unpair;
mod verify;

use std::path::{Path, PathBuf};
use std::process::ExitCode;

use clap::{Args, Parser, Subcommand};

use crate::failure::Failure;
use crate::opening::Context;
use crate::state::StateDir;
use crate::ui::Ui;

/// Keep folders in step on all your devices, through storage that need not be trusted.
///
/// `packetboat sync FOLDER INTERMEDIARY` does all there is to do, the first time and every time.
/// Everything else looks, settles or restores.
#[derive(Debug, Parser)]
#[command(name = "packetboat", version, max_term_width = 100, after_help = EXIT_CODES)]
pub(crate) struct Cli {
    #[command(flatten)]
    pub(crate) global: Global,
    #[command(subcommand)]
    command: Command,
}

/// Options of every command.
#[derive(Clone, Debug, Args)]
pub(crate) struct Global {
    /// Write results as JSON, with stable field names
    #[arg(long, global = true)]
    pub(crate) json: bool,
    /// Tell nothing but results and errors
    #[arg(short, long, global = true, conflicts_with = "verbose")]
    quiet: bool,
    /// Tell every step
    #[arg(short, long, global = true)]
    verbose: bool,
    /// Work with N threads
    #[arg(long, global = true, value_name = "N", env = "PACKETBOAT_THREADS", hide_env_values = true,
          value_parser = clap::value_parser!(u16).range(1..=256))]
    threads: Option<u16>,
    /// Check after each round that vault, record and disk say the same, whatever time it takes
    #[arg(long, global = true, env = "PACKETBOAT_CHECK", hide_env_values = true,
          value_parser = clap::builder::FalseyValueParser::new())]
    check: bool,
    /// Let nothing go after a sync; else what the vault keeps no more goes, at most once a day
    #[arg(long, global = true, env = "PACKETBOAT_NO_PRUNE", hide_env_values = true,
          value_parser = clap::builder::FalseyValueParser::new())]
    no_prune: bool,
}

/// The folder that a command is about.
#[derive(Debug, Args)]
struct FolderArg {
    /// Work on this folder rather than the one around the current directory
    #[arg(long, value_name = "PATH", global = true)]
    folder: Option<PathBuf>,
}

/// The folder that a command is about, where the command takes nothing else.
#[derive(Debug, Args)]
struct FolderPlace {
    /// The folder, rather than the one around the current directory
    #[arg(value_name = "FOLDER", conflicts_with = "folder")]
    place: Option<PathBuf>,
    #[command(flatten)]
    option: FolderArg,
}

impl FolderPlace {
    fn path(&self) -> Option<&Path> {
        self.place.as_deref().or(self.option.folder.as_deref())
    }
}

#[derive(Debug, Subcommand)]
enum Command {
    Sync(sync::SyncArgs),
    Status(status::StatusArgs),
    Log(log::LogArgs),
    Show(show::ShowArgs),
    Restore(restore::RestoreArgs),
    Conflicts(conflicts::ConflictsArgs),
    Resolve(resolve::ResolveArgs),
    Devices(devices::DevicesArgs),
    Key(key::KeyArgs),
    Verify(verify::VerifyArgs),
    Prune(prune::PruneArgs),
    Repair(repair::RepairArgs),
    Undo(undo::UndoArgs),
    Doctor(doctor::DoctorArgs),
    Ignore(ignore::IgnoreArgs),
    Pair(pair::PairArgs),
    Unpair(unpair::UnpairArgs),
    Run(run::RunArgs),
    Outbox(outbox::OutboxArgs),
    Inbox(inbox::InboxArgs),
    Paths(paths::PathsArgs),
    Carry(carry::CarryArgs),
    Mail(mail::MailArgs),
    Sendmail(sendmail::SendmailArgs),
    Service(service::ServiceArgs),
    Completions(completions::CompletionsArgs),
    Man(man::ManArgs),
}

/// Runs a command.
pub(crate) fn run(cli: Cli) -> Result<ExitCode, Failure> {
    let Global { json, quiet, verbose, threads, check, no_prune } = cli.global;
    let ui = Ui { json, quiet, verbose };
    if let Command::Completions(args) = &cli.command {
        return Ok(completions::run(args));
    }
    if let Command::Man(args) = &cli.command {
        return man::run(args);
    }
    let threads = threads.map_or_else(own_threads, usize::from);
    let context = || {
        let state = StateDir::locate(|name| std::env::var_os(name))?;
        Ok::<_, Failure>(Context { ui, state, threads, check, no_prune })
    };
    if let Command::Sendmail(args) = &cli.command {
        return Ok(sendmail::answer(context().and_then(|context| sendmail::run(&context, args))));
    }
    let context = context()?;
    match cli.command {
        Command::Sync(args) => sync::run(&context, args),
        Command::Status(args) => status::run(&context, &args),
        Command::Log(args) => log::run(&context, &args),
        Command::Show(args) => show::run(&context, &args),
        Command::Restore(args) => restore::run(&context, args),
        Command::Conflicts(args) => conflicts::run(&context, &args),
        Command::Resolve(args) => resolve::run(&context, &args),
        Command::Devices(args) => devices::run(&context, args),
        Command::Key(args) => key::run(&context, args),
        Command::Verify(args) => verify::run(&context, &args),
        Command::Prune(args) => prune::run(&context, &args),
        Command::Ignore(args) => ignore::run(&context, &args),
        Command::Pair(args) => pair::run(&context, &args),
        Command::Unpair(args) => unpair::run(&context, &args),
        Command::Run(args) => run::run(&context, &args),
        Command::Outbox(args) => outbox::run(&context, &args),
        Command::Inbox(args) => inbox::run(&context, &args),
        Command::Paths(args) => paths::run(&context, &args),
        Command::Carry(args) => carry::run(&context, &args),
        Command::Mail(args) => mail::run(&context, &args),
        Command::Service(args) => service::run(&context, &args),
        Command::Repair(args) => repair::run(&context, &args),
        Command::Undo(args) => undo::run(&context, &args),
        Command::Doctor(args) => doctor::run(&context, &args),
        Command::Completions(_) | Command::Man(_) | Command::Sendmail(_) => unreachable!("handled above"),
    }
}

fn own_threads() -> usize {
    std::thread::available_parallelism().map_or(1, usize::from)
}

const EXIT_CODES: &str = "\
Exit codes: 0 done, 1 something for you to look at, 2 wrong usage, 3 conflicts wait (with --fail-on-conflicts), \
255 a bug of packetboat's.
State is kept in $PACKETBOAT_STATE_DIR, or $XDG_STATE_HOME/packetboat, or ~/.local/state/packetboat.";
