//! What a device could not read at an intermediary, and asks whoever still has it to put there again.
//!
//! A device says it in its tip (tip.rs), so nobody reads anything more to hear of it, and no storage can say it in the
//! device's name.
//! Asking promises nothing and gives nothing away: whoever answers looks for itself whether the object is damaged, and
//! puts only what it can prove by its own keys and hashes.
//!
//! ```text
//! wanted   count, per object, in ascending order:
//!          0 | device 32 | counter varint    a packet
//!          1 | pack 32                       a pack, or whatever else holds its chunks
//!          2 | device 32 | number varint     a checkpoint, or a newer one
//! ```

use std::collections::BTreeSet;

use crate::checkpoint::CheckpointRef;
use crate::ids::{DeviceId, Dot, PackId};
use crate::wire::{Reader, WireError, Writer};

/// An object that a device asks for.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug)]
pub enum Wanted {
    /// This packet, in its lane.
    Packet(Dot),
    /// The chunks that this pack held, wherever they lie.
    Pack(PackId),
    /// This checkpoint, or one that contains as much.
    Checkpoint(CheckpointRef),
}

/// Writes what is wanted; of more than [`MAX_WANTED`] the first.
pub fn encode_wanted(wanted: &BTreeSet<Wanted>, out: &mut Writer) {
    out.varint(wanted.len().min(MAX_WANTED) as u64);
    for object in wanted.iter().take(MAX_WANTED) {
        match object {
            Wanted::Packet(dot) => out.u8(0).raw(&dot.device.0).varint(dot.counter),
            Wanted::Pack(pack) => out.u8(1).raw(&pack.0),
            Wanted::Checkpoint(checkpoint) => out.u8(2).raw(&checkpoint.device.0).varint(checkpoint.number),
        };
    }
}

/// Reads what [`encode_wanted`] wrote; refuses all that it would not write.
pub fn decode_wanted(input: &mut Reader<'_>) -> Result<BTreeSet<Wanted>, WireError> {
    let count = input.count(LEAST_BYTES)?;
    if count > MAX_WANTED {
        return Err(WireError::Invalid { what: "number of wanted objects" });
    }
    let mut wanted = BTreeSet::new();
    for _ in 0..count {
        let object = match input.u8()? {
            0 => Wanted::Packet(Dot { device: DeviceId(input.array()?), counter: input.varint()? }),
            1 => Wanted::Pack(PackId(input.array()?)),
            2 => Wanted::Checkpoint(CheckpointRef::decode(input)?),
            _ => return Err(WireError::NotCanonical),
        };
        if wanted.last().is_some_and(|last| *last >= object) {
            return Err(WireError::NotCanonical);
        }
        wanted.insert(object);
    }
    Ok(wanted)
}

/// Most objects that one device asks for at a time: a tip stays small, and the rest is asked for when these are back.
pub const MAX_WANTED: usize = 256;
const LEAST_BYTES: usize = 1 + PackId::LEN;

#[cfg(test)]
mod tests {
    use proptest::collection::btree_set;
    use proptest::prelude::*;

    use super::*;

    fn object() -> impl Strategy<Value = Wanted> {
        prop_oneof![
            (any::<[u8; 32]>(), any::<u64>())
                .prop_map(|(device, counter)| Wanted::Packet(Dot { device: DeviceId(device), counter })),
            any::<[u8; 32]>().prop_map(|pack| Wanted::Pack(PackId(pack))),
            (any::<[u8; 32]>(), 1..u64::MAX).prop_map(|(device, number)| {
                Wanted::Checkpoint(CheckpointRef { device: DeviceId(device), number })
            }),
        ]
    }

    #[test]
    fn more_than_a_tip_holds_is_cut_and_never_refused() {
        let many: BTreeSet<Wanted> =
            (0..1000).map(|n: u32| Wanted::Pack(PackId([n.to_be_bytes(); 8].concat().try_into().unwrap()))).collect();
        let mut out = Writer::new();
        encode_wanted(&many, &mut out);
        let read = decode_wanted(&mut Reader::new(&out.finish())).unwrap();
        assert_eq!(read, many.into_iter().take(MAX_WANTED).collect());
    }

    #[test]
    fn what_is_out_of_order_is_refused() {
        let mut out = Writer::new();
        out.varint(2).u8(1).raw(&[2; 32]).u8(1).raw(&[1; 32]);
        assert_eq!(decode_wanted(&mut Reader::new(&out.finish())), Err(WireError::NotCanonical));
    }

    proptest! {
        #[test]
        fn what_is_wanted_round_trips(wanted in btree_set(object(), 0..20)) {
            let mut out = Writer::new();
            encode_wanted(&wanted, &mut out);
            let bytes = out.finish();
            let mut input = Reader::new(&bytes);
            prop_assert_eq!(decode_wanted(&mut input), Ok(wanted));
            prop_assert_eq!(input.remaining(), 0);
        }

        #[test]
        fn arbitrary_bytes_never_panic_and_are_canonical(bytes in proptest::collection::vec(any::<u8>(), 0..200)) {
            let mut input = Reader::new(&bytes);
            if let Ok(wanted) = decode_wanted(&mut input) {
                let mut out = Writer::new();
                encode_wanted(&wanted, &mut out);
                prop_assert_eq!(out.finish(), bytes[..bytes.len() - input.remaining()].to_vec());
            }
        }
    }
}
