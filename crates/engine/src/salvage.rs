//! Salvage: what only the side of a fork says that is given up is kept, and comes back as files of its own.
//!
//! The disk of whoever wrote it mostly has it and publishes it anew. But that disk may be gone, as where a backup was
//! restored, and what a device folded may not have come to its disk yet. So before packets of that side go, from a place or
//! from an index, they are put aside in the index; once this replica has learned what stays, it brings back each content
//! that they left standing and that the vault does not have: under its name, in its directory where that is there. Where
//! another file stands there, both are shown, as of any two files of one name; where its bytes are the same, one is.
//!
//! A content whose pack is not at this place waits until this replica is where it is.

use std::collections::{BTreeMap, HashMap};

use packetboat_core::change::Change;
use packetboat_core::content::{Content, PackIndex};
use packetboat_core::ids::{ChunkId, Counter, DeviceId, Dot, ItemId, PacketHash};
use packetboat_core::local::LocalRead;
use packetboat_core::name::Name;
use packetboat_core::packet::{MAX_PACKET_BYTES, Packet, SealedPacket};
use packetboat_core::tree::{TreeRead, TreeWrite};
use packetboat_core::wire::{Reader, Writer};
use packetboat_replica::index::{ChunkPlace, Index, PackState};

use crate::builder::{Draft, seal_own};
use crate::carry::is_there;
use crate::error::SyncError;
use crate::ports::{Note, Observer};
use crate::replica::Replica;
use crate::vault::random;

/// A file as packets that are given up left it.
#[derive(Default)]
struct Saved {
    place: Option<(ItemId, Name)>,
    mode: Option<u32>,
    heads: BTreeMap<Dot, Content>,
}

/// Puts packets aside whose contents are to be brought back.
pub(crate) fn put_aside(index: &mut Index, packets: Vec<SealedPacket>) -> Result<(), SyncError> {
    let mut all = kept(index)?;
    let before = all.len();
    for packet in packets {
        all.entry(packet.hash()).or_insert(packet);
    }
    if all.len() > before { keep(index, all.values()) } else { Ok(()) }
}

/// Puts the folded packets aside that say what this disk does not show, of lanes from there on and of whoever built on them.
/// Within the caller's transaction.
pub(crate) fn keep_what_no_disk_shows(
    index: &mut Index,
    ring: &packetboat_core::keys::KeyRing,
    lanes: &BTreeMap<DeviceId, Counter>,
) -> Result<(), SyncError> {
    let packets = not_on_disk(index, ring, lanes)?;
    put_aside(index, packets)
}

fn not_on_disk(
    index: &Index,
    ring: &packetboat_core::keys::KeyRing,
    parted: &BTreeMap<DeviceId, Counter>,
) -> Result<Vec<SealedPacket>, SyncError> {
    let mut found = Vec::new();
    for (device, learned) in index.knowledge().iter() {
        let mut builds_on_it = false;
        for counter in 1..=learned.counter {
            let dot = Dot { device: *device, counter };
            let Some(sealed) = index.sealed_packet(dot)? else { continue };
            let packet = sealed.open(ring)?;
            builds_on_it |= crate::forks::is_parted(parted, &dot)
                || parted.iter().any(|(device, at)| packet.body.prerequisite.counter(device) >= *at);
            if builds_on_it && says_more_than_the_disk(index, &packet)? {
                found.push(sealed);
            }
        }
    }
    Ok(found)
}

fn says_more_than_the_disk(index: &Index, packet: &Packet) -> Result<bool, SyncError> {
    for change in &packet.body.changes {
        let (Change::Create { item, .. } | Change::Content { item, .. }) = change else { continue };
        let stands = index.item(*item)?.is_some_and(|item| item.heads.iter().any(|head| head.dot == packet.dot));
        let on_disk = |entries: Vec<packetboat_core::local::LocalEntry>| {
            entries.iter().any(|entry| entry.seen.heads.contains(&packet.dot))
        };
        if stands && !on_disk(index.entries_of(*item)?) {
            return Ok(true);
        }
    }
    Ok(false)
}

impl Replica {
    /// Brings back what was put aside and the vault does not have.
    pub(crate) fn salvage(&mut self, observer: &mut dyn Observer) -> Result<(), SyncError> {
        if self.parts.index.meta(ASIDE)?.is_none() {
            return Ok(());
        }
        let sealed: Vec<SealedPacket> = kept(&self.parts.index)?.into_values().collect();
        let mut packets = Vec::new();
        for sealed in &sealed {
            packets.push(sealed.open(&self.keys.ring)?);
        }
        packets.sort_by_key(|packet| (packet.body.lamport, packet.dot));
        let inline: HashMap<ChunkId, Vec<u8>> = packets.iter().flat_map(|packet| packet.body.inline.clone()).collect();
        let packs: Vec<PackIndex> = packets.iter().flat_map(|packet| packet.body.packs.clone()).collect();
        let mut left = Vec::new();
        self.parts.index.begin()?;
        for (item, saved) in left_standing(&packets) {
            let there = self.parts.index.item(item)?;
            for (dot, content) in saved.heads {
                let is_there =
                    there.as_ref().is_some_and(|item| item.heads.iter().any(|head| head.content.agrees(&content)));
                if is_there || content.is_directory() {
                    continue;
                }
                let Some(draft) = self.draft(&content, &inline, &packs)? else {
                    left.extend(sealed.iter().find(|sealed| sealed.dot() == dot).cloned());
                    continue;
                };
                let (parent, name) = match (&saved.place, &there) {
                    (Some(place), _) => place.clone(),
                    (None, Some(item)) => (item.at.parent, item.at.name.clone()),
                    (None, None) => (ItemId::ROOT, Name::new(&b"salvaged"[..]).expect("a sound name")),
                };
                let lies_there = self.parts.index.item(parent)?.is_some_and(|item| item.is_directory());
                let parent = if lies_there { parent } else { ItemId::ROOT };
                observer.note(Note::Warning {
                    text: format!("{name} is kept: a device had published it where it does not count any more"),
                });
                self.bring_back(draft, parent, name, content, saved.mode)?;
            }
        }
        match left.is_empty() {
            true => self.parts.index.set_meta(ASIDE, None)?,
            false => keep(&mut self.parts.index, left.iter())?,
        }
        Ok(self.parts.index.commit()?)
    }

    /// What a packet takes along that brings a content back; nothing where its bytes cannot be had here.
    fn draft(
        &self,
        content: &Content,
        inline: &HashMap<ChunkId, Vec<u8>>,
        packs: &[PackIndex],
    ) -> Result<Option<Draft>, SyncError> {
        let (index, store) = (&self.parts.index, &*self.parts.store);
        let mut draft = Draft::default();
        let Content::File(file) = content else { return Ok(Some(draft)) };
        for chunk in file.chunks.first() {
            if let Some(plain) = inline.get(&chunk.id) {
                if draft.inline.iter().all(|(id, _)| *id != chunk.id) {
                    draft.inline.push((chunk.id, plain.clone()));
                }
                continue;
            }
            match index.chunk_place(&chunk.id)? {
                Some(ChunkPlace::Packet { .. }) => continue,
                Some(ChunkPlace::Pack { pack, .. })
                    if index.pack_row(&pack)?.is_some_and(|row| row.state == PackState::Stored) =>
                {
                    draft.needs.push(pack);
                    continue;
                }
                _ => {}
            }
            let holds = |pack: &&PackIndex| pack.chunks.iter().any(|packed| packed.id == chunk.id);
            match packs.iter().find(holds) {
                Some(pack) if is_there(store, &pack.pack)? => {
                    if draft.packs.iter().all(|told| told.pack != pack.pack) {
                        draft.packs.push(pack.clone());
                    }
                }
                _ => return Ok(None),
            }
        }
        draft.needs.sort_unstable();
        draft.needs.dedup();
        Ok(Some(draft))
    }

    fn bring_back(
        &mut self,
        mut draft: Draft,
        parent: ItemId,
        name: Name,
        content: Content,
        mode: Option<u32>,
    ) -> Result<(), SyncError> {
        let item = ItemId(random(&mut *self.parts.entropy));
        let mode = matches!(content, Content::File(_)).then(|| mode.unwrap_or(0o644));
        draft.changes = vec![Change::Create { item, parent, name, content, mode, xattrs: Vec::new() }];
        let parts = &mut self.parts;
        seal_own(&mut parts.index, &self.keys, parts.clock.now_ms(), draft, &mut *parts.entropy)?;
        Ok(parts.index.touch(item)?)
    }
}

/// What stands of these packets, in the order of their times, where nothing else is known.
fn left_standing(packets: &[Packet]) -> BTreeMap<ItemId, Saved> {
    let mut all: BTreeMap<ItemId, Saved> = BTreeMap::new();
    for packet in packets {
        for change in &packet.body.changes {
            match change {
                Change::Create { item, parent, name, content, mode, .. } => {
                    let saved = all.entry(*item).or_default();
                    (saved.place, saved.mode) = (Some((*parent, name.clone())), *mode);
                    saved.heads.insert(packet.dot, content.clone());
                }
                Change::Content { item, content, replaces, .. } => {
                    let saved = all.entry(*item).or_default();
                    replaces.iter().for_each(|dot| drop(saved.heads.remove(dot)));
                    saved.heads.insert(packet.dot, content.clone());
                }
                Change::Place { item, parent, name, .. } => {
                    all.entry(*item).or_default().place = Some((*parent, name.clone()));
                }
                Change::Delete { removed } => {
                    for removed in removed {
                        let saved = all.entry(removed.item).or_default();
                        removed.heads.iter().for_each(|dot| drop(saved.heads.remove(dot)));
                    }
                }
                _ => {}
            }
        }
    }
    all
}

fn kept(index: &Index) -> Result<BTreeMap<PacketHash, SealedPacket>, SyncError> {
    let bytes = index.meta(ASIDE)?.unwrap_or_default();
    let mut input = Reader::new(&bytes);
    let mut packets = BTreeMap::new();
    while input.remaining() > 0 {
        let sealed = input.bytes(MAX_PACKET_BYTES).ok().and_then(|bytes| SealedPacket::from_bytes(bytes.to_vec()).ok());
        let sealed = sealed.ok_or(SyncError::DamagedIndex { what: "what was put aside" })?;
        packets.insert(sealed.hash(), sealed);
    }
    Ok(packets)
}

fn keep<'p>(index: &mut Index, packets: impl Iterator<Item = &'p SealedPacket>) -> Result<(), SyncError> {
    let mut out = Writer::new();
    for packet in packets {
        out.bytes(packet.bytes());
    }
    Ok(index.set_meta(ASIDE, Some(&out.finish()))?)
}

/// Where the index keeps packets that were given up and say something that the vault may not have: each with its length.
const ASIDE: &str = "put aside";
