//! Watches a round: a progress bar on a terminal, lines with `-v`, and Ctrl-C.

use std::sync::Arc;
use std::sync::atomic::AtomicBool;
use std::time::Duration;

use indicatif::{ProgressBar, ProgressDrawTarget, ProgressStyle};
use packetboat_engine::ports::{Interrupt, Note, Observer, Phase};
use signal_hook::consts::{SIGINT, SIGTERM};

use crate::failure::Failure;
use crate::steps;
use crate::ui::Ui;

/// Shows a round to the user, and the user's wish to stop to the round.
pub(crate) struct Progress {
    ui: Ui,
    bar: ProgressBar,
    counts: Counts,
    tells_skipped: bool,
    stop: Arc<AtomicBool>,
}

/// What the bar's position counts.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
enum Counts {
    Files,
    Bytes,
}

impl Progress {
    /// A watcher. From now on the first Ctrl-C asks the round to stop, and the second ends the process.
    pub(crate) fn new(ui: Ui) -> Result<Self, Failure> {
        let stop = Arc::new(AtomicBool::new(false));
        for signal in [SIGINT, SIGTERM] {
            // The order matters: the first signal finds the flag unset and sets it, the second finds it set.
            signal_hook::flag::register_conditional_shutdown(signal, 128 + signal, Arc::clone(&stop))
                .and_then(|_| signal_hook::flag::register(signal, Arc::clone(&stop)))
                .map_err(|error| Failure::new("cannot listen for Ctrl-C").because(&error))?;
        }
        let bar = ProgressBar::hidden();
        Ok(Self { ui, bar, counts: Counts::Files, tells_skipped: ui.verbose, stop })
    }

    /// Tells what is skipped without `-v` and with `-q` too, for commands that no later round completes.
    pub(crate) fn telling_skipped(mut self) -> Self {
        self.tells_skipped = true;
        self
    }

    /// Takes the bar away.
    pub(crate) fn finish(&self) {
        self.bar.finish_and_clear();
    }

    fn line(&self, text: &str) {
        self.bar.suspend(|| self.ui.note(text));
    }
}

impl Observer for Progress {
    fn wants_steps(&self) -> bool {
        self.ui.verbose
    }

    fn phase(&mut self, phase: Phase, files: Option<u64>, bytes: Option<u64>) {
        let (counts, length) = match (files, bytes) {
            (_, Some(bytes)) if bytes > 0 => (Counts::Bytes, Some(bytes)),
            (files, _) => (Counts::Files, files.filter(|files| *files > 0)),
        };
        self.counts = counts;
        let template = match (counts, length) {
            (Counts::Bytes, _) => "{msg:<10} [{bar:30}] {bytes}/{total_bytes}, {eta} left",
            (Counts::Files, Some(_)) => "{msg:<10} [{bar:30}] {human_pos}/{human_len} files, {eta} left",
            (Counts::Files, None) => "{msg:<10} {spinner} {human_pos} files",
        };
        let name = match phase {
            Phase::Learn => "Learning",
            Phase::Scan => "Scanning",
            Phase::Store => "Storing",
            Phase::Apply => "Applying",
        };
        self.finish();
        // Where stderr is no terminal, nothing is drawn.
        let target = if self.ui.quiet { ProgressDrawTarget::hidden() } else { ProgressDrawTarget::stderr() };
        let style = ProgressStyle::with_template(template).unwrap_or_else(|_| ProgressStyle::default_bar());
        self.bar =
            ProgressBar::with_draw_target(length, target).with_style(style.progress_chars("=> ")).with_message(name);
        self.bar.enable_steady_tick(Duration::from_millis(120));
    }

    fn advance(&mut self, files: u64, bytes: u64) {
        self.bar.inc(match self.counts {
            Counts::Files => files,
            Counts::Bytes => bytes,
        });
    }

    fn note(&mut self, note: Note) {
        match note {
            Note::Warning { text } => self.line(&format!("Warning: {text}")),
            Note::Skipped { path, reason } if self.tells_skipped => {
                self.bar.suspend(|| eprintln!("skipped {path}: {reason}"));
            }
            Note::Step(step) if self.ui.verbose => self.line(&steps::text(&step)),
            Note::Skipped { .. } | Note::Step(_) => {}
        }
    }

    fn interrupt(&self) -> Interrupt {
        Interrupt::by(Arc::clone(&self.stop))
    }
}

impl Drop for Progress {
    fn drop(&mut self) {
        self.finish();
    }
}
