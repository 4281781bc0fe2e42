//! A file system in memory that loses power, runs full, fails and is edited by somebody else, all by a seed.
//!
//! [`SimFs`] is a handle on one simulated disk, and clones are handles on the same.
//! A program under test uses it through [`Fs`](packetboat_replica::fs::Fs); the test arranges faults beforehand,
//! lets the program run into them, and then asks with [`SimFs::crash`] what a power loss would have left:
//! a *new* disk, so that many outcomes of one run can be looked at.
//!
//! A test plays the user through [`SimFs::write`], [`SimFs::rename`] and the like, which no fault hits and no count sees.
//! What the user does is no more synced than what the program does, until [`SimFs::settle`].
//!
//! Left out: permissions are stored and never enforced (a test says what may not be read), and `reserve` only looks whether there is room.

mod disk;
mod durability;
mod names;
mod options;
mod port;
#[cfg(test)]
mod tests;

use std::collections::{BTreeMap, BTreeSet};
use std::fmt;
use std::io;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use packetboat_replica::fs::Stat;
use rustix::io::Errno;

use self::disk::{Body, Disk, Id, ROOT};
pub use self::options::{CrashModel, SimOptions};
use crate::crash::Crash;
use crate::rng::Rng;

/// A handle on a simulated file system.
#[derive(Clone)]
pub struct SimFs {
    world: Arc<Mutex<World>>,
}

/// The disk, and what is to go wrong with it.
struct World {
    disk: Disk,
    calls: u64,
    changes: u64,
    /// Number of the call, and the error it gets.
    faults: BTreeMap<u64, i32>,
    hooks: Vec<(u64, Hook)>,
    crash_at: Option<u64>,
    crashed: bool,
    /// What the program may not read.
    closed: BTreeSet<Id>,
}

impl World {
    fn check_readable(&self, id: Id) -> Result<(), Errno> {
        if self.closed.contains(&id) { Err(Errno::ACCESS) } else { Ok(()) }
    }
}

type Hook = Box<dyn FnOnce(&SimFs) + Send>;

/// What lies at a path, as [`SimFs::tree`] shows it.
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum Node {
    /// A regular file.
    File {
        /// Its content.
        bytes: Vec<u8>,
        /// Its permission bits.
        mode: u32,
        /// Its modification time in nanoseconds since 1970 UTC.
        mtime: i64,
        /// Its extended attributes.
        xattrs: BTreeMap<Vec<u8>, Vec<u8>>,
    },
    /// A directory.
    Directory {
        /// Its permission bits.
        mode: u32,
        /// Its extended attributes.
        xattrs: BTreeMap<Vec<u8>, Vec<u8>>,
    },
    /// A symbolic link.
    Symlink {
        /// Where it points.
        target: Vec<u8>,
    },
    /// A socket, fifo or device.
    Special,
}

impl SimFs {
    /// An empty file system.
    pub fn new(options: SimOptions) -> Self {
        Self::with_disk(Disk::new(options))
    }

    fn with_disk(disk: Disk) -> Self {
        let (faults, closed) = (BTreeMap::new(), BTreeSet::new());
        let world =
            World { disk, calls: 0, changes: 0, faults, hooks: Vec::new(), crash_at: None, crashed: false, closed };
        Self { world: Arc::new(Mutex::new(world)) }
    }

    /// Sets the time that further changes are stamped with, in nanoseconds since 1970 UTC.
    pub fn set_now(&self, now: i64) {
        self.lock().disk.now = now;
    }

    /// Changes what the file system can do; what is stored already stays as it is.
    pub fn set_options(&self, change: impl FnOnce(&mut SimOptions)) {
        change(&mut self.lock().disk.options);
    }

    /// Makes the `n`-th call from now (1 is the next) fail with an error number, without effect.
    pub fn fail_at(&self, n: u64, errno: i32) {
        let mut world = self.lock();
        let at = world.calls + n;
        world.faults.insert(at, errno);
    }

    /// Stops the world at the `n`-th mutating call from now (1 is the next):
    /// it and all calls after it have no effect and fail with [`Crash`].
    pub fn crash_at(&self, n: u64) {
        let mut world = self.lock();
        world.crash_at = Some(world.changes + n);
    }

    /// Runs `hook` right before the `n`-th call from now (1 is the next), as if somebody else acted between two calls.
    pub fn on_call(&self, n: u64, hook: impl FnOnce(&SimFs) + Send + 'static) {
        let mut world = self.lock();
        let at = world.calls + n;
        world.hooks.push((at, Box::new(hook)));
    }

    /// Calls off what was to happen before calls that have not come.
    pub fn call_off(&self) {
        self.lock().hooks.clear();
    }

    /// How many mutating calls the program has made, syncs among them.
    pub fn ops(&self) -> u64 {
        self.lock().changes
    }

    /// How many calls the program has made.
    pub fn calls(&self) -> u64 {
        self.lock().calls
    }

    /// Whether a crash that was asked for has happened.
    pub fn has_crashed(&self) -> bool {
        self.lock().crashed
    }

    /// What a power loss at this instant may leave: a new file system without faults, settled, with nothing open.
    pub fn crash(&self, rng: &mut Rng) -> SimFs {
        Self::with_disk(self.lock().disk.after_power_loss(rng))
    }

    /// What the program's death at this instant leaves: a new file system without faults, nothing lost and nothing open.
    pub fn kill(&self) -> SimFs {
        Self::with_disk(self.lock().disk.after_kill())
    }

    /// Makes everything durable, as the passing of a minute does.
    pub fn settle(&self) {
        self.lock().disk.sync_all();
    }

    /// The disk is mounted anew on a file system that numbers its objects by chance: each has another's number.
    pub fn renumber(&self) {
        self.renumber_all_but(&[]);
    }

    /// As [`renumber`](Self::renumber), but the objects at these paths get the numbers that they had.
    pub fn renumber_all_but(&self, kept: &[&str]) {
        let mut world = self.lock();
        world.disk.sync_all();
        let kept: Vec<_> = kept.iter().map(|path| world.disk.resolve(path.as_bytes()).expect("it is there")).collect();
        world.disk.rotate_inodes(&kept);
    }

    /// How many changes of names are not durable.
    pub fn unsynced(&self) -> usize {
        self.lock().disk.journal.len()
    }

    /// As the user: writes a file, in place where there is one, and makes the directories it needs.
    ///
    /// # Errors
    /// The file system's, as for a program.
    pub fn write(&self, path: impl AsRef<[u8]>, bytes: &[u8]) -> io::Result<()> {
        let path = path.as_ref();
        let mut world = self.lock();
        let disk = &mut world.disk;
        for cut in (0..path.len()).filter(|at| path[*at] == b'/') {
            match disk.create(&path[..cut], Body::Directory, 0o755) {
                Err(Errno::EXIST) => {}
                result => drop(result?),
            }
        }
        let id = match disk.resolve(path) {
            Err(Errno::NOENT) => disk.create(path, Body::File(Arc::default()), 0o644)?,
            result => result?,
        };
        if !matches!(disk.object(id)?.body, Body::File(_)) {
            return Err(Errno::ISDIR.into());
        }
        disk.truncate(id);
        if disk.write(id, 0, bytes)? < bytes.len() {
            return Err(Errno::NOSPC.into());
        }
        Ok(())
    }

    /// As the user: makes a directory.
    ///
    /// # Errors
    /// The file system's, as for a program.
    pub fn make_dir(&self, path: impl AsRef<[u8]>) -> io::Result<()> {
        self.lock().disk.create(path.as_ref(), Body::Directory, 0o755)?;
        Ok(())
    }

    /// As the user: makes a symlink.
    ///
    /// # Errors
    /// The file system's, as for a program.
    pub fn make_symlink(&self, target: &[u8], path: impl AsRef<[u8]>) -> io::Result<()> {
        self.lock().disk.create(path.as_ref(), Body::Symlink(target.to_vec()), 0o777)?;
        Ok(())
    }

    /// As the user: makes a fifo.
    ///
    /// # Errors
    /// The file system's, as for a program.
    pub fn make_special(&self, path: impl AsRef<[u8]>) -> io::Result<()> {
        self.lock().disk.create(path.as_ref(), Body::Special, 0o644)?;
        Ok(())
    }

    /// As the user: gives a file a second name.
    ///
    /// # Errors
    /// The file system's, as for a program.
    pub fn hard_link(&self, from: impl AsRef<[u8]>, to: impl AsRef<[u8]>) -> io::Result<()> {
        Ok(self.lock().disk.link(from.as_ref(), to.as_ref())?)
    }

    /// As the user: renames, over whatever is there.
    ///
    /// # Errors
    /// The file system's, as for a program.
    pub fn rename(&self, from: impl AsRef<[u8]>, to: impl AsRef<[u8]>) -> io::Result<()> {
        Ok(self.lock().disk.rename(from.as_ref(), to.as_ref(), true)?)
    }

    /// As the user: removes a file, or a directory with all that is in it.
    ///
    /// # Errors
    /// The file system's, as for a program.
    pub fn remove(&self, path: impl AsRef<[u8]>) -> io::Result<()> {
        let mut world = self.lock();
        let disk = &mut world.disk;
        let path = path.as_ref();
        let mut doomed = vec![path.to_vec()];
        disk.walk(disk.resolve(path)?, path, &mut |path, _| doomed.push(path.to_vec()));
        for path in doomed.iter().rev() {
            let directory = disk.object(disk.resolve(path)?)?.body == Body::Directory;
            disk.remove(path, directory)?;
        }
        Ok(())
    }

    /// As the user: sets a modification time, as `touch` does.
    ///
    /// # Errors
    /// The file system's, as for a program.
    pub fn touch(&self, path: impl AsRef<[u8]>, mtime: i64) -> io::Result<()> {
        let mut world = self.lock();
        let id = world.disk.resolve(path.as_ref())?;
        let mtime = world.disk.stored_time(mtime);
        world.disk.alter(id, |object| object.mtime = mtime);
        Ok(())
    }

    /// As the user: sets permission bits.
    ///
    /// # Errors
    /// The file system's, as for a program.
    pub fn chmod(&self, path: impl AsRef<[u8]>, mode: u32) -> io::Result<()> {
        let mut world = self.lock();
        let id = world.disk.resolve(path.as_ref())?;
        world.disk.alter(id, |object| object.mode = mode);
        Ok(())
    }

    /// Says whether the program may read a file or list a directory; its permission bits stay as they are.
    ///
    /// # Errors
    /// Where there is nothing at `path`.
    pub fn set_readable(&self, path: impl AsRef<[u8]>, readable: bool) -> io::Result<()> {
        let mut world = self.lock();
        let id = world.disk.resolve(path.as_ref())?;
        world.disk.alter(id, |_| ());
        match readable {
            true => world.closed.remove(&id),
            false => world.closed.insert(id),
        };
        Ok(())
    }

    /// As the user: sets an extended attribute, or removes it.
    ///
    /// # Errors
    /// Where there is nothing at `path`.
    pub fn set_user_xattr(&self, path: impl AsRef<[u8]>, name: &[u8], value: Option<&[u8]>) -> io::Result<()> {
        let mut world = self.lock();
        let id = world.disk.resolve(path.as_ref())?;
        world.disk.alter(id, |object| match value {
            Some(value) => drop(object.xattrs.insert(name.to_vec(), value.to_vec())),
            None => drop(object.xattrs.remove(name)),
        });
        Ok(())
    }

    /// Says that a directory, and all that is made in it from now on, lies on another device, as a mount point does.
    ///
    /// # Errors
    /// Where there is nothing at `path`.
    pub fn set_device(&self, path: impl AsRef<[u8]>, device: u64) -> io::Result<()> {
        let mut world = self.lock();
        let id = world.disk.resolve(path.as_ref())?;
        world.disk.alter(id, |object| object.device = device);
        Ok(())
    }

    /// As the user: reads a file.
    ///
    /// # Errors
    /// Where there is no regular file at `path`.
    pub fn read(&self, path: impl AsRef<[u8]>) -> io::Result<Vec<u8>> {
        let world = self.lock();
        match &world.disk.object(world.disk.resolve(path.as_ref())?)?.body {
            Body::File(bytes) => Ok(bytes.to_vec()),
            Body::Directory => Err(Errno::ISDIR.into()),
            Body::Symlink(_) => Err(Errno::LOOP.into()),
            Body::Special => Err(Errno::INVAL.into()),
        }
    }

    /// As the user: looks at what lies at a path.
    ///
    /// # Errors
    /// Where there is nothing.
    pub fn stat(&self, path: impl AsRef<[u8]>) -> io::Result<Stat> {
        let world = self.lock();
        Ok(world.disk.stat(world.disk.resolve(path.as_ref())?)?)
    }

    /// Whether anything lies at a path.
    pub fn exists(&self, path: impl AsRef<[u8]>) -> bool {
        self.lock().disk.resolve(path.as_ref()).is_ok()
    }

    /// Everything below the root, by path.
    pub fn tree(&self) -> BTreeMap<Vec<u8>, Node> {
        let world = self.lock();
        let mut tree = BTreeMap::new();
        world.disk.walk(ROOT, b"", &mut |path, id| {
            if let Ok(object) = world.disk.object(id) {
                let (mode, mtime, xattrs) = (object.mode, object.mtime, object.xattrs.clone());
                let node = match &object.body {
                    Body::File(bytes) => Node::File { bytes: bytes.to_vec(), mode, mtime, xattrs },
                    Body::Directory => Node::Directory { mode, xattrs },
                    Body::Symlink(target) => Node::Symlink { target: target.clone() },
                    Body::Special => Node::Special,
                };
                tree.insert(path.to_vec(), node);
            }
        });
        tree
    }

    fn lock(&self) -> MutexGuard<'_, World> {
        self.world.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Begins a call of the program: runs hooks, counts, and fails where that was asked for.
    fn enter(&self, mutating: bool) -> io::Result<MutexGuard<'_, World>> {
        let mut world = self.lock();
        loop {
            let next = world.calls + 1;
            let Some(due) = world.hooks.iter().position(|(at, _)| *at == next) else { break };
            let (_, hook) = world.hooks.remove(due);
            drop(world);
            hook(self);
            world = self.lock();
        }
        if world.crashed {
            return Err(Crash::error());
        }
        world.calls += 1;
        if mutating {
            world.changes += 1;
            if world.crash_at == Some(world.changes) {
                world.crashed = true;
                return Err(Crash::error());
            }
        }
        let call = world.calls;
        match world.faults.remove(&call) {
            Some(errno) => Err(io::Error::from_raw_os_error(errno)),
            None => Ok(world),
        }
    }
}

impl Default for SimFs {
    fn default() -> Self {
        Self::new(SimOptions::default())
    }
}

impl fmt::Debug for SimFs {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_map().entries(self.tree().iter().map(|(path, node)| (String::from_utf8_lossy(path), node))).finish()
    }
}

impl Disk {
    /// Visits everything beneath a directory, parents before children.
    fn walk(&self, dir: Id, path: &[u8], visit: &mut dyn FnMut(&[u8], Id)) {
        for (name, id) in self.entries.get(&dir).into_iter().flatten() {
            let mut path = path.to_vec();
            if !path.is_empty() {
                path.push(b'/');
            }
            path.extend_from_slice(name);
            visit(&path, *id);
            self.walk(*id, &path, visit);
        }
    }
}
