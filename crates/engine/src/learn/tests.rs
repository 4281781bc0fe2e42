//! Tests of learning that need keys of their own; the rounds of whole replicas are in `tests/`.

use packetboat_core::ids::VaultId;
use packetboat_core::keys::{DeviceKey, KeyRing, Nonce, RootKey};
use packetboat_core::knowledge::Learned as LearnedOf;
use packetboat_core::tip::{SealedTip, Tip};
use packetboat_storage::memory::MemoryStore;

use super::*;
use crate::ports::Silent;

fn keys(seed: u8) -> Keys {
    let ring = KeyRing::new(VaultId([1; 16]), RootKey([2; 32]));
    Keys { ring, device: DeviceKey::from_seed(&[seed; 32]) }
}

#[test]
fn a_tip_that_tells_of_more_packets_than_there_can_be_costs_no_memory() {
    // As many counters as its device claimed were listed before the first of them was looked for.
    let (mut index, store, liar) = (Index::in_memory().unwrap(), MemoryStore::new(), keys(3));
    let last = Some(LearnedOf { counter: Counter::MAX, hash: PacketHash([4; 32]) });
    let (learned, wanted, recent) = (Knowledge::new(), BTreeSet::new(), Vec::new());
    let tip = Tip { sequence: 1, last, learned, checkpoint: None, wanted, refused: Default::default(), recent };
    let sealed = SealedTip::seal(&liar.device, &liar.ring, Nonce([5; 24]), &tip).unwrap();
    store.put(&Tip::name(&liar.device.device()), sealed.bytes()).unwrap();
    let learned = learn(&mut index, &store, &mut keys(6), "here", &mut Silent).unwrap();
    assert_eq!((learned.packets, learned.missing), (0, true));
}
