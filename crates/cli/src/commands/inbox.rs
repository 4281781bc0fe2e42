//! `packetboat inbox`: what came, by which path, and where it is; and what keeps mail from coming.

use std::process::ExitCode;

use clap::Args;
use packetboat_daemon::control::Request;
use packetboat_daemon::inbox_store::listing::{Listed, newest};
use packetboat_engine::ports::Clock as _;
use serde_json::{Value, json};

use crate::carrier::{Carrier, home_directory, not_a_maildir};
use crate::failure::Failure;
use crate::opening::Context;
use crate::text;
use crate::world::SystemClock;

/// List the mail that came last, and by which path
///
/// The mail itself is in the Maildir, where any mail program reads it; deleting it there deletes it nowhere else, and what
/// was deleted does not come back. Flags that you set are not told to the server.
/// An account that cannot be fetched is named, with the reason and what to do.
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
    packetboat_daemon::reports::check_maildir(&maildir).map_err(|error| not_a_maildir(&maildir, &error))?;
    let mails = newest(&carrier.home.inbox(), &maildir, args.last)?;
    // Without a daemon nobody fetches, and the list is as it lies there.
    let stands = carrier.ask(&Request::Paths).map(|answer| answer.done["inbox"].clone()).ok();
    let accounts = stands.as_ref().and_then(|stands| stands["accounts"].as_array().cloned()).unwrap_or_default();
    context.ui.result(
        || {
            let (running, maildir) = (stands.is_some(), &maildir);
            json!({ "schema": 1, "running": running, "maildir": maildir, "mails": mails, "accounts": accounts })
        },
        || {
            if mails.is_empty() {
                return "No mail came yet.\n".to_owned();
            }
            mails.iter().fold(String::new(), |shown, mail| shown + &line(mail))
        },
    );
    if stands.is_none() {
        context.ui.note("The daemon does not run, so nothing is being fetched; start it with `packetboat run`.");
    }
    for account in &accounts {
        if let Some(problem) = problem(account) {
            context.ui.warn(&problem);
        }
    }
    Ok(ExitCode::SUCCESS)
}

/// Why no mail comes by an account, and what to do about it.
pub(crate) fn problem(account: &Value) -> Option<String> {
    let plain = |value: &Value| value.as_str().map(|text| text::plain(text.as_bytes()).to_string());
    let error = plain(&account["error"])?;
    let name = plain(&account["account"]).unwrap_or_default();
    let hint = plain(&account["hint"]).map_or(String::new(), |hint| format!("\nHint: {hint}"));
    Some(format!("mail of {name} cannot be fetched: {error}{hint}"))
}

fn line(mail: &Listed) -> String {
    let when = i64::try_from(mail.arrived_ms).map_or(String::new(), |at| text::ago(SystemClock.now_ms(), at));
    let path = match mail.path.as_str() {
        "own" => "by the own path",
        "link" => "over the link",
        _ => "written here",
    };
    let shown = |text: &Option<String>, none: &str| {
        text.as_ref().map_or_else(|| none.to_owned(), |text| text::plain(text.as_bytes()).to_string())
    };
    let file = mail.file.as_ref().map_or_else(|| "moved or deleted".to_owned(), |file| text::path(file).to_string());
    format!("{when:<16}  {path:<15}  {}  {}\n    {file}\n", shown(&mail.from, "-"), shown(&mail.subject, "-"))
}

const JSON: &str = "\
JSON: running, maildir, mails (arrived_ms, path: own, link or report, folder, size_bytes, from, subject, file), and \
accounts (account, protocol, state: starting, watching, polling, failing or refused, last_success_ms, mailboxes, at_once: \
those in which what comes is noticed at once, error, hint).";
