//! From accounts to what is fetched: which protocol, what the record calls the account, and which mailboxes.
//!
//! The record names an account by user, server and port, and not by what a configuration calls it. UIDs mean the same on
//! two devices exactly when they are of one user at one server; that two people call their accounts "home" means nothing.

use packetboat_mail::account::{Account, Accounts, Incoming};
use packetboat_mail::imap::{Chosen, ImapError, ImapSession, is_inbox_alone};
use packetboat_mail::maildir::FolderName;

use super::status::{Labels, Trouble};

/// One server that mail is fetched from.
#[derive(Clone, PartialEq, Debug)]
pub(super) struct Source {
    pub(super) labels: Labels,
    pub(super) protocol: Protocol,
    pub(super) incoming: Incoming,
}

impl Source {
    /// Whether a command gives a fresh token for each login.
    pub(super) fn is_by_command(&self) -> bool {
        self.incoming.token_command.is_some()
    }

    /// Whether a token that was lent is good still.
    pub(super) fn still_good(&self, now_ms: u64) -> Result<(), Trouble> {
        self.incoming.still_good(now_ms).map_err(|error| Trouble::Account(error.into()))
    }
}

/// How it is fetched.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) enum Protocol {
    Imap,
    Pop3,
}

/// What is fetched: the device's own accounts, then those of its host that it does not have itself.
///
/// Where an account has both protocols, it is fetched by IMAP, which tells more.
pub(super) fn sources(own: &Accounts, of_host: &Accounts) -> Vec<Source> {
    let mut found: Vec<Source> = Vec::new();
    for source in own.iter().chain(of_host.iter()).filter_map(source) {
        if !found.iter().any(|known| known.labels.identity == source.labels.identity) {
            found.push(source);
        }
    }
    found
}

fn source(account: &Account) -> Option<Source> {
    let (protocol, incoming, name) = match (&account.imap, &account.pop3) {
        (Some(imap), _) => (Protocol::Imap, imap, "imap"),
        (None, Some(pop3)) => (Protocol::Pop3, pop3, "pop3"),
        (None, None) => return None,
    };
    let port = incoming.port.map_or(String::new(), |port| format!(":{port}"));
    let identity = format!("{name} {}@{}{port}", incoming.user, incoming.host.to_ascii_lowercase());
    let labels = Labels { account: account.name.clone(), identity, protocol: name };
    Some(Source { labels, protocol, incoming: incoming.clone() })
}

/// The mailboxes to fetch, as the server names them, and their folders; the troubles are of mailboxes that have none.
pub(super) async fn mailboxes(
    session: &mut ImapSession,
    wanted: &[String],
) -> Result<(Vec<(String, FolderName)>, Vec<Trouble>), ImapError> {
    let chosen = match is_inbox_alone(wanted) {
        true => Chosen::inbox(),
        false => Chosen::of(&session.mailboxes().await?, wanted),
    };
    let missing = chosen.missing.into_iter().map(|mailbox| Trouble::NoMailbox { mailbox });
    let troubles = chosen.unplaced.into_iter().map(Trouble::from).chain(missing).collect();
    Ok((chosen.found, troubles))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn accounts(text: &str) -> Accounts {
        Accounts::parse(text).unwrap()
    }

    #[test]
    fn one_account_of_two_devices_is_fetched_once() {
        let own = accounts(
            "[[account]]\nname = \"mine\"\naddresses = [\"a@a.test\"]\n\
             [account.imap]\nhost = \"IMAP.a.test\"\nuser = \"a\"\npassword = \"p\"\n\
             [account.pop3]\nhost = \"pop.a.test\"\nuser = \"a\"\npassword = \"p\"",
        );
        let of_host = accounts(
            "[[account]]\nname = \"home\"\naddresses = [\"a@a.test\"]\n\
             [account.imap]\nhost = \"imap.a.test\"\nuser = \"a\"\npassword = \"p\"\n\
             [[account]]\nname = \"mine\"\naddresses = [\"b@b.test\"]\n\
             [account.pop3]\nhost = \"pop.b.test\"\nport = 1100\nuser = \"b\"\npassword = \"p\"",
        );
        let found: Vec<_> = sources(&own, &of_host).into_iter().map(|source| source.labels.identity).collect();
        assert_eq!(found, ["imap a@imap.a.test", "pop3 b@pop.b.test:1100"]);
    }
}
