//! Undo: the last thing that this device published is taken back, as a change like any other.
//!
//! The last thing is what one operation published, such as a round, a settlement or an undo: the newest packet of this
//! device's lane that changed files, and those before it that bear the same time ([`crate::builder::time_of_operation`]).
//! Undoing adds packets and rewrites nothing, so undoing an undo does again what was undone.
//!
//! A side of a conflict that was dropped comes back as a new version with its bytes, each in a packet of its own, since a
//! packet sets what an item holds once. Undoing that drops it again.
//!
//! Only what still stands as it was published is taken back. What anybody changed since is left and named, with the
//! reason; so is what cannot go back because something else stands in its place now. A round comes first, so that
//! changes on this disk and news of others are known, and one follows, which publishes and brings it to disk.

use std::collections::{BTreeMap, BTreeSet, HashMap, HashSet};

use packetboat_core::change::{Change, Removed, Unit};
use packetboat_core::content::Content;
use packetboat_core::ids::{Counter, Dot, ItemId};
use packetboat_core::item::{Head, Item, Placed};
use packetboat_core::name::RelPath;
use packetboat_core::packet::Packet;
use packetboat_core::plan::HistoryRead;
use packetboat_core::tree::{Past, TreeRead, is_alive, is_shown};
use packetboat_core::view::{ViewRead, Viewer};
use packetboat_replica::index::Index;

use crate::error::{QueryError, SyncError};
use crate::past::index_before;
use crate::ports::Observer;
use crate::replica::{Action, Direction, PlannedStep, Replica, Report, SyncOptions};

/// What was undone, or would be.
#[derive(Clone, Debug)]
pub struct Undo {
    /// The packets that are taken back, in order.
    pub packets: Vec<Dot>,
    /// When they were made, by this device's clock, in milliseconds since 1970 UTC.
    pub time: i64,
    /// What is taken back.
    pub steps: Vec<PlannedStep>,
    /// What is left as it is, and why.
    pub left: Vec<(RelPath, String)>,
    /// How many changes of the folder were not published yet: they are published before, and not taken back.
    pub unpublished: u64,
    /// What the rounds around it did; none for a preview.
    pub round: Option<Report>,
}

impl Replica {
    /// Takes back the last thing that this device published; with `preview`, only says what that would do.
    pub fn undo(&mut self, preview: bool, observer: &mut dyn Observer) -> Result<Undo, QueryError> {
        // Chosen first: what the round below publishes of this disk is not what the user saw as the last thing.
        let packets = self.last_published()?;
        let Some(last) = packets.last() else { return Err(QueryError::NothingToUndo) };
        let time = last.body.time;
        let (before, unpublished) = match preview {
            true => {
                let steps = self.dry_run(observer)?;
                (None, steps.iter().filter(|step| step.direction == Direction::Up).count() as u64)
            }
            false => {
                let report = self.sync(SyncOptions::default(), observer)?;
                let sent = &report.sent;
                let unpublished = sent.created + sent.edited + sent.moved + sent.deleted + sent.attributes;
                (Some(report), unpublished)
            }
        };
        // What was deleted before history begins others have forgotten, or will.
        let record = crate::garbage::load(&self.parts.index)?;
        if packets.iter().any(|packet| record.horizon().contains(&packet.dot)) {
            return Err(QueryError::NothingToUndo);
        }
        let mut undoing = Undoing::new(&self.parts.index, &packets)?;
        if undoing.needs_past {
            let first = packets.first().expect("there is a last").dot;
            undoing.past = Some(index_before(&self.parts.index, &*self.parts.store, &self.keys, &first)?);
        }
        undoing.plan(&packets)?;
        let Undoing { changes, removed, steps, left, .. } = undoing;
        let dots = packets.iter().map(|packet| packet.dot).collect();
        let mut undo = Undo { packets: dots, time, steps, left, unpublished, round: None };
        let Some(before) = before else { return Ok(undo) };
        if undo.steps.is_empty() {
            undo.round = Some(before);
            return Ok(undo);
        }
        self.parts.index.begin()?;
        let sealed = self.seal_undo(changes, removed);
        if let Err(error) = sealed {
            self.parts.index.rollback()?;
            return Err(error.into());
        }
        self.parts.index.commit()?;
        let after = self.sync(SyncOptions::default(), observer)?;
        undo.round = Some(crate::resolve::both(&before, after));
        Ok(undo)
    }

    /// The packets of the last operation that changed files, oldest first; those that changed none are left out.
    fn last_published(&self) -> Result<Vec<Packet>, SyncError> {
        let device = self.keys.device.device();
        let mut counter: Counter = self.parts.index.knowledge().counter(&device);
        let mut packets: Vec<Packet> = Vec::new();
        while counter > 0 {
            let Some(sealed) = self.parts.index.sealed_packet(Dot { device, counter })? else { break };
            let packet = sealed.open(&self.keys.ring)?;
            counter -= 1;
            if packets.last().is_some_and(|next| next.body.time != packet.body.time) {
                break;
            }
            if packet.body.changes.iter().any(|change| !change.units().is_empty()) {
                packets.push(packet);
            }
        }
        packets.reverse();
        Ok(packets)
    }

    fn seal_undo(&mut self, changes: Vec<Change>, removed: Vec<Removed>) -> Result<(), SyncError> {
        // One time for all of them, by which they are known as one thing when this is undone in its turn.
        let now_ms = self.time_of_operation()?;
        let mut waiting = changes;
        while !waiting.is_empty() {
            let (mut batch, mut later) = (Vec::new(), Vec::new());
            let mut units: HashSet<Unit> = HashSet::new();
            for change in waiting {
                let sets = change.units();
                if sets.iter().any(|unit| units.contains(unit)) {
                    later.push(change);
                    continue;
                }
                units.extend(sets);
                batch.push(change);
                if batch.len() == MAX_CHANGES {
                    self.settle_at(now_ms, std::mem::take(&mut batch))?;
                    units.clear();
                }
            }
            if !batch.is_empty() {
                self.settle_at(now_ms, batch)?;
            }
            waiting = later;
        }
        for removed in of_each_item(removed).chunks(MAX_CHANGES) {
            self.settle_at(now_ms, vec![Change::Delete { removed: removed.to_vec() }])?;
        }
        Ok(())
    }
}

/// Puts together what is removed of the same item, where the first of it stands.
fn of_each_item(removed: Vec<Removed>) -> Vec<Removed> {
    let mut all: Vec<Removed> = Vec::new();
    let mut known: HashMap<ItemId, usize> = HashMap::new();
    for new in removed {
        let Some(&at) = known.get(&new.item) else {
            known.insert(new.item, all.len());
            all.push(new);
            continue;
        };
        let known = &mut all[at];
        for (dots, new) in [(&mut known.heads, new.heads), (&mut known.placements, new.placements)] {
            dots.extend(new);
            dots.sort_unstable();
            dots.dedup();
        }
    }
    all
}

/// What undoing comes to.
struct Undoing<'a> {
    index: &'a Index,
    viewer: Viewer<'a, Index>,
    /// The packets that are taken back.
    dots: BTreeSet<Dot>,
    /// Items that leave their places by this, if nothing speaks against it.
    leaving: HashSet<ItemId>,
    /// Items that come back by this.
    returning: HashSet<ItemId>,
    /// Items that were brought back, and go again by this with all that was brought back of them.
    revived: HashSet<ItemId>,
    /// Sides of conflicts that were brought back, and are dropped again by this.
    returned: HashSet<(ItemId, Dot)>,
    /// Whether something is undone that only the past tells.
    needs_past: bool,
    past: Option<Index>,
    changes: Vec<Change>,
    removed: Vec<Removed>,
    steps: Vec<PlannedStep>,
    left: Vec<(RelPath, String)>,
}

/// A change that takes one back, and what it does to which path; or why there is none.
type Undone = Result<(Vec<Change>, Option<Removed>, Action, RelPath, Option<RelPath>), String>;

impl<'a> Undoing<'a> {
    fn new(index: &'a Index, packets: &[Packet]) -> Result<Self, SyncError> {
        let changes = || packets.iter().flat_map(|packet| &packet.body.changes);
        let placed = changes().filter(|change| matches!(change, Change::Create { .. } | Change::Place { .. }));
        let removed = changes().filter_map(|change| match change {
            Change::Delete { removed } => Some(removed),
            _ => None,
        });
        Ok(Self {
            index,
            viewer: Viewer::new(index),
            dots: packets.iter().map(|packet| packet.dot).collect(),
            leaving: placed.filter_map(Change::item).collect(),
            returning: removed.flatten().map(|removed| removed.item).collect(),
            revived: HashSet::new(),
            returned: HashSet::new(),
            needs_past: changes().any(|change| matches!(change, Change::Xattr { .. })),
            past: None,
            changes: Vec::new(),
            removed: Vec::new(),
            steps: Vec::new(),
            left: Vec::new(),
        })
    }

    /// Goes through the changes from the last to the first: what was made last is undone before what it was made in.
    fn plan(&mut self, packets: &[Packet]) -> Result<(), SyncError> {
        let changes =
            packets.iter().flat_map(|packet| packet.body.changes.iter().map(move |change| (packet.dot, change)));
        let all: Vec<(Dot, &Change)> = changes.collect();
        self.look_for_what_was_brought_back(&all)?;
        let mut made = Vec::new();
        // Several packets may each have dropped sides of one item.
        let mut brought_back: HashSet<ItemId> = HashSet::new();
        for (dot, change) in all.into_iter().rev() {
            match change {
                Change::Delete { removed } => {
                    for removed in removed {
                        let Some(item) = self.index.item(removed.item)? else { continue };
                        if !brought_back.insert(item.id) {
                            continue;
                        }
                        let undone = self.delete(&item)?;
                        self.take(&item, undone)?;
                    }
                }
                Change::Create { item, .. } => made.extend(self.index.item(*item)?),
                change => {
                    let Some(id) = change.item() else { continue };
                    let Some(item) = self.index.item(id)? else { continue };
                    let undone = match change {
                        Change::Content { .. } if self.revived.contains(&id) => continue,
                        Change::Content { replaces, .. } => self.content(&item, dot, replaces)?,
                        Change::Place { replaces, .. } => self.place(&item, dot, replaces)?,
                        Change::Mode { .. } => self.mode(&item, dot)?,
                        Change::Xattr { name, .. } => self.xattr(&item, dot, name)?,
                        _ => continue,
                    };
                    self.take(&item, undone)?;
                }
            }
        }
        // What is moved out of a new directory must be known before the directory goes.
        for item in made {
            let undone = self.create(&item)?;
            self.take(&item, undone)?;
        }
        self.removed.reverse();
        Ok(())
    }

    /// Tells apart the changes by which an earlier undo brought something back.
    fn look_for_what_was_brought_back(&mut self, changes: &[(Dot, &Change)]) -> Result<(), SyncError> {
        for (dot, change) in changes {
            match change {
                Change::Place { item, replaces, .. } if self.names_a_delete(*item, replaces)? => {
                    self.revived.insert(*item);
                }
                // Only that puts the same bytes in a version's place.
                Change::Content { item, content, replaces, .. } => {
                    if let [before] = replaces[..]
                        && self.index.version(*item, &before)?.is_some_and(|before| before.content.agrees(content))
                    {
                        self.returned.insert((*item, *dot));
                    }
                }
                _ => {}
            }
        }
        Ok(())
    }

    /// Whether a placement took back a delete: it names one beside the placements that it replaced.
    fn names_a_delete(&self, item: ItemId, replaces: &[Dot]) -> Result<bool, SyncError> {
        let history = self.index.history_of(item)?;
        let is_placement =
            |dot: &Dot| history.iter().any(|past| matches!(past, Past::Placed(placed) if placed.stamp.dot() == *dot));
        Ok(!replaces.iter().all(is_placement))
    }

    fn take(&mut self, item: &Item, undone: Undone) -> Result<(), SyncError> {
        match undone {
            Ok((changes, removed, action, path, to)) => {
                self.changes.extend(changes);
                self.removed.extend(removed);
                let cause = "undone".to_owned();
                self.steps.push(PlannedStep { direction: Direction::Up, action, path, to, cause });
            }
            Err(reason) => {
                self.leaving.remove(&item.id);
                let path = self.path(item)?;
                self.left.push((path, reason));
            }
        }
        Ok(())
    }

    fn content(&self, item: &Item, dot: Dot, replaces: &[Dot]) -> Result<Undone, SyncError> {
        if let Some(reason) = self.gone(item)? {
            return Ok(Err(reason));
        }
        let Some(head) = item.heads.iter().find(|head| head.dot == dot) else {
            return Ok(Err(self.since(item.heads.iter().map(|head| head.dot), "changed it since")?));
        };
        if self.returned.contains(&(item.id, dot)) {
            return self.drop_side(item, head);
        }
        let mut before: Vec<Content> = Vec::new();
        for version in replaces {
            let Some(version) = self.index.version(item.id, version)? else { continue };
            if !before.iter().any(|content| content.agrees(&version.content)) {
                before.push(version.content);
            }
        }
        let content = match <[Content; 1]>::try_from(before) {
            Ok([content]) => content,
            Err(several) if several.is_empty() => return Ok(Err("what it held before is not known".to_owned())),
            Err(_) => return Ok(Err("it settled a conflict; `packetboat log` lists the sides".to_owned())),
        };
        let change = Change::Content { item: item.id, content, replaces: vec![dot], trail: item.trail_after(head) };
        Ok(Ok((vec![change], None, Action::Edit, self.path(item)?, None)))
    }

    /// Drops again the side of a conflict that an undo brought back.
    fn drop_side(&self, item: &Item, side: &Head) -> Result<Undone, SyncError> {
        let stays = |head: &Head| head.deletes.is_empty() && !self.returned.contains(&(item.id, head.dot));
        if !item.heads.iter().any(stays) {
            return Ok(Err("what it stood beside is gone".to_owned()));
        }
        let (parent, name) = self.viewer.place_of(item)?;
        let shown = self.viewer.place(parent, &name)?;
        let shown = shown.iter().find(|shown| shown.item == item.id && shown.heads.contains(&side.dot));
        let path = match shown {
            Some(shown) => self.viewer.path_of(shown.parent)?.join(&shown.name),
            None => self.path(item)?,
        };
        let removed = Removed { item: item.id, heads: vec![side.dot], placements: Vec::new() };
        Ok(Ok((Vec::new(), Some(removed), Action::Delete, path, None)))
    }

    fn place(&self, item: &Item, dot: Dot, replaces: &[Dot]) -> Result<Undone, SyncError> {
        if let Some(reason) = self.gone(item)? {
            return Ok(Err(reason));
        }
        let [standing] = &item.placements[..] else {
            return Ok(Err("it was moved on another device at the same time".to_owned()));
        };
        if standing.placed.stamp.dot() != dot {
            return Ok(Err(self.since([standing.placed.stamp.dot()], "moved it since")?));
        }
        if self.revived.contains(&item.id) {
            return self.create(item);
        }
        let before = self.index.history_of(item.id)?.into_iter().filter_map(|past| match past {
            Past::Placed(placed) if replaces.contains(&placed.stamp.dot()) => Some(placed),
            _ => None,
        });
        let Some(to) = before.max_by_key(|placed| placed.stamp) else {
            return Ok(Err("where it was before is not known".to_owned()));
        };
        if let Some(reason) = self.in_the_way(item, &to)? {
            return Ok(Err(reason));
        }
        let target = self.viewer.path_of(to.parent)?.join(&to.name);
        let change = Change::Place { item: item.id, parent: to.parent, name: to.name, replaces: vec![dot] };
        Ok(Ok((vec![change], None, Action::Move, self.path(item)?, Some(target))))
    }

    /// Removes what was made, or brought back; of a directory everything in it must go by this as well.
    fn create(&self, item: &Item) -> Result<Undone, SyncError> {
        if let Some(reason) = self.gone(item)? {
            return Ok(Err(reason));
        }
        let heads: Vec<Dot> = item.heads.iter().map(|head| head.dot).collect();
        let placements: Vec<Dot> = item.placements.iter().map(|standing| standing.placed.stamp.dot()).collect();
        if let Some(other) = placements.iter().find(|dot| !self.dots.contains(dot)) {
            return Ok(Err(self.since([*other], "moved it since")?));
        }
        let live = item.heads.iter().filter(|head| head.deletes.is_empty());
        if let Some(other) = live.map(|head| head.dot).find(|dot| !self.dots.contains(dot)) {
            return Ok(Err(self.since([other], "changed it since")?));
        }
        if item.is_directory() {
            let mut after = None;
            loop {
                let page = self.index.children(item.id, after, PAGE)?;
                let Some((last, _)) = page.last() else { break };
                after = Some(last.clone());
                for (_, child) in page {
                    let Some(child) = self.index.item(child)? else { continue };
                    if !self.leaving.contains(&child.id) && is_shown(self.index, &child)? {
                        return Ok(Err(format!("{} is in it", child.at.name)));
                    }
                }
            }
        }
        let mut sorted = placements;
        sorted.sort_unstable();
        let removed = Removed { item: item.id, heads, placements: sorted };
        Ok(Ok((Vec::new(), Some(removed), Action::Delete, self.path(item)?, None)))
    }

    /// Brings back what was deleted: the whole item where it is dead, else the sides of a conflict that were dropped.
    fn delete(&self, item: &Item) -> Result<Undone, SyncError> {
        let dropped = self.dropped(item);
        let bring_back = |head: &&Head| Change::Content {
            item: item.id,
            content: head.content.clone(),
            replaces: vec![head.dot],
            trail: item.trail_after(head),
        };
        if is_alive(self.index, item)? {
            if dropped.is_empty() || item.heads.iter().all(|head| !head.deletes.is_empty()) {
                return Ok(Err("it is back already".to_owned()));
            }
            let changes = dropped.iter().map(bring_back).collect();
            return Ok(Ok((changes, None, Action::Create, self.path(item)?, None)));
        }
        let to = item.at.clone();
        if let Some(reason) = self.in_the_way(item, &to)? {
            return Ok(Err(reason));
        }
        let standing = item.placements.iter().map(|standing| standing.placed.stamp.dot());
        let replaces: BTreeSet<Dot> = standing.chain(item.deletes.iter().copied()).collect();
        let path = self.path(item)?;
        let replaces = replaces.into_iter().collect();
        let mut changes = vec![Change::Place { item: item.id, parent: to.parent, name: to.name, replaces }];
        // A place alone shows whatever the item held last. Of several sides those that were dropped before stay dropped,
        // and the others must stand for themselves: an edit of one would leave no reason to show the next.
        if item.heads.len() > 1 {
            changes.extend(dropped.iter().map(bring_back));
        }
        Ok(Ok((changes, None, Action::Create, path, None)))
    }

    /// The versions that these packets took away: those that no other delete had taken away before, if there are any.
    fn dropped<'i>(&self, item: &'i Item) -> Vec<&'i Head> {
        let is_of_these = |delete: &Dot| self.dots.contains(delete);
        let (any, all): (Vec<_>, Vec<_>) = item
            .heads
            .iter()
            .filter(|head| head.deletes.iter().any(is_of_these))
            .partition(|head| !head.deletes.iter().all(is_of_these));
        if all.is_empty() { any } else { all }
    }

    fn mode(&self, item: &Item, dot: Dot) -> Result<Undone, SyncError> {
        let standing = item.mode.as_ref().map(|mode| mode.stamp);
        if let Some(reason) = self.gone(item)? {
            return Ok(Err(reason));
        }
        if standing.map(|stamp| stamp.dot()) != Some(dot) {
            return Ok(Err(self.since(standing.map(|stamp| stamp.dot()), "changed its permissions since")?));
        }
        let before = self.index.history_of(item.id)?.into_iter().filter_map(|past| match past {
            Past::Mode(mode) => Some(mode),
            _ => None,
        });
        let Some(before) = before.filter(|mode| Some(mode.stamp) < standing).max_by_key(|mode| mode.stamp) else {
            return Ok(Err("its former permissions are not known".to_owned()));
        };
        let change = Change::Mode { item: item.id, mode: before.value };
        Ok(Ok((vec![change], None, Action::Attributes, self.path(item)?, None)))
    }

    fn xattr(&self, item: &Item, dot: Dot, name: &[u8]) -> Result<Undone, SyncError> {
        if let Some(reason) = self.gone(item)? {
            return Ok(Err(reason));
        }
        let standing = item.xattrs.get(name).map(|value| value.stamp.dot());
        if standing != Some(dot) {
            return Ok(Err(self.since(standing, "changed its attributes since")?));
        }
        let then = self.past.as_ref().map(|past| past.item(item.id)).transpose()?.flatten();
        let value = then.and_then(|then| then.xattrs.get(name).and_then(|before| before.value.clone()));
        let change = Change::Xattr { item: item.id, name: name.to_vec(), value };
        Ok(Ok((vec![change], None, Action::Attributes, self.path(item)?, None)))
    }

    /// Why an item that is not there any more is left.
    fn gone(&self, item: &Item) -> Result<Option<String>, SyncError> {
        if is_alive(self.index, item)? {
            return Ok(None);
        }
        Ok(Some(self.since(item.deletes.iter().copied(), "deleted it since")?))
    }

    /// Why an item cannot go back to a place.
    fn in_the_way(&self, item: &Item, to: &Placed) -> Result<Option<String>, SyncError> {
        let mut above = to.parent;
        for _ in 0..MAX_DEPTH {
            if above == ItemId::ROOT {
                break;
            }
            let Some(directory) = self.index.item(above)? else { break };
            if directory.id == item.id {
                return Ok(Some("it would lie within itself".to_owned()));
            }
            if !self.returning.contains(&above) && !is_shown(self.index, &directory)? {
                return Ok(Some("the directory that it was in is gone".to_owned()));
            }
            above = directory.at.parent;
        }
        for shown in self.viewer.place(to.parent, &to.name)? {
            let goes = shown.item == item.id || self.leaving.contains(&shown.item);
            if !goes {
                return Ok(Some("something else stands there now".to_owned()));
            }
        }
        Ok(None)
    }

    /// Who did what, by the last of these versions.
    fn since(&self, dots: impl IntoIterator<Item = Dot>, what: &str) -> Result<String, SyncError> {
        let others: BTreeMap<bool, Dot> = dots.into_iter().map(|dot| (!self.dots.contains(&dot), dot)).collect();
        Ok(match others.get(&true) {
            Some(dot) => format!("{} {what}", self.index.device_label(&dot.device)?),
            None => format!("somebody {what}"),
        })
    }

    fn path(&self, item: &Item) -> Result<RelPath, SyncError> {
        let (parent, name) = self.viewer.place_of(item)?;
        Ok(self.viewer.path_of(parent)?.join(&name))
    }
}

const PAGE: usize = 256;
/// Changes of one packet.
const MAX_CHANGES: usize = 5_000;
/// Directories above one that are looked at; the tree has no cycle, and this needs no proof of it.
const MAX_DEPTH: usize = 4_096;
