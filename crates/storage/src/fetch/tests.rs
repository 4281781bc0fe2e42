//! Chunks come back in few reads, and one that is bad costs no other.

use std::collections::BTreeSet;
use std::io;

use packetboat_core::ids::ChunkId;
use packetboat_core::store::{Listed, ObjectName, Put};
use proptest::prelude::*;

use super::*;
use crate::chunk::seal_chunk;
use crate::counting::CountingStore;
use crate::memory::MemoryStore;
use crate::pack::PackWriter;
use crate::testing::{noise, nonce, ring};

type Wanted = Vec<(ChunkRef, ChunkPlace)>;

/// Packs of chunks with these plaintexts, stored; what to ask for, in the same order.
fn stored(store: &dyn Store, ring: &KeyRing, packs: &[Vec<Vec<u8>>]) -> Wanted {
    let mut wanted = Wanted::new();
    let mut codec = ChunkCodec::new();
    for plains in packs {
        let mut writer = PackWriter::new(ring.vault(), ring.current());
        let mut chunks = Vec::new();
        for plain in plains {
            let chunk = seal_chunk(ring, &mut codec, plain, nonce(wanted.len() as u64)).unwrap();
            assert!(writer.push(&chunk).unwrap());
            chunks.push(chunk.chunk_ref());
        }
        let (index, bytes) = writer.finish(ring, nonce(1 << 40)).unwrap();
        store.put_new(&object_name(&index.pack), &bytes).unwrap();
        wanted.extend(index.chunks.iter().zip(chunks).map(|(packed, chunk)| {
            let (offset, sealed_len) = (packed.offset, packed.sealed_len);
            (chunk, ChunkPlace { pack: index.pack, epoch: index.epoch, offset, sealed_len })
        }));
    }
    wanted
}

/// All answers by entry; the order in which they came beside them.
fn fetched(store: &dyn Store, wanted: &Wanted, threads: usize) -> (Vec<Result<Vec<u8>, FetchError>>, Vec<usize>) {
    let mut answers: Vec<Option<Result<Vec<u8>, FetchError>>> = wanted.iter().map(|_| None).collect();
    let mut order = Vec::new();
    let flow = fetch_chunks(store, &ring(), wanted, threads, |number, answer| {
        assert!(answers[number].replace(answer).is_none(), "entry {number} is answered once");
        order.push(number);
        ControlFlow::<()>::Continue(())
    });
    assert!(flow.is_continue());
    (answers.into_iter().map(Option::unwrap).collect(), order)
}

fn plains(count: u64, len: usize) -> Vec<Vec<u8>> {
    (0..count).map(|number| noise(number, len)).collect()
}

/// A store that fails every read that touches some byte of any object, as a disk with a bad block does.
struct BadBlock<S>(S, u64);

impl<S: Store> Store for BadBlock<S> {
    fn describe(&self) -> String {
        self.0.describe()
    }
    fn put_new(&self, name: &ObjectName, bytes: &[u8]) -> Result<Put, StoreError> {
        self.0.put_new(name, bytes)
    }
    fn put(&self, name: &ObjectName, bytes: &[u8]) -> Result<(), StoreError> {
        self.0.put(name, bytes)
    }
    fn get(&self, name: &ObjectName, limit: u64) -> Result<Vec<u8>, StoreError> {
        self.0.get(name, limit)
    }
    fn get_range(&self, name: &ObjectName, offset: u64, len: u64) -> Result<Vec<u8>, StoreError> {
        if (offset..offset + len).contains(&self.1) {
            let source = io::Error::other("bad block");
            return Err(StoreError::Io { action: "read", name: name.to_string(), source });
        }
        self.0.get_range(name, offset, len)
    }
    fn list(&self, folder: &str) -> Result<Vec<Listed>, StoreError> {
        self.0.list(folder)
    }
    fn delete(&self, name: &ObjectName) -> Result<(), StoreError> {
        self.0.delete(name)
    }
}

#[test]
fn neighbours_share_a_read_and_distant_chunks_do_not() {
    let store = CountingStore::new(MemoryStore::new());
    let all = stored(&store, &ring(), &[plains(100, 20_000)]);
    let check = |name: &str, pick: &[usize], reads: u64| {
        let wanted: Wanted = pick.iter().map(|number| all[*number]).collect();
        let before = store.traffic();
        let (answers, _) = fetched(&store, &wanted, 1);
        for (number, answer) in pick.iter().zip(answers) {
            assert_eq!(answer.unwrap(), noise(*number as u64, 20_000), "{name}");
        }
        assert_eq!((store.traffic() - before).gets, reads, "{name}");
    };
    check("nothing", &[], 0);
    check("everything", &(0..100).collect::<Vec<_>>(), 1);
    check("gaps of three chunks, below 64 KiB", &[0, 4, 8], 1);
    check("gaps of four chunks, above 64 KiB", &[0, 5, 10], 3);
    check("any order", &[9, 3, 7, 5], 1);
    check("the same chunk twice", &[3, 3], 1);
}

#[test]
fn a_read_is_at_most_five_mebibytes() {
    let place = |offset, sealed_len| ChunkPlace { pack: PackId([1; 32]), epoch: 0, offset, sealed_len };
    let chunk = ChunkRef { id: ChunkId([0; 32]), len: 1 };
    let check = |count: u32, sealed_len: u32, reads: usize| {
        let wanted: Wanted = (0..count).map(|number| (chunk, place(number * sealed_len, sealed_len))).collect();
        let ranges = plan_ranges(&(0..wanted.len()).collect::<Vec<_>>(), &wanted);
        assert!(ranges.iter().all(|range| range.end - range.start <= MAX_RANGE_BYTES));
        assert_eq!(ranges.len(), reads, "{count} of {sealed_len}");
    };
    check(20, 1 << 20, 4);
    check(20, (1 << 20) + 1, 5);
    check(5, MAX_SEALED_BYTES, 5);
    check(100_000, 42, 1);
}

#[test]
fn one_thread_answers_in_the_order_of_packs_and_places() {
    let store = MemoryStore::new();
    let mut wanted = stored(&store, &ring(), &[plains(3, 1000), plains(4, 100_000)]);
    wanted.reverse();
    assert_eq!(fetched(&store, &wanted, 1).1, [3, 2, 1, 0, 6, 5, 4]);
    assert_eq!(fetched(&store, &wanted, 0).1, [3, 2, 1, 0, 6, 5, 4]);
}

#[test]
fn threads_fetch_the_same_chunks() {
    let store = MemoryStore::new();
    let packs: Vec<_> = (0..8u64).map(|pack| (0..30).map(|n| noise(pack * 100 + n, 20_000)).collect()).collect();
    let wanted = stored(&store, &ring(), &packs);
    let (answers, _) = fetched(&store, &wanted, 4);
    assert!(answers.into_iter().map(Result::unwrap).eq(packs.concat()));
}

#[test]
fn a_damaged_chunk_fails_alone() {
    let store = MemoryStore::new();
    let wanted = stored(&store, &ring(), &[plains(10, 5000)]);
    let at = wanted[4].1.offset as usize + 100;
    assert!(store.tamper(&object_name(&wanted[0].1.pack), |bytes| bytes[at] ^= 1));
    for threads in [1, 4] {
        for (number, answer) in fetched(&store, &wanted, threads).0.into_iter().enumerate() {
            match number {
                4 => assert!(matches!(answer, Err(FetchError::Damaged(ChunkError::Sealed(_))))),
                _ => assert_eq!(answer.unwrap(), noise(number as u64, 5000)),
            }
        }
    }
}

#[test]
fn a_bad_block_costs_only_the_chunk_that_lies_on_it() {
    let store = MemoryStore::new();
    let wanted = stored(&store, &ring(), &[plains(10, 5000)]);
    let store = CountingStore::new(BadBlock(store, u64::from(wanted[4].1.offset) + 100));
    for (number, answer) in fetched(&store, &wanted, 1).0.into_iter().enumerate() {
        match number {
            4 => assert!(matches!(answer, Err(FetchError::Unread { .. }))),
            _ => assert_eq!(answer.unwrap(), noise(number as u64, 5000)),
        }
    }
    assert_eq!(store.traffic().gets, 1 + 10);
}

#[test]
fn a_pack_cut_short_gives_what_is_left() {
    let store = MemoryStore::new();
    let wanted = stored(&store, &ring(), &[plains(10, 5000)]);
    let end = wanted[7].1.offset as usize + 1;
    assert!(store.tamper(&object_name(&wanted[0].1.pack), |bytes| bytes.truncate(end)));
    let sound: Vec<bool> = fetched(&store, &wanted, 1).0.iter().map(Result::is_ok).collect();
    assert_eq!(sound, (0..10).map(|number| number < 7).collect::<Vec<_>>());
}

#[test]
fn a_missing_pack_costs_one_read_and_no_chunk_of_another() {
    let store = CountingStore::new(MemoryStore::new());
    let wanted = stored(&store, &ring(), &[plains(10, 5000), vec![noise(77, 100)]]);
    store.delete(&object_name(&wanted[0].1.pack)).unwrap();
    let before = store.traffic();
    let (answers, _) = fetched(&store, &wanted, 1);
    assert!(answers[..10].iter().all(|answer| {
        matches!(answer, Err(FetchError::Unread { source }) if matches!(**source, StoreError::Missing { .. }))
    }));
    assert!(answers[10].is_ok());
    assert_eq!((store.traffic() - before).gets, 2);
}

#[test]
fn impossible_places_and_wrong_references_are_refused_one_by_one() {
    let store = CountingStore::new(MemoryStore::new());
    let sound = stored(&store, &ring(), &[plains(1, 5000)])[0];
    let before = store.traffic();
    for (offset, sealed_len) in [(0, 0), (26, 41), (0, u32::MAX), (u32::MAX, u32::MAX), (u32::MAX, 100), (32 << 20, 42)]
    {
        let wanted = vec![(sound.0, ChunkPlace { offset, sealed_len, ..sound.1 }), sound];
        let (answers, _) = fetched(&store, &wanted, 1);
        assert!(matches!(answers[0], Err(FetchError::ImpossiblePlace)), "{offset} {sealed_len}");
        assert!(answers[1].is_ok());
    }
    assert_eq!((store.traffic() - before).gets, 6);
    let other = ChunkRef { id: ChunkId([0; 32]), ..sound.0 };
    let longer = ChunkRef { len: 5001, ..sound.0 };
    let shifted = ChunkPlace { offset: sound.1.offset + 1, ..sound.1 };
    let unknown = ChunkPlace { epoch: 7, ..sound.1 };
    let wanted = vec![(other, sound.1), (longer, sound.1), (sound.0, shifted), (sound.0, unknown), sound];
    let (answers, _) = fetched(&store, &wanted, 1);
    assert!(answers[..4].iter().all(|answer| matches!(answer, Err(FetchError::Damaged(_)))));
    assert!(answers[4].is_ok());
}

#[test]
fn a_sink_that_breaks_stops_the_reading() {
    let store = CountingStore::new(MemoryStore::new());
    let packs: Vec<_> = (0..50u64).map(|pack| (0..3).map(|n| noise(pack * 100 + n, 1000)).collect()).collect();
    let wanted = stored(&store, &ring(), &packs);
    for threads in [1, 3] {
        let before = store.traffic();
        let flow = fetch_chunks(&store, &ring(), &wanted, threads, |number, _| ControlFlow::Break(number));
        assert!(flow.is_break());
        assert!((store.traffic() - before).gets <= 3 * threads as u64, "{threads}");
    }
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(32))]
    #[test]
    fn any_selection_in_any_order_comes_back(
        packs in prop::collection::vec(prop::collection::btree_set((any::<u64>(), 1usize..30_000), 1..8), 1..4),
        picks in prop::collection::vec(any::<prop::sample::Index>(), 0..30),
        threads in 0usize..4,
    ) {
        let store = MemoryStore::new();
        let mut seen = BTreeSet::new();
        let packs: Vec<Vec<Vec<u8>>> = packs
            .into_iter()
            .map(|pack| pack.into_iter().map(|(seed, len)| noise(seed, len)).filter(|p| seen.insert(p.clone())).collect())
            .filter(|pack: &Vec<Vec<u8>>| !pack.is_empty())
            .collect();
        let all = stored(&store, &ring(), &packs);
        let plain = packs.concat();
        let picks: Vec<usize> = picks.iter().map(|pick| pick.index(all.len())).collect();
        let wanted: Wanted = picks.iter().map(|pick| all[*pick]).collect();
        for (answer, pick) in fetched(&store, &wanted, threads).0.into_iter().zip(picks) {
            prop_assert!(answer.unwrap() == plain[pick]);
        }
    }

    #[test]
    fn ranges_cover_each_entry_once(places in prop::collection::vec((0u8..3, 0u32..20 << 20, 42u32..4 << 20), 0..60)) {
        let wanted: Wanted = places
            .into_iter()
            .map(|(pack, offset, sealed_len)| {
                let chunk = ChunkRef { id: ChunkId([0; 32]), len: 1 };
                (chunk, ChunkPlace { pack: PackId([pack; 32]), epoch: 0, offset, sealed_len })
            })
            .collect();
        let mut order: Vec<usize> = (0..wanted.len()).collect();
        sort_by_place(&mut order, &wanted);
        let mut covered = 0;
        for range in plan_ranges(&order, &wanted) {
            prop_assert_eq!(range.members.start, covered);
            covered = range.members.end;
            prop_assert!(range.end - range.start <= MAX_RANGE_BYTES);
            for number in &order[range.members.clone()] {
                let place = &wanted[*number].1;
                prop_assert!(place.pack == range.pack && u64::from(place.offset) >= range.start && place.end() <= range.end);
            }
        }
        prop_assert_eq!(covered, wanted.len());
    }
}
