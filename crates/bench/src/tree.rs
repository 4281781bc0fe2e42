//! Trees of small files, the same bytes every time: every second file is text that compresses, the others are random.

use std::fs::{self, File};
use std::io::{BufWriter, Write};
use std::path::Path;

use crate::{Options, Result};

/// What a tree is like.
#[derive(Clone, Debug)]
pub(crate) struct Shape {
    pub(crate) files: usize,
    pub(crate) max_size: usize,
    /// All in one directory; otherwise a hundred in each.
    pub(crate) flat: bool,
}

impl Shape {
    pub(crate) fn of(options: &Options, default_files: usize) -> Self {
        let files = options.files.unwrap_or(default_files);
        Self { files, max_size: options.max_size.max(LEAST), flat: options.flat }
    }

    pub(crate) fn name(&self) -> String {
        format!("{}-files-to-{}{}", self.files, self.max_size, if self.flat { "-flat" } else { "" })
    }

    /// About how many bytes its files take on disk.
    pub(crate) fn bytes(&self) -> u64 {
        self.files as u64 * (self.max_size as u64 / 2 + 8192)
    }
}

/// Makes the tree.
pub(crate) fn make(root: &Path, shape: &Shape) -> Result<()> {
    fs::create_dir_all(root)?;
    let mut random = Random(shape.files as u64);
    let mut bytes = vec![0; shape.max_size];
    for number in 0..shape.files {
        let dir = if shape.flat {
            root.to_path_buf()
        } else {
            root.join(format!("{:02}", number / 10_000)).join(format!("{:02}", number / 100 % 100))
        };
        if !shape.flat && number % 100 == 0 {
            fs::create_dir_all(&dir)?;
        }
        let size = LEAST + random.below(shape.max_size - LEAST + 1);
        let content = &mut bytes[..size];
        if number % 2 == 0 {
            random.text(content)
        } else {
            random.fill(content)
        }
        fs::write(dir.join(format!("file-{number:07}")), content)?;
    }
    Ok(())
}

/// Makes a file of random bytes.
pub(crate) fn random_file(path: &Path, size: u64, seed: u64) -> Result<()> {
    let mut random = Random(seed);
    let mut file = BufWriter::new(File::create(path)?);
    let mut piece = vec![0; 1 << 20];
    let mut rest = size;
    while rest > 0 {
        let len = rest.min(piece.len() as u64) as usize;
        random.fill(&mut piece[..len]);
        file.write_all(&piece[..len])?;
        rest -= len as u64;
    }
    file.into_inner()?.sync_all()?;
    Ok(())
}

/// SplitMix64 (Steele, Lea, Flood, OOPSLA 2014): no zstd finds anything in it.
pub(crate) struct Random(pub(crate) u64);

impl Random {
    pub(crate) fn next(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut word = self.0;
        word = (word ^ (word >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        word = (word ^ (word >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        word ^ (word >> 31)
    }

    pub(crate) fn below(&mut self, bound: usize) -> usize {
        (self.next() % bound as u64) as usize
    }

    pub(crate) fn fill(&mut self, bytes: &mut [u8]) {
        for piece in bytes.chunks_mut(8) {
            let word = self.next().to_le_bytes();
            piece.copy_from_slice(&word[..piece.len()]);
        }
    }

    /// Words of a small language, which zstd brings to about a third.
    fn text(&mut self, bytes: &mut [u8]) {
        let mut at = 0;
        while at < bytes.len() {
            // Small numbers are common, as in any language.
            let word = self.below(64) * self.below(64);
            let spelled = [SYLLABLES[word % 16], SYLLABLES[word / 16 % 16], SYLLABLES[word / 256 % 16]];
            for byte in spelled.iter().flat_map(|syllable| syllable.bytes()).chain([b' ']) {
                if at < bytes.len() {
                    bytes[at] = byte;
                    at += 1;
                }
            }
        }
    }
}

const SYLLABLES: [&str; 16] =
    ["an", "be", "co", "der", "en", "fi", "ge", "har", "in", "ka", "lo", "mi", "no", "per", "sta", "ti"];
const LEAST: usize = 1024;
