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

mod attributes;
mod disturbed;
mod meanwhile;
mod names;
mod plans;
mod stopped;

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
