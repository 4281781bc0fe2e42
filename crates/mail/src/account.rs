//! Mail accounts: where mail of which sender goes out, where mail comes in, and what opens the doors.
//!
//! Accounts are written by people, in TOML:
//!
//! ```toml
//! [[account]]
//! name = "work"
//! addresses = ["ann@example.org", "@lists.example.org"]
//! default = true
//! provider_files_sent = true      # so that Sent says what went out; `packetboat mail probe` finds it out
//!
//! [account.smtp]
//! host = "smtp.example.org"       # port 465 and TLS, unless told otherwise
//! user = "ann"
//! password_command = "pass show mail/work"    # or keyring = true
//!
//! [account.imap]
//! host = "imap.example.org"
//! user = "ann"
//! password_file = "/home/ann/.config/packetboat/work"
//! mailboxes = ["INBOX", "Lists"]  # or ["*"]; INBOX, unless told otherwise
//! at_server = "delete"            # once both devices hold it; "leave", unless told otherwise
//! ```
//!
//! An account is chosen by the sender of a mail: an address before a domain, and both before the default.
//! What cannot be right is an error when the file is read, and not when the first mail is sent.

mod check;
mod edit;
mod keyring;
mod probe;
mod secret;

use std::net::IpAddr;
use std::path::PathBuf;
use std::sync::Arc;

use serde::{Deserialize, Serialize};
use thiserror::Error;

use crate::address::{Address, ReversePath};
use crate::connection::{Deadlines as ReadDeadlines, Endpoint, Login, Security as ReadSecurity};
use crate::imap::ImapAccount;
use crate::pop3::Pop3Account;
use crate::smtp::{Deadlines, Failure, Security, Server, Trust};
use secret::Places;

pub use check::{Checked, Mailboxes, Problem, Trying, check};
pub use edit::with_provider_files_sent;
pub use keyring::{Entry, Keyring, KeyringError};
pub use probe::{Patience, ProbeError, probe_sent};
pub use secret::{Credentials, Hidden, SecretError, Token};

/// All accounts of a person.
#[derive(Clone, PartialEq, Debug, Default, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Accounts {
    /// In the order of the file.
    #[serde(default, rename = "account")]
    accounts: Vec<Account>,
}

/// One account.
#[derive(Clone, PartialEq, Debug, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Account {
    /// What it is called here.
    pub name: String,
    /// The senders whose mail it takes: addresses, or `@` and a domain.
    pub addresses: Vec<String>,
    /// Whether it takes the mail of all other senders.
    #[serde(default)]
    pub default: bool,
    /// Whether its provider files in Sent what it takes, where that is known ([`probe_sent`] finds it out).
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub provider_files_sent: Option<bool>,
    /// How mail goes out.
    pub smtp: Option<Smtp>,
    /// How mail comes in.
    pub imap: Option<Incoming>,
    /// How mail comes in, by the older way.
    pub pop3: Option<Incoming>,
}

/// How mail goes out.
#[derive(Clone, PartialEq, Debug, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Smtp {
    /// The server's name.
    pub host: String,
    /// 465 or 587, as the protection is, unless told.
    pub port: Option<u16>,
    /// How the connection is protected.
    #[serde(default = "tls")]
    pub security: Security,
    /// Certificates that are believed besides those of the platform.
    pub ca_file: Option<PathBuf>,
    /// How long to wait for what.
    #[serde(default)]
    pub deadlines: Deadlines,
    /// The name to log in with; without one, nobody logs in.
    pub user: Option<String>,
    /// The password itself.
    pub password: Option<Hidden>,
    /// A file that only the user can read, with the password in its first line.
    pub password_file: Option<PathBuf>,
    /// A command whose first line of output is the password.
    pub password_command: Option<String>,
    /// A command whose first line of output is an access token (XOAUTH2).
    pub token_command: Option<String>,
    /// Whether the desktop's keyring holds the password.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub keyring: bool,
    /// For how many seconds a token is good that the command gives; an hour, unless told otherwise.
    pub token_lifetime: Option<u64>,
    /// The token itself, which a host puts here when it lends the account.
    pub token: Option<Token>,
}

/// How mail comes in.
#[derive(Clone, PartialEq, Debug, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Incoming {
    /// The server's name.
    pub host: String,
    /// The protocol's own, as the protection is, unless told.
    pub port: Option<u16>,
    /// How the connection is protected.
    #[serde(default = "tls")]
    pub security: Security,
    /// Certificates that are believed besides those of the platform.
    pub ca_file: Option<PathBuf>,
    /// The name to log in with.
    pub user: String,
    /// The password itself.
    pub password: Option<Hidden>,
    /// A file that only the user can read, with the password in its first line.
    pub password_file: Option<PathBuf>,
    /// A command whose first line of output is the password.
    pub password_command: Option<String>,
    /// A command whose first line of output is an access token (XOAUTH2).
    pub token_command: Option<String>,
    /// Whether the desktop's keyring holds the password.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub keyring: bool,
    /// For how many seconds a token is good that the command gives; an hour, unless told otherwise.
    pub token_lifetime: Option<u64>,
    /// The token itself, which a host puts here when it lends the account.
    pub token: Option<Token>,
    /// The mailboxes to fetch, as people write their names; `*` is all. POP3 has but one.
    #[serde(default = "inbox")]
    pub mailboxes: Vec<String>,
    /// What becomes of a message at the server once both devices of a pair hold it.
    #[serde(default)]
    pub at_server: AtServer,
}

/// What becomes of a message at the server once both devices of a pair hold it.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum AtServer {
    /// It stays.
    #[default]
    Leave,
    /// It is deleted; what only one of them holds stays.
    Delete,
}

impl Accounts {
    /// Reads a file of accounts.
    pub fn parse(text: &str) -> Result<Self, AccountError> {
        let accounts: Self =
            toml::from_str(text).map_err(|source| AccountError::Syntax { source: Box::new(source) })?;
        for (index, account) in accounts.accounts.iter().enumerate() {
            let wrong = |what: String| AccountError::Account { name: account.name.clone(), what };
            if account.name.is_empty() || accounts.accounts[..index].iter().any(|other| other.name == account.name) {
                return Err(wrong("its name is empty, or that of another".to_owned()));
            }
            if account.default && accounts.accounts[..index].iter().any(|other| other.default) {
                return Err(wrong("only one account is the default".to_owned()));
            }
            if account.addresses.is_empty() {
                return Err(wrong("it has no addresses".to_owned()));
            }
            for address in &account.addresses {
                let whole = if address.starts_with('@') { format!("x{address}") } else { address.clone() };
                Address::parse(&whole).map_err(|error| wrong(format!("{address:?}: {error}")))?;
            }
            if let Some(smtp) = &account.smtp {
                smtp.credentials().map_err(|error| wrong(format!("smtp: {error}")))?;
            }
            for (section, incoming) in [("imap", &account.imap), ("pop3", &account.pop3)] {
                if let Some(incoming) = incoming {
                    incoming.credentials().map_err(|error| wrong(format!("{section}: {error}")))?;
                    if incoming.mailboxes.is_empty() {
                        return Err(wrong(format!("{section}: it names no mailboxes")));
                    }
                }
            }
        }
        Ok(accounts)
    }

    /// Writes the accounts as a file that can be read again.
    pub fn write(&self) -> Result<String, AccountError> {
        toml::to_string_pretty(self).map_err(|source| AccountError::Unwritable { source: Box::new(source) })
    }

    /// All of them.
    pub fn iter(&self) -> impl Iterator<Item = &Account> {
        self.accounts.iter()
    }

    /// The account that takes the mail of a sender; that of the null sender goes by the default.
    pub fn for_sender(&self, sender: &ReversePath) -> Option<&Account> {
        let outgoing = || self.accounts.iter().filter(|account| account.smtp.is_some());
        let domain = |address: &Address| format!("@{}", address.domain());
        let by = |wanted: String| {
            outgoing().find(|account| account.addresses.iter().any(|known| known.eq_ignore_ascii_case(&wanted)))
        };
        sender
            .mailbox()
            .and_then(|address| by(address.to_string()).or_else(|| by(domain(address))))
            .or_else(|| outgoing().find(|account| account.default))
    }
}

impl Smtp {
    /// The port that is meant.
    pub fn port(&self) -> u16 {
        self.port.unwrap_or(match self.security {
            Security::Tls => 465,
            Security::Starttls | Security::Plain => 587,
        })
    }

    /// How to log in, where anybody does.
    pub fn credentials(&self) -> Result<Option<Credentials>, SecretError> {
        let given = self.password.is_some() || self.password_command.is_some() || self.token_command.is_some();
        match &self.user {
            None if given || self.password_file.is_some() || self.keyring || self.token.is_some() => {
                Err(SecretError::NoUser)
            }
            None => Ok(None),
            Some(user) => Credentials::new(
                user,
                Places {
                    password: self.password.as_ref(),
                    file: self.password_file.as_ref(),
                    command: self.password_command.as_ref(),
                    token_command: self.token_command.as_ref(),
                    keyring: self.keyring.then_some(self.host.as_str()),
                    token: self.token.as_ref(),
                },
            )
            .map(Some),
        }
    }

    /// Whether a token that was lent is good still; any other secret is found when it is needed.
    pub fn still_good(&self, now_ms: u64) -> Result<(), SecretError> {
        self.token.as_ref().map_or(Ok(()), |token| token.still_good(now_ms))
    }

    /// Finds the secret, which may take a while, and makes the server ready to be sent by.
    pub async fn server(&self, hello: &str, source: Option<IpAddr>) -> Result<Server, ServerError> {
        let login = match self.credentials()? {
            None => None,
            Some(credentials) => Some(credentials.login().await?),
        };
        Ok(Server {
            host: self.host.clone(),
            port: self.port(),
            security: self.security,
            trust: Trust::load(self.ca_file.as_deref())?,
            login,
            hello: hello.to_owned(),
            source,
            deadlines: self.deadlines,
        })
    }
}

impl Incoming {
    /// How to log in.
    pub fn credentials(&self) -> Result<Credentials, SecretError> {
        Credentials::new(
            &self.user,
            Places {
                password: self.password.as_ref(),
                file: self.password_file.as_ref(),
                command: self.password_command.as_ref(),
                token_command: self.token_command.as_ref(),
                keyring: self.keyring.then_some(self.host.as_str()),
                token: self.token.as_ref(),
            },
        )
    }

    /// Whether a token that was lent is good still; any other secret is found when it is needed.
    pub fn still_good(&self, now_ms: u64) -> Result<(), SecretError> {
        self.token.as_ref().map_or(Ok(()), |token| token.still_good(now_ms))
    }

    /// The IMAP server, with the secret, which may take a while to find.
    pub async fn imap_account(&self, deadlines: ReadDeadlines) -> Result<ImapAccount, ServerError> {
        let endpoint = self.endpoint(self.imap_port());
        Ok(ImapAccount { endpoint, tls: self.trust()?, login: self.login().await?, deadlines })
    }

    /// The POP3 server, with the secret, which may take a while to find.
    pub async fn pop3_account(&self, deadlines: ReadDeadlines) -> Result<Pop3Account, ServerError> {
        let endpoint = self.endpoint(self.pop3_port());
        Ok(Pop3Account { endpoint, tls: self.trust()?, login: self.login().await?, deadlines })
    }

    /// The port that is meant, where it is fetched by IMAP.
    pub fn imap_port(&self) -> u16 {
        self.port_of(993, 143)
    }

    /// The port that is meant, where it is fetched by POP3.
    pub fn pop3_port(&self) -> u16 {
        self.port_of(995, 110)
    }

    fn port_of(&self, with_tls: u16, without: u16) -> u16 {
        self.port.unwrap_or(match self.security {
            Security::Tls => with_tls,
            Security::Starttls | Security::Plain => without,
        })
    }

    fn endpoint(&self, port: u16) -> Endpoint {
        let security = match self.security {
            Security::Tls => ReadSecurity::Implicit,
            Security::Starttls => ReadSecurity::Upgrade,
            Security::Plain => ReadSecurity::None,
        };
        Endpoint { host: self.host.clone(), port, security }
    }

    fn trust(&self) -> Result<Arc<rustls::ClientConfig>, ServerError> {
        Ok(Trust::load(self.ca_file.as_deref())?.config())
    }

    async fn login(&self) -> Result<Login, ServerError> {
        Ok(self.credentials()?.login().await?)
    }
}

fn inbox() -> Vec<String> {
    vec!["INBOX".to_owned()]
}

fn tls() -> Security {
    Security::Tls
}

/// Why accounts cannot be read.
#[derive(Debug, Error)]
pub enum AccountError {
    /// Not TOML, or not what is expected in it.
    #[error("the accounts cannot be read")]
    Syntax {
        /// Where, and why.
        #[source]
        source: Box<toml::de::Error>,
    },
    /// An account makes no sense.
    #[error("the account {name:?} cannot be used: {what}")]
    Account {
        /// Its name.
        name: String,
        /// What is wrong with it.
        what: String,
    },
    /// Cannot be written as TOML.
    #[error("the accounts cannot be written")]
    Unwritable {
        /// Why.
        #[source]
        source: Box<toml::ser::Error>,
    },
}

/// Why a server cannot be made ready.
#[derive(Debug, Error)]
pub enum ServerError {
    /// The secret cannot be found.
    #[error("the password cannot be found")]
    Secret(#[from] SecretError),
    /// The trusted certificates cannot be loaded.
    #[error("the connection cannot be prepared")]
    Setting(#[from] Failure),
}

#[cfg(test)]
mod tests;
