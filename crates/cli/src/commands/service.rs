//! `packetboat service`: has systemd run the daemon for this user.

use std::path::PathBuf;
use std::process::{Command, ExitCode};

use clap::{Args, Subcommand};
use serde_json::json;

use crate::carrier::home_directory;
use crate::failure::Failure;
use crate::opening::Context;
use crate::state::write_whole;
use crate::text;

/// Have the daemon run whenever you are logged in
///
/// The service is a systemd unit of yours, not of the system: nothing needs root. `loginctl enable-linger` has it run
/// while you are logged out, too.
#[derive(Debug, Args)]
pub(crate) struct ServiceArgs {
    #[command(subcommand)]
    action: Action,
}

#[derive(Debug, Subcommand)]
enum Action {
    /// Write the unit, and start it now and with each login
    Install {
        /// Only write the unit
        #[arg(long)]
        no_start: bool,
    },
    /// Stop the service and remove the unit; mails, settings and accounts stay
    Uninstall,
    /// Show whether the service is installed and runs
    Status,
}

/// Runs the command.
pub(crate) fn run(context: &Context, args: &ServiceArgs) -> Result<ExitCode, Failure> {
    let unit = unit_path()?;
    match &args.action {
        Action::Install { no_start } => {
            let program = std::env::current_exe()?;
            std::fs::create_dir_all(unit.parent().unwrap_or(&unit))?;
            write_whole(&unit, unit_text(&program.to_string_lossy()).as_bytes())?;
            if !no_start {
                systemctl(&["daemon-reload"])?;
                systemctl(&["enable", "--now", UNIT])?;
            }
            let shown = text::path(&unit);
            context.ui.result(
                || json!({ "schema": 1, "unit": unit, "started": !no_start }),
                || format!("The service is installed as {shown}.\n"),
            );
        }
        Action::Uninstall => {
            if unit.exists() {
                // What does not run need not be stopped.
                let _not_running = systemctl(&["disable", "--now", UNIT]);
                std::fs::remove_file(&unit)?;
                let _without_systemd = systemctl(&["daemon-reload"]);
            }
            context.ui.result(|| json!({ "schema": 1 }), || "The service is not installed any more.\n".to_owned());
        }
        Action::Status => {
            let installed = unit.exists();
            let state = Command::new("systemctl").args(["--user", "is-active", UNIT]).output();
            let state =
                state.map(|output| String::from_utf8_lossy(&output.stdout).trim().to_owned()).unwrap_or_default();
            let state = if state.is_empty() { "unknown".to_owned() } else { state };
            context.ui.result(
                || json!({ "schema": 1, "installed": installed, "state": state }),
                || match installed {
                    true => format!("The service is installed, and {state}.\n"),
                    false => "The service is not installed.\n".to_owned(),
                },
            );
        }
    }
    Ok(ExitCode::SUCCESS)
}

fn unit_path() -> Result<PathBuf, Failure> {
    let config = std::env::var_os("XDG_CONFIG_HOME").map(PathBuf::from).filter(|path| path.is_absolute());
    let config = config.or_else(|| Some(home_directory()?.join(".config")));
    let config = config.ok_or_else(|| Failure::new("cannot tell where units are: HOME is not set"))?;
    Ok(config.join("systemd/user").join(UNIT))
}

fn unit_text(program: &str) -> String {
    // systemd takes % and backslashes for its own.
    let program = program.replace('\\', "\\\\").replace('%', "%%").replace('"', "\\\"");
    format!(
        "[Unit]\nDescription=Packetboat carries mail\nAfter=network.target\n\n\
         [Service]\nType=notify\nNotifyAccess=main\nExecStart=\"{program}\" run\nExecReload=kill -HUP $MAINPID\n\
         Restart=on-failure\nRestartSec=5\nTimeoutStopSec=30\n\n\
         [Install]\nWantedBy=default.target\n"
    )
}

fn systemctl(arguments: &[&str]) -> Result<(), Failure> {
    let failed = || Failure::new(format!("systemctl --user {} failed", arguments.join(" ")));
    let hint = "without systemd, start `packetboat run` by what your system has; `--no-start` only writes the unit";
    let output = Command::new("systemctl").arg("--user").args(arguments).output();
    let output = output.map_err(|error| failed().because(&error).hint(hint))?;
    if output.status.success() {
        return Ok(());
    }
    let said = String::from_utf8_lossy(&output.stderr).trim().to_owned();
    Err(Failure::new(format!("systemctl --user {}: {said}", arguments.join(" "))).hint(hint))
}

const UNIT: &str = "packetboat.service";

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn odd_places_of_the_program_are_written_as_systemd_reads_them() {
        assert!(unit_text("/opt/50% \"x\"/packetboat").contains("ExecStart=\"/opt/50%% \\\"x\\\"/packetboat\" run"));
    }
}
