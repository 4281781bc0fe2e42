//! `packetboat unpair`: ends the pair of host and companion.

use std::process::ExitCode;

use clap::Args;
use packetboat_daemon::control::Request;
use packetboat_daemon::pair::Role;
use packetboat_daemon::parting;
use packetboat_daemon::relay::deposits::Deposits;
use packetboat_daemon::relay::shelf::Shelf;
use packetboat_daemon::relay::socket::SocketAsk;
use packetboat_replica::lock::ReplicaLock;
use serde_json::json;

use crate::carrier::{Carrier, clock};
use crate::failure::Failure;
use crate::opening::Context;
use crate::registry::Registry;
use crate::text;
use crate::way::names_companion;

/// End the pair of host and companion
///
/// Run it on either device, while `packetboat run` runs on both and the link is up. The host wants back every mail that it
/// handed over and goes on alone; the companion drops its copies, and deletes the passwords that were lent to it. What waits
/// of vaults the host has too. Afterwards neither device lets the other's key in.
#[derive(Debug, Args)]
#[command(after_help = JSON)]
pub(crate) struct UnpairArgs {
    /// End it on this device though the other one cannot be told; it must then be run on that one too
    ///
    /// A mail that was handed over may then be sent by both, as when a companion takes over.
    #[arg(long)]
    alone: bool,
}

/// Runs the command.
pub(crate) fn run(context: &Context, args: &UnpairArgs) -> Result<ExitCode, Failure> {
    let carrier = Carrier::locate(context)?;
    let Some(pair) = carrier.pair()? else {
        return Err(Failure::new("this device is in no pair").hint("`packetboat pair` makes one"));
    };
    if pair.role == Role::Host {
        bring_back_deposits(context, &carrier, args.alone)?;
    }
    let parted = match carrier.home.claim()? {
        None => carrier.ask(&Request::Unpair { alone: args.alone })?.done,
        Some(_claim) if args.alone => {
            parting::forget(&carrier.home, false)?;
            json!({ "peer": pair.peer_name, "agreed": false, "unclear": 0 })
        }
        Some(_) => {
            return Err(Failure::new("the other device cannot be told: no daemon runs here")
                .hint("start `packetboat run` on both devices, or end the pair on this one by --alone"));
        }
    };
    let peer = text::plain(pair.peer_name.as_bytes());
    let agreed = parted["agreed"] == true;
    if !agreed {
        context.ui.warn(&format!("{peer} does not know of it: run `packetboat unpair --alone` there too"));
        if pair.role == Role::Companion && carrier.home.shelf().exists() {
            let shelf = text::path(&carrier.home.shelf());
            context.ui.note(&format!("What was kept of its vaults stays in {shelf}."));
        }
    }
    let unclear = parted["unclear"].as_u64().unwrap_or_default();
    if unclear > 0 {
        let mails = text::count(unclear, "mail", "mails");
        context.ui.warn(&format!("of {mails} it is not known whether {peer} sent them: see `packetboat outbox`"));
    }
    context.ui.result(
        || json!({ "schema": 1, "peer": pair.peer_name, "role": pair.role, "agreed": agreed, "unclear": unclear }),
        || format!("{peer} and this device are no pair any more.\n"),
    );
    Ok(ExitCode::SUCCESS)
}

/// Sees to it that this device has what waits of its vaults on the companion, and says which folders went by it alone.
fn bring_back_deposits(context: &Context, carrier: &Carrier, alone: bool) -> Result<(), Failure> {
    for entry in Registry::read(&context.state)?.entries() {
        let state = context.state.replica(&entry.replica);
        let directory = state.deposits();
        let by_companion = names_companion(&entry.intermediary.canonical).is_some();
        let folder = text::path(&entry.folder);
        if by_companion {
            context.ui.note(&format!(
                "{folder} goes by the companion: name the vault's own directory with `packetboat sync {} INTERMEDIARY`.",
                text::argument(&entry.folder)
            ));
        }
        if !by_companion && !directory.exists() {
            continue;
        }
        let _lock = ReplicaLock::acquire(&state.lock())?;
        let deposits = Deposits::new(Shelf::open(&directory, u64::MAX, clock())?.into(), entry.vault);
        match deposits.settle(&SocketAsk::new(&carrier.home)) {
            Ok(0) => {}
            Ok(waiting) => {
                let objects = text::count(waiting, "object", "objects");
                context.ui.note(&format!("{objects} of {folder} wait here until this device reaches the vault."));
            }
            // What is here already goes up from here; only what the companion alone was handed could be missing.
            Err(_) if alone => {}
            Err(error) => {
                return Err(Failure::from(error)
                    .hint("see that the link is up (`packetboat paths`), or end the pair on this device by --alone"));
            }
        }
    }
    Ok(())
}

const JSON: &str =
    "JSON: peer, role (what this device was), agreed, unclear (mails of which nobody knows whether they were sent).";
