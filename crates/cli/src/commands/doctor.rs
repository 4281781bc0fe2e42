//! `packetboat doctor`: one page about all that could be in the way, and what to do about each.
//!
//! It looks and changes nothing. Each finding is in order, worth a look, or wrong; the last two say what to do.

use std::fs;
use std::path::Path;
use std::process::ExitCode;
use std::time::UNIX_EPOCH;

use clap::Args;
use packetboat_core::tip::TIPS_FOLDER;
use packetboat_engine::doctor::Vitals;
use packetboat_engine::ports::Clock;
use packetboat_engine::replica::Status;
use rustix::fs::{Access, StatVfsMountFlags, access, statvfs};
use rustix::process::{Resource, getrlimit};
use serde_json::{Value, json};

use super::FolderPlace;
use crate::failure::Failure;
use crate::opening::{Context, Session};
use crate::places::lost_its_marker;
use crate::text;
use crate::world::SystemClock;

/// Look at folder, index, intermediary, clock and limits, and say what to do
///
/// It changes nothing. The exit code is 1 where something needs doing.
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
    advice: Option<&'static str>,
}

/// Runs the command.
pub(crate) fn run(context: &Context, args: &DoctorArgs) -> Result<ExitCode, Failure> {
    let mut session = context.open(args.folder.path())?;
    let status = session.replica.status()?;
    let vitals = session.replica.vitals()?;
    let mut findings = Vec::new();
    folder(&session, &status, &mut findings);
    index(context, &vitals, &mut findings);
    intermediary(&session, &status, &vitals, &mut findings);
    findings.push(clock(&session, &status));
    limits(&vitals, &mut findings);
    findings.push(in_order("version", format!("packetboat {}", env!("CARGO_PKG_VERSION"))));
    let needs_doing = findings.iter().any(|finding| finding.standing == Standing::Wrong);
    context.ui.result(|| to_json(&findings), || to_text(&findings));
    Ok(if needs_doing { ExitCode::FAILURE } else { ExitCode::SUCCESS })
}

fn in_order(what: &'static str, says: String) -> Finding {
    Finding { what, standing: Standing::InOrder, says, advice: None }
}

fn look(what: &'static str, says: String, advice: &'static str) -> Finding {
    Finding { what, standing: Standing::Look, says, advice: Some(advice) }
}

fn wrong(what: &'static str, says: String, advice: &'static str) -> Finding {
    Finding { what, standing: Standing::Wrong, says, advice: Some(advice) }
}

fn folder(session: &Session, status: &Status, findings: &mut Vec<Finding>) {
    let path = text::path(&session.folder);
    let objects = text::count(status.objects, "object", "objects");
    findings.push(match access(&session.folder, Access::READ_OK | Access::WRITE_OK | Access::EXEC_OK) {
        Ok(()) => in_order("folder", format!("{path}, {objects}")),
        Err(error) => wrong(
            "folder",
            format!("{path} cannot be read and written: {error}"),
            "look at who owns it, and whether its disk is mounted read-only",
        ),
    });
    findings.extend(room("folder", &session.folder));
    if status.conflicts > 0 {
        let says = text::count(status.conflicts, "conflict waits", "conflicts wait");
        findings.push(wrong("conflicts", says, "see `packetboat conflicts`"));
    }
    let (left_out, problems): (Vec<_>, Vec<_>) =
        status.problems.iter().partition(|(kind, _, why)| kind == "skipped" && why.contains("sockets, pipes"));
    if !problems.is_empty() {
        let says = text::count(problems.len() as u64, "object is", "objects are");
        let says = format!("{says} not here, or not as they should be");
        findings.push(wrong("files", says, "`packetboat status` lists them, with the reason of each"));
    }
    if !left_out.is_empty() {
        let says = text::count(left_out.len() as u64, "socket, pipe or device is", "sockets, pipes and devices are");
        findings.push(in_order("left out", format!("{says} never synchronised")));
    }
    let waits = status.to_send + status.to_receive;
    if status.intermediary_reachable.is_ok() && waits > 0 {
        let says = format!("{} to send, {} to receive", status.to_send, status.to_receive);
        findings.push(wrong("in step", says, "run `packetboat sync`"));
    }
}

fn index(context: &Context, vitals: &Vitals, findings: &mut Vec<Finding>) {
    findings.push(match &vitals.index_damage {
        None => in_order("index", "every page is sound".to_owned()),
        Some(reason) => wrong(
            "index",
            text::plain(reason.as_bytes()),
            "move this replica's directory out of packetboat's state directory and run `packetboat sync FOLDER \
             INTERMEDIARY`: the folder goes on as a new device, and no file is touched",
        ),
    });
    findings.extend(room("state", context.state.root()));
}

fn intermediary(session: &Session, status: &Status, vitals: &Vitals, findings: &mut Vec<Finding>) {
    let shown = text::path(&session.intermediary);
    if let Err(reason) = &status.intermediary_reachable {
        let says = format!("{shown} cannot be reached: {}", text::plain(reason.as_bytes()));
        findings.push(wrong("intermediary", says, "is the stick or share mounted? Nothing is lost meanwhile"));
        return;
    }
    let size = format!(
        "{shown}: {} in {}, {}",
        text::bytes(vitals.pack_bytes),
        text::count(vitals.packs, "pack", "packs"),
        text::count(vitals.packets, "packet", "packets"),
    );
    findings.push(in_order("intermediary", size));
    if session.intermediary.is_dir() {
        if let Err(error) = access(&session.intermediary, Access::WRITE_OK) {
            let says = format!("cannot be written: {error}");
            findings.push(wrong(
                "intermediary",
                says,
                "look at who owns its files, and whether it is mounted read-only: nothing goes up until then",
            ));
        }
        findings.extend(room("intermediary", &session.intermediary));
        if lost_its_marker(&session.intermediary) {
            let remedy = match session.replica.holds_marker() {
                Ok(true) => "run `packetboat sync`, which puts this device's copy back",
                _ => "run `packetboat key passphrase`, which writes it anew",
            };
            let says = "the vault's marker is missing or damaged: no other device can join".to_owned();
            findings.push(wrong("intermediary", says, remedy));
        }
    }
    if vitals.wanted > 0 {
        let says = text::count(vitals.wanted, "object is missing or damaged", "objects are missing or damaged");
        findings.push(wrong("intermediary", says, "run `packetboat repair`; it says what each concerns"));
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
fn clock(session: &Session, status: &Status) -> Finding {
    let now = SystemClock.now_ms();
    let shown = text::time(now);
    let advice = "set the clock; no file is decided by it, only dates in logs and conflict names are wrong";
    let ahead = status.devices.iter().filter(|device| !device.is_this).max_by_key(|device| device.last_heard);
    if let Some(device) = ahead.filter(|device| device.last_heard > now + CLOCK_TOLERANCE_MS) {
        let name = text::plain(device.name.as_bytes());
        let says = format!("{shown} here, and \"{name}\" wrote at {}", text::time(device.last_heard));
        return look("clock", says, advice);
    }
    let newest = newest_file(&session.intermediary.join(TIPS_FOLDER));
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

fn limits(vitals: &Vitals, findings: &mut Vec<Finding>) {
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
