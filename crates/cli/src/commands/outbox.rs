//! `packetboat outbox`: the mails that wait, are being sent, or were sent lately.

use std::process::ExitCode;

use clap::{Args, Subcommand};
use packetboat_daemon::control::{Change, Request};
use packetboat_daemon::outbox::advice;
use packetboat_daemon::outbox::machine::Side;
use packetboat_daemon::outbox::store::Reader;
use packetboat_daemon::outbox::view::MailView;
use packetboat_engine::ports::Clock as _;
use serde_json::{Value, json};

use crate::carrier::Carrier;
use crate::failure::Failure;
use crate::opening::Context;
use crate::text;
use crate::world::SystemClock;

/// List the mails that wait or were sent lately, or change what happens to one
///
/// Each mail is shown with where it stands, whose turn it is, and how the tries on each path went.
/// Without an action the list is shown, also while the daemon does not run; the other actions need it.
#[derive(Debug, Args)]
#[command(after_help = JSON)]
pub(crate) struct OutboxArgs {
    #[command(subcommand)]
    action: Option<Action>,
    /// Show as many mails that are finished
    #[arg(long, value_name = "N", default_value_t = 10)]
    finished: usize,
}

#[derive(Debug, Subcommand)]
enum Action {
    /// Show one mail with each of its recipients
    Show { mail: String },
    /// Do not try a mail until it is released; a try whose end was sent is waited for
    Hold { mail: String },
    /// Try a mail again that was held, or that asks you
    Release { mail: String },
    /// Try now, whatever a mail waits for
    Retry {
        /// Which; all, if none is named
        mail: Option<String>,
    },
    /// Do not send a mail at all; what is not known not to have been sent is shown as perhaps sent
    Cancel { mail: String },
    /// Give the turn of all mails to the companion, as before this device sleeps
    ///
    /// The companion keeps it until this device takes it back: it sends on its own path even while the link is down.
    Handover,
    /// Take the turn: on the host what was handed over, on the companion for a host that is lost
    ///
    /// On a companion whose host is not lost after all, a mail may be sent twice, with the same Message-ID.
    Takeover {
        /// Which; all, if none is named
        mail: Option<String>,
    },
}

impl OutboxArgs {
    /// What `sendmail -bp` shows.
    pub(crate) fn waiting() -> Self {
        Self { action: None, finished: 0 }
    }

    /// What `sendmail -q` does.
    pub(crate) fn retry_all() -> Self {
        Self { action: Some(Action::Retry { mail: None }), finished: 0 }
    }
}

/// Runs the command.
pub(crate) fn run(context: &Context, args: &OutboxArgs) -> Result<ExitCode, Failure> {
    let carrier = Carrier::locate(context)?;
    let change = |mail: &Option<String>, change| {
        carrier.ask(&Request::Change { mail: mail.clone(), change })?;
        Ok::<_, Failure>(())
    };
    let said = match &args.action {
        None => return list(context, &carrier, args.finished),
        Some(Action::Show { mail }) => return show(context, &carrier, mail),
        Some(Action::Hold { mail }) => {
            change(&Some(mail.clone()), Change::Hold)?;
            format!("{mail} is held; `packetboat outbox release {mail}` has it tried again.\n")
        }
        Some(Action::Release { mail }) => {
            change(&Some(mail.clone()), Change::Release)?;
            format!("{mail} is tried again.\n")
        }
        Some(Action::Retry { mail }) => {
            change(mail, Change::Retry)?;
            "It is tried now.\n".to_owned()
        }
        Some(Action::Cancel { mail }) => {
            change(&Some(mail.clone()), Change::Cancel)?;
            format!("{mail} is not sent any more; `packetboat outbox show {mail}` says whether it may have been.\n")
        }
        Some(Action::Handover) => {
            change(&None, Change::HandOver)?;
            "The companion is offered the turn of all mails; `packetboat outbox` shows which it took.\n".to_owned()
        }
        Some(Action::Takeover { mail }) => {
            let companion = carrier.pair()?.is_some_and(|pair| pair.role == packetboat_daemon::pair::Role::Companion);
            change(mail, if companion { Change::TakeOver } else { Change::TakeBack })?;
            "This device takes the turn.\n".to_owned()
        }
    };
    context.ui.result(|| json!({ "schema": 1, "done": true }), || said);
    Ok(ExitCode::SUCCESS)
}

fn list(context: &Context, carrier: &Carrier, finished: usize) -> Result<ExitCode, Failure> {
    let mut runs = true;
    let mails = match carrier.ask(&Request::Outbox { finished }) {
        Ok(answer) => answer.items,
        // Without a daemon the outbox is read as it lies there.
        Err(_) => {
            runs = false;
            read(carrier, finished)?
        }
    };
    let views = mails.into_iter().map(serde_json::from_value).collect::<Result<Vec<MailView>, _>>()?;
    let views: Vec<MailView> = views.into_iter().map(advised).collect();
    context.ui.result(
        || json!({ "schema": 1, "running": runs, "mails": views }),
        || {
            let mut shown = String::new();
            if views.is_empty() {
                shown.push_str("The outbox is empty.\n");
            }
            for view in &views {
                shown.push_str(&line(view, runs));
            }
            shown + &hints(&views)
        },
    );
    if !runs {
        context.ui.note("The daemon does not run, so nothing is being sent; start it with `packetboat run`.");
    }
    Ok(ExitCode::SUCCESS)
}

fn read(carrier: &Carrier, finished: usize) -> Result<Vec<Value>, Failure> {
    if !carrier.home.outbox().exists() {
        return Ok(Vec::new());
    }
    let reader = Reader::open(&carrier.home.outbox(), &carrier.home.bodies())?;
    let mut views = Vec::new();
    let mut after = 0;
    loop {
        let page = reader.mails_after(after, 500)?;
        for (sequence, mail) in &page {
            after = *sequence;
            if let Some(machine) = reader.machine(mail)? {
                views.push(MailView::of(&machine, reader.paths(mail)?, None).at_rest());
            }
        }
        if page.len() < 500 {
            break;
        }
    }
    views.extend(reader.finished(finished)?);
    views.into_iter().map(|view| serde_json::to_value(view).map_err(Failure::from)).collect()
}

fn show(context: &Context, carrier: &Carrier, mail: &str) -> Result<ExitCode, Failure> {
    let value = carrier.ask(&Request::Show { mail: mail.to_owned() })?.done;
    let view = advised(serde_json::from_value(value)?);
    context.ui.result(|| json!({ "schema": 1, "mail": view }), || detail(&view) + &hints(std::slice::from_ref(&view)));
    Ok(ExitCode::SUCCESS)
}

fn advised(mut view: MailView) -> MailView {
    view.hints = advice::on_mail(&view);
    view
}

/// What to do about all of these, each thing once: ten thousand mails mostly wait for the same.
fn hints(views: &[MailView]) -> String {
    let mut said: Vec<&str> = Vec::new();
    for hint in views.iter().flat_map(|view| &view.hints) {
        if !said.contains(&hint.as_str()) {
            said.push(hint);
        }
    }
    said.into_iter().fold(String::new(), |shown, hint| shown + &format!("Hint: {hint}\n"))
}

/// One mail in a line, and one for each path that failed.
fn line(view: &MailView, runs: bool) -> String {
    let now = SystemClock.now_ms();
    let first = view.recipients.first().map_or("", |recipient| recipient.address.as_str());
    let others = match view.recipients.len() {
        0 | 1 => String::new(),
        count => format!(" and {} more", count - 1),
    };
    let when =
        view.submitted_ms.and_then(|time| i64::try_from(time).ok()).map_or(String::new(), |time| text::ago(now, time));
    let mut shown = format!(
        "{}  {:<28}  {}  {} -> {}{others}  {when}\n",
        &view.id[..view.id.len().min(8)],
        standing(view, runs),
        text::bytes(view.size_bytes),
        text::plain(view.sender.as_bytes()),
        text::plain(first.as_bytes()),
    );
    if view.finished_ms.is_none() {
        shown.push_str(&paths(view));
    }
    shown
}

fn detail(view: &MailView) -> String {
    let mut shown = format!(
        "{}\n{}, {} from {}\n",
        view.id,
        standing(view, true),
        text::bytes(view.size_bytes),
        text::plain(view.sender.as_bytes())
    );
    for recipient in &view.recipients {
        let path = recipient.path.as_ref().map_or(String::new(), |path| format!(" by the {path}'s path"));
        let reply =
            recipient.reply.as_ref().map_or(String::new(), |reply| format!(": {}", text::plain(reply.as_bytes())));
        let address = text::plain(recipient.address.as_bytes());
        shown.push_str(&format!("  {address}  {}{path}{reply}\n", recipient.status));
    }
    shown + &paths(view)
}

fn paths(view: &MailView) -> String {
    let now = SystemClock.now_ms();
    view.paths.iter().fold(String::new(), |shown, path| {
        let when = i64::try_from(path.at_ms).map_or(String::new(), |at| text::ago(now, at));
        let failures = text::count(u64::from(path.failures), "failure", "failures");
        let why = text::plain(path.last_failure.as_bytes());
        shown + &format!("          {}'s path: {failures}, last {when}: {why}\n", path.path)
    })
}

/// Where a mail stands, in words; `runs` says whether the daemon does.
fn standing(view: &MailView, runs: bool) -> String {
    if view.finished_ms.is_some() {
        let sent =
            view.recipients.iter().filter(|recipient| matches!(recipient.status.as_str(), "sent" | "found-in-sent"));
        let all = view.recipients.len();
        return match sent.count() {
            count if count == all => {
                let path = view.recipients.first().and_then(|recipient| recipient.path.as_deref());
                path.map_or("sent".to_owned(), |path| format!("sent by the {path}"))
            }
            0 => view.recipients.first().map_or("finished", |recipient| &recipient.status).to_owned(),
            count => format!("sent to {count} of {all}"),
        };
    }
    if !runs && !view.held && view.state == "waiting" {
        return "waiting for the daemon".to_owned();
    }
    let held = if view.held { "held, " } else { "" };
    let whose = match (&view.turn, view.side) {
        (Some(turn), Side::Own) => format!(", the {turn}'s turn"),
        (Some(turn), Side::Copy) => format!(" for the host, the {turn}'s turn"),
        (None, _) => String::new(),
    };
    format!("{held}{}{whose}", view.state.replace('-', " "))
}

const JSON: &str = "\
JSON: running, and mails, each with id, number, side (own, copy), sender, size_bytes, submitted_ms, state, turn, held, \
next_ms, copied, attempts, recipients (address, status, reply, path), paths (path, failures, last_failure, at_ms), \
finished_ms, hints. State is waiting, sending, ending, granted, handed-over, unknown, asks-you, settling, closing or finished, \
and of a copy kept, asking, waiting, taken-over, returned or done.";
