//! Arbitrary sound bodies, drawn from small pools so that tables, batches and repeated chunks come up often.

use std::collections::{BTreeMap, BTreeSet, HashSet};
use std::num::NonZeroU32;

use proptest::collection::{btree_map, vec};
use proptest::prelude::*;

use crate::body::PacketBody;
use crate::change::{Change, MAX_TRAIL, Mark, Removed};
use crate::content::{ChunkList, ChunkRef, Content, FileContent, MAX_CHUNK_BYTES, PackIndex, PackedChunk};
use crate::garbage::Retention;
use crate::ids::{ChunkId, ContentId, DeviceId, Dot, ItemId, PackId, PacketHash};
use crate::keys::{DeviceKey, KeyId};
use crate::knowledge::{Knowledge, Learned};
use crate::name::Name;

/// The seed of the author's key.
pub(super) const AUTHOR_SEED: [u8; 32] = [42; 32];

pub(super) fn any_body() -> impl Strategy<Value = PacketBody> {
    let prerequisite = btree_map(any_stranger(), (1..1u64 << 40, any::<[u8; 32]>()), 0..4);
    let needs = proptest::collection::btree_set(any::<[u8; 32]>().prop_map(PackId), 0..3);
    let chunks = proptest::sample::subsequence((0..12u8).collect::<Vec<_>>(), 0..10).prop_shuffle();
    let changes = vec(any_change(), 0..12);
    (
        any_number(),
        any::<i64>(),
        prerequisite,
        needs,
        (chunks, vec((any_number32(), 1..4096u32), 10), 0..4usize),
        changes,
    )
        .prop_map(|(lamport, time, prerequisite, needs, (chunks, gaps, inline), changes)| {
            let (inline, packed) = chunks.split_at(inline.min(chunks.len()));
            PacketBody {
                lamport,
                time,
                prerequisite: knowledge(prerequisite),
                needs: needs.into_iter().collect(),
                packs: packs(packed, &gaps),
                inline: inline.iter().map(|n| (chunk_id(*n), vec![*n; usize::from(*n)])).collect(),
                changes: distinct_units(changes),
            }
        })
}

/// Drops changes of a unit that an earlier one sets.
fn distinct_units(changes: Vec<Change>) -> Vec<Change> {
    let mut units = HashSet::new();
    let mut sound = |change: &Change| {
        let own = change.units();
        let new = own.iter().all(|unit| !units.contains(unit)) && own.iter().collect::<HashSet<_>>().len() == own.len();
        if new {
            units.extend(own);
        }
        new
    };
    changes.into_iter().filter(|change| sound(change)).collect()
}

fn packs(chunks: &[u8], gaps: &[(u32, u32)]) -> Vec<PackIndex> {
    let pack = |(n, chunks): (usize, &[u8])| {
        let mut end = 0;
        let chunks: Vec<PackedChunk> = chunks
            .iter()
            .zip(gaps)
            .map(|(chunk, (gap, sealed_len))| {
                let offset = end + gap % 1000;
                end = offset + sealed_len;
                PackedChunk { id: chunk_id(*chunk), offset, sealed_len: *sealed_len }
            })
            .collect();
        PackIndex { pack: PackId([n as u8; 32]), epoch: gaps[n].0, size: end + gaps[n].1, chunks }
    };
    chunks.chunks(4).enumerate().map(pack).collect()
}

fn any_change() -> impl Strategy<Value = Change> {
    let attributes = btree_map(any_xattr_name(), any_value(), 0..3).prop_map(|map| map.into_iter().collect::<Vec<_>>());
    let create = (any_item(), any_parent(), any_name(), any_content(), proptest::option::of(0..=0o777u32), attributes);
    let content = (any_item(), any_content(), any_dots(), vec((any_dot(), any_number()), 0..=MAX_TRAIL));
    prop_oneof![
        6 => create.prop_filter_map("not beneath itself", |(item, parent, name, content, mode, xattrs)| {
            (item != parent).then_some(Change::Create { item, parent, name, content, mode, xattrs })
        }),
        3 => content.prop_map(|(item, content, replaces, trail)| {
            let trail = trail.into_iter().map(|(dot, lamport)| Mark { dot, lamport, time: lamport as i64 }).collect();
            Change::Content { item, content, replaces, trail }
        }),
        3 => (any_item(), any_parent(), any_name(), any_dots()).prop_filter_map("not beneath itself", |(item, parent, name, replaces)| {
            (item != parent).then_some(Change::Place { item, parent, name, replaces })
        }),
        1 => (any_item(), 0..=0o777u32).prop_map(|(item, mode)| Change::Mode { item, mode }),
        1 => (any_item(), any_xattr_name(), proptest::option::of(any_value()))
            .prop_map(|(item, name, value)| Change::Xattr { item, name, value }),
        2 => vec((any_item(), any_dots(), any_dots()), 0..4).prop_map(|removed| Change::Delete {
            removed: removed.into_iter().map(|(item, heads, placements)| Removed { item, heads, placements }).collect(),
        }),
        1 => any_membership(),
    ]
}

fn any_membership() -> impl Strategy<Value = Change> {
    let keys = vec((any_device(), vec(any::<u8>(), 0..100)), 0..4);
    let history = btree_map(any_device(), (1..100u64, any::<[u8; 32]>()), 0..3);
    prop_oneof![
        (any_text(), any::<[u8; 32]>(), proptest::option::of(any_device()))
            .prop_map(|(name, exchange_key, continues)| Change::Introduce { name, exchange_key, continues }),
        (any_device(), any_text()).prop_map(|(device, name)| Change::RenameDevice { device, name }),
        (any_device(), any_number(), any_number32(), any::<[u8; 32]>(), keys)
            .prop_map(|(device, cut, epoch, key, keys)| Change::Revoke { device, cut, epoch, key: KeyId(key), keys }),
        (any_device(), any_number()).prop_map(|(device, cut)| Change::Retire { device, cut }),
        (vec(any::<[u8; 32]>().prop_map(PackId), 0..3), history)
            .prop_map(|(packs, history)| Change::Condemn { packs, history: knowledge(history) }),
        any_retention().prop_map(|retention| Change::Retain { retention }),
    ]
}

fn any_retention() -> impl Strategy<Value = Retention> {
    prop_oneof![
        Just(Retention::All),
        (0..5000u32).prop_map(Retention::Days),
        (1..5000u32).prop_map(|versions| Retention::Versions(NonZeroU32::new(versions).unwrap())),
    ]
}

/// Items of two batches, and some that stand alone, the last before the root among them.
fn any_item() -> impl Strategy<Value = ItemId> {
    prop_oneof![
        6 => (0..12u32).prop_map(|n| ItemId([0xaa; 16]).successor(n)),
        3 => (0..4u32).prop_map(|n| ItemId([0xbb; 16]).successor(u32::MAX - 1).successor(n)),
        1 => (1..3u32).prop_map(|n| ItemId::ROOT.successor(n)),
        1 => Just(ItemId::ROOT.successor(u32::MAX)),
        1 => any::<u8>().prop_map(|n| ItemId([n.max(1); 16])),
    ]
}

fn any_parent() -> impl Strategy<Value = ItemId> {
    prop_oneof![1 => Just(ItemId::ROOT), 2 => any_item()]
}

/// Names of any bytes that a name may hold, most of them no UTF-8.
fn any_name() -> impl Strategy<Value = Name> {
    let bytes = prop_oneof![4 => vec(any::<u8>(), 1..20), 1 => vec(any::<u8>(), 255..=255)];
    bytes.prop_filter_map("a sound name", Name::new)
}

fn any_content() -> impl Strategy<Value = Content> {
    let target = vec(1..=255u8, 1..40).prop_map(Content::Symlink);
    prop_oneof![1 => Just(Content::Directory), 1 => target, 5 => any_file().prop_map(Content::File)]
}

fn any_file() -> impl Strategy<Value = FileContent> {
    let chunk = (any_chunk(), 1..=MAX_CHUNK_BYTES).prop_map(|(id, len)| ChunkRef { id, len });
    let mtime = prop_oneof![any::<i64>(), 1_790_000_000_000_000_000..1_790_000_060_000_000_000i64, Just(i64::MIN)];
    (vec(chunk, 0..5), 0..4u8, any::<u64>(), mtime).prop_map(|(chunks, kind, size, mtime)| {
        let total = chunks.iter().map(|chunk| u64::from(chunk.len)).sum();
        match (kind, &chunks[..]) {
            (0 | 1, [only, ..]) => {
                // The usual file of one chunk; sometimes its content id is another, which only a faulty author writes.
                let id = if kind == 0 { ContentId(only.id.0) } else { ContentId([0xcc; 32]) };
                FileContent { id, size: only.len.into(), mtime, chunks: ChunkList::Inline(vec![*only]) }
            }
            (2, [_, ..]) => FileContent { id: ContentId([0xdd; 32]), size, mtime, chunks: ChunkList::Indirect(chunks) },
            _ => FileContent { id: ContentId([0xee; 32]), size: total, mtime, chunks: ChunkList::Inline(chunks) },
        }
    })
}

/// One of the chunks that the packet may store, or of some that only earlier packets did.
fn any_chunk() -> impl Strategy<Value = ChunkId> {
    (0..18u8).prop_map(chunk_id)
}

fn chunk_id(n: u8) -> ChunkId {
    ChunkId([n; 32])
}

fn any_xattr_name() -> impl Strategy<Value = Vec<u8>> {
    vec(1..=255u8, 1..8).prop_map(|rest| [b"user.", &rest[..]].concat())
}

fn any_value() -> impl Strategy<Value = Vec<u8>> {
    vec(any::<u8>(), 0..30)
}

fn any_text() -> impl Strategy<Value = String> {
    "[a-zäß漢 -]{1,16}"
}

fn any_dots() -> impl Strategy<Value = Vec<Dot>> {
    vec(any_dot(), 0..4).prop_map(|dots| dots.into_iter().collect::<BTreeSet<_>>().into_iter().collect())
}

fn any_dot() -> impl Strategy<Value = Dot> {
    (any_device(), prop_oneof![1..4u64, 1..=u64::MAX]).prop_map(|(device, counter)| Dot { device, counter })
}

fn any_device() -> impl Strategy<Value = DeviceId> {
    prop_oneof![2 => any_stranger(), 1 => Just(DeviceKey::from_seed(&AUTHOR_SEED).device())]
}

fn any_stranger() -> impl Strategy<Value = DeviceId> {
    (0..5u8).prop_map(|n| DeviceId([n; 32]))
}

fn any_number() -> impl Strategy<Value = u64> {
    prop_oneof![0..1000u64, any::<u64>(), Just(u64::MAX)]
}

fn any_number32() -> impl Strategy<Value = u32> {
    prop_oneof![0..1000u32, any::<u32>(), Just(u32::MAX)]
}

fn knowledge(lanes: BTreeMap<DeviceId, (u64, [u8; 32])>) -> Knowledge {
    let mut knowledge = Knowledge::new();
    for (device, (counter, hash)) in lanes {
        knowledge.advance(device, Learned { counter, hash: PacketHash(hash) });
    }
    knowledge
}
