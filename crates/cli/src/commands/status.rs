//! `packetboat status`: whether the folder is in step, and if not, why.

use std::path::Path;
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
use crate::opening::Context;
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
    let status = session.replica.status()?;
    let (folder, place) = (session.folder.clone(), session.intermediary.clone());
    context.ui.result(|| to_json(&status, &folder, &place), || to_text(&status, &folder, &place));
    Ok(ExitCode::SUCCESS)
}

fn to_text(status: &Status, folder: &Path, place: &Path) -> String {
    let now = SystemClock.now_ms();
    let mut lines = vec![
        format!("Folder        {}", text::path(folder)),
        format!("Intermediary  {}", text::path(place)),
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
            lines.push("The intermediary cannot be reached, so what others did is not known.".to_owned());
            lines.push(format!("  {reason}"));
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
    let width = status.devices.iter().map(|device| shown_name(device).chars().count()).max().unwrap_or_default();
    lines.extend(status.devices.iter().map(|device| {
        let heard = match (device.is_this, device.standing) {
            (true, "active") => "this device".to_owned(),
            (true, standing) => format!("this device, {standing}"),
            (false, "active") => format!("heard of {}", text::ago(now, device.last_heard)),
            (false, standing) => format!("{standing}, heard of {}", text::ago(now, device.last_heard)),
        };
        format!("  {:<width$}  {heard}", shown_name(device))
    }));
    lines.join("\n") + "\n"
}

fn percent(part: u64, of: u64) -> u64 {
    part.saturating_mul(100).checked_div(of).unwrap_or(0)
}

fn shown_name(device: &DeviceInfo) -> String {
    text::plain(device.name.as_bytes())
}

fn to_json(status: &Status, folder: &Path, place: &Path) -> Value {
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
to_send, to_receive, conflicts, objects, keep (all, days or versions), vault_bytes, history_bytes, size_as_of, problems (kind, subject, reason), devices (as in `packetboat devices`).";
