//! What this replica found missing or damaged at the intermediary, and what others say that they did.
//!
//! Whoever reads an object in vain notes it here, tells it in the tip (`core::wanted`), and takes it back when the object
//! can be read again. What others want is kept from the moment their tip is read until it was looked at
//! ([`crate::repair`]); what could not be put back is not looked at again for a day, so that a loss that nobody can mend
//! costs next to nothing.
//!
//! All of it lies in a few entries of the index and is empty in a vault that is whole.

use std::collections::{BTreeMap, BTreeSet};

use packetboat_core::ids::DeviceId;
use packetboat_core::wanted::{MAX_WANTED, Wanted, decode_wanted, encode_wanted};
use packetboat_core::wire::{Reader, WireError, Writer};
use packetboat_replica::index::{Index, PackState};

use crate::error::SyncError;

/// What this device wants.
pub(crate) fn own(index: &Index) -> Result<BTreeSet<Wanted>, SyncError> {
    read(index, OWN)
}

/// What of it goes into the tip.
pub(crate) fn told(index: &Index) -> Result<BTreeSet<Wanted>, SyncError> {
    Ok(own(index)?.into_iter().take(MAX_WANTED).collect())
}

/// Records what this device wants from now on.
pub(crate) fn set_own(index: &mut Index, wanted: &BTreeSet<Wanted>) -> Result<(), SyncError> {
    write(index, OWN, wanted)
}

/// Notes what could not be read, but for what was looked at lately.
///
/// Its packs are not referred to any more, so that a file with the same content stores it anew.
pub(crate) fn note(index: &mut Index, damaged: &BTreeSet<Wanted>, now_ms: i64) -> Result<(), SyncError> {
    if damaged.is_empty() {
        return Ok(());
    }
    let looked_at = looked_at(index, now_ms)?;
    let mut wanted = own(index)?;
    let before = wanted.len();
    wanted.extend(damaged.iter().filter(|object| !looked_at.contains_key(object)));
    if wanted.len() == before {
        return Ok(());
    }
    index.begin()?;
    for object in &wanted {
        if let Wanted::Pack(pack) = object {
            index.set_pack_state(pack, PackState::Damaged)?;
        }
    }
    set_own(index, &wanted)?;
    Ok(index.commit()?)
}

/// Whether the last tip tells something else than what is wanted now.
pub(crate) fn is_untold(index: &Index) -> Result<bool, SyncError> {
    let told = index.meta(TOLD)?.unwrap_or_default();
    Ok(told != index.meta(OWN)?.unwrap_or_default())
}

/// Notes that a tip tells what is wanted now.
pub(crate) fn set_told(index: &mut Index) -> Result<(), SyncError> {
    let own = index.meta(OWN)?;
    Ok(index.set_meta(TOLD, own.as_deref())?)
}

/// Keeps what another device wants, as its newest tip says.
pub(crate) fn set_asked(index: &mut Index, device: DeviceId, wanted: &BTreeSet<Wanted>) -> Result<(), SyncError> {
    let mut asked = asked_by(index)?;
    let before = asked.clone();
    match wanted.is_empty() {
        true => drop(asked.remove(&device)),
        false => drop(asked.insert(device, wanted.clone())),
    }
    if asked == before { Ok(()) } else { write_asked(index, &asked) }
}

/// What others want and this device has not looked at yet.
pub(crate) fn asked(index: &Index) -> Result<BTreeSet<Wanted>, SyncError> {
    Ok(asked_by(index)?.into_values().flatten().collect())
}

/// Forgets what others wanted: it was looked at. Their next tips say what they still want.
pub(crate) fn clear_asked(index: &mut Index) -> Result<(), SyncError> {
    Ok(index.set_meta(ASKED, None)?)
}

/// What was looked at within the last day and could not be put back, and when.
pub(crate) fn looked_at(index: &Index, now_ms: i64) -> Result<BTreeMap<Wanted, i64>, SyncError> {
    let bytes = index.meta(LOOKED_AT)?.unwrap_or_default();
    let mut input = Reader::new(&bytes);
    let mut looked_at = BTreeMap::new();
    while input.remaining() > 0 {
        let time = input.signed().map_err(damaged)?;
        for object in decode_wanted(&mut input).map_err(damaged)? {
            looked_at.insert(object, time);
        }
    }
    // A clock that was put back must not keep an object from being looked at for years.
    looked_at.retain(|_, time| now_ms.abs_diff(*time) < LOOK_AGAIN_MS);
    Ok(looked_at)
}

/// Records what [`looked_at`] returns.
pub(crate) fn set_looked_at(index: &mut Index, looked_at: &BTreeMap<Wanted, i64>) -> Result<(), SyncError> {
    let mut out = Writer::new();
    for (object, time) in looked_at.iter().take(MAX_LOOKED_AT) {
        out.signed(*time);
        encode_wanted(&BTreeSet::from([*object]), &mut out);
    }
    let bytes = out.finish();
    Ok(index.set_meta(LOOKED_AT, (!bytes.is_empty()).then_some(&bytes[..]))?)
}

fn asked_by(index: &Index) -> Result<BTreeMap<DeviceId, BTreeSet<Wanted>>, SyncError> {
    let bytes = index.meta(ASKED)?.unwrap_or_default();
    let mut input = Reader::new(&bytes);
    let mut asked = BTreeMap::new();
    while input.remaining() > 0 {
        let device = DeviceId(input.array().map_err(damaged)?);
        asked.insert(device, decode_wanted(&mut input).map_err(damaged)?);
    }
    Ok(asked)
}

fn write_asked(index: &mut Index, asked: &BTreeMap<DeviceId, BTreeSet<Wanted>>) -> Result<(), SyncError> {
    let mut out = Writer::new();
    for (device, wanted) in asked {
        out.raw(&device.0);
        encode_wanted(wanted, &mut out);
    }
    let bytes = out.finish();
    Ok(index.set_meta(ASKED, (!bytes.is_empty()).then_some(&bytes[..]))?)
}

/// A set of any size lies in lists of as many as one may hold.
fn read(index: &Index, key: &str) -> Result<BTreeSet<Wanted>, SyncError> {
    let bytes = index.meta(key)?.unwrap_or_default();
    let mut input = Reader::new(&bytes);
    let mut wanted = BTreeSet::new();
    while input.remaining() > 0 {
        wanted.extend(decode_wanted(&mut input).map_err(damaged)?);
    }
    Ok(wanted)
}

fn write(index: &mut Index, key: &str, wanted: &BTreeSet<Wanted>) -> Result<(), SyncError> {
    let all: Vec<Wanted> = wanted.iter().copied().collect();
    let mut out = Writer::new();
    for list in all.chunks(MAX_WANTED) {
        encode_wanted(&list.iter().copied().collect(), &mut out);
    }
    let bytes = out.finish();
    Ok(index.set_meta(key, (!bytes.is_empty()).then_some(&bytes[..]))?)
}

fn damaged(_: WireError) -> SyncError {
    SyncError::DamagedIndex { what: "what is wanted" }
}

pub(crate) const OWN: &str = "wanted";
pub(crate) const TOLD: &str = "wanted told";
pub(crate) const ASKED: &str = "wanted by others";
pub(crate) const LOOKED_AT: &str = "wanted in vain";
const LOOK_AGAIN_MS: u64 = 24 * 3_600_000;
const MAX_LOOKED_AT: usize = 100_000;

#[cfg(test)]
mod tests {
    use packetboat_core::ids::PackId;

    use super::*;

    fn pack(n: u32) -> Wanted {
        Wanted::Pack(PackId([n.to_be_bytes(); 8].concat().try_into().unwrap()))
    }

    #[test]
    fn what_is_wanted_is_kept_whatever_its_number_and_a_tip_takes_what_it_holds() {
        let mut index = Index::in_memory().unwrap();
        let many: BTreeSet<Wanted> = (0..1000).map(pack).collect();
        note(&mut index, &many, 0).unwrap();
        assert_eq!(own(&index).unwrap(), many);
        assert_eq!(told(&index).unwrap().len(), MAX_WANTED);
        assert!(is_untold(&index).unwrap());
        set_told(&mut index).unwrap();
        assert!(!is_untold(&index).unwrap());
        set_own(&mut index, &BTreeSet::new()).unwrap();
        assert!(is_untold(&index).unwrap());
    }

    #[test]
    fn what_was_looked_at_in_vain_is_wanted_again_after_a_day_by_any_clock() {
        let mut index = Index::in_memory().unwrap();
        let day = LOOK_AGAIN_MS as i64;
        set_looked_at(&mut index, &[(pack(1), 100 * day)].into()).unwrap();
        note(&mut index, &[pack(1)].into(), 100 * day + 1).unwrap();
        assert!(own(&index).unwrap().is_empty());
        // The clock was wrong by years when it was looked at.
        for now in [101 * day, 3 * day] {
            note(&mut index, &[pack(1)].into(), now).unwrap();
            assert_eq!(own(&index).unwrap(), [pack(1)].into());
            set_own(&mut index, &BTreeSet::new()).unwrap();
        }
    }

    #[test]
    fn the_newest_tip_of_a_device_says_what_it_wants() {
        let mut index = Index::in_memory().unwrap();
        let (one, two) = (DeviceId([1; 32]), DeviceId([2; 32]));
        set_asked(&mut index, one, &[pack(1), pack(2)].into()).unwrap();
        set_asked(&mut index, two, &[pack(3)].into()).unwrap();
        set_asked(&mut index, one, &[pack(2)].into()).unwrap();
        assert_eq!(asked(&index).unwrap(), [pack(2), pack(3)].into());
        set_asked(&mut index, two, &BTreeSet::new()).unwrap();
        assert_eq!(asked(&index).unwrap(), [pack(2)].into());
        clear_asked(&mut index).unwrap();
        assert!(asked(&index).unwrap().is_empty());
    }
}
