//! What a host knows of secrets that it lends, and lending them anew while the link is up.
//!
//! A token command can run only on the host, and what it gives soon expires. So the host lends the token itself, with the
//! time until which it is good at most, when the link comes up and four times in a token's life as long as it stands.
//! A companion that was left alone goes on until then, and says afterwards since when it cannot.
//! Many commands keep a token and give it again until it expires, so the end is counted from when a token was first seen.
//! A command that fails costs nothing that was lent before. A password is looked for once, however often tokens are lent:
//! the command that knows it may ask a person.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use packetboat_link::Session;
use packetboat_mail::Login;
use packetboat_mail::account::{Account, Accounts, Credentials, Hidden, Token};
use tokio::sync::{Mutex as AsyncMutex, watch};
use tokio::time::sleep;

use crate::clock::Clock;
use crate::files::with_causes;
use crate::lent::Lent;

/// Lends a host's accounts to its companion.
pub(crate) struct Lender {
    lending: watch::Sender<Lending>,
    secrets: AsyncMutex<Secrets>,
    lent: watch::Sender<Option<Arc<Vec<u8>>>>,
    clock: Arc<dyn Clock>,
}

/// What is lent.
#[derive(Clone, Default)]
pub(crate) struct Lending {
    /// The accounts, as their user wrote them.
    pub(crate) accounts: Accounts,
    /// Those whose provider files in Sent what it takes, where the account does not say.
    pub(crate) provider_files: Vec<String>,
}

impl Lender {
    /// One that has lent nothing yet; what it lends goes to `lent`.
    pub(crate) fn new(lending: Lending, lent: watch::Sender<Option<Arc<Vec<u8>>>>, clock: Arc<dyn Clock>) -> Arc<Self> {
        Arc::new(Self { lending: watch::Sender::new(lending), secrets: AsyncMutex::default(), lent, clock })
    }

    /// Lends other accounts from now on.
    pub(crate) async fn set(&self, lending: Lending) {
        self.secrets.lock().await.forget_passwords();
        self.lending.send_replace(lending);
        self.lend().await;
    }

    /// Lends what there is, if it is anything new.
    pub(crate) async fn lend(&self) {
        let mut secrets = self.secrets.lock().await;
        let Lending { accounts, provider_files } = self.lending.borrow().clone();
        let now_ms = self.clock.now().wall_ms;
        let lent = Arc::new(Lent::of(&accounts, &provider_files, &mut secrets, now_ms).await.encode());
        self.lent.send_if_modified(|former| {
            let is_new = former.as_ref() != Some(&lent);
            *former = Some(lent);
            is_new
        });
    }

    /// Lends anew while there is a session, for as long as there are accounts that log in by token.
    pub(crate) async fn keep_fresh(self: Arc<Self>, mut session: watch::Receiver<Option<Session>>) {
        let mut lending = self.lending.subscribe();
        loop {
            if session.wait_for(Option::is_some).await.is_err() {
                return;
            }
            let Some(every) = refresh(&lending.borrow_and_update().accounts) else {
                if lending.changed().await.is_err() {
                    return;
                }
                continue;
            };
            self.lend().await;
            tokio::select! {
                () = sleep(every) => {}
                ended = session.wait_for(Option::is_none) => if ended.is_err() { return },
                changed = lending.changed() => if changed.is_err() { return },
            }
        }
    }
}

/// How often tokens are lent anew; nothing, where no account has any.
fn refresh(accounts: &Accounts) -> Option<Duration> {
    let out = accounts.iter().filter_map(|account| account.smtp.as_ref());
    let out = out.filter(|smtp| smtp.token_command.is_some()).map(|smtp| smtp.token_lifetime);
    let within = accounts.iter().flat_map(|account| account.imap.iter().chain(account.pop3.iter()));
    let within = within.filter(|incoming| incoming.token_command.is_some()).map(|incoming| incoming.token_lifetime);
    let shortest = out.chain(within).map(|lifetime| lifetime.unwrap_or(TOKEN_LIFETIME)).min()?;
    Some(Duration::from_secs(shortest / 4).max(LEAST_REFRESH))
}

/// A secret as it is lent.
#[derive(Clone, PartialEq, Eq, Debug)]
pub(crate) enum Secret {
    Password(Hidden),
    Token(Token),
}

/// The secrets that were found.
#[derive(Default)]
pub(crate) struct Secrets {
    /// By the name of the account and the section in it.
    passwords: BTreeMap<(String, &'static str), Hidden>,
    /// By the command that gives them.
    tokens: BTreeMap<String, Known>,
}

struct Known {
    token: Token,
    asked_ms: u64,
}

/// A command that gives tokens.
#[derive(Clone, Copy)]
pub(crate) struct TokenCommand<'a> {
    pub(crate) command: &'a str,
    /// In seconds; as usual, unless told.
    pub(crate) lifetime: Option<u64>,
}

impl Secrets {
    /// The secret of a section of an account; nothing where it cannot be had.
    pub(crate) async fn find(
        &mut self,
        account: &Account,
        section: &'static str,
        credentials: &Credentials,
        token: Option<TokenCommand<'_>>,
        now_ms: u64,
    ) -> Option<Secret> {
        let place = (account.name.clone(), section);
        if let Some(password) = self.passwords.get(&place) {
            return Some(Secret::Password(password.clone()));
        }
        let known = token.and_then(|token| self.tokens.get(token.command));
        // One command serves sending and fetching.
        if let Some(known) = known.filter(|known| known.asked_ms == now_ms) {
            return Some(Secret::Token(known.token.clone()));
        }
        match (credentials.login().await, token) {
            (Ok(Login::Password { password, .. }), _) => {
                let password = Hidden::new(password);
                self.passwords.insert(place, password.clone());
                Some(Secret::Password(password))
            }
            (Ok(Login::Token { token: text, .. }), Some(TokenCommand { command, lifetime })) => {
                let (text, lifetime_ms) = (Hidden::new(text), lifetime.unwrap_or(TOKEN_LIFETIME).saturating_mul(1000));
                let first_seen = known.map(|known| known.token.clone());
                let token = first_seen
                    // One that is given although it should have expired lives longer than was said.
                    .filter(|token| token.text == text && token.still_good(now_ms).is_ok())
                    .unwrap_or(Token { text, expires_ms: now_ms.saturating_add(lifetime_ms) });
                self.tokens.insert(command.to_owned(), Known { token: token.clone(), asked_ms: now_ms });
                Some(Secret::Token(token))
            }
            (Ok(_), _) => None,
            (Err(error), _) => {
                let error = with_causes(&error);
                tracing::warn!(account = account.name, error, "a secret cannot be lent to the companion");
                // The companion goes on with what it has, and says when that ended.
                known.map(|known| Secret::Token(known.token.clone()))
            }
        }
    }

    fn forget_passwords(&mut self) {
        self.passwords.clear();
    }
}

/// An hour is what the large providers give.
const TOKEN_LIFETIME: u64 = 3600;

const LEAST_REFRESH: Duration = Duration::from_secs(1);

#[cfg(test)]
mod tests {
    use super::*;

    fn accounts(command: &str) -> Accounts {
        let text = format!(
            "[[account]]\nname = \"a\"\naddresses = [\"a@a.test\"]\n[account.smtp]\nhost = \"h\"\nuser = \"a\"\n\
             token_command = {command:?}\ntoken_lifetime = 100\n[account.imap]\nhost = \"h\"\nuser = \"a\"\n\
             token_command = {command:?}\ntoken_lifetime = 100\n"
        );
        Accounts::parse(&text).unwrap()
    }

    async fn lent(secrets: &mut Secrets, command: &str, now_ms: u64) -> Vec<Token> {
        let directory = tempfile::tempdir().unwrap();
        let lent = Lent::of(&accounts(command), &[], secrets, now_ms).await;
        let lent = Lent::decode(&lent.encode()).unwrap().accounts(directory.path()).unwrap();
        let account = lent.iter().next().expect("the account is lent").clone();
        [account.smtp.unwrap().token, account.imap.unwrap().token].into_iter().flatten().collect()
    }

    #[tokio::test]
    async fn a_token_is_lent_until_it_ends_and_one_command_serves_both_ways() {
        let directory = tempfile::tempdir().unwrap();
        let (token, runs) = (directory.path().join("token"), directory.path().join("runs"));
        let command = format!("echo >>{}; cat {}", runs.display(), token.display());
        let mut secrets = Secrets::default();
        let expected = |text: &str, expires_ms| vec![Token { text: Hidden::new(text), expires_ms }; 2];
        std::fs::write(&token, "one").unwrap();
        assert_eq!(lent(&mut secrets, &command, 1_000).await, expected("one", 101_000));
        assert_eq!(std::fs::read_to_string(&runs).unwrap().lines().count(), 1);
        // A command that keeps its token gives it again, and it lives no longer for that.
        assert_eq!(lent(&mut secrets, &command, 51_000).await, expected("one", 101_000));
        std::fs::write(&token, "two").unwrap();
        assert_eq!(lent(&mut secrets, &command, 90_000).await, expected("two", 190_000));
        // One that fails takes nothing away, so that the companion can say when it ended.
        std::fs::remove_file(&token).unwrap();
        assert_eq!(lent(&mut secrets, &command, 200_000).await, expected("two", 190_000));
        // And one that is given after its supposed end is good after all.
        std::fs::write(&token, "two").unwrap();
        assert_eq!(lent(&mut secrets, &command, 201_000).await, expected("two", 301_000));
    }

    #[test]
    fn tokens_are_lent_anew_four_times_in_the_shortest_life() {
        assert_eq!(refresh(&accounts("x")), Some(Duration::from_secs(25)));
        let usual = accounts("x").write().unwrap().replace("token_lifetime = 100", "");
        assert_eq!(refresh(&Accounts::parse(&usual).unwrap()), Some(Duration::from_secs(900)));
        assert_eq!(refresh(&Accounts::default()), None);
    }
}
