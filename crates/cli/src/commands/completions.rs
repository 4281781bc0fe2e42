//! `packetboat completions`: completion scripts for shells.

use std::process::ExitCode;

use clap::{Args, CommandFactory};
use clap_complete::Shell;

use super::Cli;
use crate::ui::Stdout;

/// Write a completion script for a shell to standard output
///
/// Put it where the shell looks for completions, for example:
/// `packetboat completions bash > ~/.local/share/bash-completion/completions/packetboat`.
#[derive(Debug, Args)]
pub(crate) struct CompletionsArgs {
    /// Shell that the script is for
    shell: Shell,
}

/// Runs the command.
pub(crate) fn run(args: &CompletionsArgs) -> ExitCode {
    let mut script = Vec::new();
    clap_complete::generate(args.shell, &mut Cli::command(), "packetboat", &mut script);
    let _ = std::io::Write::write_all(&mut Stdout, &script);
    ExitCode::SUCCESS
}
