//! `packetboat mail`: the accounts that mail is sent and fetched by.

mod probe;
mod setup;

use std::process::ExitCode;

use clap::{Args, Subcommand};
use packetboat_daemon::control::Request;
use packetboat_mail::account::{Account, Accounts, AtServer, Checked, Incoming, Problem, Trying, check};
use packetboat_mail::smtp::Security;
use serde_json::{Value, json};

use crate::carrier::{Carrier, host_name, runtime};
use crate::failure::Failure;
use crate::opening::Context;
use crate::text;

/// Add an account, test the accounts there are, or show what is sent and fetched by them
///
/// An account is tried before it is kept: a wrong password or a certificate that cannot be trusted is found now, and not
/// with the first mail.
#[derive(Debug, Args)]
pub(crate) struct MailArgs {
    #[command(subcommand)]
    action: Action,
}

#[derive(Debug, Subcommand)]
enum Action {
    /// Add an account, from a file, from options, or by asking
    ///
    /// The account is written to accounts.toml in the configuration directory, which only you can read. A password that is
    /// typed goes to the desktop's keyring (Secret Service) where there is one, and to that file where there is none.
    Setup(Box<setup::SetupArgs>),
    /// Test every account, or one: the server that takes mail, and those that mail is fetched from
    ///
    /// Each is logged in to, and the mailboxes that are to be fetched are looked for. Nothing is sent or fetched.
    #[command(after_help = TEST_JSON)]
    Test {
        /// Its name
        account: Option<String>,
    },
    /// Learn whether an account's provider files in Sent what it takes, by one mail to yourself
    ///
    /// Where it does, Sent says whether a mail went out of which nobody knows, and no copy is filed from here. What is found
    /// out is written to accounts.toml.
    #[command(after_help = probe::JSON)]
    Probe {
        /// Its name; the only account, if nothing is said
        account: Option<String>,
    },
    /// Show the accounts, and which mailboxes are fetched of each
    ///
    /// By IMAP, INBOX is fetched unless `mailboxes` in the account names others; ["*"] is all that there are. What comes
    /// is noticed at once in INBOX, and in the others where the server can notify of them; elsewhere, and by POP3,
    /// within inbox.poll of daemon.toml (5 minutes, unless told otherwise).
    #[command(after_help = LIST_JSON)]
    List,
}

/// Runs the command.
pub(crate) fn run(context: &Context, args: &MailArgs) -> Result<ExitCode, Failure> {
    let carrier = Carrier::locate(context)?;
    match &args.action {
        Action::Setup(asked) => setup::run(context, &carrier, asked),
        Action::Test { account } => {
            let accounts = some_accounts(&carrier)?;
            let tried = test(context, &carrier, &accounts, account.as_deref())?;
            context.ui.result(|| json!({ "schema": 1, "accounts": tried }), String::new);
            Ok(ExitCode::SUCCESS)
        }
        Action::Probe { account } => probe::run(context, &carrier, account.as_deref()),
        Action::List => list(context, &carrier),
    }
}

fn some_accounts(carrier: &Carrier) -> Result<Accounts, Failure> {
    let accounts = carrier.accounts()?;
    if accounts.iter().next().is_none() {
        return Err(Failure::new("there are no accounts").hint("`packetboat mail setup` adds one"));
    }
    Ok(accounts)
}

/// Tries accounts, and fails with the first that does not work; what works of the others is told.
fn test(context: &Context, carrier: &Carrier, accounts: &Accounts, only: Option<&str>) -> Result<Vec<Value>, Failure> {
    let wanted: Vec<_> = accounts.iter().filter(|account| only.is_none_or(|only| account.name == only)).collect();
    if wanted.is_empty() {
        return Err(Failure::new(format!("there is no account {:?}", only.unwrap_or_default()))
            .hint("`packetboat mail list` names them"));
    }
    let runtime = runtime(2)?;
    let hello = host_name();
    let trying = Trying { hello: &hello, source: None, connect: carrier.settings()?.outbox.connect.0 };
    let (mut tried, mut failed) = (Vec::new(), None);
    for account in wanted {
        let Checked { smtp, imap, pop3 } = runtime.block_on(check(account, trying));
        let name = text::plain(account.name.as_bytes());
        let mut fail = |what: &str, problem: &Problem| {
            let said = text::plain(problem.in_words().as_bytes());
            let failure = Failure::new(format!("{what} by {name:?}: {said}"));
            let hint = problem.hint().unwrap_or("look at the account; --untested keeps it as it is");
            match failed {
                None => failed = Some(failure.hint(hint)),
                Some(_) => context.ui.warn(&format!("{what} by {name:?}: {said}\nHint: {hint}")),
            }
        };
        match &smtp {
            Some(Ok(_)) => context.ui.note(&format!("{name}: mail can be sent")),
            Some(Err(problem)) => fail("no mail can be sent", problem),
            None => {}
        }
        match &imap {
            Some(Ok(mailboxes)) => {
                let fetched = text::plain(mailboxes.fetched.join(", ").as_bytes());
                let others = match mailboxes.passed_over.len() {
                    0 => String::new(),
                    count => format!("; {} more at the server", text::count(count as u64, "mailbox", "mailboxes")),
                };
                context.ui.note(&format!("{name}: mail can be fetched by IMAP: {fetched}{others}"));
            }
            Some(Err(problem)) => fail("no mail can be fetched by IMAP", problem),
            None => {}
        }
        match &pop3 {
            Some(Ok(count)) => {
                let there = text::count(*count as u64, "message", "messages");
                context.ui.note(&format!("{name}: mail can be fetched by POP3: {there} at the server"));
            }
            Some(Err(problem)) => fail("no mail can be fetched by POP3", problem),
            None => {}
        }
        let mailboxes = imap
            .and_then(Result::ok)
            .map(|mailboxes| json!({ "fetched": mailboxes.fetched, "passed_over": mailboxes.passed_over }));
        tried.push(json!({
            "account": account.name, "smtp": smtp.map(|smtp| smtp.is_ok()), "imap": mailboxes,
            "pop3": pop3.and_then(Result::ok).map(|messages| json!({ "messages": messages })),
        }));
    }
    failed.map_or(Ok(tried), Err)
}

fn list(context: &Context, carrier: &Carrier) -> Result<ExitCode, Failure> {
    let accounts = some_accounts(carrier)?;
    // Without a daemon nobody fetches, and the accounts are shown as they are.
    let stands = carrier.ask(&Request::Paths).map(|answer| answer.done["inbox"]["accounts"].clone()).ok();
    let state_of = |account: &Account| {
        let states = stands.as_ref()?.as_array()?;
        states.iter().find(|state| state["account"] == account.name.as_str()).cloned()
    };
    context.ui.result(
        || {
            let shown = accounts.iter().map(|account| shown_to_scripts(account, state_of(account)));
            json!({ "schema": 1, "accounts": shown.collect::<Vec<_>>() })
        },
        || accounts.iter().fold(String::new(), |shown, account| shown + &shown_to_people(account, state_of(account))),
    );
    Ok(ExitCode::SUCCESS)
}

fn shown_to_scripts(account: &Account, state: Option<Value>) -> Value {
    let fetched = |incoming: &Incoming, port: u16| {
        json!({
            "host": incoming.host, "port": port, "security": incoming.security, "user": incoming.user,
            "mailboxes": incoming.mailboxes, "at_server": incoming.at_server,
        })
    };
    json!({
        "name": account.name,
        "addresses": account.addresses,
        "default": account.default,
        "smtp": account.smtp.as_ref().map(|smtp| {
            json!({ "host": smtp.host, "port": smtp.port(), "security": smtp.security, "user": smtp.user })
        }),
        "imap": account.imap.as_ref().map(|imap| fetched(imap, imap.imap_port())),
        "pop3": account.pop3.as_ref().map(|pop3| fetched(pop3, pop3.pop3_port())),
        "provider_files_sent": account.provider_files_sent,
        "state": state,
    })
}

fn shown_to_people(account: &Account, state: Option<Value>) -> String {
    let default = if account.default { ", and all others" } else { "" };
    let mut lines = vec![format!("{}  {}{default}", account.name, account.addresses.join(", "))];
    if let Some(smtp) = &account.smtp {
        let user = smtp.user.as_ref().map_or(String::new(), |user| format!(" as {user}"));
        lines.push(format!("    sent by {}:{}{user}{}", smtp.host, smtp.port(), protection(smtp.security)));
    }
    let fetched = |protocol: &str, incoming: &Incoming, port: u16, mailboxes: &str| {
        let at_server = match incoming.at_server {
            AtServer::Leave => "left at the server",
            AtServer::Delete => "deleted at the server once both devices hold it",
        };
        let Incoming { host, user, security, .. } = incoming;
        let protection = protection(*security);
        format!("    fetched by {protocol} from {host}:{port} as {user}{protection}: {mailboxes}; {at_server}")
    };
    match (&account.imap, &account.pop3) {
        (Some(imap), _) => {
            let all = imap.mailboxes.iter().any(|mailbox| mailbox == "*");
            let mailboxes = if all { "all mailboxes".to_owned() } else { imap.mailboxes.join(", ") };
            lines.push(fetched("IMAP", imap, imap.imap_port(), &mailboxes));
        }
        (None, Some(pop3)) => lines.push(fetched("POP3", pop3, pop3.pop3_port(), "the whole maildrop")),
        (None, None) => {}
    }
    if account.smtp.is_some() && account.imap.is_some() {
        let sent = match account.provider_files_sent {
            Some(true) => "    the provider files in Sent what it takes",
            Some(false) => "    the provider files nothing in Sent",
            None => "    whether the provider files in Sent what it takes is not known",
        };
        lines.push(sent.to_owned());
    }
    if let Some(state) = state {
        lines.push(format!("    now {}", now(&state)));
    }
    lines.iter().fold(String::new(), |shown, line| shown + &text::plain(line.as_bytes()) + "\n")
}

/// How fetching stands, as the daemon says.
fn now(state: &Value) -> String {
    let names = |value: &Value| -> Vec<String> {
        value.as_array().into_iter().flatten().filter_map(|name| Some(name.as_str()?.to_owned())).collect()
    };
    let stands = state["state"].as_str().unwrap_or("unknown");
    let (mailboxes, at_once) = (names(&state["mailboxes"]), names(&state["at_once"]));
    let later: Vec<String> = mailboxes.into_iter().filter(|mailbox| !at_once.contains(mailbox)).collect();
    let noticed = [("noticed at once in", at_once), ("looked for in each inbox.poll in", later)];
    let parts = noticed.iter().filter(|(_, names)| !names.is_empty());
    parts.fold(stands.to_owned(), |shown, (how, names)| format!("{shown}; mail is {how} {}", names.join(", ")))
}

fn protection(security: Security) -> &'static str {
    match security {
        Security::Tls => "",
        Security::Starttls => " by STARTTLS",
        Security::Plain => " without TLS",
    }
}

const TEST_JSON: &str = "\
JSON: accounts (account, smtp: true, imap: fetched and passed_over mailboxes, pop3: messages); null where an account has \
no such server.";

const LIST_JSON: &str = "\
JSON: accounts (name, addresses, default, smtp, imap and pop3: host, port, security, user; mailboxes, at_server: leave or \
delete; provider_files_sent: true, false or null, not known; state: as `packetboat inbox` has it, while the daemon runs).";
