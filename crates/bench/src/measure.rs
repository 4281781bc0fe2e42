//! Running a program, and what it took: wall time, processor time, peak memory.

use std::io::Read;
use std::os::unix::process::ExitStatusExt;
use std::process::{Command, ExitStatus, Stdio};
use std::time::{Duration, Instant};

use wait4::Wait4;

use crate::Result;

/// What one run took.
#[derive(Clone, Debug, Default)]
pub(crate) struct Run {
    pub(crate) wall: Duration,
    /// User and system time of all its threads; hardly disturbed by what else the computer does.
    pub(crate) cpu: Duration,
    pub(crate) peak_bytes: u64,
    pub(crate) stdout: Vec<u8>,
}

impl Run {
    /// What two runs took one after the other.
    pub(crate) fn then(self, next: &Run) -> Run {
        Run {
            wall: self.wall + next.wall,
            cpu: self.cpu + next.cpu,
            peak_bytes: self.peak_bytes.max(next.peak_bytes),
            stdout: self.stdout,
        }
    }
}

/// Runs a program to its end and keeps what it prints; fails where it does.
pub(crate) fn run(command: &mut Command) -> Result<Run> {
    run_to(command, Stdio::piped())
}

/// Like [`run`], for a program whose output is not wanted.
pub(crate) fn run_quiet(command: &mut Command) -> Result<Run> {
    run_to(command, Stdio::null())
}

fn run_to(command: &mut Command, stdout: Stdio) -> Result<Run> {
    command.stdin(Stdio::null()).stdout(stdout).stderr(Stdio::piped());
    let name = command.get_program().to_string_lossy().into_owned();
    let begun = Instant::now();
    let mut child = command.spawn().map_err(|error| format!("{name} does not start: {error}"))?;
    let (stdout, stderr) = (child.stdout.take(), child.stderr.take());
    let reader = std::thread::spawn(move || read(stderr));
    let stdout = read(stdout);
    let used = child.wait4()?;
    let wall = begun.elapsed();
    let stderr = reader.join().expect("reading does not panic");
    if !used.status.success() {
        let said = String::from_utf8_lossy(if stderr.is_empty() { &stdout } else { &stderr }).into_owned();
        return Err(format!("{name} {}: {}", ended(used.status), said.trim()).into());
    }
    let (cpu, peak_bytes) = (used.rusage.utime + used.rusage.stime, used.rusage.maxrss);
    Ok(Run { wall, cpu, peak_bytes, stdout })
}

fn read(pipe: Option<impl Read>) -> Vec<u8> {
    let mut bytes = Vec::new();
    if let Some(mut pipe) = pipe {
        // What a pipe has lost, the exit status tells.
        let _ = pipe.read_to_end(&mut bytes);
    }
    bytes
}

fn ended(status: ExitStatus) -> String {
    match (status.code(), status.signal()) {
        (Some(code), _) => format!("ended with {code}"),
        (_, signal) => format!("was killed by signal {}", signal.unwrap_or_default()),
    }
}

/// All runs of one contestant.
#[derive(Clone, Debug, Default)]
pub(crate) struct Runs(pub(crate) Vec<Run>);

impl Runs {
    pub(crate) fn wall(&self) -> f64 {
        median(self.0.iter().map(|run| run.wall.as_secs_f64()))
    }

    pub(crate) fn cpu(&self) -> f64 {
        median(self.0.iter().map(|run| run.cpu.as_secs_f64()))
    }

    /// The greatest of all runs.
    pub(crate) fn peak_bytes(&self) -> u64 {
        self.0.iter().map(|run| run.peak_bytes).max().unwrap_or_default()
    }

    /// The fastest and the slowest.
    pub(crate) fn spread(&self) -> (f64, f64) {
        let walls = self.0.iter().map(|run| run.wall.as_secs_f64());
        (walls.clone().fold(f64::INFINITY, f64::min), walls.fold(0.0, f64::max))
    }
}

/// The middle of the values; of an even number, the mean of the two in the middle. Zero of none.
pub(crate) fn median(values: impl Iterator<Item = f64>) -> f64 {
    let mut values: Vec<f64> = values.collect();
    values.sort_by(f64::total_cmp);
    match values.len() {
        0 => 0.0,
        count if count % 2 == 1 => values[count / 2],
        count => (values[count / 2 - 1] + values[count / 2]) / 2.0,
    }
}
