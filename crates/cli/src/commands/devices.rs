//! `packetboat devices`: the members of the vault.

use std::process::ExitCode;

use clap::{Args, Subcommand};
use packetboat_engine::ports::Clock;
use packetboat_engine::replica::DeviceInfo;
use serde_json::{Value, json};

use super::FolderArg;
use crate::binding::device_name;
use crate::failure::Failure;
use crate::opening::Context;
use crate::text;
use crate::world::SystemClock;

/// List the devices of the vault, or rename this one
///
/// A device is listed from its first round on, as far as this one has learned: `packetboat sync` learns more.
/// A new name reaches other devices with the next round of both; files that are shown under a conflict name keep it.
#[derive(Debug, Args)]
#[command(after_help = JSON)]
pub(crate) struct DevicesArgs {
    #[command(subcommand)]
    action: Option<DevicesAction>,
    #[command(flatten)]
    folder: FolderArg,
}

#[derive(Debug, Subcommand)]
enum DevicesAction {
    /// List the devices of the vault
    List,
    /// Give this device another name
    Rename {
        /// The new name
        name: String,
    },
}

/// Runs the command.
pub(crate) fn run(context: &Context, args: &DevicesArgs) -> Result<ExitCode, Failure> {
    let mut session = context.open(args.folder.folder.as_deref())?;
    match &args.action {
        None | Some(DevicesAction::List) => {
            let devices = session.replica.devices()?;
            context.ui.result(
                || json!({ "schema": 1, "devices": devices.iter().map(device_json).collect::<Vec<_>>() }),
                || list(&devices),
            );
        }
        Some(DevicesAction::Rename { name }) => {
            let name = device_name(name)?;
            session.replica.rename_device(&name)?;
            context.ui.result(
                || json!({ "schema": 1, "device_name": name }),
                || format!("This device is \"{name}\" now; others learn it with the next `packetboat sync`.\n"),
            );
        }
    }
    Ok(ExitCode::SUCCESS)
}

fn list(devices: &[DeviceInfo]) -> String {
    let now = SystemClock.now_ms();
    let name = |device: &DeviceInfo| text::plain(device.name.as_bytes());
    let width = devices.iter().map(|device| name(device).chars().count()).max().unwrap_or_default();
    devices.iter().fold(String::new(), |mut shown, device| {
        let this = if device.is_this { "  (this device)" } else { "" };
        let standing = if device.standing == "active" { String::new() } else { format!("  {}", device.standing) };
        let packets = text::count(device.packets, "packet", "packets");
        let heard = text::ago(now, device.last_heard);
        shown.push_str(&format!(
            "{:<width$}  {}  {packets}, last {heard}{standing}{this}\n",
            name(device),
            device.device.short()
        ));
        shown
    })
}

/// A device for scripts.
pub(crate) fn device_json(device: &DeviceInfo) -> Value {
    json!({
        "device": device.device.to_string(),
        "name": device.name,
        "this": device.is_this,
        "last_heard": text::rfc3339(device.last_heard),
        "packets": device.packets,
        "standing": device.standing,
    })
}

const JSON: &str = "\
JSON: devices, each with device, name, this, last_heard, packets, standing (active, retired, revoked). \
After rename: device_name.";
