//! What a vault of many small files costs: bytes per file, and the time of what is done for each.
//!
//! `cargo test --release -p packetboat-replica measure -- --ignored --nocapture`, with `FILES=1000000` for more.

use std::time::Instant;

use packetboat_core::body::PacketBody;
use packetboat_core::change::Change;
use packetboat_core::content::{PackIndex, PackedChunk};
use packetboat_core::ids::PackId;
use packetboat_core::keys::PublicKey;
use packetboat_core::local::LocalRead;
use packetboat_core::packet::Packet;
use packetboat_core::tree::{Folding, TreeRead, fold_packet};

use super::*;

const PER_DIRECTORY: u32 = 100;
const PER_PACKET: u32 = 20_000;
const PER_PACK: usize = 1000;

/// Bytes that look random, the same for the same `n`.
pub(super) fn scrambled(n: u64) -> [u8; 32] {
    let mut bytes = [0; 32];
    for (word, part) in bytes.chunks_exact_mut(8).enumerate() {
        let mut x = n.wrapping_mul(4).wrapping_add(word as u64).wrapping_mul(0x9e37_79b9_7f4a_7c15);
        x = (x ^ x >> 30).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        x = (x ^ x >> 27).wrapping_mul(0x94d0_49bb_1331_11eb);
        part.copy_from_slice(&(x ^ x >> 31).to_le_bytes());
    }
    bytes
}

fn random(n: u64) -> u64 {
    u64::from_le_bytes(scrambled(n ^ 0x5555_0000_0000)[..8].try_into().unwrap())
}

/// Files of a vault, their directories first in each packet, in the order of a scan.
fn packets(files: u32) -> Vec<Packet> {
    let mut changes = Vec::new();
    let mut packets = Vec::new();
    let (mut next, mut parent) = (0, ItemId::ROOT);
    for n in 0..files {
        if n % PER_DIRECTORY == 0 {
            parent = item_id(next);
            next += 1;
            let name = name(&format!("directory{:06}", n / PER_DIRECTORY));
            let content = Content::Directory;
            changes.push(Change::Create {
                item: parent,
                parent: ItemId::ROOT,
                name,
                content,
                mode: Some(0o755),
                xattrs: vec![],
            });
        }
        let content = file(scrambled(n.into()), size(n), mtime(n));
        let name = name(&format!("{:08x}.txt", random(n.into()) as u32));
        changes.push(Change::Create { item: item_id(next), parent, name, content, mode: Some(0o644), xattrs: vec![] });
        next += 1;
        if (n + 1) % PER_PACKET == 0 || n + 1 == files {
            let counter = packets.len() as u64 + 1;
            packets.push(Packet {
                dot: dot(1, counter),
                hash: PacketHash([1; 32]),
                previous: PacketHash([0; 32]),
                author: PublicKey([1; 32]),
                epoch: 0,
                body: PacketBody {
                    lamport: counter + 300,
                    time: 1_760_000_000_000,
                    prerequisite: Knowledge::new(),
                    needs: vec![],
                    packs: vec![],
                    inline: vec![],
                    changes: std::mem::take(&mut changes),
                },
            });
        }
    }
    packets
}

fn size(n: u32) -> u32 {
    200 + random(n.into()) as u32 % 60_000
}

/// Somewhere in the last three years.
fn mtime(n: u32) -> i64 {
    1_660_000_000_000_000_000 + (random(u64::from(n) + (1 << 40)) % 100_000_000_000_000_000) as i64
}

#[test]
#[ignore = "a measurement"]
fn measure() {
    let files: u32 = std::env::var("FILES").map_or(100_000, |text| text.parse().unwrap());
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().join("index");
    let mut index = Index::open(&path).unwrap();
    let packets = packets(files);
    let per = |started: Instant, count: u32| started.elapsed().as_secs_f64() * 1e6 / f64::from(count);

    let started = Instant::now();
    index.begin().unwrap();
    for packet in &packets {
        fold_packet(&mut index, packet, Folding::Own).unwrap();
    }
    println!("fold                {:6.2} s, {:5.2} us per file", started.elapsed().as_secs_f64(), per(started, files));
    let started = Instant::now();
    index.commit().unwrap();
    println!("commit              {:6.2} s", started.elapsed().as_secs_f64());

    let started = Instant::now();
    index.begin().unwrap();
    let (mut dir, mut directories) = (DirId::ROOT, Vec::new());
    let mut inode = 10_000_000;
    for (packet, change) in
        packets.iter().flat_map(|packet| packet.body.changes.iter().map(move |change| (packet, change)))
    {
        let Change::Create { item, name, content, mode, .. } = change else { unreachable!() };
        let mut new = entry(if content.is_directory() { DirId::ROOT } else { dir }, "x", *item);
        new.name = name.clone();
        new.mode = *mode;
        (new.seen.heads, new.seen.placements) = (vec![packet.dot], vec![packet.dot]);
        inode += 1;
        let ctime = 1_761_000_000_000_000_000 + inode as i64 * 40_000;
        new.stat = Fingerprint { inode, ctime, btime: ctime - 3_000_000, mode: mode.unwrap(), ..Default::default() };
        match content {
            Content::File(file) => (new.stat.size, new.stat.mtime) = (file.size, file.mtime),
            _ => {
                dir = index.new_dir_id().unwrap();
                directories.push(dir);
                new.own_dir = Some(dir);
            }
        }
        index.put_entry(&new).unwrap();
    }
    index.commit().unwrap();
    println!("entries             {:6.2} s, {:5.2} us per file", started.elapsed().as_secs_f64(), per(started, files));

    let started = Instant::now();
    index.begin().unwrap();
    for (number, files) in (0..files).collect::<Vec<_>>().chunks(PER_PACK).enumerate() {
        let mut offset = 0;
        let chunks = files.iter().map(|n| {
            let chunk = PackedChunk { id: ChunkId(scrambled((*n).into())), offset, sealed_len: size(*n) + 41 };
            offset += chunk.sealed_len;
            chunk
        });
        let chunks = chunks.collect();
        let pack = PackIndex { pack: PackId(scrambled(number as u64 + (1 << 50))), epoch: 0, size: offset, chunks };
        index.put_pack(&pack, PackState::Stored).unwrap();
    }
    index.commit().unwrap();
    println!("chunks              {:6.2} s, {:5.2} us per file", started.elapsed().as_secs_f64(), per(started, files));

    let started = Instant::now();
    index.begin().unwrap();
    while let touched @ [_, ..] = &index.touched_after(None, 10_000).unwrap()[..] {
        touched.iter().for_each(|item| index.untouch(*item).unwrap());
    }
    index.commit().unwrap();
    println!("untouch             {:6.2} s, {:5.2} us per file", started.elapsed().as_secs_f64(), per(started, files));
    index.tidy().unwrap();

    for round in ["loose", "compact"] {
        if round == "compact" {
            let started = Instant::now();
            index.compact().unwrap();
            println!("compacting          {:6.2} s", started.elapsed().as_secs_f64());
        }
        report_bytes(&index, files, round);
    }

    let started = Instant::now();
    let mut seen = 0u64;
    for dir in &directories {
        index
            .for_each_fingerprint(*dir, |entry| {
                seen += entry.stat.size;
                Ok::<_, IndexError>(())
            })
            .unwrap();
    }
    assert!(seen > 0);
    println!("scan                {:6.3} s for all", started.elapsed().as_secs_f64());
    let started = Instant::now();
    let total = files + files / PER_DIRECTORY;
    for n in 0..100_000u64 {
        assert!(index.item(item_id(random(n) as u32 % total)).unwrap().is_some());
    }
    println!("item at random      {:6.2} us", per(started, 100_000));
    let started = Instant::now();
    for n in 0..100_000u64 {
        assert_eq!(index.entries_of(item_id(random(n) as u32 % total)).unwrap().len(), 1);
    }
    println!("entry of item       {:6.2} us", per(started, 100_000));
    let started = Instant::now();
    for n in 0..100_000u64 {
        assert!(index.chunk_place(&ChunkId(scrambled(random(n) as u32 as u64 % u64::from(files)))).unwrap().is_some());
    }
    println!("chunk at random     {:6.2} us", per(started, 100_000));
    let started = Instant::now();
    for n in 0..100_000u64 {
        assert!(index.chunk_place(&ChunkId(scrambled(n + (1 << 45)))).unwrap().is_none());
    }
    println!("chunk not there     {:6.2} us", per(started, 100_000));
}

fn report_bytes(index: &Index, files: u32, round: &str) {
    let (pages, free, page): (i64, i64, i64) = index
        .sql
        .query_row("SELECT * FROM pragma_page_count, pragma_freelist_count, pragma_page_size", [], |row| {
            Ok((row.get(0)?, row.get(1)?, row.get(2)?))
        })
        .unwrap();
    let bytes = ((pages - free) * page) as f64;
    println!("bytes per file      {:6.1} {round} ({} free pages)", bytes / f64::from(files), free);
}
