//! A vault that lies at two places, and who goes to which.

#![allow(dead_code, reason = "each file of tests uses its part")]

use packetboat_engine::replica::Replica;
use packetboat_storage::memory::MemoryStore;

use super::{Device, Pair, copy_of};

/// A laptop at the first place, a desk at the second, and a third device that goes to both.
pub(crate) struct Trio {
    pub(crate) pair: Pair,
    pub(crate) desk: Option<Device>,
    pub(crate) third: Option<Device>,
    pub(crate) second: MemoryStore,
}

impl Trio {
    pub(crate) fn new() -> Self {
        let (mut pair, third, second) = three_and_a_copy();
        let desk = pair.take_desk();
        let desk = pair.moved(desk, &second, "second");
        Self { pair, desk: Some(desk), third: Some(third), second }
    }

    pub(crate) fn desk(&mut self) -> &mut Device {
        self.desk.as_mut().unwrap()
    }

    pub(crate) fn third(&mut self) -> &mut Device {
        self.third.as_mut().unwrap()
    }

    /// The third device goes to the second place, or back to the first.
    pub(crate) fn carrier_goes(&mut self, to_second: bool) {
        let third = self.third.take().unwrap();
        let (store, place) =
            if to_second { (self.second.clone(), "second") } else { (self.pair.store.clone(), "memory") };
        self.third = Some(self.pair.moved(third, &store, place));
    }

    /// A copy of the laptop with a disk of its own goes to the second place; each has something to tell.
    pub(crate) fn copy_that_goes_on(&mut self, seed: u64, n: u64) -> Device {
        let (fs, mut parts) = self.pair.parts(seed + n);
        parts.index = self.pair.laptop.replica.index().copy_in_memory().unwrap();
        let copy = Device { fs, replica: Replica::open(parts).unwrap() };
        let copy = self.pair.moved(copy, &self.second, "second");
        copy.fs.set_now(self.pair.now_ms() * 1_000_000);
        self.pair.laptop.fs.write("one", format!("one {n}").as_bytes()).unwrap();
        copy.fs.write("other", format!("other {n}").as_bytes()).unwrap();
        copy
    }

    pub(crate) fn let_time_pass(&mut self) {
        self.pair.pass();
        let now = self.pair.now_ms() * 1_000_000;
        self.desk().fs.set_now(now);
        self.third().fs.set_now(now);
    }

    /// Everybody synchronises several times, the third device at both places.
    pub(crate) fn rest(&mut self) {
        for _ in 0..5 {
            self.let_time_pass();
            self.pair.laptop.sync();
            self.desk().sync();
            for to_second in [true, false] {
                self.carrier_goes(to_second);
                self.third().sync();
            }
        }
    }

    #[track_caller]
    pub(crate) fn assert_same(&mut self) {
        let files = self.pair.laptop.files();
        assert_eq!(self.desk().files(), files, "desk");
        assert_eq!(self.third().files(), files, "third");
    }
}

/// Three devices that know of each other, and a copy of their intermediary.
pub(crate) fn three_and_a_copy() -> (Pair, Device, MemoryStore) {
    let mut pair = Pair::new();
    let mut third = pair.third();
    third.sync();
    pair.settle();
    third.fs.set_now(pair.now_ms() * 1_000_000);
    third.sync();
    let second = copy_of(&pair.store);
    (pair, third, second)
}

/// A laptop and a desk at one place, and a third device that stays at a copy of it.
pub(crate) fn one_apart() -> (Pair, Device, MemoryStore) {
    let (pair, third, second) = three_and_a_copy();
    let third = pair.moved(third, &second, "second");
    (pair, third, second)
}

/// A device goes to the second place, where others synchronise after it, and back to the first, where the laptop does.
pub(crate) fn goes_there_and_back(
    pair: &mut Pair,
    device: Device,
    second: &MemoryStore,
    there: &mut [&mut Device],
) -> Device {
    let mut device = pair.moved(device, second, "second");
    device.sync();
    for other in there {
        other.fs.set_now(pair.now_ms() * 1_000_000);
        other.sync();
    }
    let store = pair.store.clone();
    let mut device = pair.moved(device, &store, "memory");
    device.sync();
    pair.pass();
    pair.laptop.sync();
    device
}

/// Bytes that compress to nothing less.
pub(crate) fn noise(len: usize) -> Vec<u8> {
    packetboat_testkit::rng::Rng::new(len as u64).bytes(len)
}
