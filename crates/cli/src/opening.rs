//! Finds the folder that a command is about, and opens its replica.

use std::io;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use packetboat_core::ids::VaultId;
use packetboat_core::store::{Listed, ObjectName, Put, Store, StoreError};
use packetboat_engine::consistency::Check;
use packetboat_engine::paths::MARKER_DIR;
use packetboat_engine::replica::{Parts, Replica, Settings};
use packetboat_replica::index::Index;
use packetboat_replica::lock::ReplicaLock;
use packetboat_replica::real_fs::RealFs;

use crate::failure::Failure;
use crate::folder_marker::FolderMarker;
use crate::places::{Directory, NotHere, look_for_known_vault};
use crate::recognise::{Sighting, Standing, recognise};
use crate::registry::{Entry, Registry};
use crate::state::{ReplicaDir, StateDir};
use crate::text;
use crate::ui::Ui;
use crate::way::{Companion, Reached, Way, names_companion};
use crate::world::{SystemClock, SystemEntropy};

/// What every command works with.
#[derive(Clone, Debug)]
pub(crate) struct Context {
    /// The user.
    pub(crate) ui: Ui,
    /// The state directory.
    pub(crate) state: StateDir,
    /// Worker threads.
    pub(crate) threads: usize,
    /// Whether everything is checked after each round.
    pub(crate) check: bool,
    /// Whether rounds let nothing go by themselves.
    pub(crate) no_prune: bool,
}

/// An open replica. It is let go of in this order: the lock last.
pub(crate) struct Session {
    /// The replica.
    pub(crate) replica: Replica,
    /// The way to the intermediary.
    pub(crate) reached: Reached,
    /// The folder.
    pub(crate) folder: PathBuf,
    /// The intermediary.
    pub(crate) intermediary: PathBuf,
    /// Where evidence is kept.
    pub(crate) evidence: PathBuf,
    _lock: ReplicaLock,
}

impl Session {
    /// Why the intermediary cannot be reached, of which the round says no more than what it tried.
    pub(crate) fn unreached(&self, tried: &str) -> String {
        match &self.reached.way {
            Way::Folder(place) => match look_for_known_vault(place, self.replica.vault()) {
                Err(not_here) => not_here.to_string(),
                Ok(_) => text::plain(tried.as_bytes()),
            },
            Way::Companion(_) => text::plain(tried.as_bytes()),
        }
    }
}

impl Context {
    /// Opens the replica of a bound folder for a command other than `sync`.
    pub(crate) fn open(&self, folder: Option<&Path>) -> Result<Session, Failure> {
        let (folder, entry) = self.bound(folder)?;
        self.open_entry(&folder, &entry)
    }

    /// The folder that a command other than `sync` is about, which must be in order.
    pub(crate) fn bound(&self, folder: Option<&Path>) -> Result<(PathBuf, Entry), Failure> {
        let folder = self.find_folder(folder)?;
        let (shown, argument) = (text::path(&folder.path), text::argument(&folder.path));
        match self.standing(&folder)? {
            Standing::Bound(entry) | Standing::Moved(entry) => Ok((folder.path, entry)),
            Standing::Unbound => Err(unbound(&folder.path)),
            Standing::Vanished(_) => Err(vanished(&folder)),
            Standing::Copy(entry) => {
                Err(Failure::new(format!("{shown} is a copy of the folder {}", text::path(&entry.folder)))
                    .hint(format!("run `packetboat sync {argument}` to make it a device of its own")))
            }
            Standing::Lost(..) => {
                Err(Failure::new(format!("what this computer knew about {shown} is lost")).hint(format!(
                    "run `packetboat sync {argument} INTERMEDIARY`: it goes on as a new device, and no file is touched"
                )))
            }
        }
    }

    /// What a folder is to us.
    pub(crate) fn standing(&self, folder: &Sighting) -> Result<Standing, Failure> {
        let registry = Registry::read(&self.state)?;
        let has_index = |entry: &Entry| self.state.replica(&entry.replica).index().exists();
        let look = |path: &Path| {
            let place = Directory::look(path, "folder").ok()?;
            sighting(&place).ok()
        };
        Ok(recognise(folder, &registry, has_index, look))
    }

    /// The folder that was named, or else the one that the current directory lies in.
    pub(crate) fn find_folder(&self, named: Option<&Path>) -> Result<Sighting, Failure> {
        if let Some(path) = named {
            let place = Directory::look(path, "folder")?;
            let folder = sighting(&place)?;
            // One that was there is known to have vanished.
            if !place.exists() && Registry::read(&self.state)?.at(&place.path).is_none() {
                return Err(Failure::new(format!("the folder {} is not there", text::path(path)))
                    .hint("is the path right, and is the disk mounted?"));
            }
            return Ok(folder);
        }
        let current = current_directory()?;
        let registry = Registry::read(&self.state)?;
        for above in current.ancestors() {
            let place = Directory::look(above, "folder")?;
            let folder = sighting(&place)?;
            if folder.marker.is_some() || registry.at(&folder.path).is_some() {
                return Ok(folder);
            }
        }
        Err(Failure::new(format!("neither {} nor a directory above it is synchronised", text::path(&current)))
            .hint("change into a synchronised folder, or name it; `packetboat sync FOLDER INTERMEDIARY` begins one"))
    }

    /// Opens the replica of a registered folder.
    pub(crate) fn open_entry(&self, folder: &Path, entry: &Entry) -> Result<Session, Failure> {
        let way = match names_companion(&entry.intermediary.canonical) {
            Some(_) => Way::Companion(
                Companion::of(self, entry.vault)?
                    .ok_or_else(|| Failure::new("this device has no companion any more").hint(NAME_IT))?,
            ),
            None => Way::Folder(entry.intermediary.canonical.clone()),
        };
        self.open_by(folder, entry, &way)
    }

    /// Opens the replica of a registered folder, and reaches its intermediary this way.
    pub(crate) fn open_by(&self, folder: &Path, entry: &Entry, way: &Way) -> Result<Session, Failure> {
        let state = self.state.replica(&entry.replica);
        let lock = ReplicaLock::acquire(&state.lock())?;
        let opened = self.parts(folder, way, &state, Some(entry.vault));
        let opened = opened.and_then(|(parts, reached)| Ok((Replica::open(parts)?, reached)));
        let (replica, reached) = opened.map_err(|failure| failure.of_index(|| state.give_up(folder, entry)))?;
        let evidence = state.evidence();
        Ok(Session { replica, reached, folder: folder.to_owned(), intermediary: way.shown(), evidence, _lock: lock })
    }

    /// A session around a replica that was just made.
    pub(crate) fn begun(
        replica: Replica,
        reached: Reached,
        folder: &Path,
        evidence: PathBuf,
        lock: ReplicaLock,
    ) -> Session {
        let intermediary = reached.way.shown();
        Session { replica, reached, folder: folder.to_owned(), intermediary, evidence, _lock: lock }
    }

    /// What a replica is made of. With `vault`, the store refuses to work where that vault is not.
    pub(crate) fn parts(
        &self,
        folder: &Path,
        way: &Way,
        state: &ReplicaDir,
        vault: Option<VaultId>,
    ) -> Result<(Parts, Reached), Failure> {
        let (store, reached) = way.reach(vault, &state.deposits())?;
        Ok((self.parts_with(folder, store, way.place(), state)?, reached))
    }

    /// What a replica is made of that works through a given store.
    pub(crate) fn parts_with(
        &self,
        folder: &Path,
        store: Arc<dyn Store>,
        place: String,
        state: &ReplicaDir,
    ) -> Result<Parts, Failure> {
        let fs = open_fs(folder)?;
        let index = Index::open(&state.index())?;
        let mut ignore_overlay = state.read_ignore()?;
        if let Some(own) = self.own_pattern(folder) {
            ignore_overlay.push_str(&format!("\n{own}\n"));
        }
        Ok(Parts {
            fs,
            index,
            store,
            place,
            clock: Box::new(SystemClock),
            entropy: Box::new(SystemEntropy),
            settings: Settings {
                threads: self.threads,
                ignore_overlay,
                check: if self.check { Check::Everything } else { Check::default() },
                lets_go_by_itself: !self.no_prune,
                ..Settings::default()
            },
        })
    }

    /// The pattern that keeps our own state from being synchronised, where it lies within the folder (a whole home).
    fn own_pattern(&self, folder: &Path) -> Option<String> {
        let state = self.state.root().canonicalize().ok()?;
        let within = state.strip_prefix(folder).ok()?.to_str()?.to_owned();
        let escaped: String =
            within.chars().flat_map(|c| "\\*?[]!#{} ".contains(c).then_some('\\').into_iter().chain([c])).collect();
        Some(format!("/{escaped}/"))
    }
}

const NAME_IT: &str = "name the vault's own directory: `packetboat sync FOLDER INTERMEDIARY`";

/// What is seen of a folder.
pub(crate) fn sighting(place: &Directory) -> Result<Sighting, Failure> {
    let marker = if place.exists() { FolderMarker::read(&place.path)? } else { None };
    Ok(Sighting { path: place.path.clone(), inode: place.inode, marker })
}

/// The file system beneath a folder.
pub(crate) fn open_fs(folder: &Path) -> Result<Arc<RealFs>, Failure> {
    RealFs::open(folder).map(Arc::new).map_err(|error| {
        Failure::new(format!("cannot open the folder {}", text::path(folder)))
            .because(&error)
            .hint("look at who owns it and what its permissions are")
    })
}

/// The current directory, without symbolic links.
pub(crate) fn current_directory() -> Result<PathBuf, Failure> {
    std::env::current_dir()
        .and_then(|path| path.canonicalize())
        .map_err(|error| Failure::new("cannot tell which directory this is").because(&error))
}

/// The failure for a folder that is not synchronised.
pub(crate) fn unbound(folder: &Path) -> Failure {
    let shown = text::path(folder);
    let above = folder.ancestors().skip(1).find(|above| above.join(MARKER_DIR).join("replica").exists());
    let failure = Failure::new(format!("{shown} is not synchronised yet"));
    match above {
        Some(above) => failure.hint(format!("it lies within {}, which is", text::path(above))),
        None => failure.hint(format!("run `packetboat sync {} INTERMEDIARY` to begin", text::argument(folder))),
    }
}

/// The failure for a folder in whose place something else is found.
pub(crate) fn vanished(folder: &Sighting) -> Failure {
    let shown = text::path(&folder.path);
    let what = match folder.inode {
        Some(_) => "the directory there is another one: it has no marker",
        None => "there is nothing at that path",
    };
    Failure::new(format!("the synchronised folder {shown} is not there"))
        .because(&io::Error::other(what))
        .hint("is its disk mounted? If you made the folder anew, add --rebind to bind it as a new device")
}

/// The failure for an intermediary at which the vault is not.
pub(crate) fn vault_not_here(place: &Path) -> Failure {
    NotHere::Nothing(place.to_owned()).failure()
}

/// A store that works only while its vault is there, so that an empty mount point is not taken for an emptied vault.
///
/// Folders alone need this: an address means the same store every time. What is looked at is a local file, and not counted.
pub(crate) struct AtVault<S> {
    inner: S,
    place: PathBuf,
    vault: VaultId,
    /// Is set where the vault is seen to have lost its marker.
    lost_marker: Arc<AtomicBool>,
}

impl<S> AtVault<S> {
    /// The store of a vault that is to be at `place`.
    pub(crate) fn new(inner: S, place: &Path, vault: VaultId, lost_marker: Arc<AtomicBool>) -> Self {
        Self { inner, place: place.to_owned(), vault, lost_marker }
    }

    fn check(&self, action: &'static str, name: &str) -> Result<(), StoreError> {
        match look_for_known_vault(&self.place, self.vault) {
            Ok(lost_marker) => {
                self.lost_marker.store(lost_marker, Ordering::Relaxed);
                Ok(())
            }
            Err(not_here) => {
                let source = io::Error::new(io::ErrorKind::NotFound, not_here);
                Err(StoreError::Io { action, name: name.to_owned(), source })
            }
        }
    }

    /// Why an object was not read: it is that the vault is not there, where that is so.
    fn not_read<T>(&self, name: &ObjectName, error: StoreError) -> Result<T, StoreError> {
        if let StoreError::Missing { .. } | StoreError::Io { .. } = error {
            self.check("read", name.as_str())?;
        }
        Err(error)
    }
}

impl<S: Store> Store for AtVault<S> {
    fn describe(&self) -> String {
        self.inner.describe()
    }

    fn put_new(&self, name: &ObjectName, bytes: &[u8]) -> Result<Put, StoreError> {
        self.check("write", name.as_str())?;
        self.inner.put_new(name, bytes)
    }

    fn put(&self, name: &ObjectName, bytes: &[u8]) -> Result<(), StoreError> {
        self.check("write", name.as_str())?;
        self.inner.put(name, bytes)
    }

    fn get(&self, name: &ObjectName, limit: u64) -> Result<Vec<u8>, StoreError> {
        self.inner.get(name, limit).or_else(|error| self.not_read(name, error))
    }

    fn get_range(&self, name: &ObjectName, offset: u64, len: u64) -> Result<Vec<u8>, StoreError> {
        self.inner.get_range(name, offset, len).or_else(|error| self.not_read(name, error))
    }

    fn list(&self, folder: &str) -> Result<Vec<Listed>, StoreError> {
        self.check("list", folder)?;
        self.inner.list(folder)
    }

    fn delete(&self, name: &ObjectName) -> Result<(), StoreError> {
        self.check("delete", name.as_str())?;
        self.inner.delete(name)
    }
}
