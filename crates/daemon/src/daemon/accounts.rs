//! What each part of the daemon goes by, made of this device's accounts, those that its host lent, and the settings.
//!
//! Everything here is made anew whenever one of them changes.

use packetboat_core::keys::{DeviceKey, Nonce};
use packetboat_mail::account::Accounts;

use super::Parts;
use crate::home::Home;
use crate::inbox::fetcher::{self, Fetching};
use crate::lender::Lending;
use crate::lent::{Lent, LentError};
use crate::routes::AccountRoutes;
use crate::sent::SentAccounts;

/// Whose server sends a mail.
pub(super) fn routes(parts: &Parts, of_host: &Accounts) -> AccountRoutes {
    let (own, host_name) = (parts.accounts.clone(), parts.host_name.clone());
    AccountRoutes::new(own, of_host.clone(), host_name, &parts.settings, parts.clock.clone())
}

/// What a host lends its companion.
pub(super) fn lending(parts: &Parts) -> Lending {
    let provider_files = parts.settings.outbox.provider_files_sent.clone();
    Lending { accounts: parts.accounts.clone(), provider_files }
}

/// Where mail that went out is looked for and filed.
pub(super) fn sent_accounts(parts: &Parts, of_host: &Accounts) -> SentAccounts {
    SentAccounts {
        own: parts.accounts.clone(),
        of_host: of_host.clone(),
        provider_files: parts.settings.outbox.provider_files_sent.clone(),
    }
}

/// What is fetched: by the device's own accounts, and by those of its host.
pub(super) fn fetching(parts: &Parts, of_host: &Accounts) -> Fetching {
    Fetching {
        own: parts.accounts.clone(),
        of_host: of_host.clone(),
        poll: parts.settings.inbox.poll.0,
        connect: parts.settings.outbox.connect.0,
        token_age: fetcher::TOKEN_AGE,
    }
}

/// Keeps what a host lends, sealed, and gives the accounts that it is.
pub(super) fn take_lent(
    bytes: &[u8],
    ahead_ms: i64,
    home: &Home,
    key: &DeviceKey,
    nonce: Nonce,
) -> Result<Accounts, LentError> {
    let lent = Lent::decode(bytes)?.by_own_clock(ahead_ms);
    if Lent::kept(&home.sealed_accounts(), key).ok().flatten().as_ref() != Some(&lent) {
        lent.keep(&home.sealed_accounts(), key, nonce)?;
    }
    lent.accounts(home.state())
}
