//! Publishing: this device's sealed packets to its lane, then its tip.
//!
//! Packets are put in order, and the tip only after them, so a tip never names what is not there.
//! All bytes were recorded before; after a crash the same bytes are put again.

use packetboat_core::ids::{Counter, DeviceId, Dot};
use packetboat_core::packet::{MAX_PACKET_BYTES, SealedPacket};
use packetboat_core::store::{Put, Store};
use packetboat_core::tip::{SealedTip, Tip};
use packetboat_replica::index::Index;

use crate::Keys;
use crate::error::SyncError;
use crate::learn::{OWN_TIP_SIZE, TIP, packet_name, packets_present};
use crate::places;
use crate::ports::Entropy;

/// Whether what was to be published is.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) enum Published {
    /// It is.
    Done,
    /// Another packet has a place in this lane: this index is not the only one with its key.
    Forked,
}

/// Puts what the intermediary lacks of this device's lane, and its tip.
///
/// `again` writes the tip even where nothing new is to be put.
pub(crate) fn publish(
    index: &mut Index,
    store: &dyn Store,
    keys: &Keys,
    place: &str,
    now_ms: i64,
    again: bool,
    entropy: &mut dyn Entropy,
) -> Result<Published, SyncError> {
    let device = keys.device.device();
    let last = index.knowledge().counter(&device);
    let published = index.published(place)?;
    let from = if again { first_missing(index, store, device, published)? } else { published + 1 };
    for counter in from..=last {
        let dot = Dot { device, counter };
        let Some(sealed) = index.sealed(dot)? else { continue };
        let name = packet_name(&dot);
        if store.put_new(&name, &sealed)? == Put::Present {
            let standing = store.get(&name, MAX_PACKET_BYTES as u64)?;
            if standing != sealed {
                // A packet of this lane that this index does not know is a fork; anything else is a torn or damaged put.
                if SealedPacket::from_bytes(standing).is_ok_and(|other| other.dot() == dot) {
                    return Ok(Published::Forked);
                }
                store.put(&name, &sealed)?;
            }
        }
        index.set_published(place, counter)?;
    }
    let is_untold = crate::wants::is_untold(index)? || crate::refusals::is_untold(index)?;
    if again || is_untold || places::is_tip_owed(index)? || is_tip_due(index, last, now_ms)? {
        write_tip(index, store, keys, place, now_ms, entropy)?;
    }
    Ok(Published::Done)
}

/// The first packet of the own lane that the intermediary lacks, or may have in part only.
///
/// A put that failed may have left the beginning of a packet under its name, so the name alone says nothing of what was
/// never put well.
fn first_missing(index: &Index, store: &dyn Store, device: DeviceId, published: Counter) -> Result<Counter, SyncError> {
    let present = packets_present(store, &device)?;
    // What history does not hold any more is not put back.
    let ended = crate::garbage::load(index)?.ended().counter(&device);
    let unproven = published.max(ended) + 1;
    let missing = (ended + 1..unproven).find(|counter| {
        let dot = Dot { device, counter: *counter };
        !present.contains(&packet_name(&dot)) && index.packet_row(dot).is_ok_and(|row| row.is_some())
    });
    Ok(missing.unwrap_or(unproven))
}

/// Whether the tip is to be written: it does not name the last packet, or what was learned is worth telling.
///
/// Others learn from a tip how far this device is, even when it has nothing to say; now and then is enough for that.
fn is_tip_due(index: &Index, last: Counter, now_ms: i64) -> Result<bool, SyncError> {
    let Some(written) = index.meta(TIP_WRITTEN)? else { return Ok(last > 0) };
    let Some((counter, rest)) = written.split_first_chunk::<8>() else { return Ok(true) };
    let Some((time, state)) = rest.split_first_chunk::<8>() else { return Ok(true) };
    if u64::from_le_bytes(*counter) != last {
        return Ok(true);
    }
    let age = now_ms.saturating_sub(i64::from_le_bytes(*time)).unsigned_abs();
    Ok(age > SIGN_OF_LIFE_MS || (age > TIP_INTERVAL_MS && state != index.knowledge().state_hash()))
}

/// Puts this device's tip.
pub(crate) fn write_tip(
    index: &mut Index,
    store: &dyn Store,
    keys: &Keys,
    place: &str,
    now_ms: i64,
    entropy: &mut dyn Entropy,
) -> Result<(), SyncError> {
    let device = keys.device.device();
    let knowledge = index.knowledge().clone();
    let last = knowledge.of(&device);
    let seen = index.greatest_tip(&device)?;
    let newest_first = (1..=last.map_or(0, |last| last.counter))
        .rev()
        .take(MAX_RECENT_PACKETS)
        .map_while(|counter| index.sealed(Dot { device, counter }).ok().flatten());
    let tip = Tip {
        sequence: seen + 1,
        last,
        learned: knowledge.clone(),
        checkpoint: crate::checkpoints::newest(index)?,
        wanted: crate::wants::told(index)?,
        refused: crate::refusals::own(index)?,
        recent: Tip::fit_recent(newest_first),
    };
    let sealed = SealedTip::seal(&keys.device, &keys.ring, entropy.nonce(), &tip)?;
    store.put(&Tip::name(&device), sealed.bytes())?;
    let mut written = last.map_or(0, |last| last.counter).to_le_bytes().to_vec();
    written.extend_from_slice(&now_ms.to_le_bytes());
    written.extend_from_slice(&knowledge.state_hash());
    index.begin()?;
    index.set_meta(TIP_WRITTEN, Some(&written))?;
    index.set_meta(OWN_TIP_SIZE, Some(&(sealed.bytes().len() as u64).to_le_bytes()))?;
    index.set_tip_etag(place, device, "", tip.sequence)?;
    // What this device wrote itself it does not read again.
    index.clear_problem(TIP, Tip::name(&device).as_str().as_bytes())?;
    crate::wants::set_told(index)?;
    crate::refusals::set_told(index)?;
    places::tip_is_written(index)?;
    index.commit()?;
    Ok(())
}

/// Where the index keeps which tip it wrote last: counter 8, time in ms 8, hash of what was learned 32.
pub(crate) const TIP_WRITTEN: &str = "own tip written";
const TIP_INTERVAL_MS: u64 = 3_600_000;
/// A device with nothing to say writes its tip now and then, so that it is not taken for one that is gone.
const SIGN_OF_LIFE_MS: u64 = 14 * 86_400_000;
const MAX_RECENT_PACKETS: usize = 32;
