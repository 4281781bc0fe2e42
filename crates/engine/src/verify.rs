//! Verifying: is everything that this replica knows of at the intermediary, and is it what it should be?
//!
//! The marker, the tips, every packet of every lane and the checkpoints are read and proven; packs are looked for by name
//! and size, and with `deep` each is read and every chunk in it opened. What nobody refers to is told and is no fault.
//! A fault names the paths that need the object now, the past versions that do, and who can put it back; all that is found
//! in one pass over the items at the end. What can be asked of others is noted ([`crate::wants`]).
//!
//! What others published is learned first, so that nothing counts as strange only because it is new.
//! One object is in memory at a time, with the listing of its folder; what grows is only what is wrong.

use std::collections::{BTreeMap, BTreeSet, HashSet};
use std::ops::ControlFlow;

use packetboat_core::checkpoint::{
    CHECKPOINTS_FOLDER, CheckpointRef, MAX_CHECKPOINT_BYTES, SegmentChunk, SegmentRef, SegmentStart,
    UnverifiedCheckpoint, decode_packs,
};
use packetboat_core::content::{PackIndex, PackedChunk};
use packetboat_core::ids::{ChunkId, DeviceId, Dot, PackId, PacketHash};
use packetboat_core::knowledge::{Knowledge, Learned};
use packetboat_core::marker::{MAX_MARKER_BYTES, Marker, MarkerStanding};
use packetboat_core::members::Standing;
use packetboat_core::packet::{MAX_PACKET_BYTES, SealedPacket};
use packetboat_core::store::{Listed, ObjectName, StoreError};
use packetboat_core::tip::{MAX_TIP_BYTES, TIPS_FOLDER, Tip, UnverifiedTip};
use packetboat_core::wanted::Wanted;
use packetboat_replica::index::{self, PackRow, PackState};
use packetboat_storage::fetch::{ChunkPlace, fetch_chunks};
use packetboat_storage::pack::{self, Depth, MAX_PACK_BYTES, verify_pack};

use crate::error::{QueryError, SyncError, chain};
use crate::learn::{packet_name, packets_present};
use crate::ports::{Observer, Phase};
use crate::replica::{Fault, Remedy, Replica, VerifyReport};
use crate::vault::marker_name;
use consequences::Needs;

mod consequences;

impl Replica {
    /// Looks whether the intermediary holds all that this replica knows of; with `deep`, reads all content as well.
    pub fn verify(&mut self, deep: bool, observer: &mut dyn Observer) -> Result<VerifyReport, QueryError> {
        observer.phase(Phase::Learn, None, None);
        let learned = self.learn(observer)?;
        // Whoever was revoked has not the keys to tell what is damaged, and can put nothing back.
        self.refuse_if_removed(&learned)?;
        let has_several_places = crate::places::are_several(&self.parts.index)?;
        let mut verifier = Verifier {
            replica: self,
            observer,
            deep,
            report: VerifyReport { has_several_places, ..VerifyReport::default() },
            needs: Needs::default(),
            checkpoint_packs: BTreeMap::new(),
            pack_segments: BTreeMap::new(),
            replaced: BTreeSet::new(),
        };
        verifier.marker()?;
        verifier.tips()?;
        verifier.lanes()?;
        verifier.checkpoints()?;
        verifier.packs()?;
        verifier.pass_over_what_was_replaced()?;
        verifier.find_paths()?;
        verifier.find_remedies()?;
        verifier.pass_over_what_was_let_go()?;
        verifier.pass_over_superseded_checkpoints()?;
        let (report, replaced) = (verifier.report, verifier.replaced);
        let wanted = report.faults.iter().filter_map(|fault| fault.wanted).collect();
        self.note_damage(&wanted)?;
        for pack in replaced {
            // Nobody is asked for it, and nothing is let go because it holds the same.
            self.parts.index.set_pack_state(&pack, PackState::Damaged)?;
        }
        Ok(report)
    }
}

struct Verifier<'a> {
    replica: &'a Replica,
    observer: &'a mut dyn Observer,
    deep: bool,
    report: VerifyReport,
    needs: Needs,
    /// Packs that are damaged or missing, and whose every chunk lies in another.
    replaced: BTreeSet<PackId>,
    /// Packs that checkpoints refer to, and how long they must be at least.
    checkpoint_packs: BTreeMap<PackId, u64>,
    /// Of each device's newest checkpoint the number, the segments that tell of packs, and what it contains.
    pack_segments: BTreeMap<DeviceId, (u64, Vec<SegmentRef>, Knowledge)>,
}

/// An object that was read, or what is wrong with it.
type Read<T> = Result<Result<T, String>, SyncError>;

impl Verifier<'_> {
    fn marker(&mut self) -> Result<(), SyncError> {
        let name = marker_name();
        let vault = self.replica.vault();
        let marker = self.object(&name, MAX_MARKER_BYTES as u64)?;
        let wrong = match marker.and_then(|bytes| Marker::decode(&bytes).map_err(|error| chain(&error))) {
            Ok(marker) if marker.vault() == vault => match marker.compare(&self.replica.keys.ring) {
                MarkerStanding::Older => "it is from before a device was revoked".to_owned(),
                MarkerStanding::Unknown => "no member sealed it, or one that is not known yet".to_owned(),
                MarkerStanding::Same | MarkerStanding::Lacks | MarkerStanding::Gives => return Ok(()),
            },
            Ok(_) => "it is the marker of another vault".to_owned(),
            Err(reason) => reason,
        };
        self.fault(&name, wrong);
        Ok(())
    }

    fn tips(&mut self) -> Result<(), SyncError> {
        let replica = self.replica;
        let index = &replica.parts.index;
        let listed = replica.parts.store.list(TIPS_FOLDER)?;
        let seen_here = index.tip_etags(&replica.parts.place)?;
        let members = crate::members::load(index)?;
        let mut found = HashSet::new();
        for Listed { name, .. } in listed {
            let Some(device) = Tip::device_of(&name) else {
                self.orphan(&name);
                continue;
            };
            let Some(learned) = index.knowledge().of(&device) else {
                // A device of which nothing could be folded yet is one all the same, if its tip is sound.
                if self.tip(&name, &device)?.is_err() {
                    self.orphan(&name);
                }
                continue;
            };
            found.insert(device);
            let tip = self.tip(&name, &device)?;
            let tip = match tip {
                Ok(tip) => tip,
                // Who was removed writes no other, and what its lane holds is found without it.
                Err(_) if members.standing(&device) != Standing::Active => {
                    self.orphan(&name);
                    continue;
                }
                Err(reason) => {
                    self.fault(&name, reason);
                    continue;
                }
            };
            let went_back = match seen_here.get(&device) {
                // This device's own tip may not tell yet of what it is about to publish.
                _ if device == replica.keys.device.device() => {
                    tip.last.map_or(0, |last| last.counter) < index.published(&replica.parts.place)?
                }
                // More may have been learned of it than its tip at this place says, if others brought its packets.
                Some((_, sequence)) => tip.sequence < *sequence,
                None => false,
            };
            if let Some(reason) = contradiction(tip.last, learned, went_back) {
                self.fault(&name, reason.to_owned());
            }
        }
        // Whoever comes back does so under another key, and takes its tip away where nobody is to look for more. And a device
        // that never comes to this place has none here.
        let active = index.knowledge().iter().filter(|(device, _)| members.standing(device) == Standing::Active);
        for (device, _) in active {
            let own = *device == replica.keys.device.device();
            let unpublished = own && index.published(&replica.parts.place)? == 0;
            // Where its former self forked, both sides may have gone on under other keys.
            let has_gone_on = crate::learn::problems::has_gone_on(&members, device);
            if seen_here.contains_key(device) && !found.contains(device) && !unpublished && !has_gone_on {
                self.fault(&Tip::name(device), MISSING.to_owned());
            }
        }
        Ok(())
    }

    fn tip(&mut self, name: &ObjectName, device: &DeviceId) -> Read<Tip> {
        let bytes = match self.object(name, MAX_TIP_BYTES as u64)? {
            Ok(bytes) => bytes,
            Err(reason) => return Ok(Err(reason)),
        };
        let tip = UnverifiedTip::parse(bytes)
            .and_then(|tip| tip.verify(device))
            .and_then(|tip| tip.open(&self.replica.keys.ring))
            .map_err(|error| chain(&error));
        let Ok(tip) = tip else { return Ok(tip) };
        for bytes in &tip.recent {
            let sealed = SealedPacket::from_bytes(bytes.clone()).map_err(|error| chain(&error));
            let row = match sealed {
                Ok(sealed) => self.replica.parts.index.packet_row(sealed.dot())?.map(|row| (row.hash, sealed.hash())),
                Err(reason) => return Ok(Err(format!("a packet in it is damaged: {reason}"))),
            };
            if row.is_some_and(|(known, found)| known != found) {
                return Ok(Err("it holds another packet than the one that was learned".to_owned()));
            }
        }
        Ok(Ok(tip))
    }

    fn lanes(&mut self) -> Result<(), SyncError> {
        let replica = self.replica;
        let index = &replica.parts.index;
        let lanes: Vec<(DeviceId, Learned)> = index.knowledge().iter().map(|(id, learned)| (*id, *learned)).collect();
        // What lies before the beginning of history is condemned, or deleted already.
        let begins = crate::garbage::load(index)?.horizon().clone();
        for (device, learned) in lanes {
            let present = packets_present(&*replica.parts.store, &device)?;
            let own = device == replica.keys.device.device();
            let last = if own { index.published(&replica.parts.place)? } else { learned.counter };
            let mut known = HashSet::new();
            let mut previous = Some(PacketHash([0; 32]));
            for counter in 1..=learned.counter {
                let dot = Dot { device, counter };
                let name = packet_name(&dot);
                // Before the checkpoint that this replica began from, packets may have been let go.
                let row = index.packet_row(dot)?;
                let begins_here = counter > begins.counter(&device) && (row.is_some() || counter == learned.counter);
                let hash = row.map(|row| row.hash).or((counter == learned.counter).then_some(learned.hash));
                if !begins_here || counter > last {
                    previous = hash;
                    known.insert(name);
                    continue;
                }
                let wrong = if present.contains(&name) {
                    self.packet(&name, dot, hash, previous)?.err()
                } else {
                    Some(MISSING.to_owned())
                };
                if let Some(reason) = wrong {
                    let fault = self.fault(&name, reason);
                    self.report.faults[fault].wanted = Some(Wanted::Packet(dot));
                    self.needs.versions.entry(dot).or_default().push(fault);
                    self.needs_inline(dot, fault)?;
                }
                previous = hash;
                known.insert(name);
            }
            let strange: BTreeSet<&ObjectName> = present.difference(&known).collect();
            for name in strange {
                self.orphan(name);
            }
        }
        Ok(())
    }

    fn packet(
        &mut self,
        name: &ObjectName,
        dot: Dot,
        hash: Option<PacketHash>,
        previous: Option<PacketHash>,
    ) -> Read<()> {
        let bytes = match self.object(name, MAX_PACKET_BYTES as u64)? {
            Ok(bytes) => bytes,
            Err(reason) => return Ok(Err(reason)),
        };
        let sealed = match SealedPacket::from_bytes(bytes) {
            Ok(sealed) => sealed,
            Err(error) => return Ok(Err(chain(&error))),
        };
        if sealed.dot() != dot || hash.is_some_and(|hash| hash != sealed.hash()) {
            return Ok(Err("another packet than the one that was learned lies there".to_owned()));
        }
        if previous.is_some_and(|previous| previous != sealed.previous()) {
            return Ok(Err("it does not follow the packet before it".to_owned()));
        }
        Ok(sealed.open(&self.replica.keys.ring).map(|_| ()).map_err(|error| chain(&error)))
    }

    /// The small contents that a packet carries lie nowhere else at the intermediary.
    fn needs_inline(&mut self, dot: Dot, fault: usize) -> Result<(), SyncError> {
        let sealed = self.replica.parts.index.sealed_packet(dot)?;
        if let Some(packet) = sealed.and_then(|sealed| sealed.open(&self.replica.keys.ring).ok()) {
            for (id, _) in packet.body.inline {
                self.needs.chunks.entry(id).or_default().push(fault);
            }
        }
        Ok(())
    }

    fn checkpoints(&mut self) -> Result<(), SyncError> {
        let replica = self.replica;
        let listed = replica.parts.store.list(CHECKPOINTS_FOLDER)?;
        let expected = crate::checkpoints::newest(&replica.parts.index)?;
        let members = crate::members::load(&replica.parts.index)?;
        // Whoever began anew has taken its own away.
        let is_member =
            |device: &DeviceId| members.get(device).is_some() && matches!(members.standing(device), Standing::Active);
        let missing = expected.filter(|expected| {
            is_member(&expected.device) && listed.iter().all(|listed| listed.name != expected.name())
        });
        // Another that contains as much stands in its place: it was let go.
        let held = crate::checkpoints::held::knowledge(&replica.parts.index)?;
        let mut is_superseded = false;
        for Listed { name, .. } in listed {
            let Some(checkpoint) = CheckpointRef::from_name(&name) else {
                self.orphan(&name);
                continue;
            };
            if members.standing(&checkpoint.device).is_revoked() {
                // Nobody begins from it, whatever it says.
                self.orphan(&name);
                continue;
            }
            let root = self.object(&name, MAX_CHECKPOINT_BYTES as u64)?.and_then(|bytes| {
                UnverifiedCheckpoint::parse(bytes)
                    .and_then(|root| root.verify(&checkpoint.device))
                    .and_then(|root| root.open(&replica.keys.ring))
                    .map_err(|error| chain(&error))
            });
            match root {
                Ok(root) if root.number == checkpoint.number => {
                    is_superseded |= root.knowledge.includes(&held);
                    if let Some(reason) = self.false_claim(&root.knowledge)? {
                        self.fault(&name, reason);
                    }
                    for place in root.segments.iter().flat_map(|segment| &segment.chunks) {
                        let end = u64::from(place.offset) + u64::from(place.sealed_len);
                        let least = self.checkpoint_packs.entry(place.pack).or_default();
                        *least = end.max(*least);
                    }
                    let newest = self.pack_segments.entry(checkpoint.device).or_default();
                    if newest.0 < root.number {
                        let mut segments = root.segments;
                        segments.retain(|segment| matches!(segment.start, SegmentStart::Packs(_)));
                        *newest = (root.number, segments, root.knowledge);
                    }
                }
                Ok(_) => {
                    self.fault(&name, "another checkpoint lies there".to_owned());
                }
                Err(reason) => {
                    self.fault(&name, reason);
                }
            }
        }
        if let Some(missing) = missing.filter(|_| !is_superseded) {
            self.fault(&missing.name(), MISSING.to_owned());
        }
        Ok(())
    }

    /// What a checkpoint claims to contain and the packets that were folded here contradict.
    ///
    /// A device that begins from it believes it; this one has what it can be compared with.
    fn false_claim(&self, claimed: &Knowledge) -> Result<Option<String>, SyncError> {
        let index = &self.replica.parts.index;
        for (device, learned) in claimed.iter() {
            let dot = Dot { device: *device, counter: learned.counter };
            let known = match index.knowledge().of(device) {
                Some(last) if last.counter == learned.counter => Some(last.hash),
                Some(last) if last.counter > learned.counter => index.packet_row(dot)?.map(|row| row.hash),
                _ => return Ok(Some(format!("it says that it contains packet {dot}, which no lane here holds"))),
            };
            // Packets from before the checkpoint that this replica began from are not known one by one.
            if known.is_some_and(|hash| hash != learned.hash) {
                return Ok(Some(format!(
                    "it says that it contains another packet {dot} than the one that was learned"
                )));
            }
        }
        Ok(None)
    }

    fn packs(&mut self) -> Result<(), SyncError> {
        let replica = self.replica;
        let index = &replica.parts.index;
        let mut known: Vec<PackRow> = index.packs(None, PAGE)?;
        known.reverse();
        let mut unknown = BTreeMap::new();
        let mut of_checkpoints = std::mem::take(&mut self.checkpoint_packs);
        for prefix in 0..=u8::MAX {
            let listed = replica.parts.store.list(&format!("packs/{prefix:02x}"))?;
            let mut present: BTreeMap<ObjectName, u64> =
                listed.into_iter().map(|listed| (listed.name, listed.size)).collect();
            while let Some(row) = known.last().copied().filter(|row| row.pack.0[0] == prefix) {
                known.pop();
                if known.is_empty() {
                    known = index.packs(Some(&row.pack), PAGE)?;
                    known.reverse();
                }
                let size = present.remove(&pack::object_name(&row.pack));
                of_checkpoints.remove(&row.pack);
                if row.state != PackState::Condemned {
                    self.pack(&row, size)?;
                }
            }
            for (name, size) in present {
                let Some(pack) = pack::pack_named(&name) else {
                    self.orphan(&name);
                    continue;
                };
                match of_checkpoints.remove(&pack) {
                    Some(least) if size < least => {
                        self.report.objects += 1;
                        self.fault(&name, format!("it has {size} bytes in place of at least {least}"));
                    }
                    Some(_) => self.pack_bytes(&pack)?,
                    None => drop(unknown.insert(pack, size)),
                }
            }
        }
        for pack in of_checkpoints.into_keys() {
            self.fault(&pack::object_name(&pack), MISSING.to_owned());
        }
        if self.deep || !unknown.is_empty() {
            self.packs_that_checkpoints_tell_of(&mut unknown)?;
        }
        for pack in unknown.into_keys() {
            self.orphan(&pack::object_name(&pack));
        }
        Ok(())
    }

    /// A checkpoint may store anew what lies inside packets; of such packs only those know that began from it.
    fn packs_that_checkpoints_tell_of(&mut self, unknown: &mut BTreeMap<PackId, u64>) -> Result<(), SyncError> {
        let mut seen = HashSet::new();
        for (device, (number, segments, covered)) in std::mem::take(&mut self.pack_segments) {
            for segment in segments {
                let packs = match self.pack_segment(&segment) {
                    Ok(packs) => packs,
                    Err(reason) => {
                        let name = CheckpointRef { device, number }.name();
                        self.fault(&name, format!("a part of it cannot be read: {reason}"));
                        continue;
                    }
                };
                for PackIndex { pack, size, chunks, .. } in packs {
                    if self.replica.parts.index.pack_row(&pack)?.is_some() || !seen.insert(pack) {
                        continue;
                    }
                    let wrong = match unknown.remove(&pack) {
                        // It was let go since, unless something is needed of it that lies inside packets which whoever
                        // begins from the checkpoint does not fold.
                        None => {
                            let needed = self.inside_packets(&chunks, &covered)?;
                            if !needed.is_empty() {
                                self.report.objects += 1;
                                let fault = self.fault(&pack::object_name(&pack), MISSING.to_owned());
                                self.needs.of_checkpoints.insert(pack);
                                for chunk in needed {
                                    self.needs.chunks.entry(chunk).or_default().push(fault);
                                }
                            }
                            continue;
                        }
                        Some(found) if found != u64::from(size) => format!("it has {found} bytes in place of {size}"),
                        Some(_) => {
                            self.pack_bytes(&pack)?;
                            continue;
                        }
                    };
                    self.report.objects += 1;
                    self.fault(&pack::object_name(&pack), wrong);
                }
            }
        }
        Ok(())
    }

    /// The chunks of these that are known to lie inside packets up to a point.
    fn inside_packets(&self, chunks: &[PackedChunk], covered: &Knowledge) -> Result<Vec<ChunkId>, SyncError> {
        let mut inside = Vec::new();
        for chunk in chunks {
            if let Some(index::ChunkPlace::Packet { dot, .. }) = self.replica.parts.index.chunk_place(&chunk.id)?
                && covered.contains(&dot)
            {
                inside.push(chunk.id);
            }
        }
        Ok(inside)
    }

    fn pack_segment(&self, segment: &SegmentRef) -> Result<Vec<PackIndex>, String> {
        let chunks = segment.chunks.iter();
        let wanted: Vec<_> = chunks
            .map(|SegmentChunk { chunk, pack, epoch, offset, sealed_len }| {
                (*chunk, ChunkPlace { pack: *pack, epoch: *epoch, offset: *offset, sealed_len: *sealed_len })
            })
            .collect();
        let mut plain = vec![Vec::new(); wanted.len()];
        let parts = &self.replica.parts;
        let read =
            fetch_chunks(&*parts.store, &self.replica.keys.ring, &wanted, parts.settings.threads, |at, bytes| {
                match bytes {
                    Ok(bytes) => {
                        plain[at] = bytes;
                        ControlFlow::Continue(())
                    }
                    Err(error) => ControlFlow::Break(chain(&error)),
                }
            });
        match read {
            ControlFlow::Continue(()) => decode_packs(&plain.concat()).map_err(|error| chain(&error)),
            ControlFlow::Break(reason) => Err(reason),
        }
    }

    fn pack(&mut self, row: &PackRow, size: Option<u64>) -> Result<(), SyncError> {
        let name = pack::object_name(&row.pack);
        let wrong = match size {
            None if row.state == PackState::Pending => return Ok(()),
            None => MISSING.to_owned(),
            Some(size) if size != u64::from(row.size) => format!("it has {size} bytes in place of {}", row.size),
            Some(_) => return self.pack_bytes(&row.pack),
        };
        self.report.objects += 1;
        let fault = self.fault(&name, wrong);
        self.needs_pack(&row.pack, fault)
    }

    /// Reads a pack that is there, where everything is to be read.
    fn pack_bytes(&mut self, pack: &PackId) -> Result<(), SyncError> {
        let name = pack::object_name(pack);
        if !self.deep {
            self.report.objects += 1;
            return self.go_on(0);
        }
        let bytes = match self.object(&name, u64::from(MAX_PACK_BYTES))? {
            Ok(bytes) => bytes,
            Err(reason) => {
                let fault = self.fault(&name, reason);
                return self.needs_pack(pack, fault);
            }
        };
        match verify_pack(&self.replica.keys.ring, pack, &bytes, Depth::Chunks) {
            Ok(verified) if verified.damaged.is_empty() => {
                let recorded = self.replica.parts.index.pack_index(pack)?;
                if recorded.is_some_and(|recorded| recorded != verified.index) {
                    let fault = self.fault(&name, "it holds other chunks than its packet said".to_owned());
                    self.needs_pack(pack, fault)?;
                }
            }
            Ok(verified) => {
                let (damaged, all) = (&verified.damaged, verified.index.chunks.len());
                let reason = format!("{} of its {all} chunks are damaged: {}", damaged.len(), chain(&damaged[0].1));
                let fault = self.fault(&name, reason);
                for (chunk, _) in damaged {
                    self.needs.chunks.entry(chunk.id).or_default().push(fault);
                }
            }
            Err(error) => {
                let fault = self.fault(&name, chain(&error));
                self.needs_pack(pack, fault)?;
            }
        }
        Ok(())
    }

    fn needs_pack(&mut self, pack: &PackId, fault: usize) -> Result<(), SyncError> {
        let index = self.replica.parts.index.pack_index(pack)?;
        for chunk in index.into_iter().flat_map(|index| index.chunks) {
            self.needs.chunks.entry(chunk.id).or_default().push(fault);
        }
        Ok(())
    }

    /// Reads an object; one that is not there or too long is a fault, a storage that fails is an error.
    fn object(&mut self, name: &ObjectName, limit: u64) -> Read<Vec<u8>> {
        let read = match self.replica.parts.store.get(name, limit) {
            Ok(bytes) => Ok(bytes),
            Err(StoreError::Missing { .. }) => Err(MISSING.to_owned()),
            Err(error @ (StoreError::TooLarge { .. } | StoreError::Short { .. })) => Err(chain(&error)),
            Err(error) => return Err(error.into()),
        };
        let bytes = read.as_ref().map_or(0, |bytes| bytes.len() as u64);
        self.report.objects += 1;
        self.report.bytes += bytes;
        self.go_on(bytes)?;
        Ok(read)
    }

    fn go_on(&mut self, bytes: u64) -> Result<(), SyncError> {
        self.observer.advance(1, bytes);
        if self.observer.interrupted() { Err(SyncError::Interrupted) } else { Ok(()) }
    }

    fn fault(&mut self, name: &ObjectName, reason: String) -> usize {
        let wanted = wanted_named(name);
        let (object, paths, versions) = (name.to_string(), Vec::new(), Vec::new());
        self.report.faults.push(Fault { object, what: reason, paths, versions, remedy: Remedy::Lost, wanted });
        self.report.faults.len() - 1
    }

    fn orphan(&mut self, name: &ObjectName) {
        self.report.orphans.push(name.to_string());
    }
}

/// What a tip says of its lane that cannot be, given what was learned of it, and whether it went back behind one that was seen.
fn contradiction(last: Option<Learned>, learned: Learned, went_back: bool) -> Option<&'static str> {
    if went_back {
        return Some("it is older than what was learned: it went back");
    }
    let other = last.is_some_and(|last| last.counter == learned.counter && last.hash != learned.hash);
    other.then_some("it names another packet than the one that was learned")
}

/// What a device can ask for in the place of an object.
fn wanted_named(name: &ObjectName) -> Option<Wanted> {
    let checkpoint = CheckpointRef::from_name(name).map(Wanted::Checkpoint);
    checkpoint.or_else(|| pack::pack_named(name).map(Wanted::Pack))
}

const MISSING: &str = "it is missing";
const PAGE: usize = 256;
