//! Two sides of a conflict become one content: when somebody asks, or for files that were named.

mod support;

use packetboat_core::name::RelPath;
use packetboat_engine::error::QueryError;
use packetboat_engine::merge::{MERGE_FILE, MergeSides, Merger, TextMerger};
use packetboat_engine::ports::Silent;
use packetboat_engine::replica::At;
use support::{Pair, path};

const BASE: &str = "one\ntwo\nthree\nfour\nfive\n";
const MINE: &str = "ONE\ntwo\nthree\nfour\nfive\n";
const THEIRS: &str = "one\ntwo\nthree\nfour\nFIVE\n";
const MERGED: &str = "ONE\ntwo\nthree\nfour\nFIVE\n";

/// Both devices changed the file without knowing of each other; neither has learned it yet.
fn apart(mine: &str, theirs: &str, patterns: &str) -> Pair {
    let mut pair = Pair::new();
    if !patterns.is_empty() {
        pair.laptop.fs.write(MERGE_FILE, patterns.as_bytes()).unwrap();
    }
    pair.laptop.fs.write("notes.md", BASE.as_bytes()).unwrap();
    pair.settle();
    pair.laptop.fs.write("notes.md", mine.as_bytes()).unwrap();
    pair.desk.fs.write("notes.md", theirs.as_bytes()).unwrap();
    pair
}

#[test]
fn sides_that_changed_different_lines_are_merged_and_both_stay_in_history() {
    let mut pair = apart(MINE, THEIRS, "");
    pair.settle();
    let then = pair.pass();
    assert_eq!(pair.laptop.replica.conflicts().unwrap().len(), 1);
    pair.desk.replica.resolve_merged(&path("notes.md"), &mut TextMerger, &mut Silent).unwrap();
    pair.settle();
    pair.assert_files(&[("notes.md", MERGED)]);
    assert!(pair.laptop.replica.conflicts().unwrap().is_empty());
    for (device, text) in [("laptop", MINE), ("desk", THEIRS)] {
        let log = pair.laptop.replica.log(Some(&path("notes.md")), 100).unwrap();
        let packet = log.iter().find(|line| line.device == device && line.text == "changed").unwrap().packet;
        let mut out = Vec::new();
        let at = if device == "laptop" { At::Packet(packet) } else { At::Time(then) };
        pair.laptop.replica.show(&path("notes.md"), Some(&at), &mut out).unwrap();
        let shown = String::from_utf8(out).unwrap();
        assert!(shown == text || device == "desk", "{shown}");
    }
}

#[test]
fn sides_that_changed_the_same_lines_are_refused_and_stay() {
    let mut pair = apart(MINE, "uno\ntwo\nthree\nfour\nfive\n", "*.md\n");
    pair.settle();
    let refused = pair.laptop.replica.resolve_merged(&path("notes.md"), &mut TextMerger, &mut Silent);
    assert!(matches!(refused, Err(QueryError::NotMergeable { .. })), "{refused:?}");
    assert_eq!(pair.laptop.files().len(), 2, "{:?}", pair.laptop.files());
    assert_eq!(pair.laptop.replica.conflicts().unwrap().len(), 1);
}

#[test]
fn named_files_are_merged_by_themselves_and_others_never() {
    for (patterns, merged) in [("*.md\n", true), ("*.txt\n", false), ("", false)] {
        let mut pair = apart(MINE, THEIRS, patterns);
        pair.settle();
        let files = pair.desk.files();
        let conflict = files.iter().any(|(path, _)| path.contains("(conflict"));
        assert_eq!(conflict, !merged, "{patterns:?}: {files:?}");
        assert_eq!(files.iter().any(|(_, text)| text == MERGED), merged, "{patterns:?}: {files:?}");
        assert_eq!(pair.laptop.files(), files);
    }
}

#[test]
fn two_devices_that_merge_one_conflict_at_once_agree() {
    let mut pair = apart(MINE, THEIRS, "");
    pair.settle();
    // Neither hears of the other's merge before it has made its own.
    let mut third = pair.third();
    third.sync();
    pair.out.store(true, std::sync::atomic::Ordering::SeqCst);
    for device in [&mut pair.laptop, &mut pair.desk] {
        device.fs.write(MERGE_FILE, b"notes.md\n").unwrap();
    }
    pair.out.store(false, std::sync::atomic::Ordering::SeqCst);
    pair.settle();
    for device in [&mut pair.laptop, &mut pair.desk] {
        assert!(device.replica.conflicts().unwrap().is_empty());
        assert_eq!(device.files().iter().filter(|(_, text)| text == MERGED).count(), 1, "{:?}", device.files());
    }
    // A merge of the merge with an edit that had not seen it goes the same way.
    third.fs.write("notes.md", MINE.replace("three", "THREE").as_bytes()).unwrap();
    third.sync();
    pair.settle();
    third.sync();
    assert_eq!(pair.laptop.files(), pair.desk.files());
}

#[test]
fn a_file_made_on_both_sides_has_no_common_past_and_is_left_to_a_tool() {
    let mut pair = Pair::new();
    pair.laptop.fs.write("notes.md", MINE.as_bytes()).unwrap();
    pair.desk.fs.write("notes.md", THEIRS.as_bytes()).unwrap();
    pair.settle();
    let refused = pair.laptop.replica.resolve_merged(&path("notes.md"), &mut TextMerger, &mut Silent);
    assert!(matches!(refused, Err(QueryError::NotMergeable { .. })), "{refused:?}");
}

#[test]
fn a_tool_gets_the_three_contents_and_its_answer_is_kept() {
    struct Tool(Vec<(RelPath, String, String, String)>);
    impl Merger for Tool {
        fn merge(&mut self, sides: MergeSides<'_>) -> Result<Vec<u8>, String> {
            let text = |bytes: &[u8]| String::from_utf8(bytes.to_vec()).unwrap();
            self.0.push((sides.path.clone(), text(sides.base), text(sides.mine), text(sides.theirs)));
            Ok(b"by hand\n".to_vec())
        }
    }
    let mut pair = apart("mine\n", "theirs\n", "");
    pair.settle();
    let mut tool = Tool(Vec::new());
    pair.laptop.replica.resolve_merged(&path("notes.md"), &mut tool, &mut Silent).unwrap();
    assert_eq!(tool.0, [(path("notes.md"), BASE.to_owned(), "mine\n".to_owned(), "theirs\n".to_owned())]);
    pair.settle();
    pair.assert_files(&[("notes.md", "by hand\n")]);
}
