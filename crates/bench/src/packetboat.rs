//! One device of a vault: a folder, its state, and the commands that are measured.

use std::path::{Path, PathBuf};
use std::process::Command;

use serde_json::Value;

use crate::Result;
use crate::lab::Lab;
use crate::measure::{Run, run};

/// A folder bound, or to be bound, to a vault.
pub(crate) struct Device {
    pub(crate) folder: PathBuf,
    pub(crate) vault: PathBuf,
    state: PathBuf,
    name: String,
    program: PathBuf,
}

/// A finished round: what it took, and what it said.
pub(crate) struct Round {
    pub(crate) run: Run,
    said: Value,
}

impl Device {
    /// A device that keeps its state in the directory `state`.
    pub(crate) fn new(lab: &Lab, folder: &Path, vault: &Path, state: &Path) -> Self {
        let name = state.file_name().map_or("device".into(), |name| name.to_string_lossy().into_owned());
        Self {
            folder: folder.to_owned(),
            vault: vault.to_owned(),
            state: state.to_owned(),
            name,
            program: lab.packetboat.clone(),
        }
    }

    /// Runs `packetboat sync FOLDER VAULT`.
    pub(crate) fn sync(&self) -> Result<Round> {
        self.sync_under(&[])
    }

    /// The same where many files were deleted on purpose.
    pub(crate) fn sync_deleting(&self) -> Result<Round> {
        let mut command = Command::new(&self.program);
        command.args(["sync", "--json", "--confirm-deletes"]).arg(&self.folder);
        self.round(command)
    }

    /// Runs `packetboat prune`, which must delete something.
    pub(crate) fn prune(&self, keep: &str) -> Result<Round> {
        let mut command = Command::new(&self.program);
        command.args(["prune", "--json", "--keep", keep]).arg(&self.folder);
        let pruned = self.spoken(command)?;
        if pruned.number("/deleted") == 0 {
            return Err(format!("nothing was deleted: {}", pruned.said).into());
        }
        Ok(pruned)
    }

    /// The same as the arguments of another program, which may observe it.
    pub(crate) fn sync_under(&self, observer: &[&str]) -> Result<Round> {
        let mut command = match observer.split_first() {
            Some((program, arguments)) => {
                let mut command = Command::new(program);
                command.args(arguments).arg(&self.program);
                command
            }
            None => Command::new(&self.program),
        };
        command.args(["sync", "--json", "--name", &self.name]).arg(&self.folder).arg(&self.vault);
        self.round(command)
    }

    fn spoken(&self, mut command: Command) -> Result<Round> {
        command.env("PACKETBOAT_STATE_DIR", &self.state).env("PACKETBOAT_PASSPHRASE", PASSPHRASE);
        let run = run(&mut command)?;
        let said = serde_json::from_slice(&run.stdout)
            .map_err(|error| format!("packetboat said no JSON: {error}: {}", String::from_utf8_lossy(&run.stdout)))?;
        Ok(Round { run, said })
    }

    fn round(&self, command: Command) -> Result<Round> {
        let round = self.spoken(command)?;
        if round.said["in_step"] != true || round.number("/problems") != 0 {
            return Err(format!("the round is not in step: {}", round.said).into());
        }
        Ok(round)
    }
}

impl Round {
    /// A number of the JSON that the round ended with.
    ///
    /// # Panics
    /// Where there is none: then the program's output has changed, and figures would be wrong.
    pub(crate) fn number(&self, pointer: &str) -> u64 {
        let found = self.said.pointer(pointer).and_then(Value::as_u64);
        found.unwrap_or_else(|| panic!("the JSON has no number {pointer}: {}", self.said))
    }

    /// `1 listing, 2 reads, 3 writes`.
    pub(crate) fn requests(&self) -> String {
        let [listings, reads, writes, removals] =
            ["listings", "reads", "writes", "removals"].map(|kind| self.number(&format!("/requests/{kind}")));
        let removals = if removals > 0 { format!(", {removals} removals") } else { String::new() };
        format!("{listings} listings, {reads} reads, {writes} writes{removals}")
    }

    pub(crate) fn listings(&self) -> u64 {
        self.number("/requests/listings")
    }

    pub(crate) fn reads(&self) -> u64 {
        self.number("/requests/reads")
    }

    pub(crate) fn writes(&self) -> u64 {
        self.number("/requests/writes")
    }

    pub(crate) fn bytes_sent(&self) -> u64 {
        self.number("/requests/bytes_sent")
    }
}

/// Files beneath a directory with their sizes, by path.
pub(crate) fn objects(dir: &Path) -> Result<std::collections::BTreeMap<PathBuf, u64>> {
    let mut found = std::collections::BTreeMap::new();
    let mut open = vec![dir.to_owned()];
    while let Some(dir) = open.pop() {
        for entry in std::fs::read_dir(dir)? {
            let entry = entry?;
            let metadata = entry.metadata()?;
            if metadata.is_dir() {
                open.push(entry.path());
            } else {
                found.insert(entry.path(), metadata.len());
            }
        }
    }
    Ok(found)
}

pub(crate) const PASSPHRASE: &str = "a passphrase for benchmarks";
