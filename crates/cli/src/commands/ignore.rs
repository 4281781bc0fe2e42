//! `packetboat ignore`: this device's own ignore patterns.

use std::fs;
use std::io;
use std::path::Path;
use std::process::ExitCode;

use clap::Args;
use packetboat_engine::ignore_rules::{IGNORE_FILE, IgnoreRules};
use packetboat_replica::lock::ReplicaLock;
use serde_json::json;

use super::FolderArg;
use crate::failure::Failure;
use crate::opening::Context;
use crate::state::write_whole;
use crate::text;

/// Show or change what this device leaves alone
///
/// Patterns are those of gitignore. The ones of `.packetboatignore` at the root of the folder travel with the vault; those
/// added here are this device's alone and have the last word, so that `!PATTERN` undoes one of the vault's.
/// What is ignored is neither sent, fetched nor deleted: what the vault holds of it stays there as it was.
#[derive(Debug, Args)]
#[command(after_help = JSON)]
pub(crate) struct IgnoreArgs {
    /// Patterns to add
    #[arg(value_name = "PATTERN")]
    patterns: Vec<String>,
    /// Take a pattern back
    #[arg(long, value_name = "PATTERN")]
    remove: Vec<String>,
    #[command(flatten)]
    folder: FolderArg,
}

/// Runs the command.
pub(crate) fn run(context: &Context, args: &IgnoreArgs) -> Result<ExitCode, Failure> {
    let (folder, entry) = context.bound(args.folder.folder.as_deref())?;
    let state = context.state.replica(&entry.replica);
    let mut own: Vec<String> = Vec::new();
    if args.patterns.is_empty() && args.remove.is_empty() {
        own.extend(lines(&state.read_ignore()?));
    } else {
        let _lock = ReplicaLock::acquire(&state.lock())?;
        own.extend(lines(&state.read_ignore()?));
        change(&mut own, &args.patterns, &args.remove)?;
        let bytes = own.iter().map(|line| format!("{line}\n")).collect::<String>();
        write_whole(&state.ignore(), bytes.as_bytes())
            .map_err(|error| Failure::new(format!("cannot write {}", text::path(&state.ignore()))).because(&error))?;
    }
    let vault = vault_patterns(&folder)?;
    context.ui.result(
        || json!({ "schema": 1, "vault": vault, "device": own }),
        || format!("{}{}", section("Of the vault (.packetboatignore):", &vault), section("Of this device:", &own)),
    );
    Ok(ExitCode::SUCCESS)
}

/// Adds and removes patterns; changes nothing where one of them is not right.
fn change(own: &mut Vec<String>, add: &[String], remove: &[String]) -> Result<(), Failure> {
    for pattern in remove {
        let before = own.len();
        own.retain(|line| line != pattern);
        if own.len() == before {
            let shown = text::plain(pattern.as_bytes());
            return Err(Failure::new(format!("{shown} is not among this device's patterns"))
                .hint("`packetboat ignore` lists them; those of the vault are in .packetboatignore"));
        }
    }
    for pattern in add {
        let sound = IgnoreRules::new("", pattern).is_ok_and(|(_, bad)| bad.is_empty());
        let empty = pattern.trim().is_empty() || pattern.starts_with('#');
        if !sound || empty || pattern.contains(['\n', '\r']) {
            return Err(Failure::new(format!("{} is not a pattern", text::plain(pattern.as_bytes())))
                .hint("patterns are those of gitignore, such as `*.o`, `/build/` or `!keep.o`"));
        }
        if !own.contains(pattern) {
            own.push(pattern.clone());
        }
    }
    Ok(())
}

fn vault_patterns(folder: &Path) -> Result<Vec<String>, Failure> {
    match fs::read_to_string(folder.join(IGNORE_FILE)) {
        Ok(text) => Ok(lines(&text).collect()),
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(Vec::new()),
        Err(error) => Err(Failure::new(format!("cannot read {IGNORE_FILE}")).because(&error)),
    }
}

fn lines(text: &str) -> impl Iterator<Item = String> + '_ {
    text.lines().filter(|line| !line.trim().is_empty() && !line.starts_with('#')).map(str::to_owned)
}

fn section(title: &str, patterns: &[String]) -> String {
    if patterns.is_empty() {
        return format!("{title}\n  none\n");
    }
    patterns.iter().fold(format!("{title}\n"), |mut shown, pattern| {
        shown.push_str(&format!("  {}\n", text::plain(pattern.as_bytes())));
        shown
    })
}

const JSON: &str = "JSON: vault, device: lists of patterns.";

#[cfg(test)]
mod tests {
    use super::*;

    fn strings(patterns: &[&str]) -> Vec<String> {
        patterns.iter().map(|&pattern| pattern.to_owned()).collect()
    }

    #[test]
    fn patterns_are_added_once_and_taken_back() {
        let mut own = strings(&["*.o"]);
        change(&mut own, &strings(&["*.o", "/b/"]), &[]).unwrap();
        assert_eq!(own, ["*.o", "/b/"]);
        change(&mut own, &[], &strings(&["*.o"])).unwrap();
        assert_eq!(own, ["/b/"]);
    }

    #[test]
    fn what_is_no_pattern_is_refused() {
        for bad in ["", " ", "# x", "a\nb", "a{b", "[z-a]"] {
            assert!(change(&mut Vec::new(), &strings(&[bad]), &[]).is_err(), "{bad:?}");
        }
        assert!(change(&mut Vec::new(), &[], &strings(&["*.o"])).is_err());
    }
}
