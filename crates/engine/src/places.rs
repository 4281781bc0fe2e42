//! The places at which a replica finds its vault: mostly one, sometimes several, such as a stick and its copy.
//!
//! Much of what an index notes is about one place: which tip was written there, what is missing there, which checkpoint
//! lies there. Such notes stand under plain keys for the place at which the replica is now. When it comes to another place
//! they are put aside under that place's name, and those of the other are taken up ([`arrive`]); so no other part of the
//! engine need know that there are several, and a replica that only ever has one pays nothing.
//!
//! With the second place begins a record of what each place *holds*: packets that were read from it, put there, or that a
//! tip there tells of. A tip may tell of them only after they were put, so what one tells of is there. The record is a
//! lower bound; an entry counts only while its hash is the one that this replica has folded, since of a fork each place may
//! hold another side.

use std::collections::BTreeSet;

use packetboat_core::ids::{Counter, DeviceId, Dot, PackId, PacketHash};
use packetboat_core::knowledge::{Knowledge, Learned};
use packetboat_core::wire::{Reader, Writer};
use packetboat_replica::index::{Index, IndexError, PackState};

use crate::checkpoints::{self, held};
use crate::error::SyncError;
use crate::{epochs, forks, garbage, learn, needed, publish, refusals, repair, wants};

/// Takes up the notes of a place, and puts aside those of the one where the replica was before.
///
/// What was stored at that one and never told of is not relied on any more: this place does not have it.
pub(crate) fn arrive(index: &mut Index, own: DeviceId, place: &str) -> Result<(), SyncError> {
    let mut places = all(index)?;
    if places.first().is_some_and(|present| present == place) {
        return Ok(());
    }
    index.begin()?;
    if let Some(before) = places.first().cloned() {
        leave(index, own, &before)?;
        take_up(index, place)?;
    }
    let is_known = places.iter().any(|known| known == place);
    places.retain(|known| known != place);
    places.insert(0, place.to_owned());
    index.set_meta(PLACES, Some(&places.join("\0").into_bytes()))?;
    if is_known && has_lacked(index)? {
        // Whoever comes back after another place lacked something goes to both: this one has not become the other.
        note_lack(index)?;
    }
    Ok(index.commit()?)
}

/// The places at which this replica was, the present one first.
pub(crate) fn all(index: &Index) -> Result<Vec<String>, IndexError> {
    let Some(bytes) = index.meta(PLACES)? else { return Ok(Vec::new()) };
    Ok(String::from_utf8_lossy(&bytes).split('\0').map(str::to_owned).collect())
}

/// Whether this replica was ever at another place than this.
pub(crate) fn are_several(index: &Index) -> Result<bool, IndexError> {
    Ok(all(index)?.len() > 1)
}

/// What the present place is known to hold; nothing is recorded while there is only one.
pub(crate) fn held_here(index: &Index) -> Result<Option<Knowledge>, IndexError> {
    match &all(index)?[..] {
        [present, _, ..] => held_at(index, present).map(Some),
        _ => Ok(None),
    }
}

/// What of the packets folded here the present place is not known to hold: lanes, each from where to where.
pub(crate) fn lacking(index: &Index) -> Result<Vec<Lacking>, IndexError> {
    let Some(held) = held_here(index)? else { return Ok(Vec::new()) };
    let mut lacking = Vec::new();
    for (device, known) in index.knowledge().iter() {
        let first = match held.of(device) {
            Some(there) if hash_at(index, device, there.counter)?.is_none_or(|hash| hash == there.hash) => {
                there.counter + 1
            }
            _ => 1,
        };
        if first <= known.counter {
            lacking.push(Lacking { device: *device, first, last: *known });
        }
    }
    Ok(lacking)
}

/// A part of a lane that a place is not known to hold.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) struct Lacking {
    /// Whose lane it is.
    pub(crate) device: DeviceId,
    /// The first packet that may be lacking.
    pub(crate) first: Counter,
    /// The last packet that this replica has folded.
    pub(crate) last: Learned,
}

/// Notes that the present place holds these lanes up to there.
pub(crate) fn note_held(
    index: &mut Index,
    lanes: impl IntoIterator<Item = (DeviceId, Learned)>,
) -> Result<(), IndexError> {
    let Some(before) = held_here(index)? else { return Ok(()) };
    let mut after: Vec<(DeviceId, Learned)> = before.iter().map(|(device, there)| (*device, *there)).collect();
    for (device, there) in lanes {
        let of_it = after.iter_mut().find(|(known, _)| *known == device);
        match of_it {
            None => after.push((device, there)),
            Some((_, known)) => {
                // An entry of another history stands for nothing that this replica could build on.
                let is_ours = hash_at(index, &device, known.counter)?.is_none_or(|hash| hash == known.hash);
                if known.counter < there.counter || !is_ours {
                    *known = there;
                }
            }
        }
    }
    let mut held = Knowledge::new();
    after.into_iter().for_each(|(device, there)| held.advance(device, there));
    if held == before {
        return Ok(());
    }
    let present = all(index)?.swap_remove(0);
    set_held_at(index, &present, &held)
}

/// Forgets what each place holds, as whoever forgets what was folded: where history begins later by what is learned next, a
/// place that was brought packets after that still lacks what came before. Whose lanes the present one held is kept.
pub(crate) fn forget_held(index: &mut Index) -> Result<(), IndexError> {
    let mut lanes: BTreeSet<DeviceId> = once_held(index)?.into_iter().collect();
    lanes.extend(held_here(index)?.iter().flat_map(|held| held.iter().map(|(device, _)| *device)));
    if !lanes.is_empty() {
        let bytes: Vec<u8> = lanes.iter().flat_map(|device| device.0).collect();
        index.set_meta(ONCE_HELD, Some(&bytes))?;
    }
    for place in all(index)? {
        if index.meta(&aside(HELD, &place))?.is_some() {
            set_held_at(index, &place, &Knowledge::new())?;
        }
    }
    Ok(())
}

/// The devices of which this place held something when what was folded was forgotten.
pub(crate) fn once_held(index: &Index) -> Result<Vec<DeviceId>, IndexError> {
    let bytes = index.meta(ONCE_HELD)?.unwrap_or_default();
    Ok(bytes.chunks_exact(DeviceId::LEN).filter_map(DeviceId::from_slice).collect())
}

/// Notes that the present place lacked what was at another.
pub(crate) fn note_lack(index: &mut Index) -> Result<(), IndexError> {
    let mut lacked = lacked(index)?;
    let Some(present) = all(index)?.into_iter().next() else { return Ok(()) };
    if lacked.insert(present) {
        let joined: Vec<String> = lacked.into_iter().collect();
        index.set_meta(LACKED, Some(&joined.join("\0").into_bytes()))?;
    }
    Ok(())
}

/// Whether any place ever lacked what was at another. One that is reached in several ways never does.
pub(crate) fn has_lacked(index: &Index) -> Result<bool, IndexError> {
    Ok(!lacked(index)?.is_empty())
}

/// Whether the vault lies at several places: one lacked what was at another, and that one lacked something, too, or was come
/// back to. What was moved, or restored elsewhere from a backup, is not come back to.
pub(crate) fn lie_apart(index: &Index) -> Result<bool, IndexError> {
    Ok(lacked(index)?.len() > 1)
}

/// The places that ever lacked what was at another.
fn lacked(index: &Index) -> Result<BTreeSet<String>, IndexError> {
    let Some(bytes) = index.meta(LACKED)? else { return Ok(BTreeSet::new()) };
    Ok(String::from_utf8_lossy(&bytes).split('\0').map(str::to_owned).collect())
}

/// How far a lane is known to lie at any place but the present one.
pub(crate) fn held_elsewhere(index: &Index, device: &DeviceId) -> Result<Counter, IndexError> {
    let mut greatest = 0;
    for place in all(index)?.iter().skip(1) {
        greatest = greatest.max(held_at(index, place)?.counter(device));
    }
    Ok(greatest)
}

/// How far a lane is known to lie at every place but the present one.
pub(crate) fn least_held_elsewhere(index: &Index, device: &DeviceId) -> Result<Counter, IndexError> {
    let mut least = None;
    for place in all(index)?.iter().skip(1) {
        let held = held_at(index, place)?.counter(device);
        least = Some(least.map_or(held, |least: Counter| least.min(held)));
    }
    Ok(least.unwrap_or(0))
}

/// Notes what was learned at the present place: what was folded there was read from it, and of what its tips tell that is
/// folded here it holds the same.
pub(crate) fn note_learned(index: &mut Index, before: &Knowledge, told: &[Knowledge]) -> Result<(), IndexError> {
    if !are_several(index)? {
        return Ok(());
    }
    let mut lanes: Vec<(DeviceId, Learned)> = index.knowledge().since(before).iter().map(|(d, l)| (*d, *l)).collect();
    for (device, there) in told.iter().flat_map(Knowledge::iter) {
        let is_folded = there.counter <= index.knowledge().counter(device);
        // What lies before the checkpoint from which this replica began it cannot compare.
        if is_folded && hash_at(index, device, there.counter)?.is_none_or(|ours| ours == there.hash) {
            lanes.push((*device, *there));
        }
    }
    note_held(index, lanes)
}

/// Notes that something was brought to the present place of which no tip there tells yet.
pub(crate) fn owe_a_tip(index: &mut Index) -> Result<(), IndexError> {
    index.set_meta(TIP_OWED, Some(b"1"))
}

/// Whether something was brought to the present place of which no tip there tells yet.
pub(crate) fn is_tip_owed(index: &Index) -> Result<bool, IndexError> {
    Ok(index.meta(TIP_OWED)?.is_some())
}

/// Notes that a tip at the present place tells of all that was folded.
pub(crate) fn tip_is_written(index: &mut Index) -> Result<(), IndexError> {
    if is_tip_owed(index)? { index.set_meta(TIP_OWED, None) } else { Ok(()) }
}

/// Whether this replica has come here from another place since [`look_about`] was last called: it may have what was looked
/// for here in vain before.
pub(crate) fn has_just_come(index: &Index) -> Result<bool, IndexError> {
    Ok(index.meta(ARRIVED)?.is_some())
}

/// Whether this replica has come here for the first time, since [`look_about`] was last called.
pub(crate) fn is_new_here(index: &Index) -> Result<bool, IndexError> {
    Ok(index.meta(ARRIVED)?.is_some_and(|how| how == FOR_THE_FIRST_TIME))
}

/// Notes that what is looked for here was looked at.
pub(crate) fn look_about(index: &mut Index) -> Result<(), IndexError> {
    if has_just_come(index)? { index.set_meta(ARRIVED, None) } else { Ok(()) }
}

/// Forgets at every place which packets and which tip of its own this replica put there, as a new device must.
pub(crate) fn forget_own_lane(index: &mut Index) -> Result<(), IndexError> {
    for place in all(index)? {
        index.set_published(&place, 0)?;
    }
    forget_everywhere(index, &[publish::TIP_WRITTEN, learn::OWN_TIP_SIZE])
}

/// Forgets these notes of every place.
pub(crate) fn forget_everywhere(index: &mut Index, notes: &[&str]) -> Result<(), IndexError> {
    for key in notes {
        for place in all(index)? {
            index.set_meta(&aside(key, &place), None)?;
        }
        index.set_meta(key, None)?;
    }
    Ok(())
}

/// The hash of a folded packet, where it is known: by itself, or by the one after it where this replica began between them.
pub(crate) fn hash_at(index: &Index, device: &DeviceId, counter: Counter) -> Result<Option<PacketHash>, IndexError> {
    if let Some(hash) = hash_of_own(index, device, counter)? {
        return Ok(Some(hash));
    }
    match 0 < counter && counter < index.knowledge().counter(device) {
        true => Ok(index.sealed_packet(Dot { device: *device, counter: counter + 1 })?.map(|next| next.previous())),
        false => Ok(None),
    }
}

/// The hash of a packet that was folded by itself, or with which a checkpoint ended.
pub(crate) fn hash_of_own(
    index: &Index,
    device: &DeviceId,
    counter: Counter,
) -> Result<Option<PacketHash>, IndexError> {
    match index.knowledge().of(device) {
        Some(last) if last.counter == counter => Ok(Some(last.hash)),
        _ => Ok(index.packet_row(Dot { device: *device, counter })?.map(|row| row.hash)),
    }
}

/// Puts aside what is noted of a place.
fn leave(index: &mut Index, own: DeviceId, place: &str) -> Result<(), SyncError> {
    if index.meta(&aside(HELD, place))?.is_none() {
        // It was the only one, so all that was learned was learned there.
        let published = index.published(place)?;
        let mut held = Knowledge::new();
        for (device, learned) in index.knowledge().iter() {
            if *device != own {
                held.advance(*device, *learned);
            } else if let Some(hash) = hash_at(index, device, published)? {
                held.advance(*device, Learned { counter: published, hash });
            }
        }
        set_held_at(index, place, &held)?;
    }
    for pack in index.pending_packs()? {
        index.remove_pack(&pack)?;
    }
    let damaged = packs_in(index, PackState::Damaged)?;
    garbage::note_sound(index, &damaged)?;
    // What was packed for a checkpoint lies there and nowhere else.
    let packed = ids(&index.meta(held::UNTOLD)?.unwrap_or_default());
    for pack in &packed {
        set_damaged(index, pack)?;
    }
    let damaged: Vec<u8> = damaged.iter().flat_map(|pack| pack.0).collect();
    index.set_meta(&aside(DAMAGED, place), Some(&damaged))?;
    for key in NOTES {
        let note = index.meta(key)?;
        index.set_meta(&aside(key, place), note.as_deref())?;
        index.set_meta(key, None)?;
    }
    Ok(())
}

/// Takes up what was put aside of a place.
fn take_up(index: &mut Index, place: &str) -> Result<(), IndexError> {
    for key in NOTES {
        if let Some(note) = index.meta(&aside(key, place))? {
            index.set_meta(key, Some(&note))?;
            index.set_meta(&aside(key, place), None)?;
        }
    }
    for pack in ids(&index.meta(&aside(DAMAGED, place))?.unwrap_or_default()) {
        set_damaged(index, &pack)?;
    }
    let is_new = index.meta(&aside(HELD, place))?.is_none();
    index.set_meta(ARRIVED, Some(if is_new { FOR_THE_FIRST_TIME } else { b"again" }))?;
    if is_new {
        set_held_at(index, place, &Knowledge::new())?;
    }
    Ok(())
}

fn set_damaged(index: &mut Index, pack: &PackId) -> Result<(), IndexError> {
    match index.pack_row(pack)? {
        Some(row) if row.state == PackState::Stored => index.set_pack_state(pack, PackState::Damaged),
        _ => Ok(()),
    }
}

fn packs_in(index: &Index, state: PackState) -> Result<BTreeSet<PackId>, IndexError> {
    let mut found = BTreeSet::new();
    index.each_pack(|row| {
        if row.state == state {
            found.insert(row.pack);
        }
    })?;
    Ok(found)
}

fn ids(bytes: &[u8]) -> Vec<PackId> {
    bytes.chunks_exact(PackId::LEN).filter_map(PackId::from_slice).collect()
}

fn held_at(index: &Index, place: &str) -> Result<Knowledge, IndexError> {
    let Some(bytes) = index.meta(&aside(HELD, place))? else { return Ok(Knowledge::new()) };
    Knowledge::decode(&mut Reader::new(&bytes)).map_err(|_| IndexError::Damaged { what: "what a place holds" })
}

fn set_held_at(index: &mut Index, place: &str, held: &Knowledge) -> Result<(), IndexError> {
    let mut out = Writer::new();
    held.encode(&mut out);
    index.set_meta(&aside(HELD, place), Some(&out.finish()))
}

/// Under which key a note of a place waits while the replica is elsewhere.
fn aside(key: &str, place: &str) -> String {
    format!("{key} at {place}")
}

/// Where the index keeps the places, the present one first, with zero bytes between them,
const PLACES: &str = "places";
/// what each holds,
const HELD: &str = "held";
/// which packs were found missing or damaged at those where the replica is not now,
const DAMAGED: &str = "damaged packs";
/// whether something was brought to the present one of which no tip there tells,
const TIP_OWED: &str = "tip owed";
/// which places ever lacked what was at another,
const LACKED: &str = "places that lacked";
/// and whether it was just come to.
const ARRIVED: &str = "just come";
const FOR_THE_FIRST_TIME: &[u8] = b"first";
/// Where the index keeps of which devices a place held something once, ids of 32 bytes.
const ONCE_HELD: &str = "once held";
/// The keys of what is noted of one place.
const NOTES: &[&str] = &[
    ONCE_HELD,
    TIP_OWED,
    forks::SUSPECTED,
    publish::TIP_WRITTEN,
    learn::OWN_TIP_SIZE,
    wants::OWN,
    wants::TOLD,
    wants::ASKED,
    wants::LOOKED_AT,
    refusals::TOLD,
    refusals::HEARD,
    epochs::PUT,
    epochs::CHECKED,
    checkpoints::TRIED,
    checkpoints::OWED,
    held::NAME,
    held::EPOCH,
    held::COVERS,
    held::ROOT,
    held::SEEN,
    held::UNTOLD,
    held::PACKED,
    needed::NOTED,
    repair::IN_VAIN,
];
