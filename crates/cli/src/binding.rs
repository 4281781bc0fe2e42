//! Binds a folder to a vault: makes the vault, joins it, or opens what is bound already.
//!
//! ```text
//! folder              vault at the intermediary   what follows
//! unbound             none                        make a vault (after a yes), if the place is empty
//! unbound             some                        join it
//! bound or moved      the same                    open
//! copied or lost      the same                    join it as a new device
//! any but unbound     none, or another            stop
//! vanished            any                         stop
//! any, with --rebind  as for an unbound folder
//! ```
//!
//! Order of writing: marker directory in the folder, state directory, vault, folder marker, registry.
//! A crash between any two leaves at worst a device in the vault that never comes back; the next run joins again.

use std::path::{Path, PathBuf};
use std::sync::Arc;

use packetboat_core::change::MAX_DEVICE_NAME;
use packetboat_core::ids::VaultId;
use packetboat_core::keys::KeyRing;
use packetboat_core::marker::Marker;
use packetboat_engine::JoinError;
use packetboat_engine::paths::MARKER_DIR;
use packetboat_engine::ports::Clock;
use packetboat_engine::replica::{Parts, Replica};
use packetboat_replica::lock::ReplicaLock;

use crate::failure::Failure;
use crate::folder_marker::{self, FolderMarker};
use crate::opening::{Context, Session, sighting, unbound, vanished, vault_not_here};
use crate::places::{
    Directory, Found, LOST_MARKER, NO_MARKER, NotHere, lies_within, look_for_vault, lost_its_marker, no_marker_advice,
    require_apart, require_folder,
};
use crate::recognise::{Sighting, Standing};
use crate::registry::{Entry, Intermediary, Registry};
use crate::secrets::Secrets;
use crate::state::ReplicaId;
use crate::text;
use crate::way::{Companion, Way, names_companion};
use crate::world::{SystemClock, SystemEntropy};

/// What the user asked to be bound.
#[derive(Clone, Debug)]
pub(crate) struct Wish {
    /// The folder, or the one that the current directory lies in.
    pub(crate) folder: Option<PathBuf>,
    /// The intermediary, or the one that the folder is bound to.
    pub(crate) intermediary: Option<PathBuf>,
    /// A name for this device.
    pub(crate) name: Option<String>,
    /// Whether to join with the recovery key.
    pub(crate) recovery: bool,
    /// Whether to forget what the folder was bound to.
    pub(crate) rebind: bool,
    /// Whether nothing may be bound or remembered.
    pub(crate) look_only: bool,
    /// Where secrets come from.
    pub(crate) secrets: Secrets,
}

/// A folder that is bound to a vault now.
pub(crate) struct Bound {
    /// Its open replica.
    pub(crate) session: Session,
    /// What was done to bind it.
    pub(crate) how: How,
    /// The recovery key of a vault that was made.
    pub(crate) recovery_key: Option<String>,
}

/// How a folder came to be bound.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) enum How {
    /// The vault was made.
    Created,
    /// The vault was joined.
    Joined,
    /// It was bound before.
    Already,
}

/// Binds a folder as the user wishes.
pub(crate) fn bind(context: &Context, wish: &Wish) -> Result<Bound, Failure> {
    let named = wish.intermediary.as_deref().and_then(names_companion);
    if let (Some(place), None) = (&wish.intermediary, named) {
        require_folder(place)?;
    }
    let mut folder = match &wish.folder {
        Some(path) => Directory::look(path, "folder")?,
        None => Directory::look(&context.find_folder(None)?.path, "folder")?,
    };
    let seen = sighting(&folder)?;
    let standing = context.standing(&seen)?;
    let mut binder = Binder { context, wish, folder: &mut folder };
    if let (Some(named), Standing::Unbound) = (named, &standing) {
        return binder.join_by_companion(&Companion::named(context, named)?);
    }
    if wish.rebind {
        return binder.first_time(&seen, known_place(&standing));
    }
    match standing {
        Standing::Unbound => binder.first_time(&seen, None),
        Standing::Vanished(_) => Err(vanished(&seen)),
        Standing::Bound(entry) => binder.again(entry),
        Standing::Moved(entry) => {
            let from = text::path(&entry.folder);
            context.ui.note(&format!("The folder was at {from} before; following it."));
            binder.again(entry)
        }
        Standing::Copy(entry) => {
            context.ui.note(&format!(
                "This folder is a copy of {}, which is still there: it becomes a device of its own.",
                text::path(&entry.folder)
            ));
            binder.as_new_device(entry.vault, Some(&entry.intermediary))
        }
        Standing::Lost(marker, entry) => {
            context.ui.note(
                "What this computer knew about the folder is lost: it goes on as a new device. No file is touched.",
            );
            binder.as_new_device(marker.vault, entry.as_ref().map(|entry| &entry.intermediary))
        }
    }
}

struct Binder<'a> {
    context: &'a Context,
    wish: &'a Wish,
    folder: &'a mut Directory,
}

impl Binder<'_> {
    /// Opens what is bound already.
    fn again(&self, mut entry: Entry) -> Result<Bound, Failure> {
        let by_companion = match &self.wish.intermediary {
            Some(given) => names_companion(given).is_some(),
            None => names_companion(&entry.intermediary.canonical).is_some(),
        };
        if by_companion {
            let companion = Companion::of(self.context, entry.vault)?;
            let companion = companion.ok_or_else(|| {
                Failure::new("this device has no companion").hint("name the vault's own directory, or pair the two")
            })?;
            companion.carries()?;
            return self.again_by_companion(&entry, companion);
        }
        let (place, marker) = match self.vault_at(entry.vault, Some(&entry.intermediary)) {
            Ok((place, marker)) => (place, Some(marker)),
            Err(failure) => match self.companion_instead(&entry) {
                Some(companion) => return self.again_by_companion(&entry, companion),
                None => (self.without_marker(&entry).ok_or(failure)?, None),
            },
        };
        require_apart(&self.folder.path, &place.path)?;
        if self.wish.name.is_some() {
            self.context.ui.warn("this device has a name already; `packetboat devices rename NAME` changes it");
        }
        if place.path != entry.intermediary.canonical {
            self.context.ui.note(&format!("The vault is at {} now.", text::path(&place.path)));
        }
        let before = entry.clone();
        entry.folder.clone_from(&self.folder.path);
        (entry.device, entry.inode) = self.folder.inode.unwrap_or((entry.device, entry.inode));
        entry.intermediary = intermediary(&place);
        let mut session = self.context.open_entry(&self.folder.path, &entry)?;
        match &marker {
            None => self.restore_marker(&mut session.replica, &place)?,
            Some(marker) if !self.wish.look_only => session.replica.saw_marker(marker)?,
            Some(_) => {}
        }
        if entry != before && !self.wish.look_only {
            Registry::update(&self.context.state, |registry| registry.put(entry))?;
        }
        Ok(Bound { session, how: How::Already, recovery_key: None })
    }

    /// Where the vault was, where it still is but for its marker: devices that are in it need none.
    fn without_marker(&self, entry: &Entry) -> Option<Directory> {
        let known = &entry.intermediary.canonical;
        let given = self.wish.intermediary.as_deref().unwrap_or(known);
        let place = Directory::look(given, "intermediary").ok()?;
        if place.path != *known || !lost_its_marker(&place.path) {
            return None;
        }
        Some(place)
    }

    /// Has the next round put back a marker that is lost; without a copy of it, says so.
    fn restore_marker(&self, replica: &mut Replica, place: &Directory) -> Result<(), Failure> {
        if !replica.holds_marker()? {
            let shown = text::path(&place.path);
            self.context.ui.warn(&format!("{shown}: {NO_MARKER}; {}", no_marker_advice(false)));
        } else if !self.wish.look_only {
            replica.look_at_marker()?;
        }
        Ok(())
    }

    /// The companion, where it is to be asked for a vault that is not where it was, and carries it.
    fn companion_instead(&self, entry: &Entry) -> Option<Companion> {
        // Another vault in its place, or a place that was named, is no failure of the path.
        if self.wish.intermediary.is_some() {
            return None;
        }
        let there = Directory::look(&entry.intermediary.canonical, "intermediary").and_then(|at| look_for_vault(&at));
        if matches!(there, Ok(Found::Vault(_))) {
            return None;
        }
        let companion = Companion::of(self.context, entry.vault).ok().flatten()?;
        match companion.carries() {
            Ok(()) => Some(companion),
            Err(failure) => {
                self.context.ui.warn(&format!("not by the companion either: {failure}"));
                None
            }
        }
    }

    /// Opens what is bound already, by way of the companion.
    fn again_by_companion(&self, entry: &Entry, companion: Companion) -> Result<Bound, Failure> {
        let ui = self.context.ui;
        if names_companion(&entry.intermediary.canonical).is_none() {
            let place = text::path(&entry.intermediary.canonical);
            ui.note(&format!("The vault at {place} is reached through the companion {}.", companion.shown()));
        }
        let mut entry = entry.clone();
        let before = entry.clone();
        entry.folder.clone_from(&self.folder.path);
        (entry.device, entry.inode) = self.folder.inode.unwrap_or((entry.device, entry.inode));
        let session = self.context.open_by(&self.folder.path, &entry, &Way::Companion(companion))?;
        if entry != before && !self.wish.look_only {
            Registry::update(&self.context.state, |registry| registry.put(entry))?;
        }
        Ok(Bound { session, how: How::Already, recovery_key: None })
    }

    /// Joins a vault that only the companion reaches.
    fn join_by_companion(&mut self, companion: &Companion) -> Result<Bound, Failure> {
        self.refuse_dry_run()?;
        let way = Way::Companion(companion.clone());
        let (store, _) = way.store(Some(companion.vault()), None, &Arc::default());
        let missing = || Failure::new(format!("the vault is not where the companion {} looks", companion.shown()));
        let marker = Replica::read_marker(store.as_ref())?.ok_or_else(missing)?;
        if marker.vault() != companion.vault() {
            return Err(missing());
        }
        let place = PathBuf::from(way.place());
        self.join(&way, Intermediary { given: place.clone(), canonical: place }, &marker)
    }

    /// Binds a folder that nobody knows, or that is to be bound as if nobody did.
    fn first_time(&mut self, seen: &Sighting, known: Option<&Path>) -> Result<Bound, Failure> {
        let Some(given) = self.wish.intermediary.as_deref().or(known) else {
            return Err(match seen.inode {
                Some(_) => unbound(&self.folder.path),
                None => Failure::new(format!("the folder {} is not there", text::path(&self.folder.given)))
                    .hint("is the path right, and is the disk mounted?"),
            });
        };
        let mut place = Directory::look(given, "intermediary")?;
        self.require_sound(&place)?;
        let found = look_for_vault(&place)?;
        self.refuse_dry_run()?;
        match found {
            Found::Vault(marker) => self.join(&Way::Folder(place.path.clone()), intermediary(&place), &marker),
            Found::Empty | Found::Nothing => self.create(&mut place),
            Found::Other if lost_its_marker(&place.path) => {
                Err(Failure::new(format!("the vault at {} has lost its marker", text::path(&place.given)))
                    .hint(LOST_MARKER))
            }
            Found::Other => Err(Failure::new(format!("{} is not a vault, and not empty", text::path(&place.given)))
                .hint("name a vault, or an empty or new directory for one; a directory within this one will do")),
        }
    }

    /// Binds a folder that was bound before, and whose state cannot be used.
    fn as_new_device(&mut self, vault: VaultId, remembered: Option<&Intermediary>) -> Result<Bound, Failure> {
        let (place, marker) = self.vault_at(vault, remembered)?;
        self.require_sound(&place)?;
        self.refuse_dry_run()?;
        self.join(&Way::Folder(place.path.clone()), intermediary(&place), &marker)
    }

    /// The place where this very vault is; a bound folder never makes one.
    fn vault_at(&self, vault: VaultId, remembered: Option<&Intermediary>) -> Result<(Directory, Marker), Failure> {
        let given = match (&self.wish.intermediary, remembered) {
            (Some(given), _) => given,
            (None, Some(remembered)) => &remembered.canonical,
            (None, None) => {
                let folder = text::argument(&self.folder.given);
                return Err(Failure::new("where the vault is, is not known any more")
                    .hint(format!("name the intermediary: `packetboat sync {folder} INTERMEDIARY`")));
            }
        };
        let place = Directory::look(given, "intermediary")?;
        match look_for_vault(&place)? {
            Found::Vault(marker) if marker.vault() == vault => Ok((place, *marker)),
            Found::Vault(_) => {
                let known = remembered.map(|place| format!(" ({})", text::path(&place.given))).unwrap_or_default();
                Err(NotHere::Another(given.clone()).failure().hint(format!(
                    "the folder is bound to its own vault{known}; name that, or synchronise another folder with this \
                     one"
                )))
            }
            Found::Empty | Found::Other | Found::Nothing => Err(vault_not_here(given)),
        }
    }

    /// Refuses places that cannot go together.
    fn require_sound(&self, place: &Directory) -> Result<(), Failure> {
        let folder = &self.folder.path;
        require_apart(folder, &place.path)?;
        let state = self.context.state.root();
        if lies_within(state, &place.path) {
            return Err(Failure::new("packetboat's state directory lies within the intermediary")
                .hint("it holds this device's keys, which must stay on this computer: set PACKETBOAT_STATE_DIR"));
        }
        if lies_within(folder, state) || lies_within(&place.path, state) {
            return Err(Failure::new("packetboat's state directory holds the folder or the intermediary")
                .hint("choose a place of its own for it with PACKETBOAT_STATE_DIR"));
        }
        let above = folder.ancestors().skip(1).find(|above| above.join(MARKER_DIR).join("replica").exists());
        if let Some(above) = above {
            return Err(Failure::new(format!("the folder lies within {}, which is synchronised", text::path(above)))
                .hint("a folder belongs to one vault: move it out, or synchronise the outer one alone"));
        }
        let registry = Registry::read(&self.context.state)?;
        let beneath = registry.entries().iter().find(|entry| {
            entry.folder != *folder && entry.folder.starts_with(folder) && entry.folder.join(MARKER_DIR).exists()
        });
        match beneath {
            Some(entry) => Err(Failure::new(format!(
                "the folder holds {}, which is synchronised on its own",
                text::path(&entry.folder)
            ))
            .hint("a folder belongs to one vault: move it out, or synchronise the inner one alone")),
            None => Ok(()),
        }
    }

    fn refuse_dry_run(&self) -> Result<(), Failure> {
        match self.wish.look_only {
            true => {
                Err(Failure::new(format!("{} is not bound yet, so there is no plan", text::path(&self.folder.given)))
                    .hint(
                        "a dry run shows what the next round of a bound folder would do; run `sync` without it first",
                    ))
            }
            false => Ok(()),
        }
    }

    /// Makes a vault.
    fn create(&mut self, place: &mut Directory) -> Result<Bound, Failure> {
        let ui = self.context.ui;
        let shown = text::path(&place.given);
        if self.wish.recovery {
            return Err(Failure::new(format!("there is no vault at {shown} to be opened with a recovery key")));
        }
        if !place.has_parent {
            let parent = text::path(place.parent());
            return Err(Failure::new(format!("there is no vault at {shown}, and no directory to make one in"))
                .because(&std::io::Error::other(format!("{parent} does not exist")))
                .hint("is the path right, and is the stick or share mounted?"));
        }
        let name = self.device_name()?;
        let given = self.wish.secrets.given_passphrase()?;
        if !self.folder.exists() {
            let missing = format!("the folder {} is not there", text::path(&self.folder.given));
            if !self.folder.has_parent || !ui.can_ask() {
                return Err(Failure::new(missing)
                    .hint("a vault begins with a folder that is there; is the path right, and is the disk mounted?"));
            }
            self.confirm_folder()?;
        }
        if ui.can_ask() {
            if !ui.confirm(&format!("There is no vault at {shown}. Create a new one?"))? {
                return Err(Failure::new("no vault was created").hint("nothing was changed"));
            }
        } else if !place.exists() && given.is_none() {
            return Err(Failure::new(format!("there is no vault at {shown}"))
                .hint("to create one without a terminal, set PACKETBOAT_PASSPHRASE or use --passphrase-file"));
        }
        let passphrase = self.wish.secrets.new_passphrase()?;
        let made = !place.exists();
        if made {
            place.create("intermediary")?;
        }
        let way = Way::Folder(place.path.clone());
        let outcome = self.begin(&way, intermediary(place), None, |parts| Replica::create(parts, &passphrase, &name));
        match outcome {
            Ok(bound) => {
                ui.note(&format!("Created the vault at {} (this device is \"{name}\").", text::path(&place.path)));
                ui.note("Past versions are kept for 90 days; `packetboat prune --keep` changes that.");
                Ok(bound)
            }
            Err(failure) => {
                if made {
                    // Not empty any more if the vault was made after all.
                    let _ = std::fs::remove_dir(&place.path);
                }
                Err(failure)
            }
        }
    }

    /// Joins a vault.
    fn join(&mut self, way: &Way, place: Intermediary, marker: &Marker) -> Result<Bound, Failure> {
        let ui = self.context.ui;
        let name = self.device_name()?;
        if !self.folder.exists() {
            if !self.folder.has_parent {
                return Err(Failure::new(format!("the folder {} cannot be made", text::path(&self.folder.given)))
                    .because(&std::io::Error::other(format!("{} does not exist", text::path(self.folder.parent()))))
                    .hint("is the path right, and is the disk mounted?"));
            }
            if ui.can_ask() {
                self.confirm_folder()?;
            }
        }
        let ring: KeyRing = match self.wish.recovery {
            true => self.wish.secrets.unlock_with_recovery(marker)?,
            false => self.wish.secrets.unlock(marker)?,
        };
        let bound = self.begin(way, place, Some(marker.vault()), |parts| {
            Replica::join(parts, ring, &name).map(|replica| (replica, String::new()))
        })?;
        ui.note(&format!("Joined the vault at {} (this device is \"{name}\").", text::path(&way.shown())));
        if self.wish.recovery {
            ui.note("If the passphrase is lost, choose a new one with `packetboat key passphrase`.");
        }
        Ok(bound)
    }

    /// Does what making and joining a vault have in common, and takes it back where it fails.
    fn begin(
        &mut self,
        way: &Way,
        place: Intermediary,
        joins: Option<VaultId>,
        make: impl FnOnce(Parts) -> Result<(Replica, String), JoinError>,
    ) -> Result<Bound, Failure> {
        self.context.state.prepare()?;
        if !self.folder.exists() {
            self.folder.create("folder")?;
            self.context.ui.note(&format!("Made the folder {}.", text::path(&self.folder.path)));
        }
        let fresh = folder_marker::prepare(&self.folder.path)?;
        let id = ReplicaId::random(&mut SystemEntropy);
        let state = self.context.state.replica(&id);
        let outcome = state.create().and_then(|()| {
            let lock = ReplicaLock::acquire(&state.lock())?;
            let (parts, reached) = self.context.parts(&self.folder.path, way, &state, joins)?;
            let (replica, recovery_key) = make(parts)?;
            Ok((Context::begun(replica, reached, &self.folder.path, state.evidence(), lock), recovery_key))
        });
        let (session, recovery_key) = match outcome {
            Ok(made) => made,
            Err(failure) => {
                state.discard();
                if fresh {
                    folder_marker::withdraw(&self.folder.path);
                }
                return Err(failure);
            }
        };
        let recovery_key = joins.is_none().then_some(recovery_key);
        // Before anything else can fail: it cannot be shown again.
        if let Some(key) = recovery_key.as_ref().filter(|_| !self.context.ui.json) {
            show_recovery_key(key);
        }
        let vault = session.replica.vault();
        FolderMarker { replica: id.clone(), vault }.write(&self.folder.path)?;
        let (device, inode) = self.folder.inode.unwrap_or_default();
        let entry = Entry {
            replica: id,
            folder: self.folder.path.clone(),
            device,
            inode,
            vault,
            intermediary: place,
            created: SystemClock.now_ms(),
        };
        Registry::update(&self.context.state, |registry| registry.put(entry))?;
        let how = if joins.is_some() { How::Joined } else { How::Created };
        Ok(Bound { session, how, recovery_key })
    }

    fn confirm_folder(&self) -> Result<(), Failure> {
        let shown = text::path(&self.folder.given);
        match self.context.ui.confirm(&format!("The folder {shown} is not there. Make it?"))? {
            true => Ok(()),
            false => Err(Failure::new("no folder was made").hint("nothing was changed")),
        }
    }

    /// The name of this device: as asked for, or the computer's.
    fn device_name(&self) -> Result<String, Failure> {
        match &self.wish.name {
            Some(name) => device_name(name),
            None => Ok(own_name(&rustix::system::uname().nodename().to_string_lossy())),
        }
    }
}

/// The intermediary that a folder was bound to.
fn known_place(standing: &Standing) -> Option<&Path> {
    match standing {
        Standing::Unbound | Standing::Lost(_, None) => None,
        Standing::Bound(entry)
        | Standing::Moved(entry)
        | Standing::Copy(entry)
        | Standing::Vanished(entry)
        | Standing::Lost(_, Some(entry)) => Some(&entry.intermediary.canonical),
    }
}

/// Shows a recovery key to people, apart from all else.
fn show_recovery_key(key: &str) {
    eprintln!("Recovery key, shown this once:\n\n  {key}\n");
    eprintln!("Write it down and keep it safe: it opens the vault when the passphrase is lost.");
}

/// Checks a device's name.
pub(crate) fn device_name(name: &str) -> Result<String, Failure> {
    let name = name.trim();
    if name.is_empty() || name.len() > MAX_DEVICE_NAME || name.chars().any(char::is_control) {
        return Err(Failure::new("this cannot be a device's name")
            .hint(format!("a name has 1 to {MAX_DEVICE_NAME} bytes and no control characters")));
    }
    Ok(name.to_owned())
}

/// A device's name made from a computer's.
fn own_name(host: &str) -> String {
    let short = host.split('.').next().unwrap_or_default();
    let mut name: String = short.chars().filter(|c| !c.is_control()).collect();
    while name.len() > MAX_DEVICE_NAME {
        name.pop();
    }
    if name.is_empty() { "device".to_owned() } else { name }
}

fn intermediary(place: &Directory) -> Intermediary {
    let given = std::path::absolute(&place.given).unwrap_or_else(|_| Path::new(&place.path).to_owned());
    Intermediary { given, canonical: place.path.clone() }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_device_is_called_like_its_computer() {
        assert_eq!(own_name("laptop.example.org"), "laptop");
        assert_eq!(own_name(""), "device");
        assert_eq!(own_name(&"é".repeat(80)).len(), MAX_DEVICE_NAME);
    }

    #[test]
    fn names_that_no_packet_can_carry_are_refused() {
        for bad in ["", "  ", "a\nb", &"x".repeat(65)] {
            assert!(device_name(bad).is_err(), "{bad:?}");
        }
        assert_eq!(device_name(" my laptop ").unwrap(), "my laptop");
    }
}
