//! The scan: what stands on disk, compared with what was recorded there.
//!
//! Directories are read by worker threads and compared here, one directory's entries against one range of the index,
//! so memory grows with what changed, not with the tree. A path that still exists is still its item; only what vanished
//! and what arrived are matched with each other: directories by inode and birth time here, files by inode, and then by
//! content once they were read ([`crate::absorb`]). Where the disk's numbers do not last ([`crate::numbering`]), nothing
//! is matched by number: whatever stands at a recorded path is looked at, and the rest is left to content.
//!
//! Where nothing is recorded yet, nothing can have vanished and nothing be moved, so a large folder is taken in by portions
//! ([`Portions`]): otherwise all that is in it would be in memory at once.
//!
//! What cannot be read is left alone: an unreadable directory neither changes nor vanishes, and it is told apart, since
//! what vanished elsewhere may have been moved into it ([`crate::unread`]).

use std::collections::{HashMap, HashSet};
use std::io;

use packetboat_core::local::{DirId, EntryState, Fingerprint, LocalEntry, LocalRead};
use packetboat_core::name::{Name, RelPath};
use packetboat_replica::dir_listing::DirListing;
use packetboat_replica::fs::{DirEntry, FileKind, Fs, Stat};
use packetboat_replica::index::{Index, IndexError, ScannedEntry};

use crate::ignore_rules::IgnoreRules;
use crate::numbering::{Numbering, numbering};
use crate::paths;

/// What a scan found.
#[derive(Default, Debug)]
pub struct Scanned {
    /// Objects whose `stat` is not the recorded one, or whose record is not trusted.
    pub suspects: Vec<Suspect>,
    /// Objects at places where none was recorded, in an order in which a directory stands before what it holds.
    pub arrivals: Vec<Arrival>,
    /// Where they are.
    pub holders: Holders,
    /// Recorded objects that are not there, without those that arrived elsewhere by inode.
    /// A directory stands before what it held.
    pub vanished: Vec<LocalEntry>,
    /// Recorded objects that went while a rule ignored them, and that none ignores now. They are absent, not deleted.
    pub absent: Vec<LocalEntry>,
    /// Objects that are left alone, and why.
    pub skipped: Vec<(RelPath, Skip)>,
    /// Directories that could not be read, or not wholly. What vanished may stand in one of them.
    pub unread: Vec<Unread>,
    /// Why nothing that vanished is taken for deleted: the directory in which it may stand.
    pub withheld: Option<RelPath>,
    /// Whether something of another kind stands where something is recorded.
    pub takes_places: bool,
    /// Whether the vault's ignore file is gone or empty for the first time: a next scan is to say so again.
    pub awaits_rules: bool,
    /// What the disk's inode numbers said of what was recorded.
    pub numbering: Numbering,
    /// Entries that the ignore rules now cover.
    pub frozen: Vec<(DirId, Name)>,
    /// How many objects stand on disk, ignored ones not counted.
    pub objects: u64,
    /// New directories that were not looked into: they are for the next portion.
    pub rest: Vec<RelPath>,
}

impl Scanned {
    /// Whether nothing is to be published or recorded.
    pub fn is_quiet(&self) -> bool {
        self.suspects.is_empty()
            && self.arrivals.is_empty()
            && self.vanished.is_empty()
            && self.absent.is_empty()
            && self.frozen.is_empty()
    }

    /// How many files and bytes are to be read.
    pub fn work(&self) -> (u64, u64) {
        let stats = self.suspects.iter().map(|s| &s.stat).chain(self.arrivals.iter().map(|a| &a.stat));
        stats
            .filter(|stat| stat.kind != FileKind::Directory)
            .fold((0, 0), |(files, bytes), stat| (files + 1, bytes + stat.size))
    }

    /// Takes what `stat` says of the largest files that look unchanged, so that no more than so many bytes are to be read,
    /// as far as that goes.
    pub(crate) fn trust_the_largest(&mut self, most_bytes: u64) {
        let excess = self.work().1.saturating_sub(most_bytes);
        if excess == 0 {
            return;
        }
        let looks_unchanged = |suspect: &Suspect| suspect.looks_unchanged && suspect.stat.kind == FileKind::File;
        let unchanged = self.suspects.iter().filter(|suspect| looks_unchanged(suspect));
        let mut sizes: Vec<u64> = unchanged.map(|suspect| suspect.stat.size).collect();
        sizes.sort_unstable_by(|one, other| other.cmp(one));
        let mut trusted_bytes = 0;
        let enough = sizes.iter().find(|size| {
            trusted_bytes += **size;
            trusted_bytes >= excess
        });
        let least = enough.copied().unwrap_or(0);
        self.suspects.retain(|suspect| !looks_unchanged(suspect) || suspect.stat.size < least);
    }
}

/// An object whose record may be out of date.
#[derive(Clone, Debug)]
pub struct Suspect {
    /// The directory that holds it.
    pub dir: DirId,
    /// Its name.
    pub name: Name,
    /// Where it is.
    pub path: RelPath,
    /// What `stat` says now.
    pub stat: Stat,
    /// Whether it was ignored until now.
    pub thawed: bool,
    /// Whether the record alone is not trusted: by what `stat` says nothing happened.
    pub looks_unchanged: bool,
}

/// An object at a place where none was recorded.
#[derive(Clone, Debug)]
pub struct Arrival {
    /// The directory that holds it.
    pub holder: Holder,
    /// Its name.
    pub name: Name,
    /// What `stat` says.
    pub stat: Stat,
    /// The recorded object that this is, by inode; it was moved here.
    pub from: Option<Box<LocalEntry>>,
}

/// A directory that holds an arrival: a recorded one, or one that itself arrived.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Hash)]
pub enum Holder {
    /// Recorded under this number.
    Known(DirId),
    /// Index into [`Scanned::arrivals`].
    New(usize),
}

/// The directories whose entries arrived, and where they are: an arrival has no path of its own, since there are many.
#[derive(Default, Debug)]
pub struct Holders(HashMap<Holder, RelPath>);

impl Holders {
    /// Where an arrival is.
    pub fn path(&self, arrival: &Arrival) -> RelPath {
        self.0.get(&arrival.holder).map_or_else(RelPath::root, |holder| holder.join(&arrival.name))
    }
}

/// A directory that could not be read, or not wholly.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Unread {
    /// Where it is.
    pub path: RelPath,
    /// Whether anything is recorded in it: it could be read once.
    pub was_read: bool,
}

/// Why an object is left alone.
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum Skip {
    /// A socket, fifo or device.
    Special,
    /// The system refuses to read it.
    Unreadable(String),
    /// Its path is too long or its name cannot travel.
    Name,
    /// It is empty, and its modification time is that of the content it had.
    Emptied,
    /// It is the vault's ignore file, and it is gone or empty for the first time.
    AwaitedRules,
}

/// Compares the disk with the index.
pub fn scan(fs: &dyn Fs, index: &Index, rules: &IgnoreRules, threads: usize) -> Result<Scanned, ScanError> {
    look(fs, index, rules, threads, &Portion { from: vec![Task::root()], limit: usize::MAX })
}

/// Looks at a portion until what was found holds.
fn look(
    fs: &dyn Fs,
    index: &Index,
    rules: &IgnoreRules,
    threads: usize,
    portion: &Portion,
) -> Result<Scanned, ScanError> {
    let numbering = numbering(fs, index)?;
    let mut elsewhere = HashSet::new();
    loop {
        let pass = scan_by(numbering, &elsewhere, fs, index, rules, threads, portion)?;
        // Nothing was concluded from a number in a scan that moved nothing, so what it found holds in either case.
        let moved = pass.found.arrivals.iter().any(|arrival| arrival.from.is_some());
        if pass.contradicted && numbering == Numbering::Lasting && moved {
            return Ok(scan_by(Numbering::Renewed, &HashSet::new(), fs, index, rules, threads, portion)?.found);
        }
        let known = elsewhere.len();
        elsewhere.extend(pass.met_elsewhere);
        if elsewhere.len() == known {
            return Ok(pass.found);
        }
    }
}

/// The portions of a folder of which nothing is recorded; what one finds is to be recorded before the next is scanned.
pub struct Portions {
    /// How many objects are found before no further directory is looked into.
    limit: usize,
}

impl Portions {
    /// The portions in which a folder is to be taken in, if it is.
    pub fn of(index: &Index, limit: usize) -> Result<Option<Self>, IndexError> {
        // At least one, or no portion would ever get on.
        Ok(index.entries_in(DirId::ROOT, None, 1)?.is_empty().then_some(Self { limit: limit.max(1) }))
    }

    /// The first portion.
    pub fn first(&self, fs: &dyn Fs, index: &Index, rules: &IgnoreRules, threads: usize) -> Result<Scanned, ScanError> {
        look(fs, index, rules, threads, &Portion { from: vec![Task::root()], limit: self.limit })
    }

    /// The portion that begins with the [`rest`](Scanned::rest) of the one before.
    ///
    /// A directory that was not recorded is left out with all that it holds: the next round finds it.
    pub fn next(
        &self,
        fs: &dyn Fs,
        index: &Index,
        rules: &IgnoreRules,
        threads: usize,
        rest: Vec<RelPath>,
    ) -> Result<Scanned, ScanError> {
        let mut from = Vec::with_capacity(rest.len());
        for path in rest {
            if let Some(dir) = crate::paths::dir_at(index, &path)? {
                from.push(Task { holder: Holder::Known(dir), path, thawed: false });
            }
        }
        look(fs, index, rules, threads, &Portion { from, limit: self.limit })
    }
}

/// Where a scan begins, and how many arrivals are enough.
struct Portion {
    from: Vec<Task>,
    limit: usize,
}

/// What one look at the whole folder gave.
struct Pass {
    found: Scanned,
    /// Whether something was found that contradicts that numbers last.
    contradicted: bool,
    /// Recorded directories that were met after another had been taken for them, so that what was found does not hold.
    met_elsewhere: HashSet<DirId>,
}

/// Compares the disk with the index. Of the directories in `elsewhere` it is known that they are not where they were.
fn scan_by(
    numbering: Numbering,
    elsewhere: &HashSet<DirId>,
    fs: &dyn Fs,
    index: &Index,
    rules: &IgnoreRules,
    threads: usize,
    portion: &Portion,
) -> Result<Pass, ScanError> {
    let mut scan = Scan {
        fs,
        index,
        rules,
        found: Scanned { numbering, ..Scanned::default() },
        contradicted: false,
        in_place_of_another: HashSet::new(),
        moved: HashSet::new(),
        elsewhere,
        made_again: HashSet::new(),
        met_elsewhere: HashSet::new(),
        lost_directories: Vec::new(),
        queue: portion.from.clone(),
        limit: portion.limit,
        replaced: Vec::new(),
    };
    if threads <= 1 {
        loop {
            while let Some(task) = scan.next_task() {
                let listing = fs.list(&task.path);
                scan.directory(task, listing)?;
            }
            if !scan.decide_replaced()? {
                break;
            }
        }
    } else {
        scan.run_with_threads(threads)?;
    }
    let (contradicted, met_elsewhere) = (scan.contradicted, std::mem::take(&mut scan.met_elsewhere));
    Ok(Pass { found: scan.finish()?, contradicted, met_elsewhere })
}

struct Scan<'a> {
    fs: &'a dyn Fs,
    index: &'a Index,
    rules: &'a IgnoreRules,
    found: Scanned,
    /// Whether something has a number that it cannot have where numbers last: a file another than was recorded, though
    /// nothing happened to it, or a directory that of one which held other things.
    contradicted: bool,
    /// Recorded directories that by their number stand where another was recorded.
    in_place_of_another: HashSet<DirId>,
    /// Recorded directories that were found at another place.
    moved: HashSet<DirId>,
    /// Recorded directories of which an earlier look at the folder found that they are not where they were.
    elsewhere: &'a HashSet<DirId>,
    /// Recorded directories for which another that stands in their place is taken.
    made_again: HashSet<DirId>,
    /// Those of them that were met after all, within what was taken for one of them: nobody could look there before.
    met_elsewhere: HashSet<DirId>,
    /// Recorded directories that are not where they were.
    lost_directories: Vec<LocalEntry>,
    queue: Vec<Task>,
    /// How many arrivals are enough.
    limit: usize,
    /// Directories at the place of a recorded one that they are not; decided when it is known whether that one moved.
    replaced: Vec<Replaced>,
}

/// A directory that stands where another was recorded.
struct Replaced {
    holder: Holder,
    holder_path: RelPath,
    dir: DirId,
    own_dir: DirId,
    name: Name,
    stat: Stat,
    thawed: bool,
}

#[derive(Clone)]
struct Task {
    holder: Holder,
    path: RelPath,
    /// Whether it was ignored until now: what went from it meanwhile is absent, not deleted.
    thawed: bool,
}

impl Task {
    fn root() -> Self {
        Self { holder: Holder::Known(DirId::ROOT), path: RelPath::root(), thawed: false }
    }
}

impl Scan<'_> {
    fn run_with_threads(&mut self, threads: usize) -> Result<(), ScanError> {
        let fs = self.fs;
        let (task_tx, task_rx) = crossbeam_channel::unbounded::<Task>();
        let (done_tx, done_rx) = crossbeam_channel::bounded::<(Task, io::Result<DirListing>)>(64);
        std::thread::scope(|scope| {
            for _ in 0..threads {
                let (task_rx, done_tx) = (task_rx.clone(), done_tx.clone());
                scope.spawn(move || {
                    for task in task_rx {
                        let listing = fs.list(&task.path);
                        if done_tx.send((task, listing)).is_err() {
                            return;
                        }
                    }
                });
            }
            drop(done_tx);
            let mut under_way = 0usize;
            let result = loop {
                // The last found first, and few at a time, so that few directories wait to be looked into.
                while under_way < threads * TASKS_PER_THREAD
                    && let Some(task) = self.next_task()
                {
                    under_way += 1;
                    let _ = task_tx.send(task);
                }
                if under_way == 0 {
                    match self.decide_replaced() {
                        Ok(true) => continue,
                        Ok(false) => break Ok(()),
                        Err(error) => break Err(error),
                    }
                }
                let Ok((task, listing)) = done_rx.recv() else { break Ok(()) };
                under_way -= 1;
                if let Err(error) = self.directory(task, listing) {
                    break Err(error);
                }
            };
            drop(task_tx);
            drop(done_rx);
            result
        })
    }

    /// The next directory to look into, unless enough was found: then the others are for the next portion.
    fn next_task(&mut self) -> Option<Task> {
        if self.found.arrivals.len() >= self.limit {
            self.found.rest.extend(self.queue.drain(..).map(|task| task.path));
        }
        self.queue.pop()
    }

    /// Compares one directory's entries with its range of the index; both are in name order.
    fn directory(&mut self, task: Task, listing: io::Result<DirListing>) -> Result<(), ScanError> {
        let listing = match listing {
            Ok(listing) => listing,
            Err(source) if task.path.is_root() => return Err(ScanError::Root { source }),
            Err(error) => {
                self.unread(&task)?;
                self.found.skipped.push((task.path, Skip::Unreadable(error.to_string())));
                return Ok(());
            }
        };
        // Entries that are there and cannot be looked at.
        if listing.errors().any(|errno| errno != ENOENT) {
            self.unread(&task)?;
        }
        let mut entries = listing.entries().peekable();
        let root = task.path.is_root();
        if let Holder::Known(dir) = task.holder {
            let index = self.index;
            let in_place_of_another = self.in_place_of_another.contains(&dir);
            let (mut held, mut met) = (false, false);
            index.for_each_fingerprint(dir, |row| {
                while entries.peek().is_some_and(|entry| entry.name.as_slice() < row.name) {
                    let entry = entries.next().expect("peeked");
                    self.arrived(&task, root, entry);
                }
                let here = entries.next_if(|entry| entry.name.as_slice() == row.name);
                held = true;
                met |= here.as_ref().is_some_and(|here| here.stat.is_ok_and(|stat| stat.inode == row.stat.inode));
                self.recorded(&task, dir, row, here)
            })?;
            // Whoever exchanges directories moves what they hold; this one is another that got its number.
            self.contradicted |= in_place_of_another && held && !met;
        }
        for entry in entries {
            self.arrived(&task, root, entry);
        }
        Ok(())
    }

    /// Notes a directory of which it is not known what stands in it.
    fn unread(&mut self, task: &Task) -> Result<(), ScanError> {
        let was_read = match task.holder {
            Holder::Known(dir) => !self.index.entries_in(dir, None, 1)?.is_empty(),
            Holder::New(_) => false,
        };
        self.found.unread.push(Unread { path: task.path.clone(), was_read });
        Ok(())
    }

    fn recorded(
        &mut self,
        task: &Task,
        dir: DirId,
        row: ScannedEntry<'_>,
        here: Option<DirEntry>,
    ) -> Result<(), ScanError> {
        let stat = match here {
            Some(DirEntry { stat: Ok(stat), .. }) => Some(stat),
            // It is there and cannot be looked at: leave it as it is recorded.
            Some(DirEntry { name, stat: Err(errno) }) if errno != ENOENT => {
                self.hidden(task, name, errno);
                return Ok(());
            }
            _ => None,
        };
        let frozen = row.state == EntryState::Frozen;
        let Some(stat) = stat else {
            return self.not_there(task, dir, &row);
        };
        let is_directory = stat.kind == FileKind::Directory;
        let same_kind = match row.own_dir {
            Some(_) => is_directory,
            None => matches!(stat.kind, FileKind::File | FileKind::Symlink),
        };
        if !same_kind {
            // A rule may be about directories alone, so each of the two is asked about as what it is.
            self.found.takes_places = true;
            self.not_there(task, dir, &row)?;
            self.arrived(task, false, DirEntry { name: row.name.to_vec(), stat: Ok(stat) });
            return Ok(());
        }
        let needs_path = is_directory || !self.rules.is_empty();
        let name = || Name::new(row.name).expect("recorded names are sound");
        let path = needs_path.then(|| task.path.join(&name()));
        if let Some(path) = path.as_ref().filter(|_| !self.rules.is_empty())
            && self.rules.ignores(path, is_directory)
        {
            if !frozen {
                self.found.frozen.push((dir, name()));
            }
            return Ok(());
        }
        self.found.objects += 1;
        if stat.size == 0 && self.rules.awaits(task.path.is_root(), row.name) {
            return self.awaits_rules(name());
        }
        // By the time that says nothing happened its length is gone: so power losses leave files, and no user does.
        let emptied = stat.kind == FileKind::File && stat.size == 0 && row.stat.size > 0;
        if emptied && stat.mtime == row.stat.mtime && row.state == EntryState::Settled && row.own_dir.is_none() {
            self.found.skipped.push((task.path.join(&name()), Skip::Emptied));
            return Ok(());
        }
        let path = path.unwrap_or_else(|| task.path.join(&name()));
        let other_directory =
            is_directory && self.has_identity(&stat) && identity(&stat) != (row.stat.inode, row.stat.btime);
        if let (Some(own_dir), true, false) = (row.own_dir, other_directory, frozen) {
            // Directories go by what they are, then by where they are: this may be one that was moved here, or the
            // recorded one may have been moved away.
            if let Some(found) = self.same_directory(&stat) {
                self.in_place_of_another.extend(found.own_dir);
                let entry = self.entry(dir, row.name)?;
                self.lost_directories.push(entry);
                self.found.objects -= 1;
                self.arrived(task, false, DirEntry { name: row.name.to_vec(), stat: Ok(stat) });
            } else {
                let (holder, holder_path) = (task.holder, task.path.clone());
                let thawed = task.thawed;
                self.replaced.push(Replaced { holder, holder_path, dir, own_dir, name: name(), stat, thawed });
            }
            return Ok(());
        }
        if let Some(own_dir) = row.own_dir {
            let thawed = task.thawed || frozen;
            self.queue.push(Task { holder: Holder::Known(own_dir), path: path.clone(), thawed });
        }
        self.contradicted |= row.state == EntryState::Settled && is_renumbered(&row.stat, &stat);
        // Where numbers are chance, one that is the recorded one proves nothing of the object that has it.
        let trusted = row.state == EntryState::Settled && self.found.numbering == Numbering::Lasting;
        let alike = unchanged(&row.stat, &stat);
        if !trusted || !alike {
            let looks_unchanged = alike && !frozen;
            self.found.suspects.push(Suspect { dir, name: name(), path, stat, thawed: frozen, looks_unchanged });
        }
        Ok(())
    }

    /// A recorded object is not there: deleted or moved, unless a rule ignores it, or did until now.
    fn not_there(&mut self, task: &Task, dir: DirId, row: &ScannedEntry<'_>) -> Result<(), ScanError> {
        let frozen = row.state == EntryState::Frozen;
        let name = Name::new(row.name).expect("recorded names are sound");
        if self.rules.awaits(task.path.is_root(), row.name) {
            return self.awaits_rules(name);
        }
        if self.rules.ignores(&task.path.join(&name), row.own_dir.is_some()) {
            if !frozen {
                self.found.frozen.push((dir, name));
            }
            return Ok(());
        }
        let entry = self.entry(dir, row.name)?;
        if frozen || task.thawed {
            self.found.absent.push(entry);
        } else {
            self.vanished(entry);
        }
        Ok(())
    }

    /// Leaves the vault's ignore file as it is recorded: what became of it is seen by the next scan.
    fn awaits_rules(&mut self, name: Name) -> Result<(), ScanError> {
        self.found.awaits_rules = true;
        self.found.skipped.push((RelPath::root().join(&name), Skip::AwaitedRules));
        Ok(())
    }

    /// Decides about directories that stand where another was recorded: if that one was found elsewhere, this one is new;
    /// otherwise it is the same directory made again, or a file system whose inodes do not last. Says whether any were.
    ///
    /// The recorded one may still come to light in what these hold, where nobody has looked yet; then all is looked at
    /// again with that known.
    fn decide_replaced(&mut self) -> Result<bool, ScanError> {
        let replaced = std::mem::take(&mut self.replaced);
        let any = !replaced.is_empty();
        for Replaced { holder, holder_path, dir, own_dir, name, stat, thawed } in replaced {
            let path = holder_path.join(&name);
            if self.moved.contains(&own_dir) || self.elsewhere.contains(&own_dir) {
                let entry = self.entry(dir, name.as_bytes())?;
                self.lost_directories.push(entry);
                let task = Task { holder, path: holder_path, thawed };
                self.found.objects -= 1;
                self.arrived(&task, false, DirEntry { name: name.as_bytes().to_vec(), stat: Ok(stat) });
            } else {
                self.made_again.insert(own_dir);
                self.queue.push(Task { holder: Holder::Known(own_dir), path: path.clone(), thawed });
                self.found.suspects.push(Suspect { dir, name, path, stat, thawed: false, looks_unchanged: false });
            }
        }
        Ok(any)
    }

    fn arrived(&mut self, task: &Task, in_root: bool, entry: DirEntry) {
        if in_root && entry.name == paths::MARKER_DIR.as_bytes() {
            return;
        }
        let stat = match entry.stat {
            Ok(stat) => stat,
            Err(ENOENT) => return,
            Err(errno) => return self.hidden(task, entry.name, errno),
        };
        let Some(name) = Name::new(entry.name) else { return };
        let path = task.path.join(&name);
        let is_directory = stat.kind == FileKind::Directory;
        if self.rules.ignores(&path, is_directory) {
            return;
        }
        if stat.kind == FileKind::Special {
            self.found.skipped.push((path, Skip::Special));
            return;
        }
        if path.as_bytes().len() > MAX_PATH {
            self.found.skipped.push((path, Skip::Name));
            return;
        }
        self.found.objects += 1;
        let from = if is_directory { self.same_directory(&stat) } else { None };
        let arrival = Arrival { holder: task.holder, name, stat, from: from.map(Box::new) };
        self.found.holders.0.entry(task.holder).or_insert_with(|| task.path.clone());
        let own = match &arrival.from {
            Some(entry) => {
                let own_dir = entry.own_dir.expect("a directory has a number");
                self.moved.insert(own_dir);
                if self.made_again.contains(&own_dir) {
                    self.met_elsewhere.insert(own_dir);
                }
                Holder::Known(own_dir)
            }
            None => Holder::New(self.found.arrivals.len()),
        };
        self.found.arrivals.push(arrival);
        if is_directory {
            self.queue.push(Task { holder: own, path, thawed: task.thawed });
        }
    }

    /// Lists an object that is there and cannot be looked at.
    fn hidden(&mut self, task: &Task, name: Vec<u8>, errno: i32) {
        let Some(name) = Name::new(name) else { return };
        let reason = io::Error::from_raw_os_error(errno).to_string();
        self.found.skipped.push((task.path.join(&name), Skip::Unreadable(reason)));
    }

    /// The recorded directory that this one is, if it stands no longer where it was recorded.
    ///
    /// Inode numbers are used again at once, so without a birth time nothing is concluded from them.
    fn same_directory(&self, stat: &Stat) -> Option<LocalEntry> {
        if !self.has_identity(stat) {
            return None;
        }
        let entry = self.index.dir_by_inode(stat.inode, stat.btime.unwrap_or(0)).ok().flatten()?;
        let own_dir = entry.own_dir?;
        if self.moved.contains(&own_dir) || entry.state == EntryState::Frozen {
            return None;
        }
        let path = paths::entry_path(self.index, &entry).ok()?;
        let still_there =
            self.fs.lstat(&path).is_ok_and(|there| there.inode == stat.inode && there.kind == FileKind::Directory);
        (!still_there || !self.is_listed(&path)).then_some(entry)
    }

    /// Whether inode and birth time tell a directory from all others there ever were.
    fn has_identity(&self, stat: &Stat) -> bool {
        self.found.numbering == Numbering::Lasting && stat.btime.is_some_and(|btime| btime != 0)
    }

    /// Whether a directory lists exactly this name; where names are folded, a path leads to what has another case by now.
    fn is_listed(&self, path: &RelPath) -> bool {
        let Some((dir, name)) = path.split() else { return true };
        self.fs.read_dir(&dir).is_ok_and(|entries| entries.iter().any(|entry| entry.name == name.as_bytes()))
    }

    fn vanished(&mut self, entry: LocalEntry) {
        if entry.own_dir.is_some() {
            self.lost_directories.push(entry);
        } else {
            self.found.vanished.push(entry);
        }
    }

    fn entry(&self, dir: DirId, name: &[u8]) -> Result<LocalEntry, ScanError> {
        let name = Name::new(name).expect("recorded names are sound");
        Ok(self.index.entry_at(dir, &name)?.expect("the row was just read"))
    }

    /// Adds what lost directories held, and takes away what arrived elsewhere by inode.
    fn finish(mut self) -> Result<Scanned, ScanError> {
        // A portion does not see all places at which it may stand.
        if self.limit == usize::MAX {
            self.look_for_parked_records()?;
        }
        let mut directories = Vec::new();
        let mut pending = std::mem::take(&mut self.lost_directories);
        while let Some(directory) = pending.pop() {
            let own_dir = directory.own_dir.expect("only directories are here");
            if self.moved.contains(&own_dir) {
                continue;
            }
            let mut after: Option<Name> = None;
            loop {
                let page = self.index.entries_in(own_dir, after.as_ref(), 1000)?;
                let Some(last) = page.last() else { break };
                after = Some(last.name.clone());
                for entry in page {
                    match (&entry.state, entry.own_dir) {
                        // Ignored, so not deleted with its directory; where it was there is nothing to come back to.
                        (EntryState::Frozen, _) => self.found.absent.push(entry),
                        (_, Some(_)) => pending.push(entry),
                        _ => self.found.vanished.push(entry),
                    }
                }
            }
            directories.push(directory);
        }
        self.expand_absent()?;
        if self.found.numbering == Numbering::Lasting {
            match_files_by_inode(&mut self.found);
        }
        directories.append(&mut self.found.vanished);
        self.found.vanished = directories;
        Ok(self.found)
    }

    /// Takes what is recorded where no place is left for it as gone, like what is not at its place.
    fn look_for_parked_records(&mut self) -> Result<(), ScanError> {
        for entry in self.index.entries_in_staging()?.into_iter().filter(paths::is_record_only) {
            let path = paths::known_path(self.index, &entry)?;
            // It stands for nothing here by now, so no record is kept of it for the day on which no rule ignores it.
            if entry.state == EntryState::Frozen || self.rules.ignores(&path, entry.own_dir.is_some()) {
                self.found.absent.push(entry);
            } else {
                self.vanished(entry);
            }
        }
        Ok(())
    }

    /// Adds what absent directories held, and takes away what was found elsewhere.
    fn expand_absent(&mut self) -> Result<(), ScanError> {
        let mut pending = std::mem::take(&mut self.found.absent);
        while let Some(entry) = pending.pop() {
            if let Some(own_dir) = entry.own_dir {
                if self.moved.contains(&own_dir) {
                    continue;
                }
                pending.extend(self.index.entries_in(own_dir, None, usize::MAX)?);
            }
            self.found.absent.push(entry);
        }
        Ok(())
    }
}

/// Matches files that vanished with files that arrived and are the same inode.
fn match_files_by_inode(found: &mut Scanned) {
    if found.vanished.is_empty() || found.arrivals.is_empty() {
        return;
    }
    let mut by_inode: HashMap<u64, usize> = HashMap::new();
    for (at, entry) in found.vanished.iter().enumerate() {
        by_inode.insert(entry.stat.inode, at);
    }
    let mut matched = HashSet::new();
    for arrival in &mut found.arrivals {
        if arrival.stat.kind == FileKind::Directory {
            continue;
        }
        let Some(at) = by_inode.get(&arrival.stat.inode) else { continue };
        let entry = &found.vanished[*at];
        // An inode number is used again at once; the same size and time say that it is the same file.
        let same = entry.stat.size == arrival.stat.size && entry.stat.mtime == arrival.stat.mtime;
        if same && matched.insert(*at) {
            arrival.from = Some(Box::new(entry.clone()));
        }
    }
    let mut at = 0;
    found.vanished.retain(|_| {
        at += 1;
        !matched.contains(&(at - 1))
    });
}

fn identity(stat: &Stat) -> (u64, i64) {
    (stat.inode, stat.btime.unwrap_or(0))
}

/// Whether a `stat` is the recorded one. Directories change with what they hold; of them only the mode counts.
fn unchanged(recorded: &Fingerprint, stat: &Stat) -> bool {
    if stat.kind == FileKind::Directory {
        return recorded.mode == stat.mode && recorded.inode == stat.inode;
    }
    recorded.size == stat.size
        && recorded.mtime == stat.mtime
        && recorded.ctime == stat.ctime
        && recorded.inode == stat.inode
        && recorded.mode == stat.mode
}

/// Whether nothing but the inode number of a file is another: who replaces a file changes its status change time.
fn is_renumbered(recorded: &Fingerprint, stat: &Stat) -> bool {
    stat.kind == FileKind::File
        && recorded.inode != stat.inode
        && (recorded.size, recorded.mtime, recorded.ctime) == (stat.size, stat.mtime, stat.ctime)
}

/// The fingerprint of a `stat`.
pub fn fingerprint(stat: &Stat) -> Fingerprint {
    let directory = stat.kind == FileKind::Directory;
    Fingerprint {
        size: if directory { 0 } else { stat.size },
        mtime: if directory { 0 } else { stat.mtime },
        ctime: if directory { 0 } else { stat.ctime },
        inode: stat.inode,
        btime: if directory { stat.btime.unwrap_or(0) } else { 0 },
        mode: stat.mode,
    }
}

/// Whether a record made at `now_ns`, by the disk's own clock, could miss a write that follows at once.
///
/// It could where that write would leave the same modification time; one that lies in the future is no such time.
pub fn state_at(stat: &Stat, now_ns: i64) -> EntryState {
    // A symlink is replaced, not written, but may get the inode number, size and time of the one before.
    let racy = stat.kind != FileKind::Directory && stat.mtime.abs_diff(now_ns) <= RACY_WINDOW_NS;
    if racy { EntryState::Racy } else { EntryState::Settled }
}

/// The time by the clock that stamps this disk's files, which need not be this device's.
pub fn disk_time(fs: &dyn Fs) -> Option<i64> {
    let probe = RelPath::new(b".packetboat/clock").expect("a sound path");
    let _ = fs.unlink(&probe);
    let time = fs.create_new(&probe).and_then(|file| file.stat()).map(|stat| stat.mtime);
    let _ = fs.unlink(&probe);
    time.ok()
}

/// Why a scan could not be made.
#[derive(Debug, thiserror::Error)]
pub enum ScanError {
    /// The folder itself cannot be read.
    #[error("cannot read the folder")]
    Root {
        /// The system's reason.
        #[source]
        source: io::Error,
    },
    /// The index failed.
    #[error(transparent)]
    Index(#[from] IndexError),
}

/// Longest path that is synchronised, in bytes.
const MAX_PATH: usize = 4000;
/// File systems stamp times as coarsely as this (FAT: two seconds), and clocks of servers differ a little.
pub(crate) const RACY_WINDOW_NS: u64 = 2_500_000_000;
const ENOENT: i32 = 2;
/// So many directories for each thread are read ahead of what is compared.
const TASKS_PER_THREAD: usize = 32;
