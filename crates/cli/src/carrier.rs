//! What the commands about mail and link have in common: the daemon's home, its settings, and the way to the daemon.

use std::io;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use packetboat_daemon::clock::{BootClock, Clock};
use packetboat_daemon::control::Request;
use packetboat_daemon::control::client::{Answer, AskError, Client};
use packetboat_daemon::home::{Claim, Home};
use packetboat_daemon::outbox::intake::Reception;
use packetboat_daemon::pair::Pair;
use packetboat_daemon::settings::Settings;
use packetboat_engine::ports::Entropy;
use packetboat_mail::account::Accounts;

use crate::failure::Failure;
use crate::opening::Context;
use crate::text;
use crate::world::SystemEntropy;

/// The daemon of this user, whether it runs or not.
pub(crate) struct Carrier {
    pub(crate) home: Home,
}

impl Carrier {
    /// Finds it from the environment; makes nothing.
    pub(crate) fn locate(context: &Context) -> Result<Self, Failure> {
        let set = |name: &str| std::env::var_os(name).filter(|value| !value.is_empty()).map(PathBuf::from);
        let config = set("PACKETBOAT_CONFIG_DIR")
            .or_else(|| Some(set("XDG_CONFIG_HOME").filter(|path| path.is_absolute())?.join("packetboat")))
            .or_else(|| Some(home_directory()?.join(".config/packetboat")));
        let config = config.ok_or_else(|| {
            Failure::new("cannot tell where settings are: HOME is not set")
                .hint("set PACKETBOAT_CONFIG_DIR to a directory of your own")
        })?;
        let config = std::path::absolute(config)?;
        Ok(Self { home: Home::new(context.state.root(), &config) })
    }

    /// The settings.
    pub(crate) fn settings(&self) -> Result<Settings, Failure> {
        Settings::read(&self.home.settings()).map_err(|error| {
            Failure::from(error).hint("`packetboat run --print-settings` shows every setting with its meaning")
        })
    }

    /// The accounts; none, where there is no file.
    pub(crate) fn accounts(&self) -> Result<Accounts, Failure> {
        let path = self.home.accounts();
        let shown = text::path(&path);
        match std::fs::read_to_string(&path) {
            Ok(accounts) => Accounts::parse(&accounts)
                .map_err(|error| Failure::new(format!("the accounts in {shown} cannot be used")).because(&error)),
            Err(error) if error.kind() == std::io::ErrorKind::NotFound => Ok(Accounts::default()),
            Err(error) => Err(Failure::new(format!("cannot read {shown}")).because(&error)),
        }
    }

    /// The pair that this device is in.
    pub(crate) fn pair(&self) -> Result<Option<Pair>, Failure> {
        Ok(Pair::read(&self.home.pair())?)
    }

    /// The right to write in the home, which the daemon has while it runs.
    pub(crate) fn claim(&self, what: &str) -> Result<Claim, Failure> {
        self.home.claim()?.ok_or_else(|| {
            Failure::new(format!("cannot {what} while the daemon runs"))
                .hint("stop `packetboat run` first, or `systemctl --user stop packetboat`; no mail is lost by that")
        })
    }

    /// Asks the daemon.
    pub(crate) fn ask(&self, request: &Request) -> Result<Answer, Failure> {
        Client::new(&self.home).ask(request, None).map_err(|error| match error {
            AskError::Failed { message, hint, .. } => {
                let failure = Failure::new(message);
                hint.into_iter().fold(failure, Failure::hint)
            }
            AskError::NotRunning => Failure::from(error)
                .hint("start it with `packetboat run`, or for good with `packetboat service install`"),
            error => Failure::from(error),
        })
    }

    /// What stamps and names mails.
    pub(crate) fn reception(&self) -> Arc<Reception> {
        let entropy = Box::new(SystemEntropy);
        Arc::new(Reception::new(&self.home.bodies(), clock(), entropy, host_name(), offset_minutes()))
    }
}

/// What is said where the place for mail is taken by a file, or cannot be looked at.
pub(crate) fn not_a_maildir(maildir: &Path, error: &io::Error) -> Failure {
    Failure::new(format!("{} cannot be a Maildir", text::path(maildir)))
        .because(error)
        .hint("move the file away, or name another place as inbox.maildir in daemon.toml")
}

/// The computer's clocks.
pub(crate) fn clock() -> Arc<dyn Clock> {
    let mut fallback = [0; 16];
    SystemEntropy.fill(&mut fallback);
    Arc::new(BootClock::new(fallback))
}

/// What this computer calls itself.
pub(crate) fn host_name() -> String {
    let name = rustix::system::uname();
    let name: String = name
        .nodename()
        .to_string_lossy()
        .chars()
        .filter(|c| c.is_ascii_alphanumeric() || matches!(c, '-' | '.'))
        .collect();
    if name.is_empty() { "localhost".to_owned() } else { name }
}

/// How far the local clock is ahead of UTC, in minutes.
pub(crate) fn offset_minutes() -> i32 {
    jiff::Zoned::now().offset().seconds() / 60
}

/// The user's home directory.
pub(crate) fn home_directory() -> Option<PathBuf> {
    std::env::var_os("HOME").map(PathBuf::from).filter(|path| path.is_absolute())
}

/// What drives tasks; `threads` of them at once.
pub(crate) fn runtime(threads: usize) -> Result<tokio::runtime::Runtime, Failure> {
    let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(threads.clamp(1, 4)).enable_all().build();
    runtime.map_err(|error| Failure::new("cannot start").because(&error))
}
