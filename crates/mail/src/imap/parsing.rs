//! The parser's panics: caught where it is asked, and not printed as if the program had met a fault of its own.
//!
//! The codec panics on some words that the guard lets pass, such as a code that a letter beyond ASCII follows at once, or
//! a date that is NIL. [`parsing`] makes an error of that. The process's panic hook runs before anything is caught,
//! though, so a server could fill the log of a daemon with backtraces; [`keep_parser_panics_quiet`] leaves those out.
//!
//! What is left out is narrow: a panic in a thread that asks the parser at that moment, at a place that is not in the code
//! of this project. Every other one is told as before.

use std::cell::Cell;
use std::panic::{AssertUnwindSafe, PanicHookInfo};
use std::pin::Pin;
use std::task::{Context, Poll};

use futures_util::FutureExt as _;

use super::session::ImapError;

/// Waits for what the parser makes of a server's words.
///
/// The session is of no use after a panic, and the error ends it; nothing of it is looked at again.
pub(super) async fn parsing<T>(reading: impl Future<Output = T>) -> Result<T, ImapError> {
    let asked = Asking { reading: Box::pin(reading) };
    AssertUnwindSafe(asked).catch_unwind().await.map_err(|_| ImapError::Unreadable)
}

/// Has the process tell of no panic that the parser of servers' words meets and that is caught; to be called once.
pub fn keep_parser_panics_quiet() {
    let tell = std::panic::take_hook();
    std::panic::set_hook(Box::new(move |panic| match is_parsers(panic) {
        true => tracing::debug!("the parser stumbled over what a server said"),
        false => tell(panic),
    }));
}

fn is_parsers(panic: &PanicHookInfo<'_>) -> bool {
    let place = panic.location().map_or("", |location| location.file());
    // As this workspace is built, and as its packages are from a registry.
    let is_ours = place.starts_with("crates/") || place.contains("packetboat-");
    ASKING.get() && !is_ours
}

thread_local! {
    /// Whether this thread asks the parser now.
    static ASKING: Cell<bool> = const { Cell::new(false) };
}

/// A future whose polls are known to the panic hook.
struct Asking<F> {
    reading: Pin<Box<F>>,
}

impl<F: Future> Future for Asking<F> {
    type Output = F::Output;

    fn poll(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<F::Output> {
        let _until_polled = Until::new();
        self.reading.as_mut().poll(context)
    }
}

/// Says that this thread asks the parser, until it is dropped, by a panic too.
struct Until {
    before: bool,
}

impl Until {
    fn new() -> Self {
        Self { before: ASKING.replace(true) }
    }
}

impl Drop for Until {
    fn drop(&mut self) {
        ASKING.set(self.before);
    }
}
