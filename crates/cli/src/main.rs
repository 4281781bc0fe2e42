//! The binary `packetboat`: reads arguments, wires the engine to disk, storage and terminal, and tells what happened.
//!
//! Libraries below never touch the terminal, the environment or the home directory; all of that is here.
//! Each command has a file in [`commands`]. Whatever goes wrong ends as a [`failure::Failure`], which is shown once, here.
//! Data goes to stdout, messages to stderr.

mod at;
mod binding;
mod carrier;
mod commands;
mod failure;
mod folder_marker;
mod hints;
mod json;
mod member;
mod opening;
mod paths;
mod places;
mod progress;
mod recognise;
mod registry;
mod secrets;
mod state;
mod steps;
mod summary;
mod text;
mod ui;
mod way;
mod world;

use std::ffi::{OsStr, OsString};
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::path::Path;
use std::process::ExitCode;

use clap::Parser;

use crate::commands::Cli;
use crate::failure::Failure;

/// The arguments, as if they had been given to `packetboat`, where the binary was called in the place of another program.
///
/// What sendmail is given is its own, down to the `-q` and `-v` that mean something else to every other command.
fn arguments(mut given: Vec<OsString>) -> Vec<OsString> {
    let name = given.first().and_then(|program| Path::new(program).file_name()).map(OsString::from);
    let in_place_of = match name.as_deref().and_then(OsStr::to_str) {
        Some("sendmail") => &["sendmail", "--"][..],
        Some("mailq") => &["sendmail", "--", "-bp"],
        _ => {
            let command = given.iter().skip(1).position(|argument| !argument.as_encoded_bytes().starts_with(b"-"));
            if let Some(at) = command.filter(|at| given[at + 1] == "sendmail") {
                given.insert(at + 2, OsString::from("--"));
            }
            return given;
        }
    };
    given.splice(1..1, in_place_of.iter().map(OsString::from));
    given
}

fn main() -> ExitCode {
    let cli = Cli::parse_from(arguments(std::env::args_os().collect()));
    let as_json = cli.global.json;
    // What a server says is no fault of this program, and is told as an error of the account.
    packetboat_mail::imap::keep_parser_panics_quiet();
    let outcome = catch_unwind(AssertUnwindSafe(|| commands::run(cli)));
    let outcome = outcome
        .unwrap_or_else(|_| Err(Failure::internal("packetboat met a state that it does not understand, and stopped")));
    match outcome {
        Ok(code) => code,
        Err(failure) => {
            eprint!("{failure}");
            if as_json {
                ui::print(&json::text(&failure.to_json()));
            }
            failure.exit_code()
        }
    }
}
