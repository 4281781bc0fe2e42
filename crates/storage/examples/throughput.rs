//! Measures how fast content is named, compressed, sealed and packed, with one thread and with two.
//!
//! Run with `cargo run --release -p packetboat-storage --example throughput`; it prints MiB of plaintext per second.

use std::time::Instant;

use packetboat_core::content::ChunkRef;
use packetboat_core::ids::VaultId;
use packetboat_core::keys::{KeyRing, Nonce, RootKey};
use packetboat_storage::chunk::{ChunkCodec, SealedChunk, open_chunk, seal_chunk};
use packetboat_storage::chunker::Boundaries;
use packetboat_storage::pack::PackWriter;

const BYTES: usize = 256 << 20;

fn main() {
    let ring = KeyRing::new(VaultId([7; 16]), RootKey([1; 32]));
    let small: Vec<Vec<u8>> = (0..BYTES as u64 / 6000).map(text).collect();
    let large: Vec<Vec<u8>> = (0..BYTES as u64 >> 20).map(noise).collect();
    for (name, chunks) in [("text of 6 KiB", &small), ("noise of 1 MiB", &large)] {
        for threads in [1, 2] {
            measure(&format!("hash, compress, seal: {name}, {threads} thread(s)"), chunks, || {
                in_threads(chunks, threads, |codec, number, plain| drop(seal(&ring, codec, number, plain)));
            });
        }
        let mut codec = ChunkCodec::new();
        let sealed: Vec<SealedChunk> =
            chunks.iter().enumerate().map(|(number, plain)| seal(&ring, &mut codec, number, plain)).collect();
        let stored: usize = sealed.iter().map(|chunk| chunk.sealed.len()).sum();
        println!("{:>9.3} times the size: {name}, sealed", stored as f64 / BYTES as f64);
        measure(&format!("hash alone: {name}"), chunks, || {
            chunks.iter().for_each(|plain| assert_ne!(ring.chunk_id(plain).0, [0; 32]));
        });
        measure(&format!("compress alone: {name}"), chunks, || {
            chunks.iter().for_each(|plain| drop(codec.encode_chunk(plain)));
        });
        measure(&format!("open and prove: {name}"), chunks, || {
            for chunk in &sealed {
                let wanted: ChunkRef = chunk.chunk_ref();
                open_chunk(&ring, &mut codec, 0, &wanted, &chunk.sealed).expect("it was sealed here");
            }
        });
        measure(&format!("pack: {name}"), chunks, || pack(&ring, &sealed));
    }
    let whole = large.concat();
    let boundaries = Boundaries::new(ring.chunker_seed());
    measure("cut: noise", &large, || assert!(boundaries.split(&whole).count() > 100));
}

fn seal(ring: &KeyRing, codec: &mut ChunkCodec, number: usize, plain: &[u8]) -> SealedChunk {
    let mut nonce = [0; 24];
    nonce[..8].copy_from_slice(&(number as u64).to_le_bytes());
    seal_chunk(ring, codec, plain, Nonce(nonce)).expect("chunks here have sound lengths")
}

fn pack(ring: &KeyRing, sealed: &[SealedChunk]) {
    let mut writer = PackWriter::new(ring.vault(), 0);
    for chunk in sealed {
        if writer.is_full() {
            let full = std::mem::replace(&mut writer, PackWriter::new(ring.vault(), 0));
            full.finish(ring, Nonce([1; 24])).expect("it holds chunks");
        }
        writer.push(chunk).expect("it has room");
    }
    writer.finish(ring, Nonce([1; 24])).expect("it holds chunks");
}

fn in_threads(chunks: &[Vec<u8>], threads: usize, work: impl Fn(&mut ChunkCodec, usize, &[u8]) + Sync) {
    std::thread::scope(|scope| {
        for part in chunks.chunks(chunks.len().div_ceil(threads)) {
            let work = &work;
            scope.spawn(move || {
                let mut codec = ChunkCodec::new();
                part.iter().enumerate().for_each(|(number, plain)| work(&mut codec, number, plain));
            });
        }
    });
}

/// Prints the best of three runs.
fn measure(name: &str, chunks: &[Vec<u8>], mut run: impl FnMut()) {
    let bytes: usize = chunks.iter().map(Vec::len).sum();
    let best = (0..3)
        .map(|_| {
            let start = Instant::now();
            run();
            start.elapsed().as_secs_f64()
        })
        .fold(f64::INFINITY, f64::min);
    println!("{:>9.0} MiB/s, {:>6.0} chunks/s: {name}", bytes as f64 / best / 1048576.0, chunks.len() as f64 / best);
}

fn noise(seed: u64) -> Vec<u8> {
    let mut bytes = vec![0; 1 << 20];
    blake3::Hasher::new().update(&seed.to_le_bytes()).finalize_xof().fill(&mut bytes);
    bytes
}

/// About 6 KiB that looks a little like source code: words with numbers between them.
fn text(seed: u64) -> Vec<u8> {
    let mut bytes = Vec::with_capacity(6100);
    for byte in &noise_bytes(seed) {
        match byte % 16 {
            0..4 => bytes.extend_from_slice(format!("{:x}", u32::from(*byte) * 7919).as_bytes()),
            word => bytes.extend_from_slice(
                ["let ", "value", " = ", "store.", "pack(", "chunk", ");\n", "    ", "for ", "in ", "&self", "return "]
                    [usize::from(word) - 4]
                    .as_bytes(),
            ),
        }
        if bytes.len() >= 6000 {
            break;
        }
    }
    bytes.truncate(6000);
    bytes
}

fn noise_bytes(seed: u64) -> [u8; 2048] {
    let mut bytes = [0; 2048];
    blake3::Hasher::new().update(b"text").update(&seed.to_le_bytes()).finalize_xof().fill(&mut bytes);
    bytes
}
