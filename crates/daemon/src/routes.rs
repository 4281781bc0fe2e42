//! Whose server sends a mail: the accounts of this device and, on a companion, those that its host gave it.
//!
//! A host gives its companion what it needs to send and to fetch by: the servers, with the passwords themselves and the certificates
//! of private authorities, since commands and files of the host mean nothing elsewhere. It travels over the link, which is
//! encrypted to the companion's key, and lies there sealed under that device's own key in a file only its user can read.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use packetboat_core::keys::{DeviceKey, Nonce, open_with, seal_with};
use packetboat_mail::account::{Account, Accounts, Credentials, Hidden, Incoming};
use packetboat_mail::address::{Address, ReversePath};
use packetboat_mail::smtp::{Failure, Login};
use serde::{Deserialize, Serialize};
use thiserror::Error;

use crate::files::{self, with_causes};
use crate::outbox::transmit::{Routes, ServerFuture};
use crate::parting::LENT_CERTIFICATE;
use crate::settings::Settings;

/// The accounts that this device sends by.
pub struct AccountRoutes {
    own: Accounts,
    of_host: Accounts,
    hello: String,
    connections: usize,
    connect: Duration,
    answer: Duration,
}

impl AccountRoutes {
    /// Sends by the accounts that a host lent, and by this device's own where it was lent none for a sender.
    ///
    /// What a companion sends is its host's, so an account of its own that takes any sender must not come first.
    pub fn new(own: Accounts, of_host: Accounts, hello: String, settings: &Settings) -> Self {
        let outbox = &settings.outbox;
        Self {
            own,
            of_host,
            hello,
            connections: outbox.connections,
            connect: outbox.connect.0,
            answer: outbox.answer.0,
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
            let server = smtp.server(&self.hello, None).await;
            let mut server = server.map_err(|error| Failure::Setting { what: with_causes(&error) })?;
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

/// What a host gives its companion to send by.
#[derive(Clone, PartialEq, Debug, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Lent {
    accounts: Accounts,
    /// Files of certificates by the names that the accounts give them.
    certificates: BTreeMap<PathBuf, String>,
}

impl Lent {
    /// What of a host's accounts a companion can send by; an account whose password cannot be had is left out.
    ///
    /// `provider_files` names those whose provider files in Sent what it takes, where the account does not say.
    pub async fn of(accounts: &Accounts, provider_files: &[String]) -> Self {
        let mut lent = Vec::new();
        let mut certificates = BTreeMap::new();
        for account in accounts.iter() {
            let mut given = Account { smtp: None, imap: None, pop3: None, ..account.clone() };
            if provider_files.contains(&account.name) {
                given.provider_files_sent.get_or_insert(true);
            }
            if let Some(smtp) = &account.smtp {
                let mut smtp = smtp.clone();
                let secret = match smtp.credentials() {
                    Ok(None) => Some(None),
                    Ok(Some(credentials)) => password(account, &credentials).await.map(Some),
                    Err(_) => None,
                };
                if let Some(secret) = secret {
                    (smtp.password_file, smtp.password_command, smtp.token_command) = (None, None, None);
                    smtp.keyring = false;
                    smtp.password = secret;
                    certify(&mut certificates, smtp.ca_file.as_deref());
                    given.smtp = Some(smtp);
                }
            }
            given.imap = incoming(account, account.imap.as_ref(), &mut certificates).await;
            given.pop3 = incoming(account, account.pop3.as_ref(), &mut certificates).await;
            if given.smtp.is_some() || given.imap.is_some() || given.pop3.is_some() {
                lent.push(given);
            }
        }
        Self { accounts: gathered(lent), certificates }
    }

    /// For the link.
    pub fn encode(&self) -> Vec<u8> {
        serde_json::to_vec(self).expect("strings and numbers are JSON")
    }

    /// From the link, or from rest. What comes from a paired device is checked as if it came from a file.
    pub fn decode(bytes: &[u8]) -> Result<Self, LentError> {
        let lent: Self = serde_json::from_slice(bytes).map_err(|_| LentError::Malformed)?;
        let text = lent.accounts.write().map_err(|_| LentError::Malformed)?;
        let accounts = Accounts::parse(&text).map_err(|_| LentError::Malformed)?;
        // A host that could have the companion run commands, read files or ask its keyring would own the companion.
        let harmless = accounts.iter().all(|account| {
            let out = account.smtp.as_ref().is_none_or(|smtp| {
                smtp.password_file.is_none()
                    && smtp.password_command.is_none()
                    && smtp.token_command.is_none()
                    && !smtp.keyring
            });
            let within = |incoming: &Incoming| {
                incoming.password_file.is_none()
                    && incoming.password_command.is_none()
                    && incoming.token_command.is_none()
                    && !incoming.keyring
            };
            out && account.imap.as_ref().is_none_or(within) && account.pop3.as_ref().is_none_or(within)
        });
        if harmless { Ok(Self { accounts, ..lent }) } else { Err(LentError::Malformed) }
    }

    /// Keeps it in a file, sealed under this device's key.
    pub fn keep(&self, path: &Path, key: &DeviceKey, nonce: Nonce) -> Result<(), LentError> {
        let sealed = seal_with(&sealing_key(key), ASSOCIATED, nonce, &self.encode());
        files::write_whole(path, &sealed).map_err(LentError::Io)
    }

    /// Reads what was kept, if anything was.
    pub fn kept(path: &Path, key: &DeviceKey) -> Result<Option<Self>, LentError> {
        let Some(sealed) = files::read_if_there(path).map_err(LentError::Io)? else { return Ok(None) };
        let bytes = open_with(&sealing_key(key), ASSOCIATED, &sealed).map_err(|_| LentError::Damaged)?;
        Self::decode(&bytes).map(Some)
    }

    /// The accounts, with the certificates that they name written below `directory`.
    pub fn accounts(self, directory: &Path) -> Result<Accounts, LentError> {
        let mut written = BTreeMap::new();
        for (number, (path, text)) in self.certificates.into_iter().enumerate() {
            let here = directory.join(format!("{LENT_CERTIFICATE}{number}.pem"));
            files::write_whole(&here, text.as_bytes()).map_err(LentError::Io)?;
            written.insert(path, here);
        }
        let renamed = self.accounts.iter().cloned().map(|mut account| {
            if let Some(smtp) = &mut account.smtp {
                // One that was not lent is one that this device does not have.
                smtp.ca_file = smtp.ca_file.take().and_then(|path| written.get(&path).cloned());
            }
            for incoming in account.imap.iter_mut().chain(account.pop3.iter_mut()) {
                incoming.ca_file = incoming.ca_file.take().and_then(|path| written.get(&path).cloned());
            }
            account
        });
        Ok(gathered(renamed.collect()))
    }
}

/// A server that mail is fetched from, with the password itself; nothing where that cannot be had.
async fn incoming(
    account: &Account,
    incoming: Option<&Incoming>,
    certificates: &mut BTreeMap<PathBuf, String>,
) -> Option<Incoming> {
    let mut incoming = incoming?.clone();
    let credentials = incoming.credentials().ok()?;
    incoming.password = Some(password(account, &credentials).await?);
    (incoming.password_file, incoming.password_command, incoming.token_command) = (None, None, None);
    incoming.keyring = false;
    certify(certificates, incoming.ca_file.as_deref());
    Some(incoming)
}

/// The password itself; nothing where it cannot be had.
async fn password(account: &Account, credentials: &Credentials) -> Option<Hidden> {
    match credentials.login().await {
        Ok(Login::Password { password, .. }) => Some(Hidden::new(password)),
        Ok(_) => {
            tracing::warn!(account = account.name, "what logs in by token is not lent to the companion");
            None
        }
        Err(error) => {
            let error = with_causes(&error);
            tracing::warn!(account = account.name, error, "an account cannot be lent to the companion");
            None
        }
    }
}

fn certify(certificates: &mut BTreeMap<PathBuf, String>, path: Option<&Path>) {
    if let Some(path) = path
        && let Ok(text) = std::fs::read_to_string(path)
    {
        certificates.insert(path.to_owned(), text);
    }
}

/// Accounts that were looked at one by one, together again.
fn gathered(accounts: Vec<Account>) -> Accounts {
    #[derive(Serialize)]
    struct Table {
        account: Vec<Account>,
    }
    let value = serde_json::to_value(Table { account: accounts }).expect("accounts are plain data");
    serde_json::from_value(value).expect("what accounts are written as is what they are read from")
}

fn sealing_key(key: &DeviceKey) -> [u8; 32] {
    use sha2::{Digest, Sha256};
    Sha256::new().chain_update(b"packetboat 2026 daemon: lent accounts").chain_update(key.seed()).finalize().into()
}

const ASSOCIATED: &[u8] = b"lent accounts 1";

/// Why lent accounts cannot be used.
#[derive(Debug, Error)]
pub enum LentError {
    /// The disk or the permissions do not allow it.
    #[error("the accounts of the host cannot be kept or read")]
    Io(#[source] std::io::Error),
    /// The file is not what was written there.
    #[error("the kept accounts of the host are damaged")]
    Damaged,
    /// What the host sent means nothing, or asks for what no host may ask.
    #[error("the accounts that the host sent cannot be used")]
    Malformed,
}

#[cfg(test)]
mod tests {
    use packetboat_mail::account::AtServer;

    use super::*;

    fn accounts(extra: &str) -> Accounts {
        let text = format!(
            "[[account]]\nname = \"home\"\naddresses = [\"a@example.org\"]\n[account.smtp]\nhost = \"smtp.example.org\"\n\
             user = \"a\"\n{extra}\n"
        );
        Accounts::parse(&text).unwrap()
    }

    #[test]
    fn a_companion_sends_its_hosts_mail_by_the_account_that_was_lent() {
        let named = |name: &str| {
            let text = format!(
                "[[account]]\nname = \"{name}\"\naddresses = [\"@{name}.org\"]\ndefault = true\n[account.smtp]\nhost = \"{name}\"\n"
            );
            Accounts::parse(&text).unwrap()
        };
        let settings = Settings::default();
        let companion = AccountRoutes::new(named("own"), named("lent"), "hello".to_owned(), &settings);
        assert_eq!(companion.account("a@lent.org").as_deref(), Some("lent"));
        assert_eq!(companion.account("a@elsewhere.org").as_deref(), Some("lent"));
        let nothing = AccountRoutes::new(named("own"), Accounts::default(), "hello".to_owned(), &settings);
        assert_eq!(nothing.account("a@elsewhere.org").as_deref(), Some("own"));
    }

    #[tokio::test]
    async fn a_lent_account_carries_its_password_and_no_command() {
        let directory = tempfile::tempdir().unwrap();
        let lent = Lent::of(&accounts("password_command = \"echo secret\""), &[]).await;
        let key = DeviceKey::from_seed(&[3; 32]);
        let path = directory.path().join("sealed");
        lent.keep(&path, &key, Nonce([5; 24])).unwrap();
        let raw = std::fs::read(&path).unwrap();
        assert!(!raw.windows(6).any(|window| window == b"secret"), "it lies sealed");
        let found = Lent::kept(&path, &key).unwrap().unwrap().accounts(directory.path()).unwrap();
        let routes = AccountRoutes::new(Accounts::default(), found, "phone".to_owned(), &Settings::default());
        assert_eq!(routes.account("a@example.org").as_deref(), Some("home"));
        let smtp = routes.find("home").unwrap().smtp.as_ref().unwrap();
        let login = smtp.credentials().unwrap().unwrap().login().await.unwrap();
        assert_eq!(login, Login::Password { user: "a".to_owned(), password: "secret".to_owned() });
        let other = DeviceKey::from_seed(&[4; 32]);
        assert!(matches!(Lent::kept(&path, &other), Err(LentError::Damaged)));
    }

    #[tokio::test]
    async fn a_companion_fetches_by_the_same_servers() {
        let directory = tempfile::tempdir().unwrap();
        let authority = directory.path().join("own.pem");
        std::fs::write(&authority, "a certificate").unwrap();
        let incoming = format!(
            "password = \"p\"\n[account.imap]\nhost = \"imap.example.org\"\nuser = \"a\"\npassword_command = \"echo secret\"\n\
             ca_file = {authority:?}\nmailboxes = [\"*\"]\nat_server = \"delete\""
        );
        let lent = Lent::decode(&Lent::of(&accounts(&incoming), &[]).await.encode()).unwrap();
        let there = tempfile::tempdir().unwrap();
        let found = lent.accounts(there.path()).unwrap();
        let imap = found.iter().next().unwrap().imap.clone().unwrap();
        assert_eq!((imap.mailboxes.as_slice(), imap.at_server), (["*".to_owned()].as_slice(), AtServer::Delete));
        let login = imap.credentials().unwrap().login().await.unwrap();
        assert_eq!(login, Login::Password { user: "a".to_owned(), password: "secret".to_owned() });
        let certificate = imap.ca_file.unwrap();
        assert!(certificate.starts_with(there.path()));
        assert_eq!(std::fs::read_to_string(certificate).unwrap(), "a certificate");
    }

    #[test]
    fn a_host_cannot_make_its_companion_run_anything() {
        for extra in [
            "password_command = \"rm -r /\"",
            "password_file = \"/etc/shadow\"",
            "token_command = \"x\"",
            "keyring = true",
            "password = \"p\"\n[account.imap]\nhost = \"h\"\nuser = \"a\"\npassword_command = \"rm -r /\"",
            "password = \"p\"\n[account.pop3]\nhost = \"h\"\nuser = \"a\"\npassword_file = \"/etc/shadow\"",
        ] {
            let lent = Lent { accounts: accounts(extra), certificates: BTreeMap::new() };
            assert!(matches!(Lent::decode(&lent.encode()), Err(LentError::Malformed)), "{extra}");
        }
        assert!(Lent::decode(b"{}").is_err());
    }
}
