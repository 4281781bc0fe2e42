//! One batch of steps that make and change: stage, sync, rename, sync, record.
//!
//! A new directory is staged whole with everything of the batch beneath it and comes to its place by one rename;
//! other objects are staged per target directory. Steps come in an order in which a directory stands before what it holds.
//! The index is written within one transaction while objects come to their places, so that paths follow from it;
//! it is committed when the disk is durable.

use std::collections::{BTreeSet, HashMap};
use std::io;

use packetboat_core::content::{ChunkList, ChunkRef, Content, FileContent};
use packetboat_core::ids::ItemId;
use packetboat_core::local::{DirId, EntryState, Fingerprint, LocalEntry, LocalRead, View};
use packetboat_core::local_name;
use packetboat_core::name::{Name, RelPath};
use packetboat_core::plan::{HistoryRead, Planned, Step, seen_of, shown_name};
use packetboat_core::tree::{TreeRead, TreeWrite};
use packetboat_core::view::{Shown, Viewer};
use packetboat_replica::fs::{FileKind, Stat};

use super::disk::{FEW, Trouble, fatal, is_same, remove_tree, trouble, unless_fatal};
use super::place::Source;
use super::records::{self, Record};
use super::{Applier, CONTENT, DISK, IGNORED, IGNORED_ITEM, NAME};
use crate::content_reader::{ContentReader, ReadError};
use crate::error::SyncError;
use crate::fetch::{Fetcher, FileJob, OldFile, WriteError, Written, tolerated, zero_bytes};
use crate::paths;
use crate::scan::{fingerprint, state_at};

/// A step of a batch on its way.
struct Task {
    step: Step,
    /// Where it is to be; nothing where it stays.
    holder: Option<Holder>,
    /// The name it has, or is to have, on disk.
    name: Name,
    /// What was made of it in staging.
    staged: Option<RelPath>,
    /// What `stat` said of it there, and the attributes that it got.
    made: Option<Written>,
    /// The file that it replaces, to take chunks from.
    old: Option<(RelPath, FileContent)>,
    /// Its number, once a new directory has come to its place.
    own: Option<DirId>,
    waits: bool,
}

/// The directory that an object goes to.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
enum Holder {
    /// One on disk.
    Known(DirId),
    /// One that this task of the batch makes.
    New(usize),
}

#[derive(Default)]
struct Batch {
    tasks: Vec<Task>,
    /// The tasks that make directories, by item.
    new_dirs: HashMap<ItemId, usize>,
    /// Directories on disk by item.
    known_dirs: HashMap<ItemId, Option<DirId>>,
    /// Paths of directories as people see them, by item; asked for where something is ignored.
    shown_paths: HashMap<ItemId, RelPath>,
    /// Directories in staging, parents before children.
    staged_dirs: Vec<RelPath>,
    /// Directories in staging for files of one target directory each.
    per_target: BTreeSet<RelPath>,
}

impl Applier<'_, '_> {
    /// Takes steps in batches of bounded size; says whether anything was done.
    pub(super) fn take_steps(&mut self, steps: Vec<Planned>) -> Result<bool, SyncError> {
        let mut progress = false;
        let mut rest = steps.into_iter().peekable();
        while rest.peek().is_some() {
            self.interrupted()?;
            let room = self.room()?;
            let mut steps = Vec::new();
            let mut bytes = 0;
            while let Some(planned) = rest.peek() {
                bytes += bytes_of(&planned.step);
                if bytes > room && !steps.is_empty() {
                    break;
                }
                if bytes > room {
                    let free = self.ctx.fs.free_bytes().unwrap_or(u64::MAX);
                    if bytes > free && self.written_bytes(&planned.step)? > free {
                        return Err(SyncError::DiskFull);
                    }
                }
                steps.extend(rest.next().map(|planned| planned.step));
            }
            progress |= self.batch(steps)?;
        }
        Ok(progress)
    }

    /// How many bytes a step writes, where it is so large that its holes matter.
    fn written_bytes(&self, step: &Step) -> Result<u64, SyncError> {
        let bytes = bytes_of(step);
        let (Step::Make { shown } | Step::Change { shown, .. }) = step else { return Ok(bytes) };
        let Content::File(file) = &shown.content else { return Ok(bytes) };
        let ring = &self.ctx.keys.ring;
        let mut reader = ContentReader::new(&*self.ctx.index, self.ctx.store, ring, self.ctx.threads);
        match reader.chunk_list(file) {
            Ok(list) => Ok(bytes.saturating_sub(zero_bytes(ring, &list))),
            Err(ReadError::Sync(error)) => Err(error),
            Err(_) => Ok(bytes),
        }
    }

    /// How many bytes may be staged together.
    fn room(&self) -> Result<u64, SyncError> {
        let free = self.ctx.fs.free_bytes().map_err(|error| fatal(&RelPath::root(), error))?;
        Ok(self.ctx.limits.bytes.min(free))
    }

    fn batch(&mut self, steps: Vec<Step>) -> Result<bool, SyncError> {
        self.parked.clear();
        self.records.clear();
        self.vacated.clear();
        let mut batch = Batch::default();
        for step in steps {
            self.stage(step, &mut batch)?;
        }
        let failed = self.write_files(&mut batch)?;
        self.sync_staged(&mut batch)?;
        records::write(self.ctx.index, &self.label, &self.records)?;
        self.ctx.index.begin()?;
        let mut progress = std::mem::take(&mut self.adopted);
        for at in 0..batch.tasks.len() {
            let done = !batch.tasks[at].waits && self.place(&mut batch, at)?;
            progress |= done;
            if !done {
                let step = batch.tasks[at].step.clone();
                self.wait(&step);
            }
        }
        self.set_late_modes()?;
        self.make_durable()?;
        self.ctx.index.commit()?;
        self.give_up_old()?;
        self.clear_staged(&batch)?;
        match failed {
            Some(error) => Err(SyncError::Store(error)),
            None => Ok(progress),
        }
    }

    /// Decides where a step's object is made, and makes it there if that takes no content.
    fn stage(&mut self, step: Step, batch: &mut Batch) -> Result<(), SyncError> {
        let shown = match &step {
            Step::Make { shown } | Step::Change { shown, .. } | Step::Agree { shown, .. } => shown,
            Step::Remove { .. } => return Ok(()),
        };
        let name = match &step {
            // A name in staging stands in for none: the real one is tried again.
            Step::Change { entry, .. } if *shown_name(entry) == shown.name && entry.dir != DirId::STAGING => {
                entry.name.clone()
            }
            _ => shown.name.clone(),
        };
        let needs_place = matches!(step, Step::Make { .. } | Step::Change { place: true, .. });
        let holder = if needs_place { self.holder(batch, shown.parent)? } else { None };
        let mut task =
            Task { holder, name, staged: None, made: None, old: None, own: None, waits: false, step: step.clone() };
        task.waits = needs_place && holder.is_none() || self.given_up.contains(&shown.item);
        match &step {
            Step::Make { shown } if self.is_ignored_make(batch, &mut task, shown)? => return Ok(()),
            Step::Make { shown } if !task.waits => {
                task.waits = self.is_frozen_there(&task, shown)?;
                if !task.waits {
                    self.leave_what_it_was(shown)?;
                    self.stage_make(batch, &mut task, shown)?;
                }
            }
            Step::Change { entry, shown, content, .. } if !task.waits => {
                let (dir, name) = self.current(entry);
                let path = self.dir_path(dir)?.join(&name);
                if self.is_covered(entry)? {
                    if !self.is_to_be_ignored(shown)? {
                        // What is to be seen elsewhere is made there in a later pass.
                        self.leave_as_local(entry)?;
                        self.wait(&step);
                        return Ok(());
                    }
                    return self.freeze(entry);
                }
                if *content {
                    task.old = self.old_content(entry, shown)?.map(|old| (path, old));
                    self.stage_leaf(batch, &mut task, shown, entry.dir)?;
                }
            }
            _ => {}
        }
        if let (Step::Make { shown }, true) = (&task.step, shown.content.is_directory()) {
            batch.new_dirs.insert(shown.item, batch.tasks.len());
        }
        batch.tasks.push(task);
        Ok(())
    }

    fn holder(&self, batch: &mut Batch, parent: ItemId) -> Result<Option<Holder>, SyncError> {
        if let Some(at) = batch.new_dirs.get(&parent) {
            return Ok((!batch.tasks[*at].waits).then_some(Holder::New(*at)));
        }
        let known = match batch.known_dirs.get(&parent) {
            Some(known) => *known,
            None => {
                let known = self.physical_dir(parent)?;
                batch.known_dirs.insert(parent, known);
                known
            }
        };
        Ok(known.map(Holder::Known))
    }

    /// Whether what is to be made is ignored here; the topmost of what is so is listed.
    ///
    /// What is so only where its directory is on this disk, and not where people see it, waits for that to follow.
    fn is_ignored_make(&mut self, batch: &mut Batch, task: &mut Task, shown: &Shown) -> Result<bool, SyncError> {
        if self.ctx.rules.is_empty() {
            return Ok(false);
        }
        let directory = shown.content.is_directory();
        let dir = match task.holder {
            Some(Holder::Known(dir)) => paths::known_dir_path(self.ctx.index, dir)?,
            // What is not on this disk yet is where people see it.
            _ => match batch.shown_paths.get(&shown.parent) {
                Some(path) => path.clone(),
                None => {
                    let path = Viewer::new(&*self.ctx.index).path_of(shown.parent)?;
                    batch.shown_paths.insert(shown.parent, path.clone());
                    path
                }
            },
        };
        let path = dir.join(&shown.name);
        if !self.ctx.rules.covers(&path, directory) {
            return Ok(false);
        }
        let seen_in = Viewer::new(&*self.ctx.index).path_of(shown.parent)?;
        if !self.ctx.rules.covers(&seen_in.join(&shown.name), directory) {
            task.waits = true;
            return Ok(false);
        }
        let is_topmost = |dir: &RelPath| dir.is_root() || !self.ctx.rules.covers(dir, true);
        if is_topmost(&dir) || is_topmost(&seen_in) {
            let path = if is_topmost(&dir) { path } else { seen_in.join(&shown.name) };
            self.ctx.index.set_problem(IGNORED, path.as_bytes(), "it is ignored here and not on this disk")?;
            self.ctx.index.set_problem(IGNORED_ITEM, shown.item.as_bytes(), "")?;
        } else if matches!(task.holder, Some(Holder::Known(_))) {
            // Its directory is on this disk, so that nothing else would keep it in mind.
            self.ctx.index.set_problem(IGNORED_ITEM, shown.item.as_bytes(), "")?;
        }
        Ok(true)
    }

    /// Whether an entry that was ignored stands where something is to be made; if it is the same item, the next scan
    /// looks at it again.
    fn is_frozen_there(&mut self, task: &Task, shown: &Shown) -> Result<bool, SyncError> {
        let Some(Holder::Known(dir)) = task.holder else { return Ok(false) };
        let Some(entry) = self.ctx.index.entry_at(dir, &shown.name)? else { return Ok(false) };
        if entry.state != EntryState::Frozen {
            return Ok(false);
        }
        let same = entry.seen.item == shown.item || shown.twins.iter().any(|twin| twin.item == entry.seen.item);
        if same {
            self.ctx.index.set_fingerprint(dir, &shown.name, &entry.stat, &EntryState::Racy)?;
        } else if shown.content.is_directory() && entry.own_dir.is_some() {
            // It stayed for what is ignored in it; from now on it is this one.
            let seen = named_seen(shown, &View::Plain, &entry.name);
            self.ctx.index.put_entry(&LocalEntry { seen, state: EntryState::Settled, ..entry })?;
            self.adopted = true;
        }
        Ok(true)
    }

    /// Whether a rule covers the place where something is seen.
    fn is_to_be_ignored(&self, shown: &Shown) -> Result<bool, SyncError> {
        let path = Viewer::new(&*self.ctx.index).path_of(shown.parent)?.join(&shown.name);
        Ok(self.ctx.rules.covers(&path, shown.content.is_directory()))
    }

    /// Leaves what stood for something that is to be made elsewhere now, and is ignored where it is; and has what was never
    /// brought here, since the directory was ignored where it lay, looked at with that directory.
    fn leave_what_it_was(&mut self, shown: &Shown) -> Result<(), SyncError> {
        if self.ctx.rules.is_empty() {
            return Ok(());
        }
        // One that is where it was made is new here with all that it holds.
        let was_moved = shown.heads.first() != Some(&shown.placed) || self.reconsidered.contains(&shown.item);
        if shown.content.is_directory() && was_moved {
            let mut after = None;
            loop {
                let page = self.ctx.index.children(shown.item, after, PAGE)?;
                let Some((last, _)) = page.last() else { break };
                after = Some(last.clone());
                for (_, child) in &page {
                    // Before the directory is there, or a crash could forget it; and in the next pass even where it was
                    // planned in this very batch.
                    self.ctx.index.touch(*child)?;
                    self.failed.insert(*child);
                    self.reconsidered.insert(*child);
                }
                self.adopted = true;
            }
        }
        for item in shown.twins.iter().map(|twin| twin.item).chain([shown.item]) {
            for entry in self.ctx.index.entries_of(item)? {
                if entry.state == EntryState::Frozen && self.is_covered(&entry)? {
                    self.leave_as_local(&entry)?;
                }
            }
        }
        Ok(())
    }

    /// Forgets what is recorded of something that is ignored, with all beneath it: it stays on this disk and is local.
    ///
    /// What lies in an ignored directory would else be taken for what is seen in it where it was moved to.
    fn leave_as_local(&mut self, entry: &LocalEntry) -> Result<(), SyncError> {
        let (dir, name) = self.current(entry);
        self.ctx.index.begin()?;
        if let Some(own) = entry.own_dir {
            self.forget_within(own)?;
        }
        self.ctx.index.remove_entry(dir, &name)?;
        self.failed.insert(entry.seen.item);
        self.ctx.index.commit()?;
        self.adopted = true;
        Ok(())
    }

    fn stage_make(&mut self, batch: &mut Batch, task: &mut Task, shown: &Shown) -> Result<(), SyncError> {
        if !shown.content.is_directory() {
            let dir = match task.holder {
                Some(Holder::Known(dir)) => dir,
                _ => DirId::STAGING,
            };
            return self.stage_leaf(batch, task, shown, dir);
        }
        let fs = self.ctx.fs;
        let made = match task.holder {
            Some(Holder::New(parent)) => {
                let within = batch.tasks[parent].staged.clone().expect("a new directory is in staging");
                self.in_staged_tree(&within, task, shown, &mut |path| fs.mkdir(path, 0o700))?
            }
            _ => {
                let path = self.fresh_path("new");
                fs.mkdir(&path, 0o700).map_err(|error| fatal(&path, error))?;
                Some(path)
            }
        };
        let Some(path) = made else {
            task.waits = true;
            return Ok(());
        };
        let mut xattrs = Vec::new();
        for (name, value) in &shown.xattrs {
            if tolerated(fs.set_xattr(&path, name, Some(value))).map_err(|error| fatal(&path, error))? {
                xattrs.push((name.clone(), value.clone()));
            }
        }
        let stat = fs.lstat(&path).map_err(|error| fatal(&path, error))?;
        task.made = Some(Written { stat, xattrs });
        batch.staged_dirs.push(path.clone());
        task.staged = Some(path);
        Ok(())
    }

    /// Makes something within a directory that is itself in staging, under its name or one that stands in for it.
    fn in_staged_tree(
        &mut self,
        within: &RelPath,
        task: &mut Task,
        shown: &Shown,
        make: &mut dyn FnMut(&RelPath) -> io::Result<()>,
    ) -> Result<Option<RelPath>, SyncError> {
        let mut names = vec![shown.name.clone()];
        let mut at = 0;
        while at < names.len() {
            let path = within.join(&names[at]);
            match make(&path) {
                Ok(()) => {
                    task.name = names.swap_remove(at);
                    return Ok(Some(path));
                }
                Err(error) => {
                    let more = match trouble(&error) {
                        // Nobody else makes anything here, so the name was taken for another.
                        Trouble::Taken => local_name::distinct(&shown.name),
                        Trouble::Name => local_name::stand_ins(&shown.name),
                        _ => return Err(fatal(&path, error)),
                    };
                    if at == 0 {
                        names.extend(more);
                    }
                }
            }
            at += 1;
        }
        let path = Viewer::new(&*self.ctx.index).path_of(shown.parent)?.join(&shown.name);
        self.problem(NAME, &path, "the file system can hold neither this name nor one that stands in for it")?;
        Ok(None)
    }

    /// Decides where a file or symlink is made; makes the symlink.
    fn stage_leaf(&mut self, batch: &mut Batch, task: &mut Task, shown: &Shown, dir: DirId) -> Result<(), SyncError> {
        let fs = self.ctx.fs;
        let within = match task.holder {
            Some(Holder::New(parent)) if matches!(task.step, Step::Make { .. }) => {
                Some(batch.tasks[parent].staged.clone().expect("a new directory is in staging"))
            }
            _ => None,
        };
        let path = match &within {
            Some(within) => within.join(&shown.name),
            None => {
                let folder = paths::staging().join(&Name::new(dir.0.to_string()).expect("digits are a sound name"));
                if batch.per_target.insert(folder.clone()) {
                    match fs.mkdir(&folder, 0o700) {
                        Err(error) if trouble(&error) != Trouble::Taken => return Err(fatal(&folder, error)),
                        _ => {}
                    }
                }
                self.staged += 1;
                folder.join(&Name::new(self.staged.to_string()).expect("digits are a sound name"))
            }
        };
        let Content::Symlink(target) = &shown.content else {
            task.staged = Some(path);
            return Ok(());
        };
        let path = match &within {
            Some(within) => self.in_staged_tree(within, task, shown, &mut |path| fs.symlink(target, path))?,
            None => match fs.symlink(target, &path) {
                Ok(()) => Some(path),
                Err(error) if trouble(&error) == Trouble::Disk => return Err(fatal(&path, error)),
                Err(error) => {
                    let place = Viewer::new(&*self.ctx.index).path_of(shown.parent)?.join(&shown.name);
                    self.problem(DISK, &place, &format!("the symlink cannot be made: {error}"))?;
                    None
                }
            },
        };
        let Some(path) = path else {
            task.waits = true;
            return Ok(());
        };
        let stat = fs.lstat(&path).map_err(|error| fatal(&path, error))?;
        task.made = Some(Written { stat, xattrs: Vec::new() });
        task.staged = Some(path);
        Ok(())
    }

    /// What an entry's file held when it was recorded, if the new content may share chunks with it.
    fn old_content(&self, entry: &LocalEntry, shown: &Shown) -> Result<Option<FileContent>, SyncError> {
        let (Content::File(new), Some(dot)) = (&shown.content, entry.seen.heads.first()) else { return Ok(None) };
        if new.size < LEAST_SHARED {
            return Ok(None);
        }
        match self.ctx.index.version(entry.seen.item, dot)?.map(|head| head.content) {
            Some(Content::File(old)) if old.size >= LEAST_SHARED => Ok(Some(old)),
            _ => Ok(None),
        }
    }

    /// Writes the batch's files; answers with a failure of the intermediary as a whole, if there was one.
    fn write_files(&mut self, batch: &mut Batch) -> Result<Option<packetboat_core::store::StoreError>, SyncError> {
        let wanted: Vec<usize> = (0..batch.tasks.len())
            .filter(|at| {
                let task = &batch.tasks[*at];
                !task.waits && task.made.is_none() && task.staged.is_some()
            })
            .collect();
        if wanted.is_empty() {
            return Ok(None);
        }
        let sync = wanted.len() < FEW || !self.syncs_whole()?;
        let mut packets = std::mem::take(&mut self.packets);
        let mut fetcher = Fetcher {
            fs: self.ctx.fs,
            index: &*self.ctx.index,
            store: self.ctx.store,
            ring: &self.ctx.keys.ring,
            threads: self.ctx.threads,
            window: self.ctx.limits.window,
            packets: &mut packets,
            write_behind: !sync,
            failed: None,
        };
        let mut jobs = Vec::with_capacity(wanted.len());
        for at in &wanted {
            jobs.push(job(&mut fetcher, &batch.tasks[*at], sync)?);
        }
        let observer = &mut *self.observer;
        let mut written_bytes = 0;
        let mut todo: Vec<usize> = (0..jobs.len()).collect();
        let mut results: Vec<Option<Result<Written, WriteError>>> = jobs.iter().map(|_| None).collect();
        let mut tries: Vec<Vec<Name>> = vec![Vec::new(); jobs.len()];
        while !todo.is_empty() {
            let round: Vec<FileJob> = todo.iter().map(|at| jobs[*at].clone()).collect();
            let answers = fetcher.write(&round, &mut |bytes| {
                written_bytes += bytes;
                observer.advance(0, bytes);
            })?;
            let mut again = Vec::new();
            for (at, answer) in todo.into_iter().zip(answers) {
                let task = &mut batch.tasks[wanted[at]];
                if let Err(WriteError::Disk(error)) = &answer
                    && let Some(name) = next_name(task, error, &mut tries[at])
                {
                    let (dir, _) = jobs[at].path.split().expect("it lies in a directory");
                    jobs[at].path = dir.join(&name);
                    task.name = name;
                    again.push(at);
                }
                results[at] = Some(answer);
            }
            todo = again;
        }
        let failed = fetcher.failed.take();
        self.packets = packets;
        self.received.bytes_written += written_bytes;
        for ((at, job), result) in wanted.into_iter().zip(jobs).zip(results) {
            let task = &mut batch.tasks[at];
            match result.expect("every job is answered") {
                Ok(written) => {
                    task.made = Some(written);
                    task.staged = Some(job.path);
                }
                Err(error) => {
                    task.waits = true;
                    let (Step::Make { shown } | Step::Change { shown, .. } | Step::Agree { shown, .. }) = &task.step
                    else {
                        continue;
                    };
                    let shown = shown.clone();
                    self.given_up.insert(shown.item);
                    let path = Viewer::new(&*self.ctx.index).path_of(shown.parent)?.join(&shown.name);
                    match error {
                        WriteError::Content(text) => self.problem(CONTENT, &path, &text)?,
                        WriteError::Disk(error) if trouble(&error) == Trouble::Name => {
                            self.problem(NAME, &path, "the file system can hold no such name")?;
                        }
                        WriteError::Disk(error) => return Err(fatal(&job.path, error)),
                    }
                }
            }
        }
        Ok(failed)
    }

    /// Gives staged directories their permissions and makes all that is staged durable.
    fn sync_staged(&mut self, batch: &mut Batch) -> Result<(), SyncError> {
        let fs = self.ctx.fs;
        let mut staged = 0;
        for task in &mut batch.tasks {
            let (Some(path), Some(made)) = (&task.staged, &mut task.made) else { continue };
            staged += 1;
            let Step::Make { shown } = &task.step else { continue };
            let mode = shown.mode.unwrap_or(DIRECTORY_MODE) & 0o777;
            if shown.content.is_directory() && mode & 0o700 == 0o700 {
                tolerated(fs.set_mode(path, mode)).map_err(|error| fatal(path, error))?;
                made.stat = fs.lstat(path).map_err(|error| fatal(path, error))?;
            }
        }
        if staged == 0 {
            return Ok(());
        }
        for task in &batch.tasks {
            if let (Step::Change { entry, content: true, .. }, Some(path), Some(made)) =
                (&task.step, &task.staged, &task.made)
            {
                let (dir, name) = self.current(entry);
                let old = entry.stat;
                self.records.push(Record { path: path.clone(), dir, name, new_inode: made.stat.inode, old });
            }
        }
        if staged >= FEW && self.syncs_whole()? {
            return fs.sync_all().map_err(|error| fatal(&paths::staging(), error));
        }
        for dir in batch.staged_dirs.iter().rev().chain(&batch.per_target).chain([&paths::staging()]) {
            fs.sync_dir(dir).map_err(|error| fatal(dir, error))?;
        }
        Ok(())
    }

    /// Brings one task's object to its place and records it; says whether that was done.
    fn place(&mut self, batch: &mut Batch, at: usize) -> Result<bool, SyncError> {
        let target = match batch.tasks[at].holder {
            None => None,
            Some(Holder::Known(dir)) => Some(dir),
            Some(Holder::New(parent)) => match batch.tasks[parent].own {
                Some(dir) => Some(dir),
                None => return Ok(false),
            },
        };
        let task = &mut batch.tasks[at];
        let done = match task.step.clone() {
            Step::Make { shown } => self.place_new(task, &shown, target)?,
            Step::Change { entry, shown, content, place, attributes } => {
                let target = if place { target } else { None };
                self.place_changed(task, &entry, &shown, content, target, attributes)?
            }
            Step::Agree { entry, shown } => self.agree(&entry, &shown)?,
            Step::Remove { .. } => false,
        };
        if done {
            self.observer.advance(1, 0);
            let step = batch.tasks[at].step.clone();
            self.tell(&step)?;
        }
        Ok(done)
    }

    fn place_new(&mut self, task: &mut Task, shown: &Shown, target: Option<DirId>) -> Result<bool, SyncError> {
        let (Some(dir), Some(staged), Some(made)) = (target, task.staged.clone(), task.made.clone()) else {
            return Ok(false);
        };
        let in_tree = matches!(task.holder, Some(Holder::New(_)));
        let name = if in_tree {
            task.name.clone()
        } else {
            match self.bring(&Source::Staged(staged), dir, &shown.name)? {
                Some(name) => name,
                None => return Ok(false),
            }
        };
        let directory = shown.content.is_directory();
        let own_dir = if directory { Some(self.ctx.index.new_dir_id()?) } else { None };
        task.own = own_dir;
        let stat = if in_tree { made.stat } else { self.stat_now(&self.dir_path(dir)?.join(&name), &made.stat)? };
        // Of what was made, not of what stands there now: somebody may have put something else in its place already.
        let mode = (made.stat.kind != FileKind::Symlink).then_some(made.stat.mode & 0o777);
        if let Some(own) = own_dir {
            self.unplaced.insert(own);
            if let Some(wanted) = shown.mode.filter(|wanted| wanted & 0o700 != 0o700) {
                self.late_modes.insert((dir, name.clone()), wanted & 0o777);
            }
        }
        let entry = LocalEntry {
            dir,
            own_dir,
            seen: named_seen(shown, &View::Plain, &name),
            mode,
            xattrs: made.xattrs,
            state: state_at(&stat, self.ctx.now_ns),
            stat: settled(&stat, &made.stat),
            name,
        };
        self.ctx.index.put_entry(&entry)?;
        self.received.created += 1;
        self.received.conflicts += u64::from(shown.view != View::Plain);
        // Its path takes a query for each directory above it, and there are nearly never any.
        if !self.problems.is_empty() {
            self.no_problem(&self.dir_path(dir)?.join(&entry.name))?;
        }
        Ok(true)
    }

    /// What `stat` says of what was just placed; what was staged, if that is gone or another already.
    fn stat_now(&self, path: &RelPath, staged: &Stat) -> Result<Stat, SyncError> {
        Ok(unless_fatal(path, self.ctx.fs.lstat(path))?.unwrap_or(*staged))
    }

    fn place_changed(
        &mut self,
        task: &Task,
        planned: &LocalEntry,
        shown: &Shown,
        content: bool,
        target: Option<DirId>,
        attributes: bool,
    ) -> Result<bool, SyncError> {
        let (dir, name) = self.current(planned);
        let Some(mut entry) = self.ctx.index.entry_at(dir, &name)? else { return Ok(false) };
        if entry.seen.item != planned.seen.item || entry.state == EntryState::Frozen {
            return Ok(false);
        }
        let path = self.dir_path(dir)?.join(&name);
        let Some(before) = unless_fatal(&path, self.ctx.fs.lstat(&path))? else { return Ok(false) };
        if before.inode != entry.stat.inode {
            return Ok(false);
        }
        let directory = entry.own_dir.is_some();
        // A rename changes the status change time, which would hide a write that left size and time alone.
        let looked_at = matches!(entry.state, EntryState::Settled) && fingerprint(&before) == entry.stat;
        let (mut set, mut attributes) = (true, attributes);
        if attributes && !content && (before.mode != entry.stat.mode || !(directory || is_same(&entry.stat, &before))) {
            // What its user changed is found by a scan, and none comes into staging: there it goes on as it is.
            if dir != DirId::STAGING || before.mode == entry.stat.mode {
                return Ok(false);
            }
            (set, attributes) = (false, false);
        }
        let was = (dir, name.clone());
        let mut expected = None;
        if content {
            let (Some(staged), Some(made)) = (&task.staged, &task.made) else { return Ok(false) };
            if !self.exchange(staged, &path, &entry)? {
                return Ok(false);
            }
            self.received.edited += 1;
            self.received.conflicts += u64::from(shown.view != View::Plain && entry.seen.view == View::Plain);
            entry.seen.item = shown.item;
            entry.seen.heads = shown.heads.clone();
            entry.seen.twins = shown.twins.clone();
            entry.mode = (made.stat.kind != FileKind::Symlink).then_some(made.stat.mode & 0o777);
            entry.xattrs = made.xattrs.clone();
            entry.stat = Fingerprint { ctime: 0, ..fingerprint(&made.stat) };
            expected = Some(made.stat);
        }
        let brought = match target {
            Some(target) => match self.bring(&Source::Entry(dir, name.clone()), target, &task.name)? {
                Some(name) => {
                    self.received.moved += 1;
                    (entry.dir, entry.name) = (target, name);
                    true
                }
                None => false,
            },
            None => true,
        };
        if brought {
            entry.seen = named_seen(shown, &entry.seen.view, &entry.name);
        }
        if (entry.dir, &entry.name) != (was.0, &was.1) {
            self.ctx.index.move_entry((was.0, &was.1), (entry.dir, &entry.name))?;
        }
        let path = self.dir_path(entry.dir)?.join(&entry.name);
        if attributes && !content && brought {
            set = self.set_attributes(&path, &mut entry, shown, &before)?;
        }
        let after = self.stat_now(&path, &before)?;
        // What somebody changed meanwhile, permissions too, must differ from the record for the next scan to see it.
        let (same, mode) = match &expected {
            Some(made) => (is_same(&fingerprint(made), &after), made.mode),
            None => (directory || is_same(&entry.stat, &after), entry.stat.mode),
        };
        if same && after.mode == mode {
            entry.stat = fingerprint(&after);
        }
        entry.state = match (&expected, entry.state) {
            (_, state @ EntryState::Parked { .. }) if entry.dir == DirId::STAGING => state,
            (Some(_), _) => state_at(&after, self.ctx.now_ns),
            _ if directory || looked_at => EntryState::Settled,
            _ => EntryState::Racy,
        };
        self.ctx.index.put_entry(&entry)?;
        if brought {
            self.no_problem(&path)?;
        }
        Ok(brought && set)
    }

    /// Sets the attributes that differ; what the file system does not take stays as it was agreed on.
    ///
    /// Says whether the object was there for all of it. One that somebody has just moved away may come back as it was,
    /// and only what waits is looked at then.
    fn set_attributes(
        &mut self,
        path: &RelPath,
        entry: &mut LocalEntry,
        shown: &Shown,
        before: &Stat,
    ) -> Result<bool, SyncError> {
        let fs = self.ctx.fs;
        let mut there = true;
        let mut set = |name: &[u8], value: Option<&[u8]>| {
            let done = unless_fatal(path, tolerated(fs.set_xattr(path, name, value)))?;
            there &= done.is_some();
            Ok::<_, SyncError>(done == Some(true))
        };
        let mut xattrs = Vec::new();
        for (name, value) in &entry.xattrs {
            if !shown.xattrs.iter().any(|(wanted, _)| wanted == name) && !set(name, None)? {
                xattrs.push((name.clone(), value.clone()));
            }
        }
        for (name, value) in &shown.xattrs {
            let before = entry.xattrs.iter().find(|(known, _)| known == name);
            if before.is_some_and(|(_, known)| known == value) || set(name, Some(value))? {
                xattrs.push((name.clone(), value.clone()));
            } else if let Some(before) = before {
                xattrs.push(before.clone());
            }
        }
        xattrs.sort();
        entry.xattrs = xattrs;
        if let Some(mode) = shown.mode.map(|mode| mode & 0o777).filter(|_| before.kind != FileKind::Symlink) {
            if entry.own_dir.is_some() && mode & 0o700 != 0o700 {
                self.late_modes.insert((entry.dir, entry.name.clone()), mode);
            } else if mode == before.mode & 0o777 {
                entry.mode = Some(mode);
            } else {
                there &= self.set_mode(path, entry, mode, before.mode)?;
            }
        }
        self.changed_itself(path, entry.own_dir.is_some());
        self.received.attributes += u64::from(there);
        Ok(there)
    }

    /// Sets permissions and records them; says whether the object was there.
    fn set_mode(&mut self, path: &RelPath, entry: &mut LocalEntry, mode: u32, before: u32) -> Result<bool, SyncError> {
        let done = unless_fatal(path, tolerated(self.ctx.fs.set_mode(path, mode)))?;
        let Some(done) = done else { return Ok(false) };
        let after = self.mode_to_record(path, done.then_some(mode), before)?;
        (entry.mode, entry.stat.mode) = (Some(after & 0o777), after);
        Ok(true)
    }

    /// The mode to record of an object of which `set` was set, or refused.
    ///
    /// A disk may take it and keep another, and nobody has changed that one: it is recorded as it is. Where the disk keeps
    /// what it is given, somebody has changed it since, and what was set is recorded: the next scan finds that.
    fn mode_to_record(&mut self, path: &RelPath, set: Option<u32>, before: u32) -> Result<u32, SyncError> {
        let found = unless_fatal(path, self.ctx.fs.lstat(path))?.map(|stat| stat.mode);
        let Some(set) = set.map(|set| before & !0o777 | set) else { return Ok(found.unwrap_or(before)) };
        match found {
            Some(found) if found != set && !self.disk_keeps_mode(set & 0o777)? => Ok(found),
            _ => Ok(set),
        }
    }

    /// Whether the disk keeps just this mode of a file, found out by one that nobody else knows.
    fn disk_keeps_mode(&mut self, mode: u32) -> Result<bool, SyncError> {
        let (fs, path) = (self.ctx.fs, self.fresh_path("mode"));
        let kept = fs
            .create_new(&path)
            .and_then(|_| tolerated(fs.set_mode(&path, mode)))
            .and_then(|_| fs.lstat(&path))
            .map(|stat| stat.mode & 0o777 == mode);
        let kept = unless_fatal(&path, kept)?;
        unless_fatal(&path, fs.unlink(&path))?;
        Ok(kept == Some(true))
    }

    fn agree(&mut self, planned: &LocalEntry, shown: &Shown) -> Result<bool, SyncError> {
        let (dir, name) = self.current(planned);
        let Some(mut entry) = self.ctx.index.entry_at(dir, &name)? else { return Ok(false) };
        if entry.seen.item != planned.seen.item {
            return Ok(false);
        }
        entry.seen = seen_of(shown, &entry.seen.view);
        self.ctx.index.put_entry(&entry)?;
        Ok(true)
    }

    /// Sets the permissions of directories that nothing more is put into.
    ///
    /// Until then they are recorded as they are, so that after a crash the plan still has them to set.
    fn set_late_modes(&mut self) -> Result<(), SyncError> {
        for ((dir, name), mode) in std::mem::take(&mut self.late_modes).into_iter().rev() {
            let path = self.dir_path(dir)?.join(&name);
            let Some(mut entry) = self.ctx.index.entry_at(dir, &name)? else { continue };
            let before = entry.stat.mode;
            if !self.set_mode(&path, &mut entry, mode, before)? {
                // Somebody has just moved it away; it may come back as it was.
                self.failed.insert(entry.seen.item);
                continue;
            }
            self.ctx.index.put_entry(&entry)?;
            self.changed_itself(&path, true);
        }
        Ok(())
    }

    /// Removes what the batch left in staging.
    fn clear_staged(&mut self, batch: &Batch) -> Result<(), SyncError> {
        let fs = self.ctx.fs;
        // Where all came to their places, which is nearly always, the directories are empty and none need be looked for.
        let left: BTreeSet<&RelPath> = batch.per_target.iter().filter(|dir| fs.rmdir(dir).is_err()).collect();
        for task in &batch.tasks {
            let Some(path) = task.staged.as_ref().filter(|_| !matches!(task.holder, Some(Holder::New(_)))) else {
                continue;
            };
            let dir = path.split().map(|(dir, _)| dir).expect("what is staged lies in a directory");
            if batch.per_target.contains(&dir) && !left.contains(&dir) {
                continue;
            }
            // What came to its place is not here any more.
            let Some(stat) = unless_fatal(path, fs.lstat(path))? else { continue };
            let removed = match stat.kind {
                FileKind::Directory => remove_tree(fs, path),
                _ => fs.unlink(path),
            };
            unless_fatal(path, removed)?;
        }
        for dir in left {
            unless_fatal(dir, fs.rmdir(dir))?;
        }
        Ok(())
    }
}

/// What is asked of the fetcher for a task.
fn job(fetcher: &mut Fetcher<'_>, task: &Task, sync: bool) -> Result<FileJob, SyncError> {
    let (shown, mode) = match &task.step {
        Step::Change { entry, shown, .. } => (shown, entry.mode.unwrap_or(FILE_MODE)),
        Step::Make { shown } | Step::Agree { shown, .. } => (shown, FILE_MODE),
        Step::Remove { .. } => unreachable!("nothing is written to be removed"),
    };
    let Content::File(file) = &shown.content else { unreachable!("only files are written") };
    let old = match &task.old {
        Some((path, old)) => fetcher.chunk_list(old)?.ok().and_then(|chunks| shared(path, chunks, file)),
        None => None,
    };
    Ok(FileJob {
        path: task.staged.clone().expect("it has a place in staging"),
        file: file.clone(),
        mode: shown.mode.unwrap_or(mode),
        xattrs: shown.xattrs.clone(),
        old,
        sync,
    })
}

/// The old file as a source of chunks, unless it is known to have none of the new one's.
fn shared(path: &RelPath, chunks: Vec<ChunkRef>, new: &FileContent) -> Option<OldFile> {
    let useful = match &new.chunks {
        ChunkList::Inline(wanted) => wanted.iter().any(|chunk| chunks.contains(chunk)),
        ChunkList::Indirect(_) => true,
    };
    useful.then(|| OldFile { path: path.clone(), chunks })
}

/// Another name for a file in a staged directory whose own the file system did not take.
fn next_name(task: &Task, error: &io::Error, tried: &mut Vec<Name>) -> Option<Name> {
    let (Step::Make { shown }, Some(Holder::New(_))) = (&task.step, task.holder) else { return None };
    let names = match trouble(error) {
        Trouble::Taken => local_name::distinct(&shown.name),
        Trouble::Name => local_name::stand_ins(&shown.name),
        _ => return None,
    };
    let name = names.into_iter().find(|name| !tried.contains(name))?;
    tried.push(name.clone());
    Some(name)
}

/// What an entry of this name on disk has seen.
fn named_seen(shown: &Shown, before: &View, name: &Name) -> packetboat_core::local::Seen {
    let mut seen = seen_of(shown, before);
    if *name == shown.name {
        seen.view = shown.view.clone();
    } else {
        seen.view = View::Mapped { shown: shown.name.clone() };
    }
    seen
}

/// The fingerprint of what came to its place; one that is no longer what was staged is looked at by the next scan.
fn settled(now: &Stat, staged: &Stat) -> Fingerprint {
    let directory = now.kind == FileKind::Directory && staged.kind == FileKind::Directory;
    if directory || (now.kind == staged.kind && now.mode == staged.mode && is_same(&fingerprint(staged), now)) {
        Fingerprint { mode: staged.mode, ..fingerprint(now) }
    } else {
        Fingerprint { ctime: 0, ..fingerprint(staged) }
    }
}

/// How many bytes a step writes.
fn bytes_of(step: &Step) -> u64 {
    match step {
        Step::Make { shown } | Step::Change { shown, content: true, .. } => match &shown.content {
            Content::File(file) => file.size,
            _ => 0,
        },
        _ => 0,
    }
}

/// Smaller files are fetched whole: they have a chunk or two.
const PAGE: usize = 1000;
const LEAST_SHARED: u64 = packetboat_core::content::MIN_CHUNK_BYTES as u64;
const FILE_MODE: u32 = 0o644;
const DIRECTORY_MODE: u32 = 0o755;
