//! The simulated file system as the program under test sees it.

use std::collections::BTreeMap;
use std::io;
use std::sync::Arc;

use packetboat_core::name::RelPath;
use packetboat_replica::fs::{DirEntry, Fs, FsFile, Stat};
use rustix::io::Errno;

use super::SimFs;
use super::disk::{Body, Id};
use crate::rng::mix;

impl Fs for SimFs {
    fn read_dir(&self, dir: &RelPath) -> io::Result<Vec<DirEntry>> {
        let world = self.enter(false)?;
        let disk = &world.disk;
        let id = disk.resolve(dir.as_bytes())?;
        match disk.object(id)?.body {
            Body::Directory => {}
            Body::Symlink(_) => return Err(Errno::LOOP.into()),
            _ => return Err(Errno::NOTDIR.into()),
        }
        world.check_readable(id)?;
        let mut found: Vec<(&Vec<u8>, &Id)> = disk.entries.get(&id).into_iter().flatten().collect();
        // Not by name, lest someone come to count on it.
        found.sort_by_key(|(_, id)| mix(**id));
        let entry = |(name, id): (&Vec<u8>, &Id)| DirEntry {
            name: name.clone(),
            stat: disk.stat(*id).map_err(Errno::raw_os_error),
        };
        Ok(found.into_iter().map(entry).collect())
    }

    fn lstat(&self, path: &RelPath) -> io::Result<Stat> {
        let world = self.enter(false)?;
        Ok(world.disk.stat(world.disk.resolve(path.as_bytes())?)?)
    }

    fn open(&self, path: &RelPath) -> io::Result<Box<dyn FsFile>> {
        let mut world = self.enter(false)?;
        let id = world.disk.resolve(path.as_bytes())?;
        match world.disk.object(id)?.body {
            Body::File(_) => {}
            Body::Directory => return Err(Errno::ISDIR.into()),
            Body::Symlink(_) => return Err(Errno::LOOP.into()),
            Body::Special => return Err(Errno::INVAL.into()),
        }
        world.check_readable(id)?;
        world.disk.opened(id);
        Ok(Box::new(SimFile { fs: self.clone(), id, position: 0, writable: false }))
    }

    fn create_new(&self, path: &RelPath) -> io::Result<Box<dyn FsFile>> {
        let mut world = self.enter(true)?;
        let id = world.disk.create(path.as_bytes(), Body::File(Arc::default()), 0o600)?;
        world.disk.opened(id);
        Ok(Box::new(SimFile { fs: self.clone(), id, position: 0, writable: true }))
    }

    fn read_link(&self, path: &RelPath) -> io::Result<Vec<u8>> {
        let world = self.enter(false)?;
        match &world.disk.object(world.disk.resolve(path.as_bytes())?)?.body {
            Body::Symlink(target) => Ok(target.clone()),
            _ => Err(Errno::INVAL.into()),
        }
    }

    fn symlink(&self, target: &[u8], path: &RelPath) -> io::Result<()> {
        let mut world = self.enter(true)?;
        if target.is_empty() {
            return Err(Errno::NOENT.into());
        }
        world.disk.create(path.as_bytes(), Body::Symlink(target.to_vec()), 0o777)?;
        Ok(())
    }

    fn mkdir(&self, path: &RelPath, mode: u32) -> io::Result<()> {
        let mut world = self.enter(true)?;
        world.disk.create(path.as_bytes(), Body::Directory, permissions(mode)?)?;
        Ok(())
    }

    fn rename_new(&self, from: &RelPath, to: &RelPath) -> io::Result<()> {
        Ok(self.enter(true)?.disk.rename(from.as_bytes(), to.as_bytes(), false)?)
    }

    fn exchange(&self, a: &RelPath, b: &RelPath) -> io::Result<()> {
        let mut world = self.enter(true)?;
        if world.disk.options.no_exchange {
            return Err(io::ErrorKind::Unsupported.into());
        }
        Ok(world.disk.exchange(a.as_bytes(), b.as_bytes())?)
    }

    fn rename_over(&self, from: &RelPath, to: &RelPath) -> io::Result<()> {
        Ok(self.enter(true)?.disk.rename(from.as_bytes(), to.as_bytes(), true)?)
    }

    fn unlink(&self, path: &RelPath) -> io::Result<()> {
        Ok(self.enter(true)?.disk.remove(path.as_bytes(), false)?)
    }

    fn rmdir(&self, path: &RelPath) -> io::Result<()> {
        Ok(self.enter(true)?.disk.remove(path.as_bytes(), true)?)
    }

    fn set_mode(&self, path: &RelPath, mode: u32) -> io::Result<()> {
        let mut world = self.enter(true)?;
        let mode = permissions(mode)?;
        let id = world.disk.resolve(path.as_bytes())?;
        match world.disk.object(id)?.body {
            Body::File(_) | Body::Directory => {}
            Body::Symlink(_) => return Err(Errno::LOOP.into()),
            Body::Special => return Err(Errno::INVAL.into()),
        }
        world.disk.alter(id, |object| object.mode = mode);
        Ok(())
    }

    fn xattrs(&self, path: &RelPath) -> io::Result<Vec<(Vec<u8>, Vec<u8>)>> {
        let world = self.enter(false)?;
        let object = world.disk.object(world.disk.resolve(path.as_bytes())?)?;
        let found: BTreeMap<_, _> = if world.disk.options.no_xattrs { BTreeMap::new() } else { object.xattrs.clone() };
        Ok(found.into_iter().collect())
    }

    fn set_xattr(&self, path: &RelPath, name: &[u8], value: Option<&[u8]>) -> io::Result<()> {
        let mut world = self.enter(true)?;
        if !name.starts_with(b"user.") || name == b"user." {
            return Err(Errno::PERM.into());
        }
        let id = world.disk.resolve(path.as_bytes())?;
        if !matches!(world.disk.object(id)?.body, Body::File(_) | Body::Directory) {
            return Err(Errno::PERM.into());
        }
        if world.disk.options.no_xattrs {
            return Err(io::ErrorKind::Unsupported.into());
        }
        world.disk.alter(id, |object| match value {
            Some(value) => drop(object.xattrs.insert(name.to_vec(), value.to_vec())),
            None => drop(object.xattrs.remove(name)),
        });
        Ok(())
    }

    fn sync_dir(&self, dir: &RelPath) -> io::Result<()> {
        let mut world = self.enter(true)?;
        let id = world.disk.resolve(dir.as_bytes())?;
        if world.disk.object(id)?.body != Body::Directory {
            return Err(Errno::NOTDIR.into());
        }
        world.disk.sync_dir(id);
        Ok(())
    }

    fn sync_all(&self) -> io::Result<()> {
        let mut world = self.enter(true)?;
        if world.disk.options.no_sync_all {
            return Err(io::ErrorKind::Unsupported.into());
        }
        world.disk.sync_all();
        Ok(())
    }

    fn free_bytes(&self) -> io::Result<u64> {
        let world = self.enter(false)?;
        let capacity = world.disk.options.capacity.unwrap_or(1 << 40);
        Ok(capacity.saturating_sub(world.disk.used_bytes))
    }
}

/// An open file of [`SimFs`].
struct SimFile {
    fs: SimFs,
    id: Id,
    position: u64,
    writable: bool,
}

impl FsFile for SimFile {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        let world = self.fs.enter(false)?;
        let Body::File(content) = &world.disk.object(self.id)?.body else { return Err(Errno::INVAL.into()) };
        let at = usize::try_from(self.position).unwrap_or(usize::MAX);
        let rest = content.get(at..).unwrap_or_default();
        let len = rest.len().min(buffer.len());
        buffer[..len].copy_from_slice(&rest[..len]);
        drop(world);
        self.position += len as u64;
        Ok(len)
    }

    fn write_all(&mut self, bytes: &[u8]) -> io::Result<()> {
        let mut world = self.fs.enter(true)?;
        if !self.writable {
            return Err(Errno::BADF.into());
        }
        let written = world.disk.write(self.id, self.position, bytes)?;
        drop(world);
        self.position += written as u64;
        if written < bytes.len() { Err(Errno::NOSPC.into()) } else { Ok(()) }
    }

    fn stat(&self) -> io::Result<Stat> {
        Ok(self.fs.enter(false)?.disk.stat(self.id)?)
    }

    fn xattrs(&self) -> io::Result<Vec<(Vec<u8>, Vec<u8>)>> {
        let world = self.fs.enter(false)?;
        let found =
            if world.disk.options.no_xattrs { BTreeMap::new() } else { world.disk.object(self.id)?.xattrs.clone() };
        Ok(found.into_iter().collect())
    }

    fn set_mode(&mut self, mode: u32) -> io::Result<()> {
        let mut world = self.fs.enter(true)?;
        let mode = permissions(mode)?;
        world.disk.alter(self.id, |object| object.mode = mode);
        Ok(())
    }

    fn set_mtime(&mut self, mtime: i64) -> io::Result<()> {
        let mut world = self.fs.enter(true)?;
        let mtime = world.disk.stored_time(mtime);
        world.disk.alter(self.id, |object| object.mtime = mtime);
        Ok(())
    }

    fn sync(&self) -> io::Result<()> {
        self.fs.enter(true)?.disk.sync_object(self.id);
        Ok(())
    }

    fn reserve(&mut self, size: u64) -> io::Result<()> {
        let world = self.fs.enter(false)?;
        let disk = &world.disk;
        let has = disk.object(self.id)?.len();
        let free = disk.options.capacity.map_or(u64::MAX, |capacity| capacity.saturating_sub(disk.used_bytes));
        if size.saturating_sub(has) > free { Err(Errno::NOSPC.into()) } else { Ok(()) }
    }
}

impl Drop for SimFile {
    fn drop(&mut self) {
        self.fs.lock().disk.closed(self.id);
    }
}

/// Refuses setuid, setgid and sticky.
fn permissions(mode: u32) -> Result<u32, Errno> {
    if mode > 0o777 { Err(Errno::INVAL) } else { Ok(mode) }
}
