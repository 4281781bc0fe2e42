//! Changes of names on the simulated disk: each is one atomic step, and says what it rests on.

use std::collections::{BTreeMap, BTreeSet};

use rustix::io::Errno;

use super::disk::{Body, Change, Disk, Id, ROOT, Result, Touched, apply};

impl Disk {
    /// Applies one change of names, now; it becomes durable with the journal.
    fn commit_name_change(&mut self, edits: Vec<(Id, Vec<u8>, Option<Id>)>, extra: Vec<Touched>) {
        let mut touches: Vec<Touched> = edits.iter().map(|(dir, ..)| Touched::Entries(*dir)).chain(extra).collect();
        touches.sort_unstable();
        touches.dedup();
        apply(&mut self.entries, &edits);
        for (dir, _, id) in &edits {
            if let Some(id) = id.filter(|id| self.entries.contains_key(id)) {
                self.parents.insert(id, *dir);
            }
        }
        let dirs: BTreeSet<Id> = edits.iter().map(|(dir, ..)| *dir).collect();
        for dir in dirs {
            let time = self.time();
            self.alter(dir, |object| object.mtime = time);
        }
        self.journal.push(Change { edits, touches });
    }

    fn check_new_name(&self, name: &[u8]) -> Result<()> {
        let options = &self.options;
        let bad = name.iter().any(|byte| options.forbidden_bytes.contains(byte))
            || options.forbidden_names.iter().any(|forbidden| forbidden == name);
        if name.len() > options.max_name {
            return Err(Errno::NAMETOOLONG);
        }
        if bad { Err(Errno::INVAL) } else { Ok(()) }
    }

    /// Makes an object under a new name.
    pub(super) fn create(&mut self, path: &[u8], body: Body, mode: u32) -> Result<Id> {
        let (dir, name) = match self.parent(path) {
            Err(Errno::BUSY) => return Err(Errno::EXIST),
            result => result?,
        };
        self.check_new_name(name)?;
        if self.child(dir, name).is_ok() {
            return Err(Errno::EXIST);
        }
        let room = self.options.capacity.is_none_or(|capacity| self.used_bytes < capacity);
        if !room {
            return Err(Errno::NOSPC);
        }
        let device = self.object(dir)?.device;
        let place = body == Body::Directory;
        let id = self.new_object(body, mode, device);
        let extra = if place { vec![Touched::Place(id)] } else { Vec::new() };
        self.commit_name_change(vec![(dir, name.to_vec(), Some(id))], extra);
        Ok(id)
    }

    /// Gives a file a second name.
    pub(super) fn link(&mut self, from: &[u8], to: &[u8]) -> Result<()> {
        let (from_dir, from) = self.parent(from)?;
        let (to_dir, to) = self.parent(to)?;
        let (_, id) = self.child(from_dir, from)?;
        self.check_new_name(to)?;
        if self.object(id)?.body == Body::Directory {
            return Err(Errno::PERM);
        }
        if self.child(to_dir, to).is_ok() {
            return Err(Errno::EXIST);
        }
        let mut extra = self.places_above(to_dir);
        extra.push(Touched::Entries(from_dir));
        self.commit_name_change(vec![(to_dir, to.to_vec(), Some(id))], extra);
        self.alter(id, |object| object.links += 1);
        Ok(())
    }

    /// Removes a file's name, or an empty directory.
    pub(super) fn remove(&mut self, path: &[u8], directory: bool) -> Result<()> {
        let (dir, name) = self.parent(path)?;
        let (name, id) = self.child(dir, name)?;
        match (&self.object(id)?.body, directory) {
            (Body::Directory, false) => return Err(Errno::ISDIR),
            (Body::Directory, true) => self.check_empty(id)?,
            (_, true) => return Err(Errno::NOTDIR),
            (_, false) => {}
        }
        let extra = self.gone(id);
        self.commit_name_change(vec![(dir, name, None)], extra);
        self.drop_link(id);
        Ok(())
    }

    /// Renames; `over` replaces what is there, otherwise a taken name is `EEXIST`.
    pub(super) fn rename(&mut self, from: &[u8], to: &[u8], over: bool) -> Result<()> {
        let (from_dir, from) = self.parent(from)?;
        let (to_dir, to) = self.parent(to)?;
        let (from, id) = self.child(from_dir, from)?;
        self.check_new_name(to)?;
        self.check_move(id, to_dir)?;
        let moved_directory = self.object(id)?.body == Body::Directory;
        let mut extra = Vec::new();
        let mut edits = vec![(from_dir, from, None)];
        let mut replaced = None;
        match self.child(to_dir, to) {
            Ok(_) if !over => return Err(Errno::EXIST),
            Ok((stored, target)) if target == id => {
                // Two names of one file stay, as POSIX has it; a name that differs in case only is changed.
                if (from_dir, &stored) != (edits[0].0, &edits[0].1) || stored == to {
                    return Ok(());
                }
            }
            Ok((stored, target)) => {
                match (moved_directory, self.object(target)?.body == Body::Directory) {
                    (true, true) => self.check_empty(target)?,
                    (true, false) => return Err(Errno::NOTDIR),
                    (false, true) => return Err(Errno::ISDIR),
                    (false, false) => {}
                }
                extra.extend(self.gone(target));
                edits.push((to_dir, stored, None));
                replaced = Some(target);
            }
            Err(_) => {}
        }
        edits.push((to_dir, to.to_vec(), Some(id)));
        if from_dir != to_dir {
            extra.extend(self.places_above(to_dir));
            if moved_directory {
                extra.push(Touched::Place(id));
            }
        }
        self.commit_name_change(edits, extra);
        self.alter(id, |_| {});
        if let Some(replaced) = replaced {
            self.drop_link(replaced);
        }
        Ok(())
    }

    /// Swaps what two names stand for.
    pub(super) fn exchange(&mut self, a: &[u8], b: &[u8]) -> Result<()> {
        let (a_dir, a) = self.parent(a)?;
        let (b_dir, b) = self.parent(b)?;
        let (a, a_id) = self.child(a_dir, a)?;
        let (b, b_id) = self.child(b_dir, b)?;
        self.check_move(a_id, b_dir)?;
        self.check_move(b_id, a_dir)?;
        let mut extra = Vec::new();
        if a_dir != b_dir {
            extra.extend(self.places_above(a_dir));
            extra.extend(self.places_above(b_dir));
            for id in [a_id, b_id] {
                if self.object(id)?.body == Body::Directory {
                    extra.push(Touched::Place(id));
                }
            }
        }
        self.commit_name_change(vec![(a_dir, a, Some(b_id)), (b_dir, b, Some(a_id))], extra);
        self.alter(a_id, |_| {});
        self.alter(b_id, |_| {});
        Ok(())
    }

    /// Refuses to move an object to another device, or beneath itself.
    fn check_move(&self, id: Id, to_dir: Id) -> Result<()> {
        if self.object(id)?.device != self.object(to_dir)?.device {
            return Err(Errno::XDEV);
        }
        if id == to_dir || self.places_above(to_dir).contains(&Touched::Place(id)) {
            return Err(Errno::INVAL);
        }
        Ok(())
    }

    fn check_empty(&self, dir: Id) -> Result<()> {
        let empty = self.entries.get(&dir).is_none_or(BTreeMap::is_empty);
        if empty { Ok(()) } else { Err(Errno::NOTEMPTY) }
    }

    /// What the removal of an object touches: a directory is only gone when all that left it has left it.
    fn gone(&self, id: Id) -> Vec<Touched> {
        match self.entries.contains_key(&id) {
            true => vec![Touched::Entries(id), Touched::Place(id)],
            false => Vec::new(),
        }
    }

    /// The places of a directory and of all above it.
    fn places_above(&self, dir: Id) -> Vec<Touched> {
        let mut above = Vec::new();
        let mut at = dir;
        while at != ROOT {
            above.push(Touched::Place(at));
            match self.parents.get(&at) {
                Some(parent) => at = *parent,
                None => break,
            }
        }
        above
    }

    fn drop_link(&mut self, id: Id) {
        self.alter(id, |object| object.links -= 1);
        self.free_if_unused(id);
    }
}
