//! `packetboat paths`: the ways out, and the link.

use std::process::ExitCode;

use clap::Args;
use packetboat_daemon::control::Request;
use packetboat_engine::ports::Clock as _;
use serde_json::{Value, json};

use crate::carrier::Carrier;
use crate::failure::Failure;
use crate::opening::Context;
use crate::text;
use crate::world::SystemClock;

/// Show this device's own path, the link, and what waits of vaults on the companion
///
/// A path is known by use: it is up when something last went by it, and down when the last connection could not be made.
#[derive(Debug, Args)]
#[command(after_help = JSON)]
pub(crate) struct PathsArgs {}

/// Runs the command.
pub(crate) fn run(context: &Context, _: &PathsArgs) -> Result<ExitCode, Failure> {
    let carrier = Carrier::locate(context)?;
    let stands = carrier.ask(&Request::Paths)?.done;
    context.ui.result(
        || {
            json!({
                "schema": 1, "role": stands["role"], "own": stands["own"], "link": stands["link"],
                "inbox": stands["inbox"], "carried": stands["carried"], "relayed": stands["relayed"],
            })
        },
        || shown(&stands) + &carried(&stands["carried"]) + &relayed(&stands),
    );
    for account in stands["inbox"]["accounts"].as_array().into_iter().flatten() {
        if let Some(problem) = super::inbox::problem(account) {
            context.ui.warn(&problem);
        }
    }
    if let Some(ahead) = stands["link"]["clock_ahead_ms"].as_i64()
        && ahead.unsigned_abs() > packetboat_daemon::peer::CLOCKS_APART_MS
    {
        context.ui.warn(&clocks_apart(ahead));
    }
    Ok(ExitCode::SUCCESS)
}

/// What clocks that are apart do, and what they do not.
fn clocks_apart(ahead_ms: i64) -> String {
    let hours = ahead_ms.unsigned_abs() / 3_600_000;
    let apart = if hours < 48 { text::count(hours, "hour", "hours") } else { text::count(hours / 24, "day", "days") };
    let direction = if ahead_ms > 0 { "ahead of" } else { "behind" };
    format!(
        "the other device's clock is {apart} {direction} this one's: set the one that is wrong. Mails go their way all the \
         same, since turns do not go by it; but their dates are wrong, and certificates may be refused"
    )
}

fn shown(stands: &Value) -> String {
    let now = SystemClock.now_ms();
    let ago = |value: &Value| value.as_i64().map_or("never".to_owned(), |then| text::ago(now, then));
    let own = &stands["own"];
    let up = match own["up"].as_bool() {
        Some(true) => format!("up, since {}", ago(&own["since_ms"])),
        Some(false) => format!("down, since {}", ago(&own["since_ms"])),
        None => "not used yet".to_owned(),
    };
    let mut shown = format!("own path   {up}\n           last success {}\n", ago(&own["last_success_ms"]));
    if let Some(why) = own["last_failure"].as_str() {
        let when = ago(&own["last_failure_ms"]);
        shown.push_str(&format!("           last failure {when}: {}\n", text::plain(why.as_bytes())));
    }
    let link = &stands["link"];
    if link.is_null() {
        return shown + "link       none; `packetboat pair` makes one\n";
    }
    let peer = text::plain(link["peer"].as_str().unwrap_or_default().as_bytes());
    if link["up"].as_bool() == Some(true) {
        let round_trip = link["round_trip_ms"].as_f64().unwrap_or_default();
        let since = ago(&link["since_ms"]);
        let remote = link["remote"].as_str().unwrap_or_default();
        shown + &format!("link       to {peer} at {remote}: up, since {since}, round trip {round_trip:.1} ms\n")
    } else {
        let why = link["error"].as_str().map_or(String::new(), |why| format!(": {}", text::plain(why.as_bytes())));
        shown + &format!("link       to {peer}: down, since {}{why}\n", ago(&link["since_ms"]))
    }
}

/// The vaults that are carried for the host, and what waits of each.
fn carried(stands: &Value) -> String {
    let mut shown = String::new();
    for vault in stands["vaults"].as_array().into_iter().flatten() {
        let text_of = |key: &str| text::plain(vault[key].as_str().unwrap_or_default().as_bytes());
        let number = |key: &str| vault[key].as_u64().unwrap_or_default();
        let id: String = text_of("vault").chars().take(8).collect();
        let reached = if vault["reached"] == true { "reached" } else { "not reached now" };
        shown.push_str(&format!("carries    vault {id} at {}: {reached}\n", text_of("place")));
        shown.push_str(&format!("           {}; {} copies\n", waits(vault), number("copies")));
        let member = &vault["member"];
        if let Some(error) = member["error"].as_str() {
            let error = text::plain(error.as_bytes());
            shown.push_str(&format!("           this device's own replica is not in step: {error}\n"));
        } else if let Some(last) = member["last_round_ms"].as_i64() {
            let last = text::ago(SystemClock.now_ms(), last);
            shown.push_str(&format!("           this device's own replica was brought in step {last}\n"));
        }
        if number("aside") > 0 {
            let aside = number("aside");
            shown.push_str(&format!(
                "           {aside} objects of a forked lane are set aside; run sync on the host\n"
            ));
        }
    }
    shown
}

/// What waits of vaults on the companion, as the host last heard.
fn relayed(stands: &Value) -> String {
    let now = SystemClock.now_ms();
    let peer = text::plain(stands["link"]["peer"].as_str().unwrap_or_default().as_bytes());
    let relayed = &stands["relayed"];
    let as_of = match relayed["asked_ms"].as_i64() {
        Some(asked) if stands["link"]["up"] != true => format!(", as of {}", text::ago(now, asked)),
        _ => String::new(),
    };
    let mut shown = String::new();
    for vault in relayed["vaults"].as_array().into_iter().flatten() {
        let id: String = text::plain(vault["vault"].as_str().unwrap_or_default().as_bytes()).chars().take(8).collect();
        let role = if vault["member"] == true { "is a member" } else { "carries it" };
        let reached = if vault["reached"] == true { "reaches it" } else { "does not reach it now" };
        shown.push_str(&format!("vault      {id}: {peer} {role} and {reached}{as_of}\n"));
        if vault["waiting"].as_u64().unwrap_or_default() > 0 {
            shown.push_str(&format!("           {} there\n", waits(vault)));
        }
    }
    shown
}

/// What waits of a vault, and since when.
fn waits(vault: &Value) -> String {
    let since = match vault["since_ms"].as_i64() {
        Some(since) => format!(", the oldest came {}", text::ago(SystemClock.now_ms(), since)),
        None => String::new(),
    };
    let bytes = text::bytes(vault["waiting_bytes"].as_u64().unwrap_or_default());
    match vault["waiting"].as_u64().unwrap_or_default() {
        0 => "nothing waits".to_owned(),
        1 => format!("1 object waits ({bytes}{since})"),
        count => format!("{count} objects wait ({bytes}{since})"),
    }
}

const JSON: &str = "\
JSON: role (host, companion or null), own (up, since_ms, last_success_ms, last_failure, last_failure_ms), link (null, or \
peer, up, since_ms, remote, round_trip_ms, error, tries, clock_ahead_ms), inbox (accounts, as in `packetboat inbox`, and \
exchange_error), carried (null, or vaults with vault, place, reached, why_not, waiting, waiting_bytes, copies, copies_bytes, \
aside, aside_bytes, since_ms, member (null, or last_round_ms, error); held_bytes, space_bytes), relayed (null, or asked_ms \
and vaults with vault, member, reached, waiting, waiting_bytes, since_ms: what a host last heard of its companion). Times are milliseconds since 1970.";

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn it_is_said_by_how_much_and_in_which_direction_clocks_are_apart() {
        let day = 86_400_000;
        for (ahead, said) in
            [(400 * day, "400 days ahead of"), (-3 * day, "3 days behind"), (30 * 3_600_000, "30 hours ahead of")]
        {
            assert!(clocks_apart(ahead).contains(said), "{}", clocks_apart(ahead));
        }
    }
}
