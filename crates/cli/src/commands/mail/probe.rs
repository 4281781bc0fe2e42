//! `packetboat mail probe`: whether a provider itself files in Sent what it takes, asked by one mail to oneself.
//!
//! `packetboat mail setup --probe-sent` asks the same of an account that is being added.

use std::process::ExitCode;

use packetboat_daemon::control::Request;
use packetboat_engine::ports::{Clock as _, Entropy};
use packetboat_mail::account::{Account, Patience, ProbeError, Trying, probe_sent, with_provider_files_sent};
use packetboat_mail::message::{Moment, Stamp};
use serde_json::json;

use super::some_accounts;
use crate::carrier::{Carrier, host_name, offset_minutes, runtime};
use crate::failure::Failure;
use crate::opening::Context;
use crate::state::write_whole;
use crate::text;
use crate::world::{SystemClock, SystemEntropy};

/// Runs the command.
pub(super) fn run(context: &Context, carrier: &Carrier, name: Option<&str>) -> Result<ExitCode, Failure> {
    let accounts = some_accounts(carrier)?;
    let named: Vec<&Account> = accounts.iter().filter(|account| name.is_none_or(|name| account.name == name)).collect();
    let account = match (&named[..], name) {
        ([account], _) => *account,
        (_, Some(name)) => {
            return Err(Failure::new(format!("there is no account {name:?}")).hint("`packetboat mail list` names them"));
        }
        (_, None) => {
            return Err(
                Failure::new("there are several accounts").hint("name one of those that `packetboat mail list` shows")
            );
        }
    };
    let can_be_asked = account.smtp.is_some() && account.imap.is_some();
    if !can_be_asked {
        return Err(Failure::new("Sent can be looked at only by IMAP, and only by an account that sends"));
    }
    let files = probe(context, carrier, account)?.map_err(|error| {
        let said = text::plain(error.in_words().as_bytes());
        Failure::new(format!("whether the provider files in Sent what it takes is not known: {said}"))
    })?;
    let path = carrier.home.accounts();
    let written = with_provider_files_sent(&std::fs::read_to_string(&path)?, &account.name, files);
    let Some(written) = written else {
        let shown = text::path(&path);
        return Err(Failure::new(format!("{shown} is written in a way that cannot be changed here"))
            .hint(format!("add provider_files_sent = {files} to the account yourself")));
    };
    write_whole(&path, written.as_bytes())?;
    let runs = carrier.ask(&Request::Who).is_ok();
    context.ui.result(
        || json!({ "schema": 1, "account": account.name, "provider_files_sent": files }),
        || {
            let hint = if runs { " Send the daemon SIGHUP, or start it again, to have it used." } else { "" };
            format!("{} says so now.{hint}\n", text::path(&path))
        },
    );
    Ok(ExitCode::SUCCESS)
}

/// Sends the mail, waits, and tells what came of it.
pub(super) fn probe(
    context: &Context,
    carrier: &Carrier,
    account: &Account,
) -> Result<Result<bool, ProbeError>, Failure> {
    let (hello, connect) = (host_name(), carrier.settings()?.outbox.connect.0);
    let mut random = [0; 16];
    SystemEntropy.fill(&mut random);
    let moment = Moment { unix_seconds: SystemClock.now_ms() / 1000, offset_minutes: offset_minutes() };
    let stamp = Stamp { moment, random, host: hello.clone() };
    let trying = Trying { hello: &hello, source: None, connect };
    context.ui.note("A mail to yourself is on its way; this can take a minute.");
    let probed = runtime(2)?.block_on(probe_sent(account, trying, &stamp, Patience::default()));
    match probed {
        Ok(true) => context.ui.note("The provider files in Sent what it takes, so Sent says what went out."),
        Ok(false) => context.ui.note(
            "The provider files nothing in Sent; file_in_sent = true in the section [outbox] of daemon.toml files a copy \
             from here.",
        ),
        Err(_) => {}
    }
    Ok(probed)
}

pub(super) const JSON: &str = "JSON: account, provider_files_sent.";
