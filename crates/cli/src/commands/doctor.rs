//! `packetboat doctor`: one page about all that could be in the way, and what to do about each.
//!
//! It looks and changes nothing. Each finding is in order, worth a look, or wrong; the last two say what to do.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::ExitCode;
use std::time::UNIX_EPOCH;

use clap::Args;
use packetboat_core::tip::TIPS_FOLDER;
use packetboat_engine::doctor::Vitals;
use packetboat_engine::ports::Clock;
use packetboat_engine::replica::Status;
use packetboat_replica::index::Index;
use packetboat_replica::lock::ReplicaLock;
use rustix::fs::{Access, StatVfsMountFlags, access, statvfs};
use rustix::process::{Resource, getrlimit};
use serde_json::{Value, json};

use super::FolderPlace;
use crate::failure::Failure;
use crate::hints::part;
use crate::opening::{Context, Session, open_fs, vanished};
use crate::places::{NO_MARKER, look_for_known_vault, lost_its_marker, no_marker_advice};
use crate::recognise::{Sighting, Standing as Known};
use crate::registry::Entry;
use crate::text;
use crate::way::names_companion;
use crate::world::SystemClock;

/// Look at folder, index, intermediary, clock and limits, and say what to do
///
/// It changes nothing, and says what it can of a folder that is not there and of an index that is damaged.
/// The exit code is 1 where something needs doing.
/// `packetboat verify --deep` reads all that lies at the intermediary; this does not.
#[derive(Debug, Args)]
#[command(after_help = JSON)]
pub(crate) struct DoctorArgs {
    #[command(flatten)]
    folder: FolderPlace,
}

/// How something stands.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
enum Standing {
    InOrder,
    /// Nothing is broken, and it may be one day.
    Look,
    Wrong,
}

/// One thing that was looked at.
struct Finding {
    what: &'static str,
    standing: Standing,
    says: String,
    advice: Option<String>,
}

/// Runs the command.
pub(crate) fn run(context: &Context, args: &DoctorArgs) -> Result<ExitCode, Failure> {
    let seen = context.find_folder(args.folder.path())?;
    let mut patient = Patient::find(context, args, &seen)?;
    let mut findings = Vec::new();
    patient.ask(&seen, &mut findings);
    if patient.is_there {
        folder(&seen.path, patient.status.as_ref(), &mut findings);
    }
    findings.append(&mut patient.of_index);
    findings.extend(room("state", context.state.root()));
    patient.intermediary(&mut findings);
    findings.push(clock(patient.place.as_deref(), patient.status.as_ref()));
    limits(patient.vitals.as_ref(), &mut findings);
    findings.push(in_order("version", format!("packetboat {}", env!("CARGO_PKG_VERSION"))));
    let needs_doing = findings.iter().any(|finding| finding.standing == Standing::Wrong);
    context.ui.result(|| to_json(&findings), || to_text(&findings));
    Ok(if needs_doing { ExitCode::FAILURE } else { ExitCode::SUCCESS })
}

/// A replica, as far as it can be opened and asked.
struct Patient<'a> {
    context: &'a Context,
    /// What the registry remembers; nothing where it forgot the folder.
    entry: Option<Entry>,
    /// The intermediary's directory, where it is known.
    place: Option<PathBuf>,
    /// Whether the folder is there.
    is_there: bool,
    /// Whether something is left of the index.
    has_index: bool,
    session: Option<Session>,
    status: Option<Status>,
    vitals: Option<Vitals>,
    of_index: Vec<Finding>,
}

impl<'a> Patient<'a> {
    /// Refuses folders that are no replica of this computer.
    fn find(context: &'a Context, args: &DoctorArgs, seen: &Sighting) -> Result<Self, Failure> {
        let (entry, is_there, has_index) = match context.standing(seen)? {
            Known::Bound(entry) | Known::Moved(entry) => (Some(entry), true, true),
            Known::Vanished(entry) => {
                let has_index = context.state.replica(&entry.replica).index().exists();
                (Some(entry), false, has_index)
            }
            Known::Lost(_, entry) => (entry, true, false),
            Known::Unbound | Known::Copy(_) => {
                let (_, entry) = context.bound(args.folder.path())?;
                (Some(entry), true, true)
            }
        };
        let place = entry.as_ref().map(|entry| entry.intermediary.canonical.clone());
        let (session, status, vitals, of_index) = (None, None, None, Vec::new());
        Ok(Self { context, entry, place, is_there, has_index, session, status, vitals, of_index })
    }

    /// Opens the replica and asks it; what speaks against that is a finding.
    fn ask(&mut self, seen: &Sighting, findings: &mut Vec<Finding>) {
        if !self.is_there {
            findings.push(of_failure("folder", &vanished(seen)));
        }
        let Some(entry) = self.entry.clone().filter(|_| self.has_index) else {
            let place = self.place.as_deref().map_or("INTERMEDIARY".to_owned(), text::argument);
            let advice = format!(
                "run `packetboat sync {} {place}`: it goes on as a new device, and no file is touched",
                text::argument(&seen.path)
            );
            self.of_index.push(wrong("index", "what this computer knew about the folder is lost".to_owned(), advice));
            return;
        };
        let mut unopened = None;
        if self.is_there {
            match self.context.open_entry(&seen.path, &entry) {
                Ok(session) => return self.ask_replica(session, &entry, seen, findings),
                Err(failure) if names_companion(&entry.intermediary.canonical).is_some() => {
                    findings.push(of_failure("intermediary", &failure));
                }
                // Of a folder that cannot be read, its own finding tells.
                Err(failure) => unopened = Some(failure).filter(|_| open_fs(&seen.path).is_ok()),
            }
        }
        let of_index = match self.look_at_index(&entry) {
            Ok(()) => unopened.map_or_else(sound_index, |failure| of_failure("index", &failure)),
            Err(failure) => {
                let give_up = || self.context.state.replica(&entry.replica).give_up(&seen.path, &entry);
                of_failure("index", &failure.of_index(give_up))
            }
        };
        self.of_index.push(of_index);
    }

    fn ask_replica(&mut self, mut session: Session, entry: &Entry, seen: &Sighting, findings: &mut Vec<Finding>) {
        let give_up = self.context.state.replica(&entry.replica).give_up(&seen.path, entry);
        let mut failures = Vec::new();
        match session.replica.status() {
            Ok(mut status) => {
                if let Err(tried) = &mut status.intermediary_reachable {
                    *tried = session.unreached(tried);
                }
                self.status = Some(status);
            }
            Err(error) => failures.push((part(&error), Failure::of(&error))),
        }
        match session.replica.vitals() {
            Ok(vitals) => self.vitals = Some(vitals),
            Err(error) => failures.push((part(&error), Failure::of(&error))),
        }
        let damage = self.vitals.as_ref().and_then(|vitals| vitals.index_damage.as_ref());
        if let Some(reason) = damage {
            self.of_index.push(wrong("index", text::plain(reason.as_bytes()), give_up.clone()));
        }
        for (part, failure) in failures {
            let finding = of_failure(part, &failure.of_index(|| give_up.clone()));
            match part {
                "index" if self.of_index.is_empty() => self.of_index.push(finding),
                // One line is enough for it.
                "index" => {}
                _ => findings.push(finding),
            }
        }
        if self.of_index.is_empty() {
            self.of_index.push(sound_index());
        }
        self.session = Some(session);
    }

    /// Reads every page of an index that no replica can be opened with.
    fn look_at_index(&self, entry: &Entry) -> Result<(), Failure> {
        let state = self.context.state.replica(&entry.replica);
        let _lock = ReplicaLock::acquire(&state.lock())?;
        let index = Index::open(&state.index())?;
        Ok(index.check()?)
    }

    fn intermediary(&self, findings: &mut Vec<Finding>) {
        let Some(place) = &self.place else { return };
        let is_folder = names_companion(place).is_none();
        let shown = match &self.session {
            Some(session) => text::path(&session.intermediary),
            None => text::path(place),
        };
        let reached = match (&self.status, &self.entry) {
            (Some(status), _) => status.intermediary_reachable.clone(),
            (None, Some(entry)) if is_folder => {
                look_for_known_vault(place, entry.vault).map(drop).map_err(|not_here| not_here.to_string())
            }
            _ => return,
        };
        if let Err(reason) = reached {
            let says = format!("{shown} cannot be reached: {}", text::plain(reason.as_bytes()));
            findings.push(wrong("intermediary", says, "is the stick or share mounted? Nothing is lost meanwhile"));
            return;
        }
        findings.push(in_order(
            "intermediary",
            match &self.vitals {
                Some(vitals) => format!(
                    "{shown}: {} in {}, {}",
                    text::bytes(vitals.pack_bytes),
                    text::count(vitals.packs, "pack", "packs"),
                    text::count(vitals.packets, "packet", "packets"),
                ),
                None => format!("{shown}: the vault is there"),
            },
        ));
        if place.is_dir() {
            if let Err(error) = access(place, Access::WRITE_OK) {
                let says = format!("cannot be written: {error}");
                findings.push(wrong(
                    "intermediary",
                    says,
                    "look at who owns its files, and whether it is mounted read-only: nothing goes up until then",
                ));
            }
            findings.extend(room("intermediary", place));
            if lost_its_marker(place) {
                let holds_marker = |session: &Session| session.replica.holds_marker().unwrap_or(false);
                let holds_marker = self.session.as_ref().is_some_and(holds_marker);
                findings.push(wrong("intermediary", NO_MARKER.to_owned(), no_marker_advice(holds_marker)));
            }
        }
        if let Some(vitals) = self.vitals.as_ref().filter(|vitals| vitals.wanted > 0) {
            let says = text::count(vitals.wanted, "object is missing or damaged", "objects are missing or damaged");
            let mut advice = "run `packetboat repair`; it says what each concerns".to_owned();
            if vitals.has_several_places {
                advice.push_str(". Past versions may lie at another place of the vault");
            }
            findings.push(wrong("intermediary", says, advice));
        }
    }
}

fn in_order(what: &'static str, says: String) -> Finding {
    Finding { what, standing: Standing::InOrder, says, advice: None }
}

fn look(what: &'static str, says: String, advice: &str) -> Finding {
    Finding { what, standing: Standing::Look, says, advice: Some(advice.to_owned()) }
}

fn wrong(what: &'static str, says: String, advice: impl Into<String>) -> Finding {
    Finding { what, standing: Standing::Wrong, says, advice: Some(advice.into()) }
}

fn of_failure(what: &'static str, failure: &Failure) -> Finding {
    Finding { what, standing: Standing::Wrong, says: failure.line(), advice: failure.advice().map(str::to_owned) }
}

fn sound_index() -> Finding {
    in_order("index", "every page is sound".to_owned())
}

fn folder(folder: &Path, status: Option<&Status>, findings: &mut Vec<Finding>) {
    let path = text::path(folder);
    findings.push(match access(folder, Access::READ_OK | Access::WRITE_OK | Access::EXEC_OK) {
        Ok(()) => in_order(
            "folder",
            match status {
                Some(status) => format!("{path}, {}", text::count(status.objects, "object", "objects")),
                None => path,
            },
        ),
        Err(error) => wrong(
            "folder",
            format!("{path} cannot be read and written: {error}"),
            "look at who owns it, and whether its disk is mounted read-only",
        ),
    });
    findings.extend(room("folder", folder));
    let Some(status) = status else { return };
    if let Some(left) = status.devices.iter().find(|device| device.is_this && device.standing != "active") {
        let says = format!("this device was {}", left.standing);
        findings.push(wrong("device", says, "`packetboat sync` says what follows from that"));
    }
    if let Some((gone, known)) = status.braked {
        let says = format!("{gone} of {known} files are gone, so `packetboat sync` stops");
        let advice = "if you deleted them, add --confirm-deletes; if not, look whether the disk is mounted";
        findings.push(wrong("folder", says, advice));
    }
    if status.conflicts > 0 {
        let says = text::count(status.conflicts, "conflict waits", "conflicts wait");
        findings.push(wrong("conflicts", says, "see `packetboat conflicts`"));
    }
    // Whoever wrote the rule wants it so.
    let (ignored, problems): (Vec<_>, Vec<_>) = status.problems.iter().partition(|(kind, ..)| kind == "ignored");
    let (left_out, problems): (Vec<_>, Vec<_>) =
        problems.into_iter().partition(|(kind, _, why)| kind == "skipped" && why.contains("sockets, pipes"));
    if !problems.is_empty() {
        let says = text::count(problems.len() as u64, "object is", "objects are");
        let says = format!("{says} not here, or not as they should be");
        findings.push(wrong("files", says, "`packetboat status` lists them, with the reason of each"));
    }
    if !left_out.is_empty() {
        let says = text::count(left_out.len() as u64, "socket, pipe or device is", "sockets, pipes and devices are");
        findings.push(in_order("left out", format!("{says} never synchronised")));
    }
    if !ignored.is_empty() {
        let says = text::count(ignored.len() as u64, "object is", "objects are");
        findings.push(in_order(
            "left out",
            format!("{says} ignored here and not on this disk: `packetboat status` lists them"),
        ));
    }
    let waits = status.to_send + status.to_receive;
    if status.intermediary_reachable.is_ok() && waits > 0 && status.braked.is_none() {
        let says = format!("{} to send, {} to receive", status.to_send, status.to_receive);
        findings.push(wrong("in step", says, "run `packetboat sync`"));
    }
}

/// Whether a disk has room left, and may be written.
fn room(what: &'static str, path: &Path) -> Option<Finding> {
    let disk = statvfs(path).ok()?;
    if disk.f_flag.contains(StatVfsMountFlags::RDONLY) {
        return Some(wrong(what, "its disk is mounted read-only".to_owned(), "mount it to write"));
    }
    let free = disk.f_bavail.saturating_mul(disk.f_frsize);
    let says = format!("{} free on its disk", text::bytes(free));
    Some(match free {
        ..LEAST_ROOM => wrong(what, says, "free some space: a round that finds none stops and loses nothing"),
        LEAST_ROOM..LITTLE_ROOM => look(what, says, "free some space before a round needs it"),
        _ => in_order(what, says),
    })
}

/// This clock against what other devices wrote, and against the intermediary's.
fn clock(place: Option<&Path>, status: Option<&Status>) -> Finding {
    let now = SystemClock.now_ms();
    let shown = text::time(now);
    let advice = "set the clock; no file is decided by it, only dates in logs and conflict names are wrong";
    let others = status.iter().flat_map(|status| &status.devices).filter(|device| !device.is_this);
    let ahead = others.filter_map(|device| Some((device.last_heard?, &device.name))).max();
    if let Some((heard, name)) = ahead.filter(|(heard, _)| *heard > now + CLOCK_TOLERANCE_MS) {
        let name = text::plain(name.as_bytes());
        let says = format!("{shown} here, and \"{name}\" wrote at {}", text::time(heard));
        return look("clock", says, advice);
    }
    let newest = place.and_then(|place| newest_file(&place.join(TIPS_FOLDER)));
    match newest.filter(|newest| *newest > now + CLOCK_TOLERANCE_MS) {
        Some(newest) => {
            let says = format!("{shown} here, and the intermediary has a file of {}", text::time(newest));
            look("clock", says, advice)
        }
        None => in_order("clock", shown),
    }
}

/// When a file of a directory was last written, in milliseconds since 1970 UTC.
fn newest_file(directory: &Path) -> Option<i64> {
    let times = fs::read_dir(directory).ok()?.flatten().filter_map(|entry| {
        let since = entry.metadata().ok()?.modified().ok()?.duration_since(UNIX_EPOCH).ok()?;
        i64::try_from(since.as_millis()).ok()
    });
    times.max()
}

fn limits(vitals: Option<&Vitals>, findings: &mut Vec<Finding>) {
    let files = getrlimit(Resource::Nofile).current.unwrap_or(u64::MAX);
    findings.push(match files {
        ..LEAST_FILES => look(
            "limits",
            format!("{files} open files"),
            "raise `ulimit -n` to 1024: a round with many threads needs it",
        ),
        u64::MAX => in_order("limits", "any number of open files".to_owned()),
        _ => in_order("limits", format!("{files} open files")),
    });
    // A folder is watched by directory; without enough watches it is scanned, which costs time and misses nothing.
    let Some(vitals) = vitals else { return };
    let watches = fs::read_to_string("/proc/sys/fs/inotify/max_user_watches").ok();
    if let Some(watches) = watches.and_then(|text| text.trim().parse::<u64>().ok()) {
        let directories = text::count(vitals.directories, "directory", "directories");
        let says = format!("{watches} inotify watches for {directories}");
        findings.push(match vitals.directories.saturating_mul(2) > watches {
            true => {
                look("limits", says, "raise fs.inotify.max_user_watches with sysctl where programs watch the folder")
            }
            false => in_order("limits", says),
        });
    }
}

fn to_text(findings: &[Finding]) -> String {
    let width = findings.iter().map(|finding| finding.what.len()).max().unwrap_or_default();
    let mut shown = String::new();
    for Finding { what, standing, says, advice } in findings {
        let mark = match standing {
            Standing::InOrder => "ok   ",
            Standing::Look => "look ",
            Standing::Wrong => "WRONG",
        };
        shown.push_str(&format!("{mark}  {what:<width$}  {says}\n"));
        if let Some(advice) = advice {
            shown.push_str(&format!("       {:<width$}  -> {advice}\n", ""));
        }
    }
    let wrong = findings.iter().filter(|finding| finding.standing == Standing::Wrong).count() as u64;
    shown
        + &match wrong {
            0 => "Nothing needs doing.\n".to_owned(),
            wrong => format!("{}.\n", text::count(wrong, "thing needs doing", "things need doing")),
        }
}

fn to_json(findings: &[Finding]) -> Value {
    let finding = |Finding { what, standing, says, advice }: &Finding| {
        let standing = match standing {
            Standing::InOrder => "ok",
            Standing::Look => "look",
            Standing::Wrong => "wrong",
        };
        json!({ "what": what, "standing": standing, "says": says, "advice": advice })
    };
    let needs_doing = findings.iter().any(|finding| finding.standing == Standing::Wrong);
    json!({
        "schema": 1,
        "needs_doing": needs_doing,
        "findings": findings.iter().map(finding).collect::<Vec<_>>(),
    })
}

/// A disk with less is as good as full.
const LEAST_ROOM: u64 = 64 * 1024 * 1024;
const LITTLE_ROOM: u64 = 1024 * 1024 * 1024;
const LEAST_FILES: u64 = 256;
const CLOCK_TOLERANCE_MS: i64 = 10 * 60_000;
const JSON: &str = "JSON: needs_doing, findings (what, standing: \"ok\", \"look\" or \"wrong\", says, advice).";
