//! The way to a vault's intermediary: a directory that this computer reaches, or the companion, which may reach it.
//!
//! The two are two places in what a replica records, although what lies there is the same: what was deposited on the
//! companion is not at the intermediary before the companion put it up.

use std::path::{Path, PathBuf};
use std::sync::Arc;

use packetboat_core::ids::VaultId;
use packetboat_core::store::Store;
use packetboat_daemon::home::Home;
use packetboat_daemon::pair::Role;
use packetboat_daemon::relay::socket::SocketAsk;
use packetboat_daemon::relay::store::{RelayStore, vaults};
use packetboat_storage::counting::{CountingStore, TrafficMeter};
use packetboat_storage::folder::FolderStore;

use crate::carrier::Carrier;
use crate::failure::Failure;
use crate::opening::{AtVault, Context};
use crate::text;

/// How an intermediary is reached.
#[derive(Clone, Debug)]
pub(crate) enum Way {
    /// By its own path.
    Folder(PathBuf),
    /// By the companion.
    Companion(Companion),
}

/// The companion of this device.
#[derive(Clone, Debug)]
pub(crate) struct Companion {
    home: Home,
    name: String,
    vault: VaultId,
}

impl Way {
    /// The store, which refuses to work where the vault is not, and the counts of what is asked of it.
    pub(crate) fn store(&self, vault: Option<VaultId>) -> (Arc<dyn Store>, TrafficMeter) {
        match self {
            Self::Folder(place) => {
                let store = CountingStore::new(FolderStore::new(place));
                let meter = store.meter();
                match vault {
                    Some(vault) => (Arc::new(AtVault::new(store, place, vault)), meter),
                    None => (Arc::new(store), meter),
                }
            }
            Self::Companion(companion) => {
                let ask = SocketAsk::new(&companion.home);
                let store = CountingStore::new(RelayStore::new(ask, companion.vault, companion.name.clone()));
                let meter = store.meter();
                (Arc::new(store), meter)
            }
        }
    }

    /// What a replica records about what it saw this way.
    pub(crate) fn place(&self) -> String {
        match self {
            Self::Folder(place) => text::path(place),
            Self::Companion(companion) => format!("{COMPANION}{}", companion.vault),
        }
    }

    /// What people are shown.
    pub(crate) fn shown(&self) -> PathBuf {
        match self {
            Self::Folder(place) => place.clone(),
            Self::Companion(companion) => format!("companion {}", text::plain(companion.name.as_bytes())).into(),
        }
    }
}

impl Companion {
    /// The companion that carries a vault; nothing, where this device is no host of a pair.
    pub(crate) fn of(context: &Context, vault: VaultId) -> Result<Option<Self>, Failure> {
        let carrier = Carrier::locate(context)?;
        let Some(pair) = carrier.pair()?.filter(|pair| pair.role == Role::Host) else { return Ok(None) };
        Ok(Some(Self { home: carrier.home, name: pair.peer_name, vault }))
    }

    /// Whether it carries the vault at this moment; if not, why not.
    pub(crate) fn carries(&self) -> Result<(), Failure> {
        let carried = vaults(&SocketAsk::new(&self.home)).map_err(|error| self.silent(&error))?;
        match carried.contains(&self.vault) {
            true => Ok(()),
            false => Err(Failure::new(format!("the companion {} does not carry this vault", self.shown())).hint(
                "run `packetboat carry VAULT` on the companion, where VAULT is the directory of the vault there",
            )),
        }
    }

    /// The companion that an intermediary of the form `companion:` or `companion:VAULT` names.
    pub(crate) fn named(context: &Context, named: &str) -> Result<Self, Failure> {
        let none = || Failure::new("this device has no companion").hint("`packetboat pair` makes a pair");
        let mut companion = Self::of(context, VaultId([0; 16]))?.ok_or_else(none)?;
        let carried = vaults(&SocketAsk::new(&companion.home)).map_err(|error| companion.silent(&error))?;
        let mut fitting = carried.iter().filter(|vault| vault.to_string().starts_with(named));
        companion.vault = match (fitting.next(), fitting.next()) {
            (Some(vault), None) => *vault,
            (Some(_), Some(_)) => {
                return Err(Failure::new("the companion carries several vaults")
                    .hint("name one: `companion:` and the beginning of its id, as `packetboat paths` shows it there"));
            }
            (None, _) => {
                return Err(Failure::new(format!("the companion {} carries no such vault", companion.shown()))
                    .hint("run `packetboat carry VAULT` on the companion, where VAULT is its directory there"));
            }
        };
        Ok(companion)
    }

    /// The vault that is meant.
    pub(crate) fn vault(&self) -> VaultId {
        self.vault
    }

    fn silent(&self, error: &std::io::Error) -> Failure {
        Failure::new(format!("the companion {} cannot be asked", self.shown()))
            .because(error)
            .hint("does `packetboat run` run on both devices? `packetboat paths` shows the link")
    }

    /// Its name.
    pub(crate) fn shown(&self) -> String {
        text::plain(self.name.as_bytes())
    }
}

/// What an intermediary names of the companion, if it names it.
pub(crate) fn names_companion(intermediary: &Path) -> Option<&str> {
    intermediary.to_str()?.strip_prefix(COMPANION)
}

/// What an intermediary by the companion is called.
pub(crate) const COMPANION: &str = "companion:";
