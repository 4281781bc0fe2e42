//! `packetboat devices`: the members of the vault.

use std::path::PathBuf;
use std::process::ExitCode;

use clap::{Args, Subcommand};
use packetboat_engine::ports::Clock;
use packetboat_engine::replica::{DeviceInfo, SyncOptions};
use packetboat_engine::{Revoked, ports::Observer};
use serde_json::{Value, json};

use super::FolderArg;
use super::round::run_round;
use crate::binding::device_name;
use crate::failure::Failure;
use crate::opening::{Context, Session};
use crate::progress::Progress;
use crate::secrets::Secrets;
use crate::text;
use crate::world::SystemClock;

/// List, rename, revoke and retire the devices of the vault
///
/// A device is listed from its first round on, as far as this one has learned: `packetboat sync` learns more.
/// A new name reaches other devices with the next round of both; files that are shown under a conflict name keep it.
///
/// Revoke a device that is lost or not to be trusted any more. Retire one that is not used for the time being.
/// A device unheard of for 180 days is retired by itself; `packetboat devices retire --unheard-for DAYS` changes that.
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
    /// Trust a device no longer, and give the vault a new key
    ///
    /// The other devices take up the new key by themselves at their next sync. What the device published until now stays;
    /// what it publishes from now on counts for nothing. The vault gets a new passphrase and a new recovery key, because the
    /// device knows the former passphrase.
    ///
    /// It cannot be taken back that the device has what it has read, and that it can read all that was stored until now if
    /// it still reaches the storage or a copy of it: take that access away as well.
    Revoke {
        /// The device's name, or the first digits of its id
        device: String,
        /// Read the new passphrase from FILE
        #[arg(long, value_name = "FILE")]
        passphrase_file: Option<PathBuf>,
    },
    /// Wait for a device no longer; without a name, let this one leave the vault
    ///
    /// Nothing is taken from it. When it synchronises again, it goes on as a new device by itself: what was deleted
    /// meanwhile is not revived, and what it changed is published.
    Retire {
        /// The device's name, or the first digits of its id [default: this device, after a last sync]
        #[arg(conflicts_with = "unheard_for")]
        device: Option<String>,
        /// Choose after how many days unheard of this device retires another; 0 for never
        #[arg(long, value_name = "DAYS")]
        unheard_for: Option<u64>,
    },
}

/// Runs the command.
pub(crate) fn run(context: &Context, args: DevicesArgs) -> Result<ExitCode, Failure> {
    let mut session = context.open(args.folder.folder.as_deref())?;
    match args.action {
        None | Some(DevicesAction::List) => {
            let devices = session.replica.devices()?;
            let retire_after = session.replica.retire_after_days()?;
            let shown = || devices.iter().map(device_json).collect::<Vec<_>>();
            context.ui.result(
                || json!({ "schema": 1, "devices": shown(), "retire_after_days": retire_after }),
                || list(&devices),
            );
        }
        Some(DevicesAction::Rename { name }) => {
            let name = device_name(&name)?;
            session.replica.rename_device(&name)?;
            context.ui.result(
                || json!({ "schema": 1, "device_name": name }),
                || format!("This device is \"{name}\" now; others learn it with the next `packetboat sync`.\n"),
            );
        }
        Some(DevicesAction::Revoke { device, passphrase_file }) => {
            return revoke(context, &mut session, &device, passphrase_file);
        }
        Some(DevicesAction::Retire { unheard_for: Some(days), .. }) => {
            session.replica.set_retire_after_days(Some(days))?;
            context.ui.result(
                || json!({ "schema": 1, "retire_after_days": (days > 0).then_some(days) }),
                || match days {
                    0 => "This device retires none by itself.\n".to_owned(),
                    days => format!(
                        "This device retires others that are unheard of for {}.\n",
                        text::count(days, "day", "days")
                    ),
                },
            );
        }
        Some(DevicesAction::Retire { device, unheard_for: None }) => retire(context, &mut session, device.as_deref())?,
    }
    Ok(ExitCode::SUCCESS)
}

fn revoke(context: &Context, session: &mut Session, device: &str, file: Option<PathBuf>) -> Result<ExitCode, Failure> {
    let device = session.replica.device_named(device)?;
    // What makes no sense is refused before anybody has thought of a passphrase.
    session.replica.may_revoke(&device)?;
    context.ui.note("The device to be revoked knows the vault's passphrase, so the vault gets a new one.");
    let passphrase = Secrets { file, ui: context.ui }.another_passphrase(&session.replica)?;
    let mut progress = Progress::new(context.ui)?;
    let revoked = session.replica.revoke(&device, &passphrase, &mut progress as &mut dyn Observer);
    progress.finish();
    let revoked = revoked?;
    context.ui.result(
        || {
            json!({
                "schema": 1,
                "revoked": device.to_string(),
                "name": revoked.name,
                "epoch": revoked.epoch,
                "recipients": revoked.recipients,
                "left_out": revoked.left_out,
                "recovery_key": revoked.recovery_key,
                "untold": revoked.untold,
            })
        },
        || revocation(&revoked),
    );
    let Some(reason) = &revoked.untold else { return Ok(ExitCode::SUCCESS) };
    context.ui.warn(&format!(
        "the intermediary could not be told: {}. Until `packetboat sync` has, \"{}\" is not kept out, and the former \
         passphrase and recovery key are those that open the vault",
        text::plain(reason.as_bytes()),
        text::plain(revoked.name.as_bytes()),
    ));
    Ok(ExitCode::FAILURE)
}

fn revocation(revoked: &Revoked) -> String {
    let name = text::plain(revoked.name.as_bytes());
    let others = match revoked.recipients.saturating_sub(1) {
        0 => "No other device is left in the vault.".to_owned(),
        1 => "The other device takes up the vault's new key by itself at its next sync.".to_owned(),
        others => format!("The {others} other devices take up the vault's new key by themselves at their next sync."),
    };
    let mut shown = format!(
        "\"{name}\" is revoked. {others}\n\
         \n\
         This cannot be taken back:\n  \
         what \"{name}\" has read, and the files on its disk;\n  \
         its keys to all that was stored until now: take away its access to the storage as well.\n"
    );
    for left_out in &revoked.left_out {
        let left_out = text::plain(left_out.as_bytes());
        shown.push_str(&format!("\n\"{left_out}\" joined with a key that was given up: it must join again.\n"));
    }
    shown.push_str(&format!(
        "\nThe former passphrase and recovery key open the vault no more. New recovery key, shown this once:\n{}\n",
        revoked.recovery_key
    ));
    shown
}

fn retire(context: &Context, session: &mut Session, device: Option<&str>) -> Result<(), Failure> {
    let own = session.replica.own_device();
    let device = match device {
        Some(device) => session.replica.device_named(device)?,
        None => own,
    };
    if device == own {
        // What is here and nowhere else is published first.
        run_round(context, session, |replica, observer| replica.sync(SyncOptions::default(), observer))?;
    }
    let mut progress = Progress::new(context.ui)?;
    let name = session.replica.retire(&device, &mut progress as &mut dyn Observer);
    progress.finish();
    let name = name?;
    context.ui.result(
        || json!({ "schema": 1, "retired": device.to_string(), "name": name, "this": device == own }),
        || {
            let shown = text::plain(name.as_bytes());
            match device == own {
                true => format!(
                    "This device (\"{shown}\") has left the vault; its files stay. `packetboat sync` comes back, as a \
                     new device.\n"
                ),
                false => format!("\"{shown}\" is retired. When it synchronises again, it goes on as a new device.\n"),
            }
        },
    );
    Ok(())
}

fn list(devices: &[DeviceInfo]) -> String {
    let now = SystemClock.now_ms();
    let name = |device: &DeviceInfo| text::plain(device.name.as_bytes());
    let width = devices.iter().map(|device| name(device).chars().count()).max().unwrap_or_default();
    devices.iter().fold(String::new(), |mut shown, device| {
        let this = if device.is_this { "  (this device)" } else { "" };
        let standing = if device.standing == "active" { String::new() } else { format!("  {}", device.standing) };
        let packets = text::count(device.packets, "packet", "packets");
        let heard = match device.last_heard {
            Some(then) => format!("last {}", text::ago(now, then)),
            None => "last at an unknown time".to_owned(),
        };
        shown.push_str(&format!(
            "{:<width$}  {}  {packets}, {heard}{standing}{this}\n",
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
        "last_heard": device.last_heard.and_then(text::rfc3339),
        "packets": device.packets,
        "standing": device.standing,
    })
}

const JSON: &str = "\
The new passphrase is asked for, or taken from --passphrase-file or PACKETBOAT_PASSPHRASE.

JSON: devices, each with device, name, this, last_heard (null where it is not known), packets, standing (active, retired, revoked); retire_after_days. \
After rename: device_name. After revoke: revoked, name, epoch, recipients, left_out, recovery_key, untold (why the intermediary does not tell of it yet, or null). \
After retire: retired, name, this; with --unheard-for: retire_after_days.";
