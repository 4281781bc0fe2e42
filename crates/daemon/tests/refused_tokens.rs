//! A token that a server refuses: where it was good for a while, its command gives another; where it never was, somebody
//! has to look after the account.

mod alone;
#[path = "../../mail/tests/servers/scripted.rs"]
mod scripted;

use std::sync::{Arc, Mutex};
use std::time::Duration;

use alone::{Alone, until};
use packetboat_mail::account::Accounts;
use scripted::{Answer, say, serve};
use tokio::time::sleep;

/// What a server with an empty inbox says to a line of a client that logs in by token, if it is `good`.
fn answer(line: &str, good: &str) -> Answer {
    let (tag, command) = line.split_once(' ').unwrap_or((line, ""));
    let done = |more: &str| say(format!("{more}{tag} OK done\r\n"));
    match command.split(' ').next().unwrap_or_default() {
        "CAPABILITY" => done("* CAPABILITY IMAP4rev1 IDLE AUTH=XOAUTH2\r\n"),
        "AUTHENTICATE" => say("+ \r\n"),
        "EXAMINE" | "SELECT" => done("* 0 EXISTS\r\n* OK [UIDVALIDITY 7] so\r\n* OK [UIDNEXT 1] so\r\n"),
        "IDLE" => say("+ idling\r\n"),
        // The proof, behind the first command that has a tag of the session's own, or the end of a failed one.
        "" if line.is_empty() => say("A0001 NO [AUTHENTICATIONFAILED] expired\r\n"),
        "" if line == proof(good) => say("A0001 OK in\r\n"),
        "" => say("+ eyJzdGF0dXMiOiI0MDEifQ==\r\n"),
        _ => done(""),
    }
}

/// XOAUTH2's response, as the client writes it.
fn proof(token: &str) -> String {
    use std::fmt::Write as _;
    const DIGITS: &[u8; 64] = b"ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789+/";
    let text = format!("user=a\x01auth=Bearer {token}\x01\x01");
    let mut proof = String::new();
    for three in text.as_bytes().chunks(3) {
        let bits = three.iter().fold(0_u32, |bits, byte| bits << 8 | u32::from(*byte)) << (8 * (3 - three.len()));
        for place in 0..4 {
            let digit = DIGITS[(bits >> (18 - 6 * place)) as usize & 63] as char;
            let _always = proof.write_char(if place > three.len() { '=' } else { digit });
        }
    }
    proof
}

#[test]
fn a_token_that_expired_is_replaced_at_once_and_one_that_never_was_good_is_told() {
    alone::run(async |home| {
        let directory = tempfile::tempdir().unwrap();
        let (token, runs) = (directory.path().join("token"), directory.path().join("runs"));
        let good: Arc<Mutex<String>> = Arc::new(Mutex::new("first".to_owned()));
        let (endpoint, _serving) = serve({
            let good = good.clone();
            move |line| line.map_or_else(|| say("* OK hello\r\n"), |line| answer(line, &good.lock().unwrap()))
        })
        .await;
        let changes_to = |to: &str| *good.lock().unwrap() = to.to_owned();
        std::fs::write(&token, "first").unwrap();
        let command = format!("echo >>{}; cat {}", runs.display(), token.display());
        let accounts = Accounts::parse(&format!(
        "[[account]]\nname = \"home\"\naddresses = [\"a@a.test\"]\n[account.imap]\nhost = \"127.0.0.1\"\nport = {}\n\
         security = \"plain\"\nuser = \"a\"\ntoken_command = {command:?}\n",
        endpoint.port
    ))
    .unwrap();
        let age = Duration::from_secs(2);
        let alone = Alone::start_with(home, accounts, Duration::from_millis(300), age);
        let count = || std::fs::read_to_string(&runs).unwrap_or_default().lines().count();
        until("it is watched", || alone.is("watching")).await;
        assert_eq!(count(), 1);

        // The provider ends the first token after a while, and gives another.
        sleep(age).await;
        std::fs::write(&token, "second").unwrap();
        changes_to("second");
        until("the command is asked again", || count() == 2).await;
        let before = alone.stands().last_success_ms;
        until("mail is fetched by the new one", || alone.is("watching") && alone.stands().last_success_ms > before)
            .await;
        assert_eq!(alone.stands().error, None, "nobody is troubled with it");

        // The provider wants a third, and the command knows of none: it is asked once more, and no server is pestered.
        sleep(age).await;
        changes_to("third");
        until("the refusal is told", || alone.is("refused")).await;
        sleep(Duration::from_secs(1)).await;
        assert_eq!(count(), 3);
        assert!(alone.stands().error.is_some_and(|error| error.contains("expired")));
        alone.end().await;
    });
}
