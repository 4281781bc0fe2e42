//! A replica as its user sees it: make or join a vault, synchronise, look, restore, settle.
//!
//! Everything that touches the outside is passed in as [`Parts`], so the same code runs on a real disk and in a simulation.

use std::sync::Arc;

use packetboat_core::garbage::Retention;
use packetboat_core::ids::{Counter, DeviceId, Dot, VaultId};
use packetboat_core::marker::Argon2Cost;
use packetboat_core::name::RelPath;
use packetboat_core::store::Store;
use packetboat_replica::fs::Fs;
use packetboat_replica::index::Index;

use crate::Keys;
use crate::absorb::Sent;
use crate::consistency::Check;
use crate::ports::{Clock, Entropy};
use crate::prune::VaultSize;

/// What a replica is made of.
pub struct Parts {
    /// The folder.
    pub fs: Arc<dyn Fs>,
    /// The index beside it.
    pub index: Index,
    /// The intermediary.
    pub store: Arc<dyn Store>,
    /// A name for the intermediary that stays the same from run to run, for what is recorded about it.
    pub place: String,
    /// The time.
    pub clock: Box<dyn Clock>,
    /// Randomness.
    pub entropy: Box<dyn Entropy>,
    /// Choices.
    pub settings: Settings,
}

/// Choices that change how a round runs, never what it leads to.
#[derive(Clone, Debug)]
pub struct Settings {
    /// Worker threads; with 1 everything happens on the caller's thread in a fixed order.
    pub threads: usize,
    /// How many bytes of small contents a round puts inside its packets; beyond that all go to packs.
    pub inline_bytes: usize,
    /// How many objects a round takes in at once where nothing of the folder is recorded yet.
    pub portion: usize,
    /// Ignore patterns of this device alone, in gitignore syntax.
    pub ignore_overlay: String,
    /// How much is checked after each round.
    pub check: Check,
    /// What one attempt at a new passphrase costs.
    pub passphrase_cost: Argon2Cost,
    /// After how many days unheard of a device is retired, unless this replica was told otherwise; `None` for never.
    pub retire_after_days: Option<u64>,
    /// Whether rounds let go by themselves what the vault does not keep, at most once a day. Whoever does not still answers
    /// others, and still deletes what it was asked to let go once all have answered.
    pub lets_go_by_itself: bool,
}

/// After how many days unheard of a device is retired, unless told otherwise.
pub const RETIRE_AFTER_DAYS: u64 = 180;

impl Default for Settings {
    fn default() -> Self {
        Self {
            threads: 1,
            inline_bytes: 256 * 1024,
            portion: 50_000,
            ignore_overlay: String::new(),
            check: Check::default(),
            passphrase_cost: Argon2Cost::DEFAULT,
            retire_after_days: Some(RETIRE_AFTER_DAYS),
            lets_go_by_itself: false,
        }
    }
}

/// One device's copy of a vault.
pub struct Replica {
    pub(crate) parts: Parts,
    pub(crate) keys: Keys,
}

/// What a round may do without asking.
#[derive(Clone, Copy, Default, Debug)]
pub struct SyncOptions {
    /// Publish the removal of most of the folder.
    pub confirm_deletes: bool,
}

/// What a round did.
#[derive(Clone, Default, Debug)]
pub struct Report {
    /// What went up.
    pub sent: Sent,
    /// What came down.
    pub received: Received,
    /// Packets published and packs stored.
    pub published: crate::builder::Totals,
    /// Packets of others learned.
    pub packets_learned: u64,
    /// Files, directories and symlinks in the folder, ignored ones not counted.
    pub objects: u64,
    /// Eight characters that are equal on two devices exactly when both have learned the same.
    pub state: String,
    /// Conflicts that are waiting to be settled.
    pub conflicts: u64,
    /// Things that are not as they should be and do not stop the round.
    pub problems: u64,
    /// Sockets, pipes and devices in the folder, which are never synchronised.
    pub specials: u64,
    /// What was missing or damaged at the intermediary and was put there again.
    pub repaired: crate::repair::Repaired,
    /// Conflicts that were settled by merging, for files that the vault's users named.
    pub merged: u64,
    /// Devices whose published state went back behind what was seen before.
    pub rolled_back: Vec<DeviceId>,
    /// The conflict that a user settled, and how.
    pub settled: Option<Settled>,
}

/// A conflict that a user settled.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Settled {
    /// The path at which the winner stood.
    pub path: RelPath,
    /// What was kept.
    pub kept: Kept,
}

/// What was kept of a conflict.
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum Kept {
    /// One side.
    One {
        /// The name of the device that wrote it.
        device: String,
        /// Whether this device did.
        mine: bool,
    },
    /// Every side, each as a file of its own at one of these paths.
    All(Vec<RelPath>),
    /// One content made of both.
    Merged,
}

/// Counts of what a round brought to disk.
#[derive(Clone, Copy, Default, PartialEq, Eq, Debug)]
pub struct Received {
    /// New files, directories and symlinks.
    pub created: u64,
    /// Changed contents.
    pub edited: u64,
    /// Moves and renames.
    pub moved: u64,
    /// Removals.
    pub deleted: u64,
    /// Changed permissions and extended attributes.
    pub attributes: u64,
    /// Bytes of files written.
    pub bytes_written: u64,
    /// Items left for the next round.
    pub waiting: u64,
    /// Conflict copies that came to this disk.
    pub conflicts: u64,
}

/// One line of a dry run.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct PlannedStep {
    /// Which way it goes.
    pub direction: Direction,
    /// What would be done.
    pub action: Action,
    /// Where, as people see it.
    pub path: RelPath,
    /// Where to, for a move.
    pub to: Option<RelPath>,
    /// Why, in words.
    pub cause: String,
}

/// Which way a step goes.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Direction {
    /// From this disk to the vault.
    Up,
    /// From the vault to this disk.
    Down,
    /// Neither: it is left alone.
    Stay,
}

/// What a step does.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Action {
    /// A new object.
    Create,
    /// New bytes.
    Edit,
    /// Another place.
    Move,
    /// Other permissions or extended attributes.
    Attributes,
    /// Gone.
    Delete,
    /// Ignored by a rule.
    Ignore,
    /// Not synchronised, or not materialised here.
    Skip,
}

/// How a replica stands.
#[derive(Clone, Debug)]
pub struct Status {
    /// The vault.
    pub vault: VaultId,
    /// This device.
    pub device: DeviceId,
    /// Its name.
    pub device_name: String,
    /// Where the intermediary is.
    pub intermediary: String,
    /// Whether nothing waits in either direction, as far as could be seen.
    pub in_step: bool,
    /// Whether the intermediary could be looked at.
    pub intermediary_reachable: Result<(), String>,
    /// When a round last ended with everything in step, in milliseconds since 1970 UTC.
    pub last_in_step: Option<i64>,
    /// Local changes that a round would publish.
    pub to_send: u64,
    /// Changes of others that a round would fetch or apply.
    pub to_receive: u64,
    /// Conflicts waiting.
    pub conflicts: u64,
    /// Files, directories and symlinks in step.
    pub objects: u64,
    /// What is not materialised here or otherwise wrong: kind, where, why.
    pub problems: Vec<(String, String, String)>,
    /// Objects at the intermediary that were found missing or damaged and are not put back yet.
    pub wanted: u64,
    /// Where so much is gone from the folder that a round would stop: how many objects are gone, and of how many.
    pub braked: Option<(u64, u64)>,
    /// The vault's devices.
    pub devices: Vec<DeviceInfo>,
    /// Eight characters that are equal on two devices exactly when both have learned the same.
    pub state: String,
    /// How long the vault keeps its past.
    pub retention: Retention,
    /// What the vault takes at the intermediary; none where that was not looked at yet.
    pub size: Option<VaultSize>,
}

/// A member of the vault.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct DeviceInfo {
    /// Its id.
    pub device: DeviceId,
    /// What people call it.
    pub name: String,
    /// Whether it is this one.
    pub is_this: bool,
    /// When its last packet was made by its clock, in milliseconds since 1970 UTC; none where that was let go.
    pub last_heard: Option<i64>,
    /// How many packets of it are known.
    pub packets: Counter,
    /// "active", "retired" or "revoked".
    pub standing: &'static str,
}

/// One line of a log.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct LogLine {
    /// The packet.
    pub packet: Dot,
    /// The name of the device that made it.
    pub device: String,
    /// When, by that device's clock, in milliseconds since 1970 UTC; none where that was let go.
    pub time: Option<i64>,
    /// What was done, in words.
    pub text: String,
    /// The path concerned, as it was, where the log is of one path.
    pub path: Option<RelPath>,
    /// The size in bytes, where there is one.
    pub size: Option<u64>,
    /// Whether this is what stands now.
    pub current: bool,
}

/// A point in a vault's history.
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum At {
    /// All packets made at or before this time, by their devices' clocks, in milliseconds since 1970 UTC.
    Time(i64),
    /// This packet and all that its device had learned before it.
    Packet(Dot),
}

/// A conflict.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Conflict {
    /// The path at which the winner stands.
    pub path: RelPath,
    /// The contents that stand against each other, the winner first.
    pub sides: Vec<Side>,
}

/// One side of a conflict.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Side {
    /// Where it is shown.
    pub path: RelPath,
    /// The version.
    pub version: Dot,
    /// The name of the device that made it.
    pub device: String,
    /// When, in seconds since 1970 UTC; none where that is not known.
    pub time: Option<i64>,
    /// Size in bytes.
    pub size: u64,
    /// Whether this device made it.
    pub mine: bool,
}

/// How to settle a conflict.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Keep {
    /// What this device wrote (or, where it wrote neither, what stands at the path).
    Mine,
    /// What another device wrote.
    Theirs,
    /// Both: the others become files of their own under the names they are shown under.
    Both,
}

/// What a verification found.
#[derive(Clone, Default, Debug)]
pub struct VerifyReport {
    /// Objects looked at.
    pub objects: u64,
    /// Bytes read.
    pub bytes: u64,
    /// What is wrong.
    pub faults: Vec<Fault>,
    /// Objects that nothing known refers to; no faults.
    pub orphans: Vec<String>,
    /// Whether this device was at several places of the vault: past versions that are missing here may lie at another.
    pub has_several_places: bool,
}

/// An object at the intermediary that is not as it should be.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Fault {
    /// Its name.
    pub object: String,
    /// What is wrong with it.
    pub what: String,
    /// The paths whose present content or place needs it.
    pub paths: Vec<RelPath>,
    /// The past versions whose content needs it.
    pub versions: Vec<PastVersion>,
    /// Who can put it back.
    pub remedy: Remedy,
    /// What is to be asked for, where others may have it.
    pub(crate) wanted: Option<packetboat_core::wanted::Wanted>,
}

/// A content that a file once had.
#[derive(Clone, PartialEq, Eq, PartialOrd, Ord, Debug)]
pub struct PastVersion {
    /// Where the file stands now, or stood last.
    pub path: RelPath,
    /// The version.
    pub version: Dot,
    /// When it was made, by its device's clock, in milliseconds since 1970 UTC.
    pub time: i64,
}

/// Who can put an object back.
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum Remedy {
    /// This device, with its next round.
    Here,
    /// Of these devices, by name, whichever still holds it; this one asks for it with its next round.
    Others(Vec<String>),
    /// Nobody: no other device is in the vault, and this one does not hold it.
    Lost,
}

/// What a repair did.
#[derive(Clone, Debug)]
pub struct RepairReport {
    /// What was found before.
    pub found: VerifyReport,
    /// What the round did that followed.
    pub round: Report,
    /// What is still wrong after it.
    pub left: Vec<Fault>,
}

impl Replica {
    /// Gives back what the replica is made of; what was not committed is undone.
    pub fn into_parts(mut self) -> Parts {
        while self.parts.index.in_transaction() {
            if self.parts.index.rollback().is_err() {
                break;
            }
        }
        self.parts
    }

    /// The replica's index, to look at.
    pub fn index(&self) -> &Index {
        &self.parts.index
    }

    /// Changes how rounds run from now on.
    pub fn settings_mut(&mut self) -> &mut Settings {
        &mut self.parts.settings
    }
}
