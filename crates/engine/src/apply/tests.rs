//! Applying to a simulated disk what another device's packets say, with crashes and writes in between.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use packetboat_core::body::PacketBody;
use packetboat_core::change::{Change, Mark, Removed};
use packetboat_core::content::{ChunkList, ChunkRef, Content, FileContent};
use packetboat_core::ids::{ChunkId, Dot, ItemId, PacketHash, VaultId};
use packetboat_core::keys::{DeviceKey, KeyRing, Nonce, RootKey};
use packetboat_core::knowledge::Knowledge;
use packetboat_core::packet::SealedPacket;
use packetboat_core::tree::{Folding, TreeRead};
use packetboat_replica::fs::FileKind;
use packetboat_replica::index::{Index, PackState, Referable};
use packetboat_storage::chunk::{ChunkCodec, seal_chunk};
use packetboat_storage::chunker::Boundaries;
use packetboat_storage::memory::MemoryStore;
use packetboat_storage::pack::{PackWriter, object_name};
use packetboat_testkit::crash::was_crash;
use packetboat_testkit::rng::Rng;
use packetboat_testkit::sim_fs::{CrashModel, Node, SimFs, SimOptions};

use super::*;
use crate::absorb::absorb;
use crate::builder::{Builder, RoundChunks, Uploader, record_folded};
use crate::ports::{Entropy, Interrupt, Silent};
use crate::prepare::Preparer;
use crate::scan::scan;

const NOW: i64 = 1_800_000_000_000_000_000;
/// What is written long before now is at rest at once.
const THEN: i64 = 1_700_000_000_000_000_000;

struct Counting(u64);

impl Entropy for Counting {
    fn fill(&mut self, buffer: &mut [u8]) {
        self.0 += 1;
        buffer.copy_from_slice(&Rng::new(self.0).bytes(buffer.len()));
    }

    fn fork(&mut self) -> Box<dyn Entropy> {
        self.0 += 1;
        Box::new(Counting(self.0 << 20))
    }
}

/// One replica, and another device whose packets it learns.
struct World {
    fs: SimFs,
    index: Index,
    store: MemoryStore,
    keys: Keys,
    author: DeviceKey,
    counter: u64,
    previous: PacketHash,
    rules: IgnoreRules,
    inline: Vec<(ChunkId, Vec<u8>)>,
    entropy: Counting,
    limits: Limits,
    threads: usize,
}

impl World {
    fn new(options: SimOptions) -> Self {
        let fs = SimFs::new(options);
        fs.set_now(THEN);
        fs.make_dir(".packetboat").unwrap();
        fs.settle();
        let ring = KeyRing::new(VaultId([7; 16]), RootKey([1; 32]));
        let mut world = Self {
            fs,
            index: Index::in_memory().unwrap(),
            store: MemoryStore::new(),
            keys: Keys { ring, device: DeviceKey::from_seed(&[1; 32]) },
            author: DeviceKey::from_seed(&[2; 32]),
            counter: 0,
            previous: PacketHash([0; 32]),
            rules: IgnoreRules::none(),
            inline: Vec::new(),
            entropy: Counting(1),
            limits: Limits::default(),
            threads: 1,
        };
        world.recover().unwrap();
        world.fs.settle();
        world
    }

    fn dot(&self, counter: u64) -> Dot {
        Dot { device: self.author.device(), counter }
    }

    /// A file's content; its bytes travel in the next packet.
    fn content(&mut self, bytes: &[u8]) -> Content {
        let mut chunks = Vec::new();
        if !bytes.is_empty() {
            let id = self.keys.ring.chunk_id(bytes);
            if !self.inline.iter().any(|(known, _)| *known == id) {
                self.inline.push((id, bytes.to_vec()));
            }
            chunks.push(ChunkRef { id, len: bytes.len() as u32 });
        }
        let id = self.keys.ring.content_id(chunks.iter().map(|chunk| &chunk.id));
        Content::File(FileContent { id, size: bytes.len() as u64, mtime: THEN, chunks: ChunkList::Inline(chunks) })
    }

    fn file(&mut self, at: u8, parent: ItemId, name: &str, bytes: &[u8]) -> Change {
        let content = self.content(bytes);
        create(at, parent, name, content)
    }

    /// Publishes changes as the other device, and learns them.
    fn publish(&mut self, changes: Vec<Change>) -> Dot {
        self.counter += 1;
        let body = PacketBody {
            lamport: self.index.max_lamport().unwrap() + 1,
            time: NOW / 1_000_000,
            prerequisite: Knowledge::new(),
            needs: Vec::new(),
            packs: Vec::new(),
            inline: std::mem::take(&mut self.inline),
            changes,
        };
        let nonce = Nonce([self.counter as u8; 24]);
        let sealed =
            SealedPacket::seal(&self.author, &self.keys.ring, self.counter, self.previous, nonce, &body).unwrap();
        self.previous = sealed.hash();
        let packet = sealed.open(&self.keys.ring).unwrap();
        self.index.begin().unwrap();
        let knowledge = self.index.knowledge().clone();
        record_folded(&mut self.index, &self.keys.ring, &sealed, &packet, &knowledge, Folding::Other).unwrap();
        self.index.commit().unwrap();
        sealed.dot()
    }

    fn recover(&mut self) -> Result<(), SyncError> {
        recover_staging(&self.fs, &mut self.index, NOW)
    }

    fn absorb(&mut self) -> Result<(), SyncError> {
        let scanned = scan(&self.fs, &self.index, &self.rules, 1)?;
        let boundaries = Boundaries::new(self.keys.ring.chunker_seed());
        let known = RoundChunks::new(self.index.chunk_lookup(&Referable::All).unwrap());
        let preparer = Preparer { fs: &self.fs, ring: &self.keys.ring, boundaries: &boundaries, known: &known };
        let mut builder = Builder::new(
            &mut self.index,
            Uploader::inline(&self.store, &self.keys.ring),
            &self.keys,
            NOW / 1_000_000,
            256 * 1024,
            &known,
        )?;
        absorb(&self.fs, &preparer, 1, &mut builder, scanned, NOW, &mut self.entropy, &mut Silent)?;
        builder.finish(&mut self.entropy)?;
        Ok(())
    }

    fn apply(&mut self) -> Result<Received, SyncError> {
        self.apply_watched(&mut Silent)
    }

    fn apply_watched(&mut self, observer: &mut dyn Observer) -> Result<Received, SyncError> {
        let ctx = Apply {
            fs: &self.fs,
            index: &mut self.index,
            store: &self.store,
            keys: &self.keys,
            rules: &self.rules,
            threads: self.threads,
            now_ns: NOW,
            now_ms: NOW / 1_000_000,
            limits: self.limits,
        };
        apply(ctx, observer)
    }

    /// A whole round but for the intermediary.
    fn round(&mut self) -> Result<Received, SyncError> {
        self.index.rollback()?;
        self.recover()?;
        self.absorb()?;
        self.apply()
    }

    /// Applies and looks that everything was done and nothing is left behind.
    fn settle(&mut self) -> Received {
        let received = self.apply().unwrap();
        assert_eq!(received.waiting, 0, "{:?} {:?}", self.index.problems().unwrap(), self.fs);
        self.check_at_rest();
        received
    }

    /// Staging is empty, and the index says what the disk shows.
    fn check_at_rest(&mut self) {
        let staged: Vec<_> =
            self.fs.tree().into_keys().filter(|path| path.starts_with(b".packetboat/stage/")).collect();
        assert_eq!(staged, Vec::<Vec<u8>>::new());
        assert!(self.index.entries_in_staging().unwrap().is_empty());
        let before = self.index.max_lamport().unwrap();
        self.absorb().unwrap();
        assert_eq!(self.index.max_lamport().unwrap(), before, "nothing is left to publish: {:?}", self.fs);
        let found = scan(&self.fs, &self.index, &self.rules, 1).unwrap();
        assert!(found.arrivals.is_empty() && found.vanished.is_empty(), "{found:?}");
    }

    /// Nothing is left to be done for an item that is not touched: no round would come back to it.
    #[track_caller]
    fn check_heeded(&self, items: &[ItemId]) {
        let touched = self.index.touched_after(None, usize::MAX).unwrap();
        let unheeded: Vec<ItemId> = items.iter().filter(|item| !touched.contains(item)).copied().collect();
        let planned = plan(&self.index, &unheeded).unwrap();
        assert_eq!((planned.steps, planned.removals), (Vec::new(), Vec::new()), "and nothing waits");
    }

    /// What people see in the folder: bytes of files, targets of symlinks after `->`, nothing for directories.
    fn seen(&self) -> BTreeMap<String, String> {
        let tree = self.fs.tree().into_iter().filter(|(path, _)| !path.starts_with(b".packetboat"));
        tree.map(|(path, node)| {
            let text = match node {
                Node::File { bytes, .. } => String::from_utf8_lossy(&bytes).into_owned(),
                Node::Symlink { target } => format!("-> {}", String::from_utf8_lossy(&target)),
                _ => "/".to_owned(),
            };
            (String::from_utf8_lossy(&path).into_owned(), text)
        })
        .collect()
    }

    #[track_caller]
    fn shows(&self, wanted: &[(&str, &str)]) {
        let wanted: BTreeMap<String, String> =
            wanted.iter().map(|(path, text)| ((*path).to_owned(), (*text).to_owned())).collect();
        assert_eq!(self.seen(), wanted);
    }
}

fn item(at: u8) -> ItemId {
    ItemId([at; 16])
}

fn name(text: &str) -> Name {
    Name::new(text.as_bytes()).unwrap()
}

fn create(at: u8, parent: ItemId, text: &str, content: Content) -> Change {
    let mode = match content {
        Content::Directory => Some(0o755),
        Content::File(_) => Some(0o644),
        Content::Symlink(_) => None,
    };
    Change::Create { item: item(at), parent, name: name(text), content, mode, xattrs: Vec::new() }
}

fn place(at: u8, parent: ItemId, text: &str, replaces: Dot) -> Change {
    Change::Place { item: item(at), parent, name: name(text), replaces: vec![replaces] }
}

fn edit(at: u8, content: Content, replaces: Dot) -> Change {
    Change::Content { item: item(at), content, replaces: vec![replaces], trail: Vec::new() }
}

fn delete(items: &[(u8, Dot)]) -> Change {
    let removed = |(at, dot): &(u8, Dot)| Removed { item: item(*at), heads: vec![*dot], placements: vec![*dot] };
    Change::Delete { removed: items.iter().map(removed).collect() }
}

const ROOT: ItemId = ItemId::ROOT;

/// `d/` with `d/a`, `d/e/` and `d/e/b`, and `c` beside it, by one packet.
fn small_tree(world: &mut World) -> Dot {
    let changes = vec![
        create(1, ROOT, "d", Content::Directory),
        world.file(2, item(1), "a", b"one"),
        create(3, item(1), "e", Content::Directory),
        world.file(4, item(3), "b", b"two"),
        world.file(5, ROOT, "c", b"three"),
        create(6, item(3), "l", Content::Symlink(b"../a".to_vec())),
    ];
    world.publish(changes)
}

#[test]
fn a_tree_is_made_with_all_that_is_in_it() {
    let mut world = World::new(SimOptions::default());
    small_tree(&mut world);
    let received = world.settle();
    assert_eq!((received.created, received.bytes_written), (6, 11));
    world.shows(&[("c", "three"), ("d", "/"), ("d/a", "one"), ("d/e", "/"), ("d/e/b", "two"), ("d/e/l", "-> ../a")]);
    let tree = world.fs.tree();
    assert!(matches!(tree[&b"d/a"[..]], Node::File { mode: 0o644, mtime: THEN, .. }));
    assert!(matches!(tree[&b"d"[..]], Node::Directory { mode: 0o755, .. }));
    assert_eq!(world.apply().unwrap(), Received::default());
}

#[test]
fn files_are_edited_moved_and_deleted() {
    let mut world = World::new(SimOptions::default());
    let first = small_tree(&mut world);
    world.settle();
    let changed = world.content(b"one, edited");
    world.publish(vec![edit(2, changed, first), place(4, ROOT, "b2", first), delete(&[(5, first)])]);
    let received = world.settle();
    assert_eq!((received.edited, received.moved, received.deleted), (1, 1, 1));
    world.shows(&[("b2", "two"), ("d", "/"), ("d/a", "one, edited"), ("d/e", "/"), ("d/e/l", "-> ../a")]);
}

#[test]
fn two_names_are_swapped() {
    let mut world = World::new(SimOptions::default());
    let changes = vec![world.file(1, ROOT, "a", b"A"), world.file(2, ROOT, "b", b"B")];
    let first = world.publish(changes);
    world.settle();
    world.publish(vec![place(1, ROOT, "b", first), place(2, ROOT, "a", first)]);
    world.settle();
    world.shows(&[("a", "B"), ("b", "A")]);
}

#[test]
fn a_directory_changes_places_with_the_one_above_it() {
    let mut world = World::new(SimOptions::default());
    let changes = vec![
        create(1, ROOT, "a", Content::Directory),
        create(2, item(1), "b", Content::Directory),
        world.file(3, item(1), "in-a", b"1"),
        world.file(4, item(2), "in-b", b"2"),
    ];
    let first = world.publish(changes);
    world.settle();
    world.publish(vec![place(2, ROOT, "a", first), place(1, item(2), "b", first)]);
    world.settle();
    world.shows(&[("a", "/"), ("a/b", "/"), ("a/b/in-a", "1"), ("a/in-b", "2")]);
}

#[test]
fn a_directory_takes_the_name_of_a_deleted_file() {
    let mut world = World::new(SimOptions::default());
    let changes = vec![world.file(1, ROOT, "x", b"file")];
    let first = world.publish(changes);
    world.settle();
    let changes =
        vec![delete(&[(1, first)]), create(2, ROOT, "x", Content::Directory), world.file(3, item(2), "y", b"in it")];
    world.publish(changes);
    world.settle();
    world.shows(&[("x", "/"), ("x/y", "in it")]);
}

#[test]
fn a_deleted_tree_goes_from_the_leaves_up() {
    let mut world = World::new(SimOptions::default());
    let first = small_tree(&mut world);
    world.settle();
    world.publish(vec![delete(&[(1, first), (2, first), (3, first), (4, first), (6, first)])]);
    assert_eq!(world.settle().deleted, 5);
    world.shows(&[("c", "three")]);
}

#[test]
fn conflict_copies_appear_and_vanish() {
    let mut world = World::new(SimOptions::default());
    let changes = vec![world.file(1, ROOT, "f.txt", b"base")];
    let first = world.publish(changes);
    world.settle();
    let (left, right) = (world.content(b"left"), world.content(b"right"));
    let left = world.publish(vec![edit(1, left, first)]);
    let right = world.publish(vec![edit(1, right, first)]);
    assert_eq!(world.settle().conflicts, 1);
    let seen = world.seen();
    assert_eq!(seen.len(), 2, "{seen:?}");
    assert!(seen.values().any(|text| text == "left") && seen.values().any(|text| text == "right"));
    let settled = world.content(b"both");
    let change = Change::Content { item: item(1), content: settled, replaces: vec![left, right], trail: Vec::new() };
    world.publish(vec![change]);
    world.settle();
    world.shows(&[("f.txt", "both")]);
}

#[test]
fn directories_that_come_to_one_name_are_merged_on_disk() {
    let mut world = World::new(SimOptions::default());
    let changes = vec![
        create(1, ROOT, "x", Content::Directory),
        world.file(2, item(1), "one", b"1"),
        create(3, ROOT, "y", Content::Directory),
        world.file(4, item(3), "two", b"2"),
    ];
    let first = world.publish(changes);
    world.settle();
    world.publish(vec![place(3, ROOT, "x", first)]);
    world.settle();
    world.shows(&[("x", "/"), ("x/one", "1"), ("x/two", "2")]);
}

#[test]
fn an_unknown_object_in_the_way_is_left_alone() {
    let mut world = World::new(SimOptions::default());
    world.fs.write("c", b"mine").unwrap();
    small_tree(&mut world);
    assert_eq!(world.apply().unwrap().waiting, 1);
    assert_eq!(world.seen()["c"], "mine");
}

#[test]
fn ignored_items_are_not_made_and_ignored_entries_stay() {
    let mut world = World::new(SimOptions::default());
    world.rules = IgnoreRules::new("e/\n", "").unwrap().0;
    small_tree(&mut world);
    world.settle();
    world.shows(&[("c", "three"), ("d", "/"), ("d/a", "one")]);
    let problems = world.index.problems().unwrap();
    let paths: Vec<_> = problems.iter().filter(|problem| problem.kind == IGNORED).collect();
    assert_eq!(paths.len(), 1);
    assert_eq!(paths[0].subject, b"d/e");
}

#[test]
fn what_is_ignored_by_the_name_that_it_is_shown_under_is_not_looked_at_again() {
    // It was judged by its own name, which no rule ignores, and so it was planned anew in every round.
    let mut world = World::new(SimOptions::default());
    world.rules = IgnoreRules::new("*(conflict*\n", "").unwrap().0;
    let changes = vec![world.file(1, ROOT, "a", b"one"), world.file(2, ROOT, "a", b"two")];
    world.publish(changes);
    world.settle();
    assert!(!world.index.problems().unwrap().is_empty(), "one of the two is ignored");
    assert!(!any_unignored(&world.index, &world.rules).unwrap());
    world.rules = IgnoreRules::new("", "").unwrap().0;
    assert!(any_unignored(&world.index, &world.rules).unwrap());
}

#[test]
fn a_missing_chunk_concerns_its_file_alone() {
    let mut world = World::new(SimOptions::default());
    let lost = world.file(1, ROOT, "lost", b"nowhere");
    world.inline.clear();
    let other = world.file(2, ROOT, "other", b"here");
    let body = vec![lost, other];
    // The packet must know the chunk, though nobody has it.
    let id = world.keys.ring.chunk_id(b"nowhere");
    world.inline.push((id, b"nowhere".to_vec()));
    world.publish(body);
    world.index.remove_inline_chunk(&id).unwrap();
    assert_eq!(world.apply().unwrap().waiting, 1);
    world.shows(&[("other", "here")]);
    assert_eq!(world.index.problems().unwrap()[0].kind, CONTENT);
    world.index.put_inline_chunk(&id, world.dot(1)).unwrap();
    world.settle();
    world.shows(&[("lost", "nowhere"), ("other", "here")]);
    assert!(world.index.problems().unwrap().is_empty());
}

/// A file of several chunks whose bytes lie in a pack.
fn packed(world: &mut World, pieces: &[&[u8]]) -> Content {
    let ring = world.keys.ring.clone();
    let (mut writer, mut codec, mut chunks) = (PackWriter::new(ring.vault(), 0), ChunkCodec::new(), Vec::new());
    for piece in pieces {
        let sealed = seal_chunk(&ring, &mut codec, piece, world.entropy.nonce()).unwrap();
        writer.push(&sealed).unwrap();
        chunks.push(sealed.chunk_ref());
        world.inline.push((sealed.id, piece.to_vec()));
    }
    let (pack, bytes) = writer.finish(&ring, world.entropy.nonce()).unwrap();
    use packetboat_core::store::Store;
    world.store.put_new(&object_name(&pack.pack), &bytes).unwrap();
    world.index.put_pack(&pack, PackState::Stored).unwrap();
    let size = chunks.iter().map(|chunk| u64::from(chunk.len)).sum();
    let id = ring.content_id(chunks.iter().map(|chunk| &chunk.id));
    Content::File(FileContent { id, size, mtime: THEN, chunks: ChunkList::Inline(chunks) })
}

#[test]
fn content_comes_from_packs_and_unchanged_parts_from_the_old_file() {
    let mut world = World::new(SimOptions::default());
    let (a, b, c) = (vec![1u8; 300_000], vec![2u8; 300_000], vec![3u8; 300_000]);
    let before = packed(&mut world, &[&a, &b]);
    let changes = vec![create(1, ROOT, "f", before)];
    let first = world.publish(changes);
    world.settle();
    let after = packed(&mut world, &[&a, &c, &b]);
    world.publish(vec![edit(1, after, first)]);
    // Only the new piece is anywhere but on this disk.
    for piece in [&a, &b] {
        let id = world.keys.ring.chunk_id(piece);
        let Some(packetboat_replica::index::ChunkPlace::Pack { pack, .. }) = world.index.chunk_place(&id).unwrap()
        else {
            panic!("it is in a pack");
        };
        use packetboat_core::store::Store;
        if world.index.pack_index(&pack).unwrap().is_some_and(|pack| pack.chunks.len() == 2) {
            world.store.delete(&object_name(&pack)).unwrap();
        }
    }
    world.settle();
    assert_eq!(world.fs.read("f").unwrap(), [a, c, b].concat());
}

#[test]
fn names_that_fold_into_one_are_told_apart_on_this_disk_alone() {
    let mut world = World::new(SimOptions { case_insensitive: true, ..SimOptions::default() });
    let changes = vec![
        world.file(1, ROOT, "A", b"upper"),
        world.file(2, ROOT, "a", b"lower"),
        create(3, ROOT, "d", Content::Directory),
        world.file(4, item(3), "B", b"upper b"),
        world.file(5, item(3), "b", b"lower b"),
    ];
    let first = world.publish(changes);
    world.settle();
    let seen = world.seen();
    assert_eq!(seen.len(), 5, "{seen:?}");
    for text in ["upper", "lower", "upper b", "lower b"] {
        assert!(seen.values().any(|found| found == text), "{seen:?}");
    }
    let edited = world.content(b"lower, edited");
    world.publish(vec![edit(2, edited, first), delete(&[(1, first)])]);
    world.settle();
    assert!(world.seen().values().any(|found| found == "lower, edited"));
}

/// Story: what found its name taken by one that folds into it came to a stand-in, and its record stayed where it had been:
/// the next round took it for renamed by its user, and renamed it for everybody.
#[test]
fn names_that_fold_into_one_are_told_apart_when_their_directories_are_merged() {
    let mut world = World::new(SimOptions { case_insensitive: true, ..SimOptions::default() });
    let changes = vec![
        create(1, ROOT, "x", Content::Directory),
        world.file(2, item(1), "A", b"upper"),
        world.file(3, item(1), "L", b"upper link"),
        create(4, ROOT, "y", Content::Directory),
        world.file(5, item(4), "a", b"lower"),
        create(6, item(4), "l", Content::Symlink(b"target".to_vec())),
        create(7, item(4), "X", Content::Directory),
        world.file(8, item(7), "in", b"deep"),
    ];
    let first = world.publish(changes);
    world.settle();
    world.publish(vec![place(4, ROOT, "x", first)]);
    world.settle();
    let seen = world.seen();
    for (path, text) in [("x/A", "upper"), ("x/L", "upper link"), ("x/X/in", "deep")] {
        assert_eq!(seen[path], text);
    }
    for text in ["lower", "-> target"] {
        assert!(seen.values().any(|found| found == text), "{seen:?}");
    }
    // What stands in for a name stays that name's: an edit comes there, and the name itself when it is free.
    let edited = world.content(b"lower, edited");
    world.publish(vec![edit(5, edited, first), delete(&[(2, first)])]);
    world.settle();
    let seen = world.seen();
    assert!(seen.iter().any(|(path, text)| path.starts_with("x/") && text == "lower, edited"), "{seen:?}");
}

#[test]
fn a_name_changes_its_case_where_cases_are_folded() {
    let mut world = World::new(SimOptions { case_insensitive: true, ..SimOptions::default() });
    let changes = vec![world.file(1, ROOT, "readme", b"text")];
    let first = world.publish(changes);
    world.settle();
    world.publish(vec![place(1, ROOT, "README", first)]);
    world.settle();
    world.shows(&[("README", "text")]);
}

#[test]
fn forbidden_names_get_stand_ins() {
    let options = SimOptions { forbidden_bytes: b":?".to_vec(), max_name: 120, ..SimOptions::default() };
    let mut world = World::new(options);
    let long = "n".repeat(200);
    let changes = vec![
        world.file(1, ROOT, "a:b", b"colon"),
        create(2, ROOT, "d?", Content::Directory),
        world.file(3, item(2), "x:y", b"inner"),
        world.file(4, ROOT, &long, b"long"),
    ];
    world.publish(changes);
    world.settle();
    let seen = world.seen();
    assert_eq!(seen["a%3Ab"], "colon");
    assert_eq!(seen["d%3F/x%3Ay"], "inner");
    assert!(seen.values().any(|text| text == "long"));
}

/// Story: what stood under a stand-in name gave way to an item of that very name, and came back under the name that it had in
/// staging, `park-5`, for good.
#[test]
fn what_stands_under_a_stand_in_name_gives_way_to_what_has_that_name_and_gets_another() {
    let refusing = SimOptions { forbidden_bytes: b":".to_vec(), ..SimOptions::default() };
    let folding = SimOptions { case_insensitive: true, ..SimOptions::default() };
    for options in [refusing, folding] {
        let mut world = World::new(options);
        let changes = vec![
            world.file(1, ROOT, "A:B", b"first"),
            world.file(2, ROOT, "a:b", b"second"),
            create(3, ROOT, "D:", Content::Directory),
            create(4, ROOT, "d:", Content::Directory),
            world.file(5, item(4), "in", b"third"),
        ];
        world.publish(changes);
        world.settle();
        let stand_ins: Vec<String> =
            world.seen().into_keys().filter(|path| path.contains(['%', '~']) && !path.contains('/')).collect();
        assert!(!stand_ins.is_empty());
        let changes = (10u8..).zip(&stand_ins).map(|(at, path)| world.file(at, ROOT, path, path.as_bytes()));
        let changes = changes.collect();
        world.publish(changes);
        world.settle();
        let seen = world.seen();
        for path in &stand_ins {
            assert_eq!(&seen[path], path, "{seen:?}");
        }
        for text in ["first", "second", "third"] {
            assert!(seen.values().any(|found| found == text), "{seen:?}");
        }
        assert!(!seen.keys().any(|path| path.contains("park")), "{seen:?}");
    }
}

#[test]
fn a_write_that_slips_in_at_any_call_survives() {
    for call in 1..200 {
        let mut world = World::new(SimOptions::default());
        let changes = vec![world.file(1, ROOT, "f", b"base"), world.file(2, ROOT, "g", b"goes")];
        let first = world.publish(changes);
        world.settle();
        let changed = world.content(b"theirs");
        world.publish(vec![edit(1, changed, first), delete(&[(2, first)])]);
        let before = world.fs.calls();
        world.fs.on_call(call, |fs| {
            fs.set_now(THEN + 1_000_000_000);
            fs.write("f", b"mine").unwrap();
            fs.write("g", b"also mine").unwrap();
        });
        world.apply().unwrap();
        world.check_heeded(&[item(1), item(2)]);
        let done = world.fs.calls() < before + call;
        for _ in 0..3 {
            world.round().unwrap();
        }
        if done {
            return;
        }
        let seen = world.seen();
        for text in ["mine", "also mine"] {
            assert!(seen.values().any(|found| found == text), "call {call}: {seen:?}");
        }
    }
    panic!("it never ended");
}

/// A tree that is edited, moved, swapped, deleted from and added to at once.
fn busy(world: &mut World) {
    let changes = vec![
        create(1, ROOT, "d", Content::Directory),
        world.file(2, item(1), "a", b"one"),
        world.file(3, item(1), "b", b"two"),
        create(4, ROOT, "e", Content::Directory),
        world.file(5, item(4), "gone", b"three"),
        world.file(6, ROOT, "s", b"S"),
        world.file(7, ROOT, "t", b"T"),
        world.file(8, ROOT, "kind", b"a file"),
    ];
    let first = world.publish(changes);
    world.settle();
    let edited = world.content(b"one, edited");
    let changes = vec![
        edit(2, edited, first),
        place(1, ROOT, "d2", first),
        place(6, ROOT, "t", first),
        place(7, ROOT, "s", first),
        delete(&[(4, first), (5, first), (8, first)]),
        create(9, ROOT, "kind", Content::Directory),
        world.file(10, item(9), "new", b"four"),
        place(3, item(9), "moved", first),
    ];
    world.publish(changes);
    world.fs.settle();
}

const BUSY: [(&str, &str); 7] = [
    ("d2", "/"),
    ("d2/a", "one, edited"),
    ("kind", "/"),
    ("kind/moved", "two"),
    ("kind/new", "four"),
    ("s", "T"),
    ("t", "S"),
];

#[test]
fn many_changes_at_once_end_in_the_right_tree() {
    let mut world = World::new(SimOptions::default());
    busy(&mut world);
    world.settle();
    world.shows(&BUSY);
}

#[test]
fn a_file_system_that_can_little_ends_in_the_right_tree() {
    let options = SimOptions {
        no_exchange: true,
        no_btime: true,
        no_xattrs: true,
        no_sync_all: true,
        time_granularity: 2_000_000_000,
        ..SimOptions::default()
    };
    let mut world = World::new(options);
    busy(&mut world);
    world.settle();
    world.shows(&BUSY);
}

#[test]
fn small_batches_end_in_the_right_tree() {
    let mut world = World::new(SimOptions::default());
    world.limits = Limits { items: 1, bytes: 1, ..Limits::default() };
    busy(&mut world);
    world.settle();
    world.shows(&BUSY);
}

/// Directories that change places, come to one name, and are replaced by others.
fn tangled(world: &mut World) {
    let changes = vec![
        create(1, ROOT, "a", Content::Directory),
        create(2, item(1), "b", Content::Directory),
        world.file(3, item(1), "in-a", b"1"),
        world.file(4, item(2), "in-b", b"2"),
        create(5, ROOT, "x", Content::Directory),
        world.file(6, item(5), "one", b"3"),
        create(7, ROOT, "y", Content::Directory),
        world.file(8, item(7), "two", b"4"),
        create(9, ROOT, "p", Content::Directory),
        world.file(10, item(9), "in-p", b"5"),
        create(11, ROOT, "q", Content::Directory),
        world.file(12, item(11), "in-q", b"6"),
    ];
    let first = world.publish(changes);
    world.settle();
    world.publish(vec![
        place(2, ROOT, "a", first),
        place(1, item(2), "b", first),
        place(7, ROOT, "x", first),
        place(9, ROOT, "q", first),
        place(11, ROOT, "p", first),
    ]);
    world.fs.settle();
}

const TANGLED: [(&str, &str); 11] = [
    ("a", "/"),
    ("a/b", "/"),
    ("a/b/in-a", "1"),
    ("a/in-b", "2"),
    ("p", "/"),
    ("p/in-q", "6"),
    ("q", "/"),
    ("q/in-p", "5"),
    ("x", "/"),
    ("x/one", "3"),
    ("x/two", "4"),
];

/// Crashes at every operation of applying, in every way, and looks that the next rounds end in the right tree.
fn crash_everywhere(prepare: fn(&mut World), wanted: &[(&str, &str)]) {
    let wanted: BTreeMap<String, String> =
        wanted.iter().map(|(path, text)| ((*path).to_owned(), (*text).to_owned())).collect();
    for model in [CrashModel::OrderedMetadata, CrashModel::Anything] {
        for at in 1.. {
            let mut ended = false;
            for seed in 0..4u64 {
                let mut world = World::new(SimOptions { crash_model: model, ..SimOptions::default() });
                prepare(&mut world);
                world.fs.crash_at(at);
                match world.apply() {
                    Ok(_) => ended = true,
                    Err(error) => assert!(was_crash(&error), "{error:?}"),
                }
                world.fs = match seed {
                    0 => world.fs.kill(),
                    _ => world.fs.crash(&mut Rng::new(seed * 1000 + at)),
                };
                if seed >= 2 {
                    // It crashes once more while it recovers.
                    world.fs.crash_at(1 + (at * seed) % 23);
                    if let Err(error) = world.round() {
                        assert!(was_crash(&error), "{error:?}");
                    }
                    world.fs = world.fs.crash(&mut Rng::new(seed * 2000 + at));
                }
                for _ in 0..3 {
                    let received = world.round().unwrap_or_else(|error| panic!("{model:?} {at} {seed}: {error:?}"));
                    if received.waiting == 0 {
                        break;
                    }
                }
                assert_eq!(world.seen(), wanted, "{model:?} {at} {seed}");
                if let Some(Node::Directory { mode, .. }) = world.fs.tree().get(&b"closed"[..]) {
                    assert_eq!(*mode, 0o500, "{model:?} {at} {seed}");
                }
                world.check_at_rest();
            }
            if ended {
                break;
            }
        }
    }
}

#[test]
fn a_crash_at_any_operation_costs_nothing() {
    crash_everywhere(busy, &BUSY);
}

#[test]
fn a_crash_while_directories_change_places_costs_nothing() {
    crash_everywhere(tangled, &TANGLED);
}

/// Story: a version took the place of one that went aside as its conflict copy, and the power loss took the record of it.
/// What stood in the place was taken for a new file, and stayed beside the version that it was.
#[test]
fn a_crash_while_a_version_takes_the_place_of_another_leaves_no_third() {
    fn conflict(world: &mut World) {
        let changes = vec![world.file(1, ROOT, "f.txt", b"base")];
        let first = world.publish(changes);
        let left = world.content(b"left");
        world.publish(vec![edit(1, left, first)]);
        world.settle();
        let right = world.content(b"right");
        world.publish(vec![edit(1, right, first)]);
        world.fs.settle();
    }
    let mut undisturbed = World::new(SimOptions::default());
    conflict(&mut undisturbed);
    undisturbed.settle();
    let wanted = undisturbed.seen();
    assert_eq!((wanted.len(), &*wanted["f.txt"]), (2, "right"));
    crash_everywhere(conflict, &wanted.iter().map(|(path, text)| (&**path, &**text)).collect::<Vec<_>>());
}

/// Story: a file had come to its place, and the crash took the record of it. Before the next round its author wrote a later
/// version, and the earlier one was set against it as if somebody had written it here.
#[test]
fn a_file_whose_record_a_crash_took_follows_what_its_author_wrote_since() {
    for at in 1.. {
        let mut world = World::new(SimOptions::default());
        let changes = vec![world.file(1, ROOT, "f", b"first"), world.file(2, ROOT, "g", b"other")];
        let first = world.publish(changes);
        world.fs.settle();
        world.fs.crash_at(at);
        let ended = world.apply().is_ok();
        world.fs = world.fs.kill();
        world.index.rollback().unwrap();
        let later = world.content(b"later");
        let trail = vec![Mark { dot: first, lamport: 1, time: NOW / 1_000_000_000 }];
        world.publish(vec![Change::Content { item: item(1), content: later, replaces: vec![first], trail }]);
        for _ in 0..2 {
            world.round().unwrap();
        }
        world.shows(&[("f", "later"), ("g", "other")]);
        world.check_at_rest();
        if ended {
            break;
        }
    }
}

/// Story: a directory that may not be written was recorded with its permissions before it had them; a power loss in
/// between left it open for ever.
#[test]
fn a_crash_before_a_directory_is_closed_leaves_it_to_be_closed() {
    fn closed(world: &mut World) {
        tangled(world);
        let mut closed = create(13, ROOT, "closed", Content::Directory);
        if let Change::Create { mode, .. } = &mut closed {
            *mode = Some(0o500);
        }
        let changes = vec![closed, world.file(14, item(13), "in", b"7")];
        world.publish(changes);
        world.fs.settle();
    }
    let wanted: Vec<(&str, &str)> = TANGLED.into_iter().chain([("closed", "/"), ("closed/in", "7")]).collect();
    crash_everywhere(closed, &wanted);
}

/// Lets every call of applying fail once with this error, and looks that the next rounds end in the right tree.
fn fail_everywhere(errno: i32, expected: fn(&SyncError) -> bool) {
    for (prepare, wanted) in [(busy as fn(&mut World), &BUSY[..]), (tangled, &TANGLED)] {
        for call in 1.. {
            let mut world = World::new(SimOptions::default());
            prepare(&mut world);
            let before = world.fs.calls();
            world.fs.fail_at(call, errno);
            let result = world.apply();
            assert!(result.as_ref().err().is_none_or(expected), "{call}: {result:?}");
            if world.fs.calls() < before + call {
                world.shows(wanted);
                break;
            }
            for _ in 0..3 {
                world.round().unwrap();
            }
            world.shows(wanted);
            world.check_at_rest();
        }
    }
}

#[test]
fn a_disk_that_runs_full_at_any_operation_is_told_and_loses_nothing() {
    fail_everywhere(28, |error| matches!(error, SyncError::DiskFull));
}

#[test]
fn what_the_system_refuses_waits_and_stops_nothing_else() {
    fail_everywhere(13, |error| matches!(error, SyncError::Disk { .. }));
}

#[test]
fn a_disk_that_fails_ends_the_round_and_the_next_goes_on() {
    fail_everywhere(5, |error| matches!(error, SyncError::Disk { .. }));
}

#[test]
fn a_preview_lists_what_would_be_done_and_does_nothing() {
    let mut world = World::new(SimOptions::default());
    busy(&mut world);
    let before = world.fs.calls();
    let steps = planned_steps(&world.index, 100).unwrap();
    assert_eq!(world.fs.calls(), before);
    let path = |text: &str| RelPath::new(text.as_bytes()).unwrap();
    assert!(steps.iter().any(|step| step.action == Action::Remove && step.path == path("e/gone")));
    assert!(steps.iter().any(|step| step.action == Action::Move && step.to == Some(path("d2"))));
    assert!(steps.iter().any(|step| step.action == Action::Make && step.path == path("kind/new")));
    assert!(steps.iter().any(|step| step.action == Action::Edit && step.path == path("d/a")));
}

#[test]
fn a_writer_that_held_the_old_file_open_is_noticed() {
    use std::sync::Arc;
    use std::sync::atomic::{AtomicBool, Ordering};
    let (mut hits, mut kept) = (0, 0);
    for call in 1..80 {
        let mut world = World::new(SimOptions::default());
        let changes = vec![world.file(1, ROOT, "f", b"base"), world.file(2, ROOT, "g", b"goes")];
        let first = world.publish(changes);
        world.settle();
        let changed = world.content(b"theirs");
        world.publish(vec![edit(1, changed, first), delete(&[(2, first)])]);
        let wrote = Arc::new(AtomicBool::new(false));
        let flag = Arc::clone(&wrote);
        world.fs.on_call(call, move |fs| {
            fs.set_now(THEN + 1_000_000_000);
            for (path, node) in fs.tree() {
                let old = matches!(&node, Node::File { bytes, .. } if bytes == b"base" || bytes == b"goes");
                if old && path.starts_with(b".packetboat/stage/") {
                    fs.write(&path, b"written late").unwrap();
                    flag.store(true, Ordering::Relaxed);
                }
            }
        });
        world.apply().unwrap();
        if wrote.load(Ordering::Relaxed) {
            hits += 1;
            for _ in 0..2 {
                world.round().unwrap();
            }
            kept += u32::from(world.seen().values().any(|text| text == "written late"));
        }
    }
    // Between the last look and the unlink of each of the two files there is an instant that no system call closes.
    assert!(hits >= 6 && kept >= hits - 2, "{kept} of {hits}");
}

#[test]
fn a_large_file_goes_on_where_a_crash_stopped_it() {
    let pieces: Vec<Vec<u8>> = (0..6u8).map(|at| vec![at; 3000]).collect();
    let whole = pieces.concat();
    for at in 1..100 {
        let mut world = World::new(SimOptions::default());
        world.limits.window = 7000;
        let content = packed(&mut world, &pieces.iter().map(Vec::as_slice).collect::<Vec<_>>());
        world.publish(vec![create(1, ROOT, "large", content)]);
        world.fs.settle();
        world.fs.crash_at(at);
        let ended = world.apply().is_ok();
        world.fs = if at % 2 == 0 { world.fs.kill() } else { world.fs.crash(&mut Rng::new(at)) };
        world.round().unwrap();
        assert_eq!(world.fs.read("large").unwrap(), whole);
        world.check_at_rest();
        if ended {
            return;
        }
    }
    panic!("it never ended");
}

/// Asks to stop once so many bytes of a file were written, and counts those written after that.
struct StopsAfter {
    bytes: u64,
    written: u64,
    flag: Arc<AtomicBool>,
}

impl Observer for StopsAfter {
    fn phase(&mut self, _: Phase, _: Option<u64>, _: Option<u64>) {}
    fn advance(&mut self, _: u64, bytes: u64) {
        self.written += bytes;
        self.flag.store(self.written >= self.bytes, Ordering::SeqCst);
    }
    fn note(&mut self, _: Note) {}
    fn interrupt(&self) -> Interrupt {
        Interrupt::by(Arc::clone(&self.flag))
    }
}

#[test]
fn a_wish_to_stop_is_heeded_within_a_large_file_and_what_was_received_is_kept() {
    let pieces: Vec<Vec<u8>> = (0..12u8).map(|at| vec![at; 3000]).collect();
    let whole = pieces.concat();
    for (threads, piece) in [(1, 1), (1, 5), (4, 5), (1, 11)] {
        let mut world = World::new(SimOptions::default());
        (world.threads, world.limits.window) = (threads, 10_000);
        let content = packed(&mut world, &pieces.iter().map(Vec::as_slice).collect::<Vec<_>>());
        world.publish(vec![create(1, ROOT, "large", content)]);
        let bytes = piece * 3000;
        let mut watch = StopsAfter { bytes, written: 0, flag: Arc::default() };
        let ended = world.apply_watched(&mut watch);
        assert!(matches!(ended, Err(SyncError::Interrupted)), "{ended:?}");
        assert_eq!(watch.written, bytes, "nothing is written after the wish was made");
        assert!(!world.fs.exists("large"));
        let parts: Vec<u64> = world
            .fs
            .tree()
            .iter()
            .filter_map(|(path, node)| match node {
                Node::File { bytes, .. } if path.starts_with(b".packetboat/stage/part-") => Some(bytes.len() as u64),
                _ => None,
            })
            .collect();
        assert_eq!(parts, [bytes], "what was received waits for the next round");
        world.round().unwrap();
        assert_eq!(world.fs.read("large").unwrap(), whole);
        world.check_at_rest();
    }
}

#[test]
fn a_wish_to_stop_is_heeded_while_an_old_version_is_read() {
    let pieces: Vec<Vec<u8>> = (0..12u8).map(|at| vec![at; 100_000]).collect();
    let mut world = World::new(SimOptions::default());
    world.limits.window = 250_000;
    let content = packed(&mut world, &pieces.iter().map(Vec::as_slice).collect::<Vec<_>>());
    let made = world.publish(vec![create(1, ROOT, "large", content)]);
    world.settle();
    let mut pieces = pieces;
    pieces[0] = vec![77; 100_000];
    let content = packed(&mut world, &pieces.iter().map(Vec::as_slice).collect::<Vec<_>>());
    world.publish(vec![edit(1, content, made)]);
    let mut watch = StopsAfter { bytes: 400_000, written: 0, flag: Arc::default() };
    assert!(matches!(world.apply_watched(&mut watch), Err(SyncError::Interrupted)));
    assert_eq!(watch.written, 400_000);
    assert_eq!(world.fs.read("large").unwrap()[0], 0, "the old version stands");
    world.round().unwrap();
    assert_eq!(world.fs.read("large").unwrap(), pieces.concat());
    world.check_at_rest();
}

#[test]
fn a_directory_without_permissions_gets_what_belongs_in_it_first() {
    let mut world = World::new(SimOptions::default());
    let mut closed = create(1, ROOT, "closed", Content::Directory);
    if let Change::Create { mode, .. } = &mut closed {
        *mode = Some(0o500);
    }
    let changes = vec![closed, world.file(2, item(1), "in", b"it")];
    world.publish(changes);
    world.settle();
    assert!(matches!(world.fs.tree()[&b"closed"[..]], Node::Directory { mode: 0o500, .. }));
    world.shows(&[("closed", "/"), ("closed/in", "it")]);
}

#[test]
fn attributes_of_what_was_elsewhere_for_a_moment_are_set_once_it_is_back() {
    // A file was moved away between the look at it and the call that sets its permissions. They were taken for set: had
    // it come back under its name, no round would have looked at it again. Seed 5048 of edits during a round.
    let mode_of = |world: &World, path: &[u8]| match &world.fs.tree()[path] {
        Node::File { mode, xattrs, .. } => (*mode, xattrs.len()),
        Node::Directory { mode, .. } => (*mode, 0),
        other => panic!("{other:?}"),
    };
    for call in 1..100 {
        let mut world = World::new(SimOptions::default());
        let changes = vec![world.file(1, ROOT, "f", b"file"), create(2, ROOT, "d", Content::Directory)];
        world.publish(changes);
        world.settle();
        let xattr = Change::Xattr { item: item(1), name: b"user.a".to_vec(), value: Some(b"1".to_vec()) };
        let modes = [Change::Mode { item: item(1), mode: 0o600 }, Change::Mode { item: item(2), mode: 0o500 }];
        world.publish([vec![xattr], modes.to_vec()].concat());
        let (before, lamport) = (world.fs.calls(), world.index.max_lamport().unwrap());
        world.fs.on_call(call, |fs| {
            fs.rename("f", "g").unwrap();
            fs.rename("d", "e").unwrap();
        });
        world.apply().unwrap();
        if world.fs.calls() < before + call {
            return;
        }
        world.check_heeded(&[item(1), item(2)]);
        world.fs.rename("g", "f").unwrap();
        world.fs.rename("e", "d").unwrap();
        world.round().unwrap();
        assert_eq!((mode_of(&world, b"f"), mode_of(&world, b"d")), ((0o600, 1), (0o500, 0)), "call {call}");
        assert_eq!(world.index.max_lamport().unwrap(), lamport, "call {call}: nobody here did anything that lasts");
    }
    panic!("it never ended");
}

#[test]
fn permissions_changed_just_after_others_were_set_travel() {
    // What was read back was recorded as agreed on, though nobody had published it: it never travelled, and the vault's
    // were never set. Seed 6832 of edits during a round.
    for call in 1..100 {
        let mut world = World::new(SimOptions::default());
        let changes = vec![world.file(1, ROOT, "f", b"file"), create(2, ROOT, "d", Content::Directory)];
        world.publish(changes);
        world.settle();
        let modes = [Change::Mode { item: item(1), mode: 0o600 }, Change::Mode { item: item(2), mode: 0o500 }];
        world.publish(modes.to_vec());
        let before = world.fs.calls();
        world.fs.on_call(call, |fs| {
            fs.chmod("f", 0o640).unwrap();
            fs.chmod("d", 0o750).unwrap();
        });
        world.apply().unwrap();
        if world.fs.calls() < before + call {
            return;
        }
        world.check_heeded(&[item(1), item(2)]);
        world.round().unwrap();
        for (path, number) in [("f", 1), ("d", 2)] {
            let vault = world.index.item(item(number)).unwrap().unwrap().mode.unwrap().value;
            assert_eq!(world.fs.stat(path).unwrap().mode & 0o777, vault, "call {call}: {path}");
        }
    }
    panic!("it never ended");
}

#[test]
fn what_is_moved_aside_goes_on_though_its_user_changed_its_permissions() {
    // The vault had other permissions for a directory and another one in its place. It was moved aside into staging, where
    // no scan comes that would have found what its user had changed, and that was waited for. Seed 24056 of all at once.
    for directory in [true, false] {
        let made = |world: &mut World, at, name| match directory {
            true => create(at, ROOT, name, Content::Directory),
            false => world.file(at, ROOT, name, b"file"),
        };
        for call in 1.. {
            let mut world = World::new(SimOptions::default());
            let first = made(&mut world, 1, "b");
            let dot = world.publish(vec![first]);
            world.settle();
            let second = made(&mut world, 2, "b");
            world.publish(vec![place(1, ROOT, "c", dot), Change::Mode { item: item(1), mode: 0o750 }, second]);
            let before = world.fs.calls();
            world.fs.on_call(call, |fs| fs.chmod("b", 0o700).unwrap_or_default());
            world.apply().unwrap();
            if world.fs.calls() < before + call {
                break;
            }
            world.check_heeded(&[item(1), item(2)]);
            for _ in 0..3 {
                world.round().unwrap();
            }
            let names: Vec<String> = world.seen().into_keys().collect();
            assert_eq!(names, ["b", "c"], "call {call}: {:?}", world.fs);
            for (path, number) in [("c", 1), ("b", 2)] {
                let vault = world.index.item(item(number)).unwrap().unwrap().mode.unwrap().value;
                assert_eq!(world.fs.stat(path).unwrap().mode & 0o777, vault, "call {call}: {path}");
            }
            world.check_at_rest();
        }
    }
}

#[test]
fn what_takes_the_place_of_a_directory_just_as_it_is_moved_aside_is_shown() {
    // It went into staging in the directory's stead and stayed there: it was to be removed as the directory, which it was
    // not. Seed 9532 of edits during a round.
    for is_removed in [true, false] {
        for call in 1.. {
            let mut world = World::new(SimOptions::default());
            let dot = world.publish(vec![create(1, ROOT, "b", Content::Directory)]);
            world.settle();
            let file = world.file(2, ROOT, "b", b"file");
            let other = if is_removed { delete(&[(1, dot)]) } else { place(1, ROOT, "c", dot) };
            world.publish(vec![other, file]);
            let before = world.fs.calls();
            world.fs.on_call(call, |fs| {
                if fs.stat("b").is_ok_and(|stat| stat.kind == FileKind::Directory) {
                    fs.remove("b").unwrap();
                    fs.write("b", b"by hand").unwrap();
                }
            });
            world.apply().unwrap();
            if world.fs.calls() < before + call {
                break;
            }
            let was_replaced =
                world.fs.tree().values().any(|node| matches!(node, Node::File { bytes, .. } if bytes == b"by hand"));
            for _ in 0..4 {
                world.round().unwrap();
            }
            let seen = world.seen();
            assert!(seen.values().any(|text| text == "file"), "call {call}: {seen:?}");
            assert_eq!(seen.values().any(|text| text == "by hand"), was_replaced, "call {call}: {seen:?}");
            world.check_at_rest();
        }
    }
}

#[test]
fn a_directory_that_its_user_moves_into_another_in_its_place_while_it_is_read_is_moved() {
    // It was listed, and then found in itself: a packet that said so could not be written, in no round. Seed 11554 of edits
    // during a round.
    for call in 1.. {
        let mut world = World::new(SimOptions::default());
        let changes = vec![create(1, ROOT, "a", Content::Directory), world.file(2, item(1), "f", b"file")];
        world.publish(changes);
        world.settle();
        let before = world.fs.calls();
        world.fs.on_call(call, |fs| {
            fs.rename("a", "b").unwrap();
            fs.make_dir("a").unwrap();
            fs.rename("b", "a/b").unwrap();
        });
        world.round().unwrap();
        if world.fs.calls() < before + call {
            break;
        }
        for _ in 0..3 {
            world.round().unwrap();
        }
        world.shows(&[("a", "/"), ("a/b", "/"), ("a/b/f", "file")]);
        assert_eq!(Viewer::new(&world.index).path_of(item(2)).unwrap().to_string(), "a/b/f", "call {call}");
        world.check_at_rest();
    }
}

#[test]
fn a_symlink_that_takes_the_place_of_a_new_file_at_once_leaves_nothing_to_do_unheeded() {
    // What was recorded had no permissions, as the symlink has none, and the file has. Seed 5074 of edits during a round.
    for call in 1..100 {
        let mut world = World::new(SimOptions::default());
        let changes = vec![world.file(1, ROOT, "f", b"theirs")];
        world.publish(changes);
        let before = world.fs.calls();
        world.fs.on_call(call, |fs| {
            let _ = fs.remove("f");
            fs.make_symlink(b"mine", "f").unwrap();
        });
        world.apply().unwrap();
        if world.fs.calls() < before + call {
            return;
        }
        world.check_heeded(&[item(1)]);
        for _ in 0..2 {
            world.round().unwrap();
        }
        assert!(world.seen().values().any(|text| text == "-> mine"), "call {call}: {:?}", world.seen());
    }
    panic!("it never ended");
}

#[test]
fn a_file_that_is_deleted_just_as_another_version_takes_its_place_is_deleted_and_no_other() {
    // Its place was free when the winner of a conflict came to it; the step that was to move the loser away moved the
    // winner, and recorded it as the loser. Seed 5470 of edits during a round.
    for call in 1..100 {
        let mut world = World::new(SimOptions::default());
        let changes = vec![world.file(1, ROOT, "f", b"base")];
        let first = world.publish(changes);
        let loser = world.content(b"loser");
        world.publish(vec![edit(1, loser, first)]);
        world.settle();
        let winner = world.content(b"winner");
        world.publish(vec![edit(1, winner, first)]);
        let before = world.fs.calls();
        let deleted = Arc::new(std::sync::Mutex::new(None));
        let taken = Arc::clone(&deleted);
        world.fs.on_call(call, move |fs| {
            *taken.lock().unwrap() = fs.read("f").ok();
            let _ = fs.remove("f");
        });
        world.apply().unwrap();
        if world.fs.calls() < before + call {
            return;
        }
        world.check_heeded(&[item(1)]);
        for _ in 0..3 {
            world.round().unwrap();
        }
        let seen = world.seen();
        match deleted.lock().unwrap().as_deref() {
            Some(b"loser") => world.shows(&[("f", "winner")]),
            Some(_) => world.shows(&[("f", "loser")]),
            None => assert_eq!((&*seen["f"], seen.len()), ("winner", 2), "call {call}: {seen:?}"),
        }
    }
    panic!("it never ended");
}

#[test]
fn many_files_are_written_by_threads_in_windows() {
    let mut world = World::new(SimOptions::default());
    (world.threads, world.limits.window) = (4, 2000);
    let mut changes = vec![create(1, ROOT, "d", Content::Directory)];
    for at in 2..120u8 {
        let parent = if at % 2 == 0 { item(1) } else { ROOT };
        changes.push(world.file(at, parent, &format!("f{at}"), &[at; 100]));
    }
    world.publish(changes);
    assert_eq!(world.settle().created, 119);
    for at in 2..120u8 {
        let path = if at % 2 == 0 { format!("d/f{at}") } else { format!("f{at}") };
        assert_eq!(world.fs.read(path).unwrap(), [at; 100]);
    }
}

#[test]
fn a_disk_without_room_is_told_before_anything_is_written() {
    let mut world = World::new(SimOptions { capacity: Some(1000), ..SimOptions::default() });
    let changes = vec![world.file(1, ROOT, "small", &[1; 400]), world.file(2, ROOT, "big", &[2; 900])];
    world.publish(changes);
    assert!(matches!(world.apply(), Err(SyncError::DiskFull)));
    assert_eq!(world.fs.read("small").unwrap(), [1; 400]);
    assert!(!world.fs.exists("big"));
    world.fs.set_options(|options| options.capacity = None);
    world.round().unwrap();
    assert_eq!(world.fs.read("big").unwrap(), [2; 900]);
}
