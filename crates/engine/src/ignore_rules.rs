//! Which objects are left alone: gitignore patterns from the vault's own `.packetboatignore` and a local overlay.
//!
//! The vault's file lies at the root of the folder and is synchronised like any other; the overlay is this device's alone
//! and is consulted after it, so that it has the last word.

use std::path::Path;

use ignore::Match;
use ignore::gitignore::{Gitignore, GitignoreBuilder};
use packetboat_core::name::RelPath;

/// The rules in force in one round.
pub struct IgnoreRules {
    rules: Gitignore,
}

impl IgnoreRules {
    /// Rules from the text of the vault's file and of the overlay; returns also the lines that are no patterns.
    pub fn new(vault: &str, overlay: &str) -> (Self, Vec<String>) {
        let mut builder = GitignoreBuilder::new("");
        let mut bad = Vec::new();
        for line in vault.lines().chain(overlay.lines()) {
            if builder.add_line(None, line).is_err() {
                bad.push(line.to_owned());
            }
        }
        match builder.build() {
            Ok(rules) => (Self { rules }, bad),
            Err(_) => (Self::none(), vec![vault.to_owned()]),
        }
    }

    /// No rules.
    pub fn none() -> Self {
        Self { rules: Gitignore::empty() }
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
        let (rules, bad) = IgnoreRules::new("*.o\n/build/\n", "!keep.o\n");
        assert!(bad.is_empty());
        assert!(rules.ignores(&path("a/x.o"), false));
        assert!(!rules.ignores(&path("a/keep.o"), false));
        assert!(rules.ignores(&path("build"), true));
        assert!(!rules.ignores(&path("build"), false));
        assert!(rules.covers(&path("build/x.c"), false));
    }
}
