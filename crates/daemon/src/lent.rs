//! What a host lends its companion: what it needs to send and to fetch by.
//!
//! That is the servers, with the passwords or tokens themselves and the certificates of private authorities, since commands
//! and files of the host mean nothing elsewhere. It travels over the link, which is encrypted to the companion's key, and
//! lies there sealed under that device's own key in a file only its user can read.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

use packetboat_core::keys::{DeviceKey, Nonce, open_with, seal_with};
use packetboat_mail::account::{Account, Accounts, Incoming};
use serde::{Deserialize, Serialize};
use thiserror::Error;

use crate::files;
use crate::lender::{Secret, Secrets, TokenCommand};
use crate::parting::LENT_CERTIFICATE;

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
    pub(crate) async fn of(accounts: &Accounts, provider_files: &[String], secrets: &mut Secrets, now_ms: u64) -> Self {
        let mut lent = Vec::new();
        let mut certificates = BTreeMap::new();
        for account in accounts.iter() {
            let mut given = Account { smtp: None, imap: None, pop3: None, ..account.clone() };
            if provider_files.contains(&account.name) {
                given.provider_files_sent.get_or_insert(true);
            }
            if let Some(smtp) = &account.smtp {
                let mut smtp = smtp.clone();
                let token = token_command(smtp.token_command.as_deref(), smtp.token_lifetime);
                let secret = match smtp.credentials() {
                    Ok(None) => Some(None),
                    Ok(Some(credentials)) => secrets.find(account, "smtp", &credentials, token, now_ms).await.map(Some),
                    Err(_) => None,
                };
                if let Some(secret) = secret {
                    (smtp.password_file, smtp.password_command, smtp.token_command) = (None, None, None);
                    smtp.keyring = false;
                    (smtp.password, smtp.token) = match secret {
                        None => (None, None),
                        Some(Secret::Password(password)) => (Some(password), None),
                        Some(Secret::Token(token)) => (None, Some(token)),
                    };
                    certify(&mut certificates, smtp.ca_file.as_deref());
                    given.smtp = Some(smtp);
                }
            }
            for (section, of, lent) in
                [("imap", &account.imap, &mut given.imap), ("pop3", &account.pop3, &mut given.pop3)]
            {
                let Some(mut incoming) = of.clone() else { continue };
                let token = token_command(incoming.token_command.as_deref(), incoming.token_lifetime);
                let Ok(credentials) = incoming.credentials() else { continue };
                let Some(secret) = secrets.find(account, section, &credentials, token, now_ms).await else { continue };
                (incoming.password_file, incoming.password_command, incoming.token_command) = (None, None, None);
                incoming.keyring = false;
                (incoming.password, incoming.token) = match secret {
                    Secret::Password(password) => (Some(password), None),
                    Secret::Token(token) => (None, Some(token)),
                };
                certify(&mut certificates, incoming.ca_file.as_deref());
                *lent = Some(incoming);
            }
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

    /// The same with the times of another clock, which is so far ahead of this one.
    pub(crate) fn by_own_clock(mut self, ahead_ms: i64) -> Self {
        if ahead_ms.unsigned_abs() < CLOCKS_AGREE_MS {
            return self;
        }
        let of_own_clock = |mut account: Account| {
            let out = account.smtp.iter_mut().filter_map(|smtp| smtp.token.as_mut());
            let within = account.imap.iter_mut().chain(account.pop3.iter_mut());
            for token in out.chain(within.filter_map(|incoming| incoming.token.as_mut())) {
                token.expires_ms = token.expires_ms.saturating_add_signed(ahead_ms.saturating_neg());
            }
            account
        };
        self.accounts = gathered(self.accounts.iter().cloned().map(of_own_clock).collect());
        self
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

fn token_command(command: Option<&str>, lifetime: Option<u64>) -> Option<TokenCommand<'_>> {
    command.map(|command| TokenCommand { command, lifetime })
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

/// Less is the way that a message takes, and would make each session's accounts differ from those before.
const CLOCKS_AGREE_MS: u64 = 60_000;

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
    use packetboat_mail::Login;
    use packetboat_mail::account::AtServer;

    use super::*;

    fn accounts(extra: &str) -> Accounts {
        let text = format!(
            "[[account]]\nname = \"home\"\naddresses = [\"a@example.org\"]\n[account.smtp]\nhost = \"smtp.example.org\"\n\
             user = \"a\"\n{extra}\n"
        );
        Accounts::parse(&text).unwrap()
    }

    async fn lend(accounts: &Accounts) -> Lent {
        Lent::of(accounts, &[], &mut Secrets::default(), 1_000).await
    }

    #[tokio::test]
    async fn a_lent_account_carries_its_password_and_no_command() {
        let directory = tempfile::tempdir().unwrap();
        let lent = lend(&accounts("password_command = \"echo secret\"")).await;
        let key = DeviceKey::from_seed(&[3; 32]);
        let path = directory.path().join("sealed");
        lent.keep(&path, &key, Nonce([5; 24])).unwrap();
        let raw = std::fs::read(&path).unwrap();
        assert!(!raw.windows(6).any(|window| window == b"secret"), "it lies sealed");
        let found = Lent::kept(&path, &key).unwrap().unwrap().accounts(directory.path()).unwrap();
        let smtp = found.iter().next().unwrap().smtp.as_ref().unwrap();
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
        let lent = Lent::decode(&lend(&accounts(&incoming)).await.encode()).unwrap();
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

    #[tokio::test]
    async fn a_lent_token_travels_without_its_command_and_by_the_companions_clock() {
        let lent = lend(&accounts("token_command = \"echo secret\"\ntoken_lifetime = 1000")).await;
        let bytes = lent.encode();
        assert!(!bytes.windows(4).any(|window| window == b"echo"), "no command travels");
        let token = |lent: Lent| {
            let account = lent.accounts.iter().next().unwrap().clone();
            account.smtp.unwrap().token.unwrap().expires_ms
        };
        assert_eq!(token(Lent::decode(&bytes).unwrap().by_own_clock(59_999)), 1_001_000);
        assert_eq!(token(Lent::decode(&bytes).unwrap().by_own_clock(100_000)), 901_000);
        assert_eq!(token(Lent::decode(&bytes).unwrap().by_own_clock(-100_000)), 1_101_000);
        assert_eq!(token(Lent::decode(&bytes).unwrap().by_own_clock(i64::MAX)), 0);
    }
}
