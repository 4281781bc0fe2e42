//! The pair against Debian's Postfix and Dovecot: login behind TLS, each path cut in each way, and what is wrong with an
//! account told with a hint.

use std::fs;
use std::process::Stdio;

use crate::network::{Cut, Line, Network, SERVER};
use crate::pair::{BY_COMPANION, BY_HOST, Pair};
use crate::servers::{PASSWORD, Place, Servers, USER};

/// The pair and the servers in its network; nothing, where either cannot be had.
fn start() -> Option<(Pair, Servers)> {
    let network = Network::new()?;
    let namespace = Some(network.namespace(crate::network::Place::Net));
    let servers = Servers::start_at(Place { address: SERVER.to_owned(), namespace })?;
    let account = account(&servers, PASSWORD);
    Some((Pair::join(network, tempfile::tempdir().unwrap(), None, &account, "alice@example.test"), servers))
}

fn account(servers: &Servers, password: &str) -> String {
    format!(
        "[[account]]\nname = \"net\"\naddresses = [\"@example.org\"]\ndefault = true\n[account.smtp]\n\
         host = \"{SERVER}\"\nport = {}\nsecurity = \"starttls\"\nuser = \"{USER}\"\npassword = \"{password}\"\n\
         ca_file = {:?}\n",
        servers.submission,
        servers.authority()
    )
}

#[track_caller]
fn arrives_once(pair: &Pair, servers: &Servers, id: &str, from: &str) {
    pair.until("the mail is in the mailbox", |_| servers.count_in_inbox(id) > 0);
    pair.until("the outbox knows", |pair| pair.open("host") == 0 && pair.open("companion") == 0);
    assert_eq!(servers.taken_from(id), [from], "{}", servers.log());
    assert_eq!(servers.count_in_inbox(id), 1);
}

#[test]
fn postfix_takes_each_mail_once_by_the_path_that_is_open() {
    let Some((mut pair, servers)) = start() else { return };
    let id = pair.send();
    arrives_once(&pair, &servers, &id, BY_HOST);
    let mut cuts = vec![Cut::Unplugged, Cut::Silent];
    if pair.network.has_nftables() {
        cuts.push(Cut::Refused);
    }
    for cut in cuts {
        pair.network.cut(Line::HostPath, cut);
        let id = pair.send();
        arrives_once(&pair, &servers, &id, BY_COMPANION);
        pair.network.mend(Line::HostPath);

        pair.network.cut(Line::CompanionPath, cut);
        let id = pair.send();
        arrives_once(&pair, &servers, &id, BY_HOST);
        pair.network.mend(Line::CompanionPath);
    }
}

#[test]
fn a_wrong_password_and_an_untrusted_certificate_are_told_with_a_hint() {
    let Some((mut pair, servers)) = start() else { return };
    let accounts = pair.path("host").join("config/accounts.toml");
    let good = fs::read_to_string(&accounts).unwrap();
    let other = concat!(env!("CARGO_MANIFEST_DIR"), "/../mail/tests/servers/some-authority.pem");
    let trusting_another = good.replace(servers.authority().to_str().unwrap(), other);
    for (bad, why, hint) in [
        (account(&servers, "wrong"), "does not accept the login of alice", "app password"),
        (trusting_another, "certificate", "`ca_file`"),
    ] {
        assert_ne!(bad, good);
        fs::write(&accounts, bad).unwrap();
        let output = pair.command("host", &["mail", "test"]).stderr(Stdio::piped()).output().unwrap();
        let said = String::from_utf8_lossy(&output.stderr);
        assert_eq!(output.status.code(), Some(1), "{said}");
        assert!(said.contains(why) && said.contains("Hint: ") && said.contains(hint), "{said}");

        // The daemon has the account after a start; the mail waits and says why, and goes when the account is right.
        for device in ["host", "companion"] {
            pair.end(device, rustix::process::Signal::TERM);
        }
        pair.run("host");
        let id = pair.send();
        pair.until("the outbox says why", |pair| {
            let outbox = pair.json("host", &["outbox"]);
            let mails = outbox["mails"].as_array().cloned().unwrap_or_default();
            mails.iter().any(|mail| mail["paths"][0]["last_failure"].as_str().is_some_and(|said| said.contains(why)))
        });
        assert_eq!(servers.count_in_inbox(&id), 0);
        pair.end("host", rustix::process::Signal::TERM);
        fs::write(&accounts, &good).unwrap();
        pair.run("host");
        pair.run("companion");
        // By whichever path: a turn that the host could not use goes to the companion.
        pair.until("the mail is in the mailbox", |_| servers.count_in_inbox(&id) > 0);
        pair.until("both are done", |pair| pair.open("host") == 0 && pair.open("companion") == 0);
        assert_eq!(servers.count_in_inbox(&id), 1);
    }
    assert!(
        !servers.log().contains("wrong") && !pair.whole_log("host").contains(PASSWORD),
        "passwords stay out of logs"
    );
}
