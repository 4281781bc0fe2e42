//! `packetboat carry`: which vaults this device carries for the other one of its pair.

use std::path::PathBuf;
use std::process::ExitCode;

use clap::Args;
use packetboat_daemon::pair::Role;
use packetboat_daemon::relay::places::Places;
use serde_json::json;

use crate::carrier::Carrier;
use crate::failure::Failure;
use crate::opening::{Context, vault_not_here};
use crate::places::{Directory, Found, look_for_vault, require_folder};
use crate::text;

/// Carry a vault for the host: reach it for a host that cannot
///
/// Run on a companion. VAULT is the directory where this device reaches the vault's intermediary.
/// From then on `packetboat sync` on the host goes through this device whenever the host cannot reach the vault itself.
/// While this device cannot reach it either, it keeps what the host deposits and puts it up when it can, in order.
/// No passphrase is needed, and none of the files can be read here.
#[derive(Debug, Args)]
#[command(after_help = JSON)]
pub(crate) struct CarryArgs {
    /// Directory that holds the vault, as this device reaches it
    vault: PathBuf,
    /// Carry it no longer; what waits stays until it is carried again
    #[arg(long)]
    stop: bool,
}

/// Runs the command.
pub(crate) fn run(context: &Context, args: &CarryArgs) -> Result<ExitCode, Failure> {
    let carrier = Carrier::locate(context)?;
    let path = carrier.home.carried();
    let mut places = Places::read(&path)?;
    require_folder(&args.vault)?;
    let place = Directory::look(&args.vault, "vault")?;
    let shown = text::path(&place.path);
    let vault = if args.stop {
        // The vault may be gone, and that may be why.
        let carried = places.iter().find(|(_, other)| *other == place.path).map(|(vault, _)| vault);
        let vault = carried.ok_or_else(|| {
            Failure::new(format!("no vault is carried from {shown}")).hint("`packetboat paths` shows what is carried")
        })?;
        places.remove(vault);
        vault
    } else {
        let Found::Vault(marker) = look_for_vault(&place)? else { return Err(vault_not_here(&args.vault)) };
        if place.path.to_str().is_none() {
            return Err(Failure::new(format!("{shown} cannot be carried: its path is not UTF-8"))
                .hint("reach it by another path, such as a symbolic link or another mount point"));
        }
        places.add(marker.vault(), place.path.clone());
        marker.vault()
    };
    carrier.home.prepare()?;
    places.write(&path)?;
    if carrier.pair()?.is_none_or(|pair| pair.role != Role::Companion) {
        context.ui.warn("this device is no companion yet: nothing is carried before `packetboat pair` makes it one");
    }
    let carries = !args.stop;
    context.ui.result(
        || json!({ "schema": 1, "vault": vault.to_string(), "place": place.path.to_string_lossy(), "carries": carries }),
        || match carries {
            true => format!("Carries the vault {} at {shown} for the host.\n", vault.short()),
            false => format!("Carries the vault {} no longer.\n", vault.short()),
        },
    );
    Ok(ExitCode::SUCCESS)
}

const JSON: &str = "\
`packetboat paths` shows what is carried and what waits. How much may be kept is relay.space in daemon.toml.

JSON: vault, place, carries.";
