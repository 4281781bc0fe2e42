//! `packetboat inbox`: what came, and by which path.

use std::process::ExitCode;

use clap::Args;
use packetboat_daemon::inbox_store::listing::{Arrived, arrived_last};
use packetboat_engine::ports::Clock as _;
use serde_json::json;

use crate::carrier::{Carrier, home_directory};
use crate::failure::Failure;
use crate::opening::Context;
use crate::text;
use crate::world::SystemClock;

/// List the mail that came last, and by which path
///
/// The mail itself is in the Maildir, where any mail program reads it; deleting it there deletes it nowhere else, and what
/// was deleted does not come back. Flags that you set are not told to the server.
#[derive(Debug, Args)]
#[command(after_help = JSON)]
pub(crate) struct InboxArgs {
    /// Show so many
    #[arg(long, value_name = "N", default_value_t = 20)]
    last: usize,
}

/// Runs the command.
pub(crate) fn run(context: &Context, args: &InboxArgs) -> Result<ExitCode, Failure> {
    let carrier = Carrier::locate(context)?;
    let maildir = carrier.settings()?.maildir(home_directory().as_deref());
    let mails = arrived_last(&carrier.home.inbox(), args.last)?;
    context.ui.result(
        || json!({ "schema": 1, "maildir": maildir, "mails": mails }),
        || {
            if mails.is_empty() {
                return "No mail came yet.\n".to_owned();
            }
            mails.iter().fold(String::new(), |shown, mail| shown + &line(mail))
        },
    );
    Ok(ExitCode::SUCCESS)
}

fn line(mail: &Arrived) -> String {
    let when = i64::try_from(mail.arrived_ms).map_or(String::new(), |at| text::ago(SystemClock.now_ms(), at));
    let path = if mail.path == "own" { "by the own path" } else { "over the link" };
    let folder = if mail.folder.is_empty() { "inbox" } else { &mail.folder };
    let name = mail.name.as_deref().unwrap_or_default();
    format!("{when:<16}  {path:<16}  {folder}  {}  {name}\n", text::bytes(mail.size_bytes))
}

const JSON: &str = "\
JSON: maildir, and mails, each with name (of its file, without flags), folder, size_bytes, arrived_ms, path (own or link).";
