//! Merging the two sides of a conflict: by lines, from the version that both came from, or by a tool that a user names.
//!
//! A merge is a settlement like any other: one new content in the place of both sides, which stay in the history. It is
//! made when somebody asks for it, or for files that the users of the vault named by patterns in `.packetboatmerge`
//! (at the root of the folder, in gitignore syntax, synchronised). By itself nothing is ever merged that does not merge
//! cleanly, and no patterns are no merges: content that nobody wrote must be wanted by somebody.
//!
//! What a merge by lines gives depends on the three contents alone, not on whose side is whose; so two devices that
//! merge one conflict at once write the same bytes, which is agreement.

use std::io;

use packetboat_core::change::Change;
use packetboat_core::content::{ChunkList, ChunkRef, Content, FileContent, MAX_INLINE_CHUNKS};
use packetboat_core::ids::Dot;
use packetboat_core::item::{Head, Item};
use packetboat_core::name::{Name, RelPath};
use packetboat_core::plan::HistoryRead;
use packetboat_core::tree::{TreeRead, TreeWrite};
use packetboat_replica::index::PackState;
use packetboat_storage::chunk::{ChunkCodec, seal_known_chunk};
use packetboat_storage::chunker::Boundaries;
use packetboat_storage::pack::{self, PackWriter};

use crate::builder::{Draft, seal_own, time_of_operation};
use crate::content_reader::{ContentReader, ReadError};
use crate::error::{QueryError, SyncError};
use crate::ignore_rules::IgnoreRules;
use crate::ports::{Note, Observer};
use crate::prepare::INLINE_CHUNK;
use crate::replica::{Action, Direction, Kept, PlannedStep, Replica, Report, Settled, SyncOptions};
use crate::vault_rules::read_small;

/// The sides of a conflict and what both came from.
#[derive(Clone, Copy, Debug)]
pub struct MergeSides<'a> {
    /// Where the file stands.
    pub path: &'a RelPath,
    /// The newest version that both sides came from; empty where there is none.
    pub base: &'a [u8],
    /// What this device wrote, or what stands at the path.
    pub mine: &'a [u8],
    /// The other side.
    pub theirs: &'a [u8],
}

/// Makes one content of two.
pub trait Merger {
    /// The merged content, or why there is none.
    fn merge(&mut self, sides: MergeSides<'_>) -> Result<Vec<u8>, String>;

    /// Whether it needs a version that both sides came from.
    fn needs_base(&self) -> bool {
        false
    }
}

/// Merges text by lines; refuses where both sides changed the same lines.
#[derive(Clone, Copy, Default, Debug)]
pub struct TextMerger;

impl Merger for TextMerger {
    fn merge(&mut self, sides: MergeSides<'_>) -> Result<Vec<u8>, String> {
        let MergeSides { base, mine, theirs, .. } = sides;
        if [base, mine, theirs].iter().any(|side| side.contains(&0)) {
            return Err("it is no text".to_owned());
        }
        merge_lines(base, mine, theirs).map_err(|_| "both sides changed the same lines".to_owned())
    }

    fn needs_base(&self) -> bool {
        true
    }
}

/// A merge by lines: clean, or with the lines that both changed between marks, this device's first.
///
/// The sides are put in one order first, so that a clean merge is the same wherever it is made.
pub fn merge_lines(base: &[u8], mine: &[u8], theirs: &[u8]) -> Result<Vec<u8>, Vec<u8>> {
    let (first, second) = if mine <= theirs { (mine, theirs) } else { (theirs, mine) };
    match diffy::merge_bytes(base, first, second) {
        Ok(merged) => Ok(merged),
        Err(_) => Err(diffy::merge_bytes(base, mine, theirs).unwrap_or_else(|marked| marked)),
    }
}

impl Replica {
    /// Settles the conflict at a path by merging its two sides, and synchronises.
    pub fn resolve_merged(
        &mut self,
        path: &RelPath,
        merger: &mut dyn Merger,
        observer: &mut dyn Observer,
    ) -> Result<Report, QueryError> {
        let before = self.sync(SyncOptions::default(), observer)?;
        let item = self.item_in_conflict(path)?;
        let settled = Settled { path: self.shown_path(&self.sides(path)?[0])?, kept: Kept::Merged };
        let merged = self.merged(path, &item, merger)?;
        self.settle_merged(&item, merged)?;
        let after = self.sync(SyncOptions::default(), observer)?;
        Ok(Report { settled: Some(settled), ..crate::resolve::both(&before, after) })
    }

    /// Merges what the vault's patterns name and merges cleanly; says how many conflicts that settled.
    pub(crate) fn merge_by_patterns(&mut self, observer: &mut dyn Observer) -> Result<u64, SyncError> {
        let path = RelPath::root().join(&Name::new(MERGE_FILE.as_bytes()).expect("a sound name"));
        // A file that cannot be read names nothing: no merge is made without its word.
        let text = read_small(&*self.parts.fs, &path).unwrap_or_default();
        if text.is_empty() {
            return Ok(0);
        }
        let Ok((patterns, bad)) = IgnoreRules::new(&String::from_utf8_lossy(&text), "") else { return Ok(0) };
        for line in bad {
            let text = format!("line {} of {MERGE_FILE} is no pattern: {:?} ({})", line.number, line.text, line.reason);
            observer.note(Note::Warning { text });
        }
        let mut settled = 0;
        for conflict in self.conflicts()? {
            if !patterns.covers(&conflict.path, false) {
                continue;
            }
            let merged = match self.item_in_conflict(&conflict.path) {
                Ok(item) => self.merged(&conflict.path, &item, &mut TextMerger).map(|merged| (item, merged)),
                Err(error) => Err(error),
            };
            let (item, merged) = match merged {
                Ok(merged) => merged,
                Err(QueryError::Sync(error)) => return Err(error),
                // It stays a conflict like any other.
                Err(_) => continue,
            };
            self.settle_merged(&item, merged)?;
            settled += 1;
            let (path, cause) = (conflict.path, format!("{MERGE_FILE} names it, and it merges cleanly"));
            let step = PlannedStep { direction: Direction::Up, action: Action::Edit, path, to: None, cause };
            observer.note(Note::Step(step));
        }
        Ok(settled)
    }

    /// The item of which two contents stand against each other at a path.
    fn item_in_conflict(&self, path: &RelPath) -> Result<Item, QueryError> {
        let refused = |reason: &str| QueryError::NotMergeable { path: path.clone(), reason: reason.to_owned() };
        let sides = self.sides(path)?;
        let same = sides.iter().all(|side| side.item == sides[0].item);
        let item = self.parts.index.item(sides[0].item)?;
        let Some(item) = item.filter(|_| same) else {
            return Err(refused("two different files have this name, and neither came from the other"));
        };
        match item.seats().len() {
            2 => Ok(item),
            _ => Err(refused("more than two contents stand against each other: settle all but two first")),
        }
    }

    fn merged(&self, path: &RelPath, item: &Item, merger: &mut dyn Merger) -> Result<(Vec<u8>, i64), QueryError> {
        let refused = |reason: &str| QueryError::NotMergeable { path: path.clone(), reason: reason.to_owned() };
        let own = self.keys.device.device();
        let seats = item.seats();
        let mut heads: Vec<&Head> = seats.iter().map(|seat| seat.head).collect();
        // What this device wrote is its own side; where it wrote neither, or both, it is what stands at the path.
        heads.sort_by_key(|head| head.dot.device != own);
        let base = match common_ancestor(heads[0], heads[1]) {
            Some(dot) => self.parts.index.version(item.id, &dot).map_err(SyncError::from)?,
            None => None,
        };
        if base.is_none() && merger.needs_base() {
            return Err(refused("no version is known that both sides came from"));
        }
        let base = base.map_or(Ok(Vec::new()), |base| self.bytes_of(path, &base.content))?;
        let (mine, theirs) = (self.bytes_of(path, &heads[0].content)?, self.bytes_of(path, &heads[1].content)?);
        let sides = MergeSides { path, base: &base, mine: &mine, theirs: &theirs };
        let merged = merger.merge(sides).map_err(|reason| refused(&reason))?;
        if merged.len() as u64 > MAX_MERGED {
            return Err(refused("it is too large to be merged"));
        }
        let times = heads.iter().filter_map(|head| match &head.content {
            Content::File(file) => Some(file.mtime),
            _ => None,
        });
        Ok((merged, times.max().unwrap_or_default()))
    }

    fn bytes_of(&self, path: &RelPath, content: &Content) -> Result<Vec<u8>, QueryError> {
        let refused = |reason: &str| QueryError::NotMergeable { path: path.clone(), reason: reason.to_owned() };
        let Content::File(file) = content else { return Err(refused("it is no file on both sides")) };
        if file.size > MAX_MERGED {
            return Err(refused("it is too large to be merged"));
        }
        let parts = &self.parts;
        let mut reader = ContentReader::new(&parts.index, &*parts.store, &self.keys.ring, parts.settings.threads);
        let mut bytes = Vec::new();
        reader.read(file, &mut bytes).map_err(|error| match error {
            ReadError::Missing(reason) => QueryError::ContentMissing { path: path.clone(), reason },
            ReadError::Output(error) => QueryError::Output(error),
            ReadError::Sync(error) => error.into(),
        })?;
        Ok(bytes)
    }

    /// Seals a packet that puts a merged content in the place of all heads of an item.
    fn settle_merged(&mut self, item: &Item, (bytes, mtime): (Vec<u8>, i64)) -> Result<(), SyncError> {
        let parts = &mut self.parts;
        let ring = &self.keys.ring;
        let lookup = parts.index.chunk_lookup(&crate::garbage::referable(&parts.index, &self.keys)?)?;
        let boundaries = Boundaries::new(ring.chunker_seed());
        let mut codec = ChunkCodec::new();
        let mut writer = PackWriter::new(ring.vault(), ring.current());
        let (mut list, mut inline) = (Vec::new(), Vec::new());
        for plain in boundaries.split(&bytes) {
            let id = ring.chunk_id(plain);
            list.push(ChunkRef { id, len: plain.len() as u32 });
            if lookup.is_stored(&id) || inline.iter().any(|(known, _)| *known == id) {
                continue;
            }
            if plain.len() <= INLINE_CHUNK {
                inline.push((id, plain.to_vec()));
                continue;
            }
            let sealed = seal_known_chunk(ring, &mut codec, id, plain, parts.entropy.nonce())
                .expect("a chunk that the chunker cut is of a sound length");
            writer.push(&sealed)?;
        }
        if list.len() > MAX_INLINE_CHUNKS {
            let source = io::Error::other("a merged file of more chunks than a packet lists");
            return Err(SyncError::Disk { path: RelPath::root(), source });
        }
        let mut packs = Vec::new();
        if !writer.is_empty() {
            let (index, bytes) = writer.finish(ring, parts.entropy.nonce())?;
            parts.store.put_new(&pack::object_name(&index.pack), &bytes)?;
            packs.push(index);
        }
        let id = ring.content_id(list.iter().map(|chunk| &chunk.id));
        let needs = parts.index.packs_of(list.iter().map(|chunk| &chunk.id))?;
        let content =
            Content::File(FileContent { id, size: bytes.len() as u64, mtime, chunks: ChunkList::Inline(list) });
        let replaces: Vec<Dot> = item.heads.iter().map(|head| head.dot).collect();
        let changes = vec![Change::Content { item: item.id, content, replaces, trail: Vec::new() }];
        let now_ms = time_of_operation(&parts.index, &self.keys, parts.clock.now_ms())?;
        parts.index.begin()?;
        for pack in &packs {
            parts.index.put_pack(pack, PackState::Stored)?;
        }
        let draft = Draft { needs, packs, inline, changes };
        seal_own(&mut parts.index, &self.keys, now_ms, draft, &mut *parts.entropy)?;
        parts.index.touch(item.id)?;
        Ok(parts.index.commit()?)
    }
}

/// The newest version that both heads came from.
fn common_ancestor(one: &Head, other: &Head) -> Option<Dot> {
    let line: Vec<Dot> = std::iter::once(other.dot).chain(other.trail.iter().map(|mark| mark.dot)).collect();
    one.trail.iter().map(|mark| mark.dot).find(|dot| line.contains(dot))
}

/// The file of patterns for which clean merges are made by themselves, at the root of the folder.
pub const MERGE_FILE: &str = ".packetboatmerge";
/// Largest file that is merged, in bytes.
const MAX_MERGED: u64 = 4 * 1024 * 1024;

#[cfg(test)]
mod tests {
    use packetboat_testkit::rng::Rng;

    use super::*;

    #[test]
    fn changes_of_different_lines_are_merged_and_of_the_same_are_not() {
        let base = b"one\ntwo\nthree\nfour\nfive\n";
        let (mine, theirs) = (b"ONE\ntwo\nthree\nfour\nfive\n", b"one\ntwo\nthree\nfour\nFIVE\n");
        assert_eq!(merge_lines(base, mine, theirs).unwrap(), b"ONE\ntwo\nthree\nfour\nFIVE\n");
        assert!(merge_lines(base, mine, b"uno\ntwo\nthree\nfour\nfive\n").is_err());
    }

    /// Two devices that merge one conflict at once must write the same bytes, or make a new conflict.
    #[test]
    fn a_clean_merge_does_not_depend_on_whose_side_is_whose() {
        let mut rng = Rng::new(1);
        let mut clean = 0;
        for _ in 0..5_000 {
            let base: Vec<u64> = (0..rng.below(10)).map(|_| rng.below(5)).collect();
            let mut edited = || {
                let mut lines = base.clone();
                for _ in 0..=rng.below(2) {
                    let at = rng.index(lines.len() + 1);
                    match rng.below(3) {
                        0 => lines.insert(at, rng.below(9)),
                        1 if at < lines.len() => lines[at] = rng.below(9),
                        _ if at < lines.len() => drop(lines.remove(at)),
                        _ => {}
                    }
                }
                lines
            };
            let (mine, theirs) = (edited(), edited());
            let text = |lines: &[u64]| lines.iter().map(|line| format!("{line}\n")).collect::<String>().into_bytes();
            let (base, mine, theirs) = (text(&base), text(&mine), text(&theirs));
            let merged = merge_lines(&base, &mine, &theirs).ok();
            clean += u32::from(merged.is_some());
            assert_eq!(merged, merge_lines(&base, &theirs, &mine).ok());
        }
        assert!(clean > 1_000, "{clean}");
    }
}
