//! A mail whose answer was lost, and Sent at a real Dovecot: where the provider files what it takes, a mail that stands
//! there is not sent again, by whichever device; where it does not, Sent says nothing, and the mail is sent again.
//!
//! The server that takes mail closes without an answer, and the test puts into Sent what a provider would have put there.

use crate::network::{Cut, Line, Network, SERVER};
use crate::pair::{BY_COMPANION, BY_HOST, Pair, start_sink};
use crate::servers::{PASSWORD, Place, Servers, USER};

fn start(provider_files_sent: bool) -> Option<(Pair, Servers)> {
    let network = Network::new()?;
    let namespace = Some(network.namespace(crate::network::Place::Net));
    let servers = Servers::start_at(Place { address: SERVER.to_owned(), namespace })?;
    let directory = tempfile::tempdir().unwrap();
    let sink = start_sink(&network, &directory)?;
    servers.doveadm(&["mailbox", "create", "-u", USER, "Sent"]);
    let account = format!(
        "[[account]]\nname = \"net\"\naddresses = [\"@example.org\"]\ndefault = true\n\
         provider_files_sent = {provider_files_sent}\n[account.smtp]\nhost = \"{SERVER}\"\nport = 2500\n\
         security = \"plain\"\n[account.imap]\nhost = \"{SERVER}\"\nport = {}\nuser = \"{USER}\"\n\
         password = \"{PASSWORD}\"\nca_file = {:?}\n",
        servers.imaps,
        servers.authority()
    );
    Some((Pair::join(network, directory, Some(sink), &account, "b@example.org"), servers))
}

/// Sends a mail whose answer is lost, which stands in Sent if `filed`, and says from where it was accepted in the end.
fn answer_is_lost(pair: &mut Pair, servers: &Servers, number: usize, filed: bool) -> Vec<String> {
    if filed {
        let id = format!("<{number}@test>");
        servers.save("Sent", format!("Subject: {number}\nMessage-ID: {id}\n\nmail {number}\n").as_bytes());
    }
    pair.how("mute");
    let id = pair.send();
    assert_eq!(id, format!("<{number}@test>"));
    pair.until("the server has it", |pair| !pair.arrivals(&id).is_empty());
    pair.how("accept");
    pair.until("both are done", |pair| pair.open("host") == 0 && pair.open("companion") == 0);
    pair.arrivals(&id)
}

#[test]
fn a_mail_that_the_provider_filed_in_sent_is_not_sent_again() {
    let Some((mut pair, servers)) = start(true) else { return };
    assert_eq!(answer_is_lost(&mut pair, &servers, 1, true), [BY_HOST]);
    // The server did not take this one, as far as Sent shows.
    assert!(answer_is_lost(&mut pair, &servers, 2, false).len() > 1);

    // The companion looks there by the account that it was lent.
    pair.network.cut(Line::HostPath, Cut::Unplugged);
    assert_eq!(answer_is_lost(&mut pair, &servers, 3, true), [BY_COMPANION]);
}

#[test]
fn what_stands_in_sent_proves_nothing_where_the_provider_files_nothing() {
    let Some((mut pair, servers)) = start(false) else { return };
    assert!(answer_is_lost(&mut pair, &servers, 1, true).len() > 1);
}
