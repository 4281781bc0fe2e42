//! What disks and rounds show, for comparison and for the trace.

use super::*;

/// What a user sees: everything but Packetboat's own directory.
pub(super) fn visible(fs: &SimFs) -> BTreeMap<Vec<u8>, Node> {
    let mut tree = fs.tree();
    tree.retain(|path, _| !path.starts_with(b".packetboat/") && path != b".packetboat");
    tree
}

/// The names and contents on a disk, staging included, in one line.
pub(super) fn listing(fs: &SimFs) -> String {
    let short = |bytes: &[u8]| String::from_utf8_lossy(&bytes[..bytes.len().min(8)]).into_owned();
    let show = |(path, node): (&Vec<u8>, &Node)| {
        format!("{}={}", String::from_utf8_lossy(path), content(node).map_or("/".to_owned(), |bytes| short(bytes)))
    };
    fs.tree().iter().map(show).collect::<Vec<_>>().join(" ")
}

pub(super) fn content(node: &Node) -> Option<&Vec<u8>> {
    match node {
        Node::File { bytes, .. } => Some(bytes),
        Node::Symlink { target } => Some(target),
        _ => None,
    }
}

/// A touch does not travel, so times may differ where contents agree.
pub(super) fn without_mtime(node: &Node) -> Node {
    match node.clone() {
        Node::File { bytes, mode, xattrs, .. } => Node::File { bytes, mode, xattrs, mtime: 0 },
        node => node,
    }
}

pub(super) fn assert_same_tree(expected: &BTreeMap<Vec<u8>, Node>, found: &BTreeMap<Vec<u8>, Node>, who: &str) {
    let show = |tree: &BTreeMap<Vec<u8>, Node>| -> Vec<String> {
        tree.iter()
            .map(|(path, node)| match node {
                Node::File { bytes, mode, .. } => {
                    format!("{} = {} {mode:o}", String::from_utf8_lossy(path), String::from_utf8_lossy(bytes))
                }
                node => format!("{} {node:?}", String::from_utf8_lossy(path)),
            })
            .collect()
    };
    let (expected, found) = (show(expected), show(found));
    let missing: Vec<_> = expected.iter().filter(|line| !found.contains(line)).collect();
    let extra: Vec<_> = found.iter().filter(|line| !expected.contains(line)).collect();
    assert!(missing.is_empty() && extra.is_empty(), "{who} lacks {missing:#?}\nand has besides {extra:#?}");
}

pub(super) fn is_quiet(report: &Report) -> bool {
    report.published.packets == 0
        && report.packets_learned == 0
        && report.received.waiting == 0
        && report.sent == Default::default()
        && report.received == Default::default()
}

/// Whether nothing moved and something waits, as for what is ignored in its place.
pub(super) fn only_waits(report: &Report) -> bool {
    let mut report = report.clone();
    (report.received.waiting, report.received.bytes_written) = (0, 0);
    is_quiet(&report)
}

/// A report in words, without what is zero.
pub(super) fn describe(report: &Report) -> String {
    let text = format!("{:?} {:?} learned: {}", report.sent, report.received, report.packets_learned);
    text.split(", ").filter(|part| !part.ends_with(": 0")).collect::<Vec<_>>().join(", ")
}

/// Takes down what a round says it does.
#[derive(Default)]
pub(super) struct Watching(pub(super) Vec<String>);

impl Observer for Watching {
    fn wants_steps(&self) -> bool {
        true
    }
    fn phase(&mut self, _: Phase, _: Option<u64>, _: Option<u64>) {}
    fn advance(&mut self, _: u64, _: u64) {}
    fn note(&mut self, note: Note) {
        self.0.push(match note {
            Note::Step(step) => {
                let to = step.to.map_or_else(String::new, |to| format!(" to {to}"));
                format!("{:?} {:?} {}{to}: {}", step.direction, step.action, step.path, step.cause)
            }
            Note::Skipped { path, reason } => format!("skipped {path}: {reason}"),
            Note::Warning { text } => format!("warning: {text}"),
        });
    }
}
