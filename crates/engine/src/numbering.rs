//! Whether a file system's inode numbers last: some number their objects anew at each mount (vfat, FUSE, some shares), and
//! then an object may have the number that another had when it was recorded.
//!
//! Two directories that only Packetboat makes stand as witnesses: `.packetboat` and the staging directory within. What
//! `stat` said of them is recorded at the end of each round whose numbers were all taken up; where it says something else
//! at the start of the next, no number says anything in that round. A folder that was copied to another disk, or put back
//! from a backup with its index, is the same case.
//! A witness may get its own number again while others do not, so the scan has evidence of its own: a file that is
//! recorded with every time that it has, and with another number (replacing a file changes its status change time), and a
//! directory that seems to stand in another's place and holds nothing by the name and number of what was recorded in it.
//!
//! A round whose numbers say nothing goes by paths, then by content; it reads every file, since equal size and times of
//! an object that nothing else identifies are no proof, and it publishes only what really differs.
//! What it cannot look at keeps its record, and its directories are known by path alone until they are recorded anew.
//! The mount point itself is no witness: its number is a fixed one where others are not.

use packetboat_core::name::RelPath;
use packetboat_core::wire::{Reader, WireError, Writer};
use packetboat_replica::fs::Fs;
use packetboat_replica::index::{Index, IndexError};

use crate::paths::{MARKER_DIR, staging};

/// What the inode numbers on a disk say of what was recorded of it.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub enum Numbering {
    /// They are those that were recorded: the same number is the same object, where nothing speaks against it.
    #[default]
    Lasting,
    /// They were given anew: equal numbers are chance.
    Renewed,
}

/// A witness: its inode number, and its birth time or 0.
type Witness = (u64, i64);

/// What the witnesses say. Before anything was recorded of them, numbers are taken to last.
pub(crate) fn numbering(fs: &dyn Fs, index: &Index) -> Result<Numbering, IndexError> {
    let Some(bytes) = index.meta(WITNESSES)? else { return Ok(Numbering::Lasting) };
    // A record that cannot be read vouches for nothing; this round writes another.
    let Ok(recorded) = decode(&bytes) else { return Ok(Numbering::Renewed) };
    let agree = recorded.iter().zip(witnesses(fs)).all(|(recorded, now)| match (recorded, now) {
        (Some(recorded), Some(now)) => is_same(*recorded, now),
        // One that is missing says nothing; staging is made anew where somebody deleted it.
        _ => true,
    });
    Ok(if agree { Numbering::Lasting } else { Numbering::Renewed })
}

/// Records the witnesses, after everything that the scan could look at was recorded with its present number.
/// An idle round writes nothing.
pub(crate) fn remember(fs: &dyn Fs, index: &mut Index) -> Result<(), IndexError> {
    let bytes = encode(&witnesses(fs));
    if index.meta(WITNESSES)?.as_ref() != Some(&bytes) {
        index.set_meta(WITNESSES, Some(&bytes))?;
    }
    Ok(())
}

fn witnesses(fs: &dyn Fs) -> [Option<Witness>; 2] {
    let marker = RelPath::new(MARKER_DIR.as_bytes()).expect("a sound path");
    [marker, staging()].map(|path| fs.lstat(&path).ok().map(|stat| (stat.inode, stat.btime.unwrap_or(0))))
}

/// A driver may come to tell birth times that it did not tell before, so only two that are told are compared.
fn is_same(recorded: Witness, now: Witness) -> bool {
    recorded.0 == now.0 && (recorded.1 == now.1 || recorded.1 == 0 || now.1 == 0)
}

/// Per witness: 0, or 1 | inode varint | birth time signed.
fn encode(witnesses: &[Option<Witness>]) -> Vec<u8> {
    let mut out = Writer::new();
    for witness in witnesses {
        match witness {
            None => out.u8(0),
            Some((inode, born)) => out.u8(1).varint(*inode).signed(*born),
        };
    }
    out.finish()
}

fn decode(bytes: &[u8]) -> Result<[Option<Witness>; 2], WireError> {
    let mut input = Reader::new(bytes);
    let mut witnesses = [None; 2];
    for witness in &mut witnesses {
        *witness = match input.u8()? {
            0 => None,
            1 => Some((input.varint()?, input.signed()?)),
            _ => return Err(WireError::Invalid { what: "witness" }),
        };
    }
    input.finish()?;
    Ok(witnesses)
}

/// The entry of this replica's index that keeps what `stat` said of the witnesses.
const WITNESSES: &str = "witnesses of inode numbers";

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn witnesses_are_read_as_they_were_written() {
        for witnesses in [[None, None], [Some((7, 0)), None], [Some((u64::MAX, i64::MIN)), Some((1, i64::MAX))]] {
            assert_eq!(decode(&encode(&witnesses)).unwrap(), witnesses);
        }
        for damaged in [&[][..], &[2], &[1, 5], &[0, 0, 0]] {
            assert!(decode(damaged).is_err(), "{damaged:?}");
        }
    }

    #[test]
    fn a_witness_is_another_by_number_or_by_birth_where_both_are_told() {
        assert!(is_same((7, 5), (7, 5)));
        assert!(is_same((7, 0), (7, 5)), "the birth time was not told before");
        assert!(!is_same((7, 4), (7, 5)), "the number was used again");
        assert!(!is_same((7, 5), (8, 5)));
    }
}
