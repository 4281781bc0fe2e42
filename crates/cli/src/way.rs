//! The way to a vault's intermediary: a directory that this computer reaches, or the companion, which may reach it.
//!
//! The two are two places in what a replica records, although what lies there is the same: what was deposited on the
//! companion is not at the intermediary before the companion put it up. What waits there is kept here too ([`Reached`]),
//! and a round by either way begins with it.

use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use packetboat_core::ids::VaultId;
use packetboat_core::store::Store;
use packetboat_daemon::control::Request;
use packetboat_daemon::home::Home;
use packetboat_daemon::pair::Role;
use packetboat_daemon::relay::deposits::Deposits;
use packetboat_daemon::relay::forward::Forward;
use packetboat_daemon::relay::shelf::Shelf;
use packetboat_daemon::relay::socket::SocketAsk;
use packetboat_daemon::relay::store::{self, RelayStore, vaults};
use packetboat_storage::counting::{CountingStore, TrafficMeter};
use packetboat_storage::folder::FolderStore;

use crate::carrier::{Carrier, clock};
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

/// A vault's intermediary, reached by a way.
pub(crate) struct Reached {
    pub(crate) way: Way,
    /// Counts what is asked of it.
    pub(crate) meter: TrafficMeter,
    /// The vault, where it is known already.
    vault: Option<VaultId>,
    /// What waits on the companion, as far as this device knows.
    deposits: Option<Deposits>,
    lost_marker: Arc<AtomicBool>,
}

impl Reached {
    /// Whether the vault was seen to have lost its marker, when something was last asked of it.
    pub(crate) fn lost_its_marker(&self) -> bool {
        self.lost_marker.load(Ordering::Relaxed)
    }

    /// Sees to it that nothing comes to the intermediary before what it needs, whichever way went before.
    pub(crate) fn before_round(&self, context: &Context) -> Result<(), Failure> {
        let Some(vault) = self.vault else { return Ok(()) };
        match &self.way {
            Way::Companion(companion) => {
                let ask = SocketAsk::new(&companion.home);
                if let Err(error) = store::round(&ask, vault)
                    && context.ui.verbose
                {
                    // Its own replica may be busy, or wait for its user; what it serves is there all the same.
                    context.ui.note(&format!("{}: {error}", companion.shown()));
                }
                // If it cannot be asked now, the round itself says so.
                let _asked = self.deposits.as_ref().map(|deposits| deposits.settle(&ask));
            }
            Way::Folder(place) => {
                if let Some(deposits) = &self.deposits {
                    let brought = deposits.bring(self.way.store(Some(vault), None, &self.lost_marker).0);
                    let brought = brought.map_err(|error| {
                        Failure::from(error)
                            .hint("what waits on the companion must go first; run `packetboat sync` again")
                    })?;
                    if brought > 0 {
                        let objects = text::count(brought, "object", "objects");
                        context.ui.note(&format!("Put up {objects} that also waited with the companion."));
                    }
                }
                put_up_own_shelf(context, vault, place)?;
            }
        }
        Ok(())
    }

    /// By the companion: its name, and how much waits there.
    pub(crate) fn with_companion(&self) -> Option<WithCompanion> {
        let Way::Companion(companion) = &self.way else { return None };
        let held = self.deposits.as_ref()?.held().ok()?;
        Some(WithCompanion {
            name: companion.shown(),
            waiting: held.waiting,
            waiting_bytes: held.waiting_bytes,
            since_ms: held.since_ms,
        })
    }
}

/// What waits with the companion after a round through it.
#[derive(Clone, PartialEq, Eq, Debug)]
pub(crate) struct WithCompanion {
    pub(crate) name: String,
    /// How many objects; with none, everything is at the intermediary.
    pub(crate) waiting: u64,
    pub(crate) waiting_bytes: u64,
    pub(crate) since_ms: Option<u64>,
}

/// On a companion, what its shelf holds of a vault goes up before a round of its user's: a packet of its own replica may
/// rest on what waits.
fn put_up_own_shelf(context: &Context, vault: VaultId, place: &Path) -> Result<(), Failure> {
    let carrier = Carrier::locate(context)?;
    if !carrier.home.shelf().exists() || carrier.pair()?.is_none_or(|pair| pair.role != Role::Companion) {
        return Ok(());
    }
    match carrier.home.claim()? {
        Some(claim) => {
            let shelf = Shelf::open(&claim.home().shelf(), u64::MAX, clock())?;
            Forward::new(vault, Arc::new(shelf), Arc::new(FolderStore::new(place))).put_up()?;
        }
        // What it cannot put up it says nothing of; the round finds out what is wrong with the place.
        None => drop(carrier.ask(&Request::PutUp)?),
    }
    Ok(())
}

impl Way {
    /// Reaches the intermediary of a replica whose deposits lie, or would lie, in a directory.
    pub(crate) fn reach(&self, vault: Option<VaultId>, deposits: &Path) -> Result<(Arc<dyn Store>, Reached), Failure> {
        let wanted = matches!(self, Self::Companion(_)) || deposits.exists();
        let shelf = match wanted {
            true => Some(Arc::new(Shelf::open(deposits, u64::MAX, clock())?)),
            false => None,
        };
        let vault = match self {
            Self::Companion(companion) => Some(companion.vault),
            Self::Folder(_) => vault,
        };
        let lost_marker = Arc::default();
        let (store, meter) = self.store(vault, shelf.clone(), &lost_marker);
        let deposits = shelf.zip(vault).map(|(shelf, vault)| Deposits::new(shelf, vault));
        Ok((store, Reached { way: self.clone(), meter, vault, deposits, lost_marker }))
    }

    /// The store, which refuses to work where the vault is not, and the counts of what is asked of it; `lost_marker` is set
    /// where the vault is seen to have lost its marker.
    pub(crate) fn store(
        &self,
        vault: Option<VaultId>,
        deposits: Option<Arc<Shelf>>,
        lost_marker: &Arc<AtomicBool>,
    ) -> (Arc<dyn Store>, TrafficMeter) {
        match self {
            Self::Folder(place) => {
                let store = CountingStore::new(FolderStore::new(place));
                let meter = store.meter();
                match vault {
                    Some(vault) => (Arc::new(AtVault::new(store, place, vault, Arc::clone(lost_marker))), meter),
                    None => (Arc::new(store), meter),
                }
            }
            Self::Companion(companion) => {
                let ask = SocketAsk::new(&companion.home);
                let store = RelayStore::new(ask, companion.vault, companion.name.clone());
                let store = CountingStore::new(match deposits {
                    Some(deposits) => store.keeping(deposits),
                    None => store,
                });
                let meter = store.meter();
                (Arc::new(store), meter)
            }
        }
    }

    /// What a replica records about what it saw this way.
    pub(crate) fn place(&self) -> String {
        match self {
            Self::Folder(place) => text::path(place),
            Self::Companion(companion) => place_by_companion(companion.vault),
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
                "run `packetboat carry VAULT` on the companion, where VAULT is the directory of the vault there, or make it \
                 a member: `packetboat sync FOLDER VAULT`",
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

/// What a replica records about what it saw through a companion, or on its own shelf as one.
pub(crate) fn place_by_companion(vault: VaultId) -> String {
    format!("{COMPANION}{vault}")
}

/// What an intermediary by the companion is called.
pub(crate) const COMPANION: &str = "companion:";
