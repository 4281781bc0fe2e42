//! What a user reads when something went wrong: `Error:`, then `Caused by:`, then `Hint:`.

use std::error::Error;
use std::fmt;
use std::process::ExitCode;

use serde_json::{Value, json};

use crate::hints;
use crate::places::NotHere;

/// Why a command ended without doing what it was asked, in words for people.
#[derive(Clone, PartialEq, Eq, Debug)]
pub(crate) struct Failure {
    message: String,
    causes: Vec<String>,
    hint: Option<String>,
    code: u8,
}

impl Failure {
    /// A failure that the user can do something about.
    pub(crate) fn new(message: impl Into<String>) -> Self {
        Self { message: message.into(), causes: Vec::new(), hint: None, code: USER }
    }

    /// A failure that is a bug of ours.
    pub(crate) fn internal(message: impl Into<String>) -> Self {
        Self {
            message: message.into(),
            causes: Vec::new(),
            hint: Some("this is a bug; nothing was lost. Please report what was printed here".to_owned()),
            code: INTERNAL,
        }
    }

    /// A failure that is told by an error and its sources.
    pub(crate) fn of(error: &(dyn Error + 'static)) -> Self {
        // What was tried there matters to nobody.
        if let Some(not_here) = NotHere::behind(error) {
            return not_here.failure();
        }
        let mut failure = match hints::is_internal(error) {
            true => Self::internal(error.to_string()),
            false => Self::new(error.to_string()),
        };
        failure.push_causes(error.source());
        failure.hint = hints::hint(error).or(failure.hint);
        failure
    }

    /// Adds an error and its sources as what caused this; its hint is taken where there is none yet.
    pub(crate) fn because(mut self, error: &(dyn Error + 'static)) -> Self {
        self.push_causes(Some(error));
        self.hint = self.hint.or_else(|| hints::hint(error));
        if hints::is_internal(error) {
            self.code = INTERNAL;
        }
        self
    }

    /// Says what to do next.
    pub(crate) fn hint(mut self, hint: impl Into<String>) -> Self {
        self.hint = Some(hint.into());
        self
    }

    /// Says what to do about an index that cannot be used, where it is that and its place is known.
    pub(crate) fn of_index(mut self, hint: impl FnOnce() -> String) -> Self {
        if self.hint.as_deref() == Some(hints::DAMAGED_INDEX) {
            self.hint = Some(hint());
        }
        self
    }

    /// What went wrong, in one line.
    pub(crate) fn line(&self) -> String {
        self.causes.iter().fold(self.message.clone(), |line, cause| line + ": " + cause)
    }

    /// What to do next.
    pub(crate) fn advice(&self) -> Option<&str> {
        self.hint.as_deref()
    }

    /// With which code the process ends.
    pub(crate) fn exit_code(&self) -> ExitCode {
        ExitCode::from(self.code)
    }

    /// The same for scripts.
    pub(crate) fn to_json(&self) -> Value {
        json!({ "schema": 1, "error": { "message": self.message, "causes": self.causes, "hint": self.hint } })
    }

    fn push_causes(&mut self, first: Option<&(dyn Error + 'static)>) {
        let mut next = first;
        while let Some(error) = next {
            let text = error.to_string();
            if self.causes.last().unwrap_or(&self.message) != &text {
                self.causes.push(text);
            }
            next = error.source();
        }
    }
}

impl fmt::Display for Failure {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        writeln!(f, "Error: {}", self.message)?;
        for cause in &self.causes {
            writeln!(f, "Caused by: {cause}")?;
        }
        match &self.hint {
            Some(hint) => writeln!(f, "Hint: {hint}"),
            None => Ok(()),
        }
    }
}

impl<E: Error + 'static> From<E> for Failure {
    fn from(error: E) -> Self {
        Self::of(&error)
    }
}

const USER: u8 = 1;
const INTERNAL: u8 = 255;

#[cfg(test)]
mod tests {
    use std::io;

    use packetboat_core::store::StoreError;
    use packetboat_engine::error::SyncError;

    use super::*;

    #[test]
    fn a_failure_reads_as_error_causes_and_hint() {
        let source = io::Error::from(io::ErrorKind::PermissionDenied);
        let error = SyncError::Store(StoreError::Denied { name: "tips/aa".to_owned(), source });
        let text = Failure::from(error).to_string();
        let lines: Vec<_> = text.lines().collect();
        assert_eq!(lines[0], "Error: the intermediary refuses access to tips/aa");
        assert_eq!(lines[1], "Caused by: permission denied");
        assert!(lines[2].starts_with("Hint: "), "{text}");
    }
}
