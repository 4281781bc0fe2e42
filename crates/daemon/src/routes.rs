//! Whose server sends a mail: the accounts of this device and, on a companion, those that its host gave it.
//!
//! What a host lends comes first on its companion, since what a companion sends is its host's.

use std::sync::Arc;
use std::time::Duration;

use packetboat_mail::account::{Account, Accounts};
use packetboat_mail::address::{Address, ReversePath};
use packetboat_mail::smtp::Failure;

use crate::clock::Clock;
use crate::files::with_causes;
use crate::outbox::transmit::{Routes, ServerFuture};
use crate::settings::Settings;

/// The accounts that this device sends by.
pub struct AccountRoutes {
    own: Accounts,
    of_host: Accounts,
    hello: String,
    connections: usize,
    connect: Duration,
    answer: Duration,
    clock: Arc<dyn Clock>,
}

impl AccountRoutes {
    /// Sends by the accounts that a host lent, and by this device's own where it was lent none for a sender.
    ///
    /// What a companion sends is its host's, so an account of its own that takes any sender must not come first.
    pub fn new(own: Accounts, of_host: Accounts, hello: String, settings: &Settings, clock: Arc<dyn Clock>) -> Self {
        let outbox = &settings.outbox;
        Self {
            own,
            of_host,
            hello,
            connections: outbox.connections,
            connect: outbox.connect.0,
            answer: outbox.answer.0,
            clock,
        }
    }

    fn find(&self, name: &str) -> Option<&Account> {
        self.of_host.iter().chain(self.own.iter()).find(|account| account.name == name && account.smtp.is_some())
    }
}

impl Routes for AccountRoutes {
    fn account(&self, sender: &str) -> Option<Arc<str>> {
        let sender = match sender {
            "" => ReversePath::Null,
            sender => ReversePath::Mailbox(Address::parse(sender).ok()?),
        };
        let account = self.of_host.for_sender(&sender).or_else(|| self.own.for_sender(&sender))?;
        Some(Arc::from(account.name.as_str()))
    }

    fn server<'a>(&'a self, account: &'a str) -> ServerFuture<'a> {
        Box::pin(async move {
            let smtp = self.find(account).and_then(|account| account.smtp.as_ref());
            let smtp = smtp.ok_or_else(|| Failure::Setting { what: format!("there is no account {account:?}") })?;
            let failed = |error: &dyn std::error::Error| Failure::Setting { what: with_causes(error) };
            smtp.still_good(self.clock.now().wall_ms).map_err(|error| failed(&error))?;
            let server = smtp.server(&self.hello, None).await;
            let mut server = server.map_err(|error| failed(&error))?;
            server.deadlines.connect = server.deadlines.connect.min(self.connect);
            // The machines count on it that nobody waits longer for the answer to the dot.
            server.deadlines.answer = self.answer;
            Ok(server)
        })
    }

    fn connections(&self) -> usize {
        self.connections
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::clock::BootClock;

    #[test]
    fn a_companion_sends_its_hosts_mail_by_the_account_that_was_lent() {
        let named = |name: &str| {
            let text = format!(
                "[[account]]\nname = \"{name}\"\naddresses = [\"@{name}.org\"]\ndefault = true\n[account.smtp]\nhost = \"{name}\"\n"
            );
            Accounts::parse(&text).unwrap()
        };
        let routes = |lent| {
            let clock = Arc::new(BootClock::new([0; 16]));
            AccountRoutes::new(named("own"), lent, "hello".to_owned(), &Settings::default(), clock)
        };
        let companion = routes(named("lent"));
        assert_eq!(companion.account("a@lent.org").as_deref(), Some("lent"));
        assert_eq!(companion.account("a@elsewhere.org").as_deref(), Some("lent"));
        let nothing = routes(Accounts::default());
        assert_eq!(nothing.account("a@elsewhere.org").as_deref(), Some("own"));
    }

    #[tokio::test]
    async fn a_lent_token_that_expired_is_not_tried_and_says_when_it_ended() {
        let lent = |expires_ms: u64| {
            let text = format!(
                "[[account]]\nname = \"a\"\naddresses = [\"@a.test\"]\n[account.smtp]\nhost = \"h\"\nuser = \"a\"\n\
                 token = {{ text = \"secret\", expires_ms = {expires_ms} }}"
            );
            let (accounts, clock) = (Accounts::parse(&text).unwrap(), Arc::new(BootClock::new([0; 16])));
            AccountRoutes::new(Accounts::default(), accounts, "hello".to_owned(), &Settings::default(), clock)
        };
        // The first of January 2026, and a day that no test sees.
        let Err(Failure::Setting { what }) = lent(1_767_225_600_000).server("a").await.map(|_| ()) else {
            panic!("it expired")
        };
        assert!(what.contains("expired at Thu, 1 Jan 2026 00:00:00 +0000"), "{what}");
        assert!(!what.contains("secret"), "{what}");
        lent(32_503_680_000_000).server("a").await.unwrap();
    }
}
