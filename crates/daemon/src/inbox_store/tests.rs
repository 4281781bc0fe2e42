//! The record on disk against the record in memory, and through crashes at every step.

#[path = "../../../mail/tests/support/crashes.rs"]
mod crashes;
#[path = "../../../mail/tests/support/faulty.rs"]
mod faulty;

use std::collections::BTreeSet;
use std::time::SystemTime;

use packetboat_mail::fetched::{MemoryFetched, Path};
use packetboat_mail::maildir::{Maildir, UniqueNames};
use proptest::prelude::*;
use tempfile::TempDir;

use self::crashes::{arrivals, expected, run};
use self::faulty::{Fatal, ForgetfulFolders, Loss, Steps};
use super::*;

fn check_settled(store: &mut InboxStore, story: &str) {
    assert!(store.pending().unwrap().is_empty(), "{story}");
    for (arrival, _) in arrivals() {
        assert!(store.is_known(&arrival.origin).unwrap(), "{story}: {:?}", arrival.origin);
    }
}

#[test]
fn a_crash_at_any_step_loses_and_doubles_nothing() {
    let home = TempDir::new().unwrap();
    let whole = Steps::default();
    run(&mut InboxStore::open(&home.path().join("whole")).unwrap(), ForgetfulFolders::default(), 1, &whole).unwrap();
    let whole = whole.taken();
    assert!(whole > 40);
    for loss in [Loss::Nothing, Loss::Everything, Loss::Bytes] {
        for (number, fatal) in (1..=whole).flat_map(|step| [Fatal::Before(step), Fatal::After(step)]).enumerate() {
            let path = home.path().join(format!("{loss:?}-{number}"));
            let folders = ForgetfulFolders::default();
            let mut store = InboxStore::open(&path).unwrap();
            run(&mut store, folders.copy_handle(), 1, &Steps::fatal(fatal)).unwrap_err();
            drop(store);
            folders.lose(loss);
            let mut store = InboxStore::open(&path).unwrap();
            run(&mut store, folders.copy_handle(), 2, &Steps::default()).unwrap();
            let mut delivered = folders.delivered();
            delivered.sort();
            let story = format!("{fatal:?}, {loss:?}");
            assert_eq!(delivered, expected(), "{story}");
            check_settled(&mut store, &story);
        }
    }
}

/// The bytes of a file as they came.
fn received(path: &FilePath) -> Vec<u8> {
    std::fs::read_to_string(path).unwrap().replace('\n', "\r\n").into_bytes()
}

/// What is in the folders of a real Maildir, the drafts left out.
fn delivered(root: &FilePath) -> Vec<(FolderName, Vec<u8>)> {
    let mut found = Vec::new();
    for (directory, mailbox) in [("", "INBOX"), (".Archive", "Archive")] {
        for part in ["new", "cur"] {
            let Ok(entries) = std::fs::read_dir(root.join(directory).join(part)) else { continue };
            let folder = FolderName::for_mailbox(mailbox, Some("/")).unwrap();
            found.extend(entries.map(|entry| (folder.clone(), received(&entry.unwrap().path()))));
        }
    }
    found.sort();
    found
}

#[test]
fn a_process_killed_at_any_step_leaves_a_real_maildir_that_is_put_in_order() {
    let home = TempDir::new().unwrap();
    let place = |name: &str| (home.path().join(format!("{name}.db")), home.path().join(name));
    let (path, root) = place("whole");
    let whole = Steps::default();
    run(&mut InboxStore::open(&path).unwrap(), Maildir::open(&root).unwrap(), 1, &whole).unwrap();
    assert_eq!(delivered(&root), expected());
    for step in 1..=whole.taken() {
        for fatal in [Fatal::Before(step), Fatal::After(step)] {
            let (path, root) = place(&format!("{fatal:?}"));
            let killed = Steps::fatal(fatal);
            run(&mut InboxStore::open(&path).unwrap(), Maildir::open(&root).unwrap(), 1, &killed).unwrap_err();
            let mut store = InboxStore::open(&path).unwrap();
            run(&mut store, Maildir::open(&root).unwrap(), 2, &Steps::default()).unwrap();
            assert_eq!(delivered(&root), expected(), "{fatal:?}");
            check_settled(&mut store, &format!("{fatal:?}"));
        }
    }
}

#[test]
fn a_record_of_a_newer_version_is_not_touched() {
    let home = TempDir::new().unwrap();
    let path = home.path().join("inbox.db");
    drop(InboxStore::open(&path).unwrap());
    Connection::open(&path).unwrap().pragma_update(None, "user_version", 3).unwrap();
    let error = InboxStore::open(&path).unwrap_err();
    assert_eq!(error.source.to_string(), "a newer version wrote it (its format is 3)");
}

#[test]
fn a_record_of_the_first_version_goes_on() {
    let home = TempDir::new().unwrap();
    let path = home.path().join("inbox.db");
    let connection = Connection::open(&path).unwrap();
    connection.execute_batch(SCHEMA).unwrap();
    connection.execute_batch("INSERT INTO message VALUES (1, '', zeroblob(32), 'n', 1, 1, 0, 1); INSERT INTO seen_uidl VALUES ('a', 'u', 1)").unwrap();
    connection.pragma_update(None, "user_version", 1).unwrap();
    drop(connection);
    let mut store = InboxStore::open(&path).unwrap();
    let item = store.untimed_items().unwrap().remove(0);
    store.time_items(&[(item, 77)]).unwrap();
    drop(store);
    let mut store = InboxStore::open(&path).unwrap();
    assert_eq!(store.held_items().unwrap().iter().map(|item| item.arrival).collect::<Vec<_>>(), [77]);
    assert!(store.untimed_items().unwrap().is_empty());
}

#[test]
fn a_file_that_is_no_record_is_an_error() {
    let home = TempDir::new().unwrap();
    let path = home.path().join("inbox.db");
    std::fs::write(&path, vec![7; 10_000]).unwrap();
    assert!(InboxStore::open(&path).is_err());
    let path = home.path().join("other.db");
    drop(InboxStore::open(&path).unwrap());
    let connection = Connection::open(&path).unwrap();
    connection.execute_batch("INSERT INTO message VALUES (1, '.', zeroblob(32), 'n', 1, 1, 9, 0, NULL); INSERT INTO intent VALUES ('n', 1, 'a', 'm', 1, NULL, 'u', 99)").unwrap();
    assert!(InboxStore::open(&path).unwrap().pending().is_err());
}

#[test]
fn the_record_waits_for_the_disk_with_every_transaction() {
    let home = TempDir::new().unwrap();
    let store = InboxStore::open(&home.path().join("inbox.db")).unwrap();
    let pragma =
        |name: &str| store.connection.pragma_query_value(None, name, |row| row.get::<_, rusqlite::types::Value>(0));
    assert_eq!(pragma("journal_mode").unwrap(), rusqlite::types::Value::Text("wal".to_owned()));
    assert_eq!(pragma("synchronous").unwrap(), rusqlite::types::Value::Integer(2));
}

/// What may be asked of a record.
#[derive(Clone, Debug)]
enum Step {
    Deliver(Vec<(Origin, u8, bool)>),
    Abandon(Origin, u8),
    Note(Vec<(u32, u8)>, Vec<u32>, u64),
    Delete(u8),
}

fn mailbox() -> MailboxKey {
    MailboxKey { account: "a".into(), mailbox: "INBOX".into(), validity: 3 }
}

fn origin() -> impl Strategy<Value = Origin> {
    prop_oneof![
        (1u32..8).prop_map(|uid| Origin::Imap { mailbox: mailbox(), uid }),
        (1u32..4).prop_map(|uid| Origin::Imap { mailbox: MailboxKey { validity: 4, ..mailbox() }, uid }),
        "[ab]".prop_map(|uidl| Origin::Pop3 { account: "a".into(), uidl: uidl.into() }),
    ]
}

fn step() -> impl Strategy<Value = Step> {
    prop_oneof![
        4 => prop::collection::vec((origin(), 0u8..6, any::<bool>()), 1..5).prop_map(Step::Deliver),
        1 => (origin(), 0u8..6).prop_map(|(origin, number)| Step::Abandon(origin, number)),
        2 => (prop::collection::vec((1u32..9, 0u8..32), 0..4), prop::collection::vec(1u32..9, 0..4), 0u64..9)
            .prop_map(|(flags, gone, modseq)| Step::Note(flags, gone, modseq)),
        1 => (0u8..6).prop_map(Step::Delete),
    ]
}

/// Does a step as a deliverer would, on any record.
fn take(store: &mut impl FetchedStore, step: &Step, names: &mut UniqueNames) {
    let digest = |number: u8| MessageDigest([number; 32]);
    let inbox = FolderName::inbox();
    let mut intent = |origin: &Origin, number: u8, seen: bool| Intent {
        origin: origin.clone(),
        folder: inbox.clone(),
        digest: digest(number),
        name: names.next(SystemTime::UNIX_EPOCH),
        flags: if seen { Flags::SEEN } else { Flags::default() },
        size: 7,
        arrived: SystemTime::UNIX_EPOCH,
        path: Path::Link,
    };
    match step {
        Step::Deliver(messages) => {
            let (mut intents, mut sightings, mut fresh) = (Vec::<Intent>::new(), Vec::new(), BTreeSet::new());
            for (origin, number, seen) in messages {
                if store.message(&inbox, &digest(*number)).unwrap().is_none() && fresh.insert(*number) {
                    intents.push(intent(origin, *number, *seen));
                } else {
                    let (folder, digest) = (inbox.clone(), digest(*number));
                    sightings.push(Sighting { origin: origin.clone(), folder, digest, flags: Flags::FLAGGED });
                }
            }
            store.intend(&intents).unwrap();
            let mut pending = store.pending().unwrap();
            pending.sort_by(|one, other| one.name.cmp(&other.name));
            let mut expected = intents.clone();
            expected.sort_by(|one, other| one.name.cmp(&other.name));
            assert_eq!(pending, expected);
            let finished: Vec<_> = intents.into_iter().map(|intent| intent.name).collect();
            store.finish(&finished, &sightings).unwrap();
        }
        Step::Abandon(origin, number) => {
            if store.message(&inbox, &digest(*number)).unwrap().is_none() {
                let intent = intent(origin, *number, false);
                store.intend(std::slice::from_ref(&intent)).unwrap();
                store.abandon(&intent.name).unwrap();
            }
        }
        Step::Note(flags, gone, modseq) => {
            let flags: Vec<_> = flags.iter().map(|(uid, bits)| (*uid, Flags::from_bits(*bits).unwrap())).collect();
            store.note(&mailbox(), &flags, &gone.iter().copied().collect(), *modseq).unwrap();
        }
        Step::Delete(number) => store.delete(&inbox, &digest(*number)).unwrap(),
    }
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(60))]
    #[test]
    fn it_keeps_what_the_record_in_memory_keeps(steps in prop::collection::vec(step(), 1..20)) {
        let home = TempDir::new().unwrap();
        let path = home.path().join("inbox.db");
        let (mut store, mut model) = (InboxStore::open(&path).unwrap(), MemoryFetched::default());
        let (mut names, mut names_of_model) = (UniqueNames::new("h", 1, 1), UniqueNames::new("h", 1, 1));
        for step in &steps {
            take(&mut store, step, &mut names);
            take(&mut model, step, &mut names_of_model);
        }
        drop(store);
        let mut store = InboxStore::open(&path).unwrap();
        for key in [mailbox(), MailboxKey { validity: 4, ..mailbox() }, MailboxKey { validity: 5, ..mailbox() }] {
            prop_assert_eq!(store.mailbox(&key).unwrap(), model.mailbox(&key).unwrap());
            prop_assert_eq!(store.flags(&key).unwrap(), model.flags(&key).unwrap());
        }
        for number in 0..6 {
            let (inbox, digest) = (FolderName::inbox(), MessageDigest([number; 32]));
            prop_assert_eq!(store.message(&inbox, &digest).unwrap(), model.message(&inbox, &digest).unwrap());
        }
        for uidl in ["a", "b"] {
            let origin = Origin::Pop3 { account: "a".into(), uidl: uidl.into() };
            prop_assert_eq!(store.is_known(&origin).unwrap(), model.is_known(&origin).unwrap());
        }
        prop_assert!(store.pending().unwrap().is_empty());
    }
}
