//! Trying an account before the first mail: what is wrong with it is said when it is set up.

use std::net::IpAddr;

use thiserror::Error;

use crate::smtp::{Capabilities, Connection, Failure};

use super::{Account, ServerError};

/// What was found. Mail in has a field of its own beside this one.
#[derive(Debug)]
pub struct Checked {
    /// Nothing where no mail goes out by this account; else what the server can do, or why it cannot be used.
    pub smtp: Option<Result<Capabilities, Problem>>,
}

/// Why an account cannot be used.
#[derive(Debug, Error)]
pub enum Problem {
    /// It is not even tried.
    #[error(transparent)]
    Account(#[from] ServerError),
    /// It was tried.
    #[error(transparent)]
    Server(#[from] Failure),
}

impl Problem {
    /// What a person can do about it, where there is something.
    pub fn hint(&self) -> Option<&'static str> {
        match self {
            Self::Account(ServerError::Setting(failure)) | Self::Server(failure) => failure.hint(),
            Self::Account(ServerError::Secret(_)) => None,
        }
    }

    /// The problem and its causes, in one line.
    pub fn in_words(&self) -> String {
        let mut words = self.to_string();
        let mut cause = std::error::Error::source(self);
        while let Some(error) = cause {
            words = format!("{words}: {error}");
            cause = error.source();
        }
        words
    }
}

/// Logs in wherever the account does, and sends nothing.
pub async fn check(account: &Account, hello: &str, source: Option<IpAddr>) -> Checked {
    let smtp = match &account.smtp {
        None => None,
        Some(smtp) => Some(
            async {
                let connection = Connection::open(&smtp.server(hello, source).await?).await?;
                let capabilities = connection.capabilities();
                connection.close().await;
                Ok(capabilities)
            }
            .await,
        ),
    };
    Checked { smtp }
}
