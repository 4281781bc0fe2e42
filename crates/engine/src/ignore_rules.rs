//! Which objects are left alone: gitignore patterns from the vault's own `.packetboatignore` and a local overlay.
//!
//! The vault's file lies at the root of the folder and is synchronised like any other; the overlay is this device's alone
//! and is consulted after it, so that it has the last word.

use std::path::Path;

use ignore::Match;
use ignore::gitignore::{Gitignore, GitignoreBuilder};
use packetboat_core::name::RelPath;
use thiserror::Error;

/// The rules in force in one round.
pub struct IgnoreRules {
    rules: Gitignore,
    awaited: bool,
}

/// A line that is no pattern; the other lines hold.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct BadLine {
    /// Whether it stands in this device's own overlay.
    pub overlay: bool,
    /// Its number, from 1.
    pub number: usize,
    /// What it says.
    pub text: String,
    /// What is wrong with it.
    pub reason: String,
}

/// All rules together are more than can be matched against.
#[derive(Debug, Error)]
#[error("the ignore rules cannot be used together")]
pub struct UnusableRules(#[from] ignore::Error);

impl IgnoreRules {
    /// Rules from the text of the vault's file and of the overlay; returns also the lines that are no patterns.
    pub fn new(vault: &str, overlay: &str) -> Result<(Self, Vec<BadLine>), UnusableRules> {
        let mut builder = GitignoreBuilder::new("");
        let mut bad = Vec::new();
        for (overlay, text) in [(false, vault), (true, overlay)] {
            for (at, line) in text.lines().enumerate() {
                match check_line(line) {
                    Ok(()) => drop(builder.add_line(None, line)?),
                    Err(error) => {
                        let reason = reason_of(&error);
                        bad.push(BadLine { overlay, number: at + 1, text: line.to_owned(), reason });
                    }
                }
            }
        }
        Ok((Self { rules: builder.build()?, awaited: false }, bad))
    }

    /// No rules.
    pub fn none() -> Self {
        Self { rules: Gitignore::empty(), awaited: false }
    }

    /// The same rules, of a file that is gone or empty: whether it stays so is for the next round to see.
    pub(crate) fn while_awaited(self) -> Self {
        Self { awaited: true, ..self }
    }

    /// Whether this name, in the root or elsewhere, is that of a file whose rules hold although it is gone or empty.
    pub(crate) fn awaits(&self, in_root: bool, name: &[u8]) -> bool {
        self.awaited && in_root && name == IGNORE_FILE.as_bytes()
    }

    /// Whether there are none.
    pub fn is_empty(&self) -> bool {
        self.rules.is_empty()
    }

    /// Whether a rule covers this object itself. What lies in an ignored directory is not asked about.
    pub fn ignores(&self, path: &RelPath, directory: bool) -> bool {
        !self.is_empty() && matches!(self.rules.matched(as_path(path), directory), Match::Ignore(_))
    }

    /// Whether a rule covers this object or a directory above it.
    pub fn covers(&self, path: &RelPath, directory: bool) -> bool {
        !self.is_empty() && matches!(self.rules.matched_path_or_any_parents(as_path(path), directory), Match::Ignore(_))
    }
}

/// Whether a line is a pattern by itself, a comment or empty.
///
/// Each is compiled alone first, since a set of patterns of which one is bad cannot be compiled at all.
fn check_line(line: &str) -> Result<(), ignore::Error> {
    let mut alone = GitignoreBuilder::new("");
    alone.add_line(None, line)?;
    alone.build().map(drop)
}

/// What is wrong with a pattern, without the pattern.
fn reason_of(error: &ignore::Error) -> String {
    match error {
        ignore::Error::Glob { err, .. } => err.clone(),
        ignore::Error::WithLineNumber { err, .. } | ignore::Error::WithPath { err, .. } => reason_of(err),
        error => error.to_string(),
    }
}

fn as_path(path: &RelPath) -> &Path {
    use std::os::unix::ffi::OsStrExt;
    Path::new(std::ffi::OsStr::from_bytes(path.as_bytes()))
}

/// The name of the file with the vault's own rules, at the root of the folder.
pub const IGNORE_FILE: &str = ".packetboatignore";

#[cfg(test)]
mod tests {
    use super::*;

    fn path(text: &str) -> RelPath {
        RelPath::new(text.as_bytes()).unwrap()
    }

    #[test]
    fn the_overlay_has_the_last_word() {
        let (rules, bad) = IgnoreRules::new("*.o\n/build/\n", "!keep.o\n").unwrap();
        assert!(bad.is_empty());
        assert!(rules.ignores(&path("a/x.o"), false));
        assert!(!rules.ignores(&path("a/keep.o"), false));
        assert!(rules.ignores(&path("build"), true));
        assert!(!rules.ignores(&path("build"), false));
        assert!(rules.covers(&path("build/x.c"), false));
    }

    #[test]
    fn a_bad_line_is_named_by_its_number_and_the_others_hold() {
        let vault = "# rules\n*.o\n\nfile{a,\n[z-a]\n/build/\n";
        let (rules, bad) = IgnoreRules::new(vault, "ok\na[z-a]\n").unwrap();
        let lines: Vec<_> = bad.iter().map(|bad| (bad.overlay, bad.number, bad.text.as_str())).collect();
        assert_eq!(lines, [(false, 4, "file{a,"), (false, 5, "[z-a]"), (true, 2, "a[z-a]")]);
        assert!(bad.iter().all(|bad| !bad.reason.is_empty() && !bad.reason.contains(&bad.text)), "{bad:?}");
        assert!(rules.ignores(&path("x.o"), false) && rules.ignores(&path("build"), true));
        assert!(rules.ignores(&path("ok"), false) && !rules.ignores(&path("file"), false));
    }
}
