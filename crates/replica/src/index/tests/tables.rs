//! History, packets, lanes, packs, members and notes: each comes back, in its order.

use packetboat_core::body::PacketBody;
use packetboat_core::content::{PackIndex, PackedChunk};
use packetboat_core::ids::{PackId, VaultId};
use packetboat_core::item::Register;
use packetboat_core::keys::{DeviceKey, KeyRing, Nonce, PublicKey, RootKey};
use packetboat_core::packet::SealedPacket;
use packetboat_core::plan::HistoryRead;
use packetboat_core::tree::{MoveRecord, Past, Summary, TreeRead, TreeWrite};

use super::*;

fn sealed(device: u8, counter: u64) -> SealedPacket {
    sealed_with(device, counter, counter as u8)
}

fn sealed_with(device: u8, counter: u64, nonce: u8) -> SealedPacket {
    let key = DeviceKey::from_seed(&[device; 32]);
    let ring = KeyRing::new(VaultId([1; 16]), RootKey([1; 32]));
    let body = PacketBody {
        lamport: counter,
        time: 0,
        prerequisite: Knowledge::new(),
        needs: vec![],
        packs: vec![],
        inline: vec![],
        changes: vec![],
    };
    let previous = PacketHash([u8::from(counter > 1); 32]);
    SealedPacket::seal(&key, &ring, counter, previous, Nonce([nonce; 24]), &body).unwrap()
}

#[test]
fn moves_come_back_in_total_order() {
    let mut index = Index::in_memory().unwrap();
    let record = |stamp| MoveRecord {
        item: item_id(1),
        to: placed(stamp, ItemId::ROOT, "a"),
        before: placed(self::stamp(1, 1, 3), item_id(2), "b"),
        passed_over: false,
    };
    // A greater device is met first, so that the order of numbers is not that of ids.
    let stamps = [stamp(9, 5, 0), stamp(2, 5, 1), stamp(2, 5, 0), stamp(1, 300, 0)];
    stamps.iter().for_each(|stamp| index.put_move(&record(*stamp)).unwrap());
    let mut passed = record(stamps[1]);
    passed.passed_over = true;
    index.put_move(&passed).unwrap();
    let expected = vec![record(stamps[2]), passed, record(stamps[0]), record(stamps[3])];
    assert_eq!(index.moves_after(&stamp(1, 1, 0)).unwrap(), expected);
    assert_eq!(index.moves_after(&stamps[2]).unwrap(), expected[1..]);
    assert_eq!(index.moves_after(&stamps[3]).unwrap(), []);
}

#[test]
fn history_comes_back_in_order_and_past_versions_are_found() {
    let mut index = Index::in_memory().unwrap();
    let item = new_item(item_id(1), ItemId::ROOT, "a", file([1; 32], 5, 5));
    index.put_item(&item).unwrap();
    let mut old = item.heads[0].clone();
    (old.dot, old.content, old.lamport) = (dot(3, 4), file([2; 32], 6, 6), 14);
    let past = [
        Past::Mode(Register { stamp: stamp(9, 2, 7), value: 0o600 }),
        Past::Content(old.clone()),
        Past::Placed(placed(stamp(2, 8, 1), item_id(5), "b")),
    ];
    past.iter().rev().for_each(|past| index.put_history(item.id, past).unwrap());
    index.put_history(item.id, &past[1]).unwrap();
    index.put_history(item_id(2), &past[1]).unwrap();
    assert_eq!(index.history_of(item.id).unwrap(), past);
    assert_eq!(index.history_of(ItemId([3; 16])).unwrap(), []);
    assert_eq!(index.version(item.id, &old.dot).unwrap(), Some(old));
    assert_eq!(index.version(item.id, &item.heads[0].dot).unwrap().map(|head| head.content), Some(file([1; 32], 5, 5)));
    assert_eq!(index.version(item.id, &dot(2, 8)).unwrap(), None);
    assert_eq!(index.version(item_id(7), &dot(2, 8)).unwrap(), None);
}

#[test]
fn touched_items_are_listed_once_page_by_page() {
    let mut index = Index::in_memory().unwrap();
    for n in [3, 1, 2, 1, 700] {
        index.touch(item_id(n)).unwrap();
    }
    assert_eq!(index.touched_count().unwrap(), 4);
    let (mut found, mut after) = (Vec::new(), None);
    while let [item] = index.touched_after(after, 1).unwrap()[..] {
        found.push(item);
        after = Some(item);
    }
    found.sort_unstable();
    assert_eq!(found, [1, 2, 3, 700].map(item_id));
    index.untouch(item_id(2)).unwrap();
    index.untouch(ItemId([99; 16])).unwrap();
    assert_eq!(index.touched_count().unwrap(), 3);
}

#[test]
fn items_are_listed_page_by_page() {
    let mut index = Index::in_memory().unwrap();
    for n in 0..5 {
        index.put_item(&new_item(item_id(n), ItemId::ROOT, "a", Content::Directory)).unwrap();
    }
    let first = index.items_after(None, 3).unwrap();
    let rest = index.items_after(first.last().copied(), 3).unwrap();
    assert_eq!((first.len(), rest.len()), (3, 2));
}

#[test]
fn a_packet_is_folded_and_lets_its_bytes_go() {
    let mut index = Index::in_memory().unwrap();
    let packet = sealed(1, 2);
    let dot = packet.dot();
    assert_eq!(index.packet_row(dot).unwrap(), None);
    index.put_packet(&packet, Stage::Carried).unwrap();
    index.put_packet(&sealed(1, 1), Stage::Carried).unwrap();
    assert!(index.recent_packets(9, None).unwrap().is_empty());

    let summary = Summary { created: 1, edited: 2, moved: 3, deleted: 400, attributes: 5 };
    assert!(index.set_folded(dot, 7, -8, &summary).unwrap());
    assert!(!index.set_folded(self::dot(9, 9), 7, 8, &summary).unwrap());
    let row = index.packet_row(dot).unwrap().unwrap();
    assert_eq!(row.folded, Some(FoldedPacket { lamport: 7, time: -8, summary }));
    assert_eq!((row.hash, row.sealed_bytes), (packet.hash(), Some(packet.bytes().len() as u64)));
    let carried = index.packet_row(sealed(1, 1).dot()).unwrap().unwrap();
    assert_eq!((carried.folded, carried.sealed_bytes.is_some()), (None, true));

    index.drop_sealed(dot).unwrap();
    assert_eq!(index.sealed(dot).unwrap(), None);
    assert_eq!(index.packet_row(dot).unwrap().unwrap().sealed_bytes, None);
    index.put_packet(&packet, Stage::Carried).unwrap();
    assert_eq!(index.sealed(dot).unwrap().as_deref(), Some(packet.bytes()));
    assert_eq!(index.packet_row(dot).unwrap().unwrap().folded, row.folded);
}

#[test]
fn a_packet_whose_dot_is_taken_is_not_stored() {
    let mut index = Index::in_memory().unwrap();
    let packet = sealed(1, 1);
    assert!(index.put_packet(&packet, Stage::Carried).unwrap());
    assert!(index.put_packet(&packet, Stage::Carried).unwrap());
    assert!(!index.put_packet(&sealed_with(1, 1, 2), Stage::Carried).unwrap());
    assert_eq!(index.sealed_packet(packet.dot()).unwrap(), Some(packet));
}

#[test]
fn the_log_is_in_total_order_page_by_page() {
    let mut index = Index::in_memory().unwrap();
    let (mut times, summary) = (Vec::new(), Summary::default());
    for (device, counter, lamport) in [(3, 1, 5), (1, 1, 5), (2, 1, 5), (1, 2, 9), (2, 2, 6)] {
        let packet = sealed(device, counter);
        index.put_packet(&packet, Stage::Carried).unwrap();
        index.set_folded(packet.dot(), lamport, 0, &summary).unwrap();
        times.push((lamport, packet.device()));
    }
    times.sort_unstable();
    times.reverse();
    let (mut found, mut before) = (Vec::new(), None);
    while let [row] = &index.recent_packets(1, before).unwrap()[..] {
        before = Some((row.folded.unwrap().lamport, row.dot.device));
        found.extend(before);
    }
    assert_eq!(found, times);
    assert_eq!(index.recent_packets(9, None).unwrap().len(), 5);
    let device = sealed(1, 1).device();
    assert_eq!(index.packets(device, 1, 9).unwrap().len(), 2);
    assert_eq!(index.packets(device, 2, 2).unwrap().len(), 1);
}

#[test]
fn a_packet_is_found_by_the_beginning_of_its_hash() {
    let mut index = Index::in_memory().unwrap();
    let packet = sealed(1, 1);
    index.put_packet(&packet, Stage::Folded).unwrap();
    let hash = packet.hash().to_string();
    for prefix in ["", &hash[..1], &hash[..7], &hash, &hash.to_uppercase()] {
        assert_eq!(index.packet_by_prefix(prefix, 9).unwrap().len(), 1, "{prefix}");
    }
    for prefix in
        ["xyz", "é", &(hash.clone() + "0"), &format!("{}0", &PacketHash([!packet.hash().0[0]; 32]).to_string()[..9])]
    {
        assert!(index.packet_by_prefix(prefix, 9).unwrap().is_empty(), "{prefix}");
    }
}

#[test]
fn a_lane_advances_and_never_goes_back() {
    let mut index = Index::in_memory().unwrap();
    let device = DeviceId([5; 32]);
    let mut prerequisite = Knowledge::new();
    prerequisite.advance(DeviceId([6; 32]), learned(3));
    index.advance_lane(device, learned(4), 9, &prerequisite).unwrap();
    index.advance_lane(device, learned(2), 3, &Knowledge::new()).unwrap();
    assert_eq!(index.knowledge().of(&device), Some(learned(4)));
    assert_eq!(index.load_knowledge().unwrap(), *index.knowledge());
    assert_eq!(index.lane_prerequisite(device).unwrap(), prerequisite);
    assert_eq!(index.lane_prerequisite(DeviceId([6; 32])).unwrap(), Knowledge::new());
    assert_eq!(index.lane_lamport(device).unwrap(), Some(9));
    assert_eq!(index.max_lamport().unwrap(), 9);
}

#[test]
fn what_a_place_has_is_kept_by_place() {
    let mut index = Index::in_memory().unwrap();
    assert_eq!(index.published("a").unwrap(), 0);
    index.set_published("a", 7).unwrap();
    index.set_tip_etag("a", DeviceId([5; 32]), "x", 1).unwrap();
    index.set_tip_etag("a", DeviceId([5; 32]), "y", 2).unwrap();
    index.set_tip_etag("b", DeviceId([5; 32]), "z", 3).unwrap();
    assert_eq!(index.greatest_tip(&DeviceId([5; 32])).unwrap(), 3);
    assert_eq!(index.greatest_tip(&DeviceId([6; 32])).unwrap(), 0);
    assert_eq!(index.published("a").unwrap(), 7);
    assert_eq!(index.published("b").unwrap(), 0);
    assert_eq!(index.tip_etags("a").unwrap(), HashMap::from([(DeviceId([5; 32]), ("y".to_owned(), 2))]));
    index.forget_place("a").unwrap();
    assert_eq!(index.published("a").unwrap(), 0);
    assert!(index.tip_etags("a").unwrap().is_empty());
    assert_eq!(index.tip_etags("b").unwrap().len(), 1);
}

fn pack(n: u8, chunks: impl IntoIterator<Item = u8>) -> PackIndex {
    let mut offset = 60;
    let chunks = chunks.into_iter().map(|id| {
        // The short keys of all are the same, so that only the whole id tells them apart.
        let mut chunk = PackedChunk { id: ChunkId([4; 32]), offset, sealed_len: 100 + u32::from(id) };
        chunk.id.0[31] = id;
        offset += chunk.sealed_len + u32::from(n);
        chunk
    });
    PackIndex { pack: PackId([n; 32]), epoch: 2, chunks: chunks.collect(), size: 100_000 }
}

#[test]
fn chunks_are_found_in_their_packs() {
    let mut index = Index::in_memory().unwrap();
    let (first, second) = (pack(1, 0..40), pack(2, 30..60));
    index.put_pack(&first, PackState::Pending).unwrap();
    index.put_pack(&second, PackState::Stored).unwrap();
    index.put_pack(&pack(3, []), PackState::Stored).unwrap();
    for pack in [&first, &second, &pack(3, [])] {
        assert_eq!(index.pack_index(&pack.pack).unwrap().as_ref(), Some(pack));
    }
    let place = |pack: &PackIndex, n: usize| {
        let PackedChunk { offset, sealed_len, .. } = pack.chunks[n];
        Some(ChunkPlace::Pack { pack: pack.pack, epoch: 2, offset, sealed_len })
    };
    assert_eq!(index.chunk_place(&first.chunks[20].id).unwrap(), place(&first, 20));
    assert_eq!(index.chunk_place(&first.chunks[35].id).unwrap(), place(&second, 5), "a stored pack comes first");
    assert_eq!(index.chunk_place(&first.chunks[4].id).unwrap(), place(&first, 4));
    assert_eq!(index.chunk_place(&ChunkId([9; 32])).unwrap(), None);
    assert_eq!(index.packs_of(first.chunks.iter().map(|chunk| &chunk.id)).unwrap(), [first.pack, second.pack]);

    assert_eq!(index.pending_packs().unwrap(), [first.pack]);
    index.set_pack_state(&first.pack, PackState::Stored).unwrap();
    assert!(index.pending_packs().unwrap().is_empty());
    index.put_pack(&first, PackState::Pending).unwrap();
    assert_eq!(index.pack_row(&first.pack).unwrap().unwrap().state, PackState::Pending);
    assert_eq!(index.packs(None, 2).unwrap().len(), 2);
    assert_eq!(index.packs(Some(&second.pack), 2).unwrap()[0].pack, PackId([3; 32]));

    assert!(index.remove_pack(&second.pack).unwrap());
    assert!(!index.remove_pack(&second.pack).unwrap());
    assert_eq!(index.chunk_place(&first.chunks[35].id).unwrap(), place(&first, 35));
    assert_eq!(index.chunk_place(&second.chunks[25].id).unwrap(), None);
    index.remove_pack(&first.pack).unwrap();
    let left: i64 = index.sql.query_row("SELECT count(*) FROM chunk", [], |row| row.get(0)).unwrap();
    assert_eq!(left, 0);
}

#[test]
fn a_chunk_of_a_condemned_pack_is_stored_anew_though_a_packet_holds_it() {
    let mut index = Index::in_memory().unwrap();
    let packed = pack(1, [7]);
    let id = packed.chunks[0].id;
    index.put_inline_chunk(&id, dot(3, 4)).unwrap();
    index.put_pack(&packed, PackState::Stored).unwrap();
    let is_stored = |index: &Index| index.chunk_lookup(&Referable::All).unwrap().is_stored(&id);
    assert!(is_stored(&index));
    index.set_pack_state(&packed.pack, PackState::Condemned).unwrap();
    assert!(!is_stored(&index), "others may know of the pack alone");
    index.remove_pack(&packed.pack).unwrap();
    assert!(is_stored(&index));
}

#[test]
fn forgetting_packets_forgets_what_lies_inside_them_and_in_no_others() {
    let mut index = Index::in_memory().unwrap();
    // More than are looked at in one go.
    let chunk = |n: u32| ChunkId(super::measure::scrambled(n.into()));
    index.begin().unwrap();
    for n in 0..3000 {
        index.put_inline_chunk(&chunk(n), dot(3 + (n % 3) as u8, u64::from(n / 300) + 1)).unwrap();
    }
    let mut history = Knowledge::new();
    for (device, counter) in [(3, 4), (4, 10)] {
        let Dot { device, counter } = dot(device, counter);
        history.advance(device, Learned { counter, hash: PacketHash([7; 32]) });
    }
    index.forget_packets(&history).unwrap();
    for n in 0..3000 {
        let (device, counter) = (3 + n % 3, n / 300 + 1);
        let is_forgotten = device == 3 && counter <= 4 || device == 4;
        assert_eq!(index.chunk_place(&chunk(n)).unwrap().is_none(), is_forgotten, "chunk {n}");
    }
    index.commit().unwrap();
}

#[test]
fn a_chunk_in_use_is_looked_for_in_no_pack_of_which_nothing_told() {
    // Else a damaged pack would be let go because a pack that only this device knows of holds the same.
    let mut index = Index::in_memory().unwrap();
    let (damaged, pending) = (pack(1, [7]), pack(2, [7]));
    let id = damaged.chunks[0].id;
    index.put_pack(&damaged, PackState::Damaged).unwrap();
    index.put_pack(&pending, PackState::Pending).unwrap();
    let in_use = |index: &Index| {
        let mut used = Used::default();
        index.mark_used(&id, &mut used).unwrap();
        let packs = index.packs_in_use(None, 10, &used).unwrap();
        packs.into_iter().filter(|pack| pack.used > 0).map(|pack| pack.pack).collect::<Vec<_>>()
    };
    assert_eq!(in_use(&index), [damaged.pack]);
    index.set_pack_state(&pending.pack, PackState::Stored).unwrap();
    assert_eq!(in_use(&index), [pending.pack]);
}

#[test]
fn inline_chunks_are_found_in_their_packets_unless_a_pack_has_them() {
    let mut index = Index::in_memory().unwrap();
    let packed = pack(1, [7]);
    let id = packed.chunks[0].id;
    index.put_inline_chunk(&id, dot(3, 4)).unwrap();
    assert_eq!(index.chunk_place(&id).unwrap(), Some(ChunkPlace::Packet { dot: dot(3, 4) }));
    index.put_pack(&packed, PackState::Stored).unwrap();
    assert!(matches!(index.chunk_place(&id).unwrap(), Some(ChunkPlace::Pack { .. })));
    for doubtful in [PackState::Condemned, PackState::Damaged] {
        index.set_pack_state(&packed.pack, doubtful).unwrap();
        let places = index.chunk_places(&id).unwrap();
        assert!(matches!(places[..], [ChunkPlace::Packet { .. }, ChunkPlace::Pack { .. }]), "{places:?}");
        assert_eq!(index.chunk_place(&id).unwrap().as_ref(), places.first(), "the pack may be gone");
    }
    index.remove_pack(&packed.pack).unwrap();
    index.remove_inline_chunk(&id).unwrap();
    assert_eq!(index.chunk_place(&id).unwrap(), None);
}

#[test]
fn damaged_parts_and_packets_are_errors() {
    let mut index = Index::in_memory().unwrap();
    let packed = pack(1, [7]);
    index.put_pack(&packed, PackState::Stored).unwrap();
    index.put_packet(&sealed(1, 1), Stage::Carried).unwrap();
    index.sql.execute("UPDATE part SET chunks = x'0404'", []).unwrap();
    index.sql.execute("UPDATE packet SET sealed = x'0404'", []).unwrap();
    assert!(matches!(index.chunk_place(&packed.chunks[0].id), Err(IndexError::Damaged { .. })));
    assert!(matches!(index.pack_index(&packed.pack), Err(IndexError::Damaged { .. })));
}

#[test]
fn members_problems_and_notes_are_replaced_by_key() {
    let mut index = Index::in_memory().unwrap();
    let mut member = Member {
        device: DeviceId([5; 32]),
        public_key: PublicKey([1; 32]),
        exchange_key: [2; 32],
        name: "laptop".into(),
        introduced_name: "laptop".into(),
        state: vec![1],
        heard_lamport: 3,
        heard_time: 4,
    };
    index.put_member(&member).unwrap();
    member.name = "desk".into();
    index.put_member(&member).unwrap();
    let other = Member { device: DeviceId([4; 32]), ..member.clone() };
    index.put_member(&other).unwrap();
    assert_eq!(index.member(member.device).unwrap(), Some(member.clone()));
    assert_eq!(index.members().unwrap(), [other, member]);
    assert_eq!(index.member(DeviceId([9; 32])).unwrap(), None);

    index.set_problem("unreadable", b"a", "one").unwrap();
    index.set_problem("unreadable", b"a", "two").unwrap();
    index.set_problem("name", b"a", "three").unwrap();
    let texts: Vec<_> = index.problems().unwrap().into_iter().map(|problem| problem.text).collect();
    assert_eq!(texts, ["three", "two"]);
    index.clear_problem("name", b"a").unwrap();
    assert_eq!(index.problems().unwrap().len(), 1);

    index.set_meta("a", Some(b"1")).unwrap();
    index.set_meta("a", None).unwrap();
    assert_eq!(index.meta("a").unwrap(), None);
}

#[test]
fn directory_numbers_are_never_given_twice() {
    let mut index = Index::in_memory().unwrap();
    assert_eq!(index.new_dir_id().unwrap(), DirId(2));
    assert_eq!(index.new_dir_id().unwrap(), DirId(3));
    index.begin().unwrap();
    assert_eq!(index.new_dir_id().unwrap(), DirId(4));
    index.commit().unwrap();
    assert_eq!(index.new_dir_id().unwrap(), DirId(5));
    assert!(index.entries_in_staging().unwrap().is_empty());
    index.put_entry(&entry(DirId::STAGING, "a", item_id(1))).unwrap();
    assert_eq!(index.entries_in_staging().unwrap().len(), 1);
}

#[test]
fn items_by_id_come_in_order_whatever_the_order_in_which_they_were_stored() {
    let mut index = Index::in_memory().unwrap();
    let ids: Vec<ItemId> = (0..3u8)
        .flat_map(|high| (0..5u8).map(move |low| [high, low]))
        .map(|[high, low]| {
            let mut id = [9; 16];
            (id[0], id[15]) = (3 - high, low * 50);
            ItemId(id)
        })
        .collect();
    for id in &ids {
        let item = new_item(*id, ItemId::ROOT, &id.to_string(), Content::Directory);
        index.put_item(&item).unwrap();
    }
    let mut sorted = ids;
    sorted.sort_unstable();
    for page in [1, 2, 4, 7, 100] {
        let mut found: Vec<ItemId> = Vec::new();
        loop {
            let items = index.items_by_id(found.last().copied(), page).unwrap();
            if items.is_empty() {
                break;
            }
            found.extend(items.iter().map(|item| item.id));
        }
        assert_eq!(found, sorted, "by {page}");
    }
    assert_eq!(index.items_by_id(None, 1).unwrap()[0], index.item(sorted[0]).unwrap().unwrap());
}

#[test]
fn a_cleared_index_has_folded_nothing_and_keeps_what_is_this_replicas_own() {
    let mut index = Index::temporary().unwrap();
    let item = new_item(item_id(1), ItemId::ROOT, "a", Content::Directory);
    index.put_item(&item).unwrap();
    index.touch(item.id).unwrap();
    index.advance_lane(DeviceId([1; 32]), learned(3), 7, &Default::default()).unwrap();
    index.set_meta("keys", Some(b"kept")).unwrap();
    index.clear_folded().unwrap();
    assert_eq!(index.item(item.id).unwrap(), None);
    assert_eq!((index.count_items().unwrap(), index.touched_count().unwrap()), (0, 0));
    assert!(index.knowledge().is_empty());
    assert_eq!(index.meta("keys").unwrap().as_deref(), Some(&b"kept"[..]));
    index.put_item(&item).unwrap();
    assert_eq!(index.item(item.id).unwrap(), Some(item));
}
