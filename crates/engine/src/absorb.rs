//! Absorbing local changes: from what the scan found to changes in packets and records in the index.
//!
//! Everything is done in an order in which a packet's changes can be replayed: arrivals and moves top down, then edits,
//! then removals. What vanished is matched with what arrived: by inode in the scan, by content here, so a removal is
//! published only when everything that could be its other end was read.

use std::collections::{BTreeSet, HashMap, HashSet};
use std::ops::AddAssign;

use packetboat_core::change::Change;
use packetboat_core::content::Content;
use packetboat_core::ids::{ContentId, DeviceId, Dot, ItemId};
use packetboat_core::knowledge::Knowledge;
use packetboat_core::local::{DirId, EntryState, LocalEntry, LocalRead, View};
use packetboat_core::name::{Name, RelPath};
use packetboat_core::plan::HistoryRead;
use packetboat_core::publish::{self, Found, Publish, SeenAfter};
use packetboat_core::tree::{TreeRead, TreeWrite, effective_deletes, is_shown};
use packetboat_core::view::{Shown, Viewer};
use packetboat_replica::fs::{FileKind, Fs, Stat};
use packetboat_replica::index::Index;

use crate::builder::{After, Builder};
use crate::error::SyncError;
use crate::paths;
use crate::ports::{Entropy, Note, Observer};
use crate::prepare::{Event, Job, Prepared, Preparer, prepare_all};
use crate::removal::{bring_back, remove, withhold};
use crate::replica::{Action, Direction, PlannedStep};
use crate::scan::{Arrival, Holder, Holders, Scanned, Suspect, fingerprint, state_at};

mod expected;

/// Counts of what a round sent.
#[derive(Clone, Copy, Default, PartialEq, Eq, Debug)]
pub struct Sent {
    /// New files, directories and symlinks.
    pub created: u64,
    /// Changed contents.
    pub edited: u64,
    /// Moves and renames.
    pub moved: u64,
    /// Removals.
    pub deleted: u64,
    /// Changed permissions and extended attributes.
    pub attributes: u64,
    /// Objects found equal to what the vault holds.
    pub agreed: u64,
    /// Bytes of files read.
    pub bytes_read: u64,
    /// Objects left for the next round.
    pub postponed: u64,
    /// Records that were forgotten, since what they stood for was let go: a round that follows finds the objects new.
    pub renewed: u64,
}

impl AddAssign for Sent {
    fn add_assign(&mut self, other: Self) {
        self.created += other.created;
        self.edited += other.edited;
        self.moved += other.moved;
        self.deleted += other.deleted;
        self.attributes += other.attributes;
        self.agreed += other.agreed;
        self.bytes_read += other.bytes_read;
        self.postponed += other.postponed;
        self.renewed += other.renewed;
    }
}

/// Brings what the scan found to stable storage before anything is recorded of it.
///
/// Otherwise a power loss soon after could take back a file that the index knows, and its loss would read as a removal.
/// What this file system cannot sync is left to its own pace.
pub(crate) fn make_durable(fs: &dyn Fs, scanned: &Scanned) {
    let found = || {
        let suspects = scanned.suspects.iter().map(|suspect| (suspect.path.clone(), suspect.stat));
        let arrivals = scanned.arrivals.iter();
        suspects.chain(arrivals.map(|arrival| (scanned.holders.path(arrival), arrival.stat)))
    };
    if scanned.suspects.len() + scanned.arrivals.len() > SYNC_ONE_BY_ONE {
        let _ = fs.sync_all();
        return;
    }
    let mut directories = BTreeSet::new();
    for (path, stat) in found() {
        if stat.kind == FileKind::File {
            let _ = fs.open(&path).and_then(|file| file.sync());
        }
        directories.extend(path.split().map(|(parent, _)| parent));
    }
    for directory in directories {
        let _ = fs.sync_dir(&directory);
    }
}

/// Publishes what the scan found.
#[allow(clippy::too_many_arguments)]
pub(crate) fn absorb(
    fs: &dyn Fs,
    preparer: &Preparer<'_>,
    threads: usize,
    builder: &mut Builder<'_>,
    scanned: Scanned,
    now_ns: i64,
    entropy: &mut dyn Entropy,
    observer: &mut dyn Observer,
) -> Result<Sent, SyncError> {
    let Scanned { suspects, arrivals, holders, vanished, absent, frozen, withheld, takes_places, awaits_rules, .. } =
        scanned;
    for (dir, name) in frozen {
        freeze(builder.index, dir, &name)?;
    }
    builder.places_taken =
        takes_places || !vanished.is_empty() || arrivals.iter().any(|arrival| arrival.from.is_some());
    let mut batch_random = [0u8; 16];
    entropy.fill(&mut batch_random);
    batch_random[12..].fill(0);
    let mut absorber = Absorber {
        fs,
        now_ns,
        holders: &holders,
        directories: HashMap::new(),
        item_base: ItemId(batch_random),
        items_made: 0,
        vanished_contents: contents_of(builder.index, &vanished)?,
        matched: HashSet::new(),
        unread_sizes: HashSet::new(),
        needed: Vec::new(),
        begins: crate::garbage::load(builder.index)?.horizon().clone(),
        let_go: Vec::new(),
        was_cut_short: crate::apply::was_cut_short(builder.index)?,
        arrivals: &arrivals,
        sent: Sent::default(),
        steps: Vec::new(),
        tells: observer.wants_steps(),
        builder,
    };
    let (mut expected, mut unchanged) = (Vec::new(), Vec::new());
    if absorber.builder.known.counts_own_alone() {
        expected = absorber.expected()?;
        unchanged = suspects.iter().map(|suspect| absorber.unchanged(suspect)).collect::<Result<_, _>>()?;
    }
    let mut feed_entropy = entropy.fork();
    {
        let arrival_jobs = arrivals.iter().enumerate().map(|(at, arrival)| {
            let read = arrival.stat.kind != FileKind::Directory;
            let expected = expected.get(at).copied().flatten();
            let job = read.then(|| Job { path: holders.path(arrival), stat: arrival.stat, expected });
            (job, Tag::Arrival(at))
        });
        let suspect_jobs = suspects.iter().enumerate().map(|(at, suspect)| {
            let read = suspect.stat.kind != FileKind::Directory;
            let expected = unchanged.get(at).copied().flatten();
            let job = read.then(|| Job { path: suspect.path.clone(), stat: suspect.stat, expected });
            (job, Tag::Suspect(at))
        });
        let mut feed = arrival_jobs.chain(suspect_jobs);
        prepare_all(preparer, threads, &mut *feed_entropy, &mut feed, &mut |event| {
            if observer.interrupted() {
                return Err(SyncError::Interrupted);
            }
            match event {
                Event::Chunk(chunk) => {
                    let bytes = u64::from(chunk.sealed.len);
                    observer.advance(0, bytes);
                    absorber.sent.bytes_read += bytes;
                    absorber.builder.chunk(chunk, entropy)
                }
                Event::Ready(tag, prepared) => {
                    let prepared = match prepared.transpose() {
                        Ok(prepared) => prepared,
                        Err(error) => {
                            let path = match tag {
                                Tag::Arrival(at) => holders.path(&arrivals[at]),
                                Tag::Suspect(at) => suspects[at].path.clone(),
                            };
                            absorber.postpone(&tag);
                            let mut reason = error.to_string();
                            if let Some(cause) = std::error::Error::source(&error) {
                                reason = format!("{reason}: {cause}");
                            }
                            observer.note(Note::Skipped { path, reason });
                            return Ok(());
                        }
                    };
                    if let Some(prepared) = &prepared {
                        let bytes =
                            if prepared.stat.size <= crate::prepare::SMALL_FILE { prepared.stat.size } else { 0 };
                        observer.advance(1, bytes);
                        absorber.sent.bytes_read += bytes;
                    }
                    match tag {
                        Tag::Arrival(at) => absorber.arrival(at, prepared, entropy)?,
                        Tag::Suspect(at) => absorber.suspect(&suspects[at], prepared, entropy)?,
                    }
                    absorber.steps.drain(..).for_each(|step| observer.note(Note::Step(step)));
                    Ok(())
                }
            }
        })?;
    }
    if withheld.is_none() {
        // What may be in a file that could not be read keeps its entry, so that it is deleted nowhere. What was let go is
        // deleted everywhere already, and its entry would keep the directory from being new that such a file is left in.
        for entry in &vanished {
            if absorber.may_be_unread(entry) && absorber.stands_in_let_go(entry)? {
                absorber.matched.insert((entry.dir, entry.name.clone()));
                absorber.let_go.push(LocalEntry::clone(entry));
            }
        }
    }
    let (matched, unread_sizes, mut needed) = (absorber.matched, absorber.unread_sizes, absorber.needed);
    let mut sent = absorber.sent;
    // In its turn: what lies in such a directory and was looked at is recorded before that.
    sent.renewed += absorber.let_go.len() as u64;
    for entry in absorber.let_go {
        builder.change(Vec::new(), vec![After::Forget(entry)], entropy)?;
    }
    let gone = vanished.into_iter().filter(|entry| !matched.contains(&(entry.dir, entry.name.clone())));
    let (mut withheld_here, gone): (Vec<LocalEntry>, Vec<LocalEntry>) = gone
        .partition(|entry| withheld.is_some() || entry.own_dir.is_none() && unread_sizes.contains(&entry.stat.size));
    // A directory goes after what it holds, or nothing would ask for that any more.
    needed.extend(withheld_here.iter().map(|entry| entry.dir));
    let needed = with_those_above(builder.index, needed)?;
    let (waiting, gone) = gone.into_iter().partition(|entry| entry.own_dir.is_some_and(|own| needed.contains(&own)));
    withheld_here.extend::<Vec<LocalEntry>>(waiting);
    sent.postponed += u64::from(awaits_rules) + withhold(builder.index, &withheld_here, withheld.as_ref(), observer)?;
    for entry in &gone {
        let path = paths::known_path(builder.index, entry)?;
        observer.note(Note::Step(up(Action::Delete, path, None, "it is gone from the folder")));
    }
    sent.deleted += remove(builder, gone, entropy)?;
    bring_back(builder, absent, entropy)?;
    Ok(sent)
}

/// These directories and all above them.
fn with_those_above(index: &Index, dirs: Vec<DirId>) -> Result<HashSet<DirId>, SyncError> {
    let mut found = HashSet::new();
    for mut dir in dirs {
        while found.insert(dir) {
            match index.directory(dir)? {
                Some(entry) => dir = paths::known_place(&entry).0,
                None => break,
            }
        }
    }
    Ok(found)
}

enum Tag {
    Arrival(usize),
    Suspect(usize),
}

struct Absorber<'a, 'b> {
    fs: &'a dyn Fs,
    now_ns: i64,
    /// Where arrivals are.
    holders: &'a Holders,
    /// For each arrival that is a directory: its number and item, once they are known, and whether the item is new.
    directories: HashMap<usize, (DirId, ItemId, bool)>,
    item_base: ItemId,
    items_made: u32,
    /// Contents of vanished files, to find where they went.
    vanished_contents: HashMap<ContentId, Vec<LocalEntry>>,
    /// Vanished files that were found elsewhere.
    matched: HashSet<(DirId, Name)>,
    /// Sizes of arrivals that could not be read: a vanished file of that size may be one of them.
    unread_sizes: HashSet<u64>,
    /// Directories that vanished files which wait were in.
    needed: Vec<DirId>,
    /// Where history begins.
    begins: Knowledge,
    /// Entries to be forgotten: what is changed here of what was let go is new to the vault.
    let_go: Vec<LocalEntry>,
    /// Whether what stands on the disk may have come there unrecorded.
    was_cut_short: bool,
    arrivals: &'a [Arrival],
    sent: Sent,
    /// What was done since the observer was last told.
    steps: Vec<PlannedStep>,
    /// Whether the observer is to be told.
    tells: bool,
    builder: &'a mut Builder<'b>,
}

impl Absorber<'_, '_> {
    fn new_item(&mut self) -> ItemId {
        let item = self.item_base.successor(self.items_made);
        self.items_made += 1;
        item
    }

    /// Notes a step, for whoever asked to be told: of a million files each would be a path and a sentence.
    fn tell(&mut self, step: impl FnOnce(&Holders) -> PlannedStep) {
        if self.tells {
            self.steps.push(step(self.holders));
        }
    }

    /// A file that could not be read: nothing is published of it, and what it may have been is not removed.
    fn postpone(&mut self, tag: &Tag) {
        self.sent.postponed += 1;
        if let Tag::Arrival(at) = tag {
            match &self.arrivals[*at].from {
                Some(from) => {
                    self.matched.insert((from.dir, from.name.clone()));
                    self.needed.push(from.dir);
                }
                None => drop(self.unread_sizes.insert(self.arrivals[*at].stat.size)),
            }
        }
    }

    /// Whether a file that vanished may be one that appeared and could not be read.
    fn may_be_unread(&self, entry: &LocalEntry) -> bool {
        let is_matched = self.matched.contains(&(entry.dir, entry.name.clone()));
        !is_matched && entry.own_dir.is_none() && self.unread_sizes.contains(&entry.stat.size)
    }

    /// Whether an item was deleted before history begins: others have forgotten it, or will, so nothing may build on it.
    fn is_let_go(&self, item: ItemId) -> Result<bool, SyncError> {
        if self.begins.is_empty() || item == ItemId::ROOT {
            return Ok(false);
        }
        let index = &*self.builder.index;
        let Some(item) = index.item(item)? else { return Ok(true) };
        let of_heads = item.heads.iter().flat_map(|head| &head.deletes);
        let of_placements = item.placements.iter().flat_map(|placement| &placement.deletes);
        let mut deletes = item.deletes.iter().chain(of_heads).chain(of_placements);
        Ok(deletes.any(|delete| self.begins.contains(delete)) && !is_shown(index, &item)?)
    }

    /// Whether an entry is of what was let go, or lies in a directory that was: nothing that is done to it may build on that.
    fn stands_in_let_go(&self, entry: &LocalEntry) -> Result<bool, SyncError> {
        let above = paths::item_of_dir(self.builder.index, paths::known_place(entry).0)?;
        Ok(self.is_let_go(entry.seen.item)? || self.is_let_go(above)?)
    }

    /// Leaves what appeared in a directory that was let go until this disk has removed what else was in there, and then until
    /// the directory itself is new.
    ///
    /// What was moved within a directory that was let go has no other name for which that would wait: it is new as well.
    fn leave_in_let_go(&mut self, at: usize, dir: DirId) -> Result<(), SyncError> {
        self.postpone(&Tag::Arrival(at));
        if let Some(from) = self.arrivals[at].from.as_deref()
            && self.stands_in_let_go(from)?
        {
            self.let_go.push(from.clone());
        }
        if let Some(entry) = self.builder.index.directory(dir)?
            && self.holds_only_ignored(dir)?
        {
            self.let_go.push(entry);
        }
        Ok(())
    }

    /// Whether nothing is recorded in a directory but what is ignored here, and directories that stay for that.
    fn holds_only_ignored(&self, dir: DirId) -> Result<bool, SyncError> {
        let mut after = None;
        loop {
            let page = self.builder.index.entries_in(dir, after.as_ref(), PAGE)?;
            let Some(last) = page.last() else { return Ok(true) };
            after = Some(last.name.clone());
            for entry in &page {
                let stays = match entry.own_dir {
                    _ if entry.state == EntryState::Frozen => true,
                    Some(own) => self.is_let_go(entry.seen.item)? && self.holds_only_ignored(own)?,
                    None => false,
                };
                if !stays {
                    return Ok(false);
                }
            }
        }
    }

    fn arrival(&mut self, at: usize, prepared: Option<Prepared>, entropy: &mut dyn Entropy) -> Result<(), SyncError> {
        let arrival = &self.arrivals[at];
        let (dir, parent, parent_is_new) = match arrival.holder {
            Holder::Known(dir) => (dir, paths::item_of_dir(self.builder.index, dir)?, false),
            Holder::New(holder) => match self.directories.get(&holder) {
                Some(holder) => *holder,
                // The directory was postponed; so is what it holds.
                None => {
                    self.postpone(&Tag::Arrival(at));
                    return self.set_aside(prepared, entropy);
                }
            },
        };
        if !parent_is_new && self.is_let_go(parent)? {
            self.leave_in_let_go(at, dir)?;
            return self.set_aside(prepared, entropy);
        }
        let from = match (&arrival.from, &prepared) {
            (Some(from), _) => Some(LocalEntry::clone(from)),
            (None, Some(prepared)) => self.same_content(&prepared.content),
            (None, None) => None,
        };
        if let Some(from) = &from
            && self.is_let_go(from.seen.item)?
        {
            self.sent.postponed += 1;
            self.matched.insert((from.dir, from.name.clone()));
            self.let_go.push(from.clone());
            return self.set_aside(prepared, entropy);
        }
        let is_one_with =
            |from: &LocalEntry, item| from.seen.item == item || from.seen.twins.iter().any(|twin| twin.item == item);
        if from.as_ref().is_some_and(|from| is_one_with(from, parent)) {
            // What was listed as a directory had another in its place when it was read, and that has it in it.
            self.postpone(&Tag::Arrival(at));
            return self.set_aside(prepared, entropy);
        }
        let is_expected = prepared.as_ref().is_some_and(|prepared| prepared.is_expected);
        let (stat, found) = self.take(|holders| holders.path(arrival), &arrival.stat, prepared, entropy)?;
        if let Some(from) = from {
            return self.moved(at, from, dir, parent, &stat, found, entropy);
        }
        let new_item = self.new_item();
        let shown = if parent_is_new { None } else { self.unseen_at(parent, &arrival.name, Some(&found.content))? };
        if is_expected && shown.as_ref().is_none_or(|shown| !shown.content.agrees(&found.content)) {
            // What it was to agree with was found elsewhere meanwhile. The next round expects nothing here, and stores it.
            self.postpone(&Tag::Arrival(at));
            return Ok(());
        }
        let own_dir = found.content.is_directory().then(|| self.builder.index.new_dir_id()).transpose()?;
        let mut published = publish::appeared(shown.as_ref(), new_item, parent, &arrival.name, &found);
        if self.was_cut_short
            && let (Some(shown), Publish::Changes(..)) = (&shown, &published)
            && let Some(seen) = publish::left_behind(&*self.builder.index, shown, &found.content)?
        {
            published = Publish::Agreed(seen);
        }
        let mut entry = LocalEntry {
            dir,
            name: arrival.name.clone(),
            own_dir,
            seen: publish::created(new_item, NO_DOT),
            mode: found.mode,
            xattrs: found.xattrs,
            stat: fingerprint(&stat),
            state: state_at(&stat, self.now_ns),
        };
        let (changes, after) = match (published, shown) {
            (Publish::Agreed(seen), Some(shown)) => {
                self.sent.agreed += 1;
                entry.seen = seen;
                // Permissions are the vault's, set by the plan that follows; attributes that only this disk has stay.
                self.builder.index.touch(entry.seen.item)?;
                (xattrs_beyond(&shown, &entry), SeenAfter::default())
            }
            (Publish::Changes(changes, after), Some(shown)) if after.content => {
                self.sent.edited += 1;
                let cause = "it differs from what the vault has here, and neither came from the other";
                self.tell(|holders| up(Action::Edit, holders.path(arrival), None, cause));
                entry.seen = packetboat_core::plan::seen_of(&shown, &View::Plain);
                entry.seen.twins.clear();
                let mut changes = changes;
                changes.extend(xattrs_beyond(&shown, &entry));
                // What was a symlink has no permissions yet.
                let mode = entry.mode.filter(|_| shown.mode.is_none());
                changes.extend(mode.map(|mode| Change::Mode { item: shown.item, mode }));
                self.builder.index.touch(shown.item)?;
                (changes, after)
            }
            (Publish::Changes(changes, after), _) => {
                self.sent.created += 1;
                self.tell(|holders| up(Action::Create, holders.path(arrival), None, "it is new in the folder"));
                (changes, after)
            }
            (Publish::Agreed(_), None) => unreachable!("agreement is with something shown"),
        };
        if let Some(own_dir) = own_dir {
            let item = after.created.unwrap_or(entry.seen.item);
            self.directories.insert(at, (own_dir, item, after.created.is_some()));
        }
        self.builder.change(changes, vec![After::Put { entry, seen: after, was: None }], entropy)
    }

    /// Hands over the chunks of what was read; of a directory reads the attributes.
    fn take(
        &mut self,
        path: impl FnOnce(&Holders) -> RelPath,
        scanned: &Stat,
        prepared: Option<Prepared>,
        entropy: &mut dyn Entropy,
    ) -> Result<(Stat, Found), SyncError> {
        let Some(prepared) = prepared else {
            let mut xattrs = self.fs.xattrs(&path(self.holders)).unwrap_or_default();
            xattrs.sort();
            let found = Found { content: Content::Directory, mode: Some(scanned.mode & 0o777), xattrs };
            return Ok((*scanned, found));
        };
        for chunk in prepared.chunks {
            self.builder.chunk(chunk, entropy)?;
        }
        let mode = (prepared.stat.kind != FileKind::Symlink).then_some(prepared.stat.mode & 0o777);
        Ok((prepared.stat, Found { content: prepared.content, mode, xattrs: prepared.xattrs }))
    }

    /// Stores what was read of something of which nothing is published in this round: another file in it that holds the
    /// same relies on that.
    ///
    /// In a pack: whoever has the same from an earlier packet keeps no note of a second one that it comes in, and forgets
    /// it with the first where nothing refers to it yet.
    fn set_aside(&mut self, prepared: Option<Prepared>, entropy: &mut dyn Entropy) -> Result<(), SyncError> {
        for chunk in prepared.into_iter().flat_map(|prepared| prepared.chunks) {
            self.builder.pack_chunk(chunk.sealed, entropy)?;
        }
        Ok(())
    }

    /// What the vault shows at a place where this disk had nothing recorded, if no other object stands for it here.
    ///
    /// One that was moved aside for it does not, where what is found is what was to come: a crash took the record of that.
    /// Without what was found, as if that were what is shown.
    fn unseen_at(&self, parent: ItemId, name: &Name, found: Option<&Content>) -> Result<Option<Shown>, SyncError> {
        let index = &*self.builder.index;
        let Some(shown) = Viewer::new(index).at(parent, name)? else { return Ok(None) };
        let has_come = found.is_none_or(|found| shown.content.agrees(found));
        for entry in index.entries_of(shown.item)? {
            let same_seat = entry.seen.heads.iter().any(|dot| shown.heads.contains(dot));
            let same_view = entry.seen.view == shown.view && !(has_come && entry.dir == DirId::STAGING);
            if same_seat || shown.content.is_directory() || same_view {
                return Ok(None);
            }
        }
        Ok(Some(shown))
    }

    fn same_content(&mut self, content: &Content) -> Option<LocalEntry> {
        let Content::File(file) = content else { return None };
        let candidates = self.vanished_contents.get_mut(&file.id)?;
        candidates.retain(|entry| !self.matched.contains(&(entry.dir, entry.name.clone())));
        candidates.first().cloned()
    }

    #[allow(clippy::too_many_arguments)]
    fn moved(
        &mut self,
        at: usize,
        from: LocalEntry,
        dir: DirId,
        parent: ItemId,
        stat: &Stat,
        found: Found,
        entropy: &mut dyn Entropy,
    ) -> Result<(), SyncError> {
        let name = self.arrivals[at].name.clone();
        let was = (from.dir, from.name.clone());
        self.matched.insert(was.clone());
        let new_item = self.new_item();
        let mut entry = from.clone();
        (entry.dir, entry.name) = (dir, name.clone());
        let viewer = Viewer::new(&*self.builder.index);
        let (mut changes, mut after) = match publish::moved(&viewer, &from, parent, &name, new_item, &found)? {
            Publish::Agreed(seen) => {
                self.sent.agreed += 1;
                entry.seen = seen;
                (Vec::new(), SeenAfter::default())
            }
            Publish::Changes(changes, after) => {
                self.sent.moved += 1;
                let old = paths::known_path(self.builder.index, &from)?;
                let arrival = &self.arrivals[at];
                self.tell(|holders| up(Action::Move, old, Some(holders.path(arrival)), "it was moved in the folder"));
                (changes, after)
            }
        };
        if changes.is_empty() {
            self.builder.index.touch(entry.seen.item)?;
        }
        self.move_without_what_was_let_go(&mut changes, &from)?;
        if after.created.is_none() {
            let (edits, edited) = self.edits(&self.holders.path(&self.arrivals[at]), &mut entry, stat, &found)?;
            changes.extend(edits);
            after = after.and(edited);
        }
        if let Some(own_dir) = entry.own_dir {
            self.directories.insert(at, (own_dir, after.created.unwrap_or(entry.seen.item), false));
        } else if after.place || after.content {
            // What was seen as one with it is absorbed by the change.
            entry.seen.twins.clear();
        }
        (entry.mode, entry.xattrs) = (found.mode, found.xattrs);
        entry.stat = fingerprint(stat);
        entry.state = state_at(stat, self.now_ns);
        self.builder.change(changes, vec![After::Put { entry, seen: after, was: Some(was) }], entropy)
    }

    /// Lets the move of a directory that was deleted before history begins, and is still shown for something in it, revive
    /// nothing in it: others have forgotten what the same delete removed. What of that is still on this disk was moved
    /// along, and is new.
    fn move_without_what_was_let_go(&mut self, changes: &mut [Change], from: &LocalEntry) -> Result<(), SyncError> {
        let Some(own) = from.own_dir else { return Ok(()) };
        let mut any = false;
        for change in changes {
            if let Change::Place { item, replaces, .. } = change {
                let deletes = self.deletes_let_go(*item)?;
                any |= !deletes.is_empty();
                replaces.extend(deletes);
                replaces.sort_unstable();
                replaces.dedup();
            }
        }
        if any { self.renew_what_was_let_go(own) } else { Ok(()) }
    }

    /// The deletes of an item that took effect before history begins.
    fn deletes_let_go(&self, item: ItemId) -> Result<Vec<Dot>, SyncError> {
        let index = &*self.builder.index;
        let Some(item) = index.item(item)? else { return Ok(Vec::new()) };
        if !item.deletes.iter().any(|delete| self.begins.contains(delete)) {
            return Ok(Vec::new());
        }
        let mut deletes = effective_deletes(index, &item)?;
        deletes.retain(|delete| self.begins.contains(delete));
        Ok(deletes)
    }

    /// Notes the entries beneath a directory that are to be forgotten, so that the next scan finds them new.
    fn renew_what_was_let_go(&mut self, dir: DirId) -> Result<(), SyncError> {
        let mut pending = vec![dir];
        while let Some(dir) = pending.pop() {
            let mut after = None;
            loop {
                let page = self.builder.index.entries_in(dir, after.as_ref(), PAGE)?;
                let Some(last) = page.last() else { break };
                after = Some(last.name.clone());
                for entry in page {
                    if entry.state != EntryState::Frozen && self.is_let_go(entry.seen.item)? {
                        self.sent.postponed += 1;
                        self.let_go.push(entry);
                    } else if let Some(own) = entry.own_dir
                        && !self.deletes_let_go(entry.seen.item)?.is_empty()
                    {
                        pending.push(own);
                    }
                }
            }
        }
        Ok(())
    }

    /// The changes of bytes and attributes since they were agreed on.
    fn edits(
        &mut self,
        path: &RelPath,
        entry: &mut LocalEntry,
        stat: &Stat,
        found: &Found,
    ) -> Result<(Vec<Change>, SeenAfter), SyncError> {
        let mut changes = Vec::new();
        let mut after = SeenAfter::default();
        if self.is_edited(entry, &found.content)? {
            let beside = self.shown_beside(entry)?;
            match publish::edited(&*self.builder.index, &entry.seen, &beside, found.content.clone())? {
                Publish::Agreed(agreed) => {
                    self.sent.agreed += 1;
                    entry.seen = agreed;
                }
                Publish::Changes(edits, edited) => {
                    self.sent.edited += 1;
                    self.tell(|_| up(Action::Edit, path.clone(), None, "its bytes changed in the folder"));
                    (changes, after) = (edits, edited);
                }
            }
        }
        let attributes = attribute_changes(entry, stat, &found.xattrs);
        if !attributes.is_empty() {
            self.sent.attributes += 1;
            let cause = "its permissions or attributes changed in the folder";
            self.tell(|_| up(Action::Attributes, path.clone(), None, cause));
            changes.extend(attributes);
        }
        Ok((changes, after))
    }

    /// The versions of an entry's item that this disk has at other places, or had when it was last looked at.
    fn shown_beside(&self, entry: &LocalEntry) -> Result<Vec<Dot>, SyncError> {
        let entries = self.builder.index.entries_of(entry.seen.item)?;
        let others = entries.into_iter().filter(|other| (other.dir, &other.name) != (entry.dir, &entry.name));
        Ok(others.flat_map(|other| other.seen.heads).collect())
    }

    /// Whether a file holds something else than disk and vault had agreed on.
    fn is_edited(&self, entry: &LocalEntry, found: &Content) -> Result<bool, SyncError> {
        let old = self.agreed_content(entry)?;
        Ok(!found.is_directory() && old.is_none_or(|old| !old.agrees(found)))
    }

    /// The content that disk and vault had agreed on.
    fn agreed_content(&self, entry: &LocalEntry) -> Result<Option<Content>, SyncError> {
        let Some(dot) = entry.seen.heads.first() else { return Ok(None) };
        Ok(self.builder.index.version(entry.seen.item, dot)?.map(|head| head.content))
    }

    fn suspect(
        &mut self,
        suspect: &Suspect,
        prepared: Option<Prepared>,
        entropy: &mut dyn Entropy,
    ) -> Result<(), SyncError> {
        let Some(mut entry) = self.builder.index.entry_at(suspect.dir, &suspect.name)? else { return Ok(()) };
        if suspect.thawed {
            let Some(item) = self.builder.index.item(entry.seen.item)? else {
                // It was deleted while it was ignored here, and that was let go: what stands on this disk is new.
                self.sent.postponed += 1;
                self.let_go.push(entry);
                return self.set_aside(prepared, entropy);
            };
            let dead_directory = item.is_directory() && !is_shown(self.builder.index, &item)?;
            if dead_directory && self.fs.read_dir(&suspect.path).is_ok_and(|entries| !entries.is_empty()) {
                // It stays for what is ignored in it.
                return Ok(());
            }
            self.builder.index.touch(entry.seen.item)?;
        }
        if let Some(read) = &prepared
            && self.is_edited(&entry, &read.content)?
            && self.is_let_go(entry.seen.item)?
        {
            self.sent.postponed += 1;
            self.let_go.push(entry);
            return self.set_aside(prepared, entropy);
        }
        let is_expected = prepared.as_ref().is_some_and(|prepared| prepared.is_expected);
        let (stat, found) = self.take(|_| suspect.path.clone(), &suspect.stat, prepared, entropy)?;
        if is_expected && self.is_edited(&entry, &found.content)? {
            // What was agreed on is something else since this round began. The next reads it again, and stores it.
            self.sent.postponed += 1;
            return Ok(());
        }
        let (mut changes, after) = self.edits(&suspect.path, &mut entry, &stat, &found)?;
        if !changes.is_empty() && self.is_let_go(entry.seen.item)? {
            // Attributes revive nothing.
            changes.clear();
            self.sent.attributes -= 1;
        }
        if after.content {
            entry.seen.twins.clear();
        }
        (entry.mode, entry.xattrs) = (found.mode, found.xattrs);
        entry.stat = fingerprint(&stat);
        entry.state = state_at(&stat, self.now_ns);
        self.builder.change(changes, vec![After::Put { entry, seen: after, was: None }], entropy)
    }
}

fn up(action: Action, path: RelPath, to: Option<RelPath>, cause: &str) -> PlannedStep {
    PlannedStep { direction: Direction::Up, action, path, to, cause: cause.to_owned() }
}

/// Attributes on disk that the vault does not have: they are added there, so that agreeing on the bytes loses none.
fn xattrs_beyond(shown: &Shown, entry: &LocalEntry) -> Vec<Change> {
    entry
        .xattrs
        .iter()
        .filter(|(name, _)| !shown.xattrs.iter().any(|(known, _)| known == name))
        .map(|(name, value)| Change::Xattr { item: shown.item, name: name.clone(), value: Some(value.clone()) })
        .collect()
}

/// Changes of permissions and extended attributes of a file or directory since they were agreed on.
fn attribute_changes(entry: &LocalEntry, stat: &Stat, xattrs: &[(Vec<u8>, Vec<u8>)]) -> Vec<Change> {
    let item = entry.seen.item;
    let mut changes = Vec::new();
    if stat.kind == FileKind::Symlink {
        return changes;
    }
    let mode = stat.mode & 0o777;
    if entry.mode != Some(mode) {
        changes.push(Change::Mode { item, mode });
    }
    for (name, value) in xattrs {
        if !entry.xattrs.iter().any(|(n, v)| n == name && v == value) {
            changes.push(Change::Xattr { item, name: name.clone(), value: Some(value.clone()) });
        }
    }
    for (name, _) in &entry.xattrs {
        if !xattrs.iter().any(|(n, _)| n == name) {
            changes.push(Change::Xattr { item, name: name.clone(), value: None });
        }
    }
    changes
}

/// Forgets an entry and all beneath it.
pub(crate) fn forget_entry(index: &mut Index, entry: &LocalEntry) -> Result<(), SyncError> {
    if let Some(own) = entry.own_dir {
        loop {
            let children = index.entries_in(own, None, PAGE)?;
            if children.is_empty() {
                break;
            }
            for child in &children {
                forget_entry(index, child)?;
            }
        }
    }
    index.remove_entry(entry.dir, &entry.name)?;
    Ok(())
}

/// Marks an entry as ignored.
fn freeze(index: &mut Index, dir: DirId, name: &Name) -> Result<(), SyncError> {
    if let Some(entry) = index.entry_at(dir, name)? {
        index.set_fingerprint(dir, name, &entry.stat, &EntryState::Frozen)?;
    }
    Ok(())
}

/// The contents of vanished files: where else one of them turns up, it was moved.
fn contents_of(index: &Index, vanished: &[LocalEntry]) -> Result<HashMap<ContentId, Vec<LocalEntry>>, SyncError> {
    let mut contents: HashMap<ContentId, Vec<LocalEntry>> = HashMap::new();
    for entry in vanished.iter().filter(|entry| entry.own_dir.is_none() && entry.stat.size > 0) {
        let Some(dot) = entry.seen.heads.first() else { continue };
        if let Some(Content::File(file)) = index.version(entry.seen.item, dot)?.map(|head| head.content) {
            contents.entry(file.id).or_default().push(entry.clone());
        }
    }
    Ok(contents)
}

const PAGE: usize = 1000;
/// Stands in an entry until its packet is sealed.
const NO_DOT: Dot = Dot { device: DeviceId([0; 32]), counter: 0 };
/// Up to so many objects are synced each on its own; more are by one call for the whole file system.
const SYNC_ONE_BY_ONE: usize = 32;
