//! Cuts content into chunks where the content itself says so, keyed so that chunk sizes betray no known file.
//!
//! FastCDC (Xia et al., "The Design of Fast Content Defined Chunking", 2020) with normalisation level 1:
//! a rolling gear hash runs over the bytes, and a chunk ends where its masked bits are zero, but not before
//! [`MIN_CHUNK_BYTES`] and not after [`MAX_CHUNK_BYTES`].
//! The table of the gear hash is drawn whole from the vault's chunker seed with BLAKE3.
//! (The crate's own seed is added to a public table by exclusive or, which leaves known relations between its entries.)
//!
//! Boundaries are no part of any format: a reader takes chunks as they are listed.
//! A change of them costs deduplication against what was stored before, and nothing else; a test holds them still.
//!
//! Invariants: chunks rejoin to the input; none is empty; all but the last are [`MIN_CHUNK_BYTES`] to
//! [`MAX_CHUNK_BYTES`] long; the same bytes and seed give the same chunks, read from a buffer or in pieces from a reader.

use std::io::{self, Read};

use fastcdc::v2020::{MASKS, cut_gear};
use packetboat_core::content::{AVERAGE_CHUNK_BYTES, MAX_CHUNK_BYTES, MIN_CHUNK_BYTES};

/// Where a vault's contents are cut; made once from the seed, shared by all threads.
#[derive(Clone)]
pub struct Boundaries {
    gear: Box<[u64; 256]>,
    gear_shifted: Box<[u64; 256]>,
}

impl Boundaries {
    /// The boundaries keyed by [`KeyRing::chunker_seed`](packetboat_core::keys::KeyRing::chunker_seed).
    pub fn new(seed: u64) -> Self {
        let mut table = blake3::Hasher::new_derive_key("packetboat 2026 chunk boundary table");
        let mut drawn = table.update(&seed.to_le_bytes()).finalize_xof();
        let mut gear = Box::new([0; 256]);
        for entry in gear.iter_mut() {
            let mut bytes = [0; 8];
            drawn.fill(&mut bytes);
            *entry = u64::from_le_bytes(bytes);
        }
        let gear_shifted = Box::new(gear.map(|entry| entry << 1));
        Self { gear, gear_shifted }
    }

    /// The chunks of a content that is wholly in memory, as slices of it; none for an empty one.
    ///
    /// Nothing is copied, and a content of up to [`MIN_CHUNK_BYTES`] is not even looked at.
    /// The slices may be hashed and sealed in parallel.
    pub fn split<'a>(&'a self, content: &'a [u8]) -> Split<'a> {
        Split { boundaries: self, rest: content }
    }

    /// The length of the first chunk of `bytes`, which hold [`MAX_CHUNK_BYTES`] or all that is left.
    fn first_len(&self, bytes: &[u8]) -> usize {
        let (_, len) = cut_gear(
            bytes,
            MIN_CHUNK_BYTES as usize,
            AVERAGE_CHUNK_BYTES as usize,
            MAX_CHUNK_BYTES as usize,
            MASK_BEFORE_AVERAGE,
            MASK_AFTER_AVERAGE,
            MASK_BEFORE_AVERAGE << 1,
            MASK_AFTER_AVERAGE << 1,
            &self.gear,
            &self.gear_shifted,
        );
        len
    }
}

impl std::fmt::Debug for Boundaries {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("Boundaries(..)")
    }
}

/// The chunks of a buffer, in order; made by [`Boundaries::split`].
#[derive(Clone, Debug)]
pub struct Split<'a> {
    boundaries: &'a Boundaries,
    rest: &'a [u8],
}

impl<'a> Iterator for Split<'a> {
    type Item = &'a [u8];

    fn next(&mut self) -> Option<&'a [u8]> {
        if self.rest.is_empty() {
            return None;
        }
        let (chunk, rest) = self.rest.split_at(self.boundaries.first_len(self.rest));
        self.rest = rest;
        Some(chunk)
    }
}

/// The chunks of what a reader gives, in order.
///
/// Holds at most two greatest chunks in memory; after an error it ends.
/// A content of up to [`MIN_CHUNK_BYTES`] is handed out in the buffer that it was read into.
pub struct Chunker<'b, R> {
    boundaries: &'b Boundaries,
    reader: R,
    /// What was read lies before `end`; the bytes before `start` are handed out already.
    buffer: Vec<u8>,
    start: usize,
    end: usize,
    state: ReadState,
}

enum ReadState {
    Fresh,
    Reading,
    AtEnd,
}

impl<'b, R: Read> Chunker<'b, R> {
    /// Cuts what `reader` gives from now to its end.
    pub fn new(boundaries: &'b Boundaries, reader: R) -> Self {
        Self { boundaries, reader, buffer: Vec::new(), start: 0, end: 0, state: ReadState::Fresh }
    }

    fn next_chunk(&mut self) -> io::Result<Option<Vec<u8>>> {
        if matches!(self.state, ReadState::Fresh) {
            self.read_up_to(MIN_CHUNK_BYTES as usize)?;
            if matches!(self.state, ReadState::AtEnd) {
                let mut whole = std::mem::take(&mut self.buffer);
                whole.truncate(std::mem::take(&mut self.end));
                return Ok((!whole.is_empty()).then_some(whole));
            }
        }
        if self.end - self.start < MAX_CHUNK_BYTES as usize && !matches!(self.state, ReadState::AtEnd) {
            self.buffer.copy_within(self.start..self.end, 0);
            self.end -= std::mem::take(&mut self.start);
            self.read_up_to(2 * MAX_CHUNK_BYTES as usize)?;
        }
        let rest = &self.buffer[self.start..self.end];
        if rest.is_empty() {
            self.forget();
            return Ok(None);
        }
        let chunk = rest[..self.boundaries.first_len(rest)].to_vec();
        self.start += chunk.len();
        Ok(Some(chunk))
    }

    /// Reads until the buffer holds more than `len` bytes or the reader ends.
    fn read_up_to(&mut self, len: usize) -> io::Result<()> {
        self.state = ReadState::Reading;
        // Zeroed once, and read into again and again.
        if self.buffer.len() <= len {
            self.buffer.resize(len + 1, 0);
        }
        while self.end <= len {
            match self.reader.read(&mut self.buffer[self.end..=len]) {
                Ok(0) => {
                    self.state = ReadState::AtEnd;
                    break;
                }
                Ok(read) => self.end += read,
                Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                Err(error) => return Err(error),
            }
        }
        Ok(())
    }

    fn forget(&mut self) {
        self.buffer = Vec::new();
        (self.start, self.end) = (0, 0);
    }
}

impl<R: Read> Iterator for Chunker<'_, R> {
    type Item = io::Result<Vec<u8>>;

    fn next(&mut self) -> Option<io::Result<Vec<u8>>> {
        let next = self.next_chunk();
        if next.is_err() {
            self.forget();
            self.state = ReadState::AtEnd;
        }
        next.transpose()
    }
}

/// Bits that must be zero where a chunk ends before the average length: one more than the average asks for.
const MASK_BEFORE_AVERAGE: u64 = MASKS[AVERAGE_CHUNK_BYTES.ilog2() as usize + 1];
/// The same after the average length: one bit less.
const MASK_AFTER_AVERAGE: u64 = MASKS[AVERAGE_CHUNK_BYTES.ilog2() as usize - 1];

#[cfg(test)]
mod tests {
    use std::collections::HashSet;

    use proptest::prelude::*;

    use super::*;
    use crate::testing::noise;

    fn lengths(boundaries: &Boundaries, content: &[u8]) -> Vec<usize> {
        boundaries.split(content).map(<[u8]>::len).collect()
    }

    /// Gives its bytes in pieces of uneven size, as sockets and pipes do.
    struct Trickle<'a>(&'a [u8], usize);

    impl Read for Trickle<'_> {
        fn read(&mut self, out: &mut [u8]) -> io::Result<usize> {
            self.1 = self.1 * 31 % 70_001 + 1;
            let len = self.1.min(out.len()).min(self.0.len());
            out[..len].copy_from_slice(&self.0[..len]);
            self.0 = &self.0[len..];
            Ok(len)
        }
    }

    struct Broken;

    impl Read for Broken {
        fn read(&mut self, _: &mut [u8]) -> io::Result<usize> {
            Err(io::Error::other("unplugged"))
        }
    }

    #[test]
    fn chunks_rejoin_and_keep_the_length_limits() {
        let boundaries = Boundaries::new(1);
        for content in [noise(1, 20 << 20), vec![0; 20 << 20], noise(2, (1 << 20) + 7)] {
            let chunks: Vec<&[u8]> = boundaries.split(&content).collect();
            assert!(chunks.concat() == content);
            let (last, others) = chunks.split_last().unwrap();
            for chunk in others {
                assert!((MIN_CHUNK_BYTES as usize..=MAX_CHUNK_BYTES as usize).contains(&chunk.len()));
            }
            assert!((1..=MAX_CHUNK_BYTES as usize).contains(&last.len()));
        }
    }

    #[test]
    fn a_small_content_is_one_chunk_and_an_empty_one_is_none() {
        let boundaries = Boundaries::new(1);
        for len in [1, 100, MIN_CHUNK_BYTES as usize] {
            let content = noise(3, len);
            assert_eq!(lengths(&boundaries, &content), [len]);
            let mut chunker = Chunker::new(&boundaries, content.as_slice());
            assert_eq!(chunker.next().unwrap().unwrap(), content);
            assert!(chunker.next().is_none());
        }
        assert_eq!(lengths(&boundaries, &[]), [0; 0]);
        assert!(Chunker::new(&boundaries, io::empty()).next().is_none());
    }

    #[test]
    fn a_reader_is_cut_as_a_buffer_is() {
        let boundaries = Boundaries::new(5);
        for len in [(256 << 10) + 1, 4 << 20, (8 << 20) + 1, 23_456_789] {
            let content = noise(len as u64, len);
            let read: Vec<Vec<u8>> =
                Chunker::new(&boundaries, Trickle(&content, 17)).collect::<io::Result<_>>().unwrap();
            let split: Vec<&[u8]> = boundaries.split(&content).collect();
            assert!(read == split, "{len}");
        }
    }

    #[test]
    fn an_insertion_at_the_front_changes_few_chunks() {
        let boundaries = Boundaries::new(2);
        let content = noise(4, 64 << 20);
        let longer = [noise(5, 1000), content.clone()].concat();
        let before: HashSet<&[u8]> = boundaries.split(&content).collect();
        let after: Vec<&[u8]> = boundaries.split(&longer).collect();
        let fresh = after.iter().filter(|chunk| !before.contains(*chunk)).count();
        assert!(fresh <= 4, "{fresh} of {} chunks are new", after.len());
        let average = content.len() / before.len();
        assert!((700_000..1_500_000).contains(&average), "average {average}");
    }

    #[test]
    fn another_seed_cuts_elsewhere() {
        let content = noise(6, 16 << 20);
        let cuts = |seed| {
            let mut at = 0;
            let cuts: HashSet<usize> = lengths(&Boundaries::new(seed), &content)
                .iter()
                .map(|len| {
                    at += len;
                    at
                })
                .collect();
            cuts
        };
        assert_eq!(cuts(1), cuts(1));
        // Only the end of the content is common.
        assert_eq!(cuts(1).intersection(&cuts(2)).count(), 1);
        assert_eq!(cuts(0).intersection(&cuts(1)).count(), 1);
    }

    #[test]
    fn boundaries_stay_where_earlier_releases_put_them() {
        assert_eq!(lengths(&Boundaries::new(42), &noise(7, 6 << 20)), GOLDEN);
    }

    const GOLDEN: [usize; 5] = [994_322, 1_507_887, 1_157_400, 1_060_139, 1_571_708];

    #[test]
    fn a_failing_reader_ends_the_chunks() {
        let boundaries = Boundaries::new(1);
        let content = noise(8, 10 << 20);
        let mut chunker = Chunker::new(&boundaries, content.as_slice().chain(Broken));
        let mut whole = 0;
        let failure = loop {
            match chunker.next().unwrap() {
                Ok(chunk) => whole += chunk.len(),
                Err(failure) => break failure,
            }
        };
        assert_eq!(failure.to_string(), "unplugged");
        assert!(whole < content.len());
        assert!(chunker.next().is_none());
    }

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(24))]
        #[test]
        fn any_content_rejoins(seed in any::<u64>(), data in any::<u64>(), len in 0usize..6 << 20, zeros in 0usize..6 << 20) {
            let boundaries = Boundaries::new(seed);
            let content = [noise(data, len), vec![0; zeros]].concat();
            let split: Vec<&[u8]> = boundaries.split(&content).collect();
            prop_assert!(split.concat() == content);
            let read: Vec<Vec<u8>> = Chunker::new(&boundaries, content.as_slice()).collect::<io::Result<_>>().unwrap();
            prop_assert!(read == split);
        }
    }
}
