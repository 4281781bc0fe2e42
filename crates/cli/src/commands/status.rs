//! `packetboat status`: whether the folder is in step, and if not, why.

use std::process::ExitCode;

use clap::Args;
use packetboat_engine::ports::Clock;
use packetboat_engine::replica::{DeviceInfo, Status};
use serde_json::{Map, Value, json};

use super::FolderPlace;
use super::devices::device_json;
use super::prune::{keep_json, kept};
use crate::failure::Failure;
use crate::json::insert_path;
use crate::opening::{Context, Session};
use crate::places::{NO_MARKER, no_marker_advice};
use crate::text;
use crate::world::SystemClock;

/// Show whether the folder is in step, and what waits
///
/// It scans the folder and asks the intermediary what is new, and changes nothing.
/// If something waits, `packetboat sync` brings it in step.
/// Conflicts are listed by `packetboat conflicts` and settled by `packetboat resolve` or with ordinary tools.
/// What is not materialised here is safe in the vault and on other devices; the reason says what keeps it from this disk.
///
/// The state number is the same on two devices exactly when both have learned the same: compare it to be sure that the
/// intermediary shows both the same history.
/// How long past versions are kept, `packetboat prune` says and sets.
#[derive(Debug, Args)]
#[command(after_help = JSON)]
pub(crate) struct StatusArgs {
    #[command(flatten)]
    folder: FolderPlace,
}

/// Runs the command.
pub(crate) fn run(context: &Context, args: &StatusArgs) -> Result<ExitCode, Failure> {
    let mut session = context.open(args.folder.path())?;
    let mut status = session.replica.status()?;
    if let Err(tried) = &mut status.intermediary_reachable {
        *tried = session.unreached(tried);
    }
    context.ui.result(|| to_json(&status, &session), || to_text(&status, &session));
    Ok(ExitCode::SUCCESS)
}

fn to_text(status: &Status, session: &Session) -> String {
    let now = SystemClock.now_ms();
    let mut lines = vec![
        format!("Folder        {}", text::path(&session.folder)),
        format!("Intermediary  {}", text::path(&session.intermediary)),
        format!("Device        {} ({})", text::plain(status.device_name.as_bytes()), status.device.short()),
        format!("State         {}", status.state),
        String::new(),
    ];
    if let Some(left) = status.devices.iter().find(|device| device.is_this && device.standing != "active") {
        lines.push(format!("This device was {}; `packetboat sync` says what follows from that.", left.standing));
    }
    let objects = text::count(status.objects, "object", "objects");
    match (&status.intermediary_reachable, status.in_step) {
        (Err(reason), _) => {
            lines.push(format!("The intermediary cannot be reached: {reason}."));
            lines.push("  What others did is not known.".to_owned());
        }
        (Ok(()), true) => lines.push(format!("In step: {objects}.")),
        (Ok(()), false) => lines.push("Not in step: run `packetboat sync`.".to_owned()),
    }
    if status.to_send > 0 {
        lines.push(format!("  to send     {}", status.to_send));
    }
    if status.to_receive > 0 {
        lines.push(format!("  to receive  {}", status.to_receive));
    }
    match status.last_in_step {
        Some(time) if !status.in_step || status.intermediary_reachable.is_err() => {
            lines.push(format!("Last in step {} ({}).", text::ago(now, time), text::time(time)));
        }
        Some(_) => {}
        None => lines.push("Never in step so far.".to_owned()),
    }
    if let Some((gone, known)) = status.braked {
        lines.push(format!(
            "{gone} of {known} files are gone from the folder, so `packetboat sync` stops: if you deleted them, add \
             --confirm-deletes; if not, look whether the disk is mounted."
        ));
    }
    if session.reached.lost_its_marker() {
        let advice = no_marker_advice(session.replica.holds_marker().unwrap_or(false));
        lines.push(text::sentence(&format!("{NO_MARKER}: {advice}")));
    }
    if status.wanted > 0 {
        let objects = text::count(status.wanted, "object is", "objects are");
        lines.push(format!(
            "At the intermediary {objects} missing or damaged: run `packetboat repair`, which says what each concerns."
        ));
    }
    if status.conflicts > 0 {
        let conflicts = text::count(status.conflicts, "conflict waits", "conflicts wait");
        lines.push(format!("{conflicts}: see `packetboat conflicts`."));
    }
    // What a small vault takes is of no concern.
    if let Some(size) = status.size.as_ref().filter(|size| size.stored >= SMALL_BYTES) {
        let share = match size.history {
            0 => String::new(),
            history => format!(", {} of it past versions ({} %)", text::bytes(history), percent(history, size.stored)),
        };
        lines.push(format!(
            "The vault takes {}{share}; it keeps {}.",
            text::bytes(size.stored),
            kept(status.retention)
        ));
    }
    if !status.problems.is_empty() {
        lines.push(String::new());
        lines.push("Not here, or not as it should be:".to_owned());
        lines.extend(status.problems.iter().map(|(kind, place, why)| {
            format!("  {}  ({}: {})", text::plain(place.as_bytes()), kind, text::plain(why.as_bytes()))
        }));
    }
    lines.push(String::new());
    lines.push("Devices:".to_owned());
    // Two devices may be called the same, as a computer that was bound twice.
    let name = |device: &DeviceInfo| {
        let name = text::plain(device.name.as_bytes());
        match status.devices.iter().filter(|other| other.name == device.name).count() {
            1 => name,
            _ => format!("{name} ({})", device.device.short()),
        }
    };
    let width = status.devices.iter().map(|device| name(device).chars().count()).max().unwrap_or_default();
    lines.extend(status.devices.iter().map(|device| {
        let heard = match device.last_heard {
            Some(then) => format!("heard of {}", text::ago(now, then)),
            None => "heard of at an unknown time".to_owned(),
        };
        let heard = match (device.is_this, device.standing) {
            (true, "active") => "this device".to_owned(),
            (true, standing) => format!("this device, {standing}"),
            (false, "active") => heard,
            (false, standing) => format!("{standing}, {heard}"),
        };
        format!("  {:<width$}  {heard}", name(device))
    }));
    lines.join("\n") + "\n"
}

fn percent(part: u64, of: u64) -> u64 {
    part.saturating_mul(100).checked_div(of).unwrap_or(0)
}

fn to_json(status: &Status, session: &Session) -> Value {
    let (folder, place) = (&session.folder, &session.intermediary);
    let mut object = Map::new();
    insert_path(&mut object, "folder", std::os::unix::ffi::OsStrExt::as_bytes(folder.as_os_str()));
    insert_path(&mut object, "intermediary", std::os::unix::ffi::OsStrExt::as_bytes(place.as_os_str()));
    let rest = json!({
        "schema": 1,
        "vault": status.vault.to_string(),
        "device": status.device.to_string(),
        "device_name": status.device_name,
        "state": status.state,
        "in_step": status.in_step,
        "reachable": status.intermediary_reachable.is_ok(),
        "unreachable_because": status.intermediary_reachable.as_ref().err(),
        "last_in_step": status.last_in_step.and_then(text::rfc3339),
        "to_send": status.to_send,
        "to_receive": status.to_receive,
        "conflicts": status.conflicts,
        "objects": status.objects,
        "damaged": status.wanted,
        "marker_lost": session.reached.lost_its_marker(),
        "deletes_to_confirm": status.braked.map(|(gone, _)| gone),
        "keep": keep_json(status.retention),
        "vault_bytes": status.size.map(|size| size.stored),
        "history_bytes": status.size.map(|size| size.history),
        "size_as_of": status.size.and_then(|size| text::rfc3339(size.as_of)),
        "problems": status.problems.iter()
            .map(|(kind, place, why)| json!({ "kind": kind, "subject": place, "reason": why }))
            .collect::<Vec<_>>(),
        "devices": status.devices.iter().map(device_json).collect::<Vec<_>>(),
    });
    if let Value::Object(rest) = rest {
        object.extend(rest);
    }
    Value::Object(object)
}

const SMALL_BYTES: u64 = 1_000_000;

const JSON: &str = "\
JSON: folder, intermediary, vault, device, device_name, state, in_step, reachable, unreachable_because, last_in_step, \
to_send, to_receive, conflicts, objects, damaged (objects at the intermediary), marker_lost, deletes_to_confirm (null unless \
a sync would stop for them), keep (all, days or versions), vault_bytes, history_bytes, size_as_of, problems (kind, subject, reason), devices (as in `packetboat devices`).";
