//! History: who did what and when, what a file held at a time, and which packet a name means.
//!
//! All of it is read from the index; only contents, and packets whose bytes the index has let go, are read from the
//! intermediary. A log of a path follows its item across renames. A path at which nothing stands now is looked for among
//! the places where items once stood.

use std::collections::BTreeMap;
use std::io::Write;

use packetboat_core::change::Change;
use packetboat_core::content::Content;
use packetboat_core::ids::{DeviceId, Dot, ItemId, Lamport, Stamp};
use packetboat_core::item::{Head, Item, Placed};
use packetboat_core::members::Members;
use packetboat_core::name::RelPath;
use packetboat_core::tree::{Past, Summary, TreeRead, is_shown};
use packetboat_core::view::{Shown, ViewRead, Viewer};
use packetboat_replica::index::{Index, PacketRow};

use crate::content_reader::{ContentReader, ReadError};
use crate::error::{Deletion, QueryError, SyncError};
use crate::members;
use crate::past::index_at;
use crate::replica::{At, LogLine, Replica};

impl Replica {
    /// What was done, newest first, at most `limit` lines: by packet, or to what stands or once stood at a path.
    ///
    /// Of a directory it tells what happened to the directory itself.
    pub fn log(&mut self, path: Option<&RelPath>, limit: usize) -> Result<Vec<LogLine>, QueryError> {
        let index = &self.parts.index;
        let names = members::load(index)?;
        let Some(path) = path.filter(|path| !path.is_root()) else { return self.log_of_packets(&names, limit) };
        let items = items_at(index, path)?;
        if items.is_empty() {
            return Err(QueryError::NotFound { path: path.clone() });
        }
        let viewer = Viewer::new(index);
        let mut events = Vec::new();
        for item in items {
            if let Some(item) = index.item(item)? {
                events.extend(events_of(&viewer, &item)?);
            }
        }
        events.sort_by_key(|event| std::cmp::Reverse((event.lamport, event.dot)));
        events.truncate(limit);
        let line = |event: Event| -> Result<LogLine, QueryError> {
            Ok(LogLine {
                packet: event.dot,
                device: device_name(index, &names, &event.dot.device)?,
                time: event.time,
                text: event.texts.join(", "),
                path: event.path,
                size: event.size,
                current: event.current,
            })
        };
        events.into_iter().map(line).collect()
    }

    /// Whether older history than a log shows was let go.
    pub fn was_history_let_go(&self) -> Result<bool, SyncError> {
        Ok(!crate::garbage::load(&self.parts.index)?.horizon().is_empty())
    }

    fn log_of_packets(&self, names: &Members, limit: usize) -> Result<Vec<LogLine>, QueryError> {
        let index = &self.parts.index;
        let mut lines = Vec::new();
        for row in index.recent_packets(limit, None)? {
            let folded = row.folded.as_ref();
            let mut text = folded.map_or_else(String::new, |folded| in_words(&folded.summary));
            if text.is_empty() {
                text = self.about_the_vault(names, &row)?;
            }
            lines.push(LogLine {
                packet: row.dot,
                device: device_name(index, names, &row.dot.device)?,
                time: folded.map(|folded| folded.time),
                text,
                path: None,
                size: None,
                current: false,
            });
        }
        Ok(lines)
    }

    /// What a packet without changes of files says, where its bytes are still here.
    fn about_the_vault(&self, names: &Members, row: &PacketRow) -> Result<String, QueryError> {
        let sealed = self.parts.index.sealed_packet(row.dot)?;
        let Some(packet) = sealed.and_then(|sealed| sealed.open(&self.keys.ring).ok()) else {
            return Ok("nothing about files".to_owned());
        };
        let mut texts = Vec::new();
        for change in &packet.body.changes {
            let of = |device| device_name(&self.parts.index, names, device);
            texts.push(match change {
                Change::Introduce { name, continues: None, .. } => format!("{name} joined"),
                Change::Introduce { name, .. } => format!("{name} went on as a new device"),
                Change::RenameDevice { name, .. } => format!("is called {name} now"),
                Change::Revoke { device, .. } => format!("revoked {}", of(device)?),
                Change::Retire { device, .. } => format!("retired {}", of(device)?),
                Change::Condemn { packs, history } if history.is_empty() && packs.len() == 1 => {
                    "let 1 pack go".to_owned()
                }
                Change::Condemn { packs, history } if history.is_empty() => format!("let {} packs go", packs.len()),
                Change::Condemn { .. } => "let old history go".to_owned(),
                Change::Retain { retention } => format!("keeps {}", crate::garbage::in_words(*retention)),
                _ => continue,
            });
        }
        Ok(if texts.is_empty() { "nothing new".to_owned() } else { texts.join(", ") })
    }

    /// Writes what a file holds, or held at a time: a file's bytes, a symlink's target.
    ///
    /// The path is the one of that time; where nothing stood there then, it is that of what stands there now.
    pub fn show(&mut self, path: &RelPath, at: Option<&At>, out: &mut dyn Write) -> Result<(), QueryError> {
        let index = &self.parts.index;
        let shown = match at {
            None => match Viewer::new(index).at_path(path)? {
                Some(shown) => shown,
                None => return Err(self.why_not_there(path)?),
            },
            Some(at) => {
                let past = index_at(index, &*self.parts.store, &self.keys, at)?;
                shown_then(&past, index, path)?
            }
        };
        let mut reader = ContentReader::new(index, &*self.parts.store, &self.keys.ring, self.parts.settings.threads);
        match &shown.content {
            Content::Directory => Err(QueryError::IsDirectory { path: path.clone() }),
            Content::Symlink(target) => out.write_all(target).map_err(QueryError::Output),
            Content::File(file) => reader.read(file, out).map_err(|error| match error {
                ReadError::Missing(reason) => QueryError::ContentMissing { path: path.clone(), reason },
                ReadError::Output(error) => QueryError::Output(error),
                ReadError::Sync(error) => error.into(),
            }),
        }
    }

    /// Why nothing stands at a path now: it was deleted, it has another place, or it never was.
    fn why_not_there(&self, path: &RelPath) -> Result<QueryError, QueryError> {
        let index = &self.parts.index;
        let viewer = Viewer::new(index);
        let mut deleted = None;
        for id in items_at(index, path)? {
            let Some(item) = index.item(id)? else { continue };
            if let Some(shown) = viewer.shown_for(&item)? {
                let now = viewer.path_of(shown.parent)?.join(&shown.name);
                return Ok(QueryError::ElsewhereNow { path: path.clone(), now });
            }
            // An item beneath a directory that was deleted need not be named itself.
            let events = events_of(&viewer, &item)?;
            let last = events.iter().rev().find(|event| event.size.is_some());
            let delete = events.last().filter(|event| event.texts.iter().any(|text| text == DELETED));
            let found = (
                delete.map(|event| (event.lamport, event.dot)),
                delete.and_then(|event| event.time),
                last.map(|event| (event.dot, id)),
            );
            deleted = deleted.max(Some(found));
        }
        let Some((delete, time, last)) = deleted else { return Ok(QueryError::NotFound { path: path.clone() }) };
        let names = members::load(index)?;
        let by = delete.map(|(_, dot)| device_name(index, &names, &dot.device)).transpose()?;
        let last = last.and_then(|(packet, item)| Some((self.path_then(packet, item)?, packet)));
        Ok(QueryError::Deleted(Box::new(Deletion { path: path.clone(), by, time, last })))
    }

    /// Where an item stood as of a packet, by the names of that time; nothing where that cannot be told now.
    fn path_then(&self, packet: Dot, item: ItemId) -> Option<RelPath> {
        let past = index_at(&self.parts.index, &*self.parts.store, &self.keys, &At::Packet(packet)).ok()?;
        let then = Viewer::new(&past);
        let shown = then.shown_for(&past.item(item).ok()??).ok()??;
        Some(then.path_of(shown.parent).ok()?.join(&shown.name))
    }

    /// The packet that a text names: `laptop:12`, `3fa01c22:12` (the beginning of the device's id),
    /// or at least four digits of the beginning of the packet's hash.
    pub fn packet_named(&self, text: &str) -> Result<Dot, QueryError> {
        let index = &self.parts.index;
        let mut found: Vec<Dot> = match text.rsplit_once(':') {
            Some((device, counter)) => {
                let Ok(counter) = counter.parse() else { return Err(none_called(text)) };
                let names = members::load(index)?;
                let mut devices = Vec::new();
                for (id, learned) in index.knowledge().iter() {
                    let by_id = device.len() >= LEAST_DIGITS && id.to_string().starts_with(device);
                    let called = names.name(id) == Some(device) || index.device_label(id)? == device;
                    if (by_id || called) && (1..=learned.counter).contains(&counter) {
                        devices.push(Dot { device: *id, counter });
                    }
                }
                // Of two devices of which one had this name only once, it is the other's.
                let called_now: Vec<Dot> =
                    devices.iter().copied().filter(|dot| names.name(&dot.device) == Some(device)).collect();
                if called_now.is_empty() { devices } else { called_now }
            }
            None if text.len() >= LEAST_DIGITS => {
                index.packet_by_prefix(text, 2)?.into_iter().map(|row| row.dot).collect()
            }
            None => Vec::new(),
        };
        match (found.pop(), found.is_empty()) {
            (None, _) => Err(none_called(text)),
            (Some(dot), true) => Ok(dot),
            (Some(_), false) => Err(QueryError::SeveralPackets { text: text.to_owned() }),
        }
    }
}

fn none_called(text: &str) -> QueryError {
    QueryError::NoSuchPacket { text: text.to_owned() }
}

/// What stood at a path in the past, or what stands there now as it was then.
pub(crate) fn shown_then(past: &Index, present: &Index, path: &RelPath) -> Result<Shown, QueryError> {
    let then = Viewer::new(past);
    if let Some(shown) = then.at_path(path)? {
        return Ok(shown);
    }
    let now = Viewer::new(present).at_path(path)?;
    if let Some(now) = now
        && let Some(item) = past.item(now.item)?
        && let Some(shown) = then.shown_for(&item)?
    {
        return Ok(shown);
    }
    let path = path.clone();
    Err(if items_at(present, &path)?.is_empty() { QueryError::NotFound { path } } else { QueryError::NotThen { path } })
}

/// What people call a device now.
fn device_name(index: &Index, names: &Members, device: &DeviceId) -> Result<String, QueryError> {
    match names.name(device) {
        Some(name) => Ok(name.to_owned()),
        None => Ok(index.device_label(device)?),
    }
}

/// The items seen at a path now; where there are none, those that once stood there.
fn items_at(index: &Index, path: &RelPath) -> Result<Vec<ItemId>, QueryError> {
    if let Some(shown) = Viewer::new(index).at_path(path)? {
        let twins = shown.twins.iter().map(|twin| twin.item);
        return Ok([shown.item].into_iter().chain(twins).collect());
    }
    // Name by name from the root: whatever has, or once had, that name in what has, or once had, the path so far.
    let mut here = vec![ItemId::ROOT];
    for name in path.names() {
        let mut next = Vec::new();
        for directory in &here {
            next.extend(index.named(*directory, &name)?);
        }
        let once = index.once_named(&name)?;
        next.extend(once.into_iter().filter(|(_, placed)| here.contains(&placed.parent)).map(|(item, _)| item));
        next.sort_unstable();
        next.dedup();
        here = next;
    }
    here.retain(|item| *item != ItemId::ROOT);
    Ok(here)
}

/// What one packet did to one item.
struct Event {
    dot: Dot,
    lamport: Lamport,
    /// None where the packet was let go, and nothing that it left tells.
    time: Option<i64>,
    texts: Vec<String>,
    path: Option<RelPath>,
    size: Option<u64>,
    current: bool,
}

/// Everything that is known to have happened to an item, in the total order.
fn events_of(viewer: &Viewer<'_, Index>, item: &Item) -> Result<Vec<Event>, SyncError> {
    let index = viewer.tree();
    let (mut heads, mut places, mut modes) = (item.heads.clone(), Vec::new(), Vec::new());
    for past in index.history_of(item.id)? {
        match past {
            Past::Content(head) => heads.push(head),
            Past::Placed(placed) => places.push(placed),
            Past::Mode(mode) => modes.push(mode),
        }
    }
    places.extend(item.placements.iter().map(|placement| placement.placed.clone()));
    modes.extend(item.mode.clone());
    heads.sort_by_key(|head| (head.lamport, head.dot));
    places.sort_by_key(|placed: &Placed| placed.stamp);
    modes.sort_by_key(|mode| mode.stamp);
    let created = places.first().map(|placed| placed.stamp.dot());
    let mut events = Events { index, of: BTreeMap::new() };
    for (at, placed) in places.iter().enumerate() {
        let dot = placed.stamp.dot();
        let is_recorded = index.packet_row(dot)?.is_some();
        let head_of_creation = heads.iter().any(|head| head.dot == dot);
        let event = events.at(&placed.stamp)?;
        match at.checked_sub(1).map(|before| &places[before]) {
            // What was replaced before history begins is not known any more, so neither is whether it was made so.
            None if is_recorded || head_of_creation => event.texts.push("created".to_owned()),
            None => event.texts.push("stood here already".to_owned()),
            // As a delete that is taken back.
            Some(before) if before.parent == placed.parent && before.name == placed.name => {
                event.texts.push("brought back".to_owned());
            }
            Some(before) => {
                let how = if before.parent == placed.parent { "renamed" } else { "moved" };
                let from = viewer.path_of(before.parent)?.join(&before.name);
                event.texts.push(format!("{how} from {from}"));
            }
        }
    }
    let stands = is_shown(index, item)?;
    for head in &heads {
        let event = events.of_head(head)?;
        if Some(head.dot) != created {
            event.texts.push("changed".to_owned());
        }
        event.size = match &head.content {
            Content::File(file) => Some(file.size),
            Content::Symlink(target) => Some(target.len() as u64),
            Content::Directory => None,
        };
        event.current = stands && item.heads.iter().any(|known| known.dot == head.dot && known.deletes.is_empty());
    }
    let mut before = None;
    for mode in &modes {
        // Where what came before was let go, it may be what it was made with.
        let is_change = before.is_some() || index.packet_row(mode.stamp.dot())?.is_some();
        if Some(mode.stamp.dot()) != created && is_change {
            let text = match before {
                Some(before) => format!("permissions {before:03o} -> {:03o}", mode.value),
                None => format!("permissions {:03o}", mode.value),
            };
            events.at(&mode.stamp)?.texts.push(text);
        }
        before = Some(mode.value);
    }
    for (name, register) in item.xattrs.iter().filter(|(_, register)| Some(register.stamp.dot()) != created) {
        let done = if register.value.is_some() { "set" } else { "removed" };
        let text = format!("extended attribute {} {done}", String::from_utf8_lossy(name).escape_debug());
        events.at(&register.stamp)?.texts.push(text);
    }
    for delete in &item.deletes {
        events.of_delete(delete)?.texts.push(DELETED.to_owned());
    }
    let mut places = places.iter().peekable();
    let mut path = None;
    let mut all = Vec::new();
    for ((lamport, _), mut event) in events.of {
        while let Some(placed) = places.next_if(|placed| placed.stamp.lamport <= lamport) {
            path = Some(viewer.path_of(placed.parent)?.join(&placed.name));
        }
        event.path = path.clone();
        all.push(event);
    }
    Ok(all)
}

/// An item's events, by packet.
struct Events<'a> {
    index: &'a Index,
    of: BTreeMap<(Lamport, Dot), Event>,
}

impl Events<'_> {
    fn at(&mut self, stamp: &Stamp) -> Result<&mut Event, SyncError> {
        self.event(stamp.dot(), stamp.lamport, None)
    }

    fn of_head(&mut self, head: &Head) -> Result<&mut Event, SyncError> {
        self.event(head.dot, head.lamport, Some(head.time.saturating_mul(1000)))
    }

    /// A delete does not carry its Lamport time; where its packet is not recorded, it is taken to be the latest.
    fn of_delete(&mut self, dot: &Dot) -> Result<&mut Event, SyncError> {
        let folded = self.index.packet_row(*dot)?.and_then(|row| row.folded);
        self.event(*dot, folded.map_or(Lamport::MAX, |folded| folded.lamport), None)
    }

    fn event(&mut self, dot: Dot, lamport: Lamport, time: Option<i64>) -> Result<&mut Event, SyncError> {
        let folded = self.index.packet_row(dot)?.and_then(|row| row.folded);
        let time = folded.map(|folded| folded.time).or(time);
        let new = || Event { dot, lamport, time, texts: Vec::new(), path: None, size: None, current: false };
        let event = self.of.entry((lamport, dot)).or_insert_with(new);
        event.time = event.time.or(time);
        Ok(event)
    }
}

/// Counts of changes in words; empty for none.
fn in_words(summary: &Summary) -> String {
    let counts = [
        (summary.created, "new"),
        (summary.edited, "changed"),
        (summary.moved, "moved"),
        (summary.deleted, "deleted"),
        (summary.attributes, "with other attributes"),
    ];
    let texts: Vec<String> =
        counts.iter().filter(|(count, _)| *count > 0).map(|(count, what)| format!("{count} {what}")).collect();
    texts.join(", ")
}

const DELETED: &str = "deleted";
/// Fewer digits of an id name nothing.
const LEAST_DIGITS: usize = 4;
