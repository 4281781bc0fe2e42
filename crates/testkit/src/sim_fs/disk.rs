//! The simulated disk: what programs see now, and what of it has reached stable storage.
//!
//! Names and objects become durable apart, as on real file systems.
//! Each change of names is a [`Change`] in a journal until some sync commits it;
//! an object's content and attributes are durable as of its last sync.
//! Objects have ids that are never reused, unlike the inode numbers that `stat` shows.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use packetboat_replica::fs::{FileKind, Stat};
use rustix::io::Errno;

use super::options::SimOptions;

pub(super) type Id = u64;
pub(super) type Entries = BTreeMap<Id, BTreeMap<Vec<u8>, Id>>;
pub(super) type Result<T> = std::result::Result<T, Errno>;

/// The root directory's id.
pub(super) const ROOT: Id = 0;

/// What an object holds.
#[derive(Clone, PartialEq, Eq, Debug)]
pub(super) enum Body {
    File(Arc<Vec<u8>>),
    Directory,
    Symlink(Vec<u8>),
    Special,
}

/// A file, directory or symlink, whatever its names.
#[derive(Clone, Debug)]
pub(super) struct Object {
    pub(super) body: Body,
    pub(super) mode: u32,
    pub(super) mtime: i64,
    pub(super) ctime: i64,
    pub(super) btime: i64,
    pub(super) xattrs: BTreeMap<Vec<u8>, Vec<u8>>,
    pub(super) inode: u64,
    pub(super) device: u64,
    pub(super) links: u64,
}

impl Object {
    pub(super) fn len(&self) -> u64 {
        match &self.body {
            Body::File(bytes) => bytes.len() as u64,
            Body::Symlink(target) => target.len() as u64,
            Body::Directory | Body::Special => 0,
        }
    }
}

/// What a change of names must keep its order with: two changes that touch the same thing are never reordered.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Debug)]
pub(super) enum Touched {
    /// The entries of a directory.
    Entries(Id),
    /// Where a directory lies. What is moved beneath it rests on that, or it would be lost with it;
    /// and so directories moved back and forth, of which only some moves survive, cannot come to lie in each other.
    Place(Id),
}

/// One atomic change of names that is not yet durable.
#[derive(Clone, Debug)]
pub(super) struct Change {
    /// Directory, name, and what it stands for afterwards.
    pub(super) edits: Vec<(Id, Vec<u8>, Option<Id>)>,
    pub(super) touches: Vec<Touched>,
}

/// The state of a simulated disk.
#[derive(Clone)]
pub(super) struct Disk {
    pub(super) options: SimOptions,
    pub(super) now: i64,
    pub(super) objects: BTreeMap<Id, Object>,
    pub(super) entries: Entries,
    /// In which directory each directory lies.
    pub(super) parents: BTreeMap<Id, Id>,
    pub(super) stable_objects: BTreeMap<Id, Object>,
    pub(super) stable_entries: Entries,
    /// Objects whose content or attributes differ from the stable ones.
    pub(super) dirty: BTreeSet<Id>,
    pub(super) journal: Vec<Change>,
    /// How often each object is open.
    pub(super) open: BTreeMap<Id, usize>,
    pub(super) free_inodes: Vec<u64>,
    pub(super) next_inode: u64,
    next_id: Id,
    pub(super) used_bytes: u64,
}

impl Disk {
    pub(super) fn new(options: SimOptions) -> Self {
        let mut disk = Self {
            options,
            now: 0,
            objects: BTreeMap::new(),
            entries: BTreeMap::new(),
            parents: BTreeMap::new(),
            stable_objects: BTreeMap::new(),
            stable_entries: BTreeMap::new(),
            dirty: BTreeSet::new(),
            journal: Vec::new(),
            open: BTreeMap::new(),
            free_inodes: Vec::new(),
            next_inode: 2,
            next_id: ROOT,
            used_bytes: 0,
        };
        disk.new_object(Body::Directory, 0o755, 1);
        disk
    }

    /// Finds what a path stands for, following no symlink.
    pub(super) fn resolve(&self, path: &[u8]) -> Result<Id> {
        let mut at = ROOT;
        for name in names(path) {
            at = self.child(at, name)?.1;
        }
        Ok(at)
    }

    /// The directory in which a path lies, and the name there; the root is `EBUSY`.
    pub(super) fn parent<'a>(&self, path: &'a [u8]) -> Result<(Id, &'a [u8])> {
        let (dir, name) = match path.iter().rposition(|byte| *byte == b'/') {
            Some(cut) => (&path[..cut], &path[cut + 1..]),
            None => (&path[..0], path),
        };
        if name.is_empty() {
            return Err(Errno::BUSY);
        }
        let dir = self.resolve(dir)?;
        self.check_directory(dir)?;
        Ok((dir, name))
    }

    /// An entry's name as stored, and its object.
    pub(super) fn child(&self, dir: Id, name: &[u8]) -> Result<(Vec<u8>, Id)> {
        self.check_directory(dir)?;
        let entries = self.entries.get(&dir).ok_or(Errno::NOENT)?;
        if let Some(id) = entries.get(name) {
            return Ok((name.to_vec(), *id));
        }
        let alike = |stored: &[u8]| self.options.case_insensitive && folded(stored) == folded(name);
        let found = entries.iter().find(|(stored, _)| alike(stored));
        found.map(|(stored, id)| (stored.clone(), *id)).ok_or(Errno::NOENT)
    }

    pub(super) fn check_directory(&self, id: Id) -> Result<()> {
        match self.object(id)?.body {
            Body::Directory => Ok(()),
            Body::Symlink(_) => Err(Errno::LOOP),
            Body::File(_) | Body::Special => Err(Errno::NOTDIR),
        }
    }

    pub(super) fn object(&self, id: Id) -> Result<&Object> {
        self.objects.get(&id).ok_or(Errno::STALE)
    }

    pub(super) fn stat(&self, id: Id) -> Result<Stat> {
        let object = self.object(id)?;
        Ok(Stat {
            kind: match object.body {
                Body::File(_) => FileKind::File,
                Body::Directory => FileKind::Directory,
                Body::Symlink(_) => FileKind::Symlink,
                Body::Special => FileKind::Special,
            },
            size: object.len(),
            mtime: object.mtime,
            ctime: object.ctime,
            btime: (!self.options.no_btime).then_some(object.btime),
            inode: object.inode,
            device: object.device,
            mode: object.mode,
            links: object.links,
        })
    }

    /// Gives each object but the kept ones the inode number of another; all of them are durable.
    pub(super) fn rotate_inodes(&mut self, kept: &[Id]) {
        let is_turned = |id: &Id| !kept.contains(id);
        let turned = self.objects.iter().filter(|(id, _)| is_turned(id));
        let numbers: Vec<u64> = turned.map(|(_, object)| object.inode).collect();
        let rotated = numbers.iter().cycle().skip(1);
        for ((id, object), inode) in self.objects.iter_mut().filter(|(id, _)| is_turned(id)).zip(rotated) {
            object.inode = *inode;
            if let Some(stable) = self.stable_objects.get_mut(id) {
                stable.inode = *inode;
            }
        }
    }

    pub(super) fn time(&self) -> i64 {
        self.now - self.now.rem_euclid(self.options.time_granularity.max(1))
    }

    /// Rounds a time as the file system would store it.
    pub(super) fn stored_time(&self, time: i64) -> i64 {
        time.saturating_sub(time.rem_euclid(self.options.time_granularity.max(1)))
    }

    pub(super) fn new_object(&mut self, body: Body, mode: u32, device: u64) -> Id {
        let id = self.next_id;
        self.next_id += 1;
        let reused = if self.options.reuse_inodes { self.free_inodes.pop() } else { None };
        let inode = reused.unwrap_or_else(|| {
            self.next_inode += 1;
            self.next_inode - 1
        });
        let time = self.time();
        let xattrs = BTreeMap::new();
        let (mtime, ctime, btime) = (time, time, time);
        if body == Body::Directory {
            self.entries.insert(id, BTreeMap::new());
            self.stable_entries.insert(id, BTreeMap::new());
        }
        let object = Object { body, mode, mtime, ctime, btime, xattrs, inode, device, links: 1 };
        self.used_bytes += object.len();
        self.stable_objects.insert(id, object.clone());
        self.objects.insert(id, object);
        id
    }

    /// Changes an object's content or attributes, and its ctime.
    pub(super) fn alter(&mut self, id: Id, change: impl FnOnce(&mut Object)) {
        let time = self.time();
        if let Some(object) = self.objects.get_mut(&id) {
            change(object);
            object.ctime = time;
            self.dirty.insert(id);
        }
    }

    pub(super) fn opened(&mut self, id: Id) {
        *self.open.entry(id).or_default() += 1;
    }

    pub(super) fn closed(&mut self, id: Id) {
        let left = self.open.get_mut(&id).map_or(0, |count| {
            *count -= 1;
            *count
        });
        if left == 0 {
            self.open.remove(&id);
            self.free_if_unused(id);
        }
    }

    /// Gives up the room and inode number of what has neither name nor user. A crash may yet bring it back.
    pub(super) fn free_if_unused(&mut self, id: Id) {
        let Some(object) = self.objects.get(&id) else { return };
        if object.links == 0 && !self.open.contains_key(&id) {
            self.used_bytes -= object.len();
            self.free_inodes.push(object.inode);
        }
    }

    /// Writes within or at the end of a file; returns how much fitted.
    pub(super) fn write(&mut self, id: Id, offset: u64, bytes: &[u8]) -> Result<usize> {
        let offset = usize::try_from(offset).map_err(|_| Errno::FBIG)?;
        let Body::File(content) = &self.object(id)?.body else { return Err(Errno::INVAL) };
        let len = content.len();
        let free = self.options.capacity.map_or(u64::MAX, |capacity| capacity.saturating_sub(self.used_bytes));
        let room = (len.saturating_sub(offset) as u64).saturating_add(free);
        let written = bytes.len().min(usize::try_from(room).unwrap_or(usize::MAX));
        let grown = (offset + written).max(len) - len;
        let time = self.time();
        self.alter(id, |object| {
            if let Body::File(content) = &mut object.body {
                let content = Arc::make_mut(content);
                content.resize(len + grown, 0);
                content[offset..offset + written].copy_from_slice(&bytes[..written]);
            }
            object.mtime = time;
        });
        self.used_bytes += grown as u64;
        if written < bytes.len() && written == 0 { Err(Errno::NOSPC) } else { Ok(written) }
    }

    /// Empties a file.
    pub(super) fn truncate(&mut self, id: Id) {
        let time = self.time();
        self.used_bytes -= self.objects.get(&id).map_or(0, Object::len);
        self.alter(id, |object| {
            object.body = Body::File(Arc::default());
            object.mtime = time;
        });
    }
}

/// Applies changed entries to a set of directories.
pub(super) fn apply(entries: &mut Entries, edits: &[(Id, Vec<u8>, Option<Id>)]) {
    for (dir, name, id) in edits {
        let names = entries.entry(*dir).or_default();
        match id {
            Some(id) => names.insert(name.clone(), *id),
            None => names.remove(name),
        };
    }
}

/// The names of a path, from the root down.
fn names(path: &[u8]) -> impl Iterator<Item = &[u8]> {
    path.split(|byte| *byte == b'/').filter(|name| !name.is_empty())
}

fn folded(name: &[u8]) -> String {
    String::from_utf8_lossy(name).to_lowercase()
}
