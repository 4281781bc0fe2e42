//! Every statement of the index, and how SQLite would find its rows.
//!
//! A statement that reads a table from end to end is not noticed in a small vault and takes minutes in a large one.
//! So the statements are taken from the source itself, each is planned on an index with some rows and without, with
//! and without what `PRAGMA optimize` gathers, and one that reads a whole table, or sorts what it read, must be listed
//! below with the reason why that is harmless.

use std::collections::BTreeSet;
use std::path::Path;

use packetboat_core::tree::TreeWrite;
use rusqlite::Connection;

use super::*;

/// The statements that may read or sort all of a table: how they begin, and why that is harmless.
const ALLOWED: &[(&str, &str)] = &[
    ("SELECT n, id FROM device", "a row for each device"),
    ("SELECT device, counter, hash FROM lane", "a row for each device"),
    ("SELECT device, public_key", "a row for each device"),
    (
        "SELECT p.device, p.counter, p.hash",
        "packets come in order; devices are looked up, and those of one time are sorted",
    ),
    ("SELECT id FROM pack WHERE state = 0", "an index of those that are pending alone, which are few"),
    ("SELECT kind, subject, text FROM problem", "problems are few, and shown as a whole"),
    ("SELECT count(*) FROM sqlite_schema", "once, when the index is opened"),
    ("SELECT count(*) FROM touched", "whoever counts them goes through them next"),
    ("SELECT count(*) FROM local", "where much has vanished, and where a person asks"),
    ("SELECT count(*) FROM item", "where a person asks"),
    ("SELECT count(*) FROM dir", "where a person asks"),
    ("UPDATE dir SET btime = 0", "where the disk has given all its numbers anew, and every file is read"),
    ("SELECT item, data FROM history WHERE kind = ?1 AND instr", "where a person asks for what had a name once"),
    ("INSERT OR IGNORE INTO stray (item, dir, name) SELECT n, dir - ?1", "all items are deleted next"),
    ("SELECT key FROM chunk", "once in a round, after thousands of look-ups of single chunks"),
    ("SELECT id FROM inline", "the same"),
    ("SELECT p.chunks, k.n, k.state FROM part p JOIN pack k", "an index in memory, of tests"),
    ("SELECT id, device FROM inline", "the same"),
    ("SELECT c.n FROM item c JOIN touched t", "what is sorted is one page of what is to be done"),
    ("SELECT p.chunks, k.id, k.epoch, k.state FROM chunk c", "the few places of one chunk are sorted"),
    ("SELECT p.chunks, p.n, k.n FROM chunk c", "the same"),
];

#[test]
fn every_statement_finds_its_rows_by_an_index() {
    let statements = statements();
    assert!(statements.len() > 100, "only {} statements were found in the source", statements.len());
    let mut used = BTreeSet::new();
    let mut whole = BTreeSet::new();
    for index in [Index::in_memory().unwrap(), filled(false), filled(true)] {
        for statement in &statements {
            for step in plan(&index.sql, statement) {
                if !is_whole(&step) {
                    continue;
                }
                match ALLOWED.iter().find(|(start, _)| statement.starts_with(start)) {
                    Some((start, _)) => drop(used.insert(*start)),
                    None => drop(whole.insert(format!("{step}: {statement}"))),
                }
            }
        }
    }
    let listed: Vec<_> = whole.into_iter().collect();
    assert!(listed.is_empty(), "these read or sort a whole table:\n{}", listed.join("\n"));
    for (start, _) in ALLOWED {
        assert!(used.contains(start), "nothing that is allowed begins with {start:?}; take it from the list");
    }
}

#[test]
fn a_statement_that_reads_a_whole_table_is_noticed() {
    let index = filled(true);
    for whole in [
        "SELECT n FROM item WHERE name = ?1",
        "SELECT n FROM item WHERE parent = ?1 ORDER BY name",
        "DELETE FROM packet WHERE time < ?1",
        "UPDATE part SET chunks = ?1 WHERE pack = ?2",
    ] {
        assert!(plan(&index.sql, whole).iter().any(|step| is_whole(step)), "{whole}");
    }
    for found in ["SELECT name FROM item WHERE n = ?1", "SELECT data FROM local WHERE dir = ?1 ORDER BY name"] {
        assert!(!plan(&index.sql, found).iter().any(|step| is_whole(step)), "{found}");
    }
}

/// Whether a step of a plan takes the longer, the larger a table is, whatever is looked for.
fn is_whole(step: &str) -> bool {
    // A subquery and a constant row are scanned too, and are no tables.
    let scans = step.starts_with("SCAN ") && step != "SCAN CONSTANT ROW";
    scans || step.starts_with("USE TEMP B-TREE") || step.contains("AUTOMATIC")
}

/// The steps by which SQLite would carry a statement out.
fn plan(sql: &Connection, statement: &str) -> Vec<String> {
    let mut explain = sql
        .prepare(&format!("EXPLAIN QUERY PLAN {statement}"))
        .unwrap_or_else(|error| panic!("no statement: {error}: {statement}"));
    let mut rows = explain.raw_query();
    let mut steps = Vec::new();
    while let Some(row) = rows.next().unwrap() {
        steps.push(row.get(3).unwrap());
    }
    steps
}

/// An index with some rows in the tables that grow with a vault.
fn filled(analysed: bool) -> Index {
    let mut index = Index::in_memory().unwrap();
    index.begin().unwrap();
    for n in 0..600u32 {
        let parent = if n < 20 { ItemId::ROOT } else { item_id(n % 20) };
        let text = format!("file {n}");
        let content = if n < 20 { Content::Directory } else { file([n as u8; 32], n, 7) };
        index.put_item(&new_item(item_id(n), parent, &text, content)).unwrap();
        index.touch(item_id(n)).unwrap();
        let dir = if n < 20 { DirId::ROOT } else { DirId(u64::from(n % 20) + 10) };
        let mut local = entry(dir, &text, item_id(n));
        local.own_dir = (n < 20).then(|| DirId(u64::from(n) + 10));
        index.put_entry(&local).unwrap();
    }
    index.commit().unwrap();
    if analysed {
        index.sql.execute_batch("ANALYZE").unwrap();
    }
    index
}

/// All statements in the source of the index, each once, on one line.
fn statements() -> BTreeSet<String> {
    let source = Path::new(concat!(env!("CARGO_MANIFEST_DIR"), "/src/index"));
    let mut statements = BTreeSet::new();
    let files = std::fs::read_dir(source).unwrap().map(|file| file.unwrap().path());
    for file in files.filter(|file| file.extension().is_some_and(|extension| extension == "rs")) {
        let text = std::fs::read_to_string(&file).unwrap();
        for literal in literals(&text) {
            for statement in literal.split(';') {
                let statement = statement.split_whitespace().collect::<Vec<_>>().join(" ");
                if VERBS.iter().any(|verb| statement.starts_with(verb)) {
                    statements.insert(statement);
                }
            }
        }
    }
    statements
}

const VERBS: [&str; 5] = ["SELECT ", "INSERT ", "UPDATE ", "DELETE ", "WITH "];

/// The string literals of a source file; none of them is a raw one.
fn literals(source: &str) -> Vec<String> {
    let mut found = Vec::new();
    let mut rest = source.chars();
    while let Some(next) = rest.next() {
        match next {
            '/' if rest.as_str().starts_with('/') => drop(rest.by_ref().find(|it| *it == '\n')),
            '\'' if rest.as_str().starts_with("\"'") => drop(rest.nth(1)),
            '"' => {
                let mut literal = String::new();
                while let Some(next) = rest.next().filter(|next| *next != '"') {
                    match next {
                        '\\' => match rest.next() {
                            Some('\n') | None => {}
                            Some(escaped) => literal.push(escaped),
                        },
                        next => literal.push(next),
                    }
                }
                found.push(literal);
            }
            _ => {}
        }
    }
    found
}
