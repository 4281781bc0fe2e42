//! The error with which a simulated file system or storage stands still once it has crashed.
//!
//! The program under test unwinds with it like with any other error; the test then looks what became of the world.

use std::io;

use packetboat_core::store::StoreError;
use thiserror::Error;

/// The simulated computer has stopped: nothing more happens in this world.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Error)]
#[error("simulated crash")]
pub struct Crash;

impl Crash {
    /// The marker as an I/O error.
    pub fn error() -> io::Error {
        io::Error::other(Crash)
    }
}

/// Whether an error is the marker of a simulated crash.
pub fn is_crash(error: &io::Error) -> bool {
    error.get_ref().is_some_and(|inner| inner.is::<Crash>())
}

/// Whether a storage's error is the marker of a simulated crash.
pub fn is_store_crash(error: &StoreError) -> bool {
    matches!(error, StoreError::Io { source, .. } if is_crash(source))
}

/// Whether an error, or any of its causes, is the marker of a simulated crash.
pub fn was_crash(error: &(dyn std::error::Error + 'static)) -> bool {
    let mut at = Some(error);
    while let Some(error) = at {
        // An I/O error passes over its own inner error when asked for its source.
        if error.is::<Crash>() || error.downcast_ref::<io::Error>().is_some_and(is_crash) {
            return true;
        }
        at = error.source();
    }
    false
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_crash_is_recognised_beneath_other_errors_and_nothing_else_is() {
        let store = StoreError::Io { action: "read", name: "tips/a".into(), source: Crash::error() };
        assert!(is_store_crash(&store) && was_crash(&store));
        assert!(!is_crash(&io::Error::other("simulated crash")));
        assert!(!was_crash(&StoreError::Full));
    }
}
