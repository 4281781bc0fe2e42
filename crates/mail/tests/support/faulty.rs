//! Wrappers of a record and of folders that stop at a chosen step, and folders that lose what was not made durable.

#![allow(dead_code, reason = "each of those who include it uses a part of it")]

use std::cell::RefCell;
use std::collections::BTreeMap;
use std::io;
use std::rc::Rc;
use std::time::SystemTime;

use packetboat_mail::fetched::{
    FetchedError, FetchedStore, Flags, Folders, Found, Intent, MailboxKey, MailboxRecord, MessageDigest, MessageState,
    Origin, Sighting, UidSet,
};
use packetboat_mail::maildir::{FolderName, MaildirError, UniqueName};

/// Counts steps, and fails from a chosen one on, as a process that was killed does nothing more.
#[derive(Clone, Default)]
pub(crate) struct Steps(Rc<RefCell<Counted>>);

#[derive(Default)]
struct Counted {
    taken: usize,
    fatal: Option<Fatal>,
    dead: bool,
}

/// Where the process is killed.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) enum Fatal {
    /// The step is not done.
    Before(usize),
    /// It is done, and nobody hears of it.
    After(usize),
}

impl Steps {
    pub(crate) fn fatal(fatal: Fatal) -> Self {
        let steps = Self::default();
        steps.0.borrow_mut().fatal = Some(fatal);
        steps
    }

    pub(crate) fn taken(&self) -> usize {
        self.0.borrow().taken
    }

    /// Whether the fatal step was reached.
    pub(crate) fn is_dead(&self) -> bool {
        self.0.borrow().dead
    }

    fn step<T, E>(&self, killed: impl Fn() -> E, action: impl FnOnce() -> Result<T, E>) -> Result<T, E> {
        let (step, fatal) = {
            let mut counted = self.0.borrow_mut();
            if counted.dead {
                return Err(killed());
            }
            counted.taken += 1;
            (counted.taken, counted.fatal)
        };
        if fatal == Some(Fatal::Before(step)) {
            self.0.borrow_mut().dead = true;
            return Err(killed());
        }
        let done = action()?;
        if fatal == Some(Fatal::After(step)) {
            self.0.borrow_mut().dead = true;
            return Err(killed());
        }
        Ok(done)
    }
}

/// A record whose process is killed at a step.
pub(crate) struct FaultyFetched<'a, S> {
    pub(crate) inner: &'a mut S,
    pub(crate) steps: Steps,
}

fn record_killed() -> FetchedError {
    FetchedError { action: "use", source: "killed".into() }
}

impl<S: FetchedStore> FaultyFetched<'_, S> {
    fn step<T>(&mut self, action: impl FnOnce(&mut S) -> Result<T, FetchedError>) -> Result<T, FetchedError> {
        let Self { inner, steps } = self;
        steps.step(record_killed, || action(inner))
    }
}

impl<S: FetchedStore> FetchedStore for FaultyFetched<'_, S> {
    fn mailbox(&mut self, mailbox: &MailboxKey) -> Result<MailboxRecord, FetchedError> {
        self.step(|inner| inner.mailbox(mailbox))
    }

    fn flags(&mut self, mailbox: &MailboxKey) -> Result<Vec<(u32, Flags)>, FetchedError> {
        self.step(|inner| inner.flags(mailbox))
    }

    fn is_known(&mut self, origin: &Origin) -> Result<bool, FetchedError> {
        self.step(|inner| inner.is_known(origin))
    }

    fn message(&mut self, folder: &FolderName, digest: &MessageDigest) -> Result<Option<MessageState>, FetchedError> {
        self.step(|inner| inner.message(folder, digest))
    }

    fn intend(&mut self, intents: &[Intent]) -> Result<(), FetchedError> {
        self.step(|inner| inner.intend(intents))
    }

    fn pending(&mut self) -> Result<Vec<Intent>, FetchedError> {
        self.step(|inner| inner.pending())
    }

    fn finish(&mut self, finished: &[UniqueName], sightings: &[Sighting]) -> Result<(), FetchedError> {
        self.step(|inner| inner.finish(finished, sightings))
    }

    fn abandon(&mut self, name: &UniqueName) -> Result<(), FetchedError> {
        self.step(|inner| inner.abandon(name))
    }

    fn note(
        &mut self,
        mailbox: &MailboxKey,
        flags: &[(u32, Flags)],
        gone: &UidSet,
        modseq: u64,
    ) -> Result<(), FetchedError> {
        self.step(|inner| inner.note(mailbox, flags, gone, modseq))
    }

    fn delete(&mut self, folder: &FolderName, digest: &MessageDigest) -> Result<(), FetchedError> {
        self.step(|inner| inner.delete(folder, digest))
    }
}

/// Folders whose process is killed at a step.
pub(crate) struct FaultyFolders<F> {
    pub(crate) inner: F,
    pub(crate) steps: Steps,
}

fn folders_killed() -> MaildirError {
    MaildirError::Io { action: "use", path: "killed".into(), source: io::ErrorKind::BrokenPipe.into() }
}

impl<F: Folders> FaultyFolders<F> {
    fn step<T>(&mut self, action: impl FnOnce(&mut F) -> Result<T, MaildirError>) -> Result<T, MaildirError> {
        let Self { inner, steps } = self;
        steps.step(folders_killed, || action(inner))
    }
}

impl<F: Folders> Folders for FaultyFolders<F> {
    type Draft = F::Draft;

    fn begin(
        &mut self,
        folder: &FolderName,
        name: &UniqueName,
        received: Option<SystemTime>,
    ) -> Result<F::Draft, MaildirError> {
        self.step(|inner| inner.begin(folder, name, received))
    }

    fn write(&mut self, draft: &mut F::Draft, bytes: &[u8]) -> Result<(), MaildirError> {
        self.step(|inner| inner.write(draft, bytes))
    }

    fn close(&mut self, draft: F::Draft) -> Result<(), MaildirError> {
        self.step(|inner| inner.close(draft))
    }

    fn make_durable(&mut self, drafts: &[(&FolderName, &UniqueName)]) -> Result<(), MaildirError> {
        self.step(|inner| inner.make_durable(drafts))
    }

    fn publish(&mut self, folder: &FolderName, name: &UniqueName, flags: Flags) -> Result<(), MaildirError> {
        self.step(|inner| inner.publish(folder, name, flags))
    }

    fn sync_published(&mut self) -> Result<(), MaildirError> {
        self.step(|inner| inner.sync_published())
    }

    fn find(&mut self, folder: &FolderName, name: &UniqueName) -> Result<Found, MaildirError> {
        self.step(|inner| inner.find(folder, name))
    }

    fn discard(&mut self, folder: &FolderName, name: &UniqueName) -> Result<(), MaildirError> {
        self.step(|inner| inner.discard(folder, name))
    }
}

/// Folders on a disk that keeps, through a loss of power, only what was made durable.
#[derive(Default)]
pub(crate) struct ForgetfulFolders(Rc<RefCell<Disk>>);

type Place = (FolderName, UniqueName);

#[derive(Default)]
struct Disk {
    /// Drafts, and whether their bytes are durable.
    drafts: BTreeMap<Place, (Vec<u8>, bool)>,
    /// Delivered files: their bytes, whether those are durable, and whether their names are.
    delivered: BTreeMap<Place, (Vec<u8>, bool, bool)>,
}

/// What a loss of power does to what was not made durable: all of it is as cruel as can be, or as kind.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) enum Loss {
    /// Only the process died.
    Nothing,
    /// Names that were not durable are as they were before, and bytes that were not are gone.
    Everything,
    /// Names reached the disk and bytes did not.
    Bytes,
}

impl ForgetfulFolders {
    /// The same folders, for another process.
    pub(crate) fn copy_handle(&self) -> Self {
        Self(Rc::clone(&self.0))
    }

    /// Other folders with the same in them.
    pub(crate) fn copy(&self) -> Self {
        let disk = self.0.borrow();
        Self(Rc::new(RefCell::new(Disk { drafts: disk.drafts.clone(), delivered: disk.delivered.clone() })))
    }

    /// Every delivered message, with its bytes.
    pub(crate) fn delivered(&self) -> Vec<(FolderName, Vec<u8>)> {
        self.0.borrow().delivered.iter().map(|((folder, _), (bytes, ..))| (folder.clone(), bytes.clone())).collect()
    }

    pub(crate) fn lose(&self, loss: Loss) {
        let mut disk = self.0.borrow_mut();
        if loss == Loss::Nothing {
            return;
        }
        let Disk { drafts, delivered } = &mut *disk;
        if loss == Loss::Everything {
            let unnamed: Vec<Place> =
                delivered.iter().filter(|(_, (_, _, named))| !*named).map(|(place, _)| place.clone()).collect();
            for place in unnamed {
                if let Some((bytes, durable, _)) = delivered.remove(&place) {
                    drafts.insert(place, (bytes, durable));
                }
            }
            drafts.retain(|_, (_, durable)| *durable);
        }
        delivered.values_mut().filter(|(_, durable, _)| !*durable).for_each(|(bytes, ..)| bytes.clear());
        drafts.values_mut().filter(|(_, durable)| !*durable).for_each(|(bytes, _)| bytes.clear());
    }
}

impl Folders for ForgetfulFolders {
    type Draft = Place;

    fn begin(&mut self, folder: &FolderName, name: &UniqueName, _: Option<SystemTime>) -> Result<Place, MaildirError> {
        let place = (folder.clone(), name.clone());
        self.0.borrow_mut().drafts.insert(place.clone(), (Vec::new(), false));
        Ok(place)
    }

    fn write(&mut self, draft: &mut Place, bytes: &[u8]) -> Result<(), MaildirError> {
        self.0.borrow_mut().drafts.get_mut(draft).expect("it was begun").0.extend_from_slice(bytes);
        Ok(())
    }

    fn close(&mut self, _: Place) -> Result<(), MaildirError> {
        Ok(())
    }

    fn make_durable(&mut self, drafts: &[(&FolderName, &UniqueName)]) -> Result<(), MaildirError> {
        for (folder, name) in drafts {
            let mut disk = self.0.borrow_mut();
            disk.drafts.get_mut(&((*folder).clone(), (*name).clone())).expect("it was begun").1 = true;
        }
        Ok(())
    }

    fn publish(&mut self, folder: &FolderName, name: &UniqueName, _: Flags) -> Result<(), MaildirError> {
        let place = (folder.clone(), name.clone());
        let mut disk = self.0.borrow_mut();
        let (bytes, durable) = disk.drafts.remove(&place).expect("it was begun");
        disk.delivered.insert(place, (bytes, durable, false));
        Ok(())
    }

    fn sync_published(&mut self) -> Result<(), MaildirError> {
        self.0.borrow_mut().delivered.values_mut().for_each(|(_, _, named)| *named = true);
        Ok(())
    }

    fn find(&mut self, folder: &FolderName, name: &UniqueName) -> Result<Found, MaildirError> {
        let place = (folder.clone(), name.clone());
        let disk = self.0.borrow();
        Ok(match (disk.delivered.contains_key(&place), disk.drafts.contains_key(&place)) {
            (true, _) => Found::Delivered,
            (false, true) => Found::Draft,
            (false, false) => Found::Nowhere,
        })
    }

    fn discard(&mut self, folder: &FolderName, name: &UniqueName) -> Result<(), MaildirError> {
        self.0.borrow_mut().drafts.remove(&(folder.clone(), name.clone()));
        Ok(())
    }
}
