//! An account that logs in by token: the companion sends by what the host lends it, gets a fresh one while the link is up,
//! and says when the last one ended.

use std::fs;
use std::time::{Duration, Instant};

use crate::network::{Cut, Line, Network, SERVER};
use crate::pair::{BY_COMPANION, BY_HOST, Pair, start_sink};

/// How long a token is good, in seconds; it is lent anew four times in that.
const LIFETIME: u64 = 8;

#[test]
fn a_companion_sends_by_tokens_that_its_host_lends_and_says_when_the_last_one_ended() {
    let Some(network) = Network::new() else { return };
    let directory = tempfile::tempdir().unwrap();
    let Some(sink) = start_sink(&network, &directory) else { return };
    let token = directory.path().join("what-the-command-gives");
    fs::write(&token, "first").unwrap();
    fs::write(directory.path().join("sink.token"), "first").unwrap();
    let account = format!(
        "[[account]]\nname = \"net\"\naddresses = [\"@example.org\"]\ndefault = true\n[account.smtp]\nhost = \"{SERVER}\"\n\
         port = 2500\nsecurity = \"plain\"\nuser = \"a\"\ntoken_command = \"cat {}\"\ntoken_lifetime = {LIFETIME}\n",
        token.display()
    );
    let mut pair = Pair::join(network, directory, Some(sink), &account, "b@example.org");
    let id = pair.send();
    pair.arrives_once(&id, BY_HOST);
    pair.network.cut(Line::HostPath, Cut::Unplugged);
    let id = pair.send();
    pair.arrives_once(&id, BY_COMPANION);

    // The provider ends the first; the host's command gives another, which the companion has within a quarter of a life.
    fs::write(&token, "second").unwrap();
    pair.set_token("second");
    let id = pair.send();
    pair.arrives_once(&id, BY_COMPANION);

    // The command gives none any more. What was lent ends, and the companion does not try with it.
    fs::remove_file(&token).unwrap();
    std::thread::sleep(Duration::from_secs(LIFETIME + 1));
    let id = pair.send();
    let began = Instant::now();
    pair.until("the outbox says when it ended", |pair| {
        let outbox = pair.json("host", &["outbox"]).to_string();
        outbox.contains("the token that the host lent expired at")
    });
    assert!(pair.arrivals(&id).is_empty(), "after {:?}", began.elapsed());
    fs::write(&token, "second").unwrap();
    pair.arrives_once(&id, BY_COMPANION);
    let state = pair.path("companion").join("state");
    let holds_command = |directory: &std::path::Path| {
        fs::read_dir(directory)
            .unwrap()
            .flatten()
            .filter_map(|entry| fs::read(entry.path()).ok())
            .any(|bytes| bytes.windows(22).any(|window| window == b"what-the-command-gives"))
    };
    assert!(!holds_command(&state.join("daemon")), "no command of the host is on the companion");
    assert!(!pair.whole_log("companion").contains("second"), "no token is in a log");
}
