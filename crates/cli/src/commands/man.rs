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
            let mut command = Cli::command().disable_help_subcommand(true);
            command.build();
            write_pages(command, directory)?;
        }
    }
    Ok(ExitCode::SUCCESS)
}

/// Writes the page of a command and those of its own commands.
fn write_pages(command: Command, directory: &Path) -> Result<(), Failure> {
    for own in command.get_subcommands().filter(|own| !own.is_hide_set()).cloned() {
        write_pages(own, directory)?;
    }
    let path = directory.join(Man::new(command.clone()).get_filename());
    fs::write(&path, page(command)?).map_err(|error| not_written(&path, &error))
}

fn page(command: Command) -> Result<Vec<u8>, Failure> {
    let mut page = Vec::new();
    Man::new(command)
        .manual("Packetboat")
        .render(&mut page)
        .and_then(|()| page.write_all(EXIT_STATUS.as_bytes()))
        .map_err(|error| Failure::internal("a manual page could not be made").because(&error))?;
    Ok(page)
}

fn not_written(path: &Path, error: &std::io::Error) -> Failure {
    Failure::new(format!("cannot write {}", text::path(path)))
        .because(error)
        .hint("look at who owns the directory, and whether its disk is full")
}

/// The same of all commands; what 1 means of one, its page says.
const EXIT_STATUS: &str = "\
.SH \"EXIT STATUS\"
.TP
\\fB0\\fR
What was asked for is done.
.TP
\\fB1\\fR
It was not done, or there is something for you to look at; standard error says what.
.TP
\\fB2\\fR
Wrong usage.
.TP
\\fB3\\fR
Conflicts wait, where \\fBsync \\-\\-fail\\-on\\-conflicts\\fR was asked for.
.TP
\\fB255\\fR
A bug of packetboat's.
";
