//! `packetboat man`: the manual pages.

use std::fs;
use std::io::Write;
use std::path::{Path, PathBuf};
use std::process::ExitCode;

use clap::{Args, Command, CommandFactory};
use clap_mangen::Man;

use super::Cli;
use crate::failure::Failure;
use crate::text;
use crate::ui::Stdout;

/// Write the manual page to standard output, or all pages into a directory
///
/// Read it with `packetboat man | man -l -`, or install the pages where `man` looks for them, for example:
/// `packetboat man --all ~/.local/share/man/man1`.
#[derive(Debug, Args)]
pub(crate) struct ManArgs {
    /// Write a page for each command into this directory, which is made if it is missing
    #[arg(long, value_name = "DIRECTORY")]
    all: Option<PathBuf>,
}

/// Runs the command.
pub(crate) fn run(args: &ManArgs) -> Result<ExitCode, Failure> {
    match &args.all {
        None => {
            let page = page(Cli::command())?;
            let _ = Stdout.write_all(&page);
        }
        Some(directory) => {
            fs::create_dir_all(directory).map_err(|error| not_written(directory, &error))?;
            clap_mangen::generate_to(Cli::command(), directory).map_err(|error| not_written(directory, &error))?;
        }
    }
    Ok(ExitCode::SUCCESS)
}

fn page(command: Command) -> Result<Vec<u8>, Failure> {
    let mut page = Vec::new();
    Man::new(command)
        .manual("Packetboat")
        .render(&mut page)
        .map_err(|error| Failure::internal("a manual page could not be made").because(&error))?;
    Ok(page)
}

fn not_written(path: &Path, error: &std::io::Error) -> Failure {
    Failure::new(format!("cannot write {}", text::path(path)))
        .because(error)
        .hint("look at who owns the directory, and whether its disk is full")
}
