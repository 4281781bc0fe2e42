//! The user: what they are told, and what they are asked.

use std::io::{self, BufRead, IsTerminal, Write};

use serde_json::Value;

use crate::failure::Failure;
use crate::json;

/// How to talk to the user.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) struct Ui {
    /// Whether results are for scripts.
    pub(crate) json: bool,
    /// Whether only errors are told.
    pub(crate) quiet: bool,
    /// Whether every step is told.
    pub(crate) verbose: bool,
}

impl Ui {
    /// Says something in passing.
    pub(crate) fn note(&self, text: &str) {
        if !self.quiet {
            eprintln!("{text}");
        }
    }

    /// Warns of something that does not stop the command.
    pub(crate) fn warn(&self, text: &str) {
        self.note(&format!("Warning: {text}"));
    }

    /// Shows a result: `value` to scripts, `text` to people.
    pub(crate) fn result(&self, value: impl FnOnce() -> Value, text: impl FnOnce() -> String) {
        if self.json {
            print(&json::text(&value()));
        } else {
            print(&text());
        }
    }

    /// Whether somebody is there to answer.
    pub(crate) fn can_ask(&self) -> bool {
        io::stdin().is_terminal() && io::stderr().is_terminal()
    }

    /// Asks for a yes; anything else is a no.
    pub(crate) fn confirm(&self, question: &str) -> Result<bool, Failure> {
        eprint!("{question} [y/N] ");
        let mut answer = String::new();
        io::stdin()
            .lock()
            .read_line(&mut answer)
            .map_err(|error| Failure::new("cannot read an answer").because(&error))?;
        Ok(matches!(answer.trim().to_lowercase().as_str(), "y" | "yes"))
    }
}

/// Writes to stdout. A reader that went away, such as `head`, ends the process without a message.
pub(crate) fn print(text: &str) {
    let _ = Stdout.write_all(text.as_bytes());
    let _ = Stdout.flush();
}

/// Stdout, for whoever writes a lot.
pub(crate) struct Stdout;

impl Write for Stdout {
    fn write(&mut self, buffer: &[u8]) -> io::Result<usize> {
        io::stdout().write(buffer).map_err(end_quietly)
    }

    fn flush(&mut self) -> io::Result<()> {
        io::stdout().flush().map_err(end_quietly)
    }
}

/// Nobody reads any more. Locks go with the process, and the index is safe at any instant.
fn end_quietly(error: io::Error) -> io::Error {
    if error.kind() == io::ErrorKind::BrokenPipe {
        std::process::exit(0);
    }
    error
}
