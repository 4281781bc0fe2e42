//! Tips: the one object by which each device says how far it is, rewritten as often as it moves on.
//!
//! A tip is a signed object (signed.rs) with magic "PBTP", at `tips/<device>`. Sealed in it:
//!
//! ```text
//! last        counter varint, and where it is not 0 the hash of the device's last packet 32
//! learned     knowledge (knowledge.rs)
//! checkpoint  flags u8: 1 a checkpoint follows, 2 a list of what is wanted and 4 one of what is refused after it;
//!             the device 32 and number varint of the newest checkpoint the device knows
//! wanted      what the device could not read here (wanted.rs); left out where there is nothing
//! refused     count, per lane, in ascending order: device 32, counter varint from which on the device refuses it; left
//!             out where there is nothing
//! recent      count, per packet its bytes: the newest of the device's own lane, in order, 64 KiB in all
//! padding     0 to 63 zero bytes, so that the object's size and its number leave the same remainder by 64
//! ```
//!
//! The padding is for storages whose listing shows a time and a size and nothing else: of 64 tips in a row no two have
//! one size, so a rewrite within one tick of the storage's clock is still seen.
//! The recent packets are for the readers of a small edit, who then need no other read; what is wanted is for whoever
//! can put it there again, and costs them no request to hear of.
//!
//! A storage may put an old tip back. Its number then is smaller than one that was seen,
//! and knowledge and lanes are not taken back for it. Only one thing that a tip says is a reason to forget: that its device
//! refuses the reader's own lane, whereupon the reader may begin anew.

use std::collections::{BTreeMap, BTreeSet};

use crate::checkpoint::CheckpointRef;
use crate::ids::{Counter, DeviceId, PacketHash};
use crate::keys::Purpose;
use crate::knowledge::{Knowledge, Learned};
use crate::signed::{Content, OVERHEAD, Sealed, SignedError, Unverified};
use crate::store::ObjectName;
use crate::wanted::{Wanted, decode_wanted, encode_wanted};
use crate::wire::{Reader, WireError, Writer};

/// What a device says of itself.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Tip {
    /// Which of the device's tips this is: from 1, one more with every rewrite.
    pub sequence: u64,
    /// The device's last packet; none where it has made none.
    pub last: Option<Learned>,
    /// All that the device has folded.
    pub learned: Knowledge,
    /// The newest checkpoint that the device knows of.
    pub checkpoint: Option<CheckpointRef>,
    /// What the device could not read at this intermediary; at most [`MAX_WANTED`](crate::wanted::MAX_WANTED).
    pub wanted: BTreeSet<Wanted>,
    /// Lanes that the device has read and does not fold, each from this packet on; at most [`MAX_REFUSED`].
    pub refused: BTreeMap<DeviceId, Counter>,
    /// The newest packets of the device's own lane, sealed, in order; at most [`MAX_RECENT_BYTES`] in all.
    pub recent: Vec<Vec<u8>>,
}

/// Bytes that claim to be a tip.
pub type UnverifiedTip = Unverified<Tip>;

/// A tip whose signature is its device's.
pub type SealedTip = Sealed<Tip>;

/// Why bytes are not a tip of this vault and device.
pub type TipError = SignedError;

impl Tip {
    /// The name of a device's tip at an intermediary.
    pub fn name(device: &DeviceId) -> ObjectName {
        ObjectName::new(format!("{TIPS_FOLDER}/{device}")).expect("a device's hexadecimal form is a sound name")
    }

    /// Whose tip lies under a name.
    pub fn device_of(name: &ObjectName) -> Option<DeviceId> {
        DeviceId::from_hex(name.as_str().strip_prefix(TIPS_FOLDER)?.strip_prefix('/')?)
    }

    /// As many of the newest packets as a tip has room for, in order; `newest_first` yields them backward.
    pub fn fit_recent(newest_first: impl IntoIterator<Item = Vec<u8>>) -> Vec<Vec<u8>> {
        let mut room = MAX_RECENT_BYTES;
        let mut recent = Vec::new();
        for packet in newest_first {
            let Some(left) = room.checked_sub(packet.len()) else { break };
            room = left;
            recent.push(packet);
        }
        recent.reverse();
        recent
    }
}

impl Content for Tip {
    const KIND: &'static str = "tip";
    const MAGIC: [u8; 4] = *b"PBTP";
    const PURPOSE: Purpose = Purpose::Tip;
    const HASH_CONTEXT: &'static str = "packetboat 2026 tip";
    const MAX_BYTES: usize = MAX_TIP_BYTES;

    fn number(&self) -> u64 {
        self.sequence
    }

    fn encode(&self) -> Vec<u8> {
        let mut out = Writer::new();
        match &self.last {
            Some(last) => out.varint(last.counter).raw(&last.hash.0),
            None => out.varint(0),
        };
        self.learned.encode(&mut out);
        let wanted = if self.wanted.is_empty() { 0 } else { FLAG_WANTED };
        let refused = if self.refused.is_empty() { 0 } else { FLAG_REFUSED };
        match &self.checkpoint {
            Some(checkpoint) => {
                out.u8(FLAG_CHECKPOINT | wanted | refused).raw(&checkpoint.device.0).varint(checkpoint.number);
            }
            None => drop(out.u8(wanted | refused)),
        }
        if wanted != 0 {
            encode_wanted(&self.wanted, &mut out);
        }
        if refused != 0 {
            out.varint(self.refused.len().min(MAX_REFUSED) as u64);
            for (device, from) in self.refused.iter().take(MAX_REFUSED) {
                out.raw(&device.0).varint(*from);
            }
        }
        out.varint(self.recent.len() as u64);
        for packet in &self.recent {
            out.bytes(packet);
        }
        let mut plain = out.finish();
        let padding = padding(self.sequence, plain.len());
        plain.resize(plain.len() + padding, 0);
        plain
    }

    fn decode(sequence: u64, plain: &[u8]) -> Result<Self, WireError> {
        let mut input = Reader::new(plain);
        let counter: Counter = input.varint()?;
        let last = match counter {
            0 => None,
            counter => Some(Learned { counter, hash: PacketHash(input.array()?) }),
        };
        let learned = Knowledge::decode(&mut input)?;
        let flags = input.u8()?;
        if flags & !(FLAG_CHECKPOINT | FLAG_WANTED | FLAG_REFUSED) != 0 {
            return Err(WireError::NotCanonical);
        }
        let checkpoint = match flags & FLAG_CHECKPOINT {
            0 => None,
            _ => Some(CheckpointRef::decode(&mut input)?),
        };
        let mut wanted = BTreeSet::new();
        if flags & FLAG_WANTED != 0 {
            wanted = decode_wanted(&mut input)?;
            if wanted.is_empty() {
                return Err(WireError::NotCanonical);
            }
        }
        let refused = match flags & FLAG_REFUSED {
            0 => BTreeMap::new(),
            _ => decode_refused(&mut input)?,
        };
        let mut room = MAX_RECENT_BYTES;
        let mut recent = Vec::new();
        for _ in 0..input.count(1)? {
            let packet = input.bytes(room)?;
            room -= packet.len();
            recent.push(packet.to_vec());
        }
        let read = plain.len() - input.remaining();
        let zeros = input.raw(input.remaining())?;
        if zeros.len() != padding(sequence, read) || zeros.iter().any(|byte| *byte != 0) {
            return Err(WireError::NotCanonical);
        }
        Ok(Self { sequence, last, learned, checkpoint, wanted, refused, recent })
    }
}

fn decode_refused(input: &mut Reader<'_>) -> Result<BTreeMap<DeviceId, Counter>, WireError> {
    let count = input.count(DeviceId::LEN + 1)?;
    if count == 0 || count > MAX_REFUSED {
        return Err(WireError::Invalid { what: "number of refused lanes" });
    }
    let mut refused = BTreeMap::new();
    for _ in 0..count {
        let (device, from) = (DeviceId(input.array()?), input.varint()?);
        if from == 0 || refused.last_key_value().is_some_and(|(last, _)| *last >= device) {
            return Err(WireError::NotCanonical);
        }
        refused.insert(device, from);
    }
    Ok(refused)
}

/// How many zeros bring an object that seals `len` bytes to the size that tells its number.
fn padding(sequence: u64, len: usize) -> usize {
    let size = ((OVERHEAD + len) as u64) % SIZE_STEPS;
    ((sequence % SIZE_STEPS + SIZE_STEPS - size) % SIZE_STEPS) as usize
}

const FLAG_CHECKPOINT: u8 = 1;
const FLAG_WANTED: u8 = 2;
const FLAG_REFUSED: u8 = 4;

/// The sizes of this many tips in a row differ.
const SIZE_STEPS: u64 = 64;

/// The folder of the tips at an intermediary.
pub const TIPS_FOLDER: &str = "tips";
/// Greatest size of a tip object in bytes.
pub const MAX_TIP_BYTES: usize = 1024 * 1024;
/// Most lanes of which a tip tells that they are refused.
pub const MAX_REFUSED: usize = 64;
/// Most bytes of recent packets in a tip.
pub const MAX_RECENT_BYTES: usize = 64 * 1024;

#[cfg(test)]
mod tests {
    use proptest::collection::{btree_map, vec};
    use proptest::prelude::*;

    use super::*;
    use crate::ids::{PackId, VaultId};
    use crate::keys::{DeviceKey, KeyRing, Nonce, RootKey, SealError};

    fn ring() -> KeyRing {
        KeyRing::new(VaultId([7; 16]), RootKey([1; 32]))
    }

    fn key() -> DeviceKey {
        DeviceKey::from_seed(&[9; 32])
    }

    fn tip(sequence: u64) -> Tip {
        let last = Learned { counter: 3, hash: PacketHash([4; 32]) };
        let mut learned = Knowledge::new();
        learned.advance(key().device(), last);
        let checkpoint = Some(CheckpointRef { device: DeviceId([2; 32]), number: 5 });
        let (wanted, refused) = (BTreeSet::new(), BTreeMap::new());
        Tip { sequence, last: Some(last), learned, checkpoint, wanted, refused, recent: vec![vec![1; 30], vec![2; 20]] }
    }

    fn sealed(tip: &Tip) -> SealedTip {
        SealedTip::seal(&key(), &ring(), Nonce([6; 24]), tip).unwrap()
    }

    fn open(bytes: &[u8]) -> Result<Tip, TipError> {
        UnverifiedTip::parse(bytes.to_vec())?.verify(&key().device())?.open(&ring())
    }

    #[test]
    fn a_tip_round_trips() {
        let sealed = sealed(&tip(8));
        assert_eq!(sealed.number(), 8);
        assert_eq!(open(sealed.bytes()), Ok(tip(8)));
        let empty = Tip {
            sequence: 1,
            last: None,
            learned: Knowledge::new(),
            checkpoint: None,
            wanted: BTreeSet::new(),
            refused: BTreeMap::new(),
            recent: Vec::new(),
        };
        assert_eq!(open(self::sealed(&empty).bytes()), Ok(empty));
    }

    #[test]
    fn the_format_stays_as_it_was() {
        assert_eq!(
            blake3::hash(sealed(&tip(8)).bytes()).to_hex().as_str(),
            "cf4cf60803d2c20574f9e8ecbef65d31acb8610b641a2543ce40a807fd07f620"
        );
    }

    #[test]
    fn a_tip_that_wants_something_keeps_its_format() {
        let mut tip = tip(9);
        tip.wanted = [Wanted::Pack(PackId([3; 32])), Wanted::Checkpoint(tip.checkpoint.unwrap())].into();
        assert_eq!(open(sealed(&tip).bytes()), Ok(tip.clone()));
        assert_eq!(
            blake3::hash(sealed(&tip).bytes()).to_hex().as_str(),
            "ad5054ead56e4d994bb7707eb1ced7401d5b6202fe78db4922f18f52d89ec92e"
        );
    }

    #[test]
    fn a_tip_that_refuses_something_keeps_its_format() {
        let mut tip = tip(10);
        tip.refused = (1..=70).map(|n| (DeviceId([n; 32]), u64::from(n))).collect();
        let opened = open(sealed(&tip).bytes()).unwrap();
        tip.refused.retain(|device, _| device.0[0] as usize <= MAX_REFUSED);
        assert_eq!(opened, tip, "no more than so many are told");
        assert_eq!(
            blake3::hash(sealed(&tip).bytes()).to_hex().as_str(),
            "87ed25d422681cbb1555c4f458ecb7eb59a846b115efc37fbbcb98d4b31c4c32"
        );
    }

    #[test]
    fn the_size_tells_the_low_bits_of_the_sequence() {
        for sequence in 1..=200 {
            let sealed = sealed(&tip(sequence));
            assert_eq!(sealed.bytes().len() as u64 % 64, sequence % 64);
            assert_eq!(open(sealed.bytes()).unwrap().sequence, sequence);
        }
    }

    #[test]
    fn an_old_tip_has_a_smaller_sequence_before_it_is_opened() {
        let (old, new) = (sealed(&tip(8)), sealed(&tip(9)));
        assert!(old.number() < new.number());
    }

    #[test]
    fn the_tip_of_another_device_or_vault_is_refused() {
        let bytes = sealed(&tip(8)).bytes().to_vec();
        let other = DeviceKey::from_seed(&[8; 32]).device();
        let refused = UnverifiedTip::parse(bytes.clone()).unwrap().verify(&other).unwrap_err();
        assert_eq!(refused, SignedError::OtherDevice { kind: "tip" });
        let other = KeyRing::new(VaultId([8; 16]), RootKey([1; 32]));
        let verified = UnverifiedTip::parse(bytes).unwrap().verify(&key().device()).unwrap();
        assert!(matches!(verified.open(&other), Err(SignedError::OtherVault { .. })));
    }

    #[test]
    fn a_flipped_byte_anywhere_is_refused() {
        let bytes = sealed(&tip(8)).bytes().to_vec();
        for at in 0..bytes.len() {
            let mut flipped = bytes.clone();
            flipped[at] ^= 1;
            assert!(open(&flipped).is_err(), "byte {at}");
        }
        for len in 0..bytes.len() {
            assert!(open(&bytes[..len]).is_err(), "cut at {len}");
        }
    }

    #[test]
    fn a_signature_by_another_key_is_refused() {
        let mut bytes = sealed(&tip(8)).bytes().to_vec();
        let signed = bytes.len() - 64;
        let hash = blake3::derive_key(Tip::HASH_CONTEXT, &bytes[..signed]);
        bytes.truncate(signed);
        bytes.extend_from_slice(&DeviceKey::from_seed(&[8; 32]).sign(&hash));
        assert_eq!(open(&bytes), Err(SignedError::Seal(SealError::BadSignature)));
    }

    #[test]
    fn what_is_no_tip_says_so() {
        assert_eq!(open(b"hello"), Err(SignedError::NotOne { kind: "tip" }));
        let mut newer = sealed(&tip(8)).bytes().to_vec();
        newer[4] = 2;
        assert_eq!(open(&newer), Err(SignedError::NewerFormat { kind: "tip", version: 2 }));
        assert!(matches!(open(&vec![0; MAX_TIP_BYTES + 1]), Err(SignedError::TooLarge { .. })));
    }

    #[test]
    fn recent_packets_are_the_newest_that_fit() {
        let packets = [vec![3; 40_000], vec![2; 20_000], vec![1; 20_000]];
        let recent = Tip::fit_recent(packets);
        assert_eq!(recent.iter().map(|packet| packet[0]).collect::<Vec<_>>(), [2, 3]);
        assert!(Tip::fit_recent([vec![0; MAX_RECENT_BYTES + 1], vec![1]]).is_empty());
    }

    #[test]
    fn names_lead_to_devices_and_back() {
        let device = key().device();
        assert_eq!(Tip::device_of(&Tip::name(&device)), Some(device));
        assert_eq!(Tip::device_of(&ObjectName::new("tips/x").unwrap()), None);
        assert_eq!(Tip::device_of(&ObjectName::new(format!("tipsy/{device}")).unwrap()), None);
    }

    proptest! {
        #[test]
        fn the_content_is_canonical(
            sequence in 1..u64::MAX,
            counter in 0..u64::MAX,
            lanes in vec((any::<[u8; 32]>(), 1..u64::MAX, any::<[u8; 32]>()), 0..5),
            checkpoint in proptest::option::of((any::<[u8; 32]>(), 1..u64::MAX)),
            wanted in vec(any::<[u8; 32]>(), 0..3),
            refused in btree_map(any::<[u8; 32]>().prop_map(DeviceId), 1..u64::MAX, 0..3),
            recent in vec(vec(any::<u8>(), 0..50), 0..4),
        ) {
            let mut learned = Knowledge::new();
            for (device, counter, hash) in lanes {
                learned.advance(DeviceId(device), Learned { counter, hash: PacketHash(hash) });
            }
            let last = (counter > 0).then_some(Learned { counter, hash: PacketHash([1; 32]) });
            let checkpoint = checkpoint.map(|(device, number)| CheckpointRef { device: DeviceId(device), number });
            let wanted = wanted.into_iter().map(|pack| Wanted::Pack(PackId(pack))).collect();
            let tip = Tip { sequence, last, learned, checkpoint, wanted, refused, recent };
            let plain = tip.encode();
            prop_assert_eq!(Tip::decode(sequence, &plain), Ok(tip));
            prop_assert!(Tip::decode(sequence.wrapping_add(1), &plain).is_err());
            let mut longer = plain;
            longer.extend_from_slice(&[0; 64]);
            prop_assert!(Tip::decode(sequence, &longer).is_err());
        }

        #[test]
        fn arbitrary_bytes_never_panic(bytes in vec(any::<u8>(), 0..400), sequence in 1u64..200) {
            let _ = open(&bytes);
            if let Ok(tip) = Tip::decode(sequence, &bytes) {
                prop_assert_eq!(tip.encode(), bytes);
            }
        }
    }
}
