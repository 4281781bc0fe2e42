//! Repair: what is missing or damaged at the intermediary is put there again by any replica that still has it, unasked.
//!
//! A round looks at what this device and others want ([`crate::wants`]) before it brings anything to disk, because the
//! old content of a file that is about to be replaced may be the last there is. Each object is looked at first, and
//! nobody's word is taken for its damage:
//!
//! - a *packet* is put again as it was sealed, with whatever else the lanes lack, where the index keeps it;
//! - the chunks of a *pack* cannot be sealed the same again, so those that lie nowhere else are read from this disk
//!   ([`disk`]), from packets or from packs that nothing tells of any more ([`forgotten`]), stored in a new pack, and
//!   told in a packet without changes: whoever folds it reads them there, and a damaged pack of which every chunk lies
//!   elsewhere is missed by nobody;
//! - in the place of a *checkpoint* another is written.
//!
//! Where the intermediary shows an older state of a lane, or had lost packets, its listings are looked at for the packs, too.
//!
//! What cannot be put back stays wanted. Nothing here is done at a poll that learns nothing.

pub(crate) mod disk;
pub(crate) mod forgotten;

use std::collections::{BTreeMap, BTreeSet};

use packetboat_core::checkpoint::CheckpointRef;
use packetboat_core::content::PackIndex;
use packetboat_core::ids::{ChunkId, Counter, DeviceId, Dot, PackId};
use packetboat_core::packet::{MAX_PACKET_BYTES, SealedPacket};
use packetboat_core::store::{Store, StoreError};
use packetboat_core::tip::Tip;
use packetboat_core::wanted::Wanted;
use packetboat_replica::fs::Fs;
use packetboat_replica::index::{ChunkPlace, Index, PackState};
use packetboat_storage::chunk::{ChunkCodec, seal_known_chunk};
use packetboat_storage::pack::{self, Depth, MAX_PACK_BYTES, PackWriter, verify_pack};

use crate::Keys;
use crate::builder::{Draft, seal_own};
use crate::checkpoints;
use crate::error::{QueryError, SyncError};
use crate::garbage;
use crate::learn::problems::is_needless;
use crate::learn::{packet_name, packets_present};
use crate::places;
use crate::ports::{Entropy, Observer};
use crate::prune::present::sizes;
use crate::replica::{RepairReport, Replica, SyncOptions};
use crate::telling::tell_all_but_the_last;
use crate::wants;

/// What was put at the intermediary again.
#[derive(Clone, Copy, Default, PartialEq, Eq, Debug)]
pub struct Repaired {
    /// Packets, as they were.
    pub packets: u64,
    /// Chunks of content, in new packs.
    pub chunks: u64,
    /// Checkpoints, by newer ones.
    pub checkpoints: u64,
}

impl Repaired {
    /// Whether nothing was.
    pub fn is_empty(&self) -> bool {
        *self == Self::default()
    }
}

impl Replica {
    /// Puts back what is wanted and this replica has; `moved` says whether others have published since the last round,
    /// so that what this device wants may be there again, and `went_back` whether the intermediary shows an older state.
    pub(crate) fn mend(
        &mut self,
        moved: bool,
        went_back: bool,
        observer: &mut dyn Observer,
    ) -> Result<Repaired, SyncError> {
        let parts = &mut self.parts;
        let now_ms = parts.clock.now_ms();
        let mut own = wants::own(&parts.index)?;
        let mut asked = wants::asked(&parts.index)?;
        let mut looked_at = wants::looked_at(&parts.index, now_ms)?;
        if places::has_just_come(&parts.index)? {
            // What was looked at here in vain may have come to this device elsewhere.
            asked.extend(std::mem::take(&mut looked_at).into_keys());
            places::look_about(&mut parts.index)?;
        }
        if own.is_empty() && asked.is_empty() && !went_back {
            return Ok(Repaired::default());
        }
        let mut todo: BTreeSet<Wanted> = asked.difference(&own).copied().collect();
        todo.retain(|object| !looked_at.contains_key(object));
        todo.extend(own.iter().filter(|object| moved || !looked_at.contains_key(object)));
        let (mut mender, fs) = self.mender(observer)?;
        let mut outcome = BTreeMap::new();
        let mut packs = BTreeSet::new();
        for object in todo {
            match object {
                Wanted::Packet(dot) => drop(outcome.insert(object, mender.packet(dot)?)),
                Wanted::Checkpoint(checkpoint) => drop(outcome.insert(object, mender.checkpoint(&checkpoint)?)),
                Wanted::Pack(pack) => drop(packs.insert(pack)),
            }
        }
        if went_back || mender.repaired.packets > 0 {
            // What tells of a pack is put back without anybody asking for the pack.
            let absent = mender.absent_packs()?;
            own.extend(absent.iter().copied().map(Wanted::Pack));
            packs.extend(absent);
        }
        mender.packs(packs, fs, &mut outcome)?;
        let repaired = mender.repaired;
        for (object, outcome) in outcome {
            match outcome {
                Outcome::There => {
                    own.remove(&object);
                    looked_at.remove(&object);
                }
                // A place that leads nowhere in a sound object is looked at once a day, not in each round.
                Outcome::Sound => {
                    own.remove(&object);
                    looked_at.insert(object, now_ms);
                }
                Outcome::Elsewhere => drop(looked_at.insert(object, now_ms)),
            }
        }
        let index = &mut self.parts.index;
        index.begin()?;
        wants::set_own(index, &own)?;
        wants::set_looked_at(index, &looked_at)?;
        wants::clear_asked(index)?;
        index.commit()?;
        Ok(repaired)
    }
}

impl Replica {
    fn mender<'a>(&'a mut self, observer: &'a mut dyn Observer) -> Result<(Mender<'a>, &'a dyn Fs), SyncError> {
        let parts = &mut self.parts;
        let published = (self.keys.device.device(), parts.index.published(&parts.place)?);
        let mender = Mender {
            now_ms: parts.clock.now_ms(),
            index: &mut parts.index,
            store: &*parts.store,
            keys: &self.keys,
            entropy: &mut *parts.entropy,
            observer,
            repaired: Repaired::default(),
            published,
            lanes_whole: false,
        };
        Ok((mender, &*parts.fs))
    }

    /// Stores what these packs hold and nothing else at this place, as far as this disk and the packets kept here have it:
    /// the packs themselves lie elsewhere. What cannot be found is asked for by whoever needs it.
    ///
    /// Unless `insist`, what was looked for at this place in vain, and nothing else, is not looked for again: that reads the
    /// whole index.
    pub(crate) fn store_elsewhere(
        &mut self,
        packs: &BTreeSet<PackId>,
        insist: bool,
        observer: &mut dyn Observer,
    ) -> Result<(), SyncError> {
        let in_vain = self.parts.index.meta(IN_VAIN)?.unwrap_or_default();
        let (mut mender, fs) = self.mender(observer)?;
        mender.index.begin()?;
        for pack in packs {
            mender.index.set_pack_state(pack, PackState::Damaged)?;
        }
        mender.index.commit()?;
        let (mut looked_for, mut now_in_vain) = (in_vain.chunks_exact(blake3::OUT_LEN), Vec::new());
        let mut look_for = |mender: &mut Mender<'_>, mut lost: BTreeSet<ChunkId>| -> Result<(), SyncError> {
            if insist || looked_for.next() != Some(digest(&lost).as_bytes()) {
                let found = mender.store_again(&lost, fs)?;
                lost.retain(|chunk| !found.contains(chunk));
            }
            now_in_vain.extend(digest(&lost).as_bytes());
            Ok(())
        };
        let mut lost = BTreeSet::new();
        for pack in packs {
            for chunk in mender.index.pack_index(pack)?.map(|pack| pack.chunks).unwrap_or_default() {
                // Others rely on the pack although the chunk lies inside a packet, too: a checkpoint of theirs says so.
                if !mender.has_other_pack(&chunk.id)? {
                    lost.insert(chunk.id);
                }
            }
            if lost.len() > MAX_LOST_CHUNKS {
                look_for(&mut mender, std::mem::take(&mut lost))?;
            }
        }
        look_for(&mut mender, lost)?;
        Ok(self.parts.index.set_meta(IN_VAIN, Some(&now_in_vain))?)
    }

    /// Looks for damage, puts back what this device can, and asks others for the rest, in one round.
    ///
    /// What was looked at in vain lately is looked at again: somebody asks.
    pub fn repair(&mut self, deep: bool, observer: &mut dyn Observer) -> Result<RepairReport, QueryError> {
        wants::set_looked_at(&mut self.parts.index, &BTreeMap::new())?;
        self.look_at_marker()?;
        let found = self.verify(deep, observer)?;
        let own_tip = Tip::name(&self.keys.device.device());
        if found.faults.iter().any(|fault| fault.object == own_tip.as_str()) {
            self.publish(true)?;
        }
        let round = self.sync(SyncOptions::default(), observer)?;
        let left = if found.faults.is_empty() { Vec::new() } else { self.verify(deep, observer)?.faults };
        Ok(RepairReport { found, round, left })
    }
}

/// What became of a wanted object.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
enum Outcome {
    /// It is there again, by this device or another.
    There,
    /// Nothing is wrong with it.
    Sound,
    /// This device does not have it.
    Elsewhere,
}

struct Mender<'a> {
    index: &'a mut Index,
    store: &'a dyn Store,
    keys: &'a Keys,
    now_ms: i64,
    entropy: &'a mut dyn Entropy,
    observer: &'a mut dyn Observer,
    repaired: Repaired,
    /// This device, and how far its lane was published: what comes after is no loss.
    published: (DeviceId, Counter),
    /// Whether the lanes were put in order in this round.
    lanes_whole: bool,
}

impl Mender<'_> {
    /// Puts a packet back, and with it whatever else the lanes lack: a storage that lost one has often lost more.
    fn packet(&mut self, dot: Dot) -> Result<Outcome, SyncError> {
        let Some(sealed) = self.index.sealed_packet(dot)? else {
            // A packet that was never folded here is still wanted by this device itself; one that was and is not kept
            // may be whole.
            let Some(row) = self.index.packet_row(dot)? else {
                let (members, garbage) = (crate::members::load(self.index)?, crate::garbage::load(self.index)?);
                let is_needless = is_needless(self.index, &members, garbage.ended(), &dot)?;
                return Ok(if is_needless { Outcome::Sound } else { Outcome::Elsewhere });
            };
            let same = self.standing(dot)?.is_some_and(|standing| standing.hash() == row.hash);
            return Ok(if same { Outcome::Sound } else { Outcome::Elsewhere });
        };
        let outcome = match self.put_back(&sealed)? {
            true => Outcome::There,
            false => Outcome::Sound,
        };
        self.lanes()?;
        Ok(outcome)
    }

    /// What lies in a packet's place, if it is a packet of that dot.
    fn standing(&self, dot: Dot) -> Result<Option<SealedPacket>, SyncError> {
        let bytes = match self.store.get(&packet_name(&dot), MAX_PACKET_BYTES as u64) {
            Ok(bytes) => bytes,
            Err(StoreError::Missing { .. } | StoreError::TooLarge { .. } | StoreError::Short { .. }) => {
                return Ok(None);
            }
            Err(error) => return Err(error.into()),
        };
        let standing = SealedPacket::from_bytes(bytes).ok();
        Ok(standing.filter(|standing| standing.dot() == dot && standing.open(&self.keys.ring).is_ok()))
    }

    /// Puts a packet in its place unless a sound one is there: another of the same dot is a fork and no damage.
    fn put_back(&mut self, sealed: &SealedPacket) -> Result<bool, SyncError> {
        if self.standing(sealed.dot())?.is_some() {
            return Ok(false);
        }
        self.store.put(&packet_name(&sealed.dot()), sealed.bytes())?;
        self.repaired.packets += 1;
        self.observer.advance(1, sealed.bytes().len() as u64);
        Ok(true)
    }

    /// Puts back what the lanes lack by their listings.
    fn lanes(&mut self) -> Result<(), SyncError> {
        if std::mem::replace(&mut self.lanes_whole, true) {
            return Ok(());
        }
        let lanes: Vec<DeviceId> = self.index.knowledge().iter().map(|(device, _)| *device).collect();
        lanes.into_iter().try_for_each(|device| self.lane(device))
    }

    fn lane(&mut self, device: DeviceId) -> Result<(), SyncError> {
        let present = packets_present(self.store, &device)?;
        let (own, published) = self.published;
        let known = self.index.knowledge().counter(&device);
        for counter in 1..=if device == own { published } else { known } {
            let dot = Dot { device, counter };
            if !present.contains(&packet_name(&dot))
                && let Some(sealed) = self.index.sealed_packet(dot)?
            {
                self.put_back(&sealed)?;
            }
            self.go_on()?;
        }
        Ok(())
    }

    fn checkpoint(&mut self, checkpoint: &CheckpointRef) -> Result<Outcome, SyncError> {
        if checkpoints::is_readable(self.store, self.keys, checkpoint)? {
            return Ok(Outcome::Sound);
        }
        // Whoever knows of nobody knows nothing of what another's checkpoint said.
        let (own, _) = self.published;
        if checkpoint.device != own && !self.index.knowledge().tells_of_others(&own) {
            return Ok(Outcome::Elsewhere);
        }
        // Whoever asks finds by a tip what there is instead.
        places::owe_a_tip(self.index)?;
        // Others are shown the one held, wherever its author is: a storage that lost one has often lost more.
        let other = checkpoints::newest(self.index)?.filter(|held| held != checkpoint);
        let is_whole = match other {
            Some(held) => checkpoints::is_readable(self.store, self.keys, &held)?,
            None => false,
        };
        if !is_whole {
            // A segment of the one that is damaged may be damaged too: nothing of it is relied on.
            checkpoints::write_anew(self.index, self.store, self.keys, self.entropy, self.observer)?;
            self.repaired.checkpoints += 1;
        }
        Ok(Outcome::There)
    }

    /// The packs on which this replica relies and that are not listed whole.
    fn absent_packs(&self) -> Result<BTreeSet<PackId>, SyncError> {
        let mut relied_on = BTreeMap::new();
        self.index.each_pack(|row| {
            if row.state == PackState::Stored {
                relied_on.insert(row.pack, u64::from(row.size));
            }
        })?;
        let there = sizes(self.store, relied_on.keys())?;
        Ok(relied_on.into_iter().filter(|(pack, size)| there.get(pack) != Some(size)).map(|(pack, _)| pack).collect())
    }

    /// Puts back what is lost of these packs.
    fn packs(
        &mut self,
        packs: BTreeSet<PackId>,
        fs: &dyn Fs,
        outcome: &mut BTreeMap<Wanted, Outcome>,
    ) -> Result<(), SyncError> {
        let mut damaged: Vec<(PackId, BTreeSet<ChunkId>)> = Vec::new();
        for id in packs {
            self.go_on()?;
            match self.unreadable(&id)? {
                None => drop(outcome.insert(Wanted::Pack(id), Outcome::Elsewhere)),
                Some(chunks) if chunks.is_empty() => {
                    garbage::note_sound(self.index, [&id])?;
                    outcome.insert(Wanted::Pack(id), Outcome::Sound);
                }
                Some(chunks) => {
                    self.index.set_pack_state(&id, PackState::Damaged)?;
                    damaged.push((id, chunks));
                    if damaged.iter().map(|(_, chunks)| chunks.len()).sum::<usize>() > MAX_LOST_CHUNKS {
                        // The rest stays wanted for the next round.
                        break;
                    }
                }
            }
        }
        // Only now it is known of all of them that they are damaged, so that none stands in for another.
        let mut lost = BTreeSet::new();
        for (_, chunks) in &mut damaged {
            let mut missing = BTreeSet::new();
            for chunk in std::mem::take(chunks) {
                if !self.has_other_pack(&chunk)? {
                    missing.insert(chunk);
                }
            }
            lost.extend(&missing);
            *chunks = missing;
        }
        let found = self.store_again(&lost, fs)?;
        for (pack, chunks) in damaged {
            let there = chunks.is_subset(&found);
            outcome.insert(Wanted::Pack(pack), if there { Outcome::There } else { Outcome::Elsewhere });
        }
        Ok(())
    }

    /// The chunks that cannot be read from a pack where it should lie; nothing where this replica does not know it.
    fn unreadable(&self, id: &PackId) -> Result<Option<BTreeSet<ChunkId>>, SyncError> {
        let Some(index) = self.index.pack_index(id)? else { return Ok(None) };
        let all = || index.chunks.iter().map(|chunk| chunk.id).collect();
        let bytes = match self.store.get(&pack::object_name(id), u64::from(MAX_PACK_BYTES)) {
            Ok(bytes) => bytes,
            Err(StoreError::Missing { .. } | StoreError::TooLarge { .. } | StoreError::Short { .. }) => {
                return Ok(Some(all()));
            }
            Err(error) => return Err(error.into()),
        };
        Ok(Some(match verify_pack(&self.keys.ring, id, &bytes, Depth::Chunks) {
            Ok(verified) if verified.index == index => verified.damaged.iter().map(|(chunk, _)| chunk.id).collect(),
            // By its hash it is whole, and whoever announced it said something else of it: no other pack mends that.
            Ok(verified) if verified.damaged.is_empty() => BTreeSet::new(),
            _ => all(),
        }))
    }

    fn has_other_pack(&self, chunk: &ChunkId) -> Result<bool, SyncError> {
        for place in self.index.chunk_places(chunk)? {
            if let ChunkPlace::Pack { pack, .. } = place
                && self.index.pack_row(&pack)?.is_some_and(|row| row.state == PackState::Stored)
            {
                return Ok(true);
            }
        }
        Ok(false)
    }

    /// Stores what is lost and can be found here in new packs, and tells of them; answers with what was found.
    fn store_again(&mut self, lost: &BTreeSet<ChunkId>, fs: &dyn Fs) -> Result<BTreeSet<ChunkId>, SyncError> {
        if lost.is_empty() {
            return Ok(BTreeSet::new());
        }
        let mut salvage = Salvage {
            lost: lost.clone(),
            found: BTreeSet::new(),
            pack: PackWriter::new(self.keys.ring.vault(), self.keys.ring.current()),
            packs: Vec::new(),
            codec: ChunkCodec::new(),
            store: self.store,
            keys: self.keys,
            entropy: self.entropy,
        };
        salvage.search_packets(self.index)?;
        disk::search(fs, self.index, &mut salvage, self.observer)?;
        if !salvage.lost.is_empty() {
            forgotten::search(self.index, &mut salvage)?;
        }
        let (packs, found) = salvage.finish()?;
        if !packs.is_empty() {
            self.repaired.chunks += found.len() as u64;
            self.index.begin()?;
            for pack in &packs {
                self.index.put_pack(pack, PackState::Stored)?;
            }
            let packs = tell_all_but_the_last(self.index, self.keys, self.now_ms, packs, self.entropy)?;
            let draft = Draft { packs, ..Draft::default() };
            seal_own(self.index, self.keys, self.now_ms, draft, self.entropy)?;
            self.index.commit()?;
        }
        Ok(found)
    }

    fn go_on(&self) -> Result<(), SyncError> {
        if self.observer.interrupted() { Err(SyncError::Interrupted) } else { Ok(()) }
    }
}

/// Takes lost chunks where they are found, and stores them.
struct Salvage<'a> {
    lost: BTreeSet<ChunkId>,
    found: BTreeSet<ChunkId>,
    pack: PackWriter,
    packs: Vec<PackIndex>,
    codec: ChunkCodec,
    store: &'a dyn Store,
    keys: &'a Keys,
    entropy: &'a mut dyn Entropy,
}

impl Salvage<'_> {
    /// Whether any of these is still looked for.
    fn wants<'c>(&self, mut chunks: impl Iterator<Item = &'c ChunkId>) -> bool {
        chunks.any(|chunk| self.lost.contains(chunk))
    }

    /// Takes what may be a lost chunk; its bytes say which it is.
    fn take(&mut self, plain: &[u8]) -> Result<(), SyncError> {
        let id = self.keys.ring.chunk_id(plain);
        if !self.lost.remove(&id) {
            return Ok(());
        }
        let sealed = seal_known_chunk(&self.keys.ring, &mut self.codec, id, plain, self.entropy.nonce())
            .expect("a chunk that was stored once is of a sound length");
        self.pack.push(&sealed)?;
        self.found.insert(id);
        if self.pack.is_full() { self.put() } else { Ok(()) }
    }

    /// A checkpoint stores again in packs what lies inside packets; here the packets may still be kept.
    fn search_packets(&mut self, index: &Index) -> Result<(), SyncError> {
        let mut by_packet: BTreeMap<Dot, BTreeSet<ChunkId>> = BTreeMap::new();
        for chunk in &self.lost {
            for place in index.chunk_places(chunk)? {
                if let ChunkPlace::Packet { dot } = place {
                    by_packet.entry(dot).or_default().insert(*chunk);
                }
            }
        }
        for (dot, chunks) in by_packet {
            let sealed = index.sealed_packet(dot)?;
            let Some(packet) = sealed.and_then(|sealed| sealed.open(&self.keys.ring).ok()) else { continue };
            for (id, plain) in &packet.body.inline {
                if chunks.contains(id) {
                    self.take(plain)?;
                }
            }
        }
        Ok(())
    }

    fn put(&mut self) -> Result<(), SyncError> {
        let next = PackWriter::new(self.keys.ring.vault(), self.keys.ring.current());
        let full = std::mem::replace(&mut self.pack, next);
        let (index, bytes) = full.finish(&self.keys.ring, self.entropy.nonce())?;
        self.store.put_new(&pack::object_name(&index.pack), &bytes)?;
        self.packs.push(index);
        Ok(())
    }

    fn finish(mut self) -> Result<(Vec<PackIndex>, BTreeSet<ChunkId>), SyncError> {
        if !self.pack.is_empty() {
            self.put()?;
        }
        Ok((self.packs, self.found))
    }
}

/// Which chunks these are.
fn digest(chunks: &BTreeSet<ChunkId>) -> blake3::Hash {
    let mut hasher = blake3::Hasher::new();
    for chunk in chunks {
        hasher.update(chunk.as_bytes());
    }
    hasher.finalize()
}

/// Where the index keeps what was looked for at the present place in vain: a hash of 32 bytes for each
/// [`MAX_LOST_CHUNKS`].
pub(crate) const IN_VAIN: &str = "chunks in vain";
/// Lost chunks that are looked for in one round: their ids are in memory.
const MAX_LOST_CHUNKS: usize = 200_000;
